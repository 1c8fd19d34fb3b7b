//! A connection over tokio.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use crate::api::{Reply, Request};
use crate::client::channel::Channel;
use crate::client::connection::{not_found, own_wait};
use crate::client::core::{Correlation, ProtocolCore};
use crate::client::links::Link;
use crate::client::{ClientError, ConnectOptions, Expected, Timeouts};
use crate::protocol::native::DecodedReply;
use crate::types::{Identity, Level, QueueKey};

/// A connection to one shard. After an error that is not [`ClientError::Refused`] it is of no more use: what was in
/// flight may have been carried out or not.
pub struct AsyncConnection {
    channel: Channel<TcpStream>,
    timeouts: Timeouts,
}

impl AsyncConnection {
    /// Connects, exchanges prefaces, and proves the access key if there is one.
    pub async fn connect(address: &str, options: impl Into<ConnectOptions>) -> Result<Self, ClientError> {
        Self::connect_to(address, None, options).await
    }

    /// Connects, and fails when another answers than who is expected.
    pub async fn connect_to(
        address: &str,
        expected: Option<Expected>,
        options: impl Into<ConnectOptions>,
    ) -> Result<Self, ClientError> {
        let options = options.into();
        let timeouts = options.timeouts;
        let unreachable = |source: io::Error| ClientError::Connect {
            address: address.to_owned(),
            source: Arc::new(source),
        };
        let silent = || ClientError::Silent { address: address.to_owned(), waited: timeouts.connect };
        let deadline = Instant::now() + timeouts.connect;
        let timed_out = |_| unreachable(io::ErrorKind::TimedOut.into());
        let found = timeout_at(deadline, lookup_host(address)).await.map_err(timed_out)?;
        let addresses: Vec<_> = found.map_err(|error| not_found(address, error))?.collect();
        let connected = timeout_at(deadline, TcpStream::connect(&addresses[..])).await.map_err(timed_out)?;
        let stream = connected.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let mut connection = Self { channel: Channel::new(stream, address, options)?, timeouts };
        let greeted = connection.exchange(ProtocolCore::is_greeted);
        timeout_at(deadline, greeted).await.map_err(|_| silent())??;
        // Nothing was asked: an answer that is there is the broker's last word.
        if connection.channel.has_reply()? {
            connection.channel.take_reply()?;
        }
        if let Some(expected) = expected {
            expected.check(address, connection.identity())?;
        }
        if connection.channel.core.begin_proof()? {
            let proved = connection.exchange(|core| !core.awaits_proof());
            timeout_at(deadline, proved).await.map_err(|_| silent())??;
        }
        Ok(connection)
    }

    /// Who answers; `None` from a broker of an earlier release.
    pub fn identity(&self) -> Option<Identity> {
        self.channel.core.identity()
    }

    /// Sends what is to be sent, and reads until something is so.
    async fn exchange(&mut self, is_done: impl Fn(&ProtocolCore) -> bool) -> Result<(), ClientError> {
        self.flush().await?;
        // What came while this was sent is looked at before more is waited for: after a refusal nothing more comes.
        self.channel.has_reply()?;
        while !is_done(&self.channel.core) {
            self.readable().await?;
            self.channel.fill()?;
            self.channel.has_reply()?;
            // Within TLS what was taken is sent when the handshake is through.
            self.flush().await?;
        }
        Ok(())
    }

    /// Where it leads.
    pub fn address(&self) -> &str {
        self.channel.address()
    }

    /// Requests without an answer yet.
    pub fn in_flight(&self) -> usize {
        self.channel.core.in_flight()
    }

    /// Sends a request and waits for its answer. Nothing else may be in flight. When it is cancelled the answer is still
    /// to come: the connection is to be dropped.
    pub async fn call(&mut self, request: &Request) -> Result<Reply, ClientError> {
        assert_eq!(self.in_flight(), 0, "an answer to another request would be lost");
        let waited = self.timeouts.request + own_wait(request);
        self.submit(request)?;
        match timeout(waited, self.receive()).await {
            Ok(answer) => Ok(answer?.1.into_owned()?),
            Err(_) => Err(self.channel.fail(|address| ClientError::Timeout { address, waited })),
        }
    }

    /// Takes a request; it leaves with the next [`flush`](Self::flush) or [`receive`](Self::receive).
    pub fn submit(&mut self, request: &Request) -> Result<Correlation, ClientError> {
        self.channel.submit(request)
    }

    /// Takes a batch to be stored, copying it.
    pub fn submit_produce(
        &mut self,
        key: QueueKey,
        level: Option<Level>,
        batch: &[u8],
    ) -> Result<Correlation, ClientError> {
        self.channel.check()?;
        Ok(self.channel.core.submit_produce(key, level, batch)?)
    }

    /// The same for copies of stored messages, which keep all of their properties.
    pub fn submit_copies(
        &mut self,
        key: QueueKey,
        level: Option<Level>,
        batch: &[u8],
    ) -> Result<Correlation, ClientError> {
        self.channel.check()?;
        let correlation = self.channel.core.begin_copies((key, level, None), batch.len())?;
        self.channel.core.append(batch);
        Ok(correlation)
    }

    /// Sends everything that was taken. Meanwhile answers are read, but not handed out.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.channel.check()?;
        while self.channel.has_unsent() {
            let ready = self.channel.stream.socket().ready(Interest::READABLE | Interest::WRITABLE).await;
            let ready = ready.map_err(|error| self.channel.fail_io(&error))?;
            if ready.is_writable() {
                self.channel.write()?;
            }
            if ready.is_readable() {
                self.channel.fill()?;
            }
        }
        Ok(())
    }

    /// The next answer, in the order they come. Waits as long as it takes: put a time-out around it.
    pub async fn receive(&mut self) -> Result<(Correlation, DecodedReply<'_>), ClientError> {
        self.flush().await?;
        while !self.channel.has_reply()? {
            self.readable().await?;
            self.channel.fill()?;
        }
        Ok(self.channel.take_reply()?.expect("an answer has come"))
    }

    /// An answer that has come already.
    pub fn try_receive(&mut self) -> Result<Option<(Correlation, DecodedReply<'_>)>, ClientError> {
        self.channel.try_receive()
    }

    async fn readable(&mut self) -> Result<(), ClientError> {
        self.channel.stream.socket().readable().await.map_err(|error| self.channel.fail_io(&error))
    }

    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        // An error shows again when the bytes are read.
        self.channel.stream.socket().poll_read_ready(context).map(|_| ())
    }
}

impl Link for AsyncConnection {
    fn address(&self) -> &str {
        AsyncConnection::address(self)
    }

    fn try_receive(&mut self) -> Result<Option<(Correlation, DecodedReply<'_>)>, ClientError> {
        AsyncConnection::try_receive(self)
    }

    fn last_payload(&self) -> &[u8] {
        self.channel.core.last_payload()
    }
}

/// Waits until one of `connections` has bytes to be read or has ended. False when the deadline passed first; without
/// any connection it passes, and without a deadline nothing ends the wait.
pub(super) async fn any_readable(connections: &[&AsyncConnection], deadline: Option<Instant>) -> bool {
    let ready = poll_fn(|context| {
        // All of them, so that each wakes the task.
        let count =
            connections.iter().filter(|connection| connection.poll_readable(context).is_ready()).count();
        if count > 0 { Poll::Ready(()) } else { Poll::Pending }
    });
    match deadline {
        Some(deadline) => timeout_at(deadline, ready).await.is_ok(),
        None => {
            ready.await;
            true
        }
    }
}
