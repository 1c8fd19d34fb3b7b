//! Commits of readers: clients say every few seconds where they are in each queue, mostly without waiting for an answer. What
//! comes within [`GATHERED_FOR`] is one state batch, and of several for one queue the last one counts.
//!
//! 1. A commit is read back from the moment at which it was taken, and durable when its round is over.
//! 2. Rounds follow one another: while one is on its way to the disk, the next one gathers.
//! 3. `gathered` has no more than `READER_COMMITS_MAX` commits. Whoever has one more waits for the next round, which then begins
//!    at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::api::{Failure, Status};
use crate::broker::makers::Makers;
use crate::broker::shard_broker::Broker;
use crate::broker::shares::SharedTable;
use crate::broker::writer::PlaceRefusal;
use crate::disk::Disk;
use crate::limits;
use crate::log::Placement;
use crate::state::{Change, LeaseChange};
use crate::types::{GroupName, Level, QueueKey, QueueOffset, WakerList};

/// How long commits are waited for that are stored with the first one.
const GATHERED_FOR: Duration = Duration::from_millis(20);

/// What a round holds of one commit, in the log and in memory.
const COMMIT_BYTES_MAX: usize = 2 * (limits::GROUP_NAME_BYTES_MAX + 64);
const _: () = assert!(limits::READER_COMMITS_MAX * COMMIT_BYTES_MAX <= limits::BATCH_BYTES_MAX);

/// The commits of all readers of a shard that are not durable yet.
#[derive(Default)]
pub(in crate::broker) struct ReaderCommits {
    /// Of the round that comes next.
    gathered: RefCell<Commits>,
    /// Of the round that is on its way.
    placing: RefCell<Commits>,
    round: RefCell<Rc<Round>>,
    /// The next round has somebody who may wait for it, whatever is left of its commits.
    is_begun: Cell<bool>,
    /// It is not to wait for more.
    is_hurried: Cell<bool>,
    /// Who has made the groups that are new in this life of the shard, by committing for them.
    makers: RefCell<Makers<GroupName>>,
    /// Woken for the task that stores them.
    work: WakerList,
    /// Woken when a round begins, and when it is over.
    progress: WakerList,
}

/// Offsets by group and queue.
#[derive(Debug, Default)]
struct Commits {
    groups: BTreeMap<GroupName, BTreeMap<QueueKey, QueueOffset>>,
    count: usize,
}

/// What may be on its way to the table of offsets.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::broker) struct Coming {
    pub offsets: usize,
    pub groups: usize,
}

/// Commits that are stored together.
#[derive(Default)]
struct Round {
    outcome: RefCell<Option<Result<(), Failure>>>,
    over: WakerList,
}

/// A commit that was taken.
pub struct ReaderCommit {
    round: Rc<Round>,
}

impl ReaderCommit {
    /// One that changes nothing.
    fn passed_over() -> Self {
        let round = Round { outcome: RefCell::new(Some(Ok(()))), ..Round::default() };
        Self { round: Rc::new(round) }
    }

    /// Waits until it is durable, or cannot become so.
    pub async fn settled(&self) -> Result<(), Failure> {
        loop {
            if let Some(outcome) = self.round.outcome.borrow().clone() {
                return outcome;
            }
            self.round.over.changed().await;
        }
    }
}

impl Commits {
    fn get(&self, group: &GroupName, key: QueueKey) -> Option<QueueOffset> {
        self.groups.get(group)?.get(&key).copied()
    }

    fn set(&mut self, group: &GroupName, key: QueueKey, offset: QueueOffset) {
        let queues = match self.groups.get_mut(group) {
            Some(queues) => queues,
            None => self.groups.entry(group.clone()).or_default(),
        };
        if queues.insert(key, offset).is_none() {
            self.count += 1;
        }
    }

    fn remove(&mut self, group: &GroupName, key: QueueKey) {
        let Some(queues) = self.groups.get_mut(group) else { return };
        if queues.remove(&key).is_some() {
            self.count -= 1;
        }
        if queues.is_empty() {
            self.groups.remove(group);
        }
    }

    fn remove_group(&mut self, group: &GroupName) {
        self.count -= self.groups.remove(group).map_or(0, |queues| queues.len());
    }
}

impl ReaderCommits {
    /// What was committed last, while it is not in the tables yet.
    pub fn get(&self, group: &GroupName, key: QueueKey) -> Option<QueueOffset> {
        let gathered = self.gathered.borrow().get(group, key);
        gathered.or_else(|| self.placing.borrow().get(group, key))
    }

    /// Somebody else says where the group is in a queue.
    pub fn remove(&self, group: &GroupName, key: QueueKey) {
        self.gathered.borrow_mut().remove(group, key);
        self.placing.borrow_mut().remove(group, key);
    }

