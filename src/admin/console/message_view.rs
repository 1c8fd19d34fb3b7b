//! Stored messages as the console is told them.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::ids::Ids;
use crate::api::FoundMessage;
use crate::types::{QueueNumber, QueueOffset, RecordLocation, ShardId, Timestamp};
use crate::wire::batch::{BatchHeader, align_batch, stored_records};
use crate::wire::origin::BodyEncoding;
use crate::wire::properties::{self, Properties, names};
use crate::wire::record::RecordView;

/// What a list shows of a body.
const PREVIEW_CHARACTERS_MAX: usize = 160;

/// A message's place, and what its batch says of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub topic: &'a str,
    pub queue: QueueNumber,
    pub offset: QueueOffset,
    pub shard: ShardId,
    pub location: RecordLocation,
    pub born_time: Timestamp,
    pub store_time: Timestamp,
}

/// A message in a list. What is no UTF-8 is shown with replacement characters.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MessageRow {
    topic: String,
    pub queue: u32,
    pub offset: u64,
    shard: u16,
    /// As text, since numbers of scripts are no good for all of it.
    position: String,
    index: u16,
    id: Option<String>,
    unique_id: Option<String>,
    keys: String,
    tag: String,
    born_time_ms: u64,
    pub store_time_ms: u64,
    /// As it is stored.
    body_bytes: usize,
    /// The beginning of a body that is text.
    preview: Option<String>,
    /// The topic of a dead letter before it was one, or of a message that is to be consumed once more.
    origin_topic: Option<String>,
    deliveries: Option<String>,
    /// Of dead letters: it was sent once more, and is none any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redriven: Option<bool>,
}

/// All of a message.
#[derive(Serialize)]
pub(super) struct MessageView {
    #[serde(flatten)]
    row: MessageRow,
    properties: Vec<(String, String)>,
    body_base64: String,
    /// How it is compressed where it is stored; `null`: not at all.
    encoding: Option<&'static str>,
    /// Why the body is shown as it is stored.
    body_unreadable: Option<String>,
}

impl MessageRow {
    pub fn new(place: &Place<'_>, record: &RecordView<'_>, ids: &Ids) -> Self {
        let property = |name| properties::get(record.properties(), name).map(text);
        let is_plain = record.attributes().encoding == BodyEncoding::Plain;
        Self {
            topic: place.topic.to_owned(),
            queue: place.queue.0,
            offset: place.offset.0,
            shard: place.shard.0,
            position: place.location.position.0.to_string(),
            index: place.location.index,
            id: ids.id(place.shard, place.location).map(|id| id.to_string()),
            unique_id: property(names::UNIQUE_ID),
            keys: text(record.key()),
            tag: text(record.tag()),
            born_time_ms: place.born_time.0,
            store_time_ms: place.store_time.0,
            body_bytes: record.body().len(),
            preview: if is_plain { preview(record.body()) } else { None },
            origin_topic: property(names::RETRY_TOPIC).or_else(|| property(names::DEAD_LETTER_TOPIC)),
            deliveries: property(names::RECONSUME_TIMES),
            redriven: None,
        }
    }
}

impl MessageView {
    pub fn new(place: &Place<'_>, record: &RecordView<'_>, ids: &Ids) -> Self {
        let (body, unreadable) = match record.plain_body() {
            Ok(plain) => (plain, None),
            Err(error) => (Cow::Borrowed(record.body()), Some(error.to_string())),
        };
        let encoding = record.attributes().encoding;
        Self {
            row: MessageRow::new(place, record, ids),
            properties: Properties::new(record.properties())
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            body_base64: STANDARD.encode(&body),
            encoding: (encoding != BodyEncoding::Plain).then(|| encoding.name()),
            body_unreadable: unreadable,
        }
    }
}

/// Where a message that was looked up is.
pub(super) fn place_of(found: &FoundMessage) -> Place<'_> {
    Place {
        topic: found.topic.as_str(),
        queue: found.key.queue,
        offset: found.offset,
        shard: found.shard,
        location: RecordLocation { position: found.position, index: found.index },
        born_time: found.born_time,
        store_time: found.store_time,
    }
}

/// Whose batches are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub topic: &'a str,
    pub queue: QueueNumber,
    pub shard: ShardId,
}

/// Gives `take` the messages with these offsets that are in batches as they are stored.
pub(super) fn each_message(
    of: Source<'_>,
    batches: &[u8],
    offsets: Range<u64>,
    mut take: impl FnMut(&Place<'_>, &RecordView<'_>),
) {
    let mut start = 0;
    while let Some(batch) = batches.get(start..).filter(|rest| !rest.is_empty()) {
        let Ok(header) = BatchHeader::decode(batch) else { return };
        let Some(bytes) = batch.get(..header.batch_bytes as usize) else { return };
        for (index, record) in (0..header.record_count).zip(stored_records(bytes)) {
            let offset = header.base_offset.advance(u64::from(index));
            if !offsets.contains(&offset.0) {
                continue;
            }
            // A batch has no more records than an index counts.
            let location = RecordLocation { position: header.position, index: index as u16 };
            let born = header.born_time.0.saturating_add_signed(i64::from(record.born_delta_ms()));
            let place = Place {
                topic: of.topic,
                queue: of.queue,
                offset,
                shard: of.shard,
                location,
                born_time: Timestamp(born),
                store_time: header.store_time,
            };
            take(&place, &record);
        }
        start += align_batch(u64::from(header.batch_bytes)) as usize;
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The beginning of a text; `None` when it is none.
fn preview(body: &[u8]) -> Option<String> {
    // A character has up to four bytes, and the last one may be cut.
    let beginning = &body[..body.len().min(4 * PREVIEW_CHARACTERS_MAX)];
    let text = match std::str::from_utf8(beginning) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() && beginning.len() < body.len() => {
            std::str::from_utf8(&beginning[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    Some(text.chars().take(PREVIEW_CHARACTERS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_text_is_cut_between_characters() {
        assert_eq!(preview(b"three apples").as_deref(), Some("three apples"));
        assert_eq!(preview(b"").as_deref(), Some(""));
        assert_eq!(preview(b"\xff\x00"), None);
        assert_eq!(preview(b"cut \xc3"), None, "a body that ends within a character is no text");
        let long = "\u{20ac}".repeat(1_000);
        assert_eq!(preview(long.as_bytes()).map(|text| text.chars().count()), Some(PREVIEW_CHARACTERS_MAX));
    }
}
