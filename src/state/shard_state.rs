//! The state of a shard, and the one place where a change of it is carried out.
//!
//! A change has two stages. It is *placed* when its record stands in the log: what is placed after it counts on it, though a
//! death may take both. It is *durable* when a death takes neither. Leases, locks, redrives, and what timers and
//! transactions have begun, change with the first, everything else with the second. A replay is both at once, so that a log leads to the same state
//! whether it was written, read back or followed: every change is absolute, and carried out twice it is as carried out once.
//!
//! What stands beside the state, queues and index, follows it: each change returns what it asks of them ([`Effect`]).
//!
//! Invariants:
//!
//! 1. Offsets, leases, locks and redrives are of topics that are there. What is said of others was on its way when they were removed.
//! 2. Nothing here reads a clock: two logs with the same records lead to the same state.
//! 3. Queues and index follow what is durable: what is only placed has no effect on them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::held::{HeldState, Loading, TimerKey};
use super::leases::{LeaseChange, Leases};
use super::locks::Locks;
use super::record::Change;
use super::redrives::{RedriveChange, Redrives};
use super::tables::{CommittedOffset, Tables};
use crate::index::IndexEntry;
use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, RunningTime, Timestamp, TopicId};

/// How far the record of a change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It stands in the log. Told once, by the writer, before anything else is placed or waited for.
    Placed,
    /// It is durable. Told for every record, in log order; all of them were placed before.
    Durable,
    /// It was read back: both at once.
    Replayed,
}

/// What a change asks of the queues and the index of the shard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    None,
    /// The topic is there, maybe with more queues than before.
    TopicPut(TopicId),
    TopicRemoved(TopicId),
    /// There are no other topics than these.
    OnlyTopics(BTreeSet<TopicId>),
    /// Offsets below this one were given out.
    QueueEnd {
        key: QueueKey,
        offset: QueueOffset,
    },
    /// The queue begins here: nothing before it is there any more.
    Purged {
        key: QueueKey,
        offset: QueueOffset,
    },
    /// The delayed messages up to this one have entered their queues, as of now.
    Released(TimerKey),
    /// What the hidden queue `bucket` has up to this position is not pending there any more.
    Moved {
        bucket: QueueNumber,
        position: LogPosition,
    },
    /// A half message may be due earlier than whoever waits for one knows.
    HalfStored,
    /// Nobody is asked about a half message any more: it is given up at the time at which somebody would have been.
    HalfUsedUp,
}

/// What the log makes of a shard.
pub struct State {
    tables: Tables,
    leases: Leases,
    locks: Locks,
    redrives: Redrives,
    held: HeldState,
    /// Counts what takes leases back, in memory only.
    lease_resets: u64,
}

impl Stage {
    pub fn is_placed(self) -> bool {
        matches!(self, Stage::Placed | Stage::Replayed)
    }

    pub fn is_durable(self) -> bool {
        matches!(self, Stage::Durable | Stage::Replayed)
    }
}

impl State {
    /// Nothing yet. A half message is given up after `checks_max` checks.
    pub fn new(checks_max: u32) -> Self {
        Self {
            tables: Tables::default(),
            leases: Leases::default(),
            locks: Locks::default(),
            redrives: Redrives::default(),
            held: HeldState::new(checks_max),
            lease_resets: 0,
        }
    }

    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    pub fn redrives(&self) -> &Redrives {
        &self.redrives
    }

    pub fn held(&self) -> &HeldState {
        &self.held
    }

    /// The latest moment of steady time that stands here, when producers are asked at this interval.
    pub fn newest_moment(&self, check_interval: Duration) -> Option<Timestamp> {
        self.leases.newest_lease().max(self.held.newest_moment(check_interval))
    }

    /// Grows with every change that takes leases of a group back: what was chosen before one is not leased after it.
    pub fn lease_resets(&self) -> u64 {
        self.lease_resets
    }

