//! The pass over the log that everything else is held against.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;

use super::checked::Finding;
use crate::broker::apply::entry_of_header;
use crate::broker::find::keys_of;
use crate::broker::open::StartError;
use crate::broker::upkeep::Snapshot;
use crate::disk::{Disk, DiskError};
use crate::index::keys::KeyCheck;
use crate::index::{Index, IndexEntry, LookupMax};
use crate::log::{Lost, Replay, SEGMENT_HEADER_BYTES};
use crate::state::{Change, Effect, Stage, State, decode_changes, timer_key_of};
use crate::types::{LogPosition, QueueKey, QueueOffset, TopicId};
use crate::wire::batch::{BatchHeader, Kind, state_payload};

/// Entries of the index looked up at once for a queue.
const LOOKUP_ENTRIES: usize = 128;
/// Contradictions of the index that are told; from then on it is not looked at.
const MISMATCHES_MAX: usize = 8;

/// Messages that a queue lacks, between two places of the log.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Gap {
    pub from: LogPosition,
    pub to: LogPosition,
    pub messages: u64,
}

/// What a queue has shown so far.
#[derive(Default)]
struct Seen {
    /// The first offset that its next batch should have; `None` before the first batch.
    next: Option<QueueOffset>,
    /// Position of its last batch in the log.
    position: LogPosition,
    /// Entries of the index that come next.
    entries: VecDeque<IndexEntry>,
    /// The offset from which those after them are looked up.
    entries_end: QueueOffset,
}

/// What the pass has found.
pub(in crate::broker) struct Passed {
    pub messages: u64,
    pub gaps: Vec<Gap>,
    pub derived: Vec<Finding>,
    /// Where each queue ends.
    pub ends: BTreeMap<QueueKey, QueueOffset>,
}

pub(in crate::broker) struct LogPass<'a, D: Disk> {
    /// `None` when there is none that can be read.
    index: Option<&'a Index<D>>,
    index_directory: std::path::PathBuf,
    /// Index and snapshot know of everything before.
    saved_to: LogPosition,
    /// What the snapshot says, with what the log has after it: what the log alone has forgotten is in here. `None` without
    /// a snapshot.
    known: Option<State>,
    keys: KeyCheck<D>,
    progress: &'a dyn Fn(u64),
    read_to: u64,
    state: State,
    noted_ends: BTreeMap<QueueKey, QueueOffset>,
    queues: HashMap<QueueKey, Seen>,
    /// Batches that were not held against the index yet.
    pending: Vec<(QueueKey, IndexEntry)>,
    /// Positions of held messages, in order.
    held: Vec<LogPosition>,
    /// Whether the log begins with the shard's first message; `None` before it has begun.
    has_beginning: Option<bool>,
    messages: u64,
    gaps: Vec<Gap>,
    derived: Vec<Finding>,
}

impl<'a, D: Disk> LogPass<'a, D> {
    pub fn new(
        keys: KeyCheck<D>,
        directory: &Path,
        index: Option<&'a Index<D>>,
        snapshot: Option<&Snapshot>,
        progress: &'a dyn Fn(u64),
    ) -> Self {
        Self {
            index,
            index_directory: directory.join("index"),
            saved_to: snapshot.map_or(LogPosition::ZERO, |snapshot| snapshot.position),
            known: snapshot.map(known_by),
            keys,
            progress,
            read_to: 0,
            // Nobody is asked about halves here.
            state: State::new(u32::MAX),
            noted_ends: BTreeMap::new(),
            queues: HashMap::new(),
            pending: Vec::new(),
            held: Vec::new(),
            has_beginning: None,
            messages: 0,
            gaps: Vec::new(),
            derived: Vec::new(),
        }
    }

    fn begin_at(&mut self, position: LogPosition) {
        self.has_beginning.get_or_insert(position == LogPosition(SEGMENT_HEADER_BYTES as u64));
    }

    fn note(&mut self, header: &BatchHeader, is_whole: bool) {
        self.begin_at(header.position);
        self.read_to = header.end_position().0;
        match header.kind {
            Kind::Messages => self.note_messages(header, is_whole),
            Kind::Held if is_whole => self.held.push(header.position),
            Kind::Held => self.lacks(header.position, header.end_position(), 1),
            Kind::State => {}
        }
    }

