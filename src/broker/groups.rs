//! Members of consumer groups and which queues each of them reads. Held in memory on the control shard only: after a
//! restart the members join again.
//!
//! A queue changes hands in two steps, so that no two members read it at once: the coordinator takes it from a member's
//! *targets* under a new generation, and gives it to the next one only when the former has confirmed that generation
//! (it *holds* the queue until then), or when its session has ended.
//!
//! Holding is also what a member's commits are checked against: one whose session has ended does not know it yet, and
//! its commit would move back what the next holder has committed. It hears of it with its next request: no generation
//! comes twice in a broker's life, and a member that names one and is not known has lost everything that it had then.
//!
//! Queues are divided as RocketMQ's default strategy does
//! (`client/.../consumer/rebalance/AllocateMessageQueueAveragely.java`): per topic, members in the order of their names,
//! contiguous ranges, the first ones one queue longer.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::api::{ActingMember, Assignment, Failure, JoinGroup, MemberInfo, Status};
use crate::limits;
use crate::types::{GroupName, MonotonicTime, QueueKey, QueueNumber, TopicId, TopicName};

/// All groups with members.
#[derive(Debug, Default)]
pub struct Groups {
    groups: BTreeMap<GroupName, Group>,
    /// The newest generation of any group.
    generation: u64,
}

/// Whether `acting` may commit in `key`.
#[derive(Clone, Debug)]
pub struct HolderCheck {
    pub group: GroupName,
    pub acting: ActingMember,
    pub key: QueueKey,
}

#[derive(Debug, Default)]
struct Group {
    generation: u64,
    members: BTreeMap<String, Member>,
    /// Who reads a queue now.
    holders: HashMap<QueueKey, Holder>,
    /// The queues of the topics when the targets were computed.
    layout: BTreeMap<TopicName, (TopicId, u32)>,
}

#[derive(Debug)]
struct Holder {
    member: String,
    /// The generation in which it got the queue.
    since: u64,
}

#[derive(Debug)]
struct Member {
    topics: Vec<TopicName>,
    session_timeout: Duration,
    last_seen: MonotonicTime,
    targets: Vec<QueueKey>,
}

impl Groups {
    /// A member joins or confirms that it lives. `layout` tells a topic's id and queue count.
    pub fn join(
        &mut self,
        join: &JoinGroup,
        now: MonotonicTime,
        layout: impl Fn(&TopicName) -> Option<(TopicId, u32)>,
    ) -> Result<Assignment, Failure> {
        self.end_sessions(&join.group, now);
        if join.generation != 0 && !self.has_member(&join.group, &join.member) {
            return Err(member_unknown(&join.group, &join.member));
        }
        let group_count = self.groups.len();
        if !self.groups.contains_key(&join.group) && group_count >= limits::GROUPS_MAX {
            return Err(Failure::new(
                Status::LimitReached,
                format!("{group_count} groups have members, no more are taken"),
            ));
        }
        let group = self.groups.entry(join.group.clone()).or_default();
        if !group.members.contains_key(&join.member) && group.members.len() >= limits::GROUP_MEMBERS_MAX {
            let count = group.members.len();
            return Err(Failure::new(
                Status::LimitReached,
                format!("the group has {count} members, no more are taken"),
            ));
        }
        let mut changed = group.note_member(join, now);
        changed |= group.note_layout(layout);
        if changed {
            group.rebalance(&mut self.generation);
        }
        if join.generation == group.generation {
            group.release(&join.member);
        }
        Ok(group.grant(&join.member))
    }

    /// A member leaves; its queues are free at once.
    pub fn leave(&mut self, group: &GroupName, member: &str) -> Result<(), Failure> {
        let unknown = || member_unknown(group, member);
        let state = self.groups.get_mut(group).ok_or_else(unknown)?;
        state.members.remove(member).ok_or_else(unknown)?;
        state.holders.retain(|_, holder| holder.member != member);
        state.rebalance(&mut self.generation);
        if state.members.is_empty() {
            self.groups.remove(group);
        }
        Ok(())
    }

