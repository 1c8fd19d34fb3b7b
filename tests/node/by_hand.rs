//! What is set up and tidied up by hand: groups, permissions, purges, messages that are taken back.

use serde_json::{Value, json};

use super::remoting::Remoting;
use crate::support::directory::test_directory;
use crate::support::load::{bounds, produce};
use crate::support::node::{Node, Setup, wait_for};

const SET_UP_GROUP: i32 = 200;
const GROUP_CONFIG: i32 = 352;

fn node(flags: &[&str]) -> (tempfile::TempDir, Node) {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(flags).start();
    (directory, node)
}

fn of(node: &Node, arguments: &[&str]) -> Value {
    node.run(&[arguments, &["-o", "json"]].concat()).json()
}

#[test]
fn groups_are_made_altered_held_and_cloned_by_name() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let told = node.run(&["group", "alter", "billing", "--deliveries", "3"]).badly(1);
    assert!(told.contains("`turbopump group create billing`"), "{told}");
    let made = of(&node, &["group", "create", "billing", "--deliveries", "3", "--retry-queues", "2"]);
    assert_eq!(
        (&made["deliveries"], &made["retry_queues"], &made["consume"]),
        (&3.into(), &2.into(), &true.into())
    );
    let told = node.run(&["group", "create", "billing"]).badly(1);
    assert!(told.contains("exists already"), "{told}");
    node.run(&["group", "alter", "billing"]).badly(2);
    let held = of(&node, &["group", "alter", "billing", "--consume", "false"]);
    assert_eq!((&held["deliveries"], &held["consume"]), (&3.into(), &false.into()));
    let told = node.run(&["message", "receive", "orders", "--group", "billing"]).badly(1);
    assert!(told.contains("`turbopump group alter billing --consume true`"), "{told}");
    node.run_well(&["group", "alter", "billing", "--consume", "true"]);

    produce(&node, "orders", 0, (0..5).map(|_| &b"x"[..]));
    node.run_well(&["consume", "orders", "--group", "billing", "--queue", "0", "--count", "3"]);
    let cloned = of(&node, &["group", "clone", "billing", "replay"]);
    assert_eq!(
        (&cloned["from"], &cloned["places"], &cloned["deliveries"]),
        (&"billing".into(), &1.into(), &3.into())
    );
    let left = node.run_well(&["consume", "orders", "--group", "replay", "--queue", "0"]);
    assert_eq!(left.lines().count(), 2, "{left}");
    node.run(&["group", "clone", "billing", "replay"]).badly(1);
    // A group may be treated otherwise in much that only RocketMQ's tools set.
    let policy = json!({ "type": "CUSTOMIZED", "customizedRetryPolicy": { "next": [1000, 7000] } });
    let shaped = json!({ "groupName": "shaped", "consumeEnable": false, "consumeBroadcastEnable": false,
        "consumeMessageOrderly": true, "retryQueueNums": 3, "retryMaxTimes": 5, "groupRetryPolicy": policy });
    let mut client = Remoting::connect(node.address());
    assert_eq!(client.ask(SET_UP_GROUP, &[], shaped.to_string().as_bytes()).code, 0);
    let cloned = of(&node, &["group", "clone", "shaped", "shaped-again"]);
    let terms =
        ["consume", "broadcast", "ordered", "retry_queues", "places"].map(|name| cloned[name].clone());
    assert_eq!(json!(terms), json!([false, false, true, 3, 0]));
    let mut asked = |group: &str| {
        let answer = client.ask(GROUP_CONFIG, &[("group", group)], b"");
        assert_eq!(answer.code, 0, "{answer:?}");
        let mut told: Value = serde_json::from_slice(answer.body()).expect("JSON");
        let told = told.as_object_mut().expect("an object");
        told.remove("groupName");
        Value::Object(std::mem::take(told))
    };
    let (shaped, again) = (asked("shaped"), asked("shaped-again"));
    assert_eq!(shaped, again);
    assert_eq!(shaped["groupRetryPolicy"]["customizedRetryPolicy"]["next"], json!([1000, 7000]));
    node.run(&["group", "clone", "nobody", "other"]).badly(1);
    let described = of(&node, &["group", "describe", "billing"]);
    assert_eq!(described["queues"][0]["committed"], 3, "the one that was cloned stays where it is");
}

