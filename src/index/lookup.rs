//! Searches. The tail of a queue is answered from memory, without suspending; older entries cost one block per level,
//! most of them from the cache.

use std::rc::Rc;

use super::block::{Block, BlockError};
use super::consume::Index;
use super::entry::{BlockAddress, BlockReference, IndexEntry, Seek};
use super::error::IndexError;
use super::sealed::identity;
use super::tree::SearchPosition;
use crate::disk::Disk;
use crate::types::{LogPosition, QueueKey, QueueOffset, Timestamp};

/// What one lookup returns at most, beyond its first entry.
#[derive(Clone, Copy, Debug)]
pub struct LookupMax {
    pub entries: usize,
    /// Of all batches together.
    pub bytes: u64,
    /// Entries are added while those before hold fewer records than this from the looked-up offset on, so the last one
    /// may go beyond it.
    pub records: u64,
}

/// Entries on their way to the caller.
struct Collection {
    max: LookupMax,
    entries: Vec<IndexEntry>,
    bytes: u64,
    records: u64,
    /// Where the next entry is looked for.
    offset: QueueOffset,
}

/// What a look into memory has found.
enum Step {
    Done,
    Block { reference: BlockReference, level: u8 },
}

impl<D: Disk> Index<D> {
    /// The entries from the one that holds `offset` on; when it lies in a gap or before the queue's first offset, from
    /// the next one there is. At least one when there is one. It may be fewer than `max` allows when a block can not
    /// be read: the next lookup then says why.
    pub async fn lookup(
        &self,
        key: QueueKey,
        offset: QueueOffset,
        max: LookupMax,
    ) -> Result<Vec<IndexEntry>, IndexError> {
        let mut collection = Collection { max, entries: Vec::new(), bytes: 0, records: 0, offset };
        loop {
            let generation = self.shared.generation.get();
            let Step::Block { reference, level } = self.collect_tail(key, &mut collection) else {
                return Ok(collection.entries);
            };
            let seek = Seek { offset: collection.offset, ..Seek::default() };
            match self.leaf(key, reference, level, &seek).await {
                Ok(block) => {
                    let from = block.seek_entry(&seek);
                    if !(from..block.count()).all(|index| collection.take(block.entry(index))) {
                        return Ok(collection.entries);
                    }
                    // The next look must lead further.
                    if collection.offset <= seek.offset {
                        return Err(self.shared.files.damaged(reference.address, BlockError::Order));
                    }
                }
                Err(_) if !collection.entries.is_empty() => return Ok(collection.entries),
                // Another index has taken its place meanwhile.
                Err(_) if self.shared.generation.get() != generation => {}
                // A trim that ran meanwhile has removed what was looked for: go on from the new first offset.
                Err(_) if self.first(key).is_none_or(|first| first > seek.offset) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks up as [`lookup`](Index::lookup) does, among the entries that are in no block yet; `None` when the first one is.
    pub fn lookup_in_memory(
        &self,
        key: QueueKey,
        offset: QueueOffset,
        max: LookupMax,
    ) -> Option<Vec<IndexEntry>> {
        let mut collection = Collection { max, entries: Vec::new(), bytes: 0, records: 0, offset };
        match self.collect_tail(key, &mut collection) {
            Step::Done => Some(collection.entries),
            Step::Block { .. } => (!collection.entries.is_empty()).then_some(collection.entries),
        }
    }

    /// Looks up as [`lookup`](Index::lookup) does, as far as no block has to be read from the disk; `None` when one has to be for
    /// the first entry.
    pub fn lookup_at_hand(
        &self,
        key: QueueKey,
        offset: QueueOffset,
        max: LookupMax,
    ) -> Option<Vec<IndexEntry>> {
        let mut collection = Collection { max, entries: Vec::new(), bytes: 0, records: 0, offset };
        loop {
            let Step::Block { reference, level } = self.collect_tail(key, &mut collection) else {
                return Some(collection.entries);
            };
            let seek = Seek { offset: collection.offset, ..Seek::default() };
            let leaf = self.leaf_at_hand(key, reference, level, &seek);
            let takes_more = leaf.is_some_and(|block| {
                let from = block.seek_entry(&seek);
                (from..block.count()).all(|index| collection.take(block.entry(index)))
            });
            // A block that leads no further is damaged: whoever may wait is told.
            if !takes_more || collection.offset <= seek.offset {
                return (!collection.entries.is_empty()).then_some(collection.entries);
            }
        }
    }

    /// The first offset that was stored at `time` or later; the queue's end when there is none, zero when the queue is
    /// not known.
    pub async fn find_time(&self, key: QueueKey, time: Timestamp) -> Result<QueueOffset, IndexError> {
        let seek = Seek { time, ..Seek::default() };
        let found = self.find(key, seek).await?;
        let (first, end) = self.bounds(key).unwrap_or_default();
        Ok(found.map_or(end, |entry| entry.base_offset.max(first)))
    }

    /// The first offset whose batch lies at `position` of the log or after; the queue's end when there is none, zero when
    /// the queue is not known.
    pub async fn find_position(
        &self,
        key: QueueKey,
        position: LogPosition,
    ) -> Result<QueueOffset, IndexError> {
        let found = self.find(key, Seek { position, ..Seek::default() }).await?;
        let (first, end) = self.bounds(key).unwrap_or_default();
        Ok(found.map_or(end, |entry| entry.base_offset.max(first)))
    }

    /// The first entry of the queue that qualifies, among those that end after its first offset.
    pub(super) async fn find(&self, key: QueueKey, seek: Seek) -> Result<Option<IndexEntry>, IndexError> {
        let mut seek = seek;
        loop {
            let generation = self.shared.generation.get();
            let (reference, level) = {
                let state = self.shared.state.borrow();
                let Some(tree) = state.tree(key) else { return Ok(None) };
                seek.offset = seek.offset.max(tree.first);
                match tree.seek(&seek) {
                    SearchPosition::End => return Ok(None),
                    SearchPosition::Tail(index) => return Ok(Some(tree.entries[index])),
                    SearchPosition::Block { reference, level } => (reference, level),
                }
            };
            match self.leaf(key, reference, level, &seek).await {
                Ok(block) => {
                    let index = block.seek_entry(&seek);
                    return Ok((index < block.count()).then(|| block.entry(index)));
                }
                Err(_) if self.shared.generation.get() != generation => {}
                Err(_) if self.first(key).is_none_or(|first| first > seek.offset) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Goes down from the block that `reference` leads to, to the block of entries where the search ends.
    async fn leaf(
        &self,
        key: QueueKey,
        reference: BlockReference,
        level: u8,
        seek: &Seek,
    ) -> Result<Rc<Block>, IndexError> {
        let (mut reference, mut level) = (reference, level);
        loop {
            let block = self.block(key, reference, level).await?;
            if level == 0 {
                return Ok(block);
            }
            // The reference above says that something in the block qualifies, and its checksum says that it is the
            // block that was sealed with it. If nothing does, the search ends in the last one, and finds nothing.
            reference = block.seek_reference(seek).unwrap_or_else(|| block.reference(block.count() - 1));
            level -= 1;
        }
    }

    /// As [`leaf`](Index::leaf), as far as all blocks on the way are in memory.
    fn leaf_at_hand(
        &self,
        key: QueueKey,
        reference: BlockReference,
        level: u8,
        seek: &Seek,
    ) -> Option<Rc<Block>> {
        let (mut reference, mut level) = (reference, level);
        loop {
            let block = self.block_at_hand(reference.address)?;
            if block.identity() != identity(key, level, &reference) {
                return None;
            }
            if level == 0 {
                return Some(block);
            }
            reference = block.seek_reference(seek).unwrap_or_else(|| block.reference(block.count() - 1));
            level -= 1;
        }
    }

    /// One block, from those that wait or from the cache.
    fn block_at_hand(&self, address: BlockAddress) -> Option<Rc<Block>> {
        let waiting = self.shared.state.borrow().sealed.find(address);
        waiting.or_else(|| self.shared.cache.borrow_mut().find(address))
    }

    /// One block: from those that wait, from the cache, or from disk.
    pub(super) async fn block(
        &self,
        key: QueueKey,
        reference: BlockReference,
        level: u8,
    ) -> Result<Rc<Block>, IndexError> {
        let (address, expected) = (reference.address, identity(key, level, &reference));
        if let Some(block) = self.block_at_hand(address) {
            // What waits may come from a snapshot, which may contradict itself.
            if block.identity() != expected {
                return Err(self.shared.files.damaged(address, BlockError::Identity));
            }
            return Ok(block);
        }
        let block = Rc::new(self.shared.files.read(&expected).await?);
        self.shared.cache.borrow_mut().insert(address, block.clone());
        Ok(block)
    }

    pub(super) fn first(&self, key: QueueKey) -> Option<QueueOffset> {
        self.bounds(key).map(|(first, _)| first)
    }

    /// Takes what is in memory at the place that the collection has reached.
    fn collect_tail(&self, key: QueueKey, collection: &mut Collection) -> Step {
        let state = self.shared.state.borrow();
        let Some(tree) = state.tree(key) else { return Step::Done };
        if tree.first > collection.offset && !collection.entries.is_empty() {
            // A trim that ran meanwhile: what was collected and what is left have a hole between them.
            return Step::Done;
        }
        collection.offset = collection.offset.max(tree.first);
        match tree.seek(&Seek { offset: collection.offset, ..Seek::default() }) {
            SearchPosition::End => Step::Done,
            SearchPosition::Tail(index) => {
                for entry in &tree.entries[index..] {
                    if !collection.take(*entry) {
                        break;
                    }
                }
                Step::Done
            }
            SearchPosition::Block { reference, level } => Step::Block { reference, level },
        }
    }
}

impl Collection {
    /// Adds the next entry; `false` when it is one too many.
    fn take(&mut self, entry: IndexEntry) -> bool {
        let bytes = self.bytes.saturating_add(u64::from(entry.batch_bytes));
        let full = self.entries.len() >= self.max.entries
            || bytes > self.max.bytes
            || self.records >= self.max.records;
        if full && !self.entries.is_empty() {
            return false;
        }
        let end = entry.end_offset();
        self.records += end.0.saturating_sub(self.offset.max(entry.base_offset).0);
        self.bytes = bytes;
        self.offset = end;
        self.entries.push(entry);
        true
    }
}
