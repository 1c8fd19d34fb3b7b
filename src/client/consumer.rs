//! The blocking consumer: fixed queues or a group's, over one connection per shard.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::api::ShardAddress;
#[cfg(doc)]
use crate::api::Status;
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset, TopicName};

use super::blocking::Client;
use super::calls::{Call, left};
use super::connection::{Connection, wait};
use super::error::ClientError;
use super::links::{Link, Links};
use super::membership::{Membership, member_name};
use super::messages::{Delivery, QueueName};
use super::options::ConsumerOptions;
use super::producer::read_clocks;
use super::reading::{Reader, Step};

/// Reads messages of some queues, batch by batch.
///
/// There is no thread behind it: requests are sent and answers read inside [`poll`](Self::poll), and so are the
/// heartbeats of a group's member. A member that does not poll within its session time-out loses its queues to others
/// and joins again with its next poll; what it had not committed is read again by them. While the program handles one
/// batch, the next is on its way.
///
/// An error of a call tells of a broker that was lost or that refused; the consumer keeps its place, and the next poll
/// tries again with a new connection. Messages are delivered again only after a rebalance or to another consumer.
///
/// ```no_run
/// use std::time::Duration;
/// use turbopump::client::{Client, Consumer, ConsumerOptions, Delivery, Timeouts};
///
/// let client = Client::connect("127.0.0.1:10911", Timeouts::default())?;
/// let topics = vec!["orders".parse()?];
/// let mut consumer = Consumer::subscribe(client, "billing".parse()?, topics, ConsumerOptions::default())?;
/// loop {
///     match consumer.poll(Duration::from_secs(1))? {
///         Some(Delivery::Messages(batch)) => {
///             for message in batch.messages() {
///                 println!("{}: {} bytes", message.offset, message.body().len());
///             }
///         }
///         Some(Delivery::Damaged(range)) => eprintln!("{range:?} is lost"),
///         Some(Delivery::Moved { queue, from, to }) => eprintln!("{queue:?}: from {from} to {to}"),
///         Some(Delivery::Rebalanced { .. }) => {}
///         Some(Delivery::End) => break,
///         None => {}
///     }
///     consumer.commit()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Consumer {
    client: Client,
    reader: Reader,
    links: Links<Connection>,
    /// The client's connection over which a member has joined.
    joined_over: u64,
}

impl Consumer {
    /// Reads fixed queues of a topic, or all of them: for ever also those that it gets later. With a group, its committed offsets say where to start and
    /// [`commit`](Self::commit) moves them; the group's membership is left alone.
    pub fn assign(
        mut client: Client,
        topic: TopicName,
        queues: Option<Vec<QueueNumber>>,
        group: Option<GroupName>,
        options: ConsumerOptions,
    ) -> Result<Self, ClientError> {
        let info = client.topic(&topic)?;
        let mut consumer = Self::new(client, group, options);
        consumer.reader.read_fixed(info, queues, Instant::now())?;
        Ok(consumer)
    }

    /// Joins a group, which shares the queues of `topics` among its members.
    pub fn subscribe(
        mut client: Client,
        group: GroupName,
        topics: Vec<TopicName>,
        options: ConsumerOptions,
    ) -> Result<Self, ClientError> {
        let mut ids = HashMap::new();
        for topic in &topics {
            ids.insert(client.topic(topic)?.id, topic.clone());
        }
        let name = member_name(read_clocks().wall);
        let membership = Membership::new(group.clone(), name, topics, options.session_timeout);
        let mut consumer = Self::new(client, Some(group), options);
        consumer.reader.read_assigned(ids, membership);
        Ok(consumer)
    }

    fn new(client: Client, group: Option<GroupName>, options: ConsumerOptions) -> Self {
        let shard_count = client.shard_count();
        Self {
            reader: Reader::new(options, client.timeouts().request, shard_count, group),
            links: Links::new(shard_count),
            joined_over: 0,
            client,
        }
    }

