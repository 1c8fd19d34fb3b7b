//! A connection that reads, in either protocol.

use crate::cli::bench::consume_lane::ConsumeLane;
use crate::cli::bench::pull_lane::PullLane;
use crate::cli::bench::socket::{BenchSocket, SocketError};
use crate::cli::bench::tracker::{Faults, Trackers};
use crate::cli::bench::window::Window;
use crate::types::QueueKey;

// A lane is made once and stays where it is.
#[allow(clippy::large_enum_variant)]
pub enum ReadLane {
    Native(ConsumeLane),
    Remoting(PullLane),
}

/// The same call to the lane, whichever it is.
macro_rules! either {
    ($self:expr, $lane:ident => $call:expr) => {
        match $self {
            ReadLane::Native($lane) => $call,
            ReadLane::Remoting($lane) => $call,
        }
    };
}

impl ReadLane {
    pub fn socket(&self) -> &BenchSocket {
        either!(self, lane => lane.socket())
    }

    /// A catch-up starts nothing new; a follower reads on until nothing more comes.
    pub fn stop(&mut self) {
        either!(self, lane => lane.stop());
    }

    pub fn is_done(&self) -> bool {
        either!(self, lane => lane.is_done())
    }

    pub fn wants_write(&self) -> bool {
        either!(self, lane => lane.wants_write())
    }

    /// Asks for what comes next, wherever nothing is waited for.
    pub fn pump(&mut self) -> Result<(), SocketError> {
        either!(self, lane => lane.pump())
    }

    /// Reads once and checks what came.
    pub fn receive(&mut self, window: &mut Window) -> Result<(), SocketError> {
        either!(self, lane => lane.receive(window))
    }

    /// Gives up on what is still awaited.
    pub fn abandon(&mut self) {
        either!(self, lane => lane.abandon());
    }

    /// Faults of whole passes and of the current one.
    pub fn faults(&self) -> Faults {
        either!(self, lane => lane.faults())
    }

    /// Whole passes of the queue that had the fewest.
    pub fn passes(&self) -> u64 {
        either!(self, lane => lane.passes())
    }

    /// The first refusal's sentence.
    pub fn refusal(&self) -> Option<&String> {
        either!(self, lane => lane.refusal.as_ref())
    }

    /// What was read of a queue in the current pass, where producers can say what should have been.
    pub fn trackers(&mut self, key: QueueKey) -> Option<&mut Trackers> {
        match self {
            ReadLane::Native(lane) => lane.trackers(key),
            ReadLane::Remoting(_) => None,
        }
    }

    /// Queues whose end was not reached by a lane that reads once.
    pub fn unfinished(&self) -> usize {
        match self {
            ReadLane::Native(lane) => lane.unfinished(),
            ReadLane::Remoting(_) => 0,
        }
    }
}
