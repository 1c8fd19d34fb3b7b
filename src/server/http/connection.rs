//! HTTP/1.1 on a connection, with TLS or without: hyper reads and writes, `protocol::http` judges and answers, and this
//! file keeps the bounds: time for a handshake, a head, a body, between requests; bytes of bodies and answers; yields of
//! the executor.
//!
//! Time-outs are deadlines that the connections' watch looks at once a second, not timers: thousands of clients that
//! wait for messages cost nothing while they wait.
//!
//! A call that waits for messages is dropped when its client goes away, so it is carried out in a task of its own, and its
//! connection is looked at meanwhile. Other calls last no longer than a flush: hyper reads on after their answer, which
//! saves a system call and a poll of the ring for each. It is told that peers may close their direction early, or it
//! would end a connection whose last request is still being carried out.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::mem::replace;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt, future};
use glommio::net::TcpStream;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming as IncomingBody;
use hyper::header::{CONNECTION, EXPECT, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::chunks::ChunkWatch;
use super::client::HttpClient;
use super::incoming::Incoming;
use super::port::{BodyBytes, HttpPort, body_too_large};
use super::stream::HttpStream;
use crate::access::Peer;
use crate::api::{RequestProtocol, RequestSubject};
use crate::limits;
use crate::metrics::{Answered, Timeline};
use crate::net::ReceiveBuffer;
use crate::protocol::http::{
    Admitted, Answer, ErrorCode, HttpError, Scheme, http_date, is_body_end_doubtful, unreadable_field,
};
use crate::runtime::{is_clock_tellable, yield_to_reactor};
use crate::server::connection::Connections;
use crate::server::sessions::Connection;
use crate::server::stream::Stream;
use crate::types::{MonotonicTime, Timestamp};

/// A request with this header, whatever its value, is answered with it: where its time went.
const STAGES: HeaderName = HeaderName::from_static("x-turbopump-stages");
/// A head must be complete this long after its first byte, or within the time-out of an idle connection if that is less.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A body must go on within this time, and be complete within the longer one.
const BODY_PAUSE_MAX: Duration = Duration::from_secs(30);
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long, and for how many bytes, a connection that ended with something unread is read on. Closed at once, the kernel
/// would send a reset, which may overtake the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A refused request's body of up to this size is read, so that its connection can go on.
const DISCARD_BYTES_MAX: u64 = 64 * 1024;
/// Answers of one connection before the executor looks at its rings: see `yield_to_reactor`.
const YIELD_ANSWERS: u32 = 64;
/// Bytes of one answer before the executor looks at its rings.
const YIELD_BYTES: usize = 256 * 1024;

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    Head,
    Body,
    /// The request is being carried out.
    Answering,
    /// The answer is made and not yet written.
    Answered,
}

/// Why a connection ends.
enum End {
    Served,
    /// hyper refused with this status what it could not read, and says why.
    Unreadable(u16, String),
    /// Its request did not come in whole in time.
    Late,
    /// There is no memory for what has come of its request.
    Memory,
    /// Others need the memory that it holds.
    GivesWay,
    /// See [`is_clock_tellable`].
    Clock,
}

impl End {
    /// What the client is told that was not answered; `head` is what came of its request, where that could not be read.
    fn error(&self, head: &[u8]) -> Option<HttpError> {
        match self {
            End::Served => None,
            End::Unreadable(status, reason) => Some(unreadable(*status, reason, head)),
            End::Late => {
                let message = "the request did not come in whole in time";
                Some(HttpError::new(ErrorCode::RequestTimeout, message))
            }
            End::Memory => {
                let message = "too much has come of requests that are not complete: try again";
                Some(HttpError::new(ErrorCode::Unavailable, message))
            }
            End::GivesWay => Some(gives_way()),
            End::Clock => {
                let message = "the broker's clock is set to a time before 1970 or after 9999, which HTTP has no words \
                    for: it has to be set right";
                Some(HttpError::new(ErrorCode::ServerError, message))
            }
        }
    }
}

