//! What the device can do without a broker: the broker's own way of using it, and nothing else.
//!
//! Written: groups of a given size as 256 KiB pieces in parallel, then one fdatasync, then the next group, into a file
//! whose blocks were all written before, as the commit log does. Read: sequentially, in the sizes of a catch-up.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, TryStreamExt};
use glommio::{LocalExecutorBuilder, Placement};

use crate::disk::glommio::{Access, GlommioDisk};
use crate::disk::{Disk, DiskBuffer, DiskError, DiskFile, OpenMode};
use crate::limits;

/// Larger than what a device caches for a moment, small enough to lay out in a second or two.
const FILE_BYTES: u64 = 256 * 1024 * 1024;
/// Single blocks written and flushed to time a flush.
const FLUSH_ROUNDS: usize = 400;
const FLUSH_TIME: Duration = Duration::from_millis(800);
/// Registered memory of the executor: little, because locked memory is short and it is not needed.
const IO_MEMORY_BYTES: usize = 64 * 1024;

/// What to measure.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// On the device that is meant.
    pub directory: PathBuf,
    /// Where the broker's shard runs.
    pub core: Option<usize>,
    pub operation: DeviceOperation,
    pub duration: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceOperation {
    /// Write groups of this many bytes, each flushed.
    WriteAndFlush { group_bytes: u64 },
    /// Read from start to end.
    Read,
}

/// What the device did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceSpeed {
    pub bytes_per_second: f64,
    /// Median of one block written and flushed.
    pub flush_p50_us: f64,
    /// Groups, or windows that were read, that took as long as what the broker calls a stall.
    pub stalls: u64,
    pub longest: Duration,
}

/// Why the device could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error(
        "the baseline cannot use {directory}: {source}; name a directory on the broker's device with --baseline-dir"
    )]
    Directory { directory: String, source: std::io::Error },
    #[error("the baseline's executor does not start: {0}")]
    Executor(String),
    #[error("the baseline failed: {0}")]
    Disk(#[from] DiskError),
}

/// A directory that goes when this does.
struct Scratch {
    path: PathBuf,
}

impl DeviceSpeed {
    /// Of a group or of a window, milliseconds with two decimals.
    pub fn longest_ms(&self) -> f64 {
        (self.longest.as_nanos() as f64 / 1e4).round() / 100.0
    }
}

impl DeviceOperation {
    pub fn name(self) -> &'static str {
        match self {
            DeviceOperation::WriteAndFlush { .. } => "write+flush",
            DeviceOperation::Read => "read",
        }
    }
}

impl DevicePlan {
    /// Measures on an executor of its own, in a thread of its own.
    pub fn measure(&self) -> Result<DeviceSpeed, DeviceError> {
        let scratch = Scratch::new(&self.directory)?;
        let (operation, duration) = (self.operation, self.duration);
        let path = scratch.path.clone();
        let placement = self.core.map_or(Placement::Unbound, Placement::Fixed);
        let executor = LocalExecutorBuilder::new(placement)
            .name("baseline")
            .io_memory(IO_MEMORY_BYTES)
            .spawn(move || async move {
                let disk = GlommioDisk::attach(&path, Access::Direct).await?;
                measure_on(&disk, &path.join("data"), operation, duration).await
            })
            .map_err(|error| DeviceError::Executor(error.to_string()))?;
        let outcome: Result<DeviceSpeed, DiskError> =
            executor.join().map_err(|error| DeviceError::Executor(error.to_string()))?;
        Ok(outcome?)
    }
}

