//! The commit task: writes groups, flushes them, and hands on what became durable.
//!
//! It has two halves. The writer takes the open group and writes it; the flusher flushes what was written, and publishes
//! it. They overlap where that pays:
//!
//! | when the writer looks                   | the open group                 | what it does |
//! | --------------------------------------- | ------------------------------ | ------------ |
//! | nothing is unflushed                    | small, its flush due           | writes and flushes it in one operation |
//! | no flush is due or under way            | anything else                  | writes it |
//! | a flush is under way, nothing after it | at least `overlap_bytes`       | writes it meanwhile |
//! | else                                    |                                | waits: what arrives makes the group larger |
//!
//! What was announced ([`CommitLog::announce`]) is placed by `fill` before the writer takes a group, and what did not fit that
//! group, at once in the next: so it waits no longer than it would in the open group.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{join, join_all};

use super::commit_log::{CommitLog, Inner, Placed};
use super::error::LogFailure;
use super::group::{ClosedGroup, OpenGroup};
use super::segment::Segment;
use crate::disk::{Disk, DiskBuffer, DiskError, DiskFile};
use crate::limits;
use crate::metrics::Stage;
use crate::types::{LogPosition, MonotonicTime, WakerList};
use crate::wire::batch::HEADER_CRC_RANGE;

/// While nobody waits for a flush, written bytes may stay unflushed up to this many and this long.
const UNFLUSHED_BYTES_MAX: u64 = 8 * 1024 * 1024;
const UNFLUSHED_TIME_MAX: Duration = Duration::from_millis(10);

/// What the two halves tell each other.
struct Line {
    /// Written and not yet taken by the flusher, in log order, all of one segment.
    batches: RefCell<Vec<Placed>>,
    /// Valid while there are such batches.
    segment_base: Cell<LogPosition>,
    /// End of the last group that the writer has taken, and of the last one that it has written.
    taken_end: Cell<LogPosition>,
    written_end: Cell<LogPosition>,
    /// Everything below is flushed, whether published or not.
    flushed_end: Cell<LogPosition>,
    flushed_at: Cell<MonotonicTime>,
    /// Somebody waits for the flush of what was written, or it may not be put off any longer.
    wanted: Cell<bool>,
    flushing: Cell<bool>,
    writing: Cell<bool>,
    /// The writer takes no further group.
    ended: Cell<bool>,
    changed: WakerList,
}

/// A group on its way to the disk.
struct Taken<D: Disk> {
    group: ClosedGroup<D>,
    flush: bool,
    /// Write and flush are one operation.
    synced: bool,
}

impl Line {
    fn new(end: LogPosition, now: MonotonicTime) -> Self {
        Self {
            batches: RefCell::default(),
            segment_base: Cell::new(LogPosition::ZERO),
            taken_end: Cell::new(end),
            written_end: Cell::new(end),
            flushed_end: Cell::new(end),
            flushed_at: Cell::new(now),
            wanted: Cell::new(false),
            flushing: Cell::new(false),
            writing: Cell::new(false),
            ended: Cell::new(false),
            changed: WakerList::new(),
        }
    }

    fn is_flushed(&self) -> bool {
        self.flushed_end.get() == self.written_end.get()
    }

    fn is_empty(&self) -> bool {
        self.batches.borrow().is_empty()
    }

    /// Whether the writer may take the open group now.
    fn lets_write<D: Disk>(&self, open: &OpenGroup<D>, overlap_bytes: usize) -> bool {
        if self.flushing.get() {
            return self.is_empty() && open.filled >= overlap_bytes;
        }
        // A flush that is due comes first, and covers one file.
        self.is_flushed()
            || self.is_empty()
            || (!self.wanted.get() && open.segment_base == self.segment_base.get())
    }

    fn add(&self, segment_base: LogPosition, taken_end: LogPosition, flush: bool, batches: Vec<Placed>) {
        self.batches.borrow_mut().extend(batches);
        self.segment_base.set(segment_base);
        self.written_end.set(taken_end);
        self.wanted.set(self.wanted.get() | flush);
        self.changed.wake();
    }

    fn note_flushed(&self, end: LogPosition, now: MonotonicTime) {
        self.flushed_end.set(end);
        self.flushed_at.set(now);
    }

    fn end(&self) {
        self.ended.set(true);
        self.changed.wake();
    }
}

impl<D: Disk> CommitLog<D> {
    /// The commit task: writes groups until [`stop`](CommitLog::stop) and the last group, or until the first failure.
    /// `fill` places what was announced, and announces what it could not place; after a failure the log refuses it all.
    /// `publish` gets each group's batches after they became durable, before anyone who waits for them is woken.
    pub async fn run_commit(&self, fill: impl Fn(), publish: impl FnMut(&[Placed])) {
        let inner = &*self.inner;
        let line = Line::new(inner.watermarks.durable_end(), inner.clock.monotonic());
        // In this order: the end of a flush leads to the next write in the same poll.
        join(inner.flush_groups(&line, publish), inner.write_groups(&line, fill)).await;
    }
}

