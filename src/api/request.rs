//! Requests.

use std::time::Duration;

use bytes::Bytes;

use super::dead_letters::Redrive;
use super::find::FindMessages;
use super::hold::{EndTransaction, Hold, ListDelayed, RecallDelayed, ReceiveHalves};
use super::purge::PurgeTopic;
use super::receive::{Acknowledge, ChangeLease, GroupSettings, Receive, SetUpGroup};
use super::settings::SettingChange;
use super::slow::{ListSlow, MeasureLatency, RequestSubject};
use super::stats::StatsAsked;
use crate::types::{
    GroupName, InstanceName, Level, QueueKey, QueueNumber, QueueOffset, Retention, ShardId, Timestamp,
    TopicName,
};

/// A request of any protocol. Its fields are well formed; whether what they name exists is the broker's to say.
#[derive(Clone, Debug)]
pub enum Request {
    Produce(Produce),
    ProduceCopies(ProduceCopies),
    Fetch(Fetch),
    Watch(Watch),
    FindOffset {
        key: QueueKey,
        spec: OffsetSpec,
    },
    CreateTopic(TopicChange),
    /// `None` fields stay as they are.
    AlterTopic(TopicChange),
    DeleteTopic(TopicName),
    DescribeTopic(TopicName),
    ListTopics,
    Route(Option<TopicName>),
    /// The route of a topic that is to be written to. Where the node makes topics by first use, this is the first use.
    OpenTopic(TopicName),
    CommitOffset(CommitOffset),
    CommittedOffset {
        group: GroupName,
        key: QueueKey,
    },
    JoinGroup(JoinGroup),
    LeaveGroup {
        group: GroupName,
        member: String,
    },
    ListGroups,
    DescribeGroup(GroupName),
    /// Refused while it has members or receivers.
    DeleteGroup(GroupName),
    ResetGroup(ResetGroup),
    Receive(Receive),
    Acknowledge(Acknowledge),
    ChangeLease(ChangeLease),
    /// `None` fields stay as they are; a group that is not known is made.
    AlterGroup(GroupSettings),
    Hold(Hold),
    EndTransaction(EndTransaction),
    ReceiveHalves(ReceiveHalves),
    FindMessages(FindMessages),
    /// RocketMQ's bits: 4 to read, 2 to write.
    PermitTopic {
        topic: TopicName,
        permission: u8,
    },
    PurgeTopic(PurgeTopic),
    SetUpGroup(SetUpGroup),
    ListDelayed(ListDelayed),
    RecallDelayed(RecallDelayed),
    Redrive(Redrive),
    /// Which messages of a queue of the group's dead letters are none any more, from an offset on.
    RedrivenRanges {
        group: GroupName,
        queue: QueueNumber,
        from: QueueOffset,
    },
    CreateInstance(InstanceName),
    /// Refused while it has topics.
    DeleteInstance(InstanceName),
    ListInstances,
    DescribeNode {
        count_syscalls: bool,
    },
    TopicStats(StatsAsked<TopicName>),
    GroupStats(StatsAsked<GroupName>),
    /// Change these, all or none, and say how all are then; none: say how they are.
    Settings(Vec<SettingChange>),
    ListSlow(ListSlow),
    MeasureLatency(MeasureLatency),
}

