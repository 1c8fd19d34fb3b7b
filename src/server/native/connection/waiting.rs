//! Requests that are carried out in tasks of their own, beside the connection's reader.
//!
//! Each takes its shares first, in this order: of the waiting requests, then, when its answer may be large, its connection's
//! permit to answer, and memory for the answer. Whatever only waits ends when nobody is there any more to wait for.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::Native;
use crate::api::{Fetch, Reply, Request};
use crate::broker::{Recipient, fetch_share};
use crate::limits;
use crate::types::{Account, Reservation};

/// After work that keeps a core busy, the next piece of it rests for so many times as long: everything else has the core
/// meanwhile.
const HEAVY_RESTS: u32 = 3;
const HEAVY_REST_MAX: Duration = Duration::from_secs(1);

/// How a wait ended.
enum Waited<T> {
    Over(T),
    /// Others need its memory.
    Cut,
    /// Nobody is there any more.
    Left,
}

impl Native {
    /// Room for a batch that leaves the connection's buffer; `None` when the connection has ended meanwhile.
    pub(crate) async fn forwarded_room(&self, bytes: usize) -> Option<Reservation> {
        let forwarded = self.connections.memory.budget(Account::Forwarded);
        match forwarded.try_reserve(bytes) {
            Some(share) => Some(share),
            None => self.parked(forwarded.reserve(bytes)).await,
        }
    }

    /// Carries a request out in a task of its own. With too many of them the connection waits. `forwarded` is what its batch
    /// counts for.
    pub(crate) async fn spawn(
        self: &Rc<Self>,
        correlation: u64,
        request: Request,
        forwarded: Option<Reservation>,
    ) {
        if self.waiting_requests.get() >= limits::CONNECTION_WAITING_MAX {
            let fewer = async {
                while self.waiting_requests.get() >= limits::CONNECTION_WAITING_MAX {
                    self.waiting_ended.changed().await;
                }
            };
            if self.parked(fewer).await.is_none() {
                return;
            }
        }
        let Some(share) = self.wait_room(&request).await else { return };
        self.waiting_requests.set(self.waiting_requests.get() + 1);
        self.connections.metrics.requests.add(1);
        let waits_long = waits_long(&request);
        if !waits_long {
            self.connection.unanswered.set(self.connection.unanswered.get() + 1);
        }
        let native = self.clone();
        let is_fetch = matches!(request, Request::Fetch(_));
        let task = async move {
            native.carry_out_and_answer(correlation, request).await;
            drop(forwarded);
            if !waits_long {
                native.note_answered();
            }
            native.return_wait_room(share);
            native.waiting_requests.set(native.waiting_requests.get() - 1);
            native.waiting_ended.wake();
        };
        if is_fetch {
            self.connections.spawn_catch_up(task);
        } else {
            glommio::spawn_local(task).detach();
        }
    }

    /// Waits for something that is not the peer; `None` when the connection has ended meanwhile.
    async fn parked<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let pace = &self.connection.pace;
        pace.is_parked.set(true);
        let ended = async {
            self.connection.outbox.closed().await;
            None
        };
        let outcome = futures_lite::future::or(async { Some(waiting.await) }, ended).await;
        pace.is_parked.set(false);
        outcome
    }

    /// Takes a share of what waiting requests may take together; a few small ones of each connection need none. `None` when
    /// the connection has ended meanwhile.
    async fn wait_room(&self, request: &Request) -> Option<Option<Reservation>> {
        let carried = carried_bytes(request);
        let is_small = carried <= limits::WAIT_CARRIED_BYTES_FREE;
        if self.waiting_requests.get() < limits::CONNECTION_WAITS_FREE && is_small {
            return Some(None);
        }
        let bytes = limits::WAIT_BYTES + carried;
        let waits = self.connections.memory.budget(Account::Waits);
        let share = match waits.try_reserve(bytes) {
            Some(share) => share,
            // What gives its share back by itself goes before what waits for messages.
            None => self.parked(waits.reserve_ranked(bytes, usize::from(waits_long(request)), 0)).await?,
        };
        let held = &self.connection.pace.wait_bytes;
        held.set(held.get() + bytes);
        Some(Some(share))
    }

    fn return_wait_room(&self, share: Option<Reservation>) {
        let held = &self.connection.pace.wait_bytes;
        held.set(held.get() - share.as_ref().map_or(0, Reservation::bytes));
    }

    async fn carry_out_and_answer(&self, correlation: u64, mut request: Request) {
        self.note_join(&mut request);
        if let Request::Fetch(fetch) = request {
            return self.fetch_later(correlation, fetch).await;
        }
        let broker = &self.connections.broker;
        let _room = match broker.answer_bytes_max(&request) {
            0 => None,
            bytes => match self.answer_room(Account::Answers, bytes).await {
                Some(room) => Some(room),
                None => return,
            },
        };
        // Whoever asks for such work gets one piece of it done at a time, and all of them together a part of the core.
        let heavy = match is_heavy(&request) {
            true => Some((self.connections.heavy.reserve(1).await, self.connections.clock.monotonic())),
            false => None,
        };
        let outcome = match request {
            // It holds nothing that cannot be dropped.
            Request::Watch(_) => match self.while_there(broker.handle(request)).await {
                Waited::Over(outcome) => outcome,
                Waited::Cut => Ok(Reply::Watched(Vec::new())),
                Waited::Left => return,
            },
            request => {
                let recipient = Waiter { native: self, is_over: Cell::new(false) };
                broker.handle_for(request, &recipient).await
            }
        };
        self.answer(correlation, outcome);
        if let Some((permit, began)) = heavy {
            let clock = self.connections.clock.clone();
            let rest = (HEAVY_RESTS * clock.monotonic().since(began)).min(HEAVY_REST_MAX);
            // The next piece of such work waits for it, and not this answer.
            let rested = async move {
                clock.sleep(rest).await;
                drop(permit);
            };
            glommio::spawn_local(rested).detach();
        }
    }

    /// Waits until the connection may have another large answer made, and there is room for this one. `None` when the
    /// connection has ended meanwhile.
    async fn answer_room(&self, account: Account, bytes: usize) -> Option<(Reservation, Reservation)> {
        let permit = self.answering.reserve(1).await;
        self.connection.outbox.drained(self.connections.unread_bytes_max()).await;
        Some((permit, self.room_in(account, bytes).await?))
    }

    /// Waits as long as somebody is there and nobody else needs the memory. `waiting` is dropped otherwise.
    async fn while_there<T>(&self, waiting: impl Future<Output = T>) -> Waited<T> {
        let over = async { Waited::Over(waiting.await) };
        let left = async {
            self.connection.left().await;
            Waited::Left
        };
        let cut = async {
            self.connection.pace.cut.changed().await;
            Waited::Cut
        };
        futures_lite::future::or(over, futures_lite::future::or(left, cut)).await
    }

    async fn fetch_later(&self, correlation: u64, fetch: Fetch) {
        let call = FetchCall { native: self, share: fetch_share(&fetch), has_left: Cell::new(false) };
        match self.fetches.next(fetch, &call).await {
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

    /// Waits for room in a budget; `None` when the connection has ended.
    async fn room_in(&self, account: Account, bytes: usize) -> Option<Reservation> {
        let outbox = &self.connection.outbox;
        let budget = self.connections.memory.budget(account);
        let room = match budget.try_reserve(bytes) {
            Some(room) => room,
            None => {
                let room = async { Some(budget.reserve(bytes).await) };
                let ended = async {
                    outbox.closed().await;
                    None
                };
                futures_lite::future::or(room, ended).await?
            }
        };
        (!outbox.is_closed()).then_some(room)
    }
}

/// One fetch that waits, or reads the disk.
struct FetchCall<'a> {
    native: &'a Native,
    share: usize,
    /// Nobody is there any more. When only its memory is needed, the fetch is answered with what there is.
    has_left: Cell<bool>,
}

