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
}
