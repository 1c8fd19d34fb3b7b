//! `log verify`, the judge of a stopped broker's files: each kind of damage is found, named, and called what it is.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::support::command;
use crate::support::directory::{files_with, test_directory};
use crate::support::forbidden::{run_read_only, run_without_io_uring};
use crate::support::node::{Node, Setup, wait_for};

const LINES: usize = 400_000;

/// A broker's directory with some sealed segments, keys, an index on disk and a group, stopped well.
fn filled(data: &Path) {
    let node = Setup::new(data).start();
    node.run_well(&["topic", "create", "lines", "--queues", "2"]);
    let text: String =
        (0..LINES).map(|number| format!("key{}\tline {number} {number:0>60}\n", number % 1000)).collect();
    command::run(Some(node.address()), &["produce", "lines", "--key-field", "1"], Some(text.as_bytes()))
        .well();
    node.run_well(&["consume", "lines", "--group", "readers", "--count", "1000"]);
    assert_eq!(node.stop().status.code(), Some(0));
    assert!(segments(data).len() >= 3, "{:?}", segments(data));
    for part in ["/index/0", ".keys", "snapshot-", "/log/manifest"] {
        assert!(!files_with(data, part).is_empty(), "no {part}");
    }
}

fn segments(data: &Path) -> Vec<PathBuf> {
    files_with(data, ".segment")
}

struct Verified {
    code: Option<i32>,
    report: Value,
    stderr: String,
}

impl Verified {
    /// The findings of one kind, as file and detail.
    fn findings(&self, kind: &str) -> Vec<(String, String)> {
        let all = self.report["shards"][0][kind].as_array().expect("a list");
        let text = |finding: &Value, name: &str| finding[name].as_str().expect("text").to_owned();
        all.iter().map(|finding| (text(finding, "file"), text(finding, "detail"))).collect()
    }
}

fn verify(data: &Path) -> Verified {
    let data = data.to_str().expect("UTF-8");
    let outcome = command::run(None, &["log", "verify", "--data", data, "-o", "json"], None);
    let text = String::from_utf8(outcome.stdout.clone()).expect("UTF-8");
    let report = text.lines().next().and_then(|line| serde_json::from_str(line).ok());
    let report = report.unwrap_or_else(|| panic!("no report: {text} {}", outcome.stderr));
    Verified { code: outcome.code, report, stderr: outcome.stderr }
}

fn flip(file: &Path, position: u64) {
    let file = std::fs::File::options().read(true).write(true).open(file).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).expect("within the file");
    file.write_all_at(&[byte[0] ^ 0x10], position).expect("written");
}

fn first_with(data: &Path, part: &str) -> PathBuf {
    files_with(data, part).into_iter().next().unwrap_or_else(|| panic!("no {part}"))
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "{from:?} is not copied");
}

/// What is done to a directory, whether that is damage or made anew, and the part of a file's name that must be told.
type Case = (&'static str, fn(&Path), &'static str, String);

