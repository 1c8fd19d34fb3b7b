//! Messages that consumers give back over RocketMQ's own protocol, as bytes on a socket: they come again to their group, once,
//! and end among its dead letters.

use std::time::{SystemTime, UNIX_EPOCH};

use turbopump::limits;
use turbopump::protocol::remoting::HeaderForm;
use turbopump::protocol::remoting::message::ReadRecord;

use super::admin::{ADMIN, get};
use super::remoting::{Answer, Remoting, heartbeat, node, request};
use super::remoting_pulls::{pull, pull_fields, records};
use super::remoting_sends::{fields, send};
use crate::support::directory::test_directory;
use crate::support::node::Setup;

const SEND: i32 = 310;
const PULL: i32 = 11;
const COMMITTED: i32 = 14;
const SET_UP_TOPIC: i32 = 17;
const SEND_BACK: i32 = 36;
const HEART_BEAT: i32 = 34;
const RETRIES: &str = "%RETRY%g";
const DEAD_LETTERS: &str = "%DLQ%g";

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// What is there at an offset of a topic's first queue, once something is.
fn awaited(client: &mut Remoting, topic: &str, offset: &str) -> Answer {
    let answer = pull(client, &[("topic", topic), ("queueOffset", offset), ("sysFlag", "6")]);
    assert_eq!(answer.code, 0, "{answer:?}");
    answer
}

fn first(answer: &Answer) -> ReadRecord<'_> {
    records(answer).remove(0)
}

/// Nothing is there at this offset, the queue's end.
fn is_end(client: &mut Remoting, topic: &str, offset: &str) {
    let wait = [("topic", topic), ("queueOffset", offset), ("sysFlag", "6"), ("suspendTimeoutMillis", "50")];
    let answer = pull(client, &wait);
    assert_eq!(answer.code, 19, "{answer:?}");
}

fn give_back(client: &mut Remoting, offset: i64, more: &[(&str, &str)]) -> Answer {
    let offset = offset.to_string();
    let mut fields = vec![("group", "g"), ("offset", &*offset)];
    fields.extend_from_slice(more);
    client.ask(SEND_BACK, &fields, b"")
}

fn property<'a>(record: &'a ReadRecord<'_>, name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(record.properties).expect("text");
    let mut pairs = text.split('\u{2}').filter_map(|pair| pair.split_once('\u{1}'));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

#[test]
fn a_message_that_is_given_back_comes_again_with_all_it_had_and_ends_among_the_dead_letters() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    // Of the shard that does not make topics.
    let mut client = Remoting::connect(&node.addresses[1]);
    let mut waiting = Remoting::connect(&node.addresses[1]);
    assert_eq!(client.ask(HEART_BEAT, &[], &heartbeat("a@1", "g")).code, 0);
    let properties = "KEYS\u{1}k1\u{2}TAGS\u{1}t\u{2}color\u{1}red\u{2}UNIQ_KEY\u{1}ID\u{2}";
    let mut sent = fields("orders", "0", properties);
    sent[7] = ("h", "77");
    let id = client.ask(SEND, &sent, b"apples").field("msgId").to_owned();
    // It waits for the first retry of all, before there is a topic for it.
    let parked = pull_fields(&[("topic", RETRIES), ("sysFlag", "6")]);
    waiting.send(&request(HeaderForm::Json, PULL, 7, &parked, b""));
    let answer = awaited(&mut client, "orders", "0");
    let original = first(&answer);
    let begun = now_ms();
    assert_eq!(give_back(&mut client, original.physical_offset, &[("delayLevel", "1")]).code, 0);
    let answer = waiting.answer();
    let took = now_ms() - begun;
    assert!((1_000..1_200).contains(&took), "{took} ms");
    let retry = first(&answer);
    assert_eq!((retry.topic, retry.body, retry.queue), (RETRIES.as_bytes(), &b"apples"[..], 0));
    assert_eq!((retry.deliveries_before, retry.flag), (1, 77));
    assert_eq!((retry.born_time, retry.born_host), (original.born_time, original.born_host));
    for (name, value) in [
        ("KEYS", "k1"),
        ("TAGS", "t"),
        ("color", "red"),
        ("UNIQ_KEY", "ID"),
        ("RETRY_TOPIC", "orders"),
        ("ORIGIN_MESSAGE_ID", &id),
        ("DELAY", "1"),
    ] {
        assert_eq!(property(&retry, name), Some(value), "{name} of {retry:?}");
    }
    // The group goes on at the first retry, wherever its clients would begin.
    let place = [("consumerGroup", "g"), ("topic", RETRIES), ("queueId", "0")];
    assert_eq!(client.ask(COMMITTED, &place, b"").field("offset"), "0");
    let level = [("delayLevel", "1"), ("maxReconsumeTimes", "2")];
    assert_eq!(give_back(&mut client, retry.physical_offset, &level).code, 0);
    let answer = awaited(&mut client, RETRIES, "1");
    let again = first(&answer);
    assert_eq!(again.deliveries_before, 2);
    assert_eq!(
        (property(&again, "RETRY_TOPIC"), property(&again, "ORIGIN_MESSAGE_ID")),
        (Some("orders"), Some(&*id))
    );
    // It has been delivered three times now.
    assert_eq!(give_back(&mut client, again.physical_offset, &level).code, 0);
    let answer = awaited(&mut client, DEAD_LETTERS, "0");
    let dead = first(&answer);
    assert_eq!((dead.body, dead.deliveries_before), (&b"apples"[..], 3));
    assert_eq!((property(&dead, "RETRY_TOPIC"), property(&dead, "KEYS")), (Some("orders"), Some("k1")));
    is_end(&mut client, RETRIES, "2");
    is_end(&mut client, DEAD_LETTERS, "1");
    // On request it is one at once.
    assert_eq!(give_back(&mut client, original.physical_offset, &[("delayLevel", "-1")]).code, 0);
    assert_eq!(first(&awaited(&mut client, DEAD_LETTERS, "1")).deliveries_before, 1);
    let counters = ["messages_sent_back", "messages_dead_lettered"].map(|name| node.counter(name));
    assert_eq!(counters, [2, 2]);
}

