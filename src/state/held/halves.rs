//! Half messages that wait for a decision.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use super::change::{Half, NO_CHECKS};
use super::delays::after;
use crate::types::{GroupName, LogPosition, Timestamp, TopicId};

/// A half message is given up at this age, decided or not: RocketMQ's `fileReservedTime`, after which its half topic
/// has lost it (`broker/.../transaction/queue/TransactionalMessageServiceImpl.java`, `needSkip`).
pub const HALF_AGE_MAX: Duration = Duration::from_secs(72 * 3600);

/// Who is asked about a half message: `None` in place of the group is whoever asks. A group's topics lie side by side.
type Askers = (Option<GroupName>, TopicId);

/// The undecided halves of a shard.
///
/// 1. `table` is what durable changes make it; the rest is made from it, and runs ahead by what is placed.
/// 2. A half that is not in `ending` stands in `schedule` and in `expiry` once, under its `times`.
/// 3. `ending` has halves of `table` only.
/// 4. `counts` counts the halves of `table`; nobody is there with none.
#[derive(Debug, Default)]
pub struct Halves {
    table: BTreeMap<LogPosition, Half>,
    /// When each is handed out next.
    schedule: BTreeMap<Askers, BTreeSet<(Timestamp, LogPosition)>>,
    /// When each is given up.
    expiry: BTreeSet<(Timestamp, LogPosition)>,
    /// The times under which a half stands in the two.
    times: BTreeMap<LogPosition, Times>,
    /// Those whose end is placed, and not yet durable.
    ending: BTreeSet<LogPosition>,
    /// Placed, and not yet durable.
    unapplied: usize,
    /// How many of the table are each producer group's, decided or not.
    counts: BTreeMap<Askers, usize>,
    checks_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    check: Timestamp,
    expiry: Timestamp,
}

impl Halves {
    pub fn new(checks_max: u32) -> Self {
        Self { checks_max, ..Self::default() }
    }

    /// Those in the table and those on their way there.
    pub fn count(&self) -> usize {
        self.table.len() + self.unapplied
    }

    /// Those of a topic in the table about which this group is asked; `None`: whoever asks.
    pub fn count_of(&self, topic: TopicId, group: Option<&GroupName>) -> usize {
        self.counts.get(&(group.cloned(), topic)).copied().unwrap_or(0)
    }

    /// The latest moment that is known to have passed when something of the table was stored.
    pub fn newest_moment(&self, check_interval: Duration) -> Option<Timestamp> {
        let interval_ms = check_interval.as_millis() as u64;
        let moment = |half: &Half| match half.checks {
            0 | NO_CHECKS => half.store_time,
            _ => half.store_time.max(Timestamp(half.next_check.0.saturating_sub(interval_ms))),
        };
        self.table.values().map(moment).max()
    }

    /// A half message that nobody has decided on.
    pub fn open(&self, position: LogPosition) -> Option<&Half> {
        self.table.get(&position).filter(|_| !self.ending.contains(&position))
    }

    /// A half message was placed in the log, for the first time or again.
    pub(super) fn placed(&mut self) {
        self.unapplied += 1;
    }

    /// One of those is durable.
    pub(super) fn stored_one(&mut self) {
        assert!(self.unapplied > 0, "a half message is durable that nobody has placed");
        self.unapplied -= 1;
    }

    /// A half was handed out for the `checks`th time. Whether it is not again, so that it is given up earlier than for its age.
    pub(super) fn handed_out(
        &mut self,
        half: LogPosition,
        checks: u32,
        checked: Timestamp,
        next_check: Timestamp,
    ) -> bool {
        let Some(found) = self.table.get_mut(&half) else { return false };
        if checks > found.checks {
            found.checks = checks;
            found.next_check = next_check;
            if checks == 1 {
                found.first_check = checked;
            }
        }
        self.settle(half);
        !self.is_asked_about(&half)
    }

    /// A half was placed again at `current`.
    pub(super) fn move_to(&mut self, half: LogPosition, current: LogPosition) {
        if let Some(found) = self.table.get_mut(&half) {
            found.current = found.current.max(current);
        }
    }

