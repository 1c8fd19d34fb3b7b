//! Replies as a client reads them.

mod receiving;

use std::str::FromStr;

use bytes::Bytes;
use flatbuffers::Vector;

use crate::api::{
    Assignment, DamagedBytes, Failure, Fetched, Found, FoundMessage, HistogramInfo, NodeInfo, Produced,
    QueueInfo, Reply, RouteInfo, ShardAddress, ShardInfo, StageTimes, TopicConsumers, TopicInfo,
};
use crate::limits;
use crate::types::{
    Level, LogPosition, NameError, NodeId, QueueKey, QueueNumber, QueueOffset, Retention, ShardId, Timestamp,
    TopicId,
};
use crate::wire::frame::Frame;
use crate::wire::generated as schema;
use crate::wire::record::RecordView;

use super::by_hand;
use super::dead_letters;
use super::envelope::{self, MalformedReply};
use super::group_info;
use super::instances;
use super::locations;
use super::proof::{self, PROOF_BYTES};
use super::receipts::known_receipt;
use super::settings;
use super::slow;
use super::stats;
use super::status::{failure, known_level, known_retention};

/// An answer. Fetched batches are borrowed from the receive buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum DecodedReply<'a> {
    Produced(Produced),
    Fetched(FetchedView<'a>),
    Other(Reply),
    Failed(Failure),
}

/// [`Fetched`] with its batches still in the receive buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedView<'a> {
    pub batches: &'a [u8],
    pub next_offset: QueueOffset,
    pub first_offset: QueueOffset,
    pub end_offset: QueueOffset,
    pub damaged: Option<DamagedBytes>,
}

impl FetchedView<'_> {
    pub fn to_owned(&self) -> Fetched {
        Fetched {
            batches: self.batches.to_vec(),
            next_offset: self.next_offset,
            first_offset: self.first_offset,
            end_offset: self.end_offset,
            damaged: self.damaged.clone(),
        }
    }
}

impl DecodedReply<'_> {
    /// The answer with everything it borrows copied.
    pub fn into_owned(self) -> Result<Reply, Failure> {
        match self {
            DecodedReply::Produced(produced) => Ok(Reply::Produced(produced)),
            DecodedReply::Fetched(view) => Ok(Reply::Fetched(view.to_owned())),
            DecodedReply::Other(reply) => Ok(reply),
            DecodedReply::Failed(failure) => Err(failure),
        }
    }
}

/// Reads the answer to a proof: the broker's own proof, or why it does not believe the client's.
pub fn decode_proved(frame: &Frame<'_>) -> Result<Result<[u8; PROOF_BYTES], Failure>, MalformedReply> {
    let reply = envelope::verified::<schema::Reply>(frame.envelope)
        .map_err(|error| MalformedReply(envelope::reason(&error)))?;
    if reply.status() != schema::Status::Ok {
        let message = reply.message().unwrap_or("the broker gave no reason");
        return Ok(Err(failure(reply.status(), message)));
    }
    let proof = reply.body_as_proved().and_then(|body| proof::fixed(body.proof()));
    proof.map(Ok).ok_or_else(|| MalformedReply("the answer to a proof is none".to_owned()))
}

