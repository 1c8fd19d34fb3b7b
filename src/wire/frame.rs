//! The native protocol below its envelope: how a connection starts and where a frame ends.
//!
//! Each side first sends a preface of 8 bytes. Its first byte occurs in none of the other protocols that share the port
//! (TLS starts with 0x16, HTTP with a letter, RocketMQ remoting with 0x00 or 0x01).
//!
//! ```text
//! 0  [u8; 4]  F5 'T' 'P' 'N'
//! 4  u16      protocol version
//! 6  u16      flags. 1 in a client's: it asks who answers; in a server's: its identity follows.
//!             2 in a client's: it has an access key to prove; in a server's: a challenge follows the identity
//! ```
//!
//! A server that is asked says after its preface who it is. One of an earlier release does not look at the flags, and answers
//! with zeros.
//!
//! ```text
//!  0  u64, u64  node, its high half first
//! 16  u16       shard
//! 18  [u8; 6]   0
//! ```
//!
//! A server that asks for access keys sends a challenge of 32 random bytes after that to a client that has one to prove, with
//! flag 1 as well. What answers it is the request `Prove`, see `protocol::native`.
//!
//! A server that does not speak the client's version answers with its own preface and closes: the client says which
//! version it met. Frames follow, in both directions:
//!
//! ```text
//!  0  u32  frame_bytes       this header, envelope, padding and payload
//!  4  u32  envelope_bytes
//!  8  u64  correlation       chosen by the client, returned with the answer
//! 16  envelope               a FlatBuffers `Request` or `Reply`, padded with zeros to a multiple of 8
//!  .  payload                batches, see `batch`; each starts at a multiple of 8 from the payload's start
//! ```

use super::bytes::{get_u16, get_u32, get_u64, put_u16, put_u32, put_u64};
use crate::limits;
use crate::types::{Identity, NodeId, ShardId};

/// Version of the native protocol.
pub const PROTOCOL_VERSION: u16 = 1;
/// Bytes of the preface.
pub const PREFACE_BYTES: usize = 8;
/// First bytes of a native connection.
pub const PREFACE_MAGIC: [u8; 4] = [0xF5, b'T', b'P', b'N'];
/// The name of the native protocol in TLS handshakes (RFC 7301). Its version is told by the preface within.
pub const ALPN_NATIVE: &[u8] = b"turbopump";
/// Bytes of the identity after a server's preface.
pub const IDENTITY_BYTES: usize = 24;
/// Bytes of the challenge after a server's identity.
pub const CHALLENGE_BYTES: usize = 32;
/// In the preface's last field: the identity is asked for, or follows.
const WITH_IDENTITY: u16 = 1;
/// Bit that says that a challenge follows. It comes with the identity only.
const WITH_CHALLENGE: u16 = 2;
/// Bytes before the envelope.
pub const FRAME_HEADER_BYTES: usize = 16;

/// Why a connection's bytes are no frames. The connection ends after the answer: its framing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the first bytes are not those of the native protocol")]
    Magic,
    #[error("the peer speaks protocol version {0}, this release speaks version {PROTOCOL_VERSION}")]
    Version(u16),
    #[error("a frame of {0} bytes is outside {FRAME_HEADER_BYTES}..={max}", max = limits::FRAME_BYTES_MAX)]
    FrameLength(usize),
    #[error("an envelope of {0} bytes is larger than its frame or than {max} bytes", max = limits::ENVELOPE_BYTES_MAX)]
    EnvelopeLength(usize),
}

/// One frame inside a receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub correlation: u64,
    pub envelope: &'a [u8],
    pub payload: &'a [u8],
    /// Bytes of the whole frame, to be dropped from the front of the buffer.
    pub frame_bytes: usize,
}

/// The preface this release sends.
pub fn preface() -> [u8; PREFACE_BYTES] {
    let mut bytes = [0; PREFACE_BYTES];
    bytes[..4].copy_from_slice(&PREFACE_MAGIC);
    put_u16(&mut bytes, 4, PROTOCOL_VERSION);
    bytes
}

/// The preface of a client that wants to know who answers.
pub fn asking_preface() -> [u8; PREFACE_BYTES] {
    let mut bytes = preface();
    put_u16(&mut bytes, 6, WITH_IDENTITY);
    bytes
}

/// The preface of a client that has an access key to prove as well.
pub fn proving_preface() -> [u8; PREFACE_BYTES] {
    let mut bytes = preface();
    put_u16(&mut bytes, 6, WITH_IDENTITY | WITH_CHALLENGE);
    bytes
}

