//! Who receives: for each group and topic, when it was last done through this shard, and with which filters. The control
//! shard hears of it while the group has members that read queues of their own (`groups`); `describe` shows it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::api::{ClientProtocol, Filter, Receive};
use crate::broker::client_requests::CONTROL_SHARD;
use crate::broker::peers::PeerRequest;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::limits;
use crate::types::{GroupName, MonotonicTime, TopicId};

/// While a group has members, the control shard hears of its receivers at this interval.
pub(in crate::broker) const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// With too many to remember, those whose session is over are looked for at this interval.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);

/// The receivers of all groups, as this shard has seen them.
#[derive(Debug, Default)]
pub(in crate::broker) struct Receivers {
    groups: HashMap<GroupName, BTreeMap<TopicId, TopicReceivers>>,
    /// Of all filters, with what goes with them.
    bytes: usize,
    /// When those whose session is over were last forgotten.
    forgot_at: Option<MonotonicTime>,
}

#[derive(Debug, Default)]
struct TopicReceivers {
    filters: Vec<SeenFilter>,
    told_at: Option<MonotonicTime>,
}

/// Receivers of one topic that ask for the same over the same protocol.
#[derive(Clone, Debug)]
struct SeenFilter {
    protocol: ClientProtocol,
    filter: Filter,
    ordered: bool,
    /// Receives under way.
    active: u32,
    last_seen: MonotonicTime,
}

/// What one shard knows of a group's receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenReceivers {
    pub topic: TopicId,
    pub protocol: ClientProtocol,
    pub filter: Filter,
    pub ordered: bool,
    pub active: u32,
    /// Now, while receives are under way.
    pub last_seen: MonotonicTime,
}

impl SeenFilter {
    fn is_of(&self, receive: &Receive) -> bool {
        self.ordered == receive.ordered && self.protocol == receive.protocol && self.filter == receive.filter
    }

    fn seen(&self, now: MonotonicTime) -> MonotonicTime {
        if self.active > 0 { now } else { self.last_seen }
    }

    fn is_live(&self, now: MonotonicTime) -> bool {
        now.since(self.seen(now)) <= Duration::from_millis(limits::RECEIVERS_SESSION_MS)
    }

    fn bytes(&self) -> usize {
        filter_bytes(&self.filter)
    }
}

/// What one filter costs: its tags or its expression, and itself with a group and a topic that have no other.
fn filter_bytes(filter: &Filter) -> usize {
    const OTHERWISE: usize = 512;
    OTHERWISE + filter.memory_bytes()
}

impl TopicReceivers {
    fn is_live(&self, now: MonotonicTime) -> bool {
        self.filters.iter().any(|seen| seen.is_live(now))
    }

    /// Those whose session runs.
    fn shown(&self, topic: TopicId, now: MonotonicTime) -> impl Iterator<Item = SeenReceivers> {
        self.filters.iter().filter(move |seen| seen.is_live(now)).map(move |seen| SeenReceivers {
            topic,
            protocol: seen.protocol,
            filter: seen.filter.clone(),
            ordered: seen.ordered,
            active: seen.active,
            last_seen: seen.seen(now),
        })
    }

    /// Takes note of a receive.
    fn begin(&mut self, receive: &Receive, now: MonotonicTime) -> Noted {
        if let Some(seen) = self.filters.iter_mut().find(|seen| seen.is_of(receive)) {
            seen.active += 1;
            seen.last_seen = now;
            return Noted::default();
        }
        let mut let_go = 0;
        if self.filters.len() >= limits::RECEIVER_FILTERS_MAX {
            // The one that was not seen for longest makes room, unless all are under way: then this one is not shown.
            let idle = (0..self.filters.len()).filter(|at| self.filters[*at].active == 0);
            let Some(oldest) = idle.min_by_key(|at| self.filters[*at].last_seen) else {
                return Noted::default();
            };
            let_go = self.filters.swap_remove(oldest).bytes();
        }
        self.filters.push(SeenFilter {
            protocol: receive.protocol,
            filter: receive.filter.clone(),
            ordered: receive.ordered,
            active: 1,
            last_seen: now,
        });
        Noted { taken: filter_bytes(&receive.filter), let_go }
    }
}

/// Bytes of filters that a receive has added, and those that made room for them.
#[derive(Default)]
struct Noted {
    taken: usize,
    let_go: usize,
}

impl Receivers {
    fn begin(&mut self, receive: &Receive, topic: TopicId, now: MonotonicTime) {
        if !self.has_room_for(receive, topic)
            && self.forgot_at.is_none_or(|at| now.since(at) >= FORGET_INTERVAL)
        {
            self.forget(now);
        }
        // With more at once, the rest is served but not shown, and gets no share beside members.
        if !self.has_room_for(receive, topic) {
            return;
        }
        let topics = match self.groups.get_mut(&receive.group) {
            Some(topics) => topics,
            None => self.groups.entry(receive.group.clone()).or_default(),
        };
        let noted = topics.entry(topic).or_default().begin(receive, now);
        self.bytes = self.bytes + noted.taken - noted.let_go;
    }

