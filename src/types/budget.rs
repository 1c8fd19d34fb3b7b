//! A bound on bytes that many tasks of one executor hold together.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Hands out shares of a fixed number of bytes. Who finds too little left waits, in the order of arrival or of a rank: a
/// large share is not passed over for ever by small ones. A clone is the same budget.
#[derive(Clone)]
pub struct ByteBudget {
    bytes_max: usize,
    taken: Rc<Taken>,
}

/// A share of a budget, given back when dropped. It can go on to another task, and change its size.
pub struct Reservation {
    taken: Rc<Taken>,
    bytes: usize,
}

/// A place in the row: the rank, then the order of arrival.
type Ticket = (usize, u64);

#[derive(Default)]
struct Taken {
    bytes: Cell<usize>,
    peak: Cell<usize>,
    /// Who waits, in order.
    waiting: RefCell<BTreeMap<Ticket, Waker>>,
    next_arrival: Cell<u64>,
    /// Counts what may let the first of the row through.
    changes: Cell<u64>,
}

impl ByteBudget {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, taken: Rc::default() }
    }

    /// Waits until `bytes` are free. A share larger than the whole budget is granted when it is alone.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        self.reserve_within(bytes, || self.bytes_max).await
    }

    /// Waits until `bytes` are free of a budget of which less may be taken at some times: `bytes_max` is asked whenever a share
    /// was given back.
    pub async fn reserve_within(&self, bytes: usize, bytes_max: impl Fn() -> usize) -> Reservation {
        let taken = &self.taken;
        Reserve { taken, ticket: None, rank: 0, seen: 0, bytes, beside: 0, bytes_max }.await
    }

    /// Waits until `bytes` are free, before all those who wait with a higher rank. Who is passed over needs a time limit of
    /// its own. A share that does not fit is granted beside up to `beside` bytes, for budgets in which so much may be held by
    /// those who wait.
    pub async fn reserve_ranked(&self, bytes: usize, rank: usize, beside: usize) -> Reservation {
        let (taken, bytes_max) = (&self.taken, || self.bytes_max);
        Reserve { taken, ticket: None, rank, seen: 0, bytes, beside, bytes_max }.await
    }

    /// Takes `bytes` if they are free and nobody waits.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let is_free = self.taken.waiting.borrow().is_empty() && self.taken.fits(bytes, 0, self.bytes_max);
        is_free.then(|| Reservation::take(&self.taken, bytes))
    }

    /// Counts bytes that are there already, whether the budget has them or not: for what is small, and bounded by those
    /// who ask [`is_full`](ByteBudget::is_full) before they cause more of it.
    pub fn count(&self, bytes: usize) -> Reservation {
        Reservation::take(&self.taken, bytes)
    }

    pub fn bytes(&self) -> usize {
        self.taken.bytes.get()
    }

    /// The most that was taken at any time.
    pub fn peak(&self) -> usize {
        self.taken.peak.get()
    }

    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether nothing is left.
    pub fn is_full(&self) -> bool {
        self.bytes() >= self.bytes_max
    }

    /// Whether somebody waits for a share.
    pub fn is_waited_for(&self) -> bool {
        !self.taken.waiting.borrow().is_empty()
    }
}

impl fmt::Debug for ByteBudget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {} bytes", self.bytes(), self.bytes_max)
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.bytes)
    }
}

impl Taken {
    fn fits(&self, bytes: usize, beside: usize, bytes_max: usize) -> bool {
        self.bytes.get() <= beside || self.bytes.get() + bytes <= bytes_max
    }

    fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        self.peak.set(self.peak.get().max(self.bytes.get()));
    }

    fn subtract(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
        self.wake_first();
    }

    /// Lets the first of those who wait look again. Who takes its share wakes the next one.
    fn wake_first(&self) {
        self.changes.set(self.changes.get() + 1);
        if let Some((_, waker)) = self.waiting.borrow().first_key_value() {
            waker.wake_by_ref();
        }
    }
}

impl Reservation {
    fn take(taken: &Rc<Taken>, bytes: usize) -> Self {
        taken.add(bytes);
        Self { taken: taken.clone(), bytes }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes the share this large, whether the budget has more or not: see [`ByteBudget::count`].
    pub fn set(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.taken.add(more),
            None => self.taken.subtract(self.bytes - bytes),
        }
        self.bytes = bytes;
    }

    /// Adds another share of the same budget to this one.
    pub fn merge(&mut self, mut other: Reservation) {
        assert!(Rc::ptr_eq(&self.taken, &other.taken), "shares of one budget");
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.taken.subtract(self.bytes);
        }
    }
}

/// Future of [`ByteBudget::reserve_within`]. Dropping it gives the place in the row up.
struct Reserve<'a, F> {
    taken: &'a Rc<Taken>,
    /// `None` before the first poll, and once the share is taken.
    ticket: Option<Ticket>,
    rank: usize,
    /// The change up to which this has looked.
    seen: u64,
    bytes: usize,
    /// It is granted beside this much, however large it is.
    beside: usize,
    bytes_max: F,
}

