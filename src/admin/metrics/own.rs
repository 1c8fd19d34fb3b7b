//! Our own series, `turbopump_...`: what every shard counts and holds, one series for each, and what the node makes of it.
//!
//! A shard's counters come by their names. One that ends with `_ns` or `_ms` is told in seconds, one that is a level (`LEVELS`) as a gauge, and
//! any other as a counter: a new one is told without a word here. `docs/metrics.md` has them all.

use std::collections::BTreeMap;

use super::exposition::{Exposition, Kind};
use super::scrape::{Group, Scrape};
use crate::api::{STAGE_BOUNDS, ShardReading, stage_bound_ns};
use crate::metrics::DESCRIPTIONS;

/// Counters that go down as well, or are no counts.
const LEVELS: [&str; 29] = [
    "answer_bytes_waiting",
    "connections",
    "delays_loaded",
    "disk_available_bytes",
    "disk_bytes",
    "disk_used_bytes",
    "flight_recorder_bytes",
    "given_up_bytes",
    "halves",
    "index_bytes",
    "key_index_bytes",
    "key_runs",
    "lease_entries",
    "lease_groups",
    "lease_pairs",
    "leased_messages",
    "log_end",
    "log_placed",
    "memory_clients_max",
    "offsets",
    "placements_waiting",
    "queue_locks",
    "queues",
    "reader_clients",
    "recalls",
    "receivers_bytes",
    "segment_bytes",
    "segments",
    "uptime_ms",
];
/// Of the whole process, told under the names that Prometheus has for them.
const OF_PROCESS: [(&str, &str, Kind, f64, &str); 2] = [
    (
        "process_cpu_ns",
        "process_cpu_seconds_total",
        Kind::Counter,
        1e-9,
        "Processor time of the whole process, in seconds",
    ),
    (
        "resident_bytes",
        "process_resident_memory_bytes",
        Kind::Gauge,
        1.0,
        "Memory of the whole process that is resident, in bytes",
    ),
];
const MEMORY: &str = "memory_";
const PEAK: &str = "_peak";
const NANOSECONDS: &str = "_ns";
const MILLISECONDS: &str = "_ms";

/// One family of counters or levels, with a value for each shard that tells it.
struct Family {
    kind: Kind,
    factor: f64,
    help: String,
    values: Vec<(u16, u64)>,
}

/// Writes all of them.
pub(super) fn write(scrape: &Scrape, output: &mut Exposition) {
    write_node(scrape, output);
    let readings: Vec<&ShardReading> = scrape.readings.iter().flatten().collect();
    write_shards(scrape, output);
    write_process(&readings, output);
    write_memory(&readings, output);
    for (name, family) in families(&readings) {
        output.begin(&name, family.kind, &family.help);
        for (shard, value) in family.values {
            output.sample(&[("shard", &shard.to_string())], value as f64 * family.factor);
        }
    }
    write_stages(&readings, output);
    write_topics(scrape, output);
    write_groups(scrape, output);
}

fn write_node(scrape: &Scrape, output: &mut Exposition) {
    output.begin("turbopump_info", Kind::Gauge, "1, with what runs here as its labels");
    let facts = &scrape.facts;
    let node = facts.node.to_string();
    let labels = [
        ("version", facts.version),
        ("node", node.as_str()),
        ("name", facts.name.as_str()),
        ("cluster", facts.cluster.as_str()),
    ];
    output.sample(&labels, 1.0);
    output.begin("turbopump_ready", Kind::Gauge, "1 while /readyz answers 200, otherwise 0");
    output.sample(&[], f64::from(u8::from(scrape.is_ready())));
    let help = "Seconds that the shards took to be asked for this scrape";
    output.begin("turbopump_scrape_seconds", Kind::Gauge, help);
    output.sample(&[], scrape.took.as_secs_f64());
    let help = "1 while there are more topics, or pairs of a group and a topic, than a scrape has room for, and the others have no series";
    output.begin("turbopump_scrape_left_out", Kind::Gauge, help);
    for (what, count) in [("topics", scrape.topics_left_out), ("groups", scrape.groups_left_out)] {
        output.sample(&[("what", what)], f64::from(u8::from(count)));
    }
}

fn write_shards(scrape: &Scrape, output: &mut Exposition) {
    let help = "1 while the shard takes messages, otherwise 0; 0 as well when it does not answer";
    output.begin("turbopump_shard_serving", Kind::Gauge, help);
    for (shard, reading) in scrape.readings.iter().enumerate() {
        let is_serving = reading.as_ref().is_ok_and(|reading| reading.is_serving);
        output.sample(&[("shard", &shard.to_string())], f64::from(u8::from(is_serving)));
    }
    let readings = || scrape.readings.iter().flatten();
    output.begin("turbopump_shard_core", Kind::Gauge, "The number of the core that the shard is pinned to");
    for (reading, core) in readings().filter_map(|reading| Some((reading, reading.core?))) {
        output.sample(&[("shard", &reading.shard.to_string())], f64::from(core));
    }
    let help = "Bytes of the log that are placed and not durable yet";
    output.begin("turbopump_log_unflushed_bytes", Kind::Gauge, help);
    for reading in readings() {
        output.sample(&[("shard", &reading.shard.to_string())], reading.unflushed_bytes as f64);
    }
}

fn write_process(readings: &[&ShardReading], output: &mut Exposition) {
    for (counter, name, kind, factor, help) in OF_PROCESS {
        let told = readings.iter().flat_map(|reading| &reading.counters).find(|(name, _)| name == counter);
        output.begin(name, kind, help);
        if let Some((_, value)) = told {
            output.sample(&[], *value as f64 * factor);
        }
    }
}

