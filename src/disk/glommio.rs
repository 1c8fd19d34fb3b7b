//! The real disk: direct I/O through glommio's io_uring.
//!
//! Fences around glommio 0.9, each for a fault that was met:
//!
//! * It decides per thread and device whether a device can be polled, by reading the first file opened there. An empty
//!   one is taken for pollable, and every later read fails. [`GlommioDisk::attach`] therefore opens a file that is not
//!   empty before anything else.
//! * Errors reach us wrapped, with the operating system's code inside: `failed` digs it out.
//! * `pre_allocate` with `keep_size` leaves extents after the end of the file, which sends every write to a kernel
//!   worker; space is reserved with the size set.
//! * A FIFO that nobody writes to is opened for ever, and O_NONBLOCK would have io_uring fail reads of regular files on some
//!   kernels instead of waiting: what has a file's name is looked at before it is opened.
//! * `Directory::open` takes a relative path for one below descriptor -1, and fails; it gets absolute ones.
#![allow(unsafe_code)]

use std::cell::OnceCell;
use std::ffi::CString;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::GlommioError;
use glommio::io::{BufferedFile, Directory, DmaBuffer, DmaFile, OpenOptions, ReadResult};

use super::plain::{has_other_names, list_names};
use super::{Disk, DiskBuffer, DiskError, DiskErrorKind, DiskFile, OpenMode, Operation, Space};
use crate::limits;

/// How files are accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// O_DIRECT: what is written has left the page cache behind.
    Direct,
    /// Through the page cache, for file systems without direct I/O. For trying things out: a flush still reaches the
    /// device, but speed and latency are the page cache's.
    Buffered,
}

/// The file system, seen from one glommio executor.
#[derive(Clone, Debug)]
pub struct GlommioDisk {
    access: Access,
    probe_error: Option<Rc<DiskError>>,
}

/// An open file.
pub struct GlommioFile {
    handle: Handle,
    /// This file, opened once more for [`DiskFile::write_synced`], from its first call on; `None` inside: that did not work.
    synced: OnceCell<Option<DmaFile>>,
    path: PathBuf,
}

enum Handle {
    Direct(DmaFile),
    Buffered(BufferedFile),
}

/// What a read returns.
pub enum GlommioRead {
    Whole(ReadResult),
    /// A read that the kernel answered in parts.
    Assembled(Vec<u8>),
}

/// The disk error for a failed glommio call.
fn failed(operation: Operation, path: &Path, position: Option<u64>, error: GlommioError<()>) -> DiskError {
    let source = match error {
        GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => source,
        other => io::Error::other(other.to_string()),
    };
    DiskError::from_io(operation, path, position, &source)
}

/// What the probe holds.
const PROBE_BYTE: u8 = 0xB5;

impl GlommioDisk {
    /// Must be called on the executor that will use the disk, before it opens anything else on the device.
    ///
    /// Leaves a file `probe` of one block in `directory`, which must exist, or `probe-1` when something else has that name:
    /// see [`probe_error`](Self::probe_error). Fails with [`DiskErrorKind::NoDirectIo`] when the file system takes no direct
    /// I/O and `access` asks for it.
    pub async fn attach(directory: &Path, access: Access) -> Result<GlommioDisk, DiskError> {
        let (mut path, mut probe_error) = (directory.join("probe"), None);
        if let Err(error) = make_probe(&path) {
            path = directory.join("probe-1");
            // Where nothing can be made at all, the usual name is the one to tell.
            make_probe(&path).map_err(|other| DiskError {
                detail: format!("{}; nor can {} be used: {}", error.detail, path.display(), other.detail),
                ..error.clone()
            })?;
            probe_error = Some(Rc::new(error));
        }
        let disk = GlommioDisk { access, probe_error };
        let file = disk.open(&path, OpenMode::Existing).await?;
        file.read(0, limits::BLOCK_BYTES).await?;
        let mut block = disk.allocate(limits::BLOCK_BYTES);
        block.as_mut_slice().fill(PROBE_BYTE);
        file.write(0, Rc::new(block)).await?;
        file.close().await?;
        Ok(disk)
    }

    pub fn access(&self) -> Access {
        self.access
    }

    /// Why another file than `probe` is used.
    pub fn probe_error(&self) -> Option<&DiskError> {
        self.probe_error.as_deref()
    }
}

/// Makes the file one written block long. Several cores do so at once: none may ever see it shorter after its own call, so
/// it is not cut down first.
///
/// It is written at every start, and not with zeros: a tool that copies directories may have left a hole in its place, a
/// read of which never reaches the device, so that glommio would take a device that cannot be polled for one that can.
fn make_probe(path: &Path) -> Result<(), DiskError> {
    // A link in its place would have the file that it leads to written over, and a FIFO be waited for.
    if let Ok(found) = std::fs::symlink_metadata(path) {
        DiskError::check_regular(path, found.file_type())?;
    }
    let error = |error: io::Error| DiskError::from_io(Operation::Write, path, None, &error);
    let mut options = std::fs::File::options();
    options.create(true).truncate(false).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let mut file = options.open(path).map_err(error)?;
    file.write_all(&[PROBE_BYTE; limits::BLOCK_BYTES]).map_err(error)
}