    /// A checkpoint may repeat what was true a moment earlier: what has grown since stays.
    pub(super) fn store(&mut self, half: Half) {
        let position = half.position;
        match self.table.get_mut(&position) {
            Some(present) => {
                let current = present.current.max(half.current);
                if half.checks > present.checks {
                    *present = half;
                }
                present.current = current;
            }
            None => {
                *self.counts.entry(askers(&half)).or_default() += 1;
                self.table.insert(position, half);
            }
        }
        self.settle(position);
    }

    /// The end of a half is durable.
    pub(super) fn remove(&mut self, position: LogPosition) {
        self.unschedule(position);
        self.ending.remove(&position);
        let Some(half) = self.table.remove(&position) else { return };
        assert!(self.times.len() + self.ending.len() == self.table.len(), "invariant 2, or 3: at {position}");
        let askers = askers(&half);
        let count = self.counts.get_mut(&askers).expect("those in the table are counted");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&askers);
        }
    }

    /// The end of a half was placed: from here on it is decided.
    pub(super) fn end(&mut self, position: LogPosition) {
        self.unschedule(position);
        self.ending.insert(position);
    }

    fn unschedule(&mut self, position: LogPosition) {
        let (Some(times), Some(half)) = (self.times.remove(&position), self.table.get(&position)) else {
            return;
        };
        self.expiry.remove(&(times.expiry, position));
        let askers = askers(half);
        if let Some(scheduled) = self.schedule.get_mut(&askers) {
            scheduled.remove(&(times.check, position));
            if scheduled.is_empty() {
                self.schedule.remove(&askers);
            }
        }
    }

    /// Brings the schedules in line with the table. A hand-out that is placed has moved them already.
    fn settle(&mut self, position: LogPosition) {
        let Some(half) = self.table.get(&position) else { return };
        let check =
            half.next_check.max(self.times.get(&position).map_or(half.next_check, |times| times.check));
        self.schedule(position, check);
    }

    /// The half is handed out again at `check`.
    pub(in crate::state) fn schedule(&mut self, position: LogPosition, check: Timestamp) {
        if self.ending.contains(&position) {
            return;
        }
        self.unschedule(position);
        let Some(half) = self.table.get(&position) else { return };
        let aged = Timestamp(half.store_time.0.saturating_add(HALF_AGE_MAX.as_millis() as u64));
        let expiry = match half.checks {
            NO_CHECKS => check,
            checks if checks >= self.checks_max => check.min(aged),
            _ => aged,
        };
        self.times.insert(position, Times { check, expiry });
        self.expiry.insert((expiry, position));
        self.schedule.entry(askers(half)).or_default().insert((check, position));
    }

    /// Asserts the invariants.
    pub(super) fn check(&self) {
        let mut counts: BTreeMap<Askers, usize> = BTreeMap::new();
        for (position, half) in &self.table {
            *counts.entry(askers(half)).or_default() += 1;
            let times = self.times.get(position);
            assert!(times.is_none() == self.ending.contains(position), "invariant 2: the half at {position}");
            let Some(times) = times else { continue };
            let scheduled = self.schedule.get(&askers(half));
            let is_scheduled = scheduled.is_some_and(|set| set.contains(&(times.check, *position)));
            let expires = self.expiry.contains(&(times.expiry, *position));
            assert!(is_scheduled && expires, "invariant 2: the half at {position}");
        }
        let scheduled: usize = self.schedule.values().map(BTreeSet::len).sum();
        let open = self.table.len() - self.ending.len();
        assert!(scheduled == open && self.expiry.len() == open, "invariant 2: {scheduled} of {open}");
        let unknown = self.ending.iter().find(|position| !self.table.contains_key(position));
        assert!(unknown.is_none(), "invariant 3: the half at {unknown:?}");
        assert!(self.counts == counts, "invariant 4: {:?}, not {counts:?}", self.counts);
    }

    /// Up to `count` halves that a member of `group` is to be asked about now, the longest waiting first.
    pub fn due(&self, topic: TopicId, group: &GroupName, now: Timestamp, count: usize) -> Vec<Half> {
        let own = self.schedule.get(&(Some(group.clone()), topic));
        let anyones = self.schedule.get(&(None, topic));
        self.first_due(own.into_iter().chain(anyones), now, count)
    }

    /// The same of its own halves only, whatever their topics.
    pub fn due_of_group(&self, group: &GroupName, now: Timestamp, count: usize) -> Vec<Half> {
        self.first_due(self.schedules(group), now, count)
    }

    fn first_due<'a>(
        &self,
        schedules: impl Iterator<Item = &'a BTreeSet<(Timestamp, LogPosition)>>,
        now: Timestamp,
        count: usize,
    ) -> Vec<Half> {
        let mut found = Vec::new();
        for schedule in schedules {
            let due = schedule.iter().take_while(|(check, _)| *check <= now);
            found.extend(due.filter(|(_, position)| self.is_asked_about(position)).take(count).copied());
        }
        found.sort_unstable();
        found.truncate(count);
        found.into_iter().map(|(_, position)| self.table[&position].clone()).collect()
    }

    fn schedules(&self, group: &GroupName) -> impl Iterator<Item = &BTreeSet<(Timestamp, LogPosition)>> {
        let of = |topic| (Some(group.clone()), topic);
        self.schedule.range(of(TopicId(0))..=of(TopicId(u32::MAX))).map(|(_, schedule)| schedule)
    }

    /// Whether its checks are not used up.
    fn is_asked_about(&self, position: &LogPosition) -> bool {
        self.table[position].checks < self.checks_max
    }

    /// The group after `last` that some halves are of.
    pub fn next_group(&self, last: Option<&GroupName>) -> Option<GroupName> {
        let after = (last.cloned(), TopicId(u32::MAX));
        let next = self.schedule.range((Bound::Excluded(after), Bound::Unbounded)).next();
        next.and_then(|((group, _), _)| group.clone())
    }

    /// When the next half is due for `group`.
    pub fn next_check(&self, topic: TopicId, group: &GroupName) -> Option<Timestamp> {
        let askers = [(Some(group.clone()), topic), (None, topic)];
        let sets = askers.iter().filter_map(|askers| self.schedule.get(askers));
        self.first_check(sets)
    }

    /// The same of its own halves only, whatever their topics.
    pub fn next_check_of_group(&self, group: &GroupName) -> Option<Timestamp> {
        self.first_check(self.schedules(group))
    }

    fn first_check<'a>(
        &self,
        schedules: impl Iterator<Item = &'a BTreeSet<(Timestamp, LogPosition)>>,
    ) -> Option<Timestamp> {
        let first = |schedule: &'a BTreeSet<(Timestamp, LogPosition)>| {
            schedule.iter().find(|(_, position)| self.is_asked_about(position))
        };
        schedules.filter_map(first).map(|(check, _)| *check).min()
    }

    /// The half that is given up first, and when.
    pub fn next_expiry(&self) -> Option<(Timestamp, LogPosition)> {
        self.expiry.first().copied()
    }

    /// Halves after `last` that lie below `end` of the log and nobody has decided on.
    pub fn below(&self, last: Option<LogPosition>, end: LogPosition, count: usize) -> Vec<Half> {
        let halves = self.table.range((after(last), Bound::Unbounded)).map(|(_, half)| half);
        let below = halves.filter(|half| half.current < end && !self.ending.contains(&half.position));
        below.take(count).cloned().collect()
    }

    /// Halves after `last` for a checkpoint: those whose end is placed are not repeated after it.
    pub fn for_checkpoint(&self, last: Option<LogPosition>, count: usize) -> Vec<Half> {
        let halves = self.table.range((after(last), Bound::Unbounded)).map(|(_, half)| half);
        halves.filter(|half| !self.ending.contains(&half.position)).take(count).cloned().collect()
    }

    /// The durable ones, for a snapshot.
    pub fn stored(&self) -> impl Iterator<Item = &Half> {
        self.table.values()
    }
}

