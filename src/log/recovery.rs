//! Recovery: finding the log's end after any kind of death, and replaying what the snapshot does not hold.
//!
//! The scan walks batch by batch. At `p`, where the next batch is expected, the decision is this table. "Valid at q"
//! means: right magic, header checksum, own position q, and an epoch that is neither lower than the last valid one nor
//! higher than the manifest's. The search for q covers `SEARCH_BYTES` behind p and the same of every later segment.
//!
//! | label       | found                                              | decision              | fault behind it |
//! | ----------- | -------------------------------------------------- | --------------------- | --------------- |
//! | whole       | valid at p, records match                          | replay, go on         | none |
//! | continues   | a valid q with `previous_end` = p                  | go on at q            | none: padding, a new segment, or the end of an earlier run |
//! | harmed      | valid at p, records do not match, and a valid q with `flushed_end` > p | replay the header only, report, go on behind | damage of flushed bytes |
//! | lost        | nothing valid at p, and a valid q with `flushed_end` > p | report p..q, go on at q | damage of flushed bytes |
//! | torn        | none of these                                      | the log ends at p     | death before the flush: nothing here was answered as durable |
//! | newer       | right checksum, unknown version                    | refuse to open        | the directory was used by a newer release |
//! | unreadable  | the disk answers with an error                     | refuse to open        | a failing device |
//!
//! `continues` is tried before the two kinds of damage. `flushed_end` > p proves that everything below it was flushed
//! before q was written, so p held a whole batch once. What `torn` cuts off is never seen again: the next run has a
//! higher epoch, and its first group says in `previous_end` where it took over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use super::commit_log::LogOptions;
use super::error::OpenError;
use super::manifest::Manifest;
use super::segment::{
    FoundHeader, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, parse_segment_name, segment_name,
};
use super::supply::create_file;
use crate::disk::{Disk, DiskError, DiskFile, OpenMode};
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES, GROUP_BYTES_MAX, READ_BYTES};
use crate::types::{LogPosition, Timestamp};
use crate::wire::batch::{
    BATCH_ALIGNMENT, BATCH_HEADER_BYTES, BATCH_MAGIC, BatchError, BatchHeader, records_match,
};

/// How far behind the expected place a proof is searched. What may be unflushed at once (two groups, each of which may
/// be one large batch, and the bytes whose flush was put off) is less than half of it.
pub const SEARCH_BYTES: u64 = 32 * 1024 * 1024;
const _: () = assert!(SEARCH_BYTES >= (2 * (GROUP_BYTES_MAX + BATCH_BYTES_MAX) + 8 * 1024 * 1024) as u64);
/// The scan reads this much at once.
const SCAN_BYTES: usize = 4 * READ_BYTES;

/// Gets every batch of the log in order.
pub trait Replay {
    /// The place to start from is not there, so everything comes from the beginning: forget the snapshot.
    fn restart(&mut self);
    /// A whole batch: header and all bytes.
    fn whole(&mut self, header: &BatchHeader, bytes: &[u8]);
    /// A batch of which only the header can be read; its records are damaged.
    fn harmed(&mut self, header: &BatchHeader);
    /// Called every few hundred KiB of log: a chance to bring what was replayed to the disk.
    async fn settle(&mut self) -> Result<(), DiskError>;
}

/// Where the replay starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest segment.
    Beginning,
    /// At the end of a batch that was durable, as a snapshot recorded it; `epoch` is that of the run.
    Position { position: LogPosition, epoch: u32 },
}

/// Damage that the scan met: bytes that were flushed once and cannot be read now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub file: String,
    /// Position in the file.
    pub position: u64,
    pub bytes: u64,
}

/// What recovery found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// End of the last batch of the log.
    pub end: LogPosition,
    pub batches: u64,
    pub bytes_scanned: u64,
    pub damage: Vec<Damage>,
    /// Whether bytes behind the end were cut off.
    pub torn: bool,
    /// The position to start from lies below the oldest segment, or not on a batch: all was replayed instead.
    pub start_missing: bool,
}

/// The result for [`super::CommitLog::open`].
pub(super) struct Recovered<D: Disk> {
    pub epoch: u32,
    pub segments: BTreeMap<LogPosition, Rc<Segment<D>>>,
    pub active_base: LogPosition,
    pub next_group: LogPosition,
    pub newest: Timestamp,
    pub spares: Vec<(PathBuf, u64)>,
    pub report: Report,
}

