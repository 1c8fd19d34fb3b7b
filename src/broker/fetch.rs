//! Handing out stored batches.

use std::rc::Rc;
use std::time::Duration;

use super::queue::Queue;
use super::shard_broker::Broker;
use crate::api::{DamagedBytes, Failure, Fetch, Fetched, OffsetPlace, Status};
use crate::disk::{BufferSlice, Disk};
use crate::index::{IndexEntry, IndexError, LookupMax};
use crate::limits;
use crate::log::{Damage, Want};
use crate::types::{LogPosition, QueueKey, QueueOffset};
use crate::wire::batch::align_batch;

/// Batches looked up at once for one answer.
const ENTRIES_MAX: usize = 4096;

/// An answer whose batches may stay in the buffers that they were written from.
#[derive(Debug)]
pub struct TailFetched {
    /// Everything but the shared batches.
    pub head: Fetched,
    /// Put together, these are the answer's `batches`, unless it has some of its own.
    pub batches: Vec<BufferSlice>,
}

/// What a first look at a fetch found, without any I/O.
#[derive(Debug)]
pub enum FetchStep {
    /// The answer: from the tail cache, or empty because no wait was asked for.
    Ready(TailFetched),
    /// There is nothing yet, or the disk must be read: [`Broker::fetch`] does both.
    Later,
}

impl TailFetched {
    pub fn batch_bytes(&self) -> usize {
        self.batches.iter().map(|slice| slice.len()).sum()
    }
}

impl<D: Disk> Broker<D> {
    /// Answers a fetch when that takes no waiting.
    pub fn fetch_now(&self, fetch: &Fetch) -> Result<FetchStep, Failure> {
        let queue = self.queue(fetch.key)?;
        self.check_range(&queue, fetch.offset)?;
        if fetch.offset == queue.durable_end.get() {
            let nothing = fetch.wait.is_zero().then(|| TailFetched {
                head: self.fetched(&queue, Vec::new(), fetch.offset, None),
                batches: Vec::new(),
            });
            return Ok(nothing.map_or(FetchStep::Later, FetchStep::Ready));
        }
        let Some(entries) = self.index.lookup_in_memory(fetch.key, fetch.offset, lookup_max(fetch)) else {
            return Ok(FetchStep::Later);
        };
        let entries = self.visible(&queue, entries);
        if entries.first().is_some_and(|first| first.base_offset > fetch.offset) {
            return Ok(FetchStep::Later);
        }
        let Some(next) = entries.last().map(IndexEntry::end_offset) else { return Ok(FetchStep::Later) };
        let Some(batches) = self.log.share_tail(&wants(&entries)) else { return Ok(FetchStep::Later) };
        Ok(FetchStep::Ready(self.fetched_tail(&queue, fetch.offset, next, batches)))
    }

    /// The same as [`fetch_shared`](Broker::fetch_shared), with the batches copied together.
    pub async fn fetch(&self, fetch: Fetch) -> Result<Fetched, Failure> {
        let TailFetched { mut head, batches } = self.fetch_shared(fetch).await?;
        head.batches.reserve(batches.iter().map(|slice| slice.len()).sum());
        batches.iter().for_each(|slice| head.batches.extend_from_slice(slice));
        Ok(head)
    }

