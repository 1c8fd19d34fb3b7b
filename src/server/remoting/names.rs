//! The requests that name servers answer (`namesrv/.../processor/DefaultRequestProcessor.java`,
//! `ClientRequestProcessor.java`): this node's brokers and those that have registered, as if they were of one kind.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::answer::{Answer, Asker};
use super::connection::Remoting;
use super::requests::Refused;
use super::signed::Sender;
use crate::access::Need;
use crate::limits;
use crate::namesrv::{BrokerIdentity, RegisterError, Registration, retry_topic};
use crate::protocol::remoting::body::{
    ClusterBroker, ClusterInfo, DataVersion, RegisteredTopics, TopicRoute, write_table, write_topics,
    write_topics_at,
};
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::json::Value;
use crate::protocol::remoting::{FieldError, Header, Refusal, ResponseCode};
use crate::server::framed::CallTerms;
use crate::types::Account;

/// The settings that brokers are told when they register.
const ORDERED_TOPICS: &str = "ORDER_TOPIC_CONFIG";
/// What its settings would be, if it had any (`common/.../namesrv/NamesrvConfig.java`).
const NAME_SERVER_SETTINGS: [(&str, &str); 6] = [
    ("enableAllTopicList", "true"),
    ("enableTopicList", "true"),
    ("orderMessageEnable", "false"),
    ("returnOrderTopicConfigToBroker", "true"),
    ("supportActingMaster", "false"),
    ("deleteTopicWithBrokerRegistration", "false"),
];
/// A name in a list, as it is collected and in the answer.
const LISTED_BYTES: usize = 512;

impl From<RegisterError> for Refusal {
    fn from(error: RegisterError) -> Self {
        Refusal::new(ResponseCode::SystemError, error.to_string())
    }
}

impl Remoting {
    pub(super) fn check_admin(&self, sender: &Sender, what: &'static str) -> Result<(), Refused> {
        self.check(sender, Need::Administer { what }).map_err(Refused::failed)
    }

    pub(super) fn route(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        let topic = header.fields.required_text("topic")?;
        self.check_route(sender, &topic).map_err(Refused::failed)?;
        let port = self.port();
        let mut route = TopicRoute::default();
        port.node.add_route(&topic, port.own_topic(&topic), &port.addresses(), &mut route);
        let zone = header.fields.text("__ZONE_NAME").filter(|_| header.fields.boolean("__ZONE_MODE"));
        let mut told = port.names.told();
        told.close_own(&mut route);
        told.brokers.expire(self.connections.clock.monotonic());
        told.brokers.add_route(&topic, zone.as_deref(), &mut route);
        drop(told);
        if route.queues.is_empty() {
            return Err(Refused::new(
                ResponseCode::TopicNotExist,
                format!("No topic route info in name server for the topic: {topic}"),
            ));
        }
        Ok(Answer::body(|output| route.write(output)))
    }

    pub(super) fn cluster_info(&self, sender: &Sender) -> Result<Answer, Refused> {
        self.check(sender, Need::AnyKey).map_err(Refused::failed)?;
        let port = self.port();
        let mut brokers = port.node.brokers(&port.addresses());
        let mut told = port.names.told();
        told.brokers.expire(self.connections.clock.monotonic());
        brokers.extend(told.brokers.brokers());
        drop(told);
        Ok(Answer::body(|output| ClusterInfo::new(brokers).write(output)))
    }

    pub(super) fn member_group(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        self.check(sender, Need::AnyKey).map_err(Refused::failed)?;
        let name = header.fields.required_text("brokerName")?;
        let port = self.port();
        let mut brokers = port.node.brokers(&port.addresses());
        brokers.extend(port.names.told().brokers.brokers());
        let found = brokers.into_iter().find(|broker| broker.broker == *name);
        Ok(Answer::body(|output| match found {
            Some(broker) => ClusterBroker(&broker).write(output),
            None => output.extend_from_slice(b"{}"),
        }))
    }

