//! `turbopump group`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::api::{GroupInfo, GroupSettings, ResetGroup, ResetPlace};
use crate::cli::calendar::now;
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, Table, grouped, print};
use crate::cli::place::{FixedPlace, PLACE_HELP, Place};
use crate::cli::quantity::Span;
use crate::cli::server::{ServerArguments, lease_of, milliseconds};
use crate::types::{GroupName, QueueNumber, TopicName};

#[derive(Debug, Args)]
pub struct GroupArguments {
    #[command(subcommand)]
    pub command: GroupCommand,
}

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List all consumer groups
    List(ServerArguments),
    /// Show a group's members, and for each queue how far it is and how far behind
    Describe(NameArguments),
    /// Move the committed offsets of a group that has no members
    Reset(ResetArguments),
    /// Change how a group's messages are leased to those who receive them
    Alter(AlterArguments),
}

#[derive(Debug, Args)]
pub struct NameArguments {
    pub group: GroupName,
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
    /// The same for those who receive in order
    #[arg(long, value_name = "DURATION", group = "setting")]
    pub ordered_lease: Option<Span>,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Serialize)]
struct ListView {
    groups: Vec<String>,
}

#[derive(Serialize)]
struct GroupView {
    group: String,
    generation: u64,
    lag: u64,
    members: Vec<MemberView>,
    queues: Vec<QueueView>,
}

#[derive(Serialize)]
struct MemberView {
    member: String,
    topics: Vec<String>,
    queues: Vec<MemberQueueView>,
    heartbeat_age_ms: u64,
}

#[derive(Serialize)]
struct MemberQueueView {
    topic_id: u32,
    queue: u32,
}

#[derive(Serialize)]
struct QueueView {
    topic: String,
    queue: u32,
    committed: Option<u64>,
    end_offset: u64,
    lag: u64,
    member: Option<String>,
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
        GroupCommand::List(server) => {
            let groups = server.connect()?.list_groups()?;
            let view = ListView { groups: groups.iter().map(GroupName::to_string).collect() };
            print(format, &view, |view| view.groups.iter().map(|group| format!("{group}\n")).collect())
        }
        GroupCommand::Describe(command) => {
            let group = command.server.connect()?.describe_group(&command.group)?;
            print(format, &GroupView::new(&group), render_group)
        }
        GroupCommand::Reset(command) => reset(command, format),
        GroupCommand::Alter(command) => alter(command, format),
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
    let request = ResetGroup { group: command.group.clone(), topic: command.topic.clone(), place };
    command.server.connect()?.reset_group(request)?;
    let view =
        ResetView { group: command.group.to_string(), topic: command.topic.to_string(), done: "reset" };
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

fn render_group(view: &GroupView) -> String {
    let mut text = format!(
        "group {}, generation {}, {} members, {} messages behind\n",
        view.group,
        view.generation,
        view.members.len(),
        grouped(view.lag)
    );
    if !view.members.is_empty() {
        let mut table = Table::new(["MEMBER", "TOPICS", "QUEUES", "LAST SEEN"]);
        for member in &view.members {
            table.row([
                member.member.clone(),
                member.topics.join(","),
                member.queues.len().to_string(),
                format!("{} ms", member.heartbeat_age_ms),
            ]);
        }
        text.push_str(&table.render());
    }
    if !view.queues.is_empty() {
        let mut table = Table::new(["TOPIC", "QUEUE", "COMMITTED", "END", "LAG", "MEMBER"]);
        for queue in &view.queues {
            table.row([
                queue.topic.clone(),
                queue.queue.to_string(),
                queue.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
                queue.end_offset.to_string(),
                queue.lag.to_string(),
                queue.member.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        text.push_str(&table.render());
    }
    text
}

impl GroupView {
    fn new(group: &GroupInfo) -> Self {
        let members = group.members.iter().map(|member| MemberView {
            member: member.member.clone(),
            topics: member.topics.iter().map(TopicName::to_string).collect(),
            queues: member
                .queues
                .iter()
                .map(|key| MemberQueueView { topic_id: key.topic.0, queue: key.queue.0 })
                .collect(),
            heartbeat_age_ms: milliseconds(member.heartbeat_age),
        });
        let queues = group.queues.iter().map(|queue| QueueView {
            topic: queue.topic.to_string(),
            queue: queue.queue.0,
            committed: queue.committed.map(|offset| offset.0),
            end_offset: queue.end_offset.0,
            lag: queue.lag,
            member: queue.member.clone(),
        });
        Self {
            group: group.group.to_string(),
            generation: group.generation,
            lag: group.queues.iter().map(|queue| queue.lag).sum(),
            members: members.collect(),
            queues: queues.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::GroupQueueInfo;
    use crate::types::QueueOffset;

    #[test]
    fn a_group_prints_what_it_lacks() {
        let queue = |number, committed| GroupQueueInfo {
            topic: "orders".parse().expect("a name"),
            queue: QueueNumber(number),
            committed,
            end_offset: QueueOffset(10),
            lag: 10 - committed.map_or(0, |offset: QueueOffset| offset.0),
            member: None,
        };
        let group = GroupInfo {
            group: "billing".parse().expect("a name"),
            generation: 4,
            members: Vec::new(),
            queues: vec![queue(0, Some(QueueOffset(7))), queue(1, None)],
        };
        assert_eq!(
            render_group(&GroupView::new(&group)),
            "group billing, generation 4, 0 members, 13 messages behind\n\
             TOPIC   QUEUE  COMMITTED  END  LAG  MEMBER\n\
             orders      0          7   10    3  -\n\
             orders      1          -   10   10  -\n"
                .replace("  -\n", "       -\n")
        );
    }
}
