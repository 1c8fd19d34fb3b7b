//! Messages as a consumer gets them: views into a received batch.

use std::borrow::Cow;

#[cfg(feature = "tokio")]
use bytes::Bytes;

use crate::api::DamagedBytes;
use crate::types::{QueueKey, QueueNumber, QueueOffset, RecordLocation, Timestamp, TopicName};
use crate::wire::batch::{BatchHeader, Records, stored_records};
use crate::wire::inflate::InflateError;
use crate::wire::origin::{Attributes, Origin};
use crate::wire::record::RecordView;

#[cfg(feature = "tokio")]
use super::leased::OwnedRecord;

/// A queue by the name of its topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName {
    /// The topic's name.
    pub topic: TopicName,
    /// The queue's number in its topic, from 0.
    pub queue: QueueNumber,
}

/// What a consumer hands out.
pub enum Delivery<'a> {
    /// Messages of one queue.
    Messages(MessageBatch<'a>),
    /// Messages that cannot be read any more. The consumer goes on after them.
    Damaged(DamagedRange),
    /// The queue no longer has, or not yet has, the offset that was to be read: the consumer went elsewhere.
    Moved {
        /// Where.
        queue: QueueName,
        /// What was to be read.
        from: QueueOffset,
        /// What is read instead.
        to: QueueOffset,
    },
    /// The group gave this consumer other queues. Those that are `revoked` are given up with the next poll: what was
    /// handled of them is to be committed before.
    Rebalanced {
        /// What is read from now on.
        assigned: Vec<QueueName>,
        /// What is read no longer.
        revoked: Vec<QueueName>,
    },
    /// Every queue was read to where it ended at the start; see [`Until::End`](super::Until::End).
    End,
}

/// Offsets from `from` up to `to` of a queue that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// Where.
    pub queue: QueueName,
    /// The first offset that cannot be read.
    pub from: QueueOffset,
    /// The first one after it that may be.
    pub to: QueueOffset,
    /// Where the broker found it; `None` when the bytes did not match their checksum on arrival.
    pub bytes: Option<DamagedBytes>,
}

/// Messages of one queue with offsets that follow one another.
pub struct MessageBatch<'a> {
    topic: &'a TopicName,
    header: BatchHeader,
    bytes: &'a [u8],
    first_offset: QueueOffset,
    end_offset: QueueOffset,
}

/// One message.
#[derive(Clone, Copy)]
pub struct ReceivedMessage<'a> {
    /// Its place in its queue.
    pub offset: QueueOffset,
    /// Where it is stored, in the log of its queue's shard.
    pub location: RecordLocation,
    /// When its producer made it, by the producer's clock.
    pub born_time: Timestamp,
    /// When the broker stored it.
    pub store_time: Timestamp,
    record: RecordView<'a>,
}

/// Iterator over the messages of a batch.
pub struct ReceivedMessages<'a> {
    records: Records<'a>,
    header: BatchHeader,
    offset: QueueOffset,
    end_offset: QueueOffset,
}

impl<'a> MessageBatch<'a> {
    /// A stored batch whose header was decoded and whose records were checked, cut to the offsets that were asked for.
    pub(super) fn new(
        topic: &'a TopicName,
        header: BatchHeader,
        bytes: &'a [u8],
        (first_offset, end_offset): (QueueOffset, QueueOffset),
    ) -> Self {
        assert!(header.base_offset <= first_offset && end_offset <= header.end_offset());
        Self { topic, header, bytes, first_offset, end_offset }
    }

    /// The topic of the queue.
    pub fn topic(&self) -> &'a TopicName {
        self.topic
    }

    /// The queue's number in its topic.
    pub fn queue(&self) -> QueueNumber {
        self.header.key.queue
    }

    /// The queue, with the number of its topic.
    pub fn key(&self) -> QueueKey {
        self.header.key
    }

    /// The offset of the first message.
    pub fn first_offset(&self) -> QueueOffset {
        self.first_offset
    }

    /// The offset after the last message.
    pub fn end_offset(&self) -> QueueOffset {
        self.end_offset
    }

    /// Messages in this batch, as far as they were asked for.
    pub fn message_count(&self) -> u64 {
        self.end_offset.0.saturating_sub(self.first_offset.0)
    }

    /// When the broker stored it.
    pub fn store_time(&self) -> Timestamp {
        self.header.store_time
    }

    /// Header and records as stored, with messages outside of the offsets asked for.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// These messages, in a copy of the batch's bytes.
    #[cfg(feature = "tokio")]
    pub(super) fn over<'b>(&'b self, bytes: &'b [u8]) -> MessageBatch<'b> {
        assert_eq!(bytes.len(), self.bytes.len(), "a copy of the batch");
        MessageBatch { bytes, ..*self }
    }

    /// The messages in the order of their offsets.
    pub fn messages(&self) -> ReceivedMessages<'a> {
        let mut records = stored_records(self.bytes);
        for _ in self.header.base_offset.0..self.first_offset.0 {
            records.next();
        }
        ReceivedMessages {
            records,
            header: self.header,
            offset: self.first_offset,
            end_offset: self.end_offset,
        }
    }
}

impl<'a> ReceivedMessage<'a> {
    /// The record as a part of `bytes`, in which it is.
    #[cfg(feature = "tokio")]
    pub(super) fn to_owned_record(self, bytes: &Bytes) -> OwnedRecord {
        OwnedRecord::checked(bytes.slice_ref(self.record.as_bytes()))
    }

    /// The message's keys, separated by blanks. Empty: none.
    pub fn key(&self) -> &'a [u8] {
        self.record.key()
    }

    /// Empty: none.
    pub fn tag(&self) -> &'a [u8] {
        self.record.tag()
    }

    /// RocketMQ's text form: name \x01 value \x02, repeated.
    pub fn properties(&self) -> &'a [u8] {
        self.record.properties()
    }

    /// The body as stored: as its producer compressed it, if it did. See [`plain_body`](Self::plain_body).
    pub fn body(&self) -> &'a [u8] {
        self.record.body()
    }

    /// The body as its producer had it before it was compressed; the same as [`body`](Self::body) for all that this library
    /// publishes. Fails when it is not what it says, or is larger than 4 MiB.
    pub fn plain_body(&self) -> Result<Cow<'a, [u8]>, InflateError> {
        self.record.plain_body()
    }

    /// How the body is stored, and whether the message was part of a transaction.
    pub fn attributes(&self) -> Attributes {
        self.record.attributes()
    }

    /// Where the message comes from, as RocketMQ's own protocol says it.
    pub fn origin(&self) -> Option<Origin> {
        self.record.origin()
    }
}

impl<'a> Iterator for ReceivedMessages<'a> {
    type Item = ReceivedMessage<'a>;

    fn next(&mut self) -> Option<ReceivedMessage<'a>> {
        if self.offset >= self.end_offset {
            return None;
        }
        let record = self.records.next()?;
        let offset = self.offset;
        self.offset = offset.advance(1);
        // A batch has no more records than an index counts: its header was decoded.
        let index = (offset.0 - self.header.base_offset.0) as u16;
        let born = self.header.born_time.0.saturating_add_signed(i64::from(record.born_delta_ms()));
        Some(ReceivedMessage {
            offset,
            location: RecordLocation { position: self.header.position, index },
            born_time: Timestamp(born),
            store_time: self.header.store_time,
            record,
        })
    }
}
