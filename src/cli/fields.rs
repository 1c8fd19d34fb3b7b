//! Finds key and tag in a line.
//!
//! What a program on another system adds to a file is none of them: a byte order mark at a line's start, a carriage return
//! at its end, blanks around a field. Nobody sees these, and a key with one of them would never be found.
//!
//! Where the delimiter is named, a field may be in double quotes, as in CSV (RFC 4180): delimiters in it are its own, and two
//! quotes are one. A line ends at its newline all the same, so a quoted field has none in it.

use std::borrow::Cow;

use csv_core::{ReadFieldResult, Reader, ReaderBuilder, Terminator};

/// U+FEFF in UTF-8, which some programs put at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where key and tag stand: numbers of fields, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldColumns {
    /// `None`: a tab, a comma or a blank, whichever comes, and quotes are as any other character.
    pub delimiter: Option<u8>,
    pub key: Option<usize>,
    pub tag: Option<usize>,
}

/// Its own where quotes were taken off, else a part of its line.
type Field<'a> = Cow<'a, [u8]>;

/// Takes key and tag out of lines.
pub struct Fields {
    pub columns: FieldColumns,
    /// Of lines with quotes.
    quoted: Option<Reader>,
}

/// A quoted field has no end in its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("has a field that begins with a quote and does not end with one")]
pub struct OpenQuote;

impl Fields {
    pub fn new(columns: FieldColumns) -> Self {
        let reader =
            |delimiter| ReaderBuilder::new().delimiter(delimiter).terminator(Terminator::Any(b'\n')).build();
        Self { columns, quoted: columns.delimiter.filter(|delimiter| *delimiter != b'"').map(reader) }
    }

    /// Key and tag of a line; empty where the line has no such field.
    pub fn of<'a>(&mut self, line: &'a [u8]) -> Result<(Field<'a>, Field<'a>), OpenQuote> {
        let FieldColumns { key, tag, .. } = self.columns;
        if key.is_none() && tag.is_none() {
            return Ok((Cow::Borrowed(&[]), Cow::Borrowed(&[])));
        }
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        match &mut self.quoted {
            Some(reader) if memchr::memchr(b'"', line).is_some() => {
                let fields = quoted_fields(reader, line, key.max(tag).unwrap_or(0))?;
                let field = |number: Option<usize>| {
                    let field = number.and_then(|number| fields.get(number - 1));
                    Cow::Owned(field.map_or_else(Vec::new, |field| field.trim_ascii().to_vec()))
                };
                Ok((field(key), field(tag)))
            }
            _ => Ok((Cow::Borrowed(self.plain(line, key)), Cow::Borrowed(self.plain(line, tag)))),
        }
    }

    fn plain<'a>(&self, line: &'a [u8], number: Option<usize>) -> &'a [u8] {
        let Some(number) = number else { return &[] };
        let is_delimiter = |byte: &u8| match self.columns.delimiter {
            Some(delimiter) => *byte == delimiter,
            None => b"\t, ".contains(byte),
        };
        // With it goes a carriage return at the line's end.
        line.split(is_delimiter).nth(number - 1).unwrap_or_default().trim_ascii()
    }
}

/// The first `count` fields of a line.
fn quoted_fields(reader: &mut Reader, line: &[u8], count: usize) -> Result<Vec<Vec<u8>>, OpenQuote> {
    reader.reset();
    let (mut fields, mut field) = (Vec::new(), Vec::new());
    // No field is longer than its line, so there is room for each.
    let mut text = vec![0; line.len() + 1];
    for mut rest in [line, b"\n"] {
        while !rest.is_empty() {
            let (result, read, written) = reader.read_field(rest, &mut text);
            field.extend_from_slice(&text[..written]);
            rest = &rest[read..];
            if let ReadFieldResult::Field { .. } = result {
                fields.push(std::mem::take(&mut field));
                if fields.len() == count {
                    return Ok(fields);
                }
            }
        }
    }
    // The newline ended the last field, unless it was within quotes.
    if field.is_empty() { Ok(fields) } else { Err(OpenQuote) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(columns: FieldColumns, line: &[u8]) -> Result<(String, String), OpenQuote> {
        let text = |field: Cow<'_, [u8]>| String::from_utf8(field.into_owned()).expect("UTF-8");
        Fields::new(columns).of(line).map(|(key, tag)| (text(key), text(tag)))
    }

    fn well(columns: FieldColumns, line: &[u8]) -> (String, String) {
        of(columns, line).expect("every quote has its end")
    }

    #[test]
    fn fields_are_counted_from_one() {
        let places = FieldColumns { delimiter: Some(b','), key: Some(2), tag: Some(1) };
        let pair = |key: &str, tag: &str| (key.to_owned(), tag.to_owned());
        assert_eq!(well(places, b"a,bc,d"), pair("bc", "a"));
        assert_eq!(well(places, b"only"), pair("", "only"));
        let any = FieldColumns { delimiter: None, ..places };
        for line in [&b"a b c"[..], b"a\tb\tc", b"a,b c"] {
            assert_eq!(well(any, line), pair("b", "a"));
        }
        assert_eq!(well(places, b",,"), pair("", ""));
        for line in [&b"a,k2\r"[..], b"\xef\xbb\xbfa, k2 ", b"\xef\xbb\xbf a\t,\tk2\r\n"] {
            assert_eq!(well(places, line), pair("k2", "a"), "{line:?}");
        }
        assert_eq!(well(places, b"a,new york\r").0, "new york");
        assert_eq!(well(FieldColumns { delimiter: None, key: None, tag: None }, b"a,b"), pair("", ""));
    }

    #[test]
    fn quotes_are_as_in_csv_where_the_delimiter_is_named() {
        let places = FieldColumns { delimiter: Some(b';'), key: Some(2), tag: Some(3) };
        for (line, key, tag) in [
            (&b"1;\"Smith; John\";red"[..], "Smith; John", "red"),
            (&b"\xef\xbb\xbf\"1\";\"a \"\"b\"\"\";\"red\"\r"[..], "a \"b\"", "red"),
            (&b"1;\"\";red"[..], "", "red"),
            (&b"1;in\"side;red"[..], "in\"side", "red"),
            (&b"1;\"k\""[..], "k", ""),
            (&b"\"1;2\""[..], "", ""),
        ] {
            assert_eq!(well(places, line), (key.to_owned(), tag.to_owned()), "{line:?}");
        }
        assert_eq!(of(places, b"1;\"open;red"), Err(OpenQuote));
        assert_eq!(of(places, b"1;k;t;\"open"), Ok(("k".into(), "t".into())), "nobody asks for that one");
        let any = FieldColumns { delimiter: None, key: Some(1), tag: None };
        assert_eq!(well(any, b"\"a,b\"").0, "\"a");
        let quote = FieldColumns { delimiter: Some(b'"'), key: Some(2), tag: None };
        assert_eq!(well(quote, b"a\"b\"c").0, "b");
    }

    #[test]
    fn one_reader_serves_all_lines() {
        let mut fields = Fields::new(FieldColumns { delimiter: Some(b','), key: Some(1), tag: None });
        assert_eq!(fields.of(b"\"open"), Err(OpenQuote));
        for line in [&b"\"a,b\",c"[..], b"plain,c", b"\"a,b\""] {
            assert!(fields.of(line).is_ok_and(|(key, _)| !key.is_empty()), "{line:?}");
        }
    }
}