    fn note_messages(&mut self, header: &BatchHeader, is_whole: bool) {
        let entry = entry_of_header(header);
        let seen = self.queues.entry(header.key).or_default();
        let first = self.index.and_then(|index| index.bounds(header.key)).map(|(first, _)| first);
        let begin = if self.has_beginning == Some(true) { QueueOffset::ZERO } else { header.base_offset };
        let next = seen.next.or(first).unwrap_or(begin);
        let from = seen.position;
        seen.next = Some(header.end_offset().max(next));
        seen.position = header.position;
        if header.base_offset > next {
            self.lacks(from, header.position, header.base_offset.0 - next.0);
        }
        if is_whole {
            self.messages += u64::from(header.record_count);
        } else {
            self.lacks(header.position, header.end_position(), u64::from(header.record_count));
        }
        if header.position < self.saved_to {
            self.pending.push((header.key, entry));
        }
    }

    fn lacks(&mut self, from: LogPosition, to: LogPosition, messages: u64) {
        self.gaps.push(Gap { from, to, messages });
    }

    fn change(&mut self, change: Change, position: LogPosition) {
        if let Some(known) = self.known.as_mut().filter(|_| position >= self.saved_to) {
            let _ = known.apply(change.clone(), position, Stage::Replayed);
        }
        match self.state.apply(change, position, Stage::Replayed) {
            Effect::TopicRemoved(id) => self.forget(|topic| topic == id),
            Effect::OnlyTopics(live) => self.forget(|topic| !live.contains(&topic)),
            Effect::QueueEnd { key, offset } => {
                self.noted_ends.insert(key, offset);
            }
            // The pass looks at messages by itself.
            Effect::TopicPut(_)
            | Effect::Purged { .. }
            | Effect::Released(_)
            | Effect::Moved { .. }
            | Effect::HalfStored
            | Effect::HalfUsedUp
            | Effect::None => {}
        }
    }

    fn forget(&mut self, is_gone: impl Fn(TopicId) -> bool) {
        self.queues.retain(|key, _| !is_gone(key.topic));
        self.noted_ends.retain(|key, _| !is_gone(key.topic));
    }

    /// Holds the batches of the last stretch against the index.
    async fn compare_pending(&mut self) {
        for (key, entry) in std::mem::take(&mut self.pending) {
            let Some(index) = self.index else { return };
            // Neither a topic that is gone since nor what retention has taken.
            let Some((first, _)) = index.bounds(key) else { continue };
            if entry.base_offset < first {
                continue;
            }
            let Some(seen) = self.queues.get_mut(&key) else { continue };
            let found = next_entry(index, key, &entry, seen).await;
            match found {
                Ok(Some(found)) if found == entry => {}
                Ok(found) => {
                    let stands = match found {
                        Some(other) => format!("position {}, offset {}", other.position, other.base_offset),
                        None => "nothing".to_owned(),
                    };
                    let (offset, position) = (entry.base_offset, entry.position);
                    let detail = format!(
                        "{}: the log has a batch with offset {offset} at position {position}, the index has {stands}",
                        self.state.tables().queue_text(key)
                    );
                    self.mismatch(Finding::of_file(&self.index_directory, detail));
                }
                Err(error) => {
                    let finding = Finding::of_index(&error, &self.index_directory);
                    self.mismatch(finding);
                    self.index = None;
                }
            }
        }
    }

    fn mismatch(&mut self, finding: Finding) {
        if !self.derived.iter().any(|known| known.file == finding.file && known.position == finding.position)
            || finding.bytes == 0
        {
            self.derived.push(finding);
        }
        if self.derived.len() >= MISMATCHES_MAX {
            self.index = None;
        }
    }

    /// Everything that is there to be said once the log has ended.
    pub async fn finish(mut self) -> Result<Passed, StartError> {
        self.compare_pending().await;
        self.compare_held().await;
        let mut ends: BTreeMap<_, _> =
            self.queues.iter().filter_map(|(key, seen)| Some((*key, seen.next?))).collect();
        let known = self.index.map_or_else(Vec::new, |index| {
            let bounds = |key| Some((key, index.bounds(key)?.1));
            index.queues().into_iter().filter_map(bounds).collect()
        });
        let known = known.into_iter().chain(self.noted_ends.clone());
        let states = || [Some(&self.state), self.known.as_ref()].into_iter().flatten();
        let is_topic = |key: QueueKey| states().any(|state| state.tables().topic(key.topic).is_some());
        for (key, end) in known.filter(|(key, _)| is_topic(*key)) {
            let reached = ends.entry(key).or_insert_with(|| {
                let first = self.index.and_then(|index| index.bounds(key)).map(|(first, _)| first);
                // Of a queue whose every message has expired nothing is left but its end.
                first.unwrap_or(end)
            });
            if *reached < end {
                let from = self.queues.get(&key).map_or(LogPosition::ZERO, |seen| seen.position);
                self.gaps.push(Gap { from, to: LogPosition(u64::MAX), messages: end.0 - reached.0 });
                *reached = end;
            }
        }
        let damaged = self.keys.finish().await?;
        self.derived.extend(damaged.into_iter().map(|file| {
            Finding::of_file(&file, "keys of stored messages are not in it, though it is said to hold them")
        }));
        Ok(Passed { messages: self.messages, gaps: self.gaps, derived: self.derived, ends })
    }

