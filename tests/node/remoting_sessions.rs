//! Who consumes over RocketMQ's own protocol: known on every shard, told of one another, and kept apart from other consumers.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::sync::mpsc::{self, Receiver};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use turbopump::api::{JoinGroup, Request, SessionLife};
use turbopump::limits;
use turbopump::protocol::remoting::HeaderForm;
use turbopump::types::{QueueKey, QueueNumber, QueueOffset};

use super::remoting::{Answer, Remoting, heartbeat, json as body_of, node, request};
use super::remoting_pulls::{signed, signed_with_body};
use super::remoting_sends::send;
use super::start::stop_command;
use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

const HEART_BEAT: i32 = 34;
const UNREGISTER: i32 = 35;
const MEMBERS: i32 = 38;
const CHANGED: i32 = 40;

/// The clients of a group as a shard has them; nothing when it knows of none.
fn members(client: &mut Remoting, group: &str) -> Vec<String> {
    let answer = client.ask(MEMBERS, &[("consumerGroup", group)], b"");
    if answer.code != 0 {
        assert_eq!(answer.code, 1, "{answer:?}");
        return Vec::new();
    }
    serde_json::from_value(body_of(&answer)["consumerIdList"].clone()).expect("a list of texts")
}

/// What a client of a group says that reads these topics.
pub fn reads(id: &str, group: &str, model: &str, topics: &[&str]) -> Vec<u8> {
    let subscription = |topic: &&str| json!({ "topic": topic, "subString": "*", "subVersion": 1 });
    let subscriptions: Vec<Value> = topics.iter().map(subscription).collect();
    let consumer = json!({ "groupName": group, "messageModel": model, "consumeType": "CONSUME_PASSIVELY",
        "subscriptionDataSet": subscriptions });
    json!({ "clientID": id, "consumerDataSet": [consumer] }).to_string().into_bytes()
}

fn beat(client: &mut Remoting, body: &[u8]) -> Answer {
    client.ask(HEART_BEAT, &[], body)
}

/// Java 4.9's client goes on waiting for its pulls when a connection has ended, and asks again when one was reset.
#[test]
fn a_broker_that_dies_or_stops_resets_the_connections_of_clients() {
    let ends =
        |connection: &mut Remoting| connection.stream().read(&mut [0; 16]).map_err(|error| error.kind());
    for is_killed in [true, false] {
        let (_directory, node) = node(&[]);
        let mut client = Remoting::connect(node.address());
        assert_eq!(beat(&mut client, &heartbeat("a@1", "g")).code, 0);
        client.told(1);
        // One that ends otherwise ends as any.
        let mut malformed = Remoting::connect(node.address());
        assert_eq!(beat(&mut malformed, &heartbeat("b@1", "h")).code, 0);
        malformed.told(1);
        malformed.send(&[0; 64]);
        assert_eq!(ends(&mut malformed), Ok(0));
        if is_killed {
            node.kill()
        } else {
            drop(node.stop())
        }
        assert_eq!(ends(&mut client), Err(ErrorKind::ConnectionReset), "killed: {is_killed}");
    }
}

#[test]
fn members_are_known_on_every_shard_when_they_are_answered() {
    let (_directory, node) = node(&["--shards", "3"]);
    let mut shards: Vec<_> = node.addresses.iter().map(|address| Remoting::connect(address)).collect();
    for number in 0..20 {
        let mut client = Remoting::connect(&node.addresses[number % 3]);
        let (id, group) = (format!("{number}@1"), format!("g{number}"));
        assert_eq!(beat(&mut client, &heartbeat(&id, &group)).code, 0);
        for shard in &mut shards {
            assert_eq!(members(shard, &group), [id.as_str()]);
        }
        let leave = [("clientID", &*id), ("consumerGroup", &*group)];
        // By another connection of it, which is of another shard.
        let other = &mut Remoting::connect(&node.addresses[(number + 1) % 3]);
        assert_eq!(beat(other, &heartbeat(&id, &group)).code, 0);
        assert_eq!(other.ask(UNREGISTER, &leave, b"").code, 0);
        for shard in &mut shards {
            assert_eq!(members(shard, &group), [""; 0], "it has left everywhere");
        }
    }
}

