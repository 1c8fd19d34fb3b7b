//! What a bench message says, so that a reader can tell loss, duplication, disorder and damage.
//!
//! ```text
//!  0  u32  magic      0x4D42_5054, "TPBM"
//!  4  u32  run        a number for this run of the bench; messages of other runs are not counted
//!  8  u32  stream     one producer connection and one queue; order is promised within it
//! 12  u32  check      mix of run, stream, sequence and due time
//! 16  u64  sequence   dense within the stream, from 0
//! 24  u64  due_ns     when it was to be sent, on the bench's own monotonic clock
//! 32  filler          pseudo-random bytes that depend on the run only
//! ```
//!
//! The batch around it has a CRC32C of its own, so `check` and filler need not be strong: they catch a message that
//! arrives whole in the wrong place, and a program that hands out the wrong bytes.

use crate::wire::bytes::{get_u32, get_u64, put_u32, put_u64};

/// The smallest body.
pub const HEAD_BYTES: usize = 32;

const MAGIC_VALUE: u32 = 0x4D42_5054;

const MAGIC: usize = 0;
const RUN: usize = 4;
const STREAM: usize = 8;
const CHECK: usize = 12;
const SEQUENCE: usize = 16;
const DUE_NS: usize = 24;

/// Number of a run of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u32);

/// Number of a stream within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// What stands in front of the filler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub run: RunId,
    pub stream: StreamId,
    pub sequence: u64,
    pub due_ns: u64,
}

/// What a body turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A bench message, whole.
    Message(Head),
    /// Not made by the bench.
    Foreign,
    /// Made by the bench, but not like this.
    Damaged,
}

/// Recognises the filler of one run without computing it for every message.
#[derive(Default)]
pub struct FillerCheck {
    run: Option<RunId>,
    filler: Vec<u8>,
}

/// Cheap, and different for neighbouring sequences and swapped fields.
#[inline]
fn mix(head: &Head) -> u32 {
    let who = (u64::from(head.run.0) << 32 | u64::from(head.stream.0)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let what = (head.sequence ^ who).wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ head.due_ns;
    (what.wrapping_mul(0xA076_1D64_78BD_642F) >> 32) as u32
}

/// Whether two slices of one length are the same. Mostly they are, and short: words compared in place cost half of what
/// a call that looks for the first difference does.
#[inline]
fn is_same(left: &[u8], right: &[u8]) -> bool {
    let bytes = left.len();
    if bytes < 8 {
        return left == right;
    }
    let difference_at = |at: usize| get_u64(left, at) ^ get_u64(right, at);
    // The last word overlaps the one before.
    let words = (0..bytes / 8).map(|word| difference_at(word * 8));
    words.fold(difference_at(bytes - 8), |all, one| all | one) == 0
}

/// The bytes after the head: xorshift, seeded by the run.
fn filler(run: RunId, bytes: usize) -> Vec<u8> {
    let mut state = u64::from(run.0).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// A whole body of `body_bytes`, its head to be stamped.
pub fn blank_body(run: RunId, body_bytes: usize) -> Vec<u8> {
    assert!(body_bytes >= HEAD_BYTES, "a bench message has {body_bytes} bytes, at least {HEAD_BYTES}");
    let mut body = vec![0; HEAD_BYTES];
    put_u32(&mut body, MAGIC, MAGIC_VALUE);
    put_u32(&mut body, RUN, run.0);
    body.extend_from_slice(&filler(run, body_bytes - HEAD_BYTES));
    body
}

/// Writes everything that differs between the messages of a run into a body from [`blank_body`].
#[inline]
pub fn stamp(body: &mut [u8], head: &Head) {
    // One bounds check instead of four, in the hottest loop of the generator.
    let body: &mut [u8; HEAD_BYTES] = (&mut body[..HEAD_BYTES]).try_into().expect("the head's length");
    put_u32(body, STREAM, head.stream.0);
    put_u32(body, CHECK, mix(head));
    put_u64(body, SEQUENCE, head.sequence);
    put_u64(body, DUE_NS, head.due_ns);
}

impl FillerCheck {
    /// Reads a body.
    #[inline]
    pub fn read(&mut self, body: &[u8]) -> Reading {
        if body.len() < HEAD_BYTES || get_u32(body, MAGIC) != MAGIC_VALUE {
            return Reading::Foreign;
        }
        let head = Head {
            run: RunId(get_u32(body, RUN)),
            stream: StreamId(get_u32(body, STREAM)),
            sequence: get_u64(body, SEQUENCE),
            due_ns: get_u64(body, DUE_NS),
        };
        let found = &body[HEAD_BYTES..];
        if self.run != Some(head.run) || self.filler.len() < found.len() {
            self.run = Some(head.run);
            self.filler = filler(head.run, found.len());
        }
        let whole = get_u32(body, CHECK) == mix(&head) && is_same(&self.filler[..found.len()], found);
        if whole { Reading::Message(head) } else { Reading::Damaged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(sequence: u64) -> Head {
        Head { run: RunId(7), stream: StreamId(3), sequence, due_ns: 123_456_789 }
    }

    fn message(sequence: u64, bytes: usize) -> Vec<u8> {
        let mut body = blank_body(RunId(7), bytes);
        stamp(&mut body, &head(sequence));
        body
    }

    #[test]
    fn a_message_reads_back() {
        let mut check = FillerCheck::default();
        for bytes in [HEAD_BYTES, 100, 33, 4096] {
            assert_eq!(check.read(&message(bytes as u64, bytes)), Reading::Message(head(bytes as u64)));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let body = message(41, 100);
        for bit in 0..body.len() * 8 {
            let mut flipped = body.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(FillerCheck::default().read(&flipped), Reading::Message(_)), "bit {bit}");
        }
    }

    #[test]
    fn other_peoples_messages_are_left_alone() {
        for body in [&b""[..], b"hello", &[0; 200]] {
            assert_eq!(FillerCheck::default().read(body), Reading::Foreign);
        }
    }
}
