//! What a [`FaultyDisk`](super::FaultyDisk) does to those who use it.

use std::path::Path;
use std::time::Duration;

use crate::disk::{DiskErrorKind, Operation};
use crate::testing::Random;

/// Faults to come. The default has none: every call works at once, and a crash never comes.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    /// Asked in this order by every call; the first that matches decides.
    pub rules: Vec<Rule>,
    /// The power fails instead of this step (counted from 0 since the disk was made or restarted).
    pub crash_at: Option<u64>,
    pub after_crash: AfterCrash,
    /// Room for all files together; `None` is more than any test fills.
    pub total_bytes: Option<u64>,
    /// Writes land in up to this many pieces, as a short write does that the seam completes; 0 and 1 are one piece.
    pub pieces_max: usize,
    /// Every step lets others run up to this many times first, so that calls that overlap end in any order.
    pub yields_max: u64,
    /// Every step takes up to this long on the clock of [`FaultyDisk::set_clock`](super::FaultyDisk::set_clock).
    pub latency_max: Duration,
}

/// A fault and the calls that it strikes.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `None` is any operation.
    pub operation: Option<Operation>,
    /// Only paths that contain this text.
    pub path_part: Option<String>,
    pub when: When,
    pub fault: Fault,
}

/// Which of the calls that match a rule it strikes, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    Once(u64),
    /// This one and all later ones: a device that is gone.
    From(u64),
    /// Each with this probability.
    Chance(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails. A write leaves a seeded mixture of old and new bytes; a sync makes a seeded part durable and
    /// drops the rest, which is still read until the power fails.
    Error(DiskErrorKind),
    /// The write is answered well, but its bytes are somewhere else. Writes only.
    Misdirect(Landing),
    /// The write is answered well, but one of its bits is wrong. Writes only.
    FlipBit,
}

/// Where a misdirected write ends up. Without room there it is lost, as with `Nowhere`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// On other blocks of the same file.
    SameFile,
    OtherFile,
    Nowhere,
}

/// What calls do once the power has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterCrash {
    /// They fail at once, so that a workload comes to its end.
    #[default]
    Fail,
    /// They never end, as for a process that is no more. Race the workload with `FaultyDisk::crashed`.
    Hang,
}

/// The plan at work: how often each rule has matched.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    matched: Vec<u64>,
}

impl FaultPlan {
    pub fn none() -> Self {
        Self::default()
    }

    /// No failures, but calls that end late, in any order, and in pieces.
    pub fn reordered() -> Self {
        Self { pieces_max: 4, yields_max: 8, ..Self::default() }
    }

    /// Some of everything that a device does to those who use it rightly: delays, pieces, and in every second plan one
    /// kind of error. For simulations that run many seeds.
    pub fn sampled(random: &mut Random) -> Self {
        const ERRORS: [(Operation, DiskErrorKind); 8] = [
            (Operation::Write, DiskErrorKind::Failed),
            (Operation::Write, DiskErrorKind::NoSpace),
            (Operation::Sync, DiskErrorKind::Failed),
            (Operation::Read, DiskErrorKind::Failed),
            (Operation::Preallocate, DiskErrorKind::NoSpace),
            (Operation::Open, DiskErrorKind::Failed),
            (Operation::Rename, DiskErrorKind::Failed),
            (Operation::SyncDirectory, DiskErrorKind::Failed),
        ];
        let mut plan = Self {
            pieces_max: random.range(1..=6) as usize,
            yields_max: *random.pick(&[0, 1, 4, 16]),
            ..Self::default()
        };
        if random.chance(0.5) {
            let (operation, kind) = *random.pick(&ERRORS);
            let first = random.range(0..50);
            let when = *random.pick(&[When::Once(first), When::From(first), When::Chance(0.02)]);
            plan.rules.push(Rule::error(operation, when, kind));
        }
        plan
    }

    pub fn crash_at(step: u64) -> Self {
        Self { crash_at: Some(step), ..Self::default() }
    }

    /// This plan with a rule more.
    pub fn with(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }
}

