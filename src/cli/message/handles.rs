//! Handles on the command line, and what became of each.

use serde::Serialize;

use crate::api::{Failure, Status};
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, on_one_line, print};
use crate::client::{Client, ClientError, ReceiptHandle};
use crate::types::{HalfReceipt, Receipt, TopicName};

/// One handle's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HandleOutcome {
    pub handle: String,
    pub outcome: &'static str,
    /// The handle that counts from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_handle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_until_ms: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip)]
    pub is_done: bool,
}

#[derive(Serialize)]
struct OutcomesView<'a> {
    outcomes: &'a [HandleOutcome],
}

impl HandleOutcome {
    pub fn done(handle: impl ToString, outcome: &'static str) -> Self {
        Self {
            handle: handle.to_string(),
            outcome,
            next_handle: None,
            lease_until_ms: None,
            reason: None,
            is_done: true,
        }
    }

    pub fn failed(handle: impl ToString, outcome: &'static str, reason: impl ToString) -> Self {
        let reason = Some(reason.to_string());
        Self { reason, is_done: false, ..Self::done(handle, outcome) }
    }

    fn text(&self) -> String {
        let mut text = format!("{} {}", self.handle, self.outcome);
        if let Some(next) = &self.next_handle {
            text += &format!(", now {next}");
        }
        if let Some(reason) = &self.reason {
            text += &format!(": {}", on_one_line(reason));
        }
        text + "\n"
    }
}

/// Prints what became of every handle. Fails when one of them failed, `what` being what it was not.
pub fn print_outcomes(
    format: OutputFormat,
    outcomes: &[HandleOutcome],
    what: &str,
) -> Result<(), CommandError> {
    print(format, &OutcomesView { outcomes }, |view| {
        view.outcomes.iter().map(HandleOutcome::text).collect()
    })?;
    let failed = outcomes.iter().filter(|outcome| !outcome.is_done).count();
    if failed > 0 {
        let message = format!("{failed} of {} messages were not {what}", outcomes.len());
        return Err(CommandError::failed(message).with("failed", failed));
    }
    Ok(())
}

/// The receipts of leased messages of a topic. Checked before anything is done.
pub fn receipts_of(
    client: &mut Client,
    topic: &TopicName,
    handles: &[ReceiptHandle],
) -> Result<Vec<Receipt>, CommandError> {
    let id = client.topic(topic).map_err(|error| gone(topic, error))?.id;
    let receipt = |handle: &ReceiptHandle| match handle {
        ReceiptHandle::Message(receipt) if receipt.key.topic == id => Ok(*receipt),
        ReceiptHandle::Message(_) => {
            Err(CommandError::usage(format!("`{handle}` is a handle of another topic than {topic}")))
        }
        ReceiptHandle::Half(_) => Err(CommandError::usage(format!(
            "`{handle}` is a handle of a transaction: end it with `turbopump message commit` or `rollback`"
        ))),
    };
    handles.iter().map(receipt).collect()
}

/// Nobody makes a topic for the messages that it held.
fn gone(topic: &TopicName, error: ClientError) -> ClientError {
    match error {
        ClientError::Refused(failure) if failure.status == Status::TopicNotExist => {
            let message = format!("topic {topic} does not exist: `turbopump topic list` shows those that do");
            Failure::new(Status::TopicNotExist, message).into()
        }
        error => error,
    }
}

/// That all are handles of transactions.
pub fn check_halves(handles: &[ReceiptHandle]) -> Result<(), CommandError> {
    let other = handles.iter().find(|handle| matches!(handle, ReceiptHandle::Message(_)));
    other.map_or(Ok(()), |handle| {
        Err(CommandError::usage(format!(
            "`{handle}` is a handle of a leased message: acknowledge it with `turbopump message ack`"
        )))
    })
}

/// The receipts of transactions of a topic. Checked before anything is done.
pub fn half_receipts_of(
    client: &mut Client,
    topic: &TopicName,
    handles: &[ReceiptHandle],
) -> Result<Vec<HalfReceipt>, CommandError> {
    check_halves(handles)?;
    let id = client.topic(topic).map_err(|error| gone(topic, error))?.id;
    let halves = handles.iter().filter_map(|handle| match handle {
        ReceiptHandle::Half(receipt) => Some((handle, *receipt)),
        ReceiptHandle::Message(_) => None,
    });
    let of_topic = |(handle, receipt): (&ReceiptHandle, HalfReceipt)| match receipt.key.topic == id {
        true => Ok(receipt),
        false => Err(CommandError::usage(format!("`{handle}` is a handle of another topic than {topic}"))),
    };
    halves.map(of_topic).collect()
}
