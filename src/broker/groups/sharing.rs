//! One group, consumed by members that read queues of their own and by receivers: joining, leaving, and who has which
//! queue. Everything but [`group_receivers`](Broker::group_receivers) runs on the control shard.

use futures_util::future::join_all;

use super::membership::{QueueGrants, RECEIVERS};
use super::receivers::SeenReceivers;
use crate::api::{Assignment, ConnectionId, Failure, JoinGroup, MemberInfo, ReceiverInfo, Reply};
use crate::broker::client_requests::{CONTROL_SHARD, unexpected};
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::shard_broker::Broker;
use crate::broker::topics::topic_missing;
use crate::disk::Disk;
use crate::types::{GroupName, QueueKey, QueueNumber, ShardId, TopicId};

impl<D: Disk> Broker<D> {
    pub(in crate::broker) async fn join_group(&self, join: &JoinGroup) -> Result<Assignment, Failure> {
        if join.member == RECEIVERS {
            return Err(Failure::invalid(format_args!("`{RECEIVERS}` names those who receive for a group")));
        }
        self.check_open(&join.group)?;
        self.groups.borrow_mut().end_sessions(&join.group, self.clock.monotonic());
        let is_first = !self.groups.borrow().has_members(&join.group);
        // From the first member on, shards tell of receivers by themselves.
        let receivers = if is_first { self.seen_receivers(&join.group).await? } else { Vec::new() };
        {
            if !self.groups.borrow().has_members(&join.group) {
                self.check_not_read(&join.group)?;
            }
            let tables = self.tables();
            if let Some(topic) = join.topics.iter().find(|topic| tables.topic_named(topic).is_none()) {
                return Err(topic_missing(&tables, topic));
            }
            let mut groups = self.groups.borrow_mut();
            groups.join(join, self.clock.monotonic(), |name| {
                tables.topic_named(name).map(|topic| (topic.id, topic.queue_count))
            })?;
            for seen in receivers {
                groups.note_receivers(&join.group, seen.topic, seen.last_seen);
            }
        }
        self.distribute_grants(Some(&join.group)).await?;
        // What has become free by that is the member's once its shard knows.
        let granted = self.groups.borrow_mut().grant(&join.group, &join.member)?;
        if granted {
            self.distribute_grants(Some(&join.group)).await?;
        }
        self.groups.borrow().assignment(&join.group, &join.member)
    }

    /// A connection has ended over which members of these groups had joined.
    pub async fn connection_ended(&self, connection: ConnectionId, groups: Vec<GroupName>) {
        if self.options.shard == CONTROL_SHARD {
            let now = self.clock.monotonic();
            return self.groups.borrow_mut().connection_ended(&groups, connection, now);
        }
        let Ok(peers) = self.peers() else { return };
        // When it does not hear of it, the members' time-outs are what ends their sessions.
        let _ = peers.ask(CONTROL_SHARD, PeerRequest::ConnectionEnded { connection, groups }).await;
    }

    pub(in crate::broker) async fn leave_group(
        &self,
        group: &GroupName,
        member: &str,
    ) -> Result<Reply, Failure> {
        self.groups.borrow_mut().leave(group, member)?;
        let remaining = self.groups.borrow().has_members(group).then_some(group);
        // A shard that hears nothing of it asks when somebody receives.
        let _ = self.distribute_grants(remaining).await;
        Ok(Reply::Done)
    }

    /// Ends the sessions of members that are over; whether the shards have to hear of groups that have no members any more. To be
    /// called about once a second: receivers ask by themselves, but readers do not.
    pub fn end_member_sessions(&self) -> bool {
        let mut groups = self.groups.borrow_mut();
        groups.expire(self.clock.monotonic());
        groups.has_ended()
    }

    /// Has all shards hear of groups that have no members any more.
    pub async fn tell_of_ended_groups(&self) {
        // A shard that hears nothing of it asks when somebody receives.
        let _ = self.distribute_grants(None).await;
    }

    /// Receivers of a group that has members, or had them.
    pub(in crate::broker) async fn receivers_seen(
        &self,
        group: &GroupName,
        topic: TopicId,
    ) -> Result<PeerReply, Failure> {
        let now = self.clock.monotonic();
        self.groups.borrow_mut().end_sessions(group, now);
        self.groups.borrow_mut().note_receivers(group, topic, now);
        self.distribute_grants(Some(group)).await?;
        Ok(PeerReply::Done)
    }

