//! How old what is stored is when the wall clock cannot be trusted.
//!
//! Store times never fall within a log: look-up by time relies on it. So when a clock that was ahead has been set back,
//! everything that comes gets the time that it had shown, for as long as it was ahead, be it a century. Age cannot be told
//! from store times then. Instead a shard writes down, once for each segment, by which of its *running time* everything
//! below a position was stored. Something goes when either of the two says that it is old enough: late perhaps, when the
//! broker stood still meanwhile, and never because a clock was wrong.
//!
//! A clock that goes ahead by more than a retention makes everything old at once: no broker can know that it is wrong.

use std::time::Duration;

use crate::api::Failure;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::log::SegmentInfo;
use crate::state::Change;
use crate::types::{LogPosition, MonotonicTime, Timestamp};

/// Clocks are put right by less than this all the time.
const JUMP_MIN: Duration = Duration::from_secs(1);

/// What both clocks showed when they were last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct ClockReading {
    wall: Timestamp,
    monotonic: MonotonicTime,
}

/// How far the wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Jump {
    Ahead(Duration),
    Back(Duration),
}

impl ClockReading {
    /// Times before that are read as its first moment.
    fn is_before_1970(self) -> bool {
        self.wall.0 == 0
    }

    /// How far the wall clock was set between two readings, if it was.
    fn jump_to(self, now: ClockReading) -> Option<Jump> {
        if now.is_before_1970() && self.is_before_1970() {
            // It seems to stand still.
            return None;
        }
        let passed = now.monotonic.since(self.monotonic);
        let expected = self.wall.0.saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
        let by = Duration::from_millis(now.wall.0.abs_diff(expected));
        let jump = if now.wall.0 < expected { Jump::Back(by) } else { Jump::Ahead(by) };
        (by > JUMP_MIN).then_some(jump)
    }
}

impl<D: Disk> Broker<D> {
    pub(in crate::broker) fn read_clocks(&self) -> ClockReading {
        ClockReading { wall: self.clock.now(), monotonic: self.clock.monotonic() }
    }

    /// Says when the wall clock was set since the last look.
    pub(in crate::broker) fn watch_clock(&self, last: ClockReading) -> ClockReading {
        let now = self.read_clocks();
        match last.jump_to(now) {
            Some(Jump::Back(by)) => tracing::warn!(
                target: "clock", shard = self.options.shard.0,
                "the clock went back by {by:?}: until it has caught up, messages get the newest store time there is, and \
                 how old they are is told by how long the broker runs"
            ),
            Some(Jump::Ahead(by)) => tracing::warn!(
                target: "clock", shard = self.options.shard.0,
                "the clock went ahead by {by:?}: what its retention has passed by the new time goes"
            ),
            None => {}
        }
        now
    }

    /// Says when the newest message is of a time that has not come yet, or no time can be told at all.
    pub(in crate::broker) fn warn_of_store_times(&self) {
        if self.read_clocks().is_before_1970() {
            tracing::warn!(
                target: "clock", shard = self.options.shard.0,
                "the clock is set to a time before 1970: messages get the newest store time there is, and how old they \
                 are is told by how long the broker runs"
            );
        }
        if let Some(ahead) = self.store_times_are_ahead() {
            tracing::warn!(
                target: "clock", shard = self.options.shard.0,
                "the newest store time of the log is {ahead:?} ahead of the clock, which is wrong or was: until it has \
                 caught up, how old messages are is told by how long the broker runs"
            );
        }
    }

    /// By how much, when it is more than clocks are put right by.
    fn store_times_are_ahead(&self) -> Option<Duration> {
        let ahead = Duration::from_millis(self.log.newest().0.saturating_sub(self.clock.now().0));
        (ahead > JUMP_MIN).then_some(ahead)
    }

    /// Writes down by when everything below this place of the log was stored, where store times do not tell and no place
    /// of the newest segment is known yet.
    pub(in crate::broker) async fn note_stored_by(&self) -> Result<(), Failure> {
        let newest_segment = self.log.segments().last().map(|segment| segment.base);
        let known = self.tables().stored_by_end();
        if known >= newest_segment || self.store_times_are_ahead().is_none() {
            return Ok(());
        }
        let position = self.log.watermarks().appended_end();
        let time = self.steady.running();
        self.change(&[Change::StoredBy { position, time }]).await
    }

    /// Whether everything in a segment that ends at `end` is older than `retention`.
    pub(in crate::broker) fn is_expired(
        &self,
        segment: &SegmentInfo,
        end: LogPosition,
        retention: Duration,
    ) -> bool {
        let by_wall_clock = segment.newest.is_some_and(|newest| self.now_minus(retention) > newest);
        let stored_by = self.tables().stored_by(end);
        by_wall_clock || stored_by.is_some_and(|stored| self.steady.running().since(stored) >= retention)
    }

    /// The place in the log below which everything is older than `retention`, as far as running time tells.
    pub(in crate::broker) fn expired_below(&self, retention: Duration) -> Option<LogPosition> {
        let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let newest = self.steady.running().0.checked_sub(retention_ms)?;
        self.tables().stored_until(crate::types::RunningTime(newest))
    }

    pub(in crate::broker) fn now_minus(&self, age: Duration) -> Timestamp {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.clock.now().0.saturating_sub(age_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_what_the_clocks_do_not_agree_about() {
        let at = |wall_ms: u64, seconds: u64| ClockReading {
            wall: Timestamp(wall_ms),
            monotonic: MonotonicTime(seconds * 1_000_000_000),
        };
        let day = 86_400_000;
        let jump = |now| at(2 * day, 1).jump_to(now);
        assert_eq!(jump(at(2 * day + 10_000, 11)), None);
        assert_eq!(jump(at(2 * day + 9_000, 11)), None, "put right by a second");
        assert_eq!(jump(at(day, 1)), Some(Jump::Back(Duration::from_millis(day))));
        assert_eq!(jump(at(0, 1)), Some(Jump::Back(Duration::from_millis(2 * day))), "before 1970");
        assert_eq!(at(0, 1).jump_to(at(0, 100)), None, "still before 1970");
        assert_eq!(jump(at(3 * day + 10_000, 11)), Some(Jump::Ahead(Duration::from_millis(day))));
    }
}
