//! Sealed chunks on their way to disk: which address each gets, and the blocks that are not written yet.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::block::{BLOCK_ENTRIES_MAX, BLOCK_REFERENCES_MAX, Block, BlockIdentity};
use super::entry::{BlockAddress, BlockReference, IndexEntry};
use crate::types::{LogPosition, QueueKey};

/// Written blocks whose memory is kept for the next ones: a steady state allocates nothing.
const SPARE_BLOCKS_MAX: usize = 32;

/// How full a chunk gets before it is sealed. Blocks say how many items they hold, so this is no part of the format;
/// tests make it small to get deep trees from few entries.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub entries_max: usize,
    pub references_max: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { entries_max: BLOCK_ENTRIES_MAX, references_max: BLOCK_REFERENCES_MAX }
    }
}

/// What is known of an index segment without looking into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentExtent {
    /// Size of the file in blocks.
    pub block_count: u32,
    /// No entry in or below any of its blocks lies after this position of the log: when the log starts after it, the
    /// segment is garbage.
    pub last_position: LogPosition,
}

/// The spill queue, and the only place that gives out block addresses.
///
/// 1. Addresses rise: within a segment by one, then to the next segment.
/// 2. Waiting blocks are in address order, and every address below the first waiting one is written.
/// 3. Every address given out lies in a segment that `extents` lists, until the segment is removed.
pub struct SealedBlocks {
    epoch: u32,
    /// Blocks in each segment from the next one on.
    segment_blocks: u32,
    /// The address of the block sealed next. Its `block` may equal the size of its segment: then the segment is full.
    next: BlockAddress,
    extents: BTreeMap<u32, SegmentExtent>,
    waiting: VecDeque<Rc<Block>>,
    spare: Vec<Block>,
}

impl SealedBlocks {
    /// An index without a block.
    pub fn new(epoch: u32, segment_blocks: u32) -> Self {
        Self::restore(epoch, segment_blocks, BlockAddress { segment: 0, block: 0 }, BTreeMap::new(), vec![])
    }

    /// What a snapshot has kept. The waiting blocks are in address order and below `next`.
    pub fn restore(
        epoch: u32,
        segment_blocks: u32,
        next: BlockAddress,
        extents: BTreeMap<u32, SegmentExtent>,
        waiting: Vec<Block>,
    ) -> Self {
        assert!(segment_blocks > 0, "a segment holds at least one block");
        let waiting = waiting.into_iter().map(Rc::new).collect();
        Self { epoch, segment_blocks, next, extents, waiting, spare: Vec::new() }
    }

    /// Seals a chunk of entries.
    pub fn seal_entries(&mut self, key: QueueKey, entries: &[IndexEntry]) -> BlockReference {
        let (first, last) = (entries[0], entries[entries.len() - 1]);
        let reference = BlockReference {
            first_offset: first.base_offset,
            end_offset: last.end_offset(),
            last_position: last.position,
            last_store_time: last.store_time,
            address: self.allocate(last.position),
            epoch: self.epoch,
        };
        let spare = self.spare.pop();
        self.waiting.push_back(Rc::new(Block::of_entries(&identity(key, 0, &reference), entries, spare)));
        reference
    }

    /// Seals a chunk of references, which becomes a block of `level`.
    pub fn seal_references(
        &mut self,
        key: QueueKey,
        level: u8,
        references: &[BlockReference],
    ) -> BlockReference {
        let (first, last) = (references[0], references[references.len() - 1]);
        let reference = BlockReference {
            first_offset: first.first_offset,
            address: self.allocate(last.last_position),
            epoch: self.epoch,
            ..last
        };
        let spare = self.spare.pop();
        let block = Block::of_references(&identity(key, level, &reference), references, spare);
        self.waiting.push_back(Rc::new(block));
        reference
    }

    /// The block at `address`, when it is not written yet.
    pub fn find(&self, address: BlockAddress) -> Option<Rc<Block>> {
        let first = self.waiting.front()?.identity().address;
        if address < first {
            return None;
        }
        let index = self.waiting.binary_search_by_key(&address, |block| block.identity().address).ok()?;
        Some(self.waiting[index].clone())
    }

