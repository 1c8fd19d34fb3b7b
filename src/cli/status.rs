//! `turbopump status`: what a person asks first, and with `--all` every counter.

use clap::Args;
use serde_json::Value;

use crate::cli::error::CommandError;
use crate::cli::output::{
    OutputFormat, Table, age_for_people, bytes_for_people, grouped, nanoseconds_for_people, on_one_line,
    print, rate_for_people,
};
use crate::cli::server::ServerArguments;
use crate::views::{NodeSummary, NodeView, RateView, ShardView};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct StatusArguments {
    /// Print every counter and the latencies of every stage as well; -o json always has them
    #[arg(long)]
    pub all: bool,
    /// Have the shards count their system calls from now on, which costs them a little
    #[arg(long)]
    pub count_syscalls: bool,
    #[command(flatten)]
    pub server: ServerArguments,
}

const HELP: &str = "\
Rates are those of the last ten seconds, minute and ten minutes, as the broker counts them. FLUSH and ANSWER are what 99 of 100 \
flushes of the log, and answers to producers, have taken at most since the broker started.

JSON: version, node, level, uptime_ms, resident_bytes, connections, reader_clients, disk_bytes, disk_available_bytes, log_bytes, \
rates (name, ten_seconds, minute, ten_minutes: messages_in, bytes_in, messages_out, bytes_out), shards (shard, core, address, \
state, counters, latency_ns).

Examples:
  turbopump status
  turbopump status --all
  turbopump status -o json";

/// What rates are called for people.
const RATES: [(&str, &str); 4] = [
    ("messages_in", "messages in"),
    ("messages_out", "messages out"),
    ("bytes_in", "bytes in"),
    ("bytes_out", "bytes out"),
];

pub fn run(arguments: &StatusArguments, format: OutputFormat) -> Result<(), CommandError> {
    let mut client = arguments.server.connect()?;
    let node = client.describe_node(arguments.count_syscalls)?;
    let mut view = NodeView::new(&node);
    for shard in &mut view.shards {
        let known = client.shards().find(|known| known.shard.0 == shard.shard);
        shard.address = known.map(|known| known.address.clone());
    }
    print(format, &view, |view| {
        let text = render_node(view);
        if arguments.all { text + &render_counters(view) } else { text }
    })
}

fn render_node(view: &NodeView) -> String {
    let node = &view.summary;
    let uptime = node.uptime_ms.map_or_else(String::new, |up| format!("up {}, ", age_for_people(up as f64)));
    let mut text = format!(
        "turbopump {}, node {}, {uptime}level {}, {} resident, {} connections, {} RocketMQ clients\n",
        on_one_line(&node.version),
        node.node.as_deref().unwrap_or("-"),
        node.level,
        bytes_for_people(node.resident_bytes as f64),
        grouped(node.connections),
        grouped(view.reader_clients)
    );
    text += &render_disk(node);
    if !node.rates.is_empty() {
        text += &format!("\n{}", rates_table(&node.rates).render());
    }
    text + "\n" + &shards_table(&view.shards).render()
}

fn render_disk(node: &NodeSummary) -> String {
    let log = bytes_for_people(node.log_bytes as f64);
    match (node.disk_available_bytes, node.disk_bytes) {
        (Some(available), Some(all)) => format!(
            "disk: {} of {} available; the log has {log}\n",
            bytes_for_people(available as f64),
            bytes_for_people(all as f64)
        ),
        _ => format!("the log has {log}\n"),
    }
}

fn rates_table(rates: &[RateView]) -> Table {
    let mut table = Table::new(["PER SECOND", "10 S", "1 MIN", "10 MIN"]);
    for (name, title) in RATES {
        let Some(rate) = rates.iter().find(|rate| rate.name == name) else { continue };
        let text = |value: f64| match name.starts_with("bytes") {
            true => bytes_for_people(value),
            false => rate_for_people(value),
        };
        let [ten_seconds, minute, ten_minutes] = [rate.ten_seconds, rate.minute, rate.ten_minutes].map(text);
        table.row([title.to_owned(), ten_seconds, minute, ten_minutes]);
    }
    table
}

fn shards_table(shards: &[ShardView]) -> Table {
    let mut table =
        Table::new(["SHARD", "CORE", "ADDRESS", "CONNECTIONS", "LOG", "FLUSH", "ANSWER", "STATE"]);
    for shard in shards {
        let none = || "-".to_owned();
        let counter = |name: &str| shard.counters.get(name).and_then(Value::as_u64);
        let slow = |stage: &str| {
            let of = shard.latency_ns.iter().find(|of| of.stage == stage && of.count > 0);
            of.map_or_else(none, |of| nanoseconds_for_people(of.p99 as f64))
        };
        table.row([
            shard.shard.to_string(),
            shard.core.map_or_else(none, |core| core.to_string()),
            shard.address.clone().unwrap_or_else(none),
            counter("connections").map_or_else(none, grouped),
            counter("segment_bytes").map_or_else(none, |bytes| bytes_for_people(bytes as f64)),
            slow("flush"),
            slow("answer"),
            shard.state.clone(),
        ]);
    }
    table
}

fn render_counters(view: &NodeView) -> String {
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
    format!("\n{}\n{}", counters.render(), stages.render())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{HistogramInfo, NodeInfo, READER_CLIENTS, RateInfo, ShardInfo};
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
            counters: vec![
                ("messages_produced".into(), 12_345),
                (READER_CLIENTS.into(), 2),
                ("uptime_ms".into(), 90_000),
                ("disk_bytes".into(), 100_000_000_000),
                ("disk_available_bytes".into(), 42_000_000_000),
            ],
            histograms: vec![histogram],
            rates: vec![
                RateInfo { name: "messages_in".into(), ten_seconds: 1_234.0, minute: 0.5, ten_minutes: 0.0 },
                RateInfo { name: "bytes_in".into(), ten_seconds: 1.5e6, minute: 0.0, ten_minutes: 0.0 },
            ],
        };
        let node = NodeInfo {
            version: "0.1.0".into(),
            node: Some(NodeId(7)),
            level: Level::Durable,
            resident_bytes: 52_428_800,
            shards: vec![shard],
        };
        let view = NodeView::new(&node);
        let text = render_node(&view);
        for part in [
            "52.4 MB",
            "2 RocketMQ clients",
            "up 1m 30s",
            "42.0 GB of 100 GB available",
            "messages in    1,234   0.50       0",
            "1.50 MB",
            "a flush failed",
            "360 us",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("messages_produced"));
        let all = render_counters(&view);
        for part in ["messages_produced", "12,345", "140 us", "4.00 ms", "P99.99"] {
            assert!(all.contains(part), "{part} is missing in {all}");
        }
    }
}
