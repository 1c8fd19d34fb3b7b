//! The spellings that scripts rely on, from a file to the broker and back.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::Value;
use turbopump::testing::Random;

use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::node::Node;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Lines of every kind: empty ones, long ones, bytes that are no UTF-8, no newline at the end.
fn awkward_lines() -> Vec<u8> {
    let mut random = Random::new(7);
    let mut bytes = Vec::new();
    for number in 0..20_000_u64 {
        let length = if number % 1000 == 0 { 100_000 } else { random.range(0..200) };
        let line = random.bytes(length as usize);
        bytes.extend(line.iter().filter(|byte| **byte != b'\n'));
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(b"\n\nno newline behind this");
    bytes
}

#[test]
fn a_file_comes_back_byte_for_byte() {
    let directory = test_directory();
    let node = Node::start(directory.path().join("data"));
    let file = directory.path().join("lines");
    let lines = awkward_lines();
    std::fs::write(&file, &lines).expect("written");
    let path = file.to_str().expect("UTF-8");
    node.run_well(&["topic", "create", "lines", "--queues", "4"]);
    let printed = node.run_well(&["produce", "lines", path, "--queue", "2", "-o", "json"]);
    let summary = parse(printed.lines().last().expect("a last line"));
    let count = lines.split(|byte| *byte == b'\n').count() as u64;
    assert_eq!(summary["acknowledged"], count);
    assert_eq!(summary["level"], "durable");
    let mut expected = lines.clone();
    expected.push(b'\n');
    let consumed = node.run(&["consume", "lines", "--queue", "2"]);
    assert_eq!((consumed.code, consumed.stderr.as_str()), (Some(0), ""));
    assert!(consumed.stdout == expected, "{} of {} bytes", consumed.stdout.len(), expected.len());
    // Everything else is empty.
    assert_eq!(node.run_well(&["consume", "lines", "--queue", "1"]), "");
    // The same through standard input, after a restart.
    node.kill();
    let node = Node::start(directory.path().join("data"));
    command::run(Some(node.address()), &["produce", "lines", "-", "--queue", "3"], Some(&lines)).well();
    let consumed = node.run(&["consume", "lines", "--queue", "3"]);
    assert!(consumed.stdout == expected, "{} of {} bytes", consumed.stdout.len(), expected.len());
}

#[test]
fn skip_goes_on_where_an_earlier_run_stopped() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    let lines: Vec<String> = (0..5000).map(|number| format!("line {number}\n")).collect();
    let (head, all) = (lines[..1234].concat(), lines.concat());
    let server = Some(node.address());
    let produce = |arguments: &[&str], input: &str| {
        parse(command::run(server, arguments, Some(input.as_bytes())).well().lines().last().expect("a line"))
    };
    let first = produce(&["produce", "lines", "-o", "json"], &head);
    assert_eq!(first["next_skip"], 1234);
    let second = produce(&["produce", "lines", "--skip", "1234", "-o", "json"], &all);
    assert_eq!((&second["skipped"], &second["acknowledged"]), (&1234.into(), &3766.into()));
    assert_eq!(node.run_well(&["consume", "lines"]), all);
}

#[test]
fn a_key_has_one_queue_and_keeps_its_order_there() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "keyed", "--queues", "4"]);
    let mut lines = String::new();
    for number in 0..6000 {
        writeln!(lines, "{number}\tcustomer-{}\ttag-{}", number % 37, number % 3).expect("memory");
    }
    let arguments = ["produce", "keyed", "--key-field", "2", "--tag-field", "3"];
    command::run(Some(node.address()), &arguments, Some(lines.as_bytes())).well();
    let consumed = node.run_well(&["consume", "keyed", "-o", "json"]);
    let mut places: HashMap<String, (u64, i64)> = HashMap::new();
    let mut queues: HashMap<u64, u64> = HashMap::new();
    for message in consumed.lines().map(parse) {
        let key = message["key"].as_str().expect("text").to_owned();
        let queue = message["queue"].as_u64().expect("a number");
        let body = message["body"].as_str().expect("text");
        let number: i64 = body.split('\t').next().expect("a field").parse().expect("a number");
        assert_eq!(message["tag"], format!("tag-{}", number % 3));
        let place = places.entry(key).or_insert((queue, -1));
        assert_eq!(place.0, queue, "{message}");
        assert!(place.1 < number, "{message}");
        place.1 = number;
        *queues.entry(queue).or_default() += 1;
    }
    assert_eq!(places.len(), 37);
    assert_eq!(queues.values().sum::<u64>(), 6000);
    assert!(queues.len() > 1, "37 keys in one queue");
}

