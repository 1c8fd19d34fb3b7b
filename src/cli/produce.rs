//! `turbopump produce`: every line of the input is a message.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Serialize;

use crate::api::Status;
use crate::cli::error::CommandError;
use crate::cli::fields::{FieldColumns, Fields};
use crate::cli::lines::{LineError, Lines};
use crate::cli::output::{OutputFormat, bytes_for_people, check_input, grouped, print};
use crate::cli::progress::Progress;
use crate::cli::quantity::Span;
use crate::cli::server::ServerArguments;
use crate::cli::signals::stop_flag;
use crate::client::{BatchOutcome, ClientError, Message, Producer, ProducerOptions};
use crate::limits;
use crate::types::{Level, QueueNumber, TopicName};

const NOTES: &str = "Every line is a message: the bytes between two newlines, whatever they are, without the newline. \
A last line without a newline and empty lines are messages too. Without --queue and --key-field, queues are filled round robin.

Key and tag are taken without a byte order mark at the line's start, a carriage return at its end, and blanks around them. \
A key with blanks in it is several keys, each of which `message find` finds the message by, as it does by all of them.

The last line of output says how many lines were acknowledged, counted from the first line after --skip without a gap. \
When it fails, it exits with 1 and names the --skip that goes on from there without loss; lines that were on the way \
when it failed may be stored already, and are then stored twice. A line that cannot be a message (too long, or with a key \
or tag that cannot be one) is named with its number, and so is the --skip that leaves it out: what --skip leaves out is \
not looked at.";

#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub struct ProduceArguments {
    /// The topic; it must exist
    pub topic: TopicName,
    /// File to read, or - for standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Send everything to this queue
    #[arg(long, value_name = "N", conflicts_with = "key_field")]
    pub queue: Option<u32>,
    /// Field of the line, counted from 1, that is the message's key: one key, one queue
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub key_field: Option<u16>,
    /// Field of the line, counted from 1, that is the message's tag
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub tag_field: Option<u16>,
    /// Character between fields, \t for a tab, which fields in double quotes may have in them, as in CSV; without it a tab, a comma or
    /// a blank ends a field
    #[arg(long, value_name = "C", value_parser = parse_delimiter)]
    pub key_delimiter: Option<u8>,
    /// Lines to leave out at the start
    #[arg(long, value_name = "LINES", default_value_t = 0)]
    pub skip: u64,
    /// Lines per second at most
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Messages in a batch at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::BATCH_RECORDS_MAX)))]
    pub batch: u32,
    /// How long a batch waits to fill up
    #[arg(long, value_name = "DURATION", default_value = "5ms")]
    pub linger: Span,
    /// How safe a message must be before it counts [default: the topic's level]
    #[arg(long, value_name = "durable|written|accepted")]
    pub level: Option<Level>,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// The last line of output.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Summary {
    /// Lines after the skipped ones that are all acknowledged.
    acknowledged: u64,
    skipped: u64,
    /// The `--skip` that goes on without loss.
    next_skip: u64,
    /// Given to the broker, whatever became of them.
    sent: u64,
    /// Acknowledged although an earlier line is not.
    acknowledged_beyond: u64,
    refused: u64,
    unknown: u64,
    /// Lines without the field that is to be their key.
    without_key: u64,
    /// The lowest level that was reached.
    level: Option<&'static str>,
    bytes: u64,
    seconds: f64,
    messages_per_second: f64,
}

/// One run of the command.
struct Run<'a> {
    arguments: &'a ProduceArguments,
    producer: Producer,
    places: Fields,
    progress: Progress,
    stop: Arc<AtomicBool>,
    started: Instant,
    without_key: u64,
    level: Option<Level>,
}

/// Why sending ended before the input did.
enum Stopped {
    /// The same command goes on once the reason is gone.
    Failed(CommandError),
    /// This line cannot be a message, whoever sends it again; those before it were sent.
    Line { number: u64, reason: String },
    /// Nothing of this input can be sent.
    Never(CommandError),
}

