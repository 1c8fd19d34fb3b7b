//! The index as a whole, over a disk in memory.

mod damage;
mod faults;
mod model;

use std::ops::Range;
use std::path::Path;

use futures_lite::future::{block_on, poll_once};

use super::sealed::Shape;
use super::*;
use crate::disk::Disk;
use crate::disk::memory::MemoryDisk;
use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};

const DIRECTORY: &str = "/shard/index";
const ALL: LookupMax = LookupMax { entries: usize::MAX, bytes: u64::MAX, records: u64::MAX };

fn key(queue: u32) -> QueueKey {
    QueueKey { topic: TopicId(3), queue: QueueNumber(queue) }
}

/// Small chunks and segments, so that a few hundred entries make a deep tree over several files.
fn small(epoch: u32) -> IndexOptions {
    let mut options = IndexOptions::new(epoch);
    options.segment_bytes = 8 * 4096;
    options.waiting_blocks_max = 16;
    options.cached_blocks_max = 4;
    options.shape = Shape { entries_max: 4, references_max: 3 };
    options
}

fn open(disk: &MemoryDisk, options: IndexOptions, snapshot: Option<&[u8]>) -> Index<MemoryDisk> {
    block_on(Index::open(disk.clone(), Path::new(DIRECTORY), options, snapshot)).expect("the index opens")
}

/// The `number`th batch of a queue whose batches have `number % 3 + 1` records of 100 bytes.
fn entry(number: u64, base_offset: u64) -> IndexEntry {
    IndexEntry {
        base_offset: QueueOffset(base_offset),
        record_count: (number % 3 + 1) as u32,
        position: LogPosition(number * 1000),
        batch_bytes: (number % 3 + 1) as u32 * 100,
        tag_summary: 1 << (number % 32),
        store_time: Timestamp(number / 5 * 10),
    }
}

/// Appends `count` batches to one queue, dense from its end.
fn grow<D: Disk>(index: &Index<D>, key: QueueKey, numbers: Range<u64>) -> Vec<IndexEntry> {
    let mut appended = Vec::new();
    for number in numbers {
        let (_, end) = index.bounds(key).unwrap_or_default();
        let entry = entry(number, end.0);
        index.append(key, entry);
        appended.push(entry);
    }
    appended
}

fn trim(index: &Index<MemoryDisk>, min_position: LogPosition) {
    let mut trim = index.trim(min_position);
    while block_on(trim.step(1)).expect("trim") == TrimProgress::More {}
}

fn lookup(index: &Index<MemoryDisk>, key: QueueKey, offset: u64, max: LookupMax) -> Vec<IndexEntry> {
    let found = block_on(index.lookup(key, QueueOffset(offset), max)).expect("a whole index");
    // What is at hand is the beginning of it.
    if let Some(at_hand) = index.lookup_at_hand(key, QueueOffset(offset), max) {
        assert_eq!(at_hand.is_empty(), found.is_empty());
        assert_eq!(at_hand[..], found[..at_hand.len()], "offset {offset}");
    }
    found
}

#[test]
fn entries_are_found_wherever_they_are() {
    let disk = MemoryDisk::new();
    let index = open(&disk, small(1), None);
    let mut entries = grow(&index, key(0), 0..150);
    block_on(index.spill()).expect("spill");
    assert_eq!(index.waiting_blocks(), 0);
    entries.extend(grow(&index, key(0), 150..210));
    assert!(index.waiting_blocks() > 0, "some blocks wait");
    assert_eq!(lookup(&index, key(0), 0, ALL), entries);
    let mut cold = 0;
    for (place, entry) in entries.iter().enumerate() {
        for offset in entry.base_offset.0..entry.end_offset().0 {
            let max = LookupMax { entries: 2, ..ALL };
            let expected = &entries[place..entries.len().min(place + 2)];
            let is_cold = index.lookup_at_hand(key(0), QueueOffset(offset), max).is_none();
            cold += u32::from(is_cold);
            assert_eq!(lookup(&index, key(0), offset, max), expected, "offset {offset}");
        }
    }
    assert!((1..420).contains(&cold), "some are at hand and some are not, {cold} of 420 offsets");
    assert!(lookup(&index, key(0), 420, ALL).is_empty());
    assert!(lookup(&index, key(1), 0, ALL).is_empty());
    block_on(index.close()).expect("close");
    assert_eq!(disk.open_files(), 0);
}

