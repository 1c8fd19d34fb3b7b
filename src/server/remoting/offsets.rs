//! Where groups are in the queues of this broker, and what the queues have.

use std::rc::Rc;

use super::answer::{Answer, Asker};
use super::connection::Remoting;
use super::requests::Refused;
use super::signed::Sender;
use crate::access::Need;
use crate::api::{Failure, OffsetSpec, Status};
use crate::namesrv::{is_retry_topic, retried_group};
use crate::protocol::remoting::call::offsets::{Boundary, OffsetCommit, OffsetQuery, QueueAsked, TimeSearch};
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::{Header, ResponseCode, consumer_group};
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset, TopicName};

/// As RocketMQ says it: clients look for the number, people for the words.
const NOT_FOUND: &str = "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first";

/// What is asked of a queue whatever group asks.
enum OfQueue {
    Time(TimeSearch),
    Max(QueueAsked),
    Min(QueueAsked),
    EarliestStoreTime(QueueAsked),
}

impl OfQueue {
    fn read(header: &Header<'_>) -> Result<Self, Refused> {
        let fields = &header.fields;
        Ok(match header.code {
            request::SEARCH_OFFSET_BY_TIMESTAMP => OfQueue::Time(TimeSearch::read(fields)?),
            request::GET_MAX_OFFSET => OfQueue::Max(QueueAsked::read(fields)?),
            request::GET_MIN_OFFSET => OfQueue::Min(QueueAsked::read(fields)?),
            _ => OfQueue::EarliestStoreTime(QueueAsked::read(fields)?),
        })
    }

    fn queue(&self) -> &QueueAsked {
        match self {
            OfQueue::Time(search) => &search.queue,
            OfQueue::Max(queue) | OfQueue::Min(queue) | OfQueue::EarliestStoreTime(queue) => queue,
        }
    }
}

impl Remoting {
    /// Begins to answer where a group goes on.
    pub(super) async fn query_offset(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        let query = OffsetQuery::read(&header.fields)?;
        self.check_consumer(sender, &query.queue.topic, &query.group)?;
        let remoting = self.clone();
        self.begin(asker, async move { remoting.group_offset(query).await }).await
    }

    async fn group_offset(&self, query: OffsetQuery) -> Result<Answer, Refused> {
        let group = group_named(&query.group)?;
        let broker = &self.connections.broker;
        let offset = match self.queue_of(&query.queue) {
            // It is made with the first message that comes again.
            Err(_) if is_retry_topic(&query.queue.topic) => query.zero_if_new.then_some(QueueOffset::ZERO),
            Err(_) => None,
            Ok(key) => match broker.committed_for_reader(&group, key).await.map_err(with_members)? {
                // Nobody but the group has put anything there, so all of it is the group's.
                None if query.zero_if_new && is_retry_topic(&query.queue.topic) => {
                    Some(broker.queue_span(key).map_err(Refused::failed)?.first)
                }
                None if query.zero_if_new
                    && broker.begins_at_first(key).await.map_err(Refused::failed)? =>
                {
                    Some(QueueOffset::ZERO)
                }
                committed => committed,
            },
        };
        match offset {
            Some(offset) => Ok(Answer::field("offset", offset.0.to_string())),
            None => Err(Refused::new(ResponseCode::QueryNotFound, NOT_FOUND)),
        }
    }

    /// Takes note of where a group is. Whoever wants an answer gets it when that is durable.
    pub(super) async fn update_offset(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        let commit = OffsetCommit::read(&header.fields)?;
        self.check_consumer(sender, &commit.queue.topic, &commit.group)?;
        let group = consumer_group(&commit.group).map_err(|error| {
            let remark = format!("subscription group [{}] does not exist: {error}", commit.group);
            Refused::new(ResponseCode::SubscriptionGroupNotExist, remark)
        })?;
        let key = match self.queue_of(&commit.queue) {
            // There is nothing in it, so this says nothing.
            Err(_) if retried_group(&commit.queue.topic) == Some(&commit.group) => {
                return Ok(Some(Answer::done()));
            }
            found => found.map_err(Refused::failed)?,
        };
        let broker = &self.connections.broker;
        let taken = broker.commit_as_reader(&group, key, QueueOffset(commit.offset), self.network()).await;
        let taken = taken.map_err(with_members)?;
        if asker.is_one_way() {
            self.connections.metrics.requests.add(1);
            return Ok(None);
        }
        let settled = async move {
            taken.settled().await.map_err(Refused::failed)?;
            Ok(Answer::done())
        };
        self.begin(asker, settled).await
    }

