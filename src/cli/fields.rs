//! Finds key and tag in a line.
//!
//! What a program on another system adds to a file is none of them: a byte order mark at a line's start, a carriage return
//! at its end, blanks around a field. Nobody sees these, and a key with one of them would never be found.

/// U+FEFF in UTF-8, which some programs put at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where key and tag stand: numbers of fields, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldColumns {
    /// `None`: a tab, a comma or a blank, whichever comes.
    pub delimiter: Option<u8>,
    pub key: Option<usize>,
    pub tag: Option<usize>,
}

impl FieldColumns {
    /// Key and tag of a line; empty where the line has no such field.
    pub fn of<'a>(&self, line: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        if self.key.is_none() && self.tag.is_none() {
            return (&[], &[]);
        }
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        (self.field(line, self.key), self.field(line, self.tag))
    }

    fn field<'a>(&self, line: &'a [u8], number: Option<usize>) -> &'a [u8] {
        let Some(number) = number else { return &[] };
        let is_delimiter = |byte: &u8| match self.delimiter {
            Some(delimiter) => *byte == delimiter,
            None => b"\t, ".contains(byte),
        };
        // With it goes a carriage return at the line's end.
        line.split(is_delimiter).nth(number - 1).unwrap_or_default().trim_ascii()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_one() {
        let places = FieldColumns { delimiter: Some(b','), key: Some(2), tag: Some(1) };
        assert_eq!(places.of(b"a,bc,d"), (&b"bc"[..], &b"a"[..]));
        assert_eq!(places.of(b"only"), (&b""[..], &b"only"[..]));
        let any = FieldColumns { delimiter: None, ..places };
        for line in [&b"a b c"[..], b"a\tb\tc", b"a,b c"] {
            assert_eq!(any.of(line), (&b"b"[..], &b"a"[..]));
        }
        assert_eq!(places.of(b",,"), (&b""[..], &b""[..]));
        for line in [&b"a,k2\r"[..], b"\xef\xbb\xbfa, k2 ", b"\xef\xbb\xbf a\t,\tk2\r\n"] {
            assert_eq!(places.of(line), (&b"k2"[..], &b"a"[..]), "{line:?}");
        }
        assert_eq!(places.of(b"a,new york\r").0, b"new york");
        assert_eq!(FieldColumns { delimiter: None, key: None, tag: None }.of(b"a,b"), (&b""[..], &b""[..]));
    }
}
