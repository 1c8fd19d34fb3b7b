//! What one shard has counted and holds, as whoever watches a node reads it.

use std::time::Duration;

use crate::types::{GroupName, ShardId, TopicName};

/// One shard in one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardReading {
    pub shard: ShardId,
    /// The core that it is pinned to.
    pub core: Option<u32>,
    /// Whether it takes messages.
    pub is_serving: bool,
    /// Counters and levels by their names, as `status` has them.
    pub counters: Vec<(String, u64)>,
    pub stages: Vec<StageReading>,
    pub disk: DiskReading,
    /// Bytes of the log that stand in memory and are not flushed yet.
    pub unflushed_bytes: u64,
    /// How long ago the oldest message of the log was stored; `None` when there is none.
    pub oldest_age: Option<Duration>,
    /// Topics that the shard knows of.
    pub topic_count: u64,
    /// Of topics in the order of their names, as many as metrics have room for.
    pub topics: Vec<TopicTally>,
    pub given: Vec<GroupTally>,
    /// Groups in the order of their names, as many as metrics have room for, and whether there are more.
    pub groups: Vec<GroupReading>,
    pub has_more_groups: bool,
    /// RocketMQ's own clients of the whole node, if this is the control shard.
    pub clients: Vec<ClientTally>,
}

/// Bounds of the sizes of messages, bytes: those of RocketMQ's metrics.
pub const MESSAGE_SIZE_BOUNDS: [u64; SPAN_BOUNDS] = [1 << 10, 4 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];
/// Bounds of the times that producers take to decide, seconds: likewise.
pub const DECISION_BOUNDS: [u64; SPAN_BOUNDS] = [5, 60, 600, 3_600, 43_200, 86_400];
/// Bounds of the times that messages are delayed, seconds: likewise.
pub const DELAY_BOUNDS: [u64; SPAN_BOUNDS] = [60, 600, 3_600, 43_200, 86_400, 259_200];
pub const SPAN_BOUNDS: usize = 6;

/// How many messages are of which size, by [`MESSAGE_SIZE_BOUNDS`], and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeCounts {
    pub counts: [u64; SPAN_BOUNDS + 1],
    pub bytes: u64,
}

/// Spans of time by bounds, and their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    pub counts: [u64; SPAN_BOUNDS + 1],
    pub seconds: u64,
}

/// What one shard has counted of a topic since its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTally {
    pub topic: TopicName,
    /// Messages that came into its queues.
    pub sizes: SizeCounts,
    pub committed: u64,
    pub rolled_back: u64,
    /// From a half message's coming to its producer's word, by [`DECISION_BOUNDS`].
    pub decided: Spans,
    /// Messages that were stored to wait for a time, and those whose time has come.
    pub delayed: u64,
    pub released: u64,
    /// For how long they were to wait, by [`DELAY_BOUNDS`].
    pub delays: Spans,
    /// Half messages that wait for a decision now.
    pub halves: u64,
    /// Messages that are there.
    pub messages: u64,
}

/// A group as one shard knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReading {
    pub group: GroupName,
    /// Those who own queues, if this is the control shard.
    pub members: u64,
    /// Receives that are under way through this shard.
    pub receives: u64,
    /// RocketMQ's own clients, if this is the control shard.
    pub readers: u64,
    /// How far it is in the shard's queues of each topic in which it has a place here.
    pub topics: Vec<(TopicName, LagReading)>,
}

/// How far a group is in some queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LagReading {
    /// Messages that it has not dealt with.
    pub lag: u64,
    /// Those of them that receivers have.
    pub leased: u64,
    /// How long ago the oldest of them was stored.
    pub oldest_unread_age: Option<Duration>,
}

impl LagReading {
    /// Adds those in other queues.
    pub fn add(&mut self, other: &LagReading) {
        self.lag += other.lag;
        self.leased += other.leased;
        self.oldest_unread_age = self.oldest_unread_age.max(other.oldest_unread_age);
    }
}

impl TopicTally {
    /// Adds what another shard has counted.
    pub fn add(&mut self, other: &TopicTally) {
        let add = |sum: &mut [u64], of: &[u64]| sum.iter_mut().zip(of).for_each(|(sum, of)| *sum += of);
        add(&mut self.sizes.counts, &other.sizes.counts);
        self.sizes.bytes += other.sizes.bytes;
        self.committed += other.committed;
        self.rolled_back += other.rolled_back;
        self.delayed += other.delayed;
        self.released += other.released;
        self.halves += other.halves;
        self.messages += other.messages;
        for (spans, of) in [(&mut self.decided, &other.decided), (&mut self.delays, &other.delays)] {
            add(&mut spans.counts, &of.counts);
            spans.seconds += of.seconds;
        }
    }
}

/// What one shard has counted of a group in a topic since its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTally {
    /// `None`: those who read for none.
    pub group: Option<GroupName>,
    pub topic: TopicName,
    /// What it was given, and given again, whichever way it consumes.
    pub messages: u64,
    pub bytes: u64,
    pub dead_letters: u64,
}

impl GroupTally {
    /// Adds what another shard has counted.
    pub fn add(&mut self, other: &GroupTally) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.dead_letters += other.dead_letters;
    }
}

/// So many of RocketMQ's clients are of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientTally {
    /// The group that they read for; `None`: they produce.
    pub group: Option<GroupName>,
    pub language: &'static str,
    /// As its protocol numbers releases.
    pub version: i32,
    /// How it gets messages, by its protocol's name for that; empty for producers.
    pub kind: &'static str,
    pub count: u64,
}

/// The distribution of one stage of requests: [`STAGE_BOUNDS`] are its bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct StageReading {
    pub stage: &'static str,
    /// One more than there are bounds: how many lie above the bound before, and not above the own one.
    pub counts: [u64; STAGE_BOUNDS + 1],
    pub sum_ns: u64,
}

/// Bounds of the buckets of stages: powers of two from 1 us to 16.8 s.
pub const STAGE_BOUNDS: usize = 25;

/// The disk that a shard's log lies on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskReading {
    pub total_bytes: u64,
    /// What others have on it counts as well.
    pub used_bytes: u64,
    /// What the broker's user may still use.
    pub available_bytes: u64,
}

/// The upper bound of a bucket, nanoseconds.
pub const fn stage_bound_ns(bucket: usize) -> u64 {
    1_000 << bucket
}
