//! Work in the background of a shard: spilling the index, checkpoints, snapshots, retention. In small steps, and never
//! on the way of a message.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ages::ClockReading;
use super::index_renewal::Renewal;
use super::snapshot::{Owner, Snapshot};
use crate::api::{Activity, Failure};
use crate::broker::queue::Queue;
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::broker::writer::PlaceRefusal;
use crate::disk::{Disk, DiskErrorKind};
use crate::index::{IndexEntry, IndexError, TrimProgress};
use crate::limits;
use crate::log::Placement;
use crate::state::{Change, RedriveChange};
use crate::types::{GroupName, Level, LogPosition, MonotonicTime, QueueKey, QueueOffset};

/// A start replays at most about this much log, unless it was written within `SNAPSHOT_INTERVAL_MIN`.
const SNAPSHOT_BYTES: u64 = 64 * 1024 * 1024;
const SNAPSHOT_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// A quiet log gets its snapshot this long after it last changed.
const SNAPSHOT_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// A snapshot waits until this many times its own size was written to the log: however many queues there are, snapshots
/// cost the disk a few per cent.
const SNAPSHOT_SHARE: u64 = 20;
/// But a start replays no more than this, however large the tables are.
const REPLAY_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Queues written into a snapshot between two chances for others to run.
const SNAPSHOT_STEP_QUEUES: usize = 256;
const STEP_PAUSE: Duration = Duration::from_micros(100);
const RETENTION_INTERVAL: Duration = Duration::from_secs(1);
/// The task looks again after this much log, besides its timer.
const HOUSEKEEPING_BYTES: u64 = 4 * 1024 * 1024;
const TRIM_STEP_QUEUES: usize = 64;
/// A checkpoint is cut into batches of about this size.
const CHECKPOINT_BATCH_BYTES: usize = 256 * 1024;

/// A checkpoint that is complete.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct CheckpointDone {
    end: LogPosition,
    /// From its first byte to its last; others may have written in between.
    bytes: u64,
}

/// How far a checkpoint of the leases has come.
#[derive(Clone, Copy)]
struct LeaseCursor {
    pair: usize,
    from: QueueOffset,
}

/// When what was last done.
struct Clockwork<D: Disk> {
    snapshot_at: MonotonicTime,
    snapshot_bytes: u64,
    retention_at: MonotonicTime,
    /// The segment with the newest checkpoint at that time.
    retention_segment: Option<LogPosition>,
    /// An index that is being built anew.
    renewal: Option<Renewal<D>>,
    clocks: ClockReading,
    /// A queue that had a message in the oldest segment when that was looked up last.
    keeper: Option<QueueKey>,
}

impl<D: Disk> Broker<D> {
    /// The housekeeping task; ends after [`stop`](Broker::stop), with everything durable in a last snapshot.
    ///
    /// The log is stopped from here: whatever this task has placed in it must still be committed.
    pub async fn run_housekeeping(&self) {
        self.keep_house_until_stopped().await;
        self.log.stop();
    }

    async fn keep_house_until_stopped(&self) {
        let now = self.clock.monotonic();
        let mut clockwork = Clockwork {
            snapshot_at: now,
            snapshot_bytes: 0,
            retention_at: now,
            retention_segment: self.checkpoint_segment.get(),
            renewal: None,
            clocks: self.read_clocks(),
            keeper: None,
        };
        self.warn_of_store_times();
        // One timer over many rounds: making one costs more than most rounds.
        let mut tick = self.clock.sleep(RETENTION_INTERVAL);
        while !self.writer.is_stopped() {
            let published = async {
                self.published.changed().await;
                false
            };
            let ticked = async {
                (&mut tick).await;
                true
            };
            if clockwork.renewal.is_some() {
                // The next step is due at once.
                self.clock.sleep(STEP_PAUSE).await;
            } else if futures_lite::future::or(published, ticked).await {
                tick = self.clock.sleep(RETENTION_INTERVAL);
            }
            // What is due now is left to the last snapshot and to the next start.
            if self.writer.is_stopped() || self.log.watermarks().has_failed() {
                return;
            }
            match self.keep_house(&mut clockwork).await {
                Ok(()) => self.note_index_saved(),
                Err(error) => {
                    // The log goes on without; the next start builds the index anew if this one cannot be saved.
                    self.note_index_error(&error);
                    self.clock.sleep(RETENTION_INTERVAL).await;
                }
            }
        }
    }

