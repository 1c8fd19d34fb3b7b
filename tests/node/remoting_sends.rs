//! Sends over RocketMQ's own protocol, as bytes on a socket: what is stored, what is answered, and what is refused.

use serde_json::Value;
use turbopump::limits;
use turbopump::protocol::remoting::message::InnerMessage;
use turbopump::protocol::remoting::{FieldValue, Head, HeaderForm};

use super::remoting::{Answer, Remoting, node, queues, request};
use crate::support::node::{Node, Setup};

const SEND: i32 = 310;
const SEND_BATCH: i32 = 320;
const ROUTE: i32 = 105;
const ONE_WAY: i32 = 2;

/// The fields of a send, by their short names.
pub fn fields<'a>(topic: &'a str, queue: &'a str, properties: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("a", "producers"),
        ("b", topic),
        ("c", "TBW102"),
        ("d", "2"),
        ("e", queue),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", properties),
        ("m", "false"),
    ]
}

pub fn send(client: &mut Remoting, topic: &str, queue: &str, body: &str) -> Answer {
    client.ask(SEND, &fields(topic, queue, ""), body.as_bytes())
}

/// A topic's messages, as the command line shows them.
pub fn stored(node: &Node, topic: &str) -> Vec<Value> {
    let lines = node.run_well(&["consume", topic, "-o", "json"]);
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn messages_are_where_their_answers_say() {
    let (_directory, node) = node(&["--shards", "3"]);
    node.run_well(&["topic", "create", "orders", "--queues", "7"]);
    let mut told = Vec::new();
    for (shard, own_queues) in [(0, 3), (1, 2), (2, 2)] {
        let mut client = Remoting::connect(&node.addresses[shard]);
        for queue in 0..own_queues {
            let body = format!("{shard}-{queue}");
            let answer = send(&mut client, "orders", &queue.to_string(), &body);
            assert_eq!((answer.code, answer.field("queueId")), (0, queue.to_string().as_str()));
            told.push((body, queue * 3 + shard, answer.field("msgId").to_owned()));
        }
        // Any queue of this shard; and none that others have.
        assert_eq!(send(&mut client, "orders", "-1", "any").code, 0);
        let answer = send(&mut client, "orders", &own_queues.to_string(), "none");
        assert_eq!(answer.code, 29, "{answer:?}");
    }
    let stored = stored(&node, "orders");
    assert_eq!(stored.len(), 7 + 3);
    for (body, queue, id) in told {
        let found = stored.iter().find(|message| message["body"] == body.as_str()).expect("it is stored");
        assert_eq!((&found["queue"], &found["id"]), (&Value::from(queue), &Value::from(id)));
    }
    node.run_well(&["topic", "create", "small", "--queues", "1"]);
    let answer = send(&mut Remoting::connect(&node.addresses[2]), "small", "0", "elsewhere");
    assert_eq!(answer.code, 17, "{answer:?}");
}

#[test]
fn who_wants_no_answer_gets_none() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    let sent = fields("orders", "0", "");
    let sent: Vec<_> = sent.iter().map(|(name, value)| (*name, FieldValue::Text(value))).collect();
    let mut bytes = Vec::new();
    for opaque in 1..=20 {
        let head = Head { code: SEND, opaque, flag: ONE_WAY, fields: &sent, ..Head::default() };
        head.write(HeaderForm::Json, b"one-way", &mut bytes);
    }
    // Neither does a refusal.
    Head { code: SEND, flag: ONE_WAY, ..Head::default() }.write(HeaderForm::Json, b"", &mut bytes);
    client.send(&bytes);
    client.send(&request(HeaderForm::Binary, SEND, 99, &fields("orders", "0", ""), b"last"));
    assert_eq!(client.answer().opaque, 99);
    assert_eq!(stored(&node, "orders").len(), 21);
}

#[test]
fn sends_of_one_moment_share_a_batch_and_each_is_answered() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    assert_eq!(send(&mut client, "orders", "0", "first").code, 0);
    let before = node.counter("batches_produced");
    let mut bytes = Vec::new();
    for number in 0..400 {
        let fields = fields("orders", if number % 2 == 0 { "0" } else { "1" }, "");
        bytes.extend(request(HeaderForm::Json, SEND, number, &fields, number.to_string().as_bytes()));
    }
    client.send(&bytes);
    let mut opaques: Vec<_> = (0..400)
        .map(|_| {
            let answer = client.answer();
            assert_eq!(answer.code, 0, "{answer:?}");
            answer.opaque
        })
        .collect();
    opaques.sort_unstable();
    assert!(opaques.into_iter().eq(0..400));
    let batches = node.counter("batches_produced") - before;
    assert!(batches <= 100, "{batches} batches of 400 messages");
    for (queue, first) in [(0, 0), (1, 1)] {
        let bodies: Vec<_> = stored(&node, "orders")
            .iter()
            .filter(|message| message["queue"] == queue && message["body"] != "first")
            .map(|message| message["body"].as_str().expect("text").parse::<i32>().expect("a number"))
            .collect();
        assert!(bodies.into_iter().eq((first..400).step_by(2)), "in the order in which they came");
    }
}

