//! What `group describe` tells of a group that is consumed over both protocols at once.

use std::time::Instant;

use serde_json::Value;
use turbopump::client::{Consumer, ConsumerOptions};

use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, PUBLISH, publish};
use crate::support::load::topic;
use crate::support::node::{Node, PATIENCE, Setup};

fn publish_some(connection: &mut Connection, count: usize) {
    for _ in 0..count {
        connection.send(publish(PUBLISH));
        assert_eq!(connection.next().expect("an answer").status, 201);
    }
}

/// Receives what there is, and returns the handles.
fn receive(connection: &mut Connection, group: &str, more: &str) -> Vec<String> {
    let target = format!("/topics/orders/messages?consumer={group}&numOfMessages=16{more}");
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let answer = connection.next().expect("an answer");
    let handles = answer.body.split("<ReceiptHandle>").skip(1);
    handles.map(|rest| rest.split('<').next().expect("a handle").to_owned()).collect()
}

fn acknowledge(connection: &mut Connection, group: &str, handle: &str) {
    let body = format!("<ReceiptHandles><ReceiptHandle>{handle}</ReceiptHandle></ReceiptHandles>");
    let head = format!("DELETE /topics/orders/messages?consumer={group} HTTP/1.1\r\nHost: h\r\n");
    connection.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(connection.next().expect("an answer").status, 204);
}

fn describe(node: &Node, group: &str) -> Value {
    node.run(&["group", "describe", group, "-o", "json"]).json()
}

/// Describes the group until it is as expected.
fn describe_until(node: &Node, group: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let described = describe(node, group);
        if is_so(&described) {
            return described;
        }
        assert!(Instant::now() < deadline, "{what}: {described}");
    }
}

fn counts(described: &Value) -> [u64; 4] {
    ["lag", "leased", "waiting", "dead_letters"].map(|name| described[name].as_u64().expect("a number"))
}

fn describes_a_mixed_group(shards: &str) {
    let directory = test_directory();
    let flags = ["--http", "127.0.0.1:0", "--shards", shards, "--deliveries", "1"];
    let leases = ["--lease", "1s", "--ordered-lease", "10m"];
    let node = Setup::new(directory.path()).with(&flags).with(&leases).start();
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    let mut http = Connection::open(&node);
    publish_some(&mut http, 2);
    let mut lost = 0;
    while lost < 2 {
        lost += receive(&mut http, "g", "&waitseconds=5").len();
    }
    let described = describe_until(&node, "g", "dead letters", |now| now["dead_letters"] == 2);
    assert_eq!(counts(&described), [0, 0, 0, 2]);
    // In order the lease is long: what is received now stays leased.
    publish_some(&mut http, 3);
    assert_eq!(counts(&describe(&node, "g")), [3, 0, 0, 2]);
    let mut handles = Vec::new();
    while handles.len() < 3 {
        handles.extend(receive(&mut http, "g", "&waitseconds=5&trans=order"));
    }
    assert_eq!(counts(&describe(&node, "g")), [3, 3, 0, 2]);
    acknowledge(&mut http, "g", &handles[0]);
    let described = describe(&node, "g");
    assert_eq!(counts(&described), [2, 2, 0, 2]);
    let receivers = described["receivers"].as_array().expect("a list");
    assert_eq!(receivers.len(), 2, "in order, and not: {described}");
    assert!(receivers.iter().all(|receiver| receiver["protocol"] == "http" && receiver["filter"] == "*"));
    // A member that reads queues of its own asks for everything, as the receivers do.
    let group = "g".parse().expect("a name");
    let options = ConsumerOptions::default();
    let member = Consumer::subscribe(node.client(), group, vec![topic("orders")], options);
    let mut member = member.expect("the topic exists");
    let is_shared = |now: &Value| now["members"].as_array().is_some_and(|members| members.len() == 2);
    let deadline = Instant::now() + PATIENCE;
    while !is_shared(&describe(&node, "g")) {
        assert!(Instant::now() < deadline, "the member joins");
        member.poll(std::time::Duration::from_millis(10)).expect("the broker answers");
    }
    let described = describe(&node, "g");
    let members = described["members"].as_array().expect("a list");
    let protocol = |name: bool| {
        members.iter().find(|member| (member["member"] == "%receive") == name).expect("both")["protocol"]
            .clone()
    };
    assert_eq!((protocol(true), protocol(false)), (Value::Null, Value::from("native")));
    assert_eq!(described["inconsistent_topics"], serde_json::json!([]));
    assert_eq!(counts(&described)[1..], [2, 0, 2], "leases run on");
    assert!(!node.run_well(&["group", "describe", "g"]).contains("warning"));
    // One that asks for a tag does not agree with the others.
    receive(&mut http, "g", "&tag=fruit");
    let described = describe(&node, "g");
    assert_eq!(described["inconsistent_topics"], serde_json::json!(["orders"]));
    let text = node.run_well(&["group", "describe", "g"]);
    assert!(text.contains("different messages of topic orders: `*`, `fruit`"), "{text}");
    // Who has received nothing yet is a group too.
    assert!(receive(&mut http, "new", "&tag=nothing-has-this").is_empty());
    let listed = node.run(&["group", "list", "-o", "json"]).json();
    assert_eq!(listed["groups"], serde_json::json!(["g", "new"]));
    assert_eq!(describe(&node, "new")["receivers"][0]["filter"], "nothing-has-this");
    assert!(node.run(&["group", "describe", "nobody"]).badly(1).contains("no receivers"));
}

#[test]
fn a_mixed_group_is_described_on_one_shard() {
    describes_a_mixed_group("1");
}

#[test]
fn a_mixed_group_is_described_on_four_shards() {
    describes_a_mixed_group("4");
}
