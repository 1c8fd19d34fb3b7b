//! What tests run on: one seed decides every choice, so that a failure is repeated by its seed.
//!
//! - [`Random`]: numbers from a seed.
//! - [`SeededExecutor`]: runs futures that are not `Send`, in an order that the seed picks.
//! - [`VirtualClock`]: time that stands still while anyone works and jumps when everyone waits.
//! - [`Trace`]: what happened, as a hash or as lines, to compare two runs of one seed.
//! - [`generators`]: names, messages and batches of every shape.
//!
//! The disk that fails on a seeded plan is [`FaultyDisk`](crate::disk::faulty::FaultyDisk).

mod executor;
pub mod generators;
mod random;
mod task;
mod trace;
mod virtual_clock;

pub use executor::SeededExecutor;
pub use random::Random;
pub use task::{JoinHandle, Spawner};
pub use trace::Trace;
pub use virtual_clock::VirtualClock;
