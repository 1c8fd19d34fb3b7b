//! Calls that were called (`parked`), and cannot be carried out where they are looked at: a few tasks of their connection do
//! it, for one call after the other. A thousand of them may be called by one message.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::limits;

/// The calls of one connection that are to be carried out, in the order in which they were called.
pub(crate) struct Called<T> {
    calls: RefCell<VecDeque<T>>,
    /// Tasks that carry them out; at most `limits::CONNECTION_CALLED_MAX`.
    tasks: Cell<usize>,
}

impl<T: 'static> Called<T> {
    pub fn new() -> Rc<Self> {
        Rc::new(Self { calls: RefCell::default(), tasks: Cell::new(0) })
    }

    /// Adds a call. What is returned is one more task to carry calls out with `carry_out`, where there may be one more: the
    /// caller spawns it.
    #[must_use]
    pub fn add(
        self: &Rc<Self>,
        call: T,
        carry_out: impl AsyncFn(T) + 'static,
    ) -> Option<impl Future<Output = ()> + 'static> {
        self.calls.borrow_mut().push_back(call);
        if self.tasks.get() == limits::CONNECTION_CALLED_MAX {
            return None;
        }
        self.tasks.set(self.tasks.get() + 1);
        let called = self.clone();
        Some(async move {
            while let Some(call) = called.next() {
                carry_out(call).await;
            }
            called.tasks.set(called.tasks.get() - 1);
        })
    }

    fn next(&self) -> Option<T> {
        self.calls.borrow_mut().pop_front()
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn a_few_tasks_carry_out_all_calls_in_their_order() {
        let called = Called::new();
        let done = Rc::new(RefCell::new(Vec::new()));
        let add = |number: usize| {
            let done = done.clone();
            called.add(number, async move |number| {
                futures_lite::future::yield_now().await;
                done.borrow_mut().push(number);
            })
        };
        let count = 3 * limits::CONNECTION_CALLED_MAX;
        let mut tasks: Vec<_> = (0..count).filter_map(add).map(Box::pin).collect();
        assert_eq!(tasks.len(), limits::CONNECTION_CALLED_MAX);
        while !tasks.is_empty() {
            tasks.retain_mut(|task| block_on(poll_once(task)).is_none());
        }
        assert_eq!(*done.borrow(), (0..count).collect::<Vec<_>>());
        assert!(add(count).is_some(), "the tasks are over");
    }
}
