//! Starts that cannot be: each ends at once, with one sentence that says what to type.

use std::net::TcpListener;

use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::node::{Node, Setup};

/// The start must fail with this exit code, and its sentence must have these parts.
fn check(setup: &Setup, code: i32, parts: &[&str]) {
    let ended = match setup.try_start() {
        Ok(_) => panic!("{setup:?} starts"),
        Err(ended) => ended,
    };
    assert_eq!(ended.status.code(), Some(code), "{setup:?}: {}", ended.stderr);
    for part in parts {
        assert!(ended.stderr.contains(part), "{setup:?}: `{part}` is missing: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked"), "{setup:?}: {}", ended.stderr);
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_chose_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let directory = test_directory();
    let data = directory.path().join("data");
    for flag in ["--listen", "--node-listen", "--http", "--namesrv", "--admin"] {
        let setup = Setup::new(&data).with(&[flag, &address]);
        check(&setup, 1, &[&address, "in use by another program", &format!("another address with {flag}")]);
        assert!(!data.exists(), "{flag}: a start that is refused makes no directory");
    }
    drop(Node::start(&data));
}

/// Sockets of one user that share a port would each get some of the connections, unseen.
#[test]
fn two_brokers_do_not_share_a_node_wide_port() {
    let (one, other) = (test_directory(), test_directory());
    let node = Setup::new(one.path()).with(&["--node-listen", "127.0.0.1:0"]).start();
    let address = node.node_address.clone().expect("it was asked for");
    assert!(!address.ends_with(":0"), "the port is told: {}", node.banner);
    let setup = Setup::new(other.path()).with(&["--node-listen", &address]);
    check(&setup, 1, &[&address, "in use by another program", "--node-listen"]);
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let directory = test_directory();
    // Reserved for documentation (RFC 5737).
    let setup = Setup::new(directory.path()).with(&["--listen", "192.0.2.1:10911", "--open-to-everybody"]);
    check(&setup, 1, &["192.0.2.1:10911", "none of this machine's addresses", "--listen"]);
}

#[test]
fn a_data_directory_belongs_to_one_process() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let path = directory.path().to_str().expect("UTF-8");
    check(&Setup::new(directory.path()), 1, &[path, "in use by another turbopump process", "--data"]);
    node.kill();
    Node::start(directory.path());
}

#[test]
fn a_directory_of_a_newer_release_is_left_alone() {
    let directory = test_directory();
    Node::start(directory.path()).stop();
    let description = directory.path().join("turbopump.toml");
    std::fs::write(&description, "format = 99\nshards = 1\nsomething-new = true\n").expect("written");
    check(&Setup::new(directory.path()), 1, &["made by a newer release (format 99", "--data"]);
    let kept = std::fs::read_to_string(&description).expect("readable");
    assert!(kept.contains("something-new"), "{kept}");
}

#[test]
fn a_directory_keeps_its_number_of_shards() {
    let directory = test_directory();
    Setup::new(directory.path()).with(&["--shards", "2"]).start().stop();
    let setup = Setup::new(directory.path()).with(&["--shards", "3"]);
    check(&setup, 1, &["made with 2 shards", "leave --shards 3 out"]);
    Setup::new(directory.path()).with(&["--shards", "2"]).start();
}

#[test]
fn a_directory_with_other_things_in_it_is_not_taken() {
    let directory = test_directory();
    std::fs::write(directory.path().join("thesis.txt"), "years of work").expect("written");
    check(&Setup::new(directory.path()), 1, &["no turbopump data directory, and not empty", "--data"]);
    let file = directory.path().join("thesis.txt");
    check(&Setup::new(&file), 1, &["thesis.txt"]);
}

#[test]
fn a_core_that_is_not_there_is_named_with_those_that_are() {
    let directory = test_directory();
    let setup = Setup::new(directory.path()).with(&["--cores", "1000"]);
    check(&setup, 1, &["core 1000 does not exist", "choose from [0", "--cores"]);
}

#[test]
fn an_unknown_key_of_the_configuration_is_named_with_its_line() {
    let directory = test_directory();
    let file = directory.path().join("turbopump.conf");
    let data = directory.path().join("data");
    std::fs::write(&file, "level = \"written\"\nshard = 2\n").expect("written");
    let setup = Setup::new(&data).with(&["--config", file.to_str().expect("UTF-8")]);
    check(&setup, 2, &["turbopump.conf: line 2: unknown field `shard`", "shards"]);
    std::fs::write(&file, "level = \"written\"\nshards = 2\n").expect("written");
    let node = setup.start();
    assert!(node.banner.contains("written: on the device"), "{}", node.banner);
    assert_eq!(node.addresses.len(), 2);
}

#[test]
fn flags_that_make_no_sense_are_refused_before_anything_is_made() {
    let directory = test_directory();
    let data = directory.path().join("data");
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--shards", "0"], &["--shards is 1 to 256, not 0"]),
        (&["--shards", "many"], &["many", "--shards"]),
        (&["--level", "safe"], &["`safe` is no durability level", "durable, written or accepted"]),
        (&["--segment-bytes", "4KiB"], &["--segment-bytes is", "not 4096"]),
        (&["--retention-bytes", "16MiB"], &["--retention-bytes is at least two segments"]),
        (&["--listen", "somewhere"], &["somewhere", "--listen"]),
        (&["--listen", "127.0.0.1:65530", "--shards", "2"], &["leaves no room for 2 shards"]),
        (&["--cores", "0,0"], &["names core 0 twice"]),
        (&["--advertise", "host:10911"], &["--advertise is the host name"]),
    ];
    for (flags, parts) in cases {
        check(&Setup::new(&data).with(flags), 2, parts);
        assert!(!data.exists(), "{flags:?} made a directory");
    }
    let sentence = command::run(None, &["serve"], None).badly(2);
    assert!(sentence.contains("--data DIR"), "{sentence}");
    command::run(None, &["serve", "--data", "x", "--fast"], None).badly(2);
}