/// Whichever way a message becomes a dead letter, who watches its group sees it.
#[test]
fn dead_letters_of_clients_are_counted_by_their_group_and_topic() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&ADMIN).start();
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let mut client = Remoting::connect(node.address());
    assert_eq!(client.ask(HEART_BEAT, &[], &heartbeat("a@1", "g")).code, 0);
    client.ask(SEND, &fields("orders", "0", ""), b"apples").field("msgId");
    let place = first(&awaited(&mut client, "orders", "0")).physical_offset;
    let counted = || {
        let scrape = get(&node, "/metrics").body;
        let of = |topic: &str| {
            let labels = format!("consumer_group=\"g\",topic=\"{topic}\"");
            let is_it = |line: &&str| {
                line.starts_with("rocketmq_send_to_dlq_messages_total{") && line.contains(&labels)
            };
            let line = scrape.lines().find(is_it)?;
            line.rsplit_once(' ')?.1.parse::<f64>().ok()
        };
        [of("orders"), of(DEAD_LETTERS)]
    };
    assert_eq!(counted()[0].unwrap_or(0.0), 0.0);
    assert_eq!(give_back(&mut client, place, &[("delayLevel", "-1")]).code, 0);
    assert_eq!(counted(), [Some(1.0), None]);
    // What cannot be given back is sent to the retries by the client itself.
    let mut sent = fields(RETRIES, "0", "RETRY_TOPIC\u{1}orders\u{2}");
    sent.extend([("j", "17"), ("l", "16")]);
    assert_eq!(client.ask(SEND, &sent, b"pears").code, 0);
    assert_eq!(counted(), [Some(2.0), None]);
    assert_eq!(first(&awaited(&mut client, DEAD_LETTERS, "1")).body, b"pears");
    // One whose topic is gone is one of its group all the same.
    let mut sent = fields(RETRIES, "0", "RETRY_TOPIC\u{1}gone\u{2}");
    sent.extend([("j", "17"), ("l", "16")]);
    assert_eq!(client.ask(SEND, &sent, b"plums").code, 0);
    assert_eq!(counted(), [Some(2.0), Some(1.0)]);
    assert_eq!(node.counter("messages_dead_lettered"), 3);
}

/// Sets up the topic of the group's retries with a permission.
fn permit(client: &mut Remoting, permission: &str) {
    let fields = [
        ("topic", RETRIES),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "1"),
        ("writeQueueNums", "1"),
        ("perm", permission),
        ("topicFilterType", "SINGLE_TAG"),
        ("order", "false"),
    ];
    assert_eq!(client.ask(SET_UP_TOPIC, &fields, b"").code, 0);
}

