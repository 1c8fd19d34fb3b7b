//! What queues of this broker have, entry by entry and by times, and places of one group that another one takes over
//! (`broker/.../processor/AdminBrokerProcessor.java`).

use std::rc::Rc;

use super::consumers::queues_bytes;
use super::groups::parsed;
use super::topics::no_topic;
use crate::access::Need;
use crate::api::{Filter, Subscription};
use crate::broker::{Pull, StoredRecord, Taker};
use crate::limits;
use crate::protocol::remoting::body::{
    QueueEntries, QueueEntry, QueueTimes, SubscriptionShown, tag_hash, write_queue_times, write_subscription,
};
use crate::protocol::remoting::call::offsets::QueueAsked;
use crate::protocol::remoting::message::{PlacedRecord, RecordTerms, write_record};
use crate::protocol::remoting::{Header, ResponseCode};
use crate::server::remoting::answer::{Answer, Asker};
use crate::server::remoting::connection::Remoting;
use crate::server::remoting::offsets::with_members;
use crate::server::remoting::requests::Refused;
use crate::server::remoting::signed::Sender;
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset, TopicName};

/// Entries that are shown at once.
const ENTRIES_MAX: usize = 1_024;

impl Remoting {
    /// Begins to answer what stands in a queue from some offset on.
    pub(super) async fn queue_entries(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        let fields = &header.fields;
        let queue = QueueAsked::read(fields)?;
        self.check_reader(sender, &queue.topic)?;
        let (index, count): (i64, i64) = (fields.required_number("index")?, fields.required_number("count")?);
        let group = fields.text("consumerGroup").filter(|group| !group.is_empty());
        let group = group.map(|group| group.into_owned());
        if let Some(group) = &group {
            self.check(sender, Need::ActFor { group }).map_err(Refused::failed)?;
        }
        let remoting = self.clone();
        let entries = async move {
            let mut entries = remoting.entries_of(&queue, index, count).await?;
            if let Some(group) = group {
                remoting.add_wish(&group, &queue.topic, &mut entries);
            }
            Ok(Answer::body(|output| entries.write(output)))
        };
        self.begin_with_room(asker, limits::BATCH_BYTES_MAX, entries).await
    }

    async fn entries_of(&self, queue: &QueueAsked, index: i64, count: i64) -> Result<QueueEntries, Refused> {
        let broker = &self.connections.broker;
        let key = self.queue_of(queue).map_err(Refused::failed)?;
        let span = broker.queue_span(key).map_err(Refused::failed)?;
        let offset = u64::try_from(index).ok().filter(|offset| (span.first.0..span.end.0).contains(offset));
        let Some(offset) = offset else {
            let QueueAsked { topic, queue } = queue;
            let remark = format!("Index {index} of {queue}@{topic} is not exist!");
            return Err(Refused::new(ResponseCode::SystemError, remark));
        };
        let port = self.port();
        let terms = RecordTerms {
            topic: &queue.topic,
            queue: key.queue.0 / u32::from(broker.options().shard_count),
            store_host: port.store_host(),
            cluster: &port.node.cluster,
        };
        let missing = usize::try_from(count).unwrap_or(0).clamp(1, ENTRIES_MAX);
        let mut shown = ShownEntries { terms, scratch: Vec::new(), entries: Vec::new(), missing };
        let asked = Pull { key, offset: QueueOffset(offset), filter: &Filter::default() };
        broker.pull(&asked, &mut shown).await.map_err(Refused::failed)?;
        let entries = shown.entries;
        Ok(QueueEntries { first: span.first.0, end: span.end.0, entries, ..QueueEntries::default() })
    }

    /// Adds what a group wants of the topic.
    fn add_wish(&self, group: &str, topic: &str, entries: &mut QueueEntries) {
        entries.subscription = self.wish(group, topic);
        if entries.subscription.is_none() {
            entries.note = Some(format!("{group}@{topic} is not online!"));
        }
    }

    fn wish(&self, group: &str, topic: &str) -> Option<SubscriptionShown> {
        let (_, subscription) = self.connections.broker.reader_subscription(&group.parse().ok()?, topic);
        let Subscription { topic, expression, kind, version } = subscription?;
        Some(SubscriptionShown { topic, expression, kind, version })
    }

    /// What a group wants of a topic.
    pub(super) fn group_subscription(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        let (group, topic) = (header.fields.required_text("group")?, header.fields.required_text("topic")?);
        self.check_admin(sender, "see who consumes")?;
        let wish = self.wish(&group, &topic);
        Ok(Answer::body(|output| write_subscription(&group, &topic, wish.as_ref(), output)))
    }

