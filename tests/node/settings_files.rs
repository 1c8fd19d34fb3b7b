//! Files that say how a broker is to be: what is no file, and certificates that clients refuse.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, GET};
use crate::support::node::{Setup, wait_for};

const CERTIFICATE: &str = include_str!("../data/tls/certificate.pem");
const EXPIRED: &str = include_str!("../data/tls/expired.pem");
const KEY: &str = include_str!("../data/tls/key.pem");
const KEYS: &str = "[[keys]]\nid = \"a\"\nsecret = \"s\"\nadmin = true\n";

/// A FIFO that nobody writes to: whoever opens it to read waits for ever.
fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a file system with FIFOs");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn write(directory: &Path, name: &str, content: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).expect("a directory of this test");
    path
}

#[test]
fn a_start_names_what_is_no_file_instead_of_waiting_for_it() {
    let directory = test_directory();
    let pipe = directory.path().join("pipe");
    fifo(&pipe);
    let certificate = write(directory.path(), "certificate.pem", CERTIFICATE);
    let key = write(directory.path(), "key.pem", KEY);
    let http = ["--http", "127.0.0.1:0"];
    for (odd, what) in
        [(pipe.as_path(), "a FIFO"), (directory.path(), "a directory"), (Path::new("/dev/zero"), "a device")]
    {
        let cases: [&[&str]; 4] = [
            &["--access-keys", text(odd)],
            &["--http-certificate", text(odd), "--http-key", text(&key)],
            &["--http-certificate", text(&certificate), "--http-key", text(odd)],
            &["--config", text(odd)],
        ];
        for flags in cases {
            let setup = Setup::new(directory.path().join("data")).with(&http).with(flags);
            let ended = setup.try_start().err().expect("it is no file");
            let said = ended.stderr.contains(what) && ended.stderr.contains(text(odd));
            assert!(said && ended.stderr.contains("must be a regular file"), "{flags:?}: {}", ended.stderr);
        }
    }
}

/// A shard reads the file again while it serves: opened without care, a FIFO in its place held the shard for ever.
#[test]
fn a_fifo_in_the_place_of_a_file_in_use_is_told_and_holds_nobody_up() {
    let directory = test_directory();
    let keys = write(directory.path(), "keys.toml", KEYS);
    let certificate = write(directory.path(), "certificate.pem", CERTIFICATE);
    let key = write(directory.path(), "key.pem", KEY);
    let flags = [
        "--http",
        "127.0.0.1:0",
        "--access-keys",
        text(&keys),
        "--http-certificate",
        text(&certificate),
        "--http-key",
        text(&key),
    ];
    let node = Setup::new(directory.path().join("data")).with(&flags).start();
    for path in [&keys, &certificate, &key] {
        fs::remove_file(path).expect("it is there");
        fifo(path);
    }
    // The looks go on once a second: one that finds the change, one that finds it settled.
    std::thread::sleep(std::time::Duration::from_secs(3));
    node.run_well(&["topic", "create", "orders", "--access-key", "a", "--secret-key", "s"]);
    let mut connection = Connection::open_tls(&node, CERTIFICATE).expect("the certificate from before");
    connection.send(GET);
    connection.expect(403, "AccessDenied");
    let ended = node.stop();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    for part in ["the access keys stay as they were: ", "the certificate stays as it was: ", "it is a FIFO"] {
        assert!(ended.stderr.contains(part), "`{part}` is missing: {}", ended.stderr);
    }
}

#[test]
fn a_certificate_that_clients_refuse_is_warned_of_at_the_start_and_when_it_is_renewed() {
    let directory = test_directory();
    let certificate = write(directory.path(), "certificate.pem", EXPIRED);
    let key = write(directory.path(), "key.pem", KEY);
    let files = ["--http-certificate", text(&certificate), "--http-key", text(&key)];
    let setup = Setup::new(directory.path().join("data")).with(&["--http", "127.0.0.1:0"]).with(&files);
    let node = setup.start();
    let warning = "certificate.pem expired at 2020-12-31T00:00:00Z, and clients refuse it";
    let line = node.banner.lines().find(|line| line.contains(warning));
    assert!(line.is_some_and(|line| line.contains("WARNING")), "{}", node.banner);
    assert!(Connection::open_tls(&node, EXPIRED).is_err(), "it has expired");
    fs::write(&certificate, CERTIFICATE).expect("writable");
    wait_for("the renewed one is in use", || Connection::open_tls(&node, CERTIFICATE).is_ok());
    fs::write(&certificate, EXPIRED).expect("writable");
    wait_for("the old one is back", || Connection::open_tls(&node, CERTIFICATE).is_err());
    let ended = node.stop();
    assert_eq!(ended.stderr.matches(warning).count(), 2, "at the start, and again: {}", ended.stderr);
    assert!(ended.stderr.contains("the changed certificate is in use"), "{}", ended.stderr);
}

#[test]
fn a_file_of_keys_that_is_none_is_answered_with_an_example() {
    let directory = test_directory();
    let keys = write(directory.path(), "keys.toml", "a:s\n");
    let setup = Setup::new(directory.path().join("data")).with(&[
        "--http",
        "127.0.0.1:0",
        "--access-keys",
        text(&keys),
    ]);
    let ended = setup.try_start().err().expect("it says no keys");
    let (_, example) = ended.stderr.trim().split_once("written like ").expect("an example");
    assert!(!ended.stderr.contains("struct "), "{}", ended.stderr);
    // What the error shows is a file of keys.
    fs::write(&keys, example).expect("writable");
    setup.start().stop();
    let help = crate::support::command::run(None, &["serve", "--help"], None).well();
    assert!(help.contains("[[keys]]") && help.contains("secret = \""), "{help}");
}

/// The broker's own files are read in the same way.
#[test]
fn a_fifo_in_the_place_of_a_file_of_the_data_directory_is_named() {
    for name in ["turbopump.toml", "secret"] {
        let directory = test_directory();
        let data = directory.path().join("data");
        Setup::new(&data).with(&["--http", "127.0.0.1:0"]).start().stop();
        let path = data.join(name);
        fs::remove_file(&path).expect("a start leaves it");
        fifo(&path);
        let ended =
            Setup::new(&data).with(&["--http", "127.0.0.1:0"]).try_start().err().expect("it is no file");
        assert!(ended.stderr.contains("a FIFO") && ended.stderr.contains(name), "{}", ended.stderr);
    }
}
