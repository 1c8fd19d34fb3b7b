//! A connection's bytes, within TLS or without, as both drivers move them: at once or not at all. Waiting is theirs.

use std::io::{self, IoSlice, Read, Write};

use super::error::ClientError;
use super::options::ConnectOptions;
#[cfg(feature = "tls")]
use super::tls::{Session, explain};

/// A driver's socket. What cannot be done at once is `WouldBlock`.
pub(super) trait Socket {
    fn read_now(&self, output: &mut [u8]) -> io::Result<usize>;
    fn write_now(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes of both, as if they were one piece.
    fn write_both_now(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        self.write_now(if first.is_empty() { second } else { first })
    }
}

impl Socket for std::net::TcpStream {
    fn read_now(&self, output: &mut [u8]) -> io::Result<usize> {
        (&*self).read(output)
    }

    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn write_both_now(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        (&*self).write_vectored(&[IoSlice::new(first), IoSlice::new(second)])
    }
}

#[cfg(feature = "tokio")]
impl Socket for tokio::net::TcpStream {
    fn read_now(&self, output: &mut [u8]) -> io::Result<usize> {
        self.try_read(output)
    }

    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }
}

/// A socket and what is around it.
pub(super) enum Stream<S> {
    Plain(S),
    #[cfg(feature = "tls")]
    Tls(Box<Session<S>>),
}

impl<S: Socket> Stream<S> {
    /// Around a socket that is connected to `address`. The handshake is made by the first writes and reads.
    pub(super) fn new(socket: S, address: &str, options: &ConnectOptions) -> Result<Self, ClientError> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &options.tls {
            return Ok(Stream::Tls(Box::new(Session::new(socket, tls.begin(address)?))));
        }
        let _ = (address, options);
        Ok(Stream::Plain(socket))
    }

    pub(super) fn socket(&self) -> &S {
        match self {
            Stream::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Stream::Tls(session) => &session.socket,
        }
    }

    /// Reads what has come; 0 at the end.
    pub(super) fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read_now(output),
            #[cfg(feature = "tls")]
            Stream::Tls(session) => session.read(output),
        }
    }

    /// Whether more has come that the socket does not tell of.
    pub(super) fn has_more(&mut self) -> bool {
        match self {
            Stream::Plain(_) => false,
            #[cfg(feature = "tls")]
            Stream::Tls(session) => session.has_more(),
        }
    }

    /// Takes some of these bytes. What it has taken may still be [unsent](Self::has_unsent); then another write, of nothing
    /// if there is nothing, sends it.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write_now(bytes),
            #[cfg(feature = "tls")]
            Stream::Tls(session) => session.write(bytes),
        }
    }

    /// Takes some of both, as if they were one piece.
    pub(super) fn write_both(&mut self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write_both_now(first, second),
            #[cfg(feature = "tls")]
            Stream::Tls(session) => {
                let count = session.write(first)?;
                if count < first.len() {
                    Ok(count)
                } else {
                    Ok(count + session.write(second).or_else(none_now)?)
                }
            }
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            #[cfg(feature = "tls")]
            Stream::Tls(session) => session.has_unsent(),
        }
    }
}

#[cfg(feature = "tls")]
fn none_now(error: io::Error) -> io::Result<usize> {
    if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) }
}

/// What an error of reading or writing means for the user.
pub(super) fn lost(address: &str, error: &io::Error) -> ClientError {
    #[cfg(feature = "tls")]
    if let Some(error) = explain(address, error) {
        return error;
    }
    ClientError::Disconnected { address: address.to_owned(), reason: error.to_string() }
}
