//! Bytes that are not what the index wrote: each is found, named, and harms nothing else.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures_lite::future::block_on;
use proptest::prelude::*;
use proptest::sample::Index as Pick;

use super::{ALL, DIRECTORY, grow, key, lookup, open, small};
use crate::disk::memory::MemoryDisk;
use crate::disk::{Disk, DiskBuffer, DiskFile, OpenMode};
use crate::index::block::BlockError;
use crate::index::error::SnapshotError;
use crate::index::{Index, IndexError};
use crate::types::{LogPosition, QueueOffset, Timestamp};

/// Changes the 4 KiB at `position` of a segment file.
fn tamper(disk: &MemoryDisk, file: &Path, position: u64, change: impl FnOnce(&mut [u8])) {
    block_on(async {
        let file = disk.open(file, OpenMode::Existing).await.expect("the segment is there");
        let mut buffer = disk.allocate(4096);
        buffer.as_mut_slice().copy_from_slice(&file.read(position, 4096).await.expect("read"));
        change(buffer.as_mut_slice());
        file.write(position, Rc::new(buffer)).await.expect("write");
        file.close().await.expect("close");
    });
}

fn segment(number: u32) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{number:010}.index"))
}

/// Two queues of which the second is whole in memory, and the snapshot after everything was spilled.
fn spilled(disk: &MemoryDisk) -> Vec<u8> {
    let index = open(disk, small(1), None);
    grow(&index, key(0), 0..100);
    grow(&index, key(1), 100..103);
    block_on(index.spill()).expect("spill");
    let snapshot = index.snapshot();
    block_on(index.sync()).expect("sync");
    block_on(index.close()).expect("close");
    snapshot
}

#[test]
fn a_damaged_block_is_named_by_file_and_position() {
    let disk = MemoryDisk::new();
    let snapshot = spilled(&disk);
    tamper(&disk, &segment(0), 4096, |bytes| bytes[100] ^= 1);
    let index = open(&disk, small(2), Some(&snapshot));
    let expected = IndexError::Damaged { file: segment(0), position: 4096, reason: BlockError::Checksum };
    assert_eq!(block_on(index.verify()), Err(expected.clone()));
    let met = (0..199).map(|offset| block_on(index.lookup(key(0), QueueOffset(offset), ALL)));
    let met: Vec<_> = met.collect();
    assert!(met.iter().any(|result| result.as_ref() == Err(&expected)), "some lookup needs the block");
    assert!(met[0].as_ref().is_ok_and(|entries| !entries.is_empty()), "what lies before is served");
    assert!(met[198].as_ref().is_ok_and(|entries| !entries.is_empty()), "what lies behind is served");
    assert_eq!(lookup(&index, key(1), 0, ALL).len(), 3, "another queue is served");
    assert_eq!(
        expected.to_string(),
        "/shard/index/0000000000.index: the index block at byte 4096: the checksum does not match"
    );
}

#[test]
fn a_block_in_the_wrong_place_is_not_taken() {
    let disk = MemoryDisk::new();
    let snapshot = spilled(&disk);
    let mut other = Vec::new();
    tamper(&disk, &segment(1), 0, |bytes| other = bytes.to_vec());
    tamper(&disk, &segment(0), 4096, |bytes| bytes.copy_from_slice(&other));
    let index = open(&disk, small(2), Some(&snapshot));
    let expected = IndexError::Damaged { file: segment(0), position: 4096, reason: BlockError::Identity };
    assert_eq!(block_on(index.verify()), Err(expected));
}

#[test]
fn a_lost_segment_is_damage_only_to_those_who_need_it() {
    let disk = MemoryDisk::new();
    let snapshot = spilled(&disk);
    block_on(disk.remove(&segment(0))).expect("remove");
    let index = open(&disk, small(2), Some(&snapshot));
    let error = block_on(index.lookup(key(0), QueueOffset(0), ALL)).expect_err("the block is gone");
    assert!(
        matches!(&error, IndexError::Damaged { file, reason: BlockError::Missing, .. } if *file == segment(0)),
        "{error}"
    );
    assert!(!lookup(&index, key(0), 198, ALL).is_empty());

    // As after a crash between the removal of old segments and the next snapshot: the owner trims first.
    let start = LogPosition(99_000);
    super::trim(&index, start);
    assert_eq!(block_on(index.find_time(key(0), Timestamp(0))), Ok(index.bounds(key(0)).expect("known").0));
    block_on(index.verify()).expect("nothing needs the lost segment");
}

