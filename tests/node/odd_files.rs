//! What is no file in the place of one of the data directory's: a FIFO is not waited for, and it is said in words.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::command;
use crate::support::directory::{files_with, test_directory};
use crate::support::node::{Node, Setup};

/// What an odd file is called, and what makes it at a path.
type OddFile = (&'static str, fn(&Path));

/// A directory with a file of each kind, stopped well.
fn filled(data: &Path) {
    let node = Node::start(data);
    node.run_well(&["topic", "create", "lines", "--queues", "1"]);
    let text: String = (0..100).map(|number| format!("key{number}\tline {number}\n")).collect();
    command::run(Some(node.address()), &["produce", "lines", "--key-field", "1"], Some(text.as_bytes()))
        .well();
    assert_eq!(node.stop().status.code(), Some(0));
}

/// A FIFO that nobody writes to: whoever opens it to read waits for ever.
fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a file system with FIFOs");
}

/// The file of that kind which a start or a tool reads.
fn one_of(data: &Path, part: &str) -> PathBuf {
    files_with(data, part).into_iter().next().unwrap_or_else(|| panic!("no {part}"))
}

#[test]
fn what_is_no_file_is_named_by_a_start_and_by_every_tool() {
    let directory = test_directory();
    let data = directory.path().join("data");
    filled(&data);
    for part in ["/log/manifest", "snapshot-", "00000000000000000000.segment"] {
        let path = one_of(&data, part);
        let kept = directory.path().join("kept");
        fs::rename(&path, &kept).expect("it is there");
        for (what, make) in [
            ("a FIFO", fifo as fn(&Path)),
            ("a directory", |path| {
                fs::create_dir(path).expect("the name is free");
            }),
        ] {
            make(&path);
            let text = data.to_str().expect("UTF-8");
            let started = Setup::new(&data).try_start().err().expect("it is no file").stderr;
            let mut said = vec![("serve", started)];
            let mut run = |label, arguments: &[&str]| {
                let ended = command::run(None, arguments, None);
                assert_eq!(ended.code, Some(1), "{label}, {what} as {part}: {}", ended.stderr);
                said.push((label, String::from_utf8_lossy(&ended.stdout).into_owned() + &ended.stderr));
            };
            run("verify", &["log", "verify", "--data", text]);
            run("repair", &["log", "repair", "--data", text]);
            if part.ends_with(".segment") {
                run("dump", &["log", "dump", "--data", text]);
            }
            for (label, said) in said {
                let is_named = said.contains(path.to_str().expect("UTF-8")) && said.contains(what);
                assert!(is_named && said.contains("must be a regular file"), "{label}, {part}: {said}");
            }
            if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) }.expect("it was made");
        }
        fs::rename(&kept, &path).expect("it is there");
    }
    let text = data.to_str().expect("UTF-8");
    command::run(None, &["log", "verify", "--data", text], None).well();
}

/// As after a move to a file system that is not mounted: nothing is made anew in the place that the link names.
#[test]
fn a_link_that_leads_nowhere_is_no_missing_file() {
    let directory = test_directory();
    let data = directory.path().join("data");
    filled(&data);
    let gone = directory.path().join("not-mounted");
    for part in ["/log/manifest", "snapshot-", "00000000000000000000.segment", "/index/distrusted"] {
        // What is only there for a while is no file that is kept.
        let existing = files_with(&data, part).into_iter().next();
        let path = existing.clone().unwrap_or_else(|| data.join("shard-0/index/distrusted"));
        let kept = directory.path().join("kept");
        if existing.is_some() {
            fs::rename(&path, &kept).expect("it is there");
        }
        std::os::unix::fs::symlink(&gone, &path).expect("the name is free");
        let text = data.to_str().expect("UTF-8");
        let started = Setup::new(&data).try_start().err().unwrap_or_else(|| panic!("{part}: it starts"));
        let verified = command::run(None, &["log", "verify", "--data", text], None);
        assert_eq!(verified.code, Some(1), "{part}: {}", verified.stderr);
        let verified = String::from_utf8_lossy(&verified.stdout).into_owned();
        for said in [started.stderr, verified] {
            let is_named = said.contains(path.to_str().expect("UTF-8"));
            assert!(is_named && said.contains("it is a symbolic link to"), "{part}: {said}");
        }
        assert!(!gone.exists(), "{part}: it was made");
        fs::remove_file(&path).expect("it was made");
        if existing.is_some() {
            fs::rename(&kept, &path).expect("it is there");
        }
    }
}

