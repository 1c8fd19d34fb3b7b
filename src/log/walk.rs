//! Walking over the stored log while the broker runs, for what is built from it in the background.
//!
//! A walk is lenient where recovery is strict: what it hands on is whole and stands where it says, but a batch among it
//! may have been cut off by an earlier recovery, or belong to a topic that is gone. It never misses a batch that a
//! reader can get. The caller asks the consume index whether a batch still counts.

use std::rc::Rc;

use super::commit_log::CommitLog;
use super::read::{SHARD_READ_BYTES_MAX, Want};
use super::scanner::headers_in;
use super::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::api::DamagedBytes;
use crate::disk::{Disk, DiskError};
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES};
use crate::types::LogPosition;
use crate::wire::batch::{BATCH_ALIGNMENT, BATCH_HEADER_BYTES, BatchHeader, LogSecret, records_match};

/// One step reads this much, or a single larger batch.
const STEP_BYTES: u64 = 512 * 1024;

const _: () = assert!(BATCH_BYTES_MAX + 2 * BLOCK_BYTES < SHARD_READ_BYTES_MAX);

/// What stands at a position of the log.
#[derive(Debug)]
pub enum BatchAt {
    Whole(BatchHeader, Vec<u8>),
    /// One that cannot be read.
    Damaged(DamagedBytes),
    /// No batch starts there, or retention has taken it.
    None,
}

/// Bytes of one segment, read for a walk.
struct Window {
    /// Log position of the first byte.
    start: LogPosition,
    bytes: Vec<u8>,
    secret: LogSecret,
}

impl<D: Disk> CommitLog<D> {
    /// Hands the batches from `from` on to `visit`, up to `until` and for about half a mebibyte, and returns where to go on:
    /// `until` at last. `until` is the start or the end of a batch below the durable end.
    pub async fn walk(
        &self,
        from: LogPosition,
        until: LogPosition,
        mut visit: impl FnMut(&BatchHeader, &[u8]),
    ) -> Result<LogPosition, DiskError> {
        let Some(segment) = self.segment_from(from) else { return Ok(until) };
        let position = from.max(segment.base.advance(SEGMENT_HEADER_BYTES as u64));
        let limit = until.min(segment.end());
        if position >= limit || segment.is_stand_in {
            return Ok(limit);
        }
        let mut bytes = STEP_BYTES;
        loop {
            let window = self.window(&segment, position, bytes).await?;
            let ends_log = window.end() >= limit;
            let mut next = position;
            while let Some(header) = window.header_from(next, limit) {
                let Some(batch) = window.batch(&header) else {
                    next = header.position;
                    break;
                };
                if records_match(batch) {
                    visit(&header, batch);
                    next = header.end_position();
                } else {
                    // Damaged, or written over by a later run: the next one may stand within.
                    next = header.position.advance(BATCH_ALIGNMENT as u64);
                }
            }
            if let Some(header) = window.header_from(next, limit) {
                if header.position > position {
                    return Ok(header.position);
                }
                // One batch larger than the window. A header that leads out of the segment is none.
                let needed = u64::from(header.batch_bytes) + BLOCK_BYTES as u64;
                if needed > bytes && header.end_position() <= segment.end() {
                    bytes = needed;
                    continue;
                }
                return Ok(position.advance(BATCH_ALIGNMENT as u64));
            }
            // A header may lie across the border of two windows.
            let rest = window.end().0.saturating_sub(BATCH_HEADER_BYTES as u64).max(next.0);
            return Ok(if ends_log { limit } else { LogPosition(rest / 8 * 8) });
        }
    }

    /// The batch that starts at `position`. Only below the durable end.
    pub async fn batch_at(&self, position: LogPosition) -> Result<BatchAt, DiskError> {
        let held = self.segment_holding(position).filter(|segment| !segment.is_stand_in);
        let Some(segment) = held else {
            let missing = self.missing_at(position).filter(|_| position < self.watermarks().durable_end());
            return Ok(missing.map_or(BatchAt::None, BatchAt::Damaged));
        };
        let last = segment.end().0.saturating_sub(BATCH_HEADER_BYTES as u64);
        if position >= self.watermarks().durable_end()
            || position.0 > last
            || !position.0.is_multiple_of(BATCH_ALIGNMENT as u64)
        {
            return Ok(BatchAt::None);
        }
        let mut head = Vec::with_capacity(BATCH_HEADER_BYTES);
        if !self.inner.tail.borrow().copy(position, BATCH_HEADER_BYTES, &mut head) {
            let window = self.window(&segment, position, BATCH_HEADER_BYTES as u64).await?;
            let from = position.since(window.start) as usize;
            head.extend_from_slice(&window.bytes[from..from + BATCH_HEADER_BYTES]);
            self.inner.secret.mix(&mut head);
        }
        drop(segment);
        let header = match BatchHeader::decode(&head) {
            Ok(header) if header.position == position => header,
            _ => return Ok(BatchAt::None),
        };
        let mut bytes = Vec::new();
        let outcome = self.read(&[Want { position, batch_bytes: header.batch_bytes }], &mut bytes).await?;
        bytes.truncate(header.batch_bytes as usize);
        Ok(match outcome.damaged {
            Some(damaged) => BatchAt::Damaged(damaged),
            None if outcome.count == 1 => BatchAt::Whole(header, bytes),
            None => BatchAt::None,
        })
    }

    /// The segment that holds `from`, or the first after it.
    fn segment_from(&self, from: LogPosition) -> Option<Rc<Segment<D>>> {
        let held = self.segment_holding(from);
        held.or_else(|| self.inner.segments.borrow().range(from..).next().map(|(_, segment)| segment.clone()))
    }

    async fn window(
        &self,
        segment: &Segment<D>,
        position: LogPosition,
        bytes: u64,
    ) -> Result<Window, DiskError> {
        let block = BLOCK_BYTES as u64;
        let at = position.since(segment.base);
        let start = at / block * block;
        let end = (at + bytes).next_multiple_of(block).min(segment.bytes);
        let _reservation = self.inner.reads.reserve((end - start) as usize).await;
        let blocks = self.inner.read_blocks(segment, start, end).await?;
        self.inner.metrics.disk_bytes_read.add(end - start);
        let mut output = Vec::with_capacity((end - start) as usize);
        blocks.copy(start, (end - start) as usize, &mut output);
        Ok(Window { start: segment.base.advance(start), bytes: output, secret: self.inner.secret })
    }
}

impl Window {
    fn end(&self) -> LogPosition {
        self.start.advance(self.bytes.len() as u64)
    }

    /// The first valid header from `position` on and before `limit`.
    fn header_from(&self, position: LogPosition, limit: LogPosition) -> Option<BatchHeader> {
        let from = position.0.saturating_sub(self.start.0) as usize;
        let to = limit.0.saturating_sub(self.start.0).min(self.bytes.len() as u64) as usize;
        headers_in(&self.bytes, self.start, self.secret, from..to).next()
    }

    /// The bytes of a batch, when all of them are here.
    fn batch(&self, header: &BatchHeader) -> Option<&[u8]> {
        let from = header.position.since(self.start) as usize;
        self.bytes.get(from..from + header.batch_bytes as usize)
    }
}
