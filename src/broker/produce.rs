//! Taking batches of messages.

use super::gathering::{PlacedMessage, Single, Ticket};
use super::peers::PeerReply;
use super::shard_broker::Broker;
use super::writer::{Backpressure, Destination, PlaceRefusal, PlacedBatch};
use crate::api::{Failure, Hold, Produce, Produced, Reply, Status, Stored};
use crate::disk::Disk;
use crate::log::Placement;
use crate::metrics::LogMark;
use crate::types::{Level, QueueKey, QueueOffset};
use crate::wire::batch::{BatchError, CheckedBatch, OwnedBatch};
use crate::wire::record::RecordError;

/// A batch that is placed in the log and waits for its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingProduce {
    pub base_offset: QueueOffset,
    pub placement: Placement,
    pub level: Level,
}

/// A single message that is placed in the log with others, or about to be, and waits for its level.
#[must_use]
pub struct PendingSingle(Ticket);

impl PendingProduce {
    /// What it waits for in the log.
    pub fn mark(&self) -> LogMark {
        LogMark { end: self.placement.end, level: self.level }
    }

    /// The answer when `level` was reached.
    fn produced(&self, level: Level) -> Produced {
        let Placement { position, store_time, .. } = self.placement;
        Produced { base_offset: self.base_offset, position, store_time, level }
    }
}

