//! What becomes of a producer's batches: which may leave next, what an answer or a lost connection means for each, and
//! when one is tried again. No I/O: a driver moves the bytes.
//!
//! A queue's batches leave in the order of their messages, several at once. When one is refused for a passing reason
//! ([`Status::is_transient`]), it is known not to be stored, and is tried again; but batches after it may be on their
//! way already, and they may succeed. So:
//!
//! 1. After a refusal nothing more of that queue leaves until all its batches in flight are settled.
//! 2. Those that were refused too go again, in their old order, after a pause, one at a time until one succeeds.
//! 3. If a later batch was, or may have been, stored, the refused one would come after it. With
//!    [`RetryOrder::Keep`] it is reported as refused; with [`RetryOrder::Relax`] it is sent all the same.
//!
//! A batch that was sent and got no answer, or the answer that nothing is known, is never sent again: so nothing is
//! stored twice. It is reported as [`BatchOutcome::Unknown`]. With [`LostBatches::SendAgain`] those whose connection was lost
//! go again, all of their queue in their old order, and count as [`repeated`](ProducerCounters::repeated).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::api::{Failure, Produced, Status};
use crate::types::{Level, QueueKey, QueueNumber, QueueOffset, TopicId};
use crate::wire::record::RecordError;

use super::batching::{BatchLimits, Message, Now, OpenBatch, Partitioner, SealedBatch, record};
use super::core::Correlation;
use super::options::{LostBatches, ProducerOptions, RetryOrder};

/// The first pause before a retry; it doubles up to the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Results that nobody has taken yet; the oldest are dropped beyond it.
const RESULTS_MAX: usize = 65_536;
/// Memory of settled batches kept for new ones.
const SPARE_BUFFERS_MAX: usize = 64;

/// How a batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Stored, as safely as `level` says.
    Acknowledged {
        /// The first message's; the others follow it.
        base_offset: QueueOffset,
        /// How safely it was stored when it was answered.
        level: Level,
    },
    /// Not stored.
    Refused(Failure),
    /// Sent, but what became of it is not known: it may be stored or not.
    Unknown(String),
}

/// One batch's end. `first_sequence` is the number of its first message, counting those given to the producer from 0.
/// The others follow it without a gap when no other queue got messages meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchResult {
    /// Number of its first message among all that were sent.
    pub first_sequence: u64,
    /// Its messages.
    pub record_count: u32,
    /// Where they went, or were to go.
    pub queue: QueueNumber,
    /// What became of them.
    pub outcome: BatchOutcome,
}

/// Messages by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerCounters {
    /// Given to the producer.
    pub sent: u64,
    /// Stored.
    pub acknowledged: u64,
    /// Not stored.
    pub refused: u64,
    /// Stored or not.
    pub unknown: u64,
    /// Batches that were sent again.
    pub retries: u64,
    /// Of those sent, how many had no answer once, and so may be stored more than once: see [`LostBatches::SendAgain`].
    pub repeated: u64,
}

/// One queue. Batches pass from `open` to `waiting`, to the shard's flights, and back to `refused` or out.
#[derive(Default)]
struct Lane {
    open: Option<OpenBatch>,
    waiting: VecDeque<SealedBatch>,
    in_flight: usize,
    /// Refused while others were in flight; by `first_sequence`.
    refused: Vec<SealedBatch>,
    /// Not zero from a refusal to the next success: the pause before the next attempt.
    backoff: Duration,
    /// The first refusal for a passing reason since the last success: all batches of the queue share its patience.
    refused_since: Option<Instant>,
    retry_at: Option<Instant>,
    /// Whether it stands in its shard's `ready`.
    listed: bool,
}

/// One shard's batches on their way.
#[derive(Default)]
struct Window {
    flights: HashMap<Correlation, Flight>,
    /// Lanes that may have a batch to send.
    ready: VecDeque<QueueNumber>,
    /// Lanes in their order of opening a batch, with its first sequence; what was sealed since is skipped.
    lingering: VecDeque<(Instant, QueueNumber, u64)>,
}

struct Flight {
    queue: QueueNumber,
    batch: SealedBatch,
}