impl<D: Disk> Inner<D> {
    async fn write_groups(&self, line: &Line, fill: impl Fn()) {
        while let Some(Taken { group, flush, synced }) = self.next_group(line, &fill).await {
            let (segment_base, end) = (group.segment_base, group.end);
            let segment = self.segment_at(segment_base);
            line.writing.set(true);
            let (written, ()) = join(self.write(&segment, group, synced), self.announce_space()).await;
            line.writing.set(false);
            match written {
                Ok(batches) => {
                    if synced {
                        self.metrics.log_flushes.add(1);
                        line.note_flushed(end, self.clock.monotonic());
                    }
                    line.add(segment_base, end, flush, batches);
                }
                Err(error) => {
                    self.fail(error, end);
                    break;
                }
            }
        }
        line.end();
        fill();
    }

    async fn flush_groups(&self, line: &Line, mut publish: impl FnMut(&[Placed])) {
        let mut batches: Vec<Placed> = Vec::new();
        loop {
            while !self.flush_is_due(line) {
                if line.ended.get() {
                    return;
                }
                line.changed.changed().await;
            }
            std::mem::swap(&mut batches, &mut *line.batches.borrow_mut());
            line.wanted.set(false);
            let end = line.written_end.get();
            if !line.is_flushed() {
                let segment = self.segment_at(line.segment_base.get());
                line.flushing.set(true);
                // What has come already may be written meanwhile.
                line.changed.wake();
                let started = self.clock.monotonic();
                self.device_use.begin(started);
                let flushed = segment.file.sync().await;
                line.flushing.set(false);
                let now = self.clock.monotonic();
                self.device_use.end(now);
                self.stalls.note(&self.metrics, started, now);
                if let Err(error) = flushed {
                    // What was taken since may have reached the disk as well.
                    self.fail(error, line.taken_end.get());
                } else {
                    line.note_flushed(end, now);
                    self.metrics.flight.groups_flushed(end, now);
                    self.metrics.record(Stage::Flush, now.since(started));
                    self.metrics.log_flushes.add(1);
                }
            }
            line.changed.wake();
            // A write that failed meanwhile ends everything: what it leaves behind is for the next start to judge.
            if self.watermarks.has_failed() {
                return;
            }
            self.watermarks.set_durable(end);
            if self.register.is_due(line.segment_base.get()) {
                self.supply.wake();
            }
            publish(&batches);
            batches.clear();
            self.watermarks.publish();
        }
    }

    /// Whether written groups are to be flushed now: somebody waits for it, or nothing else is to be written, and to put the
    /// flush off would gain nothing.
    fn flush_is_due(&self, line: &Line) -> bool {
        let is_idle =
            || !line.writing.get() && self.announced.get().is_none() && self.open.borrow().batches.is_empty();
        !line.is_empty() && (line.wanted.get() || line.is_flushed() || is_idle())
    }

    /// Takes the open group out when it has batches and may be written; `None` when there will be no more.
    async fn next_group(&self, line: &Line, fill: &impl Fn()) -> Option<Taken<D>> {
        loop {
            if self.watermarks.has_failed() {
                return None;
            }
            let may_write = || line.lets_write(&self.open.borrow(), self.options.commit.overlap_bytes);
            if may_write() {
                self.place_announced(fill);
            }
            let is_empty = self.open.borrow().batches.is_empty();
            match (is_empty, may_write()) {
                (true, _) if self.stopping.get() => return None,
                (false, true) => {
                    let taken = self.take_group(line);
                    self.place_announced(fill);
                    return Some(taken);
                }
                _ => {
                    let news = futures_lite::future::or(self.work.changed(), line.changed.changed());
                    match self.announced.get() {
                        // It waits for a segment.
                        Some(_) if is_empty => {
                            futures_lite::future::or(news, self.space_freed.changed()).await
                        }
                        _ => news.await,
                    }
                }
            }
        }
    }

    /// Has placed what was announced. The group counts from when that was.
    fn place_announced(&self, fill: &impl Fn()) {
        let Some(since) = self.announced.take() else { return };
        fill();
        let mut open = self.open.borrow_mut();
        open.opened_at = open.opened_at.min(since);
    }

    fn take_group(&self, line: &Line) -> Taken<D> {
        let mut open = self.open.borrow_mut();
        let (end, now) = (open.end(), self.clock.monotonic());
        // A flush covers one file: what the segment before still owes must not be left behind.
        let flush = open.flush_wanted
            || end.since(line.flushed_end.get()) > UNFLUSHED_BYTES_MAX
            || now.since(line.flushed_at.get()) > UNFLUSHED_TIME_MAX
            || self.ends_segment(&open);
        let synced = flush && open.filled <= self.options.commit.synced_bytes && line.is_flushed();
        let next_start = LogPosition(end.0.next_multiple_of(limits::BLOCK_BYTES as u64));
        let mut next = OpenGroup::new(open.segment_base, next_start, end, line.flushed_end.get());
        next.inherit(&mut open);
        self.tail.borrow_mut().give_spares(next.spares());
        let mut group = std::mem::replace(&mut *open, next).close(&self.disk);
        drop(open);
        group.claim_flushed(line.flushed_end.get(), self.secret);
        line.taken_end.set(end);
        self.metrics.record(Stage::WaitForGroup, now.since(group.opened_at));
        let synced = synced && group.pieces.len() == 1;
        Taken { group, flush, synced }
    }

