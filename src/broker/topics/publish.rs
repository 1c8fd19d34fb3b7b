//! A message whose producer names a topic and leaves the queue to the broker, as all but the native clients do.

use std::rc::Rc;

use crate::api::{Failure, Held, Hold, Produce, Produced, Release, Request, Status};
use crate::broker::Broker;
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
    /// A batch of this one message.
    pub batch: OwnedBatch,
    /// What it waits for, out of consumers' sight; `None`: it is there at once.
    pub release: Option<Release>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    Stored(Produced),
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
                if failure.status == Status::TopicNotExist && self.options.auto_create_topics.is_some() =>
            {
                self.handle(Request::OpenTopic(publish.topic.clone())).await?;
                self.publish_once(&publish).await
            }
            done => done,
        }
    }

    async fn publish_once(self: &Rc<Self>, publish: &Publish<'_>) -> Result<Published, Failure> {
        let Publish { topic, sharding_key, level, batch, release } = publish;
        let key = self.queue_of_key_or_next(topic, *sharding_key)?;
        let (level, batch) = (*level, batch.clone());
        let is_due = |release: &Release| matches!(release, Release::At(time) if *time <= self.clock.now());
        match release.clone().filter(|release| !is_due(release)) {
            None => self.produce_checked(Produce { key, level, batch }).await.map(Published::Stored),
            Some(release) => {
                self.hold_checked(Hold { key, level, batch, release }).await.map(Published::Held)
            }
        }
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
