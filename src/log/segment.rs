//! One segment: a preallocated file that holds a range of the log.
//!
//! The file is named after its base position, `00000000000000000000.segment`. Its first block is a header; batches
//! follow from [`SEGMENT_HEADER_BYTES`] on. The header is written together with the segment's first group, so a file that
//! was prepared but never used holds zeros or, when it was recycled, the header of its former life: both mean "empty".
//!
//! ```text
//!  0  u32  magic          0x4753_5054, "TPSG"
//!  4  u32  version        1
//!  8  u64  base           log position of this block
//! 16  u64  segment_bytes  size of the file, this block included; of a stand-in, what it stands in for
//! 24  u32  epoch          of the run that used the file first as this segment
//! 28  u16  shard
//! 30  u16  flags          1: stands in for a file that was lost, and holds nothing
//! 32  u64  previous_end   where the log ended before this segment: after it the segment before holds nothing that counts
//! 40  u64  secret         of the log, for tools when the manifest is lost
//! 48  u32  crc            crc32c of bytes 0..48
//! ```
//!
//! Who pads: a group is padded with zeros to the end of its last block by whoever writes it. After the last group a
//! reader finds zeros, or bytes of the file's former life, which no position or epoch fits.

use std::cell::Cell;
use std::path::PathBuf;

use crate::disk::Disk;
use crate::limits;
use crate::types::{LogPosition, Timestamp, WakerList};
use crate::wire::batch::LogSecret;
use crate::wire::bytes::{get_u16, get_u32, get_u64, put_u16, put_u32, put_u64};

/// Bytes in front of a segment's first batch.
pub const SEGMENT_HEADER_BYTES: usize = limits::BLOCK_BYTES;

const MAGIC_VALUE: u32 = 0x4753_5054;
const VERSION_VALUE: u32 = 1;
const MAGIC: usize = 0;
const VERSION: usize = 4;
const BASE: usize = 8;
const SEGMENT_BYTES: usize = 16;
const EPOCH: usize = 24;
const SHARD: usize = 28;
const FLAGS: usize = 30;
const FLAG_STAND_IN: u16 = 1;
const PREVIOUS_END: usize = 32;
const SECRET: usize = 40;
const CRC: usize = 48;

const SUFFIX: &str = ".segment";
const DIGITS: usize = 20;

/// An open segment. Shared by the appender and the readers; the file is closed by whoever takes it out of the log when
/// nobody else holds it.
pub(super) struct Segment<D: Disk> {
    pub base: LogPosition,
    pub bytes: u64,
    pub file: D::File,
    pub path: PathBuf,
    /// It stands in for what was lost: there is nothing in it, and its file ends after its header, however much that was.
    pub is_stand_in: bool,
    /// Store time of the newest batch; `None` while empty.
    pub newest: Cell<Option<Timestamp>>,
    /// Blocks below this position in the file have been written at least once, so that a write there needs no journal
    /// commit. Only grows.
    pub zeroed: Cell<u64>,
    /// The range of the file into which zeros are being written.
    pub zeroing: Cell<Option<(u64, u64)>>,
    pub zeroing_done: WakerList,
}

/// What the log tells about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub base: LogPosition,
    /// That it takes of the disk.
    pub bytes: u64,
    pub newest: Option<Timestamp>,
}

/// The header block's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub base: LogPosition,
    pub segment_bytes: u64,
    pub epoch: u32,
    pub shard: u16,
    pub is_stand_in: bool,
    pub previous_end: LogPosition,
    pub secret: LogSecret,
}

/// What a segment's first block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundHeader {
    Valid(SegmentHeader),
    /// Zeros, another life's header, or damage.
    Other,
    /// A right checksum under a version that this release does not know.
    Newer(u32),
}

impl<D: Disk> Segment<D> {
    pub fn new(base: LogPosition, bytes: u64, file: D::File, path: PathBuf) -> Self {
        Self {
            base,
            bytes,
            file,
            path,
            is_stand_in: false,
            newest: Cell::new(None),
            zeroed: Cell::new(0),
            zeroing: Cell::new(None),
            zeroing_done: WakerList::new(),
        }
    }

