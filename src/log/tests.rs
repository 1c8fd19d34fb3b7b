//! Logs made byte by byte, as deaths and damage at the wrong moments leave them.

use std::path::Path;
use std::rc::Rc;

use futures_lite::future::block_on;

use super::error::OpenError;
use super::expectation::Known;
use super::recovery::{Lost, Replay, Report, StartAt, scan};
use super::scanner::{Limits, Padding, Scanner, Used};
use super::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader, segment_name};
use crate::disk::memory::MemoryDisk;
use crate::disk::{Disk, DiskBuffer, DiskError, DiskFile, OpenMode};
use crate::limits::BLOCK_BYTES;
use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, ShardId, Timestamp, TopicId};
use crate::wire::batch::{BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, CheckedBatch, LogSecret, Placing};
use crate::wire::record::Record;

const DIRECTORY: &str = "/log";
const SEGMENT_BYTES: usize = 256 * 1024;
const SECRET: LogSecret = LogSecret(0xfeed);

/// A log's bytes.
struct Image {
    segments: Vec<Vec<u8>>,
}

/// Where a batch was put.
#[derive(Clone, Copy, Debug)]
struct Put {
    position: LogPosition,
    end: LogPosition,
}

impl Image {
    fn new(segments: usize) -> Self {
        Self { segments: vec![vec![0; SEGMENT_BYTES]; segments] }
    }

    fn header(&mut self, segment: usize, epoch: u32, previous_end: LogPosition) {
        let base = LogPosition((segment * SEGMENT_BYTES) as u64);
        let segment_bytes = SEGMENT_BYTES as u64;
        let header = SegmentHeader {
            base,
            segment_bytes,
            epoch,
            shard: 0,
            is_stand_in: false,
            previous_end,
            secret: SECRET,
        };
        header.encode(&mut self.segments[segment]);
    }

    /// Puts a batch with one record at a place in the log.
    fn batch(
        &mut self,
        at: u64,
        epoch: u32,
        previous_end: LogPosition,
        flushed_end: LogPosition,
        body: &[u8],
    ) -> Put {
        let mut builder = BatchBuilder::new(Timestamp(1));
        builder.push(&Record { body, ..Record::default() });
        let batch = builder.finish();
        let checked = CheckedBatch::check(&batch).expect("just made");
        let position = LogPosition(at);
        let placing = Placing { position, previous_end, flushed_end, epoch, ..placing(at) };
        let mut header = checked.placed_header(&placing);
        SECRET.mix(&mut header);
        let stored = [&header[..], checked.payload()].concat();
        let from = at as usize % SEGMENT_BYTES;
        self.segments[at as usize / SEGMENT_BYTES][from..from + stored.len()].copy_from_slice(&stored);
        Put { position, end: LogPosition((at + stored.len() as u64).next_multiple_of(8)) }
    }

    fn flip(&mut self, position: LogPosition) {
        self.segments[position.0 as usize / SEGMENT_BYTES][position.0 as usize % SEGMENT_BYTES] ^= 4;
    }

    /// Positions of the whole batches that a scan delivers, and its report.
    fn scan(&self) -> (Vec<LogPosition>, Report) {
        let mut found = Found::default();
        let known = Known::nothing(ShardId(0), 1);
        let report =
            block_on(async { scan(&self.disk().await, Path::new(DIRECTORY), &known, &mut found).await });
        (found.0, report.expect("a log"))
    }

    async fn disk(&self) -> MemoryDisk {
        let disk = MemoryDisk::new();
        disk.create_directory(Path::new(DIRECTORY)).await.expect("a healthy disk");
        for (bytes, base) in self.segments.iter().zip((0..).step_by(SEGMENT_BYTES)) {
            let path = Path::new(DIRECTORY).join(segment_name(LogPosition(base)));
            let file = disk.open(&path, OpenMode::Create).await.expect("a healthy disk");
            file.preallocate(SEGMENT_BYTES as u64).await.expect("a healthy disk");
            let mut buffer = disk.allocate(SEGMENT_BYTES);
            buffer.as_mut_slice().copy_from_slice(bytes);
            file.write(0, Rc::new(buffer)).await.expect("a healthy disk");
            file.close().await.expect("a healthy disk");
        }
        disk
    }