/// Opens every segment, advances the epoch, and replays from `start`.
pub(super) async fn recover<D: Disk, R: Replay>(
    disk: &D,
    options: &LogOptions,
    start: StartAt,
    replay: &mut R,
) -> Result<Recovered<D>, OpenError> {
    disk.create_directory(&options.directory).await?;
    let names = disk.list(&options.directory).await?;
    let bases: Vec<_> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    let previous = Manifest::read(disk, &options.directory).await?;
    let mut segments = open_segments(disk, options, &bases).await?;
    let holds_batches = segments.values().any(|(_, used)| *used);
    // Before the replay: what it brings to the disk carries the new epoch.
    let manifest = Manifest::advance(disk, &options.directory, options.shard, holds_batches).await?;
    let epoch_max = previous.map_or(0, |manifest| manifest.epoch);
    let scanned = {
        let used = segments.values().filter(|(_, used)| *used).map(|(segment, _)| segment.clone()).collect();
        Scanner::new(used, epoch_max).run(start, replay).await?
    };
    drop_unused(disk, options, &mut segments, scanned.report.end).await?;
    if segments.is_empty() {
        let base = LogPosition(0);
        let path = options.directory.join(segment_name(base));
        create_file(disk, &options.directory, &path, options.segment_bytes).await?;
        disk.sync_directory(&options.directory).await?;
        let file = disk.open(&path, OpenMode::Existing).await?;
        segments.insert(base, (Rc::new(Segment::new(base, options.segment_bytes, file, path)), false));
    }
    let (active, used) =
        segments.last_key_value().map(|(_, entry)| entry.clone()).expect("there is a segment");
    let block = BLOCK_BYTES as u64;
    let next_group =
        if used { LogPosition(scanned.report.end.0.next_multiple_of(block)) } else { active.base };
    // What was found may sit in the device's cache only: from here on it counts as flushed.
    for (segment, _) in segments.values().rev().take(2) {
        segment.file.sync().await?;
    }
    active.zeroed.set(next_group.since(active.base));
    let spares = spares(disk, options, &names).await?;
    Ok(Recovered {
        epoch: manifest.epoch,
        active_base: active.base,
        next_group,
        segments: segments.into_iter().map(|(base, (segment, _))| (base, segment)).collect(),
        newest: scanned.newest,
        spares,
        report: scanned.report,
    })
}

type Segments<D> = BTreeMap<LogPosition, (Rc<Segment<D>>, bool)>;

/// Opens the segments' files and reads their headers. The flag tells a segment that holds batches from one that was
/// prepared and never used.
async fn open_segments<D: Disk>(
    disk: &D,
    options: &LogOptions,
    bases: &[LogPosition],
) -> Result<Segments<D>, OpenError> {
    let mut segments = BTreeMap::new();
    for &base in bases {
        let path = options.directory.join(segment_name(base));
        let file = disk.open(&path, OpenMode::Existing).await?;
        let bytes = file.size().await?;
        if bytes < 2 * SEGMENT_HEADER_BYTES as u64 || !bytes.is_multiple_of(BLOCK_BYTES as u64) {
            // A file whose making was cut off before its size was durable: it never held anything.
            file.close().await?;
            disk.remove(&path).await?;
            continue;
        }
        let block = file.read(0, SEGMENT_HEADER_BYTES).await?;
        let used = match SegmentHeader::decode(&block) {
            FoundHeader::Valid(header) if header.base == base && header.shard != options.shard.0 => {
                let file = path.display().to_string();
                return Err(OpenError::WrongShard { file, found: header.shard, expected: options.shard.0 });
            }
            FoundHeader::Valid(header) => header.base == base,
            FoundHeader::Newer(version) => {
                let file = path.display().to_string();
                return Err(OpenError::Newer { file, what: format!("segment version {version}") });
            }
            // Zeros, or a damaged header: batches that fit their place tell the two apart.
            FoundHeader::Other => holds_a_batch(&file, base).await?,
        };
        segments.insert(base, (Rc::new(Segment::new(base, bytes, file, path)), used));
    }
    Ok(segments)
}

/// Whether the first batch of a segment is there, although its header is not.
async fn holds_a_batch<F: DiskFile>(file: &F, base: LogPosition) -> Result<bool, DiskError> {
    let block = file.read(SEGMENT_HEADER_BYTES as u64, BLOCK_BYTES).await?;
    let position = base.advance(SEGMENT_HEADER_BYTES as u64);
    Ok(BatchHeader::decode(&block).is_ok_and(|header| header.position == position))
}

/// Forgets segments behind the log's end: prepared ones, and those whose every batch was cut off. The one that holds the
/// end stays.
async fn drop_unused<D: Disk>(
    disk: &D,
    options: &LogOptions,
    segments: &mut Segments<D>,
    end: LogPosition,
) -> Result<(), DiskError> {
    let mut removed = false;
    while segments.len() > 1 {
        let (&base, _) = segments.last_key_value().expect("there are two");
        if base < end {
            break;
        }
        let (_, (segment, _)) = segments.pop_last().expect("there are two");
        let segment = Rc::into_inner(segment).expect("the scan has let go of it");
        segment.file.close().await?;
        disk.remove(&segment.path).await?;
        removed = true;
    }
    if removed {
        disk.sync_directory(&options.directory).await?;
    }
    Ok(())
}

