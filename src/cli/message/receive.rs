//! `turbopump message receive`: messages are leased, printed, and acknowledged if that is asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::fields::{Fields, insert_id, parts_of, print_messages};
use super::leases::acknowledge;
use crate::api::{ClientProtocol, Filter, Receive};
use crate::cli::error::CommandError;
use crate::cli::message_id::MessageIds;
use crate::cli::message_json::insert_parts;
use crate::cli::output::OutputFormat;
use crate::cli::quantity::Span;
use crate::cli::server::{ServerArguments, lease_of, print_notices};
use crate::client::{LeasedMessage, ReceiptHandle};
use crate::filter::Expression;
use crate::limits;
use crate::types::{GroupName, QueueNumber, TopicName};

const NOTES: &str = "A message is not given to anybody else of the group until its lease ends. One that is not \
acknowledged by then comes again, and goes to the topic %DLQ%GROUP when it has come as often as the group allows. \
Without messages nothing is printed.";

#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct ReceiveArguments {
    pub topic: TopicName,
    /// The group to receive for
    #[arg(long, value_name = "GROUP")]
    pub group: GroupName,
    /// Receive at most this many
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::RECEIVE_MESSAGES_MAX)))]
    pub count: u32,
    /// Tags to receive, like `fruit || fish`
    #[arg(long, value_name = "TAGS")]
    pub filter: Option<String>,
    /// Messages to receive, by an SQL92 expression over properties, KEYS and TAGS, like "n > 5 AND TAGS = 'a'"
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "filter")]
    pub filter_sql: Option<Expression>,
    /// Receive from this queue only
    #[arg(long, value_name = "N")]
    pub queue: Option<u32>,
    /// Take nothing from a queue while a message of it is leased
    #[arg(long)]
    pub ordered: bool,
    /// How long the messages stay with this caller [default: as the group is configured]
    #[arg(long, value_name = "DURATION")]
    pub lease: Option<Span>,
    /// How long to wait when there is nothing
    #[arg(long, value_name = "DURATION", default_value = "0")]
    pub wait: Span,
    /// Acknowledge what was printed
    #[arg(long)]
    pub ack: bool,
    #[command(flatten)]
    pub server: ServerArguments,
}

pub fn run(arguments: &ReceiveArguments, format: OutputFormat) -> Result<(), CommandError> {
    let receive = Receive {
        protocol: ClientProtocol::Native,
        group: arguments.group.clone(),
        topic: arguments.topic.clone(),
        scope: arguments.queue.map(QueueNumber).into(),
        filter: match &arguments.filter_sql {
            Some(expression) => Filter::Expression(Arc::new(expression.clone())),
            None => Filter::parse(arguments.filter.as_deref()),
        },
        count: arguments.count,
        bytes_max: limits::RECEIVE_BYTES_MAX as u32,
        wait: Duration::ZERO,
        lease: lease_of(arguments.lease)?,
        ordered: arguments.ordered,
    };
    let mut client = arguments.server.connect()?;
    let messages =
        wait_for(arguments.wait.0, |wait| Ok(client.receive(Receive { wait, ..receive.clone() })?))?;
    let ids = MessageIds::of(client.shards());
    let views: Vec<_> = messages.iter().map(|message| view(message, &arguments.topic, &ids)).collect();
    print_messages(format, &views)?;
    print_notices(&mut client);
    if !arguments.ack || messages.is_empty() {
        return Ok(());
    }
    let receipts: Vec<_> = messages.iter().map(|message| message.receipt).collect();
    let outcomes = acknowledge(&mut client, &arguments.group, &receipts);
    let mut failures = outcomes.iter().filter(|outcome| !outcome.is_done);
    let Some(first) = failures.next() else { return Ok(()) };
    let message = format!(
        "{} of {} messages were not acknowledged and come again: {}",
        1 + failures.count(),
        outcomes.len(),
        first.reason.as_deref().unwrap_or(first.outcome)
    );
    Err(CommandError::failed(message))
}

/// Asks until there is something or the time is up: a request waits no longer than a broker lets it.
pub fn wait_for<T>(
    wait: Duration,
    mut ask: impl FnMut(Duration) -> Result<Vec<T>, CommandError>,
) -> Result<Vec<T>, CommandError> {
    let most = Duration::from_millis(u64::from(limits::RECEIVE_WAIT_MS_MAX));
    let started = Instant::now();
    loop {
        let left = wait.saturating_sub(started.elapsed());
        let found = ask(left.min(most))?;
        if !found.is_empty() || left <= most {
            return Ok(found);
        }
    }
}

fn view(message: &LeasedMessage, topic: &TopicName, ids: &MessageIds) -> Fields {
    let mut fields = Fields::new();
    let receipt = message.receipt;
    let shard = receipt.key.queue.shard(ids.shard_count());
    insert_id(&mut fields, message.location.and_then(|location| ids.id(shard, location)));
    let mut insert = |name: &str, value: Value| _ = fields.insert(name.to_owned(), value);
    insert("handle", ReceiptHandle::Message(receipt).to_string().into());
    insert("topic", topic.as_str().into());
    insert("queue", receipt.key.queue.0.into());
    insert("offset", receipt.offset.0.into());
    insert("attempt", message.deliveries.into());
    insert("first_delivery_ms", message.first_delivery.0.into());
    insert("lease_until_ms", receipt.lease_until.0.into());
    insert_parts(&mut fields, &parts_of!(message));
    fields
}
