//! Keeping the key index: a task after the commit, which reads what has keys and never holds anyone up.
//!
//! ```text
//! publish -> pending (where batches with keys are) -> read -> collected (hash, location) -> runs
//!                            gaps: walk over the log ->
//! ```
//!
//! * The commit notes where batches with keys are, nothing else; batches without cost it nothing. The notes are bounded:
//!   with too many they are dropped, and the task walks over that part of the log instead.
//! * What no run covers is indexed again, whatever the reason: a first start, a crash, a damaged or lost file.
//! * Without the index everything works but the look-up, which says that it may be incomplete.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::broker::shard_broker::Broker;
use crate::disk::{Disk, DiskError};
use crate::index::IndexError;
use crate::index::keys::{Collected, KEYED_ENTRIES_MAX, KeyIndex, KeyOwner};
use crate::log::{Placed, Want};
use crate::types::{LogPosition, RecordLocation, TopicId, WakerList};
use crate::wire::batch::{BatchHeader, Kind, align_batch, stored_records};
use crate::wire::properties::{self, keys, names};

/// Batches noted at most: a mebibyte of memory.
const PENDING_MAX: usize = 65_536;
/// The task looks again after this many batches with keys, or after `LOOK_INTERVAL`.
const PENDING_WAKE: usize = 64;
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Batches read at once: half a millisecond of work, during which nobody else runs.
const WANTS_MAX: usize = 64;
const WANTS_BYTES_MAX: u64 = 512 * 1024;
/// Between two steps, so that indexing leaves the disk and the core to messages.
const STEP_PAUSE: Duration = Duration::from_micros(200);
/// While messages come faster than this many bytes a step, the pause is this many times the step: the shares of a task
/// queue bound only what competes at the same moment, and a step is not interrupted.
const BUSY_STEP_BYTES: u64 = 256 * 1024;
const BUSY_PAUSE_FACTOR: u32 = 6;
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(20);
/// A run is due after this much log with keys, or without: it bounds what a start after a crash indexes again.
const RUN_LOG_BYTES_MAX: u64 = 256 * 1024 * 1024;
const EMPTY_RUN_LOG_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// After a failure the task tries again; a place in the log that fails a few times is left out.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
const TRIES_MAX: u32 = 3;
const LEFT_OUT_BYTES: u64 = 1024 * 1024;

/// What the broker keeps of the key index.
pub(in crate::broker) struct KeyIndexing<D: Disk> {
    /// `None` until the task has opened it.
    index: RefCell<Option<Rc<KeyIndex<D>>>>,
    collected: RefCell<Collected>,
    /// 1. Exactly the batches with keys in `pending_from..published`, in log order.
    pending: RefCell<VecDeque<Want>>,
    pending_from: Cell<LogPosition>,
    published: Cell<LogPosition>,
    /// Woken when there is something to be indexed, for the task that does it.
    work: WakerList,
    /// Woken by the task after each step.
    progress: WakerList,
    /// Look-ups that wait for the task: it makes no pauses.
    hurried: Cell<u32>,
    /// Woken when such a look-up comes.
    hurry: WakerList,
    failed_reads: Cell<u32>,
    /// Some part of the log could not be read.
    left_out: Cell<bool>,
}

/// A look-up that waits for the task.
struct Hurry<'a>(&'a Cell<u32>);

impl<'a> Hurry<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What a step of the task has done.
enum Step {
    Worked,
    Idle,
}

impl<D: Disk> KeyIndexing<D> {
    /// `end` is where the log ends before anything is published.
    pub fn new(end: LogPosition) -> Self {
        Self {
            index: RefCell::default(),
            collected: RefCell::default(),
            pending: RefCell::default(),
            pending_from: Cell::new(end),
            published: Cell::new(end),
            work: WakerList::new(),
            progress: WakerList::new(),
            hurried: Cell::new(0),
            hurry: WakerList::new(),
            failed_reads: Cell::new(0),
            left_out: Cell::new(false),
        }
    }