fn cases(data: &Path) -> Vec<Case> {
    let name = |file: &Path| file.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
    let segments = segments(data);
    let cases: Vec<Case> = vec![
        (
            "first copy of the manifest",
            |data| flip(&first_with(data, "/log/manifest"), 10),
            "rebuilt",
            "manifest".into(),
        ),
        ("second copy", |data| flip(&first_with(data, "/log/manifest"), 4106), "rebuilt", "manifest".into()),
        ("a snapshot", |data| flip(&first_with(data, "snapshot-"), 4200), "rebuilt", "snapshot-".into()),
        (
            "an index block",
            |data| flip(&first_with(data, "/index/0"), 200),
            "rebuilt",
            "0000000000.index".into(),
        ),
        (
            "the index",
            |data| std::fs::remove_file(first_with(data, "/index/0")).expect("removed"),
            "rebuilt",
            "0000000000.index".into(),
        ),
        ("a block of keys", |data| flip(&first_with(data, ".keys"), 4200), "rebuilt", ".keys".into()),
        ("a byte of the log", |data| flip(&self::segments(data)[1], 5_000_000), "damage", name(&segments[1])),
        (
            "the last byte of the log",
            |data| {
                let end = verify(data).report["shards"][0]["log_end"].as_u64().expect("a number");
                let (base, file) = self::segments(data)
                    .into_iter()
                    .map(|file| (file.file_stem().and_then(|stem| stem.to_str()?.parse().ok()), file))
                    .map(|(base, file)| (base.unwrap_or(0), file))
                    .rfind(|(base, _)| *base < end)
                    .expect("a segment");
                // The last seven bytes may be padding.
                flip(&file, end - base - 8);
            },
            "damage",
            ".segment".into(),
        ),
        (
            "the first segment is zeros",
            |data| {
                let file =
                    std::fs::File::options().write(true).open(&self::segments(data)[0]).expect("a file");
                let bytes = file.metadata().expect("a file").len();
                file.set_len(0).and_then(|()| file.set_len(bytes)).expect("cut");
            },
            "damage",
            name(&segments[0]),
        ),
        (
            "a segment in the middle is missing",
            |data| std::fs::remove_file(&self::segments(data)[1]).expect("removed"),
            "damage",
            name(&segments[1]),
        ),
        (
            "a segment in the middle is a byte short",
            |data| {
                let file =
                    std::fs::File::options().write(true).open(&self::segments(data)[1]).expect("a file");
                let bytes = file.metadata().expect("a file").len();
                file.set_len(bytes - 1).expect("cut");
            },
            "damage",
            name(&segments[1]),
        ),
        (
            "two segments are swapped",
            |data| {
                let (one, other) = (self::segments(data)[0].clone(), self::segments(data)[1].clone());
                let aside = one.with_extension("aside");
                std::fs::rename(&one, &aside)
                    .and_then(|()| std::fs::rename(&other, &one))
                    .and_then(|()| std::fs::rename(&aside, &other))
                    .expect("renamed");
            },
            "damage",
            name(&segments[0]),
        ),
    ];
    cases
}

#[test]
fn each_kind_of_damage_is_named_and_called_what_it_is() {
    let directory = test_directory();
    let clean = directory.path().join("clean");
    filled(&clean);
    let well = verify(&clean);
    assert_eq!(
        (well.code, &well.report["damaged"], &well.report["rebuilt"]),
        (Some(0), &0.into(), &0.into())
    );
    assert_eq!(well.report["messages_missing"], 0, "{}", well.report);
    assert_eq!(well.report["shards"][0]["messages"], LINES);
    for (label, harm, kind, file) in cases(&clean) {
        let data = directory.path().join("harmed");
        copy(&clean, &data);
        harm(&data);
        let verified = verify(&data);
        assert_eq!(verified.code, Some(1), "{label}: {}", verified.report);
        assert!(!verified.stderr.is_empty(), "{label}: nothing is said");
        let findings = verified.findings(kind);
        assert!(findings.iter().any(|(found, _)| found.contains(&file)), "{label}: {}", verified.report);
        let missing = verified.report["messages_missing"].as_u64().expect("a number");
        if kind == "rebuilt" {
            assert_eq!((missing, verified.findings("damage").len()), (0, 0), "{label}: {}", verified.report);
        } else {
            let told = verified.report["shards"][0]["messages"].as_u64().expect("a number");
            assert_eq!(missing + told, LINES as u64, "{label}: {}", verified.report);
            // A last block may be empty, and the last batch is none of messages.
            let may_be_nothing = label.contains("last byte") || label.contains("a byte short");
            assert!(missing > 0 || may_be_nothing, "{label}: {}", verified.report);
        }
        std::fs::remove_dir_all(&data).expect("removed");
    }
}

/// Everything below a directory: size and time of each file.
fn state(data: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let entry = |path: PathBuf| {
        let metadata = path.metadata().expect("a file");
        (path, (metadata.len(), metadata.modified().expect("a time")))
    };
    files_with(data, "").into_iter().map(entry).collect()
}

