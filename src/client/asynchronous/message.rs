//! Messages that own what they carry, on their way out and in.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use crate::api::{Failure, Release};
use crate::client::leased::OwnedRecord;
use crate::client::messages::MessageBatch;
use crate::types::{QueueKey, QueueNumber, QueueOffset, Timestamp, TopicName, UniqueId};
use crate::wire::inflate::InflateError;
use crate::wire::properties::{self, ReservedError, names};

/// What a message takes beside its text, in a [`Producer`](super::Producer)'s bound of bytes.
const OVERHEAD_BYTES: usize = 128;

/// A message to be sent by a [`Producer`](super::Producer).
///
/// What it carries is checked when it is sent: its body has at most 4 MiB, and its keys, its tag and its properties have
/// at most 32,767 bytes each.
///
/// ```
/// use std::time::Duration;
/// use turbopump::client::asynchronous::Message;
///
/// let message = Message::new(b"three apples")
///     .key("customer-17")
///     .tag("fruit")
///     .property("region", "north")
///     .delay(Duration::from_secs(60));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    body: Vec<u8>,
    key: String,
    tag: String,
    properties: Vec<(String, String)>,
    queue: Option<QueueNumber>,
    release: Option<Release>,
}

impl Message {
    /// A message without key, tag and properties. Text, byte strings and `Vec<u8>` are bodies; the latter is not copied.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// Adds a key to find the message by, without blanks and control characters. Messages whose keys are the same go to
    /// the same queue, as long as the topic gets no more queues, and keep their order.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<str>) -> Self {
        if !self.key.is_empty() {
            self.key.push(' ');
        }
        self.key.push_str(key.as_ref());
        self
    }

    /// What consumers may filter by: text without control characters, blanks around it, and `||`.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = tag.into();
        self
    }

    /// Adds a property for whoever reads the message. Names that RocketMQ gives a meaning to are refused when it is sent,
    /// and so are the bytes 1 and 2.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Sends it to this queue of its topic, whatever its key.
    #[must_use]
    pub fn queue(mut self, queue: QueueNumber) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Consumers get it after this time, counted by the broker from when it stores the message; at most 40 days. It
    /// keeps no order to messages that are sent before or after it. Without a delay, or with zero, they get it at once.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.release = (!delay.is_zero()).then_some(Release::After(delay));
        self
    }

    /// Consumers get it at this time, by the broker's clock; at most 40 days ahead. At once, if it has passed.
    #[must_use]
    pub fn deliver_at(mut self, time: Timestamp) -> Self {
        self.release = Some(Release::At(time));
        self
    }

    /// What it takes of a producer's bound.
    pub(super) fn bytes(&self) -> usize {
        let properties = self.properties.iter().map(|(name, value)| name.len() + value.len() + 2);
        self.body.len() + self.key.len() + self.tag.len() + properties.sum::<usize>() + OVERHEAD_BYTES
    }

    pub(super) fn release(&self) -> Option<Release> {
        self.release.clone()
    }

    /// The properties as they are stored, with the message's id.
    pub(super) fn property_text(&self, id: UniqueId) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        for (name, value) in &self.properties {
            if let Some(reserved) = properties::reserved(name.as_bytes()) {
                return Err(Failure::invalid(ReservedError { name: name.clone(), reserved }));
            }
            if properties::get(&text, name).is_some() {
                return Err(Failure::invalid(format_args!("the property {name} is given twice")));
            }
            properties::append(&mut text, name.as_bytes(), value.as_bytes()).map_err(Failure::invalid)?;
        }
        properties::append(&mut text, names::UNIQUE_ID.as_bytes(), id.text().as_bytes())
            .map_err(Failure::invalid)?;
        Ok(text)
    }

    pub(super) fn borrowed<'a>(&'a self, properties: &'a [u8]) -> crate::client::Message<'a> {
        crate::client::Message {
            key: self.key.as_bytes(),
            tag: self.tag.as_bytes(),
            properties,
            body: &self.body,
            queue: self.queue,
            original: None,
        }
    }
}

