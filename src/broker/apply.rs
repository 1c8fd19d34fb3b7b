//! What a batch does to the shard: the same whether it has just become durable or is read back from the log.

use std::cell::Ref;
use std::time::Duration;

use super::shard_broker::Broker;
use crate::disk::Disk;
use crate::index::{Index, IndexEntry};
use crate::log::Placed;
use crate::metrics;
use crate::state::{Change, Effect, HeldState, Leases, Locks, Redrives, Stage, Tables, TimerKey};
use crate::state::{bucket_of, decode_changes, offset_after};
use crate::types::{LogPosition, QueueKey, QueueNumber, TopicId};
use crate::wire::batch::{BatchHeader, Kind, state_payload};

/// A batch of the log, as far as rules look at it.
pub(super) enum LogBatch<'a> {
    Messages { key: QueueKey, entry: IndexEntry },
    Held(IndexEntry),
    State { payload: &'a [u8], position: LogPosition },
}

impl<'a> LogBatch<'a> {
    /// One that this run has placed.
    pub fn of_placed(placed: &'a Placed) -> Self {
        let entry = IndexEntry {
            base_offset: placed.base_offset,
            record_count: placed.record_count,
            position: placed.position,
            batch_bytes: placed.batch_bytes,
            tag_summary: placed.tag_summary,
            store_time: placed.store_time,
        };
        match (placed.kind, &placed.state) {
            (Kind::Messages, _) => LogBatch::Messages { key: placed.key, entry },
            (Kind::Held, _) => LogBatch::Held(entry),
            (Kind::State, Some(payload)) => LogBatch::State { payload, position: placed.position },
            (Kind::State, None) => unreachable!("a placed state batch keeps its payload"),
        }
    }

    /// One that is whole in the log.
    pub fn of_stored(header: &BatchHeader, bytes: &'a [u8]) -> Self {
        let entry = entry_of_header(header);
        match header.kind {
            Kind::Messages => LogBatch::Messages { key: header.key, entry },
            Kind::Held => LogBatch::Held(entry),
            Kind::State => LogBatch::State { payload: state_payload(bytes), position: header.position },
        }
    }

    /// One of which the log has the header only: messages keep their offsets, and what changed the state is lost.
    pub fn of_harmed(header: &BatchHeader) -> Option<Self> {
        let entry = entry_of_header(header);
        match header.kind {
            Kind::Messages => Some(LogBatch::Messages { key: header.key, entry }),
            Kind::Held => Some(LogBatch::Held(entry)),
            Kind::State => None,
        }
    }
}

/// The index entry of a stored batch.
pub(super) fn entry_of_header(header: &BatchHeader) -> IndexEntry {
    IndexEntry {
        base_offset: header.base_offset,
        record_count: header.record_count,
        position: header.position,
        batch_bytes: header.batch_bytes,
        tag_summary: header.tag_summary,
        store_time: header.store_time,
    }
}

/// Lets the index follow a change of the state.
pub(super) fn follow<D: Disk>(index: &Index<D>, effect: &Effect) {
    match effect {
        Effect::TopicRemoved(id) => remove_topic(index, |key| key.topic == *id),
        Effect::OnlyTopics(live) => remove_topic(index, |key| !live.contains(&key.topic)),
        Effect::Released(timer) => {
            // Everything in the hidden queues of earlier times was released.
            let bucket = bucket_of(timer.due);
            let first = QueueKey { topic: TopicId::DELAYED, queue: QueueNumber(0) };
            while let Some(passed) = index.next_queue(first).filter(|key| *key < bucket) {
                index.remove_queue(passed);
            }
        }
        Effect::Purged { key, offset } => index.advance_first(*key, *offset),
        Effect::Moved { bucket, position } => {
            let key = QueueKey { topic: TopicId::DELAYED, queue: *bucket };
            index.advance_first(key, offset_after(*position));
        }
        // Queues are made by whoever has them.
        Effect::None
        | Effect::TopicPut(_)
        | Effect::QueueEnd { .. }
        | Effect::HalfStored
        | Effect::HalfUsedUp => {}
    }
}

