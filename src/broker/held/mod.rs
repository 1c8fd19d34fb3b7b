//! Held messages: delayed ones, and the halves of transactions. Both are stored at once, as batches of kind `Held` on the
//! shard of the queue that they are for, and enter that queue later. The step that puts a message into its queue is one
//! step of the log with the change that says so: no death loses a message or shows it twice.
//!
//! **Delays.** The header of a delayed batch says when it is due. The pending ones are found through hidden queues of the
//! consume index (topic [`TopicId::DELAYED`](crate::types::TopicId::DELAYED)), one per bucket of 262 seconds, whose
//! offsets are log positions; so memory does not grow with their number, and snapshots, spilling and a new index from the
//! log are those of any queue. The next ones are loaded into memory in order (`delays`), and the timer task releases them
//! in the order of (due time, position). Released is what lies at or below the durable cursor:
//!
//! * A batch that is due already is not held, but goes straight into its queue; no other is due before the cursor.
//! * Nothing is released while an earlier one is placed and not yet durable.
//!
//! So whatever stands in the log is pending exactly when it lies above the newest cursor, whichever of the two came first.
//!
//! **Halves** are a table (`halves`), by the position where the half message was first stored.
//!
//! **Retention** takes no pending message away: before a segment goes, what is pending in it is placed again at the log's
//! end, each in one step with the change that tells the copy from its original (`rolling`).

mod change;
mod delays;
mod ending;
mod halves;
mod hold;
mod receive_halves;
mod rolling;
mod state;
mod timers;

pub use change::{Half, HeldChange};
pub(super) use state::HeldState;