    /// Takes note of a durable group.
    pub fn note(&self, batches: &[Placed]) {
        let Some(last) = batches.last() else { return };
        let end = last.position.advance(align_batch(u64::from(last.batch_bytes)));
        self.published.set(end);
        let mut pending = self.pending.borrow_mut();
        let keyed = batches.iter().filter(|placed| placed.keyed && placed.kind == Kind::Messages);
        pending
            .extend(keyed.map(|placed| Want { position: placed.position, batch_bytes: placed.batch_bytes }));
        if pending.len() > PENDING_MAX {
            pending.clear();
            self.pending_from.set(end);
        }
        if pending.len() >= PENDING_WAKE && !self.work.is_empty() {
            self.work.wake();
        }
    }

    pub fn index(&self) -> Option<Rc<KeyIndex<D>>> {
        self.index.borrow().clone()
    }

    /// Locations of a key that are in memory only, newest first, and where they begin.
    pub fn collected(&self, topic: TopicId, key: &[u8]) -> Vec<RecordLocation> {
        self.collected.borrow().find(topic, key)
    }

    /// What `status` shows.
    pub fn counters(&self) -> Vec<(String, u64)> {
        let index = self.index();
        let runs = index.as_ref().map_or(0, |index| index.run_count());
        let pending = self.pending.borrow().capacity() * size_of::<Want>();
        let bytes =
            index.map_or(0, |index| index.memory_bytes()) + pending + self.collected.borrow().memory_bytes();
        vec![("key_runs".to_owned(), runs as u64), ("key_index_bytes".to_owned(), bytes as u64)]
    }

    /// Lets the task end.
    pub fn stop(&self) {
        self.work.wake();
    }

    /// The first part of the log up to `end` that is not indexed.
    fn gap(&self, first: LogPosition, end: LogPosition) -> Option<(LogPosition, LogPosition)> {
        let collected = self.collected.borrow().range();
        match &*self.index.borrow() {
            Some(index) => index.gap(first, end, collected),
            None => Some((first, end)),
        }
    }
}

impl<D: Disk> Broker<D> {
    /// The task that keeps the key index; ends after [`stop`](Broker::stop), with everything published in runs.
    pub async fn run_key_indexing(&self) {
        let keys = &self.keys;
        let mut published = keys.published.get();
        while !self.writer.is_stopped() {
            let started = self.clock.monotonic();
            let step = self.key_step().await;
            let took = self.clock.monotonic().since(started);
            let before = std::mem::replace(&mut published, keys.published.get());
            let pause = if keys.hurried.get() > 0 {
                // A timer, not a bare yield: the executor looks at its rings only when nobody is ready.
                Duration::from_micros(1)
            } else if published.since(before) > BUSY_STEP_BYTES {
                STEP_PAUSE.max(took * BUSY_PAUSE_FACTOR).min(BUSY_PAUSE_MAX)
            } else {
                STEP_PAUSE
            };
            match step {
                Ok(Step::Worked) => {
                    keys.progress.wake();
                    // A look-up that comes meanwhile ends the pause.
                    futures_lite::future::or(keys.hurry.changed(), self.clock.sleep(pause)).await;
                }
                Ok(Step::Idle) => {
                    keys.progress.wake();
                    futures_lite::future::or(keys.work.changed(), self.clock.sleep(LOOK_INTERVAL)).await;
                }
                // The next try says more than this one did; look-ups say meanwhile that they are incomplete.
                Err(error) => {
                    self.note_keys(&error);
                    keys.progress.wake();
                    let stopped = async {
                        while !self.writer.is_stopped() {
                            keys.work.changed().await;
                        }
                    };
                    futures_lite::future::or(stopped, self.clock.sleep(RETRY_INTERVAL)).await;
                }
            }
        }
        self.finish_key_indexing().await;
    }

    async fn finish_key_indexing(&self) {
        let Some(index) = self.keys.index() else { return };
        // What fails here is done by the next start.
        let _ = self.store_collected(&index).await;
        *self.keys.index.borrow_mut() = None;
        // A look-up may still be at work.
        while Rc::strong_count(&index) > 1 {
            self.clock.sleep(Duration::from_millis(1)).await;
        }
        let _ = index.close().await;
    }

