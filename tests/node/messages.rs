//! Single messages by command: published, received, acknowledged, delayed, decided on.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::node::{Node, PATIENCE, Setup};

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_else(|| panic!("no text `{name}` in {object}"))
}

fn json(node: &Node, arguments: &[&str]) -> Value {
    node.run(&[arguments, &["-o", "json"]].concat()).json()
}

/// Objects of a command that prints one a line.
fn json_lines(node: &Node, arguments: &[&str]) -> Vec<Value> {
    let printed = node.run_well(&[arguments, &["-o", "json"]].concat());
    printed.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

fn receive(node: &Node, more: &[&str]) -> Vec<Value> {
    json_lines(node, &[&["message", "receive", "orders", "--group", "billing"], more].concat())
}

fn publish(node: &Node, more: &[&str]) -> Value {
    json(node, &[&["message", "publish", "orders"], more].concat())
}

fn start(directory: &tempfile::TempDir) -> Node {
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    node
}

/// What is not there is no success, for people and for programs.
fn check_not_found(node: &Node, arguments: &[&str], words: &str) {
    let find = [&["message", "find"], arguments].concat();
    let sentence = node.run(&find).badly(1);
    assert!(sentence.contains(words), "{sentence}");
    let outcome = node.run(&[&find[..], &["-o", "json"]].concat());
    let found: Value = serde_json::from_slice(&outcome.stdout).expect("an object");
    assert_eq!(found["messages"], Value::Array(Vec::new()));
    let error: Value = serde_json::from_str(&outcome.badly(1)).expect("an object");
    assert_eq!((&error["complete"], &error["exit_code"]), (&true.into(), &1.into()), "{error}");
}

#[test]
fn what_was_published_is_found_by_all_it_carries() {
    let directory = test_directory();
    let node = start(&directory);
    let published = publish(
        &node,
        &["three apples", "--tag", "fruit", "--key", "4711", "--key", "k2", "--property", "shop=a=b"],
    );
    assert_eq!((&published["offset"], text(&published, "level")), (&0.into(), "durable"));
    let (id, place) = (text(&published, "unique_id"), text(&published, "id"));
    node.run_well(&["topic", "create", "others"]);
    for sought in [["--id", id], ["--key", "4711"], ["--key", "k2"]] {
        let found = json(&node, &[&["message", "find", "orders"][..], &sought].concat());
        let [message] = &found["messages"].as_array().expect("a list")[..] else { panic!("{found}") };
        assert_eq!((text(message, "body"), text(message, "tag")), ("three apples", "fruit"));
        assert_eq!((text(message, "key"), text(message, "unique_id")), ("4711 k2", id));
        assert_eq!(text(message, "id"), place, "where it is stored");
        assert_eq!(text(&message["properties"], "shop"), "a=b");
        assert_eq!(message["queue"], published["queue"]);
        // The id that says where it is stored needs no topic, and finds nothing in another.
        let found = json(&node, &["message", "find", "--id", text(message, "id")]);
        assert_eq!(found["messages"][0], *message);
        check_not_found(
            &node,
            &["others", "--id", text(message, "id")],
            "no message of topic others has the id",
        );
    }
    check_not_found(&node, &["orders", "--key", "4712"], "no message of topic orders has the key 4712");
    let nowhere = format!("{}FFFF", &place[..28]);
    check_not_found(&node, &["--id", &nowhere], "no message of this broker has the id");
    let sentence = node.run(&["message", "find", "--id", id]).badly(2);
    assert!(sentence.contains(&format!("turbopump message find TOPIC --id {id}")), "{sentence}");
    // From standard input, byte for byte.
    let body = [&b"\xff\0 bytes\n"[..], &vec![b'x'; 100_000]].concat();
    let arguments = ["message", "publish", "orders", "--queue", "1", "--tag", "raw"];
    command::run(Some(node.address()), &arguments, Some(&body)).well();
    let consumed = node.run(&["consume", "orders", "--queue", "1"]).stdout;
    assert!(consumed.windows(body.len()).any(|part| part == body), "{} bytes", consumed.len());
    let printed = node.run_well(&["message", "publish", "orders", "x", "--level", "written"]);
    for field in ["id ", "unique_id ", "queue ", "offset ", "level "] {
        assert!(printed.lines().any(|line| line.starts_with(field)), "{printed}");
    }
    let sentence = node.run(&["message", "publish", "orders", "x", "--queue", "9"]).badly(1);
    assert!(sentence.contains("has queues 0 to 1, not 9"), "{sentence}");
    let sentence = node.run(&["message", "publish", "nothing", "x"]).badly(1);
    assert!(sentence.contains("turbopump topic create nothing"), "{sentence}");
    node.run(&["message", "publish", "orders", "x", "--property", "a=1", "--property", "a=2"]).badly(2);
}

#[test]
fn a_sharding_key_has_one_queue() {
    let directory = test_directory();
    let node = start(&directory);
    for key in ["a", "b", "c", "d"] {
        let first = publish(&node, &["1", "--sharding-key", key]);
        assert_eq!(first["queue"], crc32c(key.as_bytes()) % 2, "as every client hashes it");
        assert_eq!(publish(&node, &["2", "--sharding-key", key])["queue"], first["queue"]);
    }
    let found = receive(&node, &[]);
    assert!(!text(&found[0]["properties"], "__SHARDINGKEY").is_empty());
}

/// Castagnoli's polynomial, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn a_message_comes_again_until_it_is_acknowledged() {
    let directory = test_directory();
    let node = start(&directory);
    // Nothing there is no failure, as with `consume`.
    let outcome = node.run(&["message", "receive", "orders", "--group", "billing"]);
    assert_eq!((outcome.code, &outcome.stdout[..], &outcome.stderr[..]), (Some(0), &b""[..], ""));
    let id = publish(&node, &["three apples", "--tag", "fruit", "--key", "4711", "--property", "a=b"]);
    let [first] = &receive(&node, &["--lease", "1s", "--count", "32"])[..] else { panic!("one message") };
    for name in ["id", "unique_id"] {
        assert_eq!(text(first, name), text(&id, name), "{name}");
    }
    assert_eq!(first["attempt"], 1);
    assert_eq!(
        (text(first, "tag"), text(first, "key"), text(first, "body")),
        ("fruit", "4711", "three apples")
    );
    assert_eq!(text(&first["properties"], "a"), "b");
    assert_eq!(receive(&node, &[]).len(), 0, "it is leased");
    // The wait ends with the lease.
    let [second] = &receive(&node, &["--lease", "1h", "--wait", "30s"])[..] else { panic!("it comes again") };
    assert_eq!((&second["attempt"], &second["offset"]), (&2.into(), &first["offset"]));
    assert_eq!(second["first_delivery_ms"], first["first_delivery_ms"]);
    let ack = |handles: &[&str]| {
        node.run(&[&["message", "ack", "orders", "--group", "billing", "-o", "json"], handles].concat())
    };
    let (old, new) = (text(first, "handle"), text(second, "handle"));
    let late = ack(&[old, new]);
    let printed: Value = serde_json::from_slice(&late.stdout).expect("an object");
    assert_eq!(text(&printed["outcomes"][0], "outcome"), "not_leased");
    assert_eq!(text(&printed["outcomes"][1], "outcome"), "acknowledged");
    let error: Value = serde_json::from_str(&late.badly(1)).expect("an object");
    assert_eq!(error["failed"], 1);
    ack(&[new]).badly(1);
    let mistyped = new.replace("m.", "m.9");
    assert!(ack(&[&mistyped]).badly(2).contains("no handle"));
    assert_eq!(receive(&node, &[]).len(), 0, "nothing is left");
}

