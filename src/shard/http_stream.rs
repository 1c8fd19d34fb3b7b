//! A connection's stream in the form that hyper reads and writes.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite};
use hyper::rt::{Read, ReadBufCursor, Write};

use super::http::HttpConnection;
use crate::net::ReceiveBuffer;

/// The stream, what was read from it before hyper came in, and the connection that is told what happens.
pub(super) struct HttpStream<S> {
    pub stream: S,
    buffer: ReceiveBuffer,
    connection: Rc<HttpConnection>,
}

impl<S> HttpStream<S> {
    pub fn new(stream: S, buffer: ReceiveBuffer, connection: Rc<HttpConnection>) -> Self {
        Self { stream, buffer, connection }
    }
}

impl<S: AsyncRead + Unpin> Read for HttpStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut output: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
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
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.connection.wrote(written.is_pending());
        written
    }

    /// hyper asks for this when all that it had is written.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(context))?;
        this.connection.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}