impl DiskBuffer for DmaBuffer {
    fn as_slice(&self) -> &[u8] {
        self.as_bytes()
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        self.as_bytes_mut()
    }

    fn truncate(&mut self, bytes: usize) {
        self.trim_to_size(bytes);
    }
}

impl Deref for GlommioRead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            GlommioRead::Whole(result) => result,
            GlommioRead::Assembled(bytes) => bytes,
        }
    }
}

impl Disk for GlommioDisk {
    type Buffer = DmaBuffer;
    type File = GlommioFile;

    fn allocate(&self, bytes: usize) -> DmaBuffer {
        assert!(bytes.is_multiple_of(limits::BLOCK_BYTES) && bytes > 0, "a buffer of {bytes} bytes");
        glommio::allocate_dma_buffer(bytes)
    }

    async fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        std::fs::create_dir_all(path)
            .map_err(|error| DiskError::from_io(Operation::CreateDirectory, path, None, &error))
    }

    async fn list(&self, directory: &Path) -> Result<Vec<String>, DiskError> {
        list_names(directory)
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> Result<GlommioFile, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::ReadOnly => {}
            OpenMode::Existing => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).truncate(true);
            }
        }
        // Where this fails, opening it says what is wrong, if that is wrong at all.
        match std::fs::metadata(path) {
            Ok(found) => DiskError::check_regular(path, found.file_type())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => DiskError::check_not_dangling(path)?,
            Err(_) => {}
        }
        let error = |error| failed(Operation::Open, path, None, error);
        let handle = match self.access {
            Access::Direct => Handle::Direct(options.dma_open(path).await.map_err(error)?),
            Access::Buffered => Handle::Buffered(options.buffered_open(path).await.map_err(error)?),
        };
        Ok(GlommioFile { handle, synced: OnceCell::new(), path: path.to_owned() })
    }

    async fn has_other_names(&self, path: &Path) -> Result<bool, DiskError> {
        has_other_names(path)
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        glommio::io::rename(from, to).await.map_err(|error| failed(Operation::Rename, from, None, error))
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        glommio::io::remove(path).await.map_err(|error| failed(Operation::Remove, path, None, error))
    }

    async fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        let error = |error| failed(Operation::SyncDirectory, path, None, error);
        let absolute = std::path::absolute(path)
            .map_err(|error| DiskError::from_io(Operation::SyncDirectory, path, None, &error))?;
        let directory = Directory::open(absolute).await.map_err(error)?;
        let synced = directory.sync().await.map_err(error);
        directory.close().await.map_err(error)?;
        synced
    }

    async fn space(&self, directory: &Path) -> Result<Space, DiskError> {
        let error = |error: io::Error| DiskError::from_io(Operation::Space, directory, None, &error);
        let path = CString::new(directory.as_os_str().as_bytes()).map_err(|nul| error(nul.into()))?;
        let mut statistics = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: `path` is a NUL-terminated string and `statistics` has room for one `statvfs`.
        let result = unsafe { libc::statvfs(path.as_ptr(), statistics.as_mut_ptr()) };
        if result != 0 {
            return Err(error(io::Error::last_os_error()));
        }
        // SAFETY: `statvfs` returned success, so it filled the structure in.
        let statistics = unsafe { statistics.assume_init() };
        Ok(Space {
            total: statistics.f_blocks * statistics.f_frsize,
            available: statistics.f_bavail * statistics.f_frsize,
            used: (statistics.f_blocks - statistics.f_bfree) * statistics.f_frsize,
        })
    }
}

impl GlommioFile {
    fn error(&self, operation: Operation, position: Option<u64>, error: GlommioError<()>) -> DiskError {
        failed(operation, &self.path, position, error)
    }

    /// One read as the kernel answers it: possibly short, empty at the end of the file.
    async fn read_some(&self, position: u64, bytes: usize) -> Result<ReadResult, DiskError> {
        match &self.handle {
            Handle::Direct(file) => file.read_at_aligned(position, bytes).await,
            Handle::Buffered(file) => file.read_at(position, bytes).await,
        }
        .map_err(|error| self.error(Operation::Read, Some(position), error))
    }

    fn out_of_range(&self, position: u64) -> DiskError {
        DiskError {
            kind: DiskErrorKind::OutOfRange,
            operation: Operation::Read,
            path: self.path.clone(),
            position: Some(position),
            detail: "the file ends before".to_owned(),
        }
    }

