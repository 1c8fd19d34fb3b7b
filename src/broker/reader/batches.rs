//! The bytes of batches, for whoever looks into them. What is sent as it is stays in the buffers where it lies: see `fetch`.

use std::collections::HashMap;

use bytes::Bytes;

use crate::api::Failure;
use crate::broker::shard_broker::Broker;
use crate::disk::{BufferSlice, Disk};
use crate::index::IndexEntry;
use crate::log::Want;
use crate::types::{LogPosition, QueueOffset};
use crate::wire::batch::align_batch;

/// Small batches that are read at once: single messages lie close together when they came close together.
const AHEAD_BYTES: usize = 64 * 1024;

/// The bytes of a batch, wherever they are.
pub(super) enum BatchBytes {
    /// In the tail cache.
    InTail(BufferSlice),
    /// In a stretch that is kept.
    InStretch(BufferSlice),
    Copied(Bytes),
}

/// Batches that were read with one before them.
pub(super) type Ahead = HashMap<LogPosition, Bytes>;

impl BatchBytes {
    /// Those of the batch of `entry`, which are its first ones.
    pub fn of(&self, entry: &IndexEntry) -> &[u8] {
        let bytes: &[u8] = match self {
            BatchBytes::InTail(slice) | BatchBytes::InStretch(slice) => slice,
            BatchBytes::Copied(bytes) => bytes,
        };
        &bytes[..entry.batch_bytes as usize]
    }
}

impl<D: Disk> Broker<D> {
    /// The first batch of `entries`; `None` when its bytes are damaged or gone. If it has to be read and is small, those
    /// after it are read with it into `ahead`, as far as `missing` messages may be among them; or the stretches of the log in
    /// which it lies, where that serves more readers.
    pub(super) async fn batch_and_next(
        &self,
        entries: &[IndexEntry],
        missing: usize,
        ahead: &mut Ahead,
    ) -> Result<Option<BatchBytes>, Failure> {
        let first = &entries[0];
        if let Some(batch) = ahead.remove(&first.position) {
            return Ok(Some(BatchBytes::Copied(batch)));
        }
        if let Some(batch) = self.batch_cache.borrow().get(first.position) {
            return Ok(Some(BatchBytes::Copied(batch)));
        }
        if let Some(batch) = self.batch_of_stretch(entries).await {
            return Ok(Some(batch));
        }
        let (mut bytes, mut messages) = (0, 0);
        let near = entries.iter().take_while(|entry| {
            let is_first = bytes == 0;
            let fits = bytes + entry.batch_bytes as usize <= AHEAD_BYTES && messages < missing as u64;
            bytes += entry.batch_bytes as usize;
            messages += entry.end_offset().0 - entry.base_offset.0;
            is_first || fits
        });
        let wants: Vec<_> = near.map(want).collect();
        let mut batches = self.batches(&wants).await?.into_iter();
        let batch = batches.next();
        ahead.extend(wants[1..].iter().map(|want| want.position).zip(batches));
        Ok(batch.map(BatchBytes::Copied))
    }

    /// The batch of `entry`; `None` when its bytes are damaged or gone.
    pub(super) async fn batch(&self, entry: &IndexEntry) -> Result<Option<BatchBytes>, Failure> {
        let kept = self.batch_cache.borrow().get(entry.position);
        let batch = match kept {
            Some(batch) => Some(batch),
            None => self.batches(&[want(entry)]).await?.pop(),
        };
        Ok(batch.map(BatchBytes::Copied))
    }

    /// Takes note that a batch was taken up to `next`: what is left of it, the next look begins with.
    pub(super) fn note_left(&self, entry: &IndexEntry, batch: BatchBytes, next: QueueOffset) {
        match (batch, next < entry.end_offset()) {
            (BatchBytes::Copied(batch), true) => {
                self.batch_cache.borrow_mut().insert(entry.position, batch);
            }
            (BatchBytes::InStretch(_), false) => self.stretches.note_finished(entry.position),
            (BatchBytes::InTail(_), _)
            | (BatchBytes::Copied(_), false)
            | (BatchBytes::InStretch(_), true) => {}
        }
    }

    /// The wanted batches, up to the first one whose bytes are damaged or gone. They share their memory.
    async fn batches(&self, wants: &[Want]) -> Result<Vec<Bytes>, Failure> {
        let stored = |want: &Want| align_batch(u64::from(want.batch_bytes)) as usize;
        let mut bytes = Vec::with_capacity(wants.iter().map(stored).sum());
        let outcome = self.log.read(wants, &mut bytes).await;
        let outcome = outcome.map_err(|error| self.read_failed(&error))?;
        if let Some(damaged) = &outcome.damaged {
            self.note_damage(damaged, None);
        }
        let bytes = Bytes::from(bytes);
        let mut start = 0;
        let batches = wants[..outcome.count].iter().map(|want| {
            let batch = bytes.slice(start..start + want.batch_bytes as usize);
            start += stored(want);
            batch
        });
        Ok(batches.collect())
    }

    /// The batches at some positions, with their lengths, in any order: each whole as stored, or `None` when it is damaged or
    /// gone.
    pub(in crate::broker) async fn batches_at(
        &self,
        wanted: &[(LogPosition, u32)],
    ) -> Result<Vec<Option<Bytes>>, Failure> {
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_unstable_by_key(|index| wanted[*index].0);
        let want = |index: &usize| {
            let (position, batch_bytes) = wanted[*index];
            Want { position, batch_bytes }
        };
        let wants: Vec<_> = order.iter().map(want).collect();
        let mut found = vec![None; wanted.len()];
        let mut next = 0;
        while next < wants.len() {
            let batches = self.batches(&wants[next..]).await?;
            let count = batches.len();
            order[next..].iter().zip(batches).for_each(|(index, batch)| found[*index] = Some(batch));
            next += count + 1;
        }
        Ok(found)
    }
}

pub(super) fn want(entry: &IndexEntry) -> Want {
    Want { position: entry.position, batch_bytes: entry.batch_bytes }
}
