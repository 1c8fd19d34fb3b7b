//! Blocks that were read lately, so that a reader who catches up reads a block once per hundred batches.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::block::Block;
use super::entry::BlockAddress;

/// A bounded set of blocks. A full one gives up a block that was not used since the hand last passed it ("clock").
/// Nothing needs to be invalidated: while an index is open no address is given out twice.
pub struct BlockCache {
    blocks_max: usize,
    slots: Vec<Slot>,
    by_address: BTreeMap<BlockAddress, usize>,
    hand: usize,
}

struct Slot {
    address: BlockAddress,
    block: Rc<Block>,
    used: bool,
}

impl BlockCache {
    pub fn new(blocks_max: usize) -> Self {
        Self { blocks_max, slots: Vec::new(), by_address: BTreeMap::new(), hand: 0 }
    }

    pub fn find(&mut self, address: BlockAddress) -> Option<Rc<Block>> {
        let slot = &mut self.slots[*self.by_address.get(&address)?];
        slot.used = true;
        Some(slot.block.clone())
    }

    pub fn insert(&mut self, address: BlockAddress, block: Rc<Block>) {
        // Two lookups may have read the same block at the same time.
        if self.blocks_max == 0 || self.by_address.contains_key(&address) {
            return;
        }
        // New blocks start unused: one pass over a long backlog then does not push out what is read again and again.
        let slot = Slot { address, block, used: false };
        let index = if self.slots.len() < self.blocks_max {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let index = self.give_up();
            self.by_address.remove(&self.slots[index].address);
            self.slots[index] = slot;
            index
        };
        self.by_address.insert(address, index);
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The next slot that was not used since the last round. Ends after one round, which clears every mark.
    fn give_up(&mut self) -> usize {
        loop {
            let index = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if !std::mem::take(&mut self.slots[index].used) {
                return index;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::block::BlockIdentity;
    use crate::index::entry::IndexEntry;
    use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};

    fn block(number: u32) -> (BlockAddress, Rc<Block>) {
        let address = BlockAddress { segment: 0, block: number };
        let entry = IndexEntry {
            base_offset: QueueOffset::ZERO,
            record_count: 1,
            position: LogPosition::ZERO,
            batch_bytes: 100,
            tag_summary: 0,
            store_time: Timestamp(0),
        };
        let key = QueueKey { topic: TopicId(1), queue: QueueNumber(0) };
        let identity = BlockIdentity { key, level: 0, address, epoch: 1, first_offset: QueueOffset::ZERO };
        (address, Rc::new(Block::of_entries(&identity, &[entry], None)))
    }

    #[test]
    fn a_used_block_outlives_a_scan() {
        let mut cache = BlockCache::new(4);
        let (kept, first) = block(0);
        cache.insert(kept, first);
        for number in 1..100 {
            assert!(cache.find(kept).is_some(), "before block {number}");
            let (address, block) = block(number);
            cache.insert(address, block.clone());
            cache.insert(address, block);
            assert!(cache.len() <= 4);
            assert!(cache.by_address.contains_key(&address));
        }
        assert!(cache.find(block(1).0).is_none());
    }
}
