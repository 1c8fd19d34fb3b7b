//! Messages that readers could not process: they come again, to the group alone, by way of its topic of retries, or they are
//! dead letters (`broker/.../processor/AbstractSendMessageProcessor.java`, `consumerSendMsgBack`).
//!
//! A copy of the message is held until its time, and enters this shard's queue of that topic in one step of the log, as any
//! delayed message does: what was answered comes once, after any death.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::api::{Failure, FoundMessage, Hold, Produce, Release, Status};
use crate::broker::copied_message::copy_with_all;
use crate::broker::find::FindHere;
use crate::broker::receive::dead_letter;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::state::Permission;
use crate::types::{GroupName, GroupTopic, QueueKey, RecordLocation, Timestamp, TopicName};
use crate::wire::batch::OwnedBatch;
use crate::wire::origin::Origin;
use crate::wire::properties::{self, names};
use crate::wire::record::{Record, RecordView};

/// How often a message is delivered again, unless the client or the group's settings say it: RocketMQ's `retryMaxTimes`.
const RETRIES_MAX: i64 = 16;
/// The level of the first retry: ten seconds, unless the node has other levels.
const FIRST_RETRY_LEVEL: u32 = 3;
/// Where a message was born whose producer's protocol does not say it.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// When a message comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDelay {
    /// The later, the more often it has come.
    ByCount,
    /// One of the node's levels; a higher one is the last.
    Level(u32),
    /// Never: it is a dead letter.
    Never,
}

/// What whoever gives a message back says of it.
#[derive(Clone, Debug)]
pub struct SendBack {
    pub group: GroupName,
    /// How often it is delivered again; `None`: as often as the group's settings say. Below zero: not at all.
    pub retries_max: Option<i64>,
    pub delay: RetryDelay,
    /// The place of the network where whoever gives it back is.
    pub network: IpAddr,
}

impl<D: Disk> Broker<D> {
    /// The message at a place of this shard, as its id names it; `None` when no reader could have it from there.
    pub async fn message_to_return(&self, location: RecordLocation) -> Result<Option<FoundMessage>, Failure> {
        let mut found = self.find_here(FindHere::Location(location)).await?;
        Ok(found.messages.pop())
    }

    /// Has a stored message delivered again, or puts it to the dead letters; `id` is what it is called by. It is as safe as the
    /// topic that it goes to, or the node, says when this returns. Nothing is done for a group that keeps no retries. Refused, and
    /// still its consumer's, is one whose properties leave no room for where it is to come again.
    pub async fn send_back(&self, back: &SendBack, message: &FoundMessage, id: &str) -> Result<(), Failure> {
        let SendBack { group, retries_max, delay, network } = back;
        if !self.keeps_retries(group) {
            return Ok(());
        }
        self.check_takes_retries(group)?;
        let (record, _) = RecordView::cut(&message.record).expect("a stored record");
        let before = record.origin().unwrap_or_else(|| Origin::new(0, 0, NOWHERE));
        let deliveries = before.deliveries_before.saturating_add(1);
        let origin = Some(Origin { deliveries_before: deliveries, ..before });
        let record = Record { born_delta_ms: 0, origin, ..record.to_record() };
        let first_id = text_of(record.properties, names::ORIGIN_MESSAGE_ID).unwrap_or(id);
        let mut said = vec![(names::ORIGIN_MESSAGE_ID, first_id)];
        let topic = message.topic.as_str();
        let first_topic = text_of(record.properties, names::RETRY_TOPIC).unwrap_or(topic);
        let level = match delay {
            _ if i64::from(deliveries) > self.retries_max(group, *retries_max) => None,
            RetryDelay::Never => None,
            RetryDelay::Level(level) => Some(*level),
            RetryDelay::ByCount => Some(FIRST_RETRY_LEVEL + u32::from(before.deliveries_before)),
        };
        let Some(level) = level else {
            let batch = dead_letter(&record, message.born_time, Some(topic), deliveries.into(), &said);
            return self.store_dead_letter(back, first_topic, batch).await;
        };
        let (level, delay) = self.options.delay_levels.level(level);
        let level = level.to_string();
        said.extend([(names::RETRY_TOPIC, first_topic), (names::DELAY, &*level)]);
        let topic = GroupTopic::Retries.of(group);
        let key = self.open_group_topic(&topic, *network).await?;
        let queue = (key.queue.0 / u32::from(self.options.shard_count)).to_string();
        said.extend([(names::REAL_TOPIC, topic.as_str()), (names::REAL_QUEUE, &*queue)]);
        let batch = copy_with_all(&record, message.born_time, &said).map_err(|error| {
            let message = format!("the message has no room left for what it is to come again with: {error}");
            Failure::new(Status::MessageTooLarge, message)
        })?;
        self.hold_here(&Hold { key, level: None, batch, release: Release::After(delay) }).await?;
        self.note_use(group);
        self.metrics.messages_sent_back.add(1);
        Ok(())
    }

