//! The log itself: placing batches and committing groups.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::device_use::DeviceUse;
use super::error::{AppendRefusal, OpenError};
use super::expectation::{Known, Reached};
use super::group::OpenGroup;
use super::read::{ChecksumYields, SHARD_READ_BYTES_MAX};
use super::recovery::{self, Replay, Report, StartAt};
use super::register::Register;
use super::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader, SegmentInfo};
use super::stalls::Stalls;
use super::supply::Supply;
use super::tail_cache::TailCache;
use super::watermark::Watermarks;
use crate::api::Activity;
use crate::clock::SharedClock;
use crate::disk::Disk;
use crate::limits;
use crate::metrics::ShardMetrics;
use crate::types::{
    ByteBudget, Level, LogPosition, MonotonicTime, QueueKey, QueueNumber, QueueOffset, ShardId, Timestamp,
    TopicId, WakerList,
};
use crate::wire::batch::{
    BATCH_ALIGNMENT, BATCH_HEADER_BYTES, CheckedBatch, Kind, LogSecret, Placing, StateBatch, align_batch,
};

/// How groups reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitOptions {
    /// A group of at least this many bytes is written while the one before it is being flushed; a smaller one waits, and
    /// grows meanwhile.
    pub overlap_bytes: usize,
    /// A group of at most this many bytes, and of one piece, is written and flushed in one operation.
    pub synced_bytes: usize,
}

/// How a log is laid out and run.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Where the segments lie; one directory per shard.
    pub directory: PathBuf,
    pub shard: ShardId,
    /// Size of new segments: `SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX`, a multiple of a block.
    pub segment_bytes: u64,
    pub tail_cache_bytes: usize,
    pub commit: CommitOptions,
    /// Write zeros over fresh segments while the disk is idle, so that later flushes need no journal commit.
    pub zero_fill: bool,
    /// Logs on this one's device, which share what zeroing may take of it.
    pub device_sharers: u16,
    /// For a log that is made by this start: see `wire::batch`. Hard to guess.
    pub secret: LogSecret,
    /// Shards of the node.
    pub shard_count: u16,
    /// There was a log before: when none is there now, it was lost.
    pub is_made: bool,
    /// Who says how far the log had got, besides its own files.
    pub reached: Vec<Reached>,
}

impl LogOptions {
    /// What is known of the log from elsewhere.
    fn known(&self) -> Known {
        let (shard, shard_count, is_made) = (self.shard, self.shard_count, self.is_made);
        Known { shard, shard_count, is_made, reached: self.reached.clone(), reached_epoch: None }
    }
}

/// Where a batch was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub position: LogPosition,
    /// The batch has reached a level when the level's watermark is here or beyond.
    pub end: LogPosition,
    pub store_time: Timestamp,
}

/// A placed batch, as it is handed on when its group has become durable.
#[derive(Clone, Debug)]
pub struct Placed {
    pub kind: Kind,
    pub key: QueueKey,
    pub base_offset: QueueOffset,
    pub record_count: u32,
    pub position: LogPosition,
    pub batch_bytes: u32,
    pub tag_summary: u32,
    /// Some record has a key or properties.
    pub keyed: bool,
    pub store_time: Timestamp,
    /// The payload of a state batch.
    pub state: Option<Rc<[u8]>>,
}

/// A shard's log. Cheap to clone; all clones are the same log. Owned by one executor.
pub struct CommitLog<D: Disk> {
    pub(super) inner: Rc<Inner<D>>,
}

