//! Requests as the server reads them. What a request says is well formed after this: names are valid, limits are kept.
//! Whether what it names exists is the broker's to say.

mod receiving;

use std::collections::HashSet;
use std::str::FromStr;
use std::time::Duration;

use crate::api::{
    ActingMember, CommitOffset, Failure, Fetch, FindMessages, JoinGroup, OffsetSpec, Request, ResetGroup,
    ResetTarget, SessionLife, Status, TopicChange, Watch,
};
use crate::limits;
use crate::types::{
    Level, LogPosition, NameError, QueueKey, QueueNumber, QueueOffset, Retention, ShardId, Timestamp,
    TopicId, TopicName,
};
use crate::wire::frame::Frame;
use crate::wire::generated as schema;

use super::by_hand;
use super::dead_letters;
use super::envelope;
use super::instances;
use super::locations;
use super::proof::{self, Prove};
use super::settings;
use super::slow;
use super::stats;
use super::status::{known_level, known_retention};

/// A request. Produce, the hot one, borrows its batch from the receive buffer.
#[derive(Clone, Debug)]
pub enum DecodedRequest<'a> {
    Produce {
        key: QueueKey,
        level: Option<Level>,
        batch: &'a [u8],
    },
    /// As [`ProduceCopies`](crate::api::ProduceCopies).
    ProduceCopies {
        key: QueueKey,
        level: Option<Level>,
        at: Option<QueueOffset>,
        batch: &'a [u8],
    },
    /// About the connection itself: whoever serves it answers.
    Prove(Prove),
    Other(Request),
}

/// Verifies the envelope of `frame` and reads the request. The failure is the answer to send.
pub fn decode_request<'a>(frame: &Frame<'a>) -> Result<DecodedRequest<'a>, Failure> {
    decode_request_and_wish(frame).0
}

/// The same, and whether the answer is to say where the request's time went.
pub fn decode_request_and_wish<'a>(frame: &Frame<'a>) -> (Result<DecodedRequest<'a>, Failure>, bool) {
    match verified_request(frame) {
        Ok(request) => (known_request(&request, frame), request.stages()),
        Err(failure) => (Err(failure), false),
    }
}

fn verified_request<'a>(frame: &Frame<'a>) -> Result<schema::Request<'a>, Failure> {
    envelope::verified::<schema::Request>(frame.envelope).map_err(|error| {
        Failure::new(
            Status::MalformedFrame,
            format!(
                "the request's envelope is malformed ({}): check the client, it must follow turbopump.fbs",
                envelope::reason(&error)
            ),
        )
    })
}

fn known_request<'a>(
    request: &schema::Request<'a>,
    frame: &Frame<'a>,
) -> Result<DecodedRequest<'a>, Failure> {
    if let Some(produce) = request.body_as_produce() {
        let key = queue_key(produce.topic_id(), produce.queue())?;
        return Ok(DecodedRequest::Produce { key, level: level(produce.level())?, batch: frame.payload });
    }
    if let Some(copies) = request.body_as_produce_copies() {
        let key = queue_key(copies.topic_id(), copies.queue())?;
        let at = copies.at_offset().then_some(QueueOffset(copies.offset()));
        let level = level(copies.level())?;
        return Ok(DecodedRequest::ProduceCopies { key, level, at, batch: frame.payload });
    }
    if let Some(body) = request.body_as_hold() {
        return receiving::hold(body, frame.payload).map(DecodedRequest::Other);
    }
    if !frame.payload.is_empty() {
        return Err(Failure::new(
            Status::MalformedFrame,
            "only a request that stores messages carries a payload: leave it out",
        ));
    }
    if let Some(body) = request.body_as_prove() {
        return proof::known_prove(body).map(DecodedRequest::Prove);
    }
    if let Some(read) = dead_letters::read_request(request) {
        return read.map(DecodedRequest::Other);
    }
    if let Some(read) = by_hand::read_request(request) {
        return read.map(DecodedRequest::Other);
    }
    other_request(request).map(DecodedRequest::Other)
}

