//! How far filters have looked for groups of which nothing is stored: in memory only, and bounded. A place that is
//! forgotten costs another look.

use std::collections::{HashMap, VecDeque};

use super::pair_locks::Pair;
use crate::types::{GroupName, QueueKey, QueueOffset, TopicId};

#[derive(Debug, Default)]
pub(in crate::broker) struct Passed {
    offsets: HashMap<QueueKey, HashMap<GroupName, QueueOffset>>,
    /// In the order in which they came; some may be gone.
    order: VecDeque<Pair>,
}

impl Passed {
    pub fn get(&self, group: &GroupName, key: QueueKey) -> Option<QueueOffset> {
        self.offsets.get(&key)?.get(group).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The groups that have a place in a queue.
    pub fn groups_of(&self, key: QueueKey) -> impl Iterator<Item = &GroupName> {
        self.offsets.get(&key).into_iter().flat_map(HashMap::keys)
    }

    /// The places of a group.
    pub fn of_group(&self, group: &GroupName) -> Vec<(QueueKey, QueueOffset)> {
        let offsets = self.offsets.iter().filter_map(|(key, groups)| Some((*key, *groups.get(group)?)));
        offsets.collect()
    }

    /// Notes a place; beyond `pairs_max` the oldest is forgotten.
    pub fn set(&mut self, group: GroupName, key: QueueKey, offset: QueueOffset, pairs_max: usize) {
        let groups = self.offsets.entry(key).or_default();
        if groups.insert(group.clone(), offset).is_some() {
            return;
        }
        self.order.push_back(Pair { key, group });
        while self.order.len() > pairs_max {
            let oldest = self.order.pop_front().expect("there are some");
            self.remove(&oldest.group, oldest.key);
        }
    }

    /// Something is stored of the group in the queue now.
    pub fn remove(&mut self, group: &GroupName, key: QueueKey) {
        let Some(groups) = self.offsets.get_mut(&key) else { return };
        groups.remove(group);
        if groups.is_empty() {
            self.offsets.remove(&key);
        }
    }

    pub fn remove_group(&mut self, group: &GroupName) {
        self.retain(|pair| pair.group != *group);
    }

    pub fn remove_topic(&mut self, id: TopicId) {
        self.retain(|pair| pair.key.topic != id);
    }

    fn retain(&mut self, keep: impl Fn(&Pair) -> bool) {
        for pair in std::mem::take(&mut self.order) {
            if keep(&pair) {
                self.order.push_back(pair);
            } else {
                self.remove(&pair.group, pair.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::QueueNumber;

    #[test]
    fn the_oldest_places_are_forgotten_and_memory_is_bounded() {
        let mut passed = Passed::default();
        let group = |number: u32| -> GroupName { format!("g{number}").parse().expect("a name") };
        let key = |queue| QueueKey { topic: TopicId(queue), queue: QueueNumber(queue) };
        for number in 0..20 {
            passed.set(group(number), key(number % 2), QueueOffset(1), 8);
            passed.set(group(number), key(number % 2), QueueOffset(2), 8);
        }
        assert_eq!(passed.order.len(), 8);
        assert_eq!(passed.offsets.values().map(HashMap::len).sum::<usize>(), 8);
        assert_eq!(
            (passed.get(&group(11), key(1)), passed.get(&group(12), key(0))),
            (None, Some(QueueOffset(2)))
        );
        passed.remove_group(&group(12));
        assert_eq!(passed.get(&group(12), key(0)), None);
        passed.remove_topic(TopicId(1));
        assert_eq!((passed.order.len(), passed.offsets.len()), (3, 1));
    }
}
