//! Whether the log's files still have the beginning and the end of what was stored in them.
//!
//! A file may be there, of the right size and with its header, and some of its bytes are zeros or garbage, or it is an older copy
//! of itself. Where a batch follows, the scan names what is lost before it, and the checkpoint of each segment says what the
//! tables were. At the log's two ends only others know:
//!
//! | file                                | what must be in it                       | says who |
//! | ----------------------------------- | ---------------------------------------- | -------- |
//! | the first one                       | its first batch                          | a later one, that it had been flushed, unless there is a snapshot |
//! | the last one that holds something   | a batch that ends where the log had got  | the manifest, unless a snapshot has everything up to there |
//! | one before a segment that is lost   | a batch so near its end that the next    | that the log had got into the lost one, or beyond |
//! |                                     | one had no room                          | |
//!
//! Without that, topics would be forgotten and offsets given out again. It is refused as a missing file is. An unanswered tail lies after everything
//! that others know of, and is none of this.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use super::error::OpenError;
use super::expectation::{Contradiction, Facts, Flaw, Known, Verdict, secret_of};
use super::manifest::GivenUp;
use super::outdated::OwnManifest;
use super::recovery::{SCAN_BYTES, SEARCH_BYTES};
use super::scanner::{headers_in, look_through, read_parallel};
use super::segment::{FoundHeader, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, segment_name};
use crate::disk::{Disk, DiskError, DiskFile, OpenMode};
use crate::limits::{BLOCK_BYTES, PLACED_BYTES_MAX};
use crate::types::LogPosition;
use crate::wire::batch::{BatchError, BatchHeader, LogSecret};

/// Looks into the files whose end nobody else tells of: mostly into none, or some of the last one.
pub(super) async fn missing_parts<D: Disk>(
    disk: &D,
    directory: &Path,
    (manifest, facts): (&OwnManifest, &BTreeMap<LogPosition, Facts>),
    known: &Known,
    verdict: &Verdict,
) -> Result<Vec<Contradiction>, OpenError> {
    let secret = manifest.found().map(|manifest| manifest.secret).or_else(|| secret_of(facts));
    let inquiry = Inquiry { manifest, facts, known, verdict, secret: secret.unwrap_or_default() };
    let mut found = Vec::new();
    if let Some((base, file_bytes)) = inquiry.asked_for_beginning() {
        let segment = open(disk, directory, base, file_bytes).await?;
        let missing = inquiry.missing_beginning(&segment).await;
        segment.file.close().await?;
        found.extend(missing?);
    }
    for base in &verdict.used {
        let Some((file_bytes, required)) = inquiry.asked_for_end(*base) else { continue };
        let segment = open(disk, directory, *base, file_bytes).await?;
        let missing = inquiry.missing_end(&segment, required).await;
        segment.file.close().await?;
        found.extend(missing?);
    }
    Ok(found)
}

async fn open<D: Disk>(
    disk: &D,
    directory: &Path,
    base: LogPosition,
    file_bytes: u64,
) -> Result<Segment<D>, DiskError> {
    let path = directory.join(segment_name(base));
    let file = disk.open(&path, OpenMode::ReadOnly).await?;
    Ok(Segment::new(base, file_bytes, file, path))
}

/// Up to where a file must hold something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Required {
    /// The log had got here.
    Reached(LogPosition),
    /// It went on in another file, and was not before this position then.
    NotBefore(LogPosition),
}

struct Inquiry<'a> {
    manifest: &'a OwnManifest,
    facts: &'a BTreeMap<LogPosition, Facts>,
    known: &'a Known,
    verdict: &'a Verdict,
    secret: LogSecret,
}

