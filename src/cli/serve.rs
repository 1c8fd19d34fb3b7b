//! `turbopump serve`.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::config::ServeSettings;
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, Table, bytes_for_people, print};
use crate::cli::server::milliseconds;
use crate::log::Damage;
use crate::shard::{self, NodeError, ServeOptions, Started, StartedShard};

#[derive(Debug, clap::Args)]
#[command(after_help = "SIGTERM and Ctrl-C stop the broker: what was taken is finished and flushed first.")]
pub struct ServeArguments {
    /// TOML file with the same names as the flags below; flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub settings: ServeSettings,
}

/// Flags and configuration file together, checked.
pub fn options(arguments: ServeArguments) -> Result<ServeOptions, CommandError> {
    let settings = match &arguments.config {
        Some(path) => arguments.settings.or(ServeSettings::read(path)?),
        None => arguments.settings,
    };
    settings.into_options()
}

/// Runs the broker until it is told to stop.
pub fn run(arguments: ServeArguments, format: OutputFormat) -> Result<(), CommandError> {
    let options = options(arguments)?;
    if options.buffered_io {
        eprintln!(
            "turbopump: --buffered-io: files go through the page cache where they must; for trying things out only"
        );
    }
    let announce = |started: &Started| {
        // A broker whose output nobody reads goes on all the same.
        let _ = print(format, &StartedView::new(&options, started), render);
    };
    shard::run(&options, announce).map_err(|error| match error {
        NodeError::Options(error) => CommandError::usage(error),
        error => CommandError::failed(error),
    })
}

/// What a started broker tells, once it takes requests.
#[derive(Serialize)]
struct StartedView {
    version: &'static str,
    data: String,
    is_new: bool,
    level: &'static str,
    buffered_io: bool,
    shards: Vec<ShardView>,
    node_address: Option<String>,
    start_ms: u64,
}

#[derive(Serialize)]
struct ShardView {
    shard: u16,
    core: usize,
    address: String,
    /// End of the shard's log.
    log_end: u64,
    recovered_bytes: u64,
    /// Whether an unfinished tail, which nobody had an answer about, was cut off.
    torn: bool,
    damage: Vec<DamageView>,
    /// Why the index was built anew, if it was.
    rebuilt: Option<String>,
    start_ms: u64,
}

/// Bytes that were flushed once and no longer match their checksum.
#[derive(Serialize)]
struct DamageView {
    file: String,
    position: u64,
    bytes: u64,
}

impl DamageView {
    fn new(damage: &Damage) -> Self {
        Self { file: damage.file.clone(), position: damage.position, bytes: damage.bytes }
    }
}

impl StartedView {
    fn new(options: &ServeOptions, started: &Started) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            data: options.data.display().to_string(),
            is_new: started.is_new,
            level: options.level.name(),
            buffered_io: options.buffered_io,
            shards: started.shards.iter().map(ShardView::new).collect(),
            node_address: started.node_address.map(|address| address.to_string()),
            start_ms: milliseconds(started.took),
        }
    }
}

impl ShardView {
    fn new(shard: &StartedShard) -> Self {
        Self {
            shard: shard.shard.0,
            core: shard.core,
            address: shard.address.clone(),
            log_end: shard.report.end.0,
            recovered_bytes: shard.report.bytes_scanned,
            torn: shard.report.torn,
            damage: shard.report.damage.iter().map(DamageView::new).collect(),
            rebuilt: shard.rebuilt.clone(),
            start_ms: milliseconds(shard.took),
        }
    }
}

fn render(view: &StartedView) -> String {
    let state = if view.is_new { "new" } else { "existing" };
    let mut text = format!(
        "turbopump {} on {} ({state} data directory), level {}\n",
        view.version, view.data, view.level
    );
    let mut shards = Table::new(["SHARD", "CORE", "ADDRESS", "LOG", "RECOVERED", "START"]);
    for shard in &view.shards {
        shards.row([
            shard.shard.to_string(),
            shard.core.to_string(),
            shard.address.clone(),
            bytes_for_people(shard.log_end as f64),
            bytes_for_people(shard.recovered_bytes as f64),
            format!("{} ms", shard.start_ms),
        ]);
    }
    text.push_str(&shards.render());
    for shard in &view.shards {
        if let Some(reason) = &shard.rebuilt {
            text.push_str(&format!("shard {}: the index was built anew: {reason}\n", shard.shard));
        }
        for damage in &shard.damage {
            text.push_str(&format!(
                "shard {}: damaged: {} bytes at {} of {}\n",
                shard.shard, damage.bytes, damage.position, damage.file
            ));
        }
    }
    if let Some(address) = &view.node_address {
        text.push_str(&format!("node address {address}\n"));
    }
    text.push_str(&format!("ready after {} ms; Ctrl-C stops\n", view.start_ms));
    text
}
