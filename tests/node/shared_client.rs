//! The client whose values tasks share, with the real broker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use turbopump::api::{FindMessages, OffsetSpec, ResetGroup, ResetTarget, Status, TopicChange};
use turbopump::client::asynchronous::{Client, Message, MessageStream};
use turbopump::client::{ClientError, ConsumerOptions, ProducerOptions, Until};
use turbopump::types::{GroupName, Timestamp};

use crate::support::directory::test_directory;
use crate::support::load::topic;
use crate::support::node::{Node, PATIENCE, Setup};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("in time") });
}

async fn connect(node: &Node) -> Client {
    Client::connect(node.address()).await.expect("the broker takes connections")
}

async fn create(client: &Client, name: &str, queues: u32) {
    let change = TopicChange { topic: topic(name), queues: Some(queues), retention: None, level: None };
    client.create_topic(change).await.expect("a new topic");
}

async fn body(messages: &mut MessageStream) -> String {
    let message = messages.next().await.expect("a stream that goes on").expect("a message");
    String::from_utf8(message.body().to_vec()).expect("text")
}

fn status(error: ClientError) -> Status {
    match error {
        ClientError::Refused(failure) => failure.status,
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_sent_comes_back_with_what_it_carries_and_a_delay_when_it_is_due() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    run(async {
        let client = connect(&node).await;
        create(&client, "orders", 4).await;
        let orders = client.producer("orders").await.expect("the topic is there");
        let delay = Duration::from_secs(2);
        let sent = Instant::now();
        let later = Message::new("later").key("customer-17").property("region", "south").delay(delay);
        let later = orders.send(later).await.expect("stored");
        assert_eq!(later.offset, None);
        let message =
            Message::new(b"three apples").key("customer-17").tag("fruit").property("region", "north");
        let receipt = orders.send(message).await.expect("stored");

        let mut messages = client.read("orders").await.expect("the topic is there");
        let first = messages.next().await.expect("no end").expect("a message");
        assert_eq!((first.queue.queue, Some(first.offset)), (receipt.queue, receipt.offset));
        assert_eq!((first.id(), first.property("region")), (Some(receipt.id), Some(&b"north"[..])));
        assert_eq!(
            (first.key(), first.tag(), first.body()),
            (&b"customer-17"[..], &b"fruit"[..], &b"three apples"[..])
        );
        let second = messages.next().await.expect("no end").expect("a message");
        assert!(sent.elapsed() >= delay, "it came {:?} after it was sent", sent.elapsed());
        assert_eq!((second.id(), second.body()), (Some(later.id), &b"later"[..]));
        assert_eq!(second.property("region"), Some(&b"south"[..]));
        assert_eq!(second.queue.queue, receipt.queue, "messages of one key stay together");

        for (key, count) in [("customer-17", 2), (&*receipt.id.text(), 1), (&*later.id.text(), 1)] {
            let (from, to) = (Timestamp(0), Timestamp(u64::MAX));
            let (topic, key, before) = (topic("orders"), key.to_owned(), Vec::new());
            let find = FindMessages::Key { topic, key: key.clone(), count: 10, from, to, before };
            let found = client.find_messages(find).await.expect("the broker answers");
            assert_eq!(found.messages.len(), count, "{key}");
        }
    });
}

#[test]
fn streams_go_on_over_a_restart_and_lose_nothing() {
    let directory = test_directory();
    // An address of this test's own, so that nobody takes the port meanwhile.
    let node = Setup::new(directory.path()).with(&["--listen", "127.0.1.81:0"]).start();
    let address = node.address().to_owned();
    run(async {
        let client = connect(&node).await;
        create(&client, "orders", 3).await;
        let orders = client.producer("orders").await.expect("the topic is there");
        let mut alone = client.read("orders").await.expect("the topic is there");
        let mut member = client.subscribe("billing", &["orders"]).await.expect("the topic is there");
        let mut stored = BTreeSet::new();
        for number in 0..50 {
            orders.send(Message::new(format!("{number:03}"))).await.expect("stored");
            stored.insert(format!("{number:03}"));
        }
        let (mut read, mut handled) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..20 {
            assert!(read.insert(body(&mut alone).await), "once each");
            handled.insert(body(&mut member).await);
        }
        member.commit().await.expect("a member");
        node.kill();

        // What is sent meanwhile waits for the broker.
        let waiting: Vec<_> = (50..60)
            .map(|number| {
                let (orders, body) = (orders.clone(), format!("{number:03}"));
                tokio::spawn(async move { orders.send(Message::new(body.clone())).await.map(|_| body) })
            })
            .collect();
        let restart = tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(300));
            let node = Setup::new(directory.path()).with(&["--listen", &address]).start();
            // A broker whose directory goes away ends.
            (directory, node)
        });
        // Both streams are polled while nobody listens.
        while handled.len() < 50 || read.len() < 50 {
            tokio::select! {
                body = body(&mut alone), if read.len() < 50 => assert!(read.insert(body), "once each"),
                body = body(&mut member), if handled.len() < 50 => { handled.insert(body); }
            }
        }
        let (_directory, node) = restart.await.expect("it starts");
        for send in waiting {
            // One that was on its way when the broker was killed may be lost, and says so.
            match send.await.expect("no panic") {
                Ok(body) => drop(stored.insert(body)),
                Err(error) => assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}"),
            }
        }
        while !stored.is_subset(&read) {
            assert!(read.insert(body(&mut alone).await), "once each");
        }
        while !stored.is_subset(&handled) {
            handled.insert(body(&mut member).await);
        }
        // The session has ended with the broker: what was not committed comes again, and then it can be.
        let group: GroupName = "billing".parse().expect("a name");
        loop {
            match member.commit().await {
                Ok(()) => {
                    let info = client.describe_group(&group).await.expect("it is there");
                    if info.queues.iter().all(|queue| queue.lag == 0) {
                        break;
                    }
                }
                Err(error) => assert_eq!(status(error), Status::MemberUnknown),
            }
            assert!(stored.contains(&body(&mut member).await), "nothing else is there");
        }
        drop(node);
    });
}

