//! Clocks that are wrong, and put right: nothing lasts longer for it than it was meant to, and nothing goes.

use std::time::Duration;

use turbopump::api::{ReceiveHalves, Reply, Request, TopicChange};
use turbopump::types::{Level, QueueKey, QueueNumber, Retention};

use super::checks::remove_derived;
use super::held::{TOPIC, create_topic, half_of, hold};
use super::leases::{SECOND, bodies, create, disk, killed, publish, receive, received};
use super::node::{Node, Setup, group_name, on_node_with_clock, topic_change, topic_name};

const DAY_MS: i64 = 86_400_000;
const CENTURY_MS: i64 = 100 * 365 * DAY_MS;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_lease_given_while_the_clock_was_ahead_ends_in_its_time() {
    for ahead in [DAY_MS, CENTURY_MS] {
        let (disk, setup) = disk();
        let ran = on_node_with_clock(&disk, &setup, ahead, async |node, clock| {
            let topic = create(node, "t", 1).await;
            publish(node, topic, 0, "", "m").await;
            let first = received(node, receive(1)).await;
            assert_eq!(first[0].receipt.lease_until.0, clock_of(node) + 10_000, "as the clock shows it");
            clock.shift_wall_clock(-ahead);
            node.clock.sleep(9 * SECOND).await;
            assert!(received(node, receive(1)).await.is_empty(), "it runs");
            node.clock.sleep(2 * SECOND).await;
            let second = received(node, receive(1)).await;
            assert_eq!(second[0].deliveries, 2);
            assert_eq!(second[0].receipt.lease_until.0, clock_of(node) + 10_000);
            assert_eq!(second[0].first_delivery.0, clock_of(node) - 11_000);
            // Now back before 1970.
            clock.shift_wall_clock(-i64::try_from(clock_of(node) + 5_000).expect("small"));
            node.clock.sleep(11 * SECOND).await;
            assert_eq!(received(node, receive(1)).await[0].deliveries, 3);
        });
        ran.expect("an empty disk");
    }
}

fn clock_of(node: &Node) -> u64 {
    node.clock.now().0
}

#[test]
fn a_lease_given_while_the_clock_was_ahead_ends_in_its_time_after_a_restart() {
    let (disk, setup) = disk();
    let first = on_node_with_clock(&disk, &setup, DAY_MS, async |node, _| {
        let topic = create(node, "t", 1).await;
        publish(node, topic, 0, "", "m").await;
        assert_eq!(received(node, receive(1)).await.len(), 1);
        killed(&disk)
    });
    let killed_disk = first.expect("an empty disk");
    for bare in [false, true] {
        let disk = killed(&killed_disk);
        if bare {
            remove_derived(&disk, &setup);
        }
        let ran = on_node_with_clock(&disk, &setup, 0, async |node, _| {
            node.clock.sleep(11 * SECOND).await;
            let again = received(node, receive(1)).await;
            assert_eq!((bodies(&again), again[0].deliveries), (vec!["m".to_owned()], 2), "bare: {bare}");
        });
        ran.expect("a healthy disk");
        // Once more: what was given in that run was given after the time that it had found.
        let ran = on_node_with_clock(&disk, &setup, -DAY_MS, async |node, _| {
            assert!(received(node, receive(1)).await.is_empty(), "bare: {bare}: it runs");
            node.clock.sleep(11 * SECOND).await;
            assert_eq!(received(node, receive(1)).await[0].deliveries, 3, "bare: {bare}");
        });
        ran.expect("a healthy disk");
    }
}

#[test]
fn producers_are_asked_in_time_when_the_clock_was_ahead() {
    let (disk, setup) = disk();
    let ask = async |node: &Node| {
        let (topic, producer_group) = (topic_name(TOPIC), group_name("producers"));
        let request = ReceiveHalves { topic, producer_group, count: 9, wait: Duration::ZERO };
        match node.handle(Request::ReceiveHalves(request)).await.expect("a healthy disk") {
            Reply::Halves(halves) => halves.len(),
            other => panic!("{other:?}"),
        }
    };
    let ran = on_node_with_clock(&disk, &setup, DAY_MS, async |node, clock| {
        let key = create_topic(node, TOPIC, 1).await.expect("an empty disk");
        for number in 0..2 {
            hold(node, key, Level::Durable, number, half_of(Some("producers")))
                .await
                .expect("a healthy disk");
        }
        clock.shift_wall_clock(-DAY_MS);
        node.clock.sleep(5 * SECOND).await;
        assert_eq!(ask(node).await, 0);
        node.clock.sleep(2 * SECOND).await;
        assert_eq!((ask(node).await, ask(node).await), (2, 0));
        node.clock.sleep(31 * SECOND).await;
        assert_eq!(ask(node).await, 2);
    });
    ran.expect("an empty disk");
    let ran = on_node_with_clock(&disk, &setup, 0, async |node, _| {
        node.clock.sleep(31 * SECOND).await;
        assert_eq!(ask(node).await, 2, "a day early by the clock");
    });
    ran.expect("a healthy disk");
}