    /// Waits until everything published by now is indexed, at most for `wait`. Returns whether it is.
    pub(in crate::broker) async fn keys_are_indexed(&self, wait: Duration) -> bool {
        let keys = &self.keys;
        let end = keys.published.get();
        let is_done = || keys.index().is_some() && keys.gap(self.log.first_position(), end).is_none();
        let _hurry = Hurry::new(&keys.hurried);
        keys.hurry.wake();
        let done = async {
            while !is_done() && !self.writer.is_stopped() {
                keys.work.wake();
                keys.progress.changed().await;
            }
        };
        futures_lite::future::or(done, self.clock.sleep(wait)).await;
        is_done() && !keys.left_out.get()
    }

    /// Under whose name this run writes keys.
    fn key_owner(&self) -> KeyOwner {
        let log = crc32c::crc32c_append(u32::from(self.options.shard.0), &self.log.secret().0.to_le_bytes());
        KeyOwner { epoch: self.log.epoch(), log: log.max(1) }
    }

    /// The next thing that is due.
    async fn key_step(&self) -> Result<Step, IndexError> {
        let keys = &self.keys;
        let first = self.log.first_position();
        let Some(index) = keys.index() else {
            let directory = self.options.directory.join("keys");
            let bounds = (first, keys.published.get());
            let opened =
                KeyIndex::open(self.disk.clone(), self.clock.clone(), &directory, self.key_owner(), bounds);
            *keys.index.borrow_mut() = Some(Rc::new(opened.await?));
            return Ok(Step::Worked);
        };
        index.close_retired().await?;
        index.remove_below(first).await?;
        if keys.collected.borrow().range().is_some_and(|range| range.base < first) {
            keys.collected.borrow_mut().clear();
        }
        let gap = keys.gap(first, keys.published.get());
        if self.run_is_due(gap) {
            self.store_collected(&index).await?;
            return Ok(Step::Worked);
        }
        match gap {
            Some((from, until)) => self.index_part(from, until).await,
            None => self.merge_runs(&index).await,
        }
    }

    /// Whether what was collected should be written now.
    fn run_is_due(&self, gap: Option<(LogPosition, LogPosition)>) -> bool {
        let collected = self.keys.collected.borrow();
        let Some(range) = collected.range() else { return false };
        let bytes = range.to.since(range.from);
        let log_bytes_max = if collected.is_empty() { EMPTY_RUN_LOG_BYTES_MAX } else { RUN_LOG_BYTES_MAX };
        let left =
            gap.is_some_and(|(from, _)| from != range.to || self.log.part_end(range.base) == Some(from));
        left || collected.len() >= KEYED_ENTRIES_MAX || bytes >= log_bytes_max
    }

    /// Makes a run of what was collected. Look-ups find it in one of the two places at any time.
    async fn store_collected(&self, index: &KeyIndex<D>) -> Result<(), DiskError> {
        index.store(&self.keys.collected).await
    }

    /// Indexes the beginning of a part of the log.
    async fn index_part(&self, from: LogPosition, until: LogPosition) -> Result<Step, IndexError> {
        let keys = &self.keys;
        let hole = self.log.hole_at(from);
        let Some(end) = self.log.part_end(from) else {
            // Retention has taken it: the next step looks again.
            self.clock.sleep(STEP_PAUSE).await;
            return Ok(Step::Worked);
        };
        let until = until.min(end);
        if keys.collected.borrow().range().is_none() {
            let segments = self.log.segments();
            let held = segments.iter().rev().map(|segment| segment.base).find(|base| *base <= from);
            let base = hole.as_ref().map(|hole| hole.start).or(held);
            keys.collected.borrow_mut().begin(base.unwrap_or(from), from);
        }
        if hole.is_some() {
            // Nothing is to be found there; look-ups say so by themselves.
            keys.collected.borrow_mut().extend(until);
            return Ok(Step::Worked);
        }
        let noted = keys.pending_from.get();
        let done = match from < noted {
            true => self.log.walk(from, until.min(noted), |header, bytes| self.collect(header, bytes)).await,
            false => self.read_pending(from, until).await,
        };
        match done {
            Ok(done) => {
                keys.collected.borrow_mut().extend(done);
                keys.failed_reads.set(0);
                Ok(Step::Worked)
            }
            Err(error) => {
                keys.failed_reads.set(keys.failed_reads.get() + 1);
                if keys.failed_reads.get() >= TRIES_MAX {
                    // So that one bad place does not keep the rest from being indexed.
                    keys.failed_reads.set(0);
                    keys.left_out.set(true);
                    keys.collected.borrow_mut().extend(until.min(from.advance(LEFT_OUT_BYTES)));
                }
                Err(error.into())
            }
        }
    }

