//! What a run prints.

use serde::Serialize;

use crate::cli::bench::baseline::BaselineReport;
use crate::cli::bench::evenness::Evenness;
use crate::cli::bench::histogram::LatencySummary;
use crate::cli::bench::server_cost::ServerCost;
use crate::cli::output::{bytes_for_people, grouped, nanoseconds_for_people};

/// One run: the figures first, then what they were measured with.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub messages_per_second: f64,
    /// Of bodies.
    pub bytes_per_second: f64,
    pub latency_us: LatencySummary,
    pub lost: u64,
    pub duplicated: u64,
    pub disordered: u64,
    pub damaged: u64,
    /// `null` for a run without a whole second.
    pub seconds: Option<Evenness>,
    /// The lowest level that the broker reached; `null` where nothing was produced.
    pub level: Option<&'static str>,
    pub server: ServerCost,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineReport>,
    pub bench: &'static str,
    pub topic: String,
    /// Bytes of a message's body; of what was read: the mean.
    pub body: u64,
    /// Messages in each batch that was sent.
    pub batch: Option<u32>,
    pub queues: u32,
    pub connections: usize,
    /// Batches on the way per connection; a consume run has one fetch per queue on the way.
    pub in_flight: Option<usize>,
    /// `null` for a closed loop.
    pub rate: Option<u64>,
    /// An open loop that did not keep up with its schedule.
    pub overloaded: bool,
    pub duration_seconds: f64,
    pub messages: u64,
    /// Requests that the broker refused.
    pub errors: u64,
    /// Batches that got no answer.
    pub unanswered: u64,
    /// Of batches as they are stored and sent, headers included.
    pub stored_bytes_per_second: f64,
    /// What a latency is: `acknowledgement`, `fetch` or `delivery`.
    pub latency_of: &'static str,
    /// In an end-to-end run: from when a batch was due to its acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledgement_us: Option<LatencySummary>,
    /// Whether everything was read back and checked.
    pub verified: bool,
    /// How often everything was read, in a consume run: whole passes over the slowest connection's queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passes: Option<u64>,
    pub threads: usize,
    pub pin: Option<Vec<usize>>,
    pub seed: u64,
    pub server_address: String,
    pub version: &'static str,
}

impl Report {
    /// What was measured, and what came out: the title of a plot.
    pub fn headlines(&self) -> [String; 2] {
        let result = format!(
            "{}; {} msg/s, {}/s stored; p50 {}, p99 {}{}",
            self.setting(),
            grouped(self.messages_per_second as u64),
            bytes_for_people(self.stored_bytes_per_second),
            nanoseconds_for_people(self.latency_us.p50 * 1000.0),
            nanoseconds_for_people(self.latency_us.p99 * 1000.0),
            if self.overloaded { "; OVERLOADED" } else { "" }
        );
        [self.subject(), result]
    }

    fn subject(&self) -> String {
        let batch = self.batch.map_or_else(String::new, |batch| format!(" x {batch} per batch"));
        let level = self.level.map_or_else(String::new, |level| format!(", {level}"));
        let load = match (self.batch, self.rate) {
            (None, _) => String::new(),
            (Some(_), None) => ", closed loop".to_owned(),
            (Some(_), Some(rate)) => format!(", {} msg/s", grouped(rate)),
        };
        format!("{} {}: {} B{batch}{load}{level}", self.bench, self.topic, self.body)
    }

    fn setting(&self) -> String {
        let in_flight =
            self.in_flight.map_or_else(String::new, |count| format!(", {count} batches in flight each"));
        format!("{} queues, {} connections{in_flight}", self.queues, self.connections)
    }

    pub fn render(&self) -> String {
        let mut text = format!("{}; {}\n", self.subject(), self.setting());
        text.push_str(&format!(
            "throughput   {} msg/s, {}/s bodies, {}/s stored; {} messages in {:.2} s{}\n",
            grouped(self.messages_per_second as u64),
            bytes_for_people(self.bytes_per_second),
            bytes_for_people(self.stored_bytes_per_second),
            grouped(self.messages),
            self.duration_seconds,
            if self.overloaded { "  OVERLOADED: the schedule was not kept" } else { "" }
        ));
        text.push_str(&format!("latency      {} ({})\n", render_latency(&self.latency_us), self.latency_of));
        if let Some(latency) = &self.acknowledgement_us {
            text.push_str(&format!("             {} (acknowledgement)\n", render_latency(latency)));
        }
        if let Some(evenness) = &self.seconds {
            text.push_str(&evenness.render());
        }
        text.push_str(&format!(
            "checks       {} lost, {} duplicated, {} disordered, {} damaged, {} errors, {} unanswered{}\n",
            self.lost,
            self.duplicated,
            self.disordered,
            self.damaged,
            self.errors,
            self.unanswered,
            if self.verified { "; every message was read back" } else { "" }
        ));
        let number = |value: Option<f64>| {
            value.map_or_else(|| "not counted".to_owned(), |value| format!("{value:.1}"))
        };
        text.push_str(&format!(
            "server       {} ns core time per message, {} resident, per 1,000 messages: {} allocations, {} system calls\n",
            number(self.server.core_ns_per_message),
            bytes_for_people(self.server.resident_bytes as f64),
            number(self.server.allocations_per_1000),
            number(self.server.syscalls_per_1000)
        ));
        if let Some((stalls, milliseconds)) = self.server.disk_stalls.zip(self.server.disk_stalled_ms) {
            let time = nanoseconds_for_people(milliseconds * 1e6);
            text.push_str(&format!(
                "disk         {} of 50 ms or longer for a write or a flush, {time} in all\n",
                waits(stalls)
            ));
        }
        if let Some(baseline) = &self.baseline {
            text.push_str(&render_baseline(baseline));
        }
        text
    }
}

