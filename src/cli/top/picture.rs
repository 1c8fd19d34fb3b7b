//! What two samples of a node come to: rates, uses and ages, for people and programs.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use super::sample::Sample;
use crate::api::{GroupLag, GroupStats, NodeInfo, ShardInfo, TopicStats};
use crate::types::TopicId;
use crate::views::{NodeSummary, counter, milliseconds, per_second, state_of};

/// A node as `-o json` has it; programs rely on these names. What cannot be told is `null`: a rate of what was not there in the
/// sample before, or a figure that an older broker does not say.
#[derive(Debug, Serialize)]
pub struct Picture {
    /// Time between the two samples that rates are of.
    pub interval_ms: u64,
    pub node: Option<NodeFigures>,
    pub topics: Vec<TopicFigures>,
    pub groups: Vec<GroupFigures>,
    /// Who consumes as the group that was asked about.
    #[serde(skip)]
    pub group: Option<crate::api::GroupInfo>,
}

#[derive(Debug, Serialize)]
pub struct NodeFigures {
    #[serde(flatten)]
    pub summary: NodeSummary,
    pub shards: Vec<ShardFigures>,
}

#[derive(Debug, Serialize)]
pub struct ShardFigures {
    pub shard: u16,
    pub core: Option<u32>,
    /// `ok`, or why the shard does not take messages.
    pub state: String,
    /// Of the core's time, 0 to 1; `null` of shards that share a thread with an earlier one.
    pub core_use: Option<f64>,
    /// For how much of the time a write or a flush of its log was under way, 0 to 1.
    pub device_use: Option<f64>,
    /// Whoever waits now for room in the log, to place something.
    pub producers_waiting: u64,
    pub connections: u64,
    pub messages_in_per_second: Option<f64>,
    pub bytes_in_per_second: Option<f64>,
    pub messages_out_per_second: Option<f64>,
    pub bytes_out_per_second: Option<f64>,
    pub log_bytes: u64,
    pub queues: u64,
}

#[derive(Debug, Serialize)]
pub struct TopicFigures {
    pub topic: String,
    pub id: u32,
    pub queues: u32,
    /// That are there now.
    pub messages: u64,
    pub messages_in_per_second: Option<f64>,
    pub bytes_in_per_second: Option<f64>,
    pub messages_out_per_second: Option<f64>,
    pub bytes_out_per_second: Option<f64>,
    /// Of the group that is the furthest behind; `null` when no group has a place in it.
    pub lag: Option<u64>,
    pub lag_group: Option<String>,
    /// Of the message that some group has waited with the longest.
    pub oldest_unread_age_ms: Option<u64>,
    /// With ages: of the messages that are there.
    pub oldest_age_ms: Option<u64>,
    pub newest_age_ms: Option<u64>,
    /// With ages: how many were stored within the last minute, hour and day.
    pub within_minute: u64,
    pub within_hour: u64,
    pub within_day: u64,
}

#[derive(Debug, Serialize)]
pub struct GroupFigures {
    pub group: String,
    pub members: u32,
    /// Receives under way.
    pub receivers: u32,
    /// RocketMQ's own clients.
    pub readers: u32,
    #[serde(flatten)]
    pub lag: LagFigures,
    pub topics: Vec<GroupTopicFigures>,
    /// Topics of the group for which the answer had no room.
    pub topics_left_out: u32,
}

#[derive(Debug, Serialize)]
pub struct GroupTopicFigures {
    pub topic: String,
    #[serde(flatten)]
    pub lag: LagFigures,
}

#[derive(Clone, Debug, Serialize)]
pub struct LagFigures {
    /// Messages that the group has not dealt with, those leased and waiting included.
    pub lag: u64,
    pub leased: u64,
    pub waiting: u64,
    pub dead_letters: u64,
    /// How many messages it has dealt with in a second.
    pub messages_per_second: Option<f64>,
    pub oldest_unread_age_ms: Option<u64>,
}

