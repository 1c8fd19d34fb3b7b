//! From start to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use turbopump::client::{Message, Start};
use turbopump::types::QueueNumber;

use crate::support::directory::test_directory;
use crate::support::load::{create_topic, produce, producer, read};
use crate::support::node::{Node, PATIENCE, Setup};

/// The whole of a stop.
const STOP_MAX: Duration = Duration::from_secs(5);

#[test]
fn a_start_says_what_listens_where_and_how_safe_answers_are() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2", "--cores", "0"]).start();
    for part in [
        "made ",
        "shard 0 on core 0 listens on 127.0.0.1:",
        "shard 1 on core 0 listens on 127.0.0.1:",
        "durable: written and flushed",
        "the device writes and flushes 4 KiB in",
    ] {
        assert!(node.banner.contains(part), "`{part}` is missing: {}", node.banner);
    }
    assert_eq!(node.stop().status.code(), Some(0));
    let again = Setup::new(directory.path()).start();
    assert!(again.banner.contains("opened "), "{}", again.banner);
}

/// Another program has the port: this test, or whoever else was there before it.
#[test]
fn a_usual_address_that_is_taken_is_left_out_and_named() {
    let directory = test_directory();
    let _taken = std::net::TcpListener::bind("127.0.0.1:8080");
    let node = Setup::new(directory.path()).with_usual_addresses().start();
    let warning = "  WARNING: HTTP is left out: 127.0.0.1:8080 is in use by another program";
    assert!(node.banner.contains(warning) && node.banner.contains("--http"), "{}", node.banner);
    assert_eq!(node.http_address, None);
    create_topic(&mut node.client(), "orders", 1);
    node.stop();
}

#[test]
fn an_address_that_was_asked_for_and_is_taken_is_an_error() {
    let directory = test_directory();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let refused = Setup::new(directory.path()).with(&["--http", &address]).try_start();
    let refused = refused.err().expect("the address is taken");
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains(&address) && refused.stderr.contains("--http"), "{}", refused.stderr);
}

#[test]
fn a_start_says_whether_it_is_reached_by_what_clients_are_told() {
    let directory = test_directory();
    let setup = Setup::new(directory.path());
    let node = setup.clone().with(&["--advertise", "localhost"]).start();
    assert!(node.banner.contains("clients are told localhost, and from this machine"), "{}", node.banner);
    node.stop();
    let node = setup.with(&["--advertise", "nobody.invalid"]).start();
    let warning = "  WARNING: clients are told that shard 0 listens on nobody.invalid:";
    assert!(node.banner.contains(warning), "{}", node.banner);
    node.stop();
}

/// glommio asks the first file whether its device can be polled, and takes a hole's answer for the device's. A copied
/// directory may have one there.
#[test]
fn a_hole_in_place_of_the_probe_does_not_keep_a_broker_from_starting() {
    let directory = test_directory();
    Setup::new(directory.path()).start().stop();
    let probe = directory.path().join("probe");
    let bytes = std::fs::metadata(&probe).expect("a start leaves it").len();
    let file = std::fs::File::create(&probe).expect("a new file");
    file.set_len(bytes).expect("a hole");
    drop(file);
    let again = Setup::new(directory.path()).start();
    create_topic(&mut again.client(), "orders", 1);
    again.stop();
}

/// glommio opened relative directories below descriptor -1.
#[test]
fn a_relative_data_directory_is_one_below_the_working_directory() {
    let directory = test_directory();
    let setup = Setup::new("data").in_directory(directory.path());
    let node = setup.start();
    create_topic(&mut node.client(), "orders", 1);
    node.stop();
    assert!(directory.path().join("data/turbopump.toml").is_file());
    let node = setup.start();
    assert!(node.run_well(&["topic", "list"]).contains("orders"));
}

#[test]
fn sigterm_under_load_keeps_everything_that_was_acknowledged() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    create_topic(&mut node.client(), "orders", 1);
    let mut producer = producer(&node, "orders");
    let stopping = AtomicBool::new(false);
    let (loaded, under_load) = mpsc::channel();
    let (sent, acknowledged, ended) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut sent = 0_u64;
            while !stopping.load(Ordering::Relaxed) {
                let body = sent.to_le_bytes();
                let message = Message { body: &body, queue: Some(QueueNumber(0)), ..Message::default() };
                if producer.send(&message).is_err() {
                    break;
                }
                sent += 1;
                if sent == 20_000 {
                    loaded.send(()).expect("the test waits for it");
                }
            }
            (sent, producer.acknowledged_prefix())
        });
        under_load.recv_timeout(PATIENCE).expect("messages are taken");
        let ended = node.stop();
        stopping.store(true, Ordering::Relaxed);
        let (sent, acknowledged) = load.join().expect("the load ends");
        (sent, acknowledged, ended)
    });
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.took < STOP_MAX, "{:?}", ended.took);
    assert!(acknowledged > 0);
    let node = Node::start(directory.path());
    assert!(!node.banner.contains("cut off"), "a stop leaves a whole log: {}", node.banner);
    let stored = read(node.client(), "orders", Some(0), Start::First);
    assert!(stored.len() as u64 >= acknowledged, "{} of {acknowledged}", stored.len());
    assert!(stored.len() as u64 <= sent, "{} of {sent}", stored.len());
    for (number, message) in (0_u64..).zip(&stored) {
        assert_eq!((message.offset, &message.body[..]), (number, &number.to_le_bytes()[..]));
    }
}

#[test]
fn control_c_stops_a_broker_with_idle_connections_and_waiting_fetches() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let mut client = node.client();
    create_topic(&mut client, "orders", 2);
    produce(&node, "orders", 0, [&b"first"[..]]);
    let following = crate::support::command::spawn(
        Some(node.address()),
        &["consume", "orders", "--follow", "--group", "readers"],
        false,
    );
    wait_for_members(&node, 1);
    let told = Instant::now();
    node.signal(Signal::INT);
    let ended = node.stop();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(told.elapsed() < STOP_MAX, "{:?}", told.elapsed());
    stop_command(following);
}

#[test]
fn a_broker_that_is_told_to_stop_while_it_starts_does_so() {
    let directory = test_directory();
    for pause_ms in [5, 30, 60, 90, 120, 150, 180, 210] {
        let mut child = crate::support::command::spawn(
            None,
            &[
                "serve",
                "--data",
                directory.path().to_str().expect("UTF-8"),
                "--listen",
                "127.0.0.1:0",
                "--http",
                "none",
            ],
            false,
        );
        // Not to wait for something, but to meet the start at one of its steps.
        std::thread::sleep(Duration::from_millis(pause_ms));
        let process = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(process, Signal::TERM).expect("it is ours");
        let deadline = Instant::now() + STOP_MAX;
        while child.try_wait().expect("it is ours").is_none() {
            if Instant::now() > deadline {
                child.kill().expect("it is ours");
                panic!("the signal after {pause_ms} ms was lost");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Node::start(directory.path());
}

/// Waits until the group `readers` has this many members.
pub fn wait_for_members(node: &Node, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let described = node.run(&["group", "describe", "readers", "-o", "json"]);
        if described.code == Some(0) && described.json()["members"].as_array().map(Vec::len) == Some(count) {
            return;
        }
        assert!(Instant::now() < deadline, "no {count} members");
    }
}

/// Ends a command that would go on for ever.
pub fn stop_command(mut child: std::process::Child) {
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
}
