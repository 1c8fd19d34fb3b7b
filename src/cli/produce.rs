//! `turbopump produce`: every line of the input is a message.
//!
//! A broker that goes away is waited for, where that is asked for or the input is a file: the producer sends again what was on its
//! way, and the summary says how many lines that were.

mod held;

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

use self::held::Held;
use crate::api::Status;
use crate::cli::calendar;
use crate::cli::error::CommandError;
use crate::cli::fields::{FieldColumns, Fields};
use crate::cli::lines::{LineError, Lines};
use crate::cli::message_line::{LINE_BYTES_MAX, MessageLine};
use crate::cli::output::{OutputFormat, bytes_for_people, check_input, grouped, print};
use crate::cli::progress::Progress;
use crate::cli::quantity::Span;
use crate::cli::server::ServerArguments;
use crate::cli::signals::stop_flag;
use crate::client::{
    BatchOutcome, ClientError, LostBatches, Message, MessageSource, Producer, ProducerOptions,
};
use crate::limits;
use crate::types::{Level, QueueNumber, TopicName};

/// How long a broker that went away is waited for, where the input is a file.
const FILE_RETRY_FOR: Duration = Duration::from_secs(5 * 60);
/// Between attempts at a broker that went away: the first, and the longest.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

const NOTES: &str = "Every line is a message: the bytes between two newlines, whatever they are, without the newline. \
A last line without a newline and empty lines are messages too. Without --queue and --key-field, queues are filled round robin.

Key and tag are taken without a byte order mark at the line's start, a carriage return at its end, and blanks around them. \
A key with blanks in it is several keys, each of which `message find` finds the message by, as it does by all of them.

With --format json a line is a message with all of its parts, as `consume -o json` and the `message` commands print it: \
body or body_base64, key, tag, properties, unique_id, born_time_ms or born_time, queue, and what came with it from RocketMQ's \
clients (stored_body_base64 with body_encoding, committed, born_address, flag, deliveries_before). It goes to the queue that \
it names; --any-queue chooses anew. deliver_at, or deliver_at_ms, delays it. What another broker told of its place there \
(offset, id, store_time_ms and the like) is passed over, but that a line with an offset is a copy, and may have properties \
with any names; a member that is not known is refused.

A broker that goes away is waited for, for --retry-for each time, and what it may or may not have stored is sent again: \
nothing is left out, order within a queue is kept, and the last line says how many may be stored twice.

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
    /// What a line is: a body, or a message with all of its parts in JSON, as `consume -o json` prints it
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: InputFormat,
    /// Send everything to this queue
    #[arg(long, value_name = "N", conflicts_with = "key_field")]
    pub queue: Option<u32>,
    /// Choose a queue by key, or in turn, for messages in JSON that name one as well
    #[arg(long, conflicts_with = "queue")]
    pub any_queue: bool,
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
    /// How long to wait for a broker that goes away or takes nothing, each time; 0: end at once [default: 5m where the input is a
    /// file; else 0, and 30s where it takes nothing]
    #[arg(long, value_name = "DURATION")]
    pub retry_for: Option<Span>,
    /// How safe a message must be before it counts [default: the topic's level]
    #[arg(long, value_name = "durable|written|accepted")]
    pub level: Option<Level>,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum InputFormat {
    /// A body.
    #[default]
    Lines,
    /// A message in JSON.
    Json,
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
    /// Sent again after a lost connection, and so perhaps stored twice.
    may_be_double: u64,
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
    /// Lines that were stored to be delivered later, each before the next line was sent.
    held: Held,
    /// How long a broker that went away is waited for.
    retry_for: Duration,
    /// Since when nothing was acknowledged for the loss of the broker, and how much had been.
    lost: Option<(Instant, u64)>,
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
    arguments.check()?;
    let (input, input_bytes) = open(arguments)?;
    let mut lines = Lines::new(input, arguments.skip);
    if arguments.format == InputFormat::Json {
        lines = lines.of_up_to(LINE_BYTES_MAX);
    }
    let (options, retry_for) = arguments.options(input_bytes.is_some());
    let mut client = arguments.server.connect()?;
    let topic = client.topic_to_produce(&arguments.topic)?;
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
        held: Held::new(topic.id, topic.queue_count),
        retry_for,
        lost: None,
    };
    let outcome = run.send_all(&mut lines);
    run.note_results();
    run.progress.finish();
    let summary = run.summary(&lines);
    print(format, &summary, Summary::render)?;
    outcome.map_err(|stopped| stopped.explained(&summary))
}

