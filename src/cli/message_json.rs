//! A message as JSON: every part of it, the same way by every command, so that `produce --format json` can make it again.
//!
//! ```text
//! unique_id           the id that its producer gave it, which is the property UNIQ_KEY as well
//! key, tag            left out where there is none
//! properties          an object in their order; `properties_raw`, their text, where that would not say all of it
//! body                as its producer had it before it was compressed
//! body_encoding       zlib, lz4, zstd: how `stored_body_base64` is compressed; both left out where it is not
//! body_unreadable     why `body` is shown as it is stored
//! committed           true: it was the half of a transaction
//! born_address        of its producer, where the broker that took it knows; with it `flag` and `deliveries_before`, unless 0
//! born_time_ms        when its producer made it
//! store_time_ms       when its broker stored it
//! ```
//!
//! Bytes that are no UTF-8 go into a member of their own, `NAME_base64`, in place of `NAME`.

use std::collections::HashSet;
use std::io::{self, Write};

use memchr::memchr2;
use serde_json::{Map, Value, to_writer};

use crate::cli::message_id::MessageIds;
use crate::cli::output::to_json;
use crate::client::ReceivedMessage;
use crate::limits;
use crate::types::{IdText, QueueNumber, Timestamp, TopicName};
use crate::wire::inflate::inflate;
use crate::wire::origin::{Attributes, BodyEncoding, Origin};
use crate::wire::properties::{self, names};
use crate::wire::record::RecordView;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What a stored message is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageParts<'a> {
    pub key: &'a [u8],
    pub tag: &'a [u8],
    pub properties: &'a [u8],
    /// As it is stored.
    pub body: &'a [u8],
    pub attributes: Attributes,
    pub origin: Option<Origin>,
    pub born_time: Timestamp,
    pub store_time: Timestamp,
}

/// Where a message is in its queue.
#[derive(Clone, Copy, Debug)]
struct Place<'a> {
    topic: &'a str,
    queue: u32,
    offset: u64,
    /// Where it is stored; without it when that has no id.
    id: Option<IdText>,
}

impl<'a> MessageParts<'a> {
    pub fn of_record(record: RecordView<'a>, born_time: Timestamp, store_time: Timestamp) -> Self {
        Self {
            key: record.key(),
            tag: record.tag(),
            properties: record.properties(),
            body: record.body(),
            attributes: record.attributes(),
            origin: record.origin(),
            born_time,
            store_time,
        }
    }

    pub fn of(message: &ReceivedMessage<'a>) -> Self {
        Self {
            key: message.key(),
            tag: message.tag(),
            properties: message.properties(),
            body: message.body(),
            attributes: message.attributes(),
            origin: message.origin(),
            born_time: message.born_time,
            store_time: message.store_time,
        }
    }
}

/// Writes a message that was consumed as an object, and a newline.
pub fn write_message(
    output: &mut impl Write,
    topic: &TopicName,
    queue: QueueNumber,
    message: &ReceivedMessage<'_>,
    ids: &MessageIds,
) -> io::Result<()> {
    let place = Place {
        topic: topic.as_str(),
        queue: queue.0,
        offset: message.offset.0,
        id: ids.id(queue.shard(ids.shard_count()), message.location),
    };
    write_placed(output, &place, &MessageParts::of(message))
}

fn write_placed(output: &mut impl Write, place: &Place<'_>, parts: &MessageParts<'_>) -> io::Result<()> {
    write!(output, "{{\"topic\":")?;
    to_writer(&mut *output, place.topic)?;
    write!(output, ",\"queue\":{},\"offset\":{}", place.queue, place.offset)?;
    if let Some(id) = place.id {
        write!(output, ",\"id\":\"{id}\"")?;
    }
    write_parts(output, parts)?;
    output.write_all(b"}\n")
}

/// The parts as members of an object that has members already.
fn write_parts(output: &mut impl Write, parts: &MessageParts<'_>) -> io::Result<()> {
    if let Some(id) = properties::get(parts.properties, names::UNIQUE_ID) {
        write_bytes(output, "unique_id", id)?;
    }
    for (name, bytes) in [("key", parts.key), ("tag", parts.tag)] {
        if !bytes.is_empty() {
            write_bytes(output, name, bytes)?;
        }
    }
    if !parts.properties.is_empty() {
        write_properties(output, parts.properties)?;
    }
    write_body(output, parts)?;
    if parts.attributes.committed {
        output.write_all(b",\"committed\":true")?;
    }
    if let Some(origin) = parts.origin {
        write!(output, ",\"born_address\":\"{}\"", origin.born)?;
        for (name, number) in
            [("flag", origin.flag), ("deliveries_before", u32::from(origin.deliveries_before))]
        {
            if number != 0 {
                write!(output, ",\"{name}\":{number}")?;
            }
        }
    }
    write!(output, ",\"born_time_ms\":{},\"store_time_ms\":{}", parts.born_time.0, parts.store_time.0)
}

