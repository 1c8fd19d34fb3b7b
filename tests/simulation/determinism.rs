//! One seed, one run: what is found by a seed can be looked at again.

use turbopump::disk::faulty::{FaultPlan, FaultyDisk};
use turbopump::testing::SeededExecutor;

use super::workload::{Script, run_on};

fn lines(seed: u64) -> Vec<String> {
    let executor = SeededExecutor::new(seed);
    executor.trace().record_lines();
    let disk = FaultyDisk::new(seed, FaultPlan::reordered());
    disk.set_trace(executor.trace());
    run_on(&executor, &disk, &Script::small(seed));
    executor.trace().lines()
}

#[test]
fn one_seed_run_twice_leaves_the_same_trace() {
    for seed in 0..4 {
        let (first, second) = (lines(seed), lines(seed));
        assert!(first.len() > 500, "{} lines", first.len());
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
    assert_ne!(lines(0), lines(1));
}
