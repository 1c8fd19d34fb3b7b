use std::collections::BTreeSet;
use std::pin::pin;

use futures_lite::future::{block_on, poll_once, zip};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::*;
use crate::clock::Clock;
use crate::disk::memory::MemoryDisk;
use crate::limits::BLOCK_BYTES;
use crate::testing::SeededExecutor;

const BLOCK: u64 = BLOCK_BYTES as u64;

fn filled<D: Disk>(disk: &D, blocks: usize, with: u8) -> Rc<D::Buffer> {
    let mut buffer = disk.allocate(blocks * BLOCK_BYTES);
    buffer.as_mut_slice().fill(with);
    Rc::new(buffer)
}

/// A file of this many durable blocks of 1, in a durable directory.
async fn durable_ones(disk: &FaultyDisk, name: &str, blocks: usize) -> FaultyFile {
    let directory = Path::new("/data");
    disk.create_directory(directory).await.expect("create directory");
    disk.sync_directory(Path::new("/")).await.expect("sync directory");
    let file = disk.open(&directory.join(name), OpenMode::Create).await.expect("open");
    file.write(0, filled(disk, blocks, 1)).await.expect("write");
    file.sync().await.expect("sync");
    disk.sync_directory(directory).await.expect("sync directory");
    file
}

/// The first byte of every block of a file, which hold one value each; `None` without such a file.
fn blocks(disk: &FaultyDisk, path: &str) -> Option<Vec<u8>> {
    let file = block_on(disk.open(Path::new(path), OpenMode::ReadOnly)).ok()?;
    let bytes = block_on(file.size()).expect("size");
    let contents = block_on(file.read(0, bytes as usize)).expect("read");
    block_on(file.close()).expect("close");
    Some(contents.chunks(BLOCK_BYTES).map(|block| block[0]).collect())
}

/// A little log: blocks numbered from 1, each answered when it is durable. What was answered is kept outside, as the
/// clients of a broker keep it.
struct LittleLog {
    answered: Cell<u8>,
    /// Calls that a careless author would leave out.
    skips: &'static [Operation],
}

const LOG: &str = "/data/log";
const LOG_ENTRIES: u8 = 6;

impl LittleLog {
    fn new(skips: &'static [Operation]) -> Self {
        Self { answered: Cell::new(0), skips }
    }

    async fn run(&self, disk: &FaultyDisk) -> Result<(), DiskError> {
        disk.create_directory(Path::new("/data")).await?;
        disk.sync_directory(Path::new("/")).await?;
        let prepared = Path::new("/data/prepared");
        let file = disk.open(prepared, OpenMode::Create).await?;
        file.preallocate(u64::from(LOG_ENTRIES) * 2 * BLOCK).await?;
        file.sync().await?;
        disk.rename(prepared, Path::new(LOG)).await?;
        if !self.skips.contains(&Operation::SyncDirectory) {
            disk.sync_directory(Path::new("/data")).await?;
        }
        for entry in 0..LOG_ENTRIES {
            file.write(u64::from(entry) * 2 * BLOCK, filled(disk, 2, entry + 1)).await?;
            if !self.skips.contains(&Operation::Sync) {
                file.sync().await?;
            }
            self.answered.set(entry + 1);
        }
        file.close().await
    }

    /// Whether all that was answered is on the disk.
    fn is_kept(&self, disk: &FaultyDisk) -> bool {
        let blocks = blocks(disk, LOG).unwrap_or_default();
        let clean = |entry: u8| {
            let at = usize::from(entry) * 2;
            blocks.get(at..at + 2) == Some(&[entry + 1; 2])
        };
        (0..self.answered.get()).all(clean)
    }
}

