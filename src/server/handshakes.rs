//! Handshakes of TLS, one step of one of them at a time.
//!
//! One with a large RSA key keeps a core busy for milliseconds, and whoever likes can begin one. So a shard carries out
//! one step of one handshake at a time, and after each lets the core to others for twice as long as it took: handshakes
//! never have more than a third of it, and the longest that a message waits for them is one step. They stay on their
//! shard's core: a thread beside it would take its time from the same cores, and would need the socket to change threads.
//!
//! A number of them is under way at most. One more takes the place of another, and nobody is kept out: where the most come
//! from, the one that began first is given up. So whoever begins many and completes none is in nobody's way but their own,
//! and even beside them a client has as long as it takes them to begin all of theirs anew. One that takes too long is ended
//! by the watch over connections, and one whose client has left meanwhile costs nothing more.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_lite::future::or;

use crate::clock::SharedClock;
use crate::limits;
use crate::types::{ByteBudget, MonotonicTime, WakerList, network_of};

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
    /// In the order in which they began.
    under_way: RefCell<Vec<Rc<UnderWay>>>,
}

/// One handshake that has begun.
struct UnderWay {
    /// `None`: the client had gone before it was asked.
    network: Option<IpAddr>,
    is_given_up: Cell<bool>,
    given_up: WakerList,
}

/// Counts one handshake as long as it is held, or until it is given up.
pub(crate) struct HandshakePermit {
    handshakes: Rc<Handshakes>,
    own: Rc<UnderWay>,
}

/// Where a handshake came from that was given up for another one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GivenUp {
    pub network: Option<IpAddr>,
    /// How many were under way from there, this one among them.
    pub count: usize,
}

impl Handshakes {
    pub fn new(clock: SharedClock) -> Rc<Self> {
        Rc::new(Self {
            clock,
            step: ByteBudget::new(1),
            rests_until: Cell::new(MonotonicTime(0)),
            under_way: RefCell::default(),
        })
    }

    /// A permit for one more handshake, of a client at this address, and whose was given up for it, if there were too many.
    pub fn permit(self: &Rc<Self>, peer: Option<IpAddr>) -> (HandshakePermit, Option<GivenUp>) {
        let is_full = self.under_way.borrow().len() >= limits::SHARD_HANDSHAKES_MAX;
        let given_up = is_full.then(|| self.give_one_up());
        let network = peer.map(network_of);
        let own = Rc::new(UnderWay { network, is_given_up: Cell::new(false), given_up: WakerList::new() });
        self.under_way.borrow_mut().push(own.clone());
        (HandshakePermit { handshakes: self.clone(), own }, given_up)
    }

    /// Gives up the oldest one of the network that has the most; of several such networks, the oldest of them all.
    fn give_one_up(&self) -> GivenUp {
        let mut under_way = self.under_way.borrow_mut();
        let mut counts = HashMap::new();
        for one in &*under_way {
            *counts.entry(one.network).or_insert(0) += 1;
        }
        let most = counts.values().copied().max().unwrap_or(0);
        let oldest = under_way.iter().position(|one| counts[&one.network] == most);
        let oldest = under_way.remove(oldest.expect("too many are under way, so there is one"));
        oldest.is_given_up.set(true);
        oldest.given_up.wake();
        GivenUp { network: oldest.network, count: most }
    }
}

impl UnderWay {
    async fn given_up(&self) {
        while !self.is_given_up.get() {
            self.given_up.changed().await;
        }
    }
}

impl HandshakePermit {
    /// Whether another handshake has taken the place of this one.
    pub fn is_given_up(&self) -> bool {
        self.own.is_given_up.get()
    }

    /// Carries a handshake out, step by step; `None` when it is given up, or when a step is due and `is_wanted` no more.
    pub async fn carry_out<T>(
        &self,
        handshake: impl Future<Output = T>,
        is_wanted: impl Fn() -> bool,
    ) -> Option<T> {
        let handshakes = &self.handshakes;
        let mut handshake = pin!(handshake);
        loop {
            let turn = async { Some(handshakes.step.reserve(1).await) };
            let given_up = async {
                self.own.given_up().await;
                None
            };
            let permit = or(given_up, turn).await?;
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
                Poll::Pending => or(woken(), self.own.given_up()).await,
            }
        }
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.handshakes.under_way.borrow_mut().retain(|one| !Rc::ptr_eq(one, &self.own));
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
                    let permit = handshakes.permit(None).0;
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

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn who_is_not_wanted_any_more_costs_nothing() {
        let handshakes = Handshakes::new(Rc::new(HandClock::default()));
        let (permit, given_up) = handshakes.permit(Some(address("192.0.2.1")));
        let outcome = block_on(permit.carry_out(async { panic!("nobody waits for it") }, || false));
        assert_eq!((outcome, given_up), (None::<()>, None));
        drop(permit);
        assert!(handshakes.under_way.borrow().is_empty());
    }

    /// Of a full shard's handshakes, the oldest goes of those who have the most; whoever has few loses none.
    #[test]
    fn one_too_many_takes_the_place_of_the_oldest_of_those_who_have_the_most() {
        const MOST: usize = limits::SHARD_HANDSHAKES_MAX;
        let handshakes = Handshakes::new(Rc::new(HandClock::default()));
        let permit = |text: &str| handshakes.permit(Some(address(text)));
        let (good, _) = permit("192.0.2.1");
        let many: Vec<_> = (1..MOST).map(|host| permit(&format!("2001:db8::{host:x}")).0).collect();
        assert!(many.iter().all(|permit| !permit.is_given_up()));
        let many_of = |count| Some(GivenUp { network: Some(address("2001:db8::")), count });
        let mut newer: Vec<_> = (1..=3).map(|_| permit("198.51.100.7")).collect();
        let given_up: Vec<_> = newer.iter_mut().map(|(_, given_up)| given_up.take()).collect();
        assert_eq!(given_up, [many_of(MOST - 1), many_of(MOST - 2), many_of(MOST - 3)]);
        let (own, given_up) = permit("2001:db8::1");
        assert_eq!(given_up, many_of(MOST - 4), "they are in their own way");
        let places: Vec<_> = (0..many.len()).filter(|&index| many[index].is_given_up()).collect();
        assert_eq!(places, [0, 1, 2, 3]);
        assert!(!own.is_given_up() && !good.is_given_up() && !newer[0].0.is_given_up());
        assert_eq!(handshakes.under_way.borrow().len(), MOST);
        drop((many, newer, own, good));
        assert!(handshakes.under_way.borrow().is_empty());
    }

    #[test]
    fn one_that_is_given_up_ends_wherever_it_waits() {
        let handshakes = Handshakes::new(Rc::new(HandClock::default()));
        let permits: Vec<_> = (0..limits::SHARD_HANDSHAKES_MAX).map(|_| handshakes.permit(None).0).collect();
        // The first waits for its client, the second for its turn, which somebody else has.
        let mut first = Box::pin(permits[0].carry_out(std::future::pending::<()>(), || true));
        assert!(block_on(poll_once(first.as_mut())).is_none());
        let turn = block_on(handshakes.step.reserve(1));
        let mut second = Box::pin(permits[1].carry_out(async {}, || true));
        assert!(block_on(poll_once(second.as_mut())).is_none());
        let newer = [handshakes.permit(None), handshakes.permit(None)];
        assert_eq!(block_on(poll_once(first)), Some(None));
        assert_eq!(block_on(poll_once(second)), Some(None));
        drop((turn, newer));
    }
}
