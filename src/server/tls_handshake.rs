//! One TLS handshake: what goes to and fro until both sides have agreed. What a session makes of what has come is a step, which
//! somebody else carries out.

use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};
use futures_rustls::TlsAcceptor;
use rustls::{ServerConfig, ServerConnection};

use super::costly_steps::Stepped;
use super::stream::{Replayed, TlsStream};

/// Goes on until the session's handshake is complete; `None` when a step was not carried out. A handshake that fails has told
/// the peer why, if the socket took it.
pub(super) async fn shake_hands(
    io: &mut Replayed,
    mut session: Box<ServerConnection>,
    step: impl AsyncFn(Box<ServerConnection>) -> Option<Stepped>,
) -> Option<io::Result<Box<ServerConnection>>> {
    loop {
        if let Err(error) = send(io, &mut session).await {
            return Some(Err(error));
        }
        if !session.is_handshaking() {
            return Some(Ok(session));
        }
        match poll_fn(|context| Wait { io, context }.poll(|io| session.read_tls(io))).await {
            Ok(0) => {
                let reason = "the client has ended the connection";
                return Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
            }
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        let stepped = step(session).await?;
        session = stepped.session;
        if let Err(error) = stepped.outcome {
            // The alert.
            poll_fn(|context| {
                let _ = Wait { io, context }.poll(|io| session.write_tls(io));
                Poll::Ready(())
            })
            .await;
            return Some(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
    }
}

/// The stream of a session that is complete.
pub(super) async fn stream_of(
    io: Replayed,
    session: ServerConnection,
    config: Arc<ServerConfig>,
) -> Result<TlsStream, (io::Error, Replayed)> {
    // The crate makes streams of sessions of its own only: ours takes the place of that.
    let acceptor = TlsAcceptor::from(config);
    acceptor.accept_with(io, |unused| *unused = session).into_fallible().await
}

async fn send(io: &mut Replayed, session: &mut ServerConnection) -> io::Result<()> {
    while session.wants_write() {
        let count = poll_fn(|context| Wait { io, context }.poll(|io| session.write_tls(io))).await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    poll_fn(|context| Pin::new(&mut *io).poll_flush(context)).await
}

/// A stream as rustls reads and writes one, which is told `WouldBlock` where the task has to wait.
struct Wait<'a, 'b, 'c> {
    io: &'a mut Replayed,
    context: &'b mut Context<'c>,
}

impl Wait<'_, '_, '_> {
    fn poll<T>(mut self, act: impl FnOnce(&mut Self) -> io::Result<T>) -> Poll<io::Result<T>> {
        match act(&mut self) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            done => Poll::Ready(done),
        }
    }
}

fn now_or_later<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Wait<'_, '_, '_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        now_or_later(Pin::new(&mut *self.io).poll_read(self.context, output))
    }
}

impl Write for Wait<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now_or_later(Pin::new(&mut *self.io).poll_write(self.context, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        now_or_later(Pin::new(&mut *self.io).poll_write_vectored(self.context, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
