//! The blocking consumer with fixed queues.

use std::time::{Duration, Instant};

use turbopump::api::{Status, TopicInfo};
use turbopump::client::{
    Client, ClientError, Consumer, ConsumerOptions, Delivery, OutOfRange, Start, Timeouts, Until,
};
use turbopump::types::{GroupName, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicName};
use turbopump::wire::batch::BatchBuilder;
use turbopump::wire::record::Record;

use crate::fake_broker::{FakeBroker, timeouts};

const PATIENCE: Duration = Duration::from_secs(10);

fn client(broker: &FakeBroker) -> Client {
    Client::connect(broker.server(), timeouts()).expect("it listens")
}

fn key(broker: &FakeBroker, topic: &TopicName, queue: u32) -> QueueKey {
    let TopicInfo { id, .. } = client(broker).topic(topic).expect("it is there");
    QueueKey { topic: id, queue: QueueNumber(queue) }
}

/// Stores batches of `size` messages whose bodies are their numbers.
fn fill(broker: &FakeBroker, topic: &TopicName, queue: u32, numbers: std::ops::Range<usize>, size: usize) {
    let key = key(broker, topic, queue);
    let numbers: Vec<_> = numbers.collect();
    for chunk in numbers.chunks(size) {
        let mut builder = BatchBuilder::new(Timestamp(1_000));
        for number in chunk {
            let body = number.to_string();
            builder.push(&Record {
                key: b"k",
                tag: b"t",
                body: body.as_bytes(),
                born_delta_ms: 7,
                ..Record::default()
            });
        }
        broker.store(key, &builder.finish()).expect("a good batch");
    }
}

fn to_the_end() -> ConsumerOptions {
    ConsumerOptions { until: Until::End, ..ConsumerOptions::default() }
}

fn assign(
    broker: &FakeBroker,
    topic: &TopicName,
    queues: Option<Vec<u32>>,
    options: ConsumerOptions,
) -> Consumer {
    let queues = queues.map(|queues| queues.into_iter().map(QueueNumber).collect());
    Consumer::assign(client(broker), topic.clone(), queues, None, options).expect("the queues are there")
}

/// Bodies by queue, up to the end or until `count` have come; events are listed by name.
fn read(consumer: &mut Consumer, count: usize) -> (Vec<(u32, u64, String)>, Vec<String>) {
    let mut messages = Vec::new();
    let mut events = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while messages.len() < count && Instant::now() < deadline {
        match consumer.poll(PATIENCE).expect("the broker is there") {
            Some(Delivery::Messages(batch)) => {
                for message in batch.messages() {
                    let body = String::from_utf8_lossy(message.body()).into_owned();
                    messages.push((batch.queue().0, message.offset.0, body));
                }
            }
            Some(Delivery::Damaged(range)) => events.push(format!(
                "damaged {} to {} {}",
                range.from,
                range.to,
                if range.bytes.is_some() { "there" } else { "here" }
            )),
            Some(Delivery::Moved { from, to, .. }) => events.push(format!("moved {from} to {to}")),
            Some(Delivery::Rebalanced { .. }) => events.push("rebalanced".to_owned()),
            Some(Delivery::End) => {
                events.push("end".to_owned());
                break;
            }
            None => events.push("nothing".to_owned()),
        }
    }
    (messages, events)
}

fn bodies(messages: &[(u32, u64, String)], queue: u32) -> Vec<usize> {
    let of_queue = messages.iter().filter(|message| message.0 == queue);
    of_queue.map(|(_, _, body)| body.parse().expect("a number")).collect()
}

#[test]
fn every_queue_of_every_shard_is_read_in_order_to_its_end() {
    let broker = FakeBroker::start(3);
    let topic = broker.create("orders", 7);
    for queue in 0..7 {
        fill(&broker, &topic, queue, 0..100 * queue as usize, 9);
    }
    let options = ConsumerOptions { fetch_bytes: 1_000, ..to_the_end() };
    let mut consumer = assign(&broker, &topic, None, options);
    let (messages, events) = read(&mut consumer, usize::MAX);
    assert_eq!(events, ["end"]);
    for queue in 0..7 {
        assert_eq!(bodies(&messages, queue), (0..100 * queue as usize).collect::<Vec<_>>(), "queue {queue}");
    }
    assert!(matches!(consumer.poll(Duration::ZERO), Ok(Some(Delivery::End))), "the end stays");
    let positions = consumer.positions();
    assert_eq!(positions.len(), 7);
    assert!(positions.iter().all(|(queue, offset)| offset.0 == u64::from(queue.queue.0) * 100));
}

