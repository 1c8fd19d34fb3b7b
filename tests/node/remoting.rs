//! RocketMQ's own protocol as bytes on a socket: what its clients and tools ask of a name server and of a broker.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;
use turbopump::limits;
use turbopump::protocol::remoting::{Cut, FieldValue, Head, Header, HeaderForm, cut};

use crate::support::directory::test_directory;
use crate::support::http_connection::tls;
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

const CERTIFICATE: &str = include_str!("../data/tls/certificate.pem");
const KEY: &str = include_str!("../data/tls/key.pem");

const ROUTE: i32 = 105;
const REGISTER: i32 = 103;
const HEART_BEAT: i32 = 34;
const CHANGED: i32 = 40;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub opaque: i32,
    pub remark: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// A field that there is.
    pub fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("{name} of {self:?}")).1
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

pub struct Remoting {
    stream: TcpStream,
    received: Vec<u8>,
    /// What the broker has told of groups: its code and their names.
    pub told: Vec<(i32, String)>,
    /// Other requests of the broker's.
    pub asked: Vec<Answer>,
}

impl Remoting {
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
        Self { stream, received: Vec::new(), told: Vec::new(), asked: Vec::new() }
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Where the broker sees it come from.
    pub fn own_address(&self) -> SocketAddr {
        self.stream.local_addr().expect("it is connected")
    }

    pub fn ask(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(&request(HeaderForm::Json, code, 7, fields, body));
        self.answer()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
    }

    pub fn answer(&mut self) -> Answer {
        loop {
            if let Some(answer) = self.next() {
                return answer;
            }
        }
    }

    /// Waits until the broker has sent so many requests, and returns all that it has sent since the last time.
    pub fn told(&mut self, count: usize) -> Vec<(i32, String)> {
        while self.told.len() < count {
            assert!(self.next().is_none(), "nothing was asked");
        }
        std::mem::take(&mut self.told)
    }

    /// Answers a request of the broker's.
    pub fn answer_to(&mut self, asked: &Answer, code: i32) {
        self.answer_with(asked, code, None, b"");
    }

    pub fn answer_with(&mut self, asked: &Answer, code: i32, remark: Option<&str>, body: &[u8]) {
        let mut bytes = Vec::new();
        let head = Head { code, opaque: asked.opaque, flag: 1, remark, ..Head::default() };
        head.write(HeaderForm::Json, body, &mut bytes);
        self.send(&bytes);
    }

    /// Waits until the broker has asked something else, and returns the first of that.
    pub fn asked(&mut self) -> Answer {
        while self.asked.is_empty() {
            assert!(self.next().is_none(), "nothing was asked");
        }
        self.asked.remove(0)
    }

    /// Waits for a frame; `None` when it is a request.
    fn next(&mut self) -> Option<Answer> {
        loop {
            // The largest messages take more than what a broker reads of a body.
            let (frame, body_bytes) = match cut(&self.received).expect("frames") {
                Cut::Frame(frame) => (Some(frame), frame.body.len()),
                Cut::Oversized { frame, body_bytes } => (Some(frame), body_bytes),
                Cut::Incomplete { .. } => (None, 0),
            };
            if let Some(frame) = frame
                && let body_at = frame.frame_bytes - frame.body.len()
                && let Some(body) = self.received.get(body_at..body_at + body_bytes)
            {
                let header = Header::read(frame.form, frame.header).expect("a header");
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                let answer = Answer {
                    code: header.code,
                    opaque: header.opaque,
                    remark: header.remark.as_deref().unwrap_or_default().to_owned(),
                    fields: header.fields.iter().map(|(name, value)| (text(name), text(value))).collect(),
                    body: body.to_vec(),
                };
                let is_answer = header.is_answer();
                self.received.drain(..body_at + body_bytes);
                if is_answer {
                    return Some(answer);
                }
                match answer.code {
                    CHANGED => self.told.push((CHANGED, answer.field("consumerGroup").to_owned())),
                    _ => self.asked.push(answer),
                }
                return None;
            }
            let mut more = [0; 65_536];
            let count = self.stream.read(&mut more).expect("the broker answers");
            assert!(count > 0, "the connection has ended");
            self.received.extend_from_slice(&more[..count]);
        }
    }

