//! `turbopump message publish`: one message, as the HTTP side stores it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::str::FromStr;

use clap::Args;
use serde::Serialize;

use crate::api::{Hold, Produce, Release, Reply, Request};
use crate::cli::calendar::{now, parse_timestamp, rfc3339};
use crate::cli::error::CommandError;
use crate::cli::message_id::MessageIds;
use crate::cli::output::{OutputFormat, check_input, print};
use crate::cli::quantity::Span;
use crate::cli::server::{ServerArguments, print_notices};
use crate::cli::slow::lines_of;
use crate::client::{Client, ClientError, Message, Partitioner, ReceiptHandle};
use crate::limits;
use crate::types::{
    Level, QueueKey, QueueNumber, RecordLocation, Timestamp, TopicName, UniqueId, UniqueIdGenerator,
};
use crate::views::StagesView;
use crate::wire::properties::{self, Reserved, names};
use crate::wire::text;

#[derive(Debug, Args)]
pub struct PublishArguments {
    pub topic: TopicName,
    /// The message's body, or - to read it from standard input, which is also done without one [default: -]
    pub body: Option<String>,
    /// What consumers may filter by
    #[arg(long, value_name = "TAG", value_parser = parse_tag)]
    pub tag: Option<String>,
    /// A key to find the message by; can be given several times, and blanks separate keys as well
    #[arg(long = "key", value_name = "KEY", value_parser = parse_key)]
    pub keys: Vec<String>,
    /// A property; can be given several times
    #[arg(long = "property", value_name = "NAME=VALUE")]
    pub properties: Vec<Property>,
    /// Messages with the same one go to the same queue and keep their order
    #[arg(long, value_name = "KEY", conflicts_with = "queue")]
    pub sharding_key: Option<String>,
    /// Send to this queue
    #[arg(long, value_name = "N")]
    pub queue: Option<u32>,
    #[command(flatten)]
    pub when: When,
    /// How long the transaction's producer has before it is asked to decide
    #[arg(long, value_name = "DURATION", requires = "transaction")]
    pub immunity: Option<Span>,
    /// How safe the message must be before it counts [default: the topic's level]
    #[arg(long, value_name = "durable|written|accepted")]
    pub level: Option<Level>,
    /// Print where the request's time went in the broker: docs/latency.md tells what each stage is
    #[arg(long)]
    pub stages: bool,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct When {
    /// Deliver the message this long after the broker has taken it
    #[arg(long, value_name = "DURATION")]
    pub delay: Option<Span>,
    /// Deliver the message at this time: 2024-05-06T07:08:09Z, or @1700000000000 (milliseconds since 1970)
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub deliver_at: Option<Timestamp>,
    /// Store the half of a transaction: it is delivered when it is committed
    #[arg(long)]
    pub transaction: bool,
}

/// One of a message's properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    name: String,
    value: String,
}

#[derive(Serialize)]
struct PublishedView {
    /// Where it is stored; none yet while the message is held.
    id: Option<String>,
    /// What was given to it before it was sent.
    unique_id: String,
    topic: String,
    queue: u32,
    /// None yet while the message is held.
    offset: Option<u64>,
    level: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
    /// Where the request's time went, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    stages_ns: Option<StagesView>,
    #[serde(skip)]
    asks_for_stages: bool,
}

impl FromStr for Property {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("a property is written NAME=VALUE")?;
        let instead = match properties::reserved(name.as_bytes()) {
            None => return Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            Some(Reserved::Keys) => "use --key",
            Some(Reserved::Tag) => "use --tag",
            Some(Reserved::ShardingKey) => "use --sharding-key",
            Some(Reserved::Delay) => "use --delay or --deliver-at",
            Some(Reserved::Transaction) => "use --transaction, and --immunity",
            Some(Reserved::Deliveries) => "use `turbopump group alter GROUP --deliveries N`",
            Some(Reserved::Level) => "use --level",
            Some(reserved @ (Reserved::Id | Reserved::Internal)) => reserved.instead(),
        };
        Err(format!("{name} has a meaning of its own: {instead}"))
    }
}

