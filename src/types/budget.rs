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
        self.reserve_within(bytes, || self.bytes_max).await
    }

    /// The same where less may be taken at some times: looked up whenever a share was given back.
    pub async fn reserve_within(&self, bytes: usize, bytes_max: impl Fn() -> usize) -> Reservation {
        loop {
            if let Some(reservation) = self.try_within(bytes, bytes_max()) {
                return reservation;
            }
            self.taken.released.changed().await;
        }
    }

    /// The same when it takes no waiting.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        self.try_within(bytes, self.bytes_max)
    }

    fn try_within(&self, bytes: usize, bytes_max: usize) -> Option<Reservation> {
        let taken = &self.taken;
        let is_free = taken.bytes.get() == 0 || taken.bytes.get() + bytes <= bytes_max;
        is_free.then(|| {
            taken.bytes.set(taken.bytes.get() + bytes);
            Reservation { taken: taken.clone(), bytes }
        })
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
    fn less_may_be_taken_at_some_times() {
        let budget = ByteBudget::new(10);
        let limit = std::cell::Cell::new(4);
        let first = block_on(budget.reserve_within(4, || limit.get()));
        assert!(budget.try_reserve(6).is_some(), "the whole is there for others");
        let mut second = Box::pin(budget.reserve_within(1, || limit.get()));
        assert!(block_on(poll_once(&mut second)).is_none());
        limit.set(5);
        assert!(block_on(poll_once(&mut second)).is_none(), "looked up when a share is given back");
        drop(first);
        assert!(block_on(poll_once(&mut second)).is_some());
    }

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