    /// Whether the broker has ended the connection.
    fn has_ended(&mut self) -> bool {
        !matches!(self.stream.read(&mut [0; 64]), Ok(1..))
    }
}

pub fn request(form: HeaderForm, code: i32, opaque: i32, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, FieldValue::Text(value))).collect();
    let mut bytes = Vec::new();
    Head { code, opaque, fields: &fields, ..Head::default() }.write(form, body, &mut bytes);
    bytes
}

pub fn json(answer: &Answer) -> Value {
    assert_eq!(answer.code, 0, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// The brokers of a route, with the queues of each.
pub fn queues(answer: &Answer) -> Vec<(String, u64)> {
    let route = json(answer);
    let queues = route["queueDatas"].as_array().expect("a list").iter();
    queues
        .map(|queue| {
            (
                queue["brokerName"].as_str().expect("text").to_owned(),
                queue["readQueueNums"].as_u64().expect("a number"),
            )
        })
        .collect()
}

pub fn node(flags: &[&str]) -> (tempfile::TempDir, Node) {
    let directory = test_directory();
    let named = ["--node", "n", "--namesrv", "127.0.0.1:0"];
    let node = Setup::new(directory.path().join("data")).with(&named).with(flags).start();
    (directory, node)
}

#[test]
fn routes_lead_to_the_shards_that_have_the_queues() {
    let (_directory, node) = node(&["--shards", "3", "--cluster", "shop"]);
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    node.run_well(&["topic", "create", "small", "--queues", "1"]);
    let name_server = node.namesrv_address.clone().expect("it was asked for");
    for address in [&name_server, &node.addresses[2]] {
        let mut client = Remoting::connect(address);
        let route = client.ask(ROUTE, &[("topic", "orders")], b"");
        let of = |broker: &str, count| (broker.to_owned(), count);
        assert_eq!(queues(&route), [of("n-0", 2), of("n-1", 1), of("n-2", 1)]);
        let first = &json(&route)["brokerDatas"][0];
        assert_eq!(first["brokerAddrs"]["0"], node.addresses[0].as_str());
        assert_eq!(first["cluster"], "shop");
        assert_eq!(queues(&client.ask(ROUTE, &[("topic", "small")], b"")), [of("n-0", 1)]);
        assert_eq!(queues(&client.ask(ROUTE, &[("topic", "%RETRY%anybody")], b"")).len(), 3);
        let missing = client.ask(ROUTE, &[("topic", "nowhere")], b"");
        assert_eq!(missing.code, 17);
        assert!(missing.remark.contains("No topic route info"), "{missing:?}");
        let info = json(&client.ask(106, &[], b""));
        assert_eq!(info["clusterAddrTable"]["shop"], serde_json::json!(["n-0", "n-1", "n-2"]));
        let topics = json(&client.ask(206, &[], b""));
        assert_eq!(
            topics["topicList"],
            serde_json::json!(["TBW102", "n-0", "n-1", "n-2", "orders", "shop", "small"])
        );
        let table = json(&client.ask(28, &[], b""));
        assert_eq!(table["table"]["brokerActive"], "true");
        let unknown = client.ask(31_337, &[], b"");
        assert_eq!((unknown.code, unknown.remark.as_str()), (3, " request type 31337 not supported"));
    }
    node.run_well(&["topic", "delete", "small", "--yes"]);
    assert_eq!(Remoting::connect(&name_server).ask(ROUTE, &[("topic", "small")], b"").code, 17);
}

#[test]
fn requests_are_pipelined_and_answered_in_either_form_of_a_header() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = Remoting::connect(node.address());
    let mut bytes = Vec::new();
    for number in 0..1_000 {
        let form = if number % 2 == 0 { HeaderForm::Json } else { HeaderForm::Binary };
        bytes.extend(request(form, ROUTE, number, &[("topic", "orders")], b""));
    }
    // An answer is none that anybody waits for, and a request that wants none gets none.
    let unwanted = [("topic", FieldValue::Text("orders"))];
    Head { opaque: 1_001, fields: &unwanted, ..Head::one_way(ROUTE, 1_001) }.write(
        HeaderForm::Json,
        b"",
        &mut bytes,
    );
    let sending = bytes.clone();
    let mut stream = client.stream.try_clone().expect("a descriptor");
    let writing = std::thread::spawn(move || stream.write_all(&sending).expect("the broker reads"));
    let mut opaque: Vec<_> = (0..1_000).map(|_| client.answer().opaque).collect();
    opaque.sort_unstable();
    assert!(opaque.iter().copied().eq(0..1_000));
    writing.join().expect("it only writes");
    // Half closed: what was asked before is answered, and nothing more.
    client.send(&request(HeaderForm::Json, ROUTE, 2_000, &[("topic", "orders")], b""));
    client.stream.shutdown(Shutdown::Write).expect("a socket");
    assert_eq!(client.answer().opaque, 2_000);
    assert!(client.has_ended());
}

#[test]
fn a_body_that_is_too_large_is_passed_over_and_answered() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    let body = vec![b'x'; limits::REMOTING_BODY_BYTES_MAX + 1];
    client.send(&request(HeaderForm::Json, 310, 1, &[("b", "orders")], &body));
    let refused = client.answer();
    assert_eq!((refused.code, refused.opaque), (13, 1), "{refused:?}");
    assert_eq!(client.ask(106, &[], b"").code, 0, "the connection goes on");
}