    fn has_room_for(&self, receive: &Receive, topic: TopicId) -> bool {
        let topics = self.groups.get(&receive.group);
        let known = topics.and_then(|topics| topics.get(&topic));
        if known.is_some_and(|known| known.filters.iter().any(|seen| seen.is_of(receive))) {
            return true;
        }
        let has_group = topics.is_some() || self.groups.len() < limits::GROUPS_MAX;
        has_group && self.bytes + filter_bytes(&receive.filter) <= limits::SHARD_RECEIVERS_BYTES_MAX
    }

    fn end(&mut self, receive: &Receive, topic: TopicId, now: MonotonicTime) {
        let topics = self.groups.get_mut(&receive.group);
        let Some(receivers) = topics.and_then(|topics| topics.get_mut(&topic)) else { return };
        if let Some(seen) = receivers.filters.iter_mut().find(|seen| seen.is_of(receive)) {
            seen.active = seen.active.saturating_sub(1);
            seen.last_seen = now;
        }
    }

    fn forget(&mut self, now: MonotonicTime) {
        self.forgot_at = Some(now);
        for topics in self.groups.values_mut() {
            topics.values_mut().for_each(|receivers| receivers.filters.retain(|seen| seen.is_live(now)));
            topics.retain(|_, receivers| !receivers.filters.is_empty());
        }
        self.groups.retain(|_, topics| !topics.is_empty());
        let filters = self.groups.values().flat_map(BTreeMap::values).flat_map(|of| &of.filters);
        self.bytes = filters.map(SeenFilter::bytes).sum();
    }

    /// The bytes of all that is remembered.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The groups for which somebody has received since `interval` ago.
    pub fn seen_within(&self, interval: Duration, now: MonotonicTime) -> impl Iterator<Item = &GroupName> {
        let is_seen = move |topics: &BTreeMap<_, TopicReceivers>| {
            let mut filters = topics.values().flat_map(|of| &of.filters);
            filters.any(|seen| now.since(seen.seen(now)) <= interval)
        };
        self.groups.iter().filter(move |(_, topics)| is_seen(topics)).map(|(group, _)| group)
    }

    /// Those of a group whose session runs.
    pub fn of_group(&self, group: &GroupName, now: MonotonicTime) -> Vec<SeenReceivers> {
        let topics = self.groups.get(group).into_iter().flatten();
        topics.flat_map(|(topic, receivers)| receivers.shown(*topic, now)).collect()
    }

    /// Those of a topic, by their groups.
    pub fn of_topic(
        &self,
        topic: TopicId,
        now: MonotonicTime,
    ) -> impl Iterator<Item = (&GroupName, Vec<SeenReceivers>)> {
        let shown = move |topics: &BTreeMap<TopicId, TopicReceivers>| -> Vec<_> {
            topics.get(&topic).into_iter().flat_map(|receivers| receivers.shown(topic, now)).collect()
        };
        let groups = self.groups.iter().map(move |(group, topics)| (group, shown(topics)));
        groups.filter(|(_, seen)| !seen.is_empty())
    }

    /// The groups that have any such.
    pub fn groups(&self, now: MonotonicTime) -> impl Iterator<Item = &GroupName> {
        let is_live = move |topics: &BTreeMap<_, TopicReceivers>| topics.values().any(|of| of.is_live(now));
        self.groups.iter().filter(move |(_, topics)| is_live(topics)).map(|(group, _)| group)
    }

    /// Whether the control shard is to be told now of a group's receivers in a topic.
    fn telling_is_due(&mut self, group: &GroupName, topic: TopicId, now: MonotonicTime) -> bool {
        let topics = self.groups.get_mut(group);
        let Some(receivers) = topics.and_then(|topics| topics.get_mut(&topic)) else { return false };
        let is_due = receivers.told_at.is_none_or(|told| now.since(told) >= TELL_INTERVAL);
        if is_due {
            receivers.told_at = Some(now);
        }
        is_due
    }
}

impl<D: Disk> Broker<D> {
    /// A receive is under way, until [`note_receive_ended`](Broker::note_receive_ended).
    pub(in crate::broker) fn note_receive_begun(&self, receive: &Receive, topic: TopicId) {
        self.receivers.borrow_mut().begin(receive, topic, self.clock.monotonic());
    }

    pub(in crate::broker) fn note_receive_ended(&self, receive: &Receive, topic: TopicId) {
        self.receivers.borrow_mut().end(receive, topic, self.clock.monotonic());
    }

    /// Tells the control shard of the group's receivers, when it wants to know and has not heard of them of late.
    pub(in crate::broker) async fn tell_of_receivers(&self, group: &GroupName, topic: TopicId) {
        if self.telling_is_due(group, topic) {
            self.tell(group.clone(), topic).await;
        }
    }

