//! A connection of RocketMQ's protocol: requests in, answers out, over `server::framed`. Every request has a number of its
//! client's, so answers go out as they become due.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::AsyncRead;

use super::answer::Asker;
use super::port::RemotingPort;
use super::pulling::Pulls;
use super::sending::PlacedSend;
use super::sessions::{Heard, RemotingClient};
use crate::access::Peer;
use crate::api::{ClientWords, Failure, RequestProtocol, RequestSubject, Status};
use crate::limits;
use crate::metrics::{LogMark, Timeline};
use crate::net::ReceiveBuffer;
use crate::protocol::remoting::call::{pull, send};
use crate::protocol::remoting::{self, Frame, Head, Header, Refusal, ResponseCode, subject_of, wants_stages};
use crate::runtime::Glommio;
use crate::server::connection::Connections;
use crate::server::framed::{Calls, Cut, Framed, Protocol, Taken};
use crate::server::sessions::Connection;
use crate::server::stream::Stream;
use crate::types::{MonotonicTime, WakerList, network_of};

/// A connection over which nothing comes for this long is ended: clients say something every 30 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(limits::REMOTING_SILENCE_SECONDS);

/// What the tasks of a connection share.
pub(super) struct Remoting {
    pub connections: Rc<Connections>,
    pub connection: Rc<Connection>,
    pub calls: Rc<Calls>,
    /// Where requests come from, and which key was proved last.
    pub peer: Peer,
    /// Where the messages are born that come over it.
    pub born: SocketAddr,
    /// The way back to the client.
    pub client: Rc<RemotingClient>,
    /// The clients that were heard over this connection.
    pub heard: RefCell<Heard>,
    pub pulls: Pulls,
    /// Bytes of a body beyond the limit that are still to come.
    passing_over: Cell<usize>,
    /// A broker has registered over this connection, and is gone with it.
    pub has_registered: Cell<bool>,
}

/// What lies first in the receive buffer.
#[derive(Clone, Copy)]
pub(super) enum Incoming<'a> {
    Whole(Frame<'a>),
    /// Its body is not read.
    Oversized(Frame<'a>),
    /// Some of such a body.
    PassedOver,
}

/// Serves a connection whose first bytes are in `buffer`, until it ends.
pub(crate) async fn serve_remoting(
    connections: &Rc<Connections>,
    connection: &Rc<Connection>,
    mut stream: Stream,
    buffer: ReceiveBuffer,
) {
    let address = stream.peer();
    let peer = Peer::at(address.map(|address| address.ip()));
    let Ok(halves) = stream.split() else { return };
    // Java 4.9's client does not see the end of a connection (`remoting/.../netty/NettyRemotingClient.java` has no
    // `channelInactive` there): its pulls wait on for half a minute, and nobody reads their queues. It sees a reset.
    connection.reset_with_broker();
    let remoting = Rc::new(Remoting {
        connections: connections.clone(),
        connection: connection.clone(),
        calls: Calls::new(&connections.context, connection, RequestProtocol::Remoting),
        peer,
        born: address.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
        client: RemotingClient::new(connection, connections),
        heard: RefCell::new(Heard::new(&connections.memory)),
        pulls: Pulls::new(),
        passing_over: Cell::new(0),
        has_registered: Cell::new(false),
    });
    let framed = Framed::new(&connections.context, connection, &remoting);
    framed.serve(&Glommio, halves, buffer).await;
    remoting.end_sessions();
}

impl Protocol for Remoting {
    const NAME: RequestProtocol = RequestProtocol::Remoting;

    type Frame<'a> = Incoming<'a>;
    type Placed = PlacedSend;

    async fn greet<R: AsyncRead + Unpin>(&self, _stream: &mut R, _buffer: &mut ReceiveBuffer) -> bool {
        self.note_heard(self.connections.clock.monotonic());
        true
    }

    fn cut<'a>(&self, bytes: &'a [u8]) -> Result<Cut<Incoming<'a>>, Failure> {
        let left = self.passing_over.get();
        if left > 0 {
            let frame_bytes = left.min(bytes.len());
            self.passing_over.set(left - frame_bytes);
            return Ok(match frame_bytes {
                0 => Cut::Incomplete { needed: 1 },
                _ => Cut::Frame { frame: Incoming::PassedOver, frame_bytes },
            });
        }
        let cut = remoting::cut(bytes).map_err(|error| {
            Failure::new(Status::MalformedFrame, format!("{error}; the connection ends here"))
        })?;
        Ok(match cut {
            remoting::Cut::Incomplete { needed } => Cut::Incomplete { needed },
            remoting::Cut::Frame(frame) => {
                Cut::Frame { frame_bytes: frame.frame_bytes, frame: Incoming::Whole(frame) }
            }
            remoting::Cut::Oversized { frame, body_bytes } => {
                self.passing_over.set(body_bytes);
                Cut::Frame { frame_bytes: frame.frame_bytes, frame: Incoming::Oversized(frame) }
            }
        })
    }

    /// Whose request it is, the request itself says.
    fn frame_refusal(&self, _frame_bytes: usize) -> Option<Failure> {
        None
    }

    fn is_within_frame(&self) -> bool {
        self.passing_over.get() > 0
    }

    async fn take(self: &Rc<Self>, incoming: Self::Frame<'_>) -> Taken<PlacedSend> {
        let now = self.connection.timeline.get().map(|timeline| timeline.taken);
        self.note_heard(now.unwrap_or_else(|| self.connections.clock.monotonic()));
        match incoming {
            Incoming::Whole(frame) => self.take_request(frame).await,
            Incoming::Oversized(frame) => self.refuse_oversized(frame),
            Incoming::PassedOver => Taken::Weighing(0),
        }
    }

    fn settle(&self, placed: &PlacedSend, timeline: &Timeline, now: MonotonicTime) -> bool {
        self.settle_send(placed, timeline, now)
    }

    fn describe(&self, incoming: &Incoming<'_>) -> RequestSubject {
        match incoming {
            Incoming::Whole(frame) | Incoming::Oversized(frame) => {
                let header = Header::read(frame.form, frame.header);
                header.map_or_else(|_| RequestSubject::of("refused"), |header| subject_of(&header))
            }
            Incoming::PassedOver => RequestSubject::of("refused"),
        }
    }

    fn describe_placed(&self, placed: &PlacedSend) -> (RequestSubject, Option<LogMark>) {
        self.describe_send(placed)
    }

    fn settling(&self) -> &WakerList {
        self.connections.broker.log().watermarks().changes()
    }

    /// There is no answer to a connection in this protocol.
    fn refuse(&self, _failure: Failure) {}
}

