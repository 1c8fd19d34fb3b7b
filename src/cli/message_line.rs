//! A message as one line of JSON, read: what `consume -o json` and the `message` commands print, or what somebody writes by
//! hand. `message_json` has the members.
//!
//! A line with an `offset` is a copy of a stored message: its properties may have any names. In one without, names that have a
//! meaning of their own are refused, as they are of every producer.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::cli::calendar::parse_timestamp;
use crate::client::{Message, Original};
use crate::limits;
use crate::types::{QueueNumber, Timestamp};
use crate::wire::inflate::inflate;
use crate::wire::origin::{Attributes, BodyEncoding, Origin};
use crate::wire::properties::{self, check_incoming, names};

/// Bytes of the longest line: a body of control characters takes six times its bytes, and is there a second time where it was
/// compressed; so do key, tag and properties.
pub const LINE_BYTES_MAX: usize = 8 * limits::BODY_BYTES_MAX
    + 12 * (limits::KEY_BYTES_MAX + limits::TAG_BYTES_MAX + limits::PROPERTIES_BYTES_MAX);

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageLine<'a> {
    key: Cow<'a, [u8]>,
    tag: Cow<'a, [u8]>,
    properties: Vec<u8>,
    body: Cow<'a, [u8]>,
    original: Option<Original>,
    /// The queue that it was in.
    pub queue: Option<QueueNumber>,
    /// When it is to be delivered, if that is later.
    pub deliver_at: Option<Timestamp>,
}

/// Why a line is no message.
#[derive(Debug, thiserror::Error)]
pub enum LineFault {
    #[error("is no message in JSON: {}", of_line(.0))]
    Json(serde_json::Error),
    #[error("is empty, where a message in JSON is to be: {{}} is one without anything in it")]
    Empty,
    #[error("begins with a byte order mark, which is no JSON: leave out its three bytes")]
    ByteOrderMark,
    #[error(
        "has `messages`, and so is no message but what `message find -o json` prints: `jq -c '.messages[]'` makes lines of it"
    )]
    Found,
    #[error("is no message in JSON: it is to be an object")]
    NoObject,
    #[error("has both `{0}` and `{1}`: leave one of them out")]
    Both(&'static str, &'static str),
    #[error("has `{0}`, which is no base64: {1}")]
    Base64(&'static str, base64::DecodeError),
    #[error("has `{name}`, and no `{needed}`, which it belongs to")]
    Without { name: &'static str, needed: &'static str },
    #[error("has a `body_encoding` of `{0}`: it is zlib, lz4 or zstd")]
    Encoding(String),
    #[error(
        "has a body that is not that in `stored_body_base64`: leave out the latter, and `body_encoding`, if the body was changed"
    )]
    OtherBody,
    #[error("has a `{0}` that is no time between 1970 and 9999: `{1}`")]
    Time(&'static str, String),
    #[error("has a `born_address` that is none: `{0}`")]
    Address(String),
    #[error("has the property `{name}`, which cannot be one: {reason}")]
    Property { name: String, reason: String },
    #[error("{0}. A line with an `offset` is a copy of a stored message, and may have it")]
    Reserved(String),
    #[error("has another `unique_id` than its property UNIQ_KEY: leave one of them out")]
    OtherId,
}

