//! `/metrics`: RocketMQ's series as Apache's broker has them, ours as the manual has them, and what is generated for both.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::admin::{ADMIN, ask, get, write};
use super::remoting::Remoting;
use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::machine::report;
use crate::support::node::{Node, Setup, wait_for};

/// Families of a live scrape: name, type, labels, buckets.
const RECORD: &str = include_str!("../data/metrics/apache-5.5.0.tsv");
const MANUAL: &str = include_str!("../../docs/metrics.md");
const HEART_BEAT: i32 = 34;

/// One family of a scrape.
#[derive(Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
    buckets: Vec<String>,
}

fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some((family, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            family.clone_into(&mut name);
            let before = families.insert(name.clone(), Family { kind: kind.to_owned(), ..Family::default() });
            assert_eq!(before, None, "{name} is told of twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&name), "{line} stands below {name}");
            let (_, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let family = families.get_mut(&name).expect("a family");
            let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
            for label in
                labels.map_or("", |(labels, _)| labels).split("\",").filter(|label| !label.is_empty())
            {
                let (label, value) = label.split_once("=\"").expect("a label");
                let value = value.trim_end_matches('"');
                match label {
                    "le" if family.buckets.iter().any(|bucket| bucket == value) => {}
                    "le" => family.buckets.push(value.to_owned()),
                    label => drop(family.labels.insert(label.to_owned())),
                }
            }
        }
    }
    families
}

/// Rows of the manual's table below a heading, by the name in their first column; what the other columns say.
fn rows(heading: &str) -> BTreeMap<String, Vec<String>> {
    let section = MANUAL.split_once(&format!("\n## {heading}\n")).expect("the heading").1;
    let section = section.split("\n## ").next().expect("some text");
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let mut cells: Vec<String> = cells(line);
            (cells.remove(0).trim_matches('`').to_owned(), cells)
        })
        .collect()
}

/// A little of everything that is counted.
fn use_everything(node: &Node) {
    let run = |line: &[&str]| node.run_well(line);
    run(&["topic", "create", "sales", "--queues", "2"]);
    for number in 0..3 {
        run(&["message", "publish", "sales", &format!("body {number}")]);
    }
    run(&["message", "publish", "sales", "soon", "--delay", "1s"]);
    run(&["message", "publish", "sales", "later", "--delay", "1h"]);
    for decision in ["commit", "rollback"] {
        let half = run(&["message", "publish", "sales", "half", "--transaction", "-o", "json"]);
        let half: Value = serde_json::from_str(&half).expect("JSON");
        run(&["message", decision, "sales", half["handle"].as_str().expect("a handle")]);
    }
    run(&["message", "publish", "sales", "undecided", "--transaction"]);
    run(&["group", "create", "refusing", "--deliveries", "1"]);
    run(&["message", "receive", "sales", "--group", "refusing", "--count", "1", "--lease", "1s"]);
    let mut client = Remoting::connect(node.address());
    let subscription = json!({ "topic": "sales", "subString": "*", "subVersion": 1 });
    let beat = json!({ "clientID": "one@1", "producerDataSet": [{ "groupName": "senders" }],
        "consumerDataSet": [{ "groupName": "reading", "messageModel": "CLUSTERING",
            "consumeType": "CONSUME_PASSIVELY", "subscriptionDataSet": [subscription] }] });
    assert_eq!(client.ask(HEART_BEAT, &[], beat.to_string().as_bytes()).code, 0);
    // What is counted of clients goes with their connections.
    std::mem::forget(client);
    let is_counted = |name: &str, group: &str, least: f64| {
        let scrape = get(node, "/metrics").body;
        let values =
            scrape.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(group));
        let values = values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        values.fold(0.0, f64::max) >= least
    };
    wait_for("a message becomes a dead letter", || {
        node.run(&["message", "receive", "sales", "--group", "refusing"]);
        is_counted("rocketmq_send_to_dlq_messages_total", "refusing", 1.0)
    });
    wait_for("a delayed message is there", || is_counted("rocketmq_timer_dequeue_total", "sales", 1.0));
    wait_for("everything is received", || {
        node.run(&["message", "receive", "sales", "--group", "billing", "--count", "5", "--ack"]);
        is_counted("rocketmq_messages_out_total", "billing", 5.0)
    });
}

