//! Who may do what: access keys with their secrets, and what each key's holder may publish and consume. Shared by every
//! protocol that knows keys; how a request proves that it has a secret is the protocol's.

mod file;
mod keys;
mod node_secret;
mod pattern;

pub use file::{AccessFile, FileWarning, Refreshed};
pub use keys::{AccessError, AccessKey, AccessKeys, Secret};
pub use node_secret::NodeSecret;
pub use pattern::{Pattern, PatternError};
