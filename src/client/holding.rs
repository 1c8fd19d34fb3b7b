//! Messages with a delay on their way to the broker, which holds them until their time has come. No I/O: a driver moves
//! the bytes.
//!
//! Each is a request of its own, and they keep no order among one another: it is their due time that counts. One that is
//! refused for a passing reason is sent again after a pause, as batches are; one that may be stored never is.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::api::{Failure, Held, Hold, Release, Request};
use crate::types::{Level, QueueKey, QueueNumber, TopicId};

use super::core::Correlation;
use super::dispatch::is_unknown_queue;
use super::options::ProducerOptions;

/// Requests on their way to one shard: together with batches fewer than a broker lets a connection wait for.
const IN_FLIGHT_MAX: usize = 64;
/// The pause before a refused one is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A message, and when its queue gets it.
#[derive(Debug)]
pub(super) struct HeldMessage {
    /// What the caller knows it by.
    pub(super) number: u64,
    pub(super) queue: QueueNumber,
    pub(super) batch: Bytes,
    pub(super) release: Release,
    /// When it was first refused for a passing reason.
    refused: Option<Instant>,
    /// Whether it was refused because its topic's number was out of date.
    renamed: bool,
}

/// How holding a message ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HoldOutcome {
    Stored(Held),
    /// Not stored.
    Refused(Failure),
    /// Sent, but what became of it is not known: it may be stored or not.
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HoldResult {
    pub(super) number: u64,
    pub(super) queue: QueueNumber,
    pub(super) outcome: HoldOutcome,
}

#[derive(Default)]
struct Shard {
    waiting: VecDeque<HeldMessage>,
    in_flight: HashMap<Correlation, HeldMessage>,
}

pub(super) struct Holds {
    shards: Vec<Shard>,
    /// Refused ones, and when each is sent again.
    pausing: Vec<(Instant, HeldMessage)>,
    results: VecDeque<HoldResult>,
    topic: TopicId,
    level: Option<Level>,
    retry_for: Duration,
    /// Set when the broker does not know the topic's number or the queue: the topic may have been made anew.
    topic_is_stale: bool,
}

impl HeldMessage {
    pub(super) fn new(number: u64, queue: QueueNumber, batch: Bytes, release: Release) -> Self {
        Self { number, queue, batch, release, refused: None, renamed: false }
    }
}

impl Holds {
    pub(super) fn new(options: &ProducerOptions, topic: TopicId, shard_count: u16) -> Self {
        Self {
            shards: (0..shard_count).map(|_| Shard::default()).collect(),
            pausing: Vec::new(),
            results: VecDeque::new(),
            topic,
            level: options.level,
            retry_for: options.retry_for,
            topic_is_stale: false,
        }
    }

    fn shard(&self, queue: QueueNumber) -> usize {
        usize::from(queue.shard(self.shards.len() as u16).0)
    }

    pub(super) fn push(&mut self, message: HeldMessage) {
        let shard = self.shard(message.queue);
        self.shards[shard].waiting.push_back(message);
    }

    /// What may leave next, with its request; to be followed by [`sent`](Self::sent) or [`not_sent`](Self::not_sent).
    pub(super) fn next(&mut self, shard: usize) -> Option<(HeldMessage, Request)> {
        let shard = &mut self.shards[shard];
        if shard.in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        let message = shard.waiting.pop_front()?;
        let key = QueueKey { topic: self.topic, queue: message.queue };
        let (batch, release) = (message.batch.clone(), message.release.clone());
        Some((message, Request::Hold(Hold { key, level: self.level, batch, release })))
    }

    pub(super) fn sent(&mut self, correlation: Correlation, message: HeldMessage) {
        let shard = self.shard(message.queue);
        let earlier = self.shards[shard].in_flight.insert(correlation, message);
        assert!(earlier.is_none(), "correlation {} was given twice", correlation.0);
    }

    /// It has not left: the broker cannot have taken it.
    pub(super) fn not_sent(&mut self, message: HeldMessage) {
        let shard = self.shard(message.queue);
        self.shards[shard].waiting.push_front(message);
    }

    pub(super) fn in_flight(&self, shard: usize) -> usize {
        self.shards[shard].in_flight.len()
    }

