//! What `turbopump bench` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::bench::message::HEAD_BYTES;
use crate::cli::error::CommandError;
use crate::cli::quantity::{ByteSize, CoreList, Span};
use crate::cli::server::ServerArguments;
use crate::limits;
use crate::types::{Level, TopicName};

#[derive(Debug, Args)]
pub struct BenchArguments {
    #[command(subcommand)]
    pub command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Send batches and time their acknowledgement
    Produce(LoadArguments),
    /// Read what is there, again and again, and time each fetch
    Consume(LoadArguments),
    /// Send and receive in one process and time each message from when it was due to when it arrived
    EndToEnd(LoadArguments),
}

/// How the broker is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// This broker's own
    #[default]
    Native,
    /// RocketMQ's: --server names any broker of it, or a name server
    Remoting,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Produce,
    Consume,
    EndToEnd,
}

const NOTES: &str = "produce and end-to-end make the topic, or go on with one that they made before. In any other that exists \
they write only with --existing.

Without --rate the loop is closed: each connection keeps --in-flight batches on the way, which \
shows the throughput; its latencies depend on that window. With --rate the loop is open: batches are due on a fixed \
schedule, latency counts from when a batch was due, and a run that could not keep up says `overloaded`.

Every message carries a sequence number and a checksum. A run with lost, duplicated, disordered or damaged messages, or \
with requests that failed, ends with exit code 1.

With --protocol remoting messages are sent as RocketMQ's clients send them: --batch 1 as single ones (code 310), more as \
batches (320), each with an id of its own. The topic is found by its route, from a name server or a broker of turbopump; \
a broker that tells no routes, as Apache's, is taken for the only one. A topic that is not there is made by the first \
message, with up to --queues queues on each broker. Messages are not read back, and --level is the broker's. consume pulls \
from each queue as push consumers do (code 11): one pull of --pull-messages at a time, all queues of a connection at once.

TLS is not measured: --tls, --tls-ca and --tls-server-name are refused, and so are the variables that stand for them.

bytes_per_second counts bodies; stored_bytes_per_second counts batches as they are stored and sent. With --baseline, \
device_share and loopback_share are the latter over the raw rates: the device's is write + fdatasync of groups of the \
size that the broker flushed in this run (for consume: sequential direct reads), the loopback's is plain TCP between \
the broker's core and the bench's. Both are measured before and after the run, and the mean is taken.

A disk that stops for a moment stops every message on its way. So stretches in which a write or a flush took 50 ms or longer \
are counted: disk_stalls as the broker saw them, device_stalls_before_after on the raw device. To compare them, have \
--baseline-duration as long as half the run.";

#[derive(Clone, Debug, Args)]
#[command(after_long_help = NOTES)]
pub struct LoadArguments {
    pub topic: TopicName,
    /// How to speak to the broker
    #[arg(long, value_enum, default_value_t)]
    pub protocol: Protocol,
    /// Process of the broker, to count its processor time; with --protocol remoting, where brokers do not tell it
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Bytes of each message's body
    #[arg(long, value_name = "SIZE", default_value = "100")]
    pub body: ByteSize,
    /// Messages in each batch
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub batch: u32,
    /// Connections in each direction; at least one per shard is used
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub connections: usize,
    /// Batches on the way per connection [default: 8; with --rate 1024]
    #[arg(long, value_name = "N")]
    pub in_flight: Option<usize>,
    /// Messages per second over all connections; without it as many as possible
    #[arg(long, value_name = "R")]
    pub rate: Option<u64>,
    /// How long the measured part lasts
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub duration: Span,
    /// The same load before the measured part, not counted
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub warmup: Span,
    /// Level to ask for [default: the topic's]
    #[arg(long, value_name = "durable|written|accepted")]
    pub level: Option<Level>,
    /// Write into the topic although bench has not made it: its readers get millions of messages that mean nothing
    #[arg(long)]
    pub existing: bool,
    /// Queues of the topic if it has to be created
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub queues: u32,
    /// Threads of the load generator [default: one per core in --pin, else 1]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Cores to pin the generator's threads to, like 1 or 2,3
    #[arg(long, value_name = "LIST")]
    pub pin: Option<CoreList>,
    /// Number that the messages' contents derive from [default: the time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// After producing, read everything back and check it (end-to-end always does)
    #[arg(long)]
    pub verify: bool,
    /// Bytes that each fetch asks for
    #[arg(long, value_name = "SIZE", default_value = "512KiB")]
    pub fetch_bytes: ByteSize,
    /// Messages that each pull asks for, with --protocol remoting
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub pull_messages: u32,
    /// Have the broker count its system calls during the run, which costs it a little
    #[arg(long)]
    pub count_syscalls: bool,
    /// Measure the raw device and raw loopback before and after, and print the shares of them
    #[arg(long)]
    pub baseline: bool,
    /// Directory for the baseline's file; it must be on the broker's device
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub baseline_dir: PathBuf,
    /// How long the raw device is measured before, and again after
    #[arg(long, value_name = "DURATION", default_value = "1500ms")]
    pub baseline_duration: Span,
    /// Write the latency distribution in HdrHistogram's text form
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Draw latency and throughput as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    pub server: ServerArguments,
}

impl BenchCommand {
    pub fn split(self) -> (Kind, LoadArguments) {
        match self {
            BenchCommand::Produce(arguments) => (Kind::Produce, arguments),
            BenchCommand::Consume(arguments) => (Kind::Consume, arguments),
            BenchCommand::EndToEnd(arguments) => (Kind::EndToEnd, arguments),
        }
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Produce => "produce",
            Kind::Consume => "consume",
            Kind::EndToEnd => "end-to-end",
        }
    }
}