fn waits(count: u64) -> String {
    if count == 1 { "1 wait".to_owned() } else { format!("{count} waits") }
}

fn render_latency(latency: &LatencySummary) -> String {
    let time = |microseconds: f64| nanoseconds_for_people(microseconds * 1000.0);
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  p99.99 {}  max {}",
        time(latency.p50),
        time(latency.p90),
        time(latency.p99),
        time(latency.p99_9),
        time(latency.p99_99),
        time(latency.max)
    )
}

fn render_baseline(baseline: &BaselineReport) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let groups = match baseline.device_operation {
        "read" => String::new(),
        _ => format!(" in groups of {}", bytes_for_people(baseline.group_bytes as f64)),
    };
    format!(
        "baseline     raw {}{} in {} {}/s: share {}; raw loopback {}/s: share {}; raw 4 KiB write + flush p50 {}; \
         {} of 50 ms or longer, the longest {}\n",
        baseline.device_operation,
        groups,
        baseline.directory,
        bytes_for_people(baseline.device_bytes_per_second),
        percent(baseline.device_share),
        bytes_for_people(baseline.loopback_bytes_per_second),
        percent(baseline.loopback_share),
        nanoseconds_for_people(baseline.flush_p50_us * 1000.0),
        waits(baseline.device_stalls_before_after.iter().sum()),
        nanoseconds_for_people(baseline.device_longest_ms_before_after.into_iter().fold(0.0, f64::max) * 1e6)
    )
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    /// A report with every part.
    fn report() -> Report {
        Report {
            messages_per_second: 8_600_000.0,
            bytes_per_second: 860_000_000.0,
            latency_us: LatencySummary { p50: 1800.0, p99: 3000.0, max: 9000.0, ..LatencySummary::default() },
            lost: 0,
            duplicated: 0,
            disordered: 0,
            damaged: 0,
            seconds: Some(Evenness {
                each_second: vec![8.6e6, 8.0e6],
                first_median: 8.3e6,
                lowest: 8.0e6,
                lowest_second: 2,
                lowest_share: 0.964,
            }),
            level: Some("durable"),
            server: ServerCost {
                core_ns_per_message: Some(90.0),
                resident_bytes: 1,
                disk_stalls: Some(1),
                disk_stalled_ms: Some(216.0),
                ..ServerCost::default()
            },
            baseline: Some(BaselineReport {
                device_bytes_per_second: 2e9,
                loopback_bytes_per_second: 3e9,
                device_share: 0.53,
                loopback_share: 0.35,
                flush_p50_us: 150.0,
                device_operation: "write+flush",
                group_bytes: 1_000_000,
                directory: ".".into(),
                device_before_after: [2e9, 2e9],
                device_stalls_before_after: [2, 1],
                device_longest_ms_before_after: [159.0, 60.0],
                loopback_before_after: [3e9, 3e9],
            }),
            bench: "produce",
            topic: "bench".into(),
            body: 100,
            batch: Some(500),
            queues: 4,
            connections: 4,
            in_flight: Some(8),
            rate: None,
            overloaded: false,
            duration_seconds: 10.0,
            messages: 86_000_000,
            errors: 0,
            unanswered: 0,
            stored_bytes_per_second: 1_066_400_000.0,
            latency_of: "acknowledgement",
            acknowledgement_us: None,
            verified: false,
            passes: None,
            threads: 1,
            pin: Some(vec![1]),
            seed: 7,
            server_address: "127.0.0.1:10911".into(),
            version: "0.1.0",
        }
    }

    #[test]
    fn programs_find_the_promised_members() {
        let value = serde_json::to_value(report()).expect("plain data");
        for pointer in [
            "/messages_per_second",
            "/bytes_per_second",
            "/latency_us/p50",
            "/latency_us/p90",
            "/latency_us/p99",
            "/latency_us/p99_9",
            "/latency_us/p99_99",
            "/latency_us/max",
            "/lost",
            "/duplicated",
            "/disordered",
            "/seconds/each_second/1",
            "/seconds/lowest_share",
            "/level",
            "/server/core_ns_per_message",
            "/server/resident_bytes",
            "/server/allocations_per_1000",
            "/server/syscalls_per_1000",
            "/server/disk_stalls",
            "/server/disk_stalled_ms",
            "/baseline/device_bytes_per_second",
            "/baseline/device_stalls_before_after/1",
            "/baseline/device_longest_ms_before_after/1",
            "/baseline/loopback_bytes_per_second",
            "/baseline/device_share",
            "/baseline/loopback_share",
            "/baseline/flush_p50_us",
        ] {
            assert!(value.pointer(pointer).is_some(), "{pointer}");
        }
        assert_eq!(value["server"]["syscalls_per_1000"], json!(null), "not counted is not zero");
        let plain = Report { baseline: None, ..report() };
        assert!(serde_json::to_value(plain).expect("plain data").get("baseline").is_none());
    }

    #[test]
    fn people_see_shares_and_units() {
        let text = report().render();
        for part in [
            "8,600,000 msg/s",
            "p50 1.80 ms",
            "share 53.0 %",
            "closed loop",
            "90.0 ns",
            "p50 150 us",
            "0.96 of it",
            "1 wait of 50 ms or longer for a write or a flush, 216 ms in all",
            "3 waits of 50 ms or longer, the longest 159 ms",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
