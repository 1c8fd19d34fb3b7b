//! Readers of messages that are no longer in memory.

use std::time::{Duration, Instant};

use turbopump::api::{Fetch, Reply, Request};
use turbopump::client::Start;
use turbopump::types::{QueueKey, QueueNumber, QueueOffset};
use turbopump::wire::batch::BatchHeader;

use crate::support::directory::test_directory;
use crate::support::load::{create_topic, produce, read, topic};
use crate::support::node::{Node, PATIENCE, Setup};

const COUNT: u64 = 1_500;
const BODY_BYTES: usize = 32 * 1024;

fn body(number: u64) -> Vec<u8> {
    let mut body = number.to_string().into_bytes();
    body.resize(BODY_BYTES, b'-');
    body
}

/// A node with nothing of its messages in memory.
fn node_with_old_messages(setup: &Setup) -> Node {
    let node = setup.start();
    create_topic(&mut node.client(), "old", 1);
    let bodies: Vec<_> = (0..COUNT).map(body).collect();
    produce(&node, "old", 0, bodies.iter().map(|body| &body[..]));
    node.kill();
    setup.start()
}

/// The counter once the node has indexed what it found.
fn disk_bytes_read_at_rest(node: &Node) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut before = node.counter("disk_bytes_read");
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = node.counter("disk_bytes_read");
        if now == before && now > 0 {
            return now;
        }
        assert!(Instant::now() < deadline, "{now} bytes read, and no end");
        before = now;
    }
}

#[test]
fn a_reader_gets_everything_once_and_the_disk_is_read_once() {
    let directory = test_directory();
    let node = node_with_old_messages(&Setup::new(directory.path()));
    let before = disk_bytes_read_at_rest(&node);
    let fetched = node.counter("messages_fetched");
    let messages = read(node.client(), "old", Some(0), Start::First);
    assert_eq!(messages.len() as u64, COUNT);
    for (number, message) in (0..).zip(&messages) {
        assert_eq!(message.offset, number);
        assert!(message.body == body(number), "message {number} is another");
    }
    let stored = COUNT * BODY_BYTES as u64;
    let from_disk = node.counter("disk_bytes_read") - before;
    assert!((stored..stored * 5 / 4).contains(&from_disk), "{from_disk} bytes for {stored}");
    assert_eq!(
        node.counter("messages_fetched") - fetched,
        COUNT,
        "what is read ahead counts when it is fetched"
    );
}

#[test]
fn a_reader_that_goes_elsewhere_gets_what_it_asks_for() {
    let directory = test_directory();
    let node = node_with_old_messages(&Setup::new(directory.path()));
    let mut client = node.client();
    let id = client.topic(&topic("old")).expect("it exists").id;
    let key = QueueKey { topic: id, queue: QueueNumber(0) };
    let mut fetch = |offset, bytes_max| {
        let offset = QueueOffset(offset);
        let fetch = Fetch { session: 0, key, offset, bytes_max, records_max: u32::MAX, wait: Duration::ZERO };
        match client.call_owner(QueueNumber(0), &Request::Fetch(fetch)) {
            Ok(Reply::Fetched(fetched)) => {
                let first = BatchHeader::decode(&fetched.batches).expect("a batch");
                assert!(first.base_offset <= offset && first.end_offset() > offset, "{offset}: {first:?}");
                assert_eq!((fetched.first_offset.0, fetched.end_offset.0), (0, COUNT));
                fetched.next_offset.0
            }
            other => panic!("{other:?}"),
        }
    };
    let next = fetch(0, 256 * 1024);
    // Where it was going, elsewhere, back, and with another size; each leaves something behind that was read ahead.
    for (offset, bytes_max) in [
        (next, 256 * 1024),
        (700, 256 * 1024),
        (next, 256 * 1024),
        (next, 64 * 1024),
        (COUNT - 1, 1024 * 1024),
        (0, 1),
    ] {
        fetch(offset, bytes_max);
    }
    let mut offset = 0;
    while offset < COUNT {
        offset = fetch(offset, 512 * 1024);
    }
    // The topic goes while something may be read ahead of it.
    fetch(100, 256 * 1024);
    client.delete_topic(&topic("old")).expect("it exists");
    let fetch = Fetch {
        session: 0,
        key,
        offset: QueueOffset(110),
        bytes_max: 1,
        records_max: 1,
        wait: Duration::ZERO,
    };
    assert!(client.call_owner(QueueNumber(0), &Request::Fetch(fetch)).is_err());
}
