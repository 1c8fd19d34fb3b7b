//! Waiting for messages of many queues at once.

use std::rc::Rc;
use std::time::Duration;

use super::fetches::FetchWait;
use super::waits::{LookNow, TaskCaller, WaitFor};
use crate::api::Watch;
use crate::broker::queue::Queue;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::limits;
use crate::types::{QueueKey, QueueOffset, ShardId};

/// A watch that waits as an entry of each of its queues' lists, which it leaves when this is dropped.
pub struct WatchWait {
    _entries: Vec<FetchWait>,
}

/// Whether a fetch would be answered at once: with messages, or with an error, which it is the fetch's to tell.
fn is_ready(queue: &Queue, offset: QueueOffset) -> bool {
    queue.deleted.get() || queue.durable_end.get() != offset
}

impl<D: Disk> Broker<D> {
    /// The shard that carries a watch out: that of its first queue.
    pub fn watch_owner(&self, watch: &Watch) -> ShardId {
        let options = &self.options;
        watch.queues.first().map_or(options.shard, |(key, _)| key.queue.shard(options.shard_count))
    }

    /// The queues that would answer a fetch at once. A queue that is not this shard's is among them: the fetch will say so.
    pub fn watched_now(&self, watch: &Watch) -> Vec<QueueKey> {
        let would_answer = |(key, offset): &&(QueueKey, QueueOffset)| {
            self.queue(*key).map_or(true, |queue| is_ready(&queue, *offset))
        };
        watch.queues.iter().filter(would_answer).map(|(key, _)| *key).collect()
    }

    /// Lets a watch wait without anybody's doing: `caller` is called, once or more, when there may be something, and the watch
    /// is to be tried again. Otherwise the answer: some queue is ready, or the watch is not to wait.
    pub fn park_watch(
        &self,
        watch: &Watch,
        caller: impl FnOnce() -> Rc<dyn LookNow>,
    ) -> Result<WatchWait, Vec<QueueKey>> {
        let ready = self.watched_now(watch);
        if !ready.is_empty() || watch.wait.is_zero() {
            return Err(ready);
        }
        let caller = caller();
        let entry = |(key, offset): &(QueueKey, QueueOffset)| {
            let queue = self.queue(*key).expect("a queue that is not there is ready");
            FetchWait::begin(queue, WaitFor::from(*offset), caller.clone())
        };
        Ok(WatchWait { _entries: watch.queues.iter().map(entry).collect() })
    }

    /// What a watch is answered: waits for the first of its queues as long as it asks. In the task of whoever asks, as a peer
    /// does; what a client asks of this shard is parked.
    pub(in crate::broker) async fn watch(&self, watch: &Watch) -> Vec<QueueKey> {
        let ready = self.watched_now(watch);
        if !ready.is_empty() || watch.wait.is_zero() {
            return ready;
        }
        self.metrics.fetches_waited.add(1);
        let arrived = async {
            loop {
                let caller = Rc::<TaskCaller>::default();
                // One commit may change many queues: all of them are seen together.
                match self.park_watch(watch, || caller.clone()) {
                    Ok(_waiting) => caller.called().await,
                    Err(ready) => return ready,
                }
            }
        };
        let over = async {
            self.clock.sleep(watch_time(watch)).await;
            self.watched_now(watch)
        };
        futures_lite::future::or(arrived, over).await
    }
}

/// How long a watch waits at the most.
pub fn watch_time(watch: &Watch) -> Duration {
    watch.wait.min(Duration::from_millis(u64::from(limits::FETCH_WAIT_MS_MAX)))
}
