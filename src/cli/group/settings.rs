//! `turbopump group create`, `alter` and `clone`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::api::{GroupSettings, GroupTerms, Presence, SetUpGroup};
use crate::cli::error::CommandError;
use crate::cli::instance::InstanceFlag;
use crate::cli::output::{OutputFormat, print};
use crate::cli::quantity::Span;
use crate::cli::server::{ServerArguments, lease_of};
use crate::types::{GroupName, QueueKey};
use crate::views::milliseconds;

pub const CLONE_HELP: &str = "\
The new group goes on where the other one is in each queue, as of now, and is treated as that one is in all: settings, what it may, \
and how its RocketMQ clients' retries wait. What the other one was given and has not acknowledged comes to the new one as well. The \
new group must not be there; the other one is not touched. `turbopump mqadmin cloneGroupOffset` copies places alone.

JSON: group, from, places (how many queues), and the settings as `group alter` prints them.

Example: turbopump group clone billing billing-replay";

/// How a group is treated.
#[derive(Debug, Args)]
pub struct SettingArguments {
    /// Deliveries of a message before it goes to the dead letters
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub deliveries: Option<u32>,
    /// How long a message stays with its receiver
    #[arg(long, value_name = "DURATION")]
    pub lease: Option<Span>,
    /// Length of the leases of those who receive in order
    #[arg(long, value_name = "DURATION")]
    pub ordered_lease: Option<Span>,
    /// Whether it may consume: false holds it where it is
    #[arg(long, value_name = "BOOL")]
    pub consume: Option<bool>,
    /// Whether its RocketMQ clients may get every message each
    #[arg(long, value_name = "BOOL")]
    pub broadcast: Option<bool>,
    /// Mark it as one that consumes in order, for RocketMQ's tools
    #[arg(long, value_name = "BOOL")]
    pub ordered: Option<bool>,
    /// Queues of retries that its RocketMQ clients are shown; 0: what they give back is not kept
    #[arg(long, value_name = "N")]
    pub retry_queues: Option<u32>,
}

#[derive(Debug, Args)]
pub struct CreateArguments {
    pub group: GroupName,
    #[command(flatten)]
    pub settings: SettingArguments,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct AlterArguments {
    pub group: GroupName,
    #[command(flatten)]
    pub settings: SettingArguments,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct CloneArguments {
    /// The group that there is
    pub from: GroupName,
    /// The group that is to be made
    pub group: GroupName,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// What is not set is as the node has it.
#[derive(Serialize)]
struct TermsView {
    group: String,
    deliveries: Option<u32>,
    lease_ms: Option<u64>,
    ordered_lease_ms: Option<u64>,
    consume: bool,
    broadcast: bool,
    ordered: bool,
    retry_queues: u32,
}

#[derive(Serialize)]
struct CloneView {
    from: String,
    places: usize,
    #[serde(flatten)]
    terms: TermsView,
}

impl SettingArguments {
    fn is_empty(&self) -> bool {
        let Self { deliveries, lease, ordered_lease, consume, broadcast, ordered, retry_queues } = self;
        let numbers = deliveries.is_none() && retry_queues.is_none();
        let leases = lease.is_none() && ordered_lease.is_none();
        numbers && leases && consume.is_none() && broadcast.is_none() && ordered.is_none()
    }

    fn set_up(&self, group: GroupName, presence: Presence) -> Result<SetUpGroup, CommandError> {
        Ok(SetUpGroup {
            settings: GroupSettings {
                group,
                deliveries_max: self.deliveries,
                lease: lease_of(self.lease)?,
                ordered_lease: lease_of(self.ordered_lease)?,
            },
            may_consume: self.consume,
            may_broadcast: self.broadcast,
            ordered: self.ordered,
            retry_queues: self.retry_queues,
            presence,
            like: None,
        })
    }
}

pub fn run_create(command: &CreateArguments, format: OutputFormat) -> Result<(), CommandError> {
    let group = command.instance.group(&command.group)?;
    let set_up = command.settings.set_up(group, Presence::New)?;
    let terms = command.server.connect()?.set_up_group(set_up)?;
    print(format, &TermsView::new(&terms), |_| text(&terms))
}

pub fn run_alter(command: &AlterArguments, format: OutputFormat) -> Result<(), CommandError> {
    if command.settings.is_empty() {
        return Err(CommandError::usage(
            "nothing to change: name at least one of --deliveries, --lease, --ordered-lease, --consume, --broadcast, \
             --ordered, --retry-queues",
        ));
    }
    let group = command.instance.group(&command.group)?;
    let set_up = command.settings.set_up(group, Presence::There)?;
    let terms = command.server.connect()?.set_up_group(set_up)?;
    print(format, &TermsView::new(&terms), |_| text(&terms))
}

/// Settings first, so that a group that cannot be made gets no places; a clone that ends half-way is said to be there.
pub fn run_clone(command: &CloneArguments, format: OutputFormat) -> Result<(), CommandError> {
    let from = command.instance.group(&command.from)?;
    let group = command.instance.group(&command.group)?;
    let mut client = command.server.connect()?;
    let described = client.describe_group(&from)?;
    let set_up = SetUpGroup {
        settings: GroupSettings {
            group: group.clone(),
            deliveries_max: None,
            lease: None,
            ordered_lease: None,
        },
        may_consume: None,
        may_broadcast: None,
        ordered: None,
        retry_queues: None,
        presence: Presence::New,
        like: Some(from.clone()),
    };
    let terms = client.set_up_group(set_up)?;
    let mut places = 0;
    for queue in &described.queues {
        let Some(committed) = queue.committed else { continue };
        let key = QueueKey { topic: client.topic(&queue.topic)?.id, queue: queue.queue };
        client.commit_offset(&group, key, committed).map_err(|error| {
            CommandError::failed(format!(
                "{error}; group {group} has {places} of the places: delete it, and clone again"
            ))
        })?;
        places += 1;
    }
    let view = CloneView { from: from.to_string(), places, terms: TermsView::new(&terms) };
    print(format, &view, |view| {
        let places = view.places;
        format!("group {group} goes on in {places} queues where group {from} is\n{}", text(&terms))
    })
}

impl TermsView {
    fn new(terms: &GroupTerms) -> Self {
        Self {
            group: terms.settings.group.to_string(),
            deliveries: terms.settings.deliveries_max,
            lease_ms: terms.settings.lease.map(milliseconds),
            ordered_lease_ms: terms.settings.ordered_lease.map(milliseconds),
            consume: terms.may_consume,
            broadcast: terms.may_broadcast,
            ordered: terms.ordered,
            retry_queues: terms.retry_queues,
        }
    }
}

fn text(terms: &GroupTerms) -> String {
    let as_node = || "as the node has it".to_owned();
    let span = |lease: Option<Duration>| lease.map_or_else(as_node, |lease| Span(lease).to_string());
    let settings = &terms.settings;
    let may = |may: bool| if may { "yes" } else { "no" };
    format!(
        "group {}\ndeliveries     {}\nlease          {}\nordered lease  {}\nconsume        {}\nbroadcast      {}\n\
         in order       {}\nretry queues   {}\n",
        settings.group,
        settings.deliveries_max.map_or_else(as_node, |deliveries| deliveries.to_string()),
        span(settings.lease),
        span(settings.ordered_lease),
        may(terms.may_consume),
        may(terms.may_broadcast),
        may(terms.ordered),
        terms.retry_queues
    )
}
