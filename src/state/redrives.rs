//! Which dead letters were sent once more, and which is on its way: a *redrive* takes a dead letter to another topic.
//!
//! ```text
//! kind 49, redrive begun:   u32 topic, u32 queue, u64 offset, u64 position (0: of this record), u32 topic it goes to, u32 queue
//!                           there (both 0: taken back)
//! kind 50, redriven:        u32 topic, u32 queue, u64 floor, then for each range: u64 first, u64 end
//! kind 51, redrive arrived: u32 topic, u32 queue, u64 position where it was begun, u64 offset that it got
//! ```
//!
//! Topic and queue are those of the dead letters. A queue of another shard gets its message in three steps: the shard of the
//! dead letter says where it goes to (*begun*), that shard places it and says, in one step of its log, that this one has *arrived*,
//! and the first one that it is *redriven*. A dead letter that goes to a queue of its own shard is *redriven* in one step with its
//! copy there.
//!
//! 1. A queue has at most one dead letter that is begun, and that one is not redriven.
//! 2. The ranges of a queue are apart from each other, in order and not empty, and none is below its floor. What lies below the
//!    floor is gone with its segment, and no dead letter any more.
//! 3. Of each queue of dead letters a shard knows where the last one that has come here was begun. They are begun one at a time, at
//!    positions that only grow: what was begun before is over, whoever still asks for it.
//! 4. `range_count` counts the ranges; no queue is there that nothing is known of.
//!
//! All of this changes when its record is placed, as leases do: whoever is answered waits for it first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, TopicId};
use crate::wire::bytes::{get_u32, get_u64};

/// Kinds of their records.
pub(super) const REDRIVE_KINDS: std::ops::RangeInclusive<u8> = 49..=51;
const BEGUN: u8 = 49;
const REDRIVEN: u8 = 50;
const ARRIVED: u8 = 51;

const KEY_BYTES: usize = 8;
const RANGE_BYTES: usize = 16;
/// Ranges that one change repeats.
const RANGES_REPEATED_MAX: usize = 4_096;

/// One change of the redrives. Absolute: carrying it out twice is the same as once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedriveChange {
    /// The dead letter is on its way to a queue of another shard; `to` is `None` when that has refused it. `position`: where that
    /// was said first, unless here.
    Begun { key: QueueKey, offset: QueueOffset, position: Option<LogPosition>, to: Option<QueueKey> },
    /// The dead letters of these ranges are elsewhere. Nothing below `floor` is there any more.
    Redriven { key: QueueKey, floor: QueueOffset, ranges: Vec<Range<QueueOffset>> },
    /// The dead letter of another shard that was begun there has come to a queue of this one, at offset `at`.
    Arrived { key: QueueKey, begun: LogPosition, at: QueueOffset },
}

/// A dead letter on its way to another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moving {
    pub offset: QueueOffset,
    pub to: QueueKey,
    /// Where its shard's log says so: no two have the same, and later ones a higher one.
    pub begun: LogPosition,
}

/// What is known of a dead letter that another shard sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It has not come.
    Due,
    /// It has come, and got this offset.
    At(QueueOffset),
    /// A later one has come: this one is over, and is not to come once more.
    Over,
}

/// What is known of the redrives of all queues of dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redrives {
    queues: BTreeMap<QueueKey, OfQueue>,
    /// Where the last dead letter of each queue of another shard was begun that has come here, and the offset it got.
    arrived: BTreeMap<QueueKey, (LogPosition, QueueOffset)>,
    range_count: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OfQueue {
    floor: QueueOffset,
    /// The end of each range, by its first offset.
    ranges: BTreeMap<QueueOffset, QueueOffset>,
    moving: Option<Moving>,
}

impl RedriveChange {
    /// One dead letter is elsewhere.
    pub fn of_one(key: QueueKey, floor: QueueOffset, offset: QueueOffset) -> Self {
        RedriveChange::Redriven { key, floor, ranges: vec![offset..offset.advance(1)] }
    }

    /// The queue of dead letters.
    pub fn key(&self) -> QueueKey {
        match self {
            RedriveChange::Begun { key, .. }
            | RedriveChange::Redriven { key, .. }
            | RedriveChange::Arrived { key, .. } => *key,
        }
    }

