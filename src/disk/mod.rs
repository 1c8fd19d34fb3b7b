//! The seam between the broker and a file system: everything above is generic over [`Disk`], so that the same code
//! runs over io_uring (`glommio`), over memory (`memory`) and over a disk that fails on a seeded plan (`faulty`). Each of
//! them can have a bound on its open files put around it (`bounded`). Tools that only look at files read them with plain
//! system calls (`plain`).
//!
//! Contract, for every implementation:
//!
//! 1. Positions and lengths of reads and writes are multiples of [`BLOCK_BYTES`](crate::limits::BLOCK_BYTES); a breach
//!    is a programmer's error and panics.
//! 2. A write is done or failed: short writes are completed inside. After a failed write the range holds any mixture
//!    of old and new bytes. Nothing written is durable before a later [`DiskFile::sync`] has returned;
//!    [`DiskFile::write_synced`] is both in one, for its own bytes only.
//! 3. A read returns exactly the bytes asked for, or fails. Reading beyond the end of a file is an error of kind
//!    [`DiskErrorKind::OutOfRange`].
//! 4. Creating, renaming and removing are durable after [`Disk::sync_directory`] of the parent.
//! 5. Futures are driven to their end: dropping one leaves the outcome unknown, so nobody above races or cancels them.

pub mod bounded;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
pub mod glommio;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
#[cfg(any(test, feature = "testing"))]
mod pages;
pub mod plain;
mod slice;

use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;

pub use error::{DiskError, DiskErrorKind, Operation};
pub use slice::{BufferSlice, Memory, Whole};

/// Memory aligned for direct I/O. Made by [`Disk::allocate`]; its contents are arbitrary until written.
pub trait DiskBuffer: 'static {
    fn as_slice(&self) -> &[u8];
    fn as_mut_slice(&mut self) -> &mut [u8];
    /// Shortens the buffer to `bytes`; it never grows again.
    fn truncate(&mut self, bytes: usize);
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; for reading and writing.
    Existing,
    /// It must exist; for reading only.
    ReadOnly,
    /// Made when missing, emptied when there.
    Create,
}

/// Room on the file system that holds a directory, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    /// What this process may still use.
    pub available: u64,
    /// What is taken. The rest is kept for others.
    pub used: u64,
}

/// A file system, as one executor uses it. Cheap to clone.
pub trait Disk: Clone + 'static {
    type Buffer: DiskBuffer;
    type File: DiskFile<Buffer = Self::Buffer>;

    /// A buffer of `bytes` (a multiple of the block size), contents arbitrary.
    fn allocate(&self, bytes: usize) -> Self::Buffer;
    /// Makes a directory and its parents; one that exists is fine.
    async fn create_directory(&self, path: &Path) -> Result<(), DiskError>;
    /// Names of the entries, sorted.
    async fn list(&self, directory: &Path) -> Result<Vec<String>, DiskError>;
    async fn open(&self, path: &Path, mode: OpenMode) -> Result<Self::File, DiskError>;
    /// Whether a file can be reached by another name as well: it has several hard links, or `path` is a symbolic link. What
    /// is written to it changes under that name too.
    async fn has_other_names(&self, path: &Path) -> Result<bool, DiskError>;
    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;
    async fn remove(&self, path: &Path) -> Result<(), DiskError>;
    /// Makes creations, renames and removals in `path` durable.
    async fn sync_directory(&self, path: &Path) -> Result<(), DiskError>;
    async fn space(&self, directory: &Path) -> Result<Space, DiskError>;
}

/// An open file. Calls may overlap, but writes that overlap in range must not. [`close`](DiskFile::close) is explicit.
pub trait DiskFile: 'static {
    type Buffer: DiskBuffer;
    /// What a read returns: shared, immutable bytes.
    type ReadBuffer: Deref<Target = [u8]> + 'static;

    async fn size(&self) -> Result<u64, DiskError>;
    /// Sets the size to `bytes` with all blocks reserved, so that no later write below it can run out of space. New
    /// bytes read as zero.
    async fn preallocate(&self, bytes: u64) -> Result<(), DiskError>;
    /// Writes the whole buffer. It stays shared: readers may use it meanwhile.
    async fn write(&self, position: u64, buffer: Rc<Self::Buffer>) -> Result<(), DiskError>;
    /// Writes the whole buffer and returns when it is durable, together with what [`preallocate`] changed before. What
    /// other writes left unsynced is not covered. After a failure nothing is known of the range, as after a failed
    /// `sync`.
    ///
    /// [`preallocate`]: DiskFile::preallocate
    async fn write_synced(&self, position: u64, buffer: Rc<Self::Buffer>) -> Result<(), DiskError> {
        self.write(position, buffer).await?;
        self.sync().await
    }
    async fn read(&self, position: u64, bytes: usize) -> Result<Self::ReadBuffer, DiskError>;
    /// Makes all completed writes durable (fdatasync). After a failure nothing written since the last success is known
    /// to be there, and trying again proves nothing.
    async fn sync(&self) -> Result<(), DiskError>;
    /// From now on the file is used again and again, and nobody may have to wait for it: a disk that closes files which
    /// are not used leaves it open.
    fn keep_open(&self) {}
    /// The opposite: it is used seldom from now on, and not written any more.
    async fn let_go(&self) -> Result<(), DiskError> {
        Ok(())
    }
    async fn close(self) -> Result<(), DiskError>;
}
