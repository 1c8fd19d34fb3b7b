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

/// The pairs whose turn somebody has, each with those who wait for it.
#[derive(Debug, Default)]
pub(in crate::broker) struct Turns {
    taken: RefCell<HashMap<Pair, VecDeque<Rc<Waiter>>>>,
}

/// A pair's turn; goes to the next in line when dropped.
#[derive(Debug)]
pub(in crate::broker) struct Turn<'a> {
    turns: &'a Turns,
    pair: Pair,
}

#[derive(Debug, Default)]
struct Waiter {
    is_granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Future of [`Turns::wait`]. Dropping it leaves the line.
struct Waiting<'a> {
    turns: &'a Turns,
    /// `None` once the turn was given out.
    pair: Option<Pair>,
    waiter: Rc<Waiter>,
}

impl Turns {
    /// The pair's turn, unless somebody has it.
    pub fn take(&self, pair: Pair) -> Option<Turn<'_>> {
        let mut taken = self.taken.borrow_mut();
        if taken.contains_key(&pair) {
            return None;
        }
        taken.insert(pair.clone(), VecDeque::new());
        Some(Turn { turns: self, pair })
    }

    /// Waits in line for the pair's turn.
    pub async fn wait(&self, pair: Pair) -> Turn<'_> {
        let waiter = Rc::new(Waiter::default());
        match self.taken.borrow_mut().get_mut(&pair) {
            Some(line) => line.push_back(waiter.clone()),
            None => waiter.is_granted.set(true),
        }
        if waiter.is_granted.get() {
            self.taken.borrow_mut().insert(pair.clone(), VecDeque::new());
        }
        Waiting { turns: self, pair: Some(pair), waiter }.await
    }

    /// Gives a turn that has ended to the next in line.
    fn pass(&self, pair: &Pair) {
        let mut taken = self.taken.borrow_mut();
        let next = taken.get_mut(pair).and_then(VecDeque::pop_front);
        let Some(next) = next else {
            taken.remove(pair);
            return;
        };
        next.is_granted.set(true);
        let waker = next.waker.take();
        drop(taken);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Turn<'_> {
    pub fn key(&self) -> QueueKey {
        self.pair.key
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.pass(&self.pair);
    }
}

impl<'a> Future for Waiting<'a> {
    type Output = Turn<'a>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn<'a>> {
        if !self.waiter.is_granted.get() {
            *self.waiter.waker.borrow_mut() = Some(context.waker().clone());
            return Poll::Pending;
        }
        let pair = self.pair.take().expect("a future is not polled after its end");
        Poll::Ready(Turn { turns: self.turns, pair })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(pair) = self.pair.take() else { return };
        if self.waiter.is_granted.get() {
            self.turns.pass(&pair);
        } else if let Some(line) = self.turns.taken.borrow_mut().get_mut(&pair) {
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
    fn a_turn_is_given_to_one_and_asking_takes_it_from_nobody() {
        let turns = Turns::default();
        let first = turns.take(pair(0)).expect("free");
        assert!(turns.take(pair(0)).is_none());
        assert!(turns.take(pair(0)).is_none(), "the question has freed nothing");
        assert!(turns.take(pair(1)).is_some(), "another pair is free");
        drop(first);
        assert!(turns.take(pair(0)).is_some());
        assert!(turns.taken.borrow().is_empty());
    }

    #[test]
    fn those_who_wait_are_served_in_order_and_those_who_leave_are_passed_over() {
        let turns = Turns::default();
        let order = RefCell::new(Vec::new());
        block_on(async {
            let held = turns.wait(pair(0)).await;
            let waits = |name: u32| {
                let (turns, order) = (&turns, &order);
                async move {
                    let _turn = turns.wait(pair(0)).await;
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
            // It has the turn by now, and goes without having been polled again.
            drop(granted);
            zip(last, async {}).await;
        });
        assert_eq!(*order.borrow(), [1, 4]);
        assert!(turns.taken.borrow().is_empty());
    }
}
