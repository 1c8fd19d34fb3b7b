//! Dead letters that are sent once more: what of them is kept, where they go to, and what refuses them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use turbopump::api::{
    Failure, Produce, Redrive, RedriveReport, Redriven, RedrivenRanges, Reply, Request, Status,
};
use turbopump::broker::PeerRequest;
use turbopump::testing::generators;
use turbopump::types::{Level, QueueKey, QueueNumber, QueueOffset, Timestamp};

use super::held::{create_topic, disk, key_of, read};
use super::node::{Node, Setup, group_name, on_node, topic_name};

pub const GROUP: &str = "g";
pub const DEAD: &str = "%DLQ%g";

pub fn two_shards() -> Setup {
    Setup { shard_count: 2, ..Setup::default() }
}

/// A dead letter as a group's receives and RocketMQ's clients leave it.
pub async fn bury(
    node: &Node,
    key: QueueKey,
    number: u64,
    sharding_key: Option<&str>,
) -> Result<(), Failure> {
    let sharding = sharding_key.map_or(String::new(), |key| format!("__SHARDINGKEY\u{1}{key}\u{2}"));
    let properties = format!(
        "{sharding}RETRY_TOPIC\u{1}orders\u{2}DLQ_ORIGIN_TOPIC\u{1}orders\u{2}RECONSUME_TIME\u{1}3\u{2}"
    );
    let message = generators::Message {
        body: number.to_le_bytes().to_vec(),
        properties: properties.into_bytes(),
        ..Default::default()
    };
    let batch = generators::batch(&[message], Timestamp(1_000)).into();
    node.handle(Request::Produce(Produce { key, level: Some(Level::Durable), batch })).await.map(drop)
}

pub fn queue(key: QueueKey, queue: u32) -> QueueKey {
    QueueKey { queue: QueueNumber(queue), ..key }
}

pub async fn redrive(node: &Node, of: u32, offsets: &[u64], to: &str) -> Result<RedriveReport, Failure> {
    let offsets = offsets.iter().map(|offset| QueueOffset(*offset)).collect();
    let redrive = Redrive { group: group_name(GROUP), queue: QueueNumber(of), offsets, to: topic_name(to) };
    match node.handle(Request::Redrive(redrive)).await? {
        Reply::Redriven(report) => Ok(report),
        other => panic!("a redrive was asked for: {other:?}"),
    }
}

pub async fn ranges(node: &Node, of: u32) -> RedrivenRanges {
    let (group, queue, from) = (group_name(GROUP), QueueNumber(of), QueueOffset::ZERO);
    match node.handle(Request::RedrivenRanges { group, queue, from }).await {
        Ok(Reply::RedrivenRanges(ranges)) => ranges,
        other => panic!("ranges were asked for: {other:?}"),
    }
}

async fn numbers(node: &Node, topic: &str, queue_count: u32) -> BTreeSet<u64> {
    let mut found = Vec::new();
    let Some(key) = key_of(node, topic).await else { return BTreeSet::new() };
    for of in 0..queue_count {
        found.extend(read(node, queue(key, of)).await.into_iter().map(|(number, _)| number));
    }
    let count = found.len();
    let found: BTreeSet<_> = found.into_iter().collect();
    assert_eq!(found.len(), count, "some are there twice");
    found
}

fn all_moved(report: &RedriveReport) -> bool {
    report.stopped.is_none()
        && report.outcomes.iter().all(|outcome| matches!(outcome, Redriven::Moved { .. }))
}

#[test]
fn dead_letters_of_any_shard_go_to_queues_of_any_shard_and_once() {
    on_node(&disk(1), &two_shards(), 1, async |node| {
        create_topic(node, "orders", 4).await.expect("a healthy disk");
        create_topic(node, "one", 1).await.expect("a healthy disk");
        let dead = create_topic(node, DEAD, 2).await.expect("a healthy disk");
        for number in 0..12 {
            let sharding_key = (number >= 4).then(|| format!("key {number}"));
            bury(node, queue(dead, number % 2), u64::from(number), sharding_key.as_deref())
                .await
                .expect("healthy");
        }
        for of in 0..2 {
            assert!(all_moved(&redrive(node, of, &[0, 2, 4], "orders").await.expect("a healthy disk")));
            assert_eq!(
                ranges(node, of).await.ranges,
                [0, 2, 4].map(|at| QueueOffset(at)..QueueOffset(at + 1))
            );
        }
        assert_eq!(numbers(node, "orders", 4).await, [0, 1, 4, 5, 8, 9].into());
        // A single queue, of shard 0.
        for of in 0..2 {
            let report = redrive(node, of, &[0, 1, 2, 3, 4, 5, 6, 1], "one").await.expect("a healthy disk");
            let moved =
                |at| Redriven::Moved { queue: QueueNumber(0), offset: QueueOffset(at + 3 * u64::from(of)) };
            let expected = [
                Redriven::Before,
                moved(0),
                Redriven::Before,
                moved(1),
                Redriven::Before,
                moved(2),
                Redriven::Gone,
                Redriven::Before,
            ];
            assert_eq!((report.outcomes, report.stopped), (expected.to_vec(), None));
            let all: Range<_> = QueueOffset(0)..QueueOffset(6);
            assert_eq!((ranges(node, of).await.ranges, ranges(node, of).await.moving), (vec![all], None));
        }
        assert_eq!(numbers(node, "one", 1).await, [2, 3, 6, 7, 10, 11].into());
        assert_eq!(numbers(node, DEAD, 2).await.len(), 12, "they are stored until retention takes them");
    })
    .expect("an empty disk");
}

