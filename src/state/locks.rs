//! Which client of a group has which queue of the shard to itself, as RocketMQ's clients that consume in order do
//! (`broker/.../client/rebalance/RebalanceLockManager.java`): there in memory, here in the log, so that order survives a restart.
//!
//! ```text
//! kind 48, lock: u32 topic, u32 queue, u8 group_bytes, group name, client id (empty: nobody has it any more)
//! ```
//!
//! 1. A queue has one holder for each group at most.
//! 2. How long a holder has it is not said here: until somebody else may take it, which the broker decides.
//! 3. No group is there without a lock, and `count` counts them.
//!
//! Locks change when their record is placed, as leases do: whoever is answered waits for it first.

use std::collections::BTreeMap;

use crate::types::{GroupName, QueueKey, QueueNumber, TopicId};
use crate::wire::bytes::get_u32;

/// The kind of its record.
pub(super) const LOCK: u8 = 48;

/// Who has a queue from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockChange {
    pub group: GroupName,
    pub key: QueueKey,
    /// By its own id; `None`: nobody.
    pub client: Option<String>,
}

/// The locks of all groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locks {
    groups: BTreeMap<GroupName, BTreeMap<QueueKey, String>>,
    count: usize,
}

impl LockChange {
    /// Appends the body.
    pub fn encode(&self, output: &mut Vec<u8>) {
        let group = self.group.as_str().as_bytes();
        output.extend_from_slice(&self.key.topic.0.to_le_bytes());
        output.extend_from_slice(&self.key.queue.0.to_le_bytes());
        output.push(u8::try_from(group.len()).expect("names of groups are bounded"));
        output.extend_from_slice(group);
        output.extend_from_slice(self.client.as_deref().unwrap_or_default().as_bytes());
    }

    pub fn decode(body: &[u8]) -> Option<Self> {
        let (fixed, rest) = body.split_at_checked(9)?;
        let (group, client) = rest.split_at_checked(usize::from(fixed[8]))?;
        let client = std::str::from_utf8(client).ok()?;
        Some(Self {
            group: std::str::from_utf8(group).ok()?.parse().ok()?,
            key: QueueKey { topic: TopicId(get_u32(fixed, 0)), queue: QueueNumber(get_u32(fixed, 4)) },
            client: (!client.is_empty()).then(|| client.to_owned()),
        })
    }
}

impl Locks {
    /// Who has a queue.
    pub fn holder(&self, group: &GroupName, key: QueueKey) -> Option<&str> {
        self.groups.get(group)?.get(&key).map(String::as_str)
    }

    /// The queues of a group that somebody has, and who.
    pub fn of_group(&self, group: &GroupName) -> impl Iterator<Item = (QueueKey, &str)> {
        self.groups.get(group).into_iter().flatten().map(|(key, client)| (*key, client.as_str()))
    }

    pub fn has_group(&self, group: &GroupName) -> bool {
        self.groups.contains_key(group)
    }

    pub fn groups(&self) -> impl Iterator<Item = &GroupName> {
        self.groups.keys()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupName, QueueKey, &str)> {
        let groups = self.groups.iter();
        groups.flat_map(|(group, queues)| {
            queues.iter().map(move |(key, client)| (group, *key, client.as_str()))
        })
    }

    /// The topics of which queues are locked.
    pub fn topics(&self) -> impl Iterator<Item = TopicId> {
        self.iter().map(|(_, key, _)| key.topic)
    }

