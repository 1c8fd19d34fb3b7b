//! Dead letters by the command line: listed, shown, exported, and sent once more, whatever protocol they came from.

use std::time::Duration;

use serde_json::Value;
use turbopump::api::Receive;

use super::remoting::{Remoting, heartbeat};
use super::remoting_pulls::{pull, records};
use super::remoting_sends::fields;
use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::http_connection::Connection;
use crate::support::load::{self, receive_from_orders};
use crate::support::node::{Node, Setup, wait_for};

const SEND: i32 = 310;
const SEND_BACK: i32 = 36;
const HEART_BEAT: i32 = 34;

fn node(flags: &[&str]) -> (tempfile::TempDir, Node) {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(flags).start();
    (directory, node)
}

fn publish(node: &Node, topic: &str, body: &str, more: &[&str]) {
    let mut arguments = vec!["message", "publish", topic, body];
    arguments.extend_from_slice(more);
    node.run_well(&arguments);
}

/// Receives all that group `g` has of a topic, and gives it back: with one delivery, all of it are dead letters then.
fn give_up(node: &Node, topic: &str) {
    // It may be there already.
    let _ = node.run(&["group", "create", "g", "--deliveries", "1"]);
    let mut client = node.client();
    let receive = Receive { topic: load::topic(topic), count: 32, ..receive_from_orders("g") };
    loop {
        let messages = client.receive(receive.clone()).expect("the broker answers");
        if messages.is_empty() {
            return;
        }
        for message in messages {
            let given_back = client.change_lease(&receive.group, message.receipt, Duration::ZERO);
            given_back.expect("it is leased");
        }
    }
}

fn list(node: &Node, more: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["dlq", "list", "g", "-o", "json"];
    arguments.extend_from_slice(more);
    let view = node.run(&arguments).json();
    view["dead_letters"].as_array().expect("a list").clone()
}

/// How many there are; none while there is no topic for them.
fn count(node: &Node) -> usize {
    let listed = node.run(&["dlq", "list", "g", "-o", "json"]);
    if listed.code == Some(0) { listed.json()["dead_letters"].as_array().map_or(0, Vec::len) } else { 0 }
}

fn redrive(node: &Node, more: &[&str]) -> Value {
    let mut arguments = vec!["dlq", "redrive", "g", "-o", "json"];
    arguments.extend_from_slice(more);
    node.run(&arguments).json()
}