#[test]
fn stale_blocks_of_a_lost_run_are_overwritten() {
    let disk = MemoryDisk::new();
    let index = open(&disk, small(1), None);
    grow(&index, key(0), 0..10);
    let snapshot = index.snapshot();
    grow(&index, key(0), 10..100);
    block_on(index.spill()).expect("spill");
    block_on(index.close()).expect("close");

    let index = open(&disk, small(2), Some(&snapshot));
    let mut entries = lookup(&index, key(0), 0, ALL);
    assert_eq!(entries.len(), 10);
    entries.extend(grow(&index, key(0), 50..200));
    block_on(index.spill()).expect("spill");
    assert_eq!(lookup(&index, key(0), 0, ALL), entries);
    block_on(index.verify()).expect("a whole index");
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_snapshot_is_refused() {
    let disk = MemoryDisk::new();
    let index = open(&disk, small(1), None);
    grow(&index, key(0), 0..14);
    index.ensure_queue(key(1));
    assert!(index.waiting_blocks() > 0, "blocks stand in the snapshot");
    let snapshot = index.snapshot();
    let refused = |bytes: &[u8]| {
        let opened = Index::open(disk.clone(), Path::new(DIRECTORY), small(2), Some(bytes));
        assert!(matches!(block_on(opened).err(), Some(IndexError::Snapshot(_))));
    };
    for end in 0..snapshot.len() {
        refused(&snapshot[..end]);
    }
    let mut longer = snapshot.clone();
    longer.push(0);
    refused(&longer);
    let mut flipped = snapshot.clone();
    for bit in 0..snapshot.len() * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(&flipped);
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_snapshot_of_this_epoch_or_a_later_one_is_refused() {
    let disk = MemoryDisk::new();
    let snapshot = spilled(&disk);
    let opened = Index::open(disk, Path::new(DIRECTORY), small(1), Some(&snapshot));
    let expected = SnapshotError::Epoch { snapshot: 1, current: 1 };
    assert_eq!(block_on(opened).err(), Some(IndexError::Snapshot(expected)));
}

#[test]
fn a_log_that_does_not_follow_the_snapshot_is_reported() {
    let disk = MemoryDisk::new();
    let snapshot = spilled(&disk);
    let index = open(&disk, small(2), Some(&snapshot));
    let (_, end) = index.bounds(key(0)).expect("known");
    let entry = super::entry(98, end.0 - 1);
    let expected = IndexError::Disagreement { key: key(0), base_offset: entry.base_offset, end };
    assert_eq!(index.replay(key(0), entry), Err(expected));
    assert_eq!(index.bounds(key(0)).expect("known").1, end);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A wrong content under a right checksum: nobody makes that by accident, but no byte of a file may cause a panic.
    #[test]
    fn a_snapshot_that_lies_is_an_error_and_no_panic(
        changes in prop::collection::vec((any::<Pick>(), prop_oneof![any::<u8>(), Just(0), Just(1), Just(255)]), 1..4),
        blocks in any::<bool>(),
    ) {
        let disk = MemoryDisk::new();
        let index = open(&disk, small(1), None);
        grow(&index, key(0), 0..30);
        grow(&index, key(1), 30..37);
        if !blocks {
            block_on(index.spill()).expect("spill");
        }
        let mut snapshot = index.snapshot();
        let content = snapshot.len() - 4;
        // The head is where the lies are that matter.
        let head = content.min(900);
        for (place, value) in changes {
            snapshot[16..head][place.index(head - 16)] = value;
        }
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&snapshot[40..content]), &snapshot[..40]);
        snapshot[content..].copy_from_slice(&checksum.to_le_bytes());
        let opened = Index::open(disk.clone(), Path::new(DIRECTORY), small(2), Some(&snapshot));
        if let Ok(index) = block_on(opened) {
            for queue in index.queues() {
                for offset in [0, 5, 25, 60, u64::MAX] {
                    let _ = block_on(index.lookup(queue, QueueOffset(offset), ALL));
                }
                let _ = block_on(index.find_time(queue, Timestamp(30)));
            }
            let _ = block_on(index.verify());
            let _ = block_on(index.trim(LogPosition(15_000)).step(9));
            for number in 100..200 {
                let (_, end) = index.bounds(key(0)).unwrap_or_default();
                let _ = index.replay(key(0), super::entry(number, end.0));
            }
            let _ = block_on(index.spill());
            let _ = block_on(index.verify());
        }
    }
}