#[test]
fn retries_that_may_not_be_written_take_nothing_back() {
    let (_directory, node) = node(&["--delay-levels", "0s"]);
    let mut client = Remoting::connect(node.address());
    assert_eq!(send(&mut client, "orders", "0", "one").code, 0);
    let place = first(&awaited(&mut client, "orders", "0")).physical_offset;
    permit(&mut client, "4");
    for level in ["1", "0", "-1"] {
        let refused = give_back(&mut client, place, &[("delayLevel", level)]);
        assert_eq!(refused.code, 16, "{refused:?}");
        assert!(refused.remark.contains("the topic[%RETRY%g] sending message is forbidden"), "{refused:?}");
    }
    permit(&mut client, "6");
    assert_eq!(give_back(&mut client, place, &[("delayLevel", "0")]).code, 0);
    let again = awaited(&mut client, RETRIES, "0");
    assert_eq!(property(&first(&again), "DELAY"), Some("1"), "there is no level 3");
    is_end(&mut client, RETRIES, "1");
}

/// Such a message once came again without the topic that it was sent to.
#[test]
fn a_message_that_has_no_room_for_where_it_came_from_is_not_taken_back() {
    let (_directory, node) = node(&["--delay-levels", "0s"]);
    let mut client = Remoting::connect(node.address());
    let of = |bytes: usize| format!("a\u{1}{}\u{2}", "x".repeat(bytes - 3));
    for bytes in [limits::PROPERTIES_BYTES_MAX - 20, limits::PROPERTIES_BYTES_MAX - 250] {
        assert_eq!(client.ask(SEND, &fields("orders", "0", &of(bytes)), b"one").code, 0);
    }
    let answer = awaited(&mut client, "orders", "0");
    let places: Vec<_> = records(&answer).iter().map(|record| record.physical_offset).collect();
    let refused = give_back(&mut client, places[0], &[("delayLevel", "1")]);
    assert_eq!(refused.code, 13, "{refused:?}");
    assert!(refused.remark.contains("no room left"), "{refused:?}");
    assert_eq!(give_back(&mut client, places[1], &[("delayLevel", "1")]).code, 0);
    let again = awaited(&mut client, RETRIES, "0");
    assert_eq!(property(&first(&again), "RETRY_TOPIC"), Some("orders"));
    is_end(&mut client, RETRIES, "1");
    // Among the dead letters it is found all the same.
    assert_eq!(give_back(&mut client, places[0], &[("delayLevel", "-1")]).code, 0);
    assert_eq!(first(&awaited(&mut client, DEAD_LETTERS, "0")).body, b"one");
}

/// Clients for Go and C++ misread records of topics with longer names.
#[test]
fn groups_whose_retries_clients_could_not_read_are_refused() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    assert_eq!(send(&mut client, "orders", "0", "one").code, 0);
    let place = first(&awaited(&mut client, "orders", "0")).physical_offset.to_string();
    for (bytes, codes) in [(120, [0, 0, 0, 0]), (121, [1, 26, 26, 26])] {
        let group = "g".repeat(bytes);
        let back = [("group", &*group), ("offset", &place), ("delayLevel", "1")];
        let mut heard = Remoting::connect(node.address());
        assert_eq!(heard.ask(HEART_BEAT, &[], &heartbeat("a@1", &group)).code, codes[0]);
        assert_eq!(pull(&mut client, &[("consumerGroup", &group), ("sysFlag", "4")]).code, codes[1]);
        assert_eq!(client.ask(SEND_BACK, &back, b"").code, codes[2]);
        assert_eq!(send(&mut client, &format!("%RETRY%{group}"), "0", "again").code, codes[3]);
    }
}

