//! The key index against a plain list of what was added.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::block::{KeyEntry, filter_block, filter_insert, filter_may_hold, key_hash, within_filter_block};
use super::collect::KEYED_ENTRIES_MAX;
use super::{Collected, KeyIndex, KeyOwner};
use crate::disk::faulty::{AfterCrash, FaultPlan, FaultyDisk};
use crate::disk::memory::MemoryDisk;
use crate::disk::{Disk, DiskBuffer, DiskFile, OpenMode};
use crate::index::IndexError;
use crate::limits::BLOCK_BYTES;
use crate::testing::{Random, SeededExecutor};
use crate::types::{LogPosition, RecordLocation, TopicId};

const SEGMENT_BYTES: u64 = 1 << 20;
const TOPIC: TopicId = TopicId(3);
/// The log of these tests.
const LOG: u32 = 7;

fn directory() -> PathBuf {
    PathBuf::from("/shard/keys")
}

fn key(number: u64) -> Vec<u8> {
    format!("key-{number}").into_bytes()
}

/// A log that exists in its positions only, its keys, and the index about it.
struct Fixture<D: Disk> {
    index: KeyIndex<D>,
    collected: RefCell<Collected>,
    first: LogPosition,
    end: LogPosition,
    /// Number of a key and its location, in log order.
    model: Vec<(u64, RecordLocation)>,
}

async fn open<D: Disk>(
    disk: &D,
    executor: &SeededExecutor,
    epoch: u32,
    bounds: (LogPosition, LogPosition),
) -> KeyIndex<D> {
    let clock = executor.shared_clock();
    let owner = KeyOwner { epoch, log: LOG };
    KeyIndex::open(disk.clone(), clock, &directory(), owner, bounds).await.expect("the disk is healthy")
}

impl<D: Disk> Fixture<D> {
    async fn new(disk: &D, executor: &SeededExecutor) -> Self {
        let index = open(disk, executor, 1, (LogPosition::ZERO, LogPosition::ZERO)).await;
        let collected = RefCell::default();
        Self { index, collected, first: LogPosition::ZERO, end: LogPosition::ZERO, model: Vec::new() }
    }

    /// Adds a batch with up to `count` keys.
    fn append(&mut self, random: &mut Random, count: u64, keys: u64) {
        let base = LogPosition(self.end.0 / SEGMENT_BYTES * SEGMENT_BYTES);
        let mut collected = self.collected.borrow_mut();
        if collected.range().is_none() {
            collected.begin(base, self.end);
        }
        for index in 0..random.range(0..=count) {
            let number = random.range(0..keys);
            let location = RecordLocation { position: self.end, index: index as u16 };
            collected.add(TOPIC, &key(number), location);
            self.model.push((number, location));
        }
        self.end = LogPosition((self.end.0 + random.range(1..=2000) * 8).min(base.0 + SEGMENT_BYTES));
        collected.extend(self.end);
    }

    fn segment(&self) -> LogPosition {
        LogPosition(self.end.0 / SEGMENT_BYTES * SEGMENT_BYTES)
    }

    async fn store(&self) {
        self.index.store(&self.collected).await.expect("the disk is healthy");
    }

    async fn check(&self, number: u64) {
        let mut found = self.collected.borrow().find(TOPIC, &key(number));
        found.extend(found_in(&self.index, &key(number)).await.expect("nothing is damaged"));
        let mut expected: Vec<_> =
            self.model.iter().filter(|(of, _)| *of == number).map(|(_, location)| *location).collect();
        expected.sort_unstable_by(|one, other| other.cmp(one));
        expected.dedup();
        assert_eq!(found, expected, "key {number}");
    }
}

async fn found_in<D: Disk>(index: &KeyIndex<D>, key: &[u8]) -> Result<Vec<RecordLocation>, IndexError> {
    let mut search = index.search(TOPIC, key);
    let mut found = Vec::new();
    while let Some(location) = search.next(index).await? {
        found.push(location);
    }
    Ok(found)
}

async fn merge_all<D: Disk>(index: &KeyIndex<D>, sealed: LogPosition) {
    while let Some(plan) = index.merge_candidates(sealed) {
        index.merge(&plan).await.expect("the disk is healthy");
    }
}

