//! What a group may have of a shard's leases, and how it is told when it may have no more.

use std::time::Duration;

use crate::api::{Failure, Status};
use crate::broker::shard_broker::Broker;
use crate::broker::shares::SharedTable;
use crate::disk::Disk;
use crate::limits;
use crate::state::Holding;
use crate::types::{GroupName, MonotonicTime, QueueKey};

/// A refusal is shown by `status` for this long.
const SHOWN_FOR: Duration = Duration::from_secs(60);

/// The last refusal of a shard.
#[derive(Debug)]
pub(in crate::broker) struct Refusal {
    at: MonotonicTime,
    message: String,
}

impl<D: Disk> Broker<D> {
    /// Why the group gets nothing new; in a queue that is named, as that would be new to it as well.
    pub(in crate::broker) fn lease_refusal(
        &self,
        group: &GroupName,
        key: Option<QueueKey>,
    ) -> Option<Failure> {
        let leases = self.leases();
        let (own, total) = (leases.holding(group), leases.total());
        let shard = self.options.shard;
        let messages_max = limits::SHARD_LEASED_MESSAGES_MAX;
        let table = SharedTable { entries_max: messages_max, used: total.messages };
        if !table.takes(own.messages) {
            return Some(Failure::new(
                Status::LimitReached,
                format!(
                    "group {group} gets nothing new from shard {shard}: {} of its messages are delivered and not \
                     acknowledged, and {} of all groups, of {messages_max}: acknowledge some first",
                    own.messages, total.messages
                ),
            ));
        }
        let is_new = key.is_some_and(|key| leases.get(group, key).is_none());
        let pairs_max = limits::SHARD_LEASE_PAIRS_MAX;
        if is_new && total.pairs >= pairs_max {
            return Some(Failure::new(
                Status::LimitReached,
                format!(
                    "group {group} gets nothing from a queue that is new to it: shard {shard} keeps the places of \
                     groups in {pairs_max} queues: delete groups that nobody uses"
                ),
            ));
        }
        let groups_max = limits::GROUPS_MAX;
        (is_new && own.pairs == 0 && leases.group_count() >= groups_max).then(|| {
            Failure::new(
                Status::LimitReached,
                format!(
                    "group {group} is new, and shard {shard} keeps the places of {groups_max} groups: delete groups \
                     that nobody uses"
                ),
            )
        })
    }

    /// Counts and shows a receive that got nothing because of a bound.
    pub(in crate::broker) fn note_refused_receive(&self, failure: &Failure) {
        self.metrics.receives_refused.add(1);
        self.note_refusal(failure);
    }

    /// Shows that somebody got nothing because of a bound.
    pub(in crate::broker) fn note_refusal(&self, failure: &Failure) {
        let now = self.clock.monotonic();
        if let Some(left_out) = self.refusals_said.allows(now) {
            tracing::warn!(target: "leases", shard = self.options.shard.0, left_out, "{}", failure.message);
        }
        self.refused.replace(Some(Refusal { at: now, message: failure.message.clone() }));
    }

    /// The last refusal, while it is news.
    pub(in crate::broker) fn recent_refusal(&self) -> Option<String> {
        let now = self.clock.monotonic();
        let refused = self.refused.borrow();
        refused
            .as_ref()
            .filter(|refusal| now.since(refusal.at) < SHOWN_FOR)
            .map(|refusal| refusal.message.clone())
    }

    /// Says now and then that messages cannot be moved to the dead letters.
    pub(in crate::broker) fn note_stuck_dead_letters(&self, group: &GroupName, failure: &Failure) {
        // The next start moves them.
        if failure.status == Status::ShuttingDown {
            return;
        }
        if let Some(left_out) = self.dead_letters_said.allows(self.clock.monotonic()) {
            tracing::warn!(
                target: "leases", shard = self.options.shard.0, %group, left_out,
                "messages that were delivered too often stay where they are: {}", failure.message
            );
        }
    }

    /// What all groups have of the leases of this shard.
    pub fn leases_held(&self) -> Holding {
        self.leases().total()
    }

    /// What is kept of leases, for `status`.
    pub(in crate::broker) fn lease_counters(&self) -> [(String, u64); 4] {
        let leases = self.leases();
        let total = leases.total();
        [
            ("leased_messages".to_owned(), total.messages as u64),
            ("lease_entries".to_owned(), total.runs as u64),
            ("lease_pairs".to_owned(), total.pairs as u64),
            ("lease_groups".to_owned(), leases.group_count() as u64),
        ]
    }
}
