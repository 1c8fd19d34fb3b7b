//! A message as one line of JSON. Bytes that are no UTF-8 go into a member of their own, in base64.

use std::io::{self, Write};

use memchr::memchr2;
use serde_json::{Map, Value, to_writer};

use crate::cli::message_id::MessageIds;
use crate::cli::output::to_json;
use crate::client::ReceivedMessage;
use crate::types::{IdText, QueueNumber};
use crate::wire::properties::{self, names};

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Parts of a message, as they are printed.
#[derive(Clone, Copy, Debug, Default)]
struct Parts<'a> {
    queue: u32,
    offset: u64,
    /// Where it is stored; without it when that has no id.
    id: Option<IdText>,
    key: &'a [u8],
    tag: &'a [u8],
    properties: &'a [u8],
    body: &'a [u8],
    /// Why the body is shown as it is stored.
    unreadable: Option<&'a str>,
    born_time_ms: u64,
    store_time_ms: u64,
}

/// Writes the object and a newline.
pub fn write_message(
    output: &mut impl Write,
    queue: QueueNumber,
    message: &ReceivedMessage<'_>,
    ids: &MessageIds,
) -> io::Result<()> {
    let plain = message.plain_body();
    let unreadable = plain.as_ref().err().map(ToString::to_string);
    let parts = Parts {
        queue: queue.0,
        offset: message.offset.0,
        id: ids.id(queue.shard(ids.shard_count()), message.location),
        key: message.key(),
        tag: message.tag(),
        properties: message.properties(),
        body: plain.as_deref().unwrap_or(message.body()),
        unreadable: unreadable.as_deref(),
        born_time_ms: message.born_time.0,
        store_time_ms: message.store_time.0,
    };
    write_parts(output, &parts)
}

fn write_parts(output: &mut impl Write, parts: &Parts<'_>) -> io::Result<()> {
    write!(output, "{{\"queue\":{},\"offset\":{}", parts.queue, parts.offset)?;
    if let Some(id) = parts.id {
        write!(output, ",\"id\":\"{id}\"")?;
    }
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
    write_bytes(output, "body", parts.body)?;
    if let Some(reason) = parts.unreadable {
        write_bytes(output, "body_unreadable", reason.as_bytes())?;
    }
    writeln!(output, ",\"born_time_ms\":{},\"store_time_ms\":{}}}", parts.born_time_ms, parts.store_time_ms)
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

/// The properties as an object, when they have the form that RocketMQ gives them (see `wire::record`); otherwise as
/// they are.
fn write_properties(output: &mut impl Write, properties: &[u8]) -> io::Result<()> {
    let Some(pairs) = std::str::from_utf8(properties).ok().and_then(parse_properties) else {
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

fn parse_properties(text: &str) -> Option<Vec<(&str, &str)>> {
    let text = text.strip_suffix('\x02').unwrap_or(text);
    text.split('\x02').map(|pair| pair.split_once('\x01')).collect()
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

    fn object(parts: &Parts<'_>) -> Value {
        let mut line = Vec::new();
        write_parts(&mut line, parts).expect("writing into memory");
        assert_eq!(line.pop(), Some(b'\n'));
        serde_json::from_slice(&line).expect("one JSON object")
    }

    #[test]
    fn text_stays_text_and_bytes_become_base64() {
        let parts = Parts {
            queue: 3,
            offset: 7,
            body: b"say \"hi\"\t\xc3\xa9",
            born_time_ms: 5,
            store_time_ms: 6,
            ..Parts::default()
        };
        let expected = json!({"queue": 3, "offset": 7, "body": "say \"hi\"\t\u{e9}", "born_time_ms": 5, "store_time_ms": 6});
        assert_eq!(object(&parts), expected);
        let parts = Parts { body: "\u{7f}\u{9b}2J\u{a3}\n".as_bytes(), ..Parts::default() };
        let mut line = Vec::new();
        write_parts(&mut line, &parts).expect("writing into memory");
        let line = String::from_utf8(line).expect("text");
        assert!(line.contains("\"body\":\"\\u007f\\u009b2J\u{a3}\\n\""), "{line}");
        assert_eq!(object(&parts)["body"], "\u{7f}\u{9b}2J\u{a3}\n");
        let parts = Parts { key: b"k", tag: b"\xff", body: b"\xff\0", ..Parts::default() };
        let expected = json!({"queue": 0, "offset": 0, "key": "k", "tag_base64": "/w==", "body_base64": "/wA=", "born_time_ms": 0, "store_time_ms": 0});
        assert_eq!(object(&parts), expected);
    }

    #[test]
    fn the_ids_have_the_names_that_every_command_gives_them() {
        let address = "127.0.0.1:10911".parse().expect("an address");
        let id = OffsetMessageId { address, physical_offset: 101 }.text();
        let parts = Parts { id: Some(id), properties: b"UNIQ_KEY\x01AB\x02", ..Parts::default() };
        let object = object(&parts);
        assert_eq!((&object["id"], &object["unique_id"]), (&json!(&*id), &json!("AB")));
    }

    #[test]
    fn properties_become_an_object() {
        let with = |properties| object(&Parts { properties, ..Parts::default() });
        assert_eq!(with(b"a\x01b\x02c\x01\x02")["properties"], json!({"a": "b", "c": ""}));
        assert_eq!(with(b"a\x01b")["properties"], json!({"a": "b"}));
        assert_eq!(with(b"odd")["properties_raw"], json!("odd"));
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