/// What a client says goes by the order in which it says it, though it does not wait for answers.
#[test]
fn who_leaves_and_comes_back_at_once_is_there() {
    let (_directory, node) = node(&["--shards", "3"]);
    let mut shards: Vec<_> = node.addresses.iter().map(|address| Remoting::connect(address)).collect();
    let mut client = Remoting::connect(&node.addresses[1]);
    for number in 0..20 {
        let group = format!("g{number}");
        let here = heartbeat("a@1", &group);
        let leave = [("clientID", "a@1"), ("consumerGroup", &*group)];
        let requests = [
            request(HeaderForm::Json, HEART_BEAT, 1, &[], &here),
            request(HeaderForm::Json, UNREGISTER, 2, &leave, b""),
            request(HeaderForm::Json, HEART_BEAT, 3, &[], &here),
        ];
        client.send(&requests.concat());
        let mut answered: Vec<_> =
            (0..3).map(|_| client.answer()).map(|answer| (answer.opaque, answer.code)).collect();
        answered.sort_unstable();
        assert_eq!(answered, [(1, 0), (2, 0), (3, 0)]);
        for shard in &mut shards {
            assert_eq!(members(shard, &group), ["a@1"], "round {number}");
        }
    }
}

#[test]
fn each_client_is_told_once_of_each_change() {
    let (_directory, node) = node(&["--shards", "2"]);
    let connect = || node.addresses.iter().map(|address| Remoting::connect(address)).collect::<Vec<_>>();
    let (mut first, mut second) = (connect(), connect());
    let changed = |count: usize| vec![(CHANGED, "g".to_owned()); count];
    for connection in &mut first {
        assert_eq!(beat(connection, &heartbeat("a@1", "g")).code, 0);
    }
    assert_eq!(first[0].told(1), changed(1), "of itself");
    for connection in &mut second {
        assert_eq!(beat(connection, &heartbeat("b@1", "g")).code, 0);
    }
    assert_eq!((first[0].told(1), second[0].told(1)), (changed(1), changed(1)));
    // Heartbeats that say nothing new change nothing.
    for (connections, id) in [(&mut first, "a@1"), (&mut second, "b@1")] {
        for connection in connections {
            assert_eq!(beat(connection, &heartbeat(id, "g")).code, 0);
        }
    }
    drop(second);
    wait_for("it is gone", || members(&mut Remoting::connect(node.address()), "g") == ["a@1"]);
    assert_eq!(first[0].told(1), changed(1));
    assert_eq!(beat(&mut first[1], &reads("a@1", "g", "CLUSTERING", &["more"])).code, 0);
    assert_eq!(first[0].told(1), changed(1), "of a topic more");
    assert_eq!(members(&mut first[0], "g"), ["a@1"]);
    assert_eq!((first[0].told(0), first[1].told(0)), (changed(0), changed(0)), "over one connection only");
}

fn described(node: &Node, group: &str) -> Value {
    serde_json::from_str(&node.run_well(&["group", "describe", group, "-o", "json"])).expect("JSON")
}

#[test]
fn those_who_receive_get_nothing_new_of_what_is_read() {
    let (_directory, node) = node(&["--shards", "2"]);
    for topic in ["orders", "events"] {
        node.run_well(&["topic", "create", topic, "--queues", "2"]);
    }
    let mut client = Remoting::connect(&node.addresses[0]);
    let mut publish = |topic: &str| assert_eq!(send(&mut client, topic, "0", "body").code, 0);
    let receive = |topic: &str| {
        let arguments = ["message", "receive", topic, "--group", "g", "--wait", "0", "-o", "json"];
        node.run_well(&arguments).lines().count()
    };
    publish("orders");
    assert_eq!(receive("orders"), 1);
    let mut reader = Remoting::connect(&node.addresses[1]);
    assert_eq!(beat(&mut reader, &reads("a@1", "g", "CLUSTERING", &["orders"])).code, 0);
    publish("orders");
    publish("events");
    assert_eq!((receive("orders"), receive("events")), (0, 1));
    let refused = described(&node, "g")["refused"].to_string();
    assert!(refused.contains("RocketMQ's own clients consume"), "{refused}");
    let shown = &described(&node, "g")["readers"];
    assert_eq!(
        (&shown[0]["client"], &shown[0]["language"], &shown[0]["broadcasts"]),
        (&json!("a@1"), &json!("JAVA"), &json!(false))
    );
    assert_eq!(shown[0]["subscriptions"], json!([{ "topic": "orders", "expression": "*" }]));
    let text = node.run_well(&["group", "describe", "g"]);
    assert!(text.lines().any(|line| line.contains("a@1") && line.contains("its share")), "{text}");
    // Who gets every message keeps none from others.
    assert_eq!(beat(&mut reader, &reads("a@1", "g", "BROADCASTING", &["orders"])).code, 0);
    assert_eq!(receive("orders"), 1);
    assert_eq!(beat(&mut reader, &reads("a@1", "g", "CLUSTERING", &["orders"])).code, 0);
    publish("orders");
    assert_eq!(receive("orders"), 0);
    drop(reader);
    wait_for("the reader is gone", || receive("orders") == 1);
}

