//! What can go wrong between a client and a broker.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Failure;
use crate::types::QueueOffset;
use crate::wire::frame::PROTOCOL_VERSION;

use super::messages::QueueName;

/// Why a client could not do what it was asked. Cheap to clone, so that everything that waited for a lost connection
/// can be told of it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The text is written wrongly; nobody was asked.
    #[error("`{address}` is no address: write host:port, for example 127.0.0.1:10911")]
    Address { address: String, source: Arc<io::Error> },
    /// No name service knows the host.
    #[error(
        "no address is known for the host in `{address}` ({source}): check its spelling, and this machine's name service"
    )]
    UnknownHost { address: String, source: Arc<io::Error> },
    /// Nobody takes connections there.
    #[error(
        "no broker answers at {address} ({source}): start one with `turbopump serve --data DIR`, or name another address with --server"
    )]
    Connect { address: String, source: Arc<io::Error> },
    /// Somebody takes connections there, and says nothing.
    #[error(
        "{address} accepts connections, but did not answer within {waited:?}: is it a turbopump broker, and is it alive?"
    )]
    Silent { address: String, waited: Duration },
    /// Another program, or another port of the broker.
    #[error(
        "what listens at {address} does not speak turbopump's native protocol: check the port (10911 unless it was changed; that of --http is another)"
    )]
    NotTurbopump { address: String },
    /// TLS was begun with what does not speak it.
    #[error(
        "what listens at {address} does not speak TLS: leave --tls out (`ConnectOptions::tls`), or start the broker with --tls-certificate FILE --tls-key FILE"
    )]
    NoTls { address: String },
    /// Who answers may be somebody else; nothing was sent to it.
    #[error(
        "the certificate of the broker at {address} is not accepted, and nothing was sent to it: {reason}"
    )]
    Certificate { address: String, reason: String },
    /// What was in flight may have been carried out or not.
    #[error("TLS with the broker at {address} has failed: {reason}")]
    Tls { address: String, reason: String },
    /// A broker of another release.
    #[error(
        "the broker at {address} speaks protocol version {theirs}, this client version {PROTOCOL_VERSION}: use a client and a broker of the same release"
    )]
    Version { address: String, theirs: u16 },
    /// A route leads to somebody else from here.
    #[error(
        "{address} is where {meant} is said to listen, and {answers} answers there: nothing was sent to it. Start the broker that is meant with `--advertise HOST`, a name or address that leads to it from here"
    )]
    OtherPeer { address: String, meant: String, answers: String },
    /// Another node has taken the address that this client was made with.
    #[error(
        "the broker at {address} was node {meant} when this client began, and now {answers} answers there: nothing was sent to it. Begin anew to work with that one"
    )]
    OtherNode { address: String, meant: String, answers: String },
    /// What was in flight may have been carried out or not.
    #[error("the broker at {address} closed the connection ({reason})")]
    Disconnected { address: String, reason: String },
    /// What was in flight may have been carried out or not.
    #[error("the broker at {address} did not answer within {waited:?}")]
    Timeout { address: String, waited: Duration },
    /// The peer's bytes make no sense; the connection is given up.
    #[error("the broker at {address} breaks the protocol: {reason}")]
    Protocol { address: String, reason: String },
    /// A message was sent, and no answer tells what became of it.
    #[error(
        "the message may be stored or not ({reason}): look for its id, or send it again if a second copy does no harm"
    )]
    OutcomeUnknown { reason: String },
    /// Messages `from` up to `to` of a queue will not be delivered; reading goes on at `to`.
    #[error("messages {from} to {to} of queue {} of topic {} are left out: {reason}", queue.queue, queue.topic)]
    Skipped { queue: QueueName, from: QueueOffset, to: QueueOffset, reason: &'static str },
    /// The broker answered that it did not do it, and why.
    #[error(transparent)]
    Refused(#[from] Failure),
}

impl ClientError {
    pub(super) fn protocol(address: &str, reason: impl ToString) -> Self {
        ClientError::Protocol { address: address.to_owned(), reason: reason.to_string() }
    }

    /// Whether a new connection may help: the broker was not reached or was lost, as opposed to having refused.
    pub fn is_connection_loss(&self) -> bool {
        match self {
            ClientError::UnknownHost { .. }
            | ClientError::Connect { .. }
            | ClientError::Silent { .. }
            | ClientError::Disconnected { .. }
            | ClientError::Timeout { .. }
            | ClientError::Tls { .. } => true,
            ClientError::Address { .. }
            | ClientError::NotTurbopump { .. }
            | ClientError::NoTls { .. }
            | ClientError::Certificate { .. }
            | ClientError::Version { .. }
            | ClientError::OtherPeer { .. }
            | ClientError::OtherNode { .. }
            | ClientError::Protocol { .. }
            | ClientError::OutcomeUnknown { .. }
            | ClientError::Skipped { .. }
            | ClientError::Refused(_) => false,
        }
    }
}
