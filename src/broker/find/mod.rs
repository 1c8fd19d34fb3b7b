//! Looking messages up by key or id.

mod key_indexing;
mod look_up;

pub(super) use key_indexing::{KeyIndexing, keys_of};
pub use look_up::FindHere;
