//! Settings that are changed while a broker runs, and kept.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::remoting;
use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::node::{Node, Setup, wait_for};

fn get(node: &Node, name: &str) -> (Value, String) {
    let text = node.run_well(&["config", "get", name, "-o", "json"]);
    let view: Value = serde_json::from_str(&text).expect("an object");
    let setting = &view["settings"][0];
    assert_eq!(setting["setting"], name, "{view}");
    (setting["value"].clone(), setting["origin"].as_str().expect("words").to_owned())
}

fn refused(node: &Node, arguments: &[&str], part: &str) {
    let outcome = node.run(arguments);
    assert_eq!(outcome.code, Some(1), "{arguments:?}: {}", outcome.stderr);
    assert!(outcome.stderr.contains(part), "`{part}` is missing in {}", outcome.stderr);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn what_is_set_counts_at_once_on_every_shard_and_after_a_restart() {
    let directory = test_directory();
    let config = directory.path().join("turbopump.toml");
    fs::write(&config, "deliveries = 5\nlease = \"2m\"\n").expect("ours");
    let setup = Setup::new(directory.path().join("data")).with(&["--shards", "4", "--config", text(&config)]);
    let node = setup.start();
    assert_eq!(get(&node, "deliveries"), ("5".into(), format!("{}, line 1", config.display())));
    assert_eq!(get(&node, "level"), ("durable".into(), "default".into()));
    let set = [
        "config",
        "set",
        "deliveries=3",
        "level=written",
        "log-level=warn,topics=info",
        "retention-bytes=64MiB",
    ];
    let shown = node.run_well(&set);
    assert!(shown.contains("deliveries") && shown.contains("turbopump config set"), "{shown}");
    // By the shard that has the queue, whichever was asked.
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    for queue in ["0", "1", "2", "3"] {
        let sent =
            node.run_well(&["message", "publish", "orders", "three apples", "--queue", queue, "-o", "json"]);
        assert!(sent.contains("\"level\":\"written\""), "{sent}");
    }
    wait_for("topics are told of", || node.told().contains("topic=orders"));
    node.kill();
    let node = setup.start();
    for (name, value) in [
        ("deliveries", "3"),
        ("level", "written"),
        ("log-level", "warn,topics=info"),
        ("retention-bytes", "64MiB"),
    ] {
        assert_eq!(get(&node, name), (value.into(), "turbopump config set".into()), "{name}");
    }
    assert!(node.banner.contains("answers are given when messages are written"), "{}", node.banner);
    node.run_well(&["config", "unset", "deliveries", "level"]);
    assert_eq!(get(&node, "deliveries").0, "5");
    assert_eq!(get(&node, "level"), ("durable".into(), "default".into()));
    let data = directory.path().join("data");
    node.stop();
    let words = ["serve", "--data", text(&data), "--segment-bytes", "16MiB", "--print-config"];
    let printed = command::run(None, &words, None).well();
    assert!(
        printed.contains("retention-bytes = \"64MiB\"") && printed.contains("# turbopump config set"),
        "{printed}"
    );
}

#[test]
fn what_cannot_be_set_is_refused_and_nothing_is_changed() {
    let directory = test_directory();
    let data = directory.path().join("data");
    let node =
        Setup::new(&data).with(&["--lease", "2m"]).with_variables(&[("TURBOPUMP_DELIVERIES", "4")]).start();
    for (change, part) in [
        ("listen=127.0.0.1:1", "listen cannot be changed while the broker runs"),
        ("lesae=1m", "there is no setting `lesae`"),
        ("level=safe", "`safe` is no durability level"),
        ("lease=1m", "--lease says lease, and wins over what is set"),
        ("deliveries=3", "TURBOPUMP_DELIVERIES says deliveries"),
        ("retention-bytes=1", "--retention-bytes is at least two segments"),
        ("log-level=loud", "`loud` is no level"),
    ] {
        refused(&node, &["config", "set", "ordered-lease=5s", change], part);
    }
    assert_eq!(get(&node, "ordered-lease"), ("1m".into(), "default".into()), "all or none");
    assert!(!data.join("settings.toml").exists(), "nothing is kept");
    refused(&node, &["config", "get", "nothing"], "there is no setting `nothing`");
    // A directory that keeps nothing any more says so, and the broker goes on as it was.
    fs::create_dir(data.join("settings.toml.new")).expect("ours");
    refused(&node, &["config", "set", "ordered-lease=5s"], "nothing was changed");
    assert_eq!(get(&node, "ordered-lease").0, "1m");
    node.stop();
    fs::write(data.join("settings.toml"), "listen = \"127.0.0.1:1\"\n").expect("ours");
    let ended = Setup::new(&data).try_start().err().expect("it is refused");
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("settings.toml: `listen` is no setting that can be set"),
        "{}",
        ended.stderr
    );
}

