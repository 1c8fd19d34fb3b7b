//! Backups of brokers that run, of those that do not, and what is made of them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use turbopump::client::{Message, Start};
use turbopump::types::QueueNumber;

use crate::support::command::{self, Outcome};
use crate::support::directory::{files_with, test_directory};
use crate::support::load::{create_topic, produce, producer, read};
use crate::support::machine::{MemoryFileSystem, report};
use crate::support::node::{Node, Setup, wait_for};

const MIB: u64 = 1 << 20;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn back_up(node: &Node, data: &Path, backup: &Path, more: &[&str]) -> Outcome {
    let arguments = [&["backup", text(backup), "--data", text(data), "-o", "json"], more].concat();
    node.run(&arguments)
}

/// Of a broker that does not run.
fn back_up_stopped(data: &Path, backup: &Path) -> Outcome {
    command::run(None, &["backup", text(backup), "--data", text(data), "-o", "json"], None)
}

fn verify(backup: &Path) -> Outcome {
    command::run(None, &["backup", "verify", text(backup)], None)
}

fn restore(backup: &Path, data: &Path, more: &[&str]) -> Outcome {
    command::run(None, &[&["restore", text(backup), "--data", text(data)], more].concat(), None)
}

fn sum(view: &Value, name: &str) -> u64 {
    let shards = view["shards"].as_array().expect("an array");
    shards.iter().map(|shard| shard[name].as_u64().expect("a number")).sum()
}

fn feed(node: &Node, queue: u32, bytes: u64) {
    let body = vec![b'x'; 32 * 1024];
    let count = bytes / body.len() as u64;
    produce(node, "orders", queue, (0..count).map(|_| &body[..]));
}

fn stored(node: &Node, queue: u32) -> Vec<Vec<u8>> {
    read(node.client(), "orders", Some(queue), Start::First).into_iter().map(|message| message.body).collect()
}

/// Ends what goes on beside a test, also when that fails.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How far a group has read of each queue.
fn places(node: &Node) -> Vec<u64> {
    let described = node.run(&["group", "describe", "g", "-o", "json"]).json();
    let queues = described["queues"].as_array().expect("an array");
    queues.iter().map(|queue| queue["committed"].as_u64().expect("a number")).collect()
}

/// Somebody who publishes numbers, one batch after the other, and knows how many were answered.
struct Numbers<'a> {
    stop: &'a AtomicBool,
    answered: &'a AtomicU64,
}

impl Numbers<'_> {
    fn publish(&self, node: &Node, queue: u32) {
        let mut producer = producer(node, "orders");
        for number in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let body = number.to_le_bytes();
            let message = Message { body: &body, queue: Some(QueueNumber(queue)), ..Message::default() };
            producer.send(&message).expect("the broker takes it");
            if number % 8 == 7 {
                producer.flush().expect("the broker answers");
                self.answered.store(number + 1, Ordering::Relaxed);
            }
        }
    }
}

/// All from the first on, in their order, and no fewer than these.
fn check_numbers(bodies: &[Vec<u8>], at_least: u64) {
    assert!(bodies.len() as u64 >= at_least, "{} of {at_least}", bodies.len());
    let numbers = bodies.iter().map(|body| u64::from_le_bytes(body[..].try_into().expect("a number")));
    assert!(numbers.eq(0..bodies.len() as u64), "no gap, and in their order");
}

