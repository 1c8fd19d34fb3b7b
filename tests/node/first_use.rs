//! Topics that are made by being written to, where the broker was told to do so.

use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};
use turbopump::limits::AUTO_CREATE_TOPICS_MAX;

use crate::support::directory::test_directory;
use crate::support::http_connection::{Connection, GET, PUBLISH, publish};
use crate::support::node::{Node, Setup};

fn publish_to(topic: &str) -> String {
    publish(PUBLISH).replace("/topics/orders/", &format!("/topics/{topic}/"))
}

fn connect_from(source: [u8; 4], node: &Node) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this machine");
    let http: SocketAddr =
        node.http_address.as_deref().expect("it was asked for").parse().expect("an address");
    socket.connect(&http.into()).expect("the broker listens");
    socket.into()
}

fn topic_count(node: &Node) -> usize {
    node.run(&["topic", "list", "-o", "json"]).json()["topics"].as_array().expect("a list").len()
}

fn queue_count(node: &Node, topic: &str) -> usize {
    let described = node.run(&["topic", "describe", topic, "-o", "json"]).json();
    described["queues"].as_array().expect("a list").len()
}

#[test]
fn writing_makes_a_topic_and_nothing_else_does() {
    let directory = test_directory();
    let flags = ["--http", "127.0.0.1:0", "--shards", "3", "--auto-create-topics", "6"];
    let node = Setup::new(directory.path()).with(&flags).start();
    // Reading what is not there is a mistake.
    let mut connection = Connection::open(&node);
    connection.send(GET);
    connection.expect(404, "TopicNotExist");
    assert!(node.run(&["consume", "orders"]).badly(1).contains("does not exist"));
    assert_eq!(topic_count(&node), 0);
    // Many at once, on whatever shard they meet.
    let mut many: Vec<_> = (0..12).map(|_| Connection::open(&node)).collect();
    many.iter_mut().for_each(|connection| connection.send(publish_to("orders")));
    for connection in &mut many {
        assert_eq!(connection.next().expect("an answer").status, 201);
    }
    assert_eq!((topic_count(&node), queue_count(&node, "orders")), (1, 6));
    let read = node.run_well(&["consume", "orders", "--count", "12"]);
    assert_eq!(read, "abc\n".repeat(12));
    let file = directory.path().join("lines");
    std::fs::write(&file, "one\ntwo\n").expect("a directory of this test");
    node.run_well(&["produce", "native", file.to_str().expect("UTF-8")]);
    assert_eq!((topic_count(&node), queue_count(&node, "native")), (2, 6));
    // Names that are none, and those of groups' own topics.
    connection.send(publish_to("a.b"));
    connection.expect(400, "InvalidArgument");
    connection.send(publish_to("%25DLQ%25g"));
    connection.expect(404, "TopicNotExist");
    assert_eq!(topic_count(&node), 2);
    // They are topics like others: there after a restart, and gone when deleted.
    node.kill();
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0"]).start();
    assert_eq!((topic_count(&node), queue_count(&node, "orders")), (2, 6));
    node.run_well(&["topic", "delete", "orders", "--yes"]);
    let mut connection = Connection::open(&node);
    connection.send(publish_to("orders"));
    connection.expect(404, "TopicNotExist");
    assert!(
        node.run(&["produce", "orders", file.to_str().expect("UTF-8")]).badly(1).contains("does not exist")
    );
}

/// Who comes second may meet a shard that has the topic already, and choose a queue of one that has it not yet.
#[test]
fn who_comes_second_to_a_first_use_is_not_told_that_there_is_no_topic() {
    let directory = test_directory();
    let flags = ["--http", "127.0.0.1:0", "--shards", "3", "--auto-create-topics", "6"];
    let node = Setup::new(directory.path()).with(&flags).start();
    let mut many: Vec<_> = (0..12).map(|_| Connection::open(&node)).collect();
    for round in 0..40 {
        let topic = format!("orders-{round}");
        many.iter_mut().for_each(|connection| connection.send(publish_to(&topic)));
        for connection in &mut many {
            let answer = connection.next().expect("an answer");
            assert_eq!(answer.status, 201, "{topic}: {}", answer.body);
        }
    }
    assert_eq!(topic_count(&node), 40);
}

#[test]
fn a_loop_over_names_does_not_fill_the_tables() {
    let directory = test_directory();
    let flags = ["--http", "127.0.0.1:0", "--auto-create-topics=1", "--level", "accepted"];
    let node = Setup::new(directory.path()).with(&flags).start();
    // Those of groups take no place.
    node.run_well(&["topic", "create", "%DLQ%g"]);
    node.run_well(&["topic", "create", "%RETRY%g"]);
    let mut made = Vec::new();
    for last in 1..=10 {
        let mut connection = Connection::over(connect_from([127, 0, 0, last], &node));
        let mut publish_next = |own: usize| {
            connection.send(publish_to(&format!("t{last}-{own}")));
            connection.next().expect("an answer")
        };
        let mut own = 0;
        let refused = loop {
            match publish_next(own) {
                answer if answer.status == 201 => own += 1,
                answer => break answer,
            }
        };
        assert_eq!(refused.status, 404, "{}", refused.body);
        made.push(own);
        if made.iter().sum::<usize>() == AUTO_CREATE_TOPICS_MAX {
            break;
        }
        let share = format!("clients at 127.0.0.{last}: they have caused {own} topics");
        assert!(refused.body.contains(&share) && refused.body.contains("their share"), "{}", refused.body);
        if last == 1 {
            // Over every protocol, as far as the clients are at the same address.
            let told = node.run(&["message", "publish", "another", "x"]).badly(1);
            assert!(told.contains(&share) && told.contains("`turbopump topic create another`"), "{told}");
        }
    }
    // Three eighths for one alone, and 64 for everybody while there is room.
    assert_eq!(made, [384, 192, 96, 64, 64, 64, 64, 64, 32]);
    let told = node.run(&["message", "publish", "another", "x"]).badly(1);
    assert!(told.contains("another"), "{told}");
    let mut connection = Connection::open(&node);
    connection.send(publish_to("one-more"));
    let answer = connection.expect(404, "TopicNotExist");
    assert!(answer.body.contains("no more are made by first use"), "{}", answer.body);
    connection.send(publish_to("t1-0"));
    assert_eq!(connection.next().expect("an answer").status, 201);
    node.run_well(&["topic", "create", "one-more"]);
    connection.send(publish_to("one-more"));
    assert_eq!(connection.next().expect("an answer").status, 201);
}

/// Nobody makes a topic to acknowledge what it held.
#[test]
fn who_acknowledges_is_not_told_to_create_the_topic() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "orders", "--queues", "1"]);
    node.run_well(&["message", "publish", "orders", "x"]);
    let leased = node.run_well(&["message", "receive", "orders", "--group", "g", "-o", "json"]);
    let leased: serde_json::Value = serde_json::from_str(&leased).expect("one message");
    let handle = leased["handle"].as_str().expect("a handle");
    for line in [
        &["message", "ack", "order", handle, "--group", "g"][..],
        &["message", "extend", "order", handle, "--group", "g", "--lease", "1m"],
    ] {
        let sentence = node.run(line).badly(1);
        assert!(
            sentence.contains("topic order does not exist: `turbopump topic list`"),
            "{line:?}: {sentence}"
        );
    }
}
