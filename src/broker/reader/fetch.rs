//! Handing out stored batches.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::batches::want;
use super::waits::WaitFor;
use crate::api::{DamagedBytes, Failure, Fetch, Fetched, Status};
use crate::broker::queue::Queue;
use crate::broker::shard_broker::Broker;
use crate::disk::{BufferSlice, Disk};
use crate::index::{IndexEntry, LookupMax};
use crate::limits;
use crate::log::{Damage, ReadOutcome, Want};
use crate::types::{LogPosition, QueueKey, QueueOffset};
use crate::wire::batch::align_batch;

/// Batches looked up at once for one answer.
const ENTRIES_MAX: usize = 4096;

/// An answer whose batches stay in the buffers that they were written from or read into. One of another shard has them in its
/// `head`.
#[derive(Debug)]
pub struct SharedFetched {
    /// Everything but the shared batches.
    pub head: Fetched,
    /// Put together, these are the answer's `batches`.
    pub batches: Vec<BufferSlice>,
    /// Whether some of them had to be read.
    pub from_disk: bool,
}

/// What a first look at a fetch found, without any I/O.
#[derive(Debug)]
pub(super) enum FetchStep {
    /// The answer: from the tail cache, or empty because no wait was asked for.
    Ready(SharedFetched),
    /// There is nothing yet, or the disk must be read.
    Later,
}

impl SharedFetched {
    pub fn batch_bytes(&self) -> usize {
        self.batches.iter().map(|slice| slice.len()).sum()
    }
}

impl<D: Disk> Broker<D> {
    /// Answers a fetch when that takes no waiting.
    pub(super) fn fetch_now(&self, fetch: &Fetch) -> Result<FetchStep, Failure> {
        let queue = self.queue(fetch.key)?;
        self.check_reader(fetch)?;
        self.check_range(&queue, fetch.offset)?;
        if fetch.offset == queue.durable_end.get() {
            let nothing = fetch.wait.is_zero().then(|| SharedFetched {
                head: self.fetched(&queue, Vec::new(), fetch.offset, None),
                batches: Vec::new(),
                from_disk: false,
            });
            return Ok(nothing.map_or(FetchStep::Later, FetchStep::Ready));
        }
        let Some(entries) = self.entries_in_memory(fetch.key, fetch.offset, lookup_max(fetch)) else {
            return Ok(FetchStep::Later);
        };
        let entries = self.visible(&queue, entries);
        if entries.first().is_some_and(|first| first.base_offset > fetch.offset) {
            return Ok(FetchStep::Later);
        }
        let Some(next) = entries.last().map(IndexEntry::end_offset) else { return Ok(FetchStep::Later) };
        let Some(batches) = self.log.share_tail(&wants(&entries)) else { return Ok(FetchStep::Later) };
        let head = self.fetched(&queue, Vec::new(), next, None);
        let fetched = SharedFetched { head, batches, from_disk: false };
        self.note_fetched(&queue, fetch, &fetched);
        Ok(FetchStep::Ready(fetched))
    }

    /// `fetch_shared`, with the batches copied together.
    pub async fn fetch(&self, fetch: Fetch) -> Result<Fetched, Failure> {
        let SharedFetched { mut head, batches, .. } = self.fetch_shared(fetch).await?;
        head.batches.reserve(batches.iter().map(|slice| slice.len()).sum());
        batches.iter().for_each(|slice| head.batches.extend_from_slice(slice));
        Ok(head)
    }

    /// Answers a fetch, waiting for a message as long as it asks and reading the disk as far as need be.
    pub(super) async fn fetch_shared(&self, fetch: Fetch) -> Result<SharedFetched, Failure> {
        let fetched = self.fetch_ahead(&fetch).await?;
        if let Ok(queue) = self.queue(fetch.key) {
            self.note_fetched(&queue, &fetch, &fetched);
        }
        Ok(fetched)
    }

    /// Answers a fetch with what was read ahead of it.
    pub(super) fn take_ahead(
        &self,
        fetch: &Fetch,
        mut fetched: SharedFetched,
    ) -> Result<SharedFetched, Failure> {
        let queue = self.queue(fetch.key)?;
        self.check_reader(fetch)?;
        self.check_range(&queue, fetch.offset)?;
        (fetched.head.first_offset, fetched.head.end_offset) = self.bounds(&queue);
        self.note_fetched(&queue, fetch, &fetched);
        Ok(fetched)
    }