impl Inquiry<'_> {
    /// The first file, and how many bytes of it are there, when its first batch does not stand where it belongs.
    fn asked_for_beginning(&self) -> Option<(LogPosition, u64)> {
        let base = *self.verdict.used.first()?;
        let (facts, bytes) = (&self.facts[&base], *self.verdict.sizes.get(&base)?);
        let is_stand_in = self.own_header(base).is_some_and(|header| header.is_stand_in);
        let begin = base.advance(SEGMENT_HEADER_BYTES as u64);
        let is_given_up = |range: &GivenUp| range.from <= begin && begin < range.to;
        let is_told = facts.begun.is_some()
            || is_stand_in
            || !self.known.reached.is_empty()
            || self.manifest.given_up().iter().any(is_given_up);
        (!is_told).then_some((base, facts.file_bytes.min(bytes) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64))
    }

    /// What must be in a file, and how many bytes of it are there, when nothing after it tells.
    fn asked_for_end(&self, base: LogPosition) -> Option<(u64, Required)> {
        let (facts, bytes) = (&self.facts[&base], *self.verdict.sizes.get(&base)?);
        let is_stand_in = self.own_header(base).is_some_and(|header| header.is_stand_in);
        let (begin, end) = (base.advance(SEGMENT_HEADER_BYTES as u64), base.advance(bytes));
        if is_stand_in || self.is_told(end) {
            return None;
        }
        let file_bytes = facts.file_bytes.min(bytes) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let is_used_beyond = self.verdict.used.range(end..).next().is_some();
        if is_used_beyond || self.manifest.reached(self.known) > end.advance(SEGMENT_HEADER_BYTES as u64) {
            let room = (PLACED_BYTES_MAX + BLOCK_BYTES) as u64;
            let position = LogPosition(end.0.saturating_sub(room)).max(begin);
            return Some((file_bytes, Required::NotBefore(position)));
        }
        let reached = self.manifest.current()?.holdings?.reached;
        let is_kept = self.known.reached.iter().any(|snapshot| snapshot.position >= reached);
        let is_given_up = |range: &GivenUp| range.from < reached && reached <= range.to;
        let is_asked = begin < reached && !is_kept && !self.manifest.given_up().iter().any(is_given_up);
        is_asked.then_some((file_bytes, Required::Reached(reached)))
    }

    fn own_header(&self, base: LogPosition) -> Option<SegmentHeader> {
        let FoundHeader::Valid(header) = self.facts.get(&base)?.header else { return None };
        (header.base == base && header.secret == self.secret).then_some(header)
    }

    /// Whether the segment at `position` says where the log had ended before it: in its place, or in another one.
    fn is_told(&self, position: LogPosition) -> bool {
        let is_it = |facts: &Facts| {
            matches!(facts.header, FoundHeader::Valid(header)
                if header.base == position && header.secret == self.secret)
        };
        self.facts.get(&position).is_some_and(|facts| facts.begun.is_some()) || self.facts.values().any(is_it)
    }

    async fn missing_beginning<D: Disk>(
        &self,
        segment: &Segment<D>,
    ) -> Result<Option<Contradiction>, OpenError> {
        let from = segment.base.advance(SEGMENT_HEADER_BYTES as u64);
        refuse_newer(segment, from, self.secret).await?;
        let mut first = None;
        let proof = find_batch(segment, from, self.secret, |header| {
            first.get_or_insert(*header);
            header.flushed_end > from || self.manifest.reached(self.known) > from
        });
        let (true, Some(first)) = (proof.await?, first) else { return Ok(None) };
        let (to, file) = (first.position, segment.path.display().to_string());
        let flaw = Flaw::BeginningUnreadable { position: to.since(segment.base) };
        Ok(Some(Contradiction { file, flaw, from, to, end: to, messages: None }))
    }

    async fn missing_end<D: Disk>(
        &self,
        segment: &Segment<D>,
        required: Required,
    ) -> Result<Option<Contradiction>, OpenError> {
        let begin = segment.base.advance(SEGMENT_HEADER_BYTES as u64);
        let (to, position) = match required {
            Required::Reached(position) => (position.min(segment.end()), position),
            Required::NotBefore(position) => (segment.end(), position),
        };
        let from = last_end(segment, begin, to, self.secret).await?;
        let is_there = match required {
            // Where the last batch counted only together with one that was cut off, that is where it began.
            Required::Reached(_) => {
                from >= position || from.0.next_multiple_of(BLOCK_BYTES as u64) == position.0
            }
            Required::NotBefore(_) => from >= position,
        };
        // What reaches beyond the end of a file that was cut off is missing by that.
        if is_there || from >= segment.end() {
            return Ok(None);
        }
        if let Required::Reached(reached) = required
            && find_batch(segment, reached, self.secret, |_| true).await?
        {
            return Ok(None);
        }
        let next_group = LogPosition(from.0.next_multiple_of(BLOCK_BYTES as u64));
        for at in [from, next_group] {
            refuse_newer(segment, at, self.secret).await?;
        }
        let file = segment.path.display().to_string();
        let flaw = Flaw::EndUnreadable { position: from.since(segment.base) };
        let to = segment.end();
        let stopped = self.manifest.current().and_then(|manifest| manifest.holdings).filter(|it| it.is_end);
        let end = match (required, stopped) {
            (Required::Reached(reached), Some(_)) => reached.clamp(from, to),
            _ => to,
        };
        Ok(Some(Contradiction { file, flaw, from, to, end, messages: None }))
    }
}

