//! Those who wait for the log to reach a place, in the order of their places.
//!
//! A commit wakes whom it serves and nobody else: with a list that is woken as a whole, every request in flight would be
//! polled at every write and every flush, and polling a connection is far from free.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::Waker;

use crate::types::LogPosition;

/// Waiters by ascending place, then by ascending number.
#[derive(Default)]
pub(super) struct MarkWaiters {
    waiters: RefCell<VecDeque<Waiter>>,
    next_number: Cell<u64>,
}

struct Waiter {
    key: WaiterKey,
    waker: Waker,
}

/// Names one waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WaiterKey {
    end: LogPosition,
    number: u64,
}

impl MarkWaiters {
    /// Adds a waiter for `end`. Places mostly ascend, so that it goes to the back.
    pub fn add(&self, end: LogPosition, waker: Waker) -> WaiterKey {
        let key = WaiterKey { end, number: self.next_number.get() };
        self.next_number.set(key.number + 1);
        let mut waiters = self.waiters.borrow_mut();
        let at = match waiters.back() {
            Some(last) if last.key > key => waiters.partition_point(|waiter| waiter.key < key),
            _ => waiters.len(),
        };
        waiters.insert(at, Waiter { key, waker });
        key
    }

    /// Gives a waiter its newest waker. False when it is no longer there.
    pub fn renew(&self, key: WaiterKey, waker: &Waker) -> bool {
        let mut waiters = self.waiters.borrow_mut();
        let Ok(at) = waiters.binary_search_by_key(&key, |waiter| waiter.key) else { return false };
        waiters[at].waker.clone_from(waker);
        true
    }

    pub fn remove(&self, key: WaiterKey) {
        let mut waiters = self.waiters.borrow_mut();
        if let Ok(at) = waiters.binary_search_by_key(&key, |waiter| waiter.key) {
            waiters.remove(at);
        }
    }

    /// Wakes everybody whose place is at `end` or below.
    pub fn wake_to(&self, end: LogPosition) {
        // One at a time: what a waker does may come back here.
        while let Some(waker) = self.pop_to(end) {
            waker.wake();
        }
    }

    fn pop_to(&self, end: LogPosition) -> Option<Waker> {
        let mut waiters = self.waiters.borrow_mut();
        let is_reached = waiters.front().is_some_and(|waiter| waiter.key.end <= end);
        is_reached.then(|| waiters.pop_front().expect("there is a first one").waker)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicU32);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_is_served_is_woken_once_and_nobody_else() {
        let list = MarkWaiters::default();
        let counters: Vec<_> = (0..4).map(|_| Arc::new(Counter::default())).collect();
        let add = |at: usize, end| list.add(LogPosition(end), counters[at].clone().into());
        let woken = || counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        add(0, 30);
        add(1, 10);
        let removed = add(2, 10);
        add(3, 20);
        list.wake_to(LogPosition(9));
        assert_eq!(woken(), [0, 0, 0, 0]);
        list.remove(removed);
        list.wake_to(LogPosition(20));
        assert_eq!(woken(), [0, 1, 0, 1]);
        list.remove(removed);
        list.wake_to(LogPosition(u64::MAX));
        list.wake_to(LogPosition(u64::MAX));
        assert_eq!(woken(), [1, 1, 0, 1]);
    }

    #[test]
    fn a_waiter_that_was_woken_has_nothing_to_renew() {
        let list = MarkWaiters::default();
        let counter = Arc::new(Counter::default());
        let waker: Waker = counter.into();
        let key = list.add(LogPosition(5), waker.clone());
        assert!(list.renew(key, &waker));
        list.wake_to(LogPosition(5));
        assert!(!list.renew(key, &waker));
    }
}
