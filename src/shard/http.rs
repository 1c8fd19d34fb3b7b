//! HTTP/1.1 on a connection: hyper reads and writes, `protocol::http` judges and answers, and this file keeps the
//! bounds: time for a head, for a body, between requests; bytes of bodies and answers; turns of the executor.
//!
//! Time-outs are deadlines that the connections' watch looks at once a second, not timers: thousands of clients that
//! wait for messages cost nothing while they wait.
//!
//! A call that is being carried out is dropped when its client goes away. So whoever carries calls out hands work that
//! must run to its end to a task of its own.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::AsyncReadExt;
use glommio::net::TcpStream;
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, EXPECT, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::connection::{Connection, Connections, ShardBroker};
use super::data_directory::NodeSecret;
use super::http_backend::BrokerBackend;
use super::http_stream::HttpStream;
use super::tick::reactor_turn;
use crate::access::{AccessError, AccessFile, Refreshed};
use crate::limits;
use crate::net::ReceiveBuffer;
use crate::protocol::http::{ErrorCode, HttpError, HttpService};
use crate::types::{MonotonicTime, ShardId};

/// A head must be complete this long after its first byte.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A body must go on within this time, and be complete within the longer one.
const BODY_PAUSE_MAX: Duration = Duration::from_secs(30);
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// A connection without a request ends after this time: longer than a client's wait for messages, so that one that asks
/// again at once never meets the end.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long, and for how many bytes, a connection that ended with something unread is read on. Closed at once, the kernel
/// would send a reset, which may overtake the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A refused request's body of up to this size is read, so that its connection can go on.
const DISCARD_BYTES_MAX: u64 = 64 * 1024;
/// Answers of one connection before the executor looks at its rings: see `reactor_turn`.
const TURN_ANSWERS: u32 = 64;

const _: () = assert!(IDLE_TIMEOUT.as_secs() > limits::HTTP_RECEIVE_WAIT_SECONDS_MAX);

/// HTTP on one shard.
pub(super) struct HttpPort {
    service: Rc<HttpService<BrokerBackend>>,
    body_bytes: Cell<usize>,
    /// Every shard reads the file of keys; one of them tells what it has found.
    tells: bool,
}

impl HttpPort {
    pub fn open(
        broker: &Rc<ShardBroker>,
        access_keys: Option<&Path>,
        secret: &NodeSecret,
    ) -> Result<Self, AccessError> {
        let (clock, shard) = (broker.clock().clone(), broker.shard());
        let now = clock.monotonic();
        let backend = BrokerBackend::new(broker.clone(), &secret.0, secret.number(shard));
        let access = access_keys.map(|path| AccessFile::open(path, now)).transpose()?.map(|(file, _)| file);
        let service = Rc::new(HttpService::new(backend, shard, clock, access));
        Ok(Self { service, body_bytes: Cell::new(0), tells: shard == ShardId(0) })
    }

    /// To be called about once a second.
    pub fn tick(&self) {
        let refreshed = self.service.tick();
        if !self.tells {
            return;
        }
        match refreshed {
            Refreshed::Unchanged | Refreshed::Read { warning: None } => {}
            Refreshed::Read { warning: Some(warning) } => eprintln!("turbopump: {warning}"),
            Refreshed::Failed(error) => {
                eprintln!("turbopump: the access keys stay as they were: {error}");
            }
        }
    }
}

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

/// One HTTP connection, as its stream and its requests see it.
pub(super) struct HttpConnection {
    connections: Rc<Connections>,
    connection: Rc<Connection>,
    phase: Cell<Phase>,
    answer_bytes: Cell<usize>,
    answers_since_turn: Cell<u32>,
}

/// Serves a connection whose first bytes are in `buffer`, until it ends.
pub(super) async fn serve_http(
    connections: &Rc<Connections>,
    connection: &Rc<Connection>,
    stream: TcpStream,
    buffer: ReceiveBuffer,
) {
    // From here on there are deadlines of our own.
    connection.incomplete_since.set(None);
    let http = Rc::new(HttpConnection {
        connections: connections.clone(),
        connection: connection.clone(),
        phase: Cell::new(Phase::Idle),
        answer_bytes: Cell::new(0),
        answers_since_turn: Cell::new(0),
    });
    http.set_phase(Phase::Head);
    let stream = HttpStream::new(stream, buffer, http.clone());
    let serve = {
        let http = http.clone();
        move |request| {
            let http = http.clone();
            Box::pin(async move { Ok::<_, Infallible>(http.serve(request).await) })
        }
    };
    let mut serving = http1::Builder::new()
        .max_buf_size(limits::HTTP_HEADER_BYTES_MAX)
        .header_read_timeout(None)
        .serve_connection(stream, service_fn(serve));
    // An error is the peer's: hyper has answered what can be answered.
    let _ = poll_fn(|context| serving.poll_without_shutdown(context)).await;
    linger(connections, connection, serving.into_parts().io.stream).await;
    connection.end();
}

/// Lets the last answer arrive: ends our direction, and reads what the peer still sends.
async fn linger(connections: &Rc<Connections>, connection: &Rc<Connection>, mut stream: TcpStream) {
    connection.deadline.set(Some(connections.clock.monotonic().after(LINGER)));
    if stream.shutdown(std::net::Shutdown::Write).await.is_err() {
        return;
    }
    let mut scrap = vec![0; 64 * 1024];
    let mut left = LINGER_BYTES_MAX;
    while left > 0 && !connections.is_stopping() {
        match stream.read(&mut scrap).await {
            Ok(0) | Err(_) => return,
            Ok(count) => left = left.saturating_sub(count),
        }
        reactor_turn().await;
    }
}

