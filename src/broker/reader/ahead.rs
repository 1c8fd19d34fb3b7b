//! Reading ahead: while a client is sent what was read from the disk, the disk reads what the client will ask for next.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::fetch::SharedFetched;
use crate::api::{Failure, Fetch};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::types::{Reservation, WakerList};

/// A client that has not come for what was read within this time goes its own ways: the memory is given back.
const KEPT: Duration = Duration::from_secs(1);
/// Queues of a connection for which something is read ahead.
const ENTRIES_MAX: usize = 64;

/// What was read ahead for a connection, or is being read.
#[derive(Default)]
pub(super) struct ReadAhead {
    /// In the order in which they were begun, one a queue.
    entries: RefCell<VecDeque<Rc<Entry>>>,
}

/// The answer to a fetch that has not come yet.
pub(super) struct Entry {
    fetch: Fetch,
    outcome: RefCell<Option<Result<SharedFetched, Failure>>>,
    /// Somebody has taken it off the list, or nobody is to.
    is_off: Cell<bool>,
    /// Woken when there is an outcome, and when `is_off` is set.
    changed: WakerList,
}

impl ReadAhead {
    /// Reads the answer to `fetch`, which asks for no wait, and keeps it for a while. `share` is what its memory counts for.
    pub async fn read<D: Disk>(self: Rc<Self>, broker: Rc<Broker<D>>, fetch: Fetch, share: Reservation) {
        let entry = Rc::new(Entry {
            fetch,
            outcome: RefCell::new(None),
            is_off: Cell::new(false),
            changed: WakerList::new(),
        });
        {
            let mut entries = self.entries.borrow_mut();
            if entries.len() >= ENTRIES_MAX || entries.iter().any(|entry| entry.fetch.key == fetch.key) {
                return;
            }
            entries.push_back(entry.clone());
        }
        let outcome = broker.fetch_ahead(&fetch).await;
        *entry.outcome.borrow_mut() = Some(outcome);
        entry.changed.wake();
        let taken = async {
            while !entry.is_off.get() {
                entry.changed.changed().await;
            }
        };
        futures_lite::future::or(taken, broker.clock.sleep(KEPT)).await;
        self.entries.borrow_mut().retain(|other| !Rc::ptr_eq(other, &entry));
        drop(share);
    }

    /// What is read for `fetch`, if anything is. What was read of the same queue for another is let go.
    pub fn take(&self, fetch: &Fetch) -> Option<Rc<Entry>> {
        let mut entries = self.entries.borrow_mut();
        let at = entries.iter().position(|entry| entry.fetch.key == fetch.key)?;
        let entry = entries.remove(at).expect("it was just found");
        entry.let_go();
        let asked = |fetch: &Fetch| (fetch.offset, fetch.bytes_max, fetch.records_max);
        (asked(&entry.fetch) == asked(fetch)).then_some(entry)
    }

    /// The connection has ended.
    pub fn clear(&self) {
        self.entries.borrow_mut().drain(..).for_each(|entry| entry.let_go());
    }
}

impl Entry {
    fn let_go(&self) {
        self.is_off.set(true);
        self.changed.wake();
    }

    /// Waits until it was read.
    pub async fn outcome(&self) -> Result<SharedFetched, Failure> {
        loop {
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            self.changed.changed().await;
        }
    }
}