pub(super) struct Inner<D: Disk> {
    pub disk: D,
    pub options: LogOptions,
    pub clock: SharedClock,
    pub metrics: Rc<ShardMetrics>,
    pub epoch: u32,
    pub secret: LogSecret,
    pub register: Register,
    /// By base position. The last one is where the open group lies.
    pub segments: RefCell<BTreeMap<LogPosition, Rc<Segment<D>>>>,
    pub open: RefCell<OpenGroup<D>>,
    pub watermarks: Watermarks,
    pub tail: RefCell<TailCache<D::Buffer>>,
    /// Bounds the memory of disk reads.
    pub reads: ByteBudget,
    /// Those that are on their way to the device.
    pub device_reads: ByteBudget,
    pub checksum_yields: ChecksumYields,
    pub supply: Supply<D>,
    pub stalls: Stalls,
    pub device_use: DeviceUse,
    /// Since when something waits to be placed by the commit task's `fill`.
    pub announced: Cell<Option<MonotonicTime>>,
    /// Woken when the open group gets its first batch or reaches `overlap_bytes`, when something is announced, or on `stop`.
    pub work: WakerList,
    /// Woken when the open group was swapped and is being written, a segment was prepared, or the log failed.
    pub space_freed: WakerList,
    newest: Cell<Timestamp>,
    pub stopping: Cell<bool>,
}

impl Default for CommitOptions {
    /// What `perf/README.md` was measured with.
    fn default() -> Self {
        Self { overlap_bytes: limits::GROUP_OVERLAP_BYTES, synced_bytes: limits::GROUP_OVERLAP_BYTES }
    }
}

/// An open group before something is placed in it.
struct Before {
    is_empty: bool,
    filled: usize,
}

impl Before {
    fn of<D: Disk>(open: &OpenGroup<D>) -> Self {
        Self { is_empty: open.batches.is_empty(), filled: open.filled }
    }
}

impl<D: Disk> Clone for CommitLog<D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<D: Disk> CommitLog<D> {
    /// Opens the log in its directory, made when missing, and replays it from `start` to its end.
    ///
    /// On return the epoch of this run is durable, and whatever lies after the end can never be taken for live bytes.
    pub async fn open<R: Replay>(
        disk: D,
        options: LogOptions,
        clock: SharedClock,
        metrics: Rc<ShardMetrics>,
        start: StartAt,
        replay: &mut R,
    ) -> Result<(Self, Report), OpenError> {
        assert!((limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX).contains(&options.segment_bytes));
        assert!(options.segment_bytes.is_multiple_of(limits::BLOCK_BYTES as u64));
        let recovered = recovery::recover(&disk, &options, &options.known(), start, replay).await?;
        let end = recovered.report.end;
        let open = OpenGroup::new(recovered.active_base, recovered.next_group, end, end);
        let inner = Inner {
            epoch: recovered.manifest.epoch,
            secret: recovered.manifest.secret,
            register: Register::new(recovered.manifest, recovered.active_base),
            segments: RefCell::new(recovered.segments),
            open: RefCell::new(open),
            watermarks: Watermarks::new(end),
            tail: RefCell::new(TailCache::new(options.tail_cache_bytes)),
            reads: ByteBudget::new(SHARD_READ_BYTES_MAX),
            device_reads: ByteBudget::new(SHARD_READ_BYTES_MAX),
            checksum_yields: ChecksumYields::default(),
            supply: Supply::new(recovered.active_base, recovered.spares),
            stalls: Stalls::default(),
            device_use: DeviceUse::default(),
            announced: Cell::new(None),
            work: WakerList::new(),
            space_freed: WakerList::new(),
            newest: Cell::new(recovered.newest),
            stopping: Cell::new(false),
            disk,
            options,
            clock,
            metrics,
        };
        let report = Report { epoch: inner.epoch, ..recovered.report };
        Ok((Self { inner: Rc::new(inner) }, report))
    }

    /// For how long the disk has been busy with this log since it was opened.
    pub fn device_busy(&self, now: MonotonicTime) -> Duration {
        self.inner.device_use.busy(now)
    }

    pub fn watermarks(&self) -> &Watermarks {
        &self.inner.watermarks
    }

    pub fn epoch(&self) -> u32 {
        self.inner.epoch
    }

    pub fn secret(&self) -> LogSecret {
        self.inner.secret
    }

    pub fn shard(&self) -> ShardId {
        self.inner.options.shard
    }

