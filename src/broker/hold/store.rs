//! Taking messages that are held.

use std::time::Duration;

use crate::api::{DELAY_BOUNDS, Failure, Held, Hold, Release, Reply, Status};
use crate::broker::client_requests::unexpected;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::shard_broker::Broker;
use crate::broker::shares::SharedTable;
use crate::broker::writer::{Destination, PlaceRefusal};
use crate::disk::Disk;
use crate::limits;
use crate::log::Placement;
use crate::metrics::{LogMark, note_span};
use crate::state::Change;
use crate::state::HALF_AGE_MAX;
use crate::state::HALF_OFFSET;
use crate::state::{Half, HeldChange, NO_CHECKS};
use crate::types::{GroupName, HalfReceipt, Level, QueueKey, QueueOffset, Timestamp};
use crate::wire::batch::OwnedBatch;

/// A message that was placed.
struct Taken {
    placement: Placement,
    /// To be reached before it is answered.
    level: Level,
    /// Where it is in its queue, when it was due already.
    offset: Option<QueueOffset>,
    /// When it is released, where that is not when it was to be.
    due: Option<Timestamp>,
}

/// A message that is held, and waits for its level.
#[must_use]
pub struct PendingHold {
    key: QueueKey,
    due: Option<Timestamp>,
    taken: Taken,
}

/// A delayed message that is due before the last one that was released is released this much late at most.
const LATE_MS_MAX: u64 = 1_000;

/// What a half message waits for.
struct Waiting {
    first_check: Timestamp,
    checks: u32,
    producer_group: Option<GroupName>,
}

impl PendingHold {
    /// What it waits for in the log.
    pub fn mark(&self) -> LogMark {
        LogMark { end: self.taken.placement.end, level: self.taken.level }
    }

    fn held(&self, level: Level) -> Held {
        let Self { key, due, taken: Taken { placement, offset, .. } } = self;
        let Placement { position, store_time, .. } = *placement;
        let receipt = HalfReceipt { key: *key, position };
        Held { receipt, position, store_time, level, due: *due, offset: *offset }
    }
}

impl<D: Disk> Broker<D> {
    /// Stores a message out of sight, on whichever shard its queue is.
    pub async fn hold_checked(&self, hold: Hold<OwnedBatch>) -> Result<Held, Failure> {
        let owner = hold.key.queue.shard(self.options.shard_count);
        if owner == self.options.shard {
            return self.hold_here(&hold).await;
        }
        match self.forward(owner, PeerRequest::Hold(hold)).await? {
            Reply::Held(held) => Ok(held),
            other => Err(unexpected(&PeerReply::Client(other))),
        }
    }

    /// Stores a message for a queue of this shard out of sight.
    pub(in crate::broker) async fn hold_here(&self, hold: &Hold<OwnedBatch>) -> Result<Held, Failure> {
        let due = self.due_of(&hold.release);
        let pending = self.writer.place(|| self.hold(hold, due)).await?;
        let level = self.writer.settled(pending.taken.level, pending.taken.placement).await?;
        Ok(pending.held(level))
    }

    /// When a message is to be released that has come now.
    fn due_of(&self, release: &Release) -> Option<Timestamp> {
        match release {
            Release::At(due) => Some(*due),
            Release::After(delay) => {
                let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                Some(Timestamp(self.clock.now().0.saturating_add(milliseconds)))
            }
            Release::Commit { .. } => None,
        }
    }

    /// Places a message for a queue of this shard out of sight. Nothing waits here; the answer is due when
    /// [`hold_outcome`](Broker::hold_outcome) says so.
    pub fn hold_now(&self, hold: &Hold<OwnedBatch>) -> Result<PendingHold, PlaceRefusal> {
        self.hold(hold, self.due_of(&hold.release))
    }

    fn hold(&self, hold: &Hold<OwnedBatch>, due: Option<Timestamp>) -> Result<PendingHold, PlaceRefusal> {
        let record_count = hold.batch.view().record_count();
        if record_count != 1 {
            let message = format!("a held batch has one message, not {record_count}");
            return Err(Failure::invalid(message).into());
        }
        let taken = match (&hold.release, due) {
            (Release::Commit { producer_group, immunity }, _) => {
                self.hold_half(hold, producer_group.clone(), *immunity)
            }
            (_, due) => self.hold_until(hold, due.expect("it has a time")),
        };
        if let Err(PlaceRefusal::Failed(failure)) = &taken
            && failure.status == Status::LimitReached
        {
            self.note_refusal(failure);
        }
        let taken = taken?;
        Ok(PendingHold { key: hold.key, due: taken.due.or(due), taken })
    }

    /// What is to be answered for a held message; `None` while its level is not reached.
    pub fn hold_outcome(&self, pending: &PendingHold) -> Option<Result<Held, Failure>> {
        let outcome = self.writer.outcome(pending.taken.level, pending.taken.placement)?;
        Some(outcome.map(|level| pending.held(level)))
    }

