//! Answers about leased and held messages as the server writes them.

use super::{Body, Builder};
use crate::api::{GroupSettings, HalfMessage, Held, ReceiptOutcome, ReceivedMessage};
use crate::protocol::native::group_info::settings_table;
use crate::protocol::native::locations;
use crate::protocol::native::receipts::{half_receipt_code, receipt_code};
use crate::protocol::native::status::level_code;
use crate::types::Receipt;
use crate::wire::generated as schema;

/// What precedes the records of received messages.
pub(super) fn received_body(builder: &mut Builder, messages: &[ReceivedMessage]) -> Body {
    let mut tables = Vec::with_capacity(messages.len());
    for message in messages {
        let location = message.location.as_ref().map(locations::code);
        let arguments = schema::ReceivedMessageArgs {
            receipt: Some(&receipt_code(&message.receipt)),
            location: location.as_ref(),
            record_bytes: message.record.len() as u32,
            born_time_ms: message.born_time.0,
            store_time_ms: message.store_time.0,
            first_delivery_ms: message.first_delivery.0,
            deliveries: message.deliveries,
        };
        tables.push(schema::ReceivedMessage::create(builder, &arguments));
    }
    let messages = Some(builder.create_vector(&tables));
    let table = schema::ReceivedMessages::create(builder, &schema::ReceivedMessagesArgs { messages });
    (schema::ReplyBody::ReceivedMessages, table.as_union_value())
}

/// What precedes the records of half messages.
pub(super) fn halves_body(builder: &mut Builder, halves: &[HalfMessage]) -> Body {
    let mut tables = Vec::with_capacity(halves.len());
    for half in halves {
        let arguments = schema::HalfMessageArgs {
            receipt: Some(&half_receipt_code(&half.receipt)),
            record_bytes: half.record.len() as u32,
            born_time_ms: half.born_time.0,
            store_time_ms: half.store_time.0,
            first_check_ms: half.first_check.0,
            next_check_ms: half.next_check.0,
            checks: half.checks,
        };
        tables.push(schema::HalfMessage::create(builder, &arguments));
    }
    let messages = Some(builder.create_vector(&tables));
    let table = schema::HalfMessages::create(builder, &schema::HalfMessagesArgs { messages });
    (schema::ReplyBody::HalfMessages, table.as_union_value())
}

pub(super) fn acknowledged_body(builder: &mut Builder, outcomes: &[ReceiptOutcome]) -> Body {
    let code = |outcome: &ReceiptOutcome| match outcome {
        ReceiptOutcome::Acknowledged => schema::ReceiptOutcome::Acknowledged,
        // The protocol has one word for both.
        ReceiptOutcome::NotLeased | ReceiptOutcome::NothingOpen => schema::ReceiptOutcome::NotLeased,
        ReceiptOutcome::Failed => schema::ReceiptOutcome::Failed,
    };
    let codes: Vec<_> = outcomes.iter().map(code).collect();
    let outcomes = Some(builder.create_vector(&codes));
    let table = schema::Acknowledged::create(builder, &schema::AcknowledgedArgs { outcomes });
    (schema::ReplyBody::Acknowledged, table.as_union_value())
}

pub(super) fn lease_changed_body(builder: &mut Builder, receipt: &Receipt) -> Body {
    let arguments = schema::LeaseChangedArgs { receipt: Some(&receipt_code(receipt)) };
    let table = schema::LeaseChanged::create(builder, &arguments);
    (schema::ReplyBody::LeaseChanged, table.as_union_value())
}

pub(super) fn settings_body(builder: &mut Builder, settings: &GroupSettings) -> Body {
    (schema::ReplyBody::GroupSettings, settings_table(builder, settings).as_union_value())
}

pub(super) fn held_body(builder: &mut Builder, held: &Held) -> Body {
    let arguments = schema::HeldArgs {
        receipt: Some(&half_receipt_code(&held.receipt)),
        log_position: held.position.0,
        store_time_ms: held.store_time.0,
        level: level_code(Some(held.level)),
        due_ms: held.due.map_or(0, |due| due.0),
        entered: held.offset.is_some(),
        offset: held.offset.map_or(0, |offset| offset.0),
    };
    (schema::ReplyBody::Held, schema::Held::create(builder, &arguments).as_union_value())
}
