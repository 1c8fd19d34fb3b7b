//! The reader: how stored messages are found by the index, read, and handed out.

mod ahead;
mod batch_cache;
mod fetch;
mod fetches;
mod watch;

pub(super) use batch_cache::BatchCache;
pub use fetch::SharedFetched;
pub use fetches::{ClientFetches, fetch_share};
