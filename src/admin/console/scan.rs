//! Messages of a topic by the time at which they were stored, the newest first, page by page.
//!
//! Each queue is read backwards, a few messages at a time, and the newest of what was read goes on the page. A page says how far it
//! has got in each queue, which is where the next one goes on.
//!
//! Bounds: [`QUEUES_MAX`] queues, [`PAGE_MAX`] messages and [`READ_BYTES_MAX`] bytes a page. A page that was ended by the last of them
//! has fewer messages than it might, and goes on.

use serde::Serialize;

use super::asking::{Asking, fetch_of};
use super::ids::Ids;
use super::message_view::{MessageRow, Source, each_message};
use super::parameters::{number, optional, required};
use crate::admin::answer::Answer;
use crate::api::{Failure, OffsetSpec, Status, TopicInfo};
use crate::types::{QueueKey, QueueNumber, QueueOffset, ShardId, Timestamp, TopicName};

const PAGE_MAX: usize = 100;
const PAGE_USUAL: usize = 50;
/// Queues of one topic that are looked through.
pub(super) const QUEUES_MAX: usize = 256;
/// Messages that are read at once from a queue: few of large ones.
const STEP_MIN: u64 = 8;
const STEP_MAX: u64 = 64;
const FETCH_BYTES: u32 = 256 * 1024;
const READ_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A fetch counts for at least this, so that their number is bounded as well where nothing can be read.
const FETCH_BYTES_MIN: usize = 4 * 1024;

/// A page of messages.
#[derive(Default, Serialize)]
pub(super) struct MessagesView {
    pub messages: Vec<MessageRow>,
    /// What `before` is for the page after this one; `null`: this was the last.
    pub next: Option<String>,
    /// Whether everything that there is was looked through.
    pub complete: bool,
}

/// A queue that is read backwards.
struct Backwards {
    queue: QueueNumber,
    shard: ShardId,
    /// What is sought lies from here on,
    low: u64,
    /// and below this. What was read and not taken lies below as well.
    high: u64,
    /// The oldest first.
    read: Vec<MessageRow>,
}

/// What a page has.
struct Scan<'a> {
    asking: Asking<'a>,
    topic: &'a TopicInfo,
    ids: Ids,
    step: u64,
    bytes_left: usize,
}

impl Backwards {
    /// What was looked through ends here: everything from here on is on a page, or was read in vain.
    fn rest(&self) -> u64 {
        self.read.last().map_or(self.high, |row| row.offset + 1)
    }

    fn is_done(&self) -> bool {
        self.read.is_empty() && self.high <= self.low
    }
}

/// `GET /api/messages?topic=T[&from=MS][&to=MS][&queue=N][&count=N][&before=NEXT]`.
pub(super) async fn answer(asking: Asking<'_>) -> Result<Answer, Failure> {
    let topic = required::<TopicName>(asking.request, "topic")?;
    Ok(Answer::json(&page_of(asking, topic).await?))
}

/// The page of a topic's messages that the call's other parameters ask for.
pub(super) async fn page_of(asking: Asking<'_>, topic: TopicName) -> Result<MessagesView, Failure> {
    let (request, topic) = (asking.request, asking.topic(topic).await?);
    let count = number(request, "count", 1..=PAGE_MAX, PAGE_USUAL)?;
    let mut queues = queues_of(asking, &topic).await?;
    let is_whole = queues.len() == topic.queues.len()
        || request.parameter("queue").is_some_and(|queue| !queue.is_empty());
    if let Some(before) = request.parameter("before").filter(|before| !before.is_empty()) {
        go_on(&mut queues, before)?;
    }
    let ids = Ids::of(&asking.addresses().await?);
    let mut scan = Scan { asking, topic: &topic, ids, step: STEP_MIN, bytes_left: READ_BYTES_MAX };
    let messages = scan.page(&mut queues, count).await?;
    let next = (!queues.iter().all(Backwards::is_done)).then(|| {
        let rests: Vec<_> = queues.iter().map(|queue| format!("{:x}", queue.rest())).collect();
        rests.join("-")
    });
    let complete = is_whole && next.is_none();
    Ok(MessagesView { messages, next, complete })
}