#[test]
fn leases_are_moved_and_what_was_printed_is_acknowledged() {
    let directory = test_directory();
    let node = start(&directory);
    publish(&node, &["one", "--tag", "a"]);
    // The group has passed over it when the filter has left it out.
    publish(&node, &["none", "--tag", "b"]);
    let [one] = &receive(&node, &["--filter", "x || a", "--lease", "1s", "--count", "9"])[..] else {
        panic!("the filter lets one through")
    };
    assert_eq!(text(one, "body"), "one");
    let extend = |handle: &str, lease: &str| {
        let line = ["message", "extend", "orders", handle, "--group", "billing", "--lease", lease];
        json(&node, &line)["outcomes"][0].clone()
    };
    let extended = extend(text(one, "handle"), "1h");
    assert_eq!(text(&extended, "outcome"), "extended");
    assert!(extended["lease_until_ms"].as_u64() > one["lease_until_ms"].as_u64(), "{extended}");
    // The old handle counts no more, and its lease would end in a second.
    let line = ["message", "ack", "orders", text(one, "handle"), "--group", "billing"];
    assert!(node.run(&line).badly(1).contains("1 of 1 messages were not acknowledged"));
    assert_eq!(receive(&node, &["--filter", "a", "--wait", "1500ms"]).len(), 0);
    // Given back, it is there at once.
    extend(text(&extended, "next_handle"), "0");
    let [again] = &receive(&node, &["--filter", "a", "--ack"])[..] else { panic!("it was given back") };
    assert_eq!((text(again, "body"), &again["attempt"]), ("one", &2.into()));
    publish(&node, &["two", "--tag", "b"]);
    let [two] = &receive(&node, &["--ack", "--ordered", "--count", "2"])[..] else { panic!("the other") };
    assert_eq!(text(two, "body"), "two");
    let described = json(&node, &["group", "describe", "billing"]);
    assert_eq!(described["lag"], 0, "{described}");
    let line = ["message", "receive", "orders", "--group", "billing", "--lease", "1ms"];
    assert!(node.run(&line).badly(2).contains("a lease lasts 1s to 12h"));
}

