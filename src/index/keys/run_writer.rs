//! Writing a run: entries come in order, blocks leave in pieces, and the file gets its name when all of it is durable.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::block::{
    BLOCK_ENTRIES, FILTER_ENTRIES, KeyEntry, filter_block, filter_insert, put_entry, put_filter_ranks, seal,
};
use super::run::{KeyOwner, Run, RunHeader, RunRange};
use crate::disk::{Disk, DiskBuffer, DiskError, DiskFile, OpenMode};
use crate::limits::{BLOCK_BYTES, INDEX_PIECE_BYTES};

/// What an unfinished run's file ends in.
pub const UNFINISHED_SUFFIX: &str = ".unfinished";

/// A run that is being written. After an error the caller calls [`abandon`](RunWriter::abandon).
pub struct RunWriter<D: Disk> {
    disk: D,
    directory: PathBuf,
    unfinished: PathBuf,
    file: D::File,
    header: RunHeader,
    data: Blocks<D>,
    filter: Blocks<D>,
    entries_in_block: usize,
    last: Option<KeyEntry>,
    /// Number of the first entry of the filter block in the making.
    filter_first: u64,
    filter_open: u32,
}

/// Blocks that are written one after the other, a piece at a time.
struct Blocks<D: Disk> {
    buffer: D::Buffer,
    /// Number of the buffer's first block.
    start: u32,
    /// Finished blocks in the buffer; the next one after them is in the making.
    finished: usize,
}

impl<D: Disk> Blocks<D> {
    fn new(disk: &D, start: u32) -> Self {
        let mut buffer = disk.allocate(INDEX_PIECE_BYTES);
        buffer.as_mut_slice().fill(0);
        Self { buffer, start, finished: 0 }
    }

    fn current(&mut self) -> &mut [u8] {
        let at = self.finished * BLOCK_BYTES;
        &mut self.buffer.as_mut_slice()[at..at + BLOCK_BYTES]
    }

    fn finish(&mut self, tag: u32, count: u32) {
        let number = self.start + self.finished as u32;
        seal(self.current(), number, tag, count);
        self.finished += 1;
    }

    fn is_full(&self) -> bool {
        self.finished == INDEX_PIECE_BYTES / BLOCK_BYTES
    }

    async fn write(&mut self, disk: &D, file: &D::File) -> Result<(), DiskError> {
        if self.finished == 0 {
            return Ok(());
        }
        let next = Self::new(disk, self.start + self.finished as u32);
        let mut full = std::mem::replace(self, next);
        full.buffer.truncate(full.finished * BLOCK_BYTES);
        file.write(u64::from(full.start) * BLOCK_BYTES as u64, Rc::new(full.buffer)).await
    }
}

impl<D: Disk> RunWriter<D> {
    /// Begins a run of at most `entries_max` entries. The room for all of it is reserved here.
    pub async fn create(
        disk: &D,
        directory: &Path,
        range: RunRange,
        owner: KeyOwner,
        entries_max: u64,
    ) -> Result<Self, DiskError> {
        assert!(range.from < range.to, "a run about {range:?}");
        let data_blocks = entries_max.div_ceil(BLOCK_ENTRIES as u64) as u32;
        let header = RunHeader {
            range,
            owner,
            entry_count: 0,
            data_blocks: 0,
            filter_start: 1 + data_blocks,
            filter_blocks: entries_max.div_ceil(FILTER_ENTRIES) as u32,
        };
        let unfinished = directory.join(range.file_name() + UNFINISHED_SUFFIX);
        let file = disk.open(&unfinished, OpenMode::Create).await?;
        let writer = Self {
            disk: disk.clone(),
            directory: directory.to_owned(),
            unfinished,
            file,
            header,
            data: Blocks::new(disk, 1),
            filter: Blocks::new(disk, header.filter_start),
            entries_in_block: 0,
            last: None,
            filter_first: 0,
            filter_open: 0,
        };
        let blocks = u64::from(header.filter_start + header.filter_blocks);
        match writer.file.preallocate(blocks * BLOCK_BYTES as u64).await {
            Ok(()) => Ok(writer),
            Err(error) => {
                writer.abandon().await;
                Err(error)
            }
        }
    }

    /// Adds the next entry in order; one that was just added is passed over. False, with nothing added, when there is
    /// no room in memory: the caller calls [`write`](RunWriter::write) and tries again.
    #[must_use]
    pub fn push(&mut self, entry: KeyEntry) -> bool {
        assert!(self.last.is_none_or(|last| last <= entry), "entries come in order");
        if self.last == Some(entry) {
            return true;
        }
        let block = filter_block(entry.hash, self.header.filter_blocks);
        while self.filter_open < block && !self.filter.is_full() {
            self.finish_filter();
        }
        if self.data.is_full() || self.filter.is_full() {
            return false;
        }
        self.last = Some(entry);
        filter_insert(self.filter.current(), entry.hash);
        put_entry(self.data.current(), self.entries_in_block, entry);
        self.entries_in_block += 1;
        self.header.entry_count += 1;
        if self.entries_in_block == BLOCK_ENTRIES {
            self.finish_data();
        }
        true
    }

    /// Writes what is full.
    pub async fn write(&mut self) -> Result<(), DiskError> {
        if self.data.is_full() {
            self.data.write(&self.disk, &self.file).await?;
        }
        if self.filter.is_full() {
            self.filter.write(&self.disk, &self.file).await?;
        }
        Ok(())
    }

    /// Writes the rest, makes the run durable and gives it its name.
    pub async fn finish(mut self, id: u64) -> Result<Run<D>, DiskError> {
        match self.settle().await {
            Ok(path) => Ok(Run::new(id, self.header, path, self.file)),
            Err(error) => {
                self.abandon().await;
                Err(error)
            }
        }
    }

    async fn settle(&mut self) -> Result<PathBuf, DiskError> {
        if self.entries_in_block > 0 {
            self.finish_data();
        }
        if self.header.entry_count == 0 {
            self.header.filter_blocks = 0;
        }
        while self.filter_open < self.header.filter_blocks {
            if self.filter.is_full() {
                self.filter.write(&self.disk, &self.file).await?;
            }
            self.finish_filter();
        }
        self.data.write(&self.disk, &self.file).await?;
        self.filter.write(&self.disk, &self.file).await?;
        let mut block = self.disk.allocate(BLOCK_BYTES);
        self.header.encode(block.as_mut_slice());
        self.file.write(0, Rc::new(block)).await?;
        self.file.sync().await?;
        let path = self.directory.join(self.header.range.file_name());
        self.disk.rename(&self.unfinished, &path).await?;
        self.disk.sync_directory(&self.directory).await?;
        Ok(path)
    }

    /// Gives the file up. It is removed now, or at the next start.
    pub async fn abandon(self) {
        let _ = self.file.close().await;
        let _ = self.disk.remove(&self.unfinished).await;
    }

    fn finish_data(&mut self) {
        self.data.finish(self.header.tag(), self.entries_in_block as u32);
        self.header.data_blocks += 1;
        self.entries_in_block = 0;
    }

    fn finish_filter(&mut self) {
        let end = self.header.entry_count;
        put_filter_ranks(self.filter.current(), self.filter_first, end);
        self.filter.finish(self.header.tag(), 0);
        self.filter_first = end;
        self.filter_open += 1;
    }
}
