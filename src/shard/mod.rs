//! Running a node: one executor per core, shards on executors, mailboxes between shards, listeners, connections, and the
//! order in which they start and stop.

mod connection;
mod core;
mod data_directory;
mod descriptors;
mod device;
mod handshakes;
pub mod host;
mod http;
mod http_backend;
mod http_client;
mod http_port;
mod http_stream;
mod mailbox;
mod memory;
mod native;
mod node;
mod options;
mod preflight;
mod read_ahead;
mod relief;
mod ring;
mod sender;
mod tick;
mod turned_away;

pub use self::core::CoreError;
pub use self::device::DeviceSpeed;
pub use data_directory::{DataDirectory, DirectoryError};
pub use http_port::HttpPortError;
pub use node::{NodeError, Started, StartedShard, run};
pub use options::{OptionsError, SHARD_PORT_STEP, ServeOptions};
pub use preflight::{PreflightError, check_io_uring};
