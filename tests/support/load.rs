//! Messages in and out through the client library.

use std::time::{Duration, Instant};

use turbopump::api::{ClientProtocol, Filter, Receive, TopicChange};
use turbopump::client::{
    Client, Consumer, ConsumerOptions, Delivery, Message, Producer, ProducerOptions, Start, Until,
};
use turbopump::types::{QueueNumber, QueueOffset, TopicName};

use super::node::{Node, PATIENCE};

/// A topic's name from text.
pub fn topic(name: &str) -> TopicName {
    name.parse().expect("a topic's name")
}

pub fn create_topic(client: &mut Client, name: &str, queues: u32) {
    let change = TopicChange { topic: topic(name), queues: Some(queues), retention: None, level: None };
    client.create_topic(change).expect("a new topic");
}

pub fn producer(node: &Node, name: &str) -> Producer {
    Producer::new(node.client(), topic(name), ProducerOptions::default()).expect("the topic exists")
}

/// Stores one message per body in one queue.
pub fn produce<'a>(node: &Node, name: &str, queue: u32, bodies: impl IntoIterator<Item = &'a [u8]>) {
    let mut producer = producer(node, name);
    for body in bodies {
        let message = Message { body, queue: Some(QueueNumber(queue)), ..Message::default() };
        producer.send(&message).expect("the broker takes it");
    }
    producer.flush().expect("the broker answers");
    assert_eq!(producer.first_failure(), None, "everything is acknowledged");
}

/// A message as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub queue: u32,
    pub offset: u64,
    pub body: Vec<u8>,
}

/// Reads from `start` to the end: one queue, or all of them.
pub fn read(client: Client, name: &str, queue: Option<u32>, start: Start) -> Vec<Read> {
    let queues = queue.map(|queue| vec![QueueNumber(queue)]);
    let options = ConsumerOptions { start, until: Until::End, ..ConsumerOptions::default() };
    let mut consumer =
        Consumer::assign(client, topic(name), queues, None, options).expect("the topic exists");
    let mut messages = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while let Some(more) = next_messages(&mut consumer, PATIENCE) {
        messages.extend(more);
        assert!(Instant::now() < deadline, "the end does not come");
    }
    messages
}

/// The next batch's messages; `None` at the end. Anything else is not expected.
pub fn next_messages(consumer: &mut Consumer, timeout: Duration) -> Option<Vec<Read>> {
    match consumer.poll(timeout).expect("the broker answers") {
        Some(Delivery::Messages(batch)) => {
            let queue = batch.queue().0;
            let read = batch.messages().map(|message| Read {
                queue,
                offset: message.offset.0,
                body: message.body().to_owned(),
            });
            Some(read.collect())
        }
        Some(Delivery::End) => None,
        Some(Delivery::Damaged(range)) => panic!("damage that nobody did: {range:?}"),
        Some(Delivery::Moved { queue, from, to }) => panic!("{queue:?} moved from {from} to {to}"),
        Some(Delivery::Rebalanced { .. }) => Some(Vec::new()),
        None => panic!("nothing came within {timeout:?}"),
    }
}

/// First offset and end of one queue.
pub fn bounds(client: &mut Client, name: &str, queue: u32) -> (QueueOffset, QueueOffset) {
    let info = client.describe_topic(&topic(name)).expect("the topic exists");
    let found = info.queues.iter().find(|info| info.queue.0 == queue).expect("the queue exists");
    (found.first_offset, found.end_offset)
}

/// As much as one receive of topic `orders` may have, at once.
pub fn receive_from_orders(group: &str) -> Receive {
    Receive {
        protocol: ClientProtocol::Native,
        group: group.parse().expect("a name"),
        topic: topic("orders"),
        scope: Default::default(),
        filter: Filter::default(),
        count: 32,
        bytes_max: 1 << 20,
        wait: Duration::ZERO,
        lease: None,
        ordered: false,
    }
}
