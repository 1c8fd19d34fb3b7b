//! Where groups are in the queues of a shard, whichever way they consume, as tools are told.
//!
//! What readers have been given and have not committed yet is known from their pulls, in memory: `given` says how far each group
//! was answered. It is told and nothing more, so that a group for which there is no room is told to have nothing on its way.

use std::collections::{BTreeSet, HashMap};

use super::rates::Amount;
use crate::api::Failure;
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::disk::Disk;
use crate::limits;
use crate::state::Topic;
use crate::types::{GroupName, QueueKey, QueueOffset, Timestamp, TopicName};

/// Where a group is in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueProgress {
    pub key: QueueKey,
    pub end: QueueOffset,
    /// The queue's beginning where the group has no place in it.
    pub committed: QueueOffset,
    /// What it has been given ends here.
    pub given: QueueOffset,
    /// When the message before `committed` was stored.
    pub stored: Option<Timestamp>,
}

/// How far readers have been given what they pull.
#[derive(Debug, Default)]
pub(in crate::broker) struct Given {
    groups: HashMap<GroupName, HashMap<QueueKey, QueueOffset>>,
    count: usize,
}

impl Given {
    fn note(&mut self, group: &GroupName, key: QueueKey, next: QueueOffset) {
        if let Some(place) = self.groups.get_mut(group).and_then(|queues| queues.get_mut(&key)) {
            *place = next;
            return;
        }
        if self.count >= limits::SHARD_GIVEN_MAX {
            return;
        }
        self.count += 1;
        self.groups.entry(group.clone()).or_default().insert(key, next);
    }

    fn get(&self, group: &GroupName, key: QueueKey) -> Option<QueueOffset> {
        self.groups.get(group)?.get(&key).copied()
    }

    /// Nobody reads for a group any more.
    pub fn remove(&mut self, group: &GroupName) {
        self.count -= self.groups.remove(group).map_or(0, |queues| queues.len());
    }
}

impl<D: Disk> Broker<D> {
    /// A reader has been given so much of the messages before `next`.
    pub fn note_given(&self, group: &GroupName, key: QueueKey, next: QueueOffset, given: Amount) {
        if let Ok(queue) = self.queue(key) {
            queue.traffic.note_given(given.messages, given.bytes);
        }
        self.metrics.tallies.borrow_mut().given(Some(group), key.topic, given.messages, given.bytes);
        let mut readers = self.readers.borrow_mut();
        if readers.has_group(group) {
            readers.given.note(group, key, next);
            readers.rates.note(group, key.topic, self.clock.monotonic(), given);
        }
    }

    /// Where a group is in this shard's queues of the topics in which it has a place here: of `topics`, or of all, but those
    /// that its readers do not subscribe to any more.
    pub async fn progress_here(
        &self,
        group: &GroupName,
        topics: &[TopicName],
    ) -> Result<Vec<(TopicName, QueueProgress)>, Failure> {
        let places: HashMap<_, _> =
            self.own_offsets(group).into_iter().map(|place| (place.key, place.committed)).collect();
        let leased: HashMap<_, _> = self.own_leases(group).into_iter().map(|of| (of.key, of.next)).collect();
        let mut progress = Vec::new();
        let mut slice = self.time_slice();
        for topic in self.consumed_topics(group, topics, places.keys()) {
            let shown = topic.policy.read_queues.unwrap_or(topic.queue_count).min(topic.queue_count);
            for key in owned_queues(topic.id, shown, &self.options) {
                let Ok(queue) = self.queue(key) else { continue };
                let (_, end) = self.bounds(&queue);
                let committed = places.get(&key).copied().unwrap_or_default();
                let given = leased.get(&key).copied().or_else(|| self.readers.borrow().given.get(group, key));
                let stored = match committed.0.checked_sub(1) {
                    Some(last) => self.store_time(key, QueueOffset(last)).await?,
                    None => None,
                };
                let given = given.map_or(committed, |given| given.max(committed));
                progress.push((topic.name.clone(), QueueProgress { key, end, committed, given, stored }));
                slice.yield_if_over().await;
            }
        }
        Ok(progress)
    }

    /// The groups that have a place in any of this shard's queues.
    pub fn groups_here(&self) -> BTreeSet<GroupName> {
        let (tables, leases) = (self.tables(), self.leases());
        tables.groups().chain(leases.groups()).cloned().collect()
    }

    fn consumed_topics<'a>(
        &self,
        group: &GroupName,
        topics: &[TopicName],
        places: impl Iterator<Item = &'a QueueKey>,
    ) -> Vec<Topic> {
        let (tables, readers) = (self.tables(), self.readers.borrow());
        let ids: BTreeSet<_> = places.map(|key| key.topic).collect();
        let is_wanted = |topic: &&Topic| match topics {
            [] => !readers.has_group(group) || readers.subscription(group, topic.name.as_str()).is_some(),
            topics => topics.contains(&topic.name),
        };
        ids.into_iter().filter_map(|id| tables.topic(id)).filter(is_wanted).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueNumber, TopicId};

    #[test]
    fn what_was_given_is_bounded_and_goes_with_its_group() {
        let group = |number: usize| -> GroupName { format!("g{number}").parse().expect("a name") };
        let key = |queue: u32| QueueKey { topic: TopicId(1), queue: QueueNumber(queue) };
        let mut given = Given::default();
        for queue in 0..limits::SHARD_GIVEN_MAX as u32 {
            given.note(&group(0), key(queue), QueueOffset(1));
        }
        given.note(&group(1), key(0), QueueOffset(2));
        assert_eq!(given.get(&group(1), key(0)), None, "there is no room");
        given.note(&group(0), key(3), QueueOffset(7));
        assert_eq!(given.get(&group(0), key(3)), Some(QueueOffset(7)), "what is there goes on");
        given.remove(&group(0));
        given.note(&group(1), key(0), QueueOffset(2));
        assert_eq!((given.get(&group(1), key(0)), given.count), (Some(QueueOffset(2)), 1));
    }
}
