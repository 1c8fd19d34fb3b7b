//! A repair that is killed at each of its steps, or runs out of disk, and one that goes on with it.

use bytes::Bytes;
use futures_lite::future::block_on;

use super::*;
use crate::disk::DiskErrorKind;
use crate::disk::Operation;
use crate::disk::faulty::{FaultPlan, FaultyDisk, Restart, Rule, When};
use crate::log::expectation::{Known, contradictions};
use crate::log::manifest::{Holdings, Manifest};
use crate::log::repair::{Act, Repair, finish_repair, repair};
use crate::log::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_name};
use crate::types::ShardId;
use crate::wire::batch::LogSecret;

const LOG: &str = "/data/shard-0/log";
const SECRET: LogSecret = LogSecret(0xfeed);
const SEGMENT_BYTES: u64 = 6 * BLOCK_BYTES as u64;
const SEGMENTS: u64 = 5;

fn segment(number: u64) -> PathBuf {
    Path::new(LOG).join(segment_name(LogPosition(number * SEGMENT_BYTES)))
}

fn manifest() -> PathBuf {
    Path::new(LOG).join(manifest::NAME)
}

async fn write_log(disk: &FaultyDisk) -> Result<(), OpenError> {
    let log = Path::new(LOG);
    disk.create_directory(log).await?;
    for number in 0..SEGMENTS {
        let file = disk.open(&segment(number), OpenMode::Create).await?;
        let mut bytes = disk.allocate(SEGMENT_BYTES as usize);
        bytes.as_mut_slice().fill(number as u8 + 1);
        let base = LogPosition(number * SEGMENT_BYTES);
        let header = SegmentHeader {
            base,
            segment_bytes: SEGMENT_BYTES,
            epoch: 1,
            shard: 0,
            is_stand_in: false,
            previous_end: base,
            secret: SECRET,
        };
        header.encode(bytes.as_mut_slice());
        file.write(0, Rc::new(bytes)).await?;
        file.sync().await?;
        file.close().await?;
    }
    let mut manifest = Manifest::new(ShardId(0), SECRET, 1, 1);
    let last_base = LogPosition((SEGMENTS - 1) * SEGMENT_BYTES);
    // There is no batch in it.
    let reached = last_base.advance(SEGMENT_HEADER_BYTES as u64);
    manifest.holdings =
        Some(Holdings { last_base, last_bytes: SEGMENT_BYTES, reached, is_end: true, ..Holdings::none(1) });
    manifest.write(disk, log, 2).await?;
    for path in [log, Path::new("/data/shard-0"), Path::new("/data"), Path::new("/")] {
        disk.sync_directory(path).await?;
    }
    Ok(())
}

fn known() -> Known {
    Known { is_made: true, ..Known::nothing(ShardId(0), 1) }
}

/// As `log repair` does it: what was interrupted comes first.
fn run(disk: &FaultyDisk, act: Act) -> Result<Repair, OpenError> {
    block_on(async {
        let log = Path::new(LOG);
        match finish_repair(disk, log, act).await? {
            Some(told) if act == Act::Tell => Ok(told),
            _ => repair(disk, log, &known(), LogSecret(7), act).await,
        }
    })
}

fn contents(disk: &FaultyDisk) -> Vec<(PathBuf, Bytes)> {
    let files = disk.files().into_iter().map(|(path, _)| Path::new("/").join(path));
    files.map(|path| (path.clone(), disk.clean_bytes(&path))).collect()
}

fn found(disk: &FaultyDisk) -> Vec<Contradiction> {
    block_on(contradictions(disk, Path::new(LOG), &known())).expect("a healthy disk")
}

/// One step in so many is tried, or every one.
fn stride() -> usize {
    if std::env::var("TURBOPUMP_SWEEP").is_ok_and(|value| value == "full") { 1 } else { 7 }
}

type Harm = fn(&FaultyDisk);