/// Verifies the envelope of `frame` and reads the answer. An error says that the peer does not speak the protocol: what
/// became of the request is unknown, and so is every later byte of the connection.
pub fn decode_reply<'a>(frame: &Frame<'a>) -> Result<DecodedReply<'a>, MalformedReply> {
    let reply = envelope::verified::<schema::Reply>(frame.envelope)
        .map_err(|error| MalformedReply(envelope::reason(&error)))?;
    if reply.status() != schema::Status::Ok {
        let message = reply.message().unwrap_or("the broker gave no reason");
        return Ok(DecodedReply::Failed(failure(reply.status(), message)));
    }
    if let Some(body) = reply.body_as_produced() {
        return Ok(DecodedReply::Produced(Produced {
            base_offset: QueueOffset(body.base_offset()),
            position: LogPosition(body.log_position()),
            store_time: Timestamp(body.store_time_ms()),
            level: reached_level(body.level())?,
        }));
    }
    if let Some(body) = reply.body_as_fetched() {
        return Ok(DecodedReply::Fetched(FetchedView {
            batches: frame.payload,
            next_offset: QueueOffset(body.next_offset()),
            first_offset: QueueOffset(body.first_offset()),
            end_offset: QueueOffset(body.end_offset()),
            damaged: body
                .damaged_file()
                .map(|file| DamagedBytes { file: file.to_owned(), position: body.damaged_position() }),
        }));
    }
    if let Some(body) = reply.body_as_found_messages() {
        return found(body, frame.payload).map(|found| DecodedReply::Other(Reply::Found(found)));
    }
    if let Some(body) = reply.body_as_received_messages() {
        let messages = receiving::received(body, frame.payload)?;
        return Ok(DecodedReply::Other(Reply::Received(messages)));
    }
    if let Some(body) = reply.body_as_delayed_messages() {
        let delayed = receiving::delayed(body, frame.payload)?;
        return Ok(DecodedReply::Other(Reply::Delayed(delayed)));
    }
    if let Some(body) = reply.body_as_half_messages() {
        let halves = receiving::halves(body, frame.payload)?;
        return Ok(DecodedReply::Other(Reply::Halves(halves)));
    }
    if matches!(reply.body_type(), schema::ReplyBody::GroupTerms | schema::ReplyBody::PurgeReport) {
        return by_hand::read_reply(&reply).map(DecodedReply::Other);
    }
    other_reply(&reply).map(DecodedReply::Other)
}

/// Where the time of a request went, if its answer says so.
pub fn reply_stages(frame: &Frame<'_>) -> Option<StageTimes> {
    let reply = envelope::verified::<schema::Reply>(frame.envelope).ok()?;
    reply.stages().map(slow::read_stages)
}

fn other_reply(reply: &schema::Reply<'_>) -> Result<Reply, MalformedReply> {
    let missing = || MalformedReply("an answer has a kind, but no body of that kind".to_owned());
    match reply.body_type() {
        schema::ReplyBody::OffsetFound => {
            Ok(Reply::OffsetFound(QueueOffset(reply.body_as_offset_found().ok_or_else(missing)?.offset())))
        }
        schema::ReplyBody::Watched => {
            Ok(Reply::Watched(queue_keys(reply.body_as_watched().ok_or_else(missing)?.queues())))
        }
        schema::ReplyBody::TopicInfo => {
            Ok(Reply::Topic(topic(reply.body_as_topic_info().ok_or_else(missing)?)?))
        }
        schema::ReplyBody::TopicList => {
            let topics = reply.body_as_topic_list().ok_or_else(missing)?.topics();
            Ok(Reply::Topics(topics.iter().map(topic).collect::<Result<_, _>>()?))
        }
        schema::ReplyBody::RouteInfo => {
            Ok(Reply::Route(route(reply.body_as_route_info().ok_or_else(missing)?)?))
        }
        schema::ReplyBody::OffsetInfo => {
            let body = reply.body_as_offset_info().ok_or_else(missing)?;
            Ok(Reply::Offset(body.present().then_some(QueueOffset(body.offset()))))
        }
        schema::ReplyBody::Assignment => {
            let body = reply.body_as_assignment().ok_or_else(missing)?;
            Ok(Reply::Assignment(Assignment {
                generation: body.generation(),
                queues: queue_keys(body.queues()),
                settled: body.settled(),
                session: body.session(),
            }))
        }
        schema::ReplyBody::GroupInfo => {
            Ok(Reply::Group(group_info::read(reply.body_as_group_info().ok_or_else(missing)?)?))
        }
        schema::ReplyBody::GroupList => {
            let groups = reply.body_as_group_list().ok_or_else(missing)?.groups();
            Ok(Reply::Groups(groups.iter().map(name).collect::<Result<_, _>>()?))
        }
        schema::ReplyBody::InstanceList => {
            let list = reply.body_as_instance_list().ok_or_else(missing)?;
            Ok(Reply::Instances(instances::read_list(list)?))
        }
        schema::ReplyBody::SettingList => settings::reply(reply.body_as_setting_list()).ok_or_else(missing),
        schema::ReplyBody::NodeInfo => Ok(Reply::Node(node(reply.body_as_node_info().ok_or_else(missing)?)?)),
        schema::ReplyBody::Acknowledged => {
            let outcomes = reply.body_as_acknowledged().ok_or_else(missing)?.outcomes();
            receiving::outcomes(outcomes).map(Reply::Acknowledged)
        }
        schema::ReplyBody::LeaseChanged => {
            let receipt = reply.body_as_lease_changed().ok_or_else(missing)?.receipt();
            Ok(Reply::LeaseChanged(known_receipt(receipt)))
        }
        schema::ReplyBody::GroupSettings => {
            group_info::read_settings(reply.body_as_group_settings().ok_or_else(missing)?)
                .map(Reply::GroupSettings)
        }
        schema::ReplyBody::Held => {
            receiving::held(reply.body_as_held().ok_or_else(missing)?).map(Reply::Held)
        }
        schema::ReplyBody::TopicStatsList | schema::ReplyBody::GroupStatsList => {
            stats::read_reply(reply).ok_or_else(missing)?
        }
        schema::ReplyBody::Redriven | schema::ReplyBody::RedrivenRanges => dead_letters::read_reply(reply),
        schema::ReplyBody::Done => Ok(Reply::Done),
        kind => slow::known_reply(reply).unwrap_or_else(|| Err(unknown_reply(kind))),
    }
}