/// Lets the power fail at every step of the little log; in how many of the outcomes something answered was missing.
fn sweep(skips: &'static [Operation]) -> usize {
    let count = {
        let disk = FaultyDisk::new(1, FaultPlan::none());
        block_on(LittleLog::new(skips).run(&disk)).expect("no faults");
        disk.step_count()
    };
    assert!(count > 30, "{count}");
    let mut losses = 0;
    for step in 0..=count {
        let disk = FaultyDisk::new(1, FaultPlan::crash_at(step));
        let log = LittleLog::new(skips);
        assert_eq!(block_on(log.run(&disk)).is_err(), step < count);
        assert_eq!(disk.step_count(), step);
        losses += disk.outcomes(0..8).filter(|(_, _, restarted)| !log.is_kept(restarted)).count();
    }
    losses
}

#[test]
fn a_sweep_finds_nothing_lost_when_all_is_synced() {
    assert_eq!(sweep(&[]), 0);
}

#[test]
fn a_sweep_finds_a_missing_sync() {
    assert!(sweep(&[Operation::Sync]) > 100);
}

#[test]
fn a_sweep_finds_a_missing_sync_of_the_directory() {
    assert!(sweep(&[Operation::SyncDirectory]) > 100);
}

#[test]
fn unsynced_data_vanishes_stays_or_is_torn() {
    let disk = FaultyDisk::new(2, FaultPlan::none());
    let file = block_on(durable_ones(&disk, "f", 4));
    block_on(file.write(BLOCK, filled(&disk, 2, 2))).expect("write");
    let outcomes = |how| -> BTreeSet<Vec<u8>> {
        let outcome = |seed| disk.outcome(how, seed).clean_bytes(Path::new("/data/f")).to_vec();
        (0..100).map(outcome).collect()
    };
    let image = |middle: u8| {
        [[1; BLOCK_BYTES], [middle; BLOCK_BYTES], [middle; BLOCK_BYTES], [1; BLOCK_BYTES]].concat()
    };
    assert_eq!(outcomes(Restart::PowerLoss(Survival::Nothing)), [image(1)].into());
    assert_eq!(outcomes(Restart::PowerLoss(Survival::Everything)), [image(2)].into());
    assert_eq!(outcomes(Restart::PowerLoss(Survival::Whole)), [image(1), image(2)].into());
    assert_eq!(outcomes(Restart::ProcessKill), [image(2)].into());
    let torn = outcomes(Restart::PowerLoss(Survival::Torn(TearUnit::Sector)));
    assert!(torn.len() > 20 && torn.is_superset(&[image(1), image(2)].into()), "{}", torn.len());
    assert!(outcomes(Restart::PowerLoss(Survival::Mixed)).len() > 10);
}

#[test]
fn what_a_killed_process_wrote_is_still_lost_with_the_power() {
    let disk = FaultyDisk::new(3, FaultPlan::none());
    let file = block_on(durable_ones(&disk, "f", 1));
    block_on(file.write(0, filled(&disk, 1, 2))).expect("write");
    let killed = disk.restart(Restart::ProcessKill);
    assert!(disk.is_crashed(), "the old incarnation is over");
    assert_eq!(blocks(&killed, "/data/f"), Some(vec![2]));
    assert_eq!(blocks(&killed.outcome(Restart::PowerLoss(Survival::Nothing), 1), "/data/f"), Some(vec![1]));
    let again = block_on(killed.open(Path::new("/data/f"), OpenMode::Existing)).expect("open");
    block_on(again.write(0, filled(&killed, 1, 3))).expect("write");
    block_on(again.sync()).expect("sync");
    assert_eq!(blocks(&killed.restart(Restart::PowerLoss(Survival::Nothing)), "/data/f"), Some(vec![3]));
}

#[test]
fn a_rename_without_a_sync_of_the_directory_may_be_lost() {
    let disk = FaultyDisk::new(4, FaultPlan::none());
    _ = block_on(durable_ones(&disk, "old", 1));
    block_on(disk.rename(Path::new("/data/old"), Path::new("/data/new"))).expect("rename");
    let names = |disk: &FaultyDisk| -> BTreeSet<String> {
        let name =
            |seed| block_on(disk.outcome(Restart::PowerLoss(Survival::Whole), seed).list(Path::new("/data")));
        (0..50).map(|seed| name(seed).expect("list").join(" ")).collect()
    };
    assert_eq!(names(&disk), ["new".to_owned(), "old".to_owned()].into());
    block_on(disk.sync_directory(Path::new("/data"))).expect("sync directory");
    assert_eq!(names(&disk), ["new".to_owned()].into());
    assert_eq!(disk.unsynced_changes(), 0);
}

