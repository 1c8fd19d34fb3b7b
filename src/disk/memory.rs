//! A disk in memory: no faults, no delays, nothing to lose. For tests of what stands above the seam.
//!
//! It is as strict as a real disk about the contract in [`crate::disk`]: it refuses what direct I/O would refuse, and
//! buffers come filled with [`STALE_BYTE`], so that nobody grows used to zeros.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;

use super::pages::{Page, Pages, cut};
use super::{Disk, DiskBuffer, DiskError, DiskErrorKind, DiskFile, OpenMode, Operation, Space};
use crate::limits::BLOCK_BYTES;

/// What a new buffer is filled with.
pub const STALE_BYTE: u8 = 0xa5;
/// The size that the disk claims to have.
pub const TOTAL_BYTES: u64 = 1 << 44;

/// A file system in memory. A clone is the same file system.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    /// By normal path: a directory lies right before what it holds.
    entries: RefCell<BTreeMap<PathBuf, Entry>>,
    open_files: Cell<usize>,
    is_read_only: Cell<bool>,
}

#[derive(Clone)]
enum Entry {
    Directory,
    File(Rc<RefCell<Pages>>),
}

/// A buffer for direct I/O; in memory there is nothing to align.
#[derive(Debug)]
pub struct MemoryBuffer {
    bytes: Vec<u8>,
    /// Whether all bytes are zero, once somebody has looked. Segments are prepared by writing one buffer of zeros many
    /// times; looking at it each time would cost more than all the rest of a test.
    is_zero: Cell<Option<bool>>,
}

/// An open file of a [`MemoryDisk`]. It stays readable when it is renamed or removed.
pub struct MemoryFile {
    disk: Rc<State>,
    path: PathBuf,
    mode: OpenMode,
    contents: Rc<RefCell<Pages>>,
}

impl MemoryDisk {
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a file a second name, as a hard link does.
    ///
    /// # Panics
    ///
    /// When there is no such file.
    pub fn link(&self, from: &Path, to: &Path) {
        let entry = self.state.entry(Operation::Open, from).expect("a file to link to");
        assert!(matches!(entry, Entry::File(_)), "{} is a directory", from.display());
        self.state.entries.borrow_mut().insert(normal_path(to), entry);
    }

    /// From now on no file is opened for writing, as a file system does that its kernel has made read-only; or all are again.
    pub fn set_read_only(&self, is_read_only: bool) {
        self.state.is_read_only.set(is_read_only);
    }

    /// Files that were opened and not closed; one that was dropped without `close` counts for ever.
    pub fn open_files(&self) -> usize {
        self.state.open_files.get()
    }
}

impl State {
    fn entry(&self, operation: Operation, path: &Path) -> Result<Entry, DiskError> {
        let normal = normal_path(path);
        if normal.as_os_str().is_empty() {
            return Ok(Entry::Directory);
        }
        let entries = self.entries.borrow();
        let is_file = |above: &Path| matches!(entries.get(above), Some(Entry::File(_)));
        match entries.get(&normal) {
            Some(entry) => Ok(entry.clone()),
            None if normal.ancestors().any(is_file) => Err(os_error(operation, path, libc::ENOTDIR)),
            None => Err(os_error(operation, path, libc::ENOENT)),
        }
    }

    fn check_directory(&self, operation: Operation, path: &Path) -> Result<(), DiskError> {
        match self.entry(operation, path)? {
            Entry::Directory => Ok(()),
            Entry::File(_) => Err(os_error(operation, path, libc::ENOTDIR)),
        }
    }

    fn check_parent(&self, operation: Operation, path: &Path) -> Result<(), DiskError> {
        match normal_path(path).parent() {
            Some(parent) => self.check_directory(operation, parent),
            None => Err(os_error(operation, path, libc::EISDIR)),
        }
    }
}

impl Disk for MemoryDisk {
    type Buffer = MemoryBuffer;
    type File = MemoryFile;

    fn allocate(&self, bytes: usize) -> MemoryBuffer {
        MemoryBuffer::new(bytes)
    }