    pub(super) fn is_in_flight(&self, shard: usize, correlation: Correlation) -> bool {
        self.shards[shard].in_flight.contains_key(&correlation)
    }

    pub(super) fn answered(
        &mut self,
        shard: usize,
        correlation: Correlation,
        answer: Result<Held, Failure>,
        now: Instant,
    ) {
        let Some(message) = self.shards[shard].in_flight.remove(&correlation) else { return };
        let outcome = match answer {
            Ok(held) => HoldOutcome::Stored(held),
            Err(failure) if !failure.status.not_stored() => HoldOutcome::Unknown(failure.to_string()),
            Err(failure) => match self.again(message, failure, now) {
                Some((message, failure)) => return self.settle(message, HoldOutcome::Refused(failure)),
                None => return,
            },
        };
        self.settle(message, outcome);
    }

    /// Lets a refused message pause before the next attempt, or gives it back when there is to be none.
    fn again(
        &mut self,
        mut message: HeldMessage,
        failure: Failure,
        now: Instant,
    ) -> Option<(HeldMessage, Failure)> {
        let is_unknown = is_unknown_queue(&failure);
        let since = *message.refused.get_or_insert(now);
        let may_retry = if is_unknown {
            !message.renamed
        } else {
            failure.status.is_transient() && now.saturating_duration_since(since) < self.retry_for
        };
        if !may_retry {
            return Some((message, failure));
        }
        self.topic_is_stale |= is_unknown;
        message.renamed |= is_unknown;
        self.pausing.push((now + RETRY_PAUSE, message));
        None
    }

    /// The connection to a shard is lost: what was in flight there is stored or not.
    pub(super) fn lost(&mut self, shard: usize, reason: &str) {
        let lost: Vec<_> = self.shards[shard].in_flight.drain().map(|(_, message)| message).collect();
        for message in lost {
            self.settle(message, HoldOutcome::Unknown(reason.to_owned()));
        }
    }

    /// What has not left is given up.
    pub(super) fn give_up(&mut self, failure: &Failure) {
        let waiting = self.shards.iter_mut().flat_map(|shard| shard.waiting.drain(..));
        let given_up: Vec<_> = waiting.chain(self.pausing.drain(..).map(|(_, message)| message)).collect();
        for message in given_up {
            self.settle(message, HoldOutcome::Refused(failure.clone()));
        }
    }

    fn settle(&mut self, message: HeldMessage, outcome: HoldOutcome) {
        let HeldMessage { number, queue, .. } = message;
        self.results.push_back(HoldResult { number, queue, outcome });
    }

    pub(super) fn take_result(&mut self) -> Option<HoldResult> {
        self.results.pop_front()
    }

    pub(super) fn set_topic(&mut self, topic: TopicId) {
        self.topic = topic;
    }

    pub(super) fn take_stale_topic(&mut self) -> bool {
        std::mem::take(&mut self.topic_is_stale)
    }

    /// Ends the pauses that are over.
    pub(super) fn resume_due(&mut self, now: Instant) {
        while let Some(index) = self.pausing.iter().position(|&(until, _)| until <= now) {
            let (_, message) = self.pausing.swap_remove(index);
            self.push(message);
        }
    }

    /// When the next pause ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.pausing.iter().map(|&(until, _)| until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Status;
    use crate::types::{HalfReceipt, LogPosition, Timestamp};

    fn held(queue: u32) -> Held {
        let key = QueueKey { topic: TopicId(1), queue: QueueNumber(queue) };
        let position = LogPosition(8);
        Held {
            receipt: HalfReceipt { key, position },
            position,
            store_time: Timestamp(1),
            level: Level::Durable,
            due: None,
            offset: None,
        }
    }

    fn holds(shard_count: u16) -> Holds {
        let options = ProducerOptions { retry_for: Duration::from_secs(1), ..ProducerOptions::default() };
        Holds::new(&options, TopicId(1), shard_count)
    }

    fn push(holds: &mut Holds, number: u64, queue: u32) {
        let release = Release::After(Duration::from_secs(1));
        holds.push(HeldMessage::new(number, QueueNumber(queue), Bytes::new(), release));
    }

