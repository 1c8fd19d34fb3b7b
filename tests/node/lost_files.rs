//! Whole files of a stopped broker that are gone or not what they were: refused in words, with nothing changed; put back, or
//! given up by command. And the directory itself, taken away or taken twice while a broker uses it.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use turbopump::log::{parse_segment_name, segment_name};
use turbopump::types::LogPosition;

use crate::support::command;
use crate::support::directory::{files_with, test_directory};
use crate::support::node::{Ended, Node, Setup, wait_for};

const LINES: usize = 500_000;

fn line(number: usize) -> String {
    format!("line {number} {number:0>60}\n")
}

/// A data directory with lines in some segments, stopped well.
fn filled(data: &Path) {
    let node = Setup::new(data).start();
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    let text: String = (0..LINES).map(line).collect();
    command::run(Some(node.address()), &["produce", "lines"], Some(text.as_bytes())).well();
    assert_eq!(node.stop().status.code(), Some(0));
    assert!(segments(data).len() >= 3, "{:?}", segments(data));
}

/// Segments of the first shard that hold something, oldest first.
fn segments(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in files_with(&data.join("shard-0/log"), ".segment") {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let base = parse_segment_name(&name).unwrap_or(LogPosition(u64::MAX));
        let head = std::fs::read(&path).map(|bytes| bytes.iter().take(4096).any(|byte| *byte != 0));
        if base.0 < u64::MAX && head.unwrap_or(false) {
            found.push(path);
        }
    }
    found
}

fn set_size(path: &Path, bytes: u64) {
    let file = std::fs::File::options().write(true).open(path).expect("a segment");
    file.set_len(bytes).expect("its size can be set");
}

fn size(path: &Path) -> u64 {
    path.metadata().expect("a file").len()
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}

/// Copies a directory with everything below.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory of this test") {
        let path = entry.expect("an entry").path();
        let target = to.join(name(&path));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a file can be copied");
        }
    }
}

/// A start that is refused.
fn refused(data: &Path) -> Ended {
    match Setup::new(data).try_start() {
        Ok(node) => panic!("it starts: {}", node.banner),
        Err(ended) => {
            assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
            ended
        }
    }
}

/// Every file with its size and the time of its last change, but for `lock`, which each start may make, and `probe`, which it
/// writes to see how fast the disk is.
fn all_files(data: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let files = files_with(data, "").into_iter().filter(|path| !["lock", "probe"].contains(&&*name(path)));
    let facts = files.map(|path| {
        let metadata = path.metadata().expect("a file");
        (path, metadata.len(), metadata.modified().expect("this system has such a time"))
    });
    facts.collect()
}

/// Refused, with `file` named and no file changed; then given up by command, and started: the banner names it, what is
/// left is delivered, and what is new gets other offsets. Returns how many lines are missing.
fn give_up(data: &Path, file: &str) -> usize {
    let before = all_files(data);
    let ended = refused(data);
    assert!(ended.stderr.contains(file), "{file} is not named: {}", ended.stderr);
    assert!(ended.stderr.contains("turbopump log repair --data"), "no way out is named: {}", ended.stderr);
    assert_eq!(all_files(data), before, "a start that was refused has changed a file");
    let directory = data.to_str().expect("UTF-8");
    let told = command::run(None, &["log", "repair", "--data", directory], None);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    assert!(text.contains(file), "{text}");
    assert_eq!(all_files(data), before, "a repair that only tells has changed a file");
    let done = command::run(None, &["log", "repair", "--data", directory, "--yes"], None).well();
    assert!(done.contains(file), "{done}");
    let node = Node::start(data);
    let consumed = node.run(&["consume", "lines"]);
    let text = String::from_utf8(consumed.stdout.clone()).expect("only lines are delivered");
    let delivered: Vec<&str> = text.split_inclusive('\n').collect();
    let mut numbers = delivered.iter().map(|text| {
        let number = text.split(' ').nth(1).expect("a number").parse::<usize>().expect("a number");
        assert_eq!(*text, line(number));
        number
    });
    assert!(numbers.clone().is_sorted(), "out of order");
    assert!(numbers.all(|number| number < LINES));
    let missing = LINES - delivered.len();
    let is_given_up = done.contains("what is missing was given up");
    assert!(is_given_up == (missing > 0) && is_given_up != done.contains("nothing was given up"), "{done}");
    if missing > 0 {
        assert!(node.banner.contains("GIVEN UP"), "{}", node.banner);
    }
    command::run(Some(node.address()), &["produce", "lines"], Some(b"new\n")).well();
    let described = node.run(&["topic", "describe", "lines", "-o", "json"]).json();
    let end = described["queues"][0]["end_offset"].as_u64().expect("an offset");
    assert!(end > LINES as u64, "the offset {end} was given out before");
    assert_eq!(node.run_well(&["consume", "lines", "--from", &(end - 1).to_string()]), "new\n");
    // And once more: it starts as it is now.
    assert_eq!(node.stop().status.code(), Some(0));
    let node = Node::start(data);
    if missing > 0 {
        assert!(node.banner.contains("GIVEN UP"), "{}", node.banner);
        assert!(node.counter("given_up_bytes") > 0);
        let told = node.stop().stderr;
        assert!(told.contains("given up by log repair"), "nothing on standard error: {told}");
    }
    missing
}