    /// Appends the body and returns the kind.
    pub fn encode(&self, output: &mut Vec<u8>) -> u8 {
        put_key(output, self.key());
        let mut put =
            |values: &[u64]| values.iter().for_each(|value| output.extend_from_slice(&value.to_le_bytes()));
        match self {
            RedriveChange::Begun { offset, position, to, .. } => {
                put(&[offset.0, position.map_or(0, |position| position.0)]);
                put_key(output, to.unwrap_or(NOWHERE));
                BEGUN
            }
            RedriveChange::Redriven { floor, ranges, .. } => {
                put(&[floor.0]);
                ranges.iter().for_each(|range| put(&[range.start.0, range.end.0]));
                REDRIVEN
            }
            RedriveChange::Arrived { begun, at, .. } => {
                put(&[begun.0, at.0]);
                ARRIVED
            }
        }
    }

    /// Reads a body; `None` when it is none of this kind.
    pub fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        let (key_bytes, rest) = body.split_at_checked(KEY_BYTES)?;
        let key = get_key(key_bytes);
        let (first, rest) = rest.split_at_checked(8)?;
        let first = get_u64(first, 0);
        match kind {
            BEGUN if rest.len() >= 8 + KEY_BYTES => {
                let position = Some(LogPosition(get_u64(rest, 0))).filter(|position| position.0 > 0);
                let to = Some(get_key(&rest[8..])).filter(|to| *to != NOWHERE);
                Some(RedriveChange::Begun { key, offset: QueueOffset(first), position, to })
            }
            REDRIVEN if rest.len().is_multiple_of(RANGE_BYTES) => {
                let range = |range: &[u8]| QueueOffset(get_u64(range, 0))..QueueOffset(get_u64(range, 8));
                let ranges: Vec<_> = rest.chunks_exact(RANGE_BYTES).map(range).collect();
                let are_ranges = !ranges.is_empty() && ranges.iter().all(|range| !range.is_empty());
                let floor = QueueOffset(first);
                are_ranges.then_some(RedriveChange::Redriven { key, floor, ranges })
            }
            ARRIVED if rest.len() >= 8 => {
                let (begun, at) = (LogPosition(first), QueueOffset(get_u64(rest, 0)));
                Some(RedriveChange::Arrived { key, begun, at })
            }
            _ => None,
        }
    }
}

/// In place of a queue: topic 0 has none of clients.
const NOWHERE: QueueKey = QueueKey { topic: TopicId::BROKER, queue: QueueNumber(0) };

fn put_key(output: &mut Vec<u8>, key: QueueKey) {
    output.extend_from_slice(&key.topic.0.to_le_bytes());
    output.extend_from_slice(&key.queue.0.to_le_bytes());
}

fn get_key(bytes: &[u8]) -> QueueKey {
    QueueKey { topic: TopicId(get_u32(bytes, 0)), queue: QueueNumber(get_u32(bytes, 4)) }
}

impl Redrives {
    /// Whether the message at an offset of a queue of dead letters was redriven, or is gone.
    pub fn is_redriven(&self, key: QueueKey, offset: QueueOffset) -> bool {
        let Some(of) = self.queues.get(&key) else { return false };
        let range = of.ranges.range(..=offset).next_back();
        offset < of.floor || range.is_some_and(|(_, end)| offset < *end)
    }

    /// What is on its way from a queue.
    pub fn moving(&self, key: QueueKey) -> Option<Moving> {
        self.queues.get(&key)?.moving
    }

    /// What is known here of the dead letter of another shard's queue that was begun there.
    pub fn arrival_of(&self, key: QueueKey, begun: LogPosition) -> Arrival {
        match self.arrived.get(&key) {
            Some((last, at)) if *last == begun => Arrival::At(*at),
            Some((last, _)) if *last > begun => Arrival::Over,
            Some(_) | None => Arrival::Due,
        }
    }

