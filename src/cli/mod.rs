//! The command line: parses arguments, runs one command, prints its result, and chooses the exit code. One file per
//! command; `arguments` is the map of them.
//!
//! Exit codes: 0 done; 1 the operation failed; 2 the command line or the configuration file is wrong. An error is one
//! sentence on standard error; with `-o json` it is a JSON object with at least `error` and `exit_code`.

mod admin_page;
mod arguments;
mod backup;
mod bench;
mod bundle;
mod calendar;
mod check;
mod completion;
mod config;
mod configure;
mod confirm;
mod consume;
mod context;
mod delayed;
mod dlq;
mod entry;
mod error;
mod examples;
mod fields;
mod generate;
mod group;
mod group_view;
mod import;
mod instance;
mod latency;
mod latency_svg;
mod lines;
mod log;
mod log_level;
mod manual;
mod meant;
mod message;
mod message_id;
mod message_json;
mod message_line;
mod mirror;
mod mqadmin;
mod notices;
mod offset_argument;
mod output;
mod plot_axes;
mod produce;
mod progress;
mod quantity;
mod repair;
mod serve;
mod server;
mod settings;
mod signals;
mod slow;
mod status;
mod stream;
mod template;
mod top;
mod topic;

pub use entry::main;
