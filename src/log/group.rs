//! The open group: batches that wait for the commit task, already in the buffers that will be written.

use std::rc::Rc;

use super::commit_log::Placed;
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::disk::{Disk, DiskBuffer};
use crate::limits::{BLOCK_BYTES, PIECE_BYTES};
use crate::types::{LogPosition, MonotonicTime};
use crate::wire::batch::{BATCH_HEADER_BYTES, LogSecret, raise_flushed_end};

/// Bytes of one group in pieces.
///
/// 1. `start` is a block boundary, and the group lies within the segment at `segment_base`.
/// 2. `filled` bytes are in use; every piece but the last is full.
/// 3. Nobody else holds a piece or a spare.
pub(super) struct OpenGroup<D: Disk> {
    pub segment_base: LogPosition,
    pub start: LogPosition,
    pub filled: usize,
    pub batches: Vec<Placed>,
    /// For the headers of this group's batches: see `wire::batch`.
    pub previous_end: LogPosition,
    pub flushed_end: LogPosition,
    /// Whether somebody waits for the flush of this group.
    pub flush_wanted: bool,
    /// When the first batch came; valid when `batches` is not empty.
    pub opened_at: MonotonicTime,
    pieces: Vec<Rc<D::Buffer>>,
    /// Buffers of a whole piece that were used before: in a steady state none are allocated.
    spares: Vec<Rc<D::Buffer>>,
}

/// A group taken out for writing.
pub(super) struct ClosedGroup<D: Disk> {
    pub segment_base: LogPosition,
    pub start: LogPosition,
    /// End of its last batch.
    pub end: LogPosition,
    pub batches: Vec<Placed>,
    pub opened_at: MonotonicTime,
    /// What is to be written, padded to blocks, in log order.
    pub pieces: Vec<(LogPosition, Rc<D::Buffer>)>,
    pub bytes: usize,
}

impl<D: Disk> OpenGroup<D> {
    pub fn new(
        segment_base: LogPosition,
        start: LogPosition,
        previous_end: LogPosition,
        flushed_end: LogPosition,
    ) -> Self {
        assert!(start.0.is_multiple_of(BLOCK_BYTES as u64), "a group starts at {start}, no block boundary");
        Self {
            segment_base,
            start,
            filled: 0,
            batches: Vec::new(),
            previous_end,
            flushed_end,
            flush_wanted: false,
            opened_at: MonotonicTime::default(),
            pieces: Vec::new(),
            spares: Vec::new(),
        }
    }

    /// Takes over what the group before it need not have allocated again.
    pub fn inherit(&mut self, before: &mut OpenGroup<D>) {
        self.batches.reserve(before.batches.len());
        self.pieces.reserve(before.pieces.len());
        std::mem::swap(&mut self.spares, &mut before.spares);
    }

    /// Where buffers that are used no more can be left.
    pub fn spares(&mut self) -> &mut Vec<Rc<D::Buffer>> {
        &mut self.spares
    }

    /// Moves a group without batches to the start of a new segment and puts the segment's header in front.
    pub fn begin_segment(&mut self, disk: &D, header: &SegmentHeader) {
        assert!(self.batches.is_empty() && self.filled == 0, "the group has begun elsewhere");
        self.segment_base = header.base;
        self.start = header.base;
        let mut block = [0; SEGMENT_HEADER_BYTES];
        header.encode(&mut block);
        self.extend(disk, &block);
    }

    /// Where the next byte goes.
    pub fn end(&self) -> LogPosition {
        self.start.advance(self.filled as u64)
    }

    /// Copies `bytes` after what is there.
    pub fn extend(&mut self, disk: &D, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = self.filled % PIECE_BYTES;
            if used == 0 {
                let spare = self.spares.pop();
                self.pieces.push(spare.unwrap_or_else(|| Rc::new(disk.allocate(PIECE_BYTES))));
            }
            let piece = self.pieces.last_mut().expect("a piece was just made or is not full");
            let piece = Rc::get_mut(piece).expect("invariant 3");
            let count = bytes.len().min(PIECE_BYTES - used);
            piece.as_mut_slice()[used..used + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
        }
    }

    /// Fills up to a multiple of `alignment` with zeros.
    pub fn pad(&mut self, disk: &D, alignment: usize) {
        const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        let missing = self.filled.next_multiple_of(alignment) - self.filled;
        self.extend(disk, &ZEROS[..missing]);
    }

    /// Pads the group to its last block and splits it into buffers to write.
    pub fn close(mut self, disk: &D) -> ClosedGroup<D> {
        assert!(!self.batches.is_empty(), "an empty group is not written");
        let end = self.end();
        self.pad(disk, BLOCK_BYTES);
        let bytes = self.filled;
        let last_bytes = match bytes % PIECE_BYTES {
            0 => PIECE_BYTES,
            used => used,
        };
        let last = self.pieces.pop().expect("a group has bytes");
        self.pieces.push(fitted(disk, last, last_bytes));
        let start = self.start;
        let pieces = (0u64..)
            .zip(self.pieces)
            .map(|(index, piece)| (start.advance(index * PIECE_BYTES as u64), piece))
            .collect();
        ClosedGroup {
            segment_base: self.segment_base,
            start,
            end,
            batches: self.batches,
            opened_at: self.opened_at,
            pieces,
            bytes,
        }
    }
}

impl<D: Disk> ClosedGroup<D> {
    /// Has the first batch say what has been flushed since it was placed: the more a log says of that, the surer it is
    /// what a hole in it means.
    pub fn claim_flushed(&mut self, flushed_end: LogPosition, secret: LogSecret) {
        let batch = &self.batches[0];
        let (start, piece) = &mut self.pieces[0];
        let at = batch.position.since(*start) as usize;
        let bytes = Rc::get_mut(piece).expect("nobody else holds a piece yet").as_mut_slice();
        raise_flushed_end(&mut bytes[at..at + BATCH_HEADER_BYTES], flushed_end, secret);
    }
}

/// `piece` cut to `bytes`. A piece that is mostly empty is copied into a small buffer, since the tail cache keeps it:
/// otherwise each 4 KiB group of a quiet log would hold a whole one.
fn fitted<D: Disk>(disk: &D, mut piece: Rc<D::Buffer>, bytes: usize) -> Rc<D::Buffer> {
    if bytes == PIECE_BYTES {
        return piece;
    }
    if bytes > PIECE_BYTES / 2 {
        Rc::get_mut(&mut piece).expect("invariant 3").truncate(bytes);
        return piece;
    }
    let mut small = disk.allocate(bytes);
    small.as_mut_slice().copy_from_slice(&piece.as_slice()[..bytes]);
    Rc::new(small)
}
