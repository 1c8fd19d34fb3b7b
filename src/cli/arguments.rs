//! What can be typed. Scripts rely on these spellings.

use clap::{Parser, Subcommand};

use crate::cli::bench::BenchArguments;
use crate::cli::completion::CompletionArguments;
use crate::cli::consume::ConsumeArguments;
use crate::cli::group::GroupArguments;
use crate::cli::log::LogArguments;
use crate::cli::output::OutputFormat;
use crate::cli::produce::ProduceArguments;
use crate::cli::serve::ServeArguments;
use crate::cli::status::StatusArguments;
use crate::cli::topic::TopicArguments;

/// A RocketMQ-compatible message broker for Linux, one shard per core
#[derive(Debug, Parser)]
#[command(name = "turbopump", version, max_term_width = 110, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 the operation failed, 2 the command line is wrong.")]
pub struct Arguments {
    /// How to print results, and errors on standard error
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: OutputFormat,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker on a data directory
    Serve(ServeArguments),
    /// Create, list, describe, alter and delete topics
    Topic(TopicArguments),
    /// Send every line of a file or of standard input as a message
    Produce(ProduceArguments),
    /// Print messages
    Consume(ConsumeArguments),
    /// List, describe and reset consumer groups
    Group(GroupArguments),
    /// Measure a broker: throughput, latency, and whether every message arrives once and in order
    Bench(BenchArguments),
    /// Print counters and latencies of every shard
    Status(StatusArguments),
    /// Check or print the files of a broker that does not run
    Log(LogArguments),
    /// Print a completion script for a shell
    Completion(CompletionArguments),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }
}
