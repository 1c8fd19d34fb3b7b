//! The index against plain vectors, with restarts that lose what came after a snapshot.

use std::collections::BTreeMap;
use std::path::Path;

use futures_lite::future::block_on;
use proptest::prelude::*;
use proptest::sample::Index as Pick;

use super::{DIRECTORY, small};
use crate::disk::memory::MemoryDisk;
use crate::index::{Index, IndexEntry, LookupMax, Snapshot, TrimProgress};
use crate::types::{LogPosition, QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};

const QUEUES: u32 = 5;

#[derive(Clone, Debug)]
enum Step {
    Append {
        queue: u32,
        count: u64,
        gap: u64,
        later: u64,
    },
    Lookup {
        queue: u32,
        offset: Pick,
        entries: usize,
        bytes: u64,
        records: u64,
    },
    FindTime {
        queue: u32,
        time: Pick,
    },
    AdvanceFirst {
        queue: u32,
        offset: Pick,
    },
    EnsureQueue {
        queue: u32,
    },
    EnsureQueueAt {
        queue: u32,
        offset: Pick,
    },
    Remove {
        queue: u32,
    },
    Spill,
    /// A sliced one goes on for a slice after each of the next steps.
    Snapshot {
        sliced: bool,
    },
    Trim {
        position: Pick,
    },
    /// A crash: what the log has up to `kept` is replayed, the rest is lost.
    Reopen {
        snapshot: bool,
        kept: Pick,
    },
    Verify,
}

fn steps() -> impl Strategy<Value = Step> {
    let queue = 0..QUEUES;
    let pick = any::<Pick>;
    prop_oneof![
        8 => (queue.clone(), 1..30_u64, prop_oneof![9 => Just(0_u64), 1 => 1..5_u64], 0..3_u64)
            .prop_map(|(queue, count, gap, later)| Step::Append { queue, count, gap, later }),
        6 => (queue.clone(), pick(), 0..20_usize, 0..3000_u64, 0..40_u64).prop_map(
            |(queue, offset, entries, bytes, records)| Step::Lookup { queue, offset, entries, bytes, records }
        ),
        3 => (queue.clone(), pick()).prop_map(|(queue, time)| Step::FindTime { queue, time }),
        1 => (queue.clone(), pick()).prop_map(|(queue, offset)| Step::AdvanceFirst { queue, offset }),
        1 => queue.clone().prop_map(|queue| Step::EnsureQueue { queue }),
        1 => (queue.clone(), pick()).prop_map(|(queue, offset)| Step::EnsureQueueAt { queue, offset }),
        1 => queue.prop_map(|queue| Step::Remove { queue }),
        4 => Just(Step::Spill),
        3 => any::<bool>().prop_map(|sliced| Step::Snapshot { sliced }),
        2 => pick().prop_map(|position| Step::Trim { position }),
        2 => (prop::bool::weighted(0.8), pick()).prop_map(|(snapshot, kept)| Step::Reopen { snapshot, kept }),
        1 => Just(Step::Verify),
    ]
}

/// What a queue should be.
#[derive(Clone, Debug, Default)]
struct Queue {
    first: u64,
    end: u64,
    entries: Vec<IndexEntry>,
}

type Queues = BTreeMap<QueueKey, Queue>;

fn append(queues: &mut Queues, key: QueueKey, entry: IndexEntry) {
    let queue = queues.entry(key).or_default();
    if queue.first == queue.end {
        queue.first = entry.base_offset.0;
    }
    queue.end = entry.end_offset().0;
    queue.entries.push(entry);
}

fn trim(queues: &mut Queues, position: LogPosition) {
    for queue in queues.values_mut() {
        let kept = queue.live().find(|entry| entry.position >= position).map(|entry| entry.base_offset.0);
        queue.first = queue.first.max(kept.unwrap_or(queue.end));
    }
}

impl Queue {
    fn live(&self) -> impl Iterator<Item = &IndexEntry> {
        self.entries.iter().filter(|entry| entry.end_offset().0 > self.first)
    }

