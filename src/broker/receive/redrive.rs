//! Dead letters that are sent once more, to the topic that they came from or to another one.
//!
//! A dead letter that was redriven stays where it is stored until retention takes it: what makes it none any more is a mark of its
//! shard, which stands in one step of the log with its copy. So whoever dies in between, it is either the one or the other.
//! `state::redrives` says how it is kept where the copy belongs to another shard.

use super::dead_letters::dead_letter_topic;
use super::pair_locks::Pair;
use crate::api::{Failure, Redrive, RedriveReport, Redriven, RedrivenRanges, Status};
use crate::broker::client_requests::unexpected;
use crate::broker::copied_message::copy_with;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::reader::StoredMessage;
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::broker::writer::{Destination, PlaceRefusal};
use crate::disk::Disk;
use crate::limits;
use crate::log::Placement;
use crate::state::{Arrival, Change, Moving, RedriveChange};
use crate::types::{
    GroupName, GroupTopic, Level, LogPosition, QueueKey, QueueNumber, QueueOffset, TopicName,
};
use crate::wire::batch::OwnedBatch;
use crate::wire::origin::Origin;
use crate::wire::properties::{self, names};
use crate::wire::record::{Record, RecordView};

/// A dead letter on its way from one shard to another.
#[derive(Clone, Debug)]
pub struct SentRedrive {
    /// The queue of dead letters.
    pub from: QueueKey,
    /// Where the log of its shard says that it was sent.
    pub begun: LogPosition,
    pub to: QueueKey,
    /// A batch of this one message; `None`: it is gone meanwhile, and was sent before or never will be.
    pub batch: Option<OwnedBatch>,
}

/// What the shard it was sent to says of it.
#[derive(Clone, Debug)]
pub enum RedriveArrival {
    /// It is stored there, durably, since now or since before.
    At(QueueOffset),
    /// It is not, and will not be.
    Refused(Failure),
}

/// Where a dead letter's copy is placed.
enum Placed {
    /// In this shard: durable when this is.
    Here {
        queue: QueueNumber,
        offset: QueueOffset,
        placement: Placement,
    },
    Done(Redriven),
}

impl<D: Disk> Broker<D> {
    /// Sends dead letters of a queue of this shard to a topic, one after the other. Durable when answered. Without
    /// any, nothing is done, and refused what would be.
    pub(in crate::broker) async fn redrive(&self, redrive: &Redrive) -> Result<RedriveReport, Failure> {
        let key = self.dead_letter_queue(&redrive.group, redrive.queue)?;
        self.check_redrive_target(&redrive.to)?;
        if redrive.offsets.is_empty() {
            return Ok(RedriveReport { outcomes: Vec::new(), stopped: None });
        }
        // They go one at a time: see `state::redrives`.
        let _guard = self.pair_locks.lock(Pair { key, group: redrive.group.clone() }).await;
        let mut report = RedriveReport { outcomes: Vec::new(), stopped: self.finish_moving(key).await.err() };
        let mut placed = Vec::new();
        for &offset in &redrive.offsets {
            if report.stopped.is_some() {
                break;
            }
            match self.redrive_one(key, offset, &redrive.to).await {
                Ok(one) => placed.push(one),
                Err(failure) => report.stopped = Some(failure),
            }
        }
        for one in placed {
            let outcome = match one {
                Placed::Done(outcome) => outcome,
                Placed::Here { queue, offset, placement } => {
                    self.writer.settled(Level::Durable, placement).await?;
                    Redriven::Moved { queue, offset }
                }
            };
            report.outcomes.push(outcome);
        }
        Ok(report)
    }

    /// Which messages of a queue of dead letters are none any more, from an offset on.
    pub(in crate::broker) fn redriven_ranges(
        &self,
        group: &GroupName,
        queue: QueueNumber,
        from: QueueOffset,
    ) -> Result<RedrivenRanges, Failure> {
        let key = self.dead_letter_queue(group, queue)?;
        let redrives = self.redrives();
        let mut rest = redrives.ranges(key, from);
        let ranges: Vec<_> = rest.by_ref().take(limits::REDRIVEN_RANGES_TOLD_MAX).collect();
        let next = rest.next().map(|range| range.start);
        Ok(RedrivenRanges { ranges, next, moving: redrives.moving(key).map(|moving| moving.offset) })
    }

