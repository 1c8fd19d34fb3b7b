//! What a shard shows to whoever watches it. Everything was counted before anybody asked, and is only read here; what concerns
//! thousands of queues is read in slices of time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::api::{DiskReading, GroupReading, GroupTally, LagReading, ShardReading, SizeCounts, TopicTally};
use crate::broker::RECEIVERS;
use crate::broker::client_requests::CONTROL_SHARD;
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::disk::Disk;
use crate::limits;
use crate::metrics::{Given, HeldTally};
use crate::state::{QueueLeases, Topic};
use crate::types::{GroupName, QueueKey, TopicId};

impl<D: Disk> Broker<D> {
    /// The shard in this moment. What cannot be found out of its disk is zero.
    pub async fn reading(&self) -> ShardReading {
        let standing = self.log_standing().await.ok();
        let disk = standing.map_or_else(DiskReading::default, |standing| DiskReading {
            total_bytes: standing.space.total,
            used_bytes: standing.space.used,
            available_bytes: standing.space.available,
        });
        let (groups, has_more_groups) = self.group_readings().await;
        let messages = self.messages_by_topic().await;
        let (first, now) = (standing.and_then(|standing| standing.first), self.clock.now());
        let watermarks = self.log.watermarks();
        ShardReading {
            shard: self.options.shard,
            core: self.options.core,
            is_serving: self.takes_messages(),
            counters: self.counters(false).await,
            stages: self.metrics.stages(),
            disk,
            unflushed_bytes: watermarks.appended_end().0 - watermarks.durable_end().0,
            oldest_age: first.map(|first| Duration::from_millis(now.0.saturating_sub(first.0))),
            topic_count: self.tables().topic_count() as u64,
            topics: self.topic_tallies(&messages),
            given: self.group_tallies(),
            groups,
            has_more_groups,
            clients: if self.is_control() { self.readers.borrow().tallies() } else { Vec::new() },
        }
    }

    /// What was counted of topics that are there, in the order of their names, as many as metrics have room for.
    fn topic_tallies(&self, messages: &BTreeMap<TopicId, u64>) -> Vec<TopicTally> {
        let (tables, arrivals, held) = (self.tables(), self.arrivals.borrow(), self.held());
        let tallies = self.metrics.tallies.borrow();
        let tally = |topic: &Topic| {
            let HeldTally { committed, rolled_back, decided, delayed, released, delays } =
                tallies.of_topic(topic.id);
            TopicTally {
                topic: topic.name.clone(),
                sizes: arrivals.get(&topic.id).map_or_else(SizeCounts::default, |of| of.intake.sizes()),
                committed,
                rolled_back,
                decided,
                delayed,
                released,
                delays,
                halves: held.halves.count_of(topic.id, None) as u64,
                messages: messages.get(&topic.id).copied().unwrap_or(0),
            }
        };
        tables.topics().take(limits::METRICS_TOPICS_MAX).map(tally).collect()
    }

    /// What was counted of groups.
    fn group_tallies(&self) -> Vec<GroupTally> {
        let (tables, tallies) = (self.tables(), self.metrics.tallies.borrow());
        let named = tallies.pairs().filter_map(|(group, topic, given)| {
            let topic = tables.topic(topic)?.name.clone();
            let Given { messages, bytes, dead_letters } = given;
            Some(GroupTally { group: group.cloned(), topic, messages, bytes, dead_letters })
        });
        named.collect()
    }

    fn is_control(&self) -> bool {
        self.options.shard == CONTROL_SHARD
    }

    /// Messages that are there, of each topic.
    async fn messages_by_topic(&self) -> BTreeMap<TopicId, u64> {
        let keys: Vec<_> = self.queues.borrow().keys().copied().collect();
        let mut messages: BTreeMap<TopicId, u64> = BTreeMap::new();
        let mut slice = self.time_slice();
        for key in keys {
            if let Ok(queue) = self.queue(key) {
                let (first, end) = self.bounds(&queue);
                *messages.entry(key.topic).or_default() += end.0 - first.0;
            }
            slice.yield_if_over().await;
        }
        messages
    }