    /// The ranges that are no dead letters any more, from the one that `from` is in or comes before, in order.
    pub fn ranges(&self, key: QueueKey, from: QueueOffset) -> impl Iterator<Item = Range<QueueOffset>> + '_ {
        let of = self.queues.get(&key);
        let below = of.map(|of| QueueOffset::ZERO..of.floor).filter(|below| !below.is_empty());
        let ranges = of.into_iter().flat_map(|of| of.ranges.iter().map(|(first, end)| *first..*end));
        below.into_iter().chain(ranges).skip_while(move |range| range.end <= from)
    }

    /// Whether this one would be a range by itself.
    pub fn adds_a_range(&self, key: QueueKey, offset: QueueOffset) -> bool {
        let Some(of) = self.queues.get(&key) else { return true };
        let follows = of.ranges.range(..=offset).next_back().is_some_and(|(_, end)| *end >= offset);
        !follows && !of.ranges.contains_key(&offset.advance(1))
    }

    /// Ranges of all queues.
    pub fn range_count(&self) -> usize {
        self.range_count
    }

    /// The topics of which something is known.
    pub fn topics(&self) -> impl Iterator<Item = TopicId> {
        self.keys().map(|key| key.topic)
    }

    /// The queues of dead letters of which something is known; some twice.
    pub fn keys(&self) -> impl Iterator<Item = QueueKey> {
        self.queues.keys().chain(self.arrived.keys()).copied()
    }

    /// What builds these from nothing.
    pub fn as_changes(&self) -> impl Iterator<Item = RedriveChange> + '_ {
        let ranges = self.queues.keys().flat_map(move |key| {
            let mut next = Some(QueueOffset::ZERO);
            std::iter::from_fn(move || {
                let (change, rest) = self.ranges_from(*key, next?)?;
                next = rest;
                Some(change)
            })
        });
        let keys: BTreeSet<_> = self.keys().collect();
        ranges.chain(keys.into_iter().flat_map(move |key| self.on_the_way(key)))
    }

    /// What says again which dead letters of a queue from this offset on are redriven, and where to go on; `None`: none are.
    pub fn ranges_from(
        &self,
        key: QueueKey,
        from: QueueOffset,
    ) -> Option<(RedriveChange, Option<QueueOffset>)> {
        let of = self.queues.get(&key)?;
        let ranges = of.ranges.iter().map(|(first, end)| *first..*end).skip_while(|range| range.end <= from);
        let ranges: Vec<_> = ranges.take(RANGES_REPEATED_MAX).collect();
        let end = ranges.last()?.end;
        let rest = (ranges.len() == RANGES_REPEATED_MAX).then_some(end);
        Some((RedriveChange::Redriven { key, floor: of.floor, ranges }, rest))
    }

    /// What says again which dead letter of a queue goes to another shard, and which one of a queue of another shard came last.
    pub fn on_the_way(&self, key: QueueKey) -> Vec<RedriveChange> {
        let begun = self.moving(key).map(|Moving { offset, to, begun }| {
            let position = Some(begun);
            RedriveChange::Begun { key, offset, position, to: Some(to) }
        });
        let arrived = self.arrived.get(&key);
        let arrived = arrived.map(|&(begun, at)| RedriveChange::Arrived { key, begun, at });
        begun.into_iter().chain(arrived).collect()
    }

    /// Carries out a change whose record is at `position`.
    pub(super) fn apply(&mut self, change: RedriveChange, position: LogPosition) {
        match change {
            RedriveChange::Begun { key, offset, position: said, to: Some(to) } => {
                // A log that is read again, over a state of later.
                if !self.is_redriven(key, offset) {
                    let begun = said.unwrap_or(position);
                    self.queues.entry(key).or_default().moving = Some(Moving { offset, to, begun });
                }
            }
            RedriveChange::Begun { key, offset, to: None, .. } => {
                self.end_moving(key, |moving| moving == offset);
            }
            RedriveChange::Redriven { key, floor, ranges } => {
                let of = self.queues.entry(key).or_default();
                self.range_count -= of.ranges.len();
                ranges.iter().for_each(|range| of.add(range.clone()));
                of.raise_floor(floor);
                self.range_count += of.ranges.len();
                self.end_moving(key, |moving| ranges.iter().any(|range| range.contains(&moving)));
            }
            RedriveChange::Arrived { key, begun, at } => {
                self.arrived.insert(key, (begun, at));
            }
        }
    }

    /// The dead letter that is on its way is not any more, if it is such.
    fn end_moving(&mut self, key: QueueKey, is_over: impl Fn(QueueOffset) -> bool) {
        let Some(of) = self.queues.get_mut(&key) else { return };
        of.moving = of.moving.filter(|moving| !is_over(moving.offset) && moving.offset >= of.floor);
        if *of == OfQueue::default() {
            self.queues.remove(&key);
        }
    }

    /// Forgets all topics but those that are there.
    pub(super) fn retain_topics(&mut self, is_there: impl Fn(TopicId) -> bool) {
        self.queues.retain(|key, _| is_there(key.topic));
        self.arrived.retain(|key, _| is_there(key.topic));
        self.range_count = self.queues.values().map(|of| of.ranges.len()).sum();
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        for (key, of) in &self.queues {
            let moving = of.moving.filter(|moving| self.is_redriven(*key, moving.offset));
            assert!(moving.is_none(), "invariant 1: {key} has {moving:?}, which is redriven");
            let mut end = None;
            for (first, range_end) in &of.ranges {
                assert!(first < range_end && end < Some(*first), "invariant 2: {key} has {:?}", of.ranges);
                assert!(*first >= of.floor, "invariant 2: {key} has {first} below {}", of.floor);
                end = Some(*range_end);
            }
            assert!(*of != OfQueue::default(), "invariant 4: nothing is known of {key}");
        }
        let counted: usize = self.queues.values().map(|of| of.ranges.len()).sum();
        assert!(self.range_count == counted, "invariant 4: {} of {counted}", self.range_count);
    }
}

