//! Where batches stand: the rules of a shard ask the index for messages here, and nowhere else.

use crate::api::{Failure, OffsetSpec};
use crate::broker::queue::Queue;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::index::{IndexEntry, IndexError, LookupMax};
use crate::types::{LogPosition, QueueKey, QueueOffset, Timestamp};

/// The one entry of an offset.
const ONE: LookupMax = LookupMax { entries: 1, bytes: 0, records: 1 };

impl<D: Disk> Broker<D> {
    /// The entries from the one that holds `offset` on, or from the next one there is; those whose batches readers may not
    /// have, and those after a gap, among them.
    pub(in crate::broker) async fn entries(
        &self,
        key: QueueKey,
        offset: QueueOffset,
        max: LookupMax,
    ) -> Result<Vec<IndexEntry>, Failure> {
        self.index.lookup(key, offset, max).await.map_err(|error| self.index_damaged(&error))
    }

    /// Entries as [`entries`](Broker::entries) has them, of those at the queue's end that are always in memory; `None` when the
    /// first one is older.
    pub(super) fn entries_in_memory(
        &self,
        key: QueueKey,
        offset: QueueOffset,
        max: LookupMax,
    ) -> Option<Vec<IndexEntry>> {
        self.index.lookup_in_memory(key, offset, max)
    }

    /// Entries as [`entries`](Broker::entries) has them, as far as they are in memory, among those that were read lately;
    /// `None` when the disk has to be read for the first one.
    pub(super) fn entries_at_hand(
        &self,
        key: QueueKey,
        offset: QueueOffset,
        max: LookupMax,
    ) -> Option<Vec<IndexEntry>> {
        self.index.lookup_at_hand(key, offset, max)
    }

    /// The entry of the batch that holds `offset`; `None` in a gap, and where there is no message.
    pub(in crate::broker) async fn entry_at(
        &self,
        key: QueueKey,
        offset: QueueOffset,
    ) -> Result<Option<IndexEntry>, IndexError> {
        let found = self.index.lookup(key, offset, ONE).await?;
        let holds = |entry: &IndexEntry| (entry.base_offset..entry.end_offset()).contains(&offset);
        Ok(found.into_iter().next().filter(holds))
    }

    /// The first offset whose batch stands at `position` or after it; the queue's first one when the index cannot be read.
    pub(super) async fn offset_of_position(&self, key: QueueKey, position: LogPosition) -> QueueOffset {
        self.index.find_position(key, position).await.unwrap_or_default()
    }

    /// Translates what a client asks for into an offset of a queue of this shard.
    pub async fn find_offset(&self, key: QueueKey, spec: OffsetSpec) -> Result<QueueOffset, Failure> {
        let queue = self.queue(key)?;
        let (first, _) = self.bounds(&queue);
        match spec.fixed(self.clock.now()) {
            OffsetSpec::First => Ok(first),
            OffsetSpec::Last => Ok(queue.durable_end.get()),
            OffsetSpec::Ago(span) => unreachable!("{span:?} ago is a time"),
            OffsetSpec::Time(time) => {
                let found = self.index.find_time(key, time).await;
                found.map_err(|error| self.index_damaged(&error))
            }
        }
    }

    /// The last message of a queue that was stored at this time or before; `None` when there is none any more.
    pub async fn last_stored_by(
        &self,
        key: QueueKey,
        time: Timestamp,
    ) -> Result<Option<QueueOffset>, Failure> {
        let after = self.find_offset(key, OffsetSpec::Time(Timestamp(time.0.saturating_add(1)))).await?;
        let (first, _) = self.bounds(&*self.queue(key)?);
        Ok((after > first).then(|| QueueOffset(after.0 - 1)))
    }

    /// The entry of a queue's first batch from an offset on.
    pub(in crate::broker) async fn first_entry(
        &self,
        key: QueueKey,
        from: QueueOffset,
    ) -> Result<Option<IndexEntry>, Failure> {
        Ok(self.entries(key, from, ONE).await?.first().copied())
    }

    /// When the first message of a queue was stored that is still there; `None` when there is none.
    pub async fn first_store_time(&self, key: QueueKey) -> Result<Option<Timestamp>, Failure> {
        let (first, end) = self.bounds(&*self.queue(key)?);
        if first == end {
            return Ok(None);
        }
        let entries = self.entries(key, first, ONE).await?;
        Ok(entries.first().map(|entry| entry.store_time))
    }

    /// When a message was stored; `None` when it is not there any more.
    pub async fn store_time(&self, key: QueueKey, offset: QueueOffset) -> Result<Option<Timestamp>, Failure> {
        let entry = self.entry_at(key, offset).await.map_err(|error| self.index_damaged(&error))?;
        Ok(entry.map(|entry| entry.store_time))
    }

    /// First offset and end, as readers see them.
    pub(in crate::broker) fn bounds(&self, queue: &Queue) -> (QueueOffset, QueueOffset) {
        let end = queue.durable_end.get();
        let first = self.index.bounds(queue.key).map_or(end, |(first, _)| first);
        (first.min(end), end)
    }
}
