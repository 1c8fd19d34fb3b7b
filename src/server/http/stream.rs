//! A connection's stream in the form that hyper reads and writes.
//!
//! hyper answers what it cannot parse by itself, with a bare status line, and has no hook for it. It reads a head only
//! when the answer before it is flushed, so whatever it writes before a request has come out of it is such a refusal. It is
//! kept back, and its connection ends with an answer of this protocol's form instead.
//!
//! What hyper has read is its own, and it tells how much room it has only when it reads. So a connection's memory for
//! requests is looked at here: before each read, and see [`Incoming`](super::incoming::Incoming).

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite};
use hyper::rt::{Read, ReadBufCursor, Write};

use super::client::ANSWER_START;
use super::connection::HttpConnection;
use crate::limits;
use crate::net::ReceiveBuffer;

/// Requests after one that waits are read up to here, while there is plenty of memory; beyond, the end of the client is not
/// noticed.
const WATCHED_BYTES_MAX: usize = limits::HTTP_HEADER_BYTES_MAX;
/// What hyper is given at once at most. With a byte more, a read fills its 16 KiB of room, and it makes 32 KiB, then 64, which
/// it keeps however idle the connection is.
const HANDED_BYTES_MAX: usize = 16 * 1024 - 1;

/// The stream, what was read from it before hyper came in, and the connection that is told what happens.
pub(crate) struct HttpStream<S> {
    pub stream: S,
    buffer: ReceiveBuffer,
    connection: Rc<HttpConnection>,
    /// Bytes of the answer that are sent before there is one: see `HttpClient`.
    pub sent_ahead: usize,
}

impl<S> HttpStream<S> {
    pub fn new(stream: S, buffer: ReceiveBuffer, connection: Rc<HttpConnection>) -> Self {
        Self { stream, buffer, connection, sent_ahead: 0 }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> HttpStream<S> {
    /// Looks, while a call waits for messages, whether the client has closed its direction. hyper does not read then, and
    /// flushes whenever it is polled. What comes in meanwhile is kept for it.
    fn watch_client(&mut self, context: &mut Context<'_>) {
        while self.connection.client().is_watched() && self.buffer.filled().len() < WATCHED_BYTES_MAX {
            if let Some(bytes) = self.buffer.must_grow_to(WATCHED_BYTES_MAX) {
                if !self.connection.incoming.has_plenty() {
                    return;
                }
                self.buffer.grow(bytes);
                self.connection.incoming.keeps(bytes);
            }
            match Pin::new(&mut self.stream).poll_read(context, self.buffer.spare_capacity()) {
                Poll::Ready(Ok(0)) => {
                    let sent = Pin::new(&mut self.stream).poll_write(context, ANSWER_START);
                    match sent {
                        Poll::Ready(Ok(_)) => {
                            self.sent_ahead = ANSWER_START.len();
                            // One byte: what a stream of TLS keeps of it goes out with the next flush.
                            let _ = Pin::new(&mut self.stream).poll_flush(context);
                            self.connection.client().half_closed();
                        }
                        Poll::Ready(Err(_)) => self.connection.client().left(),
                        Poll::Pending => return,
                    }
                }
                Poll::Ready(Ok(count)) => {
                    self.buffer.read(count);
                    self.connection.has_read();
                }
                Poll::Ready(Err(_)) => self.connection.client().left(),
                Poll::Pending => return,
            }
        }
    }
}

/// The status in an answer's first line.
fn status_of(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl<S: AsyncRead + Unpin> Read for HttpStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut output: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let incoming = &this.connection.incoming;
        if this.connection.is_within_body() {
            incoming.all_parsed();
        }
        incoming.parser_can_take(output.remaining());
        if this.connection.is_before_request() && incoming.is_too_much() {
            this.connection.refuse_for_memory();
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        let room = output.remaining().min(HANDED_BYTES_MAX);
        if this.buffer.is_empty() {
            return this.read_past_buffer(context, room, &mut output);
        }
        let filled = this.buffer.filled();
        let count = filled.len().min(room);
        this.connection.received(&filled[..count]);
        output.put_slice(&filled[..count]);
        this.buffer.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> HttpStream<S> {
    /// Reads into memory that all connections have in common, so that one that waits needs next to none. What is beyond
    /// `room` is kept for the next time.
    fn read_past_buffer(
        &mut self,
        context: &mut Context<'_>,
        room: usize,
        output: &mut ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = self.connection.clone();
        let mut scratch = connection.scratch().borrow_mut();
        let most = if connection.incoming.has_plenty() { scratch.len() } else { room.min(scratch.len()) };
        let read = Pin::new(&mut self.stream).poll_read(context, &mut scratch[..most]);
        let Poll::Ready(count) = read else {
            self.buffer.shrink();
            connection.incoming.keeps(self.buffer.memory_bytes());
            return Poll::Pending;
        };
        let count = count?;
        connection.has_read();
        let (now, later) = scratch[..count].split_at(count.min(room));
        connection.received(now);
        output.put_slice(now);
        if !later.is_empty() {
            self.buffer.keep(later);
            connection.incoming.keeps(self.buffer.memory_bytes());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for HttpStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.connection.is_before_request()
            && let Some(status) = status_of(bytes)
        {
            this.connection.refuse_unreadable(status);
            return Poll::Ready(Ok(bytes.len()));
        }
        let ahead = this.sent_ahead;
        let written = Pin::new(&mut this.stream).poll_write(context, &bytes[ahead..]);
        this.connection.wrote(written.is_pending());
        written.map_ok(|count| {
            this.sent_ahead = 0;
            count + ahead
        })
    }

    /// hyper asks for this when all that it had is written.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A stream with a buffer of its own, as that of TLS is, can be blocked here as well.
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        if flushed.is_pending() {
            this.connection.wrote(true);
        }
        ready!(flushed)?;
        this.connection.flushed(context);
        this.watch_client(context);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}
