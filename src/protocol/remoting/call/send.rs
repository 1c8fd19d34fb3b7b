//! Sending: `SEND_MESSAGE`, `SEND_MESSAGE_V2` with one letter for each field, and `SEND_BATCH_MESSAGE`
//! (`remoting/.../header/SendMessageRequestHeader.java`). Checks and their answers follow
//! `broker/.../processor/SendMessageProcessor.java`.
//!
//! A batch is told by its field, not by the request's code: the client for C++ sends one with the code of a single message.

use std::net::SocketAddr;
use std::time::Duration;

use crate::api::{Release, Stored};
use crate::limits;
use crate::protocol::remoting::code::{ResponseCode, request};
use crate::protocol::remoting::fields::FieldValue;
use crate::protocol::remoting::message::{Delay, InnerMessages, Meaning, REGION, system_flag};
use crate::protocol::remoting::refusal::Refusal;
use crate::protocol::remoting::{Head, Header, HeaderForm, STAGES, consumer_group};
use crate::types::{
    DelayLevels, GroupName, GroupTopic, Level, OffsetMessageId, RecordLocation, Timestamp, TopicName,
};
use crate::wire::batch::{BatchBuilder, OwnedBatch};
use crate::wire::origin::{Attributes, Origin};
use crate::wire::properties::{self, names};
use crate::wire::record::{Record, RecordError};

/// Topics of RocketMQ's own, into which nothing is sent.
const FORBIDDEN_TOPICS: [&str; 6] = [
    concat!("SCHEDULE_TOPIC_XX", "XX"),
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
];
/// Queues of one broker that a client may wish for a topic that its send makes.
const WISHED_QUEUES_MAX: u32 = 8;
/// What a client wishes that says nothing: its default in all languages.
const WISHED_QUEUES: u32 = 4;
/// The topic that others are made after; a client that names another one does not want its topic made.
const TEMPLATE_TOPIC: &[u8] = b"TBW102";

/// A send, ready to be stored.
#[derive(Debug)]
pub struct Send<'a> {
    pub topic: TopicName,
    /// Of this broker; `None`: any.
    pub queue: Option<u32>,
    /// Queues of each broker, if the send may make the topic.
    pub queues_wished: Option<u32>,
    /// `None`: the topic's level, or the node's.
    pub level: Option<Level>,
    /// What a consumer says that sends a message to its group's retries: how often it is delivered again.
    pub retries_max: Option<i64>,
    pub messages: Messages<'a>,
}

/// What is sent.
#[derive(Debug)]
pub enum Messages<'a> {
    Single(SingleMessage<'a>),
    Batch(OwnedBatch),
}

/// One message. Its keys and its tag lie in its header, its body in the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SingleMessage<'a> {
    pub born_time: Timestamp,
    pub key: &'a [u8],
    pub tag: &'a [u8],
    pub properties: Vec<u8>,
    pub body: &'a [u8],
    pub attributes: Attributes,
    pub origin: Origin,
    /// Empty when the producer gave it none.
    pub unique_id: &'a [u8],
    /// What it waits for, out of consumers' sight; `None`: it is there at once, unless it is delayed.
    pub release: Option<Release>,
    /// It is to be delivered later.
    pub delay: Option<Delay<'a>>,
}

/// Fields of both generations.
struct Names {
    topic: &'static str,
    queue: &'static str,
    queues_wished: &'static str,
    sys_flag: &'static str,
    born_time: &'static str,
    flag: &'static str,
    properties: &'static str,
    deliveries: &'static str,
    retries_max: &'static str,
    batch: &'static str,
    template: &'static str,
    /// It must be there, and means nothing here.
    group: &'static str,
}

const LONG_NAMES: Names = Names {
    topic: "topic",
    queue: "queueId",
    queues_wished: "defaultTopicQueueNums",
    sys_flag: "sysFlag",
    born_time: "bornTimestamp",
    flag: "flag",
    properties: "properties",
    deliveries: "reconsumeTimes",
    retries_max: "maxReconsumeTimes",
    batch: "batch",
    template: "defaultTopic",
    group: "producerGroup",
};

const SHORT_NAMES: Names = Names {
    topic: "b",
    queue: "e",
    queues_wished: "d",
    sys_flag: "f",
    born_time: "g",
    flag: "h",
    properties: "i",
    deliveries: "j",
    retries_max: "l",
    batch: "m",
    template: "c",
    group: "a",
};

fn illegal(remark: impl Into<String>) -> Refusal {
    Refusal::new(ResponseCode::MessageIllegal, remark)
}

