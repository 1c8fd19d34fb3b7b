//! `turbopump serve`.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::config::ServeSettings;
use crate::cli::error::CommandError;
use crate::cli::log_level::{LogFormat, LogLevels};
use crate::cli::notices::Notices;
use crate::cli::output::{OutputFormat, check_output, on_one_line, print_text, to_json};
use crate::cli::quantity::ByteSize;
use crate::cli::settings::{self, Keeper, Sources, Tally};
use crate::log::{Damage, GivenUpRange};
use crate::node::{self, NodeError, ServeOptions, Started, StartedShard, TlsMode};
use crate::protocol::remoting::broker_conf::Fate;
use crate::runtime::host;
use crate::types::Level;
use crate::views::milliseconds;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each flag is a variable of the environment as well: --listen is TURBOPUMP_LISTEN, --config TURBOPUMP_CONFIG. \
Flags win over variables, and these over the file; --print-config shows what counts, and why.

SIGTERM and Ctrl-C stop the broker: what was taken is finished and flushed first. SIGHUP makes it read \
the access keys, the certificate, and those settings of the configuration file again that `turbopump config set` can change.

Example: turbopump serve --data /var/tmp/turbopump --retention-age 7d --print-config"
)]
pub struct ServeArguments {
    /// TOML file with the same names as the flags below, which win over it; or the broker.conf of Apache's broker, of which
    /// --print-config tells what each line became
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the settings that count and where each comes from, as a configuration file, and start nothing
    #[arg(long)]
    pub print_config: bool,
    #[command(flatten)]
    pub settings: ServeSettings,
}

/// Settings from wherever they are said, checked.
struct Settings {
    options: ServeOptions,
    log_level: LogLevels,
    log_format: LogFormat,
}

impl Settings {
    fn of(sources: &Sources) -> Result<Self, CommandError> {
        let settings = sources.settings();
        Ok(Self {
            log_level: settings.log_level.clone().unwrap_or_default(),
            log_format: settings.log_format.unwrap_or_default(),
            options: settings.into_options()?,
        })
    }
}

/// Runs the broker until it is told to stop.
pub fn run(arguments: ServeArguments, format: OutputFormat) -> Result<(), CommandError> {
    let ServeArguments { config, print_config, settings } = arguments;
    let sources = Sources::gather(settings, config, std::env::vars_os())?;
    if print_config {
        check_output()?;
        return settings::print_config(&sources, format);
    }
    // As long as there is one thread: the notices have theirs.
    host::register_memory_barrier();
    let Settings { options, log_level, log_format } = Settings::of(&sources)?;
    let notices = Notices::to_standard_error(&log_level, log_format);
    let levels = notices.levels();
    tell_translations(&sources);
    let announce = |started: &Started| {
        // A reader that has gone away does not stop the broker.
        let _ = match format {
            OutputFormat::Text => print_text(&render(&options, started)),
            OutputFormat::Json => print_text(&to_json(&StartedView::new(&options, started))),
        };
    };
    let keeper = Keeper::new(sources, options.clone(), levels);
    node::run(&options, announce, Box::new(keeper)).map_err(|error| match error {
        NodeError::Options(error) => CommandError::usage(error),
        error => CommandError::failed(error),
    })
}

/// Tells what became of a configuration file for Apache's broker, and of each line that is most likely a slip.
fn tell_translations(sources: &Sources) {
    let Some(config) = sources.config.as_ref().filter(|_| !sources.translations.is_empty()) else { return };
    let (path, tally) = (config.display(), Tally::of(&sources.translations));
    tracing::info!(target: "node", "{path} is for Apache's broker: {tally}; `serve --print-config` tells of each line");
    for translation in sources.translations.iter().filter(|translation| translation.fate == Fate::Unknown) {
        let (line, name) = (translation.line, on_one_line(&translation.name));
        tracing::warn!(target: "node", "{path}, line {line}: neither this broker nor Apache's has a setting `{name}`");
    }
}

