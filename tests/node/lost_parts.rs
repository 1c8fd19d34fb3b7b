//! What clients see of what was lost, whatever they speak, and what they are not told: where the broker keeps its files.

use std::path::Path;

use turbopump::log::segment_name;
use turbopump::types::LogPosition;

use super::remoting::Remoting;
use super::remoting_pulls::{FOUND, PASSED, offsets, pull, records};
use super::remoting_sends::send;
use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, publish};
use crate::support::node::{Node, Setup, wait_for};

const LINES: usize = 4;

fn produce(node: &Node, text: &str) {
    let lines = text.repeat(LINES);
    command::run(Some(node.address()), &["produce", "orders", "--queue", "1"], Some(lines.as_bytes())).well();
}

/// Gives up the second shard, which is gone.
fn give_up(data: &Path) {
    std::fs::remove_dir_all(data.join("shard-1")).expect("it is there");
    command::run(None, &["log", "repair", "--data", data.to_str().expect("UTF-8"), "--yes"], None).well();
}

/// Receives one message over HTTP for a group, and its body.
fn receive(connection: &mut Connection, group: &str) -> Option<String> {
    connection.send(format!(
        "GET /topics/orders/messages?consumer={group}&numOfMessages=16 HTTP/1.1\r\nHost: h\r\n\r\n"
    ));
    let answer = connection.next().expect("an answer");
    (answer.status == 200).then_some(answer.body)
}

/// As `docs/operations.md` has it: whoever keeps a place is told from where to where; whoever receives gets what comes after, and
/// the operator learns of it, whoever it is that reads.
#[test]
fn who_reads_a_shard_that_was_given_up_sees_what_the_operations_say() {
    let directory = test_directory();
    let data = directory.path().join("data");
    let setup = Setup::new(&data).with(&["--http", "127.0.0.1:0", "--shards", "2"]);
    let node = setup.start();
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    produce(&node, "lost\n");
    assert_eq!(node.stop().status.code(), Some(0));
    give_up(&data);
    let told = "stored messages are damaged or missing and are passed over";
    type Reading = (&'static str, fn(&Node));
    let readings: [Reading; 4] = [
        ("HTTP", |node| {
            let mut connection = Connection::open(node);
            assert_eq!(receive(&mut connection, "over-http"), None);
            produce(node, "new\n");
            let body = receive(&mut connection, "over-http").expect("what comes after");
            assert!(body.contains("new") && !body.contains("lost"), "{body}");
        }),
        ("native receivers", |node| {
            let lines = node.run_well(&["message", "receive", "orders", "--group", "native"]);
            assert!(lines.contains("new") && !lines.contains("lost"), "{lines}");
        }),
        ("native readers", |node| {
            let read = node.run(&["consume", "orders"]);
            let parts = ["messages 0 to ", "of queue 1 of topic orders cannot be read: shard-1/log/"];
            assert!(
                read.code == Some(1) && parts.iter().all(|part| read.stderr.contains(part)),
                "{}",
                read.stderr
            );
        }),
        ("RocketMQ's pulls", |node| {
            let mut client = Remoting::connect(&node.addresses[1]);
            let answer = pull(&mut client, &[]);
            let [next, first, _] = offsets(&answer);
            assert_eq!(first, 0, "only retention moves where a queue begins");
            let found = match answer.code {
                // One more pull, from where it says.
                PASSED => pull(&mut client, &[("queueOffset", &next.to_string())]),
                _ => answer,
            };
            assert_eq!(found.code, FOUND, "{found:?}");
            let records = records(&found);
            assert!(records.iter().all(|record| record.queue_offset >= LINES as i64), "{records:?}");
            assert!(records.iter().any(|record| record.body == b"new"), "{records:?}");
        }),
    ];
    for (who, read) in readings {
        let node = setup.start();
        assert!(!node.told().contains(told), "{who}: before anybody reads");
        read(&node);
        wait_for("the operator is told", || node.told().contains(told));
        assert_eq!(node.stop().status.code(), Some(0));
    }
}

/// Whatever a client speaks, it is told what is wrong, and of which shard; where that is, `status` tells.
#[test]
fn clients_are_not_told_where_a_shard_has_no_room_for_its_next_segment() {
    let directory = test_directory();
    let data = directory.path().join("data");
    let flags = ["--http", "127.0.0.1:0", "--tail-cache-bytes", "1MiB"];
    let node = Setup::new(&data).with(&flags).start();
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    // The one after the next is somebody else's name.
    let log = data.join("shard-0/log");
    std::fs::create_dir(log.join(segment_name(LogPosition(32 << 20)))).expect("the name is free");
    let why = "shard 0 takes no messages while its next segment cannot be made";
    let body = "x".repeat(100 * 1024);
    let mut remoting = Remoting::connect(node.address());
    let mut fill = || send(&mut remoting, "orders", "0", &body[..60 * 1024]);
    let refused = (0..1000).map(|_| fill()).find(|answer| answer.remark.contains(why));
    let refused = refused.expect("the log has no room any more");
    let mut http = Connection::open(&node);
    http.send(publish(&format!("<Message><MessageBody>{body}</MessageBody></Message>")));
    let refusals = [
        ("native", node.run(&["message", "publish", "orders", &body]).badly(1)),
        ("HTTP", http.next().expect("an answer").body),
        ("RocketMQ's", refused.remark),
    ];
    let path = data.to_str().expect("UTF-8");
    for (who, said) in refusals {
        assert!(said.contains(why) && !said.contains(path), "{who}: {said}");
    }
    let status = node.run(&["status", "-o", "json"]).json();
    let state = status["shards"][0]["state"].as_str().expect("text").to_owned();
    assert!(state.contains(why) && state.contains(path), "{state}");
}