/// The queues that are asked for, each with the offsets between the two times.
async fn queues_of(asking: Asking<'_>, topic: &TopicInfo) -> Result<Vec<Backwards>, Failure> {
    let request = asking.request;
    let only: Option<u32> = optional(request, "queue")?;
    let (from, to): (Option<u64>, Option<u64>) = (optional(request, "from")?, optional(request, "to")?);
    let wanted = topic.queues.iter().filter(|queue| only.is_none_or(|only| queue.queue.0 == only));
    let mut queues = Vec::new();
    for queue in wanted.take(QUEUES_MAX) {
        let key = QueueKey { topic: topic.id, queue: queue.queue };
        let at = async |time: u64| {
            asking.offset(key, OffsetSpec::Time(Timestamp(time))).await.map(|offset| offset.0)
        };
        let low = match from {
            Some(from) => at(from).await?,
            None => queue.first_offset.0,
        };
        let high = match to.and_then(|to| to.checked_add(1)) {
            Some(after) => at(after).await?,
            None => queue.end_offset.0,
        };
        queues.push(Backwards { queue: queue.queue, shard: queue.shard, low, high, read: Vec::new() });
    }
    if queues.is_empty()
        && let Some(only) = only
    {
        let message = format!("topic {} has no queue {only}: it has {}", topic.topic, topic.queue_count);
        return Err(Failure::new(Status::QueueNotExist, message));
    }
    Ok(queues)
}

/// Goes on where an earlier page has ended.
fn go_on(queues: &mut [Backwards], before: &str) -> Result<(), Failure> {
    let wrong = || Failure::invalid("`before` is not the `next` of a page of the same look-up: begin anew");
    let mut rests = before.split('-');
    for queue in queues.iter_mut() {
        let rest = rests.next().filter(|rest| !rest.starts_with('+')).ok_or_else(wrong)?;
        queue.high = queue.high.min(u64::from_str_radix(rest, 16).map_err(|_| wrong())?);
    }
    if rests.next().is_some() { Err(wrong()) } else { Ok(()) }
}

impl Scan<'_> {
    /// The newest messages of all queues.
    async fn page(&mut self, queues: &mut [Backwards], count: usize) -> Result<Vec<MessageRow>, Failure> {
        let mut page = Vec::new();
        while page.len() < count {
            for queue in queues.iter_mut() {
                // What can not be read leaves nothing, and the step before it is looked at.
                while queue.read.is_empty() && queue.high > queue.low {
                    if self.bytes_left == 0 {
                        return Ok(page);
                    }
                    self.step_back(queue).await?;
                }
            }
            let newest = queues.iter_mut().filter(|queue| !queue.read.is_empty());
            let newest =
                newest.max_by_key(|queue| queue.read.last().map(|row| (row.store_time_ms, row.offset)));
            match newest.and_then(|queue| queue.read.pop()) {
                Some(row) => page.push(row),
                None => break,
            }
        }
        Ok(page)
    }

    /// Reads the step before what was read of a queue.
    async fn step_back(&mut self, queue: &mut Backwards) -> Result<(), Failure> {
        let from = queue.high.saturating_sub(self.step).max(queue.low);
        let until = std::mem::replace(&mut queue.high, from);
        let key = QueueKey { topic: self.topic.id, queue: queue.queue };
        let (mut at, before) = (from, self.bytes_left);
        while at < until {
            let records = u32::try_from(until - at).unwrap_or(u32::MAX);
            let fetch = fetch_of(key, QueueOffset(at), records, FETCH_BYTES);
            let fetched = match self.asking.fetch(fetch).await {
                Ok(fetched) => fetched,
                // It has gone since, with all that is older.
                Err(failure) if failure.status == Status::OffsetOutOfRange => {
                    queue.low = queue.high;
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            };
            self.bytes_left = self.bytes_left.saturating_sub(fetched.batches.len().max(FETCH_BYTES_MIN));
            let of = Source { topic: self.topic.topic.as_str(), queue: queue.queue, shard: queue.shard };
            each_message(of, &fetched.batches, at..until, |place, record| {
                queue.read.push(MessageRow::new(place, record, &self.ids));
            });
            // At the end of the queue, or of what is readable.
            if fetched.next_offset.0 <= at {
                break;
            }
            at = fetched.next_offset.0;
        }
        let is_little = before - self.bytes_left <= FETCH_BYTES as usize;
        self.step = if is_little { (2 * self.step).min(STEP_MAX) } else { STEP_MIN };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(number: u32, low: u64, high: u64) -> Backwards {
        Backwards { queue: QueueNumber(number), shard: ShardId(0), low, high, read: Vec::new() }
    }

    #[test]
    fn a_page_goes_on_where_the_last_one_ended() {
        let mut queues = [queue(0, 5, 300), queue(1, 0, 9)];
        go_on(&mut queues, "ff-0").expect("two queues");
        assert_eq!([queues[0].high, queues[1].high], [255, 0]);
        assert!(!queues[0].is_done() && queues[1].is_done());
        go_on(&mut queues, "ffffffffffffffff-1").expect("a queue may have got longer");
        assert_eq!([queues[0].high, queues[1].high], [255, 0], "and nothing comes twice");
        for wrong in ["", "1", "1-2-3", "1-", "-1", "x-1", "+1-1", "10000000000000000-1"] {
            assert!(go_on(&mut queues, wrong).is_err(), "{wrong}");
        }
    }
}
