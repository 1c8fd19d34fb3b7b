use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use futures_lite::future::block_on;
use http::Request;

use super::*;
use crate::access::{AccessKeys, Peer};
use crate::api::Status;
use crate::clock::Clock;
use crate::protocol::http::sign;
use crate::types::{MonotonicTime, Timestamp};

const KEYS: &str = r#"
    [[keys]]
    id = "shop"
    secret = "s1"
    publish = ["orders", "i%*"]
    consume = [{ topic = "orders", group = "GID-*" }]
"#;
/// 2023-11-14 22:13:20 UTC.
const NOW: Timestamp = Timestamp(1_700_000_000_000);
const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
const MESSAGE: &str = "<Message><MessageBody>abc</MessageBody></Message>";

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(0)
    }

    fn sleep(&self, _: Duration) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async {})
    }
}

/// Answers from what the request says.
struct Echo;

impl Backend for Echo {
    type Client = ();

    async fn publish(
        &self,
        topic: &TopicReference,
        message: PublishRequest,
        (): &(),
    ) -> Result<PublishedMessage, HttpError> {
        let receipt_handle = message.tag.map(|_| "half".to_owned());
        Ok(PublishedMessage { message_id: topic.to_string(), receipt_handle })
    }

    async fn consume(&self, consume: &Consume, (): &()) -> Result<Vec<DeliveredMessage>, HttpError> {
        if consume.topic.topic.as_str() == "missing" {
            return Err(HttpError::new(ErrorCode::TopicNotExist, "there is no topic `missing`"));
        }
        let message = DeliveredMessage {
            message_id: "ID".into(),
            receipt_handle: "h".into(),
            body: Bytes::from_static(b"body"),
            tag: None,
            properties: Default::default(),
            publish_time: NOW,
            first_consume_time: NOW,
            next_consume_time: NOW,
            attempt: 1,
        };
        Ok(vec![message; usize::from(consume.count) - 1])
    }

    async fn acknowledge(
        &self,
        _: &TopicReference,
        _: &LeaseEnd,
        handles: &[String],
    ) -> Result<Vec<HandleFailure>, HttpError> {
        let gone = handles.iter().filter(|handle| handle.starts_with("bad"));
        let fail = |handle: &String| HandleFailure {
            receipt_handle: handle.clone(),
            code: ErrorCode::ReceiptHandleError,
            message: "the handle has expired".into(),
        };
        Ok(gone.map(fail).collect())
    }
}

/// Keys that are believed as the broker does, but for those of one address, which is barred.
struct Holders {
    keys: AccessKeys,
    failed: Cell<u32>,
    denied: Cell<u32>,
}

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const BARRED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

impl Authentication for Holders {
    fn authenticate(
        &self,
        key_id: &str,
        peer: &Peer,
        is_signed_with: &dyn Fn(&Secret) -> bool,
    ) -> Result<Session, Failure> {
        if peer.address == Some(BARRED) {
            return Err(Failure::new(Status::Busy, "try again in 1 s"));
        }
        let key = self.keys.find(key_id).filter(|key| is_signed_with(&key.secret));
        key.map(|key| Session::Key(key.clone())).ok_or_else(|| {
            self.failed.set(self.failed.get() + 1);
            Failure::new(Status::Unauthenticated, format!("`{key_id}` is not believed"))
        })
    }

    fn denied(&self) {
        self.denied.set(self.denied.get() + 1);
    }
}

fn holders() -> Rc<Holders> {
    let keys = AccessKeys::parse(KEYS).expect("well formed");
    Rc::new(Holders { keys, failed: Cell::new(0), denied: Cell::new(0) })
}

fn service(access: Option<Rc<Holders>>) -> HttpService<Echo> {
    let address = "127.0.0.1:8080".into();
    let access = access.map(|access| access as Rc<dyn Authentication>);
    HttpService::new(Echo, ShardId(0), Rc::new(FixedClock), access, address)
}

fn head(method: &str, target: &str) -> Parts {
    let request = Request::builder().method(method).uri(target).header(HOST, "broker:8080");
    request.body(()).expect("a request").into_parts().0
}

