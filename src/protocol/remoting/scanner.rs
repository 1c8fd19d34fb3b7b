//! The words of JSON as RocketMQ's clients write it: what reading a header and reading a body have in common.
//!
//! Strings stay where they are unless they have escapes. Names, and keys of maps, may stand there without quotes.

use std::borrow::Cow;

use crate::limits;

/// Why a text is no JSON, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("it ends at byte {0} within a value")]
    End(usize),
    #[error("the byte {found:#04x} at {at} is out of place")]
    Unexpected { at: usize, found: u8 },
    #[error("the escape at byte {0} is none")]
    Escape(usize),
    #[error("it is deeper than {max} levels", max = limits::REMOTING_JSON_DEPTH_MAX)]
    Depth,
    #[error("it has more than {max} values", max = limits::REMOTING_JSON_VALUES_MAX)]
    Values,
}

/// A place in a text.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next byte that is no blank; it stays.
    #[inline]
    pub fn peek(&mut self) -> Result<u8, JsonError> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(JsonError::End(self.at))
    }

    /// Takes the next byte if it is this one.
    #[inline]
    pub fn take(&mut self, byte: u8) -> Result<bool, JsonError> {
        let is_there = self.peek()? == byte;
        self.at += usize::from(is_there);
        Ok(is_there)
    }

    pub fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.take(byte)? { Ok(()) } else { Err(self.unexpected()) }
    }

    /// The error of the byte that is next.
    pub fn unexpected(&self) -> JsonError {
        match self.bytes.get(self.at) {
            Some(&found) => JsonError::Unexpected { at: self.at, found },
            None => JsonError::End(self.at),
        }
    }

    /// Nothing may follow but blanks and zeros: C++ clients end a text with a line end.
    pub fn end(&mut self) -> Result<(), JsonError> {
        while self.bytes.get(self.at) == Some(&0) || self.peek().is_ok() {
            if self.bytes[self.at] != 0 {
                return Err(self.unexpected());
            }
            self.at += 1;
        }
        Ok(())
    }

    /// What stands between two places.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// Goes through the members of an object, whose `{` is next; `member` reads the value of each name.
    pub fn members(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, [u8]>) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.expect(b'{')?;
        while !self.take(b'}')? {
            let name = self.text()?;
            self.expect(b':')?;
            member(self, name)?;
            self.separator(b'}')?;
        }
        Ok(())
    }

    /// After a member: a comma, or the end, which stays. One comma too many at the end is no fault.
    #[inline]
    pub fn separator(&mut self, end: u8) -> Result<(), JsonError> {
        if self.take(b',')? || self.peek()? == end { Ok(()) } else { Err(self.unexpected()) }
    }

    /// A string, or a word without quotes.
    #[inline]
    pub fn text(&mut self) -> Result<Cow<'a, [u8]>, JsonError> {
        if self.peek()? == b'"' { self.string() } else { self.word().map(Cow::Borrowed) }
    }

    /// A string, whose quote is next.
    #[inline]
    pub fn string(&mut self) -> Result<Cow<'a, [u8]>, JsonError> {
        self.expect(b'"')?;
        let start = self.at;
        let rest = &self.bytes[start..];
        let length = memchr::memchr2(b'"', b'\\', rest).ok_or(JsonError::End(self.bytes.len()))?;
        if rest[length] == b'"' {
            self.at = start + length + 1;
            return Ok(Cow::Borrowed(&rest[..length]));
        }
        let mut text = Vec::with_capacity(rest.len().min(2 * length + 64));
        let mut from = start;
        self.at = start + length;
        loop {
            text.extend_from_slice(&self.bytes[from..self.at]);
            if self.bytes[self.at] == b'"' {
                self.at += 1;
                return Ok(Cow::Owned(text));
            }
            self.escape(&mut text)?;
            from = self.at;
            let length = memchr::memchr2(b'"', b'\\', &self.bytes[from..]);
            self.at = from + length.ok_or(JsonError::End(self.bytes.len()))?;
        }
    }

    /// Reads the escape whose backslash is next.
    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), JsonError> {
        let letter = *self.bytes.get(self.at + 1).ok_or(JsonError::End(self.at))?;
        let plain = match letter {
            b'"' | b'\\' | b'/' | b'\'' => letter,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'u' => return self.unicode_escape(text),
            _ => return Err(JsonError::Escape(self.at)),
        };
        text.push(plain);
        self.at += 2;
        Ok(())
    }

    fn unicode_escape(&mut self, text: &mut Vec<u8>) -> Result<(), JsonError> {
        let first = self.code_unit(self.at)?;
        self.at += 6;
        if first < 0x80 {
            text.push(first as u8);
            return Ok(());
        }
        let mut character = char::from_u32(first);
        if (0xD800..0xDC00).contains(&first)
            && let Ok(second @ 0xDC00..=0xDFFF) = self.code_unit(self.at)
        {
            character = char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00));
            self.at += 6;
        }
        // Half of a pair is no character.
        let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    /// The four digits of an escape at `at`.
    fn code_unit(&self, at: usize) -> Result<u32, JsonError> {
        let digits = match self.bytes.get(at..at + 6) {
            Some([b'\\', b'u', digits @ ..]) => digits,
            _ => return Err(JsonError::Escape(at)),
        };
        digits.iter().try_fold(0, |unit, &digit| {
            let value = char::from(digit).to_digit(16).ok_or(JsonError::Escape(at))?;
            Ok(unit << 4 | value)
        })
    }

    /// A number, `true`, `null`, or a name without quotes: everything up to the next byte of JSON's own.
    #[inline]
    pub fn word(&mut self) -> Result<&'a [u8], JsonError> {
        self.peek()?;
        let rest = &self.bytes[self.at..];
        let is_letter =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_' | b'$');
        let length = rest.iter().position(|byte| !is_letter(byte)).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.unexpected());
        }
        self.at += length;
        Ok(&rest[..length])
    }

    /// Passes over a value, as deep as is allowed.
    pub fn skip(&mut self) -> Result<(), JsonError> {
        let mut open = Vec::new();
        loop {
            match self.peek()? {
                begin @ (b'{' | b'[') => {
                    if open.len() == limits::REMOTING_JSON_DEPTH_MAX {
                        return Err(JsonError::Depth);
                    }
                    open.push(if begin == b'{' { b'}' } else { b']' });
                    self.at += 1;
                }
                b'"' => drop(self.string()?),
                // Commas and colons are not looked at: this value means nothing to anybody.
                b',' | b':' if !open.is_empty() => self.at += 1,
                end if open.last() == Some(&end) => {
                    open.pop();
                    self.at += 1;
                }
                _ => drop(self.word()?),
            }
            if open.is_empty() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Result<Vec<u8>, JsonError> {
        Scanner::new(text.as_bytes()).string().map(Cow::into_owned)
    }

    #[test]
    fn strings_are_borrowed_unless_they_have_escapes() {
        assert!(matches!(Scanner::new(b" \"plain\" ").string(), Ok(Cow::Borrowed(b"plain"))));
        assert!(matches!(Scanner::new(b"\"a\\n\"").string(), Ok(Cow::Owned(_))));
    }

    #[test]
    fn escapes_are_those_of_json() {
        assert_eq!(string(r#""a\u0001b\u0002""#), Ok(b"a\x01b\x02".to_vec()));
        assert_eq!(string(r#""\"\\\/\b\f\n\r\t""#), Ok(b"\"\\/\x08\x0c\n\r\t".to_vec()));
        assert_eq!(string(r#""\u00e9\u4E2d""#), Ok("\u{e9}\u{4e2d}".into()));
        assert_eq!(string(r#""\ud83d\ude00""#), Ok("\u{1f600}".into()));
        assert_eq!(string(r#""\ud83dx""#), Ok("\u{fffd}x".into()));
        assert_eq!(string(r#""\ud83d\u0041""#), Ok("\u{fffd}A".into()));
    }

    #[test]
    fn what_is_no_string_is_refused() {
        for text in ["", "\"", "\"abc", r#""\"#, r#""\u12""#, r#""\u12g4""#, r#""\x41""#, "abc"] {
            assert!(string(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_passed_over_and_depth_is_bounded() {
        let mut scanner = Scanner::new(br#"{"a":[1,{"b":"}]"}],2:{{"q":1}:3}} ,"#);
        scanner.skip().expect("one value");
        assert_eq!(scanner.take(b','), Ok(true));
        let deep = "[".repeat(limits::REMOTING_JSON_DEPTH_MAX + 1);
        assert_eq!(Scanner::new(deep.as_bytes()).skip(), Err(JsonError::Depth));
        assert!(Scanner::new(b"[}").skip().is_err());
    }
}
