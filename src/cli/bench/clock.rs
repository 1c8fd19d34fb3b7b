//! The bench's own clock: one monotonic clock for senders and receivers, so that differences of a microsecond mean
//! something.

use std::time::Instant;

use crate::cli::calendar;
use crate::types::Timestamp;

/// Nanoseconds since the bench started.
#[derive(Clone, Copy, Debug)]
pub struct BenchClock {
    origin: Instant,
    wall_origin: Timestamp,
}

impl BenchClock {
    pub fn start() -> Self {
        Self { origin: Instant::now(), wall_origin: calendar::now() }
    }

    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).expect("the bench runs for less than five centuries")
    }

    /// The wall clock at a time of this clock.
    pub fn wall(&self, now_ns: u64) -> Timestamp {
        Timestamp(self.wall_origin.0 + now_ns / 1_000_000)
    }
}
