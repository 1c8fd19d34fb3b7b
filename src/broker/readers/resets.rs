//! Groups that are moved while their clients read. A client knows where it is, and says so every few seconds: until it has heard of
//! the move, what it commits counts for nothing. It hears of it with its next pull, as of an offset outside the queue, which clients
//! of every language follow (`broker/.../offset/ConsumerOffsetManager.java`, `assignResetOffset`).
//!
//! 1. A mark stands from the moment at which the commit of the move was taken until a pull was told, or nobody reads for the
//!    group any more.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::api::{Failure, Status};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::limits;
use crate::types::{GroupName, QueueKey, QueueOffset};

/// Where groups were moved to that have not heard of it.
#[derive(Debug, Default)]
pub(in crate::broker) struct Resets {
    groups: HashMap<GroupName, HashMap<QueueKey, QueueOffset>>,
    count: usize,
}

impl Resets {
    fn set(&mut self, group: &GroupName, key: QueueKey, offset: QueueOffset) {
        if self.groups.entry(group.clone()).or_default().insert(key, offset).is_none() {
            self.count += 1;
        }
    }

    pub fn has(&self, group: &GroupName, key: QueueKey) -> bool {
        self.groups.get(group).is_some_and(|queues| queues.contains_key(&key))
    }

    fn take(&mut self, group: &GroupName, key: QueueKey) -> Option<QueueOffset> {
        let queues = self.groups.get_mut(group)?;
        let offset = queues.remove(&key)?;
        self.count -= 1;
        if queues.is_empty() {
            self.groups.remove(group);
        }
        Some(offset)
    }

    /// Nobody reads for a group any more.
    pub fn remove(&mut self, group: &GroupName) {
        self.count -= self.groups.remove(group).map_or(0, |queues| queues.len());
    }
}

impl<D: Disk> Broker<D> {
    /// Whether clients read for a group and share its messages.
    pub fn is_read(&self, group: &GroupName) -> bool {
        self.readers.borrow().is_read(group)
    }

    /// Moves a group that is read in a queue of this shard, for somebody at a place of the network; durable on return.
    pub async fn move_readers(
        &self,
        group: &GroupName,
        key: QueueKey,
        offset: QueueOffset,
        network: IpAddr,
    ) -> Result<(), Failure> {
        if self.readers.borrow().resets.count >= limits::SHARD_RESETS_MAX {
            let message = "too many groups were moved whose clients have not heard of it: try again later";
            return Err(Failure::new(Status::LimitReached, message));
        }
        // One that was moved before would have this commit passed over.
        self.readers.borrow_mut().resets.take(group, key);
        let commit = self.commit_as_reader(group, key, offset, network).await?;
        self.readers.borrow_mut().resets.set(group, key, offset);
        self.queue(key)?.waits.look_again();
        commit.settled().await
    }

    /// Where a group goes on that was moved in a queue: whoever asks is told.
    pub fn take_move(&self, group: &GroupName, key: QueueKey) -> Option<QueueOffset> {
        if self.readers.borrow().resets.count == 0 {
            return None;
        }
        self.readers.borrow_mut().resets.take(group, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueNumber, TopicId};

    #[test]
    fn a_move_is_told_once() {
        let group: GroupName = "g".parse().expect("a name");
        let key = |queue| QueueKey { topic: TopicId(1), queue: QueueNumber(queue) };
        let mut resets = Resets::default();
        resets.set(&group, key(0), QueueOffset(5));
        resets.set(&group, key(0), QueueOffset(3));
        resets.set(&group, key(1), QueueOffset(9));
        assert_eq!((resets.count, resets.has(&group, key(0))), (2, true));
        assert_eq!(resets.take(&group, key(0)), Some(QueueOffset(3)), "the newest");
        assert_eq!((resets.take(&group, key(0)), resets.has(&group, key(0))), (None, false));
        resets.remove(&group);
        assert_eq!((resets.count, resets.take(&group, key(1))), (0, None));
    }
}