fn askers(half: &Half) -> Askers {
    (half.producer_group.clone(), half.key.topic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueKey, QueueNumber};

    const TOPIC: TopicId = TopicId(1);

    fn group(name: &str) -> GroupName {
        name.parse().expect("a name")
    }

    fn half(position: u64, check: u64, asker: Option<&str>) -> Half {
        Half {
            key: QueueKey { topic: TOPIC, queue: QueueNumber(0) },
            position: LogPosition(position),
            current: LogPosition(position),
            batch_bytes: 100,
            store_time: Timestamp(0),
            first_check: Timestamp(check),
            next_check: Timestamp(check),
            checks: 0,
            producer_group: asker.map(group),
        }
    }

    fn names(halves: &[Half]) -> Vec<u64> {
        halves.iter().map(|half| half.position.0).collect()
    }

    #[test]
    fn a_group_is_asked_about_its_own_halves_and_nobodys() {
        let mut halves = Halves::new(15);
        for half in [half(1, 10, Some("a")), half(2, 5, None), half(3, 7, Some("b")), half(4, 99, Some("a"))]
        {
            halves.store(half);
        }
        assert_eq!(names(&halves.due(TOPIC, &group("a"), Timestamp(10), 9)), [2, 1]);
        assert_eq!(names(&halves.due(TOPIC, &group("a"), Timestamp(10), 1)), [2]);
        assert_eq!(names(&halves.due(TOPIC, &group("b"), Timestamp(10), 9)), [2, 3]);
        assert_eq!(halves.next_check(TOPIC, &group("c")), Some(Timestamp(5)));
        assert!(halves.due(TopicId(2), &group("a"), Timestamp(99), 9).is_empty());
        halves.end(LogPosition(2));
        assert_eq!(halves.next_check(TOPIC, &group("c")), None);
        assert!(halves.open(LogPosition(2)).is_none());
        halves.remove(LogPosition(2));
        assert_eq!(halves.count(), 3);
    }

    #[test]
    fn a_group_is_found_with_its_halves_of_all_topics() {
        let mut halves = Halves::new(1);
        let other = QueueKey { topic: TopicId(u32::MAX), queue: QueueNumber(0) };
        for half in [
            half(1, 10, Some("b")),
            Half { key: other, ..half(2, 5, Some("b")) },
            half(3, 7, None),
            half(4, 20, Some("a")),
            half(5, 8, Some("c")),
        ] {
            halves.store(half);
        }
        let mut groups = Vec::new();
        while let Some(group) = halves.next_group(groups.last()) {
            groups.push(group);
        }
        assert_eq!(groups, [group("a"), group("b"), group("c")]);
        assert_eq!(names(&halves.due_of_group(&group("b"), Timestamp(10), 9)), [2, 1]);
        assert_eq!(names(&halves.due_of_group(&group("b"), Timestamp(10), 1)), [2]);
        assert_eq!(halves.next_check_of_group(&group("b")), Some(Timestamp(5)));
        assert_eq!(halves.next_check_of_group(&group("d")), None);
        halves.handed_out(LogPosition(2), 1, Timestamp(10), Timestamp(40));
        assert_eq!(halves.next_check_of_group(&group("b")), Some(Timestamp(10)), "the other's are used up");
        halves.end(LogPosition(5));
        assert_eq!(halves.next_group(Some(&group("b"))), None);
    }

    #[test]
    fn checks_are_counted_up_to_their_limit_and_a_checkpoint_takes_none_back() {
        let mut halves = Halves::new(2);
        let first = half(1, 10, None);
        halves.store(first.clone());
        let position = first.position;
        for (checks, at) in [(1, 10), (2, 40)] {
            halves.schedule(position, Timestamp(at + 30));
            assert!(halves.due(TOPIC, &group("a"), Timestamp(at), 9).is_empty(), "handed out just now");
            halves.handed_out(position, checks, Timestamp(at), Timestamp(at + 30));
            halves.store(first.clone());
        }
        let found = halves.open(position).expect("undecided");
        assert_eq!((found.checks, found.first_check, found.next_check), (2, Timestamp(10), Timestamp(70)));
        assert!(halves.due(TOPIC, &group("a"), Timestamp(1000), 9).is_empty(), "its checks are used up");
        assert_eq!(halves.next_expiry(), Some((Timestamp(70), position)));
    }
}
