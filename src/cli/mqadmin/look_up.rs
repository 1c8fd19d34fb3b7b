//! Messages that are looked up: by place, by key, by the id that their producer gave them, by offset.

use std::str::FromStr;

use clap::Args;
use serde_json::Value;

use crate::cli::error::CommandError;
use crate::cli::mqadmin::admin::{Admin, brokers_of};
use crate::cli::mqadmin::arguments::{Shared, Time};
use crate::cli::mqadmin::caller::CallError;
use crate::cli::mqadmin::columns::print;
use crate::cli::mqadmin::message::Message;
use crate::cli::mqadmin::reading::{Pulled, TOOLS_GROUP, pull};
use crate::cli::mqadmin::tracks::tracks_of;
use crate::protocol::remoting::call::pull::PullCall;
use crate::protocol::remoting::client::Answer;
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::{FieldValue, ResponseCode};
use crate::types::{OffsetMessageId, QueueOffset};
use crate::wire::properties::names;

/// As many messages are looked for as a broker of Apache's gives at most.
const COUNT: u32 = 64;
/// Of one id.
const UNIQUE_COUNT: u32 = 32;
const HOUR_MS: i64 = 3_600_000;

#[derive(Debug, Args)]
pub struct ByIdArguments {
    /// Ids that say where messages are stored, with commas between them
    #[arg(short = 'i', long = "msgId", value_name = "ID", required = true, value_delimiter = ',')]
    pub ids: Vec<PlaceId>,
    /// Their topic: ids that producers gave are found in it as well
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// By whose route the brokers are found
    #[arg(short = 'c', long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    #[command(flatten)]
    pub body: BodyArguments,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct ByKeyArguments {
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    #[arg(short = 'k', long = "msgKey", value_name = "KEY")]
    pub key: String,
    /// Only what was stored then or later
    #[arg(short = 'b', long = "beginTimestamp", value_name = "TIME")]
    pub from: Option<Time>,
    /// Only what was stored until then
    #[arg(short = 'e', long = "endTimestamp", value_name = "TIME")]
    pub to: Option<Time>,
    /// At most so many messages of each broker
    #[arg(short = 'm', long = "maxNum", value_name = "N", default_value_t = COUNT, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// By whose route the brokers are found
    #[arg(short = 'c', long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// What KEY is: one of a message's keys (K), or its tag (T), by which brokers of turbopump's find nothing
    #[arg(short = 'p', long = "keyType", value_name = "K|T", default_value = "K", value_parser = ["K", "T"])]
    pub kind: String,
    /// Go on after an earlier look-up: the #IndexKey of its last line, for brokers that have such an index
    #[arg(short = 'l', long = "lastKey", value_name = "INDEXKEY")]
    pub last: Option<String>,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct ByUniqueKeyArguments {
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    /// The id that the message's producer gave it
    #[arg(short = 'i', long = "msgId", value_name = "ID")]
    pub id: String,
    /// Show all messages with that id, up to 32
    #[arg(short = 'a', long = "showAll")]
    pub all: bool,
    /// Only what was stored then or later
    #[arg(short = 's', long = "startTime", value_name = "TIME")]
    pub from: Option<Time>,
    /// Only what was stored until then
    #[arg(short = 'e', long = "endTime", value_name = "TIME")]
    pub to: Option<Time>,
    /// By whose route the brokers are found
    #[arg(short = 'c', long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct ByOffsetArguments {
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    /// Name of the broker, as `topicStatus` shows it
    #[arg(short = 'b', long = "brokerName", value_name = "NAME")]
    pub broker: String,
    #[arg(short = 'i', long = "queueId", value_name = "N")]
    pub queue: u32,
    #[arg(short = 'o', long, value_name = "N")]
    pub offset: u64,
    /// Not looked at: the broker is found by its name
    #[arg(short = 'r', long = "routeTopic", value_name = "TOPIC")]
    pub route: Option<String>,
    #[command(flatten)]
    pub body: BodyArguments,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct BodyArguments {
    /// How the body is read; it is shown in any case
    #[arg(short = 'f', long = "bodyFormat", value_name = "CHARSET", value_parser = charset)]
    pub charset: Option<String>,
}

/// An id that says where a message is stored, or was given by its producer.
#[derive(Clone, Debug)]
pub struct PlaceId {
    text: String,
    place: OffsetMessageId,
}

impl FromStr for PlaceId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let place = OffsetMessageId::parse(text).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), place })
    }
}

