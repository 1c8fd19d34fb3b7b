//! Locks: a client that consumes in order has a queue to itself, until it gives it up, leaves its group, or has not said for a
//! while that it still wants it (`broker/.../client/rebalance/RebalanceLockManager.java`).
//!
//! 1. Who has a queue stands in the log, so a restart takes it from nobody. Until when is memory: a renewal is not stored, and
//!    after a start everybody has a whole lease again.
//! 2. A queue is given only to a client of the group that is there, and not while somebody receives what it was given of it. Who
//!    has one keeps it without being asked: after a restart its lock may be here before its heartbeat.
//! 3. A client is told that it has a queue once that is durable, or not at all: it asks again.
//! 4. Whoever was refused a queue is told to look again when one of its group's is given up. RocketMQ's clients ask again by
//!    themselves, after 20 seconds.
//! 5. `terms` has an entry for every queue that was given or renewed in this run; what is in it and in no lock is old, and goes
//!    with the next look at what is overdue.
//! 6. The clients of one address have a share of what a shard gives. A queue counts for where it was asked for last; after a start
//!    that is not known of anything until it is renewed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use crate::api::{Failure, LeftGroups, Status};
use crate::broker::shard_broker::Broker;
use crate::broker::shares::SharedTable;
use crate::broker::writer::PlaceRefusal;
use crate::disk::Disk;
use crate::limits;
use crate::log::Placement;
use crate::state::{Change, LockChange};
use crate::types::{GroupName, Level, MonotonicTime, QueueKey};

/// Clients for Java wait for a second, and then close their connection.
const ANSWER_WITHIN: Duration = Duration::from_millis(700);

/// What is in memory of the locks of a shard.
#[derive(Default)]
pub(in crate::broker) struct ReaderLocks {
    terms: RefCell<Terms>,
    /// Clients that were refused a queue which somebody else has.
    refused: RefCell<BTreeMap<GroupName, BTreeSet<String>>>,
    /// Somebody gives up what is overdue.
    is_ending: Cell<bool>,
}

/// For how long somebody has which queue.
#[derive(Default)]
struct Terms {
    groups: BTreeMap<GroupName, BTreeMap<QueueKey, Term>>,
    /// How many there are for each place of the network.
    counts: HashMap<IpAddr, usize>,
}

/// For how long somebody has a queue.
#[derive(Clone, Copy)]
struct Term {
    end: MonotonicTime,
    /// The place of the network from which it was asked for last.
    network: IpAddr,
    /// Where that it has it was stored, until that is known to be durable.
    placement: Option<Placement>,
}

impl Terms {
    fn set(&mut self, group: &GroupName, key: QueueKey, term: Term) {
        let queues = match self.groups.get_mut(group) {
            Some(queues) => queues,
            None => self.groups.entry(group.clone()).or_default(),
        };
        *self.counts.entry(term.network).or_default() += 1;
        if let Some(before) = queues.insert(key, term) {
            uncount(&mut self.counts, before.network);
        }
    }

    fn retain(&mut self, is_kept: impl Fn(&GroupName, QueueKey) -> bool) {
        let Self { groups, counts } = self;
        groups.retain(|group, queues| {
            queues.retain(|key, term| {
                let is_kept = is_kept(group, *key);
                if !is_kept {
                    uncount(counts, term.network);
                }
                is_kept
            });
            !queues.is_empty()
        });
    }

    fn remove(&mut self, group: &GroupName, key: QueueKey) {
        let Some(queues) = self.groups.get_mut(group) else { return };
        if let Some(term) = queues.remove(&key) {
            uncount(&mut self.counts, term.network);
        }
        if queues.is_empty() {
            self.groups.remove(group);
        }
    }
}

fn uncount(counts: &mut HashMap<IpAddr, usize>, network: IpAddr) {
    let count = counts.get_mut(&network).expect("whoever has a term is counted");
    *count -= 1;
    if *count == 0 {
        counts.remove(&network);
    }
}