#[test]
fn reading_starts_where_it_is_told() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    let feed = |from: usize, to: usize| {
        let text: String = (from..to).map(|number| format!("{number}\n")).collect();
        command::run(Some(node.address()), &["produce", "lines"], Some(text.as_bytes())).well();
    };
    feed(0, 10);
    let tenth = parse(node.run_well(&["consume", "lines", "-o", "json", "--from", "9"]).trim());
    let stored = tenth["store_time_ms"].as_u64().expect("a time");
    // The next messages must be younger than the time that is asked for.
    while std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64 <= stored {
        std::thread::yield_now();
    }
    feed(10, 20);
    let consume = |more: &[&str]| {
        let printed = node.run_well(&[&["consume", "lines"], more].concat());
        printed.lines().map(|line| line.parse::<u32>().expect("a number")).collect::<Vec<_>>()
    };
    let numbers = |from: u32, to: u32| (from..to).collect::<Vec<_>>();
    assert_eq!(consume(&[]), numbers(0, 20));
    assert_eq!(consume(&["--from", "first"]), numbers(0, 20));
    assert_eq!(consume(&["--from", "last"]), numbers(0, 0));
    assert_eq!(consume(&["--from", "15"]), numbers(15, 20));
    assert_eq!(consume(&["--from", "3", "--count", "4"]), numbers(3, 7));
    assert_eq!(consume(&["--from", &format!("@{}", stored + 1)]), numbers(10, 20));
    assert_eq!(consume(&["--from", "-1h"]), numbers(0, 20));
    assert_eq!(consume(&["--from", "2001-02-03"]), numbers(0, 20));
    assert_eq!(consume(&["--from", "20"]), numbers(0, 0));
}

#[test]
fn a_group_goes_on_where_it_committed() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "lines", "--queues", "2"]);
    let text: String = (0..1000).map(|number| format!("{number}\n")).collect();
    command::run(Some(node.address()), &["produce", "lines", "--batch", "10"], Some(text.as_bytes())).well();
    let consume = ["consume", "lines", "--group", "readers"];
    let mut lines: Vec<u32> = Vec::new();
    let mut take = |node: &Node, more: &[&str]| {
        let printed = node.run_well(&[&consume[..], more].concat());
        lines.extend(printed.lines().map(|line| line.parse::<u32>().expect("a number")));
        printed.lines().count()
    };
    assert_eq!(take(&node, &["--count", "333"]), 333);
    node.kill();
    let node = Node::start(directory.path());
    assert_eq!(take(&node, &[]), 667);
    assert_eq!(take(&node, &[]), 0);
    lines.sort_unstable();
    assert_eq!(lines, (0..1000).collect::<Vec<_>>(), "each once");
    let described = node.run(&["group", "describe", "readers", "-o", "json"]).json();
    assert_eq!((&described["lag"], &described["members"]), (&0.into(), &Value::Array(vec![])));
    assert_eq!(node.run(&["group", "list", "-o", "json"]).json()["groups"], serde_json::json!(["readers"]));
    reset_and_read_again(&node);
}

