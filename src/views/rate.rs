//! How fast a count grows.

use std::time::Duration;

/// What a count grew by from one look to the next, in a second; `None` where it was not there before, or did not grow, so that it
/// began anew in between.
pub fn per_second(before: Option<u64>, now: u64, interval: Duration) -> Option<f64> {
    let grown = now.checked_sub(before?)?;
    let seconds = interval.as_secs_f64();
    (seconds > 0.0).then(|| grown as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_began_anew_has_no_rate() {
        let interval = Duration::from_secs(2);
        assert_eq!(per_second(Some(10), 30, interval), Some(10.0));
        assert_eq!(per_second(None, 30, interval), None);
        assert_eq!(per_second(Some(10), 3, interval), None);
        assert_eq!(per_second(Some(10), 30, Duration::ZERO), None);
    }
}
