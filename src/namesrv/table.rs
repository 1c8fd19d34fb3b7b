//! The brokers that have registered (`namesrv/.../routeinfo/RouteInfoManager.java`).
//!
//! 1. A broker's name has at least one member, and a member's address no other number below that name.
//! 2. Topics are those that the member with the lowest number has told: masters have 0.
//! 3. `member_count` and `bytes` are the sums over all brokers, and within their limits.
//! 4. A member that is not heard of in its time is gone with the next call, and so is one whose connection has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits;
use crate::protocol::remoting::body::{
    BrokerAddresses, DataVersion, QueueNumbers, RegisteredTopic, RegisteredTopics, TopicRoute,
};
use crate::types::MonotonicTime;

/// A broker that has said nothing of this is gone after this.
const SILENCE_DEFAULT: Duration = Duration::from_secs(120);
const SILENCE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Memory of a topic beside its name.
const TOPIC_BYTES: usize = 96;
/// The permission bits to read and to write.
const WRITE: u32 = 2;
const READ_WRITE: u32 = 6;

/// All brokers of others.
#[derive(Debug, Default)]
pub struct BrokerTable {
    brokers: BTreeMap<String, Broker>,
    member_count: usize,
    bytes: usize,
}

/// Who registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerIdentity {
    pub cluster: String,
    pub broker: String,
    pub id: i64,
    /// What clients will connect to.
    pub address: String,
}

/// A broker's word of itself.
#[derive(Clone, Debug)]
pub struct Registration {
    pub identity: BrokerIdentity,
    pub ha_address: Option<String>,
    pub silence: Option<Duration>,
    pub zone: Option<String>,
    pub acting_master: bool,
    pub topics: RegisteredTopics,
    /// Of the shard and the connection over which it came.
    pub connection: (u16, u64),
}

/// Why a broker is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// RocketMQ takes that for the news of one topic, sent before all others were.
    #[error("register broker failed: a broker that is new here has none or several topics, not one")]
    OneTopic,
    #[error("register broker failed: its name, cluster or address is missing or too long")]
    Name,
    #[error("register broker failed: {max} brokers are the most", max = limits::NAMESRV_BROKERS_MAX)]
    Brokers,
    #[error("register broker failed: the topics of all brokers take too much memory")]
    Memory,
    #[error("topic {topic} has {queues} queues: a topic has 0 to {max} on a broker", max = limits::TOPIC_QUEUES_MAX)]
    Queues { topic: String, queues: u32 },
}

/// The brokers of one name.
#[derive(Debug)]
struct Broker {
    cluster: String,
    zone: Option<String>,
    acting_master: bool,
    members: BTreeMap<i64, Member>,
    topics: BTreeMap<String, RegisteredTopic>,
}

#[derive(Debug)]
struct Member {
    address: String,
    ha_address: Option<String>,
    heard_at: MonotonicTime,
    silence: Duration,
    version: DataVersion,
    connection: (u16, u64),
}

impl BrokerTable {
    /// Takes a broker in, or hears of it again. Returns where the master of its name is, for those that are none: its address
    /// for others of its kind, and its own.
    pub fn register(
        &mut self,
        registration: Registration,
        now: MonotonicTime,
    ) -> Result<Option<(String, String)>, RegisterError> {
        self.expire(now);
        let Registration { identity, ha_address, silence, zone, acting_master, topics, connection } =
            registration;
        self.check(&identity, &topics)?;
        let BrokerIdentity { cluster, broker: name, id, address } = identity;
        let version = topics.version;
        let broker = self.brokers.entry(name).or_insert_with(|| Broker::new(&cluster));
        (broker.cluster, broker.zone, broker.acting_master) = (cluster, zone, acting_master);
        let before = broker.members.get(&id);
        if before.is_some_and(|before| before.address != address && before.version.state > version.state) {
            // One that came before knows more: this is an older life of it.
            return Ok(None);
        }
        let is_changed = before.is_none_or(|before| before.version != version);
        let members_before = broker.members.len();
        broker.members.retain(|other, member| *other == id || member.address != address);
        let silence = silence.unwrap_or(SILENCE_DEFAULT).min(SILENCE_MAX);
        let member = Member { address, ha_address, heard_at: now, silence, version, connection };
        broker.members.insert(id, member);
        self.member_count = self.member_count - members_before + broker.members.len();
        if is_changed && broker.members.keys().next() == Some(&id) {
            for (name, topic) in topics.topics {
                let bytes = topic_bytes(&name);
                if broker.topics.insert(name, topic).is_none() {
                    self.bytes += bytes;
                }
            }
        }
        let master = broker.members.get(&0).filter(|_| id != 0);
        Ok(master.map(|master| (master.ha_address.clone().unwrap_or_default(), master.address.clone())))
    }

    fn check(&self, identity: &BrokerIdentity, topics: &RegisteredTopics) -> Result<(), RegisterError> {
        let BrokerIdentity { cluster, broker, id, address } = identity;
        let is_name = |name: &String| (1..=limits::NAMESRV_NAME_BYTES_MAX).contains(&name.len());
        if ![cluster, broker, address].into_iter().all(is_name) {
            return Err(RegisterError::Name);
        }
        let known = self.brokers.get(broker);
        if !known.is_some_and(|known| known.members.contains_key(id)) {
            if topics.topics.len() == 1 {
                return Err(RegisterError::OneTopic);
            }
            if self.member_count >= limits::NAMESRV_BROKERS_MAX {
                return Err(RegisterError::Brokers);
            }
        }
        let is_new = |name: &&String| known.is_none_or(|known| !known.topics.contains_key(*name));
        let bytes: usize = topics.topics.keys().filter(is_new).map(|name| topic_bytes(name)).sum();
        let fits = self.bytes + bytes <= limits::NAMESRV_TABLE_BYTES_MAX;
        if fits { Ok(()) } else { Err(RegisterError::Memory) }
    }