fn reset_and_read_again(node: &Node) {
    let count = || node.run_well(&["consume", "lines", "--group", "readers"]).lines().count();
    node.run_well(&["group", "reset", "readers", "lines", "--yes", "--to", "first"]);
    assert_eq!(count(), 1000);
    node.run_well(&["group", "reset", "readers", "lines", "--yes", "--to", "5", "--queue", "0"]);
    let described = node.run(&["group", "describe", "readers", "-o", "json"]).json();
    let queue = described["queues"].as_array().expect("queues").iter().find(|queue| queue["queue"] == 0);
    let queue = queue.expect("queue 0").clone();
    assert_eq!(queue["committed"], 5);
    assert_eq!(count() as u64, queue["end_offset"].as_u64().expect("a number") - 5);
    node.run_well(&["group", "reset", "readers", "lines", "--yes", "--to", "last"]);
    assert_eq!(count(), 0);
    node.run_well(&["group", "reset", "readers", "lines", "--yes", "--to", "-1h"]);
    assert_eq!(count(), 1000);
    let sentence = node.run(&["group", "reset", "readers", "lines", "--yes", "--to", "5"]).badly(2);
    assert!(sentence.contains("--queue N"), "{sentence}");
    let sentence = node.run(&["group", "describe", "nobody"]).badly(1);
    assert!(sentence.contains("nobody"), "{sentence}");
}

#[test]
fn topics_live_from_create_to_delete() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let json = |arguments: &[&str]| node.run(&[arguments, &["-o", "json"]].concat()).json();
    assert_eq!(json(&["topic", "list"])["topics"], serde_json::json!([]));
    json(&["topic", "create", "orders", "--queues", "3", "--retention", "2h", "--level", "written"]);
    json(&["topic", "create", "bills"]);
    let listed = json(&["topic", "list"]);
    let names: Vec<_> =
        listed["topics"].as_array().expect("topics").iter().map(|t| t["topic"].clone()).collect();
    assert_eq!(names.len(), 2, "{listed}");
    let described = json(&["topic", "describe", "orders"]);
    assert_eq!(
        (&described["queue_count"], &described["retention_ms"], &described["level"]),
        (&3.into(), &7_200_000.into(), &"written".into())
    );
    assert_eq!(json(&["topic", "describe", "bills"])["queue_count"], 4);
    json(&["topic", "alter", "orders", "--queues", "5", "--level", "durable"]);
    let described = json(&["topic", "describe", "orders"]);
    assert_eq!((&described["queue_count"], &described["level"]), (&5.into(), &"durable".into()));
    assert_eq!(described["queues"].as_array().map(Vec::len), Some(5));
    assert_eq!(described["retention_ms"], 7_200_000, "not named, not changed");
    json(&["topic", "alter", "orders", "--retention", "none"]);
    let described = json(&["topic", "describe", "orders"]);
    assert_eq!((&described["retention"], &described["retention_ms"]), (&"none".into(), &().into()));
    json(&["topic", "alter", "orders", "--retention", "default"]);
    assert_eq!(json(&["topic", "describe", "orders"])["retention"], "default");

    command::run(Some(node.address()), &["produce", "orders", "--queue", "4"], Some(b"one\ntwo\n")).well();
    assert_eq!(json(&["topic", "describe", "orders"])["queues"][4]["messages"], 2);
    json(&["topic", "delete", "orders", "--yes"]);
    node.run(&["topic", "describe", "orders"]).badly(1);
    json(&["topic", "create", "orders", "--queues", "5"]);
    assert_eq!(node.run_well(&["consume", "orders"]), "", "a new topic has nothing of the old one");
    refusals(&node);
}

