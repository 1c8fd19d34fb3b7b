//! Recovery: finding the log's end after any kind of death, and replaying what the snapshot does not hold.
//!
//! The scan walks batch by batch. At `p`, where the next batch is expected, the decision is this table. "Valid at q"
//! means: right magic, header checksum, own position q, and an epoch that is neither lower than the last valid one nor
//! higher than the manifest's, and not after the place where the segment ended, as the next segment's header says: what
//! stands there was cut off once. The search for q covers `SEARCH_BYTES` after p and the same of every later segment.
//!
//! | label       | found                                              | decision              | fault behind it |
//! | ----------- | -------------------------------------------------- | --------------------- | --------------- |
//! | whole       | valid at p, records match                          | replay, go on         | none |
//! | continues   | a valid q that starts a group, `previous_end` = p  | go on at q            | none: padding, a new segment, or the end of an earlier run |
//! | harmed      | valid at p, records do not match, and a valid q with `flushed_end` > p | replay the header only, report, go on after | damage of flushed bytes |
//! | lost        | nothing valid at p, and a valid q with `flushed_end` > p | report p..q, go on at q | damage of flushed bytes |
//! | known       | none of these, and p lies below what manifest or snapshots say was durable, or the next batch's place in what was given up | report p to there, go on there | damage of flushed bytes at the log's end, or `log repair` |
//! | torn        | none of these                                      | the log ends at p     | death before the flush: nothing here was answered as durable |
//! | outdated    | a header that is right but for an epoch higher than the manifest's | refuse to open | the manifest is of an earlier day (`outdated`) |
//! | newer       | right checksum, unknown version                    | refuse to open        | the directory was used by a newer release |
//! | unreadable  | the disk answers with an error                     | refuse to open        | a failing device |
//!
//! Before all that the files are held against what is known of them (`expectation`). What is missing, too short, too long
//! or another file is refused, with nothing changed; so is a log without its beginning or its end that no snapshot has
//! (`missing_part`). A start removes a file only when nothing was ever in it; a segment of
//! which every batch was cut off is moved aside.
//!
//! A batch with the flag `continues` (see `wire::batch`) is replayed together with the one after it; when the log ends
//! between the two, it ends before the first.
//!
//! `continues` is tried before the two kinds of damage. `flushed_end` > p proves that everything below it was flushed
//! before q was written, so p held a whole batch once. What `torn` cuts off is never seen again: the next run has a
//! higher epoch, and its first group says in `previous_end` where it took over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::commit_log::LogOptions;
use super::error::OpenError;
use super::expectation::{
    Facts, Known, LOOKED_AT_ONCE, Verdict, begin_segments, judge, list_log, look, own_manifest, secret_of,
    survey,
};
use super::manifest::{self, GivenUp, Holdings, Manifest};
use super::outdated::{LostManifest, OwnManifest};
use super::repair::AFTER_COPY_BYTES;
use super::scanner::{Limits, Padding, Scanned, Scanner, Used, look_through};
use super::segment::{
    FoundHeader, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, parse_segment_name, segment_name,
};
use super::supply::create_file;
use crate::disk::{Disk, DiskBuffer, DiskError, DiskFile, OpenMode, Operation};
use crate::limits::{BLOCK_BYTES, GROUP_BYTES_MAX, PLACED_BYTES_MAX, READ_BYTES};
use crate::types::{LogPosition, ShardId, Timestamp};
use crate::wire::batch::{BatchHeader, LogSecret};

/// How far after the expected place a proof is searched. What may be unflushed at once (two groups, each of which may
/// be one large batch, and the bytes whose flush was put off) is less than half of it.
pub const SEARCH_BYTES: u64 = 32 * 1024 * 1024;
const _: () = assert!(SEARCH_BYTES >= (2 * (GROUP_BYTES_MAX + PLACED_BYTES_MAX) + 8 * 1024 * 1024) as u64);
/// How far a segment whose start tells nothing is searched for batches: beyond the largest one.
const UNKNOWN_BYTES: u64 = 8 * 1024 * 1024;
const _: () = assert!(UNKNOWN_BYTES > PLACED_BYTES_MAX as u64);
/// The scan reads this much at once.
pub(super) const SCAN_BYTES: usize = 4 * READ_BYTES;

