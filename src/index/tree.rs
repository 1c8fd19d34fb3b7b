//! One queue's index: an append-only B+-tree whose right edge is in memory.
//!
//! ```text
//! levels[1]  [ b7 ]                                    references to blocks of level 1
//! levels[0]  [ b8 b9 ]                                 references to blocks of level 0
//! entries    [ e e e ]                                 the newest entries
//!
//! blocks     b7 = [ b0 .. b6 ]   b8 = [ e .. e ]       in index segments, or waiting to be written
//! ```
//!
//! Each level holds one chunk that is not full. A full one is sealed, and its reference goes to the level above; so what
//! stands in a higher level is older than all of the levels below it, and a queue costs one partial chunk per level
//! however long it is.

use super::block::{BLOCK_ENTRIES_MAX, BLOCK_REFERENCES_MAX};
use super::entry::{BlockReference, IndexEntry, Seek};
use super::sealed::{SealedBlocks, Shape};
use crate::types::{LogPosition, QueueKey, QueueOffset, Timestamp};

/// Levels above the entries. Full blocks reach 100 x 84^4 = 5 x 10^9 batches with four.
pub const LEVELS_MAX: usize = 16;

/// The part of a queue's index that is in memory.
///
/// 1. `first <= end`; they are equal exactly when the queue is empty, and then the tree is.
/// 2. All entries and references are in order (`precedes`), and end at or below `end`.
/// 3. No reference in memory ends at or below `first`.
/// 4. `first_position` is a lower bound for the position of the first entry that ends after `first`.
#[derive(Debug, Default)]
pub struct Tree {
    pub first: QueueOffset,
    pub end: QueueOffset,
    /// Valid while the queue is not empty.
    pub first_position: LogPosition,
    /// Of the newest entry there ever was.
    pub last_position: LogPosition,
    pub last_store_time: Timestamp,
    pub entries: Vec<IndexEntry>,
    pub levels: Vec<Vec<BlockReference>>,
    /// The latest snapshot that has dealt with this queue, see `state`.
    pub saved_in: u64,
}

/// Where a search goes on.
#[derive(Clone, Copy, Debug)]
pub enum SearchPosition {
    /// Nothing qualifies.
    End,
    /// The entry at this index of the entries in memory.
    Tail(usize),
    /// It is in or below this block.
    Block { reference: BlockReference, level: u8 },
}

impl Tree {
    /// Drops everything; the queue goes on at `offset`.
    pub fn restart_at(&mut self, offset: QueueOffset) {
        assert!(offset >= self.end, "offsets up to {} were given out", self.end);
        self.advance_first(self.end);
        self.first = offset;
        self.end = offset;
    }

    /// One that gets its first entry at `offset`.
    pub fn new_at(offset: QueueOffset, saved_in: u64) -> Self {
        Self { first: offset, end: offset, saved_in, ..Self::default() }
    }

