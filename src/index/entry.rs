//! What the index holds: an entry per batch, and in the levels above a reference per block of the level below.
//!
//! ```text
//! entry, 40 bytes                       reference, 48 bytes
//!  0  u64  base_offset                   0  u64  first_offset      of the first entry below it
//!  8  u64  position                      8  u64  end_offset        after the last entry below it
//! 16  u64  store_time_ms                16  u64  last_position     of the last entry below it
//! 24  u32  record_count                 24  u64  last_store_time_ms
//! 28  u32  batch_bytes                  32  u32  segment           where the block is
//! 32  u32  tag_summary                  36  u32  block
//! 36  u32  0                            40  u32  epoch             of the run that sealed the block
//!                                       44  u32  0
//! ```

use crate::types::{LogPosition, QueueOffset, Timestamp};
use crate::wire::bytes::{get_u32, get_u64, put_u32, put_u64};

/// An entry as stored.
pub const ENTRY_BYTES: usize = 40;
/// A reference as stored.
pub const REFERENCE_BYTES: usize = 48;

const BASE_OFFSET: usize = 0;
const POSITION: usize = 8;
const STORE_TIME_MS: usize = 16;
const RECORD_COUNT: usize = 24;
const BATCH_BYTES: usize = 28;
const TAG_SUMMARY: usize = 32;
const ENTRY_ZERO: usize = 36;

const FIRST_OFFSET: usize = 0;
const END_OFFSET: usize = 8;
const LAST_POSITION: usize = 16;
const LAST_STORE_TIME_MS: usize = 24;
const SEGMENT: usize = 32;
const BLOCK: usize = 36;
const EPOCH: usize = 40;
const REFERENCE_ZERO: usize = 44;

const _: () = assert!(ENTRY_ZERO + 4 == ENTRY_BYTES);
const _: () = assert!(REFERENCE_ZERO + 4 == REFERENCE_BYTES);

/// One batch of a queue, and where the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub base_offset: QueueOffset,
    pub record_count: u32,
    pub position: LogPosition,
    pub batch_bytes: u32,
    /// One bit per tag hash among the records, see `wire::batch`.
    pub tag_summary: u32,
    pub store_time: Timestamp,
}

/// Where a block is: the number of its segment file, and its place there in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockAddress {
    pub segment: u32,
    pub block: u32,
}

/// What the level above knows of a block. It describes the *end* of what lies below, because every search asks for the
/// first entry at or after something: the first block whose last entry qualifies holds it, gaps or not, so a search
/// reads one block per level and never one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockReference {
    pub first_offset: QueueOffset,
    pub end_offset: QueueOffset,
    pub last_position: LogPosition,
    pub last_store_time: Timestamp,
    pub address: BlockAddress,
    pub epoch: u32,
}

/// A search: the first entry that ends after `offset`, was stored at `time` or later, and lies at `position` or after.
/// Entries of a queue never fall in any of the three, so those that qualify are always the last ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seek {
    pub offset: QueueOffset,
    pub time: Timestamp,
    pub position: LogPosition,
}

impl IndexEntry {
    /// First offset after this batch.
    pub fn end_offset(&self) -> QueueOffset {
        // Saturating, because an entry may come from a file: what is out of order is found by comparing.
        QueueOffset(self.base_offset.0.saturating_add(u64::from(self.record_count)))
    }

    /// Whether this entry, and with it all after it, is what `seek` looks for.
    pub(super) fn qualifies(&self, seek: &Seek) -> bool {
        self.end_offset() > seek.offset && self.store_time >= seek.time && self.position >= seek.position
    }

    /// Whether `next` may follow in the same queue: dense or after a gap, and not back in time or in the log.
    pub(super) fn precedes(&self, next: &IndexEntry) -> bool {
        self.end_offset() <= next.base_offset
            && self.position <= next.position
            && self.store_time <= next.store_time
    }

