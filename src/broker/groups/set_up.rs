//! How a group is treated, as those say it who set groups up by hand: what they do not name stays as it is.

use std::rc::Rc;
use std::time::Duration;

use crate::api::{Failure, GroupSettings, GroupTerms, Presence, SetUpGroup, Status};
use crate::broker::peers::PeerRequest;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::limits;
use crate::state::{Change, Group, GroupPolicy};
use crate::types::GroupName;

impl<D: Disk> Broker<D> {
    /// Sets how a group's messages are leased, on every shard.
    pub(in crate::broker) async fn alter_group(
        self: &Rc<Self>,
        settings: GroupSettings,
    ) -> Result<GroupSettings, Failure> {
        let set_up = SetUpGroup {
            settings,
            may_consume: None,
            may_broadcast: None,
            ordered: None,
            retry_queues: None,
            presence: Presence::Either,
            like: None,
        };
        self.set_up_group(set_up).await.map(|terms| terms.settings)
    }

    /// Makes a group, or changes how it is treated, on every shard.
    pub(in crate::broker) async fn set_up_group(
        self: &Rc<Self>,
        set_up: SetUpGroup,
    ) -> Result<GroupTerms, Failure> {
        let _guard = self.topic_change.lock().await;
        check_leases(&set_up.settings)?;
        self.check_presence(&set_up.settings.group, set_up.presence).await?;
        let group = {
            let tables = self.tables();
            let present = tables.group(&set_up.settings.group);
            let like = set_up.like.as_ref().map(|like| tables.group(like));
            if present.is_none() && tables.all_groups().count() >= limits::GROUPS_MAX {
                let message =
                    format!("there are settings for {} groups, no more are taken", limits::GROUPS_MAX);
                return Err(Failure::new(Status::LimitReached, message));
            }
            changed(present, like, set_up)
        };
        self.change(&[Change::Group(group.clone())]).await?;
        self.ask_others(|| PeerRequest::PutGroup(group.clone())).await?;
        tracing::info!(target: "groups", group = %group.settings.group, "settings of the group changed");
        let Group { settings, policy } = group;
        Ok(GroupTerms {
            settings,
            may_consume: policy.may_consume,
            may_broadcast: policy.may_broadcast,
            ordered: policy.ordered,
            retry_queues: policy.retry_queues,
        })
    }

    async fn check_presence(&self, group: &GroupName, presence: Presence) -> Result<(), Failure> {
        if presence == Presence::Either {
            return Ok(());
        }
        let is_there = self.list_groups().await?.contains(group);
        match presence {
            Presence::There if !is_there => {
                let message =
                    format!("group {group} does not exist: `turbopump group create {group}` makes it");
                Err(Failure::new(Status::GroupNotExist, message))
            }
            Presence::New if is_there => {
                let message = format!(
                    "group {group} exists already: `turbopump group alter {group}` changes its settings"
                );
                Err(Failure::new(Status::InvalidArgument, message))
            }
            Presence::There | Presence::New | Presence::Either => Ok(()),
        }
    }
}

fn check_leases(settings: &GroupSettings) -> Result<(), Failure> {
    let range = Duration::from_millis(limits::LEASE_MS_MIN)..=Duration::from_millis(limits::LEASE_MS_MAX);
    let leases = [settings.lease, settings.ordered_lease];
    match leases.into_iter().flatten().find(|lease| !range.contains(lease)) {
        None => Ok(()),
        Some(lease) => Err(Failure::invalid(format_args!(
            "a lease lasts {:?} to {:?}, not {lease:?}",
            range.start(),
            range.end()
        ))),
    }
}

/// The group that there is, or the one that it is to be like, if there is one, with what is set.
fn changed(present: Option<&Group>, like: Option<Option<&Group>>, set_up: SetUpGroup) -> Group {
    let SetUpGroup { settings, may_consume, may_broadcast, ordered, retry_queues, presence: _, like: _ } =
        set_up;
    let version = present.map_or(0, |group| group.policy.version);
    let base = like.unwrap_or(present);
    let policy = base.map(|group| group.policy.clone()).unwrap_or_default();
    let before = base.map(|group| &group.settings);
    Group {
        settings: GroupSettings {
            deliveries_max: settings.deliveries_max.or(before.and_then(|before| before.deliveries_max)),
            lease: settings.lease.or(before.and_then(|before| before.lease)),
            ordered_lease: settings.ordered_lease.or(before.and_then(|before| before.ordered_lease)),
            group: settings.group,
        },
        policy: GroupPolicy {
            may_consume: may_consume.unwrap_or(policy.may_consume),
            may_broadcast: may_broadcast.unwrap_or(policy.may_broadcast),
            ordered: ordered.unwrap_or(policy.ordered),
            retry_queues: retry_queues.unwrap_or(policy.retry_queues),
            version,
            ..policy
        }
        .changed(),
    }
}
