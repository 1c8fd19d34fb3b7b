//! Figures of topics.

use std::time::Duration;

use super::asked::{StatsReply, StatsRequest, page};
use crate::api::{Failure, OffsetSpec, StatsAsked, StatsOf, StatsPage, TopicCounts, TopicStats};
use crate::broker::client_requests::unexpected;
use crate::broker::of_late::SPANS;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::queue::Queue;
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::broker::topics::Others;
use crate::disk::Disk;
use crate::limits;
use crate::state::Topic;
use crate::types::{QueueKey, QueueOffset, Timestamp, TopicId, TopicName};

impl<D: Disk> Broker<D> {
    /// A page of topics' figures, over all shards.
    pub(in crate::broker) async fn topic_stats(
        &self,
        asked: StatsAsked<TopicName>,
    ) -> Result<StatsPage<TopicStats, TopicName>, Failure> {
        let (topics, has_more) = self.stats_topics(&asked)?;
        let (ids, ages): (Vec<_>, _) = (topics.iter().map(|topic| topic.id).collect(), asked.ages);
        let request = || PeerRequest::Stats(StatsRequest::Topics { ids: ids.clone(), ages });
        let mut sums = vec![TopicCounts::default(); topics.len()];
        for reply in self.ask_all(request, Others::AndThis).await? {
            let PeerReply::Stats(StatsReply::Topics(counts)) = reply else { return Err(unexpected(&reply)) };
            sums.iter_mut().zip(&counts).for_each(|(sum, counts)| sum.add(counts));
        }
        let entries: Vec<_> = topics
            .into_iter()
            .zip(sums)
            .map(|(topic, counts)| {
                let Topic { name, id, queue_count, .. } = topic;
                TopicStats { topic: name, id, queue_count, counts }
            })
            .collect();
        let next = entries.last().filter(|_| has_more).map(|last| last.topic.clone());
        Ok(StatsPage { entries, next })
    }

    fn stats_topics(&self, asked: &StatsAsked<TopicName>) -> Result<(Vec<Topic>, bool), Failure> {
        if let StatsOf::One(name) = &asked.of {
            return Ok((vec![self.topic_by_name(name)?], false));
        }
        let tables = self.tables();
        let max = if asked.ages { limits::STATS_AGED_MAX } else { limits::STATS_TOPICS_MAX };
        let (names, has_more) = page(&asked.of, tables.topics().map(|topic| topic.name.clone()), max);
        Ok((names.iter().filter_map(|name| tables.topic_named(name)).cloned().collect(), has_more))
    }

    /// What this shard's queues of these topics have; nothing of one that is not there.
    pub(super) async fn own_topic_counts(
        &self,
        ids: &[TopicId],
        ages: bool,
    ) -> Result<Vec<TopicCounts>, Failure> {
        let mut all = Vec::with_capacity(ids.len());
        let mut slice = self.time_slice();
        for id in ids {
            let queue_count = self.tables().topic(*id).map_or(0, |topic| topic.queue_count);
            let mut counts = TopicCounts::default();
            for key in owned_queues(*id, queue_count, &self.options) {
                let queue = self.queues.borrow().get(&key).cloned();
                if let Some(queue) = queue {
                    counts.add(&self.queue_counts(&queue, ages).await?);
                }
                slice.yield_if_over().await;
            }
            all.push(counts);
        }
        Ok(all)
    }

    /// How long ago a message was stored, by the clock that store times are of.
    pub(super) async fn age_of(
        &self,
        key: QueueKey,
        offset: QueueOffset,
    ) -> Result<Option<Duration>, Failure> {
        let stored = self.store_time(key, offset).await?;
        let age = |stored: Timestamp| Duration::from_millis(self.clock.now().0.saturating_sub(stored.0));
        Ok(stored.map(age))
    }

    async fn queue_counts(&self, queue: &Queue, ages: bool) -> Result<TopicCounts, Failure> {
        let (first, end) = self.bounds(queue);
        let mut counts = TopicCounts {
            messages: end.0 - first.0,
            stored: end.0,
            stored_bytes: queue.traffic.stored_bytes.get(),
            given: queue.traffic.given.get(),
            given_bytes: queue.traffic.given_bytes.get(),
            ..TopicCounts::default()
        };
        if !ages || first == end {
            return Ok(counts);
        }
        counts.oldest_age = self.age_of(queue.key, first).await?;
        counts.newest_age = self.age_of(queue.key, QueueOffset(end.0 - 1)).await?;
        for (count, span) in counts.within.iter_mut().zip(SPANS) {
            let from = self.find_offset(queue.key, OffsetSpec::Ago(span)).await?;
            *count = end.0.saturating_sub(from.0);
        }
        Ok(counts)
    }
}