/// A native member of a group that names `orders`.
fn join(node: &Node, group: &str, member: &str) -> Result<(), String> {
    let join = JoinGroup {
        group: group.parse().expect("a name"),
        member: member.to_owned(),
        topics: vec!["orders".parse().expect("a name")],
        session_timeout: PATIENCE,
        generation: 0,
        life: SessionLife::Timed,
    };
    node.client().call(&Request::JoinGroup(join)).map(drop).map_err(|error| error.to_string())
}

#[test]
fn groups_that_are_read_have_no_native_members_and_are_not_moved() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let join = |group: &str, member: &str| join(&node, group, member);
    assert_eq!(join("members", "first"), Ok(()));
    let mut reader = Remoting::connect(&node.addresses[1]);
    let refused = beat(&mut reader, &reads("a@1", "members", "CLUSTERING", &["orders"]));
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.remark.contains("consumed by native members"), "{refused:?}");
    let told = described(&node, "members")["refused"].to_string();
    assert!(told.contains("is refused") && told.contains("a@1"), "{told}");
    assert_eq!(beat(&mut reader, &reads("a@1", "g", "CLUSTERING", &["orders"])).code, 0);
    assert_eq!(beat(&mut reader, &reads("b@1", "g", "CLUSTERING", &["orders"])).code, 0);
    let refused = join("g", "m").expect_err("it is read");
    assert!(refused.contains("consumed by RocketMQ's own clients"), "{refused}");
    assert_eq!(join("members", "second"), Ok(()), "who came first stays, and may have company");
    for command in
        [&["group", "reset", "g", "orders", "--yes", "--to", "first"][..], &["group", "delete", "g", "--yes"]]
    {
        let refused = node.run(command);
        assert!(refused.stderr.contains("stop them first"), "{refused:?}");
    }
    assert!(node.run_well(&["group", "list"]).lines().any(|line| line.trim() == "g"));
    // Nor by somebody who reads a queue for it without being of it.
    node.run_well(&["message", "publish", "orders", "three apples", "--queue", "0"]);
    let refused = node.run(&["consume", "orders", "--group", "g", "--queue", "0", "--count", "1"]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr.contains("consumed by RocketMQ's own clients"), "{refused:?}");
}

/// What a process writes, line by line.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    received
}

fn wait_for_line(lines: &Receiver<String>, part: &str) {
    while !lines.recv_timeout(PATIENCE).expect("it goes on").contains(part) {}
}

/// A stranger's heartbeat put a running `consume --follow` out of its group, once the broker was started again.
#[test]
fn a_member_that_follows_is_not_put_out_by_a_heartbeat() {
    let directory = test_directory();
    // An address of this test alone, so that the port is still free after the death.
    let node = Setup::new(directory.path()).with(&["--listen", "127.0.1.79:0"]).start();
    let address = node.address().to_owned();
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    node.run_well(&["message", "publish", "orders", "first", "--queue", "0"]);
    let follow = ["consume", "orders", "--group", "g", "--follow"];
    let mut following = command::spawn(Some(&address), &follow, false);
    let printed = lines(following.stdout.take().expect("it is piped"));
    let told = lines(following.stderr.take().expect("it is piped"));
    wait_for_line(&printed, "first");
    let committed = |node: &Node| described(node, "g")["queues"][0]["committed"].clone();
    wait_for("it has committed", || committed(&node) == json!(1));
    let stray = reads("stray@1", "g", "CLUSTERING", &["orders"]);
    assert_eq!(beat(&mut Remoting::connect(&address), &stray).code, 1);
    let again = || Setup::new(directory.path()).with(&["--listen", &address]).start();
    let signal = |signal| {
        let process = Pid::from_child(&following);
        kill_process(process, signal).expect("it runs");
    };

    node.kill();
    signal(Signal::STOP);
    let node = again();
    assert_eq!(beat(&mut Remoting::connect(&address), &stray).code, 1, "its member is waited for");
    let waits = described(&node, "g")["refused"].to_string();
    assert!(waits.contains("before the broker was started") && waits.contains("stray@1"), "{waits}");
    signal(Signal::CONT);
    node.run_well(&["message", "publish", "orders", "second", "--queue", "0"]);
    wait_for_line(&printed, "second");
    wait_for("it has committed", || committed(&node) == json!(2));

    // By this, the group is nobody's.
    let mut client = node.client();
    let topic = client.topic(&"orders".parse().expect("a name")).expect("it exists").id;
    let key = QueueKey { topic, queue: QueueNumber(0) };
    client.commit_offset(&"g".parse().expect("a name"), key, QueueOffset(2)).expect("it is there");
    node.kill();
    signal(Signal::STOP);
    let node = again();
    let mut stranger = Remoting::connect(&address);
    assert_eq!(beat(&mut stranger, &stray).code, 0);
    signal(Signal::CONT);
    wait_for_line(&told, "consumed by RocketMQ's own clients");
    drop(stranger);
    node.run_well(&["message", "publish", "orders", "third", "--queue", "0"]);
    wait_for_line(&printed, "third");

    // It dies without a word, and the group is free once it was waited for.
    assert_eq!(beat(&mut Remoting::connect(&address), &stray).code, 1);
    stop_command(following);
    wait_for("its session is over", || beat(&mut Remoting::connect(&address), &stray).code == 0);
}

