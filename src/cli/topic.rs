//! `turbopump topic`.

use std::str::FromStr;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::api::{TopicChange, TopicInfo};
use crate::cli::error::CommandError;
use crate::cli::instance::InstanceFlag;
use crate::cli::output::{OutputFormat, Table, grouped, print};
use crate::cli::quantity::{QuantityError, Span};
use crate::cli::server::{ServerArguments, milliseconds};
use crate::limits;
use crate::types::{Level, Retention, TopicName};

#[derive(Debug, Args)]
pub struct TopicArguments {
    #[command(subcommand)]
    pub command: TopicCommand,
}

#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic on every shard
    Create(CreateArguments),
    /// List all topics
    List(ListArguments),
    /// Show a topic with its queues and what each holds
    Describe(NameArguments),
    /// Add queues, or change retention or level; what is not named stays as it is
    Alter(AlterArguments),
    /// Delete a topic and everything in it
    Delete(NameArguments),
}

#[derive(Debug, Args)]
pub struct CreateArguments {
    pub topic: TopicName,
    /// Queues, spread evenly over the shards
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub queues: u32,
    #[command(flatten)]
    pub policy: PolicyArguments,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct ListArguments {
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct AlterArguments {
    pub topic: TopicName,
    /// The new number of queues; it can only grow
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub queues: Option<u32>,
    #[command(flatten)]
    pub policy: PolicyArguments,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct PolicyArguments {
    /// Age at which messages may go, like 72h; none: never by age; default: the broker's [default on creation: default]
    #[arg(long, value_name = "DURATION|none|default")]
    pub retention: Option<RetentionArgument>,
    /// Level of messages whose producer names none [default on creation: the broker's]
    #[arg(long, value_name = "durable|written|accepted")]
    pub level: Option<Level>,
}

/// A topic's retention as it is written: `default`, `none`, or an age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionArgument(pub Retention);

#[derive(Debug, Args)]
pub struct NameArguments {
    pub topic: TopicName,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// A topic as JSON shows it. `null` stands for the broker's default.
#[derive(Serialize)]
struct TopicView {
    topic: String,
    id: u32,
    queue_count: u32,
    /// `default`, `none`, or the age.
    retention: String,
    /// The age, when the topic has one of its own.
    retention_ms: Option<u64>,
    level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queues: Option<Vec<QueueView>>,
}

#[derive(Serialize)]
struct QueueView {
    queue: u32,
    shard: u16,
    first_offset: u64,
    end_offset: u64,
    messages: u64,
}

#[derive(Serialize)]
struct ListView {
    topics: Vec<TopicView>,
}

/// What was done to which topic.
#[derive(Serialize)]
struct DoneView {
    topic: String,
    done: &'static str,
}

pub fn run(arguments: TopicArguments, format: OutputFormat) -> Result<(), CommandError> {
    match arguments.command {
        TopicCommand::Create(command) => create(command, format),
        TopicCommand::List(command) => list(&command, format),
        TopicCommand::Describe(command) => describe(&command, format),
        TopicCommand::Alter(command) => alter(command, format),
        TopicCommand::Delete(command) => {
            let topic = command.instance.topic(&command.topic)?;
            command.server.connect()?.delete_topic(&topic)?;
            print_done(format, &topic, "deleted")
        }
    }
}

fn create(command: CreateArguments, format: OutputFormat) -> Result<(), CommandError> {
    let topic = command.instance.topic(&command.topic)?;
    let change = TopicChange {
        topic: topic.clone(),
        queues: Some(command.queues),
        retention: command.policy.retention.map(|argument| argument.0),
        level: command.policy.level,
    };
    command.server.connect()?.create_topic(change)?;
    print_done(format, &topic, "created")
}

fn alter(command: AlterArguments, format: OutputFormat) -> Result<(), CommandError> {
    let PolicyArguments { retention, level } = command.policy;
    if command.queues.is_none() && retention.is_none() && level.is_none() {
        return Err(CommandError::usage(
            "nothing to change: name at least one of --queues, --retention, --level",
        ));
    }
    let topic = command.instance.topic(&command.topic)?;
    let change = TopicChange {
        topic: topic.clone(),
        queues: command.queues,
        retention: retention.map(|argument| argument.0),
        level,
    };
    command.server.connect()?.alter_topic(change)?;
    print_done(format, &topic, "altered")
}

fn list(command: &ListArguments, format: OutputFormat) -> Result<(), CommandError> {
    let mut client = command.server.connect()?;
    let mut topics = client.list_topics()?;
    topics.retain(|topic| command.instance.shows(topic.topic.instance().as_ref()));
    if topics.is_empty() {
        command.instance.check_exists(&mut client)?;
    }
    let view = ListView { topics: topics.iter().map(|topic| TopicView::new(topic, false)).collect() };
    print(format, &view, |view| {
        let mut table = Table::new(["TOPIC", "QUEUES", "RETENTION", "LEVEL"]);
        for topic in &view.topics {
            table.row([
                topic.topic.clone(),
                topic.queue_count.to_string(),
                topic.retention.clone(),
                topic.level.unwrap_or("default").to_owned(),
            ]);
        }
        table.render()
    })
}

fn describe(command: &NameArguments, format: OutputFormat) -> Result<(), CommandError> {
    let topic = command.instance.topic(&command.topic)?;
    let topic = command.server.connect()?.describe_topic(&topic)?;
    print(format, &TopicView::new(&topic, true), render_topic)
}

fn render_topic(view: &TopicView) -> String {
    let queues = view.queues.as_deref().unwrap_or_default();
    let mut table = Table::new(["QUEUE", "SHARD", "FIRST", "END", "MESSAGES"]);
    for queue in queues {
        table.row([
            queue.queue.to_string(),
            queue.shard.to_string(),
            queue.first_offset.to_string(),
            queue.end_offset.to_string(),
            queue.messages.to_string(),
        ]);
    }
    let messages = queues.iter().map(|queue| queue.messages).sum();
    format!(
        "topic {}, id {}, {} queues, retention {}, level {}, {} messages\n{}",
        view.topic,
        view.id,
        view.queue_count,
        view.retention,
        view.level.unwrap_or("default"),
        grouped(messages),
        table.render()
    )
}

impl FromStr for RetentionArgument {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Ok(Self(match text {
            "default" => Retention::Inherited,
            "none" => Retention::Unlimited,
            age => match age.parse::<Span>()?.0 {
                // What would be stored is rounded up, and nobody means that.
                age if age < limits::RETENTION_MIN => return Err(QuantityError::NoTime(text.to_owned())),
                age => Retention::Age(age),
            },
        }))
    }
}

/// As [`RetentionArgument`] is written.
fn retention_text(retention: Retention) -> String {
    match retention {
        Retention::Inherited => "default".to_owned(),
        Retention::Unlimited => "none".to_owned(),
        Retention::Age(age) => Span(age).to_string(),
    }
}

fn print_done(format: OutputFormat, topic: &TopicName, done: &'static str) -> Result<(), CommandError> {
    let view = DoneView { topic: topic.to_string(), done };
    print(format, &view, |view| format!("topic {} {}", view.topic, view.done))
}

impl TopicView {
    fn new(topic: &TopicInfo, with_queues: bool) -> Self {
        let queue_view = |queue: &crate::api::QueueInfo| QueueView {
            queue: queue.queue.0,
            shard: queue.shard.0,
            first_offset: queue.first_offset.0,
            end_offset: queue.end_offset.0,
            messages: queue.end_offset.0.saturating_sub(queue.first_offset.0),
        };
        Self {
            topic: topic.topic.to_string(),
            id: topic.id.0,
            queue_count: topic.queue_count,
            retention: retention_text(topic.retention),
            retention_ms: topic.retention.age(None).map(milliseconds),
            level: topic.level.map(Level::name),
            queues: with_queues.then(|| topic.queues.iter().map(queue_view).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::QueueInfo;
    use crate::cli::output::to_json;
    use crate::types::{QueueNumber, QueueOffset, ShardId, TopicId};

    fn topic() -> TopicInfo {
        TopicInfo {
            topic: "orders".parse().expect("a name"),
            id: TopicId(3),
            queue_count: 1,
            retention: Retention::Age(std::time::Duration::from_secs(5400)),
            level: None,
            queues: vec![QueueInfo {
                queue: QueueNumber(0),
                shard: ShardId(0),
                first_offset: QueueOffset(5),
                end_offset: QueueOffset(1005),
            }],
        }
    }

    #[test]
    fn a_retention_is_read_as_it_is_written() {
        for text in ["default", "none", "1h30m"] {
            let argument: RetentionArgument = text.parse().expect("a retention");
            assert_eq!(retention_text(argument.0), text);
        }
        assert!("never".parse::<RetentionArgument>().is_err());
        // Everything would be gone with the next look; whoever writes 0 may mean `none`.
        for text in ["0", "0s", "999ms"] {
            let refused = text.parse::<RetentionArgument>().expect_err("it keeps nothing");
            assert!(refused.to_string().contains("none"), "{refused}");
        }
        assert!("1s".parse::<RetentionArgument>().is_ok());
    }

    #[test]
    fn a_topic_prints_for_people_and_programs() {
        let view = TopicView::new(&topic(), true);
        assert_eq!(
            render_topic(&view),
            "topic orders, id 3, 1 queues, retention 1h30m, level default, 1,000 messages\n\
             QUEUE  SHARD  FIRST   END  MESSAGES\n    0      0      5  1005      1000\n"
        );
        assert_eq!(
            to_json(&view),
            r#"{"topic":"orders","id":3,"queue_count":1,"retention":"1h30m","retention_ms":5400000,"level":null,"queues":[{"queue":0,"shard":0,"first_offset":5,"end_offset":1005,"messages":1000}]}"#
        );
        assert!(!to_json(&TopicView::new(&topic(), false)).contains("queues\":["), "a list has no queues");
    }
}
