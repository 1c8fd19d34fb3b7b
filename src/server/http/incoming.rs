//! The memory that a connection has for what has come of its requests: the buffer of its stream, and hyper's.
//!
//! hyper reads into a buffer of its own, in which a head stays until it is complete, up to `HTTP_HEADER_BYTES_MAX`. Once a
//! request has come out of it, what is left there is no more than the last read: everything before belonged to that request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::limits;
use crate::types::{Account, ClientMemory, Reservation};

/// What every connection has without a share: its small buffers, which `CONNECTION_BYTES` counts.
const BYTES_FREE: usize = 2 * limits::CONNECTION_BUFFER_BYTES;

/// One connection's share of what the shard has for requests that are not complete.
pub(super) struct Incoming {
    memory: Rc<ClientMemory>,
    share: RefCell<Reservation>,
    /// Memory of the stream's buffer.
    kept: Cell<usize>,
    /// Memory of hyper's: what it has not parsed, and the room after that, when it read the last time.
    parser_bytes: Cell<usize>,
    /// Bytes that hyper may have and not have parsed.
    unparsed: Cell<usize>,
    last_read: Cell<usize>,
}

impl Incoming {
    pub fn new(memory: &Rc<ClientMemory>) -> Self {
        Self {
            memory: memory.clone(),
            share: RefCell::new(memory.count(Account::Received, 0)),
            kept: Cell::new(0),
            parser_bytes: Cell::new(0),
            unparsed: Cell::new(0),
            last_read: Cell::new(0),
        }
    }

    /// The stream's buffer takes this much.
    pub fn keeps(&self, bytes: usize) {
        self.kept.set(bytes);
        self.count();
    }

    /// hyper is about to read, and has this much room for it.
    pub fn parser_can_take(&self, bytes: usize) {
        self.parser_bytes.set(self.unparsed.get() + bytes);
        self.count();
    }

    /// hyper was given bytes.
    pub fn handed(&self, bytes: usize) {
        self.last_read.set(bytes);
        // It drops line ends that come before a head.
        let unparsed = (self.unparsed.get() + bytes).min(limits::HTTP_HEADER_BYTES_MAX);
        self.unparsed.set(unparsed);
    }

    /// A head has come out of hyper, or a part of a body.
    pub fn parsed(&self) {
        self.unparsed.set(self.last_read.get().min(self.unparsed.get()));
    }

    /// hyper reads on with nothing left: as it does within a body.
    pub fn all_parsed(&self) {
        self.unparsed.set(0);
    }

    /// Whether more may be held than what is needed: half of the account is left to those who need it.
    pub fn has_plenty(&self) -> bool {
        let received = self.memory.budget(Account::Received);
        received.bytes() <= received.bytes_max() / 2
    }

    /// Whether a head has come so far that it needs a share, and there is none.
    pub fn is_too_much(&self) -> bool {
        self.unparsed.get() >= BYTES_FREE && !self.has_plenty()
    }

    /// Whether the connection holds more than every one does while others need it: to be ended after its answer.
    pub fn is_to_be_freed(&self) -> bool {
        self.share.borrow().bytes() > BYTES_FREE && !self.has_plenty()
    }

    fn count(&self) {
        let bytes = (self.kept.get() + self.parser_bytes.get()).saturating_sub(BYTES_FREE);
        let mut share = self.share.borrow_mut();
        if share.bytes() != bytes {
            share.set(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hyper_holds_is_counted_beyond_what_every_connection_has() {
        let memory = ClientMemory::new(17 << 20);
        let received = || memory.budget(Account::Received).bytes();
        let incoming = Incoming::new(&memory);
        incoming.keeps(4096);
        incoming.parser_can_take(8192);
        assert_eq!(received(), 0);
        // A head in pieces.
        for piece in 1..=4 {
            incoming.handed(10_000);
            incoming.parser_can_take(20_000);
            assert_eq!(received(), 4096 + piece * 10_000 + 20_000 - BYTES_FREE);
        }
        // It is complete, and the next one has begun with it.
        incoming.parsed();
        incoming.parser_can_take(8192);
        assert_eq!(received(), 4096 + 10_000 + 8192 - BYTES_FREE);
        // Others leave less than half: now a large one is too much, and a small one is not.
        let others = memory.count(Account::Received, 1 << 20);
        assert!(!incoming.is_too_much());
        incoming.handed(BYTES_FREE);
        assert!(incoming.is_too_much());
        drop(others);
        assert!(!incoming.is_too_much());
        drop(incoming);
        assert_eq!(received(), 0);
    }
}
