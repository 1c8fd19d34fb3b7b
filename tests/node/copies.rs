//! Messages out of a broker and in again, whole: `consume -o json`, `-f`, `--until`, `--grep`, and `produce --format json`.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use turbopump::wire::origin::{Attributes, BodyEncoding, Origin};

use crate::support::command;
use crate::support::copies::{Whole, read_whole, store_whole};
use crate::support::directory::test_directory;
use crate::support::node::{Node, Setup};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn produce(node: &Node, topic: &str, more: &[&str], input: &[u8]) -> command::Outcome {
    let arguments = [&["produce", topic, "--format", "json"], more].concat();
    command::run(Some(node.address()), &arguments, Some(input))
}

fn whole(body: impl Into<Vec<u8>>) -> Whole {
    Whole::of_body(body)
}

/// Messages of every kind that a broker stores.
fn awkward_messages() -> Vec<Whole> {
    let origin = |address: &str| Some(Origin::new(7, 3, address.parse().expect("an address")));
    let properties = |text: &str| Whole { properties: text.as_bytes().to_vec(), ..whole("p") };
    let zlib = {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, b"three apples").expect("writing into memory");
        encoder.finish().expect("writing into memory")
    };
    let encoded = Attributes { encoding: BodyEncoding::Zlib, committed: true };
    vec![
        whole(""),
        whole("say \"hi\"\t\u{e9}\\ \u{1F600}\r\n"),
        whole(*b"\0\x01\xff\xfe\0"),
        Whole { key: "k1 k2".into(), tag: "sch\u{f6}n".into(), ..whole("keyed") },
        properties("z\x011\x02a\x01\x02odd name \"{}\x01odd value \u{7}\\\x02"),
        properties("a\x011\x02b\x012"),
        properties("UNIQ_KEY\x01AB\x02RETRY_TOPIC\x01orders\x02DELAY\x013\x02"),
        Whole { properties: b"a\x01\xff\xfe\x02".to_vec(), ..whole("no text") },
        Whole { origin: origin("10.1.2.3:4000"), ..whole("from afar") },
        Whole { origin: origin("[2001:db8::1]:4000"), born_ms: 0, ..whole("") },
        Whole { body: zlib, attributes: encoded, ..whole("") },
        Whole { body: b"no zlib".to_vec(), attributes: encoded, ..whole("") },
        Whole { born_ms: i64::MAX as u64, ..whole("from the end of time") },
        whole(vec![0; 4 * 1024 * 1024]),
        whole((0..4 * 1024 * 1024).map(|number: u32| number as u8).collect::<Vec<_>>()),
    ]
}

#[test]
fn every_part_of_every_message_comes_back() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    for topic in ["orders", "copies", "again"] {
        node.run_well(&["topic", "create", topic, "--queues", "3"]);
    }
    for (number, message) in awkward_messages().iter().enumerate() {
        store_whole(&node, "orders", number as u32 % 3, message);
    }
    let lines = node.run(&["consume", "orders", "-o", "json"]).stdout;
    let summary = parse(produce(&node, "copies", &["-o", "json"], &lines).well().trim());
    assert_eq!(summary["acknowledged"], awkward_messages().len());
    let original = read_whole(node.client(), "orders");
    assert_eq!(original.iter().map(Vec::len).sum::<usize>(), awkward_messages().len());
    assert!(read_whole(node.client(), "copies") == original, "a copy is another message");
    // A copy of a copy from a file, which a broker of one shard more has been given through any queue.
    let file = directory.path().join("lines");
    std::fs::write(&file, node.run(&["consume", "copies", "-o", "json"]).stdout).expect("written");
    let file = file.to_str().expect("UTF-8");
    node.run_well(&["produce", "again", file, "--format", "json", "--queue", "1"]);
    let again = read_whole(node.client(), "again");
    assert_eq!((again[0].len(), again[1].len()), (0, awkward_messages().len()));
    // What a message has does not depend on the command that shows it, but for its place.
    let found = node.run(&["message", "find", "orders", "--key", "k1", "-o", "json"]).json();
    let mut found = found["messages"][0].clone();
    let consumed = String::from_utf8(lines).expect("text");
    let consumed = consumed.lines().map(parse).find(|line| line["key"] == "k1 k2").expect("it is there");
    for member in ["shard", "position", "index"] {
        found.as_object_mut().expect("an object").remove(member);
    }
    assert_eq!(found, consumed);
}

