//! A sealed chunk as it stands in an index segment: one block of 4 KiB, written once, in full.
//!
//! ```text
//!  0  u32  magic           0x5849_5054, "TPIX"
//!  4  u8   version         1
//!  5  u8   level           0: entries; n: references to blocks of level n - 1
//!  6  u16  count           of entries or references, at least 1
//!  8  u32  checksum        crc32c of bytes 0..8 and 12..4096
//! 12  u32  epoch           of the run that sealed it
//! 16  u32  topic_id
//! 20  u32  queue
//! 24  u32  segment         its own address
//! 28  u32  block
//! 32  u64  first_offset    of the first entry in or below it
//! 40  zero up to 64
//! 64  entries of 40 bytes (at most 100) or references of 48 bytes (at most 84), see `entry`; zero after them
//! ```
//!
//! A block is read only through a reference, and is believed only when it names the reference's own epoch, queue, level,
//! address and first offset. Within one epoch an address is given out once, so neither a block that an earlier run left
//! after, nor one that a device put in the wrong place, can pass.

use super::entry::{BlockAddress, BlockReference, ENTRY_BYTES, IndexEntry, REFERENCE_BYTES, Seek};
use crate::limits::BLOCK_BYTES;
use crate::types::{QueueKey, QueueNumber, QueueOffset, TopicId};
use crate::wire::bytes::{get_u16, get_u32, get_u64, put_u16, put_u32, put_u64};

/// Bytes before the first entry.
pub const BLOCK_HEADER_BYTES: usize = 64;
/// Entries in a full block of level 0.
pub const BLOCK_ENTRIES_MAX: usize = (BLOCK_BYTES - BLOCK_HEADER_BYTES) / ENTRY_BYTES;
/// References in a full block of the levels above.
pub const BLOCK_REFERENCES_MAX: usize = (BLOCK_BYTES - BLOCK_HEADER_BYTES) / REFERENCE_BYTES;
/// Version that this program writes, and the only one that it reads.
pub const BLOCK_VERSION: u8 = 1;

const MAGIC_VALUE: u32 = 0x5849_5054;

const MAGIC: usize = 0;
const VERSION: usize = 4;
const LEVEL: usize = 5;
const COUNT: usize = 6;
const CHECKSUM: usize = 8;
const EPOCH: usize = 12;
const TOPIC_ID: usize = 16;
const QUEUE: usize = 20;
const SEGMENT: usize = 24;
const BLOCK: usize = 28;
const FIRST_OFFSET: usize = 32;

const _: () = assert!(BLOCK_ENTRIES_MAX == 100 && BLOCK_REFERENCES_MAX == 84);

/// A sealed chunk. Immutable once made; `Rc` shares it between the spill queue, the cache and running lookups.
pub struct Block {
    bytes: Box<[u8]>,
}

/// Which block it is. What a block says of itself must equal what the reference that led to it expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockIdentity {
    pub key: QueueKey,
    pub level: u8,
    pub address: BlockAddress,
    pub epoch: u32,
    pub first_offset: QueueOffset,
}

/// Why bytes are not the block that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    #[error("its file is missing or ends before it")]
    Missing,
    #[error("no index block starts here")]
    Magic,
    #[error("the checksum does not match")]
    Checksum,
    #[error("index block version {0} is not known to this release, which reads version {BLOCK_VERSION}")]
    Version(u8),
    #[error("it is another block: stale, or written to the wrong place")]
    Identity,
    #[error("it holds {0} items, which no index block does")]
    Count(u16),
    #[error("its items are out of order, or not what the level above says of them")]
    Order,
}

impl Block {
    /// A block of level 0.
    pub fn of_entries(identity: &BlockIdentity, entries: &[IndexEntry], spare: Option<Block>) -> Self {
        assert_eq!(identity.level, 0, "entries stand on level 0");
        assert!((1..=BLOCK_ENTRIES_MAX).contains(&entries.len()), "{} entries in a block", entries.len());
        let mut block = Self::blank(spare);
        let (slots, _) = block.bytes[BLOCK_HEADER_BYTES..].as_chunks_mut::<ENTRY_BYTES>();
        for (slot, entry) in slots.iter_mut().zip(entries) {
            entry.encode(slot);
        }
        block.seal(identity, entries.len())
    }

    /// A block of a level above 0.
    pub fn of_references(
        identity: &BlockIdentity,
        references: &[BlockReference],
        spare: Option<Block>,
    ) -> Self {
        assert!(identity.level > 0, "references stand above level 0");
        assert!(
            (1..=BLOCK_REFERENCES_MAX).contains(&references.len()),
            "{} references in a block",
            references.len()
        );
        let mut block = Self::blank(spare);
        let (slots, _) = block.bytes[BLOCK_HEADER_BYTES..].as_chunks_mut::<REFERENCE_BYTES>();
        for (slot, reference) in slots.iter_mut().zip(references) {
            reference.encode(slot);
        }
        block.seal(identity, references.len())
    }