impl ProduceArguments {
    /// Whether what is given belongs to the format.
    fn check(&self) -> Result<(), CommandError> {
        let of_lines = self.key_field.is_some() || self.tag_field.is_some() || self.key_delimiter.is_some();
        let (wrong, format) = match self.format {
            InputFormat::Lines if self.any_queue => ("--any-queue is", "json"),
            InputFormat::Json if of_lines => ("--key-field, --tag-field and --key-delimiter are", "lines"),
            InputFormat::Lines | InputFormat::Json => return Ok(()),
        };
        Err(CommandError::usage(format!("{wrong} for --format {format}")))
    }

    /// How messages are sent, and how long a broker that goes away is waited for.
    fn options(&self, is_file: bool) -> (ProducerOptions, Duration) {
        let defaults = ProducerOptions::default();
        let (retry_for, waits_for_lost) = match self.retry_for {
            Some(Span(span)) => (span, span),
            None if is_file => (FILE_RETRY_FOR, FILE_RETRY_FOR),
            None => (defaults.retry_for, Duration::ZERO),
        };
        let options = ProducerOptions {
            level: self.level,
            batch_records: self.batch,
            linger: self.linger.0,
            retry_for,
            lost: if waits_for_lost.is_zero() { LostBatches::Report } else { LostBatches::SendAgain },
            source: match self.format {
                InputFormat::Lines => MessageSource::Own,
                InputFormat::Json => MessageSource::Copies,
            },
            ..defaults
        };
        (options, waits_for_lost)
    }
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
    let doubles = match summary.may_be_double {
        0 => String::new(),
        count => format!("; up to {} may be stored twice in the end", grouped(count)),
    };
    format!(
        "{reason}; {acknowledged} lines are acknowledged: go on with --skip {}{doubles}",
        summary.next_skip
    )
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
                return Err(self.interrupted().into());
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
        self.flush()?;
        self.note_results();
        self.check()?;
        self.check_skipped(lines.skipped())
    }

    /// Told to stop: what was read is still sent.
    fn interrupted(&mut self) -> CommandError {
        self.flush().err().unwrap_or_else(|| CommandError::failed("interrupted"))
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
            LineError::TooLong { line, max } => {
                let what = match self.arguments.format {
                    InputFormat::Lines => "the largest message",
                    InputFormat::Json => "the longest message in JSON",
                };
                self.ended_at(*line, format!("is longer than {max} bytes, {what}"))
            }
            LineError::Read { .. } => match self.flush() {
                Ok(()) => Stopped::Failed(CommandError::failed(error)),
                Err(second) => Stopped::Failed(CommandError::failed(format!("{error}; and {second}"))),
            },
        }
    }

    /// A line cannot be a message. Those before it are sent, and what happens to them is told first.
    fn ended_at(&mut self, number: u64, reason: String) -> Stopped {
        match self.flush().and_then(|()| self.check()) {
            Ok(()) => Stopped::Line { number, reason },
            Err(error) => Stopped::Failed(error),
        }
    }

    fn send(&mut self, number: u64, line: &[u8]) -> Result<(), Stopped> {
        if let Some(rate) = self.arguments.rate {
            self.pace(rate)?;
        }
        let queue = self.arguments.queue.map(QueueNumber);
        if self.arguments.format == InputFormat::Json {
            return self.send_json(number, line, queue);
        }
        let (key, tag) = match self.places.of(line) {
            Ok(found) => found,
            Err(open) => return Err(self.ended_at(number, open.to_string())),
        };
        self.give(number, &Message { key: &key, tag: &tag, body: line, queue, ..Message::default() })?;
        self.without_key += u64::from(self.places.columns.key.is_some() && key.is_empty());
        Ok(())
    }

    /// Sends a message in JSON, to this queue if there is one.
    fn send_json(&mut self, number: u64, line: &[u8], queue: Option<QueueNumber>) -> Result<(), Stopped> {
        let line = match MessageLine::parse(line, calendar::now()) {
            Ok(line) => line,
            Err(fault) => return Err(self.ended_at(number, fault.to_string())),
        };
        let named = line.queue.filter(|_| !self.arguments.any_queue);
        let message = Message { queue: queue.or(named), ..line.message() };
        match line.deliver_at {
            Some(due) => self.hold(number, &message, due),
            None => self.give(number, &message),
        }
    }

    fn give(&mut self, number: u64, message: &Message<'_>) -> Result<(), Stopped> {
        match self.producer.send(message) {
            Ok(()) => Ok(()),
            // The message was taken all the same.
            Err(error) if self.endures(&error) => Ok(self.recover(error)?),
            Err(error) => Err(self.not_taken(number, message, error)),
        }
    }

    /// Whether a broker that was lost is waited for.
    fn endures(&self, error: &ClientError) -> bool {
        !self.retry_for.is_zero() && error.is_connection_loss()
    }

    /// Waits for a broker that was lost, and until everything that was taken has its result.
    fn recover(&mut self, mut error: ClientError) -> Result<(), CommandError> {
        loop {
            self.wait_for_broker(error)?;
            match self.producer.flush() {
                Ok(()) => break,
                Err(next) => error = next,
            }
        }
        self.lost = None;
        Ok(())
    }

    /// A pause after the broker was lost, unless it has been waited for long enough.
    fn wait_for_broker(&mut self, error: ClientError) -> Result<(), CommandError> {
        let acknowledged = self.producer.counters().acknowledged + self.held.count;
        let lost = self.lost.filter(|(_, before)| *before == acknowledged);
        let since = lost.map_or_else(Instant::now, |(since, _)| since);
        let waited = since.elapsed();
        if !self.endures(&error) || waited >= self.retry_for {
            return Err(error.into());
        }
        if lost.is_none() {
            let patience = Span(self.retry_for);
            self.progress.print(&format!("turbopump: {error}; trying again, for up to {patience}"));
        }
        self.lost = Some((since, acknowledged));
        let pause = (waited / 4).clamp(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX).min(self.retry_for - waited);
        let until = Instant::now() + pause;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(CommandError::failed(format!(
                    "interrupted while the broker was waited for: {error}"
                )));
            }
            std::thread::sleep(left.min(RETRY_PAUSE_MIN));
        }
        Ok(())
    }

    /// Sends everything, and waits for all answers.
    fn flush(&mut self) -> Result<(), CommandError> {
        match self.producer.flush() {
            Err(error) if self.endures(&error) => self.recover(error),
            flushed => Ok(flushed?),
        }
    }

    fn poll(&mut self) -> Result<(), CommandError> {
        match self.producer.poll() {
            Err(error) if self.endures(&error) => self.recover(error),
            polled => Ok(polled?),
        }
    }

    /// Why a line was not sent.
    fn not_taken(&mut self, number: u64, message: &Message<'_>, error: ClientError) -> Stopped {
        if let Err(fault) = message.check() {
            return self.ended_at(number, format!("cannot be a message: {fault}"));
        }
        match &error {
            ClientError::Refused(failure) if failure.status == Status::QueueNotExist => {
                match self.arguments.queue {
                    Some(_) => Stopped::Never(error.into()),
                    None => {
                        let topic = &self.arguments.topic;
                        self.ended_at(
                            number,
                            format!(
                                "cannot go where it was: {}; give it as many with `turbopump topic alter {topic} \
                                 --queues N`, or have them chosen anew with --any-queue",
                                failure.message
                            ),
                        )
                    }
                }
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
                return Err(self.interrupted());
            }
            self.poll()?;
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
            self.poll()?;
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
        // Those that are held were stored while no other was on its way.
        let acknowledged = self.producer.acknowledged_prefix() + self.held.count;
        let seconds = self.started.elapsed().as_secs_f64();
        Summary {
            acknowledged,
            skipped: lines.skipped(),
            next_skip: lines.skipped() + acknowledged,
            sent: counters.sent + self.held.count,
            acknowledged_beyond: counters.acknowledged + self.held.count - acknowledged,
            refused: counters.refused,
            unknown: counters.unknown,
            may_be_double: counters.repeated + self.held.repeated,
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
        if self.may_be_double > 0 {
            let doubles = grouped(self.may_be_double);
            text.push_str(&format!(
                ", of which up to {doubles} may be stored twice: they were sent again after a loss"
            ));
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