#[test]
fn a_segment_that_is_not_as_it_was_is_refused_and_given_up_by_command_only() {
    let directory = test_directory();
    let origin = directory.path().join("origin");
    filled(&origin);
    let count = segments(&origin).len();
    type Case = (&'static str, usize, fn(&Path, &Path), bool);
    let cases: [Case; 7] = [
        ("a byte short", 0, |path, _| set_size(path, size(path) - 1), false),
        ("halved", 1, |path, _| set_size(path, size(path) / 2), true),
        ("empty", 0, |path, _| set_size(path, 0), true),
        ("missing", 1, |path, _| std::fs::remove_file(path).expect("it is there"), true),
        ("a byte long", 1, |path, _| set_size(path, size(path) + 1), false),
        (
            "swapped",
            0,
            |path, other| {
                let between = path.with_extension("between");
                std::fs::rename(path, &between).expect("it is there");
                std::fs::rename(other, path).expect("it is there");
                std::fs::rename(&between, other).expect("it is there");
            },
            false,
        ),
        ("the last one missing", count - 1, |path, _| std::fs::remove_file(path).expect("there"), true),
    ];
    for (label, at, strike, loses) in cases {
        let data = directory.path().join(label.replace(' ', "-"));
        copy(&origin, &data);
        let files = segments(&data);
        strike(&files[at], files.get(at + 1).unwrap_or(&files[0]));
        let missing = give_up(&data, &name(&files[at]));
        assert_eq!(missing > 0, loses, "{label}: {missing} lines are missing");
        assert!(missing < LINES, "{label}: what can be read stays readable");
        std::fs::remove_dir_all(&data).expect("it is ours");
    }
}

/// Without its snapshots, and with other bytes in a stretch of a file than were written.
fn damage(data: &Path, file: &Path, bytes: Range<u64>, value: u8) {
    for snapshot in ["snapshot-0", "snapshot-1"] {
        _ = std::fs::remove_file(data.join("shard-0").join(snapshot));
    }
    let opened = std::fs::File::options().write(true).open(file).expect("a segment");
    let garbage = vec![value; (bytes.end - bytes.start) as usize];
    opened.write_all_at(&garbage, bytes.start).expect("it can be written");
}

/// Where the last byte is that something was written to.
fn used_end(file: &Path) -> u64 {
    let bytes = std::fs::read(file).expect("a segment");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

/// The file is there, and only the manifest, or what follows, knows that something was stored in it.
#[test]
fn what_is_damaged_at_the_ends_of_the_log_is_refused_and_given_up_by_command_only() {
    let directory = test_directory();
    let origin = directory.path().join("origin");
    filled(&origin);
    for (at_end, value) in [(true, 0), (true, 0xA5), (false, 0), (false, 0xA5)] {
        let data = directory.path().join("data");
        copy(&origin, &data);
        let files = segments(&data);
        let file = if at_end { &files[files.len() - 1] } else { &files[0] };
        let end = used_end(file);
        let bytes = if at_end { end - 1_000_000..end } else { 4096..1_000_000 };
        damage(&data, file, bytes, value);
        let path = data.to_str().expect("UTF-8");
        let verified = command::run(None, &["log", "verify", "--data", path], None);
        let told = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert_eq!(verified.code, Some(1), "{told}");
        assert!(told.contains(&format!("{} does not hold what was stored in it", file.display())), "{told}");
        let missing = give_up(&data, &name(file));
        assert!((1..LINES).contains(&missing), "{missing} lines are missing");
        let node = Node::start(&data);
        let described = node.run(&["topic", "describe", "lines", "-o", "json"]).json();
        // Nothing has expired.
        assert_eq!(described["queues"][0]["first_offset"].as_u64(), Some(0), "{described}");
        let consumed = node.run(&["consume", "lines"]);
        assert!(consumed.stderr.contains("cannot be read"), "{}", consumed.stderr);
        drop(node);
        std::fs::remove_dir_all(&data).expect("it is ours");
    }
}

/// What is lost at the beginning is the topic itself. One that is made in its place gets none of its messages, and the log goes
/// on to be one that can be read from its beginning.
#[test]
fn a_topic_whose_making_was_given_up_leaves_its_messages_to_no_other() {
    let directory = test_directory();
    let data = directory.path();
    let node = Setup::new(data).start();
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    for first in [0, 1000] {
        let text: String = (first..first + 1000).map(line).collect();
        command::run(Some(node.address()), &["produce", "lines"], Some(text.as_bytes())).well();
    }
    assert_eq!(node.stop().status.code(), Some(0));
    let file = segments(data).swap_remove(0);
    // All but the last batch of messages, or a checkpoint says what topics there are.
    let bytes = std::fs::read(&file).expect("a segment");
    let is_messages = |at: &usize| bytes[*at..].starts_with(b"TPBP") && bytes[*at + 5] == 0;
    let last = (4096..bytes.len() - 8).step_by(8).rfind(is_messages).expect("they were stored") as u64;
    damage(data, &file, 4096..last, 0);
    assert!(refused(data).stderr.contains("does not hold what was stored in it"));
    let path = data.to_str().expect("UTF-8");
    command::run(None, &["log", "repair", "--data", path, "--yes"], None).well();
    let node = Node::start(data);
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"new\n")).well();
    assert_eq!(node.run_well(&["consume", "lines"]), "new\n");
    assert_eq!(node.stop().status.code(), Some(0));
    damage(data, &file, 4096..last, 0);
    assert_eq!(Node::start(data).run_well(&["consume", "lines"]), "new\n");
}

