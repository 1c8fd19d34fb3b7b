//! Receiving through the client library, beside clients of HTTP and of the same connection.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use turbopump::api::{GroupSettings, Hold, ReceiptOutcome, Receive, Release, Reply, Request, Status};
use turbopump::client::tokio_driver::AsyncClient;
use turbopump::client::{ClientError, Connection as NativeConnection, Message, Timeouts};
use turbopump::types::{GroupName, QueueKey, QueueNumber, Timestamp};

use crate::support::directory::test_directory;
use crate::support::http_connection::Connection;
use crate::support::load::{create_topic, produce, receive_from_orders, topic};
use crate::support::node::{Node, PATIENCE, Setup};

fn group() -> GroupName {
    "g".parse().expect("a name")
}

fn receive(count: u32, wait: Duration) -> Receive {
    Receive { count, wait, ..receive_from_orders(group().as_str()) }
}

/// The texts between the tags of this name.
fn elements<'a>(document: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    document.split(&open).skip(1).map(|rest| rest.split(&close).next().expect("it is closed")).collect()
}

/// Receives over HTTP and acknowledges, until told to stop; returns the bodies.
fn receive_over_http(node: &Node, stop: &AtomicBool) -> Vec<String> {
    let mut connection = Connection::open(node);
    let mut bodies = Vec::new();
    let target = "/topics/orders/messages?consumer=g";
    while !stop.load(Ordering::Relaxed) {
        connection.send(format!("GET {target}&numOfMessages=8&waitseconds=1 HTTP/1.1\r\nHost: h\r\n\r\n"));
        let answer = connection.next().expect("an answer");
        if answer.status == 404 {
            continue;
        }
        assert_eq!(answer.status, 200, "{}", answer.body);
        let handles = elements(&answer.body, "ReceiptHandle");
        let list: String =
            handles.iter().map(|handle| format!("<ReceiptHandle>{handle}</ReceiptHandle>")).collect();
        let body = format!("<ReceiptHandles>{list}</ReceiptHandles>");
        let length = body.len();
        connection
            .send(format!("DELETE {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"));
        let acknowledged = connection.next().expect("an answer");
        assert_eq!(acknowledged.status, 204, "{}", acknowledged.body);
        bodies.extend(elements(&answer.body, "MessageBody").into_iter().map(str::to_owned));
    }
    bodies
}

/// Receives over the native protocol.
fn receive_natively(node: &Node, stop: &AtomicBool) -> Vec<String> {
    let mut client = node.client();
    let mut bodies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let messages = client.receive(receive(8, Duration::from_secs(1))).expect("the broker answers");
        if messages.is_empty() {
            continue;
        }
        let receipts: Vec<_> = messages.iter().map(|message| message.receipt).collect();
        let outcomes = client.acknowledge(&group(), &receipts).expect("the broker answers");
        assert!(outcomes.iter().all(|outcome| *outcome == ReceiptOutcome::Acknowledged), "{outcomes:?}");
        let body = |message: &turbopump::client::LeasedMessage| message.body().to_owned();
        bodies.extend(messages.iter().map(|message| String::from_utf8(body(message)).expect("text")));
    }
    bodies
}

/// Everything is delivered once, to one of the two, which both get something.
fn both_share(shards: &str) {
    const QUEUES: u32 = 8;
    const MESSAGES: usize = 60;
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0", "--shards", shards]).start();
    create_topic(&mut node.client(), "orders", QUEUES);
    let stop = AtomicBool::new(false);
    let (over_http, natively) = std::thread::scope(|scope| {
        let over_http = scope.spawn(|| receive_over_http(&node, &stop));
        let natively = scope.spawn(|| receive_natively(&node, &stop));
        for queue in 0..QUEUES {
            let bodies: Vec<_> = (0..MESSAGES).map(|number| format!("{queue}-{number}")).collect();
            produce(&node, "orders", queue, bodies.iter().map(String::as_bytes));
        }
        let all = u64::from(QUEUES) * MESSAGES as u64;
        let deadline = Instant::now() + PATIENCE;
        let mut client = node.client();
        loop {
            // The floor of the group's leases is its committed place.
            let described = client.describe_group(&group());
            let done: u64 = described.map_or(0, |described| {
                described.queues.iter().filter_map(|queue| queue.committed).map(|offset| offset.0).sum()
            });
            if done == all || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        (over_http.join().expect("it ends"), natively.join().expect("it ends"))
    });
    let mut counts: BTreeMap<&String, u32> = BTreeMap::new();
    over_http.iter().chain(&natively).for_each(|body| *counts.entry(body).or_default() += 1);
    assert_eq!(counts.len(), QUEUES as usize * MESSAGES, "every message comes");
    assert!(counts.values().all(|count| *count == 1), "to exactly one of them");
    assert!(!over_http.is_empty() && !natively.is_empty(), "{} and {}", over_http.len(), natively.len());
}

#[test]
fn http_and_native_receivers_share_a_group_on_one_shard() {
    both_share("1");
}

#[test]
fn http_and_native_receivers_share_a_group_on_four_shards() {
    both_share("4");
}

#[test]
fn waiting_receives_hold_nothing_up() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    create_topic(&mut node.client(), "orders", 2);
    let mut connection = NativeConnection::connect(node.address(), Timeouts::default()).expect("it listens");
    let waits = Request::Receive(receive(1, Duration::from_secs(60)));
    let asked: Vec<_> = (0..20).map(|_| connection.submit(&waits).expect("it takes it")).collect();
    let other = connection.submit(&Request::ListTopics).expect("it takes it");
    let (first, _) = connection.receive(PATIENCE).expect("it lives").expect("an answer");
    assert_eq!(first, other, "nothing waits behind a wait");
    produce(&node, "orders", 1, (0..20).map(|_| &b"news"[..]));
    for _ in &asked {
        let (correlation, reply) = connection.receive(PATIENCE).expect("it lives").expect("an answer");
        assert!(asked.contains(&correlation));
        match reply.into_owned().expect("a receive succeeds") {
            Reply::Received(messages) => assert_eq!(messages.len(), 1),
            other => panic!("{other:?}"),
        }
    }
}