#[test]
fn a_backup_of_a_running_broker_has_everything_that_was_answered() {
    let directory = test_directory();
    let (data, backup) = (directory.path().join("data"), directory.path().join("backup"));
    let flags = ["--shards", "2", "--transaction-check-interval", "1h", "--transaction-immunity", "1h"];
    let node = Setup::new(&data).with(&flags).start();
    create_topic(&mut node.client(), "orders", 4);
    feed(&node, 0, 40 * MIB);
    node.run_well(&["consume", "orders", "--group", "g", "--count", "1000"]);
    let place = places(&node);
    assert!(place.contains(&1000), "{place:?}");
    node.run_well(&["message", "publish", "orders", "later", "--queue", "2", "--delay", "2s"]);
    let half = ["message", "publish", "orders", "half", "--transaction", "-o", "json"];
    let half = node.run(&half).json()["handle"].as_str().expect("a handle").to_owned();
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let numbers = Numbers { stop: &stop, answered: &answered };
    std::thread::scope(|scope| {
        let _ended = Ended(&stop);
        scope.spawn(|| numbers.publish(&node, 3));
        for round in 0..2 {
            wait_for("it is busy", || answered.load(Ordering::Relaxed) > 200 * (round + 1));
            let before = answered.load(Ordering::Relaxed);
            let view = back_up(&node, &data, &backup, &[]).json();
            assert_eq!(view["running"], true);
            assert!((round == 0) == (sum(&view, "kept_bytes") == 0), "{view}");
            assert!(sum(&view, "linked_bytes") > 0 || round > 0, "{view}");
            verify(&backup).well();
            let restored = directory.path().join(format!("restored-{round}"));
            let told = restore(&backup, &restored, &[]).well();
            let position = view["shards"][1]["position"].as_u64().expect("a number");
            assert!(told.contains("shard 1: ") && told.contains(&position.to_string()), "{told}");
            let node = Setup::new(&restored).with(&flags).start();
            check_numbers(&stored(&node, 3), before);
            assert_eq!(stored(&node, 0).len() as u64, 40 * MIB / (32 * 1024));
            assert_eq!(places(&node), place);
            wait_for("what was delayed comes", || stored(&node, 2).contains(&b"later".to_vec()));
            node.run_well(&["message", "commit", "orders", &half]);
            wait_for("the half is delivered", || {
                (0..4).any(|queue| stored(&node, queue).contains(&b"half".to_vec()))
            });
            // It goes on.
            feed(&node, 1, MIB);
            assert_eq!(node.stop().stderr.matches("GIVEN UP").count(), 0);
        }
    });
}

/// A broker of which only the last 32 MiB are kept, and a copy that takes longer than they last.
#[test]
fn retention_may_take_what_it_likes_meanwhile() {
    let directory = test_directory();
    let (data, backup) = (directory.path().join("data"), directory.path().join("backup"));
    let node = Setup::new(&data).with(&["--retention-bytes", "32MiB"]).start();
    create_topic(&mut node.client(), "orders", 2);
    node.run_well(&["message", "publish", "orders", "half", "--transaction", "--immunity", "1h"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ended = Ended(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                feed(&node, 0, 4 * MIB);
            }
        });
        wait_for("segments go", || node.counter("log_end") > 64 * MIB);
        for (round, more) in [&[][..], &["--copy"]].into_iter().enumerate() {
            let view = back_up(&node, &data, &backup, more).json();
            assert_eq!(sum(&view, "linked_bytes") == 0, !more.is_empty(), "{view}");
            verify(&backup).well();
            let restored = directory.path().join(format!("restored-{round}"));
            restore(&backup, &restored, &[]).well();
            let checked =
                command::run(None, &["log", "verify", "--data", text(&restored), "-o", "json"], None);
            let checked: Value = serde_json::from_slice(&checked.stdout).expect("an object");
            assert_eq!(
                (&checked["damaged"], &checked["messages_missing"]),
                (&0.into(), &0.into()),
                "{checked}"
            );
            // What is held was placed again and again, and is still there.
            let node = Setup::new(&restored).start();
            assert_eq!(node.counter("halves"), 1);
            assert!(!stored(&node, 0).is_empty());
        }
    });
    // Files that have two names are not written over.
    verify(&backup).well();
}

