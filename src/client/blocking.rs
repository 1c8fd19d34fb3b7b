//! One node as a program's thread sees it: where its shards are, what its topics are, and the requests that administer
//! them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{
    DelayedMessages, EndTransaction, Failure, FindMessages, Found, GroupInfo, GroupSettings, GroupStats,
    GroupTerms, Held, Hold, InstanceInfo, LatencyInfo, ListDelayed, ListSlow, MeasureLatency, NodeInfo,
    OffsetSpec, PurgeReport, PurgeTopic, RecallDelayed, ReceiptOutcome, Receive, ReceiveHalves, Redrive,
    RedriveReport, RedrivenRanges, Reply, Request, ResetGroup, RouteInfo, SetUpGroup, SettingChange,
    SettingInfo, ShardAddress, SlowRequest, StageTimes, StatsAsked, StatsPage, Status, TopicChange,
    TopicInfo, TopicStats,
};
use crate::types::{
    GroupName, InstanceName, NodeId, QueueKey, QueueNumber, QueueOffset, Receipt, ShardId, TopicName,
};

use super::commands::{self, Command};
use super::connection::Connection;
use super::error::ClientError;
use super::leased::{LeasedMessage, UndecidedMessage};
use super::options::{ConnectOptions, Timeouts};
use super::peer::{Expected, is_wildcard};

/// Requests that are sent ahead of their answers by [`Client::call_each`]: fewer than a broker lets one connection
/// wait for.
pub(super) const CALLS_IN_FLIGHT_MAX: usize = 128;

/// Requests to one node, each answered before the next is sent. Connections are opened when they are needed, one per
/// shard. A [`Producer`](super::Producer) or [`Consumer`](super::Consumer) is made of a client of its own.
///
/// ```no_run
/// use turbopump::api::TopicChange;
/// use turbopump::client::{Client, Timeouts};
///
/// let mut client = Client::connect("127.0.0.1:10911", Timeouts::default())?;
/// let topic: turbopump::types::TopicName = "orders".parse()?;
/// client.create_topic(TopicChange { topic: topic.clone(), queues: Some(8), retention: None, level: None })?;
/// for queue in client.describe_topic(&topic)?.queues {
///     println!("queue {}: {} to {}", queue.queue, queue.first_offset, queue.end_offset);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    server: String,
    options: ConnectOptions,
    /// Whose routes these are. Every connection is asked who answers, and another node gets nothing.
    node: Option<NodeId>,
    /// In the order of their ids: queue `q` belongs to `shards[q % shards.len()]`.
    shards: Vec<Shard>,
    topics: HashMap<TopicName, TopicInfo>,
    /// Idle connections by address.
    connections: HashMap<String, Connection>,
    /// Counts the connections that calls to `server` went over.
    server_connections: u64,
    notices: Vec<String>,
    /// Every answer is to say where its request's time went.
    asks_for_stages: bool,
    /// What the last one has said of that.
    stages: Option<StageTimes>,
}

struct Shard {
    address: ShardAddress,
    /// Set when the address leads to nobody or to somebody else: requests go to `server`, which forwards them.
    forwarded: bool,
}

impl Client {
    /// Connects to a node through any of its addresses and asks where its shards are.
    pub fn connect(server: &str, options: impl Into<ConnectOptions>) -> Result<Self, ClientError> {
        let mut client = Self {
            server: server.to_owned(),
            options: options.into(),
            node: None,
            shards: Vec::new(),
            topics: HashMap::new(),
            connections: HashMap::new(),
            server_connections: 0,
            notices: Vec::new(),
            asks_for_stages: false,
            stages: None,
        };
        client.refresh(&Request::Route(None))?;
        Ok(client)
    }

    /// The address this client was made with.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// How long this client waits.
    pub fn timeouts(&self) -> Timeouts {
        self.options.timeouts
    }

    /// How connections of this client are made.
    pub fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Shards of the node.
    pub fn shard_count(&self) -> u16 {
        self.shards.len() as u16
    }

