//! Receiving: which messages a group is given, by whom it is chosen, and what becomes of what was not acknowledged. The
//! table of what was given is `state::leases`.
//!
//! One receive at a time chooses messages for a group in a queue; others go on to the next queue. In order (`trans=order`),
//! a queue gives nothing while a lease of it runs, and what was not acknowledged first when they have ended. What was
//! delivered as often as the group allows goes to `%DLQ%group`, which gets a queue on each shard, so that the move is one
//! step of one log.
//!
//! A filter is the asker's, but a queue has one place for the whole group: what a filter leaves out is passed over for
//! everybody. So all who consume for a group must ask for the same of a topic, as RocketMQ's rule of one subscription in a
//! group says; `group describe` names the topics of which they do not. Its lag is everything that was not dealt with: never
//! delivered, leased (RocketMQ's in-flight messages) and waiting to be delivered again.

mod acknowledge;
mod answer_budget;
mod anywhere;
mod choose;
mod dead_letters;
mod give_back;
mod pair_locks;
mod passed;
mod redrive;

mod shares;

pub use anywhere::{Prospect, ReceiveCall, ReceiveLook, ReceivePause, ReceiveWait};
pub use choose::Received;
pub(super) use dead_letters::dead_letter;
pub use dead_letters::dead_letter_topic;
pub(super) use pair_locks::{Pair, PairLocks};
pub(super) use passed::Passed;
pub use redrive::{RedriveArrival, SentRedrive};
pub(super) use shares::Refusal;