/// Four tasks that write, sync and read at once; the trace of the run, and a digest of some of its outcomes.
fn overlapping_run(seed: u64) -> (Vec<String>, u64, Vec<Vec<u8>>) {
    let executor = SeededExecutor::new(seed);
    executor.trace().record_lines();
    let disk =
        FaultyDisk::new(seed, FaultPlan { latency_max: Duration::from_micros(50), ..FaultPlan::reordered() });
    disk.set_clock(executor.shared_clock());
    disk.set_trace(executor.trace());
    let file = Rc::new(executor.run_until(durable_ones(&disk, "f", 32)));
    for task in 0..4u8 {
        let (disk, file, trace) = (disk.clone(), file.clone(), executor.trace());
        executor.spawn(async move {
            for round in 0..3u8 {
                let position = u64::from(task) * 8 * BLOCK;
                file.write(position, filled(&disk, 8, task * 16 + round)).await.expect("write");
                trace.note(format_args!("task {task} wrote round {round}"));
                file.sync().await.expect("sync");
            }
        });
    }
    executor.run_for(Duration::from_micros(400));
    let outcomes =
        disk.outcomes(0..2).map(|(_, _, restarted)| restarted.clean_bytes(Path::new("/data/f")).to_vec());
    (executor.trace().lines(), executor.trace().hash(), outcomes.collect())
}

#[test]
fn one_seed_is_one_run_down_to_the_torn_bytes() {
    for seed in 0..10 {
        let (first, second) = (overlapping_run(seed), overlapping_run(seed));
        assert_eq!(first.0, second.0, "seed {seed}");
        assert!(first == second, "seed {seed}");
    }
    assert_ne!(overlapping_run(1).1, overlapping_run(2).1);
}

#[test]
fn writes_in_flight_together_end_in_any_order() {
    let order = |seed| {
        let executor = SeededExecutor::new(seed);
        let disk = FaultyDisk::new(seed, FaultPlan::reordered());
        executor.run_until(async {
            let file = &durable_ones(&disk, "f", 4).await;
            let write = |index: u64| {
                let buffer = filled(&disk, 1, 2);
                async move {
                    file.write(index * BLOCK, buffer).await.expect("write");
                    index
                }
            };
            (0..4).map(write).collect::<FuturesUnordered<_>>().collect::<Vec<_>>().await
        })
    };
    let orders: BTreeSet<_> = (0..200).map(order).collect();
    assert_eq!(orders.len(), 24);
}

#[test]
fn a_write_in_pieces_is_half_there_when_the_power_fails_between_them() {
    let plan = FaultPlan { pieces_max: 4, ..FaultPlan::none() };
    let counts: BTreeSet<usize> = (0..20)
        .flat_map(|seed| {
            let steps = {
                let disk = FaultyDisk::new(seed, plan.clone());
                _ = block_on(durable_ones(&disk, "f", 4));
                disk.step_count()
            };
            (steps..steps + 7).map(move |step| (seed, step))
        })
        .map(|(seed, step)| {
            let disk = FaultyDisk::new(seed, FaultPlan { crash_at: Some(step), ..plan.clone() });
            block_on(async {
                let file = durable_ones(&disk, "f", 4).await;
                _ = file.write(0, filled(&disk, 4, 2)).await;
            });
            disk.clean_bytes(Path::new("/data/f")).iter().filter(|&&byte| byte == 2).count() / BLOCK_BYTES
        })
        .collect();
    assert_eq!(counts, [0, 1, 2, 3, 4].into());
}

