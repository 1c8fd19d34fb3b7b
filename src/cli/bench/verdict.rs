//! Whether a run is sound: what was lost, seen twice, out of order or damaged, and whether the schedule was kept.

use std::collections::HashMap;
use std::time::Duration;

use crate::api::TopicInfo;
use crate::cli::bench::arguments::Kind;
use crate::cli::bench::consume_lane::ReadRange;
use crate::cli::bench::load::LoadResult;
use crate::cli::bench::message::RunId;
use crate::cli::bench::produce_lane::{ProduceLane, ProduceStream};
use crate::cli::bench::read_lane::ReadLane;
use crate::cli::bench::report::Report;
use crate::cli::bench::tracker::{Faults, Trackers};
use crate::cli::bench::worker::Worker;
use crate::cli::error::CommandError;
use crate::types::{Level, QueueKey, QueueNumber, QueueOffset};

/// A schedule is kept when at most this share of its batches was not even started in time.
const OVERDUE_SHARE_MAX: f64 = 0.01;

/// What is known of a finished run.
pub struct Verdict {
    kind: Kind,
    run: RunId,
    result: LoadResult,
    faults: Faults,
    verified: bool,
    overloaded: bool,
    /// Why the run broke off, or the first refusal.
    trouble: Option<String>,
}

impl Verdict {
    pub fn new(kind: Kind, run: RunId, mut result: LoadResult) -> Self {
        let mut faults = Faults::default();
        let verified = kind != Kind::Produce;
        if kind == Kind::EndToEnd {
            let mut readers = take_consumers(&mut result.workers);
            settle(run, &result.workers, &mut readers);
            readers.iter().for_each(|lane| faults.add(&lane.faults()));
        } else {
            consumers(&result.workers).for_each(|lane| faults.add(&lane.faults()));
        }
        let refusal = producers(&result.workers)
            .find_map(|lane| lane.refusal.clone())
            .or_else(|| consumers(&result.workers).find_map(|lane| lane.refusal().cloned()));
        let broken =
            result.workers.iter().find_map(|worker| worker.failure.as_ref()).map(ToString::to_string);
        Self { kind, run, result, faults, verified, overloaded: false, trouble: broken.or(refusal) }
    }

    pub fn result(&self) -> &LoadResult {
        &self.result
    }

    pub fn faults(&self) -> Faults {
        self.faults
    }

    pub fn verified(&self) -> bool {
        self.verified
    }

    pub fn overloaded(&self) -> bool {
        self.overloaded
    }

    pub fn unanswered(&self) -> u64 {
        self.result.workers.iter().map(|worker| worker.abandoned_batches).sum()
    }

    /// Whole passes over what a consume run reads.
    pub fn passes(&self) -> Option<u64> {
        let passes = consumers(&self.result.workers).map(ReadLane::passes).min();
        passes.filter(|_| self.kind == Kind::Consume)
    }

    /// The lowest level that was reached.
    pub fn level(&self) -> Option<Level> {
        producers(&self.result.workers).filter_map(|lane| lane.level).min()
    }

    /// Checks the offsets of the acknowledgements against each other and against the queues' ends.
    pub fn check_offsets(&mut self, now: &TopicInfo) {
        for queue in &now.queues {
            let Some(ledger) = self.result.ledgers.get(&queue.queue) else { continue };
            let ledger = ledger.lock().expect("no worker panicked");
            self.faults.duplicated += ledger.repeated();
            // With a weaker level an answer may come before the message can be read.
            if self.level() == Some(Level::Durable) {
                self.faults.lost += ledger.beyond(queue.end_offset.0);
            }
        }
        self.faults.disordered += producers(&self.result.workers)
            .flat_map(|lane| &lane.streams)
            .map(|stream| stream.disordered)
            .sum::<u64>();
    }

    /// Where the messages of the run are: from where the queues ended before it to where they end now.
    pub fn written_ranges(&self, before: &TopicInfo, now: &TopicInfo) -> Vec<ReadRange> {
        let ends: HashMap<QueueNumber, QueueOffset> =
            now.queues.iter().map(|queue| (queue.queue, queue.end_offset)).collect();
        let range = |queue: &crate::api::QueueInfo| ReadRange {
            key: QueueKey { topic: before.id, queue: queue.queue },
            first: queue.end_offset,
            end: ends.get(&queue.queue).copied().unwrap_or(queue.end_offset),
        };
        before.queues.iter().map(range).collect()
    }

    /// Judges what was read back after a produce run.
    pub fn check_contents(&mut self, mut readers: Vec<Worker>) {
        let broken = readers.iter().find_map(|worker| worker.failure.as_ref()).map(ToString::to_string);
        let mut lanes = take_consumers(&mut readers);
        let unread: usize = lanes.iter().map(ReadLane::unfinished).sum();
        if broken.is_some() || unread > 0 {
            let reason = broken.unwrap_or_else(|| format!("{unread} queues could not be read to their end"));
            self.trouble = Some(format!("the messages could not be read back: {reason}"));
            return;
        }
        settle(self.run, &self.result.workers, &mut lanes);
        lanes.iter().for_each(|lane| self.faults.add(&lane.faults()));
        self.verified = true;
    }

    /// Finds out whether an open loop kept its schedule.
    pub fn finish(&mut self, rate: Option<u64>, duration: Duration) {
        if rate.is_none() {
            return;
        }
        let elapsed_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (mut started, mut overdue) = (0, 0);
        for lane in producers(&self.result.workers) {
            started += lane.started();
            overdue += lane.overdue(elapsed_ns);
        }
        self.overloaded = overdue as f64 > (started + overdue) as f64 * OVERDUE_SHARE_MAX;
    }

    /// An error when the run is not sound.
    pub fn into_result(self, report: &Report) -> Result<(), CommandError> {
        let unsound = !self.faults.is_clean() || report.errors > 0 || report.unanswered > 0;
        if !unsound && self.trouble.is_none() {
            return Ok(());
        }
        let reason = self.trouble.map_or_else(String::new, |trouble| format!(": {trouble}"));
        Err(CommandError::failed(format!(
            "the {} run is not sound: {} lost, {} duplicated, {} disordered, {} damaged, {} errors, {} batches unanswered{reason}",
            self.kind.name(),
            report.lost,
            report.duplicated,
            report.disordered,
            report.damaged,
            report.errors,
            report.unanswered
        )))
    }
}

fn producers(workers: &[Worker]) -> impl Iterator<Item = &ProduceLane> {
    workers.iter().flat_map(|worker| &worker.producers)
}

fn consumers(workers: &[Worker]) -> impl Iterator<Item = &ReadLane> {
    workers.iter().flat_map(|worker| &worker.consumers)
}

fn take_consumers(workers: &mut [Worker]) -> Vec<ReadLane> {
    workers.iter_mut().flat_map(|worker| std::mem::take(&mut worker.consumers)).collect()
}

/// Tells the readers' trackers what the producers know: where each stream ends, and which of its messages are not
/// stored, or may not be.
fn settle(run: RunId, workers: &[Worker], readers: &mut [ReadLane]) {
    for stream in producers(workers).flat_map(|lane| &lane.streams) {
        if let Some(trackers) = readers.iter_mut().find_map(|lane| lane.trackers(stream.key)) {
            settle_stream(run, stream, trackers);
        }
    }
}

fn settle_stream(run: RunId, stream: &ProduceStream, trackers: &mut Trackers) {
    let tracker = trackers.stream(run, stream.stream, 0);
    tracker.finish(stream.end_sequence());
    for range in stream.refused.iter().chain(&stream.unknown) {
        tracker.excuse(range.start, range.end);
    }
}
