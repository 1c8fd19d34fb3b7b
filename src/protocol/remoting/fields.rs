//! A header's fields (`extFields`): names and values as text, which clients write in several ways.
//!
//! As in RocketMQ, a number that cannot be read is a field that is not there.

use std::borrow::Cow;
use std::str::FromStr;

/// What a header says beside its fixed parts, in the order in which it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    entries: Vec<Field<'a>>,
}

/// A name and its value.
type Field<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// A request without a field that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the custom field <{0}> is null")]
pub struct FieldError(pub &'static str);

/// The value of a field that goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValue<'a> {
    Text(&'a str),
    /// Text of a client, which nobody has checked.
    Bytes(&'a [u8]),
    Number(i64),
    Boolean(bool),
}

impl<'a> Fields<'a> {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { entries: Vec::with_capacity(count) }
    }

    pub(super) fn push(&mut self, name: Cow<'a, [u8]>, value: Cow<'a, [u8]>) {
        self.entries.push((name, value));
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of that name; the last one when there are several.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let found = self.entries.iter().rfind(|(known, _)| **known == *name.as_bytes());
        found.map(|(_, value)| &**value)
    }

    /// The value as text; bytes that are none are shown as such.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.bytes(name).map(String::from_utf8_lossy)
    }

    pub fn required_text(&self, name: &'static str) -> Result<Cow<'_, str>, FieldError> {
        self.text(name).ok_or(FieldError(name))
    }

    /// The value as a number of any type.
    pub fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        std::str::from_utf8(self.bytes(name)?).ok()?.trim_ascii().parse().ok()
    }

    pub fn required_number<T: FromStr>(&self, name: &'static str) -> Result<T, FieldError> {
        self.number(name).ok_or(FieldError(name))
    }

    /// Whether the value says yes: `true`, however it is written, or `1`, as the clients in C++ have it.
    pub fn boolean(&self, name: &str) -> bool {
        self.optional_boolean(name).unwrap_or(false)
    }

    /// The same, where a field that is not there, or empty, means something else.
    pub fn optional_boolean(&self, name: &str) -> Option<bool> {
        let value = self.bytes(name)?.trim_ascii();
        (!value.is_empty()).then(|| value == b"1" || value.eq_ignore_ascii_case(b"true"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(entries: &[(&'static str, &'static str)]) -> Fields<'static> {
        let mut fields = Fields::default();
        for (name, value) in entries {
            fields.push(Cow::Borrowed(name.as_bytes()), Cow::Borrowed(value.as_bytes()));
        }
        fields
    }

    #[test]
    fn values_are_read_as_every_client_writes_them() {
        let fields = fields(&[
            ("n", " 42"),
            ("x", "forty"),
            ("t", "True"),
            ("one", "1"),
            ("zero", "0"),
            ("empty", ""),
            ("twice", "1"),
            ("twice", "2"),
        ]);
        assert_eq!((fields.number("n"), fields.number::<i32>("x")), (Some(42), None));
        assert_eq!(fields.number::<i64>("empty"), None);
        assert_eq!(fields.number("twice"), Some(2));
        let said = ["t", "one", "zero", "x", "none", "empty"].map(|name| fields.boolean(name));
        assert_eq!(said, [true, true, false, false, false, false]);
        assert_eq!(fields.optional_boolean("empty"), None);
        assert_eq!(fields.required_number::<i64>("x"), Err(FieldError("x")));
        assert_eq!(fields.required_text("x").as_deref(), Ok("forty"));
    }
}
