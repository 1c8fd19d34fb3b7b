//! A disk in memory that fails on a seeded plan: what a broker has to survive, without a machine to pull plugs from.
//!
//! 1. Every call is made of steps. The power can fail instead of any of them ([`FaultPlan::crash_at`]); their number
//!    depends on nothing but seed, plan and caller. A sweep runs its workload once to learn [`FaultyDisk::step_count`],
//!    then once per step with the power failing there, and goes on with [`FaultyDisk::restart`].
//! 2. What a call changes becomes visible in a step of its own, without an await around it.
//! 3. What is durable is kept apart from what is written: a restart after a loss of power keeps all that was synced,
//!    and of the rest what [`Survival`] says.
//! 4. Faults lie over clean bytes and are never mixed with them: [`FaultyDisk::lift_damage`] takes them off again.
//! 5. One seed, one plan, one caller: the same faults, bytes and steps.
//!
//! | fault | how |
//! | --- | --- |
//! | short write, completed inside the seam | [`FaultPlan::pieces_max`] |
//! | error of any call, once, by chance, or from then on | [`Rule::error`] |
//! | no space | [`FaultPlan::total_bytes`], or a rule |
//! | late and reordered answers | [`FaultPlan::yields_max`], [`FaultPlan::latency_max`] |
//! | unsynced writes, sizes and names lost, kept, torn | [`Restart::PowerLoss`] |
//! | writes in flight torn by the death of the process | [`Restart::ProcessKill`] |
//! | bit flips at rest, or as they are written | [`FaultyDisk::flip_bit`], [`Rule::flip_bit`] |
//! | misdirected and lost writes | [`Rule::misdirect`] |
//! | blocks that can not be read | [`FaultyDisk::fail_reads`] |
//! | files and directories gone | [`FaultyDisk::lose`] |
//! | files cut off, emptied, too long | [`FaultyDisk::set_size`] |
//! | files swapped, or of another directory | [`FaultyDisk::swap`], [`FaultyDisk::replace`] |
//! | blocks of zeros | [`FaultyDisk::zero`] |

mod core;
mod file_image;
mod inspect;
mod plan;
mod rest;
mod survival;
mod tree;

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::yield_now;

use self::core::{Core, NoSpace, PowerFailure};
use self::file_image::ReadFault;
use self::tree::{Errno, FileId};
use super::memory::{MemoryBuffer, assert_aligned, assert_writable, os_error, out_of_range};
use super::{Disk, DiskBuffer, DiskError, DiskErrorKind, DiskFile, OpenMode, Operation, Space};
use crate::testing::Random;
use crate::types::WakerList;

pub use self::core::{Injected, Phase, Step};
pub use self::plan::{AfterCrash, Fault, FaultPlan, Landing, Rule, When};
pub use self::survival::{Restart, Survival, TearUnit};

/// A file system that fails as planned. A clone is the same file system, in the same incarnation: a restart makes
/// another one.
#[derive(Clone)]
pub struct FaultyDisk {
    state: Rc<State>,
}

struct State {
    seed: u64,
    core: RefCell<Core>,
    crashed: Cell<bool>,
    crash_waiters: WakerList,
}

/// An open file of a [`FaultyDisk`].
pub struct FaultyFile {
    state: Rc<State>,
    file: FileId,
    path: Rc<Path>,
    mode: OpenMode,
}

/// Counts a call whose future was dropped before its end, which the contract forbids.
struct CallGuard<'a> {
    state: &'a State,
    ended: bool,
}

impl FaultyDisk {
    pub fn new(seed: u64, plan: FaultPlan) -> Self {
        Self::from_core(seed, Core::new(seed, plan))
    }

    /// Ends this incarnation, and gives the disk as the next process finds it: without faults to come, with the damage
    /// done so far. The seed of this disk decides what survives.
    pub fn restart(&self, how: Restart) -> FaultyDisk {
        self.crash();
        let steps = self.step_count();
        self.outcome(how, Random::new(self.state.seed ^ steps.rotate_left(32)).number())
    }

    /// The disk as it would be after a restart at this moment. This one goes on undisturbed, so that one run of a
    /// workload can be the source of many restarts.
    pub fn outcome(&self, how: Restart, seed: u64) -> FaultyDisk {
        Self::from_core(seed, self.state.core.borrow().after(how, seed))
    }

