//! Holds every shard back until the files of all of them are judged.

use async_channel::{Receiver, Sender};

/// One for the node, cloned to each of its shards. It never closes: a node that is refused ends with its shards before it.
#[derive(Clone)]
pub(super) struct Gate {
    passes: Sender<()>,
    taken: Receiver<()>,
}

impl Gate {
    pub fn new() -> Self {
        let (passes, taken) = async_channel::unbounded();
        Self { passes, taken }
    }

    /// Lets so many shards pass.
    pub fn open(&self, shards: u16) {
        for _ in 0..shards {
            // There is room, and this end keeps it from being closed.
            let _ = self.passes.try_send(());
        }
    }

    /// Waits until it is open; each shard passes once.
    pub async fn pass(&self) {
        let _ = self.taken.recv().await;
    }
}
