//! Where the time of a topic's requests went, as `turbopump latency -o json` and the console have it.

use std::time::Duration;

use serde::Serialize;

use super::time::nanoseconds;
use crate::api::{HistogramInfo, KindLatency, LatencyInfo};
use crate::types::TopicName;

/// What was measured of a topic; programs rely on these names.
#[derive(Serialize)]
pub struct LatencyView {
    topic: String,
    measured_ns: u64,
    requests: Vec<KindView>,
}

#[derive(Serialize)]
struct KindView {
    protocol: &'static str,
    request: String,
    total_ns: SpreadView,
    stages_ns: Vec<SpreadView>,
    /// A share of all requests, and what each of them took no longer than.
    curve: Vec<PointView>,
}

#[derive(Serialize)]
struct SpreadView {
    stage: String,
    count: u64,
    mean: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    p99_99: u64,
    max: u64,
}

#[derive(Serialize)]
struct PointView {
    share: f64,
    ns: u64,
}

impl LatencyView {
    pub fn new(topic: &TopicName, time: Duration, latency: &LatencyInfo) -> Self {
        Self {
            topic: topic.to_string(),
            measured_ns: nanoseconds(time),
            requests: latency.kinds.iter().map(KindView::new).collect(),
        }
    }
}

impl KindView {
    fn new(kind: &KindLatency) -> Self {
        let points = kind.curve.iter();
        Self {
            protocol: kind.protocol.name(),
            request: kind.kind.clone(),
            total_ns: SpreadView::new(kind.mean, &kind.total),
            stages_ns: kind.stages.iter().map(|(mean, stage)| SpreadView::new(*mean, stage)).collect(),
            curve: points.map(|(share, time)| PointView { share: *share, ns: nanoseconds(*time) }).collect(),
        }
    }
}

impl SpreadView {
    fn new(mean: Duration, histogram: &HistogramInfo) -> Self {
        Self {
            stage: histogram.stage.clone(),
            count: histogram.count,
            mean: nanoseconds(mean),
            p50: histogram.p50_ns,
            p90: histogram.p90_ns,
            p99: histogram.p99_ns,
            p99_9: histogram.p99_9_ns,
            p99_99: histogram.p99_99_ns,
            max: histogram.max_ns,
        }
    }
}
