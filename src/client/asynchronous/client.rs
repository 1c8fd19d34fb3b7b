//! One node as all tasks of a program see it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::api::{
    DelayedMessages, EndTransaction, Failure, FindMessages, Found, GroupInfo, GroupSettings, GroupStats,
    GroupTerms, InstanceInfo, LatencyInfo, ListDelayed, ListSlow, MeasureLatency, NodeInfo, OffsetSpec,
    PurgeReport, PurgeTopic, RecallDelayed, ReceiptOutcome, Receive, ReceiveHalves, Redrive, RedriveReport,
    RedrivenRanges, ResetGroup, SetUpGroup, SlowRequest, StatsAsked, StatsPage, TopicChange, TopicInfo,
    TopicStats,
};
use crate::client::commands::{self, Command};
use crate::client::tokio_driver::{AsyncClient, AsyncConsumer, AsyncProducer};
use crate::client::{
    ClientError, ConnectOptions, ConsumerOptions, LeasedMessage, ProducerOptions, Timeouts, UndecidedMessage,
};
use crate::types::{
    GroupName, InstanceName, NameError, NodeId, QueueKey, QueueNumber, QueueOffset, Receipt, TopicName,
};

use super::producer::Producer;
use super::stream::MessageStream;

/// Sets of connections that are kept for the next call; those of calls that ran at the same time as more others are closed.
const IDLE_MAX: usize = 8;

/// One node. Cheap to clone: clones share connections.
///
/// Calls of clones run beside each other, each over connections of its own while it runs. A call waits for its answer as
/// long as [`Timeouts::request`] says, beyond the time that the request itself asks to wait.
///
/// **Errors**: [`ClientError::Refused`] is the broker's answer that it did not do it, and why. One for which
/// [`ClientError::is_connection_loss`] holds says nothing about what was asked: it was carried out or not. Requests that
/// change nothing, and those that may be carried out twice without harm, are sent once more by themselves when a
/// connection that had idled turns out to be lost.
///
/// **Dropped futures**: the connection that the call used is closed with it. What it asked for was carried out or not; a
/// broker that waits for the answer of a [`receive`](Self::receive) stops, and leases nothing any more.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    /// What new sets of connections begin with.
    template: AsyncClient,
    idle: Mutex<Vec<AsyncClient>>,
}

impl Client {
    /// Connects to a node through any of its addresses, `host:port`, and asks where its shards are. Waits 5 seconds for a
    /// connection and 30 for an answer; see [`connect_with`](Self::connect_with).
    pub async fn connect(server: &str) -> Result<Self, ClientError> {
        Self::connect_with(server, Timeouts::default()).await
    }

