//! What a connection still has to send.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Deref;
use std::rc::Rc;

use crate::disk::BufferSlice;
use crate::limits;
use crate::metrics::ShardMetrics;
use crate::types::{Reservation, WakerList};

/// Answers smaller than this are put together, so that one call sends many.
const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes that go out in one piece.
#[derive(Debug)]
pub enum Chunk {
    Owned(Vec<u8>),
    /// Part of a buffer that others use as well.
    Shared(BufferSlice),
}

/// A connection's answers on their way to the socket: filled by whoever has an answer, emptied by the writing task.
/// Bounded by its users: see [`bytes`](Outbox::bytes) and [`sent_down_to`](Outbox::sent_down_to).
pub struct Outbox {
    chunks: RefCell<VecDeque<Chunk>>,
    /// A sent chunk's memory, for the next one.
    spare: RefCell<Vec<u8>>,
    /// What the chunks keep in memory: of shared ones, the whole buffers.
    bytes: Cell<usize>,
    /// With the sum over all connections of the shard, `answer_bytes_waiting`.
    metrics: Rc<ShardMetrics>,
    /// Those bytes, as a share of what the shard has for answers.
    share: RefCell<Reservation>,
    /// Bytes that were sent so far.
    sent_bytes: Cell<u64>,
    closed: Cell<bool>,
    /// Woken when there is something to send, or nothing will come any more.
    filled: WakerList,
    /// Woken when something was sent.
    emptied: WakerList,
    /// Woken when nothing more is to come.
    ended: WakerList,
}

impl Outbox {
    /// An empty one that counts its bytes in the shard's metrics, and in `share`, as well.
    pub fn new(metrics: Rc<ShardMetrics>, share: Reservation) -> Self {
        Self {
            chunks: RefCell::default(),
            spare: RefCell::default(),
            bytes: Cell::new(0),
            metrics,
            share: RefCell::new(share),
            sent_bytes: Cell::new(0),
            closed: Cell::new(false),
            filled: WakerList::new(),
            emptied: WakerList::new(),
            ended: WakerList::new(),
        }
    }

    fn grow(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        self.metrics.answer_bytes_waiting.add(bytes as u64);
        self.share.borrow_mut().set(self.bytes.get());
    }

    fn shrink(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
        self.metrics.answer_bytes_waiting.subtract(bytes as u64);
        self.share.borrow_mut().set(self.bytes.get());
    }

    /// Lets `write` append an answer to the bytes to be sent. Nothing is kept once the outbox is closed: nobody would
    /// take it out again.
    pub fn push_with(&self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.closed.get() {
            return;
        }
        let mut chunks = self.chunks.borrow_mut();
        let mut last = match chunks.pop_back() {
            Some(Chunk::Owned(last)) if last.len() < CHUNK_BYTES => last,
            other => {
                chunks.extend(other);
                self.spare.take()
            }
        };
        let before = last.len();
        write(&mut last);
        self.grow(last.len() - before);
        chunks.push_back(Chunk::Owned(last));
        drop(chunks);
        self.filled.wake();
    }

    /// The memory of a chunk that was sent, to put together what goes to [`push_chunk`](Outbox::push_chunk): it is still in the
    /// cache.
    pub fn take_spare(&self) -> Vec<u8> {
        self.spare.take()
    }

    /// Appends a large answer without copying it, unless the outbox is closed.
    pub fn push_chunk(&self, chunk: Vec<u8>) {
        if self.closed.get() {
            return;
        }
        self.grow(chunk.len());
        self.chunks.borrow_mut().push_back(Chunk::Owned(chunk));
        self.filled.wake();
    }

    /// Appends a part of a large answer where it lies, unless the outbox is closed. It is copied when it is short, or
    /// when the connection pins enough already.
    pub fn push_slice(&self, slice: BufferSlice) {
        let pinned = self.bytes.get() + slice.pinned_bytes();
        if slice.len() < limits::SHARED_SLICE_BYTES_MIN || pinned > limits::CONNECTION_SHARED_BYTES_MAX {
            return self.push_with(|output| output.extend_from_slice(&slice));
        }
        if self.closed.get() {
            return;
        }
        self.grow(slice.pinned_bytes());
        self.chunks.borrow_mut().push_back(Chunk::Shared(slice));
        self.filled.wake();
    }

    /// Takes the next bytes to send; `None` when there are none at the moment.
    pub fn take(&self) -> Option<Chunk> {
        self.chunks.borrow_mut().pop_front()
    }

