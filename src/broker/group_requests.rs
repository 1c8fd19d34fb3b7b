//! Requests about consumer groups as a whole: their settings, their state, their places.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use super::client_requests::unexpected;
use super::control::{Others, topic_missing};
use super::peers::{GroupOffset, PeerReply, PeerRequest};
use super::shard_broker::Broker;
use super::state_record::Change;
use super::tables::Topic;
use crate::api::{
    CommitOffset, Failure, GroupInfo, GroupQueueInfo, GroupSettings, OffsetPlace, Reply, Request, ResetGroup,
    ResetPlace, Status,
};
use crate::disk::Disk;
use crate::limits;
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset};

impl<D: Disk> Broker<D> {
    /// Sets how a group is treated, on every shard.
    pub(super) async fn alter_group(
        self: &Rc<Self>,
        change: GroupSettings,
    ) -> Result<GroupSettings, Failure> {
        let _turn = self.topic_change.take().await;
        let range = Duration::from_millis(limits::LEASE_MS_MIN)..=Duration::from_millis(limits::LEASE_MS_MAX);
        let leases = [change.lease, change.ordered_lease];
        if let Some(lease) = leases.into_iter().flatten().find(|lease| !range.contains(lease)) {
            return Err(Failure::invalid(format_args!(
                "a lease lasts {:?} to {:?}, not {lease:?}",
                range.start(),
                range.end()
            )));
        }
        let settings = {
            let tables = self.tables.borrow();
            let present = tables.group_settings(&change.group);
            if present.is_none() && tables.all_group_settings().count() >= limits::GROUPS_MAX {
                let message =
                    format!("there are settings for {} groups, no more are taken", limits::GROUPS_MAX);
                return Err(Failure::new(Status::LimitReached, message));
            }
            let present = present.cloned();
            let of = |field: fn(&GroupSettings) -> Option<Duration>| present.as_ref().and_then(field);
            GroupSettings {
                deliveries_max: change
                    .deliveries_max
                    .or(present.as_ref().and_then(|settings| settings.deliveries_max)),
                lease: change.lease.or(of(|settings| settings.lease)),
                ordered_lease: change.ordered_lease.or(of(|settings| settings.ordered_lease)),
                group: change.group,
            }
        };
        self.change(&[Change::Group(settings.clone())]).await?;
        self.ask_others(|| PeerRequest::PutGroup(settings.clone())).await?;
        Ok(settings)
    }

    pub(super) async fn list_groups(&self) -> Result<Vec<GroupName>, Failure> {
        self.groups.borrow_mut().expire(self.clock.monotonic());
        let mut names: BTreeSet<_> = self.groups.borrow().names().cloned().collect();
        for reply in self.ask_all(|| PeerRequest::GroupNames, Others::AndThis).await? {
            match reply {
                PeerReply::GroupNames(found) => names.extend(found),
                other => return Err(unexpected(&other)),
            }
        }
        Ok(names.into_iter().collect())
    }

    async fn group_offsets(&self, group: &GroupName) -> Result<Vec<GroupOffset>, Failure> {
        let mut offsets = Vec::new();
        for reply in self.ask_all(|| PeerRequest::GroupOffsets(group.clone()), Others::AndThis).await? {
            match reply {
                PeerReply::GroupOffsets(found) => offsets.extend(found),
                other => return Err(unexpected(&other)),
            }
        }
        Ok(offsets)
    }

