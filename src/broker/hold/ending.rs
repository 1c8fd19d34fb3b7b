//! The end of a transaction: by its producer's decision, or because none came.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::timers::receipt_expired;
use crate::api::{DECISION_BOUNDS, Decision, EndTransaction, Failure, Reply, Status};
use crate::broker::copied_message::undecided_message;
use crate::broker::shard_broker::Broker;
use crate::broker::writer::PlaceRefusal;
use crate::disk::Disk;
use crate::log::Placement;
use crate::metrics::{HeldTally, note_span};
use crate::state::{Half, HeldChange};
use crate::types::{Level, LogPosition, QueueKey, TopicName};
use crate::wire::batch::{BatchHeader, Kind, OwnedBatch, placed_again, stored_records};
use crate::wire::properties::names;

/// Where halves go that nobody has decided on (`common/.../topic/TopicValidator.java`,
/// `RMQ_SYS_TRANS_CHECK_MAX_TIME_TOPIC`).
const GIVEN_UP_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";

impl<D: Disk> Broker<D> {
    /// Carries out a producer's decision; durable when answered.
    pub(in crate::broker) async fn end_transaction(&self, end: EndTransaction) -> Result<Reply, Failure> {
        let position = end.receipt.position;
        let half = self.open_half(position)?;
        if half.key != end.receipt.key || half.waits_for_its_time() {
            return Err(receipt_expired());
        }
        if let (Some(asked), Some(stored)) = (&end.producer_group, &half.producer_group)
            && asked != stored
        {
            let message = format!("the message belongs to producer group {stored}, not to {asked}");
            return Err(Failure::invalid(message));
        }
        match end.decision {
            Decision::Rollback => {
                let placed = self.end_without_message(position).await?;
                self.metrics.transactions_rolled_back.add(1);
                self.note_decision(&half, |tally| &mut tally.rolled_back);
                self.writer.settled(Level::Durable, placed).await?;
            }
            Decision::Commit => {
                self.commit_half(&half).await?;
                self.metrics.transactions_committed.add(1);
                self.note_decision(&half, |tally| &mut tally.committed);
            }
        }
        Ok(Reply::Done)
    }

    /// Counts a decision by its topic, and how long it has taken.
    fn note_decision(&self, half: &Half, counted: fn(&mut HeldTally) -> &mut u64) {
        let taken = self.steady.now().0.saturating_sub(half.store_time.0);
        let mut tallies = self.metrics.tallies.borrow_mut();
        let tally = tallies.held(half.key.topic);
        *counted(tally) += 1;
        note_span(&mut tally.decided, Duration::from_millis(taken), &DECISION_BOUNDS);
    }

    fn open_half(&self, position: LogPosition) -> Result<Half, Failure> {
        self.held().halves.open(position).cloned().ok_or_else(receipt_expired)
    }

    /// Puts the message into its queue.
    async fn commit_half(&self, half: &Half) -> Result<(), Failure> {
        let bytes = self.half_bytes(half).await?.ok_or_else(|| {
            Failure::new(Status::Damaged, "the message's stored bytes do not match their checksum")
        })?;
        let batch = placed_again(&bytes, Kind::Messages).map_err(Failure::invalid)?;
        let placing = self.writer.place(|| {
            // Somebody else may have decided, or the topic may have gone, while this waited.
            self.open_half(half.position)?;
            match self.queue(half.key) {
                Ok(queue) => {
                    let ended = HeldChange::HalfEnded(half.position);
                    Ok((self.try_enter(&queue, &batch, ended)?, None))
                }
                Err(gone) => Ok((self.try_end_half(half.position)?, Some(gone))),
            }
        });
        let (placement, gone) = placing.await?;
        self.writer.settled(Level::Durable, placement).await?;
        gone.map_or(Ok(()), Err)
    }

    fn try_end_half(&self, half: LogPosition) -> Result<Placement, PlaceRefusal> {
        self.try_change_held(HeldChange::HalfEnded(half))
    }

