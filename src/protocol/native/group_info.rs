//! A described group, in both directions.

use std::sync::Arc;
use std::time::Duration;

use flatbuffers::{FlatBufferBuilder, WIPOffset};

use crate::api::{
    ClientProtocol, Filter, GroupInfo, GroupQueueInfo, GroupSettings, MemberInfo, ReaderInfo, ReaderMode,
    ReceiverInfo, TopicGroup,
};
use crate::filter::ExpressionError;
use crate::types::{QueueNumber, QueueOffset, TopicName};
use crate::wire::generated as schema;

use super::envelope::MalformedReply;
use super::reply_decoder::{name, queue_keys};
use super::reply_encoder::assigned;

type Builder = FlatBufferBuilder<'static>;

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Names that repeat, of topics, members and protocols, are stored once.
pub(super) fn table(builder: &mut Builder, group: &GroupInfo) -> WIPOffset<schema::GroupInfo<'static>> {
    let mut members = Vec::with_capacity(group.members.len());
    for member in &group.members {
        let topics: Vec<_> =
            member.topics.iter().map(|topic| builder.create_shared_string(topic.as_str())).collect();
        let arguments = schema::GroupMemberArgs {
            member: Some(builder.create_shared_string(&member.member)),
            topics: Some(builder.create_vector(&topics)),
            queues: Some(builder.create_vector(&assigned(&member.queues))),
            heartbeat_age_ms: milliseconds(member.heartbeat_age),
        };
        members.push(schema::GroupMember::create(builder, &arguments));
    }
    let mut queues = Vec::with_capacity(group.queues.len());
    for queue in &group.queues {
        let arguments = schema::GroupQueueArgs {
            topic: Some(builder.create_shared_string(queue.topic.as_str())),
            queue: queue.queue.0,
            committed: queue.committed.map_or(0, |offset| offset.0),
            present: queue.committed.is_some(),
            end_offset: queue.end_offset.0,
            lag: queue.lag,
            member: queue.member.as_ref().map(|member| builder.create_shared_string(member)),
            leased: queue.leased,
            waiting: queue.waiting,
            dead_letters: queue.dead_letters,
        };
        queues.push(schema::GroupQueue::create(builder, &arguments));
    }
    let receivers: Vec<_> = group.receivers.iter().map(|info| receiver_table(builder, info)).collect();
    let readers: Vec<_> = group.readers.iter().map(|reader| reader_table(builder, reader)).collect();
    let settings = group.settings.as_ref().map(|settings| settings_table(builder, settings));
    let refused: Vec<_> = group.refused.iter().map(|reason| builder.create_string(reason)).collect();
    let arguments = schema::GroupInfoArgs {
        group: Some(builder.create_string(group.group.as_str())),
        generation: group.generation,
        members: Some(builder.create_vector(&members)),
        queues: Some(builder.create_vector(&queues)),
        receivers: Some(builder.create_vector(&receivers)),
        settings,
        refused: Some(builder.create_vector(&refused)),
        readers: Some(builder.create_vector(&readers)),
    };
    schema::GroupInfo::create(builder, &arguments)
}

/// The groups of a described topic.
pub(super) fn topic_groups(
    builder: &mut Builder,
    groups: &[TopicGroup],
) -> Vec<WIPOffset<schema::TopicGroup<'static>>> {
    let mut tables = Vec::with_capacity(groups.len());
    for group in groups {
        let receivers: Vec<_> = group.receivers.iter().map(|info| receiver_table(builder, info)).collect();
        let readers: Vec<_> = group.readers.iter().map(|reader| reader_table(builder, reader)).collect();
        let arguments = schema::TopicGroupArgs {
            group: Some(builder.create_string(group.group.as_str())),
            members: group.members,
            receivers: Some(builder.create_vector(&receivers)),
            readers: Some(builder.create_vector(&readers)),
        };
        tables.push(schema::TopicGroup::create(builder, &arguments));
    }
    tables
}

pub(super) fn read_topic_group(body: schema::TopicGroup<'_>) -> Result<TopicGroup, MalformedReply> {
    Ok(TopicGroup {
        group: name(body.group())?,
        members: body.members(),
        receivers: body.receivers().into_iter().flatten().map(receiver).collect::<Result<_, _>>()?,
        readers: body.readers().into_iter().flatten().map(reader).collect(),
    })
}

fn receiver_table(
    builder: &mut Builder,
    receiver: &ReceiverInfo,
) -> WIPOffset<schema::GroupReceiver<'static>> {
    let arguments = schema::GroupReceiverArgs {
        topic: Some(builder.create_shared_string(receiver.topic.as_str())),
        filter: Some(builder.create_shared_string(&receiver.filter.text())),
        ordered: receiver.ordered,
        active: receiver.active,
        seen_age_ms: milliseconds(receiver.seen_age),
        protocol: Some(builder.create_shared_string(receiver.protocol.name())),
        is_expression: matches!(receiver.filter, Filter::Expression(_)),
    };
    schema::GroupReceiver::create(builder, &arguments)
}