    /// Answers a fetch, waiting for a message as long as it asks and reading the disk as far as need be. Batches that
    /// were read are in `head`, those from the tail cache are shared: never both.
    pub async fn fetch_shared(&self, fetch: Fetch) -> Result<TailFetched, Failure> {
        let read = |head| TailFetched { head, batches: Vec::new() };
        let queue = self.queue(fetch.key)?;
        self.wait_for_message(&queue, &fetch).await?;
        loop {
            self.check_range(&queue, fetch.offset)?;
            if fetch.offset >= queue.durable_end.get() {
                return Ok(read(self.fetched(&queue, Vec::new(), fetch.offset, None)));
            }
            let entries = match self.index.lookup(fetch.key, fetch.offset, lookup_max(&fetch)).await {
                Ok(entries) => self.visible(&queue, entries),
                Err(error) => return Err(self.index_damaged(&error)),
            };
            let found = entries.first().copied();
            // The queue was longer than its index is: its last batches are damaged.
            let next = found.map_or(queue.durable_end.get(), |first| first.base_offset);
            let Some(first) = found.filter(|first| first.base_offset <= fetch.offset) else {
                let damaged = self.lost_bytes(&fetch, found.as_ref()).await;
                return Ok(read(self.fetched(&queue, Vec::new(), next, Some(damaged))));
            };
            let wants = wants(&entries);
            if let Some(batches) = self.log.share_tail(&wants) {
                let next = entries.last().map_or(next, IndexEntry::end_offset);
                return Ok(self.fetched_tail(&queue, fetch.offset, next, batches));
            }
            let mut batches = Vec::with_capacity(padded_bytes(&entries));
            let outcome = self.log.read(&wants, &mut batches).await;
            let outcome = outcome.map_err(|error| Failure::new(Status::StorageFailed, error.to_string()))?;
            if outcome.count > 0 {
                let next = entries[outcome.count - 1].end_offset();
                self.note_fetched(fetch.offset, next, batches.len());
                return Ok(read(self.fetched(&queue, batches, next, None)));
            }
            if let Some(damaged) = outcome.damaged {
                self.metrics.damaged_batches.add(1);
                return Ok(read(self.fetched(&queue, Vec::new(), first.end_offset(), Some(damaged))));
            }
            // Retention took the segment away between the look-up and the read; the queue's bounds follow in its own
            // step, so that the next check says so.
            self.index.advance_first(fetch.key, first.end_offset());
        }
    }

    /// Where the bytes stood that recovery has lost at this offset, in front of `next`: the damage that it met, or, when
    /// that was at an earlier start, the end of the batch before.
    async fn lost_bytes(&self, fetch: &Fetch, next: Option<&IndexEntry>) -> DamagedBytes {
        let before = match fetch.offset.0.checked_sub(1).map(QueueOffset) {
            Some(offset) => {
                let max = LookupMax { entries: 1, bytes: 0, records: 1 };
                let found = self.index.lookup(fetch.key, offset, max).await.unwrap_or_default();
                found.into_iter().find(|entry| entry.base_offset <= offset)
            }
            None => None,
        };
        let from =
            before.map(|entry| LogPosition(align_batch(entry.position.0 + u64::from(entry.batch_bytes))));
        let to = next.map_or(self.log.watermarks().durable_end(), |next| next.position);
        let between = |damage: &&Damage| from.is_none_or(|from| damage.place >= from) && damage.place < to;
        let met =
            if from.is_some() { self.damage.iter().find(between) } else { self.damage.iter().rfind(between) };
        let met = met.map(|damage| DamagedBytes { file: damage.file.clone(), position: damage.position });
        met.or_else(|| self.log.file_at(from.unwrap_or(to))).unwrap_or_else(|| DamagedBytes {
            file: self.options.directory.display().to_string(),
            position: 0,
        })
    }

    /// Waits until a fetch of this shard has something to return, or its time is up.
    pub async fn wait_for_fetch(&self, fetch: &Fetch) -> Result<(), Failure> {
        let queue = self.queue(fetch.key)?;
        self.wait_for_message(&queue, fetch).await
    }

    /// Translates a place in a queue into an offset.
    pub(super) async fn find_offset(
        &self,
        key: QueueKey,
        place: OffsetPlace,
    ) -> Result<QueueOffset, Failure> {
        let queue = self.queue(key)?;
        let (first, _) = self.bounds(&queue);
        match place {
            OffsetPlace::First => Ok(first),
            OffsetPlace::Last => Ok(queue.durable_end.get()),
            OffsetPlace::Time(time) => {
                let found = self.index.find_time(key, time).await;
                found.map_err(|error| self.index_damaged(&error))
            }
        }
    }

    /// First offset and end, as readers see them.
    pub(super) fn bounds(&self, queue: &Queue) -> (QueueOffset, QueueOffset) {
        let end = queue.durable_end.get();
        let first = self.index.bounds(queue.key).map_or(end, |(first, _)| first);
        (first.min(end), end)
    }

