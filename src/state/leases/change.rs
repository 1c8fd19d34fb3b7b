//! Changes of leases, as the log holds them.
//!
//! Bodies of the changes of `state::record`, kinds 16 to 21. Each starts with u32 topic, u32 queue, and ends with
//! the group's name; in between:
//!
//! ```text
//! kind 16, leased:        u64 next, u64 first, u64 open, u64 leased_at, u64 lease_until, u64 first_delivery, u32 deliveries
//! kind 17, ended:         u64 first, u64 mask
//! kind 18, passed:        u64 next
//! kind 19, dead lettered: u64 first, u64 mask, u64 total
//! kind 20, reset:         u64 next
//! kind 21, state:         u64 from, u64 to, u64 next, u64 dead_letters, u32 runs, then for each run: u64 first, u64 open,
//!                         u64 leased_at, u64 lease_until, u64 first_delivery, u32 deliveries
//! ```

use super::queue_leases::Run;
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};
use crate::wire::bytes::{get_u32, get_u64};

/// Change kinds of leases.
pub const LEASE_KINDS: std::ops::RangeInclusive<u8> = 16..=21;
/// Bytes of one run in a change.
const RUN_BYTES: usize = 44;
const KEY_BYTES: usize = 8;

/// Up to 64 messages from `first` on: bit `i` stands for `first + i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    pub first: QueueOffset,
    pub bits: u64,
}

/// One change of the leases of a group in a queue. Absolute: carrying it out twice is the same as once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// The masked messages were delivered, together; everything below `next` has been looked at. `run.open` is the mask.
    Leased { group: GroupName, key: QueueKey, next: QueueOffset, mask: Mask, run: Run },
    /// Acknowledged, or gone with their segment.
    Ended { group: GroupName, key: QueueKey, mask: Mask },
    /// Messages below `next` were left out by the filter.
    Passed { group: GroupName, key: QueueKey, next: QueueOffset },
    /// Moved to the dead letters, of which there are `total` now.
    DeadLettered { group: GroupName, key: QueueKey, mask: Mask, total: u64 },
    /// The group goes on at `next`, without leases.
    Reset { group: GroupName, key: QueueKey, next: QueueOffset },
    /// Everything there is about the offsets from `from` on below `to`. Part of checkpoints and snapshots.
    State {
        group: GroupName,
        key: QueueKey,
        from: QueueOffset,
        to: QueueOffset,
        next: QueueOffset,
        dead_letters: u64,
        runs: Vec<(QueueOffset, Run)>,
    },
}

impl Mask {
    /// The mask's bits as a run that starts at `first` has them.
    pub fn seen_from(&self, first: QueueOffset) -> u64 {
        if first >= self.first {
            self.bits.checked_shr((first.0 - self.first.0).min(64) as u32).unwrap_or(0)
        } else {
            self.bits.checked_shl((self.first.0 - first.0).min(64) as u32).unwrap_or(0)
        }
    }
}

impl LeaseChange {
    pub fn group(&self) -> &GroupName {
        match self {
            LeaseChange::Leased { group, .. }
            | LeaseChange::Ended { group, .. }
            | LeaseChange::Passed { group, .. }
            | LeaseChange::DeadLettered { group, .. }
            | LeaseChange::Reset { group, .. }
            | LeaseChange::State { group, .. } => group,
        }
    }

    pub fn key(&self) -> QueueKey {
        match self {
            LeaseChange::Leased { key, .. }
            | LeaseChange::Ended { key, .. }
            | LeaseChange::Passed { key, .. }
            | LeaseChange::DeadLettered { key, .. }
            | LeaseChange::Reset { key, .. }
            | LeaseChange::State { key, .. } => *key,
        }
    }

    /// Whether it says where the group goes on. The others take something from what it has.
    pub fn says_where_a_group_is(&self) -> bool {
        !matches!(self, LeaseChange::Ended { .. } | LeaseChange::DeadLettered { .. })
    }

    /// Appends the body and returns the kind.
    pub fn encode(&self, output: &mut Vec<u8>) -> u8 {
        let key = self.key();
        output.extend_from_slice(&key.topic.0.to_le_bytes());
        output.extend_from_slice(&key.queue.0.to_le_bytes());
        let mut put =
            |values: &[u64]| values.iter().for_each(|value| output.extend_from_slice(&value.to_le_bytes()));
        let kind = match self {
            LeaseChange::Leased { next, mask, run, .. } => {
                put(&[next.0]);
                put_run(output, mask.first, &Run { open: mask.bits, ..*run });
                16
            }
            LeaseChange::Ended { mask, .. } => {
                put(&[mask.first.0, mask.bits]);
                17
            }
            LeaseChange::Passed { next, .. } => {
                put(&[next.0]);
                18
            }
            LeaseChange::DeadLettered { mask, total, .. } => {
                put(&[mask.first.0, mask.bits, *total]);
                19
            }
            LeaseChange::Reset { next, .. } => {
                put(&[next.0]);
                20
            }
            LeaseChange::State { from, to, next, dead_letters, runs, .. } => {
                put(&[from.0, to.0, next.0, *dead_letters]);
                output.extend_from_slice(&(runs.len() as u32).to_le_bytes());
                runs.iter().for_each(|(first, run)| put_run(output, *first, run));
                21
            }
        };
        output.extend_from_slice(self.group().as_str().as_bytes());
        kind
    }

