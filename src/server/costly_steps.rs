//! Steps of TLS handshakes that take milliseconds, made by threads beside the executors.
//!
//! A signature with an RSA key of 4,096 bits takes 3.5 ms, in which an executor can let nobody in between. So a shard hands such a
//! session to a thread that the system runs only where a core would otherwise be idle, and gets it back when the step is made. One
//! session of a shard is away at a time, so all that can wait for the threads is one per shard. Which one is next: of the
//! network that was served longest ago, the one that came first. Whoever begins many is in their own way.
//!
//! Where no core is ever idle such a thread gets next to nothing. So once a session has been away for [`STARVED_AFTER`], the shard
//! makes another one's step itself, and until that session is back one more every [`HERE_INTERVAL`].
//!
//! A thread wakes nobody but [`CostlySteps::run`], which lives as long as the shard: as with letters (`node/mailbox.rs`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_lite::future::or;
use rustls::ServerConnection;

use super::core_turns::CoreTurns;
use crate::clock::SharedClock;
use crate::types::WakerList;

/// After this long it is taken that no core is idle.
const STARVED_AFTER: Duration = Duration::from_millis(100);
/// Fifty steps a second are a sixth of a core with the slowest keys.
const HERE_INTERVAL: Duration = Duration::from_millis(20);

/// A session whose next step takes long, on its way to a thread that makes it.
pub(crate) struct CostlyStep {
    /// `None` once it is on its way back.
    session: Option<Box<ServerConnection>>,
    back: Sender<Option<Stepped>>,
}

/// The way to the threads that make costly steps.
pub(crate) type CostlyStepSender = Sender<CostlyStep>;

/// A session that has taken what came for it.
pub(crate) struct Stepped {
    pub session: Box<ServerConnection>,
    pub outcome: Result<(), rustls::Error>,
}

impl Stepped {
    /// Blocks for as long as the step takes.
    pub fn of(mut session: Box<ServerConnection>) -> Self {
        let outcome = session.process_new_packets().map(drop);
        Self { session, outcome }
    }
}

impl CostlyStep {
    /// Makes the step, and sends the session back. Blocks for milliseconds.
    pub fn carry_out(mut self) {
        let Some(session) = &mut self.session else { return };
        let outcome = session.process_new_packets().map(drop);
        let stepped = self.session.take().map(|session| Stepped { session, outcome });
        // A shard that has ended does not miss it.
        let _ = self.back.try_send(stepped);
    }
}

impl Drop for CostlyStep {
    /// Says that the session does not come back: the thread that had it has ended.
    fn drop(&mut self) {
        if self.session.is_some() {
            let _ = self.back.try_send(None);
        }
    }
}

/// The costly steps of one shard.
pub(crate) struct CostlySteps {
    clock: SharedClock,
    threads: CostlyStepSender,
    back: Sender<Option<Stepped>>,
    returned: Receiver<Option<Stepped>>,
    row: RefCell<Row>,
    /// Somebody has the place at the threads: their session is away, or about to be.
    is_taken: Cell<bool>,
    /// Where the session that is away is waited for.
    away: RefCell<Option<Rc<Slot>>>,
    sent: WakerList,
    has_failed: Cell<bool>,
}

/// Who waits for a place.
#[derive(Default)]
struct Row {
    /// In the order of arrival.
    waiting: Vec<Rc<Waiting>>,
    /// When a network had its last turn, for those that somebody waits from.
    served: HashMap<Option<IpAddr>, u64>,
    turns: u64,
}

struct Waiting {
    network: Option<IpAddr>,
    place: Cell<Option<Place>>,
    called: WakerList,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the threads: it is free again when its session comes back, or was never sent.
    Threads,
    /// In the shard's own executor.
    Here,
}

/// Where the session that is away is put when it is back.
#[derive(Default)]
struct Slot {
    /// `None` within: it was lost.
    stepped: RefCell<Option<Option<Stepped>>>,
    filled: WakerList,
}

/// A place in the row, or one that was called; passed on when it is dropped.
struct Held<'a> {
    steps: &'a CostlySteps,
    waiting: Rc<Waiting>,
}

impl Row {
    /// Takes out the one whose turn it is.
    fn next(&mut self) -> Option<Rc<Waiting>> {
        let served = |waiting: &Waiting| self.served.get(&waiting.network).copied().unwrap_or(0);
        // Of equal ones the first.
        let index = (0..self.waiting.len()).min_by_key(|&index| served(&self.waiting[index]))?;
        let next = self.waiting.remove(index);
        self.turns += 1;
        self.served.insert(next.network, self.turns);
        self.forget(next.network);
        Some(next)
    }

    fn take_off(&mut self, one: &Rc<Waiting>) {
        self.waiting.retain(|waiting| !Rc::ptr_eq(waiting, one));
        self.forget(one.network);
    }