#[test]
fn a_shard_of_which_everything_is_gone_is_refused_and_takes_messages_when_given_up() {
    let directory = test_directory();
    let origin = directory.path().join("origin");
    filled(&origin);
    type Case = (&'static str, fn(&Path));
    let cases: [Case; 3] = [
        ("segments", |data| {
            segments(data).iter().for_each(|path| std::fs::remove_file(path).expect("it is there"));
        }),
        ("log", |data| std::fs::remove_dir_all(data.join("shard-0/log")).expect("it is there")),
        ("shard", |data| std::fs::remove_dir_all(data.join("shard-0")).expect("it is there")),
    ];
    for (label, strike) in cases {
        let data = directory.path().join(label);
        copy(&origin, &data);
        strike(&data);
        let ended = refused(&data);
        assert!(ended.stderr.contains("shard-0") && ended.stderr.contains("log repair"), "{}", ended.stderr);
        let path = data.to_str().expect("UTF-8");
        command::run(None, &["log", "repair", "--data", path, "--yes"], None).well();
        // What stands in for what is gone is no longer than its header, however much that may have been: file systems have
        // limits, and a copy of the directory may not leave holes out.
        let stand_in = data.join("shard-0/log").join(segment_name(LogPosition(0)));
        assert!(size(&stand_in) <= 8192, "{label}: {} bytes", size(&stand_in));
        let node = Node::start(&data);
        assert!(node.banner.contains("GIVEN UP"), "{}", node.banner);
        // The topic may have gone as well.
        let _ = node.run(&["topic", "create", "lines", "--queues", "1"]);
        command::run(Some(node.address()), &["produce", "lines"], Some(b"new\n")).well();
        let described = node.run(&["topic", "describe", "lines", "-o", "json"]).json();
        let end = described["queues"][0]["end_offset"].as_u64().expect("an offset");
        assert!(end > LINES as u64, "{label}: the offset {end} was given out before");
        assert_eq!(node.run_well(&["consume", "lines", "--from", &(end - 1).to_string()]), "new\n");
        assert_eq!(node.stop().status.code(), Some(0));
        // Retention has not passed it: it is told again and again.
        for _ in 0..2 {
            let node = Node::start(&data);
            assert!(node.banner.contains("GIVEN UP"), "{label}: {}", node.banner);
            assert_eq!(node.stop().status.code(), Some(0));
        }
        std::fs::remove_dir_all(&data).expect("it is ours");
    }
}

#[test]
fn half_a_manifest_or_snapshot_is_enough() {
    let directory = test_directory();
    filled(directory.path());
    let shard = directory.path().join("shard-0");
    for file in ["log/manifest", "snapshot-0", "snapshot-1"] {
        let path = shard.join(file);
        if !path.exists() {
            continue;
        }
        set_size(&path, size(&path) - 1);
        let node = Node::start(directory.path());
        let said = node.banner.clone();
        let lines = node.run_well(&["consume", "lines"]).lines().count();
        assert_eq!(lines, LINES, "{file}");
        let told = node.stop().stderr;
        assert!(
            file != "log/manifest" || (said.contains("manifest") && told.contains("manifest")),
            "{said}{told}"
        );
    }
    // Nothing of the manifest: made again by command, and everything is there.
    std::fs::remove_file(shard.join("log/manifest")).expect("it is there");
    assert_eq!(give_up(directory.path(), "manifest"), 0);
}

/// A copy of which only a part was put back, beside what was stored since.
#[test]
fn a_manifest_of_an_earlier_day_is_refused_and_costs_no_line() {
    let directory = test_directory();
    let (data, earlier) = (directory.path().join("data"), directory.path().join("earlier"));
    let path = data.to_str().expect("UTF-8");
    filled(&data);
    copy(&data, &earlier);
    let node = Node::start(&data);
    command::run(Some(node.address()), &["produce", "lines"], Some(line(LINES).as_bytes())).well();
    assert_eq!(node.stop().status.code(), Some(0));
    for file in ["log/manifest", "snapshot-0", "snapshot-1"] {
        let (from, to) = (earlier.join("shard-0").join(file), data.join("shard-0").join(file));
        if from.exists() {
            std::fs::copy(from, to).expect("a file can be copied");
        }
    }
    let before = all_files(&data);
    let said = refused(&data).stderr;
    assert!(said.contains("manifest is older than the log: it knows epoch"), "{said}");
    let verified = command::run(None, &["log", "verify", "--data", path], None);
    let told = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert_eq!(verified.code, Some(1), "{told}");
    assert!(told.contains("manifest is older than the log: it knows epoch"), "{told}");
    assert_eq!(told.matches("DAMAGED").count(), 1, "something else is accused: {told}");
    assert_eq!(all_files(&data), before, "something was changed");
    command::run(None, &["log", "repair", "--data", path, "--yes"], None).well();
    let node = Node::start(&data);
    assert_eq!(node.run_well(&["consume", "lines"]).lines().count(), LINES + 1);
}

/// A copy of which only one shard was put back: everything within it is as it was written.
#[test]
fn a_shard_of_an_earlier_day_is_refused_and_its_offsets_are_not_given_out_again() {
    let directory = test_directory();
    let (data, earlier) = (&directory.path().join("data"), &directory.path().join("earlier"));
    let path = data.to_str().expect("UTF-8");
    let run = |first: usize| {
        let node = Setup::new(data).with(&["--shards", "2"]).start();
        if first == 0 {
            node.run_well(&["topic", "create", "lines", "--queues", "2"]);
        }
        let text: String = (first..first + 1000).map(line).collect();
        command::run(Some(node.address()), &["produce", "lines", "--queue", "1"], Some(text.as_bytes()))
            .well();
        assert_eq!(node.stop().status.code(), Some(0));
    };
    run(0);
    copy(data, earlier);
    run(1000);
    let today = directory.path().join("today");
    copy(data, &today);
    std::fs::remove_dir_all(data.join("shard-1")).expect("it is there");
    copy(&earlier.join("shard-1"), &data.join("shard-1"));
    let before = all_files(data);
    let said = refused(data).stderr;
    let verified = command::run(None, &["log", "verify", "--data", path], None);
    assert_eq!(verified.code, Some(1), "{}", verified.stderr);
    for said in [said, String::from_utf8_lossy(&verified.stdout).into_owned()] {
        assert!(said.contains("shard-1/log/ is older than the other shards"), "{said}");
        assert!(!said.contains("shard-0/log/ is"), "{said}");
    }
    assert_eq!(all_files(data), before, "something was changed");
    command::run(None, &["log", "repair", "--data", path, "--yes"], None).well();
    let node = Node::start(data);
    assert!(node.banner.contains("GIVEN UP"), "{}", node.banner);
    command::run(Some(node.address()), &["produce", "lines", "--queue", "1"], Some(b"new\n")).well();
    let described = node.run(&["topic", "describe", "lines", "-o", "json"]).json();
    let end = described["queues"][1]["end_offset"].as_u64().expect("an offset");
    assert!(end > 2000, "the offset {end} was given out before");
    assert_eq!(node.stop().status.code(), Some(0));
    drop(Node::start(data));
    // Both shards of that day are a whole; so are those of today.
    for (of, lines) in [(earlier, 1000), (&today, 2000)] {
        for shard in ["shard-0", "shard-1"] {
            std::fs::remove_dir_all(data.join(shard)).expect("it is there");
            copy(&of.join(shard), &data.join(shard));
        }
        assert_eq!(Node::start(data).run_well(&["consume", "lines"]).lines().count(), lines);
    }
}

/// Without a snapshot a start makes the index anew: not before it knows that it will be one.
#[test]
fn a_start_that_is_refused_leaves_the_index_alone() {
    for lost in ["the first segment", "every segment"] {
        let directory = test_directory();
        filled(directory.path());
        let shard = directory.path().join("shard-0");
        for snapshot in ["snapshot-0", "snapshot-1"] {
            _ = std::fs::remove_file(shard.join(snapshot));
        }
        let mut segments = files_with(&shard, ".segment");
        segments.truncate(if lost == "every segment" { segments.len() } else { 1 });
        segments.iter().for_each(|path| std::fs::remove_file(path).expect("it is there"));
        assert!(!files_with(&shard, ".index").is_empty(), "there is no index to be left alone");
        let before = all_files(directory.path());
        refused(directory.path());
        assert_eq!(all_files(directory.path()), before, "{lost} was lost");
    }
}

/// A directory of two shards with a message each.
fn fill_two_shards(data: &Path) {
    let node = Setup::new(data).with(&["--shards", "2"]).start();
    node.run_well(&["topic", "create", "lines", "--queues", "2"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"one\ntwo\n")).well();
    assert_eq!(node.stop().status.code(), Some(0));
}

/// Shards start side by side: a shard whose files are fine waits for what is found of the others'.
#[test]
fn a_start_that_is_refused_for_one_shard_leaves_the_others_alone() {
    let directory = test_directory();
    let data = &directory.path().join("data");
    fill_two_shards(data);
    // What a start would make good or bring up to date as well.
    let (secret, description) = (data.join("secret"), data.join("turbopump.toml"));
    std::fs::remove_file(secret).expect("it is there");
    let text = std::fs::read_to_string(&description).expect("text");
    let (_, rest) = text.split_once('\n').expect("some lines");
    std::fs::write(&description, format!("format = 2\n{rest}")).expect("it can be written");
    for shard in ["shard-0", "shard-1"] {
        let segment = data.join(shard).join("log").join(segment_name(LogPosition(0)));
        let kept = directory.path().join("kept");
        std::fs::rename(&segment, &kept).expect("it is there");
        let before = all_files(data);
        let ended = refused(data);
        assert!(ended.stderr.contains(&format!("{shard}/log")), "{}", ended.stderr);
        assert_eq!(all_files(data), before, "a start that was refused for {shard} has changed a file");
        std::fs::rename(&kept, &segment).expect("the name is free");
    }
    assert_eq!(Node::start(data).run_well(&["consume", "lines"]).lines().count(), 2);
    assert_eq!(std::fs::read_to_string(&description).expect("text"), text);
}

#[test]
fn another_number_of_shards_is_refused() {
    let directory = test_directory();
    filled(directory.path());
    let description = directory.path().join("turbopump.toml");
    let text = std::fs::read_to_string(&description).expect("text");
    std::fs::write(&description, text.replace("shards = 1", "shards = 2")).expect("it can be written");
    let ended = refused(directory.path());
    assert!(ended.stderr.contains("shard-1"), "{}", ended.stderr);
    std::fs::create_dir_all(directory.path().join("shard-1/log")).expect("a directory");
    let ended = refused(directory.path());
    assert!(ended.stderr.contains("shards = 1") || ended.stderr.contains("shard-1"), "{}", ended.stderr);
    std::fs::write(&description, text).expect("it can be written");
    drop(Node::start(directory.path()));
}

/// Each directory of a shard is made before the description, so one that is gone was lost, whatever the description says.
#[test]
fn a_shard_that_is_gone_before_all_have_started_is_named_by_every_tool() {
    let directory = test_directory();
    let data = &directory.path().join("data");
    let node = Setup::new(data).with(&["--shards", "2"]).start();
    node.run_well(&["topic", "create", "lines", "--queues", "2"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"one\ntwo\n")).well();
    assert_eq!(node.stop().status.code(), Some(0));
    let description = data.join("turbopump.toml");
    let text = std::fs::read_to_string(&description).expect("text");
    std::fs::write(&description, text.replace("started = true", "started = false"))
        .expect("it can be written");
    let shard = data.join("shard-1");
    std::fs::remove_dir_all(&shard).expect("it is there");
    let path = data.to_str().expect("UTF-8");
    let said = refused(data).stderr;
    let sentence = said.rsplit("turbopump: ").next().expect("text").trim_end();
    assert!(sentence.contains(shard.to_str().expect("UTF-8")), "{said}");
    let verified = command::run(None, &["log", "verify", "--data", path], None);
    let told = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.code == Some(1) && told.contains(sentence), "{told}{}", verified.stderr);
    let repair = command::run(None, &["log", "repair", "--data", path], None);
    let told = String::from_utf8_lossy(&repair.stdout).into_owned();
    assert!(repair.code == Some(1) && told.contains("shard-1"), "{told}{}", repair.stderr);
    assert!(!shard.exists(), "it was made");
    let dumped = command::run(None, &["log", "dump", "--data", path], None);
    assert!(!dumped.stdout.is_empty(), "the other shard is printed");
    let sentence = dumped.badly(1);
    assert!(sentence.contains("not all that was stored: shard 1"), "{sentence}");
    command::run(None, &["log", "repair", "--data", path, "--yes"], None).well();
    drop(Node::start(data));
}

