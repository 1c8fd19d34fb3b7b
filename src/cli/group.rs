//! `turbopump group`.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::api::{ResetGroup, ResetPlace};
use crate::cli::calendar::now;
use crate::cli::error::CommandError;
use crate::cli::group_view::GroupView;
use crate::cli::instance::InstanceFlag;
use crate::cli::output::{OutputFormat, print};
use crate::cli::place::{FixedPlace, PLACE_HELP, Place};
use crate::cli::server::ServerArguments;
use crate::types::{GroupName, QueueNumber, TopicName};

#[derive(Debug, Args)]
pub struct GroupArguments {
    #[command(subcommand)]
    pub command: GroupCommand,
}

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List all consumer groups
    List(ListArguments),
    /// Show who consumes for a group, over which protocol, and for each queue how far it is and how far behind
    #[command(after_help = DESCRIBE_HELP)]
    Describe(NameArguments),
    /// Move the committed offsets of a group that has no members
    Reset(ResetArguments),
}

const DESCRIBE_HELP: &str = "\
Lag counts what the group has not dealt with: messages that were never delivered, and those that are leased (delivered, \
not acknowledged, within their lease) or waiting (the lease has ended, they are delivered again). Dead letters are no lag.

JSON: group, generation, lag, leased, waiting, dead_letters, inconsistent_topics (topics of which consumers ask for \
different messages), settings (deliveries_max, lease_ms, ordered_lease_ms; null: the broker's), members (member, \
protocol, topics, queues, heartbeat_age_ms), receivers (topic, protocol, filter, ordered, active, seen_age_ms; those of \
the last 30 seconds), queues (topic, queue, committed, end_offset, lag, leased, waiting, dead_letters, member). The member \
%receive stands for all receivers.";

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
#[command(after_help = PLACE_HELP)]
pub struct ResetArguments {
    pub group: GroupName,
    pub topic: TopicName,
    /// Where to go on: first, last, an offset (with --queue), or a time
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    pub to: Place,
    /// The queue whose offset is set; only with an offset
    #[arg(long, value_name = "N")]
    pub queue: Option<u32>,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Serialize)]
struct ListView {
    groups: Vec<String>,
}

#[derive(Serialize)]
struct ResetView {
    group: String,
    topic: String,
    done: &'static str,
}

pub fn run(arguments: GroupArguments, format: OutputFormat) -> Result<(), CommandError> {
    match arguments.command {
        GroupCommand::List(command) => {
            let mut groups = command.server.connect()?.list_groups()?;
            groups.retain(|group| command.instance.shows(group.instance().as_ref()));
            let view = ListView { groups: groups.iter().map(GroupName::to_string).collect() };
            print(format, &view, |view| view.groups.iter().map(|group| format!("{group}\n")).collect())
        }
        GroupCommand::Describe(command) => {
            let group = command.instance.group(&command.group)?;
            let group = command.server.connect()?.describe_group(&group)?;
            print(format, &GroupView::new(&group), GroupView::render)
        }
        GroupCommand::Reset(command) => reset(command, format),
    }
}

fn reset(command: ResetArguments, format: OutputFormat) -> Result<(), CommandError> {
    let place = match (command.to.fix(now()), command.queue) {
        (FixedPlace::Asked(place), None) => ResetPlace::Every(place),
        (FixedPlace::Offset(offset), Some(queue)) => ResetPlace::Offset(QueueNumber(queue), offset),
        (FixedPlace::Offset(_), None) => {
            return Err(CommandError::usage("an offset belongs to one queue: add --queue N"));
        }
        (FixedPlace::Asked(_), Some(_)) => {
            return Err(CommandError::usage(
                "--queue goes with an offset: first, last and times move every queue",
            ));
        }
    };
    let group = command.instance.group(&command.group)?;
    let topic = command.instance.topic(&command.topic)?;
    let view = ResetView { group: group.to_string(), topic: topic.to_string(), done: "reset" };
    command.server.connect()?.reset_group(ResetGroup { group, topic, place })?;
    print(format, &view, |view| format!("group {} reset on topic {}", view.group, view.topic))
}