impl Scratch {
    fn new(directory: &Path) -> Result<Self, DeviceError> {
        let path = directory.join(format!("turbopump-baseline-{}", std::process::id()));
        let refused = |source| DeviceError::Directory { directory: directory.display().to_string(), source };
        std::fs::create_dir(&path).map_err(refused)?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind says by its name what it is.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

async fn measure_on<D: Disk>(
    disk: &D,
    path: &Path,
    operation: DeviceOperation,
    duration: Duration,
) -> Result<DeviceSpeed, DiskError> {
    let file = disk.open(path, OpenMode::Create).await?;
    file.preallocate(FILE_BYTES).await?;
    // Every block is written once before anything counts: unwritten extents cost a journal commit per flush.
    let large = pieces(disk, limits::GROUP_BYTES_MAX as u64);
    for start in (0..FILE_BYTES).step_by(limits::GROUP_BYTES_MAX) {
        write_group(&file, &large, start).await?;
    }
    file.sync().await?;
    let flush_p50_us = flush_p50(disk, &file).await?;
    let group = match operation {
        DeviceOperation::WriteAndFlush { group_bytes } => pieces(disk, rounded_group(group_bytes)),
        DeviceOperation::Read => Vec::new(),
    };
    let begin = Instant::now();
    let mut bytes = 0;
    let mut position = 0;
    let (mut stalls, mut longest) = (0, Duration::ZERO);
    while begin.elapsed() < duration {
        let started = Instant::now();
        let step = match operation {
            DeviceOperation::WriteAndFlush { group_bytes } => {
                write_group(&file, &group, position).await?;
                file.sync().await?;
                rounded_group(group_bytes)
            }
            DeviceOperation::Read => read_window(&file, position).await?,
        };
        let took = started.elapsed();
        stalls += u64::from(took >= limits::DISK_STALL);
        longest = longest.max(took);
        bytes += step;
        position += step;
        if position + step > FILE_BYTES {
            position = 0;
        }
    }
    let bytes_per_second = bytes as f64 / begin.elapsed().as_secs_f64();
    file.close().await?;
    Ok(DeviceSpeed { bytes_per_second, flush_p50_us, stalls, longest })
}

/// A group as the log writes it: whole blocks, and no more than the log's cap.
fn rounded_group(bytes: u64) -> u64 {
    bytes.clamp(1, limits::GROUP_BYTES_MAX as u64).next_multiple_of(limits::BLOCK_BYTES as u64)
}

/// The pieces of a group of `bytes`. Whole ones share their memory: the device does not care.
fn pieces<D: Disk>(disk: &D, bytes: u64) -> Vec<Rc<D::Buffer>> {
    let whole = filled(disk, limits::PIECE_BYTES);
    let mut pieces: Vec<_> = (0..bytes / limits::PIECE_BYTES as u64).map(|_| Rc::clone(&whole)).collect();
    let rest = (bytes % limits::PIECE_BYTES as u64) as usize;
    if rest > 0 {
        pieces.push(filled(disk, rest));
    }
    pieces
}

/// Bytes that are not all alike, so that nothing on the way can shorten them.
fn filled<D: Disk>(disk: &D, bytes: usize) -> Rc<D::Buffer> {
    let mut buffer = disk.allocate(bytes);
    for (index, byte) in buffer.as_mut_slice().iter_mut().enumerate() {
        *byte = (index as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3];
    }
    Rc::new(buffer)
}

/// Writes the pieces one after the other, all at once.
async fn write_group<F: DiskFile>(file: &F, pieces: &[Rc<F::Buffer>], start: u64) -> Result<(), DiskError> {
    let mut position = start;
    let writes: FuturesUnordered<_> = pieces
        .iter()
        .map(|piece| {
            let write = file.write(position, Rc::clone(piece));
            position += piece.as_slice().len() as u64;
            write
        })
        .collect();
    writes.try_collect::<Vec<()>>().await?;
    Ok(())
}

/// Reads as many blocks at once as a catch-up does. Returns the bytes.
async fn read_window<F: DiskFile>(file: &F, position: u64) -> Result<u64, DiskError> {
    let reads: FuturesUnordered<_> = (0..limits::READS_IN_FLIGHT_MAX as u64)
        .map(|index| file.read(position + index * limits::READ_BYTES as u64, limits::READ_BYTES))
        .collect();
    let read = reads.try_collect::<Vec<_>>().await?;
    Ok(read.iter().map(|bytes| bytes.len() as u64).sum())
}

/// Median time of one block written and flushed, microseconds.
async fn flush_p50<D: Disk>(disk: &D, file: &D::File) -> Result<f64, DiskError> {
    let block = filled(disk, limits::BLOCK_BYTES);
    let mut times = Vec::with_capacity(FLUSH_ROUNDS);
    let begin = Instant::now();
    while times.len() < FLUSH_ROUNDS && begin.elapsed() < FLUSH_TIME {
        let position = (times.len() * limits::BLOCK_BYTES) as u64;
        let start = Instant::now();
        file.write(position, Rc::clone(&block)).await?;
        file.sync().await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok((median.as_nanos() as f64 / 10.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_whole_blocks_within_the_cap() {
        assert_eq!([1, 4096, 4097, 300_000].map(rounded_group), [4096, 4096, 8192, 303_104]);
        assert_eq!(rounded_group(u64::MAX), limits::GROUP_BYTES_MAX as u64);
    }
}
