//! A mark beside the index's files that they are not to be trusted: damage was found in them, and no snapshot may bring
//! them back. It is durable before the answer to it begins, and goes when an index that was built anew is in a durable
//! snapshot.

use std::path::Path;
use std::rc::Rc;

use crate::disk::{Disk, DiskBuffer, DiskError, DiskErrorKind, DiskFile, OpenMode};
use crate::limits::BLOCK_BYTES;

pub(super) const NAME: &str = "distrusted";

/// Why the index in `directory` is not to be trusted; `None` when nothing is known against it.
pub async fn distrust<D: Disk>(disk: &D, directory: &Path) -> Result<Option<String>, DiskError> {
    let file = match disk.open(&directory.join(NAME), OpenMode::ReadOnly).await {
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let read = match file.size().await {
        Ok(bytes) if bytes >= BLOCK_BYTES as u64 => file.read(0, BLOCK_BYTES).await.map(Some),
        Ok(_) => Ok(None),
        Err(error) => Err(error),
    };
    file.close().await?;
    // The name alone is the mark; a death may have come before the reason was written.
    let reason = read?.map(|block| {
        let end = block.iter().position(|byte| *byte == 0).unwrap_or(block.len());
        String::from_utf8_lossy(&block[..end]).into_owned()
    });
    let reason = reason.filter(|reason| !reason.is_empty());
    Ok(Some(reason.unwrap_or_else(|| "it was found damaged".to_owned())))
}

/// Makes the mark; durable on return.
pub async fn mark_distrust<D: Disk>(disk: &D, directory: &Path, reason: &str) -> Result<(), DiskError> {
    let file = disk.open(&directory.join(NAME), OpenMode::Create).await?;
    let marked = write_reason(disk, &file, reason).await;
    file.close().await?;
    marked?;
    disk.sync_directory(directory).await
}

/// Takes the mark away. It may come back after a crash, which costs one more building of the index.
pub async fn clear_distrust<D: Disk>(disk: &D, directory: &Path) -> Result<(), DiskError> {
    match disk.remove(&directory.join(NAME)).await {
        Err(error) if error.kind != DiskErrorKind::NotFound => Err(error),
        _ => disk.sync_directory(directory).await,
    }
}

async fn write_reason<D: Disk>(disk: &D, file: &D::File, reason: &str) -> Result<(), DiskError> {
    let mut block = disk.allocate(BLOCK_BYTES);
    let bytes = reason.len().min(BLOCK_BYTES);
    block.as_mut_slice().fill(0);
    block.as_mut_slice()[..bytes].copy_from_slice(&reason.as_bytes()[..bytes]);
    file.preallocate(BLOCK_BYTES as u64).await?;
    file.write(0, Rc::new(block)).await?;
    file.sync().await
}
