//! The state of the index as bytes.
//!
//! ```text
//!  0  u32  magic          0x5349_5054, "TPIS"
//!  4  u32  version        1
//!  8  u64  bytes          of the whole snapshot
//! 16  u32  epoch          of the run that made it
//! 20  u32  next_segment   the address that the next sealed block gets
//! 24  u32  next_block
//! 28  u32  segment_count
//! 32  u32  queue_count
//! 36  u32  block_count
//! 40  segments, by number, 16 bytes each:
//!      0  u32  number
//!      4  u32  size in blocks
//!      8  u64  last_position: nothing in it refers to the log after this
//! ..  queues, each once, in no order:
//!      0  u32  topic_id
//!      4  u32  queue
//!      8  u64  first_offset
//!     16  u64  end_offset
//!     24  u64  first_position
//!     32  u64  last_position
//!     40  u64  last_store_time_ms
//!     48  u32  entry_count
//!     52  u32  level_count
//!     56  entries, then for each level from the lowest: u32 count, references (see `entry`)
//! ..  blocks that were sealed and not yet written, by address (see `block`)
//! ..  u32  checksum       crc32c of bytes 40 up to here, then of bytes 0..40
//! ```
//!
//! Bytes that are not a whole snapshot are an error, never a panic, whatever they are.

use std::collections::BTreeMap;

use super::block::{BLOCK_ENTRIES_MAX, BLOCK_REFERENCES_MAX, Block, BlockError};
use super::consume::IndexOptions;
use super::entry::{BlockAddress, BlockReference, ENTRY_BYTES, IndexEntry, REFERENCE_BYTES};
use super::error::SnapshotError;
use super::sealed::{SealedBlocks, SegmentExtent};
use super::state::State;
use super::tree::{LEVELS_MAX, Tree};
use crate::limits::BLOCK_BYTES;
use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};
use crate::wire::bytes::{get_u32, get_u64, put_u32, put_u64};

/// Version that this program writes, and the only one that it reads.
pub const SNAPSHOT_VERSION: u32 = 1;

const MAGIC_VALUE: u32 = 0x5349_5054;
const HEADER_BYTES: usize = 40;
const CHECKSUM_BYTES: usize = 4;

const MAGIC: usize = 0;
const VERSION: usize = 4;
const BYTES: usize = 8;
const EPOCH: usize = 16;
const NEXT_SEGMENT: usize = 20;
const NEXT_BLOCK: usize = 24;
const SEGMENT_COUNT: usize = 28;
const QUEUE_COUNT: usize = 32;
const BLOCK_COUNT: usize = 36;

const _: () = assert!(BLOCK_COUNT + 4 == HEADER_BYTES);

/// A snapshot that grows, section by section in the order of the format.
pub struct SnapshotWriter {
    bytes: Vec<u8>,
    queue_count: u32,
    block_count: u32,
    /// Of the bytes after the header, up to `checked`.
    checksum: u32,
    checked: usize,
}

impl SnapshotWriter {
    /// Begins with the sealed blocks' addresses and segments. `bytes_expected` is no limit.
    pub fn new(sealed: &SealedBlocks, bytes_expected: usize) -> Self {
        let mut bytes = Vec::with_capacity(bytes_expected);
        bytes.resize(HEADER_BYTES, 0);
        put_u32(&mut bytes, MAGIC, MAGIC_VALUE);
        put_u32(&mut bytes, VERSION, SNAPSHOT_VERSION);
        put_u32(&mut bytes, EPOCH, sealed.epoch());
        put_u32(&mut bytes, NEXT_SEGMENT, sealed.next().segment);
        put_u32(&mut bytes, NEXT_BLOCK, sealed.next().block);
        put_u32(&mut bytes, SEGMENT_COUNT, sealed.extents().len() as u32);
        for (&number, extent) in sealed.extents() {
            push_short(&mut bytes, &[number, extent.block_count]);
            push_long(&mut bytes, &[extent.last_position.0]);
        }
        Self { bytes, queue_count: 0, block_count: 0, checksum: 0, checked: HEADER_BYTES }
    }

