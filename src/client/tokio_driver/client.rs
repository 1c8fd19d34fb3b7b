//! One node as a task sees it.

use std::collections::HashMap;

use tokio::time::timeout;

use crate::api::{Failure, OffsetPlace, Reply, Request, ShardAddress, Status, TopicChange, TopicInfo};
use crate::client::blocking::{CALLS_IN_FLIGHT_MAX, alone, is_repeatable};
use crate::client::{ClientError, Timeouts};
use crate::types::{QueueKey, QueueNumber, QueueOffset, TopicName};

use super::connection::AsyncConnection;

/// Requests to one node, each answered before the next is sent.
pub struct AsyncClient {
    server: String,
    timeouts: Timeouts,
    /// In the order of their ids: queue `q` belongs to `shards[q % shards.len()]`.
    shards: Vec<ShardAddress>,
    /// Idle connections by address. One that is in use is taken out, so that a cancelled call drops it.
    connections: HashMap<String, AsyncConnection>,
}

fn missing(topic: &TopicName) -> ClientError {
    Failure::new(Status::TopicNotExist, format!("topic {topic} does not exist: create it first")).into()
}

impl AsyncClient {
    /// Connects to a node through any of its addresses and asks where its shards are.
    pub async fn connect(server: &str, timeouts: Timeouts) -> Result<Self, ClientError> {
        let mut client =
            Self { server: server.to_owned(), timeouts, shards: Vec::new(), connections: HashMap::new() };
        client.route(&Request::Route(None)).await?;
        Ok(client)
    }

    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    pub fn shard_count(&self) -> u16 {
        self.shards.len() as u16
    }

    pub async fn create_topic(&mut self, change: TopicChange) -> Result<(), ClientError> {
        match self.call(&Request::CreateTopic(change)).await? {
            Reply::Done | Reply::Topic(_) => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// A topic's number and queue count.
    pub async fn topic(&mut self, topic: &TopicName) -> Result<TopicInfo, ClientError> {
        let found = self.route(&Request::Route(Some(topic.clone()))).await?;
        found.ok_or_else(|| missing(topic))
    }

    /// The same for a topic that is to be written to: where the broker makes topics by first use, this makes it.
    pub async fn topic_to_produce(&mut self, topic: &TopicName) -> Result<TopicInfo, ClientError> {
        let found = self.route(&Request::OpenTopic(topic.clone())).await?;
        found.ok_or_else(|| missing(topic))
    }

    pub async fn find_offset(
        &mut self,
        key: QueueKey,
        place: OffsetPlace,
    ) -> Result<QueueOffset, ClientError> {
        match self.call_owner(key.queue, &Request::FindOffset { key, place }).await? {
            Reply::OffsetFound(offset) => Ok(offset),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Sends a request to the address this client was made with.
    pub async fn call(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let server = self.server.clone();
        self.call_at(&server, request).await
    }

    /// Sends a request to the shard that owns `queue`.
    pub async fn call_owner(&mut self, queue: QueueNumber, request: &Request) -> Result<Reply, ClientError> {
        let address = self.owner(queue).to_owned();
        self.call_at(&address, request).await
    }

    /// Sends many requests, each to the shard that owns its queue, or without a queue to the address this client was
    /// made with, and does not wait for one answer before the next request. The answers stand in the order of the
    /// requests.
    pub async fn call_each(
        &mut self,
        requests: &[(Option<QueueNumber>, Request)],
    ) -> Result<Vec<Result<Reply, Failure>>, ClientError> {
        if let [(queue, request)] = requests {
            return alone(match queue {
                Some(queue) => self.call_owner(*queue, request).await,
                None => self.call(request).await,
            });
        }
        let mut by_address: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, (queue, _)) in requests.iter().enumerate() {
            let address = queue.map_or(self.server.as_str(), |queue| self.owner(queue));
            by_address.entry(address.to_owned()).or_default().push(index);
        }
        let mut answers: Vec<Option<Result<Reply, Failure>>> = vec![None; requests.len()];
        for (address, indices) in by_address {
            let mut connection = self.connection(&address).await?;
            for chunk in indices.chunks(CALLS_IN_FLIGHT_MAX) {
                let mut asked = HashMap::new();
                for &index in chunk {
                    asked.insert(connection.submit(&requests[index].1)?, index);
                }
                while connection.in_flight() > 0 {
                    let waited = self.timeouts.request;
                    let Ok(answer) = timeout(waited, connection.receive()).await else {
                        return Err(ClientError::Timeout { address, waited });
                    };
                    let (correlation, reply) = answer?;
                    answers[asked[&correlation]] = Some(reply.into_owned());
                }
            }
            self.connections.insert(address, connection);
        }
        Ok(answers.into_iter().map(|answer| answer.expect("every request was answered")).collect())
    }

    /// A connection to the shard that owns `queue`, for a caller who keeps requests in flight. When its address cannot
    /// be reached: to the address this client was made with, which forwards.
    pub async fn open_owner(&self, queue: QueueNumber) -> Result<AsyncConnection, ClientError> {
        self.connect_to(self.owner(queue)).await
    }

    fn owner(&self, queue: QueueNumber) -> &str {
        &self.shards[usize::from(queue.shard(self.shard_count()).0)].address
    }

    async fn route(&mut self, request: &Request) -> Result<Option<TopicInfo>, ClientError> {
        match self.call(request).await? {
            Reply::Route(route) => {
                self.shards = route.shards;
                Ok(route.topic)
            }
            other => Err(self.unexpected(&other)),
        }
    }

    async fn call_at(&mut self, address: &str, request: &Request) -> Result<Reply, ClientError> {
        let idled = self.connections.contains_key(address);
        let mut connection = self.connection(address).await?;
        let mut reply = connection.call(request).await;
        // An idle connection may have died long ago, with the broker it led to.
        let lost = matches!(&reply, Err(ClientError::Disconnected { .. }));
        if lost && idled && is_repeatable(request) {
            connection = self.connect_to(address).await?;
            reply = connection.call(request).await;
        }
        if matches!(&reply, Ok(_) | Err(ClientError::Refused(_))) {
            self.connections.insert(address.to_owned(), connection);
        }
        reply
    }

    /// A connection to `address`, taken out of the idle ones.
    async fn connection(&mut self, address: &str) -> Result<AsyncConnection, ClientError> {
        match self.connections.remove(address) {
            Some(connection) => Ok(connection),
            None => self.connect_to(address).await,
        }
    }

    /// A fresh connection to a shard. When its address cannot be reached: to the address this client was made with,
    /// which forwards.
    async fn connect_to(&self, address: &str) -> Result<AsyncConnection, ClientError> {
        match AsyncConnection::connect(address, self.timeouts).await {
            Err(error) if error.is_connection_loss() && address != self.server => {
                AsyncConnection::connect(&self.server, self.timeouts).await
            }
            result => result,
        }
    }

    pub(super) fn unexpected(&self, reply: &Reply) -> ClientError {
        ClientError::protocol(&self.server, format_args!("an answer of another kind: {reply:?}"))
    }
}