    /// Lets those go on who found the open group full, once the write of it has been handed to the device: what they have
    /// brought would be copied first.
    async fn announce_space(&self) {
        if !self.space_freed.is_empty() {
            self.clock.sleep(Duration::ZERO).await;
            self.space_freed.wake();
        }
    }

    /// Writes a group's pieces in parallel and moves the written end.
    async fn write(
        &self,
        segment: &Segment<D>,
        group: ClosedGroup<D>,
        synced: bool,
    ) -> Result<Vec<Placed>, DiskError> {
        let started = self.clock.monotonic();
        let from = group.start.since(segment.base);
        segment.wait_until_not_zeroing(from, from + group.bytes as u64).await;
        self.device_use.begin(self.clock.monotonic());
        let written = self.write_pieces(segment, &group, synced).await;
        self.device_use.end(self.clock.monotonic());
        written?;
        segment.newest.set(group.batches.last().map(|batch| batch.store_time));
        {
            let mut tail = self.tail.borrow_mut();
            let mut batches = group.batches.iter().map(|batch| batch.position).peekable();
            for (position, mut buffer) in group.pieces {
                // Readers get the checksums as they were before the secret was mixed in. The writes are done, so the
                // buffer is free again.
                let bytes =
                    Rc::get_mut(&mut buffer).expect("nobody else holds a written buffer").as_mut_slice();
                let end = position.advance(bytes.len() as u64);
                while let Some(batch) =
                    batches.next_if(|batch| batch.advance(HEADER_CRC_RANGE.end as u64) <= end)
                {
                    let at = batch.advance(HEADER_CRC_RANGE.start as u64).since(position) as usize;
                    self.secret.mix_checksum(&mut bytes[at..at + HEADER_CRC_RANGE.len()], batch);
                }
                tail.push(position, buffer);
            }
        }
        let now = self.clock.monotonic();
        self.stalls.note(&self.metrics, started, now);
        self.metrics.flight.group_written(group.end, (started, now), synced);
        self.metrics.record(if synced { Stage::Flush } else { Stage::Write }, now.since(started));
        self.metrics.log_groups.add(1);
        self.metrics.log_bytes_written.add(group.bytes as u64);
        self.supply.pacing.note_commit(now, group.bytes);
        self.watermarks.set_written(group.end);
        if self.wants_next() {
            self.supply.wake();
        }
        Ok(group.batches)
    }

    async fn write_pieces(
        &self,
        segment: &Segment<D>,
        group: &ClosedGroup<D>,
        synced: bool,
    ) -> Result<(), DiskError> {
        match &group.pieces[..] {
            [(position, buffer)] if synced => {
                segment.file.write_synced(position.since(segment.base), buffer.clone()).await
            }
            pieces => {
                let writes = pieces.iter().map(|(position, buffer)| {
                    segment.file.write(position.since(segment.base), buffer.clone())
                });
                // All writes are driven to their end, even after a failure: the kernel reads from their buffers.
                join_all(writes).await.into_iter().collect()
            }
        }
    }

    /// Whether what is left after the group is less than any batch may need: the next group may be elsewhere.
    fn ends_segment(&self, open: &OpenGroup<D>) -> bool {
        let left = self.segment_at(open.segment_base).end().0.saturating_sub(open.end().0);
        left < (limits::PLACED_BYTES_MAX + 2 * limits::BLOCK_BYTES) as u64
    }

    fn fail(&self, error: DiskError, unknown_end: LogPosition) {
        if !self.watermarks.has_failed() {
            let shard = self.options.shard.0;
            tracing::error!(
                target: "log",
                shard,
                durable_end = self.watermarks.durable_end().0,
                "the shard takes no messages any more, and what it has stays readable: check the disk, and restart the \
                 broker: {error}"
            );
        }
        self.watermarks.fail(LogFailure { error: Rc::new(error), unknown_end });
        self.space_freed.wake();
    }
}

impl<D: Disk> Segment<D> {
    /// Waits while zeros are being written into `from..to` of the file: two writes of one block have no order.
    async fn wait_until_not_zeroing(&self, from: u64, to: u64) {
        while self.zeroing.get().is_some_and(|(start, end)| from < end && start < to) {
            self.zeroing_done.changed().await;
        }
        self.zeroed.set(self.zeroed.get().max(to));
    }
}
