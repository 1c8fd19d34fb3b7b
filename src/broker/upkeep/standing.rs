//! What a shard's log spans, and what is left of the disk that it lies on, as tools show it.

use std::time::Duration;

use crate::api::{Failure, Status};
use crate::broker::shard_broker::Broker;
use crate::disk::{Disk, DiskError, Space};
use crate::types::{MonotonicTime, Timestamp};

/// How a shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStanding {
    /// When the log's first batch was stored; `None` while no message is there.
    pub first: Option<Timestamp>,
    /// The disk that it lies on.
    pub space: Space,
}

impl LogStanding {
    /// How much is used of what the shard and others may use of the disk, from 0 to 1.
    pub fn disk_ratio(&self) -> f64 {
        let all = self.space.used + self.space.available;
        if all == 0 { 0.0 } else { self.space.used as f64 / all as f64 }
    }
}

impl<D: Disk> Broker<D> {
    /// How long this run has lasted, how long the device was busy with the log in it, and what room the disk has.
    pub(in crate::broker) async fn standing_counters(&self) -> Vec<(String, u64)> {
        let now = self.clock.monotonic();
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let busy = u64::try_from(self.log.device_busy(now).as_nanos()).unwrap_or(u64::MAX);
        let mut counters = vec![
            ("uptime_ms".to_owned(), milliseconds(now.since(MonotonicTime(0)))),
            ("device_busy_ns".to_owned(), busy),
        ];
        // A disk that cannot say it has other troubles, which are told elsewhere.
        if let Ok(space) = self.disk.space(&self.options.directory).await {
            let Space { total, available, used } = space;
            let of_disk =
                [("disk_bytes", total), ("disk_used_bytes", used), ("disk_available_bytes", available)];
            counters.extend(of_disk.map(|(name, bytes)| (name.to_owned(), bytes)));
        }
        counters
    }

    pub async fn log_standing(&self) -> Result<LogStanding, Failure> {
        let failed = |error: DiskError| Failure::new(Status::StorageFailed, error.to_string());
        let space = self.disk.space(&self.options.directory).await.map_err(failed)?;
        let has_messages = self.queues.borrow().values().any(|queue| {
            let (first, end) = self.bounds(queue);
            first < end
        });
        let first = match has_messages {
            true => self.log.first_store_time().await,
            false => None,
        };
        Ok(LogStanding { first, space })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_what_is_used() {
        let standing =
            |used, available| LogStanding { first: None, space: Space { total: 100, available, used } };
        assert_eq!(standing(60, 20).disk_ratio(), 0.75, "a fifth of it is kept for others");
        assert_eq!(standing(0, 0).disk_ratio(), 0.0);
    }
}
