//! A disk that refuses: clean answers, reads go on, nothing that was answered is lost.

use turbopump::api::{Failure, Produce, Request, Status};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Rule, When};
use turbopump::disk::{DiskErrorKind, Operation};
use turbopump::types::{QueueKey, QueueNumber, QueueOffset};

use super::checks::check_restart;
use super::leases::create;
use super::node::{Node, Setup, on_node};
use super::workload::{Script, run};
use super::writing::batch;

fn check(script: &Script, plan: FaultPlan, label: &str) -> usize {
    let disk = FaultyDisk::new(script.seed, plan);
    let ledger = run(&disk, script);
    let struck = disk.injected().len();
    for (how, seed, outcome) in disk.outcomes(0..1) {
        let label = format!("{label}, script {}, {how:?}, outcome {seed}", script.seed);
        check_restart(&outcome, &script.setup, &ledger, how, &label);
    }
    struck
}

#[test]
fn errors_of_the_log_lose_nothing_that_was_answered() {
    let mut struck = 0;
    for (operation, kind) in [
        (Operation::Write, DiskErrorKind::Failed),
        (Operation::Write, DiskErrorKind::NoSpace),
        (Operation::Sync, DiskErrorKind::Failed),
    ] {
        for number in [2, 4, 7, 9, 12, 15, 19] {
            for when in [When::Once(number), When::From(number)] {
                let rule = Rule::error(operation, when, kind).in_path(".segment");
                let plan = FaultPlan::reordered().with(rule);
                let label = format!("{operation:?} {kind:?} {when:?}");
                struck += check(&Script::small(number), plan.clone(), &label);
                struck += check(&Script::small(number).overlapped(), plan, &format!("{label}, overlapped"));
            }
        }
    }
    assert!(struck > 20, "only {struck} faults");
}

#[test]
fn errors_anywhere_lose_nothing_that_was_answered() {
    for seed in 100..130 {
        let mut random = turbopump::testing::Random::new(seed);
        let plan = FaultPlan::sampled(&mut random);
        // Reads that fail while the node checks itself are no broken promise.
        let reads = plan.rules.iter().any(|rule| rule.operation == Some(Operation::Read));
        if !reads {
            let label = format!("{:?}", plan.rules);
            check(&Script::small(seed), plan.clone(), &label);
            check(&Script::small(seed).overlapped(), plan, &format!("{label}, overlapped"));
        }
    }
}

#[test]
fn a_full_disk_refuses_messages_and_keeps_what_it_has() {
    let mebibyte = 1024 * 1024;
    let mut script = Script::rolling(5);
    script.setup.retention_bytes = None;
    for room in [90, 105] {
        let plan = FaultPlan { total_bytes: Some(room * mebibyte), ..FaultPlan::none() };
        let disk = FaultyDisk::new(5, plan);
        let ledger = run(&disk, &script);
        let large = ledger.queues.values().flatten().filter(|sent| sent.bytes.len() > 3_000_000).count();
        assert!((1..14).contains(&large), "{large} large batches in {room} MiB");
        // The restart has the same room, so the check of new messages would meet the same wall: look only.
        for (how, _, outcome) in disk.outcomes(0..1) {
            let label = format!("{room} MiB, {how:?}");
            let promised = turbopump::types::Level::Durable;
            super::node::on_node(&outcome, &script.setup, 1, async |node| {
                super::checks::check_ledger(node, &ledger, promised, &label).await
            })
            .unwrap_or_else(|error| panic!("{label}: {error}"));
        }
    }
}

/// Stores a few large messages and reads them, as often as it takes to be refused, if it ever is.
async fn refused(node: &Node, key: QueueKey) -> Vec<Failure> {
    let mut told = Vec::new();
    for _ in 0..8 {
        let produce = Produce { key, level: None, batch: batch(3_900_000) };
        told.extend(node.handle(Request::Produce(produce)).await.err());
        told.extend(node.fetch(key, QueueOffset::ZERO).await.err());
    }
    told
}

/// What a client is told of a disk that fails names the shard and the reason. `status` says where it is, and `Node` looks at
/// every failure of every test.
#[test]
fn whoever_is_refused_for_the_disk_is_told_the_shard_and_the_reason_and_no_path() {
    for (operation, part, expected, is_shown) in [
        (Operation::Write, ".segment", "shard 0 takes no messages since: cannot write a file: ", true),
        (Operation::Sync, ".segment", "shard 0 takes no messages since: cannot flush a file: ", true),
        (Operation::Sync, ".segment", "the disk of shard 0 failed while it had the batch", true),
        (
            Operation::Preallocate,
            ".segment",
            "shard 0 takes no messages while its next segment cannot be made",
            true,
        ),
        (Operation::Read, ".segment", "the disk of shard 0 fails: cannot read a file: ", false),
    ] {
        let disk = FaultyDisk::new(3, FaultPlan::none());
        let ran = on_node(&disk, &Setup::default(), 1, async |node| {
            let key = QueueKey { topic: create(node, "t", 1).await, queue: QueueNumber(0) };
            let stored = refused(node, key).await;
            assert!(stored.is_empty(), "{operation:?}: {stored:?}");
            let rule = Rule::error(operation, When::From(0), DiskErrorKind::Failed).in_path(part);
            disk.set_plan(FaultPlan::none().with(rule));
            let told = refused(node, key).await;
            let has_said = |failure: &Failure| failure.message.starts_with(expected);
            assert!(told.iter().any(has_said), "{operation:?} {part}: {told:?}");
            let is_of_disk =
                |failure: &Failure| matches!(failure.status, Status::StorageFailed | Status::OutcomeUnknown);
            assert!(told.iter().all(is_of_disk), "{operation:?} {part}: {told:?}");
            let state = node.broker().condition();
            assert_eq!(state.contains("/data/shard-0/log"), is_shown, "{operation:?} {part}: {state}");
            disk.set_plan(FaultPlan::none());
        });
        ran.expect("an empty disk");
    }
}