    /// A pass over the only segment, for a manifest that knows this epoch.
    fn pass(&self, epoch_max: u32) -> Result<Report, OpenError> {
        block_on(async {
            let disk = self.disk().await;
            let path = Path::new(DIRECTORY).join(segment_name(LogPosition::ZERO));
            let file = disk.open(&path, OpenMode::ReadOnly).await.expect("it is there");
            let segment = Rc::new(Segment::new(LogPosition::ZERO, SEGMENT_BYTES as u64, file, path));
            let used: Vec<Used<MemoryDisk>> = vec![Used { segment, previous_end: None }];
            let (reached, until) = (LogPosition::ZERO, LogPosition(u64::MAX));
            let limits = Limits { epoch_max, secret: SECRET, reached, given_up: Vec::new(), until };
            let mut found = Found::default();
            let passed = Scanner::new(used, limits, Padding::Skip).run(StartAt::Beginning, &mut found).await;
            passed.map(|passed| passed.report)
        })
    }
}

/// What a search for proofs finds of a later run ends the pass as well as what stands where the next batch is expected:
/// or it would be cut off.
#[test]
fn a_batch_of_a_later_run_after_a_hole_ends_the_pass() {
    let mut image = Image::new(1);
    image.header(0, 1, LogPosition::ZERO);
    let zero = LogPosition::ZERO;
    let first = image.batch(SEGMENT_HEADER_BYTES as u64, 1, zero, zero, b"known");
    let hole_end = block_after(first.end) + 3 * BLOCK_BYTES as u64;
    image.batch(hole_end, 2, LogPosition(hole_end), first.end, b"later");
    let refused = image.pass(1).expect_err("the manifest is older than the log").to_string();
    assert!(refused.contains("older than the log: it knows epoch 1"), "{refused}");
    assert!(image.pass(2).is_ok(), "it is not older");
}

fn placing(at: u64) -> Placing {
    Placing {
        position: LogPosition(at),
        previous_end: LogPosition::ZERO,
        flushed_end: LogPosition::ZERO,
        epoch: 1,
        key: QueueKey { topic: TopicId(1), queue: QueueNumber(0) },
        base_offset: QueueOffset(at),
        store_time: Timestamp(1),
        continues: false,
    }
}

#[derive(Default)]
struct Found(Vec<LogPosition>);

impl Replay for Found {
    fn restart(&mut self) {
        unreachable!("the scan starts at the beginning");
    }

    fn whole(&mut self, header: &BatchHeader, _: &[u8]) {
        self.0.push(header.position);
    }

    fn harmed(&mut self, _: &BatchHeader) {}

    fn lost(&mut self, _: Lost) {}