pub(super) struct Dispatcher {
    options: ProducerOptions,
    limits: BatchLimits,
    topic: TopicId,
    partitioner: Partitioner,
    lanes: Vec<Lane>,
    windows: Vec<Window>,
    /// Lanes that pause before a retry.
    pausing: Vec<QueueNumber>,
    spare: Vec<Vec<u8>>,
    results: VecDeque<BatchResult>,
    counters: ProducerCounters,
    /// Set when the broker does not know the topic's number or the queue: the topic may have been made anew.
    topic_is_stale: bool,
    /// Bytes of all batches that are not settled.
    buffered_bytes: usize,
    first_failure: Option<BatchResult>,
    /// Since when nothing was stored because of a passing reason, and the reason.
    held_up: Option<(Instant, Failure)>,
}

impl Dispatcher {
    pub(super) fn new(
        options: ProducerOptions,
        topic: TopicId,
        partitioner: Partitioner,
        shard_count: u16,
    ) -> Self {
        assert!(shard_count > 0, "a node has at least one shard");
        let limits = BatchLimits::within_protocol(options.batch_bytes, options.batch_records, options.linger);
        Self {
            options,
            limits,
            topic,
            lanes: (0..partitioner.queue_count()).map(|_| Lane::default()).collect(),
            partitioner,
            windows: (0..shard_count).map(|_| Window::default()).collect(),
            pausing: Vec::new(),
            spare: Vec::new(),
            results: VecDeque::new(),
            counters: ProducerCounters::default(),
            topic_is_stale: false,
            buffered_bytes: 0,
            first_failure: None,
            held_up: None,
        }
    }

    // ---- Messages in -------------------------------------------------------------------------------------------

    /// Takes a message. Returns true when that filled a batch.
    pub(super) fn push(&mut self, message: &Message<'_>, now: Now) -> Result<bool, Failure> {
        let record = record(message).map_err(refusal)?;
        let queue = self.queue_of(message)?;
        let born = message.born(now.wall);
        let lane = &self.lanes[queue.0 as usize];
        let mut filled = false;
        if lane.open.as_ref().is_some_and(|open| !open.takes(&record, born, &self.limits)) {
            self.seal(queue);
            filled = true;
        }
        if self.lanes[queue.0 as usize].open.is_none() {
            self.opened(now.monotonic, queue, self.counters.sent);
        }
        let open = self.lanes[queue.0 as usize].open.get_or_insert_with(|| {
            OpenBatch::new(self.spare.pop().unwrap_or_default(), self.counters.sent, born)
        });
        let bytes_before = if open.record_count() == 0 { 0 } else { open.batch_bytes() };
        open.push(&record, born);
        self.buffered_bytes += open.batch_bytes() - bytes_before;
        self.counters.sent += 1;
        if open.is_full(&self.limits) {
            self.seal(queue);
            filled = true;
        }
        Ok(filled)
    }

    /// The queue that a message goes to now. Refused when it names one that is not there.
    pub(super) fn queue_of(&self, message: &Message<'_>) -> Result<QueueNumber, Failure> {
        let queue = self.partitioner.queue_of(message);
        if (queue.0 as usize) < self.lanes.len() {
            return Ok(queue);
        }
        let message = format!("queue {queue} does not exist: the topic has {}", self.lanes.len());
        Err(Failure::new(Status::QueueNotExist, message))
    }

    /// Closes the queue's open batch, if there is one.
    fn seal(&mut self, queue: QueueNumber) {
        let lane = &mut self.lanes[queue.0 as usize];
        if let Some(open) = lane.open.take() {
            lane.waiting.push_back(open.seal());
            self.partitioner.batch_filled(queue);
            self.list(queue);
        }
    }

    /// Whether the batch that began with `sequence` still takes messages.
    fn is_open(&self, queue: QueueNumber, sequence: u64) -> bool {
        self.lanes[queue.0 as usize].open.as_ref().is_some_and(|open| open.first_sequence == sequence)
    }

