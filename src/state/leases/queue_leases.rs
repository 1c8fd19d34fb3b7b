//! What one group has been given of one queue.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{LeaseChange, Mask};
use crate::types::{QueueOffset, Receipt, Timestamp};

/// Runs looked at in search of some.
const ENDED_LOOKED_AT_MAX: usize = 4096;

/// Messages of one delivery that lie close together.
///
/// 1. `open` is not zero; its lowest bit stands for the message at the run's first offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Bit `i` is set while the message `i` after the first one is not acknowledged. Those that the filter left out
    /// have none.
    pub open: u64,
    pub leased_at: Timestamp,
    pub lease_until: Timestamp,
    pub first_delivery: Timestamp,
    /// Deliveries so far.
    pub deliveries: u32,
}

/// One group's leases in one queue.
///
/// 1. No message is in two runs, though one may lie among those of another; all are below `next`.
/// 2. `ends` holds the end of every run's lease.
/// 3. `open_count` counts the messages of all runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueLeases {
    next: QueueOffset,
    runs: BTreeMap<QueueOffset, Run>,
    ends: BTreeSet<(Timestamp, QueueOffset)>,
    open_count: u64,
    dead_letters: u64,
}

impl Run {
    /// The offsets that are not acknowledged.
    pub fn offsets(&self, first: QueueOffset) -> impl Iterator<Item = QueueOffset> + use<> {
        let open = self.open;
        (0..64).filter(move |bit| open >> bit & 1 == 1).map(move |bit| first.advance(bit))
    }
}

impl QueueLeases {
    /// A group that starts at `next`.
    pub fn starting_at(next: QueueOffset) -> Self {
        Self { next, ..Self::default() }
    }

    /// The first message that was never delivered.
    pub fn next(&self) -> QueueOffset {
        self.next
    }

    /// Everything below was acknowledged or left out: where the group would go on if all leases ended now.
    pub fn floor(&self) -> QueueOffset {
        self.runs.first_key_value().map_or(self.next, |(first, _)| *first)
    }

    pub fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// Messages that were delivered and not acknowledged.
    pub fn open_count(&self) -> u64 {
        self.open_count
    }

    pub fn dead_letters(&self) -> u64 {
        self.dead_letters
    }

    /// When the next lease ends.
    pub fn earliest_end(&self) -> Option<Timestamp> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// The latest moment at which something that is not acknowledged was delivered.
    pub fn newest_lease(&self) -> Option<Timestamp> {
        self.runs.values().map(|run| run.leased_at).max()
    }

    /// When the last lease ends.
    pub fn last_end(&self) -> Option<Timestamp> {
        self.ends.last().map(|(end, _)| *end)
    }

    /// Whether a lease is running.
    pub fn has_running(&self, now: Timestamp) -> bool {
        self.ends.last().is_some_and(|(end, _)| *end > now)
    }

    /// Messages whose lease runs.
    pub fn running_count(&self, now: Timestamp) -> u64 {
        let running = self.ends.iter().rev().take_while(|(end, _)| *end > now);
        running.map(|(_, first)| u64::from(self.runs[first].open.count_ones())).sum()
    }

    /// Up to `max` runs whose lease has ended, those of lower offsets first among the earliest ends.
    pub fn ended(&self, now: Timestamp, max: usize) -> Vec<(QueueOffset, Run)> {
        self.ended_of(now, max, |_| true)
    }

    /// Those of them that `is_wanted`. So many are looked at that others are found after a few that are not.
    pub fn ended_of(
        &self,
        now: Timestamp,
        max: usize,
        is_wanted: impl Fn(&Run) -> bool,
    ) -> Vec<(QueueOffset, Run)> {
        let ended = self.ends.iter().take_while(|(end, _)| *end <= now).take(ENDED_LOOKED_AT_MAX);
        let ended = ended.map(|(_, first)| (*first, self.runs[first]));
        let mut ended: Vec<_> = ended.filter(|(_, run)| is_wanted(run)).take(max).collect();
        ended.sort_by_key(|(first, _)| *first);
        ended
    }

    /// The run that holds `offset` as one that is not acknowledged.
    pub fn find(&self, offset: QueueOffset) -> Option<(QueueOffset, Run)> {
        let from = QueueOffset(offset.0.saturating_sub(63));
        let mut near = self.runs.range(from..=offset).rev();
        let found = near.find(|(first, run)| run.open >> (offset.0 - first.0) & 1 == 1);
        found.map(|(first, run)| (*first, *run))
    }

    /// The run that the receipt belongs to, while it counts.
    pub fn leased(&self, receipt: &Receipt, now: Timestamp) -> Option<(QueueOffset, Run)> {
        let (first, run) = self.find(receipt.offset)?;
        (run.leased_at == receipt.leased_at && run.lease_until > now).then_some((first, run))
    }