/// Bodies are read as UTF-8.
pub fn charset(text: &str) -> Result<String, String> {
    match text.trim() {
        charset if charset.eq_ignore_ascii_case("UTF-8") || charset.eq_ignore_ascii_case("UTF8") => {
            Ok(charset.to_owned())
        }
        _ => Err("bodies are read as UTF-8, and shown in other ways by `-o json`".to_owned()),
    }
}

pub fn by_id(of: &ByIdArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let mut found = Vec::new();
    for id in &of.ids {
        found.extend(by_either_id(&mut admin, of, id)?);
    }
    show(&mut admin, &of.shared, &found, true)
}

/// An id has the same form whether it says where a message is stored or was given by its producer: who is no broker of the
/// topic's is asked only where no producer gave it.
fn by_either_id(admin: &mut Admin, of: &ByIdArguments, id: &PlaceId) -> Result<Vec<Message>, CommandError> {
    let address = id.place.address.to_string();
    let mut fields = vec![("offset", FieldValue::Number(id.place.physical_offset))];
    if let Some(topic) = of.topic.as_deref().map(str::trim) {
        fields.push(("topic", FieldValue::Text(topic)));
        let by = of.cluster.as_deref().unwrap_or(topic).trim();
        let brokers = brokers_of(&admin.route(by)?);
        if !brokers.iter().any(|broker| broker.address == address) {
            let mut found = look_for(admin, &Sought::unique(topic, by, &id.text))?;
            found.retain(|message| message.shown_id() == id.text);
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    let read = |answer: &Answer<'_>| Message::read_all("", answer.body);
    Ok(admin.ask(&address, request::VIEW_MESSAGE_BY_ID, &fields, b"", read)?)
}

pub fn by_key(of: &ByKeyArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let (topic, key) = (of.topic.trim(), of.key.trim());
    let sought = Sought {
        topic,
        by: of.cluster.as_deref().unwrap_or(topic).trim(),
        key,
        is_unique: false,
        kind: Some(&of.kind),
        last: of.last.as_deref(),
        count: of.count,
        from: of.from.as_ref().map_or(0, |time| time.milliseconds),
        to: of.to.as_ref().map_or(i64::MAX, |time| time.milliseconds),
    };
    let mut found = look_for(&mut admin, &sought)?;
    found.retain(|message| match of.kind.as_str() {
        "T" => message.property(names::TAGS) == Some(key),
        _ => message.has_key(key),
    });
    if found.is_empty() {
        return Err(nothing(&format!("of topic {topic} has the key {key}")));
    }
    let objects: Vec<_> = found.iter().map(|message| Value::from(message.object(true))).collect();
    print(of.shared.output, &objects, |_| {
        let mut text =
            format!("{:<50} {:>4} {:>40} {:<200}\n", "#Message ID", "#QID", "#Offset", "#IndexKey");
        for message in &found {
            let id = message.shown_id();
            let index_key = format!(
                "{}@{topic}@{}@{key}@{id}@{}",
                message.store_time / HOUR_MS * HOUR_MS,
                of.kind,
                message.physical_offset
            );
            text += &format!("{id:<50} {:>4} {:>40} {index_key:<200}\n", message.queue, message.queue_offset);
        }
        text
    })
}

pub fn by_unique_key(of: &ByUniqueKeyArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let (topic, id) = (of.topic.trim(), of.id.trim());
    let sought = Sought {
        from: of.from.as_ref().map_or(0, |time| time.milliseconds),
        to: of.to.as_ref().map_or(i64::MAX, |time| time.milliseconds),
        ..Sought::unique(topic, of.cluster.as_deref().unwrap_or(topic).trim(), id)
    };
    let mut found = look_for(&mut admin, &sought)?;
    found.retain(|message| message.shown_id() == id);
    found.sort_by_key(|message| message.store_time);
    if found.is_empty() {
        return Err(nothing(&format!("of topic {topic} has the id {id}")));
    }
    found.truncate(if of.all { usize::MAX } else { 1 });
    show(&mut admin, &of.shared, &found, false)
}

pub fn by_offset(of: &ByOffsetArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let (topic, name) = (of.topic.trim(), of.broker.trim());
    let broker = admin.broker(name)?;
    let offset = i64::try_from(of.offset).unwrap_or(i64::MAX);
    let call = PullCall {
        group: TOOLS_GROUP,
        topic,
        queue: of.queue,
        offset: QueueOffset(of.offset),
        messages: 1,
        tags: "*",
    };
    let found = match pull(&mut admin, &broker, &call)? {
        Pulled { messages, .. } if messages.first().is_some_and(|first| first.queue_offset == offset) => {
            messages
        }
        _ => {
            return Err(nothing(&format!(
                "is at offset {offset} of queue {} of topic {topic} on broker {name}",
                of.queue
            )));
        }
    };
    show(&mut admin, &of.shared, &found[..1], true)
}

fn nothing(what: &str) -> CommandError {
    CommandError::failed(format!("no message {what}")).with("code", ResponseCode::QueryNotFound.number())
}

/// What a look-up is for.
pub struct Sought<'a> {
    pub topic: &'a str,
    /// The topic or cluster by whose route the brokers are found.
    pub by: &'a str,
    pub key: &'a str,
    /// The key is an id that a producer gave.
    pub is_unique: bool,
    /// Of the index, `None`: whatever the broker takes for it.
    pub kind: Option<&'a str>,
    pub last: Option<&'a str>,
    pub count: u32,
    pub from: i64,
    pub to: i64,
}

impl<'a> Sought<'a> {
    /// An id that a producer gave.
    fn unique(topic: &'a str, by: &'a str, id: &'a str) -> Self {
        let (from, to) = (0, i64::MAX);
        Self { topic, by, key: id, is_unique: true, kind: None, last: None, count: UNIQUE_COUNT, from, to }
    }
}

/// The messages that the brokers of a topic find. Where none is found, it is no error of anybody's.
pub fn look_for(admin: &mut Admin, sought: &Sought<'_>) -> Result<Vec<Message>, CallError> {
    let route = admin.route(sought.by)?;
    let mut fields = vec![
        ("topic", FieldValue::Text(sought.topic)),
        ("key", FieldValue::Text(sought.key)),
        ("maxNum", FieldValue::Number(sought.count.into())),
        ("beginTimestamp", FieldValue::Number(sought.from)),
        ("endTimestamp", FieldValue::Number(sought.to)),
        ("_UNIQUE_KEY_QUERY", FieldValue::Boolean(sought.is_unique)),
    ];
    fields.extend(sought.kind.map(|kind| ("indexType", FieldValue::Text(kind))));
    fields.extend(sought.last.map(|last| ("lastKey", FieldValue::Text(last))));
    let mut found = Vec::new();
    for broker in brokers_of(&route) {
        let read = |answer: &Answer<'_>| Message::read_all(&broker.name, answer.body);
        match admin.ask(&broker.address, request::QUERY_MESSAGE, &fields, b"", read) {
            Ok(messages) => found.extend(messages),
            Err(error) if error.is_refusal_of(ResponseCode::QueryNotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Prints messages, and what became of each.
fn show(admin: &mut Admin, shared: &Shared, messages: &[Message], with_id: bool) -> Result<(), CommandError> {
    let (mut objects, mut text) = (Vec::new(), String::new());
    for message in messages {
        let tracks = tracks_of(admin, message)?;
        text += &message.lines(with_id);
        text += if tracks.is_empty() { "\n\nWARN: No Consumer\n" } else { "\n\n" };
        text.extend(tracks.iter().map(|track| track.line()));
        let mut object = message.object(true);
        let tracks = serde_json::to_value(&tracks).map_err(CommandError::failed)?;
        object.insert("tracks".to_owned(), tracks);
        objects.push(object);
    }
    print(shared.output, &objects, |_| text)
}
