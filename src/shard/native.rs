//! The native protocol on a connection: requests in, answers out.
//!
//! Two tasks per connection. The reader cuts frames and places batches as they come; when the open group is full it
//! waits for the swap, which is the back-pressure a producer feels. The writer sleeps until a group is published or an
//! answer is ready, and sends everything that is due with one call. A fetch that has to wait, and everything that is not
//! a produce or a fetch, gets a task of its own, bounded per connection.
//!
//! Messages are leased to a connection only while it has room for them, and not once it has ended. A client that is lost
//! between choosing and answering lets the leases run out.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::AsyncReadExt;
use glommio::net::TcpStream;

use super::connection::{Connection, Connections};
use super::host;
use super::read_ahead::ReadAhead;
use super::sender::Sender;
use super::tick::reactor_turn;
use crate::api::{ConnectionId, Failure, Fetch, Fetched, Produce, Reply, Request, SessionLife, Status};
use crate::broker::{FetchStep, PendingProduce, ProduceRefusal, Recipient, SharedFetched};
use crate::limits;
use crate::metrics::Stage;
use crate::net::ReceiveBuffer;
use crate::protocol::native::{DecodedRequest, FetchedHead, ReplyEncoder, check_properties, decode_request};
use crate::types::{
    Account, ByteBudget, GroupName, Identity, Level, MonotonicTime, QueueKey, Reservation, WakerList,
};
use crate::wire::frame::{self, Frame, FrameError, PREFACE_BYTES};

/// Bytes taken and given by the reader before it lets the executor look at its rings.
const TURN_BYTES: usize = 512 * 1024;
/// A connection with more than this unsent gets no further requests read, and no fetch answered.
pub(super) const OUTBOX_PAUSE_BYTES: usize = 4 * 1024 * 1024;

const _: () = assert!(OUTBOX_PAUSE_BYTES <= limits::CONNECTION_SHARED_BYTES_MAX);

/// Of an answer to the connection, not to one request.
const CONNECTION_CORRELATION: u64 = 0;

/// What a request in a task of its own ended with.
enum Outcome {
    Reply(Reply),
    Shared(SharedFetched),
}

/// A produce that waits for its level.
struct Unsettled {
    correlation: u64,
    received_at: MonotonicTime,
    pending: PendingProduce,
}

/// What the tasks of a native connection share.
struct Native {
    connections: Rc<Connections>,
    connection: Rc<Connection>,
    encoder: RefCell<ReplyEncoder>,
    unsettled: RefCell<VecDeque<Unsettled>>,
    /// Woken when `unsettled` gets its first entry.
    unsettled_added: WakerList,
    waiting_requests: Cell<usize>,
    waiting_ended: WakerList,
    /// Answers to fetches that are being brought together.
    fetching: ByteBudget,
    ahead: Rc<ReadAhead>,
    /// The groups whose members have joined over this connection.
    joined: RefCell<BTreeSet<GroupName>>,
    /// Answers to receives that are being put together: one at a time, since each may be as large as a batch.
    receiving: ByteBudget,
}

/// Serves a connection whose first bytes are in `buffer`, until it ends.
pub(super) async fn serve_native(
    connections: &Rc<Connections>,
    connection: &Rc<Connection>,
    mut stream: TcpStream,
    mut buffer: ReceiveBuffer,
) {
    let native = Rc::new(Native {
        connections: connections.clone(),
        connection: connection.clone(),
        encoder: RefCell::new(ReplyEncoder::new()),
        unsettled: RefCell::default(),
        unsettled_added: WakerList::new(),
        waiting_requests: Cell::new(0),
        waiting_ended: WakerList::new(),
        fetching: ByteBudget::new(limits::FETCH_BYTES_MAX),
        ahead: Rc::default(),
        joined: RefCell::default(),
        receiving: ByteBudget::new(limits::BATCH_BYTES_MAX),
    });
    let Ok(copy) = host::duplicate(stream.as_raw_fd()) else { return };
    let writer = glommio::spawn_local(native.clone().write(Sender::new(host::stream_of(copy)))).detach();
    native.read(&mut stream, &mut buffer).await;
    // What was taken is answered before the connection goes, unless the peer is gone anyway.
    native.settle_all().await;
    native.ahead.clear();
    native.connection.outbox.close();
    writer.await;
    native.connection.end();
    native.end_sessions();
}

