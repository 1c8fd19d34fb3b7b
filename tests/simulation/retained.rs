//! Retention takes away what is pending at no time.

use std::time::Duration;

use turbopump::api::{Decision, Release};
use turbopump::disk::faulty::{FaultPlan, FaultyDisk, Rule, When};
use turbopump::disk::{DiskErrorKind, Operation};
use turbopump::types::{Level, Timestamp};

use super::checks::remove_derived;
use super::held::{TOPIC, counter, create_topic, delay, disk, end, half, hold, key_of, read, receive};
use super::node::{Node, Setup, on_node};
use super::workload::{Books, produce_sized};

/// Writes about a segment.
async fn fill(node: &Node, books: &Books, round: u64) {
    let key = key_of(node, "bulk").await.expect("made before");
    for number in 0..4 {
        let seed = round * 10 + number;
        produce_sized(node, books, key, Some(Level::Durable), seed, 3_900_000).await.expect("a healthy disk");
    }
    node.clock.sleep(Duration::from_secs(3)).await;
}

#[test]
fn pending_messages_outlive_the_segments_that_they_were_stored_in() {
    let disk = disk(1);
    let plain = Setup::default();
    let setup = Setup { retention_bytes: Some(2 * plain.segment_bytes), ..plain };
    let first = on_node(&disk, &setup, 1, async |node| {
        let books = Books::default();
        let key = create_topic(node, TOPIC, 1).await.expect("an empty disk");
        create_topic(node, "bulk", 1).await.expect("an empty disk");
        let start = node.clock.now().0;
        let mut receipts = Vec::new();
        for number in 0..20 {
            delay(node, key, number, Timestamp(start + 3_600_000 + 977_000 * (number % 7))).await;
            receipts.push(half(node, key, 100 + number, Some("producers")).await);
        }
        end(node, receipts[0], Decision::Rollback).await.expect("a healthy disk");
        end(node, receipts[1], Decision::Commit).await.expect("a healthy disk");
        for round in 0..4 {
            fill(node, &books, round).await;
        }
        let first = node.broker().log().first_position();
        assert!(first > receipts[19].position, "the first segment is gone");
        assert!(counter(node, "held_rolled") >= 38, "{} were placed again", counter(node, "held_rolled"));
        end(node, receipts[2], Decision::Rollback).await.expect("a healthy disk");
        end(node, receipts[3], Decision::Commit).await.expect("a healthy disk");
        for round in 4..7 {
            fill(node, &books, round).await;
        }
        end(node, receipts[4], Decision::Commit).await.expect("a healthy disk");
        receipts
    });
    let receipts = first.expect("an empty disk");
    for bare in [false, true] {
        let disk = disk.outcome(turbopump::disk::faulty::Restart::ProcessKill, 1);
        if bare {
            remove_derived(&disk, &setup);
        }
        let second = on_node(&disk, &setup, 2, async |node| {
            let key = key_of(node, TOPIC).await.expect("the topic");
            end(node, receipts[5], Decision::Commit).await.expect("a healthy disk");
            node.clock.sleep(Duration::from_secs(7)).await;
            let open = receive(node, "producers", Duration::ZERO).await.expect("a healthy disk");
            let open: Vec<_> = open.iter().map(|half| half.receipt).collect();
            assert_eq!(open, receipts[6..], "bare: {bare}");
            node.clock.sleep(Duration::from_secs(4 * 3600)).await;
            read(node, key).await.into_iter().map(|(number, _)| number).collect::<Vec<_>>()
        });
        let mut seen = second.expect("a healthy disk");
        // What was committed in the first run may have gone with its segment.
        seen.retain(|number| ![101, 103, 104].contains(number));
        let mut delayed: Vec<u64> = (0..20).collect();
        delayed.sort_by_key(|number| (number % 7, *number));
        let expected: Vec<_> = std::iter::once(105).chain(delayed).collect();
        assert_eq!(seen, expected, "bare: {bare}");
    }
}

