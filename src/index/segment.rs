//! Index segments: files `{number:010}.index` of a fixed size, made of 4 KiB blocks and nothing else.
//!
//! Every segment that the index refers to is at hand as long as it is listed; which of their files are open is the disk's
//! affair. A removed segment can be read until the last lookup that reads it is done; its file's name is gone at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::block::{Block, BlockError, BlockIdentity};
use super::distrust;
use super::entry::BlockAddress;
use super::error::IndexError;
use crate::disk::{Disk, DiskBuffer, DiskError, DiskErrorKind, DiskFile, OpenMode};
use crate::limits::{BLOCK_BYTES, INDEX_PIECE_BYTES};

/// Blocks that one write takes at most.
pub const PIECE_BLOCKS: usize = INDEX_PIECE_BYTES / BLOCK_BYTES;

const SUFFIX: &str = ".index";

/// The files of one index. Reads may overlap with everything; writing, syncing, removing and closing are the work of
/// one caller at a time.
pub struct SegmentFiles<D: Disk> {
    disk: D,
    directory: PathBuf,
    open: RefCell<BTreeMap<u32, Rc<Segment<D>>>>,
    /// Removed, but perhaps still read.
    retired: RefCell<Vec<Rc<Segment<D>>>>,
    /// The first failed sync. It is final: what was written before is unknown, and trying again proves nothing.
    failure: RefCell<Option<DiskError>>,
}

/// What keeps a start from opening the index in `directory`, which it would make where it is missing: something else has the
/// name of one of its files, or its own. Nothing is changed.
pub async fn check_files<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<DiskError>, DiskError> {
    let names = match disk.list(directory).await {
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Ok(vec![error]),
        Ok(names) => names,
    };
    let mut refused = Vec::new();
    for name in names.iter().filter(|name| segment_number(name).is_some() || *name == distrust::NAME) {
        match disk.open(&directory.join(name), OpenMode::ReadOnly).await {
            Ok(file) => file.close().await?,
            Err(error) => refused.push(error),
        }
    }
    Ok(refused)
}

struct Segment<D: Disk> {
    file: D::File,
    path: PathBuf,
    /// Whether the file has its full size.
    prepared: Cell<bool>,
    /// Whether something was written since the last sync.
    dirty: Cell<bool>,
}

impl<D: Disk> SegmentFiles<D> {
    /// Opens those of the `listed` segments that are there, and removes the others in `directory`: what no snapshot
    /// refers to was written after it. A missing one is found by whoever needs it; it may have been removed after the
    /// snapshot, when nothing needed it any more.
    pub async fn open(
        disk: D,
        directory: &Path,
        listed: impl Fn(u32) -> bool,
    ) -> Result<SegmentFiles<D>, DiskError> {
        disk.create_directory(directory).await?;
        if let Some(parent) = directory.parent() {
            // Files in a directory whose own name is lost are lost with it.
            disk.sync_directory(parent).await?;
        }
        let files = Self {
            disk,
            directory: directory.to_owned(),
            open: RefCell::default(),
            retired: RefCell::default(),
            failure: RefCell::default(),
        };
        if let Err(error) = files.open_listed(listed).await {
            // The first error is the one that counts.
            let _ = files.close().await;
            return Err(error);
        }
        Ok(files)
    }

