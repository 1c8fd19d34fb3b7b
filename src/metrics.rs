//! What a shard counts: one function or counter per observation, plain integers of one executor, no atomics.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::api::HistogramInfo;

/// The longest latency that is told apart, nanoseconds; longer ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Where a request's time goes, in the order of its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the return of a receive call until all frames in it were taken: waiting for room in a group included.
    Receive,
    /// Decoding, checking and placing one batch.
    Parse,
    /// From the first batch of a group until the commit task takes it.
    WaitForGroup,
    /// Writing one group.
    Write,
    /// Flushing.
    Flush,
    /// From the bytes of a produce request to its answer handed to the kernel.
    Answer,
    /// From the time a delayed message was due until readers saw it.
    Release,
}

impl Stage {
    pub const ALL: [Stage; 7] = [
        Stage::Receive,
        Stage::Parse,
        Stage::WaitForGroup,
        Stage::Write,
        Stage::Flush,
        Stage::Answer,
        Stage::Release,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Stage::Receive => "receive",
            Stage::Parse => "parse",
            Stage::WaitForGroup => "wait_for_group",
            Stage::Write => "write",
            Stage::Flush => "flush",
            Stage::Answer => "answer",
            Stage::Release => "release",
        }
    }
}

/// A number that only grows, or a level that is set.
#[derive(Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.set(self.0.get() + count);
    }

    pub fn subtract(&self, count: u64) {
        self.0.set(self.0.get() - count);
    }

    pub fn set(&self, value: u64) {
        self.0.set(value);
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Declares the counters once, for the struct and for the listing.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// All observations of one shard.
        pub struct ShardMetrics {
            $($(#[$doc])* pub $name: Counter,)*
            stages: RefCell<Vec<Histogram<u64>>>,
        }

        impl ShardMetrics {
            pub fn new() -> Self {
                let histogram = || Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("the bounds are constants");
                Self {
                    $($name: Counter::default(),)*
                    stages: RefCell::new(Stage::ALL.map(|_| histogram()).into()),
                }
            }

            /// Every counter with its name.
            pub fn counters(&self) -> Vec<(String, u64)> {
                vec![$((stringify!($name).to_owned(), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    messages_produced,
    batches_produced,
    bytes_produced,
    produce_refused,
    messages_fetched,
    /// Leased to a receiver, again or for the first time.
    messages_received,
    bytes_received,
    messages_acknowledged,
    /// Receives that got nothing because their group, or all groups together, had as much as they may have.
    receives_refused,
    /// Commits of RocketMQ's clients that were not taken, whether these wait for an answer or not.
    commits_refused,
    /// Queues that they did not get to themselves, for want of room or because others need it.
    queue_locks_refused,
    /// Heartbeats of theirs that were not kept, for want of room or because others need it.
    heartbeats_refused,
    messages_dead_lettered,
    /// Given back by RocketMQ's clients, to be delivered again.
    messages_sent_back,
    /// Delayed ones that their producers have taken back.
    messages_recalled,
    bytes_fetched,
    fetches_waited,
    /// Whoever waits for room in the log or the index now, to place something: a level.
    placements_waiting,
    log_groups,
    log_bytes_written,
    log_flushes,
    /// Stretches in which a group's write or flush kept the log waiting for [`DISK_STALL`](crate::limits::DISK_STALL) or longer.
    disk_stalls,
    /// Time in them.
    disk_stalled_ns,
    segment_failures,
    segments_removed,
    /// Reads of the log, each of one piece.
    disk_reads,
    disk_bytes_read,
    damaged_batches,
    topics_created_by_use,
    messages_held,
    held_released,
    held_dropped,
    held_rolled,
    transactions_committed,
    transactions_rolled_back,
    transactions_checked,
    transactions_given_up,
    snapshots,
    /// Times that the consume index was built anew, by the start or since.
    index_renewals,
    /// Files of snapshots that were written once and were not there at the start.
    snapshots_missing,
    /// Files of the key index that were found damaged, and are made again.
    key_runs_damaged,
    requests,
    requests_forwarded,
    connections,
    connections_accepted,
    connections_dropped,
    /// Of those: there was no room for them, by what there was none of; or nobody speaks here what they do.
    refused_for_number,
    refused_for_descriptors,
    refused_for_memory,
    refused_as_strangers,
    /// They held memory for which others waited.
    ended_for_memory,
    /// The system gave no connection.
    accepts_failed,
    /// Clients that did not prove the access key that they named, with each request over HTTP.
    proofs_failed,
    /// Requests that were refused for want of an access key or of a rule for it.
    requests_denied,
    tls_handshakes,
    tls_handshakes_failed,
    /// There was no memory for them.
    tls_handshakes_refused,
    /// Too many were under way, and a newer one took the place.
    tls_handshakes_given_up,
    answer_bytes_waiting,
    socket_calls,
    wakeups_late,
    /// Times that tasks kept the core, counted in its own time, for [`LONG_TURN`](crate::limits::LONG_TURN) or longer before the
    /// executor looked at its rings: for so long nobody else was served.
    turns_long,
    /// The core's time in them.
    turns_long_ns,
}

impl Default for ShardMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ShardMetrics {
    /// Counts one latency.
    pub fn record(&self, stage: Stage, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX).min(LATENCY_NS_MAX);
        self.stages.borrow_mut()[stage as usize].saturating_record(nanoseconds);
    }

    /// The distribution of every stage.
    pub fn histograms(&self) -> Vec<HistogramInfo> {
        let stages = self.stages.borrow();
        Stage::ALL
            .into_iter()
            .zip(stages.iter())
            .map(|(stage, histogram)| summary(stage.name(), histogram))
            .collect()
    }
}

fn summary(stage: &str, histogram: &Histogram<u64>) -> HistogramInfo {
    let at = |quantile| histogram.value_at_quantile(quantile);
    HistogramInfo {
        stage: stage.to_owned(),
        count: histogram.len(),
        p50_ns: at(0.5),
        p90_ns: at(0.9),
        p99_ns: at(0.99),
        p99_9_ns: at(0.999),
        p99_99_ns: at(0.9999),
        max_ns: histogram.max(),
    }
}
