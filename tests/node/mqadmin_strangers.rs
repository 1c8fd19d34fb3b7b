//! RocketMQ's commands against peers that answer what no broker and no name server would.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use turbopump::protocol::remoting::{Cut, FieldValue, Head, Header, HeaderForm, cut};

use crate::support::command::{self, Outcome};

const PULL: i32 = 11;
const SEARCH_OFFSET: i32 = 29;
const MAX_OFFSET: i32 = 30;
const MIN_OFFSET: i32 = 31;
const ROUTE: i32 = 105;

/// What a peer answers.
#[derive(Default)]
struct Told {
    code: i32,
    remark: Option<&'static str>,
    fields: &'static [(&'static str, &'static str)],
    body: String,
}

impl Told {
    fn body(body: impl Into<String>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    fn fields(fields: &'static [(&'static str, &'static str)]) -> Self {
        Self { fields, ..Self::default() }
    }
}

/// Runs a verb against a peer that is all brokers and name servers, and answers a request of that code, by its own address.
fn run(line: &str, answer: impl Fn(i32, &str) -> Told + Send + Sync) -> Outcome {
    let peer = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = peer.local_addr().expect("it is bound").to_string();
    let line = line.replace("ADDRESS", &address);
    let mut words: Vec<&str> = line.split_whitespace().collect();
    words.extend(["-n", &address]);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| serve(peer.accept().expect("a connection").0, &address, &answer));
        let outcome = command::run(None, &words, None);
        // A verb that has not come is not waited for.
        drop(TcpStream::connect(&address));
        serving.join().expect("it only answers");
        outcome
    })
}

