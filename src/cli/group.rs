//! `turbopump group`.

mod reset;
mod settings;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::confirm::ConfirmFlag;
use crate::cli::error::CommandError;
use crate::cli::group::reset::{RESET_HELP, ResetArguments};
use crate::cli::group::settings::{AlterArguments, CLONE_HELP, CloneArguments, CreateArguments};
use crate::cli::instance::InstanceFlag;
use crate::cli::output::{OutputFormat, print};
use crate::cli::server::ServerArguments;
use crate::cli::top::{GroupLagArguments, group_lag};
use crate::types::GroupName;
use crate::views::GroupView;

#[derive(Debug, Args)]
pub struct GroupArguments {
    #[command(subcommand)]
    pub command: GroupCommand,
}

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List all consumer groups
    #[command(visible_alias = "ls")]
    List(ListArguments),
    /// Show who consumes for a group, over which protocol, and for each queue how far it is and how far behind
    #[command(after_help = DESCRIBE_HELP)]
    Describe(NameArguments),
    /// Print how far groups are behind in their topics, and for how long
    Lag(GroupLagArguments),
    /// Move the committed offsets of a group that has no members
    #[command(after_help = RESET_HELP)]
    Reset(ResetArguments),
    /// Make a group before anybody uses it, with settings
    #[command(after_help = CREATE_HELP)]
    Create(CreateArguments),
    /// Change how a group is treated; what is not named stays as it is
    #[command(after_help = ALTER_HELP)]
    Alter(AlterArguments),
    /// Give a group the settings and the places of another one
    #[command(after_help = CLONE_HELP)]
    Clone(CloneArguments),
    /// Forget a group that nobody uses: its places, leases and settings
    #[command(visible_alias = "rm", after_help = DELETE_HELP)]
    Delete(DeleteArguments),
}

const DESCRIBE_HELP: &str = "\
Lag counts what the group has not dealt with: messages that were never delivered, and those that are leased (delivered, \
not acknowledged, within their lease) or waiting (the lease has ended, they are delivered again). Dead letters are no lag.

JSON: group, generation, lag, leased, waiting, dead_letters, inconsistent_topics (topics of which consumers ask for \
different messages), refused (why shards give the group nothing new), settings (deliveries_max, lease_ms, ordered_lease_ms; null: the broker's), members (member, \
protocol, topics, queues, heartbeat_age_ms), receivers (topic, protocol, filter, ordered, active, seen_age_ms; those of \
the last 30 seconds), readers (RocketMQ's own clients: client, language, version, address, broadcasts, subscriptions with \
topic and expression), queues (topic, queue, committed, end_offset, lag, leased, waiting, dead_letters, member). The member \
%receive stands for all receivers; where RocketMQ's own clients consume in order, the member of a queue is the client that has \
it to itself.";

const CREATE_HELP: &str = "Example: turbopump group create billing --deliveries 3 --lease 1m";

const ALTER_HELP: &str = "Example: turbopump group alter billing --consume false";

const DELETE_HELP: &str = "\
Refused while the group has members, and for half a minute after somebody has received for it. Whoever uses it later \
starts at the first message there is. Its dead letters are a topic, %DLQ%GROUP, and stay. A group that was not used for \
30 days of the broker's running (serve --group-idle) goes by itself.";

#[derive(Debug, Args)]
pub struct ListArguments {
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct NameArguments {
    pub group: GroupName,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct DeleteArguments {
    pub group: GroupName,
    #[command(flatten)]
    pub confirm: ConfirmFlag,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// What was done to which group.
#[derive(Serialize)]
struct DoneView {
    group: String,
    done: &'static str,
}

#[derive(Serialize)]
struct ListView {
    groups: Vec<String>,
}

pub fn run(arguments: GroupArguments, format: OutputFormat) -> Result<(), CommandError> {
    match arguments.command {
        GroupCommand::List(command) => {
            let mut client = command.server.connect()?;
            let mut groups = client.list_groups()?;
            groups.retain(|group| command.instance.shows(group.instance().as_ref()));
            if groups.is_empty() {
                command.instance.check_exists(&mut client)?;
            }
            let view = ListView { groups: groups.iter().map(GroupName::to_string).collect() };
            print(format, &view, |view| view.groups.iter().map(|group| format!("{group}\n")).collect())
        }
        GroupCommand::Describe(command) => {
            let group = command.instance.group(&command.group)?;
            let group = command.server.connect()?.describe_group(&group)?;
            print(format, &GroupView::new(&group), GroupView::render)
        }
        GroupCommand::Lag(command) => group_lag(&command, format),
        GroupCommand::Reset(command) => reset::run(&command, format),
        GroupCommand::Create(command) => settings::run_create(&command, format),
        GroupCommand::Alter(command) => settings::run_alter(&command, format),
        GroupCommand::Clone(command) => settings::run_clone(&command, format),
        GroupCommand::Delete(command) => {
            let group = command.instance.group(&command.group)?;
            command.confirm.ask(&format!("Forget the places, leases and settings of group {group}"))?;
            command.server.connect()?.delete_group(&group)?;
            let view = DoneView { group: group.to_string(), done: "deleted" };
            print(format, &view, |view| format!("group {} {}", view.group, view.done))
        }
    }
}
