//! A non-blocking connection that sends pre-encoded frames from where they lie and cuts answers out of one
//! receive buffer. The client library's connection is the one for programs; this one exists so that a generator on one
//! core can outrun a broker on another.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::client::{Client, ClientError, CoreError, Credentials, Expected, ProtocolCore};
use crate::limits;
use crate::types::ShardId;
use crate::wire::frame::{self, Frame, FrameHead};

/// Taken with one call. What comes in larger pieces has left the cache before it is looked at.
const READ_BYTES: usize = 128 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a bench connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("the connection to {address} is gone: {source}")]
    Lost { address: String, source: io::Error },
    #[error("the broker at {address} closed the connection")]
    Closed { address: String },
    #[error("the broker at {address} breaks the protocol: {reason}")]
    Protocol { address: String, reason: String },
    #[error("the broker at {address} refuses the connection: {reason}")]
    Refused { address: String, reason: String },
    #[error(transparent)]
    OtherPeer(Box<ClientError>),
}

/// Where a connection is to lead.
#[derive(Clone, Debug)]
pub struct ShardEndpoint {
    pub address: String,
    pub expected: Option<Expected>,
    pub credentials: Option<Credentials>,
}

pub struct BenchSocket {
    stream: TcpStream,
    address: String,
    input: Vec<u8>,
    /// Received and not yet consumed: `start..end`.
    start: usize,
    end: usize,
    /// Bytes from `start` on that somebody waits for.
    wanted: usize,
}

impl BenchSocket {
    /// Connects and exchanges prefaces. `input_bytes` is room for what was received; it grows when more is waited for.
    pub fn connect(endpoint: &ShardEndpoint, input_bytes: usize) -> Result<Self, SocketError> {
        let address = endpoint.address.as_str();
        let refused = |source| SocketError::Connect { address: address.to_owned(), source };
        let mut stream = TcpStream::connect(address).map_err(refused)?;
        greet(&mut stream, endpoint)?;
        Self::over(stream, address, input_bytes).map_err(refused)
    }

    /// Connects in a protocol that begins with the first request.
    pub fn connect_plain(address: &str, input_bytes: usize) -> Result<Self, SocketError> {
        let refused = |source| SocketError::Connect { address: address.to_owned(), source };
        let stream = TcpStream::connect(address).map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        Self::over(stream, address, input_bytes).map_err(refused)
    }

