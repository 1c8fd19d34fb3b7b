//! Bytes that change on the disk while the broker is away.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::command::{self, Outcome};
use crate::support::directory::{files_with, test_directory};
use crate::support::node::{Node, Setup};

const LINES: usize = 400_000;

fn line(number: usize) -> String {
    format!("line {number} {:0>60}\n", number)
}

/// A data directory with a few sealed segments of lines in one queue, stopped. Returns the segments, oldest first.
fn filled(data: &Path) -> Vec<PathBuf> {
    let node = Setup::new(data).start();
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    let text: String = (0..LINES).map(line).collect();
    command::run(Some(node.address()), &["produce", "lines"], Some(text.as_bytes())).well();
    assert_eq!(node.stop().status.code(), Some(0));
    let segments: Vec<_> = files_with(data, "/log/").into_iter().filter(|file| is_segment(file)).collect();
    assert!(segments.len() >= 3, "{segments:?}");
    segments
}

/// Segments are as large as they were made; everything else is small.
fn is_segment(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.len() >= 16 << 20)
        && !file.to_string_lossy().contains("spare")
}

fn flip(file: &Path, position: u64) {
    let mut file = std::fs::File::options().read(true).write(true).open(file).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).expect("within the segment");
    file.seek(SeekFrom::Start(position)).expect("a file can be sought");
    file.write_all(&[byte[0] ^ 0x10]).expect("written");
    file.sync_all().expect("flushed");
}

/// The number after `at byte`.
fn position_in(text: &str) -> u64 {
    let behind = text.split("at byte ").nth(1).unwrap_or_else(|| panic!("no position: {text}"));
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Reading tells of the damage at `position` of `file`, and delivers everything else in order. Returns how many lines
/// are missing.
fn check_reading(consumed: &Outcome, file: &Path, position: u64) -> usize {
    assert_eq!(consumed.code, Some(1), "{}", consumed.stderr);
    let name = file.file_name().expect("a file").to_str().expect("UTF-8");
    assert!(consumed.stderr.contains(name), "{name} is not named: {}", consumed.stderr);
    let named = position_in(&consumed.stderr);
    assert!(named <= position && position - named < 512 * 1024, "{named} for {position}");
    let text = String::from_utf8(consumed.stdout.clone()).expect("damaged bytes are not delivered");
    let delivered: Vec<&str> = text.split_inclusive('\n').collect();
    let missing = LINES - delivered.len();
    assert!((1..=5000).contains(&missing), "{missing} lines are missing");
    let gap = delivered.iter().zip(0..).find(|(text, number)| **text != line(*number));
    let gap = gap.map_or(delivered.len(), |(_, number)| number);
    for (text, number) in delivered[gap..].iter().zip(gap + missing..) {
        assert_eq!(*text, line(number));
    }
    missing
}

#[test]
fn a_flipped_byte_is_named_and_everything_around_it_is_served() {
    let directory = test_directory();
    let segments = filled(directory.path());
    let position = 5_000_000;
    flip(&segments[1], position);
    let node = Node::start(directory.path());
    let missing = check_reading(&node.run(&["consume", "lines"]), &segments[1], position);
    // A group goes on after the damage too, and has read everything then.
    let consumed = node.run(&["consume", "lines", "--group", "readers"]);
    assert_eq!(check_reading(&consumed, &segments[1], position), missing);
    assert_eq!(node.run(&["group", "describe", "readers", "-o", "json"]).json()["lag"], 0);
    // New messages are taken as before.
    command::run(Some(node.address()), &["produce", "lines"], Some(b"new\n")).well();
    let end = LINES.to_string();
    assert_eq!(node.run_well(&["consume", "lines", "--from", &end]), "new\n");
    // The operator is told as well, and not for every reader.
    let told = node.stop().stderr;
    let name = segments[1].file_name().expect("a file").to_str().expect("UTF-8");
    let lines: Vec<_> = told.lines().filter(|line| line.contains("damaged or missing")).collect();
    assert!(!lines.is_empty() && lines.len() <= 2 && lines[0].contains(name), "{told}");
    assert!(lines[0].contains("ERROR") && lines[0].contains("log verify"), "{told}");
}

#[test]
fn a_damaged_index_is_built_anew_while_the_broker_runs_and_once() {
    let directory = test_directory();
    filled(directory.path());
    let index = files_with(directory.path(), "/index/0").remove(0);
    flip(&index, 200);
    let node = Node::start(directory.path());
    assert!(!node.banner.contains("anew"), "nobody has met it: {}", node.banner);
    // The reader waits for it.
    let read = node.run_well(&["consume", "lines"]);
    assert!((0..LINES).map(line).eq(read.split_inclusive('\n').map(str::to_owned)), "every line is there");
    assert_eq!(node.run(&["status", "-o", "json"]).json()["shards"][0]["state"], "ok");
    let told = node.stop().stderr;
    assert!(told.contains("0000000000.index") && told.contains("the consume index was built anew"), "{told}");
    let node = Node::start(directory.path());
    assert!(!node.banner.contains("anew"), "{}", node.banner);
    assert_eq!(node.run_well(&["consume", "lines"]).len(), read.len());
    // A missing one is found by the start.
    assert_eq!(node.stop().status.code(), Some(0));
    std::fs::remove_dir_all(index.parent().expect("a folder")).expect("removed");
    let node = Node::start(directory.path());
    assert!(node.banner.contains("the index was built anew"), "{}", node.banner);
    assert_eq!(node.run_well(&["consume", "lines"]).len(), read.len());
    assert!(node.stop().stderr.contains("the index was built anew"));
}

/// Without its index a broker reads the whole log when it starts, and meets the damage then.
#[test]
fn damage_is_told_at_a_start_that_reads_the_whole_log() {
    let directory = test_directory();
    let segments = filled(directory.path());
    let position = 7_000_000;
    flip(&segments[0], position);
    for file in
        files_with(directory.path(), "/index/").into_iter().chain(files_with(directory.path(), "snapshot"))
    {
        // The same file may have been found twice.
        let _ = std::fs::remove_file(file);
    }
    let node = Node::start(directory.path());
    let name = segments[0].file_name().expect("a file").to_str().expect("UTF-8");
    assert!(node.banner.contains("DAMAGED") && node.banner.contains(name), "{}", node.banner);
    check_reading(&node.run(&["consume", "lines"]), &segments[0], position);
}

#[test]
fn log_verify_names_file_and_position() {
    let directory = test_directory();
    let segments = filled(directory.path());
    let data = directory.path().to_str().expect("UTF-8");
    command::run(None, &["log", "verify", "--data", data], None).well();
    for (segment, position) in [(0, 4096), (1, 1_234_567), (1, 15_000_000), (0, 9_999_999)] {
        flip(&segments[segment], position);
        let verified = command::run(None, &["log", "verify", "--data", data], None);
        let text = String::from_utf8_lossy(&verified.stdout).into_owned() + &verified.stderr;
        assert_eq!(verified.code, Some(1), "{text}");
        let name = segments[segment].file_name().expect("a file").to_str().expect("UTF-8");
        assert!(text.contains(name), "{name} is not named: {text}");
        flip(&segments[segment], position);
    }
    command::run(None, &["log", "verify", "--data", data], None).well();
    let node = Node::start(directory.path());
    let sentence = command::run(None, &["log", "verify", "--data", data], None).badly(1);
    assert!(sentence.contains("in use"), "{sentence}");
    drop(node);
}
