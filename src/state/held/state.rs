//! The held messages of a shard as the log makes them.

use std::time::Duration;

use super::change::HeldChange;
use super::delays::{Delays, TimerKey, bucket_of, bucket_start};
use super::halves::Halves;
use crate::index::IndexEntry;
use crate::state::record::Change;
use crate::state::shard_state::{Effect, Stage};
use crate::types::{LogPosition, QueueKey, QueueOffset, Timestamp};

/// In place of the due time, in the header of a half message.
pub const HALF_OFFSET: QueueOffset = QueueOffset(u64::MAX);

/// Timers and halves.
pub struct HeldState {
    pub delays: Delays,
    pub halves: Halves,
}

impl HeldState {
    pub fn new(checks_max: u32) -> Self {
        Self { delays: Delays::default(), halves: Halves::new(checks_max) }
    }

    /// A held batch was placed in the log.
    pub(in crate::state) fn placed(&mut self, base_offset: QueueOffset, position: LogPosition) {
        match timer_key(base_offset, position) {
            Some(timer) => self.delays.placed(timer),
            None => self.halves.placed(),
        }
    }

    /// A held batch is durable. Returns the hidden queue and the entry there; `None` for one that does not wait for a time,
    /// or was released.
    pub(in crate::state) fn stored(
        &mut self,
        batch: &IndexEntry,
        stage: Stage,
    ) -> Option<(QueueKey, IndexEntry)> {
        let Some(timer) = timer_key(batch.base_offset, batch.position) else {
            if stage == Stage::Durable {
                self.halves.stored_one();
            }
            return None;
        };
        self.delays.stored(timer, batch.batch_bytes);
        let bucket = bucket_of(timer.due);
        let entry = IndexEntry {
            base_offset: QueueOffset(batch.position.0),
            record_count: 1,
            tag_summary: (timer.due.0 - bucket_start(bucket.queue).0) as u32,
            ..*batch
        };
        (timer > self.delays.released()).then_some((bucket, entry))
    }

    /// Carries out a change: the part of [`State::apply`](crate::state::State::apply) that concerns held messages.
    pub(in crate::state) fn apply(&mut self, change: HeldChange, stage: Stage) -> Effect {
        let (placed, durable) = (stage.is_placed(), stage.is_durable());
        match change {
            HeldChange::Released { due, position } => {
                let timer = TimerKey { due, position };
                // A checkpoint repeats the cursor.
                let is_news = durable && timer > self.delays.released();
                if placed {
                    self.delays.releasing_to(timer);
                }
                if is_news {
                    self.delays.released_to(timer);
                    return Effect::Released(timer);
                }
            }
            HeldChange::HalfEnded(position) => {
                if placed {
                    self.halves.end(position);
                }
                if durable {
                    self.halves.remove(position);
                }
            }
            // Whoever looks knows it from the moment that it is placed, and a replay has only that.
            HeldChange::Recalled { due, position } => self.delays.recall(TimerKey { due, position }),
            // Everything below changes when it is durable.
            _ if !durable => {}
            HeldChange::Moved { bucket, position } => return Effect::Moved { bucket, position },
            HeldChange::HalfStored(half) => {
                self.halves.store(half);
                return Effect::HalfStored;
            }
            HeldChange::HalfChecked { half, checks, checked, next_check } => {
                if self.halves.handed_out(half, checks, checked, next_check) {
                    return Effect::HalfUsedUp;
                }
            }
            HeldChange::HalfMoved { half, current } => self.halves.move_to(half, current),
        }
        Effect::None
    }

    /// Asserts the invariants of both.
    pub(in crate::state) fn check(&self) {
        self.delays.check();
        self.halves.check();
    }

    /// The latest moment of the shard's steady time that is stored with something held.
    pub fn newest_moment(&self, check_interval: Duration) -> Option<Timestamp> {
        self.halves.newest_moment(check_interval)
    }

    /// Everything, as changes that build this state together with the index.
    pub fn as_changes(&self) -> impl Iterator<Item = Change> + '_ {
        let halves = self.halves.stored().cloned().map(HeldChange::HalfStored);
        self.cursor().into_iter().chain(self.recalled()).chain(halves.map(Change::Held))
    }

    /// The delayed messages that were taken back.
    pub fn recalled(&self) -> impl Iterator<Item = Change> + '_ {
        let change =
            |timer: TimerKey| Change::Held(HeldChange::Recalled { due: timer.due, position: timer.position });
        self.delays.recalled().map(change)
    }

    /// The cursor, once it has moved.
    pub fn cursor(&self) -> Option<Change> {
        let TimerKey { due, position } = self.delays.released();
        let released = HeldChange::Released { due, position };
        (self.delays.released() > TimerKey::default()).then_some(Change::Held(released))
    }
}

/// Where a delayed batch stands in the order of release; `None` for a half.
fn timer_key(base_offset: QueueOffset, position: LogPosition) -> Option<TimerKey> {
    let due = Timestamp(base_offset.0);
    (base_offset != HALF_OFFSET).then_some(TimerKey { due, position })
}
