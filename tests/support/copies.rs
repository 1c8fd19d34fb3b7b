//! Messages with all of their parts, to be compared with copies of theirs.

use std::time::Instant;

use turbopump::api::{Produce, ProduceCopies, Reply, Request};
use turbopump::client::{Client, Connection, Consumer, ConsumerOptions, Delivery, Timeouts, Until};
use turbopump::types::{QueueKey, QueueNumber, Timestamp};
use turbopump::wire::batch::BatchBuilder;
use turbopump::wire::origin::{Attributes, Origin};
use turbopump::wire::record::Record;

use super::load::topic;
use super::node::{Node, PATIENCE};

/// Every part of a message but its place and the time when it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub key: Vec<u8>,
    pub tag: Vec<u8>,
    pub properties: Vec<u8>,
    /// As it is stored.
    pub body: Vec<u8>,
    pub attributes: Attributes,
    pub origin: Option<Origin>,
    pub born_ms: u64,
}

/// All messages of a topic, queue by queue, in their order.
pub fn read_whole(client: Client, name: &str) -> Vec<Vec<Whole>> {
    let options = ConsumerOptions { until: Until::End, ..ConsumerOptions::default() };
    let mut consumer = Consumer::assign(client, topic(name), None, None, options).expect("the topic exists");
    let mut queues: Vec<Vec<Whole>> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the end does not come");
        match consumer.poll(PATIENCE).expect("the broker answers") {
            Some(Delivery::Messages(batch)) => {
                let queue = batch.queue().0 as usize;
                queues.resize(queues.len().max(queue + 1), Vec::new());
                queues[queue].extend(batch.messages().map(|message| Whole {
                    key: message.key().to_vec(),
                    tag: message.tag().to_vec(),
                    properties: message.properties().to_vec(),
                    body: message.body().to_vec(),
                    attributes: message.attributes(),
                    origin: message.origin(),
                    born_ms: message.born_time.0,
                }));
            }
            Some(Delivery::End) => return queues,
            Some(Delivery::Damaged(range)) => panic!("damage that nobody did: {range:?}"),
            Some(Delivery::Moved { .. } | Delivery::Rebalanced { .. }) | None => {
                panic!("something else came")
            }
        }
    }
}

/// Stores a message with all of its parts in a queue.
pub fn store_whole(node: &Node, name: &str, queue: u32, message: &Whole) {
    let id = node.client().topic(&topic(name)).expect("it exists").id;
    let mut builder = BatchBuilder::new(Timestamp(message.born_ms));
    builder.push(&Record {
        key: &message.key,
        tag: &message.tag,
        properties: &message.properties,
        body: &message.body,
        born_delta_ms: 0,
        attributes: message.attributes,
        origin: message.origin,
    });
    let key = QueueKey { topic: id, queue: QueueNumber(queue) };
    let produce = Produce { key, level: None, batch: builder.finish().into() };
    let mut connection = Connection::connect(node.address(), Timeouts::default()).expect("it listens");
    let reply = connection.call(&Request::ProduceCopies(ProduceCopies { produce, at: None }));
    assert!(matches!(reply, Ok(Reply::Produced(_))), "{reply:?}");
}

impl Whole {
    pub fn of_body(body: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Vec::new(),
            tag: Vec::new(),
            properties: Vec::new(),
            body: body.into(),
            attributes: Attributes::default(),
            origin: None,
            born_ms: 1_700_000_000_000,
        }
    }
}