#[test]
fn what_is_no_frame_ends_the_connection_and_hurts_nobody() {
    let (_directory, node) = node(&[]);
    let deep = format!("{{\"code\":34,\"extFields\":{}}}", "[".repeat(100_000));
    let cases: [&[u8]; 5] = [
        &[1, 0, 0, 1, 0, 0, 0, 0],
        &[0, 0, 0, 3, 0, 0, 0, 0],
        &[0, 0, 0, 8, 0, 0, 0, 9, b'{'],
        &[0, 0, 0, 8, 7, 0, 0, 4, 0, 0, 0, 0],
        b"\0\0\0\x08\0\0\0\x04nope",
    ];
    for bytes in cases {
        let mut client = Remoting::connect(node.address());
        client.send(bytes);
        assert!(client.has_ended(), "{bytes:?}");
    }
    for header in [deep.as_bytes(), &[b'{'; limits::REMOTING_HEADER_BYTES_MAX], &[0; 8]] {
        let mut client = Remoting::connect(node.address());
        let mut bytes = (header.len() as u32 + 4).to_be_bytes().to_vec();
        bytes.extend((header.len() as u32).to_be_bytes());
        bytes.extend(header);
        client.send(&bytes);
        assert!(client.has_ended());
    }
    let mut client = Remoting::connect(node.address());
    let deep = "[".repeat(1_000_000);
    assert_eq!(client.ask(HEART_BEAT, &[], deep.as_bytes()).code, 1);
    assert_eq!(
        client
            .ask(
                REGISTER,
                &[("clusterName", "C"), ("brokerName", "b"), ("brokerAddr", "a:1")],
                deep.as_bytes()
            )
            .code,
        1
    );
    assert_eq!(client.ask(106, &[], b"").code, 0);
}

const TOPICS: &[u8] =
    br#"{"topicConfigSerializeWrapper":{"dataVersion":{"counter":5,"stateVersion":0,"timestamp":17},
    "topicConfigTable":{"orders":{"perm":6,"readQueueNums":8,"writeQueueNums":8,"topicName":"orders"},
    "theirs":{"perm":6,"readQueueNums":4,"writeQueueNums":4,"topicName":"theirs"}}}}"#;

