//! Others go on at their pace, whatever one client asks for.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use turbopump::api::{FindMessages, Request};
use turbopump::client::{Message, Producer, ProducerOptions};
use turbopump::types::{QueueNumber, Timestamp};

use crate::abuse::{GoodClient, join_request, p99, read_to_end, repeated, send};
use crate::support::directory::test_directory;
use crate::support::http_connection::Connection;
use crate::support::load::{create_topic, topic};
use crate::support::machine::{cpu_time, report};
use crate::support::node::{Node, Setup};

/// How long others are watched, with and without somebody who asks for much.
const WATCH: Duration = Duration::from_secs(3);
/// Five times the time without, and on a machine that is busy with other things at least this.
const OTHERS_MAX: Duration = Duration::from_millis(400);

fn start(directory: &tempfile::TempDir) -> Node {
    let node = Setup::new(directory.path()).with(&["--client-memory", "256MiB"]).start();
    create_topic(&mut node.client(), "good", 1);
    node
}

/// Compares the rounds of a good client without and with what `abuse` does until its argument says stop.
fn compare(node: &Node, what: &str, abuse: impl Fn(&AtomicBool) + Sync) {
    let calm = GoodClient::start(node.address(), "good", 0);
    std::thread::sleep(WATCH);
    let calm = p99(calm.stop());
    let stop = AtomicBool::new(false);
    let disturbed = std::thread::scope(|scope| {
        scope.spawn(|| abuse(&stop));
        std::thread::sleep(Duration::from_millis(200));
        let good = GoodClient::start(node.address(), "good", 0);
        std::thread::sleep(WATCH);
        let rounds = good.stop();
        stop.store(true, Ordering::Relaxed);
        p99(rounds)
    });
    report(&format!("{what}: a round takes others {calm:?} without and {disturbed:?} with it (p99)"));
    assert!(disturbed < OTHERS_MAX.max(5 * calm), "{calm:?} to {disturbed:?}");
}

/// Two clients with a hundred look-ups each of a key that thousands of messages have. Others once waited 0.3 s and more.
#[test]
fn long_look_ups_are_made_in_turns() {
    let directory = test_directory();
    let node = start(&directory);
    create_topic(&mut node.client(), "keyed", 1);
    let mut producer =
        Producer::new(node.client(), topic("keyed"), ProducerOptions::default()).expect("it exists");
    for index in 0..5_000u32 {
        let body = index.to_le_bytes();
        let message = Message { body: &body, key: b"k", queue: Some(QueueNumber(0)), ..Message::default() };
        producer.send(&message).expect("the broker takes it");
        if index % 100 == 0 {
            producer.flush().expect("the broker answers");
        }
    }
    producer.flush().expect("the broker answers");
    // Nothing is as old as this, so that every place is looked at.
    let find = Request::FindMessages(FindMessages::Key {
        topic: topic("keyed"),
        key: "k".to_owned(),
        count: 64,
        from: Timestamp(0),
        to: Timestamp(1),
        before: Vec::new(),
    });
    let bytes = repeated(&find, 100);
    compare(&node, "200 look-ups of a key of 5,000 messages", |stop| {
        let _finding = [send(node.address(), &bytes), send(node.address(), &bytes)];
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

/// Each looks at 4,096 queues, and one such look after the other once had the core: of sixteen clients, for as long as they all took
/// together. What is asked is whether the executor looked at its rings meanwhile, in the core's own time: how long others had to
/// wait depends on what else the machine does.
#[test]
fn receives_of_thousands_of_queues_are_made_in_turns() {
    const QUEUES: u32 = 4_096;
    const CLIENTS: usize = 16;
    let directory = test_directory();
    let flags = ["--client-memory", "256MiB", "--http", "127.0.0.1:0"];
    let node = Setup::new(directory.path()).with(&flags).start();
    create_topic(&mut node.client(), "scattered", QUEUES);
    let mut producer =
        Producer::new(node.client(), topic("scattered"), ProducerOptions::default()).expect("it exists");
    for queue in 0..QUEUES {
        let message = Message { body: b"m", queue: Some(QueueNumber(queue)), ..Message::default() };
        producer.send(&message).expect("the broker takes it");
    }
    producer.flush().expect("the broker answers");
    let turns = || (node.counter("turns_long"), Duration::from_nanos(node.counter("turns_long_ns")));
    let (turns_before, began) = (turns(), cpu_time(node.process()));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let node = &node;
            scope.spawn(move || {
                let mut connection = Connection::open(node);
                for number in 0..10 {
                    // A group that nobody knows begins at the first messages.
                    let query = format!("consumer=g-{client}-{number}&numOfMessages=16&tag=nobody");
                    connection
                        .send(format!("GET /topics/scattered/messages?{query} HTTP/1.1\r\nHost: h\r\n\r\n"));
                    assert_eq!(connection.next().expect("an answer").status, 404);
                }
            });
        }
    });
    let (used, turns) =
        (cpu_time(node.process()) - began, (turns().0 - turns_before.0, turns().1 - turns_before.1));
    report(&format!("160 receives of 4,096 queues took {used:?}, in {} long turns {:?}", turns.0, turns.1));
    assert!(turns.1 < used / 4, "{turns:?} of {used:?}");
}

#[test]
fn members_of_a_thousand_topics_join_in_turns() {
    let directory = test_directory();
    let node = start(&directory);
    let mut client = node.client();
    for index in 0..1_000 {
        create_topic(&mut client, &format!("t{index}"), 2);
    }
    compare(&node, "members of 1,000 topics that join", |stop| {
        let mut joining = Vec::new();
        for member in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let topics = (0..1_000).map(|index| format!("t{index}"));
            let join = join_request("big", &format!("m{}", member % 40), topics);
            let mut stream = send(node.address(), &repeated(&join, 20));
            stream.shutdown(std::net::Shutdown::Write).expect("a socket");
            joining.push(stream.try_clone().expect("a socket"));
            if member % 4 == 3 {
                read_to_end(&mut stream);
            }
        }
    });
}

/// As many connections as come, none of which says anything.
#[test]
fn connections_that_only_come_and_go_are_taken_in_turns() {
    let directory = test_directory();
    let node = start(&directory);
    let made = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    compare(&node, "connections that come and go", |stop| {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        if TcpStream::connect(node.address()).is_ok() {
                            made.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
    });
    report(&format!("{} connections in {:?}", made.load(Ordering::Relaxed), began.elapsed()));
}