    /// Takes bytes from a file for a block, when they are one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BlockError> {
        if bytes.len() != BLOCK_BYTES {
            return Err(BlockError::Missing);
        }
        if get_u32(bytes, MAGIC) != MAGIC_VALUE {
            return Err(BlockError::Magic);
        }
        // Before anything else is believed: an unknown version with a right checksum is a newer release's, with a
        // wrong one it is damage.
        if get_u32(bytes, CHECKSUM) != checksum(bytes) {
            return Err(BlockError::Checksum);
        }
        if bytes[VERSION] != BLOCK_VERSION {
            return Err(BlockError::Version(bytes[VERSION]));
        }
        let count = get_u16(bytes, COUNT);
        let count_max = if bytes[LEVEL] == 0 { BLOCK_ENTRIES_MAX } else { BLOCK_REFERENCES_MAX };
        if !(1..=count_max).contains(&usize::from(count)) {
            return Err(BlockError::Count(count));
        }
        Ok(Self { bytes: bytes.into() })
    }

    /// Takes bytes from a file for the block that `expected` describes, when they are it.
    pub fn check(bytes: &[u8], expected: &BlockIdentity) -> Result<Self, BlockError> {
        let block = Self::from_bytes(bytes)?;
        if block.identity() != *expected {
            return Err(BlockError::Identity);
        }
        Ok(block)
    }

    pub fn identity(&self) -> BlockIdentity {
        let bytes = &self.bytes;
        BlockIdentity {
            key: QueueKey {
                topic: TopicId(get_u32(bytes, TOPIC_ID)),
                queue: QueueNumber(get_u32(bytes, QUEUE)),
            },
            level: self.level(),
            address: BlockAddress { segment: get_u32(bytes, SEGMENT), block: get_u32(bytes, BLOCK) },
            epoch: get_u32(bytes, EPOCH),
            first_offset: QueueOffset(get_u64(bytes, FIRST_OFFSET)),
        }
    }

    pub fn level(&self) -> u8 {
        self.bytes[LEVEL]
    }

    pub fn count(&self) -> usize {
        usize::from(get_u16(&self.bytes, COUNT))
    }

    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The entry at `index`, in a block of level 0.
    pub fn entry(&self, index: usize) -> IndexEntry {
        assert!(self.level() == 0 && index < self.count(), "entry {index} of {}", self.count());
        IndexEntry::decode(&self.bytes[BLOCK_HEADER_BYTES + index * ENTRY_BYTES..])
    }

    /// The reference at `index`, in a block of a level above 0.
    pub fn reference(&self, index: usize) -> BlockReference {
        assert!(self.level() > 0 && index < self.count(), "reference {index} of {}", self.count());
        BlockReference::decode(&self.bytes[BLOCK_HEADER_BYTES + index * REFERENCE_BYTES..])
    }

    /// The index of the first entry that qualifies, `count` when none does.
    pub fn seek_entry(&self, seek: &Seek) -> usize {
        partition_point(self.count(), |index| !self.entry(index).qualifies(seek))
    }

    /// The first reference that qualifies.
    pub fn seek_reference(&self, seek: &Seek) -> Option<BlockReference> {
        let index = partition_point(self.count(), |index| !self.reference(index).qualifies(seek));
        (index < self.count()).then(|| self.reference(index))
    }

    /// Whether the items are in order and agree with the reference that leads here. A right checksum implies it, unless
    /// the program that wrote the block was wrong: for `verify`.
    pub fn agrees(&self, parent: &BlockReference) -> bool {
        let last = self.count() - 1;
        if self.level() == 0 {
            let (first, end) = (self.entry(0), self.entry(last));
            first.base_offset == parent.first_offset
                && end.end_offset() == parent.end_offset
                && end.position == parent.last_position
                && end.store_time == parent.last_store_time
                && (0..last).all(|index| self.entry(index).precedes(&self.entry(index + 1)))
        } else {
            let (first, end) = (self.reference(0), self.reference(last));
            first.first_offset == parent.first_offset
                && end.end_offset == parent.end_offset
                && end.last_position == parent.last_position
                && end.last_store_time == parent.last_store_time
                && (0..last).all(|index| self.reference(index).precedes(&self.reference(index + 1)))
        }
    }

    /// Zeroed memory: that of a block no longer needed, or new.
    fn blank(spare: Option<Block>) -> Self {
        match spare {
            Some(mut block) => {
                block.bytes.fill(0);
                block
            }
            None => Self { bytes: vec![0; BLOCK_BYTES].into_boxed_slice() },
        }
    }

    fn seal(mut self, identity: &BlockIdentity, count: usize) -> Self {
        let bytes = &mut self.bytes;
        put_u32(bytes, MAGIC, MAGIC_VALUE);
        bytes[VERSION] = BLOCK_VERSION;
        bytes[LEVEL] = identity.level;
        put_u16(bytes, COUNT, count as u16);
        put_u32(bytes, EPOCH, identity.epoch);
        put_u32(bytes, TOPIC_ID, identity.key.topic.0);
        put_u32(bytes, QUEUE, identity.key.queue.0);
        put_u32(bytes, SEGMENT, identity.address.segment);
        put_u32(bytes, BLOCK, identity.address.block);
        put_u64(bytes, FIRST_OFFSET, identity.first_offset.0);
        let checksum = checksum(bytes);
        put_u32(bytes, CHECKSUM, checksum);
        self
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CHECKSUM]), &bytes[EPOCH..BLOCK_BYTES])
}

