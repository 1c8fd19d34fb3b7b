//! The broker's own records: changes of its tables, stored in batches of kind `State` next to messages.
//!
//! A batch's payload is a sequence of changes:
//!
//! ```text
//! 0  u8   kind
//! 1  u32  body_bytes
//! 5  body
//!
//! kind 1, topic:          u32 id, u32 queue_count, u64 retention_ms (0: inherited, all ones: unlimited), u8 level (0: none, 1.. as Level), name
//! kind 2, topic removed:  u32 id
//! kind 3, offset:         u32 topic, u32 queue, u64 offset, u64 origin, group name
//! kind 4, next topic id:  u32 id
//! kind 5, queue end:      u32 topic, u32 queue, u64 offset
//! kind 6, live topics:    u32 id, as often as there are topics
//! kind 10, group:         u32 deliveries_max, u64 lease_ms, u64 ordered_lease_ms (each 0: the node's), name
//! kind 11, instances:     u8 name_bytes, name, as often as there are instances
//! kind 12, group removed: u8 what goes (0: places and leases, 1: settings as well), name
//! kind 13, running time:  u64 ms that the shard has run
//! kind 14, stored by:     u64 position, u64 running time: what lies below was stored by then
//! kind 15, group used:    u64 running time, name
//! kinds 16 to 21, leases: see `leases::change`
//! kinds 32 to 39:         held messages, see `held::change`
//! kind 48, lock:          see `locks`
//! kinds 49 to 51:         dead letters that are sent once more, see `redrives`
//! kind 52, purged:        u32 topic, u32 queue, u64 offset: messages below it are gone
//! ```
//!
//! A queue's end is in checkpoints only: without it a queue whose every message has expired would start at 0 again when
//! its index is built from the log.
//!
//! Running time is counted while the shard runs, over all its runs: nothing that is judged by it goes because a clock was
//! wrong. Kinds 13 and 14 are written once the wall clock contradicts the store times, see `ages`.
//!
//! What a kind got since its body was fixed are *fields*: see `state::fields` for the rule, and `state::policy` for those of
//! topics and groups. They are part of format 3 of a data directory. An offset has one:
//!
//! ```text
//! fields of an offset, kind 3
//! 1  u8   by a member of the group  0
//! ```
//!
//! Names reach to the end of the body. `origin` is 0 for a commit; in a checkpoint, which repeats older commits, it is
//! the log position of the commit, so that replay lets the newer of two win whatever their order in the log.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fields::{FieldError, Taken, WITH_FIELDS, enclose, put_field, split, take_fields};
use super::locks::{LOCK, LockChange};
use super::policy::{Group, GroupPolicy, TopicPolicy};
use super::redrives::{REDRIVE_KINDS, RedriveChange};
use super::tables::Topic;
use crate::api::GroupSettings;
use crate::state::held::HeldChange;
use crate::state::leases::{LEASE_KINDS, LeaseChange};
use crate::types::RunningTime;
use crate::types::{
    GroupName, InstanceName, Level, LogPosition, QueueKey, QueueNumber, QueueOffset, Retention, TopicId,
};
use crate::wire::bytes::{get_u32, get_u64};

const TOPIC: u8 = 1;
const TOPIC_REMOVED: u8 = 2;
const OFFSET: u8 = 3;
const NEXT_TOPIC_ID: u8 = 4;
const QUEUE_END: u8 = 5;
const LIVE_TOPICS: u8 = 6;
const GROUP: u8 = 10;
const INSTANCES: u8 = 11;
const GROUP_REMOVED: u8 = 12;
const RUNNING_TIME: u8 = 13;
const STORED_BY: u8 = 14;
const GROUP_USED: u8 = 15;

const PURGED: u8 = 52;

/// A retention's milliseconds when it has none.
const INHERITED: u64 = 0;
const UNLIMITED: u64 = u64::MAX;