    async fn settle(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

fn block_after(position: LogPosition) -> u64 {
    position.0.next_multiple_of(BLOCK_BYTES as u64)
}

const FIRST: u64 = SEGMENT_HEADER_BYTES as u64;
const SECOND: u64 = SEGMENT_BYTES as u64 + FIRST;

/// A run dies with a tail of which only a later group is stored; the next run cuts it off, writes one group more, and
/// goes on in the next segment. So the stale group stands after the segment's last live one for ever.
struct Cut {
    image: Image,
    first: Put,
    second: Put,
    stale: Put,
    third: Put,
    fourth: Put,
}

fn cut(second_at: impl Fn(LogPosition) -> u64) -> Cut {
    let mut image = Image::new(2);
    image.header(0, 1, LogPosition::ZERO);
    let first = image.batch(FIRST, 1, LogPosition::ZERO, LogPosition::ZERO, b"first");
    let lost_end = LogPosition(first.end.0 + 40_000);
    let stale = image.batch(block_after(lost_end), 1, lost_end, first.end, b"never answered");
    let at = second_at(first.end);
    let second = image.batch(at, 2, first.end, first.end, b"second");
    let previous_end = if at < SECOND { second.end } else { first.end };
    image.header(1, 2, previous_end);
    let third_at = if at < SECOND { SECOND } else { block_after(second.end) };
    let third = image.batch(third_at, 2, second.end, second.end, b"third");
    let fourth = image.batch(block_after(third.end), 2, third.end, third.end, b"fourth");
    Cut { image, first, second, stale, third, fourth }
}

#[test]
fn what_was_cut_off_stays_dead_when_the_group_before_it_is_damaged() {
    for second_at in [block_after, |_| SECOND] {
        let Cut { image, first, second, stale, third, fourth } = cut(second_at);
        let all = [first, second, third, fourth].map(|put| put.position);
        assert_eq!(image.scan().0, all, "unharmed, with {stale:?} behind the end");
        for harmed in [second, third] {
            let mut image = Image { segments: image.segments.clone() };
            image.flip(harmed.position);
            let (found, report) = image.scan();
            let wanted: Vec<_> = all.into_iter().filter(|position| *position != harmed.position).collect();
            assert_eq!(found, wanted, "{harmed:?} is harmed");
            let (number, at) =
                (harmed.position.0 as usize / SEGMENT_BYTES, harmed.position.0 % SEGMENT_BYTES as u64);
            let named = report.damage.iter().any(|damage| {
                damage.file.ends_with(&segment_name(LogPosition((number * SEGMENT_BYTES) as u64)))
                    && (damage.position..damage.position + damage.bytes).contains(&at)
            });
            assert!(named && report.damage.len() == 1, "{harmed:?}: {:?}", report.damage);
        }
    }
}

/// A group whose header reached the disk without its records says where the one before it ended. The log was taken to end
/// after the padding then, and the padding for damage by the start after the next.
#[test]
fn a_torn_group_after_padding_leaves_the_end_at_the_last_batch() {
    let mut image = Image::new(1);
    image.header(0, 1, LogPosition::ZERO);
    let first = image.batch(FIRST, 1, LogPosition::ZERO, LogPosition::ZERO, b"first");
    let at = block_after(first.end);
    let torn = image.batch(at, 1, first.end, LogPosition::ZERO, b"torn");
    image.flip(LogPosition(torn.position.0 + BATCH_HEADER_BYTES as u64));
    let (found, report) = image.scan();
    assert_eq!((found, report.end, report.torn), (vec![first.position], first.end, true));
    // As the next run writes it.
    let second = image.batch(at, 2, report.end, report.end, b"second");
    let (found, report) = image.scan();
    assert_eq!((found, report.end), (vec![first.position, second.position], second.end));
    assert_eq!(report.damage, []);
}

#[test]
fn a_damaged_segment_header_changes_nothing() {
    for second_at in [block_after, |_| SECOND] {
        let Cut { mut image, first, second, third, fourth, .. } = cut(second_at);
        image.flip(LogPosition(SEGMENT_BYTES as u64));
        let (found, _) = image.scan();
        assert_eq!(found, [first, second, third, fourth].map(|put| put.position));
    }
}

#[test]
fn a_header_that_a_client_has_forged_is_not_believed() {
    let mut image = Image::new(1);
    image.header(0, 1, LogPosition::ZERO);
    let first = image.batch(FIRST, 1, LogPosition::ZERO, LogPosition::ZERO, b"first");
    // Clients are told where their batches are stored, so this one knows where the next one will be.
    let at = block_after(first.end);
    let mut body = vec![0; 3 * BLOCK_BYTES];
    for forged_at in (at + 2 * BATCH_HEADER_BYTES as u64..at + body.len() as u64 - 200).step_by(8).step_by(25)
    {
        let mut builder = BatchBuilder::new(Timestamp(1));
        builder.push(&Record { body: b"forged", ..Record::default() });
        let batch = builder.finish();
        let checked = CheckedBatch::check(&batch).expect("just made");
        let placing =
            Placing { previous_end: first.end, flushed_end: LogPosition(u64::MAX / 2), ..placing(forged_at) };
        let forged = [&checked.placed_header(&placing)[..], checked.payload()].concat();
        let record_header = image_body_offset();
        let from = (forged_at - at) as usize - record_header;
        body[from..from + forged.len()].copy_from_slice(&forged);
    }
    let host = image.batch(at, 1, first.end, first.end, &body);
    let last = image.batch(block_after(host.end), 1, host.end, host.end, b"last");
    assert_eq!(image.scan().0, [first, host, last].map(|put| put.position));
    image.flip(host.position);
    let (found, report) = image.scan();
    assert_eq!(found, [first, last].map(|put| put.position), "{:?}", report.damage);
}

/// Where a record's body starts within its batch, when it has nothing else.
fn image_body_offset() -> usize {
    let mut builder = BatchBuilder::new(Timestamp(1));
    builder.push(&Record { body: b"x", ..Record::default() });
    builder.finish().len() - 1
}

#[test]
fn a_segment_whose_start_is_destroyed_is_not_thrown_away() {
    let Cut { mut image, first, second, third, fourth, .. } = cut(block_after);
    let within = third.position.0 as usize % SEGMENT_BYTES;
    image.segments[1][..within + BATCH_HEADER_BYTES].fill(0);
    let (found, report) = image.scan();
    assert_eq!(found, [first, second, fourth].map(|put| put.position), "{:?}", report.damage);
    assert!(!report.damage.is_empty());
}
