//! What one shard asks of another, and the seam through which it asks.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use super::find::FindHere;
use super::groups::GroupsInUse;
use super::groups::{GroupShape, SeenGroup, SeenReceivers};
use super::groups::{HolderCheck, QueueGrants};
use super::hold::ProducerCheck;
use super::readers::ReaderNews;
use super::receive::{Prospect, Received, RedriveArrival, SentRedrive};
use super::stats::{StatsReply, StatsRequest};
use super::topics::{Publication, TopicShape};
use crate::api::{
    ClientOutcome, ConnectionId, Failure, Found, FoundHalf, HalfMessage, Hold, LeaseInfo, ListSlow,
    OffsetSpec, Produce, QueueInfo, ReceiptOutcome, Receive, ReceiveHalves, Reply, ReplyOutcome, Request,
    SettingChange, SettingInfo, ShardAddress, ShardInfo, SlowRequest, Status, Stored,
};
use crate::metrics::{Measured, Measurement};
use crate::state::{Group, Topic};
use crate::types::{
    GroupName, InstanceName, QueueKey, QueueOffset, Receipt, RecordLocation, ShardId, TopicId, TopicName,
};
use crate::wire::batch::OwnedBatch;

/// A request from shard to shard.
#[derive(Clone, Debug)]
pub enum PeerRequest {
    /// A client's request that belongs to the shard asked.
    Client(Request),
    /// Such requests of clients whose batch was checked by the shard that took them; answered as those are.
    Produce {
        produce: Produce<OwnedBatch>,
        /// See [`ProduceCopies`](crate::api::ProduceCopies).
        at: Option<QueueOffset>,
    },
    Hold(Hold<OwnedBatch>),
    Publish(Publication),
    /// A topic is to be written to; told the control shard, which makes it with so many queues where it is not there.
    OpenTopic {
        topic: TopicName,
        queues: u32,
        /// The place of the network that has caused it.
        maker: IpAddr,
    },
    /// A client's doing there has caused this, which makes a topic of a group or gives it queues; told the control shard.
    GroupTopic {
        request: Request,
        maker: IpAddr,
    },
    /// Make a topic, or change it, as tools want it; told the control shard.
    ShapeTopic(TopicShape),
    /// Set up a group, likewise.
    ShapeGroup(GroupShape),
    /// Make this topic's configuration durable here.
    PutTopic(Topic),
    RemoveTopic(TopicId),
    /// At the start of a control shard that has lost some of its log.
    Tables,
    /// At start: have exactly these topics.
    SyncTopics {
        topics: Vec<Topic>,
        next_topic_id: TopicId,
        groups: Vec<Group>,
        instances: BTreeSet<InstanceName>,
    },
    /// Have exactly these groups' settings, or this one's.
    PutGroup(Group),
    /// Have exactly these instances.
    PutInstances(BTreeSet<InstanceName>),
    /// Lease messages of the asked shard's queues, without waiting.
    Receive(Receive),
    /// What is there to receive? And tell of the next arrival.
    WatchTopic {
        from: ShardId,
        receive: Receive,
    },
    Acknowledge {
        group: GroupName,
        receipts: Vec<Receipt>,
    },
    /// Nobody could be given what was leased here.
    GiveBack {
        group: GroupName,
        receipts: Vec<Receipt>,
    },
    GroupLeases(GroupName),
    /// Let receivers of the group take messages from these queues only.
    SetGates {
        group: GroupName,
        grants: QueueGrants,
    },
    /// Somebody receives for a group that has members; told the control shard.
    ReceiversSeen {
        group: GroupName,
        topic: TopicId,
    },
    GroupReceivers(GroupName),
    Readers(ReaderNews),
    QueueRanges(TopicId),
    /// Which groups have a place in a topic or receive from it.
    TopicGroups(TopicId),
    GroupOffsets(GroupName),
    GroupNames,
    /// Members of these groups had joined over this connection; told the control shard.
    ConnectionEnded {
        connection: ConnectionId,
        groups: Vec<GroupName>,
    },
    /// Forget a group, with its settings or without; `only_unused`: unless somebody uses it.
    RemoveGroup {
        group: GroupName,
        settings: bool,
        only_unused: bool,
    },
    /// Which groups have places or leases, and which were used since the last time that this was asked.
    GroupsInUse {
        interval: Duration,
    },
    /// Whether a member of a group may commit; asked of the control shard.
    CheckHolder(HolderCheck),
    ShardInfo {
        count_syscalls: bool,
    },
    /// Figures of topics and groups.
    Stats(StatsRequest),
    Time(TimeRequest),
    FindHere(FindHere),
    /// Let the messages of a topic on the shard asked go that lie before a place.
    Purge {
        topic: TopicId,
        before: OffsetSpec,
    },
    /// A dead letter of the asking shard is to come to a queue of the one asked.
    TakeRedriven(SentRedrive),
    Halves(HalvesRequest),
}

