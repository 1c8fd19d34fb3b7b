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
use crate::namesrv::{BrokerIdentity, RegisterError, Registration};
use crate::protocol::remoting::body::{
    ClusterBroker, ClusterInfo, DataVersion, RegisteredTopics, TopicRoute, write_table, write_topics,
};
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::json::Value;
use crate::protocol::remoting::{FieldError, Header, Refusal, ResponseCode};
use crate::server::framed::CallTerms;
use crate::types::Account;

/// The settings that brokers are told when they register.
const ORDERED_TOPICS: &str = "ORDER_TOPIC_CONFIG";
/// A name in a list, as it is collected and in the answer.
const LISTED_BYTES: usize = 512;

impl From<RegisterError> for Refusal {
    fn from(error: RegisterError) -> Self {
        Refusal::new(ResponseCode::SystemError, error.to_string())
    }
}

impl Remoting {
    fn check_admin(&self, sender: &Sender, what: &'static str) -> Result<(), Refused> {
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
        if port.node.is_broker(&name, port.addresses().len()) {
            let remark = format!(
                "`{name}` is a broker of this name server's own node: its topics say what may be done"
            );
            return Err(Refused::new(ResponseCode::NoPermission, remark));
        }
        let count = port.names.told().brokers.set_writable(&name, is_writable);
        Ok(Answer::field(if is_writable { "addTopicCount" } else { "wipeTopicCount" }, count.to_string()))
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
        (self.connections.broker.topic_count() + registered) * LISTED_BYTES
    }

    fn topic_list(&self, cluster: Option<&str>) -> Answer {
        let port = self.port();
        let mut topics = BTreeSet::new();
        if cluster.is_none_or(|cluster| cluster == port.node.cluster) {
            topics.extend(port.node.unmade_topics(port.addresses().len()));
            topics.extend(self.connections.broker.topic_names().iter().map(|name| name.as_str().to_owned()));
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
