//! What a shard counts: one function or counter per observation, plain integers of one executor, no atomics.

mod flight_recorder;
mod measurement;
mod tally;
mod timeline;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use hdrhistogram::{Counter as HistogramCounter, Histogram};

pub use self::flight_recorder::{Answered, FlightRecorder, Measuring, Recorded, Underway};
pub use self::measurement::{Measured, Measurement};
pub use self::tally::{Given, HeldTally, Intake, Tallies, note_span};
pub use self::timeline::{LogMark, Timeline};
use crate::api::{HistogramInfo, STAGE_BOUNDS, StageReading};

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

/// The latencies of one stage: fine, to be asked for any percentile, and coarse, for who asks every few seconds.
struct Latencies {
    histogram: Histogram<u64>,
    counts: [u64; STAGE_BOUNDS + 1],
    sum_ns: u64,
}

impl Latencies {
    fn new() -> Self {
        let histogram = Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("the bounds are constants");
        Self { histogram, counts: [0; STAGE_BOUNDS + 1], sum_ns: 0 }
    }

    fn record(&mut self, nanoseconds: u64) {
        self.histogram.saturating_record(nanoseconds);
        self.counts[bucket_of(nanoseconds)] += 1;
        self.sum_ns += nanoseconds;
    }
}

/// The bucket whose bound is the first that is not below: see [`stage_bound_ns`](crate::api::stage_bound_ns).
fn bucket_of(nanoseconds: u64) -> usize {
    let microseconds_below = nanoseconds.saturating_sub(1) / 1_000;
    ((u64::BITS - microseconds_below.leading_zeros()) as usize).min(STAGE_BOUNDS)
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
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What is said above of each counter, line by line.
        pub const DESCRIPTIONS: &[(&str, &[&str])] = &[$((stringify!($name), &[$($doc),*]),)*];

        /// All observations of one shard.
        pub struct ShardMetrics {
            $($(#[doc = $doc])* pub $name: Counter,)*
            stages: RefCell<Vec<Latencies>>,
            /// By topic and by group.
            pub tallies: RefCell<Tallies>,
            /// The slowest requests.
            pub flight: FlightRecorder,
        }

        impl ShardMetrics {
            pub fn new() -> Self {
                Self {
                    $($name: Counter::default(),)*
                    stages: RefCell::new(Stage::ALL.map(|_| Latencies::new()).into()),
                    tallies: RefCell::default(),
                    flight: FlightRecorder::default(),
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
    /// Messages leased to a receiver, again or for the first time.
    messages_received,
    /// Bytes of the messages leased to receivers.
    bytes_received,
    messages_acknowledged,
    /// Receives that got nothing because their group, or all groups together, had as much as they may have.
    receives_refused,
    /// Commits of RocketMQ's clients that were not taken, whether these wait for an answer or not.
    commits_refused,
    /// Queues that RocketMQ's clients did not get to themselves, for want of room or because others need it.
    queue_locks_refused,
    /// Heartbeats of RocketMQ's clients that were not kept, for want of room or because others need it.
    heartbeats_refused,
    messages_dead_lettered,
    /// Dead letters that were sent once more.
    messages_redriven,
    /// Messages given back by RocketMQ's clients, to be delivered again.
    messages_sent_back,
    /// Delayed messages that their producers have taken back.
    messages_recalled,
    bytes_fetched,
    fetches_waited,
    /// Those who wait for room in the log or the index now, to place something.
    placements_waiting,
    log_groups,
    log_bytes_written,
    log_flushes,
    /// Stretches in which a group's write or flush kept the log waiting for [`DISK_STALL`](crate::limits::DISK_STALL) or longer.
    disk_stalls,
    /// Time in such stretches.
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
    /// Dropped connections beyond the number that there may be.
    refused_for_number,
    /// Dropped connections for which there were no descriptors.
    refused_for_descriptors,
    /// Dropped connections for which there was no memory.
    refused_for_memory,
    /// Dropped connections that began with what nobody speaks here.
    refused_as_strangers,
    /// Connections that held memory for which others waited.
    ended_for_memory,
    /// Accepts for which the system gave no connection.
    accepts_failed,
    /// Clients that did not prove the access key that they named, with each request over HTTP.
    proofs_failed,
    /// Requests that were refused for want of an access key or of a rule for it.
    requests_denied,
    tls_handshakes,
    tls_handshakes_failed,
    /// Handshakes for which there was no memory.
    tls_handshakes_refused,
    /// Handshakes that were given up for newer ones, since too many were under way.
    tls_handshakes_given_up,
    answer_bytes_waiting,
    socket_calls,
    wakeups_late,
    /// Times that tasks kept the core, counted in its own time, for [`LONG_TURN`](crate::limits::LONG_TURN) or longer before the
    /// executor looked at its rings: for so long nobody else was served.
    turns_long,
    /// The core's time in such turns.
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
        self.stages.borrow_mut()[stage as usize].record(nanoseconds);
    }

    /// The distribution of every stage.
    pub fn histograms(&self) -> Vec<HistogramInfo> {
        let stages = self.stages.borrow();
        Stage::ALL
            .into_iter()
            .zip(stages.iter())
            .map(|(stage, latencies)| summary(stage.name(), &latencies.histogram))
            .collect()
    }

    /// The same in a few buckets, which are there to be read often.
    pub fn stages(&self) -> Vec<StageReading> {
        let stages = self.stages.borrow();
        let read = |(stage, latencies): (Stage, &Latencies)| StageReading {
            stage: stage.name(),
            counts: latencies.counts,
            sum_ns: latencies.sum_ns,
        };
        Stage::ALL.into_iter().zip(stages.iter()).map(read).collect()
    }
}

fn summary<C: HistogramCounter>(stage: &str, histogram: &Histogram<C>) -> HistogramInfo {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::stage_bound_ns;

    #[test]
    fn a_latency_is_in_the_bucket_of_the_first_bound_that_is_not_below_it() {
        assert_eq!(bucket_of(0), 0);
        for bucket in 0..STAGE_BOUNDS {
            let bound = stage_bound_ns(bucket);
            assert_eq!((bucket_of(bound), bucket_of(bound + 1)), (bucket, bucket + 1));
        }
        assert_eq!(bucket_of(u64::MAX), STAGE_BOUNDS);
        let metrics = ShardMetrics::new();
        for microseconds in [1, 3, 4, 20_000_000] {
            metrics.record(Stage::Flush, Duration::from_micros(microseconds));
        }
        let flush = &metrics.stages()[Stage::Flush as usize];
        assert_eq!((flush.stage, flush.sum_ns), ("flush", 20_000_008_000));
        assert_eq!((flush.counts[0], flush.counts[2], flush.counts[STAGE_BOUNDS]), (1, 2, 1));
    }
}
