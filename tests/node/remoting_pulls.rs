//! Pulls over RocketMQ's own protocol, as bytes on a socket: what is given, from where, and what those get who wait.

use std::io::Read;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::process::Signal;
use sha1::Sha1;
use turbopump::limits;
use turbopump::protocol::remoting::HeaderForm;
use turbopump::protocol::remoting::message::{ReadRecord, body_checksum, read_record};
use turbopump::types::OffsetMessageId;

use super::remoting::{Answer, Remoting, node, request};
use super::remoting_sends::{fields as send_fields, send};
use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::node::Setup;

const SEND: i32 = 310;
pub const PULL: i32 = 11;
const LITE_PULL: i32 = 361;
const COMMITTED: i32 = 14;
const HEART_BEAT: i32 = 34;

/// Outcomes of a pull.
pub const FOUND: i32 = 0;
pub const NOTHING: i32 = 19;
pub const PASSED: i32 = 20;
const OUTSIDE: i32 = 21;

/// The fields of a pull of `orders` that brings its subscription, with others in their places.
pub fn pull_fields<'a>(changed: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        ("consumerGroup", "g"),
        ("topic", "orders"),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "20000"),
        ("subscription", "*"),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ];
    for (name, value) in changed {
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    fields
}

pub fn pull(client: &mut Remoting, changed: &[(&str, &str)]) -> Answer {
    client.ask(PULL, &pull_fields(changed), b"")
}

/// Where the next pull goes on, and the queue's ends.
pub fn offsets(answer: &Answer) -> [i64; 3] {
    let number = |name| answer.field(name).parse().expect("a number");
    assert_eq!(answer.field("suggestWhichBrokerId"), "0");
    [number("nextBeginOffset"), number("minOffset"), number("maxOffset")]
}

pub fn records(answer: &Answer) -> Vec<ReadRecord<'_>> {
    let mut rest = answer.body();
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (record, after) = read_record(rest).expect("whole records");
        records.push(record);
        rest = after;
    }
    records
}

#[test]
fn messages_come_with_everything_they_have() {
    let (_directory, node) = node(&["--shards", "3", "--cluster", "shop"]);
    node.run_well(&["topic", "create", "orders", "--queues", "6"]);
    let mut client = Remoting::connect(&node.addresses[2]);
    let mut ids = Vec::new();
    for number in 0..40 {
        let properties = format!(
            "KEYS\u{1}k{number} all\u{2}color\u{1}red\u{2}TAGS\u{1}t{}\u{2}WAIT\u{1}true\u{2}",
            number % 3
        );
        let mut fields = send_fields("orders", "1", &properties);
        fields[7] = ("h", "77");
        fields.push(("j", "2"));
        let answer = client.ask(SEND, &fields, format!("body-{number}").as_bytes());
        assert_eq!(answer.code, 0, "{answer:?}");
        ids.push(answer.field("msgId").to_owned());
    }
    let first = pull(&mut client, &[("queueId", "1")]);
    let second = client.ask(LITE_PULL, &pull_fields(&[("queueId", "1"), ("queueOffset", "32")]), b"");
    assert_eq!((first.code, offsets(&first)), (FOUND, [32, 0, 40]));
    assert_eq!((second.code, offsets(&second)), (FOUND, [40, 0, 40]));
    let found: Vec<_> = records(&first).into_iter().chain(records(&second)).collect();
    assert_eq!(found.len(), 40);
    let address = node.addresses[2].parse().expect("an address");
    for (number, record) in found.iter().enumerate() {
        assert_eq!(record.body, format!("body-{number}").as_bytes());
        assert_eq!(record.body_crc, body_checksum(record.body));
        assert_eq!((record.queue, record.queue_offset, record.flag), (1, number as i64, 77));
        assert_eq!((record.topic, record.deliveries_before), (&b"orders"[..], 2));
        assert_eq!((record.store_host, record.born_host), (address, client.own_address()));
        assert_eq!(record.born_time, 1_700_000_000_000);
        assert!(record.store_time > record.born_time && record.system_flag == 0);
        let id = OffsetMessageId { address, physical_offset: record.physical_offset };
        assert_eq!(&*id.text(), ids[number]);
        let properties = String::from_utf8(record.properties.to_vec()).expect("text");
        let (own, added) = properties.split_once("TAGS\u{1}").expect("a tag");
        assert!(own.starts_with("color\u{1}red\u{2}UNIQ_KEY\u{1}"), "{properties}");
        let expected = format!(
            "t{}\u{2}KEYS\u{1}k{number} all\u{2}CLUSTER\u{1}shop\u{2}MSG_REGION\u{1}DefaultRegion\u{2}TRACE_ON\u{1}true\u{2}",
            number % 3
        );
        assert_eq!(added, expected);
    }
}