#[test]
fn messages_come_with_all_their_parts() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    fill(&broker, &topic, 0, 0..2, 2);
    let mut consumer = assign(&broker, &topic, None, to_the_end());
    let Some(Delivery::Messages(batch)) = consumer.poll(PATIENCE).expect("it is there") else {
        panic!("there is a batch");
    };
    assert_eq!((batch.topic(), batch.queue(), batch.message_count()), (&topic, QueueNumber(0), 2));
    let message = batch.messages().nth(1).expect("two messages");
    assert_eq!(message.offset, QueueOffset(1));
    assert_eq!((message.key(), message.tag(), message.properties()), (&b"k"[..], &b"t"[..], &b""[..]));
    assert_eq!((message.born_time, message.store_time), (Timestamp(1_007), Timestamp(5_000)));
    assert_eq!(message.body(), b"1");
}

#[test]
fn reading_starts_where_it_is_told_even_within_a_batch() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    fill(&broker, &topic, 0, 0..100, 10);
    for (start, expected) in [
        (Start::First, 0..100),
        (Start::Offset(QueueOffset(37)), 37..100),
        (Start::Last, 100..100),
        // The batch of offset 50 was stored at 5,050.
        (Start::Time(Timestamp(5_045)), 50..100),
    ] {
        let mut consumer = assign(&broker, &topic, None, ConsumerOptions { start, ..to_the_end() });
        let (messages, _) = read(&mut consumer, usize::MAX);
        assert_eq!(bodies(&messages, 0), expected.collect::<Vec<_>>(), "{start:?}");
    }
}

#[test]
fn the_end_is_where_the_queue_ended_at_the_start() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    fill(&broker, &topic, 0, 0..20, 5);
    let mut consumer = assign(&broker, &topic, None, ConsumerOptions { fetch_bytes: 1, ..to_the_end() });
    let (first, _) = read(&mut consumer, 5);
    fill(&broker, &topic, 0, 20..40, 5);
    let (rest, events) = read(&mut consumer, usize::MAX);
    assert_eq!(first.len() + rest.len(), 20);
    assert_eq!(events, ["end"]);
}

#[test]
fn a_waiting_fetch_is_answered_when_a_message_comes() {
    let broker = FakeBroker::start(2);
    let topic = broker.create("orders", 2);
    let mut consumer = assign(&broker, &topic, None, ConsumerOptions::default());
    assert!(consumer.poll(Duration::from_millis(20)).expect("it is there").is_none());
    for queue in [1, 0, 1] {
        let writer = broker.clone();
        let topic = topic.clone();
        let started = Instant::now();
        let thread = std::thread::spawn(move || fill(&writer, &topic, queue, 0..1, 1));
        let Some(Delivery::Messages(batch)) = consumer.poll(PATIENCE).expect("it is there") else {
            panic!("a message was stored");
        };
        assert_eq!(batch.queue(), QueueNumber(queue));
        assert!(started.elapsed() < Duration::from_secs(5), "long before the fetch's own wait is over");
        thread.join().expect("it stored a batch");
    }
}

#[test]
fn a_poll_returns_in_time() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    let mut consumer = assign(&broker, &topic, None, ConsumerOptions::default());
    let started = Instant::now();
    assert!(consumer.poll(Duration::from_millis(50)).expect("it is there").is_none());
    let passed = started.elapsed();
    assert!((Duration::from_millis(50)..Duration::from_secs(3)).contains(&passed), "{passed:?}");
}