/// The field of an offset.
const BY_MEMBER: u8 = 1;

/// Kind and length, before the body.
pub const CHANGE_HEADER_BYTES: usize = 5;

/// One change of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Topic(Topic),
    TopicRemoved(TopicId),
    Offset {
        group: GroupName,
        key: QueueKey,
        offset: QueueOffset,
        origin: Option<LogPosition>,
        /// A member of the group has committed it: the group is native members'.
        by_member: bool,
    },
    NextTopicId(TopicId),
    /// Offsets below this one were given out. Part of checkpoints: without it a queue whose last batches have gone with
    /// their segments, or are damaged, would give them out again, and groups that are beyond would miss messages.
    QueueEnd {
        key: QueueKey,
        offset: QueueOffset,
    },
    Group(Group),
    /// The group is forgotten; with `settings`, as if it had never been.
    GroupRemoved {
        group: GroupName,
        settings: bool,
    },
    RunningTime(RunningTime),
    /// Everything below `position` was stored by `time`.
    StoredBy {
        position: LogPosition,
        time: RunningTime,
    },
    /// Somebody used the group at `time`.
    GroupUsed {
        group: GroupName,
        time: RunningTime,
    },
    /// Every instance that was made by command, and no other.
    Instances(BTreeSet<InstanceName>),
    Lease(LeaseChange),
    /// Every topic that there is at this place of the log, and no other. In front of every checkpoint and after every
    /// removal: were the removal said only once, damage to it would bring the topic back.
    LiveTopics(BTreeSet<TopicId>),
    /// Kinds 32 to 39, see `held::change`.
    Held(HeldChange),
    Lock(LockChange),
    /// Kinds 49 to 51, see `redrives`.
    Redrive(RedriveChange),
    /// The queue's messages below this offset are gone: somebody wanted them away.
    Purged {
        key: QueueKey,
        offset: QueueOffset,
    },
}

/// Why stored changes cannot be read. Their checksum was right, so another release wrote them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("a change ends after its batch")]
    Truncated,
    #[error("change kind {0} is not known to this release")]
    Kind(u8),
    #[error("a change of kind {0} has a body that this release cannot read")]
    Body(u8),
    #[error("a change of kind {kind} has field {tag}, which this release does not know and must not skip")]
    Field { kind: u8, tag: u8 },
}

fn level_code(level: Option<Level>) -> u8 {
    match level {
        None => 0,
        Some(Level::Accepted) => 1,
        Some(Level::Written) => 2,
        Some(Level::Durable) => 3,
    }
}

fn level_from(code: u8) -> Option<Option<Level>> {
    match code {
        0 => Some(None),
        1 => Some(Some(Level::Accepted)),
        2 => Some(Some(Level::Written)),
        3 => Some(Some(Level::Durable)),
        _ => None,
    }
}

/// An age that is shorter than a millisecond, or longer than can be counted, becomes the nearest that is one.
fn retention_code(retention: Retention) -> u64 {
    match retention {
        Retention::Inherited => INHERITED,
        Retention::Unlimited => UNLIMITED,
        Retention::Age(age) => {
            u64::try_from(age.as_millis()).unwrap_or(UNLIMITED).clamp(INHERITED + 1, UNLIMITED - 1)
        }
    }
}

fn retention_from(code: u64) -> Retention {
    match code {
        INHERITED => Retention::Inherited,
        UNLIMITED => Retention::Unlimited,
        milliseconds => Retention::Age(Duration::from_millis(milliseconds)),
    }
}

impl Change {
    /// Appends the change to a payload.
    pub fn encode(&self, output: &mut Vec<u8>) {
        let start = output.len();
        output.extend_from_slice(&[0; CHANGE_HEADER_BYTES]);
        let mut kind = self.encode_core(output);
        let fields = self.fields();
        if !fields.is_empty() {
            enclose(output, start + CHANGE_HEADER_BYTES, &fields);
            kind |= WITH_FIELDS;
        }
        let body_bytes = (output.len() - start - CHANGE_HEADER_BYTES) as u32;
        output[start] = kind;
        output[start + 1..start + CHANGE_HEADER_BYTES].copy_from_slice(&body_bytes.to_le_bytes());
    }