/// One HTTP connection, as its stream and its requests see it.
pub(crate) struct HttpConnection {
    connections: Rc<Connections>,
    connection: Rc<Connection>,
    phase: Cell<Phase>,
    client: Rc<HttpClient>,
    /// What has come of its requests.
    pub(super) incoming: Incoming,
    chunks: ChunkWatch,
    /// The request that is coming is refused, since there is no memory for it.
    is_out_of_memory: Cell<bool>,
    /// What came could not be read, and hyper has refused it with this status.
    unreadable: Cell<Option<u16>>,
    answer_bytes: Cell<usize>,
    /// hyper has all of the answer.
    is_handed_over: Cell<bool>,
    /// It goes out in more than one chunk.
    is_chunked: Cell<bool>,
    answers_since_yield: Cell<u32>,
    /// The last request, unless it was refused by its head.
    admitted: RefCell<Option<Admitted>>,
    /// The body of the present request did not come in one piece.
    is_in_pieces: Cell<bool>,
    /// Without TLS where HTTP is spoken within it only: every request is told so.
    lacks_tls: bool,
    scheme: Scheme,
    /// Where the client is, as far as it can be told, is asked only where access keys are.
    peer: Peer,
}

/// Serves a connection whose first bytes are in `buffer`, until it ends. With `lacks_tls` it answers each request that it is
/// to come within TLS.
pub(crate) async fn serve_http(
    connections: &Rc<Connections>,
    connection: &Rc<Connection>,
    mut stream: Stream,
    buffer: ReceiveBuffer,
    lacks_tls: bool,
) {
    // Told so, a client finds the place where it is said under the name that it is to have.
    let scheme = if lacks_tls || stream.is_tls() { Scheme::Https } else { Scheme::Http };
    let peer = connections.access.as_ref().and_then(|_| stream.peer()).map(|address| address.ip());
    let http = HttpConnection::new(connections, connection, scheme, lacks_tls, Peer::at(peer));
    let mut stream = http.run(stream, buffer).await;
    let closed = stream.close().await.is_ok();
    if closed && !connection.gives_way() {
        // What is still coming is of no interest, encrypted or not.
        linger(connections, stream.socket()).await;
    }
    connection.end();
}

/// Lets the last answer arrive: reads what the peer still sends, after the end of our direction.
async fn linger(connections: &Connections, stream: &mut TcpStream) {
    let Some(http) = &connections.http else { return };
    let mut left = LINGER_BYTES_MAX;
    while left > 0 && !connections.is_stopping() {
        let read = poll_fn(|context| {
            let mut scrap = http.scratch.borrow_mut();
            Pin::new(&mut *stream).poll_read(context, &mut scrap)
        });
        match read.await {
            Ok(0) | Err(_) => return,
            Ok(count) => left = left.saturating_sub(count),
        }
        yield_to_reactor().await;
    }
}

/// Why a body did not come in whole; of its `length`, where that was said, `came` bytes have.
fn why_unreadable(error: &hyper::Error, came: usize, length: Option<u64>) -> HttpError {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let Some(cause) = cause else { return HttpError::invalid(format!("the body cannot be read: {error}")) };
    match (cause.kind(), length) {
        (io::ErrorKind::UnexpectedEof, Some(length)) => HttpError::invalid(format!(
            "the body was cut off: {came} of its {length} bytes have come, and then the end of what the client sends"
        )),
        (io::ErrorKind::UnexpectedEof, None) => HttpError::invalid(format!(
            "the body was cut off after {came} bytes: what the client sends has ended before the last chunk, which has size 0"
        )),
        (io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData, _) => {
            HttpError::invalid(format!("the body's chunks cannot be told apart: {cause}"))
        }
        _ => HttpError::invalid(format!("the body cannot be read: {cause}")),
    }
}