/// Whether a client has an access key to prove, or a server's challenge follows its identity.
pub fn has_challenge(preface: &[u8; PREFACE_BYTES]) -> bool {
    let both = WITH_IDENTITY | WITH_CHALLENGE;
    get_u16(preface, 6) & both == both
}

/// Whether a client asks for the identity, or a server's follows.
pub fn has_identity(preface: &[u8; PREFACE_BYTES]) -> bool {
    get_u16(preface, 6) & WITH_IDENTITY != 0
}

/// What a server answers to a client that asks: its preface and its identity.
pub fn introduction(identity: Identity) -> [u8; PREFACE_BYTES + IDENTITY_BYTES] {
    let mut bytes = [0; PREFACE_BYTES + IDENTITY_BYTES];
    bytes[..PREFACE_BYTES].copy_from_slice(&asking_preface());
    put_u64(&mut bytes, PREFACE_BYTES, (identity.node.0 >> 64) as u64);
    put_u64(&mut bytes, PREFACE_BYTES + 8, identity.node.0 as u64);
    put_u16(&mut bytes, PREFACE_BYTES + 16, identity.shard.0);
    bytes
}

/// What a server answers to a client that has an access key to prove: its preface, its identity and a challenge.
pub fn challenging_introduction(
    identity: Identity,
    challenge: &[u8; CHALLENGE_BYTES],
) -> [u8; PREFACE_BYTES + IDENTITY_BYTES + CHALLENGE_BYTES] {
    let mut bytes = [0; PREFACE_BYTES + IDENTITY_BYTES + CHALLENGE_BYTES];
    bytes[..PREFACE_BYTES + IDENTITY_BYTES].copy_from_slice(&introduction(identity));
    bytes[..PREFACE_BYTES].copy_from_slice(&proving_preface());
    bytes[PREFACE_BYTES + IDENTITY_BYTES..].copy_from_slice(challenge);
    bytes
}

/// Reads what follows the preface of a server that says who it is.
pub fn read_identity(bytes: &[u8; IDENTITY_BYTES]) -> Identity {
    let (high, low) = (get_u64(bytes, 0), get_u64(bytes, 8));
    Identity { node: NodeId(u128::from(high) << 64 | u128::from(low)), shard: ShardId(get_u16(bytes, 16)) }
}

/// Checks the peer's preface.
pub fn check_preface(bytes: &[u8; PREFACE_BYTES]) -> Result<(), FrameError> {
    if bytes[..4] != PREFACE_MAGIC {
        return Err(FrameError::Magic);
    }
    match get_u16(bytes, 4) {
        PROTOCOL_VERSION => Ok(()),
        version => Err(FrameError::Version(version)),
    }
}

/// Cuts the first frame off `buffer`. `Ok(None)` asks for more bytes; see [`frame_bytes`] for how many.
pub fn cut(buffer: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let Some(head) = cut_head(buffer)? else { return Ok(None) };
    let payload_start = head.frame.frame_bytes;
    let frame_bytes = payload_start + head.payload_bytes;
    Ok(buffer.get(payload_start..frame_bytes).map(|payload| Frame { payload, frame_bytes, ..head.frame }))
}

/// What stands ahead of a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead<'a> {
    /// The frame without its payload; `frame_bytes` are those up to the payload.
    pub frame: Frame<'a>,
    pub payload_bytes: usize,
}

/// Cuts off what stands ahead of the payload: for a reader that takes a large payload as it comes. `Ok(None)` asks for
/// more bytes.
pub fn cut_head(buffer: &[u8]) -> Result<Option<FrameHead<'_>>, FrameError> {
    let Some(frame_bytes) = frame_bytes(buffer)? else { return Ok(None) };
    let envelope_bytes = get_u32(buffer, 4) as usize;
    let payload_start = FRAME_HEADER_BYTES + envelope_bytes.next_multiple_of(8);
    if envelope_bytes > limits::ENVELOPE_BYTES_MAX || payload_start > frame_bytes {
        return Err(FrameError::EnvelopeLength(envelope_bytes));
    }
    if buffer.len() < payload_start {
        return Ok(None);
    }
    let frame = Frame {
        correlation: get_u64(buffer, 8),
        envelope: &buffer[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + envelope_bytes],
        payload: &[],
        frame_bytes: payload_start,
    };
    Ok(Some(FrameHead { frame, payload_bytes: frame_bytes - payload_start }))
}

