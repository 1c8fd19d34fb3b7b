//! Topics of one broker on another: every message once and in order, whoever dies in between.

use std::process::Child;
use std::time::Duration;

use serde_json::{Value, json};
use turbopump::testing::Random;
use turbopump::wire::origin::Origin;

use crate::support::command::{self, Outcome};
use crate::support::copies::{Whole, read_whole, store_whole};
use crate::support::directory::test_directory;
use crate::support::load::{self, bounds};
use crate::support::machine::{MemoryFileSystem, report};
use crate::support::node::{Node, Setup, wait_for};

const MIB: usize = 1 << 20;

/// Two brokers in one directory.
struct Pair {
    source: Node,
    target: Node,
}

impl Pair {
    fn start(directory: &tempfile::TempDir) -> Self {
        let source = Setup::new(directory.path().join("source")).with(&["--shards", "2"]).start();
        Self { source, target: Node::start(directory.path().join("target")) }
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["mirror", "--from", self.source.address(), "--to", self.target.address()], more].concat()
    }

    fn mirror(&self, more: &[&str]) -> Outcome {
        command::run(None, &self.arguments(more), None)
    }

    fn follow(&self, more: &[&str]) -> Child {
        command::spawn(None, &self.arguments(more), false)
    }

    fn copied(&self, more: &[&str]) -> Value {
        let view = self.mirror(&[more, &["-o", "json"]].concat()).json();
        view["topics"][0].clone()
    }

    fn assert_same(&self, topic: &str) {
        let (source, target) =
            (read_whole(self.source.client(), topic), read_whole(self.target.client(), topic));
        let lengths = |queues: &[Vec<Whole>]| queues.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(&source), lengths(&target));
        assert!(source == target, "topic {topic} is another one at the target");
    }
}

fn feed(node: &Node, topic: &str, queue: u32, from: usize, to: usize) {
    let bodies: Vec<String> = (from..to).map(|number| format!("{queue} {number}")).collect();
    load::produce(node, topic, queue, bodies.iter().map(String::as_bytes));
}