    pub(super) fn register_broker(
        &self,
        sender: &Sender,
        header: &Header<'_>,
        body: &[u8],
    ) -> Result<Answer, Refused> {
        self.check_admin(sender, "register a broker")?;
        let identity = self.identity(header)?;
        let fields = &header.fields;
        let topics = RegisteredTopics::read(body, fields.boolean("compressed"), header.version);
        let topics = topics.map_err(|error| Refused::new(ResponseCode::SystemError, error.to_string()))?;
        let registration = Registration {
            identity,
            ha_address: fields.text("haServerAddr").map(|address| address.into_owned()),
            silence: fields.number("heartbeatTimeoutMillis").map(Duration::from_millis),
            zone: fields.text("__ZONE_NAME").map(|zone| zone.into_owned()),
            acting_master: fields.boolean("enableActingMaster"),
            topics,
            connection: (self.connections.broker.shard().0, self.connection.id),
        };
        let mut told = self.port().names.told();
        let master = told.brokers.register(registration, self.connections.clock.monotonic())?;
        self.has_registered.set(true);
        let mut answer = match told.settings.of_space(ORDERED_TOPICS) {
            Some(table) => Answer::body(|output| write_table(texts(table), output)),
            None => Answer::done(),
        };
        if let Some((ha_address, address)) = master {
            answer.fields = vec![("haServerAddr", ha_address), ("masterAddr", address)];
        }
        Ok(answer)
    }

    pub(super) fn unregister_broker(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        self.check_admin(sender, "take a broker off")?;
        let identity = self.identity(header)?;
        self.port().names.told().brokers.unregister(&identity);
        Ok(Answer::done())
    }

    pub(super) fn query_data_version(
        &self,
        sender: &Sender,
        header: &Header<'_>,
        body: &[u8],
    ) -> Result<Answer, Refused> {
        self.check_admin(sender, "register a broker")?;
        let identity = self.identity(header)?;
        let said = Value::parse(body).map(|value| DataVersion::of(&value)).ok();
        let known = self.port().names.told().brokers.heard(&identity, self.connections.clock.monotonic());
        let mut answer = Answer::field("changed", (known.is_none() || known != said).to_string());
        if let Some(known) = known {
            known.write(&mut answer.body);
        }
        Ok(answer)
    }

    pub(super) fn broker_heartbeat(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        self.check_admin(sender, "register a broker")?;
        let identity = self.identity(header)?;
        self.port().names.told().brokers.heard(&identity, self.connections.clock.monotonic());
        Ok(Answer::done())
    }

    /// The broker that a request is about. Nobody passes for one of this node's.
    fn identity(&self, header: &Header<'_>) -> Result<BrokerIdentity, Refused> {
        let fields = &header.fields;
        let text = |name| Ok::<_, FieldError>(fields.required_text(name)?.into_owned());
        let identity = BrokerIdentity {
            cluster: text("clusterName")?,
            broker: text("brokerName")?,
            id: fields.number("brokerId").unwrap_or(0),
            address: text("brokerAddr")?,
        };
        let port = self.port();
        if port.node.is_broker(&identity.broker, port.addresses().len()) {
            return Err(Refused::new(
                ResponseCode::SystemError,
                format!(
                    "register broker failed: `{}` is a broker of this name server's own node",
                    identity.broker
                ),
            ));
        }
        Ok(identity)
    }

    pub(super) fn put_setting(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        self.check_admin(sender, "change settings of the name server")?;
        let (Some(space), Some(name)) = (header.fields.text("namespace"), header.fields.text("key")) else {
            return Err(Refused::new(ResponseCode::SystemError, "namespace or key is null"));
        };
        let value = header.fields.required_text("value")?;
        if !self.port().names.told().settings.put(&space, &name, &value) {
            let remark =
                format!("the settings would take more than {} bytes", limits::NAMESRV_SETTINGS_BYTES_MAX);
            return Err(Refused::new(ResponseCode::SystemError, remark));
        }
        Ok(Answer::done())
    }

