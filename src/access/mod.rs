//! Who may do what: access keys with their secrets, what each key's holder may publish and consume, and the [`Session`] of
//! whoever asks, which every protocol checks its requests against. How a key is proved is the protocol's.

mod caller;
mod file;
mod keys;
mod node_secret;
mod pattern;
mod peer;
mod session;
mod shared;

pub use crate::types::Secret;
pub use caller::{Caller, NamedKey};
pub use file::{AccessFile, FileWarning, Refreshed};
pub use keys::{AccessError, AccessKey, AccessKeys};
pub use node_secret::NodeSecret;
pub use pattern::{Pattern, PatternError};
pub use peer::Peer;
pub use session::{Denied, Need, Session};
pub use shared::SharedKeys;