#[test]
fn every_place_has_its_answer() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = Remoting::connect(node.address());
    for number in 0..5 {
        assert_eq!(send(&mut client, "orders", "0", &number.to_string()).code, 0);
    }
    for (queue, offset, code, remark, expected) in [
        ("0", "3", FOUND, "FOUND", [5, 0, 5]),
        ("0", "5", NOTHING, "OFFSET_OVERFLOW_ONE", [5, 0, 5]),
        ("0", "6", OUTSIDE, "OFFSET_OVERFLOW_BADLY", [5, 0, 5]),
        ("0", "9223372036854775807", OUTSIDE, "OFFSET_OVERFLOW_BADLY", [5, 0, 5]),
        ("0", "-1", OUTSIDE, "OFFSET_TOO_SMALL", [0, 0, 5]),
        ("0", "-9223372036854775808", OUTSIDE, "OFFSET_TOO_SMALL", [0, 0, 5]),
        ("1", "0", NOTHING, "NO_MESSAGE_IN_QUEUE", [0, 0, 0]),
        ("1", "7", OUTSIDE, "NO_MESSAGE_IN_QUEUE", [0, 0, 0]),
        ("1", "-7", OUTSIDE, "NO_MESSAGE_IN_QUEUE", [0, 0, 0]),
    ] {
        let answer = pull(&mut client, &[("queueId", queue), ("queueOffset", offset)]);
        assert_eq!(
            (answer.code, &*answer.remark, offsets(&answer)),
            (code, remark, expected),
            "{queue} {offset}"
        );
        assert_eq!(records(&answer).len(), if code == FOUND { 2 } else { 0 });
    }
    let (long, longer) = ("g".repeat(121), "g".repeat(256));
    for (name, value, code, words) in [
        ("queueId", "2", 29, "queueId[2] is illegal"),
        ("queueId", "-1", 29, "queueId[-1] is illegal"),
        ("queueId", "x", 1, "queueId"),
        ("queueOffset", "9223372036854775808", 1, "queueOffset"),
        ("suspendTimeoutMillis", "9223372036854775808", 1, "suspendTimeoutMillis"),
        ("maxMsgNums", "2147483648", 1, "maxMsgNums"),
        ("topic", "nowhere", 17, "topic[nowhere] not exist"),
        ("topic", "a b", 17, "topic[a b] not exist"),
        ("topic", "%RETRY%other", 17, "not exist"),
        ("consumerGroup", "", 26, "subscription group [] does not exist"),
        ("consumerGroup", &long, 26, "at most 120 bytes"),
        ("consumerGroup", &longer, 26, "does not exist"),
        ("subscription", "||", 23, "parse the consumer's subscription failed"),
        ("expressionType", "JS", 1, "does not support consumer to filter message by JS"),
    ] {
        let refused = pull(&mut client, &[(name, value)]);
        assert_eq!(refused.code, code, "{name}={value}: {refused:?}");
        assert!(refused.remark.contains(words), "{name}={value}: {refused:?}");
    }
    // The topic of a group's own retries is there whenever somebody looks, and empty before the first of them.
    let retries = [("topic", "%RETRY%g"), ("queueOffset", "0")];
    assert_eq!(offsets(&pull(&mut client, &retries)), [0, 0, 0]);
}

