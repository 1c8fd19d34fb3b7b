//! How long the disk has kept the log waiting, beyond what a disk takes.
//!
//! A device that stops for a moment stops every message that is on its way, and latencies at the client do not tell whose moment
//! it was. So writes and flushes of groups that took [`DISK_STALL`] or longer are counted, as this shard saw them: from when one
//! was handed to the disk until its end was noticed, a kernel worker's wait for a core included.

use std::cell::Cell;

use crate::limits::DISK_STALL;
use crate::metrics::ShardMetrics;
use crate::types::MonotonicTime;

/// What was counted so far. A write and the flush of the group before it are under way together: time in which both waited is
/// one stall, and counts once.
#[derive(Default)]
pub(super) struct Stalls {
    counted_until: Cell<MonotonicTime>,
}

impl Stalls {
    /// Takes note of a write or a flush that has ended just now.
    pub fn note(&self, metrics: &ShardMetrics, started: MonotonicTime, ended: MonotonicTime) {
        if ended.since(started) < DISK_STALL {
            return;
        }
        let counted = self.counted_until.replace(ended);
        if started >= counted {
            metrics.disk_stalls.add(1);
        }
        let stalled = ended.since(started.max(counted));
        metrics.disk_stalled_ns.add(u64::try_from(stalled.as_nanos()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> MonotonicTime {
        MonotonicTime(milliseconds * 1_000_000)
    }

    /// Stalls, and milliseconds in them, after operations from and to these milliseconds, in the order of their ends.
    fn counted(operations: &[(u64, u64)]) -> (u64, u64) {
        let (stalls, metrics) = (Stalls::default(), ShardMetrics::new());
        operations.iter().for_each(|(from, to)| stalls.note(&metrics, at(*from), at(*to)));
        (metrics.disk_stalls.get(), metrics.disk_stalled_ns.get() / 1_000_000)
    }

    #[test]
    fn what_a_disk_takes_is_no_stall() {
        assert_eq!(counted(&[(0, 49), (49, 60), (60, 109)]), (0, 0));
        assert_eq!(counted(&[(0, 50)]), (1, 50));
    }

    #[test]
    fn a_write_and_a_flush_that_wait_together_are_one_stall() {
        assert_eq!(counted(&[(100, 300), (101, 301)]), (1, 201));
        assert_eq!(counted(&[(100, 300), (299, 350)]), (1, 250), "one goes on in the other");
        assert_eq!(counted(&[(100, 300), (300, 350)]), (2, 250), "one after the other");
    }

    #[test]
    fn what_ends_at_the_same_moment_counts_once() {
        assert_eq!(counted(&[(100, 300), (150, 300)]), (1, 200));
    }
}
