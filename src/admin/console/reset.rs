//! Where a group goes on in a topic, and would after a reset.

use serde::{Deserialize, Serialize};

use super::asking::Asking;
use super::change;
use super::parameters::{document, name, optional, required};
use super::scan::QUEUES_MAX;
use crate::admin::answer::Answer;
use crate::api::{Failure, OffsetSpec, QueueInfo, ResetGroup, ResetTarget, Status, TopicInfo};
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicName};

#[derive(Deserialize)]
struct Wanted {
    topic: String,
    /// `first`, `last`, milliseconds since 1970, or with a queue the offset in it.
    to: String,
    queue: Option<u32>,
}

#[derive(Serialize)]
struct PreviewView {
    queues: Vec<QueueView>,
}

#[derive(Serialize)]
struct QueueView {
    queue: u32,
    /// `null`: the group has no place, and begins at the first message.
    committed: Option<u64>,
    to: u64,
    first_offset: u64,
    end_offset: u64,
}

#[derive(Serialize)]
struct DoneView {
    done: &'static str,
}

/// `GET /api/groups/GROUP/reset?topic=T&to=WHERE[&queue=N]`: what a reset would do.
pub(super) async fn preview(asking: Asking<'_>, group: &str) -> Result<Answer, Failure> {
    let request = asking.request;
    let group: GroupName = name(group)?;
    let queue = optional(request, "queue")?;
    let target = target_of(&required::<String>(request, "to")?, queue)?;
    let topic = asking.topic(required::<TopicName>(request, "topic")?).await?;
    let queues = concerned(&topic, target)?;
    let mut views = Vec::with_capacity(queues.len());
    for queue in queues {
        let key = QueueKey { topic: topic.id, queue: queue.queue };
        let to = match target {
            ResetTarget::Every(spec) => asking.offset(key, spec).await?,
            ResetTarget::Offset(_, offset) => offset,
        };
        views.push(QueueView {
            queue: queue.queue.0,
            committed: asking.place(&group, key).await?.map(|offset| offset.0),
            to: to.0,
            first_offset: queue.first_offset.0,
            end_offset: queue.end_offset.0,
        });
    }
    Ok(Answer::json(&PreviewView { queues: views }))
}

/// `POST /api/groups/GROUP/reset`: does it.
pub(super) async fn reset(asking: Asking<'_>, group: &str) -> Result<Answer, Failure> {
    change::check(asking).await?;
    let group: GroupName = name(group)?;
    let Wanted { topic, to, queue } = document(asking).await?;
    let reset = ResetGroup { group, topic: name(&topic)?, target: target_of(&to, queue)? };
    asking.reset(reset).await?;
    Ok(Answer::json(&DoneView { done: "reset" }))
}

fn target_of(to: &str, queue: Option<u32>) -> Result<ResetTarget, Failure> {
    let number = || {
        let digits = Some(to).filter(|to| !to.starts_with('+')).and_then(|to| to.parse().ok());
        digits.ok_or_else(|| {
            Failure::invalid("`to` is first, last, milliseconds since 1970, or with `queue` an offset")
        })
    };
    Ok(match (to, queue) {
        ("first" | "last", Some(_)) => {
            return Err(Failure::invalid(
                "`queue` goes with an offset: first, last and times move every queue",
            ));
        }
        ("first", None) => ResetTarget::Every(OffsetSpec::First),
        ("last", None) => ResetTarget::Every(OffsetSpec::Last),
        (_, None) => ResetTarget::Every(OffsetSpec::Time(Timestamp(number()?))),
        (_, Some(queue)) => ResetTarget::Offset(QueueNumber(queue), QueueOffset(number()?)),
    })
}

/// The queues that it would move.
fn concerned(topic: &TopicInfo, target: ResetTarget) -> Result<Vec<QueueInfo>, Failure> {
    let queues: Vec<_> = match target {
        ResetTarget::Every(_) => topic.queues.clone(),
        ResetTarget::Offset(queue, _) => {
            topic.queues.iter().filter(|of| of.queue == queue).copied().collect()
        }
    };
    match (queues.len(), target) {
        (0, ResetTarget::Offset(queue, _)) => {
            let message = format!("topic {} has no queue {queue}: it has {}", topic.topic, topic.queue_count);
            Err(Failure::new(Status::QueueNotExist, message))
        }
        (count, _) if count > QUEUES_MAX => Err(Failure::invalid(format!(
            "topic {} has {count} queues, and {QUEUES_MAX} are the most that are shown here: use `turbopump group reset`",
            topic.topic
        ))),
        _ => Ok(queues),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_go_on_is_read_or_refused() {
        let every = |spec| Ok(ResetTarget::Every(spec));
        assert_eq!(target_of("first", None), every(OffsetSpec::First));
        assert_eq!(target_of("last", None), every(OffsetSpec::Last));
        assert_eq!(target_of("1700000000000", None), every(OffsetSpec::Time(Timestamp(1_700_000_000_000))));
        assert_eq!(target_of("7", Some(2)), Ok(ResetTarget::Offset(QueueNumber(2), QueueOffset(7))));
        for (to, queue) in
            [("", None), ("soon", None), ("-1", None), ("+1", None), ("NaN", None), ("first", Some(1))]
        {
            assert!(target_of(to, queue).is_err(), "{to} {queue:?}");
        }
    }
}
