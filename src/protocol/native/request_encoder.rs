//! Requests as a client writes them.

mod receiving;

use std::time::Duration;

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use crate::api::{
    Failure, Fetch, FindMessages, JoinGroup, OffsetSpec, ProduceCopies, Request, ResetGroup, ResetTarget,
    SessionLife, Status, TopicChange, Watch,
};
use crate::limits;
use crate::types::{Level, QueueKey, QueueOffset, TopicName};
use crate::wire::generated as schema;

use super::by_hand;
use super::dead_letters;
use super::envelope;
use super::instances;
use super::locations;
use super::proof::Prove;
use super::settings;
use super::slow;
use super::stats;
use super::status::{level_code, retention_code};

use receiving::{hold_body, lease_body};

/// Writes requests as frames. Keeps the memory of the envelope from one request to the next.
#[derive(Default)]
pub struct RequestEncoder {
    builder: FlatBufferBuilder<'static>,
    /// Every answer is to say where its request's time went.
    asks_for_stages: bool,
}

/// A request's kind and its table.
type Body = (schema::RequestBody, WIPOffset<UnionWIPOffset>);

impl RequestEncoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on answers are to say where their requests' time went, or not.
    pub fn ask_for_stages(&mut self, asks: bool) {
        self.asks_for_stages = asks;
    }

    pub fn asks_for_stages(&self) -> bool {
        self.asks_for_stages
    }

    /// Appends the frame of `request` to `output`. Fails, and appends nothing, when it is larger than a frame takes.
    pub fn encode(
        &mut self,
        output: &mut Vec<u8>,
        correlation: u64,
        request: &Request,
    ) -> Result<(), Failure> {
        if let Request::Produce(produce) = request {
            self.begin_produce(output, correlation, produce.key, produce.level, produce.batch.len())?;
            output.extend_from_slice(&produce.batch);
            return Ok(());
        }
        if let Request::ProduceCopies(ProduceCopies { produce, at }) = request {
            self.begin_copies(output, correlation, (produce.key, produce.level, *at), produce.batch.len())?;
            output.extend_from_slice(&produce.batch);
            return Ok(());
        }
        if let Request::Hold(hold) = request {
            check_batch_bytes(hold.batch.len())?;
            let body = hold_body(&mut self.builder, hold);
            self.append(output, correlation, body, hold.batch.len())?;
            output.extend_from_slice(&hold.batch);
            return Ok(());
        }
        let body = self.body(request);
        self.append(output, correlation, body, 0)
    }

    /// Appends the frame of a produce request up to its payload. The caller appends the batch, of exactly `batch_bytes`.
    pub fn begin_produce(
        &mut self,
        output: &mut Vec<u8>,
        correlation: u64,
        key: QueueKey,
        level: Option<Level>,
        batch_bytes: usize,
    ) -> Result<(), Failure> {
        check_batch_bytes(batch_bytes)?;
        let arguments =
            schema::ProduceArgs { topic_id: key.topic.0, queue: key.queue.0, level: level_code(level) };
        let table = schema::Produce::create(&mut self.builder, &arguments);
        self.append(output, correlation, (schema::RequestBody::Produce, table.as_union_value()), batch_bytes)
    }

    /// The same for a batch of copies, with the offset that the first of them must get.
    pub fn begin_copies(
        &mut self,
        output: &mut Vec<u8>,
        correlation: u64,
        (key, level, at): (QueueKey, Option<Level>, Option<QueueOffset>),
        batch_bytes: usize,
    ) -> Result<(), Failure> {
        check_batch_bytes(batch_bytes)?;
        let arguments = schema::ProduceCopiesArgs {
            topic_id: key.topic.0,
            queue: key.queue.0,
            level: level_code(level),
            at_offset: at.is_some(),
            offset: at.map_or(0, |offset| offset.0),
        };
        let table = schema::ProduceCopies::create(&mut self.builder, &arguments);
        let body = (schema::RequestBody::ProduceCopies, table.as_union_value());
        self.append(output, correlation, body, batch_bytes)
    }

    /// Appends the frame of a proof.
    pub fn encode_prove(
        &mut self,
        output: &mut Vec<u8>,
        correlation: u64,
        prove: &Prove,
    ) -> Result<(), Failure> {
        let arguments = schema::ProveArgs {
            key_id: Some(self.builder.create_string(&prove.key_id)),
            nonce: Some(self.builder.create_vector(&prove.nonce)),
            proof: Some(self.builder.create_vector(&prove.proof)),
        };
        let table = schema::Prove::create(&mut self.builder, &arguments);
        self.append(output, correlation, (schema::RequestBody::Prove, table.as_union_value()), 0)
    }

    fn append(
        &mut self,
        output: &mut Vec<u8>,
        correlation: u64,
        (body_type, body): Body,
        payload_bytes: usize,
    ) -> Result<(), Failure> {
        let request = schema::Request::create(
            &mut self.builder,
            &schema::RequestArgs { body_type, body: Some(body), stages: self.asks_for_stages },
        );
        envelope::append_frame(&mut self.builder, output, correlation, request, payload_bytes).map_err(
            |error| {
                Failure::invalid(format_args!(
                    "a request of {} bytes is larger than {}: name fewer topics in it",
                    error.envelope_bytes,
                    limits::ENVELOPE_BYTES_MAX
                ))
            },
        )
    }

    fn body(&mut self, request: &Request) -> Body {
        use schema::RequestBody as Kind;
        let builder = &mut self.builder;
        match request {
            Request::Produce(_) | Request::ProduceCopies(_) => unreachable!("encoded by begin_..."),
            Request::Hold(hold) => hold_body(builder, hold),
            Request::Fetch(fetch) => (Kind::Fetch, fetch_table(builder, fetch)),
            Request::Watch(watch) => (Kind::Watch, watch_table(builder, watch)),
            Request::FindOffset { key, spec } => (Kind::FindOffset, find_offset_table(builder, *key, *spec)),
            Request::CreateTopic(change) => {
                let arguments = create_arguments(builder, change);
                (Kind::CreateTopic, schema::CreateTopic::create(builder, &arguments).as_union_value())
            }
            Request::AlterTopic(change) => {
                let schema::CreateTopicArgs { topic, queues, retention_ms, level, retention } =
                    create_arguments(builder, change);
                let arguments = schema::AlterTopicArgs { topic, queues, retention_ms, level, retention };
                (Kind::AlterTopic, schema::AlterTopic::create(builder, &arguments).as_union_value())
            }
            Request::DeleteTopic(topic) => {
                let topic = Some(builder.create_string(topic.as_str()));
                let table = schema::DeleteTopic::create(builder, &schema::DeleteTopicArgs { topic });
                (Kind::DeleteTopic, table.as_union_value())
            }
            Request::DescribeTopic(topic) => {
                let topic = Some(builder.create_string(topic.as_str()));
                let table = schema::DescribeTopic::create(builder, &schema::DescribeTopicArgs { topic });
                (Kind::DescribeTopic, table.as_union_value())
            }
            Request::ListTopics => {
                let table = schema::ListTopics::create(builder, &schema::ListTopicsArgs {});
                (Kind::ListTopics, table.as_union_value())
            }
            Request::Route(topic) => (Kind::Route, route_table(builder, topic.as_ref(), false)),
            Request::OpenTopic(topic) => (Kind::Route, route_table(builder, Some(topic), true)),
            Request::DescribeNode { count_syscalls } => {
                let arguments = schema::DescribeNodeArgs { count_syscalls: *count_syscalls };
                (Kind::DescribeNode, schema::DescribeNode::create(builder, &arguments).as_union_value())
            }
            Request::Settings(changes) => settings::request_body(builder, changes),
            Request::FindMessages(find) => find_body(builder, find),
            Request::ListSlow(_) | Request::MeasureLatency(_) => slow::request_body(builder, request),
            Request::CreateInstance(_) | Request::DeleteInstance(_) | Request::ListInstances => {
                instances::request_body(builder, request)
            }
            Request::TopicStats(_) | Request::GroupStats(_) => stats::request_body(builder, request),
            Request::PermitTopic { .. }
            | Request::PurgeTopic(_)
            | Request::SetUpGroup(_)
            | Request::ListDelayed(_)
            | Request::RecallDelayed(_) => by_hand::request_body(builder, request),
            Request::Redrive(_) | Request::RedrivenRanges { .. } => {
                dead_letters::request_body(builder, request)
            }
            Request::CommitOffset(_)
            | Request::CommittedOffset { .. }
            | Request::JoinGroup(_)
            | Request::LeaveGroup { .. }
            | Request::ListGroups
            | Request::DescribeGroup(_)
            | Request::DeleteGroup(_)
            | Request::ResetGroup(_) => group_body(builder, request),
            Request::Receive(_)
            | Request::Acknowledge(_)
            | Request::ChangeLease(_)
            | Request::AlterGroup(_)
            | Request::EndTransaction(_)
            | Request::ReceiveHalves(_) => lease_body(builder, request),
        }
    }
}