/// The hidden queues belong to no topic, and are gone when their time has passed.
pub(super) fn remove_topic<D: Disk>(index: &Index<D>, is_gone: impl Fn(QueueKey) -> bool) {
    let gone = |key: &QueueKey| key.topic != TopicId::DELAYED && is_gone(*key);
    index.queues().into_iter().filter(gone).for_each(|key| index.remove_queue(key));
}

impl<D: Disk> Broker<D> {
    pub(super) fn tables(&self) -> Ref<'_, Tables> {
        Ref::map(self.state.borrow(), |state| state.tables())
    }

    pub(super) fn leases(&self) -> Ref<'_, Leases> {
        Ref::map(self.state.borrow(), |state| state.leases())
    }

    pub(super) fn locks(&self) -> Ref<'_, Locks> {
        Ref::map(self.state.borrow(), |state| state.locks())
    }

    pub(super) fn redrives(&self) -> Ref<'_, Redrives> {
        Ref::map(self.state.borrow(), |state| state.redrives())
    }

    pub(super) fn held(&self) -> Ref<'_, HeldState> {
        Ref::map(self.state.borrow(), |state| state.held())
    }

    /// The task that writes what was placed, and makes it visible; ends after [`stop`](Broker::stop), or a failure of the log.
    pub async fn run_commit(&self) {
        self.log.run_commit(|| self.place_gathered(), |batches| self.publish(batches)).await;
    }

    /// Makes a durable group visible. Called by the commit task, before anyone who waits for the group is woken.
    pub fn publish(&self, batches: &[Placed]) {
        for placed in batches {
            match LogBatch::of_placed(placed) {
                LogBatch::Messages { key, entry } => self.publish_messages(key, entry),
                LogBatch::Held(entry) => self.publish_held(&entry),
                LogBatch::State { payload, position } => {
                    let changes = decode_changes(payload).expect("this run has encoded them");
                    changes.into_iter().for_each(|change| self.publish_change(change, position));
                }
            }
        }
        self.keys.note(batches);
        self.index_health.note_published(batches);
        self.note_published();
    }

    fn publish_messages(&self, key: QueueKey, entry: IndexEntry) {
        // The topic may have been deleted while the batch was on its way.
        let Some(queue) = self.queues.borrow().get(&key).cloned() else { return };
        self.index.append(key, entry);
        queue.durable_end.set(entry.end_offset());
        queue.traffic.note_stored(u64::from(entry.batch_bytes));
        queue.arrivals.intake.note(entry.record_count, entry.batch_bytes);
        queue.waits.arrived(key.queue, &entry);
        queue.arrivals.waits.arrived(key.queue, &entry);
        self.tell_watchers(key.topic, &queue.arrivals);
    }

    fn publish_held(&self, batch: &IndexEntry) {
        let found = self.state.borrow_mut().held_stored(batch, Stage::Durable);
        if let Some((bucket, entry)) = found {
            self.index.append(bucket, entry);
        }
        self.held_changed.wake();
    }

    /// Carries out what a change does whose record, at `position`, is durable; that it was placed the writer has told.
    fn publish_change(&self, change: Change, position: LogPosition) {
        let effect = self.state.borrow_mut().apply(change, position, Stage::Durable);
        follow(&self.index, &effect);
        match effect {
            Effect::TopicPut(id) => {
                let topic = self.tables().topic(id).cloned();
                if let Some(topic) = &topic {
                    self.make_queues(topic);
                    self.unmade_topics.made(&topic.name);
                }
            }
            Effect::TopicRemoved(id) => self.remove_queues(id),
            Effect::OnlyTopics(live) => {
                let queues = self.queues.borrow();
                debug_assert!(queues.keys().all(|key| live.contains(&key.topic)), "a queue without a topic");
            }
            // Only the index knows where a queue begins.
            Effect::Purged { .. } => {}
            Effect::Released(timer) => self.note_release(timer),
            Effect::HalfStored => {
                self.held_changed.wake();
                self.halves_changed.wake();
            }
            Effect::HalfUsedUp => self.held_changed.wake(),
            // The queues know their ends, and whoever places a message again waits for the record by itself.
            Effect::QueueEnd { .. } | Effect::Moved { .. } | Effect::None => {}
        }
    }

    fn note_release(&self, timer: TimerKey) {
        let late = self.clock.now().0.saturating_sub(timer.due.0);
        self.metrics.record(metrics::Stage::Release, Duration::from_millis(late));
    }
}
