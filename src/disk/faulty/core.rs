//! The state of a faulty disk: what its calls read and change, between two awaits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::file_image::{FileImage, SyncPoint};
use super::plan::{Fault, FaultPlan, Landing, Rules};
use super::survival::{ChangeNumber, Fates, Restart, WriteId};
use super::tree::{Errno, FileId, Tree};
use crate::clock::SharedClock;
use crate::disk::memory::TOTAL_BYTES;
use crate::disk::pages::Page;
use crate::disk::{OpenMode, Operation, Space};
use crate::limits::BLOCK_BYTES;
use crate::testing::{Random, Trace};

/// Steps kept for [`FaultyDisk::step_list`](super::FaultyDisk::step_list); later ones are only counted.
const STEPS_KEPT_MAX: usize = 1 << 20;
/// Tries to find other blocks for a misdirected write.
const LANDING_TRIES: usize = 16;

/// A point at which the power can fail. What a call does happens between its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub operation: Operation,
    pub phase: Phase,
    pub path: Rc<Path>,
    pub position: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has happened yet.
    Begin,
    /// Part of it has happened: between the pieces of a write, or while the device flushes.
    Middle,
    /// All has happened, but the caller has not heard of it. Calls that change nothing do not have it.
    End,
}

/// A fault that has struck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// The step in which it struck.
    pub step: u64,
    pub operation: Operation,
    pub path: PathBuf,
    pub position: Option<u64>,
    pub fault: Fault,
    /// Where a misdirected write has landed; `None` when it is nowhere.
    pub landed_at: Option<(PathBuf, u64)>,
}

pub(super) struct Core {
    pub(super) plan: FaultPlan,
    pub(super) rules: Rules,
    pub(super) random: Random,
    pub(super) trace: Trace,
    pub(super) clock: Option<SharedClock>,
    pub(super) step_count: u64,
    pub(super) steps: Vec<Step>,
    pub(super) injected: Vec<Injected>,
    pub(super) abandoned_count: usize,
    pub(super) tree: Tree,
    files: BTreeMap<FileId, FileImage>,
    /// Number of the next change; also names files and writes.
    next_number: u64,
}

/// A write under way.
pub(super) struct Writing {
    pub(super) file: FileId,
    pub(super) write: WriteId,
    /// Pages that land together, in this order.
    pub(super) pieces: Vec<usize>,
    first: u64,
    page_count: u64,
    fault: Option<WriteFault>,
}

/// What strikes a write that will be answered well.
struct WriteFault {
    fault: Fault,
    /// Its place in the list of injected faults.
    injected: usize,
    /// What the device gave before, to be shown again.
    before: Vec<Option<Page>>,
}

/// No room for the rest of a write, or for a file to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoSpace;

impl Core {
    pub(super) fn new(seed: u64, plan: FaultPlan) -> Self {
        Self {
            rules: Rules::new(plan.rules.clone()),
            plan,
            random: Random::new(seed),
            trace: Trace::new(),
            clock: None,
            step_count: 0,
            steps: Vec::new(),
            injected: Vec::new(),
            abandoned_count: 0,
            tree: Tree::new(),
            files: BTreeMap::new(),
            next_number: 0,
        }
    }

    /// The state after the process has ended and started again. This one is not changed.
    pub(super) fn after(&self, how: Restart, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let kept = FaultPlan { total_bytes: self.plan.total_bytes, ..FaultPlan::none() };
        let mut after = Self::new(random.number(), kept);
        after.trace = self.trace.clone();
        after.clock = self.clock.clone();
        after.next_number = self.next_number + 1;
        match how {
            Restart::ProcessKill => {
                let settled = ChangeNumber(self.next_number);
                after.tree = self.tree.after_kill();
                let known = after.tree.known_files();
                let files = self.files.iter().filter(|(id, _)| known.contains(id));
                after.files = files.map(|(id, file)| (*id, file.after_kill(settled, &mut random))).collect();
            }
            Restart::PowerLoss(survival) => {
                let in_files = self.files.values().flat_map(FileImage::outstanding);
                let outstanding = self.tree.outstanding().chain(in_files).collect();
                let mut fates = Fates::new(survival, random, outstanding);
                after.tree = self.tree.after_power_loss(&mut fates);
                let known = after.tree.known_files();
                let files = self.files.iter().filter(|(id, _)| known.contains(id));
                after.files = files.map(|(id, file)| (*id, file.after_power_loss(&mut fates))).collect();
            }
        }
        after
    }

    /// Counts a step. `Err` when the power fails instead.
    pub(super) fn step(&mut self, step: Step) -> Result<(), PowerFailure> {
        if self.plan.crash_at == Some(self.step_count) {
            return Err(PowerFailure);
        }
        let position = step.position.map_or(u64::MAX, |position| position);
        self.trace.event(word(step.operation), &step.path.to_string_lossy(), &[step.phase as u64, position]);
        self.step_count += 1;
        if self.steps.len() < STEPS_KEPT_MAX {
            self.steps.push(step);
        }
        Ok(())
    }