    pub(super) fn get_setting(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        self.check(sender, Need::AnyKey).map_err(Refused::failed)?;
        let (space, name) = (header.fields.required_text("namespace")?, header.fields.required_text("key")?);
        let told = self.port().names.told();
        let Some(value) = told.settings.get(&space, &name) else {
            let remark = format!("No config item, Namespace: {space} Key: {name}");
            return Err(Refused::new(ResponseCode::QueryNotFound, remark));
        };
        Ok(Answer::field("value", value))
    }

    pub(super) fn delete_setting(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        self.check_admin(sender, "change settings of the name server")?;
        let (space, name) = (header.fields.required_text("namespace")?, header.fields.required_text("key")?);
        self.port().names.told().settings.remove(&space, &name);
        Ok(Answer::done())
    }

    pub(super) fn settings_of_space(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        self.check(sender, Need::AnyKey).map_err(Refused::failed)?;
        let space = header.fields.required_text("namespace")?;
        let told = self.port().names.told();
        let Some(table) = told.settings.of_space(&space) else {
            let remark = format!("No config item, Namespace: {space}");
            return Err(Refused::new(ResponseCode::QueryNotFound, remark));
        };
        Ok(Answer::body(|output| write_table(texts(table), output)))
    }

    pub(super) fn set_writable(
        &self,
        sender: &Sender,
        header: &Header<'_>,
        is_writable: bool,
    ) -> Result<Answer, Refused> {
        self.check_admin(sender, "change what may be written to")?;
        let name = header.fields.required_text("brokerName")?;
        let port = self.port();
        let count = match port.node.is_broker(&name, port.addresses().len()) {
            true => {
                port.names.told().set_own_writable(&name, is_writable);
                self.topics_on(&name)
            }
            false => port.names.told().brokers.set_writable(&name, is_writable),
        };
        Ok(Answer::field(if is_writable { "addTopicCount" } else { "wipeTopicCount" }, count.to_string()))
    }

    /// A topic that its brokers have removed: those that register tell of what they have, and do not take anything back. This
    /// node's own is gone from routes when it is gone.
    pub(super) fn forget_topic(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        self.check_admin(sender, "delete topics")?;
        let topic = header.fields.required_text("topic")?;
        let cluster = header.fields.text("clusterName").filter(|name| !name.is_empty());
        self.port().names.told().brokers.remove_topic(&topic, cluster.as_deref());
        Ok(Answer::done())
    }

    /// A topic of brokers that have registered, by its route.
    pub(super) fn register_topic(
        &self,
        sender: &Sender,
        header: &Header<'_>,
        body: &[u8],
    ) -> Result<Answer, Refused> {
        self.check_admin(sender, "register topics")?;
        let topic = header.fields.required_text("topic")?;
        let route = TopicRoute::read(body).map_err(|error| {
            Refused::new(ResponseCode::SystemError, format!("the body is no JSON of a route: {error}"))
        })?;
        let mut told = self.port().names.told();
        for queues in route.queues {
            told.brokers.add_topic(&topic, &queues)?;
        }
        Ok(Answer::done())
    }

    /// The topics that are named like clusters and brokers.
    pub(super) fn system_topics(&self, sender: &Sender) -> Result<Answer, Refused> {
        self.check_admin(sender, "list topics")?;
        let port = self.port();
        let addresses = port.addresses();
        let mut brokers = port.node.brokers(&addresses);
        brokers.extend(port.names.told().brokers.brokers());
        let names: BTreeSet<_> =
            brokers.iter().flat_map(|broker| [broker.cluster.as_str(), broker.broker.as_str()]).collect();
        let address = addresses.first().map(String::as_str).unwrap_or_default();
        Ok(Answer::body(|output| write_topics_at(address, names, output)))
    }

