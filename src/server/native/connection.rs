//! The native protocol on a connection: requests in, answers out.
//!
//! Two tasks per connection. The reader cuts frames and places batches as they come; when the open group is full it
//! waits for the swap, which is the back-pressure a producer feels. The writer sleeps until a group is published or an
//! answer is ready, and sends everything that is due with one call. A fetch that has to wait, and everything that is not
//! a produce or a fetch, gets a task of its own, bounded per connection.
//!
//! Memory: what comes goes into a buffer that grows with the bytes that came, and takes a share of the shard's for requests;
//! answers take a share before they are made; and between any two requests the reader looks whether the peer reads its
//! answers. Every wait ends with the connection.
//!
//! Messages are leased to a connection only while it has room for them, and not once it has ended. A client that is lost
//! between choosing and answering lets the leases run out.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::AsyncReadExt;

mod proving;
mod waiting;

use self::waiting::{carried_bytes, copied_bytes};
use crate::api::{ConnectionId, Failure, Fetch, Fetched, Produce, Reply, Request, SessionLife, Status};
use crate::broker::{ClientFetches, PendingProduce, PlaceRefusal, SharedFetched, fetch_share};
use crate::limits;
use crate::metrics::Stage;
use crate::net::ReceiveBuffer;
use crate::protocol::native::{DecodedRequest, FetchedHead, ReplyEncoder, check_properties, decode_request};
use crate::runtime::yield_to_reactor;
use crate::server::connection::{Connections, ShardDisk};
use crate::server::sender::Sender;
use crate::server::sessions::Connection;
use crate::server::stream::{ReadHalf, Stream};
use crate::types::{
    Account, ByteBudget, GroupName, Identity, Level, MonotonicTime, QueueKey, Reservation, WakerList,
};
use crate::wire::frame::{self, CHALLENGE_BYTES, Frame, FrameError, PREFACE_BYTES};

/// Bytes taken and given by the reader before it lets the executor look at its rings.
const YIELD_BYTES: usize = 512 * 1024;
/// What a byte of a request of many names counts for among them.
const NAMES_WEIGHT: usize = 16;

/// Of an answer to the connection, not to one request.
const CONNECTION_CORRELATION: u64 = 0;

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
    unsettled: RefCell<VecDeque<Unsettled>>,
    /// Woken when `unsettled` gets its first entry.
    unsettled_added: WakerList,
    waiting_requests: Cell<usize>,
    waiting_ended: WakerList,
    /// Answers to fetches that are being brought together.
    fetching: ByteBudget,
    fetches: ClientFetches<ShardDisk>,
    /// The groups whose members have joined over this connection.
    joined: RefCell<BTreeSet<GroupName>>,
    /// Large answers that are being put together: one at a time, since each may be as large as a batch.
    answering: ByteBudget,
    /// Where the client is, as far as it can be told.
    peer: Option<IpAddr>,
    /// What the client was given to prove an access key with; taken by its first proof.
    challenge: Cell<Option<[u8; CHALLENGE_BYTES]>>,
    /// The answer under way is the last one.
    is_refused: Cell<bool>,
}

/// What a connection's receive buffer has of the shard's memory, beyond what every connection has.
struct FrameRoom {
    share: Reservation,
}

impl FrameRoom {
    fn new(connections: &Connections) -> Self {
        Self { share: connections.memory.count(Account::Received, 0) }
    }

    fn missing(&self, bytes: usize) -> usize {
        beyond_free(bytes).saturating_sub(self.share.bytes())
    }

    /// Takes room for a buffer of this size, if there is plenty. All that is taken this way together leaves room for the
    /// largest frame: see [`spare_room`].
    fn try_grow(&mut self, connections: &Connections, bytes: usize) -> bool {
        let missing = self.missing(bytes);
        let received = connections.memory.budget(Account::Received);
        if missing > 0 && received.bytes() + missing > spare_room(received) {
            return false;
        }
        self.share.set(self.share.bytes() + missing);
        true
    }

