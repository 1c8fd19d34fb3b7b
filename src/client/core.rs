//! The client's side of one connection, without I/O: requests go in and become bytes, bytes go in and become answers.
//! Every driver is a loop around it.
//!
//! ```
//! use turbopump::api::Request;
//! use turbopump::client::ProtocolCore;
//!
//! let mut core = ProtocolCore::new();
//! let asked = core.submit(&Request::ListTopics).unwrap();
//! // Write `core.outgoing()` to the socket, tell how much of it was taken:
//! let count = core.outgoing().len();
//! core.sent(count);
//! // Read from the socket into `core.space()`, tell how much came, and take the answers:
//! # let came = turbopump::wire::frame::preface();
//! # core.space()[..came.len()].copy_from_slice(&came);
//! core.received(came.len());
//! while let Some((correlation, answer)) = core.next_reply().unwrap() {
//!     assert_eq!(correlation, asked);
//!     println!("{answer:?}");
//! }
//! ```

use std::collections::HashSet;

use crate::api::{Failure, Request, StageTimes, Status};
use crate::protocol::native::{
    DecodedReply, MalformedReply, RequestEncoder, decode_proved, decode_reply, reply_stages,
};
use crate::types::{Identity, Level, QueueKey, QueueOffset};
use crate::wire::frame::{self, CHALLENGE_BYTES, FrameError};

use super::credentials::{Credentials, SentProof};
use super::receive_buffer::ReceiveBuffer;

/// Requests that may wait for their answers on one connection.
pub const IN_FLIGHT_MAX: usize = 4_096;
/// Bytes that may wait to be sent. A request is taken when fewer wait, whatever its size.
const OUTGOING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The correlation of an answer to a whole connection, not to one request: its framing is lost.
const CONNECTION_CORRELATION: u64 = 0;

/// Number of a request on its connection. Answers come in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Correlation(pub u64);

/// Why the peer's bytes were not understood. The connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// No frame begins there, or one of another protocol version.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame whose content is no answer.
    #[error(transparent)]
    Reply(#[from] MalformedReply),
    /// An answer with a correlation that no request waits for.
    #[error("an answer to request {0}, which nobody waits for")]
    Unasked(u64),
    /// The broker's last words before it closes the connection.
    #[error(transparent)]
    Closing(Failure),
    /// The broker does not believe that the client has its access key's secret.
    #[error(transparent)]
    NotProved(Failure),
    /// The broker believes the client, and cannot show that it has the secret itself.
    #[error(
        "the broker does not have the secret of the access key `{0}`: it is not the one that it says it is"
    )]
    Impostor(String),
}

/// State of one connection. After a [`CoreError`] only the same error comes.
pub struct ProtocolCore {
    encoder: RequestEncoder,
    /// `outgoing[sent..]` is still to be written.
    outgoing: Vec<u8>,
    sent: usize,
    incoming: ReceiveBuffer,
    /// Bytes at the front of `incoming` that the last answer borrowed; dropped with the next call.
    borrowed: usize,
    greeted: bool,
    /// Who the peer says it is; known, if at all, once it has greeted.
    identity: Option<Identity>,
    credentials: Option<Credentials>,
    /// What is to be proved with the credentials; came with the greeting, and was not answered yet.
    challenge: Option<[u8; CHALLENGE_BYTES]>,
    /// Sent, and not answered yet.
    proof: Option<SentProof>,
    /// Where the time of the last answer's request went, if that was asked for.
    stages: Option<StageTimes>,
    last_correlation: u64,
    awaited: HashSet<u64>,
    error: Option<CoreError>,
}

/// Why a connection is over whose peer has closed it.
pub(super) fn end_of_stream(core: &ProtocolCore) -> &'static str {
    if core.is_greeted() {
        "end of stream"
    } else {
        "end of stream before a greeting: is it the broker's native port, and not that of --http?"
    }
}

impl Default for ProtocolCore {
    fn default() -> Self {
        Self::new()
    }
}

impl ProtocolCore {
    /// A fresh connection: the preface is the first that is to be sent.
    pub fn new() -> Self {
        Self::with_credentials(None)
    }

    /// The core of a client that has an access key. Once it [is greeted](Self::is_greeted) it is to
    /// [prove](Self::begin_proof) it, and before it has, nothing is to be submitted.
    pub fn with_credentials(credentials: Option<Credentials>) -> Self {
        let preface = if credentials.is_some() { frame::proving_preface() } else { frame::asking_preface() };
        Self {
            encoder: RequestEncoder::new(),
            outgoing: preface.to_vec(),
            sent: 0,
            incoming: ReceiveBuffer::new(),
            borrowed: 0,
            greeted: false,
            identity: None,
            credentials,
            challenge: None,
            proof: None,
            stages: None,
            last_correlation: CONNECTION_CORRELATION,
            awaited: HashSet::new(),
            error: None,
        }
    }

