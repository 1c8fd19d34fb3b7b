//! Topics as RocketMQ's clients and tools are shown them.

use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::state::{Permission, Topic};
use crate::types::TopicName;

/// A topic's queues over the whole node, and what may be done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownTopic {
    pub queue_count: u32,
    /// Queues that readers, or writers, are shown; `None`: all.
    pub read_queues: Option<u32>,
    pub write_queues: Option<u32>,
    /// RocketMQ's bits.
    pub permission: u8,
}

impl From<&Topic> for ShownTopic {
    fn from(topic: &Topic) -> Self {
        Self {
            queue_count: topic.queue_count,
            read_queues: topic.policy.read_queues,
            write_queues: topic.policy.write_queues,
            permission: topic.policy.permission.0,
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

    pub fn topic_count(&self) -> usize {
        self.tables().topic_count()
    }

    /// All there are, in their order.
    pub fn topic_names(&self) -> Vec<TopicName> {
        self.tables().topics().map(|topic| topic.name.clone()).collect()
    }
}
