//! Lists of topics and groups: a page of those that match, in some order.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use super::asking::Asking;
use super::parameters::number;
use super::survey::{Looks, TopicsLook};
use super::topics::{Kind, permission_text, retention_ms, retention_text};
use crate::admin::answer::Answer;
use crate::api::{Failure, GroupStats, TopicCounts, TopicStats};
use crate::views::per_second;

const PAGE_MAX: usize = 200;
const PAGE_USUAL: usize = 50;

/// A page of a list.
#[derive(Serialize)]
pub(super) struct PageView<Row> {
    /// How many match.
    pub total: usize,
    pub rows: Vec<Row>,
}

/// A topic in a list.
#[derive(Clone, Serialize)]
pub(super) struct TopicRow {
    pub topic: String,
    kind: Kind,
    queue_count: u32,
    retention: &'static str,
    retention_ms: Option<u64>,
    level: Option<&'static str>,
    permission: &'static str,
    pub messages: u64,
    /// All that were ever stored.
    stored: u64,
    /// Per second; `null` before there are two looks at it.
    in_rate: Option<f64>,
    in_bytes_rate: Option<f64>,
    /// Each group that got a message counts.
    out_rate: Option<f64>,
    /// Groups that have a place in it, that receive from it, or whose members own its queues. RocketMQ's own clients that keep their
    /// place themselves are shown with the topic only.
    groups: usize,
}

/// A group in a list.
#[derive(Clone, Serialize)]
struct GroupRow {
    group: String,
    members: u32,
    receivers: u32,
    readers: u32,
    topics: usize,
    lag: u64,
    leased: u64,
    waiting: u64,
    dead_letters: u64,
    out_rate: Option<f64>,
}

/// `GET /api/topics[?filter=PART][&kind=KIND][&sort=BY][&first=N][&count=N]`.
pub(super) async fn topics(asking: Asking<'_>) -> Result<Answer, Failure> {
    let survey = &asking.visit.admin.console;
    let (looks, groups) = (survey.topics(asking).await?, survey.groups(asking).await?);
    let mut rows = topic_rows(&looks, &groups.now);
    if let Some(kind) = asking.request.parameter("kind").filter(|kind| !kind.is_empty()) {
        let kind =
            Kind::named(kind).ok_or_else(|| Failure::invalid("`kind` is user, retry or dead_letters"))?;
        rows.retain(|row| row.kind == kind);
    }
    page(
        asking,
        rows,
        |row| &row.topic,
        |by, one, other| match by {
            "in" => Some(larger(one.in_rate, other.in_rate).then(other.messages.cmp(&one.messages))),
            "out" => Some(larger(one.out_rate, other.out_rate)),
            "messages" => Some(other.messages.cmp(&one.messages)),
            "queues" => Some(other.queue_count.cmp(&one.queue_count)),
            "groups" => Some(other.groups.cmp(&one.groups)),
            _ => None,
        },
    )
}

/// `GET /api/groups[?filter=PART][&sort=BY][&first=N][&count=N]`.
pub(super) async fn groups(asking: Asking<'_>) -> Result<Answer, Failure> {
    let looks = asking.visit.admin.console.groups(asking).await?;
    let rows = group_rows(&looks);
    let consumers =
        |row: &GroupRow| u64::from(row.members) + u64::from(row.receivers) + u64::from(row.readers);
    page(
        asking,
        rows,
        |row| &row.group,
        |by, one, other| match by {
            "lag" => Some(other.lag.cmp(&one.lag)),
            "out" => Some(larger(one.out_rate, other.out_rate)),
            "leased" => Some(other.leased.cmp(&one.leased)),
            "waiting" => Some(other.waiting.cmp(&one.waiting)),
            "dead_letters" => Some(other.dead_letters.cmp(&one.dead_letters)),
            "consumers" => Some(consumers(other).cmp(&consumers(one))),
            _ => None,
        },
    )
}

