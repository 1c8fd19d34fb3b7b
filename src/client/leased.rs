//! Messages that were handed out for a time: leased ones, and half messages that their producer is asked about.

use std::borrow::Cow;

use bytes::Bytes;

use crate::api::{self, HalfMessage};
use crate::types::{HalfReceipt, Receipt, RecordLocation, Timestamp};
use crate::wire::inflate::InflateError;
use crate::wire::origin::{Attributes, Origin};
use crate::wire::record::RecordView;

/// A message that is leased to whoever received it: nobody else of the group gets it until the lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedMessage {
    /// What acknowledges it.
    pub receipt: Receipt,
    /// Where it is stored, in the log of its queue's shard; `None` when the broker is of an earlier release.
    pub location: Option<RecordLocation>,
    /// When its producer made it, by the producer's clock.
    pub born_time: Timestamp,
    /// When the broker stored it.
    pub store_time: Timestamp,
    /// When it was first delivered to this group.
    pub first_delivery: Timestamp,
    /// Deliveries to this group, this one included.
    pub deliveries: u32,
    record: OwnedRecord,
}

/// A half message whose producer has not decided on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecidedMessage {
    /// What ends its transaction.
    pub receipt: HalfReceipt,
    /// When its producer made it, by the producer's clock.
    pub born_time: Timestamp,
    /// When the broker stored it.
    pub store_time: Timestamp,
    /// When it was handed out for the first time.
    pub first_check: Timestamp,
    /// It is handed out again then.
    pub next_check: Timestamp,
    /// How often it was handed out, this time included.
    pub checks: u32,
    record: OwnedRecord,
}

/// A whole record: the decoder of answers has checked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnedRecord(Bytes);

impl OwnedRecord {
    /// A whole record that was checked.
    #[cfg(feature = "tokio")]
    pub(super) fn checked(record: Bytes) -> Self {
        Self(record)
    }

    /// With the record's own time of birth, which it has as a difference to its batch's.
    fn new(record: Bytes, batch_born: Timestamp) -> (Self, Timestamp) {
        let record = Self(record);
        let delta = i64::from(record.view().born_delta_ms());
        let born = Timestamp(batch_born.0.saturating_add_signed(delta));
        (record, born)
    }

    pub(super) fn view(&self) -> RecordView<'_> {
        let (view, _) = RecordView::cut(&self.0).expect("it was checked when it came");
        view
    }
}

impl From<api::ReceivedMessage> for LeasedMessage {
    fn from(message: api::ReceivedMessage) -> Self {
        let (record, born_time) = OwnedRecord::new(message.record, message.born_time);
        Self {
            receipt: message.receipt,
            location: message.location,
            born_time,
            store_time: message.store_time,
            first_delivery: message.first_delivery,
            deliveries: message.deliveries,
            record,
        }
    }
}

impl From<HalfMessage> for UndecidedMessage {
    fn from(half: HalfMessage) -> Self {
        let (record, born_time) = OwnedRecord::new(half.record, half.born_time);
        Self {
            receipt: half.receipt,
            born_time,
            store_time: half.store_time,
            first_check: half.first_check,
            next_check: half.next_check,
            checks: half.checks,
            record,
        }
    }
}

/// What both kinds of messages show of their record.
macro_rules! record_accessors {
    ($message:ty) => {
        impl $message {
            /// The message's keys, separated by blanks. Empty: none.
            pub fn key(&self) -> &[u8] {
                self.record.view().key()
            }

            /// Empty: none.
            pub fn tag(&self) -> &[u8] {
                self.record.view().tag()
            }

            /// RocketMQ's text form: name \x01 value \x02, repeated.
            pub fn properties(&self) -> &[u8] {
                self.record.view().properties()
            }

            /// The body as stored: as its producer compressed it, if it did.
            pub fn body(&self) -> &[u8] {
                self.record.view().body()
            }

            /// The body as its producer had it before it was compressed. Fails when it is not what it says, or is larger than 4 MiB.
            pub fn plain_body(&self) -> Result<Cow<'_, [u8]>, InflateError> {
                self.record.view().plain_body()
            }

            /// How the body is stored, and whether the message was part of a transaction.
            pub fn attributes(&self) -> Attributes {
                self.record.view().attributes()
            }

            /// Where the message comes from, as RocketMQ's own protocol says it.
            pub fn origin(&self) -> Option<Origin> {
                self.record.view().origin()
            }
        }
    };
}

record_accessors!(LeasedMessage);
record_accessors!(UndecidedMessage);
