//! Validated names. The rules are RocketMQ's (`common/.../topic/TopicValidator.java`): letters, digits and `%|_-`, at
//! most 127 bytes for a topic and 255 for a consumer group.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{} {what} name must not be empty", article(what))]
    Empty { what: &'static str },
    #[error("{} {what} name has at most {limit} bytes, this one has {actual}", article(what))]
    TooLong { what: &'static str, limit: usize, actual: usize },
    #[error("a {what} name consists of letters, digits, `%`, `|`, `_` and `-`; `{name}` has `{character}`")]
    Character { what: &'static str, name: String, character: char },
    #[error("an instance name consists of letters, digits, `_` and `-`; `{name}` has `{character}`")]
    InstanceCharacter { name: String, character: char },
}

/// What the topics that RocketMQ makes for a group begin with (`common/.../MixAll.java`); the group's name follows.
pub(super) const GROUP_TOPIC_PREFIXES: [&str; 2] = ["%RETRY%", "%DLQ%"];

/// What a topic of a group is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupTopic {
    /// Messages that are to be consumed once more.
    Retries,
    /// Messages that were delivered often enough.
    DeadLetters,
}

impl GroupTopic {
    /// The topic of a group.
    pub fn of(self, group: &GroupName) -> TopicName {
        let prefix = match self {
            GroupTopic::Retries => GROUP_TOPIC_PREFIXES[0],
            GroupTopic::DeadLetters => GROUP_TOPIC_PREFIXES[1],
        };
        format!("{prefix}{group}").parse().expect("a group's name fits after the prefix")
    }
}

/// The name of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// The name of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Arc<str>);

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

fn check(what: &'static str, name: &str, limit: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    if name.len() > limit {
        return Err(NameError::TooLong { what, limit, actual: name.len() });
    }
    let allowed = |character: char| character.is_ascii_alphanumeric() || "%|_-".contains(character);
    match name.chars().find(|&character| !allowed(character)) {
        Some(character) => Err(NameError::Character { what, name: name.to_owned(), character }),
        None => Ok(()),
    }
}

impl TopicName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one that the broker makes for a group.
    pub fn is_of_group(&self) -> bool {
        GROUP_TOPIC_PREFIXES.iter().any(|prefix| self.0.starts_with(prefix))
    }

    /// The group that it belongs to, and what for; `None` also for a prefix alone.
    pub fn group(&self) -> Option<(GroupTopic, GroupName)> {
        let kinds = [GroupTopic::Retries, GroupTopic::DeadLetters];
        let of =
            |(prefix, kind): (&&str, GroupTopic)| Some((kind, self.0.strip_prefix(*prefix)?.parse().ok()?));
        GROUP_TOPIC_PREFIXES.iter().zip(kinds).find_map(of)
    }
}

impl GroupName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let of_group =
            GROUP_TOPIC_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix).map(|_| prefix.len()));
        let limit =
            of_group.map_or(limits::TOPIC_NAME_BYTES_MAX, |prefix| limits::GROUP_NAME_BYTES_MAX + prefix);
        check("topic", name, limit)?;
        Ok(TopicName(name.into()))
    }
}

impl FromStr for GroupName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        check("group", name, limits::GROUP_NAME_BYTES_MAX)?;
        Ok(GroupName(name.into()))
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rocketmq() {
        for name in ["orders", "%RETRY%group", "%DLQ%g", "a|b_c-D9", &"x".repeat(127)] {
            assert_eq!(name.parse::<TopicName>().expect(name).as_str(), name);
        }
        for name in ["", "a b", "a/b", "..", "tab\t", "na\u{ef}ve", "nul\0", &"x".repeat(128)] {
            assert!(name.parse::<TopicName>().is_err(), "{name:?} must be refused");
        }
        let group: GroupName = "g".repeat(255).parse().expect("a name");
        for kind in [GroupTopic::Retries, GroupTopic::DeadLetters] {
            let topic = kind.of(&group);
            assert_eq!((topic.is_of_group(), topic.group()), (true, Some((kind, group.clone()))));
        }
        assert_eq!("%RETRY%".parse::<TopicName>().expect("a name").group(), None);
        assert!("g".repeat(256).parse::<GroupName>().is_err());
    }
}
