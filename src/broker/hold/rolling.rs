//! Keeping what is pending while the log loses its oldest segments, and repeating the tables for those that stay.

use super::timers::{STEP_PAUSE, is_bucket, lookup_max};
use crate::api::Failure;
use crate::broker::shard_broker::Broker;
use crate::broker::writer::Destination;
use crate::disk::Disk;
use crate::index::IndexEntry;
use crate::log::Placement;
use crate::state::Change;
use crate::state::HALF_OFFSET;
use crate::state::HeldChange;
use crate::state::{TimerKey, timer_key_of};
use crate::types::{Level, LogPosition, QueueKey, QueueNumber, QueueOffset, TopicId};
use crate::wire::batch::{BatchHeader, Kind, placed_again};

/// Messages placed again in one step.
const STEP_MESSAGES: usize = 64;
/// Buckets looked at between two chances for others to run.
const STEP_BUCKETS: u32 = 64;
/// Halves in one batch of a checkpoint.
const CHECKPOINT_HALVES: usize = 512;

/// A message to be placed again.
struct Copy {
    position: LogPosition,
    batch_bytes: u32,
    /// The due time, or what stands for it.
    base_offset: QueueOffset,
    original: Original,
}

enum Original {
    Delayed {
        bucket: QueueNumber,
        timer: TimerKey,
    },
    /// By the position that names it: where it was stored first.
    Half(LogPosition),
}

impl<D: Disk> Broker<D> {
    /// Places everything that is pending below `end` of the log again at its end; durable on return. False when that has
    /// to wait: at most every second byte of the log is a copy, else a log full of pending messages would be copied
    /// round and round.
    pub(in crate::broker) async fn roll_held(&self, end: LogPosition) -> Result<bool, Failure> {
        let mut rolled = 0;
        let may_roll = self.log.watermarks().appended_end() >= self.held_roll_at.get();
        let mut next = QueueKey { topic: TopicId::DELAYED, queue: QueueNumber(0) };
        let mut looked = 0u32;
        while let Some(bucket) = self.index.next_queue(next).filter(is_bucket) {
            let bytes = self.roll_bucket(bucket, end, may_roll).await?;
            let Some(bytes) = bytes else { return Ok(false) };
            rolled += bytes;
            looked += 1;
            if looked.is_multiple_of(STEP_BUCKETS) {
                self.clock.sleep(STEP_PAUSE).await;
            }
            let Some(after) = bucket.queue.0.checked_add(1) else { break };
            next = QueueKey { queue: QueueNumber(after), ..bucket };
        }
        let Some(bytes) = self.roll_halves(end, may_roll).await? else { return Ok(false) };
        rolled += bytes;
        if rolled > 0 {
            self.held_roll_at.set(self.log.watermarks().appended_end().advance(rolled));
        }
        Ok(true)
    }

    /// One bucket; returns bytes placed, `None` when there is something to be placed and that must wait.
    async fn roll_bucket(
        &self,
        bucket: QueueKey,
        end: LogPosition,
        may_roll: bool,
    ) -> Result<Option<u64>, Failure> {
        let mut offset = QueueOffset::ZERO;
        let mut rolled = 0;
        loop {
            let _guard = self.held_lock.lock().await;
            let entries = self.entries(bucket, offset, lookup_max(STEP_MESSAGES)).await?;
            let below: Vec<_> = entries.iter().filter(|entry| entry.position < end).collect();
            let Some(last) = below.last() else { return Ok(Some(rolled)) };
            offset = last.end_offset();
            let timer = |entry: &IndexEntry| timer_key_of(bucket, entry.position, entry.tag_summary);
            let pending = below.iter().filter(|entry| self.held().delays.is_pending(timer(entry)));
            let copies: Vec<_> = pending
                .map(|entry| Copy {
                    position: entry.position,
                    batch_bytes: entry.batch_bytes,
                    base_offset: QueueOffset(timer(entry).due.0),
                    original: Original::Delayed { bucket: bucket.queue, timer: timer(entry) },
                })
                .collect();
            if !copies.is_empty() && !may_roll {
                return Ok(None);
            }
            rolled += self.place_copies(copies).await?;
        }
    }

