//! Receiving: messages are leased, acknowledged by receipt, and delivered again otherwise.

use std::time::Duration;

use bytes::Bytes;

use super::filter::Filter;
use crate::types::{
    GroupName, QueueKey, QueueNumber, QueueOffset, Receipt, RecordLocation, ShardId, Timestamp, TopicName,
};

/// Lease messages of a topic to a member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    pub group: GroupName,
    pub topic: TopicName,
    pub scope: ReceiveScope,
    pub filter: Filter,
    /// 1 to `limits::RECEIVE_MESSAGES_MAX`.
    pub count: u32,
    /// Bytes of records in the answer, beyond the first; at most `limits::RECEIVE_BYTES_MAX` count.
    pub bytes_max: u32,
    /// How long to wait when there is nothing.
    pub wait: Duration,
    /// How long the messages stay invisible; `None`: as the group is configured.
    pub lease: Option<Duration>,
    /// A queue gives nothing while a message of it is leased, except the same messages again when their lease has
    /// ended.
    pub ordered: bool,
    /// What the member speaks; decides nothing, and is shown.
    pub protocol: ClientProtocol,
}

/// From where messages are received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceiveScope {
    /// Whichever queues of the node have any.
    #[default]
    Anywhere,
    /// The queues of one shard: what a protocol asks for whose clients take each shard for a broker. The native protocol has
    /// no word for it, and its clients refuse to send it.
    Shard(ShardId),
    Queue(QueueNumber),
}

/// The protocol over which somebody consumes, for whoever looks at a group. Each adaptor names its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientProtocol {
    Native,
    Http,
}

/// Which tags a member asks for: RocketMQ's TAG expressions (`remoting/.../filter/FilterAPI.java`), `a || b` or `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagFilter {
    /// Sorted, without repetition. Empty: every message.
    tags: Vec<String>,
}

/// A leased message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedMessage {
    pub receipt: Receipt,
    /// Where it is stored, on the shard of its queue; `None` from a broker of an earlier release.
    pub location: Option<RecordLocation>,
    /// The record as stored, see `wire::record`.
    pub record: Bytes,
    /// The batch's; the record has its difference to it.
    pub born_time: Timestamp,
    pub store_time: Timestamp,
    /// When it was first delivered to this group.
    pub first_delivery: Timestamp,
    /// Deliveries to this group, this one included.
    pub deliveries: u32,
}

/// End the leases of messages that were dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledge {
    pub group: GroupName,
    /// At most `limits::ACKNOWLEDGE_RECEIPTS_MAX`.
    pub receipts: Vec<Receipt>,
}

/// What became of one receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptOutcome {
    /// Durable.
    Acknowledged,
    /// The message is open to others: its lease had ended, or it was delivered again.
    NotLeased,
    /// Nothing of the group is open there: the message was acknowledged before, as by a request that is repeated, or went to
    /// the dead letters. Protocols that cannot tell it from `NotLeased` say that.
    NothingOpen,
    /// The shard of the queue could not store it: try again.
    Failed,
}

/// Move the end of a lease, counted from now; zero makes the message visible at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeLease {
    pub group: GroupName,
    pub receipt: Receipt,
    pub lease: Duration,
}

/// How a group is treated, the same on every shard. What is not set is as the node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    pub group: GroupName,
    /// Deliveries of a message before it goes to the dead letters: RocketMQ's `retryMaxTimes`.
    pub deliveries_max: Option<u32>,
    pub lease: Option<Duration>,
    pub ordered_lease: Option<Duration>,
}

/// Make a group, or change how it is treated. What is not set stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetUpGroup {
    pub settings: GroupSettings,
    pub may_consume: Option<bool>,
    /// Whether its clients may get every message each.
    pub may_broadcast: Option<bool>,
    /// RocketMQ's mark of a group that consumes in order.
    pub ordered: Option<bool>,
    /// Queues of each broker's topic of retries that its clients are shown; 0: what they give back is not kept.
    pub retry_queues: Option<u32>,
    pub presence: Presence,
    /// A group as which it is treated where nothing else is said, in all there is to say: what is not set is as there.
    pub like: Option<GroupName>,
}

/// What must be so before a group is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Anything.
    Either,
    /// Somebody knows of it.
    There,
    /// Nobody does.
    New,
}

/// How a group is treated, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTerms {
    pub settings: GroupSettings,
    pub may_consume: bool,
    pub may_broadcast: bool,
    pub ordered: bool,
    pub retry_queues: u32,
}

/// What tools say of how long a group's messages wait before each of their deliveries after the first one
/// (`remoting/.../subscription/GroupRetryPolicy.java`). It is kept and shown, and nothing waits by it: RocketMQ's brokers tell it to
/// clients over gRPC, and what consumers give back waits for a delay level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Which of the two below counts.
    pub is_exponential: bool,
    /// In whole milliseconds; none: RocketMQ's.
    pub delays: Vec<Duration>,
    pub growth: Option<RetryGrowth>,
}