impl<F> Reserve<'_, F> {
    fn leave(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        self.taken.waiting.borrow_mut().remove(&ticket);
        self.taken.wake_first();
    }
}

// Nothing in it refers to itself.
impl<F> Unpin for Reserve<'_, F> {}

impl<F: Fn() -> usize> Future for Reserve<'_, F> {
    type Output = Reservation;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reservation> {
        let this = self.get_mut();
        let changes = this.taken.changes.get();
        let is_new = this.ticket.is_none() || std::mem::replace(&mut this.seen, changes) != changes;
        let ticket = this.ticket.unwrap_or((this.rank, this.taken.next_arrival.get()));
        let first = this.taken.waiting.borrow().first_key_value().map(|(ticket, _)| *ticket);
        let is_first = first.is_none_or(|first| ticket <= first);
        if is_new && is_first && this.taken.fits(this.bytes, this.beside, (this.bytes_max)()) {
            let reservation = Reservation::take(this.taken, this.bytes);
            this.leave();
            return Poll::Ready(reservation);
        }
        if this.ticket.is_none() {
            this.taken.next_arrival.set(ticket.1 + 1);
            (this.ticket, this.seen) = (Some(ticket), changes);
        }
        this.taken.waiting.borrow_mut().insert(ticket, context.waker().clone());
        Poll::Pending
    }
}

impl<F> Drop for Reserve<'_, F> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn less_may_be_taken_at_some_times() {
        let budget = ByteBudget::new(10);
        let limit = Cell::new(4);
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

    /// Taken by whoever comes first after it was given back, a large share would never be had beside many small ones.
    #[test]
    fn shares_are_had_in_the_order_in_which_they_were_asked_for() {
        let budget = ByteBudget::new(10);
        let first = block_on(budget.reserve(8));
        let mut large = Box::pin(budget.reserve(9));
        assert!(block_on(poll_once(&mut large)).is_none());
        assert!(budget.try_reserve(1).is_none(), "somebody was here before");
        let mut small = Box::pin(budget.reserve(1));
        assert!(block_on(poll_once(&mut small)).is_none());
        drop(first);
        assert!(block_on(poll_once(&mut small)).is_none());
        let large = block_on(poll_once(&mut large)).expect("it is the first");
        assert!(block_on(poll_once(&mut small)).is_some(), "both fit");
        drop(large);
        assert_eq!((budget.bytes(), budget.peak(), budget.is_waited_for()), (0, 10, false));
    }

    #[test]
    fn who_gives_up_waiting_lets_the_next_one_through() {
        let budget = ByteBudget::new(10);
        let first = block_on(budget.reserve(5));
        let mut large = Box::pin(budget.reserve(9));
        let mut small = Box::pin(budget.reserve(1));
        assert!(block_on(poll_once(&mut large)).is_none());
        assert!(block_on(poll_once(&mut small)).is_none());
        drop(large);
        assert!(block_on(poll_once(&mut small)).is_some());
        assert_eq!(budget.bytes(), first.bytes());
    }

    #[test]
    fn a_share_can_change_its_size() {
        let budget = ByteBudget::new(10);
        let mut share = budget.count(12);
        assert!(budget.is_full(), "what is there counts, whether it fits or not");
        share.set(3);
        share.merge(budget.try_reserve(4).expect("there is room again"));
        assert_eq!((share.bytes(), budget.bytes()), (7, 7));
        drop(share);
        assert_eq!((budget.bytes(), budget.peak()), (0, 12));
    }

    /// Two who wait with a part of the budget in hand once waited for each other.
    #[test]
    fn a_share_is_granted_beside_what_those_who_wait_may_hold() {
        let budget = ByteBudget::new(10);
        let mut held = [budget.count(1), budget.count(2)];
        let mut huge = Box::pin(budget.reserve_ranked(100, 100, 2));
        assert!(block_on(poll_once(&mut huge)).is_none());
        held[0].set(0);
        assert!(block_on(poll_once(&mut huge)).is_some());
    }

    #[test]
    fn a_lower_rank_goes_first() {
        let budget = ByteBudget::new(10);
        let first = block_on(budget.reserve(8));
        let mut large = Box::pin(budget.reserve_ranked(6, 6, 0));
        assert!(block_on(poll_once(&mut large)).is_none());
        let mut small = Box::pin(budget.reserve_ranked(5, 5, 0));
        assert!(block_on(poll_once(&mut small)).is_none());
        assert!(block_on(poll_once(&mut Box::pin(budget.reserve_ranked(2, 1, 0)))).is_some(), "it fits");
        drop(first);
        assert!(block_on(poll_once(&mut large)).is_none());
        assert!(block_on(poll_once(&mut small)).is_some());
        assert!(block_on(poll_once(&mut large)).is_some());
    }
}
