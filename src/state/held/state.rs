//! The held messages of a shard as the log makes them: the same behind a commit as in recovery.

use std::time::Duration;

use super::change::HeldChange;
use super::delays::{Delays, Place, bucket_of, bucket_start, offset_behind};
use super::halves::Halves;
use crate::disk::Disk;
use crate::index::{Index, IndexEntry};
use crate::state::record::Change;
use crate::types::{QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};

/// In place of the due time, in the header of a half message.
pub const HALF_OFFSET: QueueOffset = QueueOffset(u64::MAX);

/// Timers and halves.
pub struct HeldState {
    pub delays: Delays,
    pub halves: Halves,
}

impl HeldState {
    pub fn new(checks_max: u32) -> Self {
        Self { delays: Delays::default(), halves: Halves::new(checks_max) }
    }

    /// The hidden queue and the entry there of a durable held batch, described by `batch`; `None` for one that does not
    /// wait for a time, or was released.
    pub fn entry(&self, batch: IndexEntry) -> Option<(QueueKey, IndexEntry)> {
        let place = place(&batch)?;
        let bucket = bucket_of(place.due);
        let entry = IndexEntry {
            base_offset: QueueOffset(batch.position.0),
            record_count: 1,
            tag_summary: (place.due.0 - bucket_start(bucket.queue).0) as u32,
            ..batch
        };
        (place > self.delays.released()).then_some((bucket, entry))
    }

    /// A held batch is durable and in the index.
    pub fn stored(&mut self, batch: &IndexEntry) {
        match place(batch) {
            Some(place) => self.delays.stored(place, batch.batch_bytes),
            None => self.halves.unapplied = self.halves.unapplied.saturating_sub(1),
        }
    }

    /// Carries out a durable change.
    pub fn apply<D: Disk>(&mut self, change: HeldChange, index: &Index<D>) {
        match change {
            HeldChange::Released { due, position } => {
                self.delays.released_to(Place { due, position });
                forget_buckets(index, bucket_of(due));
            }
            HeldChange::Moved { bucket, position } => {
                let key = QueueKey { topic: TopicId::DELAYED, queue: bucket };
                index.advance_first(key, offset_behind(position));
            }
            change => self.halves.apply(change),
        }
    }

    /// The latest moment of the shard's steady time that is stored with something held.
    pub fn newest_moment(&self, check_interval: Duration) -> Option<Timestamp> {
        self.halves.newest_moment(check_interval)
    }

    /// Everything, as changes that build this state together with the index.
    pub fn as_changes(&self) -> impl Iterator<Item = Change> + '_ {
        let halves = self.halves.stored().cloned().map(HeldChange::HalfStored);
        self.cursor().into_iter().chain(halves.map(Change::Held))
    }

    /// The cursor, once it has moved.
    pub fn cursor(&self) -> Option<Change> {
        let Place { due, position } = self.delays.released();
        let released = HeldChange::Released { due, position };
        (self.delays.released() > Place::default()).then_some(Change::Held(released))
    }
}

/// Where a delayed batch stands in the order of release; `None` for a half.
fn place(batch: &IndexEntry) -> Option<Place> {
    let due = Timestamp(batch.base_offset.0);
    (batch.base_offset != HALF_OFFSET).then_some(Place { due, position: batch.position })
}

/// Drops the hidden queues before `bucket`: everything in them was released.
fn forget_buckets<D: Disk>(index: &Index<D>, bucket: QueueKey) {
    let first = QueueKey { topic: TopicId::DELAYED, queue: QueueNumber(0) };
    while let Some(passed) = index.next_queue(first).filter(|key| *key < bucket) {
        index.remove_queue(passed);
    }
}