    pub fn remove_group(&self, group: &GroupName) {
        self.gathered.borrow_mut().remove_group(group);
        self.placing.borrow_mut().remove_group(group);
        self.makers.borrow_mut().forget(group);
    }

    /// Wakes the task, which ends with the shard.
    pub fn stop(&self) {
        self.work.wake();
    }

    /// At most this is new to the tables once all is stored.
    pub fn coming(&self) -> Coming {
        let (gathered, placing) = (self.gathered.borrow(), self.placing.borrow());
        Coming {
            offsets: gathered.count + placing.count,
            groups: gathered.groups.len() + placing.groups.len(),
        }
    }

    fn has_group(&self, group: &GroupName) -> bool {
        self.gathered.borrow().groups.contains_key(group) || self.placing.borrow().groups.contains_key(group)
    }

    fn is_idle(&self) -> bool {
        self.gathered.borrow().count == 0 && self.placing.borrow().count == 0
    }

    fn has_room_for(&self, group: &GroupName, key: QueueKey) -> bool {
        let gathered = self.gathered.borrow();
        gathered.count < limits::READER_COMMITS_MAX || gathered.get(group, key).is_some()
    }

    fn hurry(&self) {
        self.is_hurried.set(true);
        self.work.wake();
    }

    fn take(&self, group: &GroupName, key: QueueKey, offset: QueueOffset) -> ReaderCommit {
        let mut gathered = self.gathered.borrow_mut();
        gathered.set(group, key, offset);
        if !self.is_begun.replace(true) {
            self.work.wake();
        }
        ReaderCommit { round: self.round.borrow().clone() }
    }
}

impl<D: Disk> Broker<D> {
    /// Takes a commit of a reader, which comes from a place of the network, in a queue of this shard, forward or back. It may
    /// wait until there is room for it. Few readers wait for an answer: refusals are counted, and those for want of room are told
    /// to the operator.
    pub async fn commit_as_reader(
        &self,
        group: &GroupName,
        key: QueueKey,
        offset: QueueOffset,
        network: IpAddr,
    ) -> Result<ReaderCommit, Failure> {
        let taken = self.try_commit_as_reader(group, key, offset, network).await;
        if let Err(failure) = &taken {
            self.metrics.commits_refused.add(1);
            if failure.status == Status::LimitReached {
                self.note_refusal(failure);
            }
        }
        taken
    }

    async fn try_commit_as_reader(
        &self,
        group: &GroupName,
        key: QueueKey,
        offset: QueueOffset,
        network: IpAddr,
    ) -> Result<ReaderCommit, Failure> {
        while !self.reader_commits.has_room_for(group, key) && !self.writer.is_stopped() {
            self.reader_commits.hurry();
            self.reader_commits.progress.changed().await;
        }
        if self.writer.is_stopped() {
            return Err(Failure::new(Status::ShuttingDown, "the broker is shutting down"));
        }
        self.check_no_members(group)?;
        let end = self.queue(key)?.durable_end.get();
        if offset > end {
            let message = format!("offset {offset} is after the end {end} of {}", self.queue_text(key));
            return Err(Failure::new(Status::OffsetOutOfRange, message));
        }
        let is_known =
            self.reader_commits.get(group, key).is_some() || self.tables().committed(group, key).is_some();
        if !is_known {
            self.check_offsets_limit(group, self.reader_commits.coming())?;
            self.note_maker(group, network)?;
        }
        self.note_use(group);
        if self.readers.borrow().resets.has(group, key) {
            // It is from before the group was moved.
            return Ok(ReaderCommit::passed_over());
        }
        Ok(self.reader_commits.take(group, key, offset))
    }

    /// Takes note of who makes a group, if it is new; refused to who has made as many as may be one's.
    fn note_maker(&self, group: &GroupName, maker: IpAddr) -> Result<(), Failure> {
        let commits = &self.reader_commits;
        if commits.has_group(group) || self.tables().has_offsets(group) {
            return Ok(());
        }
        let used = self.tables().group_count() + commits.coming().groups;
        let table = SharedTable { entries_max: limits::GROUPS_MAX, used };
        let mut makers = commits.makers.borrow_mut();
        if !table.takes(makers.count(maker)) {
            let tables = self.tables();
            makers
                .look(self.clock.monotonic(), |group| commits.has_group(group) || tables.has_offsets(group));
        }
        let own = makers.count(maker);
        if table.takes(own) {
            makers.note(group, maker);
            return Ok(());
        }
        let (shard, most) = (self.options.shard, limits::GROUPS_MAX);
        let message = format!(
            "group {group} is not made for clients at {maker}: they have made {own} since shard {shard} was started, and it keeps \
             the offsets of {used} groups, of {most}: the rest is for others; delete groups that nobody uses"
        );
        Err(Failure::new(Status::LimitReached, message))
    }

