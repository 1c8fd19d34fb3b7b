//! Where a frame ends (`remoting/.../protocol/RemotingCommand.java`, `remoting/.../netty/NettyDecoder.java`). All numbers are
//! big-endian.
//!
//! ```text
//! 0  u32  frame_bytes     all that follows; not itself
//! 4  u8   form            of the header: 0 JSON, 1 binary
//! 5  u24  header_bytes
//! 8       header, body
//! ```
//!
//! A body that is larger than a message may be does not end the connection: a producer that met that would send the message
//! again elsewhere. Its header is read, the body is passed over, and the request is answered.

use super::header::HeaderForm;
use crate::limits;

/// Bytes of the word that says how long a frame is.
const LENGTH_BYTES: usize = 4;
/// Bytes ahead of the header.
pub const FRAME_HEAD_BYTES: usize = 8;

/// Why bytes are no frames. The connection ends: its framing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes is outside 4..={max}", max = limits::REMOTING_FRAME_BYTES_MAX - LENGTH_BYTES)]
    FrameLength(u32),
    #[error(
        "a header of {0} bytes is larger than its frame or than {max} bytes",
        max = limits::REMOTING_HEADER_BYTES_MAX
    )]
    HeaderLength(usize),
    #[error("there is no form {0} of a header")]
    HeaderForm(u8),
}

/// One frame inside a receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub form: HeaderForm,
    pub header: &'a [u8],
    pub body: &'a [u8],
    /// Bytes of the whole frame, to be dropped from the front of the buffer.
    pub frame_bytes: usize,
}

/// What a look at received bytes has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    Frame(Frame<'a>),
    /// The frame has so many bytes, or more than are there if that is not known yet.
    Incomplete {
        needed: usize,
    },
    /// The body is larger than any that is taken. `frame` ends ahead of it; so many bytes after that are to be passed over.
    Oversized {
        frame: Frame<'a>,
        body_bytes: usize,
    },
}

/// Cuts the first frame off `bytes`.
pub fn cut(bytes: &[u8]) -> Result<Cut<'_>, FrameError> {
    let Some((head, _)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>() else {
        // A length that cannot be is refused before anything more is waited for.
        if let Some(length) = bytes.first_chunk() {
            check_length(u32::from_be_bytes(*length))?;
        }
        return Ok(Cut::Incomplete { needed: FRAME_HEAD_BYTES });
    };
    let [length @ .., form, high, middle, low] = *head;
    let frame_bytes = check_length(u32::from_be_bytes(length))?;
    let header_bytes = u32::from_be_bytes([0, high, middle, low]) as usize;
    let form = HeaderForm::of(form).ok_or(FrameError::HeaderForm(form))?;
    let header_end = FRAME_HEAD_BYTES + header_bytes;
    if header_bytes > limits::REMOTING_HEADER_BYTES_MAX || header_end > frame_bytes {
        return Err(FrameError::HeaderLength(header_bytes));
    }
    let body_bytes = frame_bytes - header_end;
    let is_oversized = body_bytes > limits::REMOTING_BODY_BYTES_MAX;
    let needed = if is_oversized { header_end } else { frame_bytes };
    let Some(taken) = bytes.get(..needed) else { return Ok(Cut::Incomplete { needed }) };
    let (header, body) = (&taken[FRAME_HEAD_BYTES..header_end], &taken[header_end..]);
    let frame = Frame { form, header, body, frame_bytes: needed };
    Ok(if is_oversized { Cut::Oversized { frame, body_bytes } } else { Cut::Frame(frame) })
}

/// Bytes of the whole frame, given its first word.
fn check_length(length: u32) -> Result<usize, FrameError> {
    let frame_bytes = LENGTH_BYTES + length as usize;
    if (FRAME_HEAD_BYTES..=limits::REMOTING_FRAME_BYTES_MAX).contains(&frame_bytes) {
        Ok(frame_bytes)
    } else {
        Err(FrameError::FrameLength(length))
    }
}

