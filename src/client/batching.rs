//! Which queue a message goes to, and how messages become batches. No I/O: both drivers use it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::limits;
use crate::types::{QueueNumber, Timestamp};
use crate::wire::batch::BatchBuilder;
use crate::wire::origin::{Attributes, Origin};
use crate::wire::record::{Record, RecordError};

/// A message to be sent. Nothing is copied but into its batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// Messages of one key go to one queue, unless `queue` is set. Empty for none. It is text without control characters;
    /// blanks in it separate several keys, each of which the message is found by.
    pub key: &'a [u8],
    /// What consumers may filter by. Empty for none. It is text without control characters, blanks around it, and `||`,
    /// which separates tags in a filter.
    pub tag: &'a [u8],
    /// RocketMQ's text form: name \x01 value \x02, repeated. At most 32,767 bytes, as key and tag.
    pub properties: &'a [u8],
    /// At most 4 MiB.
    pub body: &'a [u8],
    /// Overrides the choice by key.
    pub queue: Option<QueueNumber>,
    /// Set in a copy of a message that was stored before: what it keeps of it beside its parts.
    pub original: Option<Original>,
}

/// What a copy of a stored message keeps of it that nobody but its producer, or the broker that took it, could say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// When its producer made it, by the producer's clock.
    pub born_time: Timestamp,
    /// How the body is compressed, and whether the message was part of a transaction.
    pub attributes: Attributes,
    /// Where it came from, if the broker that took it said so.
    pub origin: Option<Origin>,
}

/// Both clocks, read by the driver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) monotonic: Instant,
    pub(super) wall: Timestamp,
}

/// Spreads messages over a topic's queues.
///
/// A message with a key goes to queue `crc32c(key) % queue_count`: the same on every producer, as long as the queue
/// count stays. One without goes to the sticky queue, which is the next one after each full batch rather than with
/// each message, so that batches fill.
#[derive(Clone, Debug)]
pub struct Partitioner {
    queue_count: u32,
    sticky: u32,
}

/// When a batch is full or old enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchLimits {
    pub(super) bytes: usize,
    pub(super) records: u32,
    pub(super) linger: Duration,
}

/// A batch that takes messages.
pub(super) struct OpenBatch {
    builder: BatchBuilder,
    born: Timestamp,
    /// Number of its first message among all that were sent.
    pub(super) first_sequence: u64,
}

/// A batch ready to be sent.
#[derive(Debug)]
pub(super) struct SealedBatch {
    pub(super) bytes: Vec<u8>,
    pub(super) first_sequence: u64,
    pub(super) record_count: u32,
    /// When it was first refused, if it was: retries end some time later.
    pub(super) refused: Option<Instant>,
    /// Whether it was refused because its topic's number was out of date.
    pub(super) renamed: bool,
    /// Whether it was sent before and had no answer.
    pub(super) uncertain: bool,
}

impl Partitioner {
    /// `first` is the first queue of messages without a key: producers that start at different ones spread better.
    ///
    /// Panics when there is no queue.
    pub fn new(queue_count: u32, first: QueueNumber) -> Self {
        assert!(queue_count > 0, "a topic has at least one queue");
        Self { queue_count, sticky: first.0 % queue_count }
    }

    /// The topic's queues.
    pub fn queue_count(&self) -> u32 {
        self.queue_count
    }

    /// The queue of a key.
    pub fn by_key(&self, key: &[u8]) -> QueueNumber {
        QueueNumber::of_key(key, self.queue_count)
    }

    /// The queue of messages without a key.
    pub fn sticky(&self) -> QueueNumber {
        QueueNumber(self.sticky)
    }

    /// Goes on to the next queue if `queue` is the sticky one.
    pub fn batch_filled(&mut self, queue: QueueNumber) {
        if self.sticky == queue.0 {
            self.sticky = (self.sticky + 1) % self.queue_count;
        }
    }

    /// The queue that `message` goes to.
    pub fn queue_of(&self, message: &Message<'_>) -> QueueNumber {
        match message.queue {
            Some(queue) => queue,
            None if message.key.is_empty() => self.sticky(),
            None => self.by_key(message.key),
        }
    }
}

impl OpenBatch {
    /// An empty batch in the memory of an earlier one, for a first message that was born then.
    pub(super) fn new(memory: Vec<u8>, first_sequence: u64, born: Timestamp) -> Self {
        let builder = BatchBuilder::reusing(memory, born);
        Self { builder, born, first_sequence }
    }

