//! Merging runs of one segment.

use std::rc::Rc;

use super::run::{Run, RunRange, RunReader};
use super::run_writer::RunWriter;
use super::set::KeyIndex;
use crate::disk::Disk;
use crate::index::IndexError;
use crate::types::LogPosition;

/// Runs merged at once: each has a piece of 128 KiB in memory meanwhile.
const MERGE_RUNS_MAX: usize = 16;
/// Neighbours of about the same size that are worth merging while their segment is written.
const MERGE_RUNS_MIN: usize = 8;

impl<D: Disk> KeyIndex<D> {
    /// The next runs that should be one: neighbours of a segment that ends at `sealed_end` or before, or enough of about
    /// the same size.
    pub fn merge_candidates(&self, sealed_end: LogPosition) -> Option<MergePlan<D>> {
        let runs = self.runs();
        let mut start = 0;
        while start < runs.len() {
            let base = runs[start].range().base;
            let neighbours = runs[start..]
                .windows(2)
                .take_while(|pair| pair[1].range().base == base && pair[0].range().to == pair[1].range().from)
                .count()
                + 1;
            let group = &runs[start..start + neighbours];
            start += neighbours;
            if group.len() > 1 && group.last().is_some_and(|last| last.range().to <= sealed_end) {
                return Some(MergePlan { runs: group[..group.len().min(MERGE_RUNS_MAX)].to_vec() });
            }
            if let Some(found) = alike(group) {
                return Some(MergePlan { runs: found.to_vec() });
            }
        }
        None
    }

    /// Carries a merge out. The runs merged are gone on return, or, after an error, still there.
    pub async fn merge(&self, plan: &MergePlan<D>) -> Result<(), IndexError> {
        let first = plan.runs.first().expect("a plan has runs").range();
        let to = plan.runs.last().expect("a plan has runs").range().to;
        let range = RunRange { to, ..first };
        let entries = plan.runs.iter().map(|run| run.header.entry_count).sum();
        let mut writer =
            RunWriter::create(self.disk(), self.directory(), range, self.owner(), entries).await?;
        if let Err(error) = self.copy(plan, &mut writer).await {
            writer.abandon().await;
            return Err(error);
        }
        let merged = writer.finish(self.next_id()).await?;
        self.replace(&plan.runs, merged).await?;
        Ok(())
    }

    async fn copy(&self, plan: &MergePlan<D>, writer: &mut RunWriter<D>) -> Result<(), IndexError> {
        let mut readers: Vec<_> = plan.runs.iter().map(|run| RunReader::new(&**run)).collect();
        for reader in &mut readers {
            reader.fill().await?;
        }
        // The next entry of each, so that a step looks at these few only.
        let mut heads: Vec<_> = readers.iter().map(RunReader::peek).collect();
        loop {
            let next = heads.iter().enumerate().filter_map(|(index, head)| Some(((*head)?, index))).min();
            let Some((entry, index)) = next else { return Ok(()) };
            if !writer.push(entry) {
                writer.write().await?;
                self.pause().await;
                continue;
            }
            let reader = &mut readers[index];
            reader.advance();
            heads[index] = reader.peek();
            if heads[index].is_none() {
                reader.fill().await?;
                heads[index] = reader.peek();
            }
        }
    }
}

/// Runs that will be one, in log order.
pub struct MergePlan<D: Disk> {
    pub runs: Vec<Rc<Run<D>>>,
}

/// Neighbours of about the same size, when there are enough of them.
fn alike<D: Disk>(group: &[Rc<Run<D>>]) -> Option<&[Rc<Run<D>>]> {
    let size = |run: &Rc<Run<D>>| (run.header.entry_count / 32_768 + 1).ilog(MERGE_RUNS_MIN as u64);
    let mut start = 0;
    while start < group.len() {
        let same = group[start..].iter().take_while(|run| size(run) == size(&group[start])).count();
        if same >= MERGE_RUNS_MIN {
            return Some(&group[start..start + same.min(MERGE_RUNS_MAX)]);
        }
        start += same;
    }
    None
}
