//! Requests and replies of those who set up and tidy up by hand, in both directions: how groups and topics are treated, messages that
//! go before their time, and those that wait for it.

use std::time::Duration;

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use crate::api::{
    DelayedMessages, DelayedPlace, Failure, GroupSettings, GroupTerms, ListDelayed, OffsetSpec, Presence,
    PurgeReport, PurgeTopic, PurgedQueue, PurgedShard, RecallDelayed, Reply, Request, SetUpGroup, Status,
};
use crate::limits;
use crate::types::{LogPosition, QueueNumber, QueueOffset, ShardId, Timestamp};
use crate::wire::generated as schema;

use super::envelope::MalformedReply;
use super::group_info::{read_settings, settings_table};
use super::reply_decoder::name as reply_name;
use super::request_decoder::name;

type Builder = FlatBufferBuilder<'static>;
type RequestBody = (schema::RequestBody, WIPOffset<UnionWIPOffset>);
type ReplyBody = (schema::ReplyBody, WIPOffset<UnionWIPOffset>);

/// The requests, as a client writes them.
pub(super) fn request_body(builder: &mut Builder, request: &Request) -> RequestBody {
    use schema::RequestBody as Kind;
    match request {
        Request::PermitTopic { topic, permission } => {
            let topic = Some(builder.create_string(topic.as_str()));
            let arguments = schema::PermitTopicArgs { topic, permission: *permission };
            (Kind::PermitTopic, schema::PermitTopic::create(builder, &arguments).as_union_value())
        }
        Request::PurgeTopic(PurgeTopic { topic, before }) => {
            let (at, time_ms, ago_ms) = match before {
                OffsetSpec::First => (schema::OffsetAt::First, 0, 0),
                OffsetSpec::Last => (schema::OffsetAt::Last, 0, 0),
                OffsetSpec::Time(time) => (schema::OffsetAt::Time, time.0, 0),
                OffsetSpec::Ago(span) => (schema::OffsetAt::Ago, 0, milliseconds(Some(*span))),
            };
            let topic = Some(builder.create_string(topic.as_str()));
            let arguments = schema::PurgeTopicArgs { topic, at, time_ms, ago_ms };
            (Kind::PurgeTopic, schema::PurgeTopic::create(builder, &arguments).as_union_value())
        }
        Request::SetUpGroup(set_up) => (Kind::SetUpGroup, set_up_table(builder, set_up)),
        Request::ListDelayed(ListDelayed { topic, shard, from }) => {
            let arguments = schema::ListDelayedArgs {
                topic: Some(builder.create_string(topic.as_str())),
                shard: u32::from(shard.0),
                goes_on: from.is_some(),
                bucket: from.map_or(0, |from| from.bucket),
                offset: from.map_or(0, |from| from.offset),
            };
            (Kind::ListDelayed, schema::ListDelayed::create(builder, &arguments).as_union_value())
        }
        Request::RecallDelayed(RecallDelayed { topic, queue, position, due }) => {
            let arguments = schema::RecallDelayedArgs {
                topic: Some(builder.create_string(topic.as_str())),
                queue: queue.0,
                position: position.0,
                due_ms: due.0,
            };
            (Kind::RecallDelayed, schema::RecallDelayed::create(builder, &arguments).as_union_value())
        }
        _ => unreachable!("not done by hand: {request:?}"),
    }
}

fn set_up_table(builder: &mut Builder, set_up: &SetUpGroup) -> WIPOffset<UnionWIPOffset> {
    let SetUpGroup { settings, may_consume, may_broadcast, ordered, retry_queues, presence, like } = set_up;
    let switch = |on: &Option<bool>| match on {
        None => schema::Switch::AsItIs,
        Some(true) => schema::Switch::On,
        Some(false) => schema::Switch::Off,
    };
    let arguments = schema::SetUpGroupArgs {
        group: Some(builder.create_string(settings.group.as_str())),
        deliveries_max: settings.deliveries_max.unwrap_or(0),
        lease_ms: milliseconds(settings.lease),
        ordered_lease_ms: milliseconds(settings.ordered_lease),
        consume: switch(may_consume),
        broadcast: switch(may_broadcast),
        ordered: switch(ordered),
        retry_queues: retry_queues.unwrap_or(0),
        sets_retry_queues: retry_queues.is_some(),
        presence: match presence {
            Presence::Either => schema::Presence::Either,
            Presence::There => schema::Presence::There,
            Presence::New => schema::Presence::New,
        },
        like: like.as_ref().map(|like| builder.create_string(like.as_str())),
    };
    schema::SetUpGroup::create(builder, &arguments).as_union_value()
}