/// Files kept for reuse by an earlier run, with their sizes.
async fn spares<D: Disk>(
    disk: &D,
    options: &LogOptions,
    names: &[String],
) -> Result<Vec<(PathBuf, u64)>, DiskError> {
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

/// A pass over the log.
pub(super) struct Scanner<D: Disk> {
    segments: Vec<Rc<Segment<D>>>,
    epoch_max: u32,
    epoch_last: u32,
    newest: Timestamp,
    report: Report,
}

/// What a pass returns.
pub(super) struct Scanned {
    pub report: Report,
    pub newest: Timestamp,
}

/// Bytes of one segment around the place of the scan.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

/// What stands at the place where a batch is expected.
enum AtPlace {
    Whole(BatchHeader),
    Harmed(BatchHeader),
    Nothing,
}

/// What the search behind that place proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// The log goes on here.
    Continues(LogPosition),
    /// The expected place was flushed once; the next valid batch of all is here.
    Flushed(LogPosition),
    None {
        leftovers: bool,
    },
}

impl<D: Disk> Scanner<D> {
    pub fn new(segments: Vec<Rc<Segment<D>>>, epoch_max: u32) -> Self {
        let report = Report {
            end: LogPosition::ZERO,
            batches: 0,
            bytes_scanned: 0,
            damage: Vec::new(),
            torn: false,
            start_missing: false,
        };
        Self { segments, epoch_max, epoch_last: 0, newest: Timestamp(0), report }
    }

    /// Walks from `start` to the end of the log.
    pub async fn run<R: Replay>(mut self, start: StartAt, replay: &mut R) -> Result<Scanned, OpenError> {
        let Some(first) = self.segments.first() else {
            return Ok(Scanned { report: self.report, newest: self.newest });
        };
        let beginning = first.base.advance(SEGMENT_HEADER_BYTES as u64);
        let mut place = match start {
            StartAt::Position { position, epoch } if position >= beginning && self.holds(position) => {
                self.epoch_last = epoch;
                position
            }
            StartAt::Position { .. } => {
                self.report.start_missing = true;
                replay.restart();
                beginning
            }
            StartAt::Beginning => beginning,
        };
        let mut window = Window::default();
        let mut current = self.segment_for(place);
        let mut settled_at = place;
        while let Some(segment) = current.clone() {
            if place.since(settled_at) >= SCAN_BYTES as u64 {
                replay.settle().await?;
                settled_at = place;
            }
            place = match self.look(&segment, place, &mut window).await? {
                AtPlace::Whole(header) => {
                    let from = (place.since(segment.base) - window.start) as usize;
                    replay.whole(&header, &window.bytes[from..from + header.batch_bytes as usize]);
                    self.note(&segment, &header)
                }
                at_place => match self.search(place).await? {
                    Proof::Continues(next) => next,
                    Proof::Flushed(next) => self.skip_damage(&segment, place, next, at_place, replay),
                    Proof::None { leftovers } => {
                        self.report.torn = leftovers || matches!(at_place, AtPlace::Harmed(_));
                        break;
                    }
                },
            };
            if !segment.contains(place) {
                current = self.segment_for(place);
                window = Window::default();
            }
        }
        self.report.end = place;
        Ok(Scanned { report: self.report, newest: self.newest })
    }

    /// Takes note of a batch and returns the place behind it.
    fn note(&mut self, segment: &Segment<D>, header: &BatchHeader) -> LogPosition {
        self.epoch_last = header.epoch;
        self.newest = self.newest.max(header.store_time);
        segment.newest.set(Some(header.store_time));
        self.report.batches += 1;
        header.end_position()
    }

    fn skip_damage(
        &mut self,
        segment: &Segment<D>,
        place: LogPosition,
        next: LogPosition,
        at_place: AtPlace,
        replay: &mut impl Replay,
    ) -> LogPosition {
        let next = match at_place {
            AtPlace::Harmed(header) => {
                replay.harmed(&header);
                self.note(segment, &header)
            }
            AtPlace::Whole(_) | AtPlace::Nothing => next,
        };
        let bytes = next.min(segment.end()).since(place);
        let file = segment.path.display().to_string();
        self.report.damage.push(Damage { file, position: place.since(segment.base), bytes });
        next
    }

    fn holds(&self, position: LogPosition) -> bool {
        // The end of a segment's last batch may be the segment's end.
        self.segments.iter().any(|segment| segment.contains(position) || segment.end() == position)
    }