#[test]
fn a_line_that_is_no_message_is_named_and_left_out_by_its_number() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let lines =
        |third: &str| format!("{{\"body\":\"one\"}}\n{{\"body\":\"two\",\"queue\":1}}\n{third}\n{{}}\n");
    for (third, part) in [
        (r#"{"boddy":"three"}"#, "unknown field `boddy`"),
        (r#"{"body":"three"#, "line 3 is no message in JSON"),
        ("", "line 3 is empty"),
        ("\u{feff}{}", "line 3 begins with a byte order mark"),
        (r#"{"messages":[{"body":"three"}],"complete":true,"next":null}"#, "jq -c '.messages[]'"),
        (r#"{"properties":{"DELAY":"3"}}"#, "`offset`"),
        (r#"{"key":"a\tb"}"#, "cannot be a message"),
        (r#"{"queue":7}"#, "--any-queue"),
    ] {
        let outcome = produce(&node, "orders", &[], lines(third).as_bytes());
        let sentence = outcome.badly(1);
        assert!(sentence.contains("line 3") && sentence.contains(part), "{third}: {sentence}");
        assert!(sentence.contains("2 lines are acknowledged: --skip 3"), "{sentence}");
        produce(&node, "orders", &["--skip", "3"], lines(third).as_bytes()).well();
    }
    produce(&node, "orders", &["--any-queue"], lines(r#"{"queue":7}"#).as_bytes()).well();
    for wrong in [&["--key-field", "1"][..], &["--tag-field", "1"]] {
        assert!(produce(&node, "orders", wrong, b"").badly(2).contains("--format lines"));
    }
    let lines = ["produce", "orders", "--any-queue"];
    assert!(command::run(Some(node.address()), &lines, Some(b"")).badly(2).contains("--format json"));
    let copied = node.run_well(&["consume", "orders", "-o", "json", "--count", "1"]);
    let line = copied.replace("\"offset\"", "\"properties\":{\"DELAY\":\"3\"},\"offset\"");
    produce(&node, "orders", &[], line.as_bytes()).well();
}

#[test]
fn a_line_can_be_for_later() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64;
    let lines = [
        json!({"body": "now"}),
        json!({"body": "later", "deliver_at_ms": now + 3_600_000}),
        json!({"body": "then", "deliver_at": "2024-05-06T07:08:09Z"}),
        json!({"body": "at last"}),
    ];
    let lines = lines.map(|line| format!("{line}\n")).concat();
    let summary = parse(produce(&node, "orders", &["-o", "json"], lines.as_bytes()).well().trim());
    assert_eq!((&summary["acknowledged"], &summary["may_be_double"]), (&json!(4), &json!(0)));
    assert_eq!(node.run_well(&["consume", "orders"]), "now\nthen\nat last\n");
    let never = b"{\"body\":\"now\"}\n{\"body\":\"never\",\"deliver_at\":\"2999-01-01\"}\n";
    let sentence = produce(&node, "orders", &[], never).badly(1);
    assert!(sentence.contains("line 2 cannot be delayed") && sentence.contains("--skip 2"), "{sentence}");
}

#[test]
fn a_format_prints_what_it_says() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let line = r#"{"body":"three apples","key":"k1","tag":"fruit","queue":1,"born_time":"2024-05-06T07:08:09.123Z",
        "unique_id":"AB","properties":{"shop":"7","till":""}}"#;
    produce(&node, "orders", &[], line.replace('\n', "").as_bytes()).well();
    let print = |format: &str| node.run_well(&["consume", "orders", "-f", format]);
    assert_eq!(
        print("%t %q %o %D %k %T %p %b %s %u %%\\n"),
        "orders 1 0 2024-05-06T07:08:09.123Z k1 fruit shop=7,till=,UNIQ_KEY=AB three apples 12 AB %\n"
    );
    let (id, stored) = (print("%i"), print("%d"));
    assert_eq!(
        parse(&node.run_well(&["message", "find", "--id", &id, "-o", "json"]))["messages"][0]["id"],
        id
    );
    assert!(stored.starts_with("20") && stored.ends_with('Z'), "{stored}");
    assert_eq!(print("\\x41\\t\\\\"), "A\t\\");
    let sentence = node.run(&["consume", "orders", "-f", "%Q"]).badly(2);
    assert!(sentence.contains("%t %q %o %i %u %d %D %k %T %p %b %s"), "{sentence}");
    let both = node.run(&["consume", "orders", "-f", "%b", "-o", "json"]).badly(2);
    assert!(both.contains("leave one of them out"), "{both}");
    let help = node.run_well(&["consume", "--help"]);
    assert!(
        help.contains("%o  offset in its queue") && help.contains("--grep 'refund|chargeback'"),
        "{help}"
    );
}

#[test]
fn reading_ends_where_it_is_told_and_prints_what_is_sought() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    node.run_well(&["topic", "create", "lines", "--queues", "4"]);
    let feed = |from: usize, to: usize| {
        let text: String = (from..to).map(|number| format!("line {number}\n")).collect();
        command::run(Some(node.address()), &["produce", "lines", "--batch", "3"], Some(text.as_bytes()))
            .well();
    };
    feed(0, 20);
    let stored = |line: &Value| line["store_time_ms"].as_u64().expect("a time");
    let json = |more: &[&str]| {
        let printed = node.run_well(&[&["consume", "lines", "-o", "json"], more].concat());
        printed.lines().map(parse).collect::<Vec<_>>()
    };
    let last = json(&[]).iter().map(stored).max().expect("there are messages");
    while std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64 <= last {
        std::thread::yield_now();
    }
    feed(20, 30);
    let until = format!("@{}", last + 1);
    let bodies = |lines: Vec<Value>| {
        let mut bodies: Vec<_> =
            lines.iter().map(|line| line["body"].as_str().expect("text").to_owned()).collect();
        bodies.sort_unstable();
        bodies.len()
    };
    assert_eq!(bodies(json(&["--until", &until])), 20);
    assert_eq!(bodies(json(&["--from", &until, "--until", "2999-01-01"])), 10);
    assert_eq!(bodies(json(&["--until", "-1h"])), 0);
    assert_eq!(bodies(json(&["--from", &until, "--until", &until])), 0);
    assert_eq!(bodies(json(&["--from", "5", "--until", "2001-02-03"])), 0, "no offset is out of range");
    // As a group: what is beyond is read by the next one.
    assert_eq!(bodies(json(&["--group", "g", "--until", &until])), 20);
    assert_eq!(bodies(json(&["--group", "g"])), 10);

    let sought = node.run(&["consume", "lines", "--grep", "line 1\\d?$"]);
    assert_eq!(sought.stderr, "turbopump: 11 messages match of 30 that were looked at\n");
    assert_eq!(sought.well().lines().count(), 11);
    let none = node.run(&["consume", "lines", "--grep", "(?-u:\\xff)", "--until", &until]);
    assert_eq!(none.stderr, "turbopump: 0 messages match of 20 that were looked at\n");
    let wrong = node.run(&["consume", "lines", "--grep", "("]).badly(2);
    assert!(wrong.contains("unclosed group"), "{wrong}");
}

#[test]
fn an_output_that_takes_nothing_is_an_error() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"one\n")).well();
    for more in [&["-o", "json"][..], &["-f", "%b"], &["--grep", "o"]] {
        let full =
            std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device of every Linux");
        let mut command = Command::new(command::BINARY);
        command.args(["consume", "lines", "--server", node.address()]).args(more);
        let ended = command.stdout(full).stderr(Stdio::piped()).output().expect("it can be run");
        let sentence = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{sentence}");
        assert!(sentence.contains("cannot write to standard output"), "{sentence}");
    }
}

