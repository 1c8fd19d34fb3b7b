//! The runs of a shard.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::collect::Collected;
use super::run::{KeyDamage, KeyOwner, Run, RunRange};
use super::run_writer::{RunWriter, UNFINISHED_SUFFIX};
use super::search::Search;
use crate::clock::SharedClock;
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::index::IndexError;
use crate::limits::BLOCK_BYTES;
use crate::types::{LogPosition, RecordLocation, TopicId};

/// Filter blocks in memory: 4 MiB, the filters of three million keys.
const FILTERS_MAX: usize = 1_024;
/// Between two pieces of a merge, which take a few hundred microseconds each, so that it takes neither the disk nor the
/// core from messages.
const MERGE_PAUSE: Duration = Duration::from_millis(2);

/// The key index of a shard. One task writes, merges and removes; look-ups may run meanwhile.
pub struct KeyIndex<D: Disk> {
    disk: D,
    clock: SharedClock,
    directory: PathBuf,
    owner: KeyOwner,
    runs: RefCell<BTreeMap<LogPosition, Rc<Run<D>>>>,
    /// Removed, but perhaps still read.
    retired: RefCell<Vec<Rc<Run<D>>>>,
    filters: RefCell<Filters>,
    next_id: Cell<u64>,
}

/// Filter blocks by run and number, the oldest given up first.
#[derive(Default)]
struct Filters {
    blocks: HashMap<(u64, u32), Rc<[u8]>>,
    order: VecDeque<(u64, u32)>,
}

impl<D: Disk> KeyIndex<D> {
    /// Opens what is there, in a directory that is made when missing. What does not fit a log from `first` to `end`, is
    /// damaged or was not finished is removed.
    pub async fn open(
        disk: D,
        clock: SharedClock,
        directory: &Path,
        owner: KeyOwner,
        (first, end): (LogPosition, LogPosition),
    ) -> Result<Self, DiskError> {
        disk.create_directory(directory).await?;
        if let Some(parent) = directory.parent() {
            disk.sync_directory(parent).await?;
        }
        let index = Self {
            disk,
            clock,
            directory: directory.to_owned(),
            owner,
            runs: RefCell::default(),
            retired: RefCell::default(),
            filters: RefCell::default(),
            next_id: Cell::new(0),
        };
        match index.open_runs(first, end).await {
            Ok(()) => Ok(index),
            Err(error) => {
                let _ = index.close().await;
                Err(error)
            }
        }
    }

    async fn open_runs(&self, first: LogPosition, end: LogPosition) -> Result<(), DiskError> {
        let (mut found, unfinished) = list_runs(&self.disk, &self.directory).await?;
        for name in &unfinished {
            self.disk.remove(&self.directory.join(name)).await?;
        }
        // A merged run comes before its parts.
        found.sort_by_key(|(from, to)| (*from, std::cmp::Reverse(*to)));
        let mut covered = first;
        let mut removed = !unfinished.is_empty();
        for (from, to) in found {
            let path = self.directory.join(RunRange { base: from, from, to }.file_name());
            let fits = covered <= from && to <= end;
            let run = match fits {
                true => Run::open(&self.disk, &path, self.next_id()).await?,
                false => None,
            };
            match run {
                Some(run) if run.header.is_of(self.owner) => {
                    covered = to;
                    self.runs.borrow_mut().insert(from, Rc::new(run));
                }
                run => {
                    if let Some(run) = run {
                        run.file.close().await?;
                    }
                    self.disk.remove(&path).await?;
                    removed = true;
                }
            }
        }
        if removed {
            self.disk.sync_directory(&self.directory).await?;
        }
        Ok(())
    }

