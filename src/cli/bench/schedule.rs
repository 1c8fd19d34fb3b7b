//! When batches are due in an open-loop run.

/// A fixed schedule: batch `i` of the run is due at the same time whatever became of the ones before. Connections take
/// turns, so that each has an even schedule of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Messages per second over all connections.
    rate: u64,
    batch_messages: u64,
    connections: u64,
    connection: u64,
}

impl Schedule {
    /// The part of `connection` in a run at `rate` messages per second.
    pub fn new(rate: u64, batch_messages: u32, connections: usize, connection: usize) -> Self {
        assert!(rate > 0 && batch_messages > 0, "a schedule has a rate");
        assert!(connection < connections, "connection {connection} of {connections}");
        Self {
            rate,
            batch_messages: u64::from(batch_messages),
            connections: connections as u64,
            connection: connection as u64,
        }
    }

    /// Nanoseconds from the start of the run to when this connection's batch `index` is to be sent.
    pub fn due_ns(&self, index: u64) -> u64 {
        let batch = index * self.connections + self.connection;
        let nanoseconds = u128::from(batch) * u128::from(self.batch_messages) * 1_000_000_000;
        u64::try_from(nanoseconds / u128::from(self.rate)).unwrap_or(u64::MAX)
    }

    /// Batches of this connection that are due before `end_ns`.
    pub fn due_before(&self, end_ns: u64) -> u64 {
        // Batches of all connections that are due before the end: those with due_ns < end_ns.
        let numerator = u128::from(end_ns) * u128::from(self.rate);
        let all = numerator.div_ceil(u128::from(self.batch_messages) * 1_000_000_000);
        (all as u64).saturating_sub(self.connection).div_ceil(self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_turns_at_the_common_rate() {
        let schedules = [0, 1].map(|connection| Schedule::new(1000, 10, 2, connection));
        assert_eq!([0, 1, 2].map(|index| schedules[0].due_ns(index)), [0, 20_000_000, 40_000_000]);
        assert_eq!([0, 1, 2].map(|index| schedules[1].due_ns(index)), [10_000_000, 30_000_000, 50_000_000]);
    }

    #[test]
    fn a_long_run_does_not_drift() {
        let schedule = Schedule::new(3, 1, 1, 0);
        assert_eq!(schedule.due_ns(3 * 86_400), 86_400 * 1_000_000_000);
    }

    #[test]
    fn the_count_before_an_end_agrees_with_the_times() {
        for (rate, batch, connections) in [(1000, 10, 2), (3, 1, 1), (7, 2, 3), (1_000_000, 500, 4)] {
            for connection in 0..connections {
                let schedule = Schedule::new(rate, batch, connections, connection);
                for end in [0, 1, 999_999_999, 1_000_000_000, 2_345_678_901] {
                    let count = schedule.due_before(end);
                    assert!(schedule.due_ns(count) >= end, "{schedule:?} {end}");
                    assert!(count == 0 || schedule.due_ns(count - 1) < end, "{schedule:?} {end}");
                }
            }
        }
    }
}
