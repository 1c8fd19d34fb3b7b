//! `turbopump topic purge`.

use clap::Args;
use serde::Serialize;

use crate::api::{OffsetSpec, PurgeReport, PurgeTopic};
use crate::cli::calendar::rfc3339;
use crate::cli::confirm::ConfirmFlag;
use crate::cli::error::CommandError;
use crate::cli::instance::InstanceFlag;
use crate::cli::offset_argument::TimeArgument;
use crate::cli::output::{OutputFormat, Table, bytes_for_people, grouped, print};
use crate::cli::server::ServerArguments;
use crate::types::TopicName;

pub const HELP: &str = "\
The messages are gone at once, for whoever reads and after any restart; groups that have not read them go on after them. Their bytes \
lie in segments that all topics of a shard share: a segment goes, and makes room on the disk, once no message of any topic is left in \
it or before it. The answer says which go now, and whose message keeps the others.

JSON: topic, messages, queues (queue, first_before, first), shards (free_bytes, kept_bytes, kept_by, kept_since).

Examples:
  turbopump topic purge orders --before 2024-05-06T07:08:09Z
  turbopump topic purge orders --before -24h --yes";

#[derive(Debug, Args)]
pub struct PurgeArguments {
    pub topic: TopicName,
    /// Keep what was stored at this time or later, like 2024-05-06T07:08:09Z, or -24h (before now) [default: keep nothing]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub before: Option<TimeArgument>,
    #[command(flatten)]
    pub confirm: ConfirmFlag,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Serialize)]
struct PurgeView {
    topic: String,
    /// How many are gone.
    messages: u64,
    queues: Vec<QueueView>,
    shards: Vec<ShardView>,
}

#[derive(Serialize)]
struct QueueView {
    queue: u32,
    first_before: u64,
    first: u64,
}

#[derive(Serialize)]
struct ShardView {
    free_bytes: u64,
    kept_bytes: u64,
    kept_by: Option<String>,
    kept_since: Option<String>,
}

pub fn run(arguments: &PurgeArguments, format: OutputFormat) -> Result<(), CommandError> {
    arguments.before.map_or(Ok(()), |time| time.check_past("--before"))?;
    let topic = arguments.instance.topic(&arguments.topic)?;
    let (before, which) = match arguments.before {
        None => (OffsetSpec::Last, "all messages"),
        Some(time) => (time.spec(), "the messages before that time"),
    };
    arguments.confirm.ask(&format!("Purge {which} of topic {topic}"))?;
    let report = arguments.server.connect()?.purge_topic(PurgeTopic { topic: topic.clone(), before })?;
    print(format, &PurgeView::new(&topic, &report), PurgeView::render)
}

impl PurgeView {
    fn new(topic: &TopicName, report: &PurgeReport) -> Self {
        let queues = report.queues.iter().map(|queue| QueueView {
            queue: queue.queue.0,
            first_before: queue.first_before.0,
            first: queue.first.0,
        });
        let shards = report.shards.iter().map(|shard| ShardView {
            free_bytes: shard.free_bytes,
            kept_bytes: shard.kept_bytes,
            kept_by: shard.kept_by.as_ref().map(|(topic, _)| topic.to_string()),
            kept_since: shard.kept_by.as_ref().map(|(_, since)| rfc3339(*since)),
        });
        let gone = |queue: &crate::api::PurgedQueue| queue.first.0.saturating_sub(queue.first_before.0);
        Self {
            topic: topic.to_string(),
            messages: report.queues.iter().map(gone).sum(),
            queues: queues.collect(),
            shards: shards.collect(),
        }
    }

    fn render(&self) -> String {
        let mut table = Table::new(["QUEUE", "FIRST BEFORE", "FIRST NOW"]);
        for queue in &self.queues {
            table.row([queue.queue.to_string(), queue.first_before.to_string(), queue.first.to_string()]);
        }
        let mut text =
            format!("topic {}: {} messages are gone\n", self.topic, grouped(self.messages)) + &table.render();
        for (shard, of) in self.shards.iter().enumerate() {
            if of.free_bytes > 0 {
                let bytes = bytes_for_people(of.free_bytes as f64);
                text += &format!("shard {shard}: {bytes} of the disk are free within seconds\n");
            }
            if let (Some(topic), Some(since)) = (&of.kept_by, &of.kept_since) {
                let bytes = bytes_for_people(of.kept_bytes as f64);
                text += &format!(
                    "shard {shard}: {bytes} are shared with topic {topic}, and go when its messages of {since} do\n"
                );
            }
        }
        text + "what lies in the segment that is being written goes after that is full\n"
    }
}