fn refusals(node: &Node) {
    let cases: [(&[&str], i32, &str, &str); 6] = [
        (&["topic", "create", "orders"], 1, "exists already", "TopicExists"),
        (&["topic", "create", "more", "--queues", "65537"], 1, "at most 65536 queues", "InvalidArgument"),
        (&["topic", "alter", "orders", "--queues", "2"], 1, "not fewer", "InvalidArgument"),
        (&["topic", "delete", "nothing", "--yes"], 1, "`turbopump topic list`", "TopicNotExist"),
        (&["consume", "nothing"], 1, "turbopump topic create nothing", "TopicNotExist"),
        (&["consume", "orders", "--queue", "9"], 1, "queue 9 does not exist", "QueueNotExist"),
    ];
    for (arguments, code, part, status) in cases {
        let sentence = node.run(arguments).badly(code);
        assert!(sentence.contains(part), "{arguments:?}: {sentence}");
        let object = parse(&node.run(&[arguments, &["-o", "json"]].concat()).badly(code));
        assert_eq!(object["status"], status, "{object}");
    }
    let sentence = node.run(&["topic", "create", "no good"]).badly(2);
    assert!(sentence.contains("no good"), "{sentence}");
    // On the wire a count of 0 stands for the default.
    for command in ["create", "alter"] {
        let sentence = node.run(&["topic", command, "more", "--queues", "0"]).badly(2);
        assert!(sentence.contains("--queues"), "{sentence}");
    }
    node.run(&["topic", "alter", "orders"]).badly(2);
    for command in [&["topic", "delete", "nothing", "--yes"][..], &["topic", "describe", "nothing"]] {
        let sentence = node.run(command).badly(1);
        assert!(!sentence.contains("create"), "nobody makes a topic to delete it: {sentence}");
    }
    assert!(node.run(&["instance", "delete", "I"]).badly(1).contains("`turbopump instance list`"));
}

#[test]
fn status_counts_what_went_through() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"a\nb\nc\n")).well();
    let status = node.run(&["status", "-o", "json"]).json();
    let shard = &status["shards"][0];
    assert_eq!(shard["state"], "ok");
    assert_eq!(shard["counters"]["messages_produced"], 3, "{status}");
    assert!(status["resident_bytes"].as_u64() > Some(0), "{status}");
    assert!(node.run_well(&["status", "--all"]).contains("messages_produced"));
    let status = node.run_well(&["status"]);
    assert!(!status.contains("messages_produced"), "{status}");
    for part in ["PER SECOND", "messages in", "available; the log has", "SHARD"] {
        assert!(status.contains(part), "{part} is missing in {status}");
    }
}

#[test]
fn a_broker_that_is_not_there_is_told_with_what_to_type() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = unused.local_addr().expect("bound").to_string();
    drop(unused);
    let sentence = command::run(Some(&address), &["topic", "list"], None).badly(1);
    assert!(sentence.contains("turbopump serve --data DIR") && sentence.contains(&address), "{sentence}");
}

#[test]
fn a_broker_that_dies_leaves_produce_with_how_far_it_got() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    let text: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let arguments = ["produce", "lines", "--rate", "20000", "--batch", "100", "-o", "json"];
    let mut child = command::spawn(Some(node.address()), &arguments, true);
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = text.clone();
    let feeding = std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, input.as_bytes())));
    let mut client = node.client();
    while crate::support::load::bounds(&mut client, "lines", 0).1.0 < 5000 {
        std::thread::yield_now();
    }
    node.kill();
    let failed = command::finish(child, &arguments);
    feeding.join().expect("it only writes");
    let printed = String::from_utf8(failed.stdout.clone()).expect("text");
    let summary = parse(printed.lines().last().expect("a last line"));
    let error = parse(failed.badly(1).lines().last().expect("an object"));
    let next_skip = summary["next_skip"].as_u64().expect("a number");
    assert_eq!(error["next_skip"], next_skip);
    assert!(error["error"].as_str().expect("text").contains(&format!("--skip {next_skip}")), "{error}");
    assert!(next_skip >= 4000, "{summary}");
    let node = Node::start(directory.path());
    let stored = node.run_well(&["consume", "lines"]);
    let acknowledged: String = text.split_inclusive('\n').take(next_skip as usize).collect();
    assert!(stored.starts_with(&acknowledged), "{next_skip} acknowledged lines are not there");
    assert!(text.starts_with(&stored), "what is stored is not a part of the input");
}

