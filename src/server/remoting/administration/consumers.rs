//! Who consumes as which group, and how far it is, as tools ask for it (`broker/.../processor/AdminBrokerProcessor.java`). Clients
//! and groups are the node's, whichever broker is asked; queues are this broker's.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::access::Need;
use crate::api::{ClientProtocol, Filter, GroupInfo, ReaderMode, Reply, Request, Status};
use crate::broker::{QueueProgress, RECEIVERS, SPANS};
use crate::limits;
use crate::protocol::remoting::body::{
    BrokerConsumption, ClientConnection, ConsumedQueue, ConsumerConnections, QueueKeyed, SubscriptionShown,
    write_connections, write_consume_stats, write_groups, write_producers, write_topics,
};
use crate::protocol::remoting::call::pull::{SQL92, TAG};
use crate::protocol::remoting::{BROKER_VERSION, Header, Language, ResponseCode};
use crate::server::remoting::answer::{Answer, Asker};
use crate::server::remoting::connection::Remoting;
use crate::server::remoting::requests::Refused;
use crate::server::remoting::signed::Sender;
use crate::types::{GroupName, QueueKey, TopicName};

/// What an answer takes for each queue.
const QUEUE_BYTES: usize = 512;

/// Producers that an answer has at most, over all groups.
const PRODUCERS_MAX: usize = 1024;

/// Those who are not RocketMQ's clients are given what they come next, with the first message of all.
const PUSHED: &str = "CONSUME_PASSIVELY";
const SHARED: &str = "CLUSTERING";
const FROM_FIRST: &str = "CONSUME_FROM_FIRST_OFFSET";

