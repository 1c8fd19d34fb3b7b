//! Time on a glommio executor.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glommio::timer::Timer;

use super::host;
use crate::clock::{Clock, SharedClock};
use crate::limits::LONG_TURN;
use crate::metrics::ShardMetrics;
use crate::types::{MonotonicTime, Timestamp};

/// A lost wake-up of the executor is over after this at the latest: see [`heartbeat`].
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(10);
/// The shortest sleep that surely goes through the reactor: one of zero length is over at its first poll.
const SLEEP_MIN: Duration = Duration::from_micros(1);

/// The system's clocks; sleeping is glommio's.
#[derive(Clone)]
pub(crate) struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// `start` is the zero of the monotonic clock, the same for all shards of a node.
    pub fn shared(start: Instant) -> SharedClock {
        Rc::new(Self { start })
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        wall_clock()
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(self.start.elapsed().as_nanos() as u64)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        let duration = duration.max(SLEEP_MIN);
        Box::pin(async move {
            Timer::new(duration).await;
        })
    }
}

/// The system's clock. One that is set before 1970 reads as 1970.
pub(crate) fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}

/// Whether the system's clock is within the years that HTTP and TLS can tell. Outside of them hyper and rustls end the
/// process as soon as they look at it, hyper each time it is polled.
pub(crate) fn is_clock_tellable() -> bool {
    const END: u64 = 253_402_300_800;
    SystemTime::now().duration_since(UNIX_EPOCH).is_ok_and(|since| since.as_secs() < END)
}

/// Lets the executor look at its rings. A task that could go on for ever calls it after a bounded amount of work:
/// glommio runs ready tasks until none is left, and yielding puts a task straight back among them.
pub(crate) async fn yield_to_reactor() {
    Timer::new(SLEEP_MIN).await;
}

/// Wakes the executor regularly. glommio can park with runnable tasks when its preemption timer fires before the first
/// task of a round has run; this bounds how long that lasts. Late beats are counted: they are stalls of the core. Those of
/// them whose time this thread has used itself are counted as long turns, which no other program has a part in. `beat` is called
/// with each, for whoever watches whether the core turns.
pub(crate) async fn heartbeat(clock: SharedClock, metrics: Rc<ShardMetrics>, beat: impl Fn()) {
    loop {
        beat();
        let (before, used_before) = (clock.monotonic(), host::thread_cpu_ns());
        Timer::new(HEARTBEAT_INTERVAL).await;
        let now = clock.monotonic();
        if now.since(before) > 2 * HEARTBEAT_INTERVAL {
            metrics.wakeups_late.add(1);
            // It was to beat within the first interval.
            metrics.flight.woke_late(before.after(HEARTBEAT_INTERVAL), now);
            let used = Duration::from_nanos(host::thread_cpu_ns() - used_before);
            let turn = used.saturating_sub(HEARTBEAT_INTERVAL);
            if turn >= LONG_TURN {
                metrics.turns_long.add(1);
                metrics.turns_long_ns.add(turn.as_nanos() as u64);
            }
        }
    }
}