    /// What is not said by the body that the kind has had from the start.
    fn fields(&self) -> Vec<u8> {
        match self {
            Change::Topic(topic) => topic.policy.fields(),
            Change::Group(group) => group.policy.fields(),
            Change::Offset { by_member: true, .. } => {
                let mut output = Vec::new();
                put_field(&mut output, BY_MEMBER, &[1]);
                output
            }
            _ => Vec::new(),
        }
    }

    fn take_field(&mut self, tag: u8, value: &[u8]) -> Taken {
        match self {
            Change::Topic(topic) => topic.policy.take(tag, value),
            Change::Group(group) => group.policy.take(tag, value),
            Change::Offset { by_member, .. } if tag == BY_MEMBER => match value.first() {
                Some(said) => {
                    *by_member = *said != 0;
                    Taken::Yes
                }
                None => Taken::Wrong,
            },
            _ => Taken::Unknown,
        }
    }

    /// Appends the body without fields and returns the kind.
    fn encode_core(&self, output: &mut Vec<u8>) -> u8 {
        match self {
            Change::Topic(topic) => {
                put_topic(topic, output);
                TOPIC
            }
            Change::TopicRemoved(id) => {
                output.extend_from_slice(&id.0.to_le_bytes());
                TOPIC_REMOVED
            }
            Change::Offset { group, key, offset, origin, by_member: _ } => {
                output.extend_from_slice(&key.topic.0.to_le_bytes());
                output.extend_from_slice(&key.queue.0.to_le_bytes());
                output.extend_from_slice(&offset.0.to_le_bytes());
                output.extend_from_slice(&origin.map_or(0, |origin| origin.0).to_le_bytes());
                output.extend_from_slice(group.as_str().as_bytes());
                OFFSET
            }
            Change::NextTopicId(id) => {
                output.extend_from_slice(&id.0.to_le_bytes());
                NEXT_TOPIC_ID
            }
            Change::QueueEnd { key, offset } => {
                put_place(output, *key, *offset);
                QUEUE_END
            }
            Change::Purged { key, offset } => {
                put_place(output, *key, *offset);
                PURGED
            }
            Change::Group(group) => {
                put_group(&group.settings, output);
                GROUP
            }
            Change::Instances(instances) => {
                put_instances(instances, output);
                INSTANCES
            }
            Change::GroupRemoved { group, settings } => {
                output.push(u8::from(*settings));
                output.extend_from_slice(group.as_str().as_bytes());
                GROUP_REMOVED
            }
            Change::RunningTime(time) => {
                output.extend_from_slice(&time.0.to_le_bytes());
                RUNNING_TIME
            }
            Change::StoredBy { position, time } => {
                output.extend_from_slice(&position.0.to_le_bytes());
                output.extend_from_slice(&time.0.to_le_bytes());
                STORED_BY
            }
            Change::GroupUsed { group, time } => {
                output.extend_from_slice(&time.0.to_le_bytes());
                output.extend_from_slice(group.as_str().as_bytes());
                GROUP_USED
            }
            Change::Lease(change) => change.encode(output),
            Change::LiveTopics(live) => {
                live.iter().for_each(|id| output.extend_from_slice(&id.0.to_le_bytes()));
                LIVE_TOPICS
            }
            Change::Held(change) => change.encode_body(output),
            Change::Lock(change) => {
                change.encode(output);
                LOCK
            }
            Change::Redrive(change) => change.encode(output),
        }
    }

