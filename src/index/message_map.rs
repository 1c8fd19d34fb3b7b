//! About how many messages lie between two positions of the log, as a snapshot of the index knows without reading a block.

use super::consume::IndexOptions;
use super::snapshot;
use super::tree::Tree;
use crate::types::LogPosition;

/// For each queue, places at which it is known how many messages came before; in between they are taken to be spread
/// evenly.
pub struct MessageMap {
    queues: Vec<Vec<(LogPosition, u64)>>,
}

impl MessageMap {
    /// `None` when the bytes are no whole snapshot.
    pub fn of_snapshot(bytes: &[u8]) -> Option<Self> {
        let state = snapshot::decode(bytes, &IndexOptions::new(u32::MAX)).ok()?;
        Some(Self { queues: state.trees().values().map(known_places).collect() })
    }

    /// About how many messages were stored in this range.
    pub fn messages_between(&self, from: LogPosition, to: LogPosition) -> u64 {
        let before = |places: &[_]| offset_at(places, to).saturating_sub(offset_at(places, from));
        self.queues.iter().map(|places| before(places)).sum()
    }
}

fn known_places(tree: &Tree) -> Vec<(LogPosition, u64)> {
    let mut places = vec![(tree.first_position, tree.first.0)];
    let references = tree.levels.iter().flatten();
    places.extend(references.map(|reference| (reference.last_position, reference.end_offset.0)));
    places.extend(tree.entries.iter().map(|entry| (entry.position, entry.end_offset().0)));
    places.push((tree.last_position, tree.end.0));
    places.sort_unstable();
    places
}

/// The offset that the queue had reached at `position`.
fn offset_at(places: &[(LogPosition, u64)], position: LogPosition) -> u64 {
    let behind = places.partition_point(|(place, _)| *place < position);
    match (behind.checked_sub(1).map(|before| places[before]), places.get(behind)) {
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