fn signed(method: &str, target: &str, id: &str, secret: &str) -> Parts {
    let mut head = head(method, target);
    head.headers.insert("date", HeaderValue::from_static(DATE));
    let signature = sign(&Secret::new(secret), &head.method, target, &head.headers);
    let value = HeaderValue::from_str(&format!("MQ {id}:{signature}")).expect("ASCII");
    head.headers.insert("authorization", value);
    head
}

/// Status, code or document.
fn ask(service: &HttpService<Echo>, head: &Parts, body: &str) -> (u16, String) {
    ask_from(PEER, service, head, body)
}

fn ask_from(peer: IpAddr, service: &HttpService<Echo>, head: &Parts, body: &str) -> (u16, String) {
    let answer = match service.admit(head, Scheme::Http, &Peer::at(Some(peer))) {
        Ok(admitted) => {
            block_on(service.answer(&admitted, head, Bytes::copy_from_slice(body.as_bytes()), &()))
        }
        Err(error) => service.refuse(Some(head), Scheme::Http, &error),
    };
    let id =
        answer.headers().get(REQUEST_ID).expect("every answer has one").to_str().expect("ASCII").to_owned();
    let status = answer.status().as_u16();
    let text = String::from_utf8(answer.into_body().into_bytes().to_vec()).expect("UTF-8");
    if let Some((_, rest)) = text.split_once("<RequestId>") {
        assert!(rest.starts_with(&id) && rest.contains("<HostId>http://broker:8080</HostId>"), "{text}");
    }
    (status, text)
}

#[test]
fn calls_are_carried_out_and_answered_in_documents() {
    let service = service(None);
    let (status, text) = ask(&service, &head("POST", "/topics/orders/messages?ns=i"), MESSAGE);
    assert_eq!(status, 201);
    assert!(
        text.contains("<MessageId>i%orders</MessageId><MessageBodyMD5>900150983CD24FB0D6963F7D28E17F72<"),
        "{text}"
    );
    let (status, text) = ask(&service, &head("GET", "/topics/t/messages?consumer=g&numOfMessages=3"), "");
    assert_eq!((status, text.matches("<Message>").count()), (200, 2));
    let (status, text) = ask(&service, &head("GET", "/topics/t/messages?consumer=g&numOfMessages=1"), "");
    assert!(status == 404 && text.contains("<Code>MessageNotExist</Code>"), "{text}");
    let handles = "<ReceiptHandles><ReceiptHandle>ok</ReceiptHandle></ReceiptHandles>";
    assert_eq!(
        ask(&service, &head("DELETE", "/topics/t/messages?consumer=g"), handles),
        (204, String::new())
    );
    let (status, text) =
        ask(&service, &head("DELETE", "/topics/t/messages?consumer=g"), &handles.replace("ok", "bad"));
    assert!(status == 404 && text.contains("<ReceiptHandle>bad</ReceiptHandle></Error></Errors>"), "{text}");
    // A wrong one of several fails alone.
    let several =
        ["", &"h".repeat(2_000), "bad", "ok"].map(|h| format!("<ReceiptHandle>{h}</ReceiptHandle>"));
    let several = format!("<ReceiptHandles>{}</ReceiptHandles>", several.concat());
    let (status, text) = ask(&service, &head("DELETE", "/topics/t/messages?consumer=g"), &several);
    assert_eq!(
        (status, text.matches("<ErrorCode>ReceiptHandleError</ErrorCode>").count()),
        (404, 3),
        "{text}"
    );
    assert!(text.contains("<ReceiptHandle><!----></ReceiptHandle>"), "{text}");
    assert!(text.contains(&format!("<ReceiptHandle>{}</ReceiptHandle>", "h".repeat(1_024))), "{text}");
}