    fn decode(kind: u8, body: &[u8]) -> Result<Self, ChangeError> {
        if kind & WITH_FIELDS == 0 {
            return Self::decode_core(kind, body);
        }
        let kind = kind & !WITH_FIELDS;
        let (core, fields) = split(body).ok_or(ChangeError::Body(kind))?;
        let mut change = Self::decode_core(kind, core)?;
        take_fields(fields, |tag, value| change.take_field(tag, value)).map_err(|error| match error {
            FieldError::Malformed => ChangeError::Body(kind),
            FieldError::Unknown(tag) => ChangeError::Field { kind, tag },
        })?;
        Ok(change)
    }

    /// Reads a body without fields.
    fn decode_core(kind: u8, body: &[u8]) -> Result<Self, ChangeError> {
        let wrong = || ChangeError::Body(kind);
        let text = |from: usize| std::str::from_utf8(&body[from..]).map_err(|_| wrong());
        let fixed = |bytes: usize| if body.len() < bytes { Err(wrong()) } else { Ok(()) };
        match kind {
            TOPIC => topic(body).map(Change::Topic).ok_or_else(wrong),
            TOPIC_REMOVED => {
                fixed(4)?;
                Ok(Change::TopicRemoved(TopicId(get_u32(body, 0))))
            }
            OFFSET => {
                fixed(24)?;
                let origin = get_u64(body, 16);
                Ok(Change::Offset {
                    group: text(24)?.parse::<GroupName>().map_err(|_| wrong())?,
                    key: QueueKey { topic: TopicId(get_u32(body, 0)), queue: QueueNumber(get_u32(body, 4)) },
                    offset: QueueOffset(get_u64(body, 8)),
                    origin: (origin > 0).then_some(LogPosition(origin)),
                    by_member: false,
                })
            }
            NEXT_TOPIC_ID => {
                fixed(4)?;
                Ok(Change::NextTopicId(TopicId(get_u32(body, 0))))
            }
            QUEUE_END | PURGED => {
                fixed(16)?;
                let key = QueueKey { topic: TopicId(get_u32(body, 0)), queue: QueueNumber(get_u32(body, 4)) };
                let offset = QueueOffset(get_u64(body, 8));
                let is_end = kind == QUEUE_END;
                Ok(if is_end { Change::QueueEnd { key, offset } } else { Change::Purged { key, offset } })
            }
            GROUP => group(body).map(Change::Group).ok_or_else(wrong),
            GROUP_REMOVED => {
                fixed(1)?;
                Ok(Change::GroupRemoved {
                    group: text(1)?.parse::<GroupName>().map_err(|_| wrong())?,
                    settings: body[0] != 0,
                })
            }
            RUNNING_TIME => {
                fixed(8)?;
                Ok(Change::RunningTime(RunningTime(get_u64(body, 0))))
            }
            STORED_BY => {
                fixed(16)?;
                let (position, time) = (LogPosition(get_u64(body, 0)), RunningTime(get_u64(body, 8)));
                Ok(Change::StoredBy { position, time })
            }
            GROUP_USED => {
                fixed(8)?;
                let group = text(8)?.parse::<GroupName>().map_err(|_| wrong())?;
                Ok(Change::GroupUsed { group, time: RunningTime(get_u64(body, 0)) })
            }
            INSTANCES => instances(body).map(Change::Instances).ok_or_else(wrong),
            kind if LEASE_KINDS.contains(&kind) => {
                LeaseChange::decode(kind, body).map(Change::Lease).ok_or_else(wrong)
            }
            LIVE_TOPICS if body.len().is_multiple_of(4) => {
                Ok(Change::LiveTopics(body.chunks_exact(4).map(|id| TopicId(get_u32(id, 0))).collect()))
            }
            LIVE_TOPICS => Err(wrong()),
            kind if HeldChange::KINDS.contains(&kind) => {
                HeldChange::decode(kind, body).map(Change::Held).ok_or_else(wrong)
            }
            LOCK => LockChange::decode(body).map(Change::Lock).ok_or_else(wrong),
            kind if REDRIVE_KINDS.contains(&kind) => redrive(kind, body),
            _ => Err(ChangeError::Kind(kind)),
        }
    }
}

