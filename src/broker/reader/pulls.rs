//! Pulls: single messages of a queue from an offset on, for a reader who keeps its own place and has a filter. The messages are
//! given to a [`Taker`] where they lie: nothing is copied of a batch of the tail, nor of one that lies in a stretch.

use std::rc::Rc;

use super::batches::{BatchBytes, want};
use super::fetches::FetchWait;
use super::records::Taker;
use super::selection::Selection;
use super::waits::{LookNow, WaitFor};
use crate::api::{Failure, Filter, Status};
use crate::broker::queue::Queue;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::index::{IndexEntry, LookupMax};
use crate::types::{GroupName, QueueKey, QueueOffset};

/// Index entries looked at in one pull, and bytes of their batches: more are left to the next.
const ENTRIES_MAX: usize = 1024;
const BYTES_MAX: u64 = 1024 * 1024;

/// What is pulled.
#[derive(Clone, Copy, Debug)]
pub struct Pull<'a> {
    /// Of a queue of this shard.
    pub key: QueueKey,
    pub offset: QueueOffset,
    pub filter: &'a Filter,
}

/// What a look into a queue went on to: everything before `next` was taken, is not wanted, or is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    pub next: QueueOffset,
    pub span: QueueSpan,
    /// What an expression has taken, in steps of some ten nanoseconds.
    pub steps: usize,
}

/// The messages of a queue as readers see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSpan {
    pub first: QueueOffset,
    pub end: QueueOffset,
}

/// What there is at an offset that a reader names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Messages(QueueOffset),
    /// None yet.
    End(QueueOffset),
    /// It lies before the first message, which is this.
    Before(QueueOffset),
    /// It lies after this, which is the end.
    After(QueueOffset),
}

impl QueueSpan {
    /// Where an offset is; one below zero is none of any queue's.
    pub fn standing(&self, offset: i64) -> Standing {
        match u64::try_from(offset).map(QueueOffset) {
            Ok(offset) if (self.first..self.end).contains(&offset) => Standing::Messages(offset),
            Ok(offset) if offset == self.end => Standing::End(offset),
            Ok(offset) if offset > self.end => Standing::After(self.end),
            _ => Standing::Before(self.first),
        }
    }
}

impl<D: Disk> Broker<D> {
    /// Whether a group's settings let it consume.
    pub fn may_consume(&self, group: &GroupName) -> bool {
        self.tables().group(group).is_none_or(|group| group.policy.may_consume)
    }

    /// Whether its clients may get every message each.
    pub fn may_broadcast(&self, group: &GroupName) -> bool {
        self.tables().group(group).is_none_or(|group| group.policy.may_broadcast)
    }

    /// The messages that there are of a queue.
    pub fn queue_span(&self, key: QueueKey) -> Result<QueueSpan, Failure> {
        Ok(self.span(&*self.queue(key)?))
    }

    fn span(&self, queue: &Queue) -> QueueSpan {
        let (first, end) = self.bounds(queue);
        QueueSpan { first, end }
    }

    /// Gives `taker` what is wanted of what is in memory from the offset on; `None` when the disk has to be read first.
    pub fn pull_now(&self, pull: &Pull<'_>, taker: &mut impl Taker) -> Result<Option<Pulled>, Failure> {
        let queue = self.queue(pull.key)?;
        let end = queue.durable_end.get();
        let selection = Selection::new(pull.filter);
        let records = if selection.is_everything() { taker.missing() as u64 } else { u64::MAX };
        let max = LookupMax { entries: ENTRIES_MAX, bytes: BYTES_MAX, records };
        let Some(entries) = self.entries_at_hand(pull.key, pull.offset, max) else { return Ok(None) };
        let mut next = pull.offset;
        for entry in entries.iter().take_while(|entry| entry.end_offset() <= end) {
            // What was lost before this one is told of by whoever reads the disk.
            if taker.missing() == 0 || selection.is_spent() || entry.base_offset > next {
                break;
            }
            if !selection.may_want(entry) {
                next = entry.end_offset();
                continue;
            }
            let Some(batch) = self.batch_at_hand(entry) else { break };
            next = self.take_records(entry, batch.of(entry), next, &selection, taker);
            self.note_left(entry, batch, next);
        }
        Ok((next > pull.offset).then(|| Pulled { next, span: self.span(&queue), steps: selection.steps() }))
    }

    /// A batch, if it is in memory.
    fn batch_at_hand(&self, entry: &IndexEntry) -> Option<BatchBytes> {
        if let Some(batch) = self.batch_cache.borrow().get(entry.position) {
            return Some(BatchBytes::Copied(batch));
        }
        let Some(mut slices) = self.log.share_tail(&[want(entry)]) else {
            return self.kept_batch(&want(entry));
        };
        if slices.len() == 1 {
            return slices.pop().map(BatchBytes::InTail);
        }
        let mut bytes = Vec::with_capacity(slices.iter().map(|slice| slice.len()).sum());
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        Some(BatchBytes::Copied(bytes.into()))
    }

    /// Gives `taker` what is wanted from the offset on, reading the disk as far as need be.
    pub async fn pull(&self, pull: &Pull<'_>, taker: &mut impl Taker) -> Result<Pulled, Failure> {
        let queue = self.queue(pull.key)?;
        let end = queue.durable_end.get();
        let selection = Selection::new(pull.filter);
        let next = self.walk(pull.key, pull.offset..end, &selection, taker).await?;
        if queue.deleted.get() {
            return Err(Failure::new(Status::TopicNotExist, "the topic was deleted"));
        }
        Ok(Pulled { next, span: self.span(&queue), steps: selection.steps() })
    }

    /// Lets a pull wait without anybody's doing: `caller` is called, once, when there may be something for it, and it is to be
    /// tried again. `None` when there is something already.
    pub fn park_pull(
        &self,
        pull: &Pull<'_>,
        caller: impl FnOnce() -> Rc<dyn LookNow>,
    ) -> Result<Option<FetchWait>, Failure> {
        let queue = self.queue(pull.key)?;
        if queue.durable_end.get() != pull.offset {
            return Ok(None);
        }
        let wait = WaitFor::wanted_from(pull.offset, &Selection::new(pull.filter));
        Ok(Some(FetchWait::begin(queue, wait, caller())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_told_from_the_ends_of_its_queue() {
        let span = |first, end| QueueSpan { first: QueueOffset(first), end: QueueOffset(end) };
        let before = |offset| Standing::Before(QueueOffset(offset));
        let after = |offset| Standing::After(QueueOffset(offset));
        for (span, offset, expected) in [
            (span(0, 0), 0, Standing::End(QueueOffset(0))),
            (span(0, 0), 1, after(0)),
            (span(0, 0), -1, before(0)),
            (span(3, 9), 3, Standing::Messages(QueueOffset(3))),
            (span(3, 9), 8, Standing::Messages(QueueOffset(8))),
            (span(3, 9), 9, Standing::End(QueueOffset(9))),
            (span(3, 9), 10, after(9)),
            (span(3, 9), i64::MAX, after(9)),
            (span(3, 9), 2, before(3)),
            (span(3, 9), i64::MIN, before(3)),
            (span(9, 9), 9, Standing::End(QueueOffset(9))),
            (span(9, 9), 8, before(9)),
            (span(9, 9), 10, after(9)),
        ] {
            assert_eq!(span.standing(offset), expected, "{offset} of {span:?}");
        }
    }
}
