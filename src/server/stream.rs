//! A connection's bytes, within TLS or without: what every protocol reads and writes, whole or in two halves.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt};
use glommio::net::TcpStream;

use crate::net::ReceiveBuffer;
use crate::runtime::host;
use crate::server::framed::SendHalf;

/// TLS over a socket of which some bytes were read before it was known.
pub(crate) type TlsStream = futures_rustls::server::TlsStream<Replayed>;

/// Both directions, for a protocol that reads and writes in one task.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// What comes. A wait for it may be given up and begun again.
pub(crate) enum ReadHalf {
    Plain(TcpStream),
    Tls(Rc<RefCell<TlsStream>>),
}

/// What goes.
pub(crate) enum WriteHalf {
    Plain(TcpStream),
    Tls(Rc<RefCell<TlsStream>>),
}

impl Stream {
    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Without the TLS around it.
    pub fn socket(&mut self) -> &mut TcpStream {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &mut stream.get_mut().0.stream,
        }
    }

    /// Where the client is; `None` when it has gone.
    pub fn peer(&mut self) -> Option<SocketAddr> {
        self.socket().peer_addr().ok()
    }

    /// Two halves, for a task each. Without TLS the second one has a descriptor of its own, since glommio's stream is one
    /// task's; within TLS they share the session, and with it the socket, of which each waits for its own direction only.
    pub fn split(self) -> io::Result<(ReadHalf, WriteHalf)> {
        match self {
            Stream::Plain(stream) => {
                let copy = host::duplicate(stream.as_raw_fd())?;
                Ok((ReadHalf::Plain(stream), WriteHalf::Plain(host::stream_of(copy))))
            }
            Stream::Tls(stream) => {
                let shared = Rc::new(RefCell::new(*stream));
                Ok((ReadHalf::Tls(shared.clone()), WriteHalf::Tls(shared)))
            }
        }
    }
}

impl SendHalf for WriteHalf {
    /// Within TLS it is always `WouldBlock`: that has to be asked with [`send`](Self::send).
    fn send_now(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            WriteHalf::Plain(stream) => host::send_parts(stream.as_raw_fd(), parts),
            WriteHalf::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    async fn send(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            // glommio can wait for one buffer only.
            WriteHalf::Plain(stream) => stream.write(&parts[0]).await,
            WriteHalf::Tls(shared) => {
                let count = std::future::poll_fn(|context| {
                    Pin::new(&mut *shared.borrow_mut()).poll_write_vectored(context, parts)
                })
                .await?;
                // The session may have kept what the socket did not take.
                std::future::poll_fn(|context| Pin::new(&mut *shared.borrow_mut()).poll_flush(context))
                    .await?;
                Ok(count)
            }
        }
    }

    /// Says within TLS that nothing more comes, so that its end can be told from a cut. Without TLS the end of the
    /// connection says so.
    async fn finish(&mut self) {
        if let WriteHalf::Tls(shared) = self {
            // A peer that has gone away does not miss it.
            let _ =
                std::future::poll_fn(|context| Pin::new(&mut *shared.borrow_mut()).poll_close(context)).await;
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        output: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, output),
            Stream::Tls(stream) => match Pin::new(&mut **stream).poll_read(context, output) {
                // The socket's end without a word of it within TLS, as many clients end their direction. Whether something was
                // cut off, the requests tell: each says how long it is.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
                read => read,
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_close(context),
            // Says the end in TLS too.
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_close(context),
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        output: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ReadHalf::Plain(stream) => Pin::new(stream).poll_read(context, output),
            ReadHalf::Tls(shared) => Pin::new(&mut *shared.borrow_mut()).poll_read(context, output),
        }
    }
}

/// A socket of which some bytes were read already: they come first.
pub(crate) struct Replayed {
    stream: TcpStream,
    buffer: ReceiveBuffer,
    /// Whether something was sent.
    has_sent: Rc<Cell<bool>>,
}

impl Replayed {
    /// `has_sent` is set when something is sent.
    pub fn new(stream: TcpStream, buffer: ReceiveBuffer, has_sent: &Rc<Cell<bool>>) -> Self {
        Self { stream, buffer, has_sent: has_sent.clone() }
    }
}

impl AsyncRead for Replayed {
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

impl AsyncWrite for Replayed {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.has_sent.set(true);
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    /// All records that are ready with one call, which glommio's stream cannot. And when a handshake fails only one more is
    /// made: the alert that says why stands after the records before it.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, has_sent, .. } = self.get_mut();
        has_sent.set(true);
        match host::send_parts(stream.as_raw_fd(), parts) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let first = parts.iter().find(|part| !part.is_empty());
                Pin::new(stream).poll_write(context, first.map_or(&[], |part| part))
            }
            sent => Poll::Ready(sent),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}
