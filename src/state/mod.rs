//! What the log makes of a shard, and nothing else: topics, committed offsets, groups, leases, locks, redrives, held messages,
//! and the records that change them. It knows no clock, no peers and no sockets. [`State::apply`] is the one place that carries them out.

mod fields;
mod held;
mod leases;
mod locks;
mod policy;
mod record;
mod redrives;
mod shard_state;
mod tables;

pub use held::*;
pub use leases::*;
pub use locks::{LockChange, Locks};
pub use policy::*;
pub use record::*;
pub use redrives::{Arrival, Moving, RedriveChange, Redrives};
pub use shard_state::*;
pub use tables::*;
