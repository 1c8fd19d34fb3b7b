//! Leases: which messages of a queue a group has been given, until when, and what it has acknowledged.
//!
//! RocketMQ keeps this in a hidden topic (`broker/.../processor/PopReviveService.java`); here it is a table of the shard
//! that owns the queue. Unlike the other tables it changes when its record is *placed* in the log, not when that is
//! durable: whoever is answered waits for the record first, so nobody learns of a state that a death could undo. A
//! snapshot of it therefore counts only once everything placed before it is durable, and every change is absolute, so
//! that replaying it over a state that holds it already changes nothing.

mod change;
mod queue_leases;
mod table;

pub use change::*;
pub use queue_leases::*;
pub use table::*;