    /// Whether `record` still belongs into this batch: the first always does. A batch's times of birth lie within 24 days of
    /// the first one, which those of copies may not.
    pub(super) fn takes(&self, record: &Record<'_>, born: Timestamp, limits: &BatchLimits) -> bool {
        self.builder.is_empty()
            || self.builder.fits(record)
                && self.builder.batch_bytes() + record.encoded_bytes() <= limits.bytes
                && i32::try_from(self.born_delta(born)).is_ok()
    }

    pub(super) fn push(&mut self, record: &Record<'_>, born: Timestamp) {
        let delta = self.born_delta(born);
        let born_delta_ms = i32::try_from(delta).unwrap_or(if delta < 0 { i32::MIN } else { i32::MAX });
        self.builder.push(&Record { born_delta_ms, ..*record });
    }

    fn born_delta(&self, born: Timestamp) -> i128 {
        i128::from(born.0) - i128::from(self.born.0)
    }

    /// Whether the next message would be one too many.
    pub(super) fn is_full(&self, limits: &BatchLimits) -> bool {
        self.builder.record_count() >= limits.records || self.builder.batch_bytes() >= limits.bytes
    }

    pub(super) fn record_count(&self) -> u32 {
        self.builder.record_count()
    }

    pub(super) fn batch_bytes(&self) -> usize {
        self.builder.batch_bytes()
    }

    pub(super) fn seal(self) -> SealedBatch {
        SealedBatch {
            record_count: self.builder.record_count(),
            bytes: self.builder.finish(),
            first_sequence: self.first_sequence,
            refused: None,
            renamed: false,
            uncertain: false,
        }
    }
}

impl BatchLimits {
    /// The limits asked for, cut to what the protocol takes.
    pub(super) fn within_protocol(bytes: usize, records: u32, linger: Duration) -> Self {
        Self {
            bytes: bytes.clamp(1, limits::BATCH_BYTES_MAX),
            records: records.clamp(1, limits::BATCH_RECORDS_MAX),
            linger,
        }
    }
}

impl Message<'_> {
    /// Whether it can be sent: its parts keep within their limits, and key and tag are text that can be asked for.
    pub fn check(&self) -> Result<(), RecordError> {
        record(self).map(|_| ())
    }

    /// A batch of this message alone, for requests that carry one: a [`Produce`](crate::api::Produce), or a
    /// [`Hold`](crate::api::Hold). `queue` is not part of it.
    pub fn to_batch(&self, born: Timestamp) -> Result<Bytes, RecordError> {
        let record = record(self)?;
        let mut builder = BatchBuilder::new(self.born(born));
        builder.push(&record);
        Ok(builder.finish().into())
    }
}

impl Message<'_> {
    /// When it was made, unless it is a copy: now.
    pub(super) fn born(&self, now: Timestamp) -> Timestamp {
        self.original.map_or(now, |original| original.born_time)
    }
}

