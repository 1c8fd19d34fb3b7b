//! A request from its head to its answer: which call, from whom, may they, what does the body say, carry it out, say it
//! in a document. Who drives a connection calls [`admit`](HttpService::admit) with the head, reads the body only if that
//! succeeds, and calls [`answer`](HttpService::answer).

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use md5::{Digest as _, Md5};

use super::answer::Answer;
use super::answer_document::{
    DeliveredMessage, HandleFailure, MessagesDocument, PublishedMessage, md5_text, write_error, write_errors,
    write_published,
};
use super::error::{ErrorCode, HttpError};
use super::head::check_head;
use super::request_document::{PublishRequest, ReceiptHandles, parse_publish, parse_receipt_handles};
use super::request_id::{RequestId, RequestIds};
use super::signature::{SignedRequest, check_body_digest};
use super::target::{Call, Consume, LeaseEnd, METHODS, TopicReference};
use crate::access::{Need, Peer, Session};
use crate::api::{Failure, RequestSubject, RequestTopic};
use crate::clock::SharedClock;
use crate::types::{ByteBudget, Secret, ShardId};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-mq-request-id");
const VERSION: HeaderName = HeaderName::from_static("x-mq-version");
const VERSION_VALUE: HeaderValue = HeaderValue::from_static("2015-06-06");
const XML: HeaderValue = HeaderValue::from_static("text/xml;charset=UTF-8");
/// Bytes whose check value is made before others get to run: a quarter of a millisecond.
const DIGEST_YIELD_BYTES: usize = 128 * 1024;
/// A name of a host has at most 253 characters; a port and brackets come to it.
const HOST_SHOWN_MAX: usize = 300;

/// What carries calls out. It answers in the vocabulary of this protocol's documents; the rules are the broker's.
pub trait Backend {
    /// Who is asking: nothing is leased to a client that has left.
    type Client;

    /// Stores a message; the answer means that it has the level configured.
    async fn publish(
        &self,
        topic: &TopicReference,
        message: PublishRequest,
        client: &Self::Client,
    ) -> Result<PublishedMessage, HttpError>;

    /// Leases messages, or waits for some. None is no error here.
    async fn consume(
        &self,
        consume: &Consume,
        client: &Self::Client,
    ) -> Result<Vec<DeliveredMessage>, HttpError>;

    /// Ends leases. Handles that are not among the failures were dealt with.
    async fn acknowledge(
        &self,
        topic: &TopicReference,
        end: &LeaseEnd,
        handles: &[String],
    ) -> Result<Vec<HandleFailure>, HttpError>;
}

/// Who has which access key. Whoever guesses is counted, and held up, however many protocols they try.
pub trait Authentication {
    /// The session of whoever has signed a request with the secret of the key that it names; `is_signed_with` says whether it
    /// is this one. `peer` is who is at the other end of its connection.
    fn authenticate(
        &self,
        key_id: &str,
        peer: &Peer,
        is_signed_with: &dyn Fn(&Secret) -> bool,
    ) -> Result<Session, Failure>;

    /// A request is refused that is not signed, or that its key may not make: counts it.
    fn denied(&self);
}

/// The protocol on one shard.
pub struct HttpService<B> {
    backend: B,
    clock: SharedClock,
    ids: RequestIds,
    /// Host and port where requests come in, as errors tell it to those that named no host.
    address: String,
    /// `None`: everybody may do everything.
    access: Option<Rc<dyn Authentication>>,
    /// Check values of large bodies are made one after the other: many at once would each run before any of the
    /// others' requests has one.
    digesting: ByteBudget,
}

/// What a client's endpoint begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    /// Within TLS.
    Https,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// A request whose head is fine: its body may be read.
#[derive(Debug)]
pub struct Admitted {
    call: Call,
    session: Session,
    scheme: Scheme,
    id: RequestId,
}

impl Admitted {
    /// What it is about, for whoever looks where its time went.
    pub fn subject(&self) -> RequestSubject {
        let kind = match &self.call {
            Call::Publish { .. } => "publish",
            Call::Consume(_) => "consume",
            Call::Acknowledge { .. } => "acknowledge",
        };
        let topic = self.call.topic().to_string().parse().map_or(RequestTopic::None, RequestTopic::Name);
        RequestSubject { kind, topic, ..RequestSubject::default() }
    }

    /// Who sent it, if it waits for messages and somebody may keep them from its sender meanwhile.
    pub fn waiting_session(&self) -> Option<&Session> {
        Some(&self.session).filter(|session| self.waits() && !session.is_open())
    }

    /// Whether it may wait for messages to come.
    pub fn waits(&self) -> bool {
        matches!(&self.call, Call::Consume(consume) if !consume.wait.is_zero())
    }
}

impl<B: Backend> HttpService<B> {
    pub fn new(
        backend: B,
        shard: ShardId,
        clock: SharedClock,
        access: Option<Rc<dyn Authentication>>,
        address: String,
    ) -> Self {
        Self { backend, clock, ids: RequestIds::new(shard), address, access, digesting: ByteBudget::new(1) }
    }

    /// Judges a request by its head; `peer` is who is at the other end of its connection.
    pub fn admit(&self, head: &Parts, scheme: Scheme, peer: &Peer) -> Result<Admitted, HttpError> {
        check_head(head)?;
        let (call, session) = self.understand(head, peer)?;
        Ok(Admitted { call, session, scheme, id: self.ids.next(self.clock.now()) })
    }

    /// Whether an admitted request may still be carried out, now that its sender has this session.
    pub fn check(&self, admitted: &Admitted, session: &Session) -> Result<(), HttpError> {
        check_rules(session, &admitted.call).inspect_err(|_| self.denied())
    }

