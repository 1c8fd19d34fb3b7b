//! What a batch does once it is durable: the same behind a commit as in recovery.

use super::shard_broker::Broker;
use crate::disk::Disk;
use crate::index::IndexEntry;
use crate::log::Placed;
use crate::state::{Change, decode_changes};
use crate::types::LogPosition;
use crate::wire::batch::{BatchHeader, Kind};

/// The index entry of a batch as it was placed.
pub(super) fn entry_of(placed: &Placed) -> IndexEntry {
    IndexEntry {
        base_offset: placed.base_offset,
        record_count: placed.record_count,
        position: placed.position,
        batch_bytes: placed.batch_bytes,
        tag_summary: placed.tag_summary,
        store_time: placed.store_time,
    }
}

/// The same from a stored header.
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

impl<D: Disk> Broker<D> {
    /// Makes a durable group visible. Called by the commit task, before anyone who waits for the group is woken.
    pub fn publish(&self, batches: &[Placed]) {
        for placed in batches {
            match (placed.kind, &placed.state) {
                (Kind::Messages, _) => self.publish_messages(placed),
                (Kind::Held, _) => self.publish_held(placed),
                (Kind::State, Some(payload)) => {
                    let changes = decode_changes(payload).expect("this run has encoded them");
                    for change in changes {
                        self.apply(change, placed.position);
                    }
                }
                (Kind::State, None) => unreachable!("a placed state batch keeps its payload"),
            }
        }
        self.keys.note(batches);
        self.index_health.note_published(batches);
        self.note_published();
    }

    fn publish_messages(&self, placed: &Placed) {
        // The topic may have been deleted while the batch was on its way.
        let Some(queue) = self.queues.borrow().get(&placed.key).cloned() else { return };
        let entry = entry_of(placed);
        self.index.append(placed.key, entry);
        queue.durable_end.set(entry.end_offset());
        queue.waiters.wake();
        self.announce_to(placed.key.topic, &queue.arrivals);
    }

    /// Carries out one change of the tables.
    pub(super) fn apply(&self, change: Change, position: LogPosition) {
        let removed = match &change {
            Change::TopicRemoved(id) => Some(*id),
            Change::Topic(topic) => {
                self.make_queues(topic);
                None
            }
            // Says again what this run has done.
            Change::LiveTopics(_) => None,
            // Leases have changed when they were placed.
            Change::Offset { .. }
            | Change::NextTopicId(_)
            | Change::QueueEnd { .. }
            | Change::Group(_)
            | Change::GroupRemoved { .. }
            | Change::RunningTime(_)
            | Change::StoredBy { .. }
            | Change::GroupUsed { .. }
            | Change::Instances(_)
            | Change::Lease(_) => None,
            Change::Held(held) => {
                self.apply_held(held.clone());
                None
            }
        };
        self.tables.borrow_mut().apply(change, position);
        if let Some(id) = removed {
            self.remove_queues(id);
        }
    }
}
