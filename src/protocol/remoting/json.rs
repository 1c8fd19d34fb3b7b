//! Reads the JSON of a body, tolerantly: keys of maps without quotes, or objects; numbers as strings; names of variants or
//! their numbers; line ends after the text.
//!
//! Bodies are small, and read as a whole. What they may become in memory is bounded by depth and count.

use std::borrow::Cow;

use super::scanner::{JsonError, Scanner};
use crate::limits;

/// A value of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    Boolean(bool),
    /// As it is written: a number, or a word that means nothing to JSON.
    Word(&'a str),
    Text(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    Object(Vec<(Value<'a>, Value<'a>)>),
}

/// Stands for everything that is not there.
const NULL: &Value<'static> = &Value::Null;

impl<'a> Value<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, JsonError> {
        Self::parse_up_to(bytes, limits::REMOTING_JSON_VALUES_MAX)
    }

    /// The same of a file that a person names: it may be as large as it is.
    pub fn parse_file(bytes: &'a [u8]) -> Result<Self, JsonError> {
        Self::parse_up_to(bytes, usize::MAX)
    }

    fn parse_up_to(bytes: &'a [u8], values_left: usize) -> Result<Self, JsonError> {
        let mut reader = Reader { scanner: Scanner::new(bytes), values_left };
        let value = reader.value(0)?;
        reader.scanner.end()?;
        Ok(value)
    }

    /// The member of that name, the last when there are several; null when there is none.
    pub fn get(&self, name: &str) -> &Value<'a> {
        let found = self.entries().iter().rfind(|(key, _)| key.as_text() == Some(name));
        found.map_or(NULL, |(_, value)| value)
    }

    /// The items of an array; none of anything else.
    pub fn items(&self) -> &[Value<'a>] {
        if let Value::Array(items) = self { items } else { &[] }
    }

    /// The members of an object, or entries of a map; none of anything else.
    pub fn entries(&self) -> &[(Value<'a>, Value<'a>)] {
        if let Value::Object(entries) = self { entries } else { &[] }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// A string, or a number as it is written.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            Value::Word(word) => Some(word),
            Value::Null | Value::Boolean(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// A number, in quotes or not.
    pub fn as_number(&self) -> Option<i64> {
        self.as_text()?.trim_ascii().parse().ok()
    }

    /// A truth value, in quotes or not, or a number.
    pub fn as_boolean(&self) -> Option<bool> {
        match self {
            Value::Boolean(value) => Some(*value),
            other => match other.as_text()? {
                "1" => Some(true),
                "0" => Some(false),
                text if text.eq_ignore_ascii_case("true") => Some(true),
                text if text.eq_ignore_ascii_case("false") => Some(false),
                _ => None,
            },
        }
    }

    /// Which of `names` it is, by name or by number.
    pub fn as_variant(&self, names: &[&str]) -> Option<usize> {
        let text = self.as_text()?;
        let named = names.iter().position(|name| *name == text);
        named.or_else(|| text.parse().ok().filter(|number| *number < names.len()))
    }
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    values_left: usize,
}

impl<'a> Reader<'a> {
    /// `depth` is how many arrays and objects the value lies in.
    fn value(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        self.values_left = self.values_left.checked_sub(1).ok_or(JsonError::Values)?;
        match self.scanner.peek()? {
            b'{' => self.object(below(depth)?),
            b'[' => self.array(below(depth)?),
            b'"' => self.text(),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        let mut entries = Vec::new();
        self.scanner.expect(b'{')?;
        while !self.scanner.take(b'}')? {
            let key = match self.scanner.peek()? {
                b'"' => self.text()?,
                b'{' => self.value(depth)?,
                // A key that says `null` is that text.
                _ => Value::Word(as_str(self.scanner.word()?)),
            };
            self.scanner.expect(b':')?;
            entries.push((key, self.value(depth)?));
            self.scanner.separator(b'}')?;
        }
        Ok(Value::Object(entries))
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        let mut items = Vec::new();
        self.scanner.expect(b'[')?;
        while !self.scanner.take(b']')? {
            items.push(self.value(depth)?);
            self.scanner.separator(b']')?;
        }
        Ok(Value::Array(items))
    }

    /// Bytes that are no text are shown as such.
    fn text(&mut self) -> Result<Value<'a>, JsonError> {
        Ok(Value::Text(match self.scanner.string()? {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }))
    }

    fn word(&mut self) -> Result<Value<'a>, JsonError> {
        Ok(match self.scanner.word()? {
            b"null" => Value::Null,
            b"true" => Value::Boolean(true),
            b"false" => Value::Boolean(false),
            word => Value::Word(as_str(word)),
        })
    }
}

