//! The buffer that a connection reads into and cuts frames from.

/// Bytes received and not yet consumed, in one piece of memory that grows with the traffic: an idle connection keeps
/// little, a busy one reads as much per call as fits a core's cache.
pub struct ReceiveBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// An idle connection holds this much.
const BYTES_MIN: usize = 4 * 1024;
/// Reads go up to this size; a larger frame gets the room that it needs.
const BYTES_BUSY: usize = 256 * 1024;

impl Default for ReceiveBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl ReceiveBuffer {
    pub fn new() -> Self {
        Self { bytes: vec![0; BYTES_MIN], start: 0, end: 0 }
    }

    /// What has been received and not consumed.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops `count` bytes from the front.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "{count} bytes of {}", self.end - self.start);
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room to read into, with the whole of the next `needed` bytes fitting behind what is there.
    pub fn space(&mut self, needed: usize) -> &mut [u8] {
        let held = self.end - self.start;
        let wanted = needed.max(held + 1);
        // What is left of a frame moves to the front when the rest of it would not fit behind, or little would.
        if self.start > 0 && self.bytes.len() - self.start < wanted.max(self.bytes.len() / 2) {
            self.bytes.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = held;
        }
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted.next_power_of_two(), 0);
        }
        &mut self.bytes[self.end..]
    }

    /// Takes note that `count` bytes were read into [`space`](ReceiveBuffer::space). A read that filled it asks for
    /// larger ones.
    pub fn received(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.end, "{count} bytes into {}", self.bytes.len() - self.end);
        self.end += count;
        if self.end == self.bytes.len() && self.bytes.len() < BYTES_BUSY {
            self.bytes.resize(self.bytes.len() * 4, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_whatever_the_cuts() {
        let mut buffer = ReceiveBuffer::new();
        let source: Vec<u8> = (0..100_000u32).map(|index| (index % 251) as u8).collect();
        let (mut fed, mut read) = (0, Vec::new());
        for step in 0.. {
            if fed == source.len() && buffer.is_empty() {
                break;
            }
            let space = buffer.space(1 + step % 5000);
            let count = space.len().min(source.len() - fed).min(1 + step * 7 % 3000);
            space[..count].copy_from_slice(&source[fed..fed + count]);
            fed += count;
            buffer.received(count);
            let taken = buffer.filled().len().min(1 + step * 13 % 4000);
            read.extend_from_slice(&buffer.filled()[..taken]);
            buffer.consume(taken);
        }
        assert_eq!(read, source);
    }
}