    /// Reads noted batches from `from` on, and returns up to where they are done.
    async fn read_pending(&self, from: LogPosition, until: LogPosition) -> Result<LogPosition, DiskError> {
        let keys = &self.keys;
        let mut wants = Vec::new();
        let mut bytes = 0;
        let done = {
            let mut pending = keys.pending.borrow_mut();
            while let Some(want) = pending.front().filter(|want| want.position < until) {
                if wants.len() == WANTS_MAX || bytes >= WANTS_BYTES_MAX {
                    break;
                }
                if want.position >= from {
                    bytes += u64::from(want.batch_bytes);
                    wants.push(*want);
                }
                pending.pop_front();
            }
            pending.front().map_or(until, |next| next.position.min(until))
        };
        keys.pending_from.set(keys.pending_from.get().max(done));
        let mut output = Vec::with_capacity(bytes as usize + 8 * wants.len());
        let mut left = &wants[..];
        while !left.is_empty() {
            let outcome = self.log.read(left, &mut output).await?;
            // What is damaged or gone can not be delivered, so it need not be found.
            left = &left[(outcome.count + 1).min(left.len())..];
        }
        let mut rest = &output[..];
        while let Ok(header) = BatchHeader::decode(rest) {
            let (batch, after) = rest.split_at(header.batch_bytes as usize);
            self.collect(&header, batch);
            rest = &after[align_batch(batch.len() as u64) as usize - batch.len()..];
        }
        Ok(done)
    }

    /// Notes the keys of a stored batch.
    fn collect(&self, header: &BatchHeader, bytes: &[u8]) {
        let mut collected = self.keys.collected.borrow_mut();
        keys_of(header, bytes, |topic, key, location| collected.add(topic, key, location));
    }

    /// Merges runs when that is due.
    async fn merge_runs(&self, index: &KeyIndex<D>) -> Result<Step, IndexError> {
        let in_use = self.log.segments().last().map_or(LogPosition::ZERO, |segment| segment.base);
        let Some(plan) = index.merge_candidates(in_use) else { return Ok(Step::Idle) };
        match index.merge(&plan).await {
            Ok(()) => Ok(Step::Worked),
            Err(IndexError::Damaged { file, position, reason }) => {
                self.note_keys(&IndexError::Damaged { file: file.clone(), position, reason });
                index.distrust(&file).await?;
                Ok(Step::Worked)
            }
            Err(error) => Err(error),
        }
    }
}

/// Hands on every key of a stored batch, with its location.
pub(in crate::broker) fn keys_of(
    header: &BatchHeader,
    bytes: &[u8],
    mut note: impl FnMut(TopicId, &[u8], RecordLocation),
) {
    if header.kind != Kind::Messages || !header.keyed {
        return;
    }
    for (index, record) in stored_records(bytes).enumerate().filter(|(_, record)| record.is_keyed()) {
        let location = RecordLocation { position: header.position, index: index as u16 };
        keys(record.key()).for_each(|key| note(header.key.topic, key, location));
        if let Some(id) = properties::get(record.properties(), names::UNIQUE_ID) {
            note(header.key.topic, id, location);
        }
    }
}
