//! What is read from the disk: several stretches at once, handed out where it lies, and checked.

use std::path::Path;
use std::rc::Rc;

use futures_lite::future::block_on;
use turbopump::disk::faulty::{FaultPlan, FaultyDisk};
use turbopump::disk::{Disk, DiskBuffer, DiskFile, OpenMode};
use turbopump::limits::{self, BLOCK_BYTES};
use turbopump::log::{CommitLog, Placement, StartAt, Want, segment_name};
use turbopump::metrics::ShardMetrics;
use turbopump::testing::{SeededExecutor, generators};
use turbopump::types::{Level, LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};
use turbopump::wire::batch::{BATCH_HEADER_BYTES, BatchHeader, CheckedBatch};

use super::checks::Nothing;
use super::node::log_options;

type Log = CommitLog<FaultyDisk>;

/// From less than a block to more than one read.
const BODIES: [usize; 7] = [90, 5_001, 20_002, 70_003, 17, 300_004, 40_005];

fn directory() -> &'static Path {
    Path::new("/log")
}

/// Runs `work` on a log that keeps nothing in memory, and on the batches that it holds, with their places.
fn on_log(disk: &FaultyDisk, work: impl AsyncFnOnce(&Log, &[(Vec<u8>, Placement)])) {
    let executor = SeededExecutor::new(3);
    executor.run_until(async {
        let options = log_options(directory());
        let (clock, metrics) = (executor.shared_clock(), Rc::new(ShardMetrics::new()));
        let mut nothing = Nothing;
        let opened = CommitLog::open(disk.clone(), options, clock, metrics, StartAt::Beginning, &mut nothing);
        let (log, _) = opened.await.expect("an empty disk");
        let committing = log.clone();
        let task = executor.spawn(async move { committing.run_commit(|| (), |_| ()).await });
        let mut placed = Vec::new();
        for (number, body_bytes) in BODIES.into_iter().cycle().take(70).enumerate() {
            let message = generators::Message { body: vec![number as u8; body_bytes], ..Default::default() };
            let bytes = generators::batch(&[message], Timestamp(1));
            let checked = CheckedBatch::check(&bytes).expect("a fresh batch");
            let key = QueueKey { topic: TopicId(1), queue: QueueNumber(0) };
            let place = log.append_batch(&checked, key, QueueOffset(number as u64), Level::Durable);
            let place = place.expect("there is room");
            log.watermarks().level_reached(Level::Durable, place.end).await.expect("a healthy disk");
            placed.push((bytes, place));
        }
        work(&log, &placed).await;
        log.stop();
        task.await;
        log.close().await.expect("a healthy disk");
    });
    assert_eq!(disk.abandoned_calls(), 0);
}

fn want((bytes, place): &(Vec<u8>, Placement)) -> Want {
    Want { position: place.position, batch_bytes: bytes.len() as u32 }
}

/// What an answer holds of these batches, checked against what was placed.
async fn check_read(log: &Log, chosen: &[&(Vec<u8>, Placement)], count: usize) {
    let wants: Vec<Want> = chosen.iter().map(|placed| want(placed)).collect();
    let (slices, outcome) = log.read_shared(&wants).await.expect("a disk that reads");
    assert_eq!(outcome.count, count);
    let mut copied = Vec::new();
    assert_eq!(log.read(&wants, &mut copied).await.expect("a disk that reads"), outcome);
    let parts: Vec<&[u8]> = slices.iter().map(|slice| &slice[..]).collect();
    let answer = parts.concat();
    assert_eq!(answer, copied);
    let mut at = 0;
    for (bytes, place) in &chosen[..count] {
        let header = BatchHeader::decode(&answer[at..]).expect("a header as it is handed out");
        assert_eq!(header.position, place.position);
        let end = at + bytes.len();
        assert_eq!(answer[at + BATCH_HEADER_BYTES..end], bytes[BATCH_HEADER_BYTES..]);
        at = end.next_multiple_of(8);
        assert!(answer[end..at].iter().all(|byte| *byte == 0), "padding");
    }
    assert_eq!(at, answer.len());
    match outcome.damaged {
        None => assert_eq!(count, chosen.len()),
        Some(damaged) => assert_eq!(damaged.position, chosen[count].1.position.0 % limits::SEGMENT_BYTES_MIN),
    }
}

/// Changes one byte of the log on the disk.
fn flip(disk: &FaultyDisk, position: LogPosition) {
    let base = position.0 / limits::SEGMENT_BYTES_MIN * limits::SEGMENT_BYTES_MIN;
    let (block, within) = ((position.0 - base) / BLOCK_BYTES as u64, position.0 as usize % BLOCK_BYTES);
    block_on(async {
        let path = directory().join(segment_name(LogPosition(base)));
        let file = disk.open(&path, OpenMode::Existing).await.expect("a segment");
        let at = block * BLOCK_BYTES as u64;
        let mut buffer = disk.allocate(BLOCK_BYTES);
        buffer.as_mut_slice().copy_from_slice(&file.read(at, BLOCK_BYTES).await.expect("a healthy disk"));
        buffer.as_mut_slice()[within] ^= 1;
        file.write(at, Rc::new(buffer)).await.expect("a healthy disk");
        file.close().await.expect("a healthy disk");
    });
}

#[test]
fn batches_of_all_sizes_are_handed_out_as_they_were_placed() {
    on_log(&FaultyDisk::new(1, FaultPlan::reordered()), async |log, placed| {
        for step in 1..10 {
            let chosen: Vec<_> = placed.iter().step_by(step).collect();
            check_read(log, &chosen, chosen.len()).await;
        }
    });
}

#[test]
fn a_damaged_batch_ends_a_read_and_those_before_it_are_handed_out() {
    let disk = FaultyDisk::new(2, FaultPlan::none());
    on_log(&disk, async |log, placed| {
        let chosen: Vec<_> = placed.iter().collect();
        for harmed in [66, 40, 26, 7, 0] {
            let (bytes, place) = &placed[harmed];
            flip(&disk, place.position.advance(bytes.len() as u64 / 2));
            check_read(log, &chosen, harmed).await;
        }
    });
}

#[test]
fn padding_is_handed_out_as_zeros_whatever_became_of_it() {
    let disk = FaultyDisk::new(3, FaultPlan::none());
    on_log(&disk, async |log, placed| {
        let padded = placed.iter().filter(|(bytes, _)| bytes.len() % 8 != 0);
        padded.for_each(|(bytes, place)| flip(&disk, place.position.advance(bytes.len() as u64)));
        let chosen: Vec<_> = placed.iter().collect();
        check_read(log, &chosen, chosen.len()).await;
    });
}