impl Picture {
    /// What `now` says, with rates since `before`.
    pub fn of(before: Option<&Sample>, now: &Sample) -> Self {
        let interval = before.map_or(Duration::ZERO, |before| now.at.saturating_duration_since(before.at));
        let nodes = |node: &NodeInfo| {
            NodeFigures::new(before.and_then(|before| before.node.as_ref()), node, interval)
        };
        let known: HashMap<TopicId, &TopicStats> =
            before.iter().flat_map(|before| &before.topics).map(|topic| (topic.id, topic)).collect();
        let behind = Behind::of(&now.groups);
        let topics = now.topics.iter();
        let topics = topics.map(|topic| {
            let before = known.get(&topic.id).copied();
            TopicFigures::new(before, topic, behind.of_topic(topic.topic.as_str()), interval)
        });
        let known: HashMap<&str, &GroupStats> = before
            .iter()
            .flat_map(|before| &before.groups)
            .map(|group| (group.group.as_str(), group))
            .collect();
        let groups = now.groups.iter();
        let groups =
            groups.map(|group| GroupFigures::new(known.get(group.group.as_str()).copied(), group, interval));
        Self {
            interval_ms: milliseconds(interval),
            node: now.node.as_ref().map(nodes),
            topics: topics.collect(),
            groups: groups.collect(),
            group: now.group.clone(),
        }
    }
}

/// How far groups are behind, by topic: the one that is the furthest, and the oldest message that any of them has to read.
#[derive(Default)]
struct Behind<'a> {
    topics: HashMap<&'a str, BehindInTopic<'a>>,
}

#[derive(Clone, Copy, Default)]
struct BehindInTopic<'a> {
    furthest: Option<(u64, &'a str)>,
    oldest: Option<Duration>,
}

impl<'a> Behind<'a> {
    fn of(groups: &'a [GroupStats]) -> Self {
        let mut behind = Self::default();
        for group in groups {
            for topic in &group.topics {
                let of = behind.topics.entry(topic.topic.as_str()).or_default();
                if of.furthest.is_none_or(|(lag, _)| topic.lag.lag > lag) {
                    of.furthest = Some((topic.lag.lag, group.group.as_str()));
                }
                of.oldest = of.oldest.max(topic.lag.oldest_unread_age);
            }
        }
        behind
    }

    fn of_topic(&self, topic: &str) -> BehindInTopic<'a> {
        self.topics.get(topic).copied().unwrap_or_default()
    }
}

impl NodeFigures {
    /// Rates of shards are since `before`, `interval` ago.
    pub fn new(before: Option<&NodeInfo>, node: &NodeInfo, interval: Duration) -> Self {
        // Another run of the broker counts from zero on.
        let before = before.filter(|before| before.node == node.node);
        let of_before = |shard: &ShardInfo| {
            before.and_then(|before| before.shards.iter().find(|known| known.shard == shard.shard))
        };
        let shards = node.shards.iter().map(|shard| ShardFigures::new(of_before(shard), shard, interval));
        Self { summary: NodeSummary::new(node), shards: shards.collect() }
    }
}

impl ShardFigures {
    fn new(before: Option<&ShardInfo>, shard: &ShardInfo, interval: Duration) -> Self {
        let value = |name| counter(shard, name).unwrap_or(0);
        let sums = |shard: &ShardInfo, names: &[&str]| {
            names.iter().filter_map(|name| counter(shard, name)).fold(0, u64::saturating_add)
        };
        let rate = |names: &[&str]| {
            per_second(before.map(|before| sums(before, names)), sums(shard, names), interval)
        };
        // Nanoseconds of a second.
        let share = |name| {
            let before = before.and_then(|before| counter(before, name));
            per_second(before, counter(shard, name)?, interval).map(|used| (used / 1e9).min(1.0))
        };
        Self {
            shard: shard.shard.0,
            core: shard.core,
            state: state_of(shard).to_owned(),
            core_use: share("cpu_ns"),
            device_use: share("device_busy_ns"),
            producers_waiting: value("placements_waiting"),
            connections: value("connections"),
            messages_in_per_second: rate(&["messages_produced"]),
            bytes_in_per_second: rate(&["bytes_produced"]),
            messages_out_per_second: rate(&["messages_fetched", "messages_received"]),
            bytes_out_per_second: rate(&["bytes_fetched", "bytes_received"]),
            log_bytes: value("segment_bytes"),
            queues: value("queues"),
        }
    }
}