#[test]
fn a_topic_is_copied_whole_and_a_second_run_copies_what_is_new() {
    let directory = test_directory();
    let pair = Pair::start(&directory);
    let create = ["topic", "create", "orders", "--queues", "5", "--retention", "90d", "--level", "written"];
    pair.source.run_well(&create);
    let origin = Some(Origin::new(7, 3, "10.1.2.3:4000".parse().expect("an address")));
    let properties = b"RETRY_TOPIC\x01x\x02UNIQ_KEY\x01AB\x02".to_vec();
    for queue in 0..4 {
        feed(&pair.source, "orders", queue, 0, 500);
        let message = Whole {
            key: b"k".to_vec(),
            origin,
            properties: properties.clone(),
            born_ms: 5,
            ..Whole::of_body("x")
        };
        store_whole(&pair.source, "orders", queue, &message);
    }
    store_whole(&pair.source, "orders", 2, &Whole::of_body(vec![0xff; 4 * MIB]));
    let plan = pair.copied(&["orders", "--dry-run"]);
    assert_eq!(plan, json!({"topic": "orders", "queues": 5, "to_copy": 2005, "target": "make"}));
    assert!(pair.target.run(&["topic", "describe", "orders"]).badly(1).contains("does not exist"));
    let done = |copied: u64| json!({"topic": "orders", "queues": 5, "copied": copied, "found": 0, "expired": 0, "damaged": 0, "left_out": 0});
    assert_eq!(pair.copied(&["orders"]), done(2005));
    pair.assert_same("orders");
    let settings = |node: &Node| {
        let described = node.run(&["topic", "describe", "orders", "-o", "json"]).json();
        (described["retention"].clone(), described["level"].clone(), described["queue_count"].clone())
    };
    assert_eq!(settings(&pair.target), settings(&pair.source));
    assert_eq!(pair.copied(&["orders"]), done(0));
    // With more messages, and more queues.
    pair.source.run_well(&["topic", "alter", "orders", "--queues", "6"]);
    feed(&pair.source, "orders", 5, 0, 10);
    feed(&pair.source, "orders", 0, 500, 510);
    assert_eq!(pair.copied(&["orders", "--dry-run"])["target"], "add queues");
    assert_eq!(pair.copied(&["orders"])["copied"], 20);
    pair.assert_same("orders");
    // The lag is that of a group.
    let group = pair.source.run(&["group", "list", "-o", "json"]).json()["groups"][0].to_string();
    let group = group.trim_matches('"').to_owned();
    assert!(group.contains("mirror-to-"), "{group}");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_done() {
    let directory = test_directory();
    let pair = Pair::start(&directory);
    pair.source.run_well(&["topic", "create", "orders", "--queues", "1"]);
    feed(&pair.source, "orders", 0, 0, 10);
    let other_shard = pair.source.addresses[1].clone();
    let same = ["mirror", "--from", pair.source.address(), "--to", &other_shard, "orders"];
    assert!(command::run(None, &same, None).badly(2).contains("lead to the same broker"));
    assert!(
        pair.mirror(&["nothing"]).badly(1).contains("the broker to copy from: topic nothing does not exist")
    );
    assert!(pair.mirror(&["orders", "orders"]).badly(2).contains("named twice"));
    assert!(pair.mirror(&["orders", "--start", "7"]).badly(2).contains("first, last or a time"));
    let away = ["mirror", "--from", pair.source.address(), "--to", "127.0.0.1:1", "orders"];
    assert!(command::run(None, &away, None).badly(1).contains("name another address with --to"));
    // A topic with messages of others is not written to unless that is meant.
    pair.target.run_well(&["topic", "create", "orders", "--queues", "1"]);
    feed(&pair.target, "orders", 0, 0, 3);
    assert!(pair.mirror(&["orders"]).badly(1).contains("give --append"));
    assert_eq!(pair.copied(&["orders", "--append"])["copied"], 10);
    assert_eq!(pair.copied(&["orders"])["copied"], 0);
    assert_eq!(read_whole(pair.target.client(), "orders")[0].len(), 13);
    // Nor the other way round.
    let back =
        ["mirror", "--from", pair.target.address(), "--to", pair.source.address(), "orders", "--append"];
    let sentence = command::run(None, &back, None).badly(1);
    assert!(
        sentence.contains("mirrored the other way") && sentence.contains("group delete mirror-to-"),
        "{sentence}"
    );
    // The topic is gone at the target, and what was known of it.
    pair.target.run_well(&["topic", "delete", "orders", "--yes"]);
    let sentence = pair.mirror(&["orders"]).badly(1);
    assert!(
        sentence.contains("was copied up to message 10") && sentence.contains("group delete mirror-to-"),
        "{sentence}"
    );
    let group = sentence
        .rsplit("group delete ")
        .next()
        .expect("a part")
        .split('`')
        .next()
        .expect("a name")
        .to_owned();
    pair.source.run_well(&["group", "delete", &group, "--yes"]);
    assert_eq!(pair.copied(&["orders"])["copied"], 10);
    pair.assert_same("orders");
}

#[test]
fn a_mirror_begins_where_it_is_told_and_follows_until_it_is_told_to_stop() {
    let directory = test_directory();
    let pair = Pair::start(&directory);
    pair.source.run_well(&["topic", "create", "orders", "--queues", "1"]);
    feed(&pair.source, "orders", 0, 0, 10);
    assert_eq!(pair.copied(&["orders", "--start", "last"])["copied"], 0);
    feed(&pair.source, "orders", 0, 10, 15);
    assert_eq!(pair.copied(&["orders"])["copied"], 5);
    let child = pair.follow(&["orders", "--follow", "-o", "json"]);
    feed(&pair.source, "orders", 0, 15, 20);
    let mut client = pair.target.client();
    while bounds(&mut client, "orders", 0).1.0 < 10 {
        std::thread::yield_now();
    }
    let process = rustix::process::Pid::from_raw(child.id() as i32).expect("a process id");
    rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it is ours");
    let view = command::finish(child, &["mirror"]).json();
    assert_eq!(view["topics"][0]["copied"], 5);
}

#[test]
fn others_may_write_to_a_copy() {
    let directory = test_directory();
    let pair = Pair::start(&directory);
    pair.source.run_well(&["topic", "create", "orders", "--queues", "1"]);
    feed(&pair.source, "orders", 0, 0, 10);
    assert_eq!(pair.copied(&["orders"])["copied"], 10);
    load::produce(&pair.target, "orders", 0, [&b"another's"[..]; 5]);
    feed(&pair.source, "orders", 0, 10, 3000);
    let outcome = pair.mirror(&["orders"]);
    assert!(outcome.stderr.contains("others write to queue 0 at the target"), "{}", outcome.stderr);
    outcome.well();
    let mut stored = read_whole(pair.target.client(), "orders").remove(0);
    stored.retain(|message| message.body != b"another's");
    assert!(stored == read_whole(pair.source.client(), "orders").remove(0), "the copies are others");
}

/// Messages of a topic, as far as it is there.
fn stored(node: &Node, topic: &str) -> u64 {
    let info = node.client().describe_topic(&load::topic(topic));
    info.map_or(0, |info| info.queues.iter().map(|queue| queue.end_offset.0).sum())
}

/// SIGKILL of the command, of the source and of the target, at any moment: every message is there once, in its order.
#[test]
fn deaths_lose_nothing_double_nothing_and_keep_the_order() {
    let directory = test_directory();
    let setup = |name: &str| Setup::new(directory.path().join(name));
    let mut pair = Pair { source: setup("source").start(), target: setup("target").start() };
    let (from, to) = (pair.source.address().to_owned(), pair.target.address().to_owned());
    pair.source.run_well(&["topic", "create", "orders", "--queues", "4"]);
    let mut random = Random::new(11);
    let mut sent = 0;
    for round in 0..6 {
        for queue in 0..4 {
            feed(&pair.source, "orders", queue, sent, sent + 1500);
        }
        sent += 1500;
        let before = stored(&pair.target, "orders");
        let mut child = pair.follow(&["orders", "--follow", "--rate", "20000"]);
        let more =
            |pair: &Pair, least: u64| wait_for("copies", || stored(&pair.target, "orders") >= before + least);
        more(&pair, random.range(1..2500));
        match round % 3 {
            0 => {}
            1 => {
                pair.target.kill();
                pair.target = setup("target").with(&["--listen", &to]).start();
                more(&pair, 2500 + random.range(0..2000));
            }
            _ => {
                pair.source.kill();
                pair.source = setup("source").with(&["--listen", &from]).start();
                more(&pair, 2500 + random.range(0..2000));
            }
        }
        assert!(
            child.try_wait().expect("our child").is_none(),
            "a mirror that follows has ended in round {round}"
        );
        child.kill().expect("it is ours");
        child.wait().expect("it has ended");
    }
    pair.mirror(&["orders"]).well();
    pair.assert_same("orders");
    assert_eq!(stored(&pair.target, "orders"), 4 * sent as u64);
}

/// Brought back to an earlier state, the target gets what it lacks, and nothing that it has; so it does of a source that has
/// forgotten how far it was copied, or is told another place. What a source brought back gets from then on comes behind.
#[test]
fn brokers_brought_back_to_an_earlier_state_leave_nothing_out() {
    let directory = test_directory();
    let setup = |name: &str| Setup::new(directory.path().join(name));
    let copy = |from: &str, to: &str| {
        let path = |name| directory.path().join(name);
        let copied = std::process::Command::new("cp").arg("-a").arg(path(from)).arg(path(to)).status();
        assert!(copied.expect("cp runs").success());
    };
    let mut pair = Pair { source: setup("source").start(), target: setup("target").start() };
    pair.source.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let feed_both = |node: &Node, from, to| (0..2).for_each(|queue| feed(node, "orders", queue, from, to));
    let told = |outcome: Outcome, copied: u64, part: &str| {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
        assert_eq!(outcome.json()["topics"][0]["copied"], copied, "{part}");
    };
    let mirror = |pair: &Pair| pair.mirror(&["orders", "-o", "json"]);
    feed_both(&pair.source, 0, 10);
    told(mirror(&pair), 20, "");
    assert!(pair.target.stop().status.success());
    copy("target", "target.old");
    pair.target = setup("target").start();
    feed_both(&pair.source, 10, 30);
    told(mirror(&pair), 40, "");

    assert!(pair.target.stop().status.success());
    pair.target = setup("target.old").start();
    assert_eq!(pair.copied(&["orders", "--dry-run"])["to_copy"], 40);
    told(mirror(&pair), 40, "brought back to an earlier state");
    pair.assert_same("orders");
    told(mirror(&pair), 0, "");

    let groups = pair.source.run(&["group", "list", "-o", "json"]).json();
    let group = groups["groups"][0].as_str().expect("a name").to_owned();
    pair.source.run_well(&["group", "reset", &group, "orders", "--to", "first", "--yes"]);
    told(mirror(&pair), 0, "");
    pair.source.run_well(&["group", "delete", &group, "--yes"]);
    feed_both(&pair.source, 30, 35);
    told(mirror(&pair), 10, "told to forget");
    pair.assert_same("orders");

    assert!(pair.source.stop().status.success());
    copy("source", "source.old");
    pair.source = setup("source").start();
    feed_both(&pair.source, 35, 40);
    told(mirror(&pair), 10, "");
    assert!(pair.source.stop().status.success());
    pair.source = setup("source.old").start();
    feed_both(&pair.source, 50, 55);
    told(mirror(&pair), 10, "the source was brought back");
    let copies = read_whole(pair.target.client(), "orders");
    for (queue, copies) in copies.iter().enumerate() {
        let wanted: Vec<_> = (0..40).chain(50..55).map(|number| format!("{queue} {number}")).collect();
        let bodies: Vec<_> = copies.iter().map(|copy| String::from_utf8_lossy(&copy.body)).collect();
        assert_eq!(bodies, wanted);
    }

    // Neither has what the other has last.
    feed_both(&pair.source, 60, 61);
    feed_both(&pair.target, 100, 101);
    for node in [&pair.source, &pair.target] {
        let groups = node.run(&["group", "list", "-o", "json"]).json();
        let group = groups["groups"][0].as_str().expect("a name").to_owned();
        node.run_well(&["group", "reset", &group, "orders", "--to", "last", "--yes"]);
    }
    assert!(pair.mirror(&["orders"]).badly(1).contains("nor is it found there"));
    told(pair.mirror(&["orders", "--append", "-o", "json"]), 0, "missing");
}

#[test]
fn a_topic_that_is_deleted_in_between_ends_the_mirror() {
    let directory = test_directory();
    let pair = Pair::start(&directory);
    for (deleted, part) in [("target", "was deleted at the target"), ("source", "was deleted at the source")]
    {
        pair.source.run_well(&["topic", "create", deleted, "--queues", "1"]);
        feed(&pair.source, deleted, 0, 0, 10);
        let child = pair.follow(&[deleted, "--follow"]);
        let mut client = pair.target.client();
        let name = load::topic(deleted);
        let is_copied = |client: &mut turbopump::client::Client| {
            client
                .describe_topic(&name)
                .is_ok_and(|info| info.queues.iter().any(|queue| queue.end_offset.0 == 10))
        };
        while !is_copied(&mut client) {
            std::thread::yield_now();
        }
        let node = if deleted == "target" { &pair.target } else { &pair.source };
        node.run_well(&["topic", "delete", deleted, "--yes"]);
        if deleted == "target" {
            feed(&pair.source, deleted, 0, 10, 20);
        }
        let sentence = command::finish(child, &["mirror"]).badly(1);
        assert!(sentence.contains(part), "{sentence}");
    }
}

#[test]
fn a_full_disk_at_the_target_is_waited_for() {
    let directory = test_directory();
    let place = directory.path().join("memory");
    let Some(memory) = MemoryFileSystem::mount(&place, 160 << 20) else {
        report("skipped: a full disk needs a file system in memory, which this user may not mount");
        return;
    };
    let source = Setup::new(directory.path().join("source")).with(&["--shards", "2"]).start();
    let pair = Pair { source, target: Node::start(place.join("data")) };
    pair.source.run_well(&["topic", "create", "orders", "--queues", "2"]);
    for number in 0..60_u8 {
        let queue = u32::from(number % 2);
        store_whole(&pair.source, "orders", queue, &Whole::of_body(vec![number; 3 * MIB]));
    }
    let impatient = pair.mirror(&["orders", "--retry-for", "1s"]).badly(1);
    assert!(impatient.contains("the broker to copy to: the disk of shard 0 is full"), "{impatient}");
    let arguments = pair.arguments(&["orders"]);
    let mut child = command::spawn(None, &arguments, false);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("our child").is_none(), "it goes on waiting");
    memory.resize(600 << 20);
    command::finish(child, &arguments).well();
    pair.assert_same("orders");
    drop(pair);
    drop(memory);
}