impl Rule {
    /// Calls of `operation` fail.
    pub fn error(operation: Operation, when: When, kind: DiskErrorKind) -> Self {
        Self { operation: Some(operation), path_part: None, when, fault: Fault::Error(kind) }
    }

    /// Writes go elsewhere.
    pub fn misdirect(when: When, landing: Landing) -> Self {
        Self { operation: Some(Operation::Write), path_part: None, when, fault: Fault::Misdirect(landing) }
    }

    /// Writes get a bit wrong.
    pub fn flip_bit(when: When) -> Self {
        Self { operation: Some(Operation::Write), path_part: None, when, fault: Fault::FlipBit }
    }

    /// Restricts the rule to paths that contain `part`.
    pub fn in_path(mut self, part: &str) -> Self {
        self.path_part = Some(part.to_owned());
        self
    }

    fn matches(&self, operation: Operation, path: &Path) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation)
            && self.path_part.as_deref().is_none_or(|part| path.to_string_lossy().contains(part))
    }
}

impl When {
    fn strikes(self, matched_before: u64, random: &mut Random) -> bool {
        match self {
            When::Once(number) => matched_before == number,
            When::From(first) => matched_before >= first,
            When::Chance(probability) => random.chance(probability),
        }
    }
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        for rule in &rules {
            let writes_only = matches!(rule.fault, Fault::Misdirect(_) | Fault::FlipBit);
            assert!(
                !writes_only || rule.operation == Some(Operation::Write),
                "{:?} is for writes",
                rule.fault
            );
        }
        let matched = vec![0; rules.len()];
        Self { rules, matched }
    }

    /// The fault that strikes this call.
    pub(super) fn strike(&mut self, operation: Operation, path: &Path, random: &mut Random) -> Option<Fault> {
        let mut struck = None;
        // Every rule counts every call that it matches, struck by another or not: so numbers mean the same in any plan.
        for (rule, matched) in self.rules.iter().zip(&mut self.matched) {
            if rule.matches(operation, path) {
                let strikes = rule.when.strikes(*matched, random);
                *matched += 1;
                struck = struck.or(strikes.then_some(rule.fault));
            }
        }
        struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of ten syncs of `path` fail.
    fn check(rule: Rule, path: &str) -> Vec<u64> {
        let mut rules = Rules::new(vec![rule]);
        let mut random = Random::new(1);
        let struck = |_: &u64| {
            assert_eq!(rules.strike(Operation::Read, Path::new(path), &mut random), None);
            rules.strike(Operation::Sync, Path::new(path), &mut random).is_some()
        };
        (0..10).filter(struck).collect()
    }

    fn sync_error(when: When) -> Rule {
        Rule::error(Operation::Sync, when, DiskErrorKind::Failed)
    }

    #[test]
    fn rules_strike_when_they_say() {
        assert_eq!(check(sync_error(When::Once(3)), "a/log"), [3]);
        assert_eq!(check(sync_error(When::From(7)), "a/log"), [7, 8, 9]);
        assert_eq!(check(sync_error(When::From(7)).in_path("index"), "a/log"), Vec::<u64>::new());
        assert_eq!(check(sync_error(When::From(7)).in_path("log"), "a/log"), [7, 8, 9]);
        let some = check(sync_error(When::Chance(0.5)), "a/log");
        assert!(!some.is_empty() && some.len() < 10, "{some:?}");
    }

    #[test]
    fn sampled_plans_are_of_every_sort() {
        let mut random = Random::new(2);
        let plans: Vec<_> = (0..200).map(|_| FaultPlan::sampled(&mut random)).collect();
        let any = |wanted: fn(&FaultPlan) -> bool| plans.iter().any(wanted) && !plans.iter().all(wanted);
        assert!(any(|plan| plan.rules.is_empty()));
        assert!(any(|plan| plan.yields_max == 0));
        assert!(any(|plan| plan.pieces_max == 1));
        assert!(any(|plan| plan.rules.iter().any(|rule| rule.operation == Some(Operation::Sync))));
    }

    #[test]
    #[should_panic(expected = "is for writes")]
    fn only_writes_are_misdirected() {
        Rules::new(vec![Rule { operation: None, ..Rule::flip_bit(When::Once(0)) }]);
    }
}
