//! Requests about leased and held messages as a client writes them.

use std::time::Duration;

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::Body;
use crate::api::{
    Acknowledge, ChangeLease, Decision, EndTransaction, Filter, GroupSettings, Hold, Receive, ReceiveHalves,
    Release, Request,
};
use crate::protocol::native::receipts::{half_receipt_code, receipt_code};
use crate::protocol::native::status::level_code;
use crate::wire::generated as schema;

type Builder = FlatBufferBuilder<'static>;
type Table = WIPOffset<UnionWIPOffset>;

/// The requests about leases and undecided messages.
pub(super) fn lease_body(builder: &mut Builder, request: &Request) -> Body {
    use schema::RequestBody as Kind;
    match request {
        Request::Receive(receive) => (Kind::Receive, receive_table(builder, receive)),
        Request::Acknowledge(acknowledge) => (Kind::Acknowledge, acknowledge_table(builder, acknowledge)),
        Request::ChangeLease(change) => (Kind::ChangeLease, change_table(builder, change)),
        Request::AlterGroup(settings) => (Kind::AlterGroup, settings_table(builder, settings)),
        Request::EndTransaction(end) => (Kind::EndTransaction, end_table(builder, end)),
        Request::ReceiveHalves(receive) => (Kind::ReceiveHalves, halves_table(builder, receive)),
        _ => unreachable!("not about a lease: {request:?}"),
    }
}

/// What precedes the batch of a held message.
pub(super) fn hold_body(builder: &mut Builder, hold: &Hold) -> Body {
    let (until, time_ms, delay) = match &hold.release {
        Release::At(time) => (schema::HoldUntil::Time, time.0, Duration::ZERO),
        Release::After(delay) => (schema::HoldUntil::Delay, 0, *delay),
        Release::Commit { .. } => (schema::HoldUntil::Commit, 0, Duration::ZERO),
    };
    let (producer_group, immunity) = match &hold.release {
        Release::Commit { producer_group, immunity } => (producer_group.as_ref(), *immunity),
        Release::At(_) | Release::After(_) => (None, Duration::ZERO),
    };
    let arguments = schema::HoldArgs {
        topic_id: hold.key.topic.0,
        queue: hold.key.queue.0,
        level: level_code(hold.level),
        until,
        time_ms,
        producer_group: producer_group.map(|group| builder.create_string(group.as_str())),
        immunity_ms: milliseconds(immunity),
        delay_ms: milliseconds(delay),
    };
    (schema::RequestBody::Hold, schema::Hold::create(builder, &arguments).as_union_value())
}

fn receive_table(builder: &mut Builder, receive: &Receive) -> Table {
    let (filter, expression) = match &receive.filter {
        Filter::Tags(tags) => ((!tags.is_everything()).then(|| tags.expression()), None),
        Filter::Expression(expression) => (None, Some(expression.text())),
    };
    let arguments = schema::ReceiveArgs {
        group: Some(builder.create_string(receive.group.as_str())),
        topic: Some(builder.create_string(receive.topic.as_str())),
        one_queue: receive.scope.queue().is_some(),
        queue: receive.scope.queue().map_or(0, |queue| queue.0),
        filter: filter.map(|filter| builder.create_string(&filter)),
        count: receive.count,
        bytes_max: receive.bytes_max,
        wait_ms: short_milliseconds(receive.wait),
        lease_ms: optional_milliseconds(receive.lease),
        ordered: receive.ordered,
        expression: expression.map(|expression| builder.create_string(expression)),
    };
    schema::Receive::create(builder, &arguments).as_union_value()
}

fn acknowledge_table(builder: &mut Builder, acknowledge: &Acknowledge) -> Table {
    let receipts: Vec<_> = acknowledge.receipts.iter().map(receipt_code).collect();
    let arguments = schema::AcknowledgeArgs {
        group: Some(builder.create_string(acknowledge.group.as_str())),
        receipts: Some(builder.create_vector(&receipts)),
    };
    schema::Acknowledge::create(builder, &arguments).as_union_value()
}

fn change_table(builder: &mut Builder, change: &ChangeLease) -> Table {
    let arguments = schema::ChangeLeaseArgs {
        group: Some(builder.create_string(change.group.as_str())),
        receipt: Some(&receipt_code(&change.receipt)),
        lease_ms: milliseconds(change.lease),
    };
    schema::ChangeLease::create(builder, &arguments).as_union_value()
}

fn settings_table(builder: &mut Builder, settings: &GroupSettings) -> Table {
    let arguments = schema::AlterGroupArgs {
        group: Some(builder.create_string(settings.group.as_str())),
        deliveries_max: settings.deliveries_max.unwrap_or(0),
        lease_ms: optional_milliseconds(settings.lease),
        ordered_lease_ms: optional_milliseconds(settings.ordered_lease),
    };
    schema::AlterGroup::create(builder, &arguments).as_union_value()
}

fn end_table(builder: &mut Builder, end: &EndTransaction) -> Table {
    let group = end.producer_group.as_ref();
    let arguments = schema::EndTransactionArgs {
        receipt: Some(&half_receipt_code(&end.receipt)),
        producer_group: group.map(|group| builder.create_string(group.as_str())),
        decision: match end.decision {
            Decision::Commit => schema::Decision::Commit,
            Decision::Rollback => schema::Decision::Rollback,
        },
    };
    schema::EndTransaction::create(builder, &arguments).as_union_value()
}

fn halves_table(builder: &mut Builder, receive: &ReceiveHalves) -> Table {
    let arguments = schema::ReceiveHalvesArgs {
        topic: Some(builder.create_string(receive.topic.as_str())),
        producer_group: Some(builder.create_string(receive.producer_group.as_str())),
        count: receive.count,
        wait_ms: short_milliseconds(receive.wait),
    };
    schema::ReceiveHalves::create(builder, &arguments).as_union_value()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn short_milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Zero means none on the wire: what is shorter than a millisecond becomes one, and is refused as too short.
fn optional_milliseconds(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |duration| milliseconds(duration).max(1))
}
