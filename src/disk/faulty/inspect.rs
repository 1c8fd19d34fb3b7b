//! What a test sees and does beside the calls of the seam: counters, settings, damage at rest.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::core::{Injected, Step};
use super::plan::{FaultPlan, Rules};
use super::tree::FileId;
use super::{FaultyDisk, Restart};
use crate::clock::SharedClock;
use crate::disk::pages::Pages;
use crate::testing::Trace;

impl FaultyDisk {
    /// Replaces the plan. Rules begin to count anew, steps do not.
    pub fn set_plan(&self, plan: FaultPlan) {
        let mut core = self.state.core.borrow_mut();
        core.rules = Rules::new(plan.rules.clone());
        core.plan = plan;
    }

    /// Steps take time on this clock, if the plan says so.
    pub fn set_clock(&self, clock: SharedClock) {
        self.state.core.borrow_mut().clock = Some(clock);
    }

    /// Steps are events of this trace.
    pub fn set_trace(&self, trace: Trace) {
        self.state.core.borrow_mut().trace = trace;
    }

    /// Steps made since this disk was made or restarted: so many places for the power to fail, and one at the end.
    pub fn step_count(&self) -> u64 {
        self.state.core.borrow().step_count
    }

    /// The steps, in their order.
    pub fn step_list(&self) -> Vec<Step> {
        self.state.core.borrow().steps.clone()
    }

    /// The faults of rules that have struck, in their order.
    pub fn injected(&self) -> Vec<Injected> {
        self.state.core.borrow().injected.clone()
    }

    /// Files that were opened and not closed; one that was dropped without `close` counts for ever.
    pub fn open_files(&self) -> usize {
        self.state.core.borrow().open_count()
    }

    /// Calls whose futures were dropped before their end, other than by a loss of power.
    pub fn abandoned_calls(&self) -> usize {
        self.state.core.borrow().abandoned_count
    }

    /// All files, with their sizes, sorted by path.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let core = self.state.core.borrow();
        core.tree.live_files().into_iter().map(|(path, file)| (path, core.file(file).bytes())).collect()
    }

    /// What the file would hold without any damage.
    pub fn clean_bytes(&self, path: &Path) -> Bytes {
        let core = self.state.core.borrow();
        all(core.file(self.existing(path)).clean())
    }

    /// What of the file survives a loss of power for certain, if its name does.
    pub fn durable_bytes(&self, path: &Path) -> Bytes {
        let core = self.state.core.borrow();
        all(core.file(self.existing(path)).durable())
    }

    /// Changes that the next loss of power may undo.
    pub fn unsynced_changes(&self) -> usize {
        let core = self.state.core.borrow();
        let files = core.tree.live_files().into_iter();
        files.map(|(_, file)| core.file(file).outstanding().count()).sum::<usize>()
            + core.tree.outstanding().count()
    }

    /// Flips a bit at rest.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) {
        let file = self.existing(path);
        self.state.core.borrow_mut().file_mut(file).flip_bit(byte, bit);
    }

    /// Flips a seeded bit in this part of the file; which one.
    pub fn flip_random_bit(&self, path: &Path, bytes: Range<u64>) -> (u64, u8) {
        let (byte, bit) = {
            let random = &mut self.state.core.borrow_mut().random;
            (random.range(bytes), random.range(0..8) as u8)
        };
        self.flip_bit(path, byte, bit);
        (byte, bit)
    }

    /// The device can not read these bytes any more, nor the blocks around them, until they are written.
    pub fn fail_reads(&self, path: &Path, bytes: Range<u64>) {
        let file = self.existing(path);
        self.state.core.borrow_mut().file_mut(file).fail_reads(bytes);
    }

    /// Blocks whose bytes are not the clean ones: file and position, in order.
    pub fn damaged_blocks(&self) -> Vec<(PathBuf, u64)> {
        let core = self.state.core.borrow();
        let mut damaged = Vec::new();
        for (path, file) in core.tree.live_files() {
            damaged.extend(core.file(file).damaged_blocks().map(|position| (path.clone(), position)));
        }
        damaged
    }

    /// Takes all damage away: flipped bits, misdirected writes, blocks that can not be read. What is missing then was
    /// never there.
    pub fn lift_damage(&self) {
        self.state.core.borrow_mut().files_mut().for_each(|file| file.lift_damage());
    }

    /// One outcome for each way to end and each of these seeds.
    pub fn outcomes(&self, seeds: Range<u64>) -> impl Iterator<Item = (Restart, u64, FaultyDisk)> {
        let ways = move |seed| Restart::ALL.into_iter().map(move |how| (how, seed));
        seeds.flat_map(ways).map(|(how, seed)| (how, seed, self.outcome(how, seed)))
    }

    /// Panics when there is no such file: a test that damages nothing proves nothing.
    pub(super) fn existing(&self, path: &Path) -> FileId {
        let found = self.state.core.borrow().tree.file(path);
        found.unwrap_or_else(|_| panic!("{} is no file on this disk", path.display()))
    }
}

fn all(pages: &Pages) -> Bytes {
    let bytes = usize::try_from(pages.bytes()).expect("a file that fits into memory");
    pages.read(0, bytes).expect("inside the file")
}