#[test]
fn what_other_tools_call_it_is_answered_with_what_it_is_here() {
    let run = |arguments: &[&str]| command::run(None, arguments, None);
    let sentence = run(&["topic", "create", "orders", "--partitions", "3"]).badly(2);
    assert!(sentence.contains("--queues N") && !sentence.contains("--retention"), "{sentence}");
    let object = parse(&run(&["topic", "create", "orders", "--partitions", "3", "-o", "json"]).badly(2));
    assert!(object["error"].as_str().expect("text").contains("here it is --queues N"), "{object}");
    assert!(run(&["consume", "--topic", "orders"]).badly(2).contains("TOPIC stands here without a flag"));
    let sentence = command::run(Some("broker.invalid:10911"), &["topic", "list"], None).badly(1);
    assert!(sentence.contains("broker.invalid") && sentence.contains("check its spelling"), "{sentence}");
    let sentence = command::run(Some("no port here"), &["topic", "list"], None).badly(1);
    assert!(sentence.contains("write host:port"), "{sentence}");
}

/// The number after `--skip` in what was printed.
fn advised_skip(sentence: &str) -> String {
    let (_, behind) = sentence.rsplit_once("--skip ").unwrap_or_else(|| panic!("no --skip: {sentence}"));
    behind.split(|letter: char| !letter.is_ascii_digit()).next().expect("a part").to_owned()
}

/// Sends a file, and goes on as each error says until none comes. Returns the errors.
fn follow_the_advice(node: &Node, arguments: &[&str]) -> Vec<String> {
    let mut errors: Vec<String> = Vec::new();
    let mut skip = "0".to_owned();
    loop {
        let outcome = node.run(&[arguments, &["--skip", &skip]].concat());
        if outcome.code == Some(0) {
            return errors;
        }
        let sentence = outcome.badly(1);
        assert!(errors.len() < 10, "it goes on for ever: {errors:?}");
        skip = advised_skip(&sentence);
        errors.push(sentence);
    }
}

#[test]
fn a_line_that_cannot_be_a_message_is_named_and_the_advice_gets_past_it() {
    let directory = test_directory();
    let node = Node::start(directory.path().join("data"));
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    let long_key = "k".repeat(32_768);
    let long_line = "x".repeat((4 << 20) + 1);
    let mut lines: Vec<String> = (1..=3_460).map(|number| format!("line {number},key-{number}")).collect();
    lines[3_456] = format!("line 3457,{long_key}");
    lines[3_458] = format!("{long_line},key");
    // What nobody could ask for: a tab in a key whose fields are separated by commas.
    lines[9] = "line 10,a\tb".to_owned();
    let file = directory.path().join("lines");
    std::fs::write(&file, lines.join("\n")).expect("written");
    let path = file.to_str().expect("UTF-8");
    let produce = ["produce", "lines", path, "--key-field", "2", "--key-delimiter", ","];
    let errors = follow_the_advice(&node, &produce);
    let [first, second, third] = &errors[..] else { panic!("three lines are no messages: {errors:?}") };
    assert!(first.contains("line 10 ") && first.contains("0x09"), "{first}");
    assert!(second.contains("line 3457 ") && second.contains("32767 bytes"), "{second}");
    assert!(third.contains("line 3459 ") && third.contains("4194304 bytes"), "{third}");
    // All others are there, each once: what came before a line was not dropped with it.
    let stored = node.run_well(&["consume", "lines"]);
    let expected: Vec<&str> = lines
        .iter()
        .enumerate()
        .filter(|(index, _)| ![9, 3_456, 3_458].contains(index))
        .map(|(_, line)| line.as_str())
        .collect();
    assert!(stored.lines().eq(expected.iter().copied()), "{} lines", stored.lines().count());
    let object = parse(&node.run(&[&produce[..], &["-o", "json"]].concat()).badly(1));
    assert_eq!((&object["acknowledged"], &object["next_skip"]), (&9.into(), &10.into()));
}