impl Recipient for FetchCall<'_> {
    type Room = (Reservation, Reservation);

    /// The answer takes memory: a few at a time, and not while the peer leaves others unread.
    async fn room(&self) -> Option<Self::Room> {
        if self.has_left.get() {
            return None;
        }
        let native = self.native;
        let share = native.fetching.reserve(self.share).await;
        native.connection.outbox.drained(native.connections.unread_bytes_max()).await;
        // The first batch is returned whatever its size.
        let room = native.room_in(Account::Answers, self.share.max(limits::BATCH_BYTES_MAX)).await?;
        Some((share, room))
    }

    async fn gone(&self) {
        match self.native.while_there(std::future::pending::<()>()).await {
            Waited::Over(()) | Waited::Cut => {}
            Waited::Left => self.has_left.set(true),
        }
    }
}

/// One request that may wait for messages.
struct Waiter<'a> {
    native: &'a Native,
    /// A wait has ended early: there is to be no other one.
    is_over: Cell<bool>,
}

impl Recipient for Waiter<'_> {
    type Room = (Reservation, Reservation);

    async fn room(&self) -> Option<Self::Room> {
        if self.is_over.get() {
            return None;
        }
        self.native.answer_room(Account::Receives, limits::BATCH_BYTES_MAX).await
    }

    async fn gone(&self) {
        let connection = &self.native.connection;
        futures_lite::future::or(connection.left(), connection.pace.cut.changed()).await;
        self.is_over.set(true);
    }
}

/// Whether the answer may take as long as the client said it would wait. The end of the connection does not wait for it.
fn waits_long(request: &Request) -> bool {
    match request {
        Request::Fetch(_) | Request::Watch(_) => true,
        Request::Receive(receive) => !receive.wait.is_zero(),
        Request::ReceiveHalves(receive) => !receive.wait.is_zero(),
        _ => false,
    }
}

/// Bytes of a batch that no longer lies in the connection's buffer.
pub(crate) fn copied_bytes(request: &Request) -> usize {
    match request {
        Request::Produce(produce) => produce.batch.len(),
        Request::Hold(hold) => hold.batch.len(),
        _ => 0,
    }
}

/// Whether it keeps a core busy for as long as hundreds of messages, or more. What looks at thousands of messages does so in
/// slices of time, and is none of these.
fn is_heavy(request: &Request) -> bool {
    matches!(request, Request::JoinGroup(_) | Request::DescribeTopic(_) | Request::DescribeGroup(_))
}

/// Memory of a request that waits, beyond that of its task and its batch.
pub(crate) fn carried_bytes(request: &Request) -> usize {
    match request {
        Request::Watch(watch) => watch.queues.len() * limits::WATCHED_QUEUE_BYTES,
        Request::JoinGroup(join) => join.topics.iter().map(|topic| topic.as_str().len() + 32).sum(),
        Request::Acknowledge(acknowledge) => acknowledge.receipts.len() * 64,
        Request::Receive(receive) => receive.filter.tags().iter().map(|tag| tag.len() + 32).sum(),
        _ => 0,
    }
}