#[test]
fn brokers_of_others_are_in_routes_until_their_connection_ends() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut broker = Remoting::connect(node.namesrv_address.as_ref().expect("it was asked for"));
    let fields = |broker| {
        [
            ("clusterName", "C"),
            ("brokerName", broker),
            ("brokerAddr", "10.0.0.9:10911"),
            ("brokerId", "0"),
            ("haServerAddr", "h:1"),
        ]
    };
    assert_eq!(broker.ask(REGISTER, &fields("theirs-a"), TOPICS).code, 0);
    let passing_for_ours = broker.ask(REGISTER, &fields("n-1"), TOPICS);
    assert_eq!(passing_for_ours.code, 1, "{passing_for_ours:?}");
    let endless =
        String::from_utf8_lossy(TOPICS).replace("\"readQueueNums\":4", "\"readQueueNums\":2147483647");
    let refused = broker.ask(REGISTER, &fields("theirs-b"), endless.as_bytes());
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.remark.contains("topic theirs has 2147483647 queues"), "{refused:?}");
    let alone =
        br#"{"queueDatas":[{"brokerName":"theirs-a","perm":6,"readQueueNums":4,"writeQueueNums":65537}]}"#;
    let refused = broker.ask(217, &[("topic", "alone")], alone);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.remark.contains("topic alone has 65537 queues"), "{refused:?}");
    let version = broker.ask(322, &fields("theirs-a"), br#"{"counter":5,"stateVersion":0,"timestamp":17}"#);
    assert_eq!(version.fields, [("changed".to_owned(), "false".to_owned())]);
    // Another shard knows it as well.
    let mut client = Remoting::connect(&node.addresses[1]);
    let named = |answer: &Answer| queues(answer).into_iter().map(|(broker, _)| broker).collect::<Vec<_>>();
    assert_eq!(named(&client.ask(ROUTE, &[("topic", "orders")], b"")), ["n-0", "n-1", "theirs-a"]);
    assert_eq!(named(&client.ask(ROUTE, &[("topic", "theirs")], b"")), ["theirs-a"]);
    let setting = [("namespace", "ORDER_TOPIC_CONFIG"), ("key", "orders"), ("value", "theirs-a:8")];
    assert_eq!(client.ask(100, &setting, b"").code, 0);
    let told = json(&broker.ask(REGISTER, &fields("theirs-a"), TOPICS));
    assert_eq!(told["table"]["orders"], "theirs-a:8");
    drop(broker);
    wait_for("the broker is gone with its connection", || {
        Remoting::connect(&node.addresses[1]).ask(ROUTE, &[("topic", "theirs")], b"").code == 17
    });
    assert_eq!(client.ask(101, &setting[..2], b"").fields, [("value".to_owned(), "theirs-a:8".to_owned())]);
    assert_eq!(client.ask(102, &setting[..2], b"").code, 0);
    assert_eq!(client.ask(101, &setting[..2], b"").code, 22);
}

pub fn heartbeat(client: &str, group: &str) -> Vec<u8> {
    let topic = r#"{"subString":"*","subVersion":1,"topic":"orders"}"#;
    format!(
        r#"{{"clientID":"{client}","consumerDataSet":[{{"groupName":"{group}","consumeType":1,"messageModel":1,
        "subscriptionDataSet":[{topic}]}}],"producerDataSet":[{{"groupName":"p"}}]}}"#
    )
    .into_bytes()
}

#[test]
fn the_members_of_a_group_are_those_that_are_connected_and_have_not_left() {
    let (_directory, node) = node(&[]);
    let mut first = Remoting::connect(node.address());
    let mut second = Remoting::connect(node.address());
    assert_eq!(first.ask(HEART_BEAT, &[], &heartbeat("a@1", "billing")).code, 0);
    assert_eq!(second.ask(HEART_BEAT, &[], &heartbeat("b@1", "billing")).code, 0);
    let group = [("consumerGroup", "billing")];
    let members = |client: &mut Remoting| json(&client.ask(38, &group, b""))["consumerIdList"].clone();
    assert_eq!(members(&mut first), serde_json::json!(["a@1", "b@1"]));
    // Nobody takes others off.
    let leave = |id| [("clientID", id), ("consumerGroup", "billing"), ("producerGroup", "")];
    assert_eq!(second.ask(35, &leave("a@1"), b"").code, 0);
    assert_eq!(members(&mut second), serde_json::json!(["a@1", "b@1"]));
    assert_eq!(first.ask(35, &leave("a@1"), b"").code, 0);
    assert_eq!(members(&mut second), serde_json::json!(["b@1"]));
    drop(second);
    wait_for("a client is gone with its connection", || {
        Remoting::connect(node.address()).ask(38, &group, b"").code == 1
    });
    assert_eq!(first.ask(HEART_BEAT, &[], b"{}").code, 1, "of nobody");
}

