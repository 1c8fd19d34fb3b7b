//! The client whose values tasks share: producers with a receipt for each message, and streams.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;
use turbopump::api::{OffsetSpec, Release, Status, TopicChange};
use turbopump::client::asynchronous::{Client, Message, MessageStream, PendingSend, Producer};
use turbopump::client::{ClientError, ConsumerOptions, ProducerOptions, Start, Timeouts, Until};
use turbopump::types::{QueueKey, QueueNumber, QueueOffset, TopicId, TopicName};
use turbopump::wire::batch::CheckedBatch;
use turbopump::wire::properties;

use crate::asynchronous::run;
use crate::fake_broker::{FakeBroker, Fault, timeouts};

const SHORT: Duration = Duration::from_millis(50);

async fn client(broker: &FakeBroker) -> Client {
    Client::connect_with(broker.server(), timeouts()).await.expect("it listens")
}

async fn producer(broker: &FakeBroker, options: ProducerOptions) -> Producer {
    client(broker).await.producer_with("orders", options).await.expect("the topic is there")
}

/// Nothing gathers, so that each fault meets one message.
fn one_by_one() -> ProducerOptions {
    ProducerOptions { linger: Duration::ZERO, batch_records: 1, in_flight: 1, ..ProducerOptions::default() }
}

fn to_the_end() -> ConsumerOptions {
    ConsumerOptions { until: Until::End, ..ConsumerOptions::default() }
}

async fn enqueue(producer: &Producer, body: impl Into<Vec<u8>>) -> PendingSend {
    producer.enqueue(Message::new(body)).await.expect("there is room")
}

/// Polls a future once and drops it.
async fn poll_and_drop(future: impl Future) -> bool {
    let mut future = pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

/// The next message's body.
async fn body(messages: &mut MessageStream) -> String {
    let message = messages.next().await.expect("a stream that goes on").expect("a message");
    String::from_utf8(message.body().to_vec()).expect("text")
}

fn commits(broker: &FakeBroker) -> Vec<u64> {
    let mut commits: Vec<_> = broker.state().offsets.values().map(|offset| offset.0).collect();
    commits.sort_unstable();
    commits
}

#[test]
fn each_message_of_many_tasks_has_its_own_receipt_and_they_share_batches() {
    run(async {
        let broker = FakeBroker::start(2);
        let topic = broker.create("orders", 3);
        let orders = client(&broker).await.producer("orders").await.expect("the topic is there");
        let tasks: Vec<_> = (0..500)
            .map(|number| {
                let orders = orders.clone();
                tokio::spawn(async move { (number, orders.send(Message::new(number.to_string())).await) })
            })
            .collect();
        let (mut places, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for task in tasks {
            let (number, receipt) = task.await.expect("no task panics");
            let receipt = receipt.expect("stored");
            let offset = receipt.offset.expect("it is in its queue");
            let bodies = broker.bodies(&topic, receipt.queue.0);
            assert_eq!(bodies[offset.0 as usize], number.to_string());
            places.insert((receipt.queue, offset));
            ids.insert(receipt.id.text().to_string());
        }
        assert_eq!((places.len(), ids.len()), (500, 500));
        let batches = broker.state().produce_count;
        assert!(batches < 100, "{batches} batches");
    });
}

#[test]
fn clones_that_send_at_once_keep_their_order_each() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 1);
        let options = ProducerOptions { batch_records: 7, linger: Duration::ZERO, ..Default::default() };
        let orders = producer(&broker, options).await;
        // A refusal in between must not turn the order round.
        broker.fault(&[Fault::Store, Fault::Refuse(Status::Busy), Fault::Refuse(Status::Busy)]);
        let tasks = ["a", "b"].map(|name| {
            let orders = orders.clone();
            tokio::spawn(async move {
                for number in 0..300 {
                    drop(enqueue(&orders, format!("{name}{number:03}")).await);
                    if number % 50 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        });
        for task in tasks {
            task.await.expect("no task panics");
        }
        orders.flush().await;
        let bodies = broker.bodies(&topic, 0);
        for name in ["a", "b"] {
            let own: Vec<_> = bodies.iter().filter(|body| body.starts_with(name)).collect();
            assert!(own.is_sorted(), "{own:?}");
        }
        // Refused batches that later ones overtook are told as refused: two batches of seven at most.
        assert!(bodies.len() >= 600 - 14, "{} are stored", bodies.len());
    });
}

#[test]
fn what_a_message_carries_arrives_with_it() {
    run(async {
        let broker = FakeBroker::start(1);
        broker.create("orders", 4);
        let client = client(&broker).await;
        let orders = client.producer("orders").await.expect("the topic is there");
        let message = Message::new(b"three apples").key("one").key("two").tag("fruit").property("a", "b");
        let receipt = orders.send(message.clone()).await.expect("stored");
        let again = orders.send(message).await.expect("stored");
        assert_eq!(receipt.queue, again.queue, "messages of one key stay together");
        let elsewhere = Message::new("x").key("one two").queue(QueueNumber((receipt.queue.0 + 1) % 4));
        assert_ne!(orders.send(elsewhere).await.expect("stored").queue, receipt.queue);

        let options = ConsumerOptions { start: Start::First, ..to_the_end() };
        let mut messages = client.read_with("orders", options).await.expect("the topic is there");
        let mut found = None;
        while let Some(message) = messages.next().await {
            let message = message.expect("readable");
            found = found.or((message.id() == Some(receipt.id)).then_some(message));
        }
        let found = found.expect("it is there");
        assert_eq!((found.queue.queue, Some(found.offset)), (receipt.queue, receipt.offset));
        assert_eq!((found.key(), found.tag()), (&b"one two"[..], &b"fruit"[..]));
        assert_eq!((found.property("a"), found.body()), (Some(&b"b"[..]), &b"three apples"[..]));
        assert_eq!(found.properties().count(), 2, "the id is the other one");
        assert_eq!(found.plain_body().expect("it is not compressed"), found.body());
    });
}

#[test]
fn messages_that_cannot_be_sent_are_refused_and_do_not_disturb_others() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 2);
        let orders = producer(&broker, ProducerOptions::default()).await;
        let refused = [
            (Message::new(vec![0; 4 * 1024 * 1024 + 1]), Status::MessageTooLarge),
            (Message::new("x").key("a\nb"), Status::InvalidArgument),
            (Message::new("x").tag("a||b"), Status::InvalidArgument),
            (Message::new("x").property("KEYS", "k"), Status::InvalidArgument),
            (Message::new("x").queue(QueueNumber(2)), Status::QueueNotExist),
            (Message::new("x").queue(QueueNumber(2)).delay(SHORT), Status::QueueNotExist),
        ];
        for (message, status) in refused {
            match orders.send(message).await.expect_err("it cannot be sent") {
                ClientError::Refused(failure) => assert_eq!(failure.status, status, "{failure}"),
                other => panic!("{other}"),
            }
        }
        orders.send(Message::new("good").queue(QueueNumber(0))).await.expect("stored");
        assert_eq!(broker.bodies(&topic, 0), ["good"]);
        assert_eq!(broker.state().produce_count, 1);
        for name in ["", "a b"] {
            let error = client(&broker).await.producer(name).await.err().expect("no name");
            assert!(matches!(error, ClientError::Refused(_)), "{error}");
        }
    });
}

