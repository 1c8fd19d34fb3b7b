//! The client for tokio.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use turbopump::api::{Reply, Request, Status, TopicChange};
use turbopump::client::tokio_driver::{AsyncClient, AsyncConnection, AsyncConsumer, AsyncProducer};
use turbopump::client::{
    ClientError, ConsumerOptions, Delivery, Message, OutOfRange, ProducerOptions, Start, Timeouts, Until,
};
use turbopump::types::{NodeId, QueueNumber, QueueOffset, TopicName};

use crate::fake_broker::{FakeBroker, Fault, timeouts};

pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { timeout(Duration::from_secs(30), test).await.expect("in time") });
}

async fn client(broker: &FakeBroker) -> AsyncClient {
    AsyncClient::connect(broker.server(), timeouts()).await.expect("it listens")
}

async fn producer(broker: &FakeBroker, topic: &TopicName, options: ProducerOptions) -> AsyncProducer {
    AsyncProducer::new(client(broker).await, topic.clone(), options).await.expect("the topic is there")
}

async fn consumer(broker: &FakeBroker, topic: &TopicName, options: ConsumerOptions) -> AsyncConsumer {
    AsyncConsumer::assign(client(broker).await, topic.clone(), None, None, options)
        .await
        .expect("it is there")
}

async fn send(producer: &mut AsyncProducer, queues: u32, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let body = number.to_string();
        let queue = Some(QueueNumber(number as u32 % queues));
        let message = Message { body: body.as_bytes(), queue, ..Message::default() };
        producer.send(&message).await.expect("it is there");
    }
}

fn to_the_end() -> ConsumerOptions {
    ConsumerOptions { until: Until::End, fetch_bytes: 1_000, ..ConsumerOptions::default() }
}

#[test]
fn what_is_sent_is_read_in_order_on_every_shard() {
    run(async {
        let broker = FakeBroker::start(3);
        let topic = broker.create("orders", 5);
        let options = ProducerOptions { batch_records: 7, ..Default::default() };
        let mut producer = producer(&broker, &topic, options).await;
        send(&mut producer, 5, 0..1000).await;
        producer.flush().await.expect("it is there");
        assert_eq!(producer.acknowledged_prefix(), 1000);
        assert!(producer.first_failure().is_none() && producer.take_result().is_some());
        let mut consumer = consumer(&broker, &topic, to_the_end()).await;
        let mut next = [0, 1, 2, 3, 4];
        loop {
            match consumer.next().await.expect("it is there") {
                Delivery::Messages(batch) => {
                    for message in batch.messages() {
                        let next = &mut next[batch.queue().0 as usize];
                        assert_eq!(message.body(), next.to_string().as_bytes());
                        *next += 5;
                    }
                }
                Delivery::End => break,
                _ => panic!("nothing else is to come"),
            }
        }
        assert_eq!(next, [1000, 1001, 1002, 1003, 1004]);
        assert!(consumer.positions().iter().all(|(_, offset)| offset.0 == 200));
    });
}

#[test]
fn refusals_are_tried_again_and_losses_are_unknown() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 1);
        broker.fault(&[Fault::Refuse(Status::Busy), Fault::Refuse(Status::NoSpace), Fault::Store]);
        let options = ProducerOptions { batch_records: 1, in_flight: 1, ..Default::default() };
        let mut producer = producer(&broker, &topic, options).await;
        send(&mut producer, 1, 0..3).await;
        producer.flush().await.expect("it is there");
        assert_eq!(broker.bodies(&topic, 0), ["0", "1", "2"]);
        assert_eq!(producer.counters().retries, 2);
        broker.fault(&[Fault::StoreAndClose]);
        let message = Message { body: b"3", ..Message::default() };
        let sent = producer.send(&message).await;
        let error = match sent {
            Ok(()) => producer.flush().await.expect_err("the connection ended"),
            Err(error) => error,
        };
        assert!(error.is_connection_loss(), "{error}");
        assert_eq!(producer.counters().unknown, 1);
        send(&mut producer, 1, 4..5).await;
        producer.flush().await.expect("over a new connection");
        assert_eq!(broker.bodies(&topic, 0), ["0", "1", "2", "3", "4"]);
        assert_eq!(producer.acknowledged_prefix(), 3);
    });
}

