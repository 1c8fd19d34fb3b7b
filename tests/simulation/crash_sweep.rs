//! The power fails, or the process dies, at every step of a workload.

use std::collections::BTreeSet;

use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Phase};
use turbopump::testing::Trace;

use super::checks::check_restart;
use super::sweep::crashes;
use super::workload::{Script, run};

/// Writes to a segment that began while it was being flushed.
fn overlaps(script: &Script) -> usize {
    let disk = FaultyDisk::new(script.seed, FaultPlan::reordered());
    let trace = Trace::new();
    trace.record_lines();
    disk.set_trace(trace.clone());
    run(&disk, script);
    let (begin, end) = (Phase::Begin as u64, Phase::End as u64);
    let mut flushing = BTreeSet::new();
    let mut overlaps = 0;
    for line in trace.lines() {
        let Some((what, numbers)) = line.split_once(" [") else { continue };
        let Some((phase, _)) = numbers.split_once(',') else { continue };
        let phase: u64 = phase.parse().expect("a phase");
        let Some((operation, path)) = what.split_once(' ').filter(|(_, path)| path.ends_with(".segment"))
        else {
            continue;
        };
        match operation {
            "sync" if phase == begin => drop(flushing.insert(path.to_owned())),
            "sync" if phase == end => drop(flushing.remove(path)),
            "write" if phase == begin && flushing.contains(path) => overlaps += 1,
            _ => {}
        }
    }
    overlaps
}

fn sweep(script: &Script, plan: &FaultPlan, sample: usize) {
    let calm = FaultyDisk::new(script.seed, plan.clone());
    run(&calm, script);
    assert_eq!((calm.open_files(), calm.abandoned_calls()), (0, 0), "seed {}", script.seed);
    let run = |disk: &FaultyDisk| run(disk, script);
    crashes((script.seed, plan), calm.step_count(), sample, run, |outcome, ledger, how, label| {
        check_restart(outcome, &script.setup, ledger, how, label);
    });
}

#[test]
fn a_crash_at_any_step_loses_nothing_that_was_answered() {
    sweep(&Script::small(1), &FaultPlan::none(), 11);
}

#[test]
fn a_crash_loses_nothing_when_writes_are_short_and_late() {
    sweep(&Script::small(2), &FaultPlan::reordered(), 13);
}

#[test]
fn a_crash_loses_nothing_while_segments_come_and_go() {
    sweep(&Script::rolling(3), &FaultPlan::none(), 149);
}

#[test]
fn a_crash_of_two_shards_loses_nothing_that_was_answered() {
    sweep(&Script::sharded(4), &FaultPlan::reordered(), 29);
}

#[test]
fn groups_overlap_when_they_are_large_enough_for_it() {
    let alone: usize = (0..10).map(|seed| overlaps(&Script::small(seed))).sum();
    let overlapped: usize = (0..10).map(|seed| overlaps(&Script::small(seed).overlapped())).sum();
    assert!(alone == 0 && overlapped > 0, "{alone} and {overlapped}");
    let rolling: usize = (0..8).map(|seed| overlaps(&Script::rolling(seed))).sum();
    assert!(rolling > 100, "{rolling}");
}

#[test]
fn a_crash_loses_nothing_while_a_group_is_flushed_and_the_next_one_written() {
    sweep(&Script::small(5).overlapped(), &FaultPlan::none(), 11);
    sweep(&Script::small(7).overlapped(), &FaultPlan::reordered(), 13);
    sweep(&Script::rolling(7), &FaultPlan::reordered(), 211);
}
