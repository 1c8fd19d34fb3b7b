//! One executor per core with everything that belongs to it, and the mailboxes between them.

mod options;

pub use options::{OptionsError, SHARD_PORT_STEP, ServeOptions};
