//! A pass over a log: walking from batch to batch, and deciding what stands where none is. The rules are the table in
//! `recovery`.

use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use futures_util::stream::{FuturesOrdered, StreamExt};
use memchr::memmem;

use super::error::OpenError;
use super::holes::Hole;
use super::manifest::GivenUp;
use super::outdated::refusal;
use super::recovery::{Damage, Lost, Replay, Report, SCAN_BYTES, SEARCH_BYTES, StartAt};
use super::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::disk::{Disk, DiskError, DiskFile};
use crate::limits::{BLOCK_BYTES, READ_BYTES};
use crate::types::{LogPosition, Timestamp};
use crate::wire::batch::{
    BATCH_ALIGNMENT, BATCH_HEADER_BYTES, BATCH_MAGIC, BatchError, BatchHeader, LogSecret, records_match,
};

/// A look at what is mostly not there has so many reads in flight, at first and then: that many are as fast as a device gets.
const LOOK_READS_FIRST: usize = 4;
const LOOK_READS_MAX: usize = 8;

/// A pass over the log.
pub(super) struct Scanner<D: Disk> {
    padding: Padding,
    segments: Vec<Used<D>>,
    limits: Limits,
    epoch_last: u32,
    newest: Timestamp,
    flushed_end: LogPosition,
    /// A batch that counts only together with the next one, until that is found.
    waiting: Option<(BatchHeader, Vec<u8>)>,
    report: Report,
}

/// What is known of the log before it is read.
pub(super) struct Limits {
    /// No batch has a higher epoch; one that has shows that the manifest is outdated, which ends the pass.
    pub epoch_max: u32,
    pub secret: LogSecret,
    /// It was durable up to here: what is not there below was lost, however the files look.
    pub reached: LogPosition,
    /// What an operator gave up.
    pub given_up: Vec<GivenUp>,
    /// The pass ends at the first batch that begins here or after.
    pub until: LogPosition,
}

/// A segment that holds batches.
pub(super) struct Used<D: Disk> {
    pub segment: Rc<Segment<D>>,
    /// Where the log ended before it; `None` when neither its header nor its first batch can be read.
    pub previous_end: Option<LogPosition>,
}

/// Whether a pass looks at the bytes between groups. They mean nothing to the broker, so only a check of the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    Skip,
    Check,
}

/// What a pass returns.
pub(super) struct Scanned {
    pub report: Report,
    pub newest: Timestamp,
    /// Of the last batch.
    pub epoch: u32,
    /// Everything below was flushed, as the batches say.
    pub flushed_end: LogPosition,
}

/// Bytes of one segment around the position of the scan.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

/// What stands at the position where a batch is expected.
enum AtEnd {
    Whole(BatchHeader),
    Harmed(BatchHeader),
    Nothing,
}

/// What the search after that position proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// The log goes on here.
    Continues(LogPosition),
    /// The expected position was flushed once; the next valid batch of all is here.
    Flushed {
        next: LogPosition,
        /// Of a group that names the expected position as the log's end: what else stands there was cut off.
        went_on: bool,
    },
    None {
        leftovers: bool,
    },
}

impl<D: Disk> Scanner<D> {
    pub fn new(segments: Vec<Used<D>>, limits: Limits, padding: Padding) -> Self {
        let report = Report {
            epoch: 0,
            end: LogPosition::ZERO,
            batches: 0,
            bytes_scanned: 0,
            damage: Vec::new(),
            torn: false,
            is_cut: false,
            start_missing: false,
            given_up: Vec::new(),
            notices: Vec::new(),
        };
        Self {
            padding,
            segments,
            limits,
            epoch_last: 0,
            newest: Timestamp(0),
            flushed_end: LogPosition::ZERO,
            waiting: None,
            report,
        }
    }

