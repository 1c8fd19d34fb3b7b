//! Reading only, on plain system calls: for tools that look at a stopped broker's files. Needs neither io_uring nor a
//! file system that can be written to; every change is refused.
//!
//! Calls block the thread that makes them, so a program that uses it does nothing else meanwhile. Files are read past the
//! page cache where the file system takes that, since what is cached may differ from what is stored.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{Disk, DiskBuffer, DiskError, DiskErrorKind, DiskFile, OpenMode, Operation, Space};
use crate::limits::BLOCK_BYTES;

/// The names in a directory, sorted. A name that is not UTF-8 is none of ours, and left out.
pub(super) fn list_names(directory: &Path) -> Result<Vec<String>, DiskError> {
    let error = |error: io::Error| DiskError::from_io(Operation::List, directory, None, &error);
    let mut names = Vec::new();
    let entries = std::fs::read_dir(directory);
    if entries.is_err() {
        DiskError::check_directory(directory)?;
    }
    for entry in entries.map_err(error)? {
        names.extend(entry.map_err(error)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// What [`Disk::has_other_names`] answers of a file system.
pub(super) fn has_other_names(path: &Path) -> Result<bool, DiskError> {
    let found = std::fs::symlink_metadata(path)
        .map_err(|error| DiskError::from_io(Operation::Names, path, None, &error))?;
    Ok(found.is_symlink() || found.nlink() > 1)
}

/// The file system, for reading.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainDisk;

/// An open file.
#[derive(Debug)]
pub struct PlainFile {
    file: File,
    path: PathBuf,
}

/// Memory at a block boundary, as direct I/O wants it.
#[derive(Debug)]
pub struct PlainBuffer {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl PlainBuffer {
    fn new(bytes: usize) -> Self {
        let memory = vec![0; bytes + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES, "memory that cannot be aligned");
        Self { memory, start, bytes }
    }
}

impl DiskBuffer for PlainBuffer {
    fn as_slice(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.bytes]
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }

    fn truncate(&mut self, bytes: usize) {
        self.bytes = self.bytes.min(bytes);
    }
}

impl Deref for PlainBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// The answer to everything that would change something.
fn refused<T>(operation: Operation, path: &Path) -> Result<T, DiskError> {
    Err(DiskError {
        kind: DiskErrorKind::PermissionDenied,
        operation,
        path: path.to_owned(),
        position: None,
        detail: "files are only looked at".to_owned(),
    })
}

impl Disk for PlainDisk {
    type Buffer = PlainBuffer;
    type File = PlainFile;

    fn allocate(&self, bytes: usize) -> PlainBuffer {
        assert!(bytes.is_multiple_of(BLOCK_BYTES) && bytes > 0, "a buffer of {bytes} bytes");
        PlainBuffer::new(bytes)
    }

    async fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        refused(Operation::CreateDirectory, path)
    }

    async fn list(&self, directory: &Path) -> Result<Vec<String>, DiskError> {
        list_names(directory)
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> Result<PlainFile, DiskError> {
        if mode != OpenMode::ReadOnly {
            return refused(Operation::Open, path);
        }
        let error = |error: io::Error| DiskError::from_io(Operation::Open, path, None, &error);
        // Opening a device can do something to it, so what has the name is looked at before.
        let found = std::fs::metadata(path);
        if found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            DiskError::check_not_dangling(path)?;
        }
        DiskError::check_regular(path, found.map_err(error)?.file_type())?;
        let open = |flags| {
            // Without waiting: meanwhile the name may have gone to a FIFO.
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | flags).open(path)
        };
        let file = match open(libc::O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0),
            opened => opened,
        };
        let file = file.map_err(error)?;
        DiskError::check_regular(path, file.metadata().map_err(error)?.file_type())?;
        Ok(PlainFile { file, path: path.to_owned() })
    }

    async fn has_other_names(&self, path: &Path) -> Result<bool, DiskError> {
        has_other_names(path)
    }

    async fn rename(&self, from: &Path, _: &Path) -> Result<(), DiskError> {
        refused(Operation::Rename, from)
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        refused(Operation::Remove, path)
    }

    async fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        refused(Operation::SyncDirectory, path)
    }

    async fn space(&self, directory: &Path) -> Result<Space, DiskError> {
        refused(Operation::Space, directory)
    }
}