    /// The store time that the log has reached: no batch gets an earlier one.
    pub fn newest(&self) -> Timestamp {
        self.inner.newest.get()
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.inner.segments.borrow().values().map(|segment| segment.info()).collect()
    }

    /// Where the oldest segment starts: nothing below can be read.
    pub fn first_position(&self) -> LogPosition {
        let segments = self.inner.segments.borrow();
        *segments.keys().next().expect("a log has a segment")
    }

    /// Woken when a refused [`append_batch`](CommitLog::append_batch) is worth another try.
    pub fn space_freed(&self) -> &WakerList {
        &self.inner.space_freed
    }

    /// Places a batch after everything else. No I/O happens here; `level` only tells whether somebody will wait for
    /// the flush. Nothing changes when it is refused.
    pub fn append_batch(
        &self,
        batch: &CheckedBatch<'_>,
        key: QueueKey,
        base_offset: QueueOffset,
        level: Level,
    ) -> Result<Placement, AppendRefusal> {
        let inner = &*self.inner;
        let mut open = inner.open_for(align_batch(batch.batch_bytes() as u64))?;
        let before = Before::of(&open);
        let placement = inner.place(&mut open, batch, key, base_offset, false);
        open.flush_wanted |= level == Level::Durable;
        inner.placed(open, before);
        Ok(placement)
    }

    /// Places a batch and, as one step with it, a state batch: after any death the log holds both or neither. `state`
    /// gets the first one's place and returns at most `state_bytes_max` bytes. Returns the place of both.
    pub fn append_step(
        &self,
        (batch, key, base_offset): (&CheckedBatch<'_>, QueueKey, QueueOffset),
        level: Level,
        state_bytes_max: usize,
        state: impl FnOnce(Placement) -> Vec<u8>,
    ) -> Result<(Placement, Placement), AppendRefusal> {
        let inner = &*self.inner;
        let bytes = align_batch(batch.batch_bytes() as u64)
            + align_batch((BATCH_HEADER_BYTES + state_bytes_max) as u64);
        assert!(bytes <= limits::PLACED_BYTES_MAX as u64, "a step of {bytes} bytes");
        let mut open = inner.open_for(bytes)?;
        let before = Before::of(&open);
        let first = inner.place(&mut open, batch, key, base_offset, true);
        let payload = state(first);
        assert!(payload.len() <= state_bytes_max, "a state of {} bytes", payload.len());
        let state = StateBatch::new(&payload, first.store_time);
        let broker = QueueKey { topic: TopicId::BROKER, queue: QueueNumber(0) };
        let second = inner.place(&mut open, &state.view(), broker, QueueOffset::ZERO, false);
        open.flush_wanted |= level == Level::Durable;
        inner.placed(open, before);
        Ok((first, second))
    }

    /// Tells the commit task that there is something to be placed, as soon as a group may be taken: it calls `fill` then.
    pub fn announce(&self) {
        let inner = &*self.inner;
        if inner.announced.get().is_none() {
            inner.announced.set(Some(inner.clock.monotonic()));
            inner.work.wake();
        }
    }

    /// Lets the tasks end once everything placed has been committed.
    pub fn stop(&self) {
        self.inner.stopping.set(true);
        self.inner.work.wake();
        self.inner.supply.wake();
    }
}

impl<D: Disk> Inner<D> {
    /// The open group, with room for `bytes` more.
    fn open_for(&self, bytes: u64) -> Result<RefMut<'_, OpenGroup<D>>, AppendRefusal> {
        if let Some(failure) = self.watermarks.failure() {
            return Err(AppendRefusal::Failed(failure));
        }
        let mut open = self.open.borrow_mut();
        self.find_space(&mut open, bytes)?;
        Ok(open)
    }

