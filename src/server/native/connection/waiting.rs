//! Requests that are carried out in tasks of their own, beside the connection's reader.
//!
//! Each takes its shares first, in this order: of the waiting requests, then, when its answer may be large, its connection's
//! turn, and room for the answer. Whatever only waits ends when nobody is there any more to wait for.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::Native;
use crate::api::{Failure, Fetch, Reply, Request, Watch};
use crate::broker::{Recipient, SharedFetched};
use crate::limits;
use crate::types::{Account, Reservation};

/// After work that keeps a core busy, the next piece of it rests for so many times as long: everything else has the core
/// meanwhile.
const HEAVY_RESTS: u32 = 3;
const HEAVY_REST_MAX: Duration = Duration::from_secs(1);

/// What a request in a task of its own ended with.
enum Outcome {
    Reply(Reply),
    Shared(SharedFetched),
}

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
        if let Some((turn, began)) = heavy {
            let clock = self.connections.clock.clone();
            let rest = (HEAVY_RESTS * clock.monotonic().since(began)).min(HEAVY_REST_MAX);
            // The next piece of such work waits for it, and not this answer.
            let rested = async move {
                clock.sleep(rest).await;
                drop(turn);
            };
            glommio::spawn_local(rested).detach();
        }
    }

    /// Waits until the connection may have another large answer made, and there is room for this one. `None` when the
    /// connection has ended meanwhile.
    async fn answer_room(&self, account: Account, bytes: usize) -> Option<(Reservation, Reservation)> {
        let turn = self.answering.reserve(1).await;
        let outbox = &self.connection.outbox;
        outbox.drained(self.connections.unread_bytes_max()).await;
        let answers = self.connections.memory.budget(account);
        let room = match answers.try_reserve(bytes) {
            Some(room) => room,
            None => {
                let room = async { Some(answers.reserve(bytes).await) };
                let ended = async {
                    outbox.closed().await;
                    None
                };
                futures_lite::future::or(room, ended).await?
            }
        };
        (!outbox.is_closed()).then_some((turn, room))
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
        match self.carry_out_fetch(fetch).await {
            Ok(Some(Outcome::Shared(fetched))) => self.answer_shared(correlation, fetched),
            Ok(Some(Outcome::Reply(reply))) => self.answer(correlation, Ok(reply)),
            Ok(None) => {}
            Err(failure) => self.answer(correlation, Err(failure)),
        }
    }

    /// `None` when nobody is there any more.
    async fn carry_out_fetch(&self, fetch: Fetch) -> Result<Option<Outcome>, Failure> {
        let broker = &self.connections.broker;
        let is_ours = broker.owner(&Request::Fetch(fetch)) == broker.shard();
        // Only the wait may be dropped: what follows is carried to its end.
        let waited = if is_ours {
            self.while_there(broker.wait_for_fetch(&fetch)).await
        } else if fetch.wait.is_zero() {
            Waited::Over(Ok(()))
        } else {
            let watch = Watch { queues: vec![(fetch.key, fetch.offset)], wait: fetch.wait };
            match self.while_there(broker.handle(Request::Watch(watch))).await {
                Waited::Over(outcome) => Waited::Over(outcome.map(drop)),
                Waited::Cut => Waited::Cut,
                Waited::Left => Waited::Left,
            }
        };
        match waited {
            Waited::Over(outcome) => outcome?,
            Waited::Cut => {}
            Waited::Left => return Ok(None),
        }
        // From here on the answer takes memory: a few at a time, and not while the peer leaves others unread.
        let share = fetch_share(&fetch);
        let _share = self.fetching.reserve(share).await;
        let outbox = &self.connection.outbox;
        outbox.drained(self.connections.unread_bytes_max()).await;
        let answers = self.connections.memory.budget(Account::Answers);
        // The first batch is returned whatever its size.
        let _room = match answers.try_reserve(share.max(limits::BATCH_BYTES_MAX)) {
            Some(room) => room,
            None => {
                let room = async { Some(answers.reserve(share.max(limits::BATCH_BYTES_MAX)).await) };
                let ended = async {
                    outbox.closed().await;
                    None
                };
                match futures_lite::future::or(room, ended).await {
                    Some(room) => room,
                    None => return Ok(None),
                }
            }
        };
        if outbox.is_closed() {
            return Ok(None);
        }
        let fetch = Fetch { wait: Duration::ZERO, ..fetch };
        if !is_ours {
            return broker.handle(Request::Fetch(fetch)).await.map(|reply| Some(Outcome::Reply(reply)));
        }
        let fetched = match self.ahead.take(&fetch) {
            Some(entry) => broker.take_ahead(&fetch, entry.outcome().await?),
            None => broker.fetch_shared(fetch).await,
        }?;
        self.read_ahead(fetch, &fetched);
        Ok(Some(Outcome::Shared(fetched)))
    }

    /// Reads what a client will ask for that has just been given `fetched` from the disk, if there is memory for it.
    fn read_ahead(&self, fetch: Fetch, fetched: &SharedFetched) {
        let head = &fetched.head;
        if !fetched.from_disk || head.next_offset >= head.end_offset {
            return;
        }
        let ahead = self.connections.memory.budget(Account::Ahead);
        let Some(share) = ahead.try_reserve(fetch_share(&fetch)) else { return };
        let fetch = Fetch { offset: head.next_offset, ..fetch };
        let (broker, clock) = (self.connections.broker.clone(), self.connections.clock.clone());
        self.connections.spawn_catch_up(self.ahead.clone().read(broker, clock, fetch, share));
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

/// What the answer to a fetch counts for while it is brought together.
pub(crate) fn fetch_share(fetch: &Fetch) -> usize {
    (fetch.bytes_max as usize).clamp(limits::FETCH_SHARE_BYTES_MIN, limits::FETCH_BYTES_MAX)
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
/// turns, and is none of these.
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