    /// The power fails now: no call works any more.
    pub fn crash(&self) {
        self.state.crash();
    }

    pub fn is_crashed(&self) -> bool {
        self.state.crashed.get()
    }

    /// Ends when the power has failed.
    pub async fn crashed(&self) {
        while !self.is_crashed() {
            self.state.crash_waiters.changed().await;
        }
    }

    fn from_core(seed: u64, core: Core) -> Self {
        let core = RefCell::new(core);
        let state = State { seed, core, crashed: Cell::new(false), crash_waiters: WakerList::new() };
        Self { state: Rc::new(state) }
    }
}

impl State {
    fn crash(&self) {
        self.crashed.set(true);
        self.crash_waiters.wake();
    }

    /// Makes a step, or fails because the power has.
    async fn step(
        &self,
        operation: Operation,
        phase: Phase,
        path: &Rc<Path>,
        position: Option<u64>,
    ) -> Result<(), DiskError> {
        if !self.crashed.get() {
            self.pause().await;
        }
        if !self.crashed.get() {
            let step = Step { operation, phase, path: path.clone(), position };
            match self.core.borrow_mut().step(step) {
                Ok(()) => return Ok(()),
                Err(PowerFailure) => self.crash(),
            }
        }
        let after_crash = self.core.borrow().plan.after_crash;
        if after_crash == AfterCrash::Hang {
            pending::<()>().await;
        }
        let detail = "the power has failed".to_owned();
        Err(DiskError { kind: DiskErrorKind::Failed, operation, path: path.to_path_buf(), position, detail })
    }

    /// The first step of a call, and the fault that strikes it.
    async fn begin(
        &self,
        operation: Operation,
        path: &Rc<Path>,
        position: Option<u64>,
    ) -> Result<Option<Fault>, DiskError> {
        self.step(operation, Phase::Begin, path, position).await?;
        Ok(self.core.borrow_mut().strike(operation, path, position))
    }

    /// Begins a call that does nothing when it fails.
    async fn begin_or_fail(
        &self,
        operation: Operation,
        path: &Rc<Path>,
        position: Option<u64>,
    ) -> Result<(), DiskError> {
        match self.begin(operation, path, position).await? {
            Some(Fault::Error(kind)) => Err(planned_error(kind, operation, path, position)),
            _ => Ok(()),
        }
    }

    /// A call on names that takes effect at once.
    async fn name_call<T>(
        &self,
        operation: Operation,
        path: &Path,
        effect: impl FnOnce(&mut Core) -> Result<T, Errno>,
    ) -> Result<T, DiskError> {
        let path = Rc::from(path);
        self.begin_or_fail(operation, &path, None).await?;
        let result = effect(&mut self.core.borrow_mut()).map_err(|code| os_error(operation, &path, code))?;
        self.step(operation, Phase::End, &path, None).await?;
        Ok(result)
    }

    /// Lets others run, and time pass, as the plan says.
    async fn pause(&self) {
        let (yields, sleep) = {
            let core = &mut *self.core.borrow_mut();
            let yields = match core.plan.yields_max {
                0 => 0,
                max => core.random.range(0..=max),
            };
            let latency_max_ns = core.plan.latency_max.as_nanos() as u64;
            let sleep = core.clock.as_ref().filter(|_| latency_max_ns > 0).map(|clock| {
                let latency = Duration::from_nanos(core.random.range(0..=latency_max_ns));
                clock.sleep(latency)
            });
            (yields, sleep)
        };
        for _ in 0..yields {
            yield_now().await;
        }
        if let Some(sleep) = sleep {
            sleep.await;
        }
    }

    /// Runs a call to its end, and notices when it does not get there.
    async fn call<T>(&self, body: impl Future<Output = T>) -> T {
        let mut guard = CallGuard { state: self, ended: false };
        let result = body.await;
        guard.ended = true;
        result
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        if !self.ended && !self.state.crashed.get() {
            self.state.core.borrow_mut().abandoned_count += 1;
        }
    }
}

impl Disk for FaultyDisk {
    type Buffer = MemoryBuffer;
    type File = FaultyFile;

