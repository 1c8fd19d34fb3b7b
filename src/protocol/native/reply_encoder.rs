//! Replies as the server writes them. An answer to a produce or a fetch allocates nothing once the encoder has been
//! used.

mod receiving;

use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use crate::api::{
    Assignment, DamagedBytes, Failure, Found, HistogramInfo, NodeInfo, Produced, Reply, RouteInfo, ShardInfo,
    StageTimes, Status, TopicInfo,
};
use crate::limits;
use crate::types::{NodeId, QueueKey, QueueOffset};
use crate::wire::generated as schema;

use super::by_hand;
use super::dead_letters;
use super::envelope;
use super::group_info;
use super::instances;
use super::locations;
use super::proof::PROOF_BYTES;
use super::settings;
use super::slow;
use super::stats;
use super::status::{level_code, retention_code, status_code};

/// Writes replies as frames. Keeps the memory of the envelope from one reply to the next: one encoder serves all
/// connections of a shard.
#[derive(Default)]
pub struct ReplyEncoder {
    builder: FlatBufferBuilder<'static>,
    /// What the next answer says of its request's time.
    stages: Option<StageTimes>,
}

/// What an answer to a fetch says ahead of its batches; see [`Fetched`](crate::api::Fetched).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchedHead<'a> {
    pub next_offset: QueueOffset,
    pub first_offset: QueueOffset,
    pub end_offset: QueueOffset,
    pub damaged: Option<&'a DamagedBytes>,
}

/// A reply's kind and its table.
type Body = (schema::ReplyBody, WIPOffset<UnionWIPOffset>);
type Builder = FlatBufferBuilder<'static>;

