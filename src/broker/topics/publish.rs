//! A message whose producer names a topic and leaves the queue to the broker, as all but the native clients do.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::api::{Failure, Held, Hold, Release, Status, Stored};
use crate::broker::Broker;
use crate::broker::client_requests::unexpected;
use crate::broker::gathering::Single;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::disk::Disk;
use crate::types::{Level, QueueKey, QueueNumber, TopicName};
use crate::wire::batch::OwnedBatch;

/// One message to be published.
pub struct Publish<'a> {
    pub topic: &'a TopicName,
    /// Messages of one key share a queue, and so keep their order.
    pub sharding_key: Option<&'a str>,
    /// `None`: the topic's level, or the node's.
    pub level: Option<Level>,
    pub message: Single<'a>,
    /// How long it may wait for space in the log before it is refused.
    pub wait_max: Duration,
    /// What it waits for, out of consumers' sight; `None`: it is there at once.
    pub release: Option<Release>,
    /// The place of the network where it comes from.
    pub network: IpAddr,
}

/// One message for a queue, on its way to the shard that has the queue.
#[derive(Clone, Debug)]
pub struct Publication {
    pub key: QueueKey,
    pub level: Option<Level>,
    /// A batch of this one message.
    pub batch: OwnedBatch,
    pub wait_max: Duration,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    Stored(Stored),
    /// It waits for its time, or for its producer.
    Held(Held),
}

impl<D: Disk> Broker<D> {
    /// Stores one message in the queue of its key, or in the next one, round robin. A topic that does not exist is made, where
    /// first use may make it.
    pub async fn publish_message(self: &Rc<Self>, publish: Publish<'_>) -> Result<Published, Failure> {
        match self.publish_once(&publish).await {
            // Nothing is stored. The topic is nowhere, or somebody else's first use has not reached the queue's shard.
            Err(failure)
                if failure.status == Status::TopicNotExist
                    && self.live.get().auto_create_topics.is_some() =>
            {
                self.use_topic(publish.topic, publish.network).await?;
                self.publish_once(&publish).await
            }
            done => done,
        }
    }

    async fn publish_once(self: &Rc<Self>, publish: &Publish<'_>) -> Result<Published, Failure> {
        let Publish { topic, sharding_key, level, message, wait_max, release, network: _ } = publish;
        let key = self.queue_of_key_or_next(topic, *sharding_key)?;
        let (level, wait_max) = (*level, *wait_max);
        let is_due = |release: &Release| matches!(release, Release::At(time) if *time <= self.clock.now());
        match release.clone().filter(|release| !is_due(release)) {
            None if key.queue.shard(self.options.shard_count) == self.options.shard => {
                self.publish_here(key, level, message, wait_max).await.map(Published::Stored)
            }
            None => {
                let publication = Publication { key, level, batch: message.alone(), wait_max };
                self.publish_there(publication).await.map(Published::Stored)
            }
            Some(release) => {
                let hold = Hold { key, level, batch: message.alone(), release };
                self.hold_checked(hold).await.map(Published::Held)
            }
        }
    }

    /// Stores one message in a queue of this shard, in a batch with others that come meanwhile.
    async fn publish_here(
        &self,
        key: QueueKey,
        level: Option<Level>,
        message: &Single<'_>,
        wait_max: Duration,
    ) -> Result<Stored, Failure> {
        let attempt = || self.gather(key, level, message);
        let pending = self.writer.place_within(wait_max, attempt).await?;
        self.single_settled(pending).await
    }

    async fn publish_there(&self, publication: Publication) -> Result<Stored, Failure> {
        let owner = publication.key.queue.shard(self.options.shard_count);
        self.metrics.requests_forwarded.add(1);
        match self.peers()?.ask(owner, PeerRequest::Publish(publication)).await? {
            PeerReply::Stored(stored) => Ok(stored),
            other => Err(unexpected(&other)),
        }
    }

    /// Stores a message that another shard was given.
    pub(in crate::broker) async fn publish_for_peer(
        &self,
        publication: &Publication,
    ) -> Result<PeerReply, Failure> {
        let Publication { key, level, batch, wait_max } = publication;
        let view = batch.view();
        let record = view.records().next().expect("a checked batch has a record").to_record();
        let message = Single { born_time: view.born_time(), record };
        self.publish_here(*key, *level, &message, *wait_max).await.map(PeerReply::Stored)
    }

    fn queue_of_key_or_next(
        &self,
        topic: &TopicName,
        sharding_key: Option<&str>,
    ) -> Result<QueueKey, Failure> {
        let (id, queue_count) = self.topic_layout(topic)?;
        let queue = match sharding_key {
            Some(key) => QueueNumber::of_key(key.as_bytes(), queue_count),
            None => {
                let count = self.publish_round_robin.get();
                self.publish_round_robin.set(count.wrapping_add(1));
                QueueNumber(count % queue_count)
            }
        };
        Ok(QueueKey { topic: id, queue })
    }
}
