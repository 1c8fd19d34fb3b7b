//! Zeroing of fresh segments: a write to blocks that were never written costs a journal commit with its flush, so they
//! are written beforehand, when that hardly delays a message.
//!
//! A piece of zeros on its way delays every flush behind it by as long as the device takes for it, which on a slow one is
//! several times what a flush takes. So while messages are stored, zeros only keep a lead over the log's end; the rest
//! waits for a pause, and goes slowly while the pause is young. A log that is written so fast that its groups are large is
//! left alone: it needs the bandwidth, and the cost of a journal commit is shared by many messages.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::commit_log::Inner;
use super::segment::Segment;
use crate::disk::{Disk, DiskBuffer, DiskFile};
use crate::limits::{BLOCK_BYTES, GROUP_BYTES_MAX};
use crate::types::MonotonicTime;

/// Zeros go out in pieces of this size, at this interval: 64 MiB/s of a device, shared by the logs on it.
const PIECE_BYTES: usize = 256 * 1024;
const INTERVAL: Duration = Duration::from_millis(4);
/// Zeros in the segment in use begin this far ahead of the log's end, where no group can be on its way.
const GAP_BYTES: u64 = 4 * 1024 * 1024;
/// With so much zeroed ahead of its end, a log that takes messages is left alone.
const LEAD_BYTES: u64 = 32 * 1024 * 1024;
/// The log takes messages when its last commit is younger.
const QUIET: Duration = Duration::from_millis(200);
/// Messages that come now and then meet no more than a quarter of the pieces when the pause is younger.
const LONG_QUIET: Duration = Duration::from_secs(5);
const SLOWED_BY: u32 = 4;
/// More than this committed within `BUSY_WINDOW` and zeroing would take bandwidth from messages.
const BUSY_BYTES: u64 = 4 * 1024 * 1024;
const BUSY_WINDOW: Duration = Duration::from_millis(50);

const _: () = assert!(LEAD_BYTES > GAP_BYTES + GROUP_BYTES_MAX as u64 + PIECE_BYTES as u64);

/// How busy the log is.
#[derive(Default)]
pub(super) struct Pacing {
    last_commit: Cell<Option<MonotonicTime>>,
    window: Cell<Window>,
}

/// Bytes that were committed lately.
#[derive(Clone, Copy, Default)]
struct Window {
    since: MonotonicTime,
    bytes: u64,
    /// In the window that ended when this one began: a busy log's new window has hardly anything in it yet.
    bytes_before: u64,
}

impl Pacing {
    pub fn note_commit(&self, now: MonotonicTime, bytes: usize) {
        self.last_commit.set(Some(now));
        let mut window = self.window.get();
        let age = now.since(window.since);
        if age >= BUSY_WINDOW {
            let bytes_before = if age < 2 * BUSY_WINDOW { window.bytes } else { 0 };
            window = Window { since: now, bytes: 0, bytes_before };
        }
        window.bytes += bytes as u64;
        self.window.set(window);
    }

    /// Whether messages were stored a moment ago.
    pub fn takes_messages(&self, now: MonotonicTime) -> bool {
        !self.has_been_quiet(now, BUSY_WINDOW)
    }

    /// Whether a piece may go out now, with `ahead` bytes from the log's end to where it would begin.
    fn allows(&self, now: MonotonicTime, ahead: u64) -> bool {
        self.has_been_quiet(now, QUIET) || (ahead < LEAD_BYTES && !self.is_busy(now))
    }

    /// How long to wait after a piece when this log has the device for itself.
    fn interval(&self, now: MonotonicTime) -> Duration {
        let is_young = self.has_been_quiet(now, QUIET) && !self.has_been_quiet(now, LONG_QUIET);
        if is_young { INTERVAL * SLOWED_BY } else { INTERVAL }
    }

    fn has_been_quiet(&self, now: MonotonicTime, duration: Duration) -> bool {
        self.last_commit.get().is_none_or(|last| now.since(last) >= duration)
    }

    fn is_busy(&self, now: MonotonicTime) -> bool {
        let Window { since, bytes, bytes_before } = self.window.get();
        let age = now.since(since);
        (age < 2 * BUSY_WINDOW && bytes > BUSY_BYTES) || (age < BUSY_WINDOW && bytes_before > BUSY_BYTES)
    }
}

/// Where the next piece goes.
struct Target<D: Disk> {
    segment: Rc<Segment<D>>,
    /// In its file.
    from: u64,
    /// Bytes from the log's end to there.
    ahead: u64,
}

/// The zeros of a piece, made once: clearing a fresh buffer for each would cost the core more than the write.
pub(super) type Zeros<D> = Option<Rc<<D as Disk>::Buffer>>;