#[test]
fn a_scrape_is_as_apaches_brokers_and_as_the_manual_says() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&ADMIN).with(&["--shards", "2"]).start();
    use_everything(&node);
    let scrape = get(&node, "/metrics");
    assert!(scrape.head.contains("\r\ncontent-type: text/plain; version=0.0.4"), "{}", scrape.head);
    let ours = families(&scrape.body);
    let left_out = rows("What RocketMQ has and we have not");
    let mut problems = Vec::new();
    for line in RECORD.lines() {
        let [name, kind, labels, buckets] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let split = |text: &str| text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let labels: Vec<String> = split(labels);
        let recorded =
            Family { kind: kind.to_owned(), labels: labels.into_iter().collect(), buckets: split(buckets) };
        match (ours.get(name), left_out.contains_key(name)) {
            (None, true) => {}
            (Some(_), true) => problems.push(format!("{name}: the manual says that there is none")),
            (None, false) => problems.push(format!("{name}: there is none, and the manual does not say so")),
            (Some(family), false) if *family != recorded => {
                problems.push(format!("{name}: {family:?} instead of {recorded:?}"));
            }
            (Some(_), false) => {}
        }
    }
    let recorded: BTreeSet<_> = RECORD.lines().filter_map(|line| line.split('\t').next()).collect();
    let manual = rows("Our own series");
    for (name, family) in ours.iter().filter(|(name, _)| !recorded.contains(name.as_str())) {
        match manual.get(name) {
            None if name.starts_with("rocketmq_") => problems.push(format!("{name}: RocketMQ has none")),
            None => problems.push(format!("{name} ({}): docs/metrics.md has no row of it", family.kind)),
            Some(cells) if cells[0] != family.kind => problems.push(format!("{name}: is a {}", family.kind)),
            Some(_) => {}
        }
    }
    let gone = manual.keys().filter(|name| !ours.contains_key(*name));
    problems.extend(gone.map(|name| format!("{name}: docs/metrics.md has a row, and there is none")));
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    check_values(&node, &scrape.body);
    check_forms(&node);
}

fn check_values(node: &Node, scrape: &str) {
    let value = |name: &str, parts: &[&str]| -> f64 {
        let is_wanted = |line: &&str| {
            line.starts_with(&format!("{name}{{")) && parts.iter().all(|part| line.contains(part))
        };
        let line = scrape.lines().find(is_wanted).unwrap_or_else(|| panic!("{name} {parts:?}"));
        line.rsplit_once(' ').expect("a value").1.parse().expect("a number")
    };
    assert_eq!(value("rocketmq_messages_in_total", &["topic=\"sales\""]), 5.0);
    assert_eq!(value("rocketmq_message_size_count", &["topic=\"sales\""]), 5.0);
    let of = ["consumer_group=\"billing\"", "topic=\"sales\""];
    assert_eq!(value("rocketmq_messages_out_total", &of), 5.0);
    assert_eq!(value("rocketmq_consumer_lag_messages", &of), 0.0);
    assert_eq!(value("rocketmq_half_messages", &["topic=\"sales\""]), 1.0);
    assert_eq!(value("rocketmq_consumer_connections", &["reading", "push"]), 1.0);
    assert_eq!(value("turbopump_topic_messages", &["topic=\"sales\""]), 5.0);
    for shard in ["shard=\"0\"", "shard=\"1\""] {
        assert_eq!(value("turbopump_shard_serving", &[shard]), 1.0);
        let counted = value("turbopump_stage_seconds_count", &[shard, "stage=\"flush\""]);
        assert!(counted > 0.0 && counted <= node.counter("log_flushes") as f64, "{counted}");
    }
    assert!(scrape.lines().any(|line| line == "turbopump_ready 1"));
}

fn check_forms(node: &Node) {
    let open = ask(node, "GET", "/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(open.head.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0"));
    assert!(open.body.ends_with("\n# EOF\n"));
    assert!(open.body.contains("# TYPE rocketmq_messages_in counter\nrocketmq_messages_in_total{"));
}

