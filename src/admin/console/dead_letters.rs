//! Dead letters of all groups, and sending some of them once more.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::asking::Asking;
use super::change;
use super::figures::{TopicRow, page, topic_rows};
use super::message_view::MessageRow;
use super::parameters::{document, name};
use super::scan;
use crate::admin::answer::Answer;
use crate::api::{Failure, Redrive, Redriven};
use crate::limits::REDRIVE_MESSAGES_MAX;
use crate::types::{GroupName, GroupTopic, QueueNumber, QueueOffset, TopicName};

#[derive(Serialize)]
struct GroupView {
    group: String,
    topic: String,
    messages: u64,
}

/// Which messages to send, and where to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    queue: u32,
    offsets: Vec<u64>,
    to: String,
}

#[derive(Serialize)]
struct RedrivenView {
    /// In the order of the offsets; fewer when one could not be moved.
    outcomes: Vec<OutcomeView>,
    stopped: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
enum OutcomeView {
    /// It is stored there, and is no dead letter any more.
    Moved { queue: u32, offset: u64 },
    /// It was none any more.
    Before,
    /// It is not there.
    Gone,
}

/// `GET /api/dead-letters`: groups that have any.
pub(super) async fn list(asking: Asking<'_>) -> Result<Answer, Failure> {
    let looks = asking.visit.admin.console.topics(asking).await?;
    let view = |row: TopicRow| {
        let topic: TopicName = row.topic.parse().ok()?;
        let (kind, group) = topic.group()?;
        let is_one = kind == GroupTopic::DeadLetters && row.messages > 0;
        is_one.then(|| GroupView { group: group.to_string(), topic: row.topic, messages: row.messages })
    };
    let rows: Vec<_> = topic_rows(&looks, &[]).into_iter().filter_map(view).collect();
    page(
        asking,
        rows,
        |row| &row.group,
        |by, one, other| match by {
            "messages" => Some(other.messages.cmp(&one.messages)),
            _ => None,
        },
    )
}

/// `GET /api/dead-letters/GROUP`: a page of them, each with whether it was sent once more.
pub(super) async fn messages(asking: Asking<'_>, group: &str) -> Result<Answer, Failure> {
    let group: GroupName = name(group)?;
    let mut view = scan::page_of(asking, GroupTopic::DeadLetters.of(&group)).await?;
    let mut by_queue: BTreeMap<u32, Vec<&mut MessageRow>> = BTreeMap::new();
    view.messages.iter_mut().for_each(|row| by_queue.entry(row.queue).or_default().push(row));
    for (queue, rows) in by_queue {
        mark(asking, &group, QueueNumber(queue), rows).await?;
    }
    Ok(Answer::json(&view))
}

/// Says of each row of a queue whether it is a dead letter yet.
async fn mark(
    asking: Asking<'_>,
    group: &GroupName,
    queue: QueueNumber,
    mut rows: Vec<&mut MessageRow>,
) -> Result<(), Failure> {
    let newest = rows.iter().map(|row| row.offset).max();
    let mut from = rows.iter().map(|row| row.offset).min().map(QueueOffset);
    while let Some(asked) = from {
        let redriven = asking.redriven(group.clone(), queue, asked).await?;
        let told_until = redriven.next.unwrap_or(QueueOffset(u64::MAX));
        for row in rows.iter_mut().filter(|row| (asked.0..told_until.0).contains(&row.offset)) {
            let is_in = |range: &Range<QueueOffset>| range.contains(&QueueOffset(row.offset));
            row.redriven = Some(redriven.ranges.iter().any(is_in));
        }
        from = redriven.next.filter(|next| *next > asked && newest.is_some_and(|newest| next.0 <= newest));
    }
    Ok(())
}

/// `POST /api/dead-letters/GROUP/redrive`.
pub(super) async fn redrive(asking: Asking<'_>, group: &str) -> Result<Answer, Failure> {
    change::check(asking).await?;
    let group: GroupName = name(group)?;
    let Wanted { queue, offsets, to } = document(asking).await?;
    let most = REDRIVE_MESSAGES_MAX;
    if offsets.is_empty() || offsets.len() > most {
        return Err(Failure::invalid(format!(
            "1 to {most} messages are sent at once, not {}",
            offsets.len()
        )));
    }
    let report = asking
        .redrive(Redrive {
            group,
            queue: QueueNumber(queue),
            offsets: offsets.into_iter().map(QueueOffset).collect(),
            to: name(&to)?,
        })
        .await?;
    Ok(Answer::json(&RedrivenView {
        outcomes: report.outcomes.iter().map(OutcomeView::new).collect(),
        stopped: report.stopped.map(|failure| failure.message),
    }))
}

impl OutcomeView {
    fn new(outcome: &Redriven) -> Self {
        match *outcome {
            Redriven::Moved { queue, offset } => OutcomeView::Moved { queue: queue.0, offset: offset.0 },
            Redriven::Before => OutcomeView::Before,
            Redriven::Gone => OutcomeView::Gone,
        }
    }
}
