//! Queues of one shard in which nothing is to be had, when they are more than fetches may wait at the broker: they are
//! watched, many with one request. No I/O.
//!
//! A watch comes back as a whole when there is something in one of its queues, and its queues are quiet again until the
//! next. Small watches come of it, so they wait a short time only, and then find themselves together in a larger one.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::limits;
use crate::types::QueueKey;

use super::core::Correlation;

/// Watches that wait at one shard: enough for all the queues that a shard takes, when they are full.
const WATCHES_MAX: usize = 128;
/// How long quiet queues are gathered while others are on their way to join them.
const GATHER: Duration = Duration::from_millis(2);
/// A watch with fewer queues is small.
const SMALL_QUEUES: usize = limits::WATCH_QUEUES_MAX / 4;
const SMALL_WAIT: Duration = Duration::from_millis(200);

const _: () = assert!(limits::SHARD_QUEUES_MAX <= WATCHES_MAX * limits::WATCH_QUEUES_MAX);

#[derive(Default)]
pub(super) struct Watches {
    quiet: VecDeque<QueueKey>,
    /// When the first of `quiet` was seen there.
    quiet_since: Option<Instant>,
    in_flight: HashMap<Correlation, Vec<QueueKey>>,
}

impl Watches {
    pub(super) fn push(&mut self, key: QueueKey) {
        self.quiet.push_back(key);
    }

    /// The quiet queues, when they need not be watched any more.
    pub(super) fn take_quiet(&mut self) -> VecDeque<QueueKey> {
        self.quiet_since = None;
        std::mem::take(&mut self.quiet)
    }

    /// The queues of the next watch. While `more_come` it waits for them, but not long.
    pub(super) fn next(&mut self, more_come: bool, now: Instant) -> Option<Vec<QueueKey>> {
        if self.quiet.is_empty() || self.in_flight.len() >= WATCHES_MAX {
            return None;
        }
        let since = *self.quiet_since.get_or_insert(now);
        let is_full = self.quiet.len() >= limits::WATCH_QUEUES_MAX;
        if more_come && !is_full && now < since + GATHER {
            return None;
        }
        let count = self.quiet.len().min(limits::WATCH_QUEUES_MAX);
        let keys = self.quiet.drain(..count).collect();
        self.quiet_since = (!self.quiet.is_empty()).then_some(now);
        Some(keys)
    }

    /// How long a watch of so many queues waits, at most `longest`.
    pub(super) fn wait(queue_count: usize, longest: Duration) -> Duration {
        if queue_count < SMALL_QUEUES { longest.min(SMALL_WAIT) } else { longest }
    }

    pub(super) fn asked(&mut self, correlation: Correlation, keys: Vec<QueueKey>) {
        self.in_flight.insert(correlation, keys);
    }

    /// The queues of a watch that has come back.
    pub(super) fn answered(&mut self, correlation: Correlation) -> Option<Vec<QueueKey>> {
        self.in_flight.remove(&correlation)
    }

    /// The queues of all watches on their way, which will not come back.
    pub(super) fn lost(&mut self) -> impl Iterator<Item = QueueKey> {
        self.in_flight.drain().flat_map(|(_, keys)| keys)
    }

    pub(super) fn is_in_flight(&self, correlation: Correlation) -> bool {
        self.in_flight.contains_key(&correlation)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// When queues have been gathered for long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let has_slot = self.in_flight.len() < WATCHES_MAX;
        self.quiet_since.filter(|_| has_slot).map(|since| since + GATHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueNumber, TopicId};

    fn watches(count: usize) -> Watches {
        let mut watches = Watches::default();
        let key = |queue| QueueKey { topic: TopicId(1), queue: QueueNumber(queue as u32) };
        (0..count).for_each(|queue| watches.push(key(queue)));
        watches
    }

    #[test]
    fn queues_are_gathered_while_more_come_but_not_long() {
        let now = Instant::now();
        let mut some = watches(3);
        assert_eq!(some.next(true, now), None);
        assert_eq!(some.deadline(), Some(now + GATHER));
        assert_eq!(some.next(true, now + GATHER).map(|keys| keys.len()), Some(3));
        assert_eq!((some.next(true, now + GATHER), some.deadline()), (None, None));
        assert_eq!(watches(3).next(false, now).map(|keys| keys.len()), Some(3));
        let mut many = watches(limits::WATCH_QUEUES_MAX + 1);
        assert_eq!(many.next(true, now).map(|keys| keys.len()), Some(limits::WATCH_QUEUES_MAX));
        assert_eq!(many.next(true, now), None);
    }

    #[test]
    fn small_watches_come_back_soon_and_watches_are_bounded() {
        let long = Duration::from_secs(10);
        assert_eq!(Watches::wait(1, long), SMALL_WAIT);
        assert_eq!(Watches::wait(limits::WATCH_QUEUES_MAX, long), long);
        let now = Instant::now();
        let mut watches = watches(1);
        (0..WATCHES_MAX as u64).for_each(|number| watches.asked(Correlation(number), Vec::new()));
        assert_eq!((watches.next(false, now), watches.deadline()), (None, None));
        assert!(watches.answered(Correlation(0)).is_some());
        assert!(watches.next(false, now).is_some());
    }
}
