//! Cuts a byte stream into lines at memory speed: one large buffer, no allocation per line.
//!
//! A line is what stands between two newlines, without them; a last line without a newline is a line too, and an empty
//! input has none. Lines are bytes: they need not be UTF-8, and a carriage return belongs to its line.

use std::io::{self, Read};

use memchr::memchr;

use crate::limits;

/// Read size, and the room for lines that fit; longer lines make the buffer grow up to the largest message.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("cannot read the input behind line {line}: {source}")]
    Read { line: u64, source: io::Error },
    #[error("line {line} is longer than {max} bytes, the largest message", max = limits::BODY_BYTES_MAX)]
    TooLong { line: u64 },
}

/// Lines of `source`.
pub struct Lines<R> {
    source: R,
    /// Bytes in `start..end` were read and not yet given out.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// No newline lies in `start..searched`.
    searched: usize,
    /// The source has ended.
    ended: bool,
    /// Lines given out.
    count: u64,
}

impl<R: Read> Lines<R> {
    pub fn new(source: R) -> Self {
        Self::with_capacity(source, BUFFER_BYTES)
    }

    fn with_capacity(source: R, capacity: usize) -> Self {
        Self { source, buffer: vec![0; capacity], start: 0, end: 0, searched: 0, ended: false, count: 0 }
    }

    /// The next line that needs no reading. `None`: call [`fill`](Lines::fill), unless the input has
    /// [`ended`](Lines::has_ended).
    pub fn buffered_line(&mut self) -> Result<Option<&[u8]>, LineError> {
        if let Some(at) = memchr(b'\n', &self.buffer[self.searched..self.end]) {
            let line = self.start..self.searched + at;
            self.start = line.end + 1;
            self.searched = self.start;
            return self.give(line);
        }
        self.searched = self.end;
        let line = self.start..self.end;
        if !self.ended || line.is_empty() {
            return Ok(None);
        }
        self.start = self.end;
        self.give(line)
    }

    /// Whether [`fill`](Lines::fill) has met the end of the input.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What the lines are read from.
    pub fn source(&self) -> &R {
        &self.source
    }

    fn give(&mut self, line: std::ops::Range<usize>) -> Result<Option<&[u8]>, LineError> {
        self.count += 1;
        if line.len() > limits::BODY_BYTES_MAX {
            return Err(LineError::TooLong { line: self.count });
        }
        Ok(Some(&self.buffer[line]))
    }

    /// Reads once, behind the bytes that are there. Waits for the input if it has nothing yet.
    pub fn fill(&mut self) -> Result<(), LineError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            // The byte behind the largest message must be the newline.
            if self.end > limits::BODY_BYTES_MAX {
                return Err(LineError::TooLong { line: self.count + 1 });
            }
            self.buffer.resize((2 * self.end).max(1), 0);
        }
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(bytes) => self.end += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(LineError::Read { line: self.count, source }),
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives out at most `sizes[i]` bytes at read `i`, then without bound.
    struct Chunks<'a> {
        bytes: &'a [u8],
        sizes: std::vec::IntoIter<usize>,
    }

    impl Read for Chunks<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.sizes.next().unwrap_or(usize::MAX).min(buffer.len()).min(self.bytes.len());
            buffer[..count].copy_from_slice(&self.bytes[..count]);
            self.bytes = &self.bytes[count..];
            Ok(count)
        }
    }

    fn lines(input: &[u8], sizes: Vec<usize>, capacity: usize) -> Vec<Vec<u8>> {
        let mut lines = Lines::with_capacity(Chunks { bytes: input, sizes: sizes.into_iter() }, capacity);
        let mut result = Vec::new();
        while !lines.has_ended() {
            lines.fill().expect("a source that does not fail");
            while let Some(line) = lines.buffered_line().expect("short lines") {
                result.push(line.to_vec());
            }
        }
        assert_eq!(lines.count, result.len() as u64);
        assert!(lines.buffered_line().expect("still at the end").is_none());
        result
    }

    /// The definition, in its plainest form.
    fn expected(input: &[u8]) -> Vec<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = input.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        if parts.last().is_some_and(Vec::is_empty) {
            parts.pop();
        }
        parts
    }

    #[test]
    fn empty_lines_and_a_last_line_without_newline_count() {
        let cases: [(&[u8], &[&[u8]]); 6] = [
            (b"", &[]),
            (b"\n", &[b""]),
            (b"a", &[b"a"]),
            (b"a\nb", &[b"a", b"b"]),
            (b"a\n\nb\n", &[b"a", b"", b"b"]),
            (b"\r\n\xff\0\n", &[b"\r", b"\xff\0"]),
        ];
        for (input, result) in cases {
            assert_eq!(lines(input, vec![], 1024), result, "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn every_split_into_reads_gives_the_same_lines(
            input in prop::collection::vec(prop_oneof![2 => Just(b'\n'), 5 => any::<u8>()], 0..200),
            sizes in prop::collection::vec(1_usize..20, 0..100),
            capacity in 0_usize..40,
        ) {
            prop_assert_eq!(lines(&input, sizes, capacity), expected(&input));
        }
    }

    #[test]
    fn the_largest_message_fits_and_one_byte_more_is_named() {
        let mut input = b"first\n".to_vec();
        input.resize(input.len() + limits::BODY_BYTES_MAX, b'x');
        input.extend_from_slice(b"\nlast");
        assert_eq!(lines(&input, vec![], BUFFER_BYTES)[1].len(), limits::BODY_BYTES_MAX);
        input.insert(6, b'x');
        let mut lines = Lines::new(&input[..]);
        let error = loop {
            match lines.buffered_line() {
                Ok(Some(line)) => assert_eq!(line, b"first"),
                Ok(None) => match lines.fill() {
                    Ok(()) => assert!(!lines.has_ended(), "the long line must be noticed"),
                    Err(error) => break error,
                },
                Err(error) => break error,
            }
        };
        assert!(matches!(error, LineError::TooLong { line: 2 }), "{error}");
    }
}