#[test]
fn a_pull_takes_as_much_as_it_asks_for() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    let large = vec![b'x'; limits::BODY_BYTES_MAX];
    for body in [&large[..], &[b'y'; 100 * 1024], &[b'z'; 200 * 1024]] {
        assert_eq!(client.ask(SEND, &send_fields("orders", "0", ""), body).code, 0);
    }
    for number in 0..40 {
        assert_eq!(send(&mut client, "orders", "0", &number.to_string()).code, 0);
    }
    let mut count = |offset: &str, name: &str, value: &str| {
        let answer = pull(&mut client, &[("queueOffset", offset), (name, value)]);
        assert_eq!(answer.code, FOUND);
        records(&answer).len()
    };
    // The first one, whatever its size, and no other beside it.
    assert_eq!(count("0", "maxMsgNums", "32"), 1);
    // 256 KiB, or what it says.
    assert_eq!(count("1", "maxMsgNums", "32"), 1);
    assert_eq!(count("2", "maxMsgNums", "32"), 32);
    assert_eq!(count("3", "maxMsgBytes", "1"), 1);
    for (asked, given) in [("0", 1), ("-1", 1), ("1", 1), ("39", 39), ("2147483647", 40)] {
        assert_eq!(count("3", "maxMsgNums", asked), given, "{asked}");
    }
}

#[test]
fn a_filter_leaves_out_what_is_not_wanted_and_leads_on() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    for number in 0..9 {
        let properties = format!("TAGS\u{1}t{}\u{2}", number % 3);
        client.ask(SEND, &send_fields("orders", "0", &properties), number.to_string().as_bytes());
    }
    let mut pulled = |tags: &str, offset: &str, flag: &str| {
        let subscription = [("subscription", tags), ("queueOffset", offset), ("sysFlag", flag)];
        let answer = pull(&mut client, &subscription);
        let bodies: String =
            records(&answer).iter().map(|record| String::from_utf8_lossy(record.body).into_owned()).collect();
        (answer.code, offsets(&answer)[0], bodies)
    };
    assert_eq!(pulled("t0", "0", "4"), (FOUND, 9, "036".to_owned()));
    assert_eq!(pulled("t2 || t1", "2", "4"), (FOUND, 9, "24578".to_owned()));
    // It does not wait for what it has not looked at.
    assert_eq!(pulled("t9", "0", "6"), (PASSED, 9, String::new()));
    assert_eq!(pulled("t0", "7", "6"), (PASSED, 9, String::new()));
    assert_eq!(pulled("t0", "9", "4"), (NOTHING, 9, String::new()));
}

#[test]
fn a_pull_without_a_subscription_has_its_groups() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = Remoting::connect(&node.addresses[1]);
    for number in 0..6 {
        let properties = format!("TAGS\u{1}t{}\u{2}", number % 3);
        client.ask(SEND, &send_fields("orders", "0", &properties), number.to_string().as_bytes());
    }
    let mut pulled = |group: &str, topic: &str, version: &str| {
        let own = [("sysFlag", "0"), ("consumerGroup", group), ("topic", topic), ("subVersion", version)];
        let answer = pull(&mut client, &own);
        (answer.code, records(&answer).len())
    };
    assert_eq!(pulled("g", "orders", "0"), (24, 0));
    let heartbeat = br#"{"clientID":"c","consumerDataSet":[{"groupName":"g","messageModel":"CLUSTERING","subscriptionDataSet":[
        {"topic":"orders","subString":"t0 || t1","subVersion":7},{"topic":"none","subString":"*","subVersion":7},
        {"topic":"%RETRY%g","subString":"*","subVersion":7}]}]}"#;
    let mut other = Remoting::connect(node.address());
    assert_eq!(other.ask(HEART_BEAT, &[], heartbeat).code, 0);
    // Said to one shard, known to all.
    for version in ["0", "7"] {
        assert_eq!(pulled("g", "orders", version), (FOUND, 4));
    }
    assert_eq!(pulled("g", "orders", "8"), (25, 0));
    assert_eq!((pulled("other", "orders", "0"), pulled("g", "none", "0")), ((24, 0), (17, 0)));
    assert_eq!(pulled("g", "%RETRY%g", "7"), (NOTHING, 0));
    assert_eq!(other.ask(HEART_BEAT, &[], br#"{"clientID":"c"}"#).code, 0);
    assert_eq!(pulled("g", "orders", "7"), (24, 0));
}

/// Fields with the signature that a client with this key adds.
pub fn signed<'a>(
    fields: &[(&'a str, &'a str)],
    key: &'a str,
    signature: &'a mut String,
) -> Vec<(&'a str, &'a str)> {
    signed_with_body(fields, key, b"", signature)
}

