//! Messages that go before their time: for whoever reads, after any restart, and whatever the index is built from.

use turbopump::api::{OffsetSpec, PurgeReport, PurgeTopic, Reply, Request};
use turbopump::disk::faulty::FaultyDisk;
use turbopump::types::{Level, QueueKey, QueueNumber};

use super::checks::remove_derived;
use super::held::{create_topic, disk};
use super::node::{Node, Setup, on_node, topic_name};
use super::workload::{Books, produce_sized};

async fn purge(node: &Node, topic: &str, before: OffsetSpec) -> PurgeReport {
    match node.handle(Request::PurgeTopic(PurgeTopic { topic: topic_name(topic), before })).await {
        Ok(Reply::Purged(report)) => report,
        other => panic!("a purge was asked for: {other:?}"),
    }
}

async fn fill(node: &Node, books: &Books, key: QueueKey, count: u64, bytes: usize) {
    for number in 0..count {
        produce_sized(node, books, key, Some(Level::Durable), number, bytes).await.expect("a healthy disk");
    }
}

fn bounds(node: &Node, key: QueueKey) -> (u64, u64) {
    let (first, end) = node.owner(key).index().bounds(key).expect("the queue is there");
    (first.0, end.0)
}

/// Starts again, from the snapshots or from the log alone.
fn again(disk: &FaultyDisk, setup: &Setup, from_log: bool, key: QueueKey) -> (u64, u64) {
    if from_log {
        remove_derived(disk, setup);
    }
    on_node(disk, setup, 2, async |node| bounds(node, key)).expect("a healthy disk")
}

#[test]
fn what_is_purged_is_gone_whatever_the_index_is_built_from() {
    let (disk, setup) = (disk(1), Setup { shard_count: 2, ..Setup::default() });
    let keys = on_node(&disk, &setup, 1, async |node| {
        let books = Books::default();
        let key = create_topic(node, "t", 2).await.expect("a healthy disk");
        let other = QueueKey { queue: QueueNumber(1), ..key };
        fill(node, &books, key, 5, 100).await;
        fill(node, &books, other, 3, 100).await;
        assert_eq!(purge(node, "t", OffsetSpec::First).await.queues[0].first.0, 0);
        let report = purge(node, "t", OffsetSpec::Last).await;
        let queues: Vec<_> =
            report.queues.iter().map(|queue| (queue.first_before.0, queue.first.0)).collect();
        assert_eq!(queues, [(0, 5), (0, 3)]);
        fill(node, &books, key, 2, 100).await;
        assert_eq!((bounds(node, key), bounds(node, other)), ((5, 7), (3, 3)));
        [key, other]
    });
    let [key, other] = keys.expect("an empty disk");
    assert_eq!(again(&disk, &setup, false, key), (5, 7));
    assert_eq!(again(&disk, &setup, true, key), (5, 7));
    assert_eq!(again(&disk, &setup, true, other), (3, 3), "no offset is given out twice");
}

#[test]
fn segments_go_once_no_topic_has_a_message_in_them() {
    let setup = Setup::default();
    on_node(&disk(2), &setup, 1, async |node| {
        let books = Books::default();
        let bulk = create_topic(node, "bulk", 1).await.expect("a healthy disk");
        let kept = create_topic(node, "kept", 1).await.expect("a healthy disk");
        fill(node, &books, bulk, 5, 3_900_000).await;
        fill(node, &books, kept, 1, 100).await;
        fill(node, &books, bulk, 9, 3_900_000).await;
        let pause = std::time::Duration::from_secs(10);
        node.clock.sleep(pause).await;
        let bases = || node.broker().log().segments().iter().map(|segment| segment.base).collect::<Vec<_>>();
        let before = bases();
        let report = purge(node, "bulk", OffsetSpec::Last).await;
        let (topic, _) = report.shards[0].kept_by.clone().expect("the other topic keeps some");
        assert_eq!(topic, topic_name("kept"));
        node.clock.sleep(pause).await;
        let after = bases();
        assert!(after.len() < before.len() && after.len() > 1, "{before:?} became {after:?}");
        assert_eq!(bounds(node, kept), (0, 1), "what is kept is there");
        assert_eq!(super::held::counter(node, "segments_removed"), (before.len() - after.len()) as u64);
        let report = purge(node, "kept", OffsetSpec::Last).await;
        assert_eq!(report.shards[0].kept_by, None);
        node.clock.sleep(pause).await;
        assert!(bases().len() <= 2, "only those that are written next are left: {:?}", bases());
    })
    .expect("an empty disk");
}
