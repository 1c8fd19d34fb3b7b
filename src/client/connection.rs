//! A connection over `std::net`, driven by its caller's thread. The socket does not block: waiting is poll(2), so that
//! one thread can wait for several connections, and so that a broker's answers are read while a large request is
//! written.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::api::{Reply, Request, Status};
use crate::protocol::native::DecodedReply;
use crate::types::{Identity, Level, QueueKey};
use crate::wire::frame::FrameError;

use super::core::{CoreError, Correlation, ProtocolCore, end_of_stream};
use super::error::ClientError;
use super::links::Link;
use super::options::{ConnectOptions, Timeouts};
use super::peer::Expected;
use super::stream::{Stream, lost};

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
    stream: Stream<TcpStream>,
    core: ProtocolCore,
    address: String,
    timeouts: Timeouts,
    /// Set once; everything later gets it.
    error: Option<ClientError>,
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
        let mut connection = Self {
            stream: Stream::new(open(address, timeouts.connect)?, address, &options)?,
            core: ProtocolCore::with_credentials(options.credentials),
            address: address.to_owned(),
            timeouts,
            error: None,
        };
        let deadline = Instant::now() + timeouts.connect;
        connection.exchange(deadline, ProtocolCore::is_greeted)?;
        // Nothing was asked: an answer that is there is the broker's last word.
        if connection.has_reply()? {
            connection.take_reply()?;
        }
        if let Some(expected) = expected {
            expected.check(address, connection.identity())?;
        }
        if connection.core.begin_proof()? {
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
        self.has_reply()?;
        while !is_done(&self.core) {
            if !self.wait_until(deadline)? {
                let (address, waited) = (self.address.clone(), self.timeouts.connect);
                return Err(ClientError::Silent { address, waited });
            }
            self.fill()?;
            self.has_reply()?;
            // Within TLS what was taken is sent when the handshake is through.
            self.flush()?;
        }
        Ok(())
    }

    /// Who answers; `None` from a broker of an earlier release.
    pub fn identity(&self) -> Option<Identity> {
        self.core.identity()
    }

    /// Where it leads.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How long it waits for answers.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Requests without an answer yet.
    pub fn in_flight(&self) -> usize {
        self.core.in_flight()
    }

    /// Sends a request and waits for its answer. Nothing else may be in flight.
    pub fn call(&mut self, request: &Request) -> Result<Reply, ClientError> {
        assert_eq!(self.in_flight(), 0, "an answer to another request would be lost");
        let patience = self.timeouts.request + own_wait(request);
        self.submit(request)?;
        match self.receive(patience)? {
            Some((_, reply)) => Ok(reply.into_owned()?),
            None => Err(self.fail(|address| ClientError::Timeout { address, waited: patience })),
        }
    }

    /// Takes a request; it leaves with the next [`flush`](Self::flush) or [`receive`](Self::receive).
    pub fn submit(&mut self, request: &Request) -> Result<Correlation, ClientError> {
        self.check()?;
        Ok(self.core.submit(request)?)
    }

    /// Sends a batch to be stored. It is handed to the socket from where it is, without a copy, and has left when this
    /// returns.
    pub fn submit_produce(
        &mut self,
        key: QueueKey,
        level: Option<Level>,
        batch: &[u8],
    ) -> Result<Correlation, ClientError> {
        self.check()?;
        let correlation = self.core.begin_produce(key, level, batch.len())?;
        let head_bytes = self.core.outgoing().len();
        let written = match self.stream.write_both(self.core.outgoing(), batch) {
            Ok(count) => count,
            Err(error) if is_temporary(&error) => 0,
            Err(error) => return Err(self.fail_io(&error)),
        };
        self.core.sent(written.min(head_bytes));
        self.core.append(&batch[written.saturating_sub(head_bytes)..]);
        self.flush()?;
        Ok(correlation)
    }

    /// Sends everything that was submitted. Meanwhile answers are read, but not handed out.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.check()?;
        let deadline = Instant::now() + self.timeouts.request;
        while !self.core.outgoing().is_empty() || self.stream.has_unsent() {
            match self.stream.write(self.core.outgoing()) {
                Ok(count) => self.core.sent(count),
                Err(error) if is_temporary(&error) => self.wait_to_write(deadline)?,
                Err(error) => return Err(self.fail_io(&error)),
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
            if self.has_reply()? {
                return self.take_reply();
            }
            if !self.wait_until(deadline)? {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    /// An answer that has come already. Reads from the socket without waiting when none is in the buffer.
    pub fn try_receive(&mut self) -> Result<Option<(Correlation, DecodedReply<'_>)>, ClientError> {
        self.check()?;
        if !self.has_reply()? {
            self.fill()?;
            if !self.has_reply()? {
                return Ok(None);
            }
        }
        self.take_reply()
    }

    /// Reads what has come, without waiting. Answers are handed out by [`try_receive`](Self::try_receive).
    fn fill(&mut self) -> Result<(), ClientError> {
        loop {
            match self.stream.read(self.core.space()) {
                Ok(0) => {
                    let reason = end_of_stream(&self.core).to_owned();
                    return Err(self.fail(|address| ClientError::Disconnected { address, reason }));
                }
                Ok(count) => self.core.received(count),
                Err(error) if is_temporary(&error) => return Ok(()),
                Err(error) => return Err(self.fail_io(&error)),
            }
            if !self.stream.has_more() {
                return Ok(());
            }
        }
    }

    fn has_reply(&mut self) -> Result<bool, ClientError> {
        self.check()?;
        self.core.has_reply().map_err(|error| fail_core(&mut self.error, &self.address, error))
    }

    fn take_reply(&mut self) -> Result<Option<(Correlation, DecodedReply<'_>)>, ClientError> {
        self.core.next_reply().map_err(|error| fail_core(&mut self.error, &self.address, error))
    }

    /// Waits for bytes or the connection's end. False when the deadline passed first.
    fn wait_until(&mut self, deadline: Instant) -> Result<bool, ClientError> {
        let ready = poll_until(&mut [PollFd::new(self.stream.socket(), PollFlags::IN)], deadline);
        ready.map(|count| count > 0).map_err(|error| self.fail_io(&error))
    }

    /// Waits until the socket takes bytes again; reads what comes meanwhile, because a broker stops reading from a peer
    /// that lets its answers pile up.
    fn wait_to_write(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let flags = PollFlags::IN | PollFlags::OUT;
        let ready = poll_until(&mut [PollFd::new(self.stream.socket(), flags)], deadline);
        match ready {
            Ok(0) => {
                let waited = self.timeouts.request;
                return Err(self.fail(|address| ClientError::Timeout { address, waited }));
            }
            Ok(_) => {}
            Err(error) => return Err(self.fail_io(&error)),
        }
        self.fill()
    }

    fn check(&self) -> Result<(), ClientError> {
        match &self.error {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn fail(&mut self, error: impl FnOnce(String) -> ClientError) -> ClientError {
        let error = error(self.address.clone());
        self.error = Some(error.clone());
        error
    }

    fn fail_io(&mut self, error: &io::Error) -> ClientError {
        self.fail(|address| lost(&address, error))
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
        self.core.last_payload()
    }
}

/// The time for which a request itself asks the broker to wait.
pub(super) fn own_wait(request: &Request) -> Duration {
    match request {
        Request::Fetch(fetch) => fetch.wait,
        Request::Watch(watch) => watch.wait,
        Request::Receive(receive) => receive.wait,
        Request::ReceiveHalves(receive) => receive.wait,
        _ => Duration::ZERO,
    }
}

/// Waits until one of `connections` has bytes to be read or has ended, and says which. `None` when the deadline passed.
pub(super) fn wait(connections: &[&Connection], deadline: Instant) -> io::Result<Option<usize>> {
    let mut sockets: Vec<_> =
        connections.iter().map(|connection| PollFd::new(connection.stream.socket(), PollFlags::IN)).collect();
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

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn fail_core(state: &mut Option<ClientError>, address: &str, error: CoreError) -> ClientError {
    let error = peer_error(address, error);
    *state = Some(error.clone());
    error
}

/// What bytes that were not understood mean for the user.
pub(super) fn peer_error(address: &str, error: CoreError) -> ClientError {
    let address = address.to_owned();
    match error {
        CoreError::Frame(FrameError::Magic) => ClientError::NotTurbopump { address },
        CoreError::Frame(FrameError::Version(theirs)) => ClientError::Version { address, theirs },
        // It does not take such connections, this one or another.
        CoreError::Closing(failure) if failure.status == Status::UnsupportedRequest => {
            ClientError::Refused(failure)
        }
        CoreError::Closing(failure) => ClientError::Disconnected { address, reason: failure.to_string() },
        // Others have guessed from this address: what this client proves is looked at again soon.
        CoreError::NotProved(failure) if failure.status.is_transient() => {
            ClientError::Disconnected { address, reason: failure.to_string() }
        }
        // No other connection would be believed.
        CoreError::NotProved(failure) => ClientError::Refused(failure),
        error @ (CoreError::Frame(_)
        | CoreError::Reply(_)
        | CoreError::Unasked(_)
        | CoreError::Impostor(_)) => ClientError::protocol(&address, error),
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
