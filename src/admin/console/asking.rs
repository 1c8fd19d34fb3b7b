//! What the console asks the broker, each with the kind of answer that it has.

use std::time::Duration;

use crate::admin::request::Request;
use crate::admin::server::Visit;
use crate::api::{
    self, Failure, Fetch, Fetched, FindMessages, Found, GroupInfo, GroupStats, LatencyInfo, ListSlow,
    MeasureLatency, OffsetSpec, Produce, Produced, Redrive, RedriveReport, RedrivenRanges, Reply, ResetGroup,
    ShardAddress, SlowRequest, StatsAsked, StatsPage, Status, TopicInfo, TopicStats,
};
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset, TopicName};

/// Whoever calls, and what is asked for them.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub visit: &'a Visit,
    pub request: &'a Request,
}

/// Declares a request and the reply that it has.
macro_rules! asks {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) = $request:expr => $reply:ident($answer:ty);)*) => {
        impl Asking<'_> {
            $($(#[$doc])*
            pub async fn $name(self, $($argument: $kind),*) -> Result<$answer, Failure> {
                match self.carry_out($request).await? {
                    Reply::$reply(answer) => Ok(answer),
                    _ => Err(unexpected()),
                }
            })*
        }
    };
}

asks! {
    topic_list() = api::Request::ListTopics => Topics(Vec<TopicInfo>);
    topic(topic: TopicName) = api::Request::DescribeTopic(topic) => Topic(TopicInfo);
    group(group: GroupName) = api::Request::DescribeGroup(group) => Group(GroupInfo);
    topic_figures(asked: StatsAsked<TopicName>) = api::Request::TopicStats(asked)
        => TopicStats(StatsPage<TopicStats, TopicName>);
    group_figures(asked: StatsAsked<GroupName>) = api::Request::GroupStats(asked)
        => GroupStats(StatsPage<GroupStats, GroupName>);
    offset(key: QueueKey, spec: OffsetSpec) = api::Request::FindOffset { key, spec } => OffsetFound(QueueOffset);
    fetch(fetch: Fetch) = api::Request::Fetch(fetch) => Fetched(Fetched);
    find(find: FindMessages) = api::Request::FindMessages(find) => Found(Found);
    produce(produce: Produce) = api::Request::Produce(produce) => Produced(Produced);
    redrive(redrive: Redrive) = api::Request::Redrive(redrive) => Redriven(RedriveReport);
    redriven(group: GroupName, queue: QueueNumber, from: QueueOffset) = api::Request::RedrivenRanges { group, queue, from }
        => RedrivenRanges(RedrivenRanges);
    slow(list: ListSlow) = api::Request::ListSlow(list) => Slow(Vec<SlowRequest>);
    latency(measure: MeasureLatency) = api::Request::MeasureLatency(measure) => Latency(LatencyInfo);
}

impl Asking<'_> {
    async fn carry_out(self, request: api::Request) -> Result<Reply, Failure> {
        self.visit.carry_out(self.request, request).await
    }

    /// Where the shards are, in the order of their ids.
    pub async fn addresses(self) -> Result<Vec<ShardAddress>, Failure> {
        match self.carry_out(api::Request::Route(None)).await? {
            Reply::Route(route) => Ok(route.shards),
            _ => Err(unexpected()),
        }
    }

    /// A group's place in a queue; `None` also for a group that nobody knows.
    pub async fn place(self, group: &GroupName, key: QueueKey) -> Result<Option<QueueOffset>, Failure> {
        match self.carry_out(api::Request::CommittedOffset { group: group.clone(), key }).await {
            Ok(Reply::Offset(offset)) => Ok(offset),
            Ok(_) => Err(unexpected()),
            Err(failure) if failure.status == Status::GroupNotExist => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub async fn reset(self, reset: ResetGroup) -> Result<(), Failure> {
        match self.carry_out(api::Request::ResetGroup(reset)).await? {
            Reply::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }
}

/// A fetch that is answered with what there is.
pub(super) fn fetch_of(key: QueueKey, offset: QueueOffset, records_max: u32, bytes_max: u32) -> Fetch {
    Fetch { key, offset, bytes_max, records_max, session: 0, wait: Duration::ZERO }
}

pub(super) fn unexpected() -> Failure {
    Failure::new(Status::Internal, "the shard gave an answer of another kind")
}
