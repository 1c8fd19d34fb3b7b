//! Figures of groups: how far each is in its topics.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::asked::{SeenTopics, StatsReply, StatsRequest, page};
use crate::api::{Failure, GroupLag, GroupStats, GroupTopicStats, StatsAsked, StatsOf, StatsPage, Status};
use crate::broker::RECEIVERS;
use crate::broker::client_requests::unexpected;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::broker::topics::Others;
use crate::disk::Disk;
use crate::limits;
use crate::types::{GroupName, QueueKey, QueueOffset, TopicId};

/// A group as far as it is known before queues are looked at.
#[derive(Default)]
struct Known {
    members: u32,
    receivers: u32,
    readers: u32,
    topics: BTreeSet<TopicId>,
    topics_left_out: u32,
}

impl<D: Disk> Broker<D> {
    /// A page of groups' figures, over all shards. Asked of the control shard, which knows their members.
    pub(in crate::broker) async fn group_stats(
        &self,
        asked: StatsAsked<GroupName>,
    ) -> Result<StatsPage<GroupStats, GroupName>, Failure> {
        let all = match asked.of {
            StatsOf::One(_) => Vec::new(),
            StatsOf::After(_) => self.list_groups().await?,
        };
        let max = if asked.ages { limits::STATS_AGED_MAX } else { limits::STATS_GROUPS_MAX };
        let (names, mut has_more) = page(&asked.of, all.into_iter(), max);
        let mut known: Vec<_> = names.iter().cloned().zip(self.known_groups(&names).await?).collect();
        if let (StatsOf::One(group), [(_, of)]) = (&asked.of, &known[..])
            && of.is_nothing()
            && self.tables().group_settings(group).is_none()
        {
            let message = format!("group {group} has no members, no receivers, no offsets and no settings");
            return Err(Failure::new(Status::GroupNotExist, message));
        }
        has_more |= keep_what_fits(&mut known);
        let mut lags = self.group_lags(&known, asked.ages).await?;
        let tables = self.tables();
        let entries: Vec<_> = known
            .into_iter()
            .map(|(group, of)| {
                let topics = lags.remove(&group).unwrap_or_default().into_iter();
                let named = topics.filter_map(|(id, lag)| Some((tables.topic(id)?.name.clone(), lag)));
                let mut topics: Vec<_> = named.map(|(topic, lag)| GroupTopicStats { topic, lag }).collect();
                topics.sort_by(|one, other| one.topic.cmp(&other.topic));
                let Known { members, receivers, readers, topics_left_out, .. } = of;
                GroupStats { group, members, receivers, readers, topics, topics_left_out }
            })
            .collect();
        let next = entries.last().filter(|_| has_more).map(|last| last.group.clone());
        Ok(StatsPage { entries, next })
    }

    /// What all shards know of groups, and this one of their members.
    async fn known_groups(&self, names: &[GroupName]) -> Result<Vec<Known>, Failure> {
        let request = || PeerRequest::Stats(StatsRequest::Groups(names.to_vec()));
        let mut known: Vec<_> = names.iter().map(|_| Known::default()).collect();
        for reply in self.ask_all(request, Others::AndThis).await? {
            let PeerReply::Stats(StatsReply::Groups(seen)) = reply else { return Err(unexpected(&reply)) };
            for (of, seen) in known.iter_mut().zip(seen) {
                of.topics.extend(seen.topics);
                of.receivers = of.receivers.saturating_add(seen.receivers);
            }
        }
        let now = self.clock.monotonic();
        self.groups.borrow_mut().expire(now);
        let (groups, tables, readers) = (self.groups.borrow(), self.tables(), self.readers.borrow());
        for (of, name) in known.iter_mut().zip(names) {
            let described = groups.describe(name, now).map_or_else(Vec::new, |(_, members)| members);
            let named = described.iter().flat_map(|member| &member.topics);
            of.topics.extend(named.filter_map(|topic| tables.topic_named(topic)).map(|topic| topic.id));
            of.members = described.iter().filter(|member| member.member != RECEIVERS).count() as u32;
            of.readers = readers.client_count_of(name) as u32;
        }
        Ok(known)
    }

