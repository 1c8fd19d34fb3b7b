//! Which delayed messages are pending, as far as memory has them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};

/// Loaded at most; with more the latest ones are forgotten, and loaded again in their time.
pub const LOADED_MAX: usize = 262_144;
/// With fewer than this the next ones are loaded.
const LOADED_MIN: usize = 8_192;
/// Times are loaded this long ahead, so that nobody waits for the index.
const LOAD_AHEAD_MS: u64 = 10_000;
/// A bucket covers 2^18 milliseconds. Forty days have 13,184 buckets, and each costs a partial chunk of the index.
const BUCKET_BITS: u32 = 18;

/// A delayed message's key: the order of release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerKey {
    pub due: Timestamp,
    pub position: LogPosition,
}

/// The timers of a shard.
///
/// 1. `loaded` has every pending message whose key is below `loaded_end`, and none that is placed as released.
/// 2. `released <= releasing`; what lies between is in the log and not yet durable.
/// 3. What is in `recalled` waits for its time as the others do, and enters no queue then. None of it was released.
#[derive(Debug, Default)]
pub struct Delays {
    released: TimerKey,
    releasing: TimerKey,
    /// With the sizes of the batches.
    loaded: BTreeMap<TimerKey, u32>,
    loaded_end: TimerKey,
    /// Placed in the log, and not yet durable.
    unapplied: BTreeSet<TimerKey>,
    recalled: BTreeSet<TimerKey>,
}

/// What the timer task does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTimer {
    /// Some are due.
    Now,
    At(Timestamp),
    Never,
}

impl TimerKey {
    pub const MAX: TimerKey = TimerKey { due: Timestamp(u64::MAX), position: LogPosition(u64::MAX) };
}

/// The hidden queue of the index that has the messages due at this time.
pub fn bucket_of(due: Timestamp) -> QueueKey {
    let number = u32::try_from(due.0 >> BUCKET_BITS).unwrap_or(u32::MAX);
    QueueKey { topic: TopicId::DELAYED, queue: QueueNumber(number) }
}

/// The first due time of a bucket.
pub fn bucket_start(bucket: QueueNumber) -> Timestamp {
    Timestamp(u64::from(bucket.0) << BUCKET_BITS)
}

impl Delays {
    /// Where the durable cursor is.
    pub fn released(&self) -> TimerKey {
        self.released
    }

    /// Where the cursor was placed.
    pub fn releasing(&self) -> TimerKey {
        self.releasing
    }

    pub fn loaded_count(&self) -> usize {
        self.loaded.len()
    }

    pub fn loaded_end(&self) -> TimerKey {
        self.loaded_end
    }

    pub fn is_pending(&self, timer: TimerKey) -> bool {
        timer > self.releasing
    }

    /// Whether its producer has taken a pending message back.
    pub fn is_recalled(&self, timer: TimerKey) -> bool {
        self.recalled.contains(&timer)
    }

    pub fn recalled_count(&self) -> usize {
        self.recalled.len()
    }

