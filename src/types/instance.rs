//! Instances: name spaces of topics and groups, as RocketMQ writes them (`common/.../protocol/NamespaceUtil.java`):
//! `INSTANCE%TOPIC`, `INSTANCE%GROUP`, and the topics of such a group `%DLQ%INSTANCE%GROUP`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::name::{GROUP_TOPIC_PREFIXES, GroupName, NameError, TopicName};
use crate::limits;

/// Parts an instance's name from what belongs to it.
const SEPARATOR: char = '%';

/// The name of an instance: letters, digits, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(Arc<str>);

impl InstanceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole name of a topic of this instance, which may be longer than a name can be.
    pub fn topic_text(&self, topic: &TopicName) -> String {
        let (prefix, name) = split_prefix(topic.as_str());
        format!("{prefix}{self}{SEPARATOR}{name}")
    }

    /// The name of a topic of this instance; an error when it is longer than a name can be.
    pub fn topic(&self, topic: &TopicName) -> Result<TopicName, NameError> {
        self.topic_text(topic).parse()
    }

    /// The whole name of a group of this instance.
    pub fn group(&self, group: &GroupName) -> Result<GroupName, NameError> {
        format!("{self}{SEPARATOR}{group}").parse()
    }

    /// What the names of this instance's topics begin with; no other topic's name does.
    pub fn topic_prefixes(&self) -> [TopicName; 3] {
        ["", GROUP_TOPIC_PREFIXES[0], GROUP_TOPIC_PREFIXES[1]].map(|prefix| {
            let prefix = format!("{prefix}{self}{SEPARATOR}");
            prefix.parse().expect("an instance's name is shorter than a topic's may be")
        })
    }

    /// The instance that a name without prefix belongs to.
    fn of(name: &str) -> Option<Self> {
        name.split_once(SEPARATOR)?.0.parse().ok()
    }
}

impl TopicName {
    /// `None`: the default instance.
    pub fn instance(&self) -> Option<InstanceName> {
        InstanceName::of(split_prefix(self.as_str()).1)
    }
}

impl GroupName {
    /// `None`: the default instance.
    pub fn instance(&self) -> Option<InstanceName> {
        InstanceName::of(self.as_str())
    }
}

/// The prefix of a group's topics, or none, and the rest.
fn split_prefix(topic: &str) -> (&'static str, &str) {
    let of_group = GROUP_TOPIC_PREFIXES.into_iter();
    let mut split = of_group.filter_map(|prefix| Some((prefix, topic.strip_prefix(prefix)?)));
    split.next().unwrap_or(("", topic))
}

impl FromStr for InstanceName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let limit = limits::INSTANCE_NAME_BYTES_MAX;
        let allowed = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
        if name.is_empty() {
            return Err(NameError::Empty { what: "instance" });
        }
        if name.len() > limit {
            return Err(NameError::TooLong { what: "instance", limit, actual: name.len() });
        }
        match name.chars().find(|&character| !allowed(character)) {
            Some(character) => Err(NameError::InstanceCharacter { name: name.to_owned(), character }),
            None => Ok(Self(name.into())),
        }
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str) -> InstanceName {
        name.parse().expect("a name")
    }

    #[test]
    fn names_belong_to_the_instance_they_begin_with() {
        for (topic, expected) in [
            ("t", None),
            ("I%t", Some("I")),
            ("I%t%u", Some("I")),
            ("%DLQ%g", None),
            ("%DLQ%I%g", Some("I")),
            ("%RETRY%I%g", Some("I")),
            ("%t", None),
            ("a|b%t", None),
        ] {
            let topic: TopicName = topic.parse().expect("a name");
            assert_eq!(topic.instance(), expected.map(instance), "{topic}");
            let is_among = |prefixes: [TopicName; 3]| {
                prefixes.iter().any(|prefix| topic.as_str().starts_with(prefix.as_str()))
            };
            assert_eq!(is_among(instance("I").topic_prefixes()), expected.is_some(), "{topic}");
        }
        let group: GroupName = "I%g".parse().expect("a name");
        assert_eq!(group.instance(), Some(instance("I")));
    }

    #[test]
    fn whole_names_are_rocketmqs() {
        let (i, group) = (instance("MQ_INST-1"), "g".parse().expect("a name"));
        for (topic, whole) in [("t", "MQ_INST-1%t"), ("%DLQ%g", "%DLQ%MQ_INST-1%g")] {
            let topic: TopicName = topic.parse().expect("a name");
            let topic = i.topic(&topic).expect("it is short");
            assert_eq!((topic.as_str(), topic.instance()), (whole, Some(i.clone())));
        }
        assert_eq!(i.group(&group).expect("it is short").as_str(), "MQ_INST-1%g");
        for name in ["", "a%b", "a b", "a|b", "%", &"i".repeat(limits::INSTANCE_NAME_BYTES_MAX + 1)] {
            assert!(name.parse::<InstanceName>().is_err(), "{name:?} must be refused");
        }
        let longest = instance(&"i".repeat(limits::INSTANCE_NAME_BYTES_MAX));
        assert_eq!(longest.topic_prefixes().len(), 3);
        let error = "a%b".parse::<InstanceName>().expect_err("it has a separator").to_string();
        assert!(error.contains("letters, digits, `_` and `-`;"), "{error}");
    }
}
