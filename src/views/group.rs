//! A group and who consumes as it, as `turbopump group describe -o json` and the console have it.

use serde::Serialize;

use super::time::milliseconds;
use crate::api::{
    ClientProtocol, GroupInfo, GroupQueueInfo, GroupSettings, RECEIVERS, ReaderInfo, ReaderMode, ReceiverInfo,
};
use crate::types::TopicName;

/// A group as JSON shows it; programs rely on these names.
#[derive(Serialize)]
pub struct GroupView {
    pub group: String,
    pub generation: u64,
    pub lag: u64,
    pub leased: u64,
    pub waiting: u64,
    pub dead_letters: u64,
    pub inconsistent_topics: Vec<String>,
    pub refused: Vec<String>,
    pub settings: SettingsView,
    pub members: Vec<MemberView>,
    pub receivers: Vec<ReceiverView>,
    pub readers: Vec<ReaderView>,
    pub queues: Vec<QueueView>,
    /// Said in the text only: JSON has the same among members and receivers.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// `null` stands for the broker's default.
#[derive(Default, Serialize)]
pub struct SettingsView {
    pub deliveries_max: Option<u32>,
    pub lease_ms: Option<u64>,
    pub ordered_lease_ms: Option<u64>,
}

#[derive(Serialize)]
pub struct MemberView {
    pub member: String,
    /// `null` for the entry that stands for all who receive.
    pub protocol: Option<&'static str>,
    pub topics: Vec<String>,
    pub queues: Vec<MemberQueueView>,
    pub heartbeat_age_ms: u64,
}

#[derive(Serialize)]
pub struct MemberQueueView {
    pub topic_id: u32,
    pub queue: u32,
}

#[derive(Serialize)]
pub struct ReceiverView {
    pub topic: String,
    pub protocol: &'static str,
    pub filter: String,
    pub ordered: bool,
    pub active: u32,
    pub seen_age_ms: u64,
}

#[derive(Serialize)]
pub struct ReaderView {
    pub client: String,
    pub language: String,
    pub version: i32,
    pub address: String,
    pub broadcasts: bool,
    pub subscriptions: Vec<SubscriptionView>,
}

#[derive(Serialize)]
pub struct SubscriptionView {
    pub topic: String,
    pub expression: String,
}

#[derive(Serialize)]
pub struct QueueView {
    pub topic: String,
    pub queue: u32,
    pub committed: Option<u64>,
    pub end_offset: u64,
    pub lag: u64,
    pub leased: u64,
    pub waiting: u64,
    pub dead_letters: u64,
    pub member: Option<String>,
}

impl GroupView {
    pub fn new(group: &GroupInfo) -> Self {
        let sum = |of: fn(&GroupQueueInfo) -> u64| group.queues.iter().map(of).fold(0, u64::saturating_add);
        let inconsistent = group.inconsistent_topics(RECEIVERS);
        let members = group.members.iter().map(|member| MemberView {
            member: member.member.clone(),
            protocol: (member.member != RECEIVERS).then(|| ClientProtocol::Native.name()),
            topics: member.topics.iter().map(TopicName::to_string).collect(),
            queues: member
                .queues
                .iter()
                .map(|key| MemberQueueView { topic_id: key.topic.0, queue: key.queue.0 })
                .collect(),
            heartbeat_age_ms: milliseconds(member.heartbeat_age),
        });
        let receivers = group.receivers.iter().map(ReceiverView::new);
        let readers = group.readers.iter().map(ReaderView::new);
        let queues = group.queues.iter().map(|queue| QueueView {
            topic: queue.topic.to_string(),
            queue: queue.queue.0,
            committed: queue.committed.map(|offset| offset.0),
            end_offset: queue.end_offset.0,
            lag: queue.lag,
            leased: queue.leased,
            waiting: queue.waiting,
            dead_letters: queue.dead_letters,
            member: queue.member.clone(),
        });
        let warnings = inconsistent.iter().map(|(topic, filters)| {
            let filters: Vec<_> = filters.iter().map(|filter| format!("`{}`", filter.text())).collect();
            format!(
                "warning: consumers of this group ask for different messages of topic {topic}: {}. What one of them \
                 leaves out is lost to the others: give all of them one filter, or groups of their own",
                filters.join(", ")
            )
        });
        Self {
            group: group.group.to_string(),
            generation: group.generation,
            lag: sum(|queue| queue.lag),
            leased: sum(|queue| queue.leased),
            waiting: sum(|queue| queue.waiting),
            dead_letters: sum(|queue| queue.dead_letters),
            refused: group.refused.clone(),
            inconsistent_topics: inconsistent.keys().map(TopicName::to_string).collect(),
            settings: group.settings.as_ref().map(SettingsView::new).unwrap_or_default(),
            members: members.collect(),
            receivers: receivers.collect(),
            readers: readers.collect(),
            queues: queues.collect(),
            warnings: warnings.collect(),
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

impl SettingsView {
    fn new(settings: &GroupSettings) -> Self {
        Self {
            deliveries_max: settings.deliveries_max,
            lease_ms: settings.lease.map(milliseconds),
            ordered_lease_ms: settings.ordered_lease.map(milliseconds),
        }
    }
}
