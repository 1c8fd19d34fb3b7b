//! Where the time of requests went: what answers say that were asked, `slow` and `latency`.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use turbopump::api::{Fetch, MeasureLatency, Reply, Request, RequestStage, Status};
use turbopump::client::ClientError;
use turbopump::limits;
use turbopump::protocol::remoting::HeaderForm;
use turbopump::types::{QueueKey, QueueNumber, QueueOffset};

use super::remoting::{Remoting, request};
use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, GET, POST, PUBLISH, publish};
use crate::support::load::{create_topic, produce, topic};
use crate::support::node::{Node, Setup, wait_for};
use crate::support::terminal::Terminal;

const SEND: i32 = 310;
const PULL: i32 = 11;
const SEND_FIELDS: [(&str, &str); 13] = [
    ("a", "p"),
    ("b", "orders"),
    ("c", "TBW102"),
    ("d", "4"),
    ("e", "0"),
    ("f", "0"),
    ("g", "1700000000000"),
    ("h", "0"),
    ("i", ""),
    ("j", "0"),
    ("k", "false"),
    ("m", "false"),
    ("turbopumpStages", "true"),
];

fn started(directory: &tempfile::TempDir, more: &[&str]) -> Node {
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0"]).with(more).start();
    create_topic(&mut node.client(), "orders", 1);
    node
}

fn slow(node: &Node, more: &[&str]) -> Vec<Value> {
    let count = if more.contains(&"--count") { &[][..] } else { &["--count", "1000"] };
    let printed = node.run_well(&[&["slow", "-o", "json"], count, more].concat());
    let printed: Value = serde_json::from_str(&printed).expect("one object");
    printed["requests"].as_array().expect("a list").clone()
}

/// Of stages as HTTP and RocketMQ's protocol say them.
fn stage_of(stages: &str, name: &str) -> u64 {
    let found =
        stages.split(',').filter_map(|stage| stage.trim().split_once('=')).find(|(of, _)| *of == name);
    found.unwrap_or_else(|| panic!("{name} of {stages}")).1.parse().expect("nanoseconds")
}

/// The flush may be the write, where both are one operation.
fn is_stored(stages: &str) -> bool {
    stage_of(stages, "flush") > 0 && stage_of(stages, "total") >= stage_of(stages, "flush")
}

fn key_of(node: &Node) -> QueueKey {
    let topic = node.client().describe_topic(&topic("orders")).expect("it exists");
    QueueKey { topic: topic.id, queue: QueueNumber(0) }
}

#[test]
fn any_request_can_ask_where_its_time_went() {
    let directory = test_directory();
    let node = started(&directory, &[]);
    // Natively.
    let published = node.run_well(&["message", "publish", "orders", "abc", "--stages", "-o", "json"]);
    let published: Value = serde_json::from_str(&published).expect("one object");
    assert!(published["stages_ns"]["flush"].as_u64().expect("a number") > 0, "{published}");
    let text = node.run_well(&["message", "publish", "orders", "abc", "--stages"]);
    assert!(text.lines().any(|line| line.starts_with("flush  ")), "{text}");
    let mut client = node.client();
    let fetch = Request::Fetch(Fetch {
        key: key_of(&node),
        offset: QueueOffset(0),
        bytes_max: 1024,
        records_max: 10,
        session: 0,
        wait: Duration::ZERO,
    });
    client.call(&fetch).expect("there are messages");
    assert_eq!(client.stages(), None, "nobody has asked");
    client.ask_for_stages(true);
    for request in [fetch, Request::ListTopics, Request::DescribeNode { count_syscalls: false }] {
        client.call(&request).expect("it is answered");
        let stages = client.stages().unwrap_or_else(|| panic!("{request:?} says nothing"));
        assert!(!stages.brokers().is_zero() && stages.get(RequestStage::Wait).is_zero(), "{stages}");
    }
    let refused = client.describe_topic(&topic("nothing"));
    assert!(matches!(refused, Err(ClientError::Refused(failure)) if failure.status == Status::TopicNotExist));
    assert!(client.stages().is_some(), "a refusal says it as well");
    // Over HTTP.
    let mut connection = Connection::open(&node);
    let head = POST.replace("\r\n", "\r\nX-Turbopump-Stages: yes\r\n");
    let head = head.replacen("\r\nX-Turbopump-Stages: yes\r\n", "\r\n", 1);
    connection.send(format!("{head}Content-Length: {}\r\n\r\n{PUBLISH}", PUBLISH.len()));
    let answer = connection.next().expect("an answer");
    let stages = answer.head.split("x-turbopump-stages: ").nth(1).expect("stages").split("\r\n").next();
    assert!(answer.status == 201 && is_stored(stages.expect("a line")), "{}", answer.head);
    connection.send(publish(PUBLISH));
    let answer = connection.next().expect("an answer");
    assert!(answer.status == 201 && !answer.head.contains("stages"), "nobody has asked: {}", answer.head);
    connection.send(GET.replace("\r\n\r\n", "\r\nx-turbopump-stages: 1\r\n\r\n"));
    let answer = connection.next().expect("an answer");
    assert!(answer.status == 200 && answer.head.contains("x-turbopump-stages: receive="), "{}", answer.head);
    // As RocketMQ's clients could.
    let mut remoting = Remoting::connect(node.address());
    let sent = remoting.ask(SEND, &SEND_FIELDS, b"abc");
    assert_eq!(sent.code, 0, "{}", sent.remark);
    assert!(is_stored(sent.field("turbopumpStages")), "{sent:?}");
    let mut pull =
        vec![("consumerGroup", "readers"), ("topic", "orders"), ("queueId", "0"), ("queueOffset", "0")];
    pull.extend([("maxMsgNums", "1"), ("sysFlag", "4"), ("commitOffset", "0"), ("subscription", "*")]);
    pull.extend([("suspendTimeoutMillis", "0"), ("subVersion", "0"), ("turbopumpStages", "")]);
    let pulled = remoting.ask(PULL, &pull, b"");
    assert_eq!(pulled.code, 0, "{}", pulled.remark);
    assert!(stage_of(pulled.field("turbopumpStages"), "total") > 0, "{pulled:?}");
}

