//! A connection over `std::net`, driven by its caller's thread. The socket does not block: waiting is poll(2), so that
//! one thread can wait for several connections, and so that a broker's answers are read while a large request is
//! written.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::api::{Reply, Request, StageTimes};
use crate::limits;
use crate::protocol::native::DecodedReply;
use crate::types::{Identity, Level, QueueKey, QueueOffset};

use super::channel::{Channel, is_temporary};
use super::core::{Correlation, ProtocolCore};
use super::error::ClientError;
use super::links::Link;
use super::options::{ConnectOptions, Timeouts};
use super::peer::Expected;

/// A connection to one shard. After an error that is not [`ClientError::Refused`] it is of no more use: what was in
/// flight may have been carried out or not.
///
/// ```no_run
/// use turbopump::api::{Reply, Request};
/// use turbopump::client::{Connection, Timeouts};
///
/// let mut connection = Connection::connect("127.0.0.1:10911", Timeouts::default())?;
/// let Reply::Topics(topics) = connection.call(&Request::ListTopics)? else { unreachable!() };
/// println!("{} topics", topics.len());
/// # Ok::<(), turbopump::client::ClientError>(())
/// ```
pub struct Connection {
    channel: Channel<TcpStream>,
    timeouts: Timeouts,
}

impl Connection {
    /// Connects, exchanges prefaces, and proves the access key if there is one.
    pub fn connect(address: &str, options: impl Into<ConnectOptions>) -> Result<Self, ClientError> {
        Self::connect_to(address, None, options)
    }

    /// Connects, and fails when another answers than who is expected.
    pub fn connect_to(
        address: &str,
        expected: Option<Expected>,
        options: impl Into<ConnectOptions>,
    ) -> Result<Self, ClientError> {
        let options = options.into();
        let timeouts = options.timeouts;
        let channel = Channel::new(open(address, timeouts.connect)?, address, options)?;
        let mut connection = Self { channel, timeouts };
        let deadline = Instant::now() + timeouts.connect;
        connection.exchange(deadline, ProtocolCore::is_greeted)?;
        // Nothing was asked: an answer that is there is the broker's last word.
        if connection.channel.has_reply()? {
            connection.channel.take_reply()?;
        }
        if let Some(expected) = expected {
            expected.check(address, connection.identity())?;
        }
        if connection.channel.core.begin_proof()? {
            connection.exchange(deadline, |core| !core.awaits_proof())?;
        }
        Ok(connection)
    }

    /// Sends what is to be sent, and reads until something is so.
    fn exchange(
        &mut self,
        deadline: Instant,
        is_done: impl Fn(&ProtocolCore) -> bool,
    ) -> Result<(), ClientError> {
        self.flush()?;
        // What came while this was sent is looked at before more is waited for: after a refusal nothing more comes.
        self.channel.has_reply()?;
        while !is_done(&self.channel.core) {
            if !self.wait_until(deadline)? {
                let (address, waited) = (self.channel.address().to_owned(), self.timeouts.connect);
                return Err(ClientError::Silent { address, waited });
            }
            self.channel.fill()?;
            self.channel.has_reply()?;
            // Within TLS what was taken is sent when the handshake is through.
            self.flush()?;
        }
        Ok(())
    }

    /// From now on answers are to say where their requests' time went, or not.
    pub fn ask_for_stages(&mut self, asks: bool) {
        self.channel.core.ask_for_stages(asks);
    }

    /// Where the time of the last answer's request went; `None`: that was not asked for, or the broker does not know it.
    pub fn stages(&self) -> Option<StageTimes> {
        self.channel.core.stages()
    }

    /// Who answers; `None` from a broker of an earlier release.
    pub fn identity(&self) -> Option<Identity> {
        self.channel.core.identity()
    }

    /// Where it leads.
    pub fn address(&self) -> &str {
        self.channel.address()
    }

    /// How long it waits for answers.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Requests without an answer yet.
    pub fn in_flight(&self) -> usize {
        self.channel.core.in_flight()
    }

    /// Sends a request and waits for its answer. Nothing else may be in flight.
    pub fn call(&mut self, request: &Request) -> Result<Reply, ClientError> {
        assert_eq!(self.in_flight(), 0, "an answer to another request would be lost");
        let patience = self.timeouts.request + own_wait(request);
        self.submit(request)?;
        match self.receive(patience)? {
            Some((_, reply)) => Ok(reply.into_owned()?),
            None => Err(self.channel.fail(|address| ClientError::Timeout { address, waited: patience })),
        }
    }

    /// Takes a request; it leaves with the next [`flush`](Self::flush) or [`receive`](Self::receive).
    pub fn submit(&mut self, request: &Request) -> Result<Correlation, ClientError> {
        self.channel.submit(request)
    }

    /// Sends a batch to be stored. It is handed to the socket from where it is, without a copy, and has left when this
    /// returns.
    pub fn submit_produce(
        &mut self,
        key: QueueKey,
        level: Option<Level>,
        batch: &[u8],
    ) -> Result<Correlation, ClientError> {
        self.channel.check()?;
        let correlation = self.channel.core.begin_produce(key, level, batch.len())?;
        self.send_payload(batch)?;
        Ok(correlation)
    }

    /// The same for copies of stored messages, which keep all of their properties; the first must get the offset `at` if there
    /// is one, or nothing is stored.
    pub fn submit_copies(
        &mut self,
        key: QueueKey,
        level: Option<Level>,
        at: Option<QueueOffset>,
        batch: &[u8],
    ) -> Result<Correlation, ClientError> {
        self.channel.check()?;
        let correlation = self.channel.core.begin_copies((key, level, at), batch.len())?;
        self.send_payload(batch)?;
        Ok(correlation)
    }

