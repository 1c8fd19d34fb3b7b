//! From entries to chosen records.

use std::ops::Range;

use bytes::Bytes;

use super::batches::Ahead;
use super::selection::Selection;
use crate::api::Failure;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::index::{IndexEntry, IndexError, LookupMax};
use crate::log::BatchAt;
use crate::types::{LogPosition, QueueKey, QueueOffset, RecordLocation, Timestamp};
use crate::wire::batch::{BatchHeader, Kind, stored_born_time, stored_records_from};
use crate::wire::record::RecordView;

/// Index entries looked at in one walk: more are left to the next.
const ENTRIES_MAX: usize = 1024;
/// Bytes of batches that one walk may cover.
const WALK_BYTES_MAX: u64 = 1024 * 1024;

/// A record within the batch that was read, and what the batch says of it.
pub struct StoredRecord<'a> {
    pub offset: QueueOffset,
    pub location: RecordLocation,
    pub record: RecordView<'a>,
    /// Of the batch: what the record says is relative to it.
    pub born_time: Timestamp,
    pub store_time: Timestamp,
}

/// A record that was copied out of its batch, and what the batch said of it.
pub(in crate::broker) struct StoredMessage {
    pub location: RecordLocation,
    pub record: Bytes,
    pub born_time: Timestamp,
    pub store_time: Timestamp,
}

/// Who is given the records that a walk chooses.
pub trait Taker {
    /// How many more it takes; zero ends the walk.
    fn missing(&self) -> usize;

    /// Takes a record; false when there is no room for it, which ends the walk before it: then nothing is missing any more.
    fn take(&mut self, record: &StoredRecord<'_>) -> bool;
}

/// What stands at a position of the log.
pub(in crate::broker) enum MessagesAt {
    /// A batch of messages, which readers of its queue may have or not.
    Batch(BatchHeader, Vec<u8>),
    /// Its bytes are damaged or missing, so nobody knows what it is.
    Unreadable,
    Nothing,
}

impl<D: Disk> Broker<D> {
    /// Gives `taker` the records of `span` that are wanted, as far as one look covers, and returns where the next walk goes
    /// on: everything before that was taken, left out, or is damaged or lost and goes to nobody. The operator is told of that.
    pub(in crate::broker) async fn walk(
        &self,
        key: QueueKey,
        span: Range<QueueOffset>,
        selection: &Selection<'_>,
        taker: &mut impl Taker,
    ) -> Result<QueueOffset, Failure> {
        let mut next = span.start;
        if taker.missing() == 0 || span.is_empty() {
            return Ok(next);
        }
        // Every batch has a message, and without a filter every message is wanted.
        let entries = if selection.is_everything() { taker.missing() } else { ENTRIES_MAX };
        let max = LookupMax { entries, bytes: WALK_BYTES_MAX, records: u64::MAX };
        let entries = self.entries(key, next, max).await?;
        if entries.is_empty() {
            // The queue was longer than its index is: its last batches are damaged.
            self.note_gap(key, next, None).await?;
            return Ok(span.end);
        }
        let mut ahead = Ahead::new();
        let readable = |entry: &IndexEntry| entry.end_offset() <= span.end;
        for (at, entry) in entries.iter().enumerate().take_while(|(_, entry)| readable(entry)) {
            if entry.base_offset > next {
                self.note_gap(key, next, Some(entry)).await?;
            }
            if !selection.may_want(entry) {
                next = entry.end_offset();
                continue;
            }
            let Some(batch) = self.batch_and_next(&entries[at..], taker.missing(), &mut ahead).await? else {
                // Damaged: it was reported.
                next = entry.end_offset();
                continue;
            };
            next = self.take_records(entry, batch.of(entry), next, selection, taker);
            self.note_left(entry, batch, next);
            if taker.missing() == 0 || selection.is_spent() {
                break;
            }
        }
        Ok(next)
    }