    /// Waits for room for a whole frame, once: who got it needs nothing more to complete its frame, so that some always
    /// get on. Small frames go first, and whoever holds room without filling it gives way: see `relief`. The memory itself
    /// is taken as the bytes come.
    async fn take_frame(&mut self, connections: &Connections, bytes: usize) {
        let missing = self.missing(bytes);
        if missing > 0 {
            let received = connections.memory.budget(Account::Received);
            let share = match received.try_reserve(missing) {
                Some(share) => share,
                None => received.reserve_ranked(missing, missing, spare_room(received)).await,
            };
            self.share.merge(share);
        }
    }

    /// Gives back what a buffer of this size does not need.
    fn shrink_to(&mut self, bytes: usize) {
        if self.share.bytes() > beyond_free(bytes) {
            self.share.set(beyond_free(bytes));
        }
    }
}

/// What buffers may take that could do with less. Those who wait for room for their frame hold no more than this together,
/// and a frame is let in beside it, however large: or they would wait for one another.
fn spare_room(received: &ByteBudget) -> usize {
    received.bytes_max() / 4
}

/// What a buffer of this size takes beyond what every connection has.
fn beyond_free(bytes: usize) -> usize {
    bytes.saturating_sub(limits::CONNECTION_BUFFER_BYTES)
}

/// Why a request is refused, with its connection, when memory is short.
fn memory_short(reason: &str) -> Failure {
    let message =
        format!("the request was not taken: {reason}; try again, or give the broker more --client-memory");
    Failure::new(Status::Busy, message)
}

/// Serves a connection whose first bytes are in `buffer`, until it ends.
pub(crate) async fn serve_native(
    connections: &Rc<Connections>,
    connection: &Rc<Connection>,
    mut stream: Stream,
    mut buffer: ReceiveBuffer,
) {
    let native = Rc::new(Native {
        connections: connections.clone(),
        connection: connection.clone(),
        unsettled: RefCell::default(),
        unsettled_added: WakerList::new(),
        waiting_requests: Cell::new(0),
        waiting_ended: WakerList::new(),
        fetching: ByteBudget::new(limits::FETCH_BYTES_MAX),
        fetches: ClientFetches::new(&connections.broker),
        joined: RefCell::default(),
        answering: ByteBudget::new(1),
        peer: stream.peer().map(|address| address.ip()),
        challenge: Cell::new(None),
        is_refused: Cell::new(false),
    });
    let Ok((mut stream, half)) = stream.split() else { return };
    let writer = glommio::spawn_local(native.clone().write(Sender::new(half))).detach();
    native.read(&mut stream, &mut buffer).await;
    drop(buffer);
    // Nobody is there to wait for any more.
    native.connection.leave();
    // What was taken is answered before the connection goes, unless the peer is gone anyway.
    native.settle_all().await;
    native.fetches.end();
    native.connection.outbox.close();
    writer.await;
    native.connection.end();
    native.end_sessions();
}

/// What a client is told for which there is no room: an answer to its connection, before it has asked anything.
pub(crate) fn native_refusal(reason: &str) -> Vec<u8> {
    let mut output = frame::preface().to_vec();
    let failure = Failure::new(Status::LimitReached, reason);
    ReplyEncoder::new().encode(&mut output, CONNECTION_CORRELATION, &Err(failure));
    output
}

