//! Watches: of this shard's queues they are parked while there is nothing in any of them.

use std::rc::Rc;

use super::Native;
use super::waiting::watched_bytes;
use crate::api::{Reply, RequestSubject, Watch};
use crate::broker::{WatchWait, watch_time};
use crate::metrics::Timeline;
use crate::server::framed::{Call, CallTerms};
use crate::server::parked::{LookReason, ParkedCall};
use crate::types::MonotonicTime;

/// A watch that waits for a message.
struct ParkedWatch {
    native: Rc<Native>,
    call: Call,
    correlation: u64,
    watch: Watch,
    end: MonotonicTime,
    /// What it waits for.
    wait: WatchWait,
}

impl Native {
    /// Whether a watch may wait, and for queues of this shard. Another shard's are watched by a task there.
    pub(super) fn waits_here(&self, watch: &Watch) -> bool {
        let broker = &self.connections.broker;
        !watch.wait.is_zero() && broker.watch_owner(watch) == broker.options().shard
    }

    /// Answers a watch of this shard's queues at once, or parks it.
    pub(super) async fn watch(self: &Rc<Self>, correlation: u64, watch: Watch) {
        let end = self.connections.clock.monotonic().after(watch_time(&watch));
        let carried_bytes = watched_bytes(&watch);
        let terms = CallTerms { carried_bytes, waits_long: true, is_parked: true, deadline: None };
        let Some(call) = self.calls.begin(terms, None).await else { return };
        call.describe(RequestSubject::of("watch"));
        self.connections.metrics.fetches_waited.add(1);
        self.park_watch(call, correlation, watch, end);
    }

    /// Lets a watch wait as an entry, if there is still nothing for it.
    fn park_watch(self: &Rc<Self>, call: Call, correlation: u64, watch: Watch, end: MonotonicTime) {
        let slot = self.connection.parked.slot();
        match self.connections.broker.park_watch(&watch, || slot.caller()) {
            Ok(wait) => {
                let native = self.clone();
                slot.park(end, Box::new(ParkedWatch { native, call, correlation, watch, end, wait }));
            }
            Err(ready) => self.answer(correlation, Ok(Reply::Watched(ready))),
        }
    }
}

impl ParkedCall for ParkedWatch {
    fn woken(&self, since: MonotonicTime) -> Timeline {
        self.call.woken(since)
    }

    fn look(self: Box<Self>, reason: LookReason) -> usize {
        let Self { native, call, correlation, watch, end, wait } = *self;
        drop(wait);
        if !native.connection.is_here() {
            return 0;
        }
        let ready = match reason {
            LookReason::Called => {
                native.park_watch(call, correlation, watch, end);
                return 0;
            }
            LookReason::Over => native.connections.broker.watched_now(&watch),
            LookReason::Cut => Vec::new(),
        };
        native.answer(correlation, Ok(Reply::Watched(ready)));
        0
    }
}
