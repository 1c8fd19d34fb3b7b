//! The blocking producer.

use std::time::{Duration, Instant};

use turbopump::api::Status;
use turbopump::client::{BatchOutcome, Client, ClientError, Message, Producer, ProducerOptions, Timeouts};
use turbopump::types::{QueueNumber, TopicName};

use crate::fake_broker::{FakeBroker, Fault, timeouts};

fn producer(broker: &FakeBroker, topic: &TopicName, options: ProducerOptions) -> Producer {
    let client = Client::connect(broker.server(), timeouts()).expect("it listens");
    Producer::new(client, topic.clone(), options).expect("the topic is there")
}

/// One message per batch, to one queue.
fn singly() -> ProducerOptions {
    ProducerOptions { batch_records: 1, ..ProducerOptions::default() }
}

fn send(producer: &mut Producer, queue: u32, number: usize) -> Result<(), ClientError> {
    let body = number.to_string();
    producer.send(&Message { body: body.as_bytes(), queue: Some(QueueNumber(queue)), ..Message::default() })
}

fn outcomes(producer: &mut Producer) -> Vec<(u64, BatchOutcome)> {
    std::iter::from_fn(|| producer.take_result())
        .map(|result| (result.first_sequence, result.outcome))
        .collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn what_is_sent_is_stored_in_order_on_every_shard() {
    let broker = FakeBroker::start(3);
    let topic = broker.create("orders", 5);
    let mut producer = producer(&broker, &topic, ProducerOptions { batch_records: 7, ..Default::default() });
    for number in 0..1000 {
        send(&mut producer, number as u32 % 5, number).expect("it is there");
    }
    producer.flush().expect("it is there");
    for queue in 0..5 {
        let expected: Vec<_> = (queue..1000).step_by(5).map(|number| number.to_string()).collect();
        assert_eq!(broker.bodies(&topic, queue as u32), expected, "queue {queue}");
    }
    assert_eq!(producer.acknowledged_prefix(), 1000);
    assert_eq!(producer.counters().acknowledged, 1000);
    assert!(producer.first_failure().is_none());
    let results = outcomes(&mut producer);
    assert!(results.iter().all(|(_, outcome)| matches!(outcome, BatchOutcome::Acknowledged { .. })));
}

#[test]
fn messages_without_a_key_take_turns_and_keys_stay_together() {
    let broker = FakeBroker::start(2);
    let topic = broker.create("orders", 4);
    let mut producer = producer(&broker, &topic, ProducerOptions { batch_records: 10, ..Default::default() });
    for number in 0..400 {
        producer.send(&Message { body: number.to_string().as_bytes(), ..Message::default() }).expect("there");
    }
    producer.flush().expect("it is there");
    let counts: Vec<_> = (0..4).map(|queue| broker.bodies(&topic, queue).len()).collect();
    assert_eq!(counts, [100; 4]);
    for number in 0..100_usize {
        let key = (number % 3).to_string();
        let body = format!("{key}:{number}");
        producer
            .send(&Message { key: key.as_bytes(), body: body.as_bytes(), ..Message::default() })
            .expect("it is there");
    }
    producer.flush().expect("it is there");
    for key in 0..3_u32 {
        let queue = crc32c::crc32c(key.to_string().as_bytes()) % 4;
        let expected: Vec<_> = (key..100).step_by(3).map(|number| format!("{key}:{number}")).collect();
        let mut found = broker.bodies(&topic, queue);
        found.retain(|body| body.starts_with(&format!("{key}:")));
        assert_eq!(found, expected);
    }
}

#[test]
fn large_messages_pass_through_small_socket_buffers() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    let mut producer = producer(&broker, &topic, ProducerOptions::default());
    let body = vec![b'x'; turbopump::limits::BODY_BYTES_MAX];
    for _ in 0..6 {
        producer.send(&Message { body: &body, ..Message::default() }).expect("the largest message");
    }
    producer.flush().expect("it is there");
    assert!(broker.bodies(&topic, 0).iter().all(|stored| stored.len() == body.len()));
    assert_eq!(producer.acknowledged_prefix(), 6);
    let body = vec![b'x'; turbopump::limits::BODY_BYTES_MAX + 1];
    let error = producer.send(&Message { body: &body, ..Message::default() }).expect_err("one byte more");
    assert!(matches!(error, ClientError::Refused(failure) if failure.status == Status::MessageTooLarge));
    assert_eq!(producer.counters().sent, 6);
}

