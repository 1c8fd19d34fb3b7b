//! `turbopump status`.

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::{HistogramInfo, NodeInfo, ShardInfo};
use crate::broker::READER_CLIENTS;
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, Table, bytes_for_people, grouped, nanoseconds_for_people, print};
use crate::cli::server::ServerArguments;

#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Have the shards count their system calls from now on, which costs them a little
    #[arg(long)]
    pub count_syscalls: bool,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Serialize)]
struct NodeView {
    version: String,
    node: Option<String>,
    level: &'static str,
    resident_bytes: u64,
    /// RocketMQ's own clients that say what they consume or produce as, over all shards.
    reader_clients: u64,
    shards: Vec<ShardView>,
}

#[derive(Serialize)]
struct ShardView {
    shard: u16,
    core: Option<u32>,
    address: Option<String>,
    /// `ok`, or why the shard does not take messages.
    state: String,
    counters: Map<String, Value>,
    latency_ns: Vec<StageView>,
}

#[derive(Serialize)]
struct StageView {
    stage: String,
    count: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    p99_99: u64,
    max: u64,
}

pub fn run(arguments: &StatusArguments, format: OutputFormat) -> Result<(), CommandError> {
    let mut client = arguments.server.connect()?;
    let node = client.describe_node(arguments.count_syscalls)?;
    let mut view = NodeView::new(&node);
    for shard in &mut view.shards {
        let known = client.shards().find(|known| known.shard.0 == shard.shard);
        shard.address = known.map(|known| known.address.clone());
    }
    print(format, &view, render_node)
}

fn render_node(view: &NodeView) -> String {
    let mut text = format!(
        "turbopump {}, node {}, level {}, {} resident, {} RocketMQ clients\n\n",
        view.version,
        view.node.as_deref().unwrap_or("-"),
        view.level,
        bytes_for_people(view.resident_bytes as f64),
        grouped(view.reader_clients)
    );
    let mut shards = Table::new(["SHARD", "CORE", "ADDRESS", "STATE"]);
    for shard in &view.shards {
        let core = shard.core.map_or_else(|| "-".to_owned(), |core| core.to_string());
        let address = shard.address.clone().unwrap_or_else(|| "-".to_owned());
        shards.row([shard.shard.to_string(), core, address, shard.state.clone()]);
    }
    text.push_str(&shards.render());
    let mut counters = Table::new(["SHARD", "COUNTER", "VALUE"]);
    let mut stages = Table::new(["SHARD", "STAGE", "COUNT", "P50", "P90", "P99", "P99.9", "P99.99", "MAX"]);
    for shard in &view.shards {
        for (name, value) in &shard.counters {
            let value = value.as_u64().map_or_else(|| value.to_string(), grouped);
            counters.row([shard.shard.to_string(), name.clone(), value]);
        }
        for stage in shard.latency_ns.iter().filter(|stage| stage.count > 0) {
            let time = |nanoseconds: u64| nanoseconds_for_people(nanoseconds as f64);
            stages.row([
                shard.shard.to_string(),
                stage.stage.clone(),
                grouped(stage.count),
                time(stage.p50),
                time(stage.p90),
                time(stage.p99),
                time(stage.p99_9),
                time(stage.p99_99),
                time(stage.max),
            ]);
        }
    }
    text + "\n" + &counters.render() + "\n" + &stages.render()
}

impl NodeView {
    fn new(node: &NodeInfo) -> Self {
        let counters = node.shards.iter().flat_map(|shard| &shard.counters);
        Self {
            version: node.version.clone(),
            node: node.node.map(|node| node.to_string()),
            level: node.level.name(),
            resident_bytes: node.resident_bytes,
            reader_clients: counters.filter(|(name, _)| name == READER_CLIENTS).map(|(_, value)| value).sum(),
            shards: node.shards.iter().map(ShardView::new).collect(),
        }
    }
}

impl ShardView {
    fn new(shard: &ShardInfo) -> Self {
        let state = if shard.state.is_empty() { "ok" } else { &shard.state };
        Self {
            shard: shard.shard.0,
            core: shard.core,
            address: None,
            state: state.to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Level, NodeId, ShardId};

    #[test]
    fn a_failed_shard_says_why() {
        let histogram = HistogramInfo {
            stage: "flush".into(),
            count: 3,
            p50_ns: 140_000,
            p90_ns: 150_000,
            p99_ns: 360_000,
            p99_9_ns: 360_000,
            p99_99_ns: 360_000,
            max_ns: 4_000_000,
        };
        let shard = ShardInfo {
            shard: ShardId(0),
            core: Some(1),
            state: "a flush failed: I/O error".into(),
            counters: vec![("messages_produced".into(), 12_345), (READER_CLIENTS.into(), 2)],
            histograms: vec![histogram],
            rates: Vec::new(),
        };
        let node = NodeInfo {
            version: "0.1.0".into(),
            node: Some(NodeId(7)),
            level: Level::Durable,
            resident_bytes: 52_428_800,
            shards: vec![shard],
        };
        let text = render_node(&NodeView::new(&node));
        for part in
            ["52.4 MB", "2 RocketMQ clients", "a flush failed", "12,345", "140 us", "4.00 ms", "P99.99"]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
