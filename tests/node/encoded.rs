//! Bodies that a producer compressed, as RocketMQ's own clients do: everybody else gets them as they were before.

use std::io::Write;

use turbopump::api::{Produce, Reply, Request};
use turbopump::client::{Connection as Native, Timeouts};
use turbopump::types::{QueueKey, QueueNumber, Timestamp};
use turbopump::wire::batch::BatchBuilder;
use turbopump::wire::origin::{Attributes, BodyEncoding, Origin};
use turbopump::wire::record::Record;

use crate::support::directory::test_directory;
use crate::support::http_connection::Connection;
use crate::support::node::{Node, Setup};

const MIB: usize = 1 << 20;

fn start(directory: &tempfile::TempDir) -> Node {
    let node = Setup::new(directory.path()).with(&["--shards", "1", "--http", "127.0.0.1:0"]).start();
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    node
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).expect("writing into memory");
    encoder.finish().expect("writing into memory")
}

/// Stores bodies that are said to be zlib, each as a message of one batch.
fn store(node: &Node, bodies: &[Vec<u8>]) {
    let id = node.client().topic(&"orders".parse().expect("a name")).expect("it exists").id;
    let mut builder = BatchBuilder::new(Timestamp(1));
    let attributes = Attributes { encoding: BodyEncoding::Zlib, committed: false };
    let origin = Some(Origin::new(7, 3, "10.1.2.3:4000".parse().expect("an address")));
    for body in bodies {
        builder.push(&Record { body, attributes, origin, ..Record::default() });
    }
    let key = QueueKey { topic: id, queue: QueueNumber(0) };
    let produce = Produce { key, level: None, batch: builder.finish().into() };
    let mut connection = Native::connect(node.address(), Timeouts::default()).expect("it listens");
    let reply = connection.call(&Request::Produce(produce)).expect("stored");
    assert!(matches!(reply, Reply::Produced(_)), "{reply:?}");
}

fn receive(connection: &mut Connection, count: usize) -> String {
    connection.send(format!(
        "GET /topics/orders/messages?consumer=g&numOfMessages={count} HTTP/1.1\r\nHost: h\r\n\r\n"
    ));
    connection.next().expect("an answer").body
}

#[test]
fn whoever_reads_gets_the_body_as_it_was_before_it_was_compressed() {
    let directory = test_directory();
    let node = start(&directory);
    store(&node, &[zlib(b"three apples")]);
    let answer = receive(&mut Connection::open(&node), 1);
    assert!(answer.contains("<MessageBody>three apples</MessageBody>"), "{answer}");
    assert_eq!(node.run_well(&["consume", "orders", "--count", "1"]), "three apples\n");
    let json = node.run_well(&["consume", "orders", "--count", "1", "-o", "json"]);
    assert!(json.contains("\"body\":\"three apples\"") && !json.contains("unreadable"), "{json}");
    node.stop();
    let data = directory.path().to_str().expect("a path in UTF-8");
    let dump = crate::support::command::run(None, &["log", "dump", "--data", data, "--records"], None).well();
    for part in ["encoding=zlib", "born=10.1.2.3:4000 flag=7 deliveries_before=3", "three apples"] {
        assert!(dump.contains(part), "no {part} in {dump}");
    }
}

/// Sixteen small messages are 64 MiB once they are inflated: an answer has room for one of them.
#[test]
fn what_is_too_large_for_one_answer_comes_with_the_next_ones() {
    let directory = test_directory();
    let node = start(&directory);
    let bodies: Vec<_> = (b'a'..b'e').map(|letter| zlib(&vec![letter; 3 * MIB])).collect();
    store(&node, &bodies);
    let mut connection = Connection::open(&node);
    let mut seen = Vec::new();
    for _ in 0..bodies.len() {
        let answer = receive(&mut connection, 16);
        assert!(answer.len() < 4 * MIB, "{} bytes", answer.len());
        assert_eq!(answer.matches("<MessageBody>").count(), 1);
        let at = answer.find("<MessageBody>").expect("just counted") + "<MessageBody>".len();
        seen.push(answer.as_bytes()[at]);
    }
    seen.sort_unstable();
    assert_eq!(seen, b"abcd");
}

#[test]
fn a_body_that_is_not_what_it_says_or_too_large_keeps_nothing_else_away() {
    let directory = test_directory();
    let node = start(&directory);
    store(&node, &[b"no zlib".to_vec(), zlib(&vec![0; 5 * MIB]), zlib(b"three apples")]);
    let answer = receive(&mut Connection::open(&node), 16);
    assert_eq!(answer.matches("<MessageBody>").count(), 1, "{answer}");
    assert!(answer.contains("three apples"), "{answer}");
    let json = node.run_well(&["consume", "orders", "--count", "1", "-o", "json"]);
    assert!(json.contains("\"body\":\"no zlib\"") && json.contains("body_unreadable"), "{json}");
    let ended = node.stop();
    assert!(ended.stderr.contains("is given to nobody over HTTP"), "{}", ended.stderr);
}
