//! What name servers and brokers tell tools, as tools read it. Lists and tables are always there; of their parts what is left out
//! is nothing, and so is what is not understood.
//! The other end of what the files beside this one write.

use std::collections::BTreeMap;

use super::cluster::ClusterInfo;
use super::route::{BrokerAddresses, QueueNumbers, TopicRoute};
use crate::limits;
use crate::protocol::remoting::JsonError;
use crate::protocol::remoting::json::Value;

/// Why what is told is of no use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToldError {
    #[error(transparent)]
    Json(#[from] JsonError),
    /// RocketMQ's brokers and name servers write it even when it is empty, so whoever leaves it out is something else.
    #[error("it has no `{0}`")]
    Missing(&'static str),
    #[error(
        "it says that a broker has {count} queues of a topic, and none has less than 0 or more than {}",
        limits::TOPIC_QUEUES_MAX
    )]
    QueueCount { count: i64 },
}

/// A queue of a broker's, in the order of topics, brokers and numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BrokerQueue {
    pub topic: String,
    pub broker: String,
    pub queue: i64,
}

/// Where a queue begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldBounds {
    pub first: i64,
    pub end: i64,
    /// When the last message was stored, milliseconds; 0: there is none.
    pub stored: i64,
}

/// What a broker has of a topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToldTopic {
    pub queues: BTreeMap<BrokerQueue, ToldBounds>,
    /// Messages a second that come.
    pub rate: f64,
}

/// Where a group is in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldPlace {
    pub end: i64,
    pub committed: i64,
    /// What its clients have been given.
    pub given: i64,
    /// When the message before `committed` was stored, milliseconds; 0: it is not known.
    pub stored: i64,
}

/// Where a group is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToldProgress {
    pub queues: BTreeMap<BrokerQueue, ToldPlace>,
    /// Messages a second that it consumes.
    pub rate: f64,
}

/// A client that is connected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ToldClient {
    pub client: String,
    pub address: String,
    pub language: String,
    pub version: i64,
}

/// What a client wants of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldSubscription {
    pub topic: String,
    pub expression: String,
    /// Of an expression of tags; without one it asks for all, or by something else.
    pub tags: Vec<String>,
}

/// Who consumes as a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToldConsumers {
    pub clients: Vec<ToldClient>,
    pub kind: String,
    pub model: String,
    pub start: String,
    pub subscriptions: Vec<ToldSubscription>,
}

/// What was counted in a span of time, and how much a second that is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ToldCount {
    pub sum: i64,
    pub rate: f64,
}

/// What was counted in the last minute, hour and day.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ToldCounts {
    pub minute: ToldCount,
    pub hour: ToldCount,
    pub day: ToldCount,
}

impl ToldPlace {
    /// Messages that the group has not dealt with.
    pub fn missing(&self) -> i64 {
        self.end.saturating_sub(self.committed)
    }
}

impl ToldProgress {
    pub fn missing(&self) -> i64 {
        self.queues.values().map(ToldPlace::missing).fold(0, i64::saturating_add)
    }

    pub fn read(body: &[u8]) -> Result<Self, ToldError> {
        let value = Value::parse(body)?;
        let place = |of: &Value<'_>| ToldPlace {
            end: number(of, "brokerOffset"),
            committed: number(of, "consumerOffset"),
            given: number(of, "pullOffset"),
            stored: number(of, "lastTimestamp"),
        };
        Ok(Self { queues: by_queue(table(&value, "offsetTable")?, place), rate: rate(&value, "consumeTps") })
    }
}

impl ToldTopic {
    pub fn read(body: &[u8]) -> Result<Self, ToldError> {
        let value = Value::parse(body)?;
        let bounds = |of: &Value<'_>| ToldBounds {
            first: number(of, "minOffset"),
            end: number(of, "maxOffset"),
            stored: number(of, "lastUpdateTimestamp"),
        };
        Ok(Self {
            queues: by_queue(table(&value, "offsetTable")?, bounds),
            rate: rate(&value, "topicPutTps"),
        })
    }
}

