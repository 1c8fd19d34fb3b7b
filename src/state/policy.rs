//! What RocketMQ knows of topics and groups beyond what today's protocols ask for. Whatever is not set has RocketMQ's
//! default (`common/.../TopicConfig.java`, `common/.../subscription/SubscriptionGroupConfig.java`).
//!
//! ```text
//! fields of a topic, kind 1                        fields of a group, kind 10
//! 1  u32  version       0                          1  u32  version        0
//! 2  u32  read queues   all                        2  u8   may consume    1
//! 3  u32  write queues  all                        3  u8   may broadcast  1
//! 4  u8   permission    6                          4  u32  retry queues   1
//! 5  u8   order         0                          5  u32  ms each        none, see `RetryPolicy::delays`
//! 6  u8   message type  5, see `MessageType`       6  u8   order          0
//!                                                  7  u8   exponential    0, and none of what follows:
//!                                                     u64  initial ms, u64 longest ms, u64 factor
//! 7  attributes         none; each: u8 key_bytes, key, u16 value_bytes, value
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use super::fields::{Taken, put_field};
use crate::api::{GroupSettings, RetryGrowth, RetryPolicy};
use crate::wire::bytes::{get_u16, get_u32, get_u64};

/// Delays of a group's retries, and attributes of a topic, are no more than this.
pub const RETRY_DELAYS_MAX: usize = 64;
pub const ATTRIBUTES_MAX: usize = 64;
/// A key of an attribute, and its value.
pub const ATTRIBUTE_BYTES_MAX: usize = 255;

/// What may be done with a topic: RocketMQ's bits (`common/.../constant/PermName.java`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission(pub u8);

/// What a topic is for (`common/.../attribute/TopicMessageType.java`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageType {
    Normal,
    Fifo,
    Delay,
    Transaction,
    /// RocketMQ takes a topic without a type for a normal one. Topics here have always taken messages of every kind.
    #[default]
    Mixed,
}

/// The types by RocketMQ's names.
const MESSAGE_TYPES: [(&str, MessageType); 5] = [
    ("NORMAL", MessageType::Normal),
    ("FIFO", MessageType::Fifo),
    ("DELAY", MessageType::Delay),
    ("TRANSACTION", MessageType::Transaction),
    ("MIXED", MessageType::Mixed),
];

impl MessageType {
    /// The type of that name; `None`: there is none.
    pub fn named(name: &str) -> Option<Self> {
        MESSAGE_TYPES.iter().find(|(of, _)| *of == name).map(|(_, known)| *known)
    }

    pub fn name(self) -> &'static str {
        MESSAGE_TYPES.iter().find(|(_, of)| *of == self).map_or("", |(name, _)| *name)
    }
}

/// A topic's configuration beyond its queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPolicy {
    /// Counts the changes of the configuration; 0 while it is as a release made it that did not count.
    pub version: u32,
    /// Queues that readers, or writers, are shown; `None`: all.
    pub read_queues: Option<u32>,
    pub write_queues: Option<u32>,
    pub permission: Permission,
    pub ordered: bool,
    pub message_type: MessageType,
    pub attributes: BTreeMap<String, String>,
}

/// How a group is treated, the same on every shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub settings: GroupSettings,
    pub policy: GroupPolicy,
}

/// The part of it that today's protocols do not ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPolicy {
    /// As of [`TopicPolicy`].
    pub version: u32,
    pub may_consume: bool,
    pub may_broadcast: bool,
    pub retry_queues: u32,
    pub retries: RetryPolicy,
    pub ordered: bool,
}

impl Permission {
    pub const READ: u8 = 4;
    pub const WRITE: u8 = 2;
    pub const ALL: Permission = Permission(Self::READ | Self::WRITE);
}

impl MessageType {
    fn code(self) -> u8 {
        match self {
            MessageType::Normal => 1,
            MessageType::Fifo => 2,
            MessageType::Delay => 3,
            MessageType::Transaction => 4,
            MessageType::Mixed => 5,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        let all = [Self::Normal, Self::Fifo, Self::Delay, Self::Transaction, Self::Mixed];
        all.into_iter().find(|message_type| message_type.code() == code)
    }
}

impl Default for TopicPolicy {
    fn default() -> Self {
        Self {
            version: 0,
            read_queues: None,
            write_queues: None,
            permission: Permission::ALL,
            ordered: false,
            message_type: MessageType::default(),
            attributes: BTreeMap::new(),
        }
    }
}

impl Default for GroupPolicy {
    fn default() -> Self {
        Self {
            version: 0,
            may_consume: true,
            may_broadcast: true,
            retry_queues: 1,
            retries: RetryPolicy::default(),
            ordered: false,
        }
    }
}

impl TopicPolicy {
    /// The configuration of the topic's next version.
    pub fn changed(self) -> Self {
        Self { version: self.version.saturating_add(1), ..self }
    }

