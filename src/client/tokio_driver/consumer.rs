//! The consumer for tasks: fixed queues or a group's, over one connection per shard.

use std::collections::HashMap;
use std::time::Instant;

use crate::client::calls::{Call, left};
use crate::client::links::{Link, Links};
use crate::client::membership::{Membership, member_name};
use crate::client::messages::{Delivery, QueueName};
use crate::client::producer::read_clocks;
use crate::client::reading::{Reader, Step};
use crate::client::{ClientError, ConsumerOptions};
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset, TopicName};

use super::client::AsyncClient;
use super::connection::{AsyncConnection, any_readable};

/// Reads messages of some queues, batch by batch. While the program handles one batch, the next is on its way.
///
/// The promises are those of the blocking [`Consumer`](crate::client::Consumer). As there, nothing runs behind it: the
/// heartbeats of a group's member are sent inside [`next`](Self::next), and one that is not called within its session
/// time-out loses its queues.
pub struct AsyncConsumer {
    client: AsyncClient,
    reader: Reader,
    links: Links<AsyncConnection>,
    /// The client's connection over which a member has joined.
    joined_over: u64,
}

impl AsyncConsumer {
    /// Reads fixed queues of a topic, or all of them: for ever also those that it gets later. With a group, its committed offsets say where to start and
    /// [`commit`](Self::commit) moves them; the group's membership is left alone.
    pub async fn assign(
        mut client: AsyncClient,
        topic: TopicName,
        queues: Option<Vec<QueueNumber>>,
        group: Option<GroupName>,
        options: ConsumerOptions,
    ) -> Result<Self, ClientError> {
        let info = client.topic(&topic).await?;
        let mut consumer = Self::new(client, group, options);
        consumer.reader.read_fixed(info, queues, Instant::now())?;
        Ok(consumer)
    }

    /// Joins a group, which shares the queues of `topics` among its members.
    pub async fn subscribe(
        mut client: AsyncClient,
        group: GroupName,
        topics: Vec<TopicName>,
        options: ConsumerOptions,
    ) -> Result<Self, ClientError> {
        let mut ids = HashMap::new();
        for topic in &topics {
            ids.insert(client.topic(topic).await?.id, topic.clone());
        }
        let name = member_name(read_clocks().wall);
        let membership = Membership::new(group.clone(), name, topics, options.session_timeout);
        let mut consumer = Self::new(client, Some(group), options);
        consumer.reader.read_assigned(ids, membership);
        Ok(consumer)
    }

    fn new(client: AsyncClient, group: Option<GroupName>, options: ConsumerOptions) -> Self {
        let shard_count = client.shard_count();
        Self {
            reader: Reader::new(options, client.timeouts().request, shard_count, group),
            links: Links::new(shard_count),
            joined_over: 0,
            client,
        }
    }