    /// Ends sessions that are over; groups without members are forgotten.
    pub fn expire(&mut self, now: MonotonicTime) {
        for group in self.groups.values_mut() {
            if group.expire(now) {
                group.rebalance(&mut self.generation);
            }
        }
        self.groups.retain(|_, group| !group.members.is_empty());
    }

    /// The same for one group.
    fn end_sessions(&mut self, name: &GroupName, now: MonotonicTime) {
        let Some(group) = self.groups.get_mut(name) else { return };
        if group.expire(now) {
            group.rebalance(&mut self.generation);
        }
        if group.members.is_empty() {
            self.groups.remove(name);
        }
    }

    /// Refuses whoever does not hold the queue, or has lost it since it last heard of its assignment.
    pub fn check_holder(&mut self, check: &HolderCheck, now: MonotonicTime) -> Result<(), Failure> {
        let HolderCheck { group, acting, key } = check;
        self.end_sessions(group, now);
        if !self.has_member(group, &acting.member) {
            return Err(member_unknown(group, &acting.member));
        }
        let holder = self.groups[group].holders.get(key);
        if holder.is_some_and(|holder| holder.member == acting.member && holder.since <= acting.generation) {
            return Ok(());
        }
        let message = format!(
            "`{}` does not hold {key} for group `{group}` in generation {}: join again",
            acting.member, acting.generation
        );
        Err(Failure::new(Status::GenerationStale, message))
    }

    fn has_member(&self, group: &GroupName, member: &str) -> bool {
        self.groups.get(group).is_some_and(|group| group.members.contains_key(member))
    }

    pub fn names(&self) -> impl Iterator<Item = &GroupName> {
        self.groups.keys()
    }

    pub fn has_members(&self, group: &GroupName) -> bool {
        self.groups.contains_key(group)
    }

    /// Generation and members; `None` for a group without members.
    pub fn describe(&self, group: &GroupName, now: MonotonicTime) -> Option<(u64, Vec<MemberInfo>)> {
        let group = self.groups.get(group)?;
        let members = group
            .members
            .iter()
            .map(|(name, member)| MemberInfo {
                member: name.clone(),
                topics: member.topics.clone(),
                queues: group.held_by(name),
                heartbeat_age: now.since(member.last_seen),
            })
            .collect();
        Some((group.generation, members))
    }
}

impl Group {
    /// Removes members whose session is over; true when there were any.
    fn expire(&mut self, now: MonotonicTime) -> bool {
        let before = self.members.len();
        self.members.retain(|_, member| now.since(member.last_seen) <= member.session_timeout);
        let members = &self.members;
        self.holders.retain(|_, holder| members.contains_key(&holder.member));
        self.members.len() != before
    }

    /// Adds or refreshes a member; true when queues must be divided anew.
    fn note_member(&mut self, join: &JoinGroup, now: MonotonicTime) -> bool {
        let member = self.members.entry(join.member.clone()).or_insert_with(|| Member {
            topics: Vec::new(),
            session_timeout: join.session_timeout,
            last_seen: now,
            targets: Vec::new(),
        });
        member.last_seen = now;
        member.session_timeout = join.session_timeout;
        let changed = member.topics != join.topics;
        member.topics.clone_from(&join.topics);
        changed
    }

    /// Takes note of the topics' present queues; true when they changed.
    fn note_layout(&mut self, layout: impl Fn(&TopicName) -> Option<(TopicId, u32)>) -> bool {
        let topics = self.members.values().flat_map(|member| &member.topics);
        let present: BTreeMap<_, _> =
            topics.filter_map(|topic| layout(topic).map(|place| (topic.clone(), place))).collect();
        let changed = present != self.layout;
        self.layout = present;
        changed
    }

