//! A disk that keeps a bounded number of files open: those that were used last. The others are opened again when they
//! are needed, so that what is stored costs no descriptors.
//!
//! What never waits and is never closed: a file that its owner [keeps open](DiskFile::keep_open), and one with writes that
//! no flush has covered yet, since a file system tells of a failed write only those who had the file open. Both are few,
//! and not counted. Of the others at most `files_max` are open at any time; when all of those are being read, whoever
//! needs another one waits for the end of a read.
//!
//! A file system that takes no writes any more, as ext4 after one that failed, refuses to open a file for writing. What is
//! only read is opened for reading then.
//!
//! A file that is closed is found again by its name. So a file that loses its name, by removal or because another one
//! takes it, is opened before that and stays open until its owner closes it: whoever reads it reads on.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{Disk, DiskError, DiskErrorKind, DiskFile, OpenMode, Space};
use crate::types::WakerList;

/// The disk beneath, with a bound on its open files. A clone shares the bound.
pub struct BoundedDisk<D: Disk> {
    files: Rc<Files<D>>,
}

/// A file, open or not.
pub struct BoundedFile<D: Disk> {
    files: Rc<Files<D>>,
    entry: SharedEntry<D>,
}

/// All files of the disk that somebody has and has not closed.
///
/// 1. `open` lists the entries that have a descriptor, or are about to get one; nothing else counts against `files_max`
///    but what `closing` counts.
/// 2. Every entry that has a name is listed under it in `named`.
struct Files<D: Disk> {
    disk: D,
    files_max: usize,
    open: RefCell<Vec<SharedEntry<D>>>,
    /// Descriptors that are being closed.
    closing: Cell<usize>,
    named: RefCell<HashMap<PathBuf, Vec<SharedEntry<D>>>>,
    /// Counts uses, to tell which file was used last.
    uses: Cell<u64>,
    /// Woken when a descriptor was closed or a file is not used any more.
    freed: WakerList,
}

type SharedEntry<D> = Rc<Entry<<D as Disk>::File>>;

struct Entry<F> {
    path: RefCell<PathBuf>,
    /// How it is opened again.
    mode: OpenMode,
    /// It could be opened for reading only.
    is_for_reading: Cell<bool>,
    /// Whoever uses the file holds it as well.
    file: RefCell<Option<Rc<F>>>,
    used_at: Cell<u64>,
    is_opening: Cell<bool>,
    opened: WakerList,
    is_kept: Cell<bool>,
    /// Opening the path would not lead to this file.
    is_nameless: Cell<bool>,
    /// Those who change its name.
    holders: Cell<usize>,
    /// Counts writes, and how many of them a flush has covered.
    written: Cell<u64>,
    flushed: Cell<u64>,
}

/// The right to use an open file.
struct Use<'a, D: Disk> {
    files: &'a Files<D>,
    file: Option<Rc<D::File>>,
}

/// Marks an entry as being opened.
struct Opening<'a, F>(&'a Entry<F>);

/// Entries that are open while their names change. They do not count meanwhile: whoever holds one must not have to wait
/// for room for another.
struct Held<'a, D: Disk> {
    files: &'a Files<D>,
    entries: Vec<SharedEntry<D>>,
}

/// A descriptor that is being closed.
struct Closing<'a, D: Disk>(&'a Files<D>);

impl<F> Entry<F> {
    fn new(path: &Path, mode: OpenMode) -> Self {
        Self {
            path: RefCell::new(path.to_owned()),
            // It exists by then.
            mode: if mode == OpenMode::Create { OpenMode::Existing } else { mode },
            is_for_reading: Cell::new(false),
            file: RefCell::new(None),
            used_at: Cell::new(0),
            is_opening: Cell::new(false),
            opened: WakerList::new(),
            is_kept: Cell::new(false),
            is_nameless: Cell::new(false),
            holders: Cell::new(0),
            written: Cell::new(0),
            flushed: Cell::new(0),
        }
    }

    /// Whether it counts against the bound.
    fn may_close(&self) -> bool {
        !self.is_kept.get() && !self.is_nameless.get() && self.holders.get() == 0 && self.is_flushed()
    }

    /// Whether it may be closed now.
    fn is_idle(&self) -> bool {
        self.may_close() && self.file.borrow().as_ref().is_some_and(|file| Rc::strong_count(file) == 1)
    }

