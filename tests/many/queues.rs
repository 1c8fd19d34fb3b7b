//! Ten thousand queues.

use std::time::Instant;

use turbopump::client::{Message, Start};
use turbopump::types::QueueNumber;

use crate::support::directory::test_directory;
use crate::support::load::{create_topic, producer, read, topic};
use crate::support::machine::{report, resident_bytes, scale};
use crate::support::node::{Node, Setup};

const MIB: u64 = 1 << 20;
const ROUNDS: u64 = 3;

fn body(queue: u32, round: u64) -> [u8; 100] {
    let mut body = [queue as u8; 100];
    body[..8].copy_from_slice(&round.to_le_bytes());
    body
}

#[test]
fn ten_thousand_queues_are_written_read_and_started_again() {
    let count = scale("TURBOPUMP_MANY_QUEUES", 10_000) as u32;
    let directory = test_directory();
    let node = Node::start(directory.path());
    let created = Instant::now();
    create_topic(&mut node.client(), "wide", count);
    let created = created.elapsed();
    let produced = Instant::now();
    let mut producer = producer(&node, "wide");
    for round in 0..ROUNDS {
        for queue in 0..count {
            let body = body(queue, round);
            let queue = Some(QueueNumber(queue));
            producer
                .send(&Message { body: &body, queue, ..Message::default() })
                .expect("the broker takes it");
        }
    }
    producer.flush().expect("the broker answers");
    assert_eq!(producer.acknowledged_prefix(), ROUNDS * u64::from(count));
    let produced = produced.elapsed();
    let memory = resident_bytes(node.process());
    node.kill();

    let node = Setup::new(directory.path()).start();
    let restarted = node.took;
    let info = node.client().describe_topic(&topic("wide")).expect("it is there");
    assert_eq!(info.queues.len(), count as usize);
    assert!(info.queues.iter().all(|queue| queue.end_offset.0 == ROUNDS));
    let started = Instant::now();
    let mut messages = read(node.client(), "wide", None, Start::First);
    let consumed = started.elapsed();
    messages.sort_by_key(|message| (message.queue, message.offset));
    let expected = (0..count).flat_map(|queue| (0..ROUNDS).map(move |round| (queue, round)));
    assert_eq!(messages.len() as u64, ROUNDS * u64::from(count));
    for (message, (queue, round)) in messages.iter().zip(expected) {
        assert_eq!((message.queue, message.offset), (queue, round));
        assert!(message.body == body(queue, round), "queue {queue} offset {round}");
    }
    let memory_again = resident_bytes(node.process());
    report(&format!(
        "{count} queues: made in {created:?}, {ROUNDS} messages each stored in {produced:?} and read in {consumed:?}, \
         restart after SIGKILL {restarted:?}, resident {} and then {} MiB",
        memory / MIB,
        memory_again / MIB
    ));
    assert!(memory.max(memory_again) < 512 * MIB, "{memory} and {memory_again} bytes");
}
