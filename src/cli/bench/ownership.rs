//! Whether a topic is the bench's own. Millions of messages that mean nothing, among those of a program, cannot be taken out
//! again: so the bench writes into a topic that it has made, and into another one only when it is told to.
//!
//! What it made is known by what is in it. Every bench message says that it is one, so a topic is the bench's when it has
//! messages, and the oldest and the newest one of each queue are of the bench. An attribute would have to be kept by the
//! broker, and a name would be anybody's.

use std::time::Duration;

use crate::api::{Fetch, QueueInfo, Reply, Request, TopicInfo};
use crate::cli::bench::message::{FillerCheck, Reading};
use crate::cli::error::CommandError;
use crate::client::Client;
use crate::types::{QueueKey, QueueOffset};
use crate::wire::batch::{BatchHeader, stored_records};

/// Refuses a topic that holds anything but the bench's messages, or nothing.
pub fn check_own(client: &mut Client, topic: &TopicInfo) -> Result<(), CommandError> {
    let name = &topic.topic;
    let refuse = |what: &str| {
        let message = format!(
            "topic {name} {what}: name one that does not exist, which bench makes, or say --existing to write into this one"
        );
        Err(CommandError::failed(message))
    };
    let mut filled = topic.queues.iter().filter(|queue| queue.first_offset < queue.end_offset).peekable();
    if filled.peek().is_none() {
        let had_messages = topic.queues.iter().any(|queue| queue.end_offset > QueueOffset::ZERO);
        return refuse(match had_messages {
            true => "has lost all of its messages to retention, so that nothing tells whose it is",
            false => "exists and is empty, so that it was not made by bench",
        });
    }
    for queue in filled {
        if !(is_own(client, topic, queue, queue.first_offset)?
            && is_own(client, topic, queue, QueueOffset(queue.end_offset.0 - 1))?)
        {
            return refuse("has messages that are not of bench");
        }
    }
    Ok(())
}

/// Whether the message at an offset is of the bench. One that cannot be read is not.
fn is_own(
    client: &mut Client,
    topic: &TopicInfo,
    queue: &QueueInfo,
    offset: QueueOffset,
) -> Result<bool, CommandError> {
    let key = QueueKey { topic: topic.id, queue: queue.queue };
    let fetch = Fetch { key, offset, bytes_max: 1, records_max: 1, session: 0, wait: Duration::ZERO };
    let Reply::Fetched(fetched) = client.call_owner(queue.queue, &Request::Fetch(fetch))? else {
        return Ok(false);
    };
    let Ok(header) = BatchHeader::decode(&fetched.batches) else { return Ok(false) };
    let Some(number) = offset.0.checked_sub(header.base_offset.0) else { return Ok(false) };
    let record = stored_records(&fetched.batches).nth(usize::try_from(number).unwrap_or(usize::MAX));
    Ok(record.is_some_and(|record| FillerCheck::default().read(record.body()) != Reading::Foreign))
}