/// What a newer release has written is not lost.
async fn refuse_newer<D: Disk>(
    segment: &Segment<D>,
    at: LogPosition,
    secret: LogSecret,
) -> Result<(), OpenError> {
    let block = BLOCK_BYTES as u64;
    let from = at.since(segment.base) / block * block;
    let mut bytes = Vec::new();
    // A header may lie across the border of two blocks.
    read_parallel(segment, from, (from + 2 * block).min(segment.bytes), &mut bytes).await?;
    let first = ((at.since(segment.base) - from) as usize).min(bytes.len());
    match BatchHeader::decode_stored(&bytes[first..], secret) {
        Err(reason @ (BatchError::Version(_) | BatchError::Kind(_) | BatchError::Flags(_))) => {
            let file = segment.path.display().to_string();
            Err(OpenError::Newer { file, what: reason.to_string() })
        }
        _ => Ok(()),
    }
}

/// The end of the last batch that begins below `to` and has a header, looked for from there back to `from`.
async fn last_end<D: Disk>(
    segment: &Segment<D>,
    from: LogPosition,
    to: LogPosition,
    secret: LogSecret,
) -> Result<LogPosition, DiskError> {
    let (step, block) = (SCAN_BYTES as u64, BLOCK_BYTES as u64);
    let mut bytes = Vec::new();
    for at in (0..=to.since(segment.base) / step).rev().map(|index| index * step) {
        // A header may lie across the border of two steps.
        let read_to = (at + step + block).min(segment.bytes);
        bytes.clear();
        read_parallel(segment, at, read_to, &mut bytes).await?;
        let headers = headers_in(&bytes, segment.base.advance(at), secret, 0..SCAN_BYTES);
        let below = headers.filter(|header| (from..to).contains(&header.position));
        if let Some(end) = below.map(|header| header.end_position()).max() {
            return Ok(end);
        }
    }
    Ok(from)
}

/// Whether one of the batches that begin at or after `from` is what is looked for, as far on as a scan looks.
async fn find_batch<D: Disk>(
    segment: &Segment<D>,
    from: LogPosition,
    secret: LogSecret,
    mut is_it: impl FnMut(&BatchHeader) -> bool,
) -> Result<bool, DiskError> {
    let first = from.since(segment.base);
    let found = look_through(
        segment,
        first,
        || first + SEARCH_BYTES,
        |piece| {
            let found = piece.headers(secret).any(|header| is_it(&header));
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    Ok(found.await?.is_some())
}