#[test]
fn every_shard_with_a_lost_file_is_named_at_once() {
    let directory = test_directory();
    let data = directory.path();
    let node = Setup::new(data).with(&["--shards", "3"]).start();
    node.run_well(&["topic", "create", "lines", "--queues", "3"]);
    assert_eq!(node.stop().status.code(), Some(0));
    for shard in ["shard-0", "shard-2"] {
        let segment = data.join(shard).join("log").join(segment_name(LogPosition(0)));
        std::fs::remove_file(segment).expect("it is there");
    }
    let said = refused(data).stderr;
    let is_named = |shard: &str| said.contains(&format!("{shard}/log"));
    assert!(is_named("shard-0") && !is_named("shard-1") && is_named("shard-2"), "{said}");
    let shards = [data.join("shard-0"), data.join("shard-2")];
    shards.iter().for_each(|shard| std::fs::remove_dir_all(shard).expect("it is there"));
    let said = refused(data).stderr;
    let sentence = format!("{}, {} are missing", shards[0].display(), shards[1].display());
    assert!(said.contains(&sentence), "{said}");
}

#[test]
fn a_dump_of_a_log_that_lacks_a_segment_says_so() {
    let directory = test_directory();
    filled(directory.path());
    let data = directory.path().to_str().expect("UTF-8");
    let dump = ["log", "dump", "--data", data];
    let whole = command::run(None, &dump, None).well();
    let lost = segments(directory.path())[1].clone();
    std::fs::remove_file(&lost).expect("it is there");
    let dumped = command::run(None, &dump, None);
    let printed = String::from_utf8_lossy(&dumped.stdout).lines().count();
    assert!(printed > 0 && printed < whole.lines().count(), "{printed} lines");
    let sentence = dumped.badly(1);
    assert!(sentence.contains(&format!("{} is missing", lost.display())), "{sentence}");
}

