//! The index on a disk that fails, and with everything going on at once.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use futures_lite::future::{block_on, poll_once, yield_now};

use super::{ALL, DIRECTORY, entry, grow, key, small};
use crate::disk::faulty::{FaultPlan, FaultyDisk, Rule, When};
use crate::disk::{Disk, DiskErrorKind, Operation};
use crate::index::{Index, IndexEntry, IndexError, LookupMax, TrimProgress};
use crate::testing::{Random, SeededExecutor};
use crate::types::{LogPosition, QueueKey, QueueOffset, Timestamp};

async fn open(
    disk: &FaultyDisk,
    epoch: u32,
    snapshot: Option<&[u8]>,
) -> Result<Index<FaultyDisk>, IndexError> {
    // The shard's own directory is not the index's business.
    disk.create_directory(Path::new("/shard")).await?;
    disk.sync_directory(Path::new("/")).await?;
    Index::open(disk.clone(), Path::new(DIRECTORY), small(epoch), snapshot).await
}

async fn trim(index: &Index<FaultyDisk>, min_position: LogPosition) -> Result<(), IndexError> {
    let mut trim = index.trim(min_position);
    while trim.step(1).await? == TrimProgress::More {}
    Ok(())
}

/// What survives every crash: the log, where it starts, and the last snapshot with how much of the log it covers.
#[derive(Clone, Default)]
struct Durable {
    log: Vec<(QueueKey, IndexEntry)>,
    log_start: LogPosition,
    snapshot: Option<Vec<u8>>,
    covered: usize,
}

impl Durable {
    fn grow(&mut self, index: &Index<FaultyDisk>, count: u64) {
        for _ in 0..count {
            let number = self.log.len() as u64;
            let key = key((number % 7 / 5) as u32);
            self.log.extend(grow(index, key, number..number + 1).into_iter().map(|entry| (key, entry)));
        }
    }

    /// The entries of a queue among the first `covered` of the log.
    fn entries(&self, key: QueueKey, covered: usize) -> Vec<IndexEntry> {
        let live = |entry: &IndexEntry| entry.position >= self.log_start;
        let queue = self.log[..covered].iter().filter(|(queue, _)| *queue == key);
        queue.map(|(_, entry)| *entry).filter(live).collect()
    }
}

/// Appends, spills, takes snapshots and follows the log's start, as a broker does.
async fn workload(disk: &FaultyDisk, durable: &RefCell<Durable>) -> Result<(), IndexError> {
    let index = open(disk, 1, None).await?;
    for round in 0..5_u64 {
        durable.borrow_mut().grow(&index, 24);
        index.spill().await?;
        durable.borrow_mut().grow(&index, 9);
        let covered = durable.borrow().log.len();
        let mut saving = index.begin_snapshot();
        let mut bytes = None;
        while bytes.is_none() {
            bytes = saving.step(1);
            durable.borrow_mut().grow(&index, 3);
        }
        index.spill().await?;
        index.sync().await?;
        (durable.borrow_mut().snapshot, durable.borrow_mut().covered) = (bytes, covered);
        if round > 0 {
            durable.borrow_mut().log_start = LogPosition(round * 25_000);
            trim(&index, LogPosition(round * 25_000)).await?;
        }
    }
    index.close().await
}

async fn recover(disk: &FaultyDisk, durable: &Durable) -> Result<(), IndexError> {
    let index = open(disk, 2, durable.snapshot.as_deref()).await?;
    trim(&index, durable.log_start).await?;
    index.verify().await?;
    for queue in [key(0), key(1)] {
        let found = index.lookup(queue, QueueOffset::ZERO, ALL).await?;
        assert_eq!(found, durable.entries(queue, durable.covered), "{queue}");
    }
    for (queue, entry) in &durable.log[durable.covered..] {
        index.replay(*queue, *entry)?;
    }
    index.spill().await?;
    index.verify().await?;
    for queue in [key(0), key(1)] {
        let found = index.lookup(queue, QueueOffset::ZERO, ALL).await?;
        assert_eq!(found, durable.entries(queue, durable.log.len()), "{queue}");
    }
    index.close().await
}

