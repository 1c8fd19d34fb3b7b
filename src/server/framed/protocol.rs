//! What a framed protocol is to the engine, and what the engine is run on.

use std::rc::Rc;

use futures_lite::AsyncRead;

use crate::api::{Failure, RequestProtocol, RequestSubject};
use crate::metrics::{LogMark, Timeline};
use crate::net::ReceiveBuffer;
use crate::types::{MonotonicTime, WakerList};

/// A protocol on one connection: how frames are cut, how large they may be, how a request is decoded and taken, and how
/// answers are encoded. The engine reads, keeps the bounds and sends; what goes out the protocol pushes to the connection's
/// outbox, in any order that its clients understand.
pub(crate) trait Protocol: 'static {
    /// What it is called in the list of slow requests.
    const NAME: RequestProtocol;

    /// A whole frame in the receive buffer.
    type Frame<'a>: Copy;
    /// A request that was carried out as far as the log, and is answered when what it stored has reached its level. None of
    /// them has a task.
    type Placed;

    /// What comes before the first frame, if anything does. False when the connection is not to go on; what was pushed is sent.
    async fn greet<R: AsyncRead + Unpin>(&self, stream: &mut R, buffer: &mut ReceiveBuffer) -> bool;

    /// Cuts the first frame off `bytes`. The failure is the last answer of the connection, whose framing is lost.
    fn cut<'a>(&self, bytes: &'a [u8]) -> Result<Cut<Self::Frame<'a>>, Failure>;

    /// Why a frame of this size is not read; `None`: it is. It is asked before there is room for the frame.
    fn frame_refusal(&self, frame_bytes: usize) -> Option<Failure>;

    /// Whether what was cut off last is not the end of its frame, the rest of which is passed over as it comes.
    fn is_within_frame(&self) -> bool {
        false
    }

    /// Takes one request: answers it, places it, or begins a call for it. While this waits, the
    /// connection is not read from.
    async fn take(self: &Rc<Self>, frame: Self::Frame<'_>) -> Taken<Self::Placed>;

    /// Answers a placed request if that is due; false while it is not.
    fn settle(&self, placed: &Self::Placed, timeline: &Timeline, now: MonotonicTime) -> bool;

    /// What a slow request was about that was answered where it was taken.
    fn describe(&self, frame: &Self::Frame<'_>) -> RequestSubject;

    /// The same of one that was placed, and what it waited for in the log.
    fn describe_placed(&self, placed: &Self::Placed) -> (RequestSubject, Option<LogMark>);

    /// Woken when placed requests may be due.
    fn settling(&self) -> &WakerList;

    /// The last answer of a connection that is to end: to no request, where the protocol has such an answer.
    fn refuse(&self, failure: Failure);
}

/// What a look at received bytes has found.
pub(crate) enum Cut<F> {
    Frame {
        frame: F,
        /// Its bytes, all of which are there.
        frame_bytes: usize,
    },
    /// The first frame is not complete: it has this many bytes, or more than are there if its length is not known yet.
    Incomplete { needed: usize },
}

/// What became of a request.
pub(crate) enum Taken<P> {
    /// It was answered, or is being carried out in a call. Its weight, in bytes of work, brings the reader's next rest nearer.
    Weighing(usize),
    Placed(P),
    /// It was answered, and the connection ends.
    Last,
}
