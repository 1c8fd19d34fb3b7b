//! A disk that runs full: a file system in memory, small enough to fill in a second.

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use turbopump::api::Status;
use turbopump::client::{BatchOutcome, Message, Producer, ProducerOptions, Start};
use turbopump::types::QueueNumber;

use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::load::{bounds, create_topic, read, topic};
use crate::support::machine::{MemoryFileSystem, report};
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

const MIB: u64 = 1 << 20;
/// The first segment of the index takes 64 MiB of it.
const DISK_BYTES: u64 = 144 * MIB;

/// Sends messages until one is refused or `bytes` are stored; `Ok` tells that they were.
fn fill(node: &Node, bytes: u64) -> Result<(), Status> {
    let options = ProducerOptions {
        retry_for: Duration::ZERO,
        buffered_bytes_max: 2 << 20,
        ..ProducerOptions::default()
    };
    let mut producer = Producer::new(node.client(), topic("orders"), options).expect("the topic exists");
    let body = vec![b'x'; 32 * 1024];
    for _ in 0..bytes / body.len() as u64 {
        let message = Message { body: &body, queue: Some(QueueNumber(0)), ..Message::default() };
        producer.send(&message).expect("the broker lives");
        // What waits behind it would be refused as well, one batch after the other.
        if let Some(refused) = refusal(&producer) {
            return Err(refused);
        }
    }
    producer.flush().expect("the broker lives");
    refusal(&producer).map_or(Ok(()), Err)
}

/// Why the first batch that failed was refused.
fn refusal(producer: &Producer) -> Option<Status> {
    match &producer.first_failure()?.outcome {
        BatchOutcome::Refused(failure) => Some(failure.status),
        other => panic!("{other:?}"),
    }
}

/// Stores a little, as soon as there is room.
fn wait_for_room(node: &Node) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(status) = fill(node, MIB) {
        // Busy: the room came between two batches, and the refused one would stand after the later one.
        assert!(matches!(status, Status::NoSpace | Status::Busy), "{status:?}");
        assert!(Instant::now() < deadline, "the broker does not go on");
    }
}

#[test]
fn a_full_disk_refuses_producers_serves_readers_and_goes_on_when_there_is_room() {
    let directory = test_directory();
    let data = directory.path().join("memory");
    let Some(memory) = MemoryFileSystem::mount(&data, DISK_BYTES) else {
        report("skipped: a full disk needs a file system in memory, which this user may not mount");
        return;
    };
    let data = data.join("data");
    let node = Setup::new(&data).start();
    create_topic(&mut node.client(), "orders", 1);
    assert_eq!(fill(&node, 200 * MIB), Err(Status::NoSpace));
    let stored = check_reading(&node);
    assert!(stored * 32 * 1024 >= 32 * MIB, "{stored} messages");
    // Which disk it is, how much is needed, and what to do.
    let status = node.run(&["status", "-o", "json"]).json();
    let state = status["shards"][0]["state"].as_str().expect("text").to_owned();
    let log = data.join("shard-0/log");
    for part in ["the disk of shard 0 is full", log.to_str().expect("UTF-8"), "are needed", "free space"] {
        assert!(state.contains(part), "{part} is missing: {state}");
    }
    // Clients learn all of that but where it is.
    let large = "x".repeat(100 * 1024);
    let publish = || node.run(&["message", "publish", "orders", &large]);
    // What is left of the segment in use takes a few.
    let refused = (0..200).map(|_| publish()).find(|outcome| outcome.code != Some(0));
    let refused = refused.expect("the disk is full").badly(1);
    assert!(refused.contains("the disk of shard 0 is full") && refused.contains("are needed"), "{refused}");
    assert!(!refused.contains(data.to_str().expect("UTF-8")), "{refused}");

    // More room, without a restart.
    memory.resize(DISK_BYTES + 64 * MIB);
    wait_for_room(&node);
    assert!(check_reading(&node) > stored);
    assert_eq!(fill(&node, 200 * MIB), Err(Status::NoSpace));

    // Full across a death and a stop.
    node.kill();
    let node = Setup::new(&data).start();
    let stored = check_reading(&node);
    assert_eq!(fill(&node, 200 * MIB), Err(Status::NoSpace));
    let ended = node.stop();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let told = ended.stderr.matches("the next segment cannot be made").count();
    assert_eq!(told, 1, "told once to whoever looks at standard error: {}", ended.stderr);

    // A shorter retention makes room.
    let node = Setup::new(&data).with(&["--retention-bytes", "32MiB"]).start();
    wait_for_room(&node);
    let (first, end) = bounds(&mut node.client(), "orders", 0);
    assert!(first.0 > 0 && end.0 > stored, "{first} to {end}");
    // Old segments go as new ones come, though not as fast.
    (0..100).for_each(|_| wait_for_room(&node));
    assert!(bounds(&mut node.client(), "orders", 0).0 > first);
    drop(node);
    drop(memory);
}