#[test]
fn a_crash_at_any_step_leaves_what_the_snapshot_needs() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    block_on(workload(&disk, &RefCell::default())).expect("no faults");
    let steps = disk.step_count();
    assert!(steps > 100, "{steps} steps");
    for step in 0..=steps {
        let disk = FaultyDisk::new(step, FaultPlan::crash_at(step));
        let durable = RefCell::default();
        let ended = block_on(workload(&disk, &durable));
        assert_eq!(ended.is_ok(), step == steps, "step {step}");
        for (how, seed, outcome) in disk.outcomes(0..2) {
            if let Err(error) = block_on(recover(&outcome, &durable.borrow())) {
                panic!("crash at step {step}, {how:?}, seed {seed}: {error}");
            }
        }
    }
}

#[test]
fn a_failed_sync_is_final() {
    let plan = FaultPlan::none().with(Rule::error(Operation::Sync, When::Once(0), DiskErrorKind::Failed));
    let disk = FaultyDisk::new(1, plan);
    let index = block_on(open(&disk, 1, None)).expect("open");
    grow(&index, key(0), 0..50);
    block_on(index.spill()).expect("writing works");
    let error = block_on(index.sync()).expect_err("the sync fails");
    assert_eq!(block_on(index.sync()), Err(error.clone()));
    grow(&index, key(0), 50..100);
    assert_eq!(block_on(index.spill()), Err(error));
    let found = block_on(index.lookup(key(0), QueueOffset::ZERO, ALL)).expect("reads go on");
    assert_eq!(found.len(), 100);
}

#[test]
fn a_full_disk_keeps_blocks_waiting_until_there_is_room() {
    for operation in [Operation::Preallocate, Operation::Write] {
        let plan = FaultPlan::none().with(Rule::error(operation, When::Once(1), DiskErrorKind::NoSpace));
        let disk = FaultyDisk::new(1, plan);
        let index = block_on(open(&disk, 1, None)).expect("open");
        let entries = grow(&index, key(0), 0..100);
        let error = block_on(index.spill()).expect_err("no space");
        assert!(matches!(&error, IndexError::Disk(error) if error.kind == DiskErrorKind::NoSpace), "{error}");
        assert!(index.waiting_blocks() > 0);
        assert_eq!(block_on(index.lookup(key(0), QueueOffset::ZERO, ALL)).as_ref(), Ok(&entries));
        block_on(index.spill()).expect("there is room again");
        assert_eq!(index.waiting_blocks(), 0);
        block_on(index.verify()).expect("a whole index");
        assert_eq!(block_on(index.lookup(key(0), QueueOffset::ZERO, ALL)), Ok(entries));
    }
}

#[test]
fn an_open_that_fails_leaves_no_file_open() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let durable = RefCell::default();
    block_on(workload(&disk, &durable)).expect("no faults");
    let rule = Rule::error(Operation::Open, When::Once(1), DiskErrorKind::Failed);
    disk.set_plan(FaultPlan::none().with(rule));
    assert!(block_on(recover(&disk, &durable.borrow())).is_err());
    assert_eq!(disk.open_files(), 0);
    block_on(recover(&disk, &durable.borrow())).expect("the disk works again");
}

/// What the tasks of one run share.
struct Scene {
    index: Index<FaultyDisk>,
    /// All entries ever appended, by queue.
    entries: RefCell<[Vec<IndexEntry>; 2]>,
    appended: Cell<bool>,
}

impl Scene {
    async fn append(&self, count: u64) {
        for number in 0..count {
            let queue = (number % 3 / 2) as u32;
            let (_, end) = self.index.bounds(key(queue)).unwrap_or_default();
            let entry = entry(number, end.0);
            self.entries.borrow_mut()[queue as usize].push(entry);
            self.index.append(key(queue), entry);
            self.index.relieved().await;
            yield_now().await;
        }
        self.appended.set(true);
    }

    async fn spill(&self) {
        while !self.appended.get() {
            self.index.spill().await.expect("spill");
            yield_now().await;
        }
    }

    async fn trim(&self, mut random: Random) {
        while !self.appended.get() {
            let newest = self.entries.borrow()[0].last().map_or(0, |entry| entry.position.0);
            let mut trim = self.index.trim(LogPosition(random.range(newest / 2..=newest)));
            while trim.step(1).await.expect("trim") == TrimProgress::More {
                yield_now().await;
            }
            for _ in 0..random.range(0..100) {
                yield_now().await;
            }
        }
    }

    async fn save_and_verify(&self) {
        while !self.appended.get() {
            let mut saving = self.index.begin_snapshot();
            while saving.step(1).is_none() {
                yield_now().await;
            }
            self.index.sync().await.expect("sync");
            self.index.verify().await.expect("a whole index");
            // Everything above may be in memory.
            yield_now().await;
        }
    }

