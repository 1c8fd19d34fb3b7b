//! What a message says of itself.

/// Who sent a message, as which of its messages. Ordered by producer, then by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u64);

const HEAD_BYTES: usize = 12;

impl Tag {
    pub fn new(producer: u8, sequence: u64) -> Self {
        assert!(sequence < 1 << 56, "more messages than time");
        Self(u64::from(producer) << 56 | sequence)
    }

    pub fn producer(self) -> u8 {
        (self.0 >> 56) as u8
    }

    pub fn sequence(self) -> u64 {
        self.0 & ((1 << 56) - 1)
    }

    /// Mostly short, now and then longer than a block.
    fn filler_bytes(self) -> usize {
        let mixed = (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        if mixed.is_multiple_of(97) { 6000 + mixed % 30_000 } else { mixed % 400 }
    }
}

/// Writes the body of a message into `output`.
pub fn write(output: &mut Vec<u8>, queue: u32, tag: Tag) {
    output.clear();
    output.extend_from_slice(&queue.to_le_bytes());
    output.extend_from_slice(&tag.0.to_le_bytes());
    output.extend((0..tag.filler_bytes()).map(|index| index as u8 ^ tag.0 as u8));
}

/// Reads a body that must be one of ours, whole, and meant for this queue.
pub fn parse(body: &[u8], queue: u32) -> Tag {
    assert!(body.len() >= HEAD_BYTES, "a body of {} bytes", body.len());
    let tag = Tag(u64::from_le_bytes(body[4..HEAD_BYTES].try_into().expect("eight bytes")));
    let mut expected = Vec::new();
    write(&mut expected, queue, tag);
    assert!(body == expected, "queue {queue}: a body of {tag:?} is not what was sent");
    tag
}
