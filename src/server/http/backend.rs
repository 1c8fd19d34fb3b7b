//! What the HTTP protocol's calls mean to the broker.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::client::HttpClient;
use crate::api::{
    Acknowledge, ClientProtocol, Decision, EndTransaction, HalfMessage, ReceiptOutcome, Receive,
    ReceiveHalves, ReceiveScope, ReceivedMessage, Release, Reply, Request, ShardAddress,
};
use crate::broker::{Publish, Published, Single};
use crate::limits;
use crate::protocol::http::{
    Backend, Consume, ConsumeMode, DeliveredMessage, ErrorCode, HandleFailure, HttpError, KEYS, LeaseEnd,
    PublishRequest, PublishedMessage, START_DELIVERY_TIME, TRANSACTION_CHECK_SECONDS, TopicReference,
    code_of, property_text,
};
use crate::server::connection::ShardBroker;
use crate::server::receipts::{HandleCodec, ReceiptHandle};
use crate::types::{
    GroupName, OffsetMessageId, QueueNumber, Receipt, RecordLocation, Throttle, Timestamp, TopicName,
    UniqueIdGenerator,
};
use crate::wire::properties::{self, names};
use crate::wire::record::{Record, RecordView};

/// Properties with a meaning that are asked for in this protocol as such. Others that are reserved would be stored and
/// not obeyed, so they are refused.
const OBEYED: [&str; 2] = [START_DELIVERY_TIME, TRANSACTION_CHECK_SECONDS];
/// To make a message's part of an answer out of properties of so many bytes takes about half a slice of time.
const LONG_PROPERTIES_BYTES: usize = 4 * 1024;
/// Half messages have no group in the publisher's request, so their handles are bound to none.
const NO_GROUP: &str = "";

/// Calls of the HTTP protocol, carried out by the broker of one shard.
pub(crate) struct BrokerBackend {
    broker: Rc<ShardBroker>,
    handles: HandleCodec,
    ids: RefCell<UniqueIdGenerator>,
    /// Of each shard, as clients are told: the first part of the ids of messages that have none of their producer.
    addresses: OnceCell<Vec<Option<SocketAddr>>>,
    unreadable_said: Rc<Throttle>,
}

/// A topic of an instance, as the broker knows it.
fn topic_name(topic: &TopicReference) -> Result<TopicName, HttpError> {
    topic.to_string().parse().map_err(HttpError::invalid)
}

/// A group of the topic's instance, as the broker knows it.
fn group_name(topic: &TopicReference, group: &GroupName) -> Result<GroupName, HttpError> {
    match &topic.instance {
        None => Ok(group.clone()),
        Some(instance) => instance.group(group).map_err(HttpError::invalid),
    }
}

fn unexpected(reply: &Reply) -> HttpError {
    HttpError::new(ErrorCode::ServerError, format!("the broker gave an answer of another kind: {reply:?}"))
}

impl BrokerBackend {
    pub fn new(broker: Rc<ShardBroker>, secret: &[u8], random: u32, unreadable_said: Rc<Throttle>) -> Self {
        let process = std::process::id();
        let ids = UniqueIdGenerator::new(Ipv4Addr::LOCALHOST, process, random);
        Self {
            broker,
            handles: HandleCodec::new(secret),
            ids: RefCell::new(ids),
            addresses: OnceCell::new(),
            unreadable_said,
        }
    }

    async fn ask(&self, request: Request) -> Result<Reply, HttpError> {
        Ok(self.broker.handle(request).await?)
    }

    /// Asks for what may wait, and is dropped when its client goes away. It is carried out in a task of its own:
    /// what it reads from the disk must be driven to its end. Without room to wait it gets what is there.
    async fn ask_for(
        &self,
        client: &Rc<HttpClient>,
        request: impl Fn(Duration) -> Request,
        wait: Duration,
    ) -> Result<Reply, HttpError> {
        let (call, may_wait) = match client.begin_call(wait) {
            Some(call) => (call, true),
            None => (client.begin_look(), false),
        };
        let request = request(if may_wait { wait } else { Duration::ZERO });
        let (broker, recipient) = (self.broker.clone(), call.client().clone());
        let carrying_out = async move {
            let metrics = broker.metrics().clone();
            let handling = broker.handle_for(request, &*recipient);
            let outcome = metrics.flight.trace(&recipient.timeline, handling).await;
            outcome.inspect(|reply| recipient.hold(reply))
        };
        let outcome = glommio::spawn_local(carrying_out).detach().await;
        call.end();
        if client.is_refused() {
            return Err(HttpError::new(
                ErrorCode::Unavailable,
                "too many answers wait to be read: try again",
            ));
        }
        let is_empty = |reply: &Reply| match reply {
            Reply::Received(messages) => messages.is_empty(),
            Reply::Halves(halves) => halves.is_empty(),
            _ => false,
        };
        match (outcome, client.denial()) {
            // What was given to it before is its own.
            (Some(Ok(reply)), Some(denied)) if is_empty(&reply) => Err(denied),
            (Some(Ok(reply)), None) if is_empty(&reply) && !may_wait => {
                Err(HttpError::new(ErrorCode::Unavailable, "too many requests wait for messages: try again"))
            }
            (Some(outcome), _) => Ok(outcome?),
            (None, _) => Err(HttpError::new(ErrorCode::ServerError, "the call was given up: try again")),
        }
    }

