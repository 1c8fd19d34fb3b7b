//! What is told to whoever watches: figures of topics and groups by pages, and what goes in and out of a shard in a second.
//!
//! Nothing is counted here: queues, tables and the shard's metrics have it all, and are read when somebody asks. A page is put
//! together from what all shards have, each of which looks in slices of time, in the row of those who have much to do.

mod asked;
mod groups;
mod rates;
mod topics;

pub use asked::{StatsReply, StatsRequest};
pub(super) use rates::Rates;
