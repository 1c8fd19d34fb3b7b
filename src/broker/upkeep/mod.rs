//! Upkeep: snapshots, checkpoints, retention, the index's health, what is told to an operator, and what checks and repairs
//! a shard that does not run.

mod ages;
mod condition;
mod housekeeping;
mod index_health;
mod index_renewal;
mod notices;
mod reading;
mod snapshot;
mod standing;
mod verify;

pub use condition::{ShardHome, Witnesses, check_shard, refused_names, repair_shard};
pub(super) use housekeeping::CheckpointDone;
pub(super) use index_health::IndexHealth;
pub(super) use notices::Notices;
pub use snapshot::Snapshot;
pub use standing::LogStanding;
pub use verify::{Checked, Finding, verify_shard};
