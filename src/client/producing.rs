//! What a producer does next, and what an answer means for it: its batches, the messages that are held, its topic's route,
//! and how long an answer is waited for. No I/O: a driver moves the bytes and waits.
//!
//! A round of a driver: ask for the topic when [`is_route_due`](ProducerCore::is_route_due) or
//! [`take_stale_topic`](ProducerCore::take_stale_topic) says so; send what [`next_queue`](ProducerCore::next_queue) and
//! [`next_hold`](ProducerCore::next_hold) name; give answers to [`received`](ProducerCore::received); wait until
//! [`deadline`](ProducerCore::deadline).

use std::time::{Duration, Instant};

use crate::api::{Failure, Reply, TopicInfo};
#[cfg(feature = "tokio")]
use crate::api::{Release, Request, Status};
use crate::protocol::native::DecodedReply;
use crate::types::{Level, QueueKey, QueueNumber};

use super::batching::{Message, Now, Partitioner};
use super::core::{Correlation, IN_FLIGHT_MAX};
#[cfg(feature = "tokio")]
use super::dispatch::refusal;
use super::dispatch::{BatchResult, Dispatcher, ProducerCounters};
use super::holding::Holds;
#[cfg(feature = "tokio")]
use super::holding::{HeldMessage, HoldResult};
use super::options::{MessageSource, ProducerOptions, ROUTE_INTERVAL};
use super::patience::Patience;

pub(super) struct ProducerCore {
    dispatcher: Dispatcher,
    holds: Holds,
    patience: Patience,
    in_flight_max: usize,
    source: MessageSource,
    /// When the topic is to be asked for again: it may have got queues.
    route_due: Instant,
}

impl ProducerCore {
    /// `request_timeout` is how long an answer may take.
    pub(super) fn new(
        options: ProducerOptions,
        topic: &TopicInfo,
        shard_count: u16,
        request_timeout: Duration,
        now: Now,
    ) -> Self {
        let options = ProducerOptions { in_flight: options.in_flight.clamp(1, IN_FLIGHT_MAX), ..options };
        // Producers that start together would otherwise all begin with queue 0.
        let first = QueueNumber(now.wall.0 as u32 ^ std::process::id());
        let partitioner = Partitioner::new(topic.queue_count, first);
        Self {
            dispatcher: Dispatcher::new(options, topic.id, partitioner, shard_count),
            holds: Holds::new(&options, topic.id, shard_count),
            patience: Patience::new(request_timeout, shard_count),
            in_flight_max: options.in_flight,
            source: options.source,
            route_due: now.monotonic + ROUTE_INTERVAL,
        }
    }

    // ---- Messages in -------------------------------------------------------------------------------------------

    /// Takes a message. Returns true when that filled a batch.
    pub(super) fn push(&mut self, message: &Message<'_>, now: Now) -> Result<bool, Failure> {
        self.dispatcher.push(message, now)
    }

    /// Closes every open batch.
    pub(super) fn seal_all(&mut self) {
        self.dispatcher.seal_all();
    }

    // ---- The topic ---------------------------------------------------------------------------------------------

