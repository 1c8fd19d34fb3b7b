//! The machine under a shard: the executor's rings and its time, and what the operating system counts.

mod executor;
pub mod host;
mod ring;
mod tick;

pub(crate) use executor::{Executor, Glommio};
pub(crate) use tick::{SystemClock, heartbeat, is_clock_tellable, wall_clock, yield_to_reactor};