    /// Walks from `start` to the end of the log.
    pub async fn run<R: Replay>(mut self, start: StartAt, replay: &mut R) -> Result<Scanned, OpenError> {
        let Some(first) = self.segments.first() else {
            return Ok(self.into_scanned());
        };
        let beginning = first.segment.base.advance(SEGMENT_HEADER_BYTES as u64);
        let mut position = self.start_position(start, beginning, replay);
        let mut window = Window::default();
        let mut current = self.segment_for(position);
        let mut settled_at = position;
        // The log ends after its last batch, not where a torn group says that it went on.
        let mut end = position;
        while let Some(segment) = current.clone() {
            if position.since(settled_at) >= SCAN_BYTES as u64 {
                replay.settle().await?;
                settled_at = position;
            }
            let ended = self.ended_by(&segment, position);
            let at_end = match ended {
                Some(_) => AtEnd::Nothing,
                None => self.look(&segment, position, &mut window).await?,
            };
            let waiting_at = self.waiting.as_ref().map(|(first, _)| first.position);
            if position >= self.limits.until && waiting_at.is_none() {
                break;
            }
            position = match at_end {
                AtEnd::Whole(header) => {
                    let from = (position.since(segment.base) - window.start) as usize;
                    self.replay(&header, &window.bytes[from..from + header.batch_bytes as usize], replay);
                    self.check_alignment(&segment, &header, &window);
                    end = self.note(&segment, &header);
                    end
                }
                _ if let Some(next) = self.cut_before_waiting().await? => {
                    end = waiting_at.expect("a batch waited");
                    next
                }
                at_end => match self.prove(&segment, position, ended.is_some(), &mut window).await? {
                    Proof::Continues(next) => {
                        self.check_padding(&segment, position, next, &window);
                        next
                    }
                    Proof::Flushed { next, went_on } => {
                        let at_end = if went_on { AtEnd::Nothing } else { at_end };
                        end = self.go_on_after_loss(&segment, position, next, at_end, replay);
                        end
                    }
                    Proof::None { leftovers } => {
                        let Some(next) = self.known_beyond(&segment, position, &at_end, ended) else {
                            self.report.torn = leftovers || matches!(at_end, AtEnd::Harmed(_));
                            break;
                        };
                        end = self.go_on_after_loss(&segment, position, next, at_end, replay);
                        end
                    }
                },
            };
            if !segment.contains(position) {
                // The header of the segment that follows says where this one ended.
                end = position;
                current = self.segment_for(position);
                window = Window::default();
            }
        }
        self.report.end = end;
        if let Some((header, _)) = self.waiting.take() {
            self.report.end = header.position;
            self.report.batches -= 1;
            self.report.torn = true;
        }
        Ok(self.into_scanned())
    }

    /// Where the walk begins: at the position asked for, if that is in the log.
    fn start_position(
        &mut self,
        start: StartAt,
        beginning: LogPosition,
        replay: &mut impl Replay,
    ) -> LogPosition {
        match start {
            StartAt::Position { position, epoch, newest }
                if position >= beginning && self.holds(position) =>
            {
                self.epoch_last = epoch;
                self.newest = newest;
                self.flushed_end = position;
                position
            }
            StartAt::Position { .. } => {
                self.report.start_missing = true;
                replay.restart();
                beginning
            }
            StartAt::Beginning => beginning,
        }
    }

    fn into_scanned(self) -> Scanned {
        let (newest, epoch, flushed_end) = (self.newest, self.epoch_last, self.flushed_end);
        Scanned { report: self.report, newest, epoch, flushed_end }
    }

    /// Hands a whole batch on, once the one that belongs to it is there as well.
    fn replay(&mut self, header: &BatchHeader, bytes: &[u8], replay: &mut impl Replay) {
        if let Some((first, bytes)) = self.waiting.take() {
            // Of another group: an earlier run ended between the two, and its recovery before the first.
            if (first.epoch, first.previous_end) == (header.epoch, header.previous_end) {
                replay.whole(&first, &bytes);
            } else {
                self.report.batches -= 1;
            }
        }
        if header.continues {
            self.waiting = Some((*header, bytes.to_vec()));
        } else {
            replay.whole(header, bytes);
        }
    }

    /// The position where a later run went on, if it did so before the batch that waits for its other half. When damage
    /// hides that position, the rest of its group may still say so: then the batch does not count either.
    async fn cut_before_waiting(&mut self) -> Result<Option<LogPosition>, OpenError> {
        let Some(position) = self.waiting.as_ref().map(|(first, _)| first.position) else { return Ok(None) };
        let next = match self.search(position).await? {
            Proof::Continues(next) => Some(next),
            Proof::Flushed { went_on: true, .. } => None,
            Proof::Flushed { .. } | Proof::None { .. } => return Ok(None),
        };
        self.waiting = None;
        self.report.batches -= 1;
        Ok(next)
    }

