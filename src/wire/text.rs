//! What a key and a tag may be: text that can be asked for. One rule for every way in, so that nothing is stored that nobody
//! finds: the client library checks it, and the broker of whatever comes in, over any protocol.
//!
//! A key field holds the message's keys, separated by blanks, as RocketMQ's `KEYS` does (`MessageConst.KEY_SEPARATOR`). A
//! filter holds tags, separated by `||`, with blanks around each that do not count (`FilterAPI.java`).

/// U+FEFF in UTF-8: a byte order mark, which no screen shows.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// What separates tags in a filter.
const TAG_SEPARATOR: &[u8] = b"||";

/// Why nobody could ask for a key or a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error(
        "a {field} has the control character {byte:#04x} in it, which nobody can see and so nobody asks for{hint}",
        hint = hint(.byte)
    )]
    Control { field: &'static str, byte: u8 },
    #[error("a {field} begins with a byte order mark, which nobody can see and so nobody asks for")]
    ByteOrderMark { field: &'static str },
    #[error("a {field} is no UTF-8 text, and nothing else can be asked for")]
    NotText { field: &'static str },
    #[error("a tag has `||` in it, which separates tags in a filter")]
    TagSeparator,
    #[error("a tag has blanks around it, which do not count in a filter")]
    TagBlanks,
}

fn hint(byte: &u8) -> &'static str {
    if *byte == b'\r' { " (a line's end from another system?)" } else { "" }
}

/// Whether the keys of a message can be asked for.
pub fn check_key(key: &[u8]) -> Result<(), TextError> {
    if key.is_empty() { Ok(()) } else { check("key", key).map(|_| ()) }
}

/// Whether the tag of a message can be asked for.
pub fn check_tag(tag: &[u8]) -> Result<(), TextError> {
    // Most messages have none. To compare nothing with nothing is not free: some processors take microseconds for it where no
    // memory is at the address of an empty text.
    if tag.is_empty() {
        return Ok(());
    }
    let text = check("tag", tag)?;
    if memchr::memmem::find(tag, TAG_SEPARATOR).is_some() {
        return Err(TextError::TagSeparator);
    }
    if text.trim() == text { Ok(()) } else { Err(TextError::TagBlanks) }
}

fn check<'a>(field: &'static str, bytes: &'a [u8]) -> Result<&'a str, TextError> {
    if let Some(&byte) = bytes.iter().find(|byte| byte.is_ascii_control()) {
        return Err(TextError::Control { field, byte });
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        return Err(TextError::ByteOrderMark { field });
    }
    std::str::from_utf8(bytes).map_err(|_| TextError::NotText { field })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked_for_passes() {
        for text in ["", "4711", "new york", " a  b ", "sch\u{f6}n", "a|b", "*", "\u{feff}"] {
            let passes = text != "\u{feff}";
            assert_eq!(check_key(text.as_bytes()).is_ok(), passes, "{text:?}");
        }
        for text in ["", "fruit", "new york", "a|b", "*", "sch\u{f6}n"] {
            assert_eq!(check_tag(text.as_bytes()), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn what_nobody_could_ask_for_is_refused() {
        for text in [&b"k2\r"[..], b"a\tb", b"\x01", b"\x7f", b"a\0"] {
            assert!(matches!(check_key(text), Err(TextError::Control { field: "key", .. })), "{text:?}");
            assert!(matches!(check_tag(text), Err(TextError::Control { field: "tag", .. })), "{text:?}");
        }
        assert_eq!(check_key(b"\xff"), Err(TextError::NotText { field: "key" }));
        assert_eq!(check_tag(b"\xef\xbb\xbffruit"), Err(TextError::ByteOrderMark { field: "tag" }));
        assert_eq!(check_tag(b"a||b"), Err(TextError::TagSeparator));
        for text in [" a", "a ", " ", "a\u{a0}"] {
            assert_eq!(check_tag(text.as_bytes()), Err(TextError::TagBlanks), "{text:?}");
        }
    }
}
