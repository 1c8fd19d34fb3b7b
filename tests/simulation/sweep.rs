//! A workload that is interrupted again and again: by a crash at each of its steps, and by errors of its log.

use turbopump::disk::faulty::{AfterCrash, FaultPlan, FaultyDisk, Restart, Rule, When};
use turbopump::disk::{DiskErrorKind, Operation};
use turbopump::testing::SeededExecutor;

use super::node::Setup;

/// `TURBOPUMP_SWEEP=full`: every case instead of a sample.
pub fn is_full() -> bool {
    std::env::var("TURBOPUMP_SWEEP").is_ok_and(|value| value == "full")
}

/// One case in so many is tried: `sample`, or 1 in a full sweep.
pub fn stride(sample: usize) -> usize {
    if is_full() { 1 } else { sample }
}

/// How large a workload is.
#[derive(Clone, Copy)]
pub struct Script {
    pub seed: u64,
    pub setup: Setup,
    /// Batches of nearly the largest size, which make segments come and go.
    pub large_batches: u64,
}

impl Script {
    /// In one segment of a usual node.
    pub fn small(seed: u64) -> Self {
        Self { seed, setup: Setup::default(), large_batches: 0 }
    }
}

/// Runs a workload, in an order that the seed picks, to its end or to the crash of its disk.
pub fn run_until_crash(disk: &FaultyDisk, seed: u64, work: impl AsyncFnOnce(&SeededExecutor)) {
    let executor = SeededExecutor::new(seed);
    executor.run_until(futures_lite::future::or(work(&executor), disk.crashed()));
    executor.cancel_all();
}

/// Runs a workload of `steps` steps once for each step that is tried, with a crash there, and checks every disk that may be
/// left of it. `run` returns what was answered; `check` gets a disk to start from, that, how the disk came about, and a label.
pub fn crashes<Answered>(
    (seed, plan): (u64, &FaultPlan),
    steps: u64,
    sample: usize,
    run: impl Fn(&FaultyDisk) -> Answered,
    check: impl Fn(&FaultyDisk, &Answered, Restart, &str),
) {
    let stride = stride(sample);
    let mut restarts = 0;
    for step in (seed % stride as u64..=steps).step_by(stride) {
        let plan = FaultPlan { crash_at: Some(step), after_crash: AfterCrash::Hang, ..plan.clone() };
        let disk = FaultyDisk::new(seed, plan);
        let answered = run(&disk);
        for (how, _, outcome) in disk.outcomes(0..1) {
            check(&outcome, &answered, how, &format!("seed {seed}, crash at {step} of {steps}, {how:?}"));
            restarts += 1;
        }
    }
    println!("{steps} steps, {restarts} restarts");
}

/// Runs a workload with errors of its log and checks as [`crashes`] does: one error, or everything from one on, at the operations whose numbers are given. `run` gets the
/// number as well, as a seed.
pub fn log_errors<Answered>(
    numbers: &[u64],
    run: impl Fn(&FaultyDisk, u64) -> Answered,
    check: impl Fn(&FaultyDisk, &Answered, Restart, &str),
) {
    let mut struck = 0;
    for (operation, kind) in [
        (Operation::Write, DiskErrorKind::Failed),
        (Operation::Write, DiskErrorKind::NoSpace),
        (Operation::Sync, DiskErrorKind::Failed),
    ] {
        for &number in numbers {
            for when in [When::Once(number), When::From(number)] {
                let rule = Rule::error(operation, when, kind).in_path(".segment");
                let disk = FaultyDisk::new(number, FaultPlan::reordered().with(rule));
                let answered = run(&disk, number);
                struck += disk.injected().len();
                for (how, _, outcome) in disk.outcomes(0..1) {
                    check(&outcome, &answered, how, &format!("{operation:?} {kind:?} {when:?}, {how:?}"));
                }
            }
        }
    }
    assert!(struck > 20, "only {struck} faults");
}
