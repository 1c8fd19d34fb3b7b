//! Stretches of the log whose files are not there, though retention has not taken them: somebody removed them, and an
//! operator has given them up since (`repair`), so that an empty file stands in for each.
//!
//! Retention takes the oldest segments, one after the other, so what it took lies below [`CommitLog::first_position`].
//! Whatever is missing above is damage, and readers are told so.

use std::path::{Path, PathBuf};

use super::commit_log::CommitLog;
use super::segment::segment_name;
use crate::disk::Disk;
use crate::types::LogPosition;

/// A stretch without a file, or with one that only stands in for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    pub start: LogPosition,
    /// Where the next segment begins; the last position that there can be when none does.
    pub end: LogPosition,
    /// The file that should hold the position asked for, and where it should begin.
    pub file: PathBuf,
    pub base: LogPosition,
}

impl Hole {
    /// The hole `start..end` after a segment of `segment_bytes`, around `position`. Nobody knows the names of files that
    /// are gone, but segments follow each other and are mostly of one size.
    pub(super) fn around(
        directory: &Path,
        (start, end): (LogPosition, LogPosition),
        segment_bytes: u64,
        position: LogPosition,
    ) -> Self {
        let is_even = end.0 == u64::MAX || end.since(start).is_multiple_of(segment_bytes);
        let before = if is_even { position.since(start) / segment_bytes * segment_bytes } else { 0 };
        let base = start.advance(before);
        Self { start, end, file: directory.join(segment_name(base)), base }
    }
}

impl<D: Disk> CommitLog<D> {
    /// The hole in which `position` lies; `None` when a file holds it, or retention has taken it.
    pub fn hole_at(&self, position: LogPosition) -> Option<Hole> {
        let segments = self.inner.segments.borrow();
        let (_, before) = segments.range(..=position).next_back()?;
        if before.contains(position) {
            let (start, end, file) = (before.base, before.end(), before.path.clone());
            return before.is_stand_in.then_some(Hole { start, end, file, base: start });
        }
        let end = segments.range(position..).next().map_or(LogPosition(u64::MAX), |(base, _)| *base);
        let directory = &self.inner.options.directory;
        Some(Hole::around(directory, (before.end(), end), before.bytes, position))
    }

    /// The first hole between two positions.
    pub fn hole_between(&self, from: LogPosition, to: LogPosition) -> Option<Hole> {
        let segments = self.inner.segments.borrow();
        let stand_ins = segments.values().filter(|segment| segment.is_stand_in).map(|segment| segment.base);
        let pairs = segments.values().zip(segments.keys().skip(1));
        let ends = pairs.filter(|(segment, next)| segment.end() < **next).map(|(segment, _)| segment.end());
        let start = stand_ins.chain(ends).filter(|start| (from..to).contains(start)).min();
        drop(segments);
        self.hole_at(start?)
    }

    /// Whether a file is missing below the log's last one.
    pub fn has_holes(&self) -> bool {
        let segments = self.inner.segments.borrow();
        let mut pairs = segments.values().zip(segments.keys().skip(1));
        pairs.any(|(segment, next)| segment.is_stand_in || segment.end() < *next)
    }

    /// Where the file that holds `position` ends, or the hole there.
    pub fn part_end(&self, position: LogPosition) -> Option<LogPosition> {
        let hole = self.hole_at(position).map(|hole| hole.end);
        hole.or_else(|| self.segment_holding(position).map(|segment| segment.end()))
    }
}