pub fn signed_with_body<'a>(
    fields: &[(&'a str, &'a str)],
    key: &'a str,
    body: &[u8],
    signature: &'a mut String,
) -> Vec<(&'a str, &'a str)> {
    let mut fields = fields.to_vec();
    fields.push(("AccessKey", key));
    fields.sort_unstable();
    let mut mac = Hmac::<Sha1>::new_from_slice(b"secret").expect("a key of any length will do");
    fields.iter().for_each(|(_, value)| mac.update(value.as_bytes()));
    mac.update(body);
    *signature = STANDARD.encode(mac.finalize().into_bytes());
    fields.push(("Signature", signature));
    fields
}

#[test]
fn a_key_pulls_what_it_may_consume() {
    let directory = test_directory();
    let keys = directory.path().join("keys.toml");
    let key = |id: &str, rule: &str| format!("[[keys]]\nid = \"{id}\"\nsecret = \"secret\"\n{rule}\n");
    let consume = "consume = [{ topic = \"orders\", group = \"g\" }]";
    let text = key("producer", "publish = [\"orders\"]") + &key("consumer", consume);
    std::fs::write(&keys, text).expect("a directory of this test");
    let node = Setup::new(directory.path().join("data"))
        .with(&["--access-keys", keys.to_str().expect("UTF-8")])
        .start();
    let mut client = Remoting::connect(node.address());
    let mut signature = String::new();
    let send = signed(&send_fields("orders", "0", ""), "producer", &mut signature);
    assert_eq!(client.ask(SEND, &send, b"").code, 0);
    for (key, changed, code) in [
        ("consumer", ("topic", "orders"), FOUND),
        ("consumer", ("consumerGroup", "other"), 16),
        ("consumer", ("topic", "%RETRY%g"), OUTSIDE),
        ("consumer", ("topic", "%RETRY%other"), 16),
        ("consumer", ("topic", "others"), 16),
        ("producer", ("topic", "orders"), 16),
    ] {
        let mut signature = String::new();
        let offset = if code == OUTSIDE { "1" } else { "0" };
        let fields = pull_fields(&[changed, ("queueOffset", offset)]);
        let answer = client.ask(PULL, &signed(&fields, key, &mut signature), b"");
        assert_eq!(answer.code, code, "{key} {changed:?}: {answer:?}");
    }
}

#[test]
fn a_pull_waits_no_longer_than_its_key_is_there() {
    let directory = test_directory();
    let keys = directory.path().join("keys.toml");
    let key = |id: &str, rule: &str| format!("[[keys]]\nid = \"{id}\"\nsecret = \"secret\"\n{rule}\n");
    let producer_key = key("producer", "publish = [\"orders\"]");
    let consumer_key = key("consumer", "consume = [{ topic = \"orders\", group = \"g\" }]");
    std::fs::write(&keys, producer_key.clone() + &consumer_key).expect("a directory of this test");
    let node = Setup::new(directory.path().join("data"))
        .with(&["--access-keys", keys.to_str().expect("UTF-8")])
        .start();
    let mut producer = Remoting::connect(node.address());
    let mut signature = String::new();
    let send = signed(&send_fields("orders", "0", ""), "producer", &mut signature);
    assert_eq!(producer.ask(SEND, &send, b"").code, 0);
    let mut client = Remoting::connect(node.address());
    let mut signature = String::new();
    let fields = pull_fields(&[("sysFlag", "6"), ("queueOffset", "1"), ("suspendTimeoutMillis", "60000")]);
    let waits = request(HeaderForm::Json, PULL, 1, &signed(&fields, "consumer", &mut signature), b"");
    client.send(&waits);
    // What is answered was taken after it.
    let mut signature = String::new();
    let committed = [("consumerGroup", "g"), ("topic", "orders"), ("queueId", "0")];
    assert_eq!(client.ask(COMMITTED, &signed(&committed, "consumer", &mut signature), b"").code, 0);

    std::fs::write(&keys, producer_key).expect("a directory of this test");
    node.signal(Signal::HUP);
    let ended = client.answer();
    assert_eq!((ended.opaque, ended.code), (1, NOTHING), "{ended:?}");
    let mut signature = String::new();
    let again = client.ask(PULL, &signed(&fields, "consumer", &mut signature), b"");
    assert_eq!(again.code, 16, "{again:?}");
}