/// Files of two shards have the same names: their logs have segments at the same positions.
#[test]
fn a_run_of_another_log_is_removed_and_what_it_covers_is_indexed_again() {
    let executor = SeededExecutor::new(1);
    executor.run_until(async {
        let disk = MemoryDisk::new();
        let mut random = Random::new(1);
        let mut fixture = Fixture::new(&disk, &executor).await;
        (0..20).for_each(|_| fixture.append(&mut random, 10, 100));
        fixture.store().await;
        let bounds = (fixture.first, fixture.end);
        fixture.index.close().await.expect("a healthy disk");
        for (log, is_own) in [(LOG, true), (LOG + 1, false)] {
            let owner = KeyOwner { epoch: 2, log };
            let (clock, directory) = (executor.shared_clock(), directory());
            let index = KeyIndex::open(disk.clone(), clock, &directory, owner, bounds).await;
            let index = index.expect("a healthy disk");
            assert_eq!(index.gap(bounds.0, bounds.1, None).is_none(), is_own, "log {log}");
            index.close().await.expect("a healthy disk");
        }
    });
}

#[test]
fn the_index_agrees_with_a_list_through_everything() {
    for seed in 0..12 {
        let executor = SeededExecutor::new(seed);
        executor.run_until(async {
            let mut random = Random::new(seed);
            let disk = MemoryDisk::new();
            let mut fixture = Fixture::new(&disk, &executor).await;
            let mut epoch = 1;
            // A few keys of very many messages, or many of few.
            let keys = *random.pick(&[2, 40, 3000]);
            for _ in 0..800 {
                match random.index(100) {
                    0..80 => fixture.append(&mut random, 60, keys),
                    80..88 => fixture.store().await,
                    88..92 => merge_all(&fixture.index, fixture.segment()).await,
                    92..94 => {
                        fixture.store().await;
                        fixture.index.close().await.expect("a healthy disk");
                        assert_eq!(disk.open_files(), 0);
                        epoch += 1;
                        fixture.index = open(&disk, &executor, epoch, (fixture.first, fixture.end)).await;
                    }
                    94 if fixture.segment() > fixture.first => {
                        fixture.first = fixture.first.advance(SEGMENT_BYTES);
                        fixture.model.retain(|(_, location)| location.position >= fixture.first);
                        fixture.index.remove_below(fixture.first).await.expect("a healthy disk");
                        let gone = fixture.collected.borrow().range();
                        if gone.is_some_and(|range| range.base < fixture.first) {
                            fixture.collected.borrow_mut().clear();
                        }
                    }
                    _ => fixture.check(random.range(0..keys + 2)).await,
                }
                if fixture.end.0.is_multiple_of(SEGMENT_BYTES) {
                    fixture.store().await;
                }
                let range = fixture.collected.borrow().range();
                assert_eq!(fixture.index.gap(fixture.first, fixture.end, range), None, "seed {seed}");
            }
            for number in 0..keys.min(100) {
                fixture.check(number).await;
            }
            fixture.index.close().await.expect("a healthy disk");
            assert_eq!(disk.open_files(), 0);
        });
    }
}

#[test]
fn other_topics_and_unknown_keys_are_not_found() {
    let executor = SeededExecutor::new(1);
    executor.run_until(async {
        let mut fixture = Fixture::new(&MemoryDisk::new(), &executor).await;
        (0..50).for_each(|_| fixture.append(&mut Random::new(4), 60, 10));
        fixture.store().await;
        let mut search = fixture.index.search(TopicId(4), &key(1));
        assert_eq!(search.next(&fixture.index).await, Ok(None));
        assert_eq!(found_in(&fixture.index, b"key-").await, Ok(Vec::new()));
        assert_ne!(key_hash(TOPIC, b"a"), key_hash(TOPIC, b"a\0"));
    });
}

/// Two segments with runs, one of them merged, on a healthy disk.
async fn two_segments<D: Disk>(disk: &D, executor: &SeededExecutor) -> Fixture<D> {
    let mut random = Random::new(9);
    let mut fixture = Fixture::new(disk, executor).await;
    while fixture.end.0 < SEGMENT_BYTES + SEGMENT_BYTES / 2 {
        for _ in 0..12 {
            let before = fixture.segment();
            fixture.append(&mut random, 60, 500);
            if fixture.segment() != before {
                break;
            }
        }
        fixture.store().await;
    }
    merge_all(&fixture.index, fixture.segment()).await;
    fixture
}