/// What is said instead of an answer that hyper makes by itself, which has nothing but a status. It tells in a few words what it
/// could not read; of a header field it has kept the head.
fn unreadable(status: u16, reason: &str, head: &[u8]) -> HttpError {
    if matches!(status, 431 | 414) {
        let (bytes, fields) = (limits::HTTP_HEADER_BYTES_MAX, limits::HTTP_HEADER_FIELDS_MAX);
        let message = format!(
            "the head is too large: a request line and its header fields have {bytes} bytes at most, and are {fields} fields at \
             most, of which a Content-Length is a length that there can be"
        );
        return HttpError::new(ErrorCode::HeadTooLarge, message);
    }
    let says = |words: &str| reason.contains(words);
    let field = if says("content-length") {
        Some("the header `Content-Length` is no length, or says two of them".to_owned())
    } else if says("transfer-encoding") {
        Some(
            "the header `Transfer-Encoding` does not end with `chunked`, or is sent with HTTP/1.0".to_owned(),
        )
    } else if says("header") {
        unreadable_field(head)
    } else {
        None
    };
    HttpError::invalid(match field {
        Some(field) => format!("this is no HTTP/1.1 request: {field}"),
        None => "this is no HTTP/1.1 request: its first line or a header field cannot be read".to_owned(),
    })
}

/// What is said to a client whose connection gives way to others, before anything was done for its request.
fn gives_way() -> HttpError {
    let message = "the connection ends, since others wait for the memory that it holds: try again";
    HttpError::new(ErrorCode::Unavailable, message)
}

/// A whole answer as it goes out behind hyper's back, the last of its connection.
fn last_answer(response: Response<Answer>, now: Timestamp) -> Bytes {
    let status = response.status();
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\nconnection: close\r\ncontent-length: {}\r\ndate: {}\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        response.body().bytes_left(),
        http_date(now)
    )
    .into_bytes();
    for (name, value) in response.headers() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&response.into_body().into_bytes());
    bytes.into()
}

/// What a client is told for which there is no room.
pub(crate) fn http_refusal(port: &HttpPort, now: Timestamp, reason: &str) -> Vec<u8> {
    let error = HttpError::new(ErrorCode::Unavailable, reason);
    last_answer(port.service.refuse(None, Scheme::Http, &error), now).to_vec()
}

impl HttpConnection {
    fn new(
        connections: &Rc<Connections>,
        connection: &Rc<Connection>,
        scheme: Scheme,
        lacks_tls: bool,
        peer: Peer,
    ) -> Rc<Self> {
        Rc::new(Self {
            connections: connections.clone(),
            connection: connection.clone(),
            phase: Cell::new(Phase::Head),
            client: HttpClient::new(connection.fd(), connection.network.get(), connections),
            incoming: Incoming::new(&connections.memory),
            chunks: ChunkWatch::default(),
            is_out_of_memory: Cell::new(false),
            unreadable: Cell::new(None),
            answer_bytes: Cell::new(0),
            is_handed_over: Cell::new(false),
            is_chunked: Cell::new(false),
            answers_since_yield: Cell::new(0),
            admitted: RefCell::default(),
            is_in_pieces: Cell::new(false),
            lacks_tls,
            scheme,
            peer,
        })
    }

