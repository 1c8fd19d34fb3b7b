//! What an answer carries, as it goes out.
//!
//! Escaping makes up to six bytes of one, so large bodies of messages are escaped on their way out, a chunk at a time: an
//! answer takes the memory that its messages take as they are stored, whatever is in them.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Stored bytes of one chunk; a multiple of three, so that chunks of base64 can be put together.
const CHUNK_BYTES: usize = 12 * 1024;

/// The body of an answer, or what is left of it.
#[derive(Debug, Default)]
pub struct Answer {
    parts: VecDeque<Part>,
    bytes_left: u64,
}

#[derive(Debug)]
pub(super) enum Part {
    Ready(Bytes),
    /// Text that XML can tell, not yet escaped.
    Escaped(Bytes),
    Base64(Bytes),
}

impl Answer {
    pub(super) fn of_parts(parts: VecDeque<Part>) -> Self {
        let bytes_left = parts.iter().map(Part::written_bytes).sum();
        Self { parts, bytes_left }
    }

    /// Of the whole, when nothing was taken yet.
    pub fn bytes_left(&self) -> u64 {
        self.bytes_left
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The memory that it holds.
    pub fn held_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes().len()).sum()
    }

    /// What is to be sent next; an answer whose text is ready comes in one piece.
    pub fn next_chunk(&mut self) -> Option<Bytes> {
        let part = self.parts.front_mut()?;
        let chunk = match part {
            Part::Ready(text) => std::mem::take(text),
            Part::Escaped(bytes) => escaped(&bytes.split_to(bytes.len().min(CHUNK_BYTES))).into(),
            Part::Base64(bytes) => STANDARD.encode(bytes.split_to(bytes.len().min(CHUNK_BYTES))).into(),
        };
        if part.bytes().is_empty() {
            self.parts.pop_front();
        }
        self.bytes_left -= chunk.len() as u64;
        Some(chunk)
    }

    /// All of it in one piece: for what is short, and for tests.
    pub fn into_bytes(mut self) -> Bytes {
        let first = self.next_chunk().unwrap_or_default();
        if self.is_empty() {
            return first;
        }
        let mut whole = first.to_vec();
        while let Some(chunk) = self.next_chunk() {
            whole.extend_from_slice(&chunk);
        }
        whole.into()
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        let part = (!text.is_empty()).then(|| Part::Ready(text.into()));
        Self::of_parts(part.into_iter().collect())
    }
}

impl Part {
    fn bytes(&self) -> &Bytes {
        match self {
            Part::Ready(bytes) | Part::Escaped(bytes) | Part::Base64(bytes) => bytes,
        }
    }

    fn written_bytes(&self) -> u64 {
        match self {
            Part::Ready(bytes) => bytes.len() as u64,
            Part::Escaped(bytes) => escaped_bytes(bytes),
            Part::Base64(bytes) => bytes.len().div_ceil(3) as u64 * 4,
        }
    }
}

/// What stands for a byte in text. A carriage return needs its number, or it is read as a line feed.
pub(super) fn reference(byte: u8) -> Option<&'static str> {
    match byte {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'"' => Some("&quot;"),
        b'\r' => Some("&#13;"),
        _ => None,
    }
}

fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(bytes.len() * 2);
    let mut plain_from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let Some(reference) = reference(*byte) else { continue };
        output.extend_from_slice(&bytes[plain_from..at]);
        output.extend_from_slice(reference.as_bytes());
        plain_from = at + 1;
    }
    output.extend_from_slice(&bytes[plain_from..]);
    output
}

/// How many bytes [`escaped`] makes: a sum without a branch, which looks at many bytes at once.
fn escaped_bytes(bytes: &[u8]) -> u64 {
    let more = |byte: &u8| match byte {
        b'<' | b'>' => 3_u64,
        b'&' | b'\r' => 4,
        b'"' => 5,
        _ => 0,
    };
    bytes.len() as u64 + bytes.iter().map(more).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_long_as_was_said_and_hold_what_is_stored() {
        let text: String =
            (0..40_000).map(|index| ['"', 'a', '&', '\u{4f60}', '\r', '<'][index % 6]).collect();
        let parts = [
            Part::Ready(Bytes::from_static(b"<a>")),
            Part::Escaped(text.clone().into()),
            Part::Base64(Bytes::from(vec![0xFF; 40_000])),
        ];
        let mut answer = Answer::of_parts(parts.into_iter().collect());
        assert_eq!(answer.held_bytes(), 3 + text.len() + 40_000);
        let (said, mut whole) = (answer.bytes_left(), Vec::new());
        while let Some(chunk) = answer.next_chunk() {
            assert!(chunk.len() <= 6 * CHUNK_BYTES, "{}", chunk.len());
            whole.extend_from_slice(&chunk);
        }
        assert_eq!((whole.len() as u64, answer.bytes_left(), answer.is_empty()), (said, 0, true));
        let expected = text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
        let expected =
            format!("<a>{}{}", expected.replace('\r', "&#13;"), STANDARD.encode(vec![0xFF; 40_000]));
        assert_eq!(whole, expected.as_bytes());
    }

    #[test]
    fn a_text_comes_in_one_piece_and_none_in_none() {
        let mut answer = Answer::from("text".to_owned());
        assert_eq!((answer.bytes_left(), answer.next_chunk()), (4, Some(Bytes::from_static(b"text"))));
        assert!(answer.is_empty() && Answer::from(String::new()).is_empty());
        assert_eq!(Answer::from("text".to_owned()).into_bytes(), "text");
    }
}
