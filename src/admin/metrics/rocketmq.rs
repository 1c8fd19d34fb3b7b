//! The series of RocketMQ 5's brokers, under their names, with their labels and buckets, as `tests/data/metrics` has them of a live
//! scrape: boards and alerts that were made for Apache's broker go on. A node is one broker here, whatever shards it has. What is not
//! quite the same, or is left out, stands in `docs/metrics.md`.

use std::time::Duration;

use super::exposition::{Exposition, Kind, Label};
use super::scrape::Scrape;
use crate::api::{
    ClientTally, DECISION_BOUNDS, DELAY_BOUNDS, GroupTally, LagReading, MESSAGE_SIZE_BOUNDS, SPAN_BOUNDS,
    ShardReading, SizeCounts, Spans, TopicTally,
};
use crate::protocol::remoting::release_name;
use crate::types::{GroupName, TopicName};

/// RocketMQ's bits of what a broker may be used for: 4 to read, 2 to write.
const PERMISSION: f64 = 6.0;
/// What the names of topics begin with that are RocketMQ's own, and the others (`common/.../topic/TopicValidator.java`).
const SYSTEM_PREFIXES: [&str; 2] = ["rmq_sys_", "schedule_topic_"];
const SYSTEM_TOPICS: [&str; 5] =
    ["TBW102", "BenchmarkTest", "TRANS_CHECK_MAX_TIME_TOPIC", "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT"];
