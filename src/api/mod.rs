//! What a protocol adaptor asks of the broker and what it gets back: protocol-neutral requests, replies, and one
//! [`Status`] enum. Everything is owned and `Send`, so that a request can cross to the shard that owns its queue.

mod dead_letters;
mod filter;
mod find;
mod hold;
mod purge;
mod readers;
#[cfg(feature = "server")]
mod reading;
mod receive;
mod reply;
mod request;
mod settings;
mod slow;
mod stats;
mod status;

pub use dead_letters::*;
pub use filter::Filter;
pub use find::*;
pub use hold::*;
pub use purge::*;
pub use readers::*;
#[cfg(feature = "server")]
pub use reading::*;
pub use receive::*;
pub use reply::*;
pub use request::*;
pub use settings::*;
pub use slow::*;
pub use stats::*;
pub use status::{Failure, Status};
