//! What a shard's log spans, and what is left of the disk that it lies on, as tools show it.

use crate::api::{Failure, Status};
use crate::broker::shard_broker::Broker;
use crate::disk::{Disk, DiskError, Space};
use crate::types::Timestamp;

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
