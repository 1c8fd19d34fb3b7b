//! What can be generated, and where it goes.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::board;
use crate::cli::error::CommandError;
use crate::cli::output::print_text;

const ALERTS: &str = include_str!("alerts.yaml");
const SCRAPE: &str = include_str!("prometheus.yaml");
/// Where the admin address is by itself.
const TARGET: &str = "127.0.0.1:5557";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  turbopump generate grafana --file turbopump.json       import it in Grafana: Dashboards, New, Import\n  \
turbopump generate prometheus --target broker-1:5557 --target broker-2:5557 > prometheus.yml\n  \
turbopump generate alerts --file turbopump-alerts.yaml"
)]
pub struct GenerateArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A board for Grafana: rates, lag, latencies by stage, disks, cores, memory
    Grafana(Destination),
    /// A scrape configuration for Prometheus
    Prometheus {
        /// Address of a broker's --admin, as Prometheus reaches it; may be given several times
        #[arg(long, value_name = "HOST:PORT", default_value = TARGET, value_parser = target)]
        target: Vec<String>,
        #[command(flatten)]
        destination: Destination,
    },
    /// Alert rules for Prometheus: full disks, shards that do not serve, growing lag, dead letters, slow devices
    Alerts(Destination),
}

#[derive(Debug, Args)]
struct Destination {
    /// Write to this file, which must not be there yet [default: standard output]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Writes what was asked for.
pub fn run(arguments: &GenerateArguments) -> Result<(), CommandError> {
    let (text, destination) = match &arguments.what {
        What::Grafana(destination) => (board::text(), destination),
        What::Prometheus { target, destination } => (scrape_configuration(target), destination),
        What::Alerts(destination) => (ALERTS.to_owned(), destination),
    };
    match &destination.file {
        None => print_text(&text),
        Some(path) => write_new(path, &text).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::AlreadyExists => ": remove it first, or name another file",
                _ => "",
            };
            CommandError::failed(format!("cannot write {}: {error}{hint}", path.display()))
        }),
    }
}

/// What somebody has changed since is not written over.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A place that can stand in a list of YAML as it is.
fn target(text: &str) -> Result<String, String> {
    let (host, port) =
        text.rsplit_once(':').ok_or("it is a host and a port, like broker.example.org:5557")?;
    port.parse::<u16>().map_err(|_| format!("`{port}` is no port"))?;
    let is_allowed = |character: char| character.is_ascii_alphanumeric() || "-._:[]".contains(character);
    if host.is_empty() || !host.chars().all(is_allowed) {
        return Err(format!("`{host}` is no host"));
    }
    Ok(text.to_owned())
}

fn scrape_configuration(targets: &[String]) -> String {
    let list: Vec<_> = targets.iter().map(|target| format!("\"{target}\"")).collect();
    SCRAPE.replace("TARGETS", &list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_places_and_nothing_else() {
        for place in ["broker.example.org:5557", "127.0.0.1:1", "[::1]:5557"] {
            assert!(target(place).is_ok(), "{place}");
        }
        for place in ["broker", "broker:", ":5557", "broker:70000", "a\"b:1", "a b:1", "http://broker:5557"] {
            assert!(target(place).is_err(), "{place}");
        }
        let text = scrape_configuration(&["a:1".into(), "b:2".into()]);
        assert!(text.contains("targets: [\"a:1\", \"b:2\"]\n") && !text.contains("TARGETS"), "{text}");
    }
}