#[test]
fn a_wait_ends_with_the_message() {
    let directory = test_directory();
    let node = start(&directory);
    let line = ["message", "receive", "orders", "--group", "billing", "--wait", "10m", "-o", "json"];
    let waiting = command::spawn(Some(node.address()), &line, false);
    std::thread::sleep(Duration::from_millis(300));
    let published = Instant::now();
    publish(&node, &["news"]);
    let printed = command::finish(waiting, &line).json();
    assert_eq!(text(&printed, "body"), "news");
    assert!(published.elapsed() < Duration::from_secs(10), "{:?}", published.elapsed());
}

#[test]
fn a_delayed_message_comes_when_it_is_due() {
    let directory = test_directory();
    let node = start(&directory);
    let published = publish(&node, &["later", "--delay", "2s", "--key", "k"]);
    assert_eq!(
        (&published["offset"], &published["id"]),
        (&Value::Null, &Value::Null),
        "it is in no queue yet"
    );
    let due = published["deliver_at_ms"].as_u64().expect("a time");
    assert_eq!(receive(&node, &[]).len(), 0, "it is not due");
    let [message] = &receive(&node, &["--wait", "30s"])[..] else { panic!("it comes") };
    assert_eq!((text(message, "body"), text(message, "unique_id")), ("later", text(&published, "unique_id")));
    assert!(message["first_delivery_ms"].as_u64() >= Some(due), "{message}");
    // A time that has passed is no delay.
    let at_once = publish(&node, &["past", "--deliver-at", "2001-02-03T04:05:06Z"]);
    assert!(at_once["offset"].is_u64(), "{at_once}");
    let far = node.run(&["message", "publish", "orders", "x", "--delay", "41d"]).badly(1);
    assert!(far.contains("40 days"), "{far}");
}