#[test]
fn with_access_keys_nothing_is_answered_that_is_not_signed() {
    let directory = test_directory();
    let keys = directory.path().join("keys.toml");
    let text = "[[keys]]\nid = \"AK\"\nsecret = \"SK\"\npublish = [\"TopicA\"]\n";
    std::fs::write(&keys, text).expect("a directory of this test");
    let node = Setup::new(directory.path().join("data"))
        .with(&["--access-keys", keys.to_str().expect("UTF-8")])
        .start();
    let mut client = Remoting::connect(node.address());
    for code in [
        11, 14, 15, 28, 29, 30, 31, 32, 34, 35, 38, 100, 101, 102, 103, 104, 105, 106, 206, 310, 322, 361,
        904, 31_337,
    ] {
        let refused = client.ask(code, &[("topic", "TopicA")], b"");
        assert_eq!(refused.code, 16, "{code}: {refused:?}");
        assert!(refused.remark.contains("asks for an access key"), "{refused:?}");
    }
    // As the wheel 0.4.4 signs it: allowed, and there is no such topic.
    let signed = |signature| {
        [("AccessKey", "AK"), ("OnsChannel", "CH"), ("topic", "TopicA"), ("Signature", signature)]
    };
    assert_eq!(client.ask(ROUTE, &signed("OqfQ5XTZmeCRc/Jf2SZDt+2GQaQ="), b"").code, 17);
    let wrong = client.ask(ROUTE, &signed("OqfQ5XTZmeCRc/Jf2SZDt+2GQaA="), b"");
    assert_eq!(wrong.code, 16, "{wrong:?}");
    // The same signature does not do for what the key may not.
    assert_eq!(client.ask(206, &signed("OqfQ5XTZmeCRc/Jf2SZDt+2GQaQ="), b"").code, 16);
}

/// As Java's clients do it with `tls.enable`: on the same ports, that of the name server among them.
#[test]
fn it_is_spoken_within_tls_and_without_as_the_mode_says() {
    let directory = test_directory();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a directory of this test");
        path.to_str().expect("UTF-8").to_owned()
    };
    let flags = ["--tls-certificate", &file("c.pem", CERTIFICATE), "--tls-key", &file("k.pem", KEY)];
    let question = request(HeaderForm::Json, 106, 7, &[], b"");
    for mode in ["permissive", "enforcing"] {
        let setup = Setup::new(directory.path().join(mode)).with(&flags).with(&["--tls-mode", mode]);
        let node = setup.with(&["--namesrv", "127.0.0.1:0"]).start();
        for address in [node.address(), node.namesrv_address.as_ref().expect("it was asked for")] {
            let mut plain = Remoting::connect(address);
            plain.send(&question);
            match mode {
                "permissive" => assert_eq!(plain.answer().code, 0),
                _ => assert!(plain.has_ended()),
            }
            let stream = TcpStream::connect(address).expect("the broker listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
            let mut secured = tls(stream, CERTIFICATE, &[]).expect("a handshake");
            secured.write_all(&question).expect("the broker reads");
            let mut head = [0; 8];
            secured.read_exact(&mut head).expect("the broker answers");
            let mut rest = vec![0; u32::from_be_bytes(head[..4].try_into().expect("four")) as usize - 4];
            secured.read_exact(&mut rest).expect("a whole answer");
            assert!(String::from_utf8_lossy(&rest).contains("clusterAddrTable"), "{rest:?}");
        }
    }
}

#[test]
fn it_can_be_switched_off() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--remoting=false"]).start();
    assert!(!node.banner.contains("RocketMQ"), "{}", node.banner);
    let mut client = Remoting::connect(node.address());
    client.send(&request(HeaderForm::Json, ROUTE, 1, &[], b""));
    assert!(client.has_ended());
}