    /// Stores what readers commit, until the shard stops.
    pub async fn run_reader_commits(&self) {
        let commits = &self.reader_commits;
        loop {
            while !commits.is_begun.get() {
                if self.writer.is_stopped() {
                    return;
                }
                commits.work.changed().await;
            }
            let hurried = async {
                while !commits.is_hurried.get() && !self.writer.is_stopped() {
                    commits.work.changed().await;
                }
            };
            futures_lite::future::or(hurried, self.clock.sleep(GATHERED_FOR)).await;
            commits.is_hurried.set(false);
            self.store_reader_commits().await;
        }
    }

    /// Has everything stored that readers have committed so far.
    pub async fn settle_reader_commits(&self) {
        while !self.reader_commits.is_idle() && !self.writer.is_stopped() {
            self.reader_commits.hurry();
            self.reader_commits.progress.changed().await;
        }
    }

    async fn store_reader_commits(&self) {
        let commits = &self.reader_commits;
        commits.placing.replace(commits.gathered.take());
        let round = commits.round.take();
        commits.is_begun.set(false);
        commits.progress.wake();
        let outcome = self.place_reader_commits().await;
        commits.placing.take();
        *round.outcome.borrow_mut() = Some(outcome);
        round.over.wake();
        commits.progress.wake();
    }

    async fn place_reader_commits(&self) -> Result<(), Failure> {
        let attempt = || -> Result<Option<Placement>, PlaceRefusal> {
            let changes = self.reader_changes();
            if changes.is_empty() {
                return Ok(None);
            }
            self.writer.try_changes(changes, Level::Durable).map(Some)
        };
        if let Some(placement) = self.writer.place(attempt).await? {
            self.writer.settled(Level::Durable, placement).await?;
        }
        Ok(())
    }

    /// What the round that is on its way changes now. Its queues may be gone since, and members may have come.
    fn reader_changes(&self) -> Vec<Change> {
        let placing = self.reader_commits.placing.borrow();
        let mut changes = Vec::with_capacity(placing.count);
        for (group, queues) in &placing.groups {
            if self.check_no_members(group).is_err() {
                continue;
            }
            for (key, offset) in queues {
                if self.queue(*key).is_ok() {
                    self.add_reader_change(group, *key, *offset, &mut changes);
                    self.passed.borrow_mut().remove(group, *key);
                }
            }
        }
        changes
    }

    /// Where the group has received in this queue as well, its leases go along: forward, what is left of them stays with the
    /// receivers. Back, they are forgotten, as the readers get those messages again; but a commit never goes back to between
    /// messages that receivers have not acknowledged, since those before it would be lost.
    fn add_reader_change(
        &self,
        group: &GroupName,
        key: QueueKey,
        offset: QueueOffset,
        changes: &mut Vec<Change>,
    ) {
        let leases = self.leases();
        let (group, committed) = (group.clone(), self.tables().committed(group, key));
        let lease = match leases.get(&group, key) {
            None => None,
            Some(pair) if offset > pair.next() => {
                Some(LeaseChange::Passed { group: group.clone(), key, next: offset })
            }
            Some(pair) if offset == pair.next() => None,
            Some(pair) if offset <= pair.floor() => {
                Some(LeaseChange::Reset { group: group.clone(), key, next: offset })
            }
            Some(_) => return,
        };
        if committed != Some(offset) {
            changes.push(Change::Offset { group, key, offset, origin: None, by_member: false });
        }
        changes.extend(lease.map(Change::Lease));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueNumber, TopicId};

    #[test]
    fn of_several_commits_for_a_queue_the_last_one_counts() {
        let commits = ReaderCommits::default();
        let group: GroupName = "g".parse().expect("a name");
        let key = |queue| QueueKey { topic: TopicId(1), queue: QueueNumber(queue) };
        let first = commits.take(&group, key(0), QueueOffset(5));
        let _ = commits.take(&group, key(0), QueueOffset(3));
        let _ = commits.take(&group, key(1), QueueOffset(9));
        assert_eq!((commits.get(&group, key(0)), commits.gathered.borrow().count), (Some(QueueOffset(3)), 2));
        commits.placing.replace(commits.gathered.take());
        commits.round.take();
        let next = commits.take(&group, key(0), QueueOffset(4));
        assert!(!Rc::ptr_eq(&first.round, &next.round));
        assert_eq!(commits.get(&group, key(0)), Some(QueueOffset(4)), "the newer one");
        assert_eq!(commits.get(&group, key(1)), Some(QueueOffset(9)), "on its way");
        commits.remove(&group, key(0));
        assert_eq!(commits.get(&group, key(0)), None);
        commits.remove_group(&group);
        assert!(commits.is_idle());
    }
}
