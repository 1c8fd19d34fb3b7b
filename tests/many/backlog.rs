//! A reader far behind, while producers go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use turbopump::client::{Consumer, ConsumerOptions, Delivery, Message, Producer, Until};
use turbopump::types::QueueNumber;

use crate::support::directory::test_directory;
use crate::support::load::{create_topic, producer, topic};
use crate::support::machine::{report, resident_bytes, scale};
use crate::support::node::{Node, PATIENCE, Setup};

const MIB: u64 = 1 << 20;
const QUEUES: u32 = 4;
const BODY_BYTES: usize = 1024;

fn send(producer: &mut Producer, number: u64) {
    let mut body = [0x55; BODY_BYTES];
    body[..8].copy_from_slice(&number.to_le_bytes());
    let queue = Some(QueueNumber((number % u64::from(QUEUES)) as u32));
    producer.send(&Message { body: &body, queue, ..Message::default() }).expect("the broker takes it");
}

#[test]
fn a_reader_far_behind_gets_everything_while_producers_go_on() {
    let backlog = scale("TURBOPUMP_MANY_BACKLOG_MB", 256) * 1_000_000;
    let directory = test_directory();
    let setup =
        Setup::new(directory.path()).with(&["--segment-bytes", "64MiB", "--tail-cache-bytes", "16MiB"]);
    let node = setup.start();
    create_topic(&mut node.client(), "long", QUEUES);
    let count = backlog / BODY_BYTES as u64;
    let mut producer = producer(&node, "long");
    (0..count).for_each(|number| send(&mut producer, number));
    producer.flush().expect("the broker answers");
    assert_eq!(producer.acknowledged_prefix(), count);
    let reading = AtomicBool::new(true);
    let (more, slowest) = std::thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let (mut number, mut slowest) = (count, Duration::ZERO);
            while reading.load(Ordering::Relaxed) {
                send(&mut producer, number);
                number += 1;
                let asked = Instant::now();
                producer.flush().expect("the broker answers");
                slowest = slowest.max(asked.elapsed());
                std::thread::sleep(Duration::from_millis(2));
            }
            (number - count, slowest)
        });
        let took = read_backlog(&node, count);
        reading.store(false, Ordering::Relaxed);
        let memory = resident_bytes(node.process());
        report(&format!(
            "a backlog of {} MB: read in {took:?} ({:.0} MB/s), {} MiB resident",
            backlog / 1_000_000,
            backlog as f64 / 1e6 / took.as_secs_f64(),
            memory / MIB
        ));
        assert!(memory < 512 * MIB, "{memory} bytes");
        producing.join().expect("it only sends")
    });
    report(&format!("meanwhile {more} messages were stored, the slowest in {slowest:?}"));
    assert!(more > 0);
}

/// Reads the first `count` messages, in the order of each queue.
fn read_backlog(node: &Node, count: u64) -> Duration {
    let started = Instant::now();
    let options = ConsumerOptions { until: Until::Forever, ..ConsumerOptions::default() };
    let mut consumer =
        Consumer::assign(node.client(), topic("long"), None, None, options).expect("the topic exists");
    let mut next: Vec<u64> = (0..u64::from(QUEUES)).collect();
    while next.iter().any(|number| *number < count) {
        match consumer.poll(PATIENCE).expect("the broker answers") {
            Some(Delivery::Messages(batch)) => {
                let next = &mut next[batch.queue().0 as usize];
                for message in batch.messages() {
                    let number = u64::from_le_bytes(message.body()[..8].try_into().expect("eight bytes"));
                    assert_eq!(number, *next);
                    *next += u64::from(QUEUES);
                }
            }
            _ => panic!("messages are missing: {next:?} of {count}"),
        }
    }
    started.elapsed()
}
