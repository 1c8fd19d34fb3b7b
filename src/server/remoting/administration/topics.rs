//! Topics as tools ask for them and set them up (`broker/.../processor/AdminBrokerProcessor.java`). What a broker tells of them is
//! of its own queues; what is changed is the node's.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::consumers::queues_bytes;
use crate::access::Need;
use crate::api::{Request, Status};
use crate::broker::{MessageType, SPANS, TopicShape};
use crate::limits;
use crate::protocol::remoting::body::{
    DataVersion, QueueKeyed, StoredQueue, TopicConfiguration, write_topic_stats, write_topic_table,
};
use crate::protocol::remoting::call::send;
use crate::protocol::remoting::call::set_up::{AttributeChange, TopicAsked};
use crate::protocol::remoting::json::Value;
use crate::protocol::remoting::{Header, Refusal, ResponseCode};
use crate::server::remoting::answer::{Answer, Asker};
use crate::server::remoting::connection::Remoting;
use crate::server::remoting::requests::Refused;
use crate::server::remoting::signed::Sender;
use crate::types::{Retention, TopicName};

/// What an answer takes for each topic.
const TOPIC_BYTES: usize = 512;
const MESSAGE_TYPE: &str = "message.type";
/// How long messages are kept, in milliseconds; -1: as the broker has it.
const RESERVE_TIME: &str = "reserve.time";
/// Attributes that have one value here.
const FIXED: [(&str, &str); 2] = [("queue.type", "SimpleCQ"), ("cleanup.policy", "DELETE")];

impl Remoting {
    /// Begins to answer what the queues of a topic have.
    pub(super) async fn topic_stats(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        let topic = header.fields.required_text("topic")?.into_owned();
        self.check(sender, Need::Describe { topic: &topic }).map_err(Refused::failed)?;
        let name: TopicName = topic.parse().map_err(|_| no_topic(&topic))?;
        let broker = &self.connections.broker;
        let queues = broker.shown_topic(&name).map_or(0, |topic| topic.queue_count as usize);
        let bytes = queues_bytes(queues / usize::from(broker.options().shard_count));
        let remoting = self.clone();
        self.begin_with_room(asker, bytes, async move { remoting.stats_of(&name).await }).await
    }

    async fn stats_of(&self, name: &TopicName) -> Result<Answer, Refused> {
        let broker = &self.connections.broker;
        if broker.shown_topic(name).is_none() {
            return self.stats_of_unmade(name);
        }
        let stored = broker.stored_here(name).await.map_err(|failure| match failure.status {
            Status::TopicNotExist => no_topic(name.as_str()),
            _ => Refused::failed(failure),
        })?;
        let counts = broker.stored_within(name, [SPANS[0]]).await.map_err(Refused::failed)?;
        let rate = counts[0] as f64 / SPANS[0].as_secs_f64();
        let own_name = self.own_name();
        let queues = stored.iter().map(|of| StoredQueue {
            queue: self.queue_keyed(name, of.key, &own_name),
            first: of.first.0,
            end: of.end.0,
            stored: of.stored,
        });
        Ok(Answer::body(|output| write_topic_stats(rate, queues, output)))
    }

    /// Topics that nobody has made are in lists: who asks for all of them is told that these have nothing.
    fn stats_of_unmade(&self, name: &TopicName) -> Result<Answer, Refused> {
        let shard = usize::from(self.connections.broker.shard().0);
        let unmade = self.port().node.unmade(name.as_str(), shard).ok_or_else(|| no_topic(name.as_str()))?;
        let broker = &unmade.broker;
        let queues = (0..unmade.read).map(|queue| StoredQueue {
            queue: QueueKeyed { topic: name.as_str(), broker, queue },
            first: 0,
            end: 0,
            stored: None,
        });
        Ok(Answer::body(|output| write_topic_stats(0.0, queues, output)))
    }

