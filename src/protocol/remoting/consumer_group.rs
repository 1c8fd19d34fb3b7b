//! The names of groups that RocketMQ's clients consume as: shorter than others, since the topic of a group's retries is a topic to
//! them (`client/.../Validators.java`), and one with a longer name makes records that clients for Go and C++ misread.

use crate::limits;
use crate::types::{GroupName, NameError};

/// Why a client cannot consume as a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumerGroupError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(
        "a group that RocketMQ's clients consume as has at most {max} bytes, this one has {actual}: they could not read the topic \
         of its retries",
        max = limits::REMOTING_GROUP_BYTES_MAX
    )]
    TooLong { actual: usize },
}

/// The group of that name.
pub fn consumer_group(name: &str) -> Result<GroupName, ConsumerGroupError> {
    let group: GroupName = name.parse()?;
    match name.len() {
        ..=limits::REMOTING_GROUP_BYTES_MAX => Ok(group),
        actual => Err(ConsumerGroupError::TooLong { actual }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GroupTopic;

    #[test]
    fn the_topic_of_its_retries_is_as_long_as_a_topic() {
        let longest = consumer_group(&"g".repeat(120)).expect("a group");
        assert_eq!(GroupTopic::Retries.of(&longest).as_str().len(), limits::TOPIC_NAME_BYTES_MAX);
        for actual in [121, 255] {
            let refused = consumer_group(&"g".repeat(actual));
            assert_eq!(refused, Err(ConsumerGroupError::TooLong { actual }));
        }
        assert!(matches!(consumer_group("a b"), Err(ConsumerGroupError::Name(_))));
    }
}
