//! `turbopump check`: whether this machine runs a broker well, and what to type where it does not.

mod command;
mod cores;
mod finding;
mod kernel;
mod storage;
mod system;
mod time;

pub use command::{CheckArguments, run};