impl PlainFile {
    fn error(&self, operation: Operation, position: Option<u64>, error: &io::Error) -> DiskError {
        DiskError::from_io(operation, &self.path, position, error)
    }
}

impl DiskFile for PlainFile {
    type Buffer = PlainBuffer;
    type ReadBuffer = PlainBuffer;

    async fn size(&self) -> Result<u64, DiskError> {
        let metadata = self.file.metadata();
        metadata.map(|metadata| metadata.len()).map_err(|error| self.error(Operation::Size, None, &error))
    }

    async fn preallocate(&self, _: u64) -> Result<(), DiskError> {
        refused(Operation::Preallocate, &self.path)
    }

    async fn write(&self, _: u64, _: Rc<PlainBuffer>) -> Result<(), DiskError> {
        refused(Operation::Write, &self.path)
    }

    async fn read(&self, position: u64, bytes: usize) -> Result<PlainBuffer, DiskError> {
        let block = BLOCK_BYTES as u64;
        assert!(position.is_multiple_of(block), "position {position} is no block boundary");
        assert!((bytes as u64).is_multiple_of(block) && bytes > 0, "{bytes} bytes are no blocks");
        let mut buffer = PlainBuffer::new(bytes);
        let mut done = 0;
        while done < bytes {
            let at = position + done as u64;
            match self.file.read_at(&mut buffer.as_mut_slice()[done..], at) {
                Ok(count) if count > 0 && (count.is_multiple_of(BLOCK_BYTES) || done + count == bytes) => {
                    done += count;
                }
                // At the end of the file, which may lie within a block.
                Ok(_) => {
                    let end = io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before");
                    return Err(self.error(Operation::Read, Some(at), &end));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(Operation::Read, Some(at), &error)),
            }
        }
        Ok(buffer)
    }

    async fn sync(&self) -> Result<(), DiskError> {
        refused(Operation::Sync, &self.path)
    }

    async fn close(self) -> Result<(), DiskError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn whole_blocks_are_read_and_the_end_is_told() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..2 * BLOCK_BYTES + 100).map(|at| at as u8).collect();
        std::fs::write(&path, &content).expect("written");
        block_on(async {
            let file = PlainDisk.open(&path, OpenMode::ReadOnly).await.expect("it is there");
            assert_eq!(file.size().await.expect("a file"), content.len() as u64);
            let read = file.read(BLOCK_BYTES as u64, BLOCK_BYTES).await.expect("within the file");
            assert_eq!(read[..], content[BLOCK_BYTES..2 * BLOCK_BYTES]);
            for position in [BLOCK_BYTES, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES] {
                let beyond = file.read(position as u64, 2 * BLOCK_BYTES).await;
                assert_eq!(beyond.expect_err("beyond the end").kind, DiskErrorKind::OutOfRange);
            }
        });
    }

    #[test]
    fn other_names_are_seen() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name| directory.path().join(name);
        std::fs::write(at("file"), "kept").expect("written");
        let has_other_names = |name| block_on(PlainDisk.has_other_names(&at(name))).expect("it is there");
        assert!(!has_other_names("file"));
        std::os::unix::fs::symlink(at("file"), at("symbolic")).expect("a link");
        assert!(has_other_names("symbolic") && !has_other_names("file"));
        std::fs::hard_link(at("file"), at("hard")).expect("a link");
        assert!(has_other_names("file") && has_other_names("hard"));
        let missing = block_on(PlainDisk.has_other_names(&at("missing"))).expect_err("it is not there");
        assert_eq!(missing.kind, DiskErrorKind::NotFound);
    }

    #[test]
    fn nothing_is_changed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        std::fs::write(&path, "kept").expect("written");
        block_on(async {
            for refused in [
                PlainDisk.open(&path, OpenMode::Existing).await.map(drop),
                PlainDisk.open(&path, OpenMode::Create).await.map(drop),
                PlainDisk.remove(&path).await,
                PlainDisk.rename(&path, &directory.path().join("other")).await,
            ] {
                assert_eq!(refused.expect_err("a change").kind, DiskErrorKind::PermissionDenied);
            }
        });
        assert_eq!(std::fs::read(&path).expect("still there"), b"kept");
    }
}