    /// Lets the task look again once a fair amount of log has been published: per group would be too often.
    pub(in crate::broker) fn note_published(&self) {
        let end = self.log.watermarks().durable_end();
        if end >= self.housekeeping_at.get() || self.index.spill_needed() {
            self.housekeeping_at.set(end.advance(HOUSEKEEPING_BYTES));
            self.published.wake();
        }
    }

    /// Everything that is due. Retention goes on whatever cannot be saved: on a full disk it is what makes room.
    async fn keep_house(&self, clockwork: &mut Clockwork<D>) -> Result<(), IndexError> {
        let saved = self.save_what_is_due(clockwork).await;
        if self.index_health.is_distrusted() {
            // What retention would have to look up cannot be read.
            return saved;
        }
        let now = self.clock.monotonic();
        let is_time = now.since(clockwork.retention_at) >= RETENTION_INTERVAL;
        let segment = self.checkpoint_segment.get();
        if is_time {
            clockwork.retention_at = now;
            clockwork.clocks = self.watch_clock(clockwork.clocks);
            // A full disk or a failed log: the next round tries again.
            let _ = self.note_stored_by().await;
            self.age_topics().await?;
        }
        // The file of a segment that goes when one is begun is used again soon. Several at a time would leave more files
        // than are kept: they would be removed, and others made.
        if is_time || segment != clockwork.retention_segment {
            clockwork.retention_segment = segment;
            self.retain(&mut clockwork.keeper).await?;
        }
        saved
    }

    /// The index, the checkpoint and the snapshot, as far as they are due.
    async fn save_what_is_due(&self, clockwork: &mut Clockwork<D>) -> Result<(), IndexError> {
        self.heal_index(&mut clockwork.renewal).await?;
        if self.index.spill_needed() {
            self.index.spill().await?;
        }
        if self.checkpoint_is_due() {
            // A full disk or a failed log: the next round tries again.
            let _ = self.checkpoint().await;
        }
        if self.snapshot_is_due(clockwork) {
            clockwork.snapshot_bytes = self.take_snapshot().await?;
            clockwork.snapshot_at = self.clock.monotonic();
        }
        Ok(())
    }

    fn snapshot_is_due(&self, clockwork: &Clockwork<D>) -> bool {
        let unsaved = self.log.watermarks().durable_end().since(self.snapshot_position.get());
        let passed = self.clock.monotonic().since(clockwork.snapshot_at);
        let worth_it = (clockwork.snapshot_bytes * SNAPSHOT_SHARE).clamp(SNAPSHOT_BYTES, REPLAY_BYTES_MAX);
        (unsaved >= worth_it && passed >= SNAPSHOT_INTERVAL_MIN)
            || (unsaved > 0 && passed >= SNAPSHOT_INTERVAL_MAX)
    }

    /// Makes tables and index durable as of now, so that the next start replays only what comes after. Returns the
    /// snapshot's size in bytes.
    pub async fn take_snapshot(&self) -> Result<u64, IndexError> {
        let _underway = self.underway(Activity::Snapshot);
        self.index.spill().await?;
        // No await between these: they are one moment of the log.
        let position = self.log.watermarks().durable_end();
        let newest = self.log.newest();
        let placed_end = self.log.watermarks().appended_end();
        let mut tables = Vec::new();
        let ends = self.queue_ends(|queue| queue.durable_end.get());
        self.state
            .borrow()
            .as_changes(self.steady.running())
            .chain(ends)
            .for_each(|change| change.encode(&mut tables));
        let mut begun = self.index.begin_snapshot();
        let index = loop {
            match begun.step(SNAPSHOT_STEP_QUEUES) {
                Some(index) => break index,
                None => self.clock.sleep(STEP_PAUSE).await,
            }
        };
        self.index.sync().await?;
        // The leases are as of the last record placed: that record must be as durable as the snapshot.
        if self.writer.reached(Level::Durable, placed_end).await.is_err() {
            return Ok(0);
        }
        let sequence = self.snapshot_slot.get() + 1;
        let bytes = (tables.len() + index.len()) as u64;
        let (epoch, owner) = (self.log.epoch(), Owner { secret: self.log.secret(), shard: self.shard() });
        let owner = Some(owner);
        let snapshot = Snapshot { sequence, position, epoch, newest, owner, tables, index };
        snapshot.write(&self.disk, &self.options.directory).await?;
        self.log.note_snapshot(snapshot.slot()).await?;
        self.snapshot_slot.set(sequence);
        self.snapshot_position.set(position);
        self.metrics.snapshots.add(1);
        self.note_snapshot().await?;
        Ok(bytes)
    }

