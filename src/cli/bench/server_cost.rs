//! What the broker spent on a run: the difference of its counters before and after.

use serde::Serialize;

use crate::api::NodeInfo;
use crate::client::{Client, ClientError};

/// The counters of all shards, summed up, at one moment. `None`: the broker does not count that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerSample {
    cpu_ns: Option<u64>,
    allocations: Option<u64>,
    syscalls: Option<u64>,
    log_bytes_written: Option<u64>,
    log_flushes: Option<u64>,
    disk_stalls: Option<u64>,
    disk_stalled_ns: Option<u64>,
    resident_bytes: u64,
    /// Where the shards run.
    pub cores: Vec<usize>,
}

/// What a message cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ServerCost {
    /// Processor time of the whole broker, the kernel's workers for its rings included.
    pub core_ns_per_message: Option<f64>,
    /// At the end of the run.
    pub resident_bytes: u64,
    pub allocations_per_1000: Option<f64>,
    /// Counted with `--count-syscalls` only.
    pub syscalls_per_1000: Option<f64>,
    /// Stretches in which a write or flush of a log took 50 ms or longer. `None`: an older broker does not say.
    pub disk_stalls: Option<u64>,
    /// How long these were together; of several shards, the sum.
    pub disk_stalled_ms: Option<f64>,
}

impl ServerSample {
    pub fn take(client: &mut Client, count_syscalls: bool) -> Result<Self, ClientError> {
        client.describe_node(count_syscalls).map(|node| Self::new(&node))
    }

    fn new(node: &NodeInfo) -> Self {
        let sum = |name: &str| {
            let values = node.shards.iter().flat_map(|shard| &shard.counters);
            values
                .filter(|(counter, _)| counter == name)
                .map(|(_, value)| *value)
                .reduce(|sum, value| sum + value)
        };
        // The process's time has that of the kernel's workers in it; every core tells it anew, so the highest counts.
        let counters = node.shards.iter().flat_map(|shard| &shard.counters);
        let of_process = counters.filter(|(name, _)| name == "process_cpu_ns").map(|(_, value)| *value).max();
        Self {
            cpu_ns: of_process.or_else(|| sum("cpu_ns")),
            allocations: sum("allocations"),
            syscalls: sum("syscalls"),
            log_bytes_written: sum("log_bytes_written"),
            log_flushes: sum("log_flushes"),
            disk_stalls: sum("disk_stalls"),
            disk_stalled_ns: sum("disk_stalled_ns"),
            resident_bytes: node.resident_bytes,
            cores: node.shards.iter().filter_map(|shard| shard.core).map(|core| core as usize).collect(),
        }
    }

    /// The cost of `messages` since `earlier`.
    pub fn cost_since(&self, earlier: &ServerSample, messages: u64) -> ServerCost {
        let per = |now: Option<u64>, before: Option<u64>, unit: f64| {
            let difference = now?.checked_sub(before?)?;
            (messages > 0).then(|| two_digits(difference as f64 * unit / messages as f64))
        };
        let since = |now: Option<u64>, before: Option<u64>| now?.checked_sub(before?);
        let stalled_ns = since(self.disk_stalled_ns, earlier.disk_stalled_ns);
        ServerCost {
            core_ns_per_message: per(self.cpu_ns, earlier.cpu_ns, 1.0),
            resident_bytes: self.resident_bytes,
            allocations_per_1000: per(self.allocations, earlier.allocations, 1000.0),
            syscalls_per_1000: per(self.syscalls, earlier.syscalls, 1000.0),
            disk_stalls: since(self.disk_stalls, earlier.disk_stalls),
            disk_stalled_ms: stalled_ns.map(|nanoseconds| two_digits(nanoseconds as f64 / 1e6)),
        }
    }

    /// Bytes per flush since `earlier`, if there was any.
    pub fn group_bytes_since(&self, earlier: &ServerSample) -> Option<u64> {
        let bytes = self.log_bytes_written?.checked_sub(earlier.log_bytes_written?)?;
        let flushes = self.log_flushes?.checked_sub(earlier.log_flushes?)?;
        (flushes > 0 && bytes > 0).then(|| bytes / flushes)
    }
}

fn two_digits(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ShardInfo;
    use crate::types::{Level, ShardId};

    fn sample(cpu_ns: u64, flushes: u64, syscalls: Option<u64>) -> ServerSample {
        let shard = |shard, share: u64| {
            let mut counters = vec![
                ("cpu_ns".to_owned(), cpu_ns * share / 4),
                ("allocations".to_owned(), 0),
                ("log_bytes_written".to_owned(), flushes * share * 1000),
                ("log_flushes".to_owned(), flushes * share),
                ("disk_stalls".to_owned(), flushes),
                ("disk_stalled_ns".to_owned(), flushes * share * 60_000_000),
            ];
            counters.extend(syscalls.map(|count| ("syscalls".to_owned(), count)));
            ShardInfo {
                shard: ShardId(shard),
                core: Some(0),
                state: String::new(),
                counters,
                histograms: Vec::new(),
                rates: Vec::new(),
            }
        };
        let shards = vec![shard(0, 1), shard(1, 3)];
        ServerSample::new(&NodeInfo {
            version: String::new(),
            node: None,
            level: Level::Durable,
            resident_bytes: 7,
            shards,
        })
    }

    #[test]
    fn costs_are_per_message_over_all_shards() {
        let (before, after) = (sample(1_000_000, 5, Some(10)), sample(3_000_000, 9, Some(510)));
        let cost = after.cost_since(&before, 20_000);
        assert_eq!(cost.core_ns_per_message, Some(100.0));
        assert_eq!(cost.allocations_per_1000, Some(0.0));
        assert_eq!(cost.syscalls_per_1000, Some(50.0));
        assert_eq!(cost.resident_bytes, 7);
        assert_eq!(after.group_bytes_since(&before), Some(1000));
        assert_eq!((cost.disk_stalls, cost.disk_stalled_ms), (Some(8), Some(960.0)), "of both shards");
    }

    #[test]
    fn what_is_not_counted_is_not_zero() {
        let (before, after) = (sample(1, 5, None), sample(2, 5, None));
        assert_eq!(after.cost_since(&before, 10).syscalls_per_1000, None);
        assert_eq!(
            after.cost_since(&before, 0).core_ns_per_message,
            None,
            "no messages, no cost per message"
        );
        assert_eq!(after.group_bytes_since(&before), None, "nothing was flushed");
        let older = ServerSample { disk_stalls: None, disk_stalled_ns: None, ..before };
        let cost = after.cost_since(&older, 10);
        assert_eq!((cost.disk_stalls, cost.disk_stalled_ms), (None, None), "the broker was another one");
    }
}