    /// The shards in the order of their ids.
    pub fn shards(&self) -> impl Iterator<Item = &ShardAddress> + Clone {
        self.shards.iter().map(|shard| &shard.address)
    }

    /// What the node says it is; `None` from a broker of an earlier release.
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// What the user should hear of once, such as a shard whose own address cannot be reached.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Another client of the same node, with connections of its own.
    pub fn another(&self) -> Result<Self, ClientError> {
        Self::connect(&self.server, self.options.clone())
    }

    // ---- Topics ------------------------------------------------------------------------------------------------

    /// Makes a topic. Durable when it returns; refused when it exists already.
    pub fn create_topic(&mut self, change: TopicChange) -> Result<(), ClientError> {
        self.run(commands::create_topic(change))
    }

    /// Changes a topic; `None` fields stay as they are. A topic only gains queues.
    pub fn alter_topic(&mut self, change: TopicChange) -> Result<(), ClientError> {
        self.topics.remove(&change.topic);
        self.run(commands::alter_topic(change))
    }

    /// Deletes a topic with its messages and the places of all groups in it.
    pub fn delete_topic(&mut self, topic: &TopicName) -> Result<(), ClientError> {
        self.topics.remove(topic);
        self.run(commands::delete_topic(topic))
    }

    /// A topic with its queues and their bounds.
    pub fn describe_topic(&mut self, topic: &TopicName) -> Result<TopicInfo, ClientError> {
        self.run(commands::describe_topic(topic))
    }

    /// All topics, without their queues.
    pub fn list_topics(&mut self) -> Result<Vec<TopicInfo>, ClientError> {
        self.run(commands::list_topics())
    }

    /// A topic's number and queue count, remembered from the first time on.
    pub fn topic(&mut self, topic: &TopicName) -> Result<TopicInfo, ClientError> {
        match self.topics.get(topic) {
            Some(known) => Ok(known.clone()),
            None => self.refresh_topic(topic),
        }
    }

    /// Describes a topic that is to be written to: where the broker makes topics by first use, this makes it.
    pub fn topic_to_produce(&mut self, topic: &TopicName) -> Result<TopicInfo, ClientError> {
        match self.topics.get(topic) {
            Some(known) => Ok(known.clone()),
            None => self.look_topic_up(topic, &Request::OpenTopic(topic.clone())),
        }
    }

    /// Describes it, asked anew: after `TopicNotExist` or `QueueNotExist`.
    pub fn refresh_topic(&mut self, topic: &TopicName) -> Result<TopicInfo, ClientError> {
        self.topics.remove(topic);
        self.look_topic_up(topic, &Request::Route(Some(topic.clone())))
    }

    fn look_topic_up(&mut self, topic: &TopicName, request: &Request) -> Result<TopicInfo, ClientError> {
        let found = self.refresh(request)?.ok_or_else(|| {
            Failure::new(
                Status::TopicNotExist,
                format!("topic {topic} does not exist: create it with `turbopump topic create {topic}`"),
            )
        })?;
        self.topics.insert(topic.clone(), found.clone());
        Ok(found)
    }

    /// Asks for the route anew.
    fn refresh(&mut self, request: &Request) -> Result<Option<TopicInfo>, ClientError> {
        let reply = self.call(request)?;
        Ok(commands::route(reply, &self.server)?.topic)
    }

    /// Takes note of where the shards are.
    fn note_route(&mut self, route: &RouteInfo) {
        self.node = route.node;
        if !self.shards().eq(route.shards.iter()) {
            let shard = |address: &ShardAddress| Shard { address: address.clone(), forwarded: false };
            self.shards = route.shards.iter().map(shard).collect();
        }
    }

    // ---- Instances ---------------------------------------------------------------------------------------------

    /// Makes a name space of topics and groups.
    pub fn create_instance(&mut self, instance: &InstanceName) -> Result<(), ClientError> {
        self.run(commands::create_instance(instance))
    }

