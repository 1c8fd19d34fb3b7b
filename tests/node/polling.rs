//! Long polling, by the clock.

use std::time::{Duration, Instant};

use turbopump::api::{Fetch, Receive, Reply, Request, Watch};
use turbopump::client::{Client, Connection, Timeouts};
use turbopump::types::{QueueKey, QueueNumber, QueueOffset};

use crate::support::directory::test_directory;
use crate::support::load::{create_topic, produce, receive_from_orders, topic};
use crate::support::node::{Node, PATIENCE};

/// A machine with other work may be late now and then, but not every time.
const TRIES: u64 = 8;

fn fetch(client: &mut Client, offset: u64, wait: Duration) -> Request {
    let id = client.topic(&topic("orders")).expect("it exists").id;
    let key = QueueKey { topic: id, queue: QueueNumber(0) };
    Request::Fetch(Fetch {
        session: 0,
        key,
        offset: QueueOffset(offset),
        bytes_max: 4096,
        records_max: 10,
        wait,
    })
}

fn watch(client: &mut Client, wait: Duration) -> Request {
    let id = client.topic(&topic("orders")).expect("it exists").id;
    let key = QueueKey { topic: id, queue: QueueNumber(0) };
    Request::Watch(Watch { queues: vec![(key, QueueOffset(0))], wait })
}

#[test]
fn a_message_ends_the_wait_at_once() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let mut client = node.client();
    create_topic(&mut client, "orders", 1);
    let mut best = Duration::MAX;
    for offset in 0..TRIES {
        let request = fetch(&mut client, offset, Duration::from_secs(30));
        let mut connection = Connection::connect(node.address(), Timeouts::default()).expect("it listens");
        connection.submit(&request).expect("a new connection takes a request");
        connection.flush().expect("it is small");
        // The answer of a second request on the connection shows that the first one waits.
        connection.submit(&Request::ListTopics).expect("two are in flight");
        let first = connection.receive(Duration::from_secs(10)).expect("it lives").map(|(id, _)| id);
        assert!(first.is_some() && connection.in_flight() == 1, "the fetch waits");
        produce(&node, "orders", 0, [&b"news"[..]]);
        let produced = Instant::now();
        let (_, reply) =
            connection.receive(Duration::from_secs(10)).expect("it lives").expect("the wait ends");
        best = best.min(produced.elapsed());
        match reply.into_owned().expect("a fetch succeeds") {
            Reply::Fetched(fetched) => assert_eq!(fetched.next_offset, QueueOffset(offset + 1)),
            other => panic!("{other:?}"),
        }
    }
    assert!(best < Duration::from_millis(50), "{best:?}");
}

#[test]
fn a_wait_without_a_message_lasts_as_long_as_asked() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let mut client = node.client();
    create_topic(&mut client, "orders", 1);
    let wait = Duration::from_millis(200);
    let mut best = Duration::MAX;
    for number in 0..TRIES {
        let is_fetch = number.is_multiple_of(2);
        let request = if is_fetch { fetch(&mut client, 0, wait) } else { watch(&mut client, wait) };
        let asked = Instant::now();
        match client.call(&request).expect("a fetch succeeds") {
            Reply::Fetched(fetched) => assert!(is_fetch && fetched.batches.is_empty()),
            Reply::Watched(queues) => assert!(!is_fetch && queues.is_empty()),
            other => panic!("{other:?}"),
        }
        let took = asked.elapsed();
        assert!(took >= wait - Duration::from_millis(5), "{took:?}");
        best = best.min(took);
    }
    assert!(best < wait + Duration::from_millis(100), "{best:?}");
}

/// Waits for the next answer; `None` when none comes for a while.
fn next(connection: &mut Connection) -> Option<Reply> {
    let (_, reply) = connection.receive(Duration::from_secs(1)).expect("it lives")?;
    Some(reply.into_owned().expect("it succeeds"))
}

fn receive() -> Request {
    Request::Receive(Receive { count: 1, wait: Duration::from_secs(50), ..receive_from_orders("g") })
}

/// Beyond 256 waits the connection was not read any more.
#[test]
fn thousands_of_waits_of_one_connection_hold_up_nothing() {
    const FETCHES: usize = 1_000;
    const RECEIVES: usize = 500;
    const WATCHES: usize = 500;
    let directory = test_directory();
    let node = Node::start(directory.path());
    let mut client = node.client();
    create_topic(&mut client, "orders", 1);
    let mut connection = Connection::connect(node.address(), Timeouts::default()).expect("it listens");
    let waiting = fetch(&mut client, 0, Duration::from_secs(50));
    let watching = watch(&mut client, Duration::from_secs(50));
    for (request, count) in [(&waiting, FETCHES), (&receive(), RECEIVES), (&watching, WATCHES)] {
        for _ in 0..count {
            connection.submit(request).expect("it takes it");
        }
    }
    connection.submit(&Request::ListTopics).expect("it takes it");
    connection.flush().expect("it is read");
    assert!(matches!(next(&mut connection), Some(Reply::Topics(_))), "everything else is answered");
    assert!(next(&mut connection).is_none(), "nobody has anything to be told");
    let bytes = node.counter("memory_waits");
    let least = (FETCHES + WATCHES) * 1024;
    let most = least + RECEIVES * 1024 + WATCHES * 192 + 4096;
    assert!((least as u64..most as u64).contains(&bytes), "{bytes} bytes");
    // One message: for each fetch and each watch, and for one receive.
    produce(&node, "orders", 0, [&b"news"[..]]);
    let (mut fetched, mut received, mut watched) = (0, 0, 0);
    while let Some(reply) = next(&mut connection) {
        match reply {
            Reply::Fetched(answer) => fetched += usize::from(answer.next_offset == QueueOffset(1)),
            Reply::Received(messages) => received += messages.len(),
            Reply::Watched(queues) => watched += queues.len(),
            other => panic!("{other:?}"),
        }
    }
    let expected = (FETCHES, 1, WATCHES, RECEIVES - 1);
    assert_eq!((fetched, received, watched, connection.in_flight()), expected);
    // Who goes takes its waits along, and the next message is somebody else's.
    drop(connection);
    let gone = Instant::now();
    while node.counter("memory_waits") > 0 {
        assert!(gone.elapsed() < PATIENCE, "the waits have not ended");
    }
    produce(&node, "orders", 0, [&b"more"[..]]);
    match client.call(&receive()).expect("it succeeds") {
        Reply::Received(messages) => assert_eq!(messages.len(), 1),
        other => panic!("{other:?}"),
    }
}
