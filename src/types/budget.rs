//! A bound on bytes that many tasks of one executor hold together.

use std::cell::Cell;
use std::rc::Rc;

use super::wake::WakerList;

/// Hands out shares of a fixed number of bytes; who finds too little left waits.
pub struct ByteBudget {
    bytes_max: usize,
    taken: Rc<Taken>,
}

/// A share of a budget, given back when dropped. It can go on to another task.
pub struct Reservation {
    taken: Rc<Taken>,
    bytes: usize,
}

struct Taken {
    bytes: Cell<usize>,
    released: WakerList,
}

impl ByteBudget {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, taken: Rc::new(Taken { bytes: Cell::new(0), released: WakerList::new() }) }
    }

    /// Waits until `bytes` are free. A share larger than the whole budget is granted when it is alone.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let taken = &self.taken;
        while taken.bytes.get() > 0 && taken.bytes.get() + bytes > self.bytes_max {
            taken.released.changed().await;
        }
        taken.bytes.set(taken.bytes.get() + bytes);
        Reservation { taken: taken.clone(), bytes }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.taken.bytes.set(self.taken.bytes.get() - self.bytes);
        self.taken.released.wake();
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
