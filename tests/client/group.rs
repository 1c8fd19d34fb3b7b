//! The blocking consumer as a member of a group.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use turbopump::client::{
    Client, Consumer, ConsumerOptions, Delivery, Message, Producer, ProducerOptions, Until,
};
use turbopump::types::{GroupName, QueueNumber, TopicName};

use crate::fake_broker::{FakeBroker, timeouts};

pub const QUEUES: u32 = 6;

pub fn member(broker: &FakeBroker, topic: &TopicName, options: ConsumerOptions) -> Consumer {
    let client = Client::connect(broker.server(), timeouts()).expect("it listens");
    let group: GroupName = "readers".parse().expect("a good name");
    Consumer::subscribe(client, group, vec![topic.clone()], options).expect("the topic is there")
}

/// A third of it is the heartbeat interval: members learn soon of each other.
pub fn quick() -> ConsumerOptions {
    ConsumerOptions { session_timeout: Duration::from_secs(1), ..ConsumerOptions::default() }
}

pub fn produce(broker: &FakeBroker, topic: &TopicName, count: usize) {
    let client = Client::connect(broker.server(), timeouts()).expect("it listens");
    let options = ProducerOptions { batch_records: 3, ..ProducerOptions::default() };
    let mut producer = Producer::new(client, topic.clone(), options).expect("the topic is there");
    for number in 0..count {
        let body = number.to_string();
        let queue = Some(QueueNumber(number as u32 % QUEUES));
        producer.send(&Message { body: body.as_bytes(), queue, ..Message::default() }).expect("it is there");
    }
    producer.flush().expect("it is there");
}

/// Counts bodies.
pub fn note<'a>(bodies: impl Iterator<Item = &'a [u8]>, seen: &mut HashMap<String, u32>) {
    for body in bodies {
        *seen.entry(String::from_utf8_lossy(body).into_owned()).or_default() += 1;
    }
}

/// One poll: notes messages, and which queues the member has.
pub fn step(consumer: &mut Consumer, owned: &mut HashSet<u32>, seen: &mut HashMap<String, u32>) {
    match consumer.poll(Duration::from_millis(10)).expect("the broker is there") {
        Some(Delivery::Messages(batch)) => {
            assert!(owned.contains(&batch.queue().0), "queue {} was not assigned", batch.queue());
            note(batch.messages().map(|message| message.body()), seen);
        }
        Some(Delivery::Rebalanced { assigned, revoked }) => {
            for queue in revoked {
                assert!(owned.remove(&queue.queue.0), "it was assigned before");
            }
            for queue in assigned {
                assert!(owned.insert(queue.queue.0), "it was not assigned before");
            }
        }
        Some(_) => panic!("nothing else is to come"),
        None => {}
    }
    consumer.commit().expect("the broker is there");
}

fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "it has not come about in time");
    }
}

#[test]
fn members_share_the_queues_and_every_message_is_read_once() {
    let broker = FakeBroker::start(2);
    let topic = broker.create("orders", QUEUES);
    produce(&broker, &topic, 300);
    let mut seen = HashMap::new();
    let (mut owned_a, mut owned_b) = (HashSet::new(), HashSet::new());
    let mut a = member(&broker, &topic, quick());
    until(|| {
        step(&mut a, &mut owned_a, &mut seen);
        owned_a.len() == QUEUES as usize
    });
    let mut b = member(&broker, &topic, quick());
    until(|| {
        step(&mut a, &mut owned_a, &mut seen);
        step(&mut b, &mut owned_b, &mut seen);
        assert!(owned_a.is_disjoint(&owned_b));
        owned_a.len() == 3 && owned_b.len() == 3
    });
    until(|| {
        step(&mut a, &mut owned_a, &mut seen);
        step(&mut b, &mut owned_b, &mut seen);
        seen.len() == 300
    });
    assert!(
        seen.values().all(|&count| count == 1),
        "what is committed when a queue is given up is not read again"
    );
    a.close().expect("it leaves");
    until(|| {
        step(&mut b, &mut owned_b, &mut seen);
        owned_b.len() == QUEUES as usize
    });
}

#[test]
fn a_member_whose_session_ended_joins_again() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", QUEUES);
    produce(&broker, &topic, 60);
    let mut seen = HashMap::new();
    let mut owned = HashSet::new();
    let mut consumer = member(&broker, &topic, quick());
    until(|| {
        step(&mut consumer, &mut owned, &mut seen);
        seen.len() == 60
    });
    let name = consumer.member().expect("it is a member").to_owned();
    broker.state().forget(&name);
    let mut was_revoked = false;
    until(|| {
        step(&mut consumer, &mut owned, &mut seen);
        was_revoked |= owned.is_empty();
        was_revoked && owned.len() == QUEUES as usize
    });
    assert_eq!(broker.state().members, [name]);
    produce(&broker, &topic, 120);
    until(|| {
        step(&mut consumer, &mut owned, &mut seen);
        seen.len() == 120
    });
    assert!(seen.values().all(|&count| count <= 2), "the first 60 bodies were produced twice");
}

