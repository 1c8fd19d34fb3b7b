//! Messages a second, over three stretches of time, as RocketMQ's tools show them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::broker::OfLate;
use crate::types::MonotonicTime;

const STRETCHES: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(600)];
/// Counts are kept this often.
const INTERVAL: Duration = Duration::from_secs(10);
const SAMPLES_MAX: usize = 61;

/// What was counted: messages stored, and messages given to consumers.
pub(super) type Counts = [u64; 2];

/// Counts of the last ten minutes, and of the last day.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    samples: VecDeque<(MonotonicTime, Counts)>,
    of_late: [OfLate; 2],
    last: Counts,
}

impl Rates {
    pub fn tick(&mut self, now: MonotonicTime, counts: Counts) {
        for (which, of_late) in self.of_late.iter_mut().enumerate() {
            of_late.add(now, counts[which] - self.last[which]);
        }
        self.last = counts;
        if self.samples.back().is_some_and(|(last, _)| now.since(*last) < INTERVAL) {
            return;
        }
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now, counts));
    }

    /// How many messages were stored within the last minute, hour and day, and how many given.
    pub fn of_late(&self, now: MonotonicTime) -> [[u64; 3]; 2] {
        [0, 1].map(|which: usize| self.of_late[which].counts(now))
    }

    /// A second's share of each stretch, or of what there has been of it.
    pub fn per_second(&self, now: MonotonicTime, counts: Counts) -> [[f64; 3]; 2] {
        [0, 1].map(|which| STRETCHES.map(|stretch| self.rate(now, counts[which], which, stretch)))
    }

    fn rate(&self, now: MonotonicTime, count: u64, which: usize, stretch: Duration) -> f64 {
        // The newest sample that is as old as the stretch; while there is none, the oldest.
        let old_enough = self.samples.iter().rev().find(|(at, _)| now.since(*at) >= stretch);
        let Some((at, counts)) = old_enough.or_else(|| self.samples.front()) else { return 0.0 };
        let seconds = now.since(*at).as_secs_f64();
        if seconds < 1.0 { 0.0 } else { (count - counts[which]) as f64 / seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_its_stretch() {
        let at = |seconds: u64| MonotonicTime(seconds * 1_000_000_000);
        let mut rates = Rates::default();
        assert_eq!(rates.per_second(at(0), [0, 0]), [[0.0; 3]; 2]);
        for second in 0..=1_000 {
            // Ten a second, and nothing in the last minute.
            let stored = 10 * second.min(940);
            rates.tick(at(second), [stored, 0]);
        }
        let [stored, given] = rates.per_second(at(1_000), [9_400, 0]);
        assert_eq!(stored[..2], [0.0, 0.0]);
        assert!((stored[2] - 9.0).abs() < 0.2, "{stored:?}");
        assert_eq!(given, [0.0; 3]);
        assert!(rates.samples.len() <= SAMPLES_MAX);
        assert_eq!(rates.of_late(at(1_000)), [[0, 9_400, 9_400], [0; 3]]);
    }
}
