//! Finds key and tag in a line.

/// Where key and tag stand: numbers of fields, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldPlaces {
    /// `None`: a tab, a comma or a blank, whichever comes.
    pub delimiter: Option<u8>,
    pub key: Option<usize>,
    pub tag: Option<usize>,
}

impl FieldPlaces {
    /// Key and tag of a line; empty where the line has no such field.
    pub fn of<'a>(&self, line: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        (self.field(line, self.key), self.field(line, self.tag))
    }

    fn field<'a>(&self, line: &'a [u8], number: Option<usize>) -> &'a [u8] {
        let Some(number) = number else { return &[] };
        let is_delimiter = |byte: &u8| match self.delimiter {
            Some(delimiter) => *byte == delimiter,
            None => b"\t, ".contains(byte),
        };
        line.split(is_delimiter).nth(number - 1).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_one() {
        let places = FieldPlaces { delimiter: Some(b','), key: Some(2), tag: Some(1) };
        assert_eq!(places.of(b"a,bc,d"), (&b"bc"[..], &b"a"[..]));
        assert_eq!(places.of(b"only"), (&b""[..], &b"only"[..]));
        let any = FieldPlaces { delimiter: None, ..places };
        for line in [&b"a b c"[..], b"a\tb\tc", b"a,b c"] {
            assert_eq!(any.of(line), (&b"b"[..], &b"a"[..]));
        }
        assert_eq!(places.of(b",,"), (&b""[..], &b""[..]));
        assert_eq!(FieldPlaces { delimiter: None, key: None, tag: None }.of(b"a,b"), (&b""[..], &b""[..]));
    }
}
