//! The blocking producer: batches over one connection per shard.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::api::{Reply, Request};
use crate::protocol::native::DecodedReply;
use crate::types::{QueueNumber, Timestamp, TopicName};

use super::batching::{Message, Now, Partitioner};
use super::blocking::Client;
use super::connection::{Connection, wait};
use super::core::IN_FLIGHT_MAX;
use super::dispatch::{BatchResult, Dispatcher, ProducerCounters};
use super::error::ClientError;
use super::options::{ProducerOptions, ROUTE_INTERVAL};

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
    dispatcher: Dispatcher,
    links: Vec<Link>,
    clock: CachedClock,
    in_flight_max: usize,
    /// When the topic is to be asked for again: it may have got queues.
    route_due: Instant,
}

/// The way to one shard.
#[derive(Default)]
struct Link {
    connection: Option<Connection>,
    /// When the oldest answer that is still missing began to be waited for, or the last one came.
    waiting_since: Option<Instant>,
}

/// Both clocks, read anew when the kernel's coarse clock (a few nanoseconds to ask, a few milliseconds fine) has moved.
struct CachedClock {
    coarse: rustix::time::Timespec,
    now: Now,
}

impl Producer {
    /// A producer for a topic that exists, or that the broker makes by first use. The client is its own from here on.
    pub fn new(mut client: Client, topic: TopicName, options: ProducerOptions) -> Result<Self, ClientError> {
        let options = ProducerOptions { in_flight: options.in_flight.clamp(1, IN_FLIGHT_MAX), ..options };
        let info = client.topic_to_produce(&topic)?;
        let clock = CachedClock::new();
        // Producers that start together would otherwise all begin with queue 0.
        let turn = QueueNumber(clock.now.wall.0 as u32 ^ std::process::id());
        let partitioner = Partitioner::new(info.queue_count, turn);
        let shard_count = client.shard_count();
        Ok(Self {
            dispatcher: Dispatcher::new(options, info.id, partitioner, shard_count),
            links: (0..shard_count).map(|_| Link::default()).collect(),
            client,
            topic,
            route_due: clock.now.monotonic + ROUTE_INTERVAL,
            clock,
            in_flight_max: options.in_flight,
        })
    }

    /// Puts a message into its batch. Refused when it is too large or names a queue that is not there: such a message is
    /// not counted as sent. Any other error is about the broker; the message has been taken.
    pub fn send(&mut self, message: &Message<'_>) -> Result<(), ClientError> {
        let moved = self.clock.advance();
        let filled = self.dispatcher.push(message, self.clock.now)?;
        if filled || moved {
            self.advance()?;
        }
        while !self.dispatcher.has_room() {
            self.make_room()?;
        }
        Ok(())
    }

    /// Does what is due without waiting: batches that have lingered leave, answers that have come are read.
    pub fn poll(&mut self) -> Result<(), ClientError> {
        self.clock.read();
        for shard in 0..self.links.len() {
            self.receive_ready(shard)?;
        }
        self.advance()
    }