#[test]
fn a_sync_does_not_cover_a_write_that_it_overlaps() {
    let lost = |seed| {
        let executor = SeededExecutor::new(seed);
        let disk = FaultyDisk::new(seed, FaultPlan::reordered());
        executor.run_until(async {
            let file = durable_ones(&disk, "f", 4).await;
            let (write, sync) = zip(file.write(0, filled(&disk, 4, 2)), file.sync()).await;
            assert!(write.is_ok() && sync.is_ok());
        });
        disk.durable_bytes(Path::new("/data/f")).contains(&1)
    };
    let losses = (0..100).filter(|&seed| lost(seed)).count();
    assert!(losses > 50 && losses < 100, "{losses} of 100");
}

#[test]
fn planned_errors_come_with_their_kind_and_leave_a_mixture() {
    let rule = Rule::error(Operation::Write, When::Once(1), DiskErrorKind::Failed).in_path("data/f");
    let mixture = |seed| {
        let disk = FaultyDisk::new(seed, FaultPlan::none().with(rule.clone()));
        let file = block_on(durable_ones(&disk, "f", 4));
        let error = block_on(file.write(0, filled(&disk, 4, 2))).expect_err("planned");
        assert_eq!(
            (error.kind, error.operation, error.position),
            (DiskErrorKind::Failed, Operation::Write, Some(0))
        );
        assert_eq!(disk.injected().len(), 1);
        block_on(file.write(0, filled(&disk, 1, 2))).expect("once only");
        disk.clean_bytes(Path::new("/data/f"))[BLOCK_BYTES..].iter().filter(|&&byte| byte == 2).count()
    };
    let mixtures: BTreeSet<_> = (0..50).map(mixture).collect();
    assert!(
        mixtures.len() > 5 && mixtures.contains(&0) && mixtures.contains(&(3 * BLOCK_BYTES)),
        "{mixtures:?}"
    );
}

#[test]
fn every_call_can_fail() {
    let disk = FaultyDisk::new(5, FaultPlan::none());
    let file = block_on(durable_ones(&disk, "f", 1));
    let rule = Rule {
        operation: None,
        path_part: None,
        when: When::From(0),
        fault: Fault::Error(DiskErrorKind::Failed),
    };
    disk.set_plan(FaultPlan::none().with(rule));
    let (directory, path) = (Path::new("/data"), Path::new("/data/f"));
    let failures = [
        block_on(disk.create_directory(directory)).err(),
        block_on(disk.list(directory)).err(),
        block_on(disk.open(path, OpenMode::Existing)).err(),
        block_on(disk.has_other_names(path)).err(),
        block_on(disk.rename(path, path)).err(),
        block_on(disk.remove(path)).err(),
        block_on(disk.sync_directory(directory)).err(),
        block_on(disk.space(directory)).err(),
        block_on(file.size()).err(),
        block_on(file.preallocate(BLOCK)).err(),
        block_on(file.write(0, filled(&disk, 1, 2))).err(),
        block_on(file.read(0, BLOCK_BYTES)).err(),
        block_on(file.sync()).err(),
        block_on(file.close()).err(),
    ];
    let operations: Vec<_> = failures.map(|error| error.expect("every call fails").operation as u8).into();
    assert_eq!(operations, (0..14).collect::<Vec<_>>(), "each error names its operation");
    disk.set_plan(FaultPlan::none());
    assert_eq!(block_on(disk.list(directory)).as_deref(), Ok(&["f".to_owned()][..]), "faults can be lifted");
}

