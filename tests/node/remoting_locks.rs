//! Locks over RocketMQ's own protocol: a consumer in order has a queue to itself until it gives it up, leaves, or is silent.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::remoting::{Remoting, heartbeat, json as body_of, node};
use super::remoting_sessions::reads;
use crate::support::directory::test_directory;
use crate::support::node::{Node, PATIENCE, Setup};

const HEART_BEAT: i32 = 34;
const UNREGISTER: i32 = 35;
const CHANGED: i32 = 40;
const LOCK: i32 = 41;
const UNLOCK: i32 = 42;

fn body(client: &str, queues: &[(&str, i64)]) -> Vec<u8> {
    let queue = |(topic, queue): &(&str, i64)| json!({ "topic": topic, "brokerName": "b", "queueId": queue });
    let queues: Vec<Value> = queues.iter().map(queue).collect();
    json!({ "clientId": client, "consumerGroup": "g", "mqSet": queues }).to_string().into_bytes()
}

/// The queues of `orders` that the client has now, of those that it asks for.
fn lock(connection: &mut Remoting, client: &str, queues: &[i64]) -> Vec<i64> {
    let asked: Vec<_> = queues.iter().map(|queue| ("orders", *queue)).collect();
    let answer = connection.ask(LOCK, &[], &body(client, &asked));
    assert_eq!(answer.code, 0, "{answer:?}");
    let granted = body_of(&answer)["lockOKMQSet"].clone();
    let granted = granted.as_array().expect("a list").iter().map(|queue| {
        assert_eq!((&queue["topic"], &queue["brokerName"]), (&json!("orders"), &json!("b")));
        queue["queueId"].as_i64().expect("a number")
    });
    granted.collect()
}

fn unlock(connection: &mut Remoting, client: &str, queues: &[i64]) {
    let asked: Vec<_> = queues.iter().map(|queue| ("orders", *queue)).collect();
    assert_eq!(connection.ask(UNLOCK, &[], &body(client, &asked)).code, 0);
}

/// A client of group `g` at a shard.
fn joined(address: &str, client: &str) -> Remoting {
    let mut connection = Remoting::connect(address);
    let here = reads(client, "g", "CLUSTERING", &["orders"]);
    assert_eq!(connection.ask(HEART_BEAT, &[], &here).code, 0);
    connection
}