fn redrive(kind: u8, body: &[u8]) -> Result<Change, ChangeError> {
    RedriveChange::decode(kind, body).map(Change::Redrive).ok_or(ChangeError::Body(kind))
}

fn put_place(output: &mut Vec<u8>, key: QueueKey, offset: QueueOffset) {
    output.extend_from_slice(&key.topic.0.to_le_bytes());
    output.extend_from_slice(&key.queue.0.to_le_bytes());
    output.extend_from_slice(&offset.0.to_le_bytes());
}

fn put_topic(topic: &Topic, output: &mut Vec<u8>) {
    output.extend_from_slice(&topic.id.0.to_le_bytes());
    output.extend_from_slice(&topic.queue_count.to_le_bytes());
    output.extend_from_slice(&retention_code(topic.retention).to_le_bytes());
    output.push(level_code(topic.level));
    output.extend_from_slice(topic.name.as_str().as_bytes());
}

fn topic(body: &[u8]) -> Option<Topic> {
    let (fixed, name) = body.split_at_checked(17)?;
    Some(Topic {
        id: TopicId(get_u32(fixed, 0)),
        queue_count: get_u32(fixed, 4),
        retention: retention_from(get_u64(fixed, 8)),
        level: level_from(fixed[16])?,
        name: std::str::from_utf8(name).ok()?.parse().ok()?,
        policy: TopicPolicy::default(),
    })
}

fn put_group(settings: &GroupSettings, output: &mut Vec<u8>) {
    let ms = |duration: Option<Duration>| duration.map_or(0, |duration| duration.as_millis() as u64);
    output.extend_from_slice(&settings.deliveries_max.unwrap_or(0).to_le_bytes());
    output.extend_from_slice(&ms(settings.lease).to_le_bytes());
    output.extend_from_slice(&ms(settings.ordered_lease).to_le_bytes());
    output.extend_from_slice(settings.group.as_str().as_bytes());
}

fn group(body: &[u8]) -> Option<Group> {
    let (fixed, name) = body.split_at_checked(20)?;
    let ms = |at| Some(get_u64(fixed, at)).filter(|ms| *ms > 0).map(Duration::from_millis);
    let settings = GroupSettings {
        group: std::str::from_utf8(name).ok()?.parse().ok()?,
        deliveries_max: Some(get_u32(fixed, 0)).filter(|max| *max > 0),
        lease: ms(4),
        ordered_lease: ms(12),
    };
    Some(Group { settings, policy: GroupPolicy::default() })
}

fn put_instances(instances: &BTreeSet<InstanceName>, output: &mut Vec<u8>) {
    for instance in instances {
        output.push(instance.as_str().len() as u8);
        output.extend_from_slice(instance.as_str().as_bytes());
    }
}

fn instances(mut body: &[u8]) -> Option<BTreeSet<InstanceName>> {
    let mut instances = BTreeSet::new();
    while let Some((&name_bytes, rest)) = body.split_first() {
        let name = std::str::from_utf8(rest.get(..usize::from(name_bytes))?).ok()?;
        instances.insert(name.parse().ok()?);
        body = &rest[usize::from(name_bytes)..];
    }
    Some(instances)
}

/// The topics that a batch of changes takes over from other shards: one that names the next topic after others is of a shard
/// that is brought in line with them. What made these topics stands nowhere in its log before.
pub fn adopted_topics(changes: &[Change]) -> impl Iterator<Item = TopicId> {
    let next = changes.iter().position(|change| matches!(change, Change::NextTopicId(_)));
    changes[..next.unwrap_or(0)].iter().filter_map(|change| match change {
        Change::Topic(topic) => Some(topic.id),
        _ => None,
    })
}

