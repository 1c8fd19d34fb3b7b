//! Requests about consumer groups as a whole: their settings, their state, their places.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use crate::api::{
    CommitOffset, Failure, GroupInfo, GroupQueueInfo, LeaseInfo, OffsetSpec, QueueInfo, Reply, Request,
    ResetGroup, ResetTarget, Status,
};
use crate::broker::client_requests::unexpected;
use crate::broker::peers::{GroupOffset, PeerReply, PeerRequest};
use crate::broker::shard_broker::Broker;
use crate::broker::topics::Others;
use crate::disk::Disk;
use crate::state::Topic;
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset};

impl<D: Disk> Broker<D> {
    pub(in crate::broker) async fn list_groups(&self) -> Result<Vec<GroupName>, Failure> {
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

    /// The groups of which this shard knows anything.
    pub fn own_group_names(&self) -> Vec<GroupName> {
        let tables = self.tables();
        let leases = self.leases();
        let receivers = self.receivers.borrow();
        let with_settings = tables.all_groups().map(|group| &group.settings.group);
        let readers = self.readers.borrow();
        let receiving =
            leases.groups().chain(receivers.groups(self.clock.monotonic())).chain(readers.groups());
        let names: BTreeSet<_> = tables.groups().chain(with_settings).chain(receiving).cloned().collect();
        names.into_iter().collect()
    }

    /// What was leased to a group, by queue, and what else there is to say of who consumes as it: why it gets nothing new, who is
    /// not taken into it.
    async fn group_holding(&self, group: &GroupName) -> Result<GroupHolding, Failure> {
        let mut holding = GroupHolding::default();
        for reply in self.ask_all(|| PeerRequest::GroupLeases(group.clone()), Others::AndThis).await? {
            match reply {
                PeerReply::GroupLeases { leases, locks, refused } => {
                    holding.leases.extend(leases.into_iter().map(|info| (info.key, info)));
                    holding.locks.extend(locks);
                    holding.refused.extend(refused);
                }
                other => return Err(unexpected(&other)),
            }
        }
        holding.refused.sort();
        holding.refused.dedup();
        Ok(holding)
    }

    pub(in crate::broker) async fn describe_group(&self, group: GroupName) -> Result<GroupInfo, Failure> {
        let receivers = self.group_receivers(&group).await?;
        let offsets = self.group_offsets(&group).await?;
        let GroupHolding { leases, locks, mut refused } = self.group_holding(&group).await?;
        if !receivers.is_empty() {
            refused.extend(self.closed_by_readers(&group));
        }
        refused.extend(self.closed_by_settings(&group));
        let (readers, left_out) = self.readers.borrow().shown(&group);
        if left_out > 0 {
            refused.push(format!(
                "{left_out} more of its clients are not shown: there is no room for them here"
            ));
        }
        let settings = self.tables().group_settings(&group).cloned();
        let now = self.clock.monotonic();
        self.groups.borrow_mut().expire(now);
        let described = self.groups.borrow().describe(&group, now);
        let (generation, members) =
            described.unwrap_or_else(|| (0, self.receivers_as_member(&receivers).into_iter().collect()));
        let is_known = !readers.is_empty()
            || !members.is_empty()
            || !offsets.is_empty()
            || !leases.is_empty()
            || settings.is_some();
        if !is_known {
            let message = format!("group {group} has no members, no receivers, no offsets and no settings");
            return Err(Failure::new(Status::GroupNotExist, message));
        }
        let topics: Vec<Topic> = {
            let tables = self.tables();
            let named = members.iter().flat_map(|member| &member.topics);
            let named = named.chain(receivers.iter().map(|receiver| &receiver.topic));
            let held = leases.keys().chain(locks.keys()).copied();
            let keys = offsets.iter().map(|offset| offset.key).chain(held);
            let ids = named.filter_map(|name| tables.topic_named(name)).map(|topic| topic.id);
            let ids: BTreeSet<_> = ids.chain(keys.map(|key| key.topic)).collect();
            ids.into_iter().filter_map(|id| tables.topic(id).cloned()).collect()
        };
        let committed: HashMap<_, _> = offsets.iter().map(|offset| (offset.key, offset.committed)).collect();
        let holder = |key: QueueKey| members.iter().find(|member| member.queues.contains(&key));
        let mut queues = Vec::new();
        for topic in topics {
            for range in self.queue_ranges(topic.id).await? {
                let key = QueueKey { topic: topic.id, queue: range.queue };
                let info = group_queue(&topic, &range, committed.get(&key).copied(), leases.get(&key));
                let member = holder(key).map(|member| member.member.clone());
                queues.push(GroupQueueInfo { member: member.or_else(|| locks.get(&key).cloned()), ..info });
            }
        }
        Ok(GroupInfo { group, generation, members, receivers, settings, queues, refused, readers })
    }

    pub(in crate::broker) async fn reset_group(self: &Rc<Self>, reset: ResetGroup) -> Result<Reply, Failure> {
        self.groups.borrow_mut().expire(self.clock.monotonic());
        if self.groups.borrow().has_members(&reset.group) {
            let message = format!("group {} has members: stop them first", reset.group);
            return Err(Failure::new(Status::GroupHasMembers, message));
        }
        self.check_not_read(&reset.group)?;
        let topic = self.topic_by_name(&reset.topic)?;
        match reset.target {
            ResetTarget::Offset(queue, offset) => {
                let key = QueueKey { topic: topic.id, queue };
                self.commit_anywhere(reset.group, key, offset).await?;
            }
            ResetTarget::Every(spec) => {
                // The same moment in every queue.
                let spec = spec.fixed(self.clock.now());
                for queue in (0..topic.queue_count).map(QueueNumber) {
                    let key = QueueKey { topic: topic.id, queue };
                    let offset = self.find_anywhere(key, spec).await?;
                    self.commit_anywhere(reset.group.clone(), key, offset).await?;
                }
            }
        }
        Ok(Reply::Done)
    }

    async fn find_anywhere(&self, key: QueueKey, spec: OffsetSpec) -> Result<QueueOffset, Failure> {
        let owner = key.queue.shard(self.options.shard_count);
        let request = PeerRequest::Client(Request::FindOffset { key, spec });
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

    /// What a group has been given here, and where a filter has left out everything so far.
    pub(in crate::broker) fn own_leases(&self, group: &GroupName) -> Vec<LeaseInfo> {
        let leases = self.leases();
        let mut infos = leases.of_group(group, self.steady.now());
        let passed = self.passed.borrow().of_group(group).into_iter();
        let passed = passed.filter(|(key, _)| leases.get(group, *key).is_none());
        infos.extend(passed.map(|(key, offset)| LeaseInfo {
            key,
            floor: offset,
            next: offset,
            leased: 0,
            waiting: 0,
            dead_letters: 0,
        }));
        infos
    }

    pub(in crate::broker) fn own_offsets(&self, group: &GroupName) -> Vec<GroupOffset> {
        let mut offsets: BTreeMap<_, _> = self.tables().offsets_of(group).into_iter().collect();
        // Where a group receives, that counts: everything below was dealt with. Whoever has the queue now, since what is
        // shown would go back otherwise when that changes, as it does by every restart.
        let received = self.own_leases(group).into_iter();
        offsets.extend(received.map(|info| (info.key, info.floor)));
        let queues = self.queues.borrow();
        let with_bounds = offsets.into_iter().filter_map(|(key, committed)| {
            let (first_offset, end_offset) = self.bounds(queues.get(&key)?);
            Some(GroupOffset { key, committed, first_offset, end_offset })
        });
        with_bounds.collect()
    }
}

/// What a group has of queues, on all shards.
#[derive(Default)]
struct GroupHolding {
    leases: HashMap<QueueKey, LeaseInfo>,
    /// Who has a queue to itself.
    locks: HashMap<QueueKey, String>,
    /// Why it gets nothing new, for each shard where that is so.
    refused: Vec<String>,
}

/// One queue as its group sees it; who reads it is not said here.
fn group_queue(
    topic: &Topic,
    range: &QueueInfo,
    committed: Option<QueueOffset>,
    leases: Option<&LeaseInfo>,
) -> GroupQueueInfo {
    // Where a group has leases, they say from where on nothing was delivered.
    let next = leases.map(|leases| leases.next).or(committed).unwrap_or(range.first_offset);
    // What retention has removed can not be read any more, so it is no lag.
    let undelivered = range.end_offset.0.saturating_sub(next.max(range.first_offset).0);
    let (leased, waiting) = leases.map_or((0, 0), |leases| (leases.leased, leases.waiting));
    GroupQueueInfo {
        topic: topic.name.clone(),
        queue: range.queue,
        committed,
        end_offset: range.end_offset,
        lag: undelivered + leased + waiting,
        member: None,
        leased,
        waiting,
        dead_letters: leases.map_or(0, |leases| leases.dead_letters),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::TopicPolicy;
    use crate::types::{Retention, ShardId, TopicId};

    #[test]
    fn lag_is_what_was_not_dealt_with() {
        let id = TopicId(1);
        let name = "t".parse().expect("a name");
        let (retention, policy) = (Retention::Inherited, TopicPolicy::default());
        let topic = Topic { name, id, queue_count: 1, retention, level: None, policy };
        let range = QueueInfo {
            queue: QueueNumber(0),
            shard: ShardId(0),
            first_offset: QueueOffset(10),
            end_offset: QueueOffset(100),
        };
        let lag = |committed: Option<u64>, leases: Option<(u64, u64, u64)>| {
            let leases = leases.map(|(next, leased, waiting)| LeaseInfo {
                key: QueueKey { topic: id, queue: QueueNumber(0) },
                floor: QueueOffset(committed.unwrap_or(0)),
                next: QueueOffset(next),
                leased,
                waiting,
                dead_letters: 7,
            });
            group_queue(&topic, &range, committed.map(QueueOffset), leases.as_ref()).lag
        };
        assert_eq!(lag(None, None), 90, "all there are");
        assert_eq!(lag(Some(60), None), 40);
        assert_eq!(lag(Some(3), None), 90, "what is gone is no lag");
        assert_eq!(lag(Some(60), Some((80, 0, 0))), 20, "those in between were acknowledged or left out");
        assert_eq!(lag(Some(60), Some((80, 3, 2))), 25);
        assert_eq!(lag(Some(100), Some((100, 0, 0))), 0, "dead letters are elsewhere");
    }
}