    /// The first part of the log between `first` and `end` that neither a run nor `collected` covers.
    pub fn gap(
        &self,
        first: LogPosition,
        end: LogPosition,
        collected: Option<RunRange>,
    ) -> Option<(LogPosition, LogPosition)> {
        let runs = self.runs.borrow();
        let mut covered: Vec<_> = runs.values().map(|run| (run.range().from, run.range().to)).collect();
        if let Some(range) = collected {
            let at = covered.partition_point(|(from, _)| *from < range.from);
            covered.insert(at, (range.from, range.to));
        }
        let mut position = first;
        let mut next = end;
        for (from, to) in covered {
            if from > position {
                next = from;
                break;
            }
            position = position.max(to);
        }
        (position < end).then_some((position, next.min(end)))
    }

    /// Makes a run of what was collected, and empties it in the same moment, so that look-ups find every key in one of
    /// the two places. After an error it is as it was. Nobody else changes it meanwhile.
    pub async fn store(&self, collected: &RefCell<Collected>) -> Result<(), DiskError> {
        let (range, entries) = {
            let mut collected = collected.borrow_mut();
            let Some(range) = collected.range().filter(|range| range.from < range.to) else {
                collected.clear();
                return Ok(());
            };
            (range, collected.len() as u64)
        };
        let mut writer = RunWriter::create(&self.disk, &self.directory, range, self.owner, entries).await?;
        if let Err(error) = write_collected(collected, &mut writer).await {
            writer.abandon().await;
            return Err(error);
        }
        let run = writer.finish(self.next_id()).await?;
        self.runs.borrow_mut().insert(range.from, Rc::new(run));
        collected.borrow_mut().clear();
        Ok(())
    }

    /// Locations of a key, newest first.
    pub fn search(&self, topic: TopicId, key: &[u8]) -> Search<D> {
        Search::new(self, topic, key)
    }

    /// Locations of a key that lie before this one, newest first. Only whole runs are left out: the first locations that come may lie
    /// after it.
    pub fn search_before(&self, topic: TopicId, key: &[u8], before: RecordLocation) -> Search<D> {
        self.search(topic, key).without_runs_from(before)
    }

    /// Removes the runs of segments that are gone: all below `first`.
    pub async fn remove_below(&self, first: LogPosition) -> Result<(), DiskError> {
        let gone: Vec<_> = self.runs().into_iter().filter(|run| run.range().base < first).collect();
        self.remove(&gone).await
    }

    /// Whether the damage is in a file of this index.
    pub fn owns(&self, error: &IndexError) -> bool {
        matches!(error, IndexError::Damaged { file, .. } if file.parent() == Some(&*self.directory))
    }

    /// Removes the run whose file was found damaged, so that its part of the log is indexed again.
    pub async fn distrust(&self, file: &Path) -> Result<(), DiskError> {
        let damaged: Vec<_> = self.runs().into_iter().filter(|run| run.path == file).collect();
        self.remove(&damaged).await
    }

    async fn remove(&self, gone: &[Rc<Run<D>>]) -> Result<(), DiskError> {
        for run in gone {
            self.runs.borrow_mut().remove(&run.range().from);
            self.retired.borrow_mut().push(run.clone());
            remove_file(&self.disk, &run.path).await?;
        }
        if !gone.is_empty() {
            self.disk.sync_directory(&self.directory).await?;
        }
        Ok(())
    }

    /// Puts a merged run, which is durable, in the place of its parts.
    pub(super) async fn replace(&self, parts: &[Rc<Run<D>>], merged: Run<D>) -> Result<(), DiskError> {
        {
            let mut runs = self.runs.borrow_mut();
            parts.iter().for_each(|part| _ = runs.remove(&part.range().from));
            runs.insert(merged.range().from, Rc::new(merged));
        }
        self.retired.borrow_mut().extend(parts.iter().cloned());
        for part in parts {
            remove_file(&self.disk, &part.path).await?;
        }
        self.disk.sync_directory(&self.directory).await
    }

    /// Closes removed runs that nobody reads any more.
    pub async fn close_retired(&self) -> Result<(), DiskError> {
        loop {
            let unused = {
                let mut retired = self.retired.borrow_mut();
                let index = retired.iter().position(|run| Rc::strong_count(run) == 1);
                index.map(|index| retired.swap_remove(index))
            };
            let Some(run) = unused else { return Ok(()) };
            Rc::into_inner(run).expect("nobody else holds it").file.close().await?;
        }
    }