fn other_request(request: &schema::Request<'_>) -> Result<Request, Failure> {
    let missing = || Failure::new(Status::MalformedFrame, "the request has a kind, but no body of that kind");
    match request.body_type() {
        schema::RequestBody::Fetch => fetch(request.body_as_fetch().ok_or_else(missing)?),
        schema::RequestBody::Watch => watch(request.body_as_watch().ok_or_else(missing)?),
        schema::RequestBody::FindOffset => find_offset(request.body_as_find_offset().ok_or_else(missing)?),
        schema::RequestBody::CreateTopic => create_topic(request.body_as_create_topic().ok_or_else(missing)?),
        schema::RequestBody::AlterTopic => alter_topic(request.body_as_alter_topic().ok_or_else(missing)?),
        schema::RequestBody::DeleteTopic => {
            Ok(Request::DeleteTopic(name(request.body_as_delete_topic().ok_or_else(missing)?.topic())?))
        }
        schema::RequestBody::DescribeTopic => {
            Ok(Request::DescribeTopic(name(request.body_as_describe_topic().ok_or_else(missing)?.topic())?))
        }
        schema::RequestBody::ListTopics => Ok(Request::ListTopics),
        schema::RequestBody::Route => route(request.body_as_route().ok_or_else(missing)?),
        schema::RequestBody::JoinGroup => join_group(request.body_as_join_group().ok_or_else(missing)?),
        schema::RequestBody::CommitOffset => {
            commit_offset(request.body_as_commit_offset().ok_or_else(missing)?)
        }
        schema::RequestBody::CommittedOffset => {
            committed_offset(request.body_as_committed_offset().ok_or_else(missing)?)
        }
        schema::RequestBody::LeaveGroup => leave_group(request.body_as_leave_group().ok_or_else(missing)?),
        schema::RequestBody::ListGroups => Ok(Request::ListGroups),
        schema::RequestBody::DescribeGroup => {
            Ok(Request::DescribeGroup(name(request.body_as_describe_group().ok_or_else(missing)?.group())?))
        }
        schema::RequestBody::DeleteGroup => {
            Ok(Request::DeleteGroup(name(request.body_as_delete_group().ok_or_else(missing)?.group())?))
        }
        schema::RequestBody::ResetGroup => reset_group(request.body_as_reset_group().ok_or_else(missing)?),
        schema::RequestBody::DescribeNode => {
            describe_node(request.body_as_describe_node().ok_or_else(missing)?)
        }
        schema::RequestBody::FindByKey => find_by_key(request.body_as_find_by_key().ok_or_else(missing)?),
        schema::RequestBody::FindByPosition => {
            find_by_position(request.body_as_find_by_position().ok_or_else(missing)?)
        }
        schema::RequestBody::CreateInstance
        | schema::RequestBody::DeleteInstance
        | schema::RequestBody::ListInstances => instances::read_request(request).ok_or_else(missing)?,
        schema::RequestBody::ListTopicStats | schema::RequestBody::ListGroupStats => {
            stats::read_request(request).ok_or_else(missing)?
        }
        schema::RequestBody::Settings => settings::changes(request.body_as_settings().ok_or_else(missing)?),
        schema::RequestBody::Receive => receiving::receive(request.body_as_receive().ok_or_else(missing)?),
        schema::RequestBody::Acknowledge => {
            receiving::acknowledge(request.body_as_acknowledge().ok_or_else(missing)?)
        }
        schema::RequestBody::ChangeLease => {
            receiving::change_lease(request.body_as_change_lease().ok_or_else(missing)?)
        }
        schema::RequestBody::AlterGroup => {
            receiving::alter_group(request.body_as_alter_group().ok_or_else(missing)?)
        }
        schema::RequestBody::EndTransaction => {
            receiving::end_transaction(request.body_as_end_transaction().ok_or_else(missing)?)
        }
        schema::RequestBody::ReceiveHalves => {
            receiving::receive_halves(request.body_as_receive_halves().ok_or_else(missing)?)
        }
        kind => slow::known_request(request).unwrap_or_else(|| Err(unknown_request(kind))),
    }
}

fn unknown_request(kind: schema::RequestBody) -> Failure {
    let kind = kind.0;
    Failure::new(
        Status::UnsupportedRequest,
        format!("request kind {kind} is not known to this broker: upgrade the broker, or do without it"),
    )
}

fn route(body: schema::Route<'_>) -> Result<Request, Failure> {
    let topic = body.topic().map(name::<TopicName>).transpose()?;
    Ok(match topic {
        Some(topic) if body.for_producing() => Request::OpenTopic(topic),
        topic => Request::Route(topic),
    })
}

fn commit_offset(body: schema::CommitOffset<'_>) -> Result<Request, Failure> {
    let acting =
        |text: &str| member(text).map(|member| ActingMember { member, generation: body.generation() });
    Ok(Request::CommitOffset(CommitOffset {
        group: name(body.group())?,
        key: queue_key(body.topic_id(), body.queue())?,
        offset: QueueOffset(body.offset()),
        member: body.member().map(acting).transpose()?,
    }))
}

fn committed_offset(body: schema::CommittedOffset<'_>) -> Result<Request, Failure> {
    let key = queue_key(body.topic_id(), body.queue())?;
    Ok(Request::CommittedOffset { group: name(body.group())?, key })
}

fn leave_group(body: schema::LeaveGroup<'_>) -> Result<Request, Failure> {
    Ok(Request::LeaveGroup { group: name(body.group())?, member: member(body.member())? })
}

