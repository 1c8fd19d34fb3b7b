//! A batch and the state batch after it are one step of the log, whatever stands at which block's border.

use std::path::Path;
use std::rc::Rc;

use futures_lite::future::block_on;
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::disk::{Disk, DiskBuffer, DiskError, DiskFile, OpenMode};
use turbopump::limits::BLOCK_BYTES;
use turbopump::log::{CommitLog, Lost, Replay, Report, StartAt, segment_name};
use turbopump::metrics::ShardMetrics;
use turbopump::testing::{SeededExecutor, generators};
use turbopump::types::{Level, LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};
use turbopump::wire::batch::{BATCH_HEADER_BYTES, BatchHeader, CheckedBatch, state_payload, stored_records};
use turbopump::wire::record::RECORD_HEADER_BYTES;

use super::node::log_options;

const KEY: QueueKey = QueueKey { topic: TopicId(1), queue: QueueNumber(0) };
const STATE: &[u8] = b"what belongs to the batch";

/// First bytes of what was replayed, and headers of harmed batches.
#[derive(Default)]
struct Recorder {
    whole: Vec<String>,
    harmed: usize,
}

impl Replay for Recorder {
    fn restart(&mut self) {}

    fn whole(&mut self, header: &BatchHeader, bytes: &[u8]) {
        let payload = match header.kind {
            turbopump::wire::batch::Kind::State => state_payload(bytes).to_vec(),
            _ => stored_records(bytes).next().expect("a record").body().to_vec(),
        };
        let name = payload.iter().take_while(|byte| byte.is_ascii_graphic()).take(8);
        self.whole.push(name.map(|byte| char::from(*byte)).collect());
    }

    fn harmed(&mut self, _: &BatchHeader) {
        self.harmed += 1;
    }

    fn lost(&mut self, _: Lost) {}