fn check_batch_bytes(batch_bytes: usize) -> Result<(), Failure> {
    if batch_bytes > limits::BATCH_BYTES_MAX {
        return Err(Failure::new(
            Status::MessageTooLarge,
            format!(
                "a batch of {batch_bytes} bytes is larger than {}: send it as several",
                limits::BATCH_BYTES_MAX
            ),
        ));
    }
    Ok(())
}

/// The requests about consumer groups.
fn group_body(builder: &mut FlatBufferBuilder<'static>, request: &Request) -> Body {
    use schema::RequestBody as Kind;
    match request {
        Request::CommitOffset(commit) => {
            let acting = commit.member.as_ref();
            let arguments = schema::CommitOffsetArgs {
                group: Some(builder.create_string(commit.group.as_str())),
                topic_id: commit.key.topic.0,
                queue: commit.key.queue.0,
                offset: commit.offset.0,
                member: acting.map(|acting| builder.create_string(&acting.member)),
                generation: acting.map_or(0, |acting| acting.generation),
            };
            (Kind::CommitOffset, schema::CommitOffset::create(builder, &arguments).as_union_value())
        }
        Request::CommittedOffset { group, key } => {
            let arguments = schema::CommittedOffsetArgs {
                group: Some(builder.create_string(group.as_str())),
                topic_id: key.topic.0,
                queue: key.queue.0,
            };
            (Kind::CommittedOffset, schema::CommittedOffset::create(builder, &arguments).as_union_value())
        }
        Request::JoinGroup(join) => (Kind::JoinGroup, join_table(builder, join)),
        Request::LeaveGroup { group, member } => {
            let arguments = schema::LeaveGroupArgs {
                group: Some(builder.create_string(group.as_str())),
                member: Some(builder.create_string(member)),
            };
            (Kind::LeaveGroup, schema::LeaveGroup::create(builder, &arguments).as_union_value())
        }
        Request::DescribeGroup(group) => {
            let group = Some(builder.create_string(group.as_str()));
            let table = schema::DescribeGroup::create(builder, &schema::DescribeGroupArgs { group });
            (Kind::DescribeGroup, table.as_union_value())
        }
        Request::DeleteGroup(group) => {
            let group = Some(builder.create_string(group.as_str()));
            let table = schema::DeleteGroup::create(builder, &schema::DeleteGroupArgs { group });
            (Kind::DeleteGroup, table.as_union_value())
        }
        Request::ResetGroup(reset) => (Kind::ResetGroup, reset_table(builder, reset)),
        Request::ListGroups => {
            let table = schema::ListGroups::create(builder, &schema::ListGroupsArgs {});
            (Kind::ListGroups, table.as_union_value())
        }
        _ => unreachable!("not about a group: {request:?}"),
    }
}

