//! Dead letters of all groups, and those of one.

use serde::Serialize;

use super::asking::Asking;
use super::figures::{TopicRow, page, topic_rows};
use super::parameters::name;
use super::scan;
use crate::admin::answer::Answer;
use crate::api::Failure;
use crate::types::{GroupName, GroupTopic, TopicName};

#[derive(Serialize)]
struct GroupView {
    group: String,
    topic: String,
    messages: u64,
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

/// `GET /api/dead-letters/GROUP`: a page of them, the newest first.
pub(super) async fn messages(asking: Asking<'_>, group: &str) -> Result<Answer, Failure> {
    let group: GroupName = name(group)?;
    Ok(Answer::json(&scan::page_of(asking, GroupTopic::DeadLetters.of(&group)).await?))
}