    async fn settle(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

type Log = CommitLog<FaultyDisk>;

fn directory() -> &'static Path {
    Path::new("/log")
}

/// Opens the log, does something with it, and stops it well.
fn session<T>(disk: &FaultyDisk, work: impl AsyncFnOnce(&Log) -> T) -> (Report, Recorder, T) {
    let executor = SeededExecutor::new(1);
    executor.run_until(async {
        let mut recorder = Recorder::default();
        let options = log_options(directory());
        let metrics = Rc::new(ShardMetrics::new());
        let clock = executor.shared_clock();
        let opened =
            CommitLog::open(disk.clone(), options, clock, metrics, StartAt::Beginning, &mut recorder);
        let (log, report) = opened.await.expect("a log");
        let committing = log.clone();
        let task = executor.spawn(async move { committing.run_commit(|| (), |_| ()).await });
        let result = work(&log).await;
        log.stop();
        task.await;
        log.close().await.expect("a healthy disk");
        (report, recorder, result)
    })
}

fn nothing() -> impl AsyncFnOnce(&Log) {
    async |_: &Log| ()
}

fn batch(name: &str, body_bytes: usize) -> Vec<u8> {
    let mut body = name.as_bytes().to_vec();
    body.resize(body_bytes.max(body.len()), 0);
    let message = generators::Message { body, ..Default::default() };
    generators::batch(&[message], Timestamp(1))
}

fn append(log: &Log, name: &str, level: Level) -> LogPosition {
    let bytes = batch(name, 0);
    let checked = CheckedBatch::check(&bytes).expect("a fresh batch");
    log.append_batch(&checked, KEY, QueueOffset::ZERO, level).expect("an empty log").end
}

async fn append_durable(log: &Log, name: &str) {
    let end = append(log, name, Level::Durable);
    log.watermarks().level_reached(Level::Durable, end).await.expect("a healthy disk");
}

/// The places of the pair's halves, and the end of the second.
#[derive(Clone, Copy, Debug)]
struct Pair {
    first: LogPosition,
    second: LogPosition,
    end: LogPosition,
}

/// A group of `before` and a pair whose first half has a body of this size.
async fn append_pair(log: &Log, body_bytes: usize) -> Pair {
    append(log, "before", Level::Accepted);
    let bytes = batch("first", body_bytes);
    let checked = CheckedBatch::check(&bytes).expect("a fresh batch");
    let step = (&checked, KEY, QueueOffset(1));
    let placed = log.append_step(step, Level::Durable, STATE.len(), |_| STATE.to_vec());
    let (first, second) = placed.expect("there is room");
    log.watermarks().level_reached(Level::Durable, second.end).await.expect("a healthy disk");
    assert_eq!(first.end, second.position);
    Pair { first: first.position, second: second.position, end: second.end }
}

/// Bodies of the first half: both in one block, the first ending on a block's border, one after it, over blocks.
fn bodies() -> Vec<usize> {
    let before = batch("before", 0).len().next_multiple_of(8);
    let to_border = BLOCK_BYTES - before - BATCH_HEADER_BYTES - RECORD_HEADER_BYTES;
    vec![100, to_border, to_border + 8, to_border - 48, to_border + BLOCK_BYTES, 9_000]
}

/// Zeros in place of everything from `cut` on, up to a block's border after `end`.
fn cut(disk: &FaultyDisk, cut: u64, end: u64) {
    block_on(async {
        let path = directory().join(segment_name(LogPosition(0)));
        let file = disk.open(&path, OpenMode::Existing).await.expect("a segment");
        let start = cut / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let bytes = end.next_multiple_of(BLOCK_BYTES as u64) - start;
        let found = file.read(start, bytes as usize).await.expect("a segment of that size");
        let mut buffer = disk.allocate(bytes as usize);
        buffer.as_mut_slice().fill(0);
        let kept = (cut - start) as usize;
        buffer.as_mut_slice()[..kept].copy_from_slice(&found[..kept]);
        file.write(start, Rc::new(buffer)).await.expect("a healthy disk");
        file.sync().await.expect("a healthy disk");
        file.close().await.expect("a healthy disk");
    });
}

fn fork(disk: &FaultyDisk) -> FaultyDisk {
    disk.outcome(Restart::ProcessKill, 1)
}

fn log_with_pair(body_bytes: usize) -> (FaultyDisk, Pair) {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let (_, _, pair) = session(&disk, async |log| append_pair(log, body_bytes).await);
    (disk, pair)
}

#[test]
fn a_pair_is_there_whole_or_not_at_all_wherever_the_log_was_cut() {
    for body_bytes in bodies() {
        let (disk, pair) = log_with_pair(body_bytes);
        if body_bytes == bodies()[1] {
            assert!(pair.second.0.is_multiple_of(BLOCK_BYTES as u64), "{pair:?}");
        }
        let points = (pair.first.0..pair.end.0).step_by(24).filter(|at| {
            let near = |place: LogPosition| at.abs_diff(place.0) <= 160;
            near(pair.first) || near(pair.second) || near(pair.end) || at % 1024 == 0
        });
        for point in points {
            let label = format!("body {body_bytes}, cut at {point} of {pair:?}");
            let disk = fork(&disk);
            cut(&disk, point, pair.end.0);
            // The last batch's padding may be lost without harm: it reads as it was.
            let (report, seen, ()) = session(&disk, nothing());
            assert_eq!(seen.whole, ["before"], "{label}");
            assert_eq!((report.end, report.batches, report.damage.len()), (pair.first, 1, 0), "{label}");
            // A run that goes on after the cut, and one that finds both.
            let (_, _, ()) = session(&disk, async |log| append_durable(log, "after").await);
            let (report, seen, ()) = session(&disk, async |log| append_durable(log, "later").await);
            assert_eq!(seen.whole, ["before", "after"], "{label}");
            assert_eq!((report.batches, report.damage.len(), report.torn), (2, 0, false), "{label}");
            let (report, seen, ()) = session(&disk, nothing());
            assert_eq!(seen.whole, ["before", "after", "later"], "{label}");
            assert_eq!((report.batches, report.torn), (3, false), "{label}");
        }
        let (_, seen, ()) = session(&disk, async |log| append_durable(log, "after").await);
        assert_eq!(seen.whole, ["before", "first", "what"], "body {body_bytes}");
        let (_, seen, ()) = session(&disk, nothing());
        assert_eq!(seen.whole, ["before", "first", "what", "after"], "body {body_bytes}");
    }
}

#[test]
fn a_flipped_bit_in_one_half_of_a_flushed_pair_leaves_the_other() {
    for body_bytes in bodies() {
        let (disk, pair) = log_with_pair(body_bytes);
        // Another run's batch vouches for the pair.
        session(&disk, async |log| {
            append_durable(log, "behind").await;
            append_durable(log, "last").await;
        });
        let name = directory().join(segment_name(LogPosition(0)));
        let state_end = pair.second.0 + (BATCH_HEADER_BYTES + STATE.len()) as u64;
        let header = BATCH_HEADER_BYTES as u64;
        let places = [
            (pair.first.0 + 1, vec!["before", "what", "behind", "last"], 0),
            (pair.first.0 + 40, vec!["before", "what", "behind", "last"], 0),
            (pair.first.0 + header + 30, vec!["before", "what", "behind", "last"], 1),
            (pair.second.0 + 2, vec!["before", "first", "behind", "last"], 0),
            (pair.second.0 + 50, vec!["before", "first", "behind", "last"], 0),
            (pair.second.0 + header + 1, vec!["before", "first", "behind", "last"], 1),
            (state_end - 1, vec!["before", "first", "behind", "last"], 1),
        ];
        for (byte, expected, harmed) in places {
            let label = format!("body {body_bytes}, byte {byte} of {pair:?}");
            let disk = fork(&disk);
            disk.flip_bit(&name, byte, 3);
            let (report, seen, ()) = session(&disk, async |log| append_durable(log, "more").await);
            assert_eq!(seen.whole, expected, "{label}");
            assert_eq!((report.damage.len(), seen.harmed, report.torn), (1, harmed, false), "{label}");
            let (_, seen, ()) = session(&disk, nothing());
            assert_eq!(seen.whole.last().map(String::as_str), Some("more"), "{label}");
        }
    }
}

#[test]
fn a_half_that_was_cut_off_does_not_come_back_when_the_batch_after_the_cut_is_damaged() {
    for body_bytes in bodies() {
        let (disk, pair) = log_with_pair(body_bytes);
        cut(&disk, pair.second.0, pair.end.0);
        let (_, _, ()) = session(&disk, async |log| {
            append(log, "after", Level::Accepted);
            append_durable(log, "witness").await;
            append_durable(log, "last").await;
        });
        let name = directory().join(segment_name(LogPosition(0)));
        let after = pair.first.0.next_multiple_of(BLOCK_BYTES as u64);
        for byte in [after + 1, after + 40, after + BATCH_HEADER_BYTES as u64 + 2] {
            let disk = fork(&disk);
            disk.flip_bit(&name, byte, 3);
            let (report, seen, ()) = session(&disk, nothing());
            let label = format!("body {body_bytes}, byte {byte} of {pair:?}");
            assert_eq!(seen.whole, ["before", "witness", "last"], "{label}");
            assert_eq!(report.damage.len(), 1, "{label}");
        }
    }
}