/// A data directory whose topic `lines` has messages `one` and `two`; its broker has stopped.
fn make_with_two_lines(data: &Path) {
    let node = Setup::new(data).start();
    node.run_well(&["topic", "create", "lines"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"one\ntwo\n")).well();
    assert_eq!(node.stop().status.code(), Some(0));
}

#[test]
fn looking_needs_neither_io_uring_nor_a_write() {
    let directory = test_directory();
    let data = directory.path().join("data");
    make_with_two_lines(&data);
    // As on a medium that was made without it.
    let _ = std::fs::remove_file(data.join("lock"));
    let before = state(&data);
    let path = data.to_str().expect("UTF-8");
    let verified = run_without_io_uring(None, &["log", "verify", "--data", path]).well();
    assert!(verified.contains("every byte is as it was written"), "{verified}");
    let dumped = run_without_io_uring(None, &["log", "dump", "--data", path, "--records"]).well();
    assert!(dumped.contains("one") && dumped.contains("two"), "{dumped}");
    assert_eq!(state(&data), before, "something was written");
}

/// Telling what a repair would do is looking; only doing it is not.
#[test]
fn a_repair_that_cannot_be_done_is_told_and_why_it_cannot() {
    let directory = test_directory();
    let data = directory.path().join("data");
    make_with_two_lines(&data);
    let path = data.to_str().expect("UTF-8");
    let (tell, act) = (["log", "repair", "--data", path], ["log", "repair", "--data", path, "--yes"]);
    let whole = run_read_only(&data, &tell).well();
    assert!(whole.contains("there is nothing to repair"), "{whole}");
    let segment = segments(&data)[0].clone();
    std::fs::remove_file(&segment).expect("it is there");
    let before = state(&data);
    for told in [run_read_only(&data, &tell), run_without_io_uring(None, &tell)] {
        let steps = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(steps.contains("is missing") && steps.contains("stands in for"), "{steps}{}", told.stderr);
        let sentence = told.badly(1);
        assert!(sentence.contains("nothing was changed"), "{sentence}");
    }
    let sentence = run_without_io_uring(None, &act).badly(1);
    assert!(sentence.contains("io_uring is forbidden"), "{sentence}");
    let sentence = run_read_only(&data, &act).badly(1);
    assert!(sentence.contains("Read-only file system") && sentence.lines().count() == 1, "{sentence}");
    assert_eq!(state(&data), before, "something was changed");
    command::run(None, &act, None).well();
}

#[test]
fn what_needs_io_uring_says_so_where_it_is_forbidden() {
    let directory = test_directory();
    let data = directory.path().join("forbidden");
    let path = data.to_str().expect("UTF-8");
    let serve = run_without_io_uring(None, &["serve", "--data", path, "--listen", "127.0.0.1:0"]);
    assert!(serve.badly(1).contains("io_uring is forbidden"));
    let node = Node::start(directory.path().join("data"));
    let bench = ["bench", "produce", "t", "--baseline", "--duration", "1s", "--warmup", "0s"];
    let sentence = run_without_io_uring(Some(node.address()), &bench).badly(1);
    assert!(sentence.contains("io_uring is forbidden"), "{sentence}");
}

#[test]
fn how_many_messages_a_lost_shard_held_is_not_known() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"one\ntwo\n")).well();
    assert_eq!(node.stop().status.code(), Some(0));
    let shard = directory.path().join("shard-0");
    for make_again in [false, true] {
        if shard.exists() {
            std::fs::remove_dir_all(&shard).expect("it is there");
        }
        if make_again {
            std::fs::create_dir(&shard).expect("the name is free");
        }
        let verified = verify(directory.path());
        assert_eq!(verified.code, Some(1));
        assert!(
            verified.stderr.contains("an unknown number of messages cannot be read"),
            "{}",
            verified.stderr
        );
        let (report, shards) = (&verified.report, &verified.report["shards"][0]);
        assert!(report["messages_missing"].is_null() && shards["messages_missing"].is_null(), "{report}");
        let damage = verified.findings("damage");
        assert!(damage.len() == 1 && damage[0].1.contains("an unknown number of messages"), "{damage:?}");
    }
}