/// Appends a frame to `output` up to its body, of which the caller appends exactly `body_bytes`. `header` appends the header.
pub(super) fn begin(
    output: &mut Vec<u8>,
    form: HeaderForm,
    body_bytes: usize,
    header: impl FnOnce(&mut Vec<u8>),
) {
    let start = output.len();
    output.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
    header(output);
    let header_bytes = output.len() - start - FRAME_HEAD_BYTES;
    assert!(header_bytes < 1 << 24, "a header of {header_bytes} bytes");
    let following = FRAME_HEAD_BYTES - LENGTH_BYTES + header_bytes + body_bytes;
    let length = u32::try_from(following).expect("a frame's length is bounded");
    output[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    let word = (u32::from(form.number()) << 24) | header_bytes as u32;
    output[start + LENGTH_BYTES..start + FRAME_HEAD_BYTES].copy_from_slice(&word.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        begin(&mut bytes, HeaderForm::Json, body.len(), |output| output.extend_from_slice(header));
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_frame_needs_all_its_bytes_and_no_more() {
        let mut bytes = frame(b"{}", b"body");
        assert_eq!(bytes, b"\0\0\0\x0a\0\0\0\x02{}body");
        for end in 0..bytes.len() {
            let needed = if end < FRAME_HEAD_BYTES { FRAME_HEAD_BYTES } else { bytes.len() };
            assert_eq!(cut(&bytes[..end]), Ok(Cut::Incomplete { needed }), "cut at {end}");
        }
        bytes.extend_from_slice(b"next");
        let expected = Frame { form: HeaderForm::Json, header: b"{}", body: b"body", frame_bytes: 14 };
        assert_eq!(cut(&bytes), Ok(Cut::Frame(expected)));
    }

    #[test]
    fn the_form_stands_above_the_headers_length() {
        let mut bytes = Vec::new();
        begin(&mut bytes, HeaderForm::Binary, 0, |output| output.extend_from_slice(b"abc"));
        assert_eq!(bytes, b"\0\0\0\x07\x01\0\0\x03abc");
        let Ok(Cut::Frame(frame)) = cut(&bytes) else { panic!("a frame") };
        assert_eq!((frame.form, frame.header, frame.body), (HeaderForm::Binary, &b"abc"[..], &b""[..]));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_any_byte_is_awaited() {
        for length in [0, 3, limits::REMOTING_FRAME_BYTES_MAX as u32 - 3, u32::MAX] {
            assert_eq!(cut(&length.to_be_bytes()), Err(FrameError::FrameLength(length)), "{length}");
        }
        let head = |word: u32| [&16_u32.to_be_bytes()[..], &word.to_be_bytes()].concat();
        assert_eq!(cut(&head(13)), Err(FrameError::HeaderLength(13)), "beyond the frame's end");
        assert_eq!(cut(&head(12)), Ok(Cut::Incomplete { needed: 20 }));
        assert_eq!(cut(&head(2 << 24)), Err(FrameError::HeaderForm(2)));
        let much = [8_u32 << 20, limits::REMOTING_HEADER_BYTES_MAX as u32 + 1].map(u32::to_be_bytes).concat();
        assert!(matches!(cut(&much), Err(FrameError::HeaderLength(_))));
    }

    #[test]
    fn a_body_that_is_too_large_is_told_by_its_header() {
        let body_bytes = limits::REMOTING_BODY_BYTES_MAX + 1;
        let mut bytes = Vec::new();
        begin(&mut bytes, HeaderForm::Json, body_bytes, |output| output.extend_from_slice(b"{}"));
        assert_eq!(cut(&bytes[..9]), Ok(Cut::Incomplete { needed: 10 }));
        let frame = Frame { form: HeaderForm::Json, header: b"{}", body: b"", frame_bytes: 10 };
        assert_eq!(cut(&bytes), Ok(Cut::Oversized { frame, body_bytes }));
    }
}
