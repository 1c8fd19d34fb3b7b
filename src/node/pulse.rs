//! Whether all shards turn: each counts its heartbeats where the node's own thread can see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The heartbeats of all shards of a node.
#[derive(Clone, Debug)]
pub(super) struct Pulses(Arc<[AtomicU64]>);

/// One shard's.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    pulses: Pulses,
    shard: usize,
}

/// What was seen of them the last time.
#[derive(Debug)]
pub(super) struct PulseWatch {
    pulses: Pulses,
    seen: Vec<u64>,
}

impl Pulses {
    pub fn new(shards: u16) -> Self {
        Self((0..shards).map(|_| AtomicU64::new(0)).collect())
    }

    pub fn of(&self, shard: u16) -> Pulse {
        Pulse { pulses: self.clone(), shard: usize::from(shard) }
    }

    pub fn watch(&self) -> PulseWatch {
        PulseWatch { pulses: self.clone(), seen: vec![0; self.0.len()] }
    }
}

impl Pulse {
    /// Only the shard's own core calls it.
    pub fn beat(&self) {
        let count = &self.pulses.0[self.shard];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

impl PulseWatch {
    /// Whether every shard has beaten since this was last true. Else it is asked again later, of those that had not.
    pub fn have_all_beaten(&mut self) -> bool {
        let counts = self.pulses.0.iter().map(|count| count.load(Ordering::Relaxed));
        let counts: Vec<_> = counts.collect();
        let have_beaten = counts.iter().zip(&self.seen).all(|(count, seen)| count > seen);
        if have_beaten {
            self.seen = counts;
        }
        have_beaten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shard_that_stands_still_is_seen() {
        let pulses = Pulses::new(2);
        let (first, second) = (pulses.of(0), pulses.of(1));
        let mut watch = pulses.watch();
        assert!(!watch.have_all_beaten(), "none has");
        first.beat();
        assert!(!watch.have_all_beaten());
        second.beat();
        assert!(watch.have_all_beaten());
        first.beat();
        first.beat();
        assert!(!watch.have_all_beaten(), "the second stands still");
        second.beat();
        assert!(watch.have_all_beaten());
    }
}
