//! `turbopump consume`: bodies one a line, or JSON objects.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use regex::bytes::Regex;

use crate::api::{Failure, OffsetSpec, Status};
use crate::cli::error::CommandError;
use crate::cli::message_id::MessageIds;
use crate::cli::message_json::write_message;
use crate::cli::offset_argument::{OFFSET_HELP, OffsetArgument, SentOffsetSpec, TimeArgument};
use crate::cli::output::{OutputFormat, grouped, warn, without_controls};
use crate::cli::server::ServerArguments;
use crate::cli::signals::stop_flag;
use crate::cli::template::{Shown, TEMPLATE_HELP, Template};
use crate::client::{
    ClientError, Consumer, ConsumerOptions, DamagedRange, Delivery, MessageBatch, OutOfRange,
    ReceivedMessage, Start, Until,
};
use crate::filter::{Expression, Subject};
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset, TopicName};

const OUTPUT_BYTES: usize = 256 * 1024;
/// How long output is held back in the hope of more: a terminal sees a message this late.
const GATHER: Duration = Duration::from_millis(2);
/// Between looks at the stop flag.
const IDLE: Duration = Duration::from_millis(200);
/// Between commits.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Before a lost broker is tried again with `--follow`.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// Between words of others who consume as the group.
const OTHERS_SAID_AGAIN: Duration = Duration::from_secs(60);

const TERMINAL_HELP: &str = "Bodies are written as they are, and at a terminal with control characters escaped, but for tabs and line \
ends: it would obey whoever wrote them. `turbopump consume TOPIC | cat` shows them unescaped.";

#[derive(Debug, Args)]
#[command(after_help = format!("{OFFSET_HELP}\n\n{TERMINAL_HELP}"))]
#[command(after_long_help = format!("{OFFSET_HELP}\n\n{TEMPLATE_HELP}\n\n{TERMINAL_HELP}"))]
pub struct ConsumeArguments {
    pub topic: TopicName,
    /// Read this queue only
    #[arg(long, value_name = "N")]
    pub queue: Option<u32>,
    /// Read as a member of this group and commit what was printed. With --queue the group's offset is used without joining it
    #[arg(long, value_name = "GROUP")]
    pub group: Option<GroupName>,
    /// Where to start; with --group, where it has not committed anything yet
    #[arg(long, value_name = "OFFSET", default_value = "first", allow_hyphen_values = true)]
    pub from: OffsetArgument,
    /// Print only messages of which this SQL92 expression over properties, KEYS and TAGS is true, like "n > 5 AND TAGS = 'a'"
    #[arg(long, value_name = "EXPRESSION")]
    pub filter_sql: Option<Expression>,
    /// Print only messages in whose body this regular expression is found, like "refund|chargeback"; bodies are bytes, and what is
    /// written (?-u:\xff) is one of them. Says at the end how many were looked at
    #[arg(long, value_name = "REGEX")]
    pub grep: Option<Regex>,
    /// Stop before the first message stored at this time or later: 2024-05-06T07:08:09Z, 2024-05-06, @1700000000000, or -10m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with = "follow")]
    pub until: Option<TimeArgument>,
    /// Print each message as this says, in place of its body and a newline, like '%t %q %o %d %k %T %p %b\n'; --help has the
    /// letters
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<Template>,
    /// Stop after this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Wait for more at the end, until stopped; survives restarts of the broker
    #[arg(long)]
    pub follow: bool,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// One run of the command.
struct Run<'a> {
    arguments: &'a ConsumeArguments,
    format: OutputFormat,
    output: BufWriter<File>,
    /// What is printed is read by a person, and by a terminal that obeys whoever wrote it.
    is_terminal: bool,
    stop: Arc<AtomicBool>,
    /// Messages that may still be printed.
    left: u64,
    /// Messages that --grep was asked of.
    looked_at: u64,
    damaged: u64,
    last_commit: Instant,
    /// This command has had a place in its group.
    has_had_place: bool,
    /// When it was last said that others consume as its group.
    others_said: Option<Instant>,
    /// Of the node that is read from.
    ids: MessageIds,
}