/// Whoever reads: a member of a group, and somebody who reads for none.
#[test]
fn what_is_fetched_counts_as_outgoing() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&ADMIN).with(&["--shards", "2"]).start();
    node.run_well(&["topic", "create", "sales", "--queues", "2"]);
    let lines = |count: u32| (0..count).map(|number| format!("line {number}\n")).collect::<String>();
    command::run(Some(node.address()), &["produce", "sales"], Some(lines(10).as_bytes())).well();
    assert_eq!(node.run_well(&["consume", "sales", "--group", "readers"]).lines().count(), 10);
    assert_eq!(node.run_well(&["consume", "sales"]).lines().count(), 10);
    let scrape = get(&node, "/metrics").body;
    for name in ["rocketmq_messages_out_total", "rocketmq_throughput_out_total"] {
        let value = |group: &str| -> f64 {
            let labels = format!("consumer_group=\"{group}\",topic=\"sales\"");
            let is_it = |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains(&labels);
            let line = scrape.lines().find(is_it).unwrap_or_else(|| panic!("{name} of `{group}`: {scrape}"));
            line.rsplit_once(' ').expect("a value").1.parse().expect("a number")
        };
        assert_eq!(value("readers"), value(""), "{name}");
        assert!(if name.contains("messages") { value("") == 10.0 } else { value("") > 100.0 }, "{scrape}");
    }
}

/// Names of series in an expression.
fn series(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let is_ours =
        |word: &&str| ["turbopump_", "rocketmq_", "process_"].iter().any(|prefix| word.starts_with(prefix));
    words.filter(is_ours).map(str::to_owned).collect()
}

#[test]
fn what_is_generated_asks_for_series_that_there_are() {
    let directory = test_directory();
    let node = Setup::new(directory.path().join("data")).with(&ADMIN).start();
    let told = families(&get(&node, "/metrics").body);
    let is_told = |name: &String| {
        let histogram = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
        told.contains_key(name) || histogram.is_some_and(|name| told[name].kind == "histogram")
    };
    let board: Value =
        serde_json::from_str(&command::run(None, &["generate", "grafana"], None).well()).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let expressions: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().expect("text"))
        .collect();
    assert!(expressions.len() > 20, "{expressions:?}");
    let alerts = command::run(None, &["generate", "alerts"], None).well();
    for expression in expressions.into_iter().chain([alerts.as_str()]) {
        for name in series(expression) {
            assert!(is_told(&name), "{name} of {expression}");
        }
    }
    let path = directory.path().join("alerts.yaml");
    let text = path.to_str().expect("UTF-8");
    command::run(None, &["generate", "alerts", "--file", text], None).well();
    assert_eq!(std::fs::read_to_string(&path).expect("it was written"), alerts);
    let refused = command::run(None, &["generate", "alerts", "--file", text], None).badly(1);
    assert!(refused.contains(text) && refused.contains("remove it first"), "{refused}");
    match Command::new("promtool").args(["check", "rules", text]).output() {
        Ok(checked) => assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr)),
        Err(_) => report("skipped: alert rules are checked by promtool, which is not here"),
    }
}

/// On an address that others reach, counters are for whoever may see them.
#[test]
fn others_need_a_key_of_an_operator() {
    let directory = test_directory();
    let keys = "[[keys]]\nid = \"root\"\nsecret = \"toor\"\nadmin = true\n\
        [[keys]]\nid = \"shop\"\nsecret = \"s\"\npublish = [\"orders\"]\n";
    let keys = write(&directory.path().join("keys.toml"), keys);
    let data = directory.path().join("data");
    let open = Setup::new(&data).with(&["--admin", "0.0.0.0:0"]).try_start();
    assert!(open.err().expect("nobody has keys").stderr.contains("--access-keys FILE"));
    let setup = Setup::new(&data).with(&["--admin", "0.0.0.0:0", "--access-keys", &keys]);
    let mut node = setup.start();
    let port = node.admin_address.as_ref().and_then(|address| address.rsplit_once(':')).expect("a port").1;
    node.admin_address = Some(format!("127.0.0.1:{port}"));
    for (key, status) in [(None, 401), (Some("shop:s"), 403), (Some("root:x"), 401), (Some("root:toor"), 200)]
    {
        let header = key.map(|key| format!("Authorization: Basic {}\r\n", STANDARD.encode(key)));
        let answer = ask(&node, "GET", "/metrics", &header.unwrap_or_default());
        assert_eq!(answer.status, status, "{key:?}: {}", answer.body);
    }
    assert_eq!(get(&node, "/readyz").status, 200);
}
