//! Messages that were delivered as often as their group allows, without an acknowledgement.
//!
//! They go to topic `%DLQ%group`, RocketMQ's name (`common/.../MixAll.java`), which has a queue on each shard: so a
//! message moves within its shard, in one step with the end of its lease.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use super::pair_locks::Pair;
use crate::api::{Failure, Request, Status, TopicChange};
use crate::broker::client_requests::CONTROL_SHARD;
use crate::broker::copied_message::copy_with;
use crate::broker::groups::Gate;
use crate::broker::peers::PeerRequest;
use crate::broker::reader::StoredMessage;
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::broker::writer::Destination;
use crate::disk::Disk;
use crate::state::{Change, LeaseChange, Mask, QueueLeases, Run};
use crate::types::{GroupName, GroupTopic, Level, QueueKey, QueueOffset, Timestamp, TopicId, TopicName};
use crate::wire::batch::OwnedBatch;
use crate::wire::origin::Origin;
use crate::wire::properties::{self, names};
use crate::wire::record::{Record, RecordView};

/// A message whose last lease has ended is moved after at most this long.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Groups of which it may turn out in one sweep that their messages cannot be moved.
const SWEEP_ROUNDS_MAX: usize = 16;

/// The topic of a group's dead letters.
pub fn dead_letter_topic(group: &GroupName) -> TopicName {
    GroupTopic::DeadLetters.of(group)
}

/// A message as a dead letter of its group, that was delivered so often: as it was, with where it came from among the
/// properties, and `added` (names and values).
pub(in crate::broker) fn dead_letter(
    message: &Record<'_>,
    born_time: Timestamp,
    topic: Option<&str>,
    deliveries: u32,
    added: &[(&str, &str)],
) -> OwnedBatch {
    let deliveries = deliveries.to_string();
    let first_topic = properties::get(message.properties, names::RETRY_TOPIC);
    let first_topic = first_topic.and_then(|name| std::str::from_utf8(name).ok()).or(topic);
    let mut said: Vec<_> = first_topic.into_iter().map(|topic| (names::RETRY_TOPIC, topic)).collect();
    said.extend(topic.map(|topic| (names::DEAD_LETTER_TOPIC, topic)));
    said.push((names::RECONSUME_TIMES, &deliveries));
    said.extend_from_slice(added);
    copy_with(message, born_time, &said)
}

