//! `turbopump delayed`: messages that wait for their time.

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use crate::api::{DelayedMessage, ListDelayed, RecallDelayed};
use crate::cli::calendar::rfc3339;
use crate::cli::error::CommandError;
use crate::cli::instance::InstanceFlag;
use crate::cli::message::fields::{Fields, fields_text, insert_id};
use crate::cli::message_id::MessageIds;
use crate::cli::message_json::{MessageParts, insert_parts};
use crate::cli::output::{OutputFormat, on_one_line, print};
use crate::cli::server::ServerArguments;
use crate::client::{Client, ClientError};
use crate::types::{RecordLocation, ShardId, TopicName};
use crate::wire::properties::{self, names};
use crate::wire::record::RecordView;

#[derive(Debug, Args)]
pub struct DelayedArguments {
    #[command(subcommand)]
    pub command: DelayedCommand,
}

#[derive(Debug, Subcommand)]
pub enum DelayedCommand {
    /// List the messages of a topic that wait for their time, those that come first in front
    #[command(after_help = LIST_HELP)]
    List(ListArguments),
    /// Take messages back before their time
    #[command(after_help = RECALL_HELP)]
    Recall(RecallArguments),
}

const LIST_HELP: &str = "\
All that wait on a shard are looked through, whatever their topic is: of millions that takes a while.

JSON: topic, messages (id, unique_id, queue, due, key, tag, properties, body, born_time, store_time), more (whether --count left \
some out).

Example: turbopump delayed list orders --key order-4711";

const RECALL_HELP: &str = "\
A message that was taken back is gone, as if it had never been sent. One that has come meanwhile cannot be taken back.

Example: turbopump delayed recall orders 7F00000100002A9F0000000000000065";

#[derive(Debug, Args)]
pub struct ListArguments {
    pub topic: TopicName,
    /// Only messages with this key
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Print at most this many
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct RecallArguments {
    pub topic: TopicName,
    /// Ids as `delayed list` prints them: where they are stored, or their unique ids
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Serialize)]
struct ListView {
    topic: String,
    messages: Vec<Fields>,
    more: bool,
}

#[derive(Serialize)]
struct RecallView {
    topic: String,
    outcomes: Vec<OutcomeView>,
}

