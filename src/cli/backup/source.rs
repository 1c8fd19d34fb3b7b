//! The data directory that a backup is made of: a running broker's, which says up to where its shards' logs count, or that of one that does
//! not run, whose files say so.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_lite::future::block_on;

use crate::broker::LOG_PLACED;
use crate::cli::backup::catalog::cannot;
use crate::cli::error::CommandError;
use crate::cli::output::warn;
use crate::cli::server::ServerArguments;
use crate::client::Client;
use crate::disk::DiskError;
use crate::disk::bounded::BoundedDisk;
use crate::disk::plain::PlainDisk;
use crate::limits::SHARD_FILES_MIN;
use crate::log::{Known, Lost, Manifest, Replay, contradictions, parse_segment_name, scan};
use crate::node::{DataDirectory, DirectoryError, NodeFiles};
use crate::types::{LogPosition, ShardId};
use crate::wire::batch::BatchHeader;

/// What was placed in the log is durable within milliseconds, or never.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// A manifest is written block by block: it is whole again at once.
const MANIFEST_ATTEMPTS: u32 = 50;

/// A data directory that is copied.
pub struct Source {
    data: PathBuf,
    pub files: NodeFiles,
    state: State,
}

enum State {
    Running(Box<Client>),
    /// Nobody starts a broker on it meanwhile.
    Stopped {
        _directory: DataDirectory,
        ends: Vec<LogPosition>,
    },
}

impl Source {
    pub fn open(data: &Path, server: &ServerArguments) -> Result<Self, CommandError> {
        let files = NodeFiles::read(data).map_err(CommandError::failed)?;
        let state = match DataDirectory::open_existing(data) {
            Ok(directory) => {
                let ends = (0..files.shards)
                    .map(|shard| stopped_end(&directory, shard))
                    .collect::<Result<_, _>>()?;
                State::Stopped { _directory: directory, ends }
            }
            Err(DirectoryError::InUse { .. }) => State::Running(Box::new(connect(data, &files, server)?)),
            Err(error) => return Err(CommandError::failed(error)),
        };
        Ok(Self { data: data.to_owned(), files, state })
    }

    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    pub fn log(&self, shard: u16) -> PathBuf {
        self.data.join(format!("shard-{shard}")).join("log")
    }