    fn forget(&mut self, network: Option<IpAddr>) {
        if self.waiting.iter().all(|waiting| waiting.network != network) {
            self.served.remove(&network);
        }
    }
}

impl CostlySteps {
    pub fn new(clock: SharedClock, threads: CostlyStepSender) -> Self {
        let (back, returned) = async_channel::unbounded();
        Self {
            clock,
            threads,
            back,
            returned,
            row: RefCell::default(),
            is_taken: Cell::new(false),
            away: RefCell::default(),
            sent: WakerList::new(),
            has_failed: Cell::new(false),
        }
    }

    /// Makes a session's next step when it is due; `None` when it `is_wanted` no more by then, or was lost with the thread that had
    /// it.
    pub async fn carry_out(
        &self,
        session: Box<ServerConnection>,
        network: Option<IpAddr>,
        turns: &CoreTurns,
        is_wanted: impl Fn() -> bool,
    ) -> Option<Stepped> {
        let held = self.place(network).await;
        let is_here = held.waiting.place.get() == Some(Place::Here);
        let sent = if is_here { Err(session) } else { self.send(session, &held, &is_wanted)? };
        match sent {
            Ok(slot) => {
                while slot.stepped.borrow().is_none() {
                    slot.filled.changed().await;
                }
                slot.stepped.take().flatten()
            }
            Err(session) => {
                drop(held);
                turns.carry_out(is_wanted, || Stepped::of(session)).await
            }
        }
    }

    /// Hands a session to the threads; back comes where it will be put, or itself if there are none any more. `None` when it is not
    /// wanted.
    fn send(
        &self,
        session: Box<ServerConnection>,
        held: &Held<'_>,
        is_wanted: impl Fn() -> bool,
    ) -> Option<Result<Rc<Slot>, Box<ServerConnection>>> {
        if !is_wanted() {
            return None;
        }
        let step = CostlyStep { session: Some(session), back: self.back.clone() };
        match self.threads.try_send(step) {
            Ok(()) => {
                // From now on it is the session's, whoever waits for it.
                held.waiting.place.set(None);
                let slot = Rc::<Slot>::default();
                self.away.replace(Some(slot.clone()));
                self.sent.wake();
                Some(Ok(slot))
            }
            Err(refused) => {
                self.note_failure();
                refused.into_inner().session.take().map(Err)
            }
        }
    }

    async fn place(&self, network: Option<IpAddr>) -> Held<'_> {
        let waiting = Rc::new(Waiting { network, place: Cell::new(None), called: WakerList::new() });
        let held = Held { steps: self, waiting: waiting.clone() };
        self.row.borrow_mut().waiting.push(waiting);
        if !self.is_taken.get() {
            self.call_next(Place::Threads);
        }
        while held.waiting.place.get().is_none() {
            held.waiting.called.changed().await;
        }
        held
    }

    fn call_next(&self, place: Place) {
        let Some(next) = self.row.borrow_mut().next() else { return };
        if place == Place::Threads {
            self.is_taken.set(true);
        }
        next.place.set(Some(place));
        next.called.wake();
    }

    fn free(&self) {
        self.is_taken.set(false);
        self.call_next(Place::Threads);
    }

    /// Takes back what the threads have done, until [`end`](Self::end).
    pub async fn run(&self) {
        let mut patience = STARVED_AFTER;
        loop {
            let back = async { Some(self.returned.recv().await) };
            match or(back, self.starved(patience)).await {
                Some(Ok(stepped)) => {
                    patience = STARVED_AFTER;
                    if stepped.is_none() {
                        self.note_failure();
                    }
                    if let Some(slot) = self.away.take() {
                        slot.stepped.replace(Some(stepped));
                        slot.filled.wake();
                    }
                    self.free();
                }
                Some(Err(_)) => return,
                None => {
                    patience = HERE_INTERVAL;
                    self.call_next(Place::Here);
                }
            }
        }
    }

    /// Completes, with nothing, when a session has been away for longer than that.
    async fn starved<T>(&self, patience: Duration) -> Option<T> {
        while self.away.borrow().is_none() {
            self.sent.changed().await;
        }
        self.clock.sleep(patience).await;
        None
    }

    /// Lets [`run`](Self::run) end. Sessions that are away then do not come back.
    pub fn end(&self) {
        self.returned.close();
    }

    fn note_failure(&self) {
        if !self.has_failed.replace(true) {
            tracing::error!(
                target: "tls",
                "a thread that makes TLS handshakes has ended: the shard makes them itself as far as there is none left, and large \
                 RSA keys hold up its clients meanwhile: restart the broker, and report what it said before"
            );
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        match self.waiting.place.get() {
            Some(Place::Threads) => self.steps.free(),
            Some(Place::Here) => {}
            None => self.steps.row.borrow_mut().take_off(&self.waiting),
        }
    }
}

#[cfg(test)]
mod tests;
