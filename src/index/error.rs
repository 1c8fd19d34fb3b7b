//! What can go wrong with the index.

use std::path::PathBuf;

use super::block::BlockError;
use crate::disk::DiskError;
use crate::types::{QueueKey, QueueOffset};

/// A failed operation of the index. None loses messages: the index can be made again from the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The block is lost. The owner opens the index without a snapshot and replays the whole log.
    #[error("{}: the index block at byte {position}: {reason}", file.display())]
    Damaged { file: PathBuf, position: u64, reason: BlockError },
    /// The snapshot is not usable. The owner goes on as after `Damaged`.
    #[error("the snapshot of the index: {0}")]
    Snapshot(#[from] SnapshotError),
    /// A replayed batch does not follow what the index knows: snapshot and log do not belong together. The owner goes
    /// on as after `Damaged`.
    #[error("{key}: the log has a batch at offset {base_offset}, but the index is at {end}")]
    Disagreement { key: QueueKey, base_offset: QueueOffset, end: QueueOffset },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl IndexError {
    /// What clients are told of it: see [`DiskError::without_path`].
    pub fn without_path(&self) -> String {
        match self {
            IndexError::Damaged { reason, .. } => format!("a block of it: {reason}"),
            IndexError::Disk(error) => error.without_path(),
            IndexError::Snapshot(_) | IndexError::Disagreement { .. } => self.to_string(),
        }
    }
}

/// Why bytes are not a snapshot that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("it ends early, or too late")]
    Length,
    #[error("these bytes are something else")]
    Magic,
    #[error("version {0} is not known to this release")]
    Version(u32),
    #[error("the checksum does not match")]
    Checksum,
    #[error("it was made in epoch {snapshot}, which is not before epoch {current}")]
    Epoch { snapshot: u32, current: u32 },
    #[error("its list of segments contradicts itself")]
    Segments,
    #[error("its part about {0} contradicts itself")]
    Queue(QueueKey),
    #[error("a block in it: {0}")]
    Block(#[from] BlockError),
}
