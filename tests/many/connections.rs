//! A thousand connections that say nothing, or wait for messages.

use std::time::{Duration, Instant};

use turbopump::client::{Connection, Message, Timeouts};

use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection as HttpConnection, GET};
use crate::support::load::{create_topic, produce, producer};
use crate::support::machine::{cpu_time, report, resident_bytes, scale};
use crate::support::node::{Node, Setup};

const MIB: u64 = 1 << 20;
/// How long the broker is watched.
const WATCH: Duration = Duration::from_secs(5);

#[test]
fn idle_connections_cost_neither_time_nor_much_memory() {
    let count = scale("TURBOPUMP_MANY_CONNECTIONS", 1000);
    let directory = test_directory();
    let node = Node::start(directory.path());
    create_topic(&mut node.client(), "quiet", 4);
    let before = resident_bytes(node.process());
    let open = || Connection::connect(node.address(), Timeouts::default()).expect("the broker takes it");
    let connections: Vec<_> = (0..count).map(|_| open()).collect();
    let after = resident_bytes(node.process());
    // The index, a snapshot and the zeroing of segments settle first.
    let settled = Instant::now();
    while settled.elapsed() < WATCH {
        std::thread::sleep(Duration::from_millis(100));
    }
    let share = busy_share(&node);
    report(&format!(
        "{count} idle connections: {:.2} % of a core, {} KiB each, {} MiB resident",
        share * 100.0,
        after.saturating_sub(before) / 1024 / count,
        after / MIB
    ));
    assert!(share < 0.05, "{share} of a core");
    assert!(after.saturating_sub(before) < count * 64 * 1024, "{before} to {after} bytes");
    let mut producer = producer(&node, "quiet");
    producer.send(&Message { body: b"still there", ..Message::default() }).expect("the broker takes it");
    producer.flush().expect("the broker answers");
    assert_eq!(producer.acknowledged_prefix(), 1);
    drop(connections);
}

/// Of one core, while it is watched.
fn busy_share(node: &Node) -> f64 {
    let idle_from = cpu_time(node.process());
    let watched = Instant::now();
    std::thread::sleep(WATCH);
    let spent = cpu_time(node.process()) - idle_from;
    spent.as_secs_f64() / watched.elapsed().as_secs_f64()
}

/// Each waits for messages of a group of its own, so that nothing but the wait can answer it.
#[test]
fn clients_that_wait_over_http_cost_next_to_no_time() {
    let count = scale("TURBOPUMP_MANY_CONNECTIONS", 1000);
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0", "--shards", "1"]).start();
    create_topic(&mut node.client(), "orders", 4);
    let before = resident_bytes(node.process());
    let wait = |connection: &mut HttpConnection, index: u64| {
        connection.send(GET.replace("consumer=g", &format!("consumer=g{index}&waitseconds=30")));
    };
    let mut connections: Vec<_> = (0..count).map(|_| HttpConnection::open(&node)).collect();
    // The first wait makes the group; nobody has to wait for its end.
    produce(&node, "orders", 0, [&b"first"[..]]);
    for (index, connection) in connections.iter_mut().enumerate() {
        wait(connection, index as u64);
    }
    for (index, connection) in connections.iter_mut().enumerate() {
        assert_eq!(connection.next().expect("an answer").status, 200);
        wait(connection, index as u64);
    }
    let after = resident_bytes(node.process());
    std::thread::sleep(WATCH);
    let share = busy_share(&node);
    report(&format!(
        "{count} clients waiting over HTTP: {:.2} % of a core, {} KiB each",
        share * 100.0,
        after.saturating_sub(before) / 1024 / count,
    ));
    assert!(share < 0.05, "{share} of a core");
    // And all of them are still there: one message answers every group.
    let sent = Instant::now();
    produce(&node, "orders", 0, [&b"second"[..]]);
    for connection in &mut connections {
        let answer = connection.next().expect("an answer");
        assert!(answer.status == 200 && answer.body.contains("second"), "{}{}", answer.head, answer.body);
    }
    report(&format!("one message for {count} waiting groups: answered within {:?}", sent.elapsed()));
}
