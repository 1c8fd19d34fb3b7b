//! The clients that produce as groups, by group and connection: whoever has a question to the producers of a group, or shows
//! them, finds them here. A part of what `members` keeps, so every shard has those of all shards.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::api::ConnectionId;
use crate::types::{GroupName, ShardId};

/// A client over a connection. By shard first, so those of one shard stand together.
pub(super) type Way = (ConnectionId, String);

/// All groups that somebody produces as.
#[derive(Debug, Default)]
pub(super) struct Producers {
    groups: BTreeMap<GroupName, BTreeSet<Way>>,
}

impl Producers {
    pub fn add(&mut self, groups: &[GroupName], way: &Way) {
        for group in groups {
            self.groups.entry(group.clone()).or_default().insert(way.clone());
        }
    }

    pub fn take(&mut self, groups: &[GroupName], way: &Way) {
        for group in groups {
            let Some(ways) = self.groups.get_mut(group) else { continue };
            ways.remove(way);
            if ways.is_empty() {
                self.groups.remove(group);
            }
        }
    }

    pub fn of(&self, group: &GroupName) -> impl Iterator<Item = &Way> {
        self.groups.get(group).into_iter().flatten()
    }

    pub fn groups(&self) -> impl Iterator<Item = &GroupName> {
        self.groups.keys()
    }

    /// The one that comes after another one, round and round: of the ways of `shard`, where there are any.
    pub fn after(&self, group: &GroupName, shard: ShardId, last: Option<&Way>) -> Option<&Way> {
        let ways = self.groups.get(group)?;
        let begin = (ConnectionId { shard, number: 0 }, String::new());
        let of_shard = ways.range(&begin..).next().filter(|way| way.0.shard == shard);
        let after_last = last.and_then(|last| ways.range((Bound::Excluded(last), Bound::Unbounded)).next());
        match of_shard {
            Some(first) => after_last.filter(|way| way.0.shard == shard && **way > *first).or(Some(first)),
            None => after_last.or(ways.first()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(shard: u16, number: u64, client: &str) -> Way {
        (ConnectionId { shard: ShardId(shard), number }, client.to_owned())
    }

    #[test]
    fn producers_take_turns_and_those_of_the_asking_shard_come_first() {
        let mut producers = Producers::default();
        let group: GroupName = "g".parse().expect("a name");
        let (a, b, c) = (way(0, 1, "a"), way(1, 1, "b"), way(1, 1, "c"));
        assert_eq!(producers.after(&group, ShardId(0), None), None);
        for way in [&c, &a, &b] {
            producers.add(std::slice::from_ref(&group), way);
        }
        let next = |shard, last| producers.after(&group, ShardId(shard), last);
        assert_eq!((next(0, None), next(0, Some(&a)), next(0, Some(&b))), (Some(&a), Some(&a), Some(&a)));
        assert_eq!((next(1, None), next(1, Some(&b)), next(1, Some(&c))), (Some(&b), Some(&c), Some(&b)));
        assert_eq!(next(1, Some(&a)), Some(&b));
        let elsewhere = [next(2, None), next(2, Some(&a)), next(2, Some(&b)), next(2, Some(&c))];
        assert_eq!(elsewhere, [Some(&a), Some(&b), Some(&c), Some(&a)]);
        assert_eq!(producers.of(&group).count(), 3);
        for way in [&a, &b, &c, &c] {
            producers.take(std::slice::from_ref(&group), way);
        }
        assert!(producers.groups.is_empty());
    }
}