    fn allocate(&self, bytes: usize) -> MemoryBuffer {
        MemoryBuffer::new(bytes)
    }

    async fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        let effect = |core: &mut Core| core.create_directory(path);
        self.state.call(self.state.name_call(Operation::CreateDirectory, path, effect)).await
    }

    async fn list(&self, directory: &Path) -> Result<Vec<String>, DiskError> {
        let body = async {
            let path = Rc::from(directory);
            self.state.begin_or_fail(Operation::List, &path, None).await?;
            let core = self.state.core.borrow();
            let found = core.tree.directory(directory);
            found.map(|id| core.tree.names(id)).map_err(|code| os_error(Operation::List, directory, code))
        };
        self.state.call(body).await
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> Result<FaultyFile, DiskError> {
        let effect = |core: &mut Core| core.open(path, mode);
        let file = self.state.call(self.state.name_call(Operation::Open, path, effect)).await?;
        Ok(FaultyFile { state: self.state.clone(), file, path: Rc::from(path), mode })
    }

    /// There are no links on this disk.
    async fn has_other_names(&self, path: &Path) -> Result<bool, DiskError> {
        let body = async {
            let shared = Rc::from(path);
            self.state.begin_or_fail(Operation::Names, &shared, None).await?;
            let core = self.state.core.borrow();
            let found = core.tree.file(path);
            found.map(|_| false).map_err(|code| os_error(Operation::Names, path, code))
        };
        self.state.call(body).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let effect = |core: &mut Core| {
            let number = core.next_number();
            core.tree.rename(from, to, number)
        };
        self.state.call(self.state.name_call(Operation::Rename, from, effect)).await
    }

    async fn remove(&self, path: &Path) -> Result<(), DiskError> {
        let effect = |core: &mut Core| {
            let number = core.next_number();
            core.tree.remove(path, number)
        };
        self.state.call(self.state.name_call(Operation::Remove, path, effect)).await
    }

    async fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        const OPERATION: Operation = Operation::SyncDirectory;
        let body = async {
            let shared = Rc::from(path);
            let fault = self.state.begin(OPERATION, &shared, None).await?;
            let (directory, end) = {
                let mut core = self.state.core.borrow_mut();
                let directory = core.tree.directory(path).map_err(|code| os_error(OPERATION, path, code))?;
                (directory, core.next_number())
            };
            if let Some(Fault::Error(kind)) = fault {
                let core = &mut *self.state.core.borrow_mut();
                core.tree.fail_sync(directory, end, &mut core.random);
                return Err(planned_error(kind, OPERATION, path, None));
            }
            self.state.step(OPERATION, Phase::Middle, &shared, None).await?;
            {
                let mut core = self.state.core.borrow_mut();
                core.tree.sync(directory, end);
                core.forget_unreachable();
            }
            self.state.step(OPERATION, Phase::End, &shared, None).await
        };
        self.state.call(body).await
    }

    async fn space(&self, directory: &Path) -> Result<Space, DiskError> {
        let body = async {
            let path = Rc::from(directory);
            self.state.begin_or_fail(Operation::Space, &path, None).await?;
            let core = self.state.core.borrow();
            core.tree.directory(directory).map_err(|code| os_error(Operation::Space, directory, code))?;
            Ok(core.space())
        };
        self.state.call(body).await
    }
}

impl DiskFile for FaultyFile {
    type Buffer = MemoryBuffer;
    type ReadBuffer = Bytes;

    async fn size(&self) -> Result<u64, DiskError> {
        let body = async {
            self.state.begin_or_fail(Operation::Size, &self.path, None).await?;
            Ok(self.state.core.borrow().file(self.file).bytes())
        };
        self.state.call(body).await
    }

    async fn preallocate(&self, bytes: u64) -> Result<(), DiskError> {
        assert_writable(self.mode, &self.path);
        let body = async {
            self.state.begin_or_fail(Operation::Preallocate, &self.path, None).await?;
            let result = self.state.core.borrow_mut().preallocate(self.file, bytes);
            result.map_err(|NoSpace| os_error(Operation::Preallocate, &self.path, libc::ENOSPC))?;
            self.state.step(Operation::Preallocate, Phase::End, &self.path, None).await
        };
        self.state.call(body).await
    }

