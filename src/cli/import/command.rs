//! The command.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::api::TopicChange;
use crate::cli::error::CommandError;
use crate::cli::import::fate::{Fate, Outcome, group_of_its_own, names_of_brokers, topic_of_its_own};
use crate::cli::import::files::{self, Found, GroupLine, PlaceLine, TopicLine};
use crate::cli::mqadmin::{Admin, Shared};
use crate::cli::output::{OutputFormat, on_one_line, print};
use crate::cli::server::ServerArguments;
use crate::client::Client;
use crate::limits;
use crate::protocol::remoting::call::set_up::GroupAsked;
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::json::Value;
use crate::protocol::remoting::{FieldValue, consumer_group};
use crate::state::MessageType;
use crate::types::{Retention, TopicName};

/// To read and to write.
const PERMISSION_USUAL: i64 = 6;
const MESSAGE_TYPE: &str = "message.type";
const RESERVE_TIME: &str = "reserve.time";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A topic gets as many queues over the whole node as it has on the broker it comes from. What is there already \
stays as it is, so the command can be run again. Messages are not brought along, nor are the places of groups, which count them: a \
group that is new here begins at the first message there is.

Example: turbopump import-rocketmq ~/store --dry-run"
)]
pub struct ImportArguments {
    /// What storePathRootDir of Apache's broker names, or the folder `config` in it; it may be a copy, and the broker may run
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Change nothing: tell what would become of each line
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Serialize)]
struct ImportView {
    dry_run: bool,
    outcomes: Vec<Outcome>,
}

/// The broker that gets them, asked in both of its protocols: the native one has queues of the whole node, and RocketMQ's has what
/// its tools set.
struct Target {
    client: Client,
    admin: Admin,
    /// Of shard 0.
    address: String,
    dry_run: bool,
    /// Queues that each shard has, and gets.
    share: usize,
    topics: Vec<crate::api::TopicInfo>,
    groups: Vec<String>,
}

pub fn run(arguments: &ImportArguments, format: OutputFormat) -> Result<(), CommandError> {
    let Found { topics, groups, places } = files::read(&arguments.directory)?;
    let mut target = Target::new(arguments)?;
    let mut outcomes = Vec::new();
    let topics = topics.unwrap_or_default();
    let names = names_of_brokers(&topics);
    outcomes.extend(topics.iter().map(|topic| target.topic(topic, &names)));
    outcomes.extend(groups.unwrap_or_default().iter().map(|group| target.group(group)));
    outcomes.extend(places.unwrap_or_default().iter().map(place));
    let view = ImportView { dry_run: arguments.dry_run, outcomes };
    print(format, &view, render)?;
    match view.outcomes.iter().filter(|outcome| outcome.fate == Fate::Failed).count() {
        0 => Ok(()),
        1 => Err(CommandError::failed("one line was not taken: the report names it")),
        count => Err(CommandError::failed(format!("{count} lines were not taken: the report names them"))),
    }
}

impl Target {
    fn new(arguments: &ImportArguments) -> Result<Self, CommandError> {
        let mut client = arguments.server.connect()?;
        let address = client.shards().next().map(|shard| shard.address.clone());
        let ServerArguments { server, key, tls } = arguments.server.clone();
        let address = address.unwrap_or_else(|| server.clone());
        let shared = Shared { name_servers: server, key, tls, output: OutputFormat::default() };
        let (topics, shards) = (client.list_topics()?, client.shard_count());
        Ok(Self {
            share: topics.iter().map(|topic| share_of(topic.queue_count, shards)).sum(),
            topics,
            groups: client.list_groups()?.iter().map(ToString::to_string).collect(),
            admin: Admin::new(&shared)?,
            client,
            address,
            dry_run: arguments.dry_run,
        })
    }