fn milliseconds(span: Option<Duration>) -> u64 {
    span.map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// One of the requests, as the server reads it; `None`: it is none of these.
pub(super) fn read_request(request: &schema::Request<'_>) -> Option<Result<Request, Failure>> {
    Some(match request.body_type() {
        schema::RequestBody::PermitTopic => permit_topic(request.body_as_permit_topic()?),
        schema::RequestBody::PurgeTopic => purge_topic(request.body_as_purge_topic()?),
        schema::RequestBody::SetUpGroup => set_up_group(request.body_as_set_up_group()?),
        schema::RequestBody::ListDelayed => list_delayed(request.body_as_list_delayed()?),
        schema::RequestBody::RecallDelayed => recall_delayed(request.body_as_recall_delayed()?),
        _ => return None,
    })
}

fn permit_topic(body: schema::PermitTopic<'_>) -> Result<Request, Failure> {
    let permission = body.permission();
    if ![2, 4, 6].contains(&permission) {
        return Err(Failure::invalid(format_args!(
            "a permission is 4 to read, 2 to write or 6 for both, not {permission}"
        )));
    }
    Ok(Request::PermitTopic { topic: name(body.topic())?, permission })
}

fn purge_topic(body: schema::PurgeTopic<'_>) -> Result<Request, Failure> {
    let before = match body.at() {
        schema::OffsetAt::First => OffsetSpec::First,
        schema::OffsetAt::Last => OffsetSpec::Last,
        schema::OffsetAt::Time => OffsetSpec::Time(Timestamp(body.time_ms())),
        schema::OffsetAt::Ago => OffsetSpec::Ago(Duration::from_millis(body.ago_ms())),
        schema::OffsetAt(code) => return Err(unknown("place to purge to", code)),
    };
    Ok(Request::PurgeTopic(PurgeTopic { topic: name(body.topic())?, before }))
}

fn set_up_group(body: schema::SetUpGroup<'_>) -> Result<Request, Failure> {
    let switch = |code: schema::Switch| match code {
        schema::Switch::AsItIs => Ok(None),
        schema::Switch::On => Ok(Some(true)),
        schema::Switch::Off => Ok(Some(false)),
        schema::Switch(code) => Err(unknown("switch", code)),
    };
    let range = limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX;
    let lease = |ms: u64| match ms {
        0 => Ok(None),
        ms if range.contains(&ms) => Ok(Some(Duration::from_millis(ms))),
        ms => Err(Failure::invalid(format_args!(
            "a lease lasts {} to {} ms, not {ms} ms",
            range.start(),
            range.end()
        ))),
    };
    if body.retry_queues() > limits::TOPIC_QUEUES_MAX {
        let (max, given) = (limits::TOPIC_QUEUES_MAX, body.retry_queues());
        return Err(Failure::invalid(format_args!(
            "a group has at most {max} queues of retries, not {given}"
        )));
    }
    Ok(Request::SetUpGroup(SetUpGroup {
        settings: GroupSettings {
            group: name(body.group())?,
            deliveries_max: (body.deliveries_max() != 0).then_some(body.deliveries_max()),
            lease: lease(body.lease_ms())?,
            ordered_lease: lease(body.ordered_lease_ms())?,
        },
        may_consume: switch(body.consume())?,
        may_broadcast: switch(body.broadcast())?,
        ordered: switch(body.ordered())?,
        retry_queues: body.sets_retry_queues().then_some(body.retry_queues()),
        presence: match body.presence() {
            schema::Presence::Either => Presence::Either,
            schema::Presence::There => Presence::There,
            schema::Presence::New => Presence::New,
            schema::Presence(code) => return Err(unknown("presence of a group", code)),
        },
        like: body.like().map(name).transpose()?,
    }))
}

fn list_delayed(body: schema::ListDelayed<'_>) -> Result<Request, Failure> {
    let shard = u16::try_from(body.shard()).map_err(|_| {
        Failure::invalid(format_args!("{} is no shard's number: take it from a route", body.shard()))
    })?;
    let place = DelayedPlace { bucket: body.bucket(), offset: body.offset() };
    let from = body.goes_on().then_some(place);
    Ok(Request::ListDelayed(ListDelayed { topic: name(body.topic())?, shard: ShardId(shard), from }))
}

fn recall_delayed(body: schema::RecallDelayed<'_>) -> Result<Request, Failure> {
    Ok(Request::RecallDelayed(RecallDelayed {
        topic: name(body.topic())?,
        queue: QueueNumber(body.queue()),
        position: LogPosition(body.position()),
        due: Timestamp(body.due_ms()),
    }))
}

fn unknown(what: &str, code: u8) -> Failure {
    Failure::new(Status::InvalidArgument, format!("{what} {code} is not known to this broker: upgrade it"))
}

pub(super) fn terms_body(builder: &mut Builder, terms: &GroupTerms) -> ReplyBody {
    let arguments = schema::GroupTermsArgs {
        settings: Some(settings_table(builder, &terms.settings)),
        consume: terms.may_consume,
        broadcast: terms.may_broadcast,
        ordered: terms.ordered,
        retry_queues: terms.retry_queues,
    };
    (schema::ReplyBody::GroupTerms, schema::GroupTerms::create(builder, &arguments).as_union_value())
}

pub(super) fn purge_body(builder: &mut Builder, report: &PurgeReport) -> ReplyBody {
    let queue =
        |queue: &PurgedQueue| schema::PurgedQueue::new(queue.queue.0, queue.first_before.0, queue.first.0);
    let queues: Vec<_> = report.queues.iter().map(queue).collect();
    let mut shards = Vec::with_capacity(report.shards.len());
    for shard in &report.shards {
        let kept_by = shard.kept_by.as_ref();
        let arguments = schema::PurgedShardArgs {
            free_bytes: shard.free_bytes,
            kept_bytes: shard.kept_bytes,
            kept_by: kept_by.map(|(topic, _)| builder.create_string(topic.as_str())),
            kept_since_ms: kept_by.map_or(0, |(_, since)| since.0),
        };
        shards.push(schema::PurgedShard::create(builder, &arguments));
    }
    let (queues, shards) = (Some(builder.create_vector(&queues)), Some(builder.create_vector(&shards)));
    let table = schema::PurgeReport::create(builder, &schema::PurgeReportArgs { queues, shards });
    (schema::ReplyBody::PurgeReport, table.as_union_value())
}

/// What precedes the records of delayed messages.
pub(super) fn delayed_body(builder: &mut Builder, delayed: &DelayedMessages) -> ReplyBody {
    let mut messages = Vec::with_capacity(delayed.messages.len());
    for message in &delayed.messages {
        let arguments = schema::DelayedMessageArgs {
            topic_id: message.key.topic.0,
            queue: message.key.queue.0,
            position: message.position.0,
            due_ms: message.due.0,
            record_bytes: message.record.len() as u32,
            born_time_ms: message.born_time.0,
            store_time_ms: message.store_time.0,
        };
        messages.push(schema::DelayedMessage::create(builder, &arguments));
    }
    let arguments = schema::DelayedMessagesArgs {
        messages: Some(builder.create_vector(&messages)),
        incomplete: delayed.next.is_some(),
        bucket: delayed.next.map_or(0, |next| next.bucket),
        offset: delayed.next.map_or(0, |next| next.offset),
    };
    let table = schema::DelayedMessages::create(builder, &arguments);
    (schema::ReplyBody::DelayedMessages, table.as_union_value())
}

/// One of the replies, as a client reads it.
pub(super) fn read_reply(reply: &schema::Reply<'_>) -> Result<Reply, MalformedReply> {
    if let Some(body) = reply.body_as_group_terms() {
        return Ok(Reply::GroupTerms(GroupTerms {
            settings: read_settings(body.settings())?,
            may_consume: body.consume(),
            may_broadcast: body.broadcast(),
            ordered: body.ordered(),
            retry_queues: body.retry_queues(),
        }));
    }
    let missing = || MalformedReply("an answer has a kind, but no body of that kind".to_owned());
    let body = reply.body_as_purge_report().ok_or_else(missing)?;
    let queue = |queue: &schema::PurgedQueue| PurgedQueue {
        queue: QueueNumber(queue.queue()),
        first_before: QueueOffset(queue.first_before()),
        first: QueueOffset(queue.first()),
    };
    let shard = |shard: schema::PurgedShard<'_>| {
        let kept_by = shard.kept_by().map(reply_name).transpose()?;
        Ok(PurgedShard {
            free_bytes: shard.free_bytes(),
            kept_bytes: shard.kept_bytes(),
            kept_by: kept_by.map(|topic| (topic, Timestamp(shard.kept_since_ms()))),
        })
    };
    Ok(Reply::Purged(PurgeReport {
        queues: body.queues().iter().map(queue).collect(),
        shards: body.shards().iter().map(shard).collect::<Result<_, MalformedReply>>()?,
    }))
}