#[test]
fn transactions_are_committed_rolled_back_and_asked_about() {
    let directory = test_directory();
    let flags = ["--transaction-immunity", "1s", "--transaction-check-interval", "1s", "--shards", "2"];
    let node = Setup::new(directory.path()).with(&flags).start();
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let half = |body: &str| publish(&node, &[body, "--transaction", "--immunity", "1s", "--tag", body]);
    let (kept, dropped, asked) = (half("kept"), half("dropped"), half("asked"));
    assert_eq!(receive(&node, &[]).len(), 0, "nobody has decided");
    let undecided = |more: &[&str]| {
        json_lines(&node, &[&["message", "undecided", "orders", "--group", "producers"], more].concat())
    };
    let mut halves: Vec<Value> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while halves.iter().filter(|half| half["checks"] == 1).count() < 3 {
        assert!(Instant::now() < deadline, "{halves:?}");
        halves.extend(undecided(&["--wait", "10s"]));
    }
    let handle_of = |published: &Value| {
        let is_it = |half: &&Value| half["unique_id"] == published["unique_id"];
        let half = halves.iter().find(is_it).expect("it was asked about");
        assert_eq!(half["body"], half["tag"]);
        text(half, "handle").to_owned()
    };
    assert_eq!(handle_of(&kept), text(&kept, "handle"), "the same handle ends it");
    let committed = json(&node, &["message", "commit", "orders", text(&kept, "handle"), &handle_of(&asked)]);
    assert_eq!(text(&committed["outcomes"][1], "outcome"), "committed");
    let line =
        ["message", "rollback", "orders", text(&dropped, "handle"), text(&kept, "handle"), "-o", "json"];
    let ended = node.run(&line);
    let printed: Value = serde_json::from_slice(&ended.stdout).expect("an object");
    assert_eq!(text(&printed["outcomes"][0], "outcome"), "rolled_back");
    assert_eq!(text(&printed["outcomes"][1], "outcome"), "expired");
    ended.badly(1);
    let mut bodies = Vec::new();
    while bodies.len() < 2 {
        assert!(Instant::now() < deadline, "{bodies:?}");
        let received = receive(&node, &["--count", "32", "--wait", "10s", "--ack"]);
        bodies.extend(received.iter().map(|message| text(message, "body").to_owned()));
    }
    bodies.sort_unstable();
    assert_eq!(bodies, ["asked", "kept"]);
    let leased = ["message", "ack", "orders", text(&kept, "handle"), "--group", "billing"];
    assert!(node.run(&leased).badly(2).contains("message commit"));
}

#[test]
fn a_group_is_altered_and_its_failures_become_dead_letters() {
    let directory = test_directory();
    let node = start(&directory);
    let told = node.run(&["group", "alter", "billing", "--deliveries", "2"]).badly(1);
    assert!(told.contains("group billing does not exist") && told.contains("group create billing"), "{told}");
    let altered = json(&node, &["group", "create", "billing", "--deliveries", "2", "--lease", "1s"]);
    let expected = serde_json::json!(
        {"group": "billing", "deliveries": 2, "lease_ms": 1000, "ordered_lease_ms": null, "consume": true, "broadcast": true,
         "ordered": false, "retry_queues": 1}
    );
    assert_eq!(altered, expected);
    let altered = json(&node, &["group", "alter", "billing", "--ordered-lease", "2m"]);
    assert_eq!((&altered["deliveries"], &altered["ordered_lease_ms"]), (&2.into(), &120_000.into()));
    let printed = node.run_well(&["group", "create", "other", "--deliveries", "3"]);
    assert!(printed.contains("deliveries     3") && printed.contains("as the node has it"), "{printed}");
    assert!(node.run(&["group", "alter", "billing", "--lease", "13h"]).badly(2).contains("12h"));
    publish(&node, &["cursed", "--tag", "t"]);
    for attempt in 1..=2 {
        let [message] = &receive(&node, &["--wait", "30s"])[..] else { panic!("attempt {attempt}") };
        assert_eq!(message["attempt"], attempt);
    }
    assert_eq!(receive(&node, &["--wait", "3s"]).len(), 0, "it was delivered as often as the group allows");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let dead = node.run(&["consume", "%DLQ%billing"]);
        if dead.code == Some(0) && !dead.stdout.is_empty() {
            assert_eq!(dead.stdout, b"cursed\n");
            return;
        }
        assert!(Instant::now() < deadline, "no dead letter: {dead:?}");
    }
}

#[test]
fn more_messages_than_are_shown_are_told_of_and_come_page_by_page() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    let lines: String = (0..100).map(|number| format!("{number}\n")).collect();
    for queue in 0..4 {
        for line in lines.lines().skip(queue * 25).take(25) {
            publish(&node, &[line, "--key", "4711", "--queue", &queue.to_string()]);
        }
    }
    let find = |more: &[&str]| json(&node, &[&["message", "find", "orders", "--key", "4711"], more].concat());
    let mut page = find(&[]);
    let mut bodies = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let messages = page["messages"].as_array().expect("a list");
        bodies.extend(messages.iter().map(|message| text(message, "body").to_owned()));
        sizes.push(messages.len());
        assert_eq!(page["complete"], page["next"].is_null(), "{page}");
        let Some(next) = page["next"].as_str() else { break };
        let next = next.to_owned();
        page = find(&["--after", &next]);
    }
    assert_eq!(sizes, [32, 32, 32, 4]);
    bodies.sort_unstable();
    let mut expected: Vec<&str> = lines.lines().collect();
    expected.sort_unstable();
    assert_eq!(bodies, expected, "each once");
    // For people: the line that is printed goes on.
    let printed = node.run_well(&["message", "find", "orders", "--key", "4711", "--count", "64"]);
    let (_, next) = printed.trim().rsplit_once("--after ").expect("it says how to go on");
    let rest =
        node.run_well(&["message", "find", "orders", "--key", "4711", "--count", "64", "--after", next]);
    assert_eq!(rest.matches("unique_id").count(), 36);
    assert!(!rest.contains("--after"), "{rest}");
    let sentence = node.run(&["message", "find", "orders", "--key", "4711", "--after", "0.0"]).badly(1);
    assert!(sentence.contains("it has 1 shards, this one 2"), "{sentence}");
    node.run(&["message", "find", "orders", "--key", "4711", "--after", "tomorrow"]).badly(2);
}