#[test]
fn a_full_disk_refuses_growth_only() {
    let disk = FaultyDisk::new(6, FaultPlan { total_bytes: Some(8 * BLOCK), ..FaultPlan::none() });
    let file = block_on(durable_ones(&disk, "f", 4));
    let other = block_on(disk.open(Path::new("/data/g"), OpenMode::Create)).expect("open");
    let no_space = |result: Result<(), DiskError>| result.expect_err("full").kind == DiskErrorKind::NoSpace;
    assert!(no_space(block_on(other.preallocate(5 * BLOCK))));
    assert_eq!(block_on(other.size()), Ok(0));
    assert!(no_space(block_on(file.write(3 * BLOCK, filled(&disk, 6, 2)))));
    assert_eq!(blocks(&disk, "/data/f"), Some(vec![1, 1, 1, 2, 2, 2, 2, 2]), "what fits has landed");
    assert_eq!(
        block_on(disk.space(Path::new("/data"))),
        Ok(Space { total: 8 * BLOCK, available: 0, used: 8 * BLOCK })
    );
    block_on(file.write(0, filled(&disk, 8, 3))).expect("a write inside the file needs no room");
    block_on(disk.remove(Path::new("/data/f"))).expect("remove");
    assert!(no_space(block_on(other.preallocate(BLOCK))), "a file that is open still holds its room");
    block_on(file.close()).expect("close");
    block_on(other.preallocate(8 * BLOCK)).expect("room again");
    assert!(
        block_on(disk.restart(Restart::ProcessKill).space(Path::new("/")))
            .is_ok_and(|space| space.total == 8 * BLOCK)
    );
}

#[test]
fn misdirected_writes_show_old_bytes_here_and_new_ones_there() {
    for (landing, elsewhere) in [(Landing::SameFile, 1), (Landing::OtherFile, 1), (Landing::Nowhere, 0)] {
        let disk = FaultyDisk::new(7, FaultPlan::none());
        let file = block_on(durable_ones(&disk, "f", 8));
        _ = block_on(durable_ones(&disk, "g", 8));
        disk.set_plan(FaultPlan::none().with(Rule::misdirect(When::Once(0), landing)));
        block_on(file.write(BLOCK, filled(&disk, 2, 2))).expect("answered well");
        block_on(file.sync()).expect("sync");
        let twos = |disk: &FaultyDisk, path| {
            blocks(disk, path).expect("a file").iter().filter(|&&byte| byte == 2).count()
        };
        let restarted = disk.restart(Restart::PowerLoss(Survival::Nothing));
        for disk in [&disk.outcome(Restart::ProcessKill, 1), &restarted] {
            assert_eq!(blocks(disk, "/data/f").expect("a file")[1..3], [1, 1], "{landing:?}");
            assert_eq!(twos(disk, "/data/f") + twos(disk, "/data/g"), 2 * elsewhere, "{landing:?}");
            assert_eq!(disk.damaged_blocks().len(), 2 + 2 * elsewhere);
        }
        assert_eq!(disk.injected()[0].landed_at.is_some(), elsewhere == 1);
        restarted.lift_damage();
        assert_eq!(blocks(&restarted, "/data/f"), Some(vec![1, 2, 2, 1, 1, 1, 1, 1]), "{landing:?}");
        assert_eq!(blocks(&restarted, "/data/g"), Some(vec![1; 8]));
    }
}

#[test]
fn bits_flip_at_rest_and_as_they_are_written() {
    let disk = FaultyDisk::new(8, FaultPlan::none());
    let file = block_on(durable_ones(&disk, "f", 4));
    let path = Path::new("/data/f");
    disk.flip_bit(path, 5_000, 1);
    let (byte, bit) = disk.flip_random_bit(path, 2 * BLOCK..3 * BLOCK);
    let contents = block_on(file.read(0, 4 * BLOCK_BYTES)).expect("read");
    let wrong: Vec<_> = (0..contents.len()).filter(|&at| contents[at] != 1).collect();
    assert_eq!(wrong, [5_000, byte as usize]);
    assert_eq!((contents[5_000], contents[byte as usize]), (3, 1 ^ (1 << bit)));
    assert_eq!(disk.damaged_blocks(), [("data/f".into(), BLOCK), ("data/f".into(), 2 * BLOCK)]);
    disk.lift_damage();
    disk.set_plan(FaultPlan::none().with(Rule::flip_bit(When::Once(0))));
    block_on(file.write(3 * BLOCK, filled(&disk, 1, 2))).expect("answered well");
    let contents = block_on(file.read(3 * BLOCK, BLOCK_BYTES)).expect("read");
    assert_eq!(contents.iter().map(|byte| (byte ^ 2).count_ones()).sum::<u32>(), 1);
}

