//! The power fails, or the process dies, at every step of a workload.

use turbopump::disk::faulty::{AfterCrash, FaultPlan, FaultyDisk, Restart};

use super::checks::check_restart;
use super::workload::{Script, run};

fn is_full() -> bool {
    std::env::var("TURBOPUMP_SWEEP").is_ok_and(|value| value == "full")
}

/// Crashes at one step in `stride`, restarts in every way, and checks.
fn sweep(script: &Script, plan: &FaultPlan, stride: u64, seeds: std::ops::Range<u64>) {
    let calm = FaultyDisk::new(script.seed, plan.clone());
    run(&calm, script);
    let steps = calm.step_count();
    assert_eq!((calm.open_files(), calm.abandoned_calls()), (0, 0), "seed {}", script.seed);
    let stride = if is_full() { 1 } else { stride };
    let mut points = 0;
    let mut outcomes = 0;
    for step in (script.seed % stride..=steps).step_by(stride as usize) {
        let plan = FaultPlan { crash_at: Some(step), after_crash: AfterCrash::Hang, ..plan.clone() };
        let disk = FaultyDisk::new(script.seed, plan);
        let ledger = run(&disk, script);
        points += 1;
        for (how, seed, outcome) in disk.outcomes(seeds.clone()) {
            let label = format!("seed {}, crash at {step} of {steps}, {how:?}, outcome {seed}", script.seed);
            check_restart(&outcome, &script.setup, &ledger, how, &label);
            outcomes += 1;
        }
    }
    println!("{steps} steps, {points} crashes, {} ways each, {outcomes} restarts", Restart::ALL.len());
}

#[test]
fn a_crash_at_any_step_loses_nothing_that_was_answered() {
    sweep(&Script::small(1), &FaultPlan::none(), 11, 0..1);
}

#[test]
fn a_crash_loses_nothing_when_writes_are_short_and_late() {
    sweep(&Script::small(2), &FaultPlan::reordered(), 13, 0..1);
}

#[test]
fn a_crash_loses_nothing_while_segments_come_and_go() {
    sweep(&Script::rolling(3), &FaultPlan::none(), 149, 0..1);
}

#[test]
fn a_crash_of_two_shards_loses_nothing_that_was_answered() {
    sweep(&Script::sharded(4), &FaultPlan::reordered(), 29, 0..1);
}
