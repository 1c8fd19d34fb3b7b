//! Topics that are made by being written to, where the node was told to do so.

use std::net::IpAddr;
use std::rc::Rc;

use super::instances::{check_instance, topic_missing};
use crate::api::{Failure, Reply, RouteInfo, Status, TopicChange};
use crate::broker::client_requests::{CONTROL_SHARD, unexpected};
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::limits;
use crate::types::TopicName;

/// What names of RocketMQ's own topics begin with (`common/.../topic/TopicValidator.java`).
const RESERVED_PREFIX: &str = "rmq_sys_";

impl<D: Disk> Broker<D> {
    /// The route of a topic that a client at a place of the network is to write to; makes the topic, with so many queues, if it may. The control shard makes
    /// it: a message that another one was asked to store waits for that, once in a topic's life. When this returns, every
    /// shard has the topic, whoever made it: somebody else's first use may have reached this shard and not yet the others.
    pub async fn open_topic(
        self: &Rc<Self>,
        name: &TopicName,
        queues: Option<u32>,
        maker: IpAddr,
    ) -> Result<RouteInfo, Failure> {
        if let Some(queues) = queues {
            if self.options.shard == CONTROL_SHARD {
                if self.tables().topic_named(name).is_none() {
                    self.check_first_use(name, maker)?;
                    self.create_by_first_use(name, queues, maker).await?;
                } else {
                    drop(self.topic_change.lock().await);
                }
            } else {
                let request = PeerRequest::OpenTopic { topic: name.clone(), queues, maker };
                match self.peers()?.ask(CONTROL_SHARD, request).await? {
                    PeerReply::Client(Reply::Route(_)) => {}
                    other => return Err(unexpected(&other)),
                }
            }
        }
        self.route(Some(name))
    }

    pub(super) async fn open_topic_for_peer(
        self: &Rc<Self>,
        name: &TopicName,
        queues: u32,
        maker: IpAddr,
    ) -> Result<PeerReply, Failure> {
        self.open_topic(name, Some(queues), maker).await.map(Reply::Route).map(PeerReply::Client)
    }

    /// The same, as the node makes topics now.
    pub async fn use_topic(self: &Rc<Self>, name: &TopicName, maker: IpAddr) -> Result<RouteInfo, Failure> {
        self.open_topic(name, self.live.get().auto_create_topics, maker).await
    }

    fn check_first_use(&self, name: &TopicName, maker: IpAddr) -> Result<(), Failure> {
        // Those are the broker's to make.
        if name.is_of_group() {
            let message =
                format!("topic {name} does not exist, and one of a group is not made by writing to it");
            return Err(Failure::new(Status::TopicNotExist, message));
        }
        if self.is_reserved(name) {
            let message = format!(
                "topic {name} does not exist, and its name means something to RocketMQ's clients: it is not made by writing to it"
            );
            return Err(Failure::new(Status::TopicNotExist, message));
        }
        // A writer is told of it as of any topic that is not there, since that is what its client knows.
        if check_instance(&self.tables(), name).is_err() {
            return Err(topic_missing(&self.tables(), name));
        }
        // A program that makes names up, or misspells them in a loop, must not fill the tables. Groups' topics have a bound of
        // their own, and take no place here.
        let topic_count = self.tables().topic_count() - self.tables().group_topic_count();
        if topic_count >= limits::AUTO_CREATE_TOPICS_MAX {
            let message = format!(
                "topic {name} does not exist, and there are {topic_count} topics beside those of groups: no more are made by first use; create \
                 it with `turbopump topic create {name}`"
            );
            return Err(Failure::new(Status::TopicNotExist, message));
        }
        // A writer is told of it as of any topic that is not there.
        self.check_maker(name, maker).map_err(|refusal| {
            let message = format!("{}; create it with `turbopump topic create {name}`", refusal.message);
            Failure::new(Status::TopicNotExist, message)
        })
    }

    /// Whether a name is one that RocketMQ's brokers have for themselves.
    pub fn is_reserved(&self, name: &TopicName) -> bool {
        let reserved = &self.options.reserved_topics;
        name.as_str().starts_with(RESERVED_PREFIX) || reserved.iter().any(|other| other == name.as_str())
    }

    async fn create_by_first_use(
        self: &Rc<Self>,
        topic: &TopicName,
        queues: u32,
        maker: IpAddr,
    ) -> Result<(), Failure> {
        let change = TopicChange { topic: topic.clone(), queues: Some(queues), retention: None, level: None };
        match self.create_topic(change).await {
            Ok(_) => {
                self.metrics.topics_created_by_use.add(1);
                self.topic_makers.borrow_mut().note(topic, maker);
                Ok(())
            }
            // Somebody else came first.
            Err(failure) if failure.status == Status::TopicExists => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}