/// Gets every batch of the log in order.
pub trait Replay {
    /// The place to start from is not there, so everything comes from the beginning: forget the snapshot.
    fn restart(&mut self);
    /// A whole batch: header and all bytes.
    fn whole(&mut self, header: &BatchHeader, bytes: &[u8]);
    /// A batch of which only the header can be read; its records are damaged.
    fn harmed(&mut self, header: &BatchHeader);
    /// Something of the log is gone here, and what stood in it is not known.
    fn lost(&mut self, lost: Lost);
    /// Whether the next [`settle`](Self::settle) changes anything on the disk.
    fn has_to_write(&self) -> bool {
        false
    }
    /// Called every few hundred KiB of log: a chance to bring what was replayed to the disk.
    async fn settle(&mut self) -> Result<(), DiskError>;
}

/// Bytes of the log that are damaged, or were given up by an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    pub from: LogPosition,
    pub to: LogPosition,
    /// As many of them may have been stored.
    pub bytes: u64,
}

/// Where the replay starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest segment.
    Beginning,
    /// At the end of a batch that was durable, as a snapshot recorded it; `epoch` is that of the run, `newest` the
    /// store time that it had reached.
    Position { position: LogPosition, epoch: u32, newest: Timestamp },
}

/// Damage that the scan met: bytes that were flushed once and cannot be read now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub file: String,
    /// Position in the log.
    pub log_position: LogPosition,
    /// Position in the file.
    pub position: u64,
    pub bytes: u64,
}

impl fmt::Display for GivenUpRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, from, to, bytes } = self;
        write!(
            formatter,
            "log positions {from} to {to}, from {file} on, in which {bytes} bytes were or may have been"
        )
    }
}

/// What recovery found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of this start; 0 of a pass that is none.
    pub epoch: u32,
    /// End of the last batch of the log.
    pub end: LogPosition,
    pub batches: u64,
    pub bytes_scanned: u64,
    pub damage: Vec<Damage>,
    /// Whether bytes after the end were cut off.
    pub torn: bool,
    /// Whether the last batch's file ends where the next batch would be, or within it.
    pub is_cut: bool,
    /// The position to start from lies below the oldest segment, or not on a batch: all was replayed instead.
    pub start_missing: bool,
    /// What an operator gave up and retention has not passed yet: see `log repair`.
    pub given_up: Vec<GivenUpRange>,
    /// What was not as it should be, and was made good, each in a sentence.
    pub notices: Vec<String>,
}

/// A range of the log that is missing with the operator's consent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUpRange {
    pub file: String,
    pub from: LogPosition,
    pub to: LogPosition,
    /// What was or may have been stored there.
    pub bytes: u64,
}

impl GivenUpRange {
    /// Whether nobody knew how much was stored there: queues may have been begun in it.
    pub fn may_hold_queues(&self) -> bool {
        self.from <= LogPosition(SEGMENT_HEADER_BYTES as u64) || self.bytes >= AFTER_COPY_BYTES
    }
}

/// The result for [`super::CommitLog::open`].
pub(super) struct Recovered<D: Disk> {
    pub manifest: Manifest,
    pub segments: BTreeMap<LogPosition, Rc<Segment<D>>>,
    pub active_base: LogPosition,
    pub next_group: LogPosition,
    pub newest: Timestamp,
    pub spares: Vec<(PathBuf, u64)>,
    pub report: Report,
}

