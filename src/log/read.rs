//! Reading stored batches: from the tail cache when they are there, else from the disk in parallel reads. What is read is
//! handed out where it lies, but for the headers, which change, and for small batches.

mod stretch;

use std::cell::Cell;
use std::ops::{Deref, Range};
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt};

pub use stretch::{STRETCH_BYTES, Stretch, StretchBatch};

use super::commit_log::{CommitLog, Inner};
use super::expectation::{HEAD_BYTES, first_batch};
use super::segment::Segment;
use crate::api::DamagedBytes;
use crate::disk::{BufferSlice, Disk, DiskError, DiskFile, Memory, Whole};
use crate::limits::{BLOCK_BYTES, READ_BYTES, READS_IN_FLIGHT_MAX, SHARED_SLICE_BYTES_MIN};
use crate::types::{LogPosition, Timestamp, WakerList};
use crate::wire::batch::{BATCH_HEADER_BYTES, BatchHeader, LogSecret, align_batch, records_in_parts_match};

/// Batches whose distance is less than this are fetched by one read, bytes of others between them included.
pub const GAP_BYTES_MAX: u64 = 32 * 1024;
/// One run of reads covers at most this, unless a single batch is larger.
const RUN_BYTES_MAX: u64 = (READ_BYTES * READS_IN_FLIGHT_MAX) as u64;
/// A call reads this much at once, unless a single run is larger: what one run waits for, others use.
const CALL_BYTES_MAX: usize = 2 * READ_BYTES * READS_IN_FLIGHT_MAX;
/// A shard checks this much of what was read before it looks at its rings again: many reads may end at once, and both the
/// disk and those who write are not to wait until all of that was looked at.
const CHECK_BYTES: usize = 256 * 1024;
/// All disk reads of a shard together hold at most this many bytes.
pub(super) const SHARD_READ_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What of them the device is given at a time while the log takes messages.
const DEVICE_READ_BYTES_BUSY: usize = 512 * 1024;

/// A batch to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    pub position: LogPosition,
    pub batch_bytes: u32,
}

/// What a read returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Batches appended to the output, from the first one wanted on.
    pub count: usize,
    /// Why it is fewer than wanted: the next one does not match its checksum, or its file is missing. `None` when
    /// retention has taken it.
    pub damaged: Option<DamagedBytes>,
}

/// Checksums let others run in between: see `CHECK_BYTES`.
#[derive(Default)]
pub(super) struct ChecksumYields {
    /// Bytes checked since the last yield.
    checked: Cell<usize>,
    is_yielding: Cell<bool>,
    yielded: WakerList,
}

/// A look at the rings; it has ended when this is dropped.
struct Yield<'a>(&'a ChecksumYields);

/// Blocks read from one segment, in file order, each piece `READ_BYTES` long but the last.
pub(super) struct Blocks<B> {
    start: u64,
    pieces: Vec<Rc<Whole<B>>>,
}

/// Where wanted batches come from that come together.
enum Source<D: Disk> {
    /// The tail cache.
    Tail(Vec<BufferSlice>),
    /// `start..end` of a segment's file.
    File { segment: Rc<Segment<D>>, start: u64, end: u64 },
}

/// Where the first of some wanted batches is to be had.
enum Origin<D: Disk> {
    /// There, and so many of them.
    Source(Source<D>, usize),
    /// Its file is missing.
    Hole(DamagedBytes),
    /// Retention has taken it.
    Gone,
}

/// What came from a source.
struct Delivery {
    slices: Vec<BufferSlice>,
    outcome: ReadOutcome,
}

/// A batch's place among the bytes that were read.
enum Part {
    /// Bytes of the run's own memory.
    Own(Range<usize>),
    /// Bytes of a piece, by its number.
    Piece(usize, Range<usize>),
}

impl<'a> Yield<'a> {
    fn begin(yields: &'a ChecksumYields) -> Self {
        yields.is_yielding.set(true);
        Self(yields)
    }
}

impl Drop for Yield<'_> {
    fn drop(&mut self) {
        self.0.is_yielding.set(false);
        self.0.checked.set(0);
        self.0.yielded.wake();
    }
}

impl Want {
    /// What the batch takes in an answer, padded.
    fn padded_bytes(&self) -> usize {
        align_batch(u64::from(self.batch_bytes)) as usize
    }

    /// What of it is copied when it is read.
    fn own_bytes(&self) -> usize {
        let is_small = (self.batch_bytes as usize) < SHARED_SLICE_BYTES_MIN;
        if is_small { self.padded_bytes() } else { BATCH_HEADER_BYTES }
    }

