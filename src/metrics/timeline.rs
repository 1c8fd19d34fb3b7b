//! When a request reached the places of its way, and what that makes of its time.

use std::collections::VecDeque;
use std::time::Duration;

use crate::api::{RequestStage, StageTimes};
use crate::types::{Level, LogPosition, MonotonicTime};

/// Commit groups whose times are kept: whoever waits for a group asks as soon as it is published.
const GROUPS_KEPT: usize = 64;

/// When a request reached the places of its way. Each time is not before the one above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Its first byte was seen.
    pub begun: MonotonicTime,
    /// All of it was there.
    pub complete: MonotonicTime,
    /// Its turn had come.
    pub taken: MonotonicTime,
    /// It was decoded and checked.
    pub parsed: MonotonicTime,
    /// What it stores stood in the log, or in the row of what is placed next. Valid with a `mark`.
    pub placed: MonotonicTime,
    /// What it has waited since its turn had come: for room.
    pub queued: Duration,
    /// And for messages, as its client wanted.
    pub waited: Duration,
    /// What it waits for in the log.
    pub mark: Option<LogMark>,
    /// Its client wants to know where its time went.
    pub is_asked: bool,
}

/// A place that the log must have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogMark {
    pub end: LogPosition,
    pub level: Level,
}

/// When commit groups went to the disk, the newest last.
#[derive(Default)]
pub(super) struct GroupTimes(VecDeque<Group>);

#[derive(Clone, Copy)]
struct Group {
    end: LogPosition,
    taken: MonotonicTime,
    written: MonotonicTime,
    /// `None`: its flush is not over.
    durable: Option<MonotonicTime>,
    /// Write and flush were one operation.
    is_synced: bool,
}

impl Timeline {
    /// Of a request that had come whole at `complete`, and whose turn came at `taken`.
    pub fn new(begun: MonotonicTime, complete: MonotonicTime, taken: MonotonicTime) -> Self {
        Self { begun: begun.min(complete), complete, taken, parsed: taken, ..Self::default() }
    }

    /// Of one that came at once, now.
    pub fn at(now: MonotonicTime) -> Self {
        Self::new(now, now, now)
    }

    /// It has waited for messages until `now`: everything since its turn had come.
    pub fn woken(&mut self, now: MonotonicTime) {
        self.waited = now.since(self.taken);
        self.queued = Duration::ZERO;
        self.mark = None;
    }

    /// The broker's part of the time until `now`.
    pub fn took(&self, now: MonotonicTime) -> Duration {
        now.since(self.complete).saturating_sub(self.waited)
    }
}

impl GroupTimes {
    pub fn written(
        &mut self,
        end: LogPosition,
        taken: MonotonicTime,
        written: MonotonicTime,
        is_synced: bool,
    ) {
        if self.0.len() == GROUPS_KEPT {
            self.0.pop_front();
        }
        let durable = is_synced.then_some(written);
        self.0.push_back(Group { end, taken, written, durable, is_synced });
    }

    /// Everything below `end` was flushed.
    pub fn flushed(&mut self, end: LogPosition, now: MonotonicTime) {
        let unflushed = self.0.iter_mut().rev().take_while(|group| group.durable.is_none());
        unflushed.filter(|group| group.end <= end).for_each(|group| group.durable = Some(now));
    }

    /// The group that ended at `end` or held it; `None`: it was too long ago, or has not been written.
    fn of(&self, end: LogPosition) -> Option<&Group> {
        let later = self.0.iter().rev().take_while(|group| group.end >= end).count();
        let at = self.0.len() - later;
        // Before the oldest one there may have been others.
        let is_known = at > 0 || self.0.len() < GROUPS_KEPT;
        self.0.get(at).filter(|_| is_known)
    }