pub fn run(arguments: &PublishArguments, format: OutputFormat) -> Result<(), CommandError> {
    let random = RandomState::new().build_hasher().finish();
    let now = now();
    let id = UniqueIdGenerator::new(Ipv4Addr::LOCALHOST, std::process::id(), random as u32).next(now);
    let release = release(arguments);
    let (body, properties) = (body(arguments)?, property_text(arguments, &id)?);
    let (keys, tag) = (arguments.keys.join(" "), arguments.tag.as_deref().unwrap_or_default());
    let (key, tag) = (keys.as_bytes(), tag.as_bytes());
    let message = Message { key, tag, properties: &properties, body: &body, ..Message::default() };
    let batch = message.to_batch(now).map_err(CommandError::usage)?;
    let mut client = arguments.server.connect()?;
    let key = queue_of(&mut client, arguments, random)?;
    let (topic, queue) = (arguments.topic.to_string(), key.queue.0);
    let mut view = PublishedView {
        id: None,
        unique_id: id.text().to_string(),
        topic,
        queue,
        offset: None,
        level: "",
        deliver_at_ms: None,
        handle: None,
        stages_ns: None,
        asks_for_stages: arguments.stages,
    };
    client.ask_for_stages(arguments.stages);
    match release {
        None => {
            let produce = Produce { key, level: arguments.level, batch };
            match client
                .call_owner(key.queue, &Request::Produce(produce))
                .map_err(|error| lost(error, &arguments.topic, &id))?
            {
                Reply::Produced(produced) => {
                    let ids = MessageIds::of(client.shards());
                    let location = RecordLocation { position: produced.position, index: 0 };
                    let id = ids.id(key.queue.shard(ids.shard_count()), location);
                    view.id = id.map(|id| id.to_string());
                    view.offset = Some(produced.base_offset.0);
                    view.level = produced.level.name();
                }
                other => {
                    return Err(CommandError::failed(format!("an answer of another kind: {other:?}")));
                }
            }
        }
        Some(release) => {
            let hold = Hold { key, level: arguments.level, batch, release: release.clone() };
            let held = client.hold(hold).map_err(|error| lost(error, &arguments.topic, &id))?;
            view.level = held.level.name();
            view.offset = held.offset.map(|offset| offset.0);
            match release {
                Release::At(due) => view.deliver_at_ms = Some(due.0),
                // As the broker's clock has it.
                Release::After(_) => view.deliver_at_ms = held.due.map(|due| due.0),
                Release::Commit { .. } => view.handle = Some(ReceiptHandle::Half(held.receipt).to_string()),
            }
        }
    }
    view.stages_ns = client.stages().map(StagesView);
    print(format, &view, PublishedView::text)?;
    print_notices(&mut client);
    Ok(())
}

/// When the message is to be seen; `None`: at once. Whether a time has passed already is the broker's to say, whose clock
/// may be another.
fn release(arguments: &PublishArguments) -> Option<Release> {
    if arguments.when.transaction {
        let immunity = arguments.immunity.map(|span| span.0).unwrap_or_default();
        return Some(Release::Commit { producer_group: None, immunity });
    }
    let delay = arguments.when.delay.filter(|span| !span.0.is_zero());
    arguments.when.deliver_at.map(Release::At).or(delay.map(|span| Release::After(span.0)))
}

fn body(arguments: &PublishArguments) -> Result<Vec<u8>, CommandError> {
    let said = arguments.body.as_deref();
    if let Some(body) = said.filter(|body| *body != "-") {
        return Ok(body.as_bytes().to_vec());
    }
    check_input()?;
    let mut body = Vec::new();
    // One byte too many is enough to see that it is too large.
    let most = limits::BODY_BYTES_MAX as u64 + 1;
    let read = io::stdin().lock().take(most).read_to_end(&mut body);
    read.map_err(|error| CommandError::failed(format!("cannot read standard input: {error}")))?;
    // Under a scheduler, or after a program that failed, nobody meant an empty message.
    if body.is_empty() && said.is_none() {
        return Err(CommandError::failed(
            "standard input is empty, and nothing was sent: name the BODY, - for what standard input has, or '' for none",
        ));
    }
    Ok(body)
}

fn property_text(arguments: &PublishArguments, id: &UniqueId) -> Result<Vec<u8>, CommandError> {
    let given = arguments.properties.iter().map(|property| (property.name.as_str(), property.value.as_str()));
    let sharding = arguments.sharding_key.iter().map(|key| (names::SHARDING_KEY, key.as_str()));
    let id = id.text();
    let mut text = Vec::new();
    for (name, value) in given.chain(sharding).chain([(names::UNIQUE_ID, &*id)]) {
        if properties::get(&text, name).is_some() {
            return Err(CommandError::usage(format!("the property {name} is given twice")));
        }
        properties::append(&mut text, name.as_bytes(), value.as_bytes()).map_err(CommandError::usage)?;
    }
    Ok(text)
}