    /// Takes note that a chunk from [`take`](Outbox::take) was sent.
    pub fn sent(&self, chunk: Chunk) {
        self.shrink(chunk.held_bytes());
        self.sent_bytes.set(self.sent_bytes.get() + chunk.len() as u64);
        // Small chunks come again and again; a large answer's memory goes back.
        if let Chunk::Owned(mut bytes) = chunk
            && bytes.capacity() <= 2 * CHUNK_BYTES
        {
            bytes.clear();
            self.spare.replace(bytes);
        }
        self.emptied.wake();
    }

    /// Bytes in memory for what was pushed and not sent.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Bytes of chunks that were sent so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }

    /// Nothing more is to be pushed that matters; waiters look again.
    pub fn close(&self) {
        self.closed.set(true);
        self.filled.wake();
        self.emptied.wake();
        self.ended.wake();
    }

    /// Waits until the outbox is closed.
    pub async fn closed(&self) {
        while !self.closed.get() {
            self.ended.changed().await;
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub fn filled(&self) -> &WakerList {
        &self.filled
    }

    /// Waits until at most `bytes` are unsent, or the outbox is closed.
    pub async fn sent_down_to(&self, bytes: usize) {
        while self.bytes.get() > bytes && !self.closed.get() {
            self.emptied.changed().await;
        }
    }
}

impl Chunk {
    /// What it keeps in memory.
    fn held_bytes(&self) -> usize {
        match self {
            Chunk::Owned(bytes) => bytes.len(),
            Chunk::Shared(slice) => slice.pinned_bytes(),
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Chunk::Owned(bytes) => bytes,
            Chunk::Shared(slice) => slice,
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
    use std::ops::Range;

    use super::*;
    use crate::disk::memory::MemoryDisk;
    use crate::disk::{Disk, DiskBuffer};
    use crate::types::ByteBudget;

    /// The answers to whatever a dropped peer had asked for once piled up here.
    #[test]
    fn a_closed_outbox_keeps_nothing_new() {
        let metrics = Rc::new(ShardMetrics::new());
        let budget = ByteBudget::new(1);
        let outbox = Outbox::new(metrics.clone(), budget.count(0));
        outbox.push_with(|output| output.extend_from_slice(b"before"));
        outbox.close();
        outbox.push_with(|output| output.extend_from_slice(b"behind"));
        outbox.push_chunk(vec![0; 1000]);
        outbox.push_slice(slice(limits::PIECE_BYTES, 0..limits::PIECE_BYTES));
        assert_eq!((outbox.bytes(), metrics.answer_bytes_waiting.get(), budget.bytes()), (6, 6, 6));
        assert_eq!(outbox.take().as_deref(), Some(&b"before"[..]));
        assert!(outbox.take().is_none());
        drop(outbox);
        assert_eq!((metrics.answer_bytes_waiting.get(), budget.bytes()), (0, 0));
    }

    fn slice(buffer_bytes: usize, range: Range<usize>) -> BufferSlice {
        let mut buffer = MemoryDisk::new().allocate(buffer_bytes);
        let filler = (0..=u8::MAX).cycle();
        buffer.as_mut_slice().iter_mut().zip(filler).for_each(|(byte, value)| *byte = value);
        BufferSlice::new(Rc::new(buffer), range)
    }

    /// A slice keeps its whole buffer: counted by its own length, a reader of small parts of many buffers could hold
    /// a multiple of what it is allowed.
    #[test]
    fn slices_count_with_their_buffers_and_are_copied_beyond_the_bound() {
        let outbox = Outbox::new(Rc::default(), ByteBudget::new(1).count(0));
        let piece = limits::PIECE_BYTES;
        let part = 0..limits::SHARED_SLICE_BYTES_MIN;
        outbox.push_with(|output| output.extend_from_slice(b"head"));
        outbox.push_slice(slice(piece, 5..12));
        assert_eq!(outbox.bytes(), 11, "a short part is copied to what is there");
        let whole = slice(piece, part.clone());
        let mut pushed = 0;
        while outbox.bytes() + piece <= limits::CONNECTION_SHARED_BYTES_MAX {
            outbox.push_slice(slice(piece, part.clone()));
            pushed += 1;
            assert_eq!(outbox.bytes(), 11 + pushed * piece);
        }
        let before = outbox.bytes();
        outbox.push_slice(whole.clone());
        assert_eq!(outbox.bytes(), before + whole.len(), "copied");
        let chunks: Vec<Chunk> = std::iter::from_fn(|| outbox.take()).collect();
        assert_eq!(&chunks[0][..], b"head\x05\x06\x07\x08\x09\x0a\x0b");
        assert_eq!(chunks.len(), pushed + 2);
        assert!(chunks[1..].iter().all(|chunk| **chunk == *whole));
        chunks.into_iter().for_each(|chunk| outbox.sent(chunk));
        assert_eq!(outbox.bytes(), 0);
    }
}
