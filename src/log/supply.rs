//! The supply of segments: preparing the next one ahead of need, recycling expired ones, having fresh ones zeroed.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::commit_log::{CommitLog, Inner};
use super::error::AppendRefusal;
use super::manifest::Holdings;
use super::segment::{Segment, segment_name};
use super::zeroing::Pacing;
use crate::api::Activity;
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile, OpenMode};
use crate::types::{LogPosition, WakerList};

/// Room that is left to the index, the snapshots and others when a segment is made.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// How long to wait before a disk that made no segment is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// After this many failures in a row producers are told instead of being kept waiting.
const ATTEMPTS_MAX: u32 = 5;
/// Spare files kept for reuse; further expired segments are removed.
const SPARES_MAX: usize = 2;

/// State shared between the appender, which takes segments, and the supply task, which makes them.
pub(super) struct Supply<D: Disk> {
    next: RefCell<Option<Rc<Segment<D>>>>,
    /// Expired files, ready to be renamed: path and size.
    spares: RefCell<Vec<(PathBuf, u64)>>,
    spare_number: Cell<u64>,
    /// Set while the file system has no room for another segment.
    shortage: RefCell<Option<Rc<DiskError>>>,
    /// Failures in a row.
    attempts: Cell<u32>,
    /// Why no segment can be made, once that has been tried often enough; until one is made after all.
    failure: RefCell<Option<Rc<DiskError>>>,
    /// The operator was told that there is none.
    is_told: Cell<bool>,
    /// The operator was told that files with other names are not used again.
    is_shared_told: Cell<bool>,
    needed: WakerList,
    /// Where the segments begin whose files are kept open, since they are written, or will be next.
    kept: RefCell<Vec<LogPosition>>,
    pub pacing: Pacing,
}

impl<D: Disk> Supply<D> {
    /// The log is at the segment that begins at `active`.
    pub fn new(active: LogPosition, spares: Vec<(PathBuf, u64)>) -> Self {
        let spare_number = Cell::new(spares.len() as u64);
        Self {
            next: RefCell::new(None),
            spares: RefCell::new(spares),
            spare_number,
            shortage: RefCell::default(),
            attempts: Cell::new(0),
            failure: RefCell::new(None),
            is_told: Cell::new(false),
            is_shared_told: Cell::new(false),
            needed: WakerList::new(),
            kept: RefCell::new(vec![active]),
            pacing: Pacing::default(),
        }
    }

    /// Hands out the segment that starts at `base`; `None` while it is being made.
    pub fn take(&self, base: LogPosition) -> Result<Option<Rc<Segment<D>>>, AppendRefusal> {
        match self.next.borrow_mut().take() {
            Some(segment) => {
                assert!(segment.base == base, "segment {} was prepared, {base} is needed", segment.base);
                Ok(Some(segment))
            }
            None if self.shortage.borrow().is_some() => Err(AppendRefusal::NoSpace),
            None => match &*self.failure.borrow() {
                Some(error) => Err(AppendRefusal::NoSegment(error.clone())),
                None => {
                    self.needed.wake();
                    Ok(None)
                }
            },
        }
    }

    fn made(&self, segment: Segment<D>) {
        self.shortage.borrow_mut().take();
        self.attempts.set(0);
        self.failure.borrow_mut().take();
        *self.next.borrow_mut() = Some(Rc::new(segment));
    }

    fn not_made(&self, error: DiskError) {
        let is_full = error.kind == DiskErrorKind::NoSpace;
        self.attempts.set(self.attempts.get() + 1);
        let tell = !is_full && self.attempts.get() >= ATTEMPTS_MAX;
        let error = Rc::new(error);
        *self.failure.borrow_mut() = tell.then(|| error.clone());
        *self.shortage.borrow_mut() = is_full.then_some(error);
    }

    pub fn wake(&self) {
        self.needed.wake();
    }

    /// The segment that was made and not taken yet.
    pub fn prepared(&self) -> Option<Rc<Segment<D>>> {
        self.next.borrow().clone()
    }
}

