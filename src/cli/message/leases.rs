//! `turbopump message ack` and `extend`: what is done about leased messages.

use clap::Args;

use super::handles::{HandleOutcome, print_outcomes, receipts_of};
use crate::api::{ReceiptOutcome, Status};
use crate::cli::error::CommandError;
use crate::cli::output::OutputFormat;
use crate::cli::quantity::Span;
use crate::cli::server::ServerArguments;
use crate::client::{Client, ClientError, ReceiptHandle};
use crate::limits::ACKNOWLEDGE_RECEIPTS_MAX;
use crate::types::{GroupName, Receipt, TopicName};

#[derive(Debug, Args)]
pub struct AckArguments {
    pub topic: TopicName,
    /// Handles as `message receive` printed them
    #[arg(required = true, value_name = "HANDLE")]
    pub handles: Vec<ReceiptHandle>,
    /// The group that received the messages
    #[arg(long, value_name = "GROUP")]
    pub group: GroupName,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct ExtendArguments {
    pub topic: TopicName,
    /// Handles as `message receive` printed them; each gets another one
    #[arg(required = true, value_name = "HANDLE")]
    pub handles: Vec<ReceiptHandle>,
    /// The group that received the messages
    #[arg(long, value_name = "GROUP")]
    pub group: GroupName,
    /// How long the lease lasts from now on; 0 gives the message back at once
    #[arg(long, value_name = "DURATION")]
    pub lease: Span,
    #[command(flatten)]
    pub server: ServerArguments,
}

pub fn run_ack(arguments: &AckArguments, format: OutputFormat) -> Result<(), CommandError> {
    let mut client = arguments.server.connect()?;
    let receipts = receipts_of(&mut client, &arguments.topic, &arguments.handles)?;
    print_outcomes(format, &acknowledge(&mut client, &arguments.group, &receipts), "acknowledged")
}

/// Acknowledges as many at once as a request takes. One that fails leaves the others their chance.
pub fn acknowledge(client: &mut Client, group: &GroupName, receipts: &[Receipt]) -> Vec<HandleOutcome> {
    let mut all = Vec::with_capacity(receipts.len());
    for chunk in receipts.chunks(ACKNOWLEDGE_RECEIPTS_MAX) {
        let outcomes = client.acknowledge(group, chunk);
        for (at, receipt) in chunk.iter().enumerate() {
            let outcome = match &outcomes {
                Ok(outcomes) => Ok(outcomes[at]),
                Err(error) => Err(error),
            };
            all.push(acknowledged(ReceiptHandle::Message(*receipt), outcome));
        }
    }
    all
}

fn acknowledged(handle: ReceiptHandle, outcome: Result<ReceiptOutcome, &ClientError>) -> HandleOutcome {
    match outcome {
        Ok(ReceiptOutcome::Acknowledged) => HandleOutcome::done(handle, "acknowledged"),
        Ok(ReceiptOutcome::NotLeased | ReceiptOutcome::NothingOpen) => HandleOutcome::failed(
            handle,
            "not_leased",
            "the lease has ended, or the message was acknowledged or delivered again",
        ),
        Ok(ReceiptOutcome::Failed) => {
            HandleOutcome::failed(handle, "failed", "the shard of its queue could not store it: try again")
        }
        Err(error) => HandleOutcome::failed(handle, "failed", error),
    }
}

pub fn run_extend(arguments: &ExtendArguments, format: OutputFormat) -> Result<(), CommandError> {
    let mut client = arguments.server.connect()?;
    let receipts = receipts_of(&mut client, &arguments.topic, &arguments.handles)?;
    let mut outcomes = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let handle = ReceiptHandle::Message(receipt);
        outcomes.push(match client.change_lease(&arguments.group, receipt, arguments.lease.0) {
            Ok(receipt) => HandleOutcome {
                next_handle: Some(ReceiptHandle::Message(receipt).to_string()),
                lease_until_ms: Some(receipt.lease_until.0),
                ..HandleOutcome::done(handle, "extended")
            },
            Err(ClientError::Refused(failure)) => {
                let is_over = failure.status == Status::ReceiptExpired;
                let outcome = if is_over { "not_leased" } else { "failed" };
                HandleOutcome::failed(handle, outcome, failure.message)
            }
            Err(error) => HandleOutcome::failed(handle, "failed", error),
        });
    }
    print_outcomes(format, &outcomes, "extended")
}
