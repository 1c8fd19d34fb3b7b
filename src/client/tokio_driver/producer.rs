//! The producer for tasks.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::batching::{Message, Partitioner};
use crate::client::core::IN_FLIGHT_MAX;
use crate::client::dispatch::{BatchResult, Dispatcher, ProducerCounters};
use crate::client::options::ROUTE_INTERVAL;
use crate::client::producer::read_clocks;
use crate::client::{ClientError, ProducerOptions};
use crate::protocol::native::DecodedReply;
use crate::types::{QueueNumber, TopicName};

use super::client::AsyncClient;
use super::connection::{AsyncConnection, any_readable};

/// Sends messages to one topic. The promises are those of the blocking [`Producer`](crate::client::Producer): a batch
/// that may be stored is never sent again, and a queue keeps the order of sending. As there, nothing runs behind it: who
/// pauses between messages lets [`poll`](Self::poll) run.
pub struct AsyncProducer {
    client: AsyncClient,
    topic: TopicName,
    dispatcher: Dispatcher,
    links: Vec<Link>,
    /// When the topic is to be asked for again: it may have got queues.
    route_due: Instant,
}

/// The way to one shard.
#[derive(Default)]
struct Link {
    connection: Option<AsyncConnection>,
    /// When the oldest answer that is still missing began to be waited for, or the last one came.
    waiting_since: Option<Instant>,
}

impl AsyncProducer {
    /// A producer for a topic that exists, or that the broker makes by first use.
    pub async fn new(
        mut client: AsyncClient,
        topic: TopicName,
        options: ProducerOptions,
    ) -> Result<Self, ClientError> {
        let options = ProducerOptions { in_flight: options.in_flight.clamp(1, IN_FLIGHT_MAX), ..options };
        let info = client.topic_to_produce(&topic).await?;
        let turn = QueueNumber(read_clocks().wall.0 as u32 ^ std::process::id());
        let partitioner = Partitioner::new(info.queue_count, turn);
        let shard_count = client.shard_count();
        Ok(Self {
            dispatcher: Dispatcher::new(options, info.id, partitioner, shard_count),
            links: (0..shard_count).map(|_| Link::default()).collect(),
            client,
            topic,
            route_due: Instant::now() + ROUTE_INTERVAL,
        })
    }

    /// Puts a message into its batch; waits when too much is unanswered. Refused when it is too large or names a queue
    /// that is not there: such a message is not counted as sent. Any other error is about the broker; the message has
    /// been taken.
    pub async fn send(&mut self, message: &Message<'_>) -> Result<(), ClientError> {
        if self.dispatcher.push(message, read_clocks())? {
            self.advance().await?;
        }
        while !self.dispatcher.has_room() {
            self.advance().await?;
            if !self.dispatcher.has_room() {
                self.wait_for_progress(None).await?;
            }
        }
        Ok(())
    }

    /// Does what is due, batches that have lingered and answers, and then waits for more to do until `deadline`. Made to
    /// run beside the source of messages, in a `select!`.
    pub async fn poll(&mut self, deadline: Instant) -> Result<(), ClientError> {
        loop {
            self.receive_ready()?;
            self.advance().await?;
            if Instant::now() >= deadline {
                return Ok(());
            }
            self.wait_for_progress(Some(deadline)).await?;
        }
    }