#[test]
fn what_clients_say_of_themselves_is_bounded() {
    let (_directory, node) = node(&["--shards", "2"]);
    let mut client = Remoting::connect(node.address());
    let of_groups = |count: usize| {
        let groups: Vec<_> = (0..count).map(|number| json!({ "groupName": format!("g{number}") })).collect();
        json!({ "clientID": "a@1", "consumerDataSet": groups }).to_string().into_bytes()
    };
    assert_eq!(beat(&mut client, &of_groups(limits::REMOTING_CLIENT_GROUPS_MAX)).code, 0);
    assert_eq!(beat(&mut client, &of_groups(10_000)).code, 2);
    assert_eq!(members(&mut client, "g0"), ["a@1"], "what it said before counts");
    let long = "x".repeat(limits::REMOTING_CLIENT_SUBSCRIPTION_BYTES_MAX);
    assert_eq!(beat(&mut client, &reads("a@1", "g0", "CLUSTERING", &[&long])).code, 2);
    let topics: Vec<_> = (0..20_000).map(|number| number.to_string()).collect();
    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
    assert_eq!(beat(&mut client, &reads("a@1", "g0", "CLUSTERING", &topics)).code, 2);
    let twice = [reads("a@1", "g", "CLUSTERING", &["t"]), b"\n".to_vec()].concat();
    assert_eq!(beat(&mut client, &twice).code, 0);
    for id in ["", &"i".repeat(limits::REMOTING_CLIENT_ID_BYTES_MAX + 1)] {
        assert_eq!(beat(&mut client, &heartbeat(id, "g")).code, 1);
    }
    for id in ["\"\\\n\u{0}@", "\u{4e2d}\u{6587}", "%s%n", "a@1"] {
        let body = reads(id, "odd", "CLUSTERING", &["t"]);
        assert_eq!(beat(&mut client, &body).code, 0, "{id:?}");
        assert!(members(&mut Remoting::connect(&node.addresses[1]), "odd").contains(&id.to_owned()));
    }
    assert_eq!(beat(&mut client, &heartbeat("a@1", "no group")).code, 1);
    for number in 0..20 {
        let code = beat(&mut client, &heartbeat(&format!("{number}@1"), "g")).code;
        assert_eq!(
            code,
            if number < limits::REMOTING_CONNECTION_CLIENTS_MAX - 4 { 0 } else { 2 },
            "{number}"
        );
    }
}

#[test]
fn who_does_not_read_what_it_is_told_hurts_nobody() {
    let (_directory, node) = node(&["--shards", "2"]);
    let mut frozen = Remoting::connect(node.address());
    assert_eq!(beat(&mut frozen, &heartbeat("frozen@1", "g")).code, 0);
    let mut other = Remoting::connect(&node.addresses[1]);
    for number in 0..2_000 {
        let topic = if number % 2 == 0 { "even" } else { "odd" };
        assert_eq!(beat(&mut other, &reads("other@1", "g", "CLUSTERING", &[topic])).code, 0);
    }
    assert_eq!(members(&mut other, "g"), ["frozen@1", "other@1"]);
    assert_eq!(other.told(0).len(), 2_000, "each change once");
}