#[test]
fn a_backup_of_a_stopped_or_killed_broker_is_all_of_it() {
    let directory = test_directory();
    let data = directory.path().join("data");
    let setup = Setup::new(&data).with(&["--shards", "2"]);
    for (round, is_killed) in [false, true].into_iter().enumerate() {
        let node = setup.start();
        if round == 0 {
            create_topic(&mut node.client(), "orders", 2);
        }
        feed(&node, 0, 20 * MIB);
        produce(&node, "orders", 1, [&b"last"[..]]);
        let wanted = [0, 1].map(|queue| stored(&node, queue).len());
        if is_killed {
            node.kill()
        } else {
            drop(node.stop())
        }
        let (backup, restored) = (
            directory.path().join(format!("backup-{round}")),
            directory.path().join(format!("restored-{round}")),
        );
        let view = back_up_stopped(&data, &backup).json();
        assert_eq!(view["running"], false);
        let told = restore(&backup, &restored, &["--new-node"]).well();
        assert!(
            told.contains("a new node") && !told.contains(view["node"].as_str().expect("text")),
            "{told}"
        );
        let node = Setup::new(&restored).start();
        assert_eq!([0, 1].map(|queue| stored(&node, queue).len()), wanted);
        drop(node);
        // Nothing of the original was touched.
        command::run(None, &["log", "verify", "--data", text(&data)], None);
    }
}

/// A broker of one shard with a few segments, and its backup.
fn backed_up(directory: &Path) -> (PathBuf, PathBuf) {
    let (data, backup) = (directory.join("data"), directory.join("backup"));
    let node = Node::start(&data);
    create_topic(&mut node.client(), "orders", 1);
    feed(&node, 0, 60 * MIB);
    back_up(&node, &data, &backup, &["--copy"]).well();
    node.stop();
    (data, backup)
}

#[test]
fn damage_is_named_and_nothing_is_made_of_it() {
    let directory = test_directory();
    let (data, backup) = backed_up(directory.path());
    let restored = directory.path().join("restored");
    let files = files_with(&backup, "/shard-0/");
    assert!(files.len() > 3, "{files:?}");
    let damages: [fn(&Path); 4] = [
        |file| {
            let mut longer = fs::OpenOptions::new().append(true).open(file).expect("a file");
            longer.write_all(&[0; 4096]).expect("it can be written");
        },
        |file| {
            let mut bytes = fs::read(file).expect("a file");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(file, bytes).expect("a file");
        },
        |file| {
            fs::File::options().write(true).open(file).and_then(|file| file.set_len(8192)).expect("a file")
        },
        |file| fs::remove_file(file).expect("a file"),
    ];
    for (file, damage) in files.iter().zip(damages) {
        let whole = fs::read(file).expect("a file");
        damage(file);
        let outcome = verify(&backup);
        let told = String::from_utf8_lossy(&outcome.stdout).into_owned();
        assert!(told.contains(&format!("DAMAGED {}", file.display())), "{told}");
        assert_eq!(told.matches("DAMAGED").count(), 1, "{told}");
        let refused = outcome.badly(1);
        assert!(refused.contains("1 of "), "{refused}");
        let refused = restore(&backup, &restored, &[]).badly(1);
        assert!(refused.contains(text(file)), "{refused}");
        assert_eq!(fs::read_dir(&restored).expect("a directory").count(), 0, "nothing is left");
        // Removed, it is copied anew.
        let _ = fs::remove_file(file);
        let view = back_up_stopped(&data, &backup).json();
        assert!(sum(&view, "kept_bytes") > 0, "{view}");
        verify(&backup).well();
        assert!(fs::read(file).expect("it is there again") == whole);
    }
    let catalog = backup.join("backup.toml");
    let whole = fs::read_to_string(&catalog).expect("a file");
    fs::write(&catalog, whole.replacen("position = ", "position = 1", 1)).expect("a file");
    for refused in [verify(&backup), restore(&backup, &restored, &[]), back_up_stopped(&data, &backup)] {
        let refused = refused.badly(1);
        assert!(refused.contains("its checksum does not fit"), "{refused}");
    }
    fs::remove_file(&catalog).expect("a file");
    let refused = verify(&backup).badly(1);
    assert!(refused.contains("no complete backup"), "{refused}");
}