#[test]
fn what_a_long_poll_waits_is_not_the_brokers_time() {
    let directory = test_directory();
    let node = started(&directory, &[]);
    let mut client = node.client();
    client.ask_for_stages(true);
    let wait = Duration::from_secs(20);
    let (key, offset) = (key_of(&node), QueueOffset(0));
    let fetch = Fetch { key, offset, bytes_max: 1024, records_max: 10, session: 0, wait };
    let asking = thread::spawn(move || {
        let fetched = client.call(&Request::Fetch(fetch)).expect("a message comes");
        (fetched, client.stages().expect("it was asked for"))
    });
    let mut http = Connection::open(&node);
    http.send(GET.replace("numOfMessages=1", "numOfMessages=1&waitseconds=20"));
    thread::sleep(Duration::from_millis(700));
    node.run_well(&["message", "publish", "orders", "abc"]);
    let (fetched, stages) = asking.join().expect("no panic");
    assert!(matches!(fetched, Reply::Fetched(fetched) if !fetched.batches.is_empty()));
    let (waited, own) = (stages.get(RequestStage::Wait), stages.brokers());
    assert!(waited > Duration::from_millis(300) && own < waited / 2, "{stages}");
    assert_eq!(http.next().expect("a message").status, 200);
    let slow = slow(&node, &["--topic", "orders"]);
    for kind in ["fetch", "consume"] {
        let found = slow.iter().find(|request| request["request"] == kind);
        let found = found.unwrap_or_else(|| panic!("no {kind} in {slow:?}"));
        let (waited, own) = (found["stages_ns"]["wait"].as_u64(), found["total_ns"].as_u64());
        assert!(waited > Some(300_000_000) && own < Some(300_000_000), "{found}");
    }
}

