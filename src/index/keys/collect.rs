//! Keys on their way into a run.

use super::block::{KeyEntry, key_hash};
use super::run::RunRange;
use crate::types::{LogPosition, RecordLocation, TopicId};

/// With this many entries a run is due: two mebibytes of memory. The batch that goes beyond it is added whole.
pub const KEYED_ENTRIES_MAX: usize = 131_072;
/// Entries are spread by their hash, so that one part is sorted in some twenty microseconds.
const PARTS: usize = 64;
const PART_SHIFT: u32 = u64::BITS - PARTS.ilog2();

/// The keys of a range of the log, in memory. The range grows at its end.
pub struct Collected {
    range: Option<RunRange>,
    parts: Vec<Vec<KeyEntry>>,
    length: usize,
}

impl Default for Collected {
    fn default() -> Self {
        Self { range: None, parts: vec![Vec::new(); PARTS], length: 0 }
    }
}

impl Collected {
    /// Begins an empty range at `from` in the segment that begins at `base`.
    pub fn begin(&mut self, base: LogPosition, from: LogPosition) {
        assert!(self.range.is_none() && self.length == 0, "a range is collected already");
        self.range = Some(RunRange { base, from, to: from });
    }

    pub fn range(&self) -> Option<RunRange> {
        self.range
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Everything up to `to` was looked at.
    pub fn extend(&mut self, to: LogPosition) {
        let range = self.range.as_mut().expect("a range was begun");
        assert!(range.to <= to, "the range up to {} does not shrink to {to}", range.to);
        range.to = to;
    }

    pub fn add(&mut self, topic: TopicId, key: &[u8], location: RecordLocation) {
        let range = self.range.as_ref().expect("a range was begun");
        let entry = KeyEntry { hash: key_hash(topic, key), location: range.relative(location) };
        self.parts[(entry.hash >> PART_SHIFT) as usize].push(entry);
        self.length += 1;
    }

    /// Locations of a key, the newest first.
    pub fn find(&self, topic: TopicId, key: &[u8]) -> Vec<RecordLocation> {
        let Some(range) = self.range else { return Vec::new() };
        let hash = key_hash(topic, key);
        let part = &self.parts[(hash >> PART_SHIFT) as usize];
        let found = part.iter().filter(|entry| entry.hash == hash);
        let mut locations: Vec<_> = found.map(|entry| range.absolute(entry.location)).collect();
        locations.sort_unstable_by(|one, other| other.cmp(one));
        locations.dedup();
        locations
    }

    /// Forgets what was collected. What one large batch has taken is given back.
    pub fn clear(&mut self) {
        self.range = None;
        self.length = 0;
        for part in &mut self.parts {
            part.clear();
            part.shrink_to(2 * KEYED_ENTRIES_MAX / PARTS);
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.capacity() * size_of::<KeyEntry>()).sum()
    }

    pub(super) fn part_count(&self) -> usize {
        PARTS
    }

    /// The entries of one part, sorted and each once.
    pub(super) fn sorted_part(&mut self, index: usize) -> &[KeyEntry] {
        let part = &mut self.parts[index];
        part.sort_unstable();
        part.dedup();
        part
    }
}
