//! Which queues of this shard the receivers of a group may take messages from, while the group has members that read
//! queues of their own. The control shard decides (`groups`), this shard carries it out.
//!
//! A queue passes from receivers to a member like this:
//!
//! 1. It is *draining*: nothing of it is given out any more, neither new nor again, while leases of it run.
//! 2. It is *closed* as soon as no lease runs, and at the latest when the last one that ran at first should have ended.
//!    When what is left unacknowledged is everything from some message on, the group goes back to that message and the
//!    leases are forgotten: the member reads it again. Otherwise the member goes on after all of it, since it would get
//!    acknowledged messages again; what is left stays leased, comes again to whoever receives, and when nobody does goes
//!    to the dead letters after the time that its deliveries would have taken.
//!
//! And from a member to receivers: the queue is *open* when everything that was placed in the log before is durable, for
//! the member's last commit is among it.
//!
//! The grants also say which member's session holds a queue, and a fetch that names a session is carried out for that one
//! only: so nobody reads on in a queue that has become somebody else's.
//!
//! None of this is stored: after a restart all is open until members join again, and each pair's leases tell where both
//! kinds of consumers go on. A member's commit moves them as well.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::membership::QueueGrants;
use crate::api::{Failure, Status};
use crate::broker::receive::Pair;
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::disk::Disk;
use crate::log::Placement;
use crate::state::{LeaseChange, QueueLeases};
use crate::types::{GroupName, Level, QueueKey, Timestamp, TopicId};

/// The grants of all groups that have members.
#[derive(Debug, Default)]
pub(in crate::broker) struct Gates {
    groups: HashMap<GroupName, GroupGates>,
    /// The queues of this shard that members hold, and for which group, by their sessions.
    sessions: HashMap<u64, (GroupName, HashSet<QueueKey>)>,
}

/// What receivers may take from a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Gate {
    /// Every message.
    Open,
    /// Nothing: leases of theirs still run, and then it will be closed.
    Draining,
    /// Only what they have been given before, and it is a member's queue otherwise.
    Closed,
}

#[derive(Debug)]
struct GroupGates {
    grants: QueueGrants,
    /// Queues of this shard with leases, and when the last of them was to end when the queue was closed.
    draining: BTreeMap<QueueKey, Timestamp>,
}

/// What became of the leases in a queue.
#[derive(Debug, PartialEq, Eq)]
enum Drained {
    NotYet,
    /// The group goes on after what was delivered.
    Onward,
    /// The group goes on at the first message that is not acknowledged.
    Back,
}

impl QueueGrants {
    fn is_open(&self, key: QueueKey) -> bool {
        !self.topics.contains_key(&key.topic) || self.open.contains(&key)
    }

    /// What is open both in these grants and in the next ones.
    fn narrowed_to(&self, next: &QueueGrants) -> QueueGrants {
        let mut topics = next.topics.clone();
        for (topic, queue_count) in &self.topics {
            topics.entry(*topic).or_insert(*queue_count);
        }
        let still = next.open.iter().filter(|key| self.is_open(**key));
        let of_others = self.open.iter().filter(|key| !next.topics.contains_key(&key.topic));
        // A member that has lost a queue has done so before anybody gets it.
        let holders = next.holders.clone();
        QueueGrants {
            version: next.version,
            open: still.chain(of_others).copied().collect(),
            topics,
            holders,
        }
    }
}

impl Gates {
    pub fn gate(&self, group: &GroupName, key: QueueKey) -> Gate {
        let Some(gates) = self.groups.get(group) else { return Gate::Open };
        if gates.grants.is_open(key) {
            Gate::Open
        } else if gates.draining.contains_key(&key) {
            Gate::Draining
        } else {
            Gate::Closed
        }
    }

    /// Whether members consume the topic for this group.
    pub fn have_members(&self, group: &GroupName, topic: TopicId) -> bool {
        self.groups.get(group).is_some_and(|gates| gates.grants.topics.contains_key(&topic))
    }

    /// Whether the group has members, whatever they consume.
    pub fn have_any_members(&self, group: &GroupName) -> bool {
        self.groups.contains_key(group)
    }

    /// Refuses a fetch for a session that does not hold the queue, which `named` says for a person.
    pub fn check_session(
        &self,
        session: u64,
        key: QueueKey,
        named: impl FnOnce(QueueKey) -> String,
    ) -> Result<(), Failure> {
        match self.sessions.get(&session) {
            Some((_, keys)) if keys.contains(&key) => Ok(()),
            Some(_) => {
                let message = format!("{} was given to others since: join the group again", named(key));
                Err(Failure::new(Status::GenerationStale, message))
            }
            None => {
                let named = named(key);
                let message =
                    format!("the session that {named} was read for has ended: join the group again");
                Err(Failure::new(Status::MemberUnknown, message))
            }
        }
    }

