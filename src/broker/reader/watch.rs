//! Waiting for messages of many queues at once.

use std::rc::Rc;
use std::time::Duration;

use super::waits::{TaskCaller, WaitFor};
use crate::api::Watch;
use crate::broker::queue::Queue;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::limits;
use crate::types::{QueueKey, QueueOffset};

/// A queue that is watched: from which offset on it is to be read.
struct Watched {
    queue: Rc<Queue>,
    offset: QueueOffset,
}

impl Watched {
    /// Whether a fetch would be answered at once: with messages, or with an error, which it is the fetch's to tell.
    fn is_ready(&self) -> bool {
        self.queue.deleted.get() || self.queue.durable_end.get() != self.offset
    }
}

impl<D: Disk> Broker<D> {
    /// The queues that would answer a fetch at once; waits for the first as long as the watch asks. A queue that is not
    /// this shard's is among them: the fetch will say so.
    pub(in crate::broker) async fn watch(&self, watch: &Watch) -> Vec<QueueKey> {
        let mut missing = Vec::new();
        let mut watched = Vec::with_capacity(watch.queues.len());
        for &(key, offset) in &watch.queues {
            match self.queue(key) {
                Ok(queue) => watched.push(Watched { queue, offset }),
                Err(_) => missing.push(key),
            }
        }
        if !missing.is_empty() || watched.iter().any(Watched::is_ready) || watch.wait.is_zero() {
            missing.extend(ready(&watched));
            return missing;
        }
        self.metrics.fetches_waited.add(1);
        let wait = watch.wait.min(Duration::from_millis(u64::from(limits::FETCH_WAIT_MS_MAX)));
        let arrived = async {
            while !watched.iter().any(Watched::is_ready) {
                any_changed(&watched).await;
            }
        };
        futures_lite::future::or(arrived, self.clock.sleep(wait)).await;
        ready(&watched).collect()
    }
}

fn ready(watched: &[Watched]) -> impl Iterator<Item = QueueKey> {
    watched.iter().filter(|watched| watched.is_ready()).map(|watched| watched.queue.key)
}

/// Completes when one of the queues has changed. One commit may change many: all of them are seen together.
async fn any_changed(watched: &[Watched]) {
    let caller = Rc::<TaskCaller>::default();
    let parked = watched.iter().map(|watched| {
        let Watched { queue, offset } = watched;
        queue.waits.park(WaitFor::from(*offset), caller.clone())
    });
    let _waiting: Vec<_> = parked.collect();
    caller.called().await;
}