    /// What builds these from nothing.
    pub fn as_changes(&self) -> impl Iterator<Item = LockChange> + '_ {
        self.iter().map(|(group, key, client)| LockChange {
            group: group.clone(),
            key,
            client: Some(client.to_owned()),
        })
    }

    /// What says again who has a queue now; `None`: nobody has.
    pub fn state(&self, group: &GroupName, key: QueueKey) -> Option<LockChange> {
        let client = self.holder(group, key)?.to_owned();
        Some(LockChange { group: group.clone(), key, client: Some(client) })
    }

    pub(super) fn apply(&mut self, change: LockChange) {
        let LockChange { group, key, client } = change;
        match client {
            Some(client) => {
                let before = self.groups.entry(group).or_default().insert(key, client);
                self.count += usize::from(before.is_none());
            }
            None => {
                let Some(queues) = self.groups.get_mut(&group) else { return };
                self.count -= usize::from(queues.remove(&key).is_some());
                if queues.is_empty() {
                    self.groups.remove(&group);
                }
            }
        }
    }

    pub(super) fn remove_group(&mut self, group: &GroupName) {
        self.count -= self.groups.remove(group).map_or(0, |queues| queues.len());
    }

    /// Forgets the locks of all topics but those that are there.
    pub(super) fn retain_topics(&mut self, is_there: impl Fn(TopicId) -> bool) {
        self.groups.values_mut().for_each(|queues| queues.retain(|key, _| is_there(key.topic)));
        self.groups.retain(|_, queues| !queues.is_empty());
        self.count = self.groups.values().map(BTreeMap::len).sum();
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        assert!(self.groups.values().all(|queues| !queues.is_empty()), "invariant 3: a group without a lock");
        let counted: usize = self.groups.values().map(BTreeMap::len).sum();
        assert!(self.count == counted, "invariant 3: {} of {counted}", self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(group: &str, topic: u32, queue: u32, client: Option<&str>) -> LockChange {
        LockChange {
            group: group.parse().expect("a name"),
            key: QueueKey { topic: TopicId(topic), queue: QueueNumber(queue) },
            client: client.map(str::to_owned),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_not_when_it_is_cut() {
        for change in [lock("g", 1, 2, Some("10.0.0.9@4711")), lock("g", 1, 2, None)] {
            let mut body = Vec::new();
            change.encode(&mut body);
            assert_eq!(LockChange::decode(&body), Some(change));
        }
        let mut body = Vec::new();
        lock("group", 1, 2, None).encode(&mut body);
        assert_eq!(body, [1, 0, 0, 0, 2, 0, 0, 0, 5, b'g', b'r', b'o', b'u', b'p']);
        for end in 0..body.len() {
            assert_eq!(LockChange::decode(&body[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn a_queue_has_one_holder_for_each_group() {
        let mut locks = Locks::default();
        let (g, h): (GroupName, GroupName) = ("g".parse().expect("a name"), "h".parse().expect("a name"));
        let key = |topic, queue| QueueKey { topic: TopicId(topic), queue: QueueNumber(queue) };
        for change in [
            lock("g", 1, 0, Some("a")),
            lock("g", 1, 0, Some("b")),
            lock("g", 1, 1, Some("a")),
            lock("h", 1, 0, Some("c")),
            lock("h", 2, 0, Some("c")),
            lock("h", 9, 0, None),
        ] {
            locks.apply(change);
            locks.check();
        }
        assert_eq!((locks.holder(&g, key(1, 0)), locks.holder(&h, key(1, 0))), (Some("b"), Some("c")));
        assert_eq!(locks.count(), 4);
        let mut again = Locks::default();
        locks.as_changes().chain(locks.as_changes()).for_each(|change| again.apply(change));
        assert_eq!(again, locks, "a change that is carried out twice changes nothing");
        locks.apply(lock("g", 1, 1, None));
        locks.retain_topics(|id| id == TopicId(1));
        locks.check();
        assert_eq!(locks.of_group(&h).collect::<Vec<_>>(), [(key(1, 0), "c")]);
        locks.remove_group(&h);
        locks.check();
        assert_eq!((locks.count(), locks.has_group(&h)), (1, false));
        locks.apply(lock("g", 1, 0, None));
        locks.check();
        assert_eq!((locks.count(), locks.has_group(&g)), (0, false));
    }
}
