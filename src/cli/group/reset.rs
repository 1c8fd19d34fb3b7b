//! `turbopump group reset`.

use clap::Args;
use serde::Serialize;

use crate::api::{Failure, OffsetSpec, ResetGroup, ResetTarget, Status};
use crate::cli::confirm::ConfirmFlag;
use crate::cli::error::CommandError;
use crate::cli::instance::InstanceFlag;
use crate::cli::offset_argument::{OffsetArgument, SentOffsetSpec};
use crate::cli::output::{OutputFormat, Table, print, print_text};
use crate::cli::server::ServerArguments;
use crate::client::{Client, ClientError};
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset, TopicName};

pub const RESET_HELP: &str = "\
An offset is first, last (after the newest message), a plain number, or a time: 2024-05-06T07:08:09Z, 2024-05-06, or -10m (before \
now). The group must be there: `group create` makes one that is to begin somewhere. Every queue is shown with where the group is and \
where it would go on, and then the question is asked.

JSON: group, topic, done (reset, or nothing with --dry-run), queues (queue, old, new; old null: it has no place there).

Examples:
  turbopump group reset billing orders --to -1h --dry-run
  turbopump group reset billing orders --to 2024-05-06T07:08:09Z --yes";

#[derive(Debug, Args)]
pub struct ResetArguments {
    pub group: GroupName,
    pub topic: TopicName,
    /// Where to go on: first, last, an offset (with --queue), or a time
    #[arg(long, value_name = "OFFSET", allow_hyphen_values = true)]
    pub to: OffsetArgument,
    /// The queue whose offset is set; only with an offset
    #[arg(long, value_name = "N")]
    pub queue: Option<u32>,
    /// Only show where each queue would go on
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub confirm: ConfirmFlag,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Serialize)]
struct ResetView {
    group: String,
    topic: String,
    done: &'static str,
    queues: Vec<QueueView>,
}

#[derive(Serialize)]
struct QueueView {
    queue: u32,
    old: Option<u64>,
    new: u64,
}

pub fn run(command: &ResetArguments, format: OutputFormat) -> Result<(), CommandError> {
    command.to.check_past("--to")?;
    let target = target(command)?;
    let group = command.instance.group(&command.group)?;
    let topic = command.instance.topic(&command.topic)?;
    let mut client = command.server.connect()?;
    let queues = match plan(&mut client, &group, &topic, target) {
        Ok(queues) => queues,
        // Whether it may be done is for the request itself to say.
        Err(ClientError::Refused(failure))
            if command.confirm.yes && failure.status == Status::PermissionDenied =>
        {
            Vec::new()
        }
        Err(error) => return Err(error.into()),
    };
    let done = if command.dry_run { "nothing" } else { "reset" };
    let view = ResetView { group: group.to_string(), topic: topic.to_string(), done, queues };
    if command.dry_run {
        return print(format, &view, |view| view.table() + "nothing was done: this was a dry run\n");
    }
    if !command.confirm.yes && format == OutputFormat::Text {
        print_text(&view.table())?;
    }
    command.confirm.ask(&format!("Reset group {group} on topic {topic}"))?;
    client.reset_group(ResetGroup { group, topic, target })?;
    print(format, &view, |view| {
        let table = if command.confirm.yes { view.table() } else { String::new() };
        format!("{table}group {} reset on topic {}\n", view.group, view.topic)
    })
}

fn target(command: &ResetArguments) -> Result<ResetTarget, CommandError> {
    match (command.to.sent(), command.queue) {
        (SentOffsetSpec::Asked(spec), None) => Ok(ResetTarget::Every(spec)),
        (SentOffsetSpec::Offset(offset), Some(queue)) => Ok(ResetTarget::Offset(QueueNumber(queue), offset)),
        (SentOffsetSpec::Offset(_), None) => {
            Err(CommandError::usage("an offset belongs to one queue: add --queue N"))
        }
        (SentOffsetSpec::Asked(_), Some(_)) => {
            Err(CommandError::usage("--queue goes with an offset: first, last and times move every queue"))
        }
    }
}

/// A name that nobody knows is a slip of the finger, and a reset would make a group of it.
fn check_known(client: &mut Client, group: &GroupName) -> Result<(), ClientError> {
    match client.describe_group(group) {
        Ok(_) => Ok(()),
        Err(ClientError::Refused(failure)) if failure.status == Status::GroupNotExist => {
            let message = format!("group {group} does not exist: `turbopump group create {group}` makes it");
            Err(Failure::new(Status::GroupNotExist, message).into())
        }
        Err(error) => Err(error),
    }
}

/// Where the group is in each queue that is reset, and where it would go on.
fn plan(
    client: &mut Client,
    group: &GroupName,
    topic: &TopicName,
    target: ResetTarget,
) -> Result<Vec<QueueView>, ClientError> {
    check_known(client, group)?;
    let info = client.topic(topic)?;
    let key = |queue: u32| QueueKey { topic: info.id, queue: QueueNumber(queue) };
    let aims: Vec<(QueueKey, QueueOffset)> = match target {
        ResetTarget::Offset(queue, offset) => vec![(key(queue.0), offset)],
        ResetTarget::Every(spec) => {
            let found = |queue| find(client, key(queue), spec);
            (0..info.queue_count).map(found).collect::<Result<_, _>>()?
        }
    };
    let mut queues = Vec::with_capacity(aims.len());
    for (key, new) in aims {
        let old = match client.committed_offset(group, key) {
            Ok(old) => old.map(|offset| offset.0),
            Err(ClientError::Refused(failure)) if failure.status == Status::GroupNotExist => None,
            Err(error) => return Err(error),
        };
        queues.push(QueueView { queue: key.queue.0, old, new: new.0 });
    }
    Ok(queues)
}

fn find(
    client: &mut Client,
    key: QueueKey,
    spec: OffsetSpec,
) -> Result<(QueueKey, QueueOffset), ClientError> {
    Ok((key, client.find_offset(key, spec)?))
}

impl ResetView {
    fn table(&self) -> String {
        let mut table = Table::new(["QUEUE", "OLD", "NEW"]);
        for queue in &self.queues {
            let old = queue.old.map_or("-".to_owned(), |old| old.to_string());
            table.row([queue.queue.to_string(), old, queue.new.to_string()]);
        }
        table.render()
    }
}
