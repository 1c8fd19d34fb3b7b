//! `GET /api/node`: what `turbopump status -o json` shows.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::admin::answer::Answer;
use crate::admin::request::Request;
use crate::admin::server::Visit;
use crate::api::{self, Failure, HistogramInfo, NodeInfo, Reply, ShardInfo, Status};

#[derive(Serialize)]
struct NodeView<'a> {
    version: &'a str,
    node: Option<String>,
    level: &'a str,
    resident_bytes: u64,
    shards: Vec<ShardView<'a>>,
}

#[derive(Serialize)]
struct ShardView<'a> {
    shard: u16,
    core: Option<u32>,
    /// `ok`, or why the shard does not take messages.
    state: &'a str,
    counters: BTreeMap<&'a str, u64>,
    latency_ns: Vec<StageView<'a>>,
}

#[derive(Serialize)]
struct StageView<'a> {
    stage: &'a str,
    count: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    p99_99: u64,
    max: u64,
}

/// Needs what `status` does: a key with `admin = true`, where there are keys.
pub(super) async fn describe(visit: &Visit, request: &Request) -> Result<Answer, Failure> {
    let node = match visit.carry_out(request, api::Request::DescribeNode { count_syscalls: false }).await? {
        Reply::Node(node) => node,
        _ => return Err(Failure::new(Status::Internal, "the shard gave an answer of another kind")),
    };
    Ok(Answer::json(&NodeView::of(&node)))
}

impl<'a> NodeView<'a> {
    fn of(node: &'a NodeInfo) -> Self {
        Self {
            version: &node.version,
            node: node.node.map(|node| node.to_string()),
            level: node.level.name(),
            resident_bytes: node.resident_bytes,
            shards: node.shards.iter().map(ShardView::of).collect(),
        }
    }
}

impl<'a> ShardView<'a> {
    fn of(shard: &'a ShardInfo) -> Self {
        Self {
            shard: shard.shard.0,
            core: shard.core,
            state: if shard.state.is_empty() { "ok" } else { &shard.state },
            counters: shard.counters.iter().map(|(name, value)| (name.as_str(), *value)).collect(),
            latency_ns: shard.histograms.iter().map(StageView::of).collect(),
        }
    }
}

impl<'a> StageView<'a> {
    fn of(histogram: &'a HistogramInfo) -> Self {
        Self {
            stage: &histogram.stage,
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
