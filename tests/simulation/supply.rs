//! Segments that are used again, and a disk that makes no new one, for another reason than being full.

use std::collections::BTreeSet;
use std::time::Duration;

use turbopump::api::{Failure, Produce, Produced, Reply, Request, Status};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Rule, When};
use turbopump::disk::{DiskErrorKind, Operation};
use turbopump::testing::{Trace, generators};
use turbopump::types::{QueueKey, QueueNumber, QueueOffset, Timestamp};

use super::node::{Node, Setup, on_node, topic_change};

/// Longer than anybody waits.
const PATIENCE: Duration = Duration::from_secs(60);

async fn topic(node: &Node) -> QueueKey {
    match node.handle(Request::CreateTopic(topic_change("t", 1))).await {
        Ok(Reply::Topic(info)) => QueueKey { topic: info.id, queue: QueueNumber(0) },
        other => panic!("no topic: {other:?}"),
    }
}

/// Sends a large batch; `None` when no answer comes.
async fn send(node: &Node, key: QueueKey) -> Option<Result<Produced, Failure>> {
    let message = generators::Message { body: vec![7; 3_900_000], ..Default::default() };
    let batch = generators::batch(&[message], Timestamp(1_000)).into();
    let sending = async {
        match node.handle(Request::Produce(Produce { key, level: None, batch })).await {
            Ok(Reply::Produced(produced)) => Some(Ok(produced)),
            Ok(other) => panic!("{other:?}"),
            Err(failure) => Some(Err(failure)),
        }
    };
    let waiting = async {
        node.clock.sleep(PATIENCE).await;
        None
    };
    futures_lite::future::or(sending, waiting).await
}

fn failing(operation: Operation, when: When) -> FaultPlan {
    FaultPlan::none().with(Rule::error(operation, when, DiskErrorKind::Failed).in_path("/log"))
}

const OPERATIONS: [Operation; 3] = [Operation::Preallocate, Operation::Open, Operation::SyncDirectory];

#[test]
fn producers_are_told_when_no_segment_can_be_made_and_go_on_when_one_can() {
    for operation in OPERATIONS {
        let disk = FaultyDisk::new(1, FaultPlan::none());
        let ran = on_node(&disk, &Setup::default(), 1, async |node| {
            let key = topic(node).await;
            disk.set_plan(failing(operation, When::From(0)));
            let mut stored = 0;
            let failure = loop {
                match send(node, key).await {
                    Some(Ok(_)) => stored += 1,
                    Some(Err(failure)) => break failure,
                    None => panic!("{operation:?}: no answer after {stored} batches"),
                }
            };
            assert!((3..5).contains(&stored), "{operation:?}: {stored} batches in a segment");
            assert_eq!(failure.status, Status::StorageFailed, "{operation:?}: {failure:?}");
            let state = node.broker().condition();
            // The operator is told where, and clients are not.
            let (said, _) = failure.message.rsplit_once(": cannot ").expect("what it cannot");
            assert!(state.starts_with(&format!("{said}: cannot ")), "{operation:?}: {state}, {failure:?}");
            assert!(state.contains("/data/shard-0/log"), "{operation:?}: {state}");
            let refused = send(node, key).await.expect("an answer");
            assert!(refused.is_err(), "{operation:?}: {refused:?}");
            let fetched = node.fetch(key, QueueOffset::ZERO).await.expect("reads are served");
            assert_eq!(fetched.end_offset, QueueOffset(stored));
            // It passes.
            disk.set_plan(FaultPlan::none());
            node.clock.sleep(Duration::from_secs(3)).await;
            assert_eq!(node.broker().condition(), "", "{operation:?}");
            for number in 0..8 {
                let sent = send(node, key).await.expect("an answer").expect("a healthy disk");
                assert_eq!(sent.base_offset, QueueOffset(stored + number), "{operation:?}");
            }
        });
        ran.expect("an empty disk");
    }
}

#[test]
fn a_failure_that_passes_is_not_noticed() {
    for operation in OPERATIONS.into_iter().chain([Operation::Rename]) {
        let setup = Setup { retention_bytes: Some(2 * Setup::default().segment_bytes), ..Setup::default() };
        let disk = FaultyDisk::new(2, FaultPlan::none());
        let ran = on_node(&disk, &setup, 1, async |node| {
            let key = topic(node).await;
            for round in 0..5 {
                disk.set_plan(failing(operation, When::Once(0)));
                for number in 0..4 {
                    let sent = send(node, key).await.expect("an answer");
                    assert!(sent.is_ok(), "{operation:?}, round {round}, {number}: {sent:?}");
                }
                node.clock.sleep(Duration::from_secs(2)).await;
            }
        });
        ran.expect("an empty disk");
    }
}

#[test]
fn a_log_that_is_written_fast_uses_its_files_again() {
    let setup = Setup { retention_bytes: Some(2 * Setup::default().segment_bytes), ..Setup::default() };
    let disk = FaultyDisk::new(3, FaultPlan::none());
    let trace = Trace::new();
    trace.record_lines();
    disk.set_trace(trace.clone());
    let ran = on_node(&disk, &setup, 1, async |node| {
        let key = topic(node).await;
        for _ in 0..60 {
            send(node, key).await.expect("an answer").expect("a healthy disk");
        }
        node.broker().log().segments().last().expect("a log has a segment").base
    });
    let used = ran.expect("an empty disk").0 / setup.segment_bytes;
    let lines = trace.lines();
    let files = |operation: &str| {
        let of_segments =
            lines.iter().filter(|line| line.starts_with(operation) && line.contains(".segment"));
        let paths: BTreeSet<_> = of_segments.map(|line| line.split(" [").next()).collect();
        paths.len()
    };
    assert!(used >= 14, "{used} segments");
    assert_eq!(files("remove"), 0, "files were removed while others had to be made");
    let made = files("preallocate");
    assert!((1..=4).contains(&made), "{made} files were made for {used} segments");
}
