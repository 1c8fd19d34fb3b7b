//! Recovery: finding the log's end after any kind of death, and replaying what the snapshot does not hold.
//!
//! The scan walks batch by batch. At `p`, where the next batch is expected, the decision is this table. "Valid at q"
//! means: right magic, header checksum, own position q, and an epoch that is neither lower than the last valid one nor
//! higher than the manifest's, and not behind the place where the segment ended, as the next segment's header says: what
//! stands there was cut off once. The search for q covers `SEARCH_BYTES` behind p and the same of every later segment.
//!
//! | label       | found                                              | decision              | fault behind it |
//! | ----------- | -------------------------------------------------- | --------------------- | --------------- |
//! | whole       | valid at p, records match                          | replay, go on         | none |
//! | continues   | a valid q that starts a group, `previous_end` = p  | go on at q            | none: padding, a new segment, or the end of an earlier run |
//! | harmed      | valid at p, records do not match, and a valid q with `flushed_end` > p | replay the header only, report, go on behind | damage of flushed bytes |
//! | lost        | nothing valid at p, and a valid q with `flushed_end` > p | report p..q, go on at q | damage of flushed bytes |
//! | torn        | none of these                                      | the log ends at p     | death before the flush: nothing here was answered as durable |
//! | newer       | right checksum, unknown version                    | refuse to open        | the directory was used by a newer release |
//! | unreadable  | the disk answers with an error                     | refuse to open        | a failing device |
//!
//! A batch with the flag `continues` (see `wire::batch`) is replayed together with the one behind it; when the log ends
//! between the two, it ends before the first.
//!
//! `continues` is tried before the two kinds of damage. `flushed_end` > p proves that everything below it was flushed
//! before q was written, so p held a whole batch once. What `torn` cuts off is never seen again: the next run has a
//! higher epoch, and its first group says in `previous_end` where it took over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::commit_log::LogOptions;
use super::error::OpenError;
use super::manifest::Manifest;
use super::scanner::{Padding, Scanner, Used, headers_in, read_parallel};
use super::segment::{
    FoundHeader, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, parse_segment_name, segment_name,
};
use super::supply::create_file;
use crate::disk::{Disk, DiskBuffer, DiskError, DiskFile, OpenMode};
use crate::limits::{BLOCK_BYTES, GROUP_BYTES_MAX, PLACED_BYTES_MAX, READ_BYTES};
use crate::types::{LogPosition, ShardId, Timestamp};
use crate::wire::batch::{BatchHeader, LogSecret};

/// How far behind the expected place a proof is searched. What may be unflushed at once (two groups, each of which may
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
    /// Called every few hundred KiB of log: a chance to bring what was replayed to the disk.
    async fn settle(&mut self) -> Result<(), DiskError>;
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
    pub place: LogPosition,
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
    pub secret: LogSecret,
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
    let secret = previous.map(|manifest| manifest.secret);
    let mut segments =
        open_segments(disk, &options.directory, options.shard, &bases, secret, Unfinished::Remove).await?;
    let holds_batches = segments.values().any(|found| found.used);
    // Before the replay: what it brings to the disk carries the new epoch.
    let manifest =
        Manifest::advance(disk, &options.directory, options.shard, holds_batches, options.secret).await?;
    let epoch_max = previous.map_or(0, |manifest| manifest.epoch);
    let scanned = {
        let used = used_segments(&segments);
        Scanner::new(used, epoch_max, manifest.secret, Padding::Skip).run(start, replay).await?
    };
    drop_unused(disk, options, &mut segments, scanned.report.end).await?;
    date_segments(&segments, scanned.newest);
    if segments.is_empty() {
        let base = LogPosition(0);
        let path = options.directory.join(segment_name(base));
        create_file(disk, &options.directory, &path, options.segment_bytes).await?;
        disk.sync_directory(&options.directory).await?;
        let file = disk.open(&path, OpenMode::Existing).await?;
        let segment = Rc::new(Segment::new(base, options.segment_bytes, file, path));
        let found = FoundSegment { segment, used: false, begun: None, previous_end: None, secret: None };
        segments.insert(base, found);
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
    active.zeroed.set(next_group.since(active.base));
    let spares = spares(disk, options, &names).await?;
    Ok(Recovered {
        epoch: manifest.epoch,
        secret: manifest.secret,
        active_base: active.base,
        next_group,
        segments: segments.into_iter().map(|(base, found)| (base, found.segment)).collect(),
        newest: scanned.newest,
        spares,
        report: scanned.report,
    })
}