pub fn run(arguments: &ProduceArguments, format: OutputFormat) -> Result<(), CommandError> {
    let (input, input_bytes) = open(arguments)?;
    let mut lines = Lines::new(input, arguments.skip);
    let options = ProducerOptions {
        level: arguments.level,
        batch_records: arguments.batch,
        linger: arguments.linger.0,
        ..ProducerOptions::default()
    };
    let client = arguments.server.connect()?;
    let mut producer = Producer::new(client, arguments.topic.clone(), options)?;
    let progress = Progress::new(input_bytes);
    let (teller, patience) = (progress.clone(), Span(options.retry_for));
    producer.tell_delays(move |failure| {
        let reason = &failure.message;
        teller.print(&format!("turbopump: waiting for the broker, for up to {patience} in all: {reason}"));
    });
    let mut run = Run {
        arguments,
        producer,
        places: Fields::new(FieldColumns {
            delimiter: arguments.key_delimiter,
            key: arguments.key_field.map(usize::from),
            tag: arguments.tag_field.map(usize::from),
        }),
        progress,
        stop: stop_flag()?,
        started: Instant::now(),
        without_key: 0,
        level: None,
    };
    let outcome = run.send_all(&mut lines);
    run.note_results();
    run.progress.finish();
    let summary = run.summary(&lines);
    print(format, &summary, Summary::render)?;
    outcome.map_err(|stopped| stopped.explained(&summary))
}

impl Stopped {
    /// The error with how to go on, where that is possible.
    fn explained(self, summary: &Summary) -> CommandError {
        let (message, next_skip) = match self {
            Stopped::Never(error) => return error,
            // Nothing between what is acknowledged and the line: it is all that stands in the way.
            Stopped::Line { number, reason } if summary.next_skip + 1 == number => (
                format!(
                    "line {number} {reason}; {} lines are acknowledged: --skip {number} leaves it out and goes on after it",
                    grouped(summary.acknowledged)
                ),
                number,
            ),
            Stopped::Line { number, reason } => {
                (going_on(&format!("line {number} {reason}"), summary), summary.next_skip)
            }
            Stopped::Failed(error) => (going_on(&error.to_string(), summary), summary.next_skip),
        };
        CommandError::failed(message)
            .with("acknowledged", summary.acknowledged)
            .with("skipped", summary.skipped)
            .with("next_skip", next_skip)
    }
}

fn going_on(reason: &str, summary: &Summary) -> String {
    let acknowledged = grouped(summary.acknowledged);
    format!("{reason}; {acknowledged} lines are acknowledged: go on with --skip {}", summary.next_skip)
}

impl From<CommandError> for Stopped {
    fn from(error: CommandError) -> Self {
        Stopped::Failed(error)
    }
}

impl From<ClientError> for Stopped {
    fn from(error: ClientError) -> Self {
        Stopped::Failed(error.into())
    }
}

/// The input, and its length when it has one.
fn open(arguments: &ProduceArguments) -> Result<(File, Option<u64>), CommandError> {
    let is_standard_input = arguments.file.as_os_str() == "-";
    let file = if is_standard_input {
        check_input()?;
        // The descriptor itself: the standard library's handle would copy everything through a small buffer.
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(&arguments.file)
    };
    let file = file.map_err(|error| {
        CommandError::failed(format!("cannot read {}: {error}", arguments.file.display()))
    })?;
    let metadata = file.metadata().ok();
    if metadata.as_ref().is_some_and(std::fs::Metadata::is_dir) {
        let what = if is_standard_input {
            "standard input".to_owned()
        } else {
            arguments.file.display().to_string()
        };
        return Err(CommandError::failed(format!("cannot read {what}: it is a directory; nothing was sent")));
    }
    let bytes = metadata.filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    Ok((file, bytes))
}

