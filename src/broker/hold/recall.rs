//! Taking a delayed message back before its time.

use std::rc::Rc;

use super::timers::{LOOKUP_ENTRIES, STEP_PAUSE, lookup_max};
use crate::api::{Failure, Status};
use crate::broker::shard_broker::Broker;
use crate::broker::writer::PlaceRefusal;
use crate::disk::Disk;
use crate::limits;
use crate::log::Placement;
use crate::state::{HeldChange, TimerKey, bucket_of, timer_key_of};
use crate::types::{Level, LogPosition, QueueOffset, Timestamp, TopicId, TopicName};
use crate::wire::batch::{BatchHeader, stored_records};
use crate::wire::properties::{self, names};

/// A delayed message, by what its producer knows of it.
#[derive(Clone, Debug)]
pub struct Recall {
    pub topic: TopicName,
    pub due: Timestamp,
    pub unique_id: String,
    /// Where it was stored: it may have been placed again since.
    pub position: LogPosition,
}

impl<D: Disk> Broker<D> {
    /// Takes back a message of this shard that waits for its time; durable when answered. `ReceiptExpired` when there is none:
    /// it was delivered, or taken back before.
    pub async fn recall(self: &Rc<Self>, recall: &Recall) -> Result<(), Failure> {
        let topic = self.topic_by_name(&recall.topic)?.id;
        // Nothing is released or placed again until it is decided.
        let guard = self.held_lock.lock().await;
        let placement = match self.find_delayed(recall, topic).await? {
            Some(timer) => self.writer.place(|| self.try_recall(timer)).await?,
            None => self.recall_aside(recall, topic).await?,
        };
        drop(guard);
        self.metrics.messages_recalled.add(1);
        self.writer.settled(Level::Durable, placement).await?;
        Ok(())
    }

    fn try_recall(&self, timer: TimerKey) -> Result<Placement, PlaceRefusal> {
        let (is_pending, count) = {
            let delays = &self.held().delays;
            (delays.is_pending(timer) && !delays.is_recalled(timer), delays.recalled_count())
        };
        if !is_pending {
            return Err(gone().into());
        }
        if count >= limits::SHARD_RECALLS_MAX {
            let message = format!(
                "shard {} remembers {count} messages that were taken back before their time, no more: try again when some of \
                 these times have come",
                self.options.shard
            );
            return Err(Failure::new(Status::LimitReached, message).into());
        }
        self.try_change_held(HeldChange::Recalled { due: timer.due, position: timer.position })
    }

    /// The message among those that wait for its time.
    async fn find_delayed(&self, recall: &Recall, topic: TopicId) -> Result<Option<TimerKey>, Failure> {
        let bucket = bucket_of(recall.due);
        let entries = self.entries(bucket, QueueOffset(recall.position.0), lookup_max(1)).await?;
        if let Some(entry) = entries.first().filter(|entry| entry.position == recall.position) {
            let timer = timer_key_of(bucket, entry.position, entry.tag_summary);
            let place = (entry.position, entry.batch_bytes);
            let is_meant = timer.due == recall.due && self.is_meant(recall, topic, place).await?;
            return Ok(is_meant.then_some(timer));
        }
        if self.log.segments().first().is_some_and(|first| first.base <= recall.position) {
            return Ok(None);
        }
        // It was placed again, for it was in a segment that is gone.
        let mut offset = QueueOffset::ZERO;
        loop {
            let entries = self.entries(bucket, offset, lookup_max(LOOKUP_ENTRIES)).await?;
            let Some(last) = entries.last() else { return Ok(None) };
            offset = last.end_offset();
            for entry in &entries {
                let timer = timer_key_of(bucket, entry.position, entry.tag_summary);
                if timer.due == recall.due
                    && self.held().delays.is_pending(timer)
                    && self.is_meant(recall, topic, (entry.position, entry.batch_bytes)).await?
                {
                    return Ok(Some(timer));
                }
            }
            self.clock.sleep(STEP_PAUSE).await;
        }
    }

    /// Whether the batch at a place is the message.
    async fn is_meant(
        &self,
        recall: &Recall,
        topic: TopicId,
        place: (LogPosition, u32),
    ) -> Result<bool, Failure> {
        let Some(bytes) = self.batches_at(&[place]).await?.pop().flatten() else { return Ok(false) };
        let Ok(header) = BatchHeader::decode(&bytes) else { return Ok(false) };
        let id = stored_records(&bytes).next().and_then(|record| {
            let id = properties::get(record.properties(), names::UNIQUE_ID)?;
            Some(id == recall.unique_id.as_bytes())
        });
        Ok(header.key.topic == topic && id == Some(true))
    }

    /// Takes back a message whose time lies before that of messages which were released already.
    async fn recall_aside(&self, recall: &Recall, topic: TopicId) -> Result<Placement, Failure> {
        let half = self.held().halves.open(recall.position).cloned();
        let half = half.filter(|half| half.waits_for_its_time()).ok_or_else(gone)?;
        if !self.is_meant(recall, topic, (half.current, half.batch_bytes)).await? {
            return Err(gone());
        }
        self.end_without_message(recall.position).await
    }
}

fn gone() -> Failure {
    Failure::new(
        Status::ReceiptExpired,
        "the message is not waiting for its time: it was delivered, or taken back before",
    )
}
