//! Who consumes as a group, and how far it is, as tools are told (`remoting/.../protocol/body/ConsumerConnection.java`,
//! `remoting/.../protocol/admin/ConsumeStats.java`, `TopicStatsTable.java`).

use std::time::Duration;

use crate::protocol::remoting::json_writer::{ObjectWriter, write_object};
use crate::types::Timestamp;

/// A client of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConnection {
    pub client: String,
    pub address: String,
    /// By RocketMQ's name for it: tools know no others.
    pub language: &'static str,
    pub version: i32,
}

pub fn write_connections(clients: &[ClientConnection], output: &mut Vec<u8>) {
    write_object(output, |body| write_connection_set(clients, body));
}

fn write_connection_set(clients: &[ClientConnection], body: &mut ObjectWriter<'_>) {
    body.array("connectionSet", |set| {
        clients.iter().for_each(|client| set.object(|members| client.write(members)));
    });
}

/// Who produces, by groups (`remoting/.../protocol/body/ProducerTableInfo.java`); when each was heard of is the same for all.
pub fn write_producers(groups: &[(String, Vec<ClientConnection>)], now: Timestamp, output: &mut Vec<u8>) {
    write_object(output, |body| {
        body.object("data", |data| {
            for (group, clients) in groups {
                data.array(group, |list| {
                    for client in clients {
                        list.object(|members| {
                            members.text("clientId", &client.client);
                            members.text("language", client.language);
                            members.number("lastUpdateTimestamp", milliseconds(Some(now)));
                            members.text("remoteIP", &client.address);
                            members.number("version", client.version.into());
                        });
                    }
                });
            }
        });
    });
}

/// What the clients of a group want of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionShown {
    pub topic: String,
    pub expression: String,
    pub kind: String,
    pub version: i64,
}

/// A group's clients, and what they have in common. Tools end without the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerConnections {
    pub clients: Vec<ClientConnection>,
    pub kind: &'static str,
    pub model: &'static str,
    pub start: &'static str,
    pub subscriptions: Vec<SubscriptionShown>,
}

/// A queue as a key of a map.
#[derive(Clone, Copy, Debug)]
pub struct QueueKeyed<'a> {
    pub topic: &'a str,
    pub broker: &'a str,
    pub queue: u32,
}

/// Where a group is in a queue.
#[derive(Clone, Copy, Debug)]
pub struct ConsumedQueue<'a> {
    pub queue: QueueKeyed<'a>,
    pub end: u64,
    pub committed: u64,
    /// What clients have been given; those after `committed` are on their way.
    pub given: u64,
    /// When the message before `committed` was stored.
    pub stored: Option<Timestamp>,
}

/// What a queue has.
#[derive(Clone, Copy, Debug)]
pub struct StoredQueue<'a> {
    pub queue: QueueKeyed<'a>,
    pub first: u64,
    pub end: u64,
    /// When the last message was stored.
    pub stored: Option<Timestamp>,
}

impl ConsumerConnections {
    pub fn write(&self, output: &mut Vec<u8>) {
        write_object(output, |body| {
            write_connection_set(&self.clients, body);
            body.text("consumeFromWhere", self.start);
            body.text("consumeType", self.kind);
            body.text("messageModel", self.model);
            body.object("subscriptionTable", |table| {
                for subscription in &self.subscriptions {
                    table.object(&subscription.topic, |members| subscription.write(members));
                }
            });
        });
    }
}

impl ClientConnection {
    fn write(&self, members: &mut ObjectWriter<'_>) {
        members.text("clientAddr", &self.address);
        members.text("clientId", &self.client);
        members.text("language", self.language);
        members.number("version", self.version.into());
    }
}

impl SubscriptionShown {
    pub fn write(&self, members: &mut ObjectWriter<'_>) {
        let is_of_tags = self.kind == "TAG" && self.expression.trim() != "*";
        let tags = || self.expression.split("||").map(str::trim).filter(|tag| is_of_tags && !tag.is_empty());
        members.boolean("classFilterMode", false);
        members.array("codeSet", |codes| tags().for_each(|tag| codes.number(tag_hash(tag).into())));
        members.text("expressionType", &self.kind);
        members.text("subString", &self.expression);
        members.number("subVersion", self.version);
        members.array("tagsSet", |set| tags().for_each(|tag| set.text(tag)));
        members.text("topic", &self.topic);
    }
}

