//! Files that the user who runs the broker may not write to, and commands that are run by another one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::command::{self, BINARY, Outcome};
use crate::support::directory::test_directory;
use crate::support::node::{Node, Setup};

/// Of nobody who has files here.
const OTHER: u32 = 65534;

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("procfs").uid() == 0
}

/// Who runs commands here, and is not root: another user where that is who tests. `None` where such a one cannot reach the
/// binary.
fn user() -> Option<Option<u32>> {
    if !is_root() {
        return Some(None);
    }
    let ran = Command::new(BINARY).arg("--version").uid(OTHER).gid(OTHER).output();
    ran.is_ok_and(|ran| ran.status.success()).then_some(Some(OTHER))
}

fn run_as(user: Option<u32>, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(BINARY);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command::finish(command.spawn().expect("it ran before"), arguments)
}

/// Gives everything below to `user`.
fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).expect("root may");
    if path.is_dir() {
        fs::read_dir(path)
            .expect("it is there")
            .for_each(|entry| give(&entry.expect("an entry").path(), user));
    }
}

/// Two shards with a message each, stopped well.
fn filled(data: &Path) {
    let node = Setup::new(data).with(&["--shards", "2"]).start();
    node.run_well(&["topic", "create", "lines", "--queues", "2"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"one\ntwo\n")).well();
    assert_eq!(node.stop().status.code(), Some(0));
}

fn one_of(data: &Path, end: &str) -> PathBuf {
    let files = crate::support::directory::files_with(data, end);
    files.into_iter().next().unwrap_or_else(|| panic!("no {end}"))
}

/// A start that is refused for it has changed nothing, and the check agrees.
#[test]
fn what_may_not_be_written_to_is_named_before_anything_is_changed() {
    let Some(user) = user() else { return };
    let directory = test_directory();
    let data = directory.path().join("data");
    filled(&data);
    if let Some(user) = user {
        give(directory.path(), user);
    }
    let text = data.to_str().expect("UTF-8");
    let parts = [
        one_of(&data, "shard-1/log/00000000000000000000.segment"),
        one_of(&data, "shard-1/log/manifest"),
        one_of(&data, "shard-1/snapshot-"),
        data.join("shard-1/log"),
        data.join("shard-1/index"),
        data.join("shard-1"),
    ];
    for path in parts {
        let kept = fs::metadata(&path).expect("it is there").permissions();
        let mode = if path.is_dir() { 0o500 } else { 0o400 };
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
        let manifest = || fs::read(data.join("shard-0/log/manifest")).expect("a file");
        let before = manifest();
        let said =
            run_as(user, &["serve", "--data", text, "--listen", "127.0.0.1:0", "--http", "none"]).badly(1);
        let sentence = format!("{} cannot be written to by this user", path.display());
        assert!(said.contains(&sentence), "{said}");
        assert!(manifest() == before, "{}: the other shard was changed", path.display());
        let verified = run_as(user, &["log", "verify", "--data", text]);
        let told = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(verified.code == Some(1) && told.contains(&sentence), "{told}{}", verified.stderr);
        fs::set_permissions(&path, kept).expect("ours");
    }
    run_as(user, &["log", "verify", "--data", text]).well();
}

/// Of a start, of the check and of a repair: how each ended, and all that it said.
fn all_three(user: Option<u32>, data: &Path) -> [(&'static str, Option<i32>, String); 3] {
    let text = data.to_str().expect("UTF-8");
    let run = |label, arguments: &[&str]| {
        let ended = run_as(user, arguments);
        (label, ended.code, String::from_utf8_lossy(&ended.stdout).into_owned() + &ended.stderr)
    };
    [
        run("serve", &["serve", "--data", text, "--listen", "127.0.0.1:0", "--http", "none"]),
        run("verify", &["log", "verify", "--data", text]),
        run("repair", &["log", "repair", "--data", text, "--yes"]),
    ]
}

/// A `lock` that a start is refused for is named by the check and by a repair as well, and hides nothing of the shards. One that
/// may only be read, as root leaves it, is locked all the same.
#[test]
fn a_lock_that_cannot_be_opened_is_named_by_a_start_and_by_every_tool() {
    let directory = test_directory();
    let data = directory.path().join("data");
    filled(&data);
    let lock = data.join("lock");
    let named = |user, part: &str| {
        for (label, code, said) in all_three(user, &data) {
            let is_named = said.contains(lock.to_str().expect("UTF-8")) && said.contains(part);
            assert!(code == Some(1) && is_named, "{label}, {part}: {code:?}: {said}");
            assert_eq!(said.contains("shard 1: "), label == "verify", "{label}: {said}");
        }
    };
    fs::remove_file(&lock).expect("it is there");
    fs::create_dir(&lock).expect("the name is free");
    named(None, "a directory");
    fs::remove_dir(&lock).expect("it was made");
    mknodat(CWD, &lock, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a file system with FIFOs");
    named(None, "a FIFO");
    fs::remove_file(&lock).expect("it was made");
    std::os::unix::fs::symlink(directory.path().join("letter"), &lock).expect("the name is free");
    named(None, "a symbolic link");
    fs::remove_file(&lock).expect("it was made");

    let Some(user) = user() else { return };
    if let Some(user) = user {
        give(directory.path(), user);
    }
    fs::write(&lock, "").expect("the name is free");
    fs::set_permissions(&lock, Permissions::from_mode(0o000)).expect("ours");
    named(user, "cannot be written to by this user");
    fs::set_permissions(&lock, Permissions::from_mode(0o444)).expect("ours");
    if user.is_some() {
        give(&lock, 0);
    }
    run_as(user, &["log", "verify", "--data", data.to_str().expect("UTF-8")]).well();
    let node = Setup::new(&data).with(&["--shards", "2"]).by_user(user).start();
    let [(_, _, second), (_, _, verified), _] = all_three(user, &data);
    assert!(second.contains("in use") && verified.contains("in use"), "{second}{verified}");
    assert_eq!(node.stop().status.code(), Some(0));
    // One that is gone would have to be made.
    fs::remove_file(&lock).expect("it is there");
    fs::set_permissions(&data, Permissions::from_mode(0o500)).expect("ours");
    for (label, code, said) in all_three(user, &data).into_iter().take(2) {
        assert!(code == Some(1) && said.contains("cannot be written to by this user"), "{label}: {said}");
    }
}

/// The broker of the directory's user could not open what it makes.
#[test]
fn a_repair_by_root_in_the_directory_of_another_user_is_refused() {
    if !is_root() {
        return;
    }
    let directory = test_directory();
    let data = directory.path().join("data");
    filled(&data);
    give(&data, OTHER);
    fs::remove_file(one_of(&data, "shard-1/log/manifest")).expect("it is there");
    let text = data.to_str().expect("UTF-8");
    let said = command::run(None, &["log", "repair", "--data", text, "--yes"], None).badly(1);
    assert!(said.contains(&format!("user with number {OTHER}")), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
    // To look is open to everybody.
    let said = command::run(None, &["log", "repair", "--data", text], None).badly(1);
    assert!(said.contains("--yes does it"), "{said}");
    give(&data, 0);
    command::run(None, &["log", "repair", "--data", text, "--yes"], None).well();
    drop(Node::start(&data));
}
