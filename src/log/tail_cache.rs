//! The newest buffers of the log, kept as they were written, so that readers at the tail never touch the disk.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use crate::disk::{BufferSlice, DiskBuffer};
use crate::limits;
use crate::types::LogPosition;

/// Spare buffers that are kept: as many as a group takes.
const SPARES_MAX: usize = limits::GROUP_BYTES_MAX / limits::PIECE_BYTES;

/// Written buffers in log order, bounded by bytes.
///
/// 1. `pieces` is ordered by position and its ranges do not overlap.
/// 2. Where one piece ends and the next does not follow, a segment ended; no batch lies across.
pub(super) struct TailCache<B> {
    pieces: VecDeque<Piece<B>>,
    bytes: usize,
    bytes_max: usize,
    /// Whole pieces that fell out and that nobody reads any more.
    spares: Vec<Rc<B>>,
}

struct Piece<B> {
    position: LogPosition,
    buffer: Rc<B>,
}

impl<B: DiskBuffer> TailCache<B> {
    pub fn new(bytes_max: usize) -> Self {
        Self { pieces: VecDeque::new(), bytes: 0, bytes_max, spares: Vec::new() }
    }

    /// Adds the buffer that was written at `position`, and lets go of the oldest ones beyond the bound.
    pub fn push(&mut self, position: LogPosition, buffer: Rc<B>) {
        if let Some(last) = self.pieces.back() {
            assert!(last.end() <= position, "piece at {position} overlaps the one before");
        }
        self.bytes += buffer.as_slice().len();
        self.pieces.push_back(Piece { position, buffer });
        while self.bytes > self.bytes_max {
            let oldest = self.pieces.pop_front().expect("bytes are counted for pieces that are there");
            let bytes = oldest.buffer.as_slice().len();
            self.bytes -= bytes;
            // One that is being sent goes when that is done.
            let mut buffer = oldest.buffer;
            let is_free = Rc::get_mut(&mut buffer).is_some();
            if is_free && bytes == limits::PIECE_BYTES && self.spares.len() < SPARES_MAX {
                self.spares.push(buffer);
            }
        }
    }

    /// Moves spare buffers to `output`, which then has no more than a group takes.
    pub fn give_spares(&mut self, output: &mut Vec<Rc<B>>) {
        let count = SPARES_MAX.saturating_sub(output.len()).min(self.spares.len());
        output.extend(self.spares.drain(self.spares.len() - count..));
    }

    /// Appends `bytes` from `position` on to `output`; false, with `output` unchanged, when they are not all here.
    pub fn copy(&self, position: LogPosition, bytes: usize, output: &mut Vec<u8>) -> bool {
        let before = output.len();
        let whole = self.visit(position, bytes, |buffer, range| {
            output.extend_from_slice(&buffer.as_slice()[range]);
        });
        if !whole {
            output.truncate(before);
        }
        whole
    }

    /// Appends slices of `bytes` from `position` on to `output`, joined with the last one where they follow it; false
    /// when they are not all here, and then `output` is of no use.
    pub fn share(&self, position: LogPosition, bytes: usize, output: &mut Vec<BufferSlice>) -> bool {
        self.visit(position, bytes, |buffer, range| {
            let slice = BufferSlice::new(buffer.clone(), range);
            if !output.last_mut().is_some_and(|last| last.join(&slice)) {
                output.push(slice);
            }
        })
    }

    /// Shows the parts of `bytes` from `position` on, in order; false when they end early.
    fn visit(&self, position: LogPosition, bytes: usize, mut show: impl FnMut(&Rc<B>, Range<usize>)) -> bool {
        if !self.covers(position) {
            return false;
        }
        let mut at = position;
        let end = position.advance(bytes as u64);
        let first = self.pieces.partition_point(|piece| piece.end() <= position);
        for piece in self.pieces.range(first..) {
            if piece.position > at {
                break;
            }
            let until = end.min(piece.end());
            let from = at.since(piece.position) as usize;
            show(&piece.buffer, from..until.since(piece.position) as usize);
            at = until;
            if at == end {
                return true;
            }
        }
        false
    }

