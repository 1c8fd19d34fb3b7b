//! The blocking producer: batches over one connection per shard.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::api::{Failure, Reply, Request};
use crate::types::{Timestamp, TopicName};

use super::batching::{Message, Now};
use super::blocking::Client;
use super::connection::{Connection, wait};
use super::dispatch::{BatchResult, ProducerCounters};
use super::error::ClientError;
use super::links::Links;
use super::options::{MessageSource, ProducerOptions};
use super::producing::ProducerCore;

/// A shorter wait is over before anybody wonders.
const DELAY_TOLD_AFTER: Duration = Duration::from_secs(2);

/// Sends messages to one topic.
///
/// [`send`](Self::send) puts a message into the batch of its queue and returns; it waits only when too much is
/// unanswered. There is no thread behind it: batches leave and answers are read inside the calls, so a program that
/// pauses between messages calls [`poll`](Self::poll) when [`next_deadline`](Self::next_deadline) comes. Dropping a
/// producer drops what was not [`flush`](Self::flush)ed.
///
/// Every batch ends in a [`BatchResult`]: acknowledged, refused (not stored), or unknown. A batch that may be stored is
/// never sent again, so a producer stores nothing twice. A queue keeps the order of sending; the one exception is a
/// batch of unknown outcome when its connection was given up on a time-out: the broker may still read it after what
/// went over a newer connection.
///
/// An error of a call tells that a broker could not be reached or was lost; the messages stay in place or have ended as
/// unknown, and the next call goes on with a new connection.
///
/// ```no_run
/// use turbopump::client::{Client, Message, Producer, ProducerOptions, Timeouts};
///
/// let client = Client::connect("127.0.0.1:10911", Timeouts::default())?;
/// let mut producer = Producer::new(client, "orders".parse()?, ProducerOptions::default())?;
/// for number in 0..1_000_000 {
///     producer.send(&Message { body: format!("order {number}").as_bytes(), ..Message::default() })?;
/// }
/// producer.flush()?;
/// if let Some(failure) = producer.first_failure() {
///     println!("{failure:?}: go on from message {}", producer.acknowledged_prefix());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Producer {
    client: Client,
    topic: TopicName,
    core: ProducerCore,
    links: Links<Connection>,
    clock: CachedClock,
    delays: Option<Delays>,
}

/// Who is told that a producer waits.
struct Delays {
    tell: Box<dyn FnMut(&Failure) + Send + Sync>,
    /// Whether it was told since something was stored last.
    is_told: bool,
}

/// Both clocks, read anew when the kernel's coarse clock (a few nanoseconds to ask, a few milliseconds fine) has moved.
struct CachedClock {
    coarse: rustix::time::Timespec,
    now: Now,
}

impl Producer {
    /// A producer for a topic that exists, or that the broker makes by first use. The client is its own from here on.
    pub fn new(mut client: Client, topic: TopicName, options: ProducerOptions) -> Result<Self, ClientError> {
        let info = client.topic_to_produce(&topic)?;
        let clock = CachedClock::new();
        let (shard_count, patience) = (client.shard_count(), client.timeouts().request);
        let core = ProducerCore::new(options, &info, shard_count, patience, clock.now);
        Ok(Self { client, topic, core, links: Links::new(shard_count), clock, delays: None })
    }

    /// Puts a message into its batch. Refused when it is too large or names a queue that is not there: such a message is
    /// not counted as sent. Any other error is about the broker; the message has been taken.
    pub fn send(&mut self, message: &Message<'_>) -> Result<(), ClientError> {
        let moved = self.clock.advance();
        let filled = self.core.push(message, self.clock.now)?;
        if filled || moved {
            self.advance()?;
        }
        while !self.core.has_buffer_space() {
            self.free_buffer_space()?;
        }
        Ok(())
    }

    /// Does what is due without waiting: batches that have lingered leave, answers that have come are read.
    pub fn poll(&mut self) -> Result<(), ClientError> {
        self.clock.read();
        for shard in 0..self.links.shard_count() {
            self.links.take_results(shard, &mut self.core)?;
        }
        self.advance()
    }

