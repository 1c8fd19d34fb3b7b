//! What a producing connection says and hears, in either protocol: requests from templates that are made once and stamped,
//! and answers by the numbers of their requests.

use crate::api::Status;
use crate::cli::bench::batch_frame::{BatchFrame, BatchShape, FrameHead, Stamp};
use crate::cli::bench::message::{RunId, StreamId};
use crate::cli::bench::remoting_link::RemotingLink;
use crate::cli::bench::socket::{BenchSocket, SocketError};
use crate::protocol::native::{DecodedReply, RequestEncoder, decode_reply};
use crate::types::{Level, QueueKey};

use std::ops::Range;

/// Frames up to this size that are due together go out with one call, as those of the client library do; copying larger
/// ones would cost more than a call.
const GATHERED_FRAME_BYTES: usize = 8 * 1024;
/// No further frame joins a call that has this much.
const GATHERED_BYTES: usize = 64 * 1024;

/// The way of a connection's batches.
pub enum Link {
    Native(NativeLink),
    Remoting(RemotingLink),
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Stored {
        base: u64,
        /// `None`: the protocol does not say.
        level: Option<Level>,
    },
    Refused {
        /// Else nobody knows whether it is.
        not_stored: bool,
        message: String,
    },
}

/// A native connection.
pub struct NativeLink {
    socket: BenchSocket,
    heads: Vec<FrameHead>,
    frame: BatchFrame,
    /// Small frames that are due together; `None` where frames are large, and go out from where they are made.
    gathered: Option<Vec<u8>>,
    /// What the socket has not taken yet of what is gathered, or of the frame.
    unsent: Range<usize>,
}

impl Link {
    pub fn socket(&self) -> &BenchSocket {
        match self {
            Link::Native(link) => &link.socket,
            Link::Remoting(link) => link.socket(),
        }
    }

    fn socket_mut(&mut self) -> &mut BenchSocket {
        match self {
            Link::Native(link) => &mut link.socket,
            Link::Remoting(link) => link.socket_mut(),
        }
    }

    /// Bytes of one request as they are sent, to a few.
    pub fn request_bytes(&self, shape: BatchShape) -> usize {
        match self {
            Link::Native(_) => shape.batch_bytes(),
            Link::Remoting(link) => link.request_bytes(),
        }
    }

    pub fn is_flushed(&self) -> bool {
        match self {
            Link::Native(link) => link.unsent.is_empty(),
            Link::Remoting(link) => link.is_flushed(),
        }
    }

    /// Whether one more request can be made before others are sent.
    pub fn has_room(&self) -> bool {
        match self {
            Link::Native(link) => link.has_room(),
            Link::Remoting(link) => link.has_room(),
        }
    }

    /// Makes the next request of a stream.
    pub fn add(&mut self, stream: usize, stamp: Stamp) {
        match self {
            Link::Native(link) => link.add(stream, stamp),
            Link::Remoting(link) => link.add(stream, stamp),
        }
    }

    /// Sends what the socket takes. Whether nothing is left.
    pub fn flush(&mut self) -> Result<bool, SocketError> {
        match self {
            Link::Native(link) => {
                if !link.unsent.is_empty() {
                    let output = link.gathered.as_deref().unwrap_or(link.frame.bytes());
                    link.unsent.start += link.socket.write(&output[link.unsent.clone()])?;
                }
            }
            Link::Remoting(link) => link.flush()?,
        }
        Ok(self.is_flushed())
    }

    /// Reads once. Whether anything came.
    pub fn read(&mut self) -> Result<bool, SocketError> {
        self.socket_mut().read()
    }

    /// The next whole answer that was read, and the number of its request.
    pub fn next_answer(&mut self) -> Result<Option<(u64, Answer)>, SocketError> {
        match self {
            Link::Native(link) => link.next_answer(),
            Link::Remoting(link) => link.next_answer(),
        }
    }

    /// Forgets what was not sent.
    pub fn discard(&mut self) {
        match self {
            Link::Native(link) => link.unsent = 0..0,
            Link::Remoting(link) => link.discard(),
        }
    }
}

impl NativeLink {
    /// A way to `queues`, each with the stream that this connection is on it.
    pub fn new(
        socket: BenchSocket,
        run: RunId,
        shape: BatchShape,
        level: Option<Level>,
        queues: impl Iterator<Item = (QueueKey, StreamId)>,
    ) -> Result<Self, SocketError> {
        let mut encoder = RequestEncoder::new();
        let heads = queues.map(|(key, stream)| FrameHead::new(&mut encoder, key, stream, level, shape));
        let heads = heads.collect::<Result<Vec<_>, _>>().map_err(|failure| socket.protocol_error(failure))?;
        let frame = BatchFrame::new(run, shape, &heads);
        let is_small = frame.bytes().len() <= GATHERED_FRAME_BYTES;
        Ok(Self { socket, heads, frame, gathered: is_small.then(Vec::new), unsent: 0..0 })
    }

    fn has_room(&self) -> bool {
        let gathers = self.gathered.as_ref().is_some_and(|gathered| gathered.len() < GATHERED_BYTES);
        self.unsent.is_empty() || gathers
    }

    fn add(&mut self, stream: usize, stamp: Stamp) {
        let frame = self.frame.restamp(&self.heads[stream], stamp);
        self.unsent = match &mut self.gathered {
            Some(gathered) => {
                if self.unsent.is_empty() {
                    gathered.clear();
                    self.unsent = 0..0;
                }
                gathered.extend_from_slice(&self.frame.bytes()[frame]);
                self.unsent.start..gathered.len()
            }
            None => frame,
        };
    }

    fn next_answer(&mut self) -> Result<Option<(u64, Answer)>, SocketError> {
        let Some(frame) = self.socket.next_frame()? else { return Ok(None) };
        let correlation = frame.correlation;
        let answer = match decode_reply(&frame) {
            Ok(DecodedReply::Produced(produced)) => {
                Answer::Stored { base: produced.base_offset.0, level: Some(produced.level) }
            }
            Ok(DecodedReply::Failed(failure)) => {
                Answer::Refused { not_stored: Status::not_stored(failure.status), message: failure.message }
            }
            Ok(_) => {
                return Err(self.socket.protocol_error("a produce request got another kind of answer"));
            }
            Err(error) => return Err(self.socket.protocol_error(error)),
        };
        Ok(Some((correlation, answer)))
    }
}