    /// From now on answers are to say where their requests' time went, or not.
    pub fn ask_for_stages(&mut self, asks: bool) {
        self.encoder.ask_for_stages(asks);
    }

    /// Where the time of the last answer's request went; `None`: that was not asked for, or the broker does not know it.
    pub fn stages(&self) -> Option<StageTimes> {
        self.stages
    }

    /// Takes a request. Refused, with nothing sent, when it is too large or when too much waits already.
    pub fn submit(&mut self, request: &Request) -> Result<Correlation, Failure> {
        if let Request::Produce(produce) = request {
            return self.submit_produce(produce.key, produce.level, &produce.batch);
        }
        if let Request::ProduceCopies(copies) = request {
            let produce = &copies.produce;
            let correlation =
                self.begin_copies((produce.key, produce.level, copies.at), produce.batch.len())?;
            self.append(&produce.batch);
            return Ok(correlation);
        }
        let correlation = self.next_correlation()?;
        self.encoder.encode(&mut self.outgoing, correlation, request)?;
        Ok(self.taken(correlation))
    }

    /// Takes a batch to be stored.
    pub fn submit_produce(
        &mut self,
        key: QueueKey,
        level: Option<Level>,
        batch: &[u8],
    ) -> Result<Correlation, Failure> {
        let correlation = self.begin_produce(key, level, batch.len())?;
        self.append(batch);
        Ok(correlation)
    }

    /// Takes a produce request whose batch the driver sends itself, right after [`outgoing`](Self::outgoing), to spare
    /// a copy. What the socket does not take at once must be [`append`](Self::append)ed before anything else is
    /// submitted.
    pub(super) fn begin_produce(
        &mut self,
        key: QueueKey,
        level: Option<Level>,
        batch_bytes: usize,
    ) -> Result<Correlation, Failure> {
        let correlation = self.next_correlation()?;
        self.encoder.begin_produce(&mut self.outgoing, correlation, key, level, batch_bytes)?;
        Ok(self.taken(correlation))
    }

    /// The same for copies of stored messages, the first of which must get an offset if one is named.
    pub(super) fn begin_copies(
        &mut self,
        to: (QueueKey, Option<Level>, Option<QueueOffset>),
        batch_bytes: usize,
    ) -> Result<Correlation, Failure> {
        let correlation = self.next_correlation()?;
        self.encoder.begin_copies(&mut self.outgoing, correlation, to, batch_bytes)?;
        Ok(self.taken(correlation))
    }

    /// The rest of a batch begun with [`begin_produce`](Self::begin_produce).
    pub(super) fn append(&mut self, payload: &[u8]) {
        self.outgoing.extend_from_slice(payload);
    }

    fn next_correlation(&mut self) -> Result<u64, Failure> {
        let waiting = self.outgoing.len() - self.sent;
        if self.awaited.len() >= IN_FLIGHT_MAX || waiting >= OUTGOING_BYTES_MAX {
            return Err(Failure::new(
                Status::Busy,
                format!(
                    "{} requests and {waiting} bytes wait on this connection: receive answers first",
                    self.awaited.len()
                ),
            ));
        }
        if self.sent > 0 {
            self.outgoing.drain(..self.sent);
            self.sent = 0;
        }
        Ok(self.last_correlation + 1)
    }

    fn taken(&mut self, correlation: u64) -> Correlation {
        self.last_correlation = correlation;
        self.awaited.insert(correlation);
        Correlation(correlation)
    }