/// The members. Those of a later release, and those that are mistyped, are refused by name. What the broker that a message comes
/// from told of its place there is passed over: it gets another one.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(dead_code)]
struct Members<'a> {
    #[serde(borrow)]
    body: Option<Cow<'a, str>>,
    #[serde(borrow)]
    body_base64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stored_body_base64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    body_encoding: Option<Cow<'a, str>>,
    body_unreadable: Option<IgnoredAny>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key_base64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tag: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tag_base64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    unique_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    unique_id_base64: Option<Cow<'a, str>>,
    properties: Option<Pairs>,
    #[serde(borrow)]
    properties_raw: Option<Cow<'a, str>>,
    #[serde(borrow)]
    properties_raw_base64: Option<Cow<'a, str>>,
    committed: Option<bool>,
    #[serde(borrow)]
    born_address: Option<Cow<'a, str>>,
    flag: Option<u32>,
    deliveries_before: Option<u16>,
    born_time_ms: Option<u64>,
    #[serde(borrow)]
    born_time: Option<Cow<'a, str>>,
    deliver_at_ms: Option<u64>,
    /// `due`: as `delayed list` prints it.
    #[serde(borrow, alias = "due")]
    deliver_at: Option<Cow<'a, str>>,
    queue: Option<u32>,
    offset: Option<u64>,
    topic: Option<IgnoredAny>,
    id: Option<IgnoredAny>,
    store_time_ms: Option<IgnoredAny>,
    store_time: Option<IgnoredAny>,
    shard: Option<IgnoredAny>,
    position: Option<IgnoredAny>,
    index: Option<IgnoredAny>,
    handle: Option<IgnoredAny>,
    attempt: Option<IgnoredAny>,
    first_delivery_ms: Option<IgnoredAny>,
    lease_until_ms: Option<IgnoredAny>,
    checks: Option<IgnoredAny>,
    first_check_ms: Option<IgnoredAny>,
    next_check_ms: Option<IgnoredAny>,
}

/// Properties in the order in which they stand.
#[derive(Default)]
struct Pairs(Vec<(String, String)>);

impl LineFault {
    /// Of what is no object of these members.
    fn of(error: serde_json::Error) -> Self {
        match error.to_string().starts_with("unknown field `messages`") {
            true => LineFault::Found,
            false => LineFault::Json(error),
        }
    }
}

impl<'a> MessageLine<'a> {
    /// Reads a line. What has no time of birth was born `now`.
    pub fn parse(line: &'a [u8], now: Timestamp) -> Result<Self, LineFault> {
        if line.trim_ascii().is_empty() {
            return Err(LineFault::Empty);
        }
        if line.starts_with(BYTE_ORDER_MARK) {
            return Err(LineFault::ByteOrderMark);
        }
        // Members without their names would be taken in their order.
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err(LineFault::NoObject);
        }
        let mut members: Members<'a> = serde_json::from_slice(line).map_err(LineFault::of)?;
        let is_copy = members.offset.is_some();
        let (body, encoding) = members.body()?;
        let original = members.original(encoding, now)?;
        let properties = members.properties()?;
        if !is_copy {
            check_incoming(&properties).map_err(|error| LineFault::Reserved(error.to_string()))?;
        }
        Ok(Self {
            key: bytes(("key", members.key), ("key_base64", members.key_base64))?.unwrap_or_default(),
            tag: bytes(("tag", members.tag), ("tag_base64", members.tag_base64))?.unwrap_or_default(),
            properties,
            body,
            original,
            queue: members.queue.map(QueueNumber),
            deliver_at: time(("deliver_at", members.deliver_at), ("deliver_at_ms", members.deliver_at_ms))?,
        })
    }

    /// As it is sent.
    pub fn message(&self) -> Message<'_> {
        Message {
            key: &self.key,
            tag: &self.tag,
            properties: &self.properties,
            body: &self.body,
            queue: self.queue,
            original: self.original,
        }
    }
}

impl<'a> Members<'a> {
    /// The body as it is to be stored, and how it is compressed.
    fn body(&mut self) -> Result<(Cow<'a, [u8]>, BodyEncoding), LineFault> {
        let shown = bytes(("body", self.body.take()), ("body_base64", self.body_base64.take()))?;
        let Some(name) = self.body_encoding.take() else {
            if self.stored_body_base64.is_some() {
                return Err(LineFault::Without { name: "stored_body_base64", needed: "body_encoding" });
            }
            return Ok((shown.unwrap_or_default(), BodyEncoding::Plain));
        };
        let encodings = [BodyEncoding::Zlib, BodyEncoding::Lz4, BodyEncoding::Zstd];
        let encoding = encodings.into_iter().find(|encoding| encoding.name() == name);
        let encoding = encoding.ok_or_else(|| LineFault::Encoding(name.into_owned()))?;
        let Some(stored) = self.stored_body_base64.take() else {
            return Err(LineFault::Without { name: "body_encoding", needed: "stored_body_base64" });
        };
        let stored = decode("stored_body_base64", &stored)?;
        if let Some(shown) = shown
            && self.body_unreadable.is_none()
        {
            let plain = inflate(&stored, encoding, limits::BODY_BYTES_MAX);
            if plain.ok().as_deref() != Some(&*shown) {
                return Err(LineFault::OtherBody);
            }
        }
        Ok((stored.into(), encoding))
    }

