//! Offsets over RocketMQ's own protocol: where groups are, what queues have, and what survives.

use turbopump::api::{JoinGroup, Request, SessionLife};
use turbopump::protocol::remoting::{FieldValue, Head, HeaderForm};

use super::remoting::{Answer, Remoting, node, request};
use super::remoting_sends::send;
use crate::support::directory::test_directory;
use crate::support::node::{PATIENCE, Setup};

const QUERY: i32 = 14;
const COMMIT: i32 = 15;
const SEARCH: i32 = 29;
const MAX: i32 = 30;
const MIN: i32 = 31;
const EARLIEST: i32 = 32;

/// The offset, or the code of a refusal.
fn offset(answer: &Answer) -> Result<i64, i32> {
    match answer.code {
        0 => Ok(answer.field("offset").parse().expect("a number")),
        code => Err(code),
    }
}

fn query(client: &mut Remoting, group: &str, topic: &str, queue: &str) -> Result<i64, i32> {
    let fields = [("consumerGroup", group), ("topic", topic), ("queueId", queue)];
    offset(&client.ask(QUERY, &fields, b""))
}

fn commit(client: &mut Remoting, group: &str, topic: &str, queue: &str, offset: &str) -> i32 {
    let fields = [("consumerGroup", group), ("topic", topic), ("queueId", queue), ("commitOffset", offset)];
    client.ask(COMMIT, &fields, b"").code
}

fn of_queue(client: &mut Remoting, code: i32, topic: &str, queue: &str) -> Answer {
    client.ask(code, &[("topic", topic), ("queueId", queue)], b"")
}

#[test]
fn queues_tell_what_they_have_as_brokers_of_apaches_do() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    let mut client = Remoting::connect(&node.addresses[1]);
    for _ in 0..3 {
        send(&mut client, "orders", "1", "body");
    }
    let ends = |client: &mut Remoting, topic, queue| {
        [MIN, MAX].map(|code| offset(&of_queue(client, code, topic, queue)))
    };
    assert_eq!(ends(&mut client, "orders", "1"), [Ok(0), Ok(3)]);
    assert_eq!(ends(&mut client, "orders", "0"), [Ok(0), Ok(0)]);
    assert_eq!(ends(&mut Remoting::connect(node.address()), "orders", "1"), [Ok(0), Ok(0)], "its own queue");
    let earliest = |client: &mut Remoting, queue| {
        of_queue(client, EARLIEST, "orders", queue).field("timestamp").parse::<i64>().expect("a number")
    };
    let stored_at = earliest(&mut client, "1");
    assert!(stored_at > 1_700_000_000_000);
    assert_eq!(earliest(&mut client, "0"), -1);
    let mut search = |time: i64, boundary: &str| {
        let time = time.to_string();
        let fields =
            [("topic", "orders"), ("queueId", "1"), ("timestamp", &time), ("boundaryType", boundary)];
        offset(&client.ask(SEARCH, &fields, b""))
    };
    assert_eq!((search(stored_at, "LOWER"), search(stored_at - 1, "UPPER")), (Ok(0), Ok(0)));
    assert_eq!((search(i64::MAX, "LOWER"), search(i64::MAX, "UPPER")), (Ok(3), Ok(2)));
    assert_eq!((search(-1, "LOWER"), search(-1, "UPPER")), (Ok(0), Ok(0)));
    // As from Apache's, there is nothing in a queue that is not there.
    for (topic, queue) in
        [("orders", "2"), ("orders", "-1"), ("nowhere", "0"), ("%RETRY%g", "0"), ("a b", "0")]
    {
        assert_eq!(ends(&mut client, topic, queue), [Ok(0), Ok(0)], "{topic} {queue}");
        assert_eq!(of_queue(&mut client, EARLIEST, topic, queue).field("timestamp"), "-1");
    }
    for code in [QUERY, COMMIT, SEARCH, MAX, MIN, EARLIEST] {
        let refused = client.ask(code, &[], b"");
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.remark.contains("is null"), "{refused:?}");
    }
}

