//! Threads with a tokio executor on one core.

use std::future::Future;
use std::io::Result;

use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// Pins the calling thread and runs `main` on an executor of its own.
pub fn run<F: Future>(core: Option<usize>, main: impl FnOnce() -> F) -> Result<F::Output> {
    if let Some(core) = core {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores)?;
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    Ok(LocalSet::new().block_on(&runtime, async { main().await }))
}