/// The answer to a request that begins a connection for which there is no room. Nothing when it is not there, or wants none.
pub(crate) fn remoting_refusal(first: &[u8], reason: &str) -> Vec<u8> {
    let mut output = Vec::new();
    if let Ok(remoting::Cut::Frame(frame) | remoting::Cut::Oversized { frame, .. }) = remoting::cut(first)
        && let Ok(header) = Header::read(frame.form, frame.header)
        && !header.is_answer()
        && !header.is_one_way()
    {
        let refusal = Refusal::new(ResponseCode::SystemBusy, reason.to_owned());
        Head::refusal_of(header.opaque, &refusal).write(frame.form, b"", &mut output);
    }
    output
}

impl Remoting {
    /// RocketMQ's protocol as this shard has it.
    pub fn port(&self) -> &RemotingPort {
        self.connections.remoting.as_ref().expect("it is spoken where there is one")
    }

    /// Where the peer is, as far as it cannot choose that itself.
    pub fn network(&self) -> IpAddr {
        network_of(self.born.ip())
    }

    fn note_heard(&self, now: MonotonicTime) {
        self.connection.end_after(now, SILENCE_MAX);
    }

    async fn take_request(self: &Rc<Self>, frame: Frame<'_>) -> Taken<PlacedSend> {
        let Ok(header) = Header::read(frame.form, frame.header) else {
            // Nothing says which request this was, so there is nothing to answer to.
            return Taken::Last;
        };
        if header.is_answer() {
            self.take_answer(&header, frame.body);
            return Taken::Weighing(frame.frame_bytes);
        }
        if !wants_stages(&header) {
            return self.carry_out_by_code(&header, &frame).await;
        }
        let timeline = self.connection.timeline.get().map(|timeline| Timeline { is_asked: true, ..timeline });
        self.connection.timeline.set(timeline);
        let timeline = Cell::new(timeline.unwrap_or_default());
        // Few ask: those who do not have no room for this in their task.
        let carrying_out = self.carry_out_by_code(&header, &frame);
        Box::pin(self.connections.metrics.flight.trace(&timeline, carrying_out)).await
    }

    async fn carry_out_by_code(self: &Rc<Self>, header: &Header<'_>, frame: &Frame<'_>) -> Taken<PlacedSend> {
        if send::is_send(header.code) {
            return self.take_send(header, frame).await;
        }
        if pull::is_pull(header.code) {
            return Taken::Weighing(self.take_pull(header, frame).await);
        }
        self.request(header, frame).await;
        Taken::Weighing(frame.frame_bytes)
    }

    /// A client answers; what nobody has asked it is passed over.
    fn take_answer(&self, header: &Header<'_>, body: &[u8]) {
        let heard = self.heard.borrow();
        let words =
            || ClientWords { code: header.code, remark: header.remark.clone(), document: body.to_vec() };
        heard.clients().any(|client| self.port().clients.answer(client, header.opaque, words));
    }

    fn refuse_oversized(&self, frame: Frame<'_>) -> Taken<PlacedSend> {
        let Ok(header) = Header::read(frame.form, frame.header) else { return Taken::Last };
        let refusal = match send::is_send(header.code) {
            true => send::too_large(),
            false => {
                let remark = format!("the body is larger than {} bytes", limits::REMOTING_BODY_BYTES_MAX);
                Refusal::new(ResponseCode::MessageIllegal, remark)
            }
        };
        if !header.is_answer() {
            Asker::of(&header, frame.form).answer(&self.connection.outbox, &Err(refusal));
        }
        Taken::Weighing(frame.frame_bytes)
    }

    fn end_sessions(&self) {
        self.forget_clients();
        if self.has_registered.get() {
            let shard = self.connections.broker.shard().0;
            self.port().names.told().brokers.disconnected((shard, self.connection.id));
        }
    }
}