    /// The properties of a message as they are stored, and its id, for one that is born `now`.
    fn properties(&self, message: &PublishRequest, now: Timestamp) -> Result<(Vec<u8>, String), HttpError> {
        let id = String::from(&*self.ids.borrow_mut().next(now).text());
        let mut text = Vec::new();
        let stored = message.properties.iter().filter(|(name, _)| *name != KEYS && *name != names::UNIQUE_ID);
        for (name, value) in stored.chain([(names::UNIQUE_ID, id.as_str())]) {
            if !OBEYED.contains(&name) {
                properties::check_name(name.as_bytes()).map_err(HttpError::invalid)?;
            }
            properties::append(&mut text, name.as_bytes(), value.as_bytes()).map_err(HttpError::invalid)?;
        }
        Ok((text, id))
    }

    async fn delivered(
        &self,
        message: &ReceivedMessage,
        topic: &TopicName,
        group: &GroupName,
    ) -> Result<Option<DeliveredMessage>, HttpError> {
        let handle = ReceiptHandle::Message(message.receipt);
        let id_of = |location| self.id_of_location(message.receipt.key.queue, location);
        let id = || message.location.and_then(id_of);
        let record = self.delivered_record(&message.record, message.born_time, id).await?;
        Ok(record.map(|record| DeliveredMessage {
            receipt_handle: self.handles.encode(&handle, topic.as_str(), group.as_str()),
            first_consume_time: message.first_delivery,
            next_consume_time: message.receipt.lease_until,
            attempt: message.deliveries,
            ..record
        }))
    }

    async fn delivered_half(
        &self,
        half: &HalfMessage,
        topic: &TopicName,
    ) -> Result<Option<DeliveredMessage>, HttpError> {
        let handle = ReceiptHandle::Half(half.receipt, half.next_check);
        let id = || {
            let location = RecordLocation { position: half.receipt.position, index: 0 };
            self.id_of_location(half.receipt.key.queue, location)
        };
        let record = self.delivered_record(&half.record, half.born_time, id).await?;
        Ok(record.map(|record| DeliveredMessage {
            receipt_handle: self.handles.encode(&handle, topic.as_str(), NO_GROUP),
            first_consume_time: half.first_check,
            next_consume_time: half.next_check,
            attempt: half.checks,
            ..record
        }))
    }

    /// The id of a message by where it is stored, as `message find` shows it and finds it.
    fn id_of_location(&self, queue: QueueNumber, location: RecordLocation) -> Option<String> {
        let addresses = self.addresses.get_or_init(|| {
            // A host's name, when that is what clients are told, is looked up once.
            let address = |shard: ShardAddress| shard.address.to_socket_addrs().ok()?.next();
            self.broker.shard_addresses().into_iter().map(address).collect()
        });
        let shard = queue.shard(self.broker.options().shard_count);
        let address = (*addresses.get(usize::from(shard.0))?)?;
        Some(String::from(&*OffsetMessageId::of_location(address, location)?.text()))
    }

