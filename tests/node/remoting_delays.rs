//! Messages that are delivered later, over RocketMQ's own protocol, as bytes on a socket.

use std::time::{SystemTime, UNIX_EPOCH};

use turbopump::limits;
use turbopump::protocol::remoting::message::InnerMessage;

use super::remoting::{Answer, Remoting, node};
use super::remoting_pulls::{pull, records};
use super::remoting_sends::fields;
use crate::support::node::Setup;

const SEND: i32 = 310;
const SEND_BATCH: i32 = 320;
const SETTINGS: i32 = 26;
const RECALL: i32 = 370;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

fn send(client: &mut Remoting, properties: &str, body: &str) -> Answer {
    client.ask(SEND, &fields("orders", "0", properties), body.as_bytes())
}

/// A message's body, store time and properties, once it is there at that offset.
fn awaited(client: &mut Remoting, offset: usize) -> (String, u64, String) {
    let answer = pull(client, &[("queueOffset", &offset.to_string()), ("sysFlag", "6")]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let found = records(&answer);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (text(found[0].body), found[0].store_time as u64, text(found[0].properties))
}

#[test]
fn messages_come_at_their_time_and_not_before_it() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = Remoting::connect(node.address());
    let begun = now_ms();
    let at = begun + 700;
    let late = [
        ("DELAY\u{1}1\u{2}".to_owned(), 1_000),
        ("TIMER_DELAY_MS\u{1}400\u{2}".to_owned(), 400),
        (format!("TIMER_DELIVER_MS\u{1}{at}\u{2}"), 700),
        (format!("__STARTDELIVERTIME\u{1}{}\u{2}", at - 150), 550),
        ("TIMER_DELAY_SEC\u{1}1\u{2}TIMER_DELAY_MS\u{1}20\u{2}".to_owned(), 1_000),
    ];
    for (properties, due) in &late {
        let answer = send(&mut client, properties, &due.to_string());
        assert_eq!((answer.code, answer.field("queueOffset"), answer.field("queueId")), (0, "0", "0"));
        assert_eq!(answer.field("msgId").len(), 32);
    }
    // What has no time to wait for is there at once, and so is what came too late.
    for properties in ["DELAY\u{1}0\u{2}", "TIMER_DELIVER_MS\u{1}5\u{2}"] {
        assert_eq!(send(&mut client, properties, "0").code, 0);
    }
    let found: Vec<_> = (0..7).map(|offset| awaited(&mut client, offset)).collect();
    let bodies: Vec<_> = found.iter().map(|(body, ..)| body.parse::<u64>().expect("a number")).collect();
    assert_eq!(bodies, [0, 0, 400, 550, 700, 1_000, 1_000]);
    for (body, stored, properties) in &found {
        let due = begun + body.parse::<u64>().expect("a number");
        assert!(*stored >= due, "{} ms early: {properties}", due - stored);
    }
    let by_level = &found[5].2;
    for said in ["DELAY\u{1}1\u{2}", "REAL_TOPIC\u{1}orders\u{2}", "REAL_QID\u{1}0\u{2}", "UNIQ_KEY\u{1}"] {
        assert!(by_level.contains(said), "{said}: {by_level}");
    }
    for said in ["TIMER_DELAY_MS\u{1}400\u{2}", "TIMER_OUT_MS\u{1}", "REAL_TOPIC\u{1}orders\u{2}"] {
        assert!(found[2].2.contains(said), "{said}: {}", found[2].2);
    }
    assert_eq!(node.counter("held_released"), 5);
}

#[test]
fn levels_are_those_that_the_node_was_told_and_one_above_the_last_is_the_last() {
    let (_directory, node) = node(&["--shards", "2", "--delay-levels", "2s 1s 0s"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    for address in &node.addresses {
        let mut client = Remoting::connect(address);
        let settings = client.ask(SETTINGS, &[], b"");
        let settings = std::str::from_utf8(settings.body()).expect("text").lines();
        let levels: Vec<_> = settings.filter(|line| line.starts_with("messageDelayLevel=")).collect();
        assert_eq!(levels, ["messageDelayLevel=2s 1s 0s"]);
        let begun = now_ms();
        for level in [1, 2, 3, 9, 5_000_000_000_u64] {
            assert_eq!(send(&mut client, &format!("DELAY\u{1}{level}\u{2}"), &level.to_string()).code, 0);
        }
        let found: Vec<_> = (0..5).map(|offset| awaited(&mut client, offset)).collect();
        let bodies: Vec<_> = found.iter().map(|(body, ..)| &**body).collect();
        assert_eq!(bodies, ["3", "9", "5000000000", "2", "1"]);
        for (index, (late, said)) in [(3, (1_000, "DELAY\u{1}2\u{2}")), (4, (2_000, "DELAY\u{1}1\u{2}"))] {
            let (_, stored, properties) = &found[index];
            assert!(*stored >= begun + late && properties.contains(said), "{stored}: {properties}");
        }
    }
}

/// What a broker tells of a delay was once left out of properties that had no room for it.
#[test]
fn a_delayed_message_has_room_for_what_is_told_of_its_delay() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    let id = "UNIQ_KEY\u{1}ID\u{2}";
    let said = "DELAY\u{1}1\u{2}REAL_TOPIC\u{1}orders\u{2}REAL_QID\u{1}0\u{2}".len();
    let mut of = |bytes: usize| {
        let filler = "x".repeat(bytes - id.len() - 3);
        // The level is a wish, and not stored as it came.
        send(&mut client, &format!("{id}a\u{1}{filler}\u{2}DELAY\u{1}1\u{2}"), "later").code
    };
    let most = limits::PROPERTIES_BYTES_MAX - said;
    assert_eq!((of(most + 1), of(most)), (13, 0));
    let properties = awaited(&mut client, 0).2;
    assert_eq!(properties.len(), limits::PROPERTIES_BYTES_MAX);
    assert!(properties.contains("REAL_TOPIC\u{1}orders\u{2}"), "{}", &properties[properties.len() - 100..]);
}

#[test]
fn what_cannot_be_delayed_is_refused() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    let beyond = now_ms() + limits::DELAY_MS_MAX + 60_000;
    for properties in [
        "DELAY\u{1}soon\u{2}".to_owned(),
        "TIMER_DELAY_MS\u{1}\u{2}".to_owned(),
        "TIMER_DELAY_SEC\u{1}9223372036854775807\u{2}".to_owned(),
        format!("TIMER_DELIVER_MS\u{1}{beyond}\u{2}"),
    ] {
        let answer = send(&mut client, &properties, "");
        assert_eq!(answer.code, 13, "{properties}: {answer:?}");
        assert!(answer.remark.contains("timer message illegal"), "{answer:?}");
    }
    let mut body = Vec::new();
    InnerMessage { flag: 0, body: b"one", properties: b"DELAY\x011\x02" }.write(&mut body);
    let mut fields = fields("orders", "0", "");
    fields.push(("m", "true"));
    let answer = client.ask(SEND_BATCH, &fields, &body);
    assert_eq!(answer.code, 13, "{answer:?}");
    assert_eq!(node.counter("messages_held"), 0);
}

