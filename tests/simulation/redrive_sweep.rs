//! The power fails, the process dies or the disk refuses, at every step of a redrive of dead letters, within a shard and between
//! two: none is lost, none comes twice, and whoever goes on brings the rest to its end.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use turbopump::api::Redriven;
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Restart};
use turbopump::testing::{Random, SeededExecutor};

use super::checks::remove_derived;
use super::held::{create_topic, key_of, read};
use super::node::{Node, on_node};
use super::redrives::{DEAD, bury, queue, ranges, redrive, two_shards};
use super::sweep::{Script, crashes, log_errors, run_until_crash};

/// To one queue of shard 0, and to one of each shard.
const TARGETS: [(&str, u32); 2] = [("one", 1), ("two", 2)];
const SHARDS: u32 = 2;
const EACH: u64 = 6;

/// The number of a dead letter, by its place.
fn number(of: u32, offset: u64) -> u64 {
    u64::from(of) * 100 + offset
}

/// What was buried, and which of it was answered to be moved, to which of the targets.
#[derive(Clone, Debug, Default)]
struct Ledger {
    buried: BTreeSet<u64>,
    moved: BTreeSet<(u64, usize)>,
}

fn script(seed: u64) -> Script {
    Script { setup: two_shards(), ..Script::small(seed) }
}

fn run(disk: &FaultyDisk, script: &Script) -> Ledger {
    let ledger = Rc::<RefCell<Ledger>>::default();
    run_until_crash(disk, script.seed, async |executor| play(disk, script, &ledger, executor).await);
    ledger.take()
}

async fn play(disk: &FaultyDisk, script: &Script, ledger: &RefCell<Ledger>, executor: &SeededExecutor) {
    let spawner = executor.spawner();
    for run in 0..2 {
        // A disk that refuses may refuse this too.
        let Ok(node) = Node::start(disk, &script.setup, executor.shared_clock(), &spawner).await else {
            return;
        };
        if run == 0 && prepare(&node, ledger).await.is_none() {
            return;
        }
        redrive_some(&node, ledger, script.seed * 2 + run).await;
        let _ = node.broker().take_snapshot().await;
        node.stop().await;
    }
}

async fn prepare(node: &Node, ledger: &RefCell<Ledger>) -> Option<()> {
    for (topic, queues) in TARGETS {
        create_topic(node, topic, queues).await.ok()?;
    }
    let dead = create_topic(node, DEAD, SHARDS).await.ok()?;
    for of in 0..SHARDS {
        for offset in 0..EACH {
            // Of every other one the key says which shard it goes to.
            let sharding_key = (offset % 2 == 1).then(|| format!("key {offset}"));
            bury(node, queue(dead, of), number(of, offset), sharding_key.as_deref()).await.ok()?;
            ledger.borrow_mut().buried.insert(number(of, offset));
        }
    }
    Some(())
}

async fn redrive_some(node: &Node, ledger: &RefCell<Ledger>, seed: u64) {
    let mut random = Random::new(seed);
    for _ in 0..4 {
        let (of, target) = (random.range(0..u64::from(SHARDS)) as u32, random.index(TARGETS.len()));
        let offsets: Vec<_> = (0..3).map(|_| random.range(0..EACH)).collect();
        let Ok(report) = redrive(node, of, &offsets, TARGETS[target].0).await else { continue };
        for (offset, outcome) in offsets.iter().zip(&report.outcomes) {
            if matches!(outcome, Redriven::Moved { .. }) {
                ledger.borrow_mut().moved.insert((number(of, *offset), target));
            }
        }
        node.clock.sleep(Duration::from_millis(random.range(0..5))).await;
    }
}

/// The numbers in each target, each of which must be there once.
async fn found(node: &Node, label: &str) -> [BTreeSet<u64>; 2] {
    let mut found = [BTreeSet::new(), BTreeSet::new()];
    for ((topic, queues), found) in TARGETS.into_iter().zip(&mut found) {
        let Some(key) = key_of(node, topic).await else { continue };
        for of in 0..queues {
            for (number, _) in read(node, queue(key, of)).await {
                assert!(found.insert(number), "{label}: {number} is in {topic} twice");
            }
        }
    }
    assert!(found[0].is_disjoint(&found[1]), "{label}: some are in both: {found:?}");
    found
}