impl Run<'_> {
    /// Sends every line and waits for all answers.
    fn send_all(&mut self, lines: &mut Lines<File>) -> Result<(), Stopped> {
        while !lines.has_ended() {
            if self.stop.load(Ordering::Relaxed) {
                self.producer.flush()?;
                return Err(CommandError::failed("interrupted").into());
            }
            if !self.wait_for_input(lines.source())? {
                continue;
            }
            let read = lines.fill();
            read.map_err(|error| self.ended_by(&error))?;
            loop {
                let number = lines.number().max(self.arguments.skip) + 1;
                match lines.buffered_line() {
                    Ok(Some(line)) => self.send(number, line)?,
                    Ok(None) => break,
                    Err(error) => return Err(self.ended_by(&error)),
                }
            }
            self.note_results();
            self.check()?;
            self.progress.show(lines.bytes(), self.producer.counters().acknowledged);
        }
        self.producer.flush()?;
        self.note_results();
        self.check()?;
        self.check_skipped(lines.skipped())
    }

    /// An input with fewer lines is another one than that which `--skip` was counted in: nothing was sent of it.
    fn check_skipped(&self, skipped: u64) -> Result<(), Stopped> {
        let skip = self.arguments.skip;
        if skipped == skip {
            return Ok(());
        }
        let message = format!(
            "nothing was sent: --skip {skip} leaves out more than the {} lines that the input has; is it the same input?",
            grouped(skipped)
        );
        Err(Stopped::Never(CommandError::failed(message).with("lines", skipped)))
    }

    /// The input has come to an error: what came before it is still sent.
    fn ended_by(&mut self, error: &LineError) -> Stopped {
        match error {
            LineError::TooLong { line } => {
                let reason = format!("is longer than {} bytes, the largest message", limits::BODY_BYTES_MAX);
                self.ended_at(*line, reason)
            }
            LineError::Read { .. } => match self.producer.flush() {
                Ok(()) => Stopped::Failed(CommandError::failed(error)),
                Err(second) => Stopped::Failed(CommandError::failed(format!("{error}; and {second}"))),
            },
        }
    }

    /// A line cannot be a message. Those before it are sent, and what happens to them is told first.
    fn ended_at(&mut self, number: u64, reason: String) -> Stopped {
        match self.producer.flush().map_err(CommandError::from).and_then(|()| self.check()) {
            Ok(()) => Stopped::Line { number, reason },
            Err(error) => Stopped::Failed(error),
        }
    }

    fn send(&mut self, number: u64, line: &[u8]) -> Result<(), Stopped> {
        if let Some(rate) = self.arguments.rate {
            self.pace(rate)?;
        }
        let (key, tag) = match self.places.of(line) {
            Ok(found) => found,
            Err(open) => return Err(self.ended_at(number, open.to_string())),
        };
        let queue = self.arguments.queue.map(QueueNumber);
        let message = Message { key: &key, tag: &tag, body: line, queue, ..Message::default() };
        if let Err(error) = self.producer.send(&message) {
            return Err(self.not_taken(number, &message, error));
        }
        self.without_key += u64::from(self.places.columns.key.is_some() && key.is_empty());
        Ok(())
    }

    /// Why a line was not sent.
    fn not_taken(&mut self, number: u64, message: &Message<'_>, error: ClientError) -> Stopped {
        if let Err(fault) = message.check() {
            return self.ended_at(number, format!("cannot be a message: {fault}"));
        }
        match &error {
            ClientError::Refused(failure) if failure.status == Status::QueueNotExist => {
                Stopped::Never(error.into())
            }
            _ => Stopped::Failed(error.into()),
        }
    }

    /// Waits until the next line is due.
    fn pace(&mut self, rate: u64) -> Result<(), CommandError> {
        let nanoseconds = u128::from(self.producer.counters().sent) * 1_000_000_000 / u128::from(rate);
        let due = self.started + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            if self.stop.load(Ordering::Relaxed) {
                self.producer.flush()?;
                return Err(CommandError::failed("interrupted"));
            }
            self.producer.poll()?;
            std::thread::sleep(wait.min(Duration::from_millis(1)));
        }
        Ok(())
    }

    /// Sends what has lingered while the input has nothing, for example when somebody types it. Whether it has.
    fn wait_for_input(&mut self, input: &File) -> Result<bool, CommandError> {
        let timeout = match self.producer.next_deadline() {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            None if self.producer.is_idle() => Duration::from_secs(1),
            // Answers are read too.
            None => Duration::from_millis(5),
        };
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut descriptors = [PollFd::new(input, PollFlags::IN)];
        // An error of poll shows again when the input is read.
        let ready = rustix::event::poll(&mut descriptors, Some(&timeout)).unwrap_or(1) > 0;
        if !ready {
            self.producer.poll()?;
        }
        Ok(ready && !self.stop.load(Ordering::Relaxed))
    }

    /// Stops at the first batch that is not stored, or may not be.
    fn check(&self) -> Result<(), CommandError> {
        match self.producer.first_failure().map(|result| &result.outcome) {
            None | Some(BatchOutcome::Acknowledged { .. }) => Ok(()),
            Some(BatchOutcome::Refused(failure)) => Err(CommandError::failed(&failure.message)),
            Some(BatchOutcome::Unknown(reason)) => Err(CommandError::failed(reason)),
        }
    }

    fn note_results(&mut self) {
        while let Some(result) = self.producer.take_result() {
            if let BatchOutcome::Acknowledged { level, .. } = result.outcome {
                self.level = Some(self.level.map_or(level, |lowest| lowest.min(level)));
            }
        }
        for notice in self.producer.take_notices() {
            self.progress.print(&format!("turbopump: {notice}"));
        }
    }

    fn summary(&self, lines: &Lines<File>) -> Summary {
        let counters = self.producer.counters();
        let acknowledged = self.producer.acknowledged_prefix();
        let seconds = self.started.elapsed().as_secs_f64();
        Summary {
            acknowledged,
            skipped: lines.skipped(),
            next_skip: lines.skipped() + acknowledged,
            sent: counters.sent,
            acknowledged_beyond: counters.acknowledged - acknowledged,
            refused: counters.refused,
            unknown: counters.unknown,
            without_key: self.without_key,
            level: self.level.map(Level::name),
            bytes: lines.bytes(),
            seconds: (seconds * 1e6).round() / 1e6,
            messages_per_second: (acknowledged as f64 / seconds.max(1e-9)).round(),
        }
    }
}