    /// The next batch or event; what was returned before counts as handled. Waits as long as it takes: put a time-out
    /// around it. After an error about the broker the next call tries again with a new connection, from the same place.
    pub async fn next(&mut self) -> Result<Delivery<'_>, ClientError> {
        self.reader.begin_poll();
        match self.next_step().await? {
            Step::End => Ok(Delivery::End),
            Step::Event(event) => Ok(event.into_delivery()),
            Step::Batch { shard, cut } => {
                let connection = self.links.get(shard).expect("the batch came over it");
                Ok(Delivery::Messages(self.reader.batch(cut, connection.last_payload())))
            }
        }
    }

    /// Stores for the group up to where everything that was handed out has been handled, in every queue. Durable when it
    /// returns. Refused as [`Consumer::commit`](crate::client::Consumer::commit) is; when it is cancelled, what was on
    /// its way may be stored or not.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        self.commit_before(None).await
    }

    /// Commits, but in the queue that is named only up to there: for a caller who has not handled all of a batch.
    pub(in crate::client) async fn commit_before(
        &mut self,
        next: Option<(QueueKey, QueueOffset)>,
    ) -> Result<(), ClientError> {
        match self.reader.commit(next)? {
            Some(call) => self.carry_out(call).await,
            None => Ok(()),
        }
    }

    /// Goes on in a queue at `offset`, and counts what lies before it as handled, no more and no less: for a caller who
    /// stops within a batch, before [`commit`](Self::commit), or who wants to read again.
    pub fn seek(&mut self, key: QueueKey, offset: QueueOffset) {
        self.reader.fetcher.seek(key, offset);
    }

    /// Per queue, the offset after the last message that was handed out.
    pub fn positions(&self) -> Vec<(QueueName, QueueOffset)> {
        self.reader.positions()
    }

    /// The name under which this consumer is a member of its group.
    pub fn member(&self) -> Option<&str> {
        self.reader.member()
    }

    /// Whether this consumer is a member of a group all of whose queues are others'.
    pub fn has_no_queue(&self) -> bool {
        self.reader.is_member() && self.reader.positions().is_empty()
    }

    /// What the user should hear of once; see [`AsyncClient::take_notices`].
    pub fn take_notices(&mut self) -> Vec<String> {
        self.client.take_notices()
    }

    /// Leaves the group, so that its other members get the queues at once, and returns the client. Commits nothing.
    pub async fn close(mut self) -> Result<AsyncClient, ClientError> {
        if let Some(request) = self.reader.leave() {
            left(self.client.call(&request).await)?;
        }
        Ok(self.client)
    }

    async fn next_step(&mut self) -> Result<Step, ClientError> {
        loop {
            let now = Instant::now();
            while let Some(call) = self.reader.next_call(now) {
                self.carry_out(call).await?;
            }
            if let Some(step) = self.links.hand_out(&mut self.reader)? {
                return Ok(step);
            }
            self.reader.resume_due(now);
            self.ask().await?;
            if self.links.take_answer(&mut self.reader)? {
                // The next fetch leaves before this answer's batches are handed out.
                self.ask().await?;
            } else {
                self.wait().await?;
            }
        }
    }

    async fn carry_out(&mut self, call: Call) -> Result<(), ClientError> {
        let outcome = self.client.call_each(&call.requests).await;
        let over = self.client.server_connection();
        if call.is_join() {
            self.joined_over = over;
        } else if self.joined_over != over {
            self.reader.calls_lost();
        }
        self.reader.called(call, outcome, Instant::now())
    }

    /// Asks for what is on no queue's way yet.
    async fn ask(&mut self) -> Result<(), ClientError> {
        let now = Instant::now();
        for shard in 0..self.links.shard_count() {
            while let Some(ask) = self.reader.next_ask(shard, now) {
                let Some(connection) = self.links.get_mut(shard) else {
                    // It is to be asked again, should this be cancelled.
                    self.reader.not_asked(&ask);
                    let connection = self.client.open_owner(ask.queue()).await?;
                    self.links.insert(shard, connection);
                    continue;
                };
                match connection.submit(&ask.request()) {
                    Ok(correlation) => self.reader.asked(shard, &ask, correlation, now),
                    Err(error) => {
                        self.reader.not_asked(&ask);
                        return Err(self.links.end_reading(shard, &mut self.reader, error));
                    }
                }
            }
            if let Some(connection) = self.links.get_mut(shard)
                && let Err(error) = connection.flush().await
            {
                return Err(self.links.end_reading(shard, &mut self.reader, error));
            }
        }
        Ok(())
    }

    /// Waits for an answer, or for something to be done without one.
    async fn wait(&mut self) -> Result<(), ClientError> {
        let mut connections = self.links.of(&self.reader.waiting_shards());
        // A member's session ends with the connection over which it joins.
        connections.extend(self.client.idle().filter(|_| self.reader.is_member()));
        let ready = any_readable(&connections, self.reader.deadline().map(Into::into)).await;
        if self.reader.is_member() && self.client.drop_ended_idle() {
            self.reader.calls_lost();
        }
        self.links.end_overdue(&mut self.reader, ready)
    }
}
