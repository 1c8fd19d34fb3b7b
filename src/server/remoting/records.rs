//! The messages of one answer to a pull, written as they are found.

use super::connection::Remoting;
use crate::broker::{Amount, StoredRecord, Taker};
use crate::protocol::remoting::call::pull::PullRequest;
use crate::protocol::remoting::message::{PlacedRecord, RecordTerms, RecordWriter};
use crate::types::QueueNumber;

/// Room that is made for the messages after the first one: they need not come.
const EXPECTED_BYTES_MAX: usize = 32 * 1024;

/// As many messages as an answer may have.
pub(super) struct Records<'a> {
    writer: RecordWriter<'a>,
    body: Vec<u8>,
    count: usize,
    missing: usize,
    bytes_max: usize,
}

impl<'a> Records<'a> {
    pub fn new(remoting: &'a Remoting, pull: &'a PullRequest, queue: QueueNumber) -> Self {
        let port = remoting.port();
        let shards = u32::from(remoting.connections.broker.options().shard_count);
        let terms = RecordTerms {
            topic: pull.topic.as_str(),
            queue: queue.0 / shards,
            store_host: port.store_host(),
            cluster: &port.node.cluster,
        };
        let (missing, bytes_max) = (pull.message_count, pull.bytes_max);
        let body = remoting.connection.outbox.take_spare();
        Self { writer: RecordWriter::new(terms), body, count: 0, missing, bytes_max }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How much it is.
    pub fn amount(&self) -> Amount {
        Amount { messages: self.count as u64, bytes: self.body.len() as u64 }
    }

    /// The messages, and how many they are.
    pub fn finish(self) -> (Vec<u8>, usize) {
        (self.body, self.count)
    }
}

impl Taker for Records<'_> {
    fn missing(&self) -> usize {
        self.missing
    }

    fn take(&mut self, stored: &StoredRecord<'_>) -> bool {
        let StoredRecord { offset, location, record, born_time, store_time } = *stored;
        let placed = PlacedRecord { record, offset, location, born_time, store_time };
        let start = self.body.len();
        self.writer.write(&placed, &mut self.body);
        // The first message is given whatever its size. What counts is what clients get: a message of another protocol is much
        // longer there than as it is stored.
        if self.count > 0 && self.body.len() > self.bytes_max {
            self.body.truncate(start);
            self.missing = 0;
            return false;
        }
        self.count += 1;
        self.missing -= 1;
        if self.count == 1 {
            // Messages of a queue are mostly of one size: what grows by doubling is copied once more.
            let rest = self.missing.saturating_mul(self.body.len());
            self.body.reserve(rest.min(EXPECTED_BYTES_MAX));
        }
        true
    }
}