/// The queue lacks offsets from the one on to the end of the other, and both numbers would be made up.
#[test]
fn what_is_lost_beside_what_was_given_up_is_not_counted_as_that() {
    let directory = test_directory();
    filled(directory.path());
    let data = directory.path().to_str().expect("UTF-8");
    let lost = segments(directory.path())[..2].to_vec();
    std::fs::remove_file(&lost[0]).expect("it is there");
    command::run(None, &["log", "repair", "--data", data, "--yes"], None).well();
    let verify = ["log", "verify", "--data", data, "-o", "json"];
    let report = |outcome: &command::Outcome| -> serde_json::Value {
        let told = String::from_utf8_lossy(&outcome.stdout).into_owned();
        told.lines().next().and_then(|line| serde_json::from_str(line).ok()).expect("a report")
    };
    let verified = command::run(None, &verify, None);
    let given_up = report(&verified)["shards"][0]["messages_given_up"].as_u64();
    assert!(verified.code == Some(0) && given_up > Some(0), "{}", verified.stderr);
    std::fs::remove_file(&lost[1]).expect("it is there");
    let verified = command::run(None, &verify, None);
    assert_eq!(verified.code, Some(1), "{}", verified.stderr);
    let report = report(&verified);
    assert_eq!(report["messages_missing"], serde_json::Value::Null, "{report}");
    assert_eq!(report["shards"][0]["damage"][0]["messages"], serde_json::Value::Null, "{report}");
    assert!(report["shards"][0]["messages_given_up"].as_u64() <= given_up, "{report}");
}