    /// The group for which a session reads.
    pub fn group_of(&self, session: u64) -> Option<&GroupName> {
        self.sessions.get(&session).map(|(group, _)| group)
    }

    fn forget_holders(&mut self, holders: &BTreeMap<QueueKey, u64>) {
        for (key, session) in holders {
            if let Entry::Occupied(mut held) = self.sessions.entry(*session) {
                held.get_mut().1.remove(key);
                if held.get().1.is_empty() {
                    held.remove();
                }
            }
        }
    }

    fn grants(&self, group: &GroupName) -> QueueGrants {
        self.groups.get(group).map_or_else(QueueGrants::default, |gates| gates.grants.clone())
    }

    fn set_grants(&mut self, group: &GroupName, grants: QueueGrants) {
        let before = self.groups.get_mut(group).map(|gates| std::mem::take(&mut gates.grants.holders));
        self.forget_holders(&before.unwrap_or_default());
        if grants.topics.is_empty() {
            self.groups.remove(group);
            return;
        }
        for (key, session) in &grants.holders {
            let nothing = || (group.clone(), HashSet::new());
            self.sessions.entry(*session).or_insert_with(nothing).1.insert(*key);
        }
        let nothing = || GroupGates { grants: QueueGrants::default(), draining: BTreeMap::new() };
        let gates = self.groups.entry(group.clone()).or_insert_with(nothing);
        gates.draining.retain(|key, _| !grants.is_open(*key));
        gates.grants = grants;
    }
}

impl<D: Disk> Broker<D> {
    /// Applies the grants of the control shard. Returns the queues that have to be closed and are not yet.
    pub(in crate::broker) async fn set_gates(
        &self,
        group: &GroupName,
        grants: QueueGrants,
    ) -> Result<Vec<QueueKey>, Failure> {
        let mut grants = grants;
        let is_ours = |key: &QueueKey| key.queue.shard(self.options.shard_count) == self.options.shard;
        grants.holders.retain(|key, _| is_ours(key));
        if !grants.topics.is_empty() {
            self.expect_no_more(group);
        }
        let before = self.gates.borrow().grants(group);
        if before.version > grants.version {
            return Err(Failure::new(Status::Busy, "there are newer grants for the group"));
        }
        if before.version < grants.version {
            let narrowed = before.narrowed_to(&grants);
            self.close(group, &before, narrowed.clone());
            if narrowed != grants {
                // A member that has lost the queue may have a commit on its way to the disk.
                self.writer.all_durable().await?;
                if self.gates.borrow().grants(group) != narrowed {
                    return Err(Failure::new(Status::Busy, "there are newer grants for the group"));
                }
                self.gates.borrow_mut().set_grants(group, grants.clone());
            }
            // Waiting receives look again, and tell the control shard that they are there.
            before.topics.keys().chain(grants.topics.keys()).for_each(|topic| self.announce(*topic));
        }
        self.drain_gates(group).await
    }

    /// Closes what is not open in `grants`, from this moment on.
    fn close(&self, group: &GroupName, before: &QueueGrants, grants: QueueGrants) {
        let mut with_leases = Vec::new();
        {
            let leases = self.leases();
            for (&topic, &queue_count) in &grants.topics {
                for key in owned_queues(topic, queue_count, &self.options) {
                    if before.is_open(key) && !grants.is_open(key) {
                        let pair = leases.get(group, key);
                        let last_end = pair.and_then(QueueLeases::last_end);
                        with_leases.extend(last_end.map(|end| (key, end)));
                    }
                }
            }
        }
        let mut gates = self.gates.borrow_mut();
        gates.set_grants(group, grants);
        if let Some(gates) = gates.groups.get_mut(group) {
            gates.draining.extend(with_leases);
        }
    }

    /// Closes what has drained; returns the queues that have not.
    async fn drain_gates(&self, group: &GroupName) -> Result<Vec<QueueKey>, Failure> {
        let draining = {
            let gates = self.gates.borrow();
            let Some(gates) = gates.groups.get(group) else { return Ok(Vec::new()) };
            gates.draining.clone()
        };
        let (mut left, mut drained) = (Vec::new(), Vec::new());
        let mut back: Option<Placement> = None;
        for (key, until) in draining {
            // Dead letters of it may be on their way.
            let Some(_locked) = self.pair_locks.try_lock(Pair { key, group: group.clone() }) else {
                left.push(key);
                continue;
            };
            match self.drained(group, key, until) {
                Drained::NotYet => left.push(key),
                Drained::Onward => drained.push(key),
                Drained::Back => {
                    // It may be opened again, or acknowledged, or moved by a commit, while this waits for room.
                    let go_back = || {
                        let is_draining = self.gates.borrow().gate(group, key) == Gate::Draining;
                        if !is_draining || self.drained(group, key, until) != Drained::Back {
                            return Vec::new();
                        }
                        let next = self.leases().floor(group, key);
                        let reset = next.map(|next| LeaseChange::Reset { group: group.clone(), key, next });
                        reset.into_iter().collect()
                    };
                    let (placed, ()) = self.place_decided(Level::Durable, || (go_back(), ())).await?;
                    if let Some(placement) = placed {
                        drained.push(key);
                        back = Some(placement);
                    }
                }
            }
        }
        if let Some(placement) = back {
            self.writer.settled(Level::Durable, placement).await?;
        }
        let mut gates = self.gates.borrow_mut();
        if let Some(gates) = gates.groups.get_mut(group) {
            drained.iter().for_each(|key| {
                gates.draining.remove(key);
            });
        }
        drop(gates);
        // What is left of leases can be received again.
        drained.iter().for_each(|key| self.announce(key.topic));
        Ok(left)
    }

