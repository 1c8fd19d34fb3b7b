//! Which connection works on which queues. A connection leads to one shard and has only queues of that shard.

use crate::api::QueueInfo;
use crate::types::{QueueNumber, ShardId};

/// Fetches that one connection has in flight: fewer than a broker lets a connection wait for.
const FETCHES_PER_CONNECTION_MAX: usize = 200;

/// One connection: its shard and its queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub shard: ShardId,
    pub queues: Vec<QueueNumber>,
}

/// Spreads `connections` over the shards that have queues, at least one each. Where a shard has more connections than
/// queues, connections share queues.
pub fn assign_producers(queues: &[QueueInfo], connections: usize) -> Vec<Assigned> {
    let shards = by_shard(queues);
    let connections = connections.max(shards.len());
    let mut assigned = Vec::with_capacity(connections);
    for (index, (shard, queues)) in shards.iter().enumerate() {
        let own = (connections - index).div_ceil(shards.len());
        for connection in 0..own {
            let queues = if own <= queues.len() {
                queues.iter().skip(connection).step_by(own).copied().collect()
            } else {
                vec![queues[connection % queues.len()]]
            };
            assigned.push(Assigned { shard: *shard, queues });
        }
    }
    assigned
}

/// Spreads `connections` over the shards that have queues so that each queue has exactly one. There are fewer when
/// there are fewer queues, and more when queues are too many for one connection.
pub fn assign_consumers(queues: &[QueueInfo], connections: usize) -> Vec<Assigned> {
    let shards = by_shard(queues);
    let connections = connections.max(shards.len());
    let mut assigned = Vec::new();
    for (index, (shard, queues)) in shards.iter().enumerate() {
        let least = queues.len().div_ceil(FETCHES_PER_CONNECTION_MAX);
        let own = (connections - index).div_ceil(shards.len()).max(least).min(queues.len());
        for connection in 0..own {
            let queues = queues.iter().skip(connection).step_by(own).copied().collect();
            assigned.push(Assigned { shard: *shard, queues });
        }
    }
    assigned
}

fn by_shard(queues: &[QueueInfo]) -> Vec<(ShardId, Vec<QueueNumber>)> {
    let mut shards = std::collections::BTreeMap::<ShardId, Vec<QueueNumber>>::new();
    queues.iter().for_each(|queue| shards.entry(queue.shard).or_default().push(queue.queue));
    shards.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::QueueOffset;

    fn queues(count: u32, shards: u16) -> Vec<QueueInfo> {
        let info = |queue| QueueInfo {
            queue: QueueNumber(queue),
            shard: QueueNumber(queue).shard(shards),
            first_offset: QueueOffset::ZERO,
            end_offset: QueueOffset::ZERO,
        };
        (0..count).map(info).collect()
    }

    fn numbers(assigned: &[Assigned]) -> Vec<(u16, Vec<u32>)> {
        let plain = |assigned: &Assigned| assigned.queues.iter().map(|queue| queue.0).collect();
        assigned.iter().map(|assigned| (assigned.shard.0, plain(assigned))).collect()
    }

    #[test]
    fn every_queue_has_a_producer_and_connections_are_used() {
        assert_eq!(numbers(&assign_producers(&queues(4, 1), 2)), [(0, vec![0, 2]), (0, vec![1, 3])]);
        assert_eq!(numbers(&assign_producers(&queues(1, 2), 3)), [(0, vec![0]), (0, vec![0]), (0, vec![0])]);
        assert_eq!(numbers(&assign_producers(&queues(4, 2), 1)), [(0, vec![0, 2]), (1, vec![1, 3])]);
        for (count, shards, connections) in [(1, 1, 1), (7, 3, 2), (7, 3, 10), (100, 4, 9)] {
            let assigned = assign_producers(&queues(count, shards), connections);
            let mut covered: Vec<u32> =
                numbers(&assigned).into_iter().flat_map(|(_, queues)| queues).collect();
            covered.sort_unstable();
            covered.dedup();
            assert_eq!(covered, (0..count).collect::<Vec<_>>());
            assert_eq!(assigned.len(), connections.max(usize::from(shards).min(count as usize)));
        }
    }

    #[test]
    fn every_queue_has_exactly_one_consumer() {
        assert_eq!(numbers(&assign_consumers(&queues(2, 1), 5)), [(0, vec![0]), (0, vec![1])]);
        for (count, shards, connections) in [(1, 1, 4), (7, 3, 2), (10_000, 2, 4)] {
            let assigned = assign_consumers(&queues(count, shards), connections);
            let mut covered: Vec<u32> =
                numbers(&assigned).into_iter().flat_map(|(_, queues)| queues).collect();
            covered.sort_unstable();
            assert_eq!(covered, (0..count).collect::<Vec<_>>());
            assert!(assigned.iter().all(|one| one.queues.len() <= FETCHES_PER_CONNECTION_MAX));
        }
    }
}
