//! What a connection still has to send.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::types::WakerList;

/// Answers smaller than this are put together, so that one call sends many.
const CHUNK_BYTES: usize = 64 * 1024;

/// A connection's answers on their way to the socket: filled by whoever has an answer, emptied by the writing task.
/// Bounded by its users: see [`bytes`](Outbox::bytes) and [`drained`](Outbox::drained).
pub struct Outbox {
    chunks: RefCell<VecDeque<Vec<u8>>>,
    /// A sent chunk's memory, for the next one.
    spare: RefCell<Vec<u8>>,
    bytes: Cell<usize>,
    /// The sum over all connections of the shard.
    shard_bytes: Rc<Cell<usize>>,
    closed: Cell<bool>,
    /// Woken when there is something to send, or nothing will come any more.
    filled: WakerList,
    /// Woken when something was sent.
    emptied: WakerList,
}

impl Outbox {
    /// An empty one that counts its bytes in `shard_bytes` as well.
    pub fn new(shard_bytes: Rc<Cell<usize>>) -> Self {
        Self {
            chunks: RefCell::default(),
            spare: RefCell::default(),
            bytes: Cell::new(0),
            shard_bytes,
            closed: Cell::new(false),
            filled: WakerList::new(),
            emptied: WakerList::new(),
        }
    }

    fn grow(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        self.shard_bytes.set(self.shard_bytes.get() + bytes);
    }

    fn shrink(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
        self.shard_bytes.set(self.shard_bytes.get() - bytes);
    }

    /// Lets `write` append an answer to the bytes to be sent. Nothing is kept once the outbox is closed: nobody would
    /// take it out again.
    pub fn push_with(&self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.closed.get() {
            return;
        }
        let mut chunks = self.chunks.borrow_mut();
        if chunks.back().is_none_or(|last| last.len() >= CHUNK_BYTES) {
            chunks.push_back(self.spare.take());
        }
        let last = chunks.back_mut().expect("there is a chunk");
        let before = last.len();
        write(last);
        self.grow(last.len() - before);
        drop(chunks);
        self.filled.wake();
    }

    /// Appends a large answer without copying it, unless the outbox is closed.
    pub fn push_chunk(&self, chunk: Vec<u8>) {
        if self.closed.get() {
            return;
        }
        self.grow(chunk.len());
        self.chunks.borrow_mut().push_back(chunk);
        self.filled.wake();
    }

    /// Takes the next bytes to send; `None` when there are none at the moment.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.chunks.borrow_mut().pop_front()
    }

    /// Takes note that a chunk from [`take`](Outbox::take) was sent.
    pub fn sent(&self, mut chunk: Vec<u8>) {
        self.shrink(chunk.len());
        // Small chunks come again and again; a large answer's memory goes back.
        if chunk.capacity() <= 2 * CHUNK_BYTES {
            chunk.clear();
            self.spare.replace(chunk);
        }
        self.emptied.wake();
    }

    /// Bytes that were pushed and not sent.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Nothing more is to be pushed that matters; waiters look again.
    pub fn close(&self) {
        self.closed.set(true);
        self.filled.wake();
        self.emptied.wake();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub fn filled(&self) -> &WakerList {
        &self.filled
    }

    /// Waits until at most `bytes` are unsent, or the outbox is closed.
    pub async fn drained(&self, bytes: usize) {
        while self.bytes.get() > bytes && !self.closed.get() {
            self.emptied.changed().await;
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shrink(self.bytes.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers to whatever a dropped peer had asked for once piled up here.
    #[test]
    fn a_closed_outbox_keeps_nothing_new() {
        let shard_bytes = Rc::new(Cell::new(0));
        let outbox = Outbox::new(shard_bytes.clone());
        outbox.push_with(|output| output.extend_from_slice(b"before"));
        outbox.close();
        outbox.push_with(|output| output.extend_from_slice(b"behind"));
        outbox.push_chunk(vec![0; 1000]);
        assert_eq!((outbox.bytes(), shard_bytes.get()), (6, 6));
        assert_eq!(outbox.take().as_deref(), Some(&b"before"[..]));
        assert_eq!(outbox.take(), None);
        drop(outbox);
        assert_eq!(shard_bytes.get(), 0);
    }
}
