//! The buffer that a connection reads into and cuts frames from.

/// Bytes received and not yet consumed, in one piece of memory that grows with the traffic: an idle connection keeps
/// little, a busy one reads as much per call as fits a core's cache.
pub struct ReceiveBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// Enough to tell every protocol.
const FIRST_BYTES: usize = 64;
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

    /// One for the bytes that tell a protocol: who never says anything costs next to nothing.
    pub fn of_first_bytes() -> Self {
        Self { bytes: vec![0; FIRST_BYTES], start: 0, end: 0 }
    }

    /// Makes it as large as any other one.
    pub fn make_usual(&mut self) {
        self.grow(self.bytes.len().max(BYTES_MIN));
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

    /// Spare capacity, with the whole of the next `needed` bytes fitting after what is there. For a peer that is trusted
    /// to send what it has announced; otherwise see [`spare_capacity`](ReceiveBuffer::spare_capacity).
    pub fn space(&mut self, needed: usize) -> &mut [u8] {
        let held = self.end - self.start;
        let wanted = needed.max(held + 1);
        // What is left of a frame moves to the front when the rest of it would not fit after, or little would.
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

    /// Keeps bytes that were read elsewhere, after what is there.
    pub fn keep(&mut self, bytes: &[u8]) {
        let held = self.end - self.start;
        self.space(held + bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Memory to read into, as far as there is any without [`grow`](ReceiveBuffer::grow).
    pub fn spare_capacity(&mut self) -> &mut [u8] {
        let held = self.end - self.start;
        if self.start > 0 && self.bytes.len() - self.end < self.bytes.len() / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = held;
        }
        &mut self.bytes[self.end..]
    }

    /// Bytes of memory that this takes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How large this has to become before any more can be read; `None` while there is room. Memory follows the bytes that
    /// came, by doubling, and never what was announced: `needed` only bounds it.
    pub fn must_grow_to(&self, needed: usize) -> Option<usize> {
        let held = self.end - self.start;
        let larger = || (2 * self.bytes.len()).min(needed.max(held + 1).next_power_of_two());
        (held == self.bytes.len()).then(larger)
    }

    /// How large this would like to become, because the last read has filled it.
    pub fn may_grow_to(&self) -> Option<usize> {
        let is_filled = self.end == self.bytes.len() && self.bytes.len() < BYTES_BUSY;
        is_filled.then_some(4 * self.bytes.len())
    }

    pub fn grow(&mut self, bytes: usize) {
        assert!(bytes >= self.bytes.len(), "{bytes} bytes are less than {}", self.bytes.len());
        self.bytes.resize(bytes, 0);
    }

    /// Gives memory back that is not in use.
    pub fn shrink(&mut self) {
        let held = self.end - self.start;
        let bytes = held.next_power_of_two().max(BYTES_MIN);
        if bytes >= self.bytes.len() {
            return;
        }
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, held);
        self.bytes.truncate(bytes);
        self.bytes.shrink_to_fit();
    }

    /// Takes note that `count` bytes were read into [`spare_capacity`](ReceiveBuffer::spare_capacity).
    pub fn read(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.end, "{count} bytes into {}", self.bytes.len() - self.end);
        self.end += count;
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
    fn memory_follows_what_came_and_not_what_was_announced() {
        let announced = 8 << 20;
        let mut buffer = ReceiveBuffer::new();
        assert_eq!((buffer.must_grow_to(announced), buffer.may_grow_to()), (None, None));
        let mut came = 0;
        while came < announced {
            if let Some(bytes) = buffer.must_grow_to(announced) {
                buffer.grow(bytes);
            }
            assert!(
                buffer.memory_bytes() <= (2 * came).max(BYTES_MIN),
                "{} for {came}",
                buffer.memory_bytes()
            );
            let count = buffer.spare_capacity().len().min(3000);
            buffer.read(count);
            came += count;
        }
        assert_eq!((buffer.filled().len(), buffer.memory_bytes()), (announced, announced));
        buffer.consume(announced - 10);
        buffer.shrink();
        assert_eq!((buffer.filled().len(), buffer.memory_bytes()), (10, BYTES_MIN));
        buffer.consume(10);
        assert_eq!(buffer.spare_capacity().len(), BYTES_MIN);
    }

    #[test]
    fn what_was_read_elsewhere_comes_after_what_is_there() {
        let mut buffer = ReceiveBuffer::new();
        buffer.keep(b"one");
        buffer.keep(&[b'x'; 3 * BYTES_MIN]);
        assert_eq!((buffer.filled().len(), &buffer.filled()[..4]), (3 + 3 * BYTES_MIN, &b"onex"[..]));
        buffer.consume(3 + 2 * BYTES_MIN);
        buffer.keep(&[b'y'; 2 * BYTES_MIN]);
        assert_eq!(buffer.filled()[..BYTES_MIN], [b'x'; BYTES_MIN]);
        assert_eq!(buffer.filled()[BYTES_MIN..], [b'y'; 2 * BYTES_MIN]);
        assert!(buffer.memory_bytes() <= 4 * BYTES_MIN);
    }

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
