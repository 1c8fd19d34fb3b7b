//! `turbopump log`: looks at the data directory of a broker that does not run.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use glommio::{LocalExecutorBuilder, Placement};
use serde::Serialize;

use crate::broker::{Change, HeldChange, decode_changes};
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, grouped, print, to_json};
use crate::cli::repair::{self, RepairArguments};
use crate::disk::glommio::{Access, GlommioDisk};
use crate::disk::{DiskError, DiskErrorKind};
use crate::index::keys::KeyIndex;
use crate::limits::BLOCK_BYTES;
use crate::log::{Damage, Known, Replay, Report, scan};
use crate::shard::DataDirectory;
use crate::types::{LogPosition, ShardId};
use crate::wire::batch::{BatchHeader, Kind, state_payload, stored_records};

/// Memory that the executor registers; reading needs none of it.
const RING_MEMORY_BYTES: usize = 64 * 1024;

#[derive(Debug, Args)]
pub struct LogArguments {
    #[command(subcommand)]
    pub command: LogCommand,
}

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Check every stored byte, and name file and position of each that is damaged
    Verify(VerifyArguments),
    /// Print stored batches
    Dump(DumpArguments),
    /// Go on without files that are missing or are not what was written
    Repair(RepairArguments),
}

#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// The data directory; its broker must not run
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
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

#[derive(Serialize)]
struct VerifiedView {
    shards: Vec<ShardView>,
    damaged: usize,
}

#[derive(Serialize)]
struct ShardView {
    shard: u16,
    batches: u64,
    messages: u64,
    log_end: u64,
    /// Bytes behind the end that were never answered; the next start cuts them off.
    unfinished_tail: bool,
    damage: Vec<DamageView>,
}

#[derive(Serialize)]
struct DamageView {
    file: String,
    position: u64,
    bytes: u64,
}

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
        LogCommand::Verify(verify) => run_verify(&verify, format),
        LogCommand::Dump(dump) => run_dump(&dump, format),
        LogCommand::Repair(repair) => repair::run(&repair, format),
    }
}

fn run_verify(arguments: &VerifyArguments, format: OutputFormat) -> Result<(), CommandError> {
    let mut shards = Vec::new();
    for_each_shard(&arguments.data, None, Counting::default, |shard, counting, report| {
        shards.push(ShardView {
            shard: shard.0,
            batches: report.batches,
            messages: counting.messages,
            log_end: report.end.0,
            unfinished_tail: report.torn,
            damage: report.damage.into_iter().map(DamageView::from).collect(),
        });
    })?;
    let damaged = shards.iter().map(|shard| shard.damage.len()).sum();
    print(format, &VerifiedView { shards, damaged }, verified_text)?;
    match damaged {
        0 => Ok(()),
        count => Err(CommandError::failed(format!(
            "{count} damaged places: restore the files named above from a copy (those that end in .keys can be removed: the broker makes them anew)"
        ))),
    }
}

fn verified_text(view: &VerifiedView) -> String {
    let mut text = String::new();
    for shard in &view.shards {
        let (batches, messages) = (grouped(shard.batches), grouped(shard.messages));
        text += &format!(
            "shard {}: {batches} batches with {messages} messages, log end {}",
            shard.shard, shard.log_end
        );
        text += if shard.unfinished_tail { ", behind it an unanswered tail\n" } else { "\n" };
        for damage in &shard.damage {
            text +=
                &format!("  DAMAGED {} at byte {}, {} bytes\n", damage.file, damage.position, damage.bytes);
        }
    }
    if view.damaged == 0 { text + "every byte is as it was written\n" } else { text }
}

impl From<Damage> for DamageView {
    fn from(damage: Damage) -> Self {
        Self { file: damage.file, position: damage.position, bytes: damage.bytes }
    }
}

fn run_dump(arguments: &DumpArguments, format: OutputFormat) -> Result<(), CommandError> {
    let mut failure = None;
    let dumping = || Dumping {
        arguments: DumpOptions {
            from: LogPosition(arguments.position),
            count: arguments.count.unwrap_or(u64::MAX),
            records: arguments.records,
        },
        format,
        shard: 0,
        printed: 0,
        output: BufWriter::new(std::io::stdout()),
        failure: None,
    };
    for_each_shard(&arguments.data, arguments.shard, dumping, |_, mut dumping, _| {
        let flushed = dumping.output.flush();
        failure = failure.take().or(dumping.failure).or(flushed.err());
    })?;
    failure.map_or(Ok(()), |error| Err(CommandError::output(error)))
}

/// A replay that knows which shard it looks at.
trait ShardReplay: Replay {
    fn begin(&mut self, shard: ShardId);

    /// Whether files beside the log are to be checked as well.
    fn checks_everything(&self) -> bool;
}