fn write_body(output: &mut impl Write, parts: &MessageParts<'_>) -> io::Result<()> {
    let encoding = parts.attributes.encoding;
    let plain = inflate(parts.body, encoding, limits::BODY_BYTES_MAX);
    write_bytes(output, "body", plain.as_deref().unwrap_or(parts.body))?;
    if let Err(error) = &plain {
        write_bytes(output, "body_unreadable", error.to_string().as_bytes())?;
    }
    if encoding != BodyEncoding::Plain {
        write!(output, ",\"body_encoding\":\"{}\",\"stored_body_base64\":\"", encoding.name())?;
        write_base64(output, parts.body)?;
        output.write_all(b"\"")?;
    }
    Ok(())
}

/// `,"name":"text"`, or `,"name_base64":".."`.
fn write_bytes(output: &mut impl Write, name: &str, bytes: &[u8]) -> io::Result<()> {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            write!(output, ",\"{name}\":")?;
            write_text(output, text)
        }
        Err(_) => {
            write!(output, ",\"{name}_base64\":\"")?;
            write_base64(output, bytes)?;
            output.write_all(b"\"")
        }
    }
}

/// The properties as an object, when it says all of their text; otherwise as they are.
fn write_properties(output: &mut impl Write, properties: &[u8]) -> io::Result<()> {
    let Some(pairs) = std::str::from_utf8(properties).ok().and_then(plain_properties) else {
        return write_bytes(output, "properties_raw", properties);
    };
    output.write_all(b",\"properties\":{")?;
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            output.write_all(b",")?;
        }
        write_text(output, name)?;
        output.write_all(b":")?;
        write_text(output, value)?;
    }
    output.write_all(b"}")
}

/// A text in quotes. The control characters that JSON need not escape are DEL and, in two bytes of which the first is this one, those
/// of which some terminals obey one; they are escaped as well.
fn write_text(output: &mut impl Write, text: &str) -> io::Result<()> {
    if memchr2(0x7f, 0xc2, text.as_bytes()).is_none() {
        to_writer(output, text)?;
        return Ok(());
    }
    output.write_all(to_json(&text).as_bytes())
}

/// Names and values, if the text is just that: each ended by its separator, and no name empty or there twice.
fn plain_properties(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut seen = HashSet::new();
    let plain = |entry| {
        let (name, value) = str::split_once(entry, '\x01')?;
        let is_plain = !name.is_empty() && !value.contains('\x01') && seen.insert(name);
        is_plain.then_some((name, value))
    };
    text.strip_suffix('\x02')?.split('\x02').map(plain).collect()
}

/// Adds the parts of a message to an object, as [`write_message`] writes them.
pub fn insert_parts(object: &mut Map<String, Value>, parts: &MessageParts<'_>) {
    let mut text = b"{\"\":0".to_vec();
    write_parts(&mut text, parts).expect("writing into memory");
    text.push(b'}');
    let mut members: Map<String, Value> = serde_json::from_slice(&text).expect("an object, just written");
    members.remove("");
    object.append(&mut members);
}

/// Adds a member: text, or one of its own name in base64.
pub fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => _ = object.insert(name.to_owned(), text.into()),
        Err(_) => {
            let mut text = Vec::new();
            write_base64(&mut text, bytes).expect("writing into memory");
            let text = String::from_utf8(text).expect("base64 is ASCII");
            object.insert(format!("{name}_base64"), text.into());
        }
    }
}