#[test]
fn what_would_go_wrong_is_refused_in_words() {
    let directory = test_directory();
    let at = |name: &str| directory.path().join(name);
    let (data, backup) = (at("data"), at("backup"));
    let (node, other) = (Node::start(&data), Node::start(at("other")));
    create_topic(&mut node.client(), "orders", 1);
    back_up(&node, &data, &backup, &[]).well();
    let refused = |outcome: Outcome, part: &str| {
        let told = outcome.badly(1);
        assert!(told.contains(part), "{told}");
    };
    refused(back_up(&other, &data, &at("b"), &[]), "is another one: name an address");
    refused(back_up(&other, &at("other"), &backup, &[]), "a backup of another node");
    refused(back_up(&node, &data, &at("b"), &["--server", "127.0.0.1:1"]), "leads to none");
    refused(back_up(&node, &at("nowhere"), &at("b"), &[]), "does not exist");
    refused(back_up(&node, &data, &data, &[]), "both the backup and the data directory");
    refused(back_up(&node, &data, &data.join("b/c"), &[]), "lies in the data directory");
    refused(restore(&backup, &backup.join("new"), &[]), "lies in the backup");
    refused(restore(&backup, &backup, &[]), "both the backup and the data directory");
    fs::create_dir(at("empty")).expect("a directory");
    refused(back_up_stopped(&at("empty"), &at("b")), "is empty: no broker");
    refused(
        command::run(None, &["log", "verify", "--data", text(&at("empty"))], None),
        "is empty: no broker",
    );
    fs::create_dir(at("taken")).expect("a directory");
    fs::write(at("taken").join("letter"), "dear").expect("a file");
    refused(back_up(&node, &data, &at("taken"), &[]), "holds something else (letter)");
    refused(restore(&backup, &at("taken"), &[]), "is not empty (letter");
    refused(restore(&backup, &data, &[]), "in use by another process");
    refused(restore(&at("taken"), &at("new"), &[]), "no complete backup");
    // A broker does not take a backup for its directory.
    let started = Setup::new(&backup).try_start().err().expect("it is none").stderr;
    assert!(started.contains("no turbopump data directory"), "{started}");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
    assert_eq!((mode(&backup), mode(&backup.join("backup.toml"))), (0o700, 0o600));
    assert!(!data.join("b").exists() && !backup.join("new").exists());
    let lock = fs::File::open(backup.join("lock")).expect("a file");
    lock.lock().expect("nobody has it");
    refused(back_up(&node, &data, &backup, &[]), "another backup to");
    drop(lock);
    back_up(&node, &data, &backup, &[]).well();
}

/// Whoever may look into it may read messages. One that was opened to others later stays so.
#[test]
fn a_directory_that_was_there_is_closed_to_others() {
    let directory = test_directory();
    let (data, backup) = (directory.path().join("data"), directory.path().join("backup"));
    drop(Node::start(&data).stop());
    let mode = || fs::metadata(&backup).expect("it is there").mode() & 0o777;
    let set = |mode| fs::set_permissions(&backup, fs::Permissions::from_mode(mode)).expect("it is ours");
    fs::create_dir(&backup).expect("a directory");
    set(0o755);
    fs::write(backup.join("letter"), "dear").expect("a file");
    back_up_stopped(&data, &backup).badly(1);
    assert_eq!(mode(), 0o755, "somebody else's");
    fs::remove_file(backup.join("letter")).expect("it is there");
    back_up_stopped(&data, &backup).well();
    assert_eq!(mode(), 0o700);
    set(0o750);
    back_up_stopped(&data, &backup).well();
    assert_eq!(mode(), 0o750);
}

