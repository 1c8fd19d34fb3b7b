//! One producer on a broker that is about to die.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use turbopump::client::{BatchOutcome, ClientError, Message, Producer, ProducerOptions};
use turbopump::testing::Random;
use turbopump::types::{Level, QueueNumber};

use crate::body::{self, Tag};
use crate::support::load::topic;
use crate::{QUEUES, ROUND_BYTES, TOPIC, connect};

/// What to send, and where.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub address: &'a str,
    pub producer: u8,
    /// The number of its first message.
    pub first: u64,
    pub level: Level,
    /// Set before the broker is killed: errors from then on are expected.
    pub dying: &'a AtomicBool,
}

/// What became of it.
pub struct Sent {
    pub producer: u8,
    /// Where the next round goes on.
    pub next: u64,
    /// Queue, offset and message.
    pub acknowledged: Vec<(u32, u64, Tag)>,
    pub refused: Vec<Tag>,
}

/// A producer with its memory of what went where.
struct Sender {
    inner: Producer,
    producer: u8,
    first: u64,
    /// Numbers of the messages given to the producer, by queue.
    taken: Vec<Vec<u64>>,
    sent: Sent,
    level: Level,
}

impl Load<'_> {
    /// Sends until the broker is lost.
    pub fn run(self, mut random: Random) -> Sent {
        let nothing =
            Sent { producer: self.producer, next: self.first, acknowledged: Vec::new(), refused: Vec::new() };
        let options = ProducerOptions {
            level: Some(self.level),
            batch_records: random.range(1..300) as u32,
            batch_bytes: random.range(1..128) as usize * 1024,
            linger: Duration::from_millis(random.range(0..3)),
            in_flight: random.range(1..16) as usize,
            buffered_bytes_max: 4 << 20,
            ..ProducerOptions::default()
        };
        let inner = connect(self.address).map(|client| Producer::new(client, topic(TOPIC), options));
        let Some(Ok(inner)) = inner else {
            self.expect_death("no connection");
            return nothing;
        };
        let mut sender = Sender {
            inner,
            producer: self.producer,
            first: self.first,
            taken: vec![Vec::new(); QUEUES as usize],
            sent: nothing,
            level: self.level,
        };
        if let Err(error) = sender.send_all(&mut random) {
            self.expect_death(&error.to_string());
        }
        sender.note_results();
        sender.sent
    }

    fn expect_death(&self, error: &str) {
        assert!(self.dying.load(Ordering::SeqCst), "the broker lives, but {error}");
    }
}

impl Sender {
    /// Ends with the error that the death causes.
    fn send_all(&mut self, random: &mut Random) -> Result<(), ClientError> {
        let (mut body, mut bytes) = (Vec::new(), 0);
        loop {
            let queue = random.range(0..u64::from(QUEUES)) as u32;
            for _ in 0..random.range(1..50) {
                let number = self.sent.next;
                body::write(&mut body, queue, Tag::new(self.producer, number));
                bytes += body.len() as u64;
                let message = Message { body: &body, queue: Some(QueueNumber(queue)), ..Message::default() };
                // Whatever happens to it: it has been given away.
                self.taken[queue as usize].push(number);
                self.sent.next += 1;
                self.inner.send(&message)?;
            }
            self.note_results();
            if bytes > ROUND_BYTES {
                // Load, not waiting: a batch a millisecond.
                std::thread::sleep(Duration::from_millis(1));
            }
            self.inner.poll()?;
        }
    }

    fn note_results(&mut self) {
        while let Some(result) = self.inner.take_result() {
            let taken = &self.taken[result.queue.0 as usize];
            let first = self.first + result.first_sequence;
            let from = taken.partition_point(|number| *number < first);
            let numbers = &taken[from..from + result.record_count as usize];
            assert_eq!(numbers[0], first, "a batch begins with a message of its queue");
            let tags = numbers.iter().map(|number| Tag::new(self.producer, *number));
            match result.outcome {
                BatchOutcome::Acknowledged { base_offset, level } => {
                    assert!(level >= self.level, "{level} was answered for {}", self.level);
                    let placed = tags.zip(base_offset.0..).map(|(tag, offset)| (result.queue.0, offset, tag));
                    self.sent.acknowledged.extend(placed);
                }
                BatchOutcome::Refused(_) => self.sent.refused.extend(tags),
                BatchOutcome::Unknown(_) => {}
            }
        }
    }
}