    /// The last acts of a shard whose tasks have ended. When one fails the next start replays a little more, and knows a
    /// little less of where the log has ended.
    pub async fn take_leave(&self) {
        if self.log.watermarks().has_failed() {
            return;
        }
        let taken = self.take_snapshot().await;
        let noted = self.log.note_end().await;
        let errors = [taken.err().map(|error| error.to_string()), noted.err().map(|error| error.to_string())];
        for error in errors.into_iter().flatten() {
            let shard = self.options.shard.0;
            tracing::warn!(target: "storage", shard, %error, "the last snapshot was not taken");
        }
    }

    /// A segment was begun since the newest checkpoint was complete, and as much was written as that one was long: tables
    /// may be larger than a segment, and a checkpoint is no reason for the next one.
    fn checkpoint_is_due(&self) -> bool {
        let segments = self.log.segments();
        let Some(newest) = segments.last().filter(|segment| segment.newest.is_some()) else { return false };
        let written_since = |done: CheckpointDone| self.log.watermarks().appended_end().since(done.end);
        self.checkpoint_done
            .get()
            .is_none_or(|done| done.end <= newest.base && written_since(done) >= done.bytes)
    }

    /// Repeats the tables in the log, so that older segments can go: what they say is said again here.
    async fn checkpoint(&self) -> Result<(), Failure> {
        // No topic may change between the reading of the tables and the last batch.
        let _guard = self.topic_change.lock().await;
        let begin = self.log.watermarks().appended_end();
        let mut payloads = vec![Vec::new()];
        // Offsets given out so far, durable or not: their batches stand before this checkpoint.
        let ends = self.queue_ends(|queue| queue.next_offset.get());
        for change in self.tables().as_changes(self.steady.running()).chain(ends) {
            let payload = payloads.last_mut().expect("there is one");
            change.encode(payload);
            if payload.len() >= CHECKPOINT_BATCH_BYTES {
                payloads.push(Vec::new());
            }
        }
        let mut first: Option<LogPosition> = None;
        let mut end = LogPosition::ZERO;
        for payload in payloads.iter().filter(|payload| !payload.is_empty()) {
            let placement = self.writer.place(|| self.writer.try_repeated(payload, Level::Written)).await?;
            first.get_or_insert(placement.position);
            end = placement.end;
        }
        let end = self.checkpoint_leases().await?.unwrap_or(end);
        let end = self.checkpoint_locks().await?.unwrap_or(end);
        let end = self.checkpoint_redrives().await?.unwrap_or(end);
        let end = self.checkpoint_held().await?.unwrap_or(end);
        self.writer.reached(Level::Durable, end).await?;
        let first = first.expect("tables have at least the next topic id");
        let segments = self.log.segments();
        let holder = segments.iter().rev().find(|segment| segment.base <= first);
        self.checkpoint_segment.set(holder.map(|segment| segment.base));
        self.checkpoint_done.set(Some(CheckpointDone { end, bytes: end.since(begin) }));
        Ok(())
    }

    /// Repeats the leases in the log. Each record says what is so when it is placed, so there is no wait between reading
    /// and placing.
    async fn checkpoint_leases(&self) -> Result<Option<LogPosition>, Failure> {
        let pairs = self.leases().pairs();
        let mut end = None;
        let mut next = LeaseCursor { pair: 0, from: QueueOffset::ZERO };
        while next.pair < pairs.len() {
            let repeating = self.writer.place(|| {
                let (payload, further) = self.leases_from(&pairs, next);
                if payload.is_empty() {
                    return Ok(None);
                }
                let placement = self.writer.try_repeated(&payload, Level::Written)?;
                Ok(Some((placement, further)))
            });
            let Some((placement, further)) = repeating.await? else { break };
            end = Some(placement.end);
            next = further;
        }
        Ok(end)
    }