    /// Whether the control shard is to be told now: whoever is told so does it.
    pub(in crate::broker) fn telling_is_due(&self, group: &GroupName, topic: TopicId) -> bool {
        let now = self.clock.monotonic();
        self.gates.borrow().have_members(group, topic)
            && self.receivers.borrow_mut().telling_is_due(group, topic, now)
    }

    pub(in crate::broker) async fn tell(&self, group: GroupName, topic: TopicId) {
        let Ok(peers) = self.peers() else { return };
        // When it can not be reached, the next one tells it.
        let _ = peers.ask(CONTROL_SHARD, PeerRequest::ReceiversSeen { group, topic }).await;
    }

    /// Tells of the receivers at intervals, for as long as it is polled.
    pub(in crate::broker) async fn keep_telling_of_receivers(&self, group: &GroupName, topic: TopicId) {
        loop {
            self.clock.sleep(TELL_INTERVAL).await;
            self.tell_of_receivers(group, topic).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(tags: &str) -> Receive {
        Receive {
            group: "g".parse().expect("a name"),
            topic: "t".parse().expect("a name"),
            scope: Default::default(),
            filter: Filter::parse(Some(tags)),
            count: 1,
            bytes_max: 1,
            wait: Duration::ZERO,
            lease: None,
            ordered: false,
            protocol: ClientProtocol::Http,
        }
    }

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime(seconds * 1_000_000_000)
    }

    #[test]
    fn receivers_live_while_they_wait_and_a_session_longer() {
        let mut receivers = Receivers::default();
        let group = "g".parse().expect("a name");
        receivers.begin(&receive("a"), TopicId(1), at(0));
        receivers.begin(&receive("a"), TopicId(1), at(1));
        receivers.end(&receive("a"), TopicId(1), at(2));
        let seen = receivers.of_group(&group, at(1000));
        assert_eq!((seen.len(), seen[0].active, seen[0].last_seen), (1, 1, at(1000)), "one waits still");
        receivers.end(&receive("a"), TopicId(1), at(1000));
        receivers.begin(&receive("b"), TopicId(1), at(1010));
        receivers.end(&receive("b"), TopicId(1), at(1010));
        assert_eq!(receivers.of_group(&group, at(1020)).len(), 2);
        let seen = receivers.of_group(&group, at(1035));
        assert_eq!((seen.len(), &seen[0].filter), (1, &Filter::parse(Some("b"))));
        assert_eq!(receivers.groups(at(1035)).collect::<Vec<_>>(), [&group]);
        assert_eq!(receivers.groups(at(1041)).count(), 0, "their session is over");
        receivers.forget(at(1100));
        assert!(receivers.groups.is_empty());
        assert_eq!(receivers.bytes(), 0);
    }

    #[test]
    fn what_is_remembered_of_filters_is_bounded_in_bytes() {
        let mut receivers = Receivers::default();
        let tag = "t".repeat(60_000);
        for number in 0..200u64 {
            let group = format!("g{}", number / 8).parse().expect("a name");
            let receive = Receive { group, ..receive(&format!("{number}{tag}")) };
            receivers.begin(&receive, TopicId(1), at(number / 100));
            receivers.end(&receive, TopicId(1), at(number / 100));
        }
        assert!(receivers.bytes() <= limits::SHARD_RECEIVERS_BYTES_MAX);
        assert!((2..12).contains(&receivers.groups.len()), "{}", receivers.groups.len());
        receivers.begin(&receive(&format!("late{tag}")), TopicId(1), at(100));
        assert_eq!(receivers.groups.len(), 1, "the others' session is over");
    }

    #[test]
    fn receivers_over_different_protocols_are_told_apart() {
        let mut receivers = Receivers::default();
        let native = Receive { protocol: ClientProtocol::Native, ..receive("a") };
        for receive in [&native, &receive("a"), &native] {
            receivers.begin(receive, TopicId(1), at(0));
        }
        let seen = receivers.of_group(&native.group, at(0));
        let seen: Vec<_> = seen.iter().map(|seen| (seen.protocol, seen.active)).collect();
        assert_eq!(seen, [(ClientProtocol::Native, 2), (ClientProtocol::Http, 1)]);
    }

    #[test]
    fn the_control_shard_is_told_at_intervals_and_filters_are_bounded() {
        let mut receivers = Receivers::default();
        let group = "g".parse().expect("a name");
        assert!(!receivers.telling_is_due(&group, TopicId(1), at(0)), "nobody receives");
        for tag in 0..2 * limits::RECEIVER_FILTERS_MAX {
            receivers.begin(&receive(&tag.to_string()), TopicId(1), at(tag as u64));
            receivers.end(&receive(&tag.to_string()), TopicId(1), at(tag as u64));
        }
        assert_eq!(receivers.of_group(&group, at(20)).len(), limits::RECEIVER_FILTERS_MAX);
        assert!(receivers.telling_is_due(&group, TopicId(1), at(20)));
        assert!(!receivers.telling_is_due(&group, TopicId(1), at(20)));
        assert!(receivers.telling_is_due(&group, TopicId(1), at(21)));
    }
}