#[test]
fn a_passing_refusal_is_tried_again_without_disorder() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    for status in [Status::Busy, Status::NoSpace, Status::ShuttingDown] {
        broker.fault(&[Fault::Store, Fault::Refuse(status), Fault::Refuse(status), Fault::Refuse(status)]);
    }
    let mut producer = producer(&broker, &topic, ProducerOptions { in_flight: 1, ..singly() });
    for number in 0..20 {
        send(&mut producer, 0, number).expect("it is there");
    }
    producer.flush().expect("it is there");
    assert_eq!(broker.bodies(&topic, 0), numbers(0..20));
    assert_eq!(producer.acknowledged_prefix(), 20);
    assert_eq!(producer.counters().retries, 9);
}

#[test]
fn refused_batches_that_were_overtaken_are_reported_or_sent_later_as_asked() {
    use turbopump::client::RetryOrder;
    for order in [RetryOrder::Keep, RetryOrder::Relax] {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 1);
        broker.fault(&[Fault::Refuse(Status::Busy)]);
        let mut producer = producer(&broker, &topic, ProducerOptions { order, in_flight: 8, ..singly() });
        for number in 0..4 {
            send(&mut producer, 0, number).expect("it is there");
        }
        producer.flush().expect("it is there");
        let stored = broker.bodies(&topic, 0);
        match order {
            RetryOrder::Keep => {
                assert_eq!(stored, numbers(1..4));
                assert_eq!(producer.acknowledged_prefix(), 0);
                assert_eq!(producer.counters().refused, 1);
                let failure = producer.first_failure().expect("one batch failed");
                assert!(
                    matches!(&failure.outcome, BatchOutcome::Refused(failure) if failure.status == Status::Busy)
                );
            }
            RetryOrder::Relax => {
                assert_eq!(stored, ["1", "2", "3", "0"]);
                assert_eq!(producer.acknowledged_prefix(), 4);
            }
        }
    }
}

#[test]
fn a_lasting_refusal_ends_the_batch_and_not_the_producer() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    broker.fault(&[Fault::Store, Fault::Refuse(Status::StorageFailed)]);
    let mut producer = producer(&broker, &topic, singly());
    for number in 0..3 {
        send(&mut producer, 0, number).expect("it is there");
    }
    producer.flush().expect("it is there");
    assert_eq!(broker.bodies(&topic, 0), ["0", "2"]);
    assert_eq!(producer.acknowledged_prefix(), 1);
    let counters = producer.counters();
    assert_eq!((counters.acknowledged, counters.refused, counters.unknown), (2, 1, 0));
}

#[test]
fn a_connection_that_ends_leaves_its_batches_unknown() {
    for (fault, stored) in [(Fault::Close, 1), (Fault::StoreAndClose, 2)] {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", 1);
        broker.fault(&[Fault::Store, fault]);
        let mut producer = producer(&broker, &topic, ProducerOptions { in_flight: 1, ..singly() });
        send(&mut producer, 0, 0).expect("it is there");
        producer.flush().expect("it is there");
        send(&mut producer, 0, 1).expect("it is there");
        let error = producer.flush().expect_err("the connection ended");
        assert!(matches!(error, ClientError::Disconnected { .. }) && error.is_connection_loss(), "{error}");
        assert_eq!(broker.bodies(&topic, 0), numbers(0..stored), "never sent again");
        let counters = producer.counters();
        assert_eq!((counters.acknowledged, counters.unknown), (1, 1));
        assert_eq!(producer.acknowledged_prefix(), 1);
        // What comes later goes over a new connection.
        send(&mut producer, 0, 2).expect("it is there again");
        producer.flush().expect("it is there again");
        assert_eq!(broker.bodies(&topic, 0).last().map(String::as_str), Some("2"));
        assert_eq!(producer.acknowledged_prefix(), 1, "the gap stays");
    }
}

