//! The timer task: releases delayed messages when their time has come, and gives up halves that nobody has decided on.

use std::rc::Rc;
use std::time::Duration;

use crate::api::{Failure, Status};
use crate::broker::queue::Queue;
use crate::broker::shard_broker::Broker;
use crate::broker::writer::{Destination, PlaceRefusal};
use crate::disk::Disk;
use crate::index::LookupMax;
use crate::log::Placement;
use crate::state::{Change, HeldChange};
use crate::state::{Loading, NextTimer, TimerKey, bucket_of, bucket_start, timer_key_of};
use crate::types::{Level, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};
use crate::wire::batch::{BatchHeader, CheckedBatch, Kind, placed_again};

/// Messages released in one go, and their bytes: others run in between.
const RELEASE_MESSAGES: usize = 256;
const RELEASE_BYTES: u64 = 2 * 1024 * 1024;
/// Entries of the index looked at at once.
pub(in crate::broker) const LOOKUP_ENTRIES: usize = 4096;
/// The pause between two steps goes through the reactor.
pub(in crate::broker) const STEP_PAUSE: Duration = Duration::from_micros(1);
/// The longest sleep: the wall clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// After a failure, a full disk for one.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl<D: Disk> Broker<D> {
    /// The timer task; ends after [`stop`](Broker::stop), or when the log has failed.
    pub async fn run_timers(self: &Rc<Self>) {
        while !self.writer.is_stopped() && !self.log.watermarks().has_failed() {
            match self.timer_step().await {
                Ok(NextTimer::Now) => self.clock.sleep(STEP_PAUSE).await,
                Ok(NextTimer::At(time)) => {
                    let wait = Duration::from_millis(time.0.saturating_sub(self.clock.now().0));
                    self.sleep_or_change(wait.min(SLEEP_MAX)).await;
                }
                Ok(NextTimer::Never) => self.held_changed.changed().await,
                // The reason is shown by `status`, or is the topic of the next try.
                Err(_) => self.clock.sleep(RETRY_PAUSE).await,
            }
        }
    }

    async fn sleep_or_change(&self, wait: Duration) {
        let wait = wait.max(STEP_PAUSE);
        futures_lite::future::or(self.held_changed.changed(), self.clock.sleep(wait)).await;
    }

    /// Does some of what is due, and says when to go on.
    async fn timer_step(self: &Rc<Self>) -> Result<NextTimer, Failure> {
        let now = self.clock.now();
        if self.held().delays.wants_loading(now) {
            self.load_delays().await?;
        }
        self.release_due(now).await?;
        let steady = self.steady.now();
        let expired = self.held().halves.next_expiry().filter(|(expiry, _)| *expiry <= steady);
        if let Some((_, half)) = expired {
            self.give_up(half).await?;
            return Ok(NextTimer::Now);
        }
        let held = self.held();
        let expiry = held.halves.next_expiry();
        let expiry =
            expiry.map_or(NextTimer::Never, |(expiry, _)| NextTimer::At(self.steady.on_the_wall(expiry)));
        Ok(match (held.delays.next_timer(self.clock.now()), expiry) {
            (NextTimer::At(one), NextTimer::At(other)) => NextTimer::At(one.min(other)),
            (NextTimer::Never, other) => other,
            (next, _) => next,
        })
    }

    /// Loads the next bucket, as far as memory takes it.
    async fn load_delays(&self) -> Result<(), Failure> {
        let _guard = self.held_lock.lock().await;
        let (mut loading, from) = {
            let held = self.held();
            (Loading::new(&held.delays), held.delays.loaded_end())
        };
        let first = from.due.max(self.held().delays.releasing().due);
        let Some(bucket) = self.index.next_queue(bucket_of(first)).filter(is_bucket) else {
            self.state.borrow_mut().load_delays(from, TimerKey::MAX, loading);
            return Ok(());
        };
        let mut offset = QueueOffset::ZERO;
        loop {
            let entries = self.entries(bucket, offset, lookup_max(LOOKUP_ENTRIES)).await?;
            let Some(last) = entries.last() else { break };
            offset = last.end_offset();
            for entry in &entries {
                loading.see(timer_key_of(bucket, entry.position, entry.tag_summary), entry.batch_bytes);
            }
            if entries.len() == LOOKUP_ENTRIES {
                self.clock.sleep(STEP_PAUSE).await;
            }
        }
        // An earlier bucket may have begun meanwhile: that one comes first.
        if self.index.next_queue(bucket_of(first)) != Some(bucket) {
            return Ok(());
        }
        // Nothing has run since the last look-up: what comes to this bucket from here on is seen as it comes.
        let end = TimerKey {
            due: bucket_start(QueueNumber(bucket.queue.0.saturating_add(1))),
            ..TimerKey::default()
        };
        self.state.borrow_mut().load_delays(from, end, loading);
        Ok(())
    }

    /// Releases some of the delayed messages whose time has come.
    async fn release_due(&self, now: Timestamp) -> Result<(), Failure> {
        let _guard = self.held_lock.lock().await;
        let due = self.held().delays.due(now, RELEASE_MESSAGES, RELEASE_BYTES);
        if due.is_empty() {
            return Ok(());
        }
        let wanted: Vec<_> = due.iter().map(|(timer, bytes)| (timer.position, *bytes)).collect();
        let found = self.batches_at(&wanted).await?;
        for ((timer, _), bytes) in due.into_iter().zip(found) {
            self.release(timer, bytes.as_deref()).await?;
        }
        Ok(())
    }

    /// Moves the cursor over one message, in one step with the message that enters its queue.
    async fn release(&self, timer: TimerKey, bytes: Option<&[u8]>) -> Result<(), Failure> {
        let released = HeldChange::Released { due: timer.due, position: timer.position };
        let message = bytes.and_then(|bytes| {
            let key = BatchHeader::decode(bytes).ok()?.key;
            Some((key, placed_again(bytes, Kind::Messages).ok()?))
        });
        let attempt = || {
            if self.held().delays.is_recalled(timer) {
                self.try_change_held(released.clone())?;
                return Ok(());
            }
            let queue_and_batch =
                message.as_ref().and_then(|(key, batch)| Some((self.queue(*key).ok()?, batch)));
            match queue_and_batch {
                Some((queue, batch)) => {
                    self.try_enter(&queue, batch, released.clone())?;
                    self.metrics.tallies.borrow_mut().held(queue.key.topic).released += 1;
                }
                // Its topic is gone, or its bytes are.
                None => {
                    self.try_change_held(released.clone())?;
                    self.metrics.held_dropped.add(1);
                }
            }
            self.metrics.held_released.add(1);
            Ok(())
        };
        self.writer.place(attempt).await
    }

    /// Places a change of what is held.
    pub(in crate::broker) fn try_change_held(&self, change: HeldChange) -> Result<Placement, PlaceRefusal> {
        self.writer.try_changes([Change::Held(change)], Level::Durable)
    }

    /// Places a message at the end of a queue, in one step with `change`. Returns the place of the change.
    pub(in crate::broker) fn try_enter(
        &self,
        queue: &Queue,
        batch: &CheckedBatch<'_>,
        change: HeldChange,
    ) -> Result<Placement, PlaceRefusal> {
        let to = Destination::Queue(queue);
        let step = self.writer.try_step(to, batch, Level::Durable, |_| Change::Held(change))?;
        Ok(step.change)
    }
}

/// Whether a queue of the index is a hidden one.
pub(in crate::broker) fn is_bucket(key: &QueueKey) -> bool {
    key.topic == TopicId::DELAYED
}

pub(in crate::broker) fn lookup_max(entries: usize) -> LookupMax {
    LookupMax { entries, bytes: u64::MAX, records: u64::MAX }
}

/// A half message that is not known, or not any more.
pub(in crate::broker) fn receipt_expired() -> Failure {
    Failure::new(
        Status::ReceiptExpired,
        "the message is not waiting for a decision: it was decided on or given up",
    )
}