#[test]
fn groups_are_where_their_clients_say() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = Remoting::connect(node.address());
    for _ in 0..4 {
        send(&mut client, "orders", "0", "body");
    }
    // A new group of a new topic gets all, unless it asks for nothing but what was committed.
    assert_eq!(query(&mut client, "g", "orders", "0"), Ok(0));
    assert_eq!(query(&mut client, "g", "orders", "1"), Ok(0), "nothing is in it yet");
    let fields =
        [("consumerGroup", "g"), ("topic", "orders"), ("queueId", "0"), ("setZeroIfNotFound", "false")];
    assert_eq!(client.ask(QUERY, &fields, b"").code, 22);
    for (topic, queue) in [("orders", "2"), ("orders", "-1"), ("nowhere", "0")] {
        assert_eq!(query(&mut client, "g", topic, queue), Err(22), "{topic} {queue}");
    }
    for offset in [3, 1, 4] {
        assert_eq!(commit(&mut client, "g", "orders", "0", &offset.to_string()), 0);
        assert_eq!(query(&mut client, "g", "orders", "0"), Ok(offset));
    }
    for offset in ["5", "-1", "9223372036854775807", "18446744073709551616", ""] {
        assert_eq!(commit(&mut client, "g", "orders", "0", offset), 29, "{offset}");
    }
    for queue in ["2", "-1"] {
        let fields = [("consumerGroup", "g"), ("topic", "orders"), ("queueId", queue), ("commitOffset", "0")];
        let refused = client.ask(COMMIT, &fields, b"");
        assert_eq!(refused.code, 29, "{refused:?}");
        assert!(refused.remark.contains(&format!("queueId[{queue}] is illegal")), "{refused:?}");
    }
    assert_eq!(commit(&mut client, "g", "nowhere", "0", "0"), 17);
    assert_eq!(commit(&mut client, "no group", "orders", "0", "0"), 26);
    assert_eq!(query(&mut client, "g", "orders", "0"), Ok(4), "refusals change nothing");
    // The topic of a group's retries has no messages before one is sent back.
    assert_eq!(query(&mut client, "g", "%RETRY%g", "0"), Ok(0));
    assert_eq!(commit(&mut client, "g", "%RETRY%g", "0", "0"), 0);
    assert_eq!(commit(&mut client, "g", "%RETRY%other", "0", "0"), 17);
}

/// A commit that wants no answer.
fn one_way(client: &mut Remoting, offset: i64) {
    let fields = [
        ("consumerGroup", FieldValue::Text("g")),
        ("topic", FieldValue::Text("orders")),
        ("queueId", FieldValue::Number(0)),
        ("commitOffset", FieldValue::Number(offset)),
    ];
    let mut bytes = Vec::new();
    Head { fields: &fields, ..Head::one_way(COMMIT, 1) }.write(HeaderForm::Json, b"", &mut bytes);
    client.send(&bytes);
}

#[test]
fn answered_commits_survive_a_kill_and_all_survive_a_stop() {
    let directory = test_directory();
    let setup = Setup::new(directory.path().join("data"));
    let node = setup.start();
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let mut client = Remoting::connect(node.address());
    for _ in 0..8 {
        send(&mut client, "orders", "0", "body");
    }
    assert_eq!(commit(&mut client, "g", "orders", "0", "3"), 0);
    node.kill();
    let node = setup.start();
    let mut client = Remoting::connect(node.address());
    assert_eq!(query(&mut client, "g", "orders", "0"), Ok(3));
    one_way(&mut client, 7);
    assert_eq!(query(&mut client, "g", "orders", "0"), Ok(7), "it was taken before this was asked");
    node.stop();
    let node = setup.start();
    assert_eq!(query(&mut Remoting::connect(node.address()), "g", "orders", "0"), Ok(7));
}

#[test]
fn thousands_of_commits_at_once_are_each_answered() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let mut client = Remoting::connect(node.address());
    send(&mut client, "orders", "0", "body");
    const COUNT: i32 = 5_000;
    let mut bytes = Vec::new();
    for number in 0..COUNT {
        let group = format!("g{}", number % 1_000);
        let offset = (number % 2).to_string();
        let fields =
            [("consumerGroup", &*group), ("topic", "orders"), ("queueId", "0"), ("commitOffset", &offset)];
        bytes.extend(request(HeaderForm::Binary, COMMIT, number, &fields, b""));
    }
    client.send(&bytes);
    let mut opaques: Vec<_> = (0..COUNT)
        .map(|_| {
            let answer = client.answer();
            assert_eq!(answer.code, 0, "{answer:?}");
            answer.opaque
        })
        .collect();
    opaques.sort_unstable();
    assert!(opaques.into_iter().eq(0..COUNT));
    assert_eq!(query(&mut client, "g999", "orders", "0"), Ok(1));
}

#[test]
fn native_members_have_no_readers_beside_them() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut native = node.client();
    let join = JoinGroup {
        group: "g".parse().expect("a name"),
        member: "m".to_owned(),
        topics: vec!["orders".parse().expect("a name")],
        session_timeout: PATIENCE,
        generation: 0,
        life: SessionLife::Timed,
    };
    native.call(&Request::JoinGroup(join)).expect("it is the first one");
    let mut client = Remoting::connect(&node.addresses[1]);
    let refused = client.ask(QUERY, &[("consumerGroup", "g"), ("topic", "orders"), ("queueId", "0")], b"");
    assert_eq!(refused.code, 1);
    assert!(refused.remark.contains("consumed by native members"), "{refused:?}");
    assert_eq!(commit(&mut client, "g", "orders", "0", "0"), 1);
    assert_eq!(query(&mut client, "other", "orders", "0"), Ok(0));
    let leave = Request::LeaveGroup { group: "g".parse().expect("a name"), member: "m".to_owned() };
    native.call(&leave).expect("it is a member");
    assert_eq!(query(&mut client, "g", "orders", "0"), Ok(0), "the group is free again");
}