    /// The groups that this shard knows of, by name, and whether they have more topics than metrics have room for.
    async fn group_readings(&self) -> (Vec<GroupReading>, bool) {
        let received = self.received_topics().await;
        let (mut readings, mut pairs) = (Vec::new(), 0);
        for group in self.own_group_names() {
            let placed = self.tables().offsets_of(&group).into_iter().map(|(key, _)| key.topic);
            let seen = self.receivers.borrow().of_group(&group, self.clock.monotonic());
            let of_receivers = seen.iter().map(|seen| seen.topic);
            let of_leases = received.get(&group).into_iter().flatten().copied();
            let ids: BTreeSet<TopicId> = placed.chain(of_receivers).chain(of_leases).collect();
            pairs += ids.len().max(1);
            if pairs > limits::METRICS_PAIRS_MAX {
                return (readings, true);
            }
            let mut topics = Vec::with_capacity(ids.len());
            for id in ids {
                let shape = self.tables().topic(id).map(|topic| (topic.name.clone(), topic.queue_count));
                if let Some((name, queue_count)) = shape {
                    topics.push((name, self.lag_reading(&group, id, queue_count).await));
                }
            }
            let (members, readers) = if self.is_control() { self.consumers_of(&group) } else { (0, 0) };
            let receives = seen.iter().map(|seen| u64::from(seen.active)).sum();
            readings.push(GroupReading { group, members, receives, readers, topics });
        }
        (readings, false)
    }

    /// Members that own queues, and RocketMQ's clients, of a group.
    fn consumers_of(&self, group: &GroupName) -> (u64, u64) {
        let described = self.groups.borrow().describe(group, self.clock.monotonic());
        let members = described.map_or_else(Vec::new, |(_, members)| members);
        let owners = members.iter().filter(|member| member.member != RECEIVERS).count();
        (owners as u64, self.readers.borrow().members(group).len() as u64)
    }

    /// The topics of which groups have leases here. The table knows the groups of a queue only, so all queues are looked at.
    async fn received_topics(&self) -> BTreeMap<GroupName, BTreeSet<TopicId>> {
        let keys: Vec<_> = self.queues.borrow().keys().copied().collect();
        let mut topics: BTreeMap<GroupName, BTreeSet<TopicId>> = BTreeMap::new();
        let mut slice = self.time_slice();
        for key in keys {
            for group in self.leases().groups_of(key) {
                topics.entry(group.clone()).or_default().insert(key.topic);
            }
            slice.yield_if_over().await;
        }
        topics
    }

    /// How far a group is in this shard's queues of a topic.
    async fn lag_reading(&self, group: &GroupName, id: TopicId, queue_count: u32) -> LagReading {
        let mut sum = LagReading::default();
        let mut slice = self.time_slice();
        for key in owned_queues(id, queue_count, &self.options) {
            sum.add(&self.queue_lag_reading(group, key).await);
            slice.yield_if_over().await;
        }
        sum
    }

    /// The same figures as `group describe` has of a queue.
    async fn queue_lag_reading(&self, group: &GroupName, key: QueueKey) -> LagReading {
        let Ok(queue) = self.queue(key) else { return LagReading::default() };
        let (first, end) = self.bounds(&queue);
        let place = |leases: &QueueLeases| {
            let leased = leases.running_count(self.steady.now());
            (leases.floor(), leases.next(), leased, leases.open_count())
        };
        let leased = self.leases().get(group, key).map(place);
        let committed = || self.tables().committed(group, key).unwrap_or(first);
        let (floor, next, leased, open) = leased.unwrap_or_else(|| (committed(), committed(), 0, 0));
        let lag = end.0.saturating_sub(next.max(first).0) + open;
        let unread = floor.max(first);
        let stored = match lag > 0 && unread < end {
            true => self.store_time(key, unread).await.ok().flatten(),
            false => None,
        };
        let now = self.clock.now();
        let oldest_unread_age = stored.map(|stored| Duration::from_millis(now.0.saturating_sub(stored.0)));
        LagReading { lag, leased, oldest_unread_age }
    }
}