    /// Connects with other [`Timeouts`], or with [`ConnectOptions`], which have the access key.
    pub async fn connect_with(server: &str, options: impl Into<ConnectOptions>) -> Result<Self, ClientError> {
        let first = AsyncClient::connect(server, options).await?;
        let shared = Shared { template: first.sibling(), idle: Mutex::new(vec![first]) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What the node said it is when this client was connected; `None` from a broker of an earlier release.
    pub fn node(&self) -> Option<NodeId> {
        self.shared.template.node()
    }

    // ---- Messages ----------------------------------------------------------------------------------------------

    /// A producer for a topic that exists, or that the broker makes by first use. What it sends leaves at once while few
    /// batches are on their way, and gathers into batches otherwise.
    ///
    /// Errors beside those of every call: the name is none of a topic, or there is no such topic. Panics outside of a
    /// tokio runtime.
    pub async fn producer(&self, topic: &str) -> Result<Producer, ClientError> {
        let options = ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() };
        self.producer_with(topic, options).await
    }

    /// A producer with other options: for example a [`linger`](ProducerOptions::linger), for fewer and larger batches.
    pub async fn producer_with(
        &self,
        topic: &str,
        options: ProducerOptions,
    ) -> Result<Producer, ClientError> {
        let topic: TopicName = topic.parse().map_err(misnamed)?;
        let producer = AsyncProducer::new(self.shared.template.sibling(), topic.clone(), options).await?;
        Ok(Producer::start(producer, topic, options))
    }

    /// All messages of a topic, from the oldest one on, for ever; without a group, and so without a place that outlives
    /// the stream.
    pub async fn read(&self, topic: &str) -> Result<MessageStream, ClientError> {
        self.read_with(topic, ConsumerOptions::default()).await
    }

    /// All messages of a topic from another offset on, or up to the end: see [`ConsumerOptions::start`] and [`ConsumerOptions::until`].
    pub async fn read_with(
        &self,
        topic: &str,
        options: ConsumerOptions,
    ) -> Result<MessageStream, ClientError> {
        let topic = topic.parse().map_err(misnamed)?;
        let client = self.shared.template.sibling();
        let consumer = AsyncConsumer::assign(client, topic, None, None, options).await?;
        Ok(MessageStream::new(consumer))
    }

    /// Joins a group, which shares the queues of `topics` among its members; all its members name the same topics. It goes
    /// on where it has [committed](MessageStream::commit), at first with the oldest message.
    pub async fn subscribe(&self, group: &str, topics: &[&str]) -> Result<MessageStream, ClientError> {
        self.subscribe_with(group, topics, ConsumerOptions::default()).await
    }

    /// A consumer with other options: for example a longer [session time-out](ConsumerOptions::session_timeout).
    pub async fn subscribe_with(
        &self,
        group: &str,
        topics: &[&str],
        options: ConsumerOptions,
    ) -> Result<MessageStream, ClientError> {
        let group = group.parse().map_err(misnamed)?;
        let names: Result<Vec<TopicName>, _> = topics.iter().map(|topic| topic.parse()).collect();
        let client = self.shared.template.sibling();
        let consumer = AsyncConsumer::subscribe(client, group, names.map_err(misnamed)?, options).await?;
        Ok(MessageStream::new(consumer))
    }

    // ---- Topics ------------------------------------------------------------------------------------------------

    /// Makes a topic. Durable when it returns. Refused when it exists already.
    pub async fn create_topic(&self, change: TopicChange) -> Result<(), ClientError> {
        self.run(commands::create_topic(change)).await
    }

    /// Changes a topic; `None` fields stay as they are. A topic only gains queues.
    pub async fn alter_topic(&self, change: TopicChange) -> Result<(), ClientError> {
        self.run(commands::alter_topic(change)).await
    }

    /// Deletes a topic with its messages and the places of all groups in it.
    pub async fn delete_topic(&self, topic: &TopicName) -> Result<(), ClientError> {
        self.run(commands::delete_topic(topic)).await
    }

    /// A topic with its queues and their bounds.
    pub async fn describe_topic(&self, topic: &TopicName) -> Result<TopicInfo, ClientError> {
        self.run(commands::describe_topic(topic)).await
    }

    /// All topics, without their queues.
    pub async fn list_topics(&self) -> Result<Vec<TopicInfo>, ClientError> {
        self.run(commands::list_topics()).await
    }

    // ---- Instances ---------------------------------------------------------------------------------------------

    /// Makes a name space of topics and groups.
    pub async fn create_instance(&self, instance: &InstanceName) -> Result<(), ClientError> {
        self.run(commands::create_instance(instance)).await
    }

    /// Refused while the instance has topics.
    pub async fn delete_instance(&self, instance: &InstanceName) -> Result<(), ClientError> {
        self.run(commands::delete_instance(instance)).await
    }

    /// The default instance first, then the others by name.
    pub async fn list_instances(&self) -> Result<Vec<InstanceInfo>, ClientError> {
        self.run(commands::list_instances()).await
    }

    // ---- Groups ------------------------------------------------------------------------------------------------

    /// All groups by name.
    pub async fn list_groups(&self) -> Result<Vec<GroupName>, ClientError> {
        self.run(commands::list_groups()).await
    }

    /// A group's members, receivers, settings, and its places and lags by queue.
    pub async fn describe_group(&self, group: &GroupName) -> Result<GroupInfo, ClientError> {
        self.run(commands::describe_group(group)).await
    }

    /// Forgets everything about a group that has no members and no receivers.
    pub async fn delete_group(&self, group: &GroupName) -> Result<(), ClientError> {
        self.run(commands::delete_group(group)).await
    }

    /// Moves the committed offsets of a group that has no members.
    pub async fn reset_group(&self, reset: ResetGroup) -> Result<(), ClientError> {
        self.run(commands::reset_group(reset)).await
    }

    /// Changes how a group's messages are leased; `None` fields stay as they are. Returns what is set from then on.
    pub async fn alter_group(&self, settings: GroupSettings) -> Result<GroupSettings, ClientError> {
        self.run(commands::alter_group(settings)).await
    }

    /// Where the group goes on in a queue; `None` when it never committed there.
    pub async fn committed_offset(
        &self,
        group: &GroupName,
        key: QueueKey,
    ) -> Result<Option<QueueOffset>, ClientError> {
        self.run(commands::committed_offset(group, key)).await
    }

    /// Moves the group's place. Not as a member: whoever reads the queue for the group is not asked.
    pub async fn commit_offset(
        &self,
        group: &GroupName,
        key: QueueKey,
        offset: QueueOffset,
    ) -> Result<(), ClientError> {
        self.run(commands::commit_offset(group, key, offset)).await
    }

    // ---- Leased messages ---------------------------------------------------------------------------------------

    /// Leases messages of a topic to a member of a group, at most `receive.wait` after it is asked. Asked of the shard
    /// that owns `receive.queue` when one is named, else of the one at the address this client was made with, which looks
    /// at all of them.
    ///
    /// Each message comes again to somebody of the group when its lease has ended, unless it was acknowledged before. The
    /// request is never repeated by itself: when the connection is lost, or the future dropped in the moment of the
    /// answer, what was leased comes again then.
    pub async fn receive(&self, receive: Receive) -> Result<Vec<LeasedMessage>, ClientError> {
        self.run(commands::receive(receive)?).await
    }

    /// Ends the leases of messages that were dealt with: 1 to `limits::ACKNOWLEDGE_RECEIPTS_MAX` of them. The outcomes
    /// stand in the order of the receipts; a message whose outcome is another than `Acknowledged` may come again.
    pub async fn acknowledge(
        &self,
        group: &GroupName,
        receipts: &[Receipt],
    ) -> Result<Vec<ReceiptOutcome>, ClientError> {
        self.run(commands::acknowledge(group, receipts)).await
    }

    /// Moves the end of a lease to `lease` from now, and returns the receipt that counts from then on. Zero makes the
    /// message visible at once.
    pub async fn change_lease(
        &self,
        group: &GroupName,
        receipt: Receipt,
        lease: Duration,
    ) -> Result<Receipt, ClientError> {
        self.run(commands::change_lease(group, receipt, lease)).await
    }

    // ---- Transactions ------------------------------------------------------------------------------------------

    /// Commits or rolls back a transaction. One that was ended before is refused as
    /// [`ReceiptExpired`](crate::api::Status::ReceiptExpired).
    pub async fn end_transaction(&self, end: EndTransaction) -> Result<(), ClientError> {
        self.run(commands::end_transaction(end)).await
    }

    /// Half messages of a topic whose producer has not decided within its time. Each is handed out again after the
    /// broker's interval, until it is decided on.
    pub async fn receive_halves(&self, receive: ReceiveHalves) -> Result<Vec<UndecidedMessage>, ClientError> {
        self.run(commands::receive_halves(receive)).await
    }

    // ---- By hand -----------------------------------------------------------------------------------------------

    /// Says what clients may do with a topic, by RocketMQ's bits: 4 to read, 2 to write, 6 for both.
    pub async fn permit_topic(&self, topic: &TopicName, permission: u8) -> Result<(), ClientError> {
        self.run(commands::permit_topic(topic, permission)).await
    }

    /// Lets a topic's messages before a place go, for everybody, and says where its queues begin now and when their bytes go.
    pub async fn purge_topic(&self, purge: PurgeTopic) -> Result<PurgeReport, ClientError> {
        self.run(commands::purge_topic(purge)).await
    }

    /// Makes a group, or changes how it is treated; what is not set stays as it is. Returns all of it.
    pub async fn set_up_group(&self, set_up: SetUpGroup) -> Result<GroupTerms, ClientError> {
        self.run(commands::set_up_group(set_up)).await
    }

    /// Some of a topic's messages on one shard that wait for their time.
    pub async fn list_delayed(&self, list: ListDelayed) -> Result<DelayedMessages, ClientError> {
        self.run(commands::list_delayed(list)).await
    }

    /// Takes a delayed message back. Refused as [`ReceiptExpired`](crate::api::Status::ReceiptExpired) when it waits no more.
    pub async fn recall_delayed(&self, recall: RecallDelayed) -> Result<(), ClientError> {
        self.run(commands::recall_delayed(recall)).await
    }

    // ---- Dead letters ------------------------------------------------------------------------------------------

    /// Sends dead letters of a group to a topic, one after the other; what was sent before is left alone. What was moved when the
    /// connection is lost is [`Before`](crate::api::Redriven::Before) when it is asked for again.
    pub async fn redrive(&self, redrive: Redrive) -> Result<RedriveReport, ClientError> {
        self.run(commands::redrive(redrive)).await
    }

    /// Which messages of a queue of a group's dead letters are none any more, from an offset on.
    pub async fn redriven_ranges(
        &self,
        group: &GroupName,
        queue: QueueNumber,
        from: QueueOffset,
    ) -> Result<RedrivenRanges, ClientError> {
        self.run(commands::redriven_ranges(group, queue, from)).await
    }

    // ---- Looking -----------------------------------------------------------------------------------------------

    /// Stored messages by what they carry, or by their place.
    pub async fn find_messages(&self, find: FindMessages) -> Result<Found, ClientError> {
        self.run(commands::find_messages(find)).await
    }

    /// The offset that a place in a queue has.
    pub async fn find_offset(&self, key: QueueKey, spec: OffsetSpec) -> Result<QueueOffset, ClientError> {
        self.run(commands::find_offset(key, spec)).await
    }

    /// The node's state: counters and latencies, by shard.
    pub async fn describe_node(&self) -> Result<NodeInfo, ClientError> {
        self.run(commands::describe_node(false)).await
    }

    /// A page of topics' figures: what they have, and what went in and out.
    pub async fn topic_stats(
        &self,
        asked: StatsAsked<TopicName>,
    ) -> Result<StatsPage<TopicStats, TopicName>, ClientError> {
        self.run(commands::topic_stats(asked)).await
    }

    /// A page of groups' figures: how far they are in their topics.
    pub async fn group_stats(
        &self,
        asked: StatsAsked<GroupName>,
    ) -> Result<StatsPage<GroupStats, GroupName>, ClientError> {
        self.run(commands::group_stats(asked)).await
    }

    /// The slowest requests of the last ten minutes, the slowest first, with where their time went.
    pub async fn list_slow(&self, list: ListSlow) -> Result<Vec<SlowRequest>, ClientError> {
        self.run(commands::list_slow(list)).await
    }

    /// Where the time of a topic's requests goes that are answered from now on; it takes as long as is measured.
    pub async fn measure_latency(&self, measure: MeasureLatency) -> Result<LatencyInfo, ClientError> {
        self.run(commands::measure_latency(measure)).await
    }

    // ---- Connections -------------------------------------------------------------------------------------------

    /// Carries a request out over connections that no other call uses meanwhile.
    async fn run<T>(&self, command: Command<T>) -> Result<T, ClientError> {
        let idle = self.idle().pop();
        let mut connections = idle.unwrap_or_else(|| self.shared.template.sibling());
        let outcome = connections.run(command).await;
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(connections);
        }
        outcome
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<AsyncClient>> {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn misnamed(error: NameError) -> ClientError {
    Failure::invalid(error).into()
}
