//! Groups: who consumes for them, which queues each member and the receivers have, and how a group goes.
//!
//! # One group, both ways
//!
//! A group may be read by members that own queues (fetch and commit) and by receivers at the same time: every message goes
//! to one of them. All who receive for a group, over any protocol, are **one more member**, `%receive`, as long as one of
//! them has received within half a minute. It gets its share of each topic's queues.
//!
//! * The control shard divides the queues (`membership`) and gives every shard *grants*: which queues of
//!   the members' topics are open to receivers. The shard is who enforces them (`gates`), also against a
//!   receive that was choosing messages meanwhile, and a member is granted a queue only when its shard has said that it is
//!   closed and drained.
//! * Without grants all is open. So a group without members pays nothing, and neither does a start: grants are never
//!   stored. A member that joins has its queues closed first. A shard that has grants tells the control shard of its
//!   receivers (`receivers`) every second; that also finds members that have died.
//! * **Receivers to member**: the queue *drains*. Nothing of it is given out, new or again, until no lease runs: at most
//!   for as long as the last lease had left. If what is unacknowledged then is everything from one message on, the group
//!   goes back to it, in the log, and the member reads it. If there are acknowledged messages in between, the member starts
//!   after all of it, since it would get those again; what is left stays leased and comes again to whoever receives. When
//!   nobody does, it goes to the dead letters after the time its deliveries would have taken.
//! * **Member to receivers**: the queue opens when the member has confirmed that it gave it up, or its session has ended,
//!   and everything placed in the log before is durable: the last commit is.
//! * **One place**: where a group has leases, their `next` is its place, and a member's commit moves it forward in the same
//!   step of the log. A commit by no member (`group reset`, a tool) sets both and forgets the leases.

mod gates;
mod membership;
mod of_topic;
mod receivers;
mod removal;
mod requests;
mod set_up;
mod shaping;
mod sharing;

pub(super) use gates::{Gate, Gates};
pub(super) use membership::HolderCheck;
pub use membership::{Groups, QueueGrants, RECEIVERS};
pub use of_topic::SeenGroup;
pub use receivers::SeenReceivers;
pub(super) use receivers::{Receivers, TELL_INTERVAL};
pub use removal::GroupsInUse;
pub use shaping::GroupShape;