impl Request {
    /// What it is about, for whoever looks where its time went.
    pub fn subject(&self) -> RequestSubject {
        let of_queue = |kind, key| RequestSubject::of_queue(kind, key, None);
        match self {
            Request::Produce(produce) => of_queue("produce", produce.key),
            Request::ProduceCopies(copies) => of_queue("produce", copies.produce.key),
            Request::Fetch(fetch) => RequestSubject::of_queue("fetch", fetch.key, Some(fetch.offset)),
            Request::Watch(_) => RequestSubject::of("watch"),
            Request::FindOffset { key, .. } => of_queue("find-offset", *key),
            Request::CreateTopic(change) => RequestSubject::of_topic("create-topic", &change.topic),
            Request::AlterTopic(change) => RequestSubject::of_topic("alter-topic", &change.topic),
            Request::DeleteTopic(topic) => RequestSubject::of_topic("delete-topic", topic),
            Request::DescribeTopic(topic) => RequestSubject::of_topic("describe-topic", topic),
            Request::ListTopics => RequestSubject::of("list-topics"),
            Request::Route(Some(topic)) => RequestSubject::of_topic("route", topic),
            Request::Route(None) => RequestSubject::of("route"),
            Request::OpenTopic(topic) => RequestSubject::of_topic("open-topic", topic),
            Request::CommitOffset(commit) => {
                RequestSubject::of_queue("commit-offset", commit.key, Some(commit.offset))
            }
            Request::CommittedOffset { key, .. } => of_queue("committed-offset", *key),
            Request::JoinGroup(_) => RequestSubject::of("join-group"),
            Request::LeaveGroup { .. } => RequestSubject::of("leave-group"),
            Request::ListGroups => RequestSubject::of("list-groups"),
            Request::DescribeGroup(_) => RequestSubject::of("describe-group"),
            Request::DeleteGroup(_) => RequestSubject::of("delete-group"),
            Request::ResetGroup(reset) => RequestSubject::of_topic("reset-group", &reset.topic),
            Request::Receive(receive) => RequestSubject::of_topic("receive", &receive.topic),
            Request::Acknowledge(acknowledge) => match acknowledge.receipts.first() {
                Some(receipt) => of_queue("acknowledge", receipt.key),
                None => RequestSubject::of("acknowledge"),
            },
            Request::ChangeLease(change) => of_queue("change-lease", change.receipt.key),
            Request::AlterGroup(_) => RequestSubject::of("alter-group"),
            Request::Hold(hold) => of_queue("hold", hold.key),
            Request::EndTransaction(end) => of_queue("end-transaction", end.receipt.key),
            Request::ReceiveHalves(receive) => RequestSubject::of_topic("receive-halves", &receive.topic),
            Request::FindMessages(_) => RequestSubject::of("find-messages"),
            Request::CreateInstance(_) => RequestSubject::of("create-instance"),
            Request::DeleteInstance(_) => RequestSubject::of("delete-instance"),
            Request::ListInstances => RequestSubject::of("list-instances"),
            Request::DescribeNode { .. } => RequestSubject::of("describe-node"),
            Request::TopicStats(_) => RequestSubject::of("topic-stats"),
            Request::GroupStats(_) => RequestSubject::of("group-stats"),
            Request::Settings(_) => RequestSubject::of("settings"),
            Request::Redrive(redrive) => RequestSubject::of_topic("redrive", &redrive.to),
            Request::PermitTopic { topic, .. } => RequestSubject::of_topic("permit-topic", topic),
            Request::PurgeTopic(purge) => RequestSubject::of_topic("purge-topic", &purge.topic),
            Request::SetUpGroup(_) => RequestSubject::of("set-up-group"),
            Request::ListDelayed(list) => RequestSubject::of_topic("list-delayed", &list.topic),
            Request::RecallDelayed(recall) => RequestSubject::of_topic("recall-delayed", &recall.topic),
            Request::RedrivenRanges { .. } => RequestSubject::of("list-redriven"),
            Request::ListSlow(_) => RequestSubject::of("list-slow"),
            Request::MeasureLatency(measure) => RequestSubject::of_topic("measure-latency", &measure.topic),
        }
    }
}

/// Append one batch to one queue. `batch` is as `wire::batch` describes it: bytes that are not yet checked, unless `B` says
/// that they are.
#[derive(Clone, Debug)]
pub struct Produce<B = Bytes> {
    pub key: QueueKey,
    /// `None`: the topic's level, or the node's.
    pub level: Option<Level>,
    pub batch: B,
}

