//! Who answers at an address: a client sends nothing to another broker than the one that its route is of.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::load::create_topic;
use crate::support::node::{Node, PATIENCE, Setup};

/// A broker that tells an address at which another one listens, as one in a container does.
fn two_at_one_address(directory: &std::path::Path, host: &str) -> (Node, Node) {
    let meant = directory.join("meant");
    let other = Setup::new(directory.join("other")).with(&["--listen", &format!("{host}:0")]).start();
    let port = other.address().rsplit(':').next().expect("a port").to_owned();
    let listen = format!("127.0.0.1:{port}");
    // The advertised host and its own port are the other's address.
    let meant = Setup::new(meant).with(&["--listen", &listen, "--advertise", host]).start();
    (meant, other)
}

fn end_of(node: &mut turbopump::client::Client, name: &str) -> u64 {
    let info = node.describe_topic(&name.parse().expect("a name")).expect("it exists");
    info.queues.iter().map(|queue| queue.end_offset.0).sum()
}

fn client_of(server: &str) -> turbopump::client::Client {
    let timeouts = turbopump::client::Timeouts::default();
    turbopump::client::Client::connect(server, timeouts).expect("the broker takes connections")
}

#[test]
fn lines_for_a_broker_are_not_stored_by_another_one_at_the_address_that_it_tells() {
    let directory = test_directory();
    let (meant, other) = two_at_one_address(directory.path(), "127.0.1.78");
    let port = other.address().rsplit(':').next().expect("a port");
    let server = format!("127.0.0.1:{port}");
    create_topic(&mut client_of(&server), "orders", 4);
    create_topic(&mut other.client(), "orders", 4);
    let lines: String = (1..=100).map(|number| format!("{number}\n")).collect();
    let produced = command::run(Some(&server), &["produce", "orders"], Some(lines.as_bytes()));
    let notice = produced.stderr.clone();
    produced.well();
    assert!(notice.contains("127.0.1.78") && notice.contains("--advertise"), "{notice}");
    assert_eq!(end_of(&mut other.client(), "orders"), 0, "the other broker has them");
    assert_eq!(end_of(&mut client_of(&server), "orders"), 100);
    let consumed = command::run(Some(&server), &["consume", "orders"], None);
    assert_eq!(consumed.well().lines().count(), 100);
    let bench = ["bench", "produce", "bench", "--duration", "1s", "--warmup", "0"];
    let benched = command::run(Some(&server), &bench, None);
    assert!(benched.stderr.contains("--advertise"), "{}", benched.stderr);
    let topics = other.run_well(&["topic", "list"]);
    assert!(!topics.contains("bench"), "{topics}");
    drop(meant);
}

#[test]
fn a_node_is_the_same_after_a_restart_and_no_other_one_is() {
    let directory = test_directory();
    let id = |node: &Node| {
        let status = node.run(&["status", "-o", "json"]).json();
        let id = status["node"].as_str().expect("a text").to_owned();
        assert!(id.len() == 32 && node.banner.contains(&id), "{id}: {}", node.banner);
        id
    };
    let node = Node::start(directory.path().join("one"));
    let first = id(&node);
    node.stop();
    let node = Node::start(directory.path().join("one"));
    assert_eq!(id(&node), first);
    assert_ne!(id(&Node::start(directory.path().join("other"))), first);
    // Whoever asks is told at once, and whoever does not ask is answered as by an earlier release.
    for (asks, bytes) in [(1, 32), (0, 8)] {
        let mut stream = TcpStream::connect(node.address()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
        stream.write_all(&[0xF5, b'T', b'P', b'N', 1, 0, asks, 0]).expect("it reads");
        // A frame that cannot be: the answer to it follows what was said first, and is the last.
        stream.write_all(&[0xFF; 16]).expect("it reads");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer[..8], [0xF5, b'T', b'P', b'N', 1, 0, asks, 0]);
        let said: String = answer[8..bytes]
            .chunks(8)
            .flat_map(|half| half.iter().rev())
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert!(said.is_empty() || said.starts_with(&first), "{said}");
        let frame_bytes = u32::from_le_bytes(answer[bytes..bytes + 4].try_into().expect("four bytes"));
        assert_eq!(answer.len() - bytes, frame_bytes as usize, "one frame and nothing else");
    }
}

fn verified(data: &str) -> (Option<i32>, String) {
    let verified = command::run(None, &["log", "verify", "--data", data], None);
    (verified.code, String::from_utf8_lossy(&verified.stdout).into_owned())
}

#[test]
fn a_secret_that_is_missing_is_made_anew_in_words_and_one_of_another_length_is_refused() {
    let directory = test_directory();
    let data = directory.path().to_str().expect("UTF-8");
    let node = Node::start(directory.path());
    assert!(!node.banner.contains("secret"), "{}", node.banner);
    let first = node.client().node();
    assert_eq!(node.stop().status.code(), Some(0));
    let file = directory.path().join("secret");
    let secret = std::fs::read(&file).expect("it was made");
    for odd in [&secret[..31], &[], &[7; 33]] {
        std::fs::write(&file, odd).expect("it can be written");
        let ended = Setup::new(directory.path()).try_start().err().expect("it is refused");
        let bytes = format!("has {} bytes, and must have 32", odd.len());
        for part in [file.to_str().expect("UTF-8"), &bytes, "remove it"] {
            assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
        }
        assert_eq!(std::fs::read(&file).expect("it is kept"), odd);
        let (code, told) = verified(data);
        assert!(
            code == Some(1) && told.contains("the next start refuses it") && told.contains(&bytes),
            "{told}"
        );
    }
    std::fs::remove_file(&file).expect("it is there");
    let (code, told) = verified(data);
    assert!(code == Some(1) && told.contains("it is missing") && told.contains("another node"), "{told}");
    let node = Node::start(directory.path());
    assert!(node.banner.contains("secret was missing, and is made anew"), "{}", node.banner);
    assert_ne!(node.client().node(), first);
    let told = node.stop().stderr;
    assert!(told.contains("secret was missing") && told.contains("receipt handles"), "{told}");
    std::fs::write(&file, secret).expect("it can be written");
    let node = Node::start(directory.path());
    assert_eq!(node.client().node(), first);
    assert!(!node.banner.contains("secret"), "{}", node.banner);
}

#[test]
fn a_wildcard_is_not_told_to_clients() {
    let directory = test_directory();
    let ended = Setup::new(directory.path()).with(&["--listen", "0.0.0.0:0"]).try_start();
    let ended = ended.err().expect("it is refused");
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains("--advertise"), "{}", ended.stderr);
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0, "nothing was made");
    let flags = ["--listen", "0.0.0.0:0", "--advertise", "localhost"];
    let ended = Setup::new(directory.path()).with(&flags).try_start();
    let ended = ended.err().expect("everybody on the network could do everything");
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    for part in ["--access-keys FILE", "--open-to-everybody"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    let flags = [&flags[..], &["--open-to-everybody"]].concat();
    let node = Setup::new(directory.path()).with(&flags).start();
    assert!(node.address().starts_with("localhost:"), "{}", node.banner);
    node.run_well(&["topic", "list"]);
}
