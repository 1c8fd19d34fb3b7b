//! What shards ask one another for figures, and which names a page has.

use crate::api::{GroupLag, StatsOf, TopicCounts};
use crate::types::{GroupName, TopicId};

/// What a shard is asked about its own queues.
#[derive(Clone, Debug)]
pub enum StatsRequest {
    Topics {
        ids: Vec<TopicId>,
        ages: bool,
    },
    /// Which topics these groups have a place in here, or receive from through this shard.
    Groups(Vec<GroupName>),
    /// How far these are in these topics.
    Lags {
        groups: Vec<(GroupName, Vec<TopicId>)>,
        ages: bool,
    },
}

/// The answer to a [`StatsRequest`] of the same kind, in its order.
#[derive(Clone, Debug)]
pub enum StatsReply {
    Topics(Vec<TopicCounts>),
    Groups(Vec<SeenTopics>),
    Lags(Vec<Vec<GroupLag>>),
}

/// What a shard knows of a group without looking at its queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenTopics {
    pub topics: Vec<TopicId>,
    /// Receives under way through this shard.
    pub receivers: u32,
}

/// The names of a page, out of all in their order, and whether there are more.
pub(super) fn page<Name: Ord + Clone>(
    of: &StatsOf<Name>,
    names: impl Iterator<Item = Name>,
    max: usize,
) -> (Vec<Name>, bool) {
    let after = match of {
        StatsOf::One(name) => return (vec![name.clone()], false),
        StatsOf::After(after) => after.as_ref(),
    };
    let mut rest = names.skip_while(|name| after.is_some_and(|after| name <= after));
    let names: Vec<_> = rest.by_ref().take(max).collect();
    (names, rest.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_on_after_one_another() {
        let all = || ["a", "b", "c", "d", "e"].into_iter();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (names, has_more) = page(&StatsOf::After(after), all(), 2);
            seen.extend(names.iter().copied());
            after = names.last().copied();
            if !has_more {
                break;
            }
        }
        assert_eq!(seen, ["a", "b", "c", "d", "e"]);
        assert_eq!(page(&StatsOf::After(Some("bb")), all(), 9), (vec!["c", "d", "e"], false));
        assert_eq!(page(&StatsOf::After(Some("z")), all(), 9), (vec![], false));
        assert_eq!(page(&StatsOf::One("x"), all(), 9), (vec!["x"], false));
    }
}
