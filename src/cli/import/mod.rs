//! `turbopump import-rocketmq`: topics and groups of Apache's broker, as its files have them, in a running broker of ours.

mod command;
mod fate;
mod files;

pub use command::{ImportArguments, run};