    fn over(stream: TcpStream, address: &str, input_bytes: usize) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let input = vec![0; input_bytes];
        Ok(Self { stream, address: address.to_owned(), input, start: 0, end: 0, wanted: 0 })
    }

    /// What was received and not consumed.
    pub fn unread(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    pub fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Says how many bytes from the first unread one on are waited for.
    pub fn want(&mut self, bytes: usize) {
        self.wanted = bytes;
    }

    /// Writes what the socket takes now; 0 when it is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, SocketError> {
        match self.stream.write(bytes) {
            Ok(count) => Ok(count),
            Err(error) if is_transient(&error) => Ok(0),
            Err(source) => Err(SocketError::Lost { address: self.address.clone(), source }),
        }
    }

    /// Writes what the socket takes now of these bytes, which are dropped.
    pub fn send(&mut self, unsent: &mut Vec<u8>) -> Result<(), SocketError> {
        if !unsent.is_empty() {
            let written = self.write(unsent)?;
            unsent.drain(..written);
        }
        Ok(())
    }

    /// Reads once. Whether anything came.
    pub fn read(&mut self) -> Result<bool, SocketError> {
        self.make_room();
        let until = self.input.len().min(self.end + READ_BYTES);
        match self.stream.read(&mut self.input[self.end..until]) {
            Ok(0) => Err(SocketError::Closed { address: self.address.clone() }),
            Ok(count) => {
                self.end += count;
                Ok(true)
            }
            Err(error) if is_transient(&error) => Ok(false),
            Err(source) => Err(SocketError::Lost { address: self.address.clone(), source }),
        }
    }

    /// The next whole frame that was read.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, SocketError> {
        let cut = frame::cut(&self.input[self.start..self.end]).map_err(|error| SocketError::Protocol {
            address: self.address.clone(),
            reason: error.to_string(),
        })?;
        match &cut {
            Some(frame) => self.start += frame.frame_bytes,
            None => {
                let bytes = frame::frame_bytes(&self.input[self.start..self.end]).ok().flatten();
                self.wanted = bytes.unwrap_or(frame::FRAME_HEADER_BYTES);
            }
        }
        Ok(cut)
    }

    /// The next frame up to its payload, which [`next_bytes`](Self::next_bytes) then gives in pieces.
    pub fn next_head(&mut self) -> Result<Option<FrameHead<'_>>, SocketError> {
        let cut = frame::cut_head(&self.input[self.start..self.end]).map_err(|error| {
            SocketError::Protocol { address: self.address.clone(), reason: error.to_string() }
        })?;
        match &cut {
            Some(head) => self.start += head.frame.frame_bytes,
            None => self.wanted = self.end - self.start + 1,
        }
        Ok(cut)
    }

    /// The bytes that come next, once `bytes` of them are there; they are not consumed.
    pub fn peek(&mut self, bytes: usize) -> Option<&[u8]> {
        self.wanted = bytes;
        self.input[self.start..self.end].get(..bytes)
    }

    /// The next `bytes`, once they are all there.
    pub fn next_bytes(&mut self, bytes: usize) -> Option<&[u8]> {
        self.wanted = bytes;
        let next = self.input[self.start..self.end].get(..bytes)?;
        self.start += bytes;
        Some(next)
    }

    pub fn protocol_error(&self, reason: impl ToString) -> SocketError {
        SocketError::Protocol { address: self.address.clone(), reason: reason.to_string() }
    }

    /// Makes sure that a read has room, and that what is waited for will fit.
    fn make_room(&mut self) {
        if self.start == self.end {
            // The front of the buffer is what the cache holds.
            (self.start, self.end) = (0, 0);
        } else if self.start + self.wanted > self.input.len() || self.end == self.input.len() {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.wanted > self.input.len() {
            self.input.resize(self.wanted.min(limits::FRAME_BYTES_MAX), 0);
        }
    }
}

impl AsFd for BenchSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Exchanges prefaces, looks who answers, and proves the access key if there is one. The broker says nothing else before it
/// is asked, so that no byte of later answers is read.
fn greet(stream: &mut TcpStream, endpoint: &ShardEndpoint) -> Result<(), SocketError> {
    let address = || endpoint.address.clone();
    let refused = |source| SocketError::Connect { address: address(), source };
    let failed = |error: CoreError| match error {
        CoreError::NotProved(failure) | CoreError::Closing(failure) => {
            SocketError::Refused { address: address(), reason: failure.message }
        }
        error => SocketError::Protocol { address: address(), reason: error.to_string() },
    };
    stream.set_nodelay(true).map_err(refused)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).map_err(refused)?;
    let mut core = ProtocolCore::with_credentials(endpoint.credentials.clone());
    let mut exchange = |core: &mut ProtocolCore, is_done: fn(&ProtocolCore) -> bool| {
        stream.write_all(core.outgoing()).map_err(refused)?;
        core.sent(core.outgoing().len());
        while !is_done(core) {
            match stream.read(core.space()).map_err(refused)? {
                0 => return Err(SocketError::Closed { address: address() }),
                count => core.received(count),
            }
            core.has_reply().map_err(failed)?;
        }
        Ok(())
    };
    exchange(&mut core, ProtocolCore::is_greeted)?;
    if let Some(expected) = endpoint.expected {
        let checked = expected.check(&endpoint.address, core.identity());
        checked.map_err(|error| SocketError::OtherPeer(Box::new(error)))?;
    }
    let begun = core.begin_proof().map_err(|failure| failed(CoreError::NotProved(failure)))?;
    if begun { exchange(&mut core, |core| !core.awaits_proof()) } else { Ok(()) }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The addresses of the shards in the order of their ids, each replaced by the bootstrap address where the client library
/// does so, which says why.
pub fn shard_endpoints(client: &mut Client) -> Result<Vec<ShardEndpoint>, ClientError> {
    let mut endpoints = Vec::new();
    for shard in (0..client.shard_count()).map(ShardId) {
        let address = client.reachable_shard(shard)?;
        let (expected, credentials) = (client.expected(&address), client.options().credentials.clone());
        endpoints.push(ShardEndpoint { expected, address, credentials });
    }
    Ok(endpoints)
}