    /// Refused while the instance has topics.
    pub fn delete_instance(&mut self, instance: &InstanceName) -> Result<(), ClientError> {
        self.run(commands::delete_instance(instance))
    }

    /// The default instance first, then the others by name.
    pub fn list_instances(&mut self) -> Result<Vec<InstanceInfo>, ClientError> {
        self.run(commands::list_instances())
    }

    // ---- Queues ------------------------------------------------------------------------------------------------

    /// The offset that a place in a queue has.
    pub fn find_offset(&mut self, key: QueueKey, spec: OffsetSpec) -> Result<QueueOffset, ClientError> {
        self.run(commands::find_offset(key, spec))
    }

    /// Stored messages by what they carry, or by their place.
    pub fn find_messages(&mut self, find: FindMessages) -> Result<Found, ClientError> {
        self.run(commands::find_messages(find))
    }

    // ---- Groups ------------------------------------------------------------------------------------------------

    /// All groups by name.
    pub fn list_groups(&mut self) -> Result<Vec<GroupName>, ClientError> {
        self.run(commands::list_groups())
    }

    /// A group's members, receivers, settings, and its places and lags by queue.
    pub fn describe_group(&mut self, group: &GroupName) -> Result<GroupInfo, ClientError> {
        self.run(commands::describe_group(group))
    }

    /// Forgets everything about a group that has no members and no receivers.
    pub fn delete_group(&mut self, group: &GroupName) -> Result<(), ClientError> {
        self.run(commands::delete_group(group))
    }

    /// Moves the committed offsets of a group that has no members.
    pub fn reset_group(&mut self, reset: ResetGroup) -> Result<(), ClientError> {
        self.run(commands::reset_group(reset))
    }

    /// Where the group goes on in a queue; `None` when it never committed there.
    pub fn committed_offset(
        &mut self,
        group: &GroupName,
        key: QueueKey,
    ) -> Result<Option<QueueOffset>, ClientError> {
        self.run(commands::committed_offset(group, key))
    }

    /// Moves the group's place. Not as a member: whoever reads the queue for the group is not asked.
    pub fn commit_offset(
        &mut self,
        group: &GroupName,
        key: QueueKey,
        offset: QueueOffset,
    ) -> Result<(), ClientError> {
        self.run(commands::commit_offset(group, key, offset))
    }

    // ---- Leased messages ---------------------------------------------------------------------------------------

    /// Leases messages of a topic to a member of a group, at most `receive.wait` after it is asked. Asked of the shard
    /// that owns `receive.queue` when one is named, else of the one at the address this client was made with, which
    /// looks at all of them.
    ///
    /// Each message comes again to somebody of the group when its lease has ended, unless it was acknowledged before.
    /// The request is never repeated by itself: when the connection is lost, what may have been leased comes again then.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use turbopump::api::{ClientProtocol, Receive, ReceiptOutcome, ReceiveScope, Filter};
    /// use turbopump::client::{Client, Timeouts};
    ///
    /// # fn deal_with(_body: &[u8]) -> bool { true }
    /// let mut client = Client::connect("127.0.0.1:10911", Timeouts::default())?;
    /// let receive = Receive {
    ///     group: "billing".parse()?,
    ///     topic: "orders".parse()?,
    ///     scope: ReceiveScope::Anywhere,
    ///     filter: Filter::parse(Some("fruit || fish")),
    ///     count: 16,
    ///     bytes_max: 1024 * 1024,
    ///     wait: Duration::from_secs(20),
    ///     lease: None,
    ///     ordered: false,
    ///     protocol: ClientProtocol::Native,
    /// };
    /// loop {
    ///     for message in client.receive(receive.clone())? {
    ///         if deal_with(message.body()) {
    ///             let outcomes = client.acknowledge(&receive.group, &[message.receipt])?;
    ///             if outcomes != [ReceiptOutcome::Acknowledged] {
    ///                 println!("too late: it comes again");
    ///             }
    ///         }
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn receive(&mut self, receive: Receive) -> Result<Vec<LeasedMessage>, ClientError> {
        self.run(commands::receive(receive)?)
    }

