//! A bound on bytes that many tasks of one executor hold together.

use std::cell::Cell;

use super::wake::WakerList;

/// Hands out shares of a fixed number of bytes; who finds too little left waits.
pub struct ByteBudget {
    used: Cell<usize>,
    bytes_max: usize,
    released: WakerList,
}

/// A share of a budget, given back when dropped.
pub struct Reservation<'a> {
    budget: &'a ByteBudget,
    bytes: usize,
}

impl ByteBudget {
    pub fn new(bytes_max: usize) -> Self {
        Self { used: Cell::new(0), bytes_max, released: WakerList::new() }
    }

    /// Waits until `bytes` are free. A share larger than the whole budget is granted when it is alone.
    pub async fn reserve(&self, bytes: usize) -> Reservation<'_> {
        while self.used.get() > 0 && self.used.get() + bytes > self.bytes_max {
            self.released.changed().await;
        }
        self.used.set(self.used.get() + bytes);
        Reservation { budget: self, bytes }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.used.set(self.budget.used.get() - self.bytes);
        self.budget.released.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn what_does_not_fit_waits_and_what_is_too_large_goes_alone() {
        let budget = ByteBudget::new(10);
        let first = block_on(budget.reserve(7));
        let mut second = Box::pin(budget.reserve(4));
        assert!(block_on(poll_once(&mut second)).is_none());
        drop(first);
        let second = block_on(second);
        let mut huge = Box::pin(budget.reserve(100));
        assert!(block_on(poll_once(&mut huge)).is_none());
        drop(second);
        assert!(block_on(poll_once(&mut huge)).is_some());
    }
}