    /// The fault that strikes the call which has just begun.
    pub(super) fn strike(
        &mut self,
        operation: Operation,
        path: &Path,
        position: Option<u64>,
    ) -> Option<Fault> {
        let fault = self.rules.strike(operation, path, &mut self.random)?;
        let step = self.step_count - 1;
        self.injected.push(Injected {
            step,
            operation,
            path: path.to_owned(),
            position,
            fault,
            landed_at: None,
        });
        Some(fault)
    }

    pub(super) fn next_number(&mut self) -> ChangeNumber {
        self.next_number += 1;
        ChangeNumber(self.next_number - 1)
    }

    pub(super) fn file(&self, id: FileId) -> &FileImage {
        &self.files[&id]
    }

    pub(super) fn file_mut(&mut self, id: FileId) -> &mut FileImage {
        self.files.get_mut(&id).expect("a file stays while it is open or has a name")
    }

    pub(super) fn swap_files(&mut self, one: FileId, other: FileId) {
        let (first, second) = (self.file(one).clone(), self.file(other).clone());
        self.file_mut(one).take_contents(&second);
        self.file_mut(other).take_contents(&first);
    }

    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut FileImage> {
        self.files.values_mut()
    }

    pub(super) fn open_count(&self) -> usize {
        self.files.values().map(|file| file.open_count).sum()
    }

    pub(super) fn create_directory(&mut self, path: &Path) -> Result<(), Errno> {
        let next = &mut self.next_number;
        self.tree.create_directory(path, || {
            *next += 1;
            ChangeNumber(*next - 1)
        })
    }

    /// Opens a file, and counts the handle at once: from now on the file stays, whatever happens to its name.
    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> Result<FileId, Errno> {
        let file = match (self.tree.file(path), mode) {
            (Ok(file), OpenMode::Create) => {
                let number = self.next_number();
                if self.file(file).bytes() > 0 {
                    self.file_mut(file).resize(0, number);
                }
                file
            }
            (Ok(file), OpenMode::Existing | OpenMode::ReadOnly) => file,
            (Err(libc::ENOENT), OpenMode::Create) => {
                let number = self.next_number();
                let file = FileId(number.0);
                self.tree.link(path, file, number)?;
                self.files.insert(file, FileImage::default());
                file
            }
            (Err(code), _) => return Err(code),
        };
        self.file_mut(file).open_count += 1;
        Ok(file)
    }

    pub(super) fn space(&self) -> Space {
        let named: Vec<FileId> = self.tree.live_files().into_iter().map(|(_, file)| file).collect();
        let held = self.files.iter().filter(|(id, file)| file.open_count > 0 || named.contains(id));
        let used = held.fold(0u64, |used, (_, file)| used.saturating_add(file.bytes()));
        let total = self.plan.total_bytes.unwrap_or(TOTAL_BYTES);
        Space { total, available: total.saturating_sub(used), used }
    }

    /// By how much files may still grow.
    fn free_bytes(&self) -> u64 {
        self.plan.total_bytes.map_or(u64::MAX, |_| self.space().available)
    }

    pub(super) fn preallocate(&mut self, file: FileId, bytes: u64) -> Result<(), NoSpace> {
        let growth = bytes.saturating_sub(self.file(file).bytes());
        if growth > 0 && growth > self.free_bytes() {
            return Err(NoSpace);
        }
        let number = self.next_number();
        self.file_mut(file).resize(bytes, number);
        Ok(())
    }

    /// Registers a write right after `fault` has struck it.
    pub(super) fn start_write(
        &mut self,
        file: FileId,
        position: u64,
        pages: Rc<[Option<Page>]>,
        fault: Option<Fault>,
    ) -> Writing {
        let write = WriteId(self.next_number().0);
        let first = position / BLOCK_BYTES as u64;
        let page_count = pages.len() as u64;
        let fault = fault.filter(|_| page_count > 0).map(|fault| {
            let before = self.file(file).visible_pages(first..first + page_count);
            WriteFault { fault, injected: self.injected.len() - 1, before }
        });
        self.file_mut(file).start_write(write, position, pages);
        let pieces = self.pieces(page_count as usize);
        Writing { file, write, pieces, first, page_count, fault }
    }

