//! `turbopump message find`: stored messages by a key or an id.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::{DelayedMessage, FindMessages, Found, FoundMessage};
use crate::cli::delayed::{all_delayed, delayed_view, has_id, has_key};
use crate::cli::error::CommandError;
use crate::cli::message::fields::{fields_text, insert_id};
use crate::cli::message_id::MessageIds;
use crate::cli::message_json::{MessageParts, insert_parts};
use crate::cli::output::{OutputFormat, print};
use crate::cli::server::ServerArguments;
use crate::client::Client;
use crate::limits::FIND_MESSAGES_MAX;
use crate::types::{LogPosition, RecordLocation, Timestamp, TopicName};
use crate::wire::record::RecordView;

const NOTES: &str = "\
Where nothing is found, the messages that wait for their time are looked through: those have a `due`. It exits with 1 when there is no \
such message.

What -o json prints is one object; `jq -c '.messages[]'` makes lines of it that `produce --format json` takes.";

#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct FindArguments {
    /// Topic to look in; not needed for an id that says where the message is stored
    #[arg(required_unless_present = "id")]
    pub topic: Option<TopicName>,
    #[command(flatten)]
    pub sought: Sought,
    /// Print at most this many, the newest first
    #[arg(long, value_name = "N", default_value_t = 32,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(FIND_MESSAGES_MAX)))]
    pub count: u32,
    /// Go on after an earlier look-up: the `next` that it printed
    #[arg(long, value_name = "NEXT")]
    pub after: Option<After>,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Sought {
    /// One of the message's keys, or several that it must all have, separated by blanks
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// The message's id: the one that says where it is stored, or the unique one that its producer gave it
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
}

/// Where each shard's part of a look-up goes on, as text: a location for each shard, its parts in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After(Vec<RecordLocation>);

/// A text that is no such location.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not the `next` that `message find` printed: give it as it was, like --after 1f8.2-0.0")]
pub struct AfterError;

#[derive(Serialize)]
struct FoundView {
    messages: Vec<Map<String, Value>>,
    /// Whether these are all, and everything stored was looked through.
    complete: bool,
    /// What `--after` goes on with, when there are more.
    next: Option<String>,
}

impl fmt::Display for After {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, location) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "-" };
            write!(formatter, "{separator}{:x}.{:x}", location.position.0, location.index)?;
        }
        Ok(())
    }
}

impl FromStr for After {
    type Err = AfterError;

    fn from_str(text: &str) -> Result<Self, AfterError> {
        // The numbers' parser takes a sign, which is never printed.
        if text.contains('+') {
            return Err(AfterError);
        }
        let location = |part: &str| {
            let (position, index) = part.split_once('.').ok_or(AfterError)?;
            let position = u64::from_str_radix(position, 16).map_err(|_| AfterError)?;
            let index = u16::from_str_radix(index, 16).map_err(|_| AfterError)?;
            Ok(RecordLocation { position: LogPosition(position), index })
        };
        text.split('-').map(location).collect::<Result<_, _>>().map(Self)
    }
}

pub fn run(arguments: &FindArguments, format: OutputFormat) -> Result<(), CommandError> {
    let mut client = arguments.server.connect()?;
    let ids = MessageIds::of(client.shards());
    let mut found = Found { complete: true, ..Found::default() };
    let location = arguments.sought.id.as_ref().and_then(|id| ids.location_of(id));
    let says_where = location.is_some();
    if let Some((shard, RecordLocation { position, index })) = location {
        found = client.find_messages(FindMessages::Position { shard, position, index })?;
        found.messages.retain(|message| arguments.topic.as_ref().is_none_or(|topic| *topic == message.topic));
    }
    // A unique id has the same number of digits, and is found like a key.
    if found.messages.is_empty()
        && let Some(key) = arguments.sought.key.as_ref().or(arguments.sought.id.as_ref())
    {
        match &arguments.topic {
            Some(topic) => {
                found = client.find_messages(FindMessages::Key {
                    topic: topic.clone(),
                    key: key.clone(),
                    count: arguments.count,
                    from: Timestamp(0),
                    to: Timestamp(u64::MAX),
                    before: arguments.after.clone().map(|after| after.0).unwrap_or_default(),
                })?;
            }
            None if !says_where => {
                return Err(CommandError::usage(format!(
                    "{key} does not say where a message of this broker is stored: name its topic as well, \
                     turbopump message find TOPIC --id {key}"
                )));
            }
            None => {}
        }
    }
    let messages = found.messages.iter().map(|message| message_view(message, &ids)).collect();
    let next = (!found.next.is_empty()).then(|| After(found.next).to_string());
    let view = FoundView { messages, complete: found.complete, next };
    // A page that says where the next one begins, and the last one of several, are what was asked for.
    if !view.messages.is_empty() || view.next.is_some() || arguments.after.is_some() {
        return print(format, &view, found_text);
    }
    let delayed = delayed_views(&mut client, arguments, &ids)?;
    let view = FoundView { messages: delayed, ..view };
    if !view.messages.is_empty() {
        return print(format, &view, found_text);
    }
    if format == OutputFormat::Json {
        print(format, &view, found_text)?;
    }
    Err(nothing_found(arguments, view.complete))
}

