//! What the device under the data directory can do, measured in a few milliseconds at every start.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::disk::glommio::GlommioDisk;
use crate::disk::{Disk, DiskBuffer, DiskError, DiskFile, OpenMode};
use crate::limits::{BLOCK_BYTES, GROUP_BYTES_MAX, PIECE_BYTES};

const FLUSHES: usize = 15;
const GROUPS: usize = 4;

/// The result of `measure`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceSpeed {
    /// Median time of one 4 KiB write and its flush, over blocks written before.
    pub flush_p50: Duration,
    pub flush_count: usize,
    /// Groups of 2 MiB in 256 KiB pieces, each flushed.
    pub bytes_per_second: u64,
}

/// Measures with a file of its own in `directory`, which it removes. Fails when something else has that file's name.
pub(super) async fn measure(disk: &GlommioDisk, directory: &Path) -> Result<DeviceSpeed, DiskError> {
    let path = directory.join("probe-speed");
    // Neither is a link followed, to a file that would be cut.
    if let Ok(found) = std::fs::symlink_metadata(&path) {
        DiskError::check_regular(&path, found.file_type())?;
    }
    let file = disk.open(&path, OpenMode::Create).await?;
    // At once: a start that is refused for another core's shard ends the process while this is going on.
    let removed = disk.remove(&path).await;
    let measured = measure_file(disk, &file).await;
    file.close().await?;
    removed?;
    measured
}

async fn measure_file<F: DiskFile<Buffer = <GlommioDisk as Disk>::Buffer>>(
    disk: &GlommioDisk,
    file: &F,
) -> Result<DeviceSpeed, DiskError> {
    file.preallocate(GROUP_BYTES_MAX as u64).await?;
    // The first round writes the blocks, so that those measured need no journal commit.
    write_group(disk, file).await?;
    let started = Instant::now();
    for _ in 0..GROUPS {
        write_group(disk, file).await?;
    }
    let took = started.elapsed();
    let mut flushes = Vec::with_capacity(FLUSHES);
    for _ in 0..FLUSHES {
        let started = Instant::now();
        file.write(0, Rc::new(zeros(disk, BLOCK_BYTES))).await?;
        file.sync().await?;
        flushes.push(started.elapsed());
    }
    flushes.sort();
    let bytes = (GROUPS * GROUP_BYTES_MAX) as f64;
    Ok(DeviceSpeed {
        flush_p50: flushes[FLUSHES / 2],
        flush_count: FLUSHES,
        bytes_per_second: (bytes / took.as_secs_f64()) as u64,
    })
}

async fn write_group<F: DiskFile<Buffer = <GlommioDisk as Disk>::Buffer>>(
    disk: &GlommioDisk,
    file: &F,
) -> Result<(), DiskError> {
    let pieces = (0..GROUP_BYTES_MAX).step_by(PIECE_BYTES);
    let writes = pieces.map(|at| file.write(at as u64, Rc::new(zeros(disk, PIECE_BYTES))));
    join_all(writes).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    file.sync().await
}

fn zeros(disk: &GlommioDisk, bytes: usize) -> <GlommioDisk as Disk>::Buffer {
    let mut buffer = disk.allocate(bytes);
    buffer.as_mut_slice().fill(0);
    buffer
}
