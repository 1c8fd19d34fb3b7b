//! A member's session against the real thing: a broker that restarts, processes that die, and an output that is full.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::start::{stop_command, wait_for_members};
use crate::support::command::{self, BINARY};
use crate::support::directory::test_directory;
use crate::support::load::{create_topic, produce, receive_from_orders};
use crate::support::node::{Node, PATIENCE, Setup, wait_for};

/// The lines that a command prints, as they come.
fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let lines = child.stdout.take().expect("it is piped");
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    received
}

fn feed(node: &Node, queues: u32, count: u32, prefix: &str) {
    for queue in 0..queues {
        let bodies: Vec<_> = (0..count).map(|number| format!("{prefix}-{queue}-{number}")).collect();
        produce(node, "orders", queue, bodies.iter().map(String::as_bytes));
    }
}

/// Receives and acknowledges until nothing comes any more.
fn receive_all(node: &Node, group: &str) -> BTreeSet<String> {
    let mut client = node.client();
    let receive = receive_from_orders(group);
    let mut all = BTreeSet::new();
    loop {
        let messages = client.receive(receive.clone()).expect("the broker answers");
        if messages.is_empty() {
            return all;
        }
        let receipts: Vec<_> = messages.iter().map(|message| message.receipt).collect();
        client.acknowledge(&receive.group, &receipts).expect("the broker answers");
        all.extend(messages.iter().map(|message| String::from_utf8_lossy(message.body()).into_owned()));
    }
}

/// An address of this test alone, so that the shards' ports are still free after a stop.
fn address_of_two_ports() -> String {
    for _ in 0..100 {
        let first =
            TcpListener::bind("127.0.1.79:0").expect("a free port").local_addr().expect("it is bound");
        if first.port() < 65_000 && TcpListener::bind((first.ip(), first.port() + 10)).is_ok() {
            return first.to_string();
        }
    }
    panic!("no two ports are free");
}

/// What receivers have dealt with while the member did not know of the restart is not the member's to read.
#[test]
fn a_member_prints_nothing_that_others_dealt_with_after_a_restart() {
    for shards in ["1", "2"] {
        let directory = test_directory();
        let address = address_of_two_ports();
        let setup = Setup::new(directory.path()).with(&["--shards", shards, "--listen", &address]);
        let node = setup.start();
        create_topic(&mut node.client(), "orders", 4);
        let mut following =
            command::spawn(Some(&address), &["consume", "orders", "--group", "readers", "--follow"], false);
        let printed = lines_of(&mut following);
        wait_for_members(&node, 1);
        feed(&node, 4, 1, "before");
        for _ in 0..4 {
            printed.recv_timeout(PATIENCE).expect("it reads");
        }
        node.stop();
        let node = setup.start();
        feed(&node, 4, 100, "after");
        let dealt_with = receive_all(&node, "readers");
        // In the order of each queue, so that the mark comes after what should not come.
        let begun = Instant::now();
        let mut seen = Vec::new();
        while !seen.iter().any(|line: &String| line.starts_with("mark")) {
            assert!(begun.elapsed() < PATIENCE, "it reads nothing: {seen:?}");
            feed(&node, 4, 1, "mark");
            seen.extend(printed.recv_timeout(Duration::from_millis(200)));
        }
        let twice: Vec<_> = seen.iter().filter(|line| dealt_with.contains(*line)).collect();
        assert!(twice.is_empty(), "{} of {} were read again", twice.len(), dealt_with.len());
        stop_command(following);
    }
}

/// A killed process has not left, but its connection tells that it is gone.
#[test]
fn a_member_waits_for_the_queues_of_those_whose_processes_are_gone() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    create_topic(&mut node.client(), "orders", 1);
    let follow = ["consume", "orders", "--group", "readers", "--follow"];
    let mut dead: Vec<_> = (0..3).map(|_| command::spawn(Some(node.address()), &follow, false)).collect();
    wait_for_members(&node, 3);
    for child in &mut dead {
        child.kill().expect("it is ours");
        child.wait().expect("it has ended");
    }
    feed(&node, 1, 5, "apple");
    let begun = Instant::now();
    let read = node.run_well(&["consume", "orders", "--group", "readers", "--count", "3"]);
    assert_eq!(read.lines().collect::<Vec<_>>(), ["apple-0-0", "apple-0-1", "apple-0-2"]);
    // The time-out of a session alone is ten seconds, and then the queue is still to be given on.
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

