//! Topics as RocketMQ's clients and tools are shown them.

use std::time::Duration;

use crate::api::{Failure, OffsetSpec};
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::disk::Disk;
use crate::state::{MessageType, Permission, Topic};
use crate::types::{QueueKey, QueueOffset, Timestamp, TopicName};

/// What a queue of this shard has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredQueue {
    pub key: QueueKey,
    pub first: QueueOffset,
    pub end: QueueOffset,
    /// When its last message was stored.
    pub stored: Option<Timestamp>,
}

/// A topic's queues over the whole node, and what may be done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownTopic {
    pub queue_count: u32,
    /// Queues that readers, or writers, are shown; `None`: all.
    pub read_queues: Option<u32>,
    pub write_queues: Option<u32>,
    /// RocketMQ's bits.
    pub permission: u8,
    pub ordered: bool,
    pub message_type: MessageType,
}

impl From<&Topic> for ShownTopic {
    fn from(topic: &Topic) -> Self {
        Self {
            queue_count: topic.queue_count,
            read_queues: topic.policy.read_queues,
            write_queues: topic.policy.write_queues,
            permission: topic.policy.permission.0,
            ordered: topic.policy.ordered,
            message_type: topic.policy.message_type,
        }
    }
}

impl ShownTopic {
    /// Whether readers may have its messages.
    pub fn is_readable(&self) -> bool {
        self.permission & Permission::READ != 0
    }
}

impl<D: Disk> Broker<D> {
    /// As it is now; `None` when there is no such topic here.
    pub fn shown_topic(&self, name: &TopicName) -> Option<ShownTopic> {
        self.tables().topic_named(name).map(ShownTopic::from)
    }

    /// What this shard's queues of a topic have, as many as readers are shown.
    pub async fn stored_here(&self, name: &TopicName) -> Result<Vec<StoredQueue>, Failure> {
        let topic = self.topic_by_name(name)?;
        // What is not written to any more may still have messages, as long as it is read.
        let of = |queues: Option<u32>| queues.unwrap_or(topic.queue_count);
        let shown = of(topic.policy.read_queues).max(of(topic.policy.write_queues));
        let mut stored = Vec::new();
        let mut slice = self.time_slice();
        for key in owned_queues(topic.id, shown.min(topic.queue_count), &self.options) {
            let Ok(queue) = self.queue(key) else { continue };
            let (first, end) = self.bounds(&queue);
            let time = match end.0.checked_sub(1) {
                Some(last) => self.store_time(key, QueueOffset(last)).await?,
                None => None,
            };
            stored.push(StoredQueue { key, first, end, stored: time });
            slice.yield_if_over().await;
        }
        Ok(stored)
    }

    /// How many messages this shard has stored of a topic within each of these spans up to now.
    pub async fn stored_within<const COUNT: usize>(
        &self,
        name: &TopicName,
        spans: [Duration; COUNT],
    ) -> Result<[u64; COUNT], Failure> {
        let topic = self.topic_by_name(name)?;
        let mut counts = [0; COUNT];
        let mut slice = self.time_slice();
        for key in owned_queues(topic.id, topic.queue_count, &self.options) {
            for (count, span) in counts.iter_mut().zip(spans) {
                let from = self.find_offset(key, OffsetSpec::Ago(span)).await?;
                let end = self.find_offset(key, OffsetSpec::Last).await?;
                *count += end.0.saturating_sub(from.0);
            }
            slice.yield_if_over().await;
        }
        Ok(counts)
    }

    /// A number that is another one after each change of a topic.
    pub fn topics_version(&self) -> i64 {
        let tables = self.tables();
        let changes: i64 = tables.topics().map(|topic| i64::from(topic.policy.version)).sum();
        i64::from(tables.next_topic_id().0) + changes
    }

    /// Queues of this shard.
    pub fn queue_count(&self) -> usize {
        self.queues.borrow().len()
    }

    pub fn topic_count(&self) -> usize {
        self.tables().topic_count()
    }

    /// All there are, in their order.
    pub fn topic_names(&self) -> Vec<TopicName> {
        self.tables().topics().map(|topic| topic.name.clone()).collect()
    }
}