    pub fn queue(&mut self, key: QueueKey, tree: &Tree) {
        assert_eq!(self.block_count, 0, "queues come before blocks");
        self.queue_count += 1;
        let bytes = &mut self.bytes;
        push_short(bytes, &[key.topic.0, key.queue.0]);
        push_long(bytes, &[tree.first.0, tree.end.0]);
        push_long(bytes, &[tree.first_position.0, tree.last_position.0, tree.last_store_time.0]);
        push_short(bytes, &[tree.entries.len() as u32, tree.levels.len() as u32]);
        let slots = grown(bytes, tree.entries.len() * ENTRY_BYTES);
        for (slot, entry) in slots.chunks_exact_mut(ENTRY_BYTES).zip(&tree.entries) {
            entry.encode(slot);
        }
        for references in &tree.levels {
            push_short(bytes, &[references.len() as u32]);
            let slots = grown(bytes, references.len() * REFERENCE_BYTES);
            for (slot, reference) in slots.chunks_exact_mut(REFERENCE_BYTES).zip(references) {
                reference.encode(slot);
            }
        }
    }

    /// Waiting blocks, in address order, after all queues.
    pub fn block(&mut self, block: &Block) {
        self.block_count += 1;
        self.bytes.extend_from_slice(block.as_bytes());
    }

    /// Takes what is there so far into the checksum, so that the end does not have to walk over all of it.
    pub fn checkpoint(&mut self) {
        self.checksum = crc32c::crc32c_append(self.checksum, &self.bytes[self.checked..]);
        self.checked = self.bytes.len();
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.checkpoint();
        let total = self.bytes.len() + CHECKSUM_BYTES;
        put_u64(&mut self.bytes, BYTES, total as u64);
        put_u32(&mut self.bytes, QUEUE_COUNT, self.queue_count);
        put_u32(&mut self.bytes, BLOCK_COUNT, self.block_count);
        let checksum = crc32c::crc32c_append(self.checksum, &self.bytes[..HEADER_BYTES]);
        push_short(&mut self.bytes, &[checksum]);
        self.bytes
    }
}

/// The state that `bytes` are the snapshot of, to go on under `options`.
pub fn decode(bytes: &[u8], options: &IndexOptions) -> Result<State, SnapshotError> {
    if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES {
        return Err(SnapshotError::Length);
    }
    if get_u32(bytes, MAGIC) != MAGIC_VALUE {
        return Err(SnapshotError::Magic);
    }
    if get_u64(bytes, BYTES) != bytes.len() as u64 {
        return Err(SnapshotError::Length);
    }
    let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    let (header, body) = content.split_at(HEADER_BYTES);
    if get_u32(checksum, 0) != crc32c::crc32c_append(crc32c::crc32c(body), header) {
        return Err(SnapshotError::Checksum);
    }
    let version = get_u32(bytes, VERSION);
    if version != SNAPSHOT_VERSION {
        return Err(SnapshotError::Version(version));
    }
    let epoch = get_u32(header, EPOCH);
    if epoch >= options.epoch {
        return Err(SnapshotError::Epoch { snapshot: epoch, current: options.epoch });
    }
    let next = BlockAddress { segment: get_u32(header, NEXT_SEGMENT), block: get_u32(header, NEXT_BLOCK) };
    let mut reader = Reader { rest: body };
    let extents = decode_extents(&mut reader, get_u32(header, SEGMENT_COUNT), next)?;
    let mut trees = BTreeMap::new();
    for _ in 0..get_u32(header, QUEUE_COUNT) {
        let (key, tree) = decode_tree(&mut reader)?;
        if !tree.is_sound() || trees.insert(key, tree).is_some() {
            return Err(SnapshotError::Queue(key));
        }
    }
    let waiting = decode_waiting(&mut reader, get_u32(header, BLOCK_COUNT), next, &extents)?;
    if !reader.rest.is_empty() {
        return Err(SnapshotError::Length);
    }
    let sealed = SealedBlocks::restore(options.epoch, options.segment_blocks(), next, extents, waiting);
    Ok(State::new(trees, sealed))
}