#[test]
fn a_lookup_stops_at_each_of_its_limits() {
    let index = open(&MemoryDisk::new(), small(1), None);
    let entries = grow(&index, key(0), 0..40);
    let count = |max| lookup(&index, key(0), 0, max).len();
    assert_eq!(count(LookupMax { entries: 7, ..ALL }), 7);
    assert_eq!(count(LookupMax { entries: 0, ..ALL }), 1, "the first always comes");
    assert_eq!(count(LookupMax { bytes: 99, ..ALL }), 1, "even when it is too large");
    // Batches of 100, 200, 300, 100 .. bytes.
    assert_eq!(count(LookupMax { bytes: 600, ..ALL }), 3);
    assert_eq!(count(LookupMax { bytes: 699, ..ALL }), 3);
    assert_eq!(count(LookupMax { bytes: 700, ..ALL }), 4);
    // Of 1, 2, 3, 1 .. records: a batch is whole or not there.
    assert_eq!(count(LookupMax { records: 3, ..ALL }), 2);
    assert_eq!(count(LookupMax { records: 4, ..ALL }), 3);
    // Offset 5 is the last record of the third batch.
    let max = LookupMax { records: 1, ..ALL };
    assert_eq!(lookup(&index, key(0), 5, max), entries[2..3]);
    let max = LookupMax { records: 2, ..ALL };
    assert_eq!(lookup(&index, key(0), 5, max), entries[2..4]);
}

#[test]
fn a_gap_leads_to_what_lies_after_it() {
    let index = open(&MemoryDisk::new(), small(1), None);
    // The gap stands between two blocks in one queue, and within one in the other.
    for (queue, before) in [(0, 0..4), (1, 0..6)] {
        grow(&index, key(queue), before);
        let (_, end) = index.bounds(key(queue)).expect("known");
        let behind = entry(100 + u64::from(queue), end.0 + 10);
        index.append(key(queue), behind);
        for offset in end.0..end.0 + 11 {
            assert_eq!(lookup(&index, key(queue), offset, ALL), [behind], "offset {offset}");
        }
    }
}

#[test]
fn a_queue_begins_where_its_first_batch_does_unless_it_was_known_before() {
    let index = open(&MemoryDisk::new(), small(1), None);
    assert_eq!(index.bounds(key(0)), None);
    index.append(key(0), entry(3, 1000));
    assert_eq!(index.bounds(key(0)), Some((QueueOffset(1000), QueueOffset(1001))));
    index.remove_queue(key(0));
    // What it had before is lost and was not removed: readers are to be told.
    index.ensure_queue(key(0));
    assert_eq!(index.bounds(key(0)), Some((QueueOffset(0), QueueOffset(0))));
    index.append(key(0), entry(6, 1000));
    assert_eq!(index.bounds(key(0)), Some((QueueOffset(0), QueueOffset(1001))));
    index.advance_first(key(0), QueueOffset(1000));
    index.begin_at(key(0), QueueOffset(900), LogPosition(0));
    assert_eq!(index.bounds(key(0)), Some((QueueOffset(900), QueueOffset(1001))));

    index.ensure_queue_at(key(1), QueueOffset(500));
    assert_eq!(index.bounds(key(1)), Some((QueueOffset(500), QueueOffset(500))));
    index.ensure_queue_at(key(1), QueueOffset(400));
    index.ensure_queue(key(1));
    assert_eq!(index.bounds(key(1)), Some((QueueOffset(500), QueueOffset(500))));
    assert_eq!(index.queues(), [key(0), key(1)]);
    index.remove_queue(key(0));
    assert_eq!(index.bounds(key(0)), None);
}

