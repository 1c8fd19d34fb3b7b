//! The leases of all groups in the queues of a shard.

use std::collections::{BTreeMap, HashMap};

use super::change::LeaseChange;
use super::queue_leases::QueueLeases;
use crate::api::LeaseInfo;
use crate::types::{GroupName, QueueKey, QueueOffset, Timestamp, TopicId};

/// Runs in one change of a checkpoint: about 180 KiB.
const SLICE_RUNS: usize = 4096;

/// Leases by queue and group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leases {
    queues: BTreeMap<QueueKey, HashMap<GroupName, QueueLeases>>,
    run_count: usize,
}

impl Leases {
    pub fn get(&self, group: &GroupName, key: QueueKey) -> Option<&QueueLeases> {
        self.queues.get(&key)?.get(group)
    }

    /// Where the group goes on, if it has been receiving from the queue.
    pub fn floor(&self, group: &GroupName, key: QueueKey) -> Option<QueueOffset> {
        self.get(group, key).map(QueueLeases::floor)
    }

    /// Lease entries in memory.
    pub fn run_count(&self) -> usize {
        self.run_count
    }

    /// Pairs of a group and a queue.
    pub fn pair_count(&self) -> usize {
        self.queues.values().map(HashMap::len).sum()
    }

    /// Carries out a change that was placed in the log.
    pub fn apply(&mut self, change: &LeaseChange) {
        let groups = self.queues.entry(change.key()).or_default();
        let leases = match groups.get_mut(change.group()) {
            Some(leases) => leases,
            None => groups.entry(change.group().clone()).or_default(),
        };
        let before = leases.run_count();
        leases.apply(change);
        self.run_count = self.run_count + leases.run_count() - before;
    }

    pub fn remove_topic(&mut self, id: TopicId) {
        self.retain_topics(|topic| topic != id);
    }

    /// Forgets everything about other topics.
    pub fn retain_topics(&mut self, keep: impl Fn(TopicId) -> bool) {
        self.queues.retain(|key, _| keep(key.topic));
        let of_queue = |groups: &HashMap<GroupName, QueueLeases>| -> usize {
            groups.values().map(QueueLeases::run_count).sum()
        };
        self.run_count = self.queues.values().map(of_queue).sum();
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
        self.queues.values().flat_map(HashMap::keys)
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
        assert_eq!(leases.run_count(), 13_500);
        let mut again = Leases::default();
        leases.as_changes().iter().for_each(|change| again.apply(change));
        assert_eq!(again, leases);
        leases.remove_topic(TopicId(1));
        assert_eq!((leases.run_count(), leases.pair_count()), (0, 0));
    }
}