    fn topic(&mut self, line: &TopicLine, names: &[String]) -> Outcome {
        let outcome = |fate, note: Option<String>| Outcome::new("topic", &line.name, fate, note);
        if let Some(why) = topic_of_its_own(line, names) {
            return outcome(Fate::LeftOut, Some(why.to_owned()));
        }
        if let Some(present) = self.topics.iter().find(|topic| topic.topic.to_string() == line.name) {
            let count = i64::from(present.queue_count);
            let note = (count != line.read.max(line.write))
                .then(|| format!("it has {count} queues, and {} there", line.read.max(line.write)));
            return outcome(Fate::Present, note);
        }
        match self.make_topic(line) {
            Ok(note) => outcome(if note.is_some() { Fate::Approximated } else { Fate::Made }, note),
            Err(reason) => outcome(Fate::Failed, Some(reason)),
        }
    }

    /// Returns what differs. What the broker would refuse is refused before it is asked, and so when nothing is to be changed too.
    fn make_topic(&mut self, line: &TopicLine) -> Result<Option<String>, String> {
        let topic: TopicName = line.name.parse().map_err(|error| format!("{error}"))?;
        let queues = queue_count(line)?;
        let share = self.share_with(queues)?;
        let retention = retention(line)?;
        let mut notes = line.changed.clone();
        let shaped = self.shape_of(line, &mut notes)?;
        self.share = share;
        if !self.dry_run {
            let change = TopicChange { topic, queues: Some(queues), retention, level: None };
            self.client.create_topic(change).map_err(|error| error.to_string())?;
            if let Some(attributes) = shaped {
                self.shape_topic(line, &attributes)?;
            }
        }
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }

    /// Queues of each shard once a topic of so many is made.
    fn share_with(&self, queues: u32) -> Result<usize, String> {
        let share = self.share + share_of(queues, self.client.shard_count());
        match share {
            ..=limits::SHARD_QUEUES_MAX => Ok(share),
            _ => Err(format!("a shard keeps {} queues, and would have {share}", limits::SHARD_QUEUES_MAX)),
        }
    }

    /// The attributes that RocketMQ's protocol is to set, where the topic differs from a usual one at all.
    fn shape_of(&self, line: &TopicLine, notes: &mut Vec<String>) -> Result<Option<String>, String> {
        let mut attributes = Vec::new();
        for (name, value) in &line.attributes {
            match (name.as_str(), value.as_str()) {
                (RESERVE_TIME, _) | ("queue.type", "SimpleCQ") | ("cleanup.policy", "DELETE") => {}
                (MESSAGE_TYPE, "" | "UNSPECIFIED") => {}
                (MESSAGE_TYPE, other) if MessageType::named(other).is_none() => {
                    return Err(format!("`{other}` is no type of a topic's messages"));
                }
                (MESSAGE_TYPE, _) => attributes.push(format!("+{name}={value}")),
                (name, value) => notes.push(format!("{name}={value} means nothing here")),
            }
        }
        let is_usual = line.permission == PERMISSION_USUAL && !line.ordered && line.read == line.write;
        if is_usual && attributes.is_empty() {
            return Ok(None);
        }
        if !(0..=7).contains(&line.permission) {
            return Err(format!("there is no permission {}", line.permission));
        }
        let shards = i64::from(self.client.shard_count().max(1));
        if line.read != line.write && [line.read, line.write].iter().any(|queues| queues % shards != 0) {
            notes.push(format!(
                "{} queues to read and {} to write, rounded up to all {shards} shards",
                line.read, line.write
            ));
        }
        Ok(Some(attributes.join(",")))
    }

    /// What only RocketMQ's tools set. The numbers are those of one broker, which is a shard here.
    fn shape_topic(&mut self, line: &TopicLine, attributes: &str) -> Result<(), String> {
        let shards = i64::from(self.client.shard_count().max(1));
        let of_shard = |queues: i64| queues.saturating_add(shards - 1) / shards;
        let fields = [
            ("topic", FieldValue::Text(&line.name)),
            ("defaultTopic", FieldValue::Text("TBW102")),
            ("readQueueNums", FieldValue::Number(of_shard(line.read))),
            ("writeQueueNums", FieldValue::Number(of_shard(line.write))),
            ("perm", FieldValue::Number(line.permission)),
            ("topicFilterType", FieldValue::Text("SINGLE_TAG")),
            ("topicSysFlag", FieldValue::Number(0)),
            ("order", FieldValue::Boolean(line.ordered)),
            ("attributes", FieldValue::Text(attributes)),
        ];
        let told = self.admin.tell(&self.address, request::UPDATE_AND_CREATE_TOPIC, &fields, b"");
        told.map_err(|error| format!("made, but its permission, order and type are not set: {error}"))
    }

