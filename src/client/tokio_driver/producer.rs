//! The producer for tasks.

use tokio::time::{Instant, timeout};

use crate::api::{Failure, Release};
use crate::client::batching::Message;
use crate::client::dispatch::{BatchResult, ProducerCounters};
use crate::client::holding::HoldResult;
use crate::client::links::Links;
use crate::client::producer::read_clocks;
use crate::client::producing::ProducerCore;
use crate::client::{ClientError, MessageSource, ProducerOptions};
use crate::types::{QueueNumber, TopicName};

use super::client::AsyncClient;
use super::connection::{AsyncConnection, any_readable};

/// Sends messages to one topic. The promises are those of the blocking [`Producer`](crate::client::Producer): a batch
/// that may be stored is never sent again, and a queue keeps the order of sending. As there, nothing runs behind it: who
/// pauses between messages lets [`poll`](Self::poll) run.
pub struct AsyncProducer {
    client: AsyncClient,
    topic: TopicName,
    core: ProducerCore,
    links: Links<AsyncConnection>,
}

impl AsyncProducer {
    /// A producer for a topic that exists, or that the broker makes by first use.
    pub async fn new(
        mut client: AsyncClient,
        topic: TopicName,
        options: ProducerOptions,
    ) -> Result<Self, ClientError> {
        let info = client.topic_to_produce(&topic).await?;
        let (shard_count, patience) = (client.shard_count(), client.timeouts().request);
        let core = ProducerCore::new(options, &info, shard_count, patience, read_clocks());
        Ok(Self { client, topic, core, links: Links::new(shard_count) })
    }

