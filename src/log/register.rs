//! What the manifest says of the files, kept up while the log runs: by the tasks after the commit, never on its way.
//!
//! 1. A segment is registered before the first batch can be placed in it.
//! 2. A segment that goes is taken off before its file does.
//! 3. That the log has got into a segment is noted soon after the first of its groups is durable.
//! 4. The epochs of all shards are noted before the first request is taken.
//! 5. That a file of snapshots was written is noted once it is whole, and for good: who misses it later says so.

use std::cell::{Cell, RefCell};

use super::commit_log::{CommitLog, Inner};
use super::error::OpenError;
use super::manifest::{GivenUp, Holdings, Manifest};
use crate::disk::{Disk, DiskError, DiskErrorKind, Operation};
use crate::types::{LogPosition, TaskMutex};

/// The manifest of a running log.
pub(super) struct Register {
    manifest: RefCell<Manifest>,
    /// The segment of which it was last noted that the log has got into it.
    noted: Cell<LogPosition>,
    writing: TaskMutex,
}

impl Register {
    pub fn new(manifest: Manifest, active_base: LogPosition) -> Self {
        Self {
            manifest: RefCell::new(manifest),
            noted: Cell::new(active_base),
            writing: TaskMutex::default(),
        }
    }

    /// What an operator gave up.
    pub fn given_up(&self) -> Vec<GivenUp> {
        self.manifest.borrow().given_up.clone()
    }

    /// Whether a flush in the segment at `base` is news.
    pub fn is_due(&self, base: LogPosition) -> bool {
        base > self.noted.get()
    }
}

impl<D: Disk> CommitLog<D> {
    /// Says in the manifest where the log has ended, once its tasks have: the next start then knows it from there as well.
    pub async fn note_end(&self) -> Result<(), DiskError> {
        let inner = &*self.inner;
        if inner.watermarks.has_failed() {
            return Ok(());
        }
        let end = inner.watermarks.durable_end();
        let is_end = end == inner.watermarks.appended_end();
        inner.register(|holdings| (holdings.reached, holdings.is_end) = (end, is_end)).await
    }

    /// Says in the manifest which epoch each shard of the node has reached, in their order. Called before anything is
    /// answered, once all shards have made their epochs durable: a shard that is replaced by an older copy is told by it.
    pub async fn note_shard_epochs(&self, epochs: &[u32]) -> Result<(), DiskError> {
        self.inner.change_manifest(|manifest| manifest.shard_epochs = epochs.to_vec()).await
    }

    /// Says in the manifest that the snapshots' file `slot`, 0 or 1, was written, unless that is known.
    pub async fn note_snapshot(&self, slot: usize) -> Result<(), DiskError> {
        if self.inner.register.manifest.borrow().snapshots[slot] {
            return Ok(());
        }
        self.inner.change_manifest(|manifest| manifest.snapshots[slot] = true).await
    }
}

impl<D: Disk> Inner<D> {
    /// Changes what the manifest says of the files, durably and in both of its blocks.
    pub(super) async fn register(&self, change: impl FnOnce(&mut Holdings)) -> Result<(), DiskError> {
        self.change_manifest(|manifest| {
            change(manifest.holdings.as_mut().expect("a start says what there is"))
        })
        .await
    }

    async fn change_manifest(&self, change: impl FnOnce(&mut Manifest)) -> Result<(), DiskError> {
        let _guard = self.register.writing.lock().await;
        let mut manifest = self.register.manifest.borrow().clone();
        change(&mut manifest);
        let first = manifest.holdings.map_or(LogPosition::ZERO, |holdings| holdings.first_base);
        manifest.give_up(&[], first);
        let written = manifest.write(&self.disk, &self.options.directory, 2).await;
        if written.is_ok() {
            *self.register.manifest.borrow_mut() = manifest;
        }
        written.map_err(|error| match error {
            OpenError::Disk(error) => error,
            other => DiskError {
                kind: DiskErrorKind::Failed,
                operation: Operation::Write,
                path: self.options.directory.join(super::manifest::NAME),
                position: None,
                detail: other.to_string(),
            },
        })
    }

    /// The segment that the log has got into since that was last noted.
    pub(super) fn note_is_due(&self) -> Option<LogPosition> {
        let base = self.segment_of(self.watermarks.durable_end())?;
        self.register.is_due(base).then_some(base)
    }

    pub(super) async fn note_progress(&self, base: LogPosition) -> Result<(), DiskError> {
        let end = self.watermarks.durable_end();
        self.register(|holdings| holdings.reached = holdings.reached.max(end)).await?;
        self.register.noted.set(base);
        Ok(())
    }

    /// The segment in which something ends at `end`.
    fn segment_of(&self, end: LogPosition) -> Option<LogPosition> {
        let segments = self.segments.borrow();
        segments.range(..end).next_back().map(|(base, _)| *base)
    }
}
