//! Receipts as text, for programs that keep them outside of their memory: scripts, files, other processes.
//!
//! ```text
//! m.TOPIC.QUEUE.OFFSET.LEASED_AT.LEASE_UNTIL.CHECK    a leased message
//! t.TOPIC.QUEUE.POSITION.CHECK                        a half message of a transaction
//! ```
//!
//! Numbers are decimal: the topic's id, and times in milliseconds since 1970. CHECK is the crc32c, in eight hexadecimal
//! digits, of everything before its dot: a handle that was mistyped or cut off names no other message. It keeps nobody
//! from making one up; whoever may send requests may do so anyway.

use std::fmt;
use std::str::FromStr;

use crate::types::{
    HalfReceipt, LogPosition, QueueKey, QueueNumber, QueueOffset, Receipt, Timestamp, TopicId,
};

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceiptHandle {
    /// A leased message.
    Message(Receipt),
    /// A half message of a transaction.
    Half(HalfReceipt),
}

/// The text is no handle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no handle of a message: take it as it was printed")]
pub struct HandleError(String);

impl ReceiptHandle {
    /// The queue of the message.
    pub fn key(&self) -> QueueKey {
        match self {
            ReceiptHandle::Message(receipt) => receipt.key,
            ReceiptHandle::Half(receipt) => receipt.key,
        }
    }

    /// Everything but the check.
    fn fields(&self) -> String {
        let QueueKey { topic, queue } = self.key();
        match self {
            ReceiptHandle::Message(receipt) => format!(
                "m.{}.{}.{}.{}.{}",
                topic.0, queue.0, receipt.offset.0, receipt.leased_at.0, receipt.lease_until.0
            ),
            ReceiptHandle::Half(receipt) => format!("t.{}.{}.{}", topic.0, queue.0, receipt.position.0),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let kind = parts.next()?;
        let mut number = || parts.next()?.parse::<u64>().ok();
        let key = QueueKey {
            topic: TopicId(u32::try_from(number()?).ok()?),
            queue: QueueNumber(u32::try_from(number()?).ok()?),
        };
        let handle = match kind {
            "m" => ReceiptHandle::Message(Receipt {
                key,
                offset: QueueOffset(number()?),
                leased_at: Timestamp(number()?),
                lease_until: Timestamp(number()?),
            }),
            "t" => ReceiptHandle::Half(HalfReceipt { key, position: LogPosition(number()?) }),
            _ => return None,
        };
        // A number has one spelling only, so this compares the check and everything before it.
        (handle.to_string() == text).then_some(handle)
    }
}

impl fmt::Display for ReceiptHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.fields();
        write!(formatter, "{fields}.{:08x}", crc32c::crc32c(fields.as_bytes()))
    }
}

impl FromStr for ReceiptHandle {
    type Err = HandleError;

    fn from_str(text: &str) -> Result<Self, HandleError> {
        Self::parse(text).ok_or_else(|| HandleError(text.chars().take(200).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn handles() -> impl Strategy<Value = ReceiptHandle> {
        let key = any::<(u32, u32)>()
            .prop_map(|(topic, queue)| QueueKey { topic: TopicId(topic), queue: QueueNumber(queue) });
        (key, any::<bool>(), any::<(u64, u64, u64)>()).prop_map(|(key, is_half, (value, from, until))| {
            if is_half {
                return ReceiptHandle::Half(HalfReceipt { key, position: LogPosition(value) });
            }
            let (leased_at, lease_until) = (Timestamp(from), Timestamp(until));
            ReceiptHandle::Message(Receipt { key, offset: QueueOffset(value), leased_at, lease_until })
        })
    }

    proptest! {
        #[test]
        fn a_handle_comes_back_and_nothing_like_it_does(handle in handles(), at in any::<prop::sample::Index>()) {
            let text = handle.to_string();
            prop_assert_eq!(text.parse(), Ok(handle));
            let at = at.index(text.len());
            prop_assert!(text[..at].parse::<ReceiptHandle>().is_err());
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
            let changed = String::from_utf8(changed).expect("ASCII");
            prop_assert!(changed.parse::<ReceiptHandle>().is_err(), "{}", changed);
            let longer = text.clone() + " ";
            prop_assert!(longer.parse::<ReceiptHandle>().is_err());
            prop_assert!(text.replacen('.', ".0", 1).parse::<ReceiptHandle>().is_err());
        }

        #[test]
        fn any_text_is_refused_or_a_handle(text in "[mt.0-9a-f ]{0,80}") {
            if let Ok(handle) = text.parse::<ReceiptHandle>() {
                prop_assert_eq!(handle.to_string(), text);
            }
        }
    }

    #[test]
    fn the_spelling_that_scripts_keep() {
        let key = QueueKey { topic: TopicId(3), queue: QueueNumber(7) };
        let receipt = Receipt {
            key,
            offset: QueueOffset(1234),
            leased_at: Timestamp(1_700_000_000_000),
            lease_until: Timestamp(1_700_000_300_000),
        };
        let message = ReceiptHandle::Message(receipt).to_string();
        assert_eq!(message, "m.3.7.1234.1700000000000.1700000300000.2446a12c");
        let half = ReceiptHandle::Half(HalfReceipt { key, position: LogPosition(4096) }).to_string();
        assert_eq!(half, "t.3.7.4096.da3308c5");
        for text in ["", "m", "x.1.2.3.4.5.00000000", "t.4294967296.0.0.00000000", "\u{e9}"] {
            assert!(text.parse::<ReceiptHandle>().is_err(), "{text}");
        }
    }
}