    fn end(&self) -> LogPosition {
        self.position.advance(u64::from(self.batch_bytes))
    }
}

impl<D: Disk> Source<D> {
    /// Bytes that the disk is asked for.
    fn disk_bytes(&self) -> usize {
        match self {
            Source::Tail(_) => 0,
            Source::File { start, end, .. } => (end - start) as usize,
        }
    }
}

impl<B: Deref<Target = [u8]> + 'static> Blocks<B> {
    /// Where `bytes` from `position` of the file on lie: numbers of pieces, and ranges in them.
    fn ranges(&self, position: u64, bytes: usize) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let mut from = (position - self.start) as usize;
        let end = from + bytes;
        std::iter::from_fn(move || {
            let (number, within) = (from / READ_BYTES, from % READ_BYTES);
            let count = (end - from).min(READ_BYTES - within);
            from += count;
            (count > 0).then_some((number, within..within + count))
        })
    }

    fn parts(&self, position: u64, bytes: usize) -> impl Iterator<Item = &[u8]> {
        self.ranges(position, bytes).map(|(number, range)| &self.pieces[number].0[range])
    }

    /// Appends the bytes from `position` of the file on to `output`.
    pub fn copy(&self, position: u64, bytes: usize, output: &mut Vec<u8>) {
        self.parts(position, bytes).for_each(|part| output.extend_from_slice(part));
    }

    /// Appends the wanted batch, which stands at `position` of the file, as it is handed out: a small one, and the header
    /// of any, in `own`. False, with nothing appended, when it is not there unharmed.
    fn take(
        &self,
        want: &Want,
        position: u64,
        secret: LogSecret,
        own: &mut Vec<u8>,
        parts: &mut Vec<Part>,
    ) -> bool {
        let (before, batch_bytes) = (own.len(), want.batch_bytes as usize);
        self.copy(position, BATCH_HEADER_BYTES, own);
        let header = &own[before..];
        let (records_at, records_bytes) =
            (position + BATCH_HEADER_BYTES as u64, batch_bytes - BATCH_HEADER_BYTES);
        let is_whole = BatchHeader::decode_stored(header, secret).is_ok_and(|decoded| {
            decoded.position == want.position
                && decoded.batch_bytes == want.batch_bytes
                && records_in_parts_match(header, self.parts(records_at, records_bytes))
        });
        if !is_whole {
            own.truncate(before);
            return false;
        }
        secret.mix(&mut own[before..]);
        // The padding has no checksum: it is zero, or is replaced.
        let padding = want.padded_bytes() - batch_bytes;
        let is_zero =
            self.parts(position + batch_bytes as u64, padding).all(|part| part.iter().all(|byte| *byte == 0));
        let in_place = batch_bytes >= SHARED_SLICE_BYTES_MIN && is_zero;
        if !in_place {
            self.copy(records_at, records_bytes, own);
            own.resize(own.len() + padding, 0);
        }
        match parts.last_mut() {
            Some(Part::Own(range)) if range.end == before => range.end = own.len(),
            _ => parts.push(Part::Own(before..own.len())),
        }
        if in_place {
            let ranges = self.ranges(records_at, records_bytes + padding);
            parts.extend(ranges.map(|(number, range)| Part::Piece(number, range)));
        }
        true
    }
}

impl<D: Disk> CommitLog<D> {
    /// The wanted batches, each padded to the batch alignment, where they lie in the tail cache; `None` when they are
    /// not all there. Neither I/O nor a copy: this is the whole read for a consumer that keeps up.
    pub fn share_tail(&self, wants: &[Want]) -> Option<Vec<BufferSlice>> {
        let tail = self.inner.tail.borrow();
        let mut slices = Vec::new();
        // A batch is followed by zeros up to the alignment in its group as well.
        wants.iter().all(|want| tail.share(want.position, want.padded_bytes(), &mut slices)).then_some(slices)
    }

    /// Whether the tail cache reaches back to `position`.
    pub fn is_in_tail(&self, position: LogPosition) -> bool {
        self.inner.tail.borrow().covers(position)
    }

    /// When the first batch was stored that the log has; `None` while there is none.
    pub async fn first_store_time(&self) -> Option<Timestamp> {
        let segments: Vec<_> = self.inner.segments.borrow().values().cloned().collect();
        for segment in segments.iter().filter(|segment| segment.bytes >= HEAD_BYTES as u64) {
            // One that retention removes meanwhile has nothing any more.
            let Ok(blocks) = segment.file.read(0, HEAD_BYTES).await else { continue };
            if let Some(header) = first_batch(&blocks, segment.base, self.secret()) {
                return Some(header.store_time);
            }
        }
        None
    }

