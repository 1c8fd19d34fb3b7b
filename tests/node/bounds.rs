//! Clients that take and make up as much as they can: what they may not have is refused in words, and costs nobody else.

use std::time::Duration;

use turbopump::api::{Receive, Status};
use turbopump::client::{Client, ClientError};

use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, PUBLISH, publish};
use crate::support::load::{create_topic, produce, receive_from_orders};
use crate::support::node::{Node, Setup, wait_for};

fn get(connection: &mut Connection, group: &str, more: &str) -> (u16, String) {
    let target = format!("/topics/orders/messages?consumer={group}&numOfMessages=16{more}");
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let answer = connection.next().expect("an answer");
    (answer.status, answer.body)
}

/// Everything that is written to the logs of all shards so far.
fn log_end(node: &Node) -> u64 {
    node.counter("log_end")
}

#[test]
fn looking_under_made_up_names_stores_nothing() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0", "--shards", "2"]).start();
    create_topic(&mut node.client(), "orders", 64);
    for queue in 0..64 {
        produce(&node, "orders", queue, [&b"m"[..]]);
    }
    let mut connection = Connection::open(&node);
    let end = log_end(&node);
    for group in 0..100 {
        let (status, body) = get(&mut connection, &format!("made-up-{group}"), "&tag=nobody-has-it");
        assert_eq!((status, body.contains("MessageNotExist")), (404, true), "{body}");
    }
    assert_eq!((log_end(&node), node.counter("lease_pairs")), (end, 0));
    assert_eq!(node.counter("messages_received"), 0);
}

fn receive(group: &str) -> Receive {
    Receive { lease: Some(Duration::from_secs(12 * 3600)), ..receive_from_orders(group) }
}

/// Takes all that this group may have, and returns how it is refused more.
fn take_all(client: &mut Client, group: &str) -> String {
    loop {
        match client.receive(receive(group)) {
            Ok(messages) => assert!(!messages.is_empty(), "there are more"),
            Err(ClientError::Refused(failure)) => {
                assert_eq!(failure.status, Status::LimitReached);
                return failure.message;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_group_that_takes_all_it_can_is_told_so_everywhere_and_others_receive() {
    let directory = test_directory();
    let setup = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0"]);
    let node = setup.start();
    create_topic(&mut node.client(), "orders", 1);
    produce(&node, "orders", 0, std::iter::repeat_n(&b"m"[..], 120_000));
    let message = take_all(&mut node.client(), "greedy");
    assert!(message.starts_with("group greedy gets nothing new from shard 0: "), "{message}");
    let told_everywhere = |node: &Node| {
        let mut http = Connection::open(node);
        let (status, body) = get(&mut http, "greedy", "");
        assert_eq!((status, body.contains("group greedy gets nothing new")), (503, true), "{body}");
        assert!(node.run_well(&["status"]).contains("group greedy gets nothing new"));
        assert!(
            node.run_well(&["group", "describe", "greedy"])
                .contains("warning: group greedy gets nothing new")
        );
        assert_eq!(get(&mut http, "good", "").0, 200);
    };
    told_everywhere(&node);
    node.stop();
    told_everywhere(&setup.start());
}

#[test]
fn dead_letters_go_to_a_topic_that_a_user_made_too_small() {
    let directory = test_directory();
    let flags = ["--http", "127.0.0.1:0", "--shards", "4", "--deliveries", "1", "--lease", "1s"];
    let node = Setup::new(directory.path()).with(&flags).start();
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    node.run_well(&["topic", "create", "%DLQ%g", "--queues", "1"]);
    let mut connection = Connection::open(&node);
    let publish_some = |connection: &mut Connection| {
        for _ in 0..8 {
            connection.send(publish(PUBLISH));
            assert_eq!(connection.next().expect("an answer").status, 201);
        }
    };
    let receive_some = |connection: &mut Connection, count: usize| {
        let mut seen = 0;
        while seen < count {
            let (status, body) = get(connection, "g", "&waitseconds=5");
            assert!(status == 200 || body.contains("MessageNotExist"), "{body}");
            seen += body.matches("<ReceiptHandle>").count();
        }
        assert_eq!(seen, count);
    };
    publish_some(&mut connection);
    receive_some(&mut connection, 8);
    wait_for("the dead letters", || node.counter("messages_dead_lettered") == 8);
    publish_some(&mut connection);
    receive_some(&mut connection, 8);
}

#[test]
fn a_group_is_deleted_by_command_unless_it_is_used() {
    let directory = test_directory();
    let setup = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0", "--shards", "2"]);
    let node = setup.start();
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    produce(&node, "orders", 1, [&b"one"[..], b"two"]);
    assert!(node.run(&["group", "delete", "g", "--yes"]).badly(1).contains("there is no group g"));
    let read = node.run_well(&["consume", "orders", "--group", "g", "--count", "2"]);
    assert!(read.contains("two"), "{read}");
    assert!(node.run_well(&["group", "list"]).contains('g'));
    let mut connection = Connection::open(&node);
    get(&mut connection, "receives", "");
    let refused = node.run(&["group", "delete", "receives", "--yes"]).badly(1);
    assert!(refused.contains("somebody receives for group receives"), "{refused}");
    let deleted = node.run(&["group", "delete", "g", "--yes", "-o", "json"]).json();
    assert_eq!(deleted, serde_json::json!({ "group": "g", "done": "deleted" }));
    assert!(node.run(&["group", "describe", "g"]).badly(1).contains("group g has no members"));
    node.stop();
    let node = setup.start();
    let read = node.run_well(&["consume", "orders", "--group", "g", "--count", "2"]);
    assert!(read.contains("one") && read.contains("two"), "it starts at the first message: {read}");
}
