//! Replies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::dead_letters::{RedriveReport, RedrivenRanges};
use super::filter::Filter;
use super::find::Found;
use super::hold::{DelayedMessages, HalfMessage, Held};
use super::purge::PurgeReport;
use super::readers::ReaderInfo;
use super::receive::{GroupSettings, GroupTerms, ReceiptOutcome, ReceivedMessage, ReceiverInfo};
use super::settings::SettingInfo;
use super::slow::{LatencyInfo, SlowRequest};
use super::stats::{GroupStats, StatsPage, TopicStats};
use crate::types::{
    GroupName, InstanceName, Level, LogPosition, NodeId, QueueKey, QueueNumber, QueueOffset, Receipt,
    RecordLocation, Retention, ShardId, Timestamp, TopicId, TopicName,
};

/// What a request that was carried out returns.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Produced(Produced),
    Fetched(Fetched),
    /// The queues of a watch that would answer a fetch at once.
    Watched(Vec<QueueKey>),
    OffsetFound(QueueOffset),
    Topic(TopicInfo),
    Topics(Vec<TopicInfo>),
    Route(RouteInfo),
    Offset(Option<QueueOffset>),
    Assignment(Assignment),
    Group(GroupInfo),
    Groups(Vec<GroupName>),
    Received(Vec<ReceivedMessage>),
    /// In the order of the receipts.
    Acknowledged(Vec<ReceiptOutcome>),
    /// The receipt that counts from now on.
    LeaseChanged(Receipt),
    GroupSettings(GroupSettings),
    Held(Held),
    Halves(Vec<HalfMessage>),
    Found(Found),
    GroupTerms(GroupTerms),
    Purged(PurgeReport),
    Delayed(DelayedMessages),
    Redriven(RedriveReport),
    RedrivenRanges(RedrivenRanges),
    Instances(Vec<InstanceInfo>),
    Node(NodeInfo),
    TopicStats(StatsPage<TopicStats, TopicName>),
    GroupStats(StatsPage<GroupStats, GroupName>),
    Settings(Vec<SettingInfo>),
    /// The slowest first.
    Slow(Vec<SlowRequest>),
    Latency(LatencyInfo),
    Done,
}

/// A stored batch. `level` is the one that was reached when this was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    pub base_offset: QueueOffset,
    pub position: LogPosition,
    pub store_time: Timestamp,
    pub level: Level,
}

/// One stored message. `level` is the one that was reached when this was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub offset: QueueOffset,
    /// It may share its batch with others.
    pub location: RecordLocation,
    pub store_time: Timestamp,
    pub level: Level,
}

/// Stored batches, each at a multiple of 8 from the start of `batches`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub batches: Vec<u8>,
    /// Where to go on.
    pub next_offset: QueueOffset,
    /// The queue's bounds when this was answered.
    pub first_offset: QueueOffset,
    pub end_offset: QueueOffset,
    /// Set when the messages from the asked offset up to `next_offset` cannot be read; `batches` is empty then.
    pub damaged: Option<DamagedBytes>,
}

/// Where stored bytes no longer match their checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBytes {
    pub file: String,
    /// Byte position in the file of the batch that is damaged.
    pub position: u64,
}

/// A queue's shard and bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    pub queue: QueueNumber,
    pub shard: ShardId,
    pub first_offset: QueueOffset,
    pub end_offset: QueueOffset,
}

/// A topic. `queues` and `consumers` are filled in by `DescribeTopic` only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    pub topic: TopicName,
    pub id: TopicId,
    pub queue_count: u32,
    pub retention: Retention,
    pub level: Option<Level>,
    /// RocketMQ's bits: 4 to read, 2 to write.
    pub permission: u8,
    pub queues: Vec<QueueInfo>,
    /// `None` as well for those who may not know of consumers.
    pub consumers: Option<TopicConsumers>,
}

/// The groups that have a place in a topic or consume it now, by name, and who does so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicConsumers {
    pub groups: Vec<TopicGroup>,
    /// Groups, receivers and readers for which the answer had no room.
    pub left_out: u32,
}

/// One of them. All lists are empty while nobody consumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicGroup {
    pub group: GroupName,
    /// Those who own queues and name the topic.
    pub members: u32,
    pub receivers: Vec<ReceiverInfo>,
    /// With what they subscribe to of this topic.
    pub readers: Vec<ReaderInfo>,
}

/// The shards in the order of their ids, and the topic asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    pub shards: Vec<ShardAddress>,
    pub topic: Option<TopicInfo>,
    /// Who is to answer at these addresses; `None` from a broker that does not say it.
    pub node: Option<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardAddress {
    pub shard: ShardId,
    /// `host:port`.
    pub address: String,
}

