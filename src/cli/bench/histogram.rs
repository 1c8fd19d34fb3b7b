//! Latency distributions: HdrHistogram over 1 us to 60 s with three digits, recorded in nanoseconds.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 60_000_000_000;
const DIGITS: u8 = 3;

/// Lines per halving of the distance to 100 % in an exported distribution, as the reference implementation prints it.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// A distribution of latencies.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// The values that a report prints, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencySummary {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
    pub mean: f64,
    pub count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram =
            Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS).expect("bounds that fit each other");
        Self { histogram }
    }
}

impl Latencies {
    /// Records `count` latencies of the same value. What exceeds 60 s counts as 60 s.
    #[inline]
    pub fn record(&mut self, nanoseconds: u64, count: u64) {
        self.histogram.saturating_record_n(nanoseconds, count);
    }

    pub fn add(&mut self, other: &Latencies) {
        self.histogram.add(&other.histogram).expect("all histograms here have the same bounds");
    }

    pub fn clear(&mut self) {
        self.histogram.reset();
    }

    /// The value that a share of all latencies does not exceed, nanoseconds.
    pub fn at_quantile(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile)
    }

    pub fn max_ns(&self) -> u64 {
        self.histogram.max()
    }

    pub fn summary(&self) -> LatencySummary {
        let at = |quantile| microseconds(self.at_quantile(quantile));
        LatencySummary {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: microseconds(self.max_ns()),
            mean: (self.histogram.mean() / 10.0).round() / 100.0,
            count: self.histogram.len(),
        }
    }

    /// Points of the distribution for a plot: share of latencies and the value that this share does not exceed,
    /// nanoseconds. Ends with share 1.
    pub fn curve(&self) -> Vec<(f64, u64)> {
        let mut points: Vec<(f64, u64)> = self
            .histogram
            .iter_quantiles(2 * TICKS_PER_HALF_DISTANCE)
            .map(|step| (step.quantile_iterated_to(), step.value_iterated_to().min(self.max_ns())))
            .collect();
        points.dedup();
        points
    }

    /// The distribution in the text form that HdrHistogram's plotters read (`.hgrm`), values in microseconds.
    pub fn to_hgrm(&self) -> String {
        let mut text = format!(
            "{:>12} {:>14} {:>10} {:>14}\n\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        );
        let mut total = 0;
        for step in self.histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
            total += step.count_since_last_iteration();
            let (value, quantile) = (step.value_iterated_to() as f64 / 1000.0, step.quantile_iterated_to());
            // Writing to a string cannot fail.
            let _ = write!(text, "{value:>12.3} {quantile:>2.12} {total:>10}");
            let _ = if quantile < 1.0 {
                writeln!(text, " {:>14.2}", 1.0 / (1.0 - quantile))
            } else {
                writeln!(text)
            };
        }
        let (mean, deviation) = (self.histogram.mean() / 1000.0, self.histogram.stdev() / 1000.0);
        let _ = writeln!(text, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]");
        let maximum = self.histogram.max() as f64 / 1000.0;
        let _ = writeln!(text, "#[Max     = {maximum:>12.3}, Total count    = {:>12}]", self.histogram.len());
        // Sub-buckets follow from the digits: the power of two at or above 2 * 10^3.
        let sub_buckets = 2 * 10_u32.pow(u32::from(DIGITS)).next_power_of_two();
        let _ = writeln!(
            text,
            "#[Buckets = {:>12}, SubBuckets     = {sub_buckets:>12}]",
            self.histogram.buckets()
        );
        text
    }
}

/// Nanoseconds as microseconds with two decimals, which is finer than the histogram.
fn microseconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 10.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Latencies {
        let mut latencies = Latencies::default();
        (1..=10_000).for_each(|value| latencies.record(value * 10_000, 1));
        latencies
    }

    #[test]
    fn percentiles_are_right_to_three_digits() {
        let summary = sample().summary();
        let expected = [(summary.p50, 50_000.0), (summary.p90, 90_000.0), (summary.p99, 99_000.0)];
        for (actual, exact) in
            expected.into_iter().chain([(summary.p99_9, 99_900.0), (summary.max, 100_000.0)])
        {
            assert!((actual / exact - 1.0).abs() < 0.001, "{actual} for {exact}");
        }
        assert_eq!(summary.count, 10_000);
        assert_eq!(Latencies::default().summary(), LatencySummary::default());
    }

    #[test]
    fn values_beyond_the_bounds_are_kept_at_the_bounds() {
        let mut latencies = Latencies::default();
        latencies.record(0, 1);
        latencies.record(u64::MAX, 2);
        assert_eq!(latencies.summary().count, 3);
        assert!(latencies.max_ns() >= HIGHEST_NS);
    }

    #[test]
    fn the_export_has_the_reference_form() {
        let text = sample().to_hgrm();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        let body: Vec<Vec<f64>> = lines[2..lines.len() - 3]
            .iter()
            .map(|line| line.split_whitespace().map(|cell| cell.parse().expect("a number")).collect())
            .collect();
        for pair in body.windows(2) {
            assert!(
                pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1] && pair[0][2] <= pair[1][2],
                "{pair:?}"
            );
        }
        for line in &body[..body.len() - 1] {
            assert_eq!(line.len(), 4, "{line:?}");
            assert!((line[3] * (1.0 - line[1]) - 1.0).abs() < 0.01, "{line:?}");
        }
        let last = &body[body.len() - 1];
        assert_eq!((last.len(), last[1], last[2]), (3, 1.0, 10_000.0));
        let footer = &lines[lines.len() - 3..];
        assert!(
            footer[0].starts_with("#[Mean    = ") && footer[0].contains(", StdDeviation   = "),
            "{footer:?}"
        );
        assert!(
            footer[1].starts_with("#[Max     = ") && footer[1].ends_with("Total count    =        10000]")
        );
        assert!(
            footer[2].starts_with("#[Buckets = ") && footer[2].ends_with("SubBuckets     =         2048]")
        );
    }

    #[test]
    fn a_curve_ends_at_the_maximum() {
        let latencies = sample();
        assert_eq!(latencies.curve().last(), Some(&(1.0, latencies.max_ns())));
    }
}