    fn is_flushed(&self) -> bool {
        self.written.get() == self.flushed.get()
    }

    fn note_write(&self) {
        self.written.set(self.written.get() + 1);
    }
}

impl<D: Disk> std::ops::Deref for Use<'_, D> {
    type Target = D::File;

    fn deref(&self) -> &D::File {
        self.file.as_ref().expect("it is given up by `drop` only")
    }
}

impl<D: Disk> Drop for Use<'_, D> {
    fn drop(&mut self) {
        // Before the others look.
        self.file = None;
        self.files.freed.wake();
    }
}

impl<'a, F> Opening<'a, F> {
    fn begin(entry: &'a Entry<F>) -> Self {
        entry.is_opening.set(true);
        Self(entry)
    }
}

impl<F> Drop for Opening<'_, F> {
    fn drop(&mut self) {
        self.0.is_opening.set(false);
        self.0.opened.wake();
    }
}

impl<D: Disk> Drop for Held<'_, D> {
    fn drop(&mut self) {
        self.entries.iter().for_each(|entry| entry.holders.set(entry.holders.get() - 1));
        self.files.freed.wake();
    }
}

impl<'a, D: Disk> Closing<'a, D> {
    fn begin(files: &'a Files<D>) -> Self {
        files.closing.set(files.closing.get() + 1);
        Self(files)
    }
}

impl<D: Disk> Drop for Closing<'_, D> {
    fn drop(&mut self) {
        self.0.closing.set(self.0.closing.get() - 1);
        self.0.freed.wake();
    }
}

impl<D: Disk> Clone for BoundedDisk<D> {
    fn clone(&self) -> Self {
        Self { files: self.files.clone() }
    }
}

impl<D: Disk> BoundedDisk<D> {
    /// At most `files_max` files of `disk` are open that may as well be closed.
    pub fn new(disk: D, files_max: usize) -> Self {
        assert!(files_max > 0, "no file could be read");
        let files = Files {
            disk,
            files_max,
            open: RefCell::default(),
            closing: Cell::new(0),
            named: RefCell::default(),
            uses: Cell::new(0),
            freed: WakerList::new(),
        };
        Self { files: Rc::new(files) }
    }

    /// Descriptors in use.
    pub fn open_files(&self) -> usize {
        self.files.open.borrow().len() + self.files.closing.get()
    }
}