    /// Moves the first offset back, into what is lost below `position`.
    pub fn begin_at(&mut self, offset: QueueOffset, position: LogPosition) {
        if offset < self.first {
            self.first = offset;
            self.first_position = self.first_position.min(position);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.first == self.end
    }

    /// Whether `entry` may be appended.
    pub fn takes(&self, entry: &IndexEntry) -> bool {
        entry.record_count > 0
            && entry.base_offset >= self.end
            && entry.position >= self.last_position
            && entry.store_time >= self.last_store_time
    }

    /// Adds the newest entry, which [`takes`](Tree::takes) allows, and seals what became full.
    pub fn append(&mut self, key: QueueKey, entry: IndexEntry, shape: Shape, sealed: &mut SealedBlocks) {
        if self.is_empty() {
            // What lies in a gap between here and the entry is lost, and readers are told: nobody has removed it.
            self.first_position = entry.position;
        }
        self.end = entry.end_offset();
        self.last_position = entry.position;
        self.last_store_time = entry.store_time;
        push(&mut self.entries, entry, shape.entries_max);
        if self.entries.len() >= self.entries_max(key, shape) {
            let reference = sealed.seal_entries(key, &self.entries);
            self.entries.clear();
            self.push_reference(key, reference, shape, sealed);
        }
    }

    /// Where the first entry is that qualifies. Reads no block.
    pub fn seek(&self, seek: &Seek) -> SearchPosition {
        for (index, level) in self.levels.iter().enumerate().rev() {
            if level.last().is_some_and(|last| last.qualifies(seek)) {
                let place = level.partition_point(|reference| !reference.qualifies(seek));
                return SearchPosition::Block { reference: level[place], level: index as u8 };
            }
        }
        let place = self.entries.partition_point(|entry| !entry.qualifies(seek));
        if place < self.entries.len() { SearchPosition::Tail(place) } else { SearchPosition::End }
    }

    /// Moves the first offset to `offset`, not beyond the end, and drops what lies before. It never falls.
    pub fn advance_first(&mut self, offset: QueueOffset) {
        let first = offset.min(self.end);
        if first <= self.first {
            return;
        }
        self.first = first;
        if self.is_empty() {
            self.entries = Vec::new();
            self.levels = Vec::new();
            return;
        }
        for level in &mut self.levels {
            let live = level.partition_point(|reference| reference.end_offset <= first);
            level.drain(..live);
        }
    }

    /// References in memory, oldest first, each with the level of its block.
    pub fn references(&self) -> impl Iterator<Item = (u8, BlockReference)> {
        let levels = self.levels.iter().enumerate().rev();
        levels
            .flat_map(|(level, references)| references.iter().map(move |&reference| (level as u8, reference)))
    }

    /// Heap memory.
    pub fn memory_bytes(&self) -> usize {
        let references: usize = self.levels.iter().map(Vec::capacity).sum();
        self.entries.capacity() * size_of::<IndexEntry>()
            + self.levels.capacity() * size_of::<Vec<BlockReference>>()
            + references * size_of::<BlockReference>()
    }

    /// Whether the invariants hold that a snapshot from a file could break.
    pub fn is_sound(&self) -> bool {
        let chunks_open = self.entries.len() < BLOCK_ENTRIES_MAX
            && self.levels.len() <= LEVELS_MAX
            && self.levels.iter().all(|level| level.len() < BLOCK_REFERENCES_MAX);
        let references: Vec<_> = self.references().map(|(_, reference)| reference).collect();
        let references_ordered = references.is_sorted_by(BlockReference::precedes)
            && references.iter().all(|reference| {
                reference.first_offset < reference.end_offset && reference.end_offset > self.first
            });
        let entries_ordered = self.entries.is_sorted_by(IndexEntry::precedes)
            && self.entries.iter().all(|entry| entry.record_count > 0);
        let levels_joined = match (references.last(), self.entries.first()) {
            (Some(last), Some(first)) => {
                last.end_offset <= first.base_offset
                    && last.last_position <= first.position
                    && last.last_store_time <= first.store_time
            }
            _ => true,
        };
        let newest = match (references.last(), self.entries.last()) {
            (_, Some(entry)) => Some((entry.end_offset(), entry.position, entry.store_time)),
            (Some(last), None) => Some((last.end_offset, last.last_position, last.last_store_time)),
            (None, None) => None,
        };
        let ends_joined = match newest {
            Some(newest) => {
                newest == (self.end, self.last_position, self.last_store_time) && self.first < self.end
            }
            None => self.first == self.end,
        };
        chunks_open && references_ordered && entries_ordered && levels_joined && ends_joined
    }

    fn push_reference(
        &mut self,
        key: QueueKey,
        mut reference: BlockReference,
        shape: Shape,
        sealed: &mut SealedBlocks,
    ) {
        let mut level = 0;
        loop {
            assert!(level < LEVELS_MAX, "a tree of more than {LEVELS_MAX} levels");
            if level == self.levels.len() {
                self.levels.reserve_exact(1);
                self.levels.push(Vec::new());
            }
            let references = &mut self.levels[level];
            push(references, reference, shape.references_max);
            if references.len() < shape.references_max {
                return;
            }
            level += 1;
            reference = sealed.seal_references(key, level as u8, references);
            references.clear();
        }
    }

    /// How many entries make a full chunk. The first chunk of a queue is sealed early, at a length that differs from
    /// queue to queue: queues that are written round robin would otherwise all seal in the same moment, and 10,000
    /// blocks (40 MiB) would wait at once.
    fn entries_max(&self, key: QueueKey, shape: Shape) -> usize {
        if !self.levels.is_empty() {
            return shape.entries_max;
        }
        let half = (shape.entries_max / 2).max(1);
        shape.entries_max - (key.queue.0 as usize).wrapping_add(key.topic.0 as usize) % half
    }
}

/// Adds an item to a chunk. The chunk's memory doubles, because most queues stay short, but not beyond a full chunk.
fn push<T>(chunk: &mut Vec<T>, item: T, items_max: usize) {
    if chunk.len() == chunk.capacity() {
        let capacity = (chunk.len() * 2).clamp(4, items_max.max(4)).max(chunk.len() + 1);
        chunk.reserve_exact(capacity - chunk.len());
    }
    chunk.push(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueNumber, TopicId};

    const KEY: QueueKey = QueueKey { topic: TopicId(0), queue: QueueNumber(0) };

    fn grown(count: u64) -> (Tree, SealedBlocks) {
        let shape = Shape { entries_max: 4, references_max: 3 };
        let (mut tree, mut sealed) = (Tree::default(), SealedBlocks::new(1, 64));
        for index in 0..count {
            let entry = IndexEntry {
                base_offset: tree.end,
                record_count: 2,
                position: LogPosition(index * 100),
                batch_bytes: 90,
                tag_summary: 0,
                store_time: Timestamp(index),
            };
            assert!(tree.takes(&entry));
            tree.append(KEY, entry, shape, &mut sealed);
            assert!(tree.is_sound());
        }
        (tree, sealed)
    }

    #[test]
    fn full_chunks_move_up_and_leave_the_edge_in_memory() {
        let (tree, sealed) = grown(4 * 3 * 3 + 4 + 1);
        assert_eq!(tree.entries.len(), 1);
        let lengths: Vec<_> = tree.levels.iter().map(Vec::len).collect();
        assert_eq!(lengths, [1, 0, 1]);
        assert_eq!(sealed.waiting_count(), 9 + 3 + 1 + 1);
        assert_eq!(tree.end, QueueOffset(82));
    }

    #[test]
    fn a_search_goes_to_the_oldest_place_that_qualifies() {
        let (tree, _) = grown(41);
        let at = |offset| tree.seek(&Seek { offset: QueueOffset(offset), ..Seek::default() });
        assert!(matches!(at(0), SearchPosition::Block { level: 2, .. }));
        assert!(matches!(at(71), SearchPosition::Block { level: 2, .. }));
        assert!(matches!(at(72), SearchPosition::Block { level: 0, .. }));
        assert!(matches!(at(79), SearchPosition::Block { level: 0, .. }));
        assert!(matches!(at(80), SearchPosition::Tail(0)));
        assert!(matches!(at(82), SearchPosition::End));
    }

    #[test]
    fn the_first_offset_rises_to_the_end_and_the_end_stays() {
        let (mut tree, _) = grown(41);
        tree.advance_first(QueueOffset(73));
        assert_eq!(tree.references().count(), 1);
        tree.advance_first(QueueOffset(3));
        assert_eq!(tree.first, QueueOffset(73));
        tree.advance_first(QueueOffset(1000));
        assert_eq!((tree.first, tree.end), (QueueOffset(82), QueueOffset(82)));
        assert!(tree.is_sound());
        assert_eq!(tree.memory_bytes(), 0);
    }
}
