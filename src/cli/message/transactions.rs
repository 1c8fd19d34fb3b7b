//! `turbopump message commit`, `rollback` and `undecided`: the ends of transactions.

use clap::Args;
use serde_json::Value;

use super::fields::{Fields, insert_id, parts_of, print_messages};
use super::handles::{HandleOutcome, check_halves, half_receipts_of, print_outcomes};
use super::receive::wait_for;
use crate::api::{Decision, EndTransaction, ReceiveHalves, Status};
use crate::cli::error::CommandError;
use crate::cli::message_id::MessageIds;
use crate::cli::message_json::insert_parts;
use crate::cli::output::OutputFormat;
use crate::cli::quantity::Span;
use crate::cli::server::{ServerArguments, print_notices};
use crate::client::{ClientError, ReceiptHandle, UndecidedMessage};
use crate::limits;
use crate::types::{GroupName, RecordLocation, TopicName};

#[derive(Debug, Args)]
pub struct EndArguments {
    pub topic: TopicName,
    /// Handles as `message publish --transaction` or `message undecided` printed them
    #[arg(required = true, value_name = "HANDLE")]
    pub handles: Vec<ReceiptHandle>,
    /// The producers' group; refused for a message of another one
    #[arg(long, value_name = "GROUP")]
    pub group: Option<GroupName>,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct UndecidedArguments {
    pub topic: TopicName,
    /// The producers' group; messages of no group are printed for any
    #[arg(long, value_name = "GROUP")]
    pub group: GroupName,
    /// Print at most this many, those that wait longest first
    #[arg(long, value_name = "N", default_value_t = limits::RECEIVE_MESSAGES_MAX,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::RECEIVE_MESSAGES_MAX)))]
    pub count: u32,
    /// How long to wait when there is nothing
    #[arg(long, value_name = "DURATION", default_value = "0")]
    pub wait: Span,
    #[command(flatten)]
    pub server: ServerArguments,
}

pub fn run_commit(arguments: &EndArguments, format: OutputFormat) -> Result<(), CommandError> {
    end(arguments, Decision::Commit, "committed", format)
}

pub fn run_rollback(arguments: &EndArguments, format: OutputFormat) -> Result<(), CommandError> {
    end(arguments, Decision::Rollback, "rolled_back", format)
}

fn end(
    arguments: &EndArguments,
    decision: Decision,
    done: &'static str,
    format: OutputFormat,
) -> Result<(), CommandError> {
    check_halves(&arguments.handles)?;
    let mut client = arguments.server.connect()?;
    let receipts = half_receipts_of(&mut client, &arguments.topic, &arguments.handles)?;
    let mut outcomes = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let handle = ReceiptHandle::Half(receipt);
        let end = EndTransaction { receipt, producer_group: arguments.group.clone(), decision };
        outcomes.push(match client.end_transaction(end) {
            Ok(()) => HandleOutcome::done(handle, done),
            Err(ClientError::Refused(failure)) => {
                let is_over = failure.status == Status::ReceiptExpired;
                let outcome = if is_over { "expired" } else { "failed" };
                HandleOutcome::failed(handle, outcome, failure.message)
            }
            Err(error) => HandleOutcome::failed(handle, "failed", error),
        });
    }
    print_outcomes(format, &outcomes, &done.replace('_', " "))
}

pub fn run_undecided(arguments: &UndecidedArguments, format: OutputFormat) -> Result<(), CommandError> {
    let mut client = arguments.server.connect()?;
    let halves = wait_for(arguments.wait.0, |wait| {
        let (topic, producer_group) = (arguments.topic.clone(), arguments.group.clone());
        let receive = ReceiveHalves { topic, producer_group, count: arguments.count, wait };
        Ok(client.receive_halves(receive)?)
    })?;
    let ids = MessageIds::of(client.shards());
    let views: Vec<_> = halves.iter().map(|half| view(half, &arguments.topic, &ids)).collect();
    print_messages(format, &views)?;
    print_notices(&mut client);
    Ok(())
}

fn view(half: &UndecidedMessage, topic: &TopicName, ids: &MessageIds) -> Fields {
    let mut fields = Fields::new();
    let shard = half.receipt.key.queue.shard(ids.shard_count());
    insert_id(&mut fields, ids.id(shard, RecordLocation { position: half.receipt.position, index: 0 }));
    let mut insert = |name: &str, value: Value| _ = fields.insert(name.to_owned(), value);
    insert("handle", ReceiptHandle::Half(half.receipt).to_string().into());
    insert("topic", topic.as_str().into());
    insert("queue", half.receipt.key.queue.0.into());
    insert("checks", half.checks.into());
    insert("first_check_ms", half.first_check.0.into());
    insert("next_check_ms", half.next_check.0.into());
    insert_parts(&mut fields, &parts_of!(half));
    fields
}