    /// Takes note of a batch and returns the position after it.
    fn note(&mut self, segment: &Segment<D>, header: &BatchHeader) -> LogPosition {
        self.epoch_last = header.epoch;
        self.newest = self.newest.max(header.store_time);
        self.flushed_end = self.flushed_end.max(header.flushed_end);
        // In a log that is in use it may be known already how new the segment is.
        segment.newest.set(segment.newest.get().max(Some(header.store_time)));
        self.report.batches += 1;
        header.end_position()
    }

    /// Passes over what was durable between `position` and `next` and cannot be read. Returns where the walk goes on.
    fn go_on_after_loss(
        &mut self,
        segment: &Segment<D>,
        position: LogPosition,
        next: LogPosition,
        at_end: AtEnd,
        replay: &mut impl Replay,
    ) -> LogPosition {
        // The other half of a batch that waits was durable as well, so the first one counts.
        if let Some((header, bytes)) = self.waiting.take() {
            replay.whole(&header, &bytes);
        }
        let is_harmed = matches!(at_end, AtEnd::Harmed(_));
        let told = self.report.damage.len();
        let end = match self.ended_by(segment, position) {
            // What is lost stands in the next segment.
            Some((_, begin)) => begin,
            None => self.skip_damage(segment, position, next, at_end, replay),
        };
        // Of a batch whose header can be read it is known what it was.
        let unknown_from = if is_harmed { self.report.damage.len() } else { told };
        self.tell_lost(position, end, unknown_from, replay);
        end
    }

    fn skip_damage(
        &mut self,
        segment: &Segment<D>,
        position: LogPosition,
        next: LogPosition,
        at_end: AtEnd,
        replay: &mut impl Replay,
    ) -> LogPosition {
        let next = match at_end {
            AtEnd::Harmed(header) => {
                replay.harmed(&header);
                self.note(segment, &header)
            }
            // Within this segment: the scan comes to the next one by itself.
            AtEnd::Whole(_) | AtEnd::Nothing => self.ended(segment).map_or(next, |(end, _)| next.min(end)),
        };
        if let Some(end) = self.hole_after(segment).filter(|_| next > segment.end()) {
            // What is left of this segment was never written, or its end is lost with what told of it.
            self.note_hole(segment, end);
            return end.advance(SEGMENT_HEADER_BYTES as u64);
        }
        let mut lost_from = position;
        let mut next = next;
        if next >= segment.end() && self.ended(segment).is_none() {
            // The log went on in another file, which does not say where it did. What is left of this one was never
            // written, unless somebody says so.
            let is_given_up = |range: &&GivenUp| range.from < segment.end() && position < range.to;
            let given_up = self.limits.given_up.iter().find(is_given_up);
            lost_from = given_up.map_or(segment.end(), |range| range.from.max(position));
            if !self.ends_files(segment) {
                next = segment.end();
            } else if next > segment.end() {
                self.note_hole(segment, next);
            }
        }
        let lost_end = self.stored_end(lost_from, next.min(segment.end()));
        if lost_end > lost_from {
            let (file, bytes) = (segment.path.display().to_string(), lost_end.since(lost_from));
            let position = lost_from.since(segment.base);
            self.report.damage.push(Damage { file, log_position: lost_from, position, bytes });
        }
        next
    }

    /// The end of what may have been stored between `position` and `to`: of a range that was given up it may be known that
    /// nothing was stored in its rest.
    fn stored_end(&self, position: LogPosition, to: LogPosition) -> LogPosition {
        let around = |range: &&GivenUp| range.from <= position && to <= range.to;
        self.limits.given_up.iter().find(around).map_or(to, |range| range.end.clamp(position, to))
    }

    /// How far the log went on after a position at which nothing proves it, as others know: it was durable there, or the
    /// operator gave up what stood there. In this segment, when another one follows. `ended` is where the log ended in
    /// this segment and where the next one's first batch would be, once `position` is that end.
    fn known_beyond(
        &self,
        segment: &Segment<D>,
        position: LogPosition,
        at_end: &AtEnd,
        ended: Option<(LogPosition, LogPosition)>,
    ) -> Option<LogPosition> {
        let next = ended.map_or(position, |(_, begin)| begin);
        let behind = match at_end {
            AtEnd::Harmed(header) => header.end_position(),
            // What is given up begins before the header that would be here.
            AtEnd::Whole(_) | AtEnd::Nothing => {
                LogPosition(next.0.next_multiple_of(BLOCK_BYTES as u64) + BATCH_HEADER_BYTES as u64)
            }
        };
        let given_up = self.limits.given_up.iter().filter(|range| range.from < behind && next < range.to);
        let ends = given_up.map(|range| range.to);
        let end = ends.chain((position < self.limits.reached).then_some(self.limits.reached)).max()?;
        let follows = position < segment.end() && self.segments().any(|next| next.base == segment.end());
        Some(if follows { end.min(segment.end()) } else { end })
    }