    /// Appends the wanted batches to `output`: see [`read_shared`](CommitLog::read_shared).
    pub async fn read(&self, wants: &[Want], output: &mut Vec<u8>) -> Result<ReadOutcome, DiskError> {
        let (slices, outcome) = self.read_shared(wants).await?;
        output.reserve(slices.iter().map(|slice| slice.len()).sum());
        slices.iter().for_each(|slice| output.extend_from_slice(slice));
        Ok(outcome)
    }

    /// Reads the wanted batches, each padded to the batch alignment, several stretches of the disk at once. Their
    /// positions ascend. Bytes that come from the disk are checked; the first batch that fails the check ends the read.
    pub async fn read_shared(&self, wants: &[Want]) -> Result<(Vec<BufferSlice>, ReadOutcome), DiskError> {
        let mut slices = Vec::new();
        let mut outcome = ReadOutcome::default();
        let mut failure = None;
        let mut hole = None;
        let mut rest = wants;
        let mut in_flight = 0;
        let mut deliveries = FuturesOrdered::new();
        loop {
            while !rest.is_empty() && (in_flight == 0 || in_flight < CALL_BYTES_MAX) {
                let (source, count) = match self.origin_of(rest) {
                    Origin::Source(source, count) => (source, count),
                    Origin::Hole(damaged) => {
                        // What comes before is on its way.
                        hole = Some(damaged);
                        rest = &[];
                        break;
                    }
                    // Retention overtook the reader; the caller looks at the queue's bounds again.
                    Origin::Gone => {
                        rest = &[];
                        break;
                    }
                };
                let (batches, behind) = rest.split_at(count);
                rest = behind;
                let bytes = source.disk_bytes();
                in_flight += bytes;
                deliveries.push_back(async move { (self.deliver(source, batches).await, bytes) });
            }
            let Some((delivered, bytes)) = deliveries.next().await else { break };
            in_flight -= bytes;
            // What is in flight after an end is awaited all the same, and let go.
            if failure.is_some() || outcome.damaged.is_some() {
                continue;
            }
            match delivered {
                Ok(delivery) => {
                    slices.extend(delivery.slices);
                    outcome.count += delivery.outcome.count;
                    outcome.damaged = delivery.outcome.damaged;
                }
                Err(error) => failure = Some(error),
            }
            if failure.is_some() || outcome.damaged.is_some() {
                rest = &[];
            }
        }
        outcome.damaged = outcome.damaged.or(hole);
        failure.map_or(Ok((slices, outcome)), Err)
    }

    /// Where the first of the wanted batches come from, and how many come from there.
    fn origin_of(&self, wants: &[Want]) -> Origin<D> {
        // What the tail cache holds of them is the end of them.
        if let Some(slices) = self.share_tail(wants) {
            return Origin::Source(Source::Tail(slices), wants.len());
        }
        let first = wants[0].position;
        let held = self.segment_holding(first).filter(|segment| !segment.is_stand_in);
        let Some(segment) = held else {
            return self.missing_at(first).map_or(Origin::Gone, Origin::Hole);
        };
        let count = run_length(&segment, wants);
        let block = BLOCK_BYTES as u64;
        let start = wants[0].position.since(segment.base) / block * block;
        let end = wants[count - 1].end().since(segment.base).next_multiple_of(block).min(segment.bytes);
        Origin::Source(Source::File { segment, start, end }, count)
    }

    /// The missing file around `position`, and the place in it; `None` when that is not in a hole.
    pub(super) fn missing_at(&self, position: LogPosition) -> Option<DamagedBytes> {
        let hole = self.hole_at(position)?;
        Some(DamagedBytes { file: hole.file.display().to_string(), position: position.since(hole.base) })
    }

    async fn deliver(&self, source: Source<D>, wants: &[Want]) -> Result<Delivery, DiskError> {
        match source {
            Source::Tail(slices) => {
                Ok(Delivery { slices, outcome: ReadOutcome { count: wants.len(), damaged: None } })
            }
            Source::File { segment, start, end } => self.read_run(&segment, start, end, wants).await,
        }
    }

    async fn yield_between_checksums(&self, bytes: usize) {
        let yields = &self.inner.checksum_yields;
        while yields.is_yielding.get() {
            yields.yielded.changed().await;
        }
        if yields.checked.get() >= CHECK_BYTES {
            let _yield = Yield::begin(yields);
            self.inner.clock.sleep(Duration::ZERO).await;
        }
        yields.checked.set(yields.checked.get() + bytes);
    }

