//! The index as a whole, over a disk in memory.

mod model;

use std::path::Path;

use futures_lite::future::block_on;

use super::sealed::Shape;
use super::*;
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
fn grow(index: &Index<MemoryDisk>, key: QueueKey, numbers: std::ops::Range<u64>) -> Vec<IndexEntry> {
    let mut appended = Vec::new();
    for number in numbers {
        let (_, end) = index.bounds(key).unwrap_or_default();
        let entry = entry(number, end.0);
        index.append(key, entry);
        appended.push(entry);
    }
    appended
}

fn lookup(index: &Index<MemoryDisk>, key: QueueKey, offset: u64, max: LookupMax) -> Vec<IndexEntry> {
    block_on(index.lookup(key, QueueOffset(offset), max)).expect("a whole index")
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
    for (place, entry) in entries.iter().enumerate() {
        for offset in entry.base_offset.0..entry.end_offset().0 {
            let max = LookupMax { entries: 2, ..ALL };
            let expected = &entries[place..entries.len().min(place + 2)];
            assert_eq!(lookup(&index, key(0), offset, max), expected, "offset {offset}");
        }
    }
    assert!(lookup(&index, key(0), 420, ALL).is_empty());
    assert!(lookup(&index, key(1), 0, ALL).is_empty());
    block_on(index.close()).expect("close");
    assert_eq!(disk.open_files(), 0);
}