#[test]
fn a_dump_of_a_damaged_log_says_so() {
    use std::os::unix::fs::FileExt;
    let directory = test_directory();
    filled(directory.path());
    let segment = segments(directory.path())[0].clone();
    let file = std::fs::File::options().write(true).open(&segment).expect("a segment");
    file.write_all_at(b"no message is like this", 1 << 20).expect("within the segment");
    let data = directory.path().to_str().expect("UTF-8");
    let dumped = command::run(None, &["log", "dump", "--data", data], None);
    assert!(String::from_utf8_lossy(&dumped.stdout).contains("RECORDS DAMAGED"));
    let sentence = dumped.badly(1);
    let named = format!("of {} on are not as they were written", segment.display());
    assert!(sentence.contains(&named), "{sentence}");
}

/// A repair is for all shards or for none.
#[test]
fn a_shard_that_cannot_be_repaired_keeps_the_others_as_they_are() {
    let directory = test_directory();
    let data = &directory.path().join("data");
    fill_two_shards(data);
    let segment = |shard: &str| data.join(shard).join("log").join(segment_name(LogPosition(0)));
    let path = data.to_str().expect("UTF-8");
    let repair = ["log", "repair", "--data", path, "--yes"];
    for (lost, other) in [("shard-0", "shard-1"), ("shard-1", "shard-0")] {
        let kept = directory.path().join("kept");
        std::fs::rename(segment(lost), &kept).expect("it is there");
        let aside = directory.path().join("aside");
        std::fs::rename(segment(other), &aside).expect("it is there");
        std::fs::create_dir(segment(other)).expect("the name is free");
        let before = all_files(data);
        let said = command::run(None, &repair, None).badly(1);
        let is_named = said.contains(segment(other).to_str().expect("UTF-8"));
        assert!(is_named && said.contains("nothing was changed"), "{said}");
        assert_eq!(all_files(data), before, "something was changed");
        std::fs::remove_dir(segment(other)).expect("it was made");
        std::fs::rename(&aside, segment(other)).expect("it is there");
        std::fs::rename(&kept, segment(lost)).expect("the name is free");
    }
    std::fs::remove_file(segment("shard-0")).expect("it is there");
    command::run(None, &repair, None).well();
    drop(Node::start(data));
}