const HARMS: [(&str, Harm); 9] = [
    ("swapped", |disk| disk.swap(&segment(0), &segment(1))),
    ("moved in a circle", |disk| {
        disk.swap(&segment(0), &segment(1));
        disk.swap(&segment(1), &segment(2));
    }),
    ("longer", |disk| disk.set_size(&segment(1), SEGMENT_BYTES + 1)),
    ("missing", |disk| disk.lose(&segment(2))),
    ("empty", |disk| disk.set_size(&segment(1), 0)),
    ("shorter", |disk| disk.set_size(&segment(3), SEGMENT_BYTES / 2)),
    ("manifest missing", |disk| disk.lose(&manifest())),
    ("manifest unreadable", |disk| disk.zero(&manifest(), 0..2 * BLOCK_BYTES as u64)),
    ("everything", |disk| {
        disk.swap(&segment(0), &segment(1));
        disk.set_size(&segment(2), SEGMENT_BYTES + 1);
        disk.set_size(&segment(3), SEGMENT_BYTES / 2);
        disk.zero(&manifest(), 0..2 * BLOCK_BYTES as u64);
    }),
];

/// A log that was harmed, and what a repair that nothing interrupts leaves of it, in so many steps.
fn harmed(harm: Harm) -> (FaultyDisk, Vec<(PathBuf, Bytes)>, u64) {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    block_on(write_log(&disk)).expect("a healthy disk");
    assert_eq!(found(&disk), Vec::new(), "before it is harmed");
    harm(&disk);
    assert!(!found(&disk).is_empty(), "it is not harmed");
    let calm = disk.outcome(Restart::ProcessKill, 1);
    run(&calm, Act::Do).expect("a healthy disk");
    assert_eq!((calm.open_files(), found(&calm)), (0, Vec::new()));
    (disk, contents(&calm), calm.step_count())
}

#[test]
fn a_repair_that_is_killed_at_any_step_ends_as_if_nothing_had_been() {
    for (label, harm) in HARMS {
        let (disk, wanted, steps) = harmed(harm);
        let mut interrupted = 0;
        for step in (0..=steps).step_by(stride()) {
            let killed = disk.outcome(Restart::ProcessKill, 1);
            killed.set_plan(FaultPlan::crash_at(step));
            let first = run(&killed, Act::Do);
            assert!(step < steps || first.is_ok(), "{label}: {first:?}");
            for (how, _, left) in killed.outcomes(step..step + 1) {
                let label = format!("{label}: killed at {step} of {steps}, {how:?}");
                let before = contents(&left);
                let found_then = found(&left);
                if let Some(found) = found_then.iter().find(|found| found.flaw == Flaw::Interrupted) {
                    interrupted += 1;
                    assert_eq!(found_then.len(), 1, "{label}");
                    assert!(found.to_string().contains("a repair was interrupted"), "{label}: {found}");
                    let told = run(&left, Act::Tell).unwrap_or_else(|error| panic!("{label}: {error}"));
                    assert!(!told.steps.is_empty() && told.contradictions == found_then, "{label}: {told:?}");
                }
                assert!(contents(&left) == before, "{label}: what only looks has changed something");
                run(&left, Act::Do).unwrap_or_else(|error| panic!("{label}: {error}"));
                let names = |files: &[(PathBuf, Bytes)]| {
                    files.iter().map(|(path, bytes)| (path.clone(), bytes.len())).collect::<Vec<_>>()
                };
                let after = contents(&left);
                assert_eq!(names(&after), names(&wanted), "{label}");
                assert!(after == wanted, "{label}: the bytes differ");
                assert_eq!(found(&left), Vec::new(), "{label}");
            }
        }
        assert!(interrupted > 0, "{label}: never interrupted");
    }
}

/// A repair that is interrupted, gone on with, and interrupted again.
#[test]
fn a_repair_may_be_killed_as_often_as_it_is_tried() {
    for (label, harm) in HARMS {
        let (disk, wanted, steps) = harmed(harm);
        for stride in (1..=steps.min(40)).step_by(stride()) {
            let mut disk = disk.outcome(Restart::ProcessKill, 1);
            for step in (stride..).step_by(3) {
                disk.set_plan(FaultPlan::crash_at(step));
                let done = run(&disk, Act::Do).is_ok();
                disk = disk.outcome(Restart::ProcessKill, step);
                if done {
                    break;
                }
            }
            assert!(contents(&disk) == wanted && found(&disk).is_empty(), "{label}: {stride}");
        }
    }
}