    /// Bytes to be sent.
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.sent..]
    }

    /// Counts bytes of [`outgoing`](Self::outgoing) that the socket took.
    pub fn sent(&mut self, count: usize) {
        assert!(count <= self.outgoing().len(), "{count} bytes sent of {}", self.outgoing().len());
        self.sent += count;
        if self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
        }
    }

    /// Requests without an answer yet.
    pub fn in_flight(&self) -> usize {
        self.awaited.len()
    }

    /// Whether the peer has shown that it speaks this protocol.
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Who the peer says it is. `None` before it has greeted, and from a broker of an earlier release.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Proves the access key to a broker that asks for one. False when it does not: there is nothing to wait for then.
    pub fn begin_proof(&mut self) -> Result<bool, Failure> {
        let (Some(credentials), Some(identity)) = (&self.credentials, self.identity) else {
            return Ok(false);
        };
        let Some(challenge) = self.challenge.take() else { return Ok(false) };
        let (prove, sent) = credentials.prove(self.last_correlation + 1, identity, challenge);
        self.encoder.encode_prove(&mut self.outgoing, sent.correlation, &prove)?;
        self.last_correlation = sent.correlation;
        self.proof = Some(sent);
        Ok(true)
    }

    /// Whether a proof was sent and its answer has not come.
    pub fn awaits_proof(&self) -> bool {
        self.proof.is_some()
    }

    /// Room to read into: enough that the frame that has begun fits. The last answer stays where it is.
    pub fn space(&mut self) -> &mut [u8] {
        let needed = match frame::frame_bytes(&self.incoming.filled()[self.borrowed..]) {
            Ok(Some(bytes)) if self.greeted => bytes,
            // An error is found again, and reported, by `next_reply`.
            _ => frame::PREFACE_BYTES + frame::IDENTITY_BYTES + frame::CHALLENGE_BYTES,
        };
        self.incoming.space(self.borrowed + needed)
    }

    /// Counts bytes that were read into [`space`](Self::space).
    pub fn received(&mut self, count: usize) {
        self.incoming.fill(count);
    }

    /// Takes bytes that came, copying them.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.received(count);
            bytes = &bytes[count..];
        }
    }

    /// Whether a whole answer has come. Ends the borrow of the last one.
    pub fn has_reply(&mut self) -> Result<bool, CoreError> {
        self.release();
        match &self.error {
            Some(error) => Err(error.clone()),
            None => self.look().map_err(|error| latched(&mut self.error, error)),
        }
    }

    /// The next answer that has come whole; `None` asks for more bytes. The answer borrows the receive buffer: it is
    /// gone with the next call of this or of [`has_reply`](Self::has_reply).
    pub fn next_reply(&mut self) -> Result<Option<(Correlation, DecodedReply<'_>)>, CoreError> {
        if !self.has_reply()? {
            return Ok(None);
        }
        let frame = frame::cut(self.incoming.filled())?.expect("`has_reply` found a whole frame");
        let awaited = self.awaited.remove(&frame.correlation);
        self.borrowed = frame.frame_bytes;
        if self.encoder.asks_for_stages() {
            self.stages = reply_stages(&frame);
        }
        match decode_reply(&frame) {
            Ok(reply) if awaited => Ok(Some((Correlation(frame.correlation), reply))),
            Ok(DecodedReply::Failed(failure)) => Err(latched(&mut self.error, CoreError::Closing(failure))),
            Ok(_) => Err(latched(&mut self.error, CoreError::Unasked(frame.correlation))),
            Err(error) => Err(latched(&mut self.error, error.into())),
        }
    }

    /// The payload of the last answer, until the next is looked for.
    pub(super) fn last_payload(&self) -> &[u8] {
        match frame::cut(self.incoming.filled()) {
            Ok(Some(frame)) if self.borrowed > 0 => frame.payload,
            _ => &[],
        }
    }

    /// Checks the preface, and whether a whole frame stands at the front.
    fn look(&mut self) -> Result<bool, CoreError> {
        if !self.greeted {
            let Some((preface, rest)) = self.incoming.filled().split_first_chunk() else { return Ok(false) };
            frame::check_preface(preface)?;
            let mut bytes = frame::PREFACE_BYTES;
            if frame::has_identity(preface) {
                let Some(identity) = rest.first_chunk() else { return Ok(false) };
                bytes += frame::IDENTITY_BYTES;
                if frame::has_challenge(preface) {
                    let challenge = rest.get(frame::IDENTITY_BYTES..).and_then(|rest| rest.first_chunk());
                    let Some(challenge) = challenge else { return Ok(false) };
                    self.challenge = Some(*challenge);
                    bytes += CHALLENGE_BYTES;
                }
                self.identity = Some(frame::read_identity(identity));
            }
            self.incoming.consume(bytes);
            self.greeted = true;
        }
        self.look_for_proof()?;
        Ok(frame::cut(self.incoming.filled())?.is_some())
    }

    /// Takes the answer to the proof, which is the first answer there is.
    fn look_for_proof(&mut self) -> Result<(), CoreError> {
        let (Some(sent), Some(credentials)) = (&self.proof, &self.credentials) else { return Ok(()) };
        let Some(frame) = frame::cut(self.incoming.filled())? else { return Ok(()) };
        if frame.correlation != sent.correlation && frame.correlation != CONNECTION_CORRELATION {
            return Err(CoreError::Unasked(frame.correlation));
        }
        match decode_proved(&frame)? {
            Ok(proof) if credentials.is_brokers(sent, &proof) => {}
            Ok(_) => return Err(CoreError::Impostor(credentials.key_id().to_owned())),
            Err(failure) if frame.correlation == CONNECTION_CORRELATION => {
                return Err(CoreError::Closing(failure));
            }
            Err(failure) => return Err(CoreError::NotProved(failure)),
        }
        let frame_bytes = frame.frame_bytes;
        self.proof = None;
        self.incoming.consume(frame_bytes);
        Ok(())
    }

    fn release(&mut self) {
        self.incoming.consume(std::mem::take(&mut self.borrowed));
    }
}

/// Keeps the first error: what follows it has no framing.
fn latched(state: &mut Option<CoreError>, error: CoreError) -> CoreError {
    *state = Some(error.clone());
    error
}

#[cfg(test)]
mod tests;
