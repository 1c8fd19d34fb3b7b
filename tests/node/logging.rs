//! What a broker writes to standard error, at which level and in which form, and what SIGHUP makes it read again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::directory::test_directory;
use crate::support::node::{Node, Setup, wait_for};

const CERTIFICATE: &str = include_str!("../data/tls/certificate.pem");
const KEY: &str = include_str!("../data/tls/key.pem");
const KEYS: &str = "[[keys]]\nid = \"a\"\nsecret = \"hunter2\"\nadmin = true\n";

fn write(directory: &Path, name: &str, content: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).expect("a directory of this test");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn wait_until_told(node: &Node, part: &str) {
    wait_for(&format!("`{part}` is told"), || node.told().contains(part));
}

#[test]
fn a_hangup_makes_the_broker_read_its_settings_again() {
    let directory = test_directory();
    let config = write(directory.path(), "turbopump.toml", "log-level = \"warn\"\n");
    let keys = write(directory.path(), "keys.toml", KEYS);
    let certificate = write(directory.path(), "certificate.pem", CERTIFICATE);
    let key = write(directory.path(), "key.pem", KEY);
    let files = ["--http-certificate", text(&certificate), "--http-key", text(&key)];
    let node = Setup::new(directory.path().join("data"))
        .with(&["--config", text(&config), "--http", "127.0.0.1:0", "--access-keys", text(&keys)])
        .with(&files)
        .start();
    let key = ["--access-key", "a", "--secret-key", "hunter2"];
    let create = |topic| node.run_well(&[&["topic", "create", topic], &key[..]].concat());
    create("unsaid");
    write(directory.path(), "turbopump.toml", "log-level = \"info\"\n");
    node.signal(Signal::HUP);
    wait_until_told(&node, "the certificate and its key were read again");
    for part in ["the log level is info, as --config ", "the access keys were read again"] {
        wait_until_told(&node, part);
    }
    create("said");
    wait_until_told(&node, "topic=said");
    assert!(!node.told().contains("unsaid"), "{}", node.told());
    // What cannot be used changes nothing, and ends nothing.
    for (name, text) in
        [("turbopump.toml", "log-level = \"loud\""), ("keys.toml", "[[keys]"), ("key.pem", "none")]
    {
        write(directory.path(), name, text);
    }
    node.signal(Signal::HUP);
    wait_until_told(&node, "the certificate stays as it was: ");
    for part in ["the log level stays as it was: --config ", "the access keys stay as they were: "] {
        wait_until_told(&node, part);
    }
    create("still-said");
    wait_until_told(&node, "topic=still-said");
    let ended = node.stop();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("hunter2"), "a secret is told: {}", ended.stderr);
}

#[test]
fn a_hangup_leaves_a_level_that_a_flag_says() {
    let directory = test_directory();
    let config = write(directory.path(), "turbopump.toml", "log-level = \"error\"\n");
    let setup = Setup::new(directory.path().join("data"));
    let node = setup.with(&["--config", text(&config), "--log-level", "warn,node=info"]).start();
    node.signal(Signal::HUP);
    wait_until_told(&node, "the log level stays warn,node=info, as --log-level says");
    node.run_well(&["topic", "create", "orders"]);
    assert!(!node.stop().stderr.contains("topic=orders"), "topics are told of at `info`");
}

#[test]
fn every_event_is_an_object_of_json_when_that_is_asked_for() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--log-format", "json", "--log-level", "debug"]).start();
    node.run_well(&["topic", "create", "orders", "--queues", "2"]);
    node.run_well(&["message", "publish", "orders", "three apples"]);
    let consumed = node.run_well(&["consume", "orders", "--group", "billing", "--count", "1"]);
    assert_eq!(consumed, "three apples\n");
    node.run_well(&["group", "delete", "billing", "--yes"]);
    node.run_well(&["topic", "delete", "orders", "--yes"]);
    let ended = node.stop();
    let events: Vec<Value> =
        ended.stderr.lines().map(|line| serde_json::from_str(line).expect("an object on a line")).collect();
    let with = |target: &str, message: &str| {
        let is_meant = |event: &&Value| {
            event["target"] == target && event["message"].as_str().is_some_and(|text| text.contains(message))
        };
        events.iter().find(is_meant).unwrap_or_else(|| panic!("no `{message}` of {target}: {}", ended.stderr))
    };
    let recovered = with("node", "the shard has recovered");
    assert_eq!((&recovered["shard"], &recovered["level"]), (&Value::from(0), &Value::from("INFO")));
    assert!(recovered["ms"].is_u64() && recovered["timestamp"].is_string(), "{recovered}");
    assert_eq!(with("node", "takes requests")["shards"], 1);
    assert_eq!(with("topics", "topic made")["queues"], 2);
    let joined = with("groups", "member joined");
    assert_eq!((&joined["group"], &joined["members"]), (&Value::from("billing"), &Value::from(1)));
    with("groups", "member left");
    with("groups", "group removed");
    assert_eq!(with("topics", "topic removed")["topic"], "orders");
    with("node", "SIGTERM: the broker stops");
    assert!(with("node", "stopped")["ms"].is_u64());
}

#[test]
fn segments_are_told_of_when_they_come_and_go() {
    let directory = test_directory();
    let node = Setup::new(directory.path())
        .with(&["--retention-bytes", "32MiB", "--log-level", "warn,log=debug"])
        .start();
    node.run_well(&["topic", "create", "lines"]);
    let megabyte = "x".repeat(1024 * 1024 - 1) + "\n";
    for _ in 0..8 {
        let lines = megabyte.repeat(8);
        crate::support::command::run(Some(node.address()), &["produce", "lines"], Some(lines.as_bytes()))
            .well();
    }
    wait_until_told(&node, "segment made");
    wait_until_told(&node, "segment removed by retention");
    wait_until_told(&node, "segment recycled");
    let told = node.stop().stderr;
    assert!(told.lines().all(|line| line.contains(" log: ")), "only of the log: {told}");
}

#[test]
fn a_client_of_another_protocol_is_told_of_with_its_address() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let local = {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(node.address()).expect("the broker listens");
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("the broker reads");
        let mut rest = Vec::new();
        // The end may come as a reset.
        let _ = stream.read_to_end(&mut rest);
        stream.local_addr().expect("a socket")
    };
    wait_until_told(&node, "it speaks another protocol");
    assert!(node.told().contains(&local.to_string()), "{}", node.told());
}

#[test]
fn a_level_that_is_none_is_refused_with_those_there_are() {
    let directory = test_directory();
    for (flag, value, part) in [
        ("--log-level", "loud", "use off, error, warn, info, debug or trace"),
        ("--log-level", "info,toppics=debug", "`toppics` is nothing that events are about"),
        ("--log-format", "xml", "use text or json"),
    ] {
        let ended = Setup::new(directory.path()).with(&[flag, value]).try_start().err().expect("it is none");
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(part), "`{part}` is missing: {}", ended.stderr);
    }
    let quiet = Setup::new(directory.path()).with(&["--log-level", "error"]).start();
    quiet.run_well(&["topic", "create", "orders"]);
    assert_eq!(quiet.stop().stderr, "");
}
