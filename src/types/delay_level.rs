//! Delays by levels, as RocketMQ has them (`store/.../config/MessageStoreConfig.java`, `messageDelayLevel`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::limits;

/// RocketMQ's levels, unless an operator says others.
const USUAL: [u64; 18] =
    [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1_200, 1_800, 3_600, 7_200];

/// Units and their seconds, the largest first.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// How long a message of each level waits, in whole seconds. Levels begin with 1, and there is one at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayLevels(Vec<Duration>);

/// Why a text is no list of levels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelayLevelsError {
    #[error("it names no level: list their delays like \"1s 5s 10s 30s 1m 2m\"")]
    Empty,
    #[error("`{0}` is no delay of a level: write it like 10s, 5m, 2h or 1d")]
    Delay(String),
    #[error(
        "`{0}` is longer than a message can wait, which is {days} days",
        days = limits::DELAY_MS_MAX / 86_400_000
    )]
    TooLong(String),
    #[error("it names {0} levels: there are {max} at most", max = limits::DELAY_LEVELS_MAX)]
    TooMany(usize),
}

impl DelayLevels {
    /// A level and how long its messages wait; of one above the last, the last.
    pub fn level(&self, asked: u32) -> (u32, Duration) {
        let level = asked.min(self.0.len() as u32);
        let delay = (level as usize).checked_sub(1).map_or(Duration::ZERO, |index| self.0[index]);
        (level, delay)
    }
}

impl Default for DelayLevels {
    fn default() -> Self {
        Self(USUAL.map(Duration::from_secs).to_vec())
    }
}

impl FromStr for DelayLevels {
    type Err = DelayLevelsError;

    fn from_str(text: &str) -> Result<Self, DelayLevelsError> {
        let delays: Vec<_> = text.split_ascii_whitespace().map(delay).collect::<Result<_, _>>()?;
        match delays.len() {
            0 => Err(DelayLevelsError::Empty),
            count if count > limits::DELAY_LEVELS_MAX => Err(DelayLevelsError::TooMany(count)),
            _ => Ok(Self(delays)),
        }
    }
}

/// One level's delay, as it is written.
fn delay(text: &str) -> Result<Duration, DelayLevelsError> {
    let wrong = || DelayLevelsError::Delay(text.to_owned());
    let too_long = || DelayLevelsError::TooLong(text.to_owned());
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(*unit));
    let (number, (_, seconds)) = (text.get(..text.len() - 1).unwrap_or_default(), unit.ok_or_else(wrong)?);
    if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = number.parse().map_err(|_| too_long())?;
    let delay = Duration::from_secs(number.checked_mul(*seconds).ok_or_else(too_long)?);
    if delay <= Duration::from_millis(limits::DELAY_MS_MAX) { Ok(delay) } else { Err(too_long()) }
}

impl fmt::Display for DelayLevels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, delay) in self.0.iter().enumerate() {
            let seconds = delay.as_secs();
            let unit = UNITS.iter().find(|(_, of)| seconds > 0 && seconds.is_multiple_of(*of));
            let (unit, of) = unit.unwrap_or(&('s', 1));
            let blank = if index == 0 { "" } else { " " };
            write!(formatter, "{blank}{}{unit}", seconds / of)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(text: &str) -> Result<DelayLevels, DelayLevelsError> {
        text.parse()
    }

    #[test]
    fn the_usual_levels_are_rocketmqs() {
        let text = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";
        assert_eq!(DelayLevels::default().to_string(), text);
        assert_eq!(levels(text), Ok(DelayLevels::default()));
    }

    #[test]
    fn a_level_above_the_last_is_the_last_and_the_first_is_one() {
        let levels = levels(" 2s  90s 1d 40d ").expect("levels");
        let seconds = |level| levels.level(level).1.as_secs();
        assert_eq!([0, 1, 2, 3, 4].map(seconds), [0, 2, 90, 86_400, 40 * 86_400]);
        assert_eq!(levels.level(5), levels.level(4));
        assert_eq!(levels.level(u32::MAX).0, 4);
        assert_eq!(levels.to_string(), "2s 90s 1d 40d");
        assert_eq!("0s 1s".parse::<DelayLevels>().map(|levels| levels.to_string()), Ok("0s 1s".to_owned()));
    }

    #[test]
    fn what_is_no_list_of_delays_is_refused_in_words() {
        for text in ["", "  "] {
            assert_eq!(levels(text), Err(DelayLevelsError::Empty));
        }
        for wrong in ["5", "s", "5x", "1.5s", "-1s", "+1s", "1S", "1ms", "5\u{e4}", "1s,2s"] {
            let error = levels(&format!("1s {wrong}")).expect_err(wrong);
            assert_eq!(error, DelayLevelsError::Delay(wrong.to_owned()));
            assert!(error.to_string().contains("write it like 10s"), "{error}");
        }
        for long in ["41d", "961h", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(levels(long), Err(DelayLevelsError::TooLong(long.to_owned())));
        }
        let many = "1s ".repeat(limits::DELAY_LEVELS_MAX + 1);
        assert_eq!(levels(&many), Err(DelayLevelsError::TooMany(limits::DELAY_LEVELS_MAX + 1)));
        assert!(levels(&many[3..]).is_ok());
    }
}