    fn group(&mut self, line: &GroupLine) -> Outcome {
        let outcome = |fate, note: Option<String>| Outcome::new("group", &line.name, fate, note);
        if let Some(why) = group_of_its_own(&line.name) {
            return outcome(Fate::LeftOut, Some(why.to_owned()));
        }
        if self.groups.contains(&line.name) {
            return outcome(Fate::Present, None);
        }
        if let Err(error) = consumer_group(&line.name) {
            return outcome(Fate::Failed, Some(error.to_string()));
        }
        let body = line.settings.to_string();
        if let Err(reason) = check_group(&body) {
            return outcome(Fate::Failed, Some(reason));
        }
        let note = (!line.changed.is_empty()).then(|| line.changed.join("; "));
        let made = if note.is_some() { Fate::Approximated } else { Fate::Made };
        if self.dry_run {
            return outcome(made, note);
        }
        let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
        match self.admin.tell(&self.address, code, &[], body.as_bytes()) {
            Ok(()) => outcome(made, note),
            Err(error) => outcome(Fate::Failed, Some(error.to_string())),
        }
    }
}

/// Queues over the whole node.
fn queue_count(line: &TopicLine) -> Result<u32, String> {
    let count = line.read.max(line.write);
    let queues = u32::try_from(count).ok().filter(|queues| (1..=limits::TOPIC_QUEUES_MAX).contains(queues));
    queues.ok_or_else(|| format!("a topic has 1 to {} queues, not {count}", limits::TOPIC_QUEUES_MAX))
}

/// Queues of a topic that a shard has.
fn share_of(queues: u32, shards: u16) -> usize {
    queues.div_ceil(u32::from(shards.max(1))) as usize
}

/// Whether a broker takes a group of these settings: read as it does.
fn check_group(body: &str) -> Result<(), String> {
    let value = Value::parse(body.as_bytes()).map_err(|error| error.to_string())?;
    GroupAsked::of(&value).map(|_| ()).map_err(|refusal| refusal.remark)
}

/// Milliseconds, or -1 for the broker's own.
fn retention(line: &TopicLine) -> Result<Option<Retention>, String> {
    let Some((_, value)) = line.attributes.iter().find(|(name, _)| name == RESERVE_TIME) else {
        return Ok(None);
    };
    match value.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(milliseconds @ 1..) => Ok(Some(Retention::Age(Duration::from_millis(milliseconds as u64)))),
        _ => Err(format!("reserve.time is a number of milliseconds, not `{value}`")),
    }
}

fn place(line: &PlaceLine) -> Outcome {
    let PlaceLine { topic, group, queues, offsets } = line;
    let note = format!(
        "{offsets} messages behind it in {queues} queues there: offsets count messages of the other broker"
    );
    Outcome::new("place", &format!("{topic}@{group}"), Fate::LeftOut, note)
}

fn render(view: &ImportView) -> String {
    let mut text = String::new();
    for Outcome { kind, name, fate, note } in &view.outcomes {
        let note = note.as_ref().map(|note| format!("  {}", on_one_line(note))).unwrap_or_default();
        text += &format!("{kind:<6} {:<13} {}{note}\n", fate.word(), on_one_line(name));
    }
    let count = |fate: Fate| view.outcomes.iter().filter(|outcome| outcome.fate == fate).count();
    let tense = if view.dry_run { "nothing was changed; would be made" } else { "made" };
    text + &format!(
        "{tense}: {}, of these {} approximated; there before: {}; left out: {}; failed: {}\n",
        count(Fate::Made) + count(Fate::Approximated),
        count(Fate::Approximated),
        count(Fate::Present),
        count(Fate::LeftOut),
        count(Fate::Failed)
    )
}