impl<D: Disk> Files<D> {
    /// The file for whoever writes as well, opened when it is not open.
    async fn using<'a>(&'a self, entry: &SharedEntry<D>) -> Result<Use<'a, D>, DiskError> {
        while entry.is_for_reading.get() && entry.file.borrow().is_some() {
            // It may take writes again. Whoever reads from it notices nothing of how it is closed.
            let _ = self.close_when_unused(entry).await;
        }
        if let Some(file) = self.using_any(entry).await {
            return Ok(file);
        }
        let path = entry.path.borrow().clone();
        self.open(entry, &path, entry.mode).await
    }

    /// The file for a reader, opened when it is not open. A file system that has become read-only, as after a failed write,
    /// is read on.
    async fn reading<'a>(&'a self, entry: &SharedEntry<D>) -> Result<Use<'a, D>, DiskError> {
        if let Some(file) = self.using_any(entry).await {
            return Ok(file);
        }
        let path = entry.path.borrow().clone();
        match self.open(entry, &path, entry.mode).await {
            Err(error) if error.kind == DiskErrorKind::PermissionDenied => {
                self.open(entry, &path, OpenMode::ReadOnly).await
            }
            opened => opened,
        }
    }

    /// The file as it is open. `None`: it is not, and nobody else is at it.
    async fn using_any<'a>(&'a self, entry: &SharedEntry<D>) -> Option<Use<'a, D>> {
        loop {
            if let Some(file) = &*entry.file.borrow() {
                return Some(self.used(entry, file));
            }
            if !entry.is_opening.get() {
                return None;
            }
            entry.opened.changed().await;
        }
    }

    fn used<'a>(&'a self, entry: &Entry<D::File>, file: &Rc<D::File>) -> Use<'a, D> {
        self.uses.set(self.uses.get() + 1);
        entry.used_at.set(self.uses.get());
        Use { files: self, file: Some(file.clone()) }
    }

    /// Opens a file that is not open. Nobody else is at it.
    async fn open<'a>(
        &'a self,
        entry: &SharedEntry<D>,
        path: &Path,
        mode: OpenMode,
    ) -> Result<Use<'a, D>, DiskError> {
        let _opening = Opening::begin(entry);
        while !self.has_room_for(entry) {
            match self.longest_unused() {
                Some(unused) => self.close_unused(&unused).await,
                None => self.freed.changed().await,
            }
        }
        self.open.borrow_mut().push(entry.clone());
        match self.disk.open(path, mode).await {
            Ok(file) => {
                let file = Rc::new(file);
                entry.is_for_reading.set(mode == OpenMode::ReadOnly && entry.mode != mode);
                *entry.file.borrow_mut() = Some(file.clone());
                Ok(self.used(entry, &file))
            }
            Err(error) => {
                self.unlist(entry);
                self.freed.wake();
                Err(error)
            }
        }
    }

    fn has_room_for(&self, entry: &Entry<D::File>) -> bool {
        let counted = self.open.borrow().iter().filter(|entry| entry.may_close()).count();
        !entry.may_close() || counted + self.closing.get() < self.files_max
    }

    /// The file to close next, if there is one that nobody uses.
    fn longest_unused(&self) -> Option<SharedEntry<D>> {
        let open = self.open.borrow();
        open.iter().filter(|entry| entry.is_idle()).min_by_key(|entry| entry.used_at.get()).cloned()
    }

    /// Closes a file that nobody uses; its owner does not notice.
    async fn close_unused(&self, entry: &SharedEntry<D>) {
        let file = entry.file.borrow_mut().take().and_then(Rc::into_inner);
        self.unlist(entry);
        let _closing = Closing::begin(self);
        if let Some(file) = file {
            // All that was written is flushed, so there is nothing that a failure could tell of.
            let _ = file.close().await;
        }
    }

    /// Closes what is open beyond the bound because it counts only now.
    async fn close_surplus(&self) {
        while self.open.borrow().iter().filter(|entry| entry.may_close()).count() > self.files_max {
            let Some(unused) = self.longest_unused() else { return };
            self.close_unused(&unused).await;
        }
    }

    /// Takes a file's descriptor away from its entry and closes it when its last use has ended.
    async fn close_when_unused(&self, entry: &SharedEntry<D>) -> Result<(), DiskError> {
        while entry.is_opening.get() {
            entry.opened.changed().await;
        }
        let taken = entry.file.borrow_mut().take();
        let Some(file) = taken else { return Ok(()) };
        self.unlist(entry);
        let _closing = Closing::begin(self);
        while Rc::strong_count(&file) > 1 {
            self.freed.changed().await;
        }
        Rc::into_inner(file).expect("nobody else holds it").close().await
    }

    fn unlist(&self, entry: &SharedEntry<D>) {
        self.open.borrow_mut().retain(|other| !Rc::ptr_eq(other, entry));
    }

    fn name(&self, entry: &SharedEntry<D>) {
        let path = entry.path.borrow().clone();
        self.named.borrow_mut().entry(path).or_default().push(entry.clone());
    }

    fn unname(&self, entry: &SharedEntry<D>) {
        let mut named = self.named.borrow_mut();
        let path = entry.path.borrow();
        let Some(entries) = named.get_mut(&*path) else { return };
        entries.retain(|other| !Rc::ptr_eq(other, entry));
        if entries.is_empty() {
            named.remove(&*path);
        }
    }

    fn entries_named(&self, path: &Path) -> Vec<SharedEntry<D>> {
        self.named.borrow().get(path).cloned().unwrap_or_default()
    }

    /// Opens the files called `path`, so that they can be read when that is not their name any more.
    async fn hold_named(&self, path: &Path) -> Held<'_, D> {
        let entries = self.entries_named(path);
        entries.iter().for_each(|entry| entry.holders.set(entry.holders.get() + 1));
        let held = Held { files: self, entries };
        // Who waits for room for one of them need not any more.
        self.freed.wake();
        for entry in &held.entries {
            // Where it cannot be opened, whoever reads it meets the same.
            let _ = self.reading(entry).await;
        }
        held
    }

    /// The entries called `path` have lost their name.
    fn forget_name(&self, path: &Path) {
        let entries = self.named.borrow_mut().remove(path);
        entries.into_iter().flatten().for_each(|entry| entry.is_nameless.set(true));
    }
}

impl<D: Disk> Disk for BoundedDisk<D> {
    type Buffer = D::Buffer;
    type File = BoundedFile<D>;