    /// The answer to a request that was not admitted, or whose body could not be read; without a head, whose head could
    /// not.
    pub fn refuse(&self, head: Option<&Parts>, scheme: Scheme, error: &HttpError) -> Response<Answer> {
        self.refusal(head, scheme, self.ids.next(self.clock.now()), error)
    }

    /// Carries an admitted request out.
    pub async fn answer(
        &self,
        admitted: &Admitted,
        head: &Parts,
        body: Bytes,
        client: &B::Client,
    ) -> Response<Answer> {
        let &Admitted { ref call, scheme, id, .. } = admitted;
        match self.carry_out(call, head, body, client).await {
            Ok((status, document)) => response(status, id, document),
            Err(error) => self.refusal(Some(head), scheme, id, &error),
        }
    }

    fn understand(&self, head: &Parts, peer: &Peer) -> Result<(Call, Session), HttpError> {
        let target = target_of(head);
        // The sender first: a stranger learns nothing about what is asked for, not even whether it makes sense.
        let session = self.sender(head, target, peer)?;
        let call = Call::parse(&head.method, target)?;
        check_rules(&session, &call).inspect_err(|_| self.denied())?;
        Ok((call, session))
    }

    /// Who sent a request: every one proves its key by itself.
    fn sender(&self, head: &Parts, target: &str, peer: &Peer) -> Result<Session, HttpError> {
        let Some(access) = &self.access else { return Ok(Session::Open) };
        let request = SignedRequest::read(&head.method, target, &head.headers).and_then(|request| {
            // Before the key is looked for: a date says nothing about which keys there are.
            request.check_date(self.clock.now())?;
            Ok(request)
        });
        let request = request.inspect_err(|_| access.denied())?;
        Ok(access.authenticate(request.key_id, peer, &|secret| request.is_signed_with(secret))?)
    }

    fn denied(&self) {
        if let Some(access) = &self.access {
            access.denied();
        }
    }

    fn refusal(
        &self,
        head: Option<&Parts>,
        scheme: Scheme,
        id: RequestId,
        error: &HttpError,
    ) -> Response<Answer> {
        let host = head.and_then(|head| head.headers.get(HOST)).and_then(|host| host.to_str().ok());
        let document = write_error(error, id, &self.endpoint(scheme, host));
        let mut response = response(error.code.status(), id, document.into());
        if error.code == ErrorCode::MethodNotAllowed {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
        }
        response
    }

    /// Where the request came in, under the name that its client has for it.
    fn endpoint(&self, scheme: Scheme, host: Option<&str>) -> String {
        let host = host.filter(|host| !host.is_empty()).unwrap_or(&self.address);
        format!("{}://{}", scheme.name(), host.chars().take(HOST_SHOWN_MAX).collect::<String>())
    }

    async fn carry_out(
        &self,
        call: &Call,
        head: &Parts,
        body: Bytes,
        client: &B::Client,
    ) -> Result<(StatusCode, Answer), HttpError> {
        check_body_digest(&head.headers, &body)?;
        match call {
            Call::Publish { topic } => {
                let message = parse_publish(&body)?;
                drop(body);
                let md5 = self.body_md5(message.body.as_bytes()).await;
                let published = self.backend.publish(topic, message, client).await?;
                Ok((StatusCode::CREATED, write_published(&published, &md5).into()))
            }
            Call::Consume(consume) => {
                let messages = self.backend.consume(consume, client).await?;
                if messages.is_empty() {
                    let message = format!("there is no message for group {} now", consume.group);
                    return Err(HttpError::new(ErrorCode::MessageNotExist, message));
                }
                let mut document = MessagesDocument::new(&messages);
                for message in &messages {
                    document.push(message, &self.body_md5(&message.body).await);
                }
                Ok((StatusCode::OK, document.finish()))
            }
            Call::Acknowledge { topic, end } => {
                let ReceiptHandles { handles, mut failures } = parse_receipt_handles(&body)?;
                failures.extend(self.backend.acknowledge(topic, end, &handles).await?);
                if failures.is_empty() {
                    return Ok((StatusCode::NO_CONTENT, Answer::default()));
                }
                Ok((ErrorCode::ReceiptHandleError.status(), write_errors(&failures).into()))
            }
        }
    }
}

impl<B> HttpService<B> {
    /// The check value of a body, see [`body_md5`](super::answer_document::body_md5).
    async fn body_md5(&self, body: &[u8]) -> String {
        if body.len() <= DIGEST_YIELD_BYTES {
            return md5_text(&Md5::digest(body));
        }
        let _alone = self.digesting.reserve(1).await;
        let mut digest = Md5::new();
        for piece in body.chunks(DIGEST_YIELD_BYTES) {
            digest.update(piece);
            self.clock.sleep(Duration::ZERO).await;
        }
        md5_text(&digest.finalize())
    }
}

/// Path and query as sent. A client that names the whole address in the request line signs the path all the same.
fn target_of(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("", |target| target.as_str())
}

fn check_rules(session: &Session, call: &Call) -> Result<(), HttpError> {
    if session.is_open() {
        return Ok(());
    }
    let topic = call.topic().to_string();
    let need = match call.group() {
        Some(group) => Need::Consume { topic: &topic, group: group.as_str() },
        None => Need::Publish { topic: &topic },
    };
    session.check(need).map_err(|denied| HttpError::new(ErrorCode::AccessDenied, denied.to_string()))
}

fn response(status: StatusCode, id: RequestId, answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    *response.status_mut() = status;
    let id = HeaderValue::from_str(&id.to_string()).expect("hexadecimal digits");
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(VERSION, VERSION_VALUE);
    if status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_TYPE, XML);
    }
    response
}

#[cfg(test)]
mod tests;
