//! Medians and percentiles, printed as one line of JSON.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Latencies in nanoseconds, up to a minute.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constant")
}

pub fn percentiles_us(latencies: &Histogram<u64>) -> Value {
    let at = |quantile| (latencies.value_at_quantile(quantile) as f64 / 10.0).round() / 100.0;
    json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99_9": at(0.999), "max": at(1.0) })
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

pub fn print(report: &Value) {
    println!("{report}");
}
