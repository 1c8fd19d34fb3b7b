//! Who there is to be asked: name servers, and the brokers that they lead to.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;

use crate::cli::error::CommandError;
use crate::cli::mqadmin::arguments::{Shared, TargetArguments};
use crate::cli::mqadmin::caller::{CallError, Caller, Signer};
use crate::client::Tls;
use crate::protocol::remoting::body::{ClusterInfo, TopicRoute, read_names, read_route};
use crate::protocol::remoting::client::Answer;
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::{FieldValue, ResponseCode};

/// The number of a master among the brokers of a name.
const MASTER: i64 = 0;
/// In a permission: the queues are written to, and read.
pub const WRITABLE: u32 = 2;
pub const READABLE: u32 = 4;

pub type Fields<'a> = [(&'a str, FieldValue<'a>)];

/// Connections, made when they are needed.
pub struct Admin {
    name_servers: Vec<String>,
    signer: Option<Signer>,
    tls: Option<Tls>,
    callers: HashMap<String, Caller>,
}

/// A broker, by what it is called and where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Broker {
    pub name: String,
    pub address: String,
}

impl Admin {
    pub fn new(shared: &Shared) -> Result<Self, CommandError> {
        let name_servers: Vec<_> =
            shared.name_servers.split(';').map(str::trim).filter(|address| !address.is_empty()).collect();
        if name_servers.is_empty() {
            return Err(CommandError::usage("-n names no name server: write it like 127.0.0.1:9876"));
        }
        let key = shared.key.key()?;
        Ok(Self {
            name_servers: name_servers.into_iter().map(str::to_owned).collect(),
            signer: key.map(|(key_id, secret)| Signer { key_id: key_id.to_owned(), secret }),
            tls: shared.tls.tls()?,
            callers: HashMap::new(),
        })
    }

    pub fn name_servers(&self) -> Vec<String> {
        self.name_servers.clone()
    }