#[test]
fn slow_requests_are_told_with_what_the_shard_did() {
    let directory = test_directory();
    let node = started(&directory, &[]);
    assert!(slow(&node, &["--protocol", "http"]).is_empty());
    let none = node.run_well(&["slow", "--protocol", "http"]);
    assert_eq!(none, "no such request of the last ten minutes is kept\n");
    let body = vec![b'x'; 1 << 20];
    produce(&node, "orders", 0, (0..40).map(|_| &body[..]));
    let mut connection = Connection::open(&node);
    connection.send(publish(PUBLISH));
    assert_eq!(connection.next().expect("an answer").status, 201);
    assert_eq!(Remoting::connect(node.address()).ask(SEND, &SEND_FIELDS, b"abc").code, 0);
    let all = slow(&node, &[]);
    let totals: Vec<u64> =
        all.iter().map(|request| request["total_ns"].as_u64().expect("a number")).collect();
    assert!(totals.is_sorted_by(|one, other| one >= other), "{totals:?}");
    for request in &all {
        let counted = ["parse", "queue", "work", "append", "device", "flush", "reply"];
        let stages = counted.map(|stage| request["stages_ns"][stage].as_u64().expect("a number"));
        assert_eq!(stages.iter().sum::<u64>(), request["total_ns"].as_u64().expect("a number"), "{request}");
    }
    // Segments have 16 MiB: for some of the messages the log went on in the next one.
    let produced = |request: &&Value| request["request"] == "produce" && request["topic"] == "orders";
    let met = all.iter().filter(produced).find(|request| request["meanwhile_ns"].get("segment").is_some());
    assert!(met.is_some_and(|request| request["client"] == "127.0.0.1"), "{all:?}");
    for (protocol, kind) in [("native", "produce"), ("http", "publish"), ("remoting", "send")] {
        let of_it = slow(&node, &["--protocol", protocol]);
        assert!(of_it.iter().all(|request| request["protocol"] == protocol), "{of_it:?}");
        assert!(of_it.iter().any(|request| request["request"] == kind), "{kind} is not in {of_it:?}");
    }
    let mistyped = node.run(&["slow", "--topic", "ordres"]);
    assert!(mistyped.code == Some(1) && mistyped.stderr.contains("does not exist"), "{}", mistyped.stderr);
    assert_eq!(slow(&node, &["--count", "3"]).len(), 3);
    let text = node.run_well(&["slow", "--count", "2"]);
    assert!(text.trim_start().starts_with("ANSWERED") && text.lines().count() == 3, "{text}");
    let refused = node.run(&["slow", "--shard", "9"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("shards 0 to 0, not 9"), "{}", refused.stderr);
    assert!(node.counter("flight_recorder_bytes") > 0);
}

#[test]
fn terminals_are_shown_what_fits_and_pipes_what_there_is() {
    let directory = test_directory();
    let node = started(&directory, &[]);
    let body = vec![b'x'; 1 << 20];
    produce(&node, "orders", 0, (0..20).map(|_| &body[..]));
    for (columns, part) in [(40, "  where: "), (60, "  where: "), (80, "  where: "), (160, "MEANWHILE")] {
        let mut terminal = Terminal::start(node.address(), &["slow", "--count", "5"], columns, 50);
        assert!(terminal.end().success());
        terminal.wait_for(part);
        let shown = terminal.lines();
        assert!(shown.iter().all(|line| line.chars().count() <= usize::from(columns)), "{shown:#?}");
    }
    let plain = [("NO_COLOR", "1")];
    let mut terminal = Terminal::start_with(node.address(), &["slow"], (160, 50), &plain);
    assert!(terminal.end().success());
    terminal.wait_for("ANSWERED");
    assert!(!terminal.raw().contains(&0x1b), "{}", terminal.text());
    let piped = node.run_well(&["slow"]);
    assert!(piped.contains("ANSWERED") && !piped.contains('\u{1b}'), "{piped}");
    for columns in [40, 60, 160] {
        let arguments = ["latency", "orders", "--for", "3s"];
        let mut terminal = Terminal::start_with(node.address(), &arguments, (columns, 200), &plain);
        wait_for("it counts", || {
            produce(&node, "orders", 0, [&body[..]]);
            terminal.text().contains("native produce: ")
        });
        assert!(terminal.end().success());
        terminal.wait_for("+-");
        let shown = terminal.lines();
        let drawn = shown.iter().filter(|line| !line.contains(" in 3s, "));
        assert_eq!(drawn.filter(|line| line.chars().count() > usize::from(columns)).count(), 0, "{shown:#?}");
        assert!(columns < 160 || terminal.text().contains('\u{2588}'), "{shown:#?}");
        // A terminal breaks what does not fit, so that no line is too long: none begins in the midst of one.
        let is_whole = |line: &String| line.starts_with("  mean ") || line.starts_with("STAGE ");
        assert!(shown.iter().any(is_whole), "{shown:#?}");
        assert_eq!(columns == 40, shown.iter().any(|line| line.starts_with("  mean ")), "{shown:#?}");
        assert!(!terminal.raw().contains(&0x1b), "{}", terminal.text());
    }
}

#[test]
fn who_asks_and_leaves_harms_nobody() {
    let directory = test_directory();
    let node = started(&directory, &["--shards", "2"]);
    let key = key_of(&node);
    let wait = Duration::from_secs(20);
    let fetch = Fetch { key, offset: QueueOffset(0), bytes_max: 1024, records_max: 10, session: 0, wait };
    let consume = GET.replace("numOfMessages=1", "numOfMessages=1&waitseconds=20");
    let consume = consume.replace("\r\n\r\n", "\r\nx-turbopump-stages: 1\r\n\r\n");
    for round in 0..30 {
        let mut client = node.client().open_owner(QueueNumber(0)).expect("the broker listens");
        client.ask_for_stages(true);
        client.submit(&Request::Fetch(fetch)).expect("it is small");
        client.flush().expect("the broker reads");
        let mut http = Connection::open(&node);
        http.send(if round % 2 == 0 { consume.clone() } else { publish(PUBLISH) });
        let mut remoting = Remoting::connect(node.address());
        remoting.send(&request(HeaderForm::Json, SEND, 1, &SEND_FIELDS, b"abc"));
    }
    // Who would have measured for a minute is in nobody's way either.
    let time = Duration::from_millis(limits::MEASURED_MS_MAX.into());
    let measure = Request::MeasureLatency(MeasureLatency { topic: topic("orders"), time });
    let leaving: Vec<_> = (0..limits::MEASUREMENTS_MAX)
        .map(|_| {
            let mut leaving = node.client().open_owner(QueueNumber(0)).expect("the broker listens");
            leaving.submit(&measure).expect("it is small");
            leaving.flush().expect("the broker reads");
            leaving
        })
        .collect();
    let look = || node.run(&["latency", "orders", "--for", "1ms"]);
    wait_for("they measure", || look().stderr.contains("are being measured by 2 already"));
    drop(leaving);
    let left = Instant::now();
    wait_for("nobody measures any more", || look().code == Some(0));
    assert!(left.elapsed() < time / 2, "they were waited for");
    node.run_well(&["message", "publish", "orders", "abc", "--stages"]);
    assert!(!slow(&node, &["--topic", "orders"]).is_empty());
}

#[test]
fn many_long_polls_that_one_message_calls_are_a_storm() {
    let directory = test_directory();
    let node = started(&directory, &[]);
    let key = key_of(&node);
    let mut connection = node.client().open_owner(QueueNumber(0)).expect("the broker listens");
    let wait = Duration::from_secs(20);
    let fetch = Fetch { key, offset: QueueOffset(0), bytes_max: 1024, records_max: 1, session: 0, wait };
    for _ in 0..2 * limits::WAKE_STORM {
        connection.submit(&Request::Fetch(fetch)).expect("it is small");
    }
    connection.flush().expect("the broker reads");
    wait_for("all of them wait", || node.counter("fetches_waited") == 2 * limits::WAKE_STORM as u64);
    node.run_well(&["message", "publish", "orders", "abc"]);
    for _ in 0..2 * limits::WAKE_STORM {
        connection.receive(wait).expect("the broker answers").expect("in time");
    }
    let slow = slow(&node, &["--topic", "orders"]);
    let is_storm = |request: &&Value| request["meanwhile_ns"].get("wake-storm").is_some();
    assert!(slow.iter().any(|request| is_storm(&request) && request["request"] == "fetch"), "{slow:?}");
}

#[test]
fn a_topics_latency_is_drawn() {
    let directory = test_directory();
    let node = started(&directory, &["--shards", "2"]);
    let svg = directory.path().join("orders.svg");
    let path = svg.to_str().expect("text");
    let (address, began) = (node.address().to_owned(), Instant::now());
    let (drawn, published) = thread::scope(|scope| {
        let drawing = scope.spawn(|| node.run_well(&["latency", "orders", "--for", "2s", "--svg", path]));
        let mut connection = Connection::open(&node);
        let mut published = 0;
        while began.elapsed() < Duration::from_millis(1_500) {
            connection.send(publish(PUBLISH));
            assert_eq!(connection.next().expect("an answer").status, 201);
            assert_eq!(Remoting::connect(&address).ask(SEND, &SEND_FIELDS, b"abc").code, 0);
            published += 1;
            thread::sleep(Duration::from_millis(5));
        }
        (drawing.join().expect("no panic"), published)
    });
    assert!(published > 0);
    for part in ["http publish: ", "remoting send: ", "STAGE", "flush", "|  "] {
        assert!(drawn.contains(part), "{part} is missing in\n{drawn}");
    }
    let svg = fs::read_to_string(svg).expect("it was drawn");
    assert!(svg.contains("</svg>") && svg.contains("remoting send"));
    // Everything that was measured is forgotten, and nothing came since.
    let printed = node.run_well(&["latency", "orders", "--for", "10ms", "-o", "json"]);
    let printed: Value = serde_json::from_str(&printed).expect("one object");
    assert_eq!(printed["requests"].as_array().expect("a list").len(), 0, "{printed}");
    let undrawn = node.run(&["latency", "orders", "--for", "1ms", "--svg", "/nowhere/orders.svg"]);
    assert!(undrawn.code == Some(1) && undrawn.stderr.contains("/nowhere/orders.svg"), "{}", undrawn.stderr);
    assert!(undrawn.stdout.starts_with(b"no request about orders"), "{:?}", undrawn.stdout);
    let refused = node.run(&["latency", "nothing", "--for", "1ms"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("does not exist"), "{}", refused.stderr);
}