#[test]
fn a_description_that_is_missing_is_named_with_what_to_write_into_it() {
    let directory = test_directory();
    let data = directory.path().to_str().expect("UTF-8");
    let two_shards = || Setup::new(directory.path()).with(&["--shards", "2"]);
    let node = two_shards().start();
    node.run_well(&["topic", "create", "lines", "--queues", "2"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"one\n")).well();
    assert_eq!(node.stop().status.code(), Some(0));
    let file = directory.path().join("turbopump.toml");
    std::fs::remove_file(&file).expect("it is there");
    let before = all_files(directory.path());
    let mut said = vec![two_shards().try_start().err().expect("it is refused").stderr];
    for command in ["verify", "repair", "dump"] {
        said.push(command::run(None, &["log", command, "--data", data], None).stderr);
    }
    for said in &said {
        assert!(said.contains("turbopump.toml is missing"), "{said}");
    }
    assert_eq!(all_files(directory.path()), before, "a start that was refused has changed a file");
    // Exactly what is said, each line between two grave accents.
    let lines: Vec<_> = said[0].split('`').filter(|part| part.contains(" = ")).collect();
    assert_eq!(lines.len(), 3, "{}", said[0]);
    std::fs::write(&file, lines.join("\n")).expect("it can be written");
    command::run(None, &["log", "verify", "--data", data], None).well();
    assert_eq!(Node::start(directory.path()).run_well(&["consume", "lines"]), "one\n");
}

