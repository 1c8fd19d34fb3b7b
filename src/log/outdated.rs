//! Whether a manifest is older than its log, as when only a part of a directory was restored.
//!
//! The epoch of a run is durable in the manifest before the run writes its first byte. So nothing of the log has a higher
//! epoch than its manifest, and whatever has one shows that the manifest is of an earlier day:
//!
//! | witness                                                                   | looked at |
//! | ------------------------------------------------------------------------- | --------- |
//! | a segment's header, or its first batch                                    | whenever the log is opened |
//! | a snapshot                                                                | the same |
//! | a batch in the middle of the last segment, as far on as a scan looks      | before anything is changed |
//! | any batch that a scan meets                                               | by the scan, which then ends with the refusal |
//!
//! With such a manifest the newer runs' batches would be taken for leftovers, and be cut off. What is of an earlier run,
//! in a file that is used again or after a place where the log was cut off, has a lower epoch and shows nothing.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use super::error::OpenError;
use super::expectation::{Contradiction, Facts, Flaw, Known, SEGMENT_FILE_BYTES_MIN};
use super::manifest::{self, GivenUp, Manifest};
use super::recovery::SEARCH_BYTES;
use super::scanner::look_through;
use super::segment::{FoundHeader, SEGMENT_HEADER_BYTES, Segment, segment_name};
use crate::disk::{Disk, DiskError, DiskFile, OpenMode};
use crate::limits::BLOCK_BYTES;
use crate::types::LogPosition;
use crate::wire::batch::LogSecret;

/// The manifest as it was found, held against whose log this is.
pub(super) enum OwnManifest {
    /// There is none that can be used.
    Lost(LostManifest),
    Current(Manifest),
    /// It is of this log, and the log went on without it.
    Outdated(Manifest, Outdated),
}

/// Why a log has no manifest that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostManifest {
    Missing,
    /// Neither of its two blocks is whole.
    Unreadable,
    /// It is of another log, which is that of this shard of some node.
    Foreign {
        shard: u16,
    },
}

impl fmt::Display for LostManifest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LostManifest::Missing => write!(formatter, "is missing"),
            LostManifest::Unreadable => {
                write!(formatter, "cannot be read: neither of its two blocks is whole")
            }
            LostManifest::Foreign { shard } => {
                write!(formatter, "belongs to another log (its shard is {shard})")
            }
        }
    }
}

/// What shows that a manifest is older than its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outdated {
    /// Epoch of the latest run that the manifest knows.
    pub known: u32,
    /// A higher one that was found ...
    pub epoch: u32,
    /// ... in the segment with this base, or, with `None`, in a snapshot.
    pub segment: Option<LogPosition>,
}

impl fmt::Display for Outdated {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { known, epoch, segment } = self;
        let witness = segment.map_or("a snapshot".to_owned(), segment_name);
        write!(
            formatter,
            "older than the log: it knows epoch {known}, and {witness} was written in epoch {epoch}; restore it with \
             all of the log, or let `log repair` make it anew"
        )
    }
}

impl OwnManifest {
    /// A manifest of this log, held against the epochs of what was found so far.
    pub fn held_against(
        manifest: Manifest,
        facts: &BTreeMap<LogPosition, Facts>,
        known: &Known,
    ) -> OwnManifest {
        let (secret, shard) = (manifest.secret, manifest.shard.0);
        let segments = facts.iter().map(|(base, facts)| {
            let header = match facts.header {
                FoundHeader::Valid(header) if (header.secret, header.shard) == (secret, shard) => {
                    header.epoch
                }
                _ => 0,
            };
            let epoch = header.max(facts.begun.map_or(0, |begun| begun.epoch));
            Outdated { known: manifest.epoch, epoch, segment: Some(*base) }
        });
        let snapshots = known.reached.iter().filter(|reached| reached.secret.is_none_or(|of| of == secret));
        let snapshots =
            snapshots.map(|reached| Outdated { known: manifest.epoch, epoch: reached.epoch, segment: None });
        match segments.chain(snapshots).find(|found| found.epoch > manifest.epoch) {
            Some(outdated) => OwnManifest::Outdated(manifest, outdated),
            None => OwnManifest::Current(manifest),
        }
    }

