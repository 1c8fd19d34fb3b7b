//! A message whose producer names a topic and leaves the queue to the broker, as all but the native clients do.

use std::rc::Rc;

use bytes::Bytes;

use crate::api::{Failure, Held, Hold, Produce, Produced, Release, Reply, Request, Status};
use crate::broker::Broker;
use crate::broker::client_requests::unexpected;
use crate::broker::peers::PeerReply;
use crate::disk::Disk;
use crate::types::{Level, QueueKey, QueueNumber, TopicName};

/// One message to be published.
pub struct Publish<'a> {
    pub topic: &'a TopicName,
    /// Messages of one key share a queue, and so keep their order.
    pub sharding_key: Option<&'a str>,
    /// `None`: the topic's level, or the node's.
    pub level: Option<Level>,
    /// A batch of this one message, not yet checked.
    pub batch: Bytes,
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
    /// Stores one message in the queue of its key, or in the next one in turn. A topic that does not exist is made, where
    /// first use may make it.
    pub async fn publish_message(self: &Rc<Self>, publish: Publish<'_>) -> Result<Published, Failure> {
        let Publish { topic, sharding_key, level, batch, release } = publish;
        let key = match self.queue_in_turn(topic, sharding_key) {
            Err(failure) if failure.status == Status::TopicNotExist => {
                self.handle(Request::OpenTopic(topic.clone())).await?;
                self.queue_in_turn(topic, sharding_key)?
            }
            found => found?,
        };
        let request = match release {
            None => Request::Produce(Produce { key, level, batch }),
            Some(Release::At(time)) if time <= self.clock.now() => {
                Request::Produce(Produce { key, level, batch })
            }
            Some(release) => Request::Hold(Hold { key, level, batch, release }),
        };
        match self.handle(request).await? {
            Reply::Produced(produced) => Ok(Published::Stored(produced)),
            Reply::Held(held) => Ok(Published::Held(held)),
            other => Err(unexpected(&PeerReply::Client(other))),
        }
    }

    fn queue_in_turn(&self, topic: &TopicName, sharding_key: Option<&str>) -> Result<QueueKey, Failure> {
        let (id, queue_count) = self.topic_layout(topic)?;
        let queue = match sharding_key {
            Some(key) => QueueNumber::of_key(key.as_bytes(), queue_count),
            None => {
                let turn = self.publish_turn.get();
                self.publish_turn.set(turn.wrapping_add(1));
                QueueNumber(turn % queue_count)
            }
        };
        Ok(QueueKey { topic: id, queue })
    }
}