#[test]
fn an_offset_that_is_gone_is_handled_as_asked() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    fill(&broker, &topic, 0, 0..100, 10);
    broker.trim(&topic, 0, 40);
    for (out_of_range, expected, moved) in
        [(OutOfRange::First, 40..100, "moved 3 to 40"), (OutOfRange::Last, 100..100, "moved 3 to 100")]
    {
        let options = ConsumerOptions { start: Start::Offset(QueueOffset(3)), out_of_range, ..to_the_end() };
        let mut consumer = assign(&broker, &topic, None, options);
        let (messages, events) = read(&mut consumer, usize::MAX);
        assert_eq!(bodies(&messages, 0), expected.collect::<Vec<_>>());
        assert_eq!(events, [moved, "end"]);
    }
    let start = Start::Offset(QueueOffset(3));
    let options = ConsumerOptions { start, out_of_range: OutOfRange::Fail, ..to_the_end() };
    let mut consumer = assign(&broker, &topic, None, options);
    let error = consumer.poll(PATIENCE).err().expect("it is gone");
    assert!(matches!(error, ClientError::Refused(failure) if failure.status == Status::OffsetOutOfRange));
}

#[test]
fn damage_is_reported_and_reading_goes_on_after_it() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    fill(&broker, &topic, 0, 0..30, 10);
    broker.state().damaged_below = QueueOffset(10);
    let mut consumer = assign(&broker, &topic, None, to_the_end());
    let (messages, events) = read(&mut consumer, usize::MAX);
    assert_eq!(bodies(&messages, 0), (10..30).collect::<Vec<_>>());
    assert_eq!(events, ["damaged 0 to 10 there", "end"]);

    broker.state().damaged_below = QueueOffset(0);
    broker.state().flip_next_fetch = true;
    let mut consumer = assign(&broker, &topic, None, ConsumerOptions { fetch_bytes: 1, ..to_the_end() });
    let (messages, events) = read(&mut consumer, usize::MAX);
    assert_eq!(bodies(&messages, 0), (10..30).collect::<Vec<_>>());
    assert_eq!(events, ["damaged 0 to 10 here", "end"]);
}

#[test]
fn a_lost_connection_loses_and_repeats_nothing() {
    let broker = FakeBroker::start(2);
    let topic = broker.create("orders", 2);
    fill(&broker, &topic, 0, 0..50, 5);
    fill(&broker, &topic, 1, 0..50, 5);
    let mut consumer = assign(&broker, &topic, None, ConsumerOptions { fetch_bytes: 1, ..to_the_end() });
    let mut seen = [0_u64; 2];
    let mut losses = 0;
    loop {
        match consumer.poll(PATIENCE) {
            Ok(Some(Delivery::Messages(batch))) => {
                let queue = batch.queue().0 as usize;
                assert_eq!(batch.first_offset().0, seen[queue], "queue {queue}");
                seen[queue] = batch.end_offset().0;
                if losses < 4 && seen[queue].is_multiple_of(15) {
                    losses += 1;
                    broker.hang_up();
                }
            }
            Ok(Some(Delivery::End)) => break,
            Ok(_) => panic!("nothing else is to come"),
            Err(error) => assert!(error.is_connection_loss(), "{error}"),
        }
    }
    assert_eq!((seen, losses), ([50, 50], 4));
}

#[test]
fn many_queues_take_turns() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 300);
    let mut consumer = assign(&broker, &topic, None, ConsumerOptions::default());
    assert!(consumer.poll(Duration::from_millis(50)).expect("it is there").is_none());
    for queue in [0, 150, 299] {
        fill(&broker, &topic, queue, 0..3, 1);
    }
    let (messages, _) = read(&mut consumer, 9);
    for queue in [0, 150, 299] {
        assert_eq!(bodies(&messages, queue), [0, 1, 2]);
    }
}

/// Batch by batch, with a group's offsets.
fn assign_to_readers(broker: &FakeBroker, topic: &TopicName) -> Consumer {
    let group: GroupName = "readers".parse().expect("a good name");
    let options = ConsumerOptions { fetch_bytes: 1, ..to_the_end() };
    Consumer::assign(client(broker), topic.clone(), None, Some(group), options).expect("the queues are there")
}