const SYSTEM_GROUPS: &str = "cid_rmq_sys_";
/// Every series of Apache's broker has it, and every one of its store has the others.
const SCOPE: Label<'static> = ("otel_scope_name", "broker-meter");
const STORE: [Label<'static>; 2] = [("storage_medium", "disk"), ("storage_type", "local")];
/// Messages are counted when they enter their queues, and what they were before is not known then.
const MESSAGE_TYPE: Label<'static> = ("message_type", "unspecified");
const REMOTING: Label<'static> = ("protocol_type", "remoting");
const NOT_RETRIED: Label<'static> = ("is_retry", "false");

struct Writer<'a> {
    scrape: &'a Scrape,
    common: [Label<'a>; 4],
}

/// Writes all of them.
pub(super) fn write(scrape: &Scrape, output: &mut Exposition) {
    let facts = &scrape.facts;
    let common = [
        ("cluster", facts.cluster.as_str()),
        ("node_id", facts.name.as_str()),
        ("node_type", "broker"),
        SCOPE,
    ];
    let writer = Writer { scrape, common };
    writer.node(output);
    writer.incoming(output);
    writer.outgoing(output);
    writer.lag(output);
    writer.clients(output);
    writer.transactions(output);
    writer.timers(output);
    writer.store(output);
}

impl<'a> Writer<'a> {
    fn labels(&self, more: &[Label<'a>]) -> Vec<Label<'a>> {
        self.common.iter().chain(more).copied().collect()
    }

    fn readings(&self) -> impl Iterator<Item = &'a ShardReading> {
        self.scrape.readings.iter().flatten()
    }

    /// What the node is, and how much of what it has.
    fn node(&self, output: &mut Exposition) {
        output.begin("target_info", Kind::Gauge, "Target metadata");
        output.sample(&[], 1.0);
        // All shards have the same topics, but for those that are on their way to them.
        let topics = self.readings().map(|reading| reading.topic_count).max().unwrap_or(0);
        for (name, help, value) in [
            ("rocketmq_broker_permission", "Broker permission", PERMISSION),
            ("rocketmq_topic_number", "Active topic number", topics as f64),
            (
                "rocketmq_consumer_group_number",
                "Active subscription group number",
                self.scrape.groups.len() as f64,
            ),
        ] {
            output.begin(name, Kind::Gauge, help);
            output.sample(&self.labels(&[]), value);
        }
    }

    fn incoming(&self, output: &mut Exposition) {
        let labels = |topic: &'a TopicName| {
            let is_system = truth(is_system_topic(topic.as_str()));
            self.labels(&[("topic", topic.as_str()), MESSAGE_TYPE, ("is_system", is_system)])
        };
        output.begin("rocketmq_messages_in_total", Kind::Counter, "Total number of incoming messages");
        for (topic, of) in &self.scrape.topics {
            output.sample(&labels(topic), of.sizes.counts.iter().sum::<u64>() as f64);
        }
        output.begin("rocketmq_throughput_in_total", Kind::Counter, "Total traffic of incoming messages");
        for (topic, of) in &self.scrape.topics {
            output.sample(&labels(topic), of.sizes.bytes as f64);
        }
        output.begin("rocketmq_message_size", Kind::Histogram, "Incoming messages size");
        for (topic, of) in &self.scrape.topics {
            let SizeCounts { counts, bytes } = &of.sizes;
            output.histogram(&labels(topic), &reals(&MESSAGE_SIZE_BOUNDS), counts, *bytes as f64);
        }
    }

    fn outgoing(&self, output: &mut Exposition) {
        type Of = fn(&GroupTally) -> u64;
        let families: [(&str, &str, Of); 3] = [
            ("rocketmq_messages_out_total", "Total number of outgoing messages", |of| of.messages),
            ("rocketmq_throughput_out_total", "Total traffic of outgoing messages", |of| of.bytes),
            ("rocketmq_send_to_dlq_messages_total", "Consumer send to DLQ messages", |of| of.dead_letters),
        ];
        for (name, help, of) in families {
            output.begin(name, Kind::Counter, help);
            for ((group, topic), tally) in &self.scrape.given {
                let group = group.as_ref().map_or("", GroupName::as_str);
                output.sample(&self.pair(group, topic.as_str(), &[]), of(tally) as f64);
            }
        }
    }

    /// The labels of a group and a topic.
    fn pair(&self, group: &'a str, topic: &'a str, more: &[Label<'a>]) -> Vec<Label<'a>> {
        let is_system = truth(is_system_topic(topic) || is_system_group(group));
        let mut labels =
            self.labels(&[("consumer_group", group), ("topic", topic), ("is_system", is_system)]);
        labels.extend(more);
        labels
    }

    fn lag(&self, output: &mut Exposition) {
        type Of = fn(&LagReading) -> f64;
        let families: [(&str, &str, Of); 4] = [
            ("rocketmq_consumer_lag_messages", "Consumer lag messages", |lag| lag.lag as f64),
            ("rocketmq_consumer_lag_latency_milliseconds", "Consumer lag time", |lag| {
                in_milliseconds(lag.oldest_unread_age.unwrap_or_default())
            }),
            ("rocketmq_consumer_inflight_messages", "Consumer inflight messages", |lag| lag.leased as f64),
            ("rocketmq_consumer_ready_messages", "Consumer ready messages", |lag| {
                lag.lag.saturating_sub(lag.leased) as f64
            }),
        ];
        for (name, help, of) in families {
            output.begin(name, Kind::Gauge, help);
            for (group, topic, lag) in self.scrape.pairs() {
                output.sample(&self.pair(group.as_str(), topic.as_str(), &[NOT_RETRIED]), of(lag));
            }
        }
    }

    /// RocketMQ's own clients.
    fn clients(&self, output: &mut Exposition) {
        let told: Vec<_> = self
            .readings()
            .flat_map(|reading| &reading.clients)
            .map(|of| (of, of.language.to_lowercase(), release_name(of.version.into()).to_lowercase()))
            .collect();
        output.begin("rocketmq_producer_connections", Kind::Gauge, "Producer connections");
        for (of, language, version) in told.iter().filter(|(of, ..)| of.group.is_none()) {
            let labels = [("language", language.as_str()), ("version", version.as_str()), REMOTING];
            sample_with(output, &self.common, &labels, of.count);
        }
        output.begin("rocketmq_consumer_connections", Kind::Gauge, "Consumer connections");
        for (of, language, version) in &told {
            let Some(group) = &of.group else { continue };
            let labels = [
                ("consumer_group", group.as_str()),
                ("language", language.as_str()),
                ("version", version.as_str()),
                ("consume_mode", consume_mode(of)),
                REMOTING,
                ("is_system", truth(is_system_group(group.as_str()))),
            ];
            sample_with(output, &self.common, &labels, of.count);
        }
    }

    fn transactions(&self, output: &mut Exposition) {
        type Of = fn(&TopicTally) -> u64;
        let counters: [(&str, &str, Of); 2] = [
            ("rocketmq_commit_messages_total", "Total number of commit messages", |of| of.committed),
            ("rocketmq_rollback_messages_total", "Total number of rollback messages", |of| of.rolled_back),
        ];
        for (name, help, of) in counters {
            output.begin(name, Kind::Counter, help);
            self.of_topics(output, &[], of);
        }
        output.begin("rocketmq_half_messages", Kind::Gauge, "Half messages of all topics");
        self.of_topics(output, &[], |of| of.halves);
        // The name is that of Apache's broker, whose values are seconds as well.
        let name = "rocketmq_finish_message_latency_milliseconds";
        output.begin(name, Kind::Histogram, "Transaction finish latency");
        self.spans_of_topics(output, &[], &DECISION_BOUNDS, |of| of.decided);
    }

    fn timers(&self, output: &mut Exposition) {
        type Of = fn(&TopicTally) -> u64;
        let counters: [(&str, &str, Of); 2] = [
            ("rocketmq_timer_enqueue_total", "Total number of timer enqueue", |of| of.delayed),
            ("rocketmq_timer_dequeue_total", "Total number of timer dequeue", |of| of.released),
        ];
        for (name, help, of) in counters {
            output.begin(name, Kind::Counter, help);
            self.of_topics(output, &STORE, of);
        }
        let name = "rocketmq_delay_message_latency_seconds";
        output.begin(name, Kind::Histogram, "Timer message set latency distribution");
        self.spans_of_topics(output, &STORE, &DELAY_BOUNDS, |of| of.delays);
    }

    /// A sample of each topic of which there is anything to tell.
    fn of_topics(&self, output: &mut Exposition, more: &[Label<'a>], of: impl Fn(&TopicTally) -> u64) {
        for (topic, tally) in self.scrape.topics.iter().filter(|(_, tally)| of(tally) > 0) {
            let mut labels = self.labels(&[("topic", topic.as_str())]);
            labels.extend(more);
            output.sample(&labels, of(tally) as f64);
        }
    }

    fn spans_of_topics(
        &self,
        output: &mut Exposition,
        more: &[Label<'a>],
        bounds: &[u64; SPAN_BOUNDS],
        of: impl Fn(&TopicTally) -> Spans,
    ) {
        for (topic, tally) in &self.scrape.topics {
            let Spans { counts, seconds } = of(tally);
            if counts.iter().any(|count| *count > 0) {
                let mut labels = self.labels(&[("topic", topic.as_str())]);
                labels.extend(more);
                output.histogram(&labels, &reals(bounds), &counts, seconds as f64);
            }
        }
    }

    /// Of the logs of all shards together; they lie on one disk.
    fn store(&self, output: &mut Exposition) {
        let labels = self.labels(&STORE);
        let used = self.readings().map(|reading| reading.disk.used_bytes).max().unwrap_or(0);
        output.begin("rocketmq_storage_size_bytes", Kind::Gauge, "Broker storage size");
        output.sample(&labels, used as f64);
        let unflushed: u64 = self.readings().map(|reading| reading.unflushed_bytes).sum();
        output.begin("rocketmq_storage_flush_behind_bytes", Kind::Gauge, "Broker flush behind bytes");
        output.sample(&labels, unflushed as f64);
        // What is durable is in the index in the same step.
        output.begin("rocketmq_storage_dispatch_behind_bytes", Kind::Gauge, "Broker dispatch behind bytes");
        output.sample(&labels, 0.0);
        let name = "rocketmq_storage_message_reserve_time_milliseconds";
        output.begin(name, Kind::Gauge, "Broker message reserve time");
        if let Some(age) = self.readings().filter_map(|reading| reading.oldest_age).max() {
            output.sample(&labels, in_milliseconds(age));
        }
    }
}

fn sample_with(output: &mut Exposition, common: &[Label<'_>], more: &[Label<'_>], count: u64) {
    let labels: Vec<Label<'_>> = common.iter().chain(more).copied().collect();
    output.sample(&labels, count as f64);
}

fn reals(bounds: &[u64; SPAN_BOUNDS]) -> [f64; SPAN_BOUNDS] {
    bounds.map(|bound| bound as f64)
}

fn in_milliseconds(duration: Duration) -> f64 {
    duration.as_millis() as f64
}

fn truth(is_so: bool) -> &'static str {
    if is_so { "true" } else { "false" }
}

/// As Apache's broker names what a client says of itself (`remoting/.../heartbeat/ConsumeType.java`).
fn consume_mode(of: &ClientTally) -> &'static str {
    match of.kind {
        "CONSUME_PASSIVELY" => "push",
        "CONSUME_POP" => "pop",
        _ => "pull",
    }
}

fn is_system_topic(topic: &str) -> bool {
    SYSTEM_TOPICS.contains(&topic) || SYSTEM_PREFIXES.iter().any(|prefix| begins_with(topic, prefix))
}

fn is_system_group(group: &str) -> bool {
    begins_with(group, SYSTEM_GROUPS)
}

/// Whether a name begins so, in letters of whichever size.
fn begins_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rocketmqs_own_is_known() {
        for topic in ["RMQ_SYS_TRACE_TOPIC", "rmq_sys_wheel_timer", "SCHEDULE_TOPIC_"] {
            assert!(is_system_topic(topic), "{topic}");
        }
        assert!(!is_system_topic("orders") && !is_system_topic("rmq"));
        assert!(is_system_group("CID_RMQ_SYS_TRANS") && !is_system_group("billing"));
    }
}