    /// Reads what answers a fetch that has not come yet: [`take_ahead`](Broker::take_ahead) follows when it does.
    pub(super) async fn fetch_ahead(&self, fetch: &Fetch) -> Result<SharedFetched, Failure> {
        let empty = |head| SharedFetched { head, batches: Vec::new(), from_disk: true };
        let queue = self.queue(fetch.key)?;
        self.wait_for_message(&queue, fetch).await?;
        loop {
            // The queue may have been given to somebody else during a wait.
            self.check_reader(fetch)?;
            self.check_range(&queue, fetch.offset)?;
            if fetch.offset >= queue.durable_end.get() {
                return Ok(empty(self.fetched(&queue, Vec::new(), fetch.offset, None)));
            }
            let entries = self.entries(fetch.key, fetch.offset, lookup_max(fetch)).await?;
            let entries = self.visible(&queue, entries);
            let found = entries.first().copied();
            // The queue was longer than its index is: its last batches are damaged.
            let next = found.map_or(queue.durable_end.get(), |first| first.base_offset);
            let Some(first) = found.filter(|first| first.base_offset <= fetch.offset) else {
                let damaged = self.lost_bytes(fetch.key, fetch.offset, found.as_ref()).await;
                self.note_damage(&damaged, Some(fetch.key));
                return Ok(empty(self.fetched(&queue, Vec::new(), next, Some(damaged))));
            };
            let wants = wants(&entries);
            let in_memory = self.log.share_tail(&wants);
            let from_disk = in_memory.is_none();
            let (batches, outcome) = match in_memory {
                Some(batches) => (batches, ReadOutcome { count: wants.len(), damaged: None }),
                None => {
                    let read = self.log.read_shared(&wants).await;
                    read.map_err(|error| self.read_failed(&error))?
                }
            };
            if outcome.count > 0 {
                let next = entries[outcome.count - 1].end_offset();
                let head = self.fetched(&queue, Vec::new(), next, None);
                return Ok(SharedFetched { head, batches, from_disk });
            }
            if let Some(damaged) = outcome.damaged {
                self.note_damage(&damaged, Some(fetch.key));
                let next = self.offset_after_damage(&queue, &first).await;
                return Ok(empty(self.fetched(&queue, Vec::new(), next, Some(damaged))));
            }
            // Retention took the segment away between the look-up and the read. It has moved the queue's first offset
            // before; if that did not reach as far, the next check says so all the same.
            assert!(first.position < self.log.first_position(), "{first:?} is neither there nor gone");
            self.index.advance_first(fetch.key, first.end_offset());
        }
    }

    /// Where a reader goes on that cannot have the batch of `entry`: the next one, or the first after the hole in which
    /// it lies.
    async fn offset_after_damage(&self, queue: &Queue, entry: &IndexEntry) -> QueueOffset {
        let Some(hole) = self.log.hole_at(entry.position) else { return entry.end_offset() };
        // An index that cannot be read says so at the next fetch.
        let after = self.offset_of_position(queue.key, hole.end).await;
        after.clamp(entry.end_offset(), queue.durable_end.get())
    }

    /// Where the bytes stood that recovery has lost at this offset, in front of `next`: the damage that it met, or, when
    /// that was at an earlier start, the end of the batch before.
    pub(super) async fn lost_bytes(
        &self,
        key: QueueKey,
        offset: QueueOffset,
        next: Option<&IndexEntry>,
    ) -> DamagedBytes {
        let before = match offset.0.checked_sub(1).map(QueueOffset) {
            Some(offset) => self.entry_at(key, offset).await.unwrap_or_default(),
            None => None,
        };
        let from =
            before.map(|entry| LogPosition(align_batch(entry.position.0 + u64::from(entry.batch_bytes))));
        let to = next.map_or(self.log.watermarks().durable_end(), |next| next.position);
        let between = |damage: &&Damage| {
            from.is_none_or(|from| damage.log_position >= from) && damage.log_position < to
        };
        let met =
            if from.is_some() { self.damage.iter().find(between) } else { self.damage.iter().rfind(between) };
        let met = met.map(|damage| DamagedBytes { file: damage.file.clone(), position: damage.position });
        let hole = || {
            let hole = self.log.hole_between(from.unwrap_or_default(), to)?;
            Some(DamagedBytes { file: hole.file.display().to_string(), position: 0 })
        };
        met.or_else(hole).or_else(|| self.log.file_at(from.unwrap_or(to))).unwrap_or_else(|| DamagedBytes {
            file: self.options.directory.display().to_string(),
            position: 0,
        })
    }

