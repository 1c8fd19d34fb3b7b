//! Waiting for a condition on one executor.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Tasks of one executor that wait until some condition may hold. Whoever changes the condition calls [`wake`].
///
/// A waiter checks its condition first, then awaits [`changed`], then checks again: waking says "look again", not
/// "it holds". There is no lost wake-up between the two, because nothing else runs between a check and the first poll
/// of `changed` on the same executor.
///
/// [`wake`]: WakerList::wake
/// [`changed`]: WakerList::changed
#[derive(Default)]
pub struct WakerList {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Counts calls of `wake`; a waiter is done when it differs from what it was when the waiter was made.
    generation: u64,
    /// Registered waiters by ascending number.
    waiters: Vec<(u64, Waker)>,
    next_number: u64,
}

/// Future of [`WakerList::changed`]. Dropping it takes it off the list.
pub struct Changed<'a> {
    list: &'a WakerList,
    generation: u64,
    number: Option<u64>,
}

impl WakerList {
    pub fn new() -> Self {
        Self::default()
    }

    /// Completes at the next `wake` after this call.
    pub fn changed(&self) -> Changed<'_> {
        Changed { list: self, generation: self.state.borrow().generation, number: None }
    }

    /// Wakes every waiter. The list keeps its memory, so that a steady state allocates nothing.
    pub fn wake(&self) {
        let mut waiters = {
            let mut state = self.state.borrow_mut();
            state.generation += 1;
            std::mem::take(&mut state.waiters)
        };
        waiters.drain(..).for_each(|(_, waker)| waker.wake());
        let mut state = self.state.borrow_mut();
        if state.waiters.is_empty() && state.waiters.capacity() < waiters.capacity() {
            state.waiters = waiters;
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.state.borrow().waiters.is_empty()
    }
}

impl Future for Changed<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let list = self.list;
        let mut state = list.state.borrow_mut();
        if state.generation != self.generation {
            return Poll::Ready(());
        }
        match self.number {
            Some(number) => {
                let at = state.waiters.binary_search_by_key(&number, |(number, _)| *number);
                let at = at.expect("a waiter stays on the list until it is woken");
                state.waiters[at].1.clone_from(context.waker());
            }
            None => {
                let number = state.next_number;
                state.next_number += 1;
                state.waiters.push((number, context.waker().clone()));
                self.number = Some(number);
            }
        }
        Poll::Pending
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = self.list.state.borrow_mut();
        if let Ok(at) = state.waiters.binary_search_by_key(&number, |(number, _)| *number) {
            state.waiters.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_waiter_sees_the_next_wake_and_not_an_earlier_one() {
        let list = WakerList::new();
        list.wake();
        let mut waiter = Box::pin(list.changed());
        assert!(block_on(poll_once(&mut waiter)).is_none());
        assert!(!list.is_empty());
        list.wake();
        assert!(block_on(poll_once(&mut waiter)).is_some());
        assert!(list.is_empty());
    }

    #[test]
    fn a_dropped_waiter_leaves_nothing_behind() {
        let list = WakerList::new();
        let mut first = Box::pin(list.changed());
        let mut second = Box::pin(list.changed());
        assert!(block_on(poll_once(&mut first)).is_none());
        assert!(block_on(poll_once(&mut second)).is_none());
        drop(first);
        assert!(!list.is_empty());
        drop(second);
        assert!(list.is_empty());
    }
}