/// What a client is told for which there is no room: an answer to its connection, before it has asked anything.
pub(super) fn native_refusal(reason: &str) -> Vec<u8> {
    let mut output = frame::preface().to_vec();
    let failure = Failure::new(Status::LimitReached, reason);
    ReplyEncoder::new().encode(&mut output, CONNECTION_CORRELATION, &Err(failure));
    output
}

impl Native {
    async fn read(self: &Rc<Self>, stream: &mut TcpStream, buffer: &mut ReceiveBuffer) {
        if !self.greet(stream, buffer).await {
            return;
        }
        let clock = &self.connections.clock;
        let mut since_turn = 0;
        loop {
            let started = clock.monotonic();
            let needed = loop {
                match frame::cut(buffer.filled()) {
                    Ok(Some(frame)) => {
                        let frame_bytes = frame.frame_bytes;
                        since_turn += frame_bytes + self.take(&frame, started).await;
                        buffer.consume(frame_bytes);
                        // The next frame has the whole time again.
                        self.connection.incomplete_since.set(None);
                        if since_turn >= TURN_BYTES {
                            since_turn = 0;
                            reactor_turn().await;
                        }
                    }
                    Ok(None) => break frame::frame_bytes(buffer.filled()).ok().flatten().unwrap_or(1),
                    Err(error) => return self.refuse_framing(&error),
                }
            };
            self.connections.metrics.record(Stage::Receive, clock.monotonic().since(started));
            if self.connections.is_stopping() || self.connection.outbox.is_closed() {
                return;
            }
            self.connection.outbox.drained(self.connections.unread_bytes_max()).await;
            self.note_incomplete(buffer);
            match stream.read(buffer.space(needed)).await {
                Ok(0) | Err(_) => return,
                Ok(count) => buffer.received(count),
            }
            self.connections.metrics.socket_calls.add(1);
        }
    }

    /// Starts or stops the watch over a frame that has begun and is not complete.
    fn note_incomplete(&self, buffer: &ReceiveBuffer) {
        let since = &self.connection.incomplete_since;
        if buffer.is_empty() {
            since.set(None);
        } else if since.get().is_none() {
            since.set(Some(self.connections.clock.monotonic()));
        }
    }

    /// Exchanges prefaces; false when the connection is not to go on.
    async fn greet(&self, stream: &mut TcpStream, buffer: &mut ReceiveBuffer) -> bool {
        while buffer.filled().len() < PREFACE_BYTES {
            match stream.read(buffer.space(PREFACE_BYTES)).await {
                Ok(0) | Err(_) => return false,
                Ok(count) => buffer.received(count),
            }
        }
        let preface: [u8; PREFACE_BYTES] =
            buffer.filled()[..PREFACE_BYTES].try_into().expect("eight bytes are there");
        buffer.consume(PREFACE_BYTES);
        let is_ours = frame::check_preface(&preface).is_ok();
        let options = self.connections.broker.options();
        let identity = Identity { node: options.node, shard: options.shard };
        self.connection.outbox.push_with(|output| match is_ours && frame::has_identity(&preface) {
            true => output.extend_from_slice(&frame::introduction(identity)),
            // A client of another version learns ours from the preface, and is left to say so.
            false => output.extend_from_slice(&frame::preface()),
        });
        is_ours
    }

    fn refuse_framing(&self, error: &FrameError) {
        let message = format!("{error}; the connection ends here");
        self.answer(CONNECTION_CORRELATION, Err(Failure::new(Status::MalformedFrame, message)));
    }