impl<D: Disk> Broker<D> {
    /// Checks a batch as it came from a client.
    pub fn check_batch<'a>(&self, bytes: &'a [u8]) -> Result<CheckedBatch<'a>, Failure> {
        CheckedBatch::check_incoming(bytes).map_err(batch_refused)
    }

    /// Checks the batch that a request carries.
    pub(super) fn check_produce(&self, produce: Produce) -> Result<Produce<OwnedBatch>, Failure> {
        let Produce { key, level, batch } = produce;
        let batch = OwnedBatch::check_incoming(batch).map_err(batch_refused)?;
        Ok(Produce { key, level, batch })
    }

    /// Checks the message that a request carries, to be held.
    pub(super) fn check_hold(&self, hold: Hold) -> Result<Hold<OwnedBatch>, Failure> {
        let Hold { key, level, batch, release } = hold;
        let batch = OwnedBatch::check_incoming(batch).map_err(batch_refused)?;
        Ok(Hold { key, level, batch, release })
    }

    /// Stores a checked batch in a queue of this shard, `at` an offset if one is named.
    pub(super) async fn produce_here(
        &self,
        produce: &Produce<OwnedBatch>,
        at: Option<QueueOffset>,
    ) -> Result<Produced, Failure> {
        let Produce { key, level, batch } = produce;
        let batch = batch.view();
        let pending = self.writer.place(|| self.produce_at(*key, *level, at, &batch)).await?;
        self.settled(&pending).await
    }

    /// Stores a batch that another shard was given.
    pub(super) async fn produce_for_peer(
        &self,
        produce: &Produce<OwnedBatch>,
        at: Option<QueueOffset>,
    ) -> Result<PeerReply, Failure> {
        self.produce_here(produce, at).await.map(Reply::Produced).map(PeerReply::Client)
    }

    /// Places a checked batch in a queue of this shard. Nothing waits here; the answer is due when
    /// [`outcome`](Broker::outcome) says so.
    pub fn produce(
        &self,
        key: QueueKey,
        level: Option<Level>,
        batch: &CheckedBatch<'_>,
    ) -> Result<PendingProduce, PlaceRefusal> {
        self.produce_at(key, level, None, batch)
    }

    /// The same; with an offset, only if that is what the first message gets.
    pub fn produce_at(
        &self,
        key: QueueKey,
        level: Option<Level>,
        at: Option<QueueOffset>,
        batch: &CheckedBatch<'_>,
    ) -> Result<PendingProduce, PlaceRefusal> {
        self.check_not_shutting_down()?;
        let queue = self.queue(key)?;
        let level = level.unwrap_or_else(|| self.level_of(key));
        let PlacedBatch { base_offset, placement } = match at {
            None => self.writer.try_batch(Destination::Queue(&queue), batch, level)?,
            Some(offset) => self.writer.try_batch_at(&queue, offset, batch, level)?,
        };
        self.writer.note_produced(batch);
        Ok(PendingProduce { base_offset, placement, level })
    }

    /// Takes a single message for a queue of this shard, which is placed with others that come meanwhile. Nothing waits here;
    /// the answer is due when [`single_outcome`](Broker::single_outcome) says so, which is worth asking whenever a mark of
    /// the log has moved ([`Watermarks::changes`](crate::log::Watermarks::changes)).
    pub fn gather(
        &self,
        key: QueueKey,
        level: Option<Level>,
        message: &Single<'_>,
    ) -> Result<PendingSingle, PlaceRefusal> {
        self.check_not_shutting_down()?;
        let queue = self.queue(key)?;
        let level = level.unwrap_or_else(|| self.level_of(key));
        self.writer.try_gather(&queue, message, level).map(PendingSingle)
    }

    /// What is to be answered for a single message; `None` while its level is not reached.
    pub fn single_outcome(&self, pending: &PendingSingle) -> Option<Result<Stored, Failure>> {
        let outcome = self.writer.gathered_outcome(&pending.0)?;
        Some(outcome.map(|(message, level)| stored(&message, level)))
    }

    /// The offset of a single message, and what it waits for in the log; `None` while it is not placed.
    pub fn single_mark(&self, pending: &PendingSingle) -> Option<(QueueOffset, LogMark)> {
        let message = pending.0.outcome()?.ok()?;
        Some((message.offset, LogMark { end: message.placement.end, level: pending.0.level }))
    }

    /// Waits for the level of a single message.
    pub(super) async fn single_settled(&self, pending: PendingSingle) -> Result<Stored, Failure> {
        let (message, level) = self.writer.gathered(pending.0).await?;
        Ok(stored(&message, level))
    }

    /// Places the single messages that wait for the next commit group: what the commit task calls before it takes one.
    pub fn place_gathered(&self) {
        self.writer.place_gathered();
    }

    /// Whether messages of producers are taken.
    pub(super) fn check_not_shutting_down(&self) -> Result<(), Failure> {
        if self.is_shutting_down.get() {
            let message = "the broker is shutting down: try again later";
            return Err(Failure::new(Status::ShuttingDown, message));
        }
        Ok(())
    }

    /// Waits until a refused batch is worth another try.
    pub async fn wait_out(&self, backpressure: Backpressure) {
        self.writer.wait_out(backpressure).await;
    }

    /// What is to be answered for a placed batch; `None` while its level is not reached.
    pub fn outcome(&self, pending: &PendingProduce) -> Option<Result<Produced, Failure>> {
        let outcome = self.writer.outcome(pending.level, pending.placement)?;
        Some(outcome.map(|level| pending.produced(level)))
    }

    /// Waits for the batch's level.
    pub async fn settled(&self, pending: &PendingProduce) -> Result<Produced, Failure> {
        let level = self.writer.settled(pending.level, pending.placement).await?;
        Ok(pending.produced(level))
    }

    /// The level of a queue's topic, or the node's.
    pub(super) fn level_of(&self, key: QueueKey) -> Level {
        self.tables().topic(key.topic).and_then(|topic| topic.level).unwrap_or(self.live.get().level)
    }
}

fn stored(message: &PlacedMessage, level: Level) -> Stored {
    let store_time = message.placement.store_time;
    Stored { offset: message.offset, location: message.location, store_time, level }
}

/// What a client is told about a batch that is none.
fn batch_refused(error: BatchError) -> Failure {
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
        | BatchError::BornTime(_)
        | BatchError::Record(
            RecordError::Truncated
            | RecordError::Lengths
            | RecordError::TagHash
            | RecordError::Attributes(_)
            | RecordError::Text(_),
        ) => Status::InvalidArgument,
    };
    Failure::new(status, format!("the batch was not stored: {error}"))
}
