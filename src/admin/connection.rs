//! One connection to the admin address: its stream as hyper reads and writes it, and how far its exchange has got.
//!
//! hyper is given no timer. It is this file that ends a connection: one that says nothing, sends its head slowly, or does not read its
//! answer. hyper looks at the clock whenever it is polled, and would end the process where that has no date that HTTP can tell:
//! so it is not polled then.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep};

use super::request::Request;
use super::router;
use super::server::Visit;
use crate::limits;
use crate::runtime::is_clock_tellable;

/// A connection may be silent for so long, and take so long to send a head: longer than the usual interval of scrapes.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// From a request's head to the last byte of its answer. A body has half of it.
const EXCHANGE_MAX: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What is read at once.
const SCRATCH_BYTES: usize = 8 * 1024;
const CLOCK_REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nConnection: close\r\n\
    Content-Length: 86\r\n\r\nthe clock is set to a time before 1970 or after 9999: set it right, and try once more\n";

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before a request's head is there.
    Waiting,
    /// Its body is being read.
    Reading,
    /// The request is being carried out.
    Answering,
    /// Its answer is being sent.
    Sending,
}

/// How far a connection has got, and since when.
pub(super) struct Pace {
    stage: Cell<Stage>,
    since: Cell<Instant>,
}

impl Pace {
    pub fn new() -> Rc<Self> {
        Rc::new(Self { stage: Cell::new(Stage::Waiting), since: Cell::new(Instant::now()) })
    }

    fn begin_answer(&self) {
        self.stage.set(Stage::Answering);
        self.since.set(Instant::now());
    }

    /// Awaits what the client sends of a request's body.
    pub async fn reading<T>(&self, body: impl Future<Output = T>) -> T {
        self.stage.set(Stage::Reading);
        let read = body.await;
        self.stage.set(Stage::Answering);
        read
    }

    /// Since when it waits for its client to say something, or to take its answer; `None` while a request is carried out. A
    /// client that does neither, however slowly, would otherwise keep its place from those who ask how the broker is.
    pub fn waiting_since(&self) -> Option<Instant> {
        (self.stage.get() != Stage::Answering).then(|| self.since.get())
    }

    fn is_over(&self) -> bool {
        let most = if self.stage.get() == Stage::Waiting { SILENCE_MAX } else { EXCHANGE_MAX };
        self.since.get().elapsed() > most
    }

    /// Completes when the connection has had its time.
    pub async fn over(&self) {
        while !self.is_over() {
            sleep(LOOK_INTERVAL).await;
        }
    }
}

/// A stream in the form that hyper reads and writes.
struct PacedStream<S> {
    stream: S,
    pace: Rc<Pace>,
    scratch: Box<[u8; SCRATCH_BYTES]>,
}

/// Serves requests until the connection ends.
pub(super) async fn serve<S>(visit: Rc<Visit>, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !is_clock_tellable() {
        // Who has gone needs no answer.
        let _ = stream.write_all(CLOCK_REFUSAL).await;
        return;
    }
    let scratch = Box::new([0; SCRATCH_BYTES]);
    let stream = PacedStream { stream, pace: visit.pace.clone(), scratch };
    let answering = service_fn(move |request| {
        let visit = visit.clone();
        async move {
            visit.pace.begin_answer();
            let answer = match Request::read(request, &visit.peer) {
                Ok(request) => router::answer(&visit, &request).await,
                Err(refusal) => *refusal,
            };
            visit.pace.stage.set(Stage::Sending);
            Ok::<_, Infallible>(answer.into_response())
        }
    });
    let serving = http1::Builder::new()
        .max_buf_size(limits::HTTP_HEADER_BYTES_MAX)
        .header_read_timeout(None)
        // Who has nothing more to ask is answered yet.
        .half_close(true)
        .serve_connection(stream, answering);
    let mut serving = pin!(serving);
    // An error is the peer's, and hyper has told it.
    let _ = poll_fn(|context| match is_clock_tellable() {
        true => serving.as_mut().poll(context),
        false => Poll::Ready(Ok(())),
    })
    .await;
}

impl<S: AsyncRead + Unpin> Read for PacedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut output: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let most = output.remaining().min(SCRATCH_BYTES);
        let mut buffer = ReadBuf::new(&mut this.scratch[..most]);
        ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer))?;
        output.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Write for PacedStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    /// hyper asks for this when all that it had is written.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(context))?;
        if this.pace.stage.get() == Stage::Sending {
            this.pace.stage.set(Stage::Waiting);
            this.pace.since.set(Instant::now());
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_waits_for_its_client_but_while_a_request_is_carried_out() {
        let pace = Pace::new();
        assert!(pace.waiting_since().is_some());
        pace.begin_answer();
        assert!(pace.waiting_since().is_none());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert!(runtime.block_on(pace.reading(async { pace.waiting_since() })).is_some(), "for a body");
        assert!(pace.waiting_since().is_none());
        pace.stage.set(Stage::Sending);
        assert!(pace.waiting_since().is_some(), "until its answer is taken");
    }

    #[test]
    fn what_is_said_of_a_wrong_clock_has_the_length_that_it_says() {
        let text = std::str::from_utf8(CLOCK_REFUSAL).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}: {}", body.len());
    }
}