/// Opens every segment, advances the epoch, and replays from `start`. Refuses, with nothing changed, when what is there
/// contradicts what is `known`.
pub(super) async fn recover<D: Disk, R: Replay>(
    disk: &D,
    options: &LogOptions,
    known: &Known,
    start: StartAt,
    replay: &mut R,
) -> Result<Recovered<D>, OpenError> {
    if !known.is_made {
        disk.create_directory(&options.directory).await?;
    }
    let Opened { manifest: previous, mut segments, unfinished, verdict } =
        open_segments(disk, &options.directory, known, OpenMode::Existing).await?;
    if !verdict.contradictions.is_empty() {
        close_all(segments).await?;
        let directory = options.directory.clone();
        return Err(OpenError::Lacking { directory, contradictions: verdict.contradictions });
    }
    let limits = Limits {
        epoch_max: previous.current().map_or(0, |manifest| manifest.epoch),
        secret: previous.current().map_or(options.secret, |manifest| manifest.secret),
        reached: previous.reached(known),
        given_up: previous.given_up(),
        until: LogPosition(u64::MAX),
    };
    let has_segments = !verdict.used.is_empty();
    let mut replay = Careful { disk, options, known, has_segments, replay, advanced: None, failed: None };
    let scanned = Scanner::new(used_segments(&segments), limits, Padding::Skip).run(start, &mut replay).await;
    let (mut scanned, mut manifest) = replay.end(scanned).await?;
    date_segments(&segments, scanned.newest);
    let mut dropped = take_unused(&mut segments, scanned.report.end, manifest.secret).await?;
    dropped.extend(unfinished.into_iter().map(|path| Dropped { path, holds_batches: false }));
    if segments.is_empty() {
        // An unfinished file of the same name never held anything: it goes first.
        drop_unused(disk, options, std::mem::take(&mut dropped), &mut scanned.report).await?;
        let base = LogPosition(scanned.report.end.0.next_multiple_of(BLOCK_BYTES as u64));
        segments.insert(base, make_segment(disk, options, base).await?);
    }
    let (active, used) = {
        let (_, last) = segments.last_key_value().expect("there is a segment");
        (last.segment.clone(), last.used)
    };
    let block = BLOCK_BYTES as u64;
    let next_group =
        if used { LogPosition(scanned.report.end.0.next_multiple_of(block)) } else { active.base };
    rewrite_tail(disk, &segments, scanned.flushed_end, scanned.report.end).await?;
    // What was found may sit in the device's cache only: from here on it counts as flushed.
    for found in segments.values().rev().take(2) {
        found.segment.file.sync().await?;
    }
    let first = *segments.keys().next().expect("there is a segment");
    manifest.holdings = Some(holdings(first, &active, scanned.report.end, known));
    manifest.give_up(&[], first);
    manifest.write(disk, &options.directory, 2).await?;
    // Only now: a start that is cut off here must not ask for them.
    drop_unused(disk, options, dropped, &mut scanned.report).await?;
    active.file.keep_open();
    active.zeroed.set(next_group.since(active.base));
    let spares = spares(disk, options).await?;
    let report = &mut scanned.report;
    report.given_up = given_up_ranges(&manifest, &segments);
    report.notices.extend(half_manifest_notice(&previous, options));
    Ok(Recovered {
        manifest,
        active_base: active.base,
        next_group,
        segments: segments.into_iter().map(|(base, found)| (base, found.segment)).collect(),
        newest: scanned.newest,
        spares,
        report: scanned.report,
    })
}

/// What a log holds that begins at `first`, was read up to `reached`, and goes on in `active`.
fn holdings<D: Disk>(
    first: LogPosition,
    active: &Segment<D>,
    reached: LogPosition,
    known: &Known,
) -> Holdings {
    Holdings {
        first_base: first,
        last_base: active.base,
        last_bytes: active.bytes,
        reached,
        is_end: false,
        shard_count: known.shard_count,
    }
}

/// What an operator is told of a manifest that had one whole block only.
fn half_manifest_notice(previous: &OwnManifest, options: &LogOptions) -> Option<String> {
    previous.current().filter(|previous| previous.is_alone)?;
    let file = options.directory.join(super::manifest::NAME);
    Some(format!("{}: one of its two blocks was not whole, the other one counts", file.display()))
}

/// Makes the next epoch durable before the replay brings anything to the disk, since that carries it, and not before: a
/// scan that refuses what it meets leaves the manifest as it was, or start after start would bring an outdated one closer
/// to the log.
struct Careful<'a, D, R> {
    disk: &'a D,
    options: &'a LogOptions,
    known: &'a Known,
    has_segments: bool,
    replay: &'a mut R,
    advanced: Option<Manifest>,
    /// Why that could not be done, when it was not the disk that refused it.
    failed: Option<OpenError>,
}