    async fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        let mut entries = self.state.entries.borrow_mut();
        let mut level = PathBuf::new();
        for name in normal_path(path).iter() {
            level.push(name);
            match entries.get(&level) {
                Some(Entry::File(_)) => {
                    return Err(os_error(Operation::CreateDirectory, path, libc::ENOTDIR));
                }
                Some(Entry::Directory) => {}
                None => _ = entries.insert(level.clone(), Entry::Directory),
            }
        }
        Ok(())
    }

    async fn list(&self, directory: &Path) -> Result<Vec<String>, DiskError> {
        self.state.check_directory(Operation::List, directory)?;
        let normal = normal_path(directory);
        let entries = self.state.entries.borrow();
        let below = entries.range(normal.clone()..).take_while(|(path, _)| path.starts_with(&normal));
        let children = below.filter(|(path, _)| path.parent() == Some(&normal));
        let names = children.filter_map(|(path, _)| path.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> Result<MemoryFile, DiskError> {
        self.state.check_parent(Operation::Open, path)?;
        if self.state.is_read_only.get() && mode != OpenMode::ReadOnly {
            return Err(os_error(Operation::Open, path, libc::EROFS));
        }
        let contents = match (self.state.entry(Operation::Open, path), mode) {
            (Ok(Entry::Directory), _) => return Err(os_error(Operation::Open, path, libc::EISDIR)),
            (Ok(Entry::File(contents)), OpenMode::Create) => {
                contents.borrow_mut().set_bytes(0);
                contents
            }
            (Ok(Entry::File(contents)), OpenMode::Existing | OpenMode::ReadOnly) => contents,
            (Err(error), OpenMode::Existing | OpenMode::ReadOnly) => return Err(error),
            (Err(_), OpenMode::Create) => {
                let contents = Rc::new(RefCell::new(Pages::default()));
                let entry = Entry::File(contents.clone());
                self.state.entries.borrow_mut().insert(normal_path(path), entry);
                contents
            }
        };
        self.state.open_files.set(self.state.open_files.get() + 1);
        Ok(MemoryFile { disk: self.state.clone(), path: path.to_owned(), mode, contents })
    }

    async fn has_other_names(&self, path: &Path) -> Result<bool, DiskError> {
        let Entry::File(contents) = self.state.entry(Operation::Names, path)? else { return Ok(false) };
        let entries = self.state.entries.borrow();
        let is_same = |entry: &&Entry| matches!(entry, Entry::File(other) if Rc::ptr_eq(other, &contents));
        Ok(entries.values().filter(is_same).count() > 1)
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let entry = self.state.entry(Operation::Rename, from)?;
        let refused = |path| Err(os_error(Operation::Rename, path, libc::EISDIR));
        // No module moves directories; refusing keeps the fakes alike.
        if matches!(entry, Entry::Directory) {
            return refused(from);
        }
        self.state.check_parent(Operation::Rename, to)?;
        if matches!(self.state.entry(Operation::Rename, to), Ok(Entry::Directory)) {
            return refused(to);
        }
        let mut entries = self.state.entries.borrow_mut();
        entries.remove(&normal_path(from));
        entries.insert(normal_path(to), entry);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        match self.state.entry(Operation::Remove, path)? {
            Entry::Directory => Err(os_error(Operation::Remove, path, libc::EISDIR)),
            Entry::File(_) => {
                self.state.entries.borrow_mut().remove(&normal_path(path));
                Ok(())
            }
        }
    }

    async fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.state.check_directory(Operation::SyncDirectory, path)
    }

    async fn space(&self, directory: &Path) -> Result<Space, DiskError> {
        self.state.check_directory(Operation::Space, directory)?;
        let entries = self.state.entries.borrow();
        let used = entries.values().fold(0u64, |used, entry| match entry {
            Entry::Directory => used,
            Entry::File(contents) => used.saturating_add(contents.borrow().bytes()),
        });
        Ok(Space { total: TOTAL_BYTES, available: TOTAL_BYTES.saturating_sub(used), used })
    }
}

impl DiskFile for MemoryFile {
    type Buffer = MemoryBuffer;
    type ReadBuffer = Bytes;

    async fn size(&self) -> Result<u64, DiskError> {
        Ok(self.contents.borrow().bytes())
    }

    async fn preallocate(&self, bytes: u64) -> Result<(), DiskError> {
        assert_writable(self.mode, &self.path);
        self.contents.borrow_mut().set_bytes(bytes);
        Ok(())
    }

    async fn write(&self, position: u64, buffer: Rc<MemoryBuffer>) -> Result<(), DiskError> {
        assert_writable(self.mode, &self.path);
        assert_aligned(&self.path, position, buffer.as_slice().len());
        self.contents.borrow_mut().write(position, &buffer.pages());
        Ok(())
    }

    async fn read(&self, position: u64, bytes: usize) -> Result<Bytes, DiskError> {
        assert_aligned(&self.path, position, bytes);
        let contents = self.contents.borrow();
        contents
            .read(position, bytes)
            .ok_or_else(|| out_of_range(&self.path, position, bytes, contents.bytes()))
    }

