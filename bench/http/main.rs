//! What the HTTP endpoint does, beside a bare hyper server that answers the same bytes, in the same run.
//!
//! `cargo bench --bench http -- publish --server 127.0.0.1:8080 --topic t`; `perf/measure.sh DIR http` runs all of it
//! against a broker on core 0, with this on core 1. Each command prints one JSON object. The topic must exist. Requests
//! carry no signature, so the broker must be one that asks for none.

mod bare;
mod connection;
mod delay;
mod receiving;
mod report;
mod requests;
mod sending;
mod workers;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// What every command needs.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// HTTP address of the broker
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub server: std::net::SocketAddr,
    #[arg(long)]
    pub topic: String,
    /// Connections; each has one request on the way
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Core of this load generator
    #[arg(long)]
    pub pin: Option<usize>,
}

#[derive(Debug, Parser)]
#[command(about = "Loads the HTTP endpoint of a broker and a bare hyper server in turns")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What cargo passes to every bench
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish as fast as answers come, in turns with a bare hyper server on the broker's core
    Publish {
        #[command(flatten)]
        target: Target,
        /// Bytes of each message's body
        #[arg(long, default_value_t = 256)]
        body: usize,
        /// Seconds of each turn
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Core of the bare server: the broker's
        #[arg(long)]
        bare_core: Option<usize>,
    },
    /// Publish with one request on the way, in turns with a raw 4 KiB write and flush in DIR
    Single {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 256)]
        body: usize,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// A directory on the broker's device
        #[arg(long)]
        directory: PathBuf,
    },
    /// Store COUNT messages, to be delivered SECONDS from now if that is said
    Fill {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 256)]
        body: usize,
        #[arg(long)]
        count: u64,
        #[arg(long)]
        delay_seconds: Option<u64>,
    },
    /// Receive 16 at a time and acknowledge them, until nothing comes
    Receive {
        #[command(flatten)]
        target: Target,
        #[arg(long)]
        group: String,
        /// Leave the messages leased
        #[arg(long)]
        keep: bool,
        /// Seconds after which it ends although more comes
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Publish delayed messages, and say how late each arrives at a waiting receiver
    Delay {
        #[command(flatten)]
        target: Target,
        #[arg(long)]
        group: String,
        #[arg(long, default_value_t = 2000)]
        count: u64,
        /// Milliseconds between two delivery times
        #[arg(long, default_value_t = 5)]
        spacing: u64,
    },
}

fn main() -> std::io::Result<()> {
    match Arguments::parse().command {
        Command::Publish { target, body, seconds, rounds, bare_core } => {
            sending::publish(&target, body, seconds, rounds, bare_core)
        }
        Command::Single { target, body, rounds, directory } => {
            sending::single(&target, body, rounds, &directory)
        }
        Command::Fill { target, body, count, delay_seconds } => {
            sending::fill(&target, body, count, delay_seconds)
        }
        Command::Receive { target, group, keep, seconds } => {
            receiving::receive(&target, &group, keep, seconds)
        }
        Command::Delay { target, group, count, spacing } => delay::delay(&target, &group, count, spacing),
    }
}
