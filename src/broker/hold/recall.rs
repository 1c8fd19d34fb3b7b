//! Taking a delayed message back before its time.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use super::timers::{LOOKUP_ENTRIES, STEP_PAUSE, lookup_max};
use crate::api::{Failure, RecallDelayed, Reply, Status};
use crate::broker::shard_broker::Broker;
use crate::broker::shares::SharedTable;
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
    /// `None`: by its place alone, which is that of now.
    pub unique_id: Option<String>,
    /// Where it was stored: it may have been placed again since.
    pub position: LogPosition,
    /// The place of the network of whoever takes it back.
    pub network: IpAddr,
}

/// Who has taken back what still waits for its time, by places of the network. After a start nobody has taken anything back.
#[derive(Debug, Default)]
pub(in crate::broker) struct Recallers {
    of: BTreeMap<TimerKey, IpAddr>,
    counts: HashMap<IpAddr, usize>,
}

impl Recallers {
    fn count(&self, network: IpAddr) -> usize {
        self.counts.get(&network).copied().unwrap_or(0)
    }

    fn note(&mut self, timer: TimerKey, network: IpAddr) {
        if self.of.insert(timer, network).is_none() {
            *self.counts.entry(network).or_default() += 1;
        }
    }

    /// Forgets that of which the time has come.
    fn pass(&mut self, released: TimerKey) {
        while let Some(first) = self.of.first_entry().filter(|first| *first.key() <= released) {
            let network = first.remove();
            let count = self.counts.get_mut(&network).expect("whoever has an entry is counted");
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&network);
            }
        }
    }
}

impl<D: Disk> Broker<D> {
    /// Takes back a message of this shard that waits for its time; durable when answered. `ReceiptExpired` when there is none:
    /// it was delivered, or taken back before.
    pub async fn recall(self: &Rc<Self>, recall: &Recall) -> Result<(), Failure> {
        let topic = self.topic_by_name(&recall.topic)?.id;
        // Nothing is released or placed again until it is decided.
        let guard = self.held_lock.lock().await;
        let placement = match self.find_delayed(recall, topic).await? {
            Some(timer) => {
                let placing = self.writer.place(|| self.try_recall(timer, recall.network)).await;
                if let Err(failure) = &placing
                    && failure.status == Status::LimitReached
                {
                    self.note_refusal(failure);
                }
                placing?
            }
            None => self.recall_aside(recall, topic).await?,
        };
        drop(guard);
        self.metrics.messages_recalled.add(1);
        self.writer.settled(Level::Durable, placement).await?;
        Ok(())
    }

    /// The same, by what a list of them says.
    pub(in crate::broker) async fn recall_listed(
        self: &Rc<Self>,
        recall: RecallDelayed,
    ) -> Result<Reply, Failure> {
        let RecallDelayed { topic, queue: _, position, due } = recall;
        let network = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.recall(&Recall { topic, due, unique_id: None, position, network }).await?;
        Ok(Reply::Done)
    }

    fn try_recall(&self, timer: TimerKey, network: IpAddr) -> Result<Placement, PlaceRefusal> {
        let (is_pending, used) = {
            let delays = &self.held().delays;
            (delays.is_pending(timer) && !delays.is_recalled(timer), delays.recalled_count())
        };
        if !is_pending {
            return Err(gone().into());
        }
        self.check_recalls_limit(used, network)?;
        let placement =
            self.try_change_held(HeldChange::Recalled { due: timer.due, position: timer.position })?;
        self.recallers.borrow_mut().note(timer, network);
        Ok(placement)
    }

    /// Whether one more is remembered for who is at a place of the network. Others need some as well.
    fn check_recalls_limit(&self, used: usize, network: IpAddr) -> Result<(), Failure> {
        let mut recallers = self.recallers.borrow_mut();
        recallers.pass(self.held().delays.releasing());
        let (own, entries_max) = (recallers.count(network), limits::SHARD_RECALLS_MAX);
        if (SharedTable { entries_max, used }).takes(own) {
            return Ok(());
        }
        let message = format!(
            "shard {} remembers {used} of {entries_max} messages that were taken back before their time, {own} of them for clients \
             at {network}, which is their share: try again when some of these times have come",
            self.options.shard
        );
        Err(Failure::new(Status::LimitReached, message))
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
        let is_known = recall.unique_id.is_some();
        if !is_known || self.log.segments().first().is_some_and(|first| first.base <= recall.position) {
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
        let Some(wanted) = &recall.unique_id else { return Ok(header.key.topic == topic) };
        let id = stored_records(&bytes).next().and_then(|record| {
            let id = properties::get(record.properties(), names::UNIQUE_ID)?;
            // Clients are told it as text.
            Some(String::from_utf8_lossy(id) == *wanted)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(due: u64) -> TimerKey {
        TimerKey { due: Timestamp(due), position: LogPosition(due) }
    }

    #[test]
    fn who_takes_back_much_leaves_room_for_others_until_its_times_have_come() {
        let [one, other]: [IpAddr; 2] =
            ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().expect("an address"));
        let mut recallers = Recallers::default();
        let entries_max = 1_024;
        let table = |used| SharedTable { entries_max, used };
        let mut used = 0;
        while table(used).takes(recallers.count(one)) {
            used += 1;
            recallers.note(timer(used as u64), one);
            // Whatever is said twice counts once.
            recallers.note(timer(used as u64), one);
        }
        assert_eq!(used, entries_max / 8 * 3);
        assert!(table(used).takes(recallers.count(other)));
        recallers.note(timer(5_000), other);
        recallers.pass(timer(100));
        assert_eq!((recallers.count(one), recallers.count(other)), (used - 100, 1));
        assert!(table(used - 99).takes(recallers.count(one)));
        recallers.pass(TimerKey::MAX);
        assert!(recallers.of.is_empty() && recallers.counts.is_empty());
    }
}