    /// Opens those of the `listed` segments that are there, to read them only.
    pub async fn open_reading(
        disk: D,
        directory: &Path,
        listed: impl Fn(u32) -> bool,
    ) -> Result<SegmentFiles<D>, DiskError> {
        let names = match disk.list(directory).await {
            Err(error) if error.kind == DiskErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let files = Self {
            disk,
            directory: directory.to_owned(),
            open: RefCell::default(),
            retired: RefCell::default(),
            failure: RefCell::default(),
        };
        for number in names.iter().filter_map(|name| segment_number(name)).filter(|number| listed(*number)) {
            files.add(number, OpenMode::ReadOnly).await?;
        }
        Ok(files)
    }

    /// Reads one block and checks that it is the one expected.
    pub async fn read(&self, expected: &BlockIdentity) -> Result<Block, IndexError> {
        let address = expected.address;
        let position = u64::from(address.block) * BLOCK_BYTES as u64;
        let damaged = |reason| self.damaged(address, reason);
        let Some(segment) = self.find(address.segment) else {
            return Err(damaged(BlockError::Missing));
        };
        match segment.file.read(position, BLOCK_BYTES).await {
            Ok(bytes) => Block::check(&bytes, expected).map_err(damaged),
            Err(error) if error.kind == DiskErrorKind::OutOfRange => Err(damaged(BlockError::Missing)),
            Err(error) => Err(error.into()),
        }
    }

    /// The error that says what is wrong with the block at `address`.
    pub fn damaged(&self, address: BlockAddress, reason: BlockError) -> IndexError {
        let position = u64::from(address.block) * BLOCK_BYTES as u64;
        IndexError::Damaged { file: self.path(address.segment), position, reason }
    }

    /// Writes blocks side by side from `address` on, into a segment of `block_count` blocks, which is made when it is
    /// missing. They are durable after the next [`sync`](SegmentFiles::sync).
    pub async fn write(
        &self,
        address: BlockAddress,
        block_count: u32,
        blocks: &[Rc<Block>],
    ) -> Result<(), DiskError> {
        assert!((1..=PIECE_BLOCKS).contains(&blocks.len()), "a write of {} blocks", blocks.len());
        assert!(address.block as usize + blocks.len() <= block_count as usize, "a write beyond its segment");
        self.check_failure()?;
        let segment = self.prepare(address.segment, block_count).await?;
        let mut buffer = self.disk.allocate(blocks.len() * BLOCK_BYTES);
        for (slot, block) in buffer.as_mut_slice().chunks_exact_mut(BLOCK_BYTES).zip(blocks) {
            slot.copy_from_slice(block.as_bytes());
        }
        let position = u64::from(address.block) * BLOCK_BYTES as u64;
        let written = segment.file.write(position, Rc::new(buffer)).await;
        segment.dirty.set(true);
        written
    }

    /// Makes durable what was written before the call.
    pub async fn sync(&self) -> Result<(), DiskError> {
        self.check_failure()?;
        let dirty: Vec<_> =
            self.open.borrow().values().filter(|segment| segment.dirty.get()).cloned().collect();
        for segment in dirty {
            segment.dirty.set(false);
            if let Err(error) = segment.file.sync().await {
                *self.failure.borrow_mut() = Some(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes segments; those that are missing are passed over. Their names may come back after a crash, which does no
    /// harm: a snapshot that lists them does not read them, one that does not removes them again.
    pub async fn remove(&self, numbers: &[u32]) -> Result<(), DiskError> {
        for &number in numbers {
            let removed = self.open.borrow_mut().remove(&number);
            if let Some(segment) = removed {
                let path = segment.path.clone();
                self.retired.borrow_mut().push(segment);
                self.disk.remove(&path).await?;
            }
        }
        self.close_retired().await
    }

    /// Checks that the first `bytes` of a segment are there, whatever they hold.
    pub async fn check_there(&self, number: u32, bytes: u64) -> Result<(), IndexError> {
        let missing =
            |position| IndexError::Damaged { file: self.path(number), position, reason: BlockError::Missing };
        let Some(segment) = self.find(number) else { return Err(missing(0)) };
        let size = segment.file.size().await?;
        if size < bytes { Err(missing(size)) } else { Ok(()) }
    }

    /// Closes all files. Nothing else may be running.
    pub async fn close(&self) -> Result<(), DiskError> {
        let open = std::mem::take(&mut *self.open.borrow_mut());
        self.retired.borrow_mut().extend(open.into_values());
        self.close_retired().await?;
        assert!(self.retired.borrow().is_empty(), "the index is closed while it is read");
        Ok(())
    }

    async fn open_listed(&self, listed: impl Fn(u32) -> bool) -> Result<(), DiskError> {
        let mut removed = false;
        for name in self.disk.list(&self.directory).await? {
            let Some(number) = segment_number(&name) else { continue };
            if listed(number) {
                self.add(number, OpenMode::Existing).await?;
            } else {
                self.disk.remove(&self.directory.join(&name)).await?;
                removed = true;
            }
        }
        if removed {
            self.disk.sync_directory(&self.directory).await?;
        }
        Ok(())
    }

    async fn add(&self, number: u32, mode: OpenMode) -> Result<Rc<Segment<D>>, DiskError> {
        let path = self.path(number);
        let file = self.disk.open(&path, mode).await?;
        let segment = Rc::new(Segment { file, path, prepared: Cell::new(false), dirty: Cell::new(false) });
        self.open.borrow_mut().insert(number, segment.clone());
        Ok(segment)
    }

    /// Closes the removed segments that nobody reads any more. The others are closed by a later call.
    async fn close_retired(&self) -> Result<(), DiskError> {
        let mut kept = Vec::new();
        let retired = std::mem::take(&mut *self.retired.borrow_mut());
        let mut result = Ok(());
        for segment in retired {
            match Rc::try_unwrap(segment) {
                Ok(segment) => result = result.and(segment.file.close().await),
                Err(shared) => kept.push(shared),
            }
        }
        self.retired.borrow_mut().append(&mut kept);
        result
    }

    fn find(&self, number: u32) -> Option<Rc<Segment<D>>> {
        self.open.borrow().get(&number).cloned()
    }

    /// The segment, made or brought to its size when it is not yet. A run that died between the two steps leaves a
    /// short file.
    async fn prepare(&self, number: u32, block_count: u32) -> Result<Rc<Segment<D>>, DiskError> {
        let segment = match self.find(number) {
            Some(segment) => segment,
            None => self.add(number, OpenMode::Create).await?,
        };
        if !segment.prepared.get() {
            let bytes = u64::from(block_count) * BLOCK_BYTES as u64;
            if segment.file.size().await? < bytes {
                segment.file.preallocate(bytes).await?;
            }
            self.disk.sync_directory(&self.directory).await?;
            segment.dirty.set(true);
            segment.prepared.set(true);
        }
        Ok(segment)
    }

    fn check_failure(&self) -> Result<(), DiskError> {
        self.failure.borrow().clone().map_or(Ok(()), Err)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.directory.join(format!("{number:010}{SUFFIX}"))
    }
}

/// The number in a segment's file name; `None` for other files, which are left alone.
fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() != 10 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_have_a_number() {
        assert_eq!(segment_number("0000000042.index"), Some(42));
        for name in ["42.index", "0000000042.log", "000000004x.index", "9999999999.index", "+000000042.index"]
        {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }
}