    /// Asks, and has `read` read the answer, whatever its code is.
    pub fn call<T>(
        &mut self,
        address: &str,
        code: i32,
        fields: &Fields<'_>,
        body: &[u8],
        read: impl FnOnce(&Answer<'_>) -> Result<T, String>,
    ) -> Result<T, CallError> {
        let mut caller = match self.callers.remove(address) {
            Some(caller) => caller,
            None => Caller::connect(address, self.tls.as_ref())?,
        };
        let answer = caller.ask(code, fields, body, self.signer.as_ref())?;
        let read =
            read(&answer).map_err(|reason| CallError::Protocol { address: address.to_owned(), reason })?;
        self.callers.insert(address.to_owned(), caller);
        Ok(read)
    }

    /// Asks for what is carried out or refused.
    pub fn ask<T, E: Display>(
        &mut self,
        address: &str,
        code: i32,
        fields: &Fields<'_>,
        body: &[u8],
        read: impl FnOnce(&Answer<'_>) -> Result<T, E>,
    ) -> Result<T, CallError> {
        let read = |answer: &Answer<'_>| match answer.header.code {
            0 => read(answer).map(Ok).map_err(|error| error.to_string()),
            _ => Ok(Err(refused(address, answer))),
        };
        self.call(address, code, fields, body, read)?
    }

    /// The same, where the answer says no more than that.
    pub fn tell(
        &mut self,
        address: &str,
        code: i32,
        fields: &Fields<'_>,
        body: &[u8],
    ) -> Result<(), CallError> {
        self.ask(address, code, fields, body, |_| Ok::<_, String>(()))
    }

    /// Asks the first name server that can be reached.
    pub fn ask_names<T, E: Display>(
        &mut self,
        code: i32,
        fields: &Fields<'_>,
        read: impl Fn(&Answer<'_>) -> Result<T, E>,
    ) -> Result<T, CallError> {
        let mut last = None;
        for address in self.name_servers() {
            match self.ask(&address, code, fields, b"", &read) {
                Err(error) if error.code().is_none() => {
                    last.get_or_insert(error);
                }
                done => return done,
            }
        }
        Err(last.expect("there is one name server at least"))
    }

    pub fn route(&mut self, topic: &str) -> Result<TopicRoute, CallError> {
        let fields = [("topic", FieldValue::Text(topic))];
        self.ask_names(request::GET_ROUTEINFO_BY_TOPIC, &fields, |answer| read_route(answer.body))
    }

    /// `None` when nobody has such a topic.
    pub fn route_if_any(&mut self, topic: &str) -> Result<Option<TopicRoute>, CallError> {
        match self.route(topic) {
            Err(error) if error.is_refusal_of(ResponseCode::TopicNotExist) => Ok(None),
            found => found.map(Some),
        }
    }

    pub fn cluster(&mut self) -> Result<ClusterInfo, CallError> {
        self.ask_names(request::GET_BROKER_CLUSTER_INFO, &[], |answer| ClusterInfo::read(answer.body))
    }

    /// All topics that name servers know, in the order of their names.
    pub fn topics(&mut self) -> Result<Vec<String>, CallError> {
        let read = |answer: &Answer<'_>| read_names(answer.body, "topicList");
        let mut topics = self.ask_names(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[], read)?;
        topics.sort();
        Ok(topics)
    }

    /// The groups that consume a topic, as a broker of its knows them.
    pub fn groups_of(&mut self, broker: &str, topic: &str) -> Result<Vec<String>, CallError> {
        let fields = [("topic", FieldValue::Text(topic))];
        let read = |answer: &Answer<'_>| read_names(answer.body, "groupList");
        let mut groups = self.ask(broker, request::QUERY_TOPIC_CONSUME_BY_WHO, &fields, b"", read)?;
        groups.sort();
        Ok(groups)
    }

    /// The brokers that a command is for, masters of a cluster where it names one.
    pub fn targets(&mut self, target: &TargetArguments) -> Result<Vec<Broker>, CommandError> {
        match (&target.broker, &target.cluster) {
            (Some(address), _) => {
                let address = address.trim().to_owned();
                Ok(vec![Broker { name: String::new(), address }])
            }
            (None, Some(cluster)) => self.masters(cluster.trim()),
            (None, None) => Err(CommandError::usage(
                "say which broker with -b HOST:PORT, or all of a cluster with -c CLUSTER",
            )),
        }
    }

    /// The masters of a cluster, in the order of their names.
    pub fn masters(&mut self, cluster: &str) -> Result<Vec<Broker>, CommandError> {
        let info = self.cluster()?;
        let of_cluster = info.brokers().iter().filter(|broker| broker.cluster == cluster);
        let mut found: Vec<_> = of_cluster
            .filter_map(|broker| {
                let address = broker.addresses.get(&MASTER)?.clone();
                Some(Broker { name: broker.broker.clone(), address })
            })
            .collect();
        found.sort();
        if found.is_empty() {
            return Err(CommandError::failed(format!(
                "there is no cluster `{cluster}`: `turbopump clusterList` shows those that the name server knows"
            )));
        }
        Ok(found)
    }

    /// The broker of that name.
    pub fn broker(&mut self, name: &str) -> Result<Broker, CommandError> {
        let info = self.cluster()?;
        let named = info.brokers().iter().find(|broker| broker.broker == name);
        let address = named.and_then(|broker| broker.addresses.get(&MASTER));
        match address {
            Some(address) => Ok(Broker { name: name.to_owned(), address: address.clone() }),
            None => Err(CommandError::failed(format!(
                "there is no broker `{name}`: `turbopump clusterList` shows those that the name server knows, by their names"
            ))),
        }
    }
}

/// The masters of a route, in the order of their names; where there is none, a replica.
pub fn brokers_of(route: &TopicRoute) -> Vec<Broker> {
    let mut found: BTreeMap<&str, &String> = BTreeMap::new();
    for broker in &route.brokers {
        let address = broker.addresses.get(&MASTER).or_else(|| broker.addresses.values().next());
        if let Some(address) = address {
            found.insert(&broker.broker, address);
        }
    }
    found
        .into_iter()
        .map(|(name, address)| Broker { name: name.to_owned(), address: address.clone() })
        .collect()
}

/// A refusal, without what Java adds to its words: where in its program it was.
fn refused(address: &str, answer: &Answer<'_>) -> CallError {
    let remark = answer.header.remark.as_deref().unwrap_or_default();
    let remark = remark.lines().next().unwrap_or_default().trim();
    let remark = if remark.is_empty() { "without a reason" } else { remark };
    CallError::Refused { address: address.to_owned(), code: answer.header.code, remark: remark.to_owned() }
}