#[test]
fn a_member_that_reads_to_the_end_says_when_it_is_there() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", QUEUES);
    produce(&broker, &topic, 60);
    let mut consumer = member(&broker, &topic, ConsumerOptions { until: Until::End, ..quick() });
    let mut count = 0;
    loop {
        match consumer.poll(Duration::from_secs(10)).expect("the broker is there") {
            Some(Delivery::Messages(batch)) => count += batch.message_count(),
            Some(Delivery::Rebalanced { assigned, .. }) => assert_eq!(assigned.len(), QUEUES as usize),
            Some(Delivery::End) => break,
            _ => panic!("nothing else is to come"),
        }
    }
    assert_eq!(count, 60);
}

/// The broker begins anew, and while the member does not know, its queues are somebody else's.
/// A member that reads all queues, and whose next heartbeat is far away.
fn reading_member(
    broker: &FakeBroker,
    topic: &TopicName,
    owned: &mut HashSet<u32>,
    seen: &mut HashMap<String, u32>,
) -> Consumer {
    let options = ConsumerOptions { session_timeout: Duration::from_secs(300), ..ConsumerOptions::default() };
    let mut consumer = member(broker, topic, options);
    until(|| {
        step(&mut consumer, owned, seen);
        owned.len() == QUEUES as usize && broker.state().fetches() >= QUEUES as usize
    });
    consumer
}

#[test]
fn a_member_joins_again_before_it_reads_on_after_a_lost_connection() {
    let broker = FakeBroker::start(2);
    let topic = broker.create("orders", QUEUES);
    let mut seen = HashMap::new();
    let mut owned = HashSet::new();
    let mut consumer = reading_member(&broker, &topic, &mut owned, &mut seen);
    broker.state().forget_groups();
    broker.state().asked.clear();
    broker.hang_up();
    produce(&broker, &topic, 60);
    until(|| match consumer.poll(Duration::from_millis(10)) {
        Ok(Some(Delivery::Rebalanced { revoked, .. })) => revoked.len() == QUEUES as usize,
        Ok(Some(Delivery::Messages(_))) => panic!("they may be somebody else's"),
        _ => false,
    });
    let asked = broker.state().asked.clone();
    assert!(!asked.contains(&"fetch"), "{asked:?}");
    until(|| {
        match consumer.poll(Duration::from_millis(10)) {
            Ok(Some(Delivery::Messages(batch))) => {
                note(batch.messages().map(|message| message.body()), &mut seen)
            }
            Ok(_) => {}
            // The other shard's connection has ended as well.
            Err(error) => assert!(error.is_connection_loss(), "{error}"),
        }
        seen.len() == 60
    });
}

/// The connection over which it joins is another one than those it reads over.
#[test]
fn a_member_joins_again_when_its_own_connection_ends() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", QUEUES);
    let (mut seen, mut owned) = (HashMap::new(), HashSet::new());
    let mut consumer = reading_member(&broker, &topic, &mut owned, &mut seen);
    broker.state().asked.clear();
    let joining = broker.state().joined_over.take().expect("it has joined");
    joining.shutdown(std::net::Shutdown::Both).expect("a socket");
    until(|| {
        step(&mut consumer, &mut owned, &mut seen);
        broker.state().asked.contains(&"join")
    });
    assert_eq!(owned.len(), QUEUES as usize, "nothing else has changed");
}

#[test]
fn a_refused_fetch_makes_a_member_join_again() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", QUEUES);
    let (mut seen, mut owned) = (HashMap::new(), HashSet::new());
    let mut consumer = reading_member(&broker, &topic, &mut owned, &mut seen);
    // As when the session has ended and nobody has said so. The fetches that wait are answered for the holder only.
    broker.state().forget_groups();
    produce(&broker, &topic, 60);
    let mut was_revoked = false;
    until(|| {
        step(&mut consumer, &mut owned, &mut seen);
        was_revoked |= owned.is_empty();
        seen.len() == 60
    });
    assert!(was_revoked && broker.state().stale_fetches > 0);
    assert!(seen.values().all(|count| *count == 1));
}

/// The group cannot be asked yet, but the queues could be read.
#[test]
fn a_member_that_cannot_join_again_reads_nothing() {
    let broker = FakeBroker::start(1);
    let topic = broker.create("orders", QUEUES);
    let (mut seen, mut owned) = (HashMap::new(), HashSet::new());
    let mut consumer = member(&broker, &topic, ConsumerOptions::default());
    until(|| {
        step(&mut consumer, &mut owned, &mut seen);
        owned.len() == QUEUES as usize && broker.state().fetches() >= QUEUES as usize
    });
    broker.state().refuse_joins = true;
    broker.state().asked.clear();
    broker.hang_up();
    produce(&broker, &topic, 60);
    until(|| {
        let is_message = matches!(consumer.poll(Duration::from_millis(10)), Ok(Some(Delivery::Messages(_))));
        assert!(!is_message, "its queues may be somebody else's");
        let state = broker.state();
        state.asked.iter().filter(|kind| **kind == "join").count() >= 3
    });
    assert_eq!(broker.state().fetches(), 0, "nothing is asked for either");
    broker.state().refuse_joins = false;
    until(|| {
        step(&mut consumer, &mut owned, &mut seen);
        seen.len() == 60
    });
    assert!(seen.values().all(|count| *count == 1));
}