impl<D: Disk> Broker<D> {
    /// Moves the messages of these runs, and returns the runs that cannot be moved now: the next sweep tries again, and
    /// whoever receives is not to wait for it.
    pub(in crate::broker) async fn dead_letter_all<'a>(
        &self,
        group: &GroupName,
        key: QueueKey,
        runs: &'a [(QueueOffset, Run)],
    ) -> &'a [(QueueOffset, Run)] {
        for (at, (first, run)) in runs.iter().enumerate() {
            if let Err(failure) = self.dead_letter(group, key, *first, run).await {
                self.note_stuck_dead_letters(group, &failure);
                return &runs[at..];
            }
        }
        &[]
    }

    /// Moves the messages of a run to the dead letters.
    pub(in crate::broker) async fn dead_letter(
        &self,
        group: &GroupName,
        key: QueueKey,
        first: QueueOffset,
        run: &Run,
    ) -> Result<(), Failure> {
        let target = self.own_queue_of(&dead_letter_topic(group)).await?;
        for offset in run.offsets(first) {
            let mask = Mask { first: offset, bits: 1 };
            // A reset, or the end of the group, may come while this waits.
            let is_still_due = || {
                let leases = self.leases();
                let found = leases.get(group, key).and_then(|pair| pair.find(offset));
                found.is_some_and(|(_, found)| {
                    (found.leased_at, found.deliveries) == (run.leased_at, run.deliveries)
                })
            };
            let Some(message) = self.message(key, offset).await? else {
                let ended = LeaseChange::Ended { group: group.clone(), key, mask };
                self.place_leases(&[ended], Level::Written, is_still_due).await?;
                continue;
            };
            let batch = self.dead_letter_batch(key, run, &message);
            let moving = self.writer.place(|| {
                if !is_still_due() {
                    return Ok(());
                }
                let total = self.leases().get(group, key).map_or(0, QueueLeases::dead_letters) + 1;
                let change = LeaseChange::DeadLettered { group: group.clone(), key, mask, total };
                let queue = self.queue(target)?;
                let to = Destination::Queue(&queue);
                self.writer.try_step(to, &batch.view(), Level::Durable, |_| Change::Lease(change))?;
                self.note_dead_letter(group, key.topic);
                Ok(())
            });
            moving.await?;
        }
        Ok(())
    }

    /// A message of a topic has become a dead letter of a group, whichever way it consumes.
    pub(in crate::broker) fn note_dead_letter(&self, group: &GroupName, topic: TopicId) {
        self.metrics.messages_dead_lettered.add(1);
        self.metrics.tallies.borrow_mut().dead_lettered(group, topic);
    }

    fn dead_letter_batch(&self, key: QueueKey, run: &Run, message: &StoredMessage) -> OwnedBatch {
        let (record, _) = RecordView::cut(&message.record).expect("a stored record");
        let topic = self.tables().topic(key.topic).map(|topic| topic.name.clone());
        let deliveries_before = run.deliveries.min(u16::MAX.into()) as u16;
        let origin = record.origin().map(|origin| Origin { deliveries_before, ..origin });
        let record = Record { origin, ..record.to_record() };
        dead_letter(&record, message.born_time, topic.as_ref().map(TopicName::as_str), run.deliveries, &[])
    }

    /// A queue of this shard of a topic that the broker writes to itself. The topic is made when it is missing, and gets
    /// queues when none is here: somebody may have made it with fewer than there are shards.
    pub(in crate::broker) async fn own_queue_of(&self, name: &TopicName) -> Result<QueueKey, Failure> {
        self.own_queue_made_by(name, None).await
    }

    /// The same, where a client at a place of the network is the cause.
    pub(in crate::broker) async fn own_queue_made_by(
        &self,
        name: &TopicName,
        maker: Option<IpAddr>,
    ) -> Result<QueueKey, Failure> {
        let find = || {
            let tables = self.tables();
            let topic = tables.topic_named(name)?;
            owned_queues(topic.id, topic.queue_count, &self.options).next()
        };
        if let Some(key) = find() {
            return Ok(key);
        }
        let is_there = self.tables().topic_named(name).is_some();
        let queues = Some(u32::from(self.options.shard_count));
        let change = TopicChange { topic: name.clone(), queues, retention: None, level: None };
        let request = if is_there { Request::AlterTopic(change) } else { Request::CreateTopic(change) };
        let request = match maker {
            Some(maker) => PeerRequest::GroupTopic { request, maker },
            None => PeerRequest::Client(request),
        };
        let asked = self.peers()?.ask(CONTROL_SHARD, request).await;
        match (find(), asked) {
            (Some(key), _) => Ok(key),
            // It belongs to nobody's request: no error about this topic is an answer to one about another.
            (None, Err(failure)) => {
                let message = format!("topic {name} has no queue on this shard: {}", failure.message);
                Err(Failure::new(Status::Busy, message))
            }
            (None, Ok(_)) => {
                Err(Failure::new(Status::Busy, format!("topic {name} is being made: try again")))
            }
        }
    }

    /// The task that moves dead letters; ends after [`stop`](Broker::stop).
    pub async fn run_dead_letters(&self) {
        while !self.writer.is_stopped() {
            self.sweep_dead_letters().await;
            futures_lite::future::or(self.clock.sleep(SWEEP_INTERVAL), self.published.changed()).await;
        }
    }

    /// Moves what was delivered often enough and is not acknowledged, also while nobody receives. A group whose messages
    /// cannot be moved does not keep those of others.
    pub(in crate::broker) async fn sweep_dead_letters(&self) {
        let now = self.steady.now();
        let mut stuck = HashSet::new();
        for _ in 0..SWEEP_ROUNDS_MAX {
            let exhausted = self.exhausted(now, &stuck);
            let stuck_before = stuck.len();
            for (key, group, first, run) in exhausted {
                if stuck.contains(&group) {
                    continue;
                }
                let Some(_guard) = self.pair_locks.try_lock(Pair { key, group: group.clone() }) else {
                    continue;
                };
                let current = self.leases().get(&group, key).and_then(|pair| pair.find(first));
                if current != Some((first, run)) {
                    continue;
                }
                match self.dead_letter(&group, key, first, &run).await {
                    Ok(()) => self.announce(key.topic),
                    Err(failure) => {
                        self.note_stuck_dead_letters(&group, &failure);
                        stuck.insert(group);
                    }
                }
            }
            if stuck.len() == stuck_before {
                return;
            }
        }
    }

    fn exhausted(
        &self,
        now: Timestamp,
        stuck: &HashSet<GroupName>,
    ) -> Vec<(QueueKey, GroupName, QueueOffset, Run)> {
        const RUNS_MAX: usize = 256;
        let leases = self.leases();
        let mut exhausted = Vec::new();
        if leases.total().runs == 0 {
            return exhausted;
        }
        for (key, group, pair) in leases.iter() {
            if pair.earliest_end().is_none_or(|end| end > now) || stuck.contains(group) {
                continue;
            }
            let max = self.deliveries_max(group);
            // Left over when the queue went to a member of the group: nobody may be there to receive it.
            let is_left = self.gate(group, key) == Gate::Closed;
            let is_over = |run: &Run| run.deliveries >= max || (is_left && now >= untaken_until(run, max));
            let ended = pair.ended_of(now, RUNS_MAX, is_over).into_iter();
            exhausted.extend(ended.map(|(first, run)| (key, group.clone(), first, run)));
            if exhausted.len() >= RUNS_MAX {
                break;
            }
        }
        exhausted
    }

    fn deliveries_max(&self, group: &GroupName) -> u32 {
        let tables = self.tables();
        let of_group = tables.group_settings(group).and_then(|settings| settings.deliveries_max);
        of_group.unwrap_or(self.live.get().leases.deliveries_max)
    }
}

