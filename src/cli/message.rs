//! `turbopump message`: single messages.

pub(super) mod fields;
mod find;
mod handles;
mod leases;
mod publish;
mod receive;
mod transactions;

use clap::{Args, Subcommand};

use crate::cli::error::CommandError;
use crate::cli::output::OutputFormat;

#[derive(Debug, Args)]
pub struct MessageArguments {
    #[command(subcommand)]
    pub command: MessageCommand,
}

#[derive(Debug, Subcommand)]
pub enum MessageCommand {
    /// Send one message, now, later, or as the half of a transaction
    Publish(publish::PublishArguments),
    /// Lease messages to this caller for a while, and print them
    Receive(receive::ReceiveArguments),
    /// Acknowledge leased messages: they do not come again
    Ack(leases::AckArguments),
    /// Move the end of leases
    Extend(leases::ExtendArguments),
    /// Commit transactions: their messages can be consumed
    Commit(transactions::EndArguments),
    /// Roll transactions back: their messages are gone
    Rollback(transactions::EndArguments),
    /// Print half messages whose producer has not decided in time
    Undecided(transactions::UndecidedArguments),
    /// Find stored messages by a key or an id
    Find(find::FindArguments),
}

pub fn run(arguments: MessageArguments, format: OutputFormat) -> Result<(), CommandError> {
    match arguments.command {
        MessageCommand::Publish(publish) => publish::run(&publish, format),
        MessageCommand::Receive(receive) => receive::run(&receive, format),
        MessageCommand::Ack(ack) => leases::run_ack(&ack, format),
        MessageCommand::Extend(extend) => leases::run_extend(&extend, format),
        MessageCommand::Commit(end) => transactions::run_commit(&end, format),
        MessageCommand::Rollback(end) => transactions::run_rollback(&end, format),
        MessageCommand::Undecided(undecided) => transactions::run_undecided(&undecided, format),
        MessageCommand::Find(find) => find::run(&find, format),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::cli::arguments::Arguments;

    /// Whoever has typed one of them has typed all.
    #[test]
    fn what_is_done_about_messages_takes_the_same_arguments_in_the_same_order() {
        let all = Arguments::command();
        let message = all.find_subcommand("message").expect("it is there");
        let places = |name: &str| {
            let command = message.find_subcommand(name).expect("it is there");
            let places = command.get_positionals().map(|argument| argument.get_id().to_string());
            let has_group = command.get_arguments().any(|argument| argument.get_long() == Some("group"));
            (places.collect::<Vec<_>>(), has_group)
        };
        for name in ["ack", "extend", "commit", "rollback"] {
            assert_eq!(places(name), (vec!["topic".to_owned(), "handles".to_owned()], true), "{name}");
        }
        for name in ["receive", "undecided"] {
            assert_eq!(places(name), (vec!["topic".to_owned()], true), "{name}");
        }
    }
}