    /// Begins to answer what a queue has.
    pub(super) async fn queue_offset(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        let asked = OfQueue::read(header)?;
        self.check_reader(sender, &asked.queue().topic)?;
        let remoting = self.clone();
        self.begin(asker, async move { remoting.answer_of_queue(asked).await }).await
    }

    async fn answer_of_queue(&self, asked: OfQueue) -> Result<Answer, Refused> {
        // As RocketMQ has it, there is nothing in a queue that is not there.
        let Ok(key) = self.queue_of(asked.queue()) else {
            return Ok(match asked {
                OfQueue::EarliestStoreTime(_) => Answer::field("timestamp", "-1"),
                _ => Answer::field("offset", "0"),
            });
        };
        let broker = &self.connections.broker;
        let found = match asked {
            OfQueue::Max(_) => broker.find_offset(key, OffsetSpec::Last).await,
            OfQueue::Min(_) => broker.find_offset(key, OffsetSpec::First).await,
            OfQueue::Time(TimeSearch { time, boundary: Boundary::Lower, .. }) => {
                broker.find_offset(key, OffsetSpec::Time(time)).await
            }
            OfQueue::Time(TimeSearch { time, .. }) => {
                broker.last_stored_by(key, time).await.map(Option::unwrap_or_default)
            }
            OfQueue::EarliestStoreTime(_) => {
                let time = broker.first_store_time(key).await.map_err(Refused::failed)?;
                return Ok(Answer::field(
                    "timestamp",
                    time.map_or("-1".to_owned(), |time| time.0.to_string()),
                ));
            }
        };
        Ok(Answer::field("offset", found.map_err(Refused::failed)?.0.to_string()))
    }

    /// A queue of this broker by its number to clients.
    pub(super) fn queue_of(&self, asked: &QueueAsked) -> Result<QueueKey, Failure> {
        let topic: TopicName = asked
            .topic
            .parse()
            .map_err(|error| Failure::invalid(format_args!("{}: {error}", asked.topic)))?;
        let broker = &self.connections.broker;
        let (id, queue_count) = broker.topic_layout(&topic)?;
        let queue = self.own_queue(&topic, Some(asked.queue.into()), queue_count)?;
        let (shard, shards) = (broker.shard().0, broker.options().shard_count);
        Ok(QueueKey { topic: id, queue: QueueNumber(queue * u32::from(shards) + u32::from(shard)) })
    }

    /// Whether the sender may consume a topic as a group. That of a group's retries is consumed by whoever acts for it.
    pub(super) fn check_consumer(&self, sender: &Sender, topic: &str, group: &str) -> Result<(), Refused> {
        let checked = match retried_group(topic) {
            Some(retried) => self
                .check(sender, Need::ActFor { group: retried })
                .and_then(|()| self.check(sender, Need::ActFor { group })),
            None => self.check(sender, Need::Consume { topic, group }),
        };
        checked.map_err(Refused::failed)
    }

    pub(super) fn check_reader(&self, sender: &Sender, topic: &str) -> Result<(), Refused> {
        let need = match retried_group(topic) {
            Some(group) => Need::ActFor { group },
            None => Need::Read { topic },
        };
        self.check(sender, need).map_err(Refused::failed)
    }
}

pub(super) fn group_named(name: &str) -> Result<GroupName, Refused> {
    consumer_group(name).map_err(|error| {
        Refused::new(ResponseCode::InvalidParameter, format!("`{name}` is no name of a group: {error}"))
    })
}

/// RocketMQ's number for what is wrong with a group, whatever else it may mean.
pub(super) fn with_members(failure: Failure) -> Refused {
    match failure.status {
        Status::GroupHasMembers => Refused::new(ResponseCode::SystemError, failure.message),
        _ => Refused::failed(failure),
    }
}
