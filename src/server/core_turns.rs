//! Turns of a core: of what keeps it busy for long, one step at a time, and a rest after each.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::types::{ByteBudget, MonotonicTime};

/// Others get the core for this many times what a step took.
const REST_FACTOR: u32 = 2;
/// The rest after one step is never longer: the clock may have been stopped with the whole machine.
const REST_MAX: Duration = Duration::from_millis(100);

/// One for all shards of a core: four shards that took turns each by itself would never leave it to anybody.
pub(crate) struct CoreTurns {
    clock: SharedClock,
    /// One step at a time, in the order of arrival.
    turn: ByteBudget,
    /// Before then no step begins.
    rests_until: Cell<MonotonicTime>,
}

impl CoreTurns {
    pub fn new(clock: SharedClock) -> Rc<Self> {
        Rc::new(Self { clock, turn: ByteBudget::new(1), rests_until: Cell::new(MonotonicTime(0)) })
    }

    /// Carries out a step when it is due; `None` when nobody wants it any more by then.
    pub async fn carry_out<T>(&self, is_wanted: impl Fn() -> bool, step: impl FnOnce() -> T) -> Option<T> {
        let _turn = self.turn.reserve(1).await;
        let rest = self.rests_until.get().since(self.clock.monotonic());
        if !rest.is_zero() {
            self.clock.sleep(rest).await;
        }
        if !is_wanted() {
            return None;
        }
        let begun = self.clock.monotonic();
        let outcome = step();
        let now = self.clock.monotonic();
        let rest = (now.since(begun) * REST_FACTOR).min(REST_MAX);
        self.rests_until.set(now.after(rest));
        Some(outcome)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;
    use std::pin::Pin;

    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::clock::Clock;
    use crate::types::{Timestamp, WakerList};

    /// A clock that a test moves; who sleeps looks again whenever it is polled.
    #[derive(Default)]
    pub struct HandClock {
        pub now: Rc<Cell<u64>>,
        pub moved: Rc<WakerList>,
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
        let turns = CoreTurns::new(Rc::new(HandClock { now: now.clone(), moved: moved.clone() }));
        let over = RefCell::new(Vec::new());
        let mut all: Vec<_> = (0..4)
            .map(|number: u32| {
                let (turns, over, now) = (&turns, &over, now.clone());
                Box::pin(async move {
                    let step = || now.set(now.get() + STEP);
                    turns.carry_out(|| true, step).await.expect("it is wanted");
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
    fn what_is_not_wanted_any_more_costs_nothing() {
        let turns = CoreTurns::new(Rc::new(HandClock::default()));
        let outcome = block_on(turns.carry_out(|| false, || panic!("nobody waits for it")));
        assert_eq!(outcome, None::<()>);
        assert_eq!(block_on(turns.carry_out(|| true, || 7)), Some(7), "the turn was given on");
    }
}