    fn drained(&self, group: &GroupName, key: QueueKey, until: Timestamp) -> Drained {
        let now = self.steady.now();
        let leases = self.leases();
        let Some(pair) = leases.get(group, key).filter(|pair| pair.open_count() > 0) else {
            return Drained::Onward;
        };
        let runs = pair.has_running(now);
        if runs && now < until {
            return Drained::NotYet;
        }
        let is_whole = pair.open_count() == pair.next().0 - pair.floor().0;
        if is_whole && !runs { Drained::Back } else { Drained::Onward }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::QueueNumber;

    fn grants(version: u64, topics: &[u32], open: &[(u32, u32)]) -> QueueGrants {
        let key =
            |&(topic, queue): &(u32, u32)| QueueKey { topic: TopicId(topic), queue: QueueNumber(queue) };
        QueueGrants {
            version,
            topics: topics.iter().map(|topic| (TopicId(*topic), 4)).collect(),
            open: open.iter().map(key).collect(),
            holders: BTreeMap::new(),
        }
    }

    #[test]
    fn between_two_grants_only_what_both_allow_is_open() {
        let from_nothing = QueueGrants::default().narrowed_to(&grants(1, &[1], &[(1, 0)]));
        assert_eq!(from_nothing, grants(1, &[1], &[(1, 0)]), "everything was open");
        let before = grants(1, &[1, 2], &[(1, 0), (1, 1), (2, 3)]);
        let after = grants(2, &[1, 3], &[(1, 1), (1, 2), (3, 0)]);
        assert_eq!(before.narrowed_to(&after), grants(2, &[1, 2, 3], &[(1, 1), (2, 3), (3, 0)]));
    }

    #[test]
    fn a_queue_is_read_by_the_session_that_holds_it_alone() {
        let mut gates = Gates::default();
        let group: GroupName = "g".parse().expect("a name");
        let key = |queue| QueueKey { topic: TopicId(1), queue: QueueNumber(queue) };
        let held = |version, holders: &[(u32, u64)]| QueueGrants {
            holders: holders.iter().map(|(queue, session)| (key(*queue), *session)).collect(),
            ..grants(version, &[1], &[])
        };
        let check = |gates: &Gates, session, queue| {
            gates.check_session(session, key(queue), |key| key.to_string()).map_err(|failure| failure.status)
        };
        assert_eq!(check(&gates, 7, 0), Err(Status::MemberUnknown), "as after a restart");
        gates.set_grants(&group, held(1, &[(0, 7), (1, 8)]));
        assert_eq!((check(&gates, 7, 0), check(&gates, 8, 1)), (Ok(()), Ok(())));
        assert_eq!((gates.group_of(8), gates.group_of(9)), (Some(&group), None));
        assert_eq!(check(&gates, 7, 1), Err(Status::GenerationStale));
        gates.set_grants(&group, held(2, &[(0, 8), (1, 8)]));
        assert_eq!(check(&gates, 7, 0), Err(Status::MemberUnknown), "it holds nothing any more");
        assert_eq!(check(&gates, 8, 0), Ok(()));
        gates.set_grants(&group, QueueGrants { version: 3, ..QueueGrants::default() });
        assert_eq!(check(&gates, 8, 0), Err(Status::MemberUnknown));
        assert!(gates.sessions.is_empty());
    }

    #[test]
    fn a_group_without_grants_is_open() {
        let mut gates = Gates::default();
        let group: GroupName = "g".parse().expect("a name");
        let key = |queue| QueueKey { topic: TopicId(1), queue: QueueNumber(queue) };
        assert_eq!(gates.gate(&group, key(0)), Gate::Open);
        gates.set_grants(&group, grants(1, &[1], &[(1, 0)]));
        assert_eq!((gates.gate(&group, key(0)), gates.gate(&group, key(1))), (Gate::Open, Gate::Closed));
        assert!(gates.have_members(&group, TopicId(1)) && !gates.have_members(&group, TopicId(2)));
        gates.set_grants(&group, QueueGrants { version: 2, ..QueueGrants::default() });
        assert_eq!(gates.gate(&group, key(1)), Gate::Open);
        assert!(gates.groups.is_empty());
    }
}
