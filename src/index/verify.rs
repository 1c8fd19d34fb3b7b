//! Reading all of the index, to find damage before a consumer does.

use std::rc::Rc;

use super::block::BlockError;
use super::consume::Index;
use super::entry::BlockReference;
use super::error::IndexError;
use super::sealed::identity;
use crate::disk::Disk;
use crate::types::QueueKey;

/// What a verification has gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub queues: u64,
    /// Blocks read from disk.
    pub blocks: u64,
    /// Entries in those blocks and in memory.
    pub entries: u64,
}

impl<D: Disk> Index<D> {
    /// Reads every block that a lookup could meet, past the cache, and checks that it is whole, itself, in order, and
    /// what the level above says of it. Stops at the first that is not.
    pub async fn verify(&self) -> Result<Verified, IndexError> {
        let mut verified = Verified::default();
        for key in self.queues() {
            // Upper levels first, and within a queue oldest first: the stack never holds more than a chunk per level.
            let mut open: Vec<(u8, BlockReference)> = {
                let state = self.shared.state.borrow();
                let Some(tree) = state.tree(key) else { continue };
                verified.entries += tree.entries.len() as u64;
                tree.references().collect()
            };
            open.reverse();
            verified.queues += 1;
            while let Some((level, reference)) = open.pop() {
                self.verify_block(key, level, reference, &mut open, &mut verified).await?;
            }
        }
        Ok(verified)
    }

    async fn verify_block(
        &self,
        key: QueueKey,
        level: u8,
        reference: BlockReference,
        open: &mut Vec<(u8, BlockReference)>,
        verified: &mut Verified,
    ) -> Result<(), IndexError> {
        let is_live = || self.first(key).is_some_and(|first| reference.end_offset > first);
        if !is_live() {
            return Ok(());
        }
        let waiting = self.shared.state.borrow().sealed.find(reference.address);
        let block = match waiting {
            Some(block) => block,
            None => match self.shared.files.read(&identity(key, level, &reference)).await {
                Ok(block) => {
                    verified.blocks += 1;
                    Rc::new(block)
                }
                // Trimmed meanwhile.
                Err(_) if !is_live() => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        if block.identity() != identity(key, level, &reference) || !block.agrees(&reference) {
            return Err(self.shared.files.damaged(reference.address, BlockError::Order));
        }
        if level == 0 {
            verified.entries += block.count() as u64;
        } else {
            open.extend((0..block.count()).rev().map(|index| (level - 1, block.reference(index))));
        }
        Ok(())
    }
}
