//! `sendMessage`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::Ipv4Addr;

use clap::Args;
use serde::Serialize;

use crate::cli::calendar;
use crate::cli::error::CommandError;
use crate::cli::mqadmin::admin::{Admin, Broker, WRITABLE, brokers_of};
use crate::cli::mqadmin::arguments::Shared;
use crate::cli::mqadmin::caller::CallError;
use crate::cli::mqadmin::columns::print;
use crate::protocol::remoting::body::TopicRoute;
use crate::protocol::remoting::call::send::{SendReceipt, SendRequest};
use crate::protocol::remoting::client::Answer;
use crate::types::{Timestamp, UniqueIdGenerator};
use crate::wire::properties::names;

/// Whose route leads to the brokers that make topics when they are sent to.
const TEMPLATE_TOPIC: &str = "TBW102";
/// Queues of each broker, where the send makes the topic.
const QUEUES_WISHED: u32 = 4;
const GROUP: &str = "TOOLS_PRODUCER";

#[derive(Debug, Args)]
pub struct SendArguments {
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    #[arg(short = 'p', long, value_name = "TEXT", allow_hyphen_values = true)]
    pub body: String,
    /// Keys to find it by, separated by blanks
    #[arg(short = 'k', long = "key", value_name = "KEYS")]
    pub keys: Option<String>,
    #[arg(short = 'c', long = "tags", value_name = "TAG")]
    pub tag: Option<String>,
    /// Name of the broker that it is sent to
    #[arg(short = 'b', long, value_name = "NAME")]
    pub broker: Option<String>,
    /// Queue of that broker
    #[arg(short = 'i', long = "qid", value_name = "N", requires = "broker")]
    pub queue: Option<u32>,
    /// Whether a trace of it is left: only clients do that
    #[arg(short = 'm', long = "msgTraceEnable", value_name = "false", default_value_t = false, action = clap::ArgAction::Set)]
    pub with_trace: bool,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Serialize)]
struct SentView {
    broker: String,
    queue: u32,
    offset: u64,
    result: &'static str,
    unique_id: String,
}

/// What a send that was carried out has come to. After all but the first a crash might lose the message.
const RESULTS: [(i32, &str); 4] =
    [(0, "SEND_OK"), (10, "FLUSH_DISK_TIMEOUT"), (11, "SLAVE_NOT_AVAILABLE"), (12, "FLUSH_SLAVE_TIMEOUT")];

pub fn run(of: &SendArguments) -> Result<(), CommandError> {
    if of.with_trace {
        return Err(CommandError::usage(
            "no trace is left by this command: leave -m out; RocketMQ's clients leave traces where they are told to",
        ));
    }
    let mut admin = Admin::new(&of.shared)?;
    let topic = of.topic.trim();
    let (broker, queue) = place(&mut admin, topic, of)?;
    let now = calendar::now();
    let unique_id = unique_id(now);
    let mut properties = Vec::new();
    let parts = [
        (names::KEYS, of.keys.as_deref().map(str::trim)),
        (names::TAGS, of.tag.as_deref().map(str::trim)),
        (names::UNIQUE_ID, Some(unique_id.as_str())),
        (names::WAIT, Some("true")),
    ];
    for (name, value) in parts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        if value.bytes().any(|byte| matches!(byte, 1 | 2)) {
            return Err(CommandError::usage("keys and tags cannot have the characters of code 1 and 2"));
        }
        properties.extend_from_slice(format!("{name}\u{1}{value}\u{2}").as_bytes());
    }
    let request = SendRequest {
        group: GROUP,
        topic,
        queue,
        queues_wished: QUEUES_WISHED,
        born_time: now,
        properties: &properties,
        is_batch: false,
        body: of.body.trim().as_bytes(),
    };
    let read = |answer: &Answer<'_>| {
        let code = answer.header.code;
        let Some((_, result)) = RESULTS.iter().find(|(known, _)| *known == code) else {
            let remark = answer.header.remark.as_deref().unwrap_or_default();
            return Ok(Err((code, remark.lines().next().unwrap_or_default().to_owned())));
        };
        SendReceipt::read(answer).map(|receipt| Ok((*result, receipt))).map_err(|error| error.to_string())
    };
    let sent = admin.call(&broker.address, request.code(), &request.fields(), request.body, read)?;
    let refused = |(code, remark)| CallError::Refused { address: broker.address.clone(), code, remark };
    let (result, receipt) = sent.map_err(refused)?;
    let view =
        SentView { broker: broker.name, queue: receipt.queue, offset: receipt.offset.0, result, unique_id };
    print(of.shared.output, &view, SentView::render)?;
    match result {
        "SEND_OK" => Ok(()),
        _ => Err(CommandError::failed(format!(
            "the message is stored, and not as safe as was wished: {result}"
        ))),
    }
}

