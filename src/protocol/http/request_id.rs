//! The name of a request, in every answer's header `x-mq-request-id`: what a user quotes and a log can be searched for.

use std::cell::Cell;
use std::fmt;

use crate::types::{ShardId, Timestamp};

/// 24 upper-case hexadecimal digits: 48 bits of time, 16 of shard, 32 of a counter. Unique in a cluster as long as a
/// shard takes fewer than four billion requests in a millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    time: Timestamp,
    shard: ShardId,
    number: u32,
}

/// Numbers the requests of one shard. Nothing random, so that a test's requests have the same names each time.
pub struct RequestIds {
    shard: ShardId,
    next: Cell<u32>,
}

impl RequestIds {
    pub fn new(shard: ShardId) -> Self {
        Self { shard, next: Cell::new(0) }
    }

    pub fn next(&self, now: Timestamp) -> RequestId {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        RequestId { time: now, shard: self.shard, number }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.0 & ((1 << 48) - 1);
        write!(formatter, "{time:012X}{:04X}{:08X}", self.shard.0, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_have_one_form() {
        let ids = RequestIds::new(ShardId(255));
        let names: Vec<_> = (0..3).map(|_| ids.next(Timestamp(0x18C_0000_ABCD)).to_string()).collect();
        assert_eq!(names[0], "018C0000ABCD00FF00000000");
        assert_eq!(names[2], "018C0000ABCD00FF00000002");
        assert_eq!(ids.next(Timestamp(u64::MAX)).to_string(), "FFFFFFFFFFFF00FF00000003");
    }
}