/// Everything that is shown of a start after `strike`, and of the one after that.
fn check_without_snapshots(data: &Path, lost: usize, is_anew: bool, strike: &dyn Fn()) {
    assert_eq!(verify(data).code, Some(0), "nothing is missing");
    strike();
    let verified = verify(data);
    let rebuilt = verified.findings("rebuilt");
    assert_eq!(verified.code, Some(1), "{}", verified.report);
    let named = |part: &str| rebuilt.iter().filter(|(file, _)| file.contains(part)).count();
    assert_eq!((named("snapshot-"), named("/index")), (lost, usize::from(is_anew)), "{rebuilt:?}");
    assert_eq!((&verified.report["messages_missing"], &verified.report["damaged"]), (&0.into(), &0.into()));
    let node = Node::start(data);
    assert_eq!(node.banner.matches("is missing, though it was written").count(), lost, "{}", node.banner);
    assert_eq!(node.banner.contains("the index was built anew"), is_anew, "{}", node.banner);
    assert_eq!(node.counter("snapshots_missing"), lost as u64);
    assert_eq!(node.counter("index_renewals"), u64::from(is_anew));
    assert_eq!(node.run_well(&["consume", "lines"]), "one\ntwo\n");
    let told = node.stop().stderr;
    assert_eq!(told.matches("is missing, though it was written").count(), lost, "{told}");
    assert_eq!(told.contains("the index was built anew"), is_anew, "{told}");
    // The second file is written by the second snapshot: it is told of until then.
    drop(Node::start(data).stop());
    let node = Node::start(data);
    assert!(!node.banner.contains("is missing") && !node.banner.contains("anew"), "{}", node.banner);
    assert_eq!(node.counter("index_renewals"), 0);
    assert_eq!(node.stop().status.code(), Some(0));
}

/// The log alone is enough, and that the rest is gone is a sign of something.
#[test]
fn snapshots_that_are_gone_are_told_of_and_those_that_never_were_are_not() {
    let directory = test_directory();
    let data = directory.path();
    let node = Node::start(data);
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"one\ntwo\n")).well();
    node.kill();
    let verified = verify(data);
    assert!(files_with(data, "snapshot-").is_empty(), "it was not killed before its first snapshot");
    assert_eq!(verified.code, Some(0), "{}", verified.report);
    for _ in 0..2 {
        let node = Node::start(data);
        assert!(!node.banner.contains("is missing") && !node.banner.contains("anew"), "{}", node.banner);
        assert_eq!(node.stop().status.code(), Some(0));
    }
    let remove = |part: &str| {
        for file in files_with(data, part) {
            std::fs::remove_file(file).expect("it is there");
        }
    };
    check_without_snapshots(data, 2, true, &|| remove("snapshot-"));
    check_without_snapshots(data, 2, true, &|| {
        remove("snapshot-");
        std::fs::remove_dir_all(data.join("shard-0/index")).expect("it is there");
    });
    check_without_snapshots(data, 1, false, &|| remove("snapshot-0"));
}