#[test]
fn a_busy_broker_is_tried_again_and_what_may_be_stored_is_not() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 1);
        let orders = producer(&broker, one_by_one()).await;
        broker.fault(&[Fault::Refuse(Status::Busy), Fault::Refuse(Status::NoSpace)]);
        orders.send(Message::new("0")).await.expect("the third attempt");
        broker.fault(&[Fault::StoreAndClose, Fault::Close]);
        for body in ["1", "never stored"] {
            let error = orders.send(Message::new(body)).await.expect_err("no answer");
            assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
        }
        broker.fault(&[Fault::Refuse(Status::InvalidArgument)]);
        let error = orders.send(Message::new("refused")).await.expect_err("told to refuse");
        assert!(matches!(error, ClientError::Refused(_)), "{error}");
        let receipt = orders.send(Message::new("2")).await.expect("over a new connection");
        assert_eq!(receipt.offset, Some(QueueOffset(2)));
        assert_eq!(broker.bodies(&topic, 0), ["0", "1", "2"]);
    });
}

#[test]
fn an_answer_that_never_comes_ends_as_unknown() {
    run(async {
        let broker = FakeBroker::start(1);
        broker.create("orders", 1);
        broker.fault(&[Fault::Ignore]);
        let timeouts = Timeouts { request: SHORT, ..timeouts() };
        let client = Client::connect_with(broker.server(), timeouts).await.expect("it listens");
        let orders = client.producer("orders").await.expect("the topic is there");
        let error = orders.send(Message::new("0")).await.expect_err("no answer");
        assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
        assert!(orders.send(Message::new("1")).await.is_ok());
    });
}

