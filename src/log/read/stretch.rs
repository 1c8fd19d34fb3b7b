//! Stretches: the log as it was read from the disk, whosever batches lie there. Who keeps them reads queues that lie side by
//! side once, and not each by itself; and a batch that is asked for a few messages at a time is checked once, and lies there.

use std::cell::{Cell, OnceCell};
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use super::{Blocks, Part, Want};
use crate::disk::{BufferSlice, Disk, DiskError, DiskFile, Whole};
use crate::limits::{BLOCK_BYTES, READ_BYTES};
use crate::log::CommitLog;
use crate::types::LogPosition;
use crate::wire::batch::{
    BATCH_ALIGNMENT, BATCH_HEADER_BYTES, BatchHeader, LogSecret, records_match, stored_batch_bytes,
};

/// What a stretch takes of memory, with what it knows of its batches.
pub const STRETCH_BYTES: usize = READ_BYTES + Checked::BYTES;

/// What one read has brought: up to [`READ_BYTES`] of a segment, from a multiple of that on.
pub struct Stretch<D: Disk> {
    start: LogPosition,
    /// What was durable when it was read.
    end: LogPosition,
    bytes: Rc<Whole<<D::File as DiskFile>::ReadBuffer>>,
    checked: Checked,
}

/// A batch that lies in stretches, unharmed.
pub enum StretchBatch {
    /// In one of them, where it lies and as it is stored: what only the log reads of its header is not for others.
    InPlace {
        batch: BufferSlice,
        /// It was asked for and checked for the first time.
        is_new: bool,
    },
    /// Copied together.
    Copied(Bytes),
}

/// Where in a stretch batches begin that were found unharmed: nobody changes its bytes, so that once is enough.
#[derive(Default)]
struct Checked(OnceCell<Box<[Cell<u64>]>>);

impl Checked {
    const WORDS: usize = READ_BYTES / BATCH_ALIGNMENT / u64::BITS as usize;
    const BYTES: usize = Self::WORDS * size_of::<u64>();

    /// The bit of what begins at `at`, if a batch may begin there.
    fn bit(at: usize) -> Option<(usize, u64)> {
        let unit = at / BATCH_ALIGNMENT;
        let bits = u64::BITS as usize;
        at.is_multiple_of(BATCH_ALIGNMENT).then_some((unit / bits, 1 << (unit % bits)))
    }

    fn contains(&self, at: usize) -> bool {
        let Some((word, bit)) = Self::bit(at) else { return false };
        self.0.get().is_some_and(|words| words[word].get() & bit != 0)
    }

    fn insert(&self, at: usize) {
        let Some((word, bit)) = Self::bit(at) else { return };
        let word = &self.0.get_or_init(|| vec![Cell::new(0); Self::WORDS].into())[word];
        word.set(word.get() | bit);
    }
}

impl<D: Disk> Stretch<D> {
    /// Batches that end later are not in it, or not wholly.
    pub fn end(&self) -> LogPosition {
        self.end
    }

    /// A batch that lies in it wholly; `None` when it is not there unharmed.
    fn batch(&self, want: &Want, secret: LogSecret) -> Option<StretchBatch> {
        let (at, bytes) = (want.position.since(self.start) as usize, want.batch_bytes as usize);
        let batch = BufferSlice::new(self.bytes.clone(), at..at + bytes);
        if self.checked.contains(at) {
            let is_it = stored_batch_bytes(&batch) == want.batch_bytes;
            return is_it.then_some(StretchBatch::InPlace { batch, is_new: false });
        }
        let is_whole = BatchHeader::decode_stored(&batch, secret).is_ok_and(|header| {
            header.position == want.position
                && header.batch_bytes == want.batch_bytes
                && records_match(&batch)
        });
        is_whole.then(|| {
            self.checked.insert(at);
            StretchBatch::InPlace { batch, is_new: true }
        })
    }
}

impl<D: Disk> CommitLog<D> {
    /// Where the stretch lies that holds `position`; `None` when there is no file of it. The next one begins at its end.
    pub fn stretch_at(&self, position: LogPosition) -> Option<Range<LogPosition>> {
        let segment = self.segment_holding(position).filter(|segment| !segment.is_stand_in)?;
        let bytes = READ_BYTES as u64;
        let start = position.since(segment.base) / bytes * bytes;
        let end = segment.bytes.min(start + bytes);
        Some(segment.base.advance(start)..segment.base.advance(end))
    }

    /// Reads a stretch as far as it is durable; `None` when nothing of it is, or its file is gone.
    pub async fn read_stretch(&self, stretch: &Range<LogPosition>) -> Result<Option<Stretch<D>>, DiskError> {
        let start = stretch.start;
        let end = stretch.end.min(self.watermarks().durable_end());
        let held = self.segment_holding(start).filter(|segment| !segment.is_stand_in && start < end);
        let Some(segment) = held else { return Ok(None) };
        // A group begins with a block: nobody writes to the last one of what is durable.
        let bytes = (end.since(start) as usize).next_multiple_of(BLOCK_BYTES);
        let _reservation = self.inner.reads.reserve(bytes).await;
        let read = self.inner.read_piece(&segment, start.since(segment.base), bytes).await?;
        self.inner.metrics.disk_bytes_read.add(bytes as u64);
        Ok(Some(Stretch { start, end, bytes: Rc::new(Whole(read)), checked: Checked::default() }))
    }

    /// A batch that lies in these stretches, each of which follows the one before; `None` when it is not there unharmed.
    pub fn batch_in(&self, stretches: &[&Stretch<D>], want: &Want) -> Option<StretchBatch> {
        let (first, last) = (stretches.first()?, stretches.last()?);
        let batch_bytes = want.batch_bytes as usize;
        let end = want.position.advance(want.padded_bytes() as u64);
        if batch_bytes < BATCH_HEADER_BYTES || want.position < first.start || end > last.end {
            return None;
        }
        if let [stretch] = stretches {
            return stretch.batch(want, self.inner.secret);
        }
        let pieces = stretches.iter().map(|stretch| stretch.bytes.clone()).collect();
        let blocks = Blocks { start: first.start.0, pieces };
        let (mut own, mut parts) = (Vec::with_capacity(want.padded_bytes()), Vec::new());
        if !blocks.take(want, want.position.0, self.inner.secret, &mut own, &mut parts) {
            return None;
        }
        // What is first of the parts stands where it belongs.
        for part in &parts[1..] {
            match part {
                Part::Own(range) => assert!(range.end == own.len(), "one batch has its own bytes at once"),
                Part::Piece(number, range) => own.extend_from_slice(&blocks.pieces[*number].0[range.clone()]),
            }
        }
        own.truncate(batch_bytes);
        Some(StretchBatch::Copied(own.into()))
    }

    /// A batch of [`StretchBatch::InPlace`] as it is handed out, to be kept without its stretch.
    pub fn copied_out(&self, batch: &[u8]) -> Bytes {
        let mut bytes = batch.to_vec();
        self.inner.secret.mix(&mut bytes);
        bytes.into()
    }
}