impl ToldConsumers {
    /// Of a group that consumes; producers have clients alone.
    pub fn read(body: &[u8]) -> Result<Self, ToldError> {
        let value = Value::parse(body)?;
        let client = |of: &Value<'_>| ToldClient {
            client: text(of, "clientId"),
            address: text(of, "clientAddr"),
            language: text(of, "language"),
            version: number(of, "version"),
        };
        let subscription = |(_, of): &(Value<'_>, Value<'_>)| ToldSubscription {
            topic: text(of, "topic"),
            expression: text(of, "subString"),
            tags: texts(of.get("tagsSet")),
        };
        Ok(Self {
            clients: list(&value, "connectionSet")?.iter().map(client).collect(),
            kind: text(&value, "consumeType"),
            model: text(&value, "messageModel"),
            start: text(&value, "consumeFromWhere"),
            subscriptions: value.get("subscriptionTable").entries().iter().map(subscription).collect(),
        })
    }
}

impl ToldCounts {
    pub fn read(body: &[u8]) -> Result<Self, ToldError> {
        let value = Value::parse(body)?;
        table(&value, "statsMinute")?;
        let count =
            |name| ToldCount { sum: number(value.get(name), "sum"), rate: rate(value.get(name), "tps") };
        Ok(Self { minute: count("statsMinute"), hour: count("statsHour"), day: count("statsDay") })
    }
}

impl ClusterInfo {
    pub fn read(body: &[u8]) -> Result<Self, ToldError> {
        let value = Value::parse(body)?;
        let brokers = table(&value, "brokerAddrTable")?.iter();
        Ok(Self::new(brokers.map(|(_, broker)| BrokerAddresses::of(broker)).collect()))
    }
}

/// Where a topic's queues are.
pub fn read_route(body: &[u8]) -> Result<TopicRoute, ToldError> {
    let value = Value::parse(body)?;
    list(&value, "brokerDatas")?;
    for queues in list(&value, "queueDatas")? {
        check_counts(queues)?;
    }
    Ok(TopicRoute::of(&value))
}

/// How many queues of a topic the broker itself says that it has.
pub fn read_queue_numbers(body: &[u8]) -> Result<QueueNumbers, ToldError> {
    let value = Value::parse(body)?;
    if value.get("perm").as_number().is_none() {
        return Err(ToldError::Missing("perm"));
    }
    check_counts(&value)?;
    Ok(QueueNumbers::of(&value))
}

/// Queues are walked by their count: one that no broker can have would be walked for ever.
fn check_counts(queues: &Value<'_>) -> Result<(), ToldError> {
    for name in ["readQueueNums", "writeQueueNums"] {
        let count = number(queues, name);
        if !(0..=i64::from(limits::TOPIC_QUEUES_MAX)).contains(&count) {
            return Err(ToldError::QueueCount { count });
        }
    }
    Ok(())
}

/// The names in a list that is the member `name`.
pub fn read_names(body: &[u8], name: &'static str) -> Result<Vec<String>, ToldError> {
    let value = Value::parse(body)?;
    list(&value, name)?;
    Ok(texts(value.get(name)))
}

/// A table of texts.
pub fn read_table(body: &[u8]) -> Result<BTreeMap<String, String>, ToldError> {
    let value = Value::parse(body)?;
    let entry = |(name, of): &(Value<'_>, Value<'_>)| {
        Some((name.as_text()?.to_owned(), of.as_text().unwrap_or_default().to_owned()))
    };
    Ok(table(&value, "table")?.iter().filter_map(entry).collect())
}

/// Offsets by queues.
pub fn read_queue_offsets(body: &[u8]) -> Result<BTreeMap<BrokerQueue, i64>, ToldError> {
    let value = Value::parse(body)?;
    Ok(by_queue(table(&value, "offsetTable")?, |offset| offset.as_number().unwrap_or(0)))
}

