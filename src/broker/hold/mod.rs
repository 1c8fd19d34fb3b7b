//! Held messages: delayed ones, and the halves of transactions. Both are stored at once, as batches of kind `Held` on the
//! shard of the queue that they are for, and enter that queue later. The step that puts a message into its queue is one
//! step of the log with the change that says so: no death loses a message or shows it twice. What is held is in
//! `state::held`; here are the rules of how it gets there and leaves.
//!
//! The next delays are loaded into memory in order, and the timer task releases them in the order of (due time, position):
//!
//! * A batch that is due already is not held, but goes straight into its queue; no other is due before the cursor.
//! * Nothing is released while an earlier one is placed and not yet durable.
//!
//! So whatever stands in the log is pending exactly when it lies above the newest cursor, whichever of the two came first. What
//! its producer has taken back (`recall`) is pending as well, and enters no queue when its time comes.
//!
//! **Retention** takes no pending message away: before a segment goes, what is pending in it is placed again at the log's
//! end, each in one step with the change that tells the copy from its original (`rolling`).

mod checking;
mod ending;
mod finding;
mod listing;
mod recall;
mod receive_halves;
mod rolling;
mod store;
mod timers;

pub use checking::{ProducerCheck, ProducerNotice};
pub use recall::Recall;
pub(in crate::broker) use recall::Recallers;
pub use store::PendingHold;
