//! About how many messages lie between two positions of the log, as a snapshot of the index knows without reading a block.

use super::consume::IndexOptions;
use super::snapshot;
use super::tree::Tree;
use crate::types::LogPosition;

/// For each queue, positions at which it is known how many messages came before; in between they are taken to be spread
/// evenly.
pub struct MessageMap {
    queues: Vec<Vec<(LogPosition, u64)>>,
}

impl MessageMap {
    /// `None` when the bytes are no whole snapshot.
    pub fn of_snapshot(bytes: &[u8]) -> Option<Self> {
        let state = snapshot::decode(bytes, &IndexOptions::new(u32::MAX)).ok()?;
        Some(Self { queues: state.trees().values().map(known_counts).collect() })
    }

    /// About how many messages were stored in this range.
    pub fn messages_between(&self, from: LogPosition, to: LogPosition) -> u64 {
        let before = |known: &[_]| offset_at(known, to).saturating_sub(offset_at(known, from));
        self.queues.iter().map(|known| before(known)).sum()
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
