//! One node as a task sees it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::timeout;

use crate::api::{
    EndTransaction, Failure, GroupSettings, Held, Hold, OffsetSpec, ReceiptOutcome, Receive, ReceiveHalves,
    Reply, Request, ShardAddress, Status, TopicChange, TopicInfo,
};
use crate::client::blocking::{CALLS_IN_FLIGHT_MAX, alone, is_repeatable};
use crate::client::commands::{self, Command};
use crate::client::{ClientError, ConnectOptions, Expected, LeasedMessage, Timeouts, UndecidedMessage};
use crate::types::{GroupName, NodeId, QueueKey, QueueNumber, QueueOffset, Receipt, TopicName};

use super::connection::AsyncConnection;

/// Requests to one node, each answered before the next is sent.
pub struct AsyncClient {
    server: String,
    options: ConnectOptions,
    /// Whose routes these are. Every connection is asked who answers, and another node gets nothing.
    node: Option<NodeId>,
    /// In the order of their ids: queue `q` belongs to `shards[q % shards.len()]`.
    shards: Vec<ShardAddress>,
    /// Idle connections by address. One that is in use is taken out, so that a cancelled call drops it.
    connections: HashMap<String, AsyncConnection>,
    /// Counts the connections that calls to `server` went over.
    server_connections: u64,
    notices: Vec<String>,
}

/// Notices that are kept when nobody takes them.
const NOTICES_MAX: usize = 64;

fn missing(topic: &TopicName) -> ClientError {
    Failure::new(Status::TopicNotExist, format!("topic {topic} does not exist: create it first")).into()
}

impl AsyncClient {
    /// Connects to a node through any of its addresses and asks where its shards are.
    pub async fn connect(server: &str, options: impl Into<ConnectOptions>) -> Result<Self, ClientError> {
        let mut client = Self {
            server: server.to_owned(),
            options: options.into(),
            node: None,
            shards: Vec::new(),
            connections: HashMap::new(),
            server_connections: 0,
            notices: Vec::new(),
        };
        client.route(&Request::Route(None)).await?;
        Ok(client)
    }

    /// Another client of the same node, with connections of its own.
    pub(in crate::client) fn sibling(&self) -> Self {
        Self {
            server: self.server.clone(),
            options: self.options.clone(),
            node: self.node,
            shards: self.shards.clone(),
            connections: HashMap::new(),
            server_connections: 0,
            notices: Vec::new(),
        }
    }

    /// How long this client waits.
    pub fn timeouts(&self) -> Timeouts {
        self.options.timeouts
    }

    /// What the node says it is; `None` from a broker of an earlier release.
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// What the user should hear of once, such as a shard at whose address another broker answers.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Shards of the node.
    pub fn shard_count(&self) -> u16 {
        self.shards.len() as u16
    }

    /// Makes a topic. Durable when it returns; refused when it exists already.
    pub async fn create_topic(&mut self, change: TopicChange) -> Result<(), ClientError> {
        self.run(commands::create_topic(change)).await
    }

    /// A topic's number and queue count.
    pub async fn topic(&mut self, topic: &TopicName) -> Result<TopicInfo, ClientError> {
        let found = self.route(&Request::Route(Some(topic.clone()))).await?;
        found.ok_or_else(|| missing(topic))
    }

    /// Describes a topic that is to be written to: where the broker makes topics by first use, this makes it.
    pub async fn topic_to_produce(&mut self, topic: &TopicName) -> Result<TopicInfo, ClientError> {
        let found = self.route(&Request::OpenTopic(topic.clone())).await?;
        found.ok_or_else(|| missing(topic))
    }

    /// The offset that a place in a queue has.
    pub async fn find_offset(&mut self, key: QueueKey, spec: OffsetSpec) -> Result<QueueOffset, ClientError> {
        self.run(commands::find_offset(key, spec)).await
    }

    /// Leases messages of a topic to a member of a group, at most `receive.wait` after it is asked. Asked of the shard
    /// that owns `receive.queue` when one is named, else of the one at the address this client was made with, which
    /// looks at all of them.
    ///
    /// Each message comes again to somebody of the group when its lease has ended, unless it was acknowledged before.
    /// The request is never repeated by itself: when the connection is lost, what may have been leased comes again then.
    ///
    /// A call that is cancelled drops its connection: the broker stops waiting, and leases nothing any more.
    pub async fn receive(&mut self, receive: Receive) -> Result<Vec<LeasedMessage>, ClientError> {
        self.run(commands::receive(receive)?).await
    }

    /// Ends the leases of messages that were dealt with: 1 to `limits::ACKNOWLEDGE_RECEIPTS_MAX` of them. The outcomes
    /// stand in the order of the receipts; a message whose outcome is another than `Acknowledged` may come again.
    pub async fn acknowledge(
        &mut self,
        group: &GroupName,
        receipts: &[Receipt],
    ) -> Result<Vec<ReceiptOutcome>, ClientError> {
        self.run(commands::acknowledge(group, receipts)).await
    }

    /// Moves the end of a lease to `lease` from now, and returns the receipt that counts from then on. Zero makes the
    /// message visible at once.
    pub async fn change_lease(
        &mut self,
        group: &GroupName,
        receipt: Receipt,
        lease: Duration,
    ) -> Result<Receipt, ClientError> {
        self.run(commands::change_lease(group, receipt, lease)).await
    }