    /// Serves requests until the connection ends, and returns its stream, all answers written.
    async fn run<S>(self: &Rc<Self>, stream: S, buffer: ReceiveBuffer) -> S
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        // From here on there are deadlines of our own.
        self.set_phase(Phase::Head);
        let stream = HttpStream::new(stream, buffer, self.clone());
        let http = self.clone();
        let serve = move |request| {
            let http = http.clone();
            Box::pin(async move { Ok::<_, Infallible>(http.serve(request).await) })
        };
        let mut serving = http1::Builder::new()
            .max_buf_size(limits::HTTP_HEADER_BYTES_MAX)
            .header_read_timeout(None)
            .half_close(true)
            .serve_connection(stream, service_fn(serve));
        let end = {
            let expired = self.connection.expired.changed();
            let served = poll_fn(|context| {
                if !is_clock_tellable() {
                    return Poll::Ready(End::Clock);
                }
                // An error is the peer's: what can be answered is.
                serving.poll_without_shutdown(context).map(|served| match (self.unreadable.get(), served) {
                    _ if self.is_out_of_memory.get() => End::Memory,
                    (Some(status), Err(error)) => End::Unreadable(status, error.to_string()),
                    (Some(status), Ok(())) => End::Unreadable(status, String::new()),
                    (None, _) => End::Served,
                })
            });
            let late = async {
                expired.await;
                End::Late
            };
            let given_way = async {
                self.connection.given_way().await;
                // One that is being answered ends with its answer.
                if matches!(self.phase.get(), Phase::Answering | Phase::Answered) {
                    future::pending::<()>().await;
                }
                End::GivesWay
            };
            future::or(served, future::or(given_way, late)).await
        };
        let http1::Parts { io: HttpStream { mut stream, sent_ahead, .. }, read_buf, .. } =
            serving.into_parts();
        self.connection.takes_expiry.set(false);
        self.connection.has_last_words.set(false);
        self.connection.deadline.set(Some(self.now().after(LINGER)));
        if let Some(error) = end.error(&read_buf) {
            let answer = self.last_answer(&error);
            // A peer that has gone away needs no answer.
            let _ = stream.write_all(&answer[sent_ahead..]).await;
            let _ = stream.flush().await;
        }
        stream
    }

    /// Whether no request was taken out of what has come in since the last answer.
    pub fn is_before_request(&self) -> bool {
        matches!(self.phase.get(), Phase::Idle | Phase::Head)
    }

    /// Whether a body is being read: hyper reads on when it has handed all of it out that had come.
    pub fn is_within_body(&self) -> bool {
        self.phase.get() == Phase::Body
    }

    pub fn client(&self) -> &HttpClient {
        &self.client
    }

    /// Takes note that hyper has refused what it could not read: the connection ends with an answer in words.
    pub fn refuse_unreadable(&self, status: u16) {
        self.unreadable.set(Some(status));
    }

    fn last_answer(&self, error: &HttpError) -> Bytes {
        self.connections.metrics.requests.add(1);
        last_answer(self.port().service.refuse(None, self.scheme, error), self.connections.clock.now())
    }

    /// What bytes are read into before their connection needs memory for them.
    pub fn scratch(&self) -> &RefCell<Vec<u8>> {
        &self.port().scratch
    }

    /// Ends the connection with a refusal of what has come.
    pub fn refuse_for_memory(&self) {
        self.is_out_of_memory.set(true);
    }

    /// The socket was read.
    pub fn has_read(&self) {
        self.connections.metrics.socket_calls.add(1);
    }

    /// These bytes are looked at now. Line ends between requests begin none (RFC 9112, 2.2).
    pub fn received(&self, bytes: &[u8]) {
        self.incoming.handed(bytes.len());
        let came = &self.connection.pace.received_bytes;
        came.set(came.get() + bytes.len() as u64);
        self.chunks.handed(bytes, self.phase.get() != Phase::Body || self.chunks.is_chunked());
        let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        if self.phase.get() == Phase::Idle && !bytes.iter().all(is_line_end) {
            self.set_phase(Phase::Head);
        }
    }

    /// Bytes were written, or could not be because the peer does not read.
    pub fn wrote(&self, is_blocked: bool) {
        let since = &self.connection.write_stalled_since;
        if !is_blocked {
            self.connections.metrics.socket_calls.add(1);
            since.set(None);
        } else if since.get().is_none() {
            since.set(Some(self.connections.clock.monotonic()));
        }
    }

    /// Everything that was to be written is.
    pub fn flushed(&self, context: &Context<'_>) {
        let stalled_since = self.connection.write_stalled_since.take();
        if self.phase.get() != Phase::Answered || !self.is_handed_over.get() {
            return;
        }
        self.release_answer();
        self.connection.unanswered.set(self.connection.unanswered.get() - 1);
        let now = self.now();
        // When the peer has read its answer is the peer's time.
        self.note_time(stalled_since.unwrap_or(now));
        self.set_phase_at(Phase::Idle, || now);
        // When hyper ends an answer of several chunks it may not look at what it has read already of the next request.
        if self.is_chunked.take() {
            context.waker().wake_by_ref();
        }
    }

    fn set_phase(&self, phase: Phase) {
        self.set_phase_at(phase, || self.now());
    }

    fn set_phase_at(&self, phase: Phase, now: impl Fn() -> MonotonicTime) {
        let after = |timeout| Some(now().after(timeout));
        self.phase.set(phase);
        if phase == Phase::Body {
            self.incoming.parsed();
        }
        // Who has sent half of a request is told; who has sent nothing asked for nothing.
        let is_incomplete = matches!(phase, Phase::Head | Phase::Body);
        self.connection.takes_expiry.set(is_incomplete);
        self.connection.has_last_words.set(is_incomplete);
        let (incomplete_since, deadline) = match phase {
            Phase::Idle => (None, after(self.port().idle_timeout)),
            Phase::Head => {
                let begun = now();
                (Some(begun), Some(begun.after(HEAD_TIMEOUT.min(self.port().idle_timeout))))
            }
            // The request has been coming since its first byte.
            Phase::Body => (self.connection.incomplete_since.get(), after(BODY_PAUSE_MAX)),
            Phase::Answering | Phase::Answered => (None, None),
        };
        self.connection.incomplete_since.set(incomplete_since);
        self.connection.deadline.set(deadline);
    }

    fn now(&self) -> MonotonicTime {
        self.connections.clock.monotonic()
    }

    fn port(&self) -> &HttpPort {
        self.connections.http.as_ref().expect("HTTP is spoken where a door takes it")
    }

    /// Takes note of a request whose answer was sent, if it was slow.
    fn note_time(&self, sent: MonotonicTime) {
        let (timeline, flight) = (self.client.timeline.get(), &self.connections.metrics.flight);
        if !flight.is_slow(timeline.took(sent), sent) {
            return;
        }
        let admitted = self.admitted.borrow();
        let subject = admitted.as_ref().map_or(RequestSubject::of("refused"), Admitted::subject);
        let (protocol, client) = (RequestProtocol::Http, self.connection.network.get());
        flight.record(Answered { protocol, subject, client, timeline, at: sent }, sent);
    }

    /// One request from its head to its answer.
    async fn serve(self: &Rc<Self>, request: Request<IncomingBody>) -> Response<OutgoingAnswer> {
        self.connection.unanswered.set(self.connection.unanswered.get() + 1);
        self.connections.metrics.requests.add(1);
        let wants_stages = request.headers().contains_key(&STAGES);
        let begun = self.now();
        let first_byte = self.connection.incomplete_since.get().unwrap_or(begun);
        self.client.timeline.set(Timeline::new(first_byte, begun, begun));
        let flight = &self.connections.metrics.flight;
        let mut response = flight.trace(&self.client.timeline, self.respond(request, begun)).await;
        if wants_stages {
            let stages = flight.stages(&self.client.timeline.get(), self.now()).to_string();
            let stages = HeaderValue::from_str(&stages).expect("names and numbers");
            response.headers_mut().insert(&STAGES, stages);
        }
        let is_last = self.connections.is_stopping() || self.connection.gives_way();
        if is_last || self.incoming.is_to_be_freed() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.answers_since_yield.set(self.answers_since_yield.get() + 1);
        if self.answers_since_yield.get() >= YIELD_ANSWERS {
            self.answers_since_yield.set(0);
            yield_to_reactor().await;
        }
        self.hold_answer(response.body().held_bytes());
        self.set_phase(Phase::Answered);
        self.is_handed_over.set(false);
        response.map(|answer| OutgoingAnswer {
            answer,
            http: self.clone(),
            bytes_since_yield: 0,
            yielding: None,
        })
    }

    async fn respond(&self, request: Request<IncomingBody>, begun: MonotonicTime) -> Response<Answer> {
        let (head, mut body) = request.into_parts();
        self.admitted.take();
        self.set_phase_at(Phase::Body, || begun);
        self.chunks.set_chunked(head.headers.contains_key(TRANSFER_ENCODING));
        let service = &self.port().service;
        let admitted = match self.check_tls().and_then(|()| service.admit(&head, self.scheme, &self.peer)) {
            Ok(admitted) => admitted,
            Err(error) => {
                // A client that waits for our word is spared sending it.
                if !head.headers.contains_key(EXPECT) {
                    self.discard(&mut body).await;
                }
                self.chunks.set_chunked(false);
                let mut refusal = service.refuse(Some(&head), self.scheme, &error);
                if is_body_end_doubtful(&head) {
                    refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                return refusal;
            }
        };
        let mut held = BodyBytes::new(&self.connections);
        let until = begun.after(BODY_TIMEOUT);
        let read = self.read_body(&mut body, &mut held, until).await;
        self.chunks.set_chunked(false);
        match read {
            Ok(body) => {
                if self.is_in_pieces.take() {
                    self.connections.metrics.flight.received(self.now());
                }
                self.set_phase(Phase::Answering);
                let answer = self.answer(&admitted, &head, body).await;
                self.admitted.replace(Some(admitted));
                answer
            }
            Err(error) => service.refuse(Some(&head), self.scheme, &error),
        }
    }

    /// Carries a request out. One that waits for messages is refused as soon as its sender may not have them any more, or as
    /// others need the memory that it holds.
    async fn answer(&self, admitted: &Admitted, head: &Parts, body: Bytes) -> Response<Answer> {
        let answering = self.port().service.answer(admitted, head, body, &self.client);
        if !admitted.waits() {
            return answering.await;
        }
        self.connection.has_last_words.set(true);
        let giving_way = async {
            self.connection.given_way().await;
            self.client.deny(gives_way());
            future::pending().await
        };
        let answering = future::or(answering, giving_way);
        let answer = match admitted.waiting_session() {
            None => answering.await,
            Some(session) => {
                self.connection.session.replace(session.clone());
                let answer = future::or(answering, self.watch_rules(admitted)).await;
                self.connection.session.take();
                answer
            }
        };
        self.connection.has_last_words.set(false);
        answer
    }

    /// Tells the client when what it waits for is kept from it; it never completes.
    async fn watch_rules(&self, admitted: &Admitted) -> Response<Answer> {
        loop {
            self.connection.pace.cut.changed().await;
            let checked = self.port().service.check(admitted, &self.connection.session.borrow());
            if let Err(error) = checked {
                self.client.deny(error);
            }
        }
    }

    fn check_tls(&self) -> Result<(), HttpError> {
        if self.lacks_tls {
            return Err(HttpError::invalid("HTTPS is spoken here: begin the endpoint with https://"));
        }
        Ok(())
    }

    async fn read_body(
        &self,
        body: &mut IncomingBody,
        held: &mut BodyBytes,
        until: MonotonicTime,
    ) -> Result<Bytes, HttpError> {
        let declared = body.size_hint().lower();
        if declared > limits::HTTP_BODY_BYTES_MAX as u64 {
            return Err(body_too_large());
        }
        if self.connections.metrics.answer_bytes_waiting.get() > limits::SHARD_ANSWER_BYTES_MAX as u64 {
            return Err(HttpError::new(
                ErrorCode::Unavailable,
                "too many answers wait to be read: try again",
            ));
        }
        let length = body.size_hint().exact();
        let mut first = Bytes::new();
        let mut whole = Vec::new();
        loop {
            let frame = match self.next_piece(body).await {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(None) => return Err(body_too_large()),
                Err(Some(error)) => return Err(why_unreadable(&error, first.len().max(whole.len()), length)),
            };
            // What is no data is trailers, which mean nothing here.
            let Ok(data) = frame.into_data() else { continue };
            self.incoming.parsed();
            self.chunks.data_came(&data);
            held.add(data.len(), body.size_hint().upper()).await?;
            // Most bodies come in one piece, and nothing is waited for any more.
            if !body.is_end_stream() {
                self.is_in_pieces.set(true);
                self.connection.deadline.set(Some(self.now().after(BODY_PAUSE_MAX).min(until)));
            }
            match (first.is_empty(), whole.is_empty()) {
                // One piece needs no copy.
                (true, true) => first = data,
                (false, true) => whole = [&first[..], &data[..]].concat(),
                _ => whole.extend_from_slice(&data),
            }
        }
        Ok(if whole.is_empty() { first } else { whole.into() })
    }

    /// The next piece of a body; an error without one of hyper's is a chunk that is announced and too large.
    async fn next_piece(
        &self,
        body: &mut IncomingBody,
    ) -> Result<Option<Frame<Bytes>>, Option<hyper::Error>> {
        let mut has_waited = false;
        poll_fn(|context| match Pin::new(&mut *body).poll_frame(context) {
            Poll::Ready(frame) => Poll::Ready(frame.transpose().map_err(Some)),
            Poll::Pending => {
                let awaited = self.chunks.awaited();
                // hyper goes on with what it has before it polls us again, and then has nothing left.
                if awaited.is_some() && !replace(&mut has_waited, true) {
                    context.waker().wake_by_ref();
                } else if awaited.is_some_and(|size| size > limits::HTTP_BODY_BYTES_MAX as u64) {
                    return Poll::Ready(Err(None));
                }
                Poll::Pending
            }
        })
        .await
    }

    /// Reads a small body that nobody wants.
    async fn discard(&self, body: &mut IncomingBody) {
        let mut left = DISCARD_BYTES_MAX;
        if body.size_hint().lower() > left {
            return;
        }
        while let Ok(Some(frame)) = self.next_piece(body).await {
            let Ok(data) = frame.into_data() else { continue };
            self.chunks.data_came(&data);
            let bytes = data.len() as u64;
            if bytes > left {
                return;
            }
            left -= bytes;
        }
    }

    fn hold_answer(&self, bytes: usize) {
        self.client.hold_answer(bytes);
        self.answer_bytes.set(bytes);
        self.connections.metrics.answer_bytes_waiting.add(bytes as u64);
    }

    fn release_answer(&self) {
        self.client.release_answer();
        let held = self.answer_bytes.take();
        self.connections.metrics.answer_bytes_waiting.subtract(held as u64);
    }
}

/// An answer as hyper takes it: as much as it has room for, and others get to run in between.
struct OutgoingAnswer {
    answer: Answer,
    http: Rc<HttpConnection>,
    bytes_since_yield: usize,
    yielding: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Body for OutgoingAnswer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(yielding) = &mut this.yielding {
            ready!(yielding.as_mut().poll(context));
            this.yielding = None;
        }
        let chunk = this.answer.next_chunk();
        this.http.is_chunked.set(this.http.is_chunked.get() || !this.answer.is_empty());
        this.bytes_since_yield += chunk.as_ref().map_or(0, Bytes::len);
        if this.bytes_since_yield >= YIELD_BYTES && !this.answer.is_empty() {
            this.bytes_since_yield = 0;
            this.yielding = Some(Box::pin(yield_to_reactor()));
        }
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.answer.bytes_left())
    }
}

impl Drop for OutgoingAnswer {
    fn drop(&mut self) {
        self.http.is_handed_over.set(true);
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.release_answer();
    }
}