    /// One batch of a checkpoint of the leases, and where the next one goes on.
    fn leases_from(&self, pairs: &[(QueueKey, GroupName)], from: LeaseCursor) -> (Vec<u8>, LeaseCursor) {
        let leases = self.leases();
        let mut payload = Vec::new();
        let mut next = from;
        while payload.len() < CHECKPOINT_BATCH_BYTES
            && let Some((key, group)) = pairs.get(next.pair)
        {
            // `None` when the pair has gone meanwhile.
            let state = leases.state(group, *key, next.from);
            let rest = state.and_then(|(change, rest)| {
                Change::Lease(change).encode(&mut payload);
                rest
            });
            next = match rest {
                Some(from) => LeaseCursor { from, ..next },
                None => LeaseCursor { pair: next.pair + 1, from: QueueOffset::ZERO },
            };
        }
        (payload, next)
    }

    /// Repeats in the log who has which queue to itself, in the same way.
    async fn checkpoint_locks(&self) -> Result<Option<LogPosition>, Failure> {
        let locked: Vec<_> = self.locks().iter().map(|(group, key, _)| (group.clone(), key)).collect();
        let mut end = None;
        for some in locked.chunks(limits::QUEUE_LOCKS_PLACED_MAX) {
            let repeating = self.writer.place(|| {
                let mut payload = Vec::new();
                let locks = self.locks();
                let states = some.iter().filter_map(|(group, key)| locks.state(group, *key));
                states.for_each(|change| Change::Lock(change).encode(&mut payload));
                drop(locks);
                if payload.is_empty() {
                    return Ok(None);
                }
                self.writer.try_repeated(&payload, Level::Written).map(Some)
            });
            end = repeating.await?.map(|placement| placement.end).or(end);
        }
        Ok(end)
    }

    /// Repeats in the log which dead letters were redriven, in the same way.
    async fn checkpoint_redrives(&self) -> Result<Option<LogPosition>, Failure> {
        let keys: BTreeSet<_> = self.redrives().keys().collect();
        let mut end = None;
        for key in keys {
            let mut next = Some(QueueOffset::ZERO);
            while let Some(from) = next {
                let repeating = self.writer.place(|| {
                    let ranges = self.redrives().ranges_from(key, from);
                    let Some((change, rest)) = ranges else { return Ok((None, None)) };
                    Ok((Some(self.try_repeat_redrive(&[change])?), rest))
                });
                let (placement, rest) = repeating.await?;
                end = placement.map(|placement| placement.end).or(end);
                next = rest;
            }
            let repeating = self.writer.place(|| {
                let changes = self.redrives().on_the_way(key);
                if changes.is_empty() { Ok(None) } else { self.try_repeat_redrive(&changes).map(Some) }
            });
            end = repeating.await?.map(|placement| placement.end).or(end);
        }
        Ok(end)
    }

    fn try_repeat_redrive(&self, changes: &[RedriveChange]) -> Result<Placement, PlaceRefusal> {
        let mut payload = Vec::new();
        changes.iter().for_each(|change| Change::Redrive(change.clone()).encode(&mut payload));
        self.writer.try_repeated(&payload, Level::Written)
    }

    /// The `end` of each queue that was ever used, in the order of the queues.
    pub(in crate::broker) fn queue_ends(&self, end: impl Fn(&Queue) -> QueueOffset) -> Vec<Change> {
        let queues = self.queues.borrow();
        let mut ends: Vec<_> = queues.values().map(|queue| (queue.key, end(queue))).collect();
        ends.retain(|(_, offset)| *offset > QueueOffset::ZERO);
        ends.sort();
        ends.into_iter().map(|(key, offset)| Change::QueueEnd { key, offset }).collect()
    }

