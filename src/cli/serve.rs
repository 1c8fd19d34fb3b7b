//! `turbopump serve`.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::cli::config::ServeSettings;
use crate::cli::error::CommandError;
use crate::shard::{self, ServeOptions, Started};
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
pub fn run(arguments: ServeArguments) -> Result<(), CommandError> {
    let options = options(arguments)?;
    shard::run(&options, |started| print_started(&options, started))
        .map_err(|error| CommandError::failed(error.to_string()))
}

/// Everything a stranger asks of a start: what listens where, on which core, how safe an answer is, how fast the disk.
fn print_started(options: &ServeOptions, started: &Started) {
    let mut text = String::new();
    let made = if started.is_new { "made" } else { "opened" };
    let data = options.data.display();
    text += &format!(
        "turbopump {}: {made} {data} in {} ms\n",
        env!("CARGO_PKG_VERSION"),
        started.took.as_millis()
    );
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
    }
    if let Some(address) = started.node_address {
        text += &format!("  the node listens on {address}\n");
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
    if options.buffered_io {
        text += "  WARNING: --buffered-io goes through the page cache: good for trying things out, not for figures\n";
    }
    text += "ready\n";
    // A reader that has gone away does not stop the broker.
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
}