#[test]
fn nothing_that_cannot_be_taken_back_is_done_without_a_question_or_a_yes() {
    let (_directory, node) = node(&[]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    produce(&node, "orders", 0, (0..5).map(|_| &b"x"[..]));
    node.run_well(&["consume", "orders", "--group", "g"]);
    for command in [
        &["topic", "delete", "orders"][..],
        &["topic", "purge", "orders"],
        &["group", "delete", "g"],
        &["group", "reset", "g", "orders", "--to", "first"],
    ] {
        let told = node.run(command).badly(2);
        assert!(told.contains("nothing was done") && told.contains("--yes"), "{command:?}: {told}");
    }
    // A name that nobody knows would become a group's.
    for more in ["--yes", "--dry-run"] {
        let told = node.run(&["group", "reset", "bulling", "orders", "--to", "first", more]).badly(1);
        assert!(told.contains("group bulling does not exist: `turbopump group create bulling`"), "{told}");
    }
    assert_eq!(node.run_well(&["group", "list"]), "g\n");
    // Where times are of what was stored, one that is to come is not meant.
    for command in [
        &["topic", "purge", "orders", "--yes", "--before", "2099-01-01T00:00:00Z"][..],
        &["group", "reset", "g", "orders", "--yes", "--to", "2099-01-01"],
        &["consume", "orders", "--from", "@4102444800000"],
    ] {
        let told = node.run(command).badly(2);
        assert!(told.contains("in the future"), "{command:?}: {told}");
    }
    let planned = of(&node, &["group", "reset", "g", "orders", "--to", "first", "--dry-run"]);
    let queues = json!([{"queue": 0, "old": 5, "new": 0}, {"queue": 1, "old": 0, "new": 0}]);
    assert_eq!((&planned["done"], &planned["queues"]), (&"nothing".into(), &queues));
    let described = of(&node, &["group", "describe", "g"]);
    assert_eq!(described["queues"][0]["committed"], 5);
    let done = node.run_well(&["group", "reset", "g", "orders", "--to", "first", "--yes"]);
    assert!(done.contains("QUEUE  OLD  NEW") && done.contains("group g reset"), "{done}");
    assert_eq!(node.run_well(&["consume", "orders", "--group", "g"]).lines().count(), 5);
}

#[test]
fn a_topic_is_closed_and_opened_by_its_permission() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    node.run_well(&["topic", "alter", "orders", "--permission", "read-only"]);
    let told = node.run(&["message", "publish", "orders", "x"]).badly(1);
    assert!(told.contains("topic alter orders --permission"), "{told}");
    assert_eq!(of(&node, &["topic", "describe", "orders"])["permission"], "read-only");
    node.run_well(&["topic", "alter", "orders", "--permission", "read-write", "--queues", "4"]);
    node.run_well(&["message", "publish", "orders", "x"]);
    assert_eq!(of(&node, &["topic", "describe", "orders"])["queue_count"], 4);
}

#[test]
fn a_purge_holds_over_kills_and_gives_back_the_disk() {
    let directory = test_directory();
    let setup = Setup::new(directory.path());
    let node = setup.start();
    node.run_well(&["topic", "create", "bulk", "--queues", "1"]);
    node.run_well(&["topic", "create", "kept", "--queues", "1"]);
    let body = vec![7; 1024 * 1024];
    let fill = |node: &Node| produce(node, "bulk", 0, (0..40).map(|_| &body[..]));
    fill(&node);
    produce(&node, "kept", 0, [&b"stays"[..]]);
    let segments = node.counter("segments");
    assert!(segments >= 3, "{segments} segments");
    let purged = of(&node, &["topic", "purge", "bulk", "--before", "-1h", "--yes"]);
    assert_eq!(purged["messages"], 0, "{purged}");
    let purged = of(&node, &["topic", "purge", "bulk", "--yes"]);
    assert_eq!((&purged["messages"], &purged["queues"][0]["first"]), (&40.into(), &40.into()));
    assert!(purged["shards"][0]["free_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{purged}");
    wait_for("the disk is given back", || node.counter("segments") < segments);
    node.kill();
    let node = setup.start();
    let (first, end) = bounds(&mut node.client(), "bulk", 0);
    assert_eq!((first.0, end.0), (40, 40));
    assert_eq!(node.run_well(&["consume", "bulk"]), "");
    assert_eq!(node.run_well(&["consume", "kept"]), "stays\n");
    // Now the other topic's message keeps what is written after it.
    fill(&node);
    let purged = of(&node, &["topic", "purge", "bulk", "--yes"]);
    let shard = &purged["shards"][0];
    assert!(shard["kept_by"] == "kept" && shard["kept_bytes"].as_u64() > Some(0), "{purged}");
    assert!(shard["kept_since"].as_str().is_some_and(|since| since.ends_with('Z')), "{purged}");
    let printed = node.run_well(&["topic", "purge", "bulk", "--yes"]);
    assert!(printed.contains("are shared with topic kept"), "{printed}");
}

#[test]
fn delayed_messages_are_found_and_taken_back_before_their_time() {
    let (_directory, node) = node(&["--shards", "2"]);
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    node.run_well(&["topic", "create", "other", "--queues", "1"]);
    for (number, delay) in [(0, "1h"), (1, "20h"), (2, "2h"), (3, "30d")] {
        let (body, key) = (format!("body {number}"), format!("k{number}"));
        node.run_well(&["message", "publish", "orders", &body, "--key", &key, "--delay", delay]);
    }
    node.run_well(&["message", "publish", "other", "x", "--delay", "1h"]);
    let listed = of(&node, &["delayed", "list", "orders"]);
    let bodies: Vec<_> =
        listed["messages"].as_array().expect("a list").iter().map(|one| &one["body"]).collect();
    assert_eq!(bodies, ["body 0", "body 2", "body 1", "body 3"], "in the order in which they come");
    let found = of(&node, &["message", "find", "orders", "--key", "k2"]);
    assert_eq!(found["messages"][0]["body"], "body 2");
    assert!(found["messages"][0]["due"].as_str().is_some_and(|due| due.ends_with('Z')), "{found}");
    let one = of(&node, &["delayed", "list", "orders", "--key", "k1"]);
    let id = one["messages"][0]["id"].as_str().expect("an id");
    let unique_id = found["messages"][0]["unique_id"].as_str().expect("an id");
    let recalled = of(&node, &["delayed", "recall", "orders", id, unique_id]);
    assert!(recalled["outcomes"].as_array().expect("a list").iter().all(|of| of["outcome"] == "recalled"));
    node.run(&["delayed", "recall", "orders", id]).badly(1);
    let left = of(&node, &["delayed", "list", "orders"]);
    assert_eq!(left["messages"].as_array().map(Vec::len), Some(2), "{left}");
    assert_eq!(of(&node, &["delayed", "list", "other"])["messages"].as_array().map(Vec::len), Some(1));
    node.run(&["message", "find", "orders", "--key", "k1"]).badly(1);
}