    /// A queue of the topic of a group's dead letters, of this shard.
    fn dead_letter_queue(&self, group: &GroupName, queue: QueueNumber) -> Result<QueueKey, Failure> {
        let name = dead_letter_topic(group);
        let topic = self.tables().topic_named(&name).map(|topic| topic.id).ok_or_else(|| {
            let message = format!("group {group} has no dead letters: there is no topic {name}");
            Failure::new(Status::TopicNotExist, message)
        })?;
        Ok(self.queue(QueueKey { topic, queue })?.key)
    }

    fn check_redrive_target(&self, to: &TopicName) -> Result<(), Failure> {
        if let Some((GroupTopic::DeadLetters, _)) = to.group() {
            return Err(Failure::invalid(format_args!(
                "{to} is for dead letters: send them to a topic that somebody consumes"
            )));
        }
        self.topic_layout(to)?;
        self.check_writable_by_name(to)
    }

    /// Brings one that was on its way to another shard to its end: it arrives, or stays a dead letter.
    async fn finish_moving(&self, key: QueueKey) -> Result<(), Failure> {
        let Some(moving) = self.redrives().moving(key) else { return Ok(()) };
        let to = self.topic_name(moving.to.topic);
        let message = self.message(key, moving.offset).await?;
        let batch = message.zip(to).map(|(message, to)| redriven_message(&message, &to));
        self.send_redriven(key, moving, batch).await.map(drop)
    }

    async fn redrive_one(
        &self,
        key: QueueKey,
        offset: QueueOffset,
        to: &TopicName,
    ) -> Result<Placed, Failure> {
        let (first, end) = self.bounds(&*self.queue(key)?);
        if !(first..end).contains(&offset) {
            return Ok(Placed::Done(Redriven::Gone));
        }
        if self.redrives().is_redriven(key, offset) {
            return Ok(Placed::Done(Redriven::Before));
        }
        let Some(message) = self.message(key, offset).await? else {
            return Ok(Placed::Done(Redriven::Gone));
        };
        self.check_ranges_limit(key, offset)?;
        let batch = redriven_message(&message, to);
        let (record, _) = RecordView::cut(&message.record).expect("a stored record");
        let target = self.redrive_queue(to, record)?;
        if target.queue.shard(self.options.shard_count) == self.options.shard {
            return self.redrive_here(key, offset, target, &batch).await;
        }
        let moving = self.begin_moving(key, offset, target).await?;
        match self.send_redriven(key, moving, Some(batch)).await? {
            RedriveArrival::At(offset) => Ok(Placed::Done(Redriven::Moved { queue: target.queue, offset })),
            RedriveArrival::Refused(failure) => Err(failure),
        }
    }

    /// The queue that the copy of a dead letter gets: that of its key, or else one of this shard, if the topic has any.
    fn redrive_queue(&self, to: &TopicName, record: RecordView<'_>) -> Result<QueueKey, Failure> {
        let (topic, queue_count) = self.topic_layout(to)?;
        let sharding_key = properties::get(record.properties(), names::SHARDING_KEY);
        // Producers of RocketMQ's own protocol choose a queue by themselves, and nobody knows by what.
        let own_key = Some(record.key()).filter(|key| !key.is_empty() && record.origin().is_none());
        if let Some(key) = sharding_key.or(own_key) {
            return Ok(QueueKey { topic, queue: QueueNumber::of_key(key, queue_count) });
        }
        let turn = self.publish_round_robin.get();
        self.publish_round_robin.set(turn.wrapping_add(1));
        let mut own: Vec<_> = owned_queues(topic, queue_count, &self.options).collect();
        if own.is_empty() {
            own.extend((0..queue_count).map(|queue| QueueKey { topic, queue: QueueNumber(queue) }));
        }
        Ok(own[turn as usize % own.len()])
    }

    /// Whether one more is remembered to be redriven.
    fn check_ranges_limit(&self, key: QueueKey, offset: QueueOffset) -> Result<(), Failure> {
        let redrives = self.redrives();
        let max = limits::SHARD_REDRIVEN_RANGES_MAX;
        if redrives.range_count() < max || !redrives.adds_a_range(key, offset) {
            return Ok(());
        }
        let message = format!(
            "shard {} remembers {max} stretches of dead letters that were redriven, no more: redrive those in between, so that \
             stretches join, or have their topic keep its messages for less long",
            self.options.shard
        );
        Err(Failure::new(Status::LimitReached, message))
    }

    /// Whether a dead letter may go to a queue now, and up to where there are none any more.
    fn check_placeable(&self, key: QueueKey, to: QueueKey) -> Result<QueueOffset, Failure> {
        self.check_not_shutting_down()?;
        self.check_writable(to.topic)?;
        let (first, _) = self.bounds(&*self.queue(key)?);
        Ok(first)
    }

