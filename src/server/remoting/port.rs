//! What all connections of a shard that speak RocketMQ's protocol have together.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::rates::Rates;
use super::sessions::RemotingClients;
use crate::namesrv::{NameServer, OwnNode, OwnTopic};
use crate::server::connection::ShardBroker;
use crate::types::{MonotonicTime, Timestamp, TopicName};

/// What the protocol is told at the start.
#[derive(Clone, Debug)]
pub(crate) struct RemotingOptions {
    pub node: OwnNode,
    /// The node's, for all of its shards.
    pub names: Arc<NameServer>,
}

/// RocketMQ's protocol on one shard.
pub(crate) struct RemotingPort {
    pub node: OwnNode,
    pub names: Arc<NameServer>,
    pub clients: RemotingClients,
    pub rates: RefCell<Rates>,
    /// When the shard began to take requests.
    pub boot: Timestamp,
    broker: Rc<ShardBroker>,
}

impl RemotingPort {
    pub fn open(broker: &Rc<ShardBroker>, options: &RemotingOptions) -> Self {
        Self {
            node: options.node.clone(),
            names: options.names.clone(),
            clients: RemotingClients::new(broker.clock().clone()),
            rates: RefCell::default(),
            boot: broker.clock().now(),
            broker: broker.clone(),
        }
    }

    /// Where the node's shards are, in their order.
    pub fn addresses(&self) -> Vec<String> {
        self.broker.shard_addresses().into_iter().map(|shard| shard.address).collect()
    }

    /// What the node has of a topic now.
    pub fn own_topic(&self, name: &str) -> Option<OwnTopic> {
        let topic = self.broker.shown_topic(&name.parse::<TopicName>().ok()?)?;
        Some(OwnTopic {
            queues: topic.queue_count,
            read: topic.read_queues,
            write: topic.write_queues,
            permission: topic.permission.into(),
        })
    }

    /// To be called about once a second.
    pub fn tick(&self, now: MonotonicTime) {
        let metrics = self.broker.metrics();
        let given = metrics.messages_fetched.get() + metrics.messages_received.get();
        self.rates.borrow_mut().tick(now, [metrics.messages_produced.get(), given]);
        self.clients.end_overdue();
    }
}