    /// The manifest that counts.
    pub fn current(&self) -> Option<&Manifest> {
        match self {
            OwnManifest::Current(manifest) => Some(manifest),
            OwnManifest::Lost(_) | OwnManifest::Outdated(..) => None,
        }
    }

    /// The one that is there. When it is outdated, it says truly how far the log had got at least, and what of it was
    /// given up by then.
    pub fn found(&self) -> Option<&Manifest> {
        match self {
            OwnManifest::Current(manifest) | OwnManifest::Outdated(manifest, _) => Some(manifest),
            OwnManifest::Lost(_) => None,
        }
    }

    /// How far the log had got at least, as whoever knows says.
    pub fn reached(&self, known: &Known) -> LogPosition {
        let holdings = self.found().and_then(|manifest| manifest.holdings);
        let all = known.reached.iter().map(|reached| reached.position);
        all.chain(holdings.map(|holdings| holdings.reached)).max().unwrap_or(LogPosition::ZERO)
    }

    /// What an operator gave up, as far as it is known.
    pub fn given_up(&self) -> Vec<GivenUp> {
        self.found().map_or(Vec::new(), |manifest| manifest.given_up.clone())
    }

    /// Looks for a later run that began no segment: after everything that is known to be durable, in the last one.
    pub async fn look_past_end<D: Disk>(
        self,
        disk: &D,
        directory: &Path,
        facts: &BTreeMap<LogPosition, Facts>,
        known: &Known,
    ) -> Result<OwnManifest, DiskError> {
        let reached = self.reached(known);
        let OwnManifest::Current(manifest) = self else { return Ok(self) };
        let is_begun = |(base, facts): &(&LogPosition, &Facts)| {
            let is_own = matches!(facts.header, FoundHeader::Valid(header)
                if header.base == **base && header.secret == manifest.secret && !header.is_stand_in);
            (is_own || facts.holds_batches) && facts.file_bytes >= SEGMENT_FILE_BYTES_MIN
        };
        let Some((&base, facts)) = facts.iter().rev().find(is_begun) else {
            return Ok(OwnManifest::Current(manifest));
        };
        let path = directory.join(segment_name(base));
        let file = disk.open(&path, OpenMode::ReadOnly).await?;
        let bytes = facts.file_bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let segment: Segment<D> = Segment::new(base, bytes, file, path);
        let from = reached.max(base.advance(SEGMENT_HEADER_BYTES as u64));
        let found = epoch_above(&segment, from, manifest.epoch, manifest.secret).await;
        segment.file.close().await?;
        Ok(match found? {
            Some(epoch) => {
                let outdated = Outdated { known: manifest.epoch, epoch, segment: Some(base) };
                OwnManifest::Outdated(manifest, outdated)
            }
            None => OwnManifest::Current(manifest),
        })
    }
}

/// The epoch of the first batch from `from` on that has a higher one than `epoch`. The search goes from batch to batch, and
/// ends where none follows within what a scan would search.
async fn epoch_above<D: Disk>(
    segment: &Segment<D>,
    from: LogPosition,
    epoch: u32,
    secret: LogSecret,
) -> Result<Option<u32>, DiskError> {
    let end = Cell::new(from);
    let look_end = || end.get().since(segment.base) + SEARCH_BYTES;
    look_through(segment, from.0.saturating_sub(segment.base.0), look_end, |piece| {
        for header in piece.headers(secret) {
            if header.epoch > epoch {
                return ControlFlow::Break(header.epoch);
            }
            end.set(end.get().max(header.end_position()));
        }
        ControlFlow::Continue(())
    })
    .await
}

/// The refusal of a scan that meets a batch of a later epoch than the log's manifest knows.
pub(super) fn refusal<D: Disk>(segment: &Segment<D>, known: u32, epoch: u32) -> OpenError {
    let directory = segment.path.parent().expect("a segment lies in a directory").to_owned();
    let file = directory.join(manifest::NAME).display().to_string();
    let flaw = Flaw::ManifestOutdated(Outdated { known, epoch, segment: Some(segment.base) });
    let zero = LogPosition::ZERO;
    let contradiction = Contradiction { file, flaw, from: zero, to: zero, end: zero, messages: None };
    OpenError::Lacking { directory, contradictions: vec![contradiction] }
}