    /// What a stored record of a batch born at `born_time` says about its message, with `id_of_location` for its id when its
    /// producer gave it none; the other times and the handle are the delivery's.
    async fn delivered_record(
        &self,
        bytes: &Bytes,
        born_time: Timestamp,
        id_of_location: impl FnOnce() -> Option<String>,
    ) -> Result<Option<DeliveredMessage>, HttpError> {
        let (record, _) = RecordView::cut(bytes)
            .map_err(|error| HttpError::new(ErrorCode::ServerError, format!("a stored message: {error}")))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let unique_id = properties::get(record.properties(), names::UNIQUE_ID).filter(|id| !id.is_empty());
        let message_id = unique_id.map(text).or_else(id_of_location).unwrap_or_default();
        let is_shown = |(name, _): &(&[u8], _)| *name != names::UNIQUE_ID.as_bytes();
        let keys = (!record.key().is_empty()).then(|| (KEYS.as_bytes(), record.key()));
        let shown = properties::Properties::new(record.properties()).filter(is_shown).chain(keys);
        let body = match record.plain_body() {
            Ok(Cow::Borrowed(body)) => bytes.slice(bytes.len() - body.len()..),
            Ok(Cow::Owned(body)) => Bytes::from(body),
            Err(error) => {
                if let Some(left_out) = self.unreadable_said.allows(self.broker.clock().monotonic()) {
                    tracing::warn!(
                        target: "net",
                        left_out,
                        "message {message_id} is given to nobody over HTTP: {error}"
                    );
                }
                return Ok(None);
            }
        };
        Ok(Some(DeliveredMessage {
            message_id,
            receipt_handle: String::new(),
            body,
            tag: (!record.tag().is_empty()).then(|| text(record.tag())),
            properties: property_text(shown, async || self.broker.rest().await).await,
            publish_time: Timestamp(born_time.0.saturating_add_signed(i64::from(record.born_delta_ms()))),
            first_consume_time: Timestamp(0),
            next_consume_time: Timestamp(0),
            attempt: 1,
        }))
    }

    /// Messages with their bodies as their producers had them, which may be larger than what is stored. What does not fit the
    /// answer then is given back to its group, and what cannot be read is left to its lease: in the end it goes to the dead
    /// letters.
    async fn delivered_messages(
        &self,
        messages: &[ReceivedMessage],
        topic: &TopicName,
        group: &GroupName,
    ) -> Result<Vec<DeliveredMessage>, HttpError> {
        let mut delivered = Vec::with_capacity(messages.len());
        let mut room = limits::RECEIVE_BYTES_MAX;
        for (at, message) in messages.iter().enumerate() {
            let Some(made) = self.delivered(message, topic, group).await? else { continue };
            if made.body.len() > room && !delivered.is_empty() {
                self.broker.give_back(group, &messages[at..]).await;
                break;
            }
            room = room.saturating_sub(made.body.len());
            let takes_long = made.properties.len() >= LONG_PROPERTIES_BYTES;
            delivered.push(made);
            if takes_long {
                self.broker.rest().await;
            }
        }
        Ok(delivered)
    }

    async fn acknowledge_messages(
        &self,
        topic: &TopicName,
        group: GroupName,
        handles: &[String],
    ) -> Result<Vec<HandleFailure>, HttpError> {
        let mut failures = Vec::new();
        let mut receipts: Vec<(&String, Receipt)> = Vec::new();
        for handle in handles {
            match self.handles.decode(handle, topic.as_str(), group.as_str()) {
                Ok(ReceiptHandle::Message(receipt)) => receipts.push((handle, receipt)),
                Ok(ReceiptHandle::Half(..)) => failures.push(failed(
                    handle,
                    ErrorCode::ReceiptHandleError,
                    "it is a transaction's: it is ended with trans=commit or trans=rollback",
                )),
                Err(error) => {
                    failures.push(failed(handle, ErrorCode::ReceiptHandleError, &error.to_string()))
                }
            }
        }
        if receipts.is_empty() {
            return Ok(failures);
        }
        let acknowledge =
            Acknowledge { group, receipts: receipts.iter().map(|(_, receipt)| *receipt).collect() };
        let outcomes = match self.ask(Request::Acknowledge(acknowledge)).await? {
            Reply::Acknowledged(outcomes) => outcomes,
            other => return Err(unexpected(&other)),
        };
        for ((handle, _), outcome) in receipts.into_iter().zip(outcomes) {
            match outcome {
                ReceiptOutcome::Acknowledged => {}
                ReceiptOutcome::NotLeased | ReceiptOutcome::NothingOpen => failures.push(failed(
                    handle,
                    ErrorCode::MessageNotExist,
                    "its lease has ended, or the message was acknowledged or delivered again",
                )),
                ReceiptOutcome::Failed => failures.push(failed(
                    handle,
                    ErrorCode::ServerError,
                    "the shard of its queue could not store the acknowledgement: try again",
                )),
            }
        }
        Ok(failures)
    }

    async fn end_transactions(
        &self,
        topic: &TopicName,
        decision: Decision,
        handles: &[String],
    ) -> Result<Vec<HandleFailure>, HttpError> {
        let mut failures = Vec::new();
        for handle in handles {
            let receipt = match self.handles.decode(handle, topic.as_str(), NO_GROUP) {
                Ok(ReceiptHandle::Half(receipt, _)) => receipt,
                _ => {
                    let message = "it is not a handle of a transaction of this topic";
                    failures.push(failed(handle, ErrorCode::ReceiptHandleError, message));
                    continue;
                }
            };
            let end = EndTransaction { receipt, producer_group: None, decision };
            match self.broker.handle(Request::EndTransaction(end)).await {
                Ok(_) => {}
                Err(failure) => failures.push(failed(handle, code_of(failure.status), &failure.message)),
            }
        }
        Ok(failures)
    }
}