    /// Whether the topic's route is to be asked for now; it is again some time later.
    pub(super) fn is_route_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.route_due;
        if is_due {
            self.route_due = now + ROUTE_INTERVAL;
        }
        is_due
    }

    /// The topic as its route has it: queues that it has got are used from here on.
    pub(super) fn route_found(&mut self, topic: &TopicInfo) {
        self.dispatcher.add_queues(topic.id, topic.queue_count);
    }

    /// Whether the topic is to be asked for anew, and [`topic_found`](Self::topic_found) told.
    pub(super) fn take_stale_topic(&mut self) -> bool {
        self.dispatcher.take_stale_topic() | self.holds.take_stale_topic()
    }

    /// The topic may have been deleted and made again. If it is gone, the broker refuses once more, and then that is the
    /// message's end.
    pub(super) fn topic_found(&mut self, topic: &TopicInfo) {
        self.holds.set_topic(topic.id);
        self.dispatcher.set_topic(topic.id, topic.queue_count);
    }

    // ---- Out ---------------------------------------------------------------------------------------------------

    /// Ends the pauses that are over.
    pub(super) fn resume_due(&mut self, now: Instant) {
        self.dispatcher.resume_due(now);
        self.holds.resume_due(now);
    }

    /// The queue on `shard` whose first waiting batch may leave now.
    pub(super) fn next_queue(&mut self, shard: usize, now: Instant) -> Option<QueueNumber> {
        self.dispatcher.next_queue(shard, now)
    }

    /// What [`next_queue`](Self::next_queue) named: to be sent, and then told to [`sent`](Self::sent) or
    /// [`not_sent`](Self::not_sent).
    pub(super) fn front(&self, queue: QueueNumber) -> (QueueKey, Option<Level>, &[u8]) {
        self.dispatcher.front(queue)
    }

    /// Whether what is sent are copies of stored messages.
    pub(super) fn source(&self) -> MessageSource {
        self.source
    }

    /// The batch has left wholly.
    pub(super) fn sent(&mut self, shard: usize, queue: QueueNumber, correlation: Correlation) {
        self.dispatcher.sent(queue, correlation);
        self.patience.asked(shard, Instant::now());
    }

    /// The batch has not left, or not wholly: the broker cannot have taken it.
    pub(super) fn not_sent(&mut self, queue: QueueNumber) {
        self.dispatcher.not_sent(queue);
    }

    // ---- Answers -----------------------------------------------------------------------------------------------

    /// An answer of a shard. An error is a breach of the protocol by that shard.
    pub(super) fn received(
        &mut self,
        shard: usize,
        correlation: Correlation,
        reply: DecodedReply<'_>,
        now: Instant,
    ) -> Result<(), &'static str> {
        let is_hold = self.holds.is_in_flight(shard, correlation);
        match reply {
            DecodedReply::Produced(produced) if !is_hold => {
                self.dispatcher.answered(shard, correlation, Ok(produced), now);
            }
            DecodedReply::Other(Reply::Held(held)) if is_hold => {
                self.holds.answered(shard, correlation, Ok(held), now);
            }
            DecodedReply::Failed(failure) if is_hold => {
                self.holds.answered(shard, correlation, Err(failure), now);
            }
            DecodedReply::Failed(failure) => {
                self.dispatcher.answered(shard, correlation, Err(failure), now);
            }
            DecodedReply::Produced(_) | DecodedReply::Fetched(_) | DecodedReply::Other(_) => {
                return Err("a message was answered with something else");
            }
        }
        self.patience.answered(shard, self.in_flight(shard) > 0, now);
        Ok(())
    }

    /// The connection to a shard is lost: what was in flight there is stored or not.
    pub(super) fn lost(&mut self, shard: usize, reason: &str, now: Instant) {
        self.patience.lost(shard);
        self.dispatcher.lost(shard, reason, now);
        self.holds.lost(shard, reason);
    }

    pub(super) fn take_result(&mut self) -> Option<BatchResult> {
        self.dispatcher.take_result()
    }

    // ---- What is known -----------------------------------------------------------------------------------------

    pub(super) fn counters(&self) -> ProducerCounters {
        self.dispatcher.counters()
    }

    /// The failed batch with the earliest messages.
    pub(super) fn held_up(&self) -> Option<(Instant, &Failure)> {
        self.dispatcher.held_up()
    }

    pub(super) fn first_failure(&self) -> Option<&BatchResult> {
        self.dispatcher.first_failure()
    }

    /// N such that the first N messages given to [`push`](Self::push) are all acknowledged.
    pub(super) fn acknowledged_prefix(&self) -> u64 {
        self.dispatcher.acknowledged_prefix()
    }

    pub(super) fn has_buffer_space(&self) -> bool {
        self.dispatcher.has_buffer_space()
    }

    /// Whether every message that was pushed is settled.
    pub(super) fn is_idle(&self) -> bool {
        self.dispatcher.is_idle()
    }

    /// Requests on their way to a shard.
    pub(super) fn in_flight(&self, shard: usize) -> usize {
        self.dispatcher.in_flight(shard) + self.holds.in_flight(shard)
    }

    /// Whether a shard's window is half full: answers are read then, so that it seldom fills up.
    pub(super) fn is_half_full(&self, shard: usize) -> bool {
        self.dispatcher.in_flight(shard) * 2 >= self.in_flight_max
    }

    /// The shards that owe an answer.
    pub(super) fn waiting_shards(&self, shard_count: usize) -> Vec<usize> {
        (0..shard_count).filter(|&shard| self.in_flight(shard) > 0).collect()
    }

    /// When a batch has lingered or a pause ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [self.dispatcher.next_deadline(), self.holds.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// When something is due, or an answer will be overdue.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_deadline().into_iter().chain(self.patience.deadline()).min()
    }

    /// A shard whose answer is overdue, and how long it was waited for.
    pub(super) fn overdue(&self, now: Instant) -> Option<(usize, Duration)> {
        self.patience.overdue(now).map(|shard| (shard, self.patience.limit()))
    }
}

/// For producers that many tasks share: a delay, and giving up a broker that cannot be reached.
#[cfg(feature = "tokio")]
impl ProducerCore {
    /// The queue that [`push`](Self::push) would put this message into now.
    pub(super) fn queue_of(&self, message: &Message<'_>) -> Result<QueueNumber, Failure> {
        self.dispatcher.queue_of(message)
    }

    /// Takes a message that its queue gets later. Its result will have this number.
    pub(super) fn hold(
        &mut self,
        number: u64,
        message: &Message<'_>,
        release: Release,
        now: Now,
    ) -> Result<(), Failure> {
        let batch = message.to_batch(now.wall).map_err(refusal)?;
        let queue = self.dispatcher.queue_of(message)?;
        self.dispatcher.advance_sticky(queue);
        self.holds.push(HeldMessage::new(number, queue, batch, release));
        Ok(())
    }

    /// A message that is to be held and may leave now, with its request; to be told to [`hold_sent`](Self::hold_sent) or
    /// [`hold_not_sent`](Self::hold_not_sent).
    pub(super) fn next_hold(&mut self, shard: usize) -> Option<(HeldMessage, Request)> {
        self.holds.next(shard)
    }

    pub(super) fn hold_sent(&mut self, shard: usize, message: HeldMessage, correlation: Correlation) {
        self.holds.sent(correlation, message);
        self.patience.asked(shard, Instant::now());
    }

    pub(super) fn hold_not_sent(&mut self, message: HeldMessage) {
        self.holds.not_sent(message);
    }

    /// Ends everything that has not left: it is not stored.
    pub(super) fn give_up(&mut self, reason: &str) {
        let failure = Failure::new(Status::Busy, reason);
        self.dispatcher.give_up_all(&failure);
        self.holds.give_up(&failure);
    }

    pub(super) fn take_hold_result(&mut self) -> Option<HoldResult> {
        self.holds.take_result()
    }
}