    /// Sends everything and waits until each batch has its result.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.core.seal_all();
        loop {
            self.clock.read();
            self.advance()?;
            if self.core.is_idle() {
                return Ok(());
            }
            self.wait_for_progress()?;
        }
    }

    /// The next batch's end, in the order the ends were learned. When nobody takes them, the last 65,536 are kept.
    pub fn take_result(&mut self) -> Option<BatchResult> {
        self.core.take_result()
    }

    /// Messages by what became of them so far.
    pub fn counters(&self) -> ProducerCounters {
        self.core.counters()
    }

    /// N such that the first N messages given to [`send`](Self::send) are all acknowledged: whoever skips N messages of
    /// the same input goes on without loss.
    pub fn acknowledged_prefix(&self) -> u64 {
        self.core.acknowledged_prefix()
    }

    /// Of the batches that were refused or are unknown, the one with the earliest messages.
    pub fn first_failure(&self) -> Option<&BatchResult> {
        self.core.first_failure()
    }

    /// Whether every message has its result.
    pub fn is_idle(&self) -> bool {
        self.core.is_idle()
    }

    /// When [`poll`](Self::poll) is due even if no message comes.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.core.next_deadline()
    }

    /// What the user should hear of once; see [`Client::take_notices`].
    pub fn take_notices(&mut self) -> Vec<String> {
        self.client.take_notices()
    }

    /// The client this was made of. What was not flushed is dropped.
    pub fn into_client(self) -> Client {
        self.client
    }

    /// Has `tell` called once when nothing could be stored for two seconds because of a reason that may pass, and once more
    /// after something was: [`send`](Self::send) and [`flush`](Self::flush) wait meanwhile.
    pub fn tell_delays(&mut self, tell: impl FnMut(&Failure) + Send + Sync + 'static) {
        self.delays = Some(Delays { tell: Box::new(tell), is_told: false });
    }

    fn note_delay(&mut self, now: Instant) {
        let Some(delays) = &mut self.delays else { return };
        match self.core.held_up() {
            None => delays.is_told = false,
            Some((since, failure)) => {
                if !delays.is_told && now.saturating_duration_since(since) >= DELAY_TOLD_AFTER {
                    delays.is_told = true;
                    (delays.tell)(failure);
                }
            }
        }
    }

    /// Sends what may be sent. Answers are read along the way.
    fn advance(&mut self) -> Result<(), ClientError> {
        let now = self.clock.now.monotonic;
        self.note_delay(now);
        if self.core.is_route_due(now) {
            // When the broker cannot be asked, the batches' connections tell of it.
            if let Ok(topic) = self.client.refresh_topic(&self.topic) {
                self.core.route_found(&topic);
            }
        }
        self.core.resume_due(now);
        for shard in 0..self.links.shard_count() {
            if self.core.is_half_full(shard) {
                self.links.take_results(shard, &mut self.core)?;
            }
            self.send_ready(shard)?;
        }
        if self.core.take_stale_topic() {
            match self.client.refresh_topic(&self.topic) {
                Ok(topic) => self.core.topic_found(&topic),
                Err(ClientError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn send_ready(&mut self, shard: usize) -> Result<(), ClientError> {
        while let Some(queue) = self.core.next_queue(shard, self.clock.now.monotonic) {
            if self.links.get(shard).is_none() {
                match self.client.open_owner(queue) {
                    Ok(connection) => self.links.insert(shard, connection),
                    Err(error) => {
                        self.core.not_sent(queue);
                        return Err(error);
                    }
                };
            }
            let connection = self.links.get_mut(shard).expect("just opened");
            let (key, level, batch) = self.core.front(queue);
            let submitted = match self.core.source() {
                MessageSource::Own => connection.submit_produce(key, level, batch),
                MessageSource::Copies => connection.submit_copies(key, level, None, batch),
            };
            match submitted {
                Ok(correlation) => self.core.sent(shard, queue, correlation),
                Err(error) => {
                    self.core.not_sent(queue);
                    return Err(self.links.end_sending(shard, &mut self.core, error));
                }
            }
        }
        Ok(())
    }

    /// Waits for an answer, so that fewer bytes are unanswered. Batches leave before they are full.
    fn free_buffer_space(&mut self) -> Result<(), ClientError> {
        self.advance()?;
        if !self.core.has_buffer_space() {
            self.wait_for_progress()?;
        }
        Ok(())
    }

    /// Waits for an answer on any connection, or for the end of a pause.
    fn wait_for_progress(&mut self) -> Result<(), ClientError> {
        let Some(deadline) = self.core.deadline() else { return Ok(()) };
        let waiting = self.core.waiting_shards(self.links.shard_count());
        let ready = wait(&self.links.of(&waiting), deadline);
        self.clock.read();
        match ready {
            Ok(Some(_)) => {
                waiting.into_iter().try_for_each(|shard| self.links.take_results(shard, &mut self.core))
            }
            Ok(None) => self.links.end_silent(&mut self.core, self.clock.now.monotonic),
            Err(error) => {
                let address = self.client.server().to_owned();
                Err(ClientError::Disconnected { address, reason: error.to_string() })
            }
        }
    }

    /// Sends a request that is not a batch over the producer's client.
    pub fn call(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.client.call(request)
    }
}

impl CachedClock {
    fn new() -> Self {
        Self { coarse: coarse_time(), now: read_clocks() }
    }

    /// True when time has moved on since the last reading.
    fn advance(&mut self) -> bool {
        let coarse = coarse_time();
        let moved = coarse != self.coarse;
        if moved {
            self.coarse = coarse;
            self.now = read_clocks();
        }
        moved
    }

    fn read(&mut self) {
        *self = Self::new();
    }
}

fn coarse_time() -> rustix::time::Timespec {
    rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse)
}

pub(super) fn read_clocks() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { monotonic: Instant::now(), wall: Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)) }
}