/// Why reading has ended.
enum Ended {
    /// At the end of the queues, or when told to stop.
    Complete,
    /// As a member of a group that has no queue.
    WithoutQueue,
    /// After `--count` messages, in the middle of a batch: the offset to go on from.
    Within(QueueKey, QueueOffset),
}

/// What is to be done about one delivery, once it is no longer borrowed.
enum After {
    Continue,
    /// The group takes queues away: commit first.
    Commit,
    End(Ended),
}

pub fn run(arguments: &ConsumeArguments, format: OutputFormat) -> Result<(), CommandError> {
    if arguments.format.is_some() && format == OutputFormat::Json {
        let message = "--format says what is printed, and so does -o json: leave one of them out";
        return Err(CommandError::usage(message));
    }
    let output = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        // Past the standard library's handle, which looks for a newline in everything it is given.
        .map(|descriptor| BufWriter::with_capacity(OUTPUT_BYTES, File::from(descriptor)))
        .map_err(CommandError::output)?;
    let mut run = Run {
        arguments,
        format,
        output,
        is_terminal: io::stdout().is_terminal(),
        stop: stop_flag()?,
        left: arguments.count.unwrap_or(u64::MAX),
        looked_at: 0,
        damaged: 0,
        last_commit: Instant::now(),
        has_had_place: false,
        others_said: None,
        ids: MessageIds::default(),
    };
    let read = run.read_all(open(arguments)?);
    run.tell_matches();
    read?;
    if run.damaged > 0 {
        return Err(CommandError::failed(format!(
            "{} messages could not be read: their bytes on the broker's disk are damaged or gone; `turbopump log verify` there says where",
            run.damaged
        ))
        .with("damaged", run.damaged));
    }
    Ok(())
}

fn open(arguments: &ConsumeArguments) -> Result<Consumer, CommandError> {
    arguments.from.check_past("--from")?;
    let client = arguments.server.connect()?;
    let start = match arguments.from.sent() {
        SentOffsetSpec::Offset(offset) => Start::Offset(offset),
        SentOffsetSpec::Asked(OffsetSpec::First) => Start::First,
        SentOffsetSpec::Asked(OffsetSpec::Last) => Start::Last,
        SentOffsetSpec::Asked(OffsetSpec::Time(time)) => Start::Time(time),
        SentOffsetSpec::Asked(OffsetSpec::Ago(span)) => Start::Ago(span),
    };
    let options = ConsumerOptions {
        start,
        until: match arguments.until {
            Some(TimeArgument::At(time)) => Until::Time(time),
            Some(TimeArgument::Ago(span)) => Until::Ago(span),
            None if arguments.follow => Until::Forever,
            None => Until::End,
        },
        // Whoever names an offset wants to hear that it is gone.
        out_of_range: if matches!(start, Start::Offset(_)) { OutOfRange::Fail } else { OutOfRange::First },
        ..ConsumerOptions::default()
    };
    let topic = arguments.topic.clone();
    let consumer = match (&arguments.group, arguments.queue) {
        (Some(group), None) => Consumer::subscribe(client, group.clone(), vec![topic], options)?,
        (group, queue) => {
            let queues = queue.map(|queue| vec![QueueNumber(queue)]);
            Consumer::assign(client, topic, queues, group.clone(), options)?
        }
    };
    Ok(consumer)
}

