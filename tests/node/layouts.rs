//! Shards, cores and addresses.

use std::time::Duration;

use turbopump::api::{CommitOffset, Fetch, Produce, Reply, Request};
use turbopump::client::{Client, Connection, Message, Start, Timeouts};
use turbopump::types::{QueueKey, QueueNumber, QueueOffset, Timestamp};
use turbopump::wire::batch::BatchBuilder;
use turbopump::wire::record::Record;

use crate::support::directory::test_directory;
use crate::support::load::{bounds, create_topic, producer, read, topic};
use crate::support::machine::available_cores;
use crate::support::node::{Node, Setup};

const QUEUES: u32 = 8;

/// Adds `count` numbered messages to every queue.
fn feed(node: &Node, from: u64, count: u64) {
    let mut producer = producer(node, "orders");
    for number in from..from + count {
        for queue in 0..QUEUES {
            let body = format!("{queue}/{number}");
            let queue = Some(QueueNumber(queue));
            producer
                .send(&Message { body: body.as_bytes(), queue, ..Message::default() })
                .expect("the broker takes it");
        }
    }
    producer.flush().expect("the broker answers");
    assert_eq!(producer.acknowledged_prefix(), count * u64::from(QUEUES));
}

/// Every queue has the messages 0 to `count`, read over this client.
fn check(client: &Client, count: u64) {
    for queue in 0..QUEUES {
        let client = client.another().expect("the broker takes connections");
        let messages = read(client, "orders", Some(queue), Start::First);
        let bodies: Vec<_> = messages.iter().map(|message| String::from_utf8_lossy(&message.body)).collect();
        let expected: Vec<_> = (0..count).map(|number| format!("{queue}/{number}")).collect();
        assert_eq!(bodies, expected);
    }
}

#[test]
fn four_shards_run_on_any_number_of_cores() {
    let directory = test_directory();
    let cores = available_cores();
    let first = cores[0].to_string();
    let two = cores.iter().take(2).map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut stored = 0;
    for cores in [&first, &two, &first, &two] {
        let new: &[&str] = if stored == 0 { &["--shards", "4"] } else { &[] };
        let node = Setup::new(directory.path()).with(&["--cores", cores]).with(new).start();
        assert_eq!(node.addresses.len(), 4, "{}", node.banner);
        if stored == 0 {
            create_topic(&mut node.client(), "orders", QUEUES);
        }
        check(&node.client(), stored);
        feed(&node, stored, 100);
        stored += 100;
        check(&node.client(), stored);
        // One way to end after the other.
        if stored.is_multiple_of(200) {
            node.kill();
        } else {
            assert_eq!(node.stop().status.code(), Some(0));
        }
    }
}

#[test]
fn every_address_takes_requests_for_every_queue() {
    let directory = test_directory();
    let flags = ["--shards", "4", "--node-listen", "127.0.0.1:0"];
    let node = Setup::new(directory.path()).with(&flags).start();
    let mut client = node.client();
    create_topic(&mut client, "orders", QUEUES);
    let id = client.topic(&topic("orders")).expect("it exists").id;
    let node_address = node.node_address.clone().expect("it was asked for");
    let addresses: Vec<_> = node.addresses.iter().chain([&node_address]).collect();
    for (round, address) in (0..).zip(&addresses) {
        let mut connection = Connection::connect(address, Timeouts::default()).expect("it listens");
        for queue in 0..QUEUES {
            let key = QueueKey { topic: id, queue: QueueNumber(queue) };
            let mut builder = BatchBuilder::new(Timestamp(1));
            builder.push(&Record { body: address.as_bytes(), ..Record::default() });
            let produce = Produce { key, level: None, batch: builder.finish().into() };
            match connection.call(&Request::Produce(produce)).expect("stored") {
                Reply::Produced(produced) => assert_eq!(produced.base_offset, QueueOffset(round)),
                other => panic!("{other:?}"),
            }
            let wait = Duration::from_secs(1);
            let fetch = Fetch {
                session: 0,
                key,
                offset: QueueOffset(round),
                bytes_max: 1 << 20,
                records_max: 10,
                wait,
            };
            match connection.call(&Request::Fetch(fetch)).expect("it is there") {
                Reply::Fetched(fetched) => {
                    assert_eq!(fetched.next_offset, QueueOffset(round + 1));
                    assert!(!fetched.batches.is_empty());
                }
                other => panic!("{other:?}"),
            }
            let group: turbopump::types::GroupName = "readers".parse().expect("a name");
            let offset = QueueOffset(round + 1);
            let commit = CommitOffset { group: group.clone(), key, offset, member: None };
            let commit = Request::CommitOffset(commit);
            connection.call(&commit).expect("committed");
            let asked = connection.call(&Request::CommittedOffset { group, key }).expect("it is known");
            assert_eq!(asked, Reply::Offset(Some(QueueOffset(round + 1))));
        }
        let topics = connection.call(&Request::ListTopics).expect("any shard knows them");
        assert!(matches!(topics, Reply::Topics(topics) if topics.len() == 1));
    }
}

#[test]
fn a_topic_can_be_made_and_used_through_any_address() {
    let directory = test_directory();
    let flags = ["--shards", "3", "--node-listen", "127.0.0.1:0"];
    let node = Setup::new(directory.path()).with(&flags).start();
    let node_address = node.node_address.clone().expect("it was asked for");
    for (number, address) in (0..).zip(node.addresses.iter().chain([&node_address])) {
        let mut client = Client::connect(address, Timeouts::default()).expect("it listens");
        let name = format!("topic-{number}");
        create_topic(&mut client, &name, 6);
        assert_eq!(bounds(&mut client, &name, 5), (QueueOffset(0), QueueOffset(0)));
        assert_eq!(client.list_topics().expect("a list").len(), number + 1);
    }
}

/// Clients behind a port forwarding or a wrong name still get through, by one address.
#[test]
fn clients_that_reach_one_address_only_are_forwarded() {
    let directory = test_directory();
    // Nothing listens on the advertised address.
    let flags = ["--shards", "3", "--advertise", "127.0.0.7"];
    let listening = Setup::new(directory.path()).with(&flags).with(&["--node-listen", "127.0.0.1:0"]).start();
    let address = listening.node_address.clone().expect("it was asked for");
    let mut client = Client::connect(&address, Timeouts::default()).expect("it listens");
    assert!(client.shards().all(|shard| shard.address.starts_with("127.0.0.7:")));
    create_topic(&mut client, "orders", QUEUES);
    let options = turbopump::client::ProducerOptions::default();
    let mut producer =
        turbopump::client::Producer::new(client, topic("orders"), options).expect("the topic exists");
    for number in 0..50 {
        for queue in 0..QUEUES {
            let body = format!("{queue}/{number}");
            let queue = Some(QueueNumber(queue));
            producer.send(&Message { body: body.as_bytes(), queue, ..Message::default() }).expect("taken");
        }
    }
    producer.flush().expect("the broker answers");
    let notices = producer.take_notices().join("; ");
    assert!(notices.contains("127.0.0.7") && notices.contains("forwards"), "{notices}");
    check(&producer.into_client(), 50);
}
