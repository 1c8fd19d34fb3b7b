//! What `mqadmin` keeps from clients with a topic's permission and a group's settings holds for every protocol, in its words.

use serde_json::json;
use turbopump::api::Status;
use turbopump::client::ClientError;

use super::remoting::Remoting;
use super::remoting_admin::set_up;
use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, PUBLISH, publish};
use crate::support::load::receive_from_orders;
use crate::support::node::{Node, Setup, wait_for};

const SET_UP_GROUP: i32 = 200;

/// Two shards, with a message in each queue.
fn filled(directory: &tempfile::TempDir) -> (Setup, Node) {
    let setup = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0", "--shards", "2"]);
    let node = setup.start();
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    for queue in ["0", "1", "2", "3"] {
        node.run_well(&["message", "publish", "orders", "--queue", queue, "early"]);
    }
    (setup, node)
}

/// Sets a permission by the second shard.
fn permit(node: &Node, permission: &str) {
    let mut client = Remoting::connect(&node.addresses[1]);
    assert_eq!(set_up(&mut client, "orders", "2", "2", permission), 0);
}

fn open(node: &Node, group: &str, may_consume: bool) {
    let settings = json!({ "groupName": group, "consumeEnable": may_consume }).to_string();
    let mut client = Remoting::connect(&node.addresses[1]);
    assert_eq!(client.ask(SET_UP_GROUP, &[], settings.as_bytes()).code, 0);
}

/// How each way of storing a message ends: natively in each queue, delayed, and over HTTP.
fn check_writes(node: &Node, is_refused: bool) {
    for queue in ["0", "1", "2", "3"] {
        for delay in [&[][..], &["--delay", "1h"]] {
            let message = ["message", "publish", "orders", "--queue", queue, "b"];
            let ran = node.run(&[&message[..], delay].concat());
            check(ran, is_refused, "topic orders may not be written to: its permission is");
        }
    }
    let produced = command::run(Some(node.address()), &["produce", "orders"], Some(b"one\ntwo\n"));
    check(produced, is_refused, "may not be written to");
    let mut connection = Connection::open(node);
    for _ in 0..4 {
        connection.send(publish(PUBLISH));
        let answer = connection.next().expect("an answer");
        let is_denied = answer.status == 403 && answer.body.contains("<Code>AccessDenied</Code>");
        assert!(is_denied == is_refused && (is_denied || answer.status == 201), "{}", answer.body);
        assert_eq!(answer.body.contains("may not be written to"), is_refused, "{}", answer.body);
    }
}

/// How each way of reading ends.
fn check_reads(node: &Node, group: &str, words: Option<&str>) {
    let receive = node.run(&["message", "receive", "orders", "--group", group, "--ack", "-o", "json"]);
    check(receive, words.is_some(), words.unwrap_or_default());
    let mut connection = Connection::open(node);
    let target = format!("/topics/orders/messages?consumer={group}&numOfMessages=1");
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let answer = connection.next().expect("an answer");
    match words {
        None => assert_eq!(answer.status, 200, "{}", answer.body),
        Some(words) => {
            let is_said = answer.body.contains("<Code>AccessDenied</Code>") && answer.body.contains(words);
            assert!(answer.status == 403 && is_said, "{}", answer.body);
        }
    }
}

fn check(ran: command::Outcome, is_refused: bool, words: &str) {
    if !is_refused {
        ran.well();
        return;
    }
    let said = ran.badly(1);
    assert!(said.contains(words), "{words}: {said}");
}

fn described(node: &Node) -> String {
    let topic: serde_json::Value =
        serde_json::from_str(&node.run_well(&["topic", "describe", "orders", "-o", "json"])).expect("JSON");
    topic["permission"].as_str().expect("a text").to_owned()
}

#[test]
fn a_topic_that_may_not_be_written_to_takes_no_message_over_any_protocol() {
    let directory = test_directory();
    let (setup, node) = filled(&directory);
    assert_eq!(described(&node), "read-write");
    check_writes(&node, false);
    permit(&node, "4");
    assert_eq!(described(&node), "read-only");
    assert!(node.run_well(&["topic", "describe", "orders"]).contains("permission read-only"));
    check_writes(&node, true);
    check_reads(&node, "g", None);
    node.run_well(&["consume", "orders"]);
    node.kill();
    let node = setup.start();
    check_writes(&node, true);
    permit(&node, "6");
    check_writes(&node, false);
}

#[test]
fn a_topic_that_may_not_be_read_gives_no_message_over_any_protocol() {
    let directory = test_directory();
    let (_setup, node) = filled(&directory);
    check_reads(&node, "g", None);
    permit(&node, "2");
    let refused = node.client().receive(receive_from_orders("g")).expect_err("it may not be read");
    assert!(
        matches!(&refused, ClientError::Refused(failure) if failure.status == Status::PermissionDenied),
        "{refused:?}"
    );
    assert_eq!(described(&node), "write-only");
    check_reads(&node, "g", Some("topic orders may not be read: its permission is 2"));
    for flags in [&[][..], &["--queue", "3"], &["--group", "h", "--follow"]] {
        let consume = node.run(&[&["consume", "orders"][..], flags].concat());
        check(consume, true, "topic orders may not be read");
    }
    check_writes(&node, false);
    permit(&node, "0");
    assert_eq!(described(&node), "none");
    check_writes(&node, true);
    permit(&node, "6");
    check_reads(&node, "g", None);
    assert!(node.run_well(&["consume", "orders"]).contains("early"));
}

/// One that waits for a message when the right to read is taken away gets none that comes after that.
#[test]
fn who_waits_is_told_when_the_topic_may_not_be_read_any_more() {
    let directory = test_directory();
    let (_setup, node) = filled(&directory);
    // One answer has what one shard has.
    for _ in 0..2 {
        node.run_well(&["message", "receive", "orders", "--group", "g", "--count", "16", "--ack"]);
    }
    let mut connection = Connection::open(&node);
    let target = "/topics/orders/messages?consumer=g&numOfMessages=1&waitseconds=20";
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let waits = || node.run_well(&["group", "describe", "g", "-o", "json"]).contains("\"active\":1");
    wait_for("the receive waits", waits);
    permit(&node, "2");
    node.run_well(&["message", "publish", "orders", "late"]);
    let answer = connection.next().expect("an answer");
    assert!(answer.status == 403 && answer.body.contains("may not be read"), "{}", answer.body);
}

#[test]
fn a_group_that_may_not_consume_gets_nothing_over_any_protocol() {
    let directory = test_directory();
    let (setup, node) = filled(&directory);
    open(&node, "g", false);
    let words = "group g may not consume";
    check_reads(&node, "g", Some(words));
    check(node.run(&["consume", "orders", "--group", "g", "--follow"]), true, words);
    check_reads(&node, "h", None);
    let said = node.run_well(&["group", "describe", "g"]);
    assert!(said.contains(words), "{said}");
    node.kill();
    let node = setup.start();
    check_reads(&node, "g", Some(words));
    open(&node, "g", true);
    check_reads(&node, "g", None);
}