/// The first index below `count` for which `before` is false; `before` is true up to some index and false from there.
fn partition_point(count: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LogPosition, Timestamp};

    fn identity(level: u8) -> BlockIdentity {
        BlockIdentity {
            key: QueueKey { topic: TopicId(7), queue: QueueNumber(3) },
            level,
            address: BlockAddress { segment: 2, block: 9 },
            epoch: 5,
            first_offset: QueueOffset(1000),
        }
    }

    fn entry(index: u64) -> IndexEntry {
        IndexEntry {
            base_offset: QueueOffset(1000 + index * 10),
            record_count: 10,
            position: LogPosition(index * 512),
            batch_bytes: 500,
            tag_summary: 0,
            store_time: Timestamp(100 + index / 3),
        }
    }

    fn full() -> Block {
        let entries: Vec<_> = (0..BLOCK_ENTRIES_MAX as u64).map(entry).collect();
        Block::of_entries(&identity(0), &entries, None)
    }

    #[test]
    fn a_block_finds_its_entries() {
        let block = Block::check(full().as_bytes(), &identity(0)).expect("just written");
        assert_eq!(block.count(), BLOCK_ENTRIES_MAX);
        for (offset, index) in [(0, 0), (1000, 0), (1009, 0), (1010, 1), (1999, 99), (2000, 100)] {
            let seek = Seek { offset: QueueOffset(offset), ..Seek::default() };
            assert_eq!(block.seek_entry(&seek), index, "offset {offset}");
        }
        let seek = Seek { time: Timestamp(101), ..Seek::default() };
        assert_eq!(block.seek_entry(&seek), 3);
        let seek = Seek { position: LogPosition(513), ..Seek::default() };
        assert_eq!(block.seek_entry(&seek), 2);
        assert_eq!(block.entry(99), entry(99));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_detected() {
        let block = full();
        let bytes = block.as_bytes();
        for end in 0..bytes.len() {
            assert!(Block::check(&bytes[..end], &identity(0)).is_err(), "cut at {end}");
        }
        let mut flipped = bytes.to_vec();
        for bit in 0..bytes.len() * 8 {
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Block::check(&flipped, &identity(0)).is_err(), "bit {bit}");
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_block_of_another_identity_is_refused() {
        let block = full();
        let right = identity(0);
        let wrong = [
            BlockIdentity { epoch: 4, ..right },
            BlockIdentity { level: 1, ..right },
            BlockIdentity { address: BlockAddress { segment: 2, block: 8 }, ..right },
            BlockIdentity { address: BlockAddress { segment: 1, block: 9 }, ..right },
            BlockIdentity { first_offset: QueueOffset(0), ..right },
            BlockIdentity { key: QueueKey { topic: TopicId(8), ..right.key }, ..right },
            BlockIdentity { key: QueueKey { queue: QueueNumber(4), ..right.key }, ..right },
        ];
        for expected in wrong {
            let refused = Block::check(block.as_bytes(), &expected).err();
            assert_eq!(refused, Some(BlockError::Identity), "{expected:?}");
        }
    }

    #[test]
    fn the_layout_is_as_documented() {
        let block = Block::of_entries(&identity(0), &[entry(1)], None);
        let mut expected = [0; BLOCK_BYTES];
        expected[..8].copy_from_slice(b"TPIX\x01\x00\x01\x00");
        let fields = [(12, 5), (16, 7), (20, 3), (24, 2), (28, 9), (32, 1000)];
        let entry = [(64, 1010), (72, 512), (80, 100), (88, 10), (92, 500)];
        for (at, value) in fields.into_iter().chain(entry) {
            put_u32(&mut expected, at, value);
        }
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&expected[..8]), &expected[12..]);
        put_u32(&mut expected, 8, checksum);
        assert!(block.as_bytes() == expected);
    }

    #[test]
    fn a_spare_block_leaves_no_trace() {
        let reused = Block::of_entries(&identity(0), &[entry(0)], Some(full()));
        let fresh = Block::of_entries(&identity(0), &[entry(0)], None);
        assert!(reused.as_bytes() == fresh.as_bytes());
    }
}