#[test]
fn a_log_full_of_pending_messages_is_not_copied_round_and_round() {
    let disk = disk(2);
    let plain = Setup::default();
    let setup = Setup { retention_bytes: Some(2 * plain.segment_bytes), ..plain };
    let checked = on_node(&disk, &setup, 1, async |node| {
        let key = create_topic(node, TOPIC, 1).await.expect("an empty disk");
        let due = Timestamp(node.clock.now().0 + 24 * 3_600_000);
        let body = vec![7; 3_900_000];
        for _ in 0..16 {
            let message =
                turbopump::testing::generators::Message { body: body.clone(), ..Default::default() };
            let batch = turbopump::testing::generators::batch(&[message], Timestamp(1)).into();
            let release = Release::At(due);
            let hold = turbopump::api::Hold { key, level: Some(Level::Durable), batch, release };
            node.handle(turbopump::api::Request::Hold(hold)).await.expect("a healthy disk");
        }
        node.clock.sleep(Duration::from_secs(600)).await;
        let rolled = counter(node, "held_rolled");
        assert!(rolled <= 16, "{rolled} were placed again");
        hold(node, key, Level::Durable, 1, Release::At(Timestamp(5))).await.expect("a healthy disk");
    });
    checked.expect("an empty disk");
}

/// On a full disk nothing but retention makes room: it does not wait for a snapshot, which the next start does without.
#[test]
fn retention_goes_on_when_no_snapshot_can_be_written() {
    let full = Rule::error(Operation::Write, When::From(1), DiskErrorKind::NoSpace).in_path("snapshot");
    let disk = FaultyDisk::new(1, FaultPlan::reordered().with(full));
    let plain = Setup::default();
    let setup = Setup { retention_bytes: Some(2 * plain.segment_bytes), ..plain };
    let ran = on_node(&disk, &setup, 1, async |node| {
        let books = Books::default();
        let key = create_topic(node, "bulk", 1).await.expect("an empty disk");
        for round in 0..6 {
            fill(node, &books, round).await;
        }
        node.clock.sleep(Duration::from_secs(60)).await;
        assert!(!disk.injected().is_empty(), "no snapshot was ever tried");
        let segments = node.broker().log().segments().len();
        assert!(segments <= 4, "{segments} segments are there");
        (key, node.broker().index().bounds(key))
    });
    let (key, bounds) = ran.expect("an empty disk");
    let disk = disk.outcome(turbopump::disk::faulty::Restart::ProcessKill, 1);
    let again = on_node(&disk, &setup, 2, async |node| node.broker().index().bounds(key));
    assert_eq!(again.expect("a healthy disk"), bounds, "what is left is there after a restart");
}

/// A log that ends so close to the end of its last segment that not even a checkpoint fits, on a full disk: who then asks for less
/// to be kept gets room.
#[test]
fn a_shorter_retention_makes_room_on_a_disk_that_is_full_to_the_last_block() {
    let plain = Setup::default();
    let disk = FaultyDisk::new(1, FaultPlan { total_bytes: Some(180 << 20), ..FaultPlan::none() });
    let filled = on_node(&disk, &plain, 1, async |node| {
        let books = Books::default();
        let key = create_topic(node, "bulk", 1).await.expect("an empty disk");
        for bytes in [3_900_000, 400_000, 40_000, 4_000, 400, 64] {
            while produce_sized(node, &books, key, Some(Level::Durable), 1, bytes).await.is_ok() {
                node.clock.sleep(Duration::from_secs(3)).await;
            }
        }
        key
    });
    let key = filled.expect("an empty disk");
    let disk = disk.outcome(turbopump::disk::faulty::Restart::ProcessKill, 1);
    let setup = Setup { retention_bytes: Some(2 * plain.segment_bytes), ..plain };
    let ran = on_node(&disk, &setup, 2, async |node| {
        node.clock.sleep(Duration::from_secs(60)).await;
        let first = node.broker().index().bounds(key).expect("the queue").0;
        assert!(first.0 > 0, "nothing has gone");
        assert_eq!(node.broker().condition(), "", "it takes messages again");
    });
    ran.expect("a full disk that starts");
}