    /// Takes one request. Returns bytes of answer that it caused at once, for the reader's budget.
    async fn take(self: &Rc<Self>, frame: &Frame<'_>, received_at: MonotonicTime) -> usize {
        match decode_request(frame) {
            Ok(DecodedRequest::Produce { key, level, batch }) => {
                self.produce(frame.correlation, key, level, batch, received_at).await;
                0
            }
            Ok(DecodedRequest::Other(Request::Fetch(fetch))) => self.fetch(frame.correlation, fetch).await,
            Ok(DecodedRequest::Other(request)) => {
                self.spawn(frame.correlation, request).await;
                0
            }
            Err(failure) => {
                self.answer(frame.correlation, Err(failure));
                0
            }
        }
    }

    async fn produce(
        self: &Rc<Self>,
        correlation: u64,
        key: QueueKey,
        level: Option<Level>,
        bytes: &[u8],
        received_at: MonotonicTime,
    ) {
        let broker = &self.connections.broker;
        let options = broker.options();
        if key.queue.shard(options.shard_count) != options.shard {
            if let Err(failure) = check_properties(bytes) {
                return self.answer(correlation, Err(failure));
            }
            let produce = Produce { key, level, batch: Bytes::copy_from_slice(bytes) };
            return self.spawn(correlation, Request::Produce(produce)).await;
        }
        let started = self.connections.clock.monotonic();
        let batch = match broker.check_batch(bytes) {
            Ok(batch) => batch,
            Err(failure) => return self.answer(correlation, Err(failure)),
        };
        if batch.keyed()
            && let Err(failure) = check_properties(bytes)
        {
            return self.answer(correlation, Err(failure));
        }
        let mut waited = false;
        let pending = loop {
            match broker.produce(key, level, &batch) {
                Ok(pending) => break pending,
                Err(ProduceRefusal::Failed(failure)) => return self.answer(correlation, Err(failure)),
                Err(ProduceRefusal::Wait) => {
                    waited = true;
                    broker.room().await;
                }
            }
        };
        if !waited {
            self.connections.metrics.record(Stage::Parse, self.connections.clock.monotonic().since(started));
        }
        self.connection.unanswered.set(self.connection.unanswered.get() + 1);
        self.unsettled.borrow_mut().push_back(Unsettled { correlation, received_at, pending });
        self.unsettled_added.wake();
    }

    /// Answers a fetch at once when its batches are in memory, else in a task of its own.
    async fn fetch(self: &Rc<Self>, correlation: u64, fetch: Fetch) -> usize {
        let broker = &self.connections.broker;
        let options = broker.options();
        let is_ours = fetch.key.queue.shard(options.shard_count) == options.shard;
        if is_ours && self.connection.outbox.bytes() <= self.connections.unread_bytes_max() {
            match broker.fetch_now(&fetch) {
                Ok(FetchStep::Ready(fetched)) => {
                    let bytes = fetched.batch_bytes();
                    self.answer_shared(correlation, fetched);
                    return bytes;
                }
                Ok(FetchStep::Later) => {}
                Err(failure) => {
                    self.answer(correlation, Err(failure));
                    return 0;
                }
            }
        }
        self.spawn(correlation, Request::Fetch(fetch)).await;
        0
    }

    /// Carries a request out in a task of its own. With too many of them the connection waits.
    async fn spawn(self: &Rc<Self>, correlation: u64, request: Request) {
        while self.waiting_requests.get() >= limits::CONNECTION_WAITING_MAX {
            self.waiting_ended.changed().await;
        }
        self.waiting_requests.set(self.waiting_requests.get() + 1);
        self.connections.metrics.requests.add(1);
        // Before anything more is read: what waits in a task has been copied.
        let forwarded = self.connections.memory.budget(Account::Forwarded);
        let reservation = match copied_bytes(&request) {
            0 => None,
            bytes => Some(forwarded.reserve(bytes).await),
        };
        let waits_long = waits_long(&request);
        if !waits_long {
            self.connection.unanswered.set(self.connection.unanswered.get() + 1);
        }
        let native = self.clone();
        let is_fetch = matches!(request, Request::Fetch(_));
        let task = async move {
            let outcome = native.carry_out(request).await;
            drop(reservation);
            match outcome {
                Ok(Outcome::Shared(fetched)) => native.answer_shared(correlation, fetched),
                Ok(Outcome::Reply(reply)) => native.answer(correlation, Ok(reply)),
                Err(failure) => native.answer(correlation, Err(failure)),
            }
            if !waits_long {
                native.note_answered();
            }
            native.waiting_requests.set(native.waiting_requests.get() - 1);
            native.waiting_ended.wake();
        };
        if is_fetch {
            self.connections.spawn_catch_up(task);
        } else {
            glommio::spawn_local(task).detach();
        }
    }