/// The changes with which a shard is brought in line with others, in batches of about `most`. Where they name the next topic, each
/// batch of topics does, so that [`adopted_topics`] knows all of them.
pub fn adoption_batches(changes: &[Change], most: usize) -> Vec<Vec<Change>> {
    let is_of_next = |change: &Change| matches!(change, Change::NextTopicId(_));
    let are_adopted = changes.iter().any(is_of_next);
    let mut batches: Vec<_> = changes.chunks(most).map(<[Change]>::to_vec).collect();
    for batch in batches.iter_mut().filter(|batch| are_adopted && !batch.iter().any(is_of_next)) {
        let topics = batch.iter().filter_map(|change| match change {
            Change::Topic(topic) => Some(topic.id),
            _ => None,
        });
        if let Some(last) = topics.max() {
            batch.push(Change::NextTopicId(TopicId(last.0 + 1)));
        }
    }
    batches
}

/// Reads a state batch's payload.
pub fn decode_changes(mut payload: &[u8]) -> Result<Vec<Change>, ChangeError> {
    let mut changes = Vec::new();
    while !payload.is_empty() {
        if payload.len() < CHANGE_HEADER_BYTES {
            return Err(ChangeError::Truncated);
        }
        let body_bytes = get_u32(payload, 1) as usize;
        let Some(body) = payload[CHANGE_HEADER_BYTES..].get(..body_bytes) else {
            return Err(ChangeError::Truncated);
        };
        changes.push(Change::decode(payload[0], body)?);
        payload = &payload[CHANGE_HEADER_BYTES + body_bytes..];
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Change> {
        let key = QueueKey { topic: TopicId(3), queue: QueueNumber(9) };
        let group: GroupName = "g".parse().expect("a name");
        vec![
            Change::Topic(Topic {
                name: "orders".parse().expect("a name"),
                id: TopicId(3),
                queue_count: 10,
                retention: Retention::Age(Duration::from_secs(60)),
                level: Some(Level::Written),
                policy: TopicPolicy::default(),
            }),
            Change::Topic(Topic {
                name: "orders".parse().expect("a name"),
                id: TopicId(4),
                queue_count: 10,
                retention: Retention::Unlimited,
                level: None,
                policy: TopicPolicy { read_queues: Some(5), ..TopicPolicy::default().changed() },
            }),
            Change::Offset {
                group: group.clone(),
                key,
                offset: QueueOffset(7),
                origin: None,
                by_member: true,
            },
            Change::Offset {
                group,
                key,
                offset: QueueOffset(5),
                origin: Some(LogPosition(8192)),
                by_member: false,
            },
            Change::TopicRemoved(TopicId(2)),
            Change::NextTopicId(TopicId(4)),
            Change::QueueEnd { key, offset: QueueOffset(12) },
            Change::Purged { key, offset: QueueOffset(11) },
            Change::Group(Group {
                settings: GroupSettings {
                    group: "g2".parse().expect("a name"),
                    deliveries_max: Some(3),
                    lease: None,
                    ordered_lease: Some(Duration::from_secs(2)),
                },
                policy: GroupPolicy::default().changed(),
            }),
            Change::Lease(LeaseChange::Passed {
                group: "g3".parse().expect("a name"),
                key,
                next: QueueOffset(5),
            }),
            Change::LiveTopics(BTreeSet::from([TopicId(3), TopicId(5)])),
            Change::Instances(["a", "MQ_INST-1"].map(|name| name.parse().expect("a name")).into()),
            Change::Instances(BTreeSet::new()),
            Change::GroupRemoved { group: "g4".parse().expect("a name"), settings: true },
            Change::GroupRemoved { group: "g4".parse().expect("a name"), settings: false },
            Change::RunningTime(RunningTime(9)),
            Change::StoredBy { position: LogPosition(1 << 40), time: RunningTime(10) },
            Change::GroupUsed { group: "g5".parse().expect("a name"), time: RunningTime(11) },
        ]
    }

    #[test]
    fn changes_round_trip_and_truncations_are_refused() {
        let mut payload = Vec::new();
        let mut ends = vec![0];
        for change in samples() {
            change.encode(&mut payload);
            ends.push(payload.len());
        }
        assert_eq!(decode_changes(&payload), Ok(samples()));
        for end in 0..payload.len() {
            assert_eq!(decode_changes(&payload[..end]).is_ok(), ends.contains(&end), "cut at {end}");
        }
    }

    #[test]
    fn every_batch_of_topics_that_are_taken_over_says_so() {
        let topic = |id| {
            let (name, policy) = ("t".parse().expect("a name"), TopicPolicy::default());
            let (retention, level) = (Retention::Inherited, None);
            Change::Topic(Topic { name, id: TopicId(id), queue_count: 1, retention, level, policy })
        };
        let mut changes: Vec<_> = (1..=5).map(topic).collect();
        let adopted = |changes: &[Change]| -> Vec<u32> {
            let batches = adoption_batches(changes, 2);
            batches
                .iter()
                .flat_map(|batch| adopted_topics(batch).map(|id| id.0).collect::<Vec<_>>())
                .collect()
        };
        assert_eq!(adopted(&changes), [0; 0], "they are altered");
        changes.push(Change::NextTopicId(TopicId(9)));
        assert_eq!(adopted(&changes), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn every_retention_is_read_as_it_was() {
        let one = Duration::from_millis(1);
        for retention in [Retention::Inherited, Retention::Unlimited, Retention::Age(one)] {
            assert_eq!(retention_from(retention_code(retention)), retention);
        }
        assert_eq!(retention_from(retention_code(Retention::Age(Duration::ZERO))), Retention::Age(one));
        let longest = retention_from(retention_code(Retention::Age(Duration::MAX)));
        assert!(matches!(longest, Retention::Age(_)), "{longest:?}");
    }

    #[test]
    fn instances_that_end_after_their_body_are_refused() {
        for body in [&[3, b'a', b'b'][..], &[0], &[1, b'%'], &[1, b'a', 9]] {
            assert_eq!(Change::decode(INSTANCES, body), Err(ChangeError::Body(INSTANCES)), "{body:?}");
        }
    }

    #[test]
    fn a_later_release_may_add_fields_to_any_kind() {
        let change = Change::NextTopicId(TopicId(4));
        let with_field = |tag: u8| {
            let mut payload = Vec::new();
            change.encode(&mut payload);
            let mut fields = Vec::new();
            crate::state::fields::put_field(&mut fields, tag, b"new");
            enclose(&mut payload, CHANGE_HEADER_BYTES, &fields);
            let body_bytes = (payload.len() - CHANGE_HEADER_BYTES) as u32;
            payload[0] |= WITH_FIELDS;
            payload[1..CHANGE_HEADER_BYTES].copy_from_slice(&body_bytes.to_le_bytes());
            payload
        };
        assert_eq!(decode_changes(&with_field(77)), Ok(vec![change.clone()]), "it is skipped");
        let (kind, tag) = (NEXT_TOPIC_ID, 177);
        assert_eq!(decode_changes(&with_field(tag)), Err(ChangeError::Field { kind, tag }));
    }

    #[test]
    fn what_has_no_fields_is_written_as_before_there_were_any() {
        let mut payload = Vec::new();
        let (name, policy) = ("t".parse().expect("a name"), TopicPolicy::default());
        let (retention, level) = (Retention::Inherited, None);
        Change::Topic(Topic { name, id: TopicId(2), queue_count: 3, retention, level, policy })
            .encode(&mut payload);
        let expected = [1, 18, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b't'];
        assert_eq!(payload, expected);
    }

    #[test]
    fn unknown_kinds_are_named() {
        assert_eq!(decode_changes(&[99, 0, 0, 0, 0]), Err(ChangeError::Kind(99)));
    }
}
