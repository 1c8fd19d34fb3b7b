//! The reader: how stored messages are found by the index, read, and handed out.

mod ahead;
mod batch_cache;
mod fetch;
mod watch;

pub use ahead::ReadAhead;
pub(super) use batch_cache::BatchCache;
pub use fetch::{FetchStep, SharedFetched};