    /// The queue that a fetch of this shard has to wait for; `None` when it has something to return, or is not to wait.
    pub(super) fn queue_to_wait_for(&self, fetch: &Fetch) -> Result<Option<Rc<Queue>>, Failure> {
        let queue = self.queue(fetch.key)?;
        self.check_reader(fetch)?;
        self.check_range(&queue, fetch.offset)?;
        let waits = queue.durable_end.get() == fetch.offset && !fetch.wait.is_zero();
        Ok(waits.then_some(queue))
    }

    /// Waits until a fetch of this shard has something to return, or its time is up.
    pub(super) async fn wait_for_fetch(&self, fetch: &Fetch) -> Result<(), Failure> {
        let queue = self.queue(fetch.key)?;
        self.wait_for_message(&queue, fetch).await
    }

    /// A member reads a queue while it holds it, and whoever is no member always: as far as the topic may be read.
    fn check_reader(&self, fetch: &Fetch) -> Result<(), Failure> {
        self.check_readable(fetch.key.topic)?;
        if fetch.session == 0 {
            return Ok(());
        }
        self.gates.borrow().check_session(fetch.session, fetch.key, |key| self.queue_text(key))
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
            format!("offset {offset} of {} is outside {first} to {end}", self.queue_text(queue.key)),
        ))
    }

    /// Waits until there is a message at the fetch's offset, or its time is up.
    async fn wait_for_message(&self, queue: &Rc<Queue>, fetch: &Fetch) -> Result<(), Failure> {
        self.check_reader(fetch)?;
        let is_there = || queue.deleted.get() || queue.durable_end.get() > fetch.offset;
        if is_there() || fetch.wait.is_zero() {
            return Ok(());
        }
        self.check_range(queue, fetch.offset)?;
        self.metrics.fetches_waited.add(1);
        let wait = fetch.wait.min(Duration::from_millis(u64::from(limits::FETCH_WAIT_MS_MAX)));
        let arrived = async {
            while !is_there() {
                queue.waits.wait(queue.waits.changes(), WaitFor::from(fetch.offset)).await;
            }
        };
        futures_lite::future::or(arrived, self.clock.sleep(wait)).await;
        Ok(())
    }

    /// Drops entries that readers must not see yet (the index holds durable ones only, so this is a check), and those
    /// after a gap that damage has left: the next fetch begins there and says so.
    fn visible(&self, queue: &Queue, mut entries: Vec<IndexEntry>) -> Vec<IndexEntry> {
        let end = queue.durable_end.get();
        entries.retain(|entry| entry.end_offset() <= end);
        let gap = entries.windows(2).position(|pair| pair[0].end_offset() != pair[1].base_offset);
        entries.truncate(gap.map_or(entries.len(), |before| before + 1));
        entries
    }

    fn note_fetched(&self, queue: &Queue, fetch: &Fetch, fetched: &SharedFetched) {
        // What damage has taken was not fetched.
        if fetched.batches.is_empty() {
            return;
        }
        let messages = fetched.head.next_offset.0 - fetch.offset.0;
        let bytes = fetched.batch_bytes() as u64;
        self.metrics.messages_fetched.add(messages);
        self.metrics.bytes_fetched.add(bytes);
        queue.traffic.note_given(messages, bytes);
        let (gates, mut tallies) = (self.gates.borrow(), self.metrics.tallies.borrow_mut());
        tallies.given(gates.group_of(fetch.session), queue.key.topic, messages, bytes);
    }

    /// Names the file as it is called within the data directory: where that is, is for the operator to know.
    fn within_data_directory(&self, damaged: DamagedBytes) -> DamagedBytes {
        let data = self.options.directory.parent().unwrap_or(&self.options.directory);
        let file = Path::new(&damaged.file);
        let named = file.strip_prefix(data).ok().or_else(|| file.file_name().map(Path::new));
        let file = named.map_or_else(String::new, |named| named.display().to_string());
        DamagedBytes { file, ..damaged }
    }

    fn fetched(
        &self,
        queue: &Queue,
        batches: Vec<u8>,
        next_offset: QueueOffset,
        damaged: Option<DamagedBytes>,
    ) -> Fetched {
        let (first_offset, end_offset) = self.bounds(queue);
        let damaged = damaged.map(|damaged| self.within_data_directory(damaged));
        Fetched { batches, next_offset, first_offset, end_offset, damaged }
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
    entries.iter().map(want).collect()
}