    /// The fields that do not have their defaults.
    pub(super) fn fields(&self) -> Vec<u8> {
        let (mut output, default) = (Vec::new(), Self::default());
        if self.version != default.version {
            put_field(&mut output, 1, &self.version.to_le_bytes());
        }
        for (tag, queues) in [(2, self.read_queues), (3, self.write_queues)] {
            queues.iter().for_each(|queues| put_field(&mut output, tag, &queues.to_le_bytes()));
        }
        if self.permission != default.permission {
            put_field(&mut output, 4, &[self.permission.0]);
        }
        if self.ordered != default.ordered {
            put_field(&mut output, 5, &[u8::from(self.ordered)]);
        }
        if self.message_type != default.message_type {
            put_field(&mut output, 6, &[self.message_type.code()]);
        }
        if !self.attributes.is_empty() {
            let mut value = Vec::new();
            for (key, of_key) in &self.attributes {
                value.push(key.len() as u8);
                value.extend_from_slice(key.as_bytes());
                value.extend_from_slice(&(of_key.len() as u16).to_le_bytes());
                value.extend_from_slice(of_key.as_bytes());
            }
            put_field(&mut output, 7, &value);
        }
        output
    }

    pub(super) fn take(&mut self, tag: u8, value: &[u8]) -> Taken {
        let taken = match tag {
            1 => u32_of(value).map(|version| self.version = version),
            2 => u32_of(value).map(|queues| self.read_queues = Some(queues)),
            3 => u32_of(value).map(|queues| self.write_queues = Some(queues)),
            4 => value.first().map(|bits| self.permission = Permission(*bits)),
            5 => bool_of(value).map(|ordered| self.ordered = ordered),
            6 => {
                let message_type = value.first().and_then(|code| MessageType::from_code(*code));
                message_type.map(|message_type| self.message_type = message_type)
            }
            7 => attributes_of(value).map(|attributes| self.attributes = attributes),
            _ => return Taken::Unknown,
        };
        taken.map_or(Taken::Wrong, |()| Taken::Yes)
    }
}

impl GroupPolicy {
    /// The policy of the group's next version.
    pub fn changed(self) -> Self {
        Self { version: self.version.saturating_add(1), ..self }
    }

    /// The fields that do not have their defaults.
    pub(super) fn fields(&self) -> Vec<u8> {
        let (mut output, default) = (Vec::new(), Self::default());
        if self.version != default.version {
            put_field(&mut output, 1, &self.version.to_le_bytes());
        }
        if self.may_consume != default.may_consume {
            put_field(&mut output, 2, &[u8::from(self.may_consume)]);
        }
        if self.may_broadcast != default.may_broadcast {
            put_field(&mut output, 3, &[u8::from(self.may_broadcast)]);
        }
        if self.retry_queues != default.retry_queues {
            put_field(&mut output, 4, &self.retry_queues.to_le_bytes());
        }
        if !self.retries.delays.is_empty() {
            let ms = |delay: &Duration| u32::try_from(delay.as_millis()).unwrap_or(u32::MAX).to_le_bytes();
            let value: Vec<u8> = self.retries.delays.iter().flat_map(ms).collect();
            put_field(&mut output, 5, &value);
        }
        if self.ordered != default.ordered {
            put_field(&mut output, 6, &[u8::from(self.ordered)]);
        }
        let RetryPolicy { is_exponential, growth, .. } = self.retries;
        if is_exponential || growth.is_some() {
            let mut value = vec![u8::from(is_exponential)];
            if let Some(RetryGrowth { initial_ms, max_ms, multiplier }) = growth {
                [initial_ms, max_ms, multiplier]
                    .iter()
                    .for_each(|of| value.extend_from_slice(&of.to_le_bytes()));
            }
            put_field(&mut output, 7, &value);
        }
        output
    }