#[test]
fn a_dropped_send_is_stored_once_it_was_handed_over_and_not_before() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 1);
        let options = ProducerOptions { buffered_bytes_max: 400, ..one_by_one() };
        let orders = producer(&broker, options).await;
        drop(orders.send(Message::new("never polled")));
        assert!(!poll_and_drop(orders.send(Message::new("handed over"))).await);
        orders.flush().await;
        assert_eq!(broker.bodies(&topic, 0), ["handed over"]);

        // The first one takes all the room, and its answer does not come.
        broker.fault(&[Fault::Ignore]);
        let first = enqueue(&orders, vec![b'x'; 1_000]).await;
        let waiting = timeout(SHORT, orders.send(Message::new("has no room"))).await;
        assert!(waiting.is_err(), "there is no room");
        broker.hang_up();
        assert!(matches!(first.await, Err(ClientError::OutcomeUnknown { .. })));
        orders.send(Message::new("has room")).await.expect("over a new connection");
        assert_eq!(broker.bodies(&topic, 0), ["handed over", "has room"]);
    });
}

#[test]
fn what_was_handed_over_leaves_after_the_last_clone_is_gone() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 1);
        let orders = producer(&broker, one_by_one()).await;
        let mut pending = Vec::new();
        for number in 0..20 {
            pending.push(enqueue(&orders, number.to_string()).await);
        }
        drop(orders);
        for end in pending {
            end.await.expect("stored");
        }
        assert_eq!(broker.bodies(&topic, 0).len(), 20);
    });
}

#[test]
fn a_topic_that_is_made_anew_and_queues_that_it_gets_are_found() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 1);
        let orders = producer(&broker, one_by_one()).await;
        orders.send(Message::new("0")).await.expect("stored");
        broker.delete(&topic);
        broker.create("orders", 2);
        orders.send(Message::new("1")).await.expect("the topic was asked for anew");
        let later = Message::new("2").queue(QueueNumber(1)).delay(Duration::from_secs(5));
        broker.delete(&topic);
        broker.create("orders", 2);
        orders.send(later).await.expect("and for messages with a delay too");
        assert_eq!(broker.state().held[0].key.topic, TopicId(3));
    });
}

#[test]
fn a_message_with_a_delay_is_held_under_its_id() {
    run(async {
        let broker = FakeBroker::start(2);
        broker.create("orders", 2);
        let orders = producer(&broker, one_by_one()).await;
        broker.fault(&[Fault::Refuse(Status::Busy)]);
        let delay = Duration::from_secs(60);
        let message = Message::new("later").property("a", "b").queue(QueueNumber(1)).delay(delay);
        let receipt = orders.send(message).await.expect("the second attempt");
        assert_eq!((receipt.queue, receipt.offset), (QueueNumber(1), None));
        assert!(receipt.due.is_some());
        {
            let state = broker.state();
            let [hold] = &state.held[..] else { panic!("{} are held", state.held.len()) };
            assert_eq!(hold.release, Release::After(delay));
            let batch = CheckedBatch::check(&hold.batch).expect("a good batch");
            let record = batch.records().next().expect("one record");
            assert_eq!(properties::get(record.properties(), "a"), Some(&b"b"[..]));
            let id = properties::get(record.properties(), "UNIQ_KEY");
            assert_eq!(id, Some(receipt.id.text().as_bytes()));
        }
        // Together with others on their way.
        let mut pending = Vec::new();
        for number in 0..200_u32 {
            let message = Message::new(number.to_string());
            let message = if number.is_multiple_of(2) { message.delay(delay) } else { message };
            pending.push(orders.enqueue(message).await.expect("there is room"));
        }
        for end in pending {
            end.await.expect("stored");
        }
        let (held, batches) = {
            let state = broker.state();
            (state.held.len(), state.produce_count)
        };
        assert_eq!((held, batches), (101, 100));
        broker.fault(&[Fault::Close]);
        let error = orders.send(Message::new("lost").delay(delay)).await.expect_err("no answer");
        assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
    });
}