    /// Ends the leases of messages that were dealt with: 1 to `limits::ACKNOWLEDGE_RECEIPTS_MAX` of them. The outcomes
    /// stand in the order of the receipts; a message whose outcome is another than `Acknowledged` may come again.
    pub fn acknowledge(
        &mut self,
        group: &GroupName,
        receipts: &[Receipt],
    ) -> Result<Vec<ReceiptOutcome>, ClientError> {
        self.run(commands::acknowledge(group, receipts))
    }

    /// Moves the end of a lease to `lease` from now, and returns the receipt that counts from then on. Zero makes the
    /// message visible at once.
    pub fn change_lease(
        &mut self,
        group: &GroupName,
        receipt: Receipt,
        lease: Duration,
    ) -> Result<Receipt, ClientError> {
        self.run(commands::change_lease(group, receipt, lease))
    }

    /// Changes how a group's messages are leased; `None` fields stay as they are. Returns what is set from then on.
    pub fn alter_group(&mut self, settings: GroupSettings) -> Result<GroupSettings, ClientError> {
        self.run(commands::alter_group(settings))
    }

    // ---- Held messages -----------------------------------------------------------------------------------------

    /// Stores one message ([`Message::to_batch`](super::Message::to_batch)) out of consumers' sight: until its time has
    /// come, or until its transaction is committed with the receipt that this returns. When the connection is lost it
    /// may be stored or not; it is never sent twice.
    pub fn hold(&mut self, hold: Hold) -> Result<Held, ClientError> {
        self.run(commands::hold(hold))
    }

    /// Commits or rolls back a transaction. One that was ended before is refused as
    /// [`ReceiptExpired`](crate::api::Status::ReceiptExpired).
    pub fn end_transaction(&mut self, end: EndTransaction) -> Result<(), ClientError> {
        self.run(commands::end_transaction(end))
    }

    /// Half messages of a topic whose producer has not decided within its time. Each is handed out again after the
    /// broker's interval, until it is decided on.
    pub fn receive_halves(&mut self, receive: ReceiveHalves) -> Result<Vec<UndecidedMessage>, ClientError> {
        self.run(commands::receive_halves(receive))
    }

    // ---- By hand -----------------------------------------------------------------------------------------------

    /// Says what clients may do with a topic, by RocketMQ's bits: 4 to read, 2 to write, 6 for both.
    pub fn permit_topic(&mut self, topic: &TopicName, permission: u8) -> Result<(), ClientError> {
        self.run(commands::permit_topic(topic, permission))
    }

    /// Lets a topic's messages before a place go, for everybody, and says where its queues begin now and when their bytes go.
    pub fn purge_topic(&mut self, purge: PurgeTopic) -> Result<PurgeReport, ClientError> {
        self.run(commands::purge_topic(purge))
    }

    /// Makes a group, or changes how it is treated; what is not set stays as it is. Returns all of it.
    pub fn set_up_group(&mut self, set_up: SetUpGroup) -> Result<GroupTerms, ClientError> {
        self.run(commands::set_up_group(set_up))
    }

    /// Some of a topic's messages on one shard that wait for their time.
    pub fn list_delayed(&mut self, list: ListDelayed) -> Result<DelayedMessages, ClientError> {
        self.run(commands::list_delayed(list))
    }

    /// Takes a delayed message back. Refused as [`ReceiptExpired`](crate::api::Status::ReceiptExpired) when it waits no more.
    pub fn recall_delayed(&mut self, recall: RecallDelayed) -> Result<(), ClientError> {
        self.run(commands::recall_delayed(recall))
    }

    // ---- Dead letters ------------------------------------------------------------------------------------------

