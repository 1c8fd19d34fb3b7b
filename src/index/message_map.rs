//! About how many messages lie between two positions of the log, as a snapshot of the index knows without reading a block.

use super::consume::IndexOptions;
use super::snapshot;
use super::tree::Tree;
use crate::types::{LogPosition, TopicId};
use crate::wire::record::RECORD_HEADER_BYTES;

/// For each queue, positions at which it is known how many messages came before; in between they are taken to be spread
/// evenly.
pub struct MessageMap {
    queues: Vec<Vec<(LogPosition, u64)>>,
    /// Where delayed messages lie, from the first to the last of a hidden queue: offsets there do not count them.
    delayed: Vec<(LogPosition, LogPosition)>,
}

impl MessageMap {
    /// `None` when the bytes are no whole snapshot.
    pub fn of_snapshot(bytes: &[u8]) -> Option<Self> {
        let state = snapshot::decode(bytes, &IndexOptions::new(u32::MAX)).ok()?;
        let (delayed, queues): (Vec<_>, Vec<_>) =
            state.trees().iter().partition(|(key, _)| key.topic == TopicId::DELAYED);
        Some(Self {
            queues: queues.into_iter().map(|(_, tree)| known_counts(tree)).collect(),
            delayed: delayed.into_iter().map(|(_, tree)| (tree.first_position, tree.last_position)).collect(),
        })
    }

    /// About how many messages were stored in this range. `None` when that cannot be told: delayed ones may have been among
    /// them, or offsets were passed over there, so that more would be missing than fits.
    pub fn messages_between(&self, from: LogPosition, to: LogPosition) -> Option<u64> {
        if self.delayed.iter().any(|(first, last)| *first < to && from <= *last) {
            return None;
        }
        let before = |known: &[_]| offset_at(known, to).saturating_sub(offset_at(known, from));
        let messages = self.queues.iter().map(|known| before(known)).fold(0, u64::saturating_add);
        let fit = to.0.saturating_sub(from.0) / RECORD_HEADER_BYTES as u64;
        (messages <= fit).then_some(messages)
    }
}

fn known_counts(tree: &Tree) -> Vec<(LogPosition, u64)> {
    let mut known = vec![(tree.first_position, tree.first.0)];
    let references = tree.levels.iter().flatten();
    known.extend(references.map(|reference| (reference.last_position, reference.end_offset.0)));
    known.extend(tree.entries.iter().map(|entry| (entry.position, entry.end_offset().0)));
    known.push((tree.last_position, tree.end.0));
    known.sort_unstable();
    known
}

/// The offset that the queue had reached at `position`.
fn offset_at(known: &[(LogPosition, u64)], position: LogPosition) -> u64 {
    let after = known.partition_point(|(at, _)| *at < position);
    match (after.checked_sub(1).map(|before| known[before]), known.get(after)) {
        (Some((_, offset)), None) => offset,
        (None, Some((_, offset))) => *offset,
        (Some((from, low)), Some((to, high))) => {
            let (passed, width) = (position.since(from), to.since(from).max(1));
            let share = u128::from(high.saturating_sub(low)) * u128::from(passed) / u128::from(width);
            low + share as u64
        }
        (None, None) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(map: &MessageMap, from: u64, to: u64) -> Option<u64> {
        map.messages_between(LogPosition(from), LogPosition(to))
    }

    #[test]
    fn messages_are_spread_evenly_between_known_positions() {
        let known = vec![(LogPosition(0), 0), (LogPosition(100_000), 100), (LogPosition(200_000), 300)];
        let map = MessageMap { queues: vec![known.clone(), known], delayed: Vec::new() };
        assert_eq!(between(&map, 0, 200_000), Some(600));
        assert_eq!(between(&map, 50_000, 150_000), Some(300));
    }

    #[test]
    fn more_messages_than_fit_are_no_number() {
        // As after a repair, when a queue goes on after as many as there can have been.
        let known = vec![(LogPosition(0), 0), (LogPosition(100_000), 7_443_944)];
        let map = MessageMap { queues: vec![known], delayed: Vec::new() };
        assert_eq!(between(&map, 0, 100_000), None);
    }

    #[test]
    fn where_delayed_messages_lie_nothing_is_counted() {
        let known = vec![(LogPosition(0), 0), (LogPosition(100_000), 100)];
        let delayed = vec![(LogPosition(20_000), LogPosition(40_000))];
        let map = MessageMap { queues: vec![known], delayed };
        assert_eq!(between(&map, 0, 20_000), Some(20));
        assert_eq!(between(&map, 0, 20_001), None);
        assert_eq!(between(&map, 40_000, 50_000), None);
        assert_eq!(between(&map, 40_001, 100_001), Some(60));
    }
}
