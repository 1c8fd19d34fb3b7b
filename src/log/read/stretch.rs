//! Stretches: the log as it was read from the disk, whosever batches lie there. Who keeps them reads queues that lie side by
//! side once, and not each by itself.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use super::{Blocks, Part, Want};
use crate::disk::{Disk, DiskError, DiskFile, Whole};
use crate::limits::{BLOCK_BYTES, READ_BYTES};
use crate::log::CommitLog;
use crate::types::LogPosition;
use crate::wire::batch::BATCH_HEADER_BYTES;

/// What one read has brought: up to [`READ_BYTES`] of a segment, from a multiple of that on.
pub struct Stretch<D: Disk> {
    start: LogPosition,
    /// What was durable when it was read.
    end: LogPosition,
    bytes: Rc<Whole<<D::File as DiskFile>::ReadBuffer>>,
}

impl<D: Disk> Stretch<D> {
    /// Batches that end later are not in it, or not wholly.
    pub fn end(&self) -> LogPosition {
        self.end
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
        Ok(Some(Stretch { start, end, bytes: Rc::new(Whole(read)) }))
    }

    /// A batch that lies in these stretches, each of which follows the one before, as it is handed out; `None` when it is not
    /// there unharmed.
    pub fn batch_in(&self, stretches: &[&Stretch<D>], want: &Want) -> Option<Bytes> {
        let (first, last) = (stretches.first()?, stretches.last()?);
        let batch_bytes = want.batch_bytes as usize;
        let end = want.position.advance(want.padded_bytes() as u64);
        if batch_bytes < BATCH_HEADER_BYTES || want.position < first.start || end > last.end {
            return None;
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
        Some(own.into())
    }
}
