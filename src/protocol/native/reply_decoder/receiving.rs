//! Answers about leased and held messages as a client reads them.

use flatbuffers::Vector;

use super::{PayloadRecords, reached_level};
use crate::api::{
    DelayedMessage, DelayedMessages, DelayedPlace, HalfMessage, Held, ReceiptOutcome, ReceivedMessage,
};
use crate::limits;
use crate::protocol::native::envelope::MalformedReply;
use crate::protocol::native::locations;
use crate::protocol::native::receipts::{known_half_receipt, known_receipt};
use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};
use crate::wire::generated as schema;

pub(super) fn received(
    body: schema::ReceivedMessages<'_>,
    payload: &[u8],
) -> Result<Vec<ReceivedMessage>, MalformedReply> {
    let mut records = PayloadRecords { rest: payload };
    let mut messages = Vec::with_capacity(expected(body.messages().len()));
    for message in body.messages() {
        messages.push(ReceivedMessage {
            receipt: known_receipt(message.receipt()),
            location: message.location().map(locations::known),
            record: records.next(message.record_bytes())?,
            born_time: Timestamp(message.born_time_ms()),
            store_time: Timestamp(message.store_time_ms()),
            first_delivery: Timestamp(message.first_delivery_ms()),
            deliveries: message.deliveries(),
        });
    }
    records.end()?;
    Ok(messages)
}

pub(super) fn halves(
    body: schema::HalfMessages<'_>,
    payload: &[u8],
) -> Result<Vec<HalfMessage>, MalformedReply> {
    let mut records = PayloadRecords { rest: payload };
    let mut halves = Vec::with_capacity(expected(body.messages().len()));
    for half in body.messages() {
        halves.push(HalfMessage {
            receipt: known_half_receipt(half.receipt()),
            record: records.next(half.record_bytes())?,
            born_time: Timestamp(half.born_time_ms()),
            store_time: Timestamp(half.store_time_ms()),
            first_check: Timestamp(half.first_check_ms()),
            next_check: Timestamp(half.next_check_ms()),
            checks: half.checks(),
        });
    }
    records.end()?;
    Ok(halves)
}

pub(super) fn delayed(
    body: schema::DelayedMessages<'_>,
    payload: &[u8],
) -> Result<DelayedMessages, MalformedReply> {
    let mut records = PayloadRecords { rest: payload };
    let mut messages = Vec::with_capacity(expected(body.messages().len()));
    for message in body.messages() {
        messages.push(DelayedMessage {
            key: QueueKey { topic: TopicId(message.topic_id()), queue: QueueNumber(message.queue()) },
            position: LogPosition(message.position()),
            due: Timestamp(message.due_ms()),
            record: records.next(message.record_bytes())?,
            born_time: Timestamp(message.born_time_ms()),
            store_time: Timestamp(message.store_time_ms()),
        });
    }
    records.end()?;
    let next = DelayedPlace { bucket: body.bucket(), offset: body.offset() };
    Ok(DelayedMessages { messages, next: body.incomplete().then_some(next) })
}

/// Room for as many as a broker sends; whoever announces more pays for each with bytes.
fn expected(count: usize) -> usize {
    count.min(limits::RECEIVE_MESSAGES_MAX as usize)
}

pub(super) fn outcomes(
    codes: Vector<'_, schema::ReceiptOutcome>,
) -> Result<Vec<ReceiptOutcome>, MalformedReply> {
    let outcome = |code: schema::ReceiptOutcome| match code {
        schema::ReceiptOutcome::Acknowledged => Ok(ReceiptOutcome::Acknowledged),
        schema::ReceiptOutcome::NotLeased => Ok(ReceiptOutcome::NotLeased),
        schema::ReceiptOutcome::Failed => Ok(ReceiptOutcome::Failed),
        schema::ReceiptOutcome(code) => {
            Err(MalformedReply(format!("outcome {code} of a receipt is not known to this release")))
        }
    };
    codes.iter().map(outcome).collect()
}

pub(super) fn held(body: schema::Held<'_>) -> Result<Held, MalformedReply> {
    Ok(Held {
        receipt: known_half_receipt(body.receipt()),
        position: LogPosition(body.log_position()),
        store_time: Timestamp(body.store_time_ms()),
        level: reached_level(body.level())?,
        due: (body.due_ms() != 0).then_some(Timestamp(body.due_ms())),
        offset: body.entered().then_some(QueueOffset(body.offset())),
    })
}