/// The queues of one member. While not `settled`, some queue is still held by a former owner, or another member may be
/// gone: ask again soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub generation: u64,
    pub queues: Vec<QueueKey>,
    pub settled: bool,
    /// What the member says with its fetches; no two sessions of a node have the same. Zero from a broker that does not
    /// look at it.
    pub session: u64,
}

/// The name of a group's receivers among its members.
pub const RECEIVERS: &str = "%receive";

/// The counter of a shard's clients of RocketMQ's that say what they consume or produce as: over all shards, each is counted once.
pub const READER_CLIENTS: &str = "reader_clients";

/// All about a consumer group, whichever way it consumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    pub group: GroupName,
    pub generation: u64,
    /// Those who own queues; those who receive are together one of them, see [`RECEIVERS`].
    pub members: Vec<MemberInfo>,
    pub receivers: Vec<ReceiverInfo>,
    /// `None`: everything is as the node has it.
    pub settings: Option<GroupSettings>,
    pub queues: Vec<GroupQueueInfo>,
    /// Why it gets nothing new, for each shard where that is so.
    pub refused: Vec<String>,
    /// Those who divide its queues by themselves, or get every message.
    pub readers: Vec<ReaderInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    pub member: String,
    pub topics: Vec<TopicName>,
    pub queues: Vec<QueueKey>,
    pub heartbeat_age: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupQueueInfo {
    pub topic: TopicName,
    pub queue: QueueNumber,
    pub committed: Option<QueueOffset>,
    pub end_offset: QueueOffset,
    /// What the group has not dealt with: messages after its offset, or all there are when it has none, and those that
    /// are leased or wait. RocketMQ's lag of a POP group is the same, its ready messages without those that are leased.
    pub lag: u64,
    pub member: Option<String>,
    /// Messages delivered to receivers, not acknowledged, and within their lease: RocketMQ's in-flight ones.
    pub leased: u64,
    /// Messages delivered and not acknowledged whose lease has ended: they are delivered again.
    pub waiting: u64,
    /// Messages of this queue that went to the group's dead letters; they are no lag.
    pub dead_letters: u64,
}

impl GroupInfo {
    /// The topics of which consumers of the group ask for different messages, and what they ask for. RocketMQ calls for
    /// one subscription in all of a group (its documentation's "subscription consistency"): a queue has one offset for the
    /// group, so what one filter leaves out is passed over for everybody. `receivers` is the name of the receivers among
    /// the members; the other members ask for everything.
    pub fn inconsistent_topics(&self, receivers: &str) -> BTreeMap<TopicName, BTreeSet<Filter>> {
        let mut filters: BTreeMap<TopicName, BTreeSet<Filter>> = BTreeMap::new();
        for receiver in &self.receivers {
            filters.entry(receiver.topic.clone()).or_default().insert(receiver.filter.clone());
        }
        let members = self.members.iter().filter(|member| member.member != receivers);
        for topic in members.flat_map(|member| &member.topics) {
            filters.entry(topic.clone()).or_default().insert(Filter::default());
        }
        filters.retain(|_, filters| filters.len() > 1);
        filters
    }
}

/// An instance, a name space of topics and groups. No name is that of the default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceInfo {
    pub instance: Option<InstanceName>,
    /// Dead letters included.
    pub topic_count: u32,
    pub group_count: u32,
}

/// Counters and latencies of the whole node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeInfo {
    pub version: String,
    /// `None` from a broker that does not say it.
    pub node: Option<NodeId>,
    pub level: Level,
    pub resident_bytes: u64,
    pub shards: Vec<ShardInfo>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ShardInfo {
    pub shard: ShardId,
    /// The core it is pinned to.
    pub core: Option<u32>,
    /// Empty, or why the shard does not take messages.
    pub state: String,
    pub counters: Vec<(String, u64)>,
    pub histograms: Vec<HistogramInfo>,
    /// What goes in and out in a second; empty from a broker that does not say it.
    pub rates: Vec<RateInfo>,
}

/// How much of something there was in a second, each over the stretch of time up to now that it names, or over what there has
/// been of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RateInfo {
    /// `messages_in`, `bytes_in`, `messages_out` or `bytes_out`.
    pub name: String,
    pub ten_seconds: f64,
    pub minute: f64,
    pub ten_minutes: f64,
}

/// A latency distribution, nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramInfo {
    pub stage: String,
    pub count: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p99_9_ns: u64,
    pub p99_99_ns: u64,
    pub max_ns: u64,
}
