//! What was counted within the last minute, hour and day.

use std::time::Duration;

use crate::types::MonotonicTime;

const TEN_SECONDS: u64 = 10;
const TEN_MINUTES: u64 = 600;
const HOUR: u64 = 3_600;

/// The spans that are told of, up to now.
pub const SPANS: [Duration; 3] =
    [Duration::from_secs(60), Duration::from_secs(HOUR), Duration::from_secs(24 * HOUR)];

/// Counts of one thing.
#[derive(Debug, Default)]
pub struct OfLate {
    minute: Buckets<6, TEN_SECONDS>,
    hour: Buckets<6, TEN_MINUTES>,
    day: Buckets<24, HOUR>,
}

/// `COUNT` pieces of time of so many `SECONDS`, the newest of which is not over.
#[derive(Debug)]
struct Buckets<const COUNT: usize, const SECONDS: u64> {
    counts: [u64; COUNT],
    /// The number of the newest piece that something was counted in.
    newest: u64,
}

impl<const COUNT: usize, const SECONDS: u64> Default for Buckets<COUNT, SECONDS> {
    fn default() -> Self {
        Self { counts: [0; COUNT], newest: 0 }
    }
}

impl<const COUNT: usize, const SECONDS: u64> Buckets<COUNT, SECONDS> {
    fn number(now: MonotonicTime) -> u64 {
        now.since(MonotonicTime(0)).as_secs() / SECONDS
    }

    fn add(&mut self, now: MonotonicTime, count: u64) {
        let number = Self::number(now);
        let skipped = number.saturating_sub(self.newest).min(COUNT as u64);
        for piece in 0..skipped {
            self.counts[(number - piece) as usize % COUNT] = 0;
        }
        self.newest = self.newest.max(number);
        self.counts[self.newest as usize % COUNT] += count;
    }

    fn sum(&self, now: MonotonicTime) -> u64 {
        let (number, newest) = (Self::number(now), self.newest);
        let pieces = (0..COUNT as u64).filter_map(|back| newest.checked_sub(back));
        let of_late = pieces.filter(|piece| number.saturating_sub(*piece) < COUNT as u64);
        of_late.map(|piece| self.counts[piece as usize % COUNT]).sum()
    }
}

impl OfLate {
    pub fn add(&mut self, now: MonotonicTime, count: u64) {
        self.minute.add(now, count);
        self.hour.add(now, count);
        self.day.add(now, count);
    }

    /// What was counted in each of the [`SPANS`], up to a sixth, or a twenty-fourth, of it less.
    pub fn counts(&self, now: MonotonicTime) -> [u64; 3] {
        [self.minute.sum(now), self.hour.sum(now), self.day.sum(now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_its_span_counts_no_more() {
        let at = |seconds: u64| MonotonicTime(seconds * 1_000_000_000);
        let mut of_late = OfLate::default();
        assert_eq!(of_late.counts(at(5)), [0; 3]);
        of_late.add(at(5), 1);
        of_late.add(at(30), 10);
        assert_eq!(of_late.counts(at(59)), [11; 3]);
        assert_eq!(of_late.counts(at(65)), [10, 11, 11]);
        of_late.add(at(700), 100);
        assert_eq!(of_late.counts(at(700)), [100, 111, 111]);
        assert_eq!(of_late.counts(at(2 * 3_600)), [0, 0, 111]);
        of_late.add(at(90_000), 1_000);
        assert_eq!(of_late.counts(at(90_000)), [1_000; 3], "nothing of the day before is left");
    }
}
