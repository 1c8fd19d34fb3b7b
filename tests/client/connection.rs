//! Connections and the client's own requests.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use turbopump::api::{Reply, Request, Status, TopicChange};
use turbopump::client::{Client, ClientError, Connection, Message, Producer, ProducerOptions, Timeouts};
use turbopump::types::{NodeId, QueueKey, QueueNumber};
use turbopump::wire::frame;

use crate::fake_broker::{FakeBroker, timeouts};

/// A listener that answers a connection's first bytes with `answer`, then waits for the peer to go.
fn listener_that_says(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes).expect("a preface");
        assert_eq!(bytes, frame::asking_preface());
        stream.write_all(answer).expect("the client reads");
        let _ = stream.read(&mut bytes);
    });
    address
}

#[test]
fn nobody_listens_and_the_error_says_what_to_start() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    drop(listener);
    let error = Client::connect(&address, timeouts()).err().expect("nobody listens");
    assert!(matches!(error, ClientError::Connect { .. }));
    let text = error.to_string();
    assert!(text.contains(&address) && text.contains("turbopump serve --data"), "{text}");
}

#[test]
fn another_version_is_named_on_both_sides() {
    let address = listener_that_says(b"\xF5TPN\x07\x00\x00\x00");
    let error = Connection::connect(&address, timeouts()).err().expect("a newer broker");
    assert!(matches!(error, ClientError::Version { theirs: 7, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("version 7") && text.contains("version 1"), "{text}");
}

#[test]
fn another_protocol_is_recognised() {
    let address = listener_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let error = Connection::connect(&address, timeouts()).err().expect("a web server");
    assert!(matches!(error, ClientError::NotTurbopump { .. }), "{error}");
}

#[test]
fn silence_ends_after_the_time_out() {
    let address = listener_that_says(b"");
    let timeouts = Timeouts { connect: Duration::from_millis(100), ..timeouts() };
    let started = Instant::now();
    let error = Connection::connect(&address, timeouts).err().expect("silence");
    assert!(matches!(error, ClientError::Silent { .. }), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(100));
}

#[test]
fn an_address_that_is_none_is_named() {
    for address in ["no port here", "localhost:port", "localhost:70000"] {
        let error = Client::connect(address, timeouts()).err().expect("no address");
        assert!(matches!(error, ClientError::Address { .. }), "{error}");
    }
    // A name that no name service may ever know (RFC 6761): it is written as it should be.
    let error = Client::connect("broker.invalid:10911", timeouts()).err().expect("no host");
    assert!(matches!(error, ClientError::UnknownHost { .. }), "{error}");
    assert!(error.to_string().contains("check its spelling"), "{error}");
}

#[test]
fn pipelined_requests_get_their_own_answers() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 2);
    let mut connection = Connection::connect(broker.server(), timeouts()).expect("it listens");
    let mut asked = Vec::new();
    for number in 0..50 {
        let request =
            if number % 2 == 0 { Request::ListTopics } else { Request::DescribeTopic(topic.clone()) };
        asked.push((connection.submit(&request).expect("there is room"), number % 2 == 0));
    }
    assert_eq!(connection.in_flight(), 50);
    for (correlation, is_list) in asked {
        let (answered, reply) =
            connection.receive(timeouts().request).expect("it is there").expect("in time");
        assert_eq!(answered, correlation);
        assert_eq!(matches!(reply.into_owned(), Ok(Reply::Topics(_))), is_list);
    }
    assert!(connection.receive(Duration::from_millis(10)).expect("still connected").is_none());
}

#[test]
fn the_client_administers_topics() {
    let broker = FakeBroker::start(2);
    let mut client = Client::connect(broker.server(), timeouts()).expect("it listens");
    let topic: turbopump::types::TopicName = "orders".parse().expect("a good name");
    let change = TopicChange { topic: topic.clone(), queues: Some(6), retention: None, level: None };
    client.create_topic(change.clone()).expect("a new topic");
    let error = client.create_topic(change).expect_err("it is there");
    assert!(matches!(error, ClientError::Refused(failure) if failure.status == Status::TopicExists));
    assert_eq!(client.topic(&topic).expect("it is there").queue_count, 6);
    assert_eq!(client.list_topics().expect("a list").len(), 1);
    assert_eq!(client.describe_node(false).expect("a node").version, "fake");
    assert_eq!(client.shard_count(), 2);
    let missing = "nothing".parse().expect("a good name");
    let error = client.topic(&missing).expect_err("it is not there");
    assert!(matches!(error, ClientError::Refused(failure) if failure.status == Status::TopicNotExist));
}

#[test]
fn an_idle_connection_that_died_is_replaced() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    let mut client = Client::connect(broker.server(), timeouts()).expect("it listens");
    broker.hang_up();
    client.describe_topic(&topic).expect("asked again over a new connection");
}

