//! `turbopump log`: looks at the data directory of a broker that does not run. Looking needs neither io_uring nor a write.

pub mod verify;

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures_lite::future::block_on;
use serde::Serialize;

use crate::cli::calendar::rfc3339;
use crate::cli::error::CommandError;
use crate::cli::log::verify::VerifyArguments;
use crate::cli::output::{OutputFormat, on_one_line, to_json};
use crate::cli::quantity::Span;
use crate::cli::repair::{self, RepairArguments};
use crate::disk::DiskError;
use crate::disk::bounded::BoundedDisk;
use crate::disk::plain::PlainDisk;
use crate::limits::SHARD_FILES_MIN;
use crate::log::{Contradiction, Damage, Known, Lost, Replay, Report, contradictions, scan};
use crate::node::DataDirectory;
use crate::state::{Change, HALF_OFFSET, HeldChange, LockChange, RedriveChange, decode_changes};
use crate::types::{LogPosition, QueueOffset, RunningTime, ShardId, Timestamp};
use crate::wire::batch::{BatchHeader, Kind, state_payload, stored_records};
use crate::wire::origin::{Attributes, BodyEncoding, Origin};

#[derive(Debug, Args)]
pub struct LogArguments {
    #[command(subcommand)]
    pub command: LogCommand,
}

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Hold everything that is stored against everything else, and name what is damaged or missing
    Verify(VerifyArguments),
    /// Print stored batches
    Dump(DumpArguments),
    /// Go on without files that are missing or are not what was written
    Repair(RepairArguments),
}

#[derive(Debug, Args)]
pub struct DumpArguments {
    /// The data directory; its broker must not run
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Only this shard
    #[arg(long, value_name = "N")]
    pub shard: Option<u16>,
    /// Only batches from this log position on
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    pub position: u64,
    /// Stop after this many batches
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Print the records of each batch as well
    #[arg(long)]
    pub records: bool,
}

/// The kind of batch that waits for its time, or for its producer.
const HELD: &str = "held";

#[derive(Serialize)]
struct BatchView {
    shard: u16,
    position: u64,
    kind: &'static str,
    whole: bool,
    epoch: u32,
    topic_id: u32,
    queue: u32,
    base_offset: u64,
    records: u32,
    bytes: u32,
    store_time_ms: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contents: Vec<String>,
}

pub fn run(arguments: LogArguments, format: OutputFormat) -> Result<(), CommandError> {
    match arguments.command {
        LogCommand::Verify(verify) => verify::run(&verify, format),
        LogCommand::Dump(dump) => run_dump(&dump, format),
        LogCommand::Repair(repair) => repair::run(&repair, format),
    }
}

fn run_dump(arguments: &DumpArguments, format: OutputFormat) -> Result<(), CommandError> {
    let directory = DataDirectory::open_existing(&arguments.data).map_err(CommandError::failed)?;
    let (only, count) = (arguments.shard, directory.shard_count());
    if let Some(shard) = only.filter(|shard| *shard >= count) {
        let data = arguments.data.display();
        return Err(CommandError::usage(format!("{data} has shards 0 to {}, not {shard}", count - 1)));
    }
    let mut missing = Vec::new();
    for shard in (0..count).filter(|shard| only.is_none_or(|only| only == *shard)) {
        let mut dumping = Dumping {
            arguments: DumpOptions {
                from: LogPosition(arguments.position),
                count: arguments.count.unwrap_or(u64::MAX),
                records: arguments.records,
            },
            format,
            shard,
            printed: 0,
            output: BufWriter::new(std::io::stdout()),
            failure: None,
        };
        let (log, nothing) = (directory.shard(shard).join("log"), Known::nothing(ShardId(shard), count));
        let report =
            block_on(scan(&bounded(), &log, &nothing, &mut dumping)).map_err(CommandError::failed)?;
        let flushed = dumping.output.flush();
        if let Some(error) = dumping.failure.or(flushed.err()) {
            return Err(CommandError::output(error));
        }
        let known = Known { is_made: directory.is_shard_made(shard), ..nothing };
        let found = block_on(contradictions(&bounded(), &log, &known)).map_err(CommandError::failed)?;
        missing.extend(not_printed(&report, &found).map(|what| format!("shard {shard}: {what}")));
    }
    match missing.is_empty() {
        true => Ok(()),
        false => {
            Err(CommandError::failed(format!("this is not all that was stored: {}", missing.join("; "))))
        }
    }
}