/// Reads a shard's log without changing anything, from its first batch to its end, and checks every byte that means
/// something. For tools; the shard must not be running.
pub async fn scan<D: Disk, R: Replay>(
    disk: &D,
    directory: &Path,
    shard: ShardId,
    replay: &mut R,
) -> Result<Report, OpenError> {
    let names = disk.list(directory).await?;
    let bases: Vec<_> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    let manifest = Manifest::read(disk, directory).await?;
    let secret = manifest.map(|manifest| manifest.secret);
    let segments = open_segments(disk, directory, shard, &bases, secret, Unfinished::Leave).await?;
    let used = used_segments(&segments);
    let epoch_max = manifest.map_or(u32::MAX, |manifest| manifest.epoch);
    // Without a manifest the segments still tell.
    let secret = secret.or_else(|| segments.values().find_map(|found| found.secret)).unwrap_or_default();
    let mut report =
        Scanner::new(used, epoch_max, secret, Padding::Check).run(StartAt::Beginning, replay).await?.report;
    for FoundSegment { segment, used, .. } in segments.into_values() {
        let block = segment.file.read(0, SEGMENT_HEADER_BYTES).await?;
        let is_whole =
            SegmentHeader::is_zero_behind(&block) && SegmentHeader::decode(&block) != FoundHeader::Other;
        if used && !is_whole {
            let file = segment.path.display().to_string();
            let (place, bytes) = (segment.base, SEGMENT_HEADER_BYTES as u64);
            report.damage.push(Damage { file, place, position: 0, bytes });
        }
        if let Some(segment) = Rc::into_inner(segment) {
            segment.file.close().await?;
        }
    }
    Ok(report)
}

/// What to do with a segment whose making was cut off before its size was durable: it never held anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unfinished {
    Remove,
    Leave,
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
    let used = segments.values().filter(|found| found.used);
    used.map(|found| Used { segment: found.segment.clone(), previous_end: found.previous_end }).collect()
}

/// Tells segments that the replay did not visit how new they are: not newer than the first batch of the next one.
/// Retention goes by it; without it nothing from before a start would ever be removed.
fn date_segments<D: Disk>(segments: &Segments<D>, newest: Timestamp) {
    let mut bound = newest;
    for found in segments.values().rev().filter(|found| found.used) {
        if found.segment.newest.get().is_none() {
            found.segment.newest.set(Some(bound));
        }
        bound = found.begun.unwrap_or(bound);
    }
}

/// Opens the segments' files and reads how each begins.
async fn open_segments<D: Disk>(
    disk: &D,
    directory: &Path,
    shard: ShardId,
    bases: &[LogPosition],
    secret: Option<LogSecret>,
    unfinished: Unfinished,
) -> Result<Segments<D>, OpenError> {
    let mut secret = secret;
    let mut segments = BTreeMap::new();
    for &base in bases {
        let path = directory.join(segment_name(base));
        let mode = if unfinished == Unfinished::Leave { OpenMode::ReadOnly } else { OpenMode::Existing };
        let file = disk.open(&path, mode).await?;
        let bytes = file.size().await?;
        if bytes < 2 * SEGMENT_HEADER_BYTES as u64 || !bytes.is_multiple_of(BLOCK_BYTES as u64) {
            file.close().await?;
            if unfinished == Unfinished::Remove {
                disk.remove(&path).await?;
            }
            continue;
        }
        let blocks = file.read(0, SEGMENT_HEADER_BYTES + BLOCK_BYTES).await?;
        let header = SegmentHeader::decode(&blocks);
        let own = match header {
            FoundHeader::Valid(header) if header.base == base => Some(header),
            _ => None,
        };
        secret = secret.or(own.map(|header| header.secret));
        let begun = first_batch(&blocks, base, secret.unwrap_or_default());
        let used = match header {
            FoundHeader::Valid(header) if header.base == base && header.shard != shard.0 => {
                let file = path.display().to_string();
                return Err(OpenError::WrongShard { file, found: header.shard, expected: shard.0 });
            }
            FoundHeader::Valid(header) => header.base == base,
            FoundHeader::Newer(version) => {
                let file = path.display().to_string();
                return Err(OpenError::Newer { file, what: format!("segment version {version}") });
            }
            // Zeros, or a damaged header: batches that fit their place tell the two apart.
            FoundHeader::Other => begun.is_some(),
        };
        let segment = Rc::new(Segment::new(base, bytes, file, path));
        let previous_end = own.map(|header| header.previous_end).or(begun.map(|begun| begun.previous_end));
        let used = used || holds_batches(&segment, secret.unwrap_or_default()).await?;
        let begun = begun.map(|begun| begun.store_time);
        let secret = own.map(|header| header.secret);
        segments.insert(base, FoundSegment { segment, used, begun, previous_end, secret });
    }
    Ok(segments)
}

/// Whether batches stand in a segment whose start tells nothing. A file that was prepared and never used holds none that
/// fit their place; one whose first blocks were hit by a stray write does, and must not be taken for it.
async fn holds_batches<D: Disk>(segment: &Segment<D>, secret: LogSecret) -> Result<bool, DiskError> {
    let end = UNKNOWN_BYTES.min(segment.bytes);
    for at in (0..end).step_by(SCAN_BYTES) {
        let to = (at + (SCAN_BYTES + BLOCK_BYTES) as u64).min(segment.bytes);
        let mut bytes = Vec::new();
        read_parallel(segment, at, to, &mut bytes).await?;
        let from = if at == 0 { SEGMENT_HEADER_BYTES } else { 0 };
        if headers_in(&bytes, segment.base.advance(at), secret, from..SCAN_BYTES).next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The segment's first batch, if one stands where it belongs.
fn first_batch(blocks: &[u8], base: LogPosition, secret: LogSecret) -> Option<BatchHeader> {
    let header = BatchHeader::decode_stored(&blocks[SEGMENT_HEADER_BYTES..], secret).ok()?;
    (header.position == base.advance(SEGMENT_HEADER_BYTES as u64)).then_some(header)
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
        let (_, FoundSegment { segment, .. }) = segments.pop_last().expect("there are two");
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