#[test]
fn a_flipped_bit_is_found_and_its_run_can_be_made_again() {
    let executor = SeededExecutor::new(2);
    executor.run_until(async {
        let disk = MemoryDisk::new();
        let fixture = two_segments(&disk, &executor).await;
        fixture.index.close().await.expect("a healthy disk");
        assert_eq!(KeyIndex::verify(&disk, &directory()).await.expect("readable"), []);
        let names = disk.list(&directory()).await.expect("a healthy disk");
        let mut random = Random::new(5);
        for name in &names {
            let path = directory().join(name);
            let blocks = file_bytes(&disk, &path).await.len() / BLOCK_BYTES;
            for block in (0..blocks).step_by(1 + blocks / 12) {
                let sound = file_bytes(&disk, &path).await;
                let mut bytes = sound.clone();
                bytes[block * BLOCK_BYTES + random.index(BLOCK_BYTES)] ^= 1 << random.index(8);
                write_file(&disk, &path, &bytes).await;
                check_damage(&disk, &executor, &fixture, &path, (block * BLOCK_BYTES) as u64).await;
                write_file(&disk, &path, &sound).await;
            }
        }
    });
}

/// A damaged file is named by `verify`, and no look-up is wrong: what is missing is a gap or an error.
async fn check_damage(
    disk: &MemoryDisk,
    executor: &SeededExecutor,
    fixture: &Fixture<MemoryDisk>,
    path: &Path,
    position: u64,
) {
    let damage = KeyIndex::verify(disk, &directory()).await.expect("readable");
    assert!(damage.iter().all(|damage| damage.file == path && damage.position == position), "{damage:?}");
    // Blocks that were reserved and not needed may be anything.
    let Some(_) = damage.first() else { return };
    let sound = file_bytes(disk, path).await;
    let index = open(disk, executor, 50, (fixture.first, fixture.end)).await;
    let mut damaged = index.gap(fixture.first, fixture.end, None).is_some();
    assert_eq!(damaged, position == 0, "a run without its header is none");
    for number in 0..40 {
        let expected = fixture.model.iter().rev().filter(|(of, _)| *of == number);
        match found_in(&index, &key(number)).await {
            Ok(found) if !damaged => {
                let mut expected: Vec<_> = expected.map(|(_, location)| *location).collect();
                expected.dedup();
                assert_eq!(found, expected);
            }
            Ok(found) => assert!(found.iter().all(|location| fixture.model.contains(&(number, *location)))),
            Err(error) => {
                assert!(index.owns(&error), "{error}");
                index.distrust(path).await.expect("a healthy disk");
                damaged = true;
                assert!(index.gap(fixture.first, fixture.end, None).is_some());
            }
        }
    }
    index.close().await.expect("a healthy disk");
    write_file(disk, path, &sound).await;
}

async fn file_bytes<D: Disk>(disk: &D, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::ReadOnly).await.expect("it is there");
    let size = file.size().await.expect("a healthy disk") as usize;
    let bytes = file.read(0, size).await.expect("a healthy disk").to_vec();
    file.close().await.expect("a healthy disk");
    bytes
}

async fn write_file<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::Create).await.expect("a healthy disk");
    file.preallocate(bytes.len() as u64).await.expect("a healthy disk");
    let mut buffer = disk.allocate(bytes.len());
    buffer.as_mut_slice().copy_from_slice(bytes);
    file.write(0, Rc::new(buffer)).await.expect("a healthy disk");
    file.close().await.expect("a healthy disk");
}

/// Runs and merges until the power fails; returns what was in the log by then.
fn interrupted(disk: &FaultyDisk, seed: u64) -> Vec<(u64, RecordLocation)> {
    let executor = SeededExecutor::new(seed);
    let model = RefCell::new(Vec::new());
    let work = async {
        let clock = executor.shared_clock();
        let bounds = (LogPosition::ZERO, LogPosition::ZERO);
        let Ok(index) =
            KeyIndex::open(disk.clone(), clock, &directory(), KeyOwner { epoch: 1, log: LOG }, bounds).await
        else {
            return;
        };
        let mut random = Random::new(seed);
        let collected = RefCell::default();
        let mut fixture =
            Fixture { index, collected, first: LogPosition::ZERO, end: LogPosition::ZERO, model: Vec::new() };
        while fixture.end.0 < SEGMENT_BYTES + SEGMENT_BYTES / 4 {
            let before = fixture.segment();
            (0..8).for_each(|_| {
                if fixture.segment() == before {
                    fixture.append(&mut random, 30, 100);
                }
            });
            model.replace(fixture.model.clone());
            fixture.store().await;
            merge_all(&fixture.index, fixture.segment()).await;
        }
        fixture.index.close().await.expect("the disk is healthy");
    };
    executor.run_until(futures_lite::future::or(work, disk.crashed()));
    executor.cancel_all();
    model.into_inner()
}

