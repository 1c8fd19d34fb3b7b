//! The index of all queues of a shard: what is done without waiting for a disk.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use super::cache::BlockCache;
use super::entry::IndexEntry;
use super::error::IndexError;
use super::sealed::{SealedBlocks, Shape};
use super::segment::{PIECE_BLOCKS, SegmentFiles};
use super::snapshot;
use super::state::State;
use super::tree::Tree;
use crate::disk::Disk;
use crate::limits::BLOCK_BYTES;
use crate::types::{LogPosition, QueueKey, QueueOffset, TaskMutex, WakerList};

/// How an index is opened.
#[derive(Clone, Copy, Debug)]
pub struct IndexOptions {
    /// Larger than in every earlier opening of the same directory: it tells this run's blocks from stale ones.
    pub epoch: u32,
    /// Size of a segment file, whole blocks.
    pub segment_bytes: u64,
    /// Sealed blocks that may wait for the disk; with more the index is overfull.
    pub waiting_blocks_max: usize,
    /// Read blocks kept in memory.
    pub cached_blocks_max: usize,
    pub(super) shape: Shape,
}

/// The consume index of one shard. A clone is the same index.
///
/// All calls may overlap on one executor; those that write (`spill`, `sync`, the end of a trim, `close`) follow one another
/// among themselves. After an error nothing is lost but the operation, except that a failed sync is final: no later
/// `spill` or `sync` succeeds, so the index becomes overfull in the end.
pub struct Index<D: Disk> {
    pub(super) shared: Rc<Shared<D>>,
}

pub(super) struct Shared<D: Disk> {
    pub options: IndexOptions,
    pub state: RefCell<State>,
    pub cache: RefCell<BlockCache>,
    pub files: Rc<SegmentFiles<D>>,
    /// Held by whoever writes to the files.
    pub writing: Rc<TaskMutex>,
    /// How often another index was put in the place of this one.
    pub generation: Cell<u64>,
    /// Segments of what was here before.
    pub replaced: RefCell<Vec<u32>>,
    /// Woken when blocks were written.
    pub spilled: WakerList,
}

impl IndexOptions {
    /// The defaults: segments of 64 MiB, 16 MiB of waiting and 1 MiB of read blocks.
    pub fn new(epoch: u32) -> Self {
        Self {
            epoch,
            segment_bytes: 64 * 1024 * 1024,
            waiting_blocks_max: 4096,
            cached_blocks_max: 256,
            shape: Shape::default(),
        }
    }

    pub(super) fn segment_blocks(&self) -> u32 {
        assert!(
            self.segment_bytes > 0 && self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64),
            "an index segment of {} bytes",
            self.segment_bytes
        );
        u32::try_from(self.segment_bytes / BLOCK_BYTES as u64).expect("an index segment below 16 TiB")
    }
}

impl<D: Disk> Clone for Index<D> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<D: Disk> Index<D> {
    /// Opens the index in `directory`, which holds nothing but index segments; it is made when it is missing, in a
    /// directory that exists durably. With a snapshot it is what it was when
    /// [`snapshot`](Index::snapshot) was called; without one it is empty, and the owner replays the whole log.
    ///
    /// Either way the owner then calls [`replay`](Index::replay) for the batches after, and [`trim`](Index::trim) with
    /// the start of the log before the first lookup: segments that a snapshot mentions may have been removed since.
    pub async fn open(
        disk: D,
        directory: &Path,
        options: IndexOptions,
        snapshot: Option<&[u8]>,
    ) -> Result<Self, IndexError> {
        let state = match snapshot {
            Some(bytes) => snapshot::decode(bytes, &options)?,
            None => {
                let sealed = SealedBlocks::new(options.epoch, options.segment_blocks());
                State::new(BTreeMap::new(), sealed)
            }
        };
        let extents = state.sealed.extents();
        let files = SegmentFiles::open(disk, directory, |number| extents.contains_key(&number)).await?;
        Ok(Self::new(options, state, Rc::new(files), Rc::default()))
    }

    /// Opens an index as of a snapshot for a tool that changes nothing: no replay follows.
    pub async fn open_reading(
        disk: D,
        directory: &Path,
        options: IndexOptions,
        snapshot: &[u8],
    ) -> Result<Self, IndexError> {
        let state = snapshot::decode(snapshot, &options)?;
        let extents = state.sealed.extents();
        let files =
            SegmentFiles::open_reading(disk, directory, |number| extents.contains_key(&number)).await?;
        Ok(Self::new(options, state, Rc::new(files), Rc::default()))
    }

    pub(super) fn new(
        options: IndexOptions,
        state: State,
        files: Rc<SegmentFiles<D>>,
        writing: Rc<TaskMutex>,
    ) -> Self {
        let shared = Shared {
            options,
            state: RefCell::new(state),
            cache: RefCell::new(BlockCache::new(options.cached_blocks_max)),
            files,
            writing,
            generation: Cell::new(0),
            replaced: RefCell::default(),
            spilled: WakerList::new(),
        };
        Self { shared: Rc::new(shared) }
    }

    /// What is in the files by now, as whoever opened the index is told: bytes of each segment.
    pub fn stored(&self) -> Vec<(u32, u64)> {
        let state = self.shared.state.borrow();
        let waiting = state.sealed.waiting().next().map(|block| block.identity().address);
        let end = waiting.unwrap_or(state.sealed.next());
        let segments = state.sealed.extents().range(..=end.segment);
        let blocks = segments.map(|(&number, extent)| {
            (number, if number == end.segment { end.block } else { extent.block_count })
        });
        blocks.map(|(number, blocks)| (number, u64::from(blocks) * BLOCK_BYTES as u64)).collect()
    }

