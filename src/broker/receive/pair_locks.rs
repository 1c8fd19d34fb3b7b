//! One at a time, in the order in which they came: who chooses messages of a queue for a group.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::types::{GroupName, QueueKey};

/// One group in one queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::broker) struct Pair {
    pub key: QueueKey,
    pub group: GroupName,
}

/// The pairs that are locked, each with those who wait for it.
#[derive(Debug, Default)]
pub(in crate::broker) struct PairLocks {
    locked: RefCell<HashMap<Pair, VecDeque<Rc<Waiter>>>>,
}

/// A locked pair; goes to the next in line when dropped.
#[derive(Debug)]
pub(in crate::broker) struct PairGuard<'a> {
    locks: &'a PairLocks,
    pair: Pair,
}

#[derive(Debug, Default)]
struct Waiter {
    is_granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Future of [`PairLocks::lock`]. Dropping it leaves the line.
struct Locking<'a> {
    locks: &'a PairLocks,
    /// `None` once the pair is locked.
    pair: Option<Pair>,
    waiter: Rc<Waiter>,
}

impl PairLocks {
    /// Locks the pair, unless somebody has.
    pub fn try_lock(&self, pair: Pair) -> Option<PairGuard<'_>> {
        let mut locked = self.locked.borrow_mut();
        if locked.contains_key(&pair) {
            return None;
        }
        locked.insert(pair.clone(), VecDeque::new());
        Some(PairGuard { locks: self, pair })
    }

    /// Locks the pair, after all who wait for it already.
    pub async fn lock(&self, pair: Pair) -> PairGuard<'_> {
        let waiter = Rc::new(Waiter::default());
        match self.locked.borrow_mut().get_mut(&pair) {
            Some(line) => line.push_back(waiter.clone()),
            None => waiter.is_granted.set(true),
        }
        if waiter.is_granted.get() {
            self.locked.borrow_mut().insert(pair.clone(), VecDeque::new());
        }
        Locking { locks: self, pair: Some(pair), waiter }.await
    }

    /// Hands the pair to the next in line, or leaves it unlocked.
    fn unlock(&self, pair: &Pair) {
        let mut locked = self.locked.borrow_mut();
        let next = locked.get_mut(pair).and_then(VecDeque::pop_front);
        let Some(next) = next else {
            locked.remove(pair);
            return;
        };
        next.is_granted.set(true);
        let waker = next.waker.take();
        drop(locked);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl PairGuard<'_> {
    pub fn key(&self) -> QueueKey {
        self.pair.key
    }
}

impl Drop for PairGuard<'_> {
    fn drop(&mut self) {
        self.locks.unlock(&self.pair);
    }
}

impl<'a> Future for Locking<'a> {
    type Output = PairGuard<'a>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<PairGuard<'a>> {
        if !self.waiter.is_granted.get() {
            *self.waiter.waker.borrow_mut() = Some(context.waker().clone());
            return Poll::Pending;
        }
        let pair = self.pair.take().expect("a future is not polled after its end");
        Poll::Ready(PairGuard { locks: self.locks, pair })
    }
}

impl Drop for Locking<'_> {
    fn drop(&mut self) {
        let Some(pair) = self.pair.take() else { return };
        if self.waiter.is_granted.get() {
            self.locks.unlock(&pair);
        } else if let Some(line) = self.locks.locked.borrow_mut().get_mut(&pair) {
            line.retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once, zip};

    use super::*;
    use crate::types::{QueueNumber, TopicId};

    fn pair(queue: u32) -> Pair {
        let key = QueueKey { topic: TopicId(1), queue: QueueNumber(queue) };
        Pair { key, group: "g".parse().expect("a name") }
    }

    #[test]
    fn a_pair_is_locked_by_one_and_asking_takes_it_from_nobody() {
        let locks = PairLocks::default();
        let first = locks.try_lock(pair(0)).expect("free");
        assert!(locks.try_lock(pair(0)).is_none());
        assert!(locks.try_lock(pair(0)).is_none(), "the question has freed nothing");
        assert!(locks.try_lock(pair(1)).is_some(), "another pair is free");
        drop(first);
        assert!(locks.try_lock(pair(0)).is_some());
        assert!(locks.locked.borrow().is_empty());
    }

    #[test]
    fn those_who_wait_are_served_in_order_and_those_who_leave_are_passed_over() {
        let locks = PairLocks::default();
        let order = RefCell::new(Vec::new());
        block_on(async {
            let held = locks.lock(pair(0)).await;
            let waits = |name: u32| {
                let (locks, order) = (&locks, &order);
                async move {
                    let _guard = locks.lock(pair(0)).await;
                    order.borrow_mut().push(name);
                }
            };
            let mut first = Box::pin(waits(1));
            let mut left = Box::pin(waits(2));
            let mut granted = Box::pin(waits(3));
            let mut last = Box::pin(waits(4));
            for waiting in [&mut first, &mut left, &mut granted, &mut last] {
                assert!(poll_once(waiting).await.is_none());
            }
            drop(left);
            drop(held);
            first.await;
            // It has the lock by now, and goes without having been polled again.
            drop(granted);
            zip(last, async {}).await;
        });
        assert_eq!(*order.borrow(), [1, 4]);
        assert!(locks.locked.borrow().is_empty());
    }
}