fn reader_table(builder: &mut Builder, reader: &ReaderInfo) -> WIPOffset<schema::GroupReader<'static>> {
    let mut subscriptions = Vec::with_capacity(reader.subscriptions.len());
    for (topic, expression) in &reader.subscriptions {
        let arguments = schema::ReaderSubscriptionArgs {
            topic: Some(builder.create_shared_string(topic)),
            expression: Some(builder.create_shared_string(expression)),
        };
        subscriptions.push(schema::ReaderSubscription::create(builder, &arguments));
    }
    let arguments = schema::GroupReaderArgs {
        client: Some(builder.create_string(&reader.client)),
        language: Some(builder.create_shared_string(&reader.language)),
        version: reader.version,
        address: Some(builder.create_string(&reader.address)),
        broadcasts: reader.mode == ReaderMode::Broadcasting,
        subscriptions: Some(builder.create_vector(&subscriptions)),
    };
    schema::GroupReader::create(builder, &arguments)
}

fn reader(body: schema::GroupReader<'_>) -> ReaderInfo {
    let subscriptions = body.subscriptions().iter();
    ReaderInfo {
        client: body.client().to_owned(),
        language: body.language().to_owned(),
        version: body.version(),
        address: body.address().to_owned(),
        mode: if body.broadcasts() { ReaderMode::Broadcasting } else { ReaderMode::Clustering },
        subscriptions: subscriptions.map(|of| (of.topic().to_owned(), of.expression().to_owned())).collect(),
    }
}

pub(super) fn settings_table(
    builder: &mut Builder,
    settings: &GroupSettings,
) -> WIPOffset<schema::GroupSettings<'static>> {
    let arguments = schema::GroupSettingsArgs {
        group: Some(builder.create_string(settings.group.as_str())),
        deliveries_max: settings.deliveries_max.unwrap_or(0),
        lease_ms: settings.lease.map_or(0, milliseconds),
        ordered_lease_ms: settings.ordered_lease.map_or(0, milliseconds),
    };
    schema::GroupSettings::create(builder, &arguments)
}

/// An older broker tells neither of receivers, nor of settings, nor of what it refuses, nor of readers.
pub(super) fn read(body: schema::GroupInfo<'_>) -> Result<GroupInfo, MalformedReply> {
    let member = |member: schema::GroupMember<'_>| {
        Ok(MemberInfo {
            member: member.member().to_owned(),
            topics: member.topics().iter().map(name::<TopicName>).collect::<Result<_, _>>()?,
            queues: queue_keys(member.queues()),
            heartbeat_age: Duration::from_millis(member.heartbeat_age_ms()),
        })
    };
    let queue = |queue: schema::GroupQueue<'_>| {
        Ok(GroupQueueInfo {
            topic: name(queue.topic())?,
            queue: QueueNumber(queue.queue()),
            committed: queue.present().then_some(QueueOffset(queue.committed())),
            end_offset: QueueOffset(queue.end_offset()),
            lag: queue.lag(),
            member: queue.member().map(str::to_owned),
            leased: queue.leased(),
            waiting: queue.waiting(),
            dead_letters: queue.dead_letters(),
        })
    };
    let receivers = body.receivers().into_iter().flatten().map(receiver);
    Ok(GroupInfo {
        group: name(body.group())?,
        generation: body.generation(),
        members: body.members().iter().map(member).collect::<Result<_, MalformedReply>>()?,
        receivers: receivers.collect::<Result<_, _>>()?,
        settings: body.settings().map(read_settings).transpose()?,
        queues: body.queues().iter().map(queue).collect::<Result<_, MalformedReply>>()?,
        refused: body.refused().into_iter().flatten().map(str::to_owned).collect(),
        readers: body.readers().into_iter().flatten().map(reader).collect(),
    })
}

fn receiver(body: schema::GroupReceiver<'_>) -> Result<ReceiverInfo, MalformedReply> {
    let protocol = ClientProtocol::ALL.into_iter().find(|protocol| protocol.name() == body.protocol());
    let protocol = protocol.ok_or_else(|| {
        MalformedReply(format!("protocol `{}` is not known to this release", body.protocol()))
    })?;
    let filter = match body.is_expression() {
        false => Filter::parse(Some(body.filter())),
        true => {
            let read = body.filter().parse();
            Filter::Expression(Arc::new(
                read.map_err(|error: ExpressionError| MalformedReply(error.to_string()))?,
            ))
        }
    };
    Ok(ReceiverInfo {
        topic: name(body.topic())?,
        protocol,
        filter,
        ordered: body.ordered(),
        active: body.active(),
        seen_age: Duration::from_millis(body.seen_age_ms()),
    })
}

pub(super) fn read_settings(body: schema::GroupSettings<'_>) -> Result<GroupSettings, MalformedReply> {
    let duration = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
    Ok(GroupSettings {
        group: name(body.group())?,
        deliveries_max: Some(body.deliveries_max()).filter(|max| *max > 0),
        lease: duration(body.lease_ms()),
        ordered_lease: duration(body.ordered_lease_ms()),
    })
}