fn find_body(builder: &mut FlatBufferBuilder<'static>, find: &FindMessages) -> Body {
    use schema::RequestBody as Kind;
    match find {
        FindMessages::Key { topic, key, count, from, to, before } => {
            let (topic, key) = (builder.create_string(topic.as_str()), builder.create_string(key));
            let arguments = schema::FindByKeyArgs {
                topic: Some(topic),
                key: Some(key),
                count: *count,
                from_ms: from.0,
                to_ms: to.0,
                before: locations::write(builder, before),
            };
            (Kind::FindByKey, schema::FindByKey::create(builder, &arguments).as_union_value())
        }
        FindMessages::Position { shard, position, index } => {
            let arguments =
                schema::FindByPositionArgs { shard: u32::from(shard.0), position: position.0, index: *index };
            (Kind::FindByPosition, schema::FindByPosition::create(builder, &arguments).as_union_value())
        }
    }
}

fn fetch_table(builder: &mut FlatBufferBuilder<'static>, fetch: &Fetch) -> WIPOffset<UnionWIPOffset> {
    let arguments = schema::FetchArgs {
        topic_id: fetch.key.topic.0,
        queue: fetch.key.queue.0,
        offset: fetch.offset.0,
        bytes_max: fetch.bytes_max,
        records_max: fetch.records_max,
        wait_ms: u32::try_from(fetch.wait.as_millis()).unwrap_or(u32::MAX),
        session: fetch.session,
    };
    schema::Fetch::create(builder, &arguments).as_union_value()
}

