//! What a node said at one moment.

use std::time::Instant;

use crate::api::{GroupInfo, GroupStats, NodeInfo, StatsAsked, StatsOf, StatsPage, Status, TopicStats};
use crate::client::{Client, ClientError};
use crate::types::{GroupName, TopicName};

/// What is to be asked of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub node: bool,
    pub topics: Option<Scope<TopicName>>,
    pub groups: Option<Scope<GroupName>>,
    /// Whose members are wanted as well.
    pub members_of: Option<GroupName>,
}

/// Which figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope<Name> {
    /// `None`: all.
    pub only: Option<Name>,
    pub ages: bool,
}

/// All answers to it.
#[derive(Debug)]
pub struct Sample {
    pub at: Instant,
    pub node: Option<NodeInfo>,
    pub topics: Vec<TopicStats>,
    pub groups: Vec<GroupStats>,
    pub group: Option<GroupInfo>,
}

impl Sample {
    /// Asks for everything. Counts are of the moment at which the node's were asked for, as near as that can be told.
    pub fn take(client: &mut Client, asked: &Asked) -> Result<Self, ClientError> {
        let at = Instant::now();
        let node = if asked.node { Some(client.describe_node(false)?) } else { None };
        let topics = match &asked.topics {
            Some(scope) => pages(scope, |asked| client.topic_stats(asked), |of| &of.topic)?,
            None => Vec::new(),
        };
        let groups = match &asked.groups {
            Some(scope) => pages(scope, |asked| client.group_stats(asked), |of| &of.group)?,
            None => Vec::new(),
        };
        let group = match &asked.members_of {
            Some(group) => gone_is_none(client.describe_group(group))?,
            None => None,
        };
        Ok(Self { at, node, topics, groups, group })
    }
}

/// A group that was there a moment ago may be gone.
fn gone_is_none(described: Result<GroupInfo, ClientError>) -> Result<Option<GroupInfo>, ClientError> {
    match described {
        Ok(group) => Ok(Some(group)),
        Err(ClientError::Refused(failure)) if failure.status == Status::GroupNotExist => Ok(None),
        Err(error) => Err(error),
    }
}

/// All pages. A broker whose pages do not go on in the order of names would be asked for ever: what it says ends there.
fn pages<Entry, Name: Clone + Ord>(
    scope: &Scope<Name>,
    mut ask: impl FnMut(StatsAsked<Name>) -> Result<StatsPage<Entry, Name>, ClientError>,
    name: impl Fn(&Entry) -> &Name,
) -> Result<Vec<Entry>, ClientError> {
    let ages = scope.ages;
    if let Some(only) = &scope.only {
        return Ok(ask(StatsAsked { of: StatsOf::One(only.clone()), ages })?.entries);
    }
    let (mut entries, mut after): (Vec<Entry>, Option<Name>) = (Vec::new(), None);
    loop {
        let page = ask(StatsAsked { of: StatsOf::After(after.clone()), ages })?;
        let is_ahead = |entry: &Entry| after.as_ref().is_none_or(|after| name(entry) > after);
        entries.extend(page.entries.into_iter().filter(is_ahead));
        match page.next {
            Some(next) if after.as_ref().is_none_or(|after| next > *after) => after = Some(next),
            _ => return Ok(entries),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_do_not_go_on_end() {
        let scope = Scope { only: None, ages: false };
        let mut asked = 0;
        let ask = |of: StatsAsked<u32>| {
            asked += 1;
            Ok(match of.of {
                StatsOf::After(None) => StatsPage { entries: vec![1, 2], next: Some(2) },
                // The same once more, and the way back.
                _ => StatsPage { entries: vec![2, 3], next: Some(1) },
            })
        };
        assert_eq!(pages(&scope, ask, |entry| entry).expect("answers"), [1, 2, 3]);
        assert_eq!(asked, 2);
    }
}