impl ReplyEncoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next answer says where its request's time went.
    pub fn tell_stages(&mut self, stages: Option<StageTimes>) {
        self.stages = stages;
    }

    /// Appends a whole frame to `output`. An answer that no frame can hold becomes a failure that says so.
    pub fn encode(&mut self, output: &mut Vec<u8>, correlation: u64, reply: &Result<Reply, Failure>) {
        match reply {
            Err(failure) => self.encode_failure(output, correlation, failure),
            Ok(Reply::Produced(produced)) => self.encode_produced(output, correlation, produced),
            Ok(Reply::Fetched(fetched)) => {
                let head = FetchedHead {
                    next_offset: fetched.next_offset,
                    first_offset: fetched.first_offset,
                    end_offset: fetched.end_offset,
                    damaged: fetched.damaged.as_ref(),
                };
                self.begin_fetched(output, correlation, &head, fetched.batches.len());
                output.extend_from_slice(&fetched.batches);
            }
            Ok(Reply::Found(found)) => self.encode_found(output, correlation, found),
            Ok(Reply::Received(messages)) => {
                let body = receiving::received_body(&mut self.builder, messages);
                let records = messages.iter().map(|message| &message.record);
                self.encode_with_records(output, correlation, body, records);
            }
            Ok(Reply::Halves(halves)) => {
                let body = receiving::halves_body(&mut self.builder, halves);
                self.encode_with_records(output, correlation, body, halves.iter().map(|half| &half.record));
            }
            Ok(Reply::Delayed(delayed)) => {
                let body = by_hand::delayed_body(&mut self.builder, delayed);
                let records = delayed.messages.iter().map(|message| &message.record);
                self.encode_with_records(output, correlation, body, records);
            }
            Ok(reply) => {
                let body = body(&mut self.builder, reply);
                self.encode_or_refuse(output, correlation, body, 0);
            }
        }
    }

    /// Appends the answer to a produce request.
    pub fn encode_produced(&mut self, output: &mut Vec<u8>, correlation: u64, produced: &Produced) {
        let arguments = schema::ProducedArgs {
            base_offset: produced.base_offset.0,
            log_position: produced.position.0,
            store_time_ms: produced.store_time.0,
            level: level_code(Some(produced.level)),
        };
        let table = schema::Produced::create(&mut self.builder, &arguments);
        let body = (schema::ReplyBody::Produced, table.as_union_value());
        let appended = self.append_ok(output, correlation, body, 0);
        assert!(appended.is_ok(), "a few numbers fit a frame");
    }

    /// Appends messages that were found: the broker keeps them to what a frame holds.
    fn encode_found(&mut self, output: &mut Vec<u8>, correlation: u64, found: &Found) {
        let builder = &mut self.builder;
        let mut messages = Vec::with_capacity(found.messages.len());
        for message in &found.messages {
            let arguments = schema::FoundMessageArgs {
                topic: Some(builder.create_shared_string(message.topic.as_str())),
                topic_id: message.key.topic.0,
                queue: message.key.queue.0,
                offset: message.offset.0,
                shard: u32::from(message.shard.0),
                position: message.position.0,
                index: message.index,
                record_bytes: message.record.len() as u32,
                born_time_ms: message.born_time.0,
                store_time_ms: message.store_time.0,
            };
            messages.push(schema::FoundMessage::create(builder, &arguments));
        }
        let messages = Some(builder.create_vector(&messages));
        let next = locations::write(builder, &found.next);
        let arguments = schema::FoundMessagesArgs { messages, complete: found.complete, next };
        let table = schema::FoundMessages::create(builder, &arguments);
        let payload_bytes = found.messages.iter().map(|message| message.record.len()).sum();
        let body = (schema::ReplyBody::FoundMessages, table.as_union_value());
        let appended = self.append_ok(output, correlation, body, payload_bytes);
        assert!(appended.is_ok(), "{} found messages fit a frame", found.messages.len());
        found.messages.iter().for_each(|message| output.extend_from_slice(&message.record));
    }

    /// Appends an answer and the records that follow it. The broker keeps them to what a frame holds.
    fn encode_with_records<'a>(
        &mut self,
        output: &mut Vec<u8>,
        correlation: u64,
        body: Body,
        records: impl Iterator<Item = &'a Bytes> + Clone,
    ) {
        let payload_bytes = records.clone().map(Bytes::len).sum();
        if self.encode_or_refuse(output, correlation, body, payload_bytes) {
            records.for_each(|record| output.extend_from_slice(record));
        }
    }

    /// Appends an answer up to its payload, or that it is too large. Whether the payload is to follow.
    fn encode_or_refuse(
        &mut self,
        output: &mut Vec<u8>,
        correlation: u64,
        body: Body,
        payload_bytes: usize,
    ) -> bool {
        let Err(error) = self.append_ok(output, correlation, body, payload_bytes) else { return true };
        let bytes = error.envelope_bytes + payload_bytes;
        let message = format!(
            "the answer of {bytes} bytes is larger than {}: ask for one topic or group at a time",
            limits::ENVELOPE_BYTES_MAX
        );
        self.encode_failure(output, correlation, &Failure::new(Status::LimitReached, message));
        false
    }

    /// Appends the answer to a fetch up to its payload. The caller appends the batches, `payload_bytes` in all.
    ///
    /// Panics when they do not fit a frame: `FETCH_BYTES_MAX`, or one batch of any size, always does.
    pub fn begin_fetched(
        &mut self,
        output: &mut Vec<u8>,
        correlation: u64,
        head: &FetchedHead<'_>,
        payload_bytes: usize,
    ) {
        let damaged_file = head.damaged.map(|damaged| self.builder.create_string(&damaged.file));
        let arguments = schema::FetchedArgs {
            next_offset: head.next_offset.0,
            first_offset: head.first_offset.0,
            end_offset: head.end_offset.0,
            damaged_file,
            damaged_position: head.damaged.map_or(0, |damaged| damaged.position),
        };
        let table = schema::Fetched::create(&mut self.builder, &arguments);
        let body = (schema::ReplyBody::Fetched, table.as_union_value());
        let appended = self.append_ok(output, correlation, body, payload_bytes);
        assert!(appended.is_ok(), "a fetch returned {payload_bytes} bytes, more than a frame holds");
    }

    /// Appends the broker's own proof, the answer to a client's.
    pub fn encode_proved(&mut self, output: &mut Vec<u8>, correlation: u64, proof: &[u8; PROOF_BYTES]) {
        let proof = Some(self.builder.create_vector(proof));
        let table = schema::Proved::create(&mut self.builder, &schema::ProvedArgs { proof });
        let body = (schema::ReplyBody::Proved, table.as_union_value());
        let appended = self.append_ok(output, correlation, body, 0);
        assert!(appended.is_ok(), "a proof fits a frame");
    }

    /// Appends a failure.
    pub fn encode_failure(&mut self, output: &mut Vec<u8>, correlation: u64, failure: &Failure) {
        assert!(failure.status != Status::Ok, "a failure has a reason: {failure}");
        let message = Some(self.builder.create_string(shortened(&failure.message)));
        let stages = self.stages.take().map(|times| slow::stages_vector(&mut self.builder, &times));
        let arguments = schema::ReplyArgs {
            status: status_code(failure.status),
            message,
            body_type: schema::ReplyBody::NONE,
            body: None,
            stages,
        };
        let root = schema::Reply::create(&mut self.builder, &arguments);
        let appended = envelope::append_frame(&mut self.builder, output, correlation, root, 0);
        assert!(appended.is_ok(), "a shortened message fits a frame");
    }

    fn append_ok(
        &mut self,
        output: &mut Vec<u8>,
        correlation: u64,
        (body_type, body): Body,
        payload_bytes: usize,
    ) -> Result<(), envelope::TooLarge> {
        let stages = self.stages.take().map(|times| slow::stages_vector(&mut self.builder, &times));
        let arguments = schema::ReplyArgs {
            status: schema::Status::Ok,
            message: None,
            body_type,
            body: Some(body),
            stages,
        };
        let root = schema::Reply::create(&mut self.builder, &arguments);
        envelope::append_frame(&mut self.builder, output, correlation, root, payload_bytes)
    }
}