    fn lookup(&self, offset: u64, max: LookupMax) -> Vec<IndexEntry> {
        let offset = offset.max(self.first);
        let mut found: Vec<IndexEntry> = Vec::new();
        let (mut bytes, mut records) = (0, 0);
        for entry in self.live().filter(|entry| entry.end_offset().0 > offset) {
            bytes += u64::from(entry.batch_bytes);
            let full = found.len() >= max.entries || bytes > max.bytes || records >= max.records;
            if full && !found.is_empty() {
                break;
            }
            records += entry.end_offset().0 - entry.base_offset.0.max(offset);
            found.push(*entry);
        }
        found
    }

    fn find_time(&self, time: Timestamp) -> u64 {
        let found = self.live().find(|entry| entry.store_time >= time);
        found.map_or(self.end, |entry| entry.base_offset.0.max(self.first))
    }
}

struct World {
    disk: MemoryDisk,
    index: Index<MemoryDisk>,
    epoch: u32,
    queues: Queues,
    log: Vec<(QueueKey, IndexEntry)>,
    log_start: LogPosition,
    time: u64,
    /// Topic of each queue. A removed queue comes back under a new one, because topic ids are never used again.
    topics: [u32; QUEUES as usize],
    /// The snapshot, the queues then, and how much of the log it covers.
    snapshot: Option<(Vec<u8>, Queues, usize)>,
    /// The snapshot under way.
    saving: Option<(Snapshot<MemoryDisk>, Queues, usize)>,
}

impl World {
    fn new() -> Self {
        let disk = MemoryDisk::new();
        let index = block_on(Index::open(disk.clone(), Path::new(DIRECTORY), small(1), None)).expect("open");
        Self {
            disk,
            index,
            epoch: 1,
            queues: Queues::new(),
            log: Vec::new(),
            log_start: LogPosition::ZERO,
            time: 0,
            topics: [1; QUEUES as usize],
            snapshot: None,
            saving: None,
        }
    }

    fn key(&self, queue: u32) -> QueueKey {
        QueueKey { topic: TopicId(self.topics[queue as usize]), queue: QueueNumber(queue) }
    }

    fn log_end(&self) -> u64 {
        self.log.last().map_or(self.log_start.0, |(_, entry)| entry.position.0 + 100).max(self.log_start.0)
    }

    /// A place a little before, in, or a little after 0..end.
    fn around(pick: Pick, end: u64) -> u64 {
        pick.index(end as usize + 5) as u64
    }