/// Links and pipes in the place of a backup's own files: nothing is written where they lead to, and nobody waits for them.
#[test]
fn what_is_no_file_of_a_backup_is_refused() {
    let directory = test_directory();
    let at = |name: &str| directory.path().join(name);
    let (data, backup, restored) = (at("data"), at("backup"), at("restored"));
    drop(Node::start(&data).stop());
    back_up_stopped(&data, &backup).well();
    let refused = |outcome: Outcome, part: &str| {
        let told = outcome.badly(1);
        assert!(told.contains(part), "{told}");
    };
    let pipe = |path: &Path| {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a file system with FIFOs");
    };
    fs::remove_file(backup.join("lock")).expect("it is there");
    pipe(&backup.join("lock"));
    refused(back_up_stopped(&data, &backup), "is a FIFO");
    fs::remove_file(backup.join("lock")).expect("it is there");
    // What a run that was cut off may have left is none of those either.
    pipe(&backup.join("backup.toml.new"));
    back_up_stopped(&data, &backup).well();
    pipe(&at("pipe"));
    refused(restore(&backup, &at("pipe"), &[]), "is no directory");

    let (shard, elsewhere) = (backup.join("shard-0"), at("elsewhere"));
    fs::rename(&shard, &elsewhere).expect("it is there");
    std::os::unix::fs::symlink(&elsewhere, &shard).expect("a link");
    for outcome in [back_up_stopped(&data, &backup), verify(&backup), restore(&backup, &restored, &[])] {
        refused(outcome, "is a symbolic link, and no directory");
    }
    fs::remove_file(&shard).expect("it is there");
    fs::rename(&elsewhere, &shard).expect("it is there");
    verify(&backup).well();
    let segment = files_with(&backup, "/shard-0/").remove(0);
    fs::rename(&segment, at("segment")).expect("it is there");
    std::os::unix::fs::symlink(at("segment"), &segment).expect("a link");
    let told = verify(&backup);
    assert!(String::from_utf8_lossy(&told.stdout).contains("it is a symbolic link"), "{told:?}");
    refused(restore(&backup, &restored, &[]), "it is a symbolic link");
    back_up_stopped(&data, &backup).well();
    verify(&backup).well();
    restore(&backup, &restored, &[]).well();
}

