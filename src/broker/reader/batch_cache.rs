//! Batches that a receive or a pull took some messages of: the next one goes on where it stopped, and would otherwise read
//! the same bytes again for each few messages.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::marks::RecordMarks;
use crate::types::LogPosition;

/// What a batch costs beside its bytes.
const ENTRY_BYTES: usize = 128;

/// The batches read last, up to a number of bytes. Positions are never used twice, so that nothing here grows stale.
#[derive(Debug)]
pub(in crate::broker) struct BatchCache {
    bytes_max: usize,
    bytes: usize,
    batches: HashMap<LogPosition, Bytes>,
    /// In the order in which they came.
    order: VecDeque<LogPosition>,
    /// Of these batches, and of others that some messages were taken of.
    marks: RecordMarks,
}

impl BatchCache {
    pub fn new(bytes_max: usize) -> Self {
        let (batches, order) = (HashMap::new(), VecDeque::new());
        Self { bytes_max, bytes: 0, batches, order, marks: RecordMarks::default() }
    }

    /// Where each few records of a batch begin.
    pub(super) fn marks(&mut self) -> &mut RecordMarks {
        &mut self.marks
    }

    pub fn get(&self, position: LogPosition) -> Option<Bytes> {
        self.batches.get(&position).cloned()
    }

    /// Keeps a batch, and lets the oldest ones go. One that is larger than everything is not kept.
    pub fn insert(&mut self, position: LogPosition, batch: Bytes) {
        let cost = batch.len() + ENTRY_BYTES;
        if cost > self.bytes_max || self.batches.contains_key(&position) {
            return;
        }
        while self.bytes + cost > self.bytes_max {
            let oldest = self.order.pop_front().expect("bytes are those of batches");
            let batch = self.batches.remove(&oldest).expect("both know the same batches");
            self.bytes -= batch.len() + ENTRY_BYTES;
        }
        self.bytes += cost;
        self.order.push_back(position);
        self.batches.insert(position, batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_memory_is_bounded() {
        let mut cache = BatchCache::new(4 * (100 + ENTRY_BYTES));
        for at in 0..10 {
            cache.insert(LogPosition(at), Bytes::from(vec![at as u8; 100]));
            assert!(cache.bytes <= cache.bytes_max);
        }
        assert!(cache.get(LogPosition(5)).is_none());
        for at in 6..10 {
            assert_eq!(cache.get(LogPosition(at)).expect("kept")[0], at as u8);
        }
        cache.insert(LogPosition(20), Bytes::from(vec![0; cache.bytes_max]));
        assert!(cache.get(LogPosition(20)).is_none(), "larger than everything");
        assert!(cache.get(LogPosition(9)).is_some());
        cache.insert(LogPosition(9), Bytes::from_static(b"again"));
        assert_eq!((cache.order.len(), cache.batches.len()), (4, 4));
    }
}
