//! Whether a run went on as it began.

use serde::Serialize;

use crate::cli::bench::plot::Interval;
use crate::cli::output::grouped;

/// A shorter rest at the end is no second.
const WHOLE_SECOND: f64 = 0.9;
/// What later seconds are compared with.
const FIRST_SECONDS: usize = 10;

/// The rates of a run's seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evenness {
    /// Messages in each second.
    pub each_second: Vec<f64>,
    /// The median of the first ten.
    pub first_median: f64,
    pub lowest: f64,
    /// The lowest second's number, from 1 on.
    pub lowest_second: usize,
    /// The lowest second's part of that median.
    pub lowest_share: f64,
}

impl Evenness {
    /// `None` for a run without a whole second.
    pub fn of(intervals: &[Interval]) -> Option<Self> {
        let starts = std::iter::once(0.0).chain(intervals.iter().map(|interval| interval.seconds));
        let each_second: Vec<f64> = starts
            .zip(intervals)
            .filter(|(start, interval)| interval.seconds - start >= WHOLE_SECOND)
            .map(|(_, interval)| interval.messages_per_second.round())
            .collect();
        let mut first: Vec<f64> = each_second.iter().take(FIRST_SECONDS).copied().collect();
        first.sort_by(f64::total_cmp);
        let (index, &lowest) =
            each_second.iter().enumerate().min_by(|(_, one), (_, other)| one.total_cmp(other))?;
        let first_median = (first[(first.len() - 1) / 2] + first[first.len() / 2]) / 2.0;
        let lowest_share = if first_median > 0.0 { lowest / first_median } else { 0.0 };
        let lowest_share = (lowest_share * 1_000.0).round() / 1_000.0;
        Some(Self { each_second, first_median, lowest, lowest_second: index + 1, lowest_share })
    }

    pub fn render(&self) -> String {
        format!(
            "seconds      median of the first {} {} msg/s; lowest {} msg/s, {:.2} of it, in second {} of {}\n",
            self.each_second.len().min(FIRST_SECONDS),
            grouped(self.first_median as u64),
            grouped(self.lowest as u64),
            self.lowest_share,
            self.lowest_second,
            self.each_second.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(rates: &[f64]) -> Vec<Interval> {
        let interval = |(index, &rate): (usize, &f64)| Interval {
            seconds: index as f64 + 1.0,
            messages_per_second: rate,
            p50_ns: 0,
            p99_ns: 0,
            max_ns: 0,
        };
        rates.iter().enumerate().map(interval).collect()
    }

    #[test]
    fn the_lowest_second_is_compared_with_the_first_ten() {
        let mut rates = vec![100.0; 10];
        rates.extend([90.0, 60.0, 300.0]);
        let mut seconds = intervals(&rates);
        // The rest of a second.
        seconds.push(Interval { seconds: 13.5, messages_per_second: 1.0, ..seconds[0] });
        let evenness = Evenness::of(&seconds).expect("there are seconds");
        assert_eq!(evenness.each_second, rates);
        assert_eq!((evenness.first_median, evenness.lowest), (100.0, 60.0));
        assert_eq!((evenness.lowest_second, evenness.lowest_share), (12, 0.6));
        assert!(evenness.render().contains("lowest 60 msg/s, 0.60 of it, in second 12 of 13"));
    }

    #[test]
    fn a_short_run_is_compared_with_itself() {
        let evenness = Evenness::of(&intervals(&[10.0, 30.0])).expect("there are seconds");
        assert_eq!((evenness.first_median, evenness.lowest_share), (20.0, 0.5));
        assert_eq!(Evenness::of(&[]), None);
        let nothing = Evenness::of(&intervals(&[0.0])).expect("there is one");
        assert_eq!(nothing.lowest_share, 0.0);
    }
}
