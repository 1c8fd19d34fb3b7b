//! Messages at the limit.

use turbopump::api::{Produce, Reply, Request, Status};
use turbopump::client::{ClientError, Connection, Message, Start, Timeouts};
use turbopump::limits::BODY_BYTES_MAX;
use turbopump::testing::Random;
use turbopump::types::{QueueKey, QueueNumber, Timestamp};
use turbopump::wire::batch::{BATCH_HEADER_BYTES, BatchBuilder, reseal};
use turbopump::wire::record::Record;

use crate::support::directory::test_directory;
use crate::support::load::{create_topic, producer, read, topic};
use crate::support::node::Node;

#[test]
fn a_message_of_four_mebibytes_comes_back_identical() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    create_topic(&mut node.client(), "large", 1);
    let largest = Random::new(1).bytes(BODY_BYTES_MAX);
    let mut producer = producer(&node, "large");
    producer.send(&Message { body: &largest, ..Message::default() }).expect("it is not too large");
    producer.send(&Message { body: b"", ..Message::default() }).expect("nor too small");
    producer.flush().expect("the broker answers");
    assert_eq!(producer.acknowledged_prefix(), 2);
    let stored = read(node.client(), "large", Some(0), Start::First);
    assert_eq!(stored.len(), 2);
    assert!(stored[0].body == largest, "4 MiB differ");
    assert_eq!(stored[1].body, b"");
    // From the disk as well.
    node.kill();
    let node = Node::start(directory.path());
    let stored = read(node.client(), "large", Some(0), Start::First);
    assert!(stored[0].body == largest, "4 MiB differ");
}

#[test]
fn one_byte_more_is_refused_by_the_client() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    create_topic(&mut node.client(), "large", 1);
    let mut producer = producer(&node, "large");
    let too_large = vec![7; BODY_BYTES_MAX + 1];
    let refused = producer.send(&Message { body: &too_large, ..Message::default() });
    match refused {
        Err(ClientError::Refused(failure)) => {
            assert_eq!(failure.status, Status::MessageTooLarge, "{failure}")
        }
        other => panic!("{other:?}"),
    }
    producer.send(&Message { body: b"small", ..Message::default() }).expect("the next one");
    producer.flush().expect("the broker answers");
    assert_eq!(producer.counters().acknowledged, 1);
}

/// A peer that builds its batches with other code.
#[test]
fn one_byte_more_is_refused_by_the_broker_and_the_connection_goes_on() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let mut client = node.client();
    create_topic(&mut client, "large", 1);
    let id = client.topic(&topic("large")).expect("it exists").id;
    let mut connection = Connection::connect(node.address(), Timeouts::default()).expect("it listens");
    let key = QueueKey { topic: id, queue: QueueNumber(0) };
    let send = |connection: &mut Connection, batch: Vec<u8>| {
        connection.call(&Request::Produce(Produce { key, level: None, batch: batch.into() }))
    };
    for _ in 0..3 {
        match send(&mut connection, batch_of(BODY_BYTES_MAX + 1)) {
            Err(ClientError::Refused(failure)) => {
                assert_eq!(failure.status, Status::MessageTooLarge, "{failure}");
            }
            other => panic!("{other:?}"),
        }
        let stored = send(&mut connection, batch_of(5)).expect("a small one");
        assert!(matches!(stored, Reply::Produced(_)), "{stored:?}");
    }
    assert_eq!(read(client, "large", Some(0), Start::First).len(), 3);
}

/// A batch of one message, whose body may be one byte larger than what this library makes.
fn batch_of(body_bytes: usize) -> Vec<u8> {
    let body = vec![7; body_bytes.min(BODY_BYTES_MAX)];
    let mut builder = BatchBuilder::new(Timestamp(1));
    builder.push(&Record { body: &body, ..Record::default() });
    let mut batch = builder.finish();
    if body_bytes > BODY_BYTES_MAX {
        batch.push(7);
        let batch_bytes = batch.len() as u32;
        let record_bytes = batch_bytes - BATCH_HEADER_BYTES as u32;
        // The byte maps of `wire::batch` and `wire::record`.
        let lengths = [
            (8, batch_bytes),
            (BATCH_HEADER_BYTES, record_bytes),
            (BATCH_HEADER_BYTES + 4, body_bytes as u32),
        ];
        for (place, length) in lengths {
            batch[place..place + 4].copy_from_slice(&length.to_le_bytes());
        }
        reseal(&mut batch, Timestamp(1));
    }
    batch
}

/// A batch says when its messages were born, and readers count that in signed milliseconds.
#[test]
fn a_birth_that_is_no_time_is_refused() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let mut client = node.client();
    create_topic(&mut client, "orders", 1);
    let id = client.topic(&topic("orders")).expect("it exists").id;
    let key = QueueKey { topic: id, queue: QueueNumber(0) };
    let mut send = |born_ms| {
        let mut builder = BatchBuilder::new(Timestamp(born_ms));
        builder.push(&Record { body: b"x", ..Record::default() });
        client.call(&Request::Produce(Produce { key, level: None, batch: builder.finish().into() }))
    };
    for born_ms in [1 << 63, u64::MAX] {
        match send(born_ms) {
            Err(ClientError::Refused(failure)) => {
                assert_eq!(failure.status, Status::InvalidArgument, "{failure}");
                assert!(failure.message.contains("no time"), "{failure}");
            }
            other => panic!("it was taken: {other:?}"),
        }
    }
    for born_ms in [0, (1 << 63) - 1] {
        send(born_ms).expect("it is a time");
    }
    assert_eq!(read(node.client(), "orders", Some(0), Start::First).len(), 2);
}
