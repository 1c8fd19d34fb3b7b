//! `turbopump dlq`: the dead letters of a group.

mod reading;
mod redrive;
mod selection;
mod views;

use clap::{Args, Subcommand};

use crate::cli::dlq::redrive::RedriveArguments;
use crate::cli::dlq::selection::SelectionArguments;
use crate::cli::error::CommandError;
use crate::cli::instance::InstanceFlag;
use crate::cli::output::OutputFormat;
use crate::cli::server::ServerArguments;
use crate::types::GroupName;

#[derive(Debug, Args)]
pub struct DlqArguments {
    #[command(subcommand)]
    pub command: DlqCommand,
}

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List a group's dead letters: since when, from which topic, with which key and tag
    #[command(after_help = LIST_HELP)]
    List(ListArguments),
    /// Show dead letters with all their parts
    #[command(after_help = SHOW_HELP)]
    Show(OfGroupArguments),
    /// Write dead letters as JSON, one a line, as `consume -o json` does
    #[command(after_help = EXPORT_HELP)]
    Export(OfGroupArguments),
    /// Send dead letters once more, to the topic that they came from or to another one
    #[command(after_help = REDRIVE_HELP)]
    Redrive(RedriveArguments),
}

const LIST_HELP: &str = "\
A group without dead letters is no error, one that nobody knows is. They are stored in the topic %DLQ%GROUP until its retention \
takes them. What was redriven is no dead letter any more, though whoever reads that topic still finds it.

JSON: group, dead_letters (id, queue, offset, dead_since, topic, key, tag, deliveries, moving), more (whether --count left some \
out). With `moving` it is on its way to a topic on another shard, and the next redrive brings it to its end.

Example: turbopump dlq list billing --topic orders --from -1h";

const SHOW_HELP: &str = "Example: turbopump dlq show billing --key order-4711";

const EXPORT_HELP: &str = "Example: turbopump dlq export billing --until 2024-05-06T07:08:09Z > dead.jsonl";

const REDRIVE_HELP: &str = "\
Keys, tags, body, properties and unique id stay; the property DLQ_ORIGIN_TOPIC says where a message was sent first, and its \
deliveries are counted anew. Messages of one key go to one queue. Every group that consumes the topic gets them, and not only the \
one that failed: where that is RocketMQ's own clients, --to %RETRY%GROUP gives them to it alone.

With --dry-run the broker is asked whether the topics would get them, and what it refuses is an error as it would be then. Where \
no dead letter is selected, the exit code is 1.

Each leaves the dead letters in one step with its arrival, durably. When this command or the broker is stopped half-way, none is \
lost and none is sent twice, and the same command goes on with the rest.

JSON: group, dry_run, redriven, topics (topic, messages), before (were no dead letters any more when their turn came), gone (taken \
by retention meanwhile), without_topic (nobody knows where they came from: --to says where they go).

Examples:
  turbopump dlq redrive billing --dry-run
  turbopump dlq redrive billing --topic orders --rate 100
  turbopump dlq redrive billing --key order-4711 --to orders-repaired";

/// Whose dead letters, and which of them.
#[derive(Debug, Args)]
pub struct OfGroupArguments {
    /// The group that could not process them
    pub group: GroupName,
    #[command(flatten)]
    pub selection: SelectionArguments,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct ListArguments {
    #[command(flatten)]
    pub of: OfGroupArguments,
    /// Print at most this many, the oldest of each queue first
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,
}

pub fn run(arguments: DlqArguments, format: OutputFormat) -> Result<(), CommandError> {
    let (DlqCommand::List(ListArguments { of, .. })
    | DlqCommand::Show(of)
    | DlqCommand::Export(of)
    | DlqCommand::Redrive(RedriveArguments { of, .. })) = &arguments.command;
    of.selection.check()?;
    match arguments.command {
        DlqCommand::List(list) => views::run_list(&list, format),
        DlqCommand::Show(show) => views::run_show(&show, format),
        DlqCommand::Export(export) => views::run_export(&export),
        DlqCommand::Redrive(redrive) => redrive::run(&redrive, format),
    }
}