/// What was stored, and is not among what a dump prints, or only in part. What was given up before is no news.
fn not_printed<'a>(report: &'a Report, found: &'a [Contradiction]) -> impl Iterator<Item = String> {
    let ranges = report.given_up.iter().map(|range| (range.from, range.to));
    let ranges: Vec<_> = ranges.chain(found.iter().map(|found| (found.from, found.to))).collect();
    let is_told = move |at| ranges.iter().any(|(from, to)| *from <= at && at < *to);
    let damage = report.damage.iter().filter(move |damage| !is_told(damage.log_position));
    let damage = damage.map(|Damage { file, position, bytes, .. }| {
        format!("{bytes} bytes from byte {position} of {file} on are not as they were written")
    });
    found.iter().map(ToString::to_string).chain(damage)
}

/// A log of any number of segments is read through few descriptors.
fn bounded() -> BoundedDisk<PlainDisk> {
    BoundedDisk::new(PlainDisk, SHARD_FILES_MIN)
}

struct DumpOptions {
    from: LogPosition,
    count: u64,
    records: bool,
}

/// Prints what is there.
struct Dumping {
    arguments: DumpOptions,
    format: OutputFormat,
    shard: u16,
    printed: u64,
    output: BufWriter<std::io::Stdout>,
    failure: Option<std::io::Error>,
}

impl Replay for Dumping {
    fn restart(&mut self) {}

    fn whole(&mut self, header: &BatchHeader, bytes: &[u8]) {
        self.batch(header, Some(bytes));
    }

    fn harmed(&mut self, header: &BatchHeader) {
        self.batch(header, None);
    }

    fn lost(&mut self, _: Lost) {}