    /// Reads a body; `None` when it is none of this kind.
    pub fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        let mut body = Body(body);
        let key = QueueKey { topic: TopicId(body.u32()?), queue: QueueNumber(body.u32()?) };
        Some(match kind {
            16 => {
                let next = QueueOffset(body.u64()?);
                let (first, run) = body.run()?;
                let mask = Mask { first, bits: run.open };
                LeaseChange::Leased { key, next, mask, run, group: body.group()? }
            }
            17 => LeaseChange::Ended { key, mask: body.mask()?, group: body.group()? },
            18 => LeaseChange::Passed { key, next: QueueOffset(body.u64()?), group: body.group()? },
            19 => LeaseChange::DeadLettered {
                key,
                mask: body.mask()?,
                total: body.u64()?,
                group: body.group()?,
            },
            20 => LeaseChange::Reset { key, next: QueueOffset(body.u64()?), group: body.group()? },
            21 => {
                let (from, to) = (QueueOffset(body.u64()?), QueueOffset(body.u64()?));
                let (next, dead_letters) = (QueueOffset(body.u64()?), body.u64()?);
                let count = body.u32()? as usize;
                if count > body.0.len() / RUN_BYTES {
                    return None;
                }
                let runs = (0..count).map(|_| body.run()).collect::<Option<Vec<_>>>()?;
                let ascending = runs.windows(2).all(|pair| pair[0].0 < pair[1].0);
                if !ascending {
                    return None;
                }
                LeaseChange::State { key, from, to, next, dead_letters, runs, group: body.group()? }
            }
            _ => return None,
        })
    }

    /// Bytes of a `DeadLettered` in a batch, with its change header.
    pub fn dead_lettered_bytes(group: &GroupName) -> usize {
        crate::state::record::CHANGE_HEADER_BYTES + KEY_BYTES + 24 + group.as_str().len()
    }
}

fn put_run(output: &mut Vec<u8>, first: QueueOffset, run: &Run) {
    for value in [first.0, run.open, run.leased_at.0, run.lease_until.0, run.first_delivery.0] {
        output.extend_from_slice(&value.to_le_bytes());
    }
    output.extend_from_slice(&run.deliveries.to_le_bytes());
}

/// The part of a body that was not read yet.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn u32(&mut self) -> Option<u32> {
        let value = self.0.get(..4).map(|bytes| get_u32(bytes, 0))?;
        self.0 = &self.0[4..];
        Some(value)
    }

    fn u64(&mut self) -> Option<u64> {
        let value = self.0.get(..8).map(|bytes| get_u64(bytes, 0))?;
        self.0 = &self.0[8..];
        Some(value)
    }

    fn mask(&mut self) -> Option<Mask> {
        Some(Mask { first: QueueOffset(self.u64()?), bits: self.u64()? })
    }

    fn run(&mut self) -> Option<(QueueOffset, Run)> {
        let first = QueueOffset(self.u64()?);
        let run = Run {
            open: self.u64()?,
            leased_at: Timestamp(self.u64()?),
            lease_until: Timestamp(self.u64()?),
            first_delivery: Timestamp(self.u64()?),
            deliveries: self.u32()?,
        };
        (run.open & 1 == 1 && first.0 <= u64::MAX - 64).then_some((first, run))
    }

    fn group(&self) -> Option<GroupName> {
        std::str::from_utf8(self.0).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_round_trip_and_truncations_are_refused() {
        let group: GroupName = "orders-group".parse().expect("a name");
        let key = QueueKey { topic: TopicId(3), queue: QueueNumber(9) };
        let mask = Mask { first: QueueOffset(7), bits: 0b101 };
        let run = Run {
            open: 0b101,
            leased_at: Timestamp(1),
            lease_until: Timestamp(2),
            first_delivery: Timestamp(3),
            deliveries: 4,
        };
        let group = || group.clone();
        let changes = [
            LeaseChange::Leased { group: group(), key, next: QueueOffset(10), mask, run },
            LeaseChange::Ended { group: group(), key, mask },
            LeaseChange::Passed { group: group(), key, next: QueueOffset(1) },
            LeaseChange::DeadLettered { group: group(), key, mask, total: 5 },
            LeaseChange::Reset { group: group(), key, next: QueueOffset(0) },
            LeaseChange::State {
                group: group(),
                key,
                from: QueueOffset(0),
                to: QueueOffset(100),
                next: QueueOffset(50),
                dead_letters: 1,
                runs: vec![(QueueOffset(7), run), (QueueOffset(20), run)],
            },
        ];
        for change in changes {
            let mut body = Vec::new();
            let kind = change.encode(&mut body);
            assert_eq!(LeaseChange::decode(kind, &body), Some(change.clone()));
            let name_bytes = group().as_str().len();
            for end in 0..=body.len() - name_bytes {
                assert_eq!(LeaseChange::decode(kind, &body[..end]), None, "{change:?} cut at {end}");
            }
        }
    }
}