/// What comes in one buffer shares batches only as far as its order in the queue allows, and what is refused in between is
/// refused alone.
#[test]
fn refusals_and_batches_in_between_are_answered_for_themselves() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    assert_eq!(send(&mut client, "orders", "0", "first").code, 0);
    let (mut bytes, mut bodies, mut expected) = (Vec::new(), vec!["first".to_owned()], Vec::new());
    for number in 0..60 {
        let body = number.to_string();
        let place = bodies.len().to_string();
        let (code, queue, properties, answered) = match number % 5 {
            1 => (SEND, "99", "", 29),
            2 => (SEND, "0", "DELAY\u{1}soon\u{2}", 13),
            3 => (SEND_BATCH, "0", "", 0),
            _ => (SEND, "0", "", 0),
        };
        let mut fields = fields("orders", queue, properties);
        let mut sent = Vec::new();
        if code == SEND_BATCH {
            fields.push(("m", "true"));
            for _ in 0..2 {
                InnerMessage { flag: 0, body: body.as_bytes(), properties: b"" }.write(&mut sent);
            }
        } else {
            sent.extend_from_slice(body.as_bytes());
        }
        bytes.extend(request(HeaderForm::Json, code, number, &fields, &sent));
        if answered == 0 {
            bodies.extend(vec![body; if code == SEND_BATCH { 2 } else { 1 }]);
        }
        expected.push((number, answered, if answered == 0 { place } else { String::new() }));
    }
    client.send(&bytes);
    let mut answers: Vec<_> = (0..60)
        .map(|_| {
            let answer = client.answer();
            let place = if answer.code == 0 { answer.field("queueOffset").to_owned() } else { String::new() };
            (answer.opaque, answer.code, place)
        })
        .collect();
    answers.sort_unstable();
    assert_eq!(answers, expected);
    let stored = stored(&node, "orders");
    assert!(stored.iter().map(|message| &message["body"]).eq(&bodies), "in the order in which they came");
}

#[test]
fn a_batch_is_stored_whole_or_not_at_all() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    let mut body = Vec::new();
    for number in 0..3 {
        let properties = format!("KEYS\u{1}k{number}\u{2}");
        let text = format!("batch-{number}");
        InnerMessage { flag: number, body: text.as_bytes(), properties: properties.as_bytes() }
            .write(&mut body);
    }
    let mut fields = fields("orders", "1", "WAIT\u{1}true\u{2}");
    fields.push(("m", "true"));
    let answer = client.ask(SEND_BATCH, &fields, &body);
    assert_eq!((answer.code, answer.field("queueOffset")), (0, "0"));
    assert_eq!(answer.field("msgId").split(',').count(), 3);
    let cut = client.ask(SEND_BATCH, &fields, &body[..body.len() - 1]);
    assert_eq!(cut.code, 13, "{cut:?}");
    let keys: Vec<_> = stored(&node, "orders").iter().map(|message| message["key"].clone()).collect();
    assert_eq!(keys, ["k0", "k1", "k2"]);
}

#[test]
fn a_body_that_is_too_large_is_passed_over_and_the_connection_goes_on() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    let large = "x".repeat(limits::BODY_BYTES_MAX + 1);
    let answer = send(&mut client, "orders", "0", &large);
    assert_eq!(answer.code, 13, "{answer:?}");
    assert!(answer.remark.contains("msg body length limit 4194304B"), "{answer:?}");
    assert_eq!(send(&mut client, "orders", "0", &large[1..]).code, 0);
    assert_eq!(send(&mut client, "orders", "0", "small").code, 0);
    assert_eq!(stored(&node, "orders").len(), 2);
}

/// The broker's own id, for a producer that gives none, took room from what RocketMQ's limit allows.
#[test]
fn properties_may_have_all_that_they_may_have() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let mut client = Remoting::connect(node.address());
    let most = limits::PROPERTIES_BYTES_MAX;
    for (bytes, code) in [(most - 60, 0), (most - 10, 0), (most, 0), (most + 1, 13)] {
        let properties = format!("a\u{1}{}\u{2}", "x".repeat(bytes - 3));
        let answer = client.ask(SEND, &fields("orders", "0", &properties), b"body");
        assert_eq!(answer.code, code, "{bytes}: {}", answer.remark);
    }
    assert_eq!(stored(&node, "orders").len(), 3);
}