    /// First positions of the segments that a shard has now, in their order.
    pub fn segments(&self, shard: u16) -> Result<Vec<LogPosition>, CommandError> {
        let log = self.log(shard);
        let entries = std::fs::read_dir(&log).map_err(|error| cannot("read", &log, &error))?;
        let mut bases = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| cannot("read", &log, &error))?.file_name();
            bases.extend(name.to_str().and_then(parse_segment_name));
        }
        bases.sort();
        Ok(bases)
    }

    /// Up to where each shard's log is to be copied: everything that was answered before this call lies before, whatever its level.
    ///
    /// The control shard's comes last. What it has decided of topics and groups it has stored before others do, and a start brings
    /// the others in line with it, never the other way round.
    pub fn positions(&mut self) -> Result<Vec<LogPosition>, CommandError> {
        let shards = usize::from(self.files.shards);
        let client = match &mut self.state {
            State::Stopped { ends, .. } => return Ok(ends.clone()),
            State::Running(client) => client,
        };
        let mut positions = durable(client, shards)?;
        if shards > 1 {
            positions[0] = durable(client, shards)?[0];
        }
        Ok(positions)
    }

    /// The manifest of a shard's log.
    pub fn manifest(&self, shard: u16) -> Result<Manifest, CommandError> {
        let log = self.log(shard);
        let mut found = None;
        for _ in 0..MANIFEST_ATTEMPTS {
            found = block_on(Manifest::read(&PlainDisk, &log)).map_err(CommandError::failed)?;
            if found.as_ref().is_some_and(|manifest| !manifest.is_alone) {
                break;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        found.ok_or_else(|| {
            CommandError::failed(format!(
                "{} has no manifest that can be read: see `turbopump log verify`",
                log.display()
            ))
        })
    }
}

fn connect(data: &Path, files: &NodeFiles, server: &ServerArguments) -> Result<Client, CommandError> {
    let address = &server.server;
    let mut client = server.connect().map_err(|error| {
        let data = data.display();
        CommandError::failed(format!(
            "a broker runs on {data}, and --server {address} leads to none: {error}"
        ))
    })?;
    let node = client.describe_node(false)?.node;
    if node == Some(files.node()) {
        return Ok(client);
    }
    Err(CommandError::failed(format!(
        "a broker runs on {}, and the one at --server {address} is another one: name an address of the first",
        data.display()
    )))
}

/// Waits until everything is durable that the shards' logs have now; how far they are then.
fn durable(client: &mut Client, shards: usize) -> Result<Vec<LogPosition>, CommandError> {
    let (_, wanted) = ends(client, shards)?;
    let begun = Instant::now();
    loop {
        let (durable, _) = ends(client, shards)?;
        let late = (0..shards).find(|&shard| durable[shard] < wanted[shard]);
        match late {
            None => return Ok(durable),
            // It stores nothing any more, and has not answered what is not durable: the rest is worth a copy.
            Some(shard) if begun.elapsed() > DURABLE_TIMEOUT => {
                warn(format_args!(
                    "shard {shard} does not store what it was sent last (see `turbopump status`): the backup has \
                     what is durable"
                ));
                return Ok(durable);
            }
            Some(_) => std::thread::sleep(LOOK_INTERVAL),
        }
    }
}

/// How far each shard's log is durable, and how far something was placed in it.
fn ends(client: &mut Client, shards: usize) -> Result<(Vec<LogPosition>, Vec<LogPosition>), CommandError> {
    let info = client.describe_node(false)?;
    let of_all = |name: &str| {
        let of_one = |shard: usize| {
            let shard = info.shards.iter().find(|info| usize::from(info.shard.0) == shard)?;
            shard.counters.iter().find(|(counter, _)| counter == name).map(|(_, value)| LogPosition(*value))
        };
        let all: Option<Vec<_>> = (0..shards).map(of_one).collect();
        all.ok_or_else(|| {
            CommandError::failed(format!(
                "the broker does not say `{name}` of every shard: back it up with a release like its own"
            ))
        })
    };
    Ok((of_all("log_end")?, of_all(LOG_PLACED)?))
}

/// Where the log of a broker that does not run ends. What is missing of it is refused.
fn stopped_end(directory: &DataDirectory, shard: u16) -> Result<LogPosition, CommandError> {
    let disk = BoundedDisk::new(PlainDisk, SHARD_FILES_MIN);
    let log = directory.shard(shard).join("log");
    let known = Known { is_made: true, ..Known::nothing(ShardId(shard), directory.shard_count()) };
    let found = block_on(contradictions(&disk, &log, &known)).map_err(CommandError::failed)?;
    if let Some(found) = found.first() {
        return Err(CommandError::failed(format!(
            "shard {shard}: {found}; a copy of it would be no better: see `turbopump log verify`"
        )));
    }
    let manifest = block_on(Manifest::read(&PlainDisk, &log)).map_err(CommandError::failed)?;
    if let Some(holdings) = manifest.and_then(|manifest| manifest.holdings).filter(|holdings| holdings.is_end)
    {
        return Ok(holdings.reached);
    }
    // It was killed: the end is where a start finds it.
    let report = block_on(scan(&disk, &log, &known, &mut Nothing)).map_err(CommandError::failed)?;
    Ok(report.end)
}

/// Only the end of the log is asked for.
struct Nothing;

impl Replay for Nothing {
    fn restart(&mut self) {}

    fn whole(&mut self, _: &BatchHeader, _: &[u8]) {}

    fn harmed(&mut self, _: &BatchHeader) {}

    fn lost(&mut self, _: Lost) {}

    async fn settle(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}
