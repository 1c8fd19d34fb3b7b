//! `turbopump topic`.

pub mod purge;

use std::str::FromStr;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::api::{ReaderMode, TopicChange, TopicGroup, TopicInfo};
use crate::cli::confirm::ConfirmFlag;
use crate::cli::error::CommandError;
use crate::cli::instance::InstanceFlag;
use crate::cli::output::{OutputFormat, Table, grouped, print};
use crate::cli::quantity::{QuantityError, Span};
use crate::cli::server::ServerArguments;
use crate::cli::top::{TopicStatsArguments, topic_stats};
use crate::limits;
use crate::state::Permission;
use crate::types::{Level, Retention, TopicName};
use crate::views::milliseconds;

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
    #[command(visible_alias = "ls")]
    List(ListArguments),
    /// Show a topic with its queues, what each holds, and who consumes it
    #[command(after_help = DESCRIBE_HELP)]
    Describe(NameArguments),
    /// Print what goes in and out of topics, and how old their messages are
    Stats(TopicStatsArguments),
    /// Add queues, or change retention, level or permission; what is not named stays as it is
    Alter(AlterArguments),
    /// Delete a topic and everything in it
    #[command(visible_alias = "rm")]
    Delete(DeleteArguments),
    /// Let the messages of a topic go before their time, all of them or those before a time
    #[command(after_help = purge::HELP)]
    Purge(purge::PurgeArguments),
}

const READ_WRITE: &str = "read-write";

const DESCRIBE_HELP: &str = "\
JSON: topic, id, queue_count, retention, retention_ms, level, permission (read-write, read-only, write-only, none; topic \
alter --permission changes it), queues (queue, shard, first_offset, end_offset, messages), groups \
(those that have a place in the topic or consume it now: group; members, how many native members name the topic; receivers, with \
protocol, filter, ordered, active, seen_age_ms; readers, RocketMQ's own clients, with client, language, version, address, \
broadcasts, expression), consumers_left_out (for how many there was no room). Both are left out for an access key \
that is not an administrator's.";

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
pub struct DeleteArguments {
    pub topic: TopicName,
    #[command(flatten)]
    pub confirm: ConfirmFlag,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// What clients may do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PermissionArgument {
    ReadWrite,
    ReadOnly,
    WriteOnly,
}

#[derive(Debug, Args)]
pub struct AlterArguments {
    pub topic: TopicName,
    /// The new number of queues; it can only grow
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub queues: Option<u32>,
    #[command(flatten)]
    pub policy: PolicyArguments,
    /// What clients may do with it
    #[arg(long, value_name = "PERMISSION")]
    pub permission: Option<PermissionArgument>,
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
    permission: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    queues: Option<Vec<QueueView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<ConsumingGroupView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumers_left_out: Option<u32>,
}

/// Who consumes the topic as one group.
#[derive(Serialize)]
struct ConsumingGroupView {
    group: String,
    members: u32,
    receivers: Vec<TopicReceiverView>,
    readers: Vec<TopicReaderView>,
}

#[derive(Serialize)]
struct TopicReceiverView {
    protocol: &'static str,
    filter: String,
    ordered: bool,
    active: u32,
    seen_age_ms: u64,
}