    /// Sends the head of a request that was begun, and its payload.
    fn send_payload(&mut self, batch: &[u8]) -> Result<(), ClientError> {
        let head_bytes = self.channel.core.outgoing().len();
        let written = match self.channel.stream.write_both(self.channel.core.outgoing(), batch) {
            Ok(count) => count,
            Err(error) if is_temporary(&error) => 0,
            Err(error) => return Err(self.channel.fail_io(&error)),
        };
        self.channel.core.sent(written.min(head_bytes));
        self.channel.core.append(&batch[written.saturating_sub(head_bytes)..]);
        self.flush()
    }

    /// Sends everything that was submitted. Meanwhile answers are read, but not handed out.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.channel.check()?;
        let deadline = Instant::now() + self.timeouts.request;
        while self.channel.has_unsent() {
            if !self.channel.write()? {
                self.wait_to_write(deadline)?;
            }
        }
        Ok(())
    }

    /// The next answer, in the order they come. `None` when none has come in time; the connection is as good as before.
    pub fn receive(
        &mut self,
        patience: Duration,
    ) -> Result<Option<(Correlation, DecodedReply<'_>)>, ClientError> {
        self.flush()?;
        let deadline = Instant::now() + patience;
        loop {
            if self.channel.has_reply()? {
                return self.channel.take_reply();
            }
            if !self.wait_until(deadline)? {
                return Ok(None);
            }
            self.channel.fill()?;
        }
    }

    /// An answer that has come already. Reads from the socket without waiting when none is in the buffer.
    pub fn try_receive(&mut self) -> Result<Option<(Correlation, DecodedReply<'_>)>, ClientError> {
        self.channel.try_receive()
    }

    /// Waits for bytes or the connection's end. False when the deadline passed first.
    fn wait_until(&mut self, deadline: Instant) -> Result<bool, ClientError> {
        let ready = poll_until(&mut [PollFd::new(self.channel.stream.socket(), PollFlags::IN)], deadline);
        ready.map(|count| count > 0).map_err(|error| self.channel.fail_io(&error))
    }

    /// Waits until the socket takes bytes again; reads what comes meanwhile, because a broker stops reading from a peer
    /// that lets its answers pile up.
    fn wait_to_write(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let flags = PollFlags::IN | PollFlags::OUT;
        let ready = poll_until(&mut [PollFd::new(self.channel.stream.socket(), flags)], deadline);
        match ready {
            Ok(0) => {
                let waited = self.timeouts.request;
                return Err(self.channel.fail(|address| ClientError::Timeout { address, waited }));
            }
            Ok(_) => {}
            Err(error) => return Err(self.channel.fail_io(&error)),
        }
        self.channel.fill()
    }
}

impl Link for Connection {
    fn address(&self) -> &str {
        Connection::address(self)
    }

    fn try_receive(&mut self) -> Result<Option<(Correlation, DecodedReply<'_>)>, ClientError> {
        Connection::try_receive(self)
    }

    fn last_payload(&self) -> &[u8] {
        self.channel.core.last_payload()
    }
}

/// The time for which a request itself asks the broker to wait.
pub(super) fn own_wait(request: &Request) -> Duration {
    match request {
        Request::Fetch(fetch) => fetch.wait,
        Request::Watch(watch) => watch.wait,
        Request::Receive(receive) => receive.wait,
        Request::ReceiveHalves(receive) => receive.wait,
        Request::PurgeTopic(_) => limits::PUBLISH_WAIT_MAX,
        // Each of a few steps may wait for space in a log.
        Request::Redrive(_) => 3 * limits::PUBLISH_WAIT_MAX,
        Request::MeasureLatency(measure) => measure.time,
        _ => Duration::ZERO,
    }
}

/// Waits until one of `connections` has bytes to be read or has ended, and says which. `None` when the deadline passed.
pub(super) fn wait(connections: &[&Connection], deadline: Instant) -> io::Result<Option<usize>> {
    let mut sockets: Vec<_> = connections
        .iter()
        .map(|connection| PollFd::new(connection.channel.stream.socket(), PollFlags::IN))
        .collect();
    if poll_until(&mut sockets, deadline)? == 0 {
        return Ok(None);
    }
    Ok(sockets.iter().position(|socket| !socket.revents().is_empty()))
}

/// poll(2) that goes on after a signal.
fn poll_until(sockets: &mut [PollFd<'_>], deadline: Instant) -> io::Result<usize> {
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(remaining.subsec_nanos()),
        };
        match rustix::event::poll(sockets, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(count) => return Ok(count),
        }
    }
}

/// Why a text leads to no address: it is written wrongly, or nobody knows its host. Only the former can be seen before
/// anybody is asked.
pub(super) fn not_found(address: &str, error: io::Error) -> ClientError {
    let is_malformed = error.kind() == io::ErrorKind::InvalidInput;
    let (address, source) = (address.to_owned(), Arc::new(error));
    if is_malformed {
        ClientError::Address { address, source }
    } else {
        ClientError::UnknownHost { address, source }
    }
}

/// A socket to the first address that answers.
fn open(address: &str, patience: Duration) -> Result<TcpStream, ClientError> {
    let unreachable =
        |source: io::Error| ClientError::Connect { address: address.to_owned(), source: Arc::new(source) };
    let addresses = address.to_socket_addrs().map_err(|error| not_found(address, error))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, patience.max(Duration::from_millis(1))) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(unreachable)?;
                stream.set_nonblocking(true).map_err(unreachable)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(unreachable(last))
}
