//! Ten thousand queues.

use std::time::{Duration, Instant};

use turbopump::client::{Consumer, ConsumerOptions, Message, Start};
use turbopump::testing::Random;
use turbopump::types::QueueNumber;

use crate::support::directory::test_directory;
use crate::support::load::{create_topic, next_messages, producer, read, topic};
use crate::support::machine::{report, resident_bytes, scale};
use crate::support::node::{Node, PATIENCE, Setup};

const MIB: u64 = 1 << 20;
const ROUNDS: u64 = 3;
/// Until a consumer of all queues has found that there is nothing in any of them.
const SETTLING: Duration = Duration::from_secs(2);
const MESSAGES_WAITED_FOR: usize = 20;
/// Between two of them: longer than one takes.
const PAUSE: Duration = Duration::from_millis(100);

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
    let mut delays = delays_to_a_waiting_consumer(&node, count);
    delays.sort_unstable();
    let (middle, longest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    report(&format!(
        "{count} queues, one consumer that waits at all of them: a message to one of them comes after {middle:?} (median of \
         {}), {longest:?} at most",
        delays.len()
    ));
    assert!(longest < Duration::from_millis(500), "{delays:?}");
}

/// How long a single message to some queue takes to a consumer that has read all queues to their ends.
fn delays_to_a_waiting_consumer(node: &Node, count: u32) -> Vec<Duration> {
    let options = ConsumerOptions { start: Start::Last, ..ConsumerOptions::default() };
    let consumer = Consumer::assign(node.client(), topic("wide"), None, None, options);
    let mut consumer = consumer.expect("the topic exists");
    let waiting = Instant::now();
    while waiting.elapsed() < SETTLING {
        assert!(consumer.poll(Duration::from_millis(10)).expect("the broker answers").is_none());
    }
    let (sender, sent) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let sender = sender;
            let mut producer = producer(node, "wide");
            let mut random = Random::new(7);
            for _ in 0..MESSAGES_WAITED_FOR {
                std::thread::sleep(PAUSE);
                let queue = Some(QueueNumber(random.index(count as usize) as u32));
                let message = Message { body: b"now", queue, ..Message::default() };
                sender.send(Instant::now()).expect("the consumer waits for it");
                producer.send(&message).expect("the broker takes it");
                producer.flush().expect("the broker answers");
            }
        });
        let mut delays = Vec::new();
        while delays.len() < MESSAGES_WAITED_FOR {
            let more = next_messages(&mut consumer, PATIENCE).expect("it does not end");
            delays.extend(more.iter().map(|_| sent.recv().expect("it was sent").elapsed()));
        }
        delays
    })
}