impl ReaderLocks {
    fn term(&self, group: &GroupName, key: QueueKey) -> Option<Term> {
        self.terms.borrow().groups.get(group)?.get(&key).copied()
    }

    fn set(&self, group: &GroupName, key: QueueKey, term: Term) {
        self.terms.borrow_mut().set(group, key, term);
    }

    /// How many queues were asked for last from a place of the network.
    fn count(&self, network: IpAddr) -> usize {
        self.terms.borrow().counts.get(&network).copied().unwrap_or(0)
    }

    fn note_refused(&self, group: &GroupName, client: &str) {
        self.refused.borrow_mut().entry(group.clone()).or_default().insert(client.to_owned());
    }

    /// Keeps the terms of which `is_locked` says that somebody has the queue, and those who were refused of groups that
    /// `is_there`.
    fn sweep(&self, is_locked: impl Fn(&GroupName, QueueKey) -> bool, is_there: impl Fn(&GroupName) -> bool) {
        self.terms.borrow_mut().retain(is_locked);
        self.refused.borrow_mut().retain(|group, _| is_there(group));
    }
}

impl<D: Disk> Broker<D> {
    /// Gives a client of a group, which asks from a place of the network, queues of this shard to itself, or again. Returns those
    /// that it has, after 700 ms at the latest; what it does not have then it may ask for again.
    pub async fn lock_queues(
        &self,
        group: &GroupName,
        client: &str,
        keys: &BTreeSet<QueueKey>,
        network: IpAddr,
    ) -> Result<BTreeSet<QueueKey>, Failure> {
        self.check_no_members(group)?;
        let deadline = self.clock.monotonic().after(ANSWER_WITHIN);
        let mut unsettled = BTreeMap::new();
        let mut others = Vec::new();
        let mut without_room = 0;
        for key in keys.iter().copied() {
            match self.locks().holder(group, key) {
                Some(holder) if holder == client => {
                    unsettled.extend([(key, self.renew_lock(group, key, network))]);
                }
                _ => others.push(key),
            }
        }
        for some in others.chunks(limits::QUEUE_LOCKS_PLACED_MAX) {
            let left = deadline.since(self.clock.monotonic());
            let taking =
                self.writer.place_within(left, || self.try_lock_queues(group, client, some, network));
            match taking.await {
                Ok((taken, left_out)) => {
                    unsettled.extend(taken.into_iter().map(|(key, at)| (key, Some(at))));
                    without_room += left_out;
                }
                // There is no room for it now: it is not given.
                Err(_) => break,
            }
        }
        if without_room > 0 {
            self.note_locks_refused(group, client, network, without_room);
        }
        if unsettled.len() < keys.len() && self.readers.borrow().has_client(group, client) {
            self.reader_locks.note_refused(group, client);
        }
        Ok(self.settled_locks(group, unsettled, deadline).await)
    }

    /// Those that are durable by `deadline`.
    async fn settled_locks(
        &self,
        group: &GroupName,
        unsettled: BTreeMap<QueueKey, Option<Placement>>,
        deadline: MonotonicTime,
    ) -> BTreeSet<QueueKey> {
        let last = unsettled.values().flatten().max_by_key(|placement| placement.end).copied();
        if let Some(placement) = last {
            let left = deadline.since(self.clock.monotonic());
            let settled = async { drop(self.writer.settled(Level::Durable, placement).await) };
            futures_lite::future::or(settled, self.clock.sleep(left)).await;
        }
        let is_durable = |placement: &Option<Placement>| {
            placement.is_none_or(|at| matches!(self.writer.outcome(Level::Durable, at), Some(Ok(_))))
        };
        let settled = unsettled.iter().filter(|(_, placement)| is_durable(placement)).map(|(key, _)| *key);
        let settled: BTreeSet<_> = settled.collect();
        for key in &settled {
            if let Some(term) = self.reader_locks.term(group, *key) {
                self.reader_locks.set(group, *key, Term { placement: None, ..term });
            }
        }
        settled
    }

