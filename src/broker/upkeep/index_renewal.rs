//! Building the index anew while the shard runs.
//!
//! ```text
//! damage is met -> marked on the disk -> the log is gone over in steps, into a new index -> what is published meanwhile
//! is noted for the last step -> the new one takes the old one's place, in one moment -> the next snapshot has it
//! ```
//!
//! The rules are recovery's, and so is the code (`open::Rebuild`). It is all done by the task that keeps house, which
//! takes no snapshot and trims nothing in between. Retention waits: what it would trim cannot be read.

use std::time::Duration;

use crate::broker::apply::{LogBatch, remove_topic};
use crate::broker::open::Rebuild;
use crate::broker::shard_broker::Broker;
use crate::clock::SharedClock;
use crate::disk::{Disk, DiskError};
use crate::index::{Index, IndexError};
use crate::log::{Lost, OpenError, Replay, SegmentEnds, StartAt};
use crate::types::LogPosition;
use crate::wire::batch::BatchHeader;

/// Log that one step goes over; then housekeeping goes on.
const STEP_BYTES: u64 = 64 * 1024 * 1024;
/// With less than this left the last step begins.
const LAST_STEP_BYTES: u64 = 8 * 1024 * 1024;
/// After about a mebibyte of log, so that neither the core nor the disk is kept from messages.
const PAUSE: Duration = Duration::from_millis(1);
/// Batches that may come during the last step. With more it begins anew: 16 MiB of memory.
pub(in crate::broker) const TAIL_BATCHES_MAX: usize = 65_536;

/// A new index on its way.
pub(in crate::broker) struct Renewal<D: Disk> {
    rebuild: Rebuild<D>,
    next: StartAt,
    /// Where the log had ended before each segment, as far as that was looked up.
    ends: SegmentEnds,
}

/// What a step has led to.
pub(in crate::broker) enum RenewalStep {
    More,
    /// The new index is in its place.
    Done,
    /// It cannot be done while the shard runs: the next start has to do it.
    Impossible(String),
}

/// A replay that lets others run in between.
struct Paced<'a, D: Disk> {
    rebuild: &'a mut Rebuild<D>,
    clock: &'a SharedClock,
}

impl<D: Disk> Replay for Paced<'_, D> {
    fn restart(&mut self) {
        self.rebuild.restart();
    }

    fn whole(&mut self, header: &BatchHeader, bytes: &[u8]) {
        self.rebuild.whole(header, bytes);
    }

    fn harmed(&mut self, header: &BatchHeader) {
        self.rebuild.harmed(header);
    }

    fn lost(&mut self, lost: Lost) {
        self.rebuild.lost(lost);
    }

    async fn settle(&mut self) -> Result<(), DiskError> {
        self.rebuild.settle().await?;
        self.clock.sleep(PAUSE).await;
        Ok(())
    }
}

impl<D: Disk> Renewal<D> {
    pub fn begin(index: &Index<D>, checks_max: u32) -> Option<Self> {
        let rebuild = Rebuild::new(index.begin_renewal()?, checks_max);
        Some(Self { rebuild, next: StartAt::Beginning, ends: SegmentEnds::new() })
    }

    /// Up to where the log was gone over.
    pub fn reached(&self) -> LogPosition {
        match self.next {
            StartAt::Beginning => LogPosition::ZERO,
            StartAt::Position { position, .. } => position,
        }
    }

    pub async fn abandon(self) -> Result<(), IndexError> {
        self.rebuild.index.abandon().await
    }
}

impl<D: Disk> Broker<D> {
    /// Goes over some more of the log. After an error the renewal is of no use any more.
    pub(in crate::broker) async fn renew_step(
        &self,
        renewal: &mut Renewal<D>,
    ) -> Result<RenewalStep, IndexError> {
        let durable_end = self.log.watermarks().durable_end();
        let left = durable_end.0.saturating_sub(renewal.reached().0.max(self.log.first_position().0));
        let is_last = left <= LAST_STEP_BYTES;
        let until = if is_last { durable_end } else { LogPosition(durable_end.0 - left).advance(STEP_BYTES) };
        let until = until.min(durable_end);
        if is_last {
            // From this moment on: what was published before lies below `until`.
            self.index_health.note_tail();
        }
        let mut paced = Paced { rebuild: &mut renewal.rebuild, clock: &self.clock };
        let rescanned = self.log.rescan(&mut renewal.ends, renewal.next, until, &mut paced).await;
        let tail = self.index_health.take_tail();
        renewal.next = match rescanned {
            Ok(next) => next,
            Err(OpenError::Disk(error)) => return Err(error.into()),
            Err(error) => return Ok(RenewalStep::Impossible(error.to_string())),
        };
        if let Some(reason) = renewal.rebuild.objection() {
            return Ok(RenewalStep::Impossible(reason));
        }
        // `None`: more came than is noted.
        let Some(tail) = tail.filter(|_| is_last) else { return Ok(RenewalStep::More) };
        tail.iter().for_each(|placed| renewal.rebuild.replay(LogBatch::of_placed(placed)));
        if let Some(reason) = renewal.rebuild.objection() {
            return Ok(RenewalStep::Impossible(reason));
        }
        self.take_renewed(&renewal.rebuild.index);
        Ok(RenewalStep::Done)
    }

    /// Puts the new index in the old one's place. It holds exactly what is published.
    fn take_renewed(&self, renewed: &Index<D>) {
        // Batches that were on their way when their topic was deleted.
        remove_topic(renewed, |key| self.tables().topic(key.topic).is_none());
        for key in self.index.queues() {
            // What a topic's own retention has moved: its batches are in the log still.
            if let Some((first, _)) = self.index.bounds(key) {
                renewed.advance_first(key, first);
            }
        }
        for queue in self.queues.borrow().values() {
            let (first, _) = self.bounds(queue);
            // All of its batches may be damaged, or the first of them: only retention moves where it begins.
            if renewed.bounds(queue.key).is_none_or(|(first, end)| first == end) {
                renewed.ensure_queue_at(queue.key, first);
            }
            renewed.begin_at(queue.key, first, LogPosition(u64::MAX));
        }
        self.index.renew(renewed);
    }
}
