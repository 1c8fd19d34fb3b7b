//! The queue offsets that acknowledgements gave out: no two may be the same.

use std::collections::BTreeMap;

/// Ranges that are remembered. They merge as neighbours arrive, so more only come up where somebody else writes to the
/// queue between every two of our batches; then the oldest are let go.
const RANGES_MAX: usize = 1_000_000;

/// Offsets of one queue that this run was told are its own.
#[derive(Debug, Default)]
pub struct OffsetLedger {
    /// Start and end of ranges that do not touch.
    ranges: BTreeMap<u64, u64>,
    /// Offsets that were given out twice.
    repeated: u64,
}

impl OffsetLedger {
    /// Notes that `base..base + count` were given to one batch.
    pub fn acknowledge(&mut self, base: u64, count: u64) {
        let (mut start, mut end) = (base, base + count);
        while let Some((&other_start, &other_end)) = self.ranges.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            let overlap = other_end.min(base + count).saturating_sub(other_start.max(base));
            self.repeated += overlap;
            self.ranges.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        if self.ranges.len() == RANGES_MAX {
            self.ranges.pop_first();
        }
        self.ranges.insert(start, end);
    }

    /// Offsets that two acknowledgements claimed: one of the two batches is lost, or both are the same.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Offsets given out at `end` or beyond, where the queue says that nothing is.
    pub fn beyond(&self, end: u64) -> u64 {
        self.ranges
            .iter()
            .rev()
            .take_while(|&(_, &range_end)| range_end > end)
            .map(|(&start, &range_end)| range_end - start.max(end))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn neighbours_merge_and_overlaps_count() {
        let mut ledger = OffsetLedger::default();
        for (base, count) in [(0, 10), (20, 10), (10, 10)] {
            ledger.acknowledge(base, count);
        }
        assert_eq!((ledger.repeated(), ledger.ranges.len()), (0, 1));
        ledger.acknowledge(25, 10);
        assert_eq!(ledger.repeated(), 5);
        assert_eq!((ledger.beyond(30), ledger.beyond(35), ledger.beyond(0)), (5, 0, 35));
    }

    proptest! {
        #[test]
        fn the_count_matches_a_plain_set(batches in prop::collection::vec((0_u64..60, 1_u64..8), 0..30), end in 0_u64..70) {
            let mut ledger = OffsetLedger::default();
            let (mut seen, mut repeated) = (BTreeSet::new(), 0);
            for (base, count) in batches {
                ledger.acknowledge(base, count);
                repeated += (base..base + count).filter(|&offset| !seen.insert(offset)).count() as u64;
            }
            prop_assert_eq!(ledger.repeated(), repeated);
            prop_assert_eq!(ledger.beyond(end), seen.range(end..).count() as u64);
        }
    }
}