    pub(super) fn take(&mut self, tag: u8, value: &[u8]) -> Taken {
        let taken = match tag {
            1 => u32_of(value).map(|version| self.version = version),
            2 => bool_of(value).map(|may| self.may_consume = may),
            3 => bool_of(value).map(|may| self.may_broadcast = may),
            4 => u32_of(value).map(|queues| self.retry_queues = queues),
            5 => {
                let delays = value.chunks_exact(4).map(|ms| Duration::from_millis(get_u32(ms, 0).into()));
                let is_whole = value.len().is_multiple_of(4) && value.len() / 4 <= RETRY_DELAYS_MAX;
                is_whole.then(|| self.retries.delays = delays.collect())
            }
            6 => bool_of(value).map(|ordered| self.ordered = ordered),
            7 => bool_of(value).and_then(|is_exponential| {
                let growth = growth_of(&value[1..])?;
                (self.retries.is_exponential, self.retries.growth) = (is_exponential, growth);
                Some(())
            }),
            _ => return Taken::Unknown,
        };
        taken.map_or(Taken::Wrong, |()| Taken::Yes)
    }
}

fn u32_of(value: &[u8]) -> Option<u32> {
    value.get(..4).map(|value| get_u32(value, 0))
}

fn bool_of(value: &[u8]) -> Option<bool> {
    value.first().map(|value| *value != 0)
}

/// Nothing is none; the outer `None` is for what cannot be read.
fn growth_of(value: &[u8]) -> Option<Option<RetryGrowth>> {
    if value.is_empty() {
        return Some(None);
    }
    let value = value.get(..24)?;
    let (initial_ms, max_ms, multiplier) = (get_u64(value, 0), get_u64(value, 8), get_u64(value, 16));
    Some(Some(RetryGrowth { initial_ms, max_ms, multiplier }))
}

fn attributes_of(mut value: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut attributes = BTreeMap::new();
    while let Some((&key_bytes, rest)) = value.split_first() {
        let (key, rest) = rest.split_at_checked(usize::from(key_bytes))?;
        let (length, rest) = rest.split_at_checked(2)?;
        let (of_key, rest) = rest.split_at_checked(usize::from(get_u16(length, 0)))?;
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        attributes.insert(text(key)?, text(of_key)?);
        value = rest;
    }
    (attributes.len() <= ATTRIBUTES_MAX).then_some(attributes)
}

#[cfg(test)]
mod tests {
    use super::super::fields::take_fields;
    use super::*;

    #[test]
    fn what_has_its_default_is_not_written_and_the_rest_comes_back() {
        assert_eq!((TopicPolicy::default().fields(), GroupPolicy::default().fields()), (vec![], vec![]));
        let topic = TopicPolicy {
            version: 3,
            read_queues: Some(2),
            write_queues: Some(4),
            permission: Permission(Permission::READ),
            ordered: true,
            message_type: MessageType::Fifo,
            attributes: BTreeMap::from([
                ("cleanup.policy".to_owned(), "DELETE".to_owned()),
                ("a".to_owned(), String::new()),
            ]),
        };
        let mut again = TopicPolicy::default();
        assert_eq!(take_fields(&topic.fields(), |tag, value| again.take(tag, value)), Ok(()));
        assert_eq!(again, topic);
        let group = GroupPolicy {
            version: 7,
            may_consume: false,
            may_broadcast: false,
            retry_queues: 2,
            retries: RetryPolicy {
                is_exponential: true,
                delays: vec![Duration::from_secs(1), Duration::from_secs(7200)],
                growth: Some(RetryGrowth { initial_ms: 5_000, max_ms: 1 << 40, multiplier: 3 }),
            },
            ordered: true,
        };
        let mut again = GroupPolicy::default();
        assert_eq!(take_fields(&group.fields(), |tag, value| again.take(tag, value)), Ok(()));
        assert_eq!(again, group);
        // What counts, and nothing of how.
        let mut bare = GroupPolicy::default();
        bare.retries.is_exponential = true;
        assert_eq!(bare.fields(), [7, 1, 0, 1]);
        let mut again = GroupPolicy::default();
        assert_eq!(take_fields(&bare.fields(), |tag, value| again.take(tag, value)), Ok(()));
        assert_eq!(again, bare);
    }

    #[test]
    fn values_that_are_none_are_refused_and_longer_ones_are_read_as_far_as_they_are_known() {
        let (mut topic, mut group) = (TopicPolicy::default(), GroupPolicy::default());
        for (tag, value) in [(1, &[1, 2, 3][..]), (4, &[]), (6, &[9]), (7, &[5, b'a']), (7, &[1, b'a', 1])] {
            assert_eq!(topic.take(tag, value), Taken::Wrong, "{tag}: {value:?}");
        }
        assert_eq!(group.take(5, &[1, 0, 0]), Taken::Wrong);
        assert_eq!((group.take(7, &[]), group.take(7, &[1; 24])), (Taken::Wrong, Taken::Wrong));
        assert_eq!((topic.take(1, &[2, 0, 0, 0, 9]), topic.version), (Taken::Yes, 2));
        assert_eq!((topic.take(99, &[]), group.take(99, &[])), (Taken::Unknown, Taken::Unknown));
    }
}