impl<D: Disk> CommitLog<D> {
    /// The supply task; ends after [`stop`](CommitLog::stop).
    pub async fn run_supply(&self) {
        let inner = &*self.inner;
        let mut zeros = None;
        while !inner.stopping.get() {
            inner.let_sealed_go().await;
            if inner.wants_next() {
                let clock = inner.clock.clone();
                let making = inner.metrics.begin(Activity::Segment, move || clock.monotonic());
                let prepared = inner.prepare().await;
                drop(making);
                match prepared {
                    Ok(segment) => {
                        if inner.supply.is_told.take() {
                            let shard = inner.options.shard.0;
                            tracing::info!(target: "log", shard, "segments can be made again");
                        }
                        inner.supply.made(segment);
                    }
                    // Whatever the reason, the log goes on in the segment it has; only then is anyone refused.
                    Err(error) => {
                        inner.metrics.segment_failures.add(1);
                        if !inner.supply.is_told.replace(true) {
                            let shard = inner.options.shard.0;
                            tracing::error!(
                                target: "log",
                                shard,
                                "the next segment cannot be made, which is tried every second; when the one in use is \
                                 full, the shard takes no messages: {error}"
                            );
                        }
                        inner.supply.not_made(error);
                        // Whoever waits is told before the pause.
                        inner.space_freed.wake();
                        inner.clock.sleep(RETRY_INTERVAL).await;
                    }
                }
                inner.space_freed.wake();
            } else if let Some(base) = inner.note_is_due() {
                // A disk that takes no note takes no batch either; the next start knows a little less.
                if inner.note_progress(base).await.is_err() {
                    inner.clock.sleep(RETRY_INTERVAL).await;
                }
            } else if !inner.zero_step(&mut zeros).await {
                inner.supply.needed.changed().await;
            }
        }
    }

    /// Closes the files. Its tasks have ended, and nobody reads any more.
    pub async fn close(self) -> Result<(), DiskError> {
        let segments = std::mem::take(&mut *self.inner.segments.borrow_mut());
        let next = self.inner.supply.next.borrow_mut().take();
        for segment in segments.into_values().chain(next) {
            // Whoever still holds a segment is a reader that is about to end; its file goes with the last holder.
            if let Some(segment) = Rc::into_inner(segment) {
                segment.file.close().await?;
            }
        }
        Ok(())
    }

    /// Whether the file system has no room for another segment.
    pub fn is_out_of_space(&self) -> bool {
        self.inner.supply.shortage.borrow().is_some()
    }

    /// What is full, and how much is needed, while the next segment finds no room.
    pub fn shortage(&self) -> Option<Rc<DiskError>> {
        self.inner.supply.shortage.borrow().clone()
    }

    /// Why the next segment cannot be made, when that has failed for some time for another reason than a full disk. It
    /// is tried on.
    pub fn supply_failure(&self) -> Option<Rc<DiskError>> {
        self.inner.supply.failure.borrow().clone()
    }

    /// Takes the oldest segment out of the log, when it is not the one in use, and keeps or removes its file. The
    /// caller has made sure that nothing refers to it any more. Returns the log's new first position.
    pub async fn remove_oldest(&self) -> Result<Option<LogPosition>, DiskError> {
        let inner = &*self.inner;
        let next =
            inner.segments.borrow().values().nth(1).filter(|next| next.newest.get().is_some()).cloned();
        let Some(next) = next else { return Ok(None) };
        // Durable before the file goes: the next start must not ask for it.
        inner.register(|holdings| holdings.first_base = holdings.first_base.max(next.base)).await?;
        drop(next);
        let (segment, first) = {
            let mut segments = inner.segments.borrow_mut();
            // The next one must hold batches: without any, a restart would not know where the log ends.
            if segments.values().nth(1).is_none_or(|next| next.newest.get().is_none()) {
                return Ok(None);
            }
            let (_, segment) = segments.pop_first().expect("there are two");
            (segment, *segments.keys().next().expect("one is left"))
        };
        // A reader may still be at work in it; its bytes must not change below it.
        while Rc::strong_count(&segment) > 1 {
            inner.clock.sleep(Duration::from_millis(1)).await;
        }
        let segment = Rc::into_inner(segment).expect("nobody else holds it");
        segment.file.close().await?;
        // What stands in for a lost file has no blocks of its own.
        let is_fit = segment.bytes == inner.options.segment_bytes
            && !segment.is_stand_in
            && inner.supply.spares.borrow().len() < SPARES_MAX;
        let keep = is_fit && !inner.is_shared(&segment.path).await?;
        if keep {
            let number = inner.supply.spare_number.get();
            inner.supply.spare_number.set(number + 1);
            let spare = inner.options.directory.join(format!("spare-{}-{number}", inner.epoch));
            inner.disk.rename(&segment.path, &spare).await?;
            inner.supply.spares.borrow_mut().push((spare, segment.bytes));
        } else {
            inner.disk.remove(&segment.path).await?;
        }
        inner.disk.sync_directory(&inner.options.directory).await?;
        inner.supply.wake();
        let (base, bytes) = (segment.base.0, segment.bytes);
        let what = if keep { "its file is used again" } else { "its file is removed" };
        tracing::info!(target: "log", shard = inner.options.shard.0, base, bytes, first = first.0, "segment removed by retention: {what}");
        Ok(Some(first))
    }
}