#[test]
fn blocks_that_can_not_be_read_fail_until_they_are_written() {
    let disk = FaultyDisk::new(9, FaultPlan::none());
    let file = block_on(durable_ones(&disk, "f", 4));
    disk.fail_reads(Path::new("/data/f"), BLOCK + 1..BLOCK + 2);
    assert_eq!(block_on(file.read(0, 2 * BLOCK_BYTES)).expect_err("unreadable").kind, DiskErrorKind::Failed);
    assert!(block_on(file.read(2 * BLOCK, BLOCK_BYTES)).is_ok());
    block_on(file.write(BLOCK, filled(&disk, 1, 2))).expect("write");
    assert!(block_on(file.read(0, 2 * BLOCK_BYTES)).is_ok());
}

#[test]
fn a_prefix_keeps_the_order_of_writes_over_all_files() {
    let disk = FaultyDisk::new(13, FaultPlan::none());
    let first = block_on(durable_ones(&disk, "first", 2));
    let second = block_on(durable_ones(&disk, "second", 2));
    block_on(first.write(0, filled(&disk, 2, 2))).expect("write");
    block_on(second.write(0, filled(&disk, 2, 2))).expect("write");
    let outcomes: BTreeSet<_> = (0..100)
        .map(|seed| {
            let restarted = disk.outcome(Restart::PowerLoss(Survival::Prefix), seed);
            let new = |path| restarted.clean_bytes(Path::new(path)).iter().filter(|&&byte| byte == 2).count();
            (new("/data/first"), new("/data/second"))
        })
        .collect();
    assert!(outcomes.iter().all(|&(first, second)| second == 0 || first == 2 * BLOCK_BYTES), "{outcomes:?}");
    assert!(outcomes.len() > 5, "{outcomes:?}");
}

#[test]
fn a_file_that_is_removed_while_it_is_opened_stays_usable() {
    for seed in 0..100 {
        let executor = SeededExecutor::new(seed);
        let disk = FaultyDisk::new(seed, FaultPlan::reordered());
        let other = disk.clone();
        executor.run_until(async {
            durable_ones(&disk, "f", 1).await.close().await.expect("close");
            executor.spawn(async move {
                other.remove(Path::new("/data/f")).await.expect("remove");
                other.sync_directory(Path::new("/data")).await.expect("sync directory");
            });
            if let Ok(file) = disk.open(Path::new("/data/f"), OpenMode::Existing).await {
                assert_eq!(file.read(0, BLOCK_BYTES).await.expect("read")[..], [1; BLOCK_BYTES]);
                file.close().await.expect("close");
            }
        });
    }
}

#[test]
fn after_the_power_has_failed_calls_fail_or_hang() {
    for (after_crash, hangs) in [(AfterCrash::Fail, false), (AfterCrash::Hang, true)] {
        let disk = FaultyDisk::new(10, FaultPlan { after_crash, ..FaultPlan::none() });
        let file = block_on(durable_ones(&disk, "f", 1));
        assert!(block_on(poll_once(disk.crashed())).is_none());
        disk.crash();
        assert!(block_on(poll_once(disk.crashed())).is_some());
        let steps = disk.step_count();
        let mut read = pin!(file.read(0, BLOCK_BYTES));
        let result = block_on(poll_once(&mut read));
        assert_eq!(result.is_none(), hangs);
        assert!(result.is_none_or(|result| result.is_err()));
        assert_eq!(disk.step_count(), steps);
    }
}