    /// The queues of a topic that this broker has and shows.
    pub(super) fn shown_queues(&self, topic: &TopicName) -> Result<Vec<QueueKey>, Refused> {
        let broker = &self.connections.broker;
        let shown = broker.shown_topic(topic).ok_or_else(|| no_topic(topic.as_str()))?;
        let (id, _) = broker.topic_layout(topic).map_err(Refused::failed)?;
        let (shard, shards) = (u32::from(broker.shard().0), usize::from(broker.options().shard_count));
        let own = (shard..shown.queue_count).step_by(shards).map(QueueNumber);
        Ok(own.map(|queue| QueueKey { topic: id, queue }).collect())
    }

    /// Begins to answer when what a group has consumed was stored, and how long what it has not has been waiting.
    pub(super) async fn consumed_times(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        let (topic, group) = (header.fields.required_text("topic")?, header.fields.required_text("group")?);
        self.check_consumer(sender, &topic, &group)?;
        let topic: TopicName = topic.parse().map_err(|_| no_topic(&topic))?;
        let group = parsed(&group)?;
        let keys = self.shown_queues(&topic)?;
        let remoting = self.clone();
        let bytes = queues_bytes(keys.len());
        let times = async move {
            let broker = remoting.own_name();
            let mut times = Vec::with_capacity(keys.len());
            for key in keys {
                times.push(remoting.times_of(&group, &topic, key, &broker).await?);
            }
            Ok(Answer::body(|output| write_queue_times(times.into_iter(), output)))
        };
        self.begin_with_room(asker, bytes, times).await
    }

    async fn times_of<'a>(
        &self,
        group: &GroupName,
        topic: &'a TopicName,
        key: QueueKey,
        name: &'a str,
    ) -> Result<QueueTimes<'a>, Refused> {
        let broker = &self.connections.broker;
        let span = broker.queue_span(key).map_err(Refused::failed)?;
        let first = broker.first_store_time(key).await.map_err(Refused::failed)?;
        let committed = broker.committed_for_reader(group, key).await.map_err(with_members)?;
        let next = committed.unwrap_or(span.first).max(span.first);
        let stored = async |offset: u64| match (span.first.0..span.end.0).contains(&offset) {
            true => broker.store_time(key, QueueOffset(offset)).await.map_err(Refused::failed),
            false => Ok(None),
        };
        let consumed = if next > span.first { stored(next.0 - 1).await? } else { first };
        let waiting = stored(next.0).await?;
        Ok(QueueTimes {
            queue: self.queue_keyed(topic, key, name),
            first,
            last: stored(span.end.0.wrapping_sub(1)).await?,
            consumed,
            behind_ms: waiting.map_or(0, |time| self.connections.clock.now().0.saturating_sub(time.0)),
        })
    }

    /// Begins to put a group where another one is, in this broker's queues of one topic or of all.
    pub(super) async fn clone_places(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "move groups")?;
        let fields = &header.fields;
        let source = parsed(&fields.required_text("srcGroup")?)?;
        let target = parsed(&fields.required_text("destGroup")?)?;
        let topic = fields.text("topic").filter(|topic| !topic.is_empty());
        let topic = topic.map(|topic| topic.parse::<TopicName>().map_err(|_| no_topic(&topic)));
        let topics: Vec<_> = topic.transpose()?.into_iter().collect();
        let is_offline = fields.boolean("offline");
        let remoting = self.clone();
        let cloned = async move {
            let broker = &remoting.connections.broker;
            broker
                .check_no_members(&target)
                .map_err(|failure| Refused::new(ResponseCode::SystemError, failure.message))?;
            let progress = broker.progress_here(&source, &topics).await.map_err(Refused::failed)?;
            for (topic, of) in progress {
                let (has_clients, wish) = broker.reader_subscription(&source, topic.as_str());
                // As RocketMQ does: its clients do not consume it any more.
                if !is_offline && has_clients && wish.is_none() {
                    continue;
                }
                if let Some(offset) =
                    broker.committed_for_reader(&source, of.key).await.map_err(with_members)?
                {
                    remoting.move_group(&target, of.key, offset).await.map_err(Refused::failed)?;
                }
            }
            Ok(Answer::done())
        };
        self.begin(asker, cloned).await
    }
}

/// Entries of messages as tools are shown them.
struct ShownEntries<'a> {
    terms: RecordTerms<'a>,
    scratch: Vec<u8>,
    entries: Vec<QueueEntry>,
    missing: usize,
}

impl Taker for ShownEntries<'_> {
    fn missing(&self) -> usize {
        self.missing
    }

    fn take(&mut self, stored: &StoredRecord<'_>) -> bool {
        let StoredRecord { offset, location, record, born_time, store_time } = *stored;
        let placed = PlacedRecord { record, offset, location, born_time, store_time };
        self.scratch.clear();
        write_record(&self.terms, &placed, &mut self.scratch);
        self.entries.push(QueueEntry {
            physical_offset: location.physical_offset(),
            bytes: self.scratch.len(),
            tag_hash: tag_hash(&String::from_utf8_lossy(record.tag())).into(),
        });
        self.missing -= 1;
        true
    }
}