    /// How a topic is set up.
    pub(super) fn topic_configuration(
        &self,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Answer, Refused> {
        let topic = header.fields.required_text("topic")?;
        self.check_route(sender, &topic).map_err(Refused::failed)?;
        let shown = self.own_configuration(&topic).ok_or_else(|| no_topic(&topic))?;
        Ok(Answer::body(|output| shown.write(output)))
    }

    /// The part of a topic that this broker has; `None` where it has none.
    fn own_configuration(&self, topic: &str) -> Option<TopicConfiguration> {
        let (port, broker) = (self.port(), &self.connections.broker);
        let own = port.own_topic(topic)?;
        let shards = usize::from(broker.options().shard_count);
        let share = port.node.share(own, usize::from(broker.shard().0), shards)?;
        let shown = broker.shown_topic(&topic.parse().ok()?)?;
        Some(TopicConfiguration {
            topic: topic.to_owned(),
            read: share.read,
            write: share.write,
            permission: share.permission,
            ordered: shown.ordered,
            attributes: attributes_of(shown.message_type),
        })
    }

    /// Begins to answer with all topics of this broker; those after the number that is said, as many as are wanted.
    pub(super) async fn topic_table(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "list topics")?;
        let first = header.fields.number::<usize>("topicSeq").unwrap_or(0);
        let most = header.fields.number::<usize>("maxTopicNum").filter(|most| *most > 0);
        let most = most.unwrap_or(usize::MAX).min(limits::FRAME_BYTES_MAX / TOPIC_BYTES);
        let remoting = self.clone();
        let table = async move {
            let names = remoting.connections.broker.topic_names();
            let wanted = names.iter().skip(first).take(most);
            let topics: Vec<_> =
                wanted.filter_map(|name| remoting.own_configuration(name.as_str())).collect();
            let version = remoting.topics_version();
            let mut answer = Answer::body(|output| write_topic_table(&version, &topics, output));
            answer.fields = vec![("totalTopicNum", names.len().to_string())];
            Ok(answer)
        };
        let bytes = self.connections.broker.topic_count() * TOPIC_BYTES;
        self.begin_with_room(asker, bytes.min(limits::FRAME_BYTES_MAX), table).await
    }

    /// Which state of its topics the broker is at.
    fn topics_version(&self) -> DataVersion {
        let counter = self.connections.broker.topics_version();
        DataVersion { counter, state: 0, timestamp: self.port().boot.0 as i64 }
    }

