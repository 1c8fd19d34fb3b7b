//! Receiving: which messages a group is given, by whom it is chosen, and what becomes of what was not acknowledged. The
//! table of what was given is `state::leases`.

mod acknowledge;
mod anywhere;
mod batch_cache;
mod choose;
mod dead_letters;
mod passed;
mod room;
mod shares;
mod turns;

pub use anywhere::Prospect;
pub(super) use batch_cache::BatchCache;
pub use choose::Received;
pub use dead_letters::dead_letter_topic;
pub(super) use passed::Passed;
pub(super) use shares::Refusal;
pub(super) use turns::{Pair, Turns};
