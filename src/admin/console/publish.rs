//! A message that somebody publishes from the console.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::asking::Asking;
use super::change;
use super::ids::Ids;
use super::parameters::{document, name};
use crate::admin::answer::Answer;
use crate::api::{Failure, Produce, Status, TopicInfo};
use crate::runtime::wall_clock;
use crate::types::{
    QueueKey, QueueNumber, RecordLocation, Timestamp, TopicName, UniqueId, UniqueIdGenerator,
};
use crate::wire::batch::BatchBuilder;
use crate::wire::properties::{self, names};
use crate::wire::record::Record;

/// What is to be published.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    body: String,
    #[serde(default)]
    tag: String,
    /// Separated by blanks.
    #[serde(default)]
    keys: String,
    #[serde(default)]
    properties: Vec<(String, String)>,
    /// `null`: any.
    queue: Option<u32>,
}

#[derive(Serialize)]
struct PublishedView {
    topic: String,
    queue: u32,
    offset: u64,
    id: Option<String>,
    unique_id: String,
    level: &'static str,
}

/// Gives ids to what is published, one after the other.
pub(super) struct Publisher(RefCell<UniqueIdGenerator>);

impl Default for Publisher {
    fn default() -> Self {
        let random = RandomState::new().build_hasher().finish() as u32;
        Self(RefCell::new(UniqueIdGenerator::new(Ipv4Addr::LOCALHOST, std::process::id(), random)))
    }
}

impl Publisher {
    fn next(&self, now: Timestamp) -> UniqueId {
        self.0.borrow_mut().next(now)
    }
}

/// `POST /api/topics/TOPIC/messages`. No topic is made by it.
pub(super) async fn publish(asking: Asking<'_>, topic: &str) -> Result<Answer, Failure> {
    change::check(asking).await?;
    let topic: TopicName = name(topic)?;
    let wanted: Wanted = document(asking).await?;
    let topic = asking.topic(topic).await?;
    let now = wall_clock();
    let id = asking.visit.admin.console.publisher.next(now);
    let batch = batch_of(&wanted, &id, now)?;
    let key = QueueKey { topic: topic.id, queue: queue_of(&topic, wanted.queue, &id)? };
    let produced = asking.produce(Produce { key, level: None, batch: batch.into() }).await?;
    let addresses = asking.addresses().await?;
    let location = RecordLocation { position: produced.position, index: 0 };
    let shard = key.queue.shard(addresses.len().max(1) as u16);
    Ok(Answer::json(&PublishedView {
        topic: topic.topic.to_string(),
        queue: key.queue.0,
        offset: produced.base_offset.0,
        id: Ids::of(&addresses).id(shard, location).map(|id| id.to_string()),
        unique_id: id.text().to_string(),
        level: produced.level.name(),
    }))
}

fn batch_of(wanted: &Wanted, id: &UniqueId, now: Timestamp) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    for (name, value) in &wanted.properties {
        properties::check_name(name.as_bytes()).map_err(Failure::invalid)?;
        if properties::get(&text, name).is_some() {
            return Err(Failure::invalid(format!("the property {name} is given twice")));
        }
        properties::append(&mut text, name.as_bytes(), value.as_bytes()).map_err(Failure::invalid)?;
    }
    if properties::get(&text, names::UNIQUE_ID).is_none() {
        properties::append(&mut text, names::UNIQUE_ID.as_bytes(), id.text().as_bytes())
            .map_err(Failure::invalid)?;
    }
    let record = Record {
        key: wanted.keys.trim_matches(' ').as_bytes(),
        tag: wanted.tag.as_bytes(),
        properties: &text,
        body: wanted.body.as_bytes(),
        ..Record::default()
    };
    record.check().map_err(Failure::invalid)?;
    record.check_text().map_err(Failure::invalid)?;
    let mut batch = BatchBuilder::new(now);
    batch.push(&record);
    Ok(batch.finish())
}

fn queue_of(topic: &TopicInfo, wanted: Option<u32>, id: &UniqueId) -> Result<QueueNumber, Failure> {
    match wanted {
        // No two ids are the same, so it is any.
        None => Ok(QueueNumber::of_key(&id.0, topic.queue_count.max(1))),
        Some(queue) if queue < topic.queue_count => Ok(QueueNumber(queue)),
        Some(queue) => {
            let message = format!("topic {} has no queue {queue}: it has {}", topic.topic, topic.queue_count);
            Err(Failure::new(Status::QueueNotExist, message))
        }
    }
}