impl TopicFigures {
    fn new(
        before: Option<&TopicStats>,
        topic: &TopicStats,
        behind: BehindInTopic<'_>,
        interval: Duration,
    ) -> Self {
        let (counts, before) = (&topic.counts, before.map(|before| &before.counts));
        let [within_minute, within_hour, within_day] = counts.within;
        Self {
            topic: topic.topic.to_string(),
            id: topic.id.0,
            queues: topic.queue_count,
            messages: counts.messages,
            messages_in_per_second: per_second(before.map(|of| of.stored), counts.stored, interval),
            bytes_in_per_second: per_second(before.map(|of| of.stored_bytes), counts.stored_bytes, interval),
            messages_out_per_second: per_second(before.map(|of| of.given), counts.given, interval),
            bytes_out_per_second: per_second(before.map(|of| of.given_bytes), counts.given_bytes, interval),
            lag: behind.furthest.map(|(lag, _)| lag),
            lag_group: behind.furthest.filter(|(lag, _)| *lag > 0).map(|(_, group)| group.to_owned()),
            oldest_unread_age_ms: behind.oldest.map(milliseconds),
            oldest_age_ms: counts.oldest_age.map(milliseconds),
            newest_age_ms: counts.newest_age.map(milliseconds),
            within_minute,
            within_hour,
            within_day,
        }
    }
}

impl LagFigures {
    fn new(before: Option<&GroupLag>, lag: &GroupLag, interval: Duration) -> Self {
        Self {
            lag: lag.lag,
            leased: lag.leased,
            waiting: lag.waiting,
            dead_letters: lag.dead_letters,
            messages_per_second: per_second(before.map(|before| before.passed), lag.passed, interval),
            oldest_unread_age_ms: lag.oldest_unread_age.map(milliseconds),
        }
    }
}

impl GroupFigures {
    fn new(before: Option<&GroupStats>, group: &GroupStats, interval: Duration) -> Self {
        let of_topic = |topic: &crate::api::GroupTopicStats| {
            let known = before.and_then(|before| {
                let at = before.topics.binary_search_by(|of| of.topic.cmp(&topic.topic)).ok()?;
                before.topics.get(at)
            });
            GroupTopicFigures {
                topic: topic.topic.to_string(),
                lag: LagFigures::new(known.map(|known| &known.lag), &topic.lag, interval),
            }
        };
        let total = before.map(GroupStats::total);
        Self {
            group: group.group.to_string(),
            members: group.members,
            receivers: group.receivers,
            readers: group.readers,
            lag: LagFigures::new(total.as_ref(), &group.total(), interval),
            topics: group.topics.iter().map(of_topic).collect(),
            topics_left_out: group.topics_left_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::api::{GroupTopicStats, TopicCounts};

    fn sample(at: Instant, stored: u64, lags: &[(&str, u64, u64)]) -> Sample {
        let counts =
            TopicCounts { messages: stored, stored, stored_bytes: 10 * stored, ..TopicCounts::default() };
        let topic =
            TopicStats { topic: "t".parse().expect("a name"), id: TopicId(1), queue_count: 4, counts };
        let group = |(name, lag, seconds): &(&str, u64, u64)| {
            let oldest_unread_age = Some(Duration::from_secs(*seconds));
            let lag = GroupLag { lag: *lag, oldest_unread_age, ..GroupLag::default() };
            let topics = vec![GroupTopicStats { topic: "t".parse().expect("a name"), lag }];
            let group = name.parse().expect("a name");
            GroupStats { group, members: 1, receivers: 0, readers: 0, topics, topics_left_out: 0 }
        };
        let groups = lags.iter().map(group).collect();
        Sample { at, node: None, topics: vec![topic], groups, group: None }
    }

    #[test]
    fn a_topic_has_the_lag_of_the_group_that_is_the_furthest_behind() {
        let begin = Instant::now();
        let before = sample(begin, 100, &[]);
        let now = sample(begin + Duration::from_secs(2), 300, &[("a", 5, 90), ("b", 7, 3), ("c", 0, 0)]);
        let picture = Picture::of(Some(&before), &now);
        let topic = &picture.topics[0];
        assert_eq!((topic.messages_in_per_second, topic.bytes_in_per_second), (Some(100.0), Some(1_000.0)));
        assert_eq!((topic.lag, topic.lag_group.as_deref()), (Some(7), Some("b")));
        assert_eq!(topic.oldest_unread_age_ms, Some(90_000));
        assert_eq!(picture.interval_ms, 2_000);
    }

    #[test]
    fn what_began_anew_has_no_rate() {
        let begin = Instant::now();
        let now = sample(begin, 10, &[]);
        assert_eq!(Picture::of(None, &now).topics[0].messages_in_per_second, None);
        let later = sample(begin + Duration::from_secs(1), 5, &[]);
        assert_eq!(Picture::of(Some(&now), &later).topics[0].messages_in_per_second, None);
        assert_eq!(
            Picture::of(Some(&now), &now).topics[0].messages_in_per_second,
            None,
            "no time has passed"
        );
    }
}
