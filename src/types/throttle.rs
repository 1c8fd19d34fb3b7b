//! Saying something that happens often only now and then.

use std::cell::Cell;
use std::time::Duration;

use super::MonotonicTime;

/// Lets something be said once in an interval, and counts what was left out meanwhile.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    said_at: Cell<Option<MonotonicTime>>,
    left_out: Cell<u64>,
}

impl Throttle {
    pub const fn new(interval: Duration) -> Self {
        Self { interval, said_at: Cell::new(None), left_out: Cell::new(0) }
    }

    /// Whether to say it now; then with how many were left out since the last time.
    pub fn allows(&self, now: MonotonicTime) -> Option<u64> {
        if self.said_at.get().is_some_and(|said| now.since(said) < self.interval) {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.said_at.set(Some(now));
        Some(self.left_out.take())
    }

    /// How many were left out since the last time, once the interval is over: to be said now, if nothing else comes.
    fn left_behind(&self, now: MonotonicTime) -> Option<u64> {
        if self.said_at.get().is_some_and(|said| now.since(said) < self.interval) {
            return None;
        }
        let rest = self.rest();
        rest.inspect(|_| self.said_at.set(Some(now)))
    }

    /// How many were left out since the last time: once the interval is over, or, without a time, for the last words.
    pub fn left_out(&self, now: Option<MonotonicTime>) -> Option<u64> {
        now.map_or_else(|| self.rest(), |now| self.left_behind(now))
    }

    /// How many were left out since the last time, for the last words.
    fn rest(&self) -> Option<u64> {
        Some(self.left_out.take()).filter(|left_out| *left_out > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_counted_until_it_is_said() {
        let throttle = Throttle::new(Duration::from_nanos(10));
        let said: Vec<_> = [0, 1, 9, 10, 11, 25].map(|now| throttle.allows(MonotonicTime(now))).into();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn what_was_left_out_is_said_when_nothing_else_comes() {
        let throttle = Throttle::new(Duration::from_nanos(10));
        let left_behind = |now| throttle.left_out(Some(MonotonicTime(now)));
        assert_eq!(left_behind(0), None, "there was nothing");
        assert_eq!([1, 2, 3].map(|now| throttle.allows(MonotonicTime(now))), [Some(0), None, None]);
        assert_eq!([4, 10, 11, 12, 30].map(left_behind), [None, None, Some(2), None, None]);
        assert_eq!(throttle.allows(MonotonicTime(20)), None, "it was said a moment ago");
        assert_eq!(throttle.allows(MonotonicTime(21)), Some(1));
        assert_eq!(throttle.allows(MonotonicTime(22)), None);
        assert_eq!([throttle.left_out(None), throttle.left_out(None)], [Some(1), None]);
    }
}
