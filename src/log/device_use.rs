//! For how long the disk has been busy with the log: writing or flushing a group.

use std::cell::Cell;
use std::time::Duration;

use crate::types::MonotonicTime;

/// The time in which at least one write or flush of a group was under way, as this shard saw it. What readers and zeroing ask of
/// the disk does not count.
#[derive(Default)]
pub(super) struct DeviceUse {
    under_way: Cell<u32>,
    /// When the first of those under way began.
    since: Cell<MonotonicTime>,
    before: Cell<Duration>,
}

impl DeviceUse {
    pub fn begin(&self, now: MonotonicTime) {
        if self.under_way.get() == 0 {
            self.since.set(now);
        }
        self.under_way.set(self.under_way.get() + 1);
    }

    pub fn end(&self, now: MonotonicTime) {
        self.under_way.set(self.under_way.get() - 1);
        if self.under_way.get() == 0 {
            self.before.set(self.before.get() + now.since(self.since.get()));
        }
    }

    /// All of it so far.
    pub fn busy(&self, now: MonotonicTime) -> Duration {
        let present = if self.under_way.get() == 0 { Duration::ZERO } else { now.since(self.since.get()) };
        self.before.get() + present
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_counts_once_and_what_goes_on_counts_already() {
        let at = |milliseconds: u64| MonotonicTime(milliseconds * 1_000_000);
        let device = DeviceUse::default();
        device.begin(at(10));
        device.begin(at(20));
        device.end(at(30));
        assert_eq!(device.busy(at(35)), Duration::from_millis(25));
        device.end(at(40));
        device.begin(at(90));
        device.end(at(95));
        assert_eq!(device.busy(at(1_000)), Duration::from_millis(35));
    }
}