#[test]
fn only_who_administers_may_look_and_change() {
    let directory = test_directory();
    let keys = "[[keys]]\nid = \"root\"\nsecret = \"r\"\nadmin = true\n[[keys]]\nid = \"shop\"\nsecret = \"s\"\npublish = [\"*\"]\n";
    let file = directory.path().join("keys.toml");
    fs::write(&file, keys).expect("ours");
    let node = Setup::new(directory.path().join("data")).with(&["--access-keys", text(&file)]).start();
    let by = |key: &'static str, secret: &'static str, words: &[&'static str]| {
        node.run(&[words, &["--access-key", key, "--secret-key", secret]].concat())
    };
    for words in [&["config", "get"][..], &["config", "set", "level=written"]] {
        let outcome = by("shop", "s", words);
        assert!(outcome.code == Some(1) && outcome.stderr.contains("may not"), "{}", outcome.stderr);
        by("root", "r", words).well();
    }
}

#[test]
fn a_hangup_takes_over_what_the_file_says_now() {
    let directory = test_directory();
    let config = directory.path().join("turbopump.toml");
    fs::write(&config, "lease = \"2m\"\nordered-lease = \"30s\"\n").expect("ours");
    let node = Setup::new(directory.path().join("data")).with(&["--config", text(&config)]).start();
    node.run_well(&["config", "set", "ordered-lease=10s"]);
    fs::write(&config, "lease = \"3m\"\nordered-lease = \"40s\"\nlevel = \"accepted\"\n").expect("ours");
    node.signal(rustix::process::Signal::HUP);
    wait_for("the file is read again", || get(&node, "lease").0 == "3m");
    assert_eq!(get(&node, "ordered-lease").0, "10s", "what was set wins");
    assert_eq!(get(&node, "level").0, "accepted");
}

/// What `mqadmin updateBrokerConfig` asks for, by RocketMQ's names and by ours.
#[test]
fn rocketmqs_tools_change_the_same_settings() {
    const CHANGE: i32 = 25;
    const SETTINGS: i32 = 26;
    let (_directory, node) = remoting::node(&["--shards", "2"]);
    let mut client = remoting::Remoting::connect(&node.addresses[0]);
    assert_eq!(
        client.ask(CHANGE, &[], b"fileReservedTime=73\nflushDiskType=ASYNC_FLUSH\nlease=90s\n").code,
        0
    );
    let mut other = remoting::Remoting::connect(&node.addresses[1]);
    let told = String::from_utf8(other.ask(SETTINGS, &[], b"").body().to_vec()).expect("UTF-8");
    assert!(told.contains("fileReservedTime=73\n") && told.contains("flushDiskType=ASYNC_FLUSH\n"), "{told}");
    for (name, value) in [("retention-age", "3d1h"), ("level", "written"), ("lease", "1m30s")] {
        assert_eq!(get(&node, name), (value.into(), "turbopump config set".into()), "{name}");
    }
    for body in [
        &b"fileReservedTime=74\nlistenPort=1\n"[..],
        b"haListenPort=1",
        b"nothing=1",
        b"fileReservedTime=long",
        b"aclEnable=true",
    ] {
        assert_ne!(client.ask(CHANGE, &[], body).code, 0, "{}", String::from_utf8_lossy(body));
    }
    assert_eq!(get(&node, "retention-age").0, "3d1h", "all or none");
}