impl SentView {
    fn render(&self) -> String {
        let line = |broker: &str, queue: &str, result: &str, id: &str| {
            format!("{broker:<32}  {queue:<4}  {result:<20}    {id}\n")
        };
        line("#Broker Name", "#QID", "#Send Result", "#MsgId")
            + &line(&self.broker, &self.queue.to_string(), self.result, &self.unique_id)
    }
}

/// Where the message goes: to the queue that is named, or to any of the topic's that takes messages.
fn place(admin: &mut Admin, topic: &str, of: &SendArguments) -> Result<(Broker, u32), CommandError> {
    let (route, most) = match admin.route_if_any(topic)? {
        Some(route) => (route, u32::MAX),
        // Brokers that make topics when they are sent to have this one; others have no route of it.
        None => {
            let route = admin.route_if_any(TEMPLATE_TOPIC)?.ok_or_else(|| {
                CommandError::failed(format!(
                    "topic {topic} does not exist: create it with `turbopump updateTopic -c CLUSTER -t {topic}`"
                ))
            })?;
            (route, QUEUES_WISHED)
        }
    };
    let wanted = of.broker.as_deref().map(str::trim);
    let mut places = places(&route, most);
    places.retain(|(broker, _)| wanted.is_none_or(|wanted| broker.name == wanted));
    // Any will do: the clock picks one.
    let picked = pick(places, calendar::now().0).ok_or_else(|| nowhere(topic, wanted))?;
    Ok((picked.0, of.queue.unwrap_or(picked.1)))
}

/// One of all queues.
fn pick(places: Vec<(Broker, u32)>, by: u64) -> Option<(Broker, u32)> {
    let all: u64 = places.iter().map(|(_, count)| u64::from(*count)).sum();
    let mut index = by.checked_rem(all)?;
    for (broker, count) in places {
        match u32::try_from(index) {
            Ok(queue) if queue < count => return Some((broker, queue)),
            _ => index -= u64::from(count),
        }
    }
    None
}

fn nowhere(topic: &str, broker: Option<&str>) -> CommandError {
    let on = broker.map_or_else(String::new, |broker| format!(" on broker {broker}"));
    CommandError::failed(format!(
        "topic {topic} has no queue that takes messages{on}: `turbopump topicRoute -t {topic}` shows its brokers and permissions"
    ))
}

/// How many queues take messages, of each broker so many at most.
fn places(route: &TopicRoute, most: u32) -> Vec<(Broker, u32)> {
    let mut found = Vec::new();
    for broker in brokers_of(route) {
        let queues = route.queues.iter().find(|queues| queues.broker == broker.name);
        let count =
            queues.filter(|queues| queues.permission & WRITABLE != 0).map_or(0, |queues| queues.write);
        if count > 0 {
            found.push((broker, count.min(most)));
        }
    }
    found
}

/// An id as RocketMQ's clients give them to messages.
fn unique_id(now: Timestamp) -> String {
    // Many runs on many machines have the same process id.
    let random = RandomState::new().build_hasher().finish() as u32;
    UniqueIdGenerator::new(Ipv4Addr::LOCALHOST, std::process::id(), random).next(now).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::remoting::ResponseCode;
    use crate::protocol::remoting::body::{BrokerAddresses, QueueNumbers};

    /// The template has more queues than a topic gets that is made like it.
    #[test]
    fn a_message_that_makes_its_topic_goes_to_a_queue_that_it_gets() {
        let broker = BrokerAddresses {
            cluster: "C".into(),
            broker: "b".into(),
            addresses: [(0, "b:1".to_owned())].into(),
            zone: None,
            acting_master: false,
        };
        let queues =
            |permission| QueueNumbers { broker: "b".into(), read: 8, write: 8, permission, flags: 0 };
        let route =
            |permission| TopicRoute { brokers: vec![broker.clone()], queues: vec![queues(permission)] };
        let numbers = |route: &TopicRoute, most| -> Vec<u32> {
            let picked = (0..8).filter_map(|by| pick(places(route, most), by));
            picked.map(|(_, queue)| queue).collect()
        };
        assert_eq!(numbers(&route(7), QUEUES_WISHED), [0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!(numbers(&route(6), u32::MAX), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(numbers(&route(4), u32::MAX), [0; 0]);
    }

    #[test]
    fn results_have_the_codes_of_answers() {
        assert_eq!(RESULTS[0].0, ResponseCode::Success.number());
        assert_eq!(RESULTS[1].0, ResponseCode::FlushDiskTimeout.number());
    }
}