/// The hash that RocketMQ's clients for Java have of a tag.
pub fn tag_hash(tag: &str) -> i32 {
    tag.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

impl QueueKeyed<'_> {
    pub fn write(&self, key: &mut ObjectWriter<'_>) {
        key.text("brokerName", self.broker);
        key.number("queueId", self.queue.into());
        key.text("topic", self.topic);
    }
}

pub(super) fn milliseconds(stored: Option<Timestamp>) -> i64 {
    stored.and_then(|time| i64::try_from(time.0).ok()).unwrap_or(0)
}

/// `rate`: the messages a second that the group is given of these topics.
pub fn write_consume_stats<'a>(
    rate: f64,
    queues: impl Iterator<Item = ConsumedQueue<'a>>,
    output: &mut Vec<u8>,
) {
    write_object(output, |body| {
        body.member("consumeTps", |value| push_rate(rate, value));
        body.object("offsetTable", |table| {
            for of in queues {
                table.entry(
                    |key| of.queue.write(key),
                    |value| {
                        write_object(value, |place| {
                            place.number("brokerOffset", of.end as i64);
                            place.number("consumerOffset", of.committed as i64);
                            place.number("lastTimestamp", milliseconds(of.stored));
                            place.number("pullOffset", of.given as i64);
                        });
                    },
                );
            }
        });
    });
}

/// With four digits behind the point at most.
fn push_rate(rate: f64, output: &mut Vec<u8>) {
    // The sum of nothing is minus zero.
    let rounded = (rate * 10_000.0).round() / 10_000.0 + 0.0;
    output.extend_from_slice(format!("{rounded:?}").as_bytes());
}

/// Where all groups of a broker are, each in the topics that it consumes, and how much is missing or on its way in all.
pub struct BrokerConsumption<'a> {
    pub address: &'a str,
    /// Each with its topics.
    pub groups: Vec<(&'a str, Vec<ConsumedTopic<'a>>)>,
}

/// How many messages a second a group is given of a topic, and where it is in the queues.
pub type ConsumedTopic<'a> = (f64, Vec<ConsumedQueue<'a>>);

impl BrokerConsumption<'_> {
    pub fn write(&self, output: &mut Vec<u8>) {
        let queues =
            || self.groups.iter().flat_map(|(_, topics)| topics.iter().flat_map(|(_, queues)| queues));
        write_object(output, |body| {
            body.text("brokerAddr", self.address);
            body.array("consumeStatsList", |list| {
                for (group, topics) in &self.groups {
                    list.object(|entry| {
                        entry.array(group, |of_topics| {
                            for (rate, topic) in topics {
                                of_topics
                                    .value(|value| write_consume_stats(*rate, topic.iter().copied(), value));
                            }
                        });
                    });
                }
            });
            body.number("totalDiff", queues().map(|of| of.end.saturating_sub(of.committed) as i64).sum());
            body.number("totalInflightDiff", queues().map(|of| (of.given - of.committed) as i64).sum());
        });
    }
}

/// Offsets by queues.
pub fn write_queue_offsets<'a>(queues: impl Iterator<Item = (QueueKeyed<'a>, u64)>, output: &mut Vec<u8>) {
    write_object(output, |body| {
        body.object("offsetTable", |table| {
            for (queue, offset) in queues {
                table.entry(
                    |key| queue.write(key),
                    |value| value.extend_from_slice(offset.to_string().as_bytes()),
                );
            }
        });
    });
}

/// `rate`: the messages a second that are stored in them.
pub fn write_topic_stats<'a>(rate: f64, queues: impl Iterator<Item = StoredQueue<'a>>, output: &mut Vec<u8>) {
    write_object(output, |body| {
        body.object("offsetTable", |table| {
            for of in queues {
                table.entry(
                    |key| of.queue.write(key),
                    |value| {
                        write_object(value, |place| {
                            place.number("lastUpdateTimestamp", milliseconds(of.stored));
                            place.number("maxOffset", of.end as i64);
                            place.number("minOffset", of.first as i64);
                        });
                    },
                );
            }
        });
        body.member("topicPutTps", |value| push_rate(rate, value));
    });
}