    /// Removes the oldest segments as far as age and size ask, one after the other.
    async fn retain(&self, keeper: &mut Option<QueueKey>) -> Result<(), IndexError> {
        loop {
            let segments = self.log.segments();
            let [oldest, next, ..] = &segments[..] else { return Ok(()) };
            let kept: u64 = segments.iter().map(|segment| segment.bytes).sum();
            let too_many = self.live.get().retention_bytes.is_some_and(|bytes| kept > bytes);
            let expired =
                self.log_retention().is_some_and(|retention| self.is_expired(oldest, next.base, retention));
            if !too_many && !expired && !self.is_free(next.base, keeper).await {
                return Ok(());
            }
            // What the segment says must be said after it: by a checkpoint, and by a snapshot for a fast start. A full disk may
            // have no room for the one, and then nothing but this makes room: the other alone is enough until there is some.
            let checkpointed = self.checkpoint_segment.get().is_some_and(|base| base >= next.base);
            if !(checkpointed || self.log.is_out_of_space()) || next.newest.is_none() {
                return Ok(());
            }
            let _underway = self.underway(Activity::Retention);
            // A full disk or a failed log: the next round tries again.
            if !self.roll_held(next.base).await.unwrap_or(false) {
                return Ok(());
            }
            if self.snapshot_position.get() < next.base {
                match self.take_snapshot().await {
                    // The checkpoint is enough: the next start reads the log once to make the index anew.
                    Err(IndexError::Disk(error)) if checkpointed && error.kind == DiskErrorKind::NoSpace => {}
                    taken => _ = taken?,
                }
            }
            if !checkpointed && self.snapshot_position.get() < next.base {
                return Ok(());
            }
            let mut trim = self.index.trim(next.base);
            while trim.step(TRIM_STEP_QUEUES).await? == TrimProgress::More {
                self.clock.sleep(Duration::from_millis(1)).await;
            }
            if self.log.remove_oldest().await?.is_none() {
                return Ok(());
            }
            self.state.borrow_mut().forget_stored_below(self.log.first_position());
            self.metrics.segments_removed.add(1);
        }
    }

    /// Whether no message that somebody may read lies below a position: all that did were purged, or are of topics that are gone, or
    /// have gone by their topics' own retention. What cannot be looked up may be there: an index that is not to be trusted says
    /// nothing, nor does one of a log of which a part is damaged or was given up, and that is told of until retention has passed it.
    async fn is_free(&self, end: LogPosition, keeper: &mut Option<QueueKey>) -> bool {
        if self.index_health.is_distrusted() || !self.damage.is_empty() || !self.given_up.is_empty() {
            return false;
        }
        let is_below = |entry: &IndexEntry| entry.position < end;
        // Usually the same queue keeps it as a second before: the others are not looked at then.
        if let Some((key, (first, queue_end))) = keeper.and_then(|key| Some((key, self.index.bounds(key)?)))
            && first < queue_end
            && self.first_entry(key, first).await.is_ok_and(|entry| entry.as_ref().is_some_and(is_below))
        {
            return false;
        }
        match self.oldest_message(end).await {
            Ok(Some((position, key, _))) if position < end => {
                *keeper = Some(key);
                false
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    /// Moves the first offsets of topics whose retention is shorter than that of the segments they share with others.
    async fn age_topics(&self) -> Result<(), IndexError> {
        let aged: Vec<_> = {
            let tables = self.tables();
            let with_age = tables
                .topics()
                .filter_map(|topic| Some((topic.id, topic.queue_count, topic.retention.age(None)?)));
            with_age.collect()
        };
        for (id, queue_count, retention) in aged {
            let oldest = self.now_minus(retention);
            let expired_below = self.expired_below(retention);
            for key in owned_queues(id, queue_count, &self.options) {
                let mut offset = self.index.find_time(key, oldest).await?;
                if let Some(position) = expired_below {
                    offset = offset.max(self.index.find_position(key, position).await?);
                }
                let is_due = |(first, end)| first < offset && offset <= end;
                if !self.index.bounds(key).is_some_and(is_due) {
                    continue;
                }
                // What lies before the first message that is there was lost, and nobody knows when it was stored.
                if offset > self.index.find_position(key, LogPosition::ZERO).await? {
                    self.index.advance_first(key, offset);
                }
            }
        }
        Ok(())
    }

    /// The longest retention of any topic: segments are shared, so they stay for the most demanding one. `None`: for
    /// ever.
    fn log_retention(&self) -> Option<Duration> {
        let tables = self.tables();
        let of_topics = tables.topics().map(|topic| topic.retention.age(self.live.get().retention_age));
        let longest = of_topics.reduce(|one, other| Some(one?.max(other?)));
        longest.unwrap_or(self.live.get().retention_age)
    }
}