#[test]
fn what_a_large_batch_has_is_given_a_few_at_a_time() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let lines: String = (0..30_000).map(|number| format!("message-{number}\n")).collect();
    command::run(Some(node.address()), &["produce", "orders"], Some(lines.as_bytes())).well();
    let mut client = Remoting::connect(node.address());
    let mut next = 0;
    while next < 30_000 {
        let from = next.to_string();
        let answer = pull(&mut client, &[("queueOffset", &from)]);
        for record in records(&answer) {
            assert_eq!((record.queue_offset, record.body), (next, format!("message-{next}").as_bytes()));
            assert_eq!((record.born_host.port(), record.flag), (0, 0), "nobody has said where it was born");
            next += 1;
        }
        assert_eq!(offsets(&answer), [next, 0, 30_000]);
    }
    // What counts is what the client gets, which is more than what such messages take on the disk.
    for bytes in ["300", "1000", "20000"] {
        let answer = pull(&mut client, &[("maxMsgBytes", bytes)]);
        assert!(answer.body().len() <= bytes.parse().expect("a number"), "{bytes}: {}", answer.body().len());
        assert!(!records(&answer).is_empty());
    }
}

#[test]
fn a_pull_that_waits_is_answered_by_the_message_it_waits_for() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = Remoting::connect(node.address());
    let mut producer = Remoting::connect(node.address());
    let waits = |opaque, queue, tags| {
        let fields = pull_fields(&[("sysFlag", "6"), ("queueId", queue), ("subscription", tags)]);
        request(HeaderForm::Json, PULL, opaque, &fields, b"")
    };
    client.send(&[waits(1, "0", "*"), waits(2, "0", "red"), waits(3, "1", "*")].concat());
    // Other requests are answered meanwhile.
    assert_eq!(client.ask(HEART_BEAT, &[], br#"{"clientID":"c"}"#).opaque, 7);
    let begun = Instant::now();
    assert_eq!(send(&mut producer, "orders", "0", "plain").code, 0);
    let first = client.answer();
    assert!(begun.elapsed() < Duration::from_secs(2), "it is called, not found out");
    assert_eq!((first.opaque, first.code, offsets(&first)[0]), (1, FOUND, 1));
    let red = send_fields("orders", "0", "TAGS\u{1}red\u{2}");
    assert_eq!(producer.ask(SEND, &red, b"tagged").code, 0);
    let second = client.answer();
    assert_eq!((second.opaque, second.code, offsets(&second)[0]), (2, FOUND, 2));
    assert_eq!(records(&second)[0].body, b"tagged");
    node.run_well(&["topic", "delete", "orders", "--yes"]);
    let third = client.answer();
    assert_eq!((third.opaque, third.code), (3, 17), "{third:?}");
}

#[test]
fn a_wait_ends_when_it_was_to_and_nothing_is_committed_twice() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    for number in 0..5 {
        assert_eq!(send(&mut client, "orders", "0", &number.to_string()).code, 0);
    }
    let committed = |client: &mut Remoting| {
        let answer =
            client.ask(COMMITTED, &[("consumerGroup", "g"), ("topic", "orders"), ("queueId", "0")], b"");
        answer.field("offset").parse::<i64>().expect("a number")
    };
    let ends =
        [("queueOffset", "5"), ("sysFlag", "7"), ("commitOffset", "3"), ("suspendTimeoutMillis", "100")];
    let fields = pull_fields(&ends);
    let begun = Instant::now();
    client.send(&request(HeaderForm::Binary, PULL, 1, &fields, b""));
    let mut other = Remoting::connect(node.address());
    let mut commit = |offset: &str| {
        let place = [("consumerGroup", "g"), ("topic", "orders"), ("queueId", "0"), ("commitOffset", offset)];
        assert_eq!(other.ask(15, &place, b"").code, 0);
    };
    let first = client.answer();
    assert_eq!((first.code, offsets(&first)), (NOTHING, [5, 0, 5]));
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert_eq!(committed(&mut client), 3);
    // One that is called has said it before.
    let longer = pull_fields(&[("queueOffset", "5"), ("sysFlag", "7"), ("commitOffset", "2")]);
    client.send(&request(HeaderForm::Json, PULL, 2, &longer, b""));
    assert_eq!(client.ask(HEART_BEAT, &[], br#"{"clientID":"c"}"#).opaque, 7);
    commit("4");
    assert_eq!(send(&mut Remoting::connect(node.address()), "orders", "0", "6").code, 0);
    assert_eq!((client.answer().code, committed(&mut client)), (FOUND, 4));
    // Below zero, and beyond the queue, nobody is.
    for beyond in ["-1", "99"] {
        let answer = pull(&mut client, &[("sysFlag", "5"), ("commitOffset", beyond)]);
        assert_eq!((answer.code, committed(&mut client)), (FOUND, 4));
    }
}

#[test]
fn more_waits_than_a_connection_may_have_do_not_stop_its_requests() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let mut client = Remoting::connect(node.address());
    let fields = pull_fields(&[("sysFlag", "6"), ("suspendTimeoutMillis", "30000")]);
    let mut bytes = Vec::new();
    for opaque in 0..limits::CONNECTION_PARKED_MAX as i32 + 3 {
        bytes.extend(request(HeaderForm::Binary, PULL, opaque, &fields, b""));
    }
    client.send(&bytes);
    assert_eq!(client.ask(HEART_BEAT, &[], br#"{"clientID":"c"}"#).opaque, 7, "before anything else");
    for beyond in 0..3 {
        let answer = client.answer();
        let opaque = limits::CONNECTION_PARKED_MAX as i32 + beyond;
        assert_eq!((answer.opaque, answer.code, offsets(&answer)), (opaque, NOTHING, [0, 0, 0]));
    }
    assert_eq!(send(&mut Remoting::connect(node.address()), "orders", "0", "one").code, 0);
    let mut answered: Vec<_> = (0..limits::CONNECTION_PARKED_MAX)
        .map(|_| {
            let answer = client.answer();
            assert_eq!((answer.code, offsets(&answer)[0]), (FOUND, 1));
            answer.opaque
        })
        .collect();
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..limits::CONNECTION_PARKED_MAX as i32));
}

#[test]
fn answers_that_are_not_read_are_not_made() {
    let (_directory, node) = node(&["--client-memory", "64MiB"]);
    let mut client = Remoting::connect(node.address());
    let body = vec![b'x'; 200 * 1024];
    assert_eq!(client.ask(SEND, &send_fields("orders", "0", ""), &body).code, 0);
    let mut bytes = Vec::new();
    for opaque in 0..1000 {
        bytes.extend(request(HeaderForm::Json, PULL, opaque, &pull_fields(&[]), b""));
    }
    client.send(&bytes);
    let mut answered: Vec<_> = (0..1000)
        .map(|_| {
            let answer = client.answer();
            assert_eq!((answer.code, records(&answer)[0].body.len()), (FOUND, body.len()));
            answer.opaque
        })
        .collect();
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..1000));
    let peak = node.counter("memory_answers_peak");
    assert!(peak < 16 * 1024 * 1024, "{peak} bytes of answers at once");
}

#[test]
fn whoever_sends_no_more_gets_what_is_there_and_waits_for_nothing() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    assert_eq!(send(&mut client, "orders", "0", "one").code, 0);
    let mut bytes = request(HeaderForm::Json, PULL, 1, &pull_fields(&[]), b"");
    bytes.extend(request(
        HeaderForm::Json,
        PULL,
        2,
        &pull_fields(&[("queueOffset", "1"), ("sysFlag", "6")]),
        b"",
    ));
    client.send(&bytes);
    client.stream().shutdown(Shutdown::Write).expect("it is open");
    assert_eq!((client.answer().opaque, client.stream().read(&mut [0; 8]).expect("its end")), (1, 0));
}