    /// Divides the queues among the members under a new generation, the one after `newest`.
    fn rebalance(&mut self, newest: &mut u64) {
        *newest += 1;
        self.generation = *newest;
        self.members.values_mut().for_each(|member| member.targets.clear());
        for (topic, &(id, queue_count)) in &self.layout {
            let mut readers: Vec<_> =
                self.members.values_mut().filter(|member| member.topics.contains(topic)).collect();
            let count = readers.len() as u32;
            let mut next = 0;
            for (index, reader) in (0u32..).zip(readers.iter_mut()) {
                let share = queue_count / count + u32::from(index < queue_count % count);
                let range = next..next + share;
                reader.targets.extend(range.map(|queue| QueueKey { topic: id, queue: QueueNumber(queue) }));
                next += share;
            }
        }
        // Queues of deleted topics are nobody's.
        let ids: Vec<_> = self.layout.values().map(|(id, _)| *id).collect();
        self.holders.retain(|key, _| ids.contains(&key.topic));
    }

    /// The member has carried out this generation: what it is not to read any more is free.
    fn release(&mut self, member: &str) {
        let targets = &self.members[member].targets;
        self.holders.retain(|key, holder| holder.member != member || targets.contains(key));
    }

    /// Gives the member those of its targets that are free, and says which ones it has.
    fn grant(&mut self, member: &str) -> Assignment {
        let targets = self.members[member].targets.clone();
        let since = self.generation;
        let mut is_held = |key: &QueueKey| {
            let holder = self.holders.entry(*key);
            holder.or_insert_with(|| Holder { member: member.to_owned(), since }).member == member
        };
        let queues: Vec<_> = targets.iter().copied().filter(&mut is_held).collect();
        Assignment { generation: self.generation, settled: queues.len() == targets.len(), queues }
    }

    fn held_by(&self, member: &str) -> Vec<QueueKey> {
        let held = self.holders.iter().filter(|(_, holder)| holder.member == member);
        let mut queues: Vec<_> = held.map(|(key, _)| *key).collect();
        queues.sort();
        queues
    }
}

