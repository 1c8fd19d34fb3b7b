//! Messages as objects of named fields: one line of JSON each, or a field a line.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::cli::calendar::rfc3339;
use crate::cli::error::CommandError;
use crate::cli::message_json::insert_bytes;
use crate::cli::output::{OutputFormat, print_text, set_in, to_json};
use crate::types::{IdText, Timestamp};
use crate::wire::inflate::InflateError;
use crate::wire::properties::{self, Properties, names};

pub type Fields = Map<String, Value>;

/// Key and tag, where there are any.
pub fn insert_parts(fields: &mut Fields, key: &[u8], tag: &[u8]) {
    for (name, bytes) in [("key", key), ("tag", tag)] {
        if !bytes.is_empty() {
            insert_bytes(fields, name, bytes);
        }
    }
}

/// The body as its producer had it. Where that cannot be had, as it is stored, with the reason in `body_unreadable`.
pub fn insert_body(fields: &mut Fields, stored: &[u8], plain: Result<Cow<'_, [u8]>, InflateError>) {
    match plain {
        Ok(plain) => insert_bytes(fields, "body", &plain),
        Err(error) => {
            insert_bytes(fields, "body", stored);
            fields.insert("body_unreadable".to_owned(), error.to_string().into());
        }
    }
}

/// The properties that are `wanted`, as an object, when there are any.
pub fn insert_properties(fields: &mut Fields, text: &[u8], wanted: impl Fn(&[u8]) -> bool) {
    let mut pairs = Map::new();
    Properties::new(text)
        .filter(|(name, _)| wanted(name))
        .for_each(|(name, value)| insert_bytes(&mut pairs, &String::from_utf8_lossy(name), value));
    if !pairs.is_empty() {
        fields.insert("properties".to_owned(), pairs.into());
    }
}

/// The id of where a message is stored, when it is known.
pub fn insert_id(fields: &mut Fields, id: Option<IdText>) {
    if let Some(id) = id {
        fields.insert("id".to_owned(), id.to_string().into());
    }
}

/// The id that a message's producer gave it.
pub fn insert_unique_id(fields: &mut Fields, text: &[u8]) {
    if let Some(id) = properties::get(text, names::UNIQUE_ID) {
        insert_bytes(fields, "unique_id", id);
    }
}

/// The fields of a message, and its other properties.
pub fn insert_unique_id_and_properties(fields: &mut Fields, text: &[u8]) {
    insert_unique_id(fields, text);
    insert_properties(fields, text, |name| name != names::UNIQUE_ID.as_bytes());
}

/// Characters before a field's value.
const NAME_WIDTH: usize = 18;

/// A field a line. Points in time, which are milliseconds in JSON, are times here. Nothing that a producer wrote is obeyed by a
/// terminal, or looks like a field.
pub fn fields_text(fields: &Fields) -> String {
    let line = |(name, value): (&String, &Value)| {
        if let (Some(name), Some(ms)) = (name.strip_suffix("_ms"), value.as_u64()) {
            return format!("{name:17} {}\n", rfc3339(Timestamp(ms)));
        }
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name:17} {}\n", set_in(&value, NAME_WIDTH))
    };
    fields.iter().map(line).collect()
}

/// Prints messages, and nothing when there are none.
pub fn print_messages(format: OutputFormat, messages: &[Fields]) -> Result<(), CommandError> {
    let text = match format {
        OutputFormat::Text => messages.iter().map(|message| fields_text(message) + "\n").collect::<String>(),
        OutputFormat::Json => messages.iter().map(|message| to_json(message) + "\n").collect(),
    };
    print_text(&text)
}
