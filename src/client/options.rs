//! What a program chooses: time-outs, batching, where to read from.

use std::time::Duration;

use crate::types::{Level, QueueOffset, Timestamp};

use super::credentials::Credentials;
#[cfg(feature = "tls")]
use super::tls::Tls;

/// How often a topic's route is asked for again, for queues that it has got meanwhile: RocketMQ's clients take half a minute
/// (`client/.../ClientConfig.java`, pollNameServerInterval).
pub(super) const ROUTE_INTERVAL: Duration = Duration::from_secs(3);

/// How long to wait for a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the connection, and for the broker's first bytes on it.
    pub connect: Duration,
    /// For an answer, beyond the time that the request itself asks to wait.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), request: Duration::from_secs(30) }
    }
}

/// How connections to a broker are made. Made of [`Timeouts`] alone where nothing else is said.
///
/// ```no_run
/// use turbopump::client::{Client, ConnectOptions, Credentials};
///
/// let credentials = Credentials::new("shop", std::env::var("SHOP_SECRET")?)?;
/// let options = ConnectOptions { credentials: Some(credentials), ..ConnectOptions::default() };
/// let client = Client::connect("127.0.0.1:10911", options)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    pub timeouts: Timeouts,
    /// The access key, proved to brokers that ask for one. `None`: such brokers refuse every request.
    pub credentials: Option<Credentials>,
    /// Whom to trust within TLS. `None`: without TLS.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
}

impl From<Timeouts> for ConnectOptions {
    fn from(timeouts: Timeouts) -> Self {
        Self { timeouts, ..Self::default() }
    }
}

/// What is done with a refused batch when a later one of its queue was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOrder {
    /// It is reported as refused: the queue keeps the order of sending.
    Keep,
    /// It is sent again after the later one.
    Relax,
}

/// What is done with the batches that were on their way when their connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostBatches {
    /// They are reported as unknown: nothing is stored twice.
    Report,
    /// They are sent again over the next connection, before what comes after them in their queue: nothing is left out. What
    /// was stored all the same is stored twice, and is counted as
    /// [`repeated`](super::ProducerCounters::repeated).
    SendAgain,
}

/// Whether messages are their producer's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageSource {
    /// Properties with names that have a meaning of their own are refused.
    Own,
    /// They are copies of messages that were stored before, and keep all properties of theirs. A broker of an earlier release
    /// refuses them.
    Copies,
}

/// How a producer batches, waits and retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerOptions {
    /// `None`: the topic's level, or the node's.
    pub level: Option<Level>,
    /// A batch leaves when it has this many bytes, or `batch_records` messages, or when its first message is `linger` old.
    pub batch_bytes: usize,
    /// Messages of a batch; at least 1.
    pub batch_records: u32,
    /// While `in_flight` batches are on their way it goes on filling: under load batches are larger than `linger` makes
    /// them, and over many queues as large as `buffered_bytes_max` lets them grow.
    pub linger: Duration,
    /// Batches that are sent ahead of their answers, per shard: 1 to [`IN_FLIGHT_MAX`](super::IN_FLIGHT_MAX).
    pub in_flight: usize,
    /// Bytes of messages without an answer, beyond which sending waits.
    pub buffered_bytes_max: usize,
    /// How long a batch that is refused for a passing reason is tried again.
    pub retry_for: Duration,
    /// What is done with a refused batch that a later one of its queue has overtaken.
    pub order: RetryOrder,
    /// What is done with batches of unknown outcome.
    pub lost: LostBatches,
    /// Whether they are copies of stored messages.
    pub source: MessageSource,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            level: None,
            batch_bytes: 256 * 1024,
            batch_records: 1_000,
            linger: Duration::from_millis(5),
            in_flight: 8,
            buffered_bytes_max: 64 * 1024 * 1024,
            retry_for: Duration::from_secs(30),
            order: RetryOrder::Keep,
            lost: LostBatches::Report,
            source: MessageSource::Own,
        }
    }
}

/// Where to start in a queue in which the group has not committed an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest message that is still there.
    First,
    /// After the newest message.
    Last,
    /// With the message of this offset. One that the queue does not have is out of range, see [`OutOfRange`].
    Offset(QueueOffset),
    /// With the first message stored at this time or later.
    Time(Timestamp),
    /// The first message stored this long ago or later, by the broker's clock.
    Ago(Duration),
}

/// How far to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// For as long as the consumer lives.
    Forever,
    /// To where each queue ended when the consumer began with it.
    End,
    /// The same, and no further than to the first message stored at this time or later.
    Time(Timestamp),
    /// The same for what was stored this long ago or later, by the broker's clock.
    Ago(Duration),
}

/// Where to go on when the broker no longer has the offset that is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfRange {
    /// With the oldest message that is still there.
    First,
    /// After the newest message.
    Last,
    /// Nowhere: every poll fails.
    Fail,
}

/// How a consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// Where to start in a queue in which the group has no committed offset, or without a group.
    pub start: Start,
    /// How far to read.
    pub until: Until,
    /// Where to go on when the offset to be read is gone, or not there yet.
    pub out_of_range: OutOfRange,
    /// Bytes of batches that one fetch asks for at most; one batch comes whatever its size.
    pub fetch_bytes: u32,
    /// Messages that one fetch asks for at most; one batch comes whatever its size.
    pub fetch_records: u32,
    /// How long a fetch waits at the broker for a message; at most a minute counts.
    pub fetch_wait: Duration,
    /// A member of a group that is not heard of for this long loses its queues: one second to five minutes.
    pub session_timeout: Duration,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            start: Start::First,
            until: Until::Forever,
            out_of_range: OutOfRange::First,
            fetch_bytes: 1024 * 1024,
            fetch_records: u32::MAX,
            fetch_wait: Duration::from_secs(10),
            session_timeout: Duration::from_secs(10),
        }
    }
}
