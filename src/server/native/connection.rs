//! The native protocol on a connection: requests in, answers out, over `server::framed`.
//!
//! A batch for a queue of this shard is placed where it lies in the receive buffer; when the open group is full, the connection
//! waits for the swap, which is the back-pressure a producer feels. A fetch whose batches are in memory is answered at once, one
//! that has to wait for a message is parked, and everything that is neither is a call in a task of its own. Every request has a
//! number of its client's, so answers go out as they become due.
//!
//! Messages are leased to a connection only while it has room for them, and not once it has ended. A client that is lost
//! between choosing and answering lets the leases run out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncReadExt};

mod fetching;
mod proving;
mod receiving;
mod waiting;
mod watching;

use self::fetching::CalledFetch;
use self::receiving::WaitingReceive;
use self::waiting::{carried_bytes, copied_bytes, watched_bytes};
pub(crate) use self::waiting::{is_heavy, without_consumers};
use crate::api::{
    ConnectionId, Failure, Fetched, Produce, ProduceCopies, Reply, Request, RequestProtocol, RequestSubject,
    SessionLife, StageTimes, Status,
};
use crate::broker::{ClientFetches, PendingProduce, PlaceRefusal, SharedFetched};
use crate::limits;
use crate::metrics::{LogMark, Timeline};
use crate::net::ReceiveBuffer;
use crate::protocol::native::{
    DecodedRequest, FetchedHead, ReplyEncoder, check_properties, decode_request, decode_request_and_wish,
};
use crate::runtime::Glommio;
use crate::server::called::Called;
use crate::server::connection::{Connections, ShardDisk};
use crate::server::framed::{Calls, Cut, Framed, Protocol, Taken};
use crate::server::sessions::Connection;
use crate::server::stream::Stream;
use crate::types::{ByteBudget, GroupName, Identity, Level, MonotonicTime, QueueKey, QueueOffset, WakerList};
use crate::wire::frame::{self, CHALLENGE_BYTES, Frame, PREFACE_BYTES};

/// What a byte of a request of many names counts for among them.
const NAMES_WEIGHT: usize = 16;

/// Of an answer to the connection, not to one request.
const CONNECTION_CORRELATION: u64 = 0;

/// Messages that a client wants stored.
#[derive(Clone, Copy)]
struct Incoming<'a> {
    key: QueueKey,
    level: Option<Level>,
    batch: &'a [u8],
    source: Source,
}

/// Whose messages they are.
#[derive(Clone, Copy)]
enum Source {
    Producer,
    /// They were stored before, and are to be stored `at` this offset if one is named.
    Copies {
        at: Option<QueueOffset>,
    },
}

/// A produce that waits for its level.
struct PlacedProduce {
    correlation: u64,
    key: QueueKey,
    pending: PendingProduce,
}

/// What the tasks of a native connection share.
struct Native {
    connections: Rc<Connections>,
    connection: Rc<Connection>,
    calls: Rc<Calls>,
    /// Answers to fetches that are being brought together.
    fetching: ByteBudget,
    fetches: ClientFetches<ShardDisk>,
    called: Rc<Called<CalledFetch>>,
    called_receives: Rc<Called<WaitingReceive>>,
    /// The groups whose members have joined over this connection.
    joined: RefCell<BTreeSet<GroupName>>,
    /// Where the client is, as far as it can be told.
    peer: Option<IpAddr>,
    /// What the client was given to prove an access key with; taken by its first proof.
    challenge: Cell<Option<[u8; CHALLENGE_BYTES]>>,
}

/// Serves a connection whose first bytes are in `buffer`, until it ends.
pub(crate) async fn serve_native(
    connections: &Rc<Connections>,
    connection: &Rc<Connection>,
    mut stream: Stream,
    buffer: ReceiveBuffer,
) {
    let native = Rc::new(Native {
        connections: connections.clone(),
        connection: connection.clone(),
        calls: Calls::new(&connections.context, connection, RequestProtocol::Native),
        fetching: ByteBudget::new(limits::FETCH_BYTES_MAX),
        fetches: ClientFetches::new(&connections.broker),
        called: Called::new(),
        called_receives: Called::new(),
        joined: RefCell::default(),
        peer: stream.peer().map(|address| address.ip()),
        challenge: Cell::new(None),
    });
    let Ok(halves) = stream.split() else { return };
    let framed = Framed::new(&connections.context, connection, &native);
    framed.serve(&Glommio, halves, buffer).await;
    native.fetches.end();
    native.end_sessions();
}

/// What a client is told that cannot stay: an answer to its connection, before it has asked anything.
pub(crate) fn native_refusal(status: Status, reason: &str) -> Vec<u8> {
    let mut output = frame::preface().to_vec();
    let failure = Failure::new(status, reason);
    ReplyEncoder::new().encode(&mut output, CONNECTION_CORRELATION, &Err(failure));
    output
}