    async fn store_dead_letter(
        &self,
        SendBack { group, network, .. }: &SendBack,
        first_topic: &str,
        batch: OwnedBatch,
    ) -> Result<(), Failure> {
        let key = self.open_group_topic(&GroupTopic::DeadLetters.of(group), *network).await?;
        self.produce_here(&Produce { key, level: None, batch }, None).await?;
        self.note_use(group);
        self.note_dead_letter_sent(group, first_topic, key);
        Ok(())
    }

    /// A dead letter has been stored in a queue. It counts for the topic that its producer sent it to, as long as that is there.
    fn note_dead_letter_sent(&self, group: &GroupName, first_topic: &str, stored_in: QueueKey) {
        let first_topic = first_topic.parse().ok();
        let known = first_topic.and_then(|name: TopicName| Some(self.tables().topic_named(&name)?.id));
        self.note_dead_letter(group, known.unwrap_or(stored_in.topic));
    }

    /// A message that a client sends to its group's retries itself, as a dead letter, if it was delivered often enough;
    /// [`note_dead_letter_of_retry`](Self::note_dead_letter_of_retry) follows once it is stored.
    pub fn dead_letter_of_retry(
        &self,
        group: &GroupName,
        retries_max: Option<i64>,
        message: &Record<'_>,
        born_time: Timestamp,
    ) -> Option<OwnedBatch> {
        let deliveries = message.origin.map_or(0, |origin| origin.deliveries_before);
        let is_over = i64::from(deliveries) > self.retries_max(group, retries_max);
        is_over.then(|| dead_letter(message, born_time, None, deliveries.into(), &[]))
    }

    /// The dead letter of a retry has been stored in a queue.
    pub fn note_dead_letter_of_retry(&self, group: &GroupName, letter: &OwnedBatch, stored_in: QueueKey) {
        let view = letter.view();
        let record = view.records().next();
        let first_topic = record.and_then(|record| text_of(record.properties(), names::RETRY_TOPIC));
        self.note_dead_letter_sent(group, first_topic.unwrap_or(""), stored_in);
    }

    /// As in RocketMQ, the right to write to a group's retries can be taken away.
    fn check_takes_retries(&self, group: &GroupName) -> Result<(), Failure> {
        let topic = GroupTopic::Retries.of(group);
        let permission =
            self.tables().topic_named(&topic).map_or(Permission::ALL, |topic| topic.policy.permission);
        if permission.0 & Permission::WRITE != 0 {
            return Ok(());
        }
        let message = format!("the topic[{topic}] sending message is forbidden");
        Err(Failure::new(Status::PermissionDenied, message))
    }

    /// Whether what a group gives back is kept.
    pub fn keeps_retries(&self, group: &GroupName) -> bool {
        self.tables().group(group).is_none_or(|group| group.policy.retry_queues > 0)
    }

    fn retries_max(&self, group: &GroupName, asked: Option<i64>) -> i64 {
        let of_group = || {
            let tables = self.tables();
            let deliveries_max = tables.group_settings(group).and_then(|settings| settings.deliveries_max);
            deliveries_max.map(|max| i64::from(max) - 1)
        };
        asked.or_else(of_group).unwrap_or(RETRIES_MAX)
    }

    /// This shard's queue of a topic of a group, which somebody at a place of the network writes to who may: it is made where it is
    /// not there.
    pub async fn open_group_topic(&self, topic: &TopicName, network: IpAddr) -> Result<QueueKey, Failure> {
        self.own_queue_made_by(topic, Some(network)).await
    }
}

/// A property's value, unless it is none.
fn text_of<'a>(properties: &'a [u8], name: &str) -> Option<&'a str> {
    let value = properties::get(properties, name)?;
    std::str::from_utf8(value).ok().filter(|value| !value.is_empty())
}