#[test]
fn a_group_of_fixed_queues_goes_on_where_it_committed() {
    let broker = FakeBroker::start(2);
    let topic = broker.create("orders", 2);
    fill(&broker, &topic, 0, 0..20, 5);
    fill(&broker, &topic, 1, 0..20, 5);
    let open = || assign_to_readers(&broker, &topic);
    let mut consumer = open();
    let (messages, _) = read(&mut consumer, 15);
    consumer.commit().expect("it is there");
    drop(consumer);
    let mut consumer = open();
    let (rest, events) = read(&mut consumer, usize::MAX);
    assert_eq!(events, ["end"]);
    consumer.commit().expect("it is there");
    for queue in 0..2 {
        let mut all = bodies(&messages, queue);
        all.extend(bodies(&rest, queue));
        assert_eq!(all, (0..20).collect::<Vec<_>>());
    }
    let mut consumer = open();
    assert_eq!(read(&mut consumer, usize::MAX).0, []);
}

#[test]
fn whoever_stops_within_a_batch_commits_what_was_handled() {
    let broker = FakeBroker::start(2);
    let topic = broker.create("orders", 2);
    fill(&broker, &topic, 0, 0..20, 10);
    fill(&broker, &topic, 1, 0..20, 10);
    let open = || assign_to_readers(&broker, &topic);
    let mut consumer = open();
    let (first, _) = read(&mut consumer, 30);
    let Some(Delivery::Messages(batch)) = consumer.poll(PATIENCE).expect("it is there") else {
        panic!("there is a batch left");
    };
    let (key, handled) = (batch.key(), batch.messages().nth(2).expect("ten messages").offset.advance(1));
    consumer.seek(key, handled);
    consumer.commit().expect("it is there");
    drop(consumer);
    let (rest, _) = read(&mut open(), usize::MAX);
    assert_eq!(first.len() + 3 + rest.len(), 40);
    assert_eq!(bodies(&rest, key.queue.0), (13..20).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_consumed_is_refused_by_name() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 2);
    let error = Consumer::assign(
        client(&broker),
        topic.clone(),
        Some(vec![QueueNumber(2)]),
        None,
        ConsumerOptions::default(),
    )
    .err()
    .expect("there are queues 0 and 1");
    assert!(matches!(error, ClientError::Refused(failure) if failure.status == Status::QueueNotExist));
    let mut consumer = assign(&broker, &topic, None, to_the_end());
    assert!(matches!(consumer.commit(), Err(ClientError::Refused(_))), "no group to commit for");
}

#[test]
fn a_broker_that_stops_answering_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", 1);
    let timeouts = Timeouts { connect: Duration::from_millis(200), request: Duration::from_millis(200) };
    let client = Client::connect(broker.server(), timeouts).expect("it listens");
    let options = ConsumerOptions { fetch_wait: Duration::from_millis(100), ..ConsumerOptions::default() };
    let mut consumer = Consumer::assign(client, topic, None, None, options).expect("the queue is there");
    assert!(consumer.poll(Duration::from_millis(50)).expect("it is there").is_none());
    // Whoever holds the broker's state holds its threads up.
    let held = broker.state();
    let error = consumer.poll(PATIENCE).err().expect("no answer");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    drop((held, listener));
    assert!(consumer.poll(Duration::from_millis(50)).expect("it is there again").is_none());
}

#[test]
fn queues_that_a_topic_gets_are_read_from_their_first_message() {
    let broker = FakeBroker::start(2);
    let topic = broker.create("orders", 1);
    fill(&broker, &topic, 0, 0..3, 1);
    let options = ConsumerOptions { start: Start::Last, ..ConsumerOptions::default() };
    let mut consumer = assign(&broker, &topic, None, options);
    assert!(consumer.poll(Duration::ZERO).expect("it is there").is_none());
    broker.state().add_queues(&topic, 3);
    fill(&broker, &topic, 2, 0..3, 1);
    let (messages, _) = read(&mut consumer, 3);
    assert_eq!(bodies(&messages, 2), [0, 1, 2], "though reading began at the end");
}