    /// Copies a batch after the open group's end, where there is room for it.
    fn place(
        &self,
        open: &mut OpenGroup<D>,
        batch: &CheckedBatch<'_>,
        key: QueueKey,
        base_offset: QueueOffset,
        continues: bool,
    ) -> Placement {
        // Store times never fall within a log, whatever the wall clock does: look-up by time relies on it.
        let store_time = self.newest.get().max(self.clock.now());
        self.newest.set(store_time);
        let position = open.end();
        let placing = Placing {
            position,
            previous_end: open.previous_end,
            flushed_end: open.flushed_end,
            epoch: self.epoch,
            key,
            base_offset,
            store_time,
            continues,
        };
        let mut header = batch.placed_header(&placing);
        self.secret.mix(&mut header);
        open.extend(&self.disk, &header);
        open.extend(&self.disk, batch.payload());
        open.pad(&self.disk, BATCH_ALIGNMENT);
        open.batches.push(Placed {
            kind: batch.kind(),
            key,
            base_offset,
            record_count: batch.record_count(),
            position,
            batch_bytes: batch.batch_bytes() as u32,
            tag_summary: batch.tag_summary(),
            keyed: batch.keyed(),
            store_time,
            state: (batch.kind() == Kind::State).then(|| batch.payload().into()),
        });
        let end = open.end();
        let bytes = align_batch(batch.batch_bytes() as u64);
        assert!(
            end.since(position) == bytes,
            "a batch of {bytes} bytes moved the end from {position} to {end}"
        );
        Placement { position, end, store_time }
    }

    /// Takes note of what was placed, and wakes the commit task where that is news for it.
    fn placed(&self, mut open: RefMut<'_, OpenGroup<D>>, before: Before) {
        if before.is_empty {
            open.opened_at = self.clock.monotonic();
        }
        let (end, filled) = (open.end(), open.filled);
        drop(open);
        self.watermarks.set_appended(end);
        let overlap_bytes = self.options.commit.overlap_bytes;
        if before.is_empty || (before.filled < overlap_bytes && filled >= overlap_bytes) {
            self.work.wake();
        }
    }

    /// Makes sure that `bytes` fit after the open group's end, moving an empty group to the next segment if need be.
    fn find_space(&self, open: &mut OpenGroup<D>, bytes: u64) -> Result<(), AppendRefusal> {
        let segment_end = self.segment_at(open.segment_base).end();
        let fits_segment = open.end().0 + bytes <= segment_end.0;
        if !open.batches.is_empty() {
            let fits_group = open.filled as u64 + bytes <= limits::GROUP_BYTES_MAX as u64;
            return if fits_segment && fits_group { Ok(()) } else { Err(AppendRefusal::Wait) };
        }
        if fits_segment {
            if open.start.since(open.segment_base) == 0 && open.filled == 0 {
                let bytes = segment_end.since(open.segment_base);
                let header = self.header(open.segment_base, bytes, open.previous_end);
                open.begin_segment(&self.disk, &header);
            }
            return Ok(());
        }
        let Some(next) = self.supply.take(segment_end)? else { return Err(AppendRefusal::Wait) };
        let header = self.header(next.base, next.bytes, open.previous_end);
        assert!(
            SEGMENT_HEADER_BYTES as u64 + bytes <= next.bytes,
            "a batch of {bytes} bytes in a segment of {}",
            next.bytes
        );
        self.segments.borrow_mut().insert(next.base, next);
        let now = self.clock.monotonic();
        self.metrics.flight.note(Activity::Segment, now, now);
        open.begin_segment(&self.disk, &header);
        self.supply.wake();
        Ok(())
    }

    fn header(&self, base: LogPosition, segment_bytes: u64, previous_end: LogPosition) -> SegmentHeader {
        let (epoch, shard, secret) = (self.epoch, self.options.shard.0, self.secret);
        SegmentHeader { base, segment_bytes, epoch, shard, is_stand_in: false, previous_end, secret }
    }

    pub fn segment_at(&self, base: LogPosition) -> Rc<Segment<D>> {
        self.segments.borrow().get(&base).expect("a group's segment is in the log").clone()
    }
}
