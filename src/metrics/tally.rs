//! What is counted by topic and by group for metrics, beside what queues and tables know anyway. It is told and nothing more: a
//! restart begins anew, and a pair for which there is no room is not counted.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use crate::api::{MESSAGE_SIZE_BOUNDS, SPAN_BOUNDS, SizeCounts, Spans};
use crate::limits;
use crate::types::{GroupName, TopicId};

/// How large the messages are that come into a topic's queues.
#[derive(Default)]
pub struct Intake {
    counts: [Cell<u64>; MESSAGE_SIZE_BOUNDS.len() + 1],
    bytes: Cell<u64>,
}

/// Of a topic, what happens to messages before they enter its queues.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeldTally {
    pub committed: u64,
    pub rolled_back: u64,
    /// From a half's coming to its producer's word.
    pub decided: Spans,
    pub delayed: u64,
    pub released: u64,
    /// For how long messages were to wait.
    pub delays: Spans,
}

/// What was given of a topic to a group, or to those who read for none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    pub messages: u64,
    pub bytes: u64,
    pub dead_letters: u64,
}

/// All of one shard.
#[derive(Debug, Default)]
pub struct Tallies {
    held: HashMap<TopicId, HeldTally>,
    groups: HashMap<GroupName, HashMap<TopicId, Given>>,
    /// To those who read for no group.
    groupless: HashMap<TopicId, Given>,
    pair_count: usize,
}

impl Intake {
    /// A batch of `count` messages has come, which count as if all were of the same size.
    pub fn note(&self, count: u32, bytes: u32) {
        let size = u64::from(bytes) / u64::from(count.max(1));
        let bucket = MESSAGE_SIZE_BOUNDS.iter().take_while(|bound| size > **bound).count();
        let counted = &self.counts[bucket];
        counted.set(counted.get() + u64::from(count));
        self.bytes.set(self.bytes.get() + u64::from(bytes));
    }

    pub fn sizes(&self) -> SizeCounts {
        SizeCounts { counts: self.counts.each_ref().map(Cell::get), bytes: self.bytes.get() }
    }
}

impl Tallies {
    /// What was counted of a topic so far.
    pub fn of_topic(&self, topic: TopicId) -> HeldTally {
        self.held.get(&topic).copied().unwrap_or_default()
    }

    /// What was given of each topic to each group, and to those who read for none.
    pub fn pairs(&self) -> impl Iterator<Item = (Option<&GroupName>, TopicId, Given)> {
        let of_groups = self.groups.iter().map(|(group, topics)| (Some(group), topics));
        of_groups
            .chain([(None, &self.groupless)])
            .flat_map(|(group, topics)| topics.iter().map(move |(topic, given)| (group, *topic, *given)))
    }

    /// What was counted of a topic, to count on.
    pub fn held(&mut self, topic: TopicId) -> &mut HeldTally {
        self.held.entry(topic).or_default()
    }

    /// A group was given messages of a topic, or somebody who reads for none.
    pub fn given(&mut self, group: Option<&GroupName>, topic: TopicId, messages: u64, bytes: u64) {
        if let Some(given) = self.pair(group, topic) {
            given.messages += messages;
            given.bytes += bytes;
        }
    }

    /// A message of a topic went to a group's dead letters.
    pub fn dead_lettered(&mut self, group: &GroupName, topic: TopicId) {
        if let Some(given) = self.pair(Some(group), topic) {
            given.dead_letters += 1;
        }
    }

    fn pair(&mut self, group: Option<&GroupName>, topic: TopicId) -> Option<&mut Given> {
        let topics = match group {
            None => &mut self.groupless,
            Some(group) => {
                if !self.groups.contains_key(group) {
                    if self.pair_count >= limits::METRICS_PAIRS_MAX {
                        return None;
                    }
                    self.groups.insert(group.clone(), HashMap::new());
                }
                self.groups.get_mut(group)?
            }
        };
        if !topics.contains_key(&topic) {
            if self.pair_count >= limits::METRICS_PAIRS_MAX {
                return None;
            }
            self.pair_count += 1;
        }
        Some(topics.entry(topic).or_default())
    }

    /// The topic is gone.
    pub fn remove_topic(&mut self, topic: TopicId) {
        self.held.remove(&topic);
        for topics in self.groups.values_mut().chain([&mut self.groupless]) {
            self.pair_count -= usize::from(topics.remove(&topic).is_some());
        }
        self.groups.retain(|_, topics| !topics.is_empty());
    }
}

/// Counts a span of time.
pub fn note_span(spans: &mut Spans, span: Duration, bounds: &[u64; SPAN_BOUNDS]) {
    let seconds = span.as_secs();
    let bucket = bounds.iter().take_while(|bound| seconds > **bound).count();
    spans.counts[bucket] += 1;
    spans.seconds += seconds;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_count_in_the_bucket_of_their_mean_size() {
        let intake = Intake::default();
        intake.note(1, 1_024);
        intake.note(10, 40_970);
        intake.note(1, 5 << 20);
        intake.note(0, 0);
        let sizes = intake.sizes();
        assert_eq!(sizes.counts, [1, 0, 10, 0, 0, 0, 1]);
        assert_eq!(sizes.bytes, 1_024 + 40_970 + (5 << 20));
    }

    #[test]
    fn pairs_are_bounded_and_go_with_their_topic() {
        let group: GroupName = "g".parse().expect("a name");
        let mut tallies = Tallies::default();
        for topic in 0..limits::METRICS_PAIRS_MAX as u32 + 1 {
            tallies.given(Some(&group), TopicId(topic), 1, 10);
        }
        assert_eq!(tallies.pair_count, limits::METRICS_PAIRS_MAX);
        tallies.given(Some(&group), TopicId(0), 2, 20);
        tallies.given(None, TopicId(0), 1, 10);
        assert!(tallies.groupless.is_empty(), "they count as well");
        tallies.dead_lettered(&group, TopicId(0));
        let given = tallies.groups[&group][&TopicId(0)];
        assert_eq!((given.messages, given.bytes, given.dead_letters), (3, 30, 1));
        tallies.held(TopicId(0)).delayed += 1;
        tallies.remove_topic(TopicId(0));
        assert!(tallies.held.is_empty());
        tallies.given(None, TopicId(70_000), 1, 10);
        assert_eq!(tallies.pairs().filter(|(group, ..)| group.is_none()).count(), 1);
        assert_eq!(tallies.pair_count, limits::METRICS_PAIRS_MAX, "there is room again");
    }

    #[test]
    fn spans_count_up_to_their_bound() {
        let mut spans = Spans::default();
        let bounds = [5, 60, 600, 3_600, 43_200, 86_400];
        for seconds in [0, 5, 6, 100_000] {
            note_span(&mut spans, Duration::from_secs(seconds), &bounds);
        }
        assert_eq!((spans.counts, spans.seconds), ([2, 1, 0, 0, 0, 0, 1], 100_011));
    }
}