/// The record of a message, checked.
pub(super) fn record<'a>(message: &Message<'a>) -> Result<Record<'a>, RecordError> {
    let record = Record {
        key: message.key,
        tag: message.tag,
        properties: message.properties,
        body: message.body,
        born_delta_ms: 0,
        attributes: message.original.map(|original| original.attributes).unwrap_or_default(),
        origin: message.original.and_then(|original| original.origin),
    };
    record.check()?;
    record.check_text()?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::batch::CheckedBatch;

    fn now() -> Now {
        Now { monotonic: Instant::now(), wall: Timestamp(1_000) }
    }

    #[test]
    fn a_key_stays_on_its_queue_and_others_take_turns_by_batch() {
        let mut partitioner = Partitioner::new(4, QueueNumber(7));
        let keyed = Message { key: b"customer 1", ..Message::default() };
        let queue = partitioner.queue_of(&keyed);
        assert_eq!(queue.0, crc32c::crc32c(b"customer 1") % 4);
        let plain = Message::default();
        assert_eq!(partitioner.queue_of(&plain), QueueNumber(3));
        assert_eq!(partitioner.queue_of(&plain), QueueNumber(3), "the queue stays within a batch");
        partitioner.batch_filled(QueueNumber(1));
        assert_eq!(partitioner.queue_of(&plain), QueueNumber(3), "another queue's batch does not pass it on");
        partitioner.batch_filled(QueueNumber(3));
        assert_eq!(partitioner.queue_of(&plain), QueueNumber(0));
        assert_eq!(partitioner.queue_of(&keyed), queue);
        assert_eq!(partitioner.queue_of(&Message { queue: Some(QueueNumber(2)), ..keyed }), QueueNumber(2));
    }

    #[test]
    fn keys_spread_over_all_queues() {
        let partitioner = Partitioner::new(16, QueueNumber(0));
        let mut counts = [0_u32; 16];
        for key in 0..16_000_u32 {
            counts[partitioner.by_key(key.to_string().as_bytes()).0 as usize] += 1;
        }
        assert!(counts.iter().all(|count| (700..1300).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_batch_ends_at_its_limits_and_keeps_times_of_birth() {
        let limits = BatchLimits::within_protocol(1_000, 3, Duration::ZERO);
        let mut batch = OpenBatch::new(b"rubbish".to_vec(), 9, now().wall);
        let small = record(&Message { body: b"x", ..Message::default() }).expect("a small message");
        for (count, born) in [(1, 1_000), (2, 990), (3, 1_020)] {
            assert!(!batch.is_full(&limits) && batch.takes(&small, Timestamp(born), &limits));
            batch.push(&small, Timestamp(born));
            assert_eq!(batch.record_count(), count);
        }
        assert!(batch.is_full(&limits));
        let sealed = batch.seal();
        assert_eq!((sealed.first_sequence, sealed.record_count), (9, 3));
        let checked = CheckedBatch::check(&sealed.bytes).expect("well formed");
        assert_eq!(checked.records().map(|record| record.born_delta_ms()).collect::<Vec<_>>(), [0, -10, 20]);
    }

    #[test]
    fn a_large_message_makes_a_batch_of_its_own() {
        let limits = BatchLimits::within_protocol(1_000, 100, Duration::ZERO);
        let large = record(&Message { body: &[0; 5_000], ..Message::default() }).expect("a legal message");
        let small = record(&Message { body: b"x", ..Message::default() }).expect("a small message");
        let mut batch = OpenBatch::new(Vec::new(), 0, now().wall);
        assert!(batch.takes(&large, Timestamp(0), &limits));
        batch.push(&large, Timestamp(0));
        assert!(batch.is_full(&limits));
        let mut batch = OpenBatch::new(Vec::new(), 0, now().wall);
        batch.push(&small, Timestamp(0));
        assert!(!batch.takes(&large, Timestamp(0), &limits));
    }

    #[test]
    fn a_copy_that_is_much_older_makes_a_batch_of_its_own() {
        let limits = BatchLimits::within_protocol(1_000, 100, Duration::ZERO);
        let record = record(&Message { body: b"x", ..Message::default() }).expect("a small message");
        let (now, longest) = (Timestamp(1_700_000_000_000), i32::MAX as u64);
        let mut batch = OpenBatch::new(Vec::new(), 0, now);
        batch.push(&record, now);
        assert!(batch.takes(&record, Timestamp(now.0 - longest), &limits));
        assert!(batch.takes(&record, Timestamp(now.0 + longest), &limits));
        for far in [0, now.0 - longest - 2, now.0 + longest + 1, u64::MAX] {
            assert!(!batch.takes(&record, Timestamp(far), &limits), "{far}");
        }
    }

    #[test]
    fn a_copy_keeps_what_it_is_a_copy_of() {
        let origin = Origin::new(7, 3, "10.1.2.3:4000".parse().expect("an address"));
        let attributes = Attributes { encoding: crate::wire::origin::BodyEncoding::Zlib, committed: true };
        let original = Some(Original { born_time: Timestamp(5), attributes, origin: Some(origin) });
        let message = Message { body: b"x", original, ..Message::default() };
        let bytes = message.to_batch(now().wall).expect("a small message");
        let batch = CheckedBatch::check_incoming(&bytes).expect("well formed");
        let record = batch.records().next().expect("one message");
        assert_eq!((record.attributes(), record.origin()), (attributes, Some(origin)));
    }

    #[test]
    fn a_message_that_is_too_large_is_refused() {
        let body = vec![0; limits::BODY_BYTES_MAX + 1];
        assert!(record(&Message { body: &body, ..Message::default() }).is_err());
        assert!(record(&Message { body: &body[1..], ..Message::default() }).is_ok());
    }
}