    /// Sends dead letters of a group to a topic, one after the other; what was sent before is left alone. What was moved when the
    /// connection is lost is [`Before`](crate::api::Redriven::Before) when it is asked for again.
    pub fn redrive(&mut self, redrive: Redrive) -> Result<RedriveReport, ClientError> {
        self.run(commands::redrive(redrive))
    }

    /// Which messages of a queue of a group's dead letters are none any more, from an offset on.
    pub fn redriven_ranges(
        &mut self,
        group: &GroupName,
        queue: QueueNumber,
        from: QueueOffset,
    ) -> Result<RedrivenRanges, ClientError> {
        self.run(commands::redriven_ranges(group, queue, from))
    }

    // ---- The node ----------------------------------------------------------------------------------------------

    /// All settings of the node, after these changes, which are all made or none: see `turbopump config`.
    pub fn settings(&mut self, changes: Vec<SettingChange>) -> Result<Vec<SettingInfo>, ClientError> {
        self.run(commands::settings(changes))
    }

    /// Counters and latencies. With `count_syscalls` the shards count their system calls from now on.
    pub fn describe_node(&mut self, count_syscalls: bool) -> Result<NodeInfo, ClientError> {
        self.run(commands::describe_node(count_syscalls))
    }

    /// A page of topics' figures: what they have, and what went in and out.
    pub fn topic_stats(
        &mut self,
        asked: StatsAsked<TopicName>,
    ) -> Result<StatsPage<TopicStats, TopicName>, ClientError> {
        self.run(commands::topic_stats(asked))
    }

    /// A page of groups' figures: how far they are in their topics.
    pub fn group_stats(
        &mut self,
        asked: StatsAsked<GroupName>,
    ) -> Result<StatsPage<GroupStats, GroupName>, ClientError> {
        self.run(commands::group_stats(asked))
    }

    /// The slowest requests of the last ten minutes, the slowest first, with where their time went.
    pub fn list_slow(&mut self, list: ListSlow) -> Result<Vec<SlowRequest>, ClientError> {
        self.run(commands::list_slow(list))
    }

    /// Where the time of a topic's requests goes that are answered from now on; it takes as long as is measured.
    pub fn measure_latency(&mut self, measure: MeasureLatency) -> Result<LatencyInfo, ClientError> {
        self.run(commands::measure_latency(measure))
    }

    // ---- Any request -------------------------------------------------------------------------------------------

    /// From now on every answer is to say where its request's time went, or not.
    pub fn ask_for_stages(&mut self, asks: bool) {
        self.asks_for_stages = asks;
    }

    /// Where the time of the last request of [`call`](Self::call) or [`call_owner`](Self::call_owner) went, up to the writing
    /// of its answer. `None`: it was not [asked for](Self::ask_for_stages), or the broker is of an earlier release.
    pub fn stages(&self) -> Option<StageTimes> {
        self.stages
    }

    /// Sends a request to the address this client was made with.
    pub fn call(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let server = self.server.clone();
        self.call_at(&server, request)
    }

    /// Sends a request to the shard that owns `queue`, or to one that forwards it there.
    pub fn call_owner(&mut self, queue: QueueNumber, request: &Request) -> Result<Reply, ClientError> {
        let address = self.reachable(queue)?;
        self.call_at(&address, request)
    }