impl Backend for BrokerBackend {
    type Client = Rc<HttpClient>;

    async fn publish(
        &self,
        topic: &TopicReference,
        message: PublishRequest,
        client: &Rc<HttpClient>,
    ) -> Result<PublishedMessage, HttpError> {
        let topic = topic_name(topic)?;
        self.broker.check_writable_by_name(&topic)?;
        let deliver_at = message.properties.start_delivery_time().map_err(HttpError::invalid)?;
        let check_after = message.properties.transaction_check_after().map_err(HttpError::invalid)?;
        if deliver_at.is_some() && check_after.is_some() {
            let names = format!("{START_DELIVERY_TIME} and {TRANSACTION_CHECK_SECONDS}");
            return Err(HttpError::invalid(format!("a message has {names}: it can be one of the two only")));
        }
        let release = deliver_at
            .map(Release::At)
            .or_else(|| check_after.map(|immunity| Release::Commit { producer_group: None, immunity }));
        let born_time = self.broker.clock().now();
        let (properties, message_id) = self.properties(&message, born_time)?;
        let record = Record {
            key: message.properties.keys().unwrap_or_default().as_bytes(),
            tag: message.tag.as_deref().unwrap_or_default().as_bytes(),
            properties: &properties,
            body: message.body.as_bytes(),
            ..Record::default()
        };
        record.check().and_then(|()| record.check_text()).map_err(HttpError::invalid)?;
        let publish = Publish {
            topic: &topic,
            sharding_key: message.properties.sharding_key(),
            level: None,
            message: Single { born_time, record },
            wait_max: limits::PUBLISH_WAIT_MAX,
            release,
            network: client.network,
        };
        let handle = match self.broker.publish_message(publish).await? {
            // Only a half is decided on later.
            Published::Held(held) if check_after.is_some() => {
                let handle = ReceiptHandle::Half(held.receipt, Timestamp(0));
                Some(self.handles.encode(&handle, topic.as_str(), NO_GROUP))
            }
            Published::Stored(_) | Published::Held(_) => None,
        };
        Ok(PublishedMessage { message_id, receipt_handle: handle })
    }

    async fn consume(
        &self,
        consume: &Consume,
        client: &Rc<HttpClient>,
    ) -> Result<Vec<DeliveredMessage>, HttpError> {
        let topic = topic_name(&consume.topic)?;
        let group = group_name(&consume.topic, &consume.group)?;
        if consume.mode == ConsumeMode::Undecided {
            let receive = |wait| {
                Request::ReceiveHalves(ReceiveHalves {
                    topic: topic.clone(),
                    producer_group: group.clone(),
                    count: u32::from(consume.count),
                    wait,
                })
            };
            return match self.ask_for(client, receive, consume.wait).await? {
                Reply::Halves(halves) => {
                    let mut delivered = Vec::with_capacity(halves.len());
                    for half in &halves {
                        delivered.extend(self.delivered_half(half, &topic).await?);
                    }
                    Ok(delivered)
                }
                other => Err(unexpected(&other)),
            };
        }
        let receive = |wait| {
            Request::Receive(Receive {
                group: group.clone(),
                topic: topic.clone(),
                scope: ReceiveScope::Anywhere,
                filter: consume.filter.clone(),
                count: u32::from(consume.count),
                bytes_max: limits::RECEIVE_BYTES_MAX as u32,
                wait,
                lease: None,
                ordered: consume.mode == ConsumeMode::Order,
                protocol: ClientProtocol::Http,
            })
        };
        match self.ask_for(client, receive, consume.wait).await? {
            Reply::Received(messages) => self.delivered_messages(&messages, &topic, &group).await,
            other => Err(unexpected(&other)),
        }
    }

    async fn acknowledge(
        &self,
        topic: &TopicReference,
        end: &LeaseEnd,
        handles: &[String],
    ) -> Result<Vec<HandleFailure>, HttpError> {
        let name = topic_name(topic)?;
        self.broker.topic_layout(&name)?;
        match end {
            LeaseEnd::Acknowledge(group) => {
                self.acknowledge_messages(&name, group_name(topic, group)?, handles).await
            }
            LeaseEnd::Commit => self.end_transactions(&name, Decision::Commit, handles).await,
            LeaseEnd::Rollback => self.end_transactions(&name, Decision::Rollback, handles).await,
        }
    }
}

fn failed(handle: &str, code: ErrorCode, message: &str) -> HandleFailure {
    HandleFailure { receipt_handle: handle.to_owned(), code, message: message.to_owned() }
}