    /// The file of `file`, opened once more, so that every write through it is durable when it returns: glommio sets no flags
    /// on single writes. By descriptor, since the file may have another name by now.
    async fn open_synced(&self, file: &DmaFile) -> Option<&DmaFile> {
        if self.synced.get().is_none() {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let opened = OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).dma_open(path).await;
            if let Err(Some(extra)) = self.synced.set(opened.ok()) {
                // Another call was faster.
                let _ = extra.close().await;
            }
        }
        self.synced.get()?.as_ref()
    }

    /// Completes a short write: what is left is written again from a block boundary, in a buffer of its own.
    async fn write_rest(
        &self,
        file: &DmaFile,
        position: u64,
        bytes: &[u8],
        done: usize,
    ) -> Result<(), DiskError> {
        let mut done = done - done % limits::BLOCK_BYTES;
        while done < bytes.len() {
            let mut rest = glommio::allocate_dma_buffer(bytes.len() - done);
            rest.as_bytes_mut().copy_from_slice(&bytes[done..]);
            let at = position + done as u64;
            let written = file
                .write_at(rest, at)
                .await
                .map_err(|error| self.error(Operation::Write, Some(at), error))?;
            if written < limits::BLOCK_BYTES {
                let error = io::Error::from_raw_os_error(libc::EIO);
                return Err(DiskError::from_io(Operation::Write, &self.path, Some(at), &error));
            }
            done += written - written % limits::BLOCK_BYTES;
        }
        Ok(())
    }
}

fn assert_aligned(position: u64, bytes: usize) {
    let block = limits::BLOCK_BYTES as u64;
    assert!(position.is_multiple_of(block), "position {position} is no block boundary");
    assert!((bytes as u64).is_multiple_of(block) && bytes > 0, "{bytes} bytes are no blocks");
}

impl DiskFile for GlommioFile {
    type Buffer = DmaBuffer;
    type ReadBuffer = GlommioRead;

    async fn size(&self) -> Result<u64, DiskError> {
        match &self.handle {
            Handle::Direct(file) => file.file_size().await,
            Handle::Buffered(file) => file.file_size().await,
        }
        .map_err(|error| self.error(Operation::Size, None, error))
    }

    async fn preallocate(&self, bytes: u64) -> Result<(), DiskError> {
        match &self.handle {
            Handle::Direct(file) => file.pre_allocate(bytes, false).await,
            Handle::Buffered(file) => file.pre_allocate(bytes, false).await,
        }
        .map_err(|error| self.error(Operation::Preallocate, None, error))
    }

    async fn write(&self, position: u64, buffer: Rc<DmaBuffer>) -> Result<(), DiskError> {
        assert_aligned(position, buffer.len());
        let error = |error| self.error(Operation::Write, Some(position), error);
        match &self.handle {
            Handle::Direct(file) => {
                let written = file.write_rc_at(buffer.clone(), position).await.map_err(error)?;
                if written < buffer.len() {
                    self.write_rest(file, position, buffer.as_bytes(), written).await?;
                }
            }
            Handle::Buffered(file) => {
                let mut done = 0;
                while done < buffer.len() {
                    let rest = buffer.as_bytes()[done..].to_vec();
                    done += file.write_at(rest, position + done as u64).await.map_err(error)?;
                }
            }
        }
        Ok(())
    }

    /// One operation of the kernel: two waits for the device and for this core less than a write and a flush.
    async fn write_synced(&self, position: u64, buffer: Rc<DmaBuffer>) -> Result<(), DiskError> {
        let synced = match &self.handle {
            Handle::Direct(file) => self.open_synced(file).await,
            Handle::Buffered(_) => None,
        };
        let Some(file) = synced else {
            self.write(position, buffer).await?;
            return self.sync().await;
        };
        assert_aligned(position, buffer.len());
        let error = |error| self.error(Operation::Write, Some(position), error);
        let written = file.write_rc_at(buffer.clone(), position).await.map_err(error)?;
        if written < buffer.len() {
            self.write_rest(file, position, buffer.as_bytes(), written).await?;
        }
        Ok(())
    }

    async fn read(&self, position: u64, bytes: usize) -> Result<GlommioRead, DiskError> {
        assert_aligned(position, bytes);
        let first = self.read_some(position, bytes).await?;
        if first.len() == bytes {
            return Ok(GlommioRead::Whole(first));
        }
        let mut assembled = first.to_vec();
        // Direct I/O goes on at a block boundary only.
        assembled.truncate(assembled.len() - assembled.len() % limits::BLOCK_BYTES);
        while assembled.len() < bytes {
            let at = position + assembled.len() as u64;
            let more = self.read_some(at, bytes - assembled.len()).await?;
            let blocks = more.len() - more.len() % limits::BLOCK_BYTES;
            if blocks == 0 {
                return Err(self.out_of_range(at));
            }
            assembled.extend_from_slice(&more[..blocks]);
        }
        Ok(GlommioRead::Assembled(assembled))
    }

    async fn sync(&self) -> Result<(), DiskError> {
        match &self.handle {
            Handle::Direct(file) => file.fdatasync().await,
            Handle::Buffered(file) => file.fdatasync().await,
        }
        .map_err(|error| self.error(Operation::Sync, None, error))
    }

    async fn close(self) -> Result<(), DiskError> {
        let path = self.path;
        let error = |error| failed(Operation::Close, &path, None, error);
        let synced = match self.synced.into_inner().flatten() {
            Some(file) => file.close().await.map_err(error),
            None => Ok(()),
        };
        match self.handle {
            Handle::Direct(file) => file.close().await,
            Handle::Buffered(file) => file.close().await,
        }
        .map_err(error)?;
        synced
    }
}
