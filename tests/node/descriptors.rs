//! A process that may have only a few files open.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use turbopump::client::{Client, Message, Producer, Start, Timeouts};

use crate::support::directory::{files_with, test_directory};
use crate::support::http_connection::{Connection as HttpConnection, GET};
use crate::support::load::{create_topic, produce, producer, read};
use crate::support::node::{Node, Setup, wait_for};

const BODY_BYTES: usize = 1 << 20;
/// Messages of that size that more than fill a segment.
const PER_SEGMENT: usize = 16;

fn feed(node: &Node, count: usize) {
    let body = vec![b'x'; BODY_BYTES];
    produce(node, "orders", 0, (0..count).map(|_| &body[..]));
}

fn publish(publisher: &mut Producer, count: usize) {
    let body = vec![b'x'; BODY_BYTES];
    for _ in 0..count {
        publisher.send(&Message { body: &body, ..Message::default() }).expect("the broker takes it");
    }
    publisher.flush().expect("the broker answers");
    assert_eq!(publisher.first_failure(), None, "everything is acknowledged");
}

fn open_descriptors(node: &Node) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", node.process())).expect("it runs");
    entries.count()
}

#[test]
fn what_is_stored_takes_no_descriptors() {
    const LIMIT: usize = 64;
    const SEGMENTS: usize = 36;
    let directory = test_directory();
    let setup = Setup::new(directory.path()).with_open_files(LIMIT);
    let node = setup.start();
    create_topic(&mut node.client(), "orders", 1);
    feed(&node, SEGMENTS * PER_SEGMENT);
    assert!(files_with(directory.path(), ".segment").len() > SEGMENTS);
    let most = open_descriptors(&node);
    assert!(most < LIMIT - 16, "{most} open");
    node.kill();
    let node = setup.start();
    let messages = read(node.client(), "orders", Some(0), Start::First);
    assert_eq!(messages.len(), SEGMENTS * PER_SEGMENT);
    assert!(messages.iter().all(|message| message.body.len() == BODY_BYTES));
    assert!(open_descriptors(&node) < LIMIT - 16);
    feed(&node, PER_SEGMENT);
    assert!(node.banner.contains("the limit of open files is 64"), "{}", node.banner);
    let told = node.stop().stderr;
    assert!(told.contains("the limit of open files is 64"), "nothing on standard error: {told}");
}

#[test]
fn a_limit_that_is_too_low_is_refused_at_the_start() {
    let directory = test_directory();
    let ended = Setup::new(directory.path()).with_open_files(32).try_start().err().expect("it is too low");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the limit of open files is 32, and"), "{}", ended.stderr);
    assert!(ended.stderr.contains("ulimit -n 65536"), "{}", ended.stderr);
}

#[test]
fn idle_connections_leave_the_log_its_descriptors_and_those_beyond_are_told() {
    const LIMIT: usize = 96;
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0"]).with_open_files(LIMIT).start();
    create_topic(&mut node.client(), "orders", 1);
    let mut publisher = producer(&node, "orders");
    publish(&mut publisher, 1);
    let idle: Vec<_> =
        (0..LIMIT).map(|_| TcpStream::connect(node.address()).expect("the system takes it")).collect();
    wait_for("those beyond are closed", || idle.iter().any(has_ended));
    let refused = Client::connect(node.address(), Timeouts::default())
        .and_then(|mut client| client.describe_node(false));
    let reason = refused.expect_err("there is no room").to_string();
    assert!(reason.contains("no descriptors left for more connections"), "{reason}");
    // An HTTP connection needs half as much, so one may still be let in.
    let answers: Vec<_> = (0..3)
        .map(|_| {
            let mut connection = HttpConnection::open(&node);
            connection.send(GET);
            (connection.next(), connection)
        })
        .collect();
    let answer = answers.iter().filter_map(|(answer, _)| answer.as_ref()).find(|answer| answer.status == 503);
    let body = &answer.expect("one of them is told").body;
    assert!(body.contains("no descriptors left for more connections"), "{body}");
    // Several segments further on.
    publish(&mut publisher, 3 * PER_SEGMENT);
    drop((idle, answers));
    wait_for("there is room again", || Client::connect(node.address(), Timeouts::default()).is_ok());
    let told = node.stop().stderr;
    assert!(told.contains("a connection was closed at once: the broker has no descriptors left"), "{told}");
}

/// Whether the broker has ended the connection.
fn has_ended(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
    let mut bytes = [0; 1024];
    stream.read(&mut bytes).is_ok()
}