#[test]
fn a_topic_is_made_on_all_shards_before_the_first_answer() {
    let (_directory, made) = node(&["--shards", "3"]);
    let mut client = Remoting::connect(&made.addresses[1]);
    assert_eq!(send(&mut client, "orders", "1", "first").code, 0);
    for address in &made.addresses {
        let route = Remoting::connect(address).ask(ROUTE, &[("topic", "orders")], b"");
        assert_eq!(queues(&route).iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 2, 2]);
    }
    // A producer that names another topic than the one that others are made after does not want its own made.
    let mut fields = fields("wanted", "0", "");
    fields.push(("c", "wanted-to-be-there"));
    assert_eq!(client.ask(SEND, &fields, b"").code, 17);
    // One of an instance that was not made; and where nothing is made by use.
    let answer = send(&mut client, "nowhere%orders", "0", "");
    assert_eq!(answer.code, 17, "{answer:?}");
    let (_directory, node) = node(&["--no-auto-create-topics"]);
    let mut client = Remoting::connect(node.address());
    let answer = send(&mut client, "orders", "0", "");
    assert_eq!(answer.code, 17);
    assert!(answer.remark.starts_with("topic[orders] not exist, apply first please!"), "{answer:?}");
    assert_eq!(client.ask(ROUTE, &[("topic", "TBW102")], b"").code, 17);
}

#[test]
fn what_is_not_carried_out_is_refused_and_stores_nothing() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let mut client = Remoting::connect(node.address());
    assert_eq!(client.ask(200_050, &[], b"").code, 3);
    assert_eq!(stored(&node, "orders").len(), 0);
}

#[test]
fn what_was_answered_survives_a_kill() {
    let (directory, killed) = node(&["--shards", "2"]);
    let mut client = Remoting::connect(killed.address());
    let mut bytes = Vec::new();
    for number in 0..200 {
        bytes.extend(request(
            HeaderForm::Json,
            SEND,
            number,
            &fields("orders", "0", ""),
            number.to_string().as_bytes(),
        ));
    }
    client.send(&bytes);
    let answered: Vec<_> =
        (0..150).map(|_| client.answer()).map(|answer| (answer.code, answer.opaque)).collect();
    killed.kill();
    let node = Setup::new(directory.path().join("data")).start();
    let stored = stored(&node, "orders");
    for (code, number) in answered {
        assert_eq!(code, 0);
        let count = stored.iter().filter(|message| message["body"] == number.to_string().as_str()).count();
        assert_eq!(count, 1, "message {number}");
    }
}

/// The bench speaks as a client of RocketMQ's: whatever it was told is stored is there, and it leaves topics alone that exist.
#[test]
fn bench_sends_single_messages_and_batches_and_pulls_them() {
    let (_directory, node) = node(&["--shards", "2"]);
    let mut told = 0;
    for (batch, existing) in [("1", &[][..]), ("7", &["--existing"])] {
        let bench = [
            "bench",
            "produce",
            "made",
            "--protocol",
            "remoting",
            "--queues",
            "3",
            "-o",
            "json",
            "--batch",
            batch,
        ];
        let few = [
            "--duration",
            "100ms",
            "--warmup",
            "0s",
            "--connections",
            "2",
            "--in-flight",
            "8",
            "--body",
            "64",
        ];
        let report = node.run(&[&bench[..], &few, existing].concat()).json();
        assert_eq!(
            (&report["errors"], &report["unanswered"], &report["queues"]),
            (&0.into(), &0.into(), &6.into())
        );
        told += report["messages"].as_u64().expect("a number");
    }
    assert_eq!(stored(&node, "made").len() as u64, told);
    let sentence = node.run(&["bench", "produce", "made", "--protocol", "remoting"]).badly(1);
    assert!(sentence.contains("--existing"), "{sentence}");
    // Pulled again and again, over both shards; nothing is missing, twice there, or other than it was sent.
    let bench = ["bench", "consume", "made", "--protocol", "remoting", "--pull-messages", "5", "-o", "json"];
    let report = node.run(&[&bench[..], &["--duration", "100ms", "--warmup", "0s"]].concat()).json();
    assert_eq!(
        (&report["lost"], &report["duplicated"], &report["damaged"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert!(report["messages"].as_u64() > Some(0) || told == 0, "{report}");
}