    /// Notes that a batch was opened. Batches that filled up leave their notes behind: with a long linger they are
    /// cleared when they outnumber the queues.
    fn opened(&mut self, opened: Instant, queue: QueueNumber, sequence: u64) {
        let shard = self.shard(queue);
        if self.windows[shard].lingering.len() > 2 * self.lanes.len() + 64 {
            let mut notes = std::mem::take(&mut self.windows[shard].lingering);
            notes.retain(|&(_, queue, sequence)| self.is_open(queue, sequence));
            self.windows[shard].lingering = notes;
        }
        self.windows[shard].lingering.push_back((opened, queue, sequence));
    }

    /// Closes the oldest open batch of a shard if it has lingered long enough, or if its bytes are in the way of others.
    /// It is called when a batch can leave, and not before: while the window is full, open batches go on filling.
    fn seal_due(&mut self, shard: usize, now: Instant) -> bool {
        while let Some(&(opened, queue, sequence)) = self.windows[shard].lingering.front() {
            let is_open = self.is_open(queue, sequence);
            let is_due =
                now.saturating_duration_since(opened) >= self.limits.linger || !self.has_buffer_space();
            if is_open && !is_due {
                return false;
            }
            self.windows[shard].lingering.pop_front();
            if is_open {
                self.seal(queue);
                return true;
            }
        }
        false
    }

    /// Closes every open batch.
    pub(super) fn seal_all(&mut self) {
        for shard in 0..self.windows.len() {
            for (_, queue, sequence) in std::mem::take(&mut self.windows[shard].lingering) {
                if self.is_open(queue, sequence) {
                    self.seal(queue);
                }
            }
        }
    }

    // ---- Batches out -------------------------------------------------------------------------------------------

    /// The shard of a queue.
    fn shard(&self, queue: QueueNumber) -> usize {
        usize::from(queue.shard(self.windows.len() as u16).0)
    }

    /// The queue on `shard` whose first waiting batch may leave now. Closes a batch that has lingered when no full one
    /// waits.
    pub(super) fn next_queue(&mut self, shard: usize, now: Instant) -> Option<QueueNumber> {
        if !self.has_slot(shard) {
            return None;
        }
        loop {
            while let Some(queue) = self.windows[shard].ready.pop_front() {
                let lane = &mut self.lanes[queue.0 as usize];
                lane.listed = false;
                if lane.may_send() {
                    return Some(queue);
                }
            }
            if !self.seal_due(shard, now) {
                return None;
            }
        }
    }

    fn has_slot(&self, shard: usize) -> bool {
        self.windows[shard].flights.len() < self.options.in_flight.max(1)
    }

    /// What [`next_queue`](Self::next_queue) named: to be sent, and then told to [`sent`](Self::sent) or
    /// [`not_sent`](Self::not_sent).
    pub(super) fn front(&self, queue: QueueNumber) -> (QueueKey, Option<Level>, &[u8]) {
        let batch = self.lanes[queue.0 as usize].waiting.front().expect("the queue has a batch to send");
        (QueueKey { topic: self.topic, queue }, self.options.level, &batch.bytes)
    }

    /// The batch has left wholly.
    pub(super) fn sent(&mut self, queue: QueueNumber, correlation: Correlation) {
        let shard = self.shard(queue);
        let lane = &mut self.lanes[queue.0 as usize];
        let batch = lane.waiting.pop_front().expect("the queue had a batch to send");
        lane.in_flight += 1;
        self.counters.retries += u64::from(batch.refused.is_some());
        let earlier = self.windows[shard].flights.insert(correlation, Flight { queue, batch });
        assert!(earlier.is_none(), "correlation {} was given twice", correlation.0);
        self.list(queue);
    }

    /// The batch has not left, or not wholly: the broker cannot have taken it. It stays first in its queue.
    pub(super) fn not_sent(&mut self, queue: QueueNumber) {
        self.list(queue);
    }

    /// Puts the queue among those that have something to send, if it has.
    fn list(&mut self, queue: QueueNumber) {
        let shard = self.shard(queue);
        let lane = &mut self.lanes[queue.0 as usize];
        if !lane.listed && lane.may_send() {
            lane.listed = true;
            self.windows[shard].ready.push_back(queue);
        }
    }

    // ---- Answers -----------------------------------------------------------------------------------------------

