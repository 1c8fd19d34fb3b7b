//! A topic as RocketMQ's clients find it: by its route, from a name server or from a broker of ours, or as the only broker
//! there is, which is Apache's, since that one does not tell routes.

use std::collections::BTreeMap;

use crate::api::{QueueInfo, TopicInfo};
use crate::cli::bench::remoting_caller::{Caller, Found};
use crate::cli::bench::send_frame::SendTarget;
use crate::cli::bench::socket::SocketError;
use crate::protocol::remoting::body::{QueueNumbers, TopicRoute};
use crate::types::{QueueNumber, QueueOffset, Retention, ShardId, TopicId, TopicName};

/// Whose route leads to the brokers that make topics when they are sent to.
const TEMPLATE_TOPIC: &str = "TBW102";
/// In a route's permission: it is written to, and read.
const WRITABLE: u32 = 2;
const READABLE: u32 = 4;
/// The number of a master among the brokers of a name.
const MASTER: i64 = 0;

/// Where a topic's queues are. Brokers take the place of shards, and queues are numbered over all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotingTopic {
    pub topic: TopicName,
    /// Addresses of the brokers.
    pub brokers: Vec<String>,
    /// Of each queue, in the order of their numbers: its broker, and what it is called there.
    queues: Vec<(usize, u32)>,
    /// Whether it is there; else the first send makes it.
    pub exists: bool,
}

impl RemotingTopic {
    /// Asks who is at `address`; a topic that is not there is to have `queues` queues on each broker.
    pub fn find(address: &str, topic: &TopicName, queues: u32) -> Result<Self, SocketError> {
        let mut caller = Caller::connect(address)?;
        if let Found::Route(route) = caller.route(topic.as_str())? {
            return Ok(Self::new(topic, &route, true, writable));
        }
        match caller.route(TEMPLATE_TOPIC)? {
            Found::Route(route) => Ok(Self::new(topic, &route, false, |of| writable(of).min(queues))),
            Found::Nothing => {
                Err(caller.refused(format!("it knows neither {topic} nor a broker to make it")))
            }
            Found::NoNameServer => Ok(Self::of_only_broker(address, topic, queues)),
        }
    }

    /// The same to be read, with where each queue begins and ends.
    pub fn find_read(
        address: &str,
        topic: &TopicName,
        queues: u32,
    ) -> Result<(Self, TopicInfo), SocketError> {
        let mut caller = Caller::connect(address)?;
        let found = match caller.route(topic.as_str())? {
            Found::Route(route) => Self::new(topic, &route, true, readable),
            Found::Nothing => return Err(caller.refused(format!("it does not know the topic {topic}"))),
            Found::NoNameServer => Self::of_only_broker(address, topic, queues),
        };
        let mut info = found.info();
        let callers: Result<Vec<_>, _> =
            found.brokers.iter().map(|address| Caller::connect(address)).collect();
        let mut callers = callers?;
        for (queue, (broker, number)) in info.queues.iter_mut().zip(&found.queues) {
            [queue.first_offset, queue.end_offset] = callers[*broker].bounds(topic, *number)?;
        }
        Ok((found, info))
    }

    /// A broker that tells no routes has what it has, and says so when it is asked for it.
    fn of_only_broker(address: &str, topic: &TopicName, queues: u32) -> Self {
        let queues = (0..queues).map(|queue| (0, queue)).collect();
        Self { topic: topic.clone(), brokers: vec![address.to_owned()], queues, exists: false }
    }

    fn new(
        topic: &TopicName,
        route: &TopicRoute,
        exists: bool,
        count: impl Fn(&QueueNumbers) -> u32,
    ) -> Self {
        let masters: BTreeMap<&str, &String> = route
            .brokers
            .iter()
            .filter_map(|broker| Some((broker.broker.as_str(), broker.addresses.get(&MASTER)?)))
            .collect();
        let mut found = Self { topic: topic.clone(), brokers: Vec::new(), queues: Vec::new(), exists };
        for queues in route.queues.iter().filter(|queues| count(queues) > 0) {
            let Some(address) = masters.get(queues.broker.as_str()) else { continue };
            let broker = found.brokers.len();
            found.brokers.push((*address).clone());
            found.queues.extend((0..count(queues)).map(|queue| (broker, queue)));
        }
        found
    }

    /// The topic in the bench's own words. Where its queues begin and end is not known.
    pub fn info(&self) -> TopicInfo {
        let queue = |(number, (broker, _)): (usize, &(usize, u32))| QueueInfo {
            queue: QueueNumber(number as u32),
            shard: ShardId(*broker as u16),
            first_offset: QueueOffset::ZERO,
            end_offset: QueueOffset::ZERO,
        };
        TopicInfo {
            topic: self.topic.clone(),
            id: TopicId(0),
            queue_count: self.queues.len() as u32,
            retention: Retention::Inherited,
            level: None,
            permission: 6,
            consumers: None,
            queues: self.queues.iter().enumerate().map(queue).collect(),
        }
    }

    pub fn target(&self, queue: QueueNumber) -> SendTarget<'_> {
        let (broker, number) = self.queues[queue.0 as usize];
        let own = self.queues.iter().filter(|(other, _)| *other == broker).count();
        SendTarget { topic: self.topic.as_str(), queue: number, queues_wished: own as u32 }
    }
}

/// Queues that take messages.
fn writable(queues: &QueueNumbers) -> u32 {
    if queues.permission & WRITABLE == 0 { 0 } else { queues.write }
}

fn readable(queues: &QueueNumbers) -> u32 {
    if queues.permission & READABLE == 0 { 0 } else { queues.read }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::remoting::body::BrokerAddresses;

    fn broker(name: &str, address: &str) -> BrokerAddresses {
        BrokerAddresses {
            cluster: "C".into(),
            broker: name.into(),
            addresses: [(0, address.to_owned()), (1, "slave:1".to_owned())].into(),
            zone: None,
            acting_master: false,
        }
    }

    fn queues(broker: &str, write: u32, permission: u32) -> QueueNumbers {
        QueueNumbers { broker: broker.into(), read: 16, write, permission, flags: 0 }
    }

    #[test]
    fn queues_are_numbered_over_the_brokers_that_take_messages() {
        let route = TopicRoute {
            brokers: vec![broker("a", "a:1"), broker("b", "b:1"), broker("c", "c:1")],
            queues: vec![queues("b", 2, 6), queues("a", 1, 4), queues("c", 1, 2), queues("gone", 1, 6)],
        };
        let topic: TopicName = "orders".parse().expect("a name");
        let found = RemotingTopic::new(&topic, &route, true, writable);
        assert_eq!(found.brokers, ["b:1", "c:1"]);
        let to_read = RemotingTopic::new(&topic, &route, true, readable);
        assert_eq!((to_read.brokers, to_read.queues.len()), (vec!["b:1".to_owned(), "a:1".to_owned()], 32));
        let info = found.info();
        let shards: Vec<_> = info.queues.iter().map(|queue| queue.shard.0).collect();
        assert_eq!((shards, info.queue_count), (vec![0, 0, 1], 3));
        let targets = [0, 1, 2].map(|queue| found.target(QueueNumber(queue)));
        assert_eq!(targets.map(|target| (target.queue, target.queues_wished)), [(0, 2), (1, 2), (0, 1)]);
    }
}