    async fn group_lags(
        &self,
        known: &[(GroupName, Known)],
        ages: bool,
    ) -> Result<HashMap<GroupName, BTreeMap<TopicId, GroupLag>>, Failure> {
        let asked: Vec<(GroupName, Vec<TopicId>)> =
            known.iter().map(|(group, of)| (group.clone(), of.topics.iter().copied().collect())).collect();
        let request = || PeerRequest::Stats(StatsRequest::Lags { groups: asked.clone(), ages });
        let mut sums: HashMap<GroupName, BTreeMap<TopicId, GroupLag>> = HashMap::new();
        for reply in self.ask_all(request, Others::AndThis).await? {
            let PeerReply::Stats(StatsReply::Lags(lags)) = reply else { return Err(unexpected(&reply)) };
            for ((group, topics), lags) in asked.iter().zip(&lags) {
                let sums = sums.entry(group.clone()).or_default();
                for (topic, lag) in topics.iter().zip(lags) {
                    sums.entry(*topic).or_default().add(lag);
                }
            }
        }
        Ok(sums)
    }

    /// Carries out what a shard asks of this one's queues.
    pub(in crate::broker) async fn own_stats(&self, request: StatsRequest) -> Result<StatsReply, Failure> {
        Ok(match request {
            StatsRequest::Topics { ids, ages } => {
                StatsReply::Topics(self.own_topic_counts(&ids, ages).await?)
            }
            StatsRequest::Groups(groups) => StatsReply::Groups(self.own_seen_topics(&groups).await),
            StatsRequest::Lags { groups, ages } => {
                let mut lags = Vec::with_capacity(groups.len());
                for (group, topics) in &groups {
                    lags.push(self.own_lags(group, topics, ages).await?);
                }
                StatsReply::Lags(lags)
            }
        })
    }

    async fn own_seen_topics(&self, groups: &[GroupName]) -> Vec<SeenTopics> {
        let mut topics: HashMap<&GroupName, BTreeSet<TopicId>> = HashMap::new();
        let mut all = Vec::with_capacity(groups.len());
        let mut slice = self.time_slice();
        for group in groups {
            let places = self.tables().offsets_of(group).into_iter().map(|(key, _)| key.topic);
            let locked = self.own_locks(group).into_iter().map(|(key, _)| key.topic);
            let seen = self.receivers.borrow().of_group(group, self.clock.monotonic());
            let receivers = seen.iter().fold(0, |sum: u32, of| sum.saturating_add(of.active));
            let received = seen.iter().map(|of| of.topic);
            topics.entry(group).or_default().extend(places.chain(locked).chain(received));
            all.push(SeenTopics { topics: Vec::new(), receivers });
            slice.yield_if_over().await;
        }
        self.add_received_topics(&mut topics).await;
        for (seen, group) in all.iter_mut().zip(groups) {
            seen.topics = topics.remove(group).unwrap_or_default().into_iter().collect();
        }
        all
    }

    /// Adds the topics from which these groups have received here. The tables know the groups of a queue only, so all queues
    /// are looked at, once for all groups.
    async fn add_received_topics(&self, topics: &mut HashMap<&GroupName, BTreeSet<TopicId>>) {
        let is_asked = |group: &GroupName| topics.contains_key(group);
        if self.passed.borrow().is_empty() && !self.leases().groups().any(is_asked) {
            return;
        }
        let keys: Vec<_> = self.queues.borrow().keys().copied().collect();
        let mut slice = self.time_slice();
        for key in keys {
            self.add_receiving_groups(key, topics);
            slice.yield_if_over().await;
        }
    }

    fn add_receiving_groups(&self, key: QueueKey, topics: &mut HashMap<&GroupName, BTreeSet<TopicId>>) {
        let (leases, passed) = (self.leases(), self.passed.borrow());
        for group in leases.groups_of(key).chain(passed.groups_of(key)) {
            if let Some(topics) = topics.get_mut(group) {
                topics.insert(key.topic);
            }
        }
    }