    /// Tells that nothing is known of what a queue had from `from` on, up to its next entry, unless retention took it.
    async fn note_gap(
        &self,
        key: QueueKey,
        from: QueueOffset,
        next: Option<&IndexEntry>,
    ) -> Result<(), Failure> {
        let (first, _) = self.bounds(&*self.queue(key)?);
        if from >= first {
            let damaged = self.lost_bytes(key, from, next).await;
            self.note_damage(&damaged, Some(key));
        }
        Ok(())
    }

    /// The message at an offset; `None` when it is gone with its segment, or damaged.
    pub(in crate::broker) async fn message(
        &self,
        key: QueueKey,
        offset: QueueOffset,
    ) -> Result<Option<StoredMessage>, Failure> {
        let entry = self.entry_at(key, offset).await.map_err(|error| self.index_damaged(&error))?;
        let Some(entry) = entry else { return Ok(None) };
        let Some(batch) = self.batch(&entry).await? else { return Ok(None) };
        let record = self.records(&entry, batch.of(&entry), offset).next();
        Ok(record.map(|record| StoredMessage {
            location: record.location,
            record: Bytes::copy_from_slice(record.record.as_bytes()),
            born_time: record.born_time,
            store_time: record.store_time,
        }))
    }

    /// The batch of messages at a position, whether readers may have it or not: see [`is_readable`](Broker::is_readable).
    pub(in crate::broker) async fn messages_at(
        &self,
        position: LogPosition,
    ) -> Result<MessagesAt, IndexError> {
        Ok(match self.log.batch_at(position).await? {
            BatchAt::Whole(header, bytes) if header.kind == Kind::Messages => {
                MessagesAt::Batch(header, bytes)
            }
            BatchAt::Damaged(damaged) => {
                self.note_damage(&damaged, None);
                MessagesAt::Unreadable
            }
            BatchAt::Whole(..) | BatchAt::None => MessagesAt::Nothing,
        })
    }

    /// Whether readers of its queue get this message of a batch that was found in the log: not one that an earlier recovery
    /// has cut off, nor one of a queue that is gone.
    pub(in crate::broker) async fn is_readable(
        &self,
        header: &BatchHeader,
        offset: QueueOffset,
    ) -> Result<bool, IndexError> {
        let queue = self.queues.borrow().get(&header.key).cloned();
        let Some(queue) = queue else { return Ok(false) };
        let (first, end) = self.bounds(&queue);
        if !(first..end).contains(&offset) {
            return Ok(false);
        }
        let entry = self.entry_at(header.key, offset).await?;
        Ok(entry.is_some_and(|entry| entry.position == header.position))
    }

    /// Gives `taker` what is wanted of one batch from `from` on, and returns where it went on to.
    pub(super) fn take_records(
        &self,
        entry: &IndexEntry,
        batch: &[u8],
        from: QueueOffset,
        selection: &Selection<'_>,
        taker: &mut impl Taker,
    ) -> QueueOffset {
        let mut next = from;
        for record in self.records(entry, batch, from) {
            if taker.missing() == 0 || (selection.wants(&record.record) && !taker.take(&record)) {
                break;
            }
            next = record.offset.advance(1);
            if selection.is_spent() {
                break;
            }
        }
        next
    }

    /// The records of a batch from an offset on.
    fn records<'a>(
        &self,
        entry: &IndexEntry,
        batch: &'a [u8],
        from: QueueOffset,
    ) -> impl Iterator<Item = StoredRecord<'a>> + use<'a, D> {
        let born_time = stored_born_time(batch);
        let (base_offset, position, store_time) = (entry.base_offset, entry.position, entry.store_time);
        let passed = from.0.saturating_sub(base_offset.0) as usize;
        let start = self.batch_cache.borrow_mut().marks().start_of(position, batch, passed);
        (passed..).zip(stored_records_from(batch, start)).map(move |(index, record)| StoredRecord {
            offset: base_offset.advance(index as u64),
            location: RecordLocation { position, index: index as u16 },
            record,
            born_time,
            store_time,
        })
    }
}
