//! Sending a connection's answers: from where they lie, several with one call.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

use crate::net::{Chunk, Outbox};

/// Chunks that go out with one call.
const PARTS_MAX: usize = 16;
/// No further chunk joins a call that has this much: what is sent at once should still be in the cache when the peer,
/// on a neighbouring core, takes it out again.
const CALL_BYTES: usize = 256 * 1024;

/// What goes of a connection's two directions.
pub(crate) trait SendHalf {
    /// Sends some of these parts, as far as the socket takes them at once; `WouldBlock` when it takes nothing.
    fn send_now(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Sends some of these parts, at least a byte, and waits until the socket has taken them.
    async fn send(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Says that nothing more comes, where the transport has a word for it.
    async fn finish(&mut self);
}

/// The sending half of a connection with the chunks that are on their way.
///
/// 1. `sent` is less than the length of the first chunk, or zero.
pub(super) struct Sender<W> {
    half: W,
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that are gone.
    sent: usize,
    /// The last call left something behind: the socket is full.
    is_full: bool,
}

impl<W: SendHalf> Sender<W> {
    pub fn new(half: W) -> Self {
        Self { half, chunks: VecDeque::with_capacity(PARTS_MAX), sent: 0, is_full: false }
    }

    /// Takes chunks from the outbox for the next call; whether there is anything to send.
    pub fn load(&mut self, outbox: &Outbox) -> bool {
        let mut bytes: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        while self.chunks.len() < PARTS_MAX && bytes < CALL_BYTES {
            let Some(chunk) = outbox.take() else { break };
            bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
        self.drop_sent(0, outbox);
        !self.chunks.is_empty()
    }

    /// Sends some of what was loaded, waiting for the socket when it is full.
    pub async fn send(&mut self, outbox: &Outbox) -> io::Result<()> {
        let count = match self.send_now() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.send_later().await?,
            result => result?,
        };
        self.drop_sent(count, outbox);
        Ok(())
    }

    /// Gives back what is still loaded: the peer is gone.
    pub fn unload(&mut self, outbox: &Outbox) {
        self.sent = 0;
        self.chunks.drain(..).for_each(|chunk| outbox.sent(chunk));
    }

    fn send_now(&mut self) -> io::Result<usize> {
        if self.is_full {
            return Err(ErrorKind::WouldBlock.into());
        }
        let parts = parts_of(&self.chunks, self.sent);
        let offered: usize = parts.iter().map(|part| part.len()).sum();
        let count = self.half.send_now(&parts[..self.chunks.len()])?;
        self.is_full = count < offered;
        Ok(count)
    }

    /// Waits until the socket takes something of what is loaded.
    async fn send_later(&mut self) -> io::Result<usize> {
        let parts = parts_of(&self.chunks, self.sent);
        let count = self.half.send(&parts[..self.chunks.len()]).await?;
        self.is_full = false;
        if count == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(count) }
    }

    /// Says that nothing more comes, where the transport has a word for it.
    pub async fn finish(&mut self) {
        self.half.finish().await;
    }

    fn drop_sent(&mut self, count: usize, outbox: &Outbox) {
        self.sent += count;
        while self.chunks.front().is_some_and(|first| first.len() <= self.sent) {
            let chunk = self.chunks.pop_front().expect("there is a first chunk");
            self.sent -= chunk.len();
            outbox.sent(chunk);
        }
    }
}

/// The chunks without the bytes of the first one that are gone.
fn parts_of(chunks: &VecDeque<Chunk>, sent: usize) -> [IoSlice<'_>; PARTS_MAX] {
    let mut parts = [IoSlice::new(&[]); PARTS_MAX];
    for (index, (part, chunk)) in parts.iter_mut().zip(chunks).enumerate() {
        *part = IoSlice::new(if index == 0 { &chunk[sent..] } else { chunk });
    }
    parts
}
