//! What was asked of a node and what it answered, to be held against what it has after a restart.

use std::collections::BTreeMap;
use std::rc::Rc;

use turbopump::types::{GroupName, Level, QueueKey, QueueOffset, TopicId, TopicName};

/// The books of a workload.
#[derive(Clone, Default)]
pub struct Ledger {
    pub topics: BTreeMap<TopicName, TopicEntry>,
    /// By queue, in the order in which the batches were placed.
    pub queues: BTreeMap<QueueKey, Vec<Sent>>,
    pub offsets: BTreeMap<(GroupName, QueueKey), Commits>,
}

#[derive(Clone, Debug, Default)]
pub struct TopicEntry {
    /// Known once the creation was answered.
    pub id: Option<TopicId>,
    /// The lowest number of queues it may have, and the highest.
    pub queues_answered: u32,
    pub queues_asked: u32,
    pub delete_asked: bool,
    pub delete_answered: bool,
}

/// A batch that was placed.
#[derive(Clone)]
pub struct Sent {
    pub base_offset: QueueOffset,
    pub count: u32,
    /// As it was sent: what stands after the broker's part of the header must come back.
    pub bytes: Rc<[u8]>,
    /// The level that the answer has named.
    pub answered: Option<Level>,
}

/// Offsets of one group in one queue, asked for one after the other.
#[derive(Clone, Debug, Default)]
pub struct Commits {
    pub asked: Vec<QueueOffset>,
    /// How many of them were answered.
    pub answered: usize,
}

impl Commits {
    /// What may be stored now.
    pub fn possible(&self) -> Vec<Option<QueueOffset>> {
        let before = self.answered.checked_sub(1).map(|index| self.asked[index]);
        std::iter::once(before).chain(self.asked[self.answered..].iter().copied().map(Some)).collect()
    }
}

impl Ledger {
    /// Batches of a queue that an answer has promised at `level` or higher: all up to this many must be there.
    pub fn promised(&self, key: QueueKey, level: Level) -> usize {
        let sent = self.queues.get(&key).map_or(&[][..], |sent| sent);
        let promised = |sent: &Sent| sent.answered.is_some_and(|answered| answered >= level);
        sent.iter().rposition(promised).map_or(0, |last| last + 1)
    }

    /// After a stop that went well everything that was placed is durable.
    pub fn all_durable(&mut self) {
        self.queues.values_mut().flatten().for_each(|sent| sent.answered = Some(Level::Durable));
    }
}