    pub(super) fn encode(&self, bytes: &mut [u8]) {
        assert_eq!(bytes.len(), ENTRY_BYTES, "an entry fills its place");
        put_u64(bytes, BASE_OFFSET, self.base_offset.0);
        put_u64(bytes, POSITION, self.position.0);
        put_u64(bytes, STORE_TIME_MS, self.store_time.0);
        put_u32(bytes, RECORD_COUNT, self.record_count);
        put_u32(bytes, BATCH_BYTES, self.batch_bytes);
        put_u32(bytes, TAG_SUMMARY, self.tag_summary);
        put_u32(bytes, ENTRY_ZERO, 0);
    }

    /// The entry at the start of `bytes`, whose checksum was checked.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        Self {
            base_offset: QueueOffset(get_u64(bytes, BASE_OFFSET)),
            record_count: get_u32(bytes, RECORD_COUNT),
            position: LogPosition(get_u64(bytes, POSITION)),
            batch_bytes: get_u32(bytes, BATCH_BYTES),
            tag_summary: get_u32(bytes, TAG_SUMMARY),
            store_time: Timestamp(get_u64(bytes, STORE_TIME_MS)),
        }
    }
}

impl BlockReference {
    /// Whether the block, and with it all after it, holds something that `seek` looks for.
    pub(super) fn qualifies(&self, seek: &Seek) -> bool {
        self.end_offset > seek.offset
            && self.last_store_time >= seek.time
            && self.last_position >= seek.position
    }

    /// Whether `next` may follow in the same queue and level.
    pub(super) fn precedes(&self, next: &BlockReference) -> bool {
        self.end_offset <= next.first_offset
            && self.last_position <= next.last_position
            && self.last_store_time <= next.last_store_time
    }

    pub(super) fn encode(&self, bytes: &mut [u8]) {
        assert_eq!(bytes.len(), REFERENCE_BYTES, "a reference fills its place");
        put_u64(bytes, FIRST_OFFSET, self.first_offset.0);
        put_u64(bytes, END_OFFSET, self.end_offset.0);
        put_u64(bytes, LAST_POSITION, self.last_position.0);
        put_u64(bytes, LAST_STORE_TIME_MS, self.last_store_time.0);
        put_u32(bytes, SEGMENT, self.address.segment);
        put_u32(bytes, BLOCK, self.address.block);
        put_u32(bytes, EPOCH, self.epoch);
        put_u32(bytes, REFERENCE_ZERO, 0);
    }

    /// The reference at the start of `bytes`, whose checksum was checked.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        Self {
            first_offset: QueueOffset(get_u64(bytes, FIRST_OFFSET)),
            end_offset: QueueOffset(get_u64(bytes, END_OFFSET)),
            last_position: LogPosition(get_u64(bytes, LAST_POSITION)),
            last_store_time: Timestamp(get_u64(bytes, LAST_STORE_TIME_MS)),
            address: BlockAddress { segment: get_u32(bytes, SEGMENT), block: get_u32(bytes, BLOCK) },
            epoch: get_u32(bytes, EPOCH),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_references_come_back_as_they_went_in() {
        let entry = IndexEntry {
            base_offset: QueueOffset(u64::MAX - 9),
            record_count: 9,
            position: LogPosition(1 << 40),
            batch_bytes: 4096,
            tag_summary: 0x8000_0001,
            store_time: Timestamp(1_700_000_000_000),
        };
        let mut bytes = [0; ENTRY_BYTES];
        entry.encode(&mut bytes);
        assert_eq!(IndexEntry::decode(&bytes), entry);

        let reference = BlockReference {
            first_offset: QueueOffset(1),
            end_offset: QueueOffset(2),
            last_position: LogPosition(3),
            last_store_time: Timestamp(4),
            address: BlockAddress { segment: 5, block: 6 },
            epoch: 7,
        };
        let mut bytes = [0; REFERENCE_BYTES];
        reference.encode(&mut bytes);
        assert_eq!(BlockReference::decode(&bytes), reference);
    }
}