    /// Changes how a group's messages are leased; `None` fields stay as they are. Returns what is set from then on.
    pub async fn alter_group(&mut self, settings: GroupSettings) -> Result<GroupSettings, ClientError> {
        self.run(commands::alter_group(settings)).await
    }

    /// Stores one message ([`Message::to_batch`](crate::client::Message::to_batch)) out of consumers' sight: until its time has
    /// come, or until its transaction is committed with the receipt that this returns. When the connection is lost it
    /// may be stored or not; it is never sent twice.
    pub async fn hold(&mut self, hold: Hold) -> Result<Held, ClientError> {
        self.run(commands::hold(hold)).await
    }

    /// Commits or rolls back a transaction. One that was ended before is refused as
    /// [`ReceiptExpired`](crate::api::Status::ReceiptExpired).
    pub async fn end_transaction(&mut self, end: EndTransaction) -> Result<(), ClientError> {
        self.run(commands::end_transaction(end)).await
    }

    /// Half messages of a topic whose producer has not decided within its time. Each is handed out again after the
    /// broker's interval, until it is decided on.
    pub async fn receive_halves(
        &mut self,
        receive: ReceiveHalves,
    ) -> Result<Vec<UndecidedMessage>, ClientError> {
        self.run(commands::receive_halves(receive)).await
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
                    let waited = self.options.timeouts.request;
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
    pub async fn open_owner(&mut self, queue: QueueNumber) -> Result<AsyncConnection, ClientError> {
        let address = self.owner(queue).to_owned();
        self.connect_to(&address).await
    }

    fn owner(&self, queue: QueueNumber) -> &str {
        &self.shards[usize::from(queue.shard(self.shard_count()).0)].address
    }

    async fn route(&mut self, request: &Request) -> Result<Option<TopicInfo>, ClientError> {
        let reply = self.call(request).await?;
        Ok(commands::route(reply, &self.server)?.topic)
    }

    /// Which of the connections to the address this client was made with calls go over: another number, another one.
    pub(super) fn server_connection(&self) -> u64 {
        self.server_connections
    }

    /// The idle connection to the address this client was made with. Bytes on it can only be its end.
    pub(super) fn idle(&self) -> Option<&AsyncConnection> {
        self.connections.get(&self.server)
    }

    /// Drops that connection if it has ended; true when it has.
    pub(super) fn drop_ended_idle(&mut self) -> bool {
        let has_ended = |connection: &mut AsyncConnection| !matches!(connection.try_receive(), Ok(None));
        let ended = self.connections.get_mut(&self.server).is_some_and(has_ended);
        if ended {
            self.connections.remove(&self.server);
        }
        ended
    }

    async fn call_at(&mut self, address: &str, request: &Request) -> Result<Reply, ClientError> {
        let idled = self.connections.contains_key(address);
        let mut connection = self.connection(address).await?;
        let mut reply = connection.call(request).await;
        // An idle connection may have died long ago, with the broker it led to.
        let lost = matches!(&reply, Err(ClientError::Disconnected { .. }));
        if lost && idled && is_repeatable(request) {
            connection = self.connect_again(address).await?;
            reply = connection.call(request).await;
        }
        if matches!(&reply, Ok(_) | Err(ClientError::Refused(_))) {
            self.connections.insert(address.to_owned(), connection);
        }
        if let Ok(Reply::Route(route)) = &reply {
            self.node = route.node;
            self.shards.clone_from(&route.shards);
        }
        reply
    }

    /// A connection to `address`, taken out of the idle ones.
    async fn connection(&mut self, address: &str) -> Result<AsyncConnection, ClientError> {
        match self.connections.remove(address) {
            Some(connection) => Ok(connection),
            None => self.connect_again(address).await,
        }
    }

    async fn connect_again(&mut self, address: &str) -> Result<AsyncConnection, ClientError> {
        self.server_connections += u64::from(address == self.server);
        self.connect_to(address).await
    }

    /// A fresh connection to a shard. When its address cannot be reached, or somebody else answers there: to the address
    /// this client was made with, which forwards.
    async fn connect_to(&mut self, address: &str) -> Result<AsyncConnection, ClientError> {
        let told = self.shards.iter().find(|told| told.address == address && address != self.server);
        let shard = told.map(|told| told.shard);
        let expected = self.node.map(|node| Expected { node, shard });
        let error = match AsyncConnection::connect_to(address, expected, self.options.clone()).await {
            Err(error @ ClientError::OtherPeer { .. }) => error,
            Err(error) if error.is_connection_loss() && address != self.server => error,
            result => return result,
        };
        let any = self.node.map(|node| Expected { node, shard: None });
        let connection = AsyncConnection::connect_to(&self.server, any, self.options.clone()).await?;
        let notice = format!("{error}. Its requests go through {}, which forwards them", self.server);
        if !self.notices.contains(&notice) && self.notices.len() < NOTICES_MAX {
            self.notices.push(notice);
        }
        Ok(connection)
    }

    pub(in crate::client) async fn run<T>(&mut self, command: Command<T>) -> Result<T, ClientError> {
        let reply = match command.queue {
            Some(queue) => self.call_owner(queue, &command.request).await?,
            None => self.call(&command.request).await?,
        };
        command.read(reply, &self.server)
    }
}