/// The same of a directory: nothing is made in its place, and the words say what it is.
#[test]
fn a_repair_does_not_take_a_link_that_leads_nowhere_for_a_missing_directory() {
    let directory = test_directory();
    let data = directory.path().join("data");
    filled(&data);
    let (text, kept) = (data.to_str().expect("UTF-8"), directory.path().join("kept"));
    for part in ["shard-0", "shard-0/log"] {
        let path = data.join(part);
        fs::rename(&path, &kept).expect("it is there");
        let gone = directory.path().join("not-mounted");
        std::os::unix::fs::symlink(&gone, &path).expect("the name is free");
        for act in [None, Some("--yes")] {
            let arguments: Vec<_> = ["log", "repair", "--data", text].into_iter().chain(act).collect();
            let said = command::run(None, &arguments, None).badly(1);
            let is_named = said.contains(&format!("{}: it is a symbolic link to", path.display()));
            assert!(is_named && said.contains("nothing was changed"), "{part}: {said}");
        }
        assert!(!gone.exists(), "{part}: it was made");
        fs::remove_file(&path).expect("it was made");
        fs::rename(&kept, &path).expect("it is there");
    }
    command::run(None, &["log", "verify", "--data", text], None).well();
}

/// What has a name that a start opens or takes over, of a shard whose log is fine: refused before any shard is changed, and in
/// the words of the start by every tool.
#[test]
fn what_a_start_refuses_is_said_by_every_tool_in_its_words() {
    let directory = test_directory();
    let data = directory.path().join("data");
    let node = Setup::new(&data).with(&["--shards", "2"]).start();
    node.run_well(&["topic", "create", "lines", "--queues", "2"]);
    command::run(Some(node.address()), &["produce", "lines"], Some(b"one\ntwo\n")).well();
    assert_eq!(node.stop().status.code(), Some(0));
    let text = data.to_str().expect("UTF-8");
    let makes: [OddFile; 5] = [
        ("a FIFO", fifo),
        ("a file", |path| fs::write(path, "no directory").expect("the name is free")),
        ("a directory", |path| fs::create_dir(path).expect("the name is free")),
        ("a symbolic link to", |path| {
            std::os::unix::fs::symlink("/nonexistent/file", path).expect("the name is free");
        }),
        ("symbolic links", |path| std::os::unix::fs::symlink(path, path).expect("the name is free")),
    ];
    let manifest = || fs::read(data.join("shard-0/log/manifest")).expect("a file");
    for part in ["log/spare-1-0", "index/0000000000.index", "index", "log", ""] {
        let (path, kept) =
            (PathBuf::from_iter(data.join("shard-1").join(part).components()), directory.path().join("kept"));
        let existed = path.exists();
        let right = if path.is_dir() { "a directory" } else { "a file" };
        if existed {
            fs::rename(&path, &kept).expect("it is there");
        }
        for (what, make) in makes.iter().filter(|(what, _)| *what != right) {
            make(&path);
            let before = manifest();
            let started = Setup::new(&data).try_start().err().expect("it is no file").stderr;
            let sentence =
                started.rsplit("turbopump: ").next().expect("text").trim_start_matches("shard 1: ");
            let sentence = sentence.split(". ").next().expect("text").trim_end();
            let is_named = sentence.contains(path.to_str().expect("UTF-8")) && sentence.contains(what);
            assert!(is_named, "{what} as {part}: {started}");
            assert!(manifest() == before, "{what} as {part}: the other shard was changed");
            for tool in [&["log", "verify", "--data", text][..], &["log", "repair", "--data", text]] {
                let ended = command::run(None, tool, None);
                let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &ended.stderr;
                let is_said = ended.code == Some(1) && said.contains(sentence);
                assert!(
                    is_said,
                    "{what} as {part}, {tool:?}: {said}\nnot in the words of the start: {sentence}"
                );
            }
            if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) }.expect("it was made");
        }
        if existed {
            fs::rename(&kept, &path).expect("the name is free");
        }
    }
    command::run(None, &["log", "verify", "--data", text], None).well();
}