    /// Begins to make a topic, or to change it.
    pub(super) async fn set_up_topic(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "set topics up")?;
        let asked = TopicAsked::read(&header.fields)?;
        self.begin_set_up_topics(asker, vec![asked]).await
    }

    /// The same of several.
    pub(super) async fn set_up_topics(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        body: &[u8],
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "set topics up")?;
        let value = Value::parse(body).map_err(no_json)?;
        let asked: Result<Vec<_>, Refusal> =
            value.get("topicConfigList").items().iter().map(TopicAsked::of).collect();
        self.begin_set_up_topics(asker, asked?).await
    }

    async fn begin_set_up_topics(
        self: &Rc<Self>,
        asker: Asker,
        asked: Vec<TopicAsked>,
    ) -> Result<Option<Answer>, Refused> {
        asked.iter().try_for_each(|asked| self.check_not_reserved(&asked.topic))?;
        let shapes: Result<Vec<_>, Refused> = asked.into_iter().map(|asked| self.shape_of(asked)).collect();
        let (shapes, broker) = (shapes?, self.connections.broker.clone());
        let done = async move {
            for shape in shapes {
                broker.shape_topic(shape).await.map_err(Refused::failed)?;
            }
            Ok(Answer::done())
        };
        self.begin(asker, done).await
    }

    /// RocketMQ's own topics are not made, changed or removed.
    fn check_not_reserved(&self, topic: &TopicName) -> Result<(), Refused> {
        let broker = &self.connections.broker;
        let is_free = !broker.is_reserved(topic) && !send::is_forbidden(topic);
        if is_free || broker.shown_topic(topic).is_some() {
            return Ok(());
        }
        let remark = format!("The topic[{topic}] is conflict with system topic.");
        Err(Refused::new(ResponseCode::InvalidParameter, remark))
    }

    fn shape_of(&self, asked: TopicAsked) -> Result<TopicShape, Refused> {
        let shown = self.connections.broker.shown_topic(&asked.topic);
        let now = |of: Option<u32>| shown.map(|shown| of.unwrap_or(shown.queue_count));
        let read = now(shown.and_then(|shown| shown.read_queues));
        let write = now(shown.and_then(|shown| shown.write_queues));
        let mut shape = TopicShape {
            read_queues: self.over_node(asked.read, read),
            write_queues: self.over_node(asked.write, write),
            topic: asked.topic,
            permission: asked.permission,
            ordered: asked.ordered,
            message_type: None,
            retention: None,
        };
        for change in &asked.attributes {
            apply_attribute(change, &mut shape)?;
        }
        Ok(shape)
    }

    /// Queues over the whole node, when each broker is to show so many. Where `now` are shown that is so already if it is the
    /// share of this broker, or of those that have one more: tools say what one of them has to all.
    fn over_node(&self, of_broker: u32, now: Option<u32>) -> u32 {
        let broker = &self.connections.broker;
        let (shard, shards) = (u32::from(broker.shard().0), u32::from(broker.options().shard_count));
        match now {
            Some(now) if of_broker == now.div_ceil(shards) => now,
            Some(now) if of_broker == now.saturating_sub(shard).div_ceil(shards) => now,
            _ => of_broker.saturating_mul(shards),
        }
    }

    /// Begins to remove a topic, on the whole node. One that is not there is gone, as RocketMQ has it.
    pub(super) async fn delete_topic(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "delete topics")?;
        let name = header.fields.required_text("topic")?;
        let Ok(topic) = name.parse::<TopicName>() else {
            let remark = format!("`{name}` is no name of a topic");
            return Err(Refused::new(ResponseCode::InvalidParameter, remark));
        };
        self.check_not_reserved(&topic)?;
        let broker = self.connections.broker.clone();
        let removed = async move {
            match broker.handle(Request::DeleteTopic(topic)).await {
                Err(failure) if failure.status != Status::TopicNotExist => Err(Refused::failed(failure)),
                _ => Ok(Answer::done()),
            }
        };
        self.begin(asker, removed).await
    }
}

fn attributes_of(message_type: MessageType) -> BTreeMap<String, String> {
    // A topic of which nothing was said takes messages of every kind.
    let name = (message_type != MessageType::default()).then(|| message_type.name());
    name.map(|name| (MESSAGE_TYPE.to_owned(), name.to_owned())).into_iter().collect()
}

fn apply_attribute(change: &AttributeChange, shape: &mut TopicShape) -> Result<(), Refusal> {
    let wrong = |what: &str| Refusal::new(ResponseCode::SystemError, what.to_owned());
    match (change.name.as_str(), change.value.as_deref()) {
        (MESSAGE_TYPE, None | Some("UNSPECIFIED")) => shape.message_type = Some(MessageType::default()),
        (MESSAGE_TYPE, Some(name)) => {
            let known = MessageType::named(name);
            shape.message_type =
                Some(known.ok_or_else(|| wrong(&format!("`{name}` is no type of a topic's messages")))?);
        }
        (RESERVE_TIME, None | Some("-1")) => shape.retention = Some(Retention::Inherited),
        (RESERVE_TIME, Some(milliseconds)) => {
            let age = milliseconds.parse().map(Duration::from_millis);
            let age = age.map_err(|_| wrong("reserve.time is a number of milliseconds, or -1"))?;
            shape.retention = Some(Retention::Age(age));
        }
        (name, value) => match FIXED.iter().find(|(of, _)| *of == name) {
            Some((_, fixed)) if value.is_none_or(|value| value == *fixed) => {}
            Some((_, fixed)) => return Err(wrong(&format!("{name} is {fixed} here, and nothing else"))),
            None => return Err(wrong(&format!("unsupported key: {name}"))),
        },
    }
    Ok(())
}

pub(super) fn no_json(error: crate::protocol::remoting::JsonError) -> Refused {
    Refused::new(ResponseCode::SystemError, format!("the body is no JSON: {error}"))
}

/// In RocketMQ's words.
pub(super) fn no_topic(topic: &str) -> Refused {
    Refused::new(ResponseCode::TopicNotExist, format!("No topic in this broker. topic: {topic}"))
}
