//! Room for what comes of requests, in a connection's receive buffer.

use crate::limits;
use crate::server::context::ShardContext;
use crate::types::{Account, ByteBudget, Reservation};

/// What a connection's receive buffer has of the shard's memory, beyond what every connection has.
pub(super) struct FrameMemory {
    share: Reservation,
}

impl FrameMemory {
    pub fn new(context: &ShardContext) -> Self {
        Self { share: context.memory.count(Account::Received, 0) }
    }

    fn missing(&self, bytes: usize) -> usize {
        beyond_free(bytes).saturating_sub(self.share.bytes())
    }

    /// Takes room for a buffer of this size, if there is plenty. All that is taken this way together leaves room for the
    /// largest frame: see [`spare_bytes`].
    pub fn try_grow(&mut self, context: &ShardContext, bytes: usize) -> bool {
        let missing = self.missing(bytes);
        let received = context.memory.budget(Account::Received);
        if missing > 0 && received.bytes() + missing > spare_bytes(received) {
            return false;
        }
        self.share.set(self.share.bytes() + missing);
        true
    }

    /// Waits for room for a whole frame, once: who got it needs nothing more to complete its frame, so that some always
    /// get on. Small frames go first, and whoever holds room without filling it gives way: see `relief`. The memory itself
    /// is taken as the bytes come.
    pub async fn take_frame(&mut self, context: &ShardContext, bytes: usize) {
        let missing = self.missing(bytes);
        if missing > 0 {
            let received = context.memory.budget(Account::Received);
            let share = match received.try_reserve(missing) {
                Some(share) => share,
                None => received.reserve_ranked(missing, missing, spare_bytes(received)).await,
            };
            self.share.merge(share);
        }
    }

    /// Gives back what a buffer of this size does not need.
    pub fn shrink_to(&mut self, bytes: usize) {
        if self.share.bytes() > beyond_free(bytes) {
            self.share.set(beyond_free(bytes));
        }
    }
}

/// What buffers may take that could do with less. Those who wait for room for their frame hold no more than this together,
/// and a frame is let in beside it, however large: or they would wait for one another.
fn spare_bytes(received: &ByteBudget) -> usize {
    received.bytes_max() / 4
}

/// What a buffer of this size takes beyond what every connection has.
fn beyond_free(bytes: usize) -> usize {
    bytes.saturating_sub(limits::CONNECTION_BUFFER_BYTES)
}