impl Run<'_> {
    /// Prints until the end, commits, and leaves the group whatever has happened: its other members get the queues.
    fn read_all(&mut self, mut consumer: Consumer) -> Result<(), CommandError> {
        let done = match self.read(&mut consumer) {
            Ok(ended) => self.finish(&mut consumer, ended),
            Err(error) => {
                // What was printed counts, as far as the broker is there to hear it.
                if self.output.flush().is_ok() && self.arguments.group.is_some() {
                    let _ = consumer.commit();
                }
                Err(error)
            }
        };
        let left = consumer.close();
        done?;
        left?;
        Ok(())
    }

    /// What was printed has left this process before it is committed.
    fn finish(&mut self, consumer: &mut Consumer, ended: Ended) -> Result<(), CommandError> {
        self.output.flush().map_err(CommandError::output)?;
        if self.arguments.group.is_none() {
            return Ok(());
        }
        if let Ended::Within(key, offset) = ended {
            // The rest of the batch was not printed.
            consumer.seek(key, offset);
        }
        match consumer.commit() {
            Err(ClientError::Refused(failure)) if failure.status.ends_session() => {
                let message = format!("{}: the same command reads on", self.place_lost());
                return Err(CommandError::failed(message).with("status", format!("{:?}", failure.status)));
            }
            committed => committed?,
        }
        if matches!(ended, Ended::WithoutQueue) {
            return Err(self.nothing_left());
        }
        Ok(())
    }

    /// What has become of a member that was not heard of for too long.
    fn place_lost(&self) -> String {
        let group = self.arguments.group.as_ref().map_or("", GroupName::as_str);
        format!(
            "this member lost its place in group {group}, which had heard nothing of it for too long (was it stopped, or its \
             output not read?), and what it printed last is not committed and comes again"
        )
    }

    /// That there is nothing for this member says nothing about the topic.
    fn nothing_left(&self) -> CommandError {
        let topic = &self.arguments.topic;
        CommandError::failed(format!(
            "the other members of the group read all queues of topic {topic}, and none was left for this one: stop one of \
             them, or give the topic more with `turbopump topic alter {topic} --queues N`"
        ))
    }

    fn read(&mut self, consumer: &mut Consumer) -> Result<Ended, CommandError> {
        loop {
            if self.stop.load(Ordering::Relaxed) || self.left == 0 {
                return Ok(Ended::Complete);
            }
            if self.prints_ids() {
                self.ids.follow(consumer.shards());
            }
            let after = match consumer.poll(GATHER) {
                Ok(Some(delivery)) => self.take(delivery)?,
                Ok(None) => {
                    self.output.flush().map_err(CommandError::output)?;
                    match consumer.poll(IDLE) {
                        Ok(Some(delivery)) => self.take(delivery)?,
                        Ok(None) => After::Continue,
                        Err(error) => self.endure(error)?,
                    }
                }
                Err(error) => self.endure(error)?,
            };
            for notice in consumer.take_notices() {
                warn(notice);
            }
            match after {
                After::End(Ended::Complete) if consumer.has_no_queue() => return Ok(Ended::WithoutQueue),
                After::End(ended) => return Ok(ended),
                After::Commit => self.commit(consumer)?,
                After::Continue if self.last_commit.elapsed() >= COMMIT_INTERVAL => self.commit(consumer)?,
                After::Continue => {}
            }
        }
    }

    /// With `--follow` a broker that went away is waited for, and so are others who have come into the group meanwhile.
    fn endure(&mut self, error: ClientError) -> Result<After, CommandError> {
        if let ClientError::Refused(failure) = &error
            && failure.status == Status::TopicNotExist
        {
            return Err(self.topic_gone(failure));
        }
        let is_of_others =
            matches!(&error, ClientError::Refused(failure) if failure.status == Status::GroupHasMembers);
        let may_come_back = error.is_connection_loss() || (is_of_others && self.has_had_place);
        if !self.arguments.follow || !may_come_back {
            return Err(error.into());
        }
        let is_said = is_of_others && self.others_said.is_some_and(|said| said.elapsed() < OTHERS_SAID_AGAIN);
        if !is_said {
            warn(format_args!("{error}; trying again"));
            self.others_said = is_of_others.then(Instant::now);
        }
        self.output.flush().map_err(CommandError::output)?;
        std::thread::sleep(RECONNECT_PAUSE);
        Ok(After::Continue)
    }

    /// The broker knows a deleted topic by its number only. One that was made again is another topic.
    fn topic_gone(&self, failure: &Failure) -> CommandError {
        let topic = &self.arguments.topic;
        CommandError::failed(format!(
            "topic {topic} was deleted while it was read: `turbopump topic list` tells whether there is one of that name \
             again, which this command reads when it is begun anew"
        ))
        .with("status", format!("{:?}", failure.status))
    }

    /// What is committed was printed, and has left this process.
    fn commit(&mut self, consumer: &mut Consumer) -> Result<(), CommandError> {
        self.last_commit = Instant::now();
        if self.arguments.group.is_none() {
            return Ok(());
        }
        self.output.flush().map_err(CommandError::output)?;
        match consumer.commit() {
            Err(ClientError::Refused(failure)) if failure.status.ends_session() => {
                warn(format_args!("{}: joining it again", self.place_lost()));
                Ok(())
            }
            Err(error) => self.endure(error).map(|_| ()),
            Ok(()) => {
                (self.has_had_place, self.others_said) = (true, None);
                Ok(())
            }
        }
    }

    fn take(&mut self, delivery: Delivery<'_>) -> Result<After, CommandError> {
        match delivery {
            Delivery::Messages(batch) => self.print(&batch).map_err(CommandError::output),
            Delivery::Damaged(range) => {
                self.damaged += range.to.0 - range.from.0;
                warn(describe_damage(&range));
                Ok(After::Continue)
            }
            Delivery::Moved { queue, from, to } => {
                warn(format_args!(
                    "queue {} of topic {} no longer has offset {from}, which has passed its retention: going on at {to}",
                    queue.queue, queue.topic
                ));
                Ok(After::Continue)
            }
            Delivery::Rebalanced { .. } => {
                (self.has_had_place, self.others_said) = (true, None);
                Ok(After::Commit)
            }
            Delivery::End => Ok(After::End(Ended::Complete)),
        }
    }

    fn prints_ids(&self) -> bool {
        let format = self.arguments.format.as_ref();
        self.format == OutputFormat::Json || format.is_some_and(Template::has_ids)
    }

    /// Nobody is to take an empty output for an empty topic.
    fn tell_matches(&self) {
        if self.arguments.grep.is_some() {
            let found = self.arguments.count.unwrap_or(u64::MAX) - self.left;
            let (found, looked_at) = (grouped(found), grouped(self.looked_at));
            warn(format_args!("{found} messages match of {looked_at} that were looked at"));
        }
    }

    /// Whether a message is to be printed.
    fn is_wanted(&mut self, message: &ReceivedMessage<'_>) -> bool {
        let subject = Subject { key: message.key(), tag: message.tag(), properties: message.properties() };
        if !self.arguments.filter_sql.as_ref().is_none_or(|wanted| wanted.matches(&subject)) {
            return false;
        }
        let Some(pattern) = &self.arguments.grep else { return true };
        self.looked_at += 1;
        pattern.is_match(message.plain_body().as_deref().unwrap_or(message.body()))
    }

    fn print_as(
        &mut self,
        template: &Template,
        batch: &MessageBatch<'_>,
        message: &ReceivedMessage<'_>,
    ) -> io::Result<()> {
        let shown = if self.is_terminal { Shown::OnTerminal } else { Shown::AsItIs };
        template.write(&mut self.output, batch, message, &self.ids, shown)
    }

    fn print(&mut self, batch: &MessageBatch<'_>) -> io::Result<After> {
        for message in batch.messages() {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(After::End(Ended::Within(batch.key(), message.offset)));
            }
            if !self.is_wanted(&message) {
                continue;
            }
            match (&self.arguments.format, self.format) {
                (Some(template), _) => self.print_as(template, batch, &message)?,
                (None, OutputFormat::Text) => {
                    // One that cannot be read is shown as it is stored; JSON says so.
                    let plain = message.plain_body();
                    let body = plain.as_deref().unwrap_or(message.body());
                    match self.is_terminal {
                        true => {
                            let shown = String::from_utf8_lossy(body);
                            self.output.write_all(without_controls(&shown).as_bytes())?;
                        }
                        false => self.output.write_all(body)?,
                    }
                    self.output.write_all(b"\n")?;
                }
                (None, OutputFormat::Json) => {
                    write_message(&mut self.output, batch.topic(), batch.queue(), &message, &self.ids)?;
                }
            }
            self.left -= 1;
            if self.left == 0 {
                return Ok(After::End(Ended::Within(batch.key(), message.offset.advance(1))));
            }
        }
        Ok(After::Continue)
    }
}

fn describe_damage(range: &DamagedRange) -> String {
    let place = match &range.bytes {
        Some(bytes) => format!("{} at byte {}", bytes.file, bytes.position),
        None => "bytes that were damaged on their way here".to_owned(),
    };
    format!(
        "messages {} to {} of queue {} of topic {} cannot be read: {place}; going on after them",
        range.from, range.to, range.queue.queue, range.queue.topic
    )
}
