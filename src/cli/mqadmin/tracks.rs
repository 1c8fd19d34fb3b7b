//! Who has consumed a message, as far as the places of groups tell.

use serde::Serialize;

use crate::cli::mqadmin::admin::{Admin, brokers_of};
use crate::cli::mqadmin::caller::CallError;
use crate::cli::mqadmin::clients::consumers_of;
use crate::cli::mqadmin::message::Message;
use crate::cli::mqadmin::progress::progress_of;
use crate::cli::output::on_one_line;
use crate::protocol::remoting::ResponseCode;
use crate::protocol::remoting::body::{BrokerQueue, ToldSubscription};
use crate::wire::properties::names;

/// What became of a message in a group.
#[derive(Serialize)]
pub struct Track {
    group: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Track {
    pub fn line(&self) -> String {
        let Self { group, state, reason } = self;
        let reason = reason.as_deref().unwrap_or("null");
        let group = on_one_line(group);
        format!("MessageTrack [consumerGroup={group}, trackType={state}, exceptionDesc={reason}]\n")
    }
}

/// What became of a message in each group that consumes its topic.
pub fn tracks_of(admin: &mut Admin, message: &Message) -> Result<Vec<Track>, CallError> {
    let Some(route) = admin.route_if_any(&message.topic)? else { return Ok(Vec::new()) };
    let mut groups = Vec::new();
    for broker in brokers_of(&route) {
        match admin.groups_of(&broker.address, &message.topic) {
            Ok(found) => groups.extend(found),
            // One that has no such request, or no such topic any more.
            Err(error) if error.code().is_some() => {}
            Err(error) => return Err(error),
        }
    }
    groups.sort();
    groups.dedup();
    groups.into_iter().map(|group| track_of(admin, message, group)).collect()
}

fn track_of(admin: &mut Admin, message: &Message, group: String) -> Result<Track, CallError> {
    let Some((_, consumers)) = consumers_of(admin, &group)? else {
        let code = ResponseCode::ConsumerNotOnline.number();
        let reason = format!("CODE:{code} DESC:the consumer group[{group}] not online");
        return Ok(Track { group, state: "NOT_ONLINE", reason: Some(reason) });
    };
    let state = match (consumers.kind.as_str(), consumers.model.as_str()) {
        ("CONSUME_PASSIVELY", "BROADCASTING") => "CONSUME_BROADCASTING",
        ("CONSUME_PASSIVELY", _) => match is_consumed(admin, message, &group)? {
            Some(true) if is_filtered(&consumers.subscriptions, message) => "CONSUMED_BUT_FILTERED",
            Some(true) => "CONSUMED",
            Some(false) => "NOT_CONSUME_YET",
            None => "UNKNOWN",
        },
        ("CONSUME_ACTIVELY", _) => "PULL",
        _ => "UNKNOWN",
    };
    Ok(Track { group, state, reason: None })
}

/// Whether the group is beyond the message; `None` where nobody tells.
fn is_consumed(admin: &mut Admin, message: &Message, group: &str) -> Result<Option<bool>, CallError> {
    let told = match progress_of(admin, group, None, None) {
        Err(error) if error.code().is_some() => return Ok(None),
        told => told?,
    };
    let is_queue = |queue: &&BrokerQueue| {
        queue.topic == message.topic
            && queue.queue == i64::from(message.queue)
            && (message.broker.is_empty() || queue.broker == message.broker)
    };
    let found = told.queues.keys().find(is_queue).and_then(|queue| told.queues.get(queue));
    Ok(Some(found.is_some_and(|place| place.committed > message.queue_offset)))
}

/// Whether the group has asked for other tags.
fn is_filtered(subscriptions: &[ToldSubscription], message: &Message) -> bool {
    let of_topic = subscriptions.iter().find(|subscription| subscription.topic == message.topic);
    let tag = message.property(names::TAGS).unwrap_or_default();
    of_topic.is_some_and(|of| !of.tags.is_empty() && !of.tags.iter().any(|asked| asked == tag))
}