    pub fn unregister(&mut self, identity: &BrokerIdentity) {
        let Some(broker) = self.brokers.get(&identity.broker) else { return };
        if broker.members.get(&identity.id).is_some_and(|member| member.address == identity.address) {
            self.remove_members(|name, id, _| name == identity.broker && id == identity.id);
        }
    }

    /// A broker lives. Returns the version of its topics that is known.
    pub fn heard(&mut self, identity: &BrokerIdentity, now: MonotonicTime) -> Option<DataVersion> {
        self.expire(now);
        let broker = self.brokers.get_mut(&identity.broker)?;
        let mut members = broker.members.values_mut();
        let member = members.find(|member| member.address == identity.address)?;
        member.heard_at = now;
        Some(member.version)
    }

    /// The brokers that registered over a connection are gone with it.
    pub fn disconnected(&mut self, connection: (u16, u64)) {
        self.remove_members(|_, _, member| member.connection == connection);
    }

    pub fn expire(&mut self, now: MonotonicTime) {
        self.remove_members(|_, _, member| now.since(member.heard_at) > member.silence);
    }

    fn remove_members(&mut self, is_gone: impl Fn(&str, i64, &Member) -> bool) {
        self.brokers.retain(|name, broker| {
            let before = broker.members.len();
            broker.members.retain(|id, member| !is_gone(name, *id, member));
            self.member_count -= before - broker.members.len();
            if broker.members.is_empty() {
                self.bytes -= broker.topics.keys().map(|name| topic_bytes(name)).sum::<usize>();
            }
            !broker.members.is_empty()
        });
    }

    pub fn is_empty(&self) -> bool {
        self.brokers.is_empty()
    }

    /// Adds what the brokers have of a topic to its route. `zone` leaves the brokers of other zones out.
    pub fn add_route(&self, topic: &str, zone: Option<&str>, route: &mut TopicRoute) {
        for (name, broker) in &self.brokers {
            let Some(numbers) = broker.topics.get(topic) else { continue };
            if zone.is_some_and(|zone| broker.zone.as_deref() != Some(zone)) {
                continue;
            }
            let RegisteredTopic { read, write, permission, flags } = *numbers;
            route.queues.push(QueueNumbers { broker: name.clone(), read, write, permission, flags });
            route.brokers.push(broker.addresses(name));
        }
    }

    pub fn brokers(&self) -> Vec<BrokerAddresses> {
        self.brokers.iter().map(|(name, broker)| broker.addresses(name)).collect()
    }

    /// The topics of every broker, or of those of one cluster; a topic of several is there several times.
    pub fn topics(&self, cluster: Option<&str>) -> impl Iterator<Item = (&str, RegisteredTopic)> {
        let brokers =
            self.brokers.values().filter(move |broker| cluster.is_none_or(|name| broker.cluster == name));
        brokers.flat_map(|broker| broker.topics.iter().map(|(name, topic)| (name.as_str(), *topic)))
    }

    /// A broker that has registered has a topic more. Others are passed over.
    pub fn add_topic(&mut self, topic: &str, queues: &QueueNumbers) -> Result<(), RegisterError> {
        let Some(broker) = self.brokers.get_mut(&queues.broker) else { return Ok(()) };
        if !(1..=limits::NAMESRV_NAME_BYTES_MAX).contains(&topic.len()) {
            return Err(RegisterError::Name);
        }
        let most = queues.read.max(queues.write);
        if most > limits::TOPIC_QUEUES_MAX {
            return Err(RegisterError::Queues { topic: topic.to_owned(), queues: most });
        }
        let bytes = if broker.topics.contains_key(topic) { 0 } else { topic_bytes(topic) };
        if self.bytes + bytes > limits::NAMESRV_TABLE_BYTES_MAX {
            return Err(RegisterError::Memory);
        }
        let QueueNumbers { read, write, permission, flags, .. } = *queues;
        broker.topics.insert(topic.to_owned(), RegisteredTopic { read, write, permission, flags });
        self.bytes += bytes;
        Ok(())
    }

    /// A topic goes from all brokers, or from those of one cluster.
    pub fn remove_topic(&mut self, topic: &str, cluster: Option<&str>) {
        for broker in self.brokers.values_mut() {
            if cluster.is_none_or(|name| broker.cluster == name) && broker.topics.remove(topic).is_some() {
                self.bytes -= topic_bytes(topic);
            }
        }
    }

    /// Takes the right to write from all topics of a broker, or gives it back; how many topics that are. It lasts until the
    /// broker tells of a change of its topics.
    pub fn set_writable(&mut self, broker: &str, is_writable: bool) -> usize {
        let Some(broker) = self.brokers.get_mut(broker) else { return 0 };
        for topic in broker.topics.values_mut() {
            topic.permission = if is_writable { READ_WRITE } else { topic.permission & !WRITE };
        }
        broker.topics.len()
    }
}

impl Broker {
    fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            zone: None,
            acting_master: false,
            members: BTreeMap::new(),
            topics: BTreeMap::new(),
        }
    }

    fn addresses(&self, name: &str) -> BrokerAddresses {
        BrokerAddresses {
            cluster: self.cluster.clone(),
            broker: name.to_owned(),
            addresses: self.members.iter().map(|(id, member)| (*id, member.address.clone())).collect(),
            zone: self.zone.clone(),
            acting_master: self.acting_master,
        }
    }
}

fn topic_bytes(name: &str) -> usize {
    TOPIC_BYTES + name.len()
}

#[cfg(test)]
mod tests;