    /// What the message keeps of the one that it is a copy of; `None`: it is no more than its parts.
    fn original(&mut self, encoding: BodyEncoding, now: Timestamp) -> Result<Option<Original>, LineFault> {
        let born_time = time(("born_time", self.born_time.take()), ("born_time_ms", self.born_time_ms))?;
        let origin = match self.born_address.take() {
            Some(text) => {
                let born: SocketAddr = text.parse().map_err(|_| LineFault::Address(text.into_owned()))?;
                Some(Origin::new(
                    self.flag.unwrap_or_default(),
                    self.deliveries_before.unwrap_or_default(),
                    born,
                ))
            }
            None => {
                let alone =
                    [("flag", self.flag.is_some()), ("deliveries_before", self.deliveries_before.is_some())];
                if let Some((name, _)) = alone.into_iter().find(|(_, is_there)| *is_there) {
                    return Err(LineFault::Without { name, needed: "born_address" });
                }
                None
            }
        };
        let attributes = Attributes { encoding, committed: self.committed.unwrap_or_default() };
        if born_time.is_none() && origin.is_none() && attributes == Attributes::default() {
            return Ok(None);
        }
        Ok(Some(Original { born_time: born_time.unwrap_or(now), attributes, origin }))
    }

    /// The text of the properties, with the unique id where it is not among them.
    fn properties(&mut self) -> Result<Vec<u8>, LineFault> {
        let raw = bytes(
            ("properties_raw", self.properties_raw.take()),
            ("properties_raw_base64", self.properties_raw_base64.take()),
        )?;
        let mut text = match (self.properties.take(), raw) {
            (Some(_), Some(_)) => return Err(LineFault::Both("properties", "properties_raw")),
            (Some(pairs), None) => pairs.text()?,
            (None, raw) => raw.unwrap_or_default().into_owned(),
        };
        let id = ("unique_id", self.unique_id.take());
        let Some(id) = bytes(id, ("unique_id_base64", self.unique_id_base64.take()))? else {
            return Ok(text);
        };
        match properties::get(&text, names::UNIQUE_ID) {
            Some(known) if known == &*id => {}
            Some(_) => return Err(LineFault::OtherId),
            None => append(&mut text, names::UNIQUE_ID, &id)?,
        }
        Ok(text)
    }
}

impl Pairs {
    fn text(&self) -> Result<Vec<u8>, LineFault> {
        let mut text = Vec::new();
        for (index, (name, value)) in self.0.iter().enumerate() {
            if self.0[..index].iter().any(|(earlier, _)| earlier == name) {
                let reason = "it is there twice".to_owned();
                return Err(LineFault::Property { name: name.clone(), reason });
            }
            append(&mut text, name, value.as_bytes())?;
        }
        Ok(text)
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of names and texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor)
    }
}

/// What is wrong, with its column: the number of the line is that of the input's, and known to whoever reads that.
fn of_line(error: &serde_json::Error) -> String {
    let (text, column) = (error.to_string(), error.column());
    match text.strip_suffix(&format!(" at line {} column {column}", error.line())) {
        Some(what) => format!("{what} at column {column}"),
        None => text,
    }
}

fn append(text: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), LineFault> {
    properties::append(text, name.as_bytes(), value)
        .map_err(|error| LineFault::Property { name: name.to_owned(), reason: error.to_string() })
}

type Named<'a, T> = (&'static str, Option<T>);

