//! The leases of all groups in the queues of a shard.

use std::collections::{BTreeMap, HashMap};

use super::change::LeaseChange;
use super::queue_leases::QueueLeases;
use crate::api::LeaseInfo;
use crate::types::{GroupName, QueueKey, QueueOffset, Timestamp, TopicId};

/// Runs in one change of a checkpoint: about 180 KiB.
const SLICE_RUNS: usize = 4096;

/// Leases by queue and group.
///
/// 1. `groups` has every group that has a pair, and no other, with the sums over its pairs.
/// 2. `total` has the sums over the groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leases {
    queues: BTreeMap<QueueKey, HashMap<GroupName, QueueLeases>>,
    groups: HashMap<GroupName, Holding>,
    total: Holding,
}

/// How much of the table somebody has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Of a group and a queue.
    pub pairs: usize,
    /// Entries in memory.
    pub runs: usize,
    /// Delivered and not acknowledged.
    pub messages: usize,
}

impl Holding {
    fn of(leases: &QueueLeases) -> Self {
        Self { pairs: 1, runs: leases.run_count(), messages: leases.open_count() as usize }
    }

    fn add(&mut self, other: Holding) {
        self.pairs += other.pairs;
        self.runs += other.runs;
        self.messages += other.messages;
    }

    fn subtract(&mut self, other: Holding) {
        self.pairs -= other.pairs;
        self.runs -= other.runs;
        self.messages -= other.messages;
    }
}

impl Leases {
    pub fn get(&self, group: &GroupName, key: QueueKey) -> Option<&QueueLeases> {
        self.queues.get(&key)?.get(group)
    }

    /// Where the group goes on, if it has been receiving from the queue.
    pub fn floor(&self, group: &GroupName, key: QueueKey) -> Option<QueueOffset> {
        self.get(group, key).map(QueueLeases::floor)
    }

    /// Of all groups together.
    pub fn total(&self) -> Holding {
        self.total
    }

    /// Of one group; nothing for one that has never received here.
    pub fn holding(&self, group: &GroupName) -> Holding {
        self.groups.get(group).copied().unwrap_or_default()
    }

    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Carries out a change that was placed in the log.
    pub(in crate::state) fn apply(&mut self, change: &LeaseChange) {
        if !change.says_where_a_group_is() && self.get(change.group(), change.key()).is_none() {
            // The group was removed: what it had left there is nothing to begin with.
            return;
        }
        let groups = self.queues.entry(change.key()).or_default();
        let before = groups.get(change.group()).map_or_else(Holding::default, Holding::of);
        if before.pairs == 0 {
            // One name in memory for all of a group's pairs.
            let known = self.groups.get_key_value(change.group());
            let name = known.map_or(change.group(), |(name, _)| name).clone();
            groups.insert(name.clone(), QueueLeases::default());
            self.groups.entry(name).or_default();
        }
        let of_group = self.groups.get_mut(change.group()).expect("it has a pair");
        let leases = groups.get_mut(change.group()).expect("just made, or known");
        leases.apply(change);
        let after = Holding::of(leases);
        for holding in [of_group, &mut self.total] {
            holding.subtract(before);
            holding.add(after);
        }
    }

    pub(in crate::state) fn remove_topic(&mut self, id: TopicId) {
        self.retain_topics(|topic| topic != id);
    }

    /// Forgets everything about other topics.
    pub(in crate::state) fn retain_topics(&mut self, keep: impl Fn(TopicId) -> bool) {
        self.queues.retain(|key, _| keep(key.topic));
        self.count_again();
    }

    /// Forgets a group. False when it is not known.
    pub(in crate::state) fn remove_group(&mut self, group: &GroupName) -> bool {
        if !self.groups.contains_key(group) {
            return false;
        }
        self.queues.retain(|_, groups| {
            groups.remove(group);
            !groups.is_empty()
        });
        self.count_again();
        true
    }

    fn count_again(&mut self) {
        self.groups.clear();
        self.total = Holding::default();
        for (group, leases) in self.queues.values().flatten() {
            let holding = Holding::of(leases);
            match self.groups.get_mut(group) {
                Some(of_group) => of_group.add(holding),
                None => {
                    self.groups.insert(group.clone(), holding);
                }
            }
            self.total.add(holding);
        }
    }

    /// Asserts the invariants of the table and of every pair.
    pub fn check(&self) {
        let mut groups: HashMap<GroupName, Holding> = HashMap::new();
        let mut total = Holding::default();
        for (_, group, leases) in self.iter() {
            leases.check();
            let holding = Holding::of(leases);
            groups.entry(group.clone()).or_default().add(holding);
            total.add(holding);
        }
        assert!(self.groups == groups, "invariant 1: {:?}, not {groups:?}", self.groups);
        assert!(self.total == total, "invariant 2: {:?}, not {total:?}", self.total);
    }

