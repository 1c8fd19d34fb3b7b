//! What a consumer shows to acknowledge a leased message.

use super::identity::QueueKey;
use super::position::{LogPosition, QueueOffset};
use super::time::Timestamp;

/// One delivery of one message to one group. RocketMQ's POP handles carry the same facts
/// (`remoting/.../header/ExtraInfoUtil.java`): the time of delivery tells the deliveries of a message apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt {
    pub key: QueueKey,
    pub offset: QueueOffset,
    /// When it was delivered. Later deliveries of the same message to the same group have later times.
    pub leased_at: Timestamp,
    /// It may be delivered again from here on, and this receipt is worth nothing any more.
    pub lease_until: Timestamp,
}

/// One hand-out of a half message to its producers, who decide on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HalfReceipt {
    /// The queue that gets the message when it is committed.
    pub key: QueueKey,
    /// Where the half message was first stored, in the log of the queue's shard.
    pub position: LogPosition,
}