    fn queue(&self, key: QueueKey) -> Queue {
        self.queues.get(&key).cloned().unwrap_or_default()
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append { queue, count, gap, later } => self.append(queue, count, gap, later),
            Step::Lookup { queue, offset, entries, bytes, records } => {
                let model = self.queue(self.key(queue));
                let offset = Self::around(offset, model.end);
                let max = LookupMax { entries, bytes, records };
                let found =
                    block_on(self.index.lookup(self.key(queue), QueueOffset(offset), max)).expect("lookup");
                assert_eq!(found, model.lookup(offset, max), "{} from {offset}, {max:?}", self.key(queue));
            }
            Step::FindTime { queue, time } => {
                let time = Timestamp(Self::around(time, self.time));
                let found = block_on(self.index.find_time(self.key(queue), time)).expect("find");
                assert_eq!(
                    found.0,
                    self.queue(self.key(queue)).find_time(time),
                    "{} at {time}",
                    self.key(queue)
                );
            }
            Step::AdvanceFirst { queue, offset } => {
                let key = self.key(queue);
                let Some(model) = self.queues.get_mut(&key) else { return };
                let offset = Self::around(offset, model.end);
                model.first = model.first.max(offset.min(model.end));
                self.index.advance_first(self.key(queue), QueueOffset(offset));
            }
            Step::EnsureQueue { queue } => {
                self.queues.entry(self.key(queue)).or_default();
                self.index.ensure_queue(self.key(queue));
            }
            Step::EnsureQueueAt { queue, offset } => {
                let key = self.key(queue);
                let model = self.queues.entry(key).or_default();
                let offset = Self::around(offset, model.end);
                if model.end < offset {
                    (model.first, model.end) = (offset, offset);
                }
                self.index.ensure_queue_at(self.key(queue), QueueOffset(offset));
            }
            Step::Remove { queue } => {
                self.queues.remove(&self.key(queue));
                self.index.remove_queue(self.key(queue));
                self.topics[queue as usize] += 1;
            }
            Step::Spill => block_on(self.index.spill()).expect("spill"),
            Step::Snapshot { sliced } => {
                self.saving = None;
                self.saving = Some((self.index.begin_snapshot(), self.queues.clone(), self.log.len()));
                while !sliced && self.saving.is_some() {
                    self.snapshot_slice();
                }
            }
            Step::Trim { position } => {
                let between = (self.log_end() - self.log_start.0) as usize;
                self.log_start = self.log_start.advance(position.index(between + 1) as u64);
                self.trim();
            }
            Step::Reopen { snapshot, kept } => self.reopen(snapshot, kept),
            Step::Verify => {
                block_on(self.index.verify()).expect("a whole index");
            }
        }
    }

    fn snapshot_slice(&mut self) {
        let Some((saving, queues, covered)) = &mut self.saving else { return };
        if let Some(bytes) = saving.step(1) {
            self.snapshot = Some((bytes, std::mem::take(queues), *covered));
            self.saving = None;
            block_on(self.index.sync()).expect("sync");
        }
    }

    fn append(&mut self, queue: u32, count: u64, gap: u64, later: u64) {
        let key = self.key(queue);
        for number in 0..count {
            let (_, end) = self.index.bounds(key).unwrap_or_default();
            let record_count = (number % 3 + 1) as u32;
            let entry = IndexEntry {
                base_offset: end.advance(gap),
                record_count,
                position: LogPosition(self.log_end()),
                batch_bytes: record_count * 100,
                tag_summary: number as u32,
                store_time: Timestamp(self.time),
            };
            self.time += later;
            self.log.push((key, entry));
            append(&mut self.queues, key, entry);
            self.index.append(key, entry);
        }
    }

    fn trim(&mut self) {
        trim(&mut self.queues, self.log_start);
        let mut trim = self.index.trim(self.log_start);
        while block_on(trim.step(2)).expect("trim") == TrimProgress::More {}
    }

    fn reopen(&mut self, with_snapshot: bool, kept: Pick) {
        self.saving = None;
        block_on(self.index.close()).expect("close");
        assert_eq!(self.disk.open_files(), 0);
        self.epoch += 1;
        let (bytes, queues, covered) = match (&self.snapshot, with_snapshot) {
            (Some((bytes, queues, covered)), true) => (Some(&bytes[..]), queues.clone(), *covered),
            _ => (None, Queues::new(), 0),
        };
        let opened = Index::open(self.disk.clone(), Path::new(DIRECTORY), small(self.epoch), bytes);
        self.index = block_on(opened).expect("reopen");
        self.queues = queues;
        self.log.truncate(covered + kept.index(self.log.len() - covered + 1));
        self.trim();
        for (key, entry) in &self.log[covered..] {
            if entry.position >= self.log_start {
                append(&mut self.queues, *key, *entry);
                self.index.replay(*key, *entry).expect("the log follows the snapshot");
            }
        }
        if bytes_gone(&self.snapshot, covered) {
            self.snapshot = None;
        }
        self.check();
    }

    fn check(&self) {
        assert_eq!(self.index.queues(), self.queues.keys().copied().collect::<Vec<_>>());
        for (&key, queue) in &self.queues {
            let max = LookupMax { entries: usize::MAX, bytes: u64::MAX, records: u64::MAX };
            let found = block_on(self.index.lookup(key, QueueOffset::ZERO, max)).expect("lookup");
            assert_eq!(found, queue.lookup(0, max), "{key}");
            // A first offset in a gap means the same as the one after the gap.
            let (first, end) = self.index.bounds(key).expect("a queue");
            let after_gap = |first: u64| found.first().map_or(first, |entry| entry.base_offset.0.max(first));
            assert_eq!((after_gap(first.0), end.0), (after_gap(queue.first), queue.end), "{key}");
        }
        let verified = block_on(self.index.verify()).expect("a whole index");
        assert_eq!(verified.queues, self.queues.len() as u64);
    }
}

/// After a start without a snapshot, an older one refers to files that are gone.
fn bytes_gone(snapshot: &Option<(Vec<u8>, Queues, usize)>, covered: usize) -> bool {
    snapshot.as_ref().is_some_and(|(_, _, at)| *at != covered || covered == 0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_is_what_plain_vectors_are(steps in prop::collection::vec(steps(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
            world.snapshot_slice();
        }
        world.check();
    }
}