/// A message that was read, see [`MessageStream`](super::MessageStream). A clone shares its memory, which is that of all
/// messages that came in the same batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedMessage {
    /// The topic of its queue.
    pub topic: TopicName,
    /// The queue, with the number of its topic.
    pub queue: QueueKey,
    /// Its place in its queue.
    pub offset: QueueOffset,
    /// When its producer made it, by the producer's clock.
    pub born_time: Timestamp,
    /// When the broker stored it; of a message with a delay: when it entered its queue.
    pub store_time: Timestamp,
    record: OwnedRecord,
}

impl OwnedMessage {
    /// The messages of a batch, with one copy of its bytes.
    pub(super) fn all_of(batch: &MessageBatch<'_>) -> Vec<Self> {
        let bytes = Bytes::copy_from_slice(batch.as_bytes());
        let own = |message: crate::client::ReceivedMessage<'_>| Self {
            topic: batch.topic().clone(),
            queue: batch.key(),
            offset: message.offset,
            born_time: message.born_time,
            store_time: message.store_time,
            record: message.to_owned_record(&bytes),
        };
        batch.over(&bytes).messages().map(own).collect()
    }

    /// The message's keys, separated by blanks. Empty: none.
    pub fn key(&self) -> &[u8] {
        self.record.view().key()
    }

    /// Empty: none.
    pub fn tag(&self) -> &[u8] {
        self.record.view().tag()
    }

    /// The value of a property, the first one when there are several of that name.
    pub fn property(&self, name: &str) -> Option<&[u8]> {
        properties::get(self.record.view().properties(), name)
    }

    /// Names and values of all properties in their order, also of those that brokers and client libraries write.
    pub fn properties(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        properties::Properties::new(self.record.view().properties())
    }

    /// The id that its producer gave it. `None`: it has none, or one of another form.
    pub fn id(&self) -> Option<UniqueId> {
        let text = std::str::from_utf8(self.property(names::UNIQUE_ID)?).ok()?;
        UniqueId::parse(text).ok()
    }

    /// The body as stored: as its producer compressed it, if it did. See [`plain_body`](Self::plain_body).
    pub fn body(&self) -> &[u8] {
        self.record.view().body()
    }

    /// The body as its producer had it before it was compressed; the same as [`body`](Self::body) for all that this
    /// library publishes. Fails when it is not what it says, or is larger than 4 MiB.
    pub fn plain_body(&self) -> Result<Cow<'_, [u8]>, InflateError> {
        self.record.view().plain_body()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_with_the_id_and_reserved_names_are_refused() {
        let id = UniqueId([7; 16]);
        let text = Message::new("x").property("a", "b").property_text(id).expect("good properties");
        assert_eq!(properties::get(&text, "a"), Some(&b"b"[..]));
        assert_eq!(properties::get(&text, names::UNIQUE_ID), Some(id.text().as_bytes()));
        for (name, value) in [("KEYS", "k"), ("UNIQ_KEY", "u"), ("", "x"), ("a", "b\x01"), ("a\x02", "b")] {
            let failure = Message::new("x").property(name, value).property_text(id);
            assert!(failure.is_err(), "{name:?}={value:?}");
        }
        let twice = Message::new("x").property("a", "1").property("a", "2").property_text(id);
        assert!(twice.expect_err("one would be lost").message.contains("twice"));
    }

    #[test]
    fn keys_are_gathered_and_the_last_delay_counts() {
        let message = Message::new(b"body").key("one").key("two").delay(Duration::from_secs(1));
        assert_eq!(message.borrowed(b"").key, b"one two");
        assert_eq!(message.release(), Some(Release::After(Duration::from_secs(1))));
        assert_eq!(message.clone().delay(Duration::ZERO).release(), None);
        let time = Timestamp(5);
        assert_eq!(message.deliver_at(time).release(), Some(Release::At(time)));
    }
}
