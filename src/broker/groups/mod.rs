//! Groups: who consumes for them, which queues each member and the receivers have, and how a group goes.

mod gates;
mod membership;
mod receivers;
mod removal;
mod requests;
mod sharing;

pub(super) use gates::{Gate, Gates};
pub(super) use membership::HolderCheck;
pub use membership::{GateOrders, Groups, RECEIVERS};
pub(super) use receivers::Receivers;
pub use receivers::SeenReceivers;
pub use removal::GroupsInUse;