/// The queue that was named, that of the sharding key, or any.
fn queue_of(
    client: &mut Client,
    arguments: &PublishArguments,
    random: u64,
) -> Result<QueueKey, CommandError> {
    let topic = client.topic_to_produce(&arguments.topic)?;
    let partitioner = Partitioner::new(topic.queue_count, QueueNumber((random >> 32) as u32));
    let queue = match (arguments.queue, &arguments.sharding_key) {
        (Some(queue), _) => QueueNumber(queue),
        (None, Some(key)) => partitioner.by_key(key.as_bytes()),
        (None, None) => partitioner.sticky(),
    };
    Ok(QueueKey { topic: topic.id, queue })
}

/// A lost answer says nothing about the message: its id is what it can be looked for by, in its topic, since this id does
/// not say where it is stored.
fn lost(error: ClientError, topic: &TopicName, id: &UniqueId) -> CommandError {
    let is_unknown = match &error {
        ClientError::Refused(failure) => !failure.status.not_stored(),
        ClientError::Disconnected { .. } | ClientError::Timeout { .. } | ClientError::Protocol { .. } => true,
        _ => false,
    };
    if !is_unknown {
        return error.into();
    }
    let id = id.text();
    let message = format!(
        "{error}; the message may be stored or not: `turbopump message find {topic} --id {id}` finds it then"
    );
    CommandError::failed(message).with("unique_id", &*id)
}

impl PublishedView {
    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(id) = &self.id {
            text += &format!("id         {id}\n");
        }
        text += &format!("unique_id  {}\nqueue      {}\n", self.unique_id, self.queue);
        if let Some(offset) = self.offset {
            text += &format!("offset     {offset}\n");
        }
        text += &format!("level      {}\n", self.level);
        if let Some(due) = self.deliver_at_ms {
            text += &format!("due        {}\n", rfc3339(Timestamp(due)));
        }
        if let Some(handle) = &self.handle {
            text += &format!("handle     {handle}\n");
        }
        match &self.stages_ns {
            Some(stages) => text += &lines_of(stages),
            None if self.asks_for_stages => {
                text += "stages     not told: the broker is of an earlier release\n"
            }
            None => {}
        }
        text
    }
}

/// A key that `message find` finds the message by. Blanks separate keys, here as in every other way to name them.
fn parse_key(text: &str) -> Result<String, String> {
    text::check_key(text.as_bytes()).map_err(|error| error.to_string())?;
    if text.trim_matches(' ').is_empty() { Err("a key is not empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn parse_tag(text: &str) -> Result<String, String> {
    text::check_tag(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn parse_moment(text: &str) -> Result<Timestamp, String> {
    let moment = match text.strip_prefix('@') {
        Some(digits) => digits.parse().ok().filter(|_| !digits.starts_with('+')).map(Timestamp),
        None => parse_timestamp(text),
    };
    moment.ok_or_else(|| "write a time like 2024-05-06T07:08:09Z or @1700000000000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_with_a_meaning_have_their_own_arguments() {
        let property = |text: &str| text.parse::<Property>();
        assert_eq!(property("a=b=c"), Ok(Property { name: "a".into(), value: "b=c".into() }));
        assert!(property("a=").is_ok());
        assert!(property("a").is_err());
        for (text, part) in [
            ("KEYS=k", "--key"),
            ("TAGS=t", "--tag"),
            ("__SHARDINGKEY=s", "--sharding-key"),
            ("UNIQ_KEY=u", "is made for it"),
            ("__STARTDELIVERTIME=1", "--deliver-at"),
            ("DELAY=3", "--delay"),
            ("TRAN_MSG=true", "--transaction"),
            ("MAX_RECONSUME_TIMES=1", "--deliveries"),
            ("INSTANCE_ID=i", "write it themselves"),
        ] {
            let error = property(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn keys_and_tags_can_be_asked_for() {
        assert_eq!(parse_key("new york"), Ok("new york".to_owned()));
        for text in ["", " ", "k\r", "a\tb", "\u{feff}k"] {
            assert!(parse_key(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_tag("new york"), Ok("new york".to_owned()));
        for text in ["a||b", " a", "a\n"] {
            assert!(parse_tag(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn moments_are_absolute() {
        assert_eq!(parse_moment("@1700000000000"), Ok(Timestamp(1_700_000_000_000)));
        assert_eq!(parse_moment("2023-11-14T22:13:20Z"), Ok(Timestamp(1_700_000_000_000)));
        for text in ["", "@", "@+1", "1700000000000", "-10m", "soon"] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }
}
