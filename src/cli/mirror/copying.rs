//! Copying one topic: from a consumer of the source to what goes to the target, and on again when either was away.

use std::time::{Duration, Instant};

use super::ends::{End, EndError, Ends, is_refused};
use super::sending::{Counts, IDLE, Keep, Sender};
use super::topic::MirroredTopic;
use super::{PAUSE, Shared};
use crate::api::Status;
use crate::cli::error::CommandError;
use crate::client::{ClientError, Consumer, ConsumerOptions, Delivery, OutOfRange, Start, Until};

/// How long the source is asked for more before what there is leaves.
const GATHER: Duration = Duration::from_millis(2);
/// How long answers are waited for at the end.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// One topic.
pub struct Copying<'a> {
    shared: &'a Shared,
    consumer: Consumer,
    sender: Sender<'a>,
    /// The source has nothing more, as of when it was asked.
    at_end: bool,
    /// Since when the source is away.
    source_lost: Option<Instant>,
}

impl<'a> Copying<'a> {
    /// Prepares a topic at both ends; from here on its places are kept.
    pub fn begin(shared: &'a Shared, ends: Ends, topic: MirroredTopic) -> Result<Self, CommandError> {
        let sender = Sender::begin(shared, ends, topic)?;
        let options = ConsumerOptions {
            start: Start::First,
            until: if shared.follow { Until::Forever } else { Until::End },
            out_of_range: OutOfRange::First,
            ..ConsumerOptions::default()
        };
        let client = sender.ends.source.another().map_err(|error| End::Source.failed(error))?;
        let (name, group) = (sender.topic.name.clone(), sender.ends.source_group());
        let consumer = Consumer::assign(client, name, None, Some(group), options)
            .map_err(|error| End::Source.failed(error))?;
        Ok(Self { shared, consumer, sender, at_end: false, source_lost: None })
    }

    /// Copies to the end of the topic, or until told to stop. What is acknowledged is kept whatever happens.
    pub fn run(mut self) -> (Counts, Result<(), CommandError>) {
        let copied = self.copy();
        let kept = self.finish();
        (self.sender.counts, copied.and(kept))
    }

    fn copy(&mut self) -> Result<(), CommandError> {
        while !self.shared.is_stopped() {
            self.sender.take_answers(Duration::ZERO)?;
            if self.sender.has_trouble() {
                if let Some(places) = self.sender.recover()? {
                    places.into_iter().for_each(|(key, offset)| self.consumer.seek(key, offset));
                    self.at_end = false;
                }
                continue;
            }
            self.sender.keep_if_due()?;
            if self.at_end {
                self.sender.send_open()?;
                if !self.sender.is_busy() {
                    return Ok(());
                }
                self.sender.take_answers(IDLE)?;
                continue;
            }
            let wait = self.shared.wait_for_rate();
            if wait.is_zero() {
                self.read()?;
            } else {
                self.sender.send_open()?;
                self.sender.take_answers(Duration::ZERO)?;
                self.shared.pause(wait.min(IDLE));
            }
        }
        Ok(())
    }

    /// Waits for what is on its way, and keeps how far the queues are.
    fn finish(&mut self) -> Result<(), CommandError> {
        let deadline = Instant::now() + DRAIN_MAX;
        while self.sender.is_on_its_way() && Instant::now() < deadline {
            self.sender.take_answers(IDLE)?;
        }
        self.sender.keep(Keep::Moved)
    }

    /// Takes what the source has next.
    fn read(&mut self) -> Result<(), CommandError> {
        let wait = if self.sender.is_busy() { GATHER } else { IDLE };
        match self.consumer.poll(wait) {
            Ok(Some(Delivery::Messages(batch))) => {
                self.source_lost = None;
                self.sender.forward(&batch)?;
            }
            Ok(Some(Delivery::Damaged(range))) => {
                let (from, to, queue) = (range.from, range.to, range.queue.queue);
                self.sender.counts.damaged += to.0 - from.0;
                let line = format!(
                    "messages {from} to {to} of queue {queue} cannot be read at the source: going on after them"
                );
                self.shared.tell(&range.queue.topic, &line);
            }
            Ok(Some(Delivery::Moved { queue, from, to })) if to < from => {
                return Err(CommandError::failed(format!(
                    "queue {} of topic {} ends before message {from} at the source, up to which it was copied: the source has lost \
                     messages, or the topic was made anew",
                    queue.queue, queue.topic
                )));
            }
            Ok(Some(Delivery::Moved { queue, from, to })) => {
                self.sender.counts.expired += to.0 - from.0;
                let line = format!(
                    "messages {from} to {to} of queue {} have passed their retention at the source before they were copied",
                    queue.queue
                );
                self.shared.tell(&queue.topic, &line);
            }
            Ok(Some(Delivery::Rebalanced { .. })) => {}
            Ok(Some(Delivery::End)) => self.at_end = true,
            Ok(None) => self.sender.send_open()?,
            Err(error) => self.endure(error)?,
        }
        for notice in self.consumer.take_notices() {
            self.shared.tell(&self.sender.topic.name, &notice);
        }
        Ok(())
    }

    /// A source that is away is waited for.
    fn endure(&mut self, error: ClientError) -> Result<(), CommandError> {
        if is_refused(&error, Status::TopicNotExist) {
            let topic = &self.sender.topic.name;
            return Err(CommandError::failed(format!(
                "topic {topic} was deleted at the source while it was mirrored"
            )));
        }
        let failed = EndError::source(error);
        let is_passing = failed.is_passing();
        let since = *self.source_lost.get_or_insert_with(Instant::now);
        let waited = since.elapsed();
        let error = CommandError::from(failed);
        if !is_passing || self.shared.retry_for.is_some_and(|patience| waited >= patience) {
            return Err(error);
        }
        if waited < PAUSE {
            self.shared.tell(&self.sender.topic.name, &format!("{error}; {}", self.shared.patience()));
        }
        self.sender.send_open()?;
        self.shared.pause(PAUSE);
        Ok(())
    }
}
