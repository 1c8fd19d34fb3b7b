//! The tables that the log's state batches build: topics, committed offsets, groups' settings, instances.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::policy::{Group, TopicPolicy};
use super::record::Change;
use crate::api::{GroupSettings, TopicInfo};
use crate::types::RunningTime;
use crate::types::{
    GroupName, InstanceName, Level, LogPosition, QueueKey, QueueOffset, Retention, TopicId, TopicName,
};

/// A topic's configuration, the same on every shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: TopicName,
    pub id: TopicId,
    /// Queues over the whole node.
    pub queue_count: u32,
    pub retention: Retention,
    pub level: Option<Level>,
    pub policy: TopicPolicy,
}

/// Where a group goes on in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: QueueOffset,
    /// Log position of the batch that committed it: the higher one wins.
    pub origin: LogPosition,
    /// A member of the group has committed it, of a queue that it owned.
    pub by_member: bool,
}

impl CommittedOffset {
    /// Whether it says this already.
    pub fn is(&self, offset: QueueOffset, by_member: bool) -> bool {
        (self.offset, self.by_member) == (offset, by_member)
    }
}

/// Topics by name and id, offsets by group.
///
/// 1. `names` and `topics` hold the same topics.
/// 2. Every committed offset is of a queue of a topic in `topics`.
/// 3. `offset_count` counts the offsets; no group is there without one.
/// 4. `next_topic_id` is higher than that of any topic, so that no id is given twice.
/// 5. `running` is no earlier than any running time that was written down.
/// 6. `group_topic_count` counts the topics that are groups'.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    topics: BTreeMap<TopicId, Topic>,
    group_topic_count: usize,
    names: BTreeMap<TopicName, TopicId>,
    offsets: BTreeMap<GroupName, HashMap<QueueKey, CommittedOffset>>,
    offset_count: usize,
    groups: BTreeMap<GroupName, Group>,
    instances: BTreeSet<InstanceName>,
    next_topic_id: u32,
    /// The newest running time that was written down.
    running: RunningTime,
    /// By when everything below a position was stored, where the wall clock does not tell.
    stored_by: BTreeMap<LogPosition, RunningTime>,
    /// When groups were last used; on the control shard.
    used: BTreeMap<GroupName, RunningTime>,
}

impl Topic {
    /// As clients see it, without its queues' bounds.
    pub fn info(&self) -> TopicInfo {
        TopicInfo {
            topic: self.name.clone(),
            id: self.id,
            queue_count: self.queue_count,
            retention: self.retention,
            level: self.level,
            permission: self.policy.permission.0,
            consumers: None,
            queues: Vec::new(),
        }
    }
}

impl Tables {
    /// A queue by the name of its topic, for a sentence that a person reads.
    pub fn queue_text(&self, key: QueueKey) -> String {
        match self.topic(key.topic) {
            Some(topic) => format!("queue {} of topic {}", key.queue, topic.name),
            None => key.to_string(),
        }
    }

    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    pub fn topic_named(&self, name: &TopicName) -> Option<&Topic> {
        self.names.get(name).and_then(|id| self.topics.get(id))
    }