#[test]
fn what_is_no_message_is_refused() {
    let (_directory, node) = node(&[]);
    let mut client = Remoting::connect(node.address());
    assert_eq!(send(&mut client, "orders", "0", "one").code, 0);
    let place = first(&awaited(&mut client, "orders", "0")).physical_offset;
    for (offset, more, code) in [
        (place + 1, &[("delayLevel", "1")][..], 1),
        (place + (1 << 16), &[("delayLevel", "1")], 1),
        (1 << 60, &[("delayLevel", "1")], 1),
        (-1, &[("delayLevel", "1")], 1),
        (place, &[], 1),
        (place, &[("delayLevel", "soon")], 1),
        (place, &[("delayLevel", "1"), ("group", "")], 26),
        (place, &[("delayLevel", "1"), ("group", "a b")], 26),
    ] {
        let answer = give_back(&mut client, offset, more);
        assert_eq!(answer.code, code, "{offset} {more:?}: {answer:?}");
        assert!(!answer.remark.is_empty());
    }
    // What waits for its time is no reader's yet.
    let held = client.ask(SEND, &fields("orders", "0", "DELAY\u{1}9\u{2}"), b"later");
    let held = i64::from_str_radix(&held.field("msgId")[16..], 16).expect("a place");
    assert_eq!(give_back(&mut client, held, &[("delayLevel", "1")]).code, 1);
    assert_eq!(client.ask(105, &[("topic", DEAD_LETTERS)], b"").code, 17, "nothing was made");
}

#[test]
fn consumers_that_cannot_give_back_send_to_their_retries() {
    let (_directory, node) = node(&["--shards", "2"]);
    let mut client = Remoting::connect(&node.addresses[1]);
    let mut retry = |deliveries, retries_max, delay: &str, body: &str| {
        let properties = format!("RETRY_TOPIC\u{1}orders\u{2}UNIQ_KEY\u{1}ID\u{2}{delay}");
        let mut fields = fields(RETRIES, "0", &properties);
        fields.extend([("j", deliveries), ("l", retries_max)]);
        client.ask(SEND, &fields, body.as_bytes())
    };
    assert_eq!(retry("1", "2", "DELAY\u{1}1\u{2}", "again").code, 0);
    assert_eq!(retry("2", "2", "", "at once").code, 0);
    assert_eq!(retry("3", "2", "DELAY\u{1}1\u{2}", "dead").code, 0);
    let at_once = awaited(&mut client, RETRIES, "0");
    let again = awaited(&mut client, RETRIES, "1");
    let dead = awaited(&mut client, DEAD_LETTERS, "0");
    let of = |answer| {
        let record: ReadRecord<'_> = first(answer);
        let topic = property(&record, "RETRY_TOPIC").map(str::to_owned);
        (String::from_utf8(record.body.to_vec()).expect("text"), record.deliveries_before, topic)
    };
    let orders = || Some("orders".to_owned());
    assert_eq!(of(&at_once), ("at once".to_owned(), 2, orders()));
    assert_eq!(of(&again), ("again".to_owned(), 1, orders()));
    assert_eq!(of(&dead), ("dead".to_owned(), 3, orders()));
    is_end(&mut client, RETRIES, "2");
    is_end(&mut client, DEAD_LETTERS, "1");
    for (topic, code) in [("%RETRY%", 29), ("%DLQ%g", 0)] {
        assert_eq!(send(&mut client, topic, "0", "x").code, code, "{topic}");
    }
    let mut batch = fields(RETRIES, "0", "");
    batch.push(("m", "true"));
    assert_eq!(client.ask(320, &batch, b"").code, 13);
}

#[test]
fn what_was_given_back_is_not_lost_with_the_broker() {
    let (directory, killed) = node(&["--shards", "2"]);
    let mut client = Remoting::connect(&killed.addresses[1]);
    for number in 0..20 {
        assert_eq!(send(&mut client, "orders", "0", &number.to_string()).code, 0);
    }
    let places: Vec<_> =
        records(&awaited(&mut client, "orders", "0")).iter().map(|record| record.physical_offset).collect();
    assert_eq!(places.len(), 20);
    let begun = now_ms();
    for place in places {
        assert_eq!(give_back(&mut client, place, &[("delayLevel", "1")]).code, 0);
    }
    killed.kill();
    let node = Setup::new(directory.path().join("data")).start();
    let mut client = Remoting::connect(&node.addresses[1]);
    for number in 0..20 {
        let answer = awaited(&mut client, RETRIES, &number.to_string());
        let record = first(&answer);
        assert_eq!((record.body, record.deliveries_before), (number.to_string().as_bytes(), 1));
        assert!(record.store_time >= begun + 1_000, "not before its time");
    }
    is_end(&mut client, RETRIES, "20");
}