    /// Sends everything and waits until each batch has its result.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.dispatcher.seal_all();
        loop {
            self.clock.read();
            self.advance()?;
            if self.dispatcher.is_idle() {
                return Ok(());
            }
            self.wait_for_progress()?;
        }
    }

    /// The next batch's end, in the order the ends were learned. When nobody takes them, the last 65,536 are kept.
    pub fn take_result(&mut self) -> Option<BatchResult> {
        self.dispatcher.take_result()
    }

    pub fn counters(&self) -> ProducerCounters {
        self.dispatcher.counters()
    }

    /// N such that the first N messages given to [`send`](Self::send) are all acknowledged: whoever skips N messages of
    /// the same input goes on without loss.
    pub fn acknowledged_prefix(&self) -> u64 {
        self.dispatcher.acknowledged_prefix()
    }

    /// Of the batches that were refused or are unknown, the one with the earliest messages.
    pub fn first_failure(&self) -> Option<&BatchResult> {
        self.dispatcher.first_failure()
    }

    /// Whether every message has its result.
    pub fn is_idle(&self) -> bool {
        self.dispatcher.is_idle()
    }

    /// When [`poll`](Self::poll) is due even if no message comes.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.dispatcher.next_deadline()
    }

    /// What the user should hear of once; see [`Client::take_notices`].
    pub fn take_notices(&mut self) -> Vec<String> {
        self.client.take_notices()
    }

    /// The client this was made of. What was not flushed is dropped.
    pub fn into_client(self) -> Client {
        self.client
    }

    /// Sends what may be sent. Answers are read along the way once half of a window is on its way, so that it seldom
    /// fills up.
    fn advance(&mut self) -> Result<(), ClientError> {
        let now = self.clock.now.monotonic;
        if now >= self.route_due {
            self.look_for_queues(now);
        }
        self.dispatcher.resume_due(now);
        for shard in 0..self.links.len() {
            if self.dispatcher.in_flight(shard) * 2 >= self.in_flight_max {
                self.receive_ready(shard)?;
            }
            self.send_ready(shard)?;
        }
        if self.dispatcher.take_stale_topic() {
            self.refresh_topic()?;
        }
        Ok(())
    }

    fn send_ready(&mut self, shard: usize) -> Result<(), ClientError> {
        while let Some(queue) = self.dispatcher.next_queue(shard, self.clock.now.monotonic) {
            let link = &mut self.links[shard];
            let connection = match &mut link.connection {
                Some(connection) => connection,
                None => match self.client.open_owner(queue) {
                    Ok(connection) => link.connection.insert(connection),
                    Err(error) => {
                        self.dispatcher.not_sent(queue);
                        return Err(error);
                    }
                },
            };
            let (key, level, batch) = self.dispatcher.front(queue);
            match connection.submit_produce(key, level, batch) {
                Ok(correlation) => self.dispatcher.sent(queue, correlation),
                Err(error) => {
                    self.dispatcher.not_sent(queue);
                    return Err(self.lose(shard, error));
                }
            }
            link.waiting_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Takes the answers that have come.
    fn receive_ready(&mut self, shard: usize) -> Result<(), ClientError> {
        while self.dispatcher.in_flight(shard) > 0 {
            let link = &mut self.links[shard];
            let Some(connection) = &mut link.connection else { return Ok(()) };
            let (correlation, reply) = match connection.try_receive() {
                Ok(Some(answer)) => answer,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.lose(shard, error)),
            };
            let answer = match reply {
                DecodedReply::Produced(produced) => Ok(produced),
                DecodedReply::Failed(failure) => Err(failure),
                DecodedReply::Fetched(_) | DecodedReply::Other(_) => {
                    let error = ClientError::protocol(
                        connection.address(),
                        "a batch was answered with something else",
                    );
                    return Err(self.lose(shard, error));
                }
            };
            let now = Instant::now();
            self.dispatcher.answered(shard, correlation, answer, now);
            link.waiting_since = (self.dispatcher.in_flight(shard) > 0).then_some(now);
        }
        Ok(())
    }

    /// Waits for an answer, so that fewer bytes are unanswered. Batches leave before they are full.
    fn make_room(&mut self) -> Result<(), ClientError> {
        self.advance()?;
        if !self.dispatcher.has_room() {
            self.wait_for_progress()?;
        }
        Ok(())
    }

    /// Waits for an answer on any connection, or for the end of a pause.
    fn wait_for_progress(&mut self) -> Result<(), ClientError> {
        let patience = self.client.timeouts().request;
        let waiting: Vec<usize> =
            (0..self.links.len()).filter(|&shard| self.dispatcher.in_flight(shard) > 0).collect();
        let answer_due = waiting.iter().filter_map(|&shard| self.links[shard].waiting_since).min();
        let answer_due = answer_due.map(|since| since + patience);
        let deadline = answer_due.into_iter().chain(self.dispatcher.next_deadline()).min();
        let Some(deadline) = deadline else { return Ok(()) };
        let connections: Vec<&Connection> =
            waiting.iter().filter_map(|&shard| self.links[shard].connection.as_ref()).collect();
        let ready = wait(&connections, deadline);
        self.clock.read();
        match ready {
            Ok(Some(_)) => {
                for shard in waiting {
                    self.receive_ready(shard)?;
                }
                Ok(())
            }
            Ok(None) => self.give_up_silent(&waiting, patience),
            Err(error) => {
                let address = self.client.server().to_owned();
                Err(ClientError::Disconnected { address, reason: error.to_string() })
            }
        }
    }

    /// Gives up the connections on which an answer is overdue.
    fn give_up_silent(&mut self, waiting: &[usize], patience: Duration) -> Result<(), ClientError> {
        let now = self.clock.now.monotonic;
        for &shard in waiting {
            let link = &self.links[shard];
            let overdue = link.waiting_since.is_some_and(|since| now >= since + patience);
            if let (true, Some(connection)) = (overdue, &link.connection) {
                let address = connection.address().to_owned();
                return Err(self.lose(shard, ClientError::Timeout { address, waited: patience }));
            }
        }
        Ok(())
    }

    /// Ends a connection: what was in flight on it is unknown.
    fn lose(&mut self, shard: usize, error: ClientError) -> ClientError {
        self.links[shard] = Link::default();
        self.dispatcher.lost(shard, &error.to_string(), Instant::now());
        error
    }

    /// The topic may have been deleted and made again. If it is gone, the broker refuses the batches once more, and then
    /// they are.
    fn refresh_topic(&mut self) -> Result<(), ClientError> {
        match self.client.refresh_topic(&self.topic) {
            Ok(info) => self.dispatcher.set_topic(info.id, info.queue_count),
            Err(ClientError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes note of queues that the topic has got. When the broker cannot be asked, the batches' connections tell of it.
    fn look_for_queues(&mut self, now: Instant) {
        self.route_due = now + ROUTE_INTERVAL;
        if let Ok(info) = self.client.refresh_topic(&self.topic) {
            self.dispatcher.add_queues(info.id, info.queue_count);
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
