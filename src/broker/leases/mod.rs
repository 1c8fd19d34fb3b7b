//! Leases: which messages of a queue a group has been given, until when, and what it has acknowledged.
//!
//! RocketMQ keeps this in a hidden topic (`broker/.../processor/PopReviveService.java`); here it is a table of the shard
//! that owns the queue. Unlike the other tables it changes when its record is *placed* in the log, not when that is
//! durable: whoever is answered waits for the record first, so nobody learns of a state that a death could undo. A
//! snapshot of it therefore counts only once everything placed before it is durable, and every change is absolute, so
//! that replaying it over a state that holds it already changes nothing.

mod acknowledge;
mod batch_cache;
mod change;
mod dead_letters;
mod passed;
mod queue_leases;
mod receive;
mod receive_anywhere;
mod room;
mod shares;
mod table;
mod turns;

pub(super) use batch_cache::BatchCache;
pub use change::{LEASE_KINDS, LeaseChange};
pub use dead_letters::dead_letter_topic;
pub(super) use passed::Passed;
pub use queue_leases::{QueueLeases, Run};
pub use receive::Received;
pub use receive_anywhere::Prospect;
pub(super) use shares::Refusal;
pub use table::{Holding, Leases};
pub(super) use turns::{Pair, Turns};