#[test]
fn calls_of_clones_run_beside_each_other() {
    run(async {
        let broker = FakeBroker::start(2);
        let client = client(&broker).await;
        let names: Vec<TopicName> =
            (0..20).map(|number| format!("t{number}").parse().expect("a name")).collect();
        let tasks: Vec<_> = names
            .iter()
            .map(|name| {
                let (client, topic) = (client.clone(), name.clone());
                let change = TopicChange { topic, queues: Some(2), retention: None, level: None };
                tokio::spawn(async move { client.create_topic(change).await })
            })
            .collect();
        for task in tasks {
            task.await.expect("no task panics").expect("a new topic");
        }
        assert_eq!(client.list_topics().await.expect("it is there").len(), 20);
        let topic = client.describe_topic(&names[7]).await.expect("it is there");
        let key = QueueKey { topic: topic.id, queue: QueueNumber(1) };
        assert_eq!(client.find_offset(key, OffsetSpec::Last).await.expect("it is there"), QueueOffset(0));
        let group = "billing".parse().expect("a name");
        client.commit_offset(&group, key, QueueOffset(0)).await.expect("it is there");
        let committed = client.committed_offset(&group, key).await.expect("it is there");
        assert_eq!(committed, Some(QueueOffset(0)));
        assert_eq!(client.describe_node().await.expect("it is there").version, "fake");
        let again = TopicChange { topic: names[0].clone(), queues: None, retention: None, level: None };
        let error = client.create_topic(again).await.expect_err("it exists");
        assert!(matches!(error, ClientError::Refused(failure) if failure.status == Status::TopicExists));
    });
}

#[test]
fn a_dropped_call_leaves_the_client_as_good_as_before() {
    run(async {
        let broker = FakeBroker::start(1);
        broker.create("orders", 1);
        let client = client(&broker).await;
        for _ in 0..50 {
            poll_and_drop(client.list_topics()).await;
            let _ = timeout(Duration::from_micros(100), client.list_topics()).await;
            assert_eq!(client.list_topics().await.expect("it is there").len(), 1);
        }
    });
}

#[test]
fn a_stream_reads_every_queue_in_order_and_ends_when_told() {
    run(async {
        let broker = FakeBroker::start(3);
        broker.create("orders", 5);
        let orders = producer(&broker, ProducerOptions { batch_records: 7, ..Default::default() }).await;
        for number in 0..500_u32 {
            let message = Message::new(number.to_string()).queue(QueueNumber(number % 5));
            drop(orders.enqueue(message).await.expect("there is room"));
        }
        orders.flush().await;
        let mut messages = client(&broker).await.read_with("orders", to_the_end()).await.expect("a topic");
        let mut next = [0_u32, 1, 2, 3, 4];
        while let Some(message) = messages.next().await {
            let message = message.expect("readable");
            let next = &mut next[message.queue.queue.0 as usize];
            assert_eq!(message.body(), next.to_string().as_bytes());
            assert_eq!(message.offset.0, u64::from(*next / 5));
            *next += 5;
        }
        assert_eq!(next, [500, 501, 502, 503, 504]);
        assert!(messages.next().await.is_none(), "the end stays the end");
    });
}

#[test]
fn a_stream_goes_on_over_lost_connections_and_dropped_waits() {
    run(async {
        let broker = FakeBroker::start(2);
        broker.create("orders", 1);
        let client = client(&broker).await;
        let orders = client.producer("orders").await.expect("the topic is there");
        let mut messages = client.read("orders").await.expect("the topic is there");
        for number in 0..10 {
            let _ =
                timeout(Duration::from_millis(1), messages.next()).await.map(|_| panic!("no message yet"));
            broker.hang_up();
            // The producer's connection is gone as well: it may find out with this message.
            while orders.send(Message::new(number.to_string())).await.is_err() {}
            assert_eq!(body(&mut messages).await, number.to_string());
        }
    });
}

#[test]
fn messages_that_are_left_out_are_items_and_the_stream_goes_on() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 1);
        let orders = producer(&broker, one_by_one()).await;
        for number in 0..10 {
            orders.send(Message::new(number.to_string())).await.expect("stored");
        }
        broker.trim(&topic, 0, 4);
        broker.state().damaged_below = QueueOffset(6);
        let options = ConsumerOptions { start: Start::Offset(QueueOffset(1)), ..to_the_end() };
        let mut messages = client(&broker).await.read_with("orders", options).await.expect("a topic");
        for expected in [(1, 4), (4, 6)] {
            match messages.next().await.expect("an item") {
                Err(ClientError::Skipped { from, to, .. }) => assert_eq!((from.0, to.0), expected),
                other => panic!("{other:?}"),
            }
        }
        for number in 6..10 {
            assert_eq!(body(&mut messages).await, number.to_string());
        }
        assert!(messages.next().await.is_none());
    });
}

