//! What can go wrong with a log.

use std::rc::Rc;

use crate::disk::DiskError;
use crate::types::LogPosition;

/// Why a log does not open. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("{file} was made by a newer release ({what}): start that release, or use another data directory")]
    Newer { file: String, what: String },
    #[error("the log in {directory} contradicts itself: {detail}")]
    Contradiction { directory: String, detail: String },
    #[error("{file} holds no readable manifest, but the directory has segments: restore it from a copy")]
    ManifestLost { file: String },
    #[error("{file} does not hold what was just written to it: the disk is failing")]
    ManifestNotStored { file: String },
    #[error("{file} belongs to shard {found}, not to shard {expected}: the directories were mixed up")]
    WrongShard { file: String, found: u16, expected: u16 },
}

/// The first write or flush that failed. Everything that waited gets it; it is final until the next start.
#[derive(Clone, Debug)]
pub struct LogFailure {
    pub error: Rc<DiskError>,
    /// Batches from `durable_end` up to here were handed to the disk: whether they are stored is not known. Those
    /// behind it were not, and are not stored.
    pub unknown_end: LogPosition,
}

/// Why a batch was not placed.
#[derive(Clone, Debug)]
pub enum AppendRefusal {
    /// The open group is full, or the next segment is being prepared: wait for [`super::CommitLog::room`].
    Wait,
    /// The file system is full and no segment is left.
    NoSpace,
    /// The next segment cannot be made for another reason, and none is left; it is tried on.
    NoSegment(Rc<DiskError>),
    /// The log has failed.
    Failed(LogFailure),
}