    /// The session of a member may end with the connection that it joined over.
    fn note_join(&self, request: &mut Request) {
        let Request::JoinGroup(join) = request else { return };
        let SessionLife::Connected(connection) = &mut join.life else { return };
        let mut joined = self.joined.borrow_mut();
        if joined.contains(&join.group) || joined.len() < limits::CONNECTION_GROUPS_MAX {
            let shard = self.connections.broker.shard();
            *connection = Some(ConnectionId { shard, number: self.connection.id });
            joined.insert(join.group.clone());
        }
    }

    /// Tells that the connection is gone. A node that stops has no members any more.
    fn end_sessions(&self) {
        let groups: Vec<_> = self.joined.take().into_iter().collect();
        if groups.is_empty() || self.connections.is_stopping() {
            return;
        }
        let broker = self.connections.broker.clone();
        let connection = ConnectionId { shard: broker.shard(), number: self.connection.id };
        glommio::spawn_local(async move { broker.connection_ended(connection, groups).await }).detach();
    }

    async fn carry_out(&self, mut request: Request) -> Result<Outcome, Failure> {
        let broker = &self.connections.broker;
        self.note_join(&mut request);
        let Request::Fetch(fetch) = request else {
            return broker.handle_for(request, self).await.map(Outcome::Reply);
        };
        let is_ours = broker.owner(&Request::Fetch(fetch)) == broker.shard();
        if is_ours {
            broker.wait_for_fetch(&fetch).await?;
        }
        // From here on the answer takes memory: a few at a time, and not while the peer leaves others unread.
        let share = self.fetching.reserve(fetch_share(&fetch)).await;
        self.connection.outbox.drained(self.connections.unread_bytes_max()).await;
        if self.connection.outbox.is_closed() {
            return Err(Failure::new(Status::ShuttingDown, "the connection has ended"));
        }
        if is_ours {
            let fetch = Fetch { wait: Duration::ZERO, ..fetch };
            let fetched = match self.ahead.take(&fetch) {
                Some(entry) => broker.take_ahead(&fetch, entry.outcome().await?),
                None => broker.fetch_shared(fetch).await,
            }?;
            self.read_ahead(fetch, &fetched);
            return Ok(Outcome::Shared(fetched));
        }
        // The owner waits for messages as well: nobody here is to wait for that.
        drop(share);
        broker.handle(Request::Fetch(fetch)).await.map(Outcome::Reply)
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

    fn note_answered(&self) {
        self.connection.unanswered.set(self.connection.unanswered.get() - 1);
        self.connection.answered.wake();
    }

    fn answer(&self, correlation: u64, mut reply: Result<Reply, Failure>) {
        let outbox = &self.connection.outbox;
        let mut encoder = self.encoder.borrow_mut();
        match &mut reply {
            Ok(Reply::Fetched(fetched)) if !fetched.batches.is_empty() => {
                outbox.push_with(|output| {
                    encoder.begin_fetched(output, correlation, &head_of(fetched), fetched.batches.len())
                });
                outbox.push_chunk(std::mem::take(&mut fetched.batches));
            }
            reply => outbox.push_with(|output| encoder.encode(output, correlation, reply)),
        }
    }

    /// Answers a fetch from the buffers where its batches are.
    fn answer_shared(&self, correlation: u64, fetched: SharedFetched) {
        if fetched.batches.is_empty() {
            return self.answer(correlation, Ok(Reply::Fetched(fetched.head)));
        }
        let outbox = &self.connection.outbox;
        let bytes = fetched.batch_bytes();
        outbox.push_with(|output| {
            self.encoder.borrow_mut().begin_fetched(output, correlation, &head_of(&fetched.head), bytes)
        });
        fetched.batches.into_iter().for_each(|slice| outbox.push_slice(slice));
    }

    /// Moves answers of batches that have reached their level to the outbox.
    fn settle(&self) {
        let broker = &self.connections.broker;
        let now = self.connections.clock.monotonic();
        let mut unsettled = self.unsettled.borrow_mut();
        unsettled.retain(|waiting| {
            let Some(outcome) = broker.outcome(&waiting.pending) else { return true };
            self.connection.outbox.push_with(|output| {
                let mut encoder = self.encoder.borrow_mut();
                match &outcome {
                    Ok(produced) => encoder.encode_produced(output, waiting.correlation, produced),
                    Err(failure) => encoder.encode_failure(output, waiting.correlation, failure),
                }
            });
            self.connections.metrics.record(Stage::Answer, now.since(waiting.received_at));
            self.note_answered();
            false
        });
    }

    async fn settle_all(&self) {
        while self.connection.unanswered.get() > 0 && !self.connection.outbox.is_closed() {
            self.connection.answered.changed().await;
        }
    }

    /// The writing task.
    async fn write(self: Rc<Self>, mut sender: Sender) {
        let outbox = &self.connection.outbox;
        loop {
            self.settle();
            while sender.load(outbox) {
                self.connection.write_stalled_since.set(Some(self.connections.clock.monotonic()));
                let sent = sender.send(outbox).await;
                self.connection.write_stalled_since.set(None);
                self.connections.metrics.socket_calls.add(1);
                if sent.is_err() {
                    // The peer is gone: what is still due to it is dropped, and the reader meets the end as well.
                    sender.unload(outbox);
                    self.connection.end();
                    return self.drop_answers();
                }
            }
            if outbox.is_closed() {
                return;
            }
            self.next_answer().await;
        }
    }

    /// Waits until there may be something to send.
    async fn next_answer(&self) {
        let filled = self.connection.outbox.filled().changed();
        if self.unsettled.borrow().is_empty() {
            futures_lite::future::or(filled, self.unsettled_added.changed()).await;
        } else {
            let published = self.connections.broker.log().watermarks().changes().changed();
            futures_lite::future::or(filled, published).await;
        }
    }

    /// Keeps the accounts of a connection whose peer is gone until nothing is due any more.
    fn drop_answers(&self) {
        while let Some(chunk) = self.connection.outbox.take() {
            self.connection.outbox.sent(chunk);
        }
        let count = self.unsettled.borrow().len();
        self.unsettled.borrow_mut().clear();
        (0..count).for_each(|_| self.note_answered());
    }
}

impl Recipient for Native {
    type Room = Reservation;

    async fn room(&self) -> Option<Reservation> {
        let room = self.receiving.reserve(limits::BATCH_BYTES_MAX).await;
        let outbox = &self.connection.outbox;
        outbox.drained(self.connections.unread_bytes_max()).await;
        (!outbox.is_closed()).then_some(room)
    }

    async fn gone(&self) {
        self.connection.outbox.closed().await;
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
fn fetch_share(fetch: &Fetch) -> usize {
    (fetch.bytes_max as usize).clamp(limits::FETCH_SHARE_BYTES_MIN, limits::FETCH_BYTES_MAX)
}

/// Bytes of a batch that no longer lies in the connection's buffer.
fn copied_bytes(request: &Request) -> usize {
    match request {
        Request::Produce(produce) => produce.batch.len(),
        Request::Hold(hold) => hold.batch.len(),
        _ => 0,
    }
}

/// What an answer says ahead of its batches.
fn head_of(fetched: &Fetched) -> FetchedHead<'_> {
    FetchedHead {
        next_offset: fetched.next_offset,
        first_offset: fetched.first_offset,
        end_offset: fetched.end_offset,
        damaged: fetched.damaged.as_ref(),
    }
}
