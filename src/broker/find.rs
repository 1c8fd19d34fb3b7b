//! Finding stored messages: by a key over all shards, or by their place on one.
//!
//! Whatever the key index or an id says is checked against the log and the consume index: a message is found when a
//! consumer can read it at its offset, and never otherwise.

use std::time::Duration;

use bytes::Bytes;

use super::client_requests::unexpected;
use super::peers::{PeerReply, PeerRequest};
use super::shard_broker::Broker;
use crate::api::{Failure, FindMessages, Found, FoundMessage, Reply, Status};
use crate::disk::Disk;
use crate::index::keys::KeyIndex;
use crate::index::{IndexError, LookupMax};
use crate::limits;
use crate::types::{QueueOffset, RecordPlace, ShardId, Timestamp, TopicId, TopicName};
use crate::wire::batch::{BatchHeader, Kind, stored_records};
use crate::wire::properties::{self, keys, names};
use crate::wire::record::RecordView;

/// How long a look-up waits for the index to take in what was stored before it.
const INDEX_WAIT: Duration = Duration::from_secs(2);
/// Places that one shard looks at for one look-up: a key of very many messages ends here.
const PLACES_MAX: usize = 4_096;
/// After damage the part of the index is made again, and the look-up begins anew.
const ATTEMPTS_MAX: usize = 3;

/// What is looked for on one shard.
#[derive(Clone, Debug)]
pub enum FindHere {
    Key { topic: TopicId, key: String, count: usize, from: Timestamp, to: Timestamp },
    Place(RecordPlace),
}

/// A key, as a record must have it.
struct Sought<'a> {
    topic: TopicId,
    key: &'a [u8],
    count: usize,
    from: Timestamp,
    to: Timestamp,
}

/// What became of one place.
enum Checked {
    Message(FoundMessage),
    /// It has another key, or can not be delivered.
    Nothing,
    /// Everything from here on is older than what was asked for.
    TooOld,
}

impl<D: Disk> Broker<D> {
    /// Looks messages up, over all shards that may have them.
    pub(super) async fn find_messages(&self, find: FindMessages) -> Result<Reply, Failure> {
        match find {
            FindMessages::Key { topic, key, count, from, to } => {
                let here = self.find_of_key(&topic, &key, count, (from, to))?;
                let shards = (0..self.options.shard_count).map(ShardId);
                self.find_on(shards.collect(), &here, count as usize).await.map(Reply::Found)
            }
            FindMessages::Position { shard, position, index } => {
                if shard.0 >= self.options.shard_count {
                    let last = self.options.shard_count - 1;
                    return Err(Failure::invalid(format!("the node has shards 0 to {last}, not {shard}")));
                }
                let here = FindHere::Place(RecordPlace { position, index });
                self.find_on(vec![shard], &here, 1).await.map(Reply::Found)
            }
        }
    }