    /// The broker's answer to a batch. False when no batch of this shard waits under that number.
    pub(super) fn answered(
        &mut self,
        shard: usize,
        correlation: Correlation,
        answer: Result<Produced, Failure>,
        now: Instant,
    ) -> bool {
        let Some(Flight { queue, batch }) = self.windows[shard].flights.remove(&correlation) else {
            return false;
        };
        self.lanes[queue.0 as usize].in_flight -= 1;
        match answer {
            Ok(produced) => {
                self.held_up = None;
                let lane = &mut self.lanes[queue.0 as usize];
                lane.backoff = Duration::ZERO;
                lane.refused_since = None;
                let outcome =
                    BatchOutcome::Acknowledged { base_offset: produced.base_offset, level: produced.level };
                self.overtaken(queue, batch.first_sequence);
                self.settle(queue, batch, outcome);
            }
            Err(failure) if !failure.status.not_stored() => {
                self.overtaken(queue, batch.first_sequence);
                self.settle(queue, batch, BatchOutcome::Unknown(failure.to_string()));
            }
            Err(failure) if self.may_retry(queue, &batch, &failure, now) => {
                let renamed = is_unknown_queue(&failure);
                self.topic_is_stale |= renamed;
                if !renamed {
                    let since = self.held_up.as_ref().map_or(now, |(since, _)| *since);
                    self.held_up = Some((since, failure));
                }
                let batch = SealedBatch {
                    refused: batch.refused.or(Some(now)),
                    renamed: batch.renamed || renamed,
                    ..batch
                };
                let lane = &mut self.lanes[queue.0 as usize];
                let place = lane.refused.partition_point(|other| other.first_sequence < batch.first_sequence);
                lane.refused.insert(place, batch);
            }
            Err(failure) => {
                if failure.status.is_transient() {
                    self.give_up(queue, &failure);
                }
                self.settle(queue, batch, BatchOutcome::Refused(failure));
            }
        }
        self.resume(queue, now);
        true
    }

    /// The patience with a queue is over: what waits after the refused batch is not tried for as long again.
    fn give_up(&mut self, queue: QueueNumber, failure: &Failure) {
        let lane = &mut self.lanes[queue.0 as usize];
        lane.refused_since = None;
        let given_up: Vec<_> = lane.refused.drain(..).chain(lane.waiting.drain(..)).collect();
        for batch in given_up {
            self.settle(queue, batch, BatchOutcome::Refused(failure.clone()));
        }
    }

    /// The connection to a shard is lost: what was in flight there is stored or not.
    pub(super) fn lost(&mut self, shard: usize, reason: &str, now: Instant) {
        let mut flights: Vec<_> = self.windows[shard].flights.drain().map(|(_, flight)| flight).collect();
        flights.sort_by_key(|flight| flight.batch.first_sequence);
        for Flight { queue, batch } in flights {
            self.lanes[queue.0 as usize].in_flight -= 1;
            match self.options.lost {
                LostBatches::Report => {
                    self.overtaken(queue, batch.first_sequence);
                    self.settle(queue, batch, BatchOutcome::Unknown(reason.to_owned()));
                }
                // All that was in flight in the queue is lost with it, and goes again before anything else does.
                LostBatches::SendAgain => self.send_again(queue, batch, now),
            }
            self.resume(queue, now);
        }
    }

    /// A batch that may be stored takes its place in the queue again.
    fn send_again(&mut self, queue: QueueNumber, batch: SealedBatch, now: Instant) {
        if !batch.uncertain {
            self.counters.repeated += u64::from(batch.record_count);
        }
        let batch = SealedBatch { uncertain: true, refused: batch.refused.or(Some(now)), ..batch };
        let lane = &mut self.lanes[queue.0 as usize];
        let place = lane.refused.partition_point(|other| other.first_sequence < batch.first_sequence);
        lane.refused.insert(place, batch);
    }

    /// Whether a batch that is known not to be stored is sent again: for a passing reason during `retry_for`; once when
    /// the topic's number or queue count is out of date.
    fn may_retry(
        &mut self,
        queue: QueueNumber,
        batch: &SealedBatch,
        failure: &Failure,
        now: Instant,
    ) -> bool {
        if is_unknown_queue(failure) {
            return !batch.renamed;
        }
        if !failure.status.is_transient() {
            return false;
        }
        let since = *self.lanes[queue.0 as usize].refused_since.get_or_insert(now);
        now.saturating_duration_since(since) < self.options.retry_for
    }