fn below(depth: usize) -> Result<usize, JsonError> {
    if depth < limits::REMOTING_JSON_DEPTH_MAX { Ok(depth + 1) } else { Err(JsonError::Depth) }
}

fn as_str(word: &[u8]) -> &str {
    std::str::from_utf8(word).expect("a word is made of ASCII letters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_whatever_they_look_like() {
        let text = br#"{ "clientID":"c@1", "n":"42", "m": -7, "on":"true", "off":0, "none":null,
            "list":["a","b",], "consumeType":1, "named":"CONSUME_PASSIVELY" }
"#;
        let value = Value::parse(text).expect("an object");
        assert_eq!(value.get("clientID").as_text(), Some("c@1"));
        assert_eq!((value.get("n").as_number(), value.get("m").as_number()), (Some(42), Some(-7)));
        assert_eq!((value.get("on").as_boolean(), value.get("off").as_boolean()), (Some(true), Some(false)));
        assert!(value.get("none").is_null() && value.get("missing").is_null());
        assert_eq!(value.get("missing").get("further").as_text(), None);
        let texts: Vec<_> = value.get("list").items().iter().filter_map(Value::as_text).collect();
        assert_eq!(texts, ["a", "b"]);
        let names = ["CONSUME_ACTIVELY", "CONSUME_PASSIVELY"];
        assert_eq!(value.get("consumeType").as_variant(&names), Some(1));
        assert_eq!(value.get("named").as_variant(&names), Some(1));
        assert_eq!(value.get("n").as_variant(&names), None);
    }

    /// As Java writes a map of queues, and one of numbers.
    #[test]
    fn keys_may_be_objects_and_numbers() {
        let value =
            Value::parse(br#"{"t":{{"brokerName":"b","queueId":0,"topic":"t"}:12},0:"x"}"#).expect("a body");
        let [(key, offset)] = value.get("t").entries() else { panic!("one entry") };
        assert_eq!((key.get("brokerName").as_text(), key.get("queueId").as_number()), (Some("b"), Some(0)));
        assert_eq!(offset.as_number(), Some(12));
        assert_eq!(value.get("0").as_text(), Some("x"));
    }

    #[test]
    fn what_is_no_text_is_shown_as_such() {
        let value = Value::parse(b"[\"a\xff\"]").expect("an array");
        assert_eq!(value.items()[0].as_text(), Some("a\u{fffd}"));
    }

    #[test]
    fn depth_and_count_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Value::parse(nested(limits::REMOTING_JSON_DEPTH_MAX).as_bytes()).is_ok());
        let deeper = nested(limits::REMOTING_JSON_DEPTH_MAX + 1);
        assert_eq!(Value::parse(deeper.as_bytes()), Err(JsonError::Depth));
        let many = format!("[{}]", "0,".repeat(limits::REMOTING_JSON_VALUES_MAX));
        assert_eq!(Value::parse(many.as_bytes()), Err(JsonError::Values));
    }

    #[test]
    fn what_is_no_json_is_refused_wherever_it_ends() {
        let text = br#"{"a":[1,{"b":"c"}],d:null}"#;
        assert!(Value::parse(text).is_ok());
        for end in 0..text.len() {
            assert!(Value::parse(&text[..end]).is_err(), "cut at {end}");
        }
        for text in ["", "{\"a\" 1}", "[1 2]", "{\"a\":1}}", "]", ":"] {
            assert!(Value::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
