//! Where each queue ended, as a replay of the log knows it: no offset is ever given out again, whatever of the log is lost.
//!
//! What is lost may have held messages of any queue. So a queue goes on after as many as fit in everything that was lost since
//! its end was last known for certain: by a batch of it, or by a record that says where it ended.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::{Lost, SEGMENT_HEADER_BYTES};
use crate::types::{LogPosition, QueueKey, QueueOffset, TopicId};
use crate::wire::record::RECORD_HEADER_BYTES;

#[derive(Default)]
pub(super) struct QueueEnds {
    noted: BTreeMap<QueueKey, NotedEnd>,
    /// As many messages may have been in what was lost so far.
    lost_messages: u64,
    /// Where the last of it ended; `None` while nothing is lost.
    pub lost_to: Option<LogPosition>,
    /// Whether the replay has everything since the shard's first message: it begins at the log's first position, or with a
    /// snapshot. `None` before it has begun.
    pub has_beginning: Option<bool>,
    /// Topics that the shard was told of by the others after that: it had them, and what it had of them is lost.
    adopted: BTreeSet<TopicId>,
}

#[derive(Clone, Copy)]
struct NotedEnd {
    offset: QueueOffset,
    /// As many may have been lost before that was known.
    lost_before: u64,
}

impl QueueEnds {
    /// The replay has come to something at this position.
    pub fn begin_at(&mut self, position: LogPosition) {
        self.has_beginning.get_or_insert(position == LogPosition(SEGMENT_HEADER_BYTES as u64));
    }

    pub fn note(&mut self, key: QueueKey, offset: QueueOffset) {
        self.noted.insert(key, NotedEnd { offset, lost_before: self.lost_messages });
    }

    pub fn lose(&mut self, lost: Lost) {
        self.lost_messages = self.lost_messages.saturating_add(messages_in(lost.bytes));
        self.lost_to = Some(lost.to);
    }

    /// The shard was told of these topics by the others.
    pub fn note_adopted(&mut self, topics: impl Iterator<Item = TopicId>) {
        if self.has_lost_beginning() {
            self.adopted.extend(topics);
        }
    }

    /// Whether what the topic had on this shard is lost.
    pub fn is_adopted(&self, topic: TopicId) -> bool {
        self.adopted.contains(&topic)
    }

    pub fn retain(&mut self, is_kept: impl Fn(TopicId) -> bool) {
        self.noted.retain(|key, _| is_kept(key.topic));
    }

    /// Whether what is missing before a queue's first batch is lost, and nothing of it was removed.
    fn has_lost_beginning(&self) -> bool {
        self.lost_to.is_some() && self.has_beginning == Some(true)
    }

    /// Whether a queue whose first batch has this offset may have had others. One that was made since begins after as many
    /// messages as were lost.
    pub fn may_begin_before(&self, offset: QueueOffset) -> bool {
        self.has_lost_beginning() && offset != QueueOffset(self.lost_messages)
    }

    /// Where a queue without a batch ended, as was said, unless that was lost.
    pub fn expired_to(&self, key: QueueKey) -> Option<QueueOffset> {
        let noted = self.noted.get(&key).filter(|_| !self.has_lost_beginning());
        noted.map(|noted| noted.offset)
    }

    /// Where the queue goes on that ends at `indexed` by its batches, or, when it has none, was made there.
    pub fn end_of(&self, key: QueueKey, indexed: QueueOffset, is_empty: bool) -> QueueOffset {
        match self.noted.get(&key) {
            Some(noted) => noted.offset.max(indexed).advance(self.lost_messages - noted.lost_before),
            None if is_empty => indexed.max(QueueOffset(self.lost_messages)),
            None => indexed.advance(self.lost_messages),
        }
    }
}

/// As many messages as fit in so many bytes, if they had nothing in them.
pub(super) fn messages_in(bytes: u64) -> u64 {
    bytes / RECORD_HEADER_BYTES as u64
}
