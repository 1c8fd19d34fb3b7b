//! What the connections of a shard draw on, whatever they speak.

use std::cell::Cell;
use std::rc::Rc;

use super::parked::ParkedCalls;
use crate::clock::SharedClock;
use crate::limits;
use crate::metrics::ShardMetrics;
use crate::types::{Account, ClientMemory};

/// A connection with more than this unsent gets no further requests read, and no fetch answered.
pub(super) const OUTBOX_PAUSE_BYTES: usize = 4 * 1024 * 1024;

const _: () = assert!(OUTBOX_PAUSE_BYTES <= limits::CONNECTION_SHARED_BYTES_MAX);

/// The shard as its connections see it: time, counters, memory, and whether it stops. It knows no broker, so that what is built
/// on it runs without one.
pub(crate) struct ShardContext {
    pub clock: SharedClock,
    pub metrics: Rc<ShardMetrics>,
    /// What everything that is held for a peer counts in.
    pub memory: Rc<ClientMemory>,
    /// Calls that wait. Somebody has to `run` them.
    pub parked: Rc<ParkedCalls>,
    stopping: Cell<bool>,
}

impl ShardContext {
    pub fn new(clock: SharedClock, metrics: Rc<ShardMetrics>, memory: Rc<ClientMemory>) -> Rc<Self> {
        let parked = ParkedCalls::new(&clock, &metrics);
        Rc::new(Self { clock, metrics, memory, parked, stopping: Cell::new(false) })
    }

    /// What a connection may leave unread before it gets more: little when the whole shard's clients leave much.
    pub fn unread_bytes_max(&self) -> usize {
        let answers = self.memory.budget(Account::Answers);
        if answers.bytes() > answers.bytes_max() / 2 { 0 } else { OUTBOX_PAUSE_BYTES }
    }

    /// No more requests are taken.
    pub fn stop(&self) {
        self.stopping.set(true);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }
}