/// A delay that is a property would be stored, and the message delivered at once.
#[test]
fn a_property_with_a_meaning_is_refused_at_every_native_door() {
    use turbopump::api::{Hold, Produce, Release, Request, Status};
    use turbopump::client::{ClientError, Message};
    use turbopump::types::{QueueKey, QueueNumber, Timestamp};
    use turbopump::wire::properties;

    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    let due = "__STARTDELIVERTIME=99999999999999";
    let sentence = node.run(&["message", "publish", "orders", "x", "--property", due]).badly(2);
    assert!(sentence.contains("--deliver-at"), "{sentence}");
    let mut client = node.client();
    let id = client.topic(&"orders".parse().expect("a name")).expect("it is there").id;
    for name in ["__STARTDELIVERTIME", "DELAY", "TRAN_MSG", "KEYS", "TAGS"] {
        let mut text = Vec::new();
        properties::append(&mut text, name.as_bytes(), b"1").expect("it fits");
        let message = Message { properties: &text, body: b"x", ..Message::default() };
        let batch = message.to_batch(Timestamp(1)).expect("it fits");
        // To a queue of the shard that is asked, to one of another shard, and held.
        let mut refused = |request: &Request| match client.call(request) {
            Err(ClientError::Refused(failure)) => {
                assert_eq!(failure.status, Status::InvalidArgument, "{failure}");
                assert!(failure.message.contains(name), "{failure}");
            }
            other => panic!("{name} was taken: {other:?}"),
        };
        for queue in [0, 1] {
            let key = QueueKey { topic: id, queue: QueueNumber(queue) };
            refused(&Request::Produce(Produce { key, level: None, batch: batch.clone() }));
            let release = Release::At(Timestamp(u64::MAX / 2));
            refused(&Request::Hold(Hold { key, level: None, batch: batch.clone(), release }));
        }
    }
    assert_eq!(node.run_well(&["consume", "orders"]), "");
}

#[test]
fn a_key_or_tag_that_nobody_could_ask_for_is_refused_at_every_door() {
    use turbopump::api::{Produce, Request, Status};
    use turbopump::client::{ClientError, Message};
    use turbopump::types::{QueueKey, QueueNumber, Timestamp};
    use turbopump::wire::batch::BatchBuilder;
    use turbopump::wire::record::Record;

    let directory = test_directory();
    let node = start(&directory);
    for (flag, value) in [("--key", "k2\r"), ("--tag", "a||b"), ("--tag", " a"), ("--key", "\u{feff}k")] {
        node.run(&["message", "publish", "orders", "x", flag, value]).badly(2);
    }
    // As a client of somebody else would send it: the library does not make such a batch.
    let mut client = node.client();
    let topic = client.topic(&"orders".parse().expect("a name")).expect("it is there").id;
    let key = QueueKey { topic, queue: QueueNumber(0) };
    for record in [
        Record { key: b"k2\r", body: b"x", ..Record::default() },
        Record { tag: b"a||b", body: b"x", ..Record::default() },
        Record { tag: b"\xff", body: b"x", ..Record::default() },
    ] {
        assert!(Message { key: record.key, tag: record.tag, ..Message::default() }.check().is_err());
        let mut builder = BatchBuilder::new(Timestamp(1));
        builder.push(&Record { body: b"innocent", ..Record::default() });
        builder.push(&record);
        let produce = Produce { key, level: None, batch: builder.finish().into() };
        match client.call(&Request::Produce(produce)) {
            Err(ClientError::Refused(failure)) => {
                assert_eq!(failure.status, Status::InvalidArgument, "{failure}")
            }
            other => panic!("it was taken: {other:?}"),
        }
    }
    assert_eq!(node.run_well(&["consume", "orders"]), "", "a batch is wholly there or wholly absent");
}

