//! Cuts a byte stream into lines at memory speed: one large buffer, no allocation per line.
//!
//! A line is what stands between two newlines, without them; a last line without a newline is a line too, and an empty
//! input has none. Lines are bytes: they need not be UTF-8, and a carriage return belongs to its line. The first ones can
//! be left out; those are not judged: whoever leaves a line out because it is too long gets past it.

use std::io::{self, Read};

use memchr::memchr;

use crate::limits;

/// Read size, and the room for lines that fit; longer lines make the buffer grow up to the largest message.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("cannot read the input after line {line}: {source}")]
    Read { line: u64, source: io::Error },
    #[error("line {line} is longer than {max} bytes, the longest line")]
    TooLong { line: u64, max: usize },
}

/// Lines of `source`.
pub struct Lines<R> {
    source: R,
    /// Bytes of the longest line.
    line_bytes_max: usize,
    /// Bytes in `start..end` were read and not yet given out.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// No newline lies in `start..searched`.
    searched: usize,
    /// The source has ended.
    ended: bool,
    /// Lines given out or left out.
    count: u64,
    /// Lines to leave out at the start.
    skip: u64,
    /// Some of the line that is being left out has gone by.
    within_skipped: bool,
    /// Of the lines that were given out or left out, with their newlines.
    bytes: u64,
}

impl<R: Read> Lines<R> {
    /// Lines after the first `skip` ones.
    pub fn new(source: R, skip: u64) -> Self {
        Self::with_capacity(source, skip, BUFFER_BYTES)
    }

    /// The same with lines of up to so many bytes, in place of those of a body.
    #[must_use]
    pub fn of_up_to(self, line_bytes_max: usize) -> Self {
        Self { line_bytes_max, ..self }
    }

    fn with_capacity(source: R, skip: u64, capacity: usize) -> Self {
        Self {
            source,
            line_bytes_max: limits::BODY_BYTES_MAX,
            buffer: vec![0; capacity],
            start: 0,
            end: 0,
            searched: 0,
            ended: false,
            count: 0,
            skip,
            within_skipped: false,
            bytes: 0,
        }
    }

    /// The next line that needs no reading. `None`: call [`fill`](Lines::fill), unless the input has
    /// [`ended`](Lines::has_ended).
    pub fn buffered_line(&mut self) -> Result<Option<&[u8]>, LineError> {
        if self.count < self.skip && !self.leave_out() {
            return Ok(None);
        }
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

    /// The number of the line that was given out last, counted from 1, or of those that were left out so far.
    pub fn number(&self) -> u64 {
        self.count
    }

    /// Lines that were left out.
    pub fn skipped(&self) -> u64 {
        self.count.min(self.skip)
    }

    /// Bytes of the input that were given out or left out.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the lines are read from.
    pub fn source(&self) -> &R {
        &self.source
    }

    /// Drops what is in the buffer of the lines to be left out, however long they are. Whether it is past them.
    fn leave_out(&mut self) -> bool {
        while self.count < self.skip {
            let rest = &self.buffer[self.start..self.end];
            let newline = memchr(b'\n', rest);
            let passed = newline.map_or(rest.len(), |at| at + 1);
            self.bytes += passed as u64;
            self.start += passed;
            self.within_skipped |= passed > 0;
            // The input's last line may have no newline.
            if newline.is_none() && !(self.ended && self.within_skipped) {
                break;
            }
            self.count += 1;
            self.within_skipped = false;
        }
        self.searched = self.start;
        self.count == self.skip
    }

    fn give(&mut self, line: std::ops::Range<usize>) -> Result<Option<&[u8]>, LineError> {
        self.count += 1;
        self.bytes += line.len() as u64 + 1;
        if line.len() > self.line_bytes_max {
            return Err(LineError::TooLong { line: self.count, max: self.line_bytes_max });
        }
        Ok(Some(&self.buffer[line]))
    }

    /// Reads once, after the bytes that are there. Waits for the input if it has nothing yet.
    pub fn fill(&mut self) -> Result<(), LineError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            // The byte after the longest line must be the newline.
            if self.end > self.line_bytes_max {
                return Err(LineError::TooLong { line: self.count + 1, max: self.line_bytes_max });
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
        lines_after(0, input, sizes, capacity)
    }

    fn lines_after(skip: u64, input: &[u8], sizes: Vec<usize>, capacity: usize) -> Vec<Vec<u8>> {
        let mut lines =
            Lines::with_capacity(Chunks { bytes: input, sizes: sizes.into_iter() }, skip, capacity);
        let mut result = Vec::new();
        while !lines.has_ended() {
            lines.fill().expect("a source that does not fail");
            while let Some(line) = lines.buffered_line().expect("short lines") {
                result.push(line.to_vec());
            }
        }
        assert_eq!(lines.number(), lines.skipped() + result.len() as u64);
        assert!(lines.bytes().abs_diff(input.len() as u64) <= 1, "a last newline may be missing");
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
            prop_assert_eq!(lines(&input, sizes.clone(), capacity), expected(&input));
            for skip in [1, 3, 1_000] {
                let left = lines_after(skip, &input, sizes.clone(), capacity);
                let all = expected(&input);
                prop_assert_eq!(left, &all[all.len().min(skip as usize)..]);
            }
        }
    }

    #[test]
    fn the_largest_message_fits_and_one_byte_more_is_named() {
        let mut input = b"first\n".to_vec();
        input.resize(input.len() + limits::BODY_BYTES_MAX, b'x');
        input.extend_from_slice(b"\nlast");
        assert_eq!(lines(&input, vec![], BUFFER_BYTES)[1].len(), limits::BODY_BYTES_MAX);
        input.insert(6, b'x');
        let mut lines = Lines::new(&input[..], 0);
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
        assert!(matches!(error, LineError::TooLong { line: 2, .. }), "{error}");
        assert_eq!(lines_after(2, &input, vec![], BUFFER_BYTES), [b"last"], "what is left out is not judged");
    }
}