impl<D: Disk, R> Careful<'_, D, R> {
    /// The manifest with the epoch of this start, durable.
    async fn manifest(&mut self) -> Result<Manifest, OpenError> {
        if self.advanced.is_none() {
            let LogOptions { directory, shard, secret, .. } = self.options;
            let fresh = (*secret, self.known.shard_count);
            let advanced = Manifest::advance(self.disk, directory, *shard, self.has_segments, fresh).await?;
            self.advanced = Some(advanced);
        }
        Ok(self.advanced.clone().expect("it was made above"))
    }

    /// The scan has ended, well or not.
    async fn end(mut self, scanned: Result<Scanned, OpenError>) -> Result<(Scanned, Manifest), OpenError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        Ok((scanned?, self.manifest().await?))
    }
}

impl<D: Disk, R: Replay> Replay for Careful<'_, D, R> {
    fn restart(&mut self) {
        self.replay.restart();
    }

    fn whole(&mut self, header: &BatchHeader, bytes: &[u8]) {
        self.replay.whole(header, bytes);
    }

    fn harmed(&mut self, header: &BatchHeader) {
        self.replay.harmed(header);
    }

    fn lost(&mut self, lost: Lost) {
        self.replay.lost(lost);
    }

    fn has_to_write(&self) -> bool {
        self.replay.has_to_write()
    }

    async fn settle(&mut self) -> Result<(), DiskError> {
        if self.replay.has_to_write() {
            match self.manifest().await {
                Ok(_) => {}
                Err(OpenError::Disk(error)) => return Err(error),
                Err(other) => {
                    let error = io::Error::other(other.to_string());
                    let path = self.options.directory.join(manifest::NAME);
                    self.failed = Some(other);
                    return Err(DiskError::from_io(Operation::Write, &path, None, &error));
                }
            }
        }
        self.replay.settle().await
    }
}

/// What was given up, by the file in which it stood.
fn given_up_ranges<D: Disk>(manifest: &Manifest, segments: &Segments<D>) -> Vec<GivenUpRange> {
    let range = |range: &GivenUp| {
        let holder = segments.range(..=range.from).next_back();
        let path = holder.map(|(_, found)| found.segment.path.display().to_string());
        let (from, to) = (range.from, range.to);
        GivenUpRange { file: path.unwrap_or_default(), from, to, bytes: range.bytes_from(from) }
    };
    let ranges = manifest.given_up.iter().map(range);
    // A place that was left free after the log's end is no loss.
    ranges.filter(|range| range.bytes > 0).collect()
}

/// The first segment of a log that has none.
async fn make_segment<D: Disk>(
    disk: &D,
    options: &LogOptions,
    base: LogPosition,
) -> Result<FoundSegment<D>, OpenError> {
    let path = options.directory.join(segment_name(base));
    create_file(disk, &options.directory, &path, options.segment_bytes).await?;
    disk.sync_directory(&options.directory).await?;
    let file = disk.open(&path, OpenMode::Existing).await?;
    let segment = Rc::new(Segment::new(base, options.segment_bytes, file, path));
    Ok(FoundSegment { segment, used: false, begun: None, previous_end: None, secret: None })
}

/// Reads a shard's log without changing anything, from its first batch to its end, and checks every byte that means
/// something. For tools; the shard must not be running. What of it is not there at all, [`contradictions`] says.
///
/// [`contradictions`]: super::expectation::contradictions
pub async fn scan<D: Disk, R: Replay>(
    disk: &D,
    directory: &Path,
    known: &Known,
    replay: &mut R,
) -> Result<Report, OpenError> {
    let Opened { manifest, segments, .. } = open_segments(disk, directory, known, OpenMode::ReadOnly).await?;
    // Without a manifest that counts the segments still tell.
    let named = segments.values().find_map(|found| found.secret);
    let limits = Limits {
        epoch_max: manifest.current().map_or(u32::MAX, |manifest| manifest.epoch),
        secret: manifest.found().map(|manifest| manifest.secret).or(named).unwrap_or_default(),
        reached: manifest.reached(known),
        given_up: manifest.given_up(),
        until: LogPosition(u64::MAX),
    };
    let used = used_segments(&segments);
    let mut report = Scanner::new(used, limits, Padding::Check).run(StartAt::Beginning, replay).await?.report;
    report.given_up = manifest.found().map_or(Vec::new(), |manifest| given_up_ranges(manifest, &segments));
    for found in segments.into_values() {
        let segment = &found.segment;
        if found.used && segment.bytes >= SEGMENT_HEADER_BYTES as u64 {
            let block = segment.file.read(0, SEGMENT_HEADER_BYTES).await?;
            let is_whole =
                SegmentHeader::is_zero_after(&block) && SegmentHeader::decode(&block) != FoundHeader::Other;
            if !is_whole {
                let file = segment.path.display().to_string();
                let (log_position, bytes) = (segment.base, SEGMENT_HEADER_BYTES as u64);
                report.damage.push(Damage { file, log_position, position: 0, bytes });
            }
        }
        close(found).await?;
    }
    Ok(report)
}

