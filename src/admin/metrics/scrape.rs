//! One scrape: what all shards say when somebody asks for metrics, and what that comes to for the node.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::admin::phase::NodePhase;
use crate::admin::server::Admin;
use crate::admin::shards::{Facts, Unanswered};
use crate::api::{GroupTally, LagReading, ShardReading, TopicTally};
use crate::limits;
use crate::types::{GroupName, TopicName};

/// Everything that a scrape tells.
pub(super) struct Scrape {
    pub facts: Facts,
    phase: NodePhase,
    /// In the order of the shards.
    pub readings: Vec<Result<ShardReading, Unanswered>>,
    /// Over all shards.
    pub topics: BTreeMap<TopicName, TopicTally>,
    pub groups: BTreeMap<GroupName, Group>,
    pub given: BTreeMap<(Option<GroupName>, TopicName), GroupTally>,
    /// There are more topics, or more groups, than there is room for.
    pub topics_left_out: bool,
    pub groups_left_out: bool,
    pub took: Duration,
}

/// A group on all shards.
#[derive(Default)]
pub(super) struct Group {
    pub members: u64,
    pub receives: u64,
    pub readers: u64,
    pub topics: BTreeMap<TopicName, LagReading>,
}

impl Scrape {
    /// Asks all shards. What they do not answer is left out, and shown to be.
    pub async fn take(admin: &Admin) -> Self {
        let began = Instant::now();
        let phase = admin.phase.phase();
        let readings = match phase {
            NodePhase::Serving => admin.shards.readings().await,
            // Nobody reads what is put in a shard's mailbox.
            NodePhase::Recovering | NodePhase::Stopping => {
                admin.shards.all().map(|_| Err(Unanswered::Ended)).collect()
            }
        };
        let told = || readings.iter().flatten();
        let topics = sum_topics(told());
        let groups = sum_groups(told());
        let given = sum_given(told());
        let most = told().map(|reading| reading.topic_count).max().unwrap_or(0);
        let topics_left_out = most > limits::METRICS_TOPICS_MAX as u64;
        let groups_left_out = told().any(|reading| reading.has_more_groups);
        let (facts, took) = (admin.facts.clone(), began.elapsed());
        Self { facts, phase, readings, topics, groups, given, topics_left_out, groups_left_out, took }
    }

    /// What `/readyz` says.
    pub fn is_ready(&self) -> bool {
        let serves =
            |reading: &Result<ShardReading, _>| reading.as_ref().is_ok_and(|reading| reading.is_serving);
        self.phase == NodePhase::Serving && self.readings.iter().all(serves)
    }

    /// Each group and topic in which the group has a place.
    pub fn pairs(&self) -> impl Iterator<Item = (&GroupName, &TopicName, &LagReading)> {
        self.groups
            .iter()
            .flat_map(|(group, of)| of.topics.iter().map(move |(topic, lag)| (group, topic, lag)))
    }
}

fn sum_topics<'a>(readings: impl Iterator<Item = &'a ShardReading>) -> BTreeMap<TopicName, TopicTally> {
    let mut topics: BTreeMap<TopicName, TopicTally> = BTreeMap::new();
    for tally in readings.flat_map(|reading| &reading.topics) {
        match topics.get_mut(&tally.topic) {
            Some(sum) => sum.add(tally),
            None => drop(topics.insert(tally.topic.clone(), tally.clone())),
        }
    }
    topics
}

fn sum_given<'a>(
    readings: impl Iterator<Item = &'a ShardReading>,
) -> BTreeMap<(Option<GroupName>, TopicName), GroupTally> {
    let mut given: BTreeMap<(Option<GroupName>, TopicName), GroupTally> = BTreeMap::new();
    for tally in readings.flat_map(|reading| &reading.given) {
        let pair = (tally.group.clone(), tally.topic.clone());
        match given.get_mut(&pair) {
            Some(sum) => sum.add(tally),
            None => drop(given.insert(pair, tally.clone())),
        }
    }
    given
}

/// A shard on which a group has no place in a topic has nothing but messages of it that the group has not dealt with.
fn sum_groups<'a>(readings: impl Iterator<Item = &'a ShardReading> + Clone) -> BTreeMap<GroupName, Group> {
    let mut groups: BTreeMap<GroupName, Group> = BTreeMap::new();
    for reading in readings.clone() {
        for of in &reading.groups {
            let group = groups.entry(of.group.clone()).or_default();
            group.members += of.members;
            group.receives += of.receives;
            group.readers += of.readers;
            for (topic, _) in &of.topics {
                group.topics.entry(topic.clone()).or_default();
            }
        }
    }
    for reading in readings {
        let messages: BTreeMap<_, _> = reading.topics.iter().map(|of| (&of.topic, of.messages)).collect();
        let known: BTreeMap<_, BTreeMap<_, _>> = reading
            .groups
            .iter()
            .map(|of| (&of.group, of.topics.iter().map(|(topic, lag)| (topic, lag)).collect()))
            .collect();
        for (name, group) in &mut groups {
            for (topic, sum) in &mut group.topics {
                match known.get(name).and_then(|topics| topics.get(topic)) {
                    Some(lag) => sum.add(lag),
                    None => {
                        let lag = messages.get(topic).copied().unwrap_or(0);
                        sum.add(&LagReading { lag, ..LagReading::default() });
                    }
                }
            }
        }
    }
    groups
}