fn watch_table(builder: &mut FlatBufferBuilder<'static>, watch: &Watch) -> WIPOffset<UnionWIPOffset> {
    let queue = |(key, offset): &(QueueKey, QueueOffset)| {
        schema::WatchedQueue::new(key.topic.0, key.queue.0, offset.0)
    };
    let queues: Vec<_> = watch.queues.iter().map(queue).collect();
    let arguments = schema::WatchArgs {
        queues: Some(builder.create_vector(&queues)),
        wait_ms: u32::try_from(watch.wait.as_millis()).unwrap_or(u32::MAX),
    };
    schema::Watch::create(builder, &arguments).as_union_value()
}

fn find_offset_table(
    builder: &mut FlatBufferBuilder<'static>,
    key: QueueKey,
    spec: OffsetSpec,
) -> WIPOffset<UnionWIPOffset> {
    let (at, time_ms, ago_ms) = match spec {
        OffsetSpec::First => (schema::OffsetAt::First, 0, 0),
        OffsetSpec::Last => (schema::OffsetAt::Last, 0, 0),
        OffsetSpec::Time(time) => (schema::OffsetAt::Time, time.0, 0),
        OffsetSpec::Ago(span) => (schema::OffsetAt::Ago, 0, milliseconds(span)),
    };
    let arguments = schema::FindOffsetArgs { topic_id: key.topic.0, queue: key.queue.0, at, time_ms, ago_ms };
    schema::FindOffset::create(builder, &arguments).as_union_value()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn create_arguments(
    builder: &mut FlatBufferBuilder<'static>,
    change: &TopicChange,
) -> schema::CreateTopicArgs<'static> {
    let (retention, retention_ms) = retention_code(change.retention);
    schema::CreateTopicArgs {
        topic: Some(builder.create_string(change.topic.as_str())),
        queues: change.queues.unwrap_or(0),
        retention_ms,
        level: level_code(change.level),
        retention,
    }
}

fn route_table(
    builder: &mut FlatBufferBuilder<'static>,
    topic: Option<&TopicName>,
    for_producing: bool,
) -> WIPOffset<UnionWIPOffset> {
    let topic = topic.map(|topic| builder.create_string(topic.as_str()));
    schema::Route::create(builder, &schema::RouteArgs { topic, for_producing }).as_union_value()
}

fn join_table(builder: &mut FlatBufferBuilder<'static>, join: &JoinGroup) -> WIPOffset<UnionWIPOffset> {
    let topics: Vec<_> = join.topics.iter().map(|topic| builder.create_string(topic.as_str())).collect();
    let arguments = schema::JoinGroupArgs {
        group: Some(builder.create_string(join.group.as_str())),
        member: Some(builder.create_string(&join.member)),
        topics: Some(builder.create_vector(&topics)),
        session_timeout_ms: u32::try_from(join.session_timeout.as_millis()).unwrap_or(u32::MAX),
        generation: join.generation,
        ends_with_connection: matches!(join.life, SessionLife::Connected(_)),
    };
    schema::JoinGroup::create(builder, &arguments).as_union_value()
}

fn reset_table(builder: &mut FlatBufferBuilder<'static>, reset: &ResetGroup) -> WIPOffset<UnionWIPOffset> {
    let (to, value, queue) = match reset.target {
        ResetTarget::Every(OffsetSpec::First) => (schema::ResetTo::First, 0, 0),
        ResetTarget::Every(OffsetSpec::Last) => (schema::ResetTo::Last, 0, 0),
        ResetTarget::Every(OffsetSpec::Time(time)) => (schema::ResetTo::Time, time.0, 0),
        ResetTarget::Every(OffsetSpec::Ago(span)) => (schema::ResetTo::Ago, milliseconds(span), 0),
        ResetTarget::Offset(queue, offset) => (schema::ResetTo::Offset, offset.0, queue.0),
    };
    let arguments = schema::ResetGroupArgs {
        group: Some(builder.create_string(reset.group.as_str())),
        topic: Some(builder.create_string(reset.topic.as_str())),
        to,
        value,
        queue,
    };
    schema::ResetGroup::create(builder, &arguments).as_union_value()
}