    /// The topics of which there are leases, each at least once.
    pub(in crate::state) fn topics(&self) -> impl Iterator<Item = TopicId> + '_ {
        self.queues.keys().map(|key| key.topic)
    }

    /// The latest moment at which something was delivered.
    pub fn newest_lease(&self) -> Option<Timestamp> {
        self.queues.values().flat_map(HashMap::values).filter_map(QueueLeases::newest_lease).max()
    }

    /// The pairs that have leases or had them, in order.
    pub fn pairs(&self) -> Vec<(QueueKey, GroupName)> {
        let mut pairs: Vec<_> = self
            .queues
            .iter()
            .flat_map(|(key, groups)| groups.keys().map(|group| (*key, group.clone())))
            .collect();
        pairs.sort();
        pairs
    }

    /// The change that repeats a slice of one pair's state, and where the next slice starts.
    pub fn state(
        &self,
        group: &GroupName,
        key: QueueKey,
        from: QueueOffset,
    ) -> Option<(LeaseChange, Option<QueueOffset>)> {
        let leases = self.get(group, key)?;
        let (runs, rest) = leases.slice(from, SLICE_RUNS);
        let change = LeaseChange::State {
            group: group.clone(),
            key,
            from,
            to: rest.unwrap_or(QueueOffset(u64::MAX)),
            next: leases.next(),
            dead_letters: leases.dead_letters(),
            runs,
        };
        Some((change, rest))
    }

    /// Everything, as changes that build these leases from nothing.
    pub fn as_changes(&self) -> Vec<LeaseChange> {
        let mut changes = Vec::new();
        for (key, group) in self.pairs() {
            let mut from = Some(QueueOffset::ZERO);
            while let Some((change, rest)) = from.and_then(|from| self.state(&group, key, from)) {
                changes.push(change);
                from = rest;
            }
        }
        changes
    }

    /// What a group has, queue by queue.
    pub fn of_group(&self, group: &GroupName, now: Timestamp) -> Vec<LeaseInfo> {
        let found = self.queues.iter().filter_map(|(key, groups)| Some((key, groups.get(group)?)));
        let infos = found.map(|(key, leases)| {
            let leased = leases.running_count(now);
            LeaseInfo {
                key: *key,
                floor: leases.floor(),
                next: leases.next(),
                leased,
                waiting: leases.open_count() - leased,
                dead_letters: leases.dead_letters(),
            }
        });
        infos.collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (QueueKey, &GroupName, &QueueLeases)> {
        let pairs = self.queues.iter();
        pairs.flat_map(|(key, groups)| groups.iter().map(|(group, leases)| (*key, group, leases)))
    }

    pub fn groups(&self) -> impl Iterator<Item = &GroupName> {
        self.groups.keys()
    }

    /// Those that have been receiving from a queue.
    pub fn groups_of(&self, key: QueueKey) -> impl Iterator<Item = &GroupName> {
        self.queues.get(&key).into_iter().flat_map(HashMap::keys)
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::Mask;
    use super::super::queue_leases::Run;
    use super::*;
    use crate::types::QueueNumber;

    #[test]
    fn leases_are_built_again_from_their_changes() {
        let mut leases = Leases::default();
        let group: GroupName = "g".parse().expect("a name");
        for queue in 0..3 {
            let key = QueueKey { topic: TopicId(1), queue: QueueNumber(queue) };
            for first in (0..9000).step_by(2) {
                let mask = Mask { first: QueueOffset(first), bits: 1 };
                let run = Run {
                    open: 1,
                    leased_at: Timestamp(1),
                    lease_until: Timestamp(first),
                    first_delivery: Timestamp(1),
                    deliveries: 1,
                };
                let next = QueueOffset(first + 1);
                leases.apply(&LeaseChange::Leased { group: group.clone(), key, next, mask, run });
            }
        }
        assert_eq!(leases.total(), Holding { pairs: 3, runs: 13_500, messages: 13_500 });
        let mut again = Leases::default();
        leases.as_changes().iter().for_each(|change| again.apply(change));
        assert_eq!(again, leases);
        assert_eq!(leases.holding(&group), leases.total());
        again.remove_topic(TopicId(1));
        assert_eq!(again, Leases::default());
        assert!(leases.remove_group(&group) && !leases.remove_group(&group));
        assert_eq!(leases, Leases::default());
    }

    #[test]
    fn what_a_removed_group_had_left_to_say_does_not_bring_it_back() {
        let mut leases = Leases::default();
        let group: GroupName = "g".parse().expect("a name");
        let key = QueueKey { topic: TopicId(1), queue: QueueNumber(0) };
        let mask = Mask { first: QueueOffset(3), bits: 1 };
        leases.apply(&LeaseChange::Ended { group: group.clone(), key, mask });
        leases.apply(&LeaseChange::DeadLettered { group: group.clone(), key, mask, total: 1 });
        assert_eq!(leases.total(), Holding::default());
        leases.apply(&LeaseChange::Passed { group, key, next: QueueOffset(4) });
        assert_eq!(leases.total().pairs, 1);
    }
}
