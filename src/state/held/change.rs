//! Changes of the held messages, among those of `state::record`.
//!
//! ```text
//! kind 32, released:      u64 due_ms, u64 position
//! kind 33, moved:         u32 bucket, u64 position
//! kind 34, half stored:   u32 topic, u32 queue, u64 position, u64 current, u32 batch_bytes, u32 checks,
//!                         u64 store_time_ms, u64 first_check_ms, u64 next_check_ms, producer group (may be empty)
//! kind 35, half ended:    u64 position
//! kind 36, half checked:  u64 position, u32 checks, u64 checked_ms, u64 next_check_ms
//! kind 37, half moved:    u64 position, u64 current
//! kind 38, recalled:      u64 due_ms, u64 position
//! ```
//!
//! The times of halves are those of `broker::steady`. A half whose `checks` are all ones is a delayed message: see
//! [`Half::waits_for_its_time`]. An older release gives it up at that time, to the topic for undecided messages.

use crate::types::{GroupName, LogPosition, QueueKey, QueueNumber, Timestamp, TopicId};
use crate::wire::bytes::{get_u32, get_u64};

const RELEASED: u8 = 32;
const MOVED: u8 = 33;
const HALF_STORED: u8 = 34;
const HALF_ENDED: u8 = 35;
const HALF_CHECKED: u8 = 36;
const HALF_MOVED: u8 = 37;
const RECALLED: u8 = 38;

const HALF_BYTES: usize = 56;

/// One change of the held messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldChange {
    /// The delayed messages up to this one were released. Also in checkpoints; the higher one counts.
    Released {
        due: Timestamp,
        position: LogPosition,
    },
    /// The delayed batches of a bucket up to this position were released or placed again.
    Moved {
        bucket: QueueNumber,
        position: LogPosition,
    },
    /// A half message as of now. In a checkpoint it repeats older changes, so what grows never falls by it.
    HalfStored(Half),
    HalfEnded(LogPosition),
    HalfChecked {
        half: LogPosition,
        checks: u32,
        checked: Timestamp,
        next_check: Timestamp,
    },
    HalfMoved {
        half: LogPosition,
        current: LogPosition,
    },
    /// A delayed message is not to enter its queue: its producer has taken it back.
    Recalled {
        due: Timestamp,
        position: LogPosition,
    },
}

/// A half message that waits for a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Half {
    /// The queue that gets it.
    pub key: QueueKey,
    /// Where it was first stored: its name.
    pub position: LogPosition,
    /// Where it is stored now.
    pub current: LogPosition,
    pub batch_bytes: u32,
    pub store_time: Timestamp,
    /// When it was, or will be, handed out for the first time.
    pub first_check: Timestamp,
    pub next_check: Timestamp,
    /// How often it was handed out.
    pub checks: u32,
    pub producer_group: Option<GroupName>,
}

/// In place of the checks: nobody is asked.
pub const NO_CHECKS: u32 = u32::MAX;

impl Half {
    /// It is a delayed message that enters its queue at `next_check`: its time lies before that of messages which were
    /// released already, since the wall clock was set back.
    pub fn waits_for_its_time(&self) -> bool {
        self.checks == NO_CHECKS
    }
}

impl HeldChange {
    pub const KINDS: std::ops::RangeInclusive<u8> = 32..=39;

    /// Appends the body and returns the kind.
    pub fn encode_body(&self, output: &mut Vec<u8>) -> u8 {
        let mut put =
            |numbers: &[u64]| numbers.iter().for_each(|n| output.extend_from_slice(&n.to_le_bytes()));
        match self {
            HeldChange::Released { due, position } => {
                put(&[due.0, position.0]);
                RELEASED
            }
            HeldChange::Moved { bucket, position } => {
                output.extend_from_slice(&bucket.0.to_le_bytes());
                output.extend_from_slice(&position.0.to_le_bytes());
                MOVED
            }
            HeldChange::HalfStored(half) => {
                half.encode(output);
                HALF_STORED
            }
            HeldChange::HalfEnded(half) => {
                put(&[half.0]);
                HALF_ENDED
            }
            HeldChange::HalfChecked { half, checks, checked, next_check } => {
                output.extend_from_slice(&half.0.to_le_bytes());
                output.extend_from_slice(&checks.to_le_bytes());
                output.extend_from_slice(&checked.0.to_le_bytes());
                output.extend_from_slice(&next_check.0.to_le_bytes());
                HALF_CHECKED
            }
            HeldChange::HalfMoved { half, current } => {
                put(&[half.0, current.0]);
                HALF_MOVED
            }
            HeldChange::Recalled { due, position } => {
                put(&[due.0, position.0]);
                RECALLED
            }
        }
    }

