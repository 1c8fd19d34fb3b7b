//! Sends: messages for a queue of this shard, placed from where they lie in the receive buffer. Single ones that come before a
//! commit group is taken share a batch with others for their queue, and each has its own answer.

use std::rc::Rc;

use super::answer::Asker;
use super::connection::Remoting;
use crate::access::Need;
use crate::api::{Failure, Held, Hold, Produced, Release, RequestSubject, Status, Stored};
use crate::broker::{
    Backpressure, PendingHold, PendingProduce, PendingSingle, PlaceRefusal, Single, TopicShape,
};
use crate::metrics::{LogMark, Timeline};
use crate::protocol::remoting::call::send::{self, Messages, Send, Sent, SingleMessage};
use crate::protocol::remoting::{Asked, Frame, Header, Refusal, ResponseCode};
use crate::server::framed::Taken;
use crate::types::{
    GroupName, GroupTopic, Level, MonotonicTime, QueueKey, QueueNumber, QueueOffset, RecordLocation,
    TopicName,
};
use crate::wire::batch::OwnedBatch;
use crate::wire::properties::{self, names};

/// Of a topic that tools send to, in RocketMQ's bits.
const TOOLS_PERMISSION: u8 = 7;

/// A send that waits for its level.
pub(super) struct PlacedSend {
    asker: Asker,
    key: QueueKey,
    /// Of this broker.
    queue: u32,
    messages: PlacedMessages,
}

enum PlacedMessages {
    /// Without an id where its producer gave it none, and there was no room for one.
    Single {
        pending: PendingSingle,
        unique_id: Option<Box<str>>,
    },
    Batch {
        pending: PendingProduce,
        message_count: u32,
    },
    /// One that is held out of sight.
    Held {
        pending: PendingHold,
        unique_id: Box<str>,
    },
}

/// Where a send goes.
struct Target {
    key: QueueKey,
    /// The queue's number to clients, who count those of this broker only.
    queue: u32,
}

impl Remoting {
    /// Takes a send: it is placed, or refused.
    pub(super) async fn take_send(
        self: &Rc<Self>,
        header: &Header<'_>,
        frame: &Frame<'_>,
    ) -> Taken<PlacedSend> {
        let asker = Asker::of(header, frame.form);
        self.connections.metrics.requests.add(1);
        match self.send(header, frame.body).await {
            Ok((Target { key, queue }, messages)) => {
                Taken::Placed(PlacedSend { asker, key, queue, messages })
            }
            Err(refusal) => {
                asker.answer(&self.connection.outbox, &Err(refusal));
                Taken::Weighing(frame.frame_bytes)
            }
        }
    }

    async fn send(
        self: &Rc<Self>,
        header: &Header<'_>,
        body: &[u8],
    ) -> Result<(Target, PlacedMessages), Refusal> {
        let broker = &self.connections.broker;
        let told = |failure: Failure| Refusal::of(&failure, Asked::Send, header.version);
        let sender = self.sender(header, body).map_err(told)?;
        // Held until the batch is in the log, which may have to wait for room there.
        let _share = match send::built_bytes(header, body) {
            0 => None,
            bytes => self.calls.reserve_forwarded(bytes).await,
        };
        let mut send = Send::read(header, body, self.born)?;
        let of_group = send.topic.group();
        let need = match &of_group {
            Some((_, group)) => Need::ActFor { group: group.as_str() },
            None => Need::Publish { topic: send.topic.as_str() },
        };
        self.check(&sender, need).map_err(told)?;
        if broker.shown_topic(&send.topic).is_none() && broker.is_reserved(&send.topic) {
            self.open_topic_of_tools(&send.topic).await.map_err(|failure| match failure {
                Some(failure) => told(failure),
                None => send::forbidden(&send.topic),
            })?;
        }
        let dead_of = match &of_group {
            Some((GroupTopic::Retries, group)) if self.end_retries(&mut send, group) => Some(group),
            _ => None,
        };
        let target = self.target(&send).await.map_err(|failure| match failure.status {
            // RocketMQ's words, which people look for.
            Status::TopicNotExist => Refusal::new(
                ResponseCode::TopicNotExist,
                format!("topic[{}] not exist, apply first please! {}", send.topic, failure.message),
            ),
            _ => told(failure),
        })?;
        let placed = match send.messages {
            Messages::Single(mut message) => {
                let now = self.connections.clock.now();
                let due = message.take_due(now, &send.topic, target.queue, &broker.options().delay_levels)?;
                match due.map(Release::At).or_else(|| message.release.take()) {
                    Some(release) => self.hold(&target, send.level, message, release).await,
                    None => self.place_single(&target, send.level, message).await,
                }
            }
            Messages::Batch(batch) => {
                let placed = self.place_batch(&target, send.level, &batch).await;
                if let (Some(group), Ok(_)) = (dead_of, &placed) {
                    broker.note_dead_letter_of_retry(group, &batch, target.key);
                }
                placed
            }
        };
        Ok((target, placed.map_err(told)?))
    }