/// Append one batch of copies of stored messages to one queue: as [`Produce`], but that their properties are taken as they are,
/// whatever names they have.
#[derive(Clone, Debug)]
pub struct ProduceCopies<B = Bytes> {
    pub produce: Produce<B>,
    /// The offset that the first message must get, or nothing is stored
    /// ([`OffsetOutOfRange`](super::Status::OffsetOutOfRange)). Whoever sends such a batch again stores nothing twice.
    pub at: Option<QueueOffset>,
}

/// Batches of one queue from the one that holds `offset` on. At least one batch is returned when there is one,
/// whatever the limits say.
#[derive(Clone, Copy, Debug)]
pub struct Fetch {
    pub key: QueueKey,
    pub offset: QueueOffset,
    pub bytes_max: u32,
    pub records_max: u32,
    /// Of the member of a group that reads, see [`Assignment`](super::Assignment): refused once the queue is not the
    /// session's any more. Zero: nobody's.
    pub session: u64,
    /// How long to wait for a batch when there is none at `offset`.
    pub wait: Duration,
}

/// Which of many queues of one shard would answer a fetch at once. For a reader of more queues than fetches may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// 1 to `limits::WATCH_QUEUES_MAX`, with the offset from which each is to be read.
    pub queues: Vec<(QueueKey, QueueOffset)>,
    /// How long to wait for the first when there is none.
    pub wait: Duration,
}

/// What is to be translated into an offset of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The oldest message that is still there.
    First,
    /// The end of the queue, after the newest message.
    Last,
    /// The first message stored at this time or later; the queue's end when there is none.
    Time(Timestamp),
    /// The first message stored this long ago or later, by the broker's clock; the queue's end when there is none.
    Ago(Duration),
}

impl OffsetSpec {
    /// As a point in time, where it is counted back from `now`; otherwise unchanged.
    pub fn fixed(self, now: Timestamp) -> Self {
        match self {
            OffsetSpec::Ago(span) => {
                let milliseconds = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
                OffsetSpec::Time(Timestamp(now.0.saturating_sub(milliseconds)))
            }
            spec => spec,
        }
    }
}

/// Where a group's reset moves its committed offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTarget {
    /// In every queue of the topic.
    Every(OffsetSpec),
    /// In one queue of the topic.
    Offset(QueueNumber, QueueOffset),
}

/// Creation or change of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicChange {
    pub topic: TopicName,
    /// Queues over the whole node.
    pub queues: Option<u32>,
    /// `None` on creation: inherited.
    pub retention: Option<Retention>,
    /// Level of produce requests that name none; `None` on creation: the node's.
    pub level: Option<Level>,
}

/// Store a group's offset in one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffset {
    pub group: GroupName,
    pub key: QueueKey,
    pub offset: QueueOffset,
    /// Set by members: refused once the queue has gone to another. `None`: the sender answers for it.
    pub member: Option<ActingMember>,
}

/// A member of a group that acts for it, and the newest generation of whose assignment it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActingMember {
    pub member: String,
    pub generation: u64,
}

/// A member joins its group or confirms that it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGroup {
    pub group: GroupName,
    /// Chosen by the client, unique in the group.
    pub member: String,
    pub topics: Vec<TopicName>,
    pub session_timeout: Duration,
    /// The last generation whose assignment the member has carried out; 0 at first.
    pub generation: u64,
    /// Whether the session ends with the connection.
    pub life: SessionLife,
}

/// What ends a member's session beside its time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionLife {
    /// Nothing.
    Timed,
    /// The end of the connection over which the member has joined last, unless it joins again soon after. Whoever takes the
    /// request says which connection that is.
    Connected(Option<ConnectionId>),
}

/// A connection of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    pub shard: ShardId,
    pub number: u64,
}

/// Move a group's committed offsets on one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetGroup {
    pub group: GroupName,
    pub topic: TopicName,
    pub target: ResetTarget,
}
