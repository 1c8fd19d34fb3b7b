//! Pre-encoded produce requests: a batch is built once per connection, and every send changes only what differs.
//!
//! Building a batch of 500 messages costs more than sending it. Stamping one costs a few nanoseconds per message and a
//! CRC32C over the batch, which is what lets one core generate more than ten million messages a second.

use crate::api::Failure;
use crate::cli::bench::message::{Head, RunId, StreamId, blank_body, stamp};
use crate::protocol::native::RequestEncoder;
use crate::types::{Level, QueueKey, Timestamp};
use crate::wire::batch::{BATCH_HEADER_BYTES, BatchBuilder, reseal};
use crate::wire::bytes::put_u64;
use crate::wire::record::{RECORD_HEADER_BYTES, Record};

/// Where a frame's correlation stands (see `wire::frame`).
const CORRELATION: usize = 8;

/// Sizes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    pub body_bytes: usize,
    pub batch_messages: u32,
}

/// A batch with room for the largest frame head in front of it.
pub struct BatchFrame {
    run: RunId,
    shape: BatchShape,
    /// `head_room` bytes, then the batch.
    bytes: Vec<u8>,
    head_room: usize,
}

/// Frame header and envelope of produce requests to one queue.
pub struct FrameHead {
    stream: StreamId,
    bytes: Vec<u8>,
}

/// What one send says.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    pub correlation: u64,
    /// Of the batch's first message.
    pub sequence: u64,
    pub due_ns: u64,
    pub born_time: Timestamp,
}

impl BatchShape {
    fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.body_bytes
    }

    /// A batch as it is sent and stored.
    pub fn batch_bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.batch_messages as usize * self.record_bytes()
    }
}

impl FrameHead {
    /// The head of requests that append batches of `shape` to `key` as `stream`.
    pub fn new(
        encoder: &mut RequestEncoder,
        key: QueueKey,
        stream: StreamId,
        level: Option<Level>,
        shape: BatchShape,
    ) -> Result<Self, Failure> {
        let mut bytes = Vec::new();
        encoder.begin_produce(&mut bytes, 0, key, level, shape.batch_bytes())?;
        Ok(Self { stream, bytes })
    }
}

impl BatchFrame {
    /// A batch of `shape` that any of `heads` can be put before.
    pub fn new<'a>(run: RunId, shape: BatchShape, heads: impl IntoIterator<Item = &'a FrameHead>) -> Self {
        let mut builder = BatchBuilder::new(Timestamp(0));
        let body = blank_body(run, shape.body_bytes);
        for _ in 0..shape.batch_messages {
            builder.push(&Record { body: &body, ..Record::default() });
        }
        let head_room = heads.into_iter().map(|head| head.bytes.len()).max().unwrap_or(0);
        let mut bytes = vec![0; head_room];
        bytes.extend_from_slice(&builder.finish());
        assert_eq!(bytes.len(), head_room + shape.batch_bytes(), "every record has the same size");
        Self { run, shape, bytes, head_room }
    }

    /// Makes the request anew and returns where it stands in [`bytes`](BatchFrame::bytes).
    pub fn restamp(&mut self, head: &FrameHead, stamped: Stamp) -> std::ops::Range<usize> {
        let start = self.head_room - head.bytes.len();
        self.bytes[start..self.head_room].copy_from_slice(&head.bytes);
        put_u64(&mut self.bytes, start + CORRELATION, stamped.correlation);
        let batch = &mut self.bytes[self.head_room..];
        let records = &mut batch[BATCH_HEADER_BYTES..];
        let mut message =
            Head { run: self.run, stream: head.stream, sequence: stamped.sequence, due_ns: stamped.due_ns };
        for record in records.chunks_exact_mut(self.shape.record_bytes()) {
            stamp(&mut record[RECORD_HEADER_BYTES..], &message);
            message.sequence += 1;
        }
        reseal(batch, stamped.born_time);
        start..self.bytes.len()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::message::{FillerCheck, Reading};
    use crate::protocol::native::{DecodedRequest, decode_request};
    use crate::types::{QueueNumber, TopicId};
    use crate::wire::batch::CheckedBatch;
    use crate::wire::frame;

    #[test]
    fn every_stamped_frame_is_a_valid_request() {
        let shape = BatchShape { body_bytes: 100, batch_messages: 3 };
        let mut encoder = RequestEncoder::new();
        // Queue 0 is left out of the envelope as a default value, so the two heads differ in length.
        let keys = [0, 70_000].map(|queue| QueueKey { topic: TopicId(5), queue: QueueNumber(queue) });
        let heads = [0, 1].map(|index| {
            let stream = StreamId(index as u32);
            FrameHead::new(&mut encoder, keys[index], stream, Some(Level::Written), shape).expect("small")
        });
        let mut batch_frame = BatchFrame::new(RunId(9), shape, &heads);
        for (correlation, index) in [(10, 0), (11, 1), (12, 0)] {
            let stamped =
                Stamp { correlation, sequence: correlation * 3, due_ns: 77, born_time: Timestamp(8) };
            let range = batch_frame.restamp(&heads[index], stamped);
            let cut = frame::cut(&batch_frame.bytes()[range]).expect("well formed").expect("whole");
            assert_eq!(cut.correlation, correlation);
            let request = decode_request(&cut).expect("well formed");
            let DecodedRequest::Produce { key, level, batch } = request else { panic!("a produce request") };
            assert_eq!((key, level), (keys[index], Some(Level::Written)));
            let checked = CheckedBatch::check(batch).expect("sealed");
            assert_eq!(checked.record_count(), 3);
            let mut check = FillerCheck::default();
            for (number, record) in checked.records().enumerate() {
                let head = Head {
                    run: RunId(9),
                    stream: StreamId(index as u32),
                    sequence: correlation * 3 + number as u64,
                    due_ns: 77,
                };
                assert_eq!(check.read(record.body()), Reading::Message(head));
            }
        }
    }
}
