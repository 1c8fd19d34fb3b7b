//! Bits that flip at rest in a segment that was sealed and flushed: found by reading and by the check of the log, with
//! their place; everything around them is served; a restart cuts nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures_lite::future::block_on;
use turbopump::api::Filter;
use turbopump::broker::{Pull, StoredRecord, Taker};
use turbopump::disk::DiskError;
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::log::{Known, Lost, Replay, Report, scan, segment_name};
use turbopump::testing::Random;
use turbopump::types::{Level, LogPosition, QueueKey, QueueNumber, QueueOffset, ShardId};
use turbopump::wire::batch::{BATCH_HEADER_BYTES, BatchHeader, Kind};

use super::checks::remove_derived;
use super::node::{Node, Setup, log_directory, on_node};
use super::sweep::stride;
use super::workload::{Books, create, produce, produce_sized};

#[derive(Default)]
struct Recorder(Vec<BatchHeader>);

impl Replay for Recorder {
    fn restart(&mut self) {
        self.0.clear();
    }

    fn whole(&mut self, header: &BatchHeader, _: &[u8]) {
        self.0.push(*header);
    }

    fn harmed(&mut self, _: &BatchHeader) {}

    fn lost(&mut self, _: Lost) {}

    async fn settle(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

fn check_log(disk: &FaultyDisk) -> (Report, Vec<BatchHeader>) {
    let mut recorder = Recorder::default();
    let report = block_on(scan(disk, &log_directory(0), &Known::nothing(ShardId(0), 1), &mut recorder))
        .expect("a log");
    (report, recorder.0)
}

/// A log of two sealed segments and one in use, and its batches.
fn log() -> (FaultyDisk, Vec<BatchHeader>) {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let books: Books = Rc::new(RefCell::default());
    let made = on_node(&disk, &Setup::default(), 1, async |node| {
        let topic = create(node, &books, "t", 2).await.expect("a topic").id;
        let key = |queue| QueueKey { topic, queue: QueueNumber(queue) };
        for round in 0..3 {
            node.clock.sleep(std::time::Duration::from_secs(2)).await;
            // Several batches in one group: only the last of them waits for the flush.
            for number in 0..12 {
                let level = if number % 4 == 3 { Level::Durable } else { Level::Accepted };
                let seed = round * 100 + number;
                produce(node, &books, key((number % 2) as u32), Some(level), seed, 900)
                    .await
                    .expect("healthy");
            }
            for number in 0..4 {
                produce_sized(node, &books, key(0), Some(Level::Durable), number, 3_900_000)
                    .await
                    .expect("healthy");
            }
        }
        // For the checkpoint of the segment in use.
        node.clock.sleep(std::time::Duration::from_secs(2)).await;
    });
    made.expect("an empty disk");
    let (report, batches) = check_log(&disk);
    assert!(report.damage.is_empty() && !report.torn, "{report:?}");
    assert!(report.end.0 > 2 * Setup::default().segment_bytes, "two segments are sealed");
    (disk, batches)
}

/// Base offsets served, and the places that were reported as damaged.
async fn served(node: &Node) -> (BTreeMap<QueueKey, Vec<QueueOffset>>, usize) {
    let mut all = BTreeMap::new();
    let mut damaged = 0;
    for key in super::checks::live_queues(node) {
        let (mut offset, _) = node.owner(key).index().bounds(key).expect("a queue");
        let found: &mut Vec<_> = all.entry(key).or_default();
        loop {
            let fetched = node.fetch(key, offset).await.expect("reads are served");
            if offset == fetched.end_offset {
                break;
            }
            damaged += usize::from(fetched.damaged.is_some());
            let mut rest = &fetched.batches[..];
            while !rest.is_empty() {
                let header = BatchHeader::decode(rest).expect("only whole batches are served");
                found.push(header.base_offset);
                rest = &rest[((header.batch_bytes as usize).next_multiple_of(8)).min(rest.len())..];
            }
            assert!(fetched.next_offset > offset, "{key}: stuck at {offset}");
            offset = fetched.next_offset;
        }
    }
    (all, damaged)
}

/// Takes a few messages, and keeps their offsets.
struct Few(Vec<QueueOffset>);

impl Few {
    const COUNT: usize = 3;
}

impl Taker for Few {
    fn missing(&self) -> usize {
        Self::COUNT - self.0.len()
    }

    fn take(&mut self, stored: &StoredRecord<'_>) -> bool {
        self.0.push(stored.offset);
        true
    }
}

/// Offsets of the messages that are given to who pulls a few at a time.
async fn pulled(node: &Node) -> BTreeMap<QueueKey, Vec<QueueOffset>> {
    let mut all = BTreeMap::new();
    for key in super::checks::live_queues(node) {
        let broker = node.owner(key);
        let span = broker.queue_span(key).expect("a queue");
        let found: &mut Vec<_> = all.entry(key).or_default();
        let mut next = span.first;
        while next < span.end {
            let pull = Pull { key, offset: next, filter: &Filter::default() };
            let mut few = Few(Vec::new());
            let pulled = match broker.pull_now(&pull, &mut few).expect("reads are served") {
                Some(pulled) => pulled,
                None => broker.pull(&pull, &mut few).await.expect("reads are served"),
            };
            assert!(pulled.next > next, "{key}: stuck at {next}");
            next = pulled.next;
            found.extend(few.0);
        }
    }
    all
}

/// The offsets of what some batches hold.
fn messages_of(
    batches: &[BatchHeader],
    wanted: &BTreeMap<QueueKey, Vec<QueueOffset>>,
) -> BTreeMap<QueueKey, Vec<QueueOffset>> {
    let messages = |key: &QueueKey, base: &QueueOffset| {
        let batch = batches.iter().find(|batch| batch.key == *key && batch.base_offset == *base);
        let count = u64::from(batch.expect("it is one of them").record_count);
        let base = *base;
        (0..count).map(move |number| base.advance(number))
    };
    let of_queue = |(key, bases): (&QueueKey, &Vec<QueueOffset>)| {
        (*key, bases.iter().flat_map(|base| messages(key, base)).collect())
    };
    wanted.iter().map(of_queue).collect()
}

/// What a byte belongs to.
fn holder(batches: &[BatchHeader], byte: u64) -> Option<&BatchHeader> {
    batches
        .iter()
        .find(|batch| (batch.position.0..batch.position.0 + u64::from(batch.batch_bytes)).contains(&byte))
}

fn expected(batches: &[BatchHeader], hit: Option<&BatchHeader>) -> BTreeMap<QueueKey, Vec<QueueOffset>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for batch in batches.iter().filter(|batch| batch.kind == Kind::Messages) {
        let offsets = all.entry(batch.key).or_default();
        if hit.is_none_or(|hit| hit.position != batch.position) {
            offsets.push(batch.base_offset);
        }
    }
    all
}

fn check(clean: &FaultyDisk, batches: &[BatchHeader], byte: u64, bit: u8) {
    let segment_bytes = Setup::default().segment_bytes;
    let base = byte / segment_bytes * segment_bytes;
    let name = segment_name(LogPosition(base));
    let disk = clean.outcome(Restart::ProcessKill, byte);
    disk.flip_bit(&log_directory(0).join(&name), byte - base, bit);
    let hit = holder(batches, byte);
    let label = format!("byte {byte}, bit {bit}, in {hit:?}");

    let (report, _) = check_log(&disk);
    let named = report.damage.iter().any(|damage| {
        let range = damage.position..damage.position + damage.bytes;
        damage.file.ends_with(&name) && range.contains(&(byte - base))
    });
    assert!(named, "{label}: {:?}", report.damage);
    assert_eq!(report.damage.len(), 1, "{label}: {:?}", report.damage);

    let wanted = expected(batches, hit);
    let is_message = hit.is_some_and(|hit| hit.kind == Kind::Messages);
    for bare in [false, true] {
        let disk = disk.outcome(Restart::ProcessKill, byte);
        if bare {
            remove_derived(&disk, &Setup::default());
        }
        let seen =
            on_node(&disk, &Setup::default(), 2, async |node| (served(node).await, pulled(node).await));
        let ((seen, damaged), pulled) = seen.unwrap_or_else(|error| panic!("{label}, bare {bare}: {error}"));
        assert_eq!(seen, wanted, "{label}, bare {bare}");
        assert_eq!(pulled, messages_of(batches, &wanted), "{label}, bare {bare}");
        // The first batch of a queue leaves no trace in an index that is built without it.
        let is_first = hit.is_some_and(|hit| hit.base_offset == QueueOffset::ZERO);
        assert!(damaged == usize::from(is_message) || (bare && is_first), "{label}, bare {bare}: {damaged}");
    }
}

#[test]
fn any_flipped_bit_of_a_sealed_segment_is_found_and_cuts_nothing() {
    let (disk, batches) = log();
    let segment_bytes = Setup::default().segment_bytes;
    let sealed: Vec<_> = batches.iter().filter(|batch| batch.position.0 < 2 * segment_bytes).collect();
    let mut random = Random::new(1);
    let mut bytes = vec![0, 5, 9, 24, 33, 36, 1000, 4095, segment_bytes, segment_bytes + 17];
    for batch in &sealed {
        let start = batch.position.0;
        bytes.push(start + random.range(0..BATCH_HEADER_BYTES as u64));
        bytes.push(start + random.range(BATCH_HEADER_BYTES as u64..u64::from(batch.batch_bytes)));
    }
    // Every byte of one header, and all kinds of padding.
    bytes.extend((0..BATCH_HEADER_BYTES as u64).step_by(3).map(|at| sealed[4].position.0 + at));
    for pair in sealed.windows(2) {
        let end = pair[0].position.0 + u64::from(pair[0].batch_bytes);
        let next = pair[1].position.0;
        let same_segment = end / segment_bytes == next / segment_bytes;
        if same_segment && end < next {
            bytes.push(random.range(end..next));
        }
    }
    let count = bytes.len();
    let stride = stride(3);
    for byte in bytes.into_iter().step_by(stride) {
        check(&disk, &batches, byte, random.range(0..8) as u8);
    }
    println!("{} of {count} bytes", count.div_ceil(stride));
}

/// The index is built from the log, which has lost a header: nobody but the recovery has seen where.
#[test]
fn a_batch_that_recovery_has_lost_is_named_with_file_and_position() {
    let (clean, batches) = log();
    let segment_bytes = Setup::default().segment_bytes;
    let lost: Vec<_> = batches
        .iter()
        .filter(|batch| batch.kind == Kind::Messages && batch.base_offset > QueueOffset::ZERO)
        .filter(|batch| batch.position.0 < 2 * segment_bytes)
        .step_by(5)
        .collect();
    for hit in lost {
        let base = hit.position.0 / segment_bytes * segment_bytes;
        let name = segment_name(LogPosition(base));
        let disk = clean.outcome(Restart::ProcessKill, 1);
        disk.flip_bit(&log_directory(0).join(&name), hit.position.0 - base + 20, 1);
        remove_derived(&disk, &Setup::default());
        // The first start meets the damage, the second one starts from a snapshot.
        for start in 0..2 {
            let label = format!("start {start}, {hit:?}");
            let fetched = on_node(&disk, &Setup::default(), start, async |node| {
                node.fetch(hit.key, hit.base_offset).await.expect("reads are served")
            });
            let fetched = fetched.unwrap_or_else(|error| panic!("{label}: {error}"));
            let damaged = fetched.damaged.unwrap_or_else(|| panic!("{label}: no damage"));
            let exact = hit.position.0 - base;
            if start == 0 {
                assert!(damaged.file.ends_with(&name), "{label}: {damaged:?}");
                assert!(
                    (exact.saturating_sub(4096)..=exact).contains(&damaged.position),
                    "{label}: {damaged:?}"
                );
            } else {
                assert!(damaged.file.ends_with(".segment") && damaged.position > 0, "{label}: {damaged:?}");
            }
        }
    }
}