/// The rows of topics. `groups` is all groups where their number in each topic is wanted.
pub(super) fn topic_rows(looks: &Looks<TopicsLook>, groups: &[GroupStats]) -> Vec<TopicRow> {
    let mut group_counts: HashMap<&str, usize> = HashMap::new();
    for of in groups.iter().flat_map(|group| &group.topics) {
        *group_counts.entry(of.topic.as_str()).or_default() += 1;
    }
    let infos: HashMap<_, _> = looks.now.infos.iter().map(|info| (info.id, info)).collect();
    let before = looks.before();
    let then: HashMap<_, _> =
        before.iter().flat_map(|(look, _)| &look.figures).map(|of| (of.id, &of.counts)).collect();
    let stretch = before.as_ref().map_or(Duration::ZERO, |(_, stretch)| *stretch);
    let row = |of: &TopicStats| {
        // One that was made between the two requests is in the next look.
        let info = infos.get(&of.id)?;
        let (now, before) = (&of.counts, then.get(&of.id));
        let rate = |count: fn(&TopicCounts) -> u64| {
            per_second(before.map(|before| count(before)), count(now), stretch)
        };
        Some(TopicRow {
            topic: of.topic.to_string(),
            kind: Kind::of(&of.topic),
            queue_count: of.queue_count,
            retention: retention_text(info.retention),
            retention_ms: retention_ms(info.retention),
            level: info.level.map(|level| level.name()),
            permission: permission_text(info.permission),
            messages: now.messages,
            stored: now.stored,
            in_rate: rate(|counts| counts.stored),
            in_bytes_rate: rate(|counts| counts.stored_bytes),
            out_rate: rate(|counts| counts.given),
            groups: group_counts.get(of.topic.as_str()).copied().unwrap_or_default(),
        })
    };
    looks.now.figures.iter().filter_map(row).collect()
}

fn group_rows(looks: &Looks<Vec<GroupStats>>) -> Vec<GroupRow> {
    let before = looks.before();
    let then: HashMap<_, _> =
        before.iter().flat_map(|(look, _)| *look).map(|of| (&of.group, of.total().passed)).collect();
    let stretch = before.as_ref().map_or(Duration::ZERO, |(_, stretch)| *stretch);
    let row = |of: &GroupStats| {
        let total = of.total();
        GroupRow {
            group: of.group.to_string(),
            members: of.members,
            receivers: of.receivers,
            readers: of.readers,
            topics: of.topics.len() + of.topics_left_out as usize,
            lag: total.lag,
            leased: total.leased,
            waiting: total.waiting,
            dead_letters: total.dead_letters,
            out_rate: per_second(then.get(&of.group).copied(), total.passed, stretch),
        }
    };
    looks.now.iter().map(row).collect()
}

/// The rows that match, ordered and cut as the call wants it: by `sort`, the largest first, or by name; the other way round with a
/// `-` before it.
pub(super) fn page<Row: Serialize>(
    asking: Asking<'_>,
    mut rows: Vec<Row>,
    name: impl Fn(&Row) -> &str,
    compare: impl Fn(&str, &Row, &Row) -> Option<Ordering>,
) -> Result<Answer, Failure> {
    let request = asking.request;
    let first = number(request, "first", 0..=usize::MAX, 0)?;
    let count = number(request, "count", 1..=PAGE_MAX, PAGE_USUAL)?;
    if let Some(filter) = request.parameter("filter").filter(|filter| !filter.is_empty()) {
        let filter = filter.to_lowercase();
        rows.retain(|row| name(row).to_lowercase().contains(&filter));
    }
    let sort = request.parameter("sort").filter(|sort| !sort.is_empty()).unwrap_or("name");
    let (is_reversed, by) = sort.strip_prefix('-').map_or((false, sort), |by| (true, by));
    let by_name = |one: &Row, other: &Row| name(one).cmp(name(other));
    // What is equal stays in the order of names, whichever way round.
    rows.sort_by(by_name);
    if by == "name" && is_reversed {
        rows.reverse();
    } else if by != "name" {
        if let [one, ..] = rows.as_slice()
            && compare(by, one, one).is_none()
        {
            return Err(Failure::invalid(format!("this list is not sorted by `{by}`")));
        }
        rows.sort_by(|one, other| {
            let order = compare(by, one, other).unwrap_or(Ordering::Equal);
            if is_reversed { order.reverse() } else { order }
        });
    }
    let total = rows.len();
    let rows: Vec<_> = rows.into_iter().skip(first).take(count).collect();
    Ok(Answer::json(&PageView { total, rows }))
}

/// The larger first; what is not known last.
fn larger(one: Option<f64>, other: Option<f64>) -> Ordering {
    let known = |rate: Option<f64>| rate.unwrap_or(-1.0);
    known(other).total_cmp(&known(one))
}