/// A broker behind a tunnel says where it listens on its own side, and here another one listens there.
#[test]
fn nothing_is_sent_to_another_broker_at_an_address_that_a_route_told() {
    let (meant, other) = (FakeBroker::start(2), FakeBroker::start_as(2, NodeId(2)));
    let topic = meant.create("orders", 2);
    other.create("orders", 2);
    for shard in 0..2 {
        meant.move_shard(shard, &other.addresses[shard]);
    }
    let mut client = Client::connect(meant.server(), timeouts()).expect("it listens");
    assert_eq!(client.node(), Some(meant.node));
    let id = client.topic(&topic).expect("it is there").id;
    let key = QueueKey { topic: id, queue: QueueNumber(1) };
    client.find_offset(key, turbopump::api::OffsetSpec::Last).expect("forwarded");
    let notices = client.take_notices();
    let parts =
        [other.addresses[1].as_str(), &meant.node.to_string(), &other.node.to_string(), "--advertise"];
    assert!(parts.iter().all(|part| notices[0].contains(part)), "{notices:?}");
    let mut producer =
        Producer::new(client, topic.clone(), ProducerOptions::default()).expect("the topic is there");
    for queue in [0, 1] {
        let queue = Some(QueueNumber(queue));
        producer.send(&Message { body: b"apple", queue, ..Message::default() }).expect("it is there");
    }
    producer.flush().expect("forwarded");
    for queue in [0, 1] {
        assert_eq!(meant.bodies(&topic, queue), ["apple"]);
        assert!(other.bodies(&topic, queue).is_empty(), "the other broker has it");
    }
    assert_eq!(other.state().produce_count, 0);
}

#[test]
fn another_shard_at_an_address_is_not_taken_for_the_one_that_was_told() {
    let broker = FakeBroker::start(3);
    let topic = broker.create("orders", 3);
    broker.move_shard(1, &broker.addresses[2].clone());
    let mut client = Client::connect(broker.server(), timeouts()).expect("it listens");
    let id = client.topic(&topic).expect("it is there").id;
    let key = QueueKey { topic: id, queue: QueueNumber(1) };
    client.find_offset(key, turbopump::api::OffsetSpec::Last).expect("forwarded");
    let notices = client.take_notices();
    assert!(notices[0].contains("shard 1 of node") && notices[0].contains("shard 2 of node"), "{notices:?}");
}

#[test]
fn a_client_does_not_go_on_with_another_broker_in_the_first_one_s_place() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    let mut client = Client::connect(broker.server(), timeouts()).expect("it listens");
    broker.state().node = Some(NodeId(9));
    broker.hang_up();
    let error = client.describe_topic(&topic).expect_err("another broker");
    assert!(matches!(error, ClientError::OtherNode { .. }), "{error}");
    assert!(!error.is_connection_loss(), "trying again cannot help");
    assert!(error.to_string().contains(broker.server()), "{error}");
}

/// Of a broker of an earlier release nothing is expected, and it says nothing.
#[test]
fn a_broker_that_does_not_say_who_it_is_is_used_as_before() {
    let broker = FakeBroker::start(2);
    broker.state().node = None;
    let topic = broker.create("orders", 2);
    let mut client = Client::connect(broker.server(), timeouts()).expect("it listens");
    let id = client.topic(&topic).expect("it is there").id;
    let key = QueueKey { topic: id, queue: QueueNumber(1) };
    client.find_offset(key, turbopump::api::OffsetSpec::Last).expect("its shard answers");
    assert_eq!((client.node(), client.take_notices()), (None, Vec::new()));
}

#[test]
fn a_wildcard_that_an_earlier_release_tells_is_no_address() {
    let broker = FakeBroker::start(2);
    broker.state().node = None;
    let topic = broker.create("orders", 2);
    let port = broker.addresses[1].rsplit(':').next().expect("a port").to_owned();
    broker.move_shard(1, &format!("0.0.0.0:{port}"));
    let mut client = Client::connect(broker.server(), timeouts()).expect("it listens");
    let id = client.topic(&topic).expect("it is there").id;
    let key = QueueKey { topic: id, queue: QueueNumber(1) };
    client.find_offset(key, turbopump::api::OffsetSpec::Last).expect("forwarded");
    assert_eq!(client.take_notices().len(), 1);
}

#[test]
fn a_shard_out_of_reach_is_asked_through_another_and_said_once() {
    let broker = FakeBroker::start(2);
    let topic = broker.create("orders", 2);
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = closed.local_addr().expect("it is bound").to_string();
    drop(closed);
    broker.move_shard(1, &address);
    let mut client = Client::connect(broker.server(), timeouts()).expect("it listens");
    let id = client.topic(&topic).expect("it is there").id;
    for _ in 0..3 {
        let key = turbopump::types::QueueKey { topic: id, queue: QueueNumber(1) };
        client.find_offset(key, turbopump::api::OffsetSpec::Last).expect("forwarded");
    }
    let notices = client.take_notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("shard 1") && notices[0].contains(&address), "{notices:?}");
}