impl Remoting {
    /// Begins to answer who consumes as a group, over whichever protocol.
    pub(super) async fn consumer_connections(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "see who consumes")?;
        let group = header.fields.required_text("consumerGroup")?.into_owned();
        let remoting = self.clone();
        let bytes = 4 * limits::SHOWN_CONSUMERS_BYTES_MAX;
        self.begin_with_room(asker, bytes, async move { remoting.connections_of(&group).await }).await
    }

    async fn connections_of(self: &Rc<Self>, name: &str) -> Result<Answer, Refused> {
        let mut shown = ConsumerConnections {
            clients: Vec::new(),
            kind: PUSHED,
            model: SHARED,
            start: FROM_FIRST,
            subscriptions: Vec::new(),
        };
        if let Ok(group) = name.parse::<GroupName>() {
            self.add_readers(&group, &mut shown);
            if let Some(described) = self.described(&group).await? {
                add_others(&described, &mut shown);
            }
        }
        if shown.clients.is_empty() {
            let remark = format!("the consumer group[{name}] not online");
            return Err(Refused::new(ResponseCode::ConsumerNotOnline, remark));
        }
        Ok(Answer::body(|output| shown.write(output)))
    }

    /// RocketMQ's own clients. What they have in common, the first of them says.
    fn add_readers(&self, group: &GroupName, shown: &mut ConsumerConnections) {
        let broker = &self.connections.broker;
        let clients = broker.group_clients(group);
        if let Some(first) = clients.first() {
            shown.kind = first.said.kind;
            shown.start = first.said.start;
            if first.said.mode == ReaderMode::Broadcasting {
                shown.model = "BROADCASTING";
            }
        }
        shown.clients.extend(clients.into_iter().map(|client| ClientConnection {
            client: client.client,
            address: client.address,
            language: client.language,
            version: client.version,
        }));
        let subscriptions = broker.group_subscriptions(group).into_iter();
        shown.subscriptions.extend(subscriptions.map(|of| SubscriptionShown {
            topic: of.topic,
            expression: of.expression,
            kind: of.kind,
            version: of.version,
        }));
    }

    /// All about a group; `None` when nobody knows it.
    async fn described(&self, group: &GroupName) -> Result<Option<GroupInfo>, Refused> {
        match self.connections.broker.handle(Request::DescribeGroup(group.clone())).await {
            Ok(Reply::Group(info)) => Ok(Some(info)),
            Ok(_) => Ok(None),
            Err(failure) if failure.status == Status::GroupNotExist => Ok(None),
            Err(failure) => Err(Refused::failed(failure)),
        }
    }

    /// Who produces as a group, each client once.
    pub(super) fn producer_connections(
        &self,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Answer, Refused> {
        self.check_admin(sender, "see who produces")?;
        let name = header.fields.required_text("producerGroup")?;
        let clients = name.parse().map_or_else(|_| Vec::new(), |group| self.producers_of(&group));
        if clients.is_empty() {
            let remark = format!("the producer group[{name}] not exist");
            return Err(Refused::new(ResponseCode::SystemError, remark));
        }
        Ok(Answer::body(|output| write_connections(&clients, output)))
    }

    fn producers_of(&self, group: &GroupName) -> Vec<ClientConnection> {
        let mut clients: Vec<ClientConnection> = Vec::new();
        let mut known = BTreeSet::new();
        for producer in self.connections.broker.producers_of(group).into_iter().take(PRODUCERS_MAX) {
            if known.insert(producer.client.clone()) {
                clients.push(ClientConnection {
                    client: producer.client,
                    address: producer.address,
                    language: producer.language,
                    version: producer.version,
                });
            }
        }
        clients
    }

    /// Who produces as which group.
    pub(super) fn all_producers(&self, sender: &Sender) -> Result<Answer, Refused> {
        self.check_admin(sender, "see who produces")?;
        let (mut groups, mut count) = (Vec::new(), 0);
        for group in self.connections.broker.producer_groups() {
            let clients = self.producers_of(&group);
            count += clients.len();
            groups.push((group.to_string(), clients));
            if count >= PRODUCERS_MAX {
                break;
            }
        }
        let now = self.connections.clock.now();
        Ok(Answer::body(|output| write_producers(&groups, now, output)))
    }

    /// Begins to answer where a group is in the queues of this broker.
    pub(super) async fn consume_stats(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        let group = header.fields.required_text("consumerGroup")?.into_owned();
        self.check(sender, Need::ActFor { group: &group }).map_err(Refused::failed)?;
        let lists = ["topic", "topicList"].map(|name| header.fields.text(name).unwrap_or_default());
        let names = lists.iter().flat_map(|list| list.split(';')).filter(|name| !name.is_empty());
        let topics: Vec<&str> = names.collect();
        // Names that no topic has are of topics that are not there.
        let known: Vec<TopicName> = topics.iter().filter_map(|name| name.parse().ok()).collect();
        let group = group.parse::<GroupName>().ok().filter(|_| topics.is_empty() == known.is_empty());
        let remoting = self.clone();
        let bytes = queues_bytes(self.connections.broker.queue_count());
        let stats = async move {
            let progress = match &group {
                Some(group) => remoting.connections.broker.progress_here(group, &known).await,
                None => Ok(Vec::new()),
            };
            let progress = progress.map_err(Refused::failed)?;
            let broker = remoting.own_name();
            let topics: BTreeSet<_> = progress.iter().map(|(topic, _)| topic).collect();
            let rate = |group: &GroupName| topics.iter().map(|topic| remoting.given_rate(group, topic)).sum();
            let rate = group.as_ref().map_or(0.0, rate);
            let queues = progress.iter().map(|of| remoting.consumed(of, &broker));
            Ok(Answer::body(|output| write_consume_stats(rate, queues, output)))
        };
        self.begin_with_room(asker, bytes, stats).await
    }

    /// Begins to answer where all groups are in the queues of this broker; those that consume in order are the same.
    pub(super) async fn broker_consumption(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "see who consumes")?;
        let remoting = self.clone();
        let told = async move { remoting.consumption().await };
        self.begin_with_room(asker, 2 * limits::FRAME_BYTES_MAX, told).await
    }

    async fn consumption(&self) -> Result<Answer, Refused> {
        let broker = &self.connections.broker;
        let (mut found, mut count) = (Vec::new(), 0);
        for group in broker.groups_here() {
            let progress = broker.progress_here(&group, &[]).await.map_err(Refused::failed)?;
            count += progress.len();
            if queues_bytes(count) >= limits::FRAME_BYTES_MAX {
                let remark = "there are too many groups and queues for one answer: ask for each group";
                return Err(Refused::new(ResponseCode::SystemError, remark));
            }
            if !progress.is_empty() {
                found.push((group, progress));
            }
        }
        let name = self.own_name();
        let address =
            self.port().addresses().into_iter().nth(usize::from(broker.shard().0)).unwrap_or_default();
        let mut groups = Vec::with_capacity(found.len());
        for (group, progress) in &found {
            let topics = progress.chunk_by(|(one, _), (other, _)| one == other);
            let topics = topics.map(|of| {
                let queues: Vec<_> = of.iter().map(|of| self.consumed(of, &name)).collect();
                (self.given_rate(group, &of[0].0), queues)
            });
            groups.push((group.as_str(), topics.collect::<Vec<_>>()));
        }
        Ok(Answer::body(|output| BrokerConsumption { address: &address, groups }.write(output)))
    }

    /// Messages a second of the last minute.
    fn given_rate(&self, group: &GroupName, topic: &TopicName) -> f64 {
        let given = self.connections.broker.given_of_late(group, topic).unwrap_or_default();
        given.messages[0] as f64 / SPANS[0].as_secs_f64()
    }

    fn consumed<'a>(
        &self,
        (topic, of): &'a (TopicName, QueueProgress),
        broker: &'a str,
    ) -> ConsumedQueue<'a> {
        ConsumedQueue {
            queue: self.queue_keyed(topic, of.key, broker),
            end: of.end.0,
            committed: of.committed.0,
            given: of.given.0,
            stored: of.stored,
        }
    }

    /// The name of this broker.
    pub(super) fn own_name(&self) -> String {
        self.port().node.broker(usize::from(self.connections.broker.shard().0))
    }

    /// A queue of this broker as a key.
    pub(super) fn queue_keyed<'a>(
        &self,
        topic: &'a TopicName,
        key: QueueKey,
        broker: &'a str,
    ) -> QueueKeyed<'a> {
        let shards = u32::from(self.connections.broker.options().shard_count);
        QueueKeyed { topic: topic.as_str(), broker, queue: key.queue.0 / shards }
    }

    /// Begins to answer as which groups a topic is consumed.
    pub(super) async fn consuming_groups(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "see who consumes")?;
        let topic = header.fields.required_text("topic")?.into_owned();
        let remoting = self.clone();
        let groups = async move {
            let groups = remoting.groups_of(&topic).await?;
            Ok(Answer::body(|output| write_groups(groups.iter().map(GroupName::as_str), output)))
        };
        self.begin_with_room(asker, 2 * limits::SHOWN_CONSUMERS_BYTES_MAX, groups).await
    }

    /// None of a topic that is not there, as RocketMQ has it.
    async fn groups_of(&self, topic: &str) -> Result<Vec<GroupName>, Refused> {
        let Ok(topic) = topic.parse::<TopicName>() else { return Ok(Vec::new()) };
        match self.connections.broker.handle(Request::DescribeTopic(topic)).await {
            Ok(Reply::Topic(info)) => {
                let groups = info.consumers.into_iter().flat_map(|consumers| consumers.groups);
                Ok(groups.map(|of| of.group).collect())
            }
            Ok(_) => Ok(Vec::new()),
            Err(failure) if failure.status == Status::TopicNotExist => Ok(Vec::new()),
            Err(failure) => Err(Refused::failed(failure)),
        }
    }

    /// Begins to answer which topics a group consumes.
    pub(super) async fn consumed_topics(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "see who consumes")?;
        let group = header.fields.required_text("group")?.into_owned();
        let remoting = self.clone();
        let topics = async move {
            let described = match group.parse::<GroupName>() {
                Ok(group) => remoting.described(&group).await?,
                Err(_) => None,
            };
            let described = described.iter();
            let topics = described.flat_map(|group| {
                let said = group.readers.iter().flat_map(|reader| &reader.subscriptions);
                let said = said.map(|(topic, _)| topic.as_str());
                group.queues.iter().map(|queue| queue.topic.as_str()).chain(said)
            });
            let topics: BTreeSet<&str> = topics.collect();
            Ok(Answer::body(|output| write_topics(topics, output)))
        };
        self.begin_with_room(asker, 4 * limits::SHOWN_CONSUMERS_BYTES_MAX, topics).await
    }
}