/// A segment's file as a start finds it.
struct FoundSegment<D: Disk> {
    segment: Rc<Segment<D>>,
    /// It holds batches; one that was only prepared does not.
    used: bool,
    /// Store time of its first batch, if that can be read.
    begun: Option<Timestamp>,
    /// Where the log ended before it, as its header says, or else its first batch.
    previous_end: Option<LogPosition>,
    /// The log's, as its header says.
    secret: Option<LogSecret>,
}

type Segments<D> = BTreeMap<LogPosition, FoundSegment<D>>;

fn used_segments<D: Disk>(segments: &Segments<D>) -> Vec<Used<D>> {
    // A file without so much as its header is as good as none: a check goes on after it.
    let is_there = |found: &&FoundSegment<D>| found.segment.bytes >= SEGMENT_HEADER_BYTES as u64;
    let used = segments.values().filter(|found| found.used).filter(is_there);
    used.map(|found| Used { segment: found.segment.clone(), previous_end: found.previous_end }).collect()
}

/// Tells segments that the replay did not visit how new they are: not newer than the first batch of the next one.
/// Retention goes by it; without it nothing from before a start would ever be removed. What stands in for all that there was
/// gets no age before something is stored after it: of age zero it would go at once, and what was given up with it.
fn date_segments<D: Disk>(segments: &Segments<D>, newest: Timestamp) {
    let mut bound = newest;
    for found in segments.values().rev().filter(|found| found.used) {
        if found.segment.newest.get().is_none() && bound > Timestamp(0) {
            found.segment.newest.set(Some(bound));
        }
        bound = found.begun.unwrap_or(bound);
    }
}

/// The segments' files, and what the witnesses say of them.
struct Opened<D: Disk> {
    manifest: OwnManifest,
    segments: Segments<D>,
    /// Files that never held anything, whose making was cut off.
    unfinished: Vec<PathBuf>,
    verdict: Verdict,
}