    fn send(holds: &mut Holds, shard: usize, correlation: u64) {
        let (message, _) = holds.next(shard).expect("one waits");
        holds.sent(Correlation(correlation), message);
    }

    fn refused(status: Status) -> Result<Held, Failure> {
        Err(Failure::new(status, "no"))
    }

    #[test]
    fn each_goes_to_the_shard_of_its_queue_and_an_answer_settles_it() {
        let mut holds = holds(2);
        push(&mut holds, 7, 3);
        assert!(holds.next(0).is_none());
        send(&mut holds, 1, 1);
        assert!(holds.is_in_flight(1, Correlation(1)));
        holds.answered(1, Correlation(1), Ok(held(3)), Instant::now());
        let result = holds.take_result().expect("it is settled");
        assert_eq!((result.number, result.queue), (7, QueueNumber(3)));
        assert_eq!(result.outcome, HoldOutcome::Stored(held(3)));
        assert_eq!(holds.in_flight(1), 0);
    }

    #[test]
    fn a_passing_refusal_is_tried_again_for_a_while() {
        let mut holds = holds(1);
        let start = Instant::now();
        push(&mut holds, 0, 0);
        send(&mut holds, 0, 1);
        holds.answered(0, Correlation(1), refused(Status::Busy), start);
        assert_eq!(holds.next_deadline(), Some(start + RETRY_PAUSE));
        holds.resume_due(start);
        assert!(holds.next(0).is_none(), "it pauses");
        holds.resume_due(start + RETRY_PAUSE);
        send(&mut holds, 0, 2);
        holds.answered(0, Correlation(2), refused(Status::Busy), start + Duration::from_secs(1));
        let result = holds.take_result().expect("it is given up");
        assert!(matches!(result.outcome, HoldOutcome::Refused(failure) if failure.status == Status::Busy));
    }

    #[test]
    fn a_topic_that_was_made_anew_is_asked_for_once() {
        let mut holds = holds(1);
        let start = Instant::now();
        push(&mut holds, 0, 0);
        send(&mut holds, 0, 1);
        holds.answered(0, Correlation(1), refused(Status::TopicNotExist), start);
        assert!(holds.take_stale_topic() && !holds.take_stale_topic());
        holds.set_topic(TopicId(2));
        holds.resume_due(start + RETRY_PAUSE);
        let (message, request) = holds.next(0).expect("it is sent again");
        assert!(matches!(request, Request::Hold(hold) if hold.key.topic == TopicId(2)));
        holds.sent(Correlation(2), message);
        holds.answered(0, Correlation(2), refused(Status::TopicNotExist), start + RETRY_PAUSE);
        assert!(!holds.take_stale_topic());
        assert!(matches!(holds.take_result().expect("an end").outcome, HoldOutcome::Refused(_)));
    }

    #[test]
    fn what_may_be_stored_is_never_sent_again() {
        let mut holds = holds(1);
        for number in 0..3 {
            push(&mut holds, number, 0);
        }
        send(&mut holds, 0, 1);
        holds.answered(0, Correlation(1), refused(Status::OutcomeUnknown), Instant::now());
        send(&mut holds, 0, 2);
        holds.lost(0, "end of stream");
        for _ in 0..2 {
            let outcome = holds.take_result().expect("an end").outcome;
            assert!(matches!(outcome, HoldOutcome::Unknown(_)), "{outcome:?}");
        }
        // The third never left.
        holds.give_up(&Failure::new(Status::Busy, "nobody answers"));
        let result = holds.take_result().expect("an end");
        assert!(result.number == 2 && matches!(result.outcome, HoldOutcome::Refused(_)));
        assert!(holds.next(0).is_none() && holds.take_result().is_none());
    }

    #[test]
    fn no_more_are_on_their_way_than_a_broker_lets_wait() {
        let mut holds = holds(1);
        for number in 0..=IN_FLIGHT_MAX as u64 {
            push(&mut holds, number, 0);
        }
        for correlation in 1..=IN_FLIGHT_MAX as u64 {
            send(&mut holds, 0, correlation);
        }
        assert!(holds.next(0).is_none());
        holds.answered(0, Correlation(1), Ok(held(0)), Instant::now());
        assert!(holds.next(0).is_some());
    }
}