#[test]
fn errors_come_with_their_codes() {
    let service = service(None);
    let cases = [
        ("GET", "/topics/missing/messages?consumer=g", "", 404, "TopicNotExist"),
        ("GET", "/nowhere", "", 404, "PathNotExist"),
        ("PUT", "/topics/t/messages", "", 405, "MethodNotAllowed"),
        ("GET", "/topics/t/messages?consumer=g&numOfMessages=many", "", 400, "InvalidArgument"),
        ("POST", "/topics/t/messages", "<Message>", 400, "MalformedXML"),
        ("POST", "/topics/t/messages", "<Message/>", 400, "InvalidArgument"),
        ("DELETE", "/topics/t/messages?consumer=g", "", 400, "MalformedXML"),
    ];
    for (method, target, body, expected, code) in cases {
        let (status, text) = ask(&service, &head(method, target), body);
        assert_eq!(status, expected, "{method} {target}: {text}");
        assert!(text.contains(&format!("<Code>{code}</Code>")), "{method} {target}: {text}");
    }
    let put = head("PUT", "/topics/t/messages");
    let error = service.admit(&put, Scheme::Http, &Peer::default()).expect_err("no such method");
    assert_eq!(service.refuse(Some(&put), Scheme::Http, &error).headers()[ALLOW], METHODS);
    let mut head = head("POST", "/topics/t/messages");
    head.headers.insert("content-md5", HeaderValue::from_static("AAAA"));
    assert_eq!(ask(&service, &head, MESSAGE).0, 400);
}

#[test]
fn keys_are_asked_for_when_there_are_some() {
    let holders = holders();
    let service = service(Some(holders.clone()));
    let denied = |head: &Parts, part: &str| {
        let (status, text) = ask(&service, head, MESSAGE);
        assert_eq!(status, 403, "{text}");
        assert!(text.contains("<Code>AccessDenied</Code>") && text.contains(part), "{text}");
    };
    let orders = "/topics/orders/messages";
    let by_group = |group: &str| format!("/topics/orders/messages?consumer={group}&numOfMessages=2");
    assert_eq!(ask(&service, &signed("POST", orders, "shop", "s1"), MESSAGE).0, 201);
    assert_eq!(ask(&service, &signed("POST", "/topics/t/messages?ns=i", "shop", "s1"), MESSAGE).0, 201);
    assert_eq!(ask(&service, &signed("GET", &by_group("GID-1"), "shop", "s1"), "").0, 200);
    denied(&head("POST", orders), "not signed");
    denied(&head("GET", "/nowhere"), "not signed");
    assert_eq!((holders.denied.get(), holders.failed.get()), (2, 0));
    denied(&signed("POST", orders, "shop", "s2"), "`shop` is not believed");
    denied(&signed("POST", orders, "Shop", "s1"), "`Shop` is not believed");
    assert_eq!((holders.denied.get(), holders.failed.get()), (2, 2));
    denied(&signed("POST", "/topics/other/messages", "shop", "s1"), "may not publish to other");
    denied(&signed("GET", &by_group("other"), "shop", "s1"), "may not consume orders as group other");
    // Undecided transactions are the publisher's: the group makes no difference.
    assert_eq!(ask(&service, &signed("GET", &(by_group("other") + "&trans=pop"), "shop", "s1"), "").0, 200);
    denied(
        &signed("GET", "/topics/t/messages?consumer=GID-1&trans=pop", "shop", "s1"),
        "may not publish to t",
    );
    assert_eq!((holders.denied.get(), holders.failed.get()), (5, 2));
    // Whoever is barred is asked to come back, even with a right signature.
    let (status, text) = ask_from(BARRED, &service, &signed("POST", orders, "shop", "s1"), MESSAGE);
    assert!(status == 503 && text.contains("<Code>ServerError</Code>"), "{status} {text}");
    // A request that is much too old is no guess, and says nothing about the key.
    let mut old = signed("POST", orders, "Shop", "s1");
    old.headers.insert("date", HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
    denied(&old, "away from the broker's clock");
    assert_eq!(holders.failed.get(), 2);
}

#[test]
fn a_request_without_a_readable_head_is_answered_in_a_document_too() {
    let access = None;
    let address = "[::1]:8443".into();
    let service = HttpService::new(Echo, ShardId(0), Rc::new(FixedClock), access, address);
    let error = HttpError::new(ErrorCode::HeadTooLarge, "too much");
    let answer = service.refuse(None, Scheme::Https, &error);
    assert_eq!(answer.status().as_u16(), 431);
    let text = String::from_utf8(answer.into_body().into_bytes().to_vec()).expect("UTF-8");
    assert!(text.contains("<Code>HeadTooLarge</Code><Message>too much</Message>"), "{text}");
    assert!(text.contains("<HostId>https://[::1]:8443</HostId>"), "{text}");
}
