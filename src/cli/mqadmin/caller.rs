//! A connection to a broker or a name server of RocketMQ's protocol, with one request on its way at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use crate::cli::error::CommandError;
use crate::cli::stream::{ConnectError, Stream, left};
use crate::client::{ClientError, Tls, TlsStream};
use crate::protocol::remoting::client::{Answer, AnswerError, ClientCore};
use crate::protocol::remoting::signature::sign;
use crate::protocol::remoting::{FieldValue, ResponseCode};
use crate::types::Secret;

/// How long a request may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(10);
const PIECE_BYTES: usize = 64 * 1024;

/// Why a question has no answer that is of use.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(
        "nobody answers at {address} ({source}): name a name server or a broker of turbopump's with -n HOST:PORT, and a broker's \
         own address with -b where a command takes one"
    )]
    Connect { address: String, source: io::Error },
    #[error(
        "{address} did not answer within {PATIENCE:?}: it may have carried the request out or not; is it a broker or name server \
         of RocketMQ's protocol, and is it alive?"
    )]
    Silent { address: String },
    #[error("the connection to {address} is gone: {source}")]
    Lost { address: String, source: io::Error },
    #[error("{address} closed the connection: is it a port of RocketMQ's protocol?")]
    Closed { address: String },
    #[error("what {address} answers is not RocketMQ's protocol: {reason}")]
    Protocol { address: String, reason: String },
    #[error(transparent)]
    Tls(#[from] Box<ClientError>),
    #[error("{address} refuses: code {code}, {remark}")]
    Refused { address: String, code: i32, remark: String },
}

/// A key that requests are signed with.
#[derive(Clone, Debug)]
pub struct Signer {
    pub key_id: String,
    pub secret: Secret,
}

pub struct Caller {
    stream: Stream,
    address: String,
    core: ClientCore,
}

impl CallError {
    /// The code of a refusal.
    pub fn code(&self) -> Option<i32> {
        match self {
            CallError::Refused { code, .. } => Some(*code),
            CallError::Connect { .. }
            | CallError::Silent { .. }
            | CallError::Lost { .. }
            | CallError::Closed { .. }
            | CallError::Tls(_)
            | CallError::Protocol { .. } => None,
        }
    }

    /// Whether who was asked has answered.
    pub fn is_refusal_of(&self, code: ResponseCode) -> bool {
        self.code() == Some(code.number())
    }
}

impl From<CallError> for CommandError {
    fn from(error: CallError) -> Self {
        let failed = CommandError::failed(&error);
        match error.code() {
            Some(code) => failed.with("code", code),
            None => failed,
        }
    }
}

impl Caller {
    pub fn connect(address: &str, tls: Option<&Tls>) -> Result<Self, CallError> {
        let stream = Stream::connect(address, tls, PATIENCE).map_err(|error| match error {
            ConnectError::Socket(source) => CallError::Connect { address: address.to_owned(), source },
            ConnectError::Tls(error) => CallError::Tls(error),
        })?;
        Ok(Self { stream, address: address.to_owned(), core: ClientCore::default() })
    }

    /// Asks, and waits for the answer, whatever it says. After an error the connection is of no more use.
    pub fn ask(
        &mut self,
        code: i32,
        fields: &[(&str, FieldValue<'_>)],
        body: &[u8],
        signer: Option<&Signer>,
    ) -> Result<Answer<'_>, CallError> {
        let deadline = Instant::now() + PATIENCE;
        let signed = signer.map(|signer| sign(&signer.key_id, &signer.secret, fields, body));
        let mut all = fields.to_vec();
        let added = signed.iter().flatten().map(|(name, value)| (*name, FieldValue::Text(value)));
        all.extend(added);
        let number = self.core.request(code, &all, body);
        self.send(deadline)?;
        self.receive(deadline)?;
        let Self { core, address, .. } = self;
        let answer = core.next_answer().map_err(|error| broken(address, error))?.expect("it was waited for");
        if answer.header.opaque == number {
            Ok(answer)
        } else {
            Err(CallError::Protocol {
                address: address.clone(),
                reason: "it answers what was not asked".into(),
            })
        }
    }

    fn send(&mut self, deadline: Instant) -> Result<(), CallError> {
        while !self.core.outgoing().is_empty() {
            let wrote = self.stream.allow(left(deadline));
            match wrote.and_then(|()| self.stream.write(self.core.outgoing())) {
                Ok(count) => self.core.sent(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&self.address, error)),
            }
        }
        self.stream.flush().map_err(|error| lost(&self.address, error))
    }

    /// Reads until an answer is there.
    fn receive(&mut self, deadline: Instant) -> Result<(), CallError> {
        let mut piece = [0; PIECE_BYTES];
        while !self.core.has_answer().map_err(|error| broken(&self.address, error))? {
            // A peer that says a little now and then is not waited for either.
            if Instant::now() >= deadline {
                return Err(CallError::Silent { address: self.address.clone() });
            }
            let read = self.stream.allow(left(deadline));
            match read.and_then(|()| self.stream.read(&mut piece)) {
                Ok(0) => return Err(CallError::Closed { address: self.address.clone() }),
                Ok(count) => self.core.received(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&self.address, error)),
            }
        }
        Ok(())
    }
}

fn lost(address: &str, source: io::Error) -> CallError {
    if let Some(error) = TlsStream::explain(address, &source) {
        return Box::new(error).into();
    }
    let address = address.to_owned();
    match source.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => CallError::Silent { address },
        _ => CallError::Lost { address, source },
    }
}

fn broken(address: &str, error: AnswerError) -> CallError {
    CallError::Protocol { address: address.to_owned(), reason: error.to_string() }
}
