//! Receipt handles: a broker's receipt as text that nobody else can make.
//!
//! ```text
//!  0  u8   kind         0 a message's, 1 a half message's
//!  1  u32  topic, u32 queue
//!  9  u64  offset       of a message; position of a half message
//! 17  u64  leased_at_ms
//! 25  u64  lease_until_ms
//! 33       the first 12 bytes of HMAC-SHA1(secret, bytes 0..33, name of the topic, 0, name of the group)
//! ```
//!
//! in URL-safe base64. Little-endian. Topic and group are not in it: the request names them, and the code is right only
//! for those the handle was given for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::types::{
    HalfReceipt, LogPosition, QueueKey, QueueNumber, QueueOffset, Receipt, Timestamp, TopicId,
};
use crate::wire::bytes::{get_u32, get_u64};

const FIELDS_BYTES: usize = 33;
const CODE_BYTES: usize = 12;
const HANDLE_BYTES: usize = FIELDS_BYTES + CODE_BYTES;

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptHandle {
    Message(Receipt),
    /// With the moment from which it is worth nothing: the half message is handed out again then.
    Half(HalfReceipt, Timestamp),
}

/// Makes and reads handles with the node's secret.
pub struct HandleCodec {
    mac: Hmac<Sha1>,
}

/// The text is no handle, or none of this topic and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a receipt handle of this topic and group")]
pub struct HandleError;

impl HandleCodec {
    pub fn new(secret: &[u8]) -> Self {
        Self { mac: Hmac::new_from_slice(secret).expect("HMAC takes a key of any length") }
    }

    pub fn encode(&self, handle: &ReceiptHandle, topic: &str, group: &str) -> String {
        let mut bytes = [0; HANDLE_BYTES];
        let (kind, key, value, from, until) = match handle {
            ReceiptHandle::Message(receipt) => {
                (0, receipt.key, receipt.offset.0, receipt.leased_at, receipt.lease_until)
            }
            ReceiptHandle::Half(receipt, until) => (1, receipt.key, receipt.position.0, Timestamp(0), *until),
        };
        bytes[0] = kind;
        bytes[1..5].copy_from_slice(&key.topic.0.to_le_bytes());
        bytes[5..9].copy_from_slice(&key.queue.0.to_le_bytes());
        bytes[9..17].copy_from_slice(&value.to_le_bytes());
        bytes[17..25].copy_from_slice(&from.0.to_le_bytes());
        bytes[25..33].copy_from_slice(&until.0.to_le_bytes());
        let code = self.code(&bytes[..FIELDS_BYTES], topic, group).finalize().into_bytes();
        bytes[FIELDS_BYTES..].copy_from_slice(&code[..CODE_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub fn decode(&self, text: &str, topic: &str, group: &str) -> Result<ReceiptHandle, HandleError> {
        let mut bytes = [0; HANDLE_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(|_| HandleError)?;
        if length != HANDLE_BYTES {
            return Err(HandleError);
        }
        let (fields, code) = bytes.split_at(FIELDS_BYTES);
        // In constant time.
        self.code(fields, topic, group).verify_truncated_left(code).map_err(|_| HandleError)?;
        let key = QueueKey { topic: TopicId(get_u32(fields, 1)), queue: QueueNumber(get_u32(fields, 5)) };
        let value = get_u64(fields, 9);
        let (from, until) = (Timestamp(get_u64(fields, 17)), Timestamp(get_u64(fields, 25)));
        match fields[0] {
            0 => Ok(ReceiptHandle::Message(Receipt {
                key,
                offset: QueueOffset(value),
                leased_at: from,
                lease_until: until,
            })),
            1 => Ok(ReceiptHandle::Half(HalfReceipt { key, position: LogPosition(value) }, until)),
            _ => Err(HandleError),
        }
    }

    fn code(&self, fields: &[u8], topic: &str, group: &str) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        [fields, topic.as_bytes(), &[0], group.as_bytes()].into_iter().for_each(|part| mac.update(part));
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> [ReceiptHandle; 2] {
        let key = QueueKey { topic: TopicId(3), queue: QueueNumber(7) };
        [
            ReceiptHandle::Message(Receipt {
                key,
                offset: QueueOffset(1 << 40),
                leased_at: Timestamp(1_700_000_000_000),
                lease_until: Timestamp(1_700_000_300_000),
            }),
            ReceiptHandle::Half(
                HalfReceipt { key, position: LogPosition(4096) },
                Timestamp(1_700_000_300_000),
            ),
        ]
    }

    #[test]
    fn handles_round_trip_for_their_topic_and_group_only() {
        let codec = HandleCodec::new(b"secret");
        for handle in samples() {
            let text = codec.encode(&handle, "t", "g");
            assert_eq!(text.len(), 60);
            assert_eq!(codec.decode(&text, "t", "g"), Ok(handle));
            for (topic, group) in [("t", "h"), ("s", "g"), ("tg", ""), ("", "tg")] {
                assert_eq!(codec.decode(&text, topic, group), Err(HandleError));
            }
            assert_eq!(HandleCodec::new(b"other").decode(&text, "t", "g"), Err(HandleError));
        }
    }

    #[test]
    fn a_changed_handle_is_refused() {
        let codec = HandleCodec::new(b"secret");
        let text = codec.encode(&samples()[0], "t", "g");
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(codec.decode(&changed, "t", "g"), Err(HandleError), "{at}");
            assert_eq!(codec.decode(&text[..at], "t", "g"), Err(HandleError), "{at}");
        }
        for text in ["", "=", "\u{e9}", &"A".repeat(10_000)] {
            assert_eq!(codec.decode(text, "t", "g"), Err(HandleError));
        }
    }
}