    /// Hands on how much of what was skipped may have been stored: what had been given up, and the damage that was met
    /// from the one with this index on.
    fn tell_lost(&self, from: LogPosition, to: LogPosition, first: usize, replay: &mut impl Replay) {
        let within = |range: &GivenUp, from: LogPosition, to: LogPosition| {
            range.to.min(to).0.saturating_sub(range.from.max(from).0)
        };
        let given_up = &self.limits.given_up;
        let stored = |range: &GivenUp| range.end.min(to).0.saturating_sub(range.from.max(from).0);
        let damaged = |damage: &Damage| {
            let end = damage.log_position.advance(damage.bytes);
            let known: u64 = given_up.iter().map(|range| within(range, damage.log_position, end)).sum();
            damage.bytes.saturating_sub(known)
        };
        let damage: u64 = self.report.damage[first..].iter().map(damaged).sum();
        let bytes = damage + given_up.iter().map(stored).sum::<u64>();
        if bytes > 0 {
            replay.lost(Lost { from, to, bytes });
        }
    }

    /// Where the log goes on after this segment, when the files in between are missing.
    fn hole_after(&self, segment: &Segment<D>) -> Option<LogPosition> {
        let next = self.segments().map(|next| next.base).find(|base| *base >= segment.end())?;
        (next > segment.end()).then_some(next)
    }

    /// Whether no file after this segment's holds anything.
    fn ends_files(&self, segment: &Segment<D>) -> bool {
        self.segments().all(|other| other.base <= segment.base)
    }

    /// Reports each file that is missing between this segment and `end`.
    fn note_hole(&mut self, segment: &Segment<D>, end: LogPosition) {
        let directory = segment.path.parent().expect("a segment lies in a directory");
        let (start, bytes) = (segment.end(), end.since(segment.end()));
        let is_even = bytes.is_multiple_of(segment.bytes);
        let bytes = if is_even { segment.bytes } else { bytes };
        for log_position in (start.0..end.0).step_by(bytes as usize).map(LogPosition) {
            let hole = Hole::around(directory, (start, end), segment.bytes, log_position);
            let file = hole.file.display().to_string();
            self.report.damage.push(Damage { file, log_position, position: 0, bytes });
        }
    }

    /// What follows a position without a batch: mostly the next group, a few bytes on; else the search tells.
    async fn prove(
        &mut self,
        segment: &Segment<D>,
        position: LogPosition,
        ended: bool,
        window: &mut Window,
    ) -> Result<Proof, OpenError> {
        if ended {
            return self.search(position).await;
        }
        let at = position.since(segment.base).next_multiple_of(BLOCK_BYTES as u64);
        // On a block boundary the next group would be the one just looked at: when its records are damaged, its header
        // would vouch for itself, and the scan would stand still.
        if segment.base.advance(at) > position && at + (BATCH_HEADER_BYTES as u64) <= segment.bytes {
            self.fill(segment, window, position.since(segment.base), BLOCK_BYTES + BATCH_HEADER_BYTES)
                .await?;
            let next = segment.base.advance(at);
            let header =
                BatchHeader::decode_stored(&window.bytes[(at - window.start) as usize..], self.limits.secret);
            if header.is_ok_and(|header| header.previous_end == position && self.fits(&header, next)) {
                return Ok(Proof::Continues(next));
            }
        }
        self.search(position).await
    }

