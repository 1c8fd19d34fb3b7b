//! Where readers go on in a queue, and where a group begins that has never read there.

use crate::api::Failure;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::types::{GroupName, LogPosition, QueueKey, QueueOffset};

/// The first message counts as recent while it lies in one of so many segments at the log's end.
const RECENT_SEGMENTS: usize = 2;

impl<D: Disk> Broker<D> {
    /// Where a reader goes on in a queue of this shard; `None` when nothing was committed, and the client decides.
    pub async fn committed_for_reader(
        &self,
        group: &GroupName,
        key: QueueKey,
    ) -> Result<Option<QueueOffset>, Failure> {
        self.check_no_members(group)?;
        self.queue(key)?;
        if let Some(offset) = self.reader_commits.get(group, key) {
            return Ok(Some(offset));
        }
        // What is left of leases is the receivers'.
        let leased = self.leases().get(group, key).map(|pair| pair.next());
        Ok(leased.or_else(|| self.tables().committed(group, key)))
    }

    /// Whether a new group begins with the first message of a queue, wherever its client wants to begin: when that is stored
    /// since so short a time that its clients can hardly have seen the topic before. RocketMQ has this rule, with the first
    /// message in memory (`broker/.../processor/ConsumerManageProcessor.java`, `queryConsumerOffset`), but not for a queue
    /// without messages: a group that comes before the first one may lose it there.
    pub async fn begins_at_first(&self, key: QueueKey) -> Result<bool, Failure> {
        let (first, end) = self.bounds(&*self.queue(key)?);
        if first > QueueOffset::ZERO || end == QueueOffset::ZERO {
            return Ok(first == QueueOffset::ZERO);
        }
        let entry = self.entry_at(key, first).await.map_err(|error| self.index_damaged(&error))?;
        Ok(entry.is_some_and(|entry| entry.position >= self.recent_from()))
    }

    /// Where the newest segments begin.
    fn recent_from(&self) -> LogPosition {
        let segments = self.log.segments();
        segments[segments.len().saturating_sub(RECENT_SEGMENTS)].base
    }
}