/// Who reads, receives, and owns queues of one topic, each as a group of its own, and one that has been there.
#[test]
fn a_topic_and_the_status_show_who_consumes() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = Remoting::connect(&node.addresses[0]);
    assert_eq!(send(&mut client, "orders", "0", "body").code, 0);
    node.run_well(&[
        "message", "receive", "orders", "--group", "receives", "--wait", "0", "--filter", "fruit",
    ]);
    node.run_well(&["consume", "orders", "--group", "was-here", "--queue", "0", "--count", "1"]);
    assert_eq!(join(&node, "members", "first"), Ok(()));
    let mut connections: Vec<_> = node.addresses.iter().map(|address| Remoting::connect(address)).collect();
    for connection in &mut connections {
        // Over two connections, and counted once.
        assert_eq!(beat(connection, &reads("a@1", "reads", "CLUSTERING", &["orders", "events"])).code, 0);
    }
    assert_eq!(beat(&mut connections[1], &reads("b@1", "elsewhere", "CLUSTERING", &["events"])).code, 0);
    let described = node.run(&["topic", "describe", "orders", "-o", "json"]).json();
    let groups = described["groups"].as_array().expect("a list");
    let names: Vec<_> = groups.iter().map(|group| group["group"].as_str().expect("a name")).collect();
    assert_eq!(names, ["members", "reads", "receives", "was-here"], "{described}");
    assert_eq!((&groups[0]["members"], &groups[1]["members"]), (&json!(1), &json!(0)));
    let reader = &groups[1]["readers"][0];
    assert_eq!(groups[1]["readers"].as_array().expect("a list").len(), 1);
    assert_eq!(
        (&reader["client"], &reader["language"], &reader["expression"], &reader["broadcasts"]),
        (&json!("a@1"), &json!("JAVA"), &json!("*"), &json!(false))
    );
    assert!(reader["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")));
    assert_eq!(groups[2]["receivers"][0]["filter"], "fruit");
    assert_eq!(groups[3]["receivers"], json!([]));
    let status = node.run(&["status", "-o", "json"]).json();
    assert_eq!(status["reader_clients"], 2);
    assert!(node.run_well(&["status"]).contains("2 RocketMQ clients"));
    drop(connections);
    wait_for("they are gone", || node.run(&["status", "-o", "json"]).json()["reader_clients"] == 0);
    let text = node.run_well(&["topic", "describe", "orders"]);
    assert!(!text.contains("a@1") && text.contains("nobody now"), "{text}");
}

/// What a heartbeat says is checked against its key, and goes with it.
#[test]
fn clients_are_of_a_group_as_long_as_their_key_is() {
    let directory = test_directory();
    let keys = directory.path().join("keys.toml");
    let key = |id: &str, group: &str| {
        let rule = format!("consume = [{{ topic = \"orders\", group = \"{group}\" }}]");
        format!("[[keys]]\nid = \"{id}\"\nsecret = \"secret\"\n{rule}\n")
    };
    std::fs::write(&keys, key("one", "g") + &key("two", "g")).expect("a directory of this test");
    let node = Setup::new(directory.path().join("data"))
        .with(&["--shards", "2", "--access-keys", keys.to_str().expect("UTF-8")])
        .start();
    let beat = |client: &mut Remoting, key: &str, body: &[u8]| {
        let mut signature = String::new();
        client.ask(HEART_BEAT, &signed_with_body(&[], key, body, &mut signature), body)
    };
    let one = RefCell::new(Remoting::connect(node.address()));
    let two = RefCell::new(Remoting::connect(&node.addresses[1]));
    let beat_one =
        |topics: &[&str]| beat(&mut one.borrow_mut(), "one", &reads("a@1", "g", "CLUSTERING", topics)).code;
    for topics in [&["orders", "%RETRY%other"][..], &["%RETRY%other"], &["other"]] {
        assert_eq!(beat_one(topics), 16, "{topics:?}");
    }
    let topics = ["orders", "%RETRY%g"];
    assert_eq!(beat_one(&topics), 0);
    assert_eq!(beat(&mut two.borrow_mut(), "two", &reads("b@1", "g", "CLUSTERING", &topics)).code, 0);
    let list = || {
        let (group, mut signature) = ([("consumerGroup", "g")], String::new());
        let answer = two.borrow_mut().ask(MEMBERS, &signed(&group, "two", &mut signature), b"");
        body_of(&answer)["consumerIdList"].clone()
    };
    assert_eq!(list(), json!(["a@1", "b@1"]));
    for rest in [key("one", "other") + &key("two", "g"), key("two", "g")] {
        std::fs::write(&keys, rest).expect("a directory of this test");
        node.signal(Signal::HUP);
        wait_for("it may no more", || list() == json!(["b@1"]));
        assert_eq!(beat_one(&topics), 16);
        // It may again.
        std::fs::write(&keys, key("one", "g") + &key("two", "g")).expect("a directory of this test");
        node.signal(Signal::HUP);
        wait_for("it may again", || beat_one(&topics) == 0);
        assert_eq!(list(), json!(["a@1", "b@1"]));
    }
}
