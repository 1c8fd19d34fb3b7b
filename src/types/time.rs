//! Points in time.

use std::fmt;
use std::time::Duration;

/// Wall clock, milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// Monotonic clock, nanoseconds since some start that is the same for the whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicTime(pub u64);

/// Milliseconds that a shard has run, over all its runs. What has to be old before it goes is judged by this where the
/// wall clock cannot be trusted: no clock that was wrong makes anything older than it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunningTime(pub u64);

impl RunningTime {
    pub fn since(self, earlier: RunningTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl MonotonicTime {
    /// Time passed since `earlier`; zero when the clock has not moved.
    pub fn since(self, earlier: MonotonicTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub fn after(self, duration: Duration) -> MonotonicTime {
        MonotonicTime(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