    /// The segment in which `place` lies; the very end of a segment belongs to it unless the next one follows there.
    fn segment_for(&self, place: LogPosition) -> Option<Rc<Segment<D>>> {
        let within = self.segments.iter().find(|segment| segment.contains(place));
        within.or_else(|| self.segments.iter().find(|segment| segment.end() == place)).cloned()
    }

    fn fits(&self, header: &BatchHeader, position: LogPosition) -> bool {
        header.position == position && (self.epoch_last..=self.epoch_max).contains(&header.epoch)
    }

    /// Decodes what stands at `place`.
    async fn look(
        &mut self,
        segment: &Segment<D>,
        place: LogPosition,
        window: &mut Window,
    ) -> Result<AtPlace, OpenError> {
        let at = place.since(segment.base);
        if at + BATCH_HEADER_BYTES as u64 > segment.bytes {
            return Ok(AtPlace::Nothing);
        }
        self.fill(segment, window, at, BATCH_HEADER_BYTES).await?;
        let from = (at - window.start) as usize;
        let header = match BatchHeader::decode(&window.bytes[from..]) {
            Ok(header) if self.fits(&header, place) => header,
            Err(reason @ (BatchError::Version(_) | BatchError::Kind(_) | BatchError::Flags(_))) => {
                let file = segment.path.display().to_string();
                return Err(OpenError::Newer { file, what: reason.to_string() });
            }
            _ => return Ok(AtPlace::Nothing),
        };
        if at + u64::from(header.batch_bytes) > segment.bytes {
            return Ok(AtPlace::Nothing);
        }
        self.fill(segment, window, at, header.batch_bytes as usize).await?;
        let from = (at - window.start) as usize;
        let whole = records_match(&window.bytes[from..from + header.batch_bytes as usize]);
        Ok(if whole { AtPlace::Whole(header) } else { AtPlace::Harmed(header) })
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
        if window.start <= at && at + bytes as u64 <= end {
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

    /// Looks behind `place` for a batch that proves what `place` is.
    async fn search(&mut self, place: LogPosition) -> Result<Proof, OpenError> {
        let mut leftovers = false;
        let mut nearest: Option<LogPosition> = None;
        let mut flushed = false;
        for index in 0..self.segments.len() {
            let segment = self.segments[index].clone();
            if segment.end() <= place {
                continue;
            }
            let from = place.0.max(segment.base.0 + SEGMENT_HEADER_BYTES as u64) - segment.base.0;
            let to = (from + SEARCH_BYTES).next_multiple_of(BLOCK_BYTES as u64).min(segment.bytes);
            let mut at = from / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
            let mut first_step = from;
            while at < to {
                let end = (at + SCAN_BYTES as u64).min(to);
                // A header may lie across the border of two steps.
                let read_end = (end + BLOCK_BYTES as u64).min(segment.bytes);
                let mut bytes = Vec::new();
                read_parallel(&segment, at, read_end, &mut bytes).await?;
                self.report.bytes_scanned += read_end - at;
                let base = segment.base.advance(at);
                for found in headers_in(&bytes, base, (first_step - at) as usize, (end - at) as usize) {
                    if found.position <= place || !self.fits(&found, found.position) {
                        continue;
                    }
                    leftovers = true;
                    if found.previous_end == place {
                        return Ok(Proof::Continues(found.position));
                    }
                    // Once a later batch vouches for the place, batches before that one are sound as well: they were
                    // flushed with it, and are still there.
                    nearest = nearest.or(Some(found.position));
                    flushed |= found.flushed_end > place;
                }
                if let (true, Some(next)) = (flushed, nearest) {
                    return Ok(Proof::Flushed(next));
                }
                at = end;
                first_step = end;
            }
        }
        Ok(Proof::None { leftovers })
    }
}

/// Valid headers that start in `from..to` of `bytes`; `base` is the log position of the first byte.
fn headers_in(
    bytes: &[u8],
    base: LogPosition,
    from: usize,
    to: usize,
) -> impl Iterator<Item = BatchHeader> + '_ {
    let from = from.next_multiple_of(BATCH_ALIGNMENT);
    (from..to.min(bytes.len())).step_by(BATCH_ALIGNMENT).filter_map(move |at| {
        if bytes.len() - at < BATCH_HEADER_BYTES || bytes[at..at + 4] != BATCH_MAGIC {
            return None;
        }
        let header = BatchHeader::decode(&bytes[at..]).ok()?;
        (header.position == base.advance(at as u64)).then_some(header)
    })
}

/// Appends `from..to` of the segment's file to `output`, with a few reads in flight.
async fn read_parallel<D: Disk>(
    segment: &Segment<D>,
    from: u64,
    to: u64,
    output: &mut Vec<u8>,
) -> Result<(), DiskError> {
    if from >= to {
        return Ok(());
    }
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