/// A message may quote what a peer sent: it is cut where it stops being one.
fn shortened(message: &str) -> &str {
    const MESSAGE_BYTES_MAX: usize = 4096;
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

fn body(builder: &mut Builder, reply: &Reply) -> Body {
    use schema::ReplyBody as Kind;
    match reply {
        Reply::Produced(_) | Reply::Fetched(_) | Reply::Found(_) => {
            unreachable!("encoded by functions of their own")
        }
        Reply::Received(messages) => receiving::received_body(builder, messages),
        Reply::Halves(halves) => receiving::halves_body(builder, halves),
        Reply::Acknowledged(outcomes) => receiving::acknowledged_body(builder, outcomes),
        Reply::LeaseChanged(receipt) => receiving::lease_changed_body(builder, receipt),
        Reply::GroupSettings(settings) => receiving::settings_body(builder, settings),
        Reply::Held(held) => receiving::held_body(builder, held),
        Reply::GroupTerms(terms) => by_hand::terms_body(builder, terms),
        Reply::Purged(report) => by_hand::purge_body(builder, report),
        Reply::Delayed(delayed) => by_hand::delayed_body(builder, delayed),
        Reply::Redriven(report) => dead_letters::redriven_body(builder, report),
        Reply::RedrivenRanges(ranges) => dead_letters::ranges_body(builder, ranges),
        Reply::OffsetFound(offset) => {
            let table = schema::OffsetFound::create(builder, &schema::OffsetFoundArgs { offset: offset.0 });
            (Kind::OffsetFound, table.as_union_value())
        }
        Reply::Watched(queues) => {
            let queues = Some(builder.create_vector(&assigned(queues)));
            let table = schema::Watched::create(builder, &schema::WatchedArgs { queues });
            (Kind::Watched, table.as_union_value())
        }
        Reply::Topic(topic) => (Kind::TopicInfo, topic_table(builder, topic).as_union_value()),
        Reply::Topics(topics) => {
            let tables: Vec<_> = topics.iter().map(|topic| topic_table(builder, topic)).collect();
            let topics = Some(builder.create_vector(&tables));
            let table = schema::TopicList::create(builder, &schema::TopicListArgs { topics });
            (Kind::TopicList, table.as_union_value())
        }
        Reply::Route(route) => (Kind::RouteInfo, route_table(builder, route).as_union_value()),
        Reply::Offset(offset) => {
            let arguments = schema::OffsetInfoArgs {
                offset: offset.map_or(0, |offset| offset.0),
                present: offset.is_some(),
            };
            (Kind::OffsetInfo, schema::OffsetInfo::create(builder, &arguments).as_union_value())
        }
        Reply::Assignment(assignment) => {
            (Kind::Assignment, assignment_table(builder, assignment).as_union_value())
        }
        Reply::Group(group) => (Kind::GroupInfo, group_info::table(builder, group).as_union_value()),
        Reply::Groups(groups) => {
            let names: Vec<_> = groups.iter().map(|group| builder.create_string(group.as_str())).collect();
            let groups = Some(builder.create_vector(&names));
            let table = schema::GroupList::create(builder, &schema::GroupListArgs { groups });
            (Kind::GroupList, table.as_union_value())
        }
        Reply::Instances(instances) => {
            (Kind::InstanceList, instances::list_table(builder, instances).as_union_value())
        }
        Reply::Settings(settings) => {
            (Kind::SettingList, settings::list_table(builder, settings).as_union_value())
        }
        Reply::Node(node) => (Kind::NodeInfo, node_table(builder, node).as_union_value()),
        Reply::TopicStats(page) => {
            (Kind::TopicStatsList, stats::topics_table(builder, page).as_union_value())
        }
        Reply::GroupStats(page) => {
            (Kind::GroupStatsList, stats::groups_table(builder, page).as_union_value())
        }
        Reply::Slow(_) | Reply::Latency(_) => slow::reply_body(builder, reply),
        Reply::Done => (Kind::Done, schema::Done::create(builder, &schema::DoneArgs {}).as_union_value()),
    }
}

fn topic_table(builder: &mut Builder, topic: &TopicInfo) -> WIPOffset<schema::TopicInfo<'static>> {
    let ranges: Vec<_> = topic
        .queues
        .iter()
        .map(|queue| {
            schema::QueueRange::new(
                queue.queue.0,
                u32::from(queue.shard.0),
                queue.first_offset.0,
                queue.end_offset.0,
            )
        })
        .collect();
    let (retention, retention_ms) = retention_code(Some(topic.retention));
    let consumers = topic.consumers.as_ref();
    let groups = consumers.map(|consumers| group_info::topic_groups(builder, &consumers.groups));
    let arguments = schema::TopicInfoArgs {
        topic: Some(builder.create_string(topic.topic.as_str())),
        topic_id: topic.id.0,
        queue_count: topic.queue_count,
        retention_ms,
        retention,
        level: level_code(topic.level),
        queues: (!ranges.is_empty()).then(|| builder.create_vector(&ranges)),
        groups: groups.map(|groups| builder.create_vector(&groups)),
        consumers_left_out: consumers.map_or(0, |consumers| consumers.left_out),
        permission: topic.permission,
    };
    schema::TopicInfo::create(builder, &arguments)
}

