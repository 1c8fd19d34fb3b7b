//! Running a node: one executor per core, shards on executors, mailboxes between shards, listeners, and the order in which
//! they start and stop.

mod admin;
mod core;
mod data_directory;
mod descriptors;
mod device;
mod gate;
mod handshake_threads;
mod keeper;
mod mailbox;
mod memory;
mod node_files;
mod options;
mod permissions;
mod preflight;
mod prospect;
mod pulse;
mod run;
mod service;
mod sockets;

pub use self::core::CoreError;
pub use self::device::DeviceSpeed;
pub use crate::server::TlsMode;
pub use data_directory::{DataDirectory, DirectoryError, NEW_SECRET_MEANS};
pub use keeper::SettingsKeeper;
pub use node_files::NodeFiles;
pub use options::{ADMIN_PORT, OptionsError, Place, SHARD_PORT_STEP, ServeOptions, Wanted};
pub use permissions::Owners;
pub use preflight::{MEMLOCK_BYTES_MIN, PreflightError, check_io_uring};
pub use prospect::Prospect;
pub use run::{NodeError, Started, StartedShard, run};
pub use sockets::NodeAddresses;
