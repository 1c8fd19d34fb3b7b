//! Requests about leased and held messages as the server reads them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{level, name, queue_key, unknown};
use crate::api::{
    Acknowledge, ChangeLease, ClientProtocol, Decision, EndTransaction, Failure, Filter, GroupSettings, Hold,
    Receive, ReceiveHalves, Release, Request, Status, TagFilter,
};
use crate::filter::Expression;
use crate::limits;
use crate::protocol::native::properties::check_properties;
use crate::protocol::native::receipts::{known_half_receipt, known_receipt};
use crate::types::{QueueNumber, Receipt, Timestamp};
use crate::wire::generated as schema;

/// Waits and bytes are upper bounds, and what exceeds the broker's own is cut to it; no bytes stand for the most.
pub(super) fn receive(body: schema::Receive<'_>) -> Result<Request, Failure> {
    let bytes_max = match body.bytes_max() {
        0 => limits::RECEIVE_BYTES_MAX as u32,
        bytes => bytes.min(limits::RECEIVE_BYTES_MAX as u32),
    };
    Ok(Request::Receive(Receive {
        protocol: ClientProtocol::Native,
        group: name(body.group())?,
        topic: name(body.topic())?,
        scope: body.one_queue().then_some(QueueNumber(body.queue())).into(),
        filter: filter(body.filter(), body.expression())?,
        count: message_count(body.count())?,
        bytes_max,
        wait: wait(body.wait_ms()),
        lease: lease(body.lease_ms())?,
        ordered: body.ordered(),
    }))
}

pub(super) fn acknowledge(body: schema::Acknowledge<'_>) -> Result<Request, Failure> {
    let (count, most) = (body.receipts().len(), limits::ACKNOWLEDGE_RECEIPTS_MAX);
    if !(1..=most).contains(&count) {
        return Err(Failure::invalid(format_args!(
            "1 to {most} receipts are acknowledged at once, not {count}: send several requests"
        )));
    }
    let receipts = body.receipts().iter().map(receipt).collect::<Result<_, _>>()?;
    Ok(Request::Acknowledge(Acknowledge { group: name(body.group())?, receipts }))
}

pub(super) fn change_lease(body: schema::ChangeLease<'_>) -> Result<Request, Failure> {
    if body.lease_ms() > limits::LEASE_MS_MAX {
        return Err(Failure::invalid(format_args!(
            "a lease ends at most {} ms from now, not {} ms",
            limits::LEASE_MS_MAX,
            body.lease_ms()
        )));
    }
    Ok(Request::ChangeLease(ChangeLease {
        group: name(body.group())?,
        receipt: receipt(body.receipt())?,
        lease: Duration::from_millis(body.lease_ms()),
    }))
}

pub(super) fn alter_group(body: schema::AlterGroup<'_>) -> Result<Request, Failure> {
    let settings = GroupSettings {
        group: name(body.group())?,
        deliveries_max: (body.deliveries_max() != 0).then_some(body.deliveries_max()),
        lease: lease(body.lease_ms())?,
        ordered_lease: lease(body.ordered_lease_ms())?,
    };
    if settings.deliveries_max.is_none() && settings.lease.is_none() && settings.ordered_lease.is_none() {
        return Err(Failure::invalid(
            "nothing to alter: name a number of deliveries, a lease or a lease in order",
        ));
    }
    Ok(Request::AlterGroup(settings))
}

/// The batch is copied here, since whoever stores it may have to wait for room; what is in it is checked there.
pub(super) fn hold(body: schema::Hold<'_>, payload: &[u8]) -> Result<Request, Failure> {
    if payload.len() > limits::BATCH_BYTES_MAX {
        let most = limits::BATCH_BYTES_MAX;
        let message = format!("a batch of {} bytes is larger than {most}", payload.len());
        return Err(Failure::new(Status::MessageTooLarge, message));
    }
    check_properties(payload)?;
    let release = match body.until() {
        schema::HoldUntil::Time => Release::At(Timestamp(body.time_ms())),
        schema::HoldUntil::Delay => Release::After(Duration::from_millis(body.delay_ms())),
        schema::HoldUntil::Commit => Release::Commit {
            producer_group: body.producer_group().map(name).transpose()?,
            immunity: Duration::from_millis(body.immunity_ms()),
        },
        schema::HoldUntil(code) => return Err(unknown("end of a hold", code, "a time, a delay or a commit")),
    };
    Ok(Request::Hold(Hold {
        key: queue_key(body.topic_id(), body.queue())?,
        level: level(body.level())?,
        batch: Bytes::copy_from_slice(payload),
        release,
    }))
}

pub(super) fn end_transaction(body: schema::EndTransaction<'_>) -> Result<Request, Failure> {
    queue_key(body.receipt().topic_id(), body.receipt().queue())?;
    Ok(Request::EndTransaction(EndTransaction {
        receipt: known_half_receipt(body.receipt()),
        producer_group: body.producer_group().map(name).transpose()?,
        decision: match body.decision() {
            schema::Decision::Commit => Decision::Commit,
            schema::Decision::Rollback => Decision::Rollback,
            schema::Decision(code) => return Err(unknown("decision", code, "commit or rollback")),
        },
    }))
}

pub(super) fn receive_halves(body: schema::ReceiveHalves<'_>) -> Result<Request, Failure> {
    Ok(Request::ReceiveHalves(ReceiveHalves {
        topic: name(body.topic())?,
        producer_group: name(body.producer_group())?,
        count: message_count(body.count())?,
        wait: wait(body.wait_ms()),
    }))
}

fn receipt(receipt: &schema::Receipt) -> Result<Receipt, Failure> {
    queue_key(receipt.topic_id(), receipt.queue())?;
    Ok(known_receipt(receipt))
}

fn message_count(count: u32) -> Result<u32, Failure> {
    let most = limits::RECEIVE_MESSAGES_MAX;
    if !(1..=most).contains(&count) {
        return Err(Failure::invalid(format_args!("1 to {most} messages are received at once, not {count}")));
    }
    Ok(count)
}

fn wait(milliseconds: u32) -> Duration {
    Duration::from_millis(u64::from(milliseconds.min(limits::RECEIVE_WAIT_MS_MAX)))
}

/// Zero leaves the length of a lease open.
fn lease(milliseconds: u64) -> Result<Option<Duration>, Failure> {
    let range = limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX;
    if milliseconds != 0 && !range.contains(&milliseconds) {
        return Err(Failure::invalid(format_args!(
            "a lease lasts {} to {} ms, not {milliseconds} ms",
            range.start(),
            range.end()
        )));
    }
    Ok((milliseconds != 0).then(|| Duration::from_millis(milliseconds)))
}

/// Receivers of a group are told apart by what they ask for, so filters are kept: they are bounded.
fn filter(tags: Option<&str>, expression: Option<&str>) -> Result<Filter, Failure> {
    if let Some(expression) = expression {
        let read = expression.parse::<Expression>();
        let read =
            read.map_err(|error| Failure::invalid(format_args!("the filter is no expression: {error}")))?;
        return Ok(Filter::Expression(Arc::new(read)));
    }
    let filter = TagFilter::parse(tags);
    let (count, bytes) = (filter.tags().len(), filter.tags().iter().map(String::len).sum::<usize>());
    if count > limits::FILTER_TAGS_MAX || bytes > limits::FILTER_BYTES_MAX {
        return Err(Failure::invalid(format_args!(
            "a filter names at most {} tags of {} bytes together, not {count} of {bytes}",
            limits::FILTER_TAGS_MAX,
            limits::FILTER_BYTES_MAX
        )));
    }
    Ok(filter.into())
}
