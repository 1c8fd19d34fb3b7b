//! Requests and replies about dead letters, in both directions.

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use crate::api::{Failure, Redrive, RedriveReport, Redriven, RedrivenRanges, Reply, Request};
use crate::limits;
use crate::types::{QueueNumber, QueueOffset};
use crate::wire::generated as schema;

use super::envelope::MalformedReply;
use super::request_decoder::name;
use super::status::{failure, status_code};

type Builder = FlatBufferBuilder<'static>;

/// The requests, as a client writes them.
pub(super) fn request_body(
    builder: &mut Builder,
    request: &Request,
) -> (schema::RequestBody, WIPOffset<UnionWIPOffset>) {
    use schema::RequestBody as Kind;
    match request {
        Request::Redrive(Redrive { group, queue, offsets, to }) => {
            let offsets: Vec<_> = offsets.iter().map(|offset| offset.0).collect();
            let arguments = schema::RedriveArgs {
                group: Some(builder.create_string(group.as_str())),
                queue: queue.0,
                offsets: Some(builder.create_vector(&offsets)),
                to: Some(builder.create_string(to.as_str())),
            };
            (Kind::Redrive, schema::Redrive::create(builder, &arguments).as_union_value())
        }
        Request::RedrivenRanges { group, queue, from } => {
            let group = Some(builder.create_string(group.as_str()));
            let arguments = schema::ListRedrivenArgs { group, queue: queue.0, from: from.0 };
            (Kind::ListRedriven, schema::ListRedriven::create(builder, &arguments).as_union_value())
        }
        _ => unreachable!("not about dead letters: {request:?}"),
    }
}

/// One of the requests, as the server reads it; `None`: it is none of these.
pub(super) fn read_request(request: &schema::Request<'_>) -> Option<Result<Request, Failure>> {
    match request.body_as_redrive() {
        Some(body) => Some(redrive(body)),
        None => request.body_as_list_redriven().map(list_redriven),
    }
}

fn redrive(body: schema::Redrive<'_>) -> Result<Request, Failure> {
    let (offsets, max) = (body.offsets(), limits::REDRIVE_MESSAGES_MAX);
    if offsets.len() > max {
        let count = offsets.len();
        return Err(Failure::invalid(format_args!(
            "a redrive names up to {max} dead letters, this one {count}"
        )));
    }
    Ok(Request::Redrive(Redrive {
        group: name(body.group())?,
        queue: QueueNumber(body.queue()),
        offsets: offsets.iter().map(QueueOffset).collect(),
        to: name(body.to())?,
    }))
}

fn list_redriven(body: schema::ListRedriven<'_>) -> Result<Request, Failure> {
    let (queue, from) = (QueueNumber(body.queue()), QueueOffset(body.from()));
    Ok(Request::RedrivenRanges { group: name(body.group())?, queue, from })
}

pub(super) fn redriven_body(
    builder: &mut Builder,
    report: &RedriveReport,
) -> (schema::ReplyBody, WIPOffset<UnionWIPOffset>) {
    let message = |outcome: &Redriven| {
        let (offset, queue, outcome) = match outcome {
            Redriven::Moved { queue, offset } => (offset.0, queue.0, schema::RedriveOutcome::Moved),
            Redriven::Before => (0, 0, schema::RedriveOutcome::Before),
            Redriven::Gone => (0, 0, schema::RedriveOutcome::Gone),
        };
        schema::RedrivenMessage::new(offset, queue, outcome)
    };
    let messages: Vec<_> = report.outcomes.iter().map(message).collect();
    let stopped = report.stopped.as_ref();
    let arguments = schema::RedrivenArgs {
        messages: Some(builder.create_vector(&messages)),
        stopped: stopped.map_or(schema::Status::Ok, |failure| status_code(failure.status)),
        reason: stopped.map(|failure| builder.create_string(&failure.message)),
    };
    (schema::ReplyBody::Redriven, schema::Redriven::create(builder, &arguments).as_union_value())
}

/// One of the answers, as a client reads it.
pub(super) fn read_reply(reply: &schema::Reply<'_>) -> Result<Reply, MalformedReply> {
    match (reply.body_as_redriven(), reply.body_as_redriven_ranges()) {
        (Some(body), _) => read_redriven(body).map(Reply::Redriven),
        (None, Some(body)) => Ok(Reply::RedrivenRanges(read_ranges(body))),
        (None, None) => Err(MalformedReply("an answer has a kind, but no body of that kind".to_owned())),
    }
}

fn read_redriven(body: schema::Redriven<'_>) -> Result<RedriveReport, MalformedReply> {
    let outcome = |message: &schema::RedrivenMessage| match message.outcome() {
        schema::RedriveOutcome::Moved => {
            let (queue, offset) = (QueueNumber(message.queue()), QueueOffset(message.offset()));
            Ok(Redriven::Moved { queue, offset })
        }
        schema::RedriveOutcome::Before => Ok(Redriven::Before),
        schema::RedriveOutcome::Gone => Ok(Redriven::Gone),
        schema::RedriveOutcome(code) => {
            Err(MalformedReply(format!("outcome {code} of a redrive is not known to this release")))
        }
    };
    let is_stopped = body.stopped() != schema::Status::Ok;
    Ok(RedriveReport {
        outcomes: body.messages().iter().map(outcome).collect::<Result<_, _>>()?,
        stopped: is_stopped
            .then(|| failure(body.stopped(), body.reason().unwrap_or("the broker gave no reason"))),
    })
}

pub(super) fn ranges_body(
    builder: &mut Builder,
    answer: &RedrivenRanges,
) -> (schema::ReplyBody, WIPOffset<UnionWIPOffset>) {
    let ranges = answer.ranges.iter().map(|range| schema::OffsetRange::new(range.start.0, range.end.0));
    let ranges: Vec<_> = ranges.collect();
    let arguments = schema::RedrivenRangesArgs {
        ranges: Some(builder.create_vector(&ranges)),
        next: answer.next.map_or(0, |next| next.0),
        incomplete: answer.next.is_some(),
        moving: answer.moving.map_or(0, |moving| moving.0),
        is_moving: answer.moving.is_some(),
    };
    (schema::ReplyBody::RedrivenRanges, schema::RedrivenRanges::create(builder, &arguments).as_union_value())
}

fn read_ranges(body: schema::RedrivenRanges<'_>) -> RedrivenRanges {
    let range = |range: &schema::OffsetRange| QueueOffset(range.first())..QueueOffset(range.end());
    RedrivenRanges {
        ranges: body.ranges().iter().map(range).collect(),
        next: body.incomplete().then_some(QueueOffset(body.next())),
        moving: body.is_moving().then_some(QueueOffset(body.moving())),
    }
}