#[test]
fn what_nothing_can_be_done_about_is_told_without_advice() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "lines", "--queues", "2"]);
    let produce = |more: &[&str]| {
        command::run(Some(node.address()), &[&["produce", "lines"], more].concat(), Some(b"a\nb\nc"))
    };
    assert_eq!(produce(&["--skip", "3"]).code, Some(0), "all of them were sent before");
    let sentence = produce(&["--skip", "4"]).badly(1);
    assert!(sentence.contains("nothing was sent") && sentence.contains("3 lines"), "{sentence}");
    let sentence = produce(&["--queue", "9"]).badly(1);
    assert!(sentence.contains("queue 9 does not exist") && !sentence.contains("--skip"), "{sentence}");
    assert_eq!(node.run_well(&["consume", "lines"]), "");
}

/// From a file that another system made: with a byte order mark, blanks and line ends of two bytes.
#[test]
fn keys_and_tags_of_lines_are_what_can_be_asked_for() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    let text = "\u{feff}k1, red\r\nk2 ,blue\r\nnew york,dark blue\r\n";
    let arguments = ["produce", "lines", "--key-field", "1", "--tag-field", "2", "--key-delimiter", ","];
    command::run(Some(node.address()), &arguments, Some(text.as_bytes())).well();
    let found = |key: &str| {
        let found = node.run(&["message", "find", "lines", "--key", key, "-o", "json"]).json();
        found["messages"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|found| found["offset"].clone())
            .collect::<Vec<_>>()
    };
    for (key, offset) in [("k1", 0), ("k2", 1), ("new york", 2), ("york", 2), ("york  new", 2)] {
        assert_eq!(found(key), [offset], "{key}");
    }
    // A message has all of the keys that are asked for.
    node.run(&["message", "find", "lines", "--key", "new k1"]).badly(1);
    for (group, filter, count) in [("a", "red", 1), ("b", "dark blue", 1), ("c", "red || blue", 2)] {
        let receive = ["message", "receive", "lines", "--group", group, "--filter", filter, "--count", "32"];
        let printed = node.run_well(&[&receive[..], &["-o", "json"]].concat());
        assert_eq!(printed.lines().count(), count, "{filter}: {printed}");
    }
    // The body is what the line was, byte for byte.
    assert_eq!(node.run(&["consume", "lines"]).stdout, text.as_bytes());
}

#[test]
fn bench_writes_into_topics_that_it_has_made_and_no_others() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let bench = |more: &[&str]| {
        let arguments = ["bench", "produce"];
        let few = [
            "--duration",
            "100ms",
            "--warmup",
            "0s",
            "--batch",
            "10",
            "--in-flight",
            "1",
            "--connections",
            "1",
        ];
        node.run(&[&arguments[..], more, &few].concat())
    };
    let messages = |topic: &str| {
        let described = node.run(&["topic", "describe", topic, "-o", "json"]).json();
        let queues = described["queues"].as_array().expect("queues").iter();
        queues.map(|queue| queue["messages"].as_u64().expect("a number")).sum::<u64>()
    };
    bench(&["made"]).well();
    // On a busy machine a short run may end before its first batch.
    while messages("made") == 0 {
        bench(&["made", "--existing"]).well();
    }
    let once = messages("made");
    bench(&["made"]).well();
    assert!(messages("made") >= once, "it goes on with its own");
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let sentence = bench(&["orders"]).badly(1);
    assert!(sentence.contains("--existing") && sentence.contains("is empty"), "{sentence}");
    command::run(Some(node.address()), &["produce", "orders"], Some(b"three apples\n")).well();
    assert!(bench(&["orders"]).badly(1).contains("--existing"));
    assert_eq!(messages("orders"), 1);
    bench(&["orders", "--existing"]).well();
    assert!(bench(&["orders"]).badly(1).contains("not of bench"), "the first message is a program's");
    // One message of somebody else makes it theirs.
    command::run(Some(node.address()), &["produce", "made", "--queue", "0"], Some(b"three apples\n")).well();
    assert!(bench(&["made"]).badly(1).contains("not of bench"));
}