/// Delays of which each is that many times as long as the one before (`ExponentialRetryPolicy.java`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryGrowth {
    pub initial_ms: u64,
    pub max_ms: u64,
    pub multiplier: u64,
}

/// What leases a group has in one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    pub key: QueueKey,
    /// Everything below was acknowledged or skipped.
    pub floor: QueueOffset,
    /// Everything from here on was never delivered.
    pub next: QueueOffset,
    /// Messages delivered, not acknowledged, and within their lease.
    pub leased: u64,
    /// Messages delivered and not acknowledged whose lease has ended: they are delivered again.
    pub waiting: u64,
    /// Messages of this queue that went to the group's dead letters.
    pub dead_letters: u64,
}

/// Those who receive messages of one topic for a group over one protocol, and ask for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverInfo {
    pub topic: TopicName,
    pub protocol: ClientProtocol,
    pub filter: Filter,
    /// They ask for each queue's messages in order.
    pub ordered: bool,
    /// Receives under way.
    pub active: u32,
    /// Since the end of the last one; zero while there are any.
    pub seen_age: Duration,
}

impl ReceiveScope {
    /// The queue, if it is one.
    pub fn queue(self) -> Option<QueueNumber> {
        match self {
            ReceiveScope::Queue(queue) => Some(queue),
            ReceiveScope::Anywhere | ReceiveScope::Shard(_) => None,
        }
    }

    /// The shard whose queues are meant, if not those of all; `shard_count` is the node's.
    pub fn shard(self, shard_count: u16) -> Option<ShardId> {
        match self {
            ReceiveScope::Anywhere => None,
            ReceiveScope::Shard(shard) => Some(shard),
            ReceiveScope::Queue(queue) => Some(queue.shard(shard_count)),
        }
    }

    pub fn holds(self, queue: QueueNumber, shard_count: u16) -> bool {
        match self {
            ReceiveScope::Anywhere => true,
            ReceiveScope::Shard(shard) => queue.shard(shard_count) == shard,
            ReceiveScope::Queue(one) => queue == one,
        }
    }
}

impl From<Option<QueueNumber>> for ReceiveScope {
    fn from(queue: Option<QueueNumber>) -> Self {
        queue.map_or(ReceiveScope::Anywhere, ReceiveScope::Queue)
    }
}

impl ClientProtocol {
    pub const ALL: [ClientProtocol; 2] = [ClientProtocol::Native, ClientProtocol::Http];

    pub fn name(self) -> &'static str {
        match self {
            ClientProtocol::Native => "native",
            ClientProtocol::Http => "http",
        }
    }
}

impl TagFilter {
    /// Reads an expression. `None`, blank and `*` ask for everything.
    pub fn parse(expression: Option<&str>) -> Self {
        let expression = expression.map_or("", str::trim);
        if expression.is_empty() || expression == "*" {
            return Self::default();
        }
        let mut tags: Vec<_> = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()).collect();
        tags.sort_unstable();
        tags.dedup();
        Self { tags: tags.into_iter().map(str::to_owned).collect() }
    }

    pub fn is_everything(&self) -> bool {
        self.tags.is_empty()
    }

    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// An expression that [`parse`](TagFilter::parse) reads as this filter.
    pub fn expression(&self) -> String {
        match &self.tags[..] {
            [] => "*".to_owned(),
            // On its own a star asks for everything; given twice it is a tag.
            [star] if star == "*" => "* || *".to_owned(),
            tags => tags.join(" || "),
        }
    }

    pub fn matches(&self, tag: &[u8]) -> bool {
        self.tags.is_empty() || self.tags.iter().any(|wanted| wanted.as_bytes() == tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_rocketmq_reads_them() {
        for everything in [None, Some(""), Some(" * "), Some("*"), Some("||")] {
            assert!(TagFilter::parse(everything).is_everything(), "{everything:?}");
        }
        let filter = TagFilter::parse(Some(" b || a||b "));
        assert_eq!(filter.tags(), ["a", "b"]);
        assert!(filter.matches(b"a") && filter.matches(b"b"));
        assert!(!filter.matches(b"") && !filter.matches(b"ab"));
        for filter in [filter, TagFilter::default()] {
            assert_eq!(TagFilter::parse(Some(&filter.expression())), filter);
        }
    }

    #[test]
    fn an_expression_is_read_as_the_filter_that_wrote_it() {
        for text in ["*", "a", "b || a", "*||*", "* || a", "| || |a || b|", "\u{3000}\u{e9}\u{3000}||x y"] {
            let filter = TagFilter::parse(Some(text));
            assert_eq!(TagFilter::parse(Some(&filter.expression())), filter, "{text}");
        }
        assert!(!TagFilter::parse(Some("*||*")).is_everything());
    }
}
