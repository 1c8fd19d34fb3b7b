//! A look-up in the runs.

use std::rc::Rc;

use super::block::{entry, entry_count, key_hash};
use super::run::{ReadBlock, Run};
use super::set::KeyIndex;
use crate::disk::Disk;
use crate::index::IndexError;
use crate::types::{RecordLocation, TopicId};

/// Locations at which a key may be, newest first. It looks at the runs as they were when it began.
pub struct Search<D: Disk> {
    hash: u64,
    /// Not looked at yet, the newest last.
    runs: Vec<Rc<Run<D>>>,
    current: Option<Cursor<D>>,
}

/// A position within a run.
struct Cursor<D: Disk> {
    run: Rc<Run<D>>,
    block: u32,
    bytes: ReadBlock<D>,
    /// Entries of the block that were not looked at yet.
    left: usize,
}

impl<D: Disk> Search<D> {
    pub(super) fn new(index: &KeyIndex<D>, topic: TopicId, key: &[u8]) -> Self {
        Self { hash: key_hash(topic, key), runs: index.runs(), current: None }
    }

    /// Without the runs that have nothing before `location`.
    pub(super) fn without_runs_from(mut self, location: RecordLocation) -> Self {
        self.runs.retain(|run| run.range().base <= location.position);
        self
    }

    /// The next location.
    pub async fn next(&mut self, index: &KeyIndex<D>) -> Result<Option<RecordLocation>, IndexError> {
        loop {
            if self.current.is_none() {
                let Some(run) = self.runs.pop() else { return Ok(None) };
                self.current = self.enter(index, run).await?;
                continue;
            }
            match self.step() {
                Step::Found(location) => return Ok(Some(location)),
                Step::RunDone => self.current = None,
                Step::BlockBefore => {
                    let cursor = self.current.as_mut().expect("a step was made in it");
                    cursor.block -= 1;
                    cursor.bytes = cursor.run.block(cursor.block).await?;
                    cursor.left = entry_count(&cursor.bytes);
                }
            }
        }
    }

    async fn enter(&self, index: &KeyIndex<D>, run: Rc<Run<D>>) -> Result<Option<Cursor<D>>, IndexError> {
        let Some(number) = run.filter_number(self.hash) else { return Ok(None) };
        let filter = index.filter(&run, number).await?;
        let found = run.last_block_of(self.hash, &filter).await?;
        Ok(found.map(|(block, bytes)| {
            let left = entry_count(&bytes);
            Cursor { run, block, bytes, left }
        }))
    }

    fn step(&mut self) -> Step {
        let cursor = self.current.as_mut().expect("the caller has looked");
        while cursor.left > 0 {
            cursor.left -= 1;
            let entry = entry(&cursor.bytes, cursor.left);
            if entry.hash == self.hash {
                return Step::Found(cursor.run.range().absolute(entry.location));
            }
            if entry.hash < self.hash {
                return Step::RunDone;
            }
        }
        if cursor.block > 1 { Step::BlockBefore } else { Step::RunDone }
    }
}

enum Step {
    Found(RecordLocation),
    BlockBefore,
    RunDone,
}