    /// Those that were taken back, as changes say it.
    pub(super) fn recalled(&self) -> impl Iterator<Item = TimerKey> + '_ {
        self.recalled.iter().copied()
    }

    /// A message was taken back.
    pub(super) fn recall(&mut self, timer: TimerKey) {
        if self.is_pending(timer) {
            self.recalled.insert(timer);
        }
    }

    /// A batch was placed in the log.
    pub(super) fn placed(&mut self, timer: TimerKey) {
        self.unapplied.insert(timer);
    }

    /// A batch is durable and in the index.
    pub(super) fn stored(&mut self, timer: TimerKey, batch_bytes: u32) {
        self.unapplied.remove(&timer);
        if timer < self.loaded_end && self.is_pending(timer) {
            self.loaded.insert(timer, batch_bytes);
            if self.loaded.len() > LOADED_MAX {
                let (last, _) = self.loaded.pop_last().expect("one was just added");
                self.loaded_end = last;
            }
        }
    }

    /// The cursor was placed here, or the message was placed again elsewhere.
    pub(super) fn releasing_to(&mut self, timer: TimerKey) {
        self.releasing = self.releasing.max(timer);
        self.loaded.remove(&timer);
        let next = self.loaded.keys().next();
        assert!(next.is_none_or(|next| self.is_pending(*next)), "invariant 1: {next:?} was passed over");
    }

    /// The message was placed again elsewhere.
    pub(in crate::state) fn forget(&mut self, timer: TimerKey) {
        self.loaded.remove(&timer);
    }

    /// The cursor is durable.
    pub(super) fn released_to(&mut self, timer: TimerKey) {
        self.released = self.released.max(timer);
        self.releasing = self.releasing.max(timer);
        while self.recalled.first().is_some_and(|first| *first <= self.released) {
            self.recalled.pop_first();
        }
    }

    /// Asserts the invariants, as far as memory tells.
    pub(super) fn check(&self) {
        let (first, last) = (self.loaded.keys().next(), self.loaded.keys().next_back());
        assert!(first.is_none_or(|timer| self.is_pending(*timer)), "invariant 1: {first:?} was released");
        assert!(last.is_none_or(|timer| *timer < self.loaded_end), "invariant 1: {last:?} is not loaded yet");
        assert!(self.released <= self.releasing, "invariant 2: {:?}", self.released);
        let unapplied = self.unapplied.first();
        assert!(unapplied.is_none_or(|timer| self.is_pending(*timer)), "{unapplied:?} was passed over");
        let recalled = self.recalled.first();
        assert!(
            recalled.is_none_or(|timer| *timer > self.released),
            "invariant 3: {recalled:?} was released"
        );
    }

    /// What is to be released now, in order.
    pub fn due(&self, now: Timestamp, count_max: usize, bytes_max: u64) -> Vec<(TimerKey, u32)> {
        let mut bytes = 0;
        let is_next = |timer: &TimerKey| {
            timer.due <= now && self.unapplied.first().is_none_or(|unapplied| timer < unapplied)
        };
        let due = self.loaded.iter().take_while(|(timer, _)| is_next(timer));
        let due = due.take(count_max).take_while(|(_, batch_bytes)| {
            let fits = bytes == 0 || bytes + u64::from(**batch_bytes) <= bytes_max;
            bytes += u64::from(**batch_bytes);
            fits
        });
        due.map(|(timer, bytes)| (*timer, *bytes)).collect()
    }

    /// When there is something to release or to load.
    pub fn next_timer(&self, now: Timestamp) -> NextTimer {
        if self.wants_loading(now) {
            return NextTimer::Now;
        }
        let load_at = self.loaded_end.due.0.saturating_sub(LOAD_AHEAD_MS);
        match self.loaded.keys().next() {
            // One that is placed and not yet durable comes before it: that one's arrival wakes the task.
            Some(first) if self.unapplied.first().is_some_and(|unapplied| unapplied < first) => {
                NextTimer::Never
            }
            Some(first) if first.due <= now => NextTimer::Now,
            Some(first) if self.loaded.len() > LOADED_MAX / 2 => NextTimer::At(first.due),
            Some(first) => NextTimer::At(Timestamp(first.due.0.min(load_at))),
            None if self.loaded_end == TimerKey::MAX => NextTimer::Never,
            None => NextTimer::At(Timestamp(load_at)),
        }
    }

    /// Whether the index must be asked for what comes next.
    pub fn wants_loading(&self, now: Timestamp) -> bool {
        let near = self.loaded_end.due.0.saturating_sub(LOAD_AHEAD_MS) <= now.0;
        self.loaded_end != TimerKey::MAX
            && self.loaded.len() <= LOADED_MAX / 2
            && (near || self.loaded.len() < LOADED_MIN)
    }

    /// Takes what was read from the index for `loaded_end..end`, unless that has changed meanwhile.
    pub(in crate::state) fn load(&mut self, from: TimerKey, end: TimerKey, found: Loading) {
        if self.loaded_end != from {
            return;
        }
        self.loaded_end = found.end.min(end);
        let releasing = self.releasing;
        self.loaded.extend(found.timers.into_iter().filter(|(timer, _)| *timer > releasing));
    }
}

/// Messages on their way from the index into memory: the first ones of all that were seen.
#[derive(Debug)]
pub struct Loading {
    from: TimerKey,
    /// No message at or after it was kept.
    end: TimerKey,
    count_max: usize,
    timers: BTreeMap<TimerKey, u32>,
}

impl Loading {
    pub fn new(delays: &Delays) -> Self {
        let count_max = (LOADED_MAX - delays.loaded.len()).max(1);
        Self { from: delays.loaded_end, end: TimerKey::MAX, count_max, timers: BTreeMap::new() }
    }

