//! Readers of a group: RocketMQ's own clients, which divide the queues of their topics among themselves, read at offsets that
//! they say, and commit where they are. To the broker they are neither members, who are given queues, nor receivers, who are
//! given messages.
//!
//! * `commits`: where readers are, gathered and stored together.
//! * `start`: where they go on, and where a new group begins.

mod commits;
mod start;

pub use commits::ReaderCommit;
pub(super) use commits::{Coming, ReaderCommits};