    /// Places a delayed message, or one whose time has come as any other.
    fn hold_until(&self, hold: &Hold<OwnedBatch>, due: Timestamp) -> Result<Taken, PlaceRefusal> {
        let now = self.clock.now();
        if due.0 > now.0.saturating_add(limits::DELAY_MS_MAX) {
            let days = limits::DELAY_MS_MAX / (24 * 3_600_000);
            let message = format!("a message is delayed by {days} days at most");
            return Err(Failure::invalid(message).into());
        }
        if due <= now {
            let pending = self.produce(hold.key, hold.level, &hold.batch.view())?;
            let (placement, level) = (pending.placement, pending.level);
            return Ok(Taken { placement, level, offset: Some(pending.base_offset), due: None });
        }
        // The cursor has passed this time, so the message would never be found there: the clock was set back since. By a
        // little, as clocks are all the time, or so much that the message has to wait elsewhere.
        let cursor = self.held().delays.releasing().due;
        if cursor.0.saturating_sub(due.0) > LATE_MS_MAX {
            return self.hold_aside(hold, due);
        }
        let due = due.max(cursor);
        self.check_takes(hold.key)?;
        let level = hold.level.unwrap_or_else(|| self.level_of(hold.key));
        let to = Destination::Held { key: hold.key, offset: QueueOffset(due.0) };
        let placed = self.writer.try_batch(to, &hold.batch.view().into_held(), level)?;
        self.metrics.messages_held.add(1);
        let wait = Duration::from_millis(due.0.saturating_sub(now.0));
        let mut tallies = self.metrics.tallies.borrow_mut();
        let tally = tallies.held(hold.key.topic);
        tally.delayed += 1;
        note_span(&mut tally.delays, wait, &DELAY_BOUNDS);
        Ok(Taken { placement: placed.placement, level, offset: None, due: Some(due) })
    }

    /// Places a half message with its entry of the table. It is always durable when answered: a decision may follow at
    /// once, and finds it in the table only then.
    fn hold_half(
        &self,
        hold: &Hold<OwnedBatch>,
        producer_group: Option<GroupName>,
        immunity: Duration,
    ) -> Result<Taken, PlaceRefusal> {
        // The longer of the two, as RocketMQ has it.
        let immunity = immunity.max(self.live.get().transaction_immunity).min(HALF_AGE_MAX);
        let first_check = self.steady.end_of(immunity);
        self.place_half(hold, Waiting { first_check, checks: 0, producer_group })
    }

    /// Places a delayed message whose time lies before that of messages which were released already.
    fn hold_aside(&self, hold: &Hold<OwnedBatch>, due: Timestamp) -> Result<Taken, PlaceRefusal> {
        let first_check = self.steady.at_wall(due);
        self.place_half(hold, Waiting { first_check, checks: NO_CHECKS, producer_group: None })
    }

    fn place_half(&self, hold: &Hold<OwnedBatch>, waiting: Waiting) -> Result<Taken, PlaceRefusal> {
        self.check_takes(hold.key)?;
        let Waiting { first_check, checks, producer_group } = waiting;
        self.check_halves_limit(hold.key, producer_group.as_ref())?;
        let store_time = self.steady.now();
        let batch = hold.batch.view().into_held();
        let change = |placement: Placement| {
            Change::Held(HeldChange::HalfStored(Half {
                key: hold.key,
                position: placement.position,
                current: placement.position,
                batch_bytes: batch.batch_bytes() as u32,
                store_time,
                first_check,
                next_check: first_check,
                checks,
                producer_group,
            }))
        };
        let to = Destination::Held { key: hold.key, offset: HALF_OFFSET };
        let step = self.writer.try_step(to, &batch, Level::Durable, change)?;
        let placement = Placement { end: step.change.end, ..step.batch };
        self.metrics.messages_held.add(1);
        Ok(Taken { placement, level: Level::Durable, offset: None, due: None })
    }

    /// Whether one more half is kept for a producer group. Others need some as well.
    fn check_halves_limit(&self, key: QueueKey, group: Option<&GroupName>) -> Result<(), Failure> {
        let held = self.held();
        let entries_max = limits::SHARD_HALVES_MAX;
        let (own, used) = (held.halves.count_of(key.topic, group), held.halves.count());
        if (SharedTable { entries_max, used }).takes(own) {
            return Ok(());
        }
        let whose = group.map_or_else(|| "nobody in particular".to_owned(), |group| format!("group {group}"));
        let message = format!(
            "shard {} keeps {used} undecided messages of {entries_max}, {own} of them in this topic for {whose}, which \
             is its share: decide on some first",
            self.options.shard
        );
        Err(Failure::new(Status::LimitReached, message))
    }

    /// Whether a queue takes messages now.
    fn check_takes(&self, key: QueueKey) -> Result<(), PlaceRefusal> {
        self.check_not_shutting_down()?;
        self.queue(key)?;
        self.writer.check_index()
    }

    /// Held messages in numbers, for `status`.
    pub(in crate::broker) fn held_counters(&self) -> [(String, u64); 3] {
        let held = self.held();
        [
            ("halves".to_owned(), held.halves.count() as u64),
            ("delays_loaded".to_owned(), held.delays.loaded_count() as u64),
            ("recalls".to_owned(), held.delays.recalled_count() as u64),
        ]
    }
}