fn found(body: schema::FoundMessages<'_>, payload: &[u8]) -> Result<Found, MalformedReply> {
    let mut records = PayloadRecords { rest: payload };
    let mut messages = Vec::with_capacity(body.messages().len().min(limits::FIND_MESSAGES_MAX as usize));
    for message in body.messages() {
        messages.push(FoundMessage {
            topic: name(message.topic())?,
            key: QueueKey { topic: TopicId(message.topic_id()), queue: QueueNumber(message.queue()) },
            offset: QueueOffset(message.offset()),
            shard: shard_id(message.shard())?,
            position: LogPosition(message.position()),
            index: message.index(),
            record: records.next(message.record_bytes())?,
            born_time: Timestamp(message.born_time_ms()),
            store_time: Timestamp(message.store_time_ms()),
        });
    }
    records.end()?;
    Ok(Found { messages, complete: body.complete(), next: locations::read(body.next()) })
}

/// Records that follow an envelope. They are as long as the envelope says, and whole: who reads them relies on it.
struct PayloadRecords<'a> {
    rest: &'a [u8],
}

impl PayloadRecords<'_> {
    fn next(&mut self, record_bytes: u32) -> Result<Bytes, MalformedReply> {
        let (record, after) =
            RecordView::cut(self.rest).map_err(|error| MalformedReply(error.to_string()))?;
        if record.as_bytes().len() != record_bytes as usize {
            return Err(MalformedReply("a message is not as long as it says".to_owned()));
        }
        self.rest = after;
        Ok(Bytes::copy_from_slice(record.as_bytes()))
    }

    fn end(&self) -> Result<(), MalformedReply> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(MalformedReply("bytes follow the last message".to_owned()))
    }
}

fn topic(body: schema::TopicInfo<'_>) -> Result<TopicInfo, MalformedReply> {
    let mut queues = Vec::new();
    for range in body.queues().iter().flatten() {
        queues.push(QueueInfo {
            queue: QueueNumber(range.queue()),
            shard: shard_id(range.shard())?,
            first_offset: QueueOffset(range.first_offset()),
            end_offset: QueueOffset(range.end_offset()),
        });
    }
    let groups = body.groups().map(|groups| groups.iter().map(group_info::read_topic_group).collect());
    let groups: Option<Vec<_>> = groups.transpose()?;
    Ok(TopicInfo {
        topic: name(body.topic())?,
        id: TopicId(body.topic_id()),
        queue_count: body.queue_count(),
        retention: retention(body.retention(), body.retention_ms())?,
        level: level(body.level())?,
        permission: body.permission(),
        queues,
        consumers: groups.map(|groups| TopicConsumers { groups, left_out: body.consumers_left_out() }),
    })
}