/// What was counted over spans of time, and how much a second that is (`remoting/.../protocol/body/BrokerStatsData.java`).
pub fn write_counts(spans: &[(&str, u64, Duration)], output: &mut Vec<u8>) {
    write_object(output, |body| {
        for (name, count, span) in spans {
            let rate = *count as f64 / span.as_secs_f64();
            body.object(name, |of| {
                of.member("avgpt", |value| value.extend_from_slice(b"0.0"));
                of.number("sum", *count as i64);
                of.member("tps", |value| value.extend_from_slice(format!("{rate:.4}").as_bytes()));
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut output = Vec::new();
        write(&mut output);
        String::from_utf8(output).expect("text")
    }

    #[test]
    fn connections_have_everything_that_tools_end_without() {
        let subscription = |expression: &str| SubscriptionShown {
            topic: format!("t{}", expression.len()),
            expression: expression.to_owned(),
            kind: "TAG".to_owned(),
            version: 7,
        };
        let connections = ConsumerConnections {
            clients: vec![ClientConnection {
                client: "c@1".to_owned(),
                address: "10.0.0.1:9".to_owned(),
                language: "JAVA",
                version: 513,
            }],
            kind: "CONSUME_PASSIVELY",
            model: "CLUSTERING",
            start: "CONSUME_FROM_LAST_OFFSET",
            subscriptions: vec![subscription("*"), subscription("TagA || TagB")],
        };
        assert_eq!(
            written(|output| connections.write(output)),
            "{\"connectionSet\":[{\"clientAddr\":\"10.0.0.1:9\",\"clientId\":\"c@1\",\"language\":\"JAVA\",\"version\":513}],\
             \"consumeFromWhere\":\"CONSUME_FROM_LAST_OFFSET\",\"consumeType\":\"CONSUME_PASSIVELY\",\"messageModel\":\"CLUSTERING\",\
             \"subscriptionTable\":{\
             \"t1\":{\"classFilterMode\":false,\"codeSet\":[],\"expressionType\":\"TAG\",\"subString\":\"*\",\"subVersion\":7,\
             \"tagsSet\":[],\"topic\":\"t1\"},\
             \"t12\":{\"classFilterMode\":false,\"codeSet\":[2598919,2598920],\"expressionType\":\"TAG\",\"subString\":\"TagA || TagB\",\
             \"subVersion\":7,\"tagsSet\":[\"TagA\",\"TagB\"],\"topic\":\"t12\"}}}"
        );
    }

    /// As `mqadmin` 4.9 and 5.5 both read them: keys are objects, not text.
    #[test]
    fn queues_are_keys() {
        let queue = QueueKeyed { topic: "t", broker: "b-0", queue: 3 };
        let stored = Some(Timestamp(1_700_000_000_000));
        let consumed = ConsumedQueue { queue, end: 9, committed: 5, given: 7, stored };
        assert_eq!(
            written(|output| write_consume_stats(1.0 / 60.0, [consumed].into_iter(), output)),
            "{\"consumeTps\":0.0167,\"offsetTable\":{{\"brokerName\":\"b-0\",\"queueId\":3,\"topic\":\"t\"}:{\"brokerOffset\":9,\
             \"consumerOffset\":5,\"lastTimestamp\":1700000000000,\"pullOffset\":7}}}"
        );
        let spans = [("statsMinute", 90, Duration::from_secs(60))];
        assert_eq!(
            written(|output| write_counts(&spans, output)),
            "{\"statsMinute\":{\"avgpt\":0.0,\"sum\":90,\"tps\":1.5000}}"
        );
        let of_queue = StoredQueue { queue, first: 2, end: 2, stored: None };
        assert_eq!(
            written(|output| write_topic_stats(0.0, [of_queue].into_iter(), output)),
            "{\"offsetTable\":{{\"brokerName\":\"b-0\",\"queueId\":3,\"topic\":\"t\"}:{\"lastUpdateTimestamp\":0,\"maxOffset\":2,\
             \"minOffset\":2}},\"topicPutTps\":0.0}"
        );
    }
}
