//! Handshakes of TLS, one step of one of them at a time.
//!
//! One with a large RSA key keeps a core busy for milliseconds, and whoever likes can begin one. So a shard carries out
//! one step of one handshake at a time, and after each lets the core to others for twice as long as it took: handshakes
//! never have more than a third of it, and the longest that a message waits for them is one step. They stay on their
//! shard's core: a thread beside it would take its time from the same cores, and would need the socket to change threads.
//!
//! Beyond a number of handshakes under way a connection is closed at once; one that takes too long is ended by the watch
//! over connections, and one whose client has left meanwhile costs nothing more.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::limits;
use crate::types::{ByteBudget, MonotonicTime};

/// Others get the core for this many times what a step took.
const REST_FACTOR: u32 = 2;
/// The rest after one step is never longer: the clock may have been stopped with the whole machine.
const REST_MAX: Duration = Duration::from_millis(100);

/// The handshakes of one shard.
pub(crate) struct Handshakes {
    clock: SharedClock,
    /// One step at a time, in the order of arrival.
    step: ByteBudget,
    /// Before then no step begins.
    rests_until: Cell<MonotonicTime>,
    under_way: Cell<usize>,
}

/// Counts one handshake as long as it is held.
pub(crate) struct HandshakePermit(Rc<Handshakes>);

impl Handshakes {
    pub fn new(clock: SharedClock) -> Rc<Self> {
        Rc::new(Self {
            clock,
            step: ByteBudget::new(1),
            rests_until: Cell::new(MonotonicTime(0)),
            under_way: Cell::new(0),
        })
    }

    /// A permit for one more handshake; `None` when there are too many under way.
    pub fn permit(self: &Rc<Self>) -> Option<HandshakePermit> {
        let is_free = self.under_way.get() < limits::SHARD_HANDSHAKES_MAX;
        is_free.then(|| {
            self.under_way.set(self.under_way.get() + 1);
            HandshakePermit(self.clone())
        })
    }
}

impl HandshakePermit {
    /// Carries a handshake out, step by step; `None` when a step is due and `is_wanted` no more.
    pub async fn carry_out<T>(
        &self,
        handshake: impl Future<Output = T>,
        is_wanted: impl Fn() -> bool,
    ) -> Option<T> {
        let handshakes = &self.0;
        let mut handshake = pin!(handshake);
        loop {
            let permit = handshakes.step.reserve(1).await;
            let rest = handshakes.rests_until.get().since(handshakes.clock.monotonic());
            if !rest.is_zero() {
                handshakes.clock.sleep(rest).await;
            }
            if !is_wanted() {
                return None;
            }
            let begun = handshakes.clock.monotonic();
            let step = poll_fn(|context| Poll::Ready(handshake.as_mut().poll(context))).await;
            let now = handshakes.clock.monotonic();
            let rest = (now.since(begun) * REST_FACTOR).min(REST_MAX);
            handshakes.rests_until.set(now.after(rest));
            drop(permit);
            match step {
                Poll::Ready(outcome) => return Some(outcome),
                Poll::Pending => woken().await,
            }
        }
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

/// Completes when the task is woken next, by whatever it waits for: the handshake has been told of this task's waker.
async fn woken() {
    let mut is_first = true;
    poll_fn(|_| if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }).await;
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::pin::Pin;

    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::clock::Clock;
    use crate::types::{Timestamp, WakerList};

    /// A clock that a test moves; who sleeps looks again whenever it is polled.
    #[derive(Default)]
    struct HandClock {
        now: Rc<Cell<u64>>,
        moved: Rc<WakerList>,
    }

    impl Clock for HandClock {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }

        fn monotonic(&self) -> MonotonicTime {
            MonotonicTime(self.now.get())
        }

        fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
            let (now, moved) = (self.now.clone(), self.moved.clone());
            let until = now.get() + duration.as_nanos() as u64;
            Box::pin(async move {
                while now.get() < until {
                    moved.changed().await;
                }
            })
        }
    }

    const STEP: u64 = 5_000_000;

    /// Handshakes of one step of 5 ms each; when they were over, in milliseconds.
    #[test]
    fn handshakes_take_a_third_of_the_time_and_come_in_their_order() {
        let (now, moved) = (Rc::new(Cell::new(0)), Rc::new(WakerList::new()));
        let clock = Rc::new(HandClock { now: now.clone(), moved: moved.clone() });
        let handshakes = Handshakes::new(clock);
        let over = RefCell::new(Vec::new());
        let mut all: Vec<_> = (0..4)
            .map(|number: u32| {
                let (handshakes, over, now) = (&handshakes, &over, now.clone());
                Box::pin(async move {
                    let permit = handshakes.permit().expect("there are few");
                    let step = async { now.set(now.get() + STEP) };
                    permit.carry_out(step, || true).await.expect("it is wanted");
                    over.borrow_mut().push((number, now.get() / 1_000_000));
                })
            })
            .collect();
        for _ in 0..200 {
            all.retain_mut(|handshake| block_on(poll_once(handshake.as_mut())).is_none());
            now.set(now.get() + 1_000_000);
            moved.wake();
        }
        drop(all);
        let over = over.into_inner();
        assert_eq!(over.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2, 3], "{over:?}");
        for pair in over.windows(2) {
            assert!(pair[1].1 - pair[0].1 >= 15, "5 ms of three times 5: {over:?}");
        }
    }

    #[test]
    fn who_is_not_wanted_any_more_costs_nothing_and_too_many_are_refused() {
        let handshakes = Handshakes::new(Rc::new(HandClock::default()));
        let permits: Vec<_> =
            (0..limits::SHARD_HANDSHAKES_MAX).map(|_| handshakes.permit().expect("it is free")).collect();
        assert!(handshakes.permit().is_none());
        let outcome = block_on(permits[0].carry_out(async { panic!("nobody waits for it") }, || false));
        assert_eq!(outcome, None::<()>);
        drop(permits);
        assert!(handshakes.permit().is_some());
    }
}
