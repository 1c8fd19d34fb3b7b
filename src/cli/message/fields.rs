//! Messages as objects of named fields: one line of JSON each, or a field a line.

use serde_json::{Map, Value};

use crate::cli::calendar::rfc3339;
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, print_text, set_in, to_json};
use crate::types::{IdText, Timestamp};

pub type Fields = Map<String, Value>;

/// The parts of a message that this was made of: by whatever it was handed out.
macro_rules! parts_of {
    ($message:expr) => {
        $crate::cli::message_json::MessageParts {
            key: $message.key(),
            tag: $message.tag(),
            properties: $message.properties(),
            body: $message.body(),
            attributes: $message.attributes(),
            origin: $message.origin(),
            born_time: $message.born_time,
            store_time: $message.store_time,
        }
    };
}
pub(super) use parts_of;

/// The id of where a message is stored, when it is known.
pub fn insert_id(fields: &mut Fields, id: Option<IdText>) {
    if let Some(id) = id {
        fields.insert("id".to_owned(), id.to_string().into());
    }
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