    /// Places the copy in a queue of this shard, in one step with the mark.
    async fn redrive_here(
        &self,
        key: QueueKey,
        offset: QueueOffset,
        to: QueueKey,
        batch: &OwnedBatch,
    ) -> Result<Placed, Failure> {
        let batch = batch.view();
        let attempt = || {
            let floor = self.check_placeable(key, to)?;
            let queue = self.queue(to)?;
            let mut at = QueueOffset::ZERO;
            let destination = Destination::Queue(&queue);
            let step = self.writer.try_step(destination, &batch, Level::Durable, |_| {
                at = queue.next_offset.get();
                Change::Redrive(RedriveChange::of_one(key, floor.min(offset), offset))
            })?;
            self.metrics.messages_redriven.add(1);
            Ok(Placed::Here { queue: to.queue, offset: at, placement: step.change })
        };
        self.writer.place_within(limits::PUBLISH_WAIT_MAX, attempt).await
    }

    /// Says durably that a dead letter is on its way to another shard.
    async fn begin_moving(
        &self,
        key: QueueKey,
        offset: QueueOffset,
        to: QueueKey,
    ) -> Result<Moving, Failure> {
        let attempt = || {
            self.check_placeable(key, to)?;
            let change = RedriveChange::Begun { key, offset, position: None, to: Some(to) };
            self.writer.try_changes([Change::Redrive(change)], Level::Durable)
        };
        let placement = self.writer.place_within(limits::PUBLISH_WAIT_MAX, attempt).await?;
        self.writer.settled(Level::Durable, placement).await?;
        let moving = self.redrives().moving(key);
        moving.filter(|moving| moving.begun == placement.position).ok_or_else(|| {
            let message = format!("topic {} was deleted meanwhile", key.topic);
            Failure::new(Status::TopicNotExist, message)
        })
    }

    /// Has another shard take a dead letter, and says durably what became of it. On an error that is not known, and asked again.
    async fn send_redriven(
        &self,
        key: QueueKey,
        moving: Moving,
        batch: Option<OwnedBatch>,
    ) -> Result<RedriveArrival, Failure> {
        let Moving { offset, to, begun } = moving;
        let sent = SentRedrive { from: key, begun, to, batch };
        let shard = to.queue.shard(self.options.shard_count);
        let arrival = match self.peers()?.ask(shard, PeerRequest::TakeRedriven(sent)).await? {
            PeerReply::RedriveArrived(arrival) => arrival,
            other => return Err(unexpected(&other)),
        };
        let attempt = || {
            let change = match &arrival {
                RedriveArrival::At(_) => RedriveChange::of_one(key, QueueOffset::ZERO, offset),
                RedriveArrival::Refused(_) => RedriveChange::Begun { key, offset, position: None, to: None },
            };
            self.writer.try_changes([Change::Redrive(change)], Level::Durable)
        };
        let placement = self.writer.place(attempt).await?;
        self.writer.settled(Level::Durable, placement).await?;
        if matches!(arrival, RedriveArrival::At(_)) {
            self.metrics.messages_redriven.add(1);
        }
        Ok(arrival)
    }

    /// Takes a dead letter of another shard: once, however often it is sent.
    pub(in crate::broker) async fn take_redriven(
        &self,
        sent: &SentRedrive,
    ) -> Result<RedriveArrival, Failure> {
        let attempt = || self.try_take_redriven(sent);
        let taken = self.writer.place_within(limits::PUBLISH_WAIT_MAX, attempt).await?;
        match taken {
            Taken::Now(offset, placement) => {
                self.writer.settled(Level::Durable, placement).await?;
                Ok(RedriveArrival::At(offset))
            }
            Taken::Before(offset) => {
                self.writer.all_durable().await?;
                Ok(RedriveArrival::At(offset))
            }
            Taken::Not(failure) => Ok(RedriveArrival::Refused(failure)),
        }
    }

