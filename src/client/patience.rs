//! Since when each connection's answers are waited for, and when one is overdue. No I/O.

use std::time::{Duration, Instant};

/// One entry per shard. A peer that answers now and then is alive: waiting begins anew with every answer.
pub(super) struct Patience {
    limit: Duration,
    waiting_since: Vec<Option<Instant>>,
}

impl Patience {
    pub(super) fn new(limit: Duration, shard_count: u16) -> Self {
        Self { limit, waiting_since: vec![None; usize::from(shard_count)] }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// A request was sent.
    pub(super) fn asked(&mut self, shard: usize, now: Instant) {
        self.waiting_since[shard].get_or_insert(now);
    }

    /// An answer came; `more` says whether others are waited for.
    pub(super) fn answered(&mut self, shard: usize, more: bool, now: Instant) {
        self.waiting_since[shard] = more.then_some(now);
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self, shard: usize) {
        self.waiting_since[shard] = None;
    }

    /// When the first answer will be overdue.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting_since.iter().flatten().min().map(|&since| since + self.limit)
    }

    /// A shard whose answer is overdue.
    pub(super) fn overdue(&self, now: Instant) -> Option<usize> {
        self.waiting_since.iter().position(|since| since.is_some_and(|since| now >= since + self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_answers_is_waited_for_anew() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut patience = Patience::new(3 * second, 2);
        assert_eq!(patience.deadline(), None);
        patience.asked(1, start);
        patience.asked(1, start + second);
        patience.asked(0, start + second);
        assert_eq!(patience.deadline(), Some(start + 3 * second));
        patience.answered(1, true, start + 2 * second);
        assert_eq!(patience.overdue(start + 4 * second), Some(0));
        patience.answered(0, false, start + 4 * second);
        assert_eq!(patience.overdue(start + 4 * second), None);
        assert_eq!(patience.overdue(start + 5 * second), Some(1));
        patience.lost(1);
        assert_eq!(patience.deadline(), None);
    }
}
