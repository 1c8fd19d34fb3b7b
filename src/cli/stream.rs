//! A connection's bytes, within TLS or not, for commands that speak another protocol than ours.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::client::{ClientError, Tls, TlsStream};

pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Tls(Box<ClientError>),
}

impl Stream {
    /// To the first address of a name that takes the connection, each within `patience`.
    pub fn connect(address: &str, tls: Option<&Tls>, patience: Duration) -> Result<Self, ConnectError> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for found in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&found, patience) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(match tls {
                        Some(tls) => Stream::Tls(Box::new(tls.over(stream, address)?)),
                        None => Stream::Plain(stream),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    /// Lets each operation that follows take so long.
    pub fn allow(&self, patience: Duration) -> io::Result<()> {
        self.socket().set_write_timeout(Some(patience))?;
        self.socket().set_read_timeout(Some(patience))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.socket(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(output),
            Stream::Tls(stream) => stream.read(output),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

impl From<ClientError> for ConnectError {
    fn from(error: ClientError) -> Self {
        ConnectError::Tls(Box::new(error))
    }
}

/// What is left until then, as a time-out: one of nothing at all is none.
pub fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}