/// What clients cause of memory, by account.
fn write_memory(readings: &[&ShardReading], output: &mut Exposition) {
    let write = |output: &mut Exposition, wants_peak: bool| {
        for reading in readings {
            let shard = reading.shard.to_string();
            for (name, value) in &reading.counters {
                let Some(account) = account(name) else { continue };
                let (account, is_peak) = match account.strip_suffix(PEAK) {
                    Some(account) => (account, true),
                    None => (account, false),
                };
                if is_peak == wants_peak {
                    output.sample(&[("shard", &shard), ("account", account)], *value as f64);
                }
            }
        }
    };
    let help = "Memory that clients cause now, by what they cause it with, in bytes";
    output.begin("turbopump_memory_bytes", Kind::Gauge, help);
    write(output, false);
    let help = "The most memory that clients have caused at a time since the start, in bytes";
    output.begin("turbopump_memory_peak_bytes", Kind::Gauge, help);
    write(output, true);
}

/// The account of clients' memory that a counter is of.
fn account(counter: &str) -> Option<&str> {
    counter.strip_prefix(MEMORY).filter(|_| !LEVELS.contains(&counter))
}

/// The families of shards' counters, by their names.
fn families(readings: &[&ShardReading]) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for reading in readings {
        let own = reading.counters.iter().filter(|(name, _)| {
            account(name).is_none() && OF_PROCESS.iter().all(|(counter, ..)| counter != name)
        });
        for (counter, value) in own {
            let kind = if LEVELS.contains(&counter.as_str()) { Kind::Gauge } else { Kind::Counter };
            let (base, factor) = in_seconds(counter);
            let total = if kind == Kind::Counter { "_total" } else { "" };
            let family = families.entry(format!("turbopump_{base}{total}")).or_insert_with(|| Family {
                kind,
                factor,
                help: description(counter),
                values: Vec::new(),
            });
            family.values.push((reading.shard.0, *value));
        }
    }
    families
}

/// The name of a counter in the unit that it is told in, and by what its value is to be multiplied.
fn in_seconds(counter: &str) -> (String, f64) {
    for (unit, factor) in [(NANOSECONDS, 1e-9), (MILLISECONDS, 1e-3)] {
        if let Some(base) = counter.strip_suffix(unit) {
            return (format!("{base}_seconds"), factor);
        }
    }
    (counter.to_owned(), 1.0)
}

/// What is said of a counter where it is declared, or its name in words.
fn description(counter: &str) -> String {
    let said = DESCRIPTIONS.iter().find(|(name, _)| *name == counter).map_or(&[][..], |(_, said)| *said);
    if said.is_empty() {
        return counter.replace('_', " ");
    }
    let text = said.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    without_links(&text)
}

/// A text of documentation as plain words: of ``[`NAME`](PATH)`` only the name is left.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        plain += before;
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    (plain + rest).replace(['[', ']', '`'], "")
}

fn write_stages(readings: &[&ShardReading], output: &mut Exposition) {
    let help = "How long the stages of requests took, in seconds; docs/metrics.md says what each stage is";
    output.begin("turbopump_stage_seconds", Kind::Histogram, help);
    let bounds: Vec<f64> = (0..STAGE_BOUNDS).map(|bucket| stage_bound_ns(bucket) as f64 / 1e9).collect();
    for reading in readings {
        let shard = reading.shard.to_string();
        for stage in &reading.stages {
            let labels = [("shard", shard.as_str()), ("stage", stage.stage)];
            output.histogram(&labels, &bounds, &stage.counts, stage.sum_ns as f64 / 1e9);
        }
    }
}

fn write_topics(scrape: &Scrape, output: &mut Exposition) {
    output.begin("turbopump_topic_messages", Kind::Gauge, "Messages of the topic that are there");
    for (topic, of) in &scrape.topics {
        output.sample(&[("topic", topic.as_str())], of.messages as f64);
    }
}

fn write_groups(scrape: &Scrape, output: &mut Exposition) {
    type Count = fn(&Group) -> u64;
    let counts: [(&str, &str, Count); 3] = [
        ("turbopump_group_members", "Members of the group that own queues", |of| of.members),
        ("turbopump_group_receives", "Receives of the group that are under way", |of| of.receives),
        ("turbopump_group_readers", "RocketMQ's own clients of the group", |of| of.readers),
    ];
    for (name, help, of) in counts {
        output.begin(name, Kind::Gauge, help);
        for (group, counted) in &scrape.groups {
            output.sample(&[("consumer_group", group.as_str())], of(counted) as f64);
        }
    }
    let help = "How long ago the oldest message was stored that the group has not dealt with, in seconds; 0 when there is none";
    output.begin("turbopump_group_oldest_unread_age_seconds", Kind::Gauge, help);
    for (group, topic, lag) in scrape.pairs() {
        let age = lag.oldest_unread_age.unwrap_or_default();
        output.sample(&[("consumer_group", group.as_str()), ("topic", topic.as_str())], age.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_becomes_plain_words() {
        let text = "A write took [`DISK_STALL`](crate::limits::DISK_STALL) or longer, as `x` has it.";
        assert_eq!(without_links(text), "A write took DISK_STALL or longer, as x has it.");
        assert_eq!(description("messages_produced"), "messages produced");
        assert!(
            description("disk_stalls").starts_with("Stretches in which"),
            "{}",
            description("disk_stalls")
        );
    }
}