    async fn settle(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

impl Dumping {
    fn batch(&mut self, header: &BatchHeader, bytes: Option<&[u8]>) {
        if header.position < self.arguments.from
            || self.printed >= self.arguments.count
            || self.failure.is_some()
        {
            return;
        }
        self.printed += 1;
        let contents =
            bytes.filter(|_| self.arguments.records).map_or(Vec::new(), |bytes| contents(header, bytes));
        let view = BatchView {
            shard: self.shard,
            position: header.position.0,
            kind: match header.kind {
                Kind::Messages => "messages",
                Kind::State => "state",
                Kind::Held => HELD,
            },
            whole: bytes.is_some(),
            epoch: header.epoch,
            topic_id: header.key.topic.0,
            queue: header.key.queue.0,
            base_offset: header.base_offset.0,
            records: header.record_count,
            bytes: header.batch_bytes,
            store_time_ms: header.store_time.0,
            contents,
        };
        let line = match self.format {
            OutputFormat::Json => to_json(&view) + "\n",
            OutputFormat::Text => batch_text(&view),
        };
        self.failure = self.output.write_all(line.as_bytes()).err();
    }
}

fn batch_text(view: &BatchView) -> String {
    // One that is held has its time in the place of an offset, or nothing when it waits for its producer.
    let place = match (view.kind, QueueOffset(view.base_offset)) {
        (HELD, HALF_OFFSET) => "half".to_owned(),
        (HELD, due) => format!("due {}", rfc3339(Timestamp(due.0))),
        (_, offset) => format!("offset {offset}"),
    };
    let mut text = format!(
        "shard {} position {}: {} topic {} queue {} {place} x{}, {} bytes, epoch {}, stored {}{}\n",
        view.shard,
        view.position,
        view.kind,
        view.topic_id,
        view.queue,
        view.records,
        view.bytes,
        view.epoch,
        rfc3339(Timestamp(view.store_time_ms)),
        if view.whole { "" } else { ", RECORDS DAMAGED" }
    );
    view.contents.iter().for_each(|line| text += &format!("  {}\n", on_one_line(line)));
    text
}

/// One line for each record or change.
fn contents(header: &BatchHeader, bytes: &[u8]) -> Vec<String> {
    match header.kind {
        Kind::Messages | Kind::Held => stored_records(bytes)
            .map(|record| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let plain = record.plain_body();
                let body = plain.as_deref().unwrap_or(record.body());
                let mut line = format!("key={:?} tag={:?} ", text(record.key()), text(record.tag()));
                let Attributes { encoding, committed } = record.attributes();
                if encoding != BodyEncoding::Plain {
                    line += &format!("encoding={} ", encoding.name());
                }
                if committed {
                    line += "committed ";
                }
                if let Some(Origin { flag, deliveries_before, born }) = record.origin() {
                    line += &format!("born={born} flag={flag} deliveries_before={deliveries_before} ");
                }
                line + &text(body)
            })
            .collect(),
        Kind::State => match decode_changes(state_payload(bytes)) {
            Ok(changes) => changes.iter().map(change_text).collect(),
            Err(error) => vec![error.to_string()],
        },
    }
}

fn change_text(change: &Change) -> String {
    match change {
        Change::Topic(topic) => {
            format!("topic {} is {} with {} queues", topic.id, topic.name, topic.queue_count)
        }
        Change::TopicRemoved(id) => format!("topic {id} removed"),
        Change::Offset { group, key, offset, .. } => format!("group {group} goes on at {offset} in {key}"),
        Change::QueueEnd { key, offset } => format!("{key} ends at {offset}"),
        Change::LiveTopics(live) => {
            let ids: Vec<_> = live.iter().map(ToString::to_string).collect();
            format!("the topics are {}", ids.join(", "))
        }
        Change::NextTopicId(id) => format!("the next topic is {id}"),
        Change::Group(group) => format!("settings {:?}, {:?}", group.settings, group.policy),
        Change::Instances(instances) => {
            let names: Vec<_> = instances.iter().map(ToString::to_string).collect();
            format!("the instances are {}", names.join(", "))
        }
        Change::GroupRemoved { group, settings: true } => format!("group {group} removed"),
        Change::GroupRemoved { group, settings: false } => {
            format!("group {group} removed, but for its settings")
        }
        Change::RunningTime(time) => format!("the shard has run for {}", run_for(*time)),
        Change::StoredBy { position, time } => {
            let time = run_for(*time);
            format!("what lies below position {position} was stored when the shard had run for {time}")
        }
        Change::GroupUsed { group, time } => {
            format!("group {group} was used when the shard had run for {}", run_for(*time))
        }
        Change::Lease(change) => format!("{change:?}"),
        Change::Held(change) => held_text(change),
        Change::Redrive(change) => redrive_text(change),
        Change::Purged { key, offset } => format!("{key} begins at {offset}"),
        Change::Lock(LockChange { group, key, client: Some(client) }) => {
            format!("client {client} of group {group} has {key} to itself")
        }
        Change::Lock(LockChange { group, key, client: None }) => {
            format!("no client of group {group} has {key} to itself")
        }
    }
}

fn run_for(time: RunningTime) -> Span {
    Span(Duration::from_millis(time.0))
}

fn redrive_text(change: &RedriveChange) -> String {
    match change {
        RedriveChange::Begun { key, offset, to: Some(to), .. } => {
            format!("dead letter {offset} of {key} is on its way to {to}")
        }
        RedriveChange::Begun { key, offset, to: None, .. } => {
            format!("dead letter {offset} of {key} stays where it is")
        }
        RedriveChange::Redriven { key, ranges, .. } => {
            let ranges: Vec<_> =
                ranges.iter().map(|range| format!("{} to {}", range.start, range.end)).collect();
            format!("dead letters {} of {key} are redriven", ranges.join(", "))
        }
        RedriveChange::Arrived { key, begun, at } => {
            format!("the dead letter of {key} that was begun at {begun} has come, at offset {at}")
        }
    }
}

fn held_text(change: &HeldChange) -> String {
    match change {
        HeldChange::Released { due, position } => {
            format!("delayed messages released up to {}, position {position}", rfc3339(*due))
        }
        HeldChange::Moved { bucket, position } => {
            format!("delayed messages of bucket {bucket} placed again up to position {position}")
        }
        HeldChange::HalfStored(half) => {
            format!("half {} for {}, checked {} times", half.position, half.key, half.checks)
        }
        HeldChange::HalfEnded(half) => format!("half {half} ended"),
        HeldChange::HalfChecked { half, checks, .. } => format!("half {half} checked {checks} times"),
        HeldChange::Recalled { due, position } => {
            format!("delayed message due at {}, position {position}, taken back", rfc3339(*due))
        }
        HeldChange::HalfMoved { half, current } => format!("half {half} placed again at {current}"),
    }
}
