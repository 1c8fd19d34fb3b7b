//! What goes in and out of a shard in a second, over three stretches of time.

use std::collections::VecDeque;
use std::time::Duration;

use crate::api::RateInfo;
use crate::broker::of_late::OfLate;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::types::MonotonicTime;

/// The last ten seconds, minute, and ten minutes.
const STRETCHES: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(600)];
/// Counts of the last ten seconds are kept about once a second, and those before this often.
const INTERVAL: Duration = Duration::from_secs(10);
const SAMPLES_MAX: usize = 61;
const RECENT_MAX: usize = 12;
/// Two counts of one moment are one.
const RECENT_INTERVAL: Duration = Duration::from_millis(500);

const NAMES: [&str; 4] = ["messages_in", "bytes_in", "messages_out", "bytes_out"];

/// What was counted: messages stored and their bytes, and messages given to consumers and theirs.
type Counts = [u64; 4];

type Sample = (MonotonicTime, Counts);

/// Counts of the last ten minutes, and of the last day.
#[derive(Debug, Default)]
pub struct Rates {
    recent: VecDeque<Sample>,
    samples: VecDeque<Sample>,
    of_late: [OfLate; 4],
    last: Counts,
}

fn keep(samples: &mut VecDeque<Sample>, sample: Sample, interval: Duration, max: usize) {
    if samples.back().is_some_and(|(last, _)| sample.0.since(*last) < interval) {
        return;
    }
    if samples.len() >= max {
        samples.pop_front();
    }
    samples.push_back(sample);
}

impl Rates {
    /// To be told about once a second what was counted so far.
    pub fn tick(&mut self, now: MonotonicTime, counts: Counts) {
        for (which, of_late) in self.of_late.iter_mut().enumerate() {
            of_late.add(now, counts[which] - self.last[which]);
        }
        self.last = counts;
        keep(&mut self.recent, (now, counts), RECENT_INTERVAL, RECENT_MAX);
        keep(&mut self.samples, (now, counts), INTERVAL, SAMPLES_MAX);
    }

    /// How much of each there was within each of [`SPANS`](crate::broker::SPANS).
    pub fn of_late(&self, now: MonotonicTime) -> [[u64; 3]; 4] {
        std::array::from_fn(|which| self.of_late[which].counts(now))
    }

    /// A second's share of each stretch, or of what there has been of it.
    pub fn per_second(&self, now: MonotonicTime, counts: Counts) -> [[f64; 3]; 4] {
        std::array::from_fn(|which| STRETCHES.map(|stretch| self.rate(now, counts[which], which, stretch)))
    }

    fn rate(&self, now: MonotonicTime, count: u64, which: usize, stretch: Duration) -> f64 {
        // The newest sample that is as old as the stretch; while there is none, the oldest.
        let is_old_enough = |(at, _): &&Sample| now.since(*at) >= stretch;
        let mut newest_first = self.recent.iter().rev().chain(self.samples.iter().rev());
        let found = newest_first.find(is_old_enough);
        let Some((at, counts)) = found.or_else(|| self.samples.front()) else { return 0.0 };
        let seconds = now.since(*at).as_secs_f64();
        if seconds < 1.0 { 0.0 } else { (count - counts[which]) as f64 / seconds }
    }
}

impl<D: Disk> Broker<D> {
    fn counts(&self) -> Counts {
        let metrics = &self.metrics;
        [
            metrics.messages_produced.get(),
            metrics.bytes_produced.get(),
            metrics.messages_fetched.get() + metrics.messages_received.get(),
            metrics.bytes_fetched.get() + metrics.bytes_received.get(),
        ]
    }

    /// To be called about once a second.
    pub fn note_rates(&self) {
        self.rates.borrow_mut().tick(self.clock.monotonic(), self.counts());
    }

    /// How much of each there was in a second, over the last ten seconds, minute and ten minutes.
    pub fn rates_per_second(&self) -> [[f64; 3]; 4] {
        self.rates.borrow().per_second(self.clock.monotonic(), self.counts())
    }

    /// How much of each there was within each of [`SPANS`](crate::broker::SPANS).
    pub fn counted_of_late(&self) -> [[u64; 3]; 4] {
        self.rates.borrow().of_late(self.clock.monotonic())
    }

    pub(in crate::broker) fn rate_infos(&self) -> Vec<RateInfo> {
        let named = NAMES.into_iter().zip(self.rates_per_second());
        let info = |(name, [ten_seconds, minute, ten_minutes]): (&str, [f64; 3])| RateInfo {
            name: name.to_owned(),
            ten_seconds,
            minute,
            ten_minutes,
        };
        named.map(info).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_its_stretch() {
        let at = |seconds: u64| MonotonicTime(seconds * 1_000_000_000);
        let mut rates = Rates::default();
        assert_eq!(rates.per_second(at(0), [0; 4]), [[0.0; 3]; 4]);
        for second in 0..=1_000 {
            // Ten a second, and nothing in the last minute.
            let stored = 10 * second.min(940);
            rates.tick(at(second), [stored, 0, 0, 0]);
        }
        let [stored, _, given, _] = rates.per_second(at(1_000), [9_400, 0, 0, 0]);
        assert_eq!(stored[..2], [0.0, 0.0]);
        assert!((stored[2] - 9.0).abs() < 0.2, "{stored:?}");
        assert_eq!(given, [0.0; 3]);
        assert!(rates.samples.len() <= SAMPLES_MAX && rates.recent.len() <= RECENT_MAX);
        assert_eq!(rates.of_late(at(1_000))[0], [0, 9_400, 9_400]);
    }

    #[test]
    fn the_last_ten_seconds_are_no_longer_than_that() {
        let at = |tenths: u64| MonotonicTime(tenths * 100_000_000);
        let mut rates = Rates::default();
        (0..=30).for_each(|second| rates.tick(at(10 * second), [second.min(17), 0, 0, 0]));
        // Counted up to the 17th second; the sample that is ten seconds old is that of the 20th.
        assert_eq!(rates.per_second(at(301), [17, 0, 0, 0])[0][0], 0.0);
        assert!(rates.per_second(at(301), [17, 0, 0, 0])[0][1] > 0.5);
    }
}
