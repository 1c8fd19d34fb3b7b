//! What happened since somebody last looked: filled by a worker, emptied every second by the reporter.

use crate::cli::bench::histogram::Latencies;

/// One direction's counts.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub messages: u64,
    /// Bytes of the batches as they are stored.
    pub stored_bytes: u64,
    pub body_bytes: u64,
    /// Time of the last of them, on the bench's clock.
    pub last_ns: u64,
    pub latencies: Latencies,
}

/// Both directions.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Acknowledged by the broker.
    pub produced: Tally,
    /// Received from the broker.
    pub consumed: Tally,
    /// Requests that the broker refused, and messages in them.
    pub errors: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.messages += other.messages;
        self.stored_bytes += other.stored_bytes;
        self.body_bytes += other.body_bytes;
        self.last_ns = self.last_ns.max(other.last_ns);
        self.latencies.add(&other.latencies);
    }

    fn clear(&mut self) {
        self.messages = 0;
        self.stored_bytes = 0;
        self.body_bytes = 0;
        self.last_ns = 0;
        self.latencies.clear();
    }
}

impl Window {
    pub fn add(&mut self, other: &Window) {
        self.produced.add(&other.produced);
        self.consumed.add(&other.consumed);
        self.errors += other.errors;
    }

    pub fn clear(&mut self) {
        self.produced.clear();
        self.consumed.clear();
        self.errors = 0;
    }
}