#[test]
fn a_crash_at_any_step_leaves_an_index_that_says_what_it_lacks() {
    let calm = FaultyDisk::new(1, FaultPlan::reordered());
    let whole = interrupted(&calm, 1);
    let end = whole.last().expect("many").1.position.advance(8);
    assert_eq!((calm.open_files(), calm.abandoned_calls()), (0, 0));
    let mut covered_somewhere = 0;
    for step in 0..=calm.step_count() {
        let plan =
            FaultPlan { crash_at: Some(step), after_crash: AfterCrash::Hang, ..FaultPlan::reordered() };
        let disk = FaultyDisk::new(1, plan);
        interrupted(&disk, 1);
        for (how, seed, outcome) in disk.outcomes(0..1) {
            let executor = SeededExecutor::new(step);
            executor.run_until(async {
                let index = open(&outcome, &executor, 2, (LogPosition::ZERO, end)).await;
                // What a gap does not name is found, and nothing else.
                let mut gaps = Vec::new();
                let mut position = LogPosition::ZERO;
                while let Some((from, to)) = index.gap(position, end, None) {
                    gaps.push(from..to);
                    position = to;
                }
                for number in (0..100).step_by(7) {
                    let found = found_in(&index, &key(number)).await.expect("nothing is damaged");
                    let mut expected: Vec<_> = whole
                        .iter()
                        .rev()
                        .filter(|(of, location)| {
                            *of == number && !gaps.iter().any(|gap| gap.contains(&location.position))
                        })
                        .map(|(_, location)| *location)
                        .collect();
                    expected.dedup();
                    covered_somewhere += expected.len();
                    assert_eq!(found, expected, "step {step}, {how:?}, outcome {seed}, key {number}");
                }
                index.close().await.expect("a healthy disk");
                let left = KeyIndex::verify(&outcome, &directory()).await.expect("readable");
                assert_eq!(left, [], "step {step}, {how:?}");
            });
        }
    }
    assert!(covered_somewhere > 1000, "the sweep looked at something");
}

#[test]
fn two_million_keys_take_little_memory() {
    let executor = SeededExecutor::new(3);
    executor.run_until(async {
        let disk = MemoryDisk::new();
        let mut fixture = Fixture::new(&disk, &executor).await;
        let mut most = 0;
        for number in 0..2_000_000u64 {
            let full = {
                let mut collected = fixture.collected.borrow_mut();
                if collected.range().is_none() {
                    collected.begin(LogPosition::ZERO, fixture.end);
                }
                collected.add(TOPIC, &key(number), RecordLocation { position: fixture.end, index: 0 });
                fixture.end = fixture.end.advance(128);
                collected.extend(fixture.end);
                most = most.max(collected.memory_bytes() + fixture.index.memory_bytes());
                collected.len() >= KEYED_ENTRIES_MAX
            };
            if full {
                fixture.store().await;
                merge_all(&fixture.index, LogPosition::ZERO).await;
            }
        }
        fixture.store().await;
        merge_all(&fixture.index, fixture.end).await;
        assert_eq!(fixture.index.run_count(), 1);
        for number in (0..2_000_000).step_by(99_991) {
            let location = RecordLocation { position: LogPosition(number * 128), index: 0 };
            assert_eq!(found_in(&fixture.index, &key(number)).await, Ok(vec![location]));
        }
        most = most.max(fixture.index.memory_bytes());
        assert!(most < 10 * 1024 * 1024, "{most} bytes");
        fixture.index.close().await.expect("a healthy disk");
    });
}

#[test]
fn a_filter_has_no_false_misses_and_few_false_hits() {
    let mut random = Random::new(1);
    let mut block = vec![0; BLOCK_BYTES];
    let inside: Vec<_> = (0..3000).map(|_| random.number()).collect();
    inside.iter().for_each(|hash| filter_insert(&mut block, *hash));
    assert!(inside.iter().all(|hash| filter_may_hold(&block, *hash)));
    let false_hits = (0..100_000).filter(|_| filter_may_hold(&block, random.number())).count();
    assert!(false_hits < 1_500, "{false_hits} of 100,000");
    // Blocks follow each other in the order of hashes, and so do locations within one.
    let mut hashes = inside;
    hashes.sort_unstable();
    let locations: Vec<_> =
        hashes.iter().map(|hash| (filter_block(*hash, 7), within_filter_block(*hash, 7))).collect();
    assert!(locations.is_sorted());
    assert_eq!(locations.last().map(|location| location.0), Some(6));
    assert_eq!(size_of::<KeyEntry>(), 16);
}