    /// Since when nothing was stored because of a passing reason, and the reason, while the batches are sent again.
    pub(super) fn held_up(&self) -> Option<(Instant, &Failure)> {
        self.held_up.as_ref().map(|(since, failure)| (*since, failure))
    }

    /// Whether the topic is to be asked for anew, and [`set_topic`](Self::set_topic) told.
    pub(super) fn take_stale_topic(&mut self) -> bool {
        std::mem::take(&mut self.topic_is_stale)
    }

    /// The topic as it is now. Batches for queues that it no longer has will be refused.
    pub(super) fn set_topic(&mut self, topic: TopicId, queue_count: u32) {
        self.topic = topic;
        if self.lanes.len() < queue_count as usize {
            self.lanes.resize_with(queue_count as usize, Lane::default);
        }
        self.partitioner = Partitioner::new(queue_count, self.partitioner.sticky());
    }

    /// The topic as its route has it now: queues that it has got are used from here on. One that was made anew has another
    /// number, which the broker's refusals lead to.
    pub(super) fn add_queues(&mut self, topic: TopicId, queue_count: u32) {
        if topic == self.topic && self.partitioner.queue_count() < queue_count {
            self.set_topic(topic, queue_count);
        }
    }

    /// The batch at `first_sequence` was, or may have been, stored: rule 3 for the refused ones before it.
    fn overtaken(&mut self, queue: QueueNumber, first_sequence: u64) {
        let lane = &mut self.lanes[queue.0 as usize];
        if self.options.order == RetryOrder::Relax || lane.refused.is_empty() {
            return;
        }
        let count = lane.refused.partition_point(|other| other.first_sequence < first_sequence);
        let refused: Vec<_> = lane.refused.drain(..count).collect();
        for batch in refused {
            let failure = Failure::new(
                Status::Busy,
                "the broker refused the batch for the moment, and stored a later one of its queue: sending it again would break the queue's order",
            );
            self.settle(queue, batch, BatchOutcome::Refused(failure));
        }
    }