fn with_topic(flags: &[&str]) -> (tempfile::TempDir, Node) {
    let (directory, node) = node(flags);
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    (directory, node)
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Who has which queue, as `group describe` shows it.
fn holders(node: &Node) -> Vec<(u64, String)> {
    let described = node.run_well(&["group", "describe", "g", "-o", "json"]);
    let described: Value = serde_json::from_str(&described).expect("JSON");
    let queues = described["queues"].as_array().expect("a list").iter();
    let held = queues.filter_map(|queue| {
        Some((queue["queue"].as_u64().expect("a number"), queue["member"].as_str()?.to_owned()))
    });
    held.collect()
}

#[test]
fn a_queue_is_one_clients_until_it_gives_it_up() {
    let (_directory, node) = with_topic(&["--shards", "2"]);
    let (mut a, mut b) = (joined(&node.addresses[1], "a@1"), joined(&node.addresses[1], "b@1"));
    assert_eq!(lock(&mut a, "a@1", &[0, 1, 2, -1]), [0, 1], "the broker has two queues");
    assert_eq!(lock(&mut b, "b@1", &[0, 1]), [0; 0]);
    assert_eq!(lock(&mut a, "a@1", &[1, 1]), [1, 1], "it has it still");
    assert_eq!(holders(&node), [(1, "a@1".to_owned()), (3, "a@1".to_owned())]);
    b.told.clear();
    unlock(&mut b, "b@1", &[0]);
    unlock(&mut b, "a@1", &[0]);
    assert_eq!(lock(&mut b, "b@1", &[0]), [0; 0], "nobody gives up what others have");
    unlock(&mut a, "a@1", &[0]);
    assert_eq!(b.told(1), [(CHANGED, "g".to_owned())], "it was refused, and is told to look again");
    assert_eq!(lock(&mut b, "b@1", &[0, 1]), [0]);
    assert_eq!(lock(&mut a, "a@1", &[0, 1]), [1]);
    assert_eq!(holders(&node), [(1, "b@1".to_owned()), (3, "a@1".to_owned())]);
    // Nobody has what is another shard's.
    assert_eq!(lock(&mut joined(node.address(), "a@1"), "a@1", &[0, 1]), [0, 1]);
}

#[test]
fn only_clients_of_the_group_get_queues_and_who_leaves_gives_them_up() {
    let (_directory, node) = with_topic(&["--shards", "2"]);
    let mut stranger = Remoting::connect(node.address());
    assert_eq!(lock(&mut stranger, "s@1", &[0, 1]), [0; 0]);
    assert_eq!(stranger.ask(HEART_BEAT, &[], &heartbeat("s@1", "other")).code, 0);
    assert_eq!(lock(&mut stranger, "s@1", &[0, 1]), [0; 0]);
    let mut a: Vec<_> = node.addresses.iter().map(|address| joined(address, "a@1")).collect();
    let mut b: Vec<_> = node.addresses.iter().map(|address| joined(address, "b@1")).collect();
    for (a, b) in a.iter_mut().zip(&mut b) {
        assert_eq!(lock(a, "a@1", &[0, 1]), [0, 1]);
        assert_eq!(lock(b, "b@1", &[0, 1]), [0; 0]);
    }
    let leave = [("clientID", "a@1"), ("consumerGroup", "g")];
    assert_eq!(a[1].ask(UNREGISTER, &leave, b"").code, 0);
    for b in &mut b {
        assert_eq!(lock(b, "b@1", &[0, 1]), [0, 1], "it has left everywhere");
    }
    assert_eq!(lock(&mut a[0], "a@1", &[0, 1]), [0; 0]);
}

#[test]
fn who_is_silent_for_a_lease_has_no_queue_any_more() {
    let (_directory, node) = with_topic(&["--lock-lease", "2s"]);
    let (mut a, mut b) = (joined(node.address(), "a@1"), joined(node.address(), "b@1"));
    assert_eq!(lock(&mut a, "a@1", &[0, 1]), [0, 1]);
    drop(a);
    let begun = Instant::now();
    assert_eq!(lock(&mut b, "b@1", &[0, 1]), [0; 0], "it may still be at work, wherever it is");
    wait_until("the lease ends", || lock(&mut b, "b@1", &[0, 1]) == [0, 1]);
    assert!(begun.elapsed() > Duration::from_millis(1_500), "after {:?}", begun.elapsed());
}

#[test]
fn who_was_refused_is_told_when_a_lease_has_ended() {
    let (_directory, node) = with_topic(&["--lock-lease", "1s"]);
    let (mut a, mut b) = (joined(node.address(), "a@1"), joined(node.address(), "b@1"));
    assert_eq!(lock(&mut a, "a@1", &[0]), [0]);
    assert_eq!(lock(&mut b, "b@1", &[0]), [0; 0]);
    b.told.clear();
    assert_eq!(b.told(1), [(CHANGED, "g".to_owned())]);
    assert_eq!(lock(&mut b, "b@1", &[0]), [0]);
    assert_eq!(lock(&mut a, "a@1", &[0]), [0; 0]);
}

#[test]
fn a_kill_of_the_broker_takes_no_queue_from_anybody() {
    let directory = test_directory();
    let setup = Setup::new(directory.path().join("data")).with(&["--lock-lease", "3s"]);
    let node = setup.start();
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    assert_eq!(lock(&mut joined(node.address(), "a@1"), "a@1", &[0, 1]), [0, 1]);
    node.kill();
    let node = setup.start();
    let begun = Instant::now();
    let mut b = joined(node.address(), "b@1");
    assert_eq!(lock(&mut b, "b@1", &[0, 1, 2]), [2]);
    // Its heartbeat may come later.
    let mut a = Remoting::connect(node.address());
    assert_eq!(lock(&mut a, "a@1", &[0, 2]), [0]);
    unlock(&mut a, "a@1", &[0]);
    assert_eq!(lock(&mut b, "b@1", &[0]), [0]);
    wait_until("a lease after the start", || lock(&mut b, "b@1", &[1]) == [1]);
    assert!(begun.elapsed() > Duration::from_secs(2), "after {:?}", begun.elapsed());
}

/// Clients ask for that of their group's retries as well, and again and again as long as they do not get it.
#[test]
fn the_queue_of_retries_is_anybodys_before_the_first_one() {
    let (_directory, node) = with_topic(&[]);
    for client in ["a@1", "b@1"] {
        let mut connection = joined(node.address(), client);
        for (topic, queue, count) in [("%RETRY%g", 0, 1), ("%RETRY%g", 1, 0), ("%RETRY%other", 0, 0)] {
            let answer = connection.ask(LOCK, &[], &body(client, &[(topic, queue)]));
            let granted = body_of(&answer)["lockOKMQSet"].as_array().map(Vec::len);
            assert_eq!(granted, Some(count), "{topic} {queue}");
        }
    }
}

#[test]
fn what_names_no_queues_is_refused_in_words() {
    let (_directory, node) = with_topic(&[]);
    let mut client = joined(node.address(), "a@1");
    for code in [LOCK, UNLOCK] {
        for body in ["", "{", "{}", r#"{"clientId":"a@1"}"#, r#"{"clientId":"a@1","consumerGroup":"g g"}"#] {
            let answer = client.ask(code, &[], body.as_bytes());
            assert!([1, 29].contains(&answer.code) && !answer.remark.is_empty(), "{body}: {answer:?}");
        }
        let nothing = client.ask(code, &[], br#"{"clientId":"a@1","consumerGroup":"g"}"#);
        assert_eq!(nothing.code, 0, "{nothing:?}");
    }
}