fn describe_node(body: schema::DescribeNode<'_>) -> Result<Request, Failure> {
    Ok(Request::DescribeNode { count_syscalls: body.count_syscalls() })
}

/// A fetch's limits are upper bounds, and zero stands for none: what exceeds the broker's own is cut to it.
fn fetch(body: schema::Fetch<'_>) -> Result<Request, Failure> {
    let limited = |value: u32, limit: u32| if value == 0 { limit } else { value.min(limit) };
    Ok(Request::Fetch(Fetch {
        key: queue_key(body.topic_id(), body.queue())?,
        offset: QueueOffset(body.offset()),
        bytes_max: limited(body.bytes_max(), limits::FETCH_BYTES_MAX as u32),
        records_max: limited(body.records_max(), u32::MAX),
        session: body.session(),
        wait: Duration::from_millis(u64::from(body.wait_ms().min(limits::FETCH_WAIT_MS_MAX))),
    }))
}

fn watch(body: schema::Watch<'_>) -> Result<Request, Failure> {
    let queues = body.queues();
    if queues.is_empty() || queues.len() > limits::WATCH_QUEUES_MAX {
        return Err(Failure::invalid(format_args!(
            "a watch names 1 to {} queues, this one {}",
            limits::WATCH_QUEUES_MAX,
            queues.len()
        )));
    }
    let queue = |queue: &schema::WatchedQueue| {
        Ok((queue_key(queue.topic_id(), queue.queue())?, QueueOffset(queue.offset())))
    };
    Ok(Request::Watch(Watch {
        queues: queues.iter().map(queue).collect::<Result<_, Failure>>()?,
        wait: Duration::from_millis(u64::from(body.wait_ms().min(limits::FETCH_WAIT_MS_MAX))),
    }))
}

fn find_offset(body: schema::FindOffset<'_>) -> Result<Request, Failure> {
    let spec = match body.at() {
        schema::OffsetAt::First => OffsetSpec::First,
        schema::OffsetAt::Last => OffsetSpec::Last,
        schema::OffsetAt::Time => OffsetSpec::Time(Timestamp(body.time_ms())),
        schema::OffsetAt::Ago => OffsetSpec::Ago(Duration::from_millis(body.ago_ms())),
        schema::OffsetAt(code) => return Err(unknown("offset to find", code, "first, last or a time")),
    };
    Ok(Request::FindOffset { key: queue_key(body.topic_id(), body.queue())?, spec })
}

/// No count means as many as there may be.
fn find_by_key(body: schema::FindByKey<'_>) -> Result<Request, Failure> {
    if body.key().is_empty() || body.key().len() > limits::KEY_BYTES_MAX {
        return Err(Failure::invalid(format_args!(
            "a key has 1 to {} bytes, not {}",
            limits::KEY_BYTES_MAX,
            body.key().len()
        )));
    }
    let count = match body.count() {
        0 => limits::FIND_MESSAGES_MAX,
        count => count.min(limits::FIND_MESSAGES_MAX),
    };
    Ok(Request::FindMessages(FindMessages::Key {
        topic: name(body.topic())?,
        key: body.key().to_owned(),
        count,
        before: locations::read(body.before()),
        from: Timestamp(body.from_ms()),
        to: Timestamp(body.to_ms()),
    }))
}

fn find_by_position(body: schema::FindByPosition<'_>) -> Result<Request, Failure> {
    let shard = u16::try_from(body.shard()).map_err(|_| {
        Failure::invalid(format_args!("{} is no shard's number: take it from a route", body.shard()))
    })?;
    let (position, index) = (LogPosition(body.position()), body.index());
    Ok(Request::FindMessages(FindMessages::Position { shard: ShardId(shard), position, index }))
}

fn create_topic(body: schema::CreateTopic<'_>) -> Result<Request, Failure> {
    Ok(Request::CreateTopic(TopicChange {
        topic: name(body.topic())?,
        queues: queue_count(body.queues())?,
        retention: retention(body.retention(), body.retention_ms())?,
        level: level(body.level())?,
    }))
}

fn alter_topic(body: schema::AlterTopic<'_>) -> Result<Request, Failure> {
    let change = TopicChange {
        topic: name(body.topic())?,
        queues: queue_count(body.queues())?,
        retention: retention(body.retention(), body.retention_ms())?,
        level: level(body.level())?,
    };
    if change.queues.is_none() && change.retention.is_none() && change.level.is_none() {
        return Err(Failure::invalid("nothing to alter: name a queue count, a retention or a level"));
    }
    Ok(Request::AlterTopic(change))
}

