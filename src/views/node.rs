//! A node and its shards, as `turbopump status -o json`, `top -o json` and the console have them.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::{HistogramInfo, NodeInfo, READER_CLIENTS, RateInfo, ShardInfo};

/// A node with all that its shards count; programs rely on these names.
#[derive(Serialize)]
pub struct NodeView {
    #[serde(flatten)]
    pub summary: NodeSummary,
    /// RocketMQ's own clients that say what they consume or produce as, over all shards.
    pub reader_clients: u64,
    pub shards: Vec<ShardView>,
}

/// A node in a few figures. What an older broker does not say is `null`.
#[derive(Debug, Serialize)]
pub struct NodeSummary {
    pub version: String,
    pub node: Option<String>,
    pub level: &'static str,
    pub uptime_ms: Option<u64>,
    pub resident_bytes: u64,
    pub connections: u64,
    /// Of the disk that the data is on.
    pub disk_bytes: Option<u64>,
    pub disk_available_bytes: Option<u64>,
    /// What the logs of all shards take of it.
    pub log_bytes: u64,
    /// Over the last ten seconds, minute and ten minutes, as the broker counts them.
    pub rates: Vec<RateView>,
}

#[derive(Clone, Debug, Serialize)]
pub struct RateView {
    pub name: String,
    pub ten_seconds: f64,
    pub minute: f64,
    pub ten_minutes: f64,
}

#[derive(Serialize)]
pub struct ShardView {
    pub shard: u16,
    pub core: Option<u32>,
    /// Where clients find it, if whoever asks knows.
    pub address: Option<String>,
    /// `ok`, or why the shard does not take messages.
    pub state: String,
    pub counters: Map<String, Value>,
    pub latency_ns: Vec<StageView>,
}

#[derive(Serialize)]
pub struct StageView {
    pub stage: String,
    pub count: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub p99_99: u64,
    pub max: u64,
}

/// `ok`, or why a shard does not take messages.
pub fn state_of(shard: &ShardInfo) -> &str {
    if shard.state.is_empty() { "ok" } else { &shard.state }
}

pub fn counter(shard: &ShardInfo, name: &str) -> Option<u64> {
    shard.counters.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
}

fn sum(node: &NodeInfo, name: &str) -> u64 {
    node.shards.iter().filter_map(|shard| counter(shard, name)).fold(0, u64::saturating_add)
}

impl NodeView {
    pub fn new(node: &NodeInfo) -> Self {
        Self {
            summary: NodeSummary::new(node),
            reader_clients: sum(node, READER_CLIENTS),
            shards: node.shards.iter().map(ShardView::new).collect(),
        }
    }
}

impl NodeSummary {
    pub fn new(node: &NodeInfo) -> Self {
        let of_first = |name| node.shards.first().and_then(|shard| counter(shard, name));
        Self {
            version: node.version.clone(),
            node: node.node.map(|node| node.to_string()),
            level: node.level.name(),
            uptime_ms: of_first("uptime_ms"),
            resident_bytes: node.resident_bytes,
            connections: sum(node, "connections"),
            disk_bytes: of_first("disk_bytes"),
            disk_available_bytes: of_first("disk_available_bytes"),
            log_bytes: sum(node, "segment_bytes"),
            rates: sum_of_rates(&node.shards),
        }
    }
}

fn sum_of_rates(shards: &[ShardInfo]) -> Vec<RateView> {
    let mut sums: Vec<RateView> = Vec::new();
    for RateInfo { name, ten_seconds, minute, ten_minutes } in shards.iter().flat_map(|shard| &shard.rates) {
        match sums.iter_mut().find(|sum| sum.name == *name) {
            Some(sum) => {
                sum.ten_seconds += ten_seconds;
                sum.minute += minute;
                sum.ten_minutes += ten_minutes;
            }
            None => sums.push(RateView {
                name: name.clone(),
                ten_seconds: *ten_seconds,
                minute: *minute,
                ten_minutes: *ten_minutes,
            }),
        }
    }
    sums
}

impl ShardView {
    fn new(shard: &ShardInfo) -> Self {
        Self {
            shard: shard.shard.0,
            core: shard.core,
            address: None,
            state: state_of(shard).to_owned(),
            counters: shard.counters.iter().map(|(name, value)| (name.clone(), (*value).into())).collect(),
            latency_ns: shard.histograms.iter().map(StageView::new).collect(),
        }
    }
}

impl StageView {
    fn new(histogram: &HistogramInfo) -> Self {
        Self {
            stage: histogram.stage.clone(),
            count: histogram.count,
            p50: histogram.p50_ns,
            p90: histogram.p90_ns,
            p99: histogram.p99_ns,
            p99_9: histogram.p99_9_ns,
            p99_99: histogram.p99_99_ns,
            max: histogram.max_ns,
        }
    }
}