    async fn read(&self, mut random: Random) {
        while !self.appended.get() {
            let queue = random.range(0..2) as u32;
            let (first, end) = self.index.bounds(key(queue)).unwrap_or_default();
            let offset = QueueOffset(random.range(first.0..=end.0));
            let max = LookupMax { entries: random.range(1..20) as usize, ..ALL };
            let found = self.index.lookup(key(queue), offset, max).await.expect("a whole index");
            self.check(queue, offset.max(first), end, &found);
            let time = Timestamp(random.range(0..200));
            self.index.find_time(key(queue), time).await.expect("a whole index");
            yield_now().await;
        }
    }

    /// The entries are in a row, and begin with the one that was looked for, or where a trim has moved the start to.
    fn check(&self, queue: u32, offset: QueueOffset, end: QueueOffset, found: &[IndexEntry]) {
        let entries = &self.entries.borrow()[queue as usize];
        let (first, _) = self.index.bounds(key(queue)).unwrap_or_default();
        let Some(start) = found.first() else {
            assert!(offset >= end || first >= end, "{offset} of {first}..{end} is not found");
            return;
        };
        let place = entries.iter().position(|entry| entry == start).expect("it was appended");
        assert_eq!(found, &entries[place..place + found.len()]);
        assert!(start.end_offset() > offset);
        assert!(start.base_offset <= offset.max(first), "{} is not the next to {offset}", start.base_offset);
    }
}

#[test]
fn everything_may_go_on_at_once() {
    for seed in 0..150 {
        let executor = SeededExecutor::new(seed);
        let disk = FaultyDisk::new(seed, FaultPlan::reordered());
        let index = executor.run_until(open(&disk, 1, None)).expect("open");
        let entries = RefCell::default();
        let scene = Rc::new(Scene { index, entries, appended: Cell::new(false) });
        let mut random = Random::new(seed);
        let spawn = |future: std::pin::Pin<Box<dyn Future<Output = ()>>>| executor.spawn(future);
        let shared = || (scene.clone(), scene.clone(), scene.clone());
        let (appender, spiller, saver) = shared();
        let mut tasks = vec![
            spawn(Box::pin(async move { appender.append(300).await })),
            spawn(Box::pin(async move { spiller.spill().await })),
            spawn(Box::pin(async move { saver.save_and_verify().await })),
        ];
        for _ in 0..2 {
            let (reader, trimmer, _) = shared();
            let (first, second) = (random.fork(), random.fork());
            tasks.push(spawn(Box::pin(async move { reader.read(first).await })));
            tasks.push(spawn(Box::pin(async move { trimmer.trim(second).await })));
        }
        executor.run_until(async {
            for task in tasks {
                task.await;
            }
            scene.index.verify().await.expect("a whole index");
            scene.index.close().await.expect("close");
        });
        assert_eq!((disk.open_files(), disk.abandoned_calls()), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_trim_in_the_middle_of_a_lookup_moves_it_to_the_new_start() {
    for seed in 0..20 {
        let disk = FaultyDisk::new(seed, FaultPlan::reordered());
        let index = block_on(open(&disk, 1, None)).expect("open");
        let entries = grow(&index, key(0), 0..200);
        block_on(index.spill()).expect("spill");
        let mut lookup = Box::pin(index.lookup(key(0), QueueOffset::ZERO, ALL));
        let mut find = Box::pin(index.find_time(key(0), Timestamp::default()));
        let mut time = None;
        for _ in 0..seed {
            time = time.or_else(|| block_on(poll_once(&mut find)));
            assert!(block_on(poll_once(&mut lookup)).is_none(), "a lookup of 200 blocks takes longer");
        }
        block_on(trim(&index, LogPosition(150_000))).expect("trim");
        let found = block_on(lookup).expect("what is left");
        // Blocks that were read before the trim may still be answered.
        let place = entries.iter().position(|entry| Some(entry) == found.first()).expect("it was appended");
        assert!(place == 0 || place == 150, "seed {seed}: {place}");
        assert_eq!(found, entries[place..place + found.len()]);
        let time = time.unwrap_or_else(|| block_on(find)).expect("what is left");
        assert!(time == QueueOffset::ZERO || time == entries[150].base_offset, "seed {seed}: {time}");
    }
}
