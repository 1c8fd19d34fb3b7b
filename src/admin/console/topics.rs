//! One topic with its queues, and who consumes it.

use serde::Serialize;

use super::asking::Asking;
use super::parameters::name;
use crate::admin::answer::Answer;
use crate::api::{Failure, QueueInfo, TopicGroup};
use crate::types::{GroupTopic, Retention, TopicName};
use crate::views::{ReaderView, ReceiverView, milliseconds};

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    User,
    Retry,
    DeadLetters,
}

#[derive(Serialize)]
struct TopicView {
    topic: String,
    kind: Kind,
    id: u32,
    queue_count: u32,
    retention: &'static str,
    retention_ms: Option<u64>,
    level: Option<&'static str>,
    permission: &'static str,
    queues: Vec<QueueView>,
    groups: Vec<ConsumingGroupView>,
    /// Groups, receivers and readers for which the answer had no room; `null` for keys that may not know of consumers.
    consumers_left_out: Option<u32>,
}

#[derive(Serialize)]
struct QueueView {
    queue: u32,
    shard: u16,
    first_offset: u64,
    end_offset: u64,
}

/// Who consumes the topic as one group.
#[derive(Serialize)]
struct ConsumingGroupView {
    group: String,
    members: u32,
    receivers: Vec<ReceiverView>,
    readers: Vec<ReaderView>,
}

impl Kind {
    pub fn of(topic: &TopicName) -> Self {
        match topic.group() {
            Some((GroupTopic::Retries, _)) => Kind::Retry,
            Some((GroupTopic::DeadLetters, _)) => Kind::DeadLetters,
            None => Kind::User,
        }
    }

    pub fn named(text: &str) -> Option<Self> {
        match text {
            "user" => Some(Kind::User),
            "retry" => Some(Kind::Retry),
            "dead_letters" => Some(Kind::DeadLetters),
            _ => None,
        }
    }
}

/// `GET /api/topics/TOPIC`.
pub(super) async fn topic(asking: Asking<'_>, topic: &str) -> Result<Answer, Failure> {
    let topic = asking.topic(name(topic)?).await?;
    let consumers = topic.consumers.as_ref();
    let groups = consumers.map(|consumers| consumers.groups.iter().map(ConsumingGroupView::new).collect());
    Ok(Answer::json(&TopicView {
        topic: topic.topic.to_string(),
        kind: Kind::of(&topic.topic),
        id: topic.id.0,
        queue_count: topic.queue_count,
        retention: retention_text(topic.retention),
        retention_ms: retention_ms(topic.retention),
        level: topic.level.map(|level| level.name()),
        permission: permission_text(topic.permission),
        queues: topic.queues.iter().map(QueueView::new).collect(),
        groups: groups.unwrap_or_default(),
        consumers_left_out: consumers.map(|consumers| consumers.left_out),
    }))
}

impl QueueView {
    fn new(queue: &QueueInfo) -> Self {
        Self {
            queue: queue.queue.0,
            shard: queue.shard.0,
            first_offset: queue.first_offset.0,
            end_offset: queue.end_offset.0,
        }
    }
}

impl ConsumingGroupView {
    fn new(of: &TopicGroup) -> Self {
        Self {
            group: of.group.to_string(),
            members: of.members,
            receivers: of.receivers.iter().map(ReceiverView::new).collect(),
            readers: of.readers.iter().map(ReaderView::new).collect(),
        }
    }
}

/// RocketMQ's bits: 4 to read, 2 to write.
pub(super) fn permission_text(permission: u8) -> &'static str {
    match permission & 0b110 {
        0b110 => "read-write",
        0b100 => "read-only",
        0b010 => "write-only",
        _ => "none",
    }
}

/// `default` and `none`, or `age`, which is in [`retention_ms`].
pub(super) fn retention_text(retention: Retention) -> &'static str {
    match retention {
        Retention::Inherited => "default",
        Retention::Unlimited => "none",
        Retention::Age(_) => "age",
    }
}

pub(super) fn retention_ms(retention: Retention) -> Option<u64> {
    match retention {
        Retention::Age(age) => Some(milliseconds(age)),
        Retention::Inherited | Retention::Unlimited => None,
    }
}