    /// The halves; returns as [`roll_bucket`](Broker::roll_bucket) does.
    async fn roll_halves(&self, end: LogPosition, may_roll: bool) -> Result<Option<u64>, Failure> {
        let mut last = None;
        let mut rolled = 0;
        loop {
            let _guard = self.held_lock.lock().await;
            let halves = self.held().halves.below(last, end, STEP_MESSAGES);
            let Some(after) = halves.last() else { return Ok(Some(rolled)) };
            if !may_roll {
                return Ok(None);
            }
            last = Some(after.position);
            let copy = |half: &crate::state::Half| Copy {
                position: half.current,
                batch_bytes: half.batch_bytes,
                base_offset: HALF_OFFSET,
                original: Original::Half(half.position),
            };
            rolled += self.place_copies(halves.iter().map(copy).collect()).await?;
        }
    }

    /// Places messages again, each in one step with the change that says so, and waits until all of it is durable.
    async fn place_copies(&self, copies: Vec<Copy>) -> Result<u64, Failure> {
        let wanted: Vec<_> = copies.iter().map(|copy| (copy.position, copy.batch_bytes)).collect();
        let found = self.batches_at(&wanted).await?;
        let mut rolled = 0;
        let mut last: Option<Placement> = None;
        for (copy, bytes) in copies.iter().zip(found) {
            // Damaged: when its time comes it is counted as dropped, as it would be here.
            let Some(bytes) = bytes else { continue };
            if let Some(placement) = self.place_copy(copy, &bytes).await? {
                rolled += u64::from(copy.batch_bytes);
                self.metrics.held_rolled.add(1);
                last = Some(placement);
            }
        }
        if let Some(last) = last {
            self.writer.settled(Level::Durable, last).await?;
        }
        Ok(rolled)
    }

    async fn place_copy(&self, copy: &Copy, bytes: &[u8]) -> Result<Option<Placement>, Failure> {
        let (Ok(header), Ok(batch)) = (BatchHeader::decode(bytes), placed_again(bytes, Kind::Held)) else {
            return Ok(None);
        };
        let to = Destination::Held { key: header.key, offset: copy.base_offset };
        let attempt = || {
            if let Original::Delayed { bucket, timer } = copy.original
                && self.held().delays.is_recalled(timer)
            {
                let placed = self.try_change_held(HeldChange::Moved { bucket, position: timer.position })?;
                self.state.borrow_mut().held_copied(timer);
                return Ok(Some(placed));
            }
            if let Original::Half(half) = copy.original
                && self.held().halves.open(half).is_none()
            {
                return Ok(None);
            }
            let change = |placement: Placement| {
                Change::Held(match copy.original {
                    Original::Half(half) => HeldChange::HalfMoved { half, current: placement.position },
                    Original::Delayed { bucket, timer } => {
                        HeldChange::Moved { bucket, position: timer.position }
                    }
                })
            };
            let step = self.writer.try_step(to, &batch, Level::Durable, change)?;
            if let Original::Delayed { timer, .. } = copy.original {
                self.state.borrow_mut().held_copied(timer);
            }
            Ok(Some(step.change))
        };
        self.writer.place(attempt).await
    }

    /// Repeats the held messages' table in the log. Each batch is made and placed in one moment, so that no end that is
    /// placed before it is taken back by it. Returns the end of the last.
    pub(in crate::broker) async fn checkpoint_held(&self) -> Result<Option<LogPosition>, Failure> {
        let mut last = None;
        let mut end = None;
        let mut is_first = true;
        loop {
            let repeating = self.writer.place(|| {
                let halves = self.held().halves.for_checkpoint(last, CHECKPOINT_HALVES);
                let mut payload = Vec::new();
                if is_first {
                    let held = self.held();
                    let of_delays = held.cursor().into_iter().chain(held.recalled());
                    of_delays.for_each(|change| change.encode(&mut payload));
                }
                for half in &halves {
                    Change::Held(HeldChange::HalfStored(half.clone())).encode(&mut payload);
                }
                if payload.is_empty() {
                    return Ok(None);
                }
                let placement = self.writer.try_repeated(&payload, Level::Written)?;
                Ok(Some((placement, halves)))
            });
            let Some((placement, halves)) = repeating.await? else { return Ok(end) };
            end = Some(placement.end);
            if halves.len() < CHECKPOINT_HALVES {
                return Ok(end);
            }
            is_first = false;
            last = halves.last().map(|half| half.position);
        }
    }
}
