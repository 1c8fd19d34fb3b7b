//! Receipts on the wire, in both directions.

use crate::types::{
    HalfReceipt, LogPosition, QueueKey, QueueNumber, QueueOffset, Receipt, Timestamp, TopicId,
};
use crate::wire::generated as schema;

pub(super) fn receipt_code(receipt: &Receipt) -> schema::Receipt {
    schema::Receipt::new(
        receipt.key.topic.0,
        receipt.key.queue.0,
        receipt.offset.0,
        receipt.leased_at.0,
        receipt.lease_until.0,
    )
}

/// A receipt as it came; whether its queue exists is the broker's to say.
pub(super) fn known_receipt(receipt: &schema::Receipt) -> Receipt {
    Receipt {
        key: QueueKey { topic: TopicId(receipt.topic_id()), queue: QueueNumber(receipt.queue()) },
        offset: QueueOffset(receipt.offset()),
        leased_at: Timestamp(receipt.leased_at_ms()),
        lease_until: Timestamp(receipt.lease_until_ms()),
    }
}

pub(super) fn half_receipt_code(receipt: &HalfReceipt) -> schema::HalfReceipt {
    schema::HalfReceipt::new(receipt.key.topic.0, receipt.key.queue.0, receipt.position.0)
}

pub(super) fn known_half_receipt(receipt: &schema::HalfReceipt) -> HalfReceipt {
    HalfReceipt {
        key: QueueKey { topic: TopicId(receipt.topic_id()), queue: QueueNumber(receipt.queue()) },
        position: LogPosition(receipt.position()),
    }
}