#[test]
fn an_answer_that_says_nothing_is_known_is_unknown() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    broker.fault(&[Fault::Refuse(Status::OutcomeUnknown)]);
    let mut producer = producer(&broker, &topic, singly());
    send(&mut producer, 0, 0).expect("it is there");
    producer.flush().expect("it is there");
    assert_eq!(producer.counters().unknown, 1);
    assert_eq!(broker.state().produce_count, 1);
}

#[test]
fn an_answer_that_never_comes_is_given_up() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    broker.fault(&[Fault::Ignore]);
    let timeouts = Timeouts { request: Duration::from_millis(200), ..timeouts() };
    let client = Client::connect(broker.server(), timeouts).expect("it listens");
    let mut producer = Producer::new(client, topic, singly()).expect("the topic is there");
    send(&mut producer, 0, 0).expect("it is there");
    let started = Instant::now();
    let error = producer.flush().expect_err("no answer");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert_eq!(producer.counters().unknown, 1);
    producer.flush().expect("nothing is left");
}

#[test]
fn bytes_that_are_no_answer_end_the_connection() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    broker.fault(&[Fault::Garbage]);
    let mut producer = producer(&broker, &topic, singly());
    send(&mut producer, 0, 0).expect("it is there");
    let error = producer.flush().expect_err("no frame");
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    assert_eq!(producer.counters().unknown, 1);
}

#[test]
fn a_topic_made_anew_is_found_again() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    let mut producer = producer(&broker, &topic, singly());
    send(&mut producer, 0, 0).expect("it is there");
    producer.flush().expect("it is there");
    broker.delete(&topic);
    broker.create("orders", 2);
    send(&mut producer, 0, 1).expect("it is there");
    producer.flush().expect("it is there");
    assert_eq!(broker.bodies(&topic, 0), ["1"]);
    assert_eq!(producer.acknowledged_prefix(), 2);
    broker.delete(&topic);
    send(&mut producer, 0, 2).expect("taken");
    producer.flush().expect("it is there");
    assert_eq!(producer.counters().refused, 1);
}

#[test]
fn a_lone_message_leaves_when_it_has_lingered() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    let linger = Duration::from_millis(20);
    let mut producer = producer(&broker, &topic, ProducerOptions { linger, ..Default::default() });
    send(&mut producer, 0, 0).expect("it is there");
    producer.poll().expect("it is there");
    assert_eq!(broker.state().produce_count, 0);
    let deadline = producer.next_deadline().expect("a batch lingers");
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
    while !producer.is_idle() {
        producer.poll().expect("it is there");
    }
    assert_eq!(broker.bodies(&topic, 0), ["0"]);
}

#[test]
fn sending_waits_for_room_and_makes_it_when_batches_do_not_fill() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 64);
    let options = ProducerOptions {
        linger: Duration::from_secs(3600),
        buffered_bytes_max: 20_000,
        ..Default::default()
    };
    let mut producer = producer(&broker, &topic, options);
    for number in 0..10_000 {
        send(&mut producer, number as u32 % 64, number).expect("it is there");
    }
    let counters = producer.counters();
    assert!(counters.sent - counters.acknowledged < 1_000, "{counters:?}");
    producer.flush().expect("it is there");
    assert_eq!(producer.acknowledged_prefix(), 10_000);
}

#[test]
fn queues_that_a_topic_gets_are_written_to() {
    let broker = FakeBroker::start(2);
    let topic = broker.create("orders", 1);
    let mut producer = producer(&broker, &topic, singly());
    broker.state().add_queues(&topic, 3);
    let begun = Instant::now();
    while (0..3).any(|queue| broker.bodies(&topic, queue).is_empty()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing has come to some queue");
        producer.send(&Message { body: b"apple", ..Message::default() }).expect("it is there");
        producer.flush().expect("it is there");
        std::thread::sleep(Duration::from_millis(5));
    }
}