/// Bytes as text, or in base64.
fn bytes<'a>(
    (name, text): Named<'_, Cow<'a, str>>,
    (encoded_name, encoded): Named<'_, Cow<'a, str>>,
) -> Result<Option<Cow<'a, [u8]>>, LineFault> {
    match (text, encoded) {
        (Some(_), Some(_)) => Err(LineFault::Both(name, encoded_name)),
        (None, None) => Ok(None),
        (Some(Cow::Borrowed(text)), None) => Ok(Some(Cow::Borrowed(text.as_bytes()))),
        (Some(Cow::Owned(text)), None) => Ok(Some(Cow::Owned(text.into_bytes()))),
        (None, Some(encoded)) => decode(encoded_name, &encoded).map(|bytes| Some(bytes.into())),
    }
}

fn decode(name: &'static str, encoded: &str) -> Result<Vec<u8>, LineFault> {
    STANDARD.decode(encoded).map_err(|error| LineFault::Base64(name, error))
}

/// A time as RFC 3339, or in milliseconds since 1970.
fn time(
    (name, text): Named<'_, Cow<'_, str>>,
    (number_name, number): Named<'_, u64>,
) -> Result<Option<Timestamp>, LineFault> {
    match (text, number) {
        (Some(_), Some(_)) => Err(LineFault::Both(name, number_name)),
        (None, None) => Ok(None),
        (Some(text), None) => {
            parse_timestamp(&text).map(Some).ok_or_else(|| LineFault::Time(name, text.into_owned()))
        }
        (None, Some(number)) => match i64::try_from(number) {
            Ok(_) => Ok(Some(Timestamp(number))),
            Err(_) => Err(LineFault::Time(number_name, number.to_string())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::message_json::{MessageParts, insert_parts};
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    const NOW: Timestamp = Timestamp(77);

    fn parse(line: &Value) -> Result<MessageLine<'static>, String> {
        let line = line.to_string().into_bytes().leak();
        MessageLine::parse(line, NOW).map_err(|fault| fault.to_string())
    }

    /// What a line says is what is printed of it again.
    fn round(parts: &MessageParts<'_>) {
        let mut object = Map::new();
        object.insert("offset".to_owned(), 7.into());
        insert_parts(&mut object, parts);
        let line = Value::from(object).to_string();
        let read = MessageLine::parse(line.as_bytes(), NOW).unwrap_or_else(|fault| panic!("{fault}: {line}"));
        let message = read.message();
        assert_eq!((message.key, message.tag, message.body), (parts.key, parts.tag, parts.body), "{line}");
        let original = message.original.expect("it has a time of birth");
        assert_eq!(original.born_time, parts.born_time, "{line}");
        assert_eq!((original.attributes, original.origin), (parts.attributes, parts.origin), "{line}");
        // The test's object is sorted by name, unlike what `consume` writes.
        if !line.contains("\"properties\":") {
            assert_eq!(message.properties, parts.properties, "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(
            key in prop::collection::vec(any::<u8>(), 0..20),
            tag in prop::collection::vec(any::<u8>(), 0..20),
            properties in prop::collection::vec(prop_oneof![Just(1_u8), Just(2), Just(b'a'), Just(b'B'), any::<u8>()], 0..30),
            body in prop::collection::vec(any::<u8>(), 0..60),
            encoding in prop_oneof![
                Just(BodyEncoding::Plain), Just(BodyEncoding::Zlib), Just(BodyEncoding::Lz4), Just(BodyEncoding::Zstd)
            ],
            committed in any::<bool>(),
            origin in prop::option::of((any::<u32>(), any::<u16>(), any::<u16>(), any::<u32>())),
            born in 0..=i64::MAX as u64,
        ) {
            let origin = origin.map(|(flag, deliveries, port, address)| {
                Origin::new(flag, deliveries, (std::net::Ipv4Addr::from(address), port).into())
            });
            round(&MessageParts {
                key: &key,
                tag: &tag,
                properties: &properties,
                body: &body,
                attributes: Attributes { encoding, committed },
                origin,
                born_time: Timestamp(born),
                store_time: Timestamp(3),
            });
        }
    }

    #[test]
    fn properties_keep_their_order() {
        let line = br#"{"body":"","properties":{"z":"1","a":"","m":"\u0003"}}"#;
        let read = MessageLine::parse(line, NOW).expect("a message");
        assert_eq!(read.message().properties, b"z\x011\x02a\x01\x02m\x01\x03\x02");
    }

    #[test]
    fn a_line_by_hand_needs_little() {
        let read = parse(&json!({"body": "three apples"})).expect("a message");
        assert_eq!(read.message(), Message { body: b"three apples", ..Message::default() });
        assert_eq!(parse(&json!({})), Ok(parse(&json!({"body": null})).expect("the same")));
        let read = parse(&json!({"unique_id": "AB", "queue": 3, "deliver_at": "1970-01-01T00:00:01Z"}));
        let read = read.expect("a message");
        assert_eq!(read.message().properties, b"UNIQ_KEY\x01AB\x02");
        assert_eq!((read.queue, read.deliver_at), (Some(QueueNumber(3)), Some(Timestamp(1_000))));
        let born = parse(&json!({"committed": true})).expect("a message").message().original;
        assert_eq!(born.map(|original| original.born_time), Some(NOW));
    }

    #[test]
    fn names_with_a_meaning_are_for_copies() {
        let with = |offset: Value| json!({"offset": offset, "properties": {"RETRY_TOPIC": "orders"}});
        assert!(parse(&with(json!(0))).is_ok());
        let refused = parse(&with(Value::Null)).expect_err("it is no copy");
        assert!(refused.contains("RETRY_TOPIC") && refused.contains("`offset`"), "{refused}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            (json!([]), "to be an object"),
            (json!(["a"]), "to be an object"),
            (json!("text"), "to be an object"),
            (json!({"boddy": ""}), "unknown field `boddy`"),
            (json!({"body": "", "body_base64": ""}), "`body` and `body_base64`"),
            (json!({"body_base64": "="}), "no base64"),
            (json!({"body": 7}), "invalid type"),
            (json!({"body_encoding": "gzip"}), "zlib, lz4 or zstd"),
            (json!({"body_encoding": "zlib"}), "no `stored_body_base64`"),
            (json!({"stored_body_base64": ""}), "no `body_encoding`"),
            (
                json!({"body": "a", "body_encoding": "zlib", "stored_body_base64": "eJwDAAAAAAE="}),
                "is not that",
            ),
            (json!({"flag": 7}), "no `born_address`"),
            (json!({"born_address": "here"}), "`here`"),
            (json!({"born_time_ms": u64::MAX}), "born_time_ms"),
            (json!({"born_time": "soon"}), "`soon`"),
            (json!({"born_time": "2024-05-06", "born_time_ms": 1}), "leave one of them out"),
            (json!({"properties": {"a\u{1}": ""}}), "bytes 1 and 2"),
            (json!({"properties": {"": ""}}), "needs a name"),
            (json!({"properties": {}, "properties_raw": ""}), "leave one of them out"),
            (json!({"unique_id": "A", "properties": {"UNIQ_KEY": "B"}}), "another `unique_id`"),
            (json!({"queue": -1}), "invalid value"),
            (json!({"body": "", "messages": [], "next": null}), "jq -c '.messages[]'"),
        ] {
            let fault = parse(&line).expect_err("it is wrong");
            assert!(fault.contains(part), "{line}: {fault}");
        }
        for (line, words) in [
            (&b" \r"[..], "is empty, where a message in JSON is to be: {} is one without anything in it"),
            (b"\xef\xbb\xbf{}", "begins with a byte order mark, which is no JSON: leave out its three bytes"),
            (
                b"{\"body\":7}",
                "is no message in JSON: invalid type: integer `7`, expected a string at column 9",
            ),
        ] {
            assert_eq!(MessageLine::parse(line, NOW).expect_err("it is wrong").to_string(), words);
        }
        for line in [
            &b""[..],
            b"{",
            b"{}{}",
            b"\xff",
            br#"{"body":"\ud800"}"#,
            br#"{"properties":{"a":"1","a":"2"}}"#,
        ] {
            assert!(MessageLine::parse(line, NOW).is_err(), "{line:?}");
        }
    }
}