#[test]
fn an_answer_that_never_comes_is_given_up() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 1);
        broker.fault(&[Fault::Ignore]);
        let timeouts = Timeouts { request: Duration::from_millis(100), ..timeouts() };
        let client = AsyncClient::connect(broker.server(), timeouts).await.expect("it listens");
        let mut producer =
            AsyncProducer::new(client, topic, ProducerOptions::default()).await.expect("it is there");
        send(&mut producer, 1, 0..1).await;
        let error = producer.flush().await.expect_err("no answer");
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
        assert_eq!(producer.counters().unknown, 1);
    });
}

#[test]
fn a_lone_message_leaves_while_polling() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 1);
        let mut producer = producer(&broker, &topic, ProducerOptions::default()).await;
        send(&mut producer, 1, 0..1).await;
        while producer.counters().acknowledged == 0 {
            producer.poll(Instant::now() + Duration::from_millis(20)).await.expect("it is there");
        }
        assert_eq!(broker.bodies(&topic, 0), ["0"]);
    });
}

#[test]
fn a_cancelled_wait_loses_nothing() {
    run(async {
        let broker = FakeBroker::start(2);
        let topic = broker.create("orders", 2);
        let mut consumer = consumer(&broker, &topic, ConsumerOptions::default()).await;
        let mut producer = producer(&broker, &topic, ProducerOptions::default()).await;
        let mut seen = [0_u64; 2];
        for round in 0..20 {
            assert!(timeout(Duration::from_millis(1), consumer.next()).await.is_err() || round > 0);
            send(&mut producer, 2, 0..10).await;
            let _ = timeout(Duration::from_micros(50), producer.flush()).await;
            producer.flush().await.expect("it is there");
            while seen.iter().sum::<u64>() < (round + 1) * 10 {
                let Ok(delivery) = timeout(Duration::from_micros(100), consumer.next()).await else {
                    continue;
                };
                let Delivery::Messages(batch) = delivery.expect("it is there") else {
                    panic!("nothing else is to come");
                };
                let seen = &mut seen[batch.queue().0 as usize];
                assert_eq!(batch.first_offset().0, *seen);
                *seen = batch.end_offset().0;
            }
        }
        assert_eq!(seen, [100, 100]);
        assert_eq!(producer.acknowledged_prefix(), 200);
    });
}

#[test]
fn offsets_that_are_gone_damage_and_losses_are_told() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 1);
        let options = ProducerOptions { batch_records: 10, ..Default::default() };
        let mut producer = producer(&broker, &topic, options).await;
        send(&mut producer, 1, 0..100).await;
        producer.flush().await.expect("it is there");
        broker.trim(&topic, 0, 40);
        broker.state().damaged_below = QueueOffset(60);
        let options = ConsumerOptions { start: Start::Offset(QueueOffset(3)), ..to_the_end() };
        let mut consumer = consumer(&broker, &topic, options).await;
        assert!(matches!(
            consumer.next().await.expect("it is there"),
            Delivery::Moved { from: QueueOffset(3), to: QueueOffset(40), .. }
        ));
        let Delivery::Damaged(range) = consumer.next().await.expect("it is there") else { panic!("damage") };
        assert_eq!((range.from, range.to), (QueueOffset(40), QueueOffset(60)));
        broker.hang_up();
        let mut next = 60;
        loop {
            match consumer.next().await {
                Ok(Delivery::Messages(batch)) => {
                    assert_eq!(batch.first_offset().0, next);
                    next = batch.end_offset().0;
                }
                Ok(Delivery::End) => break,
                Ok(_) => panic!("nothing else is to come"),
                Err(error) => assert!(error.is_connection_loss(), "{error}"),
            }
        }
        assert_eq!(next, 100);
        let start = Start::Offset(QueueOffset(3));
        let options = ConsumerOptions { start, out_of_range: OutOfRange::Fail, ..to_the_end() };
        let mut consumer = AsyncConsumer::assign(client(&broker).await, topic, None, None, options)
            .await
            .expect("it is there");
        let error = consumer.next().await.err().expect("it is gone");
        assert!(matches!(error, ClientError::Refused(failure) if failure.status == Status::OffsetOutOfRange));
    });
}