impl Protocol for Native {
    const NAME: RequestProtocol = RequestProtocol::Native;

    type Frame<'a> = Frame<'a>;
    type Placed = PlacedProduce;

    /// Exchanges prefaces; false when the connection is not to go on.
    async fn greet<R: AsyncRead + Unpin>(&self, stream: &mut R, buffer: &mut ReceiveBuffer) -> bool {
        while buffer.filled().len() < PREFACE_BYTES {
            match stream.read(buffer.spare_capacity()).await {
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

    fn cut<'a>(&self, bytes: &'a [u8]) -> Result<Cut<Frame<'a>>, Failure> {
        match frame::cut(bytes) {
            Ok(Some(frame)) => Ok(Cut::Frame { frame, frame_bytes: frame.frame_bytes }),
            Ok(None) => Ok(Cut::Incomplete { needed: frame::frame_bytes(bytes).ok().flatten().unwrap_or(1) }),
            Err(error) => {
                let message = format!("{error}; the connection ends here");
                Err(Failure::new(Status::MalformedFrame, message))
            }
        }
    }

    fn frame_refusal(&self, frame_bytes: usize) -> Option<Failure> {
        let access = self.connections.access.as_ref()?;
        access.frame_refusal(&self.connection.session.borrow(), frame_bytes)
    }

    async fn take(self: &Rc<Self>, frame: Self::Frame<'_>) -> Taken<PlacedProduce> {
        let (request, wants_stages) = decode_request_and_wish(&frame);
        if !wants_stages {
            return self.take_request(frame.correlation, request).await;
        }
        let timeline = self.connection.timeline.get().map(|timeline| Timeline { is_asked: true, ..timeline });
        self.connection.timeline.set(timeline);
        let timeline = Cell::new(timeline.unwrap_or_default());
        let taking = self.take_request(frame.correlation, request);
        // Few ask: those who do not have no room for this in their task.
        Box::pin(self.connections.metrics.flight.trace(&timeline, taking)).await
    }

    fn settle(&self, placed: &PlacedProduce, timeline: &Timeline, now: MonotonicTime) -> bool {
        let Some(outcome) = self.connections.broker.outcome(&placed.pending) else { return false };
        let stages = timeline.is_asked.then(|| {
            let timeline = Timeline { mark: Some(placed.pending.mark()), ..*timeline };
            self.connections.metrics.flight.stages(&timeline, now)
        });
        self.connection.outbox.push_with(|output| {
            let mut encoder = self.connections.encoder.borrow_mut();
            encoder.tell_stages(stages);
            match &outcome {
                Ok(produced) => encoder.encode_produced(output, placed.correlation, produced),
                Err(failure) => encoder.encode_failure(output, placed.correlation, failure),
            }
        });
        true
    }

    fn describe(&self, frame: &Frame<'_>) -> RequestSubject {
        match decode_request(frame) {
            Ok(DecodedRequest::Other(request)) => request.subject(),
            Ok(DecodedRequest::Produce { key, .. } | DecodedRequest::ProduceCopies { key, .. }) => {
                RequestSubject::of_queue("produce", key, None)
            }
            Ok(DecodedRequest::Prove(_)) => RequestSubject::of("prove"),
            Err(_) => RequestSubject::of("refused"),
        }
    }

    fn describe_placed(&self, placed: &PlacedProduce) -> (RequestSubject, Option<LogMark>) {
        let pending = &placed.pending;
        (RequestSubject::of_queue("produce", placed.key, Some(pending.base_offset)), Some(pending.mark()))
    }

    fn settling(&self) -> &WakerList {
        self.connections.broker.log().watermarks().changes()
    }

    fn refuse(&self, failure: Failure) {
        self.answer(CONNECTION_CORRELATION, Err(failure));
    }
}

impl Source {
    /// Copies keep the properties that they have.
    fn check_properties(self, batch: &[u8]) -> Result<(), Failure> {
        match self {
            Source::Producer => check_properties(batch),
            Source::Copies { .. } => Ok(()),
        }
    }

    fn at(self) -> Option<QueueOffset> {
        match self {
            Source::Producer => None,
            Source::Copies { at } => at,
        }
    }
}

impl Incoming<'_> {
    /// For another shard, with a copy of the batch.
    fn to_request(self) -> Request {
        let Incoming { key, level, batch, source } = self;
        let produce = Produce { key, level, batch: Bytes::copy_from_slice(batch) };
        match source {
            Source::Producer => Request::Produce(produce),
            Source::Copies { at } => Request::ProduceCopies(ProduceCopies { produce, at }),
        }
    }
}