fn route_table(builder: &mut Builder, route: &RouteInfo) -> WIPOffset<schema::RouteInfo<'static>> {
    let shards: Vec<_> = route
        .shards
        .iter()
        .map(|shard| {
            let address = Some(builder.create_string(&shard.address));
            let arguments = schema::ShardAddressArgs { shard: u32::from(shard.shard.0), address };
            schema::ShardAddress::create(builder, &arguments)
        })
        .collect();
    let shards = Some(builder.create_vector(&shards));
    let topic = route.topic.as_ref().map(|topic| topic_table(builder, topic));
    let node = route.node.map(node_code);
    schema::RouteInfo::create(builder, &schema::RouteInfoArgs { shards, topic, node: node.as_ref() })
}

pub(super) fn assigned(queues: &[QueueKey]) -> Vec<schema::QueueAssignment> {
    queues.iter().map(|key| schema::QueueAssignment::new(key.topic.0, key.queue.0)).collect()
}

fn assignment_table(
    builder: &mut Builder,
    assignment: &Assignment,
) -> WIPOffset<schema::Assignment<'static>> {
    let arguments = schema::AssignmentArgs {
        generation: assignment.generation,
        queues: Some(builder.create_vector(&assigned(&assignment.queues))),
        settled: assignment.settled,
        session: assignment.session,
    };
    schema::Assignment::create(builder, &arguments)
}

fn node_code(node: NodeId) -> schema::NodeId {
    schema::NodeId::new((node.0 >> 64) as u64, node.0 as u64)
}

fn node_table(builder: &mut Builder, node: &NodeInfo) -> WIPOffset<schema::NodeInfo<'static>> {
    let shards: Vec<_> = node.shards.iter().map(|shard| shard_table(builder, shard)).collect();
    let id = node.node.map(node_code);
    let arguments = schema::NodeInfoArgs {
        version: Some(builder.create_string(&node.version)),
        level: level_code(Some(node.level)),
        resident_bytes: node.resident_bytes,
        shards: Some(builder.create_vector(&shards)),
        node: id.as_ref(),
    };
    schema::NodeInfo::create(builder, &arguments)
}

fn shard_table(builder: &mut Builder, shard: &ShardInfo) -> WIPOffset<schema::ShardInfo<'static>> {
    let mut counters = Vec::with_capacity(shard.counters.len());
    for (name, value) in &shard.counters {
        let name = Some(builder.create_shared_string(name));
        counters.push(schema::CounterInfo::create(builder, &schema::CounterInfoArgs { name, value: *value }));
    }
    let mut histograms = Vec::with_capacity(shard.histograms.len());
    for histogram in &shard.histograms {
        histograms.push(histogram_table(builder, histogram));
    }
    let rates: Vec<_> = shard.rates.iter().map(|rate| stats::rate_table(builder, rate)).collect();
    let arguments = schema::ShardInfoArgs {
        rates: (!rates.is_empty()).then(|| builder.create_vector(&rates)),
        shard: u32::from(shard.shard.0),
        core: shard.core.and_then(|core| i32::try_from(core).ok()).unwrap_or(-1),
        counters: Some(builder.create_vector(&counters)),
        histograms: Some(builder.create_vector(&histograms)),
        state: Some(builder.create_string(&shard.state)),
    };
    schema::ShardInfo::create(builder, &arguments)
}

pub(super) fn histogram_table(
    builder: &mut Builder,
    histogram: &HistogramInfo,
) -> WIPOffset<schema::HistogramInfo<'static>> {
    let arguments = schema::HistogramInfoArgs {
        stage: Some(builder.create_shared_string(&histogram.stage)),
        count: histogram.count,
        p50_ns: histogram.p50_ns,
        p90_ns: histogram.p90_ns,
        p99_ns: histogram.p99_ns,
        p99_9_ns: histogram.p99_9_ns,
        p99_99_ns: histogram.p99_99_ns,
        max_ns: histogram.max_ns,
    };
    schema::HistogramInfo::create(builder, &arguments)
}
