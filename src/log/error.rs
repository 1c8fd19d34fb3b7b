//! What can go wrong with a log.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::expectation::{Contradiction, Flaw};
use crate::disk::DiskError;
use crate::types::LogPosition;

/// Why a log does not open, or is not repaired. But for [`OpenError::Interrupted`], nothing was changed on disk.
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
    #[error("{}", lacking(directory, contradictions))]
    Lacking { directory: PathBuf, contradictions: Vec<Contradiction> },
    #[error(
        "{file} is of a node with {made} shards, and turbopump.toml says {described}: write `shards = {made}` there again"
    )]
    WrongShardCount { file: String, made: u16, described: u16 },
    #[error("{file} does not hold what was just written to it: the disk is failing")]
    ManifestNotStored { file: String },
    #[error("{file} belongs to shard {found}, not to shard {expected}: the directories were mixed up")]
    WrongShard { file: String, found: u16, expected: u16 },
    /// A repair that could not begin.
    #[error("{error}; nothing was changed in {}", directory.display())]
    NotRepaired { directory: PathBuf, error: Box<OpenError> },
    /// A repair that has begun.
    #[error("{error}; {}", interrupted(directory))]
    Interrupted { directory: PathBuf, error: Box<OpenError> },
}

/// The first write or flush that failed. Everything that waited gets it; it is final until the next start.
#[derive(Clone, Debug)]
pub struct LogFailure {
    pub error: Rc<DiskError>,
    /// Batches from `durable_end` up to here were handed to the disk: whether they are stored is not known. Those
    /// after it were not, and are not stored.
    pub unknown_end: LogPosition,
}

/// Why a batch was not placed.
#[derive(Clone, Debug)]
pub enum AppendRefusal {
    /// The open group is full, or the next segment is being prepared: wait for [`super::CommitLog::space_freed`].
    Wait,
    /// The file system is full and no segment is left.
    NoSpace,
    /// The next segment cannot be made for another reason, and none is left; it is tried on.
    NoSegment(Rc<DiskError>),
    /// The log has failed.
    Failed(LogFailure),
}

/// Contradictions that are named one by one.
const NAMED_MAX: usize = 8;

/// The data directory: the log of shard s is DIR/shard-s/log.
fn data_directory(directory: &Path) -> &Path {
    directory.parent().and_then(Path::parent).unwrap_or(directory)
}

/// How a repair that was interrupted goes on.
fn interrupted(directory: &Path) -> String {
    let data = data_directory(directory).display();
    let log = directory.display();
    format!("a repair of {log} was interrupted: `turbopump log repair --data {data} --yes` goes on with it")
}

/// What is wrong with a log, and how to go on.
fn lacking(directory: &Path, contradictions: &[Contradiction]) -> String {
    if let Some(found) = contradictions.iter().find(|found| found.flaw == Flaw::Interrupted) {
        let plan = &found.file;
        return format!("{}. {plan} says what is left to do. Nothing was changed", interrupted(directory));
    }
    let mut text = format!("the log in {} is not what was written there:\n", directory.display());
    for contradiction in contradictions.iter().take(NAMED_MAX) {
        text += &format!("  {contradiction}\n");
    }
    if let Some(more) = contradictions.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        text += &format!("  and {more} more\n");
    }
    let data = data_directory(directory).display();
    text + &format!(
        "nothing was changed. Put the files back (is something not mounted?), or go on without what is missing: \
         `turbopump log repair --data {data}` says what that gives up, and does it with --yes"
    )
}