/// That nothing is left for a member says nothing about the topic.
#[test]
fn a_member_without_a_queue_says_so() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    create_topic(&mut node.client(), "orders", 1);
    let follow = ["consume", "orders", "--group", "readers", "--follow"];
    let living: Vec<_> = (0..3).map(|_| command::spawn(Some(node.address()), &follow, false)).collect();
    wait_for_members(&node, 3);
    feed(&node, 1, 5, "apple");
    let more = ["consume", "orders", "--group", "readers", "--count", "3"];
    let outcomes: Vec<_> = (0..2).map(|_| node.run(&more)).collect();
    // By chance of its name one of them may get the queue.
    let refused = outcomes.into_iter().find(|outcome| outcome.code != Some(0)).expect("there is one queue");
    let text = refused.badly(1);
    assert!(text.contains("other members") && text.contains("--queues"), "{text}");
    living.into_iter().for_each(stop_command);
}

#[test]
fn a_member_whose_output_fails_leaves_its_group() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    create_topic(&mut node.client(), "orders", 1);
    feed(&node, 1, 5, "apple");
    for more in [&["--count", "3"][..], &["--follow"], &[]] {
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let mut consume = Command::new(BINARY);
        consume.args(["consume", "orders", "--group", "readers", "--server", node.address()]).args(more);
        let ended = consume.stdout(full).stderr(Stdio::null()).status().expect("the binary can be run");
        assert_eq!(ended.code(), Some(1), "{more:?}");
        let described = node.run(&["group", "describe", "readers", "-o", "json"]);
        let members = match described.code {
            Some(0) => described.json()["members"].as_array().map_or(0, Vec::len),
            // Nobody has ever committed for it.
            _ => 0,
        };
        assert_eq!(members, 0, "{more:?}");
    }
}

#[test]
fn queues_that_a_topic_gets_are_followed() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    create_topic(&mut node.client(), "orders", 1);
    let mut following = command::spawn(Some(node.address()), &["consume", "orders", "--follow"], false);
    let printed = lines_of(&mut following);
    feed(&node, 1, 1, "first");
    assert_eq!(printed.recv_timeout(PATIENCE).as_deref(), Ok("first-0-0"));
    node.run_well(&["topic", "alter", "orders", "--queues", "3"]);
    feed(&node, 3, 1, "then");
    let mut lines: Vec<_> = (0..3).map(|_| printed.recv_timeout(PATIENCE).expect("it is read")).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["then-0-0", "then-1-0", "then-2-0"]);
    stop_command(following);
}

/// A session ends while a member does not come to say that it lives: here its output is not read, as a pager's is not.
#[test]
fn a_member_that_was_held_up_for_too_long_says_so_in_words() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    create_topic(&mut node.client(), "orders", 1);
    let line = "x".repeat(1_000);
    produce(&node, "orders", 0, std::iter::repeat_n(line.as_bytes(), 2_000));
    // More than a pipe takes. The second has printed all that it was to when it can go on.
    let held_up =
        [("following", &["--follow"][..]), ("counting", &["--count", "400"])].map(|(group, more)| {
            let arguments = [&["consume", "orders", "--group", group], more].concat();
            (group, command::spawn(Some(node.address()), &arguments, false))
        });
    let has_members = |group: &str| {
        let described = node.run(&["group", "describe", group, "-o", "json"]);
        described.code == Some(0) && described.json()["members"] != Value::Array(Vec::new())
    };
    for is_member in [true, false] {
        for (group, _) in &held_up {
            wait_for("members come, and their sessions end", || has_members(group) == is_member);
        }
    }
    for (group, mut child) in held_up {
        let printed = lines_of(&mut child);
        let is_following = group == "following";
        if is_following {
            wait_for("it joins again", || has_members(group));
            let process = Pid::from_raw(child.id() as i32).expect("a process id");
            rustix::process::kill_process(process, Signal::TERM).expect("it is ours");
        }
        let ended = command::finish(child, &["consume"]);
        assert_eq!(ended.code, Some(if is_following { 0 } else { 1 }), "{}", ended.stderr);
        assert!(is_following || printed.iter().count() == 400);
        assert!(ended.stderr.contains(&format!("lost its place in group {group}")), "{}", ended.stderr);
        assert!(!ended.stderr.contains("MemberUnknown"), "{}", ended.stderr);
    }
}
