//! One queue while the shard runs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::gathering::QueueGathering;
use super::reader::WaitList;
use crate::metrics::Intake;
use crate::types::{QueueKey, QueueOffset, ShardId};

/// Who waits for messages of a topic, whichever of its queues they come to.
#[derive(Default)]
pub struct Arrivals {
    /// Receives on this shard.
    pub waits: WaitList,
    /// Shards that want to be told of the next message here, once.
    pub watchers: RefCell<Vec<ShardId>>,
    pub intake: Intake,
}

/// What went in and out of a queue in this run of the broker.
#[derive(Default)]
pub struct Traffic {
    /// Bytes of the batches that were stored.
    pub stored_bytes: Cell<u64>,
    /// Messages that were given to consumers, whichever way, and their bytes.
    pub given: Cell<u64>,
    pub given_bytes: Cell<u64>,
}

impl Traffic {
    pub fn note_stored(&self, bytes: u64) {
        self.stored_bytes.set(self.stored_bytes.get() + bytes);
    }

    pub fn note_given(&self, messages: u64, bytes: u64) {
        self.given.set(self.given.get() + messages);
        self.given_bytes.set(self.given_bytes.get() + bytes);
    }
}

/// A queue that this shard owns.
///
/// `durable_end <= next_offset`: what lies between is placed in the log and not yet flushed, and no reader sees it.
pub struct Queue {
    pub key: QueueKey,
    /// Offset of the next message to be placed.
    pub next_offset: Cell<QueueOffset>,
    /// Readers see up to here.
    pub durable_end: Cell<QueueOffset>,
    /// Fetches and watches that wait for a message, called when `durable_end` moves or the queue is deleted.
    pub waits: WaitList,
    pub arrivals: Rc<Arrivals>,
    pub deleted: Cell<bool>,
    /// Single messages that are not placed yet.
    pub gathering: QueueGathering,
    pub traffic: Traffic,
}

impl Queue {
    pub fn new(key: QueueKey, end: QueueOffset, arrivals: Rc<Arrivals>) -> Self {
        Self {
            key,
            next_offset: Cell::new(end),
            durable_end: Cell::new(end),
            waits: WaitList::default(),
            arrivals,
            deleted: Cell::new(false),
            gathering: QueueGathering::default(),
            traffic: Traffic::default(),
        }
    }
}