/// What is said of a message that is too large, in RocketMQ's words.
pub fn too_large() -> Refusal {
    illegal(format!(
        "the message is illegal, maybe msg body or properties length not matched. msg body length limit {}B, msg properties \
         length limit 32KB.",
        limits::BODY_BYTES_MAX
    ))
}

/// Whether a request of this code is a send.
pub fn is_send(code: i32) -> bool {
    matches!(code, request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE)
}

/// What reading a send may take of memory beyond its frame: a batch is built anew, and each of its messages may become longer
/// by what it is stored with.
pub fn built_bytes(header: &Header<'_>, body: &[u8]) -> usize {
    match is_batch(header) {
        true => (3 * body.len()).min(limits::BATCH_BYTES_MAX),
        false => 0,
    }
}

impl<'a> Send<'a> {
    /// Reads a send that came from `born`.
    pub fn read(header: &'a Header<'_>, body: &'a [u8], born: SocketAddr) -> Result<Self, Refusal> {
        let names = names_of(header.code);
        let fields = &header.fields;
        fields.required_text(names.group)?;
        fields.required_text(names.template)?;
        let topic = fields.required_text(names.topic)?;
        let queues_wished = fields.required_number(names.queues_wished)?;
        let queue: i32 = fields.required_number(names.queue)?;
        let sys_flag = fields.required_number(names.sys_flag)?;
        let born_time: i64 = fields.required_number(names.born_time)?;
        let flag: i32 = fields.required_number(names.flag)?;
        let topic = check_topic(&topic)?;
        let attributes = attributes_of(sys_flag)?;
        let deliveries: i64 = fields.number(names.deliveries).unwrap_or(0);
        let envelope = Envelope {
            properties: fields.bytes(names.properties).unwrap_or_default(),
            born_time: Timestamp(u64::try_from(born_time).unwrap_or(0)),
            attributes,
            is_hidden: system_flag::is_hidden(sys_flag as u32),
            origin: Origin::new(flag as u32, deliveries.clamp(0, i64::from(u16::MAX)) as u16, born),
        };
        let (waits, messages) = match is_batch(header) {
            true if topic.is_of_group() => {
                return Err(illegal(format!("batch request does not support retry group {topic}")));
            }
            true => envelope.batch(body)?,
            false => envelope.single(body)?,
        };
        Ok(Self {
            topic,
            queue: u32::try_from(queue).ok(),
            queues_wished: (fields.bytes(names.template) == Some(TEMPLATE_TOPIC))
                .then(|| wished(queues_wished)),
            level: (waits == Some(false)).then_some(Level::Accepted),
            retries_max: fields.number(names.retries_max),
            messages,
        })
    }
}

fn names_of(code: i32) -> &'static Names {
    match code {
        request::SEND_MESSAGE | request::SEND_REPLY_MESSAGE => &LONG_NAMES,
        _ => &SHORT_NAMES,
    }
}

fn is_batch(header: &Header<'_>) -> bool {
    let said = header.fields.optional_boolean(names_of(header.code).batch);
    said.unwrap_or(header.code == request::SEND_BATCH_MESSAGE)
}

fn wished(queues: i64) -> u32 {
    match queues {
        ..=0 => WISHED_QUEUES,
        _ => u32::try_from(queues).unwrap_or(u32::MAX).min(WISHED_QUEUES_MAX),
    }
}

/// Whether nothing is sent to a topic.
pub fn is_forbidden(topic: &TopicName) -> bool {
    FORBIDDEN_TOPICS.contains(&topic.as_str())
}

/// The refusal of a topic of RocketMQ's own.
pub fn forbidden(topic: &TopicName) -> Refusal {
    Refusal::new(ResponseCode::NoPermission, format!("Sending message to topic[{topic}] is forbidden."))
}

fn check_topic(name: &str) -> Result<TopicName, Refusal> {
    let topic: TopicName =
        name.parse().map_err(|error| Refusal::new(ResponseCode::InvalidParameter, format!("{error}")))?;
    if is_forbidden(&topic) {
        return Err(forbidden(&topic));
    }
    if !topic.is_of_group() {
        return Ok(topic);
    }
    let Some((kind, group)) = topic.group() else {
        return Err(Refusal::new(ResponseCode::InvalidParameter, format!("{topic} names no group")));
    };
    match consumer_group(group.as_str()) {
        Err(error) if kind == GroupTopic::Retries => {
            let remark = format!("subscription group not exist, {group} {error}");
            Err(Refusal::new(ResponseCode::SubscriptionGroupNotExist, remark))
        }
        _ => Ok(topic),
    }
}