#[test]
fn messages_of_one_sharding_key_share_a_queue_and_others_stay_in_their_shard() {
    on_node(&disk(2), &two_shards(), 1, async |node| {
        create_topic(node, "orders", 8).await.expect("a healthy disk");
        let dead = create_topic(node, DEAD, 2).await.expect("a healthy disk");
        for of in 0..2 {
            for number in 0..4 {
                let sharding_key = ["a", "b"].get(number as usize).copied();
                bury(node, queue(dead, of), number, sharding_key).await.expect("a healthy disk");
            }
            let report = redrive(node, of, &[0, 1, 2, 3], "orders").await.expect("a healthy disk");
            let queues = report.outcomes.iter().map(|outcome| match outcome {
                Redriven::Moved { queue, .. } => queue.0,
                other => panic!("it was to be moved: {other:?}"),
            });
            let queues: Vec<_> = queues.collect();
            assert_eq!(queues[..2], ["a", "b"].map(|key| QueueNumber::of_key(key.as_bytes(), 8).0));
            assert!(queues[2] % 2 == of && queues[3] % 2 == of && queues[2] != queues[3], "{queues:?}");
        }
    })
    .expect("an empty disk");
}

#[test]
fn what_cannot_be_moved_stays_a_dead_letter_and_says_why() {
    on_node(&disk(3), &two_shards(), 1, async |node| {
        let refused = async |of, to| redrive(node, of, &[0], to).await.expect_err("refused").status;
        assert_eq!(refused(0, "orders").await, Status::TopicNotExist, "there are no dead letters");
        let dead = create_topic(node, DEAD, 2).await.expect("a healthy disk");
        for of in 0..2 {
            bury(node, queue(dead, of), u64::from(of), None).await.expect("a healthy disk");
        }
        assert_eq!(refused(0, "orders").await, Status::TopicNotExist);
        create_topic(node, "orders", 1).await.expect("a healthy disk");
        assert_eq!(refused(2, "orders").await, Status::QueueNotExist);
        assert_eq!(refused(0, DEAD).await, Status::InvalidArgument);
        assert_eq!(ranges(node, 1).await, RedrivenRanges::default());
        for of in 0..2 {
            assert!(all_moved(&redrive(node, of, &[0], "orders").await.expect("a healthy disk")));
        }
        assert_eq!(numbers(node, "orders", 1).await, [0, 1].into());
    })
    .expect("an empty disk");
}

/// The topic that it was to go to goes in between: what was begun is settled, and the next redrive sends it elsewhere.
#[test]
fn what_was_begun_to_a_topic_that_is_gone_since_goes_elsewhere() {
    on_node(&disk(4), &two_shards(), 1, async |node| {
        create_topic(node, "first", 1).await.expect("a healthy disk");
        create_topic(node, "second", 1).await.expect("a healthy disk");
        let dead = create_topic(node, DEAD, 2).await.expect("a healthy disk");
        bury(node, queue(dead, 1), 7, None).await.expect("a healthy disk");
        let redrive_to_first = redrive(node, 1, &[0], "first");
        // Its shard has said where it goes to, and the other has not got it.
        let begun = async {
            while ranges(node, 1).await.moving.is_none() {
                node.clock.sleep(Duration::from_micros(50)).await;
            }
        };
        let left = futures_lite::future::or(async { Some(redrive_to_first.await) }, async {
            begun.await;
            None
        });
        assert!(left.await.is_none(), "its client has gone");
        node.handle(Request::DeleteTopic(topic_name("first"))).await.expect("a healthy disk");
        assert!(all_moved(&redrive(node, 1, &[0], "second").await.expect("a healthy disk")));
        assert_eq!(numbers(node, "second", 1).await, [7].into());
        assert_eq!(ranges(node, 1).await.moving, None);
    })
    .expect("an empty disk");
}