    /// Has all shards carry out what is new about a group, and what is left to say of groups that have ended.
    async fn distribute_grants(&self, group: Option<&GroupName>) -> Result<(), Failure> {
        let mut grants: Vec<(GroupName, QueueGrants)> = self.groups.borrow_mut().take_ended();
        if let Some(group) = group {
            grants.retain(|(ended, _)| ended != group);
            let unsettled = self.groups.borrow_mut().unsettled_grants(group);
            grants.extend(unsettled.map(|grants| (group.clone(), grants)));
        }
        let peers = self.peers()?;
        for (group, grants) in grants {
            let shards = (0..self.options.shard_count).map(ShardId);
            let asked = shards.map(|shard| {
                peers.ask(shard, PeerRequest::SetGates { group: group.clone(), grants: grants.clone() })
            });
            let answers: Vec<_> = join_all(asked).await.into_iter().map(draining).collect();
            self.groups.borrow_mut().carried_out(&group, &grants, &answers);
        }
        Ok(())
    }

    async fn seen_receivers(&self, group: &GroupName) -> Result<Vec<SeenReceivers>, Failure> {
        let peers = self.peers()?;
        let shards = (0..self.options.shard_count).map(ShardId);
        let asked = shards.map(|shard| peers.ask(shard, PeerRequest::GroupReceivers(group.clone())));
        let mut seen = Vec::new();
        for answer in join_all(asked).await {
            match answer? {
                PeerReply::GroupReceivers(found) => seen.extend(found),
                other => return Err(unexpected(&other)),
            }
        }
        Ok(seen)
    }

    /// Who receives for a group, through whichever shard: one entry for each topic, protocol and filter.
    pub async fn group_receivers(&self, group: &GroupName) -> Result<Vec<ReceiverInfo>, Failure> {
        let seen = self.seen_receivers(group).await?;
        Ok(self.receiver_infos(seen))
    }

    /// What all shards have seen, put together.
    pub(super) fn receiver_infos(&self, seen: Vec<SeenReceivers>) -> Vec<ReceiverInfo> {
        let now = self.clock.monotonic();
        let tables = self.tables();
        let mut infos: Vec<ReceiverInfo> = Vec::new();
        for seen in seen {
            let Some(topic) = tables.topic(seen.topic) else { continue };
            let age = now.since(seen.last_seen);
            let is_same = |info: &&mut ReceiverInfo| {
                info.topic == topic.name
                    && (info.protocol, info.ordered) == (seen.protocol, seen.ordered)
                    && info.filter == seen.filter
            };
            match infos.iter_mut().find(is_same) {
                Some(info) => {
                    info.active += seen.active;
                    info.seen_age = info.seen_age.min(age);
                }
                None => infos.push(ReceiverInfo {
                    topic: topic.name.clone(),
                    protocol: seen.protocol,
                    filter: seen.filter,
                    ordered: seen.ordered,
                    active: seen.active,
                    seen_age: age,
                }),
            }
        }
        let order =
            |info: &ReceiverInfo| (info.topic.clone(), info.filter.clone(), info.protocol, info.ordered);
        infos.sort_by_cached_key(order);
        infos
    }

    /// The receivers of a group without members, as one member that has all queues of its topics.
    pub(in crate::broker) fn receivers_as_member(&self, receivers: &[ReceiverInfo]) -> Option<MemberInfo> {
        let tables = self.tables();
        let mut member: Option<MemberInfo> = None;
        for info in receivers {
            let member = member.get_or_insert_with(|| MemberInfo {
                member: RECEIVERS.to_owned(),
                topics: Vec::new(),
                queues: Vec::new(),
                heartbeat_age: info.seen_age,
            });
            member.heartbeat_age = member.heartbeat_age.min(info.seen_age);
            let Some(topic) =
                tables.topic_named(&info.topic).filter(|_| !member.topics.contains(&info.topic))
            else {
                continue;
            };
            member.topics.push(info.topic.clone());
            let queues = (0..topic.queue_count).map(QueueNumber);
            member.queues.extend(queues.map(|queue| QueueKey { topic: topic.id, queue }));
        }
        member
    }
}

/// The queues that a shard has not closed yet; `None` when it has not carried out the grants.
fn draining(answer: Result<PeerReply, Failure>) -> Option<Vec<QueueKey>> {
    match answer {
        Ok(PeerReply::GatesSet { draining }) => Some(draining),
        _ => None,
    }
}
