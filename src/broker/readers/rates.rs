//! How much of each topic was given to the readers of each group of late, as tools are told. It is told and nothing more: a pair
//! for which there is no room is not counted.

use std::collections::HashMap;

use crate::broker::of_late::OfLate;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::limits;
use crate::types::{GroupName, MonotonicTime, TopicId, TopicName};

/// What one pull was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub messages: u64,
    pub bytes: u64,
}

/// What was given within each of [`SPANS`](crate::broker::SPANS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenOfLate {
    pub messages: [u64; 3],
    pub bytes: [u64; 3],
}

/// The counts of all groups.
#[derive(Debug, Default)]
pub(in crate::broker) struct GivenRates {
    groups: HashMap<GroupName, HashMap<TopicId, Rate>>,
    count: usize,
}

#[derive(Debug, Default)]
struct Rate {
    messages: OfLate,
    bytes: OfLate,
}

impl Rate {
    fn add(&mut self, now: MonotonicTime, given: Amount) {
        self.messages.add(now, given.messages);
        self.bytes.add(now, given.bytes);
    }
}

impl GivenRates {
    pub fn note(&mut self, group: &GroupName, topic: TopicId, now: MonotonicTime, given: Amount) {
        if let Some(rate) = self.groups.get_mut(group).and_then(|topics| topics.get_mut(&topic)) {
            rate.add(now, given);
            return;
        }
        if self.count >= limits::SHARD_RATES_MAX {
            self.forget_idle(now);
        }
        if self.count >= limits::SHARD_RATES_MAX {
            return;
        }
        self.count += 1;
        let mut rate = Rate::default();
        rate.add(now, given);
        self.groups.entry(group.clone()).or_default().insert(topic, rate);
    }

    /// Makes room: what was given nothing for an hour is forgotten.
    fn forget_idle(&mut self, now: MonotonicTime) {
        for topics in self.groups.values_mut() {
            topics.retain(|_, rate| rate.messages.counts(now)[1] > 0);
        }
        self.groups.retain(|_, topics| !topics.is_empty());
        self.count = self.groups.values().map(HashMap::len).sum();
    }

    fn get(&self, group: &GroupName, topic: TopicId, now: MonotonicTime) -> Option<GivenOfLate> {
        let rate = self.groups.get(group)?.get(&topic)?;
        Some(GivenOfLate { messages: rate.messages.counts(now), bytes: rate.bytes.counts(now) })
    }
}

impl<D: Disk> Broker<D> {
    /// How much of a topic's queues of this shard a group's readers were given of late; `None` of what was not counted.
    pub fn given_of_late(&self, group: &GroupName, topic: &TopicName) -> Option<GivenOfLate> {
        let topic = self.tables().topic_named(topic)?.id;
        self.readers.borrow().rates.get(group, topic, self.clock.monotonic())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_bounded_and_idle_ones_make_room() {
        let group: GroupName = "g".parse().expect("a name");
        let at = |seconds: u64| MonotonicTime(seconds * 1_000_000_000);
        let given = Amount { messages: 3, bytes: 300 };
        let mut rates = GivenRates::default();
        for topic in 0..limits::SHARD_RATES_MAX as u32 {
            rates.note(&group, TopicId(topic), at(0), given);
        }
        let one_more = TopicId(limits::SHARD_RATES_MAX as u32);
        rates.note(&group, one_more, at(1), given);
        assert_eq!(rates.get(&group, one_more, at(1)), None, "there is no room");
        rates.note(&group, TopicId(7), at(1), given);
        let expected = GivenOfLate { messages: [6; 3], bytes: [600; 3] };
        assert_eq!(rates.get(&group, TopicId(7), at(1)), Some(expected));
        rates.note(&group, TopicId(7), at(7_000), given);
        rates.note(&group, one_more, at(7_000), given);
        assert_eq!((rates.count, rates.get(&group, TopicId(8), at(7_000))), (2, None));
    }
}
