//! What waits for its time, as a list: for whoever wants to see it, or to take some of it back.

use crate::api::{DelayedMessage, DelayedMessages, DelayedPlace, Failure, ListDelayed};
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::index::IndexEntry;
use crate::limits;
use crate::state::{Half, TimerKey, bucket_of, timer_key_of};
use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};
use crate::wire::batch::{BatchHeader, stored_born_time, stored_records};

use super::timers::{STEP_PAUSE, is_bucket, lookup_max};

/// Delayed messages looked into at once, and by one request.
const STEP_MESSAGES: usize = 32;
const SCANNED_MAX: usize = 2_048;

/// What one request has found so far.
struct Page {
    topic: TopicId,
    found: DelayedMessages,
    bytes: usize,
    scanned: usize,
}

impl Page {
    /// Whether another one is for the next request.
    fn is_full(&self) -> bool {
        self.found.messages.len() >= limits::DELAYED_TOLD_MAX
            || self.bytes >= limits::BATCH_BYTES_MAX
            || self.scanned >= SCANNED_MAX
    }

    /// Takes the message of a batch, if it is the topic's.
    fn take(&mut self, due: Timestamp, position: LogPosition, bytes: &[u8]) {
        self.scanned += 1;
        let Ok(header) = BatchHeader::decode(bytes) else { return };
        let Some(record) = stored_records(bytes).next().filter(|_| header.key.topic == self.topic) else {
            return;
        };
        let record = bytes::Bytes::copy_from_slice(record.as_bytes());
        self.bytes += record.len();
        self.found.messages.push(DelayedMessage {
            key: header.key,
            position,
            due,
            record,
            born_time: stored_born_time(bytes),
            store_time: header.store_time,
        });
    }
}

impl<D: Disk> Broker<D> {
    /// Some of the messages of a topic on this shard that wait for their time, and where to go on.
    pub(in crate::broker) async fn list_delayed(
        &self,
        list: &ListDelayed,
    ) -> Result<DelayedMessages, Failure> {
        if list.shard != self.options.shard {
            let (shard, count) = (list.shard, self.options.shard_count);
            return Err(Failure::invalid(format_args!("there is no shard {shard}: this broker has {count}")));
        }
        let topic = self.topic_by_name(&list.topic)?.id;
        let mut page = Page { topic, found: DelayedMessages::default(), bytes: 0, scanned: 0 };
        let (mut bucket, mut offset) = match list.from {
            Some(DelayedPlace { bucket, offset }) => (bucket_key(bucket), QueueOffset(offset)),
            None => {
                self.list_delayed_aside(&mut page).await?;
                (bucket_of(self.held().delays.releasing().due), QueueOffset::ZERO)
            }
        };
        while let Some(next) = self.index.next_queue(bucket).filter(is_bucket) {
            if next != bucket {
                (bucket, offset) = (next, QueueOffset::ZERO);
            }
            if page.is_full() {
                page.found.next = Some(DelayedPlace { bucket: bucket.queue.0, offset: offset.0 });
                break;
            }
            let entries = self.entries(bucket, offset, lookup_max(STEP_MESSAGES)).await?;
            match entries.last() {
                Some(last) => {
                    offset = last.end_offset();
                    self.list_delayed_of(&entries, bucket, &mut page).await?;
                }
                None => match bucket.queue.0.checked_add(1) {
                    Some(number) => (bucket, offset) = (bucket_key(number), QueueOffset::ZERO),
                    None => break,
                },
            }
            self.clock.sleep(STEP_PAUSE).await;
        }
        Ok(page.found)
    }

    async fn list_delayed_of(
        &self,
        entries: &[IndexEntry],
        bucket: QueueKey,
        page: &mut Page,
    ) -> Result<(), Failure> {
        let timers: Vec<_> = {
            let held = self.held();
            let timer = |entry: &IndexEntry| {
                let timer = timer_key_of(bucket, entry.position, entry.tag_summary);
                let waits = held.delays.is_pending(timer) && !held.delays.is_recalled(timer);
                waits.then_some((timer, entry.batch_bytes))
            };
            entries.iter().filter_map(timer).collect()
        };
        let wanted: Vec<_> = timers.iter().map(|(timer, bytes)| (timer.position, *bytes)).collect();
        let batches = self.batches_at(&wanted).await?;
        for ((TimerKey { due, position }, _), bytes) in timers.into_iter().zip(batches) {
            if let Some(bytes) = bytes {
                page.take(due, position, &bytes);
            }
        }
        Ok(())
    }

    /// Those whose time lies before that of messages which were released already.
    async fn list_delayed_aside(&self, page: &mut Page) -> Result<(), Failure> {
        let halves: Vec<Half> = {
            let held = self.held();
            let of_topic = |half: &&Half| half.waits_for_its_time() && half.key.topic == page.topic;
            held.halves.stored().filter(of_topic).take(limits::DELAYED_TOLD_MAX).cloned().collect()
        };
        let wanted: Vec<_> = halves.iter().map(|half| (half.current, half.batch_bytes)).collect();
        let batches = self.batches_at(&wanted).await?;
        for (half, bytes) in halves.iter().zip(batches) {
            if let Some(bytes) = bytes {
                page.take(self.steady.on_the_wall(half.next_check), half.position, &bytes);
            }
        }
        Ok(())
    }
}

fn bucket_key(number: u32) -> QueueKey {
    QueueKey { topic: TopicId::DELAYED, queue: QueueNumber(number) }
}