/// RFC 4648 with padding.
fn write_base64(output: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let mut text = [b'='; 4];
        for (index, character) in text.iter_mut().enumerate().take(chunk.len() + 1) {
            *character = BASE64[(group >> (18 - 6 * index) & 63) as usize];
        }
        output.write_all(&text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::OffsetMessageId;
    use serde_json::json;

    fn object(parts: &MessageParts<'_>) -> Value {
        let place = Place { topic: "orders", queue: 3, offset: 7, id: None };
        let mut line = Vec::new();
        write_placed(&mut line, &place, parts).expect("writing into memory");
        assert_eq!(line.pop(), Some(b'\n'));
        let object = serde_json::from_slice(&line).expect("one JSON object");
        let mut inserted = Map::new();
        for (name, value) in [("topic", json!("orders")), ("queue", json!(3)), ("offset", json!(7))] {
            inserted.insert(name.to_owned(), value);
        }
        insert_parts(&mut inserted, parts);
        assert_eq!(object, Value::from(inserted), "every command shows the same");
        object
    }

    #[test]
    fn text_stays_text_and_bytes_become_base64() {
        let (born_time, store_time) = (Timestamp(5), Timestamp(6));
        let parts =
            MessageParts { body: b"say \"hi\"\t\xc3\xa9", born_time, store_time, ..MessageParts::default() };
        let expected = json!({"topic": "orders", "queue": 3, "offset": 7, "body": "say \"hi\"\t\u{e9}",
            "born_time_ms": 5, "store_time_ms": 6});
        assert_eq!(object(&parts), expected);
        let parts = MessageParts { key: b"k", tag: b"\xff", body: b"\xff\0", ..MessageParts::default() };
        let expected = json!({"topic": "orders", "queue": 3, "offset": 7, "key": "k", "tag_base64": "/w==",
            "body_base64": "/wA=", "born_time_ms": 0, "store_time_ms": 0});
        assert_eq!(object(&parts), expected);
    }

    #[test]
    fn no_terminal_finds_anything_to_obey() {
        let parts = MessageParts { body: "\u{7f}\u{9b}2J\u{a3}\n".as_bytes(), ..MessageParts::default() };
        let mut line = Vec::new();
        write_parts(&mut line, &parts).expect("writing into memory");
        let line = String::from_utf8(line).expect("text");
        assert!(line.contains("\"body\":\"\\u007f\\u009b2J\u{a3}\\n\""), "{line}");
        assert_eq!(object(&parts)["body"], "\u{7f}\u{9b}2J\u{a3}\n");
    }

    #[test]
    fn what_a_producer_of_rocketmq_says_is_there() {
        let address = |text: &str| text.parse().expect("an address");
        let committed = Attributes { encoding: BodyEncoding::Plain, committed: true };
        let parts = MessageParts {
            origin: Some(Origin::new(9, 2, address("10.1.2.3:4000"))),
            attributes: committed,
            ..MessageParts::default()
        };
        let shown = object(&parts);
        assert_eq!((&shown["born_address"], &shown["flag"]), (&json!("10.1.2.3:4000"), &json!(9)));
        assert_eq!((&shown["deliveries_before"], &shown["committed"]), (&json!(2), &json!(true)));
        let zlib = Attributes { encoding: BodyEncoding::Zlib, committed: false };
        let origin = Some(Origin::new(0, 0, address("[::1]:4000")));
        let shown = object(&MessageParts { origin, attributes: zlib, body: b"no zlib", ..parts });
        assert_eq!((&shown["born_address"], &shown["flag"]), (&json!("[::1]:4000"), &Value::Null));
        assert_eq!((&shown["body"], &shown["body_encoding"]), (&json!("no zlib"), &json!("zlib")));
        assert_eq!(shown["stored_body_base64"], json!("bm8gemxpYg=="));
        assert!(shown["body_unreadable"].is_string(), "{shown}");
    }

    #[test]
    fn the_ids_have_the_names_that_every_command_gives_them() {
        let address = "127.0.0.1:10911".parse().expect("an address");
        let id = OffsetMessageId { address, physical_offset: 101 }.text();
        let place = Place { topic: "orders", queue: 0, offset: 0, id: Some(id) };
        let parts = MessageParts { properties: b"UNIQ_KEY\x01AB\x02", ..MessageParts::default() };
        let mut line = Vec::new();
        write_placed(&mut line, &place, &parts).expect("writing into memory");
        let object: Value = serde_json::from_slice(&line).expect("one JSON object");
        assert_eq!((&object["id"], &object["unique_id"]), (&json!(&*id), &json!("AB")));
    }

    #[test]
    fn properties_become_an_object_where_it_says_all_of_them() {
        let with = |properties| object(&MessageParts { properties, ..MessageParts::default() });
        assert_eq!(with(b"a\x01b\x02c\x01\x02")["properties"], json!({"a": "b", "c": ""}));
        for raw in ["a\x01b", "odd", "a\x01b\x02a\x01c\x02", "\x01b\x02", "a\x01b\x01c\x02", "\x02"] {
            assert_eq!(with(raw.as_bytes())["properties_raw"], json!(raw));
        }
        assert_eq!(with(b"\xff")["properties_raw_base64"], json!("/w=="));
    }

    #[test]
    fn base64_is_the_usual_one() {
        let encode = |bytes: &[u8]| {
            let mut text = Vec::new();
            write_base64(&mut text, bytes).expect("writing into memory");
            String::from_utf8(text).expect("base64 is ASCII")
        };
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, text) in cases {
            assert_eq!(encode(bytes.as_bytes()), text);
        }
    }
}
