//! This node as RocketMQ's clients see it: each shard is a broker, and queue `q` of a topic is queue `q / shards` of the broker
//! of shard `q % shards`.

use crate::protocol::remoting::body::{BrokerAddresses, QueueNumbers, TopicRoute};

/// What the topics that consumers get failed messages again from begin with; their group's name follows.
const RETRY_PREFIX: &str = "%RETRY%";
/// Queues that such a topic has on each broker.
const RETRY_QUEUES: u32 = 1;
/// The topic that producers ask for when theirs is not there yet: they send to its brokers, which make theirs.
const TEMPLATE_TOPIC: &str = "TBW102";
const TEMPLATE_QUEUES: u32 = 8;
/// Topics of RocketMQ's brokers (`common/.../topic/TopicValidator.java`), which are there without being made. What nobody may
/// send to at all, `protocol/remoting` knows.
const RESERVED_TOPICS: [&str; 5] = [
    TEMPLATE_TOPIC,
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "CHECKPOINT_TOPIC",
];
/// Queues of the topics that are named like a cluster and like a broker, which tools send to.
const CLUSTER_QUEUES: u32 = 16;
const BROKER_QUEUES: u32 = 1;
/// What the topic ends with that replies of clients to one another are sent to, and its queues on each broker.
const REPLY_SUFFIX: &str = "_REPLY_TOPIC";
const REPLY_QUEUES: u32 = 1;
/// Bits of a topic's permission: 1 is for topics that others are made after.
const READ_WRITE: u32 = 6;
const ALL: u32 = 7;

/// The brokers of this node.
#[derive(Clone, Debug)]
pub struct OwnNode {
    pub cluster: String,
    /// What the brokers' names begin with.
    pub name: String,
    /// Whether a topic is made by being written to.
    pub makes_topics: bool,
}

/// A topic of this node, with its queues over all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnTopic {
    pub queues: u32,
    /// Those that readers and writers are shown; `None`: all.
    pub read: Option<u32>,
    pub write: Option<u32>,
    pub permission: u32,
}

/// The group whose retries a topic has.
pub fn retried_group(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX).filter(|group| !group.is_empty())
}

/// The topic of a group's retries.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// Whether a name is that of a topic that belongs to a group's retries.
pub fn is_retry_topic(name: &str) -> bool {
    retried_group(name).is_some()
}

impl OwnNode {
    /// The name of a shard's broker. Offsets that clients keep, and handles of theirs, have it in them.
    pub fn broker(&self, shard: usize) -> String {
        format!("{}-{shard}", self.name)
    }

    pub fn is_broker(&self, name: &str, shards: usize) -> bool {
        (0..shards).any(|shard| self.broker(shard) == name)
    }

    /// All of its brokers; `addresses` are the shards', in their order.
    pub fn brokers(&self, addresses: &[String]) -> Vec<BrokerAddresses> {
        (0..addresses.len()).map(|shard| self.broker_addresses(shard, addresses)).collect()
    }

    /// The queues on each broker of a topic that tools send to in order to measure, by which it is made when they do; `None` of
    /// other names.
    pub fn queues_for_tools(&self, name: &str, shards: usize) -> Option<u32> {
        match name {
            name if name == self.cluster => Some(CLUSTER_QUEUES),
            name if self.is_broker(name, shards) => Some(BROKER_QUEUES),
            _ => None,
        }
    }

    /// The topics that are there without being made, as lists have them.
    pub fn unmade_topics(&self, shards: usize) -> Vec<String> {
        let template = self.makes_topics.then(|| TEMPLATE_TOPIC.to_owned());
        let brokers = (0..shards).map(|shard| self.broker(shard));
        template.into_iter().chain([self.cluster.clone()]).chain(brokers).collect()
    }

    /// Names that RocketMQ's clients and brokers give a meaning to: no topic is made by being written to under one of them.
    pub fn reserved_topics(&self, shards: usize) -> Vec<String> {
        let fixed = RESERVED_TOPICS.map(str::to_owned);
        let brokers = (0..shards).map(|shard| self.broker(shard));
        let reply = format!("{}{REPLY_SUFFIX}", self.cluster);
        fixed.into_iter().chain([self.cluster.clone(), reply]).chain(brokers).collect()
    }

    /// Whether replies are sent to a topic: clients name it after the cluster.
    fn is_reply_topic(&self, name: &str) -> bool {
        name.strip_suffix(REPLY_SUFFIX) == Some(&self.cluster)
    }

    /// Adds this node's part of a topic's route; `topic` is what the node has of it, if it has been made.
    pub fn add_route(
        &self,
        name: &str,
        topic: Option<OwnTopic>,
        addresses: &[String],
        route: &mut TopicRoute,
    ) {
        // One that is named like a broker leads to that one only.
        let of_broker = self.is_broker(name, addresses.len());
        for shard in (0..addresses.len()).filter(|shard| !of_broker || self.broker(*shard) == name) {
            let queues = match topic {
                Some(topic) => self.share(topic, shard, addresses.len()),
                None => self.unmade(name, shard),
            };
            if let Some(queues) = queues {
                route.brokers.push(self.broker_addresses(shard, addresses));
                route.queues.push(queues);
            }
        }
    }

