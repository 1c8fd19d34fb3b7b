//! Holding the runs of a directory that nobody uses against the log: each key of a stored message must be in the run that
//! covers its location.
//!
//! The other way round nothing is wrong: a run may hold keys of batches that an earlier recovery has cut off.

use std::path::{Path, PathBuf};

use super::block::{KeyEntry, key_hash};
use super::run::{Run, RunRange, RunReader};
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::index::IndexError;
use crate::types::{RecordLocation, TopicId};

/// Keys held against a run at once: 16 MiB.
const ENTRIES_MAX: usize = 1 << 20;

/// Takes the keys of the log in its order.
pub struct KeyCheck<D: Disk> {
    /// Those that were not reached yet, the next one last.
    runs: Vec<Run<D>>,
    /// Of the next run.
    entries: Vec<KeyEntry>,
    /// Runs that the log has passed, with what is still to be held against them.
    passed: Vec<(Run<D>, Vec<KeyEntry>)>,
    lacking: Vec<PathBuf>,
}

impl<D: Disk> KeyCheck<D> {
    /// Opens the runs. What is damaged is left to [`super::KeyIndex::verify`].
    pub async fn open(disk: &D, directory: &Path) -> Result<Self, DiskError> {
        let names = match disk.list(directory).await {
            Err(error) if error.kind == DiskErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let mut named: Vec<_> = names.iter().filter_map(|name| RunRange::parse_name(name)).collect();
        // A merged run comes before its parts, which are left out.
        named.sort_by_key(|(from, to)| (*from, std::cmp::Reverse(*to)));
        let mut runs = Vec::new();
        let mut covered = crate::types::LogPosition::ZERO;
        for (from, to) in named {
            if from < covered {
                continue;
            }
            let path = directory.join(RunRange { base: from, from, to }.file_name());
            let Some(run) = Run::open(disk, &path, 0).await? else { continue };
            if run.verify().await?.is_empty() {
                covered = to;
                runs.push(run);
            } else {
                run.file.close().await?;
            }
        }
        runs.reverse();
        Ok(Self { runs, ..Self::of_nothing() })
    }

    /// Of a directory that cannot be read.
    pub fn of_nothing() -> Self {
        Self { runs: Vec::new(), entries: Vec::new(), passed: Vec::new(), lacking: Vec::new() }
    }

    /// A key of a stored message. Locations rise.
    pub fn note(&mut self, topic: TopicId, key: &[u8], location: RecordLocation) {
        while self.runs.last().is_some_and(|run| run.range().to <= location.position) {
            let run = self.runs.pop().expect("there is one");
            self.passed.push((run, std::mem::take(&mut self.entries)));
        }
        let Some(run) = self.runs.last().filter(|run| run.range().from <= location.position) else { return };
        self.entries.push(KeyEntry { hash: key_hash(topic, key), location: run.range().relative(location) });
    }

    /// Holds what has come against the runs, so that memory is bounded.
    pub async fn settle(&mut self) -> Result<(), DiskError> {
        for (run, entries) in std::mem::take(&mut self.passed) {
            self.compare(&run, entries).await?;
            run.file.close().await?;
        }
        if self.entries.len() >= ENTRIES_MAX {
            let entries = std::mem::take(&mut self.entries);
            let run = self.runs.pop().expect("the entries are of a run");
            self.compare(&run, entries).await?;
            self.runs.push(run);
        }
        Ok(())
    }

    /// The runs that lack a key.
    pub async fn finish(mut self) -> Result<Vec<PathBuf>, DiskError> {
        let entries = std::mem::take(&mut self.entries);
        if let Some(run) = self.runs.pop() {
            self.passed.push((run, entries));
        }
        self.settle().await?;
        for run in self.runs.drain(..) {
            run.file.close().await?;
        }
        self.lacking.sort();
        self.lacking.dedup();
        Ok(self.lacking)
    }

    async fn compare(&mut self, run: &Run<D>, mut entries: Vec<KeyEntry>) -> Result<(), DiskError> {
        entries.sort_unstable();
        let mut reader = RunReader::new(run);
        for entry in entries {
            loop {
                match reader.fill().await {
                    Ok(()) => {}
                    Err(IndexError::Disk(error)) => return Err(error),
                    // It was whole a moment ago; the check of the blocks says more.
                    Err(_) => return Ok(()),
                }
                match reader.peek() {
                    Some(next) if next < entry => reader.advance(),
                    Some(next) if next == entry => break,
                    _ => {
                        self.lacking.push(run.path.clone());
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}