    async fn sync(&self) -> Result<(), DiskError> {
        Ok(())
    }

    async fn close(self) -> Result<(), DiskError> {
        self.disk.open_files.set(self.disk.open_files.get() - 1);
        Ok(())
    }
}

impl MemoryBuffer {
    pub(super) fn new(bytes: usize) -> Self {
        assert!(bytes.is_multiple_of(BLOCK_BYTES), "a buffer of {bytes} bytes is not made of whole blocks");
        Self { bytes: vec![STALE_BYTE; bytes], is_zero: Cell::new(None) }
    }

    /// A copy of the contents, which are whole blocks.
    pub(super) fn pages(&self) -> Rc<[Option<Page>]> {
        let is_zero = self.is_zero.get().unwrap_or_else(|| self.bytes.iter().all(|&byte| byte == 0));
        self.is_zero.set(Some(is_zero));
        match is_zero {
            true => vec![None; self.bytes.len() / BLOCK_BYTES].into(),
            false => cut(&self.bytes),
        }
    }
}

impl DiskBuffer for MemoryBuffer {
    fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        self.is_zero.set(None);
        &mut self.bytes
    }

    fn truncate(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes.len(), "a buffer of {} bytes does not grow to {bytes}", self.bytes.len());
        self.is_zero.set(None);
        self.bytes.truncate(bytes);
    }
}

/// Path without root and dots, so that `/data/a` and `data/./a` are the same file.
pub(super) fn normal_path(path: &Path) -> PathBuf {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            Component::ParentDir => panic!("the path {} goes upwards", path.display()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        })
        .collect()
}

pub(super) fn assert_aligned(path: &Path, position: u64, bytes: usize) {
    let path = path.display();
    assert!(position.is_multiple_of(BLOCK_BYTES as u64), "{path}: position {position} is not on a block");
    assert!(bytes.is_multiple_of(BLOCK_BYTES), "{path}: {bytes} bytes at {position} are not whole blocks");
}

pub(super) fn assert_writable(mode: OpenMode, path: &Path) {
    assert!(mode != OpenMode::ReadOnly, "{} was opened for reading", path.display());
}

/// The error that the operating system would give.
pub(super) fn os_error(operation: Operation, path: &Path, code: i32) -> DiskError {
    DiskError::from_io(operation, path, None, &io::Error::from_raw_os_error(code))
}