/// Opens the segments' files and reads how each begins.
async fn open_segments<D: Disk>(
    disk: &D,
    directory: &Path,
    known: &Known,
    mode: OpenMode,
) -> Result<Opened<D>, OpenError> {
    let manifest = Manifest::read(disk, directory).await?;
    // Without a log there are none, which the witnesses may contradict.
    let names = list_log(disk, directory).await?;
    let mut secret = manifest.as_ref().map(|manifest| manifest.secret);
    let mut files: BTreeMap<LogPosition, Segment<D>> = BTreeMap::new();
    let mut facts: BTreeMap<LogPosition, Facts> = BTreeMap::new();
    let bases: Vec<_> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    for some in bases.chunks(LOOKED_AT_ONCE) {
        for begun in begin_segments(disk, directory, some, mode).await? {
            let base = begun.segment.base;
            facts.insert(base, look(&begun, &mut secret).await?);
            files.insert(base, begun.segment);
        }
    }
    let is_there = names.iter().any(|name| name == manifest::NAME);
    let manifest = match own_manifest(directory, (manifest, is_there), &facts, known) {
        Ok(manifest) => manifest,
        Err(error) => {
            for segment in files.into_values() {
                segment.file.close().await?;
            }
            return Err(error);
        }
    };
    if let OwnManifest::Lost(LostManifest::Foreign { .. }) = manifest {
        // With its secret no batch of theirs can be told from any other bytes.
        secret = secret_of(&facts);
        facts = survey(disk, directory, secret).await?;
    }
    // A start has looked there before anything was changed, and its scan refuses what it meets.
    let manifest = match mode {
        OpenMode::ReadOnly => manifest.look_past_end(disk, directory, &facts, known).await?,
        _ => manifest,
    };
    let secret = manifest.found().map(|manifest| manifest.secret).or(secret);
    let verdict = judge(directory, &manifest, &facts, known);
    let mut segments = BTreeMap::new();
    let mut unfinished = Vec::new();
    for (base, mut segment) in files {
        let facts = &facts[&base];
        if verdict.unfinished.contains(&base) {
            segment.file.close().await?;
            unfinished.push(segment.path);
            continue;
        }
        let own = own_header(facts, base, known.shard, secret);
        let previous_end =
            own.map(|header| header.previous_end).or(facts.begun.map(|begun| begun.previous_end));
        segment.is_stand_in = own.is_some_and(|header| header.is_stand_in);
        let whole_blocks = segment.bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        segment.bytes = match own {
            Some(header) if header.is_stand_in => header.segment_bytes,
            _ => verdict.sizes.get(&base).map_or(whole_blocks, |bytes| whole_blocks.min(*bytes)),
        };
        // Something was stored after it: where nothing can be read of it, that is a hole in the log.
        let used = verdict.used.range(base..).next().is_some();
        let found = FoundSegment {
            segment: Rc::new(segment),
            used,
            begun: facts.begun.map(|begun| begun.store_time),
            previous_end,
            secret: own.map(|header| header.secret),
        };
        segments.insert(base, found);
    }
    Ok(Opened { manifest, segments, unfinished, verdict })
}

/// The file's header, if it is the one of this segment.
fn own_header(
    facts: &Facts,
    base: LogPosition,
    shard: ShardId,
    secret: Option<LogSecret>,
) -> Option<SegmentHeader> {
    let FoundHeader::Valid(header) = facts.header else { return None };
    ((header.base, header.shard, Some(header.secret)) == (base, shard.0, secret)).then_some(header)
}

async fn close_all<D: Disk>(segments: Segments<D>) -> Result<(), DiskError> {
    for found in segments.into_values() {
        close(found).await?;
    }
    Ok(())
}

async fn close<D: Disk>(found: FoundSegment<D>) -> Result<(), DiskError> {
    match Rc::into_inner(found.segment) {
        Some(segment) => segment.file.close().await,
        None => Ok(()),
    }
}

/// Whether batches stand in a segment whose start tells nothing. A file that was prepared and never used holds none that
/// fit their place; one whose first blocks were hit by a stray write does, and must not be taken for it.
pub(super) async fn holds_batches<D: Disk>(
    segment: &Segment<D>,
    secret: LogSecret,
) -> Result<bool, DiskError> {
    let found = look_through(
        segment,
        SEGMENT_HEADER_BYTES as u64,
        || UNKNOWN_BYTES,
        |piece| piece.headers(secret).next().map_or(ControlFlow::Continue(()), ControlFlow::Break),
    );
    Ok(found.await?.is_some())
}

/// Writes the bytes between what is known to be flushed and the log's end once more, as they were read. After a flush
/// that failed the system may read them back and never write them: the next flush would say yes without them. A death
/// meanwhile does no harm, since every byte stays what it was.
async fn rewrite_tail<D: Disk>(
    disk: &D,
    segments: &Segments<D>,
    flushed_end: LogPosition,
    end: LogPosition,
) -> Result<(), DiskError> {
    let block = BLOCK_BYTES as u64;
    let (from, to) = (flushed_end.0 / block * block, end.0.next_multiple_of(block));
    if flushed_end == end {
        return Ok(());
    }
    for Used { segment, .. } in used_segments(segments) {
        // There is nothing in it, and its blocks are not reserved.
        if segment.is_stand_in {
            continue;
        }
        let (start, stop) = (from.max(segment.base.0), to.min(segment.end().0));
        let mut at = start;
        while at < stop {
            let bytes = READ_BYTES.min((stop - at) as usize);
            let position = at - segment.base.0;
            let found = segment.file.read(position, bytes).await?;
            let mut buffer = disk.allocate(bytes);
            buffer.as_mut_slice().copy_from_slice(&found);
            segment.file.write(position, Rc::new(buffer)).await?;
            at += bytes as u64;
        }
    }
    Ok(())
}

