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
//! Whoever *receives* for a group, over any protocol, counts as one more member, [`RECEIVERS`]: it gets its share of the
//! queues of each topic. What receivers may take is decided by the shards, from memory, so the coordinator gives them
//! [`QueueGrants`]: from the first member of a group on, every queue of its topics is closed to receivers but those named.
//! A queue is free for a member only when its shard has said that it is closed and that no lease runs in it. A shard that
//! knows nothing leaves all queues to the receivers, which is so for a group without members, and after a restart.
//!
//! Holding is what a member's fetches are checked against as well, at the queue's shard, which the grants tell the holder's
//! *session*: a number that no other member has, nor the same one when it comes back after its session has ended, nor
//! anybody in another life of the node. What a shard has not been told, nobody is given.
//!
//! A session ends with its time-out, and with the connection over which its member has joined last, if the member wishes:
//! then the member is waited for `MEMBER_GRACE_MS`, and the others' assignments are not settled meanwhile.
//!
//! Queues are divided as RocketMQ's default strategy does
//! (`client/.../consumer/rebalance/AllocateMessageQueueAveragely.java`): per topic, members in the order of their names,
//! contiguous ranges, the first ones one queue longer.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use crate::api::{
    ActingMember, Assignment, ConnectionId, Failure, JoinGroup, MemberInfo, SessionLife, Status,
};
use crate::limits;
use crate::types::{
    ByteBudget, GroupName, MonotonicTime, QueueKey, QueueNumber, Reservation, TopicId, TopicName,
};

pub use crate::api::RECEIVERS;

/// All groups with members.
#[derive(Debug)]
pub struct Groups {
    groups: BTreeMap<GroupName, Group>,
    /// What members and their queues may take of memory.
    memory: ByteBudget,
    /// The newest generation of any group.
    generation: u64,
    /// The newest version of any group's grants.
    version: u64,
    /// The newest session of any group.
    session: u64,
    /// For shards that still have grants of groups that are gone.
    ended: Vec<(GroupName, QueueGrants)>,
}

/// Which queues the receivers of a group may take messages from. Of two for one group the newer one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueGrants {
    pub version: u64,
    /// The topics that members consume, with their queues. The queues of others are open.
    pub topics: BTreeMap<TopicId, u32>,
    /// All others of these topics are closed.
    pub open: BTreeSet<QueueKey>,
    /// The sessions of the members that read the others. Only they may.
    pub holders: BTreeMap<QueueKey, u64>,
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
    /// `holders` have changed since `grants` were made of them.
    holders_changed: bool,
    /// The queues of the topics when the targets were computed.
    layout: BTreeMap<TopicName, (TopicId, u32)>,
    /// When the receivers of a topic were last heard of.
    receivers: BTreeMap<TopicId, MonotonicTime>,
    /// The queues that receivers are to have together.
    receivers_targets: Vec<QueueKey>,
    /// Of the members' memory, for the queues of `layout`.
    layout_memory: Option<Reservation>,
    /// A member has come, gone, or changed its topics since `layout` was made.
    is_layout_stale: bool,
    grants: QueueGrants,
    /// Queues that are closed to receivers and free of their leases, as far as the shards have said so.
    closed: HashSet<QueueKey>,
    /// The session that the shard of a queue was told as its holder.
    told: HashMap<QueueKey, u64>,
    /// The version of the grants that all shards have carried out to the end.
    settled_version: u64,
}

/// Memory for what a join adds.
struct MemberMemory {
    /// `None` when nothing is added.
    names: Option<Reservation>,
    queues: Option<Reservation>,
}

#[derive(Debug)]
struct Holder {
    member: Rc<str>,
    /// The generation in which it got the queue.
    since: u64,
}