pub(super) fn out_of_range(path: &Path, position: u64, bytes: usize, size: u64) -> DiskError {
    DiskError {
        kind: DiskErrorKind::OutOfRange,
        operation: Operation::Read,
        path: path.to_owned(),
        position: Some(position),
        detail: format!("{bytes} bytes are not all inside the file of {size} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    fn filled(disk: &MemoryDisk, bytes: usize, with: u8) -> Rc<MemoryBuffer> {
        let mut buffer = disk.allocate(bytes);
        buffer.as_mut_slice().fill(with);
        Rc::new(buffer)
    }

    fn new_file(disk: &MemoryDisk, path: &str) -> MemoryFile {
        let path = Path::new(path);
        block_on(disk.create_directory(path.parent().expect("a parent"))).expect("create directory");
        block_on(disk.open(path, OpenMode::Create)).expect("open")
    }

    #[test]
    fn what_is_written_is_read_through_any_handle() {
        let disk = MemoryDisk::new();
        let file = new_file(&disk, "/data/log/segment");
        block_on(file.write(8192, filled(&disk, 4096, 7))).expect("write");
        assert_eq!(block_on(file.size()), Ok(12_288));
        let other =
            block_on(disk.clone().open(Path::new("data/log/segment"), OpenMode::ReadOnly)).expect("open");
        assert_eq!(block_on(other.read(8192, 4096)).expect("read")[..], [7; 4096]);
        assert_eq!(block_on(other.read(0, 8192)).expect("read")[..], [0; 8192]);
        assert_eq!(disk.open_files(), 2);
        block_on(other.close()).expect("close");
        drop(file);
        assert_eq!(disk.open_files(), 1, "a file dropped without close stays counted");
    }

    #[test]
    fn a_buffer_that_was_zero_is_written_with_its_new_contents() {
        let disk = MemoryDisk::new();
        let file = new_file(&disk, "/d/f");
        let mut buffer = filled(&disk, 8192, 0);
        block_on(file.write(0, buffer.clone())).expect("write");
        assert_eq!(block_on(file.read(0, 8192)).expect("read")[..], [0; 8192]);
        Rc::get_mut(&mut buffer).expect("the disk keeps no buffer").as_mut_slice()[5000] = 1;
        block_on(file.write(0, buffer)).expect("write");
        assert_eq!(block_on(file.read(4096, 4096)).expect("read")[904], 1);
    }

    #[test]
    fn a_read_beyond_the_end_is_refused() {
        let disk = MemoryDisk::new();
        let file = new_file(&disk, "/d/f");
        block_on(file.preallocate(8192)).expect("preallocate");
        assert_eq!(block_on(file.read(4096, 4096)).expect("read")[..], [0; 4096]);
        let error = block_on(file.read(4096, 8192)).expect_err("beyond the end");
        assert_eq!(error.kind, DiskErrorKind::OutOfRange);
        assert_eq!(error.position, Some(4096));
    }

    #[test]
    #[should_panic(expected = "is not on a block")]
    fn an_unaligned_position_panics() {
        let disk = MemoryDisk::new();
        let file = new_file(&disk, "/d/f");
        _ = block_on(file.write(512, filled(&disk, 4096, 1)));
    }

    #[test]
    #[should_panic(expected = "are not whole blocks")]
    fn an_unaligned_length_panics() {
        let disk = MemoryDisk::new();
        let file = new_file(&disk, "/d/f");
        let mut buffer = disk.allocate(4096);
        buffer.truncate(512);
        _ = block_on(file.write(0, Rc::new(buffer)));
    }

    #[test]
    fn names_follow_create_rename_and_remove() {
        let disk = MemoryDisk::new();
        let at = |name: &str| Path::new("/d").join(name);
        for name in ["b", "a"] {
            block_on(new_file(&disk, &format!("/d/{name}")).close()).expect("close");
        }
        block_on(disk.create_directory(&at("deep/er"))).expect("create directory");
        let list = || block_on(disk.list(Path::new("/d"))).expect("list");
        assert_eq!(list(), ["a", "b", "deep"]);
        let open = block_on(disk.open(&at("b"), OpenMode::Existing)).expect("open");
        block_on(open.write(0, filled(&disk, 4096, 5))).expect("write");
        block_on(disk.rename(&at("b"), &at("a"))).expect("rename");
        assert_eq!(list(), ["a", "deep"]);
        block_on(disk.remove(&at("a"))).expect("remove");
        assert_eq!(list(), ["deep"]);
        assert_eq!(block_on(open.read(0, 4096)).expect("an open file outlives its name")[..], [5; 4096]);
    }

    #[test]
    fn a_second_name_is_seen_until_one_of_them_is_gone() {
        let disk = MemoryDisk::new();
        let (one, other) = (Path::new("/d/one"), Path::new("/d/other"));
        block_on(new_file(&disk, "/d/one").close()).expect("close");
        let has_other_names = |path| block_on(disk.has_other_names(path)).expect("a file");
        assert!(!has_other_names(one));
        disk.link(one, other);
        assert!(has_other_names(one) && has_other_names(other));
        block_on(disk.remove(one)).expect("remove");
        assert!(!has_other_names(other));
    }

    #[test]
    fn what_is_missing_is_not_found() {
        let disk = MemoryDisk::new();
        let missing = Path::new("/missing/file");
        let kinds = [
            block_on(disk.open(missing, OpenMode::Create)).err().map(|error| error.kind),
            block_on(disk.open(missing, OpenMode::Existing)).err().map(|error| error.kind),
            block_on(disk.list(missing)).err().map(|error| error.kind),
            block_on(disk.remove(missing)).err().map(|error| error.kind),
            block_on(disk.rename(missing, missing)).err().map(|error| error.kind),
            block_on(disk.sync_directory(missing)).err().map(|error| error.kind),
        ];
        assert_eq!(kinds, [Some(DiskErrorKind::NotFound); 6]);
    }

    #[test]
    fn creating_a_file_again_empties_it() {
        let disk = MemoryDisk::new();
        let file = new_file(&disk, "/d/f");
        block_on(file.write(0, filled(&disk, 4096, 1))).expect("write");
        let again = new_file(&disk, "/d/f");
        assert_eq!(block_on(again.size()), Ok(0));
    }

    #[test]
    fn space_shrinks_by_what_files_hold() {
        let disk = MemoryDisk::new();
        let file = new_file(&disk, "/d/f");
        block_on(file.preallocate(1 << 20)).expect("preallocate");
        let space = block_on(disk.space(Path::new("/d"))).expect("space");
        assert_eq!(space.available, space.total - (1 << 20));
    }
}