    /// First log position after the segment.
    pub fn end(&self) -> LogPosition {
        self.base.advance(self.bytes)
    }

    pub fn contains(&self, position: LogPosition) -> bool {
        self.base <= position && position < self.end()
    }

    pub fn info(&self) -> SegmentInfo {
        let bytes = if self.is_stand_in { 0 } else { self.bytes };
        SegmentInfo { base: self.base, bytes, newest: self.newest.get() }
    }
}

impl SegmentHeader {
    /// Writes the header into the first block of `output`; the rest of the block becomes zero.
    pub fn encode(&self, output: &mut [u8]) {
        let output = &mut output[..SEGMENT_HEADER_BYTES];
        output.fill(0);
        put_u32(output, MAGIC, MAGIC_VALUE);
        put_u32(output, VERSION, VERSION_VALUE);
        put_u64(output, BASE, self.base.0);
        put_u64(output, SEGMENT_BYTES, self.segment_bytes);
        put_u32(output, EPOCH, self.epoch);
        put_u16(output, SHARD, self.shard);
        put_u16(output, FLAGS, if self.is_stand_in { FLAG_STAND_IN } else { 0 });
        put_u64(output, PREVIOUS_END, self.previous_end.0);
        put_u64(output, SECRET, self.secret.0);
        let checksum = crc32c::crc32c(&output[..CRC]);
        put_u32(output, CRC, checksum);
    }

    /// Whether the rest of the header's block is as it was written.
    pub fn is_zero_after(block: &[u8]) -> bool {
        block[CRC + 4..SEGMENT_HEADER_BYTES].iter().all(|byte| *byte == 0)
    }

    pub fn decode(block: &[u8]) -> FoundHeader {
        if block.len() < CRC + 4
            || get_u32(block, MAGIC) != MAGIC_VALUE
            || get_u32(block, CRC) != crc32c::crc32c(&block[..CRC])
        {
            return FoundHeader::Other;
        }
        match get_u32(block, VERSION) {
            VERSION_VALUE => FoundHeader::Valid(SegmentHeader {
                base: LogPosition(get_u64(block, BASE)),
                segment_bytes: get_u64(block, SEGMENT_BYTES),
                epoch: get_u32(block, EPOCH),
                shard: get_u16(block, SHARD),
                is_stand_in: get_u16(block, FLAGS) & FLAG_STAND_IN != 0,
                previous_end: LogPosition(get_u64(block, PREVIOUS_END)),
                secret: LogSecret(get_u64(block, SECRET)),
            }),
            version => FoundHeader::Newer(version),
        }
    }
}

/// File name of the segment that starts at `base`.
pub fn segment_name(base: LogPosition) -> String {
    format!("{:0DIGITS$}{SUFFIX}", base.0)
}

/// The base position in a segment's file name; `None` for any other name.
pub fn parse_segment_name(name: &str) -> Option<LogPosition> {
    let digits = name.strip_suffix(SUFFIX)?;
    let canonical = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if canonical { digits.parse().ok().map(LogPosition) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for base in [0, 4096, u64::MAX] {
            assert_eq!(parse_segment_name(&segment_name(LogPosition(base))), Some(LogPosition(base)));
        }
        for name in
            ["", "0.segment", "00000000000000000000.segmen", "+0000000000000000000.segment", "spare-0"]
        {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_flipped_bit_makes_a_header_unknown() {
        let header = SegmentHeader {
            base: LogPosition(1 << 30),
            segment_bytes: 1 << 30,
            epoch: 7,
            shard: 3,
            is_stand_in: false,
            previous_end: LogPosition((1 << 30) - 4096),
            secret: LogSecret(11),
        };
        let mut block = vec![0xAA; SEGMENT_HEADER_BYTES];
        header.encode(&mut block);
        assert_eq!(SegmentHeader::decode(&block), FoundHeader::Valid(header));
        for bit in 0..(CRC + 4) * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), FoundHeader::Other, "bit {bit}");
        }
    }
}
