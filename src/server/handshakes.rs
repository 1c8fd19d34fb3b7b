//! Handshakes of TLS that are under way.
//!
//! One with a large RSA key keeps a core busy for milliseconds, and whoever likes can begin one. So each goes on step by step:
//! what takes milliseconds is made by threads that take no core from others (`costly_steps.rs`), and of the rest a core makes
//! one step of one handshake at a time, and after each is left to others for twice as long as it took (`core_turns.rs`).
//!
//! A number of them is under way at most. One more takes the place of another, and nobody is kept out: where the most come
//! from, the one that began first is given up. So whoever begins many and completes none is in nobody's way but their own,
//! and even beside them a client has as long as it takes them to begin all of theirs anew. One that takes too long is ended
//! by the watch over connections, and one whose client has left meanwhile costs nothing more.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::limits;
use crate::types::{WakerList, network_of};

/// The handshakes of one shard.
#[derive(Default)]
pub(crate) struct Handshakes {
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

impl HandshakePermit {
    /// Where the client is, as far as addresses share what there is.
    pub fn network(&self) -> Option<IpAddr> {
        self.own.network
    }

    /// Whether another handshake has taken the place of this one.
    pub fn is_given_up(&self) -> bool {
        self.own.is_given_up.get()
    }

    /// Waits until another handshake takes the place of this one.
    pub async fn given_up(&self) {
        while !self.is_given_up() {
            self.own.given_up.changed().await;
        }
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.handshakes.under_way.borrow_mut().retain(|one| !Rc::ptr_eq(one, &self.own));
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Of a full shard's handshakes, the oldest goes of those who have the most; whoever has few loses none.
    #[test]
    fn one_too_many_takes_the_place_of_the_oldest_of_those_who_have_the_most() {
        const MOST: usize = limits::SHARD_HANDSHAKES_MAX;
        let handshakes = Rc::<Handshakes>::default();
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
    fn one_that_is_given_up_is_told() {
        let handshakes = Rc::<Handshakes>::default();
        let permits: Vec<_> = (0..limits::SHARD_HANDSHAKES_MAX).map(|_| handshakes.permit(None).0).collect();
        let mut first = Box::pin(permits[0].given_up());
        assert!(block_on(poll_once(first.as_mut())).is_none());
        let newer = handshakes.permit(None);
        block_on(first);
        assert!(permits[0].is_given_up() && !permits[1].is_given_up());
        drop(newer);
    }
}
