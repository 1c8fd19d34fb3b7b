//! The consume index: which batch of the commit log holds an offset of a queue.
//!
//! Per queue an append-only B+-tree (`tree`) of one entry per batch (`entry`). Its right edge is in memory; full
//! chunks become blocks (`block`) of index segments (`segment`) that all queues of the shard share. So the index
//! costs a partial chunk per queue and level in memory, whatever the backlog, and a block of 4 KiB on disk per hundred
//! batches. An append touches memory only. Sealed blocks wait (`sealed`) until a background task writes them side by
//! side (`spill`).
//!
//! Everything here can be made again from the log, also while it is in use (`renewal`). A snapshot (`snapshot`) saves most of that work:
//!
//! ```text
//! owner                                   index
//! spill().await                           waiting blocks are written
//! note the log position; snapshot()       in one step: exactly the batches before that position
//! sync().await                            what the snapshot refers to is durable
//! store the snapshot and the position
//! .. restart ..
//! open(.., snapshot)                      as it was at that position; blocks written later are overwritten
//! trim(start of the log), to its end      what the log no longer has
//! replay(..) of the batches after
//! ```
//!
//! A damaged block is found by its checksum when a lookup meets it, and named by file and position
//! ([`IndexError::Damaged`]); the owner then opens the index without a snapshot and replays the whole log.
//!
//! Invariants:
//!
//! 1. Entries of a queue rise in offset, and never fall in log position and store time. They are dense, but for gaps
//!    that recovery from damage leaves.
//! 2. A block is written once, before anything durable refers to it, and never changed while something does.
//! 3. A segment is removed when the log no longer has anything that it refers to.

mod block;
mod cache;
mod consume;
mod distrust;
mod entry;
mod error;
pub mod keys;
mod lookup;
mod message_map;
mod renewal;
mod sealed;
mod segment;
mod snapshot;
mod spill;
mod state;
#[cfg(test)]
mod tests;
mod tree;
mod trim;
mod verify;

pub use block::{BLOCK_ENTRIES_MAX, BLOCK_REFERENCES_MAX, BlockError};
pub use consume::{Index, IndexOptions};
pub use distrust::{clear_distrust, distrust, mark_distrust};
pub use entry::{BlockAddress, IndexEntry};
pub use error::{IndexError, SnapshotError};
pub use lookup::LookupMax;
pub use message_map::MessageMap;
pub use segment::check_files;
pub use snapshot::check_snapshot;
pub use state::Snapshot;
pub use trim::{Trim, TrimProgress};
pub use verify::Verified;
