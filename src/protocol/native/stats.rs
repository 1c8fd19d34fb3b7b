//! Requests for figures of topics and groups, and their replies, in both directions.

use std::str::FromStr;
use std::time::Duration;

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use crate::api::{
    Failure, GroupLag, GroupStats, GroupTopicStats, RateInfo, Reply, Request, StatsAsked, StatsOf, StatsPage,
    TopicCounts, TopicStats,
};
use crate::types::{GroupName, NameError, TopicId, TopicName};
use crate::wire::generated as schema;

use super::envelope::MalformedReply;
use super::reply_decoder::name;

type Builder = FlatBufferBuilder<'static>;
type Strings = (Option<WIPOffset<&'static str>>, Option<WIPOffset<&'static str>>);

/// The requests, as a client writes them.
pub(super) fn request_body(
    builder: &mut Builder,
    request: &Request,
) -> (schema::RequestBody, WIPOffset<UnionWIPOffset>) {
    use schema::RequestBody as Kind;
    match request {
        Request::TopicStats(asked) => {
            let (after, only) = asked_names(builder, &asked.of, TopicName::as_str);
            let arguments = schema::ListTopicStatsArgs { after, only, ages: asked.ages };
            let table = schema::ListTopicStats::create(builder, &arguments);
            (Kind::ListTopicStats, table.as_union_value())
        }
        Request::GroupStats(asked) => {
            let (after, only) = asked_names(builder, &asked.of, GroupName::as_str);
            let arguments = schema::ListGroupStatsArgs { after, only, ages: asked.ages };
            let table = schema::ListGroupStats::create(builder, &arguments);
            (Kind::ListGroupStats, table.as_union_value())
        }
        _ => unreachable!("not about figures: {request:?}"),
    }
}

fn asked_names<Name>(builder: &mut Builder, of: &StatsOf<Name>, text: fn(&Name) -> &str) -> Strings {
    match of {
        StatsOf::One(name) => (None, Some(builder.create_string(text(name)))),
        StatsOf::After(name) => (name.as_ref().map(|name| builder.create_string(text(name))), None),
    }
}

/// The requests, as the server reads them; `None` of one that has no body of its kind.
pub(super) fn read_request(request: &schema::Request<'_>) -> Option<Result<Request, Failure>> {
    Some(match request.body_type() {
        schema::RequestBody::ListTopicStats => {
            let body = request.body_as_list_topic_stats()?;
            asked(body.after(), body.only(), body.ages()).map(Request::TopicStats)
        }
        _ => {
            let body = request.body_as_list_group_stats()?;
            asked(body.after(), body.only(), body.ages()).map(Request::GroupStats)
        }
    })
}

fn asked<Name: FromStr<Err = NameError>>(
    after: Option<&str>,
    only: Option<&str>,
    ages: bool,
) -> Result<StatsAsked<Name>, Failure> {
    let name = |text: &str| text.parse::<Name>().map_err(Failure::invalid);
    let of = match only {
        Some(only) => StatsOf::One(name(only)?),
        None => StatsOf::After(after.map(name).transpose()?),
    };
    Ok(StatsAsked { of, ages })
}

fn milliseconds(age: Option<Duration>) -> Option<u64> {
    age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

fn age(milliseconds: Option<u64>) -> Option<Duration> {
    milliseconds.map(Duration::from_millis)
}

pub(super) fn topics_table(
    builder: &mut Builder,
    page: &StatsPage<TopicStats, TopicName>,
) -> WIPOffset<schema::TopicStatsList<'static>> {
    let mut tables = Vec::with_capacity(page.entries.len());
    for TopicStats { topic, id, queue_count, counts } in &page.entries {
        let [within_minute, within_hour, within_day] = counts.within;
        let arguments = schema::TopicStatsArgs {
            topic: Some(builder.create_string(topic.as_str())),
            topic_id: id.0,
            queue_count: *queue_count,
            messages: counts.messages,
            stored: counts.stored,
            stored_bytes: counts.stored_bytes,
            given: counts.given,
            given_bytes: counts.given_bytes,
            oldest_age_ms: milliseconds(counts.oldest_age),
            newest_age_ms: milliseconds(counts.newest_age),
            within_minute,
            within_hour,
            within_day,
        };
        tables.push(schema::TopicStats::create(builder, &arguments));
    }
    let topics = Some(builder.create_vector(&tables));
    let next = page.next.as_ref().map(|next| builder.create_string(next.as_str()));
    schema::TopicStatsList::create(builder, &schema::TopicStatsListArgs { topics, next })
}