/// When the deliveries that a run still has would have ended, had each been made at once and lasted as its last one.
fn untaken_until(run: &Run, deliveries_max: u32) -> Timestamp {
    let lease_ms = run.lease_until.0.saturating_sub(run.leased_at.0);
    let deliveries = u64::from(deliveries_max.saturating_sub(run.deliveries));
    Timestamp(run.lease_until.0.saturating_add(lease_ms.saturating_mul(deliveries)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn the_longest_group_has_a_dead_letter_topic() {
        let group: GroupName = "g".repeat(limits::GROUP_NAME_BYTES_MAX).parse().expect("a name");
        assert_eq!(dead_letter_topic(&group).as_str(), format!("%DLQ%{group}"));
    }

    #[test]
    fn a_dead_letter_says_where_it_came_from_first_and_last() {
        let letter = |properties: &[u8], added| {
            let message = Record { properties, body: b"b", ..Record::default() };
            let batch = dead_letter(&message, Timestamp(7), Some("%RETRY%g"), 3, added);
            let record = batch.view().records().next().expect("one record");
            String::from_utf8(record.properties().to_vec()).expect("text")
        };
        assert_eq!(
            letter(b"", &[]),
            "RETRY_TOPIC\u{1}%RETRY%g\u{2}DLQ_ORIGIN_TOPIC\u{1}%RETRY%g\u{2}RECONSUME_TIME\u{1}3\u{2}"
        );
        assert_eq!(
            letter(b"RECONSUME_TIME\x019\x02RETRY_TOPIC\x01orders\x02a\x01b\x02", &[("id", "1")]),
            "a\u{1}b\u{2}RETRY_TOPIC\u{1}orders\u{2}DLQ_ORIGIN_TOPIC\u{1}%RETRY%g\u{2}RECONSUME_TIME\u{1}3\u{2}id\u{1}1\u{2}"
        );
    }
}