#[test]
fn a_second_broker_stays_out_when_the_lock_was_removed() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    let lock = directory.path().join("lock");
    std::fs::remove_file(&lock).expect("it is there");
    let ended = refused(directory.path());
    assert!(ended.stderr.contains("in use"), "{}", ended.stderr);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"one\n")).well();
    // The first one takes it again.
    let _ = std::fs::remove_file(&lock);
    wait_for("the lock is made again", || lock.exists());
    assert_eq!(node.run_well(&["consume", "lines"]), "one\n");
    let told = node.stop().stderr;
    assert!(told.contains("lock"), "nothing on standard error: {told}");
}

#[test]
fn a_lock_that_is_a_link_is_refused_and_not_followed() {
    let directory = test_directory();
    let (data, letter) = (directory.path().join("data"), directory.path().join("letter.txt"));
    std::fs::create_dir(&data).expect("a directory");
    std::fs::write(&letter, "dear").expect("a file");
    std::os::unix::fs::symlink(&letter, data.join("lock")).expect("a link");
    let ended = refused(&data);
    assert!(ended.stderr.contains("symbolic link"), "{}", ended.stderr);
    assert_eq!(std::fs::read(&letter).expect("a file"), b"dear");
}

#[test]
fn a_broker_whose_directory_was_replaced_ends_and_writes_nothing_to_the_other() {
    let directory = test_directory();
    let (data, moved) = (directory.path().join("data"), directory.path().join("moved"));
    let node = Node::start(&data);
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"one\n")).well();
    std::fs::rename(&data, &moved).expect("it can be moved");
    std::fs::create_dir(&data).expect("the name is free");
    let ended = node.ended();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("moved or replaced"), "{}", ended.stderr);
    assert_eq!(std::fs::read_dir(&data).expect("a directory").count(), 0, "something was written there");
    let node = Node::start(&moved);
    assert_eq!(node.run_well(&["consume", "lines"]), "one\n");
}

/// Half of the messages are gone: whoever reads from the beginning is told, as long as the range that was given up is known.
#[test]
fn readers_are_told_what_a_shard_that_was_given_up_has_lost() {
    let directory = test_directory();
    let data = directory.path();
    let setup = Setup::new(data).with(&["--shards", "2"]);
    let node = setup.start();
    fill_two_shards_of(&node);
    assert_eq!(node.stop().status.code(), Some(0));
    std::fs::remove_dir_all(data.join("shard-1")).expect("it is there");
    let path = data.to_str().expect("UTF-8");
    command::run(None, &["log", "repair", "--data", path, "--yes"], None).well();
    for round in 0..3 {
        let node = setup.start();
        let consumed = node.run(&["consume", "lines"]);
        let told = &consumed.stderr;
        assert_eq!(consumed.code, Some(1), "round {round}: {told}");
        assert_eq!(told.matches("of queue 1 of topic lines cannot be read: ").count(), 1, "{told}");
        assert!(told.contains("messages 0 to ") && told.contains("damaged or gone"), "{told}");
        let lines = String::from_utf8(consumed.stdout).expect("text");
        assert_eq!((lines.matches("kept").count(), lines.matches("lost").count()), (4, 0), "{lines}");
        assert_eq!(lines.matches("new").count(), round, "{lines}");
        let group = node.run(&["consume", "lines", "--group", &format!("readers-{round}")]);
        assert!(group.code == Some(1) && group.stderr.contains("cannot be read"), "{}", group.stderr);
        // A topic that is made now has lost nothing.
        let other = format!("other-{round}");
        node.run_well(&["topic", "create", &other, "--queues", "2"]);
        for topic in ["lines", &other] {
            let new = Some(b"new\n".as_slice());
            command::run(Some(node.address()), &["produce", topic, "--queue", "1"], new).well();
        }
        assert_eq!(node.run_well(&["consume", &other]), "new\n");
        match round {
            // Before there is a snapshot of it, and after.
            0 => node.kill(),
            _ => assert_eq!(node.stop().status.code(), Some(0)),
        }
    }
}

/// Two queues, one of each shard, with lines in both.
fn fill_two_shards_of(node: &Node) {
    node.run_well(&["topic", "create", "lines", "--queues", "2"]);
    for (queue, text) in [("0", "kept\n"), ("1", "lost\n")] {
        let lines = text.repeat(4);
        command::run(Some(node.address()), &["produce", "lines", "--queue", queue], Some(lines.as_bytes()))
            .well();
    }
}
