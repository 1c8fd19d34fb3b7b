//! What can go wrong on a disk.

use std::fmt;
use std::fs::FileType;
use std::io;
use std::path::{Path, PathBuf};

use crate::types::not_regular;

/// The operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    CreateDirectory,
    List,
    Open,
    Names,
    Rename,
    Remove,
    SyncDirectory,
    Space,
    Size,
    Preallocate,
    Write,
    Read,
    Sync,
    Close,
}

/// What the caller can tell apart; decided by error codes, never by texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// ENOSPC or EDQUOT.
    NoSpace,
    NotFound,
    /// The file system refuses direct I/O (EINVAL on open or on the first access).
    NoDirectIo,
    PermissionDenied,
    /// A read beyond the end of the file.
    OutOfRange,
    /// A directory, a FIFO, a socket or a device has the name of a file, or something else than a directory has that of one.
    NotRegular,
    /// Anything else: the device or the file system failed.
    Failed,
}

/// A failed disk operation. Cheap enough to keep and hand to everyone who waited for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    pub kind: DiskErrorKind,
    pub operation: Operation,
    pub path: PathBuf,
    pub position: Option<u64>,
    /// The operating system's words.
    pub detail: String,
}

impl DiskError {
    pub fn from_io(operation: Operation, path: &Path, position: Option<u64>, error: &io::Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(libc::ENOSPC) | Some(libc::EDQUOT) => DiskErrorKind::NoSpace,
            Some(libc::ENOENT) => DiskErrorKind::NotFound,
            Some(libc::EACCES) | Some(libc::EPERM) | Some(libc::EROFS) => DiskErrorKind::PermissionDenied,
            Some(libc::EINVAL) | Some(libc::EOPNOTSUPP) => DiskErrorKind::NoDirectIo,
            _ if error.kind() == io::ErrorKind::NotFound => DiskErrorKind::NotFound,
            _ if error.kind() == io::ErrorKind::UnexpectedEof => DiskErrorKind::OutOfRange,
            _ => DiskErrorKind::Failed,
        };
        Self { kind, operation, path: path.to_owned(), position, detail: error.to_string() }
    }

    /// Fails when nothing that can be opened has the name, but something does: a symbolic link that leads nowhere. It is
    /// no file that is missing, which may be made anew: what it leads to would be made, wherever that is.
    pub fn check_not_dangling(path: &Path) -> Result<(), Self> {
        Self::check_link(Operation::Open, path, "a regular file")
    }

    /// Fails when something else than a directory has the name, a symbolic link that leads nowhere among it.
    pub fn check_directory(path: &Path) -> Result<(), Self> {
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(found) => {
                let what = not_regular(found.file_type()).unwrap_or("a file");
                Err(Self::wrong_kind(Operation::List, path, format!("{what}, and must be a directory")))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::check_link(Operation::List, path, "a directory")
            }
            Err(error) => Err(Self::from_io(Operation::List, path, None, &error)),
        }
    }

    /// What clients are told of it: not where it is, which is the operator's business.
    pub fn without_path(&self) -> String {
        let why = match self.kind {
            // The words name what a link leads to.
            DiskErrorKind::NotRegular => "something else has its name",
            _ => &self.detail,
        };
        let what = match self.operation {
            Operation::CreateDirectory | Operation::SyncDirectory => "",
            Operation::List => " a directory",
            _ => " a file",
        };
        format!("cannot {}{what}: {why}", self.operation.verb())
    }

    fn check_link(operation: Operation, path: &Path, wanted: &str) -> Result<(), Self> {
        let Ok(target) = std::fs::read_link(path) else { return Ok(()) };
        let target = target.display();
        let what = format!("a symbolic link to {target}, which is not there, and must be {wanted}");
        Err(Self::wrong_kind(operation, path, what))
    }

    fn wrong_kind(operation: Operation, path: &Path, what: String) -> Self {
        let (kind, path, detail) = (DiskErrorKind::NotRegular, path.to_owned(), format!("it is {what}"));
        Self { kind, operation, path, position: None, detail }
    }

    /// Fails when what is to be opened is no regular file.
    pub fn check_regular(path: &Path, found: FileType) -> Result<(), Self> {
        let Some(what) = not_regular(found) else { return Ok(()) };
        Err(Self::wrong_kind(Operation::Open, path, format!("{what}, and must be a regular file")))
    }
}

impl Operation {
    fn verb(self) -> &'static str {
        match self {
            Operation::CreateDirectory => "create directory",
            Operation::List => "list",
            Operation::Open => "open",
            Operation::Names => "count the names of",
            Operation::Rename => "rename",
            Operation::Remove => "remove",
            Operation::SyncDirectory => "sync directory",
            Operation::Space => "ask the free space of",
            Operation::Size => "ask the size of",
            Operation::Preallocate => "reserve space for",
            Operation::Write => "write",
            Operation::Read => "read",
            Operation::Sync => "flush",
            Operation::Close => "close",
        }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {} {}", self.operation.verb(), self.path.display())?;
        if let Some(position) = self.position {
            write!(formatter, " at byte {position}")?;
        }
        write!(formatter, ": {}", self.detail)
    }
}

impl std::error::Error for DiskError {}
