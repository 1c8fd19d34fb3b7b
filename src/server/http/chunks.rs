//! Sizes of chunks that are announced and cannot be taken. hyper reads them and says nothing before data comes, so a client
//! that announces more than a body may have, and sends nothing, would be waited for.
//!
//! hyper goes on with what it was given for as long as it can, so if that ends with a size, and was not handed out as data, that
//! size is what it waits for. Data that ends exactly as a size does, with a size after it, hides that one, which is then waited
//! for like any other.

use std::cell::Cell;

/// A line end, sixteen digits and a line end, and room for some zeros before them.
const TAIL_BYTES: usize = 24;

#[derive(Clone, Copy, Default)]
struct Tail {
    bytes: [u8; TAIL_BYTES],
    /// How many of them, at the end, there are.
    count: usize,
}

/// The end of what one connection's parser was given, and of what it made of it.
#[derive(Default)]
pub(super) struct ChunkWatch {
    /// Whether a body in chunks is being read.
    is_chunked: Cell<bool>,
    handed: Cell<Tail>,
    /// Since it was given something.
    data: Cell<Tail>,
}

impl Tail {
    fn push(mut self, bytes: &[u8]) -> Self {
        let new = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        self.bytes.copy_within(new.len().., 0);
        self.bytes[TAIL_BYTES - new.len()..].copy_from_slice(new);
        self.count = TAIL_BYTES.min(self.count + new.len());
        self
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[TAIL_BYTES - self.count..]
    }

    /// The size that it ends with, as a line of its own.
    fn size(&self) -> Option<u64> {
        let line = self.bytes().strip_suffix(b"\r\n")?;
        let begin = line.iter().rposition(|&byte| byte == b'\n')? + 1;
        let digits = std::str::from_utf8(&line[begin..]).ok()?;
        u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
    }
}

impl ChunkWatch {
    /// A body begins, or has ended.
    pub fn set_chunked(&self, is_chunked: bool) {
        self.is_chunked.set(is_chunked);
    }

    pub fn handed(&self, bytes: &[u8]) {
        self.handed.set(self.handed.get().push(bytes));
        self.data.set(Tail::default());
    }

    pub fn data_came(&self, data: &[u8]) {
        if self.is_chunked.get() {
            self.data.set(self.data.get().push(data));
        }
    }

    /// The size of the chunk whose data is waited for, if the parser has nothing left.
    pub fn awaited(&self) -> Option<u64> {
        if !self.is_chunked.get() {
            return None;
        }
        let (handed, data) = (self.handed.get(), self.data.get());
        let is_data = data.count > 0 && handed.bytes().ends_with(data.bytes());
        if is_data { None } else { handed.size() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awaited(pieces: &[(&str, &str)]) -> Option<u64> {
        let watch = ChunkWatch::default();
        watch.set_chunked(true);
        for (handed, data) in pieces {
            watch.handed(handed.as_bytes());
            watch.data_came(data.as_bytes());
        }
        watch.awaited()
    }

    #[test]
    fn a_size_is_known_while_its_data_is_waited_for() {
        assert_eq!(awaited(&[("POST / HTTP/1.1\r\n\r\nFFFFFFFFFFFFFFFF\r\n", "")]), Some(u64::MAX));
        assert_eq!(
            awaited(&[("POST / HTTP/1.1\r\n\r\n", ""), ("f", ""), ("F\r", ""), ("\n", "")]),
            Some(255)
        );
        assert_eq!(awaited(&[("\r\n\r\n3\r\nabc\r\n00010\r\n", "abc")]), Some(16));
        assert_eq!(awaited(&[("3\r\nabc", "abc"), ("\r\n8\r\n", "")]), Some(8));
    }

    #[test]
    fn data_is_no_size() {
        let data = "abc\r\nFFFFFFFF\r\n";
        assert_eq!(awaited(&[("\r\n\r\n1000\r\nabc\r\nFFFFFFFF\r\n", data)]), None);
        assert_eq!(awaited(&[("\r\n\r\n1000\r\n", ""), ("abc", "abc"), ("\r\nFF\r\n", "\r\nFF\r\n")]), None);
        for no_size in ["\r\n\r\n", "\r\nFF", "\r\nx\r\n", "\r\n+5\r\n", "FF\r\n", "\r\n5;a=b\r\n"] {
            assert_eq!(awaited(&[(no_size, "")]), None, "{no_size:?}");
        }
        let watch = ChunkWatch::default();
        watch.handed(b"\r\n\r\nFF\r\n");
        assert_eq!(watch.awaited(), None, "it is a body of a known length");
    }
}
