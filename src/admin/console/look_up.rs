//! Messages by a key or an id, and all of one message.

use super::asking::{Asking, fetch_of};
use super::ids::Ids;
use super::message_view::{MessageRow, MessageView, Source, each_message, place_of};
use super::parameters::{number, optional, required};
use super::scan::{self, MessagesView};
use crate::admin::answer::Answer;
use crate::api::{Failure, FindMessages, Found, Status};
use crate::limits::{BODY_BYTES_MAX, FIND_MESSAGES_MAX};
use crate::types::{LogPosition, QueueKey, QueueOffset, RecordLocation, Timestamp, TopicName};
use crate::wire::record::RecordView;

const COUNT_USUAL: u32 = 50;

/// `GET /api/messages`: by an `id`, by a `key` of a `topic`, or by time.
pub(super) async fn messages(asking: Asking<'_>) -> Result<Answer, Failure> {
    let said = |name| asking.request.parameter(name).filter(|text| !text.trim().is_empty());
    match (said("id"), said("key")) {
        (Some(id), _) => by_id(asking, id.trim()).await,
        (None, Some(key)) => by_key(asking, key).await,
        (None, None) => scan::answer(asking).await,
    }
}

/// `GET /api/message?topic=T&queue=N&offset=O`: all of the message there. By its offset and not by its place in the log, which only
/// keys with `admin = true` may look at.
pub(super) async fn message(asking: Asking<'_>) -> Result<Answer, Failure> {
    let request = asking.request;
    let topic = asking.topic(required(request, "topic")?).await?;
    let (number, offset): (u32, u64) = (required(request, "queue")?, required(request, "offset")?);
    let Some(queue) = topic.queues.iter().find(|queue| queue.queue.0 == number) else {
        let message = format!("topic {} has no queue {number}: it has {}", topic.topic, topic.queue_count);
        return Err(Failure::new(Status::QueueNotExist, message));
    };
    let key = QueueKey { topic: topic.id, queue: queue.queue };
    let fetched = asking.fetch(fetch_of(key, QueueOffset(offset), 1, BODY_BYTES_MAX as u32)).await?;
    let ids = Ids::of(&asking.addresses().await?);
    let of = Source { topic: topic.topic.as_str(), queue: queue.queue, shard: queue.shard };
    let mut view = None;
    each_message(of, &fetched.batches, offset..offset.saturating_add(1), |place, record| {
        view = Some(MessageView::new(place, record, &ids));
    });
    let gone = "there is no message any more at this place, or never was: it may have expired";
    view.map(|view| Answer::json(&view)).ok_or_else(|| Failure::new(Status::OffsetOutOfRange, gone))
}

async fn by_id(asking: Asking<'_>, id: &str) -> Result<Answer, Failure> {
    let topic: Option<TopicName> = optional(asking.request, "topic")?;
    let ids = Ids::of(&asking.addresses().await?);
    let mut found = Found { complete: true, ..Found::default() };
    let location = ids.location_of(id);
    if let Some((shard, RecordLocation { position, index })) = location {
        found = asking.find(FindMessages::Position { shard, position, index }).await?;
        found.messages.retain(|message| topic.as_ref().is_none_or(|topic| *topic == message.topic));
    }
    // The id that a producer gave has the same number of digits, and is found like a key.
    if found.messages.is_empty() {
        match topic {
            Some(topic) => found = asking.find(key_of(topic, id, COUNT_USUAL, Times::default())).await?,
            None if location.is_none() => {
                let text =
                    "the id does not say where a message of this broker is stored: name its topic as well";
                return Err(Failure::invalid(text));
            }
            None => {}
        }
    }
    Ok(page(&found, &ids))
}

async fn by_key(asking: Asking<'_>, key: &str) -> Result<Answer, Failure> {
    let request = asking.request;
    let topic: TopicName = required(request, "topic")?;
    let count = number(request, "count", 1..=FIND_MESSAGES_MAX, COUNT_USUAL)?;
    let before = request.parameter("before").filter(|before| !before.is_empty());
    let times = Times {
        from: Timestamp(optional(request, "from")?.unwrap_or(0)),
        to: Timestamp(optional(request, "to")?.unwrap_or(u64::MAX)),
        before: before.map(parse_locations).transpose()?.unwrap_or_default(),
    };
    let found = asking.find(key_of(topic, key, count, times)).await?;
    Ok(page(&found, &Ids::of(&asking.addresses().await?)))
}

/// Between which times, and before what of each shard.
struct Times {
    from: Timestamp,
    to: Timestamp,
    before: Vec<RecordLocation>,
}

impl Default for Times {
    fn default() -> Self {
        Self { from: Timestamp(0), to: Timestamp(u64::MAX), before: Vec::new() }
    }
}

fn key_of(topic: TopicName, key: &str, count: u32, times: Times) -> FindMessages {
    let Times { from, to, before } = times;
    FindMessages::Key { topic, key: key.to_owned(), count, from, to, before }
}

fn page(found: &Found, ids: &Ids) -> Answer {
    let row = |message| {
        let place = place_of(message);
        RecordView::cut(&message.record).ok().map(|(record, _)| MessageRow::new(&place, &record, ids))
    };
    let next = (!found.next.is_empty()).then(|| locations_text(&found.next));
    let messages = found.messages.iter().filter_map(row).collect();
    Answer::json(&MessagesView { messages, next, complete: found.complete })
}

/// A location for each shard, its parts in hexadecimal, as `turbopump message find --after` takes them.
fn locations_text(locations: &[RecordLocation]) -> String {
    let texts = locations.iter().map(|location| format!("{:x}.{:x}", location.position.0, location.index));
    texts.collect::<Vec<_>>().join("-")
}

fn parse_locations(text: &str) -> Result<Vec<RecordLocation>, Failure> {
    let parse = |part: &str| {
        let (position, index) = part.split_once('.').filter(|_| !part.contains('+'))?;
        let position = LogPosition(u64::from_str_radix(position, 16).ok()?);
        Some(RecordLocation { position, index: u16::from_str_radix(index, 16).ok()? })
    };
    let locations: Option<Vec<_>> = text.split('-').map(parse).collect();
    locations.ok_or_else(|| {
        Failure::invalid("`before` is not the `next` of a page of the same look-up: begin anew")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_the_next_one_begins() {
        let location = |position, index| RecordLocation { position: LogPosition(position), index };
        let locations = vec![location(504, 2), location(u64::MAX, u16::MAX)];
        let text = locations_text(&locations);
        assert_eq!(text, "1f8.2-ffffffffffffffff.ffff");
        assert_eq!(parse_locations(&text), Ok(locations));
        for wrong in ["", "1", "1.", ".1", "1.1-", "+1.1", "x.1", "1.10000"] {
            assert!(parse_locations(wrong).is_err(), "{wrong}");
        }
    }
}