    /// The bytes between two groups of one run are zeros.
    fn check_padding(
        &mut self,
        segment: &Segment<D>,
        position: LogPosition,
        next: LogPosition,
        window: &Window,
    ) {
        let near = segment.contains(next) && next.since(position) < BLOCK_BYTES as u64;
        if self.padding == Padding::Skip || !near {
            return;
        }
        let from = (position.since(segment.base) - window.start) as usize;
        let Some(gap) = window.bytes.get(from..from + next.since(position) as usize) else { return };
        let same_run = BatchHeader::decode_stored(&window.bytes[from + gap.len()..], self.limits.secret)
            .is_ok_and(|header| header.epoch == self.epoch_last);
        if let Some(at) = gap.iter().position(|byte| *byte != 0).filter(|_| same_run) {
            let file = segment.path.display().to_string();
            let in_file = position.since(segment.base) + at as u64;
            let log_position = position.advance(at as u64);
            self.report.damage.push(Damage { file, log_position, position: in_file, bytes: 1 });
        }
    }

    /// The bytes between two batches of a group are zeros.
    fn check_alignment(&mut self, segment: &Segment<D>, header: &BatchHeader, window: &Window) {
        let end = header.position.advance(u64::from(header.batch_bytes));
        let from = end.since(segment.base);
        let gap = header.end_position().since(end) as usize;
        let at = (from - window.start) as usize;
        if self.padding == Padding::Check && window.bytes.iter().skip(at).take(gap).any(|byte| *byte != 0) {
            let file = segment.path.display().to_string();
            self.report.damage.push(Damage { file, log_position: end, position: from, bytes: gap as u64 });
        }
    }

    fn holds(&self, position: LogPosition) -> bool {
        // The end of a segment's last batch may be the segment's end.
        self.segments().any(|segment| segment.contains(position) || segment.end() == position)
    }

    /// The segment in which `position` lies; the very end of a segment belongs to it unless the next one follows there.
    fn segment_for(&self, position: LogPosition) -> Option<Rc<Segment<D>>> {
        let within = self.segments().find(|segment| segment.contains(position));
        within.or_else(|| self.segments().find(|segment| segment.end() == position)).cloned()
    }

    fn segments(&self) -> impl Iterator<Item = &Rc<Segment<D>>> {
        self.segments.iter().map(|used| &used.segment)
    }

    /// Where the log went on from this segment to the next, and where that one's first batch is. What an earlier run
    /// has left after that end fits its position and its epoch, and is dead all the same.
    fn ended(&self, segment: &Segment<D>) -> Option<(LogPosition, LogPosition)> {
        let next = self.segments.iter().find(|used| used.segment.base == segment.end())?;
        let begun = segment.base.advance(SEGMENT_HEADER_BYTES as u64)..=segment.end();
        let end = next.previous_end.filter(|end| begun.contains(end))?;
        Some((end, next.segment.base.advance(SEGMENT_HEADER_BYTES as u64)))
    }

    /// As [`ended`](Self::ended), once nothing of this segment is left at `position`.
    fn ended_by(&self, segment: &Segment<D>, position: LogPosition) -> Option<(LogPosition, LogPosition)> {
        self.ended(segment).filter(|(end, _)| position >= *end)
    }

    fn fits(&self, header: &BatchHeader, position: LogPosition) -> bool {
        header.position == position && (self.epoch_last..=self.limits.epoch_max).contains(&header.epoch)
    }

    /// Decodes what stands at `position`.
    async fn look(
        &mut self,
        segment: &Segment<D>,
        position: LogPosition,
        window: &mut Window,
    ) -> Result<AtEnd, OpenError> {
        let at = position.since(segment.base);
        self.report.is_cut = at + BATCH_HEADER_BYTES as u64 > segment.bytes;
        if self.report.is_cut {
            return Ok(AtEnd::Nothing);
        }
        self.fill(segment, window, at, BATCH_HEADER_BYTES).await?;
        let from = (at - window.start) as usize;
        let header = match BatchHeader::decode_stored(&window.bytes[from..], self.limits.secret) {
            Ok(header) if self.fits(&header, position) => header,
            Ok(header) if header.position == position && header.epoch > self.limits.epoch_max => {
                return Err(refusal(segment, self.limits.epoch_max, header.epoch));
            }
            Err(reason @ (BatchError::Version(_) | BatchError::Kind(_) | BatchError::Flags(_))) => {
                let file = segment.path.display().to_string();
                return Err(OpenError::Newer { file, what: reason.to_string() });
            }
            _ => return Ok(AtEnd::Nothing),
        };
        if at + u64::from(header.batch_bytes) > segment.bytes {
            self.report.is_cut = true;
            return Ok(AtEnd::Nothing);
        }
        self.fill(segment, window, at, header.batch_bytes as usize).await?;
        let from = (at - window.start) as usize;
        let whole = records_match(&window.bytes[from..from + header.batch_bytes as usize]);
        Ok(if whole { AtEnd::Whole(header) } else { AtEnd::Harmed(header) })
    }

