//! The newest buffers of the log, kept as they were written, so that readers at the tail never touch the disk.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::disk::DiskBuffer;
use crate::types::LogPosition;

/// Written buffers in log order, bounded by bytes.
///
/// 1. `pieces` is ordered by position and its ranges do not overlap.
/// 2. Where one piece ends and the next does not follow, a segment ended; no batch lies across.
pub(super) struct TailCache<B> {
    pieces: VecDeque<Piece<B>>,
    bytes: usize,
    bytes_max: usize,
}

struct Piece<B> {
    position: LogPosition,
    buffer: Rc<B>,
}

impl<B: DiskBuffer> TailCache<B> {
    pub fn new(bytes_max: usize) -> Self {
        Self { pieces: VecDeque::new(), bytes: 0, bytes_max }
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
            self.bytes -= oldest.buffer.as_slice().len();
        }
    }

    /// Appends `bytes` from `position` on to `output`; false, with `output` unchanged, when they are not all here.
    pub fn copy(&self, position: LogPosition, bytes: usize, output: &mut Vec<u8>) -> bool {
        if !self.covers(position) {
            return false;
        }
        let before = output.len();
        let mut at = position;
        let end = position.advance(bytes as u64);
        let first = self.pieces.partition_point(|piece| piece.end() <= position);
        for piece in self.pieces.range(first..) {
            if piece.position > at {
                break;
            }
            let from = at.since(piece.position) as usize;
            let until = end.min(piece.end());
            output.extend_from_slice(&piece.buffer.as_slice()[from..until.since(piece.position) as usize]);
            at = until;
            if at == end {
                return true;
            }
        }
        output.truncate(before);
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