#[test]
fn two_clones_at_once_keep_their_order_each() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    run(async {
        let client = connect(&node).await;
        create(&client, "orders", 2).await;
        let orders = client.producer("orders").await.expect("the topic is there");
        let tasks = ["a", "b"].map(|name| {
            let orders = orders.clone();
            tokio::spawn(async move {
                let mut pending = Vec::new();
                for number in 0..2_000 {
                    let message = Message::new(format!("{name}{number:04}")).key(name);
                    pending.push(orders.enqueue(message).await.expect("there is room"));
                }
                let mut last = None;
                for receipt in pending {
                    let receipt = receipt.await.expect("stored");
                    assert!(last < receipt.offset, "{last:?} before {:?}", receipt.offset);
                    last = receipt.offset;
                }
            })
        });
        for task in tasks {
            task.await.expect("no panic");
        }
        let options = ConsumerOptions { until: Until::End, ..ConsumerOptions::default() };
        let mut messages = client.read_with("orders", options).await.expect("the topic is there");
        let mut bodies = Vec::new();
        while let Some(message) = messages.next().await {
            bodies.push(String::from_utf8(message.expect("readable").body().to_vec()).expect("text"));
        }
        assert_eq!(bodies.len(), 4_000);
        for name in ["a", "b"] {
            let own: Vec<_> = bodies.iter().filter(|body| body.starts_with(name)).collect();
            assert!(own.len() == 2_000 && own.is_sorted(), "{name}");
        }
        let batches = node.counter("batches_produced");
        assert!(batches < 1_000, "{batches} batches for 4,000 messages");
    });
}