/// A list that is always there, empty or not.
fn list<'a, 'v>(value: &'a Value<'v>, name: &'static str) -> Result<&'a [Value<'v>], ToldError> {
    match value.get(name) {
        Value::Array(items) => Ok(items),
        _ => Err(ToldError::Missing(name)),
    }
}

/// The same of a table.
fn table<'a, 'v>(
    value: &'a Value<'v>,
    name: &'static str,
) -> Result<&'a [(Value<'v>, Value<'v>)], ToldError> {
    match value.get(name) {
        Value::Object(entries) => Ok(entries),
        _ => Err(ToldError::Missing(name)),
    }
}

fn by_queue<T>(table: &[(Value<'_>, Value<'_>)], read: impl Fn(&Value<'_>) -> T) -> BTreeMap<BrokerQueue, T> {
    let queue = |key: &Value<'_>| BrokerQueue {
        topic: text(key, "topic"),
        broker: text(key, "brokerName"),
        queue: number(key, "queueId"),
    };
    table.iter().map(|(key, value)| (queue(key), read(value))).collect()
}

fn text(of: &Value<'_>, name: &str) -> String {
    of.get(name).as_text().unwrap_or_default().to_owned()
}

fn texts(list: &Value<'_>) -> Vec<String> {
    list.items().iter().filter_map(Value::as_text).map(str::to_owned).collect()
}

fn number(of: &Value<'_>, name: &str) -> i64 {
    of.get(name).as_number().unwrap_or(0)
}

