//! What the log makes of a shard, and nothing else: topics, committed offsets, groups, leases, held messages, and the records
//! that change them. It knows no clock, no peers and no sockets.

mod held;
mod leases;
mod record;
mod tables;

pub use held::*;
pub use leases::*;
pub use record::*;
pub use tables::*;