#[test]
fn each_end_has_a_key_of_its_own() {
    let directory = test_directory();
    let keys = directory.path().join("keys.toml");
    let text = "[[keys]]\nid = \"ID\"\nsecret = \"SECRET\"\nadmin = true\n";
    let start = |name: &str, secret: &str| {
        std::fs::write(&keys, text.replace("ID", name).replace("SECRET", secret)).expect("written");
        let data = directory.path().join(name);
        let file = directory.path().join(format!("{name}.toml"));
        std::fs::rename(&keys, &file).expect("renamed");
        Setup::new(data).with(&["--access-keys", file.to_str().expect("UTF-8")]).start()
    };
    let pair = Pair { source: start("alice", "a-secret"), target: start("bob", "b-secret") };
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "a-secret\n").expect("written");
    let secret = secret.to_str().expect("UTF-8");
    let keyed = ["--from-access-key", "alice", "--from-secret-key-file", secret, "--to-access-key", "bob"];
    let run = |node: &Node, arguments: &[&str], key: (&str, &str)| {
        let key = ["--server", node.address(), "--access-key", key.0, "--secret-key", key.1];
        command::run(None, &[arguments, &key].concat(), None)
    };
    run(&pair.source, &["topic", "create", "orders", "--queues", "1"], ("alice", "a-secret")).well();
    run(&pair.source, &["message", "publish", "orders", "three apples"], ("alice", "a-secret")).well();
    let without = pair.mirror(&[&keyed[..], &["orders"]].concat()).badly(2);
    assert!(without.contains("set TURBOPUMP_TO_SECRET_KEY"), "{without}");
    let wrong = pair.mirror(&[&keyed[..], &["--to-secret-key", "a-secret", "orders"]].concat()).badly(1);
    assert!(wrong.contains("the broker to copy to: the access key `bob`"), "{wrong}");
    let arguments = pair
        .arguments(&[&keyed[..], &["orders"]].concat())
        .iter()
        .map(|&word| word.to_owned())
        .collect::<Vec<_>>();
    let mut command = std::process::Command::new(command::BINARY);
    let output =
        command.args(arguments).env("TURBOPUMP_TO_SECRET_KEY", "b-secret").output().expect("it can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let copied = run(&pair.target, &["consume", "orders"], ("bob", "b-secret")).well();
    assert_eq!(copied, "three apples\n");
}
