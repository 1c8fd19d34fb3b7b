//! The commit log: a shard's single append-only sequence of batches, cut in segments.
//!
//! ```text
//! append -> open group -> swap -> 256 KiB pieces, written in parallel -> fdatasync -> publish
//! ```
//!
//! * [`CommitLog::append_batch`] places a batch in the **open group**: one copy, no I/O. When the group is full it refuses, and
//!   the producer waits for the swap.
//! * One commit task ([`CommitLog::run_commit`]) takes the whole group, writes it, flushes, and publishes the new
//!   watermarks. What arrives meanwhile is the next group: the flush in flight is the batching timer. A small group is
//!   written and flushed in one operation; a large one is written while the one before it is still being flushed.
//! * One supply task ([`CommitLog::run_supply`]) prepares the next segment ahead of need, so that the commit task never
//!   creates, renames or extends a file.
//!
//! Per group of 2 MiB, about 16,000 messages of 100 bytes: 16 writes and one flush, in 2 to 4 system calls; no copy
//! beyond the one into the group; about ten allocations for each operation that glommio carries out.
//!
//! Invariants:
//!
//! 1. `durable_end <= written_end <= appended_end`, and none of them ever falls.
//! 2. A group lies within one segment and starts on a block boundary. No byte below `appended_end` that was handed to
//!    the disk is written again in the same run; recovery writes the unflushed tail again, unchanged, before it flushes.
//! 3. Groups are written in log order, one at a time, and flushed in log order, one or more at a time. No more than one
//!    is written ahead of a flush that somebody waits for.
//! 4. After the first failed write or flush nothing more is written; what was answered stays readable.

mod commit;
mod commit_log;
mod device_use;
mod error;
mod expectation;
mod group;
mod holes;
mod manifest;
mod mark_waiters;
mod missing_part;
mod outdated;
mod read;
pub mod recovery;
mod register;
mod repair;
mod repair_journal;
mod rescan;
mod scanner;
mod segment;
mod stalls;
mod supply;
mod tail_cache;
#[cfg(test)]
mod tests;
mod walk;
mod watermark;
mod zeroing;

pub use commit_log::{CommitLog, CommitOptions, LogOptions, Placed, Placement};
pub use error::{AppendRefusal, LogFailure, OpenError};
pub use expectation::{Contradiction, Flaw, Known, Reached, ReachedEpoch, contradictions, secret_of_log};
pub use holes::Hole;
pub use manifest::{CopiedLog, GivenUp, Manifest};
pub use outdated::Outdated;
pub use read::{GAP_BYTES_MAX, ReadOutcome, STRETCH_BYTES, Stretch, StretchBatch, Want};
pub use recovery::{Damage, GivenUpRange, Lost, Replay, Report, StartAt, check_spares, move_aside, scan};
pub use repair::{Act, Repair, finish_repair, repair};
pub use rescan::SegmentEnds;
pub use segment::{SEGMENT_HEADER_BYTES, SegmentInfo, parse_segment_name, segment_name};
pub use walk::BatchAt;
pub use watermark::Watermarks;