/// A broker takes what a killed restore has left for no data directory of its own, and leaves nothing in it.
#[test]
fn what_a_killed_restore_has_left_stays_as_it_is() {
    let directory = test_directory();
    let at = |name: &str| directory.path().join(name);
    let (data, backup, restored) = (at("data"), at("backup"), at("restored"));
    drop(Node::start(&data).stop());
    back_up_stopped(&data, &backup).well();
    restore(&backup, &restored, &[]).well();
    let names = || {
        let entries = fs::read_dir(&restored).expect("a directory");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    for last in ["turbopump.toml", "secret"] {
        fs::remove_file(restored.join(last)).expect("it is there");
        let before = names();
        let refused = Setup::new(&restored).try_start().err().expect("it is none").stderr;
        assert!(
            refused.contains("turbopump.toml is missing") || refused.contains("no turbopump data"),
            "{refused}"
        );
        assert_eq!(names(), before);
    }
}

/// The directory that it is of may be an older copy, or a restored one that has gone its own way: what only the backup has stays.
#[test]
fn a_backup_is_not_brought_up_to_date_with_what_it_is_ahead_of() {
    let directory = test_directory();
    let at = |name: &str| directory.path().join(name);
    let (data, backup, restored) = (at("data"), at("backup"), at("restored"));
    let node = Node::start(&data);
    create_topic(&mut node.client(), "orders", 1);
    produce(&node, "orders", 0, [&b"both"[..]]);
    back_up(&node, &data, &backup, &[]).well();
    node.stop();
    restore(&backup, &restored, &[]).well();
    let feed = |data: &Path, bodies: &[&[u8]]| {
        let node = Node::start(data);
        produce(&node, "orders", 0, bodies.iter().copied());
        node.stop();
    };
    // The restored one goes on where the backup ends, and so may the backup.
    feed(&restored, &[b"restored", b"restored"]);
    back_up_stopped(&restored, &backup).well();
    let catalog = fs::read(backup.join("backup.toml")).expect("a file");
    let refused = back_up_stopped(&data, &backup).badly(1);
    assert!(refused.contains("the log of shard 0 ends at position"), "{refused}");
    feed(&data, &[&[b'x'; 30_000], &[b'y'; 30_000]]);
    let refused = back_up_stopped(&data, &backup).badly(1);
    assert!(refused.contains("has something else before position"), "{refused}");
    assert!(fs::read(backup.join("backup.toml")).expect("a file") == catalog, "it is as it was");
    verify(&backup).well();
    feed(&restored, &[b"more"]);
    back_up_stopped(&restored, &backup).well();
    // To a directory of its own it goes.
    back_up_stopped(&data, &at("another")).well();
}

/// Whatever is killed, the backup from before is whole, and the next run completes it.
#[test]
fn a_run_that_is_cut_off_leaves_the_backup_from_before() {
    let directory = test_directory();
    let (data, backup) = (directory.path().join("data"), directory.path().join("backup"));
    let setup = Setup::new(&data);
    let node = setup.start();
    create_topic(&mut node.client(), "orders", 1);
    feed(&node, 0, 20 * MIB);
    back_up(&node, &data, &backup, &["--copy"]).well();
    for milliseconds in [1, 5, 10, 20, 40, 80] {
        feed(&node, 0, 8 * MIB);
        let arguments = ["backup", text(&backup), "--data", text(&data), "--copy"];
        let mut cut_off = command::spawn(Some(node.address()), &arguments, false);
        std::thread::sleep(Duration::from_millis(milliseconds));
        let process = Pid::from_raw(cut_off.id() as i32).expect("a process id");
        // It may have ended.
        let _ = rustix::process::kill_process(process, Signal::KILL);
        cut_off.wait().expect("it is ours");
        verify(&backup).well();
    }
    let wanted = stored(&node, 0).len();
    // The broker goes while it is asked, or before, or after.
    let arguments = ["backup", text(&backup), "--data", text(&data), "--copy"];
    let asking = command::spawn(Some(node.address()), &arguments, false);
    std::thread::sleep(Duration::from_millis(15));
    node.kill();
    let outcome = command::finish(asking, &arguments);
    assert!(matches!(outcome.code, Some(0 | 1)), "{outcome:?}");
    verify(&backup).well();
    back_up_stopped(&data, &backup).well();
    verify(&backup).well();
    let names = files_with(&backup, ".new");
    assert!(names.is_empty(), "{names:?}");
    let restored = directory.path().join("restored");
    restore(&backup, &restored, &[]).well();
    assert_eq!(stored(&Node::start(&restored), 0).len(), wanted);
}

#[test]
fn a_full_disk_ends_a_run_and_harms_nothing() {
    let directory = test_directory();
    let (data, small) = (directory.path().join("data"), directory.path().join("small"));
    let Some(memory) = MemoryFileSystem::mount(&small, 36 * MIB) else {
        report("skipped: a full disk needs a file system in memory, which this user may not mount");
        return;
    };
    let node = Node::start(&data);
    create_topic(&mut node.client(), "orders", 1);
    feed(&node, 0, 20 * MIB);
    let (backup, restored) = (small.join("backup"), small.join("restored"));
    back_up(&node, &data, &backup, &[]).well();
    feed(&node, 0, 40 * MIB);
    let told = back_up(&node, &data, &backup, &[]).badly(1);
    assert!(told.contains("No space left") && told.contains("free some there"), "{told}");
    verify(&backup).well();
    let told = restore(&backup, &restored, &[]).badly(1);
    assert!(told.contains("No space left"), "{told}");
    assert_eq!(fs::read_dir(&restored).expect("a directory").count(), 0);
    memory.resize(200 * MIB);
    back_up(&node, &data, &backup, &[]).well();
    verify(&backup).well();
    restore(&backup, &directory.path().join("restored"), &[]).well();
    let wanted = stored(&node, 0).len();
    assert_eq!(stored(&Node::start(directory.path().join("restored")), 0).len(), wanted);
}