/// The shards must stand in the order of their ids, because a queue's shard is an index among them.
fn route(body: schema::RouteInfo<'_>) -> Result<RouteInfo, MalformedReply> {
    let mut shards = Vec::with_capacity(body.shards().len());
    for (index, shard) in body.shards().iter().enumerate() {
        let address = ShardAddress { shard: shard_id(shard.shard())?, address: shard.address().to_owned() };
        if usize::from(address.shard.0) != index {
            return Err(MalformedReply(format!("a route has shard {} at place {index}", address.shard)));
        }
        shards.push(address);
    }
    if shards.is_empty() {
        return Err(MalformedReply("a route names no shard".to_owned()));
    }
    Ok(RouteInfo { shards, topic: body.topic().map(topic).transpose()?, node: body.node().map(node_id) })
}

fn node_id(node: &schema::NodeId) -> NodeId {
    NodeId(u128::from(node.high()) << 64 | u128::from(node.low()))
}

fn node(body: schema::NodeInfo<'_>) -> Result<NodeInfo, MalformedReply> {
    Ok(NodeInfo {
        version: body.version().to_owned(),
        node: body.node().map(node_id),
        level: reached_level(body.level())?,
        resident_bytes: body.resident_bytes(),
        shards: body.shards().iter().map(shard).collect::<Result<_, _>>()?,
    })
}

fn shard(body: schema::ShardInfo<'_>) -> Result<ShardInfo, MalformedReply> {
    Ok(ShardInfo {
        shard: shard_id(body.shard())?,
        core: u32::try_from(body.core()).ok(),
        state: body.state().unwrap_or_default().to_owned(),
        counters: body
            .counters()
            .iter()
            .map(|counter| (counter.name().to_owned(), counter.value()))
            .collect(),
        histograms: body.histograms().iter().map(read_histogram).collect(),
        rates: body.rates().iter().flatten().map(stats::read_rate).collect(),
    })
}

fn unknown_reply(kind: schema::ReplyBody) -> MalformedReply {
    MalformedReply(format!("an answer of kind {} is not known to this release", kind.0))
}

pub(super) fn read_histogram(histogram: schema::HistogramInfo<'_>) -> HistogramInfo {
    HistogramInfo {
        stage: histogram.stage().to_owned(),
        count: histogram.count(),
        p50_ns: histogram.p50_ns(),
        p90_ns: histogram.p90_ns(),
        p99_ns: histogram.p99_ns(),
        p99_9_ns: histogram.p99_9_ns(),
        p99_99_ns: histogram.p99_99_ns(),
        max_ns: histogram.max_ns(),
    }
}

pub(super) fn queue_keys(queues: Vector<'_, schema::QueueAssignment>) -> Vec<QueueKey> {
    queues
        .iter()
        .map(|queue| QueueKey { topic: TopicId(queue.topic_id()), queue: QueueNumber(queue.queue()) })
        .collect()
}

pub(super) fn name<Name: FromStr<Err = NameError>>(text: &str) -> Result<Name, MalformedReply> {
    text.parse().map_err(|error: NameError| MalformedReply(error.to_string()))
}

fn shard_id(shard: u32) -> Result<ShardId, MalformedReply> {
    u16::try_from(shard)
        .map(ShardId)
        .map_err(|_| MalformedReply(format!("shard {shard} is no shard's number")))
}

fn level(code: schema::Level) -> Result<Option<Level>, MalformedReply> {
    known_level(code)
        .map_err(|code| MalformedReply(format!("durability level {code} is not known to this release")))
}

/// None at all, as an older broker writes it, is inherited.
fn retention(code: schema::Retention, milliseconds: u64) -> Result<Retention, MalformedReply> {
    match known_retention(code, milliseconds) {
        Ok(retention) => Ok(retention.unwrap_or_default()),
        Err(code) => Err(MalformedReply(format!("retention {code} is not known to this release"))),
    }
}

fn reached_level(code: schema::Level) -> Result<Level, MalformedReply> {
    level(code)?.ok_or_else(|| MalformedReply("an answer leaves its durability level open".to_owned()))
}