    /// Sends many requests, each to the shard that owns its queue, or without a queue to the address this client was
    /// made with, and does not wait for one answer before the next request. The answers stand in the order of the
    /// requests.
    pub fn call_each(
        &mut self,
        requests: &[(Option<QueueNumber>, Request)],
    ) -> Result<Vec<Result<Reply, Failure>>, ClientError> {
        if let [(queue, request)] = requests {
            return alone(match queue {
                Some(queue) => self.call_owner(*queue, request),
                None => self.call(request),
            });
        }
        let mut by_address: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, (queue, _)) in requests.iter().enumerate() {
            let address = match queue {
                Some(queue) => self.reachable(*queue)?,
                None => self.server.clone(),
            };
            by_address.entry(address).or_default().push(index);
        }
        let mut answers: Vec<Option<Result<Reply, Failure>>> = vec![None; requests.len()];
        for (address, indices) in by_address {
            for chunk in indices.chunks(CALLS_IN_FLIGHT_MAX) {
                let mut connection = self.connection(&address)?;
                let mut asked = HashMap::new();
                for &index in chunk {
                    asked.insert(connection.submit(&requests[index].1)?, index);
                }
                while connection.in_flight() > 0 {
                    let waited = self.options.timeouts.request;
                    let Some((correlation, reply)) = connection.receive(waited)? else {
                        return Err(ClientError::Timeout { address, waited });
                    };
                    answers[asked[&correlation]] = Some(reply.into_owned());
                }
                self.connections.insert(address.clone(), connection);
            }
        }
        Ok(answers.into_iter().map(|answer| answer.expect("every request was answered")).collect())
    }

    /// A fresh connection to the shard that owns `queue`, for a caller who keeps requests in flight. Falls back to the
    /// address this client was made with, and says so once.
    pub fn open_owner(&mut self, queue: QueueNumber) -> Result<Connection, ClientError> {
        let address = self.reachable(queue)?;
        match self.connections.remove(&address) {
            // `reachable` has just opened it, or it idles.
            Some(connection) if self.server != address => Ok(connection),
            kept => {
                self.connections.extend(kept.map(|connection| (address.clone(), connection)));
                self.connect_to(&address)
            }
        }
    }

    /// The address that takes requests for `queue`.
    fn reachable(&mut self, queue: QueueNumber) -> Result<String, ClientError> {
        self.reachable_shard(queue.shard(self.shard_count()))
    }

    /// The address that takes requests for a shard's queues: its own, or the one this client was made with, which forwards
    /// them. The first request to a shard opens its connection.
    pub fn reachable_shard(&mut self, shard: ShardId) -> Result<String, ClientError> {
        let index = usize::from(shard.0);
        let shard = &self.shards[index];
        let address = shard.address.address.clone();
        if shard.forwarded || address == self.server {
            return Ok(self.server.clone());
        }
        if self.connections.contains_key(&address) {
            return Ok(address);
        }
        match self.connect_to(&address) {
            Ok(connection) => {
                self.connections.insert(address.clone(), connection);
                Ok(address)
            }
            Err(error) => {
                // When the node is gone altogether, that is the error to tell.
                let connection = self.connection(&self.server.clone())?;
                self.connections.insert(self.server.clone(), connection);
                self.notices.push(format!(
                    "shard {} cannot be reached directly: {error}. Its requests go through {}, which forwards them",
                    self.shards[index].address.shard, self.server
                ));
                self.shards[index].forwarded = true;
                Ok(self.server.clone())
            }
        }
    }

    /// A connection to `address`, taken out of the idle ones: it is put back when it is idle again, and dropped when it
    /// failed.
    fn connection(&mut self, address: &str) -> Result<Connection, ClientError> {
        match self.connections.remove(address) {
            Some(connection) => Ok(connection),
            None => self.connect_again(address),
        }
    }

    fn connect_again(&mut self, address: &str) -> Result<Connection, ClientError> {
        self.server_connections += u64::from(address == self.server);
        self.connect_to(address)
    }

    /// A fresh connection, once it is known to lead to whom it should.
    fn connect_to(&self, address: &str) -> Result<Connection, ClientError> {
        if address != self.server && is_wildcard(address) {
            let source =
                Arc::new(io::Error::new(io::ErrorKind::AddrNotAvailable, "it is no address of a machine"));
            return Err(ClientError::Connect { address: address.to_owned(), source });
        }
        Connection::connect_to(address, self.expected(address), self.options.clone())
    }

    /// Who is to answer at an address: behind the one this client was made with, any of the node's shards.
    pub fn expected(&self, address: &str) -> Option<Expected> {
        let told = self.shards().find(|told| told.address == address && address != self.server);
        self.node.map(|node| Expected { node, shard: told.map(|told| told.shard) })
    }

    /// Which of the connections to the address this client was made with calls go over: another number, another one.
    pub(super) fn server_connection(&self) -> u64 {
        self.server_connections
    }

    /// The idle connection to the address this client was made with. Bytes on it can only be its end.
    pub(super) fn idle(&self) -> Option<&Connection> {
        self.connections.get(&self.server)
    }

    pub(super) fn drop_idle(&mut self) {
        self.connections.remove(&self.server);
    }

    fn call_at(&mut self, address: &str, request: &Request) -> Result<Reply, ClientError> {
        let idled = self.connections.contains_key(address);
        let mut connection = self.connection(address)?;
        connection.ask_for_stages(self.asks_for_stages);
        let mut reply = connection.call(request);
        // An idle connection may have died long ago, with the broker it led to.
        let lost = matches!(&reply, Err(ClientError::Disconnected { .. }));
        if lost && idled && is_repeatable(request) {
            connection = self.connect_again(address)?;
            connection.ask_for_stages(self.asks_for_stages);
            reply = connection.call(request);
        }
        self.stages = connection.stages().filter(|_| self.asks_for_stages);
        if matches!(&reply, Ok(_) | Err(ClientError::Refused(_))) {
            self.connections.insert(address.to_owned(), connection);
        }
        if let Ok(Reply::Route(route)) = &reply {
            self.note_route(route);
        }
        reply
    }

    fn run<T>(&mut self, command: Command<T>) -> Result<T, ClientError> {
        let reply = match command.queue {
            Some(queue) => self.call_owner(queue, &command.request)?,
            None => self.call(&command.request)?,
        };
        command.read(reply, &self.server)
    }
}