    async fn write(&self, position: u64, buffer: Rc<MemoryBuffer>) -> Result<(), DiskError> {
        assert_writable(self.mode, &self.path);
        assert_aligned(&self.path, position, buffer.as_slice().len());
        self.state.call(self.write_pieces(position, buffer)).await
    }

    async fn read(&self, position: u64, bytes: usize) -> Result<Bytes, DiskError> {
        assert_aligned(&self.path, position, bytes);
        let body = async {
            self.state.begin_or_fail(Operation::Read, &self.path, Some(position)).await?;
            let core = self.state.core.borrow();
            let file = core.file(self.file);
            file.read(position, bytes).map_err(|fault| match fault {
                ReadFault::OutOfRange => out_of_range(&self.path, position, bytes, file.bytes()),
                ReadFault::Unreadable => {
                    planned_error(DiskErrorKind::Failed, Operation::Read, &self.path, Some(position))
                }
            })
        };
        self.state.call(body).await
    }

    async fn sync(&self) -> Result<(), DiskError> {
        const OPERATION: Operation = Operation::Sync;
        let body = async {
            let fault = self.state.begin(OPERATION, &self.path, None).await?;
            let point = {
                let mut core = self.state.core.borrow_mut();
                let end = core.next_number();
                core.file(self.file).sync_point(end)
            };
            if let Some(Fault::Error(kind)) = fault {
                self.state.core.borrow_mut().fail_sync(self.file, &point);
                return Err(planned_error(kind, OPERATION, &self.path, None));
            }
            self.state.step(OPERATION, Phase::Middle, &self.path, None).await?;
            self.state.core.borrow_mut().file_mut(self.file).sync(&point);
            self.state.step(OPERATION, Phase::End, &self.path, None).await
        };
        self.state.call(body).await
    }

    /// The handle is gone even when this fails, as with close(2).
    async fn close(self) -> Result<(), DiskError> {
        let body = async {
            let result = self.state.begin_or_fail(Operation::Close, &self.path, None).await;
            let mut core = self.state.core.borrow_mut();
            core.file_mut(self.file).open_count -= 1;
            core.forget_unreachable();
            result
        };
        self.state.call(body).await
    }
}

impl FaultyFile {
    async fn write_pieces(&self, position: u64, buffer: Rc<MemoryBuffer>) -> Result<(), DiskError> {
        const OPERATION: Operation = Operation::Write;
        let fault = self.state.begin(OPERATION, &self.path, Some(position)).await?;
        let writing = self.state.core.borrow_mut().start_write(self.file, position, buffer.pages(), fault);
        if let Some(Fault::Error(kind)) = fault {
            self.state.core.borrow_mut().fail_write(&writing);
            return Err(planned_error(kind, OPERATION, &self.path, Some(position)));
        }
        for &piece in &writing.pieces {
            self.state.step(OPERATION, Phase::Middle, &self.path, Some(position)).await?;
            let landed = self.state.core.borrow_mut().land(&writing, piece);
            landed.map_err(|NoSpace| {
                planned_error(DiskErrorKind::NoSpace, OPERATION, &self.path, Some(position))
            })?;
        }
        // Answered only by the step below: until then the write counts as in flight, and no sync covers it.
        self.state.step(OPERATION, Phase::End, &self.path, Some(position)).await?;
        self.state.core.borrow_mut().end_write(writing);
        Ok(())
    }
}

/// The error that the operating system gives for a fault of this kind.
fn planned_error(kind: DiskErrorKind, operation: Operation, path: &Path, position: Option<u64>) -> DiskError {
    let error = io::Error::from_raw_os_error(match kind {
        DiskErrorKind::NoSpace => libc::ENOSPC,
        DiskErrorKind::NotFound => libc::ENOENT,
        DiskErrorKind::NoDirectIo => libc::EINVAL,
        DiskErrorKind::PermissionDenied => libc::EACCES,
        DiskErrorKind::OutOfRange | DiskErrorKind::NotRegular | DiskErrorKind::Failed => libc::EIO,
    });
    DiskError { kind, ..DiskError::from_io(operation, path, position, &error) }
}

#[cfg(test)]
mod tests;
