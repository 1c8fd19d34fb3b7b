//! `dlq redrive`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::OfGroupArguments;
use super::reading::{DeadLetter, Next, each_dead_letter, none_selected};
use crate::api::{Redrive, Redriven};
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, grouped, print};
use crate::cli::signals::stop_flag;
use crate::client::Client;
use crate::limits::REDRIVE_MESSAGES_MAX;
use crate::types::{GroupName, QueueNumber, QueueOffset, TopicName};

/// With a rate, requests are made this often.
const REQUESTS_A_SECOND: u32 = 20;
/// Between looks at the stop flag.
const PAUSE_MAX: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub struct RedriveArguments {
    #[command(flatten)]
    pub of: OfGroupArguments,
    /// The topic that gets them [default: the one that each was sent to first]
    #[arg(long, value_name = "TOPIC")]
    pub to: Option<TopicName>,
    /// Messages a second [default: as fast as they are stored]
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    pub rate: Option<NonZeroU32>,
    /// Only say how many would go where
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Serialize)]
struct RedriveView {
    group: String,
    dry_run: bool,
    redriven: u64,
    topics: Vec<TopicView>,
    before: u64,
    gone: u64,
    without_topic: u64,
}

#[derive(Serialize)]
struct TopicView {
    topic: String,
    messages: u64,
}

/// One run of the command.
struct Run<'a> {
    arguments: &'a RedriveArguments,
    group: GroupName,
    client: Client,
    stop: Arc<AtomicBool>,
    begun: Instant,
    /// Read and not sent yet: of one queue, by the topic that gets them.
    waiting: BTreeMap<TopicName, Vec<QueueOffset>>,
    queue: QueueNumber,
    /// Whether there was any.
    is_any: bool,
    sent: u64,
    moved: BTreeMap<TopicName, u64>,
    before: u64,
    gone: u64,
    without_topic: u64,
}

pub fn run(arguments: &RedriveArguments, format: OutputFormat) -> Result<(), CommandError> {
    let client = arguments.of.server.connect()?;
    let mut run = Run {
        arguments,
        group: arguments.of.instance.group(&arguments.of.group)?,
        client: client.another()?,
        stop: stop_flag()?,
        begun: Instant::now(),
        waiting: BTreeMap::new(),
        queue: QueueNumber(0),
        is_any: false,
        sent: 0,
        moved: BTreeMap::new(),
        before: 0,
        gone: 0,
        without_topic: 0,
    };
    let group = run.group.clone();
    let read = each_dead_letter(client, &group, &arguments.of.selection, |letter| run.take(letter));
    let done = read.and_then(|()| run.send_all());
    let view = run.view();
    match done {
        Ok(()) if run.is_stopped() => {
            print(format, &view, RedriveView::render)?;
            Err(run.interrupted("stopped by a signal"))
        }
        Ok(()) if !run.is_any => {
            if format == OutputFormat::Json {
                print(format, &view, RedriveView::render)?;
            }
            Err(none_selected(&group))
        }
        Ok(()) => {
            print(format, &view, RedriveView::render)?;
            match view.without_topic {
                0 => Ok(()),
                count => {
                    let verb = if count == 1 { "does" } else { "do" };
                    let letters = letters(count);
                    let message =
                        format!("{letters} {verb} not say where they came from: name a topic with --to");
                    Err(CommandError::failed(message).with("without_topic", count))
                }
            }
        }
        Err(CommandError::Failed { message, details }) => {
            let error = run.interrupted(&message);
            Err(details.into_iter().fold(error, |error, (name, value)| error.with(&name, value)))
        }
        Err(error) => Err(error),
    }
}