    /// Rules 1 and 2: when nothing of the queue is in flight any more, its refused batches wait again.
    fn resume(&mut self, queue: QueueNumber, now: Instant) {
        let lane = &mut self.lanes[queue.0 as usize];
        if lane.in_flight == 0 && !lane.refused.is_empty() {
            lane.waiting.extend(lane.refused.drain(..));
            lane.waiting.make_contiguous().sort_by_key(|batch| batch.first_sequence);
            lane.backoff = (lane.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
            lane.retry_at = Some(now + lane.backoff);
            self.pausing.push(queue);
        }
        self.list(queue);
    }

    /// Ends the pauses that are over.
    pub(super) fn resume_due(&mut self, now: Instant) {
        let mut index = 0;
        while index < self.pausing.len() {
            let queue = self.pausing[index];
            let lane = &mut self.lanes[queue.0 as usize];
            if lane.retry_at.is_some_and(|at| at > now) {
                index += 1;
                continue;
            }
            lane.retry_at = None;
            self.pausing.swap_remove(index);
            self.list(queue);
        }
    }

    fn settle(&mut self, queue: QueueNumber, batch: SealedBatch, outcome: BatchOutcome) {
        let count = u64::from(batch.record_count);
        let outcome = match outcome {
            // An earlier attempt had no answer, and may have stored it.
            BatchOutcome::Refused(failure) if batch.uncertain => BatchOutcome::Unknown(failure.message),
            outcome => outcome,
        };
        match &outcome {
            BatchOutcome::Acknowledged { .. } => self.counters.acknowledged += count,
            BatchOutcome::Refused(_) => self.counters.refused += count,
            BatchOutcome::Unknown(_) => self.counters.unknown += count,
        }
        self.buffered_bytes -= batch.bytes.len();
        let result = BatchResult {
            first_sequence: batch.first_sequence,
            record_count: batch.record_count,
            queue,
            outcome,
        };
        if !matches!(result.outcome, BatchOutcome::Acknowledged { .. }) {
            let earliest = self.first_failure.as_ref();
            if earliest.is_none_or(|earliest| result.first_sequence < earliest.first_sequence) {
                self.first_failure = Some(result.clone());
            }
        }
        if self.results.len() == RESULTS_MAX {
            self.results.pop_front();
        }
        self.results.push_back(result);
        if self.spare.len() < SPARE_BUFFERS_MAX {
            self.spare.push(batch.bytes);
        }
    }

    // ---- What is known -----------------------------------------------------------------------------------------

    pub(super) fn counters(&self) -> ProducerCounters {
        self.counters
    }

    pub(super) fn take_result(&mut self) -> Option<BatchResult> {
        self.results.pop_front()
    }

    /// The failed batch with the earliest messages.
    pub(super) fn first_failure(&self) -> Option<&BatchResult> {
        self.first_failure.as_ref()
    }

    pub(super) fn has_buffer_space(&self) -> bool {
        self.buffered_bytes < self.options.buffered_bytes_max
    }

    /// Whether every message is settled.
    pub(super) fn is_idle(&self) -> bool {
        let settled = self.counters.acknowledged + self.counters.refused + self.counters.unknown;
        settled == self.counters.sent
    }

    pub(super) fn in_flight(&self, shard: usize) -> usize {
        self.windows[shard].flights.len()
    }

    /// When something is to be done without an answer: a batch has lingered, or a pause ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let lingering = (0..self.windows.len()).filter(|&shard| self.has_slot(shard)).filter_map(|shard| {
            let mut notes = self.windows[shard].lingering.iter();
            notes.find(|&&(_, queue, sequence)| self.is_open(queue, sequence)).map(|&(opened, ..)| opened)
        });
        let linger = lingering.map(|opened| opened + self.limits.linger).min();
        let retry = self.pausing.iter().filter_map(|queue| self.lanes[queue.0 as usize].retry_at).min();
        linger.into_iter().chain(retry).min()
    }

    /// N such that the first N messages given to [`push`](Self::push) are all acknowledged. Walks the queues: for
    /// progress reports, not for each message.
    pub(super) fn acknowledged_prefix(&self) -> u64 {
        let failed = self.first_failure.iter().map(|result| result.first_sequence);
        let flights = self
            .windows
            .iter()
            .flat_map(|window| window.flights.values())
            .map(|flight| flight.batch.first_sequence);
        let held = self.lanes.iter().flat_map(|lane| {
            let open = lane.open.iter().map(|open| open.first_sequence);
            let sealed = lane.waiting.iter().chain(&lane.refused).map(|batch| batch.first_sequence);
            open.chain(sealed)
        });
        failed.chain(flights).chain(held).min().unwrap_or(self.counters.sent)
    }
}

/// For producers that many tasks share.
#[cfg(feature = "tokio")]
impl Dispatcher {
    /// A message goes to the sticky queue, outside of any batch.
    pub(super) fn advance_sticky(&mut self, queue: QueueNumber) {
        self.partitioner.batch_filled(queue);
    }

    /// Ends everything that is not in flight, open batches included: it is not stored.
    pub(super) fn give_up_all(&mut self, failure: &Failure) {
        self.seal_all();
        for queue in 0..self.lanes.len() as u32 {
            self.give_up(QueueNumber(queue), failure);
        }
    }
}

/// What a message that cannot be sent is refused with.
pub(super) fn refusal(error: RecordError) -> Failure {
    let status = if error.is_about_size() { Status::MessageTooLarge } else { Status::InvalidArgument };
    Failure::new(status, error.to_string())
}

/// Whether the broker refused because it does not know what the batch or message is for.
pub(super) fn is_unknown_queue(failure: &Failure) -> bool {
    matches!(failure.status, Status::TopicNotExist | Status::QueueNotExist)
}

impl Lane {
    fn may_send(&self) -> bool {
        let flowing = self.refused.is_empty() && self.retry_at.is_none();
        let alone = self.backoff.is_zero() || self.in_flight == 0;
        !self.waiting.is_empty() && flowing && alone
    }
}

#[cfg(test)]
mod tests;