    /// Closes every file. No look-up may be under way.
    pub async fn close(&self) -> Result<(), DiskError> {
        let runs = std::mem::take(&mut *self.runs.borrow_mut());
        self.retired.borrow_mut().extend(runs.into_values());
        self.close_retired().await
    }

    /// A filter block, from memory when it was read lately.
    pub(super) async fn filter(&self, run: &Run<D>, number: u32) -> Result<Rc<[u8]>, IndexError> {
        let name = (run.id, number);
        if let Some(block) = self.filters.borrow().blocks.get(&name) {
            return Ok(block.clone());
        }
        let block: Rc<[u8]> = (*run.block(number).await?).into();
        let mut filters = self.filters.borrow_mut();
        if filters.blocks.insert(name, block.clone()).is_none() {
            filters.order.push_back(name);
        }
        if filters.order.len() > FILTERS_MAX {
            let oldest = filters.order.pop_front().expect("there are many");
            filters.blocks.remove(&oldest);
        }
        Ok(block)
    }

    /// Checks every block of every run in a directory that nobody uses.
    pub async fn verify(disk: &D, directory: &Path) -> Result<Vec<KeyDamage>, DiskError> {
        let (found, _) = match list_runs(disk, directory).await {
            Ok(listed) => listed,
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut damage = Vec::new();
        for (from, to) in found {
            let path = directory.join(RunRange { base: from, from, to }.file_name());
            match Run::open(disk, &path, 0).await? {
                Some(run) => {
                    let verified = run.verify().await;
                    run.file.close().await?;
                    damage.extend(verified?);
                }
                None => damage.push(KeyDamage { file: path, position: 0 }),
            }
        }
        Ok(damage)
    }

    /// Memory that depends on what is stored: bounds of runs and cached filters.
    pub fn memory_bytes(&self) -> usize {
        self.runs.borrow().len() * size_of::<Run<D>>() + self.filters.borrow().order.len() * BLOCK_BYTES
    }

    pub fn run_count(&self) -> usize {
        self.runs.borrow().len()
    }

    /// All runs in log order.
    pub(super) fn runs(&self) -> Vec<Rc<Run<D>>> {
        self.runs.borrow().values().cloned().collect()
    }

    pub(super) fn disk(&self) -> &D {
        &self.disk
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn owner(&self) -> KeyOwner {
        self.owner
    }

    pub(super) fn next_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    pub(super) async fn pause(&self) {
        self.clock.sleep(MERGE_PAUSE).await;
    }
}

/// A run's `from` and `to`, as its file's name says them.
type NamedRange = (LogPosition, LogPosition);

/// The runs in a directory by their names, and names of files that were not finished.
async fn list_runs<D: Disk>(disk: &D, directory: &Path) -> Result<(Vec<NamedRange>, Vec<String>), DiskError> {
    let names = disk.list(directory).await?;
    let found = names.iter().filter_map(|name| RunRange::parse_name(name)).collect();
    let unfinished = names.into_iter().filter(|name| name.ends_with(UNFINISHED_SUFFIX)).collect();
    Ok((found, unfinished))
}

async fn write_collected<D: Disk>(
    collected: &RefCell<Collected>,
    writer: &mut RunWriter<D>,
) -> Result<(), DiskError> {
    let parts = collected.borrow().part_count();
    for index in 0..parts {
        let part = collected.borrow_mut().sorted_part(index).to_vec();
        for entry in part {
            while !writer.push(entry) {
                writer.write().await?;
            }
        }
    }
    Ok(())
}

async fn remove_file<D: Disk>(disk: &D, path: &Path) -> Result<(), DiskError> {
    match disk.remove(path).await {
        Err(error) if error.kind != DiskErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