impl Summary {
    fn render(&self) -> String {
        let mut text = format!(
            "{} lines acknowledged{} in {:.2} s",
            grouped(self.acknowledged),
            self.level.map_or_else(String::new, |level| format!(" ({level})")),
            self.seconds,
        );
        // The bytes are those of the input: they are a rate of what was stored only where all of it was.
        if self.acknowledged > 0 && self.acknowledged == self.sent {
            text.push_str(&format!(
                ": {} lines/s, {}/s",
                grouped(self.messages_per_second as u64),
                bytes_for_people(self.bytes as f64 / self.seconds.max(1e-9))
            ));
        }
        if self.skipped > 0 {
            text.push_str(&format!(", {} skipped", grouped(self.skipped)));
        }
        if self.without_key > 0 {
            text.push_str(&format!(", {} without a key", grouped(self.without_key)));
        }
        text
    }
}

/// One byte, or `\t`.
fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        &[byte] => Ok(byte),
        _ => Err("a delimiter is one character, or \\t for a tab".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delimiter_is_one_byte() {
        assert_eq!(parse_delimiter("\\t"), Ok(b'\t'));
        assert_eq!(parse_delimiter(","), Ok(b','));
        assert!(parse_delimiter("").is_err());
        assert!(parse_delimiter("ab").is_err());
    }
}
