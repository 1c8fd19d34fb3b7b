//! Bytes that came and were not used yet, in one reused allocation.

use crate::limits;

/// Space offered to a first read. Grows to the size of the largest frames met: one that is being used, and the next.
const START_BYTES: usize = 64 * 1024;
/// The least space that is offered to a read: bytes are moved to the front rather than read in small pieces.
const SPACE_BYTES_MIN: usize = 16 * 1024;

/// Invariant: `start <= end <= bytes.len()`; `start..end` is what came and was not consumed.
pub(super) struct ReceiveBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReceiveBuffer {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; START_BYTES], start: 0, end: 0 }
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Room for a read, such that `needed` bytes fit after `start` in all.
    pub(super) fn space(&mut self, needed: usize) -> &mut [u8] {
        assert!(needed <= 2 * limits::FRAME_BYTES_MAX, "a frame of {needed} bytes was let through");
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let wanted = needed.max(self.end - self.start + SPACE_BYTES_MIN);
        if self.bytes.len() - self.start < wanted {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.bytes.len() < wanted {
                self.bytes.resize(wanted, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// Counts bytes that were read into [`space`](Self::space).
    pub(super) fn fill(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.end, "{count} bytes were read into less space");
        self.end += count;
    }

    /// Drops bytes from the front.
    pub(super) fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "{count} bytes consumed of {}", self.end - self.start);
        self.start += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_whatever_the_reads() {
        let mut buffer = ReceiveBuffer::new();
        let mut written = 0_u8;
        let mut read = 0_u8;
        for round in 1..2000_usize {
            let count = round * 7 % 4096;
            let space = buffer.space(0);
            assert!(space.len() >= SPACE_BYTES_MIN);
            for byte in &mut space[..count] {
                *byte = written;
                written = written.wrapping_add(1);
            }
            buffer.fill(count);
            let consumed = if round % 5 == 0 { buffer.filled().len() } else { buffer.filled().len() / 2 };
            for &byte in &buffer.filled()[..consumed] {
                assert_eq!(byte, read);
                read = read.wrapping_add(1);
            }
            buffer.consume(consumed);
        }
    }

    #[test]
    fn a_large_frame_finds_room() {
        let mut buffer = ReceiveBuffer::new();
        buffer.space(0)[0] = 9;
        buffer.fill(1);
        assert!(buffer.space(1_000_000).len() >= 999_999);
        assert_eq!(buffer.filled(), [9]);
    }
}
