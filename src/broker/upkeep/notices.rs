//! What goes wrong with a shard's files, told to its operator: once where it is dealt with, and now and then where it
//! repeats.

use std::time::Duration;

use crate::api::{DamagedBytes, Failure, Status};
use crate::broker::shard_broker::{Broker, OpenedBroker};
use crate::disk::{Disk, DiskError};
use crate::index::IndexError;
use crate::log::Damage;
use crate::types::{MonotonicTime, QueueKey, Throttle};

/// Each kind is told once in this time: a reader may meet one damaged place again and again.
const INTERVAL: Duration = Duration::from_secs(10);
/// Damaged places told at a start, each in a line.
const TOLD_MAX: usize = 16;

/// When what was last told.
pub(in crate::broker) struct Notices {
    damage: Throttle,
    reads: Throttle,
    keys: Throttle,
}

impl Default for Notices {
    fn default() -> Self {
        let throttle = || Throttle::new(INTERVAL);
        Self { damage: throttle(), reads: throttle(), keys: throttle() }
    }
}

impl<D: Disk> Broker<D> {
    /// Somebody has met bytes that are not as they were written, or that are not there. `key` is the queue, when that is
    /// known.
    pub(in crate::broker) fn note_damage(&self, damaged: &DamagedBytes, key: Option<QueueKey>) {
        self.metrics.damaged_batches.add(1);
        let Some(left_out) = self.notices.damage.allows(self.clock.monotonic()) else { return };
        let DamagedBytes { file, position } = damaged;
        tracing::error!(
            target: "storage",
            shard = self.options.shard.0,
            file,
            position,
            queue = key.map(|key| self.queue_text(key)),
            left_out,
            "stored messages are damaged or missing and are passed over: stop the broker, run `turbopump log verify`, \
             and restore the file from a copy"
        );
    }

    /// The key index cannot be kept up, or a part of it is damaged. Look-ups say meanwhile that they are incomplete.
    pub(in crate::broker) fn note_keys(&self, error: &IndexError) {
        let Some(left_out) = self.notices.keys.allows(self.clock.monotonic()) else { return };
        let shard = self.options.shard.0;
        tracing::warn!(target: "index", shard, left_out, "keys are indexed again, which is tried on: {error}");
    }

    /// Tells what was left out of what is told now and then: see [`Throttle::left_out`]. To be called about once a second.
    pub fn tell_left_out(&self, now: Option<MonotonicTime>) {
        let shard = self.options.shard.0;
        let left_out = |throttle: &Throttle| throttle.left_out(now);
        if let Some(left_out) = left_out(&self.notices.damage) {
            tracing::error!(target: "storage", shard, left_out, "more stored messages were passed over since that was told");
        }
        if let Some(left_out) = left_out(&self.notices.reads) {
            tracing::error!(target: "storage", shard, left_out, "more reads have failed since that was told");
        }
        if let Some(left_out) = left_out(&self.notices.keys) {
            tracing::warn!(target: "index", shard, left_out, "keys could not be indexed more often since that was told");
        }
        if let Some(left_out) = left_out(&self.refusals_said) {
            tracing::warn!(target: "leases", shard, left_out, "more got nothing because of a bound since that was told");
        }
        if let Some(left_out) = left_out(&self.dead_letters_said) {
            tracing::warn!(target: "leases", shard, left_out, "more dead letters could not be moved since that was told");
        }
    }

    /// The device has refused a read. What a client is told.
    pub(in crate::broker) fn read_failed(&self, error: &DiskError) -> Failure {
        if let Some(left_out) = self.notices.reads.allows(self.clock.monotonic()) {
            let shard = self.options.shard.0;
            tracing::error!(target: "storage", shard, left_out, "the device does not read: {error}");
        }
        let why = error.without_path();
        Failure::new(Status::StorageFailed, format!("the disk of shard {} fails: {why}", self.options.shard))
    }
}

impl<D: Disk> OpenedBroker<D> {
    /// Tells what recovery has decided, where that is more than going on.
    pub fn tell(&self) {
        let shard = self.broker.options.shard.0;
        if let Some(reason) = &self.rebuilt {
            tracing::warn!(target: "index", shard, "the index was built anew from the log: {reason}");
        }
        if self.report.torn {
            let end = self.report.end.0;
            tracing::warn!(target: "log", shard, end, "an unanswered tail after the log's end was cut off");
        }
        let (told, left_out) = self.report.damage.split_at(self.report.damage.len().min(TOLD_MAX));
        for Damage { file, position, bytes, .. } in told {
            tracing::error!(
                target: "log",
                shard,
                file,
                position,
                bytes,
                "stored bytes are damaged or missing: run `turbopump log verify`, and restore the file from a copy"
            );
        }
        if !left_out.is_empty() {
            let more = left_out.len();
            tracing::error!(target: "log", shard, more, "there are further damaged places: `turbopump log verify` names all");
        }
    }
}
