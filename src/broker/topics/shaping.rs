//! Topics as RocketMQ's tools set them up. A topic is the node's: whichever broker is asked, the control shard has it made, or
//! changed, on all of them.

use std::rc::Rc;

use super::control::{check_group_topics, check_retention};
use crate::api::{Failure, Status};
use crate::broker::client_requests::{CONTROL_SHARD, unexpected};
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::state::{MessageType, Permission, Topic, TopicPolicy};
use crate::types::{Retention, TopicName};

/// What a topic is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicShape {
    pub topic: TopicName,
    /// Queues over the whole node that readers and writers are shown. With fewer than there are, the others are hidden: a topic
    /// keeps its queues.
    pub read_queues: u32,
    pub write_queues: u32,
    /// RocketMQ's bits.
    pub permission: u8,
    pub ordered: bool,
    /// `None`: as it is.
    pub message_type: Option<MessageType>,
    pub retention: Option<Retention>,
}

impl TopicShape {
    /// The topic that there is, with this shape; its version is the same.
    fn of_present(&self, present: &Topic) -> Topic {
        let queue_count = present.queue_count.max(self.read_queues).max(self.write_queues);
        let shown = |queues: u32| (queues < queue_count).then_some(queues);
        let policy = TopicPolicy {
            read_queues: shown(self.read_queues),
            write_queues: shown(self.write_queues),
            permission: Permission(self.permission),
            ordered: self.ordered,
            message_type: self.message_type.unwrap_or(present.policy.message_type),
            ..present.policy.clone()
        };
        let retention = self.retention.unwrap_or(present.retention);
        Topic { queue_count, retention, policy, ..present.clone() }
    }
}

impl<D: Disk> Broker<D> {
    /// Makes a topic, or gives it another shape. When this returns, every shard has it so.
    pub async fn shape_topic(self: &Rc<Self>, shape: TopicShape) -> Result<(), Failure> {
        if self.options.shard != CONTROL_SHARD {
            return match self.peers()?.ask(CONTROL_SHARD, PeerRequest::ShapeTopic(shape)).await? {
                PeerReply::Done => Ok(()),
                other => Err(unexpected(&other)),
            };
        }
        let _guard = self.topic_change.lock().await;
        let present = self.tables().topic_named(&shape.topic).cloned();
        let (before, is_new) = match present {
            Some(present) => (present, false),
            None => (self.empty_topic(&shape.topic)?, true),
        };
        let topic = shape.of_present(&before);
        if topic == before && !is_new {
            return Ok(());
        }
        let topic = Topic { policy: topic.policy.changed(), ..topic };
        self.check_queue_count(topic.queue_count, topic.queue_count - before.queue_count)?;
        check_retention(topic.retention)?;
        self.put_everywhere(&topic).await?;
        tracing::info!(target: "topics", topic = %topic.name, id = topic.id.0, queues = topic.queue_count, "topic set up");
        Ok(())
    }

    pub(super) async fn shape_topic_for_peer(
        self: &Rc<Self>,
        shape: TopicShape,
    ) -> Result<PeerReply, Failure> {
        self.shape_topic(shape).await.map(|()| PeerReply::Done)
    }

    /// A topic that does not exist yet, without queues, if there may be one of that name. The caller holds `topic_change`.
    pub(super) fn empty_topic(&self, name: &TopicName) -> Result<Topic, Failure> {
        let tables = self.tables();
        super::instances::check_instance(&tables, name)?;
        if tables.topic_count() >= crate::limits::TOPICS_MAX {
            let message = format!("there are {} topics, no more are taken", tables.topic_count());
            return Err(Failure::new(Status::LimitReached, message));
        }
        check_group_topics(&tables, name)?;
        Ok(Topic {
            name: name.clone(),
            id: tables.next_topic_id(),
            queue_count: 0,
            retention: Retention::default(),
            level: None,
            policy: TopicPolicy::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TopicId;

    #[test]
    fn a_topic_only_gains_queues_and_hides_some() {
        let present = Topic {
            name: "t".parse().expect("a name"),
            id: TopicId(1),
            queue_count: 8,
            retention: Retention::Unlimited,
            level: None,
            policy: TopicPolicy { message_type: MessageType::Fifo, ..TopicPolicy::default() },
        };
        let shape = |read_queues, write_queues| TopicShape {
            topic: present.name.clone(),
            read_queues,
            write_queues,
            permission: Permission::READ,
            ordered: true,
            message_type: None,
            retention: None,
        };
        let fewer = shape(8, 4).of_present(&present);
        assert_eq!((fewer.queue_count, fewer.retention), (8, Retention::Unlimited));
        assert_eq!((fewer.policy.read_queues, fewer.policy.write_queues), (None, Some(4)));
        assert_eq!((fewer.policy.message_type, fewer.policy.ordered), (MessageType::Fifo, true));
        assert_eq!(fewer.policy.permission, Permission(Permission::READ));
        let more = shape(12, 16).of_present(&fewer);
        assert_eq!(
            (more.queue_count, more.policy.read_queues, more.policy.write_queues),
            (16, Some(12), None)
        );
        assert_eq!(shape(12, 16).of_present(&more), more, "nothing more is changed");
    }
}