    /// Carries out a change whose record is at `position` of the log.
    pub fn apply(&mut self, change: Change, position: LogPosition, stage: Stage) -> Effect {
        let (placed, durable) = (stage.is_placed(), stage.is_durable());
        match change {
            Change::Lease(change) => {
                if placed && matches!(change, LeaseChange::Reset { .. }) {
                    self.lease_resets += 1;
                }
                if placed && self.tables.topic(change.key().topic).is_some() {
                    self.leases.apply(&change);
                }
            }
            Change::Lock(change) => {
                if placed && self.tables.topic(change.key.topic).is_some() {
                    self.locks.apply(change);
                }
            }
            Change::GroupRemoved { group, settings } => {
                if placed {
                    self.leases.remove_group(&group);
                    self.locks.remove_group(&group);
                    self.lease_resets += 1;
                }
                if durable {
                    self.tables.remove_group(&group, settings);
                }
            }
            Change::Held(change) => return self.held.apply(change, stage),
            Change::Redrive(change) if placed => self.apply_redrive(change, position),
            // Everything below changes when it is durable.
            _ if !durable => {}
            Change::Topic(topic) => {
                let id = topic.id;
                if let Some(replaced) = self.tables.put_topic(topic) {
                    self.leases.remove_topic(replaced);
                    self.locks.retain_topics(|id| id != replaced);
                    self.redrives.retain_topics(|id| id != replaced);
                }
                return Effect::TopicPut(id);
            }
            Change::TopicRemoved(id) => {
                self.tables.remove_topic(id);
                self.leases.remove_topic(id);
                self.locks.retain_topics(|of| of != id);
                self.redrives.retain_topics(|of| of != id);
                return Effect::TopicRemoved(id);
            }
            Change::LiveTopics(live) => {
                if self.tables.keep_topics(&live) > 0 {
                    self.leases.retain_topics(|id| live.contains(&id));
                    self.locks.retain_topics(|id| live.contains(&id));
                    self.redrives.retain_topics(|id| live.contains(&id));
                }
                return Effect::OnlyTopics(live);
            }
            Change::QueueEnd { key, offset } => return Effect::QueueEnd { key, offset },
            Change::Purged { key, offset } => return Effect::Purged { key, offset },
            Change::Offset { group, key, offset, origin, by_member } => {
                let origin = origin.unwrap_or(position);
                self.tables.set_offset(group, key, CommittedOffset { offset, origin, by_member });
            }
            Change::NextTopicId(id) => self.tables.raise_next_topic_id(id),
            Change::Group(group) => self.tables.put_group(group),
            Change::Instances(instances) => self.tables.set_instances(instances),
            Change::RunningTime(time) => self.tables.note_running(time),
            Change::StoredBy { position, time } => self.tables.set_stored_by(position, time),
            Change::GroupUsed { group, time } => self.tables.set_used(group, time),
            // It was carried out when it was placed.
            Change::Redrive(_) => {}
        }
        Effect::None
    }

    fn apply_redrive(&mut self, change: RedriveChange, position: LogPosition) {
        if self.tables.topic(change.key().topic).is_some() {
            self.redrives.apply(change, position);
        }
    }

    /// Carries out a snapshot that was taken at `position`, over nothing. Releases before this one wrote the leases first,
    /// before their topics.
    pub fn load(&mut self, mut changes: Vec<Change>, position: LogPosition, mut effect: impl FnMut(Effect)) {
        changes.sort_by_key(|change| matches!(change, Change::Lease(_)));
        changes.into_iter().for_each(|change| effect(self.apply(change, position, Stage::Replayed)));
    }

    /// Everything, as changes that build this state from nothing, when the shard has run for `running`.
    pub fn as_changes(&self, running: RunningTime) -> impl Iterator<Item = Change> + '_ {
        let leases = self.leases.as_changes().into_iter().map(Change::Lease);
        let locks = self.locks.as_changes().map(Change::Lock);
        let redrives = self.redrives.as_changes().map(Change::Redrive);
        self.tables
            .as_changes(running)
            .chain(leases)
            .chain(locks)
            .chain(redrives)
            .chain(self.held.as_changes())
    }

    /// Asserts the invariants of the whole state, as they hold between any two changes of a log without damage.
    pub fn check(&self) {
        self.tables.check();
        self.leases.check();
        self.locks.check();
        self.redrives.check();
        self.held.check();
        let mut topics = self.leases.topics().chain(self.locks.topics()).chain(self.redrives.topics());
        let gone = topics.find(|id| self.tables.topic(*id).is_none());
        assert!(gone.is_none(), "invariant 1: there are leases, locks or redrives of topic {gone:?}");
    }

    /// Everything that the log makes, in an order that depends on nothing else: two states are the same when these bytes are.
    /// Left out are the running time, which a snapshot tells of its own moment, and what is in memory only: a half message
    /// that was handed out and has no record of it yet.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let encoded = |change: Change| {
            let mut bytes = Vec::new();
            change.encode(&mut bytes);
            bytes
        };
        let changes = self.as_changes(self.tables.running());
        let of_log = changes.filter(|change| !matches!(change, Change::RunningTime(_)));
        let mut encoded: Vec<_> = of_log.map(encoded).collect();
        encoded.sort_unstable();
        encoded.concat()
    }

    /// A held batch was placed in the log.
    pub fn held_placed(&mut self, base_offset: QueueOffset, position: LogPosition) {
        self.held.placed(base_offset, position);
    }

    /// A held batch is durable. Returns the hidden queue and the entry that the index gets for it, if it waits for a time.
    pub fn held_stored(&mut self, batch: &IndexEntry, stage: Stage) -> Option<(QueueKey, IndexEntry)> {
        self.held.stored(batch, stage)
    }

    /// A delayed message was placed again elsewhere, and that copy was told of.
    pub fn held_copied(&mut self, timer: TimerKey) {
        self.held.delays.forget(timer);
    }

    /// Takes what was read from the index for the keys from `from` on below `end`.
    pub fn load_delays(&mut self, from: TimerKey, end: TimerKey, found: Loading) {
        self.held.delays.load(from, end, found);
    }

    /// Hands a half message out: nobody else gets it before `next_check`, whatever becomes of the record that says so.
    pub fn hand_out(&mut self, half: LogPosition, next_check: Timestamp) {
        self.held.halves.schedule(half, next_check);
    }

    /// The log has lost what stood below `start`, and with it what was known of when it was stored.
    pub fn forget_stored_below(&mut self, start: LogPosition) {
        self.tables.forget_stored_below(start);
    }
}