    /// Whether the cache reaches back to `position`.
    pub fn covers(&self, position: LogPosition) -> bool {
        self.pieces.front().is_some_and(|oldest| oldest.position <= position)
    }
}

impl<B: DiskBuffer> Piece<B> {
    fn end(&self) -> LogPosition {
        self.position.advance(self.buffer.as_slice().len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::memory::MemoryDisk;
    use crate::limits::BLOCK_BYTES;

    /// Three pieces, the last one after a segment's end; each byte is the low byte of its position.
    fn cache() -> TailCache<<MemoryDisk as Disk>::Buffer> {
        let disk = MemoryDisk::new();
        let mut cache = TailCache::new(4 * BLOCK_BYTES);
        for (position, blocks) in [(0, 2), (2 * BLOCK_BYTES, 1), (8 * BLOCK_BYTES, 1)] {
            let mut buffer = disk.allocate(blocks * BLOCK_BYTES);
            let bytes = buffer.as_mut_slice().iter_mut();
            bytes.enumerate().for_each(|(index, byte)| *byte = ((position + index) / 8) as u8);
            cache.push(LogPosition(position as u64), Rc::new(buffer));
        }
        cache
    }

    #[test]
    fn shared_slices_hold_what_a_copy_holds_and_are_few() {
        let cache = cache();
        let block = BLOCK_BYTES as u64;
        let cases = [
            (0, 100, Some(1)),
            (8, 2 * BLOCK_BYTES, Some(2)),
            (0, 3 * BLOCK_BYTES, Some(2)),
            (0, 3 * BLOCK_BYTES + 1, None),
            (3 * block, 8, None),
            (8 * block, BLOCK_BYTES, Some(1)),
        ];
        for (position, bytes, slices) in cases {
            let (mut copied, mut shared) = (Vec::new(), Vec::new());
            let position = LogPosition(position);
            assert_eq!(cache.copy(position, bytes, &mut copied), slices.is_some(), "{position} {bytes}");
            assert_eq!(cache.share(position, bytes, &mut shared), slices.is_some(), "{position} {bytes}");
            let Some(slices) = slices else { continue };
            assert_eq!(shared.len(), slices, "{position} {bytes}");
            let parts: Vec<&[u8]> = shared.iter().map(|slice| &slice[..]).collect();
            assert_eq!(parts.concat(), copied, "{position} {bytes}");
        }
    }

    #[test]
    fn a_piece_that_is_still_read_is_not_used_again() {
        let disk = MemoryDisk::new();
        let mut cache = TailCache::new(limits::PIECE_BYTES);
        let mut shared = Vec::new();
        for index in 0..4 {
            let position = LogPosition(index * limits::PIECE_BYTES as u64);
            cache.push(position, Rc::new(disk.allocate(limits::PIECE_BYTES)));
            if index == 1 {
                assert!(cache.share(position, 8, &mut shared));
            }
        }
        let mut spares = Vec::new();
        cache.give_spares(&mut spares);
        assert_eq!(spares.len(), 2, "the first and the third of three that fell out");
        assert!(spares.iter_mut().all(|spare| Rc::get_mut(spare).is_some()));
        cache.give_spares(&mut spares);
        assert_eq!(spares.len(), 2);
    }

    #[test]
    fn neighbours_are_joined_and_outlive_the_cache() {
        let mut cache = cache();
        let mut shared = Vec::new();
        for (position, bytes) in [(8, 16), (24, 8), (40, 8)] {
            assert!(cache.share(LogPosition(position), bytes, &mut shared));
        }
        assert_eq!(shared.iter().map(|slice| slice.len()).collect::<Vec<_>>(), [24, 8]);
        let buffer = MemoryDisk::new().allocate(4 * BLOCK_BYTES);
        cache.push(LogPosition(9 * BLOCK_BYTES as u64), Rc::new(buffer));
        assert!(!cache.covers(LogPosition(8)));
        assert_eq!(shared[1][..], [5; 8]);
    }
}