#[test]
fn a_broker_that_stays_away_is_told_after_the_time_that_was_chosen() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    run(async {
        let client = connect(&node).await;
        create(&client, "orders", 1).await;
        let retry_for = Duration::from_millis(300);
        let options = ProducerOptions { retry_for, linger: Duration::ZERO, ..ProducerOptions::default() };
        let orders = client.producer_with("orders", options).await.expect("the topic is there");
        let messages = client.read("orders").await.expect("the topic is there");
        orders.send(Message::new("0")).await.expect("stored");
        node.kill();
        // The connection's end may meet the first message on its way.
        let _ = orders.send(Message::new("1")).await;
        let begun = Instant::now();
        let errors = [Message::new("2"), Message::new("3").delay(Duration::from_secs(1))];
        for message in errors {
            let error = orders.send(message).await.expect_err("nobody listens");
            assert!(error.is_connection_loss() && error.to_string().contains("turbopump serve"), "{error}");
        }
        assert!(begun.elapsed() >= 2 * retry_for);
        let mut messages = messages.reconnect_for(retry_for);
        let mut errors = 0;
        for _ in 0..3 {
            errors += u32::from(messages.next().await.expect("no end").is_err());
        }
        assert!(errors >= 2, "the first message may have been read already");
    });
}

#[test]
fn topics_groups_instances_and_the_node_are_administered() {
    let directory = test_directory();
    let node = Setup::new(directory.path()).with(&["--shards", "2"]).start();
    run(async {
        let client = connect(&node).await;
        assert!(client.node().is_some());
        create(&client, "orders", 2).await;
        let again = TopicChange { topic: topic("orders"), queues: None, retention: None, level: None };
        assert_eq!(
            status(client.create_topic(again.clone()).await.expect_err("it exists")),
            Status::TopicExists
        );
        client.alter_topic(TopicChange { queues: Some(4), ..again }).await.expect("it gains queues");
        let info = client.describe_topic(&topic("orders")).await.expect("it is there");
        assert_eq!((info.queue_count, info.queues.len()), (4, 4));
        assert!(
            client.list_topics().await.expect("an answer").iter().any(|info| info.topic == topic("orders"))
        );

        let instance = "MQ_INST_1".parse().expect("a name");
        client.create_instance(&instance).await.expect("a new one");
        create(&client, "MQ_INST_1%orders", 1).await;
        assert!(client.delete_instance(&instance).await.is_err(), "it has a topic");
        client.delete_topic(&topic("MQ_INST_1%orders")).await.expect("it is there");
        client.delete_instance(&instance).await.expect("it is empty");
        let instances = client.list_instances().await.expect("an answer");
        assert!(instances.iter().all(|info| info.instance.as_ref() != Some(&instance)));

        let orders = client.producer("orders").await.expect("the topic is there");
        orders.send(Message::new("0").key("k")).await.expect("stored");
        let mut messages = client.subscribe("billing", &["orders"]).await.expect("the topic is there");
        let message = messages.next().await.expect("no end").expect("a message");
        messages.commit().await.expect("a member");
        let group: GroupName = "billing".parse().expect("a name");
        assert_eq!(client.list_groups().await.expect("an answer"), std::slice::from_ref(&group));
        let committed = client.committed_offset(&group, message.queue).await.expect("an answer");
        assert_eq!(committed, Some(message.offset.advance(1)));
        let target = ResetTarget::Every(OffsetSpec::First);
        let reset = ResetGroup { group: group.clone(), topic: topic("orders"), target };
        let refused = client.reset_group(reset.clone()).await.expect_err("it has a member");
        assert_eq!(status(refused), Status::GroupHasMembers);
        messages.close().await.expect("a member");
        client.reset_group(reset).await.expect("it has no members");
        let committed = client.committed_offset(&group, message.queue).await.expect("an answer");
        assert_eq!(committed, Some(message.offset));
        let end = client.find_offset(message.queue, OffsetSpec::Last).await.expect("an answer");
        assert_eq!(end, message.offset.advance(1));
        client.delete_group(&group).await.expect("it has no members");

        let info = client.describe_node().await.expect("an answer");
        assert_eq!(info.shards.len(), 2);
    });
}