    /// Checks that what is [`stored`](Index::stored) is there, as far as a trim has left it: a missing file is found now,
    /// and not by the first one who needs it.
    pub async fn check_stored(&self, stored: &[(u32, u64)]) -> Result<(), IndexError> {
        for &(number, bytes) in stored {
            let is_listed = self.shared.state.borrow().sealed.extents().contains_key(&number);
            if is_listed && bytes > 0 {
                self.shared.files.check_there(number, bytes).await?;
            }
        }
        Ok(())
    }

    /// Closes the files. Nothing else may be running or follow.
    pub async fn close(&self) -> Result<(), IndexError> {
        let _guard = self.shared.writing.lock().await;
        Ok(self.shared.files.close().await?)
    }

    /// Adds a batch that has just become visible to readers. A queue that is not known begins here. Panics when the
    /// batch does not follow the queue's last one: whoever gives out offsets and positions has lost count.
    pub fn append(&self, key: QueueKey, entry: IndexEntry) {
        self.shared.state.borrow_mut().append(key, entry, self.shared.options.shape);
    }

    /// Adds a batch that recovery has read from the log.
    pub fn replay(&self, key: QueueKey, entry: IndexEntry) -> Result<(), IndexError> {
        let end = {
            let state = self.shared.state.borrow();
            match state.tree(key) {
                Some(tree) if !tree.takes(&entry) => Some(tree.end),
                None if entry.record_count == 0 => Some(QueueOffset::ZERO),
                _ => None,
            }
        };
        if let Some(end) = end {
            return Err(IndexError::Disagreement { key, base_offset: entry.base_offset, end });
        }
        self.append(key, entry);
        Ok(())
    }

    /// Makes a queue known. One that is known stays as it is.
    pub fn ensure_queue(&self, key: QueueKey) {
        self.shared.state.borrow_mut().tree_or_new(key);
    }

    /// Makes a queue known that goes on at `offset`, because what came before is gone from the log. A queue that
    /// reaches `offset` or further stays as it is; one that ends before it becomes empty.
    pub fn ensure_queue_at(&self, key: QueueKey, offset: QueueOffset) {
        let mut state = self.shared.state.borrow_mut();
        let tree = state.tree_or_new(key);
        if tree.end < offset {
            tree.restart_at(offset);
        }
    }

    /// Lets a queue with batches begin at `offset` already: what it had there is lost, and was not removed. That lies in the
    /// log below `position`, and goes with it.
    pub fn begin_at(&self, key: QueueKey, offset: QueueOffset, position: LogPosition) {
        if let Some(tree) = self.shared.state.borrow_mut().tree_mut(key).filter(|tree| !tree.is_empty()) {
            tree.begin_at(offset, LogPosition(position.0.saturating_sub(1)));
        }
    }

    /// Moves the queue's first offset to `offset`, but not beyond its end and never back. Batches before it are gone.
    pub fn advance_first(&self, key: QueueKey, offset: QueueOffset) {
        if let Some(tree) = self.shared.state.borrow_mut().tree_mut(key) {
            tree.advance_first(offset);
        }
    }

    /// Forgets a queue. Its blocks are removed with their segments, when the log has left them behind.
    pub fn remove_queue(&self, key: QueueKey) {
        self.shared.state.borrow_mut().remove(key);
    }

    /// First and end offset; `None` for a queue that is not known.
    pub fn bounds(&self, key: QueueKey) -> Option<(QueueOffset, QueueOffset)> {
        self.shared.state.borrow().tree(key).map(|tree| (tree.first, tree.end))
    }

    /// The queues known, in order.
    pub fn queues(&self) -> Vec<QueueKey> {
        self.shared.state.borrow().trees().keys().copied().collect()
    }

    /// The first queue known at or after `key`.
    pub fn next_queue(&self, key: QueueKey) -> Option<QueueKey> {
        self.shared.state.borrow().trees().range(key..).next().map(|(key, _)| *key)
    }

    pub fn queue_count(&self) -> usize {
        self.shared.state.borrow().trees().len()
    }

    /// Whether a write of full size waits: time to call [`spill`](Index::spill).
    pub fn spill_needed(&self) -> bool {
        self.waiting_blocks() >= PIECE_BLOCKS
    }

    /// Whether more blocks wait than the options allow. `append` still works; the owner should take no new batches
    /// until [`relieved`](Index::relieved).
    pub fn is_overfull(&self) -> bool {
        self.waiting_blocks() > self.shared.options.waiting_blocks_max
    }

    /// Completes when the index is not overfull. Somebody else must be spilling.
    pub async fn relieved(&self) {
        while self.is_overfull() {
            self.shared.spilled.changed().await;
        }
    }

    /// Sealed blocks that wait for the disk.
    pub fn waiting_blocks(&self) -> usize {
        self.shared.state.borrow().sealed.waiting_count()
    }

    /// Memory in use, estimated from sizes and capacities.
    pub fn memory_bytes(&self) -> usize {
        let state = self.shared.state.borrow();
        let trees: usize = state.trees().values().map(Tree::memory_bytes).sum();
        // A B-tree's nodes are two thirds full on average.
        let nodes = state.trees().len() * (size_of::<QueueKey>() + size_of::<Tree>()) * 3 / 2;
        let blocks =
            state.sealed.waiting_count() + state.sealed.spare_count() + self.shared.cache.borrow().len();
        trees + nodes + blocks * BLOCK_BYTES
    }
}