    /// The first waiting blocks that stand side by side in one segment, at most `count_max`; empty when none waits.
    pub fn front_run(&self, count_max: usize) -> Vec<Rc<Block>> {
        let mut run: Vec<Rc<Block>> = Vec::new();
        for block in self.waiting.iter().take(count_max) {
            let address = block.identity().address;
            if let Some(first) = run.first().map(|first| first.identity().address)
                && (address.segment != first.segment || address.block != first.block + run.len() as u32)
            {
                break;
            }
            run.push(block.clone());
        }
        run
    }

    /// Drops the first `count` waiting blocks, which were written. What no lookup holds is used again.
    pub fn written(&mut self, count: usize) {
        for block in self.waiting.drain(..count) {
            if self.spare.len() < SPARE_BLOCKS_MAX
                && let Ok(block) = Rc::try_unwrap(block)
            {
                self.spare.push(block);
            }
        }
    }

    /// Forgets the segments that hold nothing at or after `position`, and returns their numbers. The current segment
    /// stays, and one that has blocks waiting.
    pub fn remove_below(&mut self, position: LogPosition) -> Vec<u32> {
        let first_waiting = self.waiting.front().map(|block| block.identity().address.segment);
        let kept_from = first_waiting.unwrap_or(self.next.segment).min(self.next.segment);
        let removed: Vec<u32> = self
            .extents
            .range(..kept_from)
            .filter(|(_, extent)| extent.last_position < position)
            .map(|(&number, _)| number)
            .collect();
        for number in &removed {
            self.extents.remove(number);
        }
        removed
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    pub fn next(&self) -> BlockAddress {
        self.next
    }

    pub fn extents(&self) -> &BTreeMap<u32, SegmentExtent> {
        &self.extents
    }

    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &Rc<Block>> {
        self.waiting.iter()
    }

    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    pub fn spare_count(&self) -> usize {
        self.spare.len()
    }

    /// The next address, for a block that reaches up to `last_position`.
    fn allocate(&mut self, last_position: LogPosition) -> BlockAddress {
        let current = self.extents.get(&self.next.segment);
        if current.is_some_and(|extent| self.next.block >= extent.block_count) {
            self.next = BlockAddress { segment: self.next.segment + 1, block: 0 };
        }
        let address = self.next;
        let extent = self
            .extents
            .entry(address.segment)
            .or_insert(SegmentExtent { block_count: self.segment_blocks, last_position });
        extent.last_position = extent.last_position.max(last_position);
        self.next.block += 1;
        address
    }
}

/// What the block that `reference` leads to must say of itself.
pub fn identity(key: QueueKey, level: u8, reference: &BlockReference) -> BlockIdentity {
    BlockIdentity {
        key,
        level,
        address: reference.address,
        epoch: reference.epoch,
        first_offset: reference.first_offset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueNumber, QueueOffset, Timestamp, TopicId};

    fn entry(position: u64) -> IndexEntry {
        IndexEntry {
            base_offset: QueueOffset(position),
            record_count: 1,
            position: LogPosition(position),
            batch_bytes: 100,
            tag_summary: 0,
            store_time: Timestamp(0),
        }
    }

    #[test]
    fn addresses_rise_and_runs_stop_at_a_segment_end() {
        let key = QueueKey { topic: TopicId(1), queue: QueueNumber(0) };
        let mut sealed = SealedBlocks::new(1, 3);
        let references: Vec<_> =
            (0..7).map(|position| sealed.seal_entries(key, &[entry(position)])).collect();
        let addresses: Vec<_> = references.iter().map(|r| (r.address.segment, r.address.block)).collect();
        assert_eq!(addresses, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]);
        assert_eq!(sealed.front_run(2).len(), 2);
        assert_eq!(sealed.front_run(32).len(), 3);
        assert!(sealed.remove_below(LogPosition(100)).is_empty(), "nothing is written yet");

        sealed.written(2);
        assert_eq!(sealed.front_run(32).len(), 1);
        assert!(sealed.find(references[1].address).is_none());
        assert!(sealed.find(references[2].address).is_some());
        sealed.written(5);
        assert_eq!(sealed.remove_below(LogPosition(5)), [0]);
        assert_eq!(sealed.remove_below(LogPosition(100)), [1], "the current segment stays");
    }
}
