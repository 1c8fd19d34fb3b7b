//! One node as a task sees it.

use std::collections::HashMap;

use crate::api::{Failure, OffsetPlace, Reply, Request, ShardAddress, Status, TopicChange, TopicInfo};
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

impl AsyncClient {
    /// Connects to a node through any of its addresses and asks where its shards are.
    pub async fn connect(server: &str, timeouts: Timeouts) -> Result<Self, ClientError> {
        let mut client =
            Self { server: server.to_owned(), timeouts, shards: Vec::new(), connections: HashMap::new() };
        client.route(None).await?;
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
        self.route(Some(topic)).await?.ok_or_else(|| {
            Failure::new(Status::TopicNotExist, format!("topic {topic} does not exist: create it first"))
                .into()
        })
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

    /// A connection to the shard that owns `queue`, for a caller who keeps requests in flight. When its address cannot
    /// be reached: to the address this client was made with, which forwards.
    pub async fn open_owner(&self, queue: QueueNumber) -> Result<AsyncConnection, ClientError> {
        let owner = self.owner(queue);
        match AsyncConnection::connect(owner, self.timeouts).await {
            Err(error) if error.is_connection_loss() && owner != self.server => {
                AsyncConnection::connect(&self.server, self.timeouts).await
            }
            result => result,
        }
    }

    fn owner(&self, queue: QueueNumber) -> &str {
        &self.shards[usize::from(queue.shard(self.shard_count()).0)].address
    }

    async fn route(&mut self, topic: Option<&TopicName>) -> Result<Option<TopicInfo>, ClientError> {
        match self.call(&Request::Route(topic.cloned())).await? {
            Reply::Route(route) => {
                self.shards = route.shards;
                Ok(route.topic)
            }
            other => Err(self.unexpected(&other)),
        }
    }

    async fn call_at(&mut self, address: &str, request: &Request) -> Result<Reply, ClientError> {
        let mut connection = match self.connections.remove(address) {
            Some(connection) => connection,
            None if address == self.server => AsyncConnection::connect(address, self.timeouts).await?,
            None => match AsyncConnection::connect(address, self.timeouts).await {
                // Any shard forwards.
                Err(error) if error.is_connection_loss() => {
                    AsyncConnection::connect(&self.server, self.timeouts).await?
                }
                result => result?,
            },
        };
        let reply = connection.call(request).await;
        if matches!(&reply, Ok(_) | Err(ClientError::Refused(_))) {
            self.connections.insert(address.to_owned(), connection);
        }
        reply
    }

    pub(super) fn unexpected(&self, reply: &Reply) -> ClientError {
        ClientError::protocol(&self.server, format_args!("an answer of another kind: {reply:?}"))
    }
}