    /// Makes the window hold `bytes` from `at` on, reading ahead.
    async fn fill(
        &mut self,
        segment: &Segment<D>,
        window: &mut Window,
        at: u64,
        bytes: usize,
    ) -> Result<(), DiskError> {
        let end = window.start + window.bytes.len() as u64;
        if window.start <= at && at + (bytes as u64).min(segment.bytes - at) <= end {
            return Ok(());
        }
        let block = BLOCK_BYTES as u64;
        let start = at / block * block;
        if (window.start..end).contains(&start) {
            window.bytes.drain(..(start - window.start) as usize);
        } else {
            window.bytes.clear();
        }
        window.start = start;
        let have = start + window.bytes.len() as u64;
        let want =
            (at + bytes as u64).max(start + SCAN_BYTES as u64).next_multiple_of(block).min(segment.bytes);
        read_parallel(segment, have, want, &mut window.bytes).await?;
        self.report.bytes_scanned += want - have;
        Ok(())
    }

    /// Looks after `position` for a batch that proves what `position` is.
    async fn search(&mut self, position: LogPosition) -> Result<Proof, OpenError> {
        let mut traces = Traces::default();
        for index in 0..self.segments.len() {
            let segment = self.segments[index].segment.clone();
            if segment.end() <= position {
                continue;
            }
            let from = position.0.max(segment.base.0 + SEGMENT_HEADER_BYTES as u64) - segment.base.0;
            let ended = self.ended(&segment).map_or(segment.bytes, |(end, _)| end.since(segment.base));
            let to = (from + SEARCH_BYTES).next_multiple_of(BLOCK_BYTES as u64).min(ended);
            let first = from / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
            let mut looked_at = 0;
            let proof = look_through(
                &segment,
                from,
                || to,
                |piece| {
                    looked_at += piece.bytes.len() as u64;
                    for found in piece.headers(self.limits.secret) {
                        if found.epoch > self.limits.epoch_max {
                            return ControlFlow::Break(Err(refusal(
                                &segment,
                                self.limits.epoch_max,
                                found.epoch,
                            )));
                        }
                        if found.position <= position || !self.fits(&found, found.position) {
                            continue;
                        }
                        if found.previous_end == position && starts_group(&segment, &found) {
                            return ControlFlow::Break(Ok(Proof::Continues(found.position)));
                        }
                        traces.note(position, &found, self.epoch_last);
                    }
                    // Not at the first of them: the batch with which the log goes on may come a little after.
                    let is_step =
                        (piece.end() - first).is_multiple_of(SCAN_BYTES as u64) || piece.end() >= to;
                    traces
                        .proof()
                        .filter(|_| is_step)
                        .map_or(ControlFlow::Continue(()), |proof| ControlFlow::Break(Ok(proof)))
                },
            );
            let proof = proof.await?;
            self.report.bytes_scanned += looked_at;
            if let Some(proof) = proof {
                return proof;
            }
        }
        Ok(Proof::None { leftovers: traces.nearest.is_some() })
    }
}

/// What the batches after a position that has none say of it.
#[derive(Default)]
struct Traces {
    nearest: Option<LogPosition>,
    flushed: bool,
    went_on: bool,
}

impl Traces {
    fn note(&mut self, position: LogPosition, found: &BatchHeader, epoch_last: u32) {
        self.nearest = self.nearest.or(Some(found.position));
        self.flushed |= found.flushed_end > position;
        self.went_on |= found.previous_end == position && found.epoch > epoch_last;
    }

    /// Once a later batch vouches for the position, batches before that one are sound as well: they were flushed with it, and
    /// are still there.
    fn proof(&self) -> Option<Proof> {
        let next = self.nearest.filter(|_| self.flushed)?;
        Some(Proof::Flushed { next, went_on: self.went_on })
    }
}

/// Whether the batch is the first of its group. The others of a group name the same `previous_end`, but something stood
/// before them: a log that went on there would have a gap.
fn starts_group<D: Disk>(segment: &Segment<D>, header: &BatchHeader) -> bool {
    header.position.0 == header.previous_end.0.next_multiple_of(BLOCK_BYTES as u64)
        || header.position == segment.base.advance(SEGMENT_HEADER_BYTES as u64)
}