    fn broker_addresses(&self, shard: usize, addresses: &[String]) -> BrokerAddresses {
        BrokerAddresses {
            cluster: self.cluster.clone(),
            broker: self.broker(shard),
            addresses: [(0, addresses[shard].clone())].into(),
            zone: None,
            acting_master: false,
        }
    }

    /// A shard's part of a topic; `None` when it has none of its queues.
    pub fn share(&self, topic: OwnTopic, shard: usize, shards: usize) -> Option<QueueNumbers> {
        let of_shard = |queues: u32| {
            let (shard, shards) = (shard as u32, shards as u32);
            queues.saturating_sub(shard).div_ceil(shards)
        };
        let queues = of_shard(topic.queues);
        let shown = |queues: Option<u32>| of_shard(queues.unwrap_or(topic.queues).min(topic.queues));
        (queues > 0).then(|| QueueNumbers {
            broker: self.broker(shard),
            read: shown(topic.read),
            write: shown(topic.write),
            permission: topic.permission,
            flags: 0,
        })
    }

    /// A shard's part of a topic that nobody has made. Consumers ask for their group's topic of retries before they say that
    /// they are there, and then not again for half a minute, so each has a route from the beginning.
    pub fn unmade(&self, name: &str, shard: usize) -> Option<QueueNumbers> {
        let broker = self.broker(shard);
        let (queues, permission) = match name {
            TEMPLATE_TOPIC if self.makes_topics => (TEMPLATE_QUEUES, ALL),
            name if name == self.cluster => (CLUSTER_QUEUES, ALL),
            name if name == broker => (BROKER_QUEUES, ALL),
            name if is_retry_topic(name) => (RETRY_QUEUES, READ_WRITE),
            name if self.is_reply_topic(name) => (REPLY_QUEUES, READ_WRITE),
            _ => return None,
        };
        Some(QueueNumbers { broker, read: queues, write: queues, permission, flags: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> OwnNode {
        OwnNode { cluster: "C".into(), name: "n".into(), makes_topics: true }
    }

    fn addresses(count: usize) -> Vec<String> {
        (0..count).map(|shard| format!("10.0.0.1:{}", 10911 + 10 * shard)).collect()
    }

    /// Broker, read and write queues.
    fn route(name: &str, topic: Option<OwnTopic>, shards: usize) -> Vec<(String, u32, u32)> {
        let mut route = TopicRoute::default();
        node().add_route(name, topic, &addresses(shards), &mut route);
        assert_eq!(route.brokers.len(), route.queues.len());
        for (broker, queues) in route.brokers.iter().zip(&route.queues) {
            assert_eq!(broker.broker, queues.broker);
        }
        route.queues.into_iter().map(|queues| (queues.broker, queues.read, queues.write)).collect()
    }

    #[test]
    fn shards_without_queues_are_in_no_route() {
        let topic = |queues, read, write| Some(OwnTopic { queues, read, write, permission: 6 });
        let both = |broker: &str, count| (broker.to_owned(), count, count);
        let ten = route("T", topic(10, None, None), 4);
        assert_eq!(ten, [both("n-0", 3), both("n-1", 3), both("n-2", 2), both("n-3", 2)]);
        assert_eq!(route("T", topic(1, None, None), 4), [both("n-0", 1)]);
        assert_eq!(route("T", topic(8, None, None), 1), [both("n-0", 8)]);
        let fewer = route("T", topic(8, Some(8), Some(2)), 4);
        assert_eq!(fewer[0], ("n-0".to_owned(), 2, 1));
        assert_eq!(fewer[3], ("n-3".to_owned(), 2, 0));
    }

    #[test]
    fn topics_that_nobody_made_have_routes_where_clients_ask_for_them() {
        assert_eq!(route("T", None, 2), []);
        assert_eq!(route("n-1", None, 2), [("n-1".to_owned(), 1, 1)]);
        assert_eq!(route("C", None, 2).len(), 2);
        let made = Some(OwnTopic { queues: 2, read: None, write: None, permission: 6 });
        assert_eq!(route("n-1", made, 2), [("n-1".to_owned(), 1, 1)], "to its broker alone");
        assert_eq!(
            ["C", "n-1", "n-2", "T"].map(|name| node().queues_for_tools(name, 2)),
            [Some(16), Some(1), None, None]
        );
        assert_eq!(route("C_REPLY_TOPIC", None, 2)[1], ("n-1".to_owned(), 1, 1));
        assert_eq!(route("D_REPLY_TOPIC", None, 2), []);
        assert_eq!(route("%RETRY%anybody", None, 2)[1], ("n-1".to_owned(), 1, 1));
        assert_eq!(route("%RETRY%", None, 2), []);
        assert_eq!(route(TEMPLATE_TOPIC, None, 1), [("n-0".to_owned(), 8, 8)]);
        assert_eq!(node().unmade_topics(2), ["TBW102", "C", "n-0", "n-1"]);
        let reserved = node().reserved_topics(2);
        for name in ["TBW102", "C", "C_REPLY_TOPIC", "n-0", "n-1", "SELF_TEST_TOPIC"] {
            assert!(reserved.iter().any(|reserved| reserved == name), "{name}");
        }
    }
}
