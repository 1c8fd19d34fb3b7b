//! Groups as RocketMQ's tools set them up: the same on every shard, whichever is asked.

use std::rc::Rc;

use crate::api::{Failure, GroupSettings, RetryPolicy, Status};
use crate::broker::client_requests::{CONTROL_SHARD, unexpected};
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::limits;
use crate::state::{Change, Group, GroupPolicy};
use crate::types::GroupName;

/// What a group is to be like. How its messages are leased stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupShape {
    pub group: GroupName,
    pub may_consume: bool,
    pub may_broadcast: bool,
    pub ordered: bool,
    pub retry_queues: u32,
    pub retries: RetryPolicy,
    /// `None`: as the node has it.
    pub deliveries_max: Option<u32>,
}

impl GroupShape {
    /// As a group is of which nobody has said anything.
    pub fn default_of(group: GroupName) -> Self {
        let policy = GroupPolicy::default();
        Self {
            group,
            may_consume: policy.may_consume,
            may_broadcast: policy.may_broadcast,
            ordered: policy.ordered,
            retry_queues: policy.retry_queues,
            retries: policy.retries,
            deliveries_max: None,
        }
    }

    fn of_present(&self, present: Option<&Group>) -> Group {
        let lease = present.and_then(|group| group.settings.lease);
        let ordered_lease = present.and_then(|group| group.settings.ordered_lease);
        let (group, deliveries_max) = (self.group.clone(), self.deliveries_max);
        let version = present.map_or(0, |group| group.policy.version);
        Group {
            settings: GroupSettings { group, deliveries_max, lease, ordered_lease },
            policy: GroupPolicy {
                version,
                may_consume: self.may_consume,
                may_broadcast: self.may_broadcast,
                retry_queues: self.retry_queues,
                retries: self.retries.clone(),
                ordered: self.ordered,
            },
        }
    }
}

impl<D: Disk> Broker<D> {
    /// Sets a group up. When this returns, every shard has it so.
    pub async fn shape_group(self: &Rc<Self>, shape: GroupShape) -> Result<(), Failure> {
        if self.options.shard != CONTROL_SHARD {
            return match self.peers()?.ask(CONTROL_SHARD, PeerRequest::ShapeGroup(shape)).await? {
                PeerReply::Done => Ok(()),
                other => Err(unexpected(&other)),
            };
        }
        let _guard = self.topic_change.lock().await;
        let (before, count) = {
            let tables = self.tables();
            (tables.group(&shape.group).cloned(), tables.all_groups().count())
        };
        if before.is_none() && count >= limits::GROUPS_MAX {
            let message = format!("there are settings for {count} groups, no more are taken");
            return Err(Failure::new(Status::LimitReached, message));
        }
        let group = shape.of_present(before.as_ref());
        if before.as_ref() == Some(&group) {
            return Ok(());
        }
        let group = Group { policy: group.policy.changed(), ..group };
        self.change(&[Change::Group(group.clone())]).await?;
        self.ask_others(|| PeerRequest::PutGroup(group.clone())).await?;
        tracing::info!(target: "groups", group = %group.settings.group, "group set up");
        Ok(())
    }

    pub(in crate::broker) async fn shape_group_for_peer(
        self: &Rc<Self>,
        shape: GroupShape,
    ) -> Result<PeerReply, Failure> {
        self.shape_group(shape).await.map(|()| PeerReply::Done)
    }

    /// A number that is another one after each change of how groups are set up.
    pub fn groups_version(&self) -> i64 {
        self.tables().all_groups().map(|group| i64::from(group.policy.version)).sum()
    }

    /// How a group is set up, where anybody has said so.
    pub fn group_shape(&self, group: &GroupName) -> Option<GroupShape> {
        let tables = self.tables();
        let Group { settings, policy } = tables.group(group)?;
        Some(GroupShape {
            group: group.clone(),
            may_consume: policy.may_consume,
            may_broadcast: policy.may_broadcast,
            ordered: policy.ordered,
            retry_queues: policy.retry_queues,
            retries: policy.retries.clone(),
            deliveries_max: settings.deliveries_max,
        })
    }
}