/// What is printed for programs: one object, once the broker takes requests.
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
    /// Of the name server for RocketMQ's clients.
    namesrv_address: Option<String>,
    /// Of health and metrics.
    admin_address: Option<String>,
    /// What RocketMQ's clients know this node by; null when their protocol is not spoken.
    broker: Option<String>,
    cluster: Option<String>,
    /// Whether this machine reaches its shards by what `--advertise` tells clients; null without it.
    is_reached: Option<bool>,
    /// Whether TLS is spoken.
    tls: bool,
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
            node_address: started.bound.node.map(|address| address.to_string()),
            http_address: started.bound.http.map(|address| address.to_string()),
            namesrv_address: started.bound.namesrv.map(|address| address.to_string()),
            admin_address: started.bound.admin.map(|address| address.to_string()),
            broker: options.remoting.then(|| started.name.clone()),
            cluster: options.remoting.then(|| options.cluster.clone()),
            is_reached: started.is_reached,
            tls: options.tls_files().is_some(),
            https: options.tls_files().is_some() && started.bound.http.is_some(),
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

/// Where HTTP and RocketMQ's protocol are spoken, and who comes with TLS.
fn render_doors(options: &ServeOptions, started: &Started) -> String {
    let mut text = String::new();
    if let Some(address) = started.bound.http {
        let senders =
            if options.access_keys.is_some() { "signed requests only" } else { "no keys asked for" };
        let scheme = match (options.tls_files(), options.tls_mode) {
            (None, _) => "HTTP",
            (Some(_), Some(TlsMode::Permissive)) => "HTTP and HTTPS",
            (Some(_), _) => "HTTPS",
        };
        text += &format!("  {scheme} listens on {address}  ({senders})\n");
    }
    if options.remoting {
        let (name, cluster) = (&started.name, &options.cluster);
        text += &format!("  RocketMQ's clients know shard S as the broker {name}-S of cluster {cluster}");
        text += &match started.bound.namesrv {
            Some(address) => format!("; its name server listens on {address}\n"),
            None => "; every shard's address is a name server\n".to_owned(),
        };
    }
    if let Some(address) = started.bound.admin {
        text += &format!("  the admin address listens on {address}  (HTTP: console, health, metrics)\n");
    }
    if options.tls_files().is_some() {
        text += match options.tls_mode {
            Some(TlsMode::Enforcing) => "  TLS is asked for at every address\n",
            _ => "  TLS is spoken at every address, and the native protocol without it as well\n",
        };
    }
    text
}

/// What a new directory takes of the disk before any message is there, and soon after.
fn render_room(options: &ServeOptions, started: &Started) -> String {
    let segments = |count: u64| ByteSize(count * started.shards.len() as u64 * options.segment_bytes);
    format!(
        "  the log takes {} from the start on, and {} once half of that is full: a segment of {} for each shard, and the next one \
         (--segment-bytes)\n",
        segments(1),
        segments(2),
        ByteSize(options.segment_bytes)
    )
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
            text += &format!("    an unanswered tail after log position {} was cut off\n", shard.report.end);
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
    if started.is_new {
        text += &render_room(options, started);
    }
    if let Some(address) = started.bound.node {
        text += &format!("  the node listens on {address}\n");
    }
    text += &render_doors(options, started);
    if let (Some(host), Some(true)) = (&options.advertise, started.is_reached) {
        text += &format!("  clients are told {host}, and from this machine every shard is reached there\n");
    }
    text += match &options.access_keys {
        Some(_) => "  every request needs an access key that allows it\n",
        None => "  no access keys are asked for: whoever connects may do everything\n",
    };
    text += &format!("  answers are given when messages are {}", options.level);
    text += match options.level {
        Level::Durable => ": written and flushed\n",
        Level::Written => ": on the device, not flushed; a loss of power may take the newest\n",
        Level::Accepted => ": in memory; the death of the process may take the newest\n",
    };
    let device = &started.device;
    if device.flush_count > 0 {
        text += &format!(
            "  the device writes and flushes 4 KiB in {} us (median of {}), and {} MB/s in groups of 2 MiB\n",
            device.flush_p50.as_micros(),
            device.flush_count,
            device.bytes_per_second / 1_000_000
        );
    }
    for warning in &started.warnings {
        text += &format!("  WARNING: {warning}\n");
    }
    if options.buffered_io {
        text += "  WARNING: --buffered-io goes through the page cache: good for trying things out, not for figures\n";
    }
    text + "ready\n"
}