    /// Every half that waits, and every delayed message that the index knows and that was not released, must be in the log.
    async fn compare_held(&mut self) {
        let halves = self.known.iter().flat_map(|known| known.held().halves.stored());
        let halves: Vec<_> = halves.map(|half| half.current).collect();
        halves.into_iter().for_each(|position| self.compare_held_at(position));
        let released = self.known.as_ref().map(|known| known.held().delays.released()).unwrap_or_default();
        let Some(index) = self.index else { return };
        for key in index.queues().into_iter().filter(|key| key.topic == TopicId::DELAYED) {
            let mut offset = QueueOffset::ZERO;
            loop {
                let entries = match index.lookup(key, offset, lookup_max()).await {
                    Ok(entries) => entries,
                    Err(error) => {
                        let finding = Finding::of_index(&error, &self.index_directory);
                        return self.mismatch(finding);
                    }
                };
                let Some(last) = entries.last() else { break };
                offset = last.end_offset();
                let pending =
                    |entry: &&IndexEntry| timer_key_of(key, entry.position, entry.tag_summary) > released;
                entries.iter().filter(pending).for_each(|entry| self.compare_held_at(entry.position));
            }
        }
    }

    /// A message must be held at this place of the log.
    fn compare_held_at(&mut self, from: LogPosition) {
        let is_known = self.gaps.iter().any(|gap| (gap.from, gap.messages) == (from, 1));
        if self.held.binary_search(&from).is_err() && !is_known {
            self.gaps.push(Gap { from, to: from.advance(1), messages: 1 });
        }
    }
}

/// The state that a snapshot says.
fn known_by(snapshot: &Snapshot) -> State {
    let mut state = State::new(u32::MAX);
    // One that cannot be read was told of, and is not used.
    state.load(decode_changes(&snapshot.tables).unwrap_or_default(), snapshot.position, |_| ());
    state
}

fn lookup_max() -> LookupMax {
    LookupMax { entries: LOOKUP_ENTRIES, bytes: u64::MAX, records: u64::MAX }
}

/// The entry of the index in the place of `entry`: those before it, which the log has lost, are passed over.
async fn next_entry<D: Disk>(
    index: &Index<D>,
    key: QueueKey,
    entry: &IndexEntry,
    seen: &mut Seen,
) -> Result<Option<IndexEntry>, crate::index::IndexError> {
    loop {
        if seen.entries.is_empty() {
            let found = index.lookup(key, seen.entries_end, lookup_max()).await?;
            let Some(last) = found.last() else { return Ok(None) };
            seen.entries_end = last.end_offset();
            seen.entries = found.into();
        }
        let Some(next) = seen.entries.front() else { return Ok(None) };
        let is_before = next.end_offset() <= entry.base_offset;
        let is_behind = next.base_offset >= entry.end_offset();
        if is_behind {
            return Ok(Some(*next));
        }
        let next = seen.entries.pop_front();
        if !is_before {
            return Ok(next);
        }
    }
}

impl<D: Disk> Replay for LogPass<'_, D> {
    fn restart(&mut self) {}

    fn whole(&mut self, header: &BatchHeader, bytes: &[u8]) {
        self.note(header, true);
        match header.kind {
            Kind::State => match decode_changes(state_payload(bytes)) {
                Ok(changes) => changes.into_iter().for_each(|change| self.change(change, header.position)),
                Err(error) => {
                    let detail =
                        format!("the record at position {} cannot be read: {error}", header.position);
                    let log = self.index_directory.with_file_name("log");
                    self.derived.push(Finding::of_file(&log, detail));
                }
            },
            Kind::Messages => {
                keys_of(header, bytes, |topic, key, location| self.keys.note(topic, key, location))
            }
            Kind::Held => {}
        }
    }

    fn harmed(&mut self, header: &BatchHeader) {
        self.note(header, false);
    }

    fn lost(&mut self, lost: Lost) {
        self.begin_at(lost.from);
    }

    async fn settle(&mut self) -> Result<(), DiskError> {
        (self.progress)(self.read_to);
        self.compare_pending().await;
        self.keys.settle().await
    }
}