impl<D: Disk> Inner<D> {
    /// Writes one piece of zeros where it helps, or waits until it may; false when there is nothing to zero.
    pub(super) async fn zero_step(&self, zeros: &mut Zeros<D>) -> bool {
        if !self.options.zero_fill {
            return false;
        }
        let Some(target) = self.zero_target() else { return false };
        if self.supply.pacing.allows(self.clock.monotonic(), target.ahead) {
            self.zero_piece(&target, zeros).await;
        }
        let interval = self.supply.pacing.interval(self.clock.monotonic());
        self.clock.sleep(interval * u32::from(self.options.device_sharers.max(1))).await;
        true
    }

    async fn zero_piece(&self, target: &Target<D>, zeros: &mut Zeros<D>) {
        let Target { segment, from, .. } = target;
        let bytes = PIECE_BYTES.min((segment.bytes - from) as usize);
        let fits = zeros.take().filter(|buffer| buffer.as_slice().len() == bytes);
        let buffer = fits.unwrap_or_else(|| {
            let mut buffer = self.disk.allocate(bytes);
            buffer.as_mut_slice().fill(0);
            Rc::new(buffer)
        });
        segment.zeroing.set(Some((*from, from + bytes as u64)));
        let written = segment.file.write(*from, buffer.clone()).await;
        segment.zeroing.set(None);
        segment.zeroing_done.wake();
        *zeros = Some(buffer);
        // Zeroing is a favour to later flushes: a failure here is met again, and answered, by the commit task.
        let reached = if written.is_ok() { from + bytes as u64 } else { segment.bytes };
        segment.zeroed.set(segment.zeroed.get().max(reached));
    }

    /// The segment to be zeroed next and from where in its file: the one in use, then the prepared one.
    fn zero_target(&self) -> Option<Target<D>> {
        let (base, end) = {
            let open = self.open.borrow();
            (open.segment_base, open.end())
        };
        let active = self.segment_at(base);
        let gap = end.since(base) + GROUP_BYTES_MAX as u64 + GAP_BYTES;
        let from = active.zeroed.get().max(gap.next_multiple_of(BLOCK_BYTES as u64));
        if from < active.bytes {
            let ahead = from - end.since(base);
            return Some(Target { segment: active, from, ahead });
        }
        let segment = self.supply.prepared()?;
        let from = segment.zeroed.get();
        let ahead = (segment.base.0 + from).saturating_sub(end.0);
        (from < segment.bytes).then_some(Target { segment, from, ahead })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> MonotonicTime {
        MonotonicTime(milliseconds * 1_000_000)
    }

    #[test]
    fn a_quiet_log_is_zeroed_to_its_end() {
        let pacing = Pacing::default();
        assert!(pacing.allows(at(0), u64::MAX));
        pacing.note_commit(at(1_000), 4096);
        assert!(!pacing.allows(at(1_001), LEAD_BYTES));
        assert!(pacing.allows(at(1_200), LEAD_BYTES));
        assert_eq!(pacing.interval(at(1_200)), INTERVAL * SLOWED_BY);
        assert_eq!(pacing.interval(at(6_000)), INTERVAL);
    }

    #[test]
    fn zeros_keep_a_lead_over_a_log_that_takes_messages() {
        let pacing = Pacing::default();
        for millisecond in 0..100 {
            pacing.note_commit(at(millisecond), 4096);
            assert!(pacing.allows(at(millisecond), LEAD_BYTES - 1));
            assert!(!pacing.allows(at(millisecond), LEAD_BYTES));
        }
    }

    #[test]
    fn a_busy_log_keeps_its_bandwidth() {
        let pacing = Pacing::default();
        pacing.note_commit(at(1_000), BUSY_BYTES as usize);
        assert!(pacing.allows(at(1_000), 0));
        pacing.note_commit(at(1_010), 1);
        assert!(!pacing.allows(at(1_010), 0));
        assert!(!pacing.allows(at(1_099), 0));
        assert!(pacing.allows(at(1_100), 0), "it is not busy any more");
    }

    /// Groups of the largest size, one after another: none of them opens a gap for zeros.
    #[test]
    fn a_log_that_stays_busy_is_left_alone_all_the_time() {
        let pacing = Pacing::default();
        for millisecond in 0..1_000 {
            pacing.note_commit(at(millisecond), GROUP_BYTES_MAX);
            if millisecond > 2 {
                assert!(!pacing.allows(at(millisecond), 0), "{millisecond} ms");
            }
        }
        assert!(pacing.allows(at(1_150), 0), "it is not busy any more");
    }
}
