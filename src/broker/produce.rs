//! Taking batches of messages.

use std::time::Duration;

use super::shard_broker::Broker;
use crate::api::{Failure, Produced, Status};
use crate::disk::Disk;
use crate::log::{AppendRefusal, LogFailure, Placement};
use crate::types::{Level, LogPosition, QueueKey, QueueOffset, Timestamp};
use crate::wire::batch::{BatchError, CheckedBatch};
use crate::wire::record::RecordError;

/// How often a producer that waits for the index looks whether it has failed.
const RELIEF_CHECK: Duration = Duration::from_millis(100);

/// A batch that is placed in the log and waits for its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingProduce {
    pub base_offset: QueueOffset,
    pub position: LogPosition,
    /// The level is reached when its watermark is here.
    pub end: LogPosition,
    pub store_time: Timestamp,
    pub level: Level,
}

/// Why a batch was not placed.
#[derive(Clone, Debug)]
pub enum ProduceRefusal {
    /// The open group is full: wait for [`Broker::room`], then try again. Nobody needs to be told.
    Wait,
    Failed(Failure),
}

impl<D: Disk> Broker<D> {
    /// Checks a batch as it came from a client.
    pub fn check_batch<'a>(&self, bytes: &'a [u8]) -> Result<CheckedBatch<'a>, Failure> {
        CheckedBatch::check_incoming(bytes).map_err(|error| {
            let status = match error {
                BatchError::RecordsChecksum | BatchError::HeaderChecksum => Status::ChecksumMismatch,
                BatchError::Length(_)
                | BatchError::Record(RecordError::BodyTooLarge(_) | RecordError::FieldTooLarge) => {
                    Status::MessageTooLarge
                }
                BatchError::Truncated
                | BatchError::Magic
                | BatchError::Version(_)
                | BatchError::Kind(_)
                | BatchError::Flags(_)
                | BatchError::RecordCount(_)
                | BatchError::TrailingBytes
                | BatchError::Record(
                    RecordError::Truncated
                    | RecordError::Lengths
                    | RecordError::TagHash
                    | RecordError::Attributes(_)
                    | RecordError::Text(_),
                ) => Status::InvalidArgument,
            };
            Failure::new(status, format!("the batch was not stored: {error}"))
        })
    }

    /// Places a checked batch in a queue of this shard. Nothing waits here; the answer is due when
    /// [`outcome`](Broker::outcome) says so.
    pub fn produce(
        &self,
        key: QueueKey,
        level: Option<Level>,
        batch: &CheckedBatch<'_>,
    ) -> Result<PendingProduce, ProduceRefusal> {
        if self.draining.get() {
            let failure = Failure::new(Status::ShuttingDown, "the broker is shutting down: try again later");
            return Err(ProduceRefusal::Failed(failure));
        }
        let queue = self.queue(key).map_err(ProduceRefusal::Failed)?;
        self.check_index()?;
        let level = level.unwrap_or_else(|| self.level_of(key));
        let base_offset = queue.next_offset.get();
        let placement =
            self.log.append(batch, key, base_offset, level).map_err(|refusal| self.refused(refusal))?;
        queue.next_offset.set(base_offset.advance(u64::from(batch.record_count())));
        self.metrics.batches_produced.add(1);
        self.metrics.messages_produced.add(u64::from(batch.record_count()));
        self.metrics.bytes_produced.add(batch.batch_bytes() as u64);
        Ok(PendingProduce {
            base_offset,
            position: placement.position,
            end: placement.end,
            store_time: placement.store_time,
            level,
        })
    }

    /// Places a checked batch in a queue of this shard and, as one step with it, a change of state: see
    /// [`append_with_state`](crate::log::CommitLog::append_with_state). It is accepted while the broker shuts down, since
    /// it finishes what was taken before.
    pub(super) fn produce_with_state(
        &self,
        key: QueueKey,
        level: Level,
        batch: &CheckedBatch<'_>,
        state_bytes_max: usize,
        state: impl FnOnce(Placement) -> Vec<u8>,
    ) -> Result<PendingProduce, ProduceRefusal> {
        let queue = self.queue(key).map_err(ProduceRefusal::Failed)?;
        if self.index.is_overfull() {
            return Err(ProduceRefusal::Wait);
        }
        let base_offset = queue.next_offset.get();
        let placed = self.log.append_with_state((batch, key, base_offset), level, state_bytes_max, state);
        let (first, second) = placed.map_err(|refusal| self.refused(refusal))?;
        queue.next_offset.set(base_offset.advance(u64::from(batch.record_count())));
        Ok(PendingProduce {
            base_offset,
            position: first.position,
            end: second.end,
            store_time: first.store_time,
            level,
        })
    }

    /// Whether the index keeps up.
    pub(super) fn check_index(&self) -> Result<(), ProduceRefusal> {
        if !self.index.is_overfull() {
            return Ok(());
        }
        Err(match self.index_health.failure() {
            Some(reason) => ProduceRefusal::Failed(Failure::new(
                Status::StorageFailed,
                format!("the consume index cannot be saved, which is tried on: {reason}"),
            )),
            None => ProduceRefusal::Wait,
        })
    }

    /// Waits until a refused batch is worth another try.
    pub async fn room(&self) {
        if self.index.is_overfull() {
            // Nobody is relieved when the index fails meanwhile: the next try says so.
            futures_lite::future::or(self.index.relieved(), self.clock.sleep(RELIEF_CHECK)).await;
        } else {
            self.log.room().changed().await;
        }
    }

    /// What is to be answered for a placed batch; `None` while its level is not reached.
    pub fn outcome(&self, pending: &PendingProduce) -> Option<Result<Produced, Failure>> {
        let watermarks = self.log.watermarks();
        if pending.end <= watermarks.end(pending.level) {
            return Some(Ok(Produced {
                base_offset: pending.base_offset,
                position: pending.position,
                store_time: pending.store_time,
                level: watermarks.level_of(pending.end),
            }));
        }
        watermarks.failure().map(|failure| Err(self.lost(pending.position, &failure)))
    }

    /// Waits for the batch's level.
    pub async fn settled(&self, pending: &PendingProduce) -> Result<Produced, Failure> {
        // A failure is told below, with the batch's own fate.
        let _ = self.log.watermarks().wait(pending.level, pending.end).await;
        self.outcome(pending).expect("whoever waits is released by the mark or by a failure")
    }

    /// The level of a queue's topic, or the node's.
    pub(super) fn level_of(&self, key: QueueKey) -> Level {
        self.tables().topic(key.topic).and_then(|topic| topic.level).unwrap_or(self.options.level)
    }

    pub(super) fn refused(&self, refusal: AppendRefusal) -> ProduceRefusal {
        if matches!(refusal, AppendRefusal::Wait) {
            return ProduceRefusal::Wait;
        }
        self.metrics.produce_refused.add(1);
        ProduceRefusal::Failed(self.append_refused(refusal))
    }

    /// The failure a client sees when the log takes nothing.
    pub(super) fn append_refused(&self, refusal: AppendRefusal) -> Failure {
        match refusal {
            AppendRefusal::Wait => Failure::new(Status::Busy, "the log has no room right now: try again"),
            AppendRefusal::NoSpace => Failure::new(
                Status::NoSpace,
                format!(
                    "the disk of shard {} is full: free space or shorten the retention",
                    self.options.shard
                ),
            ),
            AppendRefusal::NoSegment(error) => self.no_segment(&error),
            AppendRefusal::Failed(failure) => self.storage_failed(&failure),
        }
    }

    /// The answer for a batch that was placed before the log failed.
    pub(super) fn lost(&self, position: LogPosition, failure: &LogFailure) -> Failure {
        if position < failure.unknown_end {
            Failure::new(
                Status::OutcomeUnknown,
                format!(
                    "the disk failed while it had the batch, which may be stored or not: {}",
                    failure.error
                ),
            )
        } else {
            self.storage_failed(failure)
        }
    }
}