impl OfQueue {
    /// Adds a range, and joins those that it touches.
    fn add(&mut self, range: Range<QueueOffset>) {
        let first = range.start.max(self.floor);
        if first >= range.end {
            return;
        }
        let touched = self.ranges.range(..=range.end).rev().take_while(|(_, end)| **end >= first);
        let touched: Vec<_> = touched.map(|(first, end)| (*first, *end)).collect();
        let (mut joined_first, mut joined_end) = (first, range.end);
        for (first, end) in touched {
            self.ranges.remove(&first);
            (joined_first, joined_end) = (joined_first.min(first), joined_end.max(end));
        }
        self.ranges.insert(joined_first, joined_end);
    }

    fn raise_floor(&mut self, floor: QueueOffset) {
        self.floor = self.floor.max(floor);
        while let Some((&first, &end)) =
            self.ranges.first_key_value().filter(|(first, _)| **first < self.floor)
        {
            self.ranges.remove(&first);
            if end > self.floor {
                self.ranges.insert(self.floor, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::single_range_in_vec_init, reason = "lists of ranges, some of which have one")]

    use super::*;
    use crate::testing::Random;

    fn key(queue: u32) -> QueueKey {
        QueueKey { topic: TopicId(3), queue: QueueNumber(queue) }
    }

    fn redriven(floor: u64, ranges: &[Range<u64>]) -> RedriveChange {
        let ranges = ranges.iter().map(|range| QueueOffset(range.start)..QueueOffset(range.end)).collect();
        RedriveChange::Redriven { key: key(1), floor: QueueOffset(floor), ranges }
    }

    fn begun(offset: u64, to: Option<u32>) -> RedriveChange {
        let to = to.map(|topic| QueueKey { topic: TopicId(topic), queue: QueueNumber(4) });
        RedriveChange::Begun { key: key(1), offset: QueueOffset(offset), position: None, to }
    }

    fn arrived(queue: u32, begun: u64, at: u64) -> RedriveChange {
        RedriveChange::Arrived { key: key(queue), begun: LogPosition(begun), at: QueueOffset(at) }
    }

    fn of(changes: impl IntoIterator<Item = RedriveChange>) -> Redrives {
        let mut redrives = Redrives::default();
        for change in changes {
            redrives.apply(change, LogPosition(77));
            redrives.check();
        }
        redrives
    }

    fn ranges(redrives: &Redrives, from: u64) -> Vec<Range<u64>> {
        redrives.ranges(key(1), QueueOffset(from)).map(|range| range.start.0..range.end.0).collect()
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_not_when_it_is_cut() {
        let arrived = arrived(9, 5, 1 << 40);
        let repeated = RedriveChange::Begun {
            key: key(1),
            offset: QueueOffset(3),
            position: Some(LogPosition(9)),
            to: Some(key(2)),
        };
        for change in [begun(7, Some(2)), begun(7, None), repeated, redriven(3, &[5..6, 9..20]), arrived] {
            let mut body = Vec::new();
            let kind = change.encode(&mut body);
            assert!(REDRIVE_KINDS.contains(&kind));
            assert_eq!(RedriveChange::decode(kind, &body), Some(change.clone()));
            let is_cut = |end: &usize| RedriveChange::decode(kind, &body[..*end]).is_none();
            // Cut between two ranges it says fewer, which the length of its record does not allow.
            let cuts = (0..body.len()).filter(|end| kind != REDRIVEN || *end <= 16 || end % 16 != 0);
            assert!(cuts.clone().all(|end| is_cut(&end)), "{change:?}");
        }
        let mut body = Vec::new();
        redriven(0, &[9..9]).encode(&mut body);
        assert_eq!(RedriveChange::decode(REDRIVEN, &body), None, "an empty range is none");
    }

    #[test]
    fn ranges_join_and_those_that_are_gone_are_forgotten() {
        let redrives = of([redriven(0, &[4..5, 8..9]), redriven(0, &[5..8])]);
        assert_eq!((ranges(&redrives, 0), redrives.range_count()), (vec![4..9], 1));
        let redrives = of([redriven(0, &[1..2, 4..6, 9..12]), redriven(5, &[20..21])]);
        assert_eq!(ranges(&redrives, 0), [0..5, 5..6, 9..12, 20..21]);
        assert_eq!(ranges(&redrives, 6), [9..12, 20..21]);
        let is_redriven = |offset| redrives.is_redriven(key(1), QueueOffset(offset));
        assert_eq!(
            [0, 4, 5, 6, 9, 12, 20, 21].map(is_redriven),
            [true, true, true, false, true, false, true, false]
        );
        // What is read again of a time before does not bring back what is forgotten.
        assert_eq!(of([redriven(5, &[20..21]), redriven(0, &[1..7])]), of([redriven(5, &[5..7, 20..21])]));
    }

    #[test]
    fn what_is_begun_ends_when_it_is_redriven_taken_back_or_gone() {
        let moving =
            |changes: &[RedriveChange]| of(changes.to_vec()).moving(key(1)).map(|moving| moving.offset.0);
        assert_eq!(moving(&[begun(7, Some(2))]), Some(7));
        assert_eq!(moving(&[begun(7, Some(2)), redriven(0, &[6..7])]), Some(7));
        for end in [begun(7, None), redriven(0, &[7..8]), redriven(8, &[9..10])] {
            assert_eq!(moving(&[begun(7, Some(2)), end.clone()]), None);
            let replayed = moving(&[begun(7, Some(2)), end.clone(), begun(7, Some(2)), end]);
            assert_eq!(replayed, None, "a log that is read again");
        }
        assert_eq!(moving(&[redriven(0, &[7..8]), begun(7, Some(2))]), None);
        assert_eq!(of([begun(7, Some(2)), begun(7, None)]), Redrives::default());
    }

    #[test]
    fn a_shard_knows_the_last_one_that_came_and_that_those_before_are_over() {
        let redrives = of([arrived(2, 50, 6), arrived(2, 70, 7)]);
        let known = |queue, begun| redrives.arrival_of(key(queue), LogPosition(begun));
        assert_eq!(
            [known(2, 50), known(2, 70), known(2, 90)],
            [Arrival::Over, Arrival::At(QueueOffset(7)), Arrival::Due]
        );
        assert_eq!(known(1, 50), Arrival::Due);
    }

    #[test]
    fn they_are_built_again_from_their_changes_whatever_happened() {
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let mut redrives = Redrives::default();
            let mut model = std::collections::BTreeSet::new();
            for _ in 0..60 {
                let first = random.range(0..90);
                let range = first..first + 1 + random.range(0..6);
                redrives.apply(redriven(0, std::slice::from_ref(&range)), LogPosition(1));
                model.extend(range);
                redrives.check();
                if random.chance(0.3) {
                    redrives.apply(begun(random.range(0..90), Some(5)), LogPosition(2));
                }
                redrives.apply(arrived(2, first, 7), LogPosition(3));
            }
            for offset in 0..100 {
                assert_eq!(redrives.is_redriven(key(1), QueueOffset(offset)), model.contains(&offset));
            }
            assert_eq!(of(redrives.as_changes()), redrives);
            assert_eq!(of(redrives.as_changes().chain(redrives.as_changes())), redrives);
            redrives.retain_topics(|id| id != TopicId(3));
            assert_eq!(redrives, Redrives::default());
        }
    }
}