    /// Who has the queue has it for a whole lease again. Returns where it was given, if that may not be durable yet.
    fn renew_lock(&self, group: &GroupName, key: QueueKey, network: IpAddr) -> Option<Placement> {
        let placement = self.reader_locks.term(group, key).and_then(|term| term.placement);
        self.reader_locks.set(group, key, Term { end: self.lock_end(), network, placement });
        placement
    }

    fn lock_end(&self) -> MonotonicTime {
        self.clock.monotonic().after(self.options.lock_lease)
    }

    /// Gives the client those of the queues that it may have now, as far as there is room for them. Returns how many there
    /// was no room for as well.
    fn try_lock_queues(
        &self,
        group: &GroupName,
        client: &str,
        keys: &[QueueKey],
        network: IpAddr,
    ) -> Result<(Vec<(QueueKey, Placement)>, usize), PlaceRefusal> {
        self.check_no_members(group)?;
        if !self.readers.borrow().has_client(group, client) {
            return Ok((Vec::new(), 0));
        }
        let mut free: Vec<_> = keys.iter().copied().filter(|key| self.may_be_locked(group, *key)).collect();
        let room = self.locks_room(network, free.len());
        let left_out = free.len() - room;
        free.truncate(room);
        if free.is_empty() {
            return Ok((Vec::new(), left_out));
        }
        let lock = |key| LockChange { group: group.clone(), key, client: Some(client.to_owned()) };
        let changes: Vec<_> = free.iter().map(|key| Change::Lock(lock(*key))).collect();
        let placement = self.writer.try_changes(changes, Level::Durable)?;
        let term = Term { end: self.lock_end(), network, placement: Some(placement) };
        free.iter().for_each(|key| self.reader_locks.set(group, *key, term));
        Ok((free.into_iter().map(|key| (key, placement)).collect(), left_out))
    }

    /// Of `count` further queues, how many may be given to clients at a place of the network. Others need some as well.
    fn locks_room(&self, network: IpAddr, count: usize) -> usize {
        let (own, used) = (self.reader_locks.count(network), self.locks().count());
        let table = |more| SharedTable { entries_max: limits::SHARD_QUEUE_LOCKS_MAX, used: used + more };
        (0..count).find(|more| !table(*more).takes(own + more)).unwrap_or(count)
    }

    /// Nothing tells the client why it does not have them: the operator is told.
    fn note_locks_refused(&self, group: &GroupName, client: &str, network: IpAddr, count: usize) {
        self.metrics.queue_locks_refused.add(count as u64);
        let (own, used) = (self.reader_locks.count(network), self.locks().count());
        let (shard, most) = (self.options.shard, limits::SHARD_QUEUE_LOCKS_MAX);
        let message = format!(
            "client {client:?} of group {group} does not get {count} queues that it asked to have to itself: shard {shard} has \
             given {used}, of {most}, {own} of them to clients at {network}, and the rest is for others: stop consumers in order that \
             nobody needs, or run some at other addresses"
        );
        self.note_refusal(&Failure::new(Status::LimitReached, message));
    }

    /// Whether nobody has the queue, nor messages of it.
    fn may_be_locked(&self, group: &GroupName, key: QueueKey) -> bool {
        let leases = self.leases();
        let is_received = leases.get(group, key).is_some_and(|pair| pair.has_running(self.steady.now()));
        self.queue(key).is_ok() && !is_received && !self.is_locked(group, key)
    }

    /// Whether a client of a group has the queue to itself.
    pub(in crate::broker) fn is_locked(&self, group: &GroupName, key: QueueKey) -> bool {
        if self.locks().holder(group, key).is_none() {
            return false;
        }
        let end = self.reader_locks.term(group, key).map(|term| term.end);
        let end = end.unwrap_or_else(|| self.steady.begin().after(self.options.lock_lease));
        self.clock.monotonic() < end
    }

