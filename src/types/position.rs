//! Positions in a queue and in a log.

use std::fmt;

/// Dense number of a message within its queue, starting at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueOffset(pub u64);

/// Byte position in a shard's commit log. Positions only grow, over all segments and restarts. RocketMQ says physical
/// offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub u64);

impl QueueOffset {
    pub const ZERO: QueueOffset = QueueOffset(0);

    pub fn advance(self, count: u64) -> QueueOffset {
        QueueOffset(self.0 + count)
    }
}

impl LogPosition {
    pub const ZERO: LogPosition = LogPosition(0);

    pub fn advance(self, bytes: u64) -> LogPosition {
        LogPosition(self.0 + bytes)
    }

    /// Bytes from `earlier` to here.
    pub fn since(self, earlier: LogPosition) -> u64 {
        assert!(earlier <= self, "position {earlier} lies after {self}");
        self.0 - earlier.0
    }
}

impl fmt::Display for QueueOffset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
