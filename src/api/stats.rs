//! Figures of topics and groups, for whoever watches a node: what `top` shows.

use std::time::Duration;

use crate::types::{GroupName, TopicId, TopicName};

/// Whose figures are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsAsked<Name> {
    pub of: StatsOf<Name>,
    /// Those as well that take a look into the index for each queue: how old messages are, and how many came of late.
    pub ages: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsOf<Name> {
    One(Name),
    /// In the order of their names after this one, as many as an answer has room for; `None`: from the first on.
    After(Option<Name>),
}

/// A page of figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsPage<Entry, Name> {
    pub entries: Vec<Entry>,
    /// The name after which the next page goes on; `None`: this was the last.
    pub next: Option<Name>,
}

/// What a topic's queues have, and what went in and out, over all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicStats {
    pub topic: TopicName,
    /// Another one once a topic was deleted and made again: its counts begin anew then.
    pub id: TopicId,
    pub queue_count: u32,
    pub counts: TopicCounts,
}

/// Counts of a topic on one shard, or on all. Those of what was stored and given grow from the start of the broker on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicCounts {
    /// Messages that are there now.
    pub messages: u64,
    /// Messages that were ever stored.
    pub stored: u64,
    /// Bytes of their batches that this run of the broker has stored.
    pub stored_bytes: u64,
    /// Messages that this run of the broker has given to consumers, whichever way; each group counts.
    pub given: u64,
    pub given_bytes: u64,
    /// How long ago the oldest and the newest of the messages that are there were stored; `None` when there are none, or nobody
    /// asked.
    pub oldest_age: Option<Duration>,
    pub newest_age: Option<Duration>,
    /// Messages that were stored within the last minute, hour and day and are still there; zero when nobody asked.
    pub within: [u64; 3],
}

/// How far a group is in the topics in which it has a place, or which its consumers name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStats {
    pub group: GroupName,
    /// Those who own queues.
    pub members: u32,
    /// Receives under way.
    pub receivers: u32,
    /// RocketMQ's own clients.
    pub readers: u32,
    pub topics: Vec<GroupTopicStats>,
    /// Topics for which the answer had no room.
    pub topics_left_out: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTopicStats {
    pub topic: TopicName,
    pub lag: GroupLag,
}

/// How far a group is in the queues of a topic that one shard has, or all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupLag {
    /// As [`GroupQueueInfo`](super::GroupQueueInfo) has them of each queue.
    pub lag: u64,
    pub leased: u64,
    pub waiting: u64,
    pub dead_letters: u64,
    /// The sum of the offsets to which the group has dealt with everything: it grows as the group consumes.
    pub passed: u64,
    /// How long ago the oldest message was stored that the group has not dealt with; `None` when there is none, or nobody asked.
    pub oldest_unread_age: Option<Duration>,
}

impl TopicCounts {
    /// Adds what another shard has.
    pub fn add(&mut self, other: &TopicCounts) {
        self.messages = self.messages.saturating_add(other.messages);
        self.stored = self.stored.saturating_add(other.stored);
        self.stored_bytes = self.stored_bytes.saturating_add(other.stored_bytes);
        self.given = self.given.saturating_add(other.given);
        self.given_bytes = self.given_bytes.saturating_add(other.given_bytes);
        self.oldest_age = self.oldest_age.max(other.oldest_age);
        self.newest_age = self.newest_age.into_iter().chain(other.newest_age).min();
        for (sum, of) in self.within.iter_mut().zip(other.within) {
            *sum = sum.saturating_add(of);
        }
    }
}

impl GroupLag {
    /// Adds what another shard, or another topic, has.
    pub fn add(&mut self, other: &GroupLag) {
        self.lag = self.lag.saturating_add(other.lag);
        self.leased = self.leased.saturating_add(other.leased);
        self.waiting = self.waiting.saturating_add(other.waiting);
        self.dead_letters = self.dead_letters.saturating_add(other.dead_letters);
        self.passed = self.passed.saturating_add(other.passed);
        self.oldest_unread_age = self.oldest_unread_age.max(other.oldest_unread_age);
    }
}

impl GroupStats {
    /// Over all topics.
    pub fn total(&self) -> GroupLag {
        let mut total = GroupLag::default();
        self.topics.iter().for_each(|of| total.add(&of.lag));
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_of_several_are_those_of_the_oldest_and_of_the_newest() {
        let mut sum = TopicCounts::default();
        for (oldest, newest) in
            [(None, None), (Some(7), Some(3)), (None, None), (Some(9), Some(1)), (Some(5), Some(2))]
        {
            let [oldest_age, newest_age] = [oldest, newest].map(|age| age.map(Duration::from_secs));
            sum.add(&TopicCounts { messages: 1, oldest_age, newest_age, ..TopicCounts::default() });
        }
        let [nine, one] = [9, 1].map(Duration::from_secs);
        assert_eq!((sum.messages, sum.oldest_age, sum.newest_age), (5, Some(nine), Some(one)));
    }

    #[test]
    fn sums_of_what_a_peer_says_do_not_overflow() {
        let mut lag = GroupLag { lag: u64::MAX, passed: 1, ..GroupLag::default() };
        lag.add(&GroupLag { lag: 2, passed: u64::MAX, ..GroupLag::default() });
        assert_eq!((lag.lag, lag.passed), (u64::MAX, u64::MAX));
    }
}
