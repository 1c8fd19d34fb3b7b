//! Numbers that name shards, topics and queues.

use std::fmt;

/// A shard of this node: its durable identity, whichever core runs it today. Dense from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A node: 128 bits that come with its data directory, so that two brokers behind the same address are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub u128);

/// Who listens at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub node: NodeId,
    pub shard: ShardId,
}

/// The number a topic got when it was created. Never used again after the topic is deleted, so that the batches of a
/// deleted topic can not come back under a new one of the same name. Zero names no topic: the broker's own records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u32);

/// The number of a queue within its topic, over the whole node, dense from 0. Queue `q` of every topic lives on shard
/// `q % shard_count`, and `shard_count` never changes in the life of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueNumber(pub u32);

/// One queue of one topic: the unit of order and of shard ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey {
    pub topic: TopicId,
    pub queue: QueueNumber,
}

impl TopicId {
    /// The topic of the broker's own records (offset commits, configuration).
    pub const BROKER: TopicId = TopicId(0);
    /// The topic of the hidden queues of delayed messages. No topic gets so high a number.
    pub const DELAYED: TopicId = TopicId(u32::MAX);
}

impl QueueNumber {
    /// The shard that owns this queue on a node of `shard_count` shards.
    pub fn shard(self, shard_count: u16) -> ShardId {
        assert!(shard_count > 0, "a node has at least one shard");
        ShardId((self.0 % u32::from(shard_count)) as u16)
    }

    /// The queue of a sharding key, among those of its topic: the same whoever chooses it, so that messages of one key keep
    /// their order.
    pub fn of_key(key: &[u8], queue_count: u32) -> QueueNumber {
        assert!(queue_count > 0, "a topic has at least one queue");
        QueueNumber(crc32c::crc32c(key) % queue_count)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "shard {} of node {}", self.shard, self.node)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for QueueNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for QueueKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "topic {} queue {}", self.topic, self.queue)
    }
}