    /// What a consumer sends to its group's retries, since it cannot be given back, is a dead letter if it was delivered often
    /// enough. Whether it is.
    fn end_retries(&self, send: &mut Send<'_>, group: &GroupName) -> bool {
        let Messages::Single(message) = &send.messages else { return false };
        let (record, born_time) = (message.record(), message.born_time);
        let broker = &self.connections.broker;
        let letter = broker.dead_letter_of_retry(group, send.retries_max, &record, born_time);
        let Some(letter) = letter else { return false };
        send.topic = GroupTopic::DeadLetters.of(group);
        send.messages = Messages::Batch(letter);
        true
    }

    /// Topics that are named like the cluster and like a broker are there for tools that measure by sending to them: they are made
    /// when it comes to that, whatever the node makes otherwise. `None`: it is another one.
    async fn open_topic_of_tools(&self, topic: &TopicName) -> Result<(), Option<Failure>> {
        let broker = &self.connections.broker;
        let shards = broker.options().shard_count;
        let queues = self.port().node.queues_for_tools(topic.as_str(), shards.into()).ok_or(None)?;
        let queues = queues * u32::from(shards);
        let shape = TopicShape {
            topic: topic.clone(),
            read_queues: queues,
            write_queues: queues,
            permission: TOOLS_PERMISSION,
            ordered: false,
            message_type: None,
            retention: None,
        };
        broker.shape_topic(shape).await.map_err(Some)
    }

    /// Finds the queue; makes the topic where it is made by being written to.
    async fn target(&self, send: &Send<'_>) -> Result<Target, Failure> {
        let broker = &self.connections.broker;
        if send.topic.is_of_group() {
            let key = broker.open_group_topic(&send.topic, self.network()).await?;
            return Ok(Target { key, queue: key.queue.0 / u32::from(broker.options().shard_count) });
        }
        let wished = send.queues_wished.filter(|_| self.port().node.makes_topics);
        let (topic, queue_count) = match (broker.topic_layout(&send.topic), wished) {
            (Err(failure), Some(queues)) if failure.status == Status::TopicNotExist => {
                let shards = u32::from(broker.options().shard_count);
                broker.open_topic(&send.topic, Some(queues * shards), self.network()).await?;
                broker.topic_layout(&send.topic)?
            }
            (found, _) => found?,
        };
        let offered = self.offered_queues(send, queue_count);
        let queue = self.own_queue(&send.topic, send.queue.map(i64::from), offered)?;
        let (shard, shards) = (broker.shard().0, broker.options().shard_count);
        let number = queue * u32::from(shards) + u32::from(shard);
        Ok(Target { key: QueueKey { topic, queue: QueueNumber(number) }, queue })
    }