/// What a record says of what the system flag said.
fn attributes_of(sys_flag: i32) -> Result<Attributes, Refusal> {
    system_flag::attributes(sys_flag as u32)
        .map_err(|other| illegal(format!("there is no compression of type {other}")))
}

/// What holds for all messages of a send.
struct Envelope<'a> {
    properties: &'a [u8],
    born_time: Timestamp,
    attributes: Attributes,
    /// The system flag says that it is the half of a transaction, or what is left of one.
    is_hidden: bool,
    origin: Origin,
}

/// Whether the producer waits for the flush, and what it sends.
type Read<'a> = (Option<bool>, Messages<'a>);

impl<'a> Envelope<'a> {
    fn single(self, body: &'a [u8]) -> Result<Read<'a>, Refusal> {
        if self.properties.len() > limits::PROPERTIES_BYTES_MAX {
            return Err(too_large());
        }
        let mut properties = Vec::with_capacity(self.properties.len() + 1);
        let meaning = Meaning::read(self.properties, &mut properties);
        let release = self.release_of(&meaning)?;
        let message = SingleMessage {
            born_time: self.born_time,
            key: meaning.keys,
            tag: meaning.tag,
            properties,
            body,
            // What becomes of a half, and is seen, is what was committed.
            attributes: Attributes {
                committed: self.attributes.committed || meaning.is_half,
                ..self.attributes
            },
            origin: self.origin,
            unique_id: meaning.unique_id,
            release,
            delay: meaning.delay,
        };
        check_record(&message.record())?;
        Ok((meaning.waits, Messages::Single(message)))
    }

    /// What keeps a message out of sight. Wishes that are not carried out are refused, and not forgotten.
    fn release_of(&self, meaning: &Meaning<'_>) -> Result<Option<Release>, Refusal> {
        match (meaning.is_half, meaning.delay) {
            (true, Some(_)) => {
                Err(illegal("a message is delayed, or the half of a transaction, and not both"))
            }
            (true, None) => half_release(meaning).map(Some),
            (false, _) if self.is_hidden => Err(illegal(
                "its system flag says that it is the half of a transaction, its properties do not (TRAN_MSG)",
            )),
            (false, _) => Ok(None),
        }
    }

    /// The properties of the batch itself say only whether its producer waits; where they are silent, its first message does.
    fn batch(self, body: &'a [u8]) -> Result<Read<'a>, Refusal> {
        let meaning = Meaning::read(self.properties, &mut Vec::new());
        check_at_once(&meaning)?;
        let mut waits = meaning.waits;
        let mut builder = BatchBuilder::new(self.born_time);
        let mut properties = Vec::new();
        for inner in InnerMessages::new(body) {
            let inner = inner.map_err(|error| illegal(error.to_string()))?;
            properties.clear();
            let meaning = Meaning::read(inner.properties, &mut properties);
            if self.release_of(&meaning)?.is_some() {
                return Err(illegal("the messages of a batch are not halves of transactions"));
            }
            check_at_once(&meaning)?;
            waits = waits.or(meaning.waits);
            let record = Record {
                key: meaning.keys,
                tag: meaning.tag,
                properties: &properties,
                body: inner.body,
                born_delta_ms: 0,
                attributes: self.attributes,
                origin: Some(Origin { flag: inner.flag, ..self.origin }),
            };
            check_record(&record)?;
            if !builder.fits(&record) {
                return Err(illegal(format!(
                    "the batch is too large: with what is stored of each message beside its body, {} messages take more \
                     than {} bytes",
                    builder.record_count() + 1,
                    limits::BATCH_BYTES_MAX
                )));
            }
            builder.push(&record);
        }
        if builder.is_empty() {
            return Err(illegal("the batch has no message"));
        }
        Ok((waits, Messages::Batch(builder.finish_checked())))
    }
}

/// What a half waits for. A group that no name is, or none, is that of nobody who could be asked.
fn half_release(meaning: &Meaning<'_>) -> Result<Release, Refusal> {
    let group: Option<GroupName> =
        std::str::from_utf8(meaning.producer_group).ok().and_then(|name| name.parse().ok());
    let Some(group) = group else {
        let said = String::from_utf8_lossy(meaning.producer_group).into_owned();
        return Err(illegal(format!(
            "`{said}` is no producer group (PGROUP) to be asked about the transaction"
        )));
    };
    // As in RocketMQ, what is no number is no wish.
    let seconds = std::str::from_utf8(meaning.immunity_seconds).ok().and_then(|text| text.parse().ok());
    Ok(Release::Commit { producer_group: Some(group), immunity: Duration::from_secs(seconds.unwrap_or(0)) })
}

/// The messages of a batch are delivered with it.
fn check_at_once(meaning: &Meaning<'_>) -> Result<(), Refusal> {
    match meaning.delay {
        Some(_) => Err(illegal("a message of a batch is not delayed: send it by itself")),
        None => Ok(()),
    }
}

fn check_record(record: &Record<'_>) -> Result<(), Refusal> {
    record.check().and_then(|()| record.check_text()).map_err(|error| match error {
        RecordError::BodyTooLarge(_) | RecordError::FieldTooLarge => too_large(),
        error => illegal(error.to_string()),
    })
}

impl SingleMessage<'_> {
    /// When it is to be delivered, where it comes at `now` and goes to a queue of this broker; `None`: at once. What RocketMQ's
    /// brokers say of that to whoever receives it is added to its properties, which have to have room for it.
    pub fn take_due(
        &mut self,
        now: Timestamp,
        topic: &TopicName,
        queue: u32,
        levels: &DelayLevels,
    ) -> Result<Option<Timestamp>, Refusal> {
        let Some(delay) = self.delay.take() else { return Ok(None) };
        let due = delay
            .due(now, levels)
            .map_err(|value| illegal(format!("timer message illegal, `{value}` is no delay and no time")))?;
        let delay_max = limits::DELAY_MS_MAX;
        if due.0.saturating_sub(now.0) > delay_max {
            return Err(illegal(format!(
                "timer message illegal, the delay time should not be bigger than the max delay {delay_max}ms"
            )));
        }
        if due <= now {
            return Ok(None);
        }
        let (name, value) = match delay {
            Delay::Level(level) => (names::DELAY, levels.level(level).0.to_string()),
            _ => (names::OUT_MS, due.0.to_string()),
        };
        let said =
            [(name, &*value), (names::REAL_TOPIC, topic.as_str()), (names::REAL_QUEUE, &queue.to_string())];
        self.properties = properties::replaced(&self.properties, &said).map_err(|_| too_large())?;
        Ok(Some(due))
    }

    pub fn record(&self) -> Record<'_> {
        Record {
            key: self.key,
            tag: self.tag,
            properties: &self.properties,
            body: self.body,
            born_delta_ms: 0,
            attributes: self.attributes,
            origin: Some(self.origin),
        }
    }
}

