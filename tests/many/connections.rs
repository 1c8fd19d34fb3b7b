//! A thousand connections that say nothing.

use std::time::{Duration, Instant};

use turbopump::client::{Connection, Message, Timeouts};

use crate::support::directory::test_directory;
use crate::support::load::{create_topic, producer};
use crate::support::machine::{cpu_time, report, resident_bytes, scale};
use crate::support::node::Node;

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
    let idle_from = cpu_time(node.process());
    let watched = Instant::now();
    std::thread::sleep(WATCH);
    let spent = cpu_time(node.process()) - idle_from;
    let share = spent.as_secs_f64() / watched.elapsed().as_secs_f64();
    report(&format!(
        "{count} idle connections: {:.2} % of a core, {} KiB each, {} MiB resident",
        share * 100.0,
        after.saturating_sub(before) / 1024 / count,
        after / MIB
    ));
    assert!(share < 0.05, "{spent:?} in {WATCH:?}");
    assert!(after.saturating_sub(before) < count * 64 * 1024, "{before} to {after} bytes");
    let mut producer = producer(&node, "quiet");
    producer.send(&Message { body: b"still there", ..Message::default() }).expect("the broker takes it");
    producer.flush().expect("the broker answers");
    assert_eq!(producer.acknowledged_prefix(), 1);
    drop(connections);
}