    /// The half's batch as stored; retention may have placed it again while it was read.
    pub(super) async fn half_bytes(&self, half: &Half) -> Result<Option<Bytes>, Failure> {
        let mut half = half.clone();
        loop {
            let found = self.batches_at(&[(half.current, half.batch_bytes)]).await?.pop().flatten();
            let now = self.open_half(half.position)?;
            if found.is_some() || now.current == half.current {
                return Ok(found);
            }
            half = now;
        }
    }

    /// Places the end of a half that shows no message, unless it has ended meanwhile.
    pub(super) async fn end_without_message(&self, position: LogPosition) -> Result<Placement, Failure> {
        let attempt = || {
            self.open_half(position)?;
            self.try_end_half(position)
        };
        self.writer.place(attempt).await
    }

    /// Puts a message whose time has come into its queue. One that cannot be read, or has no queue any more, is dropped.
    pub(in crate::broker) async fn release_half(&self, half: &Half) -> Result<(), Failure> {
        match self.commit_half(half).await {
            Ok(()) => {
                self.metrics.held_released.add(1);
                Ok(())
            }
            Err(failure) if is_gone(&failure) => {
                self.metrics.held_dropped.add(1);
                match self.end_without_message(half.position).await {
                    Err(failure) if failure.status != Status::ReceiptExpired => Err(failure),
                    _ => Ok(()),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    /// Moves a half whose checks are used up, or that is too old, where operators find it
    /// (`broker/.../transaction/queue/DefaultTransactionalMessageCheckListener.java`, `resolveDiscardMsg`).
    pub(in crate::broker) async fn give_up(self: &Rc<Self>, position: LogPosition) -> Result<(), Failure> {
        let Ok(half) = self.open_half(position) else { return Ok(()) };
        let _guard = self.held_lock.lock().await;
        if half.waits_for_its_time() {
            return self.release_half(&half).await;
        }
        let bytes = match self.half_bytes(&half).await {
            Ok(bytes) => bytes,
            Err(failure) if failure.status == Status::ReceiptExpired => return Ok(()),
            Err(failure) => return Err(failure),
        };
        let name = self.tables().topic(half.key.topic).map(|topic| topic.name.clone());
        let given_up = match (bytes, name) {
            (Some(bytes), Some(name)) => given_up_batch(&bytes, &name, half.key),
            _ => None,
        };
        self.metrics.transactions_given_up.add(1);
        let Some(batch) = given_up else {
            self.metrics.held_dropped.add(1);
            return match self.end_without_message(position).await {
                Err(failure) if failure.status != Status::ReceiptExpired => Err(failure),
                _ => Ok(()),
            };
        };
        let topic: TopicName = GIVEN_UP_TOPIC.parse().map_err(Failure::invalid)?;
        let key = self.own_queue_of(&topic).await?;
        let attempt = || {
            if self.open_half(position).is_ok() {
                self.try_enter(&*self.queue(key)?, &batch.view(), HeldChange::HalfEnded(position))?;
            }
            Ok(())
        };
        self.writer.place(attempt).await
    }
}

/// Whether a message can never be put into its queue.
fn is_gone(failure: &Failure) -> bool {
    let gone = [Status::Damaged, Status::TopicNotExist, Status::QueueNotExist, Status::ReceiptExpired];
    gone.contains(&failure.status)
}

/// The message under a half, with the names of where it would have gone.
fn given_up_batch(bytes: &[u8], topic: &TopicName, key: QueueKey) -> Option<OwnedBatch> {
    let header = BatchHeader::decode(bytes).ok()?;
    let record = stored_records(bytes).next()?;
    let queue = key.queue.to_string();
    let added = [(names::REAL_TOPIC, topic.as_str()), (names::REAL_QUEUE, &queue)];
    Some(undecided_message(record, header.born_time, &added))
}
