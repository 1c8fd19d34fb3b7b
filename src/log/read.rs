//! Reading stored batches: from the tail cache when they are there, else from the disk in parallel reads.

use std::rc::Rc;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::commit_log::CommitLog;
use super::segment::Segment;
use crate::api::DamagedBytes;
use crate::disk::{BufferSlice, Disk, DiskError, DiskFile};
use crate::limits::{BLOCK_BYTES, READ_BYTES, READS_IN_FLIGHT_MAX};
use crate::types::LogPosition;
use crate::wire::batch::{BATCH_ALIGNMENT, BatchHeader, LogSecret, align_batch, records_match};

/// Batches whose distance is less than this are fetched by one read, bytes of others between them included.
const GAP_BYTES_MAX: u64 = 32 * 1024;
/// One run of reads covers at most this, unless a single batch is larger.
const RUN_BYTES_MAX: u64 = (READ_BYTES * READS_IN_FLIGHT_MAX) as u64;
/// All disk reads of a shard together hold at most this many bytes.
pub(super) const SHARD_READ_BYTES_MAX: usize = 32 * 1024 * 1024;

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
    /// Why it is fewer than wanted: the next one does not match its checksum or is not there.
    pub damaged: Option<DamagedBytes>,
}

/// Blocks read from one segment, in file order, each piece `READ_BYTES` long but the last.
pub(super) struct Blocks<B> {
    start: u64,
    pieces: Vec<B>,
}

impl<B: std::ops::Deref<Target = [u8]>> Blocks<B> {
    /// Appends the bytes from `position` of the file on to `output`.
    pub fn copy(&self, position: u64, bytes: usize, output: &mut Vec<u8>) {
        let mut from = (position - self.start) as usize;
        let mut left = bytes;
        while left > 0 {
            let piece = &self.pieces[from / READ_BYTES];
            let within = from % READ_BYTES;
            let count = left.min(piece.len() - within);
            output.extend_from_slice(&piece[within..within + count]);
            from += count;
            left -= count;
        }
    }
}

/// Fills `output` with zeros up to where the next batch may start.
fn pad(output: &mut Vec<u8>) {
    output.resize(output.len().next_multiple_of(BATCH_ALIGNMENT), 0);
}

impl<D: Disk> CommitLog<D> {
    /// The wanted batches, each padded to the batch alignment, where they lie in the tail cache; `None` when they are
    /// not all there. Neither I/O nor a copy: this is the whole read for a consumer that keeps up.
    pub fn share_tail(&self, wants: &[Want]) -> Option<Vec<BufferSlice>> {
        let tail = self.inner.tail.borrow();
        let mut slices = Vec::new();
        // A batch is followed by zeros up to the alignment in its group as well.
        let share = |want: &Want| {
            tail.share(want.position, align_batch(u64::from(want.batch_bytes)) as usize, &mut slices)
        };
        wants.iter().all(share).then_some(slices)
    }

    /// Appends the wanted batches to `output` as long as they are in the tail cache, each padded to the batch
    /// alignment, and returns how many.
    fn read_tail(&self, wants: &[Want], output: &mut Vec<u8>) -> usize {
        let tail = self.inner.tail.borrow();
        for (index, want) in wants.iter().enumerate() {
            if !tail.copy(want.position, want.batch_bytes as usize, output) {
                return index;
            }
            pad(output);
        }
        wants.len()
    }

    /// Appends the wanted batches to `output`, each padded to the batch alignment. Their positions ascend. Bytes that
    /// come from the disk are checked; the first batch that fails the check ends the read.
    pub async fn read(&self, wants: &[Want], output: &mut Vec<u8>) -> Result<ReadOutcome, DiskError> {
        let mut count = 0;
        while count < wants.len() {
            count += self.read_tail(&wants[count..], output);
            if count == wants.len() {
                break;
            }
            let segment = self.segment_holding(wants[count].position);
            let Some(segment) = segment else {
                // Retention overtook the reader; the caller looks at the queue's bounds again.
                return Ok(ReadOutcome { count, damaged: None });
            };
            let run = run_length(&segment, &wants[count..]);
            let outcome = self.read_run(&segment, &wants[count..count + run], output).await?;
            count += outcome.count;
            if outcome.damaged.is_some() {
                return Ok(ReadOutcome { count, damaged: outcome.damaged });
            }
        }
        Ok(ReadOutcome { count, damaged: None })
    }