/// The messages of a topic, as `consume -o json` prints them.
fn consumed(node: &Node, topic: &str) -> Vec<Value> {
    let printed = node.run_well(&["consume", topic, "-o", "json"]);
    printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn dead_letters_are_listed_shown_and_sent_once_more_with_all_they_had() {
    let (_directory, node) = node(&["--shards", "2"]);
    for (topic, queues) in [("orders", "4"), ("repaired", "1")] {
        node.run_well(&["topic", "create", topic, "--queues", queues]);
    }
    node.run(&["dlq", "list", "g"]).badly(1);
    for number in 0..6 {
        let key = format!("k{number}");
        publish(
            &node,
            "orders",
            &format!("body {number}"),
            &["--key", &key, "--tag", "t", "--property", "color=red"],
        );
    }
    let before = consumed(&node, "orders");
    give_up(&node, "orders");
    wait_for("the dead letters", || count(&node) == 6);
    let text = node.run_well(&["dlq", "list", "g"]);
    assert!(text.contains("DEAD SINCE") && text.contains("k3") && text.contains("orders"), "{text}");
    let of_key = list(&node, &["--key", "k3"]);
    assert_eq!(of_key.len(), 1, "{of_key:?}");
    let id = of_key[0]["id"].as_str().expect("an id");
    assert_eq!(list(&node, &["--id", id]), of_key);
    assert!(list(&node, &["--topic", "other"]).is_empty() && list(&node, &["--until", "-1h"]).is_empty());
    assert_eq!(list(&node, &["--from", "-1h", "--topic", "orders"]).len(), 6);
    let shown = node.run_well(&["dlq", "show", "g", "--key", "k3"]);
    assert!(shown.contains("body 3") && shown.contains("RETRY_TOPIC"), "{shown}");
    let exported = node.run_well(&["dlq", "export", "g"]);
    assert_eq!(exported.lines().count(), 6);
    node.run(&["dlq", "show", "g", "--key", "nobody's"]).badly(1);

    let planned = redrive(&node, &["--dry-run"]);
    assert_eq!((&planned["redriven"], &planned["topics"][0]["messages"]), (&0.into(), &6.into()));
    assert_eq!(count(&node), 6, "nothing was done");
    let one = redrive(&node, &["--key", "k3", "--to", "repaired"]);
    assert_eq!((&one["redriven"], &one["topics"][0]["topic"]), (&1.into(), &"repaired".into()));
    let repaired = consumed(&node, "repaired");
    assert_eq!(
        (&repaired[0]["body"], &repaired[0]["properties"]["DLQ_ORIGIN_TOPIC"]),
        (&"body 3".into(), &"orders".into())
    );
    assert_eq!(count(&node), 5);
    let rest = redrive(&node, &["--rate", "100"]);
    assert_eq!((&rest["redriven"], &rest["topics"][0]["topic"]), (&5.into(), &"orders".into()));
    assert_eq!(count(&node), 0);
    let after = consumed(&node, "orders");
    assert_eq!(after.len(), before.len() + 5);
    for again in after.iter().filter(|message| message["properties"]["DLQ_ORIGIN_TOPIC"] == "orders") {
        let first = before.iter().find(|first| first["key"] == again["key"]).expect("it was there before");
        for part in ["key", "tag", "body", "unique_id", "born_time_ms"] {
            assert_eq!(again[part], first[part], "{part}");
        }
        assert_eq!(again["properties"]["color"], "red");
    }
    let nothing = node.run(&["dlq", "redrive", "g", "-o", "json"]);
    let view: Value = serde_json::from_slice(&nothing.stdout).expect("JSON");
    assert_eq!((&view["redriven"], &view["before"]), (&0.into(), &0.into()));
    assert!(nothing.badly(1).contains("group g has no such dead letter"));
    assert_eq!(node.counter("messages_redriven"), 6);
}

#[test]
fn dead_letters_of_clients_of_http_and_of_rocketmqs_own_protocol_go_back_as_well() {
    let (_directory, node) = node(&["--shards", "2", "--http", "127.0.0.1:0"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let mut client = Remoting::connect(&node.addresses[1]);
    assert_eq!(client.ask(HEART_BEAT, &[], &heartbeat("a@1", "g")).code, 0);
    let properties = "KEYS\u{1}k1\u{2}TAGS\u{1}t\u{2}color\u{1}red\u{2}UNIQ_KEY\u{1}ID\u{2}";
    assert_eq!(client.ask(SEND, &fields("orders", "0", properties), b"apples").code, 0);
    let answer = pull(&mut client, &[("topic", "orders"), ("queueOffset", "0"), ("sysFlag", "6")]);
    let offset = records(&answer).remove(0).physical_offset.to_string();
    let back = [("group", "g"), ("offset", offset.as_str()), ("delayLevel", "-1")];
    assert_eq!(client.ask(SEND_BACK, &back, b"").code, 0);
    wait_for("the dead letter", || count(&node) == 1);
    let report = redrive(&node, &[]);
    assert_eq!((&report["redriven"], &report["topics"][0]["topic"]), (&1.into(), &"orders".into()));
    let found = consumed(&node, "orders");
    assert_eq!(found.len(), 2, "{found:?}");
    let again = found
        .iter()
        .find(|message| message["properties"]["DLQ_ORIGIN_TOPIC"] == "orders")
        .expect("it is back");
    assert_eq!(
        (&again["body"], &again["key"], &again["unique_id"]),
        (&"apples".into(), &"k1".into(), &"ID".into())
    );
    assert!(again["properties"].get("RETRY_TOPIC").is_none(), "{again}");

    let mut http = Connection::open(&node);
    let body = "<Message><MessageBody>pears</MessageBody><Properties>KEYS:h1|</Properties></Message>";
    http.send(format!(
        "POST /topics/orders/messages HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(http.next().expect("an answer").status, 201);
    node.run_well(&["group", "create", "h", "--deliveries", "1", "--lease", "1s"]);
    http.send("GET /topics/orders/messages?consumer=h&numOfMessages=16 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(http.next().expect("an answer").status, 200);
    let of_http = || node.run(&["dlq", "list", "h", "-o", "json"]);
    wait_for("the dead letters", || {
        of_http().code == Some(0)
            && of_http().json()["dead_letters"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["key"] == "h1"))
    });
    let report = node.run(&["dlq", "redrive", "h", "--key", "h1", "-o", "json"]).json();
    assert_eq!(report["redriven"], 1, "{report}");
    let pears = consumed(&node, "orders").into_iter().filter(|message| message["body"] == "pears").count();
    assert_eq!(pears, 2);
}

#[test]
fn a_redrive_that_is_killed_goes_on() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    node.run_well(&["topic", "create", "one", "--queues", "1"]);
    for queue in ["0", "1"] {
        let lines: String = (0..40).map(|number| format!("{queue}-{number}\n")).collect();
        let input = Some(lines.as_bytes());
        command::run(Some(node.address()), &["produce", "orders", "-", "--queue", queue], input).well();
    }
    give_up(&node, "orders");
    wait_for("the dead letters", || count(&node) == 80);
    let arguments = ["dlq", "redrive", "g", "--to", "one", "--rate", "40"];
    let mut killed = command::spawn(Some(node.address()), &arguments, false);
    wait_for("some of them", || node.counter("messages_redriven") >= 15);
    killed.kill().expect("it runs");
    killed.wait().expect("it has run");
    let left = count(&node);
    assert!((1..80).contains(&left), "{left} are left");
    let report = redrive(&node, &["--to", "one"]);
    assert_eq!(report["redriven"], left, "{report}");
    let mut bodies: Vec<_> =
        consumed(&node, "one").iter().map(|message| message["body"].to_string()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 80, "each is there");
    assert_eq!(consumed(&node, "one").len(), 80, "and once");
}

#[test]
fn what_cannot_be_redriven_says_why_and_stays() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    publish(&node, "orders", "body", &[]);
    give_up(&node, "orders");
    wait_for("the dead letter", || count(&node) == 1);
    node.run_well(&["topic", "create", "closed"]);
    node.run_well(&["topic", "alter", "closed", "--permission", "read-only"]);
    for (to, why) in
        [("nowhere", "does not exist"), ("%DLQ%g", "is for dead letters"), ("closed", "--permission")]
    {
        let told = node.run(&["dlq", "redrive", "g", "--to", to]).badly(1);
        assert!(told.contains(why) && told.contains("0 dead letters redriven before that"), "{told}");
        // What would be refused is so before anything is done.
        let told = node.run(&["dlq", "redrive", "g", "--to", to, "--dry-run"]).badly(1);
        assert!(told.contains(why) && told.contains("this was a dry run"), "{told}");
    }
    for command in ["list", "show", "export", "redrive"] {
        let told = node.run(&["dlq", command, "nobody"]).badly(1);
        assert!(told.contains("group nobody has no dead letters: nobody knows such a group"), "{told}");
    }
    assert_eq!(count(&node), 1);
    // One that was put there by hand.
    publish(&node, "%DLQ%g", "odd", &[]);
    let told = node.run(&["dlq", "redrive", "g"]).badly(1);
    assert!(told.contains("1 dead letter does not say where they came from"), "{told}");
    assert_eq!(count(&node), 1, "the other one went");
    node.run_well(&["topic", "delete", "%DLQ%g", "--yes"]);
    assert_eq!(node.run_well(&["dlq", "list", "g"]), "no dead letters\n");
}

#[test]
fn a_selection_of_nothing_is_told_as_such() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    node.run_well(&["group", "create", "g", "--deliveries", "1"]);
    assert_eq!(node.run_well(&["dlq", "list", "g"]), "no dead letters\n", "it is there, and has none");
    assert!(list(&node, &[]).is_empty());
    let told = node.run(&["dlq", "redrive", "g", "--dry-run"]).badly(1);
    assert!(told.contains("group g has no such dead letter"), "{told}");
    publish(&node, "orders", "body", &["--key", "k"]);
    give_up(&node, "orders");
    wait_for("the dead letter", || count(&node) == 1);
    for selection in [["--id", "zzz"], ["--key", "typo"], ["--topic", "nonesuch"], ["--until", "-1h"]] {
        for command in
            [&["show", "g"][..], &["export", "g"], &["redrive", "g"], &["redrive", "g", "--dry-run"]]
        {
            let told = node.run(&[&["dlq"], command, &selection].concat()).badly(1);
            assert!(told.contains("group g has no such dead letter"), "{command:?} {selection:?}: {told}");
        }
    }
    // Times between which nothing can lie are a slip of the finger.
    for (selection, why) in [
        (&["--from", "-1h", "--until", "-2h"][..], "no dead letter lies between"),
        (&["--from", "2024-05-07", "--until", "2024-05-06"], "no dead letter lies between"),
        (&["--from", "2099-01-01"], "in the future"),
        (&["--until", "2099-01-01"], "in the future"),
    ] {
        for command in ["list", "show", "export", "redrive"] {
            let told = node.run(&[&["dlq", command, "g"], selection].concat()).badly(2);
            assert!(told.contains(why), "{command} {selection:?}: {told}");
        }
    }
    for rate in ["0", "-1", "some"] {
        let told = node.run(&["dlq", "redrive", "g", &format!("--rate={rate}")]).badly(2);
        assert!(told.contains("a whole number, 1 or more"), "{told}");
    }
    assert_eq!(count(&node), 1);
}