/// Keys are made anew beside a running broker, but not in the place of what somebody has put there.
#[test]
fn what_has_the_name_of_keys_is_to_be_moved_away() {
    let directory = test_directory();
    let data = directory.path().join("data");
    filled(&data);
    let (keys, text) = (data.join("shard-0/keys"), data.to_str().expect("UTF-8"));
    fs::remove_dir_all(&keys).expect("it is there");
    fifo(&keys);
    let verified = command::run(None, &["log", "verify", "--data", text], None);
    let told = String::from_utf8_lossy(&verified.stdout).into_owned();
    let sentence = format!("cannot list {}: it is a FIFO (a pipe), and must be a directory", keys.display());
    assert!(told.contains(&format!("{sentence}: move that away, and it is made anew")), "{told}");
    let verdict = "every message can be read, and the broker starts";
    assert!(verified.stderr.contains(verdict), "{}", verified.stderr);
    assert_eq!(verified.code, Some(1));
    drop(Node::start(&data));
    fs::remove_file(&keys).expect("it is there");
    let node = Node::start(&data);
    node.run_well(&["message", "find", "lines", "--key", "key7"]);
    assert_eq!(node.stop().status.code(), Some(0));
    command::run(None, &["log", "verify", "--data", text], None).well();
}

#[test]
fn a_secret_that_cannot_be_used_is_refused_by_a_start_and_by_every_tool() {
    let directory = test_directory();
    let data = directory.path().join("data");
    filled(&data);
    let (secret, text) = (data.join("secret"), data.to_str().expect("UTF-8"));
    let makes: [OddFile; 3] = [
        ("has 5 bytes, and must have 32", |path| fs::write(path, "short").expect("it can be written")),
        ("it is a symbolic link to", |path| {
            std::os::unix::fs::symlink("/nonexistent/file", path).expect("the name is free");
        }),
        ("must be a regular file", fifo),
    ];
    let kept = directory.path().join("kept");
    fs::rename(&secret, &kept).expect("it is there");
    for (what, make) in makes {
        make(&secret);
        let started =
            Setup::new(&data).try_start().err().unwrap_or_else(|| panic!("{what}: it starts")).stderr;
        let sentence = started.rsplit("turbopump: ").next().expect("text").trim_end();
        assert!(sentence.contains(secret.to_str().expect("UTF-8")) && sentence.contains(what), "{started}");
        for tool in [&["log", "verify", "--data", text][..], &["log", "repair", "--data", text]] {
            let ended = command::run(None, tool, None);
            let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &ended.stderr;
            assert!(ended.code == Some(1) && said.contains(sentence), "{tool:?}: {said}");
        }
        fs::remove_file(&secret).expect("it was made");
    }
    fs::rename(&kept, &secret).expect("the name is free");
    command::run(None, &["log", "verify", "--data", text], None).well();
}

#[test]
fn a_probe_that_cannot_be_used_is_told_and_keeps_nobody_from_starting() {
    for name in ["probe", "probe-speed"] {
        let directory = test_directory();
        let (data, letter) = (directory.path().join("data"), directory.path().join("letter.txt"));
        fs::write(&letter, "dear").expect("a file");
        filled(&data);
        let path = data.join(name);
        let makes: [fn(&Path, &Path); 3] = [
            |path, _| fifo(path),
            |path, _| fs::create_dir(path).expect("the name is free"),
            |path, letter| std::os::unix::fs::symlink(letter, path).expect("a link"),
        ];
        for make in makes {
            _ = fs::remove_file(&path);
            make(&path, &letter);
            let node = Node::start(&data);
            let is_told = node.banner.contains(path.to_str().expect("UTF-8"));
            assert!(is_told && node.banner.contains("must be a regular file"), "{}", node.banner);
            assert_eq!(node.banner.contains("writes and flushes"), name == "probe", "{}", node.banner);
            assert_eq!(node.run_well(&["consume", "lines"]).lines().count(), 100);
            let told = node.stop().stderr;
            assert!(told.contains("must be a regular file"), "nothing on standard error: {told}");
            if path.is_dir() {
                fs::remove_dir(&path).expect("it was made");
            }
        }
        assert_eq!(fs::read(&letter).expect("a file"), b"dear");
    }
}

/// A copy of a whole directory that is made of hard links changes with the directory.
#[test]
fn a_copy_made_of_links_is_told_at_the_start() {
    let directory = test_directory();
    let data = directory.path().join("data");
    filled(&data);
    let copy = directory.path().join("copy");
    let manifest = data.join("shard-0/log/manifest");
    fs::hard_link(&manifest, &copy).expect("a file system with hard links");
    let sentence = format!("{} has another name as well", manifest.display());
    let node = Node::start(&data);
    assert!(node.told().contains(&sentence), "{}", node.told());
    assert_eq!(node.stop().status.code(), Some(0));
    fs::remove_file(&copy).expect("it is there");
    let node = Node::start(&data);
    assert!(!node.told().contains("has another name"), "{}", node.told());
}
