//! Writing sealed blocks. In the background: nobody waits for it unless the index is overfull.

use super::consume::Index;
use super::error::IndexError;
use super::segment::PIECE_BLOCKS;
use crate::disk::Disk;

impl<D: Disk> Index<D> {
    /// Writes the blocks that wait, up to 128 KiB at a time, and drops them from memory. After an error the blocks that
    /// were not written wait on, and the next call tries again.
    ///
    /// Blocks that are sealed meanwhile are left for the next call, but for those that fill up a write: so it ends even
    /// while others append as fast as it writes.
    pub async fn spill(&self) -> Result<(), IndexError> {
        let _guard = self.shared.writing.lock().await;
        let mut due = self.waiting_blocks();
        while due > 0 {
            let (run, block_count) = {
                let state = self.shared.state.borrow();
                let run = state.sealed.front_run(PIECE_BLOCKS);
                let segment = run[0].identity().address.segment;
                (run, state.sealed.extents()[&segment].block_count)
            };
            let address = run[0].identity().address;
            self.shared.files.write(address, block_count, &run).await?;
            let written = run.len();
            // Before they are dropped from the queue, so that their memory can be used again.
            drop(run);
            self.shared.state.borrow_mut().sealed.written(written);
            self.shared.spilled.wake();
            due = due.saturating_sub(written);
        }
        Ok(())
    }

    /// Makes durable what was spilled before the call. A failure is final.
    pub async fn sync(&self) -> Result<(), IndexError> {
        let _guard = self.shared.writing.lock().await;
        Ok(self.shared.files.sync().await?)
    }
}
