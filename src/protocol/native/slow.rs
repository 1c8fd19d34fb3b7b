//! Requests and replies about where requests' time went, in both directions.

use std::time::Duration;

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, Vector, WIPOffset};

use crate::api::{
    Activity, Failure, KindLatency, LatencyInfo, ListSlow, MeasureLatency, Reply, Request, RequestProtocol,
    RequestStage, SlowRequest, StageTimes,
};
use crate::limits;
use crate::types::{QueueNumber, QueueOffset, ShardId, Timestamp, TopicName};
use crate::wire::generated as schema;

use super::envelope::MalformedReply;
use super::reply_decoder::read_histogram;
use super::reply_encoder::histogram_table;

type Builder = FlatBufferBuilder<'static>;

/// The requests, as a client writes them.
pub(super) fn request_body(
    builder: &mut Builder,
    request: &Request,
) -> (schema::RequestBody, WIPOffset<UnionWIPOffset>) {
    match request {
        Request::ListSlow(list) => {
            let arguments = schema::ListSlowArgs {
                one_shard: list.shard.is_some(),
                shard: list.shard.map_or(0, |shard| shard.0.into()),
                protocol: protocol_code(list.protocol),
                topic: list.topic.as_ref().map(|topic| builder.create_string(topic.as_str())),
                count: list.count,
            };
            let table = schema::ListSlow::create(builder, &arguments);
            (schema::RequestBody::ListSlow, table.as_union_value())
        }
        Request::MeasureLatency(measure) => {
            let arguments = schema::MeasureLatencyArgs {
                topic: Some(builder.create_string(measure.topic.as_str())),
                time_ms: u32::try_from(measure.time.as_millis()).unwrap_or(u32::MAX),
            };
            let table = schema::MeasureLatency::create(builder, &arguments);
            (schema::RequestBody::MeasureLatency, table.as_union_value())
        }
        _ => unreachable!("not about time: {request:?}"),
    }
}

/// One of the requests, as the server reads it; `None`: it is another one.
pub(super) fn known_request(request: &schema::Request<'_>) -> Option<Result<Request, Failure>> {
    match request.body_type() {
        schema::RequestBody::ListSlow => request.body_as_list_slow().map(list_slow),
        schema::RequestBody::MeasureLatency => request.body_as_measure_latency().map(measure_latency),
        _ => None,
    }
}

/// The replies, as the server writes them.
pub(super) fn reply_body(
    builder: &mut Builder,
    reply: &Reply,
) -> (schema::ReplyBody, WIPOffset<UnionWIPOffset>) {
    match reply {
        Reply::Slow(requests) => {
            (schema::ReplyBody::SlowList, list_table(builder, requests).as_union_value())
        }
        Reply::Latency(latency) => {
            (schema::ReplyBody::LatencyInfo, latency_table(builder, latency).as_union_value())
        }
        _ => unreachable!("not about time: {reply:?}"),
    }
}

/// One of the replies, as a client reads it; `None`: it is another one.
pub(super) fn known_reply(reply: &schema::Reply<'_>) -> Option<Result<Reply, MalformedReply>> {
    match reply.body_type() {
        schema::ReplyBody::SlowList => reply.body_as_slow_list().map(|body| read_list(body).map(Reply::Slow)),
        schema::ReplyBody::LatencyInfo => {
            reply.body_as_latency_info().map(|body| read_latency(body).map(Reply::Latency))
        }
        _ => None,
    }
}

/// No count means as many as there may be.
fn list_slow(body: schema::ListSlow<'_>) -> Result<Request, Failure> {
    let shard = u16::try_from(body.shard()).map_err(|_| {
        Failure::invalid(format_args!("{} is no shard's number: take it from a route", body.shard()))
    })?;
    let topic = body.topic().map(str::parse::<TopicName>).transpose().map_err(Failure::invalid)?;
    let count = match body.count() {
        0 => limits::SLOW_REQUESTS_MAX,
        count => count.min(limits::SLOW_REQUESTS_MAX),
    };
    let protocol = known_protocol(body.protocol()).map_err(|code| {
        Failure::invalid(format_args!("protocol {code} is not known to this broker: leave it out"))
    })?;
    Ok(Request::ListSlow(ListSlow {
        shard: body.one_shard().then_some(ShardId(shard)),
        protocol,
        topic,
        count,
    }))
}

