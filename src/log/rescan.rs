//! Going over the stored log again while it is in use, with recovery's rules.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::commit_log::CommitLog;
use super::error::OpenError;
use super::recovery::{Replay, StartAt};
use super::scanner::{Limits, Padding, Scanner, Used};
use super::segment::{FoundHeader, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::disk::{Disk, DiskError, DiskFile};
use crate::limits::BLOCK_BYTES;
use crate::types::LogPosition;
use crate::wire::batch::{BatchHeader, LogSecret};

/// Where the log had ended before a segment, by the segment's base; `None` when nothing tells.
pub type SegmentEnds = BTreeMap<LogPosition, Option<LogPosition>>;

impl<D: Disk> CommitLog<D> {
    /// Replays the batches from `start` on that begin below `until`, which is not beyond the durable end, and returns where
    /// to go on. `ends` keeps what was looked up between the calls. No segment may be removed meanwhile.
    pub async fn rescan<R: Replay>(
        &self,
        ends: &mut SegmentEnds,
        start: StartAt,
        until: LogPosition,
        replay: &mut R,
    ) -> Result<StartAt, OpenError> {
        let inner = &*self.inner;
        let durable_end = inner.watermarks.durable_end();
        assert!(until <= durable_end, "{until} is not durable yet");
        let segments: Vec<_> =
            inner.segments.borrow().range(..durable_end).map(|(_, segment)| segment.clone()).collect();
        let mut used = Vec::with_capacity(segments.len());
        for segment in segments {
            let previous_end = match ends.get(&segment.base) {
                Some(known) => *known,
                None => {
                    let found = previous_end(&segment, inner.secret).await?;
                    ends.insert(segment.base, found);
                    found
                }
            };
            used.push(Used { segment, previous_end });
        }
        let limits = Limits {
            epoch_max: inner.epoch,
            secret: inner.secret,
            reached: durable_end,
            given_up: inner.register.given_up(),
            until,
        };
        let scanned = Scanner::new(used, limits, Padding::Skip).run(start, replay).await?;
        let (position, epoch, newest) = (scanned.report.end, scanned.epoch, scanned.newest);
        Ok(StartAt::Position { position, epoch, newest })
    }
}

/// Where the log had ended before a segment: as its header says, or else its first batch.
async fn previous_end<D: Disk>(
    segment: &Rc<Segment<D>>,
    secret: LogSecret,
) -> Result<Option<LogPosition>, DiskError> {
    let blocks = segment.file.read(0, SEGMENT_HEADER_BYTES + BLOCK_BYTES).await?;
    if let FoundHeader::Valid(header) = SegmentHeader::decode(&blocks)
        && header.base == segment.base
    {
        return Ok(Some(header.previous_end));
    }
    let first = BatchHeader::decode_stored(&blocks[SEGMENT_HEADER_BYTES..], secret).ok();
    let first = first.filter(|first| first.position == segment.base.advance(SEGMENT_HEADER_BYTES as u64));
    Ok(first.map(|first| first.previous_end))
}