    /// Lands the next piece of a write, as far as there is room; without room the write is over.
    pub(super) fn land(&mut self, writing: &Writing, piece: usize) -> Result<(), NoSpace> {
        let Writing { file, write, .. } = *writing;
        let growth = self.file(file).growth(write, piece);
        let missing = if growth > 0 { growth.saturating_sub(self.free_bytes()) } else { 0 };
        let fitting = piece.saturating_sub(missing.div_ceil(BLOCK_BYTES as u64) as usize);
        if fitting > 0 {
            let number = self.next_number();
            self.file_mut(file).land(write, fitting, number);
        }
        if fitting == piece {
            return Ok(());
        }
        self.file_mut(file).end_write(write);
        Err(NoSpace)
    }

    pub(super) fn fail_write(&mut self, writing: &Writing) {
        let number = self.next_number();
        let mut random = self.random.fork();
        self.file_mut(writing.file).fail_write(writing.write, number, &mut random);
    }

    /// The write is done; the fault that struck it shows from now on.
    pub(super) fn end_write(&mut self, mut writing: Writing) {
        self.file_mut(writing.file).end_write(writing.write);
        let Some(WriteFault { fault, injected, before }) = writing.fault.take() else { return };
        match fault {
            Fault::Error(_) => {}
            Fault::Misdirect(landing) => self.misdirect(&writing, landing, before, injected),
            Fault::FlipBit => {
                let bytes = writing.page_count * BLOCK_BYTES as u64;
                let byte = writing.first * BLOCK_BYTES as u64 + self.random.range(0..bytes);
                let bit = self.random.range(0..8) as u8;
                self.file_mut(writing.file).flip_bit(byte, bit);
            }
        }
    }

    pub(super) fn fail_sync(&mut self, file: FileId, point: &SyncPoint) {
        let mut random = self.random.fork();
        self.file_mut(file).fail_sync(point, &mut random);
    }

    /// Forgets files that can not be reached any more.
    pub(super) fn forget_unreachable(&mut self) {
        let known = self.tree.known_files();
        self.files.retain(|id, file| file.open_count > 0 || known.contains(id));
    }

    /// Cuts a write into pieces of at least one page.
    fn pieces(&mut self, page_count: usize) -> Vec<usize> {
        let pieces_max = self.plan.pieces_max.clamp(1, page_count.max(1));
        let mut ends = vec![page_count];
        if pieces_max > 1 {
            let cuts = self.random.index(pieces_max);
            ends.extend((0..cuts).map(|_| self.random.range(1..page_count as u64) as usize));
            ends.sort_unstable();
            ends.dedup();
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        ends.iter().zip(starts).map(|(end, start)| end - start).collect()
    }

    /// Shows the old bytes where the write should be, and its bytes where it should not.
    fn misdirect(&mut self, writing: &Writing, landing: Landing, before: Vec<Option<Page>>, injected: usize) {
        let Writing { file, first, page_count, .. } = *writing;
        let written = self.file(file).visible_pages(first..first + page_count);
        let place = match landing {
            Landing::SameFile => self.other_blocks(file, first, page_count).map(|other| (file, other)),
            Landing::OtherFile => self.blocks_of_another_file(file, page_count),
            Landing::Nowhere => None,
        };
        self.file_mut(file).put_damage(first, before);
        if let Some((other, at)) = place {
            self.file_mut(other).put_damage(at, written);
            let named = self.tree.live_files().into_iter().find(|(_, id)| *id == other);
            self.injected[injected].landed_at = named.map(|(path, _)| (path, at * BLOCK_BYTES as u64));
        }
    }

    fn other_blocks(&mut self, file: FileId, first: u64, count: u64) -> Option<u64> {
        let last = (self.file(file).bytes() / BLOCK_BYTES as u64).checked_sub(count)?;
        let candidates = (0..LANDING_TRIES).map(|_| self.random.range(0..=last));
        candidates.into_iter().find(|&at| at + count <= first || first + count <= at)
    }

    fn blocks_of_another_file(&mut self, file: FileId, count: u64) -> Option<(FileId, u64)> {
        let last = |id: FileId| (self.file(id).bytes() / BLOCK_BYTES as u64).checked_sub(count);
        let files = self.tree.live_files().into_iter().filter(|(_, id)| *id != file);
        let large_enough: Vec<_> = files.filter_map(|(_, id)| last(id).map(|last| (id, last))).collect();
        if large_enough.is_empty() {
            return None;
        }
        let (id, last) = *self.random.pick(&large_enough);
        Some((id, self.random.range(0..=last)))
    }
}

/// The power fails instead of the step that was about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PowerFailure;

/// For traces, which want a word without formatting one.
fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::CreateDirectory => "create directory",
        Operation::List => "list",
        Operation::Open => "open",
        Operation::Names => "names",
        Operation::Rename => "rename",
        Operation::Remove => "remove",
        Operation::SyncDirectory => "sync directory",
        Operation::Space => "space",
        Operation::Size => "size",
        Operation::Preallocate => "preallocate",
        Operation::Write => "write",
        Operation::Read => "read",
        Operation::Sync => "sync",
        Operation::Close => "close",
    }
}
