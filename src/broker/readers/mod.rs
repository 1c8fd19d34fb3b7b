//! Readers of a group: RocketMQ's own clients, which divide the queues of their topics among themselves, read at offsets that
//! they say, and commit where they are. To the broker they are neither members, who are given queues, nor receivers, who are
//! given messages.
//!
//! * `commits`: where readers are, gathered and stored together.
//! * `locks`: who of them has a queue to itself.
//! * `members`: which clients read for which groups, on all shards, and `producers`: which of them produce.
//! * `precedence`: whose a group is that native members want as well.
//! * `progress`: where a group is in each queue, as tools are told.
//! * `questions`: what one client is asked.
//! * `rates`: how much each group is given of each topic, as tools are told.
//! * `replies`: messages for one client.
//! * `resets`: groups that are moved while they are read.
//! * `send_back`: what they could not process comes again, or is a dead letter.
//! * `spreading`: how all shards come to know.
//! * `start`: where they go on, and where a new group begins.

mod commits;
mod locks;
mod members;
mod precedence;
mod producers;
mod progress;
mod questions;
mod rates;
mod replies;
mod resets;
mod send_back;
mod spreading;
mod start;

pub use commits::ReaderCommit;
pub(super) use commits::{Coming, ReaderCommits};
pub(super) use locks::ReaderLocks;
pub use members::READER_CLIENTS;
pub(super) use members::{Readers, shown_bytes};
pub use progress::QueueProgress;
pub use questions::QuestionNotice;
pub use rates::{Amount, GivenOfLate};
pub use replies::ReplyNotice;
pub use send_back::{RetryDelay, SendBack};
pub use spreading::{HeardReader, MembersNotice};
pub(super) use spreading::{ReaderNews, Spreading};