impl HttpConnection {
    /// Bytes have come in; none is the end.
    pub fn received(&self, count: usize) {
        self.connections.metrics.socket_calls.add(1);
        if count > 0 && self.phase.get() == Phase::Idle {
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
    pub fn flushed(&self) {
        if self.phase.get() != Phase::Answered {
            return;
        }
        self.release_answer();
        self.connection.unanswered.set(self.connection.unanswered.get() - 1);
        self.set_phase(Phase::Idle);
    }

    fn set_phase(&self, phase: Phase) {
        let after = |timeout| Some(self.now().after(timeout));
        self.phase.set(phase);
        self.connection.deadline.set(match phase {
            Phase::Idle => after(IDLE_TIMEOUT),
            Phase::Head => after(HEAD_TIMEOUT),
            Phase::Body => after(BODY_PAUSE_MAX),
            Phase::Answering | Phase::Answered => None,
        });
    }

    fn now(&self) -> MonotonicTime {
        self.connections.clock.monotonic()
    }

    fn port(&self) -> &HttpPort {
        self.connections.http.as_ref().expect("connections come here through a listener for HTTP")
    }

    /// One request from its head to its answer.
    async fn serve(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.connection.unanswered.set(self.connection.unanswered.get() + 1);
        self.connections.metrics.requests.add(1);
        let mut response = self.respond(request).await;
        if self.connections.is_stopping() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.answers_since_turn.set(self.answers_since_turn.get() + 1);
        if self.answers_since_turn.get() >= TURN_ANSWERS {
            self.answers_since_turn.set(0);
            reactor_turn().await;
        }
        self.hold_answer(response.body().len());
        self.set_phase(Phase::Answered);
        response.map(Full::new)
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Bytes> {
        let (head, mut body) = request.into_parts();
        self.set_phase(Phase::Body);
        let service = &self.port().service;
        let admitted = match service.admit(&head) {
            Ok(admitted) => admitted,
            Err(error) => {
                // A client that waits for our word is spared sending it.
                if !head.headers.contains_key(EXPECT) {
                    self.discard(&mut body).await;
                }
                return service.refuse(&head, &error);
            }
        };
        let held = BodyBytes { port: self.port(), bytes: Cell::default() };
        match self.read_body(&mut body, &held).await {
            Ok(body) => {
                self.set_phase(Phase::Answering);
                service.answer(admitted, &head, body).await
            }
            Err(error) => service.refuse(&head, &error),
        }
    }

    async fn read_body(&self, body: &mut Incoming, held: &BodyBytes<'_>) -> Result<Bytes, HttpError> {
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
        let until = self.now().after(BODY_TIMEOUT);
        let mut first = Bytes::new();
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| HttpError::invalid(format!("the body cannot be read: {error}")))?;
            // What is no data is trailers, which mean nothing here.
            let Ok(data) = frame.into_data() else { continue };
            held.add(data.len())?;
            self.connection.deadline.set(Some(self.now().after(BODY_PAUSE_MAX).min(until)));
            match (first.is_empty(), whole.is_empty()) {
                // Most bodies come in one piece, which needs no copy.
                (true, true) => first = data,
                (false, true) => whole = [&first[..], &data[..]].concat(),
                _ => whole.extend_from_slice(&data),
            }
        }
        Ok(if whole.is_empty() { first } else { whole.into() })
    }

    /// Reads a small body that nobody wants.
    async fn discard(&self, body: &mut Incoming) {
        let mut left = DISCARD_BYTES_MAX;
        if body.size_hint().lower() > left {
            return;
        }
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            if bytes > left {
                return;
            }
            left -= bytes;
        }
    }

    fn hold_answer(&self, bytes: usize) {
        self.answer_bytes.set(bytes);
        self.connections.metrics.answer_bytes_waiting.add(bytes as u64);
    }

    fn release_answer(&self) {
        let held = self.answer_bytes.take();
        self.connections.metrics.answer_bytes_waiting.subtract(held as u64);
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.release_answer();
    }
}

fn body_too_large() -> HttpError {
    let most = limits::HTTP_BODY_BYTES_MAX;
    HttpError::new(ErrorCode::BodyTooLarge, format!("the body is too large: {most} bytes are the most"))
}

/// A body's share of what the shard holds; given back when dropped. Counted as it comes in, since a peer may announce
/// what it never sends.
struct BodyBytes<'a> {
    port: &'a HttpPort,
    bytes: Cell<usize>,
}

impl BodyBytes<'_> {
    fn add(&self, count: usize) -> Result<(), HttpError> {
        let bytes = self.bytes.get() + count;
        let sum = self.port.body_bytes.get() + count;
        if bytes > limits::HTTP_BODY_BYTES_MAX {
            return Err(body_too_large());
        }
        if sum > limits::SHARD_HTTP_BODY_BYTES_MAX {
            return Err(HttpError::new(ErrorCode::Unavailable, "too many bodies at once: try again"));
        }
        self.bytes.set(bytes);
        self.port.body_bytes.set(sum);
        Ok(())
    }
}

impl Drop for BodyBytes<'_> {
    fn drop(&mut self) {
        self.port.body_bytes.set(self.port.body_bytes.get() - self.bytes.get());
    }
}