/// A piece of a segment's file, and where it lies in it.
pub(super) struct Piece<'a> {
    base: LogPosition,
    at: u64,
    bytes: &'a [u8],
    /// The headers of this piece start here; the bytes go on after it, since one may lie across the border of two.
    range: Range<usize>,
}

impl Piece<'_> {
    /// Where the next one begins, in the file.
    fn end(&self) -> u64 {
        self.at + self.range.end as u64
    }

    pub fn headers(&self, secret: LogSecret) -> impl Iterator<Item = BatchHeader> + '_ {
        headers_in(self.bytes, self.base.advance(self.at), secret, self.range.clone())
    }
}

/// Looks at a segment's file from `from` to `end()`, which may grow meanwhile, until `look` has found something. Each piece is
/// looked at where it was read to, while others are being read: mostly nothing is found, and every start waits for it.
pub(super) async fn look_through<D: Disk, T>(
    segment: &Segment<D>,
    from: u64,
    end: impl Fn() -> u64,
    mut look: impl FnMut(Piece<'_>) -> ControlFlow<T>,
) -> Result<Option<T>, DiskError> {
    if segment.is_stand_in {
        // Zeros, as far as its file goes and beyond.
        return Ok(None);
    }
    let (block, piece_bytes) = (BLOCK_BYTES as u64, READ_BYTES as u64);
    let end = || end().min(segment.bytes);
    let mut reads = FuturesOrdered::new();
    let mut next = from / block * block;
    // What is looked for is mostly near, if it is there.
    let mut reads_max = LOOK_READS_FIRST;
    let outcome = loop {
        while reads.len() < reads_max && next < end() {
            let read_end = end().min(next + piece_bytes).next_multiple_of(block) + block;
            let (at, bytes) = (next, (read_end.min(segment.bytes) - next) as usize);
            reads.push_back(async move { (at, segment.file.read(at, bytes).await) });
            next += piece_bytes;
        }
        reads_max = LOOK_READS_MAX;
        let (at, bytes) = match reads.next().await {
            Some((at, Ok(bytes))) => (at, bytes),
            Some((_, Err(error))) => break Err(error),
            None => break Ok(None),
        };
        let range = from.saturating_sub(at) as usize..(end() - at).min(piece_bytes) as usize;
        if let ControlFlow::Break(found) = look(Piece { base: segment.base, at, bytes: &bytes, range }) {
            break Ok(Some(found));
        }
    };
    // A read is carried to its end.
    while reads.next().await.is_some() {}
    outcome
}

/// Valid headers that start in `range` of `bytes`; `base` is the log position of the first byte.
pub(super) fn headers_in(
    bytes: &[u8],
    base: LogPosition,
    secret: LogSecret,
    range: Range<usize>,
) -> impl Iterator<Item = BatchHeader> + '_ {
    let until = (range.end + BATCH_MAGIC.len() - 1).min(bytes.len());
    let from = range.start.min(until);
    // A search at memory speed: at a start tens of megabytes are looked through.
    memmem::find_iter(&bytes[from..until], &BATCH_MAGIC).map(move |at| from + at).filter_map(move |at| {
        if !at.is_multiple_of(BATCH_ALIGNMENT) || bytes.len() - at < BATCH_HEADER_BYTES {
            return None;
        }
        let header = BatchHeader::decode_stored(&bytes[at..], secret).ok()?;
        (header.position == base.advance(at as u64)).then_some(header)
    })
}

/// Appends `from..to` of the segment's file to `output`, with a few reads in flight.
pub(super) async fn read_parallel<D: Disk>(
    segment: &Segment<D>,
    from: u64,
    to: u64,
    output: &mut Vec<u8>,
) -> Result<(), DiskError> {
    if from >= to {
        return Ok(());
    }
    if segment.is_stand_in {
        // Zeros, as far as its file goes and beyond.
        output.resize(output.len() + (to - from) as usize, 0);
        return Ok(());
    }
    // All at once: a buffer that grows step by step is copied each time, and leaves memory behind.
    output.reserve((to - from) as usize);
    let reads =
        (from..to).step_by(READ_BYTES).map(|at| segment.file.read(at, READ_BYTES.min((to - at) as usize)));
    for piece in futures_util::future::join_all(reads).await {
        match piece {
            Ok(piece) => output.extend_from_slice(&piece),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
