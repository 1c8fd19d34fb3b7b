//! `turbopump serve`.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::config::ServeSettings;
use crate::cli::error::CommandError;
use crate::cli::notices;
use crate::cli::output::{OutputFormat, print_text, to_json};
use crate::cli::server::milliseconds;
use crate::log::{Damage, GivenUpRange};
use crate::node::{self, NodeError, ServeOptions, Started, StartedShard};
use crate::types::Level;

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
    let _notices = notices::to_standard_error();
    let announce = |started: &Started| {
        // A reader that has gone away does not stop the broker.
        let _ = match format {
            OutputFormat::Text => print_text(&render(&options, started)),
            OutputFormat::Json => print_text(&to_json(&StartedView::new(&options, started))),
        };
    };
    node::run(&options, announce).map_err(|error| match error {
        NodeError::Options(error) => CommandError::usage(error),
        error => CommandError::failed(error),
    })
}

/// The same for programs, one object once the broker takes requests.
#[derive(Serialize)]
struct StartedView {
    version: &'static str,
    data: String,
    is_new: bool,
    node: String,
    level: &'static str,
    buffered_io: bool,
    node_address: Option<String>,
    http_address: Option<String>,
    /// Whether HTTP is spoken within TLS.
    https: bool,
    warnings: Vec<String>,
    start_ms: u64,
    device: DeviceView,
    shards: Vec<ShardView>,
}

#[derive(Serialize)]
struct DeviceView {
    flush_p50_us: u64,
    bytes_per_second: u64,
}

#[derive(Serialize)]
struct ShardView {
    shard: u16,
    core: usize,
    address: String,
    replayed_batches: u64,
    /// Where the log ends.
    log_end: u64,
    /// Whether an unanswered tail was cut off there.
    torn: bool,
    /// Why the index was built anew, if it was.
    rebuilt: Option<String>,
    damage: Vec<DamageView>,
    given_up: Vec<GivenUpView>,
    /// What was not as it should be, and was made good.
    notices: Vec<String>,
    start_ms: u64,
}

#[derive(Serialize)]
struct GivenUpView {
    file: String,
    from: u64,
    to: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct DamageView {
    file: String,
    position: u64,
    bytes: u64,
}

impl StartedView {
    fn new(options: &ServeOptions, started: &Started) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            data: options.data.display().to_string(),
            is_new: started.is_new,
            node: started.node.to_string(),
            level: options.level.name(),
            buffered_io: options.buffered_io,
            node_address: started.node_address.map(|address| address.to_string()),
            http_address: started.http_address.map(|address| address.to_string()),
            https: options.http_certificate.is_some(),
            warnings: started.warnings.clone(),
            start_ms: milliseconds(started.took),
            device: DeviceView {
                flush_p50_us: started.device.flush_p50.as_micros() as u64,
                bytes_per_second: started.device.bytes_per_second,
            },
            shards: started.shards.iter().map(ShardView::new).collect(),
        }
    }
}

impl ShardView {
    fn new(shard: &StartedShard) -> Self {
        let damage = |damage: &Damage| DamageView {
            file: damage.file.clone(),
            position: damage.position,
            bytes: damage.bytes,
        };
        let given_up = |range: &GivenUpRange| GivenUpView {
            file: range.file.clone(),
            from: range.from.0,
            to: range.to.0,
            bytes: range.bytes,
        };
        Self {
            shard: shard.shard.0,
            core: shard.core,
            address: shard.address.clone(),
            replayed_batches: shard.report.batches,
            log_end: shard.report.end.0,
            torn: shard.report.torn,
            rebuilt: shard.rebuilt.clone(),
            damage: shard.report.damage.iter().map(damage).collect(),
            given_up: shard.report.given_up.iter().map(given_up).collect(),
            notices: shard.report.notices.clone(),
            start_ms: milliseconds(shard.took),
        }
    }
}

/// Everything a stranger asks of a start: what listens where, on which core, how safe an answer is, how fast the disk.
fn render(options: &ServeOptions, started: &Started) -> String {
    let mut text = String::new();
    let made = if started.is_new { "made" } else { "opened" };
    let data = options.data.display();
    text += &format!(
        "turbopump {}: {made} {data} in {} ms\n",
        env!("CARGO_PKG_VERSION"),
        started.took.as_millis()
    );
    text += &format!("  this is node {}\n", started.node);
    for shard in &started.shards {
        text += &format!("  shard {} on core {} listens on {}", shard.shard, shard.core, shard.address);
        text += &format!("  (replayed {} batches in {} ms)\n", shard.report.batches, shard.took.as_millis());
        if let Some(reason) = &shard.rebuilt {
            text += &format!("    the index was built anew from the log: {reason}\n");
        }
        if shard.report.torn {
            text += &format!("    an unanswered tail behind log position {} was cut off\n", shard.report.end);
        }
        for damage in &shard.report.damage {
            text += &format!(
                "    DAMAGED: {} at byte {}, {} bytes\n",
                damage.file, damage.position, damage.bytes
            );
        }
        shard.report.given_up.iter().for_each(|range| text += &format!("    GIVEN UP: {range}\n"));
        shard.report.notices.iter().for_each(|notice| text += &format!("    {notice}\n"));
    }
    if let Some(address) = started.node_address {
        text += &format!("  the node listens on {address}\n");
    }
    if let Some(address) = started.http_address {
        let senders =
            if options.access_keys.is_some() { "signed requests only" } else { "no keys asked for" };
        let scheme = if options.http_certificate.is_some() { "HTTPS" } else { "HTTP" };
        text += &format!("  {scheme} listens on {address}  ({senders})\n");
    }
    text += &format!("  answers are given when messages are {}", options.level);
    text += match options.level {
        Level::Durable => ": written and flushed\n",
        Level::Written => ": on the device, not flushed; a loss of power may take the newest\n",
        Level::Accepted => ": in memory; the death of the process may take the newest\n",
    };
    let device = &started.device;
    text += &format!(
        "  the device writes and flushes 4 KiB in {} us (median of {}), and {} MB/s in groups of 2 MiB\n",
        device.flush_p50.as_micros(),
        device.flush_count,
        device.bytes_per_second / 1_000_000
    );
    for warning in &started.warnings {
        text += &format!("  WARNING: {warning}\n");
    }
    if options.buffered_io {
        text += "  WARNING: --buffered-io goes through the page cache: good for trying things out, not for figures\n";
    }
    text + "ready\n"
}
