//! Groups as tools set them up and move them (`broker/.../processor/AdminBrokerProcessor.java`): the node's, whichever broker is
//! asked, but that each broker moves a group in its own queues.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::topics::{no_json, no_topic};
use crate::api::{CommitOffset, Failure, OffsetSpec, Reply, Request, Status};
use crate::broker::GroupShape;
use crate::limits;
use crate::protocol::remoting::body::{
    DataVersion, GroupConfiguration, QueueKeyed, write_group_table, write_queue_offsets, write_readable,
};
use crate::protocol::remoting::call::resets::{OffsetReset, ResetTo};
use crate::protocol::remoting::call::set_up::{GroupAsked, RETRIES_DEFAULT};
use crate::protocol::remoting::json::Value;
use crate::protocol::remoting::{Header, Refusal, ResponseCode};
use crate::server::remoting::answer::{Answer, Asker};
use crate::server::remoting::connection::Remoting;
use crate::server::remoting::requests::Refused;
use crate::server::remoting::signed::Sender;
use crate::types::{GroupName, QueueKey, QueueOffset, TopicName};

/// What an answer takes for each group.
const GROUP_BYTES: usize = 1536;

impl Remoting {
    /// Begins to set up the groups that `read` finds in the body.
    pub(super) async fn set_up_groups(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        body: &[u8],
        read: fn(&Value<'_>) -> Result<Vec<GroupAsked>, Refusal>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "set groups up")?;
        let asked = read(&Value::parse(body).map_err(no_json)?)?;
        let broker = self.connections.broker.clone();
        let done = async move {
            for asked in asked {
                broker.shape_group(shape_of(asked)).await.map_err(Refused::failed)?;
            }
            Ok(Answer::done())
        };
        self.begin(asker, done).await
    }

    /// Begins to remove a group: how it is set up, and where it is if that is wanted. One that is not there is gone, as
    /// RocketMQ has it.
    pub(super) async fn delete_group(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "delete groups")?;
        let fields = &header.fields;
        let group: GroupName = parsed(&fields.required_text("groupName")?)?;
        let with_places = fields.boolean("cleanOffset") || fields.boolean("removeOffset");
        let broker = self.connections.broker.clone();
        let removed = async move {
            let known = broker.group_shape(&group);
            let removed = match with_places {
                true => broker.handle(Request::DeleteGroup(group)).await.map(drop),
                false if known.is_some() => broker.shape_group(GroupShape::default_of(group)).await,
                false => Ok(()),
            };
            match removed {
                Err(failure) if failure.status != Status::GroupNotExist => Err(Refused::failed(failure)),
                _ => Ok(Answer::done()),
            }
        };
        self.begin(asker, removed).await
    }

    /// The groups that anybody knows.
    async fn known_groups(&self) -> Result<BTreeSet<GroupName>, Refused> {
        match self.connections.broker.handle(Request::ListGroups).await {
            Ok(Reply::Groups(groups)) => Ok(groups.into_iter().collect()),
            Ok(_) => Ok(BTreeSet::new()),
            Err(failure) => Err(Refused::failed(failure)),
        }
    }

    fn configuration(&self, group: GroupName) -> GroupConfiguration {
        let shape = self.connections.broker.group_shape(&group);
        let shape = shape.unwrap_or_else(|| GroupShape::default_of(group));
        GroupConfiguration {
            group: shape.group.to_string(),
            may_consume: shape.may_consume,
            may_broadcast: shape.may_broadcast,
            ordered: shape.ordered,
            retry_queues: shape.retry_queues,
            retries_max: match shape.deliveries_max {
                None => RETRIES_DEFAULT,
                Some(u32::MAX) => -1,
                Some(deliveries) => i64::from(deliveries) - 1,
            },
            retries: shape.retries,
        }
    }