#[test]
fn leaks_and_dropped_calls_are_counted() {
    let disk = FaultyDisk::new(11, FaultPlan { yields_max: 3, ..FaultPlan::none() });
    let file = block_on(durable_ones(&disk, "f", 1));
    let other = block_on(durable_ones(&disk, "g", 1));
    assert_eq!(disk.open_files(), 2);
    block_on(other.close()).expect("close");
    drop(file);
    assert_eq!(disk.open_files(), 1);
    assert_eq!(disk.abandoned_calls(), 0);
    let abandoned = (0..20).filter(|_| block_on(poll_once(disk.list(Path::new("/data")))).is_none()).count();
    assert!(abandoned > 5, "{abandoned}");
    assert_eq!(disk.abandoned_calls(), abandoned);
}

#[test]
fn latency_passes_on_the_clock() {
    let executor = SeededExecutor::new(12);
    let disk = FaultyDisk::new(12, FaultPlan { latency_max: Duration::from_millis(1), ..FaultPlan::none() });
    disk.set_clock(executor.shared_clock());
    _ = executor.run_until(durable_ones(&disk, "f", 1));
    let steps = disk.step_count();
    let elapsed = executor.clock().monotonic().0;
    assert!((steps * 200_000..steps * 800_000).contains(&elapsed), "{elapsed} ns in {steps} steps");
}

#[test]
fn a_plan_without_faults_behaves_as_memory_does() {
    for seed in 0..100 {
        let faulty = FaultyDisk::new(seed, FaultPlan::reordered());
        let (ours, memory) = (block_on(script(&faulty, seed)), block_on(script(&MemoryDisk::new(), seed)));
        let different = ours.iter().zip(&memory).enumerate().find(|(_, (ours, memory))| ours != memory);
        assert_eq!(different, None, "seed {seed}: {:?}", &ours[..different.map_or(0, |(at, _)| at)]);
        assert_eq!(ours.len(), memory.len());
        assert_eq!(faulty.open_files(), 0);
    }
}

/// A seeded sequence of calls; what each of them gave.
async fn script<D: Disk>(disk: &D, seed: u64) -> Vec<String> {
    let mut random = Random::new(seed);
    let mut results = Vec::new();
    let mut note = |what: &str, result: String| results.push(format!("{what}: {result}"));
    let paths = ["/a", "/d/a", "/d/b", "/d/e/a", "/d", "/missing/a"].map(Path::new);
    for _ in 0..200 {
        let (path, other) = (*random.pick(&paths), *random.pick(&paths));
        match random.index(8) {
            0 => {
                note("create directory", kind(disk.create_directory(path.parent().expect("a parent")).await))
            }
            1 => note("list", format!("{:?}", disk.list(path).await.map_err(|error| error.kind))),
            2 => note(&format!("rename {path:?} {other:?}"), kind(disk.rename(path, other).await)),
            3 => note("remove", kind(disk.remove(path).await)),
            4 => note("sync directory", kind(disk.sync_directory(path).await)),
            _ => {
                let mode = *random.pick(&[OpenMode::Existing, OpenMode::Create]);
                let (first, count) = (random.range(0..8), random.index(4) + 1);
                match disk.open(path, mode).await {
                    Err(error) => note("open", format!("{:?} {:?}", error.kind, error.operation)),
                    Ok(file) => {
                        if random.chance(0.3) {
                            note("preallocate", kind(file.preallocate(random.range(0..20) * 2_048).await));
                        }
                        let buffer = filled(disk, count, random.number() as u8);
                        note("write", kind(file.write(first * BLOCK, buffer).await));
                        note("size", format!("{:?}", file.size().await));
                        let read = file.read(random.range(0..8) * BLOCK, 2 * BLOCK_BYTES).await;
                        note(
                            "read",
                            format!(
                                "{:?}",
                                read.map(|bytes| crc32c::crc32c(&bytes)).map_err(|error| error.detail)
                            ),
                        );
                        note("sync", kind(file.sync().await));
                        note("close", kind(file.close().await));
                    }
                }
            }
        }
    }
    note("space", format!("{:?}", disk.space(Path::new("/")).await));
    results
}

fn kind(result: Result<(), DiskError>) -> String {
    format!("{:?}", result.map_err(|error| (error.kind, error.operation)))
}