impl LoadArguments {
    pub fn in_flight(&self) -> usize {
        self.in_flight.unwrap_or(if self.rate.is_some() { 1024 } else { 8 })
    }

    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| self.pin.as_ref().map_or(1, |cores| cores.0.len()))
    }

    /// Whether the values make sense together.
    pub fn check(&self, kind: Kind) -> Result<(), CommandError> {
        let refuse = |message: String| Err(CommandError::usage(message));
        let (head, largest) = (HEAD_BYTES as u64, limits::BODY_BYTES_MAX as u64);
        if !(head..=largest).contains(&self.body.0) {
            return refuse(format!(
                "--body is {head} to {largest}: sequence and checksum alone take {head} bytes"
            ));
        }
        let shape = self.shape();
        if !(1..=limits::BATCH_RECORDS_MAX).contains(&self.batch)
            || shape.batch_bytes() > limits::BATCH_BYTES_MAX
        {
            return refuse(format!(
                "--batch {} of --body {} does not fit: a batch holds 1 to {} messages and at most {} bytes",
                self.batch,
                self.body,
                limits::BATCH_RECORDS_MAX,
                limits::BATCH_BYTES_MAX
            ));
        }
        for (name, value) in [
            ("--connections", self.connections),
            ("--in-flight", self.in_flight()),
            ("--threads", self.threads()),
        ] {
            if !(1..=100_000).contains(&value) {
                return refuse(format!("{name} is 1 to 100000, not {value}"));
            }
        }
        if self.pull_messages == 0 {
            return refuse("--pull-messages is at least 1".to_owned());
        }
        self.check_protocol(kind)?;
        if self.rate == Some(0) || self.duration.0.is_zero() {
            return refuse("--rate and --duration must be more than zero".to_owned());
        }
        if self.fetch_bytes.0 == 0 || self.fetch_bytes.0 > limits::FETCH_BYTES_MAX as u64 {
            return refuse(format!("--fetch-bytes is 1 to {}", limits::FETCH_BYTES_MAX));
        }
        if kind == Kind::Consume && (self.rate.is_some() || self.verify) {
            return refuse(
                "--rate and --verify go with producing: consume reads as fast as it can and checks all"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Whether the broker can be asked for all of it in the protocol.
    fn check_protocol(&self, kind: Kind) -> Result<(), CommandError> {
        let native_only = [
            ("end-to-end", kind == Kind::EndToEnd),
            ("--level", self.level.is_some()),
            ("--verify", self.verify),
            ("--count-syscalls", self.count_syscalls),
            ("--baseline", self.baseline),
            ("--access-key", self.server.key.access_key.as_ref().is_some_and(|key| !key.is_empty())),
        ];
        match (self.protocol, self.server_pid, native_only.iter().find(|(_, is_asked)| *is_asked)) {
            (Protocol::Remoting, _, Some((name, _))) => {
                Err(CommandError::usage(format!("{name} is not there with --protocol remoting")))
            }
            (Protocol::Native, Some(_), _) => Err(CommandError::usage(
                "--server-pid goes with --protocol remoting: a broker of turbopump tells its processor time itself",
            )),
            _ => Ok(()),
        }
    }

    /// Sizes of the batches to send. The values have been checked, or are being.
    pub fn shape(&self) -> crate::cli::bench::batch_frame::BatchShape {
        let body_bytes = self.body.0.min(limits::BODY_BYTES_MAX as u64) as usize;
        crate::cli::bench::batch_frame::BatchShape { body_bytes, batch_messages: self.batch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: BenchCommand,
    }

    fn check(line: &str) -> Result<(Kind, LoadArguments), String> {
        let line = Line::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        let (kind, arguments) = line.command.split();
        arguments.check(kind).map_err(|error| error.to_string())?;
        Ok((kind, arguments))
    }

    #[test]
    fn defaults_are_the_canonical_workload() {
        let (kind, arguments) = check("bench end-to-end t").expect("valid");
        assert_eq!(kind, Kind::EndToEnd);
        assert_eq!(arguments.shape().batch_bytes(), 88 + 500 * 124);
        assert_eq!((arguments.connections, arguments.in_flight(), arguments.threads()), (4, 8, 1));
        let (_, arguments) = check("bench produce t --rate 1000 --pin 2,3").expect("valid");
        assert_eq!((arguments.in_flight(), arguments.threads()), (1024, 2), "an open loop needs room");
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        let cases = [
            ("bench produce t --body 31", "--body"),
            ("bench produce t --body 5MiB", "--body"),
            ("bench produce t --batch 0", "--batch"),
            ("bench produce t --batch 65537 --body 32", "--batch"),
            ("bench produce t --batch 5000 --body 1KiB", "--batch"),
            ("bench produce t --connections 0", "--connections"),
            ("bench produce t --in-flight 0", "--in-flight"),
            ("bench produce t --rate 0", "--rate"),
            ("bench produce t --duration 0s", "--duration"),
            ("bench consume t --rate 10", "--rate"),
            ("bench consume t --fetch-bytes 0", "--fetch-bytes"),
            ("bench produce t --protocol remoting --level durable", "--level"),
            ("bench produce t --protocol remoting --verify", "--verify"),
            ("bench end-to-end t --protocol remoting", "end-to-end"),
            ("bench produce t --server-pid 1", "--server-pid"),
            ("bench consume t --protocol remoting --pull-messages 0", "--pull-messages"),
        ];
        for (line, name) in cases {
            let error = check(line).map(|_| ()).expect_err(line);
            assert!(error.contains(name), "{line}: {error}");
        }
    }
}