/// Scans every shard's log, each with a replay of its own.
fn for_each_shard<R: ShardReplay + 'static>(
    data: &Path,
    only: Option<u16>,
    make: impl Fn() -> R,
    mut done: impl FnMut(ShardId, R, Report),
) -> Result<(), CommandError> {
    let directory = DataDirectory::open_existing(data).map_err(CommandError::failed)?;
    if let Some(shard) = only.filter(|shard| *shard >= directory.shard_count()) {
        let last = directory.shard_count() - 1;
        return Err(CommandError::usage(format!("{} has shards 0 to {last}, not {shard}", data.display())));
    }
    for shard in (0..directory.shard_count()).filter(|shard| only.is_none_or(|only| only == *shard)) {
        let mut replay = make();
        replay.begin(ShardId(shard));
        let log = directory.shard(shard).join("log");
        let (replay, report) = scan_shard(&directory, log, ShardId(shard), replay)?;
        done(ShardId(shard), replay, report);
    }
    Ok(())
}

fn scan_shard<R: ShardReplay + 'static>(
    directory: &DataDirectory,
    log: PathBuf,
    shard: ShardId,
    mut replay: R,
) -> Result<(R, Report), CommandError> {
    let probe = directory.path().join("turbopump.toml");
    let shards = directory.shard_count();
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(RING_MEMORY_BYTES)
        .make()
        .map_err(|error| CommandError::failed(format!("io_uring does not start: {error}")))?;
    executor.run(async move {
        let disk = attach(&probe).await.map_err(CommandError::failed)?;
        let known = Known::nothing(shard, shards);
        let mut report = scan(&disk, &log, &known, &mut replay).await.map_err(CommandError::failed)?;
        if replay.checks_everything() {
            let keys = log.with_file_name("keys");
            let damage = KeyIndex::verify(&disk, &keys).await.map_err(CommandError::failed)?;
            report.damage.extend(damage.into_iter().map(|damage| Damage {
                file: damage.file.display().to_string(),
                // Not of the log.
                place: LogPosition::ZERO,
                position: damage.position,
                bytes: BLOCK_BYTES as u64,
            }));
        }
        Ok((replay, report))
    })
}

/// Direct I/O where the file system takes it, since what is cached may differ from what is stored.
async fn attach(probe: &Path) -> Result<GlommioDisk, DiskError> {
    match GlommioDisk::attach_reading(probe, Access::Direct).await {
        Err(error) if error.kind == DiskErrorKind::NoDirectIo => {
            GlommioDisk::attach_reading(probe, Access::Buffered).await
        }
        attached => attached,
    }
}

/// Counts what is there.
#[derive(Default)]
struct Counting {
    messages: u64,
}

impl ShardReplay for Counting {
    fn begin(&mut self, _: ShardId) {}

    fn checks_everything(&self) -> bool {
        true
    }
}

impl Replay for Counting {
    fn restart(&mut self) {}

    fn whole(&mut self, header: &BatchHeader, _: &[u8]) {
        if header.kind == Kind::Messages {
            self.messages += u64::from(header.record_count);
        }
    }

    fn harmed(&mut self, _: &BatchHeader) {}

    fn given_up(&mut self, _: u64) {}

    async fn settle(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
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

impl ShardReplay for Dumping {
    fn begin(&mut self, shard: ShardId) {
        self.shard = shard.0;
    }

    fn checks_everything(&self) -> bool {
        false
    }
}

impl Replay for Dumping {
    fn restart(&mut self) {}

    fn whole(&mut self, header: &BatchHeader, bytes: &[u8]) {
        self.batch(header, Some(bytes));
    }

    fn harmed(&mut self, header: &BatchHeader) {
        self.batch(header, None);
    }

    fn given_up(&mut self, _: u64) {}

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
                Kind::Held => "held",
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
    let mut text = format!(
        "shard {} position {}: {} topic {} queue {} offset {} x{}, {} bytes, epoch {}, stored {}{}\n",
        view.shard,
        view.position,
        view.kind,
        view.topic_id,
        view.queue,
        view.base_offset,
        view.records,
        view.bytes,
        view.epoch,
        view.store_time_ms,
        if view.whole { "" } else { ", RECORDS DAMAGED" }
    );
    view.contents.iter().for_each(|line| text += &format!("  {line}\n"));
    text
}

/// One line for each record or change.
fn contents(header: &BatchHeader, bytes: &[u8]) -> Vec<String> {
    match header.kind {
        Kind::Messages | Kind::Held => stored_records(bytes)
            .map(|record| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                format!("key={:?} tag={:?} {}", text(record.key()), text(record.tag()), text(record.body()))
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
        Change::Group(settings) => format!("settings {settings:?}"),
        Change::Instances(instances) => {
            let names: Vec<_> = instances.iter().map(ToString::to_string).collect();
            format!("the instances are {}", names.join(", "))
        }
        Change::Lease(change) => format!("{change:?}"),
        Change::Held(change) => held_text(change),
    }
}

fn held_text(change: &HeldChange) -> String {
    match change {
        HeldChange::Released { due, position } => {
            format!("delayed messages released up to {due}, position {position}")
        }
        HeldChange::Moved { bucket, position } => {
            format!("delayed messages of bucket {bucket} placed again up to position {position}")
        }
        HeldChange::HalfStored(half) => {
            format!("half {} for {}, checked {} times", half.position, half.key, half.checks)
        }
        HeldChange::HalfEnded(half) => format!("half {half} ended"),
        HeldChange::HalfChecked { half, checks, .. } => format!("half {half} checked {checks} times"),
        HeldChange::HalfMoved { half, current } => format!("half {half} placed again at {current}"),
    }
}