    /// Sends everything and waits until each batch has its result.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.dispatcher.seal_all();
        loop {
            self.advance().await?;
            if self.dispatcher.is_idle() {
                return Ok(());
            }
            self.wait_for_progress(None).await?;
        }
    }

    /// The next batch's end, in the order the ends were learned.
    pub fn take_result(&mut self) -> Option<BatchResult> {
        self.dispatcher.take_result()
    }

    pub fn counters(&self) -> ProducerCounters {
        self.dispatcher.counters()
    }

    /// N such that the first N messages given to [`send`](Self::send) are all acknowledged.
    pub fn acknowledged_prefix(&self) -> u64 {
        self.dispatcher.acknowledged_prefix()
    }

    /// Of the batches that were refused or are unknown, the one with the earliest messages.
    pub fn first_failure(&self) -> Option<&BatchResult> {
        self.dispatcher.first_failure()
    }

    /// What the user should hear of once; see [`AsyncClient::take_notices`].
    pub fn take_notices(&mut self) -> Vec<String> {
        self.client.take_notices()
    }

    async fn advance(&mut self) -> Result<(), ClientError> {
        let now = std::time::Instant::now();
        self.dispatcher.resume_due(now);
        self.receive_ready()?;
        if Instant::now() >= self.route_due {
            self.route_due = Instant::now() + ROUTE_INTERVAL;
            // When the broker cannot be asked, the batches' connections tell of it.
            if let Ok(info) = self.client.topic(&self.topic).await {
                self.dispatcher.add_queues(info.id, info.queue_count);
            }
        }
        for shard in 0..self.links.len() {
            self.send_ready(shard).await?;
        }
        if self.dispatcher.take_stale_topic() {
            match self.client.topic(&self.topic).await {
                Ok(info) => self.dispatcher.set_topic(info.id, info.queue_count),
                // If the topic is gone, the broker refuses the batches once more, and then they are.
                Err(ClientError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A batch counts as sent when the core has taken it: what a cancelled flush leaves behind goes out with the next.
    async fn send_ready(&mut self, shard: usize) -> Result<(), ClientError> {
        let now = std::time::Instant::now();
        while let Some(queue) = self.dispatcher.next_queue(shard, now) {
            // Until the batch is taken the queue must stay listed, should this be cancelled.
            self.dispatcher.not_sent(queue);
            if self.links[shard].connection.is_none() {
                let connection = self.client.open_owner(queue).await?;
                self.links[shard].connection = Some(connection);
            }
            let Some(queue) = self.dispatcher.next_queue(shard, now) else { break };
            let link = &mut self.links[shard];
            let connection = link.connection.as_mut().expect("just opened");
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
        match &mut self.links[shard].connection {
            Some(connection) => connection.flush().await.map_err(|error| self.lose(shard, error)),
            None => Ok(()),
        }
    }

    /// Takes the answers that have come.
    fn receive_ready(&mut self) -> Result<(), ClientError> {
        for shard in 0..self.links.len() {
            while self.dispatcher.in_flight(shard) > 0 {
                let link = &mut self.links[shard];
                let Some(connection) = &mut link.connection else { break };
                let (correlation, reply) = match connection.try_receive() {
                    Ok(Some(answer)) => answer,
                    Ok(None) => break,
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
                self.dispatcher.answered(shard, correlation, answer, std::time::Instant::now());
                link.waiting_since = (self.dispatcher.in_flight(shard) > 0).then(Instant::now);
            }
        }
        Ok(())
    }

    /// Waits for an answer on any connection, the end of a pause or a linger, or `until`.
    async fn wait_for_progress(&mut self, until: Option<Instant>) -> Result<(), ClientError> {
        let patience = self.client.timeouts().request;
        let waiting: Vec<usize> =
            (0..self.links.len()).filter(|&shard| self.dispatcher.in_flight(shard) > 0).collect();
        let answer_due = waiting.iter().filter_map(|&shard| self.links[shard].waiting_since).min();
        let due = [
            answer_due.map(|since| since + patience),
            self.dispatcher.next_deadline().map(Instant::from_std),
            until,
        ];
        let Some(deadline) = due.into_iter().flatten().min() else { return Ok(()) };
        let connections: Vec<&AsyncConnection> =
            waiting.iter().filter_map(|&shard| self.links[shard].connection.as_ref()).collect();
        if any_readable(&connections, Some(deadline)).await {
            return self.receive_ready();
        }
        self.give_up_silent(&waiting, patience)
    }

    /// Gives up the connections on which an answer is overdue.
    fn give_up_silent(&mut self, waiting: &[usize], patience: Duration) -> Result<(), ClientError> {
        let now = Instant::now();
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
        self.dispatcher.lost(shard, &error.to_string(), std::time::Instant::now());
        error
    }
}