/// `produce` waits for room, and whoever looks at it learns that, and why.
#[test]
fn produce_says_that_it_waits_for_room() {
    let directory = test_directory();
    let data = directory.path().join("memory");
    let Some(memory) = MemoryFileSystem::mount(&data, DISK_BYTES) else {
        report("skipped: a full disk needs a file system in memory, which this user may not mount");
        return;
    };
    let node = Setup::new(data.join("data")).start();
    create_topic(&mut node.client(), "orders", 1);
    assert_eq!(fill(&node, 200 * MIB), Err(Status::NoSpace));
    let line = directory.path().join("line");
    std::fs::write(&line, vec![b'x'; 1 << 20]).expect("written");
    let produce = ["produce", "orders", line.to_str().expect("UTF-8")];
    let mut child = command::spawn(Some(node.address()), &produce, false);
    let stderr = child.stderr.take().expect("it is piped");
    let mut sentence = String::new();
    BufReader::new(stderr).read_line(&mut sentence).expect("text");
    assert!(sentence.contains("waiting for the broker, for up to 5m in all: "), "{sentence}");
    assert!(child.try_wait().expect("our child").is_none(), "it goes on waiting");
    memory.resize(DISK_BYTES + 64 * MIB);
    let printed = command::finish(child, &produce).well();
    assert!(printed.starts_with("1 lines acknowledged"), "{printed}");
}

/// Everything up to the end can be read; returns how many messages there are. What was on its way when another batch was refused
/// may still be stored.
fn check_reading(node: &Node) -> u64 {
    let count = Cell::new(0);
    wait_for("what is read is all there is", || {
        let messages = read(node.client(), "orders", Some(0), Start::First);
        let (first, end) = bounds(&mut node.client(), "orders", 0);
        count.set(end.0);
        (first.0, end.0) == (0, messages.len() as u64)
    });
    count.get()
}

/// A repair needs room for what it makes, were it a manifest: without it, nothing is changed.
#[test]
fn a_repair_on_a_full_disk_changes_nothing() {
    let directory = test_directory();
    let place = directory.path().join("memory");
    let Some(memory) = MemoryFileSystem::mount(&place, DISK_BYTES) else {
        report("skipped: a full disk needs a file system in memory, which this user may not mount");
        return;
    };
    let data = place.join("data");
    let node = Setup::new(&data).start();
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"one\ntwo\n")).well();
    assert_eq!(node.stop().status.code(), Some(0));
    let manifest = data.join("shard-0/log/manifest");
    std::fs::remove_file(&manifest).expect("it is there");
    let filler = place.join("filler");
    let mut file = std::fs::File::create(&filler).expect("there is room for a name");
    let block = vec![1; 4096];
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    drop(file);
    let repair = ["log", "repair", "--data", data.to_str().expect("UTF-8"), "--yes"];
    let said = command::run(None, &repair, None).badly(1);
    assert!(said.contains("nothing was changed"), "{said}");
    let log: Vec<_> = std::fs::read_dir(data.join("shard-0/log")).expect("it is there").flatten().collect();
    let odd = |name: &std::ffi::OsStr| !name.to_string_lossy().ends_with(".segment");
    let odd: Vec<_> = log.iter().map(|entry| entry.file_name()).filter(|name| odd(name)).collect();
    assert!(odd.is_empty(), "something was made: {odd:?}");
    std::fs::remove_file(&filler).expect("it was made");
    command::run(None, &repair, None).well();
    let node = Setup::new(&data).start();
    assert_eq!(node.run_well(&["consume", "lines"]).lines().count(), 2);
    drop(node);
    drop(memory);
}