fn join_group(body: schema::JoinGroup<'_>) -> Result<Request, Failure> {
    let session_timeout_ms = body.session_timeout_ms();
    if !(limits::SESSION_TIMEOUT_MS_MIN..=limits::SESSION_TIMEOUT_MS_MAX).contains(&session_timeout_ms) {
        return Err(Failure::invalid(format_args!(
            "a session time-out of {session_timeout_ms} ms is out of range: choose {} to {} ms",
            limits::SESSION_TIMEOUT_MS_MIN,
            limits::SESSION_TIMEOUT_MS_MAX
        )));
    }
    let names = body.topics();
    if names.is_empty() {
        return Err(Failure::invalid("a member of a group consumes at least one topic: name it"));
    }
    // The envelope bounds the bytes that are copied here only together with this: its offsets may all point to one name.
    if names.len() > limits::MEMBER_TOPICS_MAX {
        return Err(Failure::invalid(format_args!(
            "{} topics are more than one member may consume: name at most {}",
            names.len(),
            limits::MEMBER_TOPICS_MAX
        )));
    }
    let mut named = HashSet::with_capacity(names.len());
    if let Some(twice) = names.iter().find(|name| !named.insert(*name)) {
        let twice = shortened_name(twice);
        return Err(Failure::invalid(format_args!("topic `{twice}` is named twice: name each topic once")));
    }
    let topics = names.iter().map(name::<TopicName>).collect::<Result<Vec<_>, _>>()?;
    Ok(Request::JoinGroup(JoinGroup {
        group: name(body.group())?,
        member: member(body.member())?,
        topics,
        session_timeout: Duration::from_millis(u64::from(session_timeout_ms)),
        generation: body.generation(),
        life: match body.ends_with_connection() {
            true => SessionLife::Connected(None),
            false => SessionLife::Timed,
        },
    }))
}

/// As much of what a peer calls a topic as a topic's name may have.
fn shortened_name(text: &str) -> String {
    text.chars().take(limits::TOPIC_NAME_BYTES_MAX).collect()
}

fn reset_group(body: schema::ResetGroup<'_>) -> Result<Request, Failure> {
    let target = match body.to() {
        schema::ResetTo::First => ResetTarget::Every(OffsetSpec::First),
        schema::ResetTo::Last => ResetTarget::Every(OffsetSpec::Last),
        schema::ResetTo::Time => ResetTarget::Every(OffsetSpec::Time(Timestamp(body.value()))),
        schema::ResetTo::Ago => ResetTarget::Every(OffsetSpec::Ago(Duration::from_millis(body.value()))),
        schema::ResetTo::Offset => ResetTarget::Offset(QueueNumber(body.queue()), QueueOffset(body.value())),
        schema::ResetTo(code) => {
            return Err(unknown("offset to reset to", code, "first, last, a time or an offset"));
        }
    };
    Ok(Request::ResetGroup(ResetGroup { group: name(body.group())?, topic: name(body.topic())?, target }))
}

/// The numbers of a queue as a route tells them. Topic 0 holds the broker's own records: no client reaches it.
fn queue_key(topic_id: u32, queue: u32) -> Result<QueueKey, Failure> {
    if TopicId(topic_id) == TopicId::BROKER {
        return Err(Failure::invalid("topic id 0 names no topic: take the id from the topic's route"));
    }
    Ok(QueueKey { topic: TopicId(topic_id), queue: QueueNumber(queue) })
}

pub(super) fn name<Name: FromStr<Err = NameError>>(text: &str) -> Result<Name, Failure> {
    text.parse().map_err(Failure::invalid)
}

fn member(text: &str) -> Result<String, Failure> {
    if text.is_empty() || text.len() > limits::MEMBER_NAME_BYTES_MAX {
        return Err(Failure::invalid(format_args!(
            "a member's name has 1 to {} bytes, this one has {}",
            limits::MEMBER_NAME_BYTES_MAX,
            text.len()
        )));
    }
    Ok(text.to_owned())
}

fn queue_count(queues: u32) -> Result<Option<u32>, Failure> {
    if queues > limits::TOPIC_QUEUES_MAX {
        return Err(Failure::invalid(format_args!(
            "a topic has at most {} queues, not {queues}",
            limits::TOPIC_QUEUES_MAX
        )));
    }
    Ok((queues != 0).then_some(queues))
}

fn retention(code: schema::Retention, milliseconds: u64) -> Result<Option<Retention>, Failure> {
    known_retention(code, milliseconds)
        .map_err(|code| unknown("retention", code, "an age, the broker's own, or none"))
}

fn level(code: schema::Level) -> Result<Option<Level>, Failure> {
    known_level(code).map_err(|code| unknown("durability level", code, "durable, written or accepted"))
}

fn unknown(what: &str, code: u8, instead: &str) -> Failure {
    Failure::invalid(format_args!("{what} {code} is not known to this broker: use {instead}"))
}