/// What is asked about the halves of the shard asked.
#[derive(Clone, Debug)]
pub enum HalvesRequest {
    /// The one at this place, modulo what a location can name.
    Find(RecordLocation),
    /// Hand out some.
    Take(ReceiveHalves),
    /// Answered when there may be such, or after the request's wait.
    Await(ReceiveHalves),
    /// Ask a client of the shard asked about one of the asking shard.
    AskProducer { client: String, check: Box<ProducerCheck> },
}

/// What is asked about where the time of the asked shard's requests goes.
#[derive(Clone, Debug)]
pub enum TimeRequest {
    Slow(ListSlow),
    /// Answered after that time.
    Measure {
        topic: Measured,
        time: Duration,
    },
}

impl PeerRequest {
    /// Whether it does nothing but wait, so that it can be dropped at any time.
    pub fn only_waits(&self) -> bool {
        match self {
            PeerRequest::Client(Request::Watch(watch)) => !watch.wait.is_zero(),
            PeerRequest::Halves(HalvesRequest::Await(_)) => true,
            PeerRequest::Readers(ReaderNews::Question { .. }) => true,
            PeerRequest::Time(TimeRequest::Measure { .. }) => true,
            _ => false,
        }
    }

    /// Whether it may keep a core busy for as long as thousands of messages.
    pub fn is_heavy(&self) -> bool {
        matches!(
            self,
            PeerRequest::FindHere(FindHere::Key { .. })
                | PeerRequest::TopicGroups(_)
                | PeerRequest::Stats(_)
                | PeerRequest::Client(
                    Request::JoinGroup(_)
                        | Request::DescribeGroup(_)
                        | Request::DescribeTopic(_)
                        | Request::GroupStats(_)
                )
        )
    }
}

/// The answer to a [`PeerRequest`] of the same kind.
#[derive(Clone, Debug)]
pub enum PeerReply {
    Client(Reply),
    Done,
    Stored(Stored),
    Tables {
        topics: Vec<Topic>,
        next_topic_id: TopicId,
        groups: Vec<Group>,
        instances: BTreeSet<InstanceName>,
    },
    /// Of these groups, since they have other readers, or read other topics.
    ReadersChanged {
        changed: Vec<GroupName>,
        /// Those that are members', and were left out.
        withheld: Vec<GroupName>,
    },
    QueueRanges(Vec<QueueInfo>),
    TopicGroups(Vec<SeenGroup>),
    GroupOffsets(Vec<GroupOffset>),
    GroupNames(Vec<GroupName>),
    /// Whether there was anything to forget.
    GroupRemoved(bool),
    GroupsInUse(GroupsInUse),
    Received(Received),
    Prospect(Prospect),
    Acknowledged(Vec<ReceiptOutcome>),
    GroupLeases {
        leases: Vec<LeaseInfo>,
        /// Who has a queue to itself.
        locks: Vec<(QueueKey, String)>,
        /// Why the group gets nothing new.
        refused: Vec<String>,
    },
    /// Carried out, but that leases still run in these queues.
    GatesSet {
        draining: Vec<QueueKey>,
    },
    GroupReceivers(Vec<SeenReceivers>),
    ShardInfo(Box<ShardInfo>),
    Stats(StatsReply),
    Settings(Vec<SettingInfo>),
    Slow(Vec<SlowRequest>),
    Measured(Box<Measurement>),
    Found(Found),
    RedriveArrived(RedriveArrival),
    Halves(Vec<HalfMessage>),
    FoundHalf(Option<FoundHalf>),
    ReplyDelivered(ReplyOutcome),
    ClientAnswered(Box<ClientOutcome>),
    /// Whether a client has taken the question.
    ProducerAsked(bool),
}

/// A group's offset in one queue, with the queue's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    pub key: QueueKey,
    pub committed: QueueOffset,
    pub first_offset: QueueOffset,
    pub end_offset: QueueOffset,
}

/// The answer on its way.
pub type PeerFuture = Pin<Box<dyn Future<Output = Result<PeerReply, Failure>>>>;

/// The other shards of the node, as one of them sees them.
pub trait Peers {
    /// Asks a shard, which may be the asking one. Fails with `Busy` when its mailbox is full.
    fn ask(&self, shard: ShardId, request: PeerRequest) -> PeerFuture;

    /// Tells a shard that something of a topic it watches has come. Nothing is answered.
    fn arrived(&self, shard: ShardId, topic: TopicId);

    /// Has the node change these settings, or none, and say how all are then.
    fn settings(&self, _changes: Vec<SettingChange>) -> PeerFuture {
        let failure =
            Failure::new(Status::UnsupportedRequest, "this broker's settings are nobody's to ask for");
        Box::pin(std::future::ready(Err(failure)))
    }

    /// Where each shard listens, in the order of their ids.
    fn addresses(&self) -> Vec<ShardAddress>;
}
