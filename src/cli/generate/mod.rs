//! `turbopump generate`: files for what watches a broker, made for the metrics that this release has.

mod board;
mod command;

pub use command::{GenerateArguments, run};
