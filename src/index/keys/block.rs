//! The blocks that a run is made of.
//!
//! ```text
//! every block
//!  0  u32  crc          crc32c of bytes 4..4096
//!  4  u32  number       of the block in its file
//!  8  u32  run          tells runs apart: crc32c of base, from, to and epoch, begun with the log's number
//! 12  u32  count        entries in a data block
//! data block
//! 16  entries, sorted: u64 hash, u64 location (batch position - base) / 8 << 16 | index in the batch
//! filter block: a Bloom filter of the hashes of one of `filter_blocks` equal ranges
//! 16  u64  first        number of the first entry of its range
//! 24  u64  end          number of the entry after its range
//! 32  bits
//! ```

use crate::limits::BLOCK_BYTES;
use crate::types::TopicId;
use crate::wire::bytes::{get_u32, get_u64, put_u32, put_u64};

pub const BLOCK_HEADER_BYTES: usize = 16;
pub const ENTRY_BYTES: usize = 16;
/// Entries of a full data block.
pub const BLOCK_ENTRIES: usize = (BLOCK_BYTES - BLOCK_HEADER_BYTES) / ENTRY_BYTES;
/// A filter block is made for about this many entries: 10.8 bits for each, one false hit in about 150.
pub const FILTER_ENTRIES: u64 = 3_000;

const FILTER_FIRST: usize = 16;
const FILTER_END: usize = 24;
const FILTER_BITS: usize = 32;
const BIT_COUNT: u64 = ((BLOCK_BYTES - FILTER_BITS) * 8) as u64;
const PROBES: u64 = 6;

/// A key at a location, as it is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyEntry {
    pub hash: u64,
    pub location: u64,
}

/// Hash of one key of a topic. Part of the format of runs. Keys of equal hash cost a look into the log, no more.
pub fn key_hash(topic: TopicId, key: &[u8]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15 ^ u64::from(topic.0);
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = fold(hash ^ u64::from_le_bytes(word), 0xa076_1d64_78bd_642f);
    }
    fold(hash ^ key.len() as u64, 0xe703_7ed1_a0b4_28db)
}

/// Both halves of the product, so that every bit of `value` reaches every bit of the result.
fn fold(value: u64, factor: u64) -> u64 {
    let product = u128::from(value ^ 0x8ebc_6af0_9c88_c6e3) * u128::from(factor);
    (product as u64) ^ (product >> 64) as u64 ^ value.rotate_left(29)
}

/// Writes the fields of every block and its checksum.
pub fn seal(block: &mut [u8], number: u32, run: u32, count: u32) {
    assert_eq!(block.len(), BLOCK_BYTES, "a whole block");
    put_u32(block, 4, number);
    put_u32(block, 8, run);
    put_u32(block, 12, count);
    let checksum = crc32c::crc32c(&block[4..]);
    put_u32(block, 0, checksum);
}

/// Whether `block` is whole and the one expected; `run` is 0 for a header, whose run is not known yet.
pub fn is_sound(block: &[u8], number: u32, run: u32) -> bool {
    block.len() == BLOCK_BYTES
        && get_u32(block, 0) == crc32c::crc32c(&block[4..])
        && get_u32(block, 4) == number
        && get_u32(block, 8) == run
}

pub fn entry_count(block: &[u8]) -> usize {
    (get_u32(block, 12) as usize).min(BLOCK_ENTRIES)
}

pub fn entry(block: &[u8], index: usize) -> KeyEntry {
    let at = BLOCK_HEADER_BYTES + index * ENTRY_BYTES;
    KeyEntry { hash: get_u64(block, at), location: get_u64(block, at + 8) }
}

pub fn put_entry(block: &mut [u8], index: usize, entry: KeyEntry) {
    let at = BLOCK_HEADER_BYTES + index * ENTRY_BYTES;
    put_u64(block, at, entry.hash);
    put_u64(block, at + 8, entry.location);
}

/// The filter block whose range holds `hash`.
pub fn filter_block(hash: u64, filter_blocks: u32) -> u32 {
    ((u128::from(hash) * u128::from(filter_blocks)) >> 64) as u32
}

/// How far `hash` lies within its filter block's range, as a part of 2^32.
pub fn within_filter_block(hash: u64, filter_blocks: u32) -> u64 {
    ((u128::from(hash) * u128::from(filter_blocks)) >> 32) as u64 & 0xffff_ffff
}

pub fn filter_insert(block: &mut [u8], hash: u64) {
    for bit in filter_bits(hash) {
        block[FILTER_BITS + (bit / 8) as usize] |= 1 << (bit % 8);
    }
}

pub fn filter_may_hold(block: &[u8], hash: u64) -> bool {
    filter_bits(hash).all(|bit| block[FILTER_BITS + (bit / 8) as usize] & (1 << (bit % 8)) != 0)
}

fn filter_bits(hash: u64) -> impl Iterator<Item = u64> {
    // The high bits have chosen the block.
    let first = hash & 0xffff_ffff;
    let step = (hash.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) | 1;
    (0..PROBES)
        .map(move |probe| ((first.wrapping_add(probe.wrapping_mul(step)) & 0xffff_ffff) * BIT_COUNT) >> 32)
}

pub fn put_filter_ranks(block: &mut [u8], first: u64, end: u64) {
    put_u64(block, FILTER_FIRST, first);
    put_u64(block, FILTER_END, end);
}

/// Numbers of the first entry of the block's range and of the one after it.
pub fn filter_ranks(block: &[u8]) -> (u64, u64) {
    (get_u64(block, FILTER_FIRST), get_u64(block, FILTER_END))
}
