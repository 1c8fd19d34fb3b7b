//! The held messages of a shard as the log makes them: delayed ones, and the halves of transactions.
//!
//! **Delays.** The header of a delayed batch says when it is due. The pending ones are found through hidden queues of the
//! consume index (topic [`TopicId::DELAYED`](crate::types::TopicId::DELAYED)), one per bucket of 262 seconds, whose
//! offsets are log positions; so memory does not grow with their number, and snapshots, spilling and a new index from the
//! log are those of any queue. What lies at or below the durable cursor (due time, position) was released.
//!
//! **Halves** are a table (`halves`), by the position where the half message was first stored.

mod change;
mod delays;
mod halves;
mod state;

pub use change::*;
pub use delays::*;
pub use halves::*;
pub use state::*;