#[derive(Serialize)]
struct TopicReaderView {
    client: String,
    language: String,
    version: i32,
    address: String,
    broadcasts: bool,
    expression: String,
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
        TopicCommand::Stats(command) => topic_stats(&command, format),
        TopicCommand::Alter(command) => alter(command, format),
        TopicCommand::Purge(command) => purge::run(&command, format),
        TopicCommand::Delete(command) => {
            let topic = command.instance.topic(&command.topic)?;
            command.confirm.ask(&format!("Delete topic {topic} and everything in it"))?;
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
    let is_changed = command.queues.is_some() || retention.is_some() || level.is_some();
    if !is_changed && command.permission.is_none() {
        return Err(CommandError::usage(
            "nothing to change: name at least one of --queues, --retention, --level, --permission",
        ));
    }
    let topic = command.instance.topic(&command.topic)?;
    let mut client = command.server.connect()?;
    if let Some(permission) = command.permission {
        client.permit_topic(&topic, permission.bits())?;
    }
    let change = TopicChange {
        topic: topic.clone(),
        queues: command.queues,
        retention: retention.map(|argument| argument.0),
        level,
    };
    if is_changed {
        client.alter_topic(change)?;
    }
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
    let left_out = view.consumers_left_out.filter(|count| *count > 0);
    let left_out = left_out.map(|count| format!("{count} more consumers are not shown: there is no room\n"));
    format!(
        "topic {}, id {}, {} queues, retention {}, level {}, {}{} messages\n{}{}{}",
        view.topic,
        view.id,
        view.queue_count,
        view.retention,
        view.level.unwrap_or("default"),
        if view.permission == READ_WRITE {
            String::new()
        } else {
            format!("permission {}, ", view.permission)
        },
        grouped(messages),
        table.render(),
        groups_table(view.groups.as_deref().unwrap_or_default()),
        left_out.unwrap_or_default()
    )
}

/// A line for each kind of consumers that a group has, and for each of RocketMQ's clients; one for a group that has none.
fn groups_table(groups: &[ConsumingGroupView]) -> String {
    let mut table = Table::new(["GROUP", "CONSUMERS", "COUNT", "CLIENT", "ADDRESS", "FILTER"]);
    let none = || "-".to_owned();
    for group in groups {
        let name = || group.group.clone();
        if group.members > 0 {
            let members = "native members".to_owned();
            table.row([name(), members, group.members.to_string(), none(), none(), "*".to_owned()]);
        }
        for of in &group.receivers {
            let order = if of.ordered { ", in order" } else { "" };
            let receivers = format!("receivers, {}{order}", of.protocol);
            table.row([name(), receivers, of.active.to_string(), none(), none(), of.filter.clone()]);
        }
        for of in &group.readers {
            let broadcasts = if of.broadcasts { ", every message" } else { "" };
            let reader = format!("RocketMQ {} {}{broadcasts}", of.language, of.version);
            let one = "1".to_owned();
            table.row([name(), reader, one, of.client.clone(), of.address.clone(), of.expression.clone()]);
        }
        if group.members == 0 && group.receivers.is_empty() && group.readers.is_empty() {
            table.row([name(), "nobody now".to_owned(), "0".to_owned(), none(), none(), none()]);
        }
    }
    if groups.is_empty() { String::new() } else { table.render() }
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

impl PermissionArgument {
    fn bits(self) -> u8 {
        match self {
            PermissionArgument::ReadWrite => Permission::ALL.0,
            PermissionArgument::ReadOnly => Permission::READ,
            PermissionArgument::WriteOnly => Permission::WRITE,
        }
    }
}

/// What RocketMQ's bits let clients do.
fn permission_text(permission: u8) -> &'static str {
    match permission & Permission::ALL.0 {
        Permission::READ => "read-only",
        Permission::WRITE => "write-only",
        0 => "none",
        _ => READ_WRITE,
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
        let consumers = topic.consumers.as_ref();
        Self {
            topic: topic.topic.to_string(),
            id: topic.id.0,
            queue_count: topic.queue_count,
            retention: retention_text(topic.retention),
            retention_ms: topic.retention.age(None).map(milliseconds),
            level: topic.level.map(Level::name),
            permission: permission_text(topic.permission),
            queues: with_queues.then(|| topic.queues.iter().map(queue_view).collect()),
            groups: consumers.map(|consumers| consumers.groups.iter().map(ConsumingGroupView::new).collect()),
            consumers_left_out: consumers.map(|consumers| consumers.left_out),
        }
    }
}

impl ConsumingGroupView {
    fn new(group: &TopicGroup) -> Self {
        let receivers = group.receivers.iter().map(|receiver| TopicReceiverView {
            protocol: receiver.protocol.name(),
            filter: receiver.filter.text(),
            ordered: receiver.ordered,
            active: receiver.active,
            seen_age_ms: milliseconds(receiver.seen_age),
        });
        let readers = group.readers.iter().map(|reader| TopicReaderView {
            client: reader.client.clone(),
            language: reader.language.clone(),
            version: reader.version,
            address: reader.address.clone(),
            broadcasts: reader.mode == ReaderMode::Broadcasting,
            expression: reader.subscriptions.first().map(|(_, of)| of.clone()).unwrap_or_default(),
        });
        Self {
            group: group.group.to_string(),
            members: group.members,
            receivers: receivers.collect(),
            readers: readers.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ClientProtocol, Filter, QueueInfo, ReaderInfo, ReceiverInfo, TopicConsumers};
    use crate::cli::output::to_json;
    use crate::types::{QueueNumber, QueueOffset, ShardId, TopicId};

    fn topic() -> TopicInfo {
        TopicInfo {
            topic: "orders".parse().expect("a name"),
            id: TopicId(3),
            queue_count: 1,
            retention: Retention::Age(std::time::Duration::from_secs(5400)),
            level: None,
            permission: 6,
            consumers: None,
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
            r#"{"topic":"orders","id":3,"queue_count":1,"retention":"1h30m","retention_ms":5400000,"level":null,"permission":"read-write","queues":[{"queue":0,"shard":0,"first_offset":5,"end_offset":1005,"messages":1000}]}"#
        );
        let read = render_topic(&TopicView::new(&TopicInfo { permission: 4, ..topic() }, true));
        assert!(read.contains(" level default, permission read-only, 1,000 messages\n"), "{read}");
        let listed = to_json(&TopicView::new(&topic(), false));
        assert!(!listed.contains("queues\":[") && !listed.contains("groups"), "a list has neither: {listed}");
    }

    #[test]
    fn a_topic_says_who_consumes_it_in_which_way() {
        let group = |name: &str| TopicGroup {
            group: name.parse().expect("a name"),
            members: 0,
            receivers: Vec::new(),
            readers: Vec::new(),
        };
        let receiver = ReceiverInfo {
            topic: "orders".parse().expect("a name"),
            protocol: ClientProtocol::Http,
            filter: Filter::parse(Some("a")),
            ordered: true,
            active: 3,
            seen_age: std::time::Duration::ZERO,
        };
        let reader = ReaderInfo {
            client: "c@1".to_owned(),
            language: "JAVA".to_owned(),
            version: 513,
            address: "10.0.0.1:9".to_owned(),
            mode: ReaderMode::Broadcasting,
            subscriptions: vec![("orders".to_owned(), "b".to_owned())],
        };
        let groups = vec![
            TopicGroup { members: 2, receivers: vec![receiver], ..group("g") },
            TopicGroup { readers: vec![reader], ..group("h") },
            group("i"),
        ];
        let view = TopicView::new(
            &TopicInfo { consumers: Some(TopicConsumers { groups, left_out: 1 }), ..topic() },
            true,
        );
        let text = render_topic(&view);
        let expected = [
            "g      native members                   2  -       -           *",
            "g      receivers, http, in order        3  -       -           a",
            "h      RocketMQ JAVA 513, every message  1  c@1     10.0.0.1:9  b",
            "i      nobody now                       0  -       -           -",
            "1 more consumers are not shown",
        ];
        let lines = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for line in expected {
            assert!(lines(&text).contains(&lines(line)), "{line} is missing in {text}");
        }
        assert!(to_json(&view).contains(
            r#"{"client":"c@1","language":"JAVA","version":513,"address":"10.0.0.1:9","broadcasts":true,"expression":"b"}"#
        ));
    }
}