    fn allocate(&self, bytes: usize) -> D::Buffer {
        self.files.disk.allocate(bytes)
    }

    async fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.files.disk.create_directory(path).await
    }

    async fn list(&self, directory: &Path) -> Result<Vec<String>, DiskError> {
        self.files.disk.list(directory).await
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> Result<BoundedFile<D>, DiskError> {
        let entry = Rc::new(Entry::new(path, mode));
        self.files.open(&entry, path, mode).await?;
        self.files.name(&entry);
        Ok(BoundedFile { files: self.files.clone(), entry })
    }

    async fn has_other_names(&self, path: &Path) -> Result<bool, DiskError> {
        self.files.disk.has_other_names(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let files = &*self.files;
        let replaced = files.hold_named(to).await;
        // Nobody opens it by its old name meanwhile.
        let moving = files.hold_named(from).await;
        files.disk.rename(from, to).await?;
        files.forget_name(to);
        let moved = files.named.borrow_mut().remove(from);
        for entry in moved.into_iter().flatten() {
            *entry.path.borrow_mut() = to.to_owned();
            files.name(&entry);
        }
        drop((replaced, moving));
        files.close_surplus().await;
        Ok(())
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        let _removed = self.files.hold_named(path).await;
        self.files.disk.remove(path).await?;
        self.files.forget_name(path);
        Ok(())
    }

    async fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.files.disk.sync_directory(path).await
    }

    async fn space(&self, directory: &Path) -> Result<Space, DiskError> {
        self.files.disk.space(directory).await
    }
}

impl<D: Disk> BoundedFile<D> {
    async fn using(&self) -> Result<Use<'_, D>, DiskError> {
        self.files.using(&self.entry).await
    }
}

impl<D: Disk> DiskFile for BoundedFile<D> {
    type Buffer = D::Buffer;
    type ReadBuffer = <D::File as DiskFile>::ReadBuffer;

    async fn size(&self) -> Result<u64, DiskError> {
        self.files.reading(&self.entry).await?.size().await
    }

    async fn preallocate(&self, bytes: u64) -> Result<(), DiskError> {
        let file = self.using().await?;
        self.entry.note_write();
        file.preallocate(bytes).await
    }

    async fn write(&self, position: u64, buffer: Rc<D::Buffer>) -> Result<(), DiskError> {
        let file = self.using().await?;
        self.entry.note_write();
        file.write(position, buffer).await
    }

    async fn write_synced(&self, position: u64, buffer: Rc<D::Buffer>) -> Result<(), DiskError> {
        let file = self.using().await?;
        let was_flushed = self.entry.is_flushed();
        self.entry.note_write();
        let written = self.entry.written.get();
        file.write_synced(position, buffer).await?;
        // It covers no other write: not one from before, and none that came meanwhile.
        if was_flushed && self.entry.written.get() == written {
            self.entry.flushed.set(written);
        }
        Ok(())
    }

    async fn read(&self, position: u64, bytes: usize) -> Result<Self::ReadBuffer, DiskError> {
        self.files.reading(&self.entry).await?.read(position, bytes).await
    }

    async fn sync(&self) -> Result<(), DiskError> {
        {
            let file = self.using().await?;
            let written = self.entry.written.get();
            file.sync().await?;
            self.entry.flushed.set(self.entry.flushed.get().max(written));
        }
        if !self.entry.is_kept.get() {
            self.files.close_surplus().await;
        }
        Ok(())
    }

    fn keep_open(&self) {
        self.entry.is_kept.set(true);
    }

    /// It is closed at once: with it goes what writing had it hold.
    async fn let_go(&self) -> Result<(), DiskError> {
        if !self.entry.is_flushed() {
            self.sync().await?;
        }
        self.entry.is_kept.set(false);
        if !self.entry.may_close() {
            return Ok(());
        }
        self.files.close_when_unused(&self.entry).await
    }

    async fn close(self) -> Result<(), DiskError> {
        self.files.unname(&self.entry);
        self.files.close_when_unused(&self.entry).await
    }
}

/// One that is dropped without `close` is not listed any more; its descriptor goes with it.
impl<D: Disk> Drop for BoundedFile<D> {
    fn drop(&mut self) {
        self.files.unname(&self.entry);
        self.files.unlist(&self.entry);
    }
}

#[cfg(test)]
mod tests;