fn measure_latency(body: schema::MeasureLatency<'_>) -> Result<Request, Failure> {
    let (topic, time_ms) = (body.topic().parse().map_err(Failure::invalid)?, body.time_ms());
    if !(1..=limits::MEASURED_MS_MAX).contains(&time_ms) {
        return Err(Failure::invalid(format_args!(
            "latencies are measured for 1 to {} ms, not for {time_ms}",
            limits::MEASURED_MS_MAX
        )));
    }
    Ok(Request::MeasureLatency(MeasureLatency { topic, time: Duration::from_millis(time_ms.into()) }))
}

fn latency_table(builder: &mut Builder, latency: &LatencyInfo) -> WIPOffset<schema::LatencyInfo<'static>> {
    let kinds: Vec<_> = latency.kinds.iter().map(|kind| kind_table(builder, kind)).collect();
    let kinds = Some(builder.create_vector(&kinds));
    schema::LatencyInfo::create(builder, &schema::LatencyInfoArgs { kinds })
}

fn kind_table(builder: &mut Builder, kind: &KindLatency) -> WIPOffset<schema::KindLatency<'static>> {
    let stages: Vec<_> = kind.stages.iter().map(|(_, stage)| histogram_table(builder, stage)).collect();
    let means: Vec<u64> = kind.stages.iter().map(|(mean, _)| nanoseconds(*mean)).collect();
    let point = |(share, time): &(f64, Duration)| schema::CurvePoint::new(*share, nanoseconds(*time));
    let curve: Vec<_> = kind.curve.iter().map(point).collect();
    let arguments = schema::KindLatencyArgs {
        protocol: protocol_code(Some(kind.protocol)),
        kind: Some(builder.create_string(&kind.kind)),
        total: Some(histogram_table(builder, &kind.total)),
        mean_ns: nanoseconds(kind.mean),
        curve: Some(builder.create_vector(&curve)),
        stages: Some(builder.create_vector(&stages)),
        stage_means_ns: Some(builder.create_vector(&means)),
    };
    schema::KindLatency::create(builder, &arguments)
}

fn read_latency(body: schema::LatencyInfo<'_>) -> Result<LatencyInfo, MalformedReply> {
    let kinds = body.kinds().iter().map(read_kind).collect::<Result<_, _>>()?;
    Ok(LatencyInfo { kinds })
}

fn read_kind(body: schema::KindLatency<'_>) -> Result<KindLatency, MalformedReply> {
    let protocol = known_protocol(body.protocol()).ok().flatten();
    let means = body.stage_means_ns().iter().map(Duration::from_nanos);
    let mut stages: Vec<_> = means.zip(body.stages().iter().map(read_histogram)).collect();
    if stages.len() < RequestStage::ALL.len() {
        return Err(MalformedReply("latencies have fewer stages than there are".to_owned()));
    }
    stages.truncate(RequestStage::ALL.len());
    if !body.curve().iter().all(|point| (0.0..=1.0).contains(&point.share())) {
        return Err(MalformedReply("a curve has a share that is none".to_owned()));
    }
    Ok(KindLatency {
        protocol: protocol.ok_or_else(|| MalformedReply("requests came over no protocol".to_owned()))?,
        kind: body.kind().to_owned(),
        total: read_histogram(body.total()),
        mean: Duration::from_nanos(body.mean_ns()),
        curve: body
            .curve()
            .iter()
            .map(|point| (point.share(), Duration::from_nanos(point.time_ns())))
            .collect(),
        stages,
    })
}

fn list_table(builder: &mut Builder, requests: &[SlowRequest]) -> WIPOffset<schema::SlowList<'static>> {
    let tables: Vec<_> = requests.iter().map(|request| slow_table(builder, request)).collect();
    let requests = Some(builder.create_vector(&tables));
    schema::SlowList::create(builder, &schema::SlowListArgs { requests })
}