    fn find_of_key(
        &self,
        topic: &TopicName,
        key: &str,
        count: u32,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<FindHere, Failure> {
        if key.is_empty() || key.len() > limits::KEY_BYTES_MAX {
            let max = limits::KEY_BYTES_MAX;
            return Err(Failure::invalid(format!("a key has 1 to {max} bytes, not {}", key.len())));
        }
        if !(1..=limits::FIND_MESSAGES_MAX).contains(&count) {
            let max = limits::FIND_MESSAGES_MAX;
            return Err(Failure::invalid(format!("a look-up returns 1 to {max} messages, not {count}")));
        }
        let tables = self.tables.borrow();
        let Some(topic) = tables.topic_named(topic) else {
            return Err(Failure::new(Status::TopicNotExist, format!("topic {topic} does not exist")));
        };
        Ok(FindHere::Key { topic: topic.id, key: key.to_owned(), count: count as usize, from, to })
    }

    async fn find_on(&self, shards: Vec<ShardId>, here: &FindHere, count: usize) -> Result<Found, Failure> {
        let peers = self.peers()?;
        let asked = shards.into_iter().map(|shard| peers.ask(shard, PeerRequest::FindHere(here.clone())));
        let mut all = Found { messages: Vec::new(), complete: true };
        for reply in futures_util::future::join_all(asked.collect::<Vec<_>>()).await {
            match reply? {
                PeerReply::Found(found) => {
                    all.messages.extend(found.messages);
                    all.complete &= found.complete;
                }
                other => return Err(unexpected(&other)),
            }
        }
        all.messages.sort_by_key(|found| std::cmp::Reverse((found.store_time, found.position, found.index)));
        all.messages.truncate(count);
        // An answer goes into one frame; the first message always fits.
        let mut bytes = 0;
        let fitting = all.messages.iter().take_while(|found| {
            bytes += found.record.len();
            bytes <= limits::FETCH_BYTES_MAX
        });
        let fitting = fitting.count().max(1);
        all.complete &= fitting >= all.messages.len();
        all.messages.truncate(fitting);
        Ok(all)
    }

    /// Looks messages up on this shard.
    pub(super) async fn find_here(&self, find: FindHere) -> Result<Found, Failure> {
        match find {
            FindHere::Place(place) => {
                let place = place.in_log(self.log.watermarks().durable_end());
                let found = self.message_at(place, None).await.map_err(|error| self.lookup_failed(&error))?;
                let messages = match found {
                    Checked::Message(message) => vec![message],
                    Checked::Nothing | Checked::TooOld => Vec::new(),
                };
                Ok(Found { messages, complete: true })
            }
            FindHere::Key { topic, key, count, from, to } => {
                let sought = Sought { topic, key: key.as_bytes(), count, from, to };
                self.find_key(&sought).await
            }
        }
    }

    async fn find_key(&self, sought: &Sought<'_>) -> Result<Found, Failure> {
        let mut found = Found::default();
        for _ in 0..ATTEMPTS_MAX {
            let complete = self.keys_are_indexed(INDEX_WAIT).await;
            let Some(index) = self.keys.index() else { return Ok(found) };
            found = Found { messages: Vec::new(), complete };
            match self.search_keys(&index, sought, &mut found).await {
                Ok(()) => return Ok(found),
                Err(error @ IndexError::Damaged { .. }) if !index.owns(&error) => {
                    return Err(self.lookup_failed(&error));
                }
                Err(IndexError::Damaged { file, .. }) => {
                    found.complete = false;
                    self.metrics.key_runs_damaged.add(1);
                    let removed = index.distrust(&file).await;
                    removed.map_err(|error| self.lookup_failed(&error.into()))?;
                }
                Err(error) => return Err(self.lookup_failed(&error)),
            }
        }
        Ok(found)
    }

    /// Goes through all places of a key, newest first.
    async fn search_keys(
        &self,
        index: &KeyIndex<D>,
        sought: &Sought<'_>,
        found: &mut Found,
    ) -> Result<(), IndexError> {
        // One moment: what is in memory now is in no run of the search.
        let mut in_memory = self.keys.collected(sought.topic, sought.key);
        let mut search = index.search(sought.topic, sought.key);
        in_memory.reverse();
        let mut stored = search.next(index).await?;
        for _ in 0..PLACES_MAX {
            // Both come newest first; what is in memory may be an old part that is indexed again.
            let next = match (in_memory.last(), stored) {
                (Some(recent), stored) if stored.is_none_or(|stored| stored < *recent) => in_memory.pop(),
                (_, Some(place)) => {
                    stored = search.next(index).await?;
                    Some(place)
                }
                (_, None) => None,
            };
            let Some(place) = next else { return Ok(()) };
            match self.message_at(place, Some(sought)).await? {
                Checked::Message(message) => found.messages.push(message),
                Checked::Nothing => {}
                Checked::TooOld => return Ok(()),
            }
            let bytes: usize = found.messages.iter().map(|found| found.record.len()).sum();
            if found.messages.len() >= sought.count || bytes > limits::FETCH_BYTES_MAX {
                return Ok(());
            }
        }
        found.complete = false;
        Ok(())
    }

    /// The message at a place, when a consumer could read it, and when it is what is sought.
    async fn message_at(
        &self,
        place: RecordPlace,
        sought: Option<&Sought<'_>>,
    ) -> Result<Checked, IndexError> {
        let Some((header, bytes)) = self.log.batch_at(place.position).await? else {
            return Ok(Checked::Nothing);
        };
        if header.kind != Kind::Messages || u32::from(place.index) >= header.record_count {
            return Ok(Checked::Nothing);
        }
        // Store times never fall within a log.
        if sought.is_some_and(|sought| header.store_time < sought.from) {
            return Ok(Checked::TooOld);
        }
        if sought.is_some_and(|sought| header.key.topic != sought.topic || header.store_time > sought.to) {
            return Ok(Checked::Nothing);
        }
        let Some(record) = stored_records(&bytes).nth(usize::from(place.index)) else {
            return Ok(Checked::Nothing);
        };
        if sought.is_some_and(|sought| !has_key(&record, sought.key)) {
            return Ok(Checked::Nothing);
        }
        let topic = self.tables.borrow().topic(header.key.topic).map(|topic| topic.name.clone());
        let queue = self.queues.borrow().get(&header.key).cloned();
        let (Some(topic), Some(queue)) = (topic, queue) else { return Ok(Checked::Nothing) };
        let offset = header.base_offset.advance(u64::from(place.index));
        let (first, end) = self.bounds(&queue);
        if offset < first || offset >= end || !self.is_indexed(&header, offset).await? {
            return Ok(Checked::Nothing);
        }
        let born_ms = header.born_time.0.saturating_add_signed(i64::from(record.born_delta_ms()));
        Ok(Checked::Message(FoundMessage {
            topic,
            key: header.key,
            offset,
            shard: self.options.shard,
            position: place.position,
            index: place.index,
            record: Bytes::copy_from_slice(record.as_bytes()),
            born_time: Timestamp(born_ms),
            store_time: header.store_time,
        }))
    }

    /// Whether readers of the queue get this batch: not one that an earlier recovery has cut off.
    async fn is_indexed(&self, header: &BatchHeader, offset: QueueOffset) -> Result<bool, IndexError> {
        let max = LookupMax { entries: 1, bytes: 0, records: 1 };
        let entries = self.index.lookup(header.key, offset, max).await?;
        Ok(entries.first().is_some_and(|entry| entry.position == header.position))
    }

    fn lookup_failed(&self, error: &IndexError) -> Failure {
        match error {
            // Of the consume index: damage of the key index is dealt with on the way.
            IndexError::Damaged { .. } => self.index_damaged(error),
            error => Failure::new(Status::StorageFailed, error.to_string()),
        }
    }
}

/// Whether a record has the key: among its keys, or as its unique id.
fn has_key(record: &RecordView<'_>, key: &[u8]) -> bool {
    keys(record.key()).any(|found| found == key)
        || properties::get(record.properties(), names::UNIQUE_ID) == Some(key)
}