#[derive(Serialize)]
struct OutcomeView {
    id: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub fn run(arguments: DelayedArguments, format: OutputFormat) -> Result<(), CommandError> {
    match arguments.command {
        DelayedCommand::List(list) => run_list(&list, format),
        DelayedCommand::Recall(recall) => run_recall(&recall, format),
    }
}

/// Everything of a topic that waits for its time, in the order in which it comes.
pub fn all_delayed(client: &mut Client, topic: &TopicName) -> Result<Vec<DelayedMessage>, CommandError> {
    let mut all = Vec::new();
    for shard in 0..client.shard_count() {
        let mut from = None;
        loop {
            let list = ListDelayed { topic: topic.clone(), shard: ShardId(shard), from };
            let page = client.list_delayed(list)?;
            all.extend(page.messages);
            // A broker that sends one in circles would keep us for ever.
            match page.next {
                Some(next)
                    if from.is_none_or(|from| (next.bucket, next.offset) > (from.bucket, from.offset)) =>
                {
                    from = Some(next);
                }
                Some(_) | None => break,
            }
        }
    }
    all.sort_by_key(|message| (message.due, message.position));
    Ok(all)
}

/// Whether a message has this id: where it is stored, or the one that its producer gave it.
pub fn has_id(message: &DelayedMessage, ids: &MessageIds, id: &str) -> bool {
    let Ok((record, _)) = RecordView::cut(&message.record) else { return false };
    let unique_id = properties::get(record.properties(), names::UNIQUE_ID);
    unique_id == Some(id.as_bytes()) || place_of(message, ids).is_some_and(|own| own.eq_ignore_ascii_case(id))
}

fn place_of(message: &DelayedMessage, ids: &MessageIds) -> Option<crate::types::IdText> {
    let location = RecordLocation { position: message.position, index: 0 };
    ids.id(message.key.queue.shard(ids.shard_count()), location)
}

/// The parts of a message that waits, as they are printed.
pub fn delayed_view(message: &DelayedMessage, ids: &MessageIds) -> Fields {
    let mut view = Fields::new();
    insert_id(&mut view, place_of(message, ids));
    // The client has checked that it is a whole record.
    if let Ok((record, _)) = RecordView::cut(&message.record) {
        insert_parts(&mut view, &MessageParts::of_record(record, message.born_time, message.store_time));
        view.retain(|name, _| !["born_time_ms", "store_time_ms"].contains(&name.as_str()));
    }
    let mut insert = |name: &str, value: Value| _ = view.insert(name.to_owned(), value);
    insert("queue", message.key.queue.0.into());
    insert("due", rfc3339(message.due).into());
    insert("born_time", rfc3339(message.born_time).into());
    insert("store_time", rfc3339(message.store_time).into());
    view
}

fn run_list(arguments: &ListArguments, format: OutputFormat) -> Result<(), CommandError> {
    let topic = arguments.instance.topic(&arguments.topic)?;
    let mut client = arguments.server.connect()?;
    let mut found = all_delayed(&mut client, &topic)?;
    found.retain(|message| arguments.key.as_ref().is_none_or(|key| has_key(message, key)));
    let ids = MessageIds::of(client.shards());
    let count = usize::try_from(arguments.count).unwrap_or(usize::MAX);
    let view = ListView {
        topic: topic.to_string(),
        more: found.len() > count,
        messages: found.iter().take(count).map(|message| delayed_view(message, &ids)).collect(),
    };
    print(format, &view, |view| {
        let mut text: String = view.messages.iter().map(|message| fields_text(message) + "\n").collect();
        if view.messages.is_empty() {
            text += "no message waits for its time\n";
        }
        if view.more {
            text += "there are more: --count prints more of them\n";
        }
        text
    })
}

/// Whether a message has this key.
pub fn has_key(message: &DelayedMessage, key: &str) -> bool {
    let Ok((record, _)) = RecordView::cut(&message.record) else { return false };
    let mut keys = record.key().split(|byte| *byte == b' ');
    record.key() == key.as_bytes() || keys.any(|own| own == key.as_bytes())
}

fn run_recall(arguments: &RecallArguments, format: OutputFormat) -> Result<(), CommandError> {
    let topic = arguments.instance.topic(&arguments.topic)?;
    let mut client = arguments.server.connect()?;
    let waiting = all_delayed(&mut client, &topic)?;
    let ids = MessageIds::of(client.shards());
    let mut outcomes = Vec::new();
    for id in &arguments.ids {
        let found = waiting.iter().find(|message| has_id(message, &ids, id));
        outcomes.push(match found {
            Some(message) => recall(&mut client, &topic, message, id),
            None => {
                let reason = "no message of the topic waits for its time that has this id".to_owned();
                OutcomeView { id: id.clone(), outcome: "not_waiting", reason: Some(reason) }
            }
        });
    }
    let failed = outcomes.iter().filter(|outcome| outcome.reason.is_some()).count();
    let view = RecallView { topic: topic.to_string(), outcomes };
    print(format, &view, |view| {
        let line = |of: &OutcomeView| match &of.reason {
            Some(reason) => format!("{} {}: {}\n", of.id, of.outcome, on_one_line(reason)),
            None => format!("{} {}\n", of.id, of.outcome),
        };
        view.outcomes.iter().map(line).collect()
    })?;
    if failed > 0 {
        let message = format!("{failed} of {} messages were not taken back", arguments.ids.len());
        return Err(CommandError::failed(message).with("failed", failed));
    }
    Ok(())
}

fn recall(client: &mut Client, topic: &TopicName, message: &DelayedMessage, id: &str) -> OutcomeView {
    let DelayedMessage { key, position, due, .. } = message;
    let recall = RecallDelayed { topic: topic.clone(), queue: key.queue, position: *position, due: *due };
    let (outcome, reason) = match client.recall_delayed(recall) {
        Ok(()) => ("recalled", None),
        Err(ClientError::Refused(failure)) => ("failed", Some(failure.message)),
        Err(error) => ("failed", Some(error.to_string())),
    };
    OutcomeView { id: id.to_owned(), outcome, reason }
}