impl Native {
    async fn read(self: &Rc<Self>, stream: &mut ReadHalf, buffer: &mut ReceiveBuffer) {
        if !self.greet(stream, buffer).await {
            return;
        }
        let clock = &self.connections.clock;
        let mut room = FrameRoom::new(&self.connections);
        let mut bytes_since_yield = 0;
        loop {
            let started = clock.monotonic();
            let needed = loop {
                match frame::cut(buffer.filled()) {
                    Ok(Some(frame)) => {
                        let frame_bytes = frame.frame_bytes;
                        bytes_since_yield += frame_bytes + self.take(&frame, started).await;
                        buffer.consume(frame_bytes);
                        room.shrink_to(buffer.memory_bytes());
                        // The next frame has the whole time again.
                        self.connection.incomplete_since.set(None);
                        // A peer that does not read its answers gets no more of them, whatever it has sent already.
                        if self.is_refused.get() || !self.peer_reads().await {
                            return;
                        }
                        if bytes_since_yield >= YIELD_BYTES {
                            bytes_since_yield = 0;
                            yield_to_reactor().await;
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
            self.note_incomplete(buffer);
            if let Some(failure) = self.frame_refusal(needed) {
                return self.answer(CONNECTION_CORRELATION, Err(failure));
            }
            if let Err(failure) = self.make_room(buffer, &mut room, needed).await {
                return self.answer(0, Err(failure));
            }
            match self.read_some(stream, buffer, &mut room).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(failure) => return self.answer(0, Err(failure)),
            }
        }
    }

    /// Waits while the peer leaves too much unread; false when the connection has ended.
    async fn peer_reads(&self) -> bool {
        let outbox = &self.connection.outbox;
        let bytes_max = self.connections.unread_bytes_max();
        if outbox.bytes() > bytes_max {
            self.connection.pace.is_parked.set(true);
            outbox.drained(bytes_max).await;
            self.connection.pace.is_parked.set(false);
        }
        !outbox.is_closed()
    }

    /// Sees to it that there is room to read into. Small frames always have it; what larger ones need is taken from the
    /// shard's memory, as their bytes come. The failure is the last answer of the connection.
    async fn make_room(
        &self,
        buffer: &mut ReceiveBuffer,
        room: &mut FrameRoom,
        needed: usize,
    ) -> Result<(), Failure> {
        if let Some(bytes) = buffer.may_grow_to()
            && room.try_grow(&self.connections, bytes)
        {
            buffer.grow(bytes);
        }
        if let Some(bytes) = buffer.must_grow_to(needed) {
            let pace = &self.connection.pace;
            pace.is_parked.set(true);
            let has_grown = {
                let granted = async {
                    room.take_frame(&self.connections, needed.next_power_of_two().max(bytes)).await;
                    true
                };
                let over = async {
                    let longest = Duration::from_secs(limits::MEMORY_WAIT_SECONDS);
                    futures_lite::future::or(
                        self.connections.clock.sleep(longest),
                        self.connection.outbox.closed(),
                    )
                    .await;
                    false
                };
                futures_lite::future::or(granted, over).await
            };
            pace.is_parked.set(false);
            if !has_grown {
                return Err(memory_short("there was no memory for it"));
            }
            if self.connection.incomplete_since.get().is_some() {
                // The time until now was ours.
                self.connection.incomplete_since.set(Some(self.connections.clock.monotonic()));
            }
            buffer.grow(bytes);
        }
        self.connection.pace.buffer_bytes.set(buffer.memory_bytes());
        Ok(())
    }

    /// Reads what is there, or comes next; false at the end. The failure is the last answer of the connection.
    async fn read_some(
        &self,
        stream: &mut ReadHalf,
        buffer: &mut ReceiveBuffer,
        room: &mut FrameRoom,
    ) -> Result<bool, Failure> {
        let pace = &self.connection.pace;
        loop {
            if pace.is_refused.get() {
                return Err(memory_short("its bytes came slowly while others waited for memory"));
            }
            let read = {
                let read = async { Some(stream.read(buffer.room()).await) };
                let nudged = async {
                    pace.nudged.changed().await;
                    None
                };
                futures_lite::future::or(read, nudged).await
            };
            match read {
                None => {
                    buffer.shrink();
                    if buffer.room().is_empty() {
                        // All of it is in use; there is still no more than the frame needs.
                        buffer.grow(2 * buffer.memory_bytes());
                    }
                    if buffer.is_empty() {
                        room.shrink_to(buffer.memory_bytes());
                    }
                    pace.buffer_bytes.set(buffer.memory_bytes());
                }
                Some(Ok(0) | Err(_)) => return Ok(false),
                Some(Ok(count)) => {
                    buffer.read(count);
                    pace.received_bytes.set(pace.received_bytes.get() + count as u64);
                    self.connections.metrics.socket_calls.add(1);
                    return Ok(true);
                }
            }
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
    async fn greet(&self, stream: &mut ReadHalf, buffer: &mut ReceiveBuffer) -> bool {
        while buffer.filled().len() < PREFACE_BYTES {
            match stream.read(buffer.room()).await {
                Ok(0) | Err(_) => return false,
                Ok(count) => buffer.read(count),
            }
        }
        let preface: [u8; PREFACE_BYTES] =
            buffer.filled()[..PREFACE_BYTES].try_into().expect("eight bytes are there");
        buffer.consume(PREFACE_BYTES);
        let is_ours = frame::check_preface(&preface).is_ok();
        let options = self.connections.broker.options();
        let identity = Identity { node: options.node, shard: options.shard };
        let challenge = if is_ours { self.begin_session(&preface) } else { None };
        self.connection.outbox.push_with(|output| {
            match (is_ours && frame::has_identity(&preface), challenge) {
                (true, Some(challenge)) => {
                    output.extend_from_slice(&frame::challenging_introduction(identity, &challenge));
                }
                (true, None) => output.extend_from_slice(&frame::introduction(identity)),
                // A client of another version learns ours from the preface, and is left to say so.
                (false, _) => output.extend_from_slice(&frame::preface()),
            }
        });
        is_ours
    }

    fn refuse_framing(&self, error: &FrameError) {
        let message = format!("{error}; the connection ends here");
        self.answer(CONNECTION_CORRELATION, Err(Failure::new(Status::MalformedFrame, message)));
    }

    /// Takes one request. Returns bytes of answer that it caused at once, for the reader's budget.
    async fn take(self: &Rc<Self>, frame: &Frame<'_>, received_at: MonotonicTime) -> usize {
        let request = match decode_request(frame).and_then(|request| self.allowed(request)) {
            Ok(request) => request,
            Err(failure) => {
                self.answer(frame.correlation, Err(failure));
                return 0;
            }
        };
        match request {
            DecodedRequest::Produce { key, level, batch } => {
                self.produce(frame.correlation, key, level, batch, received_at).await;
                0
            }
            DecodedRequest::Prove(prove) => {
                self.prove(frame.correlation, &prove);
                0
            }
            DecodedRequest::Other(Request::Fetch(fetch)) => self.fetch(frame.correlation, fetch).await,
            DecodedRequest::Other(request) => {
                let share = match copied_bytes(&request) {
                    0 => None,
                    bytes => self.forwarded_room(bytes).await,
                };
                // To read a thousand names takes as long as to take in a large batch.
                let weight = NAMES_WEIGHT * carried_bytes(&request);
                self.spawn(frame.correlation, request, share).await;
                weight
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
            let Some(share) = self.forwarded_room(bytes.len()).await else { return };
            let produce = Produce { key, level, batch: Bytes::copy_from_slice(bytes) };
            return self.spawn(correlation, Request::Produce(produce), Some(share)).await;
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
                Err(PlaceRefusal::Failed(failure)) => return self.answer(correlation, Err(failure)),
                Err(PlaceRefusal::Wait(room)) => {
                    waited = true;
                    broker.room(room).await;
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
        let answers = self.connections.memory.budget(Account::Answers);
        if self.connection.outbox.bytes() <= self.connections.unread_bytes_max()
            // Held until the answer is counted where it goes to.
            && let Some(_room) = answers.try_reserve(fetch_share(&fetch))
        {
            match self.fetches.at_once(&fetch) {
                Ok(Some(fetched)) => {
                    let bytes = fetched.batch_bytes();
                    self.answer_shared(correlation, fetched);
                    return bytes;
                }
                Ok(None) => {}
                Err(failure) => {
                    self.answer(correlation, Err(failure));
                    return 0;
                }
            }
        }
        self.spawn(correlation, Request::Fetch(fetch), None).await;
        0
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

    fn note_answered(&self) {
        self.connection.unanswered.set(self.connection.unanswered.get() - 1);
        self.connection.answered.wake();
    }

    fn answer(&self, correlation: u64, mut reply: Result<Reply, Failure>) {
        let outbox = &self.connection.outbox;
        let mut encoder = self.connections.encoder.borrow_mut();
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
            self.connections.encoder.borrow_mut().begin_fetched(
                output,
                correlation,
                &head_of(&fetched.head),
                bytes,
            )
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
                let mut encoder = self.connections.encoder.borrow_mut();
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
                self.connection.write_stalled_since.set(Some(self.connections.clock.monotonic()));
                return sender.finish().await;
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

/// What an answer says ahead of its batches.
fn head_of(fetched: &Fetched) -> FetchedHead<'_> {
    FetchedHead {
        next_offset: fetched.next_offset,
        first_offset: fetched.first_offset,
        end_offset: fetched.end_offset,
        damaged: fetched.damaged.as_ref(),
    }
}