fn rate(of: &Value<'_>, name: &str) -> f64 {
    of.get(name).as_text().and_then(|text| text.trim_ascii().parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::remoting::body::{
        ClientConnection, ConsumedQueue, ConsumerConnections, QueueKeyed, StoredQueue, SubscriptionShown,
        write_consume_stats, write_counts, write_queue_offsets, write_table, write_topic_stats, write_topics,
    };
    use crate::types::Timestamp;

    const QUEUE: QueueKeyed<'_> = QueueKeyed { topic: "t", broker: "b-0", queue: 3 };

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut output = Vec::new();
        write(&mut output);
        output
    }

    fn key() -> BrokerQueue {
        BrokerQueue { topic: "t".to_owned(), broker: "b-0".to_owned(), queue: 3 }
    }

    #[test]
    fn what_this_broker_tells_is_read_again() {
        let stored = Some(Timestamp(1_700_000_000_000));
        let of_group = ConsumedQueue { queue: QUEUE, end: 9, committed: 5, given: 7, stored };
        let progress =
            ToldProgress::read(&written(|output| write_consume_stats(0.0, [of_group].into_iter(), output)));
        let place = ToldPlace { end: 9, committed: 5, given: 7, stored: 1_700_000_000_000 };
        let expected = ToldProgress { queues: [(key(), place)].into(), rate: 0.0 };
        assert_eq!((progress, expected.missing()), (Ok(expected), 4));
        let of_queue = StoredQueue { queue: QUEUE, first: 2, end: 4, stored: None };
        let topic =
            ToldTopic::read(&written(|output| write_topic_stats(0.0, [of_queue].into_iter(), output)));
        let bounds = ToldBounds { first: 2, end: 4, stored: 0 };
        assert_eq!(topic, Ok(ToldTopic { queues: [(key(), bounds)].into(), rate: 0.0 }));
        let offsets = written(|output| write_queue_offsets([(QUEUE, 8)].into_iter(), output));
        assert_eq!(read_queue_offsets(&offsets), Ok([(key(), 8)].into()));
        let spans = [("statsMinute", 90, Duration::from_secs(60)), ("statsDay", 7, Duration::from_secs(7))];
        let counts = ToldCounts::read(&written(|output| write_counts(&spans, output))).expect("counts");
        assert_eq!((counts.minute, counts.hour), (ToldCount { sum: 90, rate: 1.5 }, ToldCount::default()));
        let names = written(|output| write_topics(["a", "b"], output));
        assert_eq!(read_names(&names, "topicList"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        let table = written(|output| write_table([("k", "v\"")], output));
        assert_eq!(read_table(&table), Ok([("k".to_owned(), "v\"".to_owned())].into()));
    }

    #[test]
    fn clusters_and_consumers_are_read_again() {
        let broker = BrokerAddresses {
            cluster: "C".into(),
            broker: "a".into(),
            addresses: [(0, "a:1".to_owned())].into(),
            zone: None,
            acting_master: false,
        };
        let info = ClusterInfo::new(vec![broker]);
        assert_eq!(ClusterInfo::read(&written(|output| info.write(output))), Ok(info));
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
            subscriptions: vec![SubscriptionShown {
                topic: "t".to_owned(),
                expression: "TagA || TagB".to_owned(),
                kind: "TAG".to_owned(),
                version: 7,
            }],
        };
        let told = ToldConsumers::read(&written(|output| connections.write(output))).expect("consumers");
        assert_eq!((told.clients[0].client.as_str(), told.clients[0].version), ("c@1", 513));
        assert_eq!((told.kind.as_str(), told.subscriptions[0].tags.len()), ("CONSUME_PASSIVELY", 2));
    }

    /// As Apache's brokers write it: numbers that are keys without quotes, and members that are left out.
    #[test]
    fn what_is_left_out_is_nothing() {
        let text = br#"{"consumeTps":1.25,"offsetTable":{{"topic":"t","brokerName":"b-0","queueId":3}:{"brokerOffset":9}}}"#;
        let progress = ToldProgress::read(text).expect("it is read");
        assert_eq!((progress.rate, progress.missing()), (1.25, 9));
        assert_eq!(ToldConsumers::read(br#"{"connectionSet":[]}"#), Ok(ToldConsumers::default()));
        assert!(read_names(b"[", "topicList").is_err());
    }

    #[test]
    fn who_leaves_out_what_is_always_there_is_something_else() {
        assert_eq!(ToldConsumers::read(b"{}"), Err(ToldError::Missing("connectionSet")));
        assert_eq!(ToldProgress::read(b"{}"), Err(ToldError::Missing("offsetTable")));
        assert_eq!(ToldTopic::read(br#"{"offsetTable":[]}"#), Err(ToldError::Missing("offsetTable")));
        assert_eq!(ToldCounts::read(b"{}"), Err(ToldError::Missing("statsMinute")));
        assert_eq!(ClusterInfo::read(b"{}"), Err(ToldError::Missing("brokerAddrTable")));
        assert_eq!(read_names(b"{}", "topicList"), Err(ToldError::Missing("topicList")));
        assert_eq!(read_names(br#"{"topicList":[]}"#, "topicList"), Ok(Vec::new()));
        assert_eq!(read_table(b"{}"), Err(ToldError::Missing("table")));
        assert_eq!(read_queue_offsets(b"{}"), Err(ToldError::Missing("offsetTable")));
        assert_eq!(read_route(b"{}"), Err(ToldError::Missing("brokerDatas")));
        assert_eq!(read_queue_numbers(b"{}"), Err(ToldError::Missing("perm")));
    }

    #[test]
    fn no_broker_has_queues_without_end() {
        let route = |count: i64| {
            let text = format!(
                r#"{{"brokerDatas":[],"queueDatas":[{{"brokerName":"b","readQueueNums":{count}}}]}}"#
            );
            read_route(text.as_bytes()).map(|route| route.queues[0].read)
        };
        assert_eq!((route(0), route(65_536)), (Ok(0), Ok(65_536)));
        for count in [-1, 65_537, i64::from(i32::MAX), i64::MAX] {
            assert_eq!(route(count), Err(ToldError::QueueCount { count }));
        }
    }

    #[test]
    fn sums_of_what_is_told_have_an_end() {
        let of = |queue| {
            let key = BrokerQueue { queue, ..key() };
            (key, ToldPlace { end: i64::MAX, committed: -1, given: 0, stored: 0 })
        };
        let progress = ToldProgress { queues: [of(0), of(1)].into(), rate: 0.0 };
        assert_eq!(progress.missing(), i64::MAX);
    }
}