    /// Puts a message into its batch; waits when too much is unanswered. Refused when it is too large or names a queue
    /// that is not there: such a message is not counted as sent. Any other error is about the broker; the message has
    /// been taken.
    pub async fn send(&mut self, message: &Message<'_>) -> Result<(), ClientError> {
        if self.core.push(message, read_clocks())? {
            self.advance().await?;
        }
        while !self.core.has_buffer_space() {
            self.advance().await?;
            if !self.core.has_buffer_space() {
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
        self.core.seal_all();
        loop {
            self.advance().await?;
            if self.core.is_idle() {
                return Ok(());
            }
            self.wait_for_progress(None).await?;
        }
    }

    /// The next batch's end, in the order the ends were learned.
    pub fn take_result(&mut self) -> Option<BatchResult> {
        self.core.take_result()
    }

    /// Messages by what became of them so far.
    pub fn counters(&self) -> ProducerCounters {
        self.core.counters()
    }

    /// N such that the first N messages given to [`send`](Self::send) are all acknowledged.
    pub fn acknowledged_prefix(&self) -> u64 {
        self.core.acknowledged_prefix()
    }

    /// Of the batches that were refused or are unknown, the one with the earliest messages.
    pub fn first_failure(&self) -> Option<&BatchResult> {
        self.core.first_failure()
    }

    /// What the user should hear of once; see [`AsyncClient::take_notices`].
    pub fn take_notices(&mut self) -> Vec<String> {
        self.client.take_notices()
    }

    // ---- For a task that answers to many senders ---------------------------------------------------------------

    /// Takes a message, and says which queue it goes to and which number it has among those that were taken. It leaves
    /// with the next call of [`advance`](Self::advance).
    pub(in crate::client) fn take(&mut self, message: &Message<'_>) -> Result<(QueueNumber, u64), Failure> {
        let queue = self.core.queue_of(message)?;
        let sequence = self.core.counters().sent;
        self.core.push(message, read_clocks())?;
        Ok((queue, sequence))
    }

    /// Takes a message that its queue gets later. Its result will have this number.
    pub(in crate::client) fn hold(
        &mut self,
        number: u64,
        message: &Message<'_>,
        release: Release,
    ) -> Result<(), Failure> {
        self.core.hold(number, message, release, read_clocks())
    }

    /// Waits for an answer or for something to be done without one; [`advance`](Self::advance) does it. Does not return
    /// while there is nothing to wait for. When it is cancelled nothing is lost.
    pub(in crate::client) async fn wait(&mut self) -> Result<(), ClientError> {
        match self.core.deadline() {
            Some(_) => self.wait_for_progress(None).await,
            None => std::future::pending().await,
        }
    }

    /// Ends everything that has not left, as refused: it is not stored.
    pub(in crate::client) fn give_up(&mut self, reason: &str) {
        self.core.give_up(reason);
    }

    pub(in crate::client) fn take_hold_result(&mut self) -> Option<HoldResult> {
        self.core.take_hold_result()
    }

    // ---- Driving -----------------------------------------------------------------------------------------------

    /// Takes answers that have come, and sends what may be sent.
    pub(in crate::client) async fn advance(&mut self) -> Result<(), ClientError> {
        self.core.resume_due(std::time::Instant::now());
        self.receive_ready()?;
        if self.core.is_route_due(std::time::Instant::now()) {
            // When the broker cannot be asked, the batches' connections tell of it.
            if let Ok(topic) = self.client.topic(&self.topic).await {
                self.core.route_found(&topic);
            }
        }
        for shard in 0..self.links.shard_count() {
            self.send_ready(shard).await?;
        }
        if self.core.take_stale_topic() {
            match self.client.topic(&self.topic).await {
                Ok(topic) => self.core.topic_found(&topic),
                Err(ClientError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A message counts as sent when the connection has taken it: what a cancelled flush leaves there goes out with the
    /// next.
    async fn send_ready(&mut self, shard: usize) -> Result<(), ClientError> {
        let now = std::time::Instant::now();
        while let Some(queue) = self.core.next_queue(shard, now) {
            // Until the batch is taken the queue must stay listed, should this be cancelled.
            self.core.not_sent(queue);
            self.open(shard, queue).await?;
            let Some(queue) = self.core.next_queue(shard, now) else { break };
            let connection = self.links.get_mut(shard).expect("just opened");
            let (key, level, batch) = self.core.front(queue);
            let submitted = match self.core.source() {
                MessageSource::Own => connection.submit_produce(key, level, batch),
                MessageSource::Copies => connection.submit_copies(key, level, batch),
            };
            match submitted {
                Ok(correlation) => self.core.sent(shard, queue, correlation),
                Err(error) => {
                    self.core.not_sent(queue);
                    return Err(self.links.end_sending(shard, &mut self.core, error));
                }
            }
        }
        while let Some((message, request)) = self.core.next_hold(shard) {
            let Some(connection) = self.links.get_mut(shard) else {
                let queue = message.queue;
                self.core.hold_not_sent(message);
                self.open(shard, queue).await?;
                continue;
            };
            match connection.submit(&request) {
                Ok(correlation) => self.core.hold_sent(shard, message, correlation),
                Err(error) => {
                    self.core.hold_not_sent(message);
                    return Err(self.links.end_sending(shard, &mut self.core, error));
                }
            }
        }
        let Some(connection) = self.links.get_mut(shard) else { return Ok(()) };
        let waited = self.client.timeouts().request;
        let error = match timeout(waited, connection.flush()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            // The broker takes no more bytes.
            Err(_) => ClientError::Timeout { address: connection.address().to_owned(), waited },
        };
        Err(self.links.end_sending(shard, &mut self.core, error))
    }

    async fn open(&mut self, shard: usize, queue: QueueNumber) -> Result<(), ClientError> {
        if self.links.get(shard).is_none() {
            let connection = self.client.open_owner(queue).await?;
            self.links.insert(shard, connection);
        }
        Ok(())
    }

    /// Takes the answers that have come.
    fn receive_ready(&mut self) -> Result<(), ClientError> {
        (0..self.links.shard_count()).try_for_each(|shard| self.links.take_results(shard, &mut self.core))
    }

    /// Waits for an answer on any connection, the end of a pause or a linger, or `until`.
    async fn wait_for_progress(&mut self, until: Option<Instant>) -> Result<(), ClientError> {
        let due = self.core.deadline().map(Instant::from_std);
        let Some(deadline) = due.into_iter().chain(until).min() else { return Ok(()) };
        let connections = self.links.of(&self.core.waiting_shards(self.links.shard_count()));
        if any_readable(&connections, Some(deadline)).await {
            return self.receive_ready();
        }
        self.links.end_silent(&mut self.core, std::time::Instant::now())
    }
}