    /// The file that holds `position` or is missing there, and the place in it; `None` when it is not in the log.
    pub fn file_at(&self, position: LogPosition) -> Option<DamagedBytes> {
        let Some(segment) = self.segment_holding(position) else { return self.missing_at(position) };
        let file = segment.path.display().to_string();
        Some(DamagedBytes { file, position: position.since(segment.base) })
    }

    pub(super) fn segment_holding(&self, position: LogPosition) -> Option<Rc<Segment<D>>> {
        let segments = self.inner.segments.borrow();
        let (_, segment) = segments.range(..=position).next_back()?;
        segment.contains(position).then(|| segment.clone())
    }

    /// Reads a run of batches that lie close together in `start..end` of a segment's file.
    async fn read_run(
        &self,
        segment: &Segment<D>,
        start: u64,
        end: u64,
        wants: &[Want],
    ) -> Result<Delivery, DiskError> {
        let _reservation = self.inner.reads.reserve((end - start) as usize).await;
        let blocks = self.inner.read_blocks(segment, start, end).await?;
        self.inner.metrics.disk_bytes_read.add(end - start);
        self.yield_between_checksums((end - start) as usize).await;
        let mut own = Vec::with_capacity(wants.iter().map(Want::own_bytes).sum());
        let mut parts = Vec::with_capacity(2 * wants.len());
        let mut outcome = ReadOutcome::default();
        for want in wants {
            let position = want.position.since(segment.base);
            let is_inside = want.batch_bytes as usize >= BATCH_HEADER_BYTES
                && position + want.padded_bytes() as u64 <= end;
            if !is_inside || !blocks.take(want, position, self.inner.secret, &mut own, &mut parts) {
                let file = segment.path.display().to_string();
                outcome.damaged = Some(DamagedBytes { file, position });
                break;
            }
            outcome.count += 1;
        }
        let own: Rc<dyn Memory> = Rc::new(Whole(own));
        let slice = |part| match part {
            Part::Own(range) => BufferSlice::new(own.clone(), range),
            Part::Piece(number, range) => BufferSlice::new(blocks.pieces[number].clone(), range),
        };
        Ok(Delivery { slices: parts.into_iter().map(slice).collect(), outcome })
    }
}

/// How many of `wants` one run of reads serves.
fn run_length<D: Disk>(segment: &Segment<D>, wants: &[Want]) -> usize {
    let start = wants[0].position;
    let mut end = wants[0].end();
    let close = wants[1..].iter().take_while(|want| {
        let next_end = want.end();
        let near = want.position >= end && want.position.since(end) <= GAP_BYTES_MAX;
        let fits = near && segment.contains(want.position) && next_end.since(start) <= RUN_BYTES_MAX;
        end = next_end;
        fits
    });
    1 + close.count()
}

impl<D: Disk> Inner<D> {
    /// Reads `start..end` of a segment's file, a few pieces at a time in flight.
    pub(super) async fn read_blocks(
        &self,
        segment: &Segment<D>,
        start: u64,
        end: u64,
    ) -> Result<Blocks<<D::File as DiskFile>::ReadBuffer>, DiskError> {
        let mut pieces = Vec::with_capacity((end - start).div_ceil(READ_BYTES as u64) as usize);
        let mut reads = FuturesUnordered::new();
        let mut next = start;
        let mut outcome = Ok(());
        loop {
            while next < end && reads.len() < READS_IN_FLIGHT_MAX && outcome.is_ok() {
                let bytes = READ_BYTES.min((end - next) as usize);
                let index = pieces.len();
                pieces.push(None);
                reads.push(async move { (index, self.read_piece(segment, next, bytes).await) });
                next += bytes as u64;
            }
            let Some((index, read)) = reads.next().await else { break };
            match read {
                Ok(piece) => pieces[index] = Some(piece),
                Err(error) => outcome = Err(error),
            }
        }
        outcome?;
        let pieces =
            pieces.into_iter().map(|piece| Rc::new(Whole(piece.expect("every read has ended well"))));
        Ok(Blocks { start, pieces: pieces.collect() })
    }

    /// One read, when the device may be given it: while the log takes messages, each write and flush waits behind the
    /// reads that are on their way.
    async fn read_piece(
        &self,
        segment: &Segment<D>,
        position: u64,
        bytes: usize,
    ) -> Result<<D::File as DiskFile>::ReadBuffer, DiskError> {
        let bytes_max = || match self.supply.pacing.takes_messages(self.clock.monotonic()) {
            true => DEVICE_READ_BYTES_BUSY,
            false => SHARD_READ_BYTES_MAX,
        };
        let _on_its_way = self.device_reads.reserve_within(bytes, bytes_max).await;
        self.metrics.disk_reads.add(1);
        segment.file.read(position, bytes).await
    }
}