/// Takes out the segments after the log's end: prepared ones, and those whose every batch was cut off. The one that
/// holds the end stays.
async fn take_unused<D: Disk>(
    segments: &mut Segments<D>,
    end: LogPosition,
    secret: LogSecret,
) -> Result<Vec<Dropped>, DiskError> {
    let mut dropped = Vec::new();
    while segments.len() > 1 {
        let (&base, _) = segments.last_key_value().expect("there are two");
        if base < end {
            break;
        }
        let (_, found) = segments.pop_last().expect("there are two");
        let path = found.segment.path.clone();
        let holds_batches = found.used && holds_batches(&found.segment, secret).await?;
        close(found).await?;
        dropped.push(Dropped { path, holds_batches });
    }
    Ok(dropped)
}

/// A segment after the log's end.
struct Dropped {
    path: PathBuf,
    /// Of which none was ever answered as durable; they are kept aside all the same.
    holds_batches: bool,
}

/// Removes the files of segments that never held anything, and moves aside what holds cut-off batches.
async fn drop_unused<D: Disk>(
    disk: &D,
    options: &LogOptions,
    dropped: Vec<Dropped>,
    report: &mut Report,
) -> Result<(), DiskError> {
    let (kept, empty): (Vec<_>, Vec<_>) = dropped.into_iter().partition(|dropped| dropped.holds_batches);
    let gone: BTreeSet<_> = empty.iter().map(|dropped| dropped.path.clone()).collect();
    for path in &gone {
        disk.remove(path).await?;
    }
    if !gone.is_empty() {
        disk.sync_directory(&options.directory).await?;
    }
    if !kept.is_empty() {
        let paths: Vec<_> = kept.into_iter().map(|dropped| dropped.path).collect();
        let aside = move_aside(disk, &options.directory, &paths).await?;
        let count = paths.len();
        report.notices.push(format!(
            "{count} segments of which every batch was cut off, since none was answered as durable, lie in {} now",
            aside.display()
        ));
    }
    Ok(())
}

/// Moves files of a log into a new folder beside the log's, and returns which.
pub async fn move_aside<D: Disk>(
    disk: &D,
    directory: &Path,
    paths: &[PathBuf],
) -> Result<PathBuf, DiskError> {
    let shard = directory.parent().unwrap_or(directory);
    let names = disk.list(shard).await?;
    let numbers = names.iter().filter_map(|name| name.strip_prefix("aside-")?.parse::<u64>().ok());
    let aside = shard.join(format!("aside-{}", numbers.max().map_or(0, |last| last + 1)));
    disk.create_directory(&aside).await?;
    disk.sync_directory(shard).await?;
    for path in paths {
        let name = path.file_name().expect("a file of the log has a name");
        disk.rename(path, &aside.join(name)).await?;
    }
    disk.sync_directory(&aside).await?;
    disk.sync_directory(directory).await?;
    Ok(aside)
}

/// What keeps a start from opening the files kept for reuse. Nothing is changed.
pub async fn check_spares<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<DiskError>, DiskError> {
    let mut refused = Vec::new();
    for name in list_log(disk, directory).await?.iter().filter(|name| name.starts_with("spare-")) {
        match disk.open(&directory.join(name), OpenMode::ReadOnly).await {
            Ok(file) => file.close().await?,
            Err(error) => refused.push(error),
        }
    }
    Ok(refused)
}

/// Files kept for reuse by an earlier run, with their sizes. Retention has passed what was in them.
async fn spares<D: Disk>(disk: &D, options: &LogOptions) -> Result<Vec<(PathBuf, u64)>, DiskError> {
    let names = disk.list(&options.directory).await?;
    let mut spares = Vec::new();
    for name in names.iter().filter(|name| name.starts_with("spare-")) {
        let path = options.directory.join(name);
        let file = disk.open(&path, OpenMode::Existing).await?;
        let bytes = file.size().await?;
        file.close().await?;
        if bytes == options.segment_bytes {
            spares.push((path, bytes));
        } else {
            disk.remove(&path).await?;
        }
    }
    Ok(spares)
}
