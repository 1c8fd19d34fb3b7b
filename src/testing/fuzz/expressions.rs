//! SQL92 expressions: arbitrary text is refused with a place in it, or understood, and then it can be asked of any message.

use crate::filter::{Expression, Subject};

/// Messages that are asked about: keys, tag and properties.
const SUBJECTS: [(&str, &str, &str); 4] = [
    ("", "", ""),
    ("k1 k2", "x", "a\x015\x02b\x01y\x02"),
    ("", "y", "a\x013000000000\x02b\x01true\x02a\x01-0.5\x02"),
    ("k", "", "a\x01\x02\x01\x02b"),
];

/// Reads `bytes` as an expression, and asks it.
pub fn fuzz_expression(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let expression: Expression = match text.parse() {
        Ok(expression) => expression,
        Err(error) => {
            let error: crate::filter::ExpressionError = error;
            assert!((1..=text.chars().count() + 1).contains(&error.place), "{text:?}: {error}");
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(expression.text(), text);
    // A comment may stand at the end.
    let twice = format!("NOT (NOT ({text}\n))").parse::<Expression>().ok();
    for (key, tag, properties) in SUBJECTS {
        let [key, tag, properties] = [key, tag, properties].map(str::as_bytes);
        let subject = Subject { key, tag, properties };
        let matches = expression.matches(&subject);
        assert!(twice.as_ref().is_none_or(|twice| twice.matches(&subject) == matches), "{text:?}");
        let has_tag = |tags: &[Box<[u8]>]| tags.iter().any(|known| **known == *tag);
        assert!(!matches || expression.tags().is_none_or(has_tag), "{text:?} is true without its tags");
    }
}