fn nothing_found(arguments: &FindArguments, is_complete: bool) -> CommandError {
    let scope = match &arguments.topic {
        Some(topic) => format!("topic {topic}"),
        None => "this broker".to_owned(),
    };
    let sought = match (&arguments.sought.key, &arguments.sought.id) {
        (Some(key), _) => format!("key {key}"),
        (None, Some(id)) => format!("id {id}"),
        (None, None) => unreachable!("the command line asks for one of the two"),
    };
    let doubt = if is_complete {
        ""
    } else {
        ", as far as could be looked through: not everything that is stored could be"
    };
    CommandError::failed(format!("no message of {scope} has the {sought}{doubt}"))
        .with("complete", is_complete)
}

/// What waits for its time is in no queue yet, and in no index of keys.
fn delayed_views(
    client: &mut Client,
    arguments: &FindArguments,
    ids: &MessageIds,
) -> Result<Vec<Map<String, Value>>, CommandError> {
    let Some(topic) = &arguments.topic else { return Ok(Vec::new()) };
    let waiting = all_delayed(client, topic)?;
    let is_sought = |message: &&DelayedMessage| match (&arguments.sought.key, &arguments.sought.id) {
        (Some(key), _) => key.split(' ').all(|key| has_key(message, key)),
        (None, Some(id)) => has_id(message, ids, id),
        (None, None) => false,
    };
    let sought = waiting.iter().filter(is_sought).take(arguments.count as usize);
    Ok(sought.map(|message| delayed_view(message, ids)).collect())
}

fn message_view(message: &FoundMessage, ids: &MessageIds) -> Map<String, Value> {
    let mut view = Map::new();
    let location = RecordLocation { position: message.position, index: message.index };
    insert_id(&mut view, ids.id(message.shard, location));
    let mut insert = |name: &str, value: Value| _ = view.insert(name.to_owned(), value);
    insert("topic", message.topic.as_str().into());
    insert("queue", message.key.queue.0.into());
    insert("offset", message.offset.0.into());
    insert("shard", message.shard.0.into());
    insert("position", message.position.0.into());
    insert("index", message.index.into());
    // The client has checked that it is a whole record.
    let Ok((record, _)) = RecordView::cut(&message.record) else { return view };
    insert_parts(&mut view, &MessageParts::of_record(record, message.born_time, message.store_time));
    view
}

fn found_text(view: &FoundView) -> String {
    let mut text = String::new();
    for message in &view.messages {
        text += &(fields_text(message) + "\n");
    }
    if let Some(next) = &view.next {
        text += &format!("there are more: the same command goes on with --after {next}\n");
    } else if view.messages.is_empty() {
        text += "no more messages\n";
    }
    if view.next.is_none() && !view.complete {
        text += "there may be more: not everything that is stored could be looked through\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_goes_on() {
        let location = |position, index| RecordLocation { position: LogPosition(position), index };
        for (locations, text) in [
            (vec![location(504, 2), location(0, 0)], "1f8.2-0.0"),
            (vec![location(u64::MAX, u16::MAX)], "ffffffffffffffff.ffff"),
        ] {
            assert_eq!(After(locations.clone()).to_string(), text);
            assert_eq!(text.parse(), Ok(After(locations)));
        }
        for text in ["", "1", "1.", ".1", "1.1-", "+1.1", "-1.1", "x.1", "1.10000", "10000000000000000.0"] {
            assert_eq!(text.parse::<After>(), Err(AfterError), "{text}");
        }
    }
}