#[test]
fn requests_are_called_and_errors_say_what_to_do() {
    run(async {
        let broker = FakeBroker::start(2);
        let mut client = client(&broker).await;
        let topic: TopicName = "orders".parse().expect("a good name");
        let change = TopicChange { topic: topic.clone(), queues: Some(3), retention: None, level: None };
        client.create_topic(change).await.expect("a new topic");
        assert_eq!(client.topic(&topic).await.expect("it is there").queue_count, 3);
        let missing = "nothing".parse().expect("a good name");
        let error = client.topic(&missing).await.expect_err("it is not there");
        assert!(matches!(error, ClientError::Refused(failure) if failure.status == Status::TopicNotExist));
        let mut connection = AsyncConnection::connect(broker.server(), timeouts()).await.expect("it listens");
        assert!(matches!(connection.call(&Request::ListTopics).await, Ok(Reply::Topics(_))));

        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let quick = Timeouts { connect: Duration::from_millis(50), ..timeouts() };
        let error = AsyncConnection::connect(&address, quick).await.err().expect("silence");
        assert!(matches!(error, ClientError::Silent { .. }), "{error}");
        drop(listener);
        let error = AsyncClient::connect(&address, timeouts()).await.err().expect("nobody listens");
        assert!(error.to_string().contains("turbopump serve"), "{error}");
    });
}

#[test]
fn nothing_is_sent_to_another_broker_at_an_address_that_a_route_told() {
    run(async {
        let (meant, other) = (FakeBroker::start(2), FakeBroker::start_as(2, NodeId(2)));
        let topic = meant.create("orders", 2);
        other.create("orders", 2);
        for shard in 0..2 {
            meant.move_shard(shard, &other.addresses[shard]);
        }
        let mut producer = producer(&meant, &topic, ProducerOptions::default()).await;
        send(&mut producer, 2, 0..10).await;
        producer.flush().await.expect("forwarded");
        assert_eq!(producer.counters().acknowledged, 10);
        let notices = producer.take_notices();
        assert_eq!(notices.len(), 2, "{notices:?}");
        let parts = [&meant.node.to_string(), &other.node.to_string(), "--advertise"];
        assert!(parts.iter().all(|part| notices[0].contains(part)), "{notices:?}");
        let stored: usize = (0..2).map(|queue| meant.bodies(&topic, queue).len()).sum();
        assert_eq!((stored, other.state().produce_count), (10, 0));
    });
}

#[test]
fn queues_that_a_topic_gets_are_read_and_written_to() {
    run(async {
        let broker = FakeBroker::start(2);
        let topic = broker.create("orders", 1);
        let mut reader = consumer(&broker, &topic, ConsumerOptions::default()).await;
        let mut producer = producer(&broker, &topic, ProducerOptions::default()).await;
        broker.state().add_queues(&topic, 3);
        let mut queues = std::collections::BTreeSet::new();
        let begun = Instant::now();
        while queues.len() < 3 {
            assert!(begun.elapsed() < Duration::from_secs(60), "only {queues:?}");
            producer.send(&Message { body: b"apple", ..Message::default() }).await.expect("it is there");
            producer.flush().await.expect("it is there");
            if let Ok(delivery) = timeout(Duration::from_millis(20), reader.next()).await
                && let Delivery::Messages(batch) = delivery.expect("it is there")
            {
                queues.insert(batch.queue().0);
            }
        }
    });
}
