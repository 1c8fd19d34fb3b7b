//! The archive for a report of a fault.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;

use super::admin::ADMIN;
use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::node::Setup;

/// A port that nobody has.
const NOBODY: &str = "127.0.0.1:1";

/// The files of an archive, by their names without the folder.
fn unpack(path: &std::path::Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(path).expect("it is made")));
    let entries = archive.entries().expect("an archive").map(|entry| {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a name").into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("UTF-8");
        (path.file_name().expect("a file").to_string_lossy().into_owned(), text)
    });
    entries.collect()
}

#[test]
fn a_bundle_has_what_is_asked_for_first_and_no_secret() {
    let directory = test_directory();
    let root = directory.path();
    let text = |name: &str| root.join(name).to_str().expect("UTF-8").to_owned();
    fs::write(root.join("keys.toml"), "[[keys]]\nid = \"root\"\nsecret = \"hunter2\"\nadmin = true\n")
        .expect("ours");
    fs::write(root.join("turbopump.toml"), format!("access-keys = \"{}\"\n", text("keys.toml")))
        .expect("ours");
    fs::write(root.join("broker.log"), "a line of the broker's\n").expect("ours");
    let node =
        Setup::new(root.join("data")).with(&["--config", &text("turbopump.toml")]).with(&ADMIN).start();
    let admin = node.admin_address.as_ref().expect("it was asked for").clone();
    let key = ["--access-key", "root", "--secret-key", "hunter2"];
    node.run_well(&[&["topic", "create", "orders"], &key[..]].concat());
    let (file, config, data, log) =
        (text("bundle.tar.gz"), text("turbopump.toml"), text("data"), text("broker.log"));
    let words = [
        "bundle", &file, "--config", &config, "--data", &data, "--log", &log, "--admin", &admin, "-o", "json",
    ];
    let made: Value =
        serde_json::from_str(&node.run_well(&[&words[..], &key[..]].concat())).expect("an object");
    let files = unpack(&root.join("bundle.tar.gz"));
    for (name, part) in [
        ("status.json", "\"counters\""),
        ("settings.json", "\"retention-age\""),
        ("topics.json", "\"orders\""),
        ("groups.json", "groups"),
        ("slow.json", "\"create-topic\""),
        ("metrics.txt", "\nturbopump_requests_total{"),
        ("check.json", "\"io_uring\""),
        ("configuration.toml", "access-keys = "),
        ("log-0.txt", "a line of the broker's"),
        ("verify.json", "in use by another turbopump process"),
        ("about.json", "\"version\""),
    ] {
        assert!(files.get(name).is_some_and(|text| text.contains(part)), "{name} lacks {part}: {files:?}");
    }
    assert!(files.values().all(|text| !text.contains("hunter2")), "a secret is in it");
    let problems = made["parts"].as_array().expect("a list").iter().filter(|part| !part["problem"].is_null());
    let names: Vec<_> = problems.map(|part| part["file"].as_str().expect("a name")).collect();
    assert_eq!(names, ["verify.json"], "{made}");
    // What is there is not written over.
    let again = node.run(&["bundle", &file]);
    assert!(again.code == Some(1) && again.stderr.contains("is there already"), "{}", again.stderr);
}

#[test]
fn a_broker_that_is_not_there_leaves_the_rest() {
    let directory = test_directory();
    let file = directory.path().join("bundle.tar.gz");
    let words =
        ["bundle", file.to_str().expect("UTF-8"), "--server", NOBODY, "--admin", NOBODY, "--log", "/nowhere"];
    let printed = command::run(None, &words, None).well();
    assert!(
        printed.lines().any(|line| line.starts_with("status.json") && line.contains("NOT WHOLE")),
        "{printed}"
    );
    assert!(
        printed.lines().any(|line| line.starts_with("metrics.txt") && line.contains("--admin HOST:PORT")),
        "{printed}"
    );
    let files = unpack(&file);
    assert!(
        files["check.json"].contains("io_uring") && files["log-0.txt"].contains("No such file"),
        "{files:?}"
    );
}
