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
    /// Counts calls of `wake`; a waiter is done when it differs from what it was at its first poll.
    generation: u64,
    wakers: Vec<Waker>,
}

/// Future of [`WakerList::changed`].
pub struct Changed<'a> {
    list: &'a WakerList,
    generation: u64,
    registered: bool,
}

impl WakerList {
    pub fn new() -> Self {
        Self::default()
    }

    /// Completes at the next `wake` after this call.
    pub fn changed(&self) -> Changed<'_> {
        Changed { list: self, generation: self.state.borrow().generation, registered: false }
    }

    /// Wakes every waiter. The list keeps its memory, so that a steady state allocates nothing.
    pub fn wake(&self) {
        let mut wakers = {
            let mut state = self.state.borrow_mut();
            state.generation += 1;
            std::mem::take(&mut state.wakers)
        };
        wakers.drain(..).for_each(Waker::wake);
        let mut state = self.state.borrow_mut();
        if state.wakers.is_empty() && state.wakers.capacity() < wakers.capacity() {
            state.wakers = wakers;
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.state.borrow().wakers.is_empty()
    }
}

impl Future for Changed<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.list.state.borrow_mut();
        if state.generation != self.generation {
            return Poll::Ready(());
        }
        // A second poll comes with the same task's waker unless the future has moved to another task.
        let known = self.registered && state.wakers.iter().any(|waker| waker.will_wake(context.waker()));
        if !known {
            state.wakers.push(context.waker().clone());
        }
        drop(state);
        self.registered = true;
        Poll::Pending
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
}
