//! Fetches: answered where they are taken, parked while there is nothing for them, or carried out in a task.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::Native;
use crate::api::{Fetch, Request, RequestSubject};
use crate::broker::{FetchWait, Recipient, fetch_share};
use crate::limits;
use crate::metrics::Timeline;
use crate::server::framed::{Call, CallTerms, Waited};
use crate::server::parked::{LookReason, ParkedCall};
use crate::types::{Account, ByteBudget, MonotonicTime, Reservation};

/// A fetch that has waited, and cannot be answered where it is looked at: the peer does not read, or the disk has to be.
pub(super) type CalledFetch = (Call, u64, Fetch);

/// A fetch that waits for a message.
struct ParkedFetch {
    native: Rc<Native>,
    call: Call,
    correlation: u64,
    fetch: Fetch,
    end: MonotonicTime,
    /// What it waits for.
    wait: FetchWait,
}

impl Native {
    /// Answers a fetch at once when its batches are in memory. Returns what that weighs.
    pub(super) async fn fetch(self: &Rc<Self>, correlation: u64, fetch: Fetch) -> usize {
        if let Some(bytes) = self.answer_now(correlation, &fetch) {
            return bytes;
        }
        if !self.fetches.has_to_wait(&fetch) {
            self.spawn(correlation, Request::Fetch(fetch), None).await;
            return 0;
        }
        let wait = fetch.wait.min(Duration::from_millis(u64::from(limits::FETCH_WAIT_MS_MAX)));
        let end = self.connections.clock.monotonic().after(wait);
        let terms = CallTerms { carried_bytes: 0, waits_long: true, is_parked: true, deadline: None };
        let Some(call) = self.calls.begin(terms, None).await else { return 0 };
        call.describe(RequestSubject::of_queue("fetch", fetch.key, Some(fetch.offset)));
        self.connections.metrics.fetches_waited.add(1);
        self.park(call, correlation, fetch, end)
    }

    /// Answers a fetch of which the peer reads the answer, and that takes no waiting and no reading.
    fn answer_now(&self, correlation: u64, fetch: &Fetch) -> Option<usize> {
        if self.connection.outbox.bytes() > self.connections.unread_bytes_max() {
            return None;
        }
        let answers = self.connections.memory.budget(Account::Answers);
        // Held until the answer is counted where it goes to.
        let _reservation = answers.try_reserve(fetch_share(fetch))?;
        self.answer_at_once(correlation, fetch)
    }

    fn answer_at_once(&self, correlation: u64, fetch: &Fetch) -> Option<usize> {
        match self.fetches.at_once(fetch) {
            Ok(fetched) => {
                let fetched = fetched?;
                let bytes = fetched.batch_bytes();
                self.answer_shared(correlation, fetched);
                Some(bytes)
            }
            Err(failure) => {
                self.answer(correlation, Err(failure));
                Some(0)
            }
        }
    }

    /// Lets a fetch wait as an entry, if there is still nothing for it.
    fn park(self: &Rc<Self>, call: Call, correlation: u64, fetch: Fetch, end: MonotonicTime) -> usize {
        let slot = self.connection.parked.slot();
        match self.fetches.park(&fetch, || slot.caller()) {
            Ok(Some(wait)) => {
                let native = self.clone();
                slot.park(end, Box::new(ParkedFetch { native, call, correlation, fetch, end, wait }));
                0
            }
            Ok(None) => self.answer_now(correlation, &fetch).unwrap_or_else(|| {
                self.carry_out_called(call, correlation, fetch);
                0
            }),
            Err(failure) => {
                self.answer(correlation, Err(failure));
                0
            }
        }
    }

    /// Carries out a fetch whose wait is over.
    fn carry_out_called(self: &Rc<Self>, call: Call, correlation: u64, fetch: Fetch) {
        let native = self.clone();
        let task = self.called.add((call, correlation, fetch), async move |(call, correlation, fetch)| {
            call.traced(native.fetch_later(&call, correlation, fetch)).await;
        });
        if let Some(task) = task {
            self.connections.spawn_catch_up(task);
        }
    }

    /// Answers a fetch, waiting for a message, for room, and for the disk.
    pub(super) async fn fetch_later(&self, call: &Call, correlation: u64, fetch: Fetch) {
        let share = fetch_share(&fetch);
        let recipient = FetchCall { call, fetching: &self.fetching, share, has_left: Cell::new(false) };
        match self.fetches.next(fetch, &recipient).await {
            Ok(Some(fetched)) => {
                if let Some(reading) = self.fetches.read_ahead(fetch, &fetched) {
                    self.connections.spawn_catch_up(reading);
                }
                self.answer_shared(correlation, fetched);
            }
            Ok(None) => {}
            Err(failure) => self.answer(correlation, Err(failure)),
        }
    }
}

impl ParkedCall for ParkedFetch {
    fn woken(&self, since: MonotonicTime) -> Timeline {
        self.call.woken(since)
    }

    fn look(self: Box<Self>, reason: LookReason) -> usize {
        let Self { native, call, correlation, fetch, end, wait } = *self;
        drop(wait);
        if !native.connection.is_here() {
            return 0;
        }
        let without_wait = Fetch { wait: Duration::ZERO, ..fetch };
        if reason != LookReason::Called {
            if native.fetches.has_to_wait(&fetch) {
                // That there is nothing takes less than the wait did, whether the peer reads it or not.
                return native.answer_at_once(correlation, &without_wait).unwrap_or(0);
            }
            return native.park(call, correlation, without_wait, end);
        }
        native.park(call, correlation, fetch, end)
    }
}

/// One fetch that waits, or reads the disk.
struct FetchCall<'a> {
    call: &'a Call,
    fetching: &'a ByteBudget,
    share: usize,
    /// Nobody is there any more. When only its memory is needed, the fetch is answered with what there is.
    has_left: Cell<bool>,
}

impl Recipient for FetchCall<'_> {
    type Reservation = (Reservation, Reservation);

    /// The answer takes memory: a few at a time, and not while the peer leaves others unread.
    async fn reserve(&self) -> Option<Self::Reservation> {
        if self.has_left.get() {
            return None;
        }
        let share = self.fetching.reserve(self.share).await;
        // The first batch is returned whatever its size.
        let reservation =
            self.call.reserve_beside(Account::Answers, self.share.max(limits::BATCH_BYTES_MAX)).await?;
        Some((share, reservation))
    }

    async fn gone(&self) {
        match self.call.while_there(std::future::pending::<()>()).await {
            Waited::Over(()) | Waited::Cut | Waited::Late => {}
            Waited::Left => self.has_left.set(true),
        }
    }

    fn is_here(&self) -> bool {
        self.call.is_here()
    }
}