/// How long the frame at the start of `buffer` is, once its header has arrived.
pub fn frame_bytes(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    if buffer.len() < FRAME_HEADER_BYTES {
        return Ok(None);
    }
    let frame_bytes = get_u32(buffer, 0) as usize;
    if !(FRAME_HEADER_BYTES..=limits::FRAME_BYTES_MAX).contains(&frame_bytes) {
        return Err(FrameError::FrameLength(frame_bytes));
    }
    Ok(Some(frame_bytes))
}

/// Appends a frame's header and envelope to `output`; the caller appends exactly `payload_bytes` after it.
pub fn begin(output: &mut Vec<u8>, correlation: u64, envelope: &[u8], payload_bytes: usize) {
    let padded = envelope.len().next_multiple_of(8);
    let frame_bytes = FRAME_HEADER_BYTES + padded + payload_bytes;
    assert!(frame_bytes <= limits::FRAME_BYTES_MAX, "a frame of {frame_bytes} bytes");
    let mut header = [0; FRAME_HEADER_BYTES];
    put_u32(&mut header, 0, frame_bytes as u32);
    put_u32(&mut header, 4, envelope.len() as u32);
    put_u64(&mut header, 8, correlation);
    output.extend_from_slice(&header);
    output.extend_from_slice(envelope);
    output.resize(output.len() + padded - envelope.len(), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_needs_all_its_bytes_and_no_more() {
        let mut bytes = Vec::new();
        begin(&mut bytes, 42, b"envelope!", 3);
        bytes.extend_from_slice(b"abc");
        for end in 0..bytes.len() {
            assert_eq!(cut(&bytes[..end]), Ok(None), "cut at {end}");
        }
        bytes.extend_from_slice(b"next");
        let frame = cut(&bytes).expect("well formed").expect("complete");
        assert_eq!((frame.correlation, frame.envelope, frame.payload), (42, &b"envelope!"[..], &b"abc"[..]));
        assert_eq!(frame.frame_bytes, bytes.len() - 4);
    }

    #[test]
    fn a_head_needs_no_payload() {
        let mut bytes = Vec::new();
        begin(&mut bytes, 42, b"envelope!", 1000);
        for end in 0..bytes.len() {
            assert_eq!(cut_head(&bytes[..end]), Ok(None), "cut at {end}");
        }
        let head = cut_head(&bytes).expect("well formed").expect("complete");
        assert_eq!((head.frame.correlation, head.frame.envelope), (42, &b"envelope!"[..]));
        assert_eq!((head.frame.frame_bytes, head.payload_bytes), (bytes.len(), 1000));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_any_byte_is_awaited() {
        let mut bytes = Vec::new();
        begin(&mut bytes, 1, b"12345678", 0);
        for (at, value) in [(0, 15), (0, limits::FRAME_BYTES_MAX as u32 + 1), (4, 9), (4, u32::MAX)] {
            let mut wrong = bytes.clone();
            put_u32(&mut wrong, at, value);
            assert!(cut(&wrong).is_err(), "{value} at {at}");
        }
    }

    #[test]
    fn an_introduction_is_a_preface_and_who_it_is() {
        let identity =
            Identity { node: NodeId(0x0102_0304_0506_0708_090A_0B0C_0D0E_0F10), shard: ShardId(513) };
        let bytes = introduction(identity);
        let (preface, rest) = bytes.split_first_chunk().expect("a preface");
        assert_eq!((check_preface(preface), has_identity(preface)), (Ok(()), true));
        assert_eq!(rest[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(rest[16..], [1, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read_identity(rest.try_into().expect("24 bytes")), identity);
        assert_eq!(identity.node.to_string(), "0102030405060708090a0b0c0d0e0f10");
        assert!(!has_identity(&super::preface()) && has_identity(&asking_preface()));
    }

    #[test]
    fn a_challenge_follows_the_identity() {
        let identity = Identity { node: NodeId(7), shard: ShardId(1) };
        let bytes = challenging_introduction(identity, &[9; CHALLENGE_BYTES]);
        let (preface, rest) = bytes.split_first_chunk().expect("a preface");
        assert!(has_identity(preface) && has_challenge(preface));
        let (found, challenge) = rest.split_first_chunk().expect("an identity");
        assert_eq!((read_identity(found), challenge), (identity, &[9; CHALLENGE_BYTES][..]));
        assert!(has_challenge(&proving_preface()) && has_identity(&proving_preface()));
        assert!(!has_challenge(&asking_preface()) && !has_challenge(&super::preface()));
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = preface();
        assert_eq!(check_preface(&bytes), Ok(()));
        bytes[4] = 9;
        assert_eq!(check_preface(&bytes), Err(FrameError::Version(9)));
        bytes[0] = b'G';
        assert_eq!(check_preface(&bytes), Err(FrameError::Magic));
    }
}