    /// Carries out a change that was placed in the log.
    pub(super) fn apply(&mut self, change: &LeaseChange) {
        match change {
            LeaseChange::Leased { mask, next, run, .. } => {
                self.clear(*mask);
                self.next = self.next.max(*next);
                self.insert(mask.first, Run { open: mask.bits, ..*run });
            }
            LeaseChange::Ended { mask, .. } => self.clear(*mask),
            LeaseChange::Passed { next, .. } => self.next = self.next.max(*next),
            LeaseChange::DeadLettered { mask, total, .. } => {
                self.clear(*mask);
                self.dead_letters = *total;
            }
            LeaseChange::Reset { next, .. } => {
                *self = Self { dead_letters: self.dead_letters, ..Self::starting_at(*next) };
            }
            LeaseChange::State { from, to, next, dead_letters, runs, .. } => {
                let inside: Vec<_> = self.runs.range(*from..*to).map(|(first, _)| *first).collect();
                inside.into_iter().for_each(|first| {
                    self.take(first);
                });
                self.next = *next;
                self.dead_letters = *dead_letters;
                runs.iter().for_each(|(first, run)| self.insert(*first, *run));
            }
        }
        assert!(self.ends.len() == self.runs.len(), "invariant 2: {} ends", self.ends.len());
    }

    /// Asserts the invariants.
    pub(super) fn check(&self) {
        let mut open = BTreeSet::new();
        for (first, run) in &self.runs {
            assert!(run.open & 1 == 1, "the run at {first} does not start with a message");
            assert!(self.ends.contains(&(run.lease_until, *first)), "invariant 2: the run at {first}");
            for offset in run.offsets(*first) {
                assert!(open.insert(offset), "invariant 1: {offset} is in two runs");
                assert!(offset < self.next, "invariant 1: {offset} is not below {}", self.next);
            }
        }
        assert!(self.ends.len() == self.runs.len(), "invariant 2: {} ends", self.ends.len());
        assert!(self.open_count == open.len() as u64, "invariant 3: {} of {}", self.open_count, open.len());
    }

    /// Takes the masked messages out of the runs they are in.
    fn clear(&mut self, mask: Mask) {
        let last = mask.first.advance(63);
        let from = QueueOffset(mask.first.0.saturating_sub(63));
        let touched: Vec<_> = self.runs.range(from..=last).map(|(first, _)| *first).collect();
        for first in touched {
            let run = self.runs[&first];
            let inside = mask.seen_from(first);
            if run.open & inside == 0 {
                continue;
            }
            self.take(first);
            let open = run.open & !inside;
            if open != 0 {
                // The lowest bit stands for the first offset.
                let shift = open.trailing_zeros();
                self.insert(first.advance(u64::from(shift)), Run { open: open >> shift, ..run });
            }
        }
    }

    fn take(&mut self, first: QueueOffset) -> Option<Run> {
        let run = self.runs.remove(&first)?;
        self.ends.remove(&(run.lease_until, first));
        self.open_count -= u64::from(run.open.count_ones());
        Some(run)
    }

    fn insert(&mut self, first: QueueOffset, run: Run) {
        if run.open == 0 {
            return;
        }
        assert!(run.open & 1 == 1, "a run starts with a message");
        self.open_count += u64::from(run.open.count_ones());
        self.ends.insert((run.lease_until, first));
        self.runs.insert(first, run);
    }

    /// The runs from `from` on, at most `max`, and where the next slice starts; `None` when it is the last.
    pub fn slice(&self, from: QueueOffset, max: usize) -> (Vec<(QueueOffset, Run)>, Option<QueueOffset>) {
        let mut rest = self.runs.range(from..);
        let slice: Vec<_> = rest.by_ref().take(max).map(|(first, run)| (*first, *run)).collect();
        (slice, rest.next().map(|(first, _)| *first))
    }

