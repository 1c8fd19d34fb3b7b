//! What goes when a log is as large, or a message as old, as it may be.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use turbopump::api::{Fetch, Request, Status};
use turbopump::client::{ClientError, Start};
use turbopump::types::{QueueKey, QueueNumber, QueueOffset};

use crate::support::command;
use crate::support::directory::{files_with, test_directory};
use crate::support::load::{bounds, create_topic, produce, read, topic};
use crate::support::node::{Node, Setup, wait_for};

const MIB: u64 = 1 << 20;

fn feed(node: &Node, bytes: u64) {
    let body = vec![b'x'; 32 * 1024];
    let count = bytes / body.len() as u64;
    produce(node, "orders", 0, (0..count).map(|_| &body[..]));
}

/// Bytes of the segment files of the commit log.
fn log_bytes(data: &Path) -> u64 {
    let files = files_with(data, "/log/");
    // A file may be renamed or removed meanwhile.
    files.iter().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn the_oldest_segments_go_and_the_first_offset_follows() {
    let directory = test_directory();
    let setup = Setup::new(directory.path()).with(&["--retention-bytes", "32MiB"]);
    let node = setup.start();
    create_topic(&mut node.client(), "orders", 1);
    node.run_well(&["consume", "orders", "--group", "slow"]);
    feed(&node, 96 * MIB);
    wait_for("segments go", || {
        let (first, end) = bounds(&mut node.client(), "orders", 0);
        // Two are kept.
        end.0 - first.0 <= 32 * MIB / (32 * 1024)
    });
    // Those that are kept, one in the making, and one spare.
    wait_for("the files shrink", || log_bytes(directory.path()) <= 5 * 16 * MIB);
    let first = check_bounds(&node);
    node.kill();
    let node = setup.start();
    let again = check_bounds(&node);
    assert!(again >= first, "{again} after {first}");
    // A group whose place is gone is told, and goes on with what is left.
    let consumed = node.run(&["consume", "orders", "--group", "slow"]);
    assert_eq!(consumed.code, Some(0), "{}", consumed.stderr);
}

/// Everything from the first offset on is there, everything before is refused. Returns the first offset.
fn check_bounds(node: &Node) -> u64 {
    let mut client = node.client();
    let messages = read(node.client(), "orders", Some(0), Start::First);
    let (first, end) = bounds(&mut client, "orders", 0);
    assert!(first.0 > 0 && end.0 - first.0 >= 16 * MIB / (32 * 1024), "{first} to {end}");
    let last = messages.last().expect("the newest segments stay").offset;
    assert_eq!(last + 1, end.0);
    assert_eq!(messages.len() as u64, last + 1 - messages[0].offset, "no gap");
    let id = client.topic(&topic("orders")).expect("it exists").id;
    let key = QueueKey { topic: id, queue: QueueNumber(0) };
    let offset = QueueOffset(first.0 - 1);
    let fetch = Fetch { session: 0, key, offset, bytes_max: 4096, records_max: 1, wait: Duration::ZERO };
    match client.call_owner(QueueNumber(0), &Request::Fetch(fetch)) {
        Err(ClientError::Refused(failure)) => assert_eq!(failure.status, Status::OffsetOutOfRange),
        other => panic!("{other:?}"),
    }
    let sentence = node.run(&["consume", "orders", "--from", "0"]).badly(1);
    assert!(sentence.contains("offset 0"), "{sentence}");
    let consumed = node.run_well(&["consume", "orders", "--from", "first", "--count", "3"]);
    assert_eq!(consumed.lines().count(), 3);
    first.0
}

/// Somebody else has them as well: a backup made of hard links, or whoever mixed up names.
#[test]
fn files_that_have_another_name_are_not_written_over() {
    let directory = test_directory();
    let (data, backup) = (directory.path().join("data"), directory.path().join("backup"));
    let node = Node::start(&data);
    create_topic(&mut node.client(), "orders", 1);
    feed(&node, 40 * MIB);
    assert_eq!(node.stop().status.code(), Some(0));
    fs::create_dir(&backup).expect("the name is free");
    let link = |path: &PathBuf| {
        let link = backup.join(path.file_name().expect("a file"));
        fs::hard_link(path, &link).expect("a file system with hard links");
        let bytes = fs::read(&link).expect("a file");
        (link, bytes)
    };
    let sealed = &files_with(&data, ".segment")[..2];
    let kept: Vec<_> = sealed.iter().map(link).collect();
    // A file to be used again that is none.
    let spare = data.join("shard-0/log/spare-9-0");
    fs::hard_link(&sealed[0], &spare).expect("the name is free");
    let node = Node::start(&data);
    feed(&node, 40 * MIB);
    let messages = read(node.client(), "orders", Some(0), Start::First);
    assert_eq!(messages.len() as u64, 80 * MIB / (32 * 1024));
    assert!(!spare.exists(), "it is kept");
    let told = node.stop().stderr;
    assert_eq!(told.matches("has another name as well").count(), 1, "{told}");
    let node = Setup::new(&data).with(&["--retention-bytes", "32MiB"]).start();
    feed(&node, 96 * MIB);
    wait_for("the sealed ones go", || sealed.iter().all(|path| !path.exists()));
    feed(&node, 48 * MIB);
    let told = node.stop().stderr;
    assert_eq!(told.matches("has another name as well").count(), 1, "{told}");
    for (link, bytes) in kept {
        assert!(fs::read(&link).expect("it is still there") == bytes, "{} was changed", link.display());
    }
}

/// As when only the snapshots of a copy were put back.
#[test]
fn what_retention_has_passed_since_an_old_snapshot_is_not_missing() {
    let directory = test_directory();
    let (data, earlier) = (directory.path().join("data"), directory.path().join("earlier"));
    let setup = Setup::new(&data).with(&["--retention-bytes", "32MiB"]);
    let node = setup.start();
    create_topic(&mut node.client(), "orders", 1);
    feed(&node, MIB);
    assert_eq!(node.stop().status.code(), Some(0));
    fs::create_dir(&earlier).expect("the name is free");
    let snapshots = files_with(&data, "snapshot-");
    let copy_of = |path: &PathBuf| earlier.join(path.file_name().expect("a file"));
    for path in &snapshots {
        fs::copy(path, copy_of(path)).expect("it can be copied");
    }
    let node = setup.start();
    feed(&node, 96 * MIB);
    wait_for("segments go", || bounds(&mut node.client(), "orders", 0).0.0 > 0);
    assert_eq!(node.stop().status.code(), Some(0));
    files_with(&data, "snapshot-").iter().for_each(|path| fs::remove_file(path).expect("it is there"));
    for path in &snapshots {
        fs::copy(copy_of(path), path).expect("it can be copied");
    }
    let text = data.to_str().expect("UTF-8");
    let verified = command::run(None, &["log", "verify", "--data", text, "-o", "json"], None);
    let told = String::from_utf8_lossy(&verified.stdout).into_owned();
    let report: serde_json::Value =
        told.lines().next().and_then(|line| serde_json::from_str(line).ok()).expect("a report");
    assert_eq!((&report["damaged"], &report["messages_missing"]), (&0.into(), &0.into()), "{told}");
    assert!(told.contains("older than what retention has left of the log"), "{told}");
    assert_eq!(verified.code, Some(1), "the index is made anew");
    let node = setup.start();
    check_bounds(&node);
}

#[test]
fn messages_go_with_the_age_of_their_topic() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let mut client = node.client();
    create_topic(&mut client, "kept", 1);
    node.run_well(&["topic", "create", "orders", "--queues", "1", "--retention", "1s"]);
    produce(&node, "kept", 0, [&b"one"[..]]);
    produce(&node, "orders", 0, [&b"one"[..], b"two"]);
    wait_for("they go", || bounds(&mut node.client(), "orders", 0).0.0 == 2);
    assert_eq!(read(node.client(), "orders", None, Start::First), vec![]);
    assert_eq!(read(node.client(), "kept", None, Start::First).len(), 1);
    produce(&node, "orders", 0, [&b"three"[..]]);
    assert_eq!(bounds(&mut client, "orders", 0).1, QueueOffset(3));
    node.run_well(&["topic", "create", "brief", "--queues", "1", "--retention", "1s"]);
    node.run_well(&["topic", "alter", "orders", "--retention", "none"]);
    produce(&node, "orders", 0, [&b"four"[..]]);
    produce(&node, "brief", 0, [&b"four"[..]]);
    // When the other's message has gone, this one's would have as well.
    wait_for("the other's goes", || bounds(&mut node.client(), "brief", 0).0.0 == 1);
    let kept = read(node.client(), "orders", None, Start::First);
    assert_eq!(kept.last().map(|message| message.body.clone()), Some(b"four".to_vec()));
}