fn slow_table(builder: &mut Builder, slow: &SlowRequest) -> WIPOffset<schema::SlowRequest<'static>> {
    let meanwhile = |(activity, time): &(Activity, Duration)| {
        schema::Meanwhile::new(schema::Activity(*activity as u8), nanoseconds(*time))
    };
    let meanwhile: Vec<_> = slow.meanwhile.iter().map(meanwhile).collect();
    let arguments = schema::SlowRequestArgs {
        shard: slow.shard.0.into(),
        answered_ms: slow.answered.0,
        protocol: protocol_code(Some(slow.protocol)),
        kind: Some(builder.create_shared_string(&slow.kind)),
        topic: slow.topic.as_ref().map(|topic| builder.create_shared_string(topic.as_str())),
        has_queue: slow.queue.is_some(),
        queue: slow.queue.map_or(0, |queue| queue.0),
        has_offset: slow.offset.is_some(),
        offset: slow.offset.map_or(0, |offset| offset.0),
        client: slow.client.map(|client| builder.create_string(&client.to_string())),
        stages: Some(stages_vector(builder, &slow.times)),
        meanwhile: Some(builder.create_vector(&meanwhile)),
    };
    schema::SlowRequest::create(builder, &arguments)
}

pub(super) fn stages_vector(builder: &mut Builder, times: &StageTimes) -> WIPOffset<Vector<'static, u64>> {
    let times = RequestStage::ALL.map(|stage| nanoseconds(times.get(stage)));
    builder.create_vector(&times)
}

fn read_list(body: schema::SlowList<'_>) -> Result<Vec<SlowRequest>, MalformedReply> {
    body.requests().iter().map(read_slow).collect()
}

fn read_slow(body: schema::SlowRequest<'_>) -> Result<SlowRequest, MalformedReply> {
    let shard = u16::try_from(body.shard())
        .map_err(|_| MalformedReply(format!("shard {} is no shard's number", body.shard())))?;
    let protocol = known_protocol(body.protocol()).ok().flatten();
    let topic = body.topic().map(str::parse).transpose();
    let client = body.client().map(str::parse).transpose();
    // What a newer broker does beside requests has no name here.
    let meanwhile = body.meanwhile().into_iter().flatten().filter_map(|met| {
        let activity = Activity::ALL.get(usize::from(met.activity().0))?;
        Some((*activity, Duration::from_nanos(met.time_ns())))
    });
    Ok(SlowRequest {
        shard: ShardId(shard),
        answered: Timestamp(body.answered_ms()),
        protocol: protocol
            .ok_or_else(|| MalformedReply("a slow request came over no protocol".to_owned()))?,
        kind: body.kind().to_owned(),
        topic: topic.map_err(|error| MalformedReply(format!("{error}")))?,
        queue: body.has_queue().then_some(QueueNumber(body.queue())),
        offset: body.has_offset().then_some(QueueOffset(body.offset())),
        client: client.map_err(|error| MalformedReply(format!("a client's address: {error}")))?,
        times: read_stages(body.stages()),
        meanwhile: meanwhile.collect(),
    })
}

/// Stages that a newer broker has beyond ours are left out.
pub(super) fn read_stages(times: Vector<'_, u64>) -> StageTimes {
    let mut stages = StageTimes::default();
    for (stage, time) in RequestStage::ALL.into_iter().zip(times) {
        stages.set(stage, Duration::from_nanos(time));
    }
    stages
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn protocol_code(protocol: Option<RequestProtocol>) -> schema::RequestProtocol {
    match protocol {
        None => schema::RequestProtocol::Any,
        Some(RequestProtocol::Native) => schema::RequestProtocol::Native,
        Some(RequestProtocol::Http) => schema::RequestProtocol::Http,
        Some(RequestProtocol::Remoting) => schema::RequestProtocol::Remoting,
    }
}

fn known_protocol(code: schema::RequestProtocol) -> Result<Option<RequestProtocol>, u8> {
    match code {
        schema::RequestProtocol::Any => Ok(None),
        schema::RequestProtocol::Native => Ok(Some(RequestProtocol::Native)),
        schema::RequestProtocol::Http => Ok(Some(RequestProtocol::Http)),
        schema::RequestProtocol::Remoting => Ok(Some(RequestProtocol::Remoting)),
        schema::RequestProtocol(code) => Err(code),
    }
}