fn serve(mut stream: TcpStream, address: &str, answer: &impl Fn(i32, &str) -> Told) {
    let (mut received, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        received.extend_from_slice(&piece[..count]);
        while let Cut::Frame(frame) = cut(&received).expect("frames") {
            let header = Header::read(frame.form, frame.header).expect("a header");
            let told = answer(header.code, address);
            let fields: Vec<_> =
                told.fields.iter().map(|(name, value)| (*name, FieldValue::Text(value))).collect();
            let mut bytes = Vec::new();
            let head = Head {
                code: told.code,
                opaque: header.opaque,
                flag: 1,
                remark: told.remark,
                fields: &fields,
                ..Head::default()
            };
            head.write(HeaderForm::Json, told.body.as_bytes(), &mut bytes);
            let frame_bytes = frame.frame_bytes;
            received.drain(..frame_bytes);
            if stream.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

/// A route to the peer, with so many queues.
fn route(address: &str, permission: u32, queues: i64) -> Told {
    Told::body(format!(
        r#"{{"brokerDatas":[{{"brokerAddrs":{{"0":"{address}"}},"brokerName":"b","cluster":"C"}}],"queueDatas":
        [{{"brokerName":"b","perm":{permission},"readQueueNums":{queues},"writeQueueNums":{queues},"topicSysFlag":0}}]}}"#
    ))
}

#[test]
fn a_route_of_more_queues_than_can_be_is_refused() {
    for queues in [i64::from(i32::MAX), 65_537, -1] {
        for line in ["sendMessage -t T -p x", "printMsg -t T", "consumeMessage -t T", "topicRoute -l -t T"] {
            let said = run(line, |_, address| route(address, 6, queues)).badly(1);
            assert!(said.contains(&format!("has {queues} queues of a topic")), "{line}: {said}");
        }
    }
}

#[test]
fn offsets_that_cannot_be_are_refused() {
    for (first, end) in [("-9223372036854775808", "9223372036854775807"), ("0", "-2"), ("-2", "5")] {
        for line in ["consumeMessage -t T", "consumeMessage -t T -b b -i 0", "printMsg -t T"] {
            let (first, end): (&'static str, &'static str) = (first, end);
            let said = run(line, |code, address| match code {
                ROUTE => route(address, 6, 1),
                MIN_OFFSET => offset(first),
                MAX_OFFSET => offset(end),
                _ => cluster(address),
            });
            let said = said.badly(1);
            assert!(
                said.contains("is not RocketMQ's protocol") && said.contains("has an offset"),
                "{line}: {said}"
            );
        }
    }
    // What ends where numbers end is read all the same.
    for line in
        ["consumeMessage -t T", "consumeMessage -t T -b b -i 0", "printMsg -t T", "consumeMessage -t T -s 0"]
    {
        let said = run(line, |code, address| match code {
            ROUTE => route(address, 6, 1),
            MIN_OFFSET | SEARCH_OFFSET => offset("-1"),
            MAX_OFFSET => offset("9223372036854775807"),
            PULL => Told::fields(&[("nextBeginOffset", "-5"), ("minOffset", "0"), ("maxOffset", "9")]),
            _ => cluster(address),
        });
        let said = said.badly(1);
        assert!(said.contains("is not RocketMQ's protocol"), "{line}: {said}");
    }
}

fn offset(offset: &'static str) -> Told {
    Told::fields(match offset {
        "-9223372036854775808" => &[("offset", "-9223372036854775808")],
        "9223372036854775807" => &[("offset", "9223372036854775807")],
        "-2" => &[("offset", "-2")],
        "-1" => &[("offset", "-1")],
        "5" => &[("offset", "5")],
        _ => &[("offset", "0")],
    })
}

fn cluster(address: &str) -> Told {
    Told::body(format!(
        r#"{{"brokerAddrTable":{{"b":{{"brokerAddrs":{{"0":"{address}"}},"brokerName":"b","cluster":"C"}}}},"clusterAddrTable":{{}}}}"#
    ))
}

#[test]
fn a_topic_that_is_not_read_is_said_to_be_so() {
    for line in ["printMsg -t T", "consumeMessage -t T"] {
        let said = run(line, |_, address| route(address, 2, 4)).badly(1);
        assert!(said.contains("topic T has no queue that is read"), "{line}: {said}");
    }
    let said = run("consumeMessage -t T -b other", |_, address| route(address, 6, 4)).badly(1);
    assert!(said.contains("topic T has no queue that is read on broker other"), "{said}");
}

/// Whoever answers everything with success has done nothing.
#[test]
fn an_answer_without_what_was_asked_for_is_no_success() {
    for (line, missing) in [
        ("topicList", "topicList"),
        ("topicList -c", "topicList"),
        ("topicRoute -t T", "brokerDatas"),
        ("topicClusterList -t T", "brokerDatas"),
        ("topicStatus -t T", "brokerDatas"),
        ("clusterList", "brokerAddrTable"),
        ("consumerProgress", "topicList"),
        ("consumerProgress -g G", "brokerDatas"),
        ("consumerConnection -g G -b ADDRESS", "connectionSet"),
        ("brokerStatus -b ADDRESS", "table"),
        ("getBrokerConfig -b ADDRESS", "brokerName"),
        ("statsAll", "topicList"),
        ("updateTopic -c C -t T", "brokerAddrTable"),
        ("wipeWritePerm -b b", "brokerAddrTable"),
        ("printMsg -t T", "brokerDatas"),
    ] {
        let said = run(line, |_, _| Told::body("{}")).badly(1);
        assert!(said.contains(&format!("it has no `{missing}`")), "{line}: {said}");
    }
    // What is empty is there.
    assert_eq!(run("topicList", |_, _| Told::body(r#"{"topicList":[]}"#)).well(), "");
    let none =
        run("clusterList", |_, _| Told::body(r#"{"brokerAddrTable":{},"clusterAddrTable":{}}"#)).well();
    assert_eq!(none.lines().count(), 1, "{none}");
}

/// A terminal obeys what it is sent: a peer's words are shown, not obeyed.
#[test]
fn what_a_terminal_would_obey_is_escaped() {
    let refused = || Told { code: 1, remark: Some("\u{1b}[2Jall is \u{9b}32mwell\r"), ..Told::default() };
    let said = run("topicList", move |_, _| refused()).badly(1);
    assert!(said.contains(r"code 1, \u001b[2Jall is \u009b32mwell"), "{said:?}");
    let names = || Told::body("{\"topicList\":[\"a\\u001b]0;x\\u0007\",\"b\\nforged\"]}");
    let listed = run("topicList", move |_, _| names()).well();
    assert_eq!(listed, "a\\u001b]0;x\\u0007\nb\\u000aforged\n");
    let json = run("topicList -o json", move |_, _| names()).json();
    assert_eq!(json["topics"][0], "a\u{1b}]0;x\u{7}");
    let table = || Told::body("{\"table\":{\"brokerActive\":\"\\u009b2J\\nfalse\"}}");
    let status = run("brokerStatus -b ADDRESS", move |_, _| table()).well();
    assert_eq!(status, "brokerActive                    : \\u009b2J\\u000afalse\n");
}