#[derive(Debug)]
struct Member {
    topics: Vec<TopicName>,
    session_timeout: Duration,
    last_seen: MonotonicTime,
    /// Said with its fetches; another one when it comes back after its session has ended.
    session: u64,
    /// The connection with which the session ends.
    connection: Option<ConnectionId>,
    /// When that connection ended.
    gone_since: Option<MonotonicTime>,
    /// The queues that it is to have, sorted.
    targets: Vec<QueueKey>,
    /// Under which it has joined; its queues refer to it.
    name: Rc<str>,
    /// Of the members' memory, for its name and those of its topics, until it is gone.
    _memory: Reservation,
}

impl Default for Groups {
    fn default() -> Self {
        Self::new(0, ByteBudget::new(usize::MAX))
    }
}

impl Groups {
    /// In the life `epoch` of a node, so that no session is one of an earlier life. `memory` is what members may take.
    pub fn new(epoch: u32, memory: ByteBudget) -> Self {
        Self {
            groups: BTreeMap::new(),
            memory,
            generation: 0,
            version: 0,
            session: u64::from(epoch) << 32,
            ended: Vec::new(),
        }
    }

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
        let empty = Group::default();
        let present = self.groups.get(&join.group).unwrap_or(&empty);
        let memory = present.reserve_for(join, &self.memory, &layout)?;
        let group = self.groups.entry(join.group.clone()).or_default();
        let is_new = !group.members.contains_key(&join.member);
        let mut changed = group.note_member(join, now, &mut self.session, memory);
        changed |= group.note_layout(layout);
        if changed {
            group.rebalance(&mut self.generation);
        }
        if join.generation == group.generation {
            group.release(&join.member);
        }
        group.grant(&join.member);
        group.reorder(&mut self.version);
        if is_new {
            let members = group.members.len();
            // A client chooses the member's name: shown so that it stays on its line.
            tracing::info!(target: "groups", group = %join.group, member = ?join.member, members, "member joined");
        }
        Ok(group.assignment(&join.member))
    }

    /// Gives a member that has joined what is free now that shards have carried out grants. True when they are to be told.
    pub fn grant(&mut self, group: &GroupName, member: &str) -> Result<bool, Failure> {
        let known = self.groups.get_mut(group).filter(|group| group.members.contains_key(member));
        let known = known.ok_or_else(|| member_unknown(group, member))?;
        let granted = known.grant(member);
        known.reorder(&mut self.version);
        Ok(granted)
    }

    /// What such a member has, as far as the queues' shards know it.
    pub fn assignment(&self, group: &GroupName, member: &str) -> Result<Assignment, Failure> {
        let known = self.groups.get(group).filter(|group| group.members.contains_key(member));
        Ok(known.ok_or_else(|| member_unknown(group, member))?.assignment(member))
    }

    /// A connection has ended over which members of these groups had joined. They are waited for a little while.
    pub fn connection_ended(&mut self, groups: &[GroupName], connection: ConnectionId, now: MonotonicTime) {
        for group in groups {
            let Some(group) = self.groups.get_mut(group) else { continue };
            // Those that have joined over another one since are not meant.
            let of_it = group.members.values_mut().filter(|member| member.connection == Some(connection));
            of_it.for_each(|member| member.gone_since = Some(now));
        }
    }

    /// Receivers of a topic were seen. Counts for groups with members only.
    pub fn note_receivers(&mut self, group: &GroupName, topic: TopicId, seen: MonotonicTime) {
        let Some(group) = self.groups.get_mut(group) else { return };
        let before = group.receivers.get(&topic).copied();
        group.receivers.insert(topic, before.unwrap_or(seen).max(seen));
        if before.is_none() {
            group.rebalance(&mut self.generation);
            group.reorder(&mut self.version);
        }
    }

    /// Grants that some shard has not carried out to the end. For a group without members: that everything is open.
    pub fn unsettled_grants(&mut self, group: &GroupName) -> Option<QueueGrants> {
        match self.groups.get(group) {
            Some(group) => (group.settled_version != group.grants.version).then(|| group.grants.clone()),
            None => {
                self.version += 1;
                Some(QueueGrants { version: self.version, ..QueueGrants::default() })
            }
        }
    }

    /// Takes note of the shards' answers to `grants`, in the order of the shards: the queues of theirs that have to be
    /// closed and still have running leases; `None` for a shard that has not carried the grants out.
    pub fn carried_out(
        &mut self,
        group: &GroupName,
        grants: &QueueGrants,
        answers: &[Option<Vec<QueueKey>>],
    ) {
        let Some(group) = self.groups.get_mut(group) else { return };
        if group.grants.version != grants.version {
            return;
        }
        let draining: HashSet<_> = answers.iter().flatten().flatten().collect();
        for (&topic, &queue_count) in &grants.topics {
            for queue in (0..queue_count).map(QueueNumber) {
                let key = QueueKey { topic, queue };
                let has_answer = answers[usize::from(queue.shard(answers.len() as u16).0)].is_some();
                if has_answer && !draining.contains(&key) && !grants.open.contains(&key) {
                    group.closed.insert(key);
                }
                if has_answer && let Some(session) = grants.holders.get(&key) {
                    group.told.insert(key, *session);
                }
            }
        }
        if answers.iter().all(|answer| answer.as_ref().is_some_and(Vec::is_empty)) {
            group.settled_version = grants.version;
        }
    }

    /// Whether shards are to be told of groups that have ended.
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Grants for groups that have ended, once: everything is open.
    pub fn take_ended(&mut self) -> Vec<(GroupName, QueueGrants)> {
        std::mem::take(&mut self.ended)
    }

    /// A member leaves; its queues are free at once.
    pub fn leave(&mut self, group: &GroupName, member: &str) -> Result<(), Failure> {
        let unknown = || member_unknown(group, member);
        let state = self.groups.get_mut(group).ok_or_else(unknown)?;
        state.members.remove(member).ok_or_else(unknown)?;
        tracing::info!(target: "groups", %group, ?member, members = state.members.len(), "member left");
        state.retain_holders(|_, holder| *holder.member != *member);
        state.is_layout_stale = true;
        state.rebalance(&mut self.generation);
        state.reorder(&mut self.version);
        self.forget_empty();
        Ok(())
    }

    /// Ends sessions that are over; groups without members are forgotten.
    pub fn expire(&mut self, now: MonotonicTime) {
        for (name, group) in &mut self.groups {
            if group.expire(name, now) {
                group.rebalance(&mut self.generation);
                group.reorder(&mut self.version);
            }
        }
        self.forget_empty();
    }

    /// Ends the sessions of one group that are over.
    pub fn end_sessions(&mut self, name: &GroupName, now: MonotonicTime) {
        let Some(group) = self.groups.get_mut(name) else { return };
        if group.expire(name, now) {
            group.rebalance(&mut self.generation);
            group.reorder(&mut self.version);
        }
        if group.members.is_empty() {
            self.forget_empty();
        }
    }

    fn forget_empty(&mut self) {
        let (version, ended) = (&mut self.version, &mut self.ended);
        self.groups.retain(|name, group| {
            if group.members.is_empty() {
                *version += 1;
                ended.push((name.clone(), QueueGrants { version: *version, ..QueueGrants::default() }));
            }
            !group.members.is_empty()
        });
    }

    /// Refuses whoever does not hold the queue, or has lost it since it last heard of its assignment.
    /// `named` says the queue for a person.
    pub fn check_holder(
        &mut self,
        check: &HolderCheck,
        now: MonotonicTime,
        named: impl FnOnce(QueueKey) -> String,
    ) -> Result<(), Failure> {
        let HolderCheck { group, acting, key } = check;
        self.end_sessions(group, now);
        if !self.has_member(group, &acting.member) {
            return Err(member_unknown(group, &acting.member));
        }
        let holder = self.groups[group].holders.get(key);
        if holder.is_some_and(|holder| *holder.member == *acting.member && holder.since <= acting.generation)
        {
            return Ok(());
        }
        let message = format!(
            "`{}` does not hold {} for group `{group}` in generation {}: join again",
            acting.member,
            named(*key),
            acting.generation
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

    /// How many members of each group name a topic.
    pub fn members_of_topic(&self, topic: &TopicName) -> impl Iterator<Item = (&GroupName, u32)> {
        self.groups.iter().filter_map(|(name, group)| {
            let count = group.members.values().filter(|member| member.topics.contains(topic)).count();
            (count > 0).then_some((name, count as u32))
        })
    }

    /// Generation and members; `None` for a group without members.
    pub fn describe(&self, group: &GroupName, now: MonotonicTime) -> Option<(u64, Vec<MemberInfo>)> {
        let group = self.groups.get(group)?;
        let members = group.members.iter().map(|(name, member)| MemberInfo {
            member: name.clone(),
            topics: member.topics.clone(),
            queues: group.held_by(name),
            heartbeat_age: now.since(member.last_seen),
        });
        let receivers = group.receivers.values().max().map(|seen| {
            let topics = group.layout.iter().filter(|(_, (id, _))| group.receivers.contains_key(id));
            MemberInfo {
                member: RECEIVERS.to_owned(),
                topics: topics.map(|(name, _)| name.clone()).collect(),
                queues: group.grants.open.iter().copied().collect(),
                heartbeat_age: now.since(*seen),
            }
        });
        Some((group.generation, receivers.into_iter().chain(members).collect()))
    }
}

impl Group {
    /// Removes members whose session is over; true when there were any.
    fn expire(&mut self, group: &GroupName, now: MonotonicTime) -> bool {
        let before = self.members.len() + self.receivers.len();
        self.receivers
            .retain(|_, seen| now.since(*seen) <= Duration::from_millis(limits::RECEIVERS_SESSION_MS));
        let grace = Duration::from_millis(limits::MEMBER_GRACE_MS);
        self.members.retain(|name, member| {
            let is_silent = now.since(member.last_seen) > member.session_timeout;
            let is_gone = member.gone_since.is_some_and(|since| now.since(since) > grace);
            if is_gone || is_silent {
                let reason = if is_gone { "its connection has ended" } else { "it has not been heard of" };
                tracing::info!(target: "groups", %group, member = ?name, "the member's session ended: {reason}");
            }
            !is_gone && !is_silent
        });
        let changed = self.members.len() + self.receivers.len() != before;
        if changed {
            let members = std::mem::take(&mut self.members);
            self.retain_holders(|_, holder| members.contains_key(&*holder.member));
            self.members = members;
            self.is_layout_stale = true;
        }
        changed
    }

    fn retain_holders(&mut self, mut is_kept: impl FnMut(&QueueKey, &Holder) -> bool) {
        let before = self.holders.len();
        self.holders.retain(|key, holder| is_kept(key, holder));
        self.holders_changed |= self.holders.len() != before;
    }

    /// Adds or refreshes a member; true when queues must be divided anew.
    fn note_member(
        &mut self,
        join: &JoinGroup,
        now: MonotonicTime,
        newest_session: &mut u64,
        memory: MemberMemory,
    ) -> bool {
        let changed = memory.names.is_some();
        if let Some(names) = memory.names {
            let present = self.members.remove(&join.member);
            let session = present.map_or_else(
                || {
                    *newest_session += 1;
                    *newest_session
                },
                |member| member.session,
            );
            let member = Member {
                topics: join.topics.clone(),
                session_timeout: join.session_timeout,
                last_seen: now,
                session,
                connection: None,
                gone_since: None,
                targets: Vec::new(),
                name: join.member.as_str().into(),
                _memory: names,
            };
            self.members.insert(join.member.clone(), member);
            match (&mut self.layout_memory, memory.queues) {
                (Some(memory), Some(queues)) => memory.merge(queues),
                (memory, queues) => *memory = memory.take().or(queues),
            }
            self.is_layout_stale = true;
        }
        let member = self.members.get_mut(&join.member).expect("only a member needs no memory");
        member.last_seen = now;
        member.gone_since = None;
        member.connection = match join.life {
            SessionLife::Timed => None,
            SessionLife::Connected(connection) => connection,
        };
        member.session_timeout = join.session_timeout;
        changed
    }

    /// Memory for what a join adds: a member, or other topics of one. None of it where the member only says that it lives.
    fn reserve_for(
        &self,
        join: &JoinGroup,
        memory: &ByteBudget,
        layout: impl Fn(&TopicName) -> Option<(TopicId, u32)>,
    ) -> Result<MemberMemory, Failure> {
        let limit_reached = |message: String| Failure::new(Status::LimitReached, message);
        let present = self.members.get(&join.member);
        if present.is_some_and(|member| member.topics == join.topics) {
            return Ok(MemberMemory { names: None, queues: None });
        }
        let count = self.members.len();
        if present.is_none() && count >= limits::GROUP_MEMBERS_MAX {
            return Err(limit_reached(format!("the group has {count} members, no more are taken")));
        }
        let others = self.members.iter().filter(|(name, _)| **name != join.member);
        let topics: usize = others.map(|(_, member)| member.topics.len()).sum();
        if topics + join.topics.len() > limits::GROUP_MEMBER_TOPICS_MAX {
            let most = limits::GROUP_MEMBER_TOPICS_MAX;
            let message = format!(
                "the members of the group name {topics} topics, and this one {}: together they may name {most}",
                join.topics.len()
            );
            return Err(limit_reached(message));
        }
        let of_topic = |topic: &TopicName| topic.as_str().len() + limits::MEMBER_TOPIC_BYTES;
        let names =
            limits::MEMBER_BYTES + 2 * join.member.len() + join.topics.iter().map(of_topic).sum::<usize>();
        let new = join.topics.iter().filter(|topic| !self.layout.contains_key(*topic));
        let queues = new.filter_map(layout).map(|(_, queues)| queues as usize).sum::<usize>();
        let full = || {
            let message = format!(
                "the members of all groups take {} bytes of memory, as many as they may: try again when others have left, \
                 or give the broker more --client-memory",
                memory.bytes()
            );
            limit_reached(message)
        };
        let names = memory.try_reserve(names).ok_or_else(full)?;
        let queues = memory.try_reserve(queues * limits::GROUP_QUEUE_BYTES).ok_or_else(full)?;
        Ok(MemberMemory { names: Some(names), queues: Some(queues) })
    }

    /// Takes note of the topics' present queues; true when they changed.
    fn note_layout(&mut self, layout: impl Fn(&TopicName) -> Option<(TopicId, u32)>) -> bool {
        if !self.is_layout_stale && self.layout.iter().all(|(topic, queues)| layout(topic) == Some(*queues)) {
            return false;
        }
        self.is_layout_stale = false;
        let topics: HashSet<_> = self.members.values().flat_map(|member| &member.topics).collect();
        let present: BTreeMap<_, _> = topics
            .into_iter()
            .filter_map(|topic| layout(topic).map(|queues| (topic.clone(), queues)))
            .collect();
        let changed = present != self.layout;
        self.layout = present;
        let queues: usize = self.layout.values().map(|(_, queues)| *queues as usize).sum();
        if let Some(memory) = &mut self.layout_memory {
            memory.set(queues * limits::GROUP_QUEUE_BYTES);
        }
        changed
    }

    /// Divides the queues among the members under a new generation, the one after `newest`.
    fn rebalance(&mut self, newest: &mut u64) {
        *newest += 1;
        self.generation = *newest;
        self.members.values_mut().for_each(|member| member.targets.clear());
        self.receivers_targets.clear();
        // The receivers first, then the members by their names.
        let mut all_targets = vec![&mut self.receivers_targets];
        let mut readers: HashMap<&TopicName, Vec<usize>> = HashMap::with_capacity(self.layout.len());
        for (topic, (id, _)) in &self.layout {
            let receivers = self.receivers.contains_key(id).then_some(0);
            readers.insert(topic, receivers.into_iter().collect());
        }
        for (index, member) in (1..).zip(self.members.values_mut()) {
            for topic in &member.topics {
                if let Some(readers) = readers.get_mut(topic) {
                    readers.push(index);
                }
            }
            all_targets.push(&mut member.targets);
        }
        for (topic, &(id, queue_count)) in &self.layout {
            let readers = &readers[topic];
            let count = readers.len() as u32;
            let mut next = 0;
            for (index, reader) in (0u32..).zip(readers) {
                let share = queue_count / count + u32::from(index < queue_count % count);
                let range = next..next + share;
                let queues = range.map(|queue| QueueKey { topic: id, queue: QueueNumber(queue) });
                all_targets[*reader].extend(queues);
                next += share;
            }
        }
        all_targets.into_iter().for_each(|targets| targets.sort_unstable());
        // Queues of deleted topics are nobody's.
        let ids: HashSet<_> = self.layout.values().map(|(id, _)| *id).collect();
        self.retain_holders(|key, _| ids.contains(&key.topic));
    }

    /// Says anew who may read what. Open to receivers are those of their targets that no member holds.
    fn reorder(&mut self, newest: &mut u64) {
        let topics: BTreeMap<_, _> = self.layout.values().copied().collect();
        let free = self.receivers_targets.iter().filter(|key| !self.holders.contains_key(key));
        let open: BTreeSet<_> = free.copied().collect();
        let changed = std::mem::take(&mut self.holders_changed)
            || topics != self.grants.topics
            || open != self.grants.open;
        if self.grants.version != 0 && !changed {
            return;
        }
        let session = |holder: &Holder| self.members.get(&*holder.member).map(|member| member.session);
        let held = self.holders.iter().filter_map(|(key, holder)| Some((*key, session(holder)?)));
        let holders: BTreeMap<_, _> = held.collect();
        self.told.retain(|key, session| holders.get(key) == Some(session));
        self.closed.retain(|key| topics.contains_key(&key.topic) && !open.contains(key));
        *newest += 1;
        self.grants = QueueGrants { version: *newest, topics, open, holders };
    }

    /// The member has carried out this generation: what it is not to read any more is free.
    fn release(&mut self, member: &str) {
        let targets = self.members[member].targets.clone();
        self.retain_holders(|key, holder| *holder.member != *member || targets.binary_search(key).is_ok());
    }

    /// Gives the member those of its targets that are free; true when there were any.
    fn grant(&mut self, member: &str) -> bool {
        let mut granted = false;
        let name = self.members[member].name.clone();
        for key in &self.members[member].targets {
            if let Entry::Vacant(free) = self.holders.entry(*key)
                && self.closed.contains(key)
            {
                free.insert(Holder { member: name.clone(), since: self.generation });
                granted = true;
            }
        }
        self.holders_changed |= granted;
        granted
    }

    /// What the member has, once the queues' shards know it. It is not settled while another member may be gone, whose
    /// queues are everybody's then.
    fn assignment(&self, name: &str) -> Assignment {
        let member = &self.members[name];
        let is_held = |key: &&QueueKey| {
            let holder = self.holders.get(key).is_some_and(|holder| *holder.member == *name);
            holder && self.told.get(key) == Some(&member.session)
        };
        let queues: Vec<_> = member.targets.iter().filter(is_held).copied().collect();
        let is_complete = self.members.values().all(|member| member.gone_since.is_none());
        Assignment {
            generation: self.generation,
            settled: is_complete && queues.len() == member.targets.len(),
            queues,
            session: member.session,
        }
    }

    fn held_by(&self, member: &str) -> Vec<QueueKey> {
        let held = self.holders.iter().filter(|(_, holder)| *holder.member == *member);
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
mod tests;
