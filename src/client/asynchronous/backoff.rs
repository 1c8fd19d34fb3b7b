//! How long a broker that was lost is tried again, and how often.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause before the next attempt; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Backoff {
    /// How long attempts may fail.
    limit: Duration,
    failing_since: Option<Instant>,
    pause: Duration,
}

impl Backoff {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, failing_since: None, pause: PAUSE_MIN }
    }

    /// An attempt has failed. The pause before the next one; `None` when attempts have failed for long enough: whatever is
    /// tried then begins anew.
    pub(super) fn failed(&mut self) -> Option<Duration> {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.limit {
            self.succeeded();
            return None;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        Some(pause)
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::new(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(3_600));
        let pauses: Vec<_> = (0..10).map_while(|_| backoff.failed()).collect();
        assert_eq!(pauses[..3], [PAUSE_MIN, 2 * PAUSE_MIN, 4 * PAUSE_MIN]);
        assert_eq!(pauses[9], PAUSE_MAX);
        backoff.succeeded();
        assert_eq!(backoff.failed(), Some(PAUSE_MIN));
        assert_eq!(Backoff::new(Duration::ZERO).failed(), None);
    }
}
