//! What always holds of a shard, for tests that look at it between any two steps.

use std::collections::HashSet;

use super::shard_broker::{Broker, owned_queues};
use crate::disk::Disk;

impl<D: Disk> Broker<D> {
    /// Asserts the invariants of the state, and what binds queues and index to it. Looks at everything: for tests.
    pub fn check_state(&self) {
        let state = self.state.borrow();
        state.check();
        let of_topics = state
            .tables()
            .topics()
            .flat_map(|topic| owned_queues(topic.id, topic.queue_count, &self.options));
        let of_topics: HashSet<_> = of_topics.collect();
        let queues = self.queues.borrow();
        let without_topic = queues.keys().find(|key| !of_topics.contains(key));
        assert!(without_topic.is_none(), "invariant 1: queue {without_topic:?} has no topic");
        let missing = of_topics.iter().find(|key| !queues.contains_key(key));
        assert!(missing.is_none(), "invariant 1: queue {missing:?} is not there");
        for queue in queues.values() {
            let (key, durable_end, next) = (queue.key, queue.durable_end.get(), queue.next_offset.get());
            assert!(durable_end <= next, "{key} is durable up to {durable_end}, and goes on at {next}");
            let indexed = self.index.bounds(key).map(|(_, end)| end);
            // Less where the last batches were lost to damage: their offsets are not given out again.
            assert!(indexed.is_some_and(|end| end <= durable_end), "{key} ends at {indexed:?} in the index");
        }
    }

    /// What the log makes of the shard, and where its queues end: the same bytes for the same.
    pub fn state_bytes(&self) -> Vec<u8> {
        let mut bytes = self.state.borrow().canonical_bytes();
        let ends = self.queue_ends(|queue| queue.durable_end.get());
        ends.iter().for_each(|change| change.encode(&mut bytes));
        bytes
    }
}
