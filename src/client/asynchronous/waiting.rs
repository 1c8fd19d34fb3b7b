//! Who waits for the end of which message. No I/O.
//!
//! A batch has messages of one queue in the order of their numbers, and no others of that queue are between them: so its
//! first number and its count say which they are.

use std::collections::{HashMap, VecDeque};

use crate::types::QueueNumber;

/// Waiters by queue, in the order of their messages' numbers.
pub(super) struct Waiting<W> {
    queues: HashMap<QueueNumber, VecDeque<(u64, W)>>,
}

impl<W> Waiting<W> {
    pub(super) fn new() -> Self {
        Self { queues: HashMap::new() }
    }

    /// A message was put into a queue's batch. Numbers rise.
    pub(super) fn push(&mut self, queue: QueueNumber, number: u64, waiter: W) {
        let queue = self.queues.entry(queue).or_default();
        assert!(queue.back().is_none_or(|(last, _)| *last < number), "message {number} came before");
        queue.push_back((number, waiter));
    }

    /// Those of the batch that begins with message `first`, in its order.
    pub(super) fn take(&mut self, queue: QueueNumber, first: u64, count: u32) -> Vec<W> {
        let Some(waiting) = self.queues.get_mut(&queue) else { return Vec::new() };
        let start = waiting.partition_point(|(number, _)| *number < first);
        let end = waiting.len().min(start + count as usize);
        let taken = waiting.drain(start..end).map(|(_, waiter)| waiter).collect();
        if waiting.is_empty() {
            self.queues.remove(&queue);
        }
        taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_finds_its_own_whatever_ends_first() {
        let (one, two) = (QueueNumber(1), QueueNumber(2));
        let mut waiting = Waiting::new();
        for number in 0..10 {
            let queue = if number % 2 == 0 { one } else { two };
            waiting.push(queue, number, number);
        }
        assert_eq!(waiting.take(one, 4, 2), [4, 6]);
        assert_eq!(waiting.take(one, 0, 2), [0, 2]);
        assert_eq!(waiting.take(two, 1, 5), [1, 3, 5, 7, 9]);
        assert!(!waiting.is_empty());
        assert_eq!(waiting.take(one, 8, 1), [8]);
        assert!(waiting.is_empty());
        assert!(waiting.take(one, 8, 1).is_empty());
    }
}
