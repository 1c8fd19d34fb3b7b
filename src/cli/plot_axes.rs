//! What plots of latencies have in common: their axes and their colours.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::RGBColor;

pub const FONT: &str = "sans-serif";
pub const INK: RGBColor = RGBColor(38, 50, 56);
pub const GRID: RGBColor = RGBColor(224, 228, 231);
pub const COLORS: [RGBColor; 3] = [RGBColor(2, 119, 189), RGBColor(239, 108, 0), RGBColor(198, 40, 40)];

/// Latencies on a scale of powers of ten, with a line at each.
pub struct LatencyAxis {
    inner: RangedCoordf64,
    powers: std::ops::RangeInclusive<i32>,
}

/// Percentiles by their distance to 100 %: each step to the right is one nine more.
pub struct NinesAxis {
    inner: RangedCoordf64,
    nines: usize,
}

impl LatencyAxis {
    pub fn new(lowest_ns: u64, highest_ns: u64) -> Self {
        let first = (lowest_ns.max(1) as f64).log10().floor() as i32;
        let last = ((highest_ns.max(1) as f64).log10().ceil() as i32).max(first + 1);
        Self { inner: (f64::from(first)..f64::from(last)).into(), powers: first..=last }
    }
}

impl Ranged for LatencyAxis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.inner.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.powers.clone().map(f64::from).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.inner.range()
    }
}

impl ValueFormatter<f64> for LatencyAxis {
    fn format(power: &f64) -> String {
        power_label(*power)
    }
}

impl NinesAxis {
    pub fn new(nines: usize) -> Self {
        Self { inner: (0.0..nines as f64).into(), nines }
    }
}

impl Ranged for NinesAxis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.inner.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        (0..=self.nines).map(|nines| nines as f64).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.inner.range()
    }
}

impl ValueFormatter<f64> for NinesAxis {
    fn format(nines: &f64) -> String {
        percentile_label(*nines)
    }
}

/// `3` nines are `99.9 %`.
fn percentile_label(nines: f64) -> String {
    let decimals = (nines - 2.0).max(0.0) as usize;
    format!("{:.*} %", decimals, 100.0 - 100.0 / 10_f64.powf(nines))
}

fn power_label(power: f64) -> String {
    let nanoseconds = 10_f64.powf(power);
    match nanoseconds {
        value if value >= 1e9 => format!("{:.0} s", value / 1e9),
        value if value >= 1e6 => format!("{:.0} ms", value / 1e6),
        value if value >= 1e3 => format!("{:.0} us", value / 1e3),
        value => format!("{value:.0} ns"),
    }
}