    pub(super) async fn describe_group(&self, group: GroupName) -> Result<GroupInfo, Failure> {
        let now = self.clock.monotonic();
        self.groups.borrow_mut().expire(now);
        let described = self.groups.borrow().describe(&group, now);
        let (generation, members) = match described {
            Some(described) => described,
            None => (0, self.receivers_as_member(&group).await?.into_iter().collect()),
        };
        let offsets = self.group_offsets(&group).await?;
        if members.is_empty() && offsets.is_empty() {
            return Err(Failure::new(
                Status::GroupNotExist,
                format!("group {group} has neither members nor offsets"),
            ));
        }
        let committed: HashMap<_, _> = offsets.iter().map(|offset| (offset.key, offset.committed)).collect();
        let holder = |key: QueueKey| members.iter().find(|member| member.queues.contains(&key));
        let topics: Vec<Topic> = {
            let tables = self.tables.borrow();
            let subscribed =
                members.iter().flat_map(|member| &member.topics).filter_map(|name| tables.topic_named(name));
            let read = offsets.iter().filter_map(|offset| tables.topic(offset.key.topic));
            let ids: BTreeSet<_> = subscribed.chain(read).map(|topic| topic.id).collect();
            ids.into_iter().filter_map(|id| tables.topic(id).cloned()).collect()
        };
        let mut queues = Vec::new();
        for topic in topics {
            for range in self.queue_ranges(topic.id).await? {
                let key = QueueKey { topic: topic.id, queue: range.queue };
                let committed = committed.get(&key).copied();
                // What retention has removed can not be read any more, so it is no lag.
                let next = committed.unwrap_or(range.first_offset).max(range.first_offset);
                queues.push(GroupQueueInfo {
                    topic: topic.name.clone(),
                    queue: range.queue,
                    committed,
                    end_offset: range.end_offset,
                    lag: range.end_offset.0.saturating_sub(next.0),
                    member: holder(key).map(|member| member.member.clone()),
                });
            }
        }
        Ok(GroupInfo { group, generation, members, queues })
    }

    pub(super) async fn reset_group(self: &Rc<Self>, reset: ResetGroup) -> Result<Reply, Failure> {
        self.groups.borrow_mut().expire(self.clock.monotonic());
        if self.groups.borrow().has_members(&reset.group) {
            let message = format!("group {} has members: stop them first", reset.group);
            return Err(Failure::new(Status::GroupHasMembers, message));
        }
        let topic = self.tables.borrow().topic_named(&reset.topic).cloned();
        let topic = topic.ok_or_else(|| topic_missing(&reset.topic))?;
        match reset.place {
            ResetPlace::Offset(queue, offset) => {
                let key = QueueKey { topic: topic.id, queue };
                self.commit_anywhere(reset.group, key, offset).await?;
            }
            ResetPlace::Every(place) => {
                for queue in (0..topic.queue_count).map(QueueNumber) {
                    let key = QueueKey { topic: topic.id, queue };
                    let offset = self.find_anywhere(key, place).await?;
                    self.commit_anywhere(reset.group.clone(), key, offset).await?;
                }
            }
        }
        Ok(Reply::Done)
    }

    async fn find_anywhere(&self, key: QueueKey, place: OffsetPlace) -> Result<QueueOffset, Failure> {
        let owner = key.queue.shard(self.options.shard_count);
        let request = PeerRequest::Client(Request::FindOffset { key, place });
        match self.peers()?.ask(owner, request).await? {
            PeerReply::Client(Reply::OffsetFound(offset)) => Ok(offset),
            other => Err(unexpected(&other)),
        }
    }

    async fn commit_anywhere(
        &self,
        group: GroupName,
        key: QueueKey,
        offset: QueueOffset,
    ) -> Result<(), Failure> {
        let owner = key.queue.shard(self.options.shard_count);
        let commit = CommitOffset { group, key, offset, member: None };
        let request = PeerRequest::Client(Request::CommitOffset(commit));
        match self.peers()?.ask(owner, request).await? {
            PeerReply::Client(Reply::Done) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn own_offsets(&self, group: &GroupName) -> Vec<GroupOffset> {
        let leases = self.leases.borrow();
        let mut offsets: BTreeMap<_, _> = self.tables.borrow().offsets_of(group).into_iter().collect();
        // Where a group receives, that counts.
        let received = leases.of_group(group, self.clock.now()).into_iter();
        offsets.extend(received.filter_map(|info| Some((info.key, self.place_of(group, info.key)?))));
        let queues = self.queues.borrow();
        let with_bounds = offsets.into_iter().filter_map(|(key, committed)| {
            let (first_offset, end_offset) = self.bounds(queues.get(&key)?);
            Some(GroupOffset { key, committed, first_offset, end_offset })
        });
        with_bounds.collect()
    }
}