    /// Masks of 64 offsets each that cover `offsets`, which ascend.
    pub fn masks(offsets: &[QueueOffset]) -> Vec<Mask> {
        let mut masks: Vec<Mask> = Vec::new();
        for &offset in offsets {
            match masks.last_mut() {
                Some(mask) if offset.0 - mask.first.0 < 64 => mask.bits |= 1 << (offset.0 - mask.first.0),
                _ => masks.push(Mask { first: offset, bits: 1 }),
            }
        }
        masks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{GroupName, QueueKey, QueueNumber, TopicId};

    fn group() -> GroupName {
        "g".parse().expect("a name")
    }

    fn key() -> QueueKey {
        QueueKey { topic: TopicId(1), queue: QueueNumber(0) }
    }

    fn leased(first: u64, bits: u64, at: u64, until: u64, deliveries: u32) -> LeaseChange {
        let run = Run {
            open: bits,
            leased_at: Timestamp(at),
            lease_until: Timestamp(until),
            first_delivery: Timestamp(1),
            deliveries,
        };
        let next = QueueOffset(first + 64 - u64::from(bits.leading_zeros()));
        LeaseChange::Leased {
            group: group(),
            key: key(),
            next,
            mask: Mask { first: QueueOffset(first), bits },
            run,
        }
    }

    fn ended(first: u64, bits: u64) -> LeaseChange {
        LeaseChange::Ended { group: group(), key: key(), mask: Mask { first: QueueOffset(first), bits } }
    }

    #[test]
    fn an_acknowledged_message_leaves_its_run_and_the_floor_follows() {
        let mut leases = QueueLeases::starting_at(QueueOffset(10));
        leases.apply(&leased(10, 0b1011, 5, 100, 1));
        assert_eq!(
            (leases.floor(), leases.next(), leases.open_count()),
            (QueueOffset(10), QueueOffset(14), 3)
        );
        leases.apply(&ended(10, 1));
        assert_eq!(leases.floor(), QueueOffset(11));
        leases.apply(&ended(11, 0b101));
        assert_eq!((leases.floor(), leases.open_count()), (QueueOffset(14), 0));
        assert_eq!(leases.earliest_end(), None);
    }

    #[test]
    fn a_receipt_counts_until_its_end_and_only_for_its_delivery() {
        let mut leases = QueueLeases::default();
        leases.apply(&leased(0, 0b11, 5, 100, 1));
        let receipt = Receipt {
            key: key(),
            offset: QueueOffset(1),
            leased_at: Timestamp(5),
            lease_until: Timestamp(100),
        };
        assert!(leases.leased(&receipt, Timestamp(99)).is_some());
        assert!(leases.leased(&receipt, Timestamp(100)).is_none(), "ended");
        leases.apply(&leased(1, 1, 100, 200, 2));
        assert!(leases.leased(&receipt, Timestamp(101)).is_none(), "delivered again");
        assert_eq!(leases.ended(Timestamp(150), 9).len(), 1, "the other one waits");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Lease { first: u64, bits: u64, until: u64 },
        End { first: u64, bits: u64 },
        Reset(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..300u64, any::<u64>(), 1..50u64)
                .prop_map(|(first, bits, until)| Step::Lease { first, bits: bits | 1, until }),
            4 => (0..300u64, any::<u64>()).prop_map(|(first, bits)| Step::End { first, bits: bits | 1 }),
            1 => (0..300u64).prop_map(Step::Reset),
        ]
    }

    proptest! {
        #[test]
        fn leases_are_what_a_map_of_messages_says(steps in proptest::collection::vec(step(), 0..60)) {
            let mut leases = QueueLeases::default();
            let mut model: BTreeMap<u64, u64> = BTreeMap::new();
            let mut next = 0;
            let mut changes = Vec::new();
            for (at, step) in steps.into_iter().enumerate() {
                let change = match step {
                    Step::Lease { first, bits, until } => {
                        (0..64).filter(|bit| bits >> bit & 1 == 1).for_each(|bit| {
                            model.insert(first + bit, until);
                        });
                        next = next.max(first + 64 - u64::from(bits.leading_zeros()));
                        leased(first, bits, at as u64, until, 1)
                    }
                    Step::End { first, bits } => {
                        (0..64).filter(|bit| bits >> bit & 1 == 1).for_each(|bit| {
                            model.remove(&(first + bit));
                        });
                        ended(first, bits)
                    }
                    Step::Reset(to) => {
                        model.clear();
                        next = to;
                        LeaseChange::Reset { group: group(), key: key(), next: QueueOffset(to) }
                    }
                };
                leases.apply(&change);
                changes.push(change);
                prop_assert_eq!(leases.next().0, next);
                prop_assert_eq!(leases.open_count(), model.len() as u64);
                prop_assert_eq!(leases.floor().0, model.keys().next().copied().unwrap_or(next));
                prop_assert_eq!(leases.earliest_end().map(|end| end.0), model.values().min().copied());
                let now = Timestamp(25);
                prop_assert_eq!(leases.running_count(now), model.values().filter(|end| **end > 25).count() as u64);
                for offset in 0..400 {
                    let found = leases.find(QueueOffset(offset)).map(|(_, run)| run.lease_until.0);
                    prop_assert_eq!(found, model.get(&offset).copied());
                }
            }
            // Over a state that holds them already, the same changes change nothing in the end.
            let mut again = leases.clone();
            changes.iter().for_each(|change| again.apply(change));
            prop_assert_eq!(&again, &leases);
            // A state put together from slices is the same.
            let mut copy = QueueLeases::default();
            let mut from = Some(QueueOffset(0));
            while let Some(start) = from {
                let (runs, rest) = leases.slice(start, 3);
                let to = rest.unwrap_or(QueueOffset(u64::MAX));
                copy.apply(&LeaseChange::State {
                    group: group(),
                    key: key(),
                    from: start,
                    to,
                    next: leases.next(),
                    dead_letters: 0,
                    runs,
                });
                from = rest;
            }
            prop_assert_eq!(copy, leases);
        }
    }
}