/// Where messages of a send are, of which `stored` is the first.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    pub stored: Stored,
    pub message_count: u32,
    /// Of this broker.
    pub queue: u32,
    /// What this broker is reached at; `None`: it cannot be told.
    pub address: Option<SocketAddr>,
    /// Of a single message.
    pub unique_id: Option<&'a str>,
    /// What its producer takes it back with, while it waits for its time.
    pub recall_handle: Option<&'a str>,
    /// Where its time went, if that was asked for.
    pub stages: Option<&'a str>,
}

impl Sent<'_> {
    /// Appends the answer. All fields are there whatever happens: clients look at none of them for null.
    pub fn write(&self, opaque: i32, form: HeaderForm, output: &mut Vec<u8>) {
        let ids = self.ids();
        let mut fields = vec![
            ("msgId", FieldValue::Text(&ids)),
            ("queueId", FieldValue::Number(self.queue.into())),
            ("queueOffset", FieldValue::Number(self.stored.offset.0 as i64)),
            ("MSG_REGION", FieldValue::Text(REGION)),
            ("TRACE_ON", FieldValue::Boolean(true)),
        ];
        if let Some(id) = self.unique_id {
            fields.push(("transactionId", FieldValue::Text(id)));
        }
        if let Some(handle) = self.recall_handle {
            fields.push(("recallHandle", FieldValue::Text(handle)));
        }
        if let Some(stages) = self.stages {
            fields.push((STAGES, FieldValue::Text(stages)));
        }
        Head { fields: &fields, ..Head::answer_to(opaque, ResponseCode::Success) }.write(form, b"", output);
    }

    /// The ids of all messages by where they are stored, separated by commas.
    fn ids(&self) -> String {
        let mut ids = String::new();
        let Some(address) = self.address else { return ids };
        for number in 0..self.message_count {
            let index = self.stored.location.index.wrapping_add(number as u16);
            let location = RecordLocation { index, ..self.stored.location };
            let Some(id) = OffsetMessageId::of_location(address, location) else { continue };
            if !ids.is_empty() {
                ids.push(',');
            }
            ids.push_str(&id.text());
        }
        ids
    }
}

mod client;
#[cfg(test)]
mod tests;

pub use client::{SendReceipt, SendRequest};