impl<D: Disk> Inner<D> {
    /// Keeps the files of those segments open no longer that the log has left behind, all of them flushed.
    async fn let_sealed_go(&self) {
        let durable_end = self.watermarks.durable_end();
        let sealed = {
            let (mut kept, segments) = (self.supply.kept.borrow_mut(), self.segments.borrow());
            let is_sealed =
                |base: &LogPosition| segments.get(base).is_some_and(|segment| segment.end() < durable_end);
            let sealed =
                kept.iter().find(|base| is_sealed(base)).and_then(|base| segments.get(base).cloned());
            let first = segments.keys().next().copied().unwrap_or_default();
            // Those below are gone from the log.
            kept.retain(|base| *base >= first && sealed.as_ref().is_none_or(|sealed| sealed.base != *base));
            sealed
        };
        if let Some(segment) = sealed {
            // What was stored there is flushed. A file that cannot be let go costs a descriptor, and no more.
            let _ = segment.file.let_go().await;
        }
    }

    /// A next segment is due once the one in use is half full, or sooner when somebody waits for it.
    pub(super) fn wants_next(&self) -> bool {
        if self.supply.next.borrow().is_some() || self.watermarks.has_failed() {
            return false;
        }
        let (base, end) = {
            let open = self.open.borrow();
            (open.segment_base, open.end())
        };
        end.since(base) >= self.segment_at(base).bytes / 2
    }

    /// Whether somebody else has a file under another name, as a backup made of hard links does: it is not written over.
    async fn is_shared(&self, path: &Path) -> Result<bool, DiskError> {
        let is_shared = self.disk.has_other_names(path).await?;
        if is_shared && !self.supply.is_shared_told.replace(true) {
            tracing::warn!(
                target: "log",
                shard = self.options.shard.0,
                "{} has another name as well (a hard link, or it is a symbolic link): what it leads to is left as it is, \
                 and neither it nor other such files are used again; new ones are made",
                path.display()
            );
        }
        Ok(is_shared)
    }

    /// A file that may be written over. Those that somebody else has as well lose only their name here.
    async fn take_spare(&self) -> Result<Option<(PathBuf, u64)>, DiskError> {
        loop {
            let Some((spare, bytes)) = self.supply.spares.borrow_mut().pop() else { return Ok(None) };
            if !self.is_shared(&spare).await? {
                return Ok(Some((spare, bytes)));
            }
            self.disk.remove(&spare).await?;
        }
    }

    /// Makes the segment after the one in use: a spare under a new name, or a new file.
    async fn prepare(&self) -> Result<Segment<D>, DiskError> {
        let base = {
            let open_base = self.open.borrow().segment_base;
            self.segment_at(open_base).end()
        };
        let path = self.options.directory.join(segment_name(base));
        let (bytes, zeroed) = match self.take_spare().await? {
            Some((spare, bytes)) => {
                self.disk.rename(&spare, &path).await?;
                (bytes, bytes)
            }
            None => {
                create_file(&self.disk, &self.options.directory, &path, self.options.segment_bytes).await?;
                (self.options.segment_bytes, 0)
            }
        };
        self.disk.sync_directory(&self.options.directory).await?;
        let file = self.disk.open(&path, OpenMode::Existing).await?;
        let segment: Segment<D> = Segment::new(base, bytes, file, path);
        segment.zeroed.set(zeroed);
        // Once a batch may be in it, its loss must be seen.
        let made = |holdings: &mut Holdings| (holdings.last_base, holdings.last_bytes) = (base, bytes);
        if let Err(error) = self.register(made).await {
            segment.file.close().await?;
            return Err(error);
        }
        segment.file.keep_open();
        self.supply.kept.borrow_mut().push(base);
        let (shard, what) = (self.options.shard.0, if zeroed > 0 { "recycled" } else { "made" });
        tracing::debug!(target: "log", shard, base = base.0, bytes, "segment {what}");
        Ok(segment)
    }
}

/// Creates a file with all its blocks reserved, durable under its name after the directory's sync.
pub(super) async fn create_file<D: Disk>(
    disk: &D,
    directory: &Path,
    path: &Path,
    bytes: u64,
) -> Result<(), DiskError> {
    let space = disk.space(directory).await?;
    if space.available < bytes + RESERVE_BYTES {
        return Err(DiskError {
            kind: DiskErrorKind::NoSpace,
            operation: crate::disk::Operation::Preallocate,
            path: path.to_owned(),
            position: None,
            detail: format!("{} bytes are free, {} are needed", space.available, bytes + RESERVE_BYTES),
        });
    }
    let file = disk.open(path, OpenMode::Create).await?;
    let made = match file.preallocate(bytes).await {
        Ok(()) => file.sync().await,
        error => error,
    };
    file.close().await?;
    if made.is_err() {
        // Best effort: the file is of no use, and its blocks may be what is missing.
        let _ = disk.remove(path).await;
    }
    made
}
