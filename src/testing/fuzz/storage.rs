//! What is read back from the disk: batches, state records, snapshots, and the log as a whole. Arbitrary bytes are
//! refused, and nothing is delivered that was not written.

use std::path::Path;
use std::rc::Rc;

use futures_lite::future::block_on;

use crate::broker::Snapshot;
use crate::disk::faulty::{FaultPlan, FaultyDisk};
use crate::disk::{Disk, DiskBuffer, DiskError, DiskFile, OpenMode};
use crate::limits::BLOCK_BYTES;
use crate::log::{Known, Lost, Replay, SEGMENT_HEADER_BYTES, scan, segment_name};
use crate::state::decode_changes;
use crate::testing::{Random, generators};
use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, ShardId, Timestamp, TopicId};
use crate::wire::batch::{BATCH_ALIGNMENT, BatchHeader, CheckedBatch, LogSecret, Placing};
use crate::wire::properties::{self, Properties};

const DIRECTORY: &str = "/log";
const SEGMENT_BYTES: usize = 256 * 1024;

/// Reads `bytes` as a batch from a client and as one from the log.
pub fn fuzz_batch(bytes: &[u8]) {
    if let Ok(batch) = CheckedBatch::check(bytes) {
        assert_eq!(batch.records().count(), batch.record_count() as usize, "every record can be read");
        assert_eq!(batch.as_bytes(), bytes);
    }
    if let Ok(header) = BatchHeader::decode(bytes) {
        assert!(header.record_count > 0, "a batch holds a record");
    }
}

/// Reads `bytes` as the text of properties: what is understood is written and read again.
pub fn fuzz_properties(bytes: &[u8]) {
    let read: Vec<_> = Properties::new(bytes).collect();
    let mut again = Vec::new();
    for (name, value) in &read {
        match properties::append(&mut again, name, value) {
            Ok(()) => {}
            Err(error) => return assert_eq!(error, properties::PropertyError::TooLarge),
        }
    }
    assert_eq!(Properties::new(&again).collect::<Vec<_>>(), read);
}

/// Reads `bytes` as changes of the broker's tables.
pub fn fuzz_changes(bytes: &[u8]) {
    let Ok(changes) = decode_changes(bytes) else { return };
    let mut again = Vec::new();
    changes.iter().for_each(|change| change.encode(&mut again));
    assert_eq!(decode_changes(&again), Ok(changes), "what was understood is written and read again");
}

/// Reads `bytes` as the file of a snapshot.
pub fn fuzz_snapshot(bytes: &[u8]) {
    let disk = FaultyDisk::new(0, FaultPlan::none());
    block_on(async {
        store(&disk, Path::new("/snapshot-0"), bytes).await.expect("a healthy disk");
        let read = Snapshot::read_newest(&disk, Path::new("/")).await.expect("a healthy disk");
        assert!(read.is_none_or(|read| read.tables.len() + read.index.len() <= bytes.len()));
    });
}

/// Writes a log, damages it, and walks over it: every batch that is delivered is one that was written there.
pub fn fuzz_log(seed: u64) {
    let mut random = Random::new(seed);
    let (mut bytes, batches) = image(&mut random);
    for _ in 0..random.index(12) {
        damage(&mut random, &mut bytes);
    }
    let disk = FaultyDisk::new(seed, FaultPlan::none());
    let path = Path::new(DIRECTORY).join(segment_name(LogPosition::ZERO));
    let mut written = Written { batches, delivered: LogPosition::ZERO };
    block_on(async {
        disk.create_directory(Path::new(DIRECTORY)).await.expect("a healthy disk");
        store(&disk, &path, &bytes).await.expect("a healthy disk");
        // Refusing is fine, and so is finding less; delivering something else is not.
        let _ = scan(&disk, Path::new(DIRECTORY), &Known::nothing(ShardId(0), 1), &mut written).await;
    });
}

/// What was written, to be held against what is delivered.
struct Written {
    batches: Vec<(LogPosition, Vec<u8>)>,
    delivered: LogPosition,
}

impl Replay for Written {
    fn restart(&mut self) {
        unreachable!("the scan starts at the beginning");
    }

    fn whole(&mut self, header: &BatchHeader, bytes: &[u8]) {
        let found = self.batches.iter().find(|(position, _)| *position == header.position);
        assert!(found.is_some_and(|(_, batch)| batch == bytes), "{} was not written", header.position);
        assert!(header.position > self.delivered, "{} came twice", header.position);
        self.delivered = header.position;
    }

    fn harmed(&mut self, header: &BatchHeader) {
        let found = self.batches.iter().any(|(position, _)| *position == header.position);
        assert!(found, "{} was not written", header.position);
    }

    fn lost(&mut self, _: Lost) {}

    async fn settle(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// A segment's bytes with groups of batches, and the batches.
fn image(random: &mut Random) -> (Vec<u8>, Vec<(LogPosition, Vec<u8>)>) {
    let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
    let mut batches = Vec::new();
    let (mut previous_end, mut epoch, mut offset) = (LogPosition::ZERO, 1, 0);
    for _ in 0..random.range(1..=8) {
        epoch += u32::from(random.chance(0.2));
        let mut end = previous_end;
        for _ in 0..random.range(1..=4) {
            let batch = generators::batch(&generators::messages(random, 4, 2000), Timestamp(1));
            let checked = CheckedBatch::check(&batch).expect("a valid batch");
            let placing = Placing {
                continues: false,
                position: LogPosition(bytes.len() as u64),
                previous_end,
                flushed_end: previous_end,
                epoch,
                key: QueueKey { topic: TopicId(1), queue: QueueNumber(0) },
                base_offset: QueueOffset(offset),
                store_time: Timestamp(offset),
            };
            offset += u64::from(checked.record_count());
            let mut header = checked.placed_header(&placing);
            // As a log has it whose manifest and segment header are lost.
            LogSecret::default().mix(&mut header);
            let stored = [&header[..], checked.payload()].concat();
            bytes.extend_from_slice(&stored);
            bytes.resize(bytes.len().next_multiple_of(BATCH_ALIGNMENT), 0);
            end = LogPosition(bytes.len() as u64);
            batches.push((placing.position, stored));
        }
        previous_end = end;
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    bytes.resize(bytes.len().max(SEGMENT_BYTES), 0);
    (bytes, batches)
}

/// Something that a device, or a program on it, may do to stored bytes.
fn damage(random: &mut Random, bytes: &mut [u8]) {
    let from = random.index(bytes.len());
    let to = (from + random.range(1..=6000) as usize).min(bytes.len());
    match random.index(4) {
        0 => bytes[from] ^= 1 << random.index(8),
        1 => bytes[from..to].fill(0),
        2 => random.fill(&mut bytes[from..to]),
        _ => {
            let block = from / BLOCK_BYTES * BLOCK_BYTES;
            let target = random.index(bytes.len() / BLOCK_BYTES) * BLOCK_BYTES;
            bytes.copy_within(block..block + BLOCK_BYTES, target);
        }
    }
}

async fn store(disk: &FaultyDisk, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let mut buffer = disk.allocate(bytes.len().max(1).next_multiple_of(BLOCK_BYTES));
    buffer.as_mut_slice().fill(0);
    buffer.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
    let file = disk.open(path, OpenMode::Create).await?;
    file.preallocate(buffer.as_slice().len() as u64).await?;
    file.write(0, Rc::new(buffer)).await?;
    file.close().await
}