fn member_unknown(group: &GroupName, member: &str) -> Failure {
    let message = format!("`{member}` is no member of group `{group}`, or not any more: join again");
    Failure::new(Status::MemberUnknown, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime(seconds * 1_000_000_000)
    }

    fn join(groups: &mut Groups, member: &str, generation: u64, seconds: u64) -> Assignment {
        let request = JoinGroup {
            group: "g".parse().expect("a name"),
            member: member.to_owned(),
            topics: vec!["t".parse().expect("a name")],
            session_timeout: Duration::from_secs(10),
            generation,
        };
        groups.join(&request, at(seconds), |_| Some((TopicId(1), 4))).expect("within the limits")
    }

    fn numbers(assignment: &Assignment) -> Vec<u32> {
        assignment.queues.iter().map(|key| key.queue.0).collect()
    }

    #[test]
    fn a_queue_is_handed_over_only_after_its_holder_has_confirmed() {
        let mut groups = Groups::default();
        let alone = join(&mut groups, "a", 0, 0);
        assert_eq!((numbers(&alone), alone.settled), (vec![0, 1, 2, 3], true));
        let waiting = join(&mut groups, "b", 0, 1);
        assert_eq!((numbers(&waiting), waiting.settled), (vec![], false));
        // The first member learns that it has two queues less, but has not stopped reading them yet.
        let shrunk = join(&mut groups, "a", alone.generation, 2);
        assert_eq!((numbers(&shrunk), shrunk.generation), (vec![0, 1], waiting.generation));
        assert_eq!(numbers(&join(&mut groups, "b", waiting.generation, 2)), Vec::<u32>::new());
        join(&mut groups, "a", shrunk.generation, 3);
        let granted = join(&mut groups, "b", waiting.generation, 3);
        assert_eq!((numbers(&granted), granted.settled), (vec![2, 3], true));
    }

    #[test]
    fn a_dead_member_loses_its_queues_within_its_session_timeout() {
        let mut groups = Groups::default();
        join(&mut groups, "a", 0, 0);
        join(&mut groups, "b", 0, 1);
        assert_eq!(numbers(&join(&mut groups, "b", 2, 9)), Vec::<u32>::new());
        assert_eq!(numbers(&join(&mut groups, "b", 2, 11)), vec![0, 1, 2, 3]);
    }

    fn check(
        groups: &mut Groups,
        member: &str,
        generation: u64,
        queue: u32,
        seconds: u64,
    ) -> Result<(), Status> {
        let acting = ActingMember { member: member.to_owned(), generation };
        let key = QueueKey { topic: TopicId(1), queue: QueueNumber(queue) };
        let check = HolderCheck { group: "g".parse().expect("a name"), acting, key };
        groups.check_holder(&check, at(seconds)).map_err(|failure| failure.status)
    }

    #[test]
    fn a_queue_s_holder_alone_may_commit() {
        let mut groups = Groups::default();
        let alone = join(&mut groups, "a", 0, 0);
        assert_eq!(check(&mut groups, "a", alone.generation, 3, 0), Ok(()));
        let waiting = join(&mut groups, "b", 0, 1);
        // What is to be given up may be committed until it was.
        assert_eq!(check(&mut groups, "a", alone.generation, 3, 1), Ok(()));
        assert_eq!(check(&mut groups, "b", waiting.generation, 3, 1), Err(Status::GenerationStale));
        let shrunk = join(&mut groups, "a", alone.generation, 2);
        join(&mut groups, "a", shrunk.generation, 2);
        assert_eq!(check(&mut groups, "a", shrunk.generation, 3, 2), Err(Status::GenerationStale));
        join(&mut groups, "b", waiting.generation, 3);
        assert_eq!(check(&mut groups, "b", waiting.generation, 3, 3), Ok(()));
        assert_eq!(check(&mut groups, "c", waiting.generation, 3, 3), Err(Status::MemberUnknown));
        assert_eq!(check(&mut groups, "b", waiting.generation, 3, 14), Err(Status::MemberUnknown));
    }

    /// Another member may have read and committed between the two lives of the first, and be gone as well.
    #[test]
    fn a_member_that_comes_back_under_its_name_starts_anew() {
        let mut groups = Groups::default();
        let before = join(&mut groups, "a", 0, 0);
        join(&mut groups, "b", 0, 20);
        let late = JoinGroup {
            group: "g".parse().expect("a name"),
            member: "a".to_owned(),
            topics: vec!["t".parse().expect("a name")],
            session_timeout: Duration::from_secs(10),
            generation: before.generation,
        };
        let refused = groups.join(&late, at(40), |_| Some((TopicId(1), 4)));
        assert_eq!(refused.map_err(|failure| failure.status), Err(Status::MemberUnknown));
        assert!(!groups.has_members(&late.group));
        let after = join(&mut groups, "a", 0, 40);
        assert_eq!(numbers(&after).len(), 4);
        assert_eq!(check(&mut groups, "a", before.generation, 0, 40), Err(Status::GenerationStale));
        assert_eq!(check(&mut groups, "a", after.generation, 0, 40), Ok(()));
    }

    #[test]
    fn members_that_leave_free_their_queues_at_once() {
        let mut groups = Groups::default();
        join(&mut groups, "a", 0, 0);
        join(&mut groups, "b", 0, 0);
        let group = "g".parse().expect("a name");
        assert_eq!(groups.leave(&group, "a"), Ok(()));
        assert_eq!(groups.leave(&group, "a").map_err(|failure| failure.status), Err(Status::MemberUnknown));
        assert_eq!(numbers(&join(&mut groups, "b", 0, 1)), vec![0, 1, 2, 3]);
        assert_eq!(groups.leave(&group, "b"), Ok(()));
        assert!(!groups.has_members(&group));
    }

    #[test]
    fn queues_are_divided_evenly_in_contiguous_ranges() {
        let mut groups = Groups::default();
        for member in ["a", "b", "c"] {
            join(&mut groups, member, 0, 0);
        }
        let generation = join(&mut groups, "a", 0, 0).generation;
        for _ in 0..2 {
            for member in ["a", "b", "c"] {
                join(&mut groups, member, generation, 0);
            }
        }
        let shares: Vec<_> =
            ["a", "b", "c"].map(|member| numbers(&join(&mut groups, member, generation, 0))).into();
        assert_eq!(shares, vec![vec![0, 1], vec![2], vec![3]]);
    }
}
