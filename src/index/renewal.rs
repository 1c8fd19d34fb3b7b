//! Building an index anew while the one that is damaged serves what it can.
//!
//! Both share files, but no block: the new one begins so many segments after the old one that the two never meet. What
//! it has written counts only once it has taken the old one's place and is in a durable snapshot; until then a start
//! removes it, since no snapshot lists it.

use std::collections::BTreeMap;

use super::consume::Index;
use super::entry::BlockAddress;
use super::error::IndexError;
use super::sealed::SealedBlocks;
use super::state::State;
use crate::disk::Disk;

/// Segments that the old index may still begin: 4 TiB of it.
const SEGMENTS_BETWEEN: u32 = 1 << 16;

impl<D: Disk> Index<D> {
    /// An empty index beside this one; `None` when there are no numbers of segments left.
    pub fn begin_renewal(&self) -> Option<Index<D>> {
        let options = self.shared.options;
        let segment = self.shared.state.borrow().sealed.next().segment.checked_add(SEGMENTS_BETWEEN)?;
        let next = BlockAddress { segment, block: 0 };
        let sealed =
            SealedBlocks::restore(options.epoch, options.segment_blocks(), next, BTreeMap::new(), Vec::new());
        let state = State::new(BTreeMap::new(), sealed);
        Some(Index::new(options, state, self.shared.files.clone(), self.shared.writing.clone()))
    }

    /// Puts `renewed` in the place of what is here. Not while a snapshot is taken. Look-ups under way go on with it.
    pub fn renew(&self, renewed: &Index<D>) {
        let shared = &self.shared;
        shared.state.borrow_mut().take_place(&mut renewed.shared.state.borrow_mut());
        std::mem::swap(&mut *shared.cache.borrow_mut(), &mut *renewed.shared.cache.borrow_mut());
        shared.generation.set(shared.generation.get() + 1);
        let old = renewed.shared.state.borrow();
        shared.replaced.borrow_mut().extend(old.sealed.extents().keys());
        shared.spilled.wake();
    }

    /// Removes the files of what was replaced, once a snapshot without it is durable.
    pub async fn remove_replaced(&self) -> Result<(), IndexError> {
        let replaced = std::mem::take(&mut *self.shared.replaced.borrow_mut());
        if replaced.is_empty() {
            return Ok(());
        }
        let _guard = self.shared.writing.lock().await;
        Ok(self.shared.files.remove(&replaced).await?)
    }

    /// Gives up a renewal that did not take place, and removes its files.
    pub async fn abandon(&self) -> Result<(), IndexError> {
        let _guard = self.shared.writing.lock().await;
        let written: Vec<u32> = self.shared.state.borrow().sealed.extents().keys().copied().collect();
        Ok(self.shared.files.remove(&written).await?)
    }
}