/// Room for an answer with so many queues.
pub(super) fn queues_bytes(queues: usize) -> usize {
    (queues * QUEUE_BYTES).min(limits::FRAME_BYTES_MAX)
}

/// Native members and those who receive. Where they come from is not known: they have no one connection.
fn add_others(group: &GroupInfo, shown: &mut ConsumerConnections) {
    let nowhere = || "0.0.0.0:0".to_owned();
    let add_topic = |topic: &TopicName, filter: &Filter, shown: &mut ConsumerConnections| {
        if !shown.subscriptions.iter().any(|of| of.topic == topic.as_str()) {
            let kind = match filter {
                Filter::Tags(_) => TAG,
                Filter::Expression(_) => SQL92,
            };
            let (topic, expression, kind) = (topic.to_string(), filter.text(), kind.to_owned());
            shown.subscriptions.push(SubscriptionShown { topic, expression, kind, version: 0 });
        }
    };
    for member in group.members.iter().filter(|member| member.member != RECEIVERS) {
        shown.clients.push(ClientConnection {
            client: member.member.clone(),
            address: nowhere(),
            language: Language::Other.name(),
            version: BROKER_VERSION,
        });
        member.topics.iter().for_each(|topic| add_topic(topic, &Filter::default(), shown));
    }
    for receiver in &group.receivers {
        let language = match receiver.protocol {
            ClientProtocol::Http => Language::Http,
            ClientProtocol::Native => Language::Other,
        };
        let client = format!("receivers of {} over {}", receiver.topic, receiver.protocol.name());
        if !shown.clients.iter().any(|known| known.client == client) {
            shown.clients.push(ClientConnection {
                client,
                address: nowhere(),
                language: language.name(),
                version: BROKER_VERSION,
            });
        }
        add_topic(&receiver.topic, &receiver.filter, shown);
    }
}
