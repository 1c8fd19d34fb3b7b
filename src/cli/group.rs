//! `turbopump group`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::api::{GroupSettings, ResetGroup, ResetTarget};
use crate::cli::error::CommandError;
use crate::cli::group_view::GroupView;
use crate::cli::instance::InstanceFlag;
use crate::cli::offset_argument::{OFFSET_HELP, OffsetArgument, SentOffsetSpec};
use crate::cli::output::{OutputFormat, print};
use crate::cli::quantity::Span;
use crate::cli::server::{ServerArguments, lease_of, milliseconds};
use crate::cli::top::{GroupLagArguments, group_lag};
use crate::types::{GroupName, QueueNumber, TopicName};

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
    Reset(ResetArguments),
    /// Change how a group's messages are leased to those who receive them
    Alter(AlterArguments),
    /// Forget a group that nobody uses: its places, leases and settings
    #[command(visible_alias = "rm", after_help = DELETE_HELP)]
    Delete(NameArguments),
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
#[command(after_help = OFFSET_HELP)]
pub struct ResetArguments {
    pub group: GroupName,
    pub topic: TopicName,
    /// Where to go on: first, last, an offset (with --queue), or a time
    #[arg(long, value_name = "OFFSET", allow_hyphen_values = true)]
    pub to: OffsetArgument,
    /// The queue whose offset is set; only with an offset
    #[arg(long, value_name = "N")]
    pub queue: Option<u32>,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("setting").required(true).multiple(true))]
pub struct AlterArguments {
    pub group: GroupName,
    /// Deliveries of a message before it goes to the dead letters
    #[arg(long, value_name = "N", group = "setting", value_parser = clap::value_parser!(u32).range(1..))]
    pub deliveries: Option<u32>,
    /// How long a message stays with its receiver
    #[arg(long, value_name = "DURATION", group = "setting")]
    pub lease: Option<Span>,
    /// Length of the leases of those who receive in order
    #[arg(long, value_name = "DURATION", group = "setting")]
    pub ordered_lease: Option<Span>,
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

#[derive(Serialize)]
struct ResetView {
    group: String,
    topic: String,
    done: &'static str,
}

/// What is not set is as the node has it.
#[derive(Serialize)]
struct SettingsView {
    group: String,
    deliveries: Option<u32>,
    lease_ms: Option<u64>,
    ordered_lease_ms: Option<u64>,
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
        GroupCommand::Reset(command) => reset(command, format),
        GroupCommand::Alter(command) => alter(command, format),
        GroupCommand::Delete(command) => {
            let group = command.instance.group(&command.group)?;
            command.server.connect()?.delete_group(&group)?;
            let view = DoneView { group: group.to_string(), done: "deleted" };
            print(format, &view, |view| format!("group {} {}", view.group, view.done))
        }
    }
}

fn reset(command: ResetArguments, format: OutputFormat) -> Result<(), CommandError> {
    let target = match (command.to.sent(), command.queue) {
        (SentOffsetSpec::Asked(spec), None) => ResetTarget::Every(spec),
        (SentOffsetSpec::Offset(offset), Some(queue)) => ResetTarget::Offset(QueueNumber(queue), offset),
        (SentOffsetSpec::Offset(_), None) => {
            return Err(CommandError::usage("an offset belongs to one queue: add --queue N"));
        }
        (SentOffsetSpec::Asked(_), Some(_)) => {
            return Err(CommandError::usage(
                "--queue goes with an offset: first, last and times move every queue",
            ));
        }
    };
    let group = command.instance.group(&command.group)?;
    let topic = command.instance.topic(&command.topic)?;
    let view = ResetView { group: group.to_string(), topic: topic.to_string(), done: "reset" };
    command.server.connect()?.reset_group(ResetGroup { group, topic, target })?;
    print(format, &view, |view| format!("group {} reset on topic {}", view.group, view.topic))
}

fn alter(command: AlterArguments, format: OutputFormat) -> Result<(), CommandError> {
    let settings = GroupSettings {
        group: command.group,
        deliveries_max: command.deliveries,
        lease: lease_of(command.lease)?,
        ordered_lease: lease_of(command.ordered_lease)?,
    };
    let settings = command.server.connect()?.alter_group(settings)?;
    let view = SettingsView {
        group: settings.group.to_string(),
        deliveries: settings.deliveries_max,
        lease_ms: settings.lease.map(milliseconds),
        ordered_lease_ms: settings.ordered_lease.map(milliseconds),
    };
    print(format, &view, |view| {
        let as_node = || "as the node has it".to_owned();
        let span = |lease: Option<Duration>| lease.map_or_else(as_node, |lease| Span(lease).to_string());
        format!(
            "group {}\ndeliveries     {}\nlease          {}\nordered lease  {}\n",
            view.group,
            view.deliveries.map_or_else(as_node, |deliveries| deliveries.to_string()),
            span(settings.lease),
            span(settings.ordered_lease)
        )
    })
}
