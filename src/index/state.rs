//! What is in memory, and snapshots of it that are taken in slices.
//!
//! A snapshot shows one moment, but writing down 10,000 queues at once would hold up the core for tens of milliseconds.
//! So it is written while the queues go on: a queue that is about to change is written first. Every queue has the number
//! of the last snapshot that has dealt with it; a queue that is made while a snapshot is under way is born with its
//! number, and so stays out of it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;

use super::block::Block;
use super::consume::Index;
use super::entry::IndexEntry;
use super::sealed::{SealedBlocks, Shape};
use super::snapshot::SnapshotWriter;
use super::tree::Tree;
use crate::disk::Disk;
use crate::types::QueueKey;

/// The queues and the sealed blocks. Queues are ordered by key, so that walks are the same in every run and can go on
/// where they stopped. Whoever changes a queue gets it from here, so that a snapshot under way learns of it.
pub struct State {
    trees: BTreeMap<QueueKey, Tree>,
    pub sealed: SealedBlocks,
    saving: Option<Saving>,
    /// Snapshots begun so far; the number of the one under way.
    saving_number: u64,
    /// Size of the last snapshot, a good guess for the next.
    snapshot_bytes: usize,
}

/// A snapshot under way.
struct Saving {
    writer: SnapshotWriter,
    /// The last queue that the walk has reached. Some after it are written too, because they have changed.
    last: Option<QueueKey>,
    /// The blocks that waited when it began.
    blocks: VecDeque<Rc<Block>>,
}

/// A snapshot under way, in the hands of the owner. Dropping it gives it up.
pub struct Snapshot<D: Disk> {
    index: Index<D>,
}

impl State {
    pub fn new(trees: BTreeMap<QueueKey, Tree>, sealed: SealedBlocks) -> Self {
        Self { trees, sealed, saving: None, saving_number: 0, snapshot_bytes: 0 }
    }

    pub fn trees(&self) -> &BTreeMap<QueueKey, Tree> {
        &self.trees
    }

    pub fn tree(&self, key: QueueKey) -> Option<&Tree> {
        self.trees.get(&key)
    }

    /// A queue, to be changed.
    pub fn tree_mut(&mut self, key: QueueKey) -> Option<&mut Tree> {
        let tree = self.trees.get_mut(&key)?;
        save(&mut self.saving, self.saving_number, key, tree);
        Some(tree)
    }

    /// A queue, to be changed, made when it is not known.
    pub fn tree_or_new(&mut self, key: QueueKey) -> &mut Tree {
        let born = || Tree { saved_in: self.saving_number, ..Tree::default() };
        let tree = self.trees.entry(key).or_insert_with(born);
        save(&mut self.saving, self.saving_number, key, tree);
        tree
    }

    /// Appends what the queue [`takes`](Tree::takes).
    pub fn append(&mut self, key: QueueKey, entry: IndexEntry, shape: Shape) {
        let born = || Tree::new_at(entry.base_offset, self.saving_number);
        let tree = self.trees.entry(key).or_insert_with(born);
        assert!(tree.takes(&entry), "{key} ends at {}, got {entry:?}", tree.end);
        save(&mut self.saving, self.saving_number, key, tree);
        tree.append(key, entry, shape, &mut self.sealed);
    }

    pub fn remove(&mut self, key: QueueKey) {
        if self.tree_mut(key).is_some() {
            self.trees.remove(&key);
        }
    }

    /// Changes places with another state, neither of which is being saved.
    pub fn take_place(&mut self, other: &mut State) {
        assert!(self.saving.is_none() && other.saving.is_none(), "an index is replaced while it is saved");
        std::mem::swap(self, other);
    }

    fn begin_snapshot(&mut self) {
        assert!(self.saving.is_none(), "one snapshot at a time");
        self.saving_number += 1;
        let writer = SnapshotWriter::new(&self.sealed, self.snapshot_bytes + self.snapshot_bytes / 8);
        self.saving = Some(Saving { writer, last: None, blocks: self.sealed.waiting().cloned().collect() });
    }

    /// Deals with the next `items_max` queues or blocks; the snapshot when there is none left.
    fn snapshot_step(&mut self, items_max: usize) -> Option<Vec<u8>> {
        let saving = self.saving.as_mut().expect("a snapshot is under way");
        let after = saving.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut items = 0;
        for (&key, tree) in self.trees.range_mut((after, Bound::Unbounded)).take(items_max) {
            saving.write(self.saving_number, key, tree);
            saving.last = Some(key);
            items += 1;
        }
        while items < items_max {
            let Some(block) = saving.blocks.pop_front() else {
                let finished = self.saving.take().map(|saving| saving.writer.finish());
                self.snapshot_bytes = finished.as_ref().map_or(0, Vec::len);
                return finished;
            };
            saving.writer.block(&block);
            items += 1;
        }
        saving.writer.checkpoint();
        None
    }
}

impl Saving {
    fn write(&mut self, number: u64, key: QueueKey, tree: &mut Tree) {
        if tree.saved_in != number {
            tree.saved_in = number;
            self.writer.queue(key, tree);
        }
    }
}

impl<D: Disk> Index<D> {
    /// The state as of this moment: the result of all appends before the call, and of none after it. It refers to
    /// blocks on disk that may not be durable yet, so the owner stores it only after a [`sync`](Index::sync) that began
    /// after this call. Blocks still waiting are part of the snapshot, so a [`spill`](Index::spill) before it keeps it
    /// small.
    pub fn snapshot(&self) -> Vec<u8> {
        self.begin_snapshot().step(usize::MAX).expect("all in one step")
    }

    /// Begins a [`snapshot`](Index::snapshot) as of this moment that is written in slices. One at a time.
    pub fn begin_snapshot(&self) -> Snapshot<D> {
        self.shared.state.borrow_mut().begin_snapshot();
        Snapshot { index: self.clone() }
    }
}

impl<D: Disk> Snapshot<D> {
    /// Deals with the next `items_max` queues. Returns the bytes when it is done; not to be called again then.
    pub fn step(&mut self, items_max: usize) -> Option<Vec<u8>> {
        assert!(items_max > 0, "a step over no queue");
        self.index.shared.state.borrow_mut().snapshot_step(items_max)
    }
}

impl<D: Disk> Drop for Snapshot<D> {
    fn drop(&mut self) {
        self.index.shared.state.borrow_mut().saving = None;
    }
}

/// Writes a queue that is about to change into the snapshot under way, if it is not there yet.
fn save(saving: &mut Option<Saving>, number: u64, key: QueueKey, tree: &mut Tree) {
    if let Some(saving) = saving {
        saving.write(number, key, tree);
    }
}