    /// The queues of a topic to which clients send: where they choose one themselves, it may be one of those that are only read
    /// any more, as in RocketMQ.
    fn offered_queues(&self, send: &Send<'_>, queue_count: u32) -> u32 {
        let shown = self.connections.broker.shown_topic(&send.topic);
        let of = |queues: Option<u32>| queues.unwrap_or(queue_count).min(queue_count);
        let (read, write) =
            shown.map_or((queue_count, queue_count), |shown| (of(shown.read_queues), of(shown.write_queues)));
        if send.queue.is_some() { read.max(write) } else { write }
    }

    /// The queue of this broker that was asked for, or the next one.
    pub(super) fn own_queue(
        &self,
        topic: &TopicName,
        asked: Option<i64>,
        queue_count: u32,
    ) -> Result<u32, Failure> {
        let options = self.connections.broker.options();
        let (shard, shards) = (u32::from(options.shard.0), u32::from(options.shard_count));
        let own_count = queue_count.saturating_sub(shard).div_ceil(shards);
        if own_count == 0 {
            let message =
                format!("the topic {topic} has no queue on this broker: its route says where it has");
            return Err(Failure::new(Status::TopicNotExist, message));
        }
        let Some(queue) = asked else { return Ok(self.port().next_queue() % own_count) };
        match u32::try_from(queue) {
            Ok(queue) if queue < own_count => Ok(queue),
            _ => {
                let message = format!(
                    "request queueId[{queue}] is illegal, {topic} has {own_count} queues on this broker"
                );
                Err(Failure::new(Status::QueueNotExist, message))
            }
        }
    }

    async fn place_single(
        &self,
        target: &Target,
        level: Option<Level>,
        mut message: SingleMessage<'_>,
    ) -> Result<PlacedMessages, Failure> {
        let broker = &self.connections.broker;
        // Where there is no room for one, it goes without.
        let unique_id = self.id_of(&mut message).ok();
        let single = Single { born_time: message.born_time, record: message.record() };
        loop {
            match broker.gather(target.key, level, &single) {
                Ok(pending) => return Ok(PlacedMessages::Single { pending, unique_id }),
                Err(PlaceRefusal::Failed(failure)) => return Err(failure),
                Err(PlaceRefusal::Wait(backpressure)) => self.wait_out(backpressure).await,
            }
        }
    }

    /// Places a message out of sight.
    async fn hold(
        &self,
        target: &Target,
        level: Option<Level>,
        mut message: SingleMessage<'_>,
        release: Release,
    ) -> Result<PlacedMessages, Failure> {
        let broker = &self.connections.broker;
        let unique_id = self.id_of(&mut message)?;
        let batch = Single { born_time: message.born_time, record: message.record() }.alone();
        let hold = Hold { key: target.key, level, batch, release };
        loop {
            match broker.hold_now(&hold) {
                Ok(pending) => return Ok(PlacedMessages::Held { pending, unique_id }),
                Err(PlaceRefusal::Failed(failure)) => return Err(failure),
                Err(PlaceRefusal::Wait(backpressure)) => self.wait_out(backpressure).await,
            }
        }
    }

    /// A message's id; it gets one where its producer gave it none.
    fn id_of(&self, message: &mut SingleMessage<'_>) -> Result<Box<str>, Failure> {
        match message.unique_id {
            [] => self.give_id(message),
            id => Ok(String::from_utf8_lossy(id).into()),
        }
    }

    /// Gives a message the id that its producer has not.
    fn give_id(&self, message: &mut SingleMessage<'_>) -> Result<Box<str>, Failure> {
        let id = self.port().next_id().text();
        properties::append(&mut message.properties, names::UNIQUE_ID.as_bytes(), id.as_bytes())
            .map_err(|error| Failure::new(Status::MessageTooLarge, error.to_string()))?;
        Ok((*id).into())
    }

    async fn place_batch(
        &self,
        target: &Target,
        level: Option<Level>,
        batch: &OwnedBatch,
    ) -> Result<PlacedMessages, Failure> {
        let broker = &self.connections.broker;
        let view = batch.view();
        loop {
            match broker.produce(target.key, level, &view) {
                Ok(pending) => {
                    return Ok(PlacedMessages::Batch { pending, message_count: view.record_count() });
                }
                Err(PlaceRefusal::Failed(failure)) => return Err(failure),
                Err(PlaceRefusal::Wait(backpressure)) => self.wait_out(backpressure).await,
            }
        }
    }