    /// The topics of units, of which this node has none: those of brokers that have registered.
    pub(super) fn unit_topics(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        self.check_admin(sender, "list topics")?;
        const UNIT: i32 = 1;
        const UNIT_SUBSCRIBED: i32 = 2;
        let is_listed = |flags: i32| match header.code {
            request::GET_UNIT_TOPIC_LIST => flags & UNIT != 0,
            request::GET_HAS_UNIT_SUB_TOPIC_LIST => flags & UNIT_SUBSCRIBED != 0,
            _ => flags & UNIT == 0 && flags & UNIT_SUBSCRIBED != 0,
        };
        let told = self.port().names.told();
        let topics = told.brokers.topics(None).filter(|(_, topic)| is_listed(topic.flags));
        let topics: BTreeSet<_> = topics.map(|(name, _)| name).collect();
        Ok(Answer::body(|output| write_topics(topics, output)))
    }

    /// How the name server is set up, in RocketMQ's words.
    pub(super) fn name_server_settings(&self, sender: &Sender) -> Result<Answer, Refused> {
        self.check_admin(sender, "read the name server's settings")?;
        Ok(Answer::body(|output| {
            for (name, value) in NAME_SERVER_SETTINGS {
                output.extend_from_slice(format!("{name}={value}\n").as_bytes());
            }
        }))
    }

    /// Nothing of that can be changed.
    pub(super) fn change_name_server_settings(&self, sender: &Sender) -> Result<Answer, Refused> {
        self.check_admin(sender, "change settings of the name server")?;
        let remark = "the name server of turbopump has no settings that can be changed: it is part of `turbopump serve`";
        Err(Refused::new(ResponseCode::NoPermission, remark))
    }

    /// How many topics have queues on one of this node's brokers.
    fn topics_on(&self, broker: &str) -> usize {
        let (port, shards) = (self.port(), self.port().addresses().len());
        let shard = (0..shards).find(|shard| port.node.broker(*shard) == broker);
        let names = self.connections.broker.topic_names();
        let own = names.iter().filter_map(|name| port.own_topic(name.as_str()));
        own.filter(|topic| shard.is_some_and(|shard| port.node.share(*topic, shard, shards).is_some()))
            .count()
    }

    /// Begins to answer with a list of topics.
    pub(super) async fn begin_list(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "list topics")?;
        let cluster = match header.code {
            request::GET_TOPICS_BY_CLUSTER => Some(header.fields.required_text("cluster")?.into_owned()),
            _ => None,
        };
        let terms = CallTerms { carried_bytes: 0, waits_long: false, is_parked: false, deadline: None };
        let Some(call) = self.calls.begin(terms, None).await else { return Ok(None) };
        let remoting = self.clone();
        let task = async move {
            let bytes = remoting.list_bytes();
            let Some(_reservation) = call.reserve_answer(Account::Answers, bytes).await else { return };
            let answer = remoting.topic_list(cluster.as_deref());
            asker.answer(&remoting.connection.outbox, &Ok(answer));
        };
        glommio::spawn_local(task).detach();
        Ok(None)
    }

    fn list_bytes(&self) -> usize {
        let registered = self.port().names.told().brokers.topics(None).count();
        let broker = &self.connections.broker;
        (broker.topic_count() + broker.own_group_names().len() + registered) * LISTED_BYTES
    }

    fn topic_list(&self, cluster: Option<&str>) -> Answer {
        let port = self.port();
        let mut topics = BTreeSet::new();
        if cluster.is_none_or(|cluster| cluster == port.node.cluster) {
            topics.extend(port.node.unmade_topics(port.addresses().len()));
            let broker = &self.connections.broker;
            topics.extend(broker.topic_names().iter().map(|name| name.as_str().to_owned()));
            // Tools find groups by these.
            topics.extend(broker.own_group_names().iter().map(|group| retry_topic(group.as_str())));
        }
        let mut told = port.names.told();
        told.brokers.expire(self.connections.clock.monotonic());
        topics.extend(told.brokers.topics(cluster).map(|(name, _)| name.to_owned()));
        drop(told);
        Answer::body(|output| write_topics(topics.iter().map(String::as_str), output))
    }
}

fn texts(table: &std::collections::BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    table.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}