/// Whoever is asked once more for what came before, since the one who asked went away, takes it once.
#[test]
fn a_late_copy_of_what_was_sent_before_is_not_taken() {
    on_node(&disk(5), &two_shards(), 1, async |node| {
        let one = create_topic(node, "one", 1).await.expect("a healthy disk");
        let dead = create_topic(node, DEAD, 2).await.expect("a healthy disk");
        for number in 0..2 {
            bury(node, queue(dead, 1), number, None).await.expect("a healthy disk");
        }
        let sent = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        node.overhear(sent.clone());
        assert!(all_moved(&redrive(node, 1, &[0, 1], "one").await.expect("a healthy disk")));
        let mut sent = sent.take();
        sent.retain(|letter| matches!(letter, PeerRequest::TakeRedriven(_)));
        assert_eq!(sent.len(), 2, "one letter for each");
        for letter in &sent {
            let _ = node.owner(one).handle_peer(letter.clone()).await;
        }
        assert_eq!(read(node, one).await.len(), 2, "they are there once");
    })
    .expect("an empty disk");
}

/// The letter comes once more after the receiving shard has rolled on, and has read its log from the start.
#[test]
fn what_has_come_is_known_when_the_segment_that_said_so_is_gone() {
    let segment_bytes = Setup::default().segment_bytes;
    let setup = Setup { retention_bytes: Some(2 * segment_bytes), ..two_shards() };
    let disk = disk(7);
    let sent = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let first = on_node(&disk, &setup, 1, async |node| {
        let one = create_topic(node, "one", 1).await.expect("a healthy disk");
        let dead = create_topic(node, DEAD, 2).await.expect("a healthy disk");
        bury(node, queue(dead, 1), 7, None).await.expect("a healthy disk");
        node.overhear(sent.clone());
        assert!(all_moved(&redrive(node, 1, &[0], "one").await.expect("a healthy disk")));
        fill(node).await;
        assert!(read(node, one).await.is_empty(), "retention has taken it");
        one
    });
    let one = first.expect("an empty disk");
    super::checks::remove_derived(&disk, &setup);
    let letter = sent.take().into_iter().find(|letter| matches!(letter, PeerRequest::TakeRedriven(_)));
    on_node(&disk, &setup, 2, async |node| {
        let end = node.owner(one).index().bounds(one);
        let _ = node.owner(one).handle_peer(letter.expect("it was sent")).await;
        assert_eq!(node.owner(one).index().bounds(one), end, "it is not taken once more");
    })
    .expect("a healthy disk");
}

/// Makes segments of shard 0 come and go.
async fn fill(node: &Node) {
    let bulk = create_topic(node, "bulk", 1).await.expect("a healthy disk");
    let books = super::workload::Books::default();
    for number in 0..9 {
        let level = Some(Level::Durable);
        super::workload::produce_sized(node, &books, bulk, level, number, 3_900_000).await.expect("healthy");
        node.clock.sleep(Duration::from_secs(2)).await;
    }
}

#[test]
fn marks_of_dead_letters_that_are_gone_are_forgotten_and_come_back_with_nothing() {
    let segment_bytes = Setup::default().segment_bytes;
    let setup = Setup { retention_bytes: Some(2 * segment_bytes), ..two_shards() };
    on_node(&disk(6), &setup, 1, async |node| {
        create_topic(node, "orders", 2).await.expect("a healthy disk");
        let dead = create_topic(node, DEAD, 2).await.expect("a healthy disk");
        for number in 0..6 {
            bury(node, dead, number, None).await.expect("a healthy disk");
        }
        assert!(all_moved(&redrive(node, 0, &[0, 2, 4], "orders").await.expect("a healthy disk")));
        assert_eq!(ranges(node, 0).await.ranges.len(), 3);
        fill(node).await;
        bury(node, dead, 6, None).await.expect("a healthy disk");
        let report = redrive(node, 0, &[1, 6], "orders").await.expect("a healthy disk");
        assert!(matches!(report.outcomes[..], [Redriven::Gone, Redriven::Moved { .. }]), "{report:?}");
        assert_eq!(
            ranges(node, 0).await.ranges,
            [QueueOffset(0)..QueueOffset(6), QueueOffset(6)..QueueOffset(7)]
        );
    })
    .expect("an empty disk");
}