    /// The next batch or event; `None` when there was none in time. What an earlier poll returned counts as handled.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<Delivery<'_>>, ClientError> {
        self.reader.begin_poll();
        match self.next_step(Instant::now() + timeout)? {
            None => Ok(None),
            Some(Step::End) => Ok(Some(Delivery::End)),
            Some(Step::Event(event)) => Ok(Some(event.into_delivery())),
            Some(Step::Batch { shard, cut }) => {
                let connection = self.links.get(shard).expect("the batch came over it");
                Ok(Some(Delivery::Messages(self.reader.batch(cut, connection.last_payload()))))
            }
        }
    }

    /// Stores for the group up to where everything that was polled has been handled, in every queue. Durable when it
    /// returns.
    ///
    /// Refused with [`Status::MemberUnknown`] or [`Status::GenerationStale`] when this member's session has ended: its
    /// queues may be another's, who reads again what was not committed. The next poll tells that they are revoked, and
    /// joins again.
    pub fn commit(&mut self) -> Result<(), ClientError> {
        match self.reader.commit(None)? {
            Some(call) => self.carry_out(call),
            None => Ok(()),
        }
    }

    /// Goes on in a queue at `offset`, and counts what lies before it as handled, no more and no less: for a caller who
    /// stops within a batch, before [`commit`](Self::commit), or who wants to read again.
    pub fn seek(&mut self, key: QueueKey, offset: QueueOffset) {
        self.reader.fetcher.seek(key, offset);
    }

    /// Per queue, the offset after the last message that was polled.
    pub fn positions(&self) -> Vec<(QueueName, QueueOffset)> {
        self.reader.positions()
    }

    /// Whether this consumer is a member of a group all of whose queues are others'.
    pub fn has_no_queue(&self) -> bool {
        self.reader.is_member() && self.reader.positions().is_empty()
    }

    /// The name under which this consumer is a member of its group.
    pub fn member(&self) -> Option<&str> {
        self.reader.member()
    }

    /// Where the shards of the node are, in the order of their ids.
    pub fn shards(&self) -> impl Iterator<Item = &ShardAddress> + Clone {
        self.client.shards()
    }

    /// What the user should hear of once; see [`Client::take_notices`].
    pub fn take_notices(&mut self) -> Vec<String> {
        self.client.take_notices()
    }

    /// Leaves the group, so that its other members get the queues at once, and returns the client. Commits nothing.
    pub fn close(mut self) -> Result<Client, ClientError> {
        if let Some(request) = self.reader.leave() {
            left(self.client.call(&request))?;
        }
        Ok(self.client)
    }

    fn next_step(&mut self, deadline: Instant) -> Result<Option<Step>, ClientError> {
        loop {
            let now = Instant::now();
            while let Some(call) = self.reader.next_call(now) {
                self.carry_out(call)?;
            }
            if let Some(step) = self.links.hand_out(&mut self.reader)? {
                return Ok(Some(step));
            }
            self.reader.resume_due(now);
            self.ask()?;
            if self.links.take_answer(&mut self.reader)? {
                // The next fetch leaves before this answer's batches are handed out.
                self.ask()?;
                continue;
            }
            if now >= deadline {
                return Ok(None);
            }
            self.wait(deadline)?;
        }
    }

    fn carry_out(&mut self, call: Call) -> Result<(), ClientError> {
        let outcome = self.client.call_each(&call.requests);
        let over = self.client.server_connection();
        if call.is_join() {
            self.joined_over = over;
        } else if self.joined_over != over {
            self.reader.calls_lost();
        }
        self.reader.called(call, outcome, Instant::now())
    }

    /// Asks for what is on no queue's way yet.
    fn ask(&mut self) -> Result<(), ClientError> {
        let now = Instant::now();
        for shard in 0..self.links.shard_count() {
            let mut submitted = false;
            while let Some(ask) = self.reader.next_ask(shard, now) {
                if self.links.get(shard).is_none() {
                    match self.client.open_owner(ask.queue()) {
                        Ok(connection) => self.links.insert(shard, connection),
                        Err(error) => {
                            self.reader.not_asked(&ask);
                            return Err(error);
                        }
                    };
                }
                let connection = self.links.get_mut(shard).expect("just opened");
                match connection.submit(&ask.request()) {
                    Ok(correlation) => self.reader.asked(shard, &ask, correlation, now),
                    Err(error) => {
                        self.reader.not_asked(&ask);
                        return Err(self.links.end_reading(shard, &mut self.reader, error));
                    }
                }
                submitted = true;
            }
            if submitted
                && let Some(connection) = self.links.get_mut(shard)
                && let Err(error) = connection.flush()
            {
                return Err(self.links.end_reading(shard, &mut self.reader, error));
            }
        }
        Ok(())
    }

    /// Waits for an answer, or for something to be done without one.
    fn wait(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let until = self.reader.deadline().map_or(deadline, |due| due.min(deadline));
        let mut connections = self.links.of(&self.reader.waiting_shards());
        let reading = connections.len();
        // A member's session ends with the connection over which it joins.
        connections.extend(self.client.idle().filter(|_| self.reader.is_member()));
        let ready = wait(&connections, until).map_err(|error| ClientError::Disconnected {
            address: self.client.server().to_owned(),
            reason: error.to_string(),
        })?;
        if ready.is_some_and(|index| index >= reading) {
            self.client.drop_idle();
            self.reader.calls_lost();
        }
        self.links.end_overdue(&mut self.reader, ready.is_some())
    }
}