#[test]
fn what_is_taken_back_is_not_delivered_and_the_rest_is() {
    let (directory, killed) = node(&["--shards", "2"]);
    killed.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = Remoting::connect(&killed.addresses[1]);
    let due = now_ms() + 2_500;
    let mut handles = Vec::new();
    for number in 0..6 {
        let properties =
            format!("TIMER_DELIVER_MS\u{1}{}\u{2}UNIQ_KEY\u{1}ID{number}\u{2}", due + number % 2);
        handles.push(send(&mut client, &properties, &number.to_string()).field("recallHandle").to_owned());
    }
    let by_level = send(&mut client, "DELAY\u{1}9\u{2}", "by level").field("recallHandle").to_owned();
    let recall = |client: &mut Remoting, topic: &str, handle: &str| {
        client.ask(RECALL, &[("topic", topic), ("recallHandle", handle)], b"")
    };
    for number in [1, 2, 4] {
        let answer = recall(&mut client, "orders", &handles[number]);
        assert_eq!((answer.code, answer.field("msgId")), (0, &*format!("ID{number}")));
    }
    assert_eq!(recall(&mut client, "orders", &by_level).code, 0);
    for (topic, handle) in
        [("orders", &*handles[1]), ("other", &handles[0]), ("orders", "none"), ("orders", "")]
    {
        let answer = recall(&mut client, topic, handle);
        assert_eq!(answer.code, 604, "{answer:?}");
    }
    // Another shard has its own messages.
    let other = recall(&mut Remoting::connect(&killed.addresses[0]), "orders", &handles[0]);
    assert_eq!(other.code, 604, "{other:?}");
    killed.kill();
    let node = Setup::new(directory.path().join("data")).start();
    let mut client = Remoting::connect(&node.addresses[1]);
    assert_eq!(recall(&mut client, "orders", &handles[2]).code, 604, "it was taken back before");
    let bodies: Vec<_> = (0..3).map(|offset| awaited(&mut client, offset).0).collect();
    assert_eq!(bodies, ["0", "3", "5"]);
    assert_eq!(recall(&mut client, "orders", &handles[0]).code, 604, "it was delivered");
    let last = pull(&mut client, &[("queueOffset", "3"), ("sysFlag", "6"), ("suspendTimeoutMillis", "100")]);
    assert_eq!((last.code, last.field("maxOffset")), (19, "3"));
}

/// Ids with a blank in them once made handles that took back nothing.
#[test]
fn a_message_is_taken_back_whatever_its_id_is() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    for id in ["a b", " ", "100% sure", "%20"] {
        let properties = format!("DELAY\u{1}9\u{2}UNIQ_KEY\u{1}{id}\u{2}");
        let handle = send(&mut client, &properties, "later").field("recallHandle").to_owned();
        let recalled = client.ask(RECALL, &[("topic", "orders"), ("recallHandle", &handle)], b"");
        assert_eq!((recalled.code, recalled.field("msgId")), (0, id));
    }
    assert_eq!((node.counter("recalls"), node.counter("messages_recalled")), (4, 4));
}

#[test]
fn what_waits_is_not_lost_with_the_broker() {
    let (directory, killed) = node(&[]);
    let mut client = Remoting::connect(killed.address());
    let before = now_ms();
    for number in 0..20 {
        assert_eq!(send(&mut client, "DELAY\u{1}1\u{2}", &number.to_string()).code, 0);
    }
    killed.kill();
    let node = Setup::new(directory.path().join("data")).start();
    let mut client = Remoting::connect(node.address());
    for number in 0..20 {
        let (body, stored, _) = awaited(&mut client, number);
        assert_eq!(body, number.to_string());
        assert!(stored >= before + 1_000);
    }
    let last = pull(&mut client, &[("queueOffset", "20"), ("sysFlag", "6"), ("suspendTimeoutMillis", "100")]);
    assert_eq!((last.code, last.field("maxOffset")), (19, "20"), "each comes once");
}
