//! A connection's stream in the form that hyper reads and writes.
//!
//! hyper answers what it cannot parse by itself, with a bare status line, and has no hook for it. It reads a head only
//! when the answer before it is flushed, so whatever it writes before a request has come out of it is such a refusal, and
//! goes out as an answer of this protocol's form instead.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_lite::{AsyncRead, AsyncWrite};
use hyper::rt::{Read, ReadBufCursor, Write};

use super::http::HttpConnection;
use crate::net::ReceiveBuffer;

/// The stream, what was read from it before hyper came in, and the connection that is told what happens.
pub(super) struct HttpStream<S> {
    pub stream: S,
    buffer: ReceiveBuffer,
    connection: Rc<HttpConnection>,
    /// What takes the place of a refusal of hyper's, as far as it is not written.
    refusal: Bytes,
}

impl<S> HttpStream<S> {
    pub fn new(stream: S, buffer: ReceiveBuffer, connection: Rc<HttpConnection>) -> Self {
        Self { stream, buffer, connection, refusal: Bytes::new() }
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
        if this.buffer.is_empty() {
            if !this.connection.wants_input() {
                // The answer wakes the task, and hyper reads on behind it.
                return Poll::Pending;
            }
            let count = ready!(Pin::new(&mut this.stream).poll_read(context, this.buffer.space(1)))?;
            this.buffer.received(count);
            this.connection.received(count);
        }
        let filled = this.buffer.filled();
        let count = filled.len().min(output.remaining());
        output.put_slice(&filled[..count]);
        this.buffer.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Write for HttpStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.connection.is_before_request()
            && let Some(status) = status_of(bytes)
        {
            this.refusal = this.connection.refusal_in_place_of(status);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.connection.wrote(written.is_pending());
        written
    }

    /// hyper asks for this when all that it had is written.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.refusal.is_empty() {
            let written = Pin::new(&mut this.stream).poll_write(context, &this.refusal);
            this.connection.wrote(written.is_pending());
            this.refusal.advance(ready!(written)?);
        }
        // A stream with a buffer of its own, as that of TLS is, can be blocked here as well.
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        if flushed.is_pending() {
            this.connection.wrote(true);
        }
        ready!(flushed)?;
        this.connection.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}

/// A stream of which some bytes were read already: they come first.
pub(super) struct Replayed<S> {
    pub stream: S,
    buffer: ReceiveBuffer,
}

impl<S> Replayed<S> {
    pub fn new(stream: S, buffer: ReceiveBuffer) -> Self {
        Self { stream, buffer }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        output: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, output);
        }
        let filled = this.buffer.filled();
        let count = filled.len().min(output.len());
        output[..count].copy_from_slice(&filled[..count]);
        this.buffer.consume(count);
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}