    /// In the order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.names.values().map(|id| &self.topics[id])
    }

    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Those of them that are for groups' retries and dead letters.
    pub fn group_topic_count(&self) -> usize {
        self.group_topic_count
    }

    /// The topics of one instance.
    pub fn topics_of<'a>(&'a self, instance: &InstanceName) -> impl Iterator<Item = &'a Topic> + use<'a> {
        let of_prefix = |prefix: TopicName| {
            let from = self.names.range(prefix.clone()..);
            from.take_while(move |(name, _)| name.as_str().starts_with(prefix.as_str()))
        };
        instance.topic_prefixes().into_iter().flat_map(of_prefix).map(|(_, id)| &self.topics[id])
    }

    /// Those that were made by command.
    pub fn instances(&self) -> &BTreeSet<InstanceName> {
        &self.instances
    }

    /// Whether an instance was made, or has topics.
    pub fn has_instance(&self, instance: &InstanceName) -> bool {
        self.instances.contains(instance) || self.topics_of(instance).next().is_some()
    }

    /// The id for the next topic: higher than that of any topic that ever was.
    pub fn next_topic_id(&self) -> TopicId {
        TopicId(self.next_topic_id.max(1))
    }

    pub fn committed(&self, group: &GroupName, key: QueueKey) -> Option<QueueOffset> {
        self.commit(group, key).map(|committed| committed.offset)
    }

    pub fn commit(&self, group: &GroupName, key: QueueKey) -> Option<CommittedOffset> {
        self.offsets.get(group)?.get(&key).copied()
    }

    /// What was committed last of all queues of a group.
    pub fn newest_commit(&self, group: &GroupName) -> Option<(QueueKey, CommittedOffset)> {
        let offsets = self.offsets.get(group)?.iter().map(|(key, committed)| (*key, *committed));
        offsets.max_by_key(|(_, committed)| (committed.origin, committed.by_member))
    }

    /// The groups whose newest commit is a member's.
    pub fn groups_of_members(&self) -> BTreeSet<GroupName> {
        let is_members = |group: &&GroupName| self.newest_commit(group).is_some_and(|(_, of)| of.by_member);
        self.offsets.keys().filter(is_members).cloned().collect()
    }

    pub fn offsets_of(&self, group: &GroupName) -> Vec<(QueueKey, QueueOffset)> {
        let Some(offsets) = self.offsets.get(group) else { return Vec::new() };
        let mut sorted: Vec<_> = offsets.iter().map(|(key, committed)| (*key, committed.offset)).collect();
        sorted.sort();
        sorted
    }

    /// Whether the group has committed anything.
    pub fn has_offsets(&self, group: &GroupName) -> bool {
        self.offsets.contains_key(group)
    }

    /// Whether the group has committed anything in a topic.
    pub fn has_offsets_in(&self, group: &GroupName, topic: TopicId) -> bool {
        self.offsets.get(group).is_some_and(|offsets| offsets.keys().any(|key| key.topic == topic))
    }

    pub fn groups(&self) -> impl Iterator<Item = &GroupName> {
        self.offsets.keys()
    }

    pub fn group_count(&self) -> usize {
        self.offsets.len()
    }

    pub fn group_settings(&self, group: &GroupName) -> Option<&GroupSettings> {
        self.groups.get(group).map(|group| &group.settings)
    }

    /// How a group is treated, if anybody has said so.
    pub fn group(&self, group: &GroupName) -> Option<&Group> {
        self.groups.get(group)
    }

    /// Those that have settings.
    pub fn all_groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    pub fn running(&self) -> RunningTime {
        self.running
    }

    /// By when everything below `end` was stored, where that was written down.
    pub fn stored_by(&self, end: LogPosition) -> Option<RunningTime> {
        self.stored_by.range(end..).next().map(|(_, time)| *time)
    }

    /// Up to where everything was stored by `time`.
    pub fn stored_until(&self, time: RunningTime) -> Option<LogPosition> {
        self.stored_by.iter().rev().find(|(_, stored)| **stored <= time).map(|(position, _)| *position)
    }

    /// The newest position of which it was written down.
    pub fn stored_by_end(&self) -> Option<LogPosition> {
        self.stored_by.last_key_value().map(|(position, _)| *position)
    }

    /// Forgets what was written down of positions that the log no longer has.
    pub(super) fn forget_stored_below(&mut self, start: LogPosition) {
        self.stored_by = self.stored_by.split_off(&start);
    }

    /// When a group was last used, as far as that was written down.
    pub fn used(&self, group: &GroupName) -> Option<RunningTime> {
        self.used.get(group).copied()
    }

    pub fn used_groups(&self) -> impl Iterator<Item = &GroupName> {
        self.used.keys()
    }

    pub fn offset_count(&self) -> usize {
        self.offset_count
    }

    /// Makes a topic or changes it. Returns the topic that had its name before: a removal that was lost to damage.
    pub(super) fn put_topic(&mut self, topic: Topic) -> Option<TopicId> {
        self.raise_next_topic_id(TopicId(topic.id.0 + 1));
        let replaced = self.names.insert(topic.name.clone(), topic.id).filter(|id| *id != topic.id);
        let (id, name) = (topic.id, topic.name.clone());
        self.group_topic_count += usize::from(name.is_of_group());
        if let Some(before) = self.topics.insert(id, topic) {
            self.group_topic_count -= usize::from(before.name.is_of_group());
            if before.name != name {
                self.names.remove(&before.name);
            }
        }
        if let Some(replaced) = replaced {
            self.remove_topic(replaced);
        }
        assert!(self.names.len() == self.topics.len(), "invariant 1: topic {id} has no name of its own");
        replaced
    }

    /// Removes all topics but these, and says how many.
    pub(super) fn keep_topics(&mut self, live: &BTreeSet<TopicId>) -> usize {
        let gone: Vec<_> = self.topics.keys().filter(|id| !live.contains(id)).copied().collect();
        gone.iter().for_each(|id| self.remove_topic(*id));
        gone.len()
    }

    pub(super) fn raise_next_topic_id(&mut self, id: TopicId) {
        self.next_topic_id = self.next_topic_id.max(id.0);
    }

    pub(super) fn put_group(&mut self, group: Group) {
        self.groups.insert(group.settings.group.clone(), group);
    }

    pub(super) fn set_instances(&mut self, instances: BTreeSet<InstanceName>) {
        self.instances = instances;
    }

    pub(super) fn note_running(&mut self, time: RunningTime) {
        self.running = self.running.max(time);
    }

    pub(super) fn set_stored_by(&mut self, position: LogPosition, time: RunningTime) {
        self.note_running(time);
        self.stored_by.insert(position, time);
    }

    pub(super) fn set_used(&mut self, group: GroupName, time: RunningTime) {
        self.note_running(time);
        self.used.insert(group, time);
    }

    pub(super) fn remove_topic(&mut self, id: TopicId) {
        let Some(topic) = self.topics.remove(&id) else { return };
        self.group_topic_count -= usize::from(topic.name.is_of_group());
        // Another topic may have got the name.
        if self.names.get(&topic.name) == Some(&id) {
            self.names.remove(&topic.name);
        }
        self.offsets.values_mut().for_each(|offsets| offsets.retain(|key, _| key.topic != id));
        self.offsets.retain(|_, offsets| !offsets.is_empty());
        self.offset_count = self.offsets.values().map(HashMap::len).sum();
    }

    pub(super) fn remove_group(&mut self, group: &GroupName, settings: bool) {
        let offsets = self.offsets.remove(group);
        self.offset_count -= offsets.map_or(0, |offsets| offsets.len());
        self.used.remove(group);
        if settings {
            self.groups.remove(group);
        }
    }

    pub(super) fn set_offset(&mut self, group: GroupName, key: QueueKey, committed: CommittedOffset) {
        // The topic was deleted while the commit was on its way to the disk.
        if !self.topics.contains_key(&key.topic) {
            return;
        }
        let offsets = self.offsets.entry(group).or_default();
        match offsets.get_mut(&key) {
            Some(present) if present.origin > committed.origin => {}
            Some(present) => *present = committed,
            None => {
                offsets.insert(key, committed);
                self.offset_count += 1;
            }
        }
    }

    /// Asserts the invariants of these tables.
    pub fn check(&self) {
        assert!(self.names.len() == self.topics.len(), "invariant 1");
        for (name, id) in &self.names {
            let topic = self.topics.get(id);
            assert!(topic.is_some_and(|topic| topic.name == *name), "invariant 1: {name} is not topic {id}");
        }
        for (group, offsets) in &self.offsets {
            assert!(!offsets.is_empty(), "invariant 3: {group} has no offset");
            for key in offsets.keys() {
                assert!(self.topics.contains_key(&key.topic), "invariant 2: {group} has an offset of {key}");
            }
        }
        let counted: usize = self.offsets.values().map(HashMap::len).sum();
        assert!(self.offset_count == counted, "invariant 3: {} of {counted}", self.offset_count);
        let last = self.topics.last_key_value().map(|(id, _)| id.0);
        assert!(last.is_none_or(|last| last < self.next_topic_id), "invariant 4: topic {last:?}");
        let mut times = self.stored_by.values().chain(self.used.values());
        assert!(times.all(|time| *time <= self.running), "invariant 5");
        let of_groups = self.names.keys().filter(|name| name.is_of_group()).count();
        assert!(
            self.group_topic_count == of_groups,
            "invariant 6: {} of {of_groups}",
            self.group_topic_count
        );
    }

    /// Everything, as changes that build these tables from nothing, when the shard has run for `running`.
    pub fn as_changes(&self, running: RunningTime) -> impl Iterator<Item = Change> + '_ {
        let topics = self.topics.values().cloned().map(Change::Topic);
        let offsets = self.offsets.iter().flat_map(|(group, offsets)| {
            offsets.iter().map(|(key, committed)| Change::Offset {
                group: group.clone(),
                key: *key,
                offset: committed.offset,
                origin: Some(committed.origin),
                by_member: committed.by_member,
            })
        });
        let groups = self.groups.values().cloned().map(Change::Group);
        let heads = [Change::NextTopicId(self.next_topic_id()), self.live_topics()];
        // Said only where there are any: who uses none keeps files that the releases before them can read.
        let instances =
            (!self.instances.is_empty()).then(|| Change::Instances(self.instances.clone())).into_iter();
        let stored_by = self.stored_by.iter();
        let stored_by =
            stored_by.map(|(&position, &time)| Change::StoredBy { position, time }).collect::<Vec<_>>();
        let used = self.used.iter().map(|(group, &time)| Change::GroupUsed { group: group.clone(), time });
        let is_told = !self.stored_by.is_empty() || !self.used.is_empty();
        let running = is_told.then_some(Change::RunningTime(running.max(self.running))).into_iter();
        let heads = heads.into_iter().chain(running).chain(stored_by).chain(used);
        heads.chain(instances).chain(topics).chain(groups).chain(offsets)
    }

    /// Which topics there are.
    pub fn live_topics(&self) -> Change {
        Change::LiveTopics(self.topics.keys().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::state::{Effect, GroupPolicy, Stage, State};
    use crate::types::QueueNumber;

    /// A state that carries out what is read from a log.
    struct Read(State);

    impl Read {
        fn new() -> Self {
            Self(State::new(15))
        }

        fn apply(&mut self, change: Change, position: u64) {
            let _: Effect = self.0.apply(change, LogPosition(position), Stage::Replayed);
        }
    }

    impl std::ops::Deref for Read {
        type Target = Tables;

        fn deref(&self) -> &Tables {
            self.0.tables()
        }
    }

    fn topic(id: u32, name: &str) -> Change {
        Change::Topic(Topic {
            name: name.parse().expect("a name"),
            id: TopicId(id),
            queue_count: 2,
            retention: Retention::Inherited,
            level: None,
            policy: TopicPolicy::default(),
        })
    }

    fn offset(topic: u32, offset: u64, origin: Option<u64>) -> Change {
        Change::Offset {
            group: "g".parse().expect("a name"),
            key: QueueKey { topic: TopicId(topic), queue: QueueNumber(0) },
            offset: QueueOffset(offset),
            origin: origin.map(LogPosition),
            by_member: false,
        }
    }

    #[test]
    fn a_checkpoint_after_a_newer_commit_does_not_undo_it() {
        let mut tables = Read::new();
        tables.apply(topic(1, "t"), 4096);
        tables.apply(offset(1, 10, None), 8192);
        tables.apply(offset(1, 5, Some(5000)), 9000);
        let group = "g".parse().expect("a name");
        let key = QueueKey { topic: TopicId(1), queue: QueueNumber(0) };
        assert_eq!(tables.committed(&group, key), Some(QueueOffset(10)));
        // A reset is a newer commit of a lower offset.
        tables.apply(offset(1, 3, None), 9100);
        assert_eq!(tables.committed(&group, key), Some(QueueOffset(3)));
    }

    #[test]
    fn a_deleted_topic_takes_its_offsets_and_its_id_along() {
        let mut tables = Read::new();
        tables.apply(topic(1, "t"), 1);
        tables.apply(offset(1, 10, None), 2);
        tables.apply(Change::TopicRemoved(TopicId(1)), 3);
        tables.apply(offset(1, 11, None), 4);
        assert_eq!((tables.topic_count(), tables.offset_count(), tables.group_count()), (0, 0, 0));
        assert_eq!(tables.next_topic_id(), TopicId(2));
    }

    #[test]
    fn a_list_of_the_live_topics_makes_good_for_a_lost_removal() {
        let mut tables = Read::new();
        tables.apply(topic(1, "t"), 1);
        tables.apply(topic(2, "u"), 2);
        tables.apply(offset(1, 10, None), 3);
        tables.apply(Change::LiveTopics(BTreeSet::from([TopicId(2)])), 4);
        assert_eq!((tables.topic_count(), tables.offset_count()), (1, 0));
        assert!(tables.topic(TopicId(2)).is_some());
        assert_eq!(tables.next_topic_id(), TopicId(3));
    }

    #[test]
    fn what_was_stored_by_when_is_known_up_to_the_next_position_of_which_it_was_written_down() {
        let mut tables = Read::new();
        for (position, time) in [(100, 10), (200, 20)] {
            let (position, time) = (LogPosition(position), RunningTime(time));
            tables.apply(Change::StoredBy { position, time }, 300);
        }
        let by = |end| tables.stored_by(LogPosition(end)).map(|time| time.0);
        assert_eq!([by(50), by(100), by(101), by(201)], [Some(10), Some(10), Some(20), None]);
        let until = |time| tables.stored_until(RunningTime(time)).map(|position| position.0);
        assert_eq!([until(9), until(10), until(19), until(50)], [None, Some(100), Some(100), Some(200)]);
        tables.0.forget_stored_below(LogPosition(101));
        assert_eq!(tables.stored_by(LogPosition(1)), Some(RunningTime(20)));
    }

    #[test]
    fn a_removed_group_leaves_its_settings_only_when_told_to() {
        let mut tables = Read::new();
        tables.apply(topic(1, "t"), 1);
        let group: GroupName = "g".parse().expect("a name");
        let (deliveries_max, lease, ordered_lease) = (Some(3), None, None);
        let settings = GroupSettings { group: group.clone(), deliveries_max, lease, ordered_lease };
        let policy = GroupPolicy::default();
        tables.apply(Change::Group(Group { settings, policy }), 2);
        for settings in [false, true] {
            tables.apply(offset(1, 10, None), 3);
            tables.apply(Change::GroupUsed { group: group.clone(), time: RunningTime(1) }, 4);
            tables.apply(Change::GroupRemoved { group: group.clone(), settings }, 5);
            assert_eq!((tables.offset_count(), tables.group_count(), tables.used(&group)), (0, 0, None));
            assert_eq!(tables.group_settings(&group).is_none(), settings);
        }
    }

    #[test]
    fn tables_are_built_again_from_their_changes() {
        let mut tables = Read::new();
        for (change, position) in [(topic(1, "a"), 1), (topic(5, "b"), 2), (offset(5, 7, None), 3)] {
            tables.apply(change, position);
        }
        let instances = |names: &[&str]| {
            Change::Instances(names.iter().map(|name| name.parse().expect("a name")).collect())
        };
        tables.apply(instances(&["i", "gone"]), 4);
        tables.apply(instances(&["i", "j"]), 5);
        assert_eq!(tables.instances().len(), 2, "the newest set counts");
        tables.apply(Change::RunningTime(RunningTime(70)), 6);
        let time = RunningTime(60);
        tables.apply(Change::StoredBy { position: LogPosition(3), time }, 6);
        tables.apply(Change::GroupUsed { group: "g".parse().expect("a name"), time }, 7);
        let mut again = Read::new();
        for change in tables.as_changes(RunningTime(71)) {
            again.apply(change, 100);
        }
        assert_eq!(again.running(), RunningTime(71));
        tables.apply(Change::RunningTime(RunningTime(71)), 8);
        assert_eq!(*again, *tables);
    }
}
