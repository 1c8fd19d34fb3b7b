//! One group: who consumes for it, over which protocol, and how far it is in each queue.

use std::time::Duration;

use serde::Serialize;

use super::asking::Asking;
use super::parameters::name;
use super::topics::milliseconds;
use crate::admin::answer::Answer;
use crate::api::{
    Failure, GroupInfo, GroupQueueInfo, MemberInfo, RECEIVERS, ReaderInfo, ReaderMode, ReceiverInfo,
    StatsAsked, StatsOf,
};

#[derive(Serialize)]
struct GroupView {
    group: String,
    generation: u64,
    lag: u64,
    leased: u64,
    waiting: u64,
    dead_letters: u64,
    /// The sum of its places.
    passed: u64,
    /// How long ago the oldest message was stored that it has not dealt with.
    oldest_unread_ms: Option<u64>,
    deliveries_max: Option<u32>,
    lease_ms: Option<u64>,
    ordered_lease_ms: Option<u64>,
    /// Why shards give it nothing new.
    refused: Vec<String>,
    /// Topics of which its consumers ask for different messages.
    inconsistent_topics: Vec<String>,
    /// Without the one that stands for all who receive.
    members: Vec<MemberView>,
    receivers: Vec<ReceiverView>,
    readers: Vec<ReaderView>,
    queues: Vec<QueueView>,
}

#[derive(Serialize)]
struct MemberView {
    member: String,
    topics: Vec<String>,
    queues: usize,
    heartbeat_age_ms: u64,
}

#[derive(Serialize)]
pub(super) struct ReceiverView {
    topic: String,
    protocol: &'static str,
    filter: String,
    ordered: bool,
    active: u32,
    seen_age_ms: u64,
}

#[derive(Serialize)]
pub(super) struct ReaderView {
    client: String,
    language: String,
    version: i32,
    address: String,
    broadcasts: bool,
    subscriptions: Vec<SubscriptionView>,
}

#[derive(Serialize)]
struct SubscriptionView {
    topic: String,
    expression: String,
}

#[derive(Serialize)]
struct QueueView {
    topic: String,
    queue: u32,
    committed: Option<u64>,
    end_offset: u64,
    lag: u64,
    leased: u64,
    waiting: u64,
    dead_letters: u64,
    member: Option<String>,
}

/// `GET /api/groups/GROUP`.
pub(super) async fn group(asking: Asking<'_>, group: &str) -> Result<Answer, Failure> {
    let group = asking.group(name(group)?).await?;
    let asked = StatsAsked { of: StatsOf::One(group.group.clone()), ages: true };
    // It may have gone since.
    let figures = asking.group_figures(asked).await.ok().and_then(|mut page| page.entries.pop());
    let oldest_unread = figures.and_then(|figures| figures.total().oldest_unread_age);
    Ok(Answer::json(&GroupView::new(&group, oldest_unread)))
}

impl GroupView {
    fn new(group: &GroupInfo, oldest_unread: Option<Duration>) -> Self {
        let sum = |of: fn(&GroupQueueInfo) -> u64| group.queues.iter().map(of).fold(0, u64::saturating_add);
        let settings = group.settings.as_ref();
        let inconsistent = group.inconsistent_topics(RECEIVERS);
        let members = group.members.iter().filter(|member| member.member != RECEIVERS);
        Self {
            group: group.group.to_string(),
            generation: group.generation,
            lag: sum(|queue| queue.lag),
            leased: sum(|queue| queue.leased),
            waiting: sum(|queue| queue.waiting),
            dead_letters: sum(|queue| queue.dead_letters),
            passed: sum(|queue| queue.committed.map_or(0, |offset| offset.0)),
            oldest_unread_ms: oldest_unread.map(milliseconds),
            deliveries_max: settings.and_then(|settings| settings.deliveries_max),
            lease_ms: settings.and_then(|settings| settings.lease).map(milliseconds),
            ordered_lease_ms: settings.and_then(|settings| settings.ordered_lease).map(milliseconds),
            refused: group.refused.clone(),
            inconsistent_topics: inconsistent.keys().map(ToString::to_string).collect(),
            members: members.map(MemberView::new).collect(),
            receivers: group.receivers.iter().map(ReceiverView::new).collect(),
            readers: group.readers.iter().map(ReaderView::new).collect(),
            queues: group.queues.iter().map(QueueView::new).collect(),
        }
    }
}

impl MemberView {
    fn new(member: &MemberInfo) -> Self {
        Self {
            member: member.member.clone(),
            topics: member.topics.iter().map(ToString::to_string).collect(),
            queues: member.queues.len(),
            heartbeat_age_ms: milliseconds(member.heartbeat_age),
        }
    }
}

impl ReceiverView {
    pub fn new(receiver: &ReceiverInfo) -> Self {
        Self {
            topic: receiver.topic.to_string(),
            protocol: receiver.protocol.name(),
            filter: receiver.filter.text(),
            ordered: receiver.ordered,
            active: receiver.active,
            seen_age_ms: milliseconds(receiver.seen_age),
        }
    }
}

impl ReaderView {
    pub fn new(reader: &ReaderInfo) -> Self {
        let subscriptions = reader.subscriptions.iter().map(|(topic, expression)| SubscriptionView {
            topic: topic.clone(),
            expression: expression.clone(),
        });
        Self {
            client: reader.client.clone(),
            language: reader.language.clone(),
            version: reader.version,
            address: reader.address.clone(),
            broadcasts: reader.mode == ReaderMode::Broadcasting,
            subscriptions: subscriptions.collect(),
        }
    }
}

impl QueueView {
    fn new(queue: &GroupQueueInfo) -> Self {
        Self {
            topic: queue.topic.to_string(),
            queue: queue.queue.0,
            committed: queue.committed.map(|offset| offset.0),
            end_offset: queue.end_offset.0,
            lag: queue.lag,
            leased: queue.leased,
            waiting: queue.waiting,
            dead_letters: queue.dead_letters,
            member: queue.member.clone(),
        }
    }
}