    /// The file that holds `position`, and the place in it; `None` when it is not in the log.
    pub fn file_at(&self, position: LogPosition) -> Option<DamagedBytes> {
        let segment = self.segment_holding(position)?;
        let file = segment.path.display().to_string();
        Some(DamagedBytes { file, position: position.since(segment.base) })
    }

    pub(super) fn segment_holding(&self, position: LogPosition) -> Option<Rc<Segment<D>>> {
        let segments = self.inner.segments.borrow();
        let (_, segment) = segments.range(..=position).next_back()?;
        segment.contains(position).then(|| segment.clone())
    }

    /// Reads a run of batches of one segment that lie close together.
    async fn read_run(
        &self,
        segment: &Segment<D>,
        wants: &[Want],
        output: &mut Vec<u8>,
    ) -> Result<ReadOutcome, DiskError> {
        let block = BLOCK_BYTES as u64;
        let last = wants.last().expect("a run is not empty");
        let start = wants[0].position.since(segment.base) / block * block;
        let end = (last.position.since(segment.base) + u64::from(last.batch_bytes)).next_multiple_of(block);
        let end = end.min(segment.bytes);
        let _reservation = self.inner.reads.reserve((end - start) as usize).await;
        let blocks = read_blocks(segment, start, end).await?;
        self.inner.metrics.disk_bytes_read.add(end - start);
        for (index, want) in wants.iter().enumerate() {
            let before = output.len();
            let position = want.position.since(segment.base);
            if position + u64::from(want.batch_bytes) <= end {
                blocks.copy(position, want.batch_bytes as usize, output);
            }
            if !is_batch(&output[before..], want, self.inner.secret) {
                output.truncate(before);
                let damaged = DamagedBytes { file: segment.path.display().to_string(), position };
                return Ok(ReadOutcome { count: index, damaged: Some(damaged) });
            }
            self.inner.secret.mix(&mut output[before..]);
            pad(output);
        }
        Ok(ReadOutcome { count: wants.len(), damaged: None })
    }
}

/// Whether the bytes are the batch that belongs at the wanted place, unharmed.
fn is_batch(bytes: &[u8], want: &Want, secret: LogSecret) -> bool {
    BatchHeader::decode_stored(bytes, secret).is_ok_and(|header| {
        header.position == want.position && header.batch_bytes == want.batch_bytes && records_match(bytes)
    })
}

/// How many of `wants` one run of reads serves.
fn run_length<D: Disk>(segment: &Segment<D>, wants: &[Want]) -> usize {
    let start = wants[0].position;
    let mut end = start.advance(u64::from(wants[0].batch_bytes));
    let close = wants[1..].iter().take_while(|want| {
        let next_end = want.position.advance(u64::from(want.batch_bytes));
        let near = want.position >= end && want.position.since(end) <= GAP_BYTES_MAX;
        let fits = near && segment.contains(want.position) && next_end.since(start) <= RUN_BYTES_MAX;
        end = next_end;
        fits
    });
    1 + close.count()
}

/// Reads `start..end` of a segment's file, a few pieces at a time in flight.
pub(super) async fn read_blocks<D: Disk>(
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
            reads.push(async move { (index, segment.file.read(next, bytes).await) });
            next += bytes as u64;
        }
        let Some((index, read)) = reads.next().await else { break };
        match read {
            Ok(piece) => pieces[index] = Some(piece),
            Err(error) => outcome = Err(error),
        }
    }
    outcome?;
    let pieces = pieces.into_iter().map(|piece| piece.expect("every read has ended well")).collect();
    Ok(Blocks { start, pieces })
}