/// Whether `bytes` are a snapshot that can be used.
pub fn check_snapshot(bytes: &[u8]) -> Result<(), SnapshotError> {
    decode(bytes, &IndexOptions::new(u32::MAX)).map(drop)
}

fn decode_extents(
    reader: &mut Reader<'_>,
    count: u32,
    next: BlockAddress,
) -> Result<BTreeMap<u32, SegmentExtent>, SnapshotError> {
    let mut extents = BTreeMap::new();
    for _ in 0..count {
        let number = reader.short()?;
        let extent =
            SegmentExtent { block_count: reader.short()?, last_position: LogPosition(reader.long()?) };
        let rises = extents.last_key_value().is_none_or(|(&last, _)| last < number);
        if !rises || number > next.segment || extent.block_count == 0 {
            return Err(SnapshotError::Segments);
        }
        extents.insert(number, extent);
    }
    // The next block stands in or right after a listed segment, or begins one when none is listed.
    let fits = match extents.get(&next.segment) {
        Some(extent) => next.block <= extent.block_count && next.segment < u32::MAX,
        None => extents.is_empty() && next.block == 0 && next.segment < u32::MAX,
    };
    if fits { Ok(extents) } else { Err(SnapshotError::Segments) }
}

fn decode_tree(reader: &mut Reader<'_>) -> Result<(QueueKey, Tree), SnapshotError> {
    let key = QueueKey { topic: TopicId(reader.short()?), queue: QueueNumber(reader.short()?) };
    let mut tree = Tree {
        first: QueueOffset(reader.long()?),
        end: QueueOffset(reader.long()?),
        first_position: LogPosition(reader.long()?),
        last_position: LogPosition(reader.long()?),
        last_store_time: Timestamp(reader.long()?),
        ..Tree::default()
    };
    let (entry_count, level_count) = (reader.short()? as usize, reader.short()? as usize);
    if entry_count >= BLOCK_ENTRIES_MAX || level_count > LEVELS_MAX {
        return Err(SnapshotError::Queue(key));
    }
    let entries = reader.take(entry_count * ENTRY_BYTES)?;
    tree.entries = entries.chunks_exact(ENTRY_BYTES).map(IndexEntry::decode).collect();
    for _ in 0..level_count {
        let count = reader.short()? as usize;
        if count >= BLOCK_REFERENCES_MAX {
            return Err(SnapshotError::Queue(key));
        }
        let references = reader.take(count * REFERENCE_BYTES)?;
        tree.levels.push(references.chunks_exact(REFERENCE_BYTES).map(BlockReference::decode).collect());
    }
    Ok((key, tree))
}

fn decode_waiting(
    reader: &mut Reader<'_>,
    count: u32,
    next: BlockAddress,
    extents: &BTreeMap<u32, SegmentExtent>,
) -> Result<Vec<Block>, SnapshotError> {
    let mut waiting: Vec<Block> = Vec::new();
    for _ in 0..count {
        let block = Block::from_bytes(reader.take(BLOCK_BYTES)?)?;
        let address = block.identity().address;
        let rises = waiting.last().is_none_or(|last| last.identity().address < address);
        let listed = extents.get(&address.segment).is_some_and(|extent| address.block < extent.block_count);
        if !rises || !listed || address >= next {
            return Err(SnapshotError::Block(BlockError::Identity));
        }
        waiting.push(block);
    }
    Ok(waiting)
}

fn push_short(bytes: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
}

fn push_long(bytes: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
}

/// Room for `count` more bytes.
fn grown(bytes: &mut Vec<u8>, count: usize) -> &mut [u8] {
    let start = bytes.len();
    bytes.resize(start + count, 0);
    &mut bytes[start..]
}

/// Bytes not decoded yet.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], SnapshotError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SnapshotError::Length)?;
        self.rest = rest;
        Ok(taken)
    }

    fn short(&mut self) -> Result<u32, SnapshotError> {
        Ok(get_u32(self.take(4)?, 0))
    }

    fn long(&mut self) -> Result<u64, SnapshotError> {
        Ok(get_u64(self.take(8)?, 0))
    }
}