    fn check_range(&self, queue: &Queue, offset: QueueOffset) -> Result<(), Failure> {
        if queue.deleted.get() {
            return Err(Failure::new(Status::TopicNotExist, "the topic was deleted"));
        }
        let (first, end) = self.bounds(queue);
        if (first..=end).contains(&offset) {
            return Ok(());
        }
        Err(Failure::new(
            Status::OffsetOutOfRange,
            format!("offset {offset} of {} is outside {first} to {end}", queue.key),
        ))
    }

    /// Waits until there is a message at the fetch's offset, or its time is up.
    async fn wait_for_message(&self, queue: &Rc<Queue>, fetch: &Fetch) -> Result<(), Failure> {
        let is_there = || queue.deleted.get() || queue.durable_end.get() > fetch.offset;
        if is_there() || fetch.wait.is_zero() {
            return Ok(());
        }
        self.check_range(queue, fetch.offset)?;
        self.metrics.fetches_waited.add(1);
        let wait = fetch.wait.min(Duration::from_millis(u64::from(limits::FETCH_WAIT_MS_MAX)));
        let arrived = async {
            while !is_there() {
                queue.waiters.changed().await;
            }
        };
        futures_lite::future::or(arrived, self.clock.sleep(wait)).await;
        Ok(())
    }

    /// Drops entries that readers must not see yet (the index holds durable ones only, so this is a check), and those
    /// behind a gap that damage has left: the next fetch begins there and says so.
    fn visible(&self, queue: &Queue, mut entries: Vec<IndexEntry>) -> Vec<IndexEntry> {
        let end = queue.durable_end.get();
        entries.retain(|entry| entry.end_offset() <= end);
        let gap = entries.windows(2).position(|pair| pair[0].end_offset() != pair[1].base_offset);
        entries.truncate(gap.map_or(entries.len(), |before| before + 1));
        entries
    }

    fn note_fetched(&self, from: QueueOffset, next: QueueOffset, bytes: usize) {
        self.metrics.messages_fetched.add(next.0 - from.0);
        self.metrics.bytes_fetched.add(bytes as u64);
    }

    fn fetched_tail(
        &self,
        queue: &Queue,
        from: QueueOffset,
        next: QueueOffset,
        batches: Vec<BufferSlice>,
    ) -> TailFetched {
        let answer = TailFetched { head: self.fetched(queue, Vec::new(), next, None), batches };
        self.note_fetched(from, next, answer.batch_bytes());
        answer
    }

    fn fetched(
        &self,
        queue: &Queue,
        batches: Vec<u8>,
        next_offset: QueueOffset,
        damaged: Option<DamagedBytes>,
    ) -> Fetched {
        let (first_offset, end_offset) = self.bounds(queue);
        Fetched { batches, next_offset, first_offset, end_offset, damaged }
    }

    /// A block of the index cannot be read: the index is built anew at the next start, and the operator is told.
    pub(super) fn index_damaged(&self, error: &IndexError) -> Failure {
        let reason = error.to_string();
        self.index_failed.borrow_mut().get_or_insert_with(|| reason.clone());
        Failure::new(Status::StorageFailed, format!("{reason}; restart the broker to build the index anew"))
    }
}

fn lookup_max(fetch: &Fetch) -> LookupMax {
    LookupMax {
        entries: ENTRIES_MAX,
        bytes: u64::from(fetch.bytes_max).min(limits::FETCH_BYTES_MAX as u64),
        records: u64::from(fetch.records_max.max(1)),
    }
}

fn wants(entries: &[IndexEntry]) -> Vec<Want> {
    entries.iter().map(|entry| Want { position: entry.position, batch_bytes: entry.batch_bytes }).collect()
}

/// What the batches take in an answer.
fn padded_bytes(entries: &[IndexEntry]) -> usize {
    entries.iter().map(|entry| align_batch(u64::from(entry.batch_bytes)) as usize).sum()
}
