//! Finding stored messages by what they carry.

use bytes::Bytes;

use crate::types::{LogPosition, QueueKey, QueueOffset, RecordLocation, ShardId, Timestamp, TopicName};

/// Look a message up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindMessages {
    /// By one of its keys (RocketMQ's `KEYS`, separated by blanks), or by its unique id (`UNIQ_KEY`); the newest first.
    Key {
        topic: TopicName,
        /// One key, or several, separated by blanks: a message must have all of them.
        key: String,
        /// 1 to `limits::FIND_MESSAGES_MAX`.
        count: u32,
        from: Timestamp,
        to: Timestamp,
        /// Only what is stored before these locations, one for each shard in their order: [`Found::next`] of the look-up that
        /// this one goes on after. Empty: from the newest message on.
        before: Vec<RecordLocation>,
    },
    /// By its location, as an offset message id gives it.
    Position {
        shard: ShardId,
        position: LogPosition,
        /// Of the record in its batch.
        index: u16,
    },
}

/// The answer to a look-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub messages: Vec<FoundMessage>,
    /// Whether these are all, and everything that is stored was looked through. Not so while the key index is being built
    /// again, and when there is a `next`.
    pub complete: bool,
    /// Where to go on, when there may be more: too many messages had the key, or they did not fit one answer.
    pub next: Vec<RecordLocation>,
}

/// A message that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMessage {
    pub topic: TopicName,
    pub key: QueueKey,
    pub offset: QueueOffset,
    pub shard: ShardId,
    pub position: LogPosition,
    pub index: u16,
    pub record: Bytes,
    pub born_time: Timestamp,
    pub store_time: Timestamp,
}