/// The answer to the only request of several: a refusal is an answer.
pub(super) fn alone(outcome: Result<Reply, ClientError>) -> Result<Vec<Result<Reply, Failure>>, ClientError> {
    match outcome {
        Ok(reply) => Ok(vec![Ok(reply)]),
        Err(ClientError::Refused(failure)) => Ok(vec![Err(failure)]),
        Err(error) => Err(error),
    }
}

/// Whether carrying a request out twice is the same as once, answer included.
pub(super) fn is_repeatable(request: &Request) -> bool {
    match request {
        Request::Produce(_)
        | Request::ProduceCopies(_)
        | Request::CreateTopic(_)
        | Request::DeleteTopic(_)
        | Request::CreateInstance(_)
        | Request::DeleteInstance(_)
        | Request::DeleteGroup(_)
        | Request::Receive(_)
        | Request::Acknowledge(_)
        | Request::ChangeLease(_)
        | Request::Hold(_)
        | Request::EndTransaction(_)
        | Request::ReceiveHalves(_)
        | Request::RecallDelayed(_)
        | Request::PurgeTopic(_)
        | Request::SetUpGroup(_)
        | Request::Redrive(_) => false,
        Request::Fetch(_)
        | Request::Watch(_)
        | Request::FindOffset { .. }
        | Request::AlterTopic(_)
        | Request::AlterGroup(_)
        | Request::FindMessages(_)
        | Request::DescribeTopic(_)
        | Request::ListTopics
        | Request::ListInstances
        | Request::Route(_)
        | Request::OpenTopic(_)
        | Request::CommitOffset(_)
        | Request::CommittedOffset { .. }
        | Request::JoinGroup(_)
        | Request::LeaveGroup { .. }
        | Request::ListGroups
        | Request::DescribeGroup(_)
        | Request::ResetGroup(_)
        | Request::PermitTopic { .. }
        | Request::ListDelayed(_)
        | Request::RedrivenRanges { .. }
        | Request::DescribeNode { .. }
        | Request::Settings(_)
        | Request::TopicStats(_)
        | Request::GroupStats(_)
        | Request::ListSlow(_)
        | Request::MeasureLatency(_) => true,
    }
}
