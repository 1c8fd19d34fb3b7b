//! Topics and groups of Apache's broker, from files that one has written.

use std::fs;

use serde_json::Value;

use crate::support::directory::test_directory;
use crate::support::node::{Node, Setup};

fn import(node: &Node, directory: &str, more: &[&str]) -> (Option<i32>, Value) {
    let outcome = node.run(&[&["import-rocketmq", directory, "-o", "json"], more].concat());
    let view =
        serde_json::from_slice(&outcome.stdout).unwrap_or_else(|_| panic!("no object: {}", outcome.stderr));
    (outcome.code, view)
}

fn fate<'a>(view: &'a Value, kind: &str, name: &str) -> &'a str {
    let outcomes = view["outcomes"].as_array().expect("a list");
    let found = outcomes.iter().find(|outcome| outcome["kind"] == kind && outcome["name"] == name);
    found.and_then(|outcome| outcome["fate"].as_str()).unwrap_or_else(|| panic!("no {kind} {name} in {view}"))
}

/// `tests/data/rocketmq-config` is the folder `config` of a broker 5.5.0 after mqadmin had set these topics and groups up.
#[test]
fn what_apaches_broker_has_is_made_and_told_line_by_line() {
    let directory = test_directory();
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rocketmq-config");
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    let (code, dry) = import(&node, files, &["--dry-run"]);
    assert_eq!(code, Some(0), "{dry}");
    assert_eq!(fate(&dry, "topic", "orders"), "made");
    assert_eq!(
        node.run_well(&["topic", "list", "-o", "json"]).matches("orders").count(),
        0,
        "nothing is made"
    );
    let (code, view) = import(&node, files, &[]);
    assert_eq!(code, Some(0), "{view}");
    for (kind, name, expected) in [
        ("topic", "orders", "made"),
        ("topic", "closed", "made"),
        ("topic", "steps", "made"),
        ("topic", "TBW102", "left-out"),
        ("topic", "DefaultCluster", "left-out"),
        ("topic", "RMQ_SYS_TRANS_HALF_TOPIC", "left-out"),
        ("group", "billing", "made"),
        ("group", "TOOLS_CONSUMER", "left-out"),
        ("place", "orders@billing", "left-out"),
    ] {
        assert_eq!(fate(&view, kind, name), expected, "{kind} {name}: {view}");
    }
    let topic = |name: &str| -> Value {
        serde_json::from_str(&node.run_well(&["topic", "describe", name, "-o", "json"])).expect("an object")
    };
    // As many queues as there, so that what hashes to one does so here.
    assert_eq!(topic("orders")["queue_count"], 5);
    assert_eq!(topic("closed")["permission"], "read-only");
    assert_eq!(topic("kept")["retention"], "1h");
    let group = node.run_well(&["group", "describe", "billing", "-o", "json"]);
    assert!(group.contains("\"deliveries_max\":4"), "{group}");
    let (code, again) = import(&node, files, &[]);
    assert_eq!(
        (code, fate(&again, "topic", "orders"), fate(&again, "group", "billing")),
        (Some(0), "present", "present")
    );
}

#[test]
fn odd_files_are_named_and_odd_lines_leave_the_others() {
    let directory = test_directory();
    let node = Node::start(directory.path().join("data"));
    let folder = directory.path().join("store");
    fs::create_dir_all(folder.join("config")).expect("ours");
    let path = folder.to_str().expect("UTF-8");
    let outcome = node.run(&["import-rocketmq", path]);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("storePathRootDir"), "{}", outcome.stderr);
    let write = |text: &str| fs::write(folder.join("config/topics.json"), text).expect("ours");
    for (text, part) in [("{", "no JSON"), ("[]", "no table"), ("{\"topicConfigTable\":[]}", "no table")] {
        write(text);
        let outcome = node.run(&["import-rocketmq", path]);
        assert!(outcome.code == Some(1) && outcome.stderr.contains(part), "{text}: {}", outcome.stderr);
    }
    write(
        "{\"topicConfigTable\":{\"a/b\":{},\"none\":{\"readQueueNums\":0,\"writeQueueNums\":0},\"\\u001b[2J\":{},\"many\":{\"readQueueNums\":99999999999},\
         \"good\":{\"readQueueNums\":2,\"writeQueueNums\":2,\"attributes\":{\"cleanup.policy\":\"COMPACTION\"}}}}",
    );
    let outcome = node.run(&["import-rocketmq", path]);
    let text = String::from_utf8(outcome.stdout).expect("UTF-8");
    assert_eq!(outcome.code, Some(1), "{text}");
    assert!(!text.contains('\u{1b}'), "the terminal is steered");
    assert_eq!(text.lines().filter(|line| line.contains("FAILED")).count(), 4, "{text}");
    assert!(text.contains("approximated  good  cleanup.policy=COMPACTION means nothing here"), "{text}");
}

/// What would become of each line is what becomes of it.
#[test]
fn a_dry_run_promises_what_the_real_one_does() {
    let directory = test_directory();
    let node = Node::start(directory.path().join("data"));
    let folder = directory.path().join("store/config");
    fs::create_dir_all(&folder).expect("ours");
    let topics = r#"{"topicConfigTable":{
        "huge":{"readQueueNums":2000000000,"writeQueueNums":2000000000},"brief":{"attributes":{"reserve.time":"x"}},
        "odd":{"attributes":{"message.type":"WHAT"}},"unsaid":null,"float":{"readQueueNums":1e30},"closed":{"perm":9},
        "fifo":{"attributes":{"message.type":"FIFO"}},"plain":{"readQueueNums":4,"writeQueueNums":4},
        "wide":{"readQueueNums":65536},"wider":{"readQueueNums":65536}}}"#;
    let groups = r#"{"subscriptionGroupTable":{"patient":{"retryMaxTimes":1099511627776},"unsaid":null,"usual":{},
        "endless":{"retryMaxTimes":-1},"strange":{"groupRetryPolicy":{"type":"NONE"}},"many":{"retryQueueNums":9999999999}}}"#;
    fs::write(folder.join("topics.json"), topics).expect("ours");
    fs::write(folder.join("subscriptionGroup.json"), groups).expect("ours");
    let path = directory.path().join("store");
    let path = path.to_str().expect("UTF-8");
    let (dry_code, dry) = import(&node, path, &["--dry-run"]);
    let (code, real) = import(&node, path, &[]);
    assert_eq!(dry["outcomes"], real["outcomes"]);
    assert_eq!((dry_code, code), (Some(1), Some(1)));
    for (kind, name, expected) in [
        ("topic", "huge", "failed"),
        ("topic", "brief", "failed"),
        ("topic", "odd", "failed"),
        ("topic", "closed", "failed"),
        ("topic", "wider", "failed"),
        ("topic", "unsaid", "approximated"),
        ("topic", "float", "approximated"),
        ("topic", "fifo", "made"),
        ("topic", "plain", "made"),
        ("group", "patient", "approximated"),
        ("group", "unsaid", "approximated"),
        ("group", "usual", "made"),
        ("group", "endless", "made"),
        ("group", "strange", "failed"),
        ("group", "many", "failed"),
    ] {
        assert_eq!(fate(&real, kind, name), expected, "{kind} {name}: {real}");
    }
}