    /// Begins to answer with all groups; those after the number that is said, as many as are wanted.
    pub(super) async fn group_table(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "list groups")?;
        let first = header.fields.number::<usize>("groupSeq").unwrap_or(0);
        let most = header.fields.number::<usize>("maxGroupNum").filter(|most| *most > 0);
        let most = most.unwrap_or(usize::MAX).min(limits::FRAME_BYTES_MAX / GROUP_BYTES);
        let remoting = self.clone();
        let table = async move {
            let known = remoting.known_groups().await?;
            let count = known.len();
            let wanted = known.into_iter().skip(first).take(most);
            let groups: Vec<_> = wanted.map(|group| remoting.configuration(group)).collect();
            let counter = remoting.connections.broker.groups_version();
            let version = DataVersion { counter, state: 0, timestamp: remoting.port().boot.0 as i64 };
            let mut answer = Answer::body(|output| write_group_table(&version, &groups, output));
            answer.fields = vec![("totalGroupNum", count.to_string())];
            Ok(answer)
        };
        self.begin_with_room(asker, limits::FRAME_BYTES_MAX.min(limits::GROUPS_MAX * GROUP_BYTES), table)
            .await
    }

    /// Begins to answer how a group is set up.
    pub(super) async fn group_configuration(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        let name = header.fields.required_text("group")?;
        self.check_group(sender, Some(&name)).map_err(Refused::failed)?;
        let group: GroupName = parsed(&name)?;
        let remoting = self.clone();
        let answered = async move {
            if !remoting.known_groups().await?.contains(&group) {
                let remark = format!("subscription group [{group}] does not exist");
                return Err(Refused::new(ResponseCode::SubscriptionGroupNotExist, remark));
            }
            let configuration = remoting.configuration(group);
            Ok(Answer::body(|output| configuration.write(output)))
        };
        self.begin(asker, answered).await
    }

    /// Begins to move a group in this broker's queues of a topic. Clients of it hear of it with their next pulls.
    pub(super) async fn reset_offsets(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "reset groups")?;
        let reset = OffsetReset::read(&header.fields)?;
        let remoting = self.clone();
        self.begin(asker, async move { remoting.reset(reset).await }).await
    }

    async fn reset(&self, reset: OffsetReset) -> Result<Answer, Refused> {
        let broker = &self.connections.broker;
        let topic: TopicName = reset.topic.parse().map_err(|_| no_topic(&reset.topic))?;
        let group: GroupName = parsed(&reset.group)?;
        let shards = u32::from(broker.options().shard_count);
        let wanted = |key: &QueueKey| reset.queue.is_none_or(|asked| key.queue.0 / shards == asked);
        let keys: Vec<_> = self.shown_queues(&topic)?.into_iter().filter(wanted).collect();
        if keys.is_empty() && reset.queue.is_some() {
            let remark = format!("the topic {topic} has no such queue on this broker");
            return Err(Refused::new(ResponseCode::InvalidParameter, remark));
        }
        broker
            .check_no_members(&group)
            .map_err(|failure| Refused::new(ResponseCode::SystemError, failure.message))?;
        let mut offsets = BTreeMap::new();
        for key in keys {
            let offset = match reset.to {
                ResetTo::Offset(offset) => QueueOffset(offset),
                ResetTo::End => self.offset_at(key, OffsetSpec::Last).await?,
                ResetTo::Time(time) => self.offset_at(key, OffsetSpec::Time(time)).await?,
            };
            self.move_group(&group, key, offset).await.map_err(Refused::failed)?;
            offsets.insert(key.queue.0 / shards, offset.0);
        }
        let name = self.own_name();
        let queues = offsets
            .into_iter()
            .map(|(queue, offset)| (QueueKeyed { topic: topic.as_str(), broker: &name, queue }, offset));
        Ok(Answer::body(|output| write_queue_offsets(queues, output)))
    }

    pub(super) async fn move_group(
        &self,
        group: &GroupName,
        key: QueueKey,
        offset: QueueOffset,
    ) -> Result<(), Failure> {
        let broker = &self.connections.broker;
        if broker.is_read(group) {
            return broker.move_readers(group, key, offset, self.network()).await;
        }
        let commit = CommitOffset { group: group.clone(), key, offset, member: None };
        broker.handle(Request::CommitOffset(commit)).await.map(drop)
    }

    /// Whether a group may read a topic: what is closed to it is closed as a whole.
    pub(super) fn readable_by(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        self.check_admin(sender, "set groups up")?;
        let fields = &header.fields;
        let (group, topic) = (fields.required_text("group")?, fields.required_text("topic")?);
        if fields.optional_boolean("readable") == Some(false) {
            let remark = "a group is not closed to one topic: updateSubGroup -s false closes it to all, updateTopicPerm -p 2 closes a \
                          topic to all groups, and access keys say who consumes what as which group";
            return Err(Refused::new(ResponseCode::NoPermission, remark));
        }
        Ok(Answer::body(|output| write_readable(&group, &topic, output)))
    }

    async fn offset_at(&self, key: QueueKey, spec: OffsetSpec) -> Result<QueueOffset, Refused> {
        self.connections.broker.find_offset(key, spec).await.map_err(Refused::failed)
    }
}

pub(super) fn parsed(name: &str) -> Result<GroupName, Refused> {
    name.parse().map_err(|error| {
        Refused::new(ResponseCode::InvalidParameter, format!("`{name}` is no name of a group: {error}"))
    })
}

fn shape_of(asked: GroupAsked) -> GroupShape {
    let deliveries_max = match asked.retries_max {
        RETRIES_DEFAULT => None,
        ..0 => Some(u32::MAX),
        retries => Some(u32::try_from(retries).unwrap_or(u32::MAX).saturating_add(1)),
    };
    GroupShape {
        group: asked.group,
        may_consume: asked.may_consume,
        may_broadcast: asked.may_broadcast,
        ordered: asked.ordered,
        retry_queues: asked.retry_queues,
        retries: asked.retries,
        deliveries_max,
    }
}
