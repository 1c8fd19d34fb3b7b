//! Messages that are stored before they may be seen: delayed ones, and the halves of transactions.

use std::time::Duration;

use bytes::Bytes;

use crate::types::{
    GroupName, HalfReceipt, Level, LogPosition, QueueKey, QueueNumber, QueueOffset, ShardId, Timestamp,
    TopicName,
};

/// Store one batch of one message out of consumers' sight. `batch` is as in [`Produce`](super::Produce).
#[derive(Clone, Debug)]
pub struct Hold<B = Bytes> {
    /// The queue that gets the message when it is released.
    pub key: QueueKey,
    /// `None`: the topic's level, or the node's.
    pub level: Option<Level>,
    /// One record.
    pub batch: B,
    pub release: Release,
}

/// What brings a held message into its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// This moment; one that has passed releases at once.
    At(Timestamp),
    /// The moment that comes after this time, by the broker's clock.
    After(Duration),
    /// The producer's commit.
    Commit {
        /// The group that is asked for a decision; `None`: whoever asks for the topic's undecided messages.
        producer_group: Option<GroupName>,
        /// How long the producer has before it is asked.
        immunity: Duration,
    },
}

/// A held message that was stored. `level` is the one that was reached when this was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub receipt: HalfReceipt,
    pub position: LogPosition,
    pub store_time: Timestamp,
    pub level: Level,
    /// When a delayed message is released. `None` from a broker that does not say it.
    pub due: Option<Timestamp>,
    /// Where it is in its queue, when it was due already.
    pub offset: Option<QueueOffset>,
}

/// A producer's decision on a half message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndTransaction {
    pub receipt: HalfReceipt,
    /// Refused when the half message names another one.
    pub producer_group: Option<GroupName>,
    pub decision: Decision,
}

/// An undecided half message that was looked up by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundHalf {
    pub receipt: HalfReceipt,
    pub producer_group: Option<GroupName>,
    /// Its producer has said how long it needs for a decision of its own, and that time is over: it counts when it is asked.
    pub awaits_check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The message enters its queue.
    Commit,
    /// It is gone.
    Rollback,
}

/// Hand out half messages whose producer has not decided within its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveHalves {
    pub topic: TopicName,
    pub producer_group: GroupName,
    /// 1 to `limits::RECEIVE_MESSAGES_MAX`.
    pub count: u32,
    /// How long to wait when there is none.
    pub wait: Duration,
}

/// A half message on its way to a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalfMessage {
    pub receipt: HalfReceipt,
    /// The record as stored, see `wire::record`.
    pub record: Bytes,
    pub born_time: Timestamp,
    pub store_time: Timestamp,
    pub first_check: Timestamp,
    /// It is handed out again then.
    pub next_check: Timestamp,
    /// How often it was handed out, this time included.
    pub checks: u32,
}

/// Messages of a topic that wait for their time, as one shard has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListDelayed {
    pub topic: TopicName,
    pub shard: ShardId,
    /// Where an earlier answer says to go on; `None`: at the beginning.
    pub from: Option<DelayedPlace>,
}

/// A place among the messages that wait for their time. Means something to its shard alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayedPlace {
    pub bucket: u32,
    pub offset: u64,
}

/// The answer: some of them, those of about the same time together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DelayedMessages {
    pub messages: Vec<DelayedMessage>,
    /// Where to go on; `None`: these were the last ones.
    pub next: Option<DelayedPlace>,
}

/// A message that waits for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayedMessage {
    /// The queue that gets it.
    pub key: QueueKey,
    /// Where it is stored now.
    pub position: LogPosition,
    pub due: Timestamp,
    pub record: Bytes,
    pub born_time: Timestamp,
    pub store_time: Timestamp,
}

/// Take a delayed message back before its time, as [`DelayedMessages`] names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallDelayed {
    pub topic: TopicName,
    /// The queue that would get it.
    pub queue: QueueNumber,
    pub position: LogPosition,
    pub due: Timestamp,
}