#[test]
#[should_panic(expected = "ends at 3")]
fn an_append_that_goes_back_is_a_programmers_error() {
    let index = open(&MemoryDisk::new(), small(1), None);
    grow(&index, key(0), 0..2);
    index.append(key(0), entry(2, 2));
}

#[test]
fn trimming_removes_the_segments_that_the_log_left_behind() {
    let disk = MemoryDisk::new();
    let index = open(&disk, small(1), None);
    grow(&index, key(0), 0..4);
    grow(&index, key(1), 4..400);
    block_on(index.spill()).expect("spill");
    let segments = || block_on(disk.list(Path::new(DIRECTORY))).expect("list").len();
    let before = segments();
    assert!(before > 10, "{before} segments");

    trim(&index, LogPosition(0));
    assert_eq!(segments(), before, "nothing lies before the log's start");
    trim(&index, LogPosition(200_000));
    assert!((before / 2 - 2..=before / 2 + 2).contains(&segments()), "half of {before}: {}", segments());
    assert_eq!(index.bounds(key(0)), Some((QueueOffset(7), QueueOffset(7))), "an empty queue keeps its end");
    assert_eq!(lookup(&index, key(1), 0, ALL)[0].position, LogPosition(200_000));
    block_on(index.verify()).expect("a whole index");

    trim(&index, LogPosition(1_000_000));
    assert_eq!(segments(), 1, "the current segment stays");
    let (first, end) = index.bounds(key(1)).expect("known");
    assert_eq!(first, end);
    let behind = entry(1_000, end.0);
    index.append(key(1), behind);
    assert_eq!(lookup(&index, key(1), 0, ALL), [behind]);
    block_on(index.close()).expect("close");
    assert_eq!(disk.open_files(), 0);
}

#[test]
fn an_overfull_index_is_relieved_by_spilling() {
    let index = open(&MemoryDisk::new(), small(1), None);
    assert!(!index.is_overfull() && !index.spill_needed());
    grow(&index, key(0), 0..100);
    assert!(index.is_overfull() && index.spill_needed());
    let mut relieved = Box::pin(index.relieved());
    assert!(block_on(poll_once(&mut relieved)).is_none());
    block_on(index.spill()).expect("spill");
    assert!(block_on(poll_once(&mut relieved)).is_some());
    assert!(!index.is_overfull());
}

#[test]
fn a_smaller_segment_size_holds_from_the_next_segment_on() {
    let disk = MemoryDisk::new();
    let index = open(&disk, small(1), None);
    let mut entries = grow(&index, key(0), 0..15);
    let snapshot = index.snapshot();
    block_on(index.close()).expect("close");
    let mut options = small(2);
    options.segment_bytes = 2 * 4096;
    let index = open(&disk, options, Some(&snapshot));
    entries.extend(grow(&index, key(0), 15..60));
    block_on(index.spill()).expect("spill");
    assert_eq!(lookup(&index, key(0), 0, ALL), entries);
    block_on(index.verify()).expect("a whole index");
}

#[test]
fn ten_thousand_queues_fit() {
    let index = open(&MemoryDisk::new(), IndexOptions::new(1), None);
    for queue in 0..10_000 {
        index.ensure_queue(key(queue));
    }
    let empty = index.memory_bytes() / 10_000;
    assert!(empty < 300, "an empty queue costs {empty} bytes");

    // 3 million batches, round robin.
    let mut waiting_most = 0;
    for round in 0..300 {
        for queue in 0..10_000 {
            index.append(key(queue), entry(round * 3, round));
        }
        if index.spill_needed() {
            waiting_most = waiting_most.max(index.waiting_blocks());
            block_on(index.spill()).expect("spill");
        }
    }
    assert!(waiting_most <= 1_000, "the queues seal at different times, but {waiting_most} blocks waited");
    let full = index.memory_bytes() / 10_000;
    assert!(full < 6 * 1024, "a queue of 300 batches costs {full} bytes");
    assert_eq!(lookup(&index, key(9_999), 150, LookupMax { entries: 1, ..ALL }), [entry(450, 150)]);
}