    fn try_take_redriven(&self, sent: &SentRedrive) -> Result<Taken, PlaceRefusal> {
        let SentRedrive { from, begun, to, batch } = sent;
        let arrival = self.redrives().arrival_of(*from, *begun);
        match arrival {
            Arrival::Due => {}
            Arrival::At(offset) => return Ok(Taken::Before(offset)),
            Arrival::Over => {
                let message = "another dead letter has come since: this one was settled before";
                return Err(Failure::new(Status::Internal, message).into());
            }
        }
        self.check_not_shutting_down()?;
        let Some(batch) = batch else { return Ok(Taken::Not(gone())) };
        if self.tables().topic(from.topic).is_none() {
            return Ok(Taken::Not(gone()));
        }
        if let Err(refused) = self.check_writable(to.topic) {
            return Ok(Taken::Not(refused));
        }
        let queue = match self.queue(*to) {
            Ok(queue) => queue,
            Err(refused) => return Ok(Taken::Not(refused)),
        };
        let mut at = QueueOffset::ZERO;
        let destination = Destination::Queue(&queue);
        let step = self.writer.try_step(destination, &batch.view(), Level::Durable, |_| {
            at = queue.next_offset.get();
            Change::Redrive(RedriveChange::Arrived { key: *from, begun: *begun, at })
        })?;
        Ok(Taken::Now(at, step.change))
    }
}

/// What became of a dead letter that another shard has sent.
enum Taken {
    Now(QueueOffset, Placement),
    Before(QueueOffset),
    Not(Failure),
}

fn gone() -> Failure {
    Failure::new(
        Status::TopicNotExist,
        "the dead letter, or the topic that it was to go to, is gone meanwhile",
    )
}

/// A dead letter as it is sent once more: as it was, with the topic that it was sent to first among the properties, and with all
/// deliveries before it.
fn redriven_message(message: &StoredMessage, to: &TopicName) -> OwnedBatch {
    let (record, _) = RecordView::cut(&message.record).expect("a stored record");
    let record = record.to_record();
    let text =
        |name| properties::get(record.properties, name).and_then(|value| std::str::from_utf8(value).ok());
    let first_topic = text(names::RETRY_TOPIC).or_else(|| text(names::DEAD_LETTER_TOPIC));
    let mut said: Vec<_> = first_topic.into_iter().map(|topic| (names::DEAD_LETTER_TOPIC, topic)).collect();
    if let Some((GroupTopic::Retries, _)) = to.group() {
        // RocketMQ's clients show their programs this topic in place of their group's.
        said.extend(first_topic.map(|topic| (names::RETRY_TOPIC, topic)));
    }
    let kept = properties::left_out(record.properties, &NOT_KEPT);
    let origin = record.origin.map(|origin| Origin { deliveries_before: 0, ..origin });
    let record = Record { properties: &kept, origin, ..record };
    copy_with(&record, message.born_time, &said)
}

/// Properties that told of deliveries that are over.
const NOT_KEPT: [&str; 5] =
    [names::RETRY_TOPIC, names::RECONSUME_TIMES, names::DELAY, names::REAL_TOPIC, names::REAL_QUEUE];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{RecordLocation, Timestamp};

    fn redriven(properties: &[u8], to: &str) -> String {
        let mut stored = Vec::new();
        let origin =
            Origin { flag: 3, deliveries_before: 16, born: "10.0.0.1:9".parse().expect("an address") };
        Record { key: b"k", tag: b"t", properties, body: b"b", origin: Some(origin), ..Record::default() }
            .encode(&mut stored);
        let message = StoredMessage {
            location: RecordLocation { position: LogPosition(1), index: 0 },
            record: stored.into(),
            born_time: Timestamp(7),
            store_time: Timestamp(8),
        };
        let batch = redriven_message(&message, &to.parse().expect("a name"));
        let view = batch.view();
        let record = view.records().next().expect("one record");
        assert_eq!((record.key(), record.tag(), record.body()), (&b"k"[..], &b"t"[..], &b"b"[..]));
        assert_eq!(record.origin(), Some(Origin { deliveries_before: 0, ..origin }));
        assert_eq!(view.born_time(), Timestamp(7));
        String::from_utf8(record.properties().to_vec()).expect("text")
    }

    #[test]
    fn it_keeps_everything_but_what_told_of_its_deliveries() {
        let properties = "a\x01b\x02RETRY_TOPIC\x01orders\x02DLQ_ORIGIN_TOPIC\x01%RETRY%g\x02RECONSUME_TIME\x0116\x02DELAY\x013\x02\
                          UNIQ_KEY\x01U\x02ORIGIN_MESSAGE_ID\x01I\x02";
        let kept = "a\x01b\x02UNIQ_KEY\x01U\x02ORIGIN_MESSAGE_ID\x01I\x02DLQ_ORIGIN_TOPIC\x01orders\x02";
        assert_eq!(redriven(properties.as_bytes(), "orders"), kept);
        assert_eq!(redriven(properties.as_bytes(), "%RETRY%g"), format!("{kept}RETRY_TOPIC\x01orders\x02"));
        assert_eq!(redriven(b"", "other"), "", "nobody knows where it was");
    }
}