#[test]
fn a_repair_that_runs_out_of_disk_has_changed_nothing_or_goes_on() {
    for (label, harm) in HARMS {
        let (disk, wanted, _) = harmed(harm);
        let before = contents(&disk);
        let mut refused = 0;
        for operation in [Operation::Open, Operation::Preallocate, Operation::Write, Operation::Rename] {
            for first in 0..100 {
                let full = disk.outcome(Restart::ProcessKill, 1);
                let rule = Rule::error(operation, When::From(first), DiskErrorKind::NoSpace);
                full.set_plan(FaultPlan::none().with(rule));
                let done = run(&full, Act::Do);
                full.set_plan(FaultPlan::none());
                let label = format!("{label}: {operation:?} {first}");
                match done {
                    Ok(_) => break,
                    Err(error @ OpenError::NotRepaired { .. }) => {
                        refused += 1;
                        assert!(error.to_string().contains("nothing was changed"), "{label}: {error}");
                        assert!(contents(&full) == before, "{label}: something was changed: {error}");
                    }
                    Err(error @ OpenError::Interrupted { .. }) => {
                        let words = "`turbopump log repair --data /data --yes` goes on";
                        assert!(error.to_string().contains(words), "{label}: {error}");
                        assert_eq!(found(&full).len(), 1, "{label}");
                    }
                    // While it only looked, before or after.
                    Err(error) => {
                        let now = contents(&full);
                        assert!(now == before || now == wanted, "{label}: {error}");
                    }
                }
                run(&full, Act::Do).unwrap_or_else(|error| panic!("{label}: {error}"));
                assert!(contents(&full) == wanted && found(&full).is_empty(), "{label}");
            }
        }
        assert!(refused > 0, "{label}: never refused");
    }
}

#[test]
fn a_plan_that_cannot_be_read_is_carried_out_by_nobody() {
    let (disk, ..) = harmed(HARMS[0].1);
    let mut killed = (0..).map(|step| {
        let killed = disk.outcome(Restart::ProcessKill, 1);
        killed.set_plan(FaultPlan::crash_at(step));
        let _ = run(&killed, Act::Do);
        killed.outcome(Restart::ProcessKill, 1)
    });
    let plan = Path::new("/data/shard-0/repair-1");
    let left = killed.find(|left| left.exists(plan)).expect("it is written at some step");
    left.zero(plan, 0..BLOCK_BYTES as u64);
    let before = contents(&left);
    for act in [Act::Tell, Act::Do] {
        let error = run(&left, act).expect_err("it cannot be read").to_string();
        assert!(error.contains("/data/shard-0/repair-1") && error.contains("cannot be read"), "{error}");
    }
    assert!(contents(&left) == before, "something was changed");
}

fn journal() -> RepairJournal {
    let places = Places { log: "log".to_owned(), aside: "aside-3".to_owned() };
    let mut journal = RepairJournal::new(77);
    for number in 0..200 {
        journal.move_out(&places, &format!("{number:020}.segment"));
    }
    journal.put_back(&places, "00000000000000000001.segment", "00000000000000000002.segment");
    journal.put(&places, "manifest");
    journal.extend(&places, "00000000000000000003.segment", 4096);
    journal
}

#[test]
fn a_plan_is_read_as_it_was_written() {
    for journal in [journal(), RepairJournal::new(0)] {
        let text = journal.encode();
        assert!(text.len().is_multiple_of(BLOCK_BYTES));
        assert_eq!(RepairJournal::decode(text.as_bytes()), Some(journal));
    }
}

#[test]
fn a_plan_that_was_changed_is_none() {
    let text = RepairJournal::new(5).encode();
    let end = text.trim_end().len();
    for bit in 0..end * 8 {
        let mut flipped = text.clone().into_bytes();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // A letter of the checksum may be large or small.
        let decoded = RepairJournal::decode(&flipped);
        assert!(decoded.is_none() || flipped.eq_ignore_ascii_case(text.as_bytes()), "bit {bit}");
    }
    for cut in 0..end {
        assert_eq!(RepairJournal::decode(&text.as_bytes()[..cut]), None, "cut at {cut}");
    }
}

#[test]
fn no_path_leaves_the_shard() {
    for path in ["log", "/etc", "../log", "log/..", "log/a/b", "log/", "", "./log"] {
        assert_eq!(own_path(path), None, "{path}");
    }
    assert_eq!(own_path("log/manifest").as_deref(), Some("log/manifest"));
}
