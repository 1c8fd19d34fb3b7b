//! `turbopump top`: what goes on in a node, live in a terminal, once, or as JSON. And the same figures without a screen for
//! `topic stats` and `group lag`.
//!
//! Two samples ([`sample`]) make a picture ([`picture`]), which is printed, or shown as grids ([`grids`]) by a screen that takes
//! keys. A thread of its own asks the broker ([`watcher`]), so that a broker that hangs does not hold up the keys.

mod command;
mod grid;
mod grids;
mod keys;
mod live;
mod picture;
mod sample;
mod screen;
mod stats;
mod view;
mod watcher;

pub use command::{TopArguments, run};
pub use stats::{GroupLagArguments, TopicStatsArguments, group_lag, topic_stats};