impl Native {
    async fn take_request(
        self: &Rc<Self>,
        correlation: u64,
        request: Result<DecodedRequest<'_>, Failure>,
    ) -> Taken<PlacedProduce> {
        let request = request.and_then(|request| self.allowed(request));
        let request = match request.and_then(|request| self.permitted(request)) {
            Ok(request) => request,
            Err(failure) => {
                self.answer(correlation, Err(failure));
                return Taken::Weighing(0);
            }
        };
        match request {
            DecodedRequest::Produce { key, level, batch } => {
                let incoming = Incoming { key, level, batch, source: Source::Producer };
                self.produce(correlation, incoming).await
            }
            DecodedRequest::ProduceCopies { key, level, at, batch } => {
                let incoming = Incoming { key, level, batch, source: Source::Copies { at } };
                self.produce(correlation, incoming).await
            }
            DecodedRequest::Prove(prove) => self.prove(correlation, &prove),
            DecodedRequest::Other(Request::Fetch(fetch)) => {
                Taken::Weighing(self.fetch(correlation, fetch).await)
            }
            DecodedRequest::Other(Request::Watch(watch)) if self.waits_here(&watch) => {
                let weight = NAMES_WEIGHT * watched_bytes(&watch);
                self.watch(correlation, watch).await;
                Taken::Weighing(weight)
            }
            DecodedRequest::Other(Request::Receive(receive)) if !receive.wait.is_zero() => {
                self.receive(correlation, receive).await;
                Taken::Weighing(0)
            }
            DecodedRequest::Other(request) => {
                let share = match copied_bytes(&request) {
                    0 => None,
                    bytes => self.calls.reserve_forwarded(bytes).await,
                };
                // To read a thousand names takes as long as to take in a large batch.
                let weight = NAMES_WEIGHT * carried_bytes(&request);
                self.spawn(correlation, request, share).await;
                Taken::Weighing(weight)
            }
        }
    }

    /// The request, unless it stores messages in a topic that is not to be written to. Whether one may be read is asked where
    /// messages are handed out, since that may be later.
    fn permitted<'a>(&self, request: DecodedRequest<'a>) -> Result<DecodedRequest<'a>, Failure> {
        let broker = &self.connections.broker;
        match &request {
            DecodedRequest::Produce { key, .. } | DecodedRequest::ProduceCopies { key, .. } => {
                broker.check_writable(key.topic)?;
            }
            DecodedRequest::Other(Request::Hold(hold)) => broker.check_writable(hold.key.topic)?,
            DecodedRequest::Other(_) | DecodedRequest::Prove(_) => {}
        }
        Ok(request)
    }

    async fn produce(self: &Rc<Self>, correlation: u64, incoming: Incoming<'_>) -> Taken<PlacedProduce> {
        let broker = &self.connections.broker;
        let options = broker.options();
        let Incoming { key, level, batch: bytes, source } = incoming;
        if key.queue.shard(options.shard_count) != options.shard {
            if let Err(failure) = source.check_properties(bytes) {
                return self.refused(correlation, failure);
            }
            if let Some(share) = self.calls.reserve_forwarded(bytes.len()).await {
                self.spawn(correlation, incoming.to_request(), Some(share)).await;
            }
            return Taken::Weighing(0);
        }
        let batch = match broker.check_batch(bytes) {
            Ok(batch) => batch,
            Err(failure) => return self.refused(correlation, failure),
        };
        if batch.keyed()
            && let Err(failure) = source.check_properties(bytes)
        {
            return self.refused(correlation, failure);
        }
        let pending = loop {
            match broker.produce_at(key, level, source.at(), &batch) {
                Ok(pending) => break pending,
                Err(PlaceRefusal::Failed(failure)) => return self.refused(correlation, failure),
                Err(PlaceRefusal::Wait(backpressure)) => {
                    self.connection.queued(&self.connections.clock, broker.wait_out(backpressure)).await;
                }
            }
        };
        Taken::Placed(PlacedProduce { correlation, key, pending })
    }

    fn refused(&self, correlation: u64, failure: Failure) -> Taken<PlacedProduce> {
        self.answer(correlation, Err(failure));
        Taken::Weighing(0)
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

    /// Where the time of the request went that is being answered, if its client has asked for that.
    fn asked_stages(&self) -> Option<StageTimes> {
        self.connections.metrics.flight.asked(|| self.connections.clock.monotonic())
    }

    fn answer(&self, correlation: u64, mut reply: Result<Reply, Failure>) {
        let outbox = &self.connection.outbox;
        let mut encoder = self.connections.encoder.borrow_mut();
        encoder.tell_stages(self.asked_stages());
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
            let mut encoder = self.connections.encoder.borrow_mut();
            encoder.tell_stages(self.asked_stages());
            encoder.begin_fetched(output, correlation, &head_of(&fetched.head), bytes);
        });
        fetched.batches.into_iter().for_each(|slice| outbox.push_slice(slice));
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
