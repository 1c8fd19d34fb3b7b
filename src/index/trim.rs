//! Retention: following the start of the log.

use std::ops::Bound;

use super::consume::Index;
use super::entry::Seek;
use super::error::IndexError;
use super::tree::SearchPosition;
use crate::disk::Disk;
use crate::types::{LogPosition, QueueKey, QueueOffset};

/// A trim under way. It works in slices, so that thousands of queues do not keep the core from everything else.
pub struct Trim<D: Disk> {
    index: Index<D>,
    min_position: LogPosition,
    /// The last queue done.
    last: Option<QueueKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimProgress {
    /// Call `step` again.
    More,
    /// Every queue starts at or after the position, and the segments below it are gone.
    Done,
}

impl<D: Disk> Index<D> {
    /// Makes every queue start at its first batch at or after `min_position`, and removes the segments that only
    /// refer to batches before it. A queue that has none left becomes empty and keeps its end.
    pub fn trim(&self, min_position: LogPosition) -> Trim<D> {
        Trim { index: self.clone(), min_position, last: None }
    }

    /// Trims in memory only and removes no segment, for a tool that changes nothing.
    pub async fn follow(&self, min_position: LogPosition) -> Result<(), IndexError> {
        for key in self.queues() {
            let is_due = {
                let state = self.shared.state.borrow();
                state.tree(key).is_some_and(|tree| !tree.is_empty() && tree.first_position < min_position)
            };
            if is_due {
                self.trim_queue(key, min_position).await?;
            }
        }
        self.shared.state.borrow_mut().sealed.remove_below(min_position);
        Ok(())
    }

    async fn trim_queue(&self, key: QueueKey, min_position: LogPosition) -> Result<(), IndexError> {
        let seek = Seek { position: min_position, ..Seek::default() };
        let found = self.find(key, seek).await?;
        let mut state = self.shared.state.borrow_mut();
        let Some(tree) = state.tree_mut(key) else { return Ok(()) };
        match found {
            // Not beyond the end, in case the queue was removed and made again meanwhile.
            Some(entry) if entry.base_offset <= tree.end => {
                tree.advance_first(entry.base_offset);
                tree.first_position = tree.first_position.max(entry.position);
            }
            Some(_) => {}
            None => {
                let seek = Seek { offset: tree.first, ..seek };
                if matches!(tree.seek(&seek), SearchPosition::End) {
                    tree.advance_first(QueueOffset(u64::MAX));
                }
            }
        }
        Ok(())
    }
}

impl<D: Disk> Trim<D> {
    /// Looks at the next `queues_max` queues; most need nothing. After an error the same step can be tried again.
    pub async fn step(&mut self, queues_max: usize) -> Result<TrimProgress, IndexError> {
        assert!(queues_max > 0, "a step over no queue");
        let shared = self.index.shared.clone();
        for _ in 0..queues_max {
            let next = {
                let state = shared.state.borrow();
                let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
                let next = state.trees().range((after, Bound::Unbounded)).next();
                next.map(|(&key, tree)| (key, !tree.is_empty() && tree.first_position < self.min_position))
            };
            let Some((key, due)) = next else {
                let _guard = shared.writing.lock().await;
                let removed = shared.state.borrow_mut().sealed.remove_below(self.min_position);
                shared.files.remove(&removed).await?;
                return Ok(TrimProgress::Done);
            };
            if due {
                self.index.trim_queue(key, self.min_position).await?;
            }
            self.last = Some(key);
        }
        Ok(TrimProgress::More)
    }
}
