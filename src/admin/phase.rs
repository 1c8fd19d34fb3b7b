//! How far the node has got, as its own thread says it and the admin thread shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What a node is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePhase {
    /// Shards recover; none of them answers questions yet.
    Recovering,
    /// Every shard has recovered, and takes connections.
    Serving,
    /// It was told to stop.
    Stopping,
}

/// Where the phase stands written, for several threads. It only goes forward.
#[derive(Clone, Debug, Default)]
pub struct PhaseBoard(Arc<AtomicU8>);

impl PhaseBoard {
    pub fn set(&self, phase: NodePhase) {
        self.0.fetch_max(phase as u8, Ordering::Relaxed);
    }

    pub fn phase(&self) -> NodePhase {
        match self.0.load(Ordering::Relaxed) {
            0 => NodePhase::Recovering,
            1 => NodePhase::Serving,
            _ => NodePhase::Stopping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_only_goes_forward() {
        let board = PhaseBoard::default();
        assert_eq!(board.phase(), NodePhase::Recovering);
        for phase in [NodePhase::Serving, NodePhase::Stopping] {
            board.set(phase);
            assert_eq!(board.phase(), phase);
        }
        board.set(NodePhase::Serving);
        assert_eq!(board.phase(), NodePhase::Stopping);
    }
}
