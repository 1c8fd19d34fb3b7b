//! The key index: which messages carry a key.
//!
//! Sorted **runs** (`run`), each an immutable file about one range of one log segment, with a filter in front. A run is
//! found by its name, described by its own header, and checked block by block; there is no manifest. What no run covers
//! is a **gap**, which the owner fills from the log: at first everything, later what was appended since, and what was
//! found damaged.
//!
//! ```text
//! log      |------- segment -------|------- segment -------|--- segment in use
//! runs     [          one          ][   a   ][   b   ][ c ]   (collected in memory)   not indexed yet
//! ```
//!
//! Runs of one segment are merged (`merge`) eight at a time while it is written and into one when it is left, and go
//! with it. In memory are a run's bounds and its open file, and a bounded cache of filter blocks, so memory does not grow
//! with messages but with segments.
//!
//! A look-up (`search`) takes the runs newest first and returns locations: one block read for a run without the key, two or
//! three for one with it. Keys are stored as 64-bit hashes, so the caller checks each location against the message itself.
//!
//! Invariants:
//!
//! 1. Runs do not overlap, and none crosses the end of a segment.
//! 2. A file under its final name is complete and durable. When a merged run and its parts are both there, after a
//!    crash, the parts go.

mod block;
mod check;
mod collect;
mod merge;
mod run;
mod run_writer;
mod search;
mod set;
#[cfg(test)]
mod tests;

pub use check::KeyCheck;
pub use collect::{Collected, KEYED_ENTRIES_MAX};
pub use run::{KeyDamage, KeyOwner, RunRange};
pub use search::Search;
pub use set::KeyIndex;
