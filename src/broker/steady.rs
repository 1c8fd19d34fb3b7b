//! Time for what lasts for a while and is stored: leases, and how long producers have to decide.
//!
//! A wall clock is set, forwards and back, and a lease of five seconds that ended at a time of day would hold for a day
//! once the clock was set back by one. So within a run this time passes as the monotonic clock does, from what the wall
//! clock showed at the start. And no run begins before a time that is stored: whatever ends is as far away as it was
//! meant to be at most, also after a restart.
//!
//! Due times of delayed messages are times of day, stated by producers: those go by the wall clock.

use std::cell::Cell;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::types::{MonotonicTime, RunningTime, Timestamp};

/// The steady time of one shard.
pub(super) struct SteadyTime {
    clock: SharedClock,
    base: Timestamp,
    start: MonotonicTime,
    ran_before: RunningTime,
    /// What the wall clock is ahead of this time, milliseconds.
    wall_ahead: Cell<i64>,
}

/// The wall clock and this time do not begin their milliseconds together, and the wall clock is slewed: as long as it is no
/// further off, the same moment is shown as the same time of day.
const WALL_SKEW_MS: i64 = 2;

impl SteadyTime {
    /// `newest` is the latest moment of this time that is stored, `ran_before` the running time.
    pub fn new(clock: SharedClock, newest: Timestamp, ran_before: RunningTime) -> Self {
        let (wall, start) = (clock.now(), clock.monotonic());
        let base = wall.max(newest);
        let wall_ahead = Cell::new(wall.0.wrapping_sub(base.0).cast_signed());
        Self { clock, base, start, ran_before, wall_ahead }
    }

    /// When this run began.
    pub fn begin(&self) -> MonotonicTime {
        self.start
    }

    pub fn now(&self) -> Timestamp {
        after(self.base, self.passed())
    }

    /// The first whole millisecond that has not passed. What lasts for a time from here on does not end early.
    pub fn upcoming(&self) -> Timestamp {
        after(self.base, self.passed() + Duration::from_nanos(999_999))
    }

    /// When something ends that lasts for `length` from now on.
    pub fn end_of(&self, length: Duration) -> Timestamp {
        after(self.upcoming(), length)
    }

    /// How long the shard has run.
    pub fn running(&self) -> RunningTime {
        RunningTime(after(Timestamp(self.ran_before.0), self.passed()).0)
    }

    /// Since this run began.
    pub fn passed(&self) -> Duration {
        self.clock.monotonic().since(self.start)
    }

    /// What the wall clock shows, or would have shown, at a moment of this time: for people, and for other machines.
    pub fn on_the_wall(&self, moment: Timestamp) -> Timestamp {
        let ahead = self.clock.now().0.wrapping_sub(self.now().0).cast_signed();
        if ahead.saturating_sub(self.wall_ahead.get()).saturating_abs() > WALL_SKEW_MS {
            self.wall_ahead.set(ahead);
        }
        Timestamp(moment.0.saturating_add_signed(self.wall_ahead.get()))
    }

    /// The moment of this time at which the wall clock will show `time`, unless it is set.
    pub fn at_wall(&self, time: Timestamp) -> Timestamp {
        self.end_of(Duration::from_millis(time.0.saturating_sub(self.clock.now().0)))
    }
}

/// The moment that lies `length` after `moment`.
pub(super) fn after(moment: Timestamp, length: Duration) -> Timestamp {
    Timestamp(moment.0.saturating_add(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::testing::VirtualClock;

    #[test]
    fn steady_time_passes_whatever_the_wall_clock_is_set_to() {
        let clock = VirtualClock::new();
        let steady = SteadyTime::new(clock.shared(), Timestamp(0), RunningTime(7));
        let start = steady.now();
        for shift in [86_400_000, -86_400_000, -86_400_000, 1 << 42, -(1 << 50)] {
            clock.shift_wall_clock(shift);
            assert_eq!(steady.now(), start, "set by {shift}");
        }
        clock.advance(Duration::from_millis(1500));
        assert_eq!(steady.now().0, start.0 + 1500);
        assert_eq!(steady.running(), RunningTime(1507));
    }

    /// Halves were once asked about a part of a millisecond early.
    #[test]
    fn nothing_ends_before_its_time_is_over() {
        let clock = VirtualClock::new();
        let steady = SteadyTime::new(clock.shared(), Timestamp(0), RunningTime(0));
        clock.advance(Duration::from_micros(700));
        let ends = steady.end_of(Duration::from_millis(5));
        clock.advance(Duration::from_micros(4_900));
        assert!(steady.now() < ends);
        clock.advance(Duration::from_millis(1));
        assert!(steady.now() >= ends);
    }

    #[test]
    fn a_run_begins_after_everything_that_is_stored_and_shows_the_time_of_day() {
        let clock = VirtualClock::new();
        let ahead = Timestamp(clock.now().0 + 86_400_000);
        let steady = SteadyTime::new(clock.shared(), ahead, RunningTime(0));
        assert_eq!(steady.now(), ahead);
        let (wall, ends) = (clock.now().0, after(steady.now(), Duration::from_secs(5)));
        assert_eq!(steady.on_the_wall(ends).0, wall + 5_000);
        assert_eq!(steady.on_the_wall(Timestamp(ahead.0 - 7)).0, clock.now().0 - 7);
        clock.advance(Duration::from_micros(600));
        assert_eq!(steady.on_the_wall(ends).0, wall + 5_000, "the same moment is shown as the same time");
        clock.shift_wall_clock(1);
        assert_eq!(steady.on_the_wall(ends).0, wall + 5_000, "the same moment is shown as the same time");
        clock.shift_wall_clock(9);
        assert_eq!(steady.on_the_wall(ends).0, wall + 5_010, "a clock that is set is followed");
        clock.shift_wall_clock(-10);
        clock.advance(Duration::from_micros(400));
        let ends = after(steady.now(), Duration::from_secs(5));
        assert_eq!(steady.at_wall(Timestamp(clock.now().0 + 5_000)), ends);
        assert_eq!(steady.at_wall(Timestamp(3)), steady.now(), "what has passed is now");
    }
}