    /// Waits until a refused message is worth another try.
    async fn wait_out(&self, backpressure: Backpressure) {
        let waiting = self.connections.broker.wait_out(backpressure);
        self.connection.queued(&self.connections.clock, waiting).await;
    }

    /// Where the time of a send went, if its client has asked for that.
    fn send_stages(&self, placed: &PlacedSend, timeline: &Timeline, now: MonotonicTime) -> Option<String> {
        if !timeline.is_asked {
            return None;
        }
        let (_, mark) = self.describe_send(placed);
        Some(self.connections.metrics.flight.stages(&Timeline { mark, ..*timeline }, now).to_string())
    }

    /// What a slow send was about, and what it waited for.
    pub(super) fn describe_send(&self, placed: &PlacedSend) -> (RequestSubject, Option<LogMark>) {
        let (offset, mark) = match &placed.messages {
            PlacedMessages::Single { pending, .. } => self.connections.broker.single_mark(pending).unzip(),
            PlacedMessages::Batch { pending, .. } => (Some(pending.base_offset), Some(pending.mark())),
            PlacedMessages::Held { pending, .. } => (None, Some(pending.mark())),
        };
        (RequestSubject::of_queue("send", placed.key, offset), mark)
    }

    /// What a client is told of a held message. Where it has no offset, the half of a transaction has the number of its shard:
    /// clients give it back with their decision, which may come to another one.
    fn told_of(&self, held: Held) -> Stored {
        let Held { position, store_time, level, offset, due, .. } = held;
        let shard = QueueOffset(self.connections.broker.shard().0.into());
        let instead = if due.is_none() { shard } else { QueueOffset::ZERO };
        let location = RecordLocation { position, index: 0 };
        Stored { offset: offset.unwrap_or(instead), location, store_time, level }
    }

    /// Answers a send if that is due; false while it is not.
    pub(super) fn settle_send(&self, placed: &PlacedSend, timeline: &Timeline, now: MonotonicTime) -> bool {
        let broker = &self.connections.broker;
        let mut handle = None;
        let (outcome, message_count, unique_id) = match &placed.messages {
            PlacedMessages::Single { pending, unique_id } => {
                (broker.single_outcome(pending), 1, unique_id.as_deref())
            }
            PlacedMessages::Batch { pending, message_count } => {
                (broker.outcome(pending).map(|outcome| outcome.map(first_of)), *message_count, None)
            }
            PlacedMessages::Held { pending, unique_id } => {
                let outcome = broker.hold_outcome(pending);
                if let Some(Ok(held)) = &outcome {
                    handle = self.recall_handle(unique_id, held);
                }
                (outcome.map(|outcome| outcome.map(|held| self.told_of(held))), 1, Some(&**unique_id))
            }
        };
        let Some(outcome) = outcome else { return false };
        let outbox = &self.connection.outbox;
        match outcome {
            Ok(stored) => placed.asker.push(outbox, |opaque, form, output| {
                let (stages, address) = (self.send_stages(placed, timeline, now), self.port().address());
                let (queue, recall_handle, stages) = (placed.queue, handle.as_deref(), stages.as_deref());
                Sent { stored, message_count, queue, address, unique_id, recall_handle, stages }
                    .write(opaque, form, output);
            }),
            Err(failure) => {
                let refusal = Refusal::of(&failure, Asked::Send, placed.asker.version);
                placed.asker.answer(outbox, &Err(refusal));
            }
        }
        true
    }
}

/// Where the first message of a batch is.
fn first_of(batch: Produced) -> Stored {
    let Produced { base_offset, position, store_time, level } = batch;
    Stored { offset: base_offset, location: RecordLocation { position, index: 0 }, store_time, level }
}