/// What would be leased to a client that is gone would stay away from everybody for the whole lease.
#[test]
fn a_client_that_went_away_gets_nothing_leased() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    create_topic(&mut node.client(), "orders", 2);
    for round in 0..5 {
        let mut gone = NativeConnection::connect(node.address(), Timeouts::default()).expect("it listens");
        for _ in 0..10 {
            let waits = Request::Receive(receive(32, Duration::from_secs(60)));
            gone.submit(&waits).expect("it takes it");
        }
        gone.submit(&Request::ListTopics).expect("it takes it");
        gone.receive(PATIENCE).expect("it lives").expect("the waits have begun");
        drop(gone);
        // The end has been noticed when the broker has one connection fewer.
        let deadline = Instant::now() + PATIENCE;
        let mut client = node.client();
        while active_connections(&mut client) > 1 {
            assert!(Instant::now() < deadline, "the end is not noticed");
            std::thread::sleep(Duration::from_millis(5));
        }
        produce(&node, "orders", round % 2, [&b"news"[..]]);
        let messages = client.receive(receive(32, Duration::from_secs(20))).expect("the broker answers");
        assert_eq!(messages.len(), 1, "round {round}");
        assert_eq!(messages[0].deliveries, 1);
        client.acknowledge(&group(), &[messages[0].receipt]).expect("the broker answers");
    }
}

fn active_connections(client: &mut turbopump::client::Client) -> u64 {
    let node = client.describe_node(false).expect("the broker answers");
    let counters = &node.shards[0].counters;
    counters.iter().find(|(name, _)| name == "connections").expect("it is counted").1
}

#[test]
fn large_messages_come_one_at_a_time_to_a_slow_reader() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    create_topic(&mut node.client(), "orders", 1);
    let large = vec![b'x'; 3 << 20];
    produce(&node, "orders", 0, (0..12).map(|_| &large[..]));
    let mut connection = NativeConnection::connect(node.address(), Timeouts::default()).expect("it listens");
    let asked = Request::Receive(Receive { bytes_max: 0, ..receive(32, Duration::from_secs(5)) });
    for _ in 0..12 {
        connection.submit(&asked).expect("it takes it");
    }
    connection.flush().expect("it lives");
    std::thread::sleep(Duration::from_millis(500));
    let mut client = node.client();
    let waiting = client.describe_node(false).expect("the broker answers").shards[0].counters.clone();
    let waiting =
        waiting.iter().find(|(name, _)| name == "answer_bytes_waiting").map_or(0, |(_, value)| *value);
    assert!(waiting <= 20 << 20, "{waiting} bytes wait for one connection");
    for _ in 0..12 {
        let (_, reply) = connection.receive(PATIENCE).expect("it lives").expect("an answer");
        match reply.into_owned().expect("a receive succeeds") {
            Reply::Received(messages) => assert_eq!(messages.len(), 1, "one fits an answer"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_asynchronous_client_receives_holds_and_decides() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    create_topic(&mut node.client(), "orders", 2);
    let id = node.client().topic(&topic("orders")).expect("it exists").id;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = AsyncClient::connect(node.address(), Timeouts::default()).await.expect("it listens");
        let settings = GroupSettings {
            group: group(),
            deliveries_max: Some(5),
            lease: Some(Duration::from_secs(60)),
            ordered_lease: None,
        };
        assert_eq!(client.alter_group(settings.clone()).await.expect("it answers"), settings);
        let batch = Message { body: b"a half", ..Message::default() }.to_batch(Timestamp(1)).expect("small");
        let key = QueueKey { topic: id, queue: QueueNumber(1) };
        let release = Release::Commit { producer_group: None, immunity: Duration::ZERO };
        let held = client.hold(Hold { key, level: None, batch, release }).await.expect("it is stored");
        let end = turbopump::api::EndTransaction {
            receipt: held.receipt,
            producer_group: None,
            decision: turbopump::api::Decision::Commit,
        };
        client.end_transaction(end.clone()).await.expect("it is committed");
        let again = client.end_transaction(end).await.expect_err("once only");
        assert!(
            matches!(&again, ClientError::Refused(failure) if failure.status == Status::ReceiptExpired),
            "{again}"
        );
        let of_queue = Receive { scope: Some(key.queue).into(), ..receive(4, Duration::from_secs(20)) };
        let [message] = &client.receive(of_queue).await.expect("it answers")[..] else {
            panic!("one message")
        };
        assert_eq!((message.body(), message.born_time), (&b"a half"[..], Timestamp(1)));
        let lease = Duration::from_secs(3600);
        let moved = client.change_lease(&group(), message.receipt, lease).await.expect("it is leased");
        assert!(moved.lease_until > message.receipt.lease_until);
        let receipts = [message.receipt, moved];
        let outcomes = client.acknowledge(&group(), &receipts).await.expect("it answers");
        assert_eq!(outcomes, [ReceiptOutcome::NotLeased, ReceiptOutcome::Acknowledged]);
        let halves = turbopump::api::ReceiveHalves {
            topic: topic("orders"),
            producer_group: group(),
            count: 1,
            wait: Duration::ZERO,
        };
        assert_eq!(client.receive_halves(halves).await.expect("it answers"), []);
    });
}