impl Run<'_> {
    fn take(&mut self, letter: &DeadLetter<'_>) -> Result<Next, CommandError> {
        if self.is_stopped() {
            return Ok(Next::Enough);
        }
        self.is_any = true;
        let from = || letter.topic().and_then(|topic| topic.parse().ok());
        let Some(to) = self.arguments.to.clone().or_else(from) else {
            self.without_topic += 1;
            return Ok(Next::More);
        };
        if self.arguments.dry_run {
            if !self.moved.contains_key(&to) {
                self.check_target(&to, letter.queue)?;
            }
            *self.moved.entry(to).or_default() += 1;
            return Ok(Next::More);
        }
        if letter.queue != self.queue {
            self.send_all()?;
            self.queue = letter.queue;
        }
        let waiting = self.waiting.entry(to.clone()).or_default();
        waiting.push(letter.message.offset);
        if waiting.len() >= self.arguments.at_once() {
            let offsets = std::mem::take(waiting);
            self.send(to, offsets)?;
        }
        Ok(Next::More)
    }

    /// Fails as a redrive to this topic would.
    fn check_target(&mut self, to: &TopicName, queue: QueueNumber) -> Result<(), CommandError> {
        let nothing = Redrive { group: self.group.clone(), queue, offsets: Vec::new(), to: to.clone() };
        self.client.redrive(nothing)?;
        Ok(())
    }

    fn send_all(&mut self) -> Result<(), CommandError> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut waiting = waiting.into_iter().filter(|(_, offsets)| !offsets.is_empty());
        waiting.try_for_each(|(to, offsets)| self.send(to, offsets))
    }

    /// Sends dead letters of a queue to a topic, when their time has come.
    fn send(&mut self, to: TopicName, mut offsets: Vec<QueueOffset>) -> Result<(), CommandError> {
        self.keep_to_rate();
        while !offsets.is_empty() && !self.is_stopped() {
            let (group, queue) = (self.group.clone(), self.queue);
            let redrive = Redrive { group, queue, offsets: offsets.clone(), to: to.clone() };
            let report = self.client.redrive(redrive)?;
            for outcome in &report.outcomes {
                match outcome {
                    Redriven::Moved { .. } => *self.moved.entry(to.clone()).or_default() += 1,
                    Redriven::Before => self.before += 1,
                    Redriven::Gone => self.gone += 1,
                }
            }
            self.sent += report.outcomes.len() as u64;
            if let Some(failure) = report.stopped {
                return Err(crate::client::ClientError::from(failure).into());
            }
            // A broker that does less than it was asked for, and does not say why, would keep us for ever.
            if report.outcomes.is_empty() {
                return Err(CommandError::failed("the broker does not redrive, and does not say why"));
            }
            offsets.drain(..report.outcomes.len());
        }
        Ok(())
    }

    fn keep_to_rate(&self) {
        let Some(rate) = self.arguments.rate else { return };
        let due = self.begun + Duration::from_secs_f64(self.sent as f64 / f64::from(rate.get()));
        while !self.is_stopped() {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(PAUSE_MAX));
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn view(&self) -> RedriveView {
        let topics = self.moved.iter();
        RedriveView {
            group: self.group.to_string(),
            dry_run: self.arguments.dry_run,
            redriven: if self.arguments.dry_run { 0 } else { self.moved.values().sum() },
            topics: topics
                .map(|(topic, &messages)| TopicView { topic: topic.to_string(), messages })
                .collect(),
            before: self.before,
            gone: self.gone,
            without_topic: self.without_topic,
        }
    }

    fn interrupted(&self, why: &str) -> CommandError {
        if self.arguments.dry_run {
            return CommandError::failed(format!("{why}; nothing was done: this was a dry run"));
        }
        let moved: u64 = self.moved.values().sum();
        CommandError::failed(format!(
            "{why}; {} redriven before that, and the same command goes on with the rest",
            letters(moved)
        ))
        .with("redriven", moved)
    }
}

impl RedriveArguments {
    /// Messages of one request.
    fn at_once(&self) -> usize {
        let paced = self.rate.map(|rate| (rate.get() / REQUESTS_A_SECOND).max(1) as usize);
        paced.unwrap_or(REDRIVE_MESSAGES_MAX).min(REDRIVE_MESSAGES_MAX)
    }
}

impl RedriveView {
    fn render(&self) -> String {
        let done = if self.dry_run { "would go" } else { "went" };
        let mut text: String = self
            .topics
            .iter()
            .map(|of_topic| format!("{} {done} to {}\n", letters(of_topic.messages), of_topic.topic))
            .collect();
        for (count, what) in [
            (self.before, "had gone to a topic before their turn came"),
            (self.gone, "were gone before their turn came"),
            (self.without_topic, "do not say where they came from"),
        ] {
            if count > 0 {
                text += &format!("{} {what}\n", letters(count));
            }
        }
        text
    }
}

fn parse_rate(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| "write how many messages a second: a whole number, 1 or more".to_owned())
}

fn letters(count: u64) -> String {
    let noun = if count == 1 { "dead letter" } else { "dead letters" };
    format!("{} {noun}", grouped(count))
}