/// What nobody would be shown is not stored.
#[test]
fn properties_of_another_form_are_refused() {
    use turbopump::api::{Produce, Request, Status};
    use turbopump::client::ClientError;
    use turbopump::types::{QueueKey, QueueNumber, Timestamp};
    use turbopump::wire::batch::BatchBuilder;
    use turbopump::wire::record::Record;

    let directory = test_directory();
    let node = start(&directory);
    let mut client = node.client();
    let topic = client.topic(&"orders".parse().expect("a name")).expect("it is there").id;
    let key = QueueKey { topic, queue: QueueNumber(0) };
    let mut send = |properties: &[u8]| {
        let mut builder = BatchBuilder::new(Timestamp(1));
        builder.push(&Record { body: b"innocent", ..Record::default() });
        builder.push(&Record { properties, body: b"x", ..Record::default() });
        client.call(&Request::Produce(Produce { key, level: None, batch: builder.finish().into() }))
    };
    for properties in ["nothing", "a\x02", "\x01b\x02", "a\x01b\x01c\x02", "a\x01b\x02\x02", "a\x01b\x02c"] {
        match send(properties.as_bytes()) {
            Err(ClientError::Refused(failure)) => {
                assert_eq!(failure.status, Status::InvalidArgument, "{properties:?}: {failure}");
                assert!(failure.message.contains("another form"), "{failure}");
            }
            other => panic!("{properties:?} was taken: {other:?}"),
        }
    }
    assert_eq!(node.run_well(&["consume", "orders"]), "", "a batch is wholly there or wholly absent");
    // Some of RocketMQ's clients leave the last byte out.
    for properties in ["a\x01b\x02", "a\x01b\x02c\x01"] {
        send(properties.as_bytes()).expect("it has the form");
    }
}

/// What a person reads has times, and programs have milliseconds.
#[test]
fn texts_have_times_where_json_has_milliseconds() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    let run = |line: &[&str]| {
        let text = node.run_well(line);
        assert_eq!(milliseconds_in(&text), Vec::<&str>::new(), "{line:?}: {text}");
        text
    };
    run(&["message", "publish", "orders", "one", "--key", "k"]);
    let later = run(&["message", "publish", "orders", "later", "--delay", "1h"]);
    assert!(later.contains("due        20"), "{later}");
    let found = run(&["message", "find", "orders", "--key", "k"]);
    assert!(found.contains("store_time        20"), "{found}");
    let received = run(&["message", "receive", "orders", "--group", "g"]);
    assert!(received.contains("lease_until       20"), "{received}");
    run(&["group", "describe", "g"]);
    run(&["topic", "describe", "orders"]);
    run(&["delayed", "list", "orders"]);
    let json = node.run_well(&["message", "find", "orders", "--key", "k", "-o", "json"]);
    assert!(json.contains("\"store_time_ms\":1"), "{json}");
    assert_eq!(node.stop().status.code(), Some(0));
    let dump = ["log", "dump", "--data", directory.path().to_str().expect("UTF-8"), "--records"];
    let dumped = command::run(None, &dump, None).well();
    assert!(dumped.contains(", stored 20") && dumped.contains(" due 20"), "{dumped}");
    let lines = dumped.lines().filter(|line| line.contains(", stored ") || line.contains("delayed"));
    for line in lines {
        assert_eq!(milliseconds_in(line), Vec::<&str>::new(), "{line}");
    }
}

/// Words that are a time of this century in milliseconds.
fn milliseconds_in(text: &str) -> Vec<&str> {
    let words = text.split(|character: char| character.is_whitespace() || ",()@=".contains(character));
    let is_time = |word: &&str| {
        let number = word.parse::<u64>();
        number.is_ok_and(|number| (1_500_000_000_000..4_102_444_800_000).contains(&number))
    };
    words.filter(is_time).collect()
}