/// A file is sent through deaths of the broker: nothing is left out, and what is there twice is counted.
#[test]
fn a_file_is_sent_through_deaths_of_the_broker() {
    let directory = test_directory();
    let data = directory.path().join("data");
    let mut node = Node::start(&data);
    let address = node.address().to_owned();
    node.run_well(&["topic", "create", "lines", "--queues", "2"]);
    let mut text = String::new();
    (0..6000).for_each(|number| writeln!(text, "{number:05}").expect("memory"));
    let file = directory.path().join("lines");
    std::fs::write(&file, &text).expect("written");
    let file = file.to_str().expect("UTF-8");
    let arguments =
        ["produce", "lines", file, "--queue", "1", "--rate", "6000", "--batch", "50", "-o", "json"];
    let child = command::spawn(Some(&address), &arguments, false);
    for least in [1000, 2500] {
        let mut client = node.client();
        while crate::support::load::bounds(&mut client, "lines", 1).1.0 < least {
            std::thread::yield_now();
        }
        node.kill();
        node = Setup::new(&data).with(&["--listen", &address]).start();
    }
    let sent = command::finish(child, &arguments);
    assert!(sent.stderr.contains("trying again, for up to 5m"), "{}", sent.stderr);
    let summary = parse(sent.well().lines().last().expect("a last line"));
    assert_eq!((&summary["acknowledged"], &summary["unknown"]), (&json!(6000), &json!(0)));
    let stored = node.run_well(&["consume", "lines", "--queue", "1"]);
    let numbers: Vec<u32> = stored.lines().map(|line| line.parse().expect("a number")).collect();
    let doubles = numbers.len() as u64 - 6000;
    let may_be_double = summary["may_be_double"].as_u64().expect("a number");
    assert!(doubles <= may_be_double, "{doubles} are twice there, of {may_be_double} that may be");
    // The last of each are all of the file, in its order.
    let mut last = Vec::new();
    for number in numbers {
        last.truncate(last.partition_point(|earlier| *earlier < number));
        last.push(number);
    }
    assert_eq!(last, (0..6000).collect::<Vec<_>>());
}

#[test]
fn a_pipe_ends_with_the_broker_unless_it_is_told_to_wait() {
    let directory = test_directory();
    let data = directory.path().join("data");
    let node = Node::start(&data);
    let address = node.address().to_owned();
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    let arguments = ["produce", "lines", "--retry-for", "300ms"];
    let mut child = command::spawn(Some(&address), &arguments, true);
    let mut stdin = child.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut stdin, b"one\n").expect("it reads");
    let mut client = node.client();
    while crate::support::load::bounds(&mut client, "lines", 0).1.0 < 1 {
        std::thread::yield_now();
    }
    node.kill();
    std::io::Write::write_all(&mut stdin, b"two\n").expect("it reads");
    drop(stdin);
    let sentence = command::finish(child, &arguments).badly(1);
    assert!(sentence.contains("trying again, for up to 300ms"), "{sentence}");
    assert!(sentence.contains("1 lines are acknowledged: go on with --skip 1"), "{sentence}");
}
