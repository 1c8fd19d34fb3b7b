//! What the command line says about what it cannot do: whose fault it is, by the name that was typed, and what to do.

use std::time::Duration;

use turbopump::api::TopicChange;
use turbopump::types::{Retention, TopicName};

use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::load::topic;
use crate::support::node::{Node, Setup};

fn node_with_lines(data: &std::path::Path, queues: &str) -> Node {
    let node = Node::start(data);
    node.run_well(&["topic", "create", "lines", "--queues", queues]);
    command::run(Some(node.address()), &["produce", "lines", "--queue", "0"], Some(b"one\ntwo\n")).well();
    node
}

#[test]
fn an_offset_after_the_end_is_an_error_however_it_is_read() {
    let directory = test_directory();
    let node = node_with_lines(directory.path(), "1");
    for more in [&[][..], &["--follow"], &["--group", "g"], &["--group", "h", "--queue", "0"]] {
        let sentence = node.run(&[&["consume", "lines", "--from", "3"], more].concat()).badly(1);
        assert!(sentence.contains("queue 0 of topic lines"), "{more:?}: {sentence}");
    }
    assert_eq!(node.run_well(&["consume", "lines", "--from", "2"]), "", "the end is a place");
    node.run_well(&["group", "create", "new"]);
    let reset = ["group", "reset", "new", "lines", "--yes", "--to", "3", "--queue", "0"];
    assert!(node.run(&reset).badly(1).contains("queue 0 of topic lines"));
}

/// The same offset stands for every queue, and those that are shorter have nothing to add.
#[test]
fn an_offset_that_one_queue_has_is_read_there() {
    let directory = test_directory();
    let node = node_with_lines(directory.path(), "2");
    assert_eq!(node.run_well(&["consume", "lines", "--from", "1"]), "two\n");
    node.run(&["consume", "lines", "--from", "3"]).badly(1);
    node.run(&["consume", "lines", "--from", "1", "--queue", "1"]).badly(1);
}

#[test]
fn a_topic_that_is_deleted_while_it_is_followed_is_named() {
    let directory = test_directory();
    let node = node_with_lines(directory.path(), "1");
    let follow = ["consume", "lines", "--follow"];
    let mut child = command::spawn(Some(node.address()), &follow, false);
    let mut output = child.stdout.take().expect("it is piped");
    let mut first = [0; 4];
    std::io::Read::read_exact(&mut output, &mut first).expect("a line");
    node.run_well(&["topic", "delete", "lines", "--yes"]);
    let sentence = command::finish(child, &follow).badly(1);
    assert!(sentence.contains("topic lines was deleted") && sentence.contains("topic list"), "{sentence}");
}

#[test]
fn a_list_of_an_instance_that_does_not_exist_is_no_empty_list() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["instance", "create", "I"]);
    for noun in ["topic", "group"] {
        let list = |instance: &str| node.run(&[noun, "list", "--instance", instance]);
        assert_eq!(list("I").code, Some(0), "{noun}");
        let sentence = list("NOPE").badly(1);
        assert!(sentence.contains("instance NOPE does not exist"), "{noun}: {sentence}");
    }
    assert!(node.run(&["instance", "create", ""]).badly(2).contains("an instance name"));
}

#[test]
fn a_file_of_which_nothing_was_stored_has_no_rate() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    let line = vec![b'x'; (4 << 20) + 1];
    let outcome = command::run(Some(node.address()), &["produce", "lines"], Some(&line));
    let printed = String::from_utf8(outcome.stdout.clone()).expect("text");
    outcome.badly(1);
    assert!(printed.starts_with("0 lines acknowledged in ") && !printed.contains("/s"), "{printed}");
}

#[test]
fn a_lease_out_of_range_is_told_in_seconds() {
    let directory = test_directory();
    let data = directory.path().to_str().expect("UTF-8");
    let sentence = command::run(None, &["serve", "--data", data, "--lease", "0"], None).badly(2);
    assert!(sentence.contains("--lease is 1 s to 43200 s, not 0 s"), "{sentence}");
}

/// What can only be a slip is not carried out, and no advice is given that leads nowhere.
#[test]
fn what_cannot_be_meant_is_refused() {
    let directory = test_directory();
    let node = node_with_lines(directory.path(), "1");
    let folder = directory.path().to_str().expect("UTF-8");
    let sentence = node.run(&["produce", "lines", folder]).badly(1);
    assert!(sentence.contains("it is a directory") && !sentence.contains("--skip"), "{sentence}");
    node.run(&["consume", "lines", "--count", "0"]).badly(2);
    for retention in ["0", "10ms"] {
        let sentence = node.run(&["topic", "create", "brief", "--retention", retention]).badly(2);
        assert!(sentence.contains("write none"), "{sentence}");
    }
    // Nor by a client that does not ask first.
    let (name, brief) = (topic("brief"), Retention::Age(Duration::from_millis(999)));
    let change = |topic: &TopicName, retention| TopicChange {
        topic: topic.clone(),
        queues: None,
        retention: Some(retention),
        level: None,
    };
    let mut client = node.client();
    let refused = client.create_topic(change(&name, brief)).expect_err("nobody means that").to_string();
    assert!(refused.contains("1000 ms at least, not for 999 ms"), "{refused}");
    client.create_topic(change(&name, Retention::Age(Duration::from_secs(1)))).expect("a second is fine");
    let refused = client.alter_topic(change(&name, brief)).expect_err("nobody means that").to_string();
    assert!(refused.contains("1000 ms at least"), "{refused}");
    let ended = Setup::new(directory.path().join("other")).with(&["--retention-age", "0"]).try_start();
    let sentence = ended.err().expect("nothing would be kept").stderr;
    assert!(sentence.contains("--retention-age is at least 1s"), "{sentence}");
}