/// What is there at first, and once somebody has gone on with the rest.
async fn watch(node: &Node, label: &str) -> Vec<[BTreeSet<u64>; 2]> {
    let before = found(node, label).await;
    let Some(dead) = key_of(node, DEAD).await else { return vec![before] };
    let queue_count =
        node.broker().topic_layout(&super::node::topic_name(DEAD)).map_or(0, |(_, count)| count);
    for of in 0..queue_count {
        let buried: Vec<_> = (0..read(node, queue(dead, of)).await.len() as u64).collect();
        let is_redriven = |told: &[std::ops::Range<turbopump::types::QueueOffset>], offset: u64| {
            told.iter().any(|range| range.contains(&turbopump::types::QueueOffset(offset)))
        };
        let told = ranges(node, of).await;
        for &offset in &buried {
            let is_there = before.iter().any(|found| found.contains(&number(of, offset)));
            let is_moving = told.moving.is_some_and(|moving| moving.0 == offset);
            let is_redriven = is_redriven(&told.ranges, offset);
            assert!(is_there == is_redriven || is_moving, "{label}: {offset} of queue {of}, {told:?}");
        }
        if buried.is_empty() || key_of(node, TARGETS[0].0).await.is_none() {
            continue;
        }
        let report = redrive(node, of, &buried, TARGETS[0].0).await.expect("a healthy disk");
        assert_eq!(report.stopped, None, "{label}");
        assert!(!report.outcomes.contains(&Redriven::Gone), "{label}: {report:?}");
        let told = ranges(node, of).await;
        assert!(buried.iter().all(|offset| is_redriven(&told.ranges, *offset)), "{label}: {told:?}");
        assert_eq!(told.moving, None, "{label}");
    }
    vec![before, found(node, label).await]
}

fn check(disk: &FaultyDisk, script: &Script, ledger: &Ledger, label: &str) {
    let bare = disk.outcome(Restart::ProcessKill, 2);
    remove_derived(&bare, &script.setup);
    let seen = on_node(disk, &script.setup, 1, async |node| watch(node, label).await);
    let seen = seen.unwrap_or_else(|error| panic!("{label}: does not start: {error}"));
    for (number, target) in &ledger.moved {
        assert!(seen[0][*target].contains(number), "{label}: {number} is not where it was moved to");
    }
    let all: BTreeSet<_> = seen.last().expect("there is one").iter().flatten().copied().collect();
    if seen.len() > 1 && !ledger.moved.is_empty() {
        assert!(ledger.buried.is_subset(&all), "{label}: lost: {:?}", ledger.buried.difference(&all));
    }
    let from_log = on_node(&bare, &script.setup, 1, async |node| watch(node, label).await);
    assert_eq!(from_log.ok().as_ref(), Some(&seen), "{label}, from the log alone");
}

fn sweep(script: &Script, plan: &FaultPlan, sample: usize) {
    let calm = FaultyDisk::new(script.seed, plan.clone());
    let ledger = run(&calm, script);
    assert!(ledger.buried.len() == 12 && ledger.moved.len() > 5, "a disk without faults: {ledger:?}");
    let run = |disk: &FaultyDisk| run(disk, script);
    crashes((script.seed, plan), calm.step_count(), sample, run, |outcome, ledger, _, label| {
        check(outcome, script, ledger, label);
    });
}

#[test]
fn a_crash_at_any_step_neither_loses_nor_doubles_what_is_redriven() {
    sweep(&script(1), &FaultPlan::none(), 61);
}

#[test]
fn a_crash_does_no_harm_to_what_is_redriven_when_writes_are_short_and_late() {
    sweep(&script(2), &FaultPlan::reordered(), 89);
}

#[test]
fn errors_of_a_log_neither_lose_nor_double_what_is_redriven() {
    let run = |disk: &FaultyDisk, number| (script(number), run(disk, &script(number)));
    log_errors(&[3, 8, 14, 25], run, |outcome, (script, ledger), _, label| {
        check(outcome, script, ledger, label);
    });
}