    /// Where the time of a request went that was answered at `answered`, and whose answer the system had at `sent`.
    pub fn stages(&self, timeline: &Timeline, answered: MonotonicTime, sent: MonotonicTime) -> StageTimes {
        use RequestStage::{Append, Device, Flush, Parse, Queue, Receive, Reply, Wait, Work};
        let mut times = StageTimes::default();
        times.set(Receive, timeline.complete.since(timeline.begun));
        times.set(Queue, timeline.taken.since(timeline.complete) + timeline.queued);
        times.set(Wait, timeline.waited);
        let placed = timeline.mark.map_or(answered, |_| timeline.placed);
        // What it has waited is part of either: before something was parsed, or after that.
        let paused = timeline.queued + timeline.waited;
        let parse = timeline.parsed.since(timeline.taken);
        times.set(Parse, parse.saturating_sub(paused));
        let work = placed.since(timeline.parsed.max(timeline.taken));
        times.set(Work, work.saturating_sub(paused.saturating_sub(parse)));
        let Some(mark) = timeline.mark else {
            times.set(Reply, sent.since(answered));
            return times;
        };
        let reached = match (mark.level, self.of(mark.end)) {
            (Level::Accepted, _) => placed,
            (_, None) => {
                times.set(Work, times.get(Work) + answered.since(placed));
                answered
            }
            (level, Some(group)) => {
                let taken = group.taken.max(placed);
                times.set(Append, taken.since(placed));
                let durable = if level == Level::Durable { group.durable } else { None };
                let durable = durable.unwrap_or(group.written).max(taken);
                let written = group.written.max(taken);
                times.set(if group.is_synced { Flush } else { Device }, written.since(taken));
                times.set(Flush, times.get(Flush) + durable.since(written));
                durable
            }
        };
        times.set(Reply, sent.since(reached));
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(microseconds: u64) -> MonotonicTime {
        MonotonicTime(microseconds * 1_000)
    }

    /// The stages that took any time, in microseconds.
    fn of(groups: &GroupTimes, timeline: &Timeline, answered: u64, sent: u64) -> Vec<(&'static str, u128)> {
        let times = groups.stages(timeline, at(answered), at(sent));
        assert_eq!(
            times.brokers(),
            at(sent).since(timeline.complete) - timeline.waited,
            "nothing is missing"
        );
        let taken = times.iter().filter(|(_, time)| !time.is_zero());
        taken.map(|(stage, time)| (stage.name(), time.as_micros())).collect()
    }

    fn stored(level: Level, end: u64) -> Timeline {
        let mut timeline = Timeline::new(at(10), at(20), at(25));
        (timeline.parsed, timeline.placed) = (at(32), at(32));
        timeline.queued = Duration::from_micros(4);
        timeline.mark = Some(LogMark { end: LogPosition(end), level });
        timeline
    }

    #[test]
    fn a_stored_request_has_the_times_of_its_group() {
        let mut groups = GroupTimes::default();
        groups.written(LogPosition(100), at(1), at(2), false);
        groups.written(LogPosition(200), at(40), at(70), false);
        groups.flushed(LogPosition(200), at(170));
        let ahead = [("receive", 10), ("parse", 3), ("queue", 9), ("append", 8), ("device", 30)];
        let durable = of(&groups, &stored(Level::Durable, 150), 171, 180);
        assert_eq!(durable, [&ahead[..], &[("flush", 100), ("reply", 10)]].concat());
        // Nobody waited for the flush.
        let written = of(&groups, &stored(Level::Written, 200), 72, 75);
        assert_eq!(written, [&ahead[..], &[("reply", 5)]].concat());
        let accepted = of(&groups, &stored(Level::Accepted, 150), 33, 35);
        assert_eq!(accepted, [("receive", 10), ("parse", 3), ("queue", 9), ("reply", 3)]);
    }

    #[test]
    fn a_write_that_flushes_is_a_flush() {
        let mut groups = GroupTimes::default();
        groups.written(LogPosition(200), at(40), at(170), true);
        let times = of(&groups, &stored(Level::Durable, 200), 170, 171);
        assert!(
            times.contains(&("flush", 130)) && !times.iter().any(|(stage, _)| *stage == "device"),
            "{times:?}"
        );
    }

    #[test]
    fn a_group_that_is_not_known_is_work() {
        let mut groups = GroupTimes::default();
        assert!(of(&groups, &stored(Level::Durable, 5), 100, 100).contains(&("work", 68)));
        (0..100).for_each(|n| groups.written(LogPosition(1_000 + n), at(n), at(n), true));
        assert!(of(&groups, &stored(Level::Durable, 5), 100, 100).contains(&("work", 68)), "long ago");
    }

    #[test]
    fn the_wait_for_messages_is_not_the_brokers() {
        let mut timeline = Timeline::new(at(0), at(10), at(11));
        timeline.woken(at(50_000));
        assert_eq!(timeline.took(at(50_030)), Duration::from_micros(31));
        let times = of(&GroupTimes::default(), &timeline, 50_020, 50_030);
        assert_eq!(times, [("receive", 10), ("queue", 1), ("wait", 49_989), ("work", 20), ("reply", 10)]);
    }
}
