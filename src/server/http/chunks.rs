//! Sizes of chunks that are announced and cannot be taken. hyper reads them and says nothing before data comes, so a client
//! that announces more than a body may have, and sends nothing or little of it, would be waited for.
//!
//! hyper goes on with what it was given for as long as it can, so if that ends with a size, and was not handed out as data, that
//! size is what it waits for. If it ends with data, that is all that has come of a chunk since hyper read the last time, so a size
//! that stands right before it is that chunk's. Data that ends exactly as a size does, with a size after it, hides that one, and
//! so does a size within data one that stands before it: it is then waited for like any other.

use std::cell::Cell;

use crate::limits;

/// A line end, sixteen digits, a short extension and a line end. A longer extension is seen where it comes in one piece.
const TAIL_BYTES: usize = 96;

#[derive(Clone, Copy)]
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
    /// Of the last piece since it was given something: what came before that may have sizes in between.
    data: Cell<Tail>,
    /// Bytes that it was given in all.
    handed_bytes: Cell<u64>,
    /// Of the last piece of data.
    piece_bytes: Cell<u64>,
    /// What may be a size beyond that of any body, and how many bytes were given up to its end.
    large: Cell<Option<(u64, u64)>>,
}

impl Default for Tail {
    fn default() -> Self {
        Self { bytes: [0; TAIL_BYTES], count: 0 }
    }
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
        let (last, before) = self.bytes().split_last()?;
        let begin = memchr::memrchr(b'\n', before)? + 1;
        (*last == b'\n').then(|| size_of(&before[begin..]))?
    }
}

/// The size in a line without its line feed; what follows a semicolon is an extension, and means nothing (RFC 9112, 7.1.1).
fn size_of(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r")?;
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extension) = line.split_at(end);
    if !matches!(extension.trim_ascii_start().first(), None | Some(b';')) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

impl ChunkWatch {
    /// A body begins, or has ended.
    pub fn set_chunked(&self, is_chunked: bool) {
        self.is_chunked.set(is_chunked);
    }

    /// The parser is given this. `may_have_sizes`: it is no part of a body whose length is known.
    pub fn handed(&self, bytes: &[u8], may_have_sizes: bool) {
        if self.ends_with_data() {
            // What stood before that was looked at, and this goes on with it.
            self.large.set(None);
        }
        if may_have_sizes {
            self.find_large(bytes);
        }
        self.handed_bytes.set(self.handed_bytes.get() + bytes.len() as u64);
        self.handed.set(self.handed.get().push(bytes));
        self.data.set(Tail::default());
    }

    fn find_large(&self, bytes: &[u8]) {
        let mut begin = None;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let size = match begin.replace(end + 1) {
                Some(begin) => size_of(&bytes[begin..end]),
                // It may have begun in what came before.
                None => self.handed.get().push(&bytes[..=end]).size(),
            };
            if let Some(size) = size.filter(|&size| size > limits::HTTP_BODY_BYTES_MAX as u64) {
                self.large.set(Some((size, self.handed_bytes.get() + end as u64 + 1)));
            }
        }
    }

    pub fn is_chunked(&self) -> bool {
        self.is_chunked.get()
    }

    pub fn data_came(&self, data: &[u8]) {
        if self.is_chunked.get() {
            self.data.set(Tail::default().push(data));
            self.piece_bytes.set(data.len() as u64);
        }
    }

    fn ends_with_data(&self) -> bool {
        let data = self.data.get();
        data.count > 0 && self.handed.get().bytes().ends_with(data.bytes())
    }

    /// The size of the chunk whose data is waited for, if the parser has nothing left. Of one that has begun it is told when no
    /// body has it, while the first of its data is the last that came.
    pub fn awaited(&self) -> Option<u64> {
        if !self.is_chunked.get() {
            return None;
        }
        let large_before = |begin| self.large.get().filter(|&(_, end)| end == begin).map(|(size, _)| size);
        if !self.ends_with_data() {
            return self.handed.get().size().or_else(|| large_before(self.handed_bytes.get()));
        }
        large_before(self.handed_bytes.get() - self.piece_bytes.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awaited(pieces: &[(&str, &str)]) -> Option<u64> {
        let watch = ChunkWatch::default();
        watch.set_chunked(true);
        for (handed, data) in pieces {
            watch.handed(handed.as_bytes(), true);
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
    fn a_size_beyond_all_bodies_is_known_when_its_data_has_begun() {
        let data = "<Message>".repeat(5);
        let head = "POST / HTTP/1.1\r\n\r\n";
        let known = Some(0x70_0000);
        assert_eq!(awaited(&[(&format!("{head}700000\r\n{data}"), &data)]), known);
        assert_eq!(awaited(&[(head, ""), ("700", ""), (&format!("000\r\n{data}"), &data)]), known);
        assert_eq!(awaited(&[(&format!("{head}700000\r\n"), ""), (&data, &data)]), known);
        assert_eq!(awaited(&[(&format!("{head}3\r\nabc\r\n700000\r\n{data}"), &data)]), known);
        assert_eq!(awaited(&[(&format!("{head}600000\r\n{data}"), &data)]), None, "a body may have it");
        let within = "ab\r\n700000\r\ncd";
        assert_eq!(awaited(&[(&format!("{head}10000\r\n{within}"), within)]), None, "it is data");
        let pieces = [(&*format!("{head}10000\r\n{}", &within[..12]), &within[..12]), ("cd", "cd")];
        assert_eq!(awaited(&pieces), None, "it is data before data");
    }

    #[test]
    fn an_extension_is_passed_over() {
        let head = "POST / HTTP/1.1\r\n\r\n";
        let long = "x".repeat(1000);
        for extension in [";", ";a=b", " ; a=\"b;\\\"c\"", "\t;a", &format!(";{long}")] {
            let whole = format!("{head}700000{extension}\r\n");
            assert_eq!(awaited(&[(&whole, "")]), Some(0x70_0000), "{extension:?}");
            assert_eq!(awaited(&[(&format!("{whole}abc"), "abc")]), Some(0x70_0000), "{extension:?}");
            let (first, second) = whole.split_at(head.len() + 4);
            assert_eq!(
                awaited(&[(first, ""), (second, "")]).is_some(),
                extension.len() < 100,
                "{extension:?}"
            );
        }
        assert_eq!(awaited(&[(&format!("{head}ff;a=b\r\n"), "")]), Some(255));
    }

    #[test]
    fn data_is_no_size() {
        let data = "abc\r\nFFFFFFFF\r\n";
        assert_eq!(awaited(&[("\r\n\r\n1000\r\nabc\r\nFFFFFFFF\r\n", data)]), None);
        assert_eq!(awaited(&[("\r\n\r\n1000\r\n", ""), ("abc", "abc"), ("\r\nFF\r\n", "\r\nFF\r\n")]), None);
        for no_size in
            ["\r\n\r\n", "\r\nFF", "\r\nx\r\n", "\r\n+5\r\n", "FF\r\n", "\r\n5 a\r\n", "\r\n;a=b\r\n"]
        {
            assert_eq!(awaited(&[(no_size, "")]), None, "{no_size:?}");
        }
        let watch = ChunkWatch::default();
        watch.handed(b"\r\n\r\nFF\r\n", true);
        assert_eq!(watch.awaited(), None, "it is a body of a known length");
    }
}