    /// How far a group is in this shard's queues of each of these topics.
    async fn own_lags(
        &self,
        group: &GroupName,
        topics: &[TopicId],
        ages: bool,
    ) -> Result<Vec<GroupLag>, Failure> {
        let mut all = Vec::with_capacity(topics.len());
        let mut slice = self.time_slice();
        for id in topics {
            let queue_count = self.tables().topic(*id).map_or(0, |topic| topic.queue_count);
            let mut lag = GroupLag::default();
            for key in owned_queues(*id, queue_count, &self.options) {
                lag.add(&self.queue_lag(group, key, ages).await?);
                slice.yield_if_over().await;
            }
            all.push(lag);
        }
        Ok(all)
    }

    /// The same figures as `group describe` has of a queue.
    async fn queue_lag(&self, group: &GroupName, key: QueueKey, ages: bool) -> Result<GroupLag, Failure> {
        let Ok(queue) = self.queue(key) else { return Ok(GroupLag::default()) };
        let (first, end) = self.bounds(&queue);
        let Place { floor, next, leased, waiting, dead_letters } = self.place_of(group, key);
        let undelivered = end.0.saturating_sub(next.unwrap_or(first).max(first).0);
        let lag = undelivered + leased + waiting;
        // Below its place a group has dealt with everything; a new one begins with the first message there is.
        let unread = floor.unwrap_or(first).max(first);
        let oldest_unread_age = match ages && lag > 0 && unread < end {
            true => self.age_of(key, unread).await?,
            false => None,
        };
        let passed = floor.map_or(0, |floor| floor.0);
        Ok(GroupLag { lag, leased, waiting, dead_letters, passed, oldest_unread_age })
    }

    fn place_of(&self, group: &GroupName, key: QueueKey) -> Place {
        if let Some(leases) = self.leases().get(group, key) {
            let leased = leases.running_count(self.steady.now());
            return Place {
                floor: Some(leases.floor()),
                next: Some(leases.next()),
                leased,
                waiting: leases.open_count() - leased,
                dead_letters: leases.dead_letters(),
            };
        }
        let place = self.passed.borrow().get(group, key).or_else(|| self.tables().committed(group, key));
        Place { floor: place, next: place, ..Place::default() }
    }
}

/// Where a group is in a queue.
#[derive(Default)]
struct Place {
    /// Below it everything was dealt with.
    floor: Option<QueueOffset>,
    /// From here on nothing was delivered.
    next: Option<QueueOffset>,
    leased: u64,
    waiting: u64,
    dead_letters: u64,
}

impl Known {
    fn is_nothing(&self) -> bool {
        self.members == 0 && self.receivers == 0 && self.readers == 0 && self.topics.is_empty()
    }
}

/// Cuts a page to what an answer has room for: at least its first group, with as many topics as there is room. Whether groups
/// were left out.
fn keep_what_fits(known: &mut Vec<(GroupName, Known)>) -> bool {
    let mut room = limits::STATS_GROUP_TOPICS_MAX;
    let mut kept = 0;
    for (_, of) in known.iter_mut() {
        if of.topics.len() > room {
            if kept > 0 {
                break;
            }
            of.topics_left_out = (of.topics.len() - room) as u32;
            of.topics = std::mem::take(&mut of.topics).into_iter().take(room).collect();
        }
        room -= of.topics.len();
        kept += 1;
    }
    let has_more = kept < known.len();
    known.truncate(kept);
    has_more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_before_the_group_that_does_not_fit() {
        let group = |number: usize, topics: usize| {
            let name: GroupName = format!("g{number}").parse().expect("a name");
            let topics = (0..topics as u32).map(TopicId).collect();
            (name, Known { topics, ..Known::default() })
        };
        let max = limits::STATS_GROUP_TOPICS_MAX;
        let mut known = vec![group(0, max - 1), group(1, 1), group(2, 1)];
        assert!(keep_what_fits(&mut known));
        assert_eq!(known.len(), 2);
        let mut known = vec![group(0, max + 3), group(1, 1)];
        assert!(keep_what_fits(&mut known), "the next page has the other one");
        assert_eq!((known.len(), known[0].1.topics.len(), known[0].1.topics_left_out), (1, max, 3));
        let mut known = vec![group(0, 3), group(1, 0)];
        assert!(!keep_what_fits(&mut known));
        assert_eq!(known.len(), 2);
    }
}