#[test]
fn a_commit_covers_what_was_handed_out_and_nothing_more() {
    run(async {
        let broker = FakeBroker::start(1);
        broker.create("orders", 1);
        let client = client(&broker).await;
        // One batch of ten.
        let options = ProducerOptions { linger: Duration::from_secs(5), ..Default::default() };
        let orders = client.producer_with("orders", ProducerOptions { batch_records: 10, ..options }).await;
        let orders = orders.expect("the topic is there");
        for number in 0..10 {
            drop(enqueue(&orders, number.to_string()).await);
        }
        orders.flush().await;
        assert_eq!(broker.state().produce_count, 1);
        let mut messages = client.subscribe("billing", &["orders"]).await.expect("the topic is there");
        for number in 0..4 {
            assert_eq!(body(&mut messages).await, number.to_string());
        }
        messages.commit().await.expect("a member");
        assert_eq!(commits(&broker), [4]);
        messages.close().await.expect("a member");

        let mut messages = client.subscribe("billing", &["orders"]).await.expect("the topic is there");
        for number in 4..10 {
            assert_eq!(body(&mut messages).await, number.to_string());
        }
        // While a read waits for more.
        assert!(timeout(SHORT, messages.next()).await.is_err(), "there is no more");
        messages.commit().await.expect("a member");
        assert_eq!(commits(&broker), [10]);
        let sender = producer(&broker, one_by_one()).await;
        sender.send(Message::new("10")).await.expect("stored");
        assert_eq!(body(&mut messages).await, "10");
    });
}

#[test]
fn a_commit_does_not_cover_messages_that_arrive_while_it_is_made() {
    run(async {
        let broker = FakeBroker::start(1);
        broker.create("orders", 1);
        let orders = producer(&broker, one_by_one()).await;
        let mut messages = client(&broker).await.subscribe("billing", &["orders"]).await.expect("a topic");
        for number in 0..40 {
            assert!(timeout(Duration::from_millis(2), messages.next()).await.is_err(), "no message yet");
            orders.send(Message::new(number.to_string())).await.expect("stored");
            tokio::time::sleep(Duration::from_millis(2)).await;
            messages.commit().await.expect("a member");
            assert!(commits(&broker).iter().all(|&offset| offset <= number), "at {number}");
            assert_eq!(body(&mut messages).await, number.to_string());
        }
    });
}

#[test]
fn members_share_a_topic_and_take_over_from_who_leaves() {
    run(async {
        let broker = FakeBroker::start(2);
        broker.create("orders", 4);
        let client = client(&broker).await;
        let options = ConsumerOptions { session_timeout: Duration::from_secs(1), ..Default::default() };
        let one = client.subscribe_with("billing", &["orders"], options).await.expect("a topic");
        let two = client.subscribe_with("billing", &["orders"], options).await.expect("a topic");
        let orders = client.producer("orders").await.expect("the topic is there");
        let reading = [one, two].map(|mut messages| {
            tokio::spawn(async move {
                let mut queues = BTreeSet::new();
                while let Ok(item) = timeout(Duration::from_secs(1), messages.next()).await {
                    queues.insert(item.expect("no end").expect("a message").queue.queue.0);
                    messages.commit().await.expect("a member");
                }
                (messages, queues)
            })
        });
        for number in 0..100 {
            let message = Message::new(number.to_string()).queue(QueueNumber(number % 4));
            orders.send(message).await.expect("stored");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let [one, two] = reading;
        let ((one, first), (mut two, second)) = (one.await.expect("no panic"), two.await.expect("no panic"));
        assert!(!first.is_empty() && !second.is_empty(), "{first:?} {second:?}");
        assert_eq!(first.union(&second).count(), 4);
        one.close().await.expect("a member");
        for queue in 0..4 {
            orders.send(Message::new("last").queue(QueueNumber(queue))).await.expect("stored");
        }
        let mut queues = BTreeSet::new();
        while queues.len() < 4 {
            let message = two.next().await.expect("no end").expect("a message");
            if message.body() == b"last" {
                queues.insert(message.queue.queue.0);
            }
        }
    });
}

#[test]
fn a_stream_without_a_group_has_nothing_to_commit() {
    run(async {
        let broker = FakeBroker::start(1);
        broker.create("orders", 1);
        let mut messages = client(&broker).await.read("orders").await.expect("the topic is there");
        let error = messages.commit().await.expect_err("no group");
        assert!(matches!(error, ClientError::Refused(failure) if failure.status == Status::InvalidArgument));
        let missing = client(&broker).await.read("nothing").await.err().expect("it is not there");
        assert!(matches!(missing, ClientError::Refused(failure) if failure.status == Status::TopicNotExist));
    });
}