/// A message that was held is one of those that are missing, and not all of them.
#[test]
fn all_that_a_lost_log_held_is_counted() {
    let directory = test_directory();
    let data = directory.path();
    let node = Node::start(data);
    node.run_well(&["topic", "create", "lines", "--queues", "2"]);
    let text: String = (0..1000).map(|number| format!("line {number}\n")).collect();
    command::run(Some(node.address()), &["produce", "lines"], Some(text.as_bytes())).well();
    node.run_well(&["message", "publish", "lines", "later", "--delay", "1h"]);
    node.run_well(&["message", "publish", "lines", "perhaps", "--transaction"]);
    // Held, and in its queue by now: it is one message.
    node.run_well(&["message", "publish", "lines", "soon", "--delay", "1ms"]);
    wait_for("the delayed message", || node.counter("held_released") > 0);
    assert_eq!(node.stop().status.code(), Some(0));
    assert_eq!(verify(data).report["messages_missing"], 0);
    for segment in segments(data) {
        std::fs::remove_file(segment).expect("it is there");
    }
    let verified = verify(data);
    assert_eq!(verified.report["messages_missing"], 1003, "{}", verified.report);
    assert!(verified.stderr.contains("1,003 messages"), "{}", verified.stderr);
}

/// What has a snapshot's name keeps the broker from starting, and nothing else is wrong.
#[test]
fn a_snapshot_that_is_no_file_hides_nothing_of_the_log() {
    let directory = test_directory();
    let data = directory.path();
    make_with_two_lines(data);
    let snapshot = first_with(data, "snapshot-");
    std::fs::remove_file(&snapshot).expect("it is there");
    let made = std::process::Command::new("mkfifo").arg(&snapshot).status().expect("mkfifo runs");
    assert!(made.success());
    let verified = verify(data);
    let (report, damage) = (&verified.report, verified.findings("damage"));
    assert_eq!((verified.code, &report["messages_missing"]), (Some(1), &0.into()), "{report}");
    assert_eq!(report["shards"][0]["messages"], 2, "{report}");
    assert!(damage.len() == 1 && damage[0].1.contains("it is a FIFO"), "{damage:?}");
    let verdict = "every message can be read, but the broker does not start";
    assert!(verified.stderr.contains(verdict), "{}", verified.stderr);
    assert_eq!(report["starts"], false, "{report}");
    let refused = Setup::new(data).try_start().err().expect("a refusal").stderr;
    assert!(refused.contains("it is a FIFO"), "{refused}");
}

/// As when a copy was put back into the wrong place: the start leaves it out, and says so.
#[test]
fn a_snapshot_of_another_directory_is_named_as_the_start_names_it() {
    let (ours, theirs) = (test_directory(), test_directory());
    for (directory, lives) in [(ours.path(), 2), (theirs.path(), 3)] {
        for life in 0..lives {
            let node = Node::start(directory);
            if life == 0 {
                node.run_well(&["topic", "create", "lines", "--queues", "1"]);
                command::run(Some(node.address()), &["produce", "lines"], Some(b"one\ntwo\n")).well();
            }
            assert_eq!(node.stop().status.code(), Some(0));
        }
    }
    let data = ours.path();
    for file in files_with(data, "snapshot-") {
        let aside = test_directory();
        copy(&file, &aside.path().join("kept"));
        let name = file.file_name().expect("a name");
        std::fs::copy(theirs.path().join("shard-0").join(name), &file).expect("both have both");
        let verified = verify(data);
        let rebuilt = verified.findings("rebuilt");
        assert_eq!((verified.code, &verified.report["damaged"]), (Some(1), &0.into()), "{}", verified.report);
        assert_eq!(verified.report["starts"], true, "{}", verified.report);
        assert_eq!(rebuilt.len(), 1, "{rebuilt:?}");
        assert!(
            rebuilt[0].0 == file.to_str().expect("UTF-8") && rebuilt[0].1.contains("of another log"),
            "{rebuilt:?}"
        );
        std::fs::copy(aside.path().join("kept"), &file).expect("it was there");
        assert_eq!(verify(data).code, Some(0));
    }
    let file = first_with(data, "snapshot-");
    std::fs::copy(theirs.path().join("shard-0").join(file.file_name().expect("a name")), &file)
        .expect("both have both");
    let node = Node::start(data);
    assert!(node.banner.contains(file.to_str().expect("UTF-8")), "{}", node.banner);
    assert_eq!(node.run_well(&["consume", "lines"]), "one\ntwo\n");
    assert_eq!(node.stop().status.code(), Some(0));
}