    /// A client gives queues of this shard up.
    pub async fn unlock_queues(&self, group: &GroupName, client: &str, keys: &BTreeSet<QueueKey>) {
        let of_client = || {
            let locks = self.locks();
            keys.iter().copied().filter(|key| locks.holder(group, *key) == Some(client)).collect()
        };
        self.give_up_locks(group, of_client).await;
    }

    /// A client has left groups for good: it gives up what it has.
    pub(in crate::broker) async fn give_up_locks_of(&self, left: &LeftGroups, client: &str) {
        let Some(group) = &left.reads else { return };
        let of_client = || {
            let locks = self.locks();
            locks.of_group(group).filter(|(_, holder)| *holder == client).map(|(key, _)| key).collect()
        };
        self.give_up_locks(group, of_client).await;
    }

    /// What nobody has said for a lease that it still wants is given up, so that the next one has it. To be called about once a
    /// second.
    pub async fn end_locks(&self) {
        if self.reader_locks.is_ending.replace(true) {
            return;
        }
        let groups: Vec<_> = self.locks().groups().cloned().collect();
        for group in &groups {
            let overdue = || {
                let locks = self.locks();
                let of_group = locks.of_group(group).map(|(key, _)| key);
                of_group.filter(|key| !self.is_locked(group, *key)).collect()
            };
            self.give_up_locks(group, overdue).await;
        }
        let (locks, readers) = (self.locks(), self.readers.borrow());
        let is_locked = |group: &GroupName, key| locks.holder(group, key).is_some();
        self.reader_locks.sweep(is_locked, |group| readers.has_group(group));
        self.reader_locks.is_ending.set(false);
    }

    /// Whether [`end_locks`](Broker::end_locks) may have something to do.
    pub fn has_locks(&self) -> bool {
        let locks = &self.reader_locks;
        self.locks().count() > 0
            || !locks.refused.borrow().is_empty()
            || !locks.terms.borrow().groups.is_empty()
    }

    /// Gives up what `chosen` names in the moment of placing. A crash may bring it back, for one lease at most, so nobody waits
    /// for the flush; and when it cannot be stored, the lease ends it.
    async fn give_up_locks(&self, group: &GroupName, chosen: impl Fn() -> Vec<QueueKey>) {
        let mut given_up = BTreeSet::new();
        loop {
            let giving = self.writer.place_within(ANSWER_WITHIN, || {
                let mut keys = chosen();
                keys.truncate(limits::QUEUE_LOCKS_PLACED_MAX);
                let unlock = |key: &QueueKey| LockChange { group: group.clone(), key: *key, client: None };
                let changes: Vec<_> = keys.iter().map(unlock).map(Change::Lock).collect();
                if !changes.is_empty() {
                    self.writer.try_changes(changes, Level::Durable)?;
                    let mut terms = self.reader_locks.terms.borrow_mut();
                    keys.iter().for_each(|key| terms.remove(group, *key));
                }
                Ok(keys)
            });
            match giving.await {
                Ok(keys) if !keys.is_empty() => given_up.extend(keys.into_iter().map(|key| key.topic)),
                _ => break,
            }
        }
        if given_up.is_empty() {
            return;
        }
        // Those who receive may have them, and those who were refused.
        given_up.into_iter().for_each(|topic| self.announce(topic));
        let refused = self.reader_locks.refused.borrow_mut().remove(group).unwrap_or_default();
        if let Some(notice) = self.members_notice() {
            let is_there = |client: &&String| self.readers.borrow().has_client(group, client);
            refused.iter().filter(is_there).for_each(|client| notice(client, group));
        }
    }

    /// The queues of this shard that clients of a group have to themselves.
    pub(in crate::broker) fn own_locks(&self, group: &GroupName) -> Vec<(QueueKey, String)> {
        let locks = self.locks();
        let of_group = locks.of_group(group).filter(|(key, _)| self.is_locked(group, *key));
        of_group.map(|(key, client)| (key, client.to_owned())).collect()
    }
}