    /// Reads a body; `None` when it is not as this release writes it.
    pub fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        let position = |at| LogPosition(get_u64(body, at));
        let time = |at| Timestamp(get_u64(body, at));
        let bytes = match kind {
            RELEASED | HALF_MOVED | RECALLED => 16,
            MOVED => 12,
            HALF_STORED => return Half::decode(body).map(HeldChange::HalfStored),
            HALF_ENDED => 8,
            HALF_CHECKED => 28,
            _ => return None,
        };
        if body.len() < bytes {
            return None;
        }
        Some(match kind {
            RELEASED => HeldChange::Released { due: time(0), position: position(8) },
            RECALLED => HeldChange::Recalled { due: time(0), position: position(8) },
            MOVED => HeldChange::Moved { bucket: QueueNumber(get_u32(body, 0)), position: position(4) },
            HALF_ENDED => HeldChange::HalfEnded(position(0)),
            HALF_CHECKED => HeldChange::HalfChecked {
                half: position(0),
                checks: get_u32(body, 8),
                checked: time(12),
                next_check: time(20),
            },
            _ => HeldChange::HalfMoved { half: position(0), current: position(8) },
        })
    }
}

impl Half {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend_from_slice(&self.key.topic.0.to_le_bytes());
        output.extend_from_slice(&self.key.queue.0.to_le_bytes());
        output.extend_from_slice(&self.position.0.to_le_bytes());
        output.extend_from_slice(&self.current.0.to_le_bytes());
        output.extend_from_slice(&self.batch_bytes.to_le_bytes());
        output.extend_from_slice(&self.checks.to_le_bytes());
        output.extend_from_slice(&self.store_time.0.to_le_bytes());
        output.extend_from_slice(&self.first_check.0.to_le_bytes());
        output.extend_from_slice(&self.next_check.0.to_le_bytes());
        let group = self.producer_group.as_ref().map_or("", GroupName::as_str);
        output.extend_from_slice(group.as_bytes());
    }

    fn decode(body: &[u8]) -> Option<Self> {
        if body.len() < HALF_BYTES {
            return None;
        }
        let producer_group = match std::str::from_utf8(&body[HALF_BYTES..]).ok()? {
            "" => None,
            name => Some(name.parse().ok()?),
        };
        Some(Self {
            key: QueueKey { topic: TopicId(get_u32(body, 0)), queue: QueueNumber(get_u32(body, 4)) },
            position: LogPosition(get_u64(body, 8)),
            current: LogPosition(get_u64(body, 16)),
            batch_bytes: get_u32(body, 24),
            checks: get_u32(body, 28),
            store_time: Timestamp(get_u64(body, 32)),
            first_check: Timestamp(get_u64(body, 40)),
            next_check: Timestamp(get_u64(body, 48)),
            producer_group,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_round_trip_and_short_bodies_are_refused() {
        let half = |group: Option<&str>| Half {
            key: QueueKey { topic: TopicId(3), queue: QueueNumber(4) },
            position: LogPosition(4096),
            current: LogPosition(1 << 33),
            batch_bytes: 200,
            store_time: Timestamp(5),
            first_check: Timestamp(6),
            next_check: Timestamp(7),
            checks: 2,
            producer_group: group.map(|name| name.parse().expect("a name")),
        };
        let position = LogPosition(1 << 40);
        let changes = [
            HeldChange::Released { due: Timestamp(9), position },
            HeldChange::Moved { bucket: QueueNumber(77), position },
            HeldChange::HalfStored(half(None)),
            HeldChange::HalfStored(half(Some("producers"))),
            HeldChange::HalfEnded(position),
            HeldChange::HalfChecked {
                half: position,
                checks: 3,
                checked: Timestamp(1),
                next_check: Timestamp(2),
            },
            HeldChange::HalfMoved { half: position, current: LogPosition(5) },
            HeldChange::Recalled { due: Timestamp(9), position },
        ];
        for change in changes {
            let mut body = Vec::new();
            let kind = change.encode_body(&mut body);
            assert!(HeldChange::KINDS.contains(&kind));
            assert_eq!(HeldChange::decode(kind, &body), Some(change));
            for end in 0..body.len().min(HALF_BYTES) {
                assert_eq!(HeldChange::decode(kind, &body[..end]), None, "kind {kind} cut at {end}");
            }
        }
        assert_eq!(HeldChange::decode(39, &[0; 64]), None);
    }
}