fn read_topics(body: schema::TopicStatsList<'_>) -> Result<StatsPage<TopicStats, TopicName>, MalformedReply> {
    let entry = |of: schema::TopicStats<'_>| {
        let counts = TopicCounts {
            messages: of.messages(),
            stored: of.stored(),
            stored_bytes: of.stored_bytes(),
            given: of.given(),
            given_bytes: of.given_bytes(),
            oldest_age: age(of.oldest_age_ms()),
            newest_age: age(of.newest_age_ms()),
            within: [of.within_minute(), of.within_hour(), of.within_day()],
        };
        let (topic, id) = (name(of.topic())?, TopicId(of.topic_id()));
        Ok(TopicStats { topic, id, queue_count: of.queue_count(), counts })
    };
    let entries = body.topics().iter().map(entry).collect::<Result<_, _>>()?;
    Ok(StatsPage { entries, next: body.next().map(name).transpose()? })
}

pub(super) fn groups_table(
    builder: &mut Builder,
    page: &StatsPage<GroupStats, GroupName>,
) -> WIPOffset<schema::GroupStatsList<'static>> {
    let mut tables = Vec::with_capacity(page.entries.len());
    for of in &page.entries {
        let topics: Vec<_> = of.topics.iter().map(|topic| group_topic_table(builder, topic)).collect();
        let arguments = schema::GroupStatsArgs {
            group: Some(builder.create_string(of.group.as_str())),
            members: of.members,
            receivers: of.receivers,
            readers: of.readers,
            topics: Some(builder.create_vector(&topics)),
            topics_left_out: of.topics_left_out,
        };
        tables.push(schema::GroupStats::create(builder, &arguments));
    }
    let groups = Some(builder.create_vector(&tables));
    let next = page.next.as_ref().map(|next| builder.create_string(next.as_str()));
    schema::GroupStatsList::create(builder, &schema::GroupStatsListArgs { groups, next })
}

fn group_topic_table(
    builder: &mut Builder,
    of: &GroupTopicStats,
) -> WIPOffset<schema::GroupTopicStats<'static>> {
    let arguments = schema::GroupTopicStatsArgs {
        topic: Some(builder.create_shared_string(of.topic.as_str())),
        lag: of.lag.lag,
        leased: of.lag.leased,
        waiting: of.lag.waiting,
        dead_letters: of.lag.dead_letters,
        passed: of.lag.passed,
        oldest_unread_age_ms: milliseconds(of.lag.oldest_unread_age),
    };
    schema::GroupTopicStats::create(builder, &arguments)
}

fn read_groups(body: schema::GroupStatsList<'_>) -> Result<StatsPage<GroupStats, GroupName>, MalformedReply> {
    let of_topic = |of: schema::GroupTopicStats<'_>| {
        let lag = GroupLag {
            lag: of.lag(),
            leased: of.leased(),
            waiting: of.waiting(),
            dead_letters: of.dead_letters(),
            passed: of.passed(),
            oldest_unread_age: age(of.oldest_unread_age_ms()),
        };
        Ok(GroupTopicStats { topic: name(of.topic())?, lag })
    };
    let entry = |of: schema::GroupStats<'_>| {
        Ok(GroupStats {
            group: name(of.group())?,
            members: of.members(),
            receivers: of.receivers(),
            readers: of.readers(),
            topics: of.topics().iter().map(of_topic).collect::<Result<_, MalformedReply>>()?,
            topics_left_out: of.topics_left_out(),
        })
    };
    let entries = body.groups().iter().map(entry).collect::<Result<_, MalformedReply>>()?;
    Ok(StatsPage { entries, next: body.next().map(name).transpose()? })
}

/// The replies, as a client reads them; `None` of one that has no body of its kind.
pub(super) fn read_reply(reply: &schema::Reply<'_>) -> Option<Result<Reply, MalformedReply>> {
    Some(match reply.body_type() {
        schema::ReplyBody::TopicStatsList => {
            read_topics(reply.body_as_topic_stats_list()?).map(Reply::TopicStats)
        }
        _ => read_groups(reply.body_as_group_stats_list()?).map(Reply::GroupStats),
    })
}

pub(super) fn rate_table(builder: &mut Builder, rate: &RateInfo) -> WIPOffset<schema::RateInfo<'static>> {
    let arguments = schema::RateInfoArgs {
        name: Some(builder.create_shared_string(&rate.name)),
        ten_seconds: rate.ten_seconds,
        minute: rate.minute,
        ten_minutes: rate.ten_minutes,
    };
    schema::RateInfo::create(builder, &arguments)
}

/// What is no amount is none.
pub(super) fn read_rate(rate: schema::RateInfo<'_>) -> RateInfo {
    let amount = |value: f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
    RateInfo {
        name: rate.name().to_owned(),
        ten_seconds: amount(rate.ten_seconds()),
        minute: amount(rate.minute()),
        ten_minutes: amount(rate.ten_minutes()),
    }
}
