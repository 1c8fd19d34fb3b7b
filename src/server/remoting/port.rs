//! What all connections of a shard that speak RocketMQ's protocol have together.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;

use super::expressions::Expressions;
use super::questions::Questions;
use super::sessions::RemotingClients;
use super::signed::may_read;
use crate::access::{AccessKeys, NodeSecret, Session};
use crate::namesrv::{NameServer, OwnNode, OwnTopic};
use crate::server::connection::ShardBroker;
use crate::types::{ShardId, Timestamp, TopicName, UniqueId, UniqueIdGenerator};

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
    pub clients: Rc<RemotingClients>,
    pub(super) expressions: Expressions,
    /// When the shard began to take requests.
    pub boot: Timestamp,
    /// For messages whose producers give them none.
    ids: RefCell<UniqueIdGenerator>,
    /// What clients reach this shard at, which ids of its messages begin with.
    address: OnceCell<Option<SocketAddr>>,
    /// Counts the messages that leave the queue to this broker.
    next_queue: Cell<u32>,
    broker: Rc<ShardBroker>,
}

impl RemotingPort {
    pub fn open(broker: &Rc<ShardBroker>, options: &RemotingOptions, secret: &NodeSecret) -> Self {
        // Another number than that of the shard's ids over HTTP.
        let ids =
            UniqueIdGenerator::new(Ipv4Addr::LOCALHOST, std::process::id(), !secret.number(broker.shard()));
        let clients = Rc::new(RemotingClients::new(broker.clock().clone()));
        let notified = clients.clone();
        broker.set_members_notice(Rc::new(move |client, group| notified.notify(client, group)));
        Questions::new(broker, &clients, &options.node).take_from(broker);
        Self {
            node: options.node.clone(),
            names: options.names.clone(),
            clients,
            expressions: Expressions::default(),
            boot: broker.clock().now(),
            ids: RefCell::new(ids),
            address: OnceCell::new(),
            next_queue: Cell::new(0),
            broker: broker.clone(),
        }
    }

    /// Where the node's shards are, in their order.
    pub fn addresses(&self) -> Vec<String> {
        self.broker.shard_addresses().into_iter().map(|shard| shard.address).collect()
    }

    /// Where clients reach this shard, as ids of its messages have it: the one for C++ reads four bytes of an address, so an
    /// address of that kind is taken where there is one. A host's name is looked up once.
    pub fn address(&self) -> Option<SocketAddr> {
        *self.address.get_or_init(|| address_of(&self.broker, self.broker.shard()))
    }

    /// The same as messages have it.
    pub fn store_host(&self) -> SocketAddr {
        self.address().unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    }

    /// The next id for a message without one.
    pub fn next_id(&self) -> UniqueId {
        self.ids.borrow_mut().next(self.broker.clock().now())
    }

    /// Counts through a topic's queues, for messages whose producers leave the choice to the broker.
    pub fn next_queue(&self) -> u32 {
        self.next_queue.replace(self.next_queue.get().wrapping_add(1))
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

    /// The keys were read again: who may no more what it has said that it does is gone, until it says so by a key that may.
    pub fn renew(&self, keys: &AccessKeys) {
        let may = |connection: u64, client: &str, session: &Session| {
            self.broker.reader_groups(connection, client).iter().all(|group| {
                let topics = group.subscriptions.iter().map(|subscription| subscription.topic.as_str());
                may_read(session, group.group.as_str(), topics).is_ok()
            })
        };
        let denied = self.clients.renew(keys, may);
        let broker = self.broker.clone();
        let told = async move {
            for (connection, client) in denied {
                broker.reader_gone(connection, &client).await;
            }
        };
        glommio::spawn_local(told).detach();
    }

    /// To be called about once a second.
    pub fn tick(&self) {
        let ended = self.clients.end_overdue();
        let have_members_ended = self.broker.end_member_sessions();
        let has_news = self.broker.has_untold_readers() || self.broker.has_locks();
        if ended.is_empty() && !have_members_ended && !has_news {
            return;
        }
        let broker = self.broker.clone();
        let told = async move {
            for client in ended {
                for connection in broker.reader_connections(&client) {
                    broker.reader_gone(connection, &client).await;
                }
            }
            broker.retell_readers().await;
            broker.end_locks().await;
            if have_members_ended {
                broker.tell_of_ended_groups().await;
            }
        };
        glommio::spawn_local(told).detach();
    }
}

/// Where clients reach a shard, as ids of its messages have it. A name is looked up.
pub(super) fn address_of(broker: &ShardBroker, shard: ShardId) -> Option<SocketAddr> {
    let name = broker.shard_addresses().into_iter().nth(usize::from(shard.0))?.address;
    let found: Vec<_> = name.to_socket_addrs().ok()?.collect();
    found.iter().find(|address| address.is_ipv4()).or(found.first()).copied()
}
