//! A connection without its waiting: what has come is read, and what the socket takes is written. Both drivers are this, and a
//! way to wait.

use std::io;

use super::core::{CoreError, Correlation, ProtocolCore, end_of_stream};
use super::error::ClientError;
use super::options::ConnectOptions;
use super::stream::{Socket, Stream, lost};
use crate::api::{Request, Status};
use crate::protocol::native::DecodedReply;
use crate::wire::frame::FrameError;

/// The protocol over one socket. The first error that is not [`ClientError::Refused`] ends it.
pub(super) struct Channel<S> {
    pub stream: Stream<S>,
    pub core: ProtocolCore,
    address: String,
    /// Set once; everything later gets it.
    error: Option<ClientError>,
}

impl<S: Socket> Channel<S> {
    /// Over a socket that is connected to `address`.
    pub fn new(socket: S, address: &str, options: ConnectOptions) -> Result<Self, ClientError> {
        Ok(Self {
            stream: Stream::new(socket, address, &options)?,
            core: ProtocolCore::with_credentials(options.credentials),
            address: address.to_owned(),
            error: None,
        })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Fails once an earlier call has.
    pub fn check(&self) -> Result<(), ClientError> {
        self.error.as_ref().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Ends it; `error` is given the address.
    pub fn fail(&mut self, error: impl FnOnce(String) -> ClientError) -> ClientError {
        let error = error(self.address.clone());
        self.error = Some(error.clone());
        error
    }

    pub fn fail_io(&mut self, error: &io::Error) -> ClientError {
        self.fail(|address| lost(&address, error))
    }

    /// Takes a request; it leaves with what is written next.
    pub fn submit(&mut self, request: &Request) -> Result<Correlation, ClientError> {
        self.check()?;
        Ok(self.core.submit(request)?)
    }

    /// Whether something is to be written.
    pub fn has_unsent(&self) -> bool {
        !self.core.outgoing().is_empty() || self.stream.has_unsent()
    }

    /// Writes what the socket takes at once. False when it took nothing: wait until it does.
    pub fn write(&mut self) -> Result<bool, ClientError> {
        match self.stream.write(self.core.outgoing()) {
            Ok(count) => {
                self.core.sent(count);
                Ok(true)
            }
            Err(error) if is_temporary(&error) => Ok(false),
            Err(error) => Err(self.fail_io(&error)),
        }
    }

    /// Reads what has come. Answers are handed out by [`take_reply`](Self::take_reply).
    pub fn fill(&mut self) -> Result<(), ClientError> {
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

    /// Whether a whole answer was read.
    pub fn has_reply(&mut self) -> Result<bool, ClientError> {
        self.check()?;
        let Self { core, address, error, .. } = self;
        core.has_reply().map_err(|failed| fail_core(error, address, failed))
    }

    /// The next answer that was read.
    pub fn take_reply(&mut self) -> Result<Option<(Correlation, DecodedReply<'_>)>, ClientError> {
        let Self { core, address, error, .. } = self;
        core.next_reply().map_err(|failed| fail_core(error, address, failed))
    }

    /// An answer that has come already. Reads when none was read before.
    pub fn try_receive(&mut self) -> Result<Option<(Correlation, DecodedReply<'_>)>, ClientError> {
        if !self.has_reply()? {
            self.fill()?;
            if !self.has_reply()? {
                return Ok(None);
            }
        }
        self.take_reply()
    }
}

pub(super) fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn fail_core(state: &mut Option<ClientError>, address: &str, error: CoreError) -> ClientError {
    let error = peer_error(address, error);
    *state = Some(error.clone());
    error
}

/// What bytes that were not understood mean for the user.
fn peer_error(address: &str, error: CoreError) -> ClientError {
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