/// Writes about a segment.
async fn fill(node: &Node, key: QueueKey) {
    for _ in 0..4 {
        publish(node, key.topic, 0, "", &"x".repeat(3_900_000)).await;
    }
    node.clock.sleep(2 * SECOND).await;
}

fn segments(node: &Node) -> usize {
    node.broker().log().segments().len()
}

fn first_offset(node: &Node, key: QueueKey) -> u64 {
    node.broker().index().bounds(key).expect("the queue").0.0
}

#[test]
fn retention_goes_on_when_the_clock_was_ahead_once() {
    let setup = Setup { retention_age: Some(HOUR), ..Setup::default() };
    for ahead in [DAY_MS, CENTURY_MS] {
        let (disk, _) = disk();
        let key = on_node_with_clock(&disk, &setup, ahead, async |node, clock| {
            let key = create_topic(node, "bulk", 1).await.expect("an empty disk");
            fill(node, key).await;
            clock.shift_wall_clock(-ahead);
            for _ in 1..4 {
                fill(node, key).await;
            }
            assert!(segments(node) >= 4);
            node.clock.sleep(40 * MINUTE).await;
            assert!(segments(node) >= 4, "not old enough");
            key
        });
        let key = key.expect("an empty disk");
        let ran = on_node_with_clock(&disk, &setup, 0, async |node, _| {
            let before = segments(node);
            node.clock.sleep(10 * MINUTE).await;
            assert_eq!(segments(node), before, "50 minutes");
            node.clock.sleep(12 * MINUTE).await;
            assert!(segments(node) <= 2, "{ahead}: {} of {before} segments", segments(node));
            assert!(first_offset(node, key) >= 8);
            // And so it goes on.
            for _ in 4..7 {
                fill(node, key).await;
            }
            assert!(segments(node) >= 4);
            node.clock.sleep(HOUR + 2 * MINUTE).await;
            assert!(segments(node) <= 2, "{ahead}: {} segments", segments(node));
        });
        ran.expect("a healthy disk");
    }
}

#[test]
fn a_topic_with_a_shorter_retention_ages_when_the_clock_was_ahead_once() {
    let (disk, setup) = disk();
    let ran = on_node_with_clock(&disk, &setup, CENTURY_MS, async |node, clock| {
        let retention = Some(Retention::Age(HOUR));
        let change = TopicChange { retention, ..topic_change("short", 1) };
        let topic = match node.handle(Request::CreateTopic(change)).await.expect("an empty disk") {
            Reply::Topic(info) => info.id,
            other => panic!("{other:?}"),
        };
        let key = QueueKey { topic, queue: QueueNumber(0) };
        fill(node, key).await;
        clock.shift_wall_clock(-CENTURY_MS);
        fill(node, key).await;
        let written = first_offset(node, key);
        assert_eq!(written, 0);
        node.clock.sleep(50 * MINUTE).await;
        assert_eq!(first_offset(node, key), 0);
        node.clock.sleep(12 * MINUTE).await;
        assert!(first_offset(node, key) >= 4, "{}", first_offset(node, key));
    });
    ran.expect("an empty disk");
}

#[test]
fn a_clock_that_was_behind_for_a_while_makes_nothing_old() {
    let setup = Setup { retention_age: Some(HOUR), ..Setup::default() };
    let (disk, _) = disk();
    let ran = on_node_with_clock(&disk, &setup, 0, async |node, clock| {
        let key = create_topic(node, "bulk", 1).await.expect("an empty disk");
        fill(node, key).await;
        clock.shift_wall_clock(-i64::try_from(clock_of(node) + 5_000).expect("small"));
        assert_eq!(clock_of(node), 0, "before 1970");
        for _ in 1..4 {
            fill(node, key).await;
        }
        node.clock.sleep(10 * MINUTE).await;
        key
    });
    let key = ran.expect("an empty disk");
    let ran = on_node_with_clock(&disk, &setup, 0, async |node, _| {
        node.clock.sleep(10 * MINUTE).await;
        assert_eq!(first_offset(node, key), 0);
        assert!(segments(node) >= 4);
    });
    ran.expect("a healthy disk");
}
