//! How topics and groups are set up, as tools are told (`common/.../TopicConfig.java`, `TopicConfigSerializeWrapper.java`,
//! `remoting/.../protocol/subscription/SubscriptionGroupConfig.java`).

use super::data_version::DataVersion;
use std::collections::BTreeMap;

use crate::api::RetryPolicy;
use crate::protocol::remoting::json_writer::{ObjectWriter, write_object};

/// How the delays of a group's retries are told (`GroupRetryPolicyType.java`).
pub const CUSTOMIZED: &str = "CUSTOMIZED";
pub const EXPONENTIAL: &str = "EXPONENTIAL";

/// A topic on one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfiguration {
    pub topic: String,
    pub read: u32,
    pub write: u32,
    pub permission: u32,
    pub ordered: bool,
    pub attributes: BTreeMap<String, String>,
}

impl TopicConfiguration {
    pub fn write(&self, output: &mut Vec<u8>) {
        write_object(output, |body| self.write_members(body));
    }

    pub fn write_members(&self, body: &mut ObjectWriter<'_>) {
        body.object("attributes", |attributes| {
            self.attributes.iter().for_each(|(name, value)| attributes.text(name, value));
        });
        body.boolean("order", self.ordered);
        body.number("perm", self.permission.into());
        body.number("readQueueNums", self.read.into());
        body.text("topicFilterType", "SINGLE_TAG");
        body.text("topicName", &self.topic);
        body.number("topicSysFlag", 0);
        body.number("writeQueueNums", self.write.into());
    }
}

/// A group, the same on every broker. What has no meaning here is told as RocketMQ has it by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfiguration {
    pub group: String,
    pub may_consume: bool,
    pub may_broadcast: bool,
    pub ordered: bool,
    pub retry_queues: u32,
    pub retries_max: i64,
    pub retries: RetryPolicy,
}

impl GroupConfiguration {
    pub fn write(&self, output: &mut Vec<u8>) {
        write_object(output, |body| self.write_members(body));
    }

    pub fn write_members(&self, body: &mut ObjectWriter<'_>) {
        body.object("attributes", |_| {});
        body.number("brokerId", 0);
        body.boolean("consumeBroadcastEnable", self.may_broadcast);
        body.boolean("consumeEnable", self.may_consume);
        body.boolean("consumeFromMinEnable", true);
        body.boolean("consumeMessageOrderly", self.ordered);
        body.number("consumeTimeoutMinute", 15);
        body.text("groupName", &self.group);
        body.object("groupRetryPolicy", |policy| {
            let RetryPolicy { is_exponential, delays, growth } = &self.retries;
            if !delays.is_empty() {
                policy.object("customizedRetryPolicy", |of| {
                    of.array("next", |next| {
                        delays.iter().for_each(|delay| next.number(delay.as_millis() as i64));
                    });
                });
            }
            if let Some(growth) = growth {
                policy.object("exponentialRetryPolicy", |of| {
                    of.number("initial", growth.initial_ms as i64);
                    of.number("max", growth.max_ms as i64);
                    of.number("multiplier", growth.multiplier as i64);
                });
            }
            policy.text("type", if *is_exponential { EXPONENTIAL } else { CUSTOMIZED });
        });
        body.number("groupSysFlag", 0);
        body.boolean("notifyConsumerIdsChangedEnable", true);
        body.number("retryMaxTimes", self.retries_max);
        body.number("retryQueueNums", self.retry_queues.into());
        body.number("whichBrokerWhenConsumeSlowly", 1);
    }
}

/// That a group may read a topic (`remoting/.../protocol/body/GroupForbidden.java`).
pub fn write_readable(group: &str, topic: &str, output: &mut Vec<u8>) {
    write_object(output, |body| {
        body.text("group", group);
        body.boolean("readable", true);
        body.text("topic", topic);
    });
}

/// All topics of a broker.
pub fn write_topic_table(version: &DataVersion, topics: &[TopicConfiguration], output: &mut Vec<u8>) {
    write_object(output, |body| {
        body.member("dataVersion", |value| version.write(value));
        body.object("topicConfigTable", |table| {
            for topic in topics {
                table.object(&topic.topic, |members| topic.write_members(members));
            }
        });
    });
}

/// All groups of a broker.
pub fn write_group_table(version: &DataVersion, groups: &[GroupConfiguration], output: &mut Vec<u8>) {
    write_object(output, |body| {
        body.member("dataVersion", |value| version.write(value));
        body.object("forbiddenTable", |_| {});
        body.object("subscriptionGroupTable", |table| {
            for group in groups {
                table.object(&group.group, |members| group.write_members(members));
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::RetryGrowth;

    #[test]
    fn a_topic_has_every_member_that_tools_read() {
        let topic = TopicConfiguration {
            topic: "t".to_owned(),
            read: 4,
            write: 2,
            permission: 6,
            ordered: true,
            attributes: [("message.type".to_owned(), "FIFO".to_owned())].into(),
        };
        let mut output = Vec::new();
        topic.write(&mut output);
        assert_eq!(
            String::from_utf8(output).expect("text"),
            "{\"attributes\":{\"message.type\":\"FIFO\"},\"order\":true,\"perm\":6,\"readQueueNums\":4,\
             \"topicFilterType\":\"SINGLE_TAG\",\"topicName\":\"t\",\"topicSysFlag\":0,\"writeQueueNums\":2}"
        );
    }

    #[test]
    fn tables_are_of_names() {
        let group = GroupConfiguration {
            group: "g".to_owned(),
            may_consume: true,
            may_broadcast: false,
            ordered: false,
            retry_queues: 1,
            retries_max: -1,
            retries: RetryPolicy {
                is_exponential: true,
                delays: vec![Duration::from_secs(1)],
                growth: Some(RetryGrowth { initial_ms: 5_000, max_ms: 60_000, multiplier: 2 }),
            },
        };
        let mut output = Vec::new();
        write_group_table(&DataVersion { counter: 2, state: 0, timestamp: 3 }, &[group], &mut output);
        let text = String::from_utf8(output).expect("text");
        assert!(
            text.starts_with(
                "{\"dataVersion\":{\"counter\":2,\"stateVersion\":0,\"timestamp\":3},\"forbiddenTable\":{},\
                 \"subscriptionGroupTable\":{\"g\":{\"attributes\":{},\"brokerId\":0,\"consumeBroadcastEnable\":false,"
            ),
            "{text}"
        );
        let policy = "\"groupRetryPolicy\":{\"customizedRetryPolicy\":{\"next\":[1000]},\"exponentialRetryPolicy\":{\"initial\":5000,\
                      \"max\":60000,\"multiplier\":2},\"type\":\"EXPONENTIAL\"}";
        assert!(text.contains(policy) && text.contains("\"retryMaxTimes\":-1"), "{text}");
    }
}
