//! Where a topic's queues are (`remoting/.../protocol/route/TopicRouteData.java`).

use std::collections::BTreeMap;

use crate::protocol::remoting::JsonError;
use crate::protocol::remoting::json::Value;
use crate::protocol::remoting::json_writer::{ObjectWriter, write_object};

/// The brokers that have queues of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRoute {
    pub brokers: Vec<BrokerAddresses>,
    pub queues: Vec<QueueNumbers>,
}

/// Where the brokers of one name are: masters have the number 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddresses {
    pub cluster: String,
    pub broker: String,
    pub addresses: BTreeMap<i64, String>,
    pub zone: Option<String>,
    pub acting_master: bool,
}

/// The queues of a topic on one broker; they have the numbers from 0 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueNumbers {
    pub broker: String,
    pub read: u32,
    pub write: u32,
    pub permission: u32,
    pub flags: i32,
}

impl TopicRoute {
    /// Reads a route as brokers and name servers of RocketMQ write it. What is left out is 0, or nothing.
    pub fn read(body: &[u8]) -> Result<Self, JsonError> {
        Ok(Self::of(&Value::parse(body)?))
    }

    pub(super) fn of(route: &Value<'_>) -> Self {
        Self {
            brokers: route.get("brokerDatas").items().iter().map(BrokerAddresses::of).collect(),
            queues: route.get("queueDatas").items().iter().map(QueueNumbers::of).collect(),
        }
    }

    /// As every client reads it: in standard JSON, without blanks.
    pub fn write(&self, output: &mut Vec<u8>) {
        write_object(output, |route| {
            route.array("brokerDatas", |brokers| {
                self.brokers.iter().for_each(|broker| brokers.object(|members| broker.write(members)));
            });
            route.object("filterServerTable", |_| {});
            route.array("queueDatas", |queues| {
                self.queues.iter().for_each(|queue| queues.object(|members| queue.write(members)));
            });
        });
    }
}

impl BrokerAddresses {
    pub(super) fn of(broker: &Value<'_>) -> Self {
        let address = |(id, address): &(Value<'_>, Value<'_>)| Some((id.as_number()?, text(address)));
        Self {
            cluster: text(broker.get("cluster")),
            broker: text(broker.get("brokerName")),
            addresses: broker.get("brokerAddrs").entries().iter().filter_map(address).collect(),
            zone: broker.get("zoneName").as_text().map(str::to_owned),
            acting_master: broker.get("enableActingMaster").as_boolean().unwrap_or(false),
        }
    }

    pub(super) fn write(&self, members: &mut ObjectWriter<'_>) {
        members.object("brokerAddrs", |addresses| {
            self.addresses.iter().for_each(|(id, address)| addresses.text(&id.to_string(), address));
        });
        members.text("brokerName", &self.broker);
        members.text("cluster", &self.cluster);
        members.boolean("enableActingMaster", self.acting_master);
        if let Some(zone) = &self.zone {
            members.text("zoneName", zone);
        }
    }
}

fn text(value: &Value<'_>) -> String {
    value.as_text().unwrap_or_default().to_owned()
}

impl QueueNumbers {
    pub(super) fn of(queues: &Value<'_>) -> Self {
        let number = |name| queues.get(name).as_number();
        let count = |name| number(name).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        Self {
            broker: text(queues.get("brokerName")),
            read: count("readQueueNums"),
            write: count("writeQueueNums"),
            permission: count("perm"),
            flags: number("topicSysFlag").and_then(|flags| i32::try_from(flags).ok()).unwrap_or(0),
        }
    }

    fn write(&self, members: &mut ObjectWriter<'_>) {
        members.text("brokerName", &self.broker);
        members.number("perm", self.permission.into());
        members.number("readQueueNums", self.read.into());
        members.number("topicSysFlag", self.flags.into());
        members.number("writeQueueNums", self.write.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_what_every_client_reads() {
        let broker = BrokerAddresses {
            cluster: "C".into(),
            broker: "n-0".into(),
            addresses: [(0, "10.0.0.1:10911".to_owned()), (1, "10.0.0.2:10911".to_owned())].into(),
            zone: None,
            acting_master: false,
        };
        let queues = QueueNumbers { broker: "n-0".into(), read: 8, write: 4, permission: 6, flags: 0 };
        let mut output = Vec::new();
        let route = TopicRoute { brokers: vec![broker], queues: vec![queues] };
        route.write(&mut output);
        assert_eq!(TopicRoute::read(&output), Ok(route));
        // The client for Go cuts the addresses out by hand.
        assert_eq!(
            String::from_utf8(output).expect("text"),
            "{\"brokerDatas\":[{\"brokerAddrs\":{\"0\":\"10.0.0.1:10911\",\"1\":\"10.0.0.2:10911\"},\"brokerName\":\"n-0\",\
             \"cluster\":\"C\",\"enableActingMaster\":false}],\"filterServerTable\":{},\"queueDatas\":[{\"brokerName\":\"n-0\",\
             \"perm\":6,\"readQueueNums\":8,\"topicSysFlag\":0,\"writeQueueNums\":4}]}"
        );
    }

    /// As Apache's name server writes it, whose library puts no quotes around numbers that are keys.
    #[test]
    fn keys_that_are_numbers_need_no_quotes() {
        let text = br#"{"brokerDatas":[{"brokerAddrs":{0:"127.0.0.1:1"},"brokerName":"b","cluster":"C","enableActingMaster":false}],
            "filterServerTable":{},"queueDatas":[{"brokerName":"b","perm":7,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}"#;
        let route = TopicRoute::read(text).expect("a route");
        assert_eq!(route.brokers[0].addresses, [(0, "127.0.0.1:1".to_owned())].into());
        assert_eq!((route.queues[0].write, route.queues[0].permission), (8, 7));
        assert_eq!(TopicRoute::read(b"{}"), Ok(TopicRoute::default()));
    }
}