    pub fn see(&mut self, timer: TimerKey, batch_bytes: u32) {
        if !(self.from..self.end).contains(&timer) {
            return;
        }
        self.timers.insert(timer, batch_bytes);
        if self.timers.len() > self.count_max {
            let (last, _) = self.timers.pop_last().expect("one was just added");
            self.end = last;
        }
    }
}

/// The key of an entry of a hidden queue.
pub fn timer_key_of(bucket: QueueKey, position: LogPosition, within_bucket_ms: u32) -> TimerKey {
    let due = Timestamp(bucket_start(bucket.queue).0 + u64::from(within_bucket_ms));
    TimerKey { due, position }
}

/// The offset after a position, in a hidden queue.
pub fn offset_after(position: LogPosition) -> QueueOffset {
    QueueOffset(position.0 + 1)
}

/// What follows `last` in a walk; without it, everything.
pub fn after<T: Copy>(last: Option<T>) -> Bound<T> {
    last.map_or(Bound::Unbounded, Bound::Excluded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn timer(due: u64, position: u64) -> TimerKey {
        TimerKey { due: Timestamp(due), position: LogPosition(position) }
    }

    /// Everything loaded.
    fn loaded() -> Delays {
        Delays { loaded_end: TimerKey::MAX, ..Delays::default() }
    }

    #[test]
    fn what_is_due_comes_in_order_and_not_before_what_is_on_its_way() {
        let mut delays = loaded();
        for one in [timer(30, 1), timer(10, 5), timer(10, 2)] {
            delays.placed(one);
            delays.stored(one, 100);
        }
        let due: Vec<_> = delays.due(Timestamp(30), 10, 1000).into_iter().map(|(timer, _)| timer).collect();
        assert_eq!(due, [timer(10, 2), timer(10, 5), timer(30, 1)]);
        assert_eq!(delays.due(Timestamp(30), 10, 150).len(), 1);
        delays.placed(timer(20, 9));
        assert_eq!(delays.due(Timestamp(30), 10, 1000).len(), 2);
        delays.releasing_to(timer(10, 2));
        delays.releasing_to(timer(10, 5));
        assert_eq!(delays.next_timer(Timestamp(40)), NextTimer::Never);
        delays.stored(timer(20, 9), 100);
        assert_eq!(delays.next_timer(Timestamp(15)), NextTimer::At(Timestamp(20)));
        assert_eq!(delays.next_timer(Timestamp(20)), NextTimer::Now);
    }

    #[test]
    fn what_was_taken_back_is_known_until_its_time_has_passed() {
        let mut delays = loaded();
        for one in [timer(10, 1), timer(20, 2), timer(30, 3)] {
            delays.placed(one);
            delays.stored(one, 100);
        }
        delays.recall(timer(20, 2));
        delays.recall(timer(20, 2));
        assert!(delays.is_recalled(timer(20, 2)) && !delays.is_recalled(timer(10, 1)));
        assert_eq!((delays.recalled_count(), delays.due(Timestamp(30), 10, 1000).len()), (1, 3));
        for one in [timer(10, 1), timer(20, 2)] {
            delays.releasing_to(one);
            delays.released_to(one);
            delays.check();
        }
        assert_eq!(delays.recalled_count(), 0);
        delays.recall(timer(20, 2));
        assert_eq!(delays.recalled_count(), 0, "it is too late");
    }

    #[test]
    fn memory_holds_the_first_ones_only_and_loads_the_others() {
        let mut random = Random::new(1);
        let mut all = BTreeSet::new();
        let mut delays = loaded();
        for position in 0..LOADED_MAX as u64 + 5_000 {
            let one = timer(1_000_000 + random.range(0..1_000_000), position);
            all.insert(one);
            delays.stored(one, 1);
        }
        assert_eq!(delays.loaded_count(), LOADED_MAX);
        let mut released = Vec::new();
        while released.len() < all.len() {
            let now = Timestamp(5_000_000);
            for (timer, _) in delays.due(now, 50_000, u64::MAX) {
                delays.releasing_to(timer);
                released.push(timer);
            }
            if delays.wants_loading(now) {
                let mut loading = Loading::new(&delays);
                all.iter().for_each(|timer| loading.see(*timer, 1));
                delays.load(delays.loaded_end(), TimerKey::MAX, loading);
            }
        }
        assert!(released.iter().eq(all.iter()), "in order, each once");
        assert_eq!(delays.next_timer(Timestamp(5_000_000)), NextTimer::Never);
    }
}
