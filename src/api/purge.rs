//! Messages that go before their time.

use super::request::OffsetSpec;
use crate::types::{QueueNumber, QueueOffset, Timestamp, TopicName};

/// Let a topic begin later: its messages before a place are gone, for everybody and durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeTopic {
    pub topic: TopicName,
    /// What stays begins here. `Last`: nothing stays.
    pub before: OffsetSpec,
}

/// What a purge has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeReport {
    /// In the order of their numbers.
    pub queues: Vec<PurgedQueue>,
    /// One for each shard, in their order.
    pub shards: Vec<PurgedShard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgedQueue {
    pub queue: QueueNumber,
    /// Where it began before, and where it begins now.
    pub first_before: QueueOffset,
    pub first: QueueOffset,
}

/// What becomes of a shard's segments, which messages of all topics share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgedShard {
    /// Bytes of segments that hold no message any more: they go by themselves within seconds.
    pub free_bytes: u64,
    /// Bytes of those that stay, without the one that is being written.
    pub kept_bytes: u64,
    /// Whose message keeps the oldest of them, and since when it is stored; they go when it does.
    pub kept_by: Option<(TopicName, Timestamp)>,
}
