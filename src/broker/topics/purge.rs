//! What is done with a topic by hand: its permission, and messages that go before their time.
//!
//! A purge moves the first offsets of a topic's queues, by a record of each shard: so they are gone for whoever reads, after any death,
//! and whatever the index is built from. Their bytes go with their segments, which topics share: once no message of any topic is left
//! in the oldest one, it goes (`upkeep::housekeeping`).

use std::rc::Rc;

use super::control::Others;
use crate::api::{Failure, OffsetSpec, PurgeReport, PurgeTopic, PurgedQueue, PurgedShard, Reply, TopicInfo};
use crate::broker::client_requests::unexpected;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::disk::Disk;
use crate::state::{Change, Permission, Topic, TopicPolicy};
use crate::types::{Level, LogPosition, QueueKey, Timestamp, TopicId, TopicName};

/// Queues that begin later by one record.
const PURGED_MAX: usize = 1_024;

impl<D: Disk> Broker<D> {
    /// Says what clients may do with a topic, on every shard.
    pub(in crate::broker) async fn permit_topic(
        self: &Rc<Self>,
        name: &TopicName,
        permission: u8,
    ) -> Result<TopicInfo, Failure> {
        let _guard = self.topic_change.lock().await;
        let present = self.topic_by_name(name)?;
        let policy = TopicPolicy { permission: Permission(permission), ..present.policy.clone() };
        if policy != present.policy {
            let topic = Topic { policy: policy.changed(), ..present.clone() };
            self.put_everywhere(&topic).await?;
            tracing::info!(target: "topics", topic = %name, permission, "permission of the topic changed");
        }
        Ok(self.topic_by_name(name)?.info())
    }

    /// Lets the messages of a topic before a place go, on every shard. Durable when answered.
    pub(in crate::broker) async fn purge_topic(
        self: &Rc<Self>,
        purge: &PurgeTopic,
    ) -> Result<PurgeReport, Failure> {
        let _guard = self.topic_change.lock().await;
        let topic = self.topic_by_name(&purge.topic)?.id;
        // The same moment in every queue.
        let before = purge.before.fixed(self.clock.now());
        let mut report = PurgeReport::default();
        for reply in self.ask_all(|| PeerRequest::Purge { topic, before }, Others::AndThis).await? {
            match reply {
                PeerReply::Client(Reply::Purged(of_shard)) => {
                    report.queues.extend(of_shard.queues);
                    report.shards.extend(of_shard.shards);
                }
                other => return Err(unexpected(&other)),
            }
        }
        report.queues.sort_by_key(|queue| queue.queue);
        tracing::info!(target: "topics", topic = %purge.topic, "topic purged");
        Ok(report)
    }

    /// The same on this shard.
    pub(in crate::broker) async fn purge_here(
        &self,
        topic: TopicId,
        before: OffsetSpec,
    ) -> Result<PeerReply, Failure> {
        let queue_count = self.tables().topic(topic).map_or(0, |topic| topic.queue_count);
        let (mut queues, mut changes) = (Vec::new(), Vec::new());
        for key in owned_queues(topic, queue_count, &self.options) {
            let first = self.find_offset(key, before).await?;
            let (first_before, _) = self.bounds(&*self.queue(key)?);
            let first = first.max(first_before);
            queues.push(PurgedQueue { queue: key.queue, first_before, first });
            if first > first_before {
                changes.push(Change::Purged { key, offset: first });
            }
        }
        let mut last = None;
        for some in changes.chunks(PURGED_MAX) {
            let attempt = || self.writer.try_changes(some.to_vec(), Level::Durable);
            last = Some(self.writer.place(attempt).await?);
        }
        if let Some(placement) = last {
            self.writer.settled(Level::Durable, placement).await?;
        }
        let shards = vec![self.shared_segments().await?];
        Ok(PeerReply::Client(Reply::Purged(PurgeReport { queues, shards })))
    }

    /// What becomes of the segments of this shard.
    async fn shared_segments(&self) -> Result<PurgedShard, Failure> {
        let oldest = self.oldest_message(LogPosition::ZERO).await?;
        let segments = self.log.segments();
        let Some((_, written)) = segments.split_last().map(|(last, written)| (last.base, written)) else {
            return Ok(PurgedShard::default());
        };
        let is_free = |end: LogPosition| oldest.is_none_or(|(position, ..)| position >= end);
        let ends = segments.iter().skip(1).map(|segment| segment.base);
        let mut shard = PurgedShard::default();
        for (segment, end) in written.iter().zip(ends) {
            match is_free(end) {
                true => shard.free_bytes += segment.bytes,
                false => shard.kept_bytes += segment.bytes,
            }
        }
        if shard.kept_bytes > 0 {
            shard.kept_by =
                oldest.and_then(|(_, key, since)| self.topic_name(key.topic).map(|topic| (topic, since)));
        }
        Ok(shard)
    }

    /// The oldest message of this shard that is there for readers: where it stands, whose it is, and when it was stored. One that
    /// stands below `enough` is enough, and older ones are not looked for then.
    pub(in crate::broker) async fn oldest_message(
        &self,
        enough: LogPosition,
    ) -> Result<Option<(LogPosition, QueueKey, Timestamp)>, Failure> {
        let mut oldest: Option<(LogPosition, QueueKey, Timestamp)> = None;
        let mut slice = self.time_slice();
        for key in self.index.queues().into_iter().filter(|key| key.topic != TopicId::DELAYED) {
            let Some((first, end)) = self.index.bounds(key) else { continue };
            if first < end
                && let Some(entry) = self.first_entry(key, first).await?
                && oldest.is_none_or(|(position, ..)| entry.position < position)
            {
                oldest = Some((entry.position, key, entry.store_time));
                if entry.position < enough {
                    break;
                }
            }
            slice.yield_if_over().await;
        }
        Ok(oldest)
    }
}
